#include "replay/early.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct mw_early {
	struct mw_target *t;
	char *mailbox, *box;
	enum mw_early_look look;
	bool dry, taken, running;
	pthread_t thread;
	/* the thread's, until it is joined */
	struct mw_look found;
	bool open;
	int code;
	struct mw_err err;
	int lost; /* of a close, where another failure counts or nobody wanted the box */
};

static int
on_found(void *arg, const struct mw_found *f)
{
	struct mw_early *e = arg;
	int r = mw_look_found(&e->found, f);
	return r ? mw_fail(&e->err, r, "out of memory") : 0;
}

static void *
go(void *arg)
{
	struct mw_early *e = arg;
	e->code = mw_target_open(e->t, e->mailbox, e->box, e->dry, &e->err);
	e->open = e->code == 0;
	if (e->open && e->look == MW_EARLY_FULL && mw_look_blind(&e->found))
		e->code = mw_fail(&e->err, MW_ENOMEM, "out of memory");
	e->t->brief = e->look == MW_EARLY_BRIEF;
	if (!e->code && e->look != MW_EARLY_NONE)
		e->code = mw_target_scan(e->t, on_found, e, &e->err);
	e->t->brief = false;
	return NULL;
}

struct mw_early *
mw_early_start(const struct mw_target *t, const char *mailbox, const char *box, bool dry,
               enum mw_early_look look)
{
	struct mw_early *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->dry = dry;
	e->look = look;
	e->mailbox = strdup(mailbox);
	e->box = strdup(box);
	e->running = e->mailbox && e->box && mw_target_clone(t, &e->t) == 0 &&
	             pthread_create(&e->thread, NULL, go, e) == 0;
	if (e->running)
		return e;
	mw_early_free(e);
	return NULL;
}

bool
mw_early_of(const struct mw_early *e, const char *box)
{
	/* Only the worker of that box goes on to look whether it was taken. */
	return e && strcmp(e->box, box) == 0 && !e->taken;
}

static void
end(struct mw_early *e)
{
	if (e->running)
		(void)pthread_join(e->thread, NULL);
	e->running = false;
}

int
mw_early_take(struct mw_early *e, struct mw_run *r, struct mw_look *l, struct mw_err *err)
{
	struct mw_target *t = r->target;
	struct mw_err ignored;
	end(e);
	e->taken = true;
	r->target = e->t;
	e->t = t;
	if (e->code && e->open)
		e->lost = mw_target_close(r->target, &ignored);
	if (e->code) {
		*err = e->err;
		return e->code;
	}
	l->early = e->look;
	mw_look_forget(l);
	free(l->s);
	l->s = e->found.s;
	l->m = e->found.m;
	l->cap = e->found.cap;
	l->hops = e->found.hops;
	e->found.hops = NULL;
	e->found.s = NULL;
	e->found.m = 0;
	return 0;
}

void
mw_early_free(struct mw_early *e)
{
	if (!e)
		return;
	struct mw_err ignored;
	end(e);
	if (e->open && !e->taken)
		e->lost = mw_target_close(e->t, &ignored);
	mw_target_free(e->t);
	mw_look_forget(&e->found);
	free(e->found.s);
	free(e->mailbox);
	free(e->box);
	free(e);
}
