/* dict.h - the text of a compression dictionary, made out of messages.
 *
 * A pure function over bytes. Only what many messages share gets in (FORMAT.md I17): each
 * window of the text, MW_DICT_WINDOW bytes or some more up to the end of a word, occurs
 * in samples of MW_DICT_SHARED different authors and to as many different sets of
 * recipients. What one message or one person alone wrote or got is not in it.
 */
#ifndef MW_CODEC_DICT_H
#define MW_CODEC_DICT_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum {
	MW_DICT_SHARED = 3,
	MW_DICT_WINDOW = 24,
	MW_DICT_WINDOW_MOST = 72, /* a longer word has no window of its own */
	MW_DICT_TEXT = 108 * 1024 /* most bytes of text */
};

struct mw_dict_sample {
	const uint8_t *p;
	size_t n;
	uint64_t sender, rcpt; /* hashes of who wrote it, and of all who get it */
};

/* Appends the text, what is shared most last, at most MW_DICT_TEXT bytes; nothing where
 * nothing is shared. 0 or MW_ENOMEM. Needs some 20 MiB for 4 MiB of samples. */
int mw_dict_text(const struct mw_dict_sample *v, size_t n, struct mw_buf *out) MW_CHECK;

#endif
