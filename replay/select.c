/* select.c - walking a journal set: by the index where it knows the key, else the log. */
#include "replay/select.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/erased.h"
#include "replay/search.h"
#include "replay/sift.h"

#include <stdlib.h>
#include <string.h>

enum {
	MEMORY_PER_MAIL = 256 << 20,
	FAILURES_IN_A_ROW = 64,
	NEAR = 32 /* records of the index that are read in one piece */
};

struct walk {
	struct mw_cli *cli;
	struct mw_query q; /* with the delimiter of this site */
	int (*cb)(void *arg, const struct mw_item *it);
	void *arg;
	void (*bad)(void *arg, const struct mw_err *err);
	size_t n_bad;
	bool no_key;            /* said once: every record would say it */
	struct mw_arena *arena; /* of one mail */
	struct mw_erased erased;
	struct mw_search *search; /* NULL: no need to look inside */
	struct mw_item it;
	uint64_t from_seq; /* of since_mark in this journal; 1: all */
	int64_t from_us;   /* with overlap: also what is not older than this */
};

static void
report(struct walk *w, const struct mw_err *err)
{
	if (err->code != MW_EERASED)
		w->n_bad++;
	if (err->code == MW_EKEY && w->no_key)
		return;
	w->no_key = w->no_key || err->code == MW_EKEY;
	if (w->bad)
		w->bad(w->arg, err);
}

static int
by_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static bool
is_late(const struct walk *w, uint64_t seq)
{
	const struct mw_late *l = w->q.late ? &w->q.late[w->it.journal] : NULL;
	return l && l->n && bsearch(&seq, l->seq, l->n, sizeof seq, by_u64);
}

/* Where a walk of the log begins. */
static uint64_t
first_seq(const struct walk *w)
{
	const struct mw_late *l = w->q.late ? &w->q.late[w->it.journal] : NULL;
	if (w->q.span)
		return w->q.span[w->it.journal].from;
	if (w->from_us != INT64_MAX)
		return 1;
	return l && l->n ? MW_MIN(l->seq[0], w->from_seq) : w->from_seq;
}

static int
look_inside(void *arg, const void *p, size_t n)
{
	struct walk *w = arg;
	return mw_cli_stopped() ? MW_ECANCEL : mw_search_put(w->search, p, n);
}

/* Attachment names and text, which only the content has: 1, 0, or why not. */
static int
match_content(struct walk *w, const struct mw_record *r, struct mw_err *err)
{
	if (!w->search)
		return 1;
	int k = mw_record_body(w->it.store, r, &w->it.mail, look_inside, w, err);
	if (k == 0)
		return mw_search_matches(w->search);
	mw_search_forget(w->search);
	return k;
}

/* One candidate. Non-zero ends the walk. */
static int
consider(struct walk *w, const struct mw_record *r)
{
	struct mw_err err = {0};
	if (mw_cli_stopped())
		return MW_ECANCEL;
	if (r->type != MW_TYPE_MAIL)
		return 0;
	const struct mw_span *span = w->q.span ? &w->q.span[w->it.journal] : NULL;
	if (span && (r->seq < span->from || r->seq >= span->to))
		return 0;
	if (r->seq < w->from_seq && r->time_us < w->from_us && !is_late(w, r->seq))
		return 0;
	if (r->time_us < w->q.since_us || r->time_us >= w->q.until_us)
		return 0;
	mw_arena_reset(w->arena);
	w->it.rec = *r;
	if (mw_erased_mail(&w->erased, w->it.store, w->it.journal, r, w->arena,
	                   &w->it.mail, &err) < 0) {
		err.first_seq = err.last_seq = r->seq;
		report(w, &err);
		return 0;
	}
	int fits = mw_query_match(&w->q, &w->it.mail, r->id);
	if (fits <= 0)
		return fits; /* no memory: none is left out unsaid */
	int inside = match_content(w, r, &err);
	if (inside == MW_ECANCEL || inside == MW_ENOMEM)
		return inside;
	if (inside < 0)
		report(w, &err);
	return inside > 0 ? w->cb(w->arg, &w->it) : 0;
}

/* Each damaged place costs one error and the walk goes on behind it. A cursor that fails
 * again and again without a record in between makes no progress: that is an error. */
static int
walk_log(struct walk *w, uint64_t from, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	const struct mw_span *span = w->q.span ? &w->q.span[w->it.journal] : NULL;
	if (span && span->from >= span->to)
		return 0;
	int r = mw_cursor_new(w->it.store, from, &c, err), failures = 0;
	if (r == 0)
		mw_cursor_ahead(c);
	while (r >= 0) {
		struct mw_record rec;
		struct mw_err e = {0};
		r = mw_cursor_next(c, &rec, &e);
		if (r == 0)
			break;
		if (r < 0) {
			bool damage = r == MW_EDAMAGED || r == MW_EFORMAT ||
			              r == MW_EVERSION || r == MW_ELIMIT;
			if (!damage && ++failures >= FAILURES_IN_A_ROW) {
				if (err)
					*err = e;
				return r;
			}
			if (!span || !e.last_seq ||
			    (e.last_seq >= span->from && e.last_seq < span->to))
				report(w, &e);
			r = 0;
			continue;
		}
		failures = 0;
		if (span && rec.seq >= span->to)
			return 0;
		r = consider(w, &rec);
		if (r != 0)
			break;
	}
	return r;
}

/* ---- by the index ---- */

struct refs {
	struct mw_sift_ref *v;
	size_t n, cap;
	bool failed;
};

static int
gather(void *arg, const struct mw_record *r)
{
	struct refs *f = arg;
	if (f->n == f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 64;
		struct mw_sift_ref *v = reallocarray(f->v, cap, sizeof *v);
		if (!v) {
			f->failed = true;
			return 1;
		}
		f->v = v;
		f->cap = cap;
	}
	if (r->type == MW_TYPE_MAIL || r->type == MW_TYPE_EXPANSION)
		f->v[f->n++] =
		    (struct mw_sift_ref){.seq = r->seq,
		                         .loc = r->loc,
		                         .later = r->type == MW_TYPE_EXPANSION};
	return 0;
}

static int
by_seq(const void *a, const void *b)
{
	uint64_t x = ((const struct mw_sift_ref *)a)->seq;
	uint64_t y = ((const struct mw_sift_ref *)b)->seq;
	return x < y ? -1 : x > y;
}

/* A Message-ID is indexed as the header has it: with <> as a rule. */
static int
find_message_id(struct mw_store *st, const char *id, struct refs *f, struct mw_err *err)
{
	size_t n = strlen(id);
	bool angles = n >= 2 && id[0] == '<' && id[n - 1] == '>';
	struct mw_str bare = angles ? mw_str(id + 1, n - 2) : mw_str(id, n);
	MW_BUF_AUTO with = {0};
	mw_buf_putc(&with, '<');
	mw_buf_putstr(&with, bare);
	mw_buf_putc(&with, '>');
	if (mw_buf_ok(&with) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_store_find(st, MW_KEY_MESSAGE_ID, mw_buf_str(&with), gather, f, err);
	if (r < 0)
		return r;
	return mw_store_find(st, MW_KEY_MESSAGE_ID, bare, gather, f, err);
}

/* A whole ID, the beginning of one, or a queue ID. An ID that a journal of the set does
 * not have is no error here: another one may. */
static int
find_id(struct mw_store *st, const char *text, struct refs *f, struct mw_err *err)
{
	int r = mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(text), gather, f, err);
	uint8_t id[MW_ID_LEN];
	unsigned bits;
	if (r < 0 || !mw_id_parse(text, id, &bits))
		return r;
	struct mw_record rec;
	struct mw_err e = {0};
	r = mw_store_find_id(st, text, &rec, &e);
	if (r == MW_ENOTFOUND)
		return 0;
	if (r < 0) {
		if (err)
			*err = e;
		/* A queue ID may look like an ambiguous prefix; it was meant then. */
		return f->n ? 0 : r;
	}
	return gather(f, &rec) ? MW_ENOMEM : 0;
}

/* A local part alone means any local domain, which is no key; nor, in records of earlier
 * versions, is a name that mail may have in several ways, or "+a+x"@…, which has no key
 * of +a@… there. */
static bool
users_are_keys(const struct mw_query *q)
{
	const char *delimiter = q->delimiter ? q->delimiter : "";
	for (size_t k = 0; k < q->n_user; k++) {
		struct mw_str user = mw_strz(q->user[k]);
		struct mw_str local = mw_addr_plain(mw_addr_local(user));
		if (!mw_addr_domain(user).n || mw_addr_has_forms(user))
			return false;
		if (local.n && strchr(delimiter, local.p[0]))
			return false;
	}
	return q->n_user > 0;
}

static int
find_users(struct mw_store *st, const struct mw_query *q, struct refs *f,
           struct mw_err *err)
{
	const char *delimiter = q->delimiter ? q->delimiter : "";
	int r = mw_store_each_unparted(st, delimiter, gather, f, err);
	for (size_t k = 0; r == 0 && k < q->n_user; k++) {
		struct mw_str user = mw_strz(q->user[k]);
		r = mw_store_find_name(st, MW_KEY_RCPT, user, gather, f, err);
		if (r == 0)
			r = mw_store_find_name(st, MW_KEY_OWNER, user, gather, f, err);
		if (r == 0) /* a login without domain */
			r = mw_store_find_name(st, MW_KEY_OWNER, mw_addr_local(user),
			                       gather, f, err);
	}
	return r;
}

/* 1: gathered, 0: the index knows no key of this query. */
static int
find_refs(struct walk *w, struct refs *f, struct mw_err *err)
{
	const struct mw_query *q = &w->q;
	struct mw_store *st = w->it.store;
	int r = 0;
	if (q->n_id) {
		for (size_t k = 0; r >= 0 && k < q->n_id; k++)
			r = find_id(st, q->id[k], f, err);
	} else if (q->n_queue_id) {
		for (size_t k = 0; r >= 0 && k < q->n_queue_id; k++)
			r = mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(q->queue_id[k]),
			                  gather, f, err);
	} else if (q->n_message_id) {
		for (size_t k = 0; r >= 0 && k < q->n_message_id; k++)
			r = find_message_id(st, q->message_id[k], f, err);
	} else if (q->key) {
		for (size_t k = 0; r >= 0 && k < q->n_key; k++)
			r = mw_store_find_name(st, q->key[k].kind,
			                       mw_strz(q->key[k].value), gather, f, err);
	} else if (q->n_sender) {
		for (size_t k = 0; r >= 0 && k < q->n_sender; k++) {
			/* The null sender is no key, nor a name of several forms. */
			if (strcmp(q->sender[k], "<>") == 0 ||
			    mw_addr_has_forms(mw_strz(q->sender[k])))
				return 0;
			r = mw_store_find_name(st, MW_KEY_SENDER, mw_strz(q->sender[k]),
			                       gather, f, err);
		}
	} else if (q->user_by_index && users_are_keys(q)) {
		r = find_users(st, q, f, err);
	} else {
		return 0;
	}
	if (f->failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return r < 0 ? r : 1;
}

/* The mails of the expansions that were found, in their stead. */
static int
follow_later(struct walk *w, struct refs *f, struct mw_err *err)
{
	for (size_t k = 0; k < f->n; k++) {
		struct mw_record rec, mail;
		struct mw_expansion x;
		struct mw_err e = {0};
		if (!f->v[k].later)
			continue;
		mw_arena_reset(w->arena);
		int r = mw_store_get(w->it.store, f->v[k].loc, &rec, &e);
		if (r == 0)
			r = mw_later_read(w->it.store, &rec, w->arena, &x, &e);
		if (r == 1)
			r = mw_later_of(w->it.store, &x, &mail, &e);
		if (r == MW_ENOMEM)
			return mw_fail(err, r, "out of memory");
		/* One that is erased or damaged says nothing; of one that cannot be read
		 * just now, the mail might be meant. */
		if (r < 0 && r != MW_EERASED && r != MW_EDAMAGED && r != MW_ENOTFOUND)
			report(w, &e);
		f->v[k].seq = r == 1 ? mail.seq : 0;
		f->v[k].loc = r == 1 ? mail.loc : f->v[k].loc;
	}
	return 0;
}

/* In log order, each once. One key's are in order already. */
static void
put_in_order(struct refs *f)
{
	size_t n = 0;
	bool sorted = true;
	for (size_t k = 1; sorted && k < f->n; k++)
		sorted = f->v[k - 1].seq <= f->v[k].seq;
	if (!sorted)
		qsort(f->v, f->n, sizeof *f->v, by_seq);
	for (size_t k = 0; k < f->n; k++)
		if (f->v[k].seq &&
		    (!n || f->v[n - 1].seq != f->v[k].seq)) /* 0: no mail */
			f->v[n++] = f->v[k];
	f->n = n;
}

/* Has it been erased? Then it is told so, whatever the query. */
static bool
is_gone(struct walk *w, uint64_t seq)
{
	const struct mw_gone *g = NULL;
	struct mw_err ignored; /* it is looked at then, and says so */
	int r = mw_erased_gone(&w->erased, w->it.store, w->it.journal, &g, &ignored);
	return r < 0 || mw_gone_record(g, seq);
}

/* How many of them are at hand. */
static size_t
read_ahead(struct walk *w, const struct mw_sift_ref *v, size_t n)
{
	struct mw_loc loc[NEAR];
	n = MW_MIN(n, (size_t)NEAR);
	for (size_t i = 0; i < n; i++)
		loc[i] = v[i].loc;
	return mw_store_ahead(w->it.store, loc, n);
}

static int
walk_ref(struct walk *w, const struct mw_sift_ref *ref)
{
	struct mw_record rec;
	struct mw_err e = {0};
	if (ref->out && !is_gone(w, ref->seq))
		return 0;
	int r = mw_store_get_seq(w->it.store, ref->loc, ref->seq, &rec, &e);
	if (r == 0)
		return consider(w, &rec);
	report(w, &e); /* it was readable a moment ago */
	return 0;
}

static int
walk_refs(struct walk *w, struct refs *f, struct mw_err *err)
{
	struct mw_sift sift = {.looked = 0};
	int r = follow_later(w, f, err);
	if (r < 0)
		return r;
	put_in_order(f);
	bool can = mw_sift_can(&w->q);
	for (size_t k = 0, sifted = 0, near = 0; k < f->n && r == 0; k++) {
		if (can && k == sifted)
			sifted += mw_sift(&sift, w->it.store, &w->q, f->v + k, f->n - k);
		if (k >= sifted && k >= near)
			near = k + read_ahead(w, f->v + k, f->n - k);
		r = walk_ref(w, &f->v[k]);
	}
	mw_store_behind(w->it.store);
	return r;
}

static int
walk_store(struct walk *w, struct mw_err *err)
{
	struct refs f = {0};
	int r = find_refs(w, &f, err);
	if (r > 0)
		r = walk_refs(w, &f, err);
	else if (r == 0)
		r = walk_log(w, first_seq(w), err);
	free(f.v);
	return r;
}

/* ---- the set ---- */

struct begin {
	bool found;
	uint64_t seq;
	int64_t us;
};

/* Where since_mark begins in each journal. In one that lacks the mark (the backup marked
 * another host) it is the time of the earliest such mark in the set. */
static int
find_begin(const struct walk *w, struct begin *b, struct mw_err *err)
{
	size_t n_found = 0;
	int64_t earliest = INT64_MAX;
	struct mw_err first = {0};
	for (size_t k = 0; k < w->cli->n_journals; k++) {
		struct mw_mark_info m;
		struct mw_err e = {0};
		int r = mw_mark_find_then(w->cli->stores[k], w->q.since_mark,
		                          w->q.marks_us, &m, &e);
		if (r < 0 && r != MW_ENOTFOUND) {
			if (err)
				*err = e;
			return r;
		}
		if (r < 0) {
			if (!first.code)
				first = e;
			continue;
		}
		b[k] = (struct begin){true, m.start_seq, m.start_us};
		earliest = MW_MIN(earliest, m.start_us);
		n_found++;
	}
	if (n_found == 0) {
		if (err)
			*err = first;
		return first.code ? first.code : MW_ENOTFOUND;
	}
	for (size_t k = 0; k < w->cli->n_journals; k++)
		if (!b[k].found)
			b[k] = (struct begin){false, UINT64_MAX, earliest};
	return 0;
}

static int
walk_set(struct walk *w, const struct begin *b, struct mw_err *err)
{
	int r = 0;
	for (size_t k = 0; r == 0 && k < w->cli->n_journals; k++) {
		w->it.store = w->cli->stores[k];
		w->it.journal = k;
		w->from_seq = 1;
		w->from_us = INT64_MAX;
		if (w->q.since_mark) {
			w->from_seq = b[k].seq;
			if (!b[k].found || w->q.overlap_us)
				w->from_us = b[k].us - w->q.overlap_us;
		}
		r = walk_store(w, err);
		if (r == MW_ECANCEL && err && err->code != MW_ECANCEL)
			(void)mw_fail(err, MW_ECANCEL, "interrupted");
		if (r == MW_ENOMEM && err && err->code != MW_ENOMEM)
			(void)mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return r;
}

int
mw_select(struct mw_cli *cli, const struct mw_query *q,
          int (*cb)(void *arg, const struct mw_item *it), void *arg,
          void (*bad)(void *arg, const struct mw_err *err), size_t *ret_bad,
          struct mw_err *err)
{
	struct walk w = {.cli = cli, .q = *q, .cb = cb, .arg = arg, .bad = bad};
	MW_AUTOFREE struct begin *b = calloc(cli->n_journals + 1, sizeof *b);
	int r = mw_query_check(q, err);
	if (r < 0)
		return r;
	const struct mw_search_for what = {q->body, q->attachment, q->n_body,
	                                   q->n_attachment};
	if (q->n_body || q->n_attachment)
		r = mw_search_new(&what, &w.search, err);
	if (r < 0)
		return r;
	w.arena = mw_arena_new(MEMORY_PER_MAIL);
	if (!b || !w.arena) {
		mw_arena_free(w.arena);
		mw_search_free(w.search);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	w.q.subject_needle = mw_search_needles(q->subject, q->n_subject, q->arena);
	w.q.from_needle = mw_search_needles(q->from, q->n_from, q->arena);
	if (cli->conf)
		mw_query_site(&w.q, cli->conf);
	if (q->since_mark)
		r = find_begin(&w, b, err);
	if (r == 0)
		r = walk_set(&w, b, err);
	mw_arena_free(w.arena);
	mw_search_free(w.search);
	mw_erased_done(&w.erased);
	if (ret_bad)
		*ret_bad = w.n_bad;
	return r;
}
