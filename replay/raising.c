#include "replay/raising.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "raising-"

enum {
	NOTE_MAX = 16384
};

static void
name_of(const char *box, char name[48])
{
	char hex[33];
	uint8_t d[32];
	mw_sha256_of(box, strlen(box), d);
	mw_hex(hex, d, 16);
	(void)snprintf(name, 48, PREFIX "%s", hex);
}

int
mw_raising_note(const char *dir, const char *mailbox, const char *box, struct mw_err *err)
{
	char name[48];
	MW_BUF_AUTO text = {0};
	mw_buf_put(&text, mailbox, strlen(mailbox) + 1);
	mw_buf_put(&text, box, strlen(box) + 1);
	if (mw_buf_ok(&text))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	name_of(box, name);
	int r = mw_fs_write_file(mw_fs_posix(), dir, name, text.p, text.n);
	if (!r)
		return 0;
	errno = -r;
	return mw_fail_errno(err, "cannot write %s/%s", dir, name);
}

static void
remove_note(const char *dir, const char *name)
{
	const struct mw_fs *fs = mw_fs_posix();
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path)
		(void)fs->unlink(fs, path);
}

void
mw_raising_done(const char *dir, const char *box)
{
	char name[48];
	name_of(box, name);
	remove_note(dir, name);
}

struct names {
	struct mw_buf text; /* each with its NUL */
};

static int
on_name(void *arg, const char *name)
{
	struct names *n = arg;
	if (strncmp(name, PREFIX, strlen(PREFIX)) == 0 && !strchr(name, '.'))
		mw_buf_put(&n->text, name, strlen(name) + 1);
	return 0;
}

/* One note; what cannot be read as one is none. */
static int
one(const char *dir, const char *name,
    int (*cb)(void *arg, const char *mailbox, const char *box), void *arg)
{
	char path[PATH_MAX];
	void *p;
	size_t n;
	int r = 0;
	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path ||
	    mw_fs_read_file(mw_fs_posix(), path, NOTE_MAX, &p, &n))
		return 0;
	const char *mailbox = p, *end = mailbox + n, *box = memchr(mailbox, '\0', n);
	box = box ? box + 1 : end;
	if (box < end && memchr(box, '\0', (size_t)(end - box)))
		r = cb(arg, mailbox, box);
	else
		remove_note(dir, name);
	free(p);
	return r;
}

int
mw_raising_each(const char *dir,
                int (*cb)(void *arg, const char *mailbox, const char *box), void *arg,
                struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	struct names n = {{0}};
	int r = fs->list(fs, dir, on_name, &n);
	if (r < 0) {
		errno = -r;
		r = mw_fail_errno(err, "cannot read %s", dir);
	} else if (mw_buf_ok(&n.text)) {
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	} else {
		r = 0;
	}
	const char *p = (const char *)n.text.p;
	for (size_t at = 0; !r && at < n.text.n; at += strlen(p + at) + 1)
		r = one(dir, p + at, cb, arg);
	mw_buf_free(&n.text);
	return r;
}
