#include "replay/target_maildir.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/cmd.h"
#include "replay/mdir_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A Maildir and its folders. Files are written into tmp, synced, dated, renamed into new;
 * the directory is synced before a copy counts as put. Bytes are the captured ones, CRLF
 * included, which Dovecot reads as it does LF; for Courier, which would put another CR in
 * front of each LF, lines end in LF. The server's own index files are left to the server.
 */

enum {
	BATCH = 64 /* renames under one sync of the directory */
};

static void
forget(struct mw_mdir *m)
{
	for (size_t i = 0; i < m->n_msg; i++)
		free(m->msg[i].name);
	for (size_t i = 0; i < m->n_folder; i++) {
		free(m->folder[i].path);
		free(m->folder[i].odd[0].name);
		free(m->folder[i].odd[1].name);
		mw_mdir_list_free(&m->folder[i].now.l);
	}
	free(m->folder);
	m->folder = NULL;
	m->n_msg = m->n_folder = 0;
}

static void
maildir_free(struct mw_target *t)
{
	struct mw_mdir *m = t->own;
	t->own = NULL;
	if (!m)
		return;
	forget(m);
	while (m->place) {
		struct mw_mdir_place *p = m->place;
		m->place = p->next;
		free(p->name);
		free(p->path);
		free(p);
	}
	if (m->lock_fd >= 0)
		(void)close(m->lock_fd);
	free(m->msg);
	free(m->path);
	free(m);
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

static int
find_box(struct mw_target *t, struct mw_mdir *m, bool dry, struct mw_err *err)
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
		int r = mw_mdir_no_links(m->path, err);
		if (!r)
			r = dry ? mw_files_mkdirs_dry(m->path, err)
			        : mw_mdir_make(m->path, err);
		if (r || dry)
			return r;
	}
	int links = mw_mdir_no_links(m->path, err);
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
	struct mw_mdir *m = calloc(1, sizeof *m);
	struct mw_mdir_place *p;
	if (!m)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	m->sent = t->o.sent_folder && *t->o.sent_folder ? t->o.sent_folder : "Sent";
	m->dest = t->o.folder;
	t->own = m;
	m->lock_fd = -1;
	m->path = strdup(box);
	int r =
	    m->path ? find_box(t, m, dry, err) : mw_fail(err, MW_ENOMEM, "out of memory");
	if (!r && !dry)
		r = mw_files_lock(t, m->path, &m->lock_fd, err);
	if (!r) {
		mw_mdir_layout(m, t->o.layout);
		r = mw_mdir_place(m, m->sent, &p, err);
	}
	if (!r && m->dest)
		r = mw_mdir_place(m, m->dest, &p, err);
	if (r)
		maildir_free(t);
	return r;
}

/* ---- scan ---- */

static int
add_message(struct mw_mdir *m, size_t folder, bool in_new, const char *name)
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
	m->msg[m->n_msg++] = (struct mw_mdir_message){(uint32_t)folder, in_new, copy};
	return 0;
}

static int
list_messages(struct mw_mdir *m, size_t folder, struct mw_err *err)
{
	struct mw_mdir_list l = {.n = 0};
	const char *path = m->folder[folder].path;
	MW_AUTOCLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0
		                       : mw_fail_errno(err, "cannot look into %s", path);
	int r = mw_mdir_list(fd, &l, err);
	if (r < 0)
		(void)mw_err_prefix(err, "%s", path);
	for (size_t i = 0; i < l.n && !r; i++)
		if (add_message(m, folder, l.v[i].in_new, l.v[i].name))
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	mw_mdir_list_free(&l);
	return r;
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
	const struct mw_mdir_message *a = x, *b = y;
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

/* The file of a message, which a reader may have renamed meanwhile. */
static int
open_message(struct mw_mdir *m, const struct mw_mdir_message *msg)
{
	struct mw_mdir_folder *f = &m->folder[msg->folder];
	MW_AUTOCLOSE int dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? -1 : mw_mdir_open(dir, msg->in_new, msg->name, &f->now);
}

/* A link, pipe, socket or directory in a message's place: its user may lay there what he
 * likes, and the rest of his mail is dealt with all the same. */
static int
pass_over(struct mw_mdir *m, const struct mw_mdir_message *msg)
{
	struct mw_mdir_odd *o = &m->folder[msg->folder].odd[msg->in_new];
	if (o->n++ == 0)
		o->name = strdup(msg->name);
	return o->name ? 0 : MW_ENOMEM;
}

static void
tell_passed_over(struct mw_target *t, const struct mw_mdir *m)
{
	for (size_t i = 0; i < 2 * m->n_folder && t->o.note; i++) {
		const struct mw_mdir_odd *o = &m->folder[i / 2].odd[i % 2];
		MW_BUF_AUTO line = {0};
		if (!o->n)
			continue;
		mw_text_safe(mw_strz(m->folder[i / 2].path), false, &line);
		mw_buf_printf(&line, "/%s: passed over what is no file: ",
		              i % 2 ? "new" : "cur");
		mw_text_safe(mw_strz(o->name), false, &line);
		if (o->n > 1)
			mw_buf_printf(&line, " and %zu more", o->n - 1);
		if (!line.failed)
			t->o.note(t->o.note_arg, mw_buf_cstr(&line));
	}
}

static int
show(struct mw_mdir *m, size_t i, struct mw_buf *header,
     int (*cb)(void *, const struct mw_found *), void *arg, struct mw_err *err)
{
	struct stat st;
	MW_AUTOCLOSE int fd = open_message(m, &m->msg[i]);
	if (fd < 0 && errno == ENOENT)
		return 0; /* expunged meanwhile */
	bool odd = fd < 0 && (errno == ELOOP || errno == ENXIO);
	if (!odd && (fd < 0 || fstat(fd, &st) < 0))
		return mw_fail_errno(err, "cannot read a message in %s", m->path);
	if (odd || !S_ISREG(st.st_mode))
		return pass_over(m, &m->msg[i]) ? mw_fail(err, MW_ENOMEM, "out of memory")
		                                : 0;
	int r = mw_files_header(fd, header, err);
	struct mw_found f = {i, (uint64_t)st.st_size, (int64_t)st.st_mtime * 1000000,
	                     m->folder[m->msg[i].folder].sent, mw_buf_str(header)};
	return r ? r : cb(arg, &f);
}

static int
maildir_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *), void *arg,
             struct mw_err *err)
{
	struct mw_mdir *m = t->own;
	MW_BUF_AUTO header = {0};
	if (m->missing)
		return 0;
	forget(m);
	int r = mw_mdir_folders(m, err);
	for (size_t i = 0; i < m->n_folder && !r; i++)
		r = list_messages(m, i, err);
	if (!r && m->n_msg)
		qsort(m->msg, m->n_msg, sizeof *m->msg, by_delivery);
	for (size_t i = 0; i < m->n_msg && !r; i++)
		r = show(m, i, &header, cb, arg, err);
	if (!r)
		tell_passed_over(t, m);
	return r;
}

static int
maildir_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
              int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
              struct mw_err *err)
{
	struct mw_mdir *m = t->own;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_profile *p;
		struct stat st;
		MW_AUTOCLOSE int fd = open_message(m, &m->msg[keys[i]]);
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
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
	const char *dir;
	char tmp[PATH_MAX], final[PATH_MAX];
	uint64_t bytes; /* of the file */
};

/* The folder that a copy goes into. Where imported mail was is a wish: a folder that
 * there cannot be means INBOX, and so does Sent, where no scan would look for it. */
static int
place_of(struct mw_mdir *m, const struct mw_put *p, struct mw_mdir_place **ret,
         struct mw_err *err)
{
	struct mw_mdir_place *sent;
	int r = mw_mdir_place(m, m->sent, &sent, err);
	if (!r && (m->dest || p->sent || !p->folder))
		return mw_mdir_place(m,
		                     m->dest   ? m->dest
		                     : p->sent ? m->sent
		                               : "",
		                     ret, err);
	if (!r)
		r = mw_mdir_place(m, p->folder, ret, err);
	if (r == MW_EUSAGE || (!r && strcmp((*ret)->path, sent->path) == 0))
		r = mw_mdir_place(m, "", ret, err);
	return r;
}

static void
file_names(struct mw_mdir *m, const struct mw_put *p, const char *dir, struct pending *f)
{
	char host[128] = "localhost", id[MW_ID_TEXT + 1], base[400];
	const struct mw_clock *clk = mw_clock_system();
	int64_t now = clk->now_us(clk);
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
	f->dir = dir;
}

struct lf { /* CRLF becomes LF; a line may come in pieces */
	struct mw_files_out *o;
	bool cr; /* one that waits for what follows */
};

static int
write_lf(void *arg, const void *p, size_t n)
{
	struct lf *l = arg;
	const char *q = p, *end = q + n;
	int r = 0;
	while (q < end && !r) {
		if (l->cr && *q != '\n')
			r = mw_files_write(l->o, "\r", 1);
		const char *cr = memchr(q, '\r', (size_t)(end - q));
		size_t k = (size_t)((cr ? cr : end) - q);
		if (!r && k)
			r = mw_files_write(l->o, q, k);
		l->cr = cr != NULL;
		q += k + l->cr;
	}
	return r;
}

static int
write_content(const struct mw_mdir *m, struct pending *f, const struct mw_put_io *io,
              struct mw_files_out *o, struct mw_err *err)
{
	struct lf l = {o, false};
	bool lf = m->layout == MW_LAYOUT_COURIER;
	int r = lf ? io->content(io->arg, f->put, write_lf, &l, err)
	           : io->content(io->arg, f->put, mw_files_write, o, err);
	if (!r && l.cr)
		r = mw_files_write(o, "\r", 1);
	if (!r)
		r = mw_files_flush(o);
	f->bytes = o->total;
	char *size = strrchr(f->final, '='); /* ",S=" is the file's */
	if (lf && size)
		(void)snprintf(size + 1, sizeof f->final - (size_t)(size + 1 - f->final),
		               "%llu", (unsigned long long)f->bytes);
	return r;
}

static int
write_file(struct mw_mdir *m, struct pending *f, const struct mw_put_io *io,
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
	int r = write_content(m, f, io, o, err);
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

/* Is it the first of its directory? */
static bool
first_of_dir(const struct pending *v, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (v[k].dir == v[i].dir)
			return false;
	return true;
}

static int
commit(struct mw_mdir *m, struct pending *v, size_t n, const struct mw_put_io *io,
       struct mw_err *err)
{
	char dir[PATH_MAX];
	uint64_t bytes = 0;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		bytes += v[i].bytes;
		if (rename(v[i].tmp, v[i].final) < 0)
			r = mw_fail_errno(err, "cannot rename to %s", v[i].final);
	}
	for (size_t i = 0; i < n && !r; i++) {
		if (!first_of_dir(v, i))
			continue;
		(void)snprintf(dir, sizeof dir, "%.3000s/new", v[i].dir);
		r = mw_files_sync_dir(dir, err);
	}
	if (n && !r)
		mw_mdir_count(m, bytes, n);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_put_place place = {v[i].dir, 0, 0, 0};
		r = io->done(io->arg, v[i].put, 0, NULL, &place);
	}
	return r;
}

/* One message into tmp: 1 it waits for its commit, 0 it was refused. */
static int
put_one(struct mw_target *t, const struct mw_put *one, const struct mw_put_io *io,
        struct pending *f, struct mw_err *err)
{
	struct mw_mdir *m = t->own;
	struct mw_mdir_place *p;
	struct mw_err why = {0};
	int r = place_of(m, one, &p, &why);
	if (r)
		return mw_fail(err, r, "%s", why.msg);
	r = mw_mdir_ready(t, m, p, &why);
	if (r && one->folder) /* no fault of the rest */
		return io->done(io->arg, one, MW_EREFUSED, why.msg, NULL);
	if (r)
		return mw_fail(err, r, "%s", why.msg);
	file_names(m, one, p->path, f);
	if (io->intent && (r = io->intent(io->arg, &one, 1, err)))
		return r;
	r = write_file(m, f, io, &why);
	if (!r)
		return 1;
	(void)unlink(f->tmp);
	return io->done(io->arg, one, r, why.msg, NULL);
}

static int
maildir_put(struct mw_target *t, const struct mw_put *v, size_t n,
            const struct mw_put_io *io, struct mw_err *err)
{
	struct mw_mdir *m = t->own;
	size_t k = 0;
	int r = 0;
	MW_AUTOFREE struct pending *f = calloc(BATCH, sizeof *f);
	if (!f)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && r >= 0; i++) {
		if (t->o.stopped && t->o.stopped()) {
			r = commit(m, f, k, io, err);
			return r ? r : mw_fail(err, MW_ECANCEL, "interrupted");
		}
		r = put_one(t, &v[i], io, &f[k], err);
		k += r > 0;
		if (r >= 0 && k == BATCH) {
			r = commit(m, f, k, io, err);
			k = 0;
		}
	}
	return r < 0 ? r : commit(m, f, k, io, err);
}

static int
maildir_close(struct mw_target *t, struct mw_err *err)
{
	(void)err;
	maildir_free(t);
	return 0;
}

static int
maildir_mark(struct mw_target *t, struct mw_target_mark *ret, struct mw_err *err)
{
	const struct mw_mdir *m = t->own;
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/cur", m->path) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long");
	mw_files_mark(path, ret);
	return 1;
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
    .mark = maildir_mark,
    .close = maildir_close,
    .free = maildir_free,
};
