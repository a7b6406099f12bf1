/* quiet.c - segments that need no look at each record: all that they have is younger than
 * the shortest `keep`. How many records of which kind a segment has, and from when to
 * when, its CLOSE record says; what is no mail is found by the index, and counted. Where
 * anything is left open, a segment is looked at like the others. */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <stdlib.h>
#include <string.h>

enum {
	OTHERS_MOST = 50000, /* records that are no mail: more take as long as a walk */
	NOTES_MOST = 2000, /* … and that refer to mails, after the first such segment */
	LIKE_MOST = 64,    /* records with a token, until that mail is among them */
	MARGIN_S = 3600    /* what is written while we look makes the others older */
};

struct summary { /* of a closed segment */
	struct mw_quiet_seg q;
	int64_t tmin, tmax; /* of all in it */
	uint64_t others, found;
	bool fits; /* what is known of it, fits together */
	int64_t from_us;
};

struct look {
	struct mw_store *st;
	const struct mw_segment_info *seg;
	size_t n;
	struct summary *v; /* of each segment */
	struct mw_record *rec;
	size_t n_rec, cap_rec;
	int failed;
};

static struct summary *
of_record(const struct look *k, const struct mw_record *r)
{
	size_t lo = 0, hi = k->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (k->seg[mid].number < r->loc.segment)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < k->n && k->seg[lo].number == r->loc.segment ? &k->v[lo] : NULL;
}

/* ---- what the segments say ---- */

static int
on_close(void *arg, const struct mw_record *r)
{
	const struct look *k = arg;
	struct summary *s = of_record(k, r);
	MW_BUF_AUTO cbor = {0};
	struct mw_close c;
	if (r->type != MW_TYPE_CLOSE || !s)
		return 0;
	const struct mw_segment_info *i = &k->seg[s - k->v];
	if (!i->closed || r->seq != i->last_seq ||
	    mw_record_meta(k->st, r, &cbor, NULL) < 0 ||
	    mw_close_decode(cbor.p, cbor.n, &c, NULL) < 0)
		return 0;
	s->q = (struct mw_quiet_seg){.number = i->number,
	                             .first_seq = i->first_seq,
	                             .last_seq = i->last_seq,
	                             .close_us = r->time_us,
	                             .mails = c.mails,
	                             .bytes = i->bytes};
	s->tmin = c.tmin_us;
	s->tmax = MW_MAX(c.tmax_us, r->time_us);
	s->others = c.records - c.mails;
	s->fits = c.first == i->first_seq && c.last == i->last_seq && c.mails > 0 &&
	          c.mails < c.records && c.records == c.last - c.first + 1 &&
	          c.tmin_us <= c.tmax_us;
	return 0;
}

static int
on_other(void *arg, const struct mw_record *r)
{
	struct look *k = arg;
	struct summary *s = of_record(k, r);
	if (r->type == MW_TYPE_MAIL || !s || !s->fits)
		return 0;
	struct mw_record *p = k->rec;
	if (k->n_rec == k->cap_rec) {
		size_t cap = k->cap_rec ? 2 * k->cap_rec : 256;
		p = reallocarray(k->rec, cap, sizeof *p);
		if (!p)
			return k->failed = MW_ENOMEM;
		k->rec = p;
		k->cap_rec = cap;
	}
	p[k->n_rec++] = *r;
	s->found++;
	s->tmin = MW_MIN(s->tmin, r->time_us);
	s->tmax = MW_MAX(s->tmax, r->time_us);
	return 0;
}

static int
by_type(struct look *k, enum mw_type type, int (*cb)(void *, const struct mw_record *))
{
	char t = (char)type;
	int r = mw_store_find(k->st, MW_KEY_TYPE, mw_str(&t, 1), cb, k, NULL);
	return k->failed < 0 ? k->failed : MW_MIN(r, 0);
}

static int
by_seq(const void *a, const void *b)
{
	const struct mw_record *x = a, *y = b;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* All that is no mail: each record of the other types has a token that says so. */
static int
find_others(struct look *k, const struct mw_gone *gone)
{
	static const enum mw_type types[] = {MW_TYPE_OUTCOME,   MW_TYPE_MARK,
	                                     MW_TYPE_HOLD,      MW_TYPE_TOMBSTONE,
	                                     MW_TYPE_DICT,      MW_TYPE_AUDIT,
	                                     MW_TYPE_EXPANSION, MW_TYPE_SPF,
	                                     MW_TYPE_RECOVERY,  MW_TYPE_CLOSE,
	                                     MW_TYPE_RESTORE};
	uint64_t others = 0;
	int r = by_type(k, MW_TYPE_CLOSE, on_close);
	for (size_t i = 0; r == 0 && i < k->n; i++) {
		struct summary *s = &k->v[i];
		s->fits = s->fits && i + 1 < k->n &&
		          !mw_gone_touches(gone, s->q.first_seq, s->q.last_seq);
		others += s->fits ? s->others : 0;
	}
	if (r < 0 || others > OTHERS_MOST)
		return r < 0 ? r : 0;
	for (size_t i = 0; r == 0 && i < MW_COUNT(types); i++)
		r = by_type(k, types[i], on_other);
	if (k->n_rec)
		qsort(k->rec, k->n_rec, sizeof *k->rec, by_seq);
	for (size_t i = 0; i < k->n; i++) {
		struct summary *s = &k->v[i];
		s->fits = s->fits && s->found == s->others && s->tmax == s->q.close_us;
		s->q.tmin_us = s->tmin;
	}
	return r < 0 ? r : 1;
}

/* ---- the log's clock ---- */

static int
walk_clock(struct look *k, size_t i, size_t last, struct mw_log_clock *c,
           bool (*stopped)(void))
{
	MW_CURSOR_AUTO *cur = NULL;
	struct mw_err e = {0};
	if (k->seg[i].first_seq == 0)
		return 0; /* its header is damaged: that is met again */
	int r = mw_cursor_new(k->st, k->seg[i].first_seq, &cur, &e);
	if (r == 0)
		mw_cursor_ahead(cur);
	for (unsigned bad = 0; r == 0;) {
		struct mw_record rec;
		r = mw_cursor_next(cur, &rec, &e);
		if (r == MW_EDAMAGED && ++bad < 1000) {
			r = 0;
			continue;
		}
		if (r <= 0 || rec.loc.segment > k->seg[last].number)
			break;
		while (i < last && k->seg[i].number < rec.loc.segment)
			k->v[++i].from_us = c->seen_us;
		r = stopped && stopped() ? MW_ECANCEL : 0;
		mw_log_clock_step(c, rec.seq, rec.time_us, rec.imported);
	}
	return MW_MIN(r, 0);
}

/* How far it was before each segment, and is now. */
static int
run_clock(struct look *k, const struct mw_retain_limits *lim, const struct mw_gone *gone,
          bool (*stopped)(void), int64_t *ret_now)
{
	struct mw_log_clock c = {.n_gone = 0};
	int64_t d;
	int r = 0;
	c.gone = mw_gone_segments(gone, &c.n_gone);
	for (size_t i = 0; r == 0 && i < k->n; i++) {
		struct summary *s = &k->v[i];
		s->from_us = c.seen_us;
		s->fits = s->fits && mw_log_clock_pass(&c, &s->q);
		size_t last = i; /* one walk for all that come together */
		while (!s->fits && k->seg[i].first_seq && last + 1 < k->n &&
		       !k->v[last + 1].fits)
			last++;
		if (!s->fits)
			r = walk_clock(k, i, last, &c, stopped);
		i = last;
	}
	if (r < 0)
		return r;
	*ret_now = c.seen_us;
	if (c.running && !__builtin_sub_overflow(lim->now_us, c.cur_us, &d) && d > 0 &&
	    d <= MW_RETAIN_JUMP_US)
		*ret_now += d;
	return 0;
}

/* The shortest time that a rule keeps mail; 0: a rule goes by size. */
static int64_t
shortest_keep(const struct mw_retain_limits *lim)
{
	int64_t keep = INT64_MAX;
	for (size_t i = 0; i < lim->n_rule; i++) {
		if (lim->rule[i].max_size)
			return 0;
		if (lim->rule[i].keep_us)
			keep = MW_MIN(keep, lim->rule[i].keep_us);
	}
	return keep;
}

/* ---- the choice ---- */

static int
choose(struct look *k, const struct mw_retain_limits *lim, int64_t now,
       struct mw_quiet *ret)
{
	int64_t keep = shortest_keep(lim) - (int64_t)MARGIN_S * 1000000;
	uint64_t mails = 0;
	ret->seg = calloc(k->n + 1, sizeof *ret->seg);
	if (!ret->seg)
		return MW_ENOMEM;
	for (size_t i = 0; i < k->n; i++) {
		const struct summary *s = &k->v[i];
		if (!s->fits || now - s->from_us > keep)
			continue;
		ret->seg[ret->n++] = s->q;
		mails += s->q.mails;
	}
	if (mails == 0 || mails < lim->look_least)
		ret->n = 0;
	for (size_t i = 0; ret->n && i < k->n_rec; i++)
		if (mw_quiet_has(ret, k->rec[i].seq))
			k->rec[ret->n_rec++] = k->rec[i];
	ret->rec = MW_TAKE(k->rec);
	return 0;
}

/* MW_ENOMEM, MW_ECANCEL, or 0: whatever else fails, all is looked at. */
int
mw_quiet_find(struct mw_store *st, const struct mw_retain_limits *lim,
              const struct mw_segment_info *seg, size_t n, const struct mw_gone *gone,
              bool (*stopped)(void), struct mw_quiet *ret)
{
	uint64_t indexed = 0;
	int64_t now = 0;
	struct look k = {.st = st, .seg = seg, .n = n};
	memset(ret, 0, sizeof *ret);
	if (n < 2 || shortest_keep(lim) == 0 ||
	    mw_store_indexed(st, &indexed, NULL) < 0 || indexed < seg[n - 1].first_seq)
		return 0; /* without an index it would be a walk for each type */
	k.v = calloc(n, sizeof *k.v);
	int r = k.v ? find_others(&k, gone) : MW_ENOMEM;
	if (r == 1)
		r = run_clock(&k, lim, gone, stopped, &now);
	else
		r = r < 0 ? r : MW_EUNAVAIL;
	if (r == 0)
		r = choose(&k, lim, now, ret);
	free(k.v);
	free(k.rec);
	return r == MW_ENOMEM || r == MW_ECANCEL ? r : 0;
}

void
mw_quiet_free(struct mw_quiet *q)
{
	free(q->seg);
	free(q->rec);
	memset(q, 0, sizeof *q);
}

bool
mw_quiet_has(const struct mw_quiet *q, uint64_t seq)
{
	size_t lo = 0, hi = q->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (q->seg[mid].last_seq < seq)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < q->n && q->seg[lo].first_seq <= seq;
}

/* ---- records that refer to mails ---- */

struct referred {
	struct mw_store *st;
	const struct mw_quiet *q;
	const uint8_t *token;
	unsigned seen;
	bool found;
};

static int
on_like(void *arg, const struct mw_record *r)
{
	struct referred *f = arg;
	uint8_t own[8];
	if (r->type == MW_TYPE_MAIL && mw_quiet_has(f->q, r->seq)) {
		mw_store_token(f->st, MW_KEY_ID, mw_str((const char *)r->id, 6), own);
		f->found = memcmp(own, f->token, sizeof own) == 0;
	}
	return f->found || ++f->seen >= LIKE_MOST;
}

static int
cmp_token(const void *a, const void *b)
{
	return memcmp(a, b, 8);
}

/* The tokens of the mails that were looked at, in order; NULL: no memory. */
static uint8_t (*mails_seen(const struct mw_retain_log *l, size_t *ret_n))[8]
{
	uint8_t(*v)[8] = calloc(l->n + 1, 8);
	*ret_n = 0;
	for (size_t i = 0; v && i < l->n; i++)
		if (l->rec[i].type == MW_TYPE_MAIL)
			memcpy(v[(*ret_n)++], l->rec[i].token, 8);
	if (v)
		qsort(v, *ret_n, 8, cmp_token);
	return v;
}

/* A note on no quiet mail: is one of its mails not among those that were looked at? That
 * one went with its segment, or cannot be read. */
static bool
of_unseen(struct mw_store *st, const struct mw_retain_rec *x, uint8_t (*mail)[8],
          size_t n)
{
	char t = (char)x->type;
	uint8_t type[8];
	size_t seen = 0, unseen = 0;
	mw_store_token(st, MW_KEY_TYPE, mw_str(&t, 1), type);
	for (uint32_t i = 0; i < x->n_tokens; i++) {
		const uint8_t *token = x->tokens + 8 * (size_t)i;
		if (memcmp(token, type, 8) == 0)
			continue;
		if (bsearch(token, mail, n, 8, cmp_token))
			seen++;
		else
			unseen++;
	}
	if (x->type == MW_TYPE_EXPANSION) /* of one mail; the others are people */
		return seen == 0;
	return unseen > 1; /* one is its own ID */
}

/* Does it refer to a mail in one of these segments? What has none of them is judged by
 * those that were looked at, if it has but them. */
int
mw_quiet_notes(struct mw_store *st, struct mw_retain_log *l)
{
	MW_AUTOFREE uint8_t(*mail)[8] = NULL;
	unsigned asked = 0;
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++) {
		struct mw_retain_rec *x = &l->rec[i];
		bool inside = mw_quiet_has(&l->quiet, x->seq);
		x->young = inside && x->type == MW_TYPE_DICT;
		if (!mw_retain_is_note(x->type) || x->seq < l->quiet.seg[0].first_seq)
			continue;
		for (uint32_t t = 0; !x->young && t < x->n_tokens; t++) {
			struct referred f = {st, &l->quiet, x->tokens + 8 * (size_t)t, 0,
			                     false};
			if (++asked > NOTES_MOST)
				return 0;
			int r = mw_store_find_token(st, f.token, on_like, &f, NULL);
			if (r < 0)
				return r == MW_ENOMEM ? r : 0;
			x->young = f.found;
		}
		if (x->young)
			continue;
		if (!mail && !(mail = mails_seen(l, &n)))
			return MW_ENOMEM;
		if (inside || (!x->gone && of_unseen(st, x, mail, n)))
			return 0; /* when was it? */
	}
	return 1;
}
