#include "journal/record/header.h"

#include <stdint.h>
#include <string.h>

/* End of the line that starts at s.p: past its LF, or the end. */
static size_t
line_len(struct mw_str s)
{
	const char *q = s.n ? memchr(s.p, '\n', s.n) : NULL;
	return q ? (size_t)(q - s.p) + 1 : s.n;
}

static bool
is_empty_line(struct mw_str s)
{
	return (s.n >= 1 && s.p[0] == '\n') ||
	       (s.n >= 2 && s.p[0] == '\r' && s.p[1] == '\n');
}

bool
mw_header_next(struct mw_str *rest, struct mw_field *ret)
{
	struct mw_str s = *rest;
	if (s.n == 0 || is_empty_line(s) || s.p[0] == ' ' || s.p[0] == '\t')
		return false;
	size_t n = line_len(s);
	const char *colon = memchr(s.p, ':', n);
	if (!colon || colon == s.p)
		return false;
	while (n < s.n && (s.p[n] == ' ' || s.p[n] == '\t'))
		n += line_len(mw_str(s.p + n, s.n - n));
	ret->raw = mw_str(s.p, n);
	size_t nl = (size_t)(colon - s.p);
	while (nl && (s.p[nl - 1] == ' ' || s.p[nl - 1] == '\t'))
		nl--;
	ret->name = mw_str(s.p, nl);
	struct mw_str v = mw_str(colon + 1, n - (size_t)(colon - s.p) - 1);
	if (v.n && v.p[v.n - 1] == '\n')
		v.n--;
	if (v.n && v.p[v.n - 1] == '\r')
		v.n--;
	ret->value = v;
	*rest = mw_str(s.p + n, s.n - n);
	return true;
}

size_t
mw_header_split(struct mw_str content, size_t *ret_header)
{
	size_t at = 0;
	while (at < content.n) {
		struct mw_str s = mw_str(content.p + at, content.n - at);
		if (is_empty_line(s)) {
			*ret_header = at;
			return at + (s.p[0] == '\n' ? 1 : 2);
		}
		at += line_len(s);
	}
	*ret_header = content.n;
	return content.n;
}

/* Up to the first CR or LF. */
static size_t
line_length(const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);
	n = lf ? (size_t)(lf - p) : n;
	const char *cr = memchr(p, '\r', n);
	return cr ? (size_t)(cr - p) : n;
}

struct mw_str
mw_header_unfold_to(char *out, size_t max, struct mw_str value)
{
	size_t n = 0, i = 0;
	value = mw_str_trim(value);
	while (i < value.n && n < max) {
		size_t k = line_length(value.p + i, value.n - i);
		k = k < max - n ? k : max - n;
		memcpy(out + n, value.p + i, k);
		n += k;
		i += k;
		if (i == value.n || n == max)
			break;
		out[n++] = ' ';
		while (i < value.n && value.p[i] && strchr("\r\n \t", value.p[i]))
			i++;
	}
	return mw_str_trim(mw_str(out, n));
}

struct mw_str
mw_header_unfold(struct mw_arena *a, struct mw_str value, size_t max)
{
	value = mw_str_trim(value);
	size_t room = value.n < max ? value.n : max;
	char *out = mw_arena_alloc(a, room + 1);
	return out ? mw_header_unfold_to(out, room, value) : mw_str(NULL, 0);
}

bool
mw_header_find(struct mw_str header, const char *name, struct mw_field *ret)
{
	struct mw_field f;
	while (mw_header_next(&header, &f))
		if (mw_str_ieq(f.name, mw_strz(name))) {
			*ret = f;
			return true;
		}
	return false;
}

struct mw_str
mw_header_msgid(struct mw_str unfolded)
{
	struct mw_str v = unfolded;
	const char *lt = v.n ? memchr(v.p, '<', v.n) : NULL;
	if (!lt)
		return mw_str_trim(v);
	size_t left = v.n - (size_t)(lt - v.p);
	const char *gt = memchr(lt, '>', left);
	return gt ? mw_str(lt, (size_t)(gt - lt) + 1) : mw_str_trim(v);
}

struct mw_str
mw_header_received_id(struct mw_str unfolded)
{
	struct mw_str v = unfolded;
	static const char key[] = " id ";
	const char *semi = v.n ? memrchr(v.p, ';', v.n) : NULL;
	size_t n = semi ? (size_t)(semi - v.p) : v.n;
	const char *found = NULL;
	for (size_t i = n; !found;) { /* the last one */
		const char *blank = i ? memrchr(v.p, ' ', i) : NULL;
		if (!blank || blank - v.p < 3)
			break;
		if (memcmp(blank - 3, key, 4) == 0)
			found = blank + 1;
		i = (size_t)(blank - v.p);
	}
	if (!found)
		return mw_str("", 0);
	const char *end = found;
	while (end < v.p + n && *end != ' ' && *end != '\t' && *end != ';' && *end != '(')
		end++;
	return mw_str(found, (size_t)(end - found));
}
