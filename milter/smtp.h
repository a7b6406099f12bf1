/* smtp.h - lines of SMTP and LMTP as text: commands, their arguments, replies, and which
 * extensions may be offered. Pure functions; strings are borrowed from the line.
 */
#ifndef MW_MILTER_SMTP_H
#define MW_MILTER_SMTP_H

#include "journal/base/buf.h"

enum mw_verb {
	MW_VERB_OTHER,
	MW_VERB_HELO,
	MW_VERB_EHLO,
	MW_VERB_LHLO,
	MW_VERB_MAIL,
	MW_VERB_RCPT,
	MW_VERB_DATA,
	MW_VERB_BDAT,
	MW_VERB_RSET,
	MW_VERB_NOOP,
	MW_VERB_VRFY,
	MW_VERB_EXPN,
	MW_VERB_HELP,
	MW_VERB_QUIT,
	MW_VERB_XFORWARD,
	MW_VERB_XCLIENT,
	MW_VERB_STARTTLS,
	MW_VERB_AUTH
};

enum {
	MW_SMTP_LINE = 8192, /* of a command or a reply, line end included */
	MW_SMTP_LINES = 500, /* of one reply */
	MW_SMTP_ARGS = 32
};

/* The command of a line (without its CRLF); *ret_rest is what follows it, blanks off. */
enum mw_verb mw_smtp_verb(struct mw_str line, struct mw_str *ret_rest);
/* "FROM:<path> ARG ARG" (keyword "FROM:") cut up: v[0] is the path as it stands, brackets
 * included. Number of parts, at most MW_SMTP_ARGS; 0: that is no such thing, or too many.
 */
size_t mw_smtp_path(struct mw_str rest, struct mw_str keyword,
                    struct mw_str v[MW_SMTP_ARGS]);
/* The next NAME=VALUE of XFORWARD or XCLIENT; false: no more. */
bool mw_smtp_attribute(struct mw_str *rest, struct mw_str *ret_name,
                       struct mw_str *ret_value);
/* xtext (RFC 3461) to bytes, at most n - 1 and a NUL; what is [UNAVAILABLE] or
 * [TEMPUNAVAIL] is empty. Control characters become '?'. */
void mw_smtp_xtext(struct mw_str value, char *out, size_t n);

/* One line of a reply, without line end: its code (200 to 599), and whether it is the
 * last one. 0: that is no reply. */
unsigned mw_smtp_reply(struct mw_str line, bool *ret_last);

struct mw_offer {
	bool trusted;   /* XFORWARD and XCLIENT too */
	bool starttls;  /* our own */
	bool auth;      /* the next server's */
	bool guard;     /* MW_GUARD_ARG, our own, where the next server has no DSN */
	uint64_t limit; /* SIZE at most; 0: as the next server says */
};

/* A whole positive reply to EHLO or LHLO, lines with CRLF, with only those extensions
 * left that this program carries exactly; appended to out. */
void mw_smtp_offer(struct mw_str reply, const struct mw_offer *o, struct mw_buf *out);

/* Does a whole reply to EHLO or LHLO offer that extension? */
bool mw_smtp_offers(struct mw_str reply, struct mw_str name);
/* The login name in what a client says to prove itself (RFC 4954, RFC 4616): in the
 * argument of AUTH when first ("PLAIN dGVzdAB0…"), else in its next line, mechanism in
 * mech. Empty out: not told. The secret is not kept. */
void mw_smtp_login(struct mw_str mech, struct mw_str base64, char *out, size_t n);

/* The queue ID in the content's own trace field: in the first Received field, where only
 * fields of a final delivery stand before it; empty if there is none. */
struct mw_str mw_smtp_received_id(struct mw_str head);

#endif
