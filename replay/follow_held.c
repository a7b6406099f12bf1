/* follow_held.c - copies that one host of a set could not put: of an alias, which is no
 * mailbox, the next host knows the people. Its record comes a moment later, and is why
 * they are not told at once as failed. */
#include "replay/follow.h"

#include "journal/base/clock.h"

#include <stdlib.h>
#include <string.h>

enum {
	MOST = 10000,
	WITHIN_S = 60 /* then it is told: that mail is not there so far */
};

struct mw_follow_held {
	struct one {
		size_t journal;
		struct mw_record rec;
		char *mailbox, *addr, *why;
		int64_t until_us; /* monotonic; in order */
	} v[MOST];
	size_t n;
};

static int64_t
now_mono(void)
{
	const struct mw_clock *clock = mw_clock_system();
	return clock->mono_us(clock);
}

static void
drop(struct one *o)
{
	free(o->mailbox);
	free(o->addr);
	free(o->why);
}

bool
mw_follow_took(const struct mw_mail *m, struct mw_str addr)
{
	const unsigned any =
	    MW_RCPT_REFUSED | MW_RCPT_EXCLUDED | MW_RCPT_UNDECIDED | MW_RCPT_LOCAL;
	for (size_t i = 0; i < m->n_rcpt; i++)
		if ((m->rcpt[i].flags & any) == MW_RCPT_LOCAL &&
		    mw_str_ieq(m->rcpt[i].addr, addr))
			return true;
	return false;
}

void
mw_follow_hold(struct mw_follow *f, size_t journal, const struct mw_record *r,
               const char *mailbox, struct mw_str addr, int code, const char *why)
{
	struct mw_follow_held *h = f->held;
	bool wait =
	    addr.n && f->cli->n_journals > 1 && (code == MW_ENOUSER || code == MW_EAUTH);
	if (wait && !h)
		h = f->held = calloc(1, sizeof *h);
	if (!wait || !h || h->n == MOST) {
		mw_follow_failed(f, r->id, mailbox, why);
		return;
	}
	struct one o = {.journal = journal,
	                .rec = *r,
	                .mailbox = strdup(mailbox),
	                .addr = strndup(addr.p, addr.n),
	                .why = strdup(why),
	                .until_us = now_mono() + INT64_C(1000000) * WITHIN_S};
	if (o.mailbox && o.addr && o.why) {
		h->v[h->n++] = o;
		return;
	}
	drop(&o);
	mw_follow_failed(f, r->id, mailbox, why);
}

/* Did the next host take that mail for the same recipient? In doubt not. */
static bool
went_on(struct mw_follow *f, const struct one *o)
{
	struct mw_err ignored = {0};
	struct mw_mail m;
	struct mw_follow_twin *t;
	size_t n;
	bool yes = false;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	if (!a ||
	    mw_later_mail(f->cli->stores[o->journal], &o->rec, a, &m, &ignored) < 0 ||
	    mw_follow_twins(f, NULL, o->journal, &o->rec, &m, a, &t, &n, &ignored) < 0)
		return false;
	for (size_t i = 0; i < n && !yes; i++)
		yes = t[i].later && mw_follow_took(&t[i].mail, mw_strz(o->addr));
	return yes;
}

void
mw_follow_tell_held(struct mw_follow *f, bool all)
{
	struct mw_follow_held *h = f->held;
	size_t n = 0;
	if (!h || !h->n)
		return;
	for (int64_t now = now_mono(); n < h->n && (all || h->v[n].until_us <= now);
	     n++) {
		if (!went_on(f, &h->v[n]))
			mw_follow_failed(f, h->v[n].rec.id, h->v[n].mailbox, h->v[n].why);
		drop(&h->v[n]);
	}
	h->n -= n;
	memmove(h->v, h->v + n, h->n * sizeof h->v[0]);
}

void
mw_follow_held_free(struct mw_follow *f)
{
	for (size_t i = 0; f->held && i < f->held->n; i++)
		drop(&f->held->v[i]);
	free(f->held);
	f->held = NULL;
}
