/* setup_probe.c - one test message through the mail server, looked for in the journal. */
#include "journal/base/util.h"
#include "replay/setup.h"
#include "replay/smtp.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	WAIT_S = 30,
	WAIT_MOST_S = 3600,
	ADDRESS_MOST = 320, /* 64 of the local part, 255 of the domain, the @ */
	LOOK_FIRST_MS = 10,
	LOOK_MOST_MS = 250,
	DAMAGES = 64, /* in one look */
	TOKEN = 8,
	MEMORY = 64 << 20
};

struct mw_probe {
	struct mw_cli *cli;
	const char *address;
	char host[256];
	unsigned port;
	int wait_s;
	char message_id[400];
	uint64_t *next; /* by journal: the first record that is not looked at yet */
	struct mw_arena *arena;
	/* What came of it. */
	int64_t answered_us;
	char answer[400], queue_id[64];
	struct mw_record rec; /* of the journal `found` */
	size_t found;         /* n_journals: none */
	char rec_queue_id[64];
	struct mw_err damage; /* met on the way */
};

/* ---- options ---- */

/* "HOST:PORT", "[::1]:PORT" */
static int
take_via(struct mw_probe *p, const char *via, struct mw_err *err)
{
	const char *colon = strrchr(via, ':');
	size_t n = colon ? (size_t)(colon - via) : 0;
	char *end = NULL;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
	bool six = n > 2 && via[0] == '[' && via[n - 1] == ']';
	const char *host = six ? via + 1 : via;
	n -= six ? 2 : 0;
	if (!n || n >= sizeof p->host || !end || *end || port < 1 || port > 65535 ||
	    colon[1] < '0' || colon[1] > '9' || memchr(host, '/', n) ||
	    memchr(host, '@', n) || (!six && memchr(host, ':', n)))
		return mw_fail(err, MW_EUSAGE, "--via: '%s' is not HOST:PORT", via);
	memcpy(p->host, host, n);
	p->host[n] = '\0';
	p->port = (unsigned)port;
	return 0;
}

static int
take_address(struct mw_probe *p, const char *address, struct mw_err *err)
{
	const char *at = strrchr(address, '@');
	bool good = at && at > address && at[1] && strlen(address) <= ADDRESS_MOST;
	for (const char *c = address; good && *c; c++)
		good = (unsigned char)*c > 32 && *c != 127 && *c != '<' && *c != '>';
	if (!good)
		return mw_fail(err, MW_EUSAGE,
		               "--send-test: '%s' is not an address such as "
		               "postmaster@example.org",
		               address);
	p->address = address;
	return 0;
}

static int
take_wait(struct mw_probe *p, const char *text, struct mw_err *err)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	if (*end || *text < '0' || *text > '9' || n < 1 || n > WAIT_MOST_S)
		return mw_fail(err, MW_EUSAGE,
		               "--wait: '%s' is not a number of seconds from 1 to %d",
		               text, WAIT_MOST_S);
	p->wait_s = (int)n;
	return 0;
}

/* "<mailwal-test.RANDOM@HOST>" */
static void
name_message(struct mw_probe *p)
{
	uint8_t id[MW_ID_LEN];
	char text[MW_ID_TEXT + 1], host[256] = "";
	mw_id_new(id);
	mw_id_text(text, id);
	if (gethostname(host, sizeof host - 1) < 0 || !host[0])
		(void)snprintf(host, sizeof host, "localhost");
	for (char *c = host; *c; c++)
		if (!(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') &&
		    !(*c >= '0' && *c <= '9') && *c != '.')
			*c = '-';
	(void)snprintf(p->message_id, sizeof p->message_id, "<mailwal-test.%s@%s>", text,
	               host);
}

/* Opens the journals and notes where they end: nothing older is looked at. */
static int
open_journals(struct mw_probe *p, struct mw_err *err)
{
	struct mw_cli *cli = p->cli;
	for (size_t k = 0; k < cli->n_journals; k++) {
		struct mw_record last;
		int r = cli->stores[k] ? 0 : mw_cli_open(cli, k, &cli->stores[k], err);
		if (r == 0)
			r = mw_store_last(cli->stores[k], UINT64_MAX, &last, err);
		if (r < 0) {
			r = mw_err_prefix(err, "--send-test looks into the journal");
			return r;
		}
		p->next[k] = r > 0 ? last.seq + 1 : 1;
	}
	return 0;
}

void
mw_probe_free(struct mw_probe *p)
{
	if (!p)
		return;
	mw_arena_free(p->arena);
	free(p->next);
	free(p);
}

static int
take_options(struct mw_probe *p, const struct mw_probe_opts *o, struct mw_err *err)
{
	int r = take_address(p, o->address, err);
	if (r == 0)
		r = take_via(p, o->via ? o->via : "127.0.0.1:25", err);
	return r == 0 && o->wait ? take_wait(p, o->wait, err) : r;
}

int
mw_probe_check(const struct mw_probe_opts *o, struct mw_err *err)
{
	struct mw_probe p = {.cli = NULL};
	return take_options(&p, o, err);
}

int
mw_probe_new(struct mw_cli *cli, const struct mw_probe_opts *o, struct mw_probe **ret,
             struct mw_err *err)
{
	struct mw_probe *p = calloc(1, sizeof *p);
	int r = p ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0) {
		p->cli = cli;
		p->wait_s = WAIT_S;
		p->found = cli->n_journals;
		p->next = calloc(cli->n_journals + 1, sizeof *p->next);
		p->arena = mw_arena_new(MEMORY);
		if (!p->next || !p->arena)
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	}
	if (r == 0)
		r = take_options(p, o, err);
	if (r == 0)
		r = open_journals(p, err);
	if (r < 0) {
		mw_probe_free(p);
		return r;
	}
	name_message(p);
	*ret = p;
	return 0;
}

/* ---- sending ---- */

static int
give(void *arg, int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	const struct mw_buf *text = arg;
	(void)err;
	return sink(sarg, text->p, text->n);
}

static int
before_end(void *arg, struct mw_err *err)
{
	(void)arg, (void)err;
	return 0;
}

static int
compose(const struct mw_probe *p, struct mw_buf *out, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	char date[40];
	mw_time_imap(date, sizeof date, clock->now_us(clock));
	date[2] = date[6] = ' '; /* 22-Nov-2026 */
	mw_buf_printf(out,
	              "From: <%s>\r\n"
	              "To: <%s>\r\n"
	              "Subject: mailwal test message, can be deleted\r\n"
	              "Date: %s\r\n"
	              "Message-ID: %s\r\n"
	              "Auto-Submitted: auto-generated\r\n"
	              "MIME-Version: 1.0\r\n"
	              "Content-Type: text/plain; charset=us-ascii\r\n"
	              "\r\n"
	              "'mailwal setup --check --send-test' sent this message to see "
	              "whether mail\r\n"
	              "through this server gets into the journal. It can be deleted.\r\n",
	              p->address, p->address, date, p->message_id);
	return mw_buf_ok(out) < 0 ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}

/* The ID in "250 2.0.0 Ok: queued as ID" (Postfix) or "250 2.0.0 ID Message accepted for
 * delivery" (Sendmail); empty where the server says none. */
static void
find_queue_id(const char *answer, char *out, size_t n)
{
	const char *at = strstr(answer, "queued as ");
	const char *after = strstr(answer, " Message accepted");
	size_t len = 0;
	if (at) {
		at += strlen("queued as ");
		len = strcspn(at, " ;,)");
	} else if (after) {
		for (at = after; at > answer && at[-1] != ' '; at--)
			len++;
	}
	if (len >= n)
		len = 0;
	memcpy(out, len ? at : "", len);
	out[len] = '\0';
}

static int
refused(const struct mw_smtp *c, struct mw_err *err)
{
	mw_fail(err, MW_EUNAVAIL, "the test message was refused by %s: %s",
	        mw_net_peer(c->net), c->text);
	if (c->code < 500)
		return mw_err_hint(err, "does mailwald run, and can the mail server "
		                        "reach it? (mailwal status)");
	return MW_EUNAVAIL;
}

static int
transact(struct mw_probe *p, struct mw_smtp *c, struct mw_buf *text, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	struct mw_str a = mw_strz(p->address);
	struct mw_smtp_envelope e = {.sender = a, .rcpt = a, .size = text->n};
	for (size_t i = 0; i < a.n; i++)
		e.eight = e.eight || (unsigned char)a.p[i] > 127;
	const char *unfit = mw_smtp_unfit(c, &e);
	if (unfit)
		return mw_fail(err, MW_EUNAVAIL, "cannot send to %s by %s: %s",
		               p->address, mw_net_peer(c->net), unfit);
	int r = mw_smtp_envelope(c, &e, err);
	if (r < 0)
		return r;
	if (r == 0)
		return refused(c, err);
	struct mw_smtp_content m = {text->n, give, before_end, text};
	r = mw_smtp_content(c, &m, err);
	p->answered_us = clock->now_us(clock);
	if (r < 0)
		return r;
	if (c->code != 250)
		return refused(c, err);
	(void)snprintf(p->answer, sizeof p->answer, "%s", c->text);
	find_queue_id(p->answer, p->queue_id, sizeof p->queue_id);
	return 0;
}

/* 0: the server said 250. */
static int
send_it(struct mw_probe *p, struct mw_err *err)
{
	MW_BUF_AUTO text = {0};
	struct mw_smtp *c = NULL;
	/* Nothing in it is secret: TLS where the server has it, whatever certificate. */
	const struct mw_net_opts o = {.kind = MW_NET_SMTP,
	                              .host = p->host,
	                              .port = p->port,
	                              .insecure = true,
	                              .stopped = mw_cli_stopped};
	int r = compose(p, &text, err);
	if (r == 0)
		r = mw_smtp_open(&o, false, &c, err);
	if (r == 0)
		r = transact(p, c, &text, err);
	mw_smtp_close(c);
	return r;
}

/* ---- looking ---- */

/* Is it the record of our message? Tokens are readable without a key; where there is one
 * the metadata must agree. 1, 0, negative. */
static int
is_ours(struct mw_probe *p, struct mw_store *st, const struct mw_record *rec,
        struct mw_err *err)
{
	MW_BUF_AUTO tokens = {0};
	uint8_t token[TOKEN];
	struct mw_mail m;
	bool has = false;
	if (rec->type != MW_TYPE_MAIL)
		return 0;
	int r = mw_record_tokens(st, rec, &tokens, err);
	if (r < 0)
		return r;
	mw_store_token(st, MW_KEY_MESSAGE_ID, mw_strz(p->message_id), token);
	for (size_t i = 0; i + TOKEN <= tokens.n; i += TOKEN)
		has = has || memcmp((const char *)tokens.p + i, token, TOKEN) == 0;
	if (!has)
		return 0;
	mw_arena_reset(p->arena);
	r = mw_record_mail(st, rec, p->arena, &m, err);
	if (r == MW_EKEY) {
		mw_err_clear(err);
		return 1;
	}
	if (r < 0)
		return r;
	(void)snprintf(p->rec_queue_id, sizeof p->rec_queue_id, "%.*s", (int)m.queue_id.n,
	               m.queue_id.n ? m.queue_id.p : "");
	return mw_str_eq(m.message_id, mw_strz(p->message_id));
}

/* What came into journal k since the last look: 1 it is there, 0 it is not. */
static int
look(struct mw_probe *p, size_t k, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_store *st = p->cli->stores[k];
	int damages = 0, r = mw_cursor_new(st, p->next[k], &c, err);
	while (r >= 0) {
		struct mw_record rec = {0};
		struct mw_err e = {0};
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		int one = mw_cursor_next(c, &rec, &e);
		if (one == 0)
			return 0;
		int ours = one > 0 ? is_ours(p, st, &rec, &e) : one;
		if (ours > 0) {
			p->rec = rec;
			p->found = k;
			return 1;
		}
		if (ours == MW_ENOMEM)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		if (ours < 0) { /* looked at again the next time */
			p->damage = e;
			if (++damages >= DAMAGES)
				return 0;
		} else if (!damages) {
			p->next[k] = rec.seq + 1;
		}
	}
	return r;
}

/* Until it is there or the time is over. 1, 0, negative. */
static int
look_for_it(struct mw_probe *p, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	int64_t end = clock->mono_us(clock) + p->wait_s * INT64_C(1000000);
	for (int ms = LOOK_FIRST_MS;; ms = MW_MIN(ms * 2, (int)LOOK_MOST_MS)) {
		bool last = clock->mono_us(clock) >= end;
		p->damage = (struct mw_err){0};
		for (size_t k = 0; k < p->cli->n_journals; k++) {
			int r = look(p, k, err);
			if (r != 0)
				return r;
		}
		if (last)
			return 0;
		(void)poll(NULL, 0, ms);
	}
}

/* ---- telling ---- */

static void
tell_json(const struct mw_probe *p, bool accepted)
{
	bool journaled = p->found < p->cli->n_journals;
	char id[MW_ID_TEXT + 1] = "";
	json_t *o = json_object();
	if (journaled)
		mw_id_text(id, p->rec.id);
	(void)json_object_set_new(o, "message_type", json_string("test_message"));
	(void)json_object_set_new(o, "accepted", json_boolean(accepted));
	(void)json_object_set_new(o, "journaled", json_boolean(journaled));
	(void)json_object_set_new(o, "before_answer",
	                          json_boolean(journaled &&
	                                       p->rec.time_us <= p->answered_us));
	(void)json_object_set_new(o, "id", journaled ? json_string(id) : json_null());
	(void)json_object_set_new(o, "queue_id", mw_json_str(mw_strz(p->queue_id)));
	(void)json_object_set_new(o, "record_queue_id",
	                          mw_json_str(mw_strz(p->rec_queue_id)));
	(void)json_object_set_new(o, "message_id", mw_json_str(mw_strz(p->message_id)));
	(void)json_object_set_new(o, "answer", mw_json_str(mw_strz(p->answer)));
	mw_cli_json(o);
}

static void
tell_hole(const struct mw_probe *p)
{
	MW_BUF_AUTO answer = {0};
	mw_text_safe(mw_strz(p->answer), false, &answer);
	printf("HOLE: the test message was accepted by the server");
	if (p->queue_id[0])
		printf(" with queue ID %s", p->queue_id);
	else
		printf(" (%s)", mw_buf_cstr(&answer));
	printf(" but is not in the journal within %d s\n", p->wait_s);
	printf("      is journal_dir mailwald's own, and does no capture section leave "
	       "%s out?\n",
	       p->address);
}

static void
tell_found(const struct mw_probe *p)
{
	char id[MW_ID_TEXT + 1];
	int64_t late_us = p->rec.time_us - p->answered_us;
	const char *own = p->rec_queue_id[0] ? p->rec_queue_id : p->queue_id;
	mw_id_text(id, p->rec.id);
	if (p->cli->quiet)
		return;
	if (late_us <= 0)
		printf("The test message was journaled before the answer: record %s", id);
	else
		printf("The test message was journaled %.3f s after the answer, on its "
		       "way on: record %s",
		       (double)late_us / 1e6, id);
	printf("%s%s\n", own[0] ? ", queue ID " : "", own);
	if (p->rec_queue_id[0] && p->queue_id[0] &&
	    strcmp(p->rec_queue_id, p->queue_id) != 0)
		printf("      the server that answered has it as %s: another one "
		       "journals\n",
		       p->queue_id);
}

int
mw_probe_run(struct mw_probe *p, bool *ret_hole)
{
	struct mw_err err = {0};
	bool json = p->cli->json;
	*ret_hole = false;
	fflush(stdout);
	int r = send_it(p, &err);
	bool accepted = r == 0;
	if (accepted)
		r = look_for_it(p, &err);
	if (json && r != MW_ECANCEL)
		tell_json(p, accepted);
	if (r < 0)
		return mw_cli_error(p->cli, &err);
	if (r > 0) {
		if (!json)
			tell_found(p);
		return 0;
	}
	*ret_hole = true;
	if (p->damage.code)
		(void)mw_cli_error(p->cli, &p->damage);
	if (!json)
		tell_hole(p);
	return 1;
}
