/* session_int.h - the inside of a session, for session.c and message.c. */
#ifndef MW_MILTER_SESSION_INT_H
#define MW_MILTER_SESSION_INT_H

#include "milter/classes.h"
#include "milter/pool.h"
#include "milter/session.h"

/* Macros that are kept, by name without braces. */
#define MW_MACROS(X)                                                                     \
	X(QUEUE_ID, "i")                                                                 \
	X(HOSTNAME, "j")                                                                 \
	X(VERSION, "v")                                                                  \
	X(DAEMON, "daemon_name")                                                         \
	X(CLIENT_ADDR, "client_addr")                                                    \
	X(CLIENT_NAME, "client_name")                                                    \
	X(CLIENT_PORT, "client_port")                                                    \
	X(TLS_VERSION, "tls_version")                                                    \
	X(CIPHER, "cipher")                                                              \
	X(AUTH_TYPE, "auth_type")                                                        \
	X(AUTH_AUTHEN, "auth_authen")                                                    \
	X(AUTH_AUTHOR, "auth_author")                                                    \
	X(RCPT_MAILER, "rcpt_mailer")

enum mw_macro {
#define X(id, name) MW_MACRO_##id,
	MW_MACROS(X)
#undef X
	MW_N_MACROS
};

enum mw_state {
	MW_ST_IDLE,     /* no message */
	MW_ST_ENVELOPE, /* MAIL seen */
	MW_ST_HEADER,   /* some content seen, headers may follow */
	MW_ST_BODY,     /* end of headers seen */
	MW_ST_PENDING,  /* handed to the store */
};

enum mw_pass { /* why a message passes without a record */
	MW_PASS_NOT,
	MW_PASS_EXCLUDED,
	MW_PASS_REPLAYED,
	MW_PASS_FAILED /* no such reason: the journal has none of it */
};

/* An entry on its way through the store. Whoever changes `state` first decides: the
 * store's answer reaches the session, or the session has given up and the answer frees
 * all. */
enum mw_ticket_state {
	MW_TICKET_WAITING,
	MW_TICKET_ANSWERED,
	MW_TICKET_GIVEN_UP
};

struct mw_ticket {
	atomic_int state;
	struct mw_session *session;
	struct mw_entry *entry; /* this one's, once given up */
};

struct mw_session {
	struct mw_capture *cap;
	struct mw_settings *set; /* of this message; NULL when idle */
	enum mw_state state;
	bool exact;
	bool coming;       /* counted by mw_store_coming: from the connection's start, and
	                      from each MAIL, to the end of the content */
	const char *front; /* of a proxy; NULL: milter */
	/* the connection; malloc'd, NULL: not told */
	char *conn_macro[MW_N_MACROS];
	char *client_name, *client_addr, *helo;
	unsigned client_port;
	char family;
	bool lost_conn; /* there was no memory for some of it */
	/* the message */
	char *macro[MW_N_MACROS];
	bool lost; /* there was no memory for one of them */
	struct mw_arena *arena;
	struct mw_mail mail; /* sender, sender_args, rcpt filled as they come */
	size_t rcpt_cap;
	struct mw_buf text; /* headers not yet given to the entry */
	struct mw_entry *entry;
	uint64_t content, body;     /* bytes so far */
	uint64_t charged;           /* of cap's in_flight */
	struct mw_scan scan;        /* for the capture sections */
	char token[MW_GUARD_TOKEN]; /* of the loop guard; empty: none */
	struct mw_guard_body guard; /* when there is one */
	struct mw_trail *trail;     /* where something is expected back; NULL: not */
	bool returned;              /* `back` was taken, and is not delivered yet */
	struct mw_coming_one back;
	uint8_t replayed_id[MW_ID_LEN];
	enum mw_pass pass;
	struct mw_class class;
	struct mw_err fail; /* the first trouble; told at the end */
	bool too_many;
	struct mw_commit commit;
	struct mw_ticket *_Atomic ticket; /* with the store; NULL: not yet */
	int64_t submit_mono_us;           /* end of message */
	void (*done)(void *arg);
	void *done_arg;
};

/* session.c, for ending.c */

void mw_session_clear(struct mw_session *s); /* back to idle, macros too */
void mw_session_end_header(struct mw_session *s);
/* Tells the store that a message is on its way, or no longer. */
void mw_session_coming(struct mw_session *s, bool on);

/* message.c */

/* The value of a macro, the message's before the connection's; empty if unknown. */
struct mw_str mw_session_value(const struct mw_session *s, enum mw_macro m);
/* Fills s->mail from what was seen, but for size and digests; strings are borrowed from
 * the session. */
void mw_message_build(struct mw_session *s);
/* MW_RCPT_LOCAL of each recipient and the direction, after alias expansion. */
void mw_message_direct(const struct mw_conf *conf, struct mw_mail *m);

#endif
