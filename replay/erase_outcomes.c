#include "replay/erase_outcomes.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

enum {
	FULL_BYTES = 150000 /* a record's size, about */
};

struct mw_renewed {
	struct mw_outcome o;
	size_t cap_rcpt;
	bool part; /* only one person's copies of it are erased */
};

static int
no_memory(struct mw_err *err)
{
	return mw_fail(err, MW_ENOMEM, "out of memory for outcomes");
}

int
mw_renew_note(struct mw_renew *w, const struct mw_record *r, struct mw_err *err)
{
	for (size_t i = w->n_rec; i > 0; i--) /* most often the one before */
		if (w->rec[i - 1].seq == r->seq)
			return 0;
	if (!w->arena && !(w->arena = mw_arena_new(0)))
		return no_memory(err);
	void *p =
	    mw_arena_grow(w->arena, w->rec, &w->cap_rec, w->n_rec + 1, sizeof *w->rec);
	if (!p)
		return no_memory(err);
	w->rec = p;
	w->rec[w->n_rec++] = *r;
	return 0;
}

/* ---- which mails ---- */

static int
by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static int
by_seq(const void *a, const void *b)
{
	return by_number(&((const struct mw_renewed *)a)->o.seq,
	                 &((const struct mw_renewed *)b)->o.seq);
}

struct prepare {
	struct mw_renew *w;
	struct mw_store *st;
	struct mw_arena *tmp;
	uint64_t *whole, *part; /* sorted */
	size_t n_whole, n_part;
	uint64_t first; /* of the records that go */
	struct mw_gone *gone;
	struct mw_err *err;
};

static bool
is_in(const uint64_t *v, size_t n, uint64_t seq)
{
	return n && bsearch(&seq, v, n, sizeof *v, by_number);
}

/* Decodes one into tmp. */
static int
decode(struct prepare *p, const struct mw_record *r, struct mw_outcomes *ret,
       struct mw_err *err)
{
	MW_BUF_AUTO cbor = {0};
	mw_arena_reset(p->tmp);
	int k = mw_record_meta(p->st, r, &cbor, err);
	if (k < 0)
		return k;
	struct mw_str text = mw_arena_str(p->tmp, mw_buf_str(&cbor));
	return text.p ? mw_outcomes_decode(text.p, text.n, p->tmp, ret, err)
	              : no_memory(err);
}

static int
take_mails(struct prepare *p, const struct mw_outcomes *o)
{
	struct mw_renew *w = p->w;
	for (size_t i = 0; i < o->n; i++) {
		const struct mw_outcome *x = &o->v[i];
		if (is_in(p->whole, p->n_whole, x->seq))
			continue;
		struct mw_renewed *v = mw_arena_grow(w->arena, w->mail, &w->cap_mail,
		                                     w->n_mail + 1, sizeof *v);
		if (!v)
			return no_memory(p->err);
		w->mail = v;
		struct mw_renewed *m = &v[w->n_mail++];
		*m = (struct mw_renewed){.o = {.seq = x->seq},
		                         .part = is_in(p->part, p->n_part, x->seq)};
		memcpy(m->o.id, x->id, MW_ID_LEN);
		m->o.queue_id = mw_arena_str(w->arena, x->queue_id);
		if (!m->o.queue_id.p)
			return no_memory(p->err);
	}
	return 0;
}

static int
mails(struct prepare *p)
{
	struct mw_renew *w = p->w;
	struct mw_outcomes o;
	p->first = UINT64_MAX;
	for (size_t i = 0; i < w->n_rec; i++) {
		int r = decode(p, &w->rec[i], &o, p->err);
		if (r < 0) {
			(void)mw_err_prefix(p->err,
			                    "outcomes of several messages, one of them "
			                    "to be erased");
			return r;
		}
		r = take_mails(p, &o);
		if (r < 0)
			return r;
		p->first = MW_MIN(p->first, w->rec[i].seq);
	}
	size_t k = 0;
	if (w->n_mail)
		qsort(w->mail, w->n_mail, sizeof *w->mail, by_seq);
	for (size_t i = 0; i < w->n_mail; i++)
		if (k == 0 || w->mail[k - 1].o.seq != w->mail[i].o.seq)
			w->mail[k++] = w->mail[i];
	w->n_mail = k;
	return 0;
}

/* ---- what is known of them ---- */

/* All that was said since, in log order: what is written anew comes last and counts. A
 * record that a tombstone names, and that was not wiped, has been written anew already,
 * without what was to go. */
static int
on_record(void *arg, const struct mw_record *r)
{
	struct prepare *p = arg;
	struct mw_renew *w = p->w;
	struct mw_outcomes o;
	struct mw_err e = {0};
	if (r->type != MW_TYPE_OUTCOME || r->seq < p->first ||
	    mw_gone_record(p->gone, r->seq))
		return 0;
	int k = decode(p, r, &o, &e);
	if (k == MW_ENOMEM || k == MW_EKEY) /* what it says must not be told over */
		return mw_fail(p->err, k, "%s", e.msg);
	for (size_t i = 0; k == 0 && i < o.n; i++) {
		struct mw_renewed key = {.o = {.seq = o.v[i].seq}};
		struct mw_renewed *m =
		    w->n_mail ? bsearch(&key, w->mail, w->n_mail, sizeof key, by_seq)
		              : NULL;
		if (m && mw_outcomes_merge(w->arena, &m->o, &m->cap_rcpt, &o.v[i]) < 0)
			return no_memory(p->err);
	}
	return 0;
}

static bool
names(const struct mw_query *q, struct mw_str text)
{
	MW_BUF_AUTO b = {0};
	bool yes = false;
	mw_buf_putstr(&b, text);
	for (size_t i = 0; i < q->n_user && !yes; i++)
		yes = strcasestr(mw_buf_cstr(&b), q->user[i]) != NULL;
	return yes || b.failed;
}

static int
take_out(const struct mw_query *q, struct mw_outcome *o)
{
	size_t k = 0;
	for (size_t i = 0; i < o->n_rcpt; i++) {
		struct mw_outcome_rcpt r = o->rcpt[i];
		int addr = mw_query_is_user(q, r.addr);
		int original = mw_query_is_user(q, r.original);
		if (addr < 0 || original < 0)
			return MW_ENOMEM;
		if (addr)
			continue;
		if (original)
			r.original = mw_str("", 0);
		if (names(q, r.text))
			r.text = mw_str("", 0);
		if (names(q, r.relay))
			r.relay = mw_str("", 0);
		o->rcpt[k++] = r;
	}
	o->n_rcpt = k;
	return 0;
}

static int
prepare(struct prepare *p, const struct mw_erase_list *list, const struct mw_query *q)
{
	char type = MW_TYPE_OUTCOME;
	for (size_t i = 0; i < list->n_whole; i++)
		p->whole[p->n_whole++] = list->whole[i].seq;
	for (size_t i = 0; i < list->n_part; i++)
		p->part[p->n_part++] = list->part[i];
	qsort(p->whole, p->n_whole, sizeof *p->whole, by_number);
	qsort(p->part, p->n_part, sizeof *p->part, by_number);
	int r = mails(p);
	if (r == 0)
		r = mw_store_find(p->st, MW_KEY_TYPE, mw_str(&type, 1), on_record, p,
		                  p->err);
	for (size_t i = 0; r == 0 && i < p->w->n_mail; i++)
		if (p->w->mail[i].part && take_out(q, &p->w->mail[i].o) < 0)
			r = no_memory(p->err);
	return r;
}

int
mw_renew_prepare(struct mw_renew *w, struct mw_store *st,
                 const struct mw_erase_list *list, const struct mw_query *q,
                 struct mw_err *err)
{
	struct prepare p = {.w = w, .st = st, .err = err};
	if (w->n_rec == 0)
		return 0;
	MW_ARENA_AUTO *tmp = mw_arena_new(64U << 20);
	MW_AUTOFREE uint64_t *whole = calloc(list->n_whole + 1, sizeof *whole);
	MW_AUTOFREE uint64_t *part = calloc(list->n_part + 1, sizeof *part);
	if (!tmp || !whole || !part)
		return no_memory(err);
	p.tmp = tmp;
	p.whole = whole;
	p.part = part;
	int r = mw_gone_load(st, &p.gone, err);
	if (r == 0)
		r = prepare(&p, list, q);
	mw_gone_free(p.gone);
	return r;
}

/* ---- writing ---- */

static size_t
size_of(const struct mw_outcome *o)
{
	size_t n = 60;
	for (size_t i = 0; i < o->n_rcpt; i++)
		n += 60 + o->rcpt[i].addr.n + o->rcpt[i].original.n + o->rcpt[i].relay.n +
		     o->rcpt[i].text.n;
	return n;
}

static int
write_some(struct mw_retain_owner *owner, struct mw_outcome *v, size_t n,
           struct mw_err *err)
{
	struct mw_outcomes o = {owner->now_us, v, n};
	MW_BUF_AUTO cbor = {0};
	if (n == 0)
		return 0;
	if (mw_outcomes_encode(&o, &cbor) < 0)
		return no_memory(err);
	return mw_owner_note(owner, MW_TYPE_OUTCOME, &cbor, err);
}

int
mw_renew_write(struct mw_renew *w, struct mw_retain_owner *o, struct mw_err *err)
{
	size_t n = 0, bytes = 0;
	int r = 0;
	MW_AUTOFREE struct mw_outcome *v = calloc(w->n_mail + 1, sizeof *v);
	if (!v)
		return no_memory(err);
	for (size_t i = 0; r == 0 && i < w->n_mail; i++) {
		const struct mw_outcome *x = &w->mail[i].o;
		if (!x->n_rcpt && !x->whole && !x->done && !x->freed)
			continue;
		v[n++] = *x;
		bytes += size_of(x);
		if (bytes < FULL_BYTES)
			continue;
		r = write_some(o, v, n, err);
		n = bytes = 0;
	}
	return r == 0 ? write_some(o, v, n, err) : r;
}

void
mw_renew_done(struct mw_renew *w)
{
	mw_arena_free(w->arena);
	memset(w, 0, sizeof *w);
}
