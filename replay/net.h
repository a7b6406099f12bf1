/* net.h - one connection: TCP, unix, TLS, STARTTLS and the SASL login, all by libcurl.
 *
 * Life: mw_net_open (connects; for IMAP and SMTP also greeting, STARTTLS and login) →
 * mw_net_send, mw_net_flush, mw_net_line, mw_net_read → mw_net_close. One thread. This is
 * the only file that knows libcurl; it is used as a transport (CURLOPT_CONNECT_ONLY),
 * never for its own IMAP commands.
 *
 * Time: every wait for the peer ends after idle_ms without a byte, and everything between
 * two calls of mw_net_deadline after that call's limit, so that a peer that trickles
 * bytes cannot hold a run. When *stopped says so, a wait ends within a few seconds
 * (MW_ECANCEL).
 *
 * Secrets: the password is handed to libcurl and nowhere else (but see imap_login.c);
 * what goes out is never logged. libcurl keeps its copy until mw_net_close.
 */
#ifndef MW_REPLAY_NET_H
#define MW_REPLAY_NET_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum mw_net_kind {
	MW_NET_IMAP,
	MW_NET_IMAPS,
	MW_NET_SMTP,
	MW_NET_TCP,
	MW_NET_UNIX,
	MW_NET_TLS /* from the first byte, and no login */
};

struct mw_net_opts {
	enum mw_net_kind kind;
	const char *host; /* name or address; for MW_NET_UNIX the socket's path */
	unsigned port;
	/* IMAP, and SMTP where login is not NULL. authzid NULL: the login name is the
	 * mailbox. */
	const char *login, *password, *authzid;
	const char *ca_file; /* NULL: the system's */
	bool insecure;       /* TLS not verified, plain text allowed */
	int connect_ms;      /* 0: 20 s, includes the login */
	int idle_ms;         /* 0: 120 s */
	bool (*stopped)(void);
	/* A server that took the connection and is silent is told of once, long before
	 * the time is over. NULL: not. */
	void (*note)(void *arg, const char *text);
	void *note_arg;
};

struct mw_net;

/* MW_EUNAVAIL: no connection, or TLS not trusted (hint); MW_EAUTH: login refused, with
 * the server's own words; MW_ETIMEOUT; MW_EPERM for a unix socket. */
int mw_net_open(const struct mw_net_opts *o, struct mw_net **ret,
                struct mw_err *err) MW_CHECK;
void mw_net_close(struct mw_net *n); /* NULL ok; just closes, says no good-bye */
/* From now on what the peer has not taken yet is thrown away when the connection ends, be
 * it by a kill: after an outage it would still arrive, minutes later. false: it is not.
 */
void mw_net_cut_at_end(struct mw_net *n, bool yes);
/* May a password go out as it is, as soon as there is a connection: over TLS that is
 * verified from the first byte, or within this host? */
bool mw_net_is_private(const struct mw_net_opts *o);
/* A login over n as the caller does it was refused with the words `said`: the code, and
 * what mw_net_open would say of it. */
int mw_net_refused(struct mw_net *n, const struct mw_net_opts *o, const char *said,
                   struct mw_err *err);
/* "host:port" for messages. */
const char *mw_net_peer(const struct mw_net *n);
/* From now on, all waits together at most ms. */
void mw_net_deadline(struct mw_net *n, int64_t ms);
/* The same, and waits until the peer says its first word; o: what it is meant to be. */
int mw_net_greeted(struct mw_net *n, const struct mw_net_opts *o, int64_t ms,
                   struct mw_err *err) MW_CHECK;

/* Buffered; large pieces go out at once. Reads what the peer says meanwhile, so that two
 * full socket buffers cannot block each other. */
int mw_net_send(struct mw_net *n, const void *p, size_t len, struct mw_err *err) MW_CHECK;
int mw_net_flush(struct mw_net *n, struct mw_err *err) MW_CHECK;
/* At once, and no copy of it is kept. */
int mw_net_send_secret(struct mw_net *n, const void *p, size_t len,
                       struct mw_err *err) MW_CHECK;
/* Would the socket take bytes now? */
bool mw_net_ready(const struct mw_net *n);
/* Is there something to read, or an end to be noticed? */
bool mw_net_heard(const struct mw_net *n);
/* The next line without its CRLF or LF, valid until the next call. MW_ELIMIT beyond max
 * bytes, MW_EUNAVAIL when the peer closed. Flushes first. */
int mw_net_line(struct mw_net *n, size_t max, struct mw_str *ret,
                struct mw_err *err) MW_CHECK;
/* Exactly len bytes, in pieces, to sink (which returns 0 or a code that is handed back
 * after the rest was read and dropped). sink NULL: dropped. */
int mw_net_read(struct mw_net *n, uint64_t len,
                int (*sink)(void *arg, const void *p, size_t len), void *arg,
                struct mw_err *err) MW_CHECK;

#endif
