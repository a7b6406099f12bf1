#include "journal/store/later.h"

#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <string.h>

struct look {
	struct mw_store *st;
	struct mw_arena *arena;
	const uint8_t *id;
	struct mw_expansion *ret;
	struct mw_record *rec;
	struct mw_buf *tokens;
	struct mw_err *err;
	int r; /* of the last call */
};

int
mw_later_read(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
              struct mw_expansion *ret, struct mw_err *err)
{
	MW_BUF_AUTO meta = {0};
	struct mw_err why = {0};
	if (r->type != MW_TYPE_EXPANSION)
		return 0;
	int k = mw_record_meta(st, r, &meta, &why);
	if (k == 0)
		k = mw_expansion_decode(meta.p, meta.n, a, ret, &why);
	if (k == 0)
		return 1;
	/* These stay as they are, and verify tells of them. Whatever else there is, a
	 * disk that does not answer or a key that was not given, may pass: then the mail
	 * would go elsewhere. */
	if (k == MW_EERASED || k == MW_EDAMAGED || k == MW_EFORMAT || k == MW_ELIMIT ||
	    k == MW_ENOTFOUND)
		return 0;
	(void)mw_fail(err, k, "expansion at record %llu: %s", (unsigned long long)r->seq,
	              k == MW_ENOMEM ? "out of memory" : why.msg);
	if (why.hint[0])
		(void)mw_err_hint(err, "%s", why.hint);
	return k;
}

static int
on_expansion(void *arg, const struct mw_record *r)
{
	struct look *l = arg;
	l->r = mw_later_read(l->st, r, l->arena, l->ret, l->err);
	if (l->r == 1 && memcmp(l->ret->ref, l->id, MW_ID_LEN) != 0)
		l->r = 0;
	if (l->r == 1)
		*l->rec = *r;
	return l->r;
}

static int
look(struct look *l, int (*cb)(void *arg, const struct mw_record *r))
{
	struct mw_str key = mw_str((const char *)l->id, MW_ID_TOKEN);
	int r = mw_store_find(l->st, MW_KEY_ID, key, cb, l, l->err);
	return r < 0 ? r : l->r;
}

int
mw_later_find(struct mw_store *st, const uint8_t id[MW_ID_LEN], struct mw_arena *a,
              struct mw_expansion *ret, struct mw_record *ret_rec, struct mw_err *err)
{
	struct look l = {
	    .st = st, .arena = a, .id = id, .ret = ret, .rec = ret_rec, .err = err};
	return look(&l, on_expansion);
}

int
mw_later_mail(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
              struct mw_mail *ret, struct mw_err *err)
{
	struct mw_expansion x;
	struct mw_record of;
	int k = mw_record_mail(st, r, a, ret, err);
	if (k < 0)
		return k;
	if (mw_expansion_awaited(ret))
		k = mw_later_find(st, r->id, a, &x, &of, err);
	if (k == 1)
		mw_expansion_apply(&x, ret);
	return k < 0 ? k : mw_later_left(st, r, k == 1 ? &of : NULL, ret, err);
}

static int
on_mail(void *arg, const struct mw_record *r)
{
	struct look *l = arg;
	if (r->type != MW_TYPE_MAIL || memcmp(r->id, l->id, MW_ID_LEN) != 0)
		return 0;
	*l->rec = *r;
	return l->r = 1;
}

int
mw_later_of(struct mw_store *st, const struct mw_expansion *x, struct mw_record *ret,
            struct mw_err *err)
{
	struct look l = {.st = st, .id = x->ref, .rec = ret, .err = err};
	return look(&l, on_mail);
}

static int
on_tokens(void *arg, const struct mw_record *r)
{
	struct look *l = arg;
	if (r->type != MW_TYPE_EXPANSION)
		return 0;
	l->r = mw_record_tokens(l->st, r, l->tokens, l->err);
	/* a damaged one has none */
	return l->r == MW_ENOMEM || l->r == MW_EIO ? l->r : 0;
}

int
mw_later_tokens(struct mw_store *st, const struct mw_record *mail, struct mw_buf *out,
                struct mw_err *err)
{
	struct look l = {.st = st, .id = mail->id, .tokens = out, .err = err};
	struct mw_err why = {0};
	int r = mw_record_tokens(st, mail, out, err);
	if (r < 0)
		return r;
	l.err = &why;
	r = look(&l, on_tokens);
	if (r == MW_ENOMEM)
		return mw_fail(err, r, "out of memory");
	if (r == MW_EIO) /* it may pass: a hold may go by what could not be read */
		return mw_fail(err, r, "%s", why.msg);
	return 0;
}
