/* import.c - what the sources of an import share: places, owners, line ends. */
#include "replay/import.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/imap_parse.h"
#include "replay/select.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
	CHUNK = 64 * 1024
};

/* ---- owners ---- */

static bool
is_local(const struct mw_conf *conf, struct mw_str domain)
{
	if (conf->local_domains.n == 0 || domain.n == 0)
		return true;
	return mw_domain_of(conf->local_domains.v, conf->local_domains.n, domain) != NULL;
}

int
mw_import_owner(const struct mw_conf *conf, const char *name, struct mw_arena *a,
                struct mw_import_box *ret, struct mw_err *err)
{
	struct mw_str domain = mw_addr_domain(mw_strz(name));
	if (!*name)
		return mw_fail(err, MW_EUSAGE, "a user without a name");
	if (!is_local(conf, domain)) {
		(void)mw_fail(err, MW_EUSAGE, "%.200s: the domain is none of ours", name);
		return mw_err_hint(err,
		                   "local_domains in mailwal.conf names our domains");
	}
	ret->owner = domain.n == 0 && conf->local_domains.n == 1
	                 ? mw_arena_printf(a, "%s@%s", name, conf->local_domains.v[0])
	                 : mw_arena_strdup(a, name);
	if (!ret->owner)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	struct mw_str base =
	    mw_addr_base(mw_strz(ret->owner), conf->recipient_delimiter, a);
	ret->mailbox = base.p ? mw_mailbox_name(conf, base, a) : NULL;
	return ret->mailbox ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

enum mw_import_folder
mw_import_folder(const struct mw_conf *conf, struct mw_str name, char delim)
{
	static const char *const leave[] = {"Trash", "Deleted Items", "Deleted Messages",
	                                    "Junk",  "Junk E-mail",   "Junk Email",
	                                    "Spam",  "Drafts",        "mailwal-staging"};
	static const char *const sent[] = {"Sent", "Sent Items", "Sent Messages",
	                                   "Sent Mail"};
	struct mw_str own = mw_strz(conf->sent_folder);
	if (own.n && mw_str_ieq(name, own))
		return MW_IMPORT_SENT;
	const char *p = delim && name.n ? memrchr(name.p, delim, name.n) : NULL;
	struct mw_str last = p ? mw_str(p + 1, name.n - (size_t)(p + 1 - name.p)) : name;
	for (size_t i = 0; i < MW_COUNT(leave); i++)
		if (mw_str_ieq(last, mw_strz(leave[i])))
			return MW_IMPORT_LEAVE;
	for (size_t i = 0; i < MW_COUNT(sent); i++)
		if (mw_str_ieq(last, mw_strz(sent[i])))
			return MW_IMPORT_SENT;
	return MW_IMPORT_INBOX;
}

const char *
mw_import_folder_name(struct mw_str name, char delim, bool utf7, char *room,
                      size_t room_n)
{
	MW_BUF_AUTO b = {0};
	struct mw_err ignored = {0};
	/* A level with "/" in it would be two. */
	if (!name.n || mw_str_ieq(name, MW_STR("INBOX")) ||
	    (delim != '/' && memchr(name.p, '/', name.n)) || memchr(name.p, '\0', name.n))
		return NULL;
	if (!utf7)
		mw_buf_putstr(&b, name);
	else if (!mw_imap_from_utf7(name, &b))
		return NULL;
	if (b.failed || b.n >= room_n)
		return NULL;
	for (size_t i = 0; i < b.n; i++)
		room[i] = delim && b.p[i] == delim ? '/' : (char)b.p[i];
	room[b.n] = '\0';
	return mw_target_folder_check(room, &ignored) == 0 ? room : NULL;
}

/* ---- places ---- */

struct found { /* what placeholders stood for, on the way down a pattern */
	struct mw_str u, n, d;
};

struct places {
	const struct mw_import_src *s;
	size_t n; /* found */
	struct mw_arena *arena;
	int (*cb)(void *arg, const struct mw_import_box *b);
	void *arg;
	struct mw_err *err;
};

/* A placeholder's value; a second one must be the same. */
static bool
bind(struct found *f, char letter, struct mw_str v)
{
	struct mw_str *x = letter == 'u' ? &f->u : letter == 'n' ? &f->n : &f->d;
	if (x->n)
		return mw_str_eq(*x, v);
	*x = v;
	return v.n > 0;
}

/* Does a directory entry fit a component of the pattern? Shortest values first. */
static bool
fits(const char *pat, struct mw_str name, struct found *f)
{
	for (; *pat; pat++) {
		if (*pat == '%' && pat[1] && strchr("und", pat[1])) {
			for (size_t k = 1; k <= name.n; k++) {
				struct found g = *f;
				struct mw_str rest = mw_str(name.p + k, name.n - k);
				if (bind(&g, pat[1], mw_str(name.p, k)) &&
				    fits(pat + 2, rest, &g)) {
					*f = g;
					return true;
				}
			}
			return false;
		}
		if (*pat == '%' && pat[1] == '%')
			pat++;
		if (!name.n || name.p[0] != *pat)
			return false;
		name = mw_str(name.p + 1, name.n - 1);
	}
	return name.n == 0;
}

static int
give(struct places *w, const char *path, const struct found *f)
{
	struct mw_import_box b = {.path = path};
	const char *name = f->u.n ? mw_arena_printf(w->arena, "%.*s", (int)f->u.n, f->u.p)
	                   : f->d.n
	                       ? mw_arena_printf(w->arena, "%.*s@%.*s", (int)f->n.n,
	                                         f->n.p, (int)f->d.n, f->d.p)
	                       : mw_arena_printf(w->arena, "%.*s", (int)f->n.n, f->n.p);
	struct mw_err e = {0};
	if (!name)
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	if (access(path, F_OK) < 0)
		return 0;
	w->n++;
	int r = mw_import_owner(w->s->cli->conf, name, w->arena, &b, &e);
	if (r == MW_EUSAGE)
		return w->s->sink->trouble(w->s->sink->arg, path, e.msg);
	return r < 0 ? mw_fail(w->err, r, "%s", e.msg) : w->cb(w->arg, &b);
}

static int walk(struct places *w, const char *path, const char *rest,
                const struct found *f);

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
walk_dir(struct places *w, const char *path, const char *comp, const char *rest,
         const struct found *f)
{
	char **v = NULL;
	size_t n = 0, cap = 0;
	int r = 0;
	struct dirent *e;
	DIR *d = opendir(*path ? path : ".");
	if (!d) {
		char why[200];
		(void)snprintf(why, sizeof why, "cannot look into it: %s",
		               strerror(errno));
		w->n += errno != ENOENT && errno != ENOTDIR;
		return errno == ENOENT || errno == ENOTDIR
		           ? 0
		           : w->s->sink->trouble(w->s->sink->arg, path, why);
	}
	while (r == 0 && (e = readdir(d))) {
		struct found g = *f;
		if (e->d_name[0] == '.' || !fits(comp, mw_strz(e->d_name), &g))
			continue;
		if (n == cap) {
			cap = cap ? 2 * cap : 64;
			void *p = reallocarray(v, cap, sizeof *v);
			if (!p)
				r = MW_ENOMEM;
			else
				v = p;
		}
		if (r == 0 && (v[n] = mw_arena_strdup(w->arena, e->d_name)))
			n++;
		else
			r = MW_ENOMEM;
	}
	(void)closedir(d);
	if (r < 0)
		(void)mw_fail(w->err, r, "out of memory");
	if (n)
		qsort(v, n, sizeof *v, by_name);
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct found g = *f;
		const char *next = mw_arena_printf(w->arena, "%s%s", path, v[i]);
		if (!next)
			r = mw_fail(w->err, MW_ENOMEM, "out of memory");
		else if (fits(comp, mw_strz(v[i]), &g))
			r = walk(w, next, rest, &g);
	}
	free(v);
	return r;
}

/* path: what is settled; rest: the pattern from there on. */
static int
walk(struct places *w, const char *path, const char *rest, const struct found *f)
{
	while (*rest == '/') {
		path = mw_arena_printf(w->arena, "%s/", path);
		rest++;
		if (!path)
			return mw_fail(w->err, MW_ENOMEM, "out of memory");
	}
	if (!*rest)
		return give(w, path, f);
	size_t n = strcspn(rest, "/");
	const char *comp = mw_arena_printf(w->arena, "%.*s", (int)n, rest);
	if (!comp)
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	if (strchr(comp, '%'))
		return walk_dir(w, path, comp, rest + n, f);
	path = mw_arena_printf(w->arena, "%s%s", path, comp);
	return path ? walk(w, path, rest + n, f)
	            : mw_fail(w->err, MW_ENOMEM, "out of memory");
}

/* The wrong pattern and the place that is away look the same: neither is "all done". */
static int
nothing_there(const char *pattern, struct mw_err *err)
{
	char dir[PATH_MAX];
	(void)snprintf(dir, sizeof dir, "%.*s", (int)strcspn(pattern, "%"), pattern);
	char *slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	if (slash && access(dir, R_OK | X_OK) < 0)
		return mw_fail_errno(err, "cannot look into %s", dir);
	(void)mw_fail(err, MW_ENOTFOUND, "nothing is there that fits %s", pattern);
	return mw_err_hint(err, "%%u is a user, %%n and %%d its two halves; one name in "
	                        "the path each");
}

int
mw_import_places(const struct mw_import_src *s, const char *pattern,
                 int (*cb)(void *, const struct mw_import_box *), void *arg,
                 struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct places w = {.s = s, .arena = a, .cb = cb, .arg = arg, .err = err};
	struct found none = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!s->user) {
		if (!strstr(pattern, "%u") && !strstr(pattern, "%n")) {
			(void)mw_fail(err, MW_EUSAGE, "whose mail is it?");
			return mw_err_hint(err, "--user ADDR, or a pattern: %%u for the "
			                        "user, %%n and %%d for its two halves");
		}
		int q = walk(&w, "", pattern, &none);
		return q == 0 && w.n == 0 ? nothing_there(pattern, err) : q;
	}
	struct mw_import_box b;
	struct mw_target *t = NULL;
	int r = mw_import_owner(s->cli->conf, s->user, a, &b, err);
	if (r == 0)
		r = mw_target_new(s->text, &s->t, &t, err);
	if (r == 0)
		r = strchr(pattern, '%') ? mw_target_box(t, b.mailbox, a, &b.path, err)
		                         : 0;
	if (r == 0 && !strchr(pattern, '%'))
		b.path = pattern;
	struct stat st;
	if (r == 0 && stat(b.path, &st) < 0)
		r = mw_fail_errno(err, "cannot look at %s", b.path);
	if (r == 0)
		r = cb(arg, &b);
	mw_target_free(t);
	return r;
}

/* ---- content ---- */

int
mw_crlf_put(struct mw_crlf *c, const void *p, size_t n)
{
	const char *s = p;
	int r = 0;
	if (!c->decided) {
		const char *lf = memchr(s, '\n', n);
		c->decided = lf != NULL;
		c->as_is = lf && (lf > s ? lf[-1] == '\r' : c->cr);
	}
	if (c->as_is || !n)
		return n ? c->sink->body(c->sink->arg, s, n) : 0;
	char out[16 * 1024];
	size_t k = 0;
	for (size_t i = 0; i < n && r == 0; i++) {
		if (s[i] == '\n' && !c->cr)
			out[k++] = '\r';
		out[k++] = s[i];
		c->cr = s[i] == '\r';
		if (k >= sizeof out - 1) {
			r = c->sink->body(c->sink->arg, out, k);
			k = 0;
		}
	}
	if (r == 0 && k)
		r = c->sink->body(c->sink->arg, out, k);
	return r;
}

int
mw_import_file(const struct mw_import_src *s, int fd, const struct mw_import_msg *m)
{
	const struct mw_import_sink *sink = s->sink;
	struct mw_crlf crlf = {.sink = sink};
	MW_AUTOFREE char *buf = malloc(CHUNK);
	int r = buf ? sink->begin(sink->arg, m) : MW_ENOMEM;
	if (r != 0)
		return r > 0 ? 0 : r;
	for (;;) {
		ssize_t n = read(fd, buf, CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sink->end(sink->arg, MW_EIO, strerror(errno));
		if (n == 0)
			return sink->end(sink->arg, 0, NULL);
		r = mw_crlf_put(&crlf, buf, (size_t)n);
		if (r < 0)
			return r;
	}
}

/* ---- which source ---- */

struct each {
	const struct mw_import_src *s;
	struct mw_err *err;
	int (*fn)(const struct mw_import_src *s, const struct mw_import_box *b,
	          struct mw_err *err);
};

/* One place's own failure does not end the others. */
static int
on_place(void *arg, const struct mw_import_box *b)
{
	struct each *e = arg;
	struct mw_err why = {0};
	int r = e->fn(e->s, b, &why);
	if (r == 0 || r == MW_ECANCEL || r == MW_ENOMEM || !why.code)
		return r;
	return e->s->sink->trouble(e->s->sink->arg, b->path, why.msg);
}

static int
logins(const struct mw_import_src *s, struct mw_target *t, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	int r = 0;
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!s->user && !t->passwords) {
		(void)mw_fail(err, MW_EUSAGE, "whose mail is it?");
		return mw_err_hint(err, "--user ADDR, or --user-passwords FILE: each "
		                        "mailbox in it");
	}
	const char *p = s->user ? NULL : t->passwords;
	while (r == 0 && (s->user || (p && *p))) {
		size_t line = p ? strcspn(p, "\n") : 0, k = p ? strcspn(p, ":\n") : 0;
		struct mw_import_box b = {.path = s->text};
		struct mw_err why = {0};
		const char *name =
		    s->user ? s->user : mw_arena_printf(a, "%.*s", (int)k, p);
		bool skip = p && (*p == '#' || k == line || k == 0);
		if (!skip && name)
			r = mw_import_owner(s->cli->conf, name, a, &b, &why);
		if (!skip && r == 0 && name)
			r = mw_import_imap(s, &b, t, &why);
		if (s->user) {
			if (r < 0 && why.code)
				*err = why;
			return r;
		}
		if (r < 0 && why.code && r != MW_ECANCEL && r != MW_ENOMEM)
			r = s->sink->trouble(s->sink->arg, name ? name : "", why.msg);
		p += line + (p[line] == '\n');
	}
	return r;
}

int
mw_import_walk(const struct mw_import_src *s, struct mw_err *err)
{
	static const struct {
		const char *scheme;
		int (*fn)(const struct mw_import_src *, const struct mw_import_box *,
		          struct mw_err *);
	} files[] = {{"maildir:", mw_import_maildir},
	             {"mbox:", mw_import_mbox},
	             {"eml:", mw_import_eml}};
	struct mw_target *t = NULL;
	/* The targets' grammar is the sources': one parser says what is wrong. */
	int r = mw_target_new(s->text, &s->t, &t, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < MW_COUNT(files); i++) {
		if (strncasecmp(s->text, files[i].scheme, strlen(files[i].scheme)) != 0)
			continue;
		struct each e = {s, err, files[i].fn};
		r = mw_import_places(s, t->url.host, on_place, &e, err);
		mw_target_free(t);
		return r;
	}
	r = t->ops == &mw_target_imap
	        ? logins(s, t, err)
	        : mw_fail(err, MW_EUSAGE,
	                  "import reads maildir:, mbox:, eml:, imap:// and imaps://");
	mw_target_free(t);
	return r;
}
