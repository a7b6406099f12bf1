#include "replay/recover.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/erased.h"

#include <stdio.h>
#include <string.h>

enum {
	LEADS_MAX = 8 /* mailboxes named where an address leads to several */
};

/* ---- keys ---- */

struct keys {
	const struct mw_conf *conf;
	struct mw_arena *arena;
	struct mw_select_key *v;
	size_t n, cap;
	bool failed;
	bool partly; /* mail may have it so that these do not find it */
};

static void
add_key(struct keys *k, enum mw_key kind, const char *value)
{
	if (!value || !*value) {
		k->failed = k->failed || !value;
		return;
	}
	for (size_t i = 0; i < k->n; i++)
		if (k->v[i].kind == kind && strcmp(k->v[i].value, value) == 0)
			return;
	k->v = mw_arena_grow(k->arena, k->v, &k->cap, k->n + 1, sizeof *k->v);
	if (!k->v)
		k->failed = true;
	else
		k->v[k->n++] = (struct mw_select_key){kind, value};
}

/* As a recipient or a login may have it. */
static void
add_name(struct keys *k, struct mw_str addr)
{
	const char *z = mw_arena_printf(k->arena, "%.*s", (int)addr.n, addr.p);
	if (mw_addr_domain(addr).n)
		add_key(k, MW_KEY_RCPT, z);
	add_key(k, MW_KEY_OWNER, z);
}

/* addr, where it is an address of the mailbox (NULL: of any): true if it was. */
static bool
add_address(struct keys *k, const char *addr, const char *mailbox)
{
	struct mw_str base =
	    mw_addr_base(mw_strz(addr), k->conf->recipient_delimiter, k->arena);
	const char *login = base.p ? mw_mailbox_name(k->conf, base, k->arena) : NULL;
	if (!login)
		k->failed = true;
	if (!login || (mailbox && !mw_addr_eq(mw_strz(login), mw_strz(mailbox))))
		return false;
	/* Of "+kurt+x"@… no record has +kurt@… */
	const char *delimiter = k->conf->recipient_delimiter;
	k->partly = k->partly || (delimiter && base.n && strchr(delimiter, base.p[0]));
	add_name(k, base);
	/* A login without domain gets the sender's. */
	add_name(k, mw_addr_local(base));
	return true;
}

/* Does the login tell its domain, so that one address is all there is? */
static bool
tells_domain(const struct mw_conf *conf)
{
	const char *p =
	    conf->mailbox_name && *conf->mailbox_name ? conf->mailbox_name : "%u";
	for (; *p; p++)
		if (*p == '%' && *++p && (*p == 'u' || *p == 'd'))
			return true;
	return false;
}

/* Is the login the address, so that a name without domain is no login? */
static bool
is_plain(const struct mw_conf *conf)
{
	return !conf->mailbox_name || !*conf->mailbox_name ||
	       strcmp(conf->mailbox_name, "%u") == 0;
}

/* The keys of a mailbox (NULL: of any that `who` may name); none if it cannot be told
 * which addresses lead there. */
static int
keys_of(const struct mw_conf *conf, const char *who, const char *mailbox,
        struct mw_arena *a, struct mw_recover_user *ret, struct mw_err *err)
{
	struct keys k = {.conf = conf, .arena = a};
	const char *name = mailbox ? mailbox : who;
	struct mw_str local = mw_addr_local(mw_strz(name));
	bool any = false, all = mailbox && tells_domain(conf);
	all = all || (conf->local_domains.n > 0 && (mailbox || is_plain(conf)));
	all =
	    all && !mw_addr_has_forms(mw_strz(who)) && !mw_addr_has_forms(mw_strz(name));
	for (size_t i = 0; i < conf->local_domains.n; i++)
		all = all && !mw_domain_has_forms(mw_strz(conf->local_domains.v[i]));
	if (mw_addr_domain(mw_strz(who)).n)
		any = add_address(&k, who, mailbox);
	if (mw_addr_domain(mw_strz(name)).n)
		any = add_address(&k, name, mailbox) || any;
	for (size_t i = 0; i < conf->local_domains.n; i++) {
		const char *z = mw_arena_printf(a, "%.*s@%s", (int)local.n, local.p,
		                                conf->local_domains.v[i]);
		any = (z && add_address(&k, z, mailbox)) || any;
	}
	add_name(&k, local);
	add_key(&k, MW_KEY_OWNER, mw_arena_strdup(a, name));
	if (k.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	ret->key = any && all && !k.partly ? k.v : NULL;
	ret->n_key = ret->key ? k.n : 0;
	return 0;
}

/* ---- whose ---- */

struct whose {
	const struct mw_conf *conf;
	struct mw_arena *arena, *tmp;
	struct mw_str who;
	const char *login; /* that `who` itself would have; NULL: it has no domain */
	bool exact;
	struct leads {
		const char *v[LEADS_MAX];
		size_t n;
		bool more;
	} local, alias;
	void (*bad)(void *arg, const struct mw_err *err);
	void *bad_arg;
	struct mw_err no_key; /* the first; many records lie behind one missing key */
	struct mw_err *err;
};

static void
on_bad(void *arg, const struct mw_err *err)
{
	struct whose *w = arg;
	if (err->code == MW_EKEY) {
		if (!w->no_key.code)
			w->no_key = *err;
		return;
	}
	if (w->bad)
		w->bad(w->bad_arg, err);
}

static int
note_lead(struct whose *w, struct leads *l, const char *mailbox)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], mailbox) == 0)
			return 0;
	if (l->n == LEADS_MAX) {
		l->more = true;
		return 0;
	}
	l->v[l->n] = mw_arena_strdup(w->arena, mailbox);
	return l->v[l->n++] ? 0 : mw_fail(w->err, MW_ENOMEM, "out of memory");
}

static int
on_item(void *arg, const struct mw_item *it)
{
	struct whose *w = arg;
	struct mw_copy *c;
	size_t n;
	mw_arena_reset(w->tmp);
	int r = mw_copies(w->conf, &it->mail, w->tmp, &c, &n, w->err);
	for (size_t i = 0; i < n && r == 0; i++) {
		struct mw_str box = mw_strz(c[i].mailbox);
		struct mw_str base =
		    mw_addr_base(c[i].rcpt, w->conf->recipient_delimiter, w->tmp);
		int same = w->login ? mw_addr_same(box, mw_strz(w->login)) : 0;
		if (same < 0)
			return mw_fail(w->err, same, "out of memory");
		if (same) {
			w->exact = true;
			return 1;
		}
		if (!w->login && (mw_str_ieq(mw_addr_local(box), w->who)))
			r = note_lead(w, &w->local, c[i].mailbox);
		else if (!c[i].sent && w->login &&
		         (mw_addr_eq(c[i].rcpt, w->who) || mw_addr_eq(base, w->who)))
			r = note_lead(w, &w->alias, c[i].mailbox);
	}
	return r;
}

static int
several(const char *who, const struct leads *l, struct mw_err *err)
{
	MW_BUF_AUTO list = {0};
	for (size_t i = 0; i < l->n; i++)
		mw_buf_printf(&list, "%s%s", i ? ", " : "", l->v[i]);
	(void)mw_fail(err, MW_EUSAGE, "'%s' leads to several mailboxes: %s%s", who,
	              mw_buf_cstr(&list), l->more ? ", …" : "");
	return mw_err_hint(err, "say whose mail with one of these");
}

/* ---- walking until the answer is sure ---- */

struct look {
	struct whose *w;
	struct mw_erased erased;
	struct mw_arena *mail; /* of one */
	struct mw_item it;
};

static int
on_record(void *arg, const struct mw_record *r)
{
	struct look *l = arg;
	struct mw_err err = {0};
	if (mw_cli_stopped())
		return MW_ECANCEL;
	mw_arena_reset(l->mail);
	l->it.rec = *r;
	if (r->type == MW_TYPE_EXPANSION) {
		struct mw_expansion x;
		int k = mw_later_read(l->it.store, r, l->mail, &x, &err);
		if (k == 1)
			k = mw_later_of(l->it.store, &x, &l->it.rec, &err);
		if (k == MW_ENOMEM)
			return mw_fail(l->w->err, k, "out of memory");
		if (k < 0)
			on_bad(l->w, &err);
		if (k <= 0)
			return 0;
	} else if (r->type != MW_TYPE_MAIL) {
		return 0;
	}
	if (mw_erased_mail(&l->erased, l->it.store, l->it.journal, &l->it.rec, l->mail,
	                   &l->it.mail, &err) == 0)
		return on_item(l->w, &l->it);
	on_bad(l->w, &err);
	return 0;
}

/* As a rule the first record that a key finds says it: no list of all is made. */
static int
walk_keys(struct mw_cli *cli, struct whose *w, const struct mw_recover_user *first)
{
	struct look l = {.w = w, .mail = mw_arena_new(256U << 20)};
	int r = l.mail ? 0 : mw_fail(w->err, MW_ENOMEM, "out of memory");
	for (size_t k = 0; k < cli->n_journals && r == 0; k++) {
		l.it.store = cli->stores[k];
		l.it.journal = k;
		for (size_t i = 0; i < first->n_key && r == 0; i++)
			r = mw_store_find_name(l.it.store, first->key[i].kind,
			                       mw_strz(first->key[i].value), on_record,
			                       &l, w->err);
	}
	if (r == MW_ECANCEL && !w->err->code)
		(void)mw_fail(w->err, r, "interrupted");
	mw_arena_free(l.mail);
	mw_erased_done(&l.erased);
	return r;
}

static int
walk(struct mw_cli *cli, struct whose *w, const struct mw_recover_user *first)
{
	struct mw_query q;
	if (first->key)
		return walk_keys(cli, w, first);
	mw_query_init(&q, w->arena);
	q.all = true;
	return mw_select(cli, &q, on_item, w, on_bad, NULL, w->err);
}

int
mw_recover_whose(struct mw_cli *cli, const char *who, struct mw_arena *a,
                 void (*bad)(void *arg, const struct mw_err *err), void *arg,
                 struct mw_recover_user *ret, struct mw_err *err)
{
	const struct mw_conf *conf = cli->conf;
	struct mw_recover_user u = {.mailbox = NULL}, first = {.mailbox = NULL};
	MW_ARENA_AUTO *tmp = mw_arena_new(64U << 20);
	struct whose w = {.conf = conf,
	                  .arena = a,
	                  .tmp = tmp,
	                  .who = mw_strz(who),
	                  .bad = bad,
	                  .bad_arg = arg,
	                  .err = err};
	if (!tmp)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (mw_addr_domain(w.who).n || !tells_domain(conf)) {
		struct mw_str base = mw_addr_base(w.who, conf->recipient_delimiter, a);
		w.login = base.p ? mw_mailbox_name(conf, base, a) : NULL;
		if (!w.login)
			return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	/* An alias's own address is a key of what came by it. */
	int r = keys_of(conf, who, w.login, a, &first, err);
	if (r == 0)
		r = walk(cli, &w, &first);
	if (r < 0)
		return r;
	const struct leads *l = w.local.n ? &w.local : &w.alias;
	if (!w.exact && l->n > 1)
		return several(who, l, err);
	if (!w.exact && l->n == 0 && w.no_key.code) {
		*err = w.no_key;
		return MW_EKEY;
	}
	if (!w.exact && l->n == 0) {
		(void)mw_fail(err, MW_ENOUSER, "the journal has no mail of '%s'", who);
		return mw_err_hint(err, "an address, its alias, or a login; see "
		                        "mailbox_name in mailwal.conf(5)");
	}
	u.mailbox = w.exact ? w.login : l->v[0];
	u.by_alias = !w.exact && l == &w.alias;
	r = keys_of(conf, who, u.mailbox, a, &u, err);
	if (r == 0)
		*ret = u;
	return r;
}

int
mw_recover_has_copy(const struct mw_conf *conf, const struct mw_mail *m,
                    const char *mailbox, struct mw_arena *tmp)
{
	struct mw_copy *c;
	struct mw_err err;
	size_t n;
	mw_arena_reset(tmp);
	int r = mw_copies(conf, m, tmp, &c, &n, &err);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = mw_addr_same(mw_strz(c[i].mailbox), mw_strz(mailbox));
	return r < 0 ? MW_ENOMEM : r;
}
