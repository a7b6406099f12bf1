/* cmd_checkpoint.c - mailwal checkpoint. */
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "journal/verify/checkpoint.h"
#include "replay/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What is durable: a running daemon knows; else all that is there. */
static uint64_t
durable(const char *dir)
{
	MW_BUF_AUTO reply = {.max = 1 << 20};
	json_error_t e;
	if (mw_control_call(dir, "status", &reply, NULL) < 0)
		return UINT64_MAX;
	json_t *o = json_loads(mw_buf_cstr(&reply), 0, &e);
	json_int_t next = json_integer_value(json_object_get(o, "next_seq"));
	json_decref(o);
	return next > 0 ? (uint64_t)next : UINT64_MAX;
}

static int
write_out(const char *file, const struct mw_buf *b, struct mw_err *err)
{
	size_t len = strlen(file);
	if (len == 0 || file[len - 1] == '/')
		return mw_fail(err, MW_EUSAGE, "--out: '%s' is no file name", file);
	int r = mw_fs_write_named(file, b->p, b->n);
	if (r == 0)
		return 0;
	errno = -r;
	if (r == -ENOENT || r == -ENOTDIR)
		return mw_fail(err, MW_ECREATE, "cannot write %s: no such directory",
		               file);
	return mw_fail_errno(err, "cannot write %s", file);
}

int
mw_cmd_checkpoint(struct mw_cli *cli, int argc, char **argv)
{
	const struct mw_clock *clock = mw_clock_system();
	const char *out = NULL;
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "--out", &out, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r == 0)
			return mw_cli_unknown(cli, mw_cmd_find("checkpoint"), argv[i]);
	}
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	struct mw_store *st = cli->stores[0];
	struct mw_record rec;
	MW_BUF_AUTO note = {0};
	int r = mw_store_last(st, durable(cli->journals[0]), &rec, &err);
	if (r == 0)
		r = mw_fail(&err, MW_ENOTFOUND, "the journal %s has no records yet",
		            cli->journals[0]);
	if (r > 0)
		r = mw_checkpoint_make(st, &rec, clock->now_us(clock), &note, &err);
	if (r == 0 && out && !(cli->json && strcmp(out, "-") == 0)) /* it is in there */
		r = write_out(out, &note, &err);
	if (r < 0)
		return mw_cli_error(cli, &err);
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:I, s:o}", "message_type", "summary", "seq",
		                      (json_int_t)rec.seq, "note",
		                      mw_json_str(mw_buf_str(&note))));
	else if (!out)
		(void)fwrite(note.p, 1, note.n, stdout);
	else if (!cli->quiet && strcmp(out, "-") != 0)
		printf("checkpoint of record %llu written to %s\n",
		       (unsigned long long)rec.seq, out);
	return 0;
}
