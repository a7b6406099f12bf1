#include "milter/session_int.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"

struct mw_str
mw_session_value(const struct mw_session *s, enum mw_macro m)
{
	if (s->macro[m])
		return mw_strz(s->macro[m]);
	return mw_strz(s->conn_macro[m]);
}

static struct mw_str
either(const char *told, struct mw_str macro)
{
	return told && *told ? mw_strz(told) : macro;
}

static bool
is_loopback(struct mw_str a)
{
	return mw_str_starts(a, MW_STR("127.")) || mw_str_eq(a, MW_STR("::1"));
}

/* sendmail(1), bounces and the like: Postfix shows them as localhost with port 0. */
static bool
is_non_smtp(const struct mw_mail *m)
{
	if (m->client_port != 0)
		return false;
	return m->client_addr.n == 0 || is_loopback(m->client_addr);
}

static unsigned
parse_port(struct mw_str v)
{
	unsigned port = 0;
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] < '0' || v.p[i] > '9' || port > 65535)
			return 0;
		port = port * 10 + (unsigned)(v.p[i] - '0');
	}
	return port > 65535 ? 0 : port;
}

void
mw_message_build(struct mw_session *s)
{
	struct mw_mail *m = &s->mail;
	m->time_us = s->cap->clock->now_us(s->cap->clock);
	m->queue_id = mw_session_value(s, MW_MACRO_QUEUE_ID);
	m->client_addr =
	    either(s->client_addr, mw_session_value(s, MW_MACRO_CLIENT_ADDR));
	m->client_name =
	    either(s->client_name, mw_session_value(s, MW_MACRO_CLIENT_NAME));
	m->client_port = s->client_port
	                     ? s->client_port
	                     : parse_port(mw_session_value(s, MW_MACRO_CLIENT_PORT));
	m->helo = mw_strz(s->helo);
	m->tls_version = mw_session_value(s, MW_MACRO_TLS_VERSION);
	m->tls_cipher = mw_session_value(s, MW_MACRO_CIPHER);
	m->auth_type = mw_session_value(s, MW_MACRO_AUTH_TYPE);
	m->auth_user = mw_session_value(s, MW_MACRO_AUTH_AUTHEN);
	m->auth_sender = mw_session_value(s, MW_MACRO_AUTH_AUTHOR);
	m->daemon = mw_session_value(s, MW_MACRO_DAEMON);
	m->mta = mw_session_value(s, MW_MACRO_VERSION);
	m->hostname = mw_session_value(s, MW_MACRO_HOSTNAME);
	m->front = s->front ? mw_strz(s->front) : MW_STR("milter");
	if (s->body == 0 && !s->front)
		m->flags |= MW_MAIL_NO_BODY;
	if (!s->exact)
		m->flags |= MW_MAIL_INEXACT;
	if (!s->front && is_non_smtp(m))
		m->flags |= MW_MAIL_NON_SMTP;
}

static bool
is_local_domain(const struct mw_conf *conf, struct mw_str domain)
{
	return mw_domain_of(conf->local_domains.v, conf->local_domains.n, domain) != NULL;
}

static bool
is_local(const struct mw_conf *conf, const struct mw_mail *m, const struct mw_rcpt *r)
{
	struct mw_str domain = mw_addr_domain(r->addr);
	if (domain.n == 0 || mw_str_eq(m->front, MW_STR("lmtp"))) /* LMTP: final */
		return true;
	if (conf->local_domains.n == 0)
		return !(m->auth_user.n && mw_str_eq(r->mailer, MW_STR("smtp")));
	if (is_local_domain(conf, domain))
		return true;
	/* an alias may lead from a foreign-looking address to a mailbox here */
	for (size_t i = 0; i < r->n_mailbox; i++)
		if (is_local_domain(conf, mw_addr_domain(r->mailbox[i])))
			return true;
	return false;
}

void
mw_message_direct(const struct mw_conf *conf, struct mw_mail *m)
{
	bool remote = false;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		if (is_local(conf, m, &m->rcpt[i]))
			m->rcpt[i].flags |= MW_RCPT_LOCAL;
		else if (!(m->rcpt[i].flags & MW_RCPT_REFUSED))
			remote = true;
	}
	struct mw_str domain = mw_addr_domain(m->sender);
	bool here = m->flags & MW_MAIL_NON_SMTP || is_loopback(m->client_addr);
	bool ours = m->auth_user.n || (here && domain.n && is_local_domain(conf, domain));
	if (ours)
		m->direction = remote ? MW_DIR_OUT : MW_DIR_INTERNAL;
	else
		m->direction = MW_DIR_IN;
}

/* What only a proxy asks. */

void
mw_session_front(struct mw_session *s, const char *front)
{
	s->front = front;
}

bool
mw_session_full(const struct mw_session *s)
{
	return s->set && s->mail.n_rcpt >= (uint64_t)s->set->conf->recipient_limit;
}

bool
mw_session_record(const struct mw_session *s, uint8_t ret_id[MW_ID_LEN],
                  uint64_t *ret_seq)
{
	if (s->state != MW_ST_PENDING || s->commit.code != 0 || s->pass)
		return false;
	memcpy(ret_id, mw_entry_id(s->entry), MW_ID_LEN);
	*ret_seq = s->commit.seq;
	return true;
}
