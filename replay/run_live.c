/* run_live.c - a store in use is not a restored backup: a replay into the former brings
 * back what its users have removed. Told by what is there: of a restored store everything
 * is missing from the backup on, until the server took mail again. */
#include "replay/run.h"

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum {
	ENOUGH = 5, /* messages, so that a few that came meanwhile are no sign */
	SLICE_MS = 200
};

/* Copies that are there and newer than the oldest missing one, and the missing ones. */
static void
count(const struct mw_run *r, const struct mw_plan_box *b, size_t *ret_newer,
      size_t *ret_missing)
{
	int64_t oldest = INT64_MAX;
	*ret_newer = *ret_missing = 0;
	for (size_t i = 0; i < b->n; i++) {
		const struct mw_plan_copy *c = &b->v[i];
		if (!c->wanted || c->fate != MW_FATE_OPEN)
			continue;
		++*ret_missing;
		if (r->plan->rec[c->rec].time_us < oldest)
			oldest = r->plan->rec[c->rec].time_us;
	}
	for (size_t i = 0; i < b->n; i++)
		*ret_newer += b->v[i].wanted && b->v[i].fate == MW_FATE_PRESENT &&
		              r->plan->rec[b->v[i].rec].time_us > oldest;
}

/* Ctrl-C may be told to another thread than this one, which waits for the answer. */
static enum mw_live
ask(void)
{
	char line[16];
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	fputs("Put it all back all the same? [y/N] ", stderr);
	while (!mw_cli_stopped() && poll(&p, 1, SLICE_MS) == 0)
		;
	if (mw_cli_stopped())
		return MW_LIVE_INTERRUPTED;
	if (fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y'))
		return MW_LIVE_GO_ON;
	return mw_cli_stopped() ? MW_LIVE_INTERRUPTED : MW_LIVE_STOP;
}

int
mw_run_may_put(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	struct mw_run_shared *sh = r->shared;
	size_t newer, missing;
	int q = 0;
	if (!r->ask_live)
		return 0;
	count(r, b, &newer, &missing);
	if (newer < ENOUGH || newer <= missing)
		return 0;
	(void)pthread_mutex_lock(&sh->mu);
	r->report->in_use += !b->in_use; /* it may be tried again */
	b->in_use = true;
	bool first = sh->live == MW_LIVE_NOT_ASKED;
	bool terminal =
	    !r->dry && isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
	if (first && (terminal || !r->cli->quiet)) {
		MW_BUF_AUTO name = {0};
		mw_text_safe(mw_strz(b->shared ? b->box : b->mailbox), false, &name);
		mw_progress_clear(&sh->progress);
		fprintf(stderr,
		        "mailwal: warning: %s has %zu messages that are newer than what "
		        "is missing there (%zu).\n"
		        "  That is how a store in use looks, not one that was restored: "
		        "what is missing may be what its users removed.\n",
		        mw_buf_cstr(&name), newer, missing);
		if (!terminal && !r->dry)
			fputs("  It is put back all the same, since nobody can be asked; "
			      "'mailwal replay undo' takes it away again.\n",
			      stderr);
	}
	if (first)
		sh->live = terminal ? ask() : MW_LIVE_GO_ON;
	if (sh->live == MW_LIVE_STOP)
		q = mw_fail(err, MW_EDECLINED, "not confirmed");
	else if (sh->live == MW_LIVE_INTERRUPTED)
		q = mw_fail(err, MW_ECANCEL, "interrupted");
	(void)pthread_mutex_unlock(&sh->mu);
	return q;
}
