/* What a record is found by (FORMAT.md §4): tokens beside its key slot. */
#include "journal/base/bytes.h"
#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdlib.h>
#include <string.h>

void
mw_store_token(const struct mw_store *st, enum mw_key kind, struct mw_str value,
               uint8_t out[MW_TOKEN_LEN])
{
	bool fold = (kind >= MW_KEY_RCPT && kind <= MW_KEY_DOMAIN) ||
	            kind == MW_KEY_RCPT_DOMAIN || kind == MW_KEY_FACT;
	uint8_t part[256], full[MW_SHA256_LEN];
	struct mw_hmac h = st->token_hmac;
	part[0] = (uint8_t)kind;
	mw_hmac_update(&h, part, 1);
	for (size_t at = 0; at < value.n;) {
		size_t n = 0;
		for (; n < sizeof part && at < value.n; n++, at++) {
			char c = value.p[at];
			part[n] = (uint8_t)(fold && c >= 'A' && c <= 'Z' ? c + 32 : c);
		}
		mw_hmac_update(&h, part, n);
	}
	mw_hmac_final(&h, full);
	memcpy(out, full, MW_TOKEN_LEN);
}

int
mw_store_own_names(const struct mw_store *st, enum mw_key kind, struct mw_str name,
                   uint8_t ret[MW_STORE_OWN][MW_TOKEN_LEN])
{
	MW_BUF_AUTO b = {0};
	struct mw_str key = mw_addr_key(name, &b);
	if (b.failed)
		return MW_ENOMEM;
	if (name.n == 0)
		return 0;
	mw_store_token(st, kind, key, ret[0]);
	if (key.p == name.p)
		return 1;
	mw_store_token(st, kind, name, ret[1]);
	return 2;
}

int
mw_store_names(const struct mw_store *st, enum mw_key kind, struct mw_str name,
               uint8_t ret[MW_STORE_NAMES][MW_TOKEN_LEN])
{
	bool domain = kind == MW_KEY_DOMAIN || kind == MW_KEY_RCPT_DOMAIN;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO b = {0};
	struct mw_str key = domain ? mw_domain_key(name, &b) : mw_addr_key(name, &b);
	struct mw_str form[MW_ADDR_FORMS];
	int n = !a       ? MW_ENOMEM
	        : domain ? mw_domain_forms(name, a, form)
	                 : mw_addr_forms(name, a, form),
	    k = 0;
	if (n < 0 || b.failed)
		return MW_ENOMEM;
	mw_store_token(st, kind, key, ret[k++]);
	for (int i = 0; i < n; i++)
		if (form[i].n && !mw_str_ieq(form[i], key))
			mw_store_token(st, kind, form[i], ret[k++]);
	return key.n ? k : 0;
}

void
mw_token_add(struct mw_entry *e, enum mw_key kind, struct mw_str value)
{
	uint8_t t[MW_TOKEN_LEN];
	if (value.n == 0)
		return;
	mw_store_token(e->st, kind, value, t);
	mw_buf_put(&e->tokens, t, sizeof t);
}

void
mw_entry_refer(struct mw_entry *e, const uint8_t id[MW_ID_LEN])
{
	mw_assert(!e->finished);
	mw_token_add(e, MW_KEY_ID, mw_str((const char *)id, MW_ID_TOKEN));
}

/* I23: a name has the token of its key. Of plain ASCII that is the name itself. */
static void
add_key(struct mw_entry *e, enum mw_key kind, struct mw_str key, const struct mw_buf *b)
{
	if (b->failed)
		e->tokens.failed = true;
	else
		mw_token_add(e, kind, key);
}

static void
add_address(struct mw_entry *e, enum mw_key kind, struct mw_str addr,
            const char *delimiter)
{
	MW_BUF_AUTO b = {0};
	struct mw_str key = mw_addr_key(addr, &b);
	add_key(e, kind, key, &b);
	if (kind != MW_KEY_OWNER)
		add_key(e, MW_KEY_DOMAIN, mw_addr_domain(key), &b);
	if (kind != MW_KEY_RCPT || b.failed)
		return;
	/* A recipient is found by its address with and without extension. */
	MW_BUF_AUTO bare = {0};
	struct mw_str without = mw_addr_bare(key, delimiter, &bare);
	add_key(e, kind, without, &bare);
}

static int
cmp_token(const void *a, const void *b)
{
	return memcmp(a, b, MW_TOKEN_LEN);
}

void
mw_token_unique(struct mw_buf *b)
{
	size_t n = b->n / MW_TOKEN_LEN, k = 0;
	if (n)
		qsort(b->p, n, MW_TOKEN_LEN, cmp_token);
	for (size_t i = 0; i < n; i++) {
		uint8_t *t = b->p + i * MW_TOKEN_LEN;
		if (k && memcmp(b->p + (k - 1) * MW_TOKEN_LEN, t, MW_TOKEN_LEN) == 0)
			continue;
		memmove(b->p + k++ * MW_TOKEN_LEN, t, MW_TOKEN_LEN);
	}
	b->n = k * MW_TOKEN_LEN;
}

static void
rcpt_domains(const struct mw_entry *e, const struct mw_rcpt *r, struct mw_buf *b)
{
	for (size_t k = 0; k <= r->n_mailbox; k++) {
		uint8_t t[MW_TOKEN_LEN];
		MW_BUF_AUTO label = {0};
		struct mw_str d = mw_addr_domain(k ? r->mailbox[k - 1] : r->addr);
		d = mw_domain_key(d, &label);
		b->failed = b->failed || label.failed;
		if (d.n == 0)
			continue;
		mw_store_token(e->st, MW_KEY_RCPT_DOMAIN, d, t);
		mw_buf_put(b, t, sizeof t);
	}
}

/* What retention rules ask, so that they need no key: direction, whose domains, and
 * whether there is one recipient or more. */
static void
rule_tokens(struct mw_entry *e, const struct mw_mail *m)
{
	MW_BUF_AUTO domains = {0};
	char direction = (char)m->direction;
	size_t boxes = 0;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		const struct mw_rcpt *r = &m->rcpt[i];
		if (r->flags & MW_RCPT_REFUSED)
			continue;
		if (r->flags & MW_RCPT_UNDECIDED)
			boxes += 2;
		else
			boxes +=
			    r->flags & MW_RCPT_EXPANDED ? MW_MAX(r->n_mailbox, 1U) : 1;
		rcpt_domains(e, r, &domains);
	}
	mw_token_unique(&domains);
	size_t n = domains.n / MW_TOKEN_LEN;
	char shape[2] = {(char)MW_MIN(boxes, 2U), (char)MW_MIN(n, 255U)};
	mw_buf_put(&e->tokens, domains.p, domains.n);
	mw_token_add(e, MW_KEY_DIRECTION, mw_str(&direction, 1));
	mw_token_add(e, MW_KEY_SHAPE, mw_str(shape, sizeof shape));
	e->tokens.failed = e->tokens.failed || domains.failed;
}

/* Who sent it and to whom it goes. */
static void
people_tokens(struct mw_entry *e, const struct mw_mail *m)
{
	char by[sizeof e->st->delimiter];
	(void)pthread_mutex_lock(&e->st->mu);
	memcpy(by, e->st->delimiter, sizeof by);
	(void)pthread_mutex_unlock(&e->st->mu);
	e->parted = true;
	e->delimiter = mw_crc32c(0, by, strlen(by));
	add_address(e, MW_KEY_SENDER, m->sender, by);
	add_address(e, MW_KEY_OWNER, m->auth_user, by);
	for (size_t i = 0; i < m->n_rcpt; i++) {
		const struct mw_rcpt *r = &m->rcpt[i];
		add_address(e, MW_KEY_RCPT, r->addr, by);
		for (size_t k = 0; k < r->n_mailbox; k++)
			add_address(e, MW_KEY_RCPT, r->mailbox[k], by);
	}
	rule_tokens(e, m);
}

/* What was decided at capture and cannot be found out without a key. */
static void
class_tokens(struct mw_entry *e, const struct mw_mail *m)
{
	for (size_t i = 0; i < m->n_class; i++) {
		MW_BUF_AUTO b = {0};
		if (m->class[i].n == 0)
			continue;
		mw_buf_putc(&b, m->n_class > 1 ? MW_CLASS_OF_SOME : MW_CLASS_OF_ALL);
		mw_buf_putstr(&b, m->class[i]);
		if (mw_buf_ok(&b) < 0)
			e->tokens.failed = true;
		else
			mw_token_add(e, MW_KEY_CLASS, mw_buf_str(&b));
	}
	for (size_t i = 0; i < m->n_fact; i++)
		mw_token_add(e, MW_KEY_FACT, m->fact[i]);
}

void
mw_token_mail(struct mw_entry *e, const struct mw_mail *m)
{
	mw_token_add(e, MW_KEY_QUEUE_ID, m->queue_id);
	mw_token_add(e, MW_KEY_MESSAGE_ID, m->message_id);
	mw_token_add(e, MW_KEY_DIGEST, mw_str((const char *)m->digest, sizeof m->digest));
	people_tokens(e, m);
	class_tokens(e, m);
}

void
mw_entry_people(struct mw_entry *e, const struct mw_mail *m)
{
	mw_assert(!e->finished);
	people_tokens(e, m);
}
