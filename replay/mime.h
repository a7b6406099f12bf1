/* mime.h - what mail encodes, decoded to UTF-8 and folded, for showing and searching
 * only.
 *
 * GMime's decoders for encoded words (RFC 2047), parameters (RFC 2231) and transfer
 * encodings, and GLib's Unicode tables. GMime's parser is not used: it builds a tree
 * without limit of parts or fields (a mail of 7 MB can cost more than 1 GB); mime_walk.h
 * cuts a message into parts instead, as a stream.
 *
 * Any bytes give a result; nothing here fails but for want of memory, which ends the
 * program (GLib's law). One thread.
 */
#ifndef MW_REPLAY_MIME_H
#define MW_REPLAY_MIME_H

#include "journal/base/buf.h"
#include "journal/base/str.h"

#include <stdbool.h>

enum {
	MW_MIME_FIELD = 16 * 1024, /* most bytes of a header field that are looked at */
	MW_MIME_BOUNDARY = 200     /* longer ones are none (RFC 2046: 70) */
};

/* An unfolded header value as people read it: encoded words of any charset that iconv
 * knows decoded, 8-bit bytes taken as UTF-8 or else windows-1252. Valid UTF-8; control
 * characters stay. Appended to out. */
void mw_mime_header(struct mw_str unfolded, struct mw_buf *out);
/* Is it decoded as it stands? */
bool mw_mime_header_plain(struct mw_str unfolded);

/* Folds valid UTF-8 for comparing: small letters, accents off, compatibility forms and
 * typographic quotes and dashes plain, each run of blanks one space. In pieces that end
 * between characters; *space says that the last character was a blank (true at first). */
void mw_mime_fold(struct mw_str utf8, bool *space, struct mw_buf *out);
/* What is looked for, folded, without blanks at its ends. Empty: nothing to look for. */
void mw_mime_fold_needle(struct mw_str text, struct mw_buf *out);

enum mw_mime_kind {
	MW_MIME_OTHER,
	MW_MIME_TEXT,
	MW_MIME_HTML,
	MW_MIME_MULTIPART, /* with a boundary */
	MW_MIME_DIGEST,    /* the same, whose parts are messages by default */
	MW_MIME_MESSAGE    /* message/rfc822 and the like */
};

struct mw_mime_part { /* what a part's header says */
	enum mw_mime_kind kind;
	int encoding; /* GMime's number; 0 and the identities: as it is */
	bool identity;
	char charset[64]; /* empty: not said */
	char boundary[MW_MIME_BOUNDARY + 1];
	size_t n_boundary;
};

/* Reads the values (unfolded, empty: no such field). The file name, decoded, goes to name
 * (cleared first). */
void mw_mime_part_read(struct mw_str type, struct mw_str disposition,
                       struct mw_str encoding, bool in_digest, struct mw_mime_part *ret,
                       struct mw_buf *name);

/* Decodes a text part as it comes. Life: new → (begin → put… → end)… → free. */
struct mw_mime_text;
struct mw_mime_text *mw_mime_text_new(void);
void mw_mime_text_free(struct mw_mime_text *t); /* NULL ok */
void mw_mime_text_begin(struct mw_mime_text *t, const struct mw_mime_part *p);
/* Bytes cut anywhere; what they give, valid UTF-8 that ends between characters, is
 * appended to out. */
void mw_mime_text_put(struct mw_mime_text *t, const void *p, size_t n,
                      struct mw_buf *out);
void mw_mime_text_end(struct mw_mime_text *t, struct mw_buf *out);

#endif
