#include "milter/session.h"

#include <stdio.h>

#include "journal/base/log.h"
#include "journal/base/path.h"
#include "journal/base/util.h"
#include "milter/session_int.h"

enum {
	FLUSH_ABOVE = 32 * 1024, /* header bytes collected before the store sees them */
	MACRO_LIMIT = 8 * 1024,  /* longer macro values are ignored */
	ARENA_BASE = 4 << 20,    /* bytes a message may take without its recipients */
	ARENA_PER_RCPT = 1024,
	ONE_SHOT = 128 * 1024, /* as journal/store: smaller content is kept whole */
	ENTRY_COST = 16 * 1024,
	STREAM_COST = 1536 * 1024, /* a compressor with its window */
	CHARGE_STEP = 16 * 1024,   /* counted in steps: many small pieces come */
};

const char *const mw_session_symbols[7] = {
    "j _ v {daemon_name} {client_addr} {client_name} {client_port} {client_ptr}",
    "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    "i",
    "i {msg_id}",
    "i",
};

static const char *const macro_name[MW_N_MACROS] = {
#define X(id, name) [MW_MACRO_##id] = name,
    MW_MACROS(X)
#undef X
};

/* False: no memory for it. */
static bool
set(char **slot, struct mw_str v)
{
	free(*slot);
	*slot = v.n ? strndup(v.p, v.n) : NULL;
	return *slot || v.n == 0;
}

/* What belongs to the connection; a record without it would not be exact (P3). */
static void
set_conn(struct mw_session *s, char **slot, struct mw_str v)
{
	if (!set(slot, v))
		s->lost_conn = true;
}

static void
clear_macros(char **m)
{
	for (int i = 0; i < MW_N_MACROS; i++) {
		free(m[i]);
		m[i] = NULL;
	}
}

static void
forget_macros(struct mw_session *s)
{
	clear_macros(s->macro);
	s->lost = false;
}

struct mw_session *
mw_session_new(struct mw_capture *cap)
{
	struct mw_session *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->cap = cap;
	s->exact = true;
	atomic_fetch_add(&cap->count.sessions, 1);
	atomic_fetch_add(&cap->count.open_sessions, 1);
	return s;
}

static void
uncharge(struct mw_session *s)
{
	atomic_fetch_sub(&s->cap->count.in_flight, s->charged);
	s->charged = 0;
}

void
mw_session_coming(struct mw_session *s, bool on)
{
	if (s->coming != on)
		mw_store_coming(s->cap->store, on ? 1 : -1);
	s->coming = on;
}

/* Back to idle; keeps the connection's facts. */
static void
forget(struct mw_session *s)
{
	mw_session_coming(s, false);
	mw_entry_free(s->entry);
	s->entry = NULL;
	uncharge(s);
	mw_arena_free(s->arena);
	s->arena = NULL;
	mw_settings_unref(s->set);
	s->set = NULL;
	mw_buf_free(&s->text);
	memset(&s->text, 0, sizeof s->text);
	memset(&s->mail, 0, sizeof s->mail);
	mw_scan_free(&s->scan);
	mw_guard_body_free(&s->guard);
	free(s->trail);
	s->trail = NULL;
	s->token[0] = 0;
	s->pass = MW_PASS_NOT;
	s->rcpt_cap = 0;
	s->content = s->body = 0;
	s->too_many = false;
	mw_err_clear(&s->fail);
	s->state = MW_ST_IDLE;
}

void
mw_session_clear(struct mw_session *s)
{
	forget(s);
	forget_macros(s);
}

void
mw_session_delivered(struct mw_session *s)
{
	if (s->returned)
		mw_coming_done(&s->cap->coming, &s->back);
	s->returned = false;
}

/* What was taken for a copy that comes back was not delivered: it will come again. */
static void
give_back(struct mw_session *s)
{
	if (s->returned)
		mw_coming_again(&s->cap->coming, &s->back,
		                s->cap->clock->now_us(s->cap->clock));
	s->returned = false;
}

void
mw_session_reset(struct mw_session *s)
{
	mw_session_abort(s);
	mw_session_coming(s, false);
	forget_macros(s);
	clear_macros(s->conn_macro);
	set_conn(s, &s->client_name, MW_STR(""));
	set_conn(s, &s->client_addr, MW_STR(""));
	set_conn(s, &s->helo, MW_STR(""));
	s->lost_conn = false;
	s->client_port = 0;
	s->family = 0;
}

void
mw_session_free(struct mw_session *s)
{
	if (!s)
		return;
	mw_session_reset(s);
	atomic_fetch_sub(&s->cap->count.open_sessions, 1);
	free(s);
}

void
mw_session_exact(struct mw_session *s, bool exact)
{
	s->exact = exact;
}

bool
mw_session_in_message(const struct mw_session *s)
{
	return s->state != MW_ST_IDLE;
}

bool
mw_session_in_content(const struct mw_session *s)
{
	return s->state >= MW_ST_HEADER;
}

/* ---- connection ---- */

void
mw_session_connect(struct mw_session *s, struct mw_str name, char family, unsigned port,
                   struct mw_str addr)
{
	if (mw_str_istarts(addr, MW_STR("IPv6:")))
		addr = mw_str(addr.p + 5, addr.n - 5);
	s->family = family;
	s->client_port = port;
	set_conn(s, &s->client_name, name);
	set_conn(s, &s->client_addr, addr);
	mw_session_coming(s, true);
}

void
mw_session_helo(struct mw_session *s, struct mw_str helo)
{
	set_conn(s, &s->helo, helo);
}

void
mw_session_macros(struct mw_session *s, char stage)
{
	/* Those of the message before must not be taken for this one's. */
	if (stage == 'M' && s->state != MW_ST_PENDING)
		forget_macros(s);
}

void
mw_session_macro(struct mw_session *s, char stage, struct mw_str name,
                 struct mw_str value)
{
	if (name.n >= 2 && name.p[0] == '{' && name.p[name.n - 1] == '}')
		name = mw_str(name.p + 1, name.n - 2);
	if (value.n > MACRO_LIMIT)
		return;
	for (int i = 0; i < MW_N_MACROS; i++) {
		if (!mw_str_eq(name, mw_strz(macro_name[i])))
			continue;
		if (stage == 'C' || stage == 'H')
			set_conn(s, &s->conn_macro[i], value);
		else if (!set(&s->macro[i], value))
			s->lost = true;
		return;
	}
}

void
mw_session_unknown(struct mw_session *s, struct mw_str line)
{
	(void)s;
	(void)line;
}

/* ---- envelope ---- */

/* Arguments joined by single spaces, in the arena; p NULL when that is full. */
static struct mw_str
join(struct mw_arena *a, const struct mw_str *argv, size_t argc)
{
	size_t n = 0;
	for (size_t i = 0; i < argc; i++)
		n += argv[i].n + 1;
	char *p = mw_arena_alloc(a, n + 1);
	if (!p)
		return mw_str(NULL, 0);
	size_t at = 0;
	for (size_t i = 0; i < argc; i++) {
		if (i)
			p[at++] = ' ';
		if (argv[i].n)
			memcpy(p + at, argv[i].p, argv[i].n);
		at += argv[i].n;
	}
	return mw_str(p, at);
}

static int
envelope_full(struct mw_session *s)
{
	return mw_fail(&s->fail, MW_ENOMEM, "the envelope does not fit in memory");
}

/* The token of the loop guard, in ENVID or our own argument; and whether some message is
 * expected back without one. */
static void
watch_guard(struct mw_session *s)
{
	struct mw_str rest = s->mail.sender_args, word;
	give_back(s);
	if (mw_coming_any(&s->cap->coming, s->cap->clock->now_us(s->cap->clock)) &&
	    (s->trail = malloc(sizeof *s->trail)) != NULL)
		mw_trail_init(s->trail);
	while (rest.n) {
		if (!mw_str_cut(rest, ' ', &word, &rest)) {
			word = rest;
			rest.n = 0;
		}
		size_t n = mw_str_istarts(word, MW_STR("ENVID=")) ? 6
		           : mw_str_istarts(word, MW_STR(MW_GUARD_ARG "="))
		               ? sizeof MW_GUARD_ARG
		               : 0;
		if (!n)
			continue;
		word = mw_str(word.p + n, word.n - n);
		if (mw_guard_looks_like(word) && mw_guard_body_init(&s->guard) == 0)
			(void)snprintf(s->token, sizeof s->token, "%.*s", (int)word.n,
			               word.p);
		return;
	}
}

static struct mw_str
address(struct mw_arena *a, struct mw_str path)
{
	struct mw_str addr = mw_path_addr(path, a);
	return addr.p ? mw_arena_str(a, addr) : addr;
}

int
mw_session_mail(struct mw_session *s, const struct mw_str *argv, size_t argc,
                bool can_refuse, struct mw_answer *ret)
{
	memset(ret, 0, sizeof *ret);
	if (s->state == MW_ST_PENDING)
		return MW_EPROTO;
	if (s->state != MW_ST_IDLE) {
		atomic_fetch_add(&s->cap->count.aborted, 1);
		forget(s);
	}
	s->set = mw_capture_settings(s->cap);
	s->state = MW_ST_ENVELOPE;
	mw_session_coming(s, true);
	const struct mw_conf *conf = s->set->conf;
	s->arena =
	    mw_arena_new(ARENA_BASE + (size_t)conf->recipient_limit * ARENA_PER_RCPT);
	if (!s->arena) {
		(void)envelope_full(s);
	} else {
		s->mail.sender = argc ? address(s->arena, argv[0]) : MW_STR("");
		s->mail.sender_args =
		    argc > 1 ? join(s->arena, argv + 1, argc - 1) : MW_STR("");
		if (!s->mail.sender.p || !s->mail.sender_args.p)
			(void)envelope_full(s);
	}
	mw_scan_begin(&s->scan, s->set->classes);
	watch_guard(s);
	struct mw_err err = s->fail;
	if (!err.code && !s->exact && conf->on_failure == MW_ON_FAILURE_TEMPFAIL)
		(void)mw_fail(&err, MW_EPROTO,
		              "the MTA does not offer exact header bytes "
		              "(milter protocol 6)");
	if (!err.code && can_refuse) {
		int r = mw_store_ready(s->cap->store);
		if (r < 0)
			(void)mw_fail(&err, r, "the journal cannot take mail: %s",
			              mw_err_text(r));
		else
			(void)!mw_policy_load(s->cap, conf, true, &err); /* in err */
	}
	/* What may pass without a record is not refused before that is known. */
	if (err.code && can_refuse && !s->token[0] &&
	    !mw_classes_may_pass(s->set->classes)) {
		mw_policy_early(s->cap, conf, &err, ret);
		if (ret->refuse)
			forget(s);
	} else if (err.code == MW_EPROTO) {
		s->fail = err; /* the journal may be well by then; header bytes not */
	}
	return 0;
}

int
mw_session_rcpt(struct mw_session *s, const struct mw_str *argv, size_t argc,
                bool can_refuse, struct mw_answer *ret)
{
	memset(ret, 0, sizeof *ret);
	if (s->state != MW_ST_ENVELOPE || argc == 0)
		return MW_EPROTO;
	struct mw_str mailer = mw_session_value(s, MW_MACRO_RCPT_MAILER);
	if (mw_session_full(s)) {
		if (can_refuse)
			mw_policy_too_many(ret);
		else
			s->too_many = true;
		return 0;
	}
	struct mw_rcpt r = {0}, *v = NULL;
	if (s->arena && !s->fail.code) {
		r.addr = address(s->arena, argv[0]);
		r.args = argc > 1 ? join(s->arena, argv + 1, argc - 1) : MW_STR("");
		r.mailer = mw_arena_str(s->arena, mailer);
		v = mw_arena_grow(s->arena, s->mail.rcpt, &s->rcpt_cap,
		                  s->mail.n_rcpt + 1, sizeof r);
	}
	if (mw_str_eq(mailer, MW_STR("error")))
		r.flags |= MW_RCPT_REFUSED;
	/* told for this recipient only: the next may come without */
	(void)set(&s->macro[MW_MACRO_RCPT_MAILER], MW_STR("")); /* needs no memory */
	if (!v || !r.addr.p || !r.args.p || !r.mailer.p) {
		if (!s->fail.code)
			(void)envelope_full(s);
		return 0;
	}
	v[s->mail.n_rcpt++] = r;
	s->mail.rcpt = v;
	return 0;
}

int
mw_session_data(struct mw_session *s)
{
	return s->state == MW_ST_ENVELOPE ? 0 : MW_EPROTO;
}

/* ---- content ---- */

/* Memory and files go at once; the reason is told at the end. */
static void
give_up(struct mw_session *s)
{
	mw_entry_free(s->entry);
	s->entry = NULL;
	uncharge(s);
	mw_buf_free(&s->text);
	memset(&s->text, 0, sizeof s->text);
}

/* Memory that a message of that many bytes takes, about: the entry with its digests and
 * ciphers; the content while it is small, else a compressor and what waits to be spilled.
 */
static uint64_t
weight(const struct mw_conf *conf, uint64_t content)
{
	if (content <= ONE_SHOT)
		return ENTRY_COST + 2 * content;
	return ENTRY_COST + STREAM_COST + conf->memory_per_message;
}

/* Takes memory for the content so far; false: there is none left. */
static bool
charge(struct mw_session *s)
{
	const struct mw_conf *conf = s->set->conf;
	uint64_t want = weight(conf, s->content);
	if (want <= s->charged)
		return true;
	want = MW_MAX(want, s->charged + MW_MIN(s->charged, (uint64_t)CHARGE_STEP));
	uint64_t more = want - s->charged;
	uint64_t before = atomic_fetch_add(&s->cap->count.in_flight, more);
	s->charged = want;
	if (before + more <= conf->memory_limit)
		return true;
	(void)mw_fail(&s->fail, MW_EUNAVAIL,
	              "overload: messages in flight take more than memory_limit");
	return false;
}

static void
put(struct mw_session *s, const void *p, size_t n)
{
	if (n == 0)
		return;
	uint64_t limit = s->set->conf->message_limit;
	s->content += n;
	mw_scan_put(&s->scan, p, n);
	if (s->token[0])
		mw_guard_body_put(&s->guard, p, n);
	if (s->trail)
		mw_trail_put(s->trail, p, n);
	if (s->fail.code)
		return;
	if (limit && s->content > limit)
		(void)mw_fail(&s->fail, MW_ELIMIT, "larger than message_limit");
	else if (!charge(s))
		atomic_fetch_add(&s->cap->count.overloaded, 1);
	else if (s->entry ||
	         mw_entry_new(s->cap->store, MW_TYPE_MAIL, &s->entry, &s->fail) == 0)
		if (mw_entry_body(s->entry, p, n, &s->fail) == 0)
			return;
	if (!s->fail.code)
		(void)mw_fail(&s->fail, MW_EIO, "the journal did not take the content");
	give_up(s);
}

static void
flush(struct mw_session *s)
{
	if (!s->fail.code && mw_buf_ok(&s->text) < 0) {
		(void)mw_fail(&s->fail, MW_ENOMEM, "out of memory");
		give_up(s);
	}
	put(s, s->text.p, s->text.n);
	mw_buf_clear(&s->text);
}

/* The value with each LF as CRLF; a CR that is there already is not doubled. */
static void
put_value(struct mw_buf *b, struct mw_str v)
{
	size_t from = 0;
	for (size_t i = 0; i < v.n; i++) {
		const char *lf = memchr(v.p + i, '\n', v.n - i);
		if (!lf)
			break;
		i = (size_t)(lf - v.p);
		if (i && v.p[i - 1] == '\r')
			continue;
		mw_buf_put(b, v.p + from, i - from);
		mw_buf_put(b, "\r\n", 2);
		from = i + 1;
	}
	if (from < v.n)
		mw_buf_put(b, v.p + from, v.n - from);
}

int
mw_session_header(struct mw_session *s, struct mw_str name, struct mw_str value)
{
	if (s->state != MW_ST_ENVELOPE && s->state != MW_ST_HEADER)
		return MW_EPROTO;
	s->state = MW_ST_HEADER;
	mw_buf_putstr(&s->text, name);
	mw_buf_putc(&s->text, ':');
	if (!s->exact && value.n && value.p[0] != ' ' && value.p[0] != '\t')
		mw_buf_putc(&s->text, ' '); /* the one that the MTA took off */
	put_value(&s->text, value);
	mw_buf_put(&s->text, "\r\n", 2);
	if (s->text.n >= FLUSH_ABOVE)
		flush(s);
	return 0;
}

void
mw_session_end_header(struct mw_session *s)
{
	s->state = MW_ST_BODY;
	mw_buf_put(&s->text, "\r\n", 2);
	flush(s);
	mw_buf_free(&s->text);
	memset(&s->text, 0, sizeof s->text);
}

int
mw_session_eoh(struct mw_session *s)
{
	if (s->state != MW_ST_ENVELOPE && s->state != MW_ST_HEADER)
		return MW_EPROTO;
	mw_session_end_header(s);
	return 0;
}

int
mw_session_body(struct mw_session *s, const void *p, size_t n)
{
	if (s->state == MW_ST_ENVELOPE || s->state == MW_ST_HEADER)
		mw_session_end_header(s);
	if (s->state != MW_ST_BODY)
		return MW_EPROTO;
	s->body += n;
	put(s, p, n);
	return 0;
}

int
mw_session_content(struct mw_session *s, const void *p, size_t n)
{
	if (s->state != MW_ST_ENVELOPE && s->state != MW_ST_BODY)
		return MW_EPROTO;
	s->state = MW_ST_BODY;
	if (!s->fail.code && !s->entry &&
	    mw_entry_new(s->cap->store, MW_TYPE_MAIL, &s->entry, &s->fail) < 0)
		give_up(s);
	put(s, p, n);
	return 0;
}

void
mw_session_abort(struct mw_session *s)
{
	mw_assert(s->state != MW_ST_PENDING);
	give_back(s);
	if (s->state == MW_ST_IDLE)
		return;
	atomic_fetch_add(&s->cap->count.aborted, 1);
	mw_log(MW_LOG_DEBUG, s->macro[MW_MACRO_QUEUE_ID], "event=aborted");
	forget(s);
	forget_macros(s);
}
