#include "replay/erase_list.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

/* v, or what it was moved to: with room for one more of size bytes behind its n. */
static void *
grow(void *v, size_t n, size_t *cap, size_t size, struct mw_err *err)
{
	if (n < *cap)
		return v;
	size_t want = *cap ? 2 * *cap : 64;
	void *p = reallocarray(v, want, size);
	if (p)
		*cap = want;
	else
		(void)mw_fail(err, MW_ENOMEM, "out of memory");
	return p;
}

int
mw_erase_take_whole(struct mw_erase_listed *l, const struct mw_record *r,
                    struct mw_err *err)
{
	struct mw_erase_list *e = &l->list;
	void *p = grow(e->whole, e->n_whole, &l->cap_whole, sizeof *e->whole, err);
	if (!p)
		return MW_ENOMEM;
	e->whole = p;
	e->whole[e->n_whole++] = *r;
	return 0;
}

int
mw_erase_take_part(struct mw_erase_listed *l, uint64_t seq, struct mw_err *err)
{
	struct mw_erase_list *e = &l->list;
	void *p = grow(e->part, e->n_part, &l->cap_part, sizeof *e->part, err);
	if (!p)
		return MW_ENOMEM;
	e->part = p;
	e->part[e->n_part++] = seq;
	return 0;
}

int
mw_erase_take_cut(struct mw_erase_listed *l, const struct mw_record *r, uint32_t login,
                  struct mw_err *err)
{
	struct mw_erase_list *e = &l->list;
	void *p = grow(e->cut, e->n_cut, &l->cap_cut, sizeof *e->cut, err);
	if (!p)
		return MW_ENOMEM;
	e->cut = p;
	p = grow(e->cut_login, e->n_cut, &l->cap_cut_login, sizeof *e->cut_login, err);
	if (!p)
		return MW_ENOMEM;
	e->cut_login = p;
	e->cut_login[e->n_cut] = login;
	e->cut[e->n_cut++] = *r;
	return 0;
}

static int
add_token(struct mw_erase_listed *l, const struct mw_store *st, struct mw_str addr,
          struct mw_err *err)
{
	struct mw_erase_list *e = &l->list;
	uint8_t token[MW_RETIRE_TOKEN];
	mw_store_token(st, MW_KEY_RCPT, addr, token);
	for (size_t i = 0; i < e->n_token; i++)
		if (memcmp(e->token[i], token, sizeof token) == 0)
			return 0;
	void *p = grow(e->token, e->n_token, &l->cap_token, sizeof *e->token, err);
	if (!p)
		return MW_ENOMEM;
	e->token = p;
	memcpy(e->token[e->n_token++], token, sizeof token);
	return 0;
}

int
mw_erase_name_address(struct mw_erase_listed *l, const struct mw_store *st,
                      const struct mw_query *q, struct mw_str addr, struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	MW_BUF_AUTO bare = {0};
	MW_BUF_AUTO old = {0};
	MW_BUF_AUTO form = {0};
	MW_BUF_AUTO his = {0};
	struct mw_str key = mw_addr_key(addr, &b);
	struct mw_str without = mw_addr_bare(key, q->delimiter, &bare);
	/* Earlier versions took the address as it came: "kurt+x" without extension is
	 * "kurt there. */
	struct mw_str then = mw_addr_bare(addr, q->delimiter, &old);
	/* The key stands for others, too. */
	struct mw_str own = mw_addr_own(addr, &form);
	own = mw_addr_bare(own, q->delimiter, &his);
	if (b.failed || bare.failed || old.failed || form.failed || his.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = add_token(l, st, key, err);
	if (r == 0)
		r = add_token(l, st, addr, err);
	int his_too = r < 0 ? 0 : mw_query_is_user(q, own);
	if (his_too < 0)
		return mw_fail(err, his_too, "out of memory");
	if (!his_too)
		return r;
	r = add_token(l, st, without, err);
	return r == 0 && then.n ? add_token(l, st, then, err) : r;
}

int
mw_erase_name_login(struct mw_erase_listed *l, const struct mw_store *st,
                    struct mw_str login, uint32_t *ret, struct mw_err *err)
{
	struct mw_erase_list *e = &l->list;
	struct mw_erase_login x;
	int n = mw_store_own_names(st, MW_KEY_OWNER, login, x.token);
	if (n < 0)
		return mw_fail(err, n, "out of memory");
	if (n < 2)
		memcpy(x.token[1], x.token[0], sizeof x.token[1]);
	size_t i = 0;
	while (i < e->n_login && memcmp(&e->login[i], &x, sizeof x) != 0)
		i++;
	if (i == e->n_login) {
		void *p =
		    grow(e->login, e->n_login, &l->cap_login, sizeof *e->login, err);
		if (!p)
			return MW_ENOMEM;
		e->login = p;
		e->login[e->n_login++] = x;
	}
	*ret = (uint32_t)i + 1;
	return 0;
}

void
mw_erase_list_clear(struct mw_erase_listed *l)
{
	struct mw_erase_list *e = &l->list;
	e->n_whole = e->n_part = e->n_cut = e->n_token = e->n_login = 0;
}

void
mw_erase_list_free(struct mw_erase_listed *l)
{
	free(l->list.whole);
	free(l->list.part);
	free(l->list.cut);
	free(l->list.cut_login);
	free(l->list.token);
	free(l->list.login);
}
