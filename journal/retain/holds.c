/* Legal holds: gathered from the log, and held against a record's tokens. */
#include "journal/base/util.h"
#include "journal/retain/retain.h"

#include <stdlib.h>
#include <string.h>

/* Tokens, one of which a record must have; and of how many names: 0 asks nothing. */
struct wanted {
	uint8_t (*token)[8];
	size_t n, cap, n_name;
};

struct tokens {
	struct wanted user, domain, sender;
};

struct mw_holds {
	struct mw_store *st;
	struct mw_arena *arena;
	struct mw_hold *v;
	struct tokens *tokens; /* of each */
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
	/* A hold that cannot be read must not be taken for none: mw_holds_lost and
	 * mw_retain_gather count it. */
	if (k == MW_EDAMAGED || k == MW_EFORMAT)
		return 0;
	if (k < 0)
		return h->failed = mw_fail(h->err, k, "hold at record %llu: %s",
		                           (unsigned long long)r->seq, e.msg);
	k = put(h, &new);
	return k < 0 ? (h->failed = k) : 0;
}

/* That name in all forms mail may have it. */
static int
want(struct mw_holds *h, struct wanted *w, enum mw_key kind, struct mw_str name)
{
	uint8_t token[MW_STORE_NAMES][8];
	int n = mw_store_names(h->st, kind, name, token);
	for (int i = 0; i < n; i++) {
		w->token = mw_arena_grow(h->arena, w->token, &w->cap, w->n + 1, 8);
		if (!w->token)
			return MW_ENOMEM;
		memcpy(w->token[w->n++], token[i], 8);
	}
	return MW_MIN(n, 0);
}

/* A user: to this recipient or mailbox, or sent under this login, with or without its
 * domain. */
static int
want_all(struct mw_holds *h, const struct mw_hold *x, struct tokens *t)
{
	int r = 0;
	t->user.n_name = x->n_user;
	t->domain.n_name = x->n_domain;
	t->sender.n_name = x->n_sender;
	for (size_t i = 0; r == 0 && i < x->n_user; i++) {
		r = want(h, &t->user, MW_KEY_RCPT, x->user[i]);
		if (r == 0)
			r = want(h, &t->user, MW_KEY_OWNER, x->user[i]);
		if (r == 0)
			r = want(h, &t->user, MW_KEY_OWNER, mw_addr_local(x->user[i]));
	}
	for (size_t i = 0; r == 0 && i < x->n_domain; i++)
		r = want(h, &t->domain, MW_KEY_DOMAIN, x->domain[i]);
	for (size_t i = 0; r == 0 && i < x->n_sender; i++)
		r = want(h, &t->sender, MW_KEY_SENDER, x->sender[i]);
	return r;
}

/* Drops what was released, and makes the tokens of the others. */
static int
settle(struct mw_holds *h)
{
	size_t k = 0;
	int r = 0;
	for (size_t i = 0; i < h->n; i++)
		if (!h->v[i].released)
			h->v[k++] = h->v[i];
	h->n = k;
	h->tokens = mw_arena_alloc(h->arena, (h->n + 1) * sizeof *h->tokens);
	for (size_t i = 0; h->tokens && r == 0 && i < h->n; i++)
		r = want_all(h, &h->v[i], &h->tokens[i]);
	return h->tokens && r == 0
	           ? 0
	           : mw_fail(h->err, MW_ENOMEM, "out of memory for holds");
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
	if (h->failed < 0)
		r = h->failed;
	else if (r >= 0)
		r = settle(h);
	if (r < 0) {
		mw_holds_free(h);
		return r;
	}
	h->err = NULL;
	*ret = h;
	return 0;
}

int
mw_hold_write(struct mw_retain_owner *o, const struct mw_hold *h, struct mw_err *err)
{
	MW_BUF_AUTO cbor = {0};
	if (mw_hold_encode(h, &cbor) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory for a hold");
	int r = mw_owner_note(o, MW_TYPE_HOLD, &cbor, err);
	if (r < 0)
		return r;
	r = mw_owner_roll(o, err);
	if (r == 0)
		r = mw_owner_note(o, MW_TYPE_HOLD, &cbor, err);
	return r < 0 ? mw_err_hint(err, "this is done, but noted once, not twice") : 0;
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
has_token(const struct mw_traits *t, const uint8_t token[8])
{
	for (size_t i = 0; i < t->n; i++)
		if (memcmp(t->token + 8 * i, token, 8) == 0)
			return true;
	return false;
}

static bool
has(const struct mw_holds *h, const struct mw_traits *t, enum mw_key kind,
    struct mw_str value)
{
	uint8_t token[8];
	mw_store_token(h->st, kind, value, token);
	return has_token(t, token);
}

static bool
match_wanted(const struct wanted *w, const struct mw_traits *t)
{
	for (size_t i = 0; i < w->n; i++)
		if (has_token(t, w->token[i]))
			return true;
	return w->n_name == 0;
}

static bool
match_queue_id(const struct mw_holds *h, const struct mw_hold *x,
               const struct mw_traits *t)
{
	for (size_t i = 0; i < x->n_queue_id; i++)
		if (has(h, t, MW_KEY_QUEUE_ID, x->queue_id[i]))
			return true;
	return x->n_queue_id == 0;
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
		const struct tokens *w = &h->tokens[i];
		if (match_wanted(&w->user, t) && match_message_id(h, x, t) &&
		    match_direction(h, x->direction, t) && match_wanted(&w->domain, t) &&
		    match_wanted(&w->sender, t) && match_queue_id(h, x, t))
			return x;
	}
	return NULL;
}
