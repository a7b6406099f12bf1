#include "milter/proto.h"

#include <stdio.h>

#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"

/* The protocol's own names and numbers are in libmilter's mfdef.h, which no file but
 * mfi.c may include; these are the ones used here. */
enum {
	CMD_ABORT = 'A',
	CMD_BODY = 'B',
	CMD_CONNECT = 'C',
	CMD_MACRO = 'D',
	CMD_EOM = 'E',
	CMD_HELO = 'H',
	CMD_QUIT_NC = 'K',
	CMD_HEADER = 'L',
	CMD_MAIL = 'M',
	CMD_EOH = 'N',
	CMD_OPTNEG = 'O',
	CMD_QUIT = 'Q',
	CMD_RCPT = 'R',
	CMD_DATA = 'T',
	CMD_UNKNOWN = 'U',

	REPLY_CONTINUE = 'c',
	REPLY_CODE = 'y',
	REPLY_PROGRESS = 'p',
};

enum {
	ACT_SETSYMLIST = 0x100,

	/* no commands of a kind at all: we want them all */
	STEP_NR_HDR = 0x80,
	STEP_NR_MAIL = 0x4000,
	STEP_RCPT_REJ = 0x800,
	STEP_NR_CONN = 0x1000,
	STEP_NR_HELO = 0x2000,
	STEP_NR_RCPT = 0x8000,
	STEP_NR_DATA = 0x10000,
	STEP_NR_UNKN = 0x20000,
	STEP_NR_EOH = 0x40000,
	STEP_NR_BODY = 0x80000,
	STEP_LEADSPC = 0x100000,

	STEPS_WANTED = STEP_NR_HDR | STEP_RCPT_REJ | STEP_NR_CONN | STEP_NR_HELO |
	               STEP_NR_RCPT | STEP_NR_DATA | STEP_NR_UNKN | STEP_NR_EOH |
	               STEP_NR_BODY | STEP_LEADSPC,
	VERSION = 6,
	OLDEST = 2,
	ARGS_MAX = 64,
	IN_KEEP = 4096, /* an input buffer beyond this is freed when empty */
};

void
mw_proto_init(struct mw_proto *p, struct mw_capture *cap, void (*done)(void *arg),
              void *done_arg)
{
	memset(p, 0, sizeof *p);
	p->cap = cap;
	p->done = done;
	p->done_arg = done_arg;
}

void
mw_proto_done(struct mw_proto *p)
{
	mw_assert(!p->pending);
	mw_session_free(p->session);
	mw_buf_free(&p->in);
	mw_buf_free(&p->out);
	p->session = NULL;
}

static void
put_be32(struct mw_buf *b, uint32_t v)
{
	uint8_t x[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
	                (uint8_t)v};
	mw_buf_put(b, x, 4);
}

static uint32_t
get_be32(const char *s)
{
	const uint8_t *p = (const uint8_t *)s;
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void
reply(struct mw_proto *p, char cmd, struct mw_str data)
{
	put_be32(&p->out, (uint32_t)data.n + 1);
	mw_buf_putc(&p->out, cmd);
	mw_buf_putstr(&p->out, data);
}

static void
reply_answer(struct mw_proto *p, const struct mw_answer *a)
{
	char text[160];
	if (!a->refuse) {
		reply(p, REPLY_CONTINUE, MW_STR(""));
		return;
	}
	int n = snprintf(text, sizeof text, "%s %s %s", a->code, a->xcode, a->text);
	reply(p, REPLY_CODE, mw_str(text, (size_t)n + 1)); /* with its NUL */
}

/* A plain CONTINUE, unless it was agreed that this step gets no reply. */
static void
go_on(struct mw_proto *p, uint32_t no_reply)
{
	if (!(p->steps & no_reply))
		reply(p, REPLY_CONTINUE, MW_STR(""));
}

void
mw_proto_progress(struct mw_proto *p)
{
	reply(p, REPLY_PROGRESS, MW_STR(""));
}

/* ---- reading packets ---- */

/* Takes a NUL-terminated string off *s; one without its NUL reaches to the end. */
static bool
next_string(struct mw_str *s, struct mw_str *ret)
{
	if (s->n == 0)
		return false;
	if (!mw_str_cut(*s, 0, ret, s)) {
		*ret = *s;
		*s = mw_str(s->p + s->n, 0);
	}
	return true;
}

static size_t
strings(struct mw_str s, struct mw_str *v, size_t max)
{
	size_t n = 0;
	while (n < max && next_string(&s, &v[n]))
		n++;
	return n;
}

static int
bad(struct mw_err *err, const char *what)
{
	return mw_fail(err, MW_EPROTO, "milter protocol: %s", what);
}

static int
on_negotiate(struct mw_proto *p, struct mw_str s, struct mw_err *err)
{
	if (s.n < 12)
		return bad(err, "short option negotiation");
	uint32_t version = get_be32(s.p), actions = get_be32(s.p + 4),
	         steps = get_be32(s.p + 8);
	if (version < OLDEST)
		return bad(err, "version is too old");
	if (p->session) /* negotiating twice: start over */
		mw_session_reset(p->session);
	else
		p->session = mw_session_new(p->cap);
	if (!p->session)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	bool symbols = version >= VERSION && actions & ACT_SETSYMLIST;
	p->steps = steps & STEPS_WANTED;
	/* MAIL keeps its reply where a sick journal can refuse before the data is sent;
	 * one that falls sick later refuses at the end. */
	if (p->steps & STEP_LEADSPC && mw_policy_well(p->cap))
		p->steps |= steps & STEP_NR_MAIL;
	mw_session_exact(p->session, p->steps & STEP_LEADSPC);
	MW_BUF_AUTO b = {0};
	put_be32(&b, MW_MIN(version, (uint32_t)VERSION));
	put_be32(&b, symbols ? ACT_SETSYMLIST : 0);
	put_be32(&b, p->steps);
	for (uint32_t i = 0; symbols && i < MW_COUNT(mw_session_symbols); i++) {
		put_be32(&b, i);
		mw_buf_puts(&b, mw_session_symbols[i]);
		mw_buf_putc(&b, 0);
	}
	if (mw_buf_ok(&b) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	reply(p, CMD_OPTNEG, mw_buf_str(&b));
	return 0;
}

static void
on_macros(struct mw_proto *p, struct mw_str s)
{
	struct mw_str name, value;
	if (s.n == 0)
		return; /* not even the stage: nothing is told */
	char stage = s.p[0];
	s = mw_str(s.p + 1, s.n - 1);
	mw_session_macros(p->session, stage);
	while (next_string(&s, &name)) {
		if (!next_string(&s, &value))
			value = MW_STR("");
		mw_session_macro(p->session, stage, name, value);
	}
}

static void
on_connect(struct mw_proto *p, struct mw_str s)
{
	struct mw_str name = MW_STR(""), addr = MW_STR("");
	unsigned port = 0;
	char family = 'U';
	(void)next_string(&s, &name); /* an empty packet tells nothing, harmless */
	if (s.n) {
		family = s.p[0];
		s = mw_str(s.p + 1, s.n - 1);
	}
	if (family != 'U' && s.n >= 2) {
		port = (unsigned)(uint8_t)s.p[0] << 8 | (uint8_t)s.p[1];
		s = mw_str(s.p + 2, s.n - 2);
		(void)next_string(&s, &addr);
	}
	mw_session_connect(p->session, name, family, port, addr);
	go_on(p, STEP_NR_CONN);
}

static int
on_mail(struct mw_proto *p, struct mw_str s)
{
	struct mw_str v[ARGS_MAX];
	struct mw_answer a;
	bool can_refuse = !(p->steps & STEP_NR_MAIL);
	int r = mw_session_mail(p->session, v, strings(s, v, ARGS_MAX), can_refuse, &a);
	if (r == 0 && can_refuse)
		reply_answer(p, &a);
	return r;
}

static int
on_rcpt(struct mw_proto *p, struct mw_str s)
{
	struct mw_str v[ARGS_MAX];
	struct mw_answer a;
	bool can_refuse = !(p->steps & STEP_NR_RCPT);
	int r = mw_session_rcpt(p->session, v, strings(s, v, ARGS_MAX), can_refuse, &a);
	if (r == 0 && can_refuse)
		reply_answer(p, &a);
	return r;
}

static int
on_header(struct mw_proto *p, struct mw_str s, struct mw_err *err)
{
	struct mw_str name, value = MW_STR("");
	if (!next_string(&s, &name) || name.n == 0)
		return bad(err, "a header without a name");
	(void)next_string(&s, &value); /* absent: an empty value */
	if (s.n)
		return bad(err, "bytes after a header value");
	int r = mw_session_header(p->session, name, value);
	if (r == 0)
		go_on(p, STEP_NR_HDR);
	return r;
}

static int
on_eom(struct mw_proto *p, struct mw_str s)
{
	struct mw_answer a;
	int r = s.n ? mw_session_body(p->session, s.p, s.n) : 0;
	if (r < 0)
		return r;
	p->pending = true; /* before the callback can come */
	r = mw_session_eom(p->session, p->done, p->done_arg, &a);
	if (r <= 0)
		p->pending = false;
	if (r == 0) {
		p->served = true;
		reply_answer(p, &a);
	}
	return r < 0 ? r : 0;
}

static int
on_step(struct mw_proto *p, int r, uint32_t no_reply)
{
	if (r == 0)
		go_on(p, no_reply);
	return r;
}

static int
on_command(struct mw_proto *p, char cmd, struct mw_str s, struct mw_err *err)
{
	struct mw_str one = MW_STR("");
	switch (cmd) {
	case CMD_MACRO:
		on_macros(p, s);
		return 0;
	case CMD_CONNECT:
		on_connect(p, s);
		return 0;
	case CMD_HELO:
		(void)next_string(&s, &one); /* absent: empty */
		mw_session_helo(p->session, one);
		return on_step(p, 0, STEP_NR_HELO);
	case CMD_MAIL:
		return on_mail(p, s);
	case CMD_RCPT:
		return on_rcpt(p, s);
	case CMD_DATA:
		return on_step(p, mw_session_data(p->session), STEP_NR_DATA);
	case CMD_HEADER:
		return on_header(p, s, err);
	case CMD_EOH:
		return on_step(p, mw_session_eoh(p->session), STEP_NR_EOH);
	case CMD_BODY:
		return on_step(p, mw_session_body(p->session, s.p, s.n), STEP_NR_BODY);
	case CMD_EOM:
		return on_eom(p, s);
	case CMD_ABORT: /* Postfix sends it after each message, even twice */
		mw_session_abort(p->session);
		return 0;
	case CMD_UNKNOWN:
		(void)next_string(&s, &one); /* absent: empty */
		mw_session_unknown(p->session, one);
		return on_step(p, 0, STEP_NR_UNKN);
	case CMD_QUIT_NC:
		mw_session_reset(p->session);
		return 0;
	default:
		return bad(err, "unknown command");
	}
}

static int
on_packet(struct mw_proto *p, char cmd, struct mw_str s, struct mw_err *err)
{
	int r;
	if (cmd == CMD_QUIT) {
		p->closing = true;
		return 0;
	}
	if (cmd == CMD_OPTNEG)
		r = on_negotiate(p, s, err);
	else if (!p->session)
		r = bad(err, "a command before negotiation");
	else
		r = on_command(p, cmd, s, err);
	if (r == MW_EPROTO && err && !err->code)
		(void)mw_fail(err, r, "milter protocol: command 0x%02x out of sequence",
		              (unsigned)(uint8_t)cmd);
	return r;
}

/* Handles whole packets; *ret_used says how many bytes they had. */
static int
run(struct mw_proto *p, struct mw_str s, size_t *ret_used, struct mw_err *err)
{
	size_t at = 0;
	int r = 0;
	while (r == 0 && !p->pending && !p->closing && s.n - at >= 4) {
		uint32_t n = get_be32(s.p + at);
		if (n == 0)
			r = bad(err, "an empty packet");
		else if (n > MW_PACKET_MAX)
			r = bad(err, "a packet beyond the size limit");
		else if (s.n - at - 4 < n)
			break;
		else
			r = on_packet(p, s.p[at + 4], mw_str(s.p + at + 5, n - 1), err);
		at += 4 + (r == 0 ? n : 0);
	}
	*ret_used = MW_MIN(at, s.n);
	if (r == 0 && mw_buf_ok(&p->out) < 0)
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	return r;
}

static int
run_buffered(struct mw_proto *p, struct mw_err *err)
{
	size_t used;
	int r = run(p, mw_buf_str(&p->in), &used, err);
	mw_buf_drop(&p->in, used);
	if (p->in.n == 0 && p->in.cap > IN_KEEP) {
		mw_buf_free(&p->in);
		memset(&p->in, 0, sizeof p->in);
	}
	return r;
}

int
mw_proto_input(struct mw_proto *p, const void *bytes, size_t n, struct mw_err *err)
{
	struct mw_err own = {0};
	if (!err)
		err = &own;
	size_t used = 0;
	int r = 0;
	if (p->in.n == 0) { /* the usual case: no copy */
		r = run(p, mw_str(bytes, n), &used, err);
		if (r < 0 || p->closing)
			return r;
	}
	if (used == n)
		return 0;
	bool fresh = p->in.n == 0;
	mw_buf_put(&p->in, (const char *)bytes + used, n - used);
	if (mw_buf_ok(&p->in) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return fresh || p->pending ? 0 : run_buffered(p, err);
}

int
mw_proto_resume(struct mw_proto *p, struct mw_err *err)
{
	struct mw_err own = {0};
	struct mw_answer a;
	p->pending = false;
	mw_session_finish(p->session, &a);
	p->served = true;
	reply_answer(p, &a);
	return run_buffered(p, err ? err : &own);
}
