/* cmd_init.c - mailwal init. */
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/cmd.h"
#include "replay/noted.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ask {
	const char *dir, *owner;
	uid_t uid;
	gid_t gid;
};

/* 0, or the exit status of a mistake. */
static int
parse(struct mw_cli *cli, int argc, char **argv, struct ask *a)
{
	const struct mw_cmd *cmd = mw_cmd_find("init");
	struct mw_err err = {0};
	bool options = true; /* until "--" */
	for (int i = 1; i < argc; i++) {
		if (options && strcmp(argv[i], "--") == 0) {
			options = false;
			continue;
		}
		int r = options
		            ? mw_cli_option(argc, argv, &i, "--owner", &a->owner, &err)
		            : 0;
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r > 0)
			continue;
		if ((options && argv[i][0] == '-') || a->dir)
			return mw_cli_unknown(cli, cmd, argv[i]);
		a->dir = argv[i];
	}
	if (a->dir && a->dir[0] == '\0')
		return mw_cli_usage(cli, cmd, "the directory's name is empty");
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	if (!a->dir && cli->n_journals > 1)
		return mw_cli_usage(cli, cmd, "one journal at a time");
	if (!a->dir)
		a->dir = cli->journals[0];
	return 0;
}

static int
find_owner(struct ask *a, struct mw_err *err)
{
	if (!a->owner)
		return 0;
	errno = 0;
	const struct passwd *pw = getpwnam(a->owner);
	if (!pw)
		return mw_fail(err, MW_ENOTFOUND, "no user named '%s'", a->owner);
	a->uid = pw->pw_uid;
	a->gid = pw->pw_gid;
	return 0;
}

struct giving {
	const struct ask *ask;
	const char *dir;
	int depth;
	int failed;
};

/* Every entry below dir, not following links; two levels are all a new journal has. */
static int
give_entry(void *arg, const char *name)
{
	struct giving *g = arg;
	char path[4096];
	struct stat sb;
	const struct mw_fs *fs = mw_fs_posix();
	if (snprintf(path, sizeof path, "%s/%s", g->dir, name) >= (int)sizeof path ||
	    lchown(path, g->ask->uid, g->ask->gid) < 0)
		return g->failed = errno ? errno : ENAMETOOLONG;
	if (g->depth > 0 && lstat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) {
		struct giving sub = {g->ask, path, g->depth - 1, 0};
		(void)fs->list(fs, path, give_entry, &sub);
		return g->failed = sub.failed;
	}
	return 0;
}

static int
give(const struct ask *a, struct mw_err *err)
{
	struct giving g = {a, a->dir, 2, 0};
	const struct mw_fs *fs = mw_fs_posix();
	if (!a->owner)
		return 0;
	if (lchown(a->dir, a->uid, a->gid) < 0)
		return mw_fail_errno(err, "cannot give %s to %s", a->dir, a->owner);
	(void)fs->list(fs, a->dir, give_entry, &g);
	if (g.failed) {
		errno = g.failed;
		return mw_fail_errno(err, "cannot give what is in %s to %s", a->dir,
		                     a->owner);
	}
	return 0;
}

static void
tell(const struct mw_cli *cli, const struct ask *a)
{
	if (cli->json) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "message_type", json_string("summary"));
		(void)json_object_set_new(o, "journal", mw_json_str(mw_strz(a->dir)));
		mw_cli_json(o);
		return;
	}
	if (cli->quiet)
		return;
	MW_AUTOFREE char *path = realpath(a->dir, NULL);
	const char *dir = path ? path : a->dir;
	printf("Created the journal %s\n", a->dir);
	if (strcmp(dir, cli->conf->journal_dir) != 0)
		printf(
		    "It is not the configured one; in mailwal.conf: journal_dir = %s\n",
		    dir);
	if (geteuid() == 0 && !a->owner)
		puts("It belongs to root. If mailwald runs as another user:\n"
		     "  chown -R that-user the-directory   (or: mailwal init --owner "
		     "USER)");
	if (cli->conf->recovery_key.n == 0)
		puts("It is readable to whoever can read its files: no recovery key is "
		     "configured.");
	const char *on;
	if (mw_fs_posix()->lies_on(mw_fs_posix(), a->dir, &on) == MW_FS_MEMORY)
		printf("It is on %s, so it is gone with the next boot.\n", on);
	puts("Next:\n"
	     "  start mailwald             (systemctl enable --now mailwald)\n"
	     "  mailwal setup postfix      the settings that send mail through it\n"
	     "  mailwal status");
}

int
mw_cmd_init(struct mw_cli *cli, int argc, char **argv)
{
	struct ask a = {0};
	struct mw_err err = {0};
	int status = parse(cli, argc, argv, &a);
	if (status != 0)
		return status;
	int r = find_owner(&a, &err);
	if (r == 0)
		r = mw_store_create(a.dir, NULL, NULL, &err);
	if (r == 0 && chmod(a.dir, 0750) < 0)
		r = mw_fail_errno(&err, "cannot set the mode of %s", a.dir);
	if (r == 0) {
		MW_BUF_AUTO none = {0};
		mw_buf_puts(&none, "holds 0\n");
		mw_noted(a.dir, "holds", true, &none);
		r = give(&a, &err);
	}
	if (r < 0)
		return mw_cli_error(cli, &err);
	tell(cli, &a);
	return 0;
}
