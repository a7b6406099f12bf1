#include "replay/known.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/logsrc.h"
#include "replay/outcomes.h"
#include "replay/status.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	FRESH_S = 300
};

/* The MTA's stamps may have whole seconds only. */
#define GRAIN_US 1000000

struct fact {
	struct mw_str addr, original;
	enum mw_fact fact;
	int64_t time_us;
	uint32_t next; /* of the same message, plus 1 */
	/* of the login that addr leads to, of addr and of original (name_hash) */
	uint64_t login_hash, addr_hash, original_hash;
};

struct about {
	uint64_t seq; /* 0: free */
	enum mw_fact whole;
	int64_t whole_us;
	bool done, freed;
	uint32_t first;               /* fact, plus 1 */
	const struct mw_conf *hashed; /* its facts have hashes, by that; NULL: none yet */
};

struct mw_known {
	struct mw_arena *arena;
	struct about *v; /* hash by seq */
	size_t n, cap;
	struct fact *fact;
	size_t n_fact, cap_fact;
	bool fresh;
};

/* ---- building ---- */

static size_t
slot(const struct mw_known *k, uint64_t seq)
{
	size_t i = (size_t)(seq * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (k->cap - 1);
	while (k->v[i].seq && k->v[i].seq != seq)
		i = (i + 1) & (k->cap - 1);
	return i;
}

static int
grow(struct mw_known *k)
{
	struct about *old = k->v;
	size_t n = k->cap;
	k->v = calloc(n ? n * 2 : 256, sizeof *k->v);
	if (!k->v) {
		k->v = old;
		return MW_ENOMEM;
	}
	k->cap = n ? n * 2 : 256;
	for (size_t i = 0; i < n; i++)
		if (old[i].seq)
			k->v[slot(k, old[i].seq)] = old[i];
	free(old);
	return 0;
}

static struct fact *
fact_of(struct mw_known *k, struct about *a, const struct mw_outcome_rcpt *r)
{
	for (uint32_t i = a->first; i; i = k->fact[i - 1].next) {
		struct fact *f = &k->fact[i - 1];
		if (mw_str_eq(f->addr, r->addr) && mw_str_eq(f->original, r->original))
			return f;
	}
	if (k->n_fact == k->cap_fact) {
		size_t cap = k->cap_fact ? k->cap_fact * 2 : 256;
		void *p =
		    cap < UINT32_MAX ? reallocarray(k->fact, cap, sizeof *k->fact) : NULL;
		if (!p)
			return NULL;
		k->fact = p;
		k->cap_fact = cap;
	}
	struct fact *f = &k->fact[k->n_fact++];
	*f = (struct fact){.addr = mw_arena_str(k->arena, r->addr),
	                   .original = mw_arena_str(k->arena, r->original),
	                   .next = a->first};
	a->first = (uint32_t)k->n_fact;
	return f->addr.p && f->original.p ? f : NULL;
}

static int
learn(void *arg, const struct mw_outcome *o)
{
	struct mw_known *k = arg;
	if (!o->seq)
		return 0;
	if (k->n * 2 >= k->cap && grow(k))
		return MW_ENOMEM;
	struct about *a = &k->v[slot(k, o->seq)];
	k->n += !a->seq;
	a->seq = o->seq;
	if (o->whole && a->whole != MW_FACT_REFUSED) {
		a->whole = o->whole;
		a->whole_us = o->whole_us;
	}
	if (o->freed && (a->whole == MW_FACT_HELD || a->whole == MW_FACT_REFUSED))
		a->whole = MW_FACT_UNKNOWN;
	a->freed = a->freed || o->freed;
	a->done = a->done || o->done;
	for (size_t i = 0; i < o->n_rcpt; i++) {
		struct fact *f = fact_of(k, a, &o->rcpt[i]);
		if (!f)
			return MW_ENOMEM;
		f->fact = o->rcpt[i].fact;
		f->time_us = o->rcpt[i].time_us;
	}
	return 0;
}

static struct mw_known *
empty(bool fresh, struct mw_err *err)
{
	struct mw_known *k = calloc(1, sizeof *k);
	if (k) {
		k->fresh = fresh;
		k->arena = mw_arena_new(0);
	}
	if (k && k->arena && grow(k) == 0)
		return k;
	mw_known_free(k);
	(void)mw_fail(err, MW_ENOMEM, "out of memory");
	return NULL;
}

int
mw_known_load(struct mw_store *st, bool fresh, struct mw_known **ret, struct mw_err *err)
{
	struct mw_known *k = empty(fresh, err);
	if (!k)
		return MW_ENOMEM;
	int r = mw_outcomes_walk(st, learn, k, NULL, err);
	if (r < 0) {
		mw_known_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

int
mw_known_new(const struct mw_outcome *v, size_t n, bool fresh, struct mw_known **ret,
             struct mw_err *err)
{
	struct mw_known *k = empty(fresh, err);
	int r = k ? 0 : MW_ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = learn(k, &v[i]);
	if (r < 0) {
		mw_known_free(k);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	*ret = k;
	return 0;
}

void
mw_known_free(struct mw_known *k)
{
	if (!k)
		return;
	mw_arena_free(k->arena);
	free(k->v);
	free(k->fact);
	free(k);
}

/* ---- asking ---- */

/* What holds for one recipient, seen with what is known of the whole message. */
static enum mw_fact
settled(const struct about *a, const struct fact *f)
{
	if (f->fact != MW_FACT_DEFERRED)
		return f->fact;
	if (a->whole == MW_FACT_EXPIRED || a->whole == MW_FACT_DISCARDED)
		return a->whole;
	/* Gone from the queue without a word: requeued, or deleted by the postmaster. */
	return a->done ? MW_FACT_UNKNOWN : MW_FACT_DEFERRED;
}

struct tally {
	size_t n, delivered, bounced, discarded, queued;
	int64_t newest_us;
};

static void
add(struct tally *t, const struct about *a, const struct fact *f)
{
	enum mw_fact s = settled(a, f);
	t->n++;
	t->delivered += s == MW_FACT_DELIVERED;
	t->bounced += s == MW_FACT_BOUNCED || s == MW_FACT_EXPIRED;
	t->discarded += s == MW_FACT_DISCARDED;
	t->queued += s == MW_FACT_DEFERRED;
	t->newest_us = MW_MAX(t->newest_us, f->time_us);
}

static const char *
login_of(const struct mw_conf *conf, const struct fact *f, struct mw_arena *tmp)
{
	struct mw_str base = mw_addr_base(f->addr, conf->recipient_delimiter, tmp);
	return base.p ? mw_mailbox_name(conf, base, tmp) : NULL;
}

static bool
delivers_to(const struct mw_conf *conf, const struct fact *f, const char *mailbox,
            struct mw_arena *tmp)
{
	const char *login = login_of(conf, f, tmp);
	return login && mw_addr_eq(mw_strz(login), mw_strz(mailbox));
}

/* Equal for what mw_addr_eq takes for one name; 0: not known. A message to thousands has
 * as many copies as facts. */
static uint64_t
name_hash(struct mw_str s)
{
	MW_BUF_AUTO b = {0};
	struct mw_str own = mw_addr_own(s, &b);
	uint64_t h = UINT64_C(14695981039346656037);
	for (size_t i = 0; i < own.n; i++) {
		char c = own.p[i];
		h ^= (uint8_t)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
		h *= UINT64_C(1099511628211);
	}
	return b.failed || !h ? 0 : h;
}

static bool
may_be(uint64_t a, uint64_t b)
{
	return !a || !b || a == b;
}

static void
hash_facts(struct mw_known *k, const struct mw_conf *conf, struct about *a,
           struct mw_arena *tmp)
{
	for (uint32_t i = a->hashed == conf ? 0 : a->first; i; i = k->fact[i - 1].next) {
		struct fact *f = &k->fact[i - 1];
		const char *login = login_of(conf, f, tmp);
		f->login_hash = login ? name_hash(mw_strz(login)) : 0;
		f->addr_hash = name_hash(f->addr);
		f->original_hash = name_hash(f->original);
	}
	a->hashed = conf;
}

/* The facts about the copy's mailbox; where none names it, those about the recipient that
 * it comes from. */
static void
gather(struct mw_known *k, const struct mw_conf *conf, struct about *a,
       const struct mw_copy *c, struct mw_arena *tmp, struct tally *t)
{
	uint64_t box = name_hash(mw_strz(c->mailbox)), rcpt = name_hash(c->rcpt);
	hash_facts(k, conf, a, tmp);
	for (uint32_t i = a->first; i; i = k->fact[i - 1].next)
		if (may_be(k->fact[i - 1].login_hash, box) &&
		    delivers_to(conf, &k->fact[i - 1], c->mailbox, tmp))
			add(t, a, &k->fact[i - 1]);
	for (uint32_t i = a->first; i && !t->n; i = k->fact[i - 1].next)
		if (may_be(k->fact[i - 1].addr_hash, rcpt) &&
		    mw_addr_eq(k->fact[i - 1].addr, c->rcpt))
			add(t, a, &k->fact[i - 1]);
	if (t->n)
		return;
	for (uint32_t i = a->first; i; i = k->fact[i - 1].next)
		if (may_be(k->fact[i - 1].original_hash, rcpt) &&
		    mw_addr_eq(k->fact[i - 1].original, c->rcpt))
			add(t, a, &k->fact[i - 1]);
}

/* Never taken. One that was in the queue was, whatever else was read: a queue ID that
 * came round again may stand for two messages. */
static bool
refused(const struct about *a)
{
	return a->whole == MW_FACT_REFUSED && !a->done && !a->first;
}

/* Nothing is said of this recipient; of the message as a whole, maybe. */
static enum mw_known_class
of_whole(const struct mw_known *k, const struct about *a)
{
	if (a->whole == MW_FACT_DISCARDED)
		return MW_KNOWN_REFUSED;
	if (a->whole == MW_FACT_HELD && !a->done && !a->first && k->fresh)
		return MW_KNOWN_QUEUED;
	return MW_KNOWN_NOTHING;
}

enum mw_known_class
mw_known_copy(struct mw_known *k, const struct mw_conf *conf, uint64_t seq,
              const struct mw_copy *c, int64_t mark_us, struct mw_arena *tmp)
{
	struct about *a = k ? &k->v[slot(k, seq)] : NULL;
	struct tally t = {.newest_us = INT64_MIN};
	if (!a || !a->seq)
		return MW_KNOWN_NOTHING;
	if (refused(a))
		return MW_KNOWN_REFUSED;
	if (c->sent)
		return MW_KNOWN_NOTHING;
	gather(k, conf, a, c, tmp, &t);
	if (!t.n)
		return of_whole(k, a);
	if (t.bounced == t.n)
		return MW_KNOWN_BOUNCED;
	if (t.bounced + t.discarded == t.n)
		return MW_KNOWN_REFUSED;
	if (t.queued && t.queued + t.bounced == t.n)
		return k->fresh ? MW_KNOWN_QUEUED : MW_KNOWN_NOTHING;
	if (t.delivered == t.n && mark_us != INT64_MIN &&
	    t.newest_us + GRAIN_US < mark_us)
		return MW_KNOWN_OLD;
	return MW_KNOWN_NOTHING;
}

bool
mw_known_may_wait(struct mw_known *k, const struct mw_conf *conf, uint64_t seq,
                  const struct mw_copy *c, struct mw_arena *tmp)
{
	struct about *a = k ? &k->v[slot(k, seq)] : NULL;
	struct tally t = {.newest_us = INT64_MIN};
	if (c->sent || !a || !a->seq)
		return !c->sent;
	gather(k, conf, a, c, tmp, &t);
	return t.n ? t.queued > 0 : !a->done;
}

bool
mw_known_told(const struct mw_known *k, uint64_t seq)
{
	return k && k->v[slot(k, seq)].seq;
}

bool
mw_known_not_taken(const struct mw_known *k, uint64_t seq)
{
	const struct about *a = k ? &k->v[slot(k, seq)] : NULL;
	return a && a->seq && refused(a);
}

int64_t
mw_known_newest(struct mw_known *k, const struct mw_conf *conf, uint64_t seq,
                const struct mw_copy *c, struct mw_arena *tmp)
{
	struct about *a = k ? &k->v[slot(k, seq)] : NULL;
	struct tally t = {.newest_us = INT64_MIN};
	if (a && a->seq && !c->sent)
		gather(k, conf, a, c, tmp, &t);
	return t.newest_us;
}

static int
by_u64(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
	return a < b ? -1 : a > b;
}

static bool
is_late(const struct mw_known *k, const struct about *a, int64_t mark_us)
{
	for (uint32_t i = a->first; i; i = k->fact[i - 1].next) {
		const struct fact *f = &k->fact[i - 1];
		enum mw_fact fact = settled(a, f);
		bool on = fact == MW_FACT_DELIVERED || fact == MW_FACT_SENT ||
		          fact == MW_FACT_UNKNOWN;
		if (fact == MW_FACT_DEFERRED || (on && f->time_us + GRAIN_US >= mark_us))
			return true;
	}
	return false;
}

int
mw_known_late(const struct mw_known *k, uint64_t before_seq, int64_t mark_us,
              uint64_t **ret, size_t *ret_n, struct mw_err *err)
{
	size_t n = 0;
	*ret = NULL;
	*ret_n = 0;
	for (size_t i = 0; i < k->cap; i++)
		n += k->v[i].seq && k->v[i].seq < before_seq &&
		     is_late(k, &k->v[i], mark_us);
	if (!n)
		return 0;
	uint64_t *v = calloc(n, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	n = 0;
	for (size_t i = 0; i < k->cap; i++)
		if (k->v[i].seq && k->v[i].seq < before_seq &&
		    is_late(k, &k->v[i], mark_us))
			v[n++] = k->v[i].seq;
	qsort(v, n, sizeof *v, by_u64);
	*ret = v;
	*ret_n = n;
	return 0;
}

bool
mw_known_is_fresh(const char *journal_dir, struct mw_store *st)
{
	const struct mw_clock *clock = mw_clock_system();
	struct mw_logsrc_state state = {0};
	char path[PATH_MAX];
	struct stat sb;
	int64_t newest = INT64_MIN / 2;
	(void)snprintf(path, sizeof path, "%s/ledger/outcomes.state", journal_dir);
	if (stat(path, &sb) < 0 ||
	    (int64_t)sb.st_mtim.tv_sec + FRESH_S < clock->now_us(clock) / 1000000 ||
	    mw_logsrc_load(path, &state, NULL) < 0)
		return false;
	for (size_t i = 0; i < state.n; i++)
		newest = MW_MAX(newest, state.v[i].time_us);
	mw_logsrc_state_done(&state);
	return newest + 2 * GRAIN_US >= mw_status_newest_mail(st);
}
