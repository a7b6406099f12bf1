/* run_left.c - placeholders of a run that was killed while it raised UIDs: gone before
 * the next one begins, whatever that one selects. */
#include "replay/raising.h"
#include "replay/run.h"

#include <stdio.h>

struct left {
	struct mw_target *t;
	const char *dir;
	struct mw_err *err;
};

static int
pass_over(void *arg, const struct mw_found *f)
{
	(void)arg, (void)f;
	return 0;
}

/* A scan takes away what it finds of them. */
static int
clear(struct mw_target *t, const char *mailbox, const char *box, struct mw_err *err)
{
	struct mw_err second;
	int r = mw_target_open(t, mailbox, box, false, err);
	if (r)
		return r;
	r = mw_target_scan(t, pass_over, NULL, err);
	int c = mw_target_close(t, r ? &second : err);
	return r ? r : c;
}

static int
on_box(void *arg, const char *mailbox, const char *box)
{
	const struct left *l = arg;
	struct mw_err why = {0};
	char text[400];
	int r = mw_cli_stopped() ? mw_fail(&why, MW_ECANCEL, "interrupted")
	                         : clear(l->t, mailbox, box, &why);
	if (!r || r == MW_ENOUSER) {
		mw_raising_done(l->dir, box);
		return 0;
	}
	if (r == MW_ECANCEL || r == MW_ENOMEM) {
		if (l->err)
			*l->err = why;
		return r;
	}
	(void)snprintf(text, sizeof text,
	               "warning: placeholders that a killed run left in mailbox %.80s "
	               "could not be taken away: %.250s",
	               mailbox, why.msg);
	if (l->t->o.note)
		l->t->o.note(l->t->o.note_arg, text);
	return r == MW_EUNAVAIL || r == MW_ETIMEOUT; /* the run itself will tell */
}

int
mw_run_clear_left(struct mw_ledger *ledger, struct mw_target *t, struct mw_err *err)
{
	struct left l = {t, mw_ledger_dir(ledger), err};
	if (!mw_target_raises(t))
		return 0;
	int r = mw_raising_each(l.dir, on_box, &l, err);
	return r < 0 ? r : 0;
}
