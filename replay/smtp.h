/* smtp.h - the client's side of SMTP and LMTP, for targets that take mail and say no
 * more.
 *
 * Life: mw_smtp_open → for each copy mw_smtp_envelope, then mw_smtp_content → … →
 * mw_smtp_close. One recipient and one transaction for each copy, so that each has an
 * answer of its own. One thread.
 *
 * Bytes: where the server offers CHUNKING they go by BDAT, exactly as they are. Without
 * it the caller passes nothing with NUL, bare CR or LF: a server that takes one for a
 * line end would see another message in it.
 *
 * Bounds: a reply has at most 200 lines of 4 kB, and ten minutes in all.
 */
#ifndef MW_REPLAY_SMTP_H
#define MW_REPLAY_SMTP_H

#include "journal/base/err.h"
#include "journal/base/str.h"
#include "replay/net.h"

enum mw_smtp_cap {
	MW_SMTP_8BITMIME = 1,
	MW_SMTP_SMTPUTF8 = 2,
	MW_SMTP_CHUNKING = 4,
	MW_SMTP_DSN = 8,
	MW_SMTP_SIZE = 16,
	MW_SMTP_GUARD = 32 /* mailwald's own (store/guard.h), where there is no DSN */
};

struct mw_smtp {
	struct mw_net *net;
	bool lmtp;
	unsigned caps;  /* enum mw_smtp_cap */
	uint64_t limit; /* of SIZE; 0: none stated */
	int code;       /* of the last reply */
	char text[400]; /* its last line */
};

struct mw_smtp_envelope {
	struct mw_str sender, rcpt; /* without brackets */
	uint64_t size;
	const char *envid;  /* or NULL; also where there is MW_SMTP_GUARD */
	bool eight, binary; /* the content has 8-bit bytes; NUL, bare CR, LF */
};

/* Connects, greets, learns what the server can. */
int mw_smtp_open(const struct mw_net_opts *o, bool lmtp, struct mw_smtp **ret,
                 struct mw_err *err) MW_CHECK;
void mw_smtp_close(struct mw_smtp *c); /* QUIT where nothing is under way; NULL ok */
/* Can the server be given this at all? NULL, or why not. */
const char *mw_smtp_unfit(const struct mw_smtp *c, const struct mw_smtp_envelope *e);
/* MAIL, RCPT and, without CHUNKING, DATA. 1: the content may follow. 0: refused (code,
 * text), and the transaction is off. MW_EUNAVAIL where the server goes away (421). */
int mw_smtp_envelope(struct mw_smtp *c, const struct mw_smtp_envelope *e,
                     struct mw_err *err) MW_CHECK;
/* The content: give calls sink with exactly size bytes. before_end is called when all but
 * the very end was sent: until then nothing can have been delivered. The server's answer
 * is in code and text then; 0, or an error that leaves the copy in doubt. */
struct mw_smtp_content {
	uint64_t size;
	int (*give)(void *arg, int (*sink)(void *sarg, const void *p, size_t n),
	            void *sarg, struct mw_err *err);
	int (*before_end)(void *arg, struct mw_err *err);
	void *arg;
};
int mw_smtp_content(struct mw_smtp *c, const struct mw_smtp_content *m,
                    struct mw_err *err) MW_CHECK;

#endif
