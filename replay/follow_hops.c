/* follow_hops.c - one message that several hosts of a set captured on its way, while each
 * record is put as it comes: as hops.c, but what was put already stays. */
#include "replay/follow.h"

#include "journal/base/util.h"
#include "replay/outcomes.h"
#include "replay/plan_place.h"
#include "replay/profile.h"

#include <stdlib.h>
#include <string.h>

enum {
	KEPT = 1 << 16,       /* copies that were put, remembered */
	HEADER_MAX = 1 << 20, /* of a header, the rest of it tells nothing */
	TWINS_MAX = 1000      /* of one record; beyond, the careful way */
};

struct put {
	uint64_t key, content; /* hashes */
	uint64_t seq;
	uint64_t
	    older[2]; /* of the same chain, by key and by content: its number, or 0 */
	struct mw_loc loc;
	uint32_t journal;
	bool spent; /* another counts as put by it */
};

/* The newest ones, numbered from 1 on, in a ring; what has fallen out of it ends a chain.
 */
struct mw_follow_puts {
	uint64_t n; /* the newest one's number */
	uint64_t chain[2][KEPT];
	struct put v[KEPT];
};

/* ---- what was put ---- */

/* A box by its place, as two names may be one directory. */
static uint64_t
key_of(const struct mw_follow *f, const uint8_t *what, size_t n, const char *box,
       bool sent)
{
	uint64_t place = mw_target_is_files(f->target) ? mw_plan_place_hash(box) : 0;
	uint64_t v[3] = {mw_hash64(mw_str((const char *)what, n)),
	                 place ? place : mw_hash64(mw_strz(box)), sent};
	return mw_hash64(mw_str((const char *)v, sizeof v));
}

int
mw_follow_hops_start(struct mw_follow *f, struct mw_err *err)
{
	size_t n = f->cli->n_journals;
	free(f->put);
	f->put = calloc(1, sizeof *f->put);
	if (!f->live_from)
		f->live_from = calloc(n, sizeof *f->live_from);
	if (!f->put || !f->live_from)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t k = 0; k < n; k++)
		f->live_from[k] = f->pos[k].next;
	return 0;
}

void
mw_follow_hops_free(struct mw_follow *f)
{
	free(f->put);
	free(f->live_from);
	f->put = NULL;
	f->live_from = NULL;
}

/* The put of that number; NULL: it is forgotten, or there is none. */
static struct put *
numbered(struct mw_follow_puts *p, uint64_t number)
{
	return number && number + KEPT > p->n ? &p->v[number % KEPT] : NULL;
}

void
mw_follow_was_put(struct mw_follow *f, const struct mw_follow_what *w)
{
	struct mw_follow_puts *p = f->put;
	if (!p)
		return;
	struct put *old = &p->v[++p->n % KEPT];
	if (old->key) /* it is forgotten, and so may be others of its record */
		f->live_from[old->journal] =
		    MW_MAX(f->live_from[old->journal], old->seq + 1);
	*old = (struct put){.key = key_of(f, w->rec->id, MW_ID_LEN, w->box, w->sent),
	                    .content =
	                        key_of(f, w->digest, MW_FOLLOW_DIGEST, w->box, w->sent),
	                    .seq = w->rec->seq,
	                    .loc = w->rec->loc,
	                    .journal = (uint32_t)w->journal};
	uint64_t *chain[] = {&p->chain[0][old->key % KEPT],
	                     &p->chain[1][old->content % KEPT]};
	for (size_t i = 0; i < MW_COUNT(chain); i++) {
		old->older[i] = *chain[i];
		*chain[i] = p->n;
	}
}

bool
mw_follow_is_put(const struct mw_follow *f, const uint8_t id[MW_ID_LEN], const char *box,
                 bool sent)
{
	uint64_t key = key_of(f, id, MW_ID_LEN, box, sent);
	const struct put *p =
	    f->put ? numbered(f->put, f->put->chain[0][key % KEPT]) : NULL;
	while (p && p->key != key)
		p = numbered(f->put, p->older[0]);
	return p;
}

/* ---- the retry of one that was refused ---- */

static bool
refused(struct mw_follow *f, size_t journal, const struct mw_record *r,
        struct mw_arena *tmp)
{
	struct mw_outcome o;
	return mw_outcomes_of(f->cli->stores[journal], NULL, r, tmp, &o) > 0 &&
	       o.whole == MW_FACT_REFUSED && !o.done && !o.n_rcpt;
}

int
mw_follow_is_retry(struct mw_follow *f, const struct mw_follow_what *w,
                   struct mw_arena *tmp)
{
	struct mw_follow_puts *p = f->put;
	if (!p)
		return 0;
	uint64_t content = key_of(f, w->digest, MW_FOLLOW_DIGEST, w->box, w->sent);
	struct put *v = numbered(p, p->chain[1][content % KEPT]);
	for (; v; v = numbered(p, v->older[1])) {
		struct mw_record r;
		struct mw_err ignored;
		if (v->content != content || v->spent ||
		    (v->journal == w->journal && v->seq == w->rec->seq))
			continue;
		int q = mw_store_get_seq(f->cli->stores[v->journal], v->loc, v->seq, &r,
		                         &ignored);
		if (q == MW_ENOMEM)
			return q;
		if (q == 0 && refused(f, v->journal, &r, tmp)) {
			v->spent = true;
			mw_follow_was_put(f, w);
			return 1;
		}
	}
	return 0;
}

/* ---- which records are the same message ---- */

struct header {
	struct mw_buf b;
	bool whole;
};

static int
keep_header(void *arg, const void *p, size_t n)
{
	struct header *h = arg;
	size_t from = h->b.n < 3 ? 0 : h->b.n - 3;
	mw_buf_put(&h->b, p, n);
	if (h->b.failed)
		return MW_ENOMEM;
	const uint8_t *end = memmem(h->b.p + from, h->b.n - from, "\r\n\r\n", 4);
	if (end)
		h->b.n = (size_t)(end - h->b.p) + 2;
	h->whole = end || h->b.n >= HEADER_MAX;
	return h->whole ? MW_ECANCEL : 0;
}

static bool
is_queue(void *arg, uint64_t queue)
{
	const uint64_t *want = arg;
	return queue == *want;
}

/* Is the queue ID of the earlier one in a Received field of that record? 1, 0 (also where
 * it cannot be read), negative. */
static int
names(struct mw_store *st, const struct mw_record *r, const struct mw_mail *m,
      const struct mw_mail *earlier, struct mw_err *err)
{
	struct header h = {.whole = false};
	struct mw_facts facts;
	uint64_t want = earlier->queue_id.n ? mw_hash64(earlier->queue_id) : 0;
	if (!want)
		return 0;
	int q = mw_record_body(st, r, m, keep_header, &h, err);
	if (q == 0 || (q == MW_ECANCEL && h.whole)) {
		mw_header_facts(mw_buf_str(&h.b), is_queue, &want, &facts);
		q = facts.queue == want;
	} else if (q != MW_ENOMEM && q != MW_EIO) {
		q = 0;
	}
	mw_buf_free(&h.b);
	return q;
}

struct search {
	struct mw_follow *f;
	const struct mw_follow_pos *pos;
	size_t journal, other; /* the record's, and the one that is searched */
	const struct mw_record *rec;
	const struct mw_mail *mail;
	struct mw_arena *arena;
	struct mw_follow_twin *v;
	size_t n, cap;
	struct mw_err *err;
};

static int
add_twin(struct search *s, const struct mw_record *r, struct mw_follow_twin *t)
{
	struct mw_follow *f = s->f;
	if (s->pos && (r->seq < f->live_from[s->other] || s->n == TWINS_MAX))
		return mw_fail(s->err, MW_EPROTO,
		               "what was put of another host's record is not known");
	int q = mw_copies(f->cli->conf, &t->mail, s->arena, &t->copy, &t->n, s->err);
	if (q < 0)
		return q;
	memcpy(t->id, r->id, MW_ID_LEN);
	s->v = mw_arena_grow(s->arena, s->v, &s->cap, s->n + 1, sizeof *s->v);
	if (!s->v)
		return mw_fail(s->err, MW_ENOMEM, "out of memory");
	s->v[s->n++] = *t;
	return 0;
}

/* One that was dealt with, and may be the same; of what is still to come, it will look
 * for us. */
static int
on_candidate(void *arg, const struct mw_record *r)
{
	struct search *s = arg;
	struct mw_store *st = s->f->cli->stores[s->other];
	struct mw_store *own = s->f->cli->stores[s->journal];
	struct mw_follow_twin t = {.later = false};
	if (r->type != MW_TYPE_MAIL || (s->pos && r->seq >= s->pos[s->other].next))
		return 0;
	int q = mw_later_mail(st, r, s->arena, &t.mail, s->err);
	if (q == MW_ENOMEM || q == MW_EIO || q == MW_EKEY)
		return q;
	if (q < 0 || memcmp(t.mail.digest, s->mail->digest, sizeof t.mail.digest) != 0)
		return 0;
	q = names(own, s->rec, s->mail, &t.mail, s->err);
	if (q == 0) {
		q = names(st, r, &t.mail, s->mail, s->err);
		t.later = q > 0;
	}
	return q <= 0 ? q : add_twin(s, r, &t);
}

int
mw_follow_twins(struct mw_follow *f, const struct mw_follow_pos *pos, size_t journal,
                const struct mw_record *rec, const struct mw_mail *m,
                struct mw_arena *arena, struct mw_follow_twin **ret, size_t *ret_n,
                struct mw_err *err)
{
	struct search s = {.f = f,
	                   .pos = pos,
	                   .journal = journal,
	                   .rec = rec,
	                   .mail = m,
	                   .arena = arena,
	                   .err = err};
	struct mw_str digest = mw_str((const char *)m->digest, sizeof m->digest);
	int r = 0;
	for (size_t k = 0; k < f->cli->n_journals && r >= 0; k++) {
		s.other = k;
		if (k != journal)
			r = mw_store_find(f->cli->stores[k], MW_KEY_DIGEST, digest,
			                  on_candidate, &s, err);
	}
	*ret = s.v;
	*ret_n = s.n;
	return MW_MIN(r, 0);
}
