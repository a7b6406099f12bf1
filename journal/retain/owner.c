/* Whoever owns the journal does the writing: the daemon when asked, else we. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/retain/retain.h"
#include "journal/store/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>

enum {
	PLACES = 10000, /* in one request */
	FILES = 8       /* and it is answered in time */
};

int
mw_retain_lock(const char *dir, int *ret_fd, struct mw_err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/retain.lock", dir) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return mw_fail_errno(err, "cannot open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int e = errno;
		(void)close(fd);
		errno = e;
		if (e != EWOULDBLOCK)
			return mw_fail_errno(err, "cannot lock %s", path);
		(void)mw_fail(err, MW_ELOCKED,
		              "another prune, hold or erase is at work on %s", dir);
		(void)mw_err_hint(err, "one runs at a time; try again when it is done");
		return MW_ELOCKED;
	}
	*ret_fd = fd;
	return 0;
}

int
mw_owner_open(struct mw_retain_owner *o, struct mw_err *err)
{
	MW_BUF_AUTO reply = {.max = 1 << 20};
	int r = mw_control_call(o->dir, "status", &reply, err);
	if (r != MW_EUNAVAIL)
		return r;
	mw_err_clear(err);
	struct mw_store_opts so = {.dir = o->dir,
	                           .mode = MW_STORE_WRITE,
	                           .segment_size = 1 << 20};
	return mw_store_open(&so, &o->st, err);
}

void
mw_owner_close(struct mw_retain_owner *o)
{
	mw_store_close(o->st);
	o->st = NULL;
}

int
mw_owner_note(struct mw_retain_owner *o, enum mw_type type, const struct mw_buf *cbor,
              struct mw_err *err)
{
	uint64_t seq;
	if (o->st)
		return mw_store_note(o->st, type, o->now_us, cbor->p, cbor->n, NULL, err);
	return mw_control_note(o->dir, type, o->now_us, cbor->p, cbor->n, &seq, err);
}

int
mw_owner_roll(struct mw_retain_owner *o, struct mw_err *err)
{
	MW_BUF_AUTO reply = {.max = 4096};
	return o->st ? mw_store_roll(o->st, err)
	             : mw_control_call(o->dir, "roll", &reply, err);
}

static void
put_places(struct mw_buf *req, const struct mw_wipe_at *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mw_buf_printf(req, " %llu:%llu", (unsigned long long)p[i].offset,
		              (unsigned long long)p[i].seq);
}

int
mw_owner_wipe(struct mw_retain_owner *o, uint64_t segment, const struct mw_wipe_at *p,
              size_t n, struct mw_err *err)
{
	if (o->st)
		return mw_store_wipe(o->st, segment, p, n, err);
	int r = 0;
	for (size_t at = 0; r == 0 && at < n; at += PLACES) {
		MW_BUF_AUTO req = {0};
		MW_BUF_AUTO reply = {.max = 4096};
		mw_buf_printf(&req, "wipe %llu", (unsigned long long)segment);
		put_places(&req, p + at, MW_MIN(n - at, (size_t)PLACES));
		r = mw_buf_ok(&req) < 0
		        ? mw_fail(err, MW_ENOMEM, "out of memory")
		        : mw_control_call(o->dir, mw_buf_cstr(&req), &reply, err);
	}
	return r;
}

int
mw_owner_cut(struct mw_retain_owner *o, uint64_t segment, const struct mw_cut *c,
             struct mw_err *err)
{
	if (o->st)
		return mw_store_cut(o->st, segment, c, err);
	int r = 0;
	for (size_t at = 0; r == 0 && at < c->n; at += PLACES) {
		MW_BUF_AUTO req = {0};
		MW_BUF_AUTO reply = {.max = 4096};
		mw_buf_printf(&req, "cut %llu ", (unsigned long long)segment);
		for (size_t i = 0; i < c->n_token; i++) {
			char hex[2 * MW_RETIRE_TOKEN + 1];
			mw_hex(hex, c->token[i], MW_RETIRE_TOKEN);
			mw_buf_put(&req, hex, sizeof hex - 1);
		}
		put_places(&req, c->at + at, MW_MIN(c->n - at, (size_t)PLACES));
		r = mw_buf_ok(&req) < 0
		        ? mw_fail(err, MW_ENOMEM, "out of memory")
		        : mw_control_call(o->dir, mw_buf_cstr(&req), &reply, err);
	}
	return r;
}

int
mw_owner_remove(struct mw_retain_owner *o, const uint64_t *segment, size_t n,
                struct mw_err *err)
{
	int r = 0;
	if (o->st)
		return mw_store_remove(o->st, segment, n, err);
	for (size_t at = 0; r == 0 && at < n; at += FILES) {
		MW_BUF_AUTO req = {0};
		MW_BUF_AUTO reply = {.max = 4096};
		mw_buf_puts(&req, "unlink");
		for (size_t i = at; i < n && i < at + FILES; i++)
			mw_buf_printf(&req, " %llu", (unsigned long long)segment[i]);
		r = mw_buf_ok(&req) < 0
		        ? mw_fail(err, MW_ENOMEM, "out of memory")
		        : mw_control_call(o->dir, mw_buf_cstr(&req), &reply, err);
	}
	return r;
}
