/* imap_parse.h - IMAP responses as tokens and values: pure functions over bytes.
 *
 * Input is one whole response as mw_imap keeps it: its lines joined, each literal as
 * "{n}\r\n" with exactly n bytes after it. Parsers unescape in place, so the bytes are
 * changed; results point into them. Any input gives a value or "no", never more.
 */
#ifndef MW_REPLAY_IMAP_PARSE_H
#define MW_REPLAY_IMAP_PARSE_H

#include "journal/base/buf.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum mw_imap_kind {
	MW_IMAP_END,
	MW_IMAP_BAD,  /* cannot be read on */
	MW_IMAP_ATOM, /* "BODY[HEADER.FIELDS (X Y)]" is one, brackets and all */
	MW_IMAP_STRING,
	MW_IMAP_NIL,
	MW_IMAP_OPEN,
	MW_IMAP_CLOSE
};

struct mw_imap_cur {
	char *p;
	size_t n;
};

enum mw_imap_kind mw_imap_token(struct mw_imap_cur *c, struct mw_str *ret);
/* Skips one value: an atom, a string, or a whole parenthesised list. */
bool mw_imap_skip(struct mw_imap_cur *c);

struct mw_imap_fetch {
	uint64_t seq;
	uint32_t uid;          /* 0: not given */
	uint64_t size;         /* RFC822.SIZE */
	int64_t date_us;       /* INTERNALDATE; INT64_MIN: not given */
	struct mw_str header;  /* the first BODY[HEADER…] */
	struct mw_str body;    /* BODY[], empty where it was streamed */
	struct mw_str mailbox; /* X-MAILBOX of Dovecot: the folder where it really lies */
	bool has_size, has_header, has_body;
};

/* "* n FETCH (…)": true if it is one and could be read to its end. */
bool mw_imap_parse_fetch(struct mw_imap_cur c, struct mw_imap_fetch *ret);

enum mw_imap_folder_flag {
	MW_FOLDER_NOSELECT = 1, /* also \NonExistent */
	MW_FOLDER_SENT = 2,
	MW_FOLDER_VIRTUAL = 4, /* \All, \Flagged: shows mail of other folders */
	MW_FOLDER_LEAVE = 8    /* \Trash, \Junk, \Drafts */
};

struct mw_imap_list {
	unsigned flags;
	char delim; /* 0: NIL */
	struct mw_str name;
};

/* "* LIST (…) "/" name" */
bool mw_imap_parse_list(struct mw_imap_cur c, struct mw_imap_list *ret);
/* "* NAMESPACE (("" "/")) …": prefix and delimiter of the first personal namespace. */
bool mw_imap_parse_namespace(struct mw_imap_cur c, struct mw_str *ret_prefix,
                             char *ret_delim);

/* The same response: the prefixes of other users' and shared namespaces, each with its
 * NUL. */
void mw_imap_parse_foreign(struct mw_imap_cur c, struct mw_buf *out);

struct mw_imap_status {           /* "TAG OK [CODE args] text", "* BYE text", … */
	struct mw_str word;       /* OK, NO, BAD, BYE, PREAUTH */
	struct mw_str code, args; /* empty without a response code */
	struct mw_str text;
};

/* c: from the word on. */
bool mw_imap_parse_status(struct mw_str s, struct mw_imap_status *ret);
/* "* STATUS name (MESSAGES 3 …)": the name and the values of that response. */
struct mw_imap_counts {
	struct mw_str name;
	uint64_t messages, uidnext, uidvalidity, modseq;
};
bool mw_imap_parse_counts(struct mw_imap_cur c, struct mw_imap_counts *ret);

/* Digits alone. */
bool mw_imap_number(struct mw_str s, uint64_t *ret);
/* Walks "1:3,7,9:10" (UIDs; "9:7" is 7:9; no '*'). True while there is a range. */
bool mw_imap_set_next(struct mw_str *rest, uint32_t *ret_first, uint32_t *ret_last);
/* The i-th UID of a set, in the order written; 0 if there is none. */
uint32_t mw_imap_set_at(struct mw_str set, uint64_t i);
uint64_t mw_imap_set_count(struct mw_str set);

/* "22-Nov-2026 10:11:12 +0100" to µs; false if it is none. */
bool mw_imap_parse_date(struct mw_str s, int64_t *ret_us);
/* The date after the last ';' of a Received value (RFC 5322, obsolete zones included). */
bool mw_rfc5322_date(struct mw_str s, int64_t *ret_us);

/* Folder name, UTF-8 → modified UTF-7 (RFC 3501 §5.1.3). False if it is no UTF-8. */
bool mw_imap_utf7(struct mw_str utf8, struct mw_buf *out);
/* And back. False if it is not what mw_imap_utf7 would write. */
bool mw_imap_from_utf7(struct mw_str utf7, struct mw_buf *out);
/* A name as a quoted string; names with CR, LF or NUL are refused (false). */
bool mw_imap_quote(struct mw_str name, struct mw_buf *out);

#endif
