#include "journal/store/guard.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdio.h>
#include <string.h>

enum {
	MAC_LEN = 16,
	RCPT_MAX = 1000,  /* a longer recipient has no token that holds */
	TIME_DIGITS = 12, /* milliseconds, hexadecimal */
	PREFIX = 5,
	TIME_AT = PREFIX + MW_ID_TEXT + 1,
	MAC_AT = TIME_AT + TIME_DIGITS + 1,
	LENGTH = MAC_AT + 2 * MAC_LEN
};

static const char prefix[] = "mwr2.";

void
mw_guard_key(const struct mw_store *st, uint8_t key[MW_GUARD_KEY])
{
	mw_hmac_sha256(st->token_key, sizeof st->token_key, "replay guard 1", 14, key);
}

static uint8_t
lower(char c)
{
	return (uint8_t)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Fixed lengths throughout, the recipient as its digest: no two meanings of one text. */
static void
mac(const uint8_t key[MW_GUARD_KEY], const struct mw_guard *g, uint64_t ms,
    uint8_t out[MW_SHA256_LEN])
{
	uint8_t text[16 + MW_ID_LEN + 8 + 2 * MW_SHA256_LEN], rcpt[RCPT_MAX];
	size_t n = MW_MIN(g->rcpt.n, sizeof rcpt);
	for (size_t i = 0; i < n; i++)
		rcpt[i] = lower(g->rcpt.p[i]);
	memcpy(text, "mailwal replay 2", 16);
	memcpy(text + 16, g->id, MW_ID_LEN);
	mw_put64(text + 16 + MW_ID_LEN, ms);
	mw_sha256_of(rcpt, n, text + 40);
	memcpy(text + 40 + MW_SHA256_LEN, g->body, MW_SHA256_LEN);
	mw_hmac_sha256(key, MW_GUARD_KEY, text, sizeof text, out);
}

void
mw_guard_make(const uint8_t key[MW_GUARD_KEY], const struct mw_guard *g,
              char token[MW_GUARD_TOKEN])
{
	uint8_t sum[MW_SHA256_LEN];
	char id[MW_ID_TEXT + 1], hex[2 * MAC_LEN + 1];
	uint64_t ms = g->time_us > 0 ? (uint64_t)g->time_us / 1000 : 0;
	ms &= (UINT64_C(1) << (4 * TIME_DIGITS)) - 1;
	mac(key, g, ms, sum);
	mw_id_text(id, g->id);
	mw_hex(hex, sum, MAC_LEN);
	(void)snprintf(token, MW_GUARD_TOKEN, "%s%s.%0*llx.%s", prefix, id, TIME_DIGITS,
	               (unsigned long long)ms, hex);
}

/* The parts of a token; false: that is none. */
static bool
parse(struct mw_str t, uint8_t id[MW_ID_LEN], uint64_t *ret_ms, uint8_t sum[MAC_LEN])
{
	char text[MW_ID_TEXT + 1];
	uint8_t be[TIME_DIGITS / 2];
	unsigned bits = 0;
	if (t.n != LENGTH || !mw_str_starts(t, mw_strz(prefix)) ||
	    t.p[TIME_AT - 1] != '.' || t.p[MAC_AT - 1] != '.')
		return false;
	(void)snprintf(text, sizeof text, "%.*s", MW_ID_TEXT, t.p + PREFIX);
	if (!mw_id_parse(text, id, &bits) || bits != 8 * MW_ID_LEN)
		return false;
	if (!mw_unhex(be, t.p + TIME_AT, sizeof be) ||
	    !mw_unhex(sum, t.p + MAC_AT, MAC_LEN))
		return false;
	*ret_ms = 0;
	for (size_t i = 0; i < sizeof be; i++)
		*ret_ms = *ret_ms << 8 | be[i];
	return true;
}

bool
mw_guard_looks_like(struct mw_str text)
{
	uint8_t id[MW_ID_LEN], sum[MAC_LEN];
	uint64_t ms;
	return parse(text, id, &ms, sum);
}

bool
mw_guard_check(const uint8_t key[MW_GUARD_KEY], struct mw_str token, int64_t now_us,
               struct mw_guard *g)
{
	struct mw_guard want = *g;
	uint8_t told[MAC_LEN], sum[MW_SHA256_LEN];
	uint64_t ms;
	unsigned differ = 0;
	if (g->rcpt.n > RCPT_MAX || !parse(token, want.id, &ms, told))
		return false;
	mac(key, &want, ms, sum);
	for (size_t i = 0; i < MAC_LEN; i++) /* in the same time, whatever differs */
		differ |= (unsigned)(told[i] ^ sum[i]);
	int64_t now = now_us / 1000, made = (int64_t)ms;
	if (differ || made > now + 3600000 ||
	    now - made > MW_GUARD_DAYS * INT64_C(86400000))
		return false;
	memcpy(g->id, want.id, MW_ID_LEN);
	g->time_us = made * 1000;
	memcpy(&g->tag, sum, sizeof g->tag);
	return true;
}

/* ---- the body ---- */

static void
on_canon(void *arg, const void *p, size_t n)
{
	struct mw_guard_body *b = arg;
	const char *q = p;
	/* The newline held back at the end of the header comes with the body. */
	for (; n && !b->begun && *q == '\n'; n--)
		q++;
	if (n == 0)
		return;
	b->begun = true;
	mw_sha256_update(&b->sha, q, n);
}

static void
emit(void *arg, const void *p, size_t n)
{
	struct mw_guard_body *b = arg;
	if (mw_canon_in_body(&b->canon))
		on_canon(b, p, n);
}

int
mw_guard_body_init(struct mw_guard_body *b)
{
	memset(b, 0, sizeof *b);
	mw_canon_init(&b->canon, emit, b);
	return mw_sha256_init(&b->sha);
}

void
mw_guard_body_put(struct mw_guard_body *b, const void *p, size_t n)
{
	mw_canon_put(&b->canon, p, n);
}

void
mw_guard_body_done(struct mw_guard_body *b, uint8_t out[MW_SHA256_LEN])
{
	/* Without an empty line there is no body; canon's end would take the header. */
	if (mw_canon_in_body(&b->canon))
		mw_canon_done(&b->canon);
	mw_sha256_final(&b->sha, out);
	memset(b, 0, sizeof *b);
}

void
mw_guard_body_free(struct mw_guard_body *b)
{
	mw_sha256_free(&b->sha);
	memset(b, 0, sizeof *b);
}
