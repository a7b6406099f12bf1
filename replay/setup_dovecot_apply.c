/* setup_dovecot_apply.c - a master user for replay, in a file of its own.
 *
 * Nothing that is there is changed: two files are added, or none. If doveconf does not
 * take them, or does not read the first, they are removed again.
 */
#include "replay/setup_dovecot.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the text ---- */

void
mw_dovecot_text(const struct mw_dovecot *d, const char *master, struct mw_buf *out)
{
	mw_buf_printf(
	    out,
	    "# mailwal's master user: it may open every mailbox, so that replay "
	    "needs no\n"
	    "# user's password. Made by mailwal setup dovecot; to undo it, "
	    "remove this file\n"
	    "# and %s, and: doveadm reload\n",
	    master);
	if (!d || !mw_dovecot_get(d, "auth_master_user_separator")[0])
		mw_buf_puts(out, "auth_master_user_separator = *\n");
	mw_buf_printf(out,
	              "passdb {\n"
	              "  driver = passwd-file\n"
	              "  args = username_format=%%Ln %s\n"
	              "  master = yes\n",
	              master);
	if (!d)
		mw_buf_puts(out, "  # Asks the other passdbs whether the user is known. "
		                 "Debian's default,\n"
		                 "  # PAM, cannot tell: then take this line out, and the "
		                 "userdb decides.\n");
	else if (mw_dovecot_can_ask(d))
		mw_buf_puts(out,
		            "  # Asks the other passdbs whether the user is known.\n");
	else
		mw_buf_puts(out,
		            "  # No result_success = continue: the passdb of the users "
		            "cannot tell who\n"
		            "  # exists; the userdb decides.\n");
	if (!d || mw_dovecot_can_ask(d))
		mw_buf_puts(out, "  result_success = continue\n");
	mw_buf_puts(out, "}\n");
	if (d && mw_dovecot_acl_bars(d))
		mw_buf_puts(out, "# ACLs: a master user has the rights of the user whose "
		                 "mailbox he opens.\n"
		                 "plugin {\n  acl_user = %u\n}\n");
}

void
mw_setup_dovecot(const struct mw_conf *conf, struct mw_buf *out)
{
	static const char *const master = "/etc/dovecot/mailwal-master";
	const char *delimiter =
	    conf->recipient_delimiter ? conf->recipient_delimiter : "";
	mw_buf_puts(out, "# /etc/dovecot/conf.d/90-mailwal.conf\n"
	                 "# (mailwal setup dovecot --apply makes it):\n");
	mw_dovecot_text(NULL, master, out);
	if (delimiter[0])
		mw_buf_printf(
		    out,
		    "# As in mailwal.conf (and Postfix): alice%ctag is alice's.\n"
		    "recipient_delimiter = %s\n",
		    delimiter[0], delimiter);
	mw_buf_printf(
	    out,
	    "# Make the password file (mode 0640, root:dovecot), one line:\n"
	    "#   mailwal:{hash that 'doveadm pw' prints}::::::allow_nets=127.0.0.0/8\n"
	    "# It is %s.\n"
	    "# Then: doveadm reload; mailwal setup dovecot --check\n"
	    "# Replay with: mailwal replay … --to imap://127.0.0.1 --auth-user mailwal "
	    "\\\n#   --password-file FILE [--auth-style separator]\n",
	    master);
}

/* ---- what is missing ---- */

static bool
exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* Our own passdb, or somebody's master user. */
static void
find_masters(const struct mw_dovecot *d, struct mw_dvplan *p, bool *ret_ours)
{
	const char *rest = mw_dovecot_get(d, "passdb");
	struct mw_dovecot_db db;
	*ret_ours = false;
	while (mw_dovecot_db(d, "passdb", &rest, &db)) {
		struct mw_passwd_file file = {"", "", ""};
		if (!db.master)
			continue;
		if (strcmp(db.driver, "passwd-file") == 0)
			mw_dovecot_passwd_file(d, db.args, &file);
		if (strcmp(file.path, p->master) == 0)
			*ret_ours = true;
		else
			p->other = mw_arena_printf(d->arena, "%s %s", db.driver, db.args);
	}
}

static bool
has_users(const struct mw_dovecot *d)
{
	const char *rest = mw_dovecot_get(d, "passdb");
	struct mw_dovecot_db db;
	while (mw_dovecot_db(d, "passdb", &rest, &db))
		if (!db.master && !db.deny)
			return true;
	return false;
}

static int
what(const struct mw_dovecot *d, struct mw_dvplan *p, struct mw_err *err)
{
	const char *dir = mw_arena_printf(d->arena, "%s/conf.d", d->dir);
	MW_BUF_AUTO out = {0};
	if (!has_users(d))
		return mw_fail(err, MW_ECONF,
		               "%s has no passdb for users: Dovecot lets nobody in",
		               d->path);
	if (exists(p->conf))
		return mw_fail(
		    err, MW_ECONF,
		    "%s is there already, and makes no master user of %s: look "
		    "at it, and move it away",
		    p->conf, p->master);
	if (dir && !exists(dir)) {
		(void)mw_fail(err, MW_ECONF, "there is no directory %s", dir);
		return mw_err_hint(
		    err, "put what mailwal setup dovecot prints into %s by hand",
		    d->path);
	}
	mw_dovecot_text(d, p->master, &out);
	p->text = mw_arena_str(d->arena, mw_buf_str(&out)).p;
	return mw_buf_ok(&out) < 0 || !p->text || !dir
	           ? mw_fail(err, MW_ENOMEM, "out of memory")
	           : 0;
}

int
mw_dovecot_plan(const struct mw_dovecot *d, struct mw_dvplan *ret, struct mw_err *err)
{
	bool ours;
	*ret = (struct mw_dvplan){
	    .d = d,
	    .conf = mw_arena_printf(d->arena, "%s/conf.d/90-mailwal.conf", d->dir),
	    .master = mw_arena_printf(d->arena, "%s/mailwal-master", d->dir),
	    .group = mw_dovecot_get(d, "default_internal_group")};
	if (!ret->group[0]) /* before 2.3 */
		ret->group = mw_dovecot_get(d, "default_internal_user");
	if (!ret->conf || !ret->master)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (strpbrk(ret->master, " \t#\"$%"))
		return mw_fail(err, MW_ECONF,
		               "%s: a passdb cannot name a file in that directory",
		               d->dir);
	find_masters(d, ret, &ours);
	ret->make_master = (ours || !ret->other) && !exists(ret->master);
	return ours || ret->other ? 0 : what(d, ret, err);
}

/* ---- making it ---- */

static int
synced(const char *path, struct mw_err *err)
{
	MW_AUTOFREE char *dir = strdup(path);
	if (!dir)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	*strrchr(dir, '/') = '\0';
	int r = mw_fs_posix()->sync_dir(mw_fs_posix(), dir[0] ? dir : "/");
	if (r == 0)
		return 0;
	errno = -r;
	return mw_fail_errno(err, "cannot sync %s", dir);
}

static int
make_master(struct mw_dvplan *p, struct mw_err *err)
{
	const struct group *g = getgrnam(p->group);
	if (!g)
		return mw_fail(err, MW_ECONF, "there is no group %s for %s", p->group,
		               p->master);
	MW_AUTOCLOSE int fd =
	    open(p->master, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return mw_fail_errno(err, "cannot make %s", p->master);
	p->made_master = true;
	if (fchown(fd, 0, g->gr_gid) < 0 || fchmod(fd, 0640) < 0 || fsync(fd) < 0)
		return mw_fail_errno(err, "cannot make %s root:%s", p->master, p->group);
	return synced(p->master, err);
}

/* Under another name first, one that conf.d/\*.conf does not match: Dovecot reads the
 * whole file or none. */
static int
make_conf(struct mw_dvplan *p, struct mw_err *err)
{
	char *tmp = mw_arena_printf(p->d->arena, "%s.XXXXXX", p->conf);
	if (!tmp)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	MW_AUTOCLOSE int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return mw_fail_errno(err, "cannot write beside %s", p->conf);
	size_t n = strlen(p->text);
	int r = 0;
	if (write(fd, p->text, n) != (ssize_t)n || fchmod(fd, 0644) < 0 || fsync(fd) < 0)
		r = mw_fail_errno(err, "cannot write %s", tmp);
	else if (link(tmp, p->conf) < 0)
		r = mw_fail_errno(err, "cannot make %s", p->conf);
	else
		p->made_conf = true;
	(void)unlink(tmp);
	return r ? r : synced(p->conf, err);
}

/* Both files as they are meant, in the configuration that Dovecot would read now. */
static int
look_again(const struct mw_dvplan *p, struct mw_err *err)
{
	struct mw_dovecot now;
	struct mw_dvplan q = {.master = p->master};
	bool ours = false;
	int r = mw_dovecot_load(p->d->conf, p->d->config, p->d->arena, &now, err);
	if (r)
		return r;
	find_masters(&now, &q, &ours);
	if (ours)
		return 0;
	(void)mw_fail(err, MW_ECONF, "%s does not read %s", p->d->path, p->conf);
	return mw_err_hint(err, "add this line to it, and try again: "
	                        "!include_try conf.d/90-mailwal.conf");
}

/* A password file that somebody filled meanwhile stays. */
static void
take_back(struct mw_dvplan *p)
{
	struct stat st;
	if (p->made_conf && unlink(p->conf) == 0)
		(void)synced(p->conf, NULL);
	if (p->made_master && stat(p->master, &st) == 0 && st.st_size == 0 &&
	    unlink(p->master) == 0)
		(void)synced(p->master, NULL);
}

int
mw_dovecot_apply(struct mw_dvplan *p, struct mw_err *err)
{
	int r = p->make_master ? make_master(p, err) : 0;
	if (!r && p->text)
		r = make_conf(p, err);
	if (!r)
		r = look_again(p, err);
	if (r)
		take_back(p);
	return r;
}

int
mw_dovecot_reload(const struct mw_dovecot *d, bool *ret_running, struct mw_err *err)
{
	MW_BUF_AUTO out = {0};
	char doveadm[] = "doveadm", c[] = "-c", reload[] = "reload",
	     *path = mw_arena_strdup(d->arena, d->path);
	char *argv[] = {doveadm, c, path, reload, NULL};
	*ret_running = false;
	if (!path)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_setup_run(argv, &out, err);
	struct mw_str said = mw_buf_str(&out);
	*ret_running = r == 0;
	if (r && said.n && memmem(said.p, said.n, "not running", 11)) {
		mw_err_clear(err);
		return 0;
	}
	return r ? mw_err_hint(err,
	                       "the settings are made; Dovecot has not taken them up "
	                       "yet: doveadm reload")
	         : 0;
}
