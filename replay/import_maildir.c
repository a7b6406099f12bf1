/* import_maildir.c - Maildir and its folders (Maildir++), and trees of .eml files. */
#include "replay/import.h"
#include "replay/mdir_list.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	DEPTH = 32,
	SIDE_MAX = 4 << 20 /* a .json file beside an .eml */
};

struct names {
	char **v;
	size_t n, cap;
};

static void
names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All entries of a directory, sorted: a run that is started again goes the same way. */
static int
list(int dirfd, bool hidden, struct names *ret, struct mw_err *err)
{
	struct dirent *e;
	int fd = dup(dirfd);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		int r = mw_fail_errno(err, "cannot look into a directory");
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	rewinddir(d);
	int r = 0;
	while (r == 0 && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    (!hidden && e->d_name[0] == '.'))
			continue;
		if (ret->n == ret->cap) {
			size_t cap = ret->cap ? 2 * ret->cap : 256;
			void *p = reallocarray(ret->v, cap, sizeof *ret->v);
			if (!p) {
				r = mw_fail(err, MW_ENOMEM, "out of memory");
				break;
			}
			ret->v = p;
			ret->cap = cap;
		}
		ret->v[ret->n] = strdup(e->d_name);
		if (ret->v[ret->n])
			ret->n++;
		else
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	}
	(void)closedir(d);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof *ret->v, by_name);
	return r;
}

static int64_t
file_time(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000 + st->st_mtim.tv_nsec / 1000;
}

/* ---- Maildir ---- */

struct maildir {
	const struct mw_import_src *s;
	const struct mw_import_box *b;
	const char *name; /* of the folder, as a record has it; or NULL */
	bool sent;        /* it is Sent */
	struct mw_err *err;
};

static int
one_message(const struct maildir *m, int folder, const char *path,
            const struct mw_mdir_entry *e, struct mw_mdir_now *now)
{
	const struct mw_import_sink *sink = m->s->sink;
	char name[PATH_MAX];
	struct stat st;
	(void)snprintf(name, sizeof name, "%.3000s/%s/%.900s", path,
	               e->in_new ? "new" : "cur", e->name);
	MW_AUTOCLOSE int fd = mw_mdir_open(folder, e->in_new, e->name, now);
	if (fd < 0 && errno == ENOENT)
		return 0; /* its user removed it meanwhile */
	if (fd < 0 || fstat(fd, &st) < 0)
		return sink->trouble(sink->arg, name, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return sink->trouble(sink->arg, name, "it is no file");
	struct mw_import_msg msg = {.name = name,
	                            .owner = m->b->owner,
	                            .mailbox = m->b->mailbox,
	                            .folder = m->name,
	                            .sent = m->sent || m->s->sent,
	                            .time_us = file_time(&st)};
	return mw_import_file(m->s, fd, &msg);
}

static int
one_folder(const struct maildir *m, const char *path, enum mw_import_folder kind)
{
	const struct mw_import_sink *sink = m->s->sink;
	MW_AUTOCLOSE int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct mw_mdir_list l;
	struct mw_mdir_now now = {.listed = false};
	struct mw_err why = {0};
	if (folder < 0)
		return sink->trouble(sink->arg, path, strerror(errno));
	int r = mw_mdir_list(folder, &l, &why);
	if (r == MW_ENOMEM)
		r = mw_fail(m->err, r, "out of memory");
	else if (r < 0)
		r = sink->trouble(sink->arg, path, why.msg);
	for (size_t i = 0; i < l.n && r == 0 && kind != MW_IMPORT_LEAVE; i++)
		r = one_message(m, folder, path, &l.v[i], &now);
	if (l.n && kind == MW_IMPORT_LEAVE)
		sink->skipped(sink->arg, path, l.n);
	mw_mdir_list_free(&l);
	mw_mdir_list_free(&now.l);
	return r;
}

int
mw_import_maildir(const struct mw_import_src *s, const struct mw_import_box *b,
                  struct mw_err *err)
{
	struct maildir m = {s, b, NULL, false, err};
	char room[512];
	struct names l = {0};
	char path[PATH_MAX];
	struct stat st;
	MW_AUTOCLOSE int dir = open(b->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return mw_fail_errno(err, "cannot open %s", b->path);
	if (fstatat(dir, "cur", &st, 0) < 0)
		return mw_fail(err, MW_ENOTFOUND, "%s is no Maildir: it has no cur",
		               b->path);
	int r = one_folder(&m, b->path, MW_IMPORT_INBOX);
	if (r == 0)
		r = list(dir, true, &l, err);
	for (size_t i = 0; i < l.n && r == 0; i++) {
		if (l.v[i][0] != '.' ||
		    snprintf(path, sizeof path, "%s/%s/cur", b->path, l.v[i]) >=
		        (int)sizeof path ||
		    access(path, F_OK) < 0)
			continue;
		path[strlen(path) - 4] = '\0';
		enum mw_import_folder kind =
		    mw_import_folder(s->cli->conf, mw_strz(l.v[i] + 1), '.');
		if (kind == MW_IMPORT_LEAVE && s->all_folders)
			kind = MW_IMPORT_INBOX;
		m.sent = kind == MW_IMPORT_SENT;
		m.name = m.sent ? NULL
		                : mw_import_folder_name(mw_strz(l.v[i] + 1), '.', true,
		                                        room, sizeof room);
		r = one_folder(&m, path, kind);
	}
	names_free(&l);
	return r;
}

/* ---- eml ---- */

/* What an export wrote beside the message: its time and sender. */
static void
side_file(int dir, const char *file, struct mw_import_msg *m, char *sender, size_t n)
{
	char name[NAME_MAX + 8];
	struct stat st;
	(void)snprintf(name, sizeof name, "%.*s.json", (int)(strlen(file) - 4), file);
	MW_AUTOCLOSE int fd =
	    openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SIDE_MAX)
		return;
	json_t *o = json_loadfd(fd, 0, NULL);
	const char *time = json_string_value(json_object_get(o, "time"));
	const char *from = json_string_value(json_object_get(o, "sender"));
	int64_t us;
	if (time && mw_time_parse(time, 0, &us) == 0)
		m->time_us = us;
	if (from && strlen(from) < n) {
		(void)snprintf(sender, n, "%s", from);
		m->sender = mw_strz(sender);
	}
	json_decref(o);
}

static int
one_eml(const struct mw_import_src *s, const struct mw_import_box *b, int dir,
        const char *path, const char *file, bool sent)
{
	const struct mw_import_sink *sink = s->sink;
	char name[PATH_MAX], sender[1024];
	struct stat st;
	(void)snprintf(name, sizeof name, "%.3000s/%.900s", path, file);
	MW_AUTOCLOSE int fd =
	    openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return sink->trouble(sink->arg, name, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return 0;
	struct mw_import_msg m = {.name = name,
	                          .owner = b->owner,
	                          .mailbox = b->mailbox,
	                          .sent = sent,
	                          .time_us = INT64_MIN};
	side_file(dir, file, &m, sender, sizeof sender);
	return mw_import_file(s, fd, &m);
}

static int
eml_tree(const struct mw_import_src *s, const struct mw_import_box *b, const char *path,
         bool sent, int depth, struct mw_err *err)
{
	const struct mw_import_sink *sink = s->sink;
	char sub[PATH_MAX];
	struct names l = {0};
	struct stat st;
	MW_AUTOCLOSE int dir =
	    open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (depth ? O_NOFOLLOW : 0));
	if (dir < 0)
		return sink->trouble(sink->arg, path, strerror(errno));
	int r = list(dir, false, &l, err);
	for (size_t i = 0; i < l.n && r == 0; i++) {
		size_t n = strlen(l.v[i]);
		if (fstatat(dir, l.v[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISDIR(st.st_mode) && depth < DEPTH &&
		    snprintf(sub, sizeof sub, "%s/%s", path, l.v[i]) < (int)sizeof sub) {
			enum mw_import_folder kind =
			    mw_import_folder(s->cli->conf, mw_strz(l.v[i]), 0);
			r = eml_tree(s, b, sub, sent || kind == MW_IMPORT_SENT, depth + 1,
			             err);
		} else if (n > 4 && strcmp(l.v[i] + n - 4, ".eml") == 0) {
			r = one_eml(s, b, dir, path, l.v[i], sent);
		}
	}
	names_free(&l);
	return r;
}

int
mw_import_eml(const struct mw_import_src *s, const struct mw_import_box *b,
              struct mw_err *err)
{
	struct stat st;
	if (stat(b->path, &st) < 0)
		return mw_fail_errno(err, "cannot look at %s", b->path);
	if (!S_ISDIR(st.st_mode))
		return mw_fail(err, MW_EUSAGE, "%s is no directory", b->path);
	return eml_tree(s, b, b->path, s->sent, 0, err);
}
