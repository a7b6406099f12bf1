#include "journal/verify/checkpoint.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/sign.h"

#include <stdio.h>
#include <stdlib.h>

#define ORIGIN "mailwal.journal/"
#define DASH   "\xe2\x80\x94 " /* em dash, as the note format wants it */

enum {
	KEY_HASH = 4,
	NOTE_SIG = KEY_HASH + MW_SIGN_LEN,
	NAME_MAX_LEN = 64
};

static void
name_of(const uint8_t journal[MW_ID_LEN], char out[NAME_MAX_LEN])
{
	char hex[2 * MW_ID_LEN + 1];
	mw_hex(hex, journal, MW_ID_LEN);
	(void)snprintf(out, NAME_MAX_LEN, ORIGIN "%s", hex);
}

/* First four bytes of SHA-256(name ‖ LF ‖ 0x01 ‖ public key). */
static void
key_hash(const char *name, const uint8_t *pk, uint8_t out[KEY_HASH])
{
	uint8_t h[MW_SHA256_LEN];
	MW_BUF_AUTO b = {0};
	mw_buf_puts(&b, name);
	mw_buf_put(&b, "\n\x01", 2);
	mw_buf_put(&b, pk, MW_SIGN_PUBLIC);
	mw_assert(!b.failed);
	mw_sha256_of(b.p, b.n, h);
	memcpy(out, h, KEY_HASH);
}

int
mw_checkpoint_make(struct mw_store *st, const struct mw_record *r, int64_t now_us,
                   struct mw_buf *out, struct mw_err *err)
{
	char name[NAME_MAX_LEN], head[64], when[40], sig64[128];
	uint8_t note[NOTE_SIG];
	const uint8_t *pk = mw_store_sign_public(st);
	if (!pk)
		return mw_fail(err, MW_EKEY, "this journal has no signing key");
	size_t start = out->n;
	name_of(mw_store_id(st), name);
	mw_base64(r->chain, sizeof r->chain, head);
	mw_time_rfc3339(when, sizeof when, now_us);
	mw_buf_printf(out, "%s\n%llu\n%s\ntime %s\n", name, (unsigned long long)r->seq,
	              head, when);
	int e = mw_buf_ok(out);
	if (e < 0)
		return mw_fail(err, e, "out of memory for a checkpoint");
	key_hash(name, pk, note);
	e = mw_store_sign(st, out->p + start, out->n - start, note + KEY_HASH, err);
	if (e < 0)
		return e;
	mw_base64(note, sizeof note, sig64);
	mw_buf_printf(out, "\n" DASH "%s %s\n", name, sig64);
	e = mw_buf_ok(out);
	return e < 0 ? mw_fail(err, e, "out of memory for a checkpoint") : 0;
}

static int
malformed(struct mw_err *err, const char *what)
{
	return mw_fail(err, MW_EFORMAT, "no checkpoint: %s", what);
}

static int
parse_text(struct mw_str text, struct mw_checkpoint *c, struct mw_err *err)
{
	struct mw_str rest = text, line;
	char num[32];
	if (!mw_str_cut(rest, '\n', &line, &rest) ||
	    !mw_str_starts(line, mw_strz(ORIGIN)) ||
	    line.n != sizeof ORIGIN - 1 + 2 * MW_ID_LEN ||
	    !mw_unhex(c->journal, line.p + sizeof ORIGIN - 1, MW_ID_LEN))
		return malformed(err, "its first line names no journal");
	if (!mw_str_cut(rest, '\n', &line, &rest) || line.n == 0 || line.n >= sizeof num)
		return malformed(err, "its second line is no sequence number");
	memcpy(num, line.p, line.n);
	num[line.n] = '\0';
	char *end;
	c->seq = strtoull(num, &end, 10);
	if (*end || c->seq == 0)
		return malformed(err, "its second line is no sequence number");
	if (!mw_str_cut(rest, '\n', &line, &rest) ||
	    !mw_unbase64(line.p, line.n, c->chain, sizeof c->chain))
		return malformed(err, "its third line is no chain head");
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		char when[40] = "";
		if (!mw_str_starts(line, MW_STR("time ")) || line.n - 5 >= sizeof when)
			continue;
		memcpy(when, line.p + 5, line.n - 5);
		(void)mw_time_parse(when, 0, &c->time_us);
	}
	return 0;
}

int
mw_checkpoint_parse(struct mw_str text, const uint8_t *pk, struct mw_checkpoint *ret,
                    struct mw_err *err)
{
	struct mw_checkpoint c = {.seq = 0};
	char name[NAME_MAX_LEN];
	uint8_t want[KEY_HASH], note[NOTE_SIG];
	const char *gap = text.n ? memmem(text.p, text.n, "\n\n", 2) : NULL;
	if (!gap)
		return malformed(err, "there is no empty line before the signature");
	struct mw_str signed_text = mw_str(text.p, (size_t)(gap - text.p) + 1);
	struct mw_str rest = mw_str(gap + 2, text.n - signed_text.n - 1), line;
	int e = parse_text(signed_text, &c, err);
	if (e < 0)
		return e;
	name_of(c.journal, name);
	key_hash(name, pk, want);
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		struct mw_str who, sig;
		if (!mw_str_starts(line, mw_strz(DASH)))
			continue;
		line = mw_str(line.p + 4, line.n - 4);
		if (!mw_str_cut(line, ' ', &who, &sig) ||
		    !mw_str_eq(who, mw_strz(name)) ||
		    !mw_unbase64(sig.p, sig.n, note, sizeof note) ||
		    memcmp(note, want, KEY_HASH) != 0)
			continue; /* a witness, or another key */
		if (!mw_sign_verify(pk, signed_text.p, signed_text.n, note + KEY_HASH))
			break;
		*ret = c;
		return 0;
	}
	return mw_fail(
	    err, MW_EDAMAGED,
	    "the checkpoint is not signed by this journal's key, or was altered");
}
