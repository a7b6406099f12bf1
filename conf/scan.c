/* scan.c - the parts of a line: words, quotes, comments. */
#include "conf/conf_int.h"

#include <string.h>

bool
mw_conf_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

struct mw_conf_span
mw_conf_trim(struct mw_str text, size_t from, size_t to)
{
	while (from < to && mw_conf_is_blank(text.p[from]))
		from++;
	while (to > from && mw_conf_is_blank(text.p[to - 1]))
		to--;
	return (struct mw_conf_span){from, to - from};
}

bool
mw_conf_span_is(struct mw_str text, struct mw_conf_span s, const char *word)
{
	return mw_str_eq(mw_str(text.p + s.at, s.len), mw_strz(word));
}

/* A copy that lives as long as the load; "" when there is no memory (and l->nomem). */
const char *
mw_conf_keep(struct mw_conf_load *l, const char *p, size_t n)
{
	struct mw_str s = mw_arena_str(l->arena, mw_str(p, n));

	if (!s.p)
		l->nomem = true;
	return s.p ? s.p : "";
}

const char *
mw_conf_keep_span(struct mw_conf_load *l, const struct mw_conf_line *line,
                  struct mw_conf_span s)
{
	return mw_conf_keep(l, line->text.p + s.at, s.len);
}

/* A quote opens only where a word begins. */
static bool
opens_quote(struct mw_str t, size_t from, size_t i)
{
	return t.p[i] == '"' && (i == from || strchr(" \t=,{;", t.p[i - 1]));
}

/* The place after the closing quote of the one at i; 0 if it is not closed. */
size_t
mw_conf_quote_end(struct mw_str t, size_t i, size_t to)
{
	for (i++; i < to; i++) {
		if (t.p[i] == '\\' && i + 1 < to)
			i++;
		else if (t.p[i] == '"')
			return i + 1;
	}
	return 0;
}

/* The first byte in [from, to) that is in `set`, outside quotes; `to` if none. */
size_t
mw_conf_find_plain(struct mw_str t, size_t from, size_t to, const char *set)
{
	for (size_t i = from; i < to; i++) {
		if (opens_quote(t, from, i)) {
			size_t e = mw_conf_quote_end(t, i, to);
			if (!e)
				return to;
			i = e - 1;
		} else if (strchr(set, t.p[i])) {
			return i;
		}
	}
	return to;
}

/* Where the line's content ends: before a comment. False if a quote is not closed. */
bool
mw_conf_content_end(struct mw_conf_load *l, const struct mw_conf_line *line,
                    size_t *ret_end)
{
	struct mw_str t = line->text;

	for (size_t i = 0; i < t.n; i++) {
		if (opens_quote(t, 0, i)) {
			size_t e = mw_conf_quote_end(t, i, t.n);
			if (!e) {
				mw_conf_diag(l, MW_CONF_ERROR, line, i, t.n - i,
				             "the quote is not closed");
				return false;
			}
			i = e - 1;
		} else if (t.p[i] == '#' && (i == 0 || mw_conf_is_blank(t.p[i - 1]))) {
			*ret_end = i;
			return true;
		}
	}
	*ret_end = t.n;
	return true;
}

/* A value or word without its quotes and backslashes; NULL after an error. */
const char *
mw_conf_unquote(struct mw_conf_load *l, const struct mw_conf_line *line,
                struct mw_conf_span s)
{
	const char *p = line->text.p + s.at;
	char *out;
	size_t n = 0;

	if (s.len == 0 || p[0] != '"')
		return mw_conf_keep_span(l, line, s);
	out = mw_arena_alloc(l->arena, s.len);
	if (!out) {
		l->nomem = true;
		return NULL;
	}
	for (size_t i = 1; i + 1 < s.len; i++) {
		if (p[i] == '\\') {
			i++;
			if (p[i] != '"' && p[i] != '\\') {
				mw_conf_diag(l, MW_CONF_ERROR, line, s.at + i - 1, 2,
				             "in quotes a backslash stands only before "
				             "\" or \\; write \\\\ for one");
				return NULL;
			}
		}
		out[n++] = p[i];
	}
	return out;
}
