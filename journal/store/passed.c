#include "journal/store/passed.h"

#include "journal/base/bytes.h"
#include "journal/base/str.h"
#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum {
	SIZE = 512
};

static int
open_file(const char *dir, int flags, struct mw_err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/passed", dir) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %.80s…", dir);
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0 && (flags & O_CREAT || errno != ENOENT))
		return mw_fail_errno(err, "cannot open %s", path);
	return fd < 0 ? MW_ENOTFOUND : fd;
}

static bool
parse(const char text[SIZE + 1], struct mw_passed *ret)
{
	struct mw_passed p;
	unsigned crc;
	int n = 0;
	if (sscanf(text,
	           "mailwal passed 1\ncount %" SCNu64 "\nacknowledged %" SCNu64
	           "\nfirst %" SCNd64 "\nlast %" SCNd64 "\n%n",
	           &p.count, &p.acknowledged, &p.first_us, &p.last_us, &n) != 4 ||
	    n == 0 || sscanf(text + n, "crc %8x\n", &crc) != 1 ||
	    crc != mw_crc32c(0, text, (size_t)n))
		return false;
	*ret = p;
	return true;
}

int
mw_passed_read(const char *dir, struct mw_passed *ret, struct mw_err *err)
{
	char text[SIZE + 1];
	MW_AUTOCLOSE int fd = open_file(dir, O_RDONLY, err);
	memset(ret, 0, sizeof *ret);
	if (fd < 0)
		return fd == MW_ENOTFOUND ? 0 : fd;
	ssize_t n = pread(fd, text, SIZE, 0);
	if (n < 0)
		return mw_fail_errno(err, "cannot read %s/passed", dir);
	text[n] = 0;
	if (parse(text, ret))
		return 0;
	(void)mw_fail(err, MW_EDAMAGED, "%s/passed is not what mailwald wrote", dir);
	return mw_err_hint(err, "'mailwal status --ack' begins it anew");
}

int
mw_passed_write(const char *dir, const struct mw_passed *p, struct mw_err *err)
{
	char text[SIZE + 1];
	MW_AUTOCLOSE int fd = open_file(dir, O_WRONLY | O_CREAT, err);
	if (fd < 0)
		return fd;
	int n = snprintf(text, sizeof text,
	                 "mailwal passed 1\ncount %" PRIu64 "\nacknowledged %" PRIu64
	                 "\nfirst %" PRId64 "\nlast %" PRId64 "\n",
	                 p->count, p->acknowledged, p->first_us, p->last_us);
	unsigned crc = mw_crc32c(0, text, (size_t)n);
	n += snprintf(text + n, sizeof text - (size_t)n, "crc %08x\n", crc);
	memset(text + n, '\n', SIZE - (size_t)n);
	ssize_t k = pwrite(fd, text, SIZE, 0);
	if (k >= 0 && k != SIZE) {
		errno = EIO;
		k = -1;
	}
	if (k < 0 || fdatasync(fd) < 0)
		return mw_fail_errno(err, "cannot write %s/passed", dir);
	return 0;
}
