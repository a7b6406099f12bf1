/* mtalog.h - one line of a mail server's log in, what it says of a message out.
 *
 * Reads what Postfix 2.x/3.x and Sendmail 8 write, behind the time stamps of syslog
 * ("Nov 22 12:00:00"), of RFC 5424 and ISO 8601, of postlogd and of journalctl(1). Pure:
 * no I/O, nothing allocated; strings point into the line.
 *
 * Senders and remote servers choose parts of these lines. A field is taken only at the
 * place where the server itself writes it, an address that holds quotes is read as one,
 * and a line that can be read in two ways says nothing.
 */
#ifndef MW_REPLAY_MTALOG_H
#define MW_REPLAY_MTALOG_H

#include "journal/base/str.h"
#include "journal/record/outcome.h"

#include <stdbool.h>
#include <stdint.h>

enum mw_mta_kind {
	MW_MTA_NOTHING = 0, /* of a mail server, or not; nothing of interest here */
	MW_MTA_CLIENT,      /* an SMTP client began a message: addr is the client */
	MW_MTA_PICKUP,      /* sendmail(1) did; other: the queue ID before a requeue.
	                     * Sendmail's is handed to the daemon next, or past it */
	MW_MTA_MESSAGE_ID,  /* its Message-ID (addr): it was received in part at least */
	MW_MTA_QUEUED,      /* it is in the queue: accepted; addr is the sender; of
	                     * Sendmail also text, its Message-ID, and relay, the client */
	MW_MTA_DELIVERY,    /* what came of one recipient: fact, addr, original, … */
	MW_MTA_EXPIRED,     /* given up */
	MW_MTA_REMOVED,     /* gone from the queue */
	MW_MTA_REFUSED,     /* a later step refused it at its end */
	MW_MTA_DISCARDED,   /* accepted and thrown away */
	MW_MTA_HELD,
	MW_MTA_RELEASED,
	MW_MTA_NOTICE,         /* the server made a message (other) about this one */
	MW_MTA_PROBE,          /* no mail: an address was verified */
	MW_MTA_CLIENT_DISCARD, /* before a queue ID: what this process takes next is lost
	                        */
	MW_MTA_MILTER_DOWN,    /* a milter could not be reached, or broke off; text: at
	                        * which command ("SMFIC_RCPT"), empty at its beginning */
	MW_MTA_CONNECT,        /* an SMTP client came: what this process says up to the */
	MW_MTA_DISCONNECT      /* end is of its session; counted: data, bdat are set */
};

struct mw_mta_event {
	enum mw_mta_kind kind;
	int64_t time_us;       /* 0: the line has no time stamp that can be read */
	bool coarse;           /* its stamp has whole seconds only */
	bool mta;              /* a line of Postfix or Sendmail, of whatever it speaks */
	bool sendmail;         /* Sendmail's, else Postfix's */
	struct mw_str host;    /* as the line names it, */
	uint32_t pid;          /* and the process that wrote it */
	struct mw_str service; /* smtpd, cleanup, lmtp, …; Sendmail: its mailer */
	struct mw_str queue_id;
	struct mw_str addr, original, relay, dsn, text, other;
	struct mw_str more; /* DELIVERY of Sendmail: further recipients, ",<b>,<c>" */
	enum mw_fact fact;  /* DELIVERY: DELIVERED, SENT, DEFERRED, BOUNCED, DISCARDED,
	                     * or UNKNOWN where other programs go on with it */
	bool counted, quit; /* DISCONNECT: Postfix 3.0 and later say; it said QUIT */
	struct {
		uint32_t ok, all; /* how many of these commands succeeded */
	} data, bdat;
};

/* ref_us: when the line was surely written already (now, or the file's last change): a
 * stamp without a year is of the last such day at or before it. Local time where the
 * stamp names no zone. Always sets *ret; true if kind is not NOTHING. */
bool mw_mtalog_line(struct mw_str line, int64_t ref_us, struct mw_mta_event *ret);

/* Where a delivery's line names further recipients: moves to the next one. */
bool mw_mtalog_next(struct mw_mta_event *e);

/* What Sendmail's line stands for: it escapes backslashes, and what cannot be printed, as
 * the strings of an event are still. In out, which has room for s.n. */
struct mw_str mw_mtalog_plain(struct mw_str s, char *out);

/* The time stamp alone: true, and what follows it (host name first). */
bool mw_mtalog_time(struct mw_str line, int64_t ref_us, int64_t *ret_us, bool *ret_coarse,
                    struct mw_str *ret_rest);

#endif
