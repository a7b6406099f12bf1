#include "milter/smtp.h"

#include "journal/base/util.h"
#include "journal/store/guard.h"

#include <string.h>

static const struct {
	const char *name;
	enum mw_verb verb;
} verbs[] = {
    {"HELO", MW_VERB_HELO},       {"EHLO", MW_VERB_EHLO},
    {"LHLO", MW_VERB_LHLO},       {"MAIL", MW_VERB_MAIL},
    {"RCPT", MW_VERB_RCPT},       {"DATA", MW_VERB_DATA},
    {"BDAT", MW_VERB_BDAT},       {"RSET", MW_VERB_RSET},
    {"NOOP", MW_VERB_NOOP},       {"VRFY", MW_VERB_VRFY},
    {"EXPN", MW_VERB_EXPN},       {"HELP", MW_VERB_HELP},
    {"QUIT", MW_VERB_QUIT},       {"XFORWARD", MW_VERB_XFORWARD},
    {"XCLIENT", MW_VERB_XCLIENT}, {"STARTTLS", MW_VERB_STARTTLS},
    {"AUTH", MW_VERB_AUTH},
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct mw_str
skip(struct mw_str s, size_t n)
{
	return mw_str(s.p + n, s.n - n);
}

/* Length of the first word. */
static size_t
word(struct mw_str s)
{
	size_t n = 0;
	while (n < s.n && !is_blank(s.p[n]))
		n++;
	return n;
}

static struct mw_str
skip_blanks(struct mw_str s)
{
	while (s.n && is_blank(*s.p))
		s = skip(s, 1);
	return s;
}

enum mw_verb
mw_smtp_verb(struct mw_str line, struct mw_str *ret_rest)
{
	size_t n = word(line);
	struct mw_str name = mw_str(line.p, n);
	*ret_rest = mw_str_trim(skip(line, n));
	for (size_t i = 0; i < MW_COUNT(verbs); i++)
		if (mw_str_ieq(name, mw_strz(verbs[i].name)))
			return verbs[i].verb;
	return MW_VERB_OTHER;
}

/* Length of <path>, quoted strings and escapes in it respected; 0: not closed. */
static size_t
bracketed(struct mw_str s)
{
	bool quoted = false;
	for (size_t i = 1; i < s.n; i++) {
		if (s.p[i] == '\\')
			i++;
		else if (s.p[i] == '"')
			quoted = !quoted;
		else if (s.p[i] == '>' && !quoted)
			return i + 1;
	}
	return 0;
}

size_t
mw_smtp_path(struct mw_str rest, struct mw_str keyword, struct mw_str v[MW_SMTP_ARGS])
{
	if (!mw_str_istarts(rest, keyword))
		return 0;
	rest = skip_blanks(skip(rest, keyword.n));
	size_t n = rest.n && *rest.p == '<' ? bracketed(rest) : word(rest), argc = 0;
	if (n == 0 || (n < rest.n && !is_blank(rest.p[n])))
		return 0;
	v[argc++] = mw_str(rest.p, n);
	for (rest = skip_blanks(skip(rest, n)); rest.n;
	     rest = skip_blanks(skip(rest, n))) {
		if (argc == MW_SMTP_ARGS)
			return 0;
		n = word(rest);
		v[argc++] = mw_str(rest.p, n);
	}
	return argc;
}

bool
mw_smtp_attribute(struct mw_str *rest, struct mw_str *ret_name, struct mw_str *ret_value)
{
	*rest = skip_blanks(*rest);
	size_t n = word(*rest);
	if (n == 0)
		return false;
	struct mw_str w = mw_str(rest->p, n);
	*rest = skip(*rest, n);
	*ret_name = w;
	*ret_value = MW_STR("");
	(void)mw_str_cut(w, '=', ret_name, ret_value); /* without '=': no value */
	return true;
}

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void
mw_smtp_xtext(struct mw_str value, char *out, size_t n)
{
	size_t at = 0;
	if (mw_str_ieq(value, MW_STR("[UNAVAILABLE]")) ||
	    mw_str_ieq(value, MW_STR("[TEMPUNAVAIL]")))
		value.n = 0;
	for (size_t i = 0; i < value.n && at + 1 < n; i++) {
		int c = (unsigned char)value.p[i];
		if (c == '+' && i + 2 < value.n && hex(value.p[i + 1]) >= 0 &&
		    hex(value.p[i + 2]) >= 0) {
			c = hex(value.p[i + 1]) * 16 + hex(value.p[i + 2]);
			i += 2;
		}
		out[at++] = c < ' ' || c == 0x7f ? '?' : (char)c;
	}
	out[at] = 0;
}

unsigned
mw_smtp_reply(struct mw_str line, bool *ret_last)
{
	unsigned code = 0;
	if (line.n < 3 || memchr(line.p, '\r', line.n) || memchr(line.p, 0, line.n))
		return 0;
	for (size_t i = 0; i < 3; i++) {
		if (line.p[i] < '0' || line.p[i] > '9')
			return 0;
		code = code * 10 + (unsigned)(line.p[i] - '0');
	}
	if (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-')
		return 0;
	*ret_last = line.n == 3 || line.p[3] == ' ';
	return code >= 200 && code < 600 ? code : 0;
}

/* "SIZE 1000" with the smaller of the two limits. */
static void
offer_size(struct mw_str arg, uint64_t limit, struct mw_buf *out)
{
	uint64_t theirs = 0;
	for (size_t i = 0; i < arg.n && arg.p[i] >= '0' && arg.p[i] <= '9'; i++) {
		if (theirs > UINT64_MAX / 10 - 10)
			break;
		theirs = theirs * 10 + (uint64_t)(arg.p[i] - '0');
	}
	if (limit && (theirs == 0 || limit < theirs))
		mw_buf_printf(out, "SIZE %llu", (unsigned long long)limit);
	else if (theirs)
		mw_buf_printf(out, "SIZE %llu", (unsigned long long)theirs);
	else
		mw_buf_puts(out, "SIZE");
}

/* True if the extension was appended to out, without code and line end. */
static bool
offer(struct mw_str ext, const struct mw_offer *o, struct mw_buf *out)
{
	static const char *const plain[] = {"PIPELINING", "8BITMIME",
	                                    "SMTPUTF8",   "DSN",
	                                    "CHUNKING",   "ENHANCEDSTATUSCODES"};
	struct mw_str name = mw_str(ext.p, word(ext));
	if (mw_str_ieq(name, MW_STR("SIZE"))) {
		offer_size(mw_str_trim(skip(ext, name.n)), o->limit, out);
		return true;
	}
	bool good = o->trusted && (mw_str_ieq(name, MW_STR("XFORWARD")) ||
	                           mw_str_ieq(name, MW_STR("XCLIENT")));
	good |= o->auth && mw_str_ieq(name, MW_STR("AUTH"));
	for (size_t i = 0; i < MW_COUNT(plain); i++)
		good |= mw_str_ieq(name, mw_strz(plain[i]));
	if (good)
		mw_buf_putstr(out, ext);
	return good;
}

void
mw_smtp_offer(struct mw_str reply, const struct mw_offer *o, struct mw_buf *out)
{
	size_t last = out->n;
	bool first = true, dsn = mw_smtp_offers(reply, MW_STR("DSN"));
	while (reply.n) {
		struct mw_str line = reply, rest = MW_STR("");
		(void)mw_str_cut(reply, '\n', &line,
		                 &rest); /* the last has its end too */
		reply = rest;
		line = mw_str_trim(line);
		size_t before = out->n;
		mw_buf_put(out, "250-", 4);
		struct mw_str text = line.n > 4 ? skip(line, 4) : MW_STR("");
		if (first)
			mw_buf_putstr(out, text);
		else if (!offer(text, o, out)) {
			out->n = before;
			continue;
		}
		mw_buf_put(out, "\r\n", 2);
		last = before;
		first = false;
	}
	if (!first && o->starttls) {
		last = out->n;
		mw_buf_puts(out, "250-STARTTLS\r\n");
	}
	if (!first && o->guard && !dsn) {
		last = out->n;
		mw_buf_puts(out, "250-" MW_GUARD_ARG "\r\n");
	}
	if (!first && mw_buf_ok(out) == 0)
		out->p[last + 3] = ' ';
}

bool
mw_smtp_offers(struct mw_str reply, struct mw_str name)
{
	struct mw_str line;
	for (bool first = true; reply.n; first = false) {
		struct mw_str rest = MW_STR("");
		line = reply;
		(void)mw_str_cut(reply, '\n', &line, &rest);
		reply = rest;
		line = mw_str_trim(line);
		struct mw_str text = line.n > 4 ? skip(line, 4) : MW_STR("");
		if (!first && mw_str_ieq(mw_str(text.p, word(text)), name))
			return true;
	}
	return false;
}

/* ---- AUTH ---- */

/* At most n bytes; what is no base64 ends it. */
static size_t
from_base64(struct mw_str s, char *out, size_t n)
{
	static const char set[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t v = 0;
	size_t k = 0, bits = 0;
	for (size_t i = 0; i < s.n && k < n; i++) {
		const char *c = s.p[i] ? strchr(set, s.p[i]) : NULL;
		if (!c)
			break;
		v = v << 6 | (uint32_t)(c - set);
		bits += 6;
		if (bits >= 8)
			out[k++] = (char)(v >> (bits -= 8) & 0xff);
	}
	return k;
}

void
mw_smtp_login(struct mw_str mech, struct mw_str base64, char *out, size_t n)
{
	char text[1024];
	size_t k = from_base64(base64, text, sizeof text);
	struct mw_str s = mw_str(text, k), zid, id, rest;
	*out = 0;
	if (mw_str_ieq(mech, MW_STR("LOGIN")))
		id = s;
	else if (!mw_str_ieq(mech, MW_STR("PLAIN")) || !mw_str_cut(s, 0, &zid, &rest) ||
	         !mw_str_cut(rest, 0, &id, &rest))
		id = MW_STR("");
	size_t at = 0;
	for (; at < id.n && at < n - 1; at++)
		out[at] =
		    (unsigned char)id.p[at] < 32 || id.p[at] == 127 ? '?' : id.p[at];
	out[at] = 0;
	explicit_bzero(text, sizeof text);
}

/* ---- Received ---- */

/* Length of the first header field, its folded lines included; 0: none. */
static size_t
field(struct mw_str head)
{
	for (size_t i = 0; i + 1 < head.n; i++)
		if (head.p[i] == '\n' && !is_blank(head.p[i + 1]))
			return i + 1;
	return 0;
}

struct mw_str
mw_smtp_received_id(struct mw_str head)
{
	static const char *const before[] = {"Return-Path:", "X-Original-To:",
	                                     "Delivered-To:"};
	size_t n;
	bool skipped;
	do {
		n = field(head);
		skipped = false;
		for (size_t i = 0; n && i < MW_COUNT(before); i++)
			skipped |= mw_str_istarts(head, mw_strz(before[i]));
		if (skipped)
			head = skip(head, n);
	} while (skipped);
	if (n == 0 || !mw_str_istarts(head, MW_STR("Received:")))
		return MW_STR("");
	unsigned depth = 0;
	bool next = false;
	for (size_t i = 9; i < n;) {
		char c = head.p[i];
		if (c == '(' || c == ')' || c == ' ' || c == '\t' || c == '\r' ||
		    c == '\n') {
			depth = c == '('            ? depth + 1
			        : c == ')' && depth ? depth - 1
			                            : depth;
			i++;
			continue;
		}
		size_t from = i;
		while (i < n && !memchr("() \t\r\n;", head.p[i], 7))
			i++;
		struct mw_str w = mw_str(head.p + from, i - from);
		if (depth == 0 && next && w.n)
			return w;
		if (depth == 0 && i < n && head.p[i] == ';')
			break;
		next = depth == 0 && mw_str_ieq(w, MW_STR("id"));
		if (i < n && head.p[i] == ';')
			i++;
	}
	return MW_STR("");
}
