/* outcomes_show.c - what is known of one message's outcome, as show presents it. */
#include "replay/outcomes.h"

#include <string.h>

struct one {
	uint64_t seq;
	struct mw_arena *arena;
	struct mw_outcome *ret;
	size_t cap;
	bool found;
};

static struct mw_outcome_rcpt *
entry(struct mw_arena *a, struct mw_outcome *o, size_t *cap,
      const struct mw_outcome_rcpt *r)
{
	for (size_t i = 0; i < o->n_rcpt; i++)
		if (mw_str_eq(o->rcpt[i].addr, r->addr) &&
		    mw_str_eq(o->rcpt[i].original, r->original))
			return &o->rcpt[i];
	struct mw_outcome_rcpt *v =
	    mw_arena_grow(a, o->rcpt, cap, o->n_rcpt + 1, sizeof *v);
	if (!v)
		return NULL;
	o->rcpt = v;
	return &v[o->n_rcpt++];
}

int
mw_outcomes_merge(struct mw_arena *a, struct mw_outcome *into, size_t *cap_rcpt,
                  const struct mw_outcome *o)
{
	if (o->whole) {
		into->whole = o->whole;
		into->whole_us = o->whole_us;
		into->freed = false;
	}
	if (o->freed) {
		into->freed = true;
		if (into->whole == MW_FACT_HELD || into->whole == MW_FACT_REFUSED)
			into->whole = MW_FACT_UNKNOWN;
	}
	if (o->done) {
		into->done = true;
		into->done_us = o->done_us;
	}
	for (size_t i = 0; i < o->n_rcpt; i++) {
		const struct mw_outcome_rcpt *r = &o->rcpt[i];
		struct mw_outcome_rcpt *e = entry(a, into, cap_rcpt, r);
		if (!e)
			return MW_ENOMEM;
		*e = (struct mw_outcome_rcpt){.addr = mw_arena_str(a, r->addr),
		                              .original = mw_arena_str(a, r->original),
		                              .fact = r->fact,
		                              .time_us = r->time_us,
		                              .dsn = mw_arena_str(a, r->dsn),
		                              .relay = mw_arena_str(a, r->relay),
		                              .text = mw_arena_str(a, r->text)};
		if (!e->addr.p || !e->original.p || !e->dsn.p || !e->relay.p ||
		    !e->text.p)
			return MW_ENOMEM;
	}
	return 0;
}

static int
on_outcome(void *arg, const struct mw_outcome *o)
{
	struct one *w = arg;
	if (o->seq != w->seq)
		return 0;
	w->found = true;
	return mw_outcomes_merge(w->arena, w->ret, &w->cap, o);
}

int
mw_outcomes_of(struct mw_store *st, const struct mw_gone *gone, const struct mw_record *r,
               struct mw_arena *a, struct mw_outcome *ret)
{
	struct one w = {.seq = r->seq, .arena = a, .ret = ret};
	struct mw_err err;
	*ret = (struct mw_outcome){.seq = r->seq};
	return mw_outcomes_about(st, gone, r->id, on_outcome, &w, &err) == 0 && w.found;
}

static json_t *
fact_json(enum mw_fact fact, int64_t us)
{
	char when[40];
	mw_time_rfc3339(when, sizeof when, us);
	return json_pack("{s:s, s:s}", "outcome", mw_fact_name(fact), "time", when);
}

json_t *
mw_outcomes_add(json_t *o, struct mw_store *st, const struct mw_record *r,
                struct mw_arena *a)
{
	struct mw_outcome x;
	json_t *v = o && mw_outcomes_of(st, NULL, r, a, &x) ? json_array() : NULL;
	if (!v)
		return o;
	for (size_t i = 0; i < x.n_rcpt; i++) {
		const struct mw_outcome_rcpt *p = &x.rcpt[i];
		json_t *j = fact_json(p->fact, p->time_us);
		(void)json_object_set_new(j, "recipient", mw_json_str(p->addr));
		if (p->original.n)
			(void)json_object_set_new(j, "original",
			                          mw_json_str(p->original));
		(void)json_object_set_new(j, "dsn", mw_json_str(p->dsn));
		(void)json_object_set_new(j, "relay", mw_json_str(p->relay));
		(void)json_object_set_new(j, "text", mw_json_str(p->text));
		(void)json_array_append_new(v, j);
	}
	if (x.whole)
		(void)json_array_append_new(v, fact_json(x.whole, x.whole_us));
	(void)json_object_set_new(o, "outcomes", v);
	return o;
}

static void
put_fact(struct mw_buf *b, enum mw_fact fact, int64_t us)
{
	char when[40];
	mw_time_local(when, sizeof when, us);
	mw_buf_printf(b, "%s %s",
	              fact == MW_FACT_UNKNOWN ? "handed to another program"
	                                      : mw_fact_name(fact),
	              when);
}

void
mw_outcomes_text(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
                 void (*line)(const char *name, struct mw_str text))
{
	struct mw_outcome x;
	if (!mw_outcomes_of(st, NULL, r, a, &x))
		return;
	for (size_t i = 0; i < x.n_rcpt; i++) {
		const struct mw_outcome_rcpt *p = &x.rcpt[i];
		MW_BUF_AUTO b = {0};
		mw_buf_putc(&b, '<');
		mw_buf_putstr(&b, p->addr);
		mw_buf_puts(&b, "> ");
		put_fact(&b, p->fact, p->time_us);
		if (p->fact != MW_FACT_DELIVERED && p->text.n) {
			mw_buf_puts(&b, " (");
			mw_buf_putstr(&b, p->text);
			mw_buf_putc(&b, ')');
		}
		line("outcome", mw_buf_str(&b));
	}
	if (x.whole) {
		MW_BUF_AUTO b = {0};
		put_fact(&b, x.whole, x.whole_us);
		line("outcome", mw_buf_str(&b));
	}
}
