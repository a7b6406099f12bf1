/* spf.h - one SPF check after the other by libspf2; only in the program mailwald-spf.
 *
 * libspf2 may abort, has no limit of time, and reads what strangers publish: the daemon
 * never links it. spf.c is the only file that sees its headers.
 *
 * A question and its answer are one packet each on descriptor MW_SPF_FD, made of fields
 * that end with NUL (enum mw_spf_ask, enum mw_spf_say).
 */
#ifndef MW_MILTER_SPF_H
#define MW_MILTER_SPF_H

#include "journal/base/buf.h"
#include "milter/spf_zone.h"

#include <stdbool.h>

enum {
	MW_SPF_FD = 3,
	MW_SPF_NAME_MAX = 512,    /* a longer HELO or sender is not checked */
	MW_SPF_RECORD_MAX = 4096, /* bytes kept of published records */
	MW_SPF_TEXT_MAX = 1000,   /* of an explanation or a reason */
	MW_SPF_PACKET_MAX = 16384
};

enum mw_spf_ask {      /* fields of a question */
	MW_SPF_ASK_MS, /* time for it, milliseconds */
	MW_SPF_ASK_IP,
	MW_SPF_ASK_HELO,
	MW_SPF_ASK_FROM,
	MW_SPF_ASK_N
};

enum mw_spf_say { /* fields of an answer */
	MW_SPF_SAY_RESULT,
	MW_SPF_SAY_CODE, /* the library's error number */
	MW_SPF_SAY_RECORD,
	MW_SPF_SAY_EXPLANATION,
	MW_SPF_SAY_REASON,
	MW_SPF_SAY_LIBRARY,
	MW_SPF_SAY_N
};

struct mw_spf_server;

/* host: the name of this host for explanations; NULL: as the system says. zone: answers
 * from there, never from the network (borrowed; NULL: the system's resolver, cached). */
int mw_spf_server_new(const char *host, const struct mw_zone *zone,
                      struct mw_spf_server **ret, struct mw_err *err) MW_CHECK;
void mw_spf_server_free(struct mw_spf_server *s);
/* Checks what the question's fields say, appends the answer's fields to out. After the
 * time for it, look-ups fail at once; one that is under way is not interrupted. */
void mw_spf_check(struct mw_spf_server *s, const char *const ask[MW_SPF_ASK_N],
                  struct mw_buf *out);

#endif
