/* tls.h - TLS over bytes in memory, for the proxy's STARTTLS: no sockets, no waiting.
 *
 * Life: a context for each role, from the configuration; a session from it for each
 * connection. What came from the wire goes in with mw_tls_input, what is to be sent
 * comes out of mw_tls_output; the owner does the I/O.
 *
 * Threads: a context by many, a session by one. TLS 1.2 and later (RFC 8996), the
 * library's own choice of ciphers.
 */
#ifndef MW_MILTER_TLS_H
#define MW_MILTER_TLS_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

struct mw_tls_ctx;
struct mw_tls;

/* A server with its certificate chain and key, PEM. MW_ECONF says what is wrong with the
 * files. */
int mw_tls_server(const char *cert_file, const char *key_file, struct mw_tls_ctx **ret,
                  struct mw_err *err) MW_CHECK;
/* A client. verify: the server must have a certificate for its name that ca_file (NULL:
 * the system's authorities) vouches for; else any certificate will do. */
int mw_tls_client(const char *ca_file, bool verify, struct mw_tls_ctx **ret,
                  struct mw_err *err) MW_CHECK;
void mw_tls_ctx_free(struct mw_tls_ctx *c); /* NULL ok */

/* host: of the server to connect to, a name or an address; NULL on the server's side.
 * NULL: out of memory. */
struct mw_tls *mw_tls_new(struct mw_tls_ctx *c, const char *host);
void mw_tls_free(struct mw_tls *t); /* NULL ok */

/* Bytes from the peer; what they say is appended to plain. Call it with n 0 to begin a
 * handshake as client. 1: the peer has ended the session in order; 0; MW_EPROTO with the
 * reason, after which the session is of no more use (what output still holds may be
 * sent). */
int mw_tls_input(struct mw_tls *t, const void *p, size_t n, struct mw_buf *plain,
                 struct mw_err *err) MW_CHECK;
/* Takes what is in plain, as soon as the handshake is done, and appends to wire what is
 * to be sent. MW_EPROTO. */
int mw_tls_output(struct mw_tls *t, struct mw_buf *plain, struct mw_buf *wire,
                  struct mw_err *err) MW_CHECK;
bool mw_tls_up(const struct mw_tls *t); /* the handshake is done */
/* Valid as long as t: "TLSv1.3", "TLS_AES_256_GCM_SHA384". */
const char *mw_tls_version(const struct mw_tls *t);
const char *mw_tls_cipher(const struct mw_tls *t);
unsigned mw_tls_bits(const struct mw_tls *t);

#endif
