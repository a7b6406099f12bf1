#include "replay/imap.h"

#include "replay/imap_login.h"

#include "journal/base/util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LINE_MAX_BYTES = 1024 * 1024,
	RESP_MAX = 4 * 1024 * 1024,
	LITERAL_KEEP = 256 * 1024,
	COMMAND_MS = 30 * 60 * 1000 /* a command may take this long in all */
};

static const uint64_t literal_max = (uint64_t)1 << 40;

static int
send_cmd(struct mw_imap *c, struct mw_err *err, const char *fmt, va_list ap)
{
	MW_BUF_AUTO b = {0};
	char tag[24];
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	if (n < 0 || mw_buf_reserve(&b, (size_t)n + 1)) {
		va_end(again);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	b.n = (size_t)vsnprintf((char *)b.p, (size_t)n + 1, fmt, again);
	va_end(again);
	(void)snprintf(tag, sizeof tag, "m%u ", ++c->sent);
	int r = mw_net_send(c->net, tag, strlen(tag), err);
	if (!r)
		r = mw_net_send(c->net, b.p, b.n, err);
	return r ? r : mw_net_send(c->net, "\r\n", 2, err);
}

int
mw_imap_cmd(struct mw_imap *c, struct mw_err *err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int r = send_cmd(c, err, fmt, ap);
	va_end(ap);
	return r;
}

/* "{123}" or "{123+}" at the end of a line. */
static bool
ends_in_literal(struct mw_str s, size_t *ret_at, uint64_t *ret_len)
{
	const char *open = s.n ? memrchr(s.p, '{', s.n) : NULL;
	if (!open || s.p[s.n - 1] != '}')
		return false;
	uint64_t v = 0;
	const char *p = open + 1, *end = s.p + s.n - 1;
	if (p == end)
		return false;
	for (; p < end && *p >= '0' && *p <= '9'; p++)
		v = v < literal_max ? v * 10 + (uint64_t)(*p - '0') : v;
	if (p < end && !(*p == '+' && p + 1 == end))
		return false;
	*ret_at = (size_t)(open - s.p);
	*ret_len = v;
	return true;
}

static int
keep_bytes(void *arg, const void *p, size_t n)
{
	struct mw_buf *b = arg;
	mw_buf_put(b, p, n);
	return 0;
}

static int
read_literal(struct mw_imap *c, struct mw_str line, size_t at, uint64_t len,
             struct mw_err *err)
{
	static const char item[] = "BODY[] ";
	const size_t k = sizeof item - 1;
	bool stream = c->body && at >= k &&
	              mw_str_ieq(mw_str(line.p + at - k, k), MW_STR("BODY[] "));
	uint64_t keep = stream ? 0 : MW_MIN(len, (uint64_t)c->literal_keep);
	mw_buf_put(&c->resp, line.p, at);
	mw_buf_printf(&c->resp, "{%llu}\r\n", (unsigned long long)keep);
	if (len >= literal_max)
		return mw_fail(err, MW_ELIMIT, "%s announces a literal of absurd size",
		               mw_net_peer(c->net));
	if (stream)
		return mw_net_read(c->net, len, c->body, c->body_arg, err);
	int r = mw_net_read(c->net, keep, keep_bytes, &c->resp, err);
	return r ? r : mw_net_read(c->net, len - keep, NULL, NULL, err);
}

/* One response with its literals into c->resp. */
static int
read_response(struct mw_imap *c, struct mw_err *err)
{
	struct mw_str line;
	size_t at;
	uint64_t len;
	mw_buf_clear(&c->resp);
	c->resp.failed = false;
	for (;;) {
		int r = mw_net_line(c->net, LINE_MAX_BYTES, &line, err);
		if (r) {
			if (r == MW_EUNAVAIL && c->bye[0])
				return mw_fail(err, r, "%s closed the connection: %s",
				               mw_net_peer(c->net), c->bye);
			return r;
		}
		if (!ends_in_literal(line, &at, &len))
			break;
		r = read_literal(c, line, at, len, err);
		if (r)
			return r;
		if (c->resp.n > RESP_MAX)
			break;
	}
	mw_buf_putstr(&c->resp, line);
	if (mw_buf_ok(&c->resp) || c->resp.n > RESP_MAX + LINE_MAX_BYTES)
		return mw_fail(err, MW_ELIMIT, "%s sends a response beyond all bounds",
		               mw_net_peer(c->net));
	return 0;
}

static enum mw_imap_no
meaning(struct mw_str code)
{
	static const struct {
		const char *code;
		enum mw_imap_no no;
	} map[] = {
	    {"OVERQUOTA", MW_NO_OVERQUOTA},
	    {"TRYCREATE", MW_NO_TRYCREATE},
	    {"LIMIT", MW_NO_LIMIT},
	    {"TOOBIG", MW_NO_LIMIT},
	    {"MESSAGELIMIT", MW_NO_LIMIT},
	    {"NONEXISTENT", MW_NO_NONEXISTENT},
	    {"ALREADYEXISTS", MW_NO_ALREADYEXISTS},
	    {"NOPERM", MW_NO_NOPERM},
	    {"INUSE", MW_NO_INUSE},
	};
	for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
		if (mw_str_ieq(code, mw_strz(map[i].code)))
			return map[i].no;
	return MW_NO_OTHER;
}

static void
copy_text(char *out, size_t room, struct mw_str s)
{
	size_t n = MW_MIN(s.n, room - 1);
	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)s.p[i] < 32 || s.p[i] == 127 ? '?' : s.p[i];
	out[n] = '\0';
}

static void
read_caps(struct mw_imap *c, struct mw_str s)
{
	static const struct {
		const char *name;
		unsigned cap;
	} map[] = {
	    {"MULTIAPPEND", MW_CAP_MULTIAPPEND},
	    {"LITERAL+", MW_CAP_LITERAL_PLUS},
	    {"LITERAL-", MW_CAP_LITERAL_MINUS},
	    {"UIDPLUS", MW_CAP_UIDPLUS},
	    {"MOVE", MW_CAP_MOVE},
	    {"NAMESPACE", MW_CAP_NAMESPACE},
	    {"SPECIAL-USE", MW_CAP_SPECIAL_USE},
	    {"LIST-EXTENDED", MW_CAP_LIST_EXTENDED},
	    {"FILTER=SIEVE", MW_CAP_FILTER_SIEVE},
	    {"CONDSTORE", MW_CAP_CONDSTORE},
	    {"ID", MW_CAP_ID},
	    {"QRESYNC", MW_CAP_CONDSTORE},
	    {"IMAP4rev2", MW_CAP_UIDPLUS | MW_CAP_MOVE | MW_CAP_NAMESPACE |
	                      MW_CAP_SPECIAL_USE | MW_CAP_LITERAL_MINUS |
	                      MW_CAP_LIST_EXTENDED},
	};
	struct mw_str word, rest = mw_str_trim(s);
	c->caps = 0;
	while (rest.n) {
		if (!mw_str_cut(rest, ' ', &word, &rest)) {
			word = rest;
			rest = mw_str("", 0);
		}
		for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
			if (mw_str_ieq(word, mw_strz(map[i].name)))
				c->caps |= map[i].cap;
		char n[24];
		if (mw_str_istarts(word, MW_STR("APPENDLIMIT="))) {
			copy_text(n, sizeof n, mw_str(word.p + 12, word.n - 12));
			c->append_limit = strtoull(n, NULL, 10);
		}
		struct mw_str name, value;
		if (mw_str_cut(word, '=', &name, &value) &&
		    (mw_str_ieq(name, MW_STR("MESSAGELIMIT")) ||
		     mw_str_ieq(name, MW_STR("SAVELIMIT"))))
			c->message_limit = mw_imap_set_at(value, 0);
	}
	/* What it moved, such a server could not tell. */
	if (!(c->caps & MW_CAP_UIDPLUS))
		c->caps &= ~(unsigned)MW_CAP_MOVE;
}

static int
proto(struct mw_imap *c, struct mw_err *err)
{
	return mw_fail(err, MW_EPROTO, "%s does not speak IMAP as agreed",
	               mw_net_peer(c->net));
}

/* "[MESSAGELIMIT 1000 23221]": no more than that many, and the lowest UID dealt with; of
 * a command that was refused for it, only the first. */
static void
note_cut(struct mw_imap *c, const struct mw_imap_status *st, bool refused)
{
	struct mw_str most, uid;
	if (!mw_str_ieq(st->code, MW_STR("MESSAGELIMIT")))
		return;
	uint32_t n = mw_imap_set_at(st->args, 0);
	if (n && (!c->message_limit || n < c->message_limit))
		c->message_limit = n;
	if (refused)
		return;
	c->cut = mw_str_cut(st->args, ' ', &most, &uid) ? mw_imap_set_at(uid, 0) : 1;
	c->cut = c->cut ? c->cut : 1;
}

/* A tagged line: is it the oldest command's answer? */
static int
tagged(struct mw_imap *c, struct mw_str s, struct mw_err *err)
{
	char want[24];
	struct mw_str tag, rest;
	struct mw_imap_status st;
	(void)snprintf(want, sizeof want, "m%u", c->answered + 1);
	if (c->answered >= c->sent || !mw_str_cut(s, ' ', &tag, &rest) ||
	    !mw_str_eq(tag, mw_strz(want)) || !mw_imap_parse_status(rest, &st))
		return proto(c, err);
	c->answered++;
	c->last.ok = mw_str_ieq(st.word, MW_STR("OK"));
	c->last.no = meaning(st.code);
	copy_text(c->last.code, sizeof c->last.code, st.code);
	copy_text(c->last.text, sizeof c->last.text, st.text.n ? st.text : rest);
	mw_buf_clear(&c->last.args);
	mw_buf_putstr(&c->last.args, st.args);
	if (mw_str_ieq(st.code, MW_STR("CAPABILITY")))
		read_caps(c, st.args);
	note_cut(c, &st, !c->last.ok);
	return 0;
}

/* Untagged things that the client itself wants to know. */
static void
untagged(struct mw_imap *c, struct mw_str s)
{
	struct mw_imap_status st;
	s = mw_str(s.p + 2, s.n - 2);
	if (mw_str_istarts(s, MW_STR("CAPABILITY ")))
		read_caps(c, mw_str(s.p + 11, s.n - 11));
	else if (mw_str_istarts(s, MW_STR("BYE")) && mw_imap_parse_status(s, &st))
		copy_text(c->bye, sizeof c->bye, st.text);
	else if (mw_str_istarts(s, MW_STR("NO [")) && mw_imap_parse_status(s, &st))
		note_cut(c, &st, false);
}

int
mw_imap_wait(struct mw_imap *c, mw_imap_on *on, void *arg, struct mw_err *err)
{
	mw_net_deadline(c->net, c->limit_ms ? c->limit_ms : COMMAND_MS);
	c->cut = 0;
	for (;;) {
		int r = read_response(c, err);
		if (r)
			return r;
		struct mw_str s = mw_buf_str(&c->resp);
		if (mw_str_starts(s, MW_STR("* "))) {
			untagged(c, s);
			struct mw_imap_cur cur = {(char *)c->resp.p, c->resp.n};
			r = on ? on(arg, cur) : 0;
			if (r < 0)
				return err && err->code == r
				           ? r
				           : mw_fail(err, r, "%s", mw_err_text(r));
			continue;
		}
		if (mw_str_starts(s, MW_STR("+")))
			return proto(c, err);
		r = tagged(c, s, err);
		if (r)
			return r;
		if (c->last.ok)
			return 0;
		return mw_fail(err, MW_EREFUSED, "%s", c->last.text);
	}
}

int
mw_imap_continue(struct mw_imap *c, struct mw_err *err)
{
	mw_net_deadline(c->net, c->limit_ms ? c->limit_ms : COMMAND_MS);
	for (;;) {
		int r = read_response(c, err);
		if (r)
			return r;
		struct mw_str s = mw_buf_str(&c->resp);
		if (mw_str_starts(s, MW_STR("+")))
			return 1;
		if (mw_str_starts(s, MW_STR("* "))) {
			untagged(c, s);
			continue;
		}
		r = tagged(c, s, err);
		if (r)
			return r;
		/* An OK before the literal was asked for is no answer at all. */
		return c->last.ok ? proto(c, err) : 0;
	}
}

int
mw_imap_do(struct mw_imap *c, struct mw_err *err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int r = send_cmd(c, err, fmt, ap);
	va_end(ap);
	return r ? r : mw_imap_wait(c, NULL, NULL, err);
}

int
mw_imap_go_on(struct mw_imap *c, uint32_t *above, struct mw_err *err)
{
	if (!c->cut)
		return 0;
	if (c->cut == 1 || c->cut >= *above)
		return mw_fail(
		    err, MW_EPROTO,
		    "%s does not deal with all messages of a command, and does "
		    "not say where it stopped",
		    mw_net_peer(c->net));
	*above = c->cut;
	return 1;
}

int
mw_imap_refused(struct mw_imap *c, struct mw_err *err, const char *what)
{
	const char *lb = c->last.code[0] ? "[" : "", *rb = c->last.code[0] ? "] " : "";
	return mw_fail(err, MW_EREFUSED, "cannot %s: server said: %s%s%s%s", what, lb,
	               c->last.code, rb, c->last.text);
}

static int
on_namespace(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap *c = arg;
	struct mw_str prefix;
	char delim;
	/* Reading a quoted string moves it: what is read twice is copied. */
	MW_AUTOFREE char *copy = malloc(cur.n ? cur.n : 1);
	if (!copy)
		return MW_ENOMEM;
	memcpy(copy, cur.p, cur.n);
	if (!mw_imap_parse_namespace(cur, &prefix, &delim))
		return 0;
	free(c->prefix);
	c->prefix = strndup(prefix.p, prefix.n);
	c->delim = delim;
	mw_imap_parse_foreign((struct mw_imap_cur){copy, cur.n}, &c->foreign);
	return c->prefix && !mw_buf_ok(&c->foreign) ? 0 : MW_ENOMEM;
}

bool
mw_imap_foreign(const struct mw_imap *c, const char *name)
{
	for (size_t i = 0; i < c->foreign.n;) {
		const char *p = (const char *)c->foreign.p + i;
		size_t n = strlen(p);
		/* One that holds the user's own namespace says nothing. */
		if (n && strncmp(name, p, n) == 0 && strncmp(c->prefix, p, n) != 0)
			return true;
		i += n + 1;
	}
	return false;
}

static int
on_root(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap *c = arg;
	struct mw_imap_list l;
	if (mw_imap_parse_list(cur, &l))
		c->delim = l.delim;
	return 0;
}

int
mw_imap_on_id(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap *c = arg;
	struct mw_str s = mw_str(cur.p + 2, cur.n - 2);
	c->dovecot = c->dovecot || (mw_str_istarts(s, MW_STR("ID (")) &&
	                            memmem(s.p, s.n, "\"Dovecot\"", 9));
	return 0;
}

static int
connect_to(const struct mw_net_opts *o, struct mw_imap **ret, struct mw_err *err)
{
	struct mw_imap *c = calloc(1, sizeof *c);
	if (!c || !(c->prefix = strdup(""))) {
		free(c);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	c->literal_keep = LITERAL_KEEP;
	int r = mw_imap_log_in(c, o, err);
	if (r > 0)
		r = mw_net_open(o, &c->net, err);
	if (r) {
		mw_imap_close(c);
		return r;
	}
	/* What is not answered for is put once more: it must not come by itself as well.
	 */
	mw_net_cut_at_end(c->net, true);
	*ret = c;
	return 0;
}

/* One round trip where the server knows NAMESPACE; one that does not says BAD. What it
 * can do it may have said when it answered the login. */
static int
greet_send(struct mw_imap *c, bool namespace, struct mw_err *err)
{
	bool ask = !c->caps;
	int r = ask ? mw_imap_cmd(c, err, "CAPABILITY") : 0;
	if (!r && namespace)
		r = mw_imap_cmd(c, err, "NAMESPACE");
	return r || !ask ? r : mw_imap_wait(c, NULL, NULL, err);
}

static int
open_to(const struct mw_net_opts *o, bool namespace, struct mw_imap **ret,
        struct mw_err *err)
{
	struct mw_imap *c = NULL;
	int r = connect_to(o, &c, err);
	if (r)
		return r;
	r = greet_send(c, namespace, err);
	if (r)
		mw_imap_close(c);
	else
		*ret = c;
	return r;
}

int
mw_imap_open_bare(const struct mw_net_opts *o, struct mw_imap **ret, struct mw_err *err)
{
	return open_to(o, false, ret, err);
}

int
mw_imap_open_send(const struct mw_net_opts *o, struct mw_imap **ret, struct mw_err *err)
{
	return open_to(o, true, ret, err);
}

int
mw_imap_open_wait(struct mw_imap *c, struct mw_err *err)
{
	int r = mw_imap_wait(c, on_namespace, c, err);
	if (r == MW_EREFUSED && !(c->caps & MW_CAP_NAMESPACE)) {
		r = mw_imap_cmd(c, err, "LIST \"\" \"\"");
		if (!r)
			r = mw_imap_wait(c, on_root, c, err);
	}
	return r == MW_EREFUSED ? 0 : r; /* then: no prefix, flat */
}

int
mw_imap_open(const struct mw_net_opts *o, struct mw_imap **ret, struct mw_err *err)
{
	struct mw_imap *c = NULL;
	int r = mw_imap_open_send(o, &c, err);
	if (!r && (r = mw_imap_open_wait(c, err)) != 0)
		mw_imap_close(c);
	if (!r)
		*ret = c;
	return r;
}

void
mw_imap_close(struct mw_imap *c)
{
	if (!c)
		return;
	struct mw_err ignored; /* a good-bye that does not get through changes nothing */
	if (c->net && c->sent == c->answered && !mw_imap_cmd(c, &ignored, "LOGOUT") &&
	    !mw_net_flush(c->net, &ignored))
		mw_net_cut_at_end(c->net, false);
	mw_net_close(c->net);
	mw_buf_free(&c->resp);
	mw_buf_free(&c->last.args);
	mw_buf_free(&c->foreign);
	free(c->prefix);
	free(c);
}
