/* path.h - the address in what an SMTP client puts behind MAIL FROM: and RCPT TO:, and in
 * what MTAs log of it.
 */
#ifndef MW_BASE_PATH_H
#define MW_BASE_PATH_H

#include "journal/base/arena.h"
#include "journal/base/str.h"

/* The address of a path as it came, which is a part of it: brackets, source routes, the
 * root's dot, commas and semicolons at its ends and blanks around it are left out; of
 * "name <address>" it is the address. What stands inside without being part of the name,
 * comments and blanks beside '@' and '.' and backslashes before letters, is left out in a
 * copy in a; what cannot be read so is taken as it is. RFC 5321 has no comments there;
 * Postfix and Sendmail take them as RFC 822 had it, and deliver to the name that is left.
 * {NULL}: out of memory. */
struct mw_str mw_path_addr(struct mw_str path, struct mw_arena *a);

#endif
