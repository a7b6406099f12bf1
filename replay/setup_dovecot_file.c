/* setup_dovecot_file.c - a passwd-file of master users: is it there, who may read it, and
 * is there anybody in it. */
#include "replay/setup_dovecot.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
	FILE_LIMIT = 4 << 20,
	MOST_GROUPS = 128
};

#define text(...) mw_arena_printf(f->arena, __VA_ARGS__)

/* ---- may Dovecot read it? ---- */

struct who { /* the user that Dovecot's auth process runs as */
	const char *name;
	uid_t uid;
	gid_t gid[MOST_GROUPS];
	int n;
};

static bool
auth_user(const struct mw_dovecot *d, struct who *ret)
{
	const char *more = mw_dovecot_get(d, "service/auth/extra_groups"), *name;
	*ret = (struct who){.name = mw_dovecot_get(d, "service/auth/user")};
	const struct passwd *pw = ret->name[0] ? getpwnam(ret->name) : getpwuid(0);
	if (!pw)
		return false;
	ret->uid = pw->pw_uid;
	ret->n = MOST_GROUPS;
	if (getgrouplist(pw->pw_name, pw->pw_gid, ret->gid, &ret->n) < 0)
		ret->n = MOST_GROUPS;
	name = mw_dovecot_get(d, "service/auth/group");
	for (; name; name = mw_dovecot_next(d, &more)) {
		const struct group *g = name[0] ? getgrnam(name) : NULL;
		if (g && ret->n < MOST_GROUPS)
			ret->gid[ret->n++] = g->gr_gid;
	}
	return true;
}

/* bit: 4 to read a file, 1 to pass a directory. */
static bool
allowed(const struct who *w, const char *path, mode_t bit)
{
	struct stat st;
	if (w->uid == 0 || stat(path, &st) < 0)
		return true; /* what we cannot see is not called wrong */
	if (st.st_uid == w->uid)
		return st.st_mode & (bit << 6);
	for (int i = 0; i < w->n; i++)
		if (st.st_gid == w->gid[i])
			return st.st_mode & (bit << 3);
	return st.st_mode & bit;
}

/* What keeps w from reading it: the file, or a directory above it. NULL: nothing. */
static const char *
in_the_way(const struct who *w, const char *path, struct mw_arena *a)
{
	for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		const char *dir = mw_arena_printf(a, "%.*s", (int)(p - path), path);
		if (dir && !allowed(w, dir, 1))
			return dir;
	}
	return allowed(w, path, 4) ? NULL : path;
}

/* ---- who is in it ---- */

struct lines {
	size_t usable, plain, open, bare;
};

static bool
is_plain(struct mw_str password, const char *scheme)
{
	static const char *const plain[] = {"PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC"};
	struct mw_str s = mw_strz(scheme), rest;
	if (password.n && password.p[0] == '{')
		(void)mw_str_cut(mw_str(password.p + 1, password.n - 1), '}', &s, &rest);
	for (size_t i = 0; i < MW_COUNT(plain); i++)
		if (mw_str_ieq(s, mw_strz(plain[i])))
			return true;
	return false;
}

/* user:password:uid:gid:gecos:home:shell:extra */
static void
take_line(struct mw_str line, const struct mw_passwd_file *file, struct lines *ret)
{
	struct mw_str name, word, rest, password;
	line = mw_str_trim(line);
	if (!line.n || line.p[0] == '#' || line.p[0] == ':' ||
	    !mw_str_cut(line, ':', &name, &rest))
		return;
	password = rest;
	(void)mw_str_cut(rest, ':', &password, &rest);
	bool open = false;
	for (int i = 2; i < 7 && rest.n; i++)
		if (!mw_str_cut(rest, ':', &word, &rest))
			rest.n = 0;
	for (bool more = rest.n > 0; more && !open;) {
		word = rest;
		more = mw_str_cut(rest, ' ', &word, &rest);
		open = mw_str_eq(word, MW_STR("nopassword")) ||
		       mw_str_starts(word, MW_STR("nopassword="));
	}
	ret->open += open;
	ret->plain += password.n && is_plain(password, file->scheme);
	ret->usable += password.n || open;
	ret->bare += (password.n || open) && !memchr(name.p, '@', name.n);
}

static void
check_lines(const struct mw_dovecot *d, const struct mw_passwd_file *file,
            const struct lines *l, struct mw_advices *f)
{
	const char *realm = mw_dovecot_get(d, "auth_default_realm");
	if (l->open)
		mw_advice_add(f, MW_ADVICE_HOLE, "master_file",
		              text("%s: a master user with nopassword: whoever knows "
		                   "his name reads all mail",
		                   file->path),
		              "give him a password");
	if (!l->usable)
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "master_file",
		    text("%s holds nobody with a password: no replay can log in",
		         file->path),
		    text("printf 'mailwal:%%s::::::allow_nets=127.0.0.0/8\\n' "
		         "\"$(doveadm pw)\" >> %s",
		         file->path));
	else if (realm[0] && l->bare == l->usable &&
	         (!file->format[0] || strstr(file->format, "%u")))
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "auth_default_realm",
		    text("auth_default_realm = %s makes every name without a domain one "
		         "of that domain, and the names in %s have none: they are not "
		         "found",
		         realm, file->path),
		    text("args = username_format=%%Ln %s", file->path));
	if (l->plain)
		mw_advice_add(f, MW_ADVICE_NOTE, "master_file",
		              text("%s holds a password that is not hashed", file->path),
		              "doveadm pw makes a hash");
}

static void
look_into(const struct mw_dovecot *d, const struct mw_passwd_file *file,
          struct mw_advices *f)
{
	void *bytes = NULL;
	size_t n = 0;
	struct lines l = {0};
	int r = mw_fs_read_file(mw_fs_posix(), file->path, FILE_LIMIT, &bytes, &n);
	if (r < 0) {
		mw_advice_add(
		    f, MW_ADVICE_NOTE, "master_file",
		    text("%s cannot be read: %s; who is in it was not looked at",
		         file->path, strerror(-r)),
		    r == -EACCES ? "run this as root" : "");
		return;
	}
	struct mw_str line, rest = mw_str(bytes, n);
	while (mw_str_cut(rest, '\n', &line, &rest))
		take_line(line, file, &l);
	take_line(rest, file, &l);
	explicit_bzero(bytes, n);
	free(bytes);
	check_lines(d, file, &l, f);
}

void
mw_dovecot_check_file(const struct mw_dovecot *d, const char *args, struct mw_advices *f)
{
	struct mw_passwd_file file;
	struct stat st;
	struct who w;
	mw_dovecot_passwd_file(d, args, &file);
	if (file.path[0] != '/' || strchr(file.path, '%')) {
		mw_advice_add(f, MW_ADVICE_NOTE, "master_file",
		              text("master users are in %s, which was not looked at",
		                   file.path),
		              "");
		return;
	}
	if (stat(file.path, &st) < 0) {
		bool missing = errno == ENOENT || errno == ENOTDIR;
		mw_advice_add(f, missing ? MW_ADVICE_HOLE : MW_ADVICE_NOTE, "master_file",
		              text("%s: %s%s", file.path, strerror(errno),
		                   missing ? ": no master user can log in" : ""),
		              missing ? "make it, mode 0640, owner root, group dovecot"
		                      : "run this as root");
		return;
	}
	bool known = auth_user(d, &w);
	const char *bar = known ? in_the_way(&w, file.path, f->arena) : NULL;
	if (bar)
		mw_advice_add(f, MW_ADVICE_HOLE, "master_file",
		              text("%s: %s cannot be %s by the user of Dovecot's auth "
		                   "service (%s): no master user can log in",
		                   file.path, bar, bar == file.path ? "read" : "passed",
		                   w.name),
		              text("chgrp dovecot %s; chmod 0640 %s", file.path,
		                   file.path));
	if (st.st_mode & 07)
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "master_file",
		    text("%s: mode %04o: every user of this host may %s the passwords "
		         "that open every mailbox",
		         file.path, (unsigned)st.st_mode & 07777,
		         st.st_mode & 02 ? "change" : "read"),
		    text("chmod 0640 %s", file.path));
	look_into(d, &file, f);
}
