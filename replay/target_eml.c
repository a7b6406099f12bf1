#include "replay/target_files.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* DIR/<mailbox>/<time>-<id>.eml with the captured bytes, and beside each a .json with the
 * envelope; Sent copies in Sent/ below. An export has no mailbox level. The .eml is
 * renamed into place last, so that its presence means that both are whole. */

struct eml {
	char *path;
	char **name; /* relative to path */
	size_t n, cap;
	bool missing;
	int lock_fd; /* or -1 */
};

static void
forget(struct eml *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->name[i]);
	m->n = 0;
}

static void
eml_free(struct mw_target *t)
{
	struct eml *m = t->own;
	t->own = NULL;
	if (!m)
		return;
	forget(m);
	if (m->lock_fd >= 0)
		(void)close(m->lock_fd);
	free(m->name);
	free(m->path);
	free(m);
}

static int
eml_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
         struct mw_err *err)
{
	(void)mailbox;
	struct eml *m = calloc(1, sizeof *m);
	if (!m)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	t->own = m;
	m->lock_fd = -1;
	m->path = strdup(box);
	int r = m->path ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	m->missing = dry && access(box, F_OK) < 0;
	if (!r)
		r = dry ? mw_files_mkdirs_dry(box, err) : mw_files_mkdirs(box, err);
	if (!r && !dry)
		r = mw_files_lock(t, box, &m->lock_fd, err);
	if (r)
		eml_free(t);
	return r;
}

static int
list(struct eml *m, const char *sub, struct mw_err *err)
{
	char path[PATH_MAX], name[NAME_MAX + 8];
	int r = 0;
	(void)snprintf(path, sizeof path, "%.3000s/%s", m->path, sub);
	DIR *d = opendir(path);
	struct dirent *e;
	if (!d)
		return errno == ENOENT ? 0
		                       : mw_fail_errno(err, "cannot look into %s", path);
	while (!r && (e = readdir(d))) {
		size_t n = strlen(e->d_name);
		if (e->d_name[0] == '.' || n < 5 ||
		    strcmp(e->d_name + n - 4, ".eml") != 0)
			continue;
		if (m->n == m->cap) {
			size_t cap = m->cap ? m->cap * 2 : 256;
			void *p = realloc(m->name, cap * sizeof *m->name);
			if (!p) {
				r = mw_fail(err, MW_ENOMEM, "out of memory");
				break;
			}
			m->name = p;
			m->cap = cap;
		}
		(void)snprintf(name, sizeof name, "%s%s", sub, e->d_name);
		m->name[m->n] = strdup(name);
		if (m->name[m->n])
			m->n++;
		else
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	}
	(void)closedir(d);
	return r;
}

static int
open_eml(const struct eml *m, size_t i)
{
	char path[PATH_MAX];
	(void)snprintf(path, sizeof path, "%.3000s/%s", m->path, m->name[i]);
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* it may be a pipe */
}

static int
eml_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *), void *arg,
         struct mw_err *err)
{
	struct eml *m = t->own;
	MW_BUF_AUTO header = {0};
	struct stat st;
	if (m->missing)
		return 0;
	forget(m);
	int r = list(m, "", err);
	if (!r && mw_target_has_sent(t))
		r = list(m, "Sent/", err);
	for (size_t i = 0; i < m->n && !r; i++) {
		MW_AUTOCLOSE int fd = open_eml(m, i);
		if (fd < 0 && (errno == ENOENT || errno == ENXIO))
			continue; /* it went, or a link leads nowhere; a socket */
		if (fd < 0 || fstat(fd, &st) < 0)
			return mw_fail_errno(err, "cannot read %s/%s", m->path,
			                     m->name[i]);
		if (!S_ISREG(st.st_mode))
			continue;
		r = mw_files_header(fd, &header, err);
		struct mw_found f = {i, (uint64_t)st.st_size,
		                     (int64_t)st.st_mtime * 1000000,
		                     strncmp(m->name[i], "Sent/", 5) == 0,
		                     mw_buf_str(&header)};
		if (!r)
			r = cb(arg, &f);
	}
	return r;
}

static int
eml_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
          int (*cb)(void *, uint64_t, struct mw_profile *), void *arg, struct mw_err *err)
{
	struct eml *m = t->own;
	struct stat st;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_profile *p;
		MW_AUTOCLOSE int fd = open_eml(m, (size_t)keys[i]);
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		r = mw_files_profile(fd, &p, err);
		if (!r)
			r = cb(arg, keys[i], p);
	}
	return r;
}

static char *
envelope_json(const struct mw_put *p, const struct mw_mail *m)
{
	char id[MW_ID_TEXT + 1], when[40], hex[65];
	mw_id_text(id, p->id);
	mw_time_rfc3339(when, sizeof when, p->time_us);
	mw_hex(hex, m->sha256, 32);
	json_t *rcpt = json_array();
	for (size_t i = 0; i < m->n_rcpt; i++)
		(void)json_array_append_new(rcpt, mw_json_str(m->rcpt[i].addr));
	json_t *o =
	    json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:s, s:s}", "id", id, "time",
	              when, "queue_id", mw_json_str(m->queue_id), "message_id",
	              mw_json_str(m->message_id), "sender", mw_json_str(m->sender),
	              "recipients", rcpt, "size", (json_int_t)m->size, "direction",
	              mw_direction_name(m->direction), "sha256", hex);
	char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	return text;
}

/* Writes path durably under a temporary name next to it; fill gives the bytes. */
static int
write_one(const char *tmp, const struct mw_put *p, const struct mw_put_io *io,
          const char *text, struct mw_err *err)
{
	(void)unlink(
	    tmp); /* of a dead run; or what somebody laid there, for root to follow */
	MW_AUTOCLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	MW_AUTOFREE struct mw_files_out *o = calloc(1, sizeof *o);
	if (fd < 0)
		return mw_fail_errno(err, "cannot make %s", tmp);
	if (!o)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	o->fd = fd;
	o->path = tmp;
	o->err = err;
	int r = text ? mw_files_write(o, text, strlen(text))
	             : io->content(io->arg, p, mw_files_write, o, err);
	if (!r && text)
		r = mw_files_write(o, "\n", 1);
	if (!r)
		r = mw_files_flush(o);
	struct timespec ts[2];
	ts[0].tv_sec = ts[1].tv_sec = (time_t)(p->time_us / 1000000);
	ts[0].tv_nsec = ts[1].tv_nsec = (long)(p->time_us % 1000000) * 1000;
	if (!r && (futimens(fd, ts) < 0 || fsync(fd) < 0))
		r = mw_fail_errno(err, "cannot finish %s", tmp);
	return r;
}

static int
put_one(struct eml *m, const struct mw_put *p, const struct mw_put_io *io,
        struct mw_err *err)
{
	char id[MW_ID_TEXT + 1], when[32], base[PATH_MAX], tmp[PATH_MAX], path[PATH_MAX];
	const struct mw_mail *mail;
	struct tm tm;
	time_t sec = (time_t)(p->time_us / 1000000);
	mw_id_text(id, p->id);
	if (!gmtime_r(&sec, &tm) || !strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &tm))
		return mw_fail(err, MW_EFORMAT, "impossible time");
	(void)snprintf(base, sizeof base, "%.3000s/%s%s-%.*s", m->path,
	               p->sent ? "Sent/" : "", when, MW_ID_SHORT, id);
	(void)snprintf(path, sizeof path, "%.3900s.eml", base);
	if (access(path, F_OK) == 0) { /* another message, or a changed file: keep both */
		(void)snprintf(base, sizeof base, "%.3000s/%s%s-%s", m->path,
		               p->sent ? "Sent/" : "", when, id);
		for (int i = 2; i < 1000; i++) {
			(void)snprintf(path, sizeof path, "%.3900s.eml", base);
			if (access(path, F_OK) < 0)
				break;
			(void)snprintf(base, sizeof base, "%.3000s/%s%s-%s-%d", m->path,
			               p->sent ? "Sent/" : "", when, id, i);
		}
	}
	int r = io->envelope(io->arg, p, &mail, err);
	if (r)
		return r;
	MW_AUTOFREE char *text = envelope_json(p, mail);
	if (!text)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	(void)snprintf(tmp, sizeof tmp, "%.3900s.tmp", base);
	(void)snprintf(path, sizeof path, "%.3900s.json", base);
	r = write_one(tmp, p, io, text, err);
	if (!r && rename(tmp, path) < 0)
		r = mw_fail_errno(err, "cannot make %s", path);
	if (!r)
		r = write_one(tmp, p, io, NULL, err);
	(void)snprintf(path, sizeof path, "%.3900s.eml", base);
	if (!r && rename(tmp, path) < 0)
		r = mw_fail_errno(err, "cannot make %s", path);
	if (!r)
		return 0;
	(void)unlink(tmp);
	(void)snprintf(path, sizeof path, "%.3900s.json", base);
	(void)unlink(path);
	return r;
}

static int
eml_put(struct mw_target *t, const struct mw_put *v, size_t n, const struct mw_put_io *io,
        struct mw_err *err)
{
	struct eml *m = t->own;
	char sent[PATH_MAX];
	bool made = false;
	(void)snprintf(sent, sizeof sent, "%.3000s/Sent", m->path);
	for (size_t i = 0; i < n; i++) {
		struct mw_err why = {0};
		const struct mw_put *one = &v[i];
		int r = 0;
		if (t->o.stopped && t->o.stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		if (io->intent && (r = io->intent(io->arg, &one, 1, err)))
			return r;
		if (v[i].sent && !made)
			r = mw_files_mkdirs(sent, &why);
		made = made || (v[i].sent && !r);
		if (!r)
			r = put_one(m, one, io, &why);
		if (!r)
			r = mw_files_sync_dir(v[i].sent ? sent : m->path, &why);
		struct mw_put_place place = {v[i].sent ? sent : m->path, 0, 0, 0};
		r = io->done(io->arg, one, r, r ? why.msg : NULL, r ? NULL : &place);
		if (r)
			return r;
	}
	return 0;
}

static int
eml_close(struct mw_target *t, struct mw_err *err)
{
	(void)err;
	eml_free(t);
	return 0;
}

static int
eml_mark(struct mw_target *t, struct mw_target_mark *ret, struct mw_err *err)
{
	const struct eml *m = t->own;
	(void)err;
	mw_files_mark(m->path, ret);
	return 1;
}

const struct mw_target_ops mw_target_eml = {
    .scheme = "eml",
    .readable = true,
    .has_sent = true,
    .open = eml_open,
    .scan = eml_scan,
    .fetch = eml_fetch,
    .put = eml_put,
    .deliver = eml_put,
    .mark = eml_mark,
    .close = eml_close,
    .free = eml_free,
};
