/* import_mbox.c - one file, many messages (mbox.h). */
#include "replay/import.h"

#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
	LOCK_TRIES = 50,
	LOCK_NAP_MS = 200
};

/* As readers lock it, so that nobody rewrites it under us. */
static int
lock(int fd, const char *path, struct mw_err *err)
{
	struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	for (int i = 0; i < LOCK_TRIES && !mw_cli_stopped(); i++) {
		if (fcntl(fd, F_SETLK, &fl) == 0)
			return 0;
		if (errno != EAGAIN && errno != EACCES)
			return 0; /* a file system without locks */
		(void)poll(NULL, 0, LOCK_NAP_MS);
	}
	return mw_fail(err, MW_ELOCKED, "%s is locked by another program", path);
}

static int
one(const struct mw_import_sink *sink, struct mw_mbox *m, const struct mw_import_msg *msg)
{
	int r = sink->begin(sink->arg, msg);
	if (r)
		return r > 0 ? 0 : r; /* the content is passed over */
	r = mw_mbox_content(m, sink->body, sink->arg);
	if (r == MW_EIO && mw_mbox_failed(m))
		return sink->end(sink->arg, r, "the file cannot be read on");
	return r < 0 ? r : sink->end(sink->arg, 0, NULL);
}

static int
all_messages(const struct mw_import_src *s, const struct mw_import_box *b,
             struct mw_mbox *m, bool sent, struct mw_err *err)
{
	char name[5000];
	struct mw_from from;
	uint64_t at, number = 0;
	int r;
	while ((r = mw_mbox_next(m, &at, &from)) > 0) {
		(void)snprintf(name, sizeof name, "%s, message %llu", b->path,
		               (unsigned long long)++number);
		const struct mw_import_msg msg = {.name = name,
		                                  .owner = b->owner,
		                                  .mailbox = b->mailbox,
		                                  .sent = sent,
		                                  .time_us = from.us,
		                                  .no_zone = !from.zone,
		                                  .sender = from.sender};
		r = one(s->sink, m, &msg);
		if (r < 0)
			return r;
	}
	if (r == MW_EFORMAT)
		return mw_fail(err, r,
		               "%s is no mbox: it does not begin with a From_ line",
		               b->path);
	return r < 0 ? mw_fail(err, r, "%s cannot be read on", b->path) : 0;
}

int
mw_import_mbox(const struct mw_import_src *s, const struct mw_import_box *b,
               struct mw_err *err)
{
	struct mw_mbox *m;
	struct stat st;
	const char *slash = strrchr(b->path, '/');
	MW_AUTOCLOSE int fd = open(b->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return mw_fail_errno(err, "cannot open %s", b->path);
	if (!S_ISREG(st.st_mode))
		return mw_fail(err, MW_EUSAGE, "%s is no file", b->path);
	int r = lock(fd, b->path, err);
	if (r < 0)
		return r;
	bool sent = s->sent ||
	            mw_import_folder(s->cli->conf, mw_strz(slash ? slash + 1 : b->path),
	                             0) == MW_IMPORT_SENT;
	if (mw_mbox_new(fd, s->format, true, &m) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	r = all_messages(s, b, m, sent, err);
	mw_mbox_free(m);
	return r;
}
