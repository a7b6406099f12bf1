#include "replay/reconcile.h"

#include "journal/base/bytes.h"

#include <stdlib.h>
#include <string.h>

#define DAY_US (INT64_C(86400) * 1000000)

struct ref { /* one side's entry under a key */
	uint64_t key;
	uint32_t i;
};

struct work {
	struct mw_rc_copy *c;
	struct mw_rc_stored *s;
	size_t n, m;
	struct ref *a, *b; /* sorted references to copies and stored messages */
};

/* A rule: keys of both sides (0: not eligible), and what must hold beside equal keys. */
struct rule {
	enum mw_rc_how how;
	bool unique; /* only where the key occurs once on each side */
	uint64_t (*copy_key)(const struct mw_rc_copy *c);
	uint64_t (*stored_key)(const struct mw_rc_stored *s);
	bool (*accept)(const struct mw_rc_copy *c, const struct mw_rc_stored *s);
};

static int
by_key(const void *x, const void *y)
{
	const struct ref *a = x, *b = y;
	if (a->key != b->key)
		return a->key < b->key ? -1 : 1;
	return a->i < b->i ? -1 : a->i > b->i;
}

static uint64_t
mix(uint64_t a, uint64_t b)
{
	a ^= b + UINT64_C(0x9e3779b97f4a7c15) + (a << 6) + (a >> 2);
	a ^= a >> 32;
	a *= UINT64_C(0xd6e8feb86659fd93);
	a ^= a >> 32;
	return a ? a : 1;
}

static uint64_t
second(int64_t us)
{
	int64_t s = us / 1000000;
	if (us < 0 && us % 1000000)
		s--;
	return (uint64_t)s;
}

static void
claim(struct work *w, uint32_t ci, uint32_t si, enum mw_rc_how how)
{
	w->c[ci].how = how;
	w->c[ci].stored = si;
	w->s[si].claimed = true;
}

static size_t
run_len(const struct ref *v, size_t at, size_t n)
{
	size_t k = at + 1;
	while (k < n && v[k].key == v[at].key)
		k++;
	return k - at;
}

/* Pairs one group of equal keys, older copies first. `from` skips what is claimed, so
 * that a large group of equal messages costs one walk. */
static void
pair_group(struct work *w, const struct rule *r, const struct ref *a, size_t na,
           const struct ref *b, size_t nb)
{
	size_t from = 0;
	if (r->unique && (na != 1 || nb != 1))
		return;
	for (size_t i = 0; i < na; i++) {
		while (from < nb && w->s[b[from].i].claimed)
			from++;
		for (size_t j = from; j < nb; j++) {
			const struct mw_rc_stored *s = &w->s[b[j].i];
			if (s->claimed || (r->accept && !r->accept(&w->c[a[i].i], s)))
				continue;
			claim(w, a[i].i, b[j].i, r->how);
			break;
		}
	}
}

static void
apply(struct work *w, const struct rule *r)
{
	size_t na = 0, nb = 0;
	for (size_t i = 0; i < w->n; i++) {
		uint64_t k = w->c[i].how == MW_RC_MISSING ? r->copy_key(&w->c[i]) : 0;
		if (k)
			w->a[na++] = (struct ref){k, (uint32_t)i};
	}
	for (size_t i = 0; na && i < w->m; i++) {
		uint64_t k = !w->s[i].claimed ? r->stored_key(&w->s[i]) : 0;
		if (k)
			w->b[nb++] = (struct ref){k, (uint32_t)i};
	}
	if (!na || !nb)
		return;
	qsort(w->a, na, sizeof *w->a, by_key);
	qsort(w->b, nb, sizeof *w->b, by_key);
	size_t i = 0, j = 0;
	while (i < na && j < nb) {
		if (w->a[i].key < w->b[j].key) {
			i++;
			continue;
		}
		if (w->a[i].key > w->b[j].key) {
			j++;
			continue;
		}
		size_t la = run_len(w->a, i, na), lb = run_len(w->b, j, nb);
		pair_group(w, r, w->a + i, la, w->b + j, lb);
		i += la;
		j += lb;
	}
}

static int
work_init(struct work *w, struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s,
          size_t m)
{
	*w = (struct work){c, s, n, m, NULL, NULL};
	w->a = calloc(n ? n : 1, sizeof *w->a);
	w->b = calloc(m ? m : 1, sizeof *w->b);
	if (w->a && w->b)
		return 0;
	free(w->a);
	free(w->b);
	return MW_ENOMEM;
}

/* What an earlier decision on the same said. */
static void
forget(struct work *w)
{
	for (size_t i = 0; i < w->n; i++)
		w->c[i].how = MW_RC_MISSING;
	for (size_t j = 0; j < w->m; j++)
		w->s[j].claimed = w->s[j].need = false;
}

static void
work_done(struct work *w)
{
	free(w->a);
	free(w->b);
}

/* ---- queue ---- */

static uint64_t
queue_copy(const struct mw_rc_copy *c)
{
	return c->sent ? 0 : c->queue;
}

static uint64_t
queue_stored(const struct mw_rc_stored *s)
{
	return s->queue;
}

static bool
queue_accept(const struct mw_rc_copy *c, const struct mw_rc_stored *s)
{
	if (c->msgid && s->msgid && c->msgid != s->msgid)
		return false; /* queue IDs come round again */
	if (s->received_us == INT64_MIN)
		return c->msgid && c->msgid == s->msgid;
	int64_t d = s->received_us - c->time_us;
	return d > -DAY_US && d < DAY_US;
}

/* ---- fast ---- */

static uint64_t
fast_copy(const struct mw_rc_copy *c)
{
	if (!c->msgid)
		return 0;
	return mix(mix(mix(c->msgid, c->size), second(c->time_us)), c->sent);
}

static uint64_t
fast_stored(const struct mw_rc_stored *s)
{
	if (!s->msgid || s->date_us == INT64_MIN)
		return 0;
	return mix(mix(mix(s->msgid, s->size), second(s->date_us)), s->sent_folder);
}

/* ---- digest ---- */

static uint64_t
digest_copy(const struct mw_rc_copy *c)
{
	return mix(mw_get64(c->digest), c->sent);
}

static uint64_t
digest_stored(const struct mw_rc_stored *s)
{
	return s->profile ? mix(mw_get64(s->profile->digest), s->sent_folder) : 0;
}

static uint64_t
digest_date_copy(const struct mw_rc_copy *c)
{
	return mix(digest_copy(c), second(c->time_us));
}

static uint64_t
digest_date_stored(const struct mw_rc_stored *s)
{
	if (!s->profile || s->date_us == INT64_MIN)
		return 0;
	return mix(digest_stored(s), second(s->date_us));
}

/* A Sent copy may lie in any folder; an INBOX copy is never seen in Sent. */
static uint64_t
digest_sent_copy(const struct mw_rc_copy *c)
{
	return c->sent ? mix(mw_get64(c->digest), 0) : 0;
}

static bool
digest_accept(const struct mw_rc_copy *c, const struct mw_rc_stored *s)
{
	return memcmp(c->digest, s->profile->digest, 32) == 0;
}

/* ---- body ---- */

static uint64_t
body_of(const struct mw_profile *p, bool sent)
{
	return p ? mix(mw_get64(p->unquoted), sent) : 0;
}

static uint64_t
body_copy(const struct mw_rc_copy *c)
{
	return body_of(c->profile, c->sent);
}

static uint64_t
body_stored(const struct mw_rc_stored *s)
{
	return body_of(s->profile, s->sent_folder);
}

static uint64_t
body_date_copy(const struct mw_rc_copy *c)
{
	return c->profile ? mix(body_copy(c), second(c->time_us)) : 0;
}

static uint64_t
body_date_stored(const struct mw_rc_stored *s)
{
	return s->profile && s->date_us != INT64_MIN
	           ? mix(body_stored(s), second(s->date_us))
	           : 0;
}

static uint64_t
body_sent_copy(const struct mw_rc_copy *c)
{
	return c->sent ? body_of(c->profile, false) : 0;
}

static uint64_t
body_filed_copy(const struct mw_rc_copy *c)
{
	return c->anywhere ? body_sent_copy(c) : 0;
}

static bool
same_body(const struct mw_rc_copy *c, const struct mw_rc_stored *s)
{
	return memcmp(c->profile->unquoted, s->profile->unquoted,
	              sizeof s->profile->unquoted) == 0;
}

static bool
subset_accept(const struct mw_rc_copy *c, const struct mw_rc_stored *s)
{
	return same_body(c, s) && mw_profile_subset(c->profile, s->profile);
}

/* The client saved what it had written; signers added fields on the way to the journal.
 */
static bool
own_accept(const struct mw_rc_copy *c, const struct mw_rc_stored *s)
{
	return c->sent && c->msgid && c->msgid == s->msgid && same_body(c, s);
}

/* ---- the steps ---- */

/* Is v in the sorted references? */
static bool
has_key(const struct ref *v, size_t n, uint64_t key)
{
	struct ref want = {key, 0};
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (v[mid].key < want.key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && v[lo].key == key;
}

/* Which stored messages could still be one of the wanted, unclaimed copies? Those that
 * share a Message-ID, and, when such a copy has none, those whose own is none or unknown
 * to the journal (a store may have added it) and whose size is near. */
static int
mark_stored(struct work *w)
{
	uint64_t least = UINT64_MAX, most = 0;
	size_t na = 0, nall = 0;
	int count = 0;
	for (size_t i = 0; i < w->n; i++) {
		const struct mw_rc_copy *c = &w->c[i];
		if (c->how != MW_RC_MISSING || !c->wanted)
			continue;
		if (c->msgid) {
			w->a[na++] = (struct ref){c->msgid, 0};
			continue;
		}
		least = c->size < least ? c->size : least;
		most = c->size > most ? c->size : most;
	}
	qsort(w->a, na, sizeof *w->a, by_key);
	for (size_t j = 0; j < w->m; j++) {
		struct mw_rc_stored *s = &w->s[j];
		s->need = !s->claimed && s->msgid && has_key(w->a, na, s->msgid);
		count += s->need;
	}
	if (least == UINT64_MAX)
		return count;
	for (size_t i = 0; i < w->n; i++)
		if (w->c[i].msgid)
			w->a[nall++] = (struct ref){w->c[i].msgid, 0};
	qsort(w->a, nall, sizeof *w->a, by_key);
	for (size_t j = 0; j < w->m; j++) {
		struct mw_rc_stored *s = &w->s[j];
		if (s->claimed || s->need || (s->msgid && has_key(w->a, nall, s->msgid)))
			continue;
		/* Bare LFs and a missing last line end may differ: half to double. */
		s->need = s->size + 64 >= least / 2 && s->size <= most * 2 + 65536;
		count += s->need;
	}
	return count;
}

int
mw_reconcile_fast(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m)
{
	static const struct rule queue = {MW_RC_QUEUE, false, queue_copy, queue_stored,
	                                  queue_accept};
	static const struct rule fast = {MW_RC_FAST, true, fast_copy, fast_stored, NULL};
	struct work w;
	if (work_init(&w, c, n, s, m))
		return MW_ENOMEM;
	forget(&w);
	apply(&w, &queue);
	apply(&w, &fast);
	int r = mark_stored(&w);
	work_done(&w);
	return r;
}

static size_t
count_key(const struct ref *v, size_t n, uint64_t key)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (v[mid].key < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && v[lo].key == key ? run_len(v, lo, n) : 0;
}

/* Could a queue ID in a Received field change what the fast rule finds? Only where a copy
 * has one and is not alone with its Message-ID. Else the queue rule can give that copy
 * its own stored message, which nobody else can have by the fast rule, or one without a
 * Message-ID, which no fast rule looks at. */
static bool
queue_matters(struct work *w)
{
	size_t na = 0, nb = 0;
	bool any = false;
	for (size_t i = 0; i < w->n; i++) {
		any = any || queue_copy(&w->c[i]);
		w->a[na++] = (struct ref){w->c[i].msgid, (uint32_t)i};
	}
	if (!any)
		return false;
	for (size_t j = 0; j < w->m; j++)
		w->b[nb++] = (struct ref){w->s[j].msgid, (uint32_t)j};
	qsort(w->a, na, sizeof *w->a, by_key);
	qsort(w->b, nb, sizeof *w->b, by_key);
	for (size_t i = 0; i < w->n; i++) {
		uint64_t id = w->c[i].msgid;
		if (queue_copy(&w->c[i]) &&
		    (!id || count_key(w->a, na, id) > 1 || count_key(w->b, nb, id) > 1))
			return true;
	}
	return false;
}

int
mw_reconcile_brief(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m)
{
	static const struct rule fast = {MW_RC_FAST, true, fast_copy, fast_stored, NULL};
	struct work w;
	if (work_init(&w, c, n, s, m))
		return MW_ENOMEM;
	int r = !queue_matters(&w);
	forget(&w);
	if (r)
		apply(&w, &fast);
	for (size_t i = 0; i < n && r; i++)
		r = !c[i].wanted || c[i].how != MW_RC_MISSING;
	work_done(&w);
	return r;
}

/* Copies whose own bytes must be read: unclaimed, while some looked-at message that is
 * not claimed could be theirs. Unwanted ones compete, or a new copy would take what is an
 * old one's. */
static int
mark_copies(struct work *w)
{
	size_t nb = 0;
	int count = 0;
	bool anonymous = false;
	for (size_t j = 0; j < w->m; j++) {
		if (w->s[j].claimed || !w->s[j].profile)
			continue;
		w->b[nb++] = (struct ref){w->s[j].msgid, 0};
		anonymous = true;
	}
	qsort(w->b, nb, sizeof *w->b, by_key);
	for (size_t i = 0; i < w->n; i++) {
		struct mw_rc_copy *c = &w->c[i];
		c->need = c->how == MW_RC_MISSING &&
		          (c->msgid ? has_key(w->b, nb, c->msgid) : anonymous);
		count += c->need;
	}
	return count;
}

int
mw_reconcile_digest(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m)
{
	static const struct rule rules[] = {
	    {MW_RC_DIGEST, false, digest_date_copy, digest_date_stored, digest_accept},
	    {MW_RC_DIGEST, false, digest_copy, digest_stored, digest_accept},
	};
	struct work w;
	if (work_init(&w, c, n, s, m))
		return MW_ENOMEM;
	for (size_t i = 0; i < 2; i++)
		apply(&w, &rules[i]);
	int r = mark_copies(&w);
	work_done(&w);
	return r;
}

static void
mark_ambiguous(struct work *w)
{
	size_t nb = 0;
	for (size_t j = 0; j < w->m; j++)
		if (!w->s[j].claimed && w->s[j].msgid)
			w->b[nb++] = (struct ref){w->s[j].msgid, 0};
	qsort(w->b, nb, sizeof *w->b, by_key);
	for (size_t i = 0; i < w->n; i++) {
		struct mw_rc_copy *c = &w->c[i];
		c->ambiguous = c->how == MW_RC_MISSING && c->wanted && c->msgid &&
		               has_key(w->b, nb, c->msgid);
	}
}

int
mw_reconcile_body(struct mw_rc_copy *c, size_t n, struct mw_rc_stored *s, size_t m)
{
	static const struct rule rules[] = {
	    {MW_RC_SUBSET, false, body_date_copy, body_date_stored, subset_accept},
	    {MW_RC_SUBSET, false, body_copy, body_stored, subset_accept},
	    {MW_RC_SENT, false, body_copy, body_stored, own_accept},
	    {MW_RC_DIGEST, false, digest_sent_copy, digest_stored, digest_accept},
	    {MW_RC_SUBSET, false, body_sent_copy, body_stored, subset_accept},
	    {MW_RC_SENT, false, body_filed_copy, body_stored, own_accept},
	};
	struct work w;
	if (work_init(&w, c, n, s, m))
		return MW_ENOMEM;
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		apply(&w, &rules[i]);
	mark_ambiguous(&w);
	work_done(&w);
	return 0;
}
