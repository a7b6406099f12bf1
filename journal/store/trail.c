#include "journal/store/trail.h"

#include <string.h>

enum state {
	BOL, /* at the beginning of a line */
	NAME,
	REST, /* of a line that does not count */
	FIELD,
	DONE /* the header has ended */
};

static const char name[] = "received:";

static uint8_t
lower(char c)
{
	return (uint8_t)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

void
mw_trail_init(struct mw_trail *t)
{
	memset(t, 0, sizeof *t);
}

static void
field_over(struct mw_trail *t)
{
	if (!t->open)
		return;
	if (t->n < MW_TRAIL_MOST)
		mw_sha256_final(&t->sha, t->sum[t->n]);
	t->n++;
	t->open = false;
}

static void
line_begins(struct mw_trail *t, char c)
{
	if (c == ' ' || c == '\t') {
		t->state = t->open ? FIELD : REST;
		return;
	}
	field_over(t);
	t->n_name = 0;
	t->state = c == '\n' ? DONE : NAME;
}

static void
header_byte(struct mw_trail *t, char c)
{
	if (c == '\r')
		return;
	if (t->state == BOL)
		line_begins(t, c);
	if (t->state == DONE)
		return;
	if (c == '\n') {
		t->state = BOL;
	} else if (t->state == NAME && lower(c) != (uint8_t)name[t->n_name]) {
		t->state = REST;
	} else if (t->state == NAME && !name[++t->n_name]) {
		t->state = FIELD;
		t->open = mw_sha256_init(&t->sha) == 0;
	} else if (t->state == FIELD && c != ' ' && c != '\t') { /* folds differ */
		mw_sha256_update(&t->sha, &c, 1);
	}
}

void
mw_trail_put(struct mw_trail *t, const void *p, size_t n)
{
	const char *s = p;
	for (size_t i = 0; i < n && t->state != DONE; i++)
		header_byte(t, s[i]);
}

void
mw_trail_end(struct mw_trail *t)
{
	field_over(t);
	t->state = DONE;
}

/* Fixed lengths throughout but for the fields, of which there is only the digest. */
bool
mw_trail_tag(const struct mw_trail *t, const uint8_t key[MW_GUARD_KEY],
             const struct mw_trail_of *of, size_t from, uint8_t tag[MW_TRAIL_TAG])
{
	uint8_t text[16 + 4 * MW_SHA256_LEN], sum[MW_SHA256_LEN], low[1100];
	if (t->n > MW_TRAIL_MOST || from >= t->n || of->rcpt.n > sizeof low)
		return false;
	for (size_t i = 0; i < of->rcpt.n; i++)
		low[i] = lower(of->rcpt.p[i]);
	memcpy(text, "mailwal trail 1\0", 16);
	mw_sha256_of(low, of->rcpt.n, text + 16);
	mw_sha256_of(of->sender.p, of->sender.n, text + 16 + MW_SHA256_LEN);
	memcpy(text + 16 + 2 * MW_SHA256_LEN, of->digest, MW_SHA256_LEN);
	mw_sha256_of(t->sum[from], (t->n - from) * MW_SHA256_LEN,
	             text + 16 + 3 * MW_SHA256_LEN);
	mw_hmac_sha256(key, MW_GUARD_KEY, text, sizeof text, sum);
	memcpy(tag, sum, MW_TRAIL_TAG);
	return true;
}
