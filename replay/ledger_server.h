/* ledger_server.h - one ledger for each server that cannot be asked, however it is
 * written.
 *
 * What LMTP and SMTP targets were given is known from the ledger alone: another name of
 * the same server must not begin with an empty one (design.md, P12).
 */
#ifndef MW_REPLAY_LEDGER_SERVER_H
#define MW_REPLAY_LEDGER_SERVER_H

#include "journal/base/err.h"

enum {
	MW_LEDGER_DIR = 33,    /* the name of a ledger's directory, with its NUL */
	MW_LEDGER_TARGET = 400 /* a target as it was written, the same */
};

/* name: the directory below dir that the ledger of target would have. Where that one is
 * not there and another is, of a target that leads to the same server (one scheme, one
 * port, an address in common; one socket), name becomes that one's and other how it was
 * written; else other is "". Other kinds of target: unchanged. Asks the resolver only
 * where a ledger of the same scheme and port is there. */
void mw_ledger_server(const char *dir, const char *target, char name[MW_LEDGER_DIR],
                      char other[MW_LEDGER_TARGET]);
/* Notes in its directory whose ledger it is. A target that can be read: nothing. */
int mw_ledger_server_note(const char *ledger, const char *target,
                          struct mw_err *err) MW_CHECK;

#endif
