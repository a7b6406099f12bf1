/* setup_milter.c - entries of smtpd_milters, and which of them is ours. */
#include "replay/setup.h"

#include "journal/base/util.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool
is_sep(char c)
{
	return c == ' ' || c == '\t' || c == ',' || c == '\n' || c == '\r';
}

bool
mw_setup_word(struct mw_str *rest, struct mw_str *ret)
{
	size_t n = 0, depth = 0;
	while (rest->n && is_sep(rest->p[0]))
		rest->p++, rest->n--;
	for (; n < rest->n && (depth || !is_sep(rest->p[n])); n++) {
		if (rest->p[n] == '{')
			depth++;
		else if (rest->p[n] == '}' && depth)
			depth--;
	}
	*ret = mw_str(rest->p, n);
	rest->p += n;
	rest->n -= n;
	return n > 0;
}

struct mw_str
mw_setup_unbrace(struct mw_str s)
{
	s = mw_str_trim(s);
	if (s.n == 0 || s.p[0] != '{')
		return s;
	size_t end = s.p[s.n - 1] == '}' && s.n > 1;
	return mw_str_trim(mw_str(s.p + 1, s.n - 1 - end));
}

bool
mw_milter_next(struct mw_str *rest, struct mw_milter_entry *ret)
{
	struct mw_str word;
	if (!mw_setup_word(rest, &word))
		return false;
	*ret = (struct mw_milter_entry){.text = word,
	                                .socket = word,
	                                .options = mw_str("", 0)};
	if (word.p[0] == '{') {
		ret->options = mw_setup_unbrace(word);
		(void)mw_setup_word(&ret->options, &ret->socket);
	}
	return true;
}

struct mw_str
mw_milter_option(const struct mw_milter_entry *e, const char *name)
{
	struct mw_str rest = e->options, word, key, value;
	while (mw_setup_word(&rest, &word))
		if (mw_str_cut(mw_setup_unbrace(word), '=', &key, &value) &&
		    mw_str_ieq(mw_str_trim(key), mw_strz(name)))
			return mw_str_trim(value);
	return mw_str("", 0);
}

struct place { /* a socket, however it was written */
	bool unix_socket;
	struct mw_str path, host, port;
};

/* unix:PATH, local:PATH, inet:HOST:PORT, inet6:HOST:PORT, inet:PORT@HOST. */
static bool
parse_place(struct mw_str text, struct place *ret)
{
	struct mw_str kind, where;
	*ret = (struct place){.unix_socket = false};
	if (!mw_str_cut(text, ':', &kind, &where))
		return false;
	if (mw_str_ieq(kind, MW_STR("unix")) || mw_str_ieq(kind, MW_STR("local"))) {
		ret->unix_socket = true;
		ret->path = where;
		return where.n > 0;
	}
	if (!mw_str_ieq(kind, MW_STR("inet")) && !mw_str_ieq(kind, MW_STR("inet6")))
		return false;
	if (mw_str_cut(where, '@', &ret->port, &ret->host))
		return true;
	const char *colon = where.n ? memrchr(where.p, ':', where.n) : NULL;
	ret->port = where;
	ret->host = mw_str("", 0);
	if (colon) {
		ret->host = mw_str(where.p, (size_t)(colon - where.p));
		ret->port = mw_str(colon + 1, where.n - ret->host.n - 1);
	}
	return ret->port.n > 0;
}

static bool
is_loopback(struct mw_str h)
{
	return h.n == 0 || mw_str_ieq(h, MW_STR("localhost")) ||
	       mw_str_starts(h, MW_STR("127.")) || mw_str_eq(h, MW_STR("::1")) ||
	       mw_str_eq(h, MW_STR("[::1]"));
}

static bool
is_any(struct mw_str h)
{
	return h.n == 0 || mw_str_eq(h, MW_STR("0.0.0.0")) ||
	       mw_str_eq(h, MW_STR("::")) || mw_str_eq(h, MW_STR("[::]")) ||
	       mw_str_eq(h, MW_STR("*"));
}

/* One file or directory by two ways: by links (/var/run is /run), or mounted twice. In
 * the chroot root a link that leads out of it leads nowhere. */
static bool
same_file(const char *theirs, const char *root, const char *ours)
{
	char path[PATH_MAX], top[PATH_MAX];
	struct stat a, b;
	if (!realpath(theirs, path) || stat(path, &a) < 0 || stat(ours, &b) < 0 ||
	    a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		return false;
	if (!root)
		return true;
	if (!realpath(root, top))
		return false;
	size_t n = strlen(top);
	return strncmp(path, top, n) == 0 && (path[n] == '/' || n == 1);
}

/* Is it our socket, which may not be there yet, but has a directory? */
static bool
same_socket(const char *theirs, const char *root, struct mw_str ours)
{
	char dir_a[PATH_MAX], dir_b[PATH_MAX], path[PATH_MAX];
	struct mw_str a = mw_strz(theirs);
	bool same = mw_str_eq(a, ours);
	if (same && !root)
		return true;
	const char *slash_a = strrchr(theirs, '/'),
	           *slash_b = memrchr(ours.p, '/', ours.n);
	if (!slash_a || !slash_b || a.n >= PATH_MAX || ours.n >= PATH_MAX)
		return false;
	size_t n = (size_t)(slash_a - a.p) + 1, k = (size_t)(slash_b - ours.p) + 1;
	(void)snprintf(dir_a, sizeof dir_a, "%.*s", (int)n, a.p);
	(void)snprintf(dir_b, sizeof dir_b, "%.*s", (int)k, ours.p);
	(void)snprintf(path, sizeof path, "%.*s", (int)ours.n, ours.p);
	if (same && access(dir_a, F_OK) < 0)
		return true; /* it is yet to be made */
	return (mw_str_eq(mw_str(a.p + n, a.n - n), mw_str(ours.p + k, ours.n - k)) &&
	        same_file(dir_a, root, dir_b)) ||
	       same_file(theirs, root, path);
}

/* The path from without the chroot, of a service in it or of one that is not. */
static const char *
path_of(const struct mw_postfix *p, struct mw_str path, bool chrooted)
{
	const char *slash = path.p[0] == '/' ? "" : "/";
	return mw_arena_printf(p->arena, "%s%s%.*s",
	                       *slash || chrooted ? mw_postfix_get(p, "queue_directory")
	                                          : "",
	                       slash, (int)path.n, path.p);
}

/* Does a service that has this path find our socket there? */
static bool
leads_to(const struct mw_postfix *p, struct mw_str path, bool chrooted,
         struct mw_str ours)
{
	const char *there = path_of(p, path, chrooted);
	return there &&
	       same_socket(there, chrooted ? mw_postfix_get(p, "queue_directory") : NULL,
	                   ours);
}

bool
mw_milter_is_ours(const struct mw_postfix *p, struct mw_str socket)
{
	struct place theirs, ours;
	if (!parse_place(socket, &theirs))
		return false;
	for (size_t i = 0; i < p->conf->milter_listen.n; i++) {
		if (!parse_place(mw_strz(p->conf->milter_listen.v[i]), &ours) ||
		    ours.unix_socket != theirs.unix_socket)
			continue;
		if (ours.unix_socket
		        ? leads_to(p, theirs.path, false, ours.path) ||
		              leads_to(p, theirs.path, true, ours.path)
		        : mw_str_eq(ours.port, theirs.port) &&
		              (mw_str_ieq(ours.host, theirs.host) || is_any(ours.host) ||
		               (is_loopback(ours.host) && is_loopback(theirs.host))))
			return true;
	}
	return false;
}

bool
mw_milter_reaches(const struct mw_postfix *p, struct mw_str socket, bool chrooted)
{
	struct place theirs, ours;
	if (!parse_place(socket, &theirs) || !theirs.unix_socket)
		return true;
	for (size_t i = 0; i < p->conf->milter_listen.n; i++)
		if (parse_place(mw_strz(p->conf->milter_listen.v[i]), &ours) &&
		    ours.unix_socket && leads_to(p, theirs.path, chrooted, ours.path))
			return true;
	return false;
}

bool
mw_milter_find(const struct mw_postfix *p, const char *list, struct mw_milter_entry *ret)
{
	struct mw_str rest = mw_strz(list);
	while (mw_milter_next(&rest, ret))
		if (mw_milter_is_ours(p, ret->socket))
			return true;
	return false;
}

const char *
mw_milter_address(const struct mw_postfix *p, bool chrooted)
{
	const char *queue = mw_postfix_get(p, "queue_directory");
	size_t n = strlen(queue);
	for (size_t i = 0; i < p->conf->milter_listen.n; i++) {
		struct place ours;
		if (!parse_place(mw_strz(p->conf->milter_listen.v[i]), &ours))
			continue;
		if (!ours.unix_socket)
			return mw_arena_printf(p->arena, "inet:%.*s:%.*s",
			                       is_any(ours.host) ? 9 : (int)ours.host.n,
			                       is_any(ours.host) ? "127.0.0.1"
			                                         : ours.host.p,
			                       (int)ours.port.n, ours.port.p);
		bool inside = ours.path.n > n + 1 && memcmp(ours.path.p, queue, n) == 0 &&
		              ours.path.p[n] == '/';
		if (inside)
			return mw_arena_printf(p->arena, "unix:%.*s",
			                       (int)(ours.path.n - n - 1),
			                       ours.path.p + n + 1);
		if (!chrooted ||
		    leads_to(p, ours.path, true, ours.path)) /* mounted there */
			return mw_arena_printf(p->arena, "unix:%.*s", (int)ours.path.n,
			                       ours.path.p);
	}
	return NULL;
}
