/* fold.h - letters of any script without regard to their case, for local parts of mail
 * (SMTPUTF8, RFC 6531) and names of mailboxes.
 *
 * What is not UTF-8, or longer than any address may be, is taken by its bytes: only ASCII
 * letters lose their case then. So the work is bounded, whatever a client sends.
 *
 * Any thread, no state.
 */
#ifndef MW_BASE_FOLD_H
#define MW_BASE_FOLD_H

#include "journal/base/buf.h"

enum {
	MW_FOLD_MOST = 1024 /* bytes of a local part; RFC 5321 §4.5.3.1 has 64 */
};

bool mw_is_ascii(struct mw_str s);

/* Appends the form that compares: Unicode's full case folding in NFC. JÖRG, jörg, and o
 * with its dots as a character of their own are one; so are ß and ss, as in Postfix's
 * look-ups. A failure is noted in b. */
void mw_fold(struct mw_str s, struct mw_buf *b);

/* Appends the form to be read: lower case in NFC, where ß stays. */
void mw_lower(struct mw_str s, struct mw_buf *b);

#endif
