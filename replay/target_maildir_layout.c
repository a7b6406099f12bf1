#include "replay/target_maildir.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/imap_parse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Maildir++ (Dovecot, Courier): folders are ".A.B" in the Maildir, with an empty file
 * maildirfolder. Dovecot's LAYOUT=fs: directories below each other, "A/B". Both keep
 * names in modified UTF-7. What the servers number (dovecot-uidlist, courierimapuiddb)
 * and index is left to them; a file that appears in "new" is theirs to number. */

enum {
	DEPTH = 32,
	SUBSCRIPTIONS_MAX = 4 << 20,
	LOCK_MS = 5000
};

static const char *const parts[] = {"tmp", "new", "cur"};

static bool
is_part(const char *name)
{
	for (size_t i = 0; i < MW_COUNT(parts); i++)
		if (strcmp(name, parts[i]) == 0)
			return true;
	return false;
}

static bool
has(const char *dir, const char *name)
{
	char path[PATH_MAX];
	return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path &&
	       access(path, F_OK) == 0;
}

int
mw_mdir_make(const char *path, struct mw_err *err)
{
	char buf[PATH_MAX];
	for (size_t i = 0; i < MW_COUNT(parts); i++) {
		if (snprintf(buf, sizeof buf, "%s/%s", path, parts[i]) >= (int)sizeof buf)
			return mw_fail(err, MW_ECREATE, "path too long: %.100s", path);
		int r = mw_files_mkdirs(buf, err);
		if (r)
			return r;
	}
	return 0;
}

int
mw_mdir_no_links(const char *path, struct mw_err *err)
{
	char buf[PATH_MAX];
	struct stat st;
	for (size_t i = 0; i <= MW_COUNT(parts); i++) {
		(void)snprintf(buf, sizeof buf, "%.3000s%s%s", path, i ? "/" : "",
		               i ? parts[i - 1] : "");
		if (lstat(buf, &st) < 0 || !S_ISLNK(st.st_mode))
			continue;
		if (i || (geteuid() == 0 && !mw_files_link_stays(buf)))
			return mw_fail(err, MW_EPERM, "%s is a symbolic link", buf);
	}
	return 0;
}

/* ---- which layout ---- */

/* Is there a folder below as a plain directory? */
static bool
plain_folders(const char *dir, int depth)
{
	struct dirent *e;
	char sub[PATH_MAX];
	bool found = false;
	DIR *d = opendir(dir);
	while (d && !found && (e = readdir(d))) {
		if (e->d_name[0] == '.' || is_part(e->d_name) ||
		    snprintf(sub, sizeof sub, "%s/%s", dir, e->d_name) >= (int)sizeof sub)
			continue;
		found = (has(sub, "cur") && has(sub, "new")) ||
		        (depth < 3 && plain_folders(sub, depth + 1));
	}
	if (d)
		(void)closedir(d);
	return found;
}

void
mw_mdir_layout(struct mw_mdir *m, enum mw_layout wish)
{
	m->layout = wish;
	if (wish != MW_LAYOUT_AUTO)
		return;
	m->layout = MW_LAYOUT_PLUS;
	if (has(m->path, "courierimapsubscribed") || has(m->path, "courierimapuiddb"))
		m->layout = MW_LAYOUT_COURIER;
	else if (plain_folders(m->path, 0))
		m->layout = MW_LAYOUT_FS;
}

/* ---- finding folders ---- */

static int
add_folder(struct mw_mdir *m, const char *path)
{
	struct stat st;
	const struct mw_mdir_place *p = m->place;
	if (stat(path, &st) < 0)
		return 0; /* it went while we looked */
	for (size_t i = 0; i < m->n_folder; i++)
		if (m->folder[i].dev == st.st_dev && m->folder[i].ino == st.st_ino)
			return 1;
	void *v = realloc(m->folder, (m->n_folder + 1) * sizeof *m->folder);
	char *copy = strdup(path);
	if (v)
		m->folder = v;
	if (!v || !copy) {
		free(copy);
		return MW_ENOMEM;
	}
	/* What was put into Sent by wish is looked for there like anywhere else. */
	while (p && strcmp(p->name, m->sent) != 0)
		p = p->next;
	bool plain = m->dest && strcmp(m->dest, m->sent) == 0;
	m->folder[m->n_folder++] =
	    (struct mw_mdir_folder){.path = copy,
	                            .sent = p && !plain && strcmp(path, p->path) == 0,
	                            .dev = st.st_dev,
	                            .ino = st.st_ino};
	return 0;
}

static int
folders_below(struct mw_mdir *m, const char *dir, int depth, struct mw_err *err)
{
	char path[PATH_MAX];
	bool fs = m->layout == MW_LAYOUT_FS;
	struct dirent *e;
	struct stat st;
	int r = 0;
	DIR *d = opendir(dir);
	if (!d)
		return mw_fail_errno(err, "cannot look into %s", dir);
	while (r >= 0 && (e = readdir(d))) {
		const char *name = e->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    (fs ? name[0] == '.' || is_part(name) : name[0] != '.'))
			continue;
		if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path ||
		    stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		r = has(path, "cur") ? add_folder(m, path) : 0;
		if (r == MW_ENOMEM)
			(void)mw_fail(err, r, "out of memory");
		else if (r == 0 && fs && depth < DEPTH) /* 1: seen by another name */
			r = folders_below(m, path, depth + 1, err);
	}
	(void)closedir(d);
	return r < 0 ? r : 0;
}

int
mw_mdir_folders(struct mw_mdir *m, struct mw_err *err)
{
	if (add_folder(m, m->path) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return folders_below(m, m->path, 0, err);
}

/* ---- a folder's place ---- */

static int
no_such_name(const char *folder, const char *why, struct mw_err *err)
{
	return mw_fail(err, MW_EUSAGE,
	               "\"%.100s\" cannot be a folder of this Maildir: %s", folder, why);
}

/* What the server would not show, or what would lie elsewhere, is no folder. With
 * Maildir++ a dot parts levels, too. */
static const char *
bad_level(const struct mw_mdir *m, const char *folder)
{
	bool fs = m->layout == MW_LAYOUT_FS;
	char level[NAME_MAX + 1];
	for (int depth = 0; *folder || depth; depth++) {
		size_t n = strcspn(folder, fs ? "/" : "/.");
		if (!n || n > NAME_MAX)
			return "the length of a level";
		(void)snprintf(level, sizeof level, "%.*s", (int)n, folder);
		if (fs && level[0] == '.')
			return "a level begins with a dot";
		if (fs && is_part(level))
			return "a level is cur, new or tmp";
		if (fs && depth > DEPTH)
			return "too many levels";
		if (!folder[n])
			return NULL;
		folder += n + 1;
	}
	return NULL;
}

/* Is each part of it short enough for a file system? */
static bool
short_parts(const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");
		if (n > NAME_MAX)
			return false;
		path += n + (path[n] == '/');
	}
	return true;
}

static char *
path_of(const struct mw_mdir *m, const char *folder)
{
	MW_BUF_AUTO b = {0}, n = {0};
	bool fs = m->layout == MW_LAYOUT_FS;
	if (!*folder)
		return strdup(m->path);
	if (!mw_imap_utf7(mw_strz(folder), &n))
		return NULL;
	mw_buf_printf(&b, "%s/%s", m->path, fs ? "" : ".");
	for (size_t i = 0; i < n.n; i++)
		mw_buf_putc(&b, n.p[i] == '/' && !fs ? '.' : (char)n.p[i]);
	if (b.failed || n.failed || b.n > PATH_MAX - 300 || !short_parts(mw_buf_cstr(&b)))
		return NULL;
	return strdup(mw_buf_cstr(&b));
}

int
mw_mdir_place(struct mw_mdir *m, const char *folder, struct mw_mdir_place **ret,
              struct mw_err *err)
{
	if (strcasecmp(folder, "INBOX") == 0)
		folder = "";
	for (struct mw_mdir_place *p = m->place; p; p = p->next)
		if (strcmp(p->name, folder) == 0) {
			*ret = p;
			return 0;
		}
	const char *why = bad_level(m, folder);
	if (why)
		return no_such_name(folder, why, err);
	struct mw_mdir_place *p = calloc(1, sizeof *p);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	p->name = strdup(folder);
	p->path = path_of(m, folder);
	if (!p->name || !p->path) {
		free(p->name);
		free(p->path);
		free(p);
		return no_such_name(folder, "its length, or it is not UTF-8", err);
	}
	p->ready = !*folder;
	p->next = m->place;
	*ret = m->place = p;
	return 0;
}

/* ---- making a folder, and making it known ---- */

/* A file of the Maildir, as its own mail is. */
static int
own(const struct mw_mdir *m, int fd)
{
	if (geteuid() == 0 && fchown(fd, m->uid, m->gid) < 0)
		return -1;
	return fchmod(fd, m->file_mode);
}

static bool
mark_folder(const struct mw_mdir *m, const char *path)
{
	char name[PATH_MAX];
	(void)snprintf(name, sizeof name, "%.3000s/maildirfolder", path);
	MW_AUTOCLOSE int fd =
	    open(name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd >= 0 && own(m, fd) == 0;
}

/* A line as the server writes it: Courier "INBOX.A.B"; Dovecot "A.B" or "A/B", and with
 * tabs between levels where the file says that it is of version 2. */
static bool
line_of(const struct mw_mdir *m, const char *folder, struct mw_str old,
        struct mw_buf *out)
{
	MW_BUF_AUTO n = {0};
	char sep = m->layout == MW_LAYOUT_FS ? '/' : '.';
	if (mw_str_starts(old, MW_STR("V\t2\n")))
		sep = '\t';
	if (!mw_imap_utf7(mw_strz(folder), &n))
		return false;
	if (m->layout == MW_LAYOUT_COURIER)
		mw_buf_puts(out, "INBOX.");
	for (size_t i = 0; i < n.n; i++)
		mw_buf_putc(out, n.p[i] == '/' ? sep : (char)n.p[i]);
	return !n.failed && !out->failed;
}

static bool
has_line(struct mw_str text, struct mw_str line)
{
	struct mw_str one, rest;
	while (text.n) {
		if (!mw_str_cut(text, '\n', &one, &rest)) {
			one = text;
			rest = mw_str("", 0);
		}
		if (mw_str_eq(one, line))
			return true;
		text = rest;
	}
	return false;
}

/* 1 read, 0 there is none, -1 it cannot be read, or is no file. */
static int
read_all(const char *path, struct mw_buf *out)
{
	struct stat st;
	MW_AUTOCLOSE int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SUBSCRIPTIONS_MAX)
		return -1;
	for (;;) {
		char piece[8192];
		ssize_t k = read(fd, piece, sizeof piece);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 || out->failed ? -1 : 1;
		mw_buf_put(out, piece, (size_t)k);
	}
}

/* The new file beside the old one, by the name that keeps Dovecot out meanwhile. */
static int
lock_file(const char *path)
{
	int fd = -1;
	for (int ms = 0; fd < 0 && ms < LOCK_MS; ms += 50) {
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 && errno != EEXIST)
			return -1;
		if (fd < 0)
			(void)poll(NULL, 0, 50);
	}
	return fd;
}

static bool
write_all(int fd, const struct mw_buf *b)
{
	size_t at = 0;
	while (at < b->n) {
		ssize_t k = write(fd, b->p + at, b->n - at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		at += (size_t)k;
	}
	return !b->failed && fsync(fd) == 0;
}

static bool
subscribe(const struct mw_mdir *m, const char *folder)
{
	MW_BUF_AUTO text = {0}, line = {0};
	char path[PATH_MAX], lock[PATH_MAX];
	bool courier = m->layout == MW_LAYOUT_COURIER;
	(void)snprintf(path, sizeof path, "%.3000s/%s", m->path,
	               courier ? "courierimapsubscribed" : "subscriptions");
	(void)snprintf(lock, sizeof lock, "%.3100s.lock", path);
	MW_AUTOCLOSE int fd = lock_file(lock);
	if (fd < 0)
		return false;
	bool there = false;
	bool good =
	    read_all(path, &text) >= 0 && line_of(m, folder, mw_buf_str(&text), &line);
	if (good)
		there = has_line(mw_buf_str(&text), mw_buf_str(&line));
	if (good && !there) {
		if (text.n && text.p[text.n - 1] != '\n')
			mw_buf_putc(&text, '\n');
		mw_buf_putstr(&text, mw_buf_str(&line));
		mw_buf_putc(&text, '\n');
		good = write_all(fd, &text) && own(m, fd) == 0 && rename(lock, path) == 0;
	}
	if (!good || there)
		(void)unlink(lock);
	return good;
}

/* The levels above a folder of LAYOUT=fs are its user's as well. */
static int
links_between(const struct mw_mdir *m, const char *path, struct mw_err *err)
{
	char up[PATH_MAX];
	struct stat st;
	size_t n = strlen(m->path);
	while (geteuid() == 0 && path[n] && path[n + 1]) {
		n += 1 + strcspn(path + n + 1, "/");
		(void)snprintf(up, sizeof up, "%.*s", (int)n, path);
		if (lstat(up, &st) == 0 && S_ISLNK(st.st_mode))
			return mw_fail(err, MW_EPERM, "%s is a symbolic link", up);
	}
	return 0;
}

int
mw_mdir_ready(struct mw_target *t, struct mw_mdir *m, struct mw_mdir_place *p,
              struct mw_err *err)
{
	char note[300];
	bool fresh = !has(p->path, "cur");
	if (p->ready)
		return 0;
	int r = links_between(m, p->path, err);
	if (!r)
		r = mw_mdir_no_links(p->path, err);
	if (!r && fresh)
		r = mw_mdir_make(p->path, err);
	if (r)
		return r;
	p->ready = true;
	if (!fresh)
		return 0;
	bool known = m->layout == MW_LAYOUT_FS || mark_folder(m, p->path);
	known = subscribe(m, p->name) && known;
	if (!known && t->o.note) { /* shown or not, the mail is there */
		(void)snprintf(note, sizeof note,
		               "%.200s: the new folder could not be subscribed", p->path);
		t->o.note(t->o.note_arg, note);
	}
	return 0;
}

void
mw_mdir_count(struct mw_mdir *m, uint64_t bytes, size_t messages)
{
	char path[PATH_MAX], line[64];
	struct stat st;
	(void)snprintf(path, sizeof path, "%.3000s/maildirsize", m->path);
	MW_AUTOCLOSE int fd =
	    open(path, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return; /* nobody counts here */
	int n = snprintf(line, sizeof line, "%llu %zu\n", (unsigned long long)bytes,
	                 messages);
	/* One write: others append too. A line that is missing is made up for when the
	 * server counts anew. */
	if (write(fd, line, (size_t)n) < 0)
		return;
}
