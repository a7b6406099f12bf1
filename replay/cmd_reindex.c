/* cmd_reindex.c - mailwal reindex. */
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <poll.h>
#include <stdio.h>

/* mailwald, or another one of us, may be at the index: whoever it is, is waited for. */
static int
alone(const struct mw_cli *cli, struct mw_store *st, uint64_t *ret_n, struct mw_err *err)
{
	enum {
		POLL_MS = 50,
		TELL_MS = 1000
	};
	for (int ms = 0;; ms += POLL_MS) {
		int r = mw_store_reindex(st, ret_n, err);
		if (r != MW_ELOCKED)
			return r;
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		if (ms == TELL_MS && !cli->quiet)
			fprintf(stderr, "mailwal: waiting: %s\n", err->msg);
		mw_err_clear(err);
		(void)poll(NULL, 0, POLL_MS);
	}
}

static int
reindex(const struct mw_cli *cli, size_t k, uint64_t *all)
{
	MW_STORE_AUTO *st = NULL;
	struct mw_err err = {0};
	uint64_t n = 0;
	const struct mw_clock *clock = mw_clock_system();
	int64_t start = clock->mono_us(clock);
	int r = mw_cli_as_owner(cli->journals[k], &err);
	if (r == 0)
		r = mw_cli_open(cli, k, &st, &err);
	if (r == 0)
		r = alone(cli, st, &n, &err);
	mw_cli_as_self();
	if (r < 0)
		return mw_cli_error(cli, &err);
	*all += n;
	double seconds = (double)(clock->mono_us(clock) - start) / 1e6;
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:o, s:I, s:I, s:f}", "message_type",
		                      cli->n_journals > 1 ? "journal" : "summary",
		                      "journal", mw_json_str(mw_strz(cli->journals[k])),
		                      "records", (json_int_t)n, "selected", (json_int_t)n,
		                      "duration_s", seconds));
	else if (!cli->quiet)
		printf("%s: %llu records indexed in %.1f s\n", cli->journals[k],
		       (unsigned long long)n, seconds);
	return 0;
}

int
mw_cmd_reindex(struct mw_cli *cli, int argc, char **argv)
{
	if (argc > 1)
		return mw_cli_unknown(cli, mw_cmd_find("reindex"), argv[1]);
	uint64_t all = 0;
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	for (size_t k = 0; k < cli->n_journals; k++) {
		status = reindex(cli, k, &all);
		if (status != 0)
			return status;
	}
	if (cli->json && cli->n_journals > 1)
		mw_cli_json(json_pack("{s:s, s:I, s:I, s:I}", "message_type", "summary",
		                      "journals", (json_int_t)cli->n_journals, "records",
		                      (json_int_t)all, "selected", (json_int_t)all));
	return 0;
}
