#include "replay/drill.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Box by box: what should be there and what is are two lists. They are matched by keys
 * from the strongest to the weakest; what a weaker key matches is a difference of a known
 * kind, and what none matches is missing or surplus. */

enum {
	KEY = 33 /* folder, and 32 bytes */
};

struct want {
	const struct mw_plan_copy *copy;
	const struct mw_plan_rec *rec;
	uint8_t sha256[32];
	bool matched, unreadable;
	bool gone; /* expired or erased since it was planned: it need not be there */
};

struct have {
	uint64_t key, msgid;
	int64_t date_us;
	bool sent, fetched, matched;
	uint8_t exact[32], digest[32];
	size_t want; /* what it was matched with */
};

struct box {
	struct mw_drill *d;
	struct mw_plan_box *b;
	struct want *w;
	struct have *h;
	size_t n_w, n_h, cap_h;
	struct mw_err *err;
};

static bool
no_queue(void *arg, uint64_t queue)
{
	(void)arg;
	(void)queue;
	return false;
}

static int
on_found(void *arg, const struct mw_found *f)
{
	struct box *x = arg;
	struct mw_facts facts;
	if (x->n_h == x->cap_h) {
		size_t cap = x->cap_h ? x->cap_h * 2 : 256;
		void *p = reallocarray(x->h, cap, sizeof *x->h);
		if (!p)
			return mw_fail(x->err, MW_ENOMEM, "out of memory");
		x->h = p;
		x->cap_h = cap;
	}
	mw_header_facts(f->header, no_queue, NULL, &facts);
	x->h[x->n_h++] = (struct have){.key = f->key,
	                               .msgid = facts.msgid,
	                               .date_us = f->date_us,
	                               .sent = f->sent_folder};
	return 0;
}

static int
by_key(const void *a, const void *b)
{
	uint64_t x = ((const struct have *)a)->key, y = ((const struct have *)b)->key;
	return x < y ? -1 : x > y;
}

static int
on_profile(void *arg, uint64_t key, struct mw_profile *take)
{
	struct box *x = arg;
	struct have want = {.key = key};
	struct have *h =
	    x->n_h ? bsearch(&want, x->h, x->n_h, sizeof want, by_key) : NULL;
	if (h) {
		memcpy(h->exact, take->exact, sizeof h->exact);
		memcpy(h->digest, take->digest, sizeof h->digest);
		h->fetched = true;
	}
	free(take);
	return 0;
}

static int
read_box(struct box *x)
{
	struct mw_drill *d = x->d;
	int r = mw_target_open(d->target, x->b->mailbox, x->b->box, true, x->err);
	if (r)
		return r;
	r = mw_target_scan(d->target, on_found, x, x->err);
	MW_AUTOFREE uint64_t *keys = calloc(x->n_h + 1, sizeof *keys);
	if (!r && !keys)
		r = mw_fail(x->err, MW_ENOMEM, "out of memory");
	if (!r && x->n_h) {
		qsort(x->h, x->n_h, sizeof *x->h, by_key);
		for (size_t i = 0; i < x->n_h; i++)
			keys[i] = x->h[i].key;
		r = mw_target_fetch(d->target, keys, x->n_h, on_profile, x, x->err);
	}
	struct mw_err second = {0};
	int c = mw_target_close(d->target, r ? &second : x->err);
	return r ? r : c;
}

/* The digests of what should be there come from the records, read anew. */
static int
load_wanted(struct box *x)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	x->w = calloc(x->b->n_wanted + 1, sizeof *x->w);
	if (!x->w || !a)
		return mw_fail(x->err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < x->b->n; i++) {
		const struct mw_plan_copy *c = &x->b->v[i];
		struct mw_record rec;
		struct mw_mail m;
		if (!c->wanted || x->n_w == x->b->n_wanted)
			continue;
		if (!mw_drill_expected(c)) {
			x->d->n.left_out++;
			continue;
		}
		struct want *w = &x->w[x->n_w++];
		w->copy = c;
		w->rec = &x->d->plan->rec[c->rec];
		mw_arena_reset(a);
		int r = mw_store_get_seq(x->d->st, w->rec->loc, w->rec->seq, &rec, NULL);
		if (r == 0)
			r = mw_record_mail(x->d->st, &rec, a, &m, NULL);
		w->gone = r == MW_EERASED;
		w->unreadable = r < 0 && !w->gone;
		x->d->n.left_out += w->gone;
		x->d->n.expected -= w->gone;
		if (!w->unreadable)
			memcpy(w->sha256, m.sha256, sizeof w->sha256);
	}
	x->d->n.expected += x->n_w;
	return 0;
}

/* ---- matching ---- */

struct pair {
	uint8_t key[KEY];
	int64_t date_s; /* 0 where it does not count */
	size_t i;
};

static int
by_match(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;
	int r = memcmp(x->key, y->key, KEY);
	return r ? r : x->date_s < y->date_s ? -1 : x->date_s > y->date_s;
}

static int
by_pair(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;
	int r = by_match(a, b);
	return r ? r : x->i < y->i ? -1 : x->i > y->i;
}

enum pass {
	EXACT,     /* folder and bytes */
	CANONICAL, /* folder and canonical form */
	ELSEWHERE, /* bytes, in the other folder */
	MESSAGE_ID /* folder and Message-ID only: altered */
};

static void
key_of_want(const struct want *w, enum pass pass, struct pair *p)
{
	memset(p->key, 0, KEY);
	p->key[0] = pass != ELSEWHERE && w->copy->sent;
	if (pass == CANONICAL)
		memcpy(p->key + 1, w->rec->digest, 32);
	else if (pass == MESSAGE_ID)
		memcpy(p->key + 1, &w->rec->msgid, sizeof w->rec->msgid);
	else
		memcpy(p->key + 1, w->sha256, 32);
}

static void
key_of_have(const struct have *h, enum pass pass, struct pair *p)
{
	memset(p->key, 0, KEY);
	p->key[0] = pass != ELSEWHERE && h->sent;
	if (pass == CANONICAL)
		memcpy(p->key + 1, h->digest, 32);
	else if (pass == MESSAGE_ID)
		memcpy(p->key + 1, &h->msgid, sizeof h->msgid);
	else
		memcpy(p->key + 1, h->exact, 32);
}

static void
differ(struct box *x, const struct want *w, const char *kind, const char *text)
{
	mw_drill_found(x->d, kind, w->rec->id, x->b->mailbox, "%s", text);
}

/* Whole seconds is what stores keep. */
static void
check_date(struct box *x, const struct want *w, const struct have *h)
{
	if (h->date_us == INT64_MIN || w->rec->time_us / 1000000 == h->date_us / 1000000)
		return;
	x->d->n.wrong_date++;
	mw_drill_found(x->d, "date", w->rec->id, x->b->mailbox,
	               "its arrival date is off by %lld s",
	               (long long)(h->date_us / 1000000 - w->rec->time_us / 1000000));
}

static void
matched(struct box *x, struct want *w, struct have *h, enum pass pass)
{
	struct mw_drill_count *n = &x->d->n;
	bool keeps_bytes = x->d->target->ops == &mw_target_maildir ||
	                   x->d->target->ops == &mw_target_eml;
	w->matched = h->matched = true;
	h->want = (size_t)(w - x->w);
	if (w->gone)
		return;
	if (pass == EXACT) {
		n->identical++;
	} else if (pass == CANONICAL && !keeps_bytes) {
		n->normalised++;
	} else if (pass == ELSEWHERE) {
		n->wrong_folder++;
		differ(x, w, "folder",
		       w->copy->sent ? "is in INBOX, not in Sent"
		                     : "is in Sent, not in INBOX");
	} else {
		n->altered++;
		differ(x, w, "altered", "its bytes are not the captured ones");
	}
	check_date(x, w, h);
}

/* dated: of copies of one message each is matched with the one of its own date. */
static int
match(struct box *x, enum pass pass, bool dated)
{
	MW_AUTOFREE struct pair *p = calloc(x->n_w + 1, sizeof *p);
	MW_AUTOFREE struct pair *q = calloc(x->n_h + 1, sizeof *q);
	size_t n = 0, m = 0;
	if (!p || !q)
		return mw_fail(x->err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < x->n_w; i++) {
		const struct want *w = &x->w[i];
		if (w->matched || w->unreadable || (pass == MESSAGE_ID && !w->rec->msgid))
			continue;
		if (w->gone && pass != CANONICAL) /* all else went with it */
			continue;
		key_of_want(w, pass, &p[n]);
		p[n].date_s = dated ? w->rec->time_us / 1000000 : 0;
		p[n++].i = i;
	}
	for (size_t i = 0; i < x->n_h; i++) {
		const struct have *h = &x->h[i];
		if (h->matched || (pass == MESSAGE_ID ? !h->msgid : !h->fetched))
			continue;
		key_of_have(h, pass, &q[m]);
		q[m].date_s = dated ? h->date_us / 1000000 : 0;
		q[m++].i = i;
	}
	qsort(p, n, sizeof *p, by_pair);
	qsort(q, m, sizeof *q, by_pair);
	for (size_t i = 0, j = 0; i < n && j < m;) {
		int r = by_match(&p[i], &q[j]);
		if (r == 0)
			matched(x, &x->w[p[i++].i], &x->h[q[j++].i], pass);
		else if (r < 0)
			i++;
		else
			j++;
	}
	return 0;
}

/* In each folder the copies stand in the order of their arrival. */
static void
check_order(struct box *x)
{
	size_t last[2] = {0, 0};
	if (x->d->target->ops == &mw_target_eml)
		return; /* a tree of files has no order */
	for (size_t i = 0; i < x->n_h; i++) {
		const struct have *h = &x->h[i];
		if (!h->matched || h->sent != x->w[h->want].copy->sent)
			continue;
		if (h->want + 1 > last[h->sent]) {
			last[h->sent] = h->want + 1;
			continue;
		}
		x->d->n.out_of_order++;
		differ(x, &x->w[h->want], "order", "stands behind one that came later");
	}
}

static void
rest(struct box *x)
{
	for (size_t i = 0; i < x->n_w; i++) {
		struct want *w = &x->w[i];
		if (w->matched || w->gone)
			continue;
		x->d->n.missing++;
		/* What failed has its reason listed already. */
		if (w->copy->fate != MW_FATE_FAILED)
			differ(x, w, "missing", "is not in the scratch target");
	}
	for (size_t i = 0; i < x->n_h; i++) {
		if (x->h[i].matched)
			continue;
		x->d->n.surplus++;
		mw_drill_found(x->d, "surplus", NULL, x->b->mailbox,
		               "a message in %s was not put there by this drill",
		               x->h[i].sent ? "Sent" : "INBOX");
	}
}

static int
compare_box(struct mw_drill *d, struct mw_plan_box *b, struct mw_err *err)
{
	struct box x = {.d = d, .b = b, .err = err};
	struct mw_err why = {0};
	int r = load_wanted(&x);
	if (r == 0) {
		x.err = &why;
		if (!b->bad_name && x.n_w && read_box(&x) < 0) {
			r = why.code == MW_ENOMEM || why.code == MW_ECANCEL ? why.code
			                                                    : 0;
			if (r == 0)
				mw_drill_found(d, "unread", NULL, b->mailbox, "%s",
				               why.msg);
			else if (err)
				*err = why;
			x.n_h = 0;
		}
		x.err = err;
	}
	for (int pass = EXACT; pass <= MESSAGE_ID && r == 0; pass++) {
		r = match(&x, (enum pass)pass, true);
		if (r == 0)
			r = match(&x, (enum pass)pass, false);
	}
	if (r == 0) {
		check_order(&x);
		rest(&x);
	}
	free(x.w);
	free(x.h);
	return r;
}

int
mw_drill_compare(struct mw_drill *d, struct mw_err *err)
{
	int r = 0;
	for (size_t i = 0; i < d->plan->n_box && r == 0; i++) {
		if (mw_cli_stopped())
			r = mw_fail(err, MW_ECANCEL, "interrupted");
		else
			r = compare_box(d, &d->plan->box[i], err);
	}
	return r;
}

static int
count_one(void *arg, const struct mw_found *f)
{
	(void)f;
	++*(uint64_t *)arg;
	return 0;
}

int
mw_drill_is_scratch(struct mw_drill *d, struct mw_err *err)
{
	for (size_t i = 0; i < d->plan->n_box; i++) {
		struct mw_plan_box *b = &d->plan->box[i];
		uint64_t n = 0;
		struct mw_err second = {0};
		if (b->bad_name)
			continue;
		int r = mw_target_open(d->target, b->mailbox, b->box, true, err);
		if (r < 0)
			return r;
		r = mw_target_scan(d->target, count_one, &n, err);
		int c = mw_target_close(d->target, r ? &second : err);
		if (r < 0 || c < 0)
			return r < 0 ? r : c;
		if (n == 0)
			continue;
		(void)mw_fail(err, MW_EUSAGE,
		              "%s is no scratch target: the mailbox %s has %llu messages",
		              d->to, b->mailbox, (unsigned long long)n);
		(void)mw_err_hint(err,
		                  "a drill fills its target; give it an empty one, or "
		                  "leave --to out");
		return MW_EUSAGE;
	}
	return 0;
}
