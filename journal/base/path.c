#include "journal/base/path.h"

#include "journal/base/util.h"

#include <stdint.h>
#include <string.h>

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What parts words from each other, so that comments and blanks may stand beside it. */
static bool
is_between(char c)
{
	return strchr("@.:,;", c) != NULL && c;
}

/* Behind the comment at i, which may have others inside, and need not end. */
static size_t
comment_end(struct mw_str s, size_t i)
{
	size_t depth = 0;
	for (; i < s.n; i++) {
		depth += s.p[i] == '(';
		depth -= s.p[i] == ')';
		i += s.p[i] == '\\';
		if (depth == 0)
			return i + 1;
	}
	return s.n;
}

/* Behind the quoted string or the literal at i; 0: it does not end. */
static size_t
closed_end(struct mw_str s, size_t i)
{
	char end = s.p[i] == '"' ? '"' : ']';
	for (i++; i < s.n; i++) {
		if (s.p[i] == end)
			return i + 1;
		i += s.p[i] == '\\';
	}
	return 0;
}

/* A backslash makes nothing else of these; other signs need theirs. */
static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '+';
}

/* s without what is no part of the name, into ret, which has room for it: the length, or
 * SIZE_MAX: it is no address by these rules. */
static size_t
strip(struct mw_str s, char *ret)
{
	size_t n = 0, end;
	bool gap = false;
	for (size_t i = 0; i < s.n; i = end) {
		end = i + 1;
		if (s.p[i] == '(' || is_blank(s.p[i])) {
			gap = true;
			end = s.p[i] == '(' ? comment_end(s, i) : end;
			continue;
		}
		if (s.p[i] == '<' && s.p[s.n - 1] == '>') { /* behind a phrase */
			s.n--;
			n = 0;
			continue;
		}
		/* Two words without anything between them. */
		if (gap && n && !is_between(s.p[i]) && !is_between(ret[n - 1]))
			return SIZE_MAX;
		gap = false;
		if (s.p[i] == '"' || s.p[i] == '[') {
			end = closed_end(s, i);
			if (end == 0)
				return SIZE_MAX;
		} else if (s.p[i] == '\\' ? end == s.n || !is_letter(s.p[end])
		                          : strchr(")<>", s.p[i]) != NULL) {
			return SIZE_MAX;
		}
		for (; i < end; i++) {
			bool drop =
			    s.p[i] == '\\' && i + 1 < s.n && is_letter(s.p[i + 1]);
			if (!drop && s.p[i] == '\\' && i + 1 < end)
				ret[n++] = s.p[i++]; /* it is of what follows */
			if (!drop)
				ret[n++] = s.p[i];
		}
	}
	return n;
}

/* "@one,@two:user@domain" is user@domain: RFC 5321 §4.1.1.3 has the route left out. */
static struct mw_str
without_route(struct mw_str a)
{
	bool literal = false;
	for (size_t i = 0; i < a.n && *a.p == '@'; i++) {
		literal = a.p[i] == '[' || (literal && a.p[i] != ']');
		if (a.p[i] == ':' && !literal)
			return mw_str(a.p + i + 1, a.n - i - 1);
	}
	return a;
}

static bool
has_any(struct mw_str s, const char *set)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] && strchr(set, s.p[i]))
			return true;
	return false;
}

struct mw_str
mw_path_addr(struct mw_str path, struct mw_arena *arena)
{
	struct mw_str a = mw_str_trim(path);
	if (a.n >= 2 && a.p[0] == '<' && a.p[a.n - 1] == '>')
		a = mw_str_trim(mw_str(a.p + 1, a.n - 2));
	if (has_any(a, "(< \t\r\n\\")) {
		char *copy = mw_arena_alloc(arena, a.n);
		if (!copy)
			return mw_str(NULL, 0);
		size_t n = strip(a, copy);
		if (n != SIZE_MAX)
			a = mw_str(copy, n);
	}
	for (; a.n && (a.p[a.n - 1] == ',' || a.p[a.n - 1] == ';'); a.n--)
		;
	for (; a.n && *a.p == ','; a.n--)
		a.p++;
	for (size_t n = a.n + 1; n > a.n; a = without_route(a))
		n = a.n;
	/* The root's dot: example.org. is example.org, and a mailbox has no other name.
	 */
	if (a.n && a.p[a.n - 1] == '.' && mw_addr_domain(a).n > 1)
		a.n--;
	return a;
}
