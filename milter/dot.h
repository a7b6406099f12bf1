/* dot.h - where the content of an SMTP message ends, by the strict rule: CR LF . CR LF
 * and nothing else (RFC 5321, 4.1.1.4).
 *
 * Splits what a client sends after 354 into the bytes for the next server, unchanged, and
 * the content, with the doubled dots taken off. The dot that ends the content is in
 * neither. It also sees what a server that reads less strictly would take for the end
 * ("SMTP smuggling"): a line that is a lone dot when CR and LF each end a line and NUL is
 * ignored. The bytes that would complete it are held back until the caller decides.
 *
 * Pure; one thread; the state is a value, copied freely.
 */
#ifndef MW_MILTER_DOT_H
#define MW_MILTER_DOT_H

#include "journal/base/buf.h"

struct mw_dot {
	enum {
		MW_DOT_NONE,
		MW_DOT_DOT, /* "." at the beginning of a line */
		MW_DOT_CR   /* ".\r" */
	} held;
	enum {
		MW_LAX_EMPTY,
		MW_LAX_DOT,
		MW_LAX_OTHER
	} lax;       /* the line so far, as the laxest server would read it */
	bool inside; /* not at the beginning of a line */
	bool cr;     /* the byte before was CR */
	bool pass;   /* let lone dots of the lax kind through */
};

enum mw_dot_found {
	MW_DOT_MORE,    /* all bytes were taken */
	MW_DOT_END,     /* the end was met; what follows it was not taken */
	MW_DOT_SMUGGLED /* not with `pass`: the next byte would end it for a lax server */
};

/* Takes bytes from p until one of the above; *ret_used says how many. What goes on is
 * appended to wire, what is content to content (both sticky: look at mw_buf_ok). After
 * MW_DOT_SMUGGLED set `pass` and call again with the rest, to find the true end. */
enum mw_dot_found mw_dot_scan(struct mw_dot *d, const char *p, size_t n, size_t *ret_used,
                              struct mw_buf *wire, struct mw_buf *content);

#endif
