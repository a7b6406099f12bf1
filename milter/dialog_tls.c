/* dialog_tls.c - STARTTLS on either side, and AUTH. Each side's TLS is its own: what was
 * said before it counts for nothing, and bytes that came in clear behind STARTTLS or its
 * reply end the session (RFC 3207 §4.2, §6). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/dialog.h"

enum { /* said to the next server */
	SAID_NOTHING,
	SAID_HELLO,
	SAID_STARTTLS,
	SHAKING
};

/* ---- the client ---- */

void
mw_dialog_starttls(struct mw_dialog *d, struct mw_str rest)
{
	if (!d->o.tls || d->tls_up)
		mw_dialog_junk(d, "502 5.5.1 STARTTLS is not offered");
	else if (rest.n)
		mw_dialog_junk(d, "501 5.5.4 STARTTLS takes no arguments");
	else if (d->open)
		mw_dialog_junk(d, "503 5.5.1 Not within a message");
	else if (d->in_at < d->in.n)
		mw_dialog_bye(d, "421 5.5.0 Nothing may follow STARTTLS");
	else {
		mw_dialog_answered(d, "220 2.0.0 Ready to start TLS");
		d->start_tls = true;
	}
}

void
mw_dialog_tls_up(struct mw_dialog *d, const char *version, const char *cipher,
                 unsigned bits)
{
	d->start_tls = false;
	d->tls_up = true;
	(void)snprintf(d->tls_version, sizeof d->tls_version, "%s", version);
	(void)snprintf(d->tls_cipher, sizeof d->tls_cipher, "%s", cipher);
	(void)snprintf(d->tls_bits, sizeof d->tls_bits, "%u", bits);
	d->base.helo[0] = d->base.login[0] = 0;
	d->chunking = d->hello = false;
	mw_dialog_message_over(d);
	mw_dialog_run(d);
}

bool
mw_dialog_private(const struct mw_dialog *d)
{
	return (d->tls_up || d->o.trusted) && (d->next_tls_up || d->o.next_local);
}

void
mw_dialog_auth(struct mw_dialog *d, struct mw_str line, struct mw_str rest)
{
	struct mw_str mech = rest, initial = MW_STR("");
	if (!mw_dialog_private(d)) {
		mw_dialog_junk(d, "538 5.7.11 AUTH needs an encrypted connection");
		return;
	}
	if (d->open) {
		mw_dialog_junk(d, "503 5.5.1 Not within a message");
		return;
	}
	if (mw_str_cut(rest, ' ', &mech, &initial))
		initial = mw_str_trim(initial);
	d->login_try[0] = 0;
	(void)snprintf(d->mech, sizeof d->mech, "%.*s", (int)MW_MIN(mech.n, (size_t)20),
	               mech.n ? mech.p : "");
	if (initial.n) {
		mw_smtp_login(mech, initial, d->login_try, sizeof d->login_try);
		d->mech[0] = 0;
	}
	mw_dialog_forward(d, line, MW_VERB_AUTH);
}

/* The answer to a 334: passed on as it is. */
void
mw_dialog_auth_line(struct mw_dialog *d, struct mw_str line)
{
	/* The first answer alone: with LOGIN the next one is the password. */
	if (d->mech[0])
		mw_smtp_login(mw_strz(d->mech), line, d->login_try, sizeof d->login_try);
	d->mech[0] = 0;
	mw_dialog_forward(d, line, MW_VERB_AUTH);
}

/* After the reply was passed on to the client. */
void
mw_dialog_auth_reply(struct mw_dialog *d)
{
	d->authing = d->reply_code == 334;
	if (d->reply_code == 235) {
		memcpy(d->base.login, d->login_try, sizeof d->base.login);
		memcpy(d->now.login, d->login_try, sizeof d->now.login);
	} else if (!d->authing && ++d->junk > 20) {
		mw_dialog_bye(d, "421 4.7.0 Too many attempts");
		return;
	}
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
}

/* ---- the next server ---- */

static void
clients_turn(struct mw_dialog *d)
{
	mw_buf_putstr(&d->to_client, mw_buf_str(&d->greeting));
	if (mw_buf_ok(&d->greeting) == 0) /* else mw_dialog_run gives up */
		mw_buf_clear(&d->greeting);
	mw_dialog_wait(d, MW_DI_COMMAND, 1);
}

static void
say_next(struct mw_dialog *d, const char *line, int said)
{
	mw_buf_puts(&d->to_next, line);
	mw_buf_put(&d->to_next, "\r\n", 2);
	d->greeted = said;
	mw_dialog_wait(d, MW_DI_GREETING, 1);
}

/* TLS cannot be had. */
static void
without_tls(struct mw_dialog *d, const char *why)
{
	if (d->o.next_tls == MW_NEXT_TLS_MAY) {
		clients_turn(d);
		return;
	}
	mw_log(MW_LOG_WARN, NULL, "event=nexthop_failed on=%s nexthop=%s reason=\"%s\"",
	       d->o.on, d->o.next, why);
	mw_dialog_bye(d, "421 4.7.4 The next server cannot be reached safely, try again "
	                 "later");
}

void
mw_dialog_greeted(struct mw_dialog *d)
{
	char hello[300], host[256] = "localhost";
	unsigned code = d->reply_code;
	switch (d->greeted) {
	case SAID_NOTHING:
		if (d->again) {
			mw_dialog_keep_greeted(d);
			return;
		}
		mw_buf_putstr(&d->greeting, mw_buf_str(&d->reply));
		if (d->o.keep)
			mw_buf_putstr(&d->kept.greeting, mw_buf_str(&d->reply));
		if (code != 220) {
			mw_buf_putstr(&d->to_client, mw_buf_str(&d->reply));
			mw_dialog_bye(d, NULL);
		} else if (d->o.next_tls == MW_NEXT_TLS_NONE) {
			clients_turn(d);
		} else {
			(void)gethostname(host, sizeof host - 1);
			(void)snprintf(hello, sizeof hello, "%s %s",
			               d->o.lmtp ? "LHLO" : "EHLO", host);
			say_next(d, hello, SAID_HELLO);
		}
		return;
	case SAID_HELLO:
		if (code < 300 &&
		    mw_smtp_offers(mw_buf_str(&d->reply), MW_STR("STARTTLS")))
			say_next(d, "STARTTLS", SAID_STARTTLS);
		else
			without_tls(d, "it offers no STARTTLS");
		return;
	case SAID_STARTTLS:
		if (code != 220) {
			without_tls(d, "it refuses STARTTLS");
			return;
		}
		d->greeted = SHAKING;
		d->start_next_tls = true;
		mw_dialog_wait(d, MW_DI_GREETING, 1);
		return;
	default:
		mw_dialog_bye(d, mw_dialog_lost);
	}
}

void
mw_dialog_next_tls_up(struct mw_dialog *d)
{
	d->start_next_tls = false;
	d->next_tls_up = true;
	clients_turn(d);
	mw_dialog_run(d);
}
