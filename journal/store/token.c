/* What a record is found by (FORMAT.md §4): tokens beside its key slot. */
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

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

static void
add_address(struct mw_entry *e, enum mw_key kind, struct mw_str addr)
{
	mw_token_add(e, kind, addr);
	mw_token_add(e, MW_KEY_DOMAIN, mw_addr_domain(addr));
}

/* A recipient is found by its address with and without extension. */
static void
add_rcpt(struct mw_entry *e, struct mw_str addr)
{
	struct mw_str local = mw_addr_local(addr);
	size_t n = 1;
	add_address(e, MW_KEY_RCPT, addr);
	while (n < local.n &&
	       (local.p[n] == '\0' || !strchr(e->st->delimiter, local.p[n])))
		n++;
	if (n >= local.n)
		return;
	MW_BUF_AUTO b = {0};
	mw_buf_put(&b, local.p, n);
	mw_buf_put(&b, local.p + local.n, addr.n - local.n);
	if (mw_buf_ok(&b) < 0)
		e->tokens.failed = true;
	else
		mw_token_add(e, MW_KEY_RCPT, mw_buf_str(&b));
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
		struct mw_str d = mw_addr_domain(k ? r->mailbox[k - 1] : r->addr);
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
	add_address(e, MW_KEY_SENDER, m->sender);
	mw_token_add(e, MW_KEY_OWNER, m->auth_user);
	for (size_t i = 0; i < m->n_rcpt; i++) {
		const struct mw_rcpt *r = &m->rcpt[i];
		add_rcpt(e, r->addr);
		for (size_t k = 0; k < r->n_mailbox; k++)
			add_rcpt(e, r->mailbox[k]);
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
