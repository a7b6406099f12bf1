/* setup_sendmail_apply.c - mailwald as the last input filter of a sendmail.mc.
 *
 * INPUT_MAIL_FILTER puts its name behind those that confINPUT_MAIL_FILTERS holds when m4
 * comes to it, and a later define of that list throws its name away. So our line goes
 * before the first MAILER or LOCAL_ section, but never above a line that makes the list.
 */
#include "replay/setup.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	FILE_LIMIT = 4 << 20,
	MOST_KEPT = 1000 /* FILE.before-mailwal.N */
};

/* ---- where ---- */

/* The first byte behind a call whose arguments begin at i. */
static size_t
end_of_call(struct mw_str text, size_t i)
{
	int quotes = 0, parens = 1;
	for (; i < text.n && parens; i++) {
		char c = text.p[i];
		if (c == '`')
			quotes++;
		else if (c == '\'' && quotes)
			quotes--;
		else if (!quotes && (c == '(' || c == ')'))
			parens += c == '(' ? 1 : -1;
	}
	return i;
}

static size_t
next_line(struct mw_str text, size_t i)
{
	const char *nl = i < text.n ? memchr(text.p + i, '\n', text.n - i) : NULL;
	return nl ? (size_t)(nl - text.p) + 1 : text.n;
}

static bool
is_section(struct mw_str name)
{
	static const char *const plain[] = {"MAILER", "MAILER_DEFINITIONS"};
	for (size_t i = 0; i < MW_COUNT(plain); i++)
		if (mw_str_eq(name, mw_strz(plain[i])))
			return true;
	return mw_str_starts(name, MW_STR("LOCAL_CONFIG")) ||
	       mw_str_starts(name, MW_STR("LOCAL_RULE")) ||
	       mw_str_starts(name, MW_STR("LOCAL_NET_CONFIG"));
}

/* Does this call say what confINPUT_MAIL_FILTERS is? */
static bool
makes_list(struct mw_str name, struct mw_str args)
{
	return mw_str_eq(name, MW_STR("INPUT_MAIL_FILTER")) ||
	       ((mw_str_eq(name, MW_STR("define")) ||
	         mw_str_eq(name, MW_STR("undefine"))) &&
	        memmem(args.p, MW_MIN(args.n, (size_t)40), "confINPUT_MAIL_FILTERS", 22));
}

static bool
is_name(char c)
{
	return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
	       (c >= 'A' && c <= 'Z');
}

struct place {
	size_t section, list; /* starts at; ends at. 0: none */
	bool has_section, msp;
};

/* As mw_sendmail_load reads it: calls at the beginning of lines, whole. */
static void
look(struct mw_str text, struct place *ret)
{
	bool nowhere = false;
	*ret = (struct place){.msp = false};
	for (size_t i = 0, next; i < text.n; i = next) {
		size_t from = i, to;
		while (from < text.n && (text.p[from] == ' ' || text.p[from] == '\t'))
			from++;
		for (to = from; to < text.n && is_name(text.p[to]); to++)
			;
		struct mw_str name = mw_str(text.p + from, to - from);
		bool call = name.n && to < text.n && text.p[to] == '(';
		size_t end = call ? end_of_call(text, to + 1) : to;
		struct mw_str args = mw_str(text.p + to, end - to);
		next = next_line(text, end);
		if (mw_str_eq(name, MW_STR("divert")))
			nowhere = call && (mw_str_starts(args, MW_STR("(-")) ||
			                   mw_str_starts(args, MW_STR("(`-")));
		if (nowhere)
			continue;
		if (!ret->has_section && is_section(name)) {
			ret->has_section = true;
			ret->section = i;
		}
		if (call && makes_list(name, args))
			ret->list = next;
		if (call && mw_str_eq(name, MW_STR("FEATURE")) && args.n > 5 &&
		    (mw_str_starts(args, MW_STR("(`msp'")) ||
		     mw_str_starts(args, MW_STR("(msp"))))
			ret->msp = true;
	}
}

/* ---- what ---- */

/* A filter that is there already cannot be named a second time: Sendmail refuses that. So
 * the list gets it. */
static int
name_it(const struct mw_sendmail *s, const char *name, struct mw_buf *out,
        struct mw_err *err)
{
	for (size_t i = 0; i < s->input.n; i++)
		if (strchr("`'()$", s->input.p[i]))
			return mw_fail(err, MW_ECONF,
			               "%s: confINPUT_MAIL_FILTERS is made by m4 (%.*s): "
			               "put %s last there by hand",
			               s->path, (int)s->input.n, s->input.p, name);
	mw_buf_printf(out, "define(`confINPUT_MAIL_FILTERS', `%.*s%s%s')dnl\n",
	              (int)s->input.n, s->input.n ? s->input.p : "",
	              s->input.n ? ", " : "", name);
	return 0;
}

static int
without_flag(const struct mw_sendmail *s, const struct mw_smfilter *v, struct mw_err *err)
{
	(void)mw_fail(err, MW_ECONF, "%s: filter %s has no F=", s->path, v->name);
	return mw_err_hint(err, "add F=T to it by hand: while mailwald is down, mail "
	                        "passes without a record");
}

/* The line to add; none: it is there. */
static int
what(const struct mw_sendmail *s, struct mw_buf *out, struct mw_err *err)
{
	bool listed = false;
	const struct mw_smfilter *ours = mw_sendmail_ours(s, &listed);
	if (ours && !ours->flags.n && s->conf->on_failure != MW_ON_FAILURE_ACCEPT)
		return without_flag(s, ours, err);
	if (ours)
		return listed ? 0 : name_it(s, ours->name, out, err);
	for (size_t i = 0; i < s->n_filter; i++)
		if (strcmp(s->filter[i].name, "mailwal") == 0)
			return mw_fail(err, MW_ECONF,
			               "%s: filter mailwal has S=%.*s, where this "
			               "mailwald does not listen: take it out, or set "
			               "milter_listen",
			               s->path, (int)s->filter[i].socket.n,
			               s->filter[i].socket.n ? s->filter[i].socket.p
			                                     : "");
	if (s->conf->milter_listen.n == 0)
		return mw_fail(err, MW_ECONF, "milter_listen is empty");
	if (strpbrk(s->conf->milter_listen.v[0], "`',;()\n"))
		return mw_fail(err, MW_ECONF,
		               "milter_listen = %s: m4 and Sendmail cannot hold that",
		               s->conf->milter_listen.v[0]);
	mw_sendmail_line(s->conf, out);
	return 0;
}

static const char *
beside(struct mw_arena *a, const char *path, const char *ending)
{
	return mw_arena_printf(a, "%.*s%s", (int)strlen(path) - 3, path, ending);
}

/* The file itself, not a link to it. */
static int
find_file(const char *path, struct mw_smplan *p, struct mw_err *err)
{
	MW_AUTOFREE char *real = realpath(path, NULL);
	if (!real)
		return mw_fail_errno(err, "cannot read %s", path);
	size_t n = strlen(real);
	if (n <= 3 || strcmp(real + n - 3, ".mc") != 0)
		return mw_fail(err, MW_EUSAGE,
		               "%s: --apply changes the .mc file that a sendmail.cf is "
		               "made of",
		               real);
	p->mc = mw_arena_strdup(p->arena, real);
	p->cf = p->mc ? beside(p->arena, p->mc, ".cf") : NULL;
	int dir = (int)(strrchr(real, '/') - real);
	p->dir = mw_arena_printf(p->arena, "%.*s", dir ? dir : 1, real);
	const char *makefile = mw_arena_printf(p->arena, "%.*s/Makefile", dir, real);
	if (!p->mc || !p->cf || !p->dir || !makefile)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	p->makefile = access(makefile, F_OK) == 0;
	return 0;
}

int
mw_sendmail_plan(const struct mw_conf *conf, const char *path, struct mw_arena *a,
                 struct mw_smplan *ret, struct mw_err *err)
{
	struct mw_sendmail s;
	struct place at;
	MW_BUF_AUTO add = {0};
	MW_AUTOFREE void *bytes = NULL;
	size_t n = 0;
	*ret = (struct mw_smplan){.arena = a, .conf = conf};
	int r = find_file(path, ret, err);
	if (r < 0)
		return r;
	if (stat(ret->mc, &ret->was) < 0)
		return mw_fail_errno(err, "cannot read %s", ret->mc);
	r = mw_fs_read_file(mw_fs_posix(), ret->mc, FILE_LIMIT, &bytes, &n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", ret->mc);
	}
	ret->old = mw_arena_str(a, mw_str(bytes, n));
	look(ret->old, &at);
	ret->msp = at.msp || strcmp(strrchr(ret->mc, '/'), "/submit.mc") == 0;
	if (ret->msp)
		return 0;
	r = mw_sendmail_load(conf, ret->mc, a, &s, err);
	if (r == 0)
		r = what(&s, &add, err);
	if (r < 0)
		return r;
	ret->at = MW_MAX(at.has_section ? at.section : ret->old.n, at.list);
	ret->before_section = at.has_section && ret->at == at.section;
	ret->line = 1;
	for (size_t i = 0; i < ret->at; i++)
		ret->line += ret->old.p[i] == '\n';
	bool cut = ret->at && ret->old.p[ret->at - 1] != '\n';
	ret->line += cut;
	ret->newline = cut;
	ret->add = mw_arena_str(a, mw_buf_str(&add));
	if (mw_buf_ok(&add) < 0 || !ret->old.p || (add.n && !ret->add.p))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return 0;
}

/* ---- writing ---- */

static bool
put(int fd, struct mw_str s)
{
	while (s.n) {
		ssize_t n = write(fd, s.p, s.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		s.p += n;
		s.n -= (size_t)n;
	}
	return true;
}

/* The new text under the name in tmp, with the old one's owner and mode, durable. */
static int
write_new(const struct mw_smplan *p, char *tmp, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return mw_fail_errno(err, "cannot write beside %s", p->mc);
	struct mw_str head = mw_str(p->old.p, p->at);
	struct mw_str tail = mw_str(p->old.p + p->at, p->old.n - p->at);
	bool done = put(fd, head) && (!p->newline || put(fd, MW_STR("\n"))) &&
	            put(fd, p->add) && put(fd, tail) &&
	            fchown(fd, p->was.st_uid, p->was.st_gid) == 0 &&
	            fchmod(fd, p->was.st_mode & 07777) == 0 && fsync(fd) == 0;
	if (done)
		return 0;
	int r = mw_fail_errno(err, "cannot write %s", tmp);
	(void)unlink(tmp);
	return r;
}

/* A second name for the old file, one that is free. */
static int
keep_old(const struct mw_smplan *p, const char **ret, struct mw_err *err)
{
	for (int i = 0; i < MOST_KEPT; i++) {
		const char *name =
		    i ? mw_arena_printf(p->arena, "%s.before-mailwal.%d", p->mc, i)
		      : mw_arena_printf(p->arena, "%s.before-mailwal", p->mc);
		if (!name)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		if (link(p->mc, name) == 0) {
			*ret = name;
			return 0;
		}
		if (errno != EEXIST)
			return mw_fail_errno(err, "cannot keep %s as %s", p->mc, name);
	}
	return mw_fail(err, MW_EIO, "%s.before-mailwal: %d of them are kept already",
	               p->mc, MOST_KEPT);
}

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Nobody has changed it since it was read. */
static bool
unchanged(const struct mw_smplan *p)
{
	struct stat now;
	return stat(p->mc, &now) == 0 && now.st_ino == p->was.st_ino &&
	       now.st_dev == p->was.st_dev && now.st_size == p->was.st_size &&
	       same_time(now.st_mtim, p->was.st_mtim);
}

int
mw_sendmail_apply(struct mw_smplan *p, struct mw_err *err)
{
	char *tmp = mw_arena_printf(p->arena, "%s.XXXXXX", p->mc);
	if (!tmp)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = write_new(p, tmp, err);
	if (r < 0)
		return r;
	if (!unchanged(p))
		r = mw_fail(err, MW_EUNAVAIL,
		            "%s changed meanwhile; nothing was written: once more",
		            p->mc);
	else
		r = keep_old(p, &p->kept, err);
	if (r == 0 && rename(tmp, p->mc) < 0) {
		r = mw_fail_errno(err, "cannot replace %s", p->mc);
		(void)unlink(p->kept);
	}
	if (r < 0) {
		(void)unlink(tmp);
		return r;
	}
	r = mw_fs_posix()->sync_dir(mw_fs_posix(), p->dir);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot sync %s", p->dir);
	}
	return 0;
}

/* ---- make ---- */

/* The old file again, as it was, under its own name only. made: the .cf is a new one,
 * and younger than that. */
static int
restore(const struct mw_smplan *p, bool made, struct mw_err *err)
{
	int e = rename(p->kept, p->mc) < 0 ? errno : 0;
	(void)mw_fs_posix()->sync_dir(mw_fs_posix(), p->dir);
	if (e)
		return mw_err_hint(err, "%s could not be put back (%s): it is %s", p->mc,
		                   strerror(e), p->kept);
	if (made)
		return mw_err_hint(err,
		                   "%s is as it was before, %s is not: make that anew "
		                   "before Sendmail starts again (touch %s first)",
		                   p->mc, p->cf, p->mc);
	return mw_err_hint(err, "%s is as it was before; look at it, and at what m4 says",
	                   p->mc);
}

static bool
cf_has_ours(const struct mw_smplan *p)
{
	struct mw_sendmail s;
	bool listed = false;
	return mw_sendmail_load(p->conf, p->cf, p->arena, &s, NULL) == 0 &&
	       mw_sendmail_ours(&s, &listed) && listed;
}

int
mw_sendmail_make(const struct mw_smplan *p, bool *ret_built, struct mw_err *err)
{
	MW_BUF_AUTO out = {0};
	struct stat before = {0}, after = {0};
	char make[] = "make", c[] = "-C", *dir = mw_arena_strdup(p->arena, p->dir);
	char *argv[] = {make, c, dir, NULL};
	*ret_built = false;
	if (!dir)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!p->makefile)
		return 0;
	bool had = stat(p->cf, &before) == 0;
	int r = mw_setup_run(argv, &out, err);
	bool made =
	    stat(p->cf, &after) == 0 && (!had || before.st_ino != after.st_ino ||
	                                 !same_time(before.st_mtim, after.st_mtim));
	if (r < 0) {
		(void)mw_err_prefix(err, "make -C %s", p->dir);
		(void)restore(p, made, err);
		return r;
	}
	*ret_built = made && cf_has_ours(p);
	if (!made || *ret_built)
		return 0;
	(void)mw_fail(err, MW_ECONF,
	              "%s was made anew, but mailwald is no input filter in it", p->cf);
	(void)restore(p, made, err);
	return err ? err->code : MW_ECONF;
}
