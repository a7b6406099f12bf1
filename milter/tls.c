#include "milter/tls.h"

#include "journal/base/util.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum {
	PIECE = 16 * 1024
};

struct mw_tls_ctx {
	SSL_CTX *ctx;
	bool server, verify;
};

struct mw_tls {
	SSL *ssl;
	BIO *in, *out; /* the session's */
	bool up;
};

/* What the library says, in one line. */
static int
ssl_fail(struct mw_err *err, int code, const char *what)
{
	char text[200] = "no reason given";
	unsigned long e = ERR_peek_last_error();
	if (e)
		ERR_error_string_n(e, text, sizeof text);
	ERR_clear_error();
	return mw_fail(err, code, "%s: %s", what, text);
}

static int
ctx_new(const SSL_METHOD *m, struct mw_tls_ctx **ret, struct mw_err *err)
{
	struct mw_tls_ctx *c = calloc(1, sizeof *c);
	if (c)
		c->ctx = SSL_CTX_new(m);
	if (!c || !c->ctx || !SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION)) {
		mw_tls_ctx_free(c);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	(void)SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
	                                   SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
	                                   SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION);
	*ret = c;
	return 0;
}

int
mw_tls_server(const char *cert_file, const char *key_file, struct mw_tls_ctx **ret,
              struct mw_err *err)
{
	struct mw_tls_ctx *c = NULL;
	char what[PATH_MAX + 40];
	ERR_clear_error();
	int r = ctx_new(TLS_server_method(), &c, err);
	if (r)
		return r;
	c->server = true;
	if (SSL_CTX_use_certificate_chain_file(c->ctx, cert_file) != 1) {
		(void)snprintf(what, sizeof what, "cannot use the certificate in %s",
		               cert_file);
		r = ssl_fail(err, MW_ECONF, what);
	} else if (SSL_CTX_use_PrivateKey_file(c->ctx, key_file, SSL_FILETYPE_PEM) != 1 ||
	           SSL_CTX_check_private_key(c->ctx) != 1) {
		(void)snprintf(what, sizeof what, "cannot use the private key in %s",
		               key_file);
		r = ssl_fail(err, MW_ECONF, what);
	}
	if (r) {
		mw_tls_ctx_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int
mw_tls_client(const char *ca_file, bool verify, struct mw_tls_ctx **ret,
              struct mw_err *err)
{
	struct mw_tls_ctx *c = NULL;
	char what[PATH_MAX + 40];
	ERR_clear_error();
	int r = ctx_new(TLS_client_method(), &c, err);
	if (r)
		return r;
	c->verify = verify;
	bool ok = !verify || (ca_file ? SSL_CTX_load_verify_file(c->ctx, ca_file)
	                              : SSL_CTX_set_default_verify_paths(c->ctx)) == 1;
	SSL_CTX_set_verify(c->ctx, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	if (!ok) {
		(void)snprintf(what, sizeof what, "cannot use the certificates in %s",
		               ca_file ? ca_file : "the system's store");
		r = ssl_fail(err, MW_ECONF, what);
		mw_tls_ctx_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void
mw_tls_ctx_free(struct mw_tls_ctx *c)
{
	if (c)
		SSL_CTX_free(c->ctx);
	free(c);
}

/* Whom to expect: a name, or an address. */
static bool
expect(struct mw_tls *t, const char *host, bool verify)
{
	struct in6_addr a;
	bool address =
	    inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
	if (!address && SSL_set_tlsext_host_name(t->ssl, host) != 1)
		return false;
	if (!verify)
		return true;
	if (address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), host) == 1;
	SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(t->ssl, host) == 1;
}

struct mw_tls *
mw_tls_new(struct mw_tls_ctx *c, const char *host)
{
	struct mw_tls *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->ssl = SSL_new(c->ctx);
	t->in = BIO_new(BIO_s_mem());
	t->out = BIO_new(BIO_s_mem());
	if (!t->ssl || !t->in || !t->out) {
		BIO_free(t->in);
		BIO_free(t->out);
		SSL_free(t->ssl);
		free(t);
		return NULL;
	}
	SSL_set_bio(t->ssl, t->in, t->out); /* they are the session's now */
	if (c->server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	if (!c->server && !expect(t, host, c->verify)) {
		mw_tls_free(t);
		return NULL;
	}
	return t;
}

void
mw_tls_free(struct mw_tls *t)
{
	if (t)
		SSL_free(t->ssl);
	free(t);
}

/* A call that could not go on: 0 it waits for bytes, 1 the peer is done, negative. */
static int
stuck(struct mw_tls *t, int r, struct mw_err *err)
{
	int e = SSL_get_error(t->ssl, r);
	if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
		return 0;
	if (e == SSL_ERROR_ZERO_RETURN)
		return 1;
	long v = SSL_get_verify_result(t->ssl);
	if (!t->up && v != X509_V_OK) {
		ERR_clear_error();
		return mw_fail(err, MW_EPROTO, "TLS: the certificate is not accepted: %s",
		               X509_verify_cert_error_string(v));
	}
	return ssl_fail(err, MW_EPROTO, "TLS");
}

static int
shake(struct mw_tls *t, struct mw_err *err)
{
	ERR_clear_error();
	int r = SSL_do_handshake(t->ssl);
	if (r != 1)
		return stuck(t, r, err);
	t->up = true;
	return 0;
}

int
mw_tls_input(struct mw_tls *t, const void *p, size_t n, struct mw_buf *plain,
             struct mw_err *err)
{
	if (n > INT_MAX || (n && BIO_write(t->in, p, (int)n) != (int)n))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = t->up ? 0 : shake(t, err);
	while (r == 0 && t->up) {
		if (mw_buf_reserve(plain, PIECE))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		ERR_clear_error();
		int k = SSL_read(t->ssl, plain->p + plain->n, PIECE);
		if (k <= 0)
			return stuck(t, k, err);
		plain->n += (size_t)k;
	}
	return r;
}

int
mw_tls_output(struct mw_tls *t, struct mw_buf *plain, struct mw_buf *wire,
              struct mw_err *err)
{
	size_t at = 0;
	int r = 0;
	while (t->up && at < plain->n) {
		ERR_clear_error();
		int k = SSL_write(t->ssl, plain->p + at,
		                  (int)MW_MIN(plain->n - at, (size_t)PIECE));
		if (k <= 0) { /* the rest waits for bytes of the peer, or for nothing */
			r = stuck(t, k, err);
			break;
		}
		at += (size_t)k;
	}
	mw_buf_drop(plain, at);
	while (BIO_pending(t->out) > 0) {
		if (mw_buf_reserve(wire, PIECE))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		int k = BIO_read(t->out, wire->p + wire->n, PIECE);
		if (k <= 0)
			break;
		wire->n += (size_t)k;
	}
	return r < 0 ? r : 0;
}

bool
mw_tls_up(const struct mw_tls *t)
{
	return t->up;
}

const char *
mw_tls_version(const struct mw_tls *t)
{
	return SSL_get_version(t->ssl);
}

const char *
mw_tls_cipher(const struct mw_tls *t)
{
	return SSL_get_cipher_name(t->ssl);
}

unsigned
mw_tls_bits(const struct mw_tls *t)
{
	return (unsigned)SSL_get_cipher_bits(t->ssl, NULL);
}
