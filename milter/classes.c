#include "milter/classes.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "journal/base/clock.h"
#include "journal/base/domain.h"
#include "journal/base/util.h"

enum kind {
	K_DIRECTION,
	K_RCPT, /* of a recipient: address or domain */
	K_SENDER,
	K_USER,
	K_CLIENT,
	K_HEADER,
	K_SPAM,
	K_LARGER,
	K_SMALLER,
	N_KINDS
};

struct term {
	enum kind kind;
	bool domain;        /* K_RCPT, K_SENDER: text is a domain */
	struct mw_str text; /* borrowed from the configuration */
	uint64_t number;    /* size; direction; spam; bit of a header word */
	uint8_t net[16];
	unsigned bits, net_len;
};

struct section {
	const struct mw_conf_capture *conf;
	struct term *term;
	size_t n;
	unsigned asked; /* bit per kind */
};

struct header { /* a header word */
	struct mw_str name, pattern;
	bool any; /* no pattern */
};

struct mw_classes {
	struct section *v;
	size_t n, n_headers;
	struct term *fact; /* header: and spam: words of retain sections */
	size_t n_fact;
	const char **fact_text;
	bool spam;
	struct header header[MW_CLASS_HEADERS];
};

/* ---- compiling ---- */

static void
compile_client(struct term *t, struct mw_str s)
{
	char addr[INET6_ADDRSTRLEN + 8] = "";
	struct mw_str host = s, bits = MW_STR("");
	bool six = memchr(s.p, ':', s.n) != NULL;
	(void)mw_str_cut(s, '/', &host, &bits); /* no slash: the whole address */
	memcpy(addr, host.p, MW_MIN(host.n, sizeof addr - 1));
	t->net_len = six ? 16 : 4;
	t->bits = bits.n ? (unsigned)strtoul(bits.p, NULL, 10) : 8 * t->net_len;
	if (inet_pton(six ? AF_INET6 : AF_INET, addr, t->net) != 1)
		t->net_len = 0; /* conf/ has checked it: fits nothing */
}

static int
compile_header(struct mw_classes *c, struct term *t, struct mw_str s, struct mw_err *err)
{
	if (c->n_headers == MW_CLASS_HEADERS)
		return mw_fail(err, MW_ECONF,
		               "capture sections: more than %d header: words",
		               MW_CLASS_HEADERS);
	struct header *h = &c->header[c->n_headers];
	h->any = !mw_str_cut(s, ':', &h->name, &h->pattern);
	if (h->any)
		h->name = s;
	t->number = UINT64_C(1) << c->n_headers++;
	return 0;
}

static int
compile(struct mw_classes *c, struct term *t, const char *text, struct mw_err *err)
{
	static const struct {
		const char *word;
		enum kind kind;
		bool domain;
	} words[] = {
	    {"direction:", K_DIRECTION, false}, {"domain:", K_RCPT, true},
	    {"rcpt:", K_RCPT, false},           {"sender:", K_SENDER, false},
	    {"sender_domain:", K_SENDER, true}, {"user:", K_USER, false},
	    {"client:", K_CLIENT, false},       {"header:", K_HEADER, false},
	    {"spam:", K_SPAM, false},           {"larger:", K_LARGER, false},
	    {"smaller:", K_SMALLER, false},
	};
	struct mw_str s = mw_strz(text);
	size_t i = 0;
	while (i < MW_COUNT(words) && !mw_str_starts(s, mw_strz(words[i].word)))
		i++;
	if (i == MW_COUNT(words))
		return mw_fail(err, MW_EBUG, "capture: '%s' was not checked", text);
	size_t n = strlen(words[i].word);
	t->kind = words[i].kind;
	t->domain = words[i].domain;
	t->text = mw_str(s.p + n, s.n - n);
	if (t->kind == K_DIRECTION)
		t->number = mw_str_eq(t->text, MW_STR("in"))    ? MW_DIR_IN
		            : mw_str_eq(t->text, MW_STR("out")) ? MW_DIR_OUT
		                                                : MW_DIR_INTERNAL;
	else if (t->kind == K_SPAM)
		t->number = mw_str_eq(t->text, MW_STR("yes"));
	else if (t->kind == K_CLIENT)
		compile_client(t, t->text);
	else if (t->kind == K_LARGER || t->kind == K_SMALLER)
		return mw_size_parse(t->text.p, &t->number);
	c->spam = c->spam || t->kind == K_SPAM;
	return t->kind == K_HEADER ? compile_header(c, t, t->text, err) : 0;
}

static bool
is_fact(const char *word)
{
	return strncmp(word, "header:", 7) == 0 || strncmp(word, "spam:", 5) == 0;
}

static size_t
count_facts(const struct mw_conf *conf)
{
	size_t n = 0;
	for (size_t i = 0; i < conf->n_retain; i++)
		for (size_t k = 0; k < conf->retain[i].match.n; k++)
			n += is_fact(conf->retain[i].match.v[k]);
	return n;
}

/* Each word once, whatever the number of rules that ask it. */
static int
compile_facts(struct mw_classes *c, const struct mw_conf *conf, struct mw_err *err)
{
	int r = 0;
	for (size_t i = 0; i < conf->n_retain; i++)
		for (size_t k = 0; r == 0 && k < conf->retain[i].match.n; k++) {
			const char *word = conf->retain[i].match.v[k];
			size_t j = 0;
			if (!is_fact(word))
				continue;
			while (j < c->n_fact && strcasecmp(c->fact_text[j], word) != 0)
				j++;
			if (j < c->n_fact)
				continue;
			c->fact_text[j] = word;
			r = compile(c, &c->fact[j], word, err);
			c->n_fact++;
		}
	return r;
}

int
mw_classes_new(const struct mw_conf *conf, struct mw_classes **ret, struct mw_err *err)
{
	size_t facts = count_facts(conf);
	*ret = NULL;
	if (conf->n_capture == 0 && facts == 0)
		return 0;
	if (conf->n_capture > MW_CLASSES_MOST)
		return mw_fail(err, MW_ECONF, "more than %d capture sections",
		               MW_CLASSES_MOST);
	struct mw_classes *c = calloc(1, sizeof *c);
	int r = 0;
	if (c) {
		c->v = calloc(conf->n_capture + 1, sizeof *c->v);
		c->fact = calloc(facts + 1, sizeof *c->fact);
		c->fact_text = calloc(facts + 1, sizeof *c->fact_text);
	}
	if (!c || !c->v || !c->fact || !c->fact_text)
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0)
		r = compile_facts(c, conf, err);
	for (size_t i = 0; r == 0 && i < conf->n_capture; i++) {
		struct section *s = &c->v[c->n++];
		s->conf = &conf->capture[i];
		s->term = calloc(s->conf->match.n + 1, sizeof *s->term);
		if (!s->term)
			r = mw_fail(err, MW_ENOMEM, "out of memory");
		for (size_t k = 0; r == 0 && k < s->conf->match.n; k++, s->n++) {
			r = compile(c, &s->term[k], s->conf->match.v[k], err);
			s->asked |= 1U << s->term[k].kind;
		}
	}
	if (r < 0) {
		mw_classes_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void
mw_classes_free(struct mw_classes *c)
{
	if (!c)
		return;
	for (size_t i = 0; c->v && i < c->n; i++)
		free(c->v[i].term);
	free(c->v);
	free(c->fact);
	free(c->fact_text);
	free(c);
}

bool
mw_classes_may_pass(const struct mw_classes *c)
{
	for (size_t i = 0; c && i < c->n; i++)
		if (!c->v[i].conf->journal || c->v[i].conf->on_failure == MW_CLASS_ACCEPT)
			return true;
	return false;
}

int
mw_classes_strictest(const struct mw_classes *c, int global)
{
	for (size_t i = 0; c && i < c->n; i++)
		if (c->v[i].conf->journal &&
		    c->v[i].conf->on_failure == MW_CLASS_TEMPFAIL)
			return MW_ON_FAILURE_TEMPFAIL;
	return global;
}

const char *
mw_classes_name(const struct mw_classes *c, size_t section)
{
	return section < c->n ? c->v[section].conf->name : "";
}

/* ---- the header ---- */

static char
fold(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Shell-like: * and ?, in any case of letters. Goes back to the last star only, so that
 * time is bounded by the product of the lengths. */
static bool
glob(struct mw_str pattern, struct mw_str s)
{
	size_t p = 0, i = 0, star = SIZE_MAX, from = 0;
	while (i < s.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star = p++;
			from = i;
		} else if (p < pattern.n &&
		           (pattern.p[p] == '?' || fold(pattern.p[p]) == fold(s.p[i]))) {
			p++;
			i++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			i = ++from;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}

/* X-Spam-Flag: YES, X-Spam: Yes, X-Spam-Status: Yes, score=… */
static bool
says_spam(struct mw_str name, struct mw_str value)
{
	if (!mw_str_ieq(name, MW_STR("X-Spam-Flag")) &&
	    !mw_str_ieq(name, MW_STR("X-Spam")) &&
	    !mw_str_ieq(name, MW_STR("X-Spam-Status")))
		return false;
	return mw_str_istarts(value, MW_STR("yes")) &&
	       (value.n == 3 || value.p[3] == ',' || value.p[3] == ' ');
}

static void
field_done(struct mw_scan *s)
{
	struct mw_str name, value;
	const struct mw_classes *c = s->classes;
	if (s->field.n && mw_buf_ok(&s->field) == 0 &&
	    mw_str_cut(mw_buf_str(&s->field), ':', &name, &value)) {
		name = mw_str_trim(name);
		value = mw_str_trim(value);
		s->spam = s->spam || (c->spam && says_spam(name, value));
		for (size_t i = 0; i < c->n_headers; i++)
			if (mw_str_ieq(c->header[i].name, name) &&
			    (c->header[i].any || glob(c->header[i].pattern, value)))
				s->hits |= UINT64_C(1) << i;
	}
	mw_buf_clear(&s->field);
}

void
mw_scan_begin(struct mw_scan *s, const struct mw_classes *c)
{
	memset(s, 0, sizeof *s);
	if (c && (c->n_headers || c->spam))
		s->classes = c;
	s->bol = true;
}

static void
finish(struct mw_scan *s)
{
	field_done(s);
	mw_buf_free(&s->field);
	memset(&s->field, 0, sizeof s->field);
	s->over = true;
}

void
mw_scan_put(struct mw_scan *s, const void *bytes, size_t n)
{
	const char *p = bytes;
	if (!s->classes || s->over)
		return;
	for (size_t i = 0; i < n && !s->over; i++) {
		char ch = p[i];
		if (ch == '\r')
			continue;
		if (++s->seen > MW_CLASS_HEADER_MAX || (s->bol && ch == '\n')) {
			s->cut = s->seen > MW_CLASS_HEADER_MAX;
			finish(s);
			return;
		}
		if (s->bol && ch != ' ' && ch != '\t')
			field_done(s);
		s->bol = ch == '\n';
		if (!s->bol && s->field.n < MW_CLASS_FIELD)
			mw_buf_putc(&s->field, ch);
	}
}

void
mw_scan_end(struct mw_scan *s)
{
	if (s->classes && !s->over)
		finish(s);
}

void
mw_scan_free(struct mw_scan *s)
{
	mw_buf_free(&s->field);
	memset(s, 0, sizeof *s);
}

/* ---- deciding ---- */

struct unit { /* one recipient, or one mailbox of it */
	const struct mw_conf *conf;
	const struct mw_scan *scan;
	const struct mw_mail *m;
	uint64_t size;
	bool any; /* there is a recipient */
	struct mw_str addr, mailbox;
	enum mw_direction direction;
};

/* text is the address, with or without its extension. */
static bool
is_address(struct mw_str text, struct mw_str addr, const char *delimiter)
{
	MW_BUF_AUTO b = {0};
	MW_BUF_AUTO bare = {0};
	if (mw_addr_eq(text, addr))
		return true;
	struct mw_str own = mw_addr_own(addr, &b);
	struct mw_str without = mw_addr_bare(own, delimiter, &bare);
	return without.n && mw_addr_eq(text, without);
}

static bool
fits_address(const struct term *t, const struct unit *u, struct mw_str addr)
{
	if (t->domain)
		return mw_domain_eq(t->text, mw_addr_domain(addr));
	return is_address(t->text, addr, u->conf->recipient_delimiter);
}

static bool
fits_client(const struct term *t, struct mw_str addr)
{
	char text[INET6_ADDRSTRLEN + 8] = "";
	uint8_t bin[16];
	if (addr.n == 0 || addr.n >= sizeof text)
		return false;
	memcpy(text, addr.p, addr.n);
	unsigned n = memchr(addr.p, ':', addr.n) ? 16 : 4;
	if (n != t->net_len || inet_pton(n == 16 ? AF_INET6 : AF_INET, text, bin) != 1)
		return false;
	unsigned whole = t->bits / 8, left = t->bits % 8;
	return memcmp(bin, t->net, whole) == 0 &&
	       (!left || (bin[whole] ^ t->net[whole]) >> (8 - left) == 0);
}

static bool
fits_term(const struct term *t, const struct unit *u)
{
	switch (t->kind) {
	case K_DIRECTION:
		return t->number == (uint64_t)u->direction;
	case K_RCPT:
		return u->any && (fits_address(t, u, u->addr) ||
		                  (u->mailbox.n && fits_address(t, u, u->mailbox)));
	case K_SENDER:
		return fits_address(t, u, u->m->sender);
	case K_USER:
		return u->m->auth_user.n && glob(t->text, u->m->auth_user);
	case K_CLIENT:
		return fits_client(t, u->m->client_addr);
	case K_HEADER:
		return (u->scan->hits & t->number) != 0;
	case K_SPAM:
		return u->scan->spam == (t->number != 0);
	case K_LARGER:
		return u->size > t->number;
	case K_SMALLER:
		return u->size < t->number;
	case N_KINDS:
		break;
	}
	return false;
}

/* Of each kind of words that the section has, one fits. */
static bool
fits(const struct section *s, const struct unit *u)
{
	unsigned met = 0;
	for (size_t i = 0; i < s->n; i++)
		if (!(met & 1U << s->term[i].kind) && fits_term(&s->term[i], u))
			met |= 1U << s->term[i].kind;
	return met == s->asked;
}

/* The first section that fits; c->n: none. */
static size_t
ask(const struct mw_classes *c, const struct unit *u)
{
	size_t i = 0;
	while (i < c->n && !fits(&c->v[i], u))
		i++;
	return i;
}

struct verdict {
	const struct mw_classes *c;
	int global;
	struct mw_class *ret;
	bool first; /* nothing was asked yet */
};

/* Asks for one unit; true: it is excluded. */
static bool
decide_unit(struct verdict *v, const struct unit *u)
{
	size_t i = ask(v->c, u);
	const struct mw_conf_capture *k = i < v->c->n ? v->c->v[i].conf : NULL;
	if (k && !k->journal) {
		if (v->first)
			v->ret->section = i;
		v->first = false;
		return true;
	}
	v->first = false;
	size_t bit = k ? i : MW_CLASSES_MOST;
	v->ret->by[bit / 64] |= UINT64_C(1) << bit % 64;
	int on_failure = k && k->on_failure == MW_CLASS_TEMPFAIL ? MW_ON_FAILURE_TEMPFAIL
	                 : k && k->on_failure == MW_CLASS_ACCEPT ? MW_ON_FAILURE_ACCEPT
	                                                         : v->global;
	if (!v->ret->journal || on_failure == MW_ON_FAILURE_TEMPFAIL)
		v->ret->on_failure = on_failure;
	v->ret->journal = true;
	return false;
}

static bool
decide_rcpt(struct verdict *v, struct unit *u, const struct mw_rcpt *r)
{
	bool excluded = true;
	size_t n = r->flags & MW_RCPT_EXPANDED && !(r->flags & MW_RCPT_UNDECIDED)
	               ? r->n_mailbox
	               : 0;
	u->any = true;
	u->addr = r->addr;
	u->mailbox = MW_STR("");
	u->direction = u->m->direction == MW_DIR_IN ? MW_DIR_IN
	               : r->flags & MW_RCPT_LOCAL   ? MW_DIR_INTERNAL
	                                            : MW_DIR_OUT;
	for (size_t k = 0; k < MW_MAX(n, 1U); k++) {
		if (n)
			u->mailbox = r->mailbox[k];
		if (!decide_unit(v, u))
			excluded = false;
	}
	return excluded;
}

void
mw_classes_decide(const struct mw_classes *c, const struct mw_conf *conf,
                  const struct mw_scan *scan, uint64_t size, struct mw_mail *m,
                  struct mw_class *ret)
{
	*ret = (struct mw_class){.journal = true, .on_failure = conf->on_failure};
	if (!c)
		return;
	struct unit u = {
	    .conf = conf, .scan = scan, .m = m, .size = size, .direction = m->direction};
	struct verdict v = {c, conf->on_failure, ret, true};
	ret->journal = false;
	for (size_t i = 0; i < m->n_rcpt; i++)
		if (!(m->rcpt[i].flags & MW_RCPT_REFUSED) &&
		    decide_rcpt(&v, &u, &m->rcpt[i]))
			m->rcpt[i].flags |= MW_RCPT_EXCLUDED;
	if (v.first) /* no recipient at all */
		(void)decide_unit(&v, &u);
}

/* ---- what stays with the record ---- */

static bool
decided(const struct mw_class *k, size_t bit)
{
	return k->by[bit / 64] >> bit % 64 & 1;
}

int
mw_classes_note(const struct mw_classes *c, const struct mw_scan *scan,
                const struct mw_class *k, struct mw_arena *a, struct mw_mail *m)
{
	m->n_class = m->n_fact = 0;
	if (!c)
		return 0;
	m->class = mw_arena_alloc(a, (c->n + 1) * sizeof *m->class);
	m->fact = mw_arena_alloc(a, (c->n_fact + 1) * sizeof *m->fact);
	if (!m->class || !m->fact)
		return MW_ENOMEM;
	for (size_t i = 0; i < c->n; i++)
		if (decided(k, i))
			m->class[m->n_class++] = mw_strz(c->v[i].conf->name);
	if (m->n_class && decided(k, MW_CLASSES_MOST))
		m->class[m->n_class++] = MW_STR("");
	for (size_t i = 0; i < c->n_fact; i++) {
		const struct term *t = &c->fact[i];
		bool yes = t->kind == K_HEADER ? (scan->hits & t->number) != 0
		           : t->number         ? scan->spam
		                               : !scan->spam && !scan->cut;
		if (yes)
			m->fact[m->n_fact++] = mw_strz(c->fact_text[i]);
	}
	return 0;
}
