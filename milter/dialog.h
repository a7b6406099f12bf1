/* dialog.h - the proxy between one SMTP or LMTP client and the next server, without I/O.
 *
 * It passes commands and replies on one at a time, lets content run ahead to the next
 * server while the session journals it, and sends the dot that ends it only when the
 * record is durable (P1). What the next server then says is what the client is told: 250
 * means durable and taken over there. STARTTLS is each side's own; AUTH is passed on
 * where nobody can listen. BDAT is passed on with its chunks where the next server offers
 * CHUNKING; then the last byte of the last chunk is what waits for the record.
 *
 * The owner feeds it with what came from both sides and takes what is in to_client and
 * to_next; see proxy.c. Everything that waits has its deadline in deadline_us.
 *
 * Life: mw_dialog_init → mw_dialog_next_up or _next_down → … until close_client → free,
 * never between an end of message and mw_dialog_committed. Threads: one at a time; done()
 * alone comes from another one.
 */
#ifndef MW_MILTER_DIALOG_H
#define MW_MILTER_DIALOG_H

#include "milter/dot.h"
#include "milter/outbox.h"
#include "milter/session.h"
#include "milter/smtp.h"

enum mw_next_tls { /* as proxy_next_tls is in the options */
	MW_NEXT_TLS_NONE,
	MW_NEXT_TLS_MAY,
	MW_NEXT_TLS_ENCRYPT,
	MW_NEXT_TLS_VERIFY
};

struct mw_dialog_opts {
	struct mw_capture *cap;
	struct mw_outbox *outbox;
	bool lmtp;
	bool trusted; /* the peer is on this host: XFORWARD and XCLIENT count */
	bool tls;     /* STARTTLS is offered to the client */
	enum mw_next_tls next_tls; /* asked of the next server, before anything else */
	bool next_local;           /* the next server is on this host */
	/* The connection to the next server may serve another client afterwards: when a
	 * session ends right after a message that went well, and had neither AUTH nor
	 * XCLIENT nor a refusal, QUIT is answered here and keep_next is set. */
	bool keep;
	bool plain;            /* XFORWARD is asked of the next server each time */
	const char *on, *next; /* names for the log and the record; borrowed */
	struct mw_str peer;    /* address; empty: a unix socket */
	unsigned peer_port;
	void (*done)(
	    void *arg); /* the record's fate is known: call mw_dialog_committed */
	void *arg;
};

struct mw_facts { /* of the client, as peer, XCLIENT and XFORWARD told them */
	char name[256], addr[64], helo[256], ident[64], login[256];
	unsigned port;
};

enum mw_dialog_state {
	MW_DI_GREETING, /* the next server has not said its 220 */
	MW_DI_COMMAND,  /* the client's turn */
	MW_DI_REPLY,    /* the next server's turn */
	MW_DI_CONTENT,
	MW_DI_COMMIT, /* the record is with the store */
	MW_DI_FINAL,  /* the dot is out: `due` replies are awaited */
	MW_DI_CLOSED
};

struct mw_chunk {    /* of content that comes by BDAT */
	bool begun;  /* the message has one */
	bool in;     /* its bytes are coming: `left` more */
	bool last;   /* it says LAST */
	bool skip;   /* it is out of place: d->verdict is the answer to it */
	bool failed; /* the next server has refused one */
	unsigned empty;
	uint64_t left;
};

struct mw_used { /* what is known of a connection that has served another client */
	struct mw_buf greeting;
	struct mw_buf hello, hello_reply; /* its last EHLO, without CR LF */
	bool forwards;                    /* it has said 250 to XFORWARD */
};

struct mw_dialog {
	/* for the owner */
	struct mw_buf to_client, to_next;
	bool quit;           /* the client has said so, and nothing behind it */
	bool close_client;   /* when to_client is out */
	bool close_next;     /* at once, whatever is in to_next */
	int64_t deadline_us; /* monotonic; 0: none. Then mw_dialog_timeout. */
	bool keep_next;      /* take that connection away before close_next closes it */
	bool unforwarded;    /* it has refused an XFORWARD that was answered here */
	bool reconnect; /* a used one was gone: make a new one, or mw_dialog_next_down */
	/* Begin TLS on that side when what is to be sent there is out: as its server; as
	 * its client. Then mw_dialog_tls_up, mw_dialog_next_tls_up. */
	bool start_tls, start_next_tls;
	/* the rest is private */
	struct mw_dialog_opts o;
	enum mw_dialog_state state;
	struct mw_session *session;
	struct mw_facts base, now; /* of the session, of this message */
	struct mw_buf in, reply_in, reply, line, content, head;
	size_t in_at, reply_at; /* taken of in, of reply_in */
	unsigned reply_lines, reply_code;
	bool eof, skip_line, open, dropped, pass;
	bool tls_up, next_tls_up, authing;
	int greeted; /* what has been said to the next server before the client's turn */
	struct mw_buf greeting;
	struct mw_used kept; /* of the next server, where `keep` */
	bool used;           /* the connection has served another client */
	bool hello;          /* EHLO or the like was said by this one */
	bool heard;          /* something of this one was answered */
	struct mw_buf ahead; /* XFORWARD, answered here: goes on with what follows */
	unsigned ahead_due;  /* replies to it that the client does not see */
	int again; /* of another connection: 1 the greeting, 2 the reply to EHLO is to
	              come */
	bool odd;  /* nobody else may have the connection */
	bool after_message; /* nothing was said since one that went well */
	bool forwarded;     /* XFORWARD was said */
	unsigned relayed;   /* messages that went well */
	char mech[24], login_try[256];
	char tls_version[16], tls_cipher[64], tls_bits[8];
	enum mw_verb verb; /* that the next server is to answer */
	size_t accepted, due, failed;
	unsigned junk;
	struct mw_dot dot;
	bool chunking; /* the next server offers it */
	struct mw_chunk chunk;
	struct mw_buf held; /* what ends the message, kept until the record is durable */
	char verdict[200];  /* for content that is dropped: a whole line */
	char queue_id[64], queued_as[64];
	/* what became of the message, for a record of its own */
	struct mw_arena *arena;
	struct mw_str *rcpt; /* accepted ones */
	size_t rcpt_cap;
	struct mw_outcome outcome; /* id and seq are those of the message's record */
	bool has_id;
	int64_t began_us; /* of the content */
	int64_t timeout_us;
	uint64_t limit;
};

int mw_dialog_init(struct mw_dialog *d, const struct mw_dialog_opts *o,
                   struct mw_err *err) MW_CHECK;
/* After init, in place of a connection and a greeting: what another session has left. The
 * same EHLO as its last one is answered from memory. Copied. */
void mw_dialog_next_used(struct mw_dialog *d, const struct mw_used *u);
void mw_dialog_free(struct mw_dialog *d);
/* No connection, a lost one, or one that takes too long; why is for the log. */
void mw_dialog_next_down(struct mw_dialog *d, const char *why);
void mw_dialog_client(struct mw_dialog *d, const void *p, size_t n);
void mw_dialog_client_eof(struct mw_dialog *d);
void mw_dialog_next(struct mw_dialog *d, const void *p, size_t n);
/* After a handshake: with the client (what was agreed on), with the next server. */
void mw_dialog_tls_up(struct mw_dialog *d, const char *version, const char *cipher,
                      unsigned bits);
void mw_dialog_next_tls_up(struct mw_dialog *d);
/* After done(). */
void mw_dialog_committed(struct mw_dialog *d);
void mw_dialog_timeout(struct mw_dialog *d);
/* The daemon ends: who is not at the end of a message is told 421. */
void mw_dialog_stop(struct mw_dialog *d);
/* After bytes of to_client have gone out: what waited for that goes on. */
void mw_dialog_flushed(struct mw_dialog *d);
/* What is in to_next may wait: more goes out with it soon, in one packet. */
bool mw_dialog_holds(const struct mw_dialog *d);
/* More bytes of the client are welcome now. */
bool mw_dialog_hungry(const struct mw_dialog *d);

/* Between dialog.c, dialog_next.c and dialog_data.c: private. */

extern const char mw_dialog_lost[];
/* Goes on with what the client has sent as far as that is possible now. */
void mw_dialog_run(struct mw_dialog *d);
void mw_dialog_say(struct mw_dialog *d, const char *line);
void mw_dialog_drop_next(struct mw_dialog *d);
void mw_dialog_bye(struct mw_dialog *d, const char *line);
void mw_dialog_wait(struct mw_dialog *d, enum mw_dialog_state state, int times);
void mw_dialog_message_over(struct mw_dialog *d);
void mw_dialog_data_begin(struct mw_dialog *d);
/* dialog_keep.c: a command goes to the next server, a reply has come from there; may the
 * connection serve others now; a used one is gone: can another take its place? */
void mw_dialog_keep_said(struct mw_dialog *d, enum mw_verb verb);
void mw_dialog_keep_heard(struct mw_dialog *d);
bool mw_dialog_keep_end(struct mw_dialog *d);
bool mw_dialog_keep_again(struct mw_dialog *d);
/* The new connection's greeting, in d->reply. */
void mw_dialog_keep_greeted(struct mw_dialog *d);
/* EHLO can be answered without the next server, and was; it was answered by it. */
bool mw_dialog_keep_hello(struct mw_dialog *d, struct mw_str line, enum mw_verb verb);
void mw_dialog_keep_note_hello(struct mw_dialog *d);
/* XFORWARD can be answered without the next server, and was; the reply to it has come. */
bool mw_dialog_keep_forward(struct mw_dialog *d, struct mw_str line);
void mw_dialog_keep_forwarded(struct mw_dialog *d);
/* dialog_next.c: what XFORWARD says of the message's client. */
void mw_dialog_xforward(struct mw_dialog *d, struct mw_str line);
/* The reply in d->reply is that to the command in d->line. */
void mw_dialog_reply(struct mw_dialog *d);
/* dialog_tls.c: STARTTLS and AUTH of the client; a line while AUTH goes on; the replies
 * to both; what the next server says before the client's turn. */
void mw_dialog_starttls(struct mw_dialog *d, struct mw_str rest);
void mw_dialog_auth(struct mw_dialog *d, struct mw_str line, struct mw_str rest);
void mw_dialog_auth_line(struct mw_dialog *d, struct mw_str line);
void mw_dialog_auth_reply(struct mw_dialog *d);
void mw_dialog_greeted(struct mw_dialog *d);
/* May secrets pass: can nobody listen on either side? */
bool mw_dialog_private(const struct mw_dialog *d);
/* dialog.c, for the others */
void mw_dialog_forward(struct mw_dialog *d, struct mw_str line, enum mw_verb verb);
void mw_dialog_answered(struct mw_dialog *d, const char *line);
void mw_dialog_junk(struct mw_dialog *d, const char *line);
/* The record is awaited for some time: gives up when that is too long. */
void mw_dialog_commit_timeout(struct mw_dialog *d);
/* Takes what is in d->in; false: nothing more can be done now. */
bool mw_dialog_data_run(struct mw_dialog *d);
/* The content will not go on: the client is told `line` when it has sent it all. */
void mw_dialog_data_drop(struct mw_dialog *d, const char *line);
void mw_dialog_data_end(struct mw_dialog *d);
/* How many replies the end of the message has, or a chunk that is not its end. */
size_t mw_dialog_replies(const struct mw_dialog *d);
/* More of the content: to the session, not to the next server. */
void mw_dialog_content(struct mw_dialog *d, const void *p, size_t n);
/* Content has come: its sender may take its time again, but not for ever. */
void mw_dialog_data_going(struct mw_dialog *d);
bool mw_dialog_data_late(const struct mw_dialog *d);
/* dialog_bdat.c: the command; the bytes of a chunk; its reply was a no */
void mw_dialog_bdat(struct mw_dialog *d, struct mw_str rest);
bool mw_dialog_chunk_run(struct mw_dialog *d);
void mw_dialog_chunk_refused(struct mw_dialog *d);
void mw_dialog_add_rcpt(struct mw_dialog *d, struct mw_str path);
void mw_dialog_final_reply(struct mw_dialog *d);
void mw_dialog_final_lost(struct mw_dialog *d);

#endif
