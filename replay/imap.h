/* imap.h - a small pipelining IMAP client: what a replay needs and nothing else.
 *
 * Life: mw_imap_open (connects, logs in, learns capabilities and the personal namespace)
 * → mw_imap_cmd … mw_imap_wait, any number of commands in flight, answers taken in the
 * order sent → mw_imap_close. One thread.
 *
 * Memory: one response, bounded (MW_ELIMIT); literals larger than the caller wants are
 * cut or streamed. A server can make a call fail, never grow without limit.
 *
 * Errors: MW_EREFUSED for a NO or BAD (the server's words in the text, the response code
 * in `last`); MW_EPROTO, MW_EUNAVAIL, MW_ETIMEOUT, MW_ELIMIT mean that the connection is
 * of no more use.
 */
#ifndef MW_REPLAY_IMAP_H
#define MW_REPLAY_IMAP_H

#include "journal/base/buf.h"
#include "replay/imap_parse.h"
#include "replay/net.h"

enum mw_imap_cap {
	MW_CAP_MULTIAPPEND = 1,
	MW_CAP_LITERAL_PLUS = 2,
	MW_CAP_LITERAL_MINUS = 4,
	MW_CAP_UIDPLUS = 8,
	MW_CAP_MOVE = 16,
	MW_CAP_NAMESPACE = 32,
	MW_CAP_SPECIAL_USE = 64,
	MW_CAP_LIST_EXTENDED = 128,
	MW_CAP_FILTER_SIEVE = 256,
	MW_CAP_CONDSTORE = 512,
	MW_CAP_ID = 1024
};

enum mw_imap_no { /* what a response code of a NO means to us */
	MW_NO_OTHER,
	MW_NO_OVERQUOTA,
	MW_NO_TRYCREATE,
	MW_NO_LIMIT, /* LIMIT, TOOBIG, MESSAGELIMIT, APPENDLIMIT */
	MW_NO_NONEXISTENT,
	MW_NO_ALREADYEXISTS,
	MW_NO_NOPERM,
	MW_NO_INUSE
};

struct mw_imap {
	struct mw_net *net;
	unsigned caps;           /* enum mw_imap_cap */
	uint64_t append_limit;   /* largest message taken; 0: not stated */
	uint64_t message_limit;  /* messages of one command (RFC 9738); 0: not known */
	char *prefix;            /* personal namespace, "" or "INBOX." */
	char delim;              /* hierarchy separator, 0: flat */
	struct mw_buf foreign;   /* prefixes of others' namespaces, each with its NUL */
	unsigned sent, answered; /* command tags */
	struct mw_buf resp;      /* the response being read */
	size_t literal_keep; /* bytes of a literal kept; the rest is read and dropped */
	/* BODY[] literals go here as they come, when set; their place in resp is empty.
	 */
	int (*body)(void *arg, const void *p, size_t n);
	void *body_arg;
	struct { /* the last tagged answer */
		bool ok;
		enum mw_imap_no no;
		char code[32];
		struct mw_buf args; /* of the response code, whole */
		char text[300];
	} last;
	/* RFC 9738: the last command dealt with the newest messages only, down to this
	 * UID; 0: with all. 1: the server did not say how far. */
	uint32_t cut;
	bool dovecot, id_asked; /* by its own account: it knows X-MAILBOX */
	char bye[200];
	int limit_ms; /* of an answer; 0: as long as a command may take */
};

int mw_imap_open(const struct mw_net_opts *o, struct mw_imap **ret,
                 struct mw_err *err) MW_CHECK;
/* The same in halves: commands may go out between them, whose answers are due after what
 * wait takes. Only where c->caps has NAMESPACE. */
int mw_imap_open_send(const struct mw_net_opts *o, struct mw_imap **ret,
                      struct mw_err *err) MW_CHECK;
int mw_imap_open_wait(struct mw_imap *c, struct mw_err *err) MW_CHECK;
/* The same without the namespace, for who only appends. */
int mw_imap_open_bare(const struct mw_net_opts *o, struct mw_imap **ret,
                      struct mw_err *err) MW_CHECK;
/* LOGOUT where the connection still stands, then closes. NULL ok. */
void mw_imap_close(struct mw_imap *c);

/* The answer to ID: sets dovecot. An mw_imap_on, whose arg is the client. */
int mw_imap_on_id(void *arg, struct mw_imap_cur cur);

/* Is that folder another user's, or a public one? */
bool mw_imap_foreign(const struct mw_imap *c, const char *name);

/* Sends "TAG " fmt CRLF; the answer is taken later, in order. */
int mw_imap_cmd(struct mw_imap *c, struct mw_err *err, const char *fmt, ...) MW_CHECK
    __attribute__((format(printf, 3, 4)));
/* Reads to the answer of the oldest unanswered command. Each untagged response goes to on
 * (may be NULL), which returns 0 or a code that ends the wait. 0: OK; MW_EREFUSED: NO or
 * BAD. */
typedef int mw_imap_on(void *arg, struct mw_imap_cur resp);
int mw_imap_wait(struct mw_imap *c, mw_imap_on *on, void *arg,
                 struct mw_err *err) MW_CHECK;
/* Both, for a command that stands alone. */
int mw_imap_do(struct mw_imap *c, struct mw_err *err, const char *fmt, ...) MW_CHECK
    __attribute__((format(printf, 3, 4)));
/* Waits for "+ " after a synchronising literal: 1 go on, 0 the command was answered (its
 * outcome is in last). */
int mw_imap_continue(struct mw_imap *c, struct mw_err *err) MW_CHECK;
/* After a command that stopped at c->cut, the one before at *above (UINT32_MAX at first):
 * 1 another for UIDs below c->cut is due, 0 that was all; MW_EPROTO: it comes no further.
 */
int mw_imap_go_on(struct mw_imap *c, uint32_t *above, struct mw_err *err) MW_CHECK;
/* A refusal of the last command as an error: MW_EREFUSED, "cannot WHAT: server's text".
 */
int mw_imap_refused(struct mw_imap *c, struct mw_err *err, const char *what);

/* ---- APPEND ---- */

struct mw_imap_msg {
	int64_t date_us;
	uint64_t size;
	const char *flags; /* "" or "(\\Seen) " */
	void *ref;
};

struct mw_imap_batch {
	const char *folder; /* quoted already */
	const struct mw_imap_msg *v;
	size_t n;
	/* Gives exactly size bytes of message m to sink. A failure in the middle costs
	 * the connection: nothing else can end a literal. */
	int (*content)(void *arg, const struct mw_imap_msg *m,
	               int (*sink)(void *sarg, const void *p, size_t n), void *sarg,
	               struct mw_err *err);
	void *arg;
};

/* How a batch ended. */
struct mw_imap_appended {
	int code;             /* 0, or MW_EREFUSED (text and meaning in c->last) */
	uint32_t uidvalidity; /* 0: the server did not say */
	uint32_t uid;         /* with MULTIAPPEND only of the first message */
};

/* One MULTIAPPEND for the batch; without the capability n must be 1. In two halves, so
 * that answers to earlier commands can be taken in between (only where LITERAL+ lets the
 * whole be sent without one): send gives 1 when all is sent, 0 when the server has
 * answered already (at a synchronising literal); wait takes that as `sent`. */
int mw_imap_append_send(struct mw_imap *c, const struct mw_imap_batch *b,
                        struct mw_err *err) MW_CHECK;
int mw_imap_append_wait(struct mw_imap *c, int sent, struct mw_imap_appended *ret,
                        struct mw_err *err) MW_CHECK;
/* Two batches over two connections at the same time, one MULTIAPPEND each, both answers
 * to be taken by mw_imap_append_wait(c, 1, …). An empty one is not sent, and needs no
 * connection. Needs MULTIAPPEND and LITERAL+ on both. 0, or a failure that costs both
 * connections. */
int mw_imap_append_send_two(struct mw_imap *const c[2], const struct mw_imap_batch b[2],
                            struct mw_err *err) MW_CHECK;
/* Send and wait. */
int mw_imap_append(struct mw_imap *c, const struct mw_imap_batch *b,
                   struct mw_imap_appended *ret, struct mw_err *err) MW_CHECK;

#endif
