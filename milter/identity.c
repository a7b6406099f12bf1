#include "milter/identity.h"

#include <stdlib.h>

#include "journal/base/clock.h"
#include "journal/base/domain.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/identity_int.h"

enum {
	TABLES_MAX = 16,
	NODES_MAX = 2 * MW_IDENTITY_RESULTS,
	SCRATCH_MAX = 64 << 20,
	VALUE_MAX = 1 << 20,
};

struct table {
	const struct mw_table_kind *kind;
	void *t;
};

struct mw_identity {
	const struct mw_conf *conf;
	struct table table[TABLES_MAX];
	size_t n;
	bool network;
};

/* One resolve: all recipients of one message. */
struct run {
	struct mw_identity *id;
	struct mw_use use[TABLES_MAX];
	bool begun[TABLES_MAX];
	bool broken; /* a table failed: nothing more is asked */
	struct mw_buf key, value;
};

struct node {
	struct mw_str addr;
	size_t parent; /* its index; SIZE_MAX at the root */
	unsigned depth;
	bool final;
};

/* The expansion of one recipient: a tree, breadth first, each address once. */
struct tree {
	struct mw_arena *a;
	struct node *v;
	size_t n, cap;
	size_t *slot; /* hash set over v, index + 1 */
	size_t n_slot;
};

static const struct {
	const char *name;
	const struct mw_table_kind *kind;
} kinds[] = {
    {"virtual", &mw_table_virtual},
    {"lmdb", &mw_table_lmdb},
    {"socketmap", &mw_table_socketmap},
    {"tcp", &mw_table_tcp},
};

static int
add_table(struct mw_identity *id, const char *spec, struct mw_err *err)
{
	struct mw_str type, where;
	if (!mw_str_cut(mw_strz(spec), ':', &type, &where) || where.n == 0)
		return mw_fail(err, MW_ECONF, "identities: \"%s\" is not TYPE:TABLE",
		               spec);
	if (id->n == TABLES_MAX)
		return mw_fail(err, MW_ECONF, "identities: more than %d tables",
		               TABLES_MAX);
	for (size_t i = 0; i < MW_COUNT(kinds); i++) {
		if (!mw_str_eq(type, mw_strz(kinds[i].name)))
			continue;
		struct table *t = &id->table[id->n];
		int r = kinds[i].kind->open(where.p, &t->t, err);
		if (r < 0)
			return r;
		t->kind = kinds[i].kind;
		id->network = id->network || t->kind->network;
		id->n++;
		return 0;
	}
	(void)mw_fail(err, MW_ECONF, "identities: unknown table type in \"%s\"", spec);
	return mw_err_hint(err, "known types: virtual, lmdb, socketmap, tcp");
}

int
mw_identity_open(const struct mw_conf *conf, struct mw_identity **ret, struct mw_err *err)
{
	struct mw_identity *id = calloc(1, sizeof *id);
	if (!id)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	id->conf = conf;
	for (size_t i = 0; i < conf->identities.n; i++) {
		int r = add_table(id, conf->identities.v[i], err);
		if (r < 0) {
			mw_identity_close(id);
			return r;
		}
	}
	*ret = id;
	return 0;
}

void
mw_identity_close(struct mw_identity *id)
{
	if (!id)
		return;
	for (size_t i = 0; i < id->n; i++)
		id->table[i].kind->close(id->table[i].t);
	free(id);
}

bool
mw_identity_network(const struct mw_identity *id)
{
	return id->network;
}

int
mw_identity_check(struct mw_identity *id, struct mw_err *err)
{
	const struct mw_clock *c = mw_clock_system();
	for (size_t i = 0; i < id->n; i++) {
		const struct table *t = &id->table[i];
		struct mw_use u = {.fd = -1};
		u.deadline_mono_us = c->mono_us(c) + id->conf->identities_timeout;
		int r = t->kind->begin(t->t, &u, err);
		if (r < 0)
			return r;
		t->kind->end(t->t, &u);
	}
	return 0;
}

void
mw_identity_look(struct mw_identity *id)
{
	struct mw_err err = {0};
	if (id && mw_identity_check(id, &err) < 0)
		mw_log(MW_LOG_WARN, NULL, "event=alias_table_unusable reason=\"%s\"",
		       err.msg);
}

/* ---- one look-up ---- */

/* Asks every table, in order, for one key. */
static int
ask(struct run *r, struct mw_str a, struct mw_str b, struct mw_err *err)
{
	mw_buf_clear(&r->key);
	mw_buf_putstr(&r->key, a);
	mw_buf_putstr(&r->key, b);
	if (mw_buf_ok(&r->key) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < r->key.n; i++)
		if (r->key.p[i] >= 'A' && r->key.p[i] <= 'Z')
			r->key.p[i] = (uint8_t)(r->key.p[i] | 0x20);
	for (size_t i = 0; i < r->id->n; i++) {
		mw_buf_clear(&r->value);
		int q = r->id->table[i].kind->lookup(r->id->table[i].t, &r->use[i],
		                                     mw_buf_str(&r->key), &r->value, err);
		if (q < 0)
			r->broken = true;
		if (q != 0)
			return q;
	}
	return 0;
}

/* Splits user+ext; no extension where the user part would be empty. */
static struct mw_str
split_extension(const struct run *r, struct mw_str *local)
{
	const char *delims = r->id->conf->recipient_delimiter;
	for (size_t i = 1; delims && *delims && i < local->n; i++) {
		if (!local->p[i] || !strchr(delims, local->p[i]))
			continue;
		struct mw_str ext = mw_str(local->p + i, local->n - i);
		local->n = i;
		return ext;
	}
	return MW_STR("");
}

static bool
is_local_domain(const struct run *r, struct mw_str domain)
{
	const struct mw_conf_list *l = &r->id->conf->local_domains;
	return domain.n == 0 || l->n == 0 || mw_domain_of(l->v, l->n, domain);
}

/* 1: r->value is the result and *ret_ext the extension to carry over; 0; negative. */
static int
lookup(struct run *r, struct mw_str addr, struct mw_str *ret_ext, struct mw_err *err)
{
	struct mw_str domain = mw_addr_domain(addr), local = mw_addr_local(addr);
	struct mw_str at = mw_str(addr.p + local.n, addr.n - local.n); /* "@domain" */
	struct mw_str full = local;
	*ret_ext = MW_STR("");
	int q = ask(r, addr, MW_STR(""), err);
	if (q != 0)
		return q;
	struct mw_str ext = split_extension(r, &local);
	if (ext.n && (q = ask(r, local, at, err)) != 0) {
		*ret_ext = ext;
		return q;
	}
	if (domain.n && is_local_domain(r, domain)) {
		if ((q = ask(r, full, MW_STR(""), err)) != 0)
			return q;
		if (ext.n && (q = ask(r, local, MW_STR(""), err)) != 0) {
			*ret_ext = ext;
			return q;
		}
	}
	if (domain.n && (q = ask(r, MW_STR(""), at, err)) != 0)
		*ret_ext = ext;
	return q;
}

/* ---- the tree ---- */

static size_t
hash(struct mw_str s)
{
	uint64_t h = 1469598103934665603u;
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = (uint8_t)s.p[i];
		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		h = (h ^ c) * 1099511628211u;
	}
	return (size_t)(h ^ h >> 32);
}

/* The slot of addr, or the empty one where it belongs. */
static size_t *
find(struct tree *t, struct mw_str addr)
{
	for (size_t i = hash(addr);; i++) {
		size_t *s = &t->slot[i & (t->n_slot - 1)];
		if (*s == 0 || mw_str_ieq(t->v[*s - 1].addr, addr))
			return s;
	}
}

static int
grow(struct tree *t)
{
	struct node *v = mw_arena_grow(t->a, t->v, &t->cap, t->n + 1, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	t->v = v;
	if (t->n * 2 < t->n_slot)
		return 0;
	size_t n = t->n_slot ? t->n_slot * 4 : 16;
	size_t *slot = mw_arena_alloc(t->a, n * sizeof *slot);
	if (!slot)
		return MW_ENOMEM;
	t->slot = slot;
	t->n_slot = n;
	for (size_t i = 0; i < t->n; i++)
		*find(t, t->v[i].addr) = i + 1;
	return 0;
}

/* Adds a result of node `parent`; MW_ELIMIT for a loop or too many. */
static int
add(struct tree *t, struct mw_str addr, size_t parent, struct mw_err *err)
{
	if (grow(t) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	size_t *s = find(t, addr);
	if (*s) {
		size_t was = *s - 1;
		if (was == parent) { /* an address that leads to itself is a mailbox */
			t->v[was].final = true;
			return 0;
		}
		for (size_t p = parent; p != SIZE_MAX; p = t->v[p].parent)
			if (p == was)
				return mw_fail(err, MW_ELIMIT, "alias tables: a loop");
		return 0;
	}
	unsigned depth = parent == SIZE_MAX ? 0 : t->v[parent].depth + 1;
	if (depth > MW_IDENTITY_DEPTH || t->n >= NODES_MAX)
		return mw_fail(err, MW_ELIMIT,
		               "alias tables: nested too deep or too many");
	struct mw_str own = mw_arena_str(t->a, addr);
	if (!own.p)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	*s = t->n + 1;
	t->v[t->n++] = (struct node){.addr = own, .parent = parent, .depth = depth};
	return 0;
}

/* The next address of a result: separated by commas or blanks outside quotes. */
static bool
next_result(struct mw_str *rest, struct mw_str *ret)
{
	size_t i = 0;
	while (i < rest->n && memchr(" \t\r\n,", rest->p[i], 5))
		i++;
	size_t from = i;
	bool quoted = false;
	for (; i < rest->n; i++) {
		if (rest->p[i] == '\\' && quoted && i + 1 < rest->n)
			i++;
		else if (rest->p[i] == '"')
			quoted = !quoted;
		else if (!quoted && memchr(" \t\r\n,", rest->p[i], 5))
			break;
	}
	*ret = mw_str(rest->p + from, i - from);
	*rest = mw_str(rest->p + i, rest->n - i);
	if (ret->n >= 2 && ret->p[0] == '<' && ret->p[ret->n - 1] == '>')
		*ret = mw_str(ret->p + 1, ret->n - 2);
	return ret->n > 0;
}

static int
add_results(struct tree *t, size_t parent, struct mw_str value, struct mw_str ext,
            struct mw_err *err)
{
	struct mw_str one, key = t->v[parent].addr;
	while (next_result(&value, &one)) {
		struct mw_buf b = {.max = VALUE_MAX};
		if (one.p[0] == '@') { /* another domain, same user */
			mw_buf_putstr(&b, mw_addr_local(key));
			mw_buf_putstr(&b, one);
		} else {
			struct mw_str local = mw_addr_local(one);
			mw_buf_putstr(&b, local);
			mw_buf_putstr(&b, ext);
			mw_buf_putstr(&b, mw_str(one.p + local.n, one.n - local.n));
		}
		int r = mw_buf_ok(&b) < 0 ? mw_fail(err, MW_ENOMEM, "out of memory")
		                          : add(t, mw_buf_str(&b), parent, err);
		mw_buf_free(&b);
		if (r < 0)
			return r;
	}
	return 0;
}

static int
grow_tree(struct run *r, struct tree *t, struct mw_str addr, struct mw_err *err)
{
	int q = add(t, addr, SIZE_MAX, err);
	for (size_t i = 0; q >= 0 && i < t->n; i++) {
		struct mw_str ext;
		q = lookup(r, t->v[i].addr, &ext, err);
		if (q == 0)
			t->v[i].final = true;
		else if (q > 0)
			q = add_results(t, i, mw_buf_str(&r->value), ext, err);
	}
	return q;
}

static int
expand(struct run *r, struct mw_arena *a, struct mw_rcpt *rcpt, struct mw_err *err)
{
	MW_ARENA_AUTO *scratch = mw_arena_new(SCRATCH_MAX);
	struct tree t = {.a = scratch};
	if (!scratch)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int q = grow_tree(r, &t, rcpt->addr, err);
	if (q < 0)
		return q;
	size_t n = 0;
	for (size_t i = 0; i < t.n; i++)
		n += t.v[i].final;
	if (n > MW_IDENTITY_RESULTS)
		return mw_fail(err, MW_ELIMIT, "alias tables: too many results");
	struct mw_str *v = mw_arena_alloc(a, n * sizeof *v);
	for (size_t i = 0, k = 0; v && i < t.n; i++) {
		if (!t.v[i].final)
			continue;
		v[k] = mw_arena_str(a, t.v[i].addr);
		if (!v[k++].p)
			v = NULL;
	}
	if (!v)
		return mw_fail(err, MW_ENOMEM, "the expansion does not fit in memory");
	rcpt->mailbox = v;
	rcpt->n_mailbox = n;
	rcpt->flags |= MW_RCPT_EXPANDED;
	return 0;
}

static int
begin(struct run *r, const struct mw_until *until, struct mw_err *err)
{
	for (size_t i = 0; i < r->id->n; i++) {
		const struct table *t = &r->id->table[i];
		r->use[i].fd = -1;
		r->use[i].deadline_mono_us = until->mono_us;
		r->use[i].hurry = until->hurry;
		int q = t->kind->begin(t->t, &r->use[i], err);
		if (q < 0)
			return q;
		r->begun[i] = true;
	}
	return 0;
}

int
mw_identity_resolve(struct mw_identity *id, struct mw_arena *a, struct mw_mail *m,
                    const struct mw_until *until, struct mw_err *err)
{
	struct run r = {.id = id, .key.max = VALUE_MAX, .value.max = VALUE_MAX};
	struct mw_err first = {0};
	if (begin(&r, until, &first) < 0)
		r.broken = true;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		struct mw_rcpt *rcpt = &m->rcpt[i];
		struct mw_err e = {0};
		if (rcpt->flags & MW_RCPT_REFUSED)
			continue;
		if (!r.broken && expand(&r, a, rcpt, &e) == 0)
			continue;
		rcpt->flags |= MW_RCPT_UNDECIDED;
		if (!first.code)
			first = e;
	}
	if (r.broken)
		m->flags |= MW_MAIL_TABLES_FAILED;
	for (size_t i = 0; i < id->n; i++)
		if (r.begun[i])
			id->table[i].kind->end(id->table[i].t, &r.use[i]);
	mw_buf_free(&r.key);
	mw_buf_free(&r.value);
	if (first.code && err)
		*err = first;
	return first.code;
}
