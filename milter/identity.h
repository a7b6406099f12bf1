/* identity.h - the site's alias tables: envelope recipient → final mailboxes, at capture.
 *
 * Look-up order and result rules are those of Postfix virtual(5): user+ext@domain,
 * user@domain, then user (no domain; only for local domains), then @domain; unmatched
 * extensions are carried over; results are looked up again. Keys are folded to lower
 * case.
 *
 * Life: mw_identity_open, any number of mw_identity_resolve, mw_identity_close.
 * Threads: resolve may run in many threads at once. File tables are read again when the
 * file changed. With network tables resolve may wait until its deadline: keep it off
 * threads that serve others (mw_identity_network).
 *
 * LIMITS: a host name in socketmap:inet or tcp is resolved once, at open.
 */
#ifndef MW_MILTER_IDENTITY_H
#define MW_MILTER_IDENTITY_H

#include "conf/conf.h"
#include "journal/base/arena.h"
#include "journal/record/meta.h"

#include <stdatomic.h>

struct mw_identity;

struct mw_until {
	int64_t mono_us;          /* a time of the system's monotonic clock */
	const atomic_bool *hurry; /* once it is true, that time has come; NULL ok */
};

enum {
	MW_IDENTITY_DEPTH = 100,
	MW_IDENTITY_RESULTS = 10000
};

/* Reads the settings identities, recipient_delimiter and local_domains, which must stay.
 * MW_ECONF for a table that is written wrongly. A file that cannot be read is no failure
 * here (capture goes on, recipients undecided): mw_identity_check tells. */
int mw_identity_open(const struct mw_conf *conf, struct mw_identity **ret,
                     struct mw_err *err) MW_CHECK;
void mw_identity_close(struct mw_identity *id); /* NULL ok */
/* 0, or the first table that cannot be used now. */
int mw_identity_check(struct mw_identity *id, struct mw_err *err) MW_CHECK;
/* Logs it: capture goes on. NULL ok. */
void mw_identity_look(struct mw_identity *id);
bool mw_identity_network(const struct mw_identity *id);
/* Sets mailbox[] and MW_RCPT_EXPANDED of every recipient that the MTA took, memory from
 * a. What fails gets MW_RCPT_UNDECIDED, and MW_MAIL_TABLES_FAILED if a table is the
 * cause; then the first reason is returned (MW_EUNAVAIL, MW_ETIMEOUT, MW_ELIMIT for a
 * loop or too many results, MW_ENOMEM).
 */
int mw_identity_resolve(struct mw_identity *id, struct mw_arena *a, struct mw_mail *m,
                        const struct mw_until *until, struct mw_err *err);

#endif
