#include "replay/retain.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>

int
mw_retain_begin(struct mw_cli *cli, bool write, struct mw_retain_job *j,
                struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	(void)snprintf(j->by, sizeof j->by, "uid %u", (unsigned)getuid());
	j->owner = (struct mw_retain_owner){.dir = cli->journals[0],
	                                    .by = j->by,
	                                    .now_us = clock->now_us(clock)};
	j->lock = -1;
	if (!write)
		return 0;
	int r = mw_cli_as_owner(cli->journals[0], err);
	if (r == 0)
		r = mw_retain_lock(cli->journals[0], &j->lock, err);
	return r < 0 ? mw_cli_owner_hint(err, "this is for root and the journal's owner")
	             : 0;
}

int
mw_retain_write(struct mw_cli *cli, struct mw_retain_job *j, struct mw_err *err)
{
	mw_store_close(MW_TAKE(cli->stores[0]));
	return mw_owner_open(&j->owner, err);
}

void
mw_retain_end(struct mw_retain_job *j)
{
	mw_owner_close(&j->owner);
	if (j->lock >= 0)
		(void)close(j->lock);
	j->lock = -1;
	mw_cli_as_self();
}

int
mw_retain_no_hold_lost(struct mw_cli *cli, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO text = {0};
	struct mw_lost lost;
	int r = a ? mw_holds_lost(cli->stores[0], a, mw_cli_stopped, &lost, err)
	          : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r < 0 || lost.n == 0)
		return r;
	mw_lost_text(&lost, &text);
	(void)
	    mw_fail(err, MW_EDAMAGED,
	            "%llu records cannot be read (sequence %s), and a hold may be among "
	            "them; nothing was erased",
	            (unsigned long long)mw_lost_count(&lost), mw_buf_cstr(&text));
	return mw_err_hint(err,
	                   "'mailwal verify' names the places; --despite-damage says "
	                   "that no hold was there");
}

json_t *
mw_lost_json(const struct mw_lost *l)
{
	json_t *v = json_array();
	for (size_t i = 0; l && i < l->n; i++)
		(void)json_array_append_new(v,
		                            json_pack("[I, I]", (json_int_t)l->v[i].first,
		                                      (json_int_t)l->v[i].last));
	return v;
}

int
mw_retain_confirm(uint64_t n, bool yes, const char *what, struct mw_err *err)
{
	char line[64], *end;
	if (yes)
		return 0;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		(void)mw_fail(err, MW_EUSAGE,
		              "%s %llu messages for good: nobody is here to be asked",
		              what, (unsigned long long)n);
		return mw_err_hint(err, "look with --dry-run, then give --yes");
	}
	fprintf(stderr,
	        "This will %s %llu messages for good. Type the number to go on: ", what,
	        (unsigned long long)n);
	if (!fgets(line, sizeof line, stdin))
		return mw_cli_stopped() ? mw_fail(err, MW_ECANCEL, "interrupted")
		                        : mw_fail(err, MW_EDECLINED, "not confirmed");
	unsigned long long got = strtoull(line, &end, 10);
	if (end == line || (*end && *end != '\n') || got != n)
		return mw_fail(err, MW_EDECLINED, "not confirmed");
	return 0;
}
