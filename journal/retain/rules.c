/* Rules of retention, held against a record's tokens. */
#include "journal/base/util.h"
#include "journal/retain/retain.h"

#include <stdlib.h>
#include <string.h>

enum term_kind {
	TERM_DOMAIN,
	TERM_RCPT,
	TERM_SENDER,
	TERM_DIRECTION,
	TERM_CLASS,
	TERM_FACT,
	TERM_LARGER,
	TERM_SMALLER
};

enum {
	SEEN_MOST = 256
};

struct term {
	enum term_kind kind;
	/* One of these; several: the forms of a name. */
	uint8_t token[MW_STORE_NAMES][8];
	int n_token;
	uint8_t some[8]; /* TERM_CLASS: of some recipients */
	uint64_t size;
};

struct rule {
	struct term *term;
	size_t n;
	size_t n_rcpt; /* terms about recipients */
};

struct mw_rules {
	struct rule rule[MW_RULES_MOST];
	size_t n;
	/* Shapes: no mailbox, one, and several with that many recipient domains. */
	uint8_t none[8], one[3][8];
	uint8_t (*many)[8];
	size_t n_many;
};

static int
compile_class(const struct mw_store *st, struct mw_str name, struct term *t)
{
	MW_BUF_AUTO b = {0};
	mw_buf_putc(&b, MW_CLASS_OF_ALL);
	mw_buf_putstr(&b, name);
	if (mw_buf_ok(&b) < 0)
		return MW_ENOMEM;
	t->kind = TERM_CLASS;
	t->n_token = 1;
	mw_store_token(st, MW_KEY_CLASS, mw_buf_str(&b), t->token[0]);
	b.p[0] = MW_CLASS_OF_SOME;
	mw_store_token(st, MW_KEY_CLASS, mw_buf_str(&b), t->some);
	return 0;
}

static int
compile(const struct mw_store *st, const char *text, struct term *t)
{
	struct mw_str s = mw_strz(text), key, value = MW_STR("");
	(void)mw_str_cut(s, ':', &key, &value); /* conf has checked: there is one */
	if (mw_str_eq(key, MW_STR("class")))
		return compile_class(st, value, t);
	if (mw_str_eq(key, MW_STR("larger")) || mw_str_eq(key, MW_STR("smaller"))) {
		t->kind = key.p[0] == 'l' ? TERM_LARGER : TERM_SMALLER;
		return mw_size_parse(value.p, &t->size);
	}
	if (mw_str_eq(key, MW_STR("header")) || mw_str_eq(key, MW_STR("spam"))) {
		t->kind = TERM_FACT;
		t->n_token = 1;
		mw_store_token(st, MW_KEY_FACT, s, t->token[0]);
		return 0;
	}

	static const struct {
		const char *prefix;
		enum term_kind kind;
		enum mw_key key;
	} kinds[] = {
	    {"domain:", TERM_DOMAIN, MW_KEY_RCPT_DOMAIN},
	    {"rcpt:", TERM_RCPT, MW_KEY_RCPT},
	    {"sender:", TERM_SENDER, MW_KEY_SENDER},
	};
	for (size_t i = 0; i < MW_COUNT(kinds); i++) {
		size_t n = strlen(kinds[i].prefix);
		if (strncmp(text, kinds[i].prefix, n) != 0)
			continue;
		t->kind = kinds[i].kind;
		t->n_token =
		    mw_store_names(st, kinds[i].key, mw_strz(text + n), t->token);
		return MW_MIN(t->n_token, 0);
	}
	char d = MW_DIR_IN;
	const char *word = strchr(text, ':'); /* conf has checked: direction:WORD */
	for (char k = MW_DIR_IN; word && k <= MW_DIR_INTERNAL; k++)
		if (strcmp(word + 1, mw_direction_name((enum mw_direction)k)) == 0)
			d = k;
	t->kind = TERM_DIRECTION;
	t->n_token = 1;
	mw_store_token(st, MW_KEY_DIRECTION, mw_str(&d, 1), t->token[0]);
	return 0;
}

static void
shape(const struct mw_store *st, unsigned mailboxes, size_t domains, uint8_t out[8])
{
	char v[2] = {(char)mailboxes, (char)domains};
	mw_store_token(st, MW_KEY_SHAPE, mw_str(v, 2), out);
}

int
mw_rules_new(const struct mw_store *st, const struct mw_conf *conf, struct mw_rules **ret,
             struct mw_err *err)
{
	if (conf->n_retain > MW_RULES_MOST)
		return mw_fail(err, MW_ECONF, "more than %d retain sections",
		               MW_RULES_MOST);
	struct mw_rules *r = calloc(1, sizeof *r);
	size_t domains = 0;
	if (!r)
		return mw_fail(err, MW_ENOMEM, "out of memory for rules");
	for (size_t i = 0; i < conf->n_retain; i++) {
		const struct mw_conf_list *m = &conf->retain[i].match;
		struct rule *u = &r->rule[r->n++];
		int k_r = 0;
		u->term = calloc(m->n + 1, sizeof *u->term);
		for (size_t k = 0; u->term && k_r == 0 && k < m->n; k++) {
			struct term *t = &u->term[u->n++];
			k_r = compile(st, m->v[k], t);
			u->n_rcpt += t->kind <= TERM_RCPT;
			/* a mail may have each form of one */
			if (k_r == 0 && t->kind == TERM_DOMAIN)
				domains += (size_t)t->n_token;
		}
		if (!u->term || k_r < 0) {
			mw_rules_free(r);
			return mw_fail(err, MW_ENOMEM, "out of memory for rules");
		}
	}
	r->n_many = MW_MIN(domains, 254U);
	r->many = calloc(r->n_many + 1, 8);
	if (!r->many) {
		mw_rules_free(r);
		return mw_fail(err, MW_ENOMEM, "out of memory for rules");
	}
	shape(st, 0, 0, r->none);
	for (size_t d = 0; d < MW_COUNT(r->one); d++)
		shape(st, 1, d, r->one[d]);
	for (size_t d = 0; d < r->n_many; d++)
		shape(st, 2, d + 1, r->many[d]);
	*ret = r;
	return 0;
}

void
mw_rules_free(struct mw_rules *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		free(r->rule[i].term);
	free(r->many);
	free(r);
}

static bool
has_token(const uint8_t *v, size_t n, const uint8_t token[8])
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(v + 8 * i, token, 8) == 0)
			return true;
	return false;
}

static bool
has(const struct mw_traits *t, const uint8_t token[8])
{
	return has_token(t->token, t->n, token);
}

static bool
has_own(const struct mw_traits *t, const uint8_t token[8])
{
	return t->own ? has_token(t->own, t->n_own, token) : has(t, token);
}

/* *some: it is so for some recipients, and not for all. */
static bool
fits_term(const struct term *m, const struct mw_traits *t, bool *some)
{
	switch (m->kind) {
	case TERM_DOMAIN:
	case TERM_RCPT:
	case TERM_SENDER:
	case TERM_DIRECTION:
		break;
	case TERM_CLASS:
		if (has_own(t, m->token[0]))
			return true;
		*some = true;
		return has_own(t, m->some);
	case TERM_FACT:
		return has_own(t, m->token[0]);
	case TERM_LARGER:
		return t->size > m->size;
	case TERM_SMALLER:
		return t->size < m->size;
	}
	for (int i = 0; i < m->n_token; i++)
		if (has(t, m->token[i]))
			return true;
	return false;
}

static bool
fits(const struct rule *u, const struct mw_traits *t, bool *some)
{
	*some = false;
	for (size_t i = 0; i < u->n; i++)
		if (!fits_term(&u->term[i], t, some))
			return false;
	return true;
}

/* At most one mailbox: what fits the mail fits its recipient. */
static bool
is_single(const struct mw_rules *r, const struct mw_traits *t)
{
	bool yes = has(t, r->none);
	for (size_t d = 0; !yes && d < MW_COUNT(r->one); d++)
		yes = has(t, r->one[d]);
	return yes;
}

/* Distinct recipient domains of a mail to several; 0: more than rules can name. */
static size_t
count_domains(const struct mw_rules *r, const struct mw_traits *t)
{
	for (size_t d = 0; d < r->n_many; d++)
		if (has(t, r->many[d]))
			return d + 1;
	return 0;
}

/* The domains of the mail that the term names, added to the n in seen; how many. */
static size_t
name_domains(const struct term *m, const struct mw_traits *t,
             const uint8_t *seen[SEEN_MOST], size_t n)
{
	for (int k = 0; m->kind == TERM_DOMAIN && k < m->n_token; k++) {
		bool new = has(t, m->token[k]);
		for (size_t j = 0; new &&j < n; j++)
			new = memcmp(seen[j], m->token[k], 8) != 0;
		if (new &&n < SEEN_MOST)
			seen[n++] = m->token[k];
	}
	return n;
}

uint64_t
mw_rules_match(const struct mw_rules *r, const struct mw_traits *t, bool *ret_all)
{
	uint64_t mask = 0;
	bool single = is_single(r, t);
	size_t domains = single ? 0 : count_domains(r, t), named = 0;
	const uint8_t *seen[SEEN_MOST];
	*ret_all = false;
	for (size_t k = 0; k < r->n && !*ret_all; k++) {
		const struct rule *u = &r->rule[k];
		bool some;
		if (!fits(u, t, &some))
			continue;
		mask |= UINT64_C(1) << k;
		if (some) /* for whom is not known: others have a say too */
			continue;
		if (u->n_rcpt == 0 || single) {
			*ret_all = true;
		} else if (u->n_rcpt == 1) {
			/* Several recipients: done once their domains are all named. */
			for (size_t i = 0; i < u->n; i++)
				named = name_domains(&u->term[i], t, seen, named);
			*ret_all = domains && named >= domains;
		}
	}
	return mask;
}
