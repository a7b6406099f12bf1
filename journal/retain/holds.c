/* Legal holds: gathered from the log, and held against a record's tokens. */
#include "journal/base/util.h"
#include "journal/retain/retain.h"

#include <stdlib.h>
#include <string.h>

struct mw_holds {
	struct mw_store *st;
	struct mw_arena *arena;
	struct mw_hold *v;
	size_t n, cap;
	struct mw_err *err;
	int failed;
};

static int
put(struct mw_holds *h, const struct mw_hold *new)
{
	size_t i;
	for (i = 0; i < h->n; i++)
		if (mw_str_eq(h->v[i].name, new->name))
			break;
	if (i == h->n) {
		struct mw_hold *v =
		    mw_arena_grow(h->arena, h->v, &h->cap, h->n + 1, sizeof *v);
		if (!v)
			return mw_fail(h->err, MW_ENOMEM, "out of memory for holds");
		h->v = v;
		h->n++;
	}
	h->v[i] = *new;
	return 0;
}

static int
on_hold(void *arg, const struct mw_record *r)
{
	struct mw_holds *h = arg;
	MW_BUF_AUTO cbor = {0};
	struct mw_hold new;
	struct mw_err e = {0};
	if (r->type != MW_TYPE_HOLD)
		return 0;
	int k = mw_record_meta(h->st, r, &cbor, &e);
	if (k == 0)
		k = mw_hold_decode(cbor.p, cbor.n, h->arena, &new, &e);
	/* A hold that cannot be read must not be taken for none. */
	if (k < 0)
		return h->failed = mw_fail(h->err, k, "hold at record %llu: %s",
		                           (unsigned long long)r->seq, e.msg);
	k = put(h, &new);
	return k < 0 ? (h->failed = k) : 0;
}

int
mw_holds_load(struct mw_store *st, struct mw_holds **ret, struct mw_err *err)
{
	static const char type = MW_TYPE_HOLD;
	struct mw_holds *h = calloc(1, sizeof *h);
	if (!h || !(h->arena = mw_arena_new(0))) {
		free(h);
		return mw_fail(err, MW_ENOMEM, "out of memory for holds");
	}
	h->st = st;
	h->err = err;
	int r = mw_store_find(st, MW_KEY_TYPE, mw_str(&type, 1), on_hold, h, err);
	if (r < 0 || h->failed < 0) {
		r = h->failed < 0 ? h->failed : r;
		mw_holds_free(h);
		return r;
	}
	size_t k = 0;
	for (size_t i = 0; i < h->n; i++)
		if (!h->v[i].released)
			h->v[k++] = h->v[i];
	h->n = k;
	h->err = NULL;
	*ret = h;
	return 0;
}

void
mw_holds_free(struct mw_holds *h)
{
	if (!h)
		return;
	mw_arena_free(h->arena);
	free(h);
}

const struct mw_hold *
mw_holds_get(const struct mw_holds *h, size_t i)
{
	return i < h->n ? &h->v[i] : NULL;
}

static bool
has(const struct mw_holds *h, const struct mw_traits *t, enum mw_key kind,
    struct mw_str value)
{
	uint8_t token[8];
	mw_store_token(h->st, kind, value, token);
	for (size_t i = 0; i < t->n; i++)
		if (memcmp(t->token + 8 * i, token, 8) == 0)
			return true;
	return false;
}

/* To this recipient or mailbox, or sent under this login, with or without its domain. */
static bool
match_user(const struct mw_holds *h, const struct mw_hold *x, const struct mw_traits *t)
{
	for (size_t i = 0; i < x->n_user; i++)
		if (has(h, t, MW_KEY_RCPT, x->user[i]) ||
		    has(h, t, MW_KEY_OWNER, x->user[i]) ||
		    has(h, t, MW_KEY_OWNER, mw_addr_local(x->user[i])))
			return true;
	return x->n_user == 0;
}

static bool
match_list(const struct mw_holds *h, const struct mw_traits *t, enum mw_key kind,
           const struct mw_str *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (has(h, t, kind, v[i]))
			return true;
	return n == 0;
}

static bool
match_message_id(const struct mw_holds *h, const struct mw_hold *x,
                 const struct mw_traits *t)
{
	char with[1100];
	for (size_t i = 0; i < x->n_message_id; i++) {
		struct mw_str id = x->message_id[i];
		if (has(h, t, MW_KEY_MESSAGE_ID, id))
			return true;
		if (id.n + 2 > sizeof with)
			continue;
		with[0] = '<';
		memcpy(with + 1, id.p, id.n);
		with[id.n + 1] = '>';
		if (has(h, t, MW_KEY_MESSAGE_ID, mw_str(with, id.n + 2)))
			return true;
	}
	return x->n_message_id == 0;
}

/* A record without any direction is one from before directions were noted: held. */
static bool
match_direction(const struct mw_holds *h, int want, const struct mw_traits *t)
{
	if (want < 0)
		return true;
	for (int d = MW_DIR_IN; d <= MW_DIR_INTERNAL; d++) {
		char value = (char)d;
		if (has(h, t, MW_KEY_DIRECTION, mw_str(&value, 1)))
			return d == want;
	}
	return true;
}

const struct mw_hold *
mw_holds_match(const struct mw_holds *h, const struct mw_traits *t)
{
	for (size_t i = 0; i < h->n; i++) {
		const struct mw_hold *x = &h->v[i];
		if (t->time_us < x->since_us || t->time_us >= x->until_us)
			continue;
		if ((x->larger && t->size <= x->larger) ||
		    (x->smaller && t->size >= x->smaller))
			continue;
		if (match_user(h, x, t) && match_message_id(h, x, t) &&
		    match_direction(h, x->direction, t) &&
		    match_list(h, t, MW_KEY_DOMAIN, x->domain, x->n_domain) &&
		    match_list(h, t, MW_KEY_SENDER, x->sender, x->n_sender) &&
		    match_list(h, t, MW_KEY_QUEUE_ID, x->queue_id, x->n_queue_id))
			return x;
	}
	return NULL;
}
