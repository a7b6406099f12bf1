/* follow_hops.c - one message that several hosts of a set captured on its way, while each
 * record is put as it comes: as hops.c, but what was put already stays. */
#include "replay/follow.h"

#include "journal/base/util.h"
#include "replay/profile.h"

#include <stdlib.h>
#include <string.h>

enum {
	KEPT = 1 << 16,       /* copies that were put, remembered */
	HEADER_MAX = 1 << 20, /* of a header, the rest of it tells nothing */
	TWINS_MAX = 1000      /* of one record; beyond, the careful way */
};

struct mw_follow_put {
	uint64_t key, seq;
	uint32_t journal;
};

/* ---- what was put ---- */

static uint64_t
key_of(const uint8_t id[MW_ID_LEN], const char *box, bool sent)
{
	uint64_t v[3] = {mw_hash64(mw_str((const char *)id, MW_ID_LEN)),
	                 mw_hash64(mw_strz(box)), sent};
	return mw_hash64(mw_str((const char *)v, sizeof v));
}

int
mw_follow_hops_start(struct mw_follow *f, struct mw_err *err)
{
	size_t n = f->cli->n_journals;
	if (n < 2)
		return 0;
	if (!f->put)
		f->put = calloc(KEPT, sizeof *f->put);
	if (!f->live_from)
		f->live_from = calloc(n, sizeof *f->live_from);
	if (!f->put || !f->live_from)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	memset(f->put, 0, KEPT * sizeof *f->put);
	f->n_put = 0;
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

void
mw_follow_was_put(struct mw_follow *f, size_t journal, const struct mw_record *r,
                  const char *box, bool sent)
{
	if (!f->put)
		return;
	struct mw_follow_put *p = &f->put[f->n_put++ % KEPT];
	if (p->key) /* it is forgotten, and so may be others of its record */
		f->live_from[p->journal] = MW_MAX(f->live_from[p->journal], p->seq + 1);
	*p = (struct mw_follow_put){key_of(r->id, box, sent), r->seq, (uint32_t)journal};
}

bool
mw_follow_is_put(const struct mw_follow *f, const uint8_t id[MW_ID_LEN], const char *box,
                 bool sent)
{
	uint64_t key = key_of(id, box, sent);
	size_t n = (size_t)MW_MIN(f->n_put, (uint64_t)KEPT);
	for (size_t i = 1; i <= n; i++) /* it was mostly just now */
		if (f->put[(f->n_put - i) % KEPT].key == key)
			return true;
	return false;
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
	if (r->seq < f->live_from[s->other] || s->n == TWINS_MAX)
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
	if (r->type != MW_TYPE_MAIL || r->seq >= s->pos[s->other].next)
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
	for (size_t k = 0; k < f->cli->n_journals && r >= 0 && f->put; k++) {
		s.other = k;
		if (k != journal)
			r = mw_store_find(f->cli->stores[k], MW_KEY_DIGEST, digest,
			                  on_candidate, &s, err);
	}
	*ret = s.v;
	*ret_n = s.n;
	return MW_MIN(r, 0);
}
