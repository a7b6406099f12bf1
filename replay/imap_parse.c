#include "replay/imap_parse.h"

#include <string.h>
#include <time.h>

enum {
	MAX_DEPTH = 64
};

static bool
number(struct mw_str s, uint64_t *ret)
{
	uint64_t v = 0;
	if (!s.n || s.n > 19)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	*ret = v;
	return true;
}

bool
mw_imap_number(struct mw_str s, uint64_t *ret)
{
	return number(s, ret);
}

static bool
number32(struct mw_str s, uint32_t *ret)
{
	uint64_t v;
	if (!number(s, &v) || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static void
advance(struct mw_imap_cur *c, size_t n)
{
	c->p += n;
	c->n -= n;
}

static enum mw_imap_kind
quoted(struct mw_imap_cur *c, struct mw_str *ret)
{
	size_t out = 0, i = 1;
	for (; i < c->n && c->p[i] != '"'; i++) {
		if (c->p[i] == '\\' && ++i >= c->n)
			return MW_IMAP_BAD;
		c->p[out++] = c->p[i]; /* the opening quote makes the room */
	}
	if (i >= c->n)
		return MW_IMAP_BAD;
	*ret = mw_str(c->p, out);
	advance(c, i + 1);
	return MW_IMAP_STRING;
}

static enum mw_imap_kind
literal(struct mw_imap_cur *c, struct mw_str *ret)
{
	char *close = memchr(c->p, '}', c->n);
	uint64_t len;
	if (!close)
		return MW_IMAP_BAD;
	size_t at = (size_t)(close - c->p), digits = at - 1;
	if (digits && c->p[at - 1] == '+')
		digits--;
	if (!number(mw_str(c->p + 1, digits), &len))
		return MW_IMAP_BAD;
	at++;
	if (at < c->n && c->p[at] == '\r')
		at++;
	if (at >= c->n || c->p[at] != '\n' || len > c->n - at - 1)
		return MW_IMAP_BAD;
	*ret = mw_str(c->p + at + 1, (size_t)len);
	advance(c, at + 1 + (size_t)len);
	return MW_IMAP_STRING;
}

static enum mw_imap_kind
atom(struct mw_imap_cur *c, struct mw_str *ret)
{
	size_t i = 0;
	int depth = 0;
	for (; i < c->n; i++) {
		char ch = c->p[i];
		if (ch == '[') {
			depth++;
		} else if (ch == ']' && depth) {
			depth--;
		} else if (depth && ch == '"') {
			char *q = memchr(c->p + i + 1, '"', c->n - i - 1);
			if (!q)
				return MW_IMAP_BAD;
			i = (size_t)(q - c->p);
		} else if (!depth && (ch == ' ' || ch == '(' || ch == ')' || ch == '"' ||
		                      ch == '\r' || ch == '\n')) {
			break;
		}
	}
	if (depth || !i)
		return MW_IMAP_BAD;
	*ret = mw_str(c->p, i);
	advance(c, i);
	if (!mw_str_ieq(*ret, MW_STR("NIL")))
		return MW_IMAP_ATOM;
	*ret = mw_str("", 0);
	return MW_IMAP_NIL;
}

enum mw_imap_kind
mw_imap_token(struct mw_imap_cur *c, struct mw_str *ret)
{
	*ret = mw_str("", 0);
	while (c->n && (c->p[0] == ' ' || c->p[0] == '\r' || c->p[0] == '\n'))
		advance(c, 1);
	if (!c->n)
		return MW_IMAP_END;
	switch (c->p[0]) {
	case '(':
		advance(c, 1);
		return MW_IMAP_OPEN;
	case ')':
		advance(c, 1);
		return MW_IMAP_CLOSE;
	case '"':
		return quoted(c, ret);
	case '{':
		return literal(c, ret);
	case '~': /* literal8 */
		if (c->n > 1 && c->p[1] == '{') {
			advance(c, 1);
			return literal(c, ret);
		}
		return atom(c, ret);
	default:
		return atom(c, ret);
	}
}

/* Skips what follows an opening parenthesis, that one's partner included. */
static bool
skip_list(struct mw_imap_cur *c)
{
	int depth = 1;
	struct mw_str s;
	while (depth) {
		switch (mw_imap_token(c, &s)) {
		case MW_IMAP_OPEN:
			if (++depth > MAX_DEPTH)
				return false;
			break;
		case MW_IMAP_CLOSE:
			depth--;
			break;
		case MW_IMAP_END:
		case MW_IMAP_BAD:
			return false;
		case MW_IMAP_ATOM:
		case MW_IMAP_STRING:
		case MW_IMAP_NIL:
			break;
		}
	}
	return true;
}

bool
mw_imap_skip(struct mw_imap_cur *c)
{
	struct mw_str s;
	switch (mw_imap_token(c, &s)) {
	case MW_IMAP_OPEN:
		return skip_list(c);
	case MW_IMAP_ATOM:
	case MW_IMAP_STRING:
	case MW_IMAP_NIL:
		return true;
	default:
		return false;
	}
}

static bool
expect_atom(struct mw_imap_cur *c, const char *word)
{
	struct mw_str s;
	return mw_imap_token(c, &s) == MW_IMAP_ATOM && mw_str_ieq(s, mw_strz(word));
}

static bool
fetch_item(struct mw_imap_cur *c, struct mw_str name, struct mw_imap_fetch *f)
{
	struct mw_str v;
	bool header = mw_str_istarts(name, MW_STR("BODY[HEADER"));
	bool body = mw_str_ieq(name, MW_STR("BODY[]"));
	if (mw_str_ieq(name, MW_STR("UID")))
		return mw_imap_token(c, &v) == MW_IMAP_ATOM && number32(v, &f->uid);
	if (mw_str_ieq(name, MW_STR("RFC822.SIZE"))) {
		f->has_size = true;
		return mw_imap_token(c, &v) == MW_IMAP_ATOM && number(v, &f->size);
	}
	if (mw_str_ieq(name, MW_STR("INTERNALDATE"))) {
		if (mw_imap_token(c, &v) != MW_IMAP_STRING)
			return false;
		(void)mw_imap_parse_date(v, &f->date_us); /* a broken date is no date */
		return true;
	}
	if (mw_str_ieq(name, MW_STR("X-MAILBOX"))) {
		enum mw_imap_kind k = mw_imap_token(c, &f->mailbox);
		return k == MW_IMAP_ATOM || k == MW_IMAP_STRING;
	}
	if (!header && !body)
		return mw_imap_skip(c);
	enum mw_imap_kind k = mw_imap_token(c, &v);
	if (k != MW_IMAP_STRING && k != MW_IMAP_NIL)
		return false;
	if (header && !f->has_header) {
		f->header = v;
		f->has_header = true;
	}
	if (body && k == MW_IMAP_STRING) {
		f->body = v;
		f->has_body = true;
	}
	return true;
}

bool
mw_imap_parse_fetch(struct mw_imap_cur c, struct mw_imap_fetch *ret)
{
	struct mw_imap_fetch f = {.date_us = INT64_MIN};
	struct mw_str s;
	if (!expect_atom(&c, "*") || mw_imap_token(&c, &s) != MW_IMAP_ATOM ||
	    !number(s, &f.seq) || !expect_atom(&c, "FETCH") ||
	    mw_imap_token(&c, &s) != MW_IMAP_OPEN)
		return false;
	for (;;) {
		enum mw_imap_kind k = mw_imap_token(&c, &s);
		if (k == MW_IMAP_CLOSE)
			break;
		if (k != MW_IMAP_ATOM || !fetch_item(&c, s, &f))
			return false;
	}
	*ret = f;
	return true;
}

static unsigned
folder_flag(struct mw_str s)
{
	static const struct {
		const char *name;
		unsigned flag;
	} flags[] = {
	    {"\\Noselect", MW_FOLDER_NOSELECT}, {"\\NonExistent", MW_FOLDER_NOSELECT},
	    {"\\Sent", MW_FOLDER_SENT},         {"\\All", MW_FOLDER_VIRTUAL},
	    {"\\Flagged", MW_FOLDER_VIRTUAL},   {"\\Important", MW_FOLDER_VIRTUAL},
	    {"\\Trash", MW_FOLDER_LEAVE},       {"\\Junk", MW_FOLDER_LEAVE},
	    {"\\Drafts", MW_FOLDER_LEAVE},
	};
	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		if (mw_str_ieq(s, mw_strz(flags[i].name)))
			return flags[i].flag;
	return 0;
}

bool
mw_imap_parse_list(struct mw_imap_cur c, struct mw_imap_list *ret)
{
	struct mw_imap_list l = {0};
	struct mw_str s;
	enum mw_imap_kind k;
	if (!expect_atom(&c, "*") || !expect_atom(&c, "LIST") ||
	    mw_imap_token(&c, &s) != MW_IMAP_OPEN)
		return false;
	while ((k = mw_imap_token(&c, &s)) == MW_IMAP_ATOM)
		l.flags |= folder_flag(s);
	if (k != MW_IMAP_CLOSE)
		return false;
	k = mw_imap_token(&c, &s);
	if (k != MW_IMAP_NIL && (k != MW_IMAP_STRING || s.n > 1))
		return false;
	l.delim = k == MW_IMAP_STRING && s.n ? s.p[0] : '\0';
	k = mw_imap_token(&c, &l.name);
	if (k != MW_IMAP_STRING && k != MW_IMAP_ATOM)
		return false;
	*ret = l;
	return true;
}

bool
mw_imap_parse_namespace(struct mw_imap_cur c, struct mw_str *ret_prefix, char *ret_delim)
{
	struct mw_str prefix, s;
	if (!expect_atom(&c, "*") || !expect_atom(&c, "NAMESPACE") ||
	    mw_imap_token(&c, &s) != MW_IMAP_OPEN ||
	    mw_imap_token(&c, &s) != MW_IMAP_OPEN ||
	    mw_imap_token(&c, &prefix) != MW_IMAP_STRING)
		return false;
	enum mw_imap_kind k = mw_imap_token(&c, &s);
	if (k != MW_IMAP_NIL && (k != MW_IMAP_STRING || s.n > 1))
		return false;
	*ret_prefix = prefix;
	*ret_delim = k == MW_IMAP_STRING && s.n ? s.p[0] : '\0';
	return true;
}

/* One "((prefix delim …) …)" or NIL; false: unreadable. */
static bool
foreign_group(struct mw_imap_cur *c, struct mw_buf *out)
{
	struct mw_str s;
	enum mw_imap_kind k = mw_imap_token(c, &s);
	if (k != MW_IMAP_OPEN)
		return k == MW_IMAP_NIL;
	while ((k = mw_imap_token(c, &s)) == MW_IMAP_OPEN) {
		if (mw_imap_token(c, &s) != MW_IMAP_STRING)
			return false;
		mw_buf_putstr(out, s);
		mw_buf_putc(out, '\0');
		for (unsigned depth = 1; depth;) {
			k = mw_imap_token(c, &s);
			if (k == MW_IMAP_END || k == MW_IMAP_BAD)
				return false;
			depth += k == MW_IMAP_OPEN;
			depth -= k == MW_IMAP_CLOSE;
		}
	}
	return k == MW_IMAP_CLOSE;
}

void
mw_imap_parse_foreign(struct mw_imap_cur c, struct mw_buf *out)
{
	mw_buf_clear(out);
	if (expect_atom(&c, "*") && expect_atom(&c, "NAMESPACE") && mw_imap_skip(&c) &&
	    foreign_group(&c, out))
		(void)foreign_group(&c, out); /* what can be read of it is enough */
}

bool
mw_imap_parse_status(struct mw_str s, struct mw_imap_status *ret)
{
	struct mw_imap_status st = {mw_str("", 0), mw_str("", 0), mw_str("", 0),
	                            mw_str("", 0)};
	s = mw_str_trim(s);
	if (!mw_str_cut(s, ' ', &st.word, &st.text))
		st.word = s;
	static const char *const words[] = {"OK", "NO", "BAD", "BYE", "PREAUTH"};
	bool known = false;
	for (size_t i = 0; i < 5; i++)
		known = known || mw_str_ieq(st.word, mw_strz(words[i]));
	if (!known)
		return false;
	if (st.text.n && st.text.p[0] == '[') {
		struct mw_str in, after;
		if (mw_str_cut(mw_str(st.text.p + 1, st.text.n - 1), ']', &in, &after)) {
			st.text = mw_str_trim(after);
			if (!mw_str_cut(in, ' ', &st.code, &st.args))
				st.code = in;
		}
	}
	*ret = st;
	return true;
}

bool
mw_imap_parse_counts(struct mw_imap_cur c, struct mw_imap_counts *ret)
{
	struct mw_imap_counts r = {0};
	struct mw_str s, v;
	enum mw_imap_kind k;
	if (!expect_atom(&c, "*") || !expect_atom(&c, "STATUS"))
		return false;
	k = mw_imap_token(&c, &r.name);
	if ((k != MW_IMAP_STRING && k != MW_IMAP_ATOM) ||
	    mw_imap_token(&c, &s) != MW_IMAP_OPEN)
		return false;
	while ((k = mw_imap_token(&c, &s)) == MW_IMAP_ATOM) {
		uint64_t n;
		if (mw_imap_token(&c, &v) != MW_IMAP_ATOM || !number(v, &n))
			return false;
		if (mw_str_ieq(s, MW_STR("MESSAGES")))
			r.messages = n;
		else if (mw_str_ieq(s, MW_STR("UIDNEXT")))
			r.uidnext = n;
		else if (mw_str_ieq(s, MW_STR("UIDVALIDITY")))
			r.uidvalidity = n;
		else if (mw_str_ieq(s, MW_STR("HIGHESTMODSEQ")))
			r.modseq = n;
	}
	if (k != MW_IMAP_CLOSE)
		return false;
	*ret = r;
	return true;
}

bool
mw_imap_set_next(struct mw_str *rest, uint32_t *ret_first, uint32_t *ret_last)
{
	struct mw_str range, after = mw_str("", 0), a, b;
	uint32_t first, last;
	if (!rest->n)
		return false;
	if (!mw_str_cut(*rest, ',', &range, &after))
		range = *rest;
	if (!mw_str_cut(range, ':', &a, &b))
		a = b = range;
	if (!number32(a, &first) || !number32(b, &last))
		return false;
	*rest = after;
	*ret_first = first < last ? first : last;
	*ret_last = first < last ? last : first;
	return true;
}

uint32_t
mw_imap_set_at(struct mw_str set, uint64_t i)
{
	uint32_t a, b;
	while (mw_imap_set_next(&set, &a, &b)) {
		if (i <= b - a)
			return a + (uint32_t)i;
		i -= (uint64_t)(b - a) + 1;
	}
	return 0;
}

uint64_t
mw_imap_set_count(struct mw_str set)
{
	uint32_t a, b;
	uint64_t n = 0;
	while (mw_imap_set_next(&set, &a, &b))
		n += (uint64_t)(b - a) + 1;
	return n;
}
