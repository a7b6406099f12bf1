/* guard.h - the token that tells mailwald: this message is one that mailwal puts back.
 *
 * A replay through a mail server whose mail is journaled would journal it a second time.
 * So the sender gives the token as the envelope's ENVID (RFC 3461), which the server
 * shows to its milter or proxy and which is no part of the message: the bytes stay as
 * captured, and nothing has to be taken out again. mailwald then lets that one message
 * pass, counted and without a record.
 *
 * A token is bound to the record, the time, one recipient and the body, by HMAC-SHA-256
 * under a key of the journal: it cannot be made without the journal's secret, and says
 * nothing for another body, another recipient or after MW_GUARD_DAYS. Header fields are
 * left out of it, since filters and servers add theirs on the way; of the body, CR and
 * empty lines at both ends. Whatever does not fit is journaled as any other mail, and so
 * is what comes with a token that mailwald has seen before (milter/once.h): a server
 * further on, which learns the token, can do nothing with it.
 *
 * Form: "mwr2." ID "." milliseconds "." MAC, of lower-case letters, digits and dots only:
 * it needs no xtext encoding, and with 78 bytes keeps below the 100 of ENVID.
 *
 * Use, sender: for each copy a transaction of its own with one recipient:
 *     mw_guard_key(store, key);
 *     mw_guard_body_init(&b); mw_guard_body_put(&b, content…); mw_guard_body_done(&b,
 * sum); mw_guard_make(key, &(struct mw_guard){id, now_us, recipient, sum}, token); "MAIL
 * FROM:<…> … RET=HDRS ENVID=" token     where the server offers DSN Threads: pure
 * functions; a body belongs to one thread. Keys are wiped by their owner.
 */
#ifndef MW_STORE_GUARD_H
#define MW_STORE_GUARD_H

#include "journal/base/err.h"
#include "journal/base/id.h"
#include "journal/base/str.h"
#include "journal/codec/digest.h"
#include "journal/record/canon.h"

struct mw_store;

/* The argument of MAIL in which the token goes straight to a proxy of mailwald whose next
 * server has no DSN; the proxy offers it by that name and keeps it for itself. */
#define MW_GUARD_ARG "XMAILWAL"

enum {
	MW_GUARD_KEY = 32,
	MW_GUARD_TOKEN = 80, /* room for a token and its NUL */
	MW_GUARD_DAYS = 5    /* as long as servers keep mail in their queues */
};

struct mw_guard {
	uint8_t id[MW_ID_LEN]; /* of the record */
	int64_t time_us;       /* when the token was made */
	struct mw_str rcpt;    /* as in RCPT TO, without brackets; case does not count */
	uint8_t body[MW_SHA256_LEN];
	uint64_t tag; /* by mw_guard_check: tells tokens apart */
};

/* The journal's key for tokens. Wipe it after use. */
void mw_guard_key(const struct mw_store *st, uint8_t key[MW_GUARD_KEY]);
void mw_guard_make(const uint8_t key[MW_GUARD_KEY], const struct mw_guard *g,
                   char token[MW_GUARD_TOKEN]);
/* Is that the form of a token? Says nothing about who made it. */
bool mw_guard_looks_like(struct mw_str text);
/* Whether token was made under this key for g->rcpt and g->body, no longer than
 * MW_GUARD_DAYS before now_us and at most an hour after it. On true, fills g->id,
 * g->time_us and g->tag. */
bool mw_guard_check(const uint8_t key[MW_GUARD_KEY], struct mw_str token, int64_t now_us,
                    struct mw_guard *g);

/* The digest of a message's body, out of the whole message, cut anywhere. */
struct mw_guard_body {
	struct mw_canon canon;
	struct mw_sha256 sha;
	bool begun;
};

int mw_guard_body_init(struct mw_guard_body *b) MW_CHECK; /* 0 or MW_ENOMEM */
void mw_guard_body_put(struct mw_guard_body *b, const void *p, size_t n);
/* Gives the digest and frees. */
void mw_guard_body_done(struct mw_guard_body *b, uint8_t out[MW_SHA256_LEN]);
/* For one that is given up; harmless after done and on zero bytes. */
void mw_guard_body_free(struct mw_guard_body *b);

#endif
