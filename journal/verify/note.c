#include "journal/verify/note.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/sign.h"

#include <stdio.h>

#define DASH "\xe2\x80\x94 " /* em dash, as the note format wants it */

enum {
	KEY_HASH = 4,
	NOTE_SIG = KEY_HASH + MW_SIGN_LEN
};

void
mw_note_name(const char *kind, const uint8_t journal[MW_ID_LEN], char out[MW_NOTE_NAME])
{
	char hex[2 * MW_ID_LEN + 1];
	mw_hex(hex, journal, MW_ID_LEN);
	(void)snprintf(out, MW_NOTE_NAME, "%s%s", kind, hex);
}

/* First four bytes of SHA-256(name ‖ LF ‖ 0x01 ‖ public key). */
static void
key_hash(const char *name, const uint8_t *pk, uint8_t out[KEY_HASH])
{
	uint8_t h[MW_SHA256_LEN];
	struct mw_sha256 s;
	mw_assert(mw_sha256_init(&s) == 0); /* it cannot fail */
	mw_sha256_update(&s, name, strlen(name));
	mw_sha256_update(&s, "\n\x01", 2);
	mw_sha256_update(&s, pk, MW_SIGN_PUBLIC);
	mw_sha256_final(&s, h);
	memcpy(out, h, KEY_HASH);
}

int
mw_note_sign(struct mw_store *st, const char *kind, size_t start, struct mw_buf *out,
             struct mw_err *err)
{
	char name[MW_NOTE_NAME], sig64[128];
	uint8_t note[NOTE_SIG];
	const uint8_t *pk = mw_store_sign_public(st);
	int e = mw_buf_ok(out);
	if (e < 0)
		return mw_fail(err, e, "out of memory for a signed note");
	if (!pk)
		return mw_fail(err, MW_EKEY, "this journal has no signing key");
	mw_note_name(kind, mw_store_id(st), name);
	key_hash(name, pk, note);
	e = mw_store_sign(st, out->p + start, out->n - start, note + KEY_HASH, err);
	if (e < 0)
		return e;
	mw_base64(note, sizeof note, sig64);
	mw_buf_printf(out, "\n" DASH "%s %s\n", name, sig64);
	e = mw_buf_ok(out);
	return e < 0 ? mw_fail(err, e, "out of memory for a signed note") : 0;
}

bool
mw_note_text(struct mw_str note, struct mw_str *ret_text)
{
	const char *gap = note.n ? memmem(note.p, note.n, "\n\n", 2) : NULL;
	if (gap)
		*ret_text = mw_str(note.p, (size_t)(gap - note.p) + 1);
	return gap != NULL;
}

bool
mw_note_open(struct mw_str note, const char *name, const uint8_t *pk,
             struct mw_str *ret_text)
{
	uint8_t want[KEY_HASH], sig[NOTE_SIG];
	struct mw_str text, line;
	if (!mw_note_text(note, &text))
		return false;
	struct mw_str rest = mw_str(text.p + text.n + 1, note.n - text.n - 1);
	key_hash(name, pk, want);
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		struct mw_str who, code;
		if (!mw_str_starts(line, mw_strz(DASH)))
			continue;
		line = mw_str(line.p + 4, line.n - 4);
		if (!mw_str_cut(line, ' ', &who, &code) ||
		    !mw_str_eq(who, mw_strz(name)) ||
		    !mw_unbase64(code.p, code.n, sig, sizeof sig) ||
		    memcmp(sig, want, KEY_HASH) != 0)
			continue; /* a witness, or another key */
		if (mw_sign_check(pk, text.p, text.n, sig + KEY_HASH) != 1)
			return false;
		*ret_text = text;
		return true;
	}
	return false;
}
