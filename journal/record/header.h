/* header.h - walking the header fields of a message, tolerant of hostile bytes. */
#ifndef MW_RECORD_HEADER_H
#define MW_RECORD_HEADER_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "journal/base/str.h"

struct mw_field {
	struct mw_str raw;   /* the whole field with folds and its last line end */
	struct mw_str name;  /* without colon and without blanks before it */
	struct mw_str value; /* after the colon, folds inside, last line end off */
};

/* Takes the next field off *rest (header bytes with CRLF or LF ends). False at the empty
 * line, at the end, or at a line that is no field; *rest then starts at that line. */
bool mw_header_next(struct mw_str *rest, struct mw_field *ret);
/* Where the header ends: offset of the body (after the empty line), content.n if there
 * is none. *ret_header = bytes before the empty line. */
size_t mw_header_split(struct mw_str content, size_t *ret_header);
/* Unfolds: line ends dropped, runs of blanks after them kept as one space, trimmed; at
 * most max bytes. The result lives in the arena; p NULL when out of memory. */
struct mw_str mw_header_unfold(struct mw_arena *a, struct mw_str value, size_t max);
/* The same into out, which has room for max bytes. */
struct mw_str mw_header_unfold_to(char *out, size_t max, struct mw_str value);
/* First field of that name (any case), or false. */
bool mw_header_find(struct mw_str header, const char *name, struct mw_field *ret);
/* "<id>" of a Message-ID value: the text from '<' to '>' where there is one, else the
 * trimmed value. */
struct mw_str mw_header_msgid(struct mw_str unfolded);
/* The queue ID in a Received value ("… with ESMTP id 4Xk2Qh1BzZ …"), empty if none:
 * the word after the last " id " before the ';'. */
struct mw_str mw_header_received_id(struct mw_str unfolded);
/* RFC 2047 encoded words decoded to UTF-8 where the charset is UTF-8, US-ASCII or
 * ISO-8859-1/15/windows-1252; others, and invalid bytes, stay as they are / become
 * U+FFFD. For showing and searching only. */
void mw_header_decode(struct mw_str unfolded, struct mw_buf *out);

#endif
