#include "replay/target_files.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/imap_parse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* A Maildir and its Maildir++ folders (".Sent"). Files are written into tmp, synced,
 * dated, renamed into new; the directory is synced before a copy counts as put. Bytes are
 * the captured ones, CRLF included, which Dovecot and Courier read as they do LF. The
 * server's own index files are left to the server. */

enum {
	BATCH = 64 /* renames under one sync of the directory */
};

struct message {
	uint32_t folder;
	bool in_new;
	char *name;
};

struct folder {
	char *path;
	bool sent;
};

struct maildir {
	char *path;
	char *sent; /* its path */
	char *dest; /* of --folder; NULL: the Maildir itself, or Sent */
	struct folder *folder;
	size_t n_folder;
	struct message *msg;
	size_t n_msg, cap_msg;
	mode_t file_mode;
	uid_t uid;
	gid_t gid;
	bool missing; /* dry run: it would be made */
	unsigned counter;
};

static void
forget(struct maildir *m)
{
	for (size_t i = 0; i < m->n_msg; i++)
		free(m->msg[i].name);
	for (size_t i = 0; i < m->n_folder; i++)
		free(m->folder[i].path);
	free(m->folder);
	m->folder = NULL;
	m->n_msg = m->n_folder = 0;
}

static void
maildir_free(struct mw_target *t)
{
	struct maildir *m = t->own;
	t->own = NULL;
	if (!m)
		return;
	forget(m);
	free(m->msg);
	free(m->path);
	free(m->sent);
	free(m->dest);
	free(m);
}

static int
make_maildir(const char *path, struct mw_err *err)
{
	static const char *const sub[] = {"tmp", "new", "cur"};
	char buf[PATH_MAX];
	for (size_t i = 0; i < MW_COUNT(sub); i++) {
		if (snprintf(buf, sizeof buf, "%s/%s", path, sub[i]) >= (int)sizeof buf)
			return mw_fail(err, MW_ECREATE, "path too long: %.100s", path);
		int r = mw_files_mkdirs(buf, err);
		if (r)
			return r;
	}
	return 0;
}

/* ".Sent"; "/" in the name is a level of Maildir++. */
static char *
folder_path(const char *path, const char *name)
{
	MW_BUF_AUTO b = {0}, n = {0};
	if (!mw_imap_utf7(mw_strz(name), &n))
		return NULL;
	mw_buf_printf(&b, "%s/.", path);
	for (size_t i = 0; i < n.n; i++)
		mw_buf_putc(&b, n.p[i] == '/' ? '.' : (char)n.p[i]);
	return b.failed || n.failed ? NULL : strdup(mw_buf_cstr(&b));
}

static bool
parent_exists(const char *path)
{
	char buf[PATH_MAX];
	(void)snprintf(buf, sizeof buf, "%s", path);
	char *slash = strrchr(buf, '/');
	if (!slash)
		return true;
	*(slash == buf ? slash + 1 : slash) = '\0';
	return access(buf, F_OK) == 0;
}

/* Root must not be led elsewhere by the owner of a Maildir: its parts are directories,
 * not links to some. */
static int
no_links(const char *path, struct mw_err *err)
{
	static const char *const sub[] = {"", "/tmp", "/new", "/cur"};
	char buf[PATH_MAX];
	struct stat st;
	for (size_t i = 0; i < MW_COUNT(sub); i++) {
		(void)snprintf(buf, sizeof buf, "%.3000s%s", path, sub[i]);
		if (lstat(buf, &st) == 0 && S_ISLNK(st.st_mode) && (i || geteuid() == 0))
			return mw_fail(err, MW_EPERM, "%s is a symbolic link", buf);
	}
	return 0;
}

static int
find_box(struct mw_target *t, struct maildir *m, bool dry, struct mw_err *err)
{
	struct stat st;
	char cur[PATH_MAX];
	(void)snprintf(cur, sizeof cur, "%s/cur", m->path);
	if (stat(cur, &st) < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			return mw_fail_errno(err, "cannot look into %s", m->path);
		if (!t->o.create && !parent_exists(m->path)) {
			mw_fail(err, MW_ENOUSER, "no mailbox at %s", m->path);
			return mw_err_hint(err, "--create makes it");
		}
		m->missing = dry;
		if (dry)
			return 0;
		int r = make_maildir(m->path, err);
		if (r)
			return r;
	}
	int links = no_links(m->path, err);
	if (links)
		return links;
	if (stat(m->path, &st) < 0)
		return mw_fail_errno(err, "cannot look into %s", m->path);
	m->file_mode = st.st_mode & 0666;
	m->uid = st.st_uid;
	m->gid = st.st_gid;
	return 0;
}

static int
maildir_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
             struct mw_err *err)
{
	(void)mailbox;
	struct maildir *m = calloc(1, sizeof *m);
	if (!m)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	const char *sent =
	    t->o.sent_folder && *t->o.sent_folder ? t->o.sent_folder : "Sent";
	const char *dest = t->o.folder;
	t->own = m;
	m->path = strdup(box);
	m->sent = m->path ? folder_path(box, sent) : NULL;
	if (m->sent && dest)
		m->dest =
		    strcasecmp(dest, "INBOX") == 0 ? strdup(box) : folder_path(box, dest);
	int r = m->sent && !(dest && !m->dest) ? find_box(t, m, dry, err)
	                                       : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r)
		maildir_free(t);
	return r;
}

/* ---- scan ---- */

static int
add_folder(struct maildir *m, const char *path)
{
	void *p = realloc(m->folder, (m->n_folder + 1) * sizeof *m->folder);
	char *copy = strdup(path);
	if (p)
		m->folder = p;
	if (!p || !copy) {
		free(copy);
		return MW_ENOMEM;
	}
	/* What was put into Sent by wish is looked for there like anywhere else. */
	bool plain = m->dest && strcmp(m->dest, m->sent) == 0;
	m->folder[m->n_folder++] =
	    (struct folder){copy, !plain && strcmp(path, m->sent) == 0};
	return 0;
}

static int
list_folders(struct maildir *m, struct mw_err *err)
{
	char path[PATH_MAX];
	int r = add_folder(m, m->path);
	DIR *d = opendir(m->path);
	struct dirent *e;
	if (!d)
		return mw_fail_errno(err, "cannot look into %s", m->path);
	while (!r && (e = readdir(d))) {
		if (e->d_name[0] != '.' || !e->d_name[1] || strcmp(e->d_name, "..") == 0)
			continue;
		if (snprintf(path, sizeof path, "%s/%s/cur", m->path, e->d_name) >=
		    (int)sizeof path)
			continue;
		if (access(path, F_OK) < 0)
			continue;
		path[strlen(path) - 4] = '\0';
		r = add_folder(m, path);
	}
	(void)closedir(d);
	return r ? mw_fail(err, r, "out of memory") : 0;
}

static int
add_message(struct maildir *m, size_t folder, bool in_new, const char *name)
{
	if (m->n_msg == m->cap_msg) {
		size_t cap = m->cap_msg ? m->cap_msg * 2 : 256;
		void *p = realloc(m->msg, cap * sizeof *m->msg);
		if (!p)
			return MW_ENOMEM;
		m->msg = p;
		m->cap_msg = cap;
	}
	char *copy = strdup(name);
	if (!copy)
		return MW_ENOMEM;
	m->msg[m->n_msg++] = (struct message){(uint32_t)folder, in_new, copy};
	return 0;
}

static int
list_messages(struct maildir *m, size_t folder, bool in_new, struct mw_err *err)
{
	char path[PATH_MAX];
	int r = 0;
	if (snprintf(path, sizeof path, "%s/%s", m->folder[folder].path,
	             in_new ? "new" : "cur") >= (int)sizeof path)
		return mw_fail(err, MW_ELIMIT, "path too long");
	DIR *d = opendir(path);
	struct dirent *e;
	if (!d)
		return errno == ENOENT ? 0
		                       : mw_fail_errno(err, "cannot look into %s", path);
	while (!r && (e = readdir(d)))
		if (e->d_name[0] != '.')
			r = add_message(m, folder, in_new, e->d_name);
	(void)closedir(d);
	return r ? mw_fail(err, r, "out of memory") : 0;
}

/* Maildir names begin with the time of delivery, and ours count on: "SEC.MµSECPpidQn_".
 */
static void
name_order(const char *name, long long out[3])
{
	char *end;
	out[0] = strtoll(name, &end, 10);
	out[1] = end[0] == '.' && end[1] == 'M' ? strtoll(end + 2, &end, 10) : 0;
	const char *q = strchr(end, 'Q');
	out[2] = q ? strtoll(q + 1, NULL, 10) : 0;
}

/* By folder, then in the order of delivery: the order in which readers show new mail. */
static int
by_delivery(const void *x, const void *y)
{
	const struct message *a = x, *b = y;
	long long u[3], v[3];
	if (a->folder != b->folder)
		return a->folder < b->folder ? -1 : 1;
	name_order(a->name, u);
	name_order(b->name, v);
	for (size_t i = 0; i < MW_COUNT(u); i++)
		if (u[i] != v[i])
			return u[i] < v[i] ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* The file of a message, which a reader may have moved from new to cur meanwhile. */
static int
open_message(const struct maildir *m, const struct message *msg)
{
	char path[PATH_MAX];
	const char *dir = m->folder[msg->folder].path;
	if (snprintf(path, sizeof path, "%s/%s/%s", dir, msg->in_new ? "new" : "cur",
	             msg->name) >= (int)sizeof path)
		return -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	DIR *d;
	struct dirent *e;
	size_t base = strcspn(msg->name, ":");
	(void)snprintf(path, sizeof path, "%s/cur", dir);
	if (!(d = opendir(path)))
		return -1;
	while (fd < 0 && (e = readdir(d)))
		if (strncmp(e->d_name, msg->name, base) == 0 &&
		    (e->d_name[base] == ':' || !e->d_name[base]))
			fd = openat(dirfd(d), e->d_name,
			            O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	(void)closedir(d);
	return fd;
}

static int
show(struct maildir *m, size_t i, struct mw_buf *header,
     int (*cb)(void *, const struct mw_found *), void *arg, struct mw_err *err)
{
	struct stat st;
	MW_AUTOCLOSE int fd = open_message(m, &m->msg[i]);
	if (fd < 0 && errno == ENOENT)
		return 0; /* expunged meanwhile */
	if (fd < 0 || fstat(fd, &st) < 0)
		return mw_fail_errno(err, "cannot read a message in %s", m->path);
	if (!S_ISREG(st.st_mode))
		return 0;
	int r = mw_files_header(fd, header, err);
	struct mw_found f = {i, (uint64_t)st.st_size, (int64_t)st.st_mtime * 1000000,
	                     m->folder[m->msg[i].folder].sent, mw_buf_str(header)};
	return r ? r : cb(arg, &f);
}

static int
maildir_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *), void *arg,
             struct mw_err *err)
{
	struct maildir *m = t->own;
	MW_BUF_AUTO header = {0};
	if (m->missing)
		return 0;
	forget(m);
	int r = list_folders(m, err);
	for (size_t i = 0; i < m->n_folder && !r; i++) {
		r = list_messages(m, i, true, err);
		if (!r)
			r = list_messages(m, i, false, err);
	}
	if (!r && m->n_msg)
		qsort(m->msg, m->n_msg, sizeof *m->msg, by_delivery);
	for (size_t i = 0; i < m->n_msg && !r; i++)
		r = show(m, i, &header, cb, arg, err);
	return r;
}

static int
maildir_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
              int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
              struct mw_err *err)
{
	struct maildir *m = t->own;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_profile *p;
		MW_AUTOCLOSE int fd = open_message(m, &m->msg[keys[i]]);
		if (fd < 0)
			continue;
		r = mw_files_profile(fd, &p, err);
		if (!r)
			r = cb(arg, keys[i], p);
	}
	return r;
}

/* ---- put ---- */

struct pending {
	const struct mw_put *put;
	char tmp[PATH_MAX], final[PATH_MAX];
};

/* The directory that a copy goes into. */
static const char *
place_of(const struct maildir *m, const struct mw_put *p)
{
	return m->dest ? m->dest : p->sent ? m->sent : m->path;
}

static void
file_names(struct maildir *m, const struct mw_put *p, struct pending *f)
{
	char host[128] = "localhost", id[MW_ID_TEXT + 1], base[400];
	const struct mw_clock *clk = mw_clock_system();
	int64_t now = clk->now_us(clk);
	const char *dir = place_of(m, p);
	(void)gethostname(host, sizeof host - 1);
	for (char *c = host; *c; c++)
		if (*c == '/' || *c == ':' || *c == ',')
			*c = '_';
	mw_id_text(id, p->id);
	id[MW_ID_SHORT] = '\0';
	/* The first number orders new mail; the arrival is the file's time. */
	(void)snprintf(base, sizeof base, "%lld.M%lldP%dQ%u_%s.%s,S=%llu",
	               (long long)(now / 1000000), (long long)(now % 1000000),
	               (int)getpid(), ++m->counter, id, host,
	               (unsigned long long)p->size);
	(void)snprintf(f->tmp, sizeof f->tmp, "%.3000s/tmp/%s", dir, base);
	(void)snprintf(f->final, sizeof f->final, "%.3000s/new/%s", dir, base);
	f->put = p;
}

static int
write_file(struct maildir *m, const struct pending *f, const struct mw_put_io *io,
           struct mw_err *err)
{
	MW_AUTOCLOSE int fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return mw_fail_errno(err, "cannot make %s", f->tmp);
	MW_AUTOFREE struct mw_files_out *o = calloc(1, sizeof *o);
	if (!o)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	o->fd = fd;
	o->path = f->tmp;
	o->err = err;
	int r = io->content(io->arg, f->put, mw_files_write, o, err);
	if (!r)
		r = mw_files_flush(o);
	if (r)
		return r;
	struct timespec ts[2];
	ts[0].tv_sec = ts[1].tv_sec = (time_t)(f->put->time_us / 1000000);
	ts[0].tv_nsec = ts[1].tv_nsec = (long)(f->put->time_us % 1000000) * 1000;
	if (geteuid() == 0 && fchown(fd, m->uid, m->gid) < 0)
		return mw_fail_errno(err, "cannot set the owner of %s", f->tmp);
	if (fchmod(fd, m->file_mode) < 0 || futimens(fd, ts) < 0 || fsync(fd) < 0)
		return mw_fail_errno(err, "cannot finish %s", f->tmp);
	return 0;
}

static int
commit(struct maildir *m, struct pending *v, size_t n, const struct mw_put_io *io,
       struct mw_err *err)
{
	char dir[PATH_MAX];
	const char *done[2] = {NULL, NULL};
	int r = 0;
	for (size_t i = 0; i < n && !r; i++)
		if (rename(v[i].tmp, v[i].final) < 0)
			r = mw_fail_errno(err, "cannot rename to %s", v[i].final);
	for (size_t i = 0; i < n && !r; i++) {
		const char *place = place_of(m, v[i].put);
		if (place == done[0] || place == done[1])
			continue;
		done[done[0] != NULL] = place;
		(void)snprintf(dir, sizeof dir, "%.3000s/new", place);
		r = mw_files_sync_dir(dir, err);
	}
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_put_place place = {place_of(m, v[i].put), 0, 0, 0};
		r = io->done(io->arg, v[i].put, 0, NULL, &place);
	}
	return r;
}

static int
maildir_put(struct mw_target *t, const struct mw_put *v, size_t n,
            const struct mw_put_io *io, struct mw_err *err)
{
	struct maildir *m = t->own;
	bool have = false; /* the folder beside the Maildir itself is there */
	size_t k = 0;
	int r = 0;
	MW_AUTOFREE struct pending *f = calloc(BATCH, sizeof *f);
	if (!f)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		if (t->o.stopped && t->o.stopped()) {
			r = commit(m, f, k, io, err);
			return r ? r : mw_fail(err, MW_ECANCEL, "interrupted");
		}
		const char *place = place_of(m, &v[i]);
		bool apart = strcmp(place, m->path) != 0;
		if (apart && !have)
			r = make_maildir(place, err);
		if (!r && apart && !have)
			r = no_links(place, err);
		have = have || apart;
		if (r)
			break;
		struct mw_err why = {0};
		const struct mw_put *one = &v[i];
		file_names(m, one, &f[k]);
		if (io->intent && (r = io->intent(io->arg, &one, 1, err)))
			break;
		int q = write_file(m, &f[k], io, &why);
		if (q) {
			(void)unlink(f[k].tmp);
			r = io->done(io->arg, one, q, why.msg, NULL);
			continue;
		}
		if (++k == BATCH) {
			r = commit(m, f, k, io, err);
			k = 0;
		}
	}
	return r ? r : commit(m, f, k, io, err);
}

static int
maildir_close(struct mw_target *t, struct mw_err *err)
{
	(void)err;
	maildir_free(t);
	return 0;
}

const struct mw_target_ops mw_target_maildir = {
    .scheme = "maildir",
    .readable = true,
    .has_sent = true,
    .has_folders = true,
    .open = maildir_open,
    .scan = maildir_scan,
    .fetch = maildir_fetch,
    .put = maildir_put,
    .remove = mw_files_remove,
    .deliver = maildir_put,
    .close = maildir_close,
    .free = maildir_free,
};
