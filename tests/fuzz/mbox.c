/* mbox.c - an mbox of hostile bytes, in each dialect; and the same bytes as messages that
 * mailwal writes, which must come back as they were. */
#include "replay/mbox.h"
#include "journal/base/buf.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	PARTS = 8
};

static int
to_buf(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
	return 0;
}

static int
file_of(const void *p, size_t n)
{
	int fd = memfd_create("mbox", MFD_CLOEXEC);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	return fd;
}

static void
read_all(const uint8_t *data, size_t size, enum mw_mbox_format format, bool strict)
{
	MW_AUTOCLOSE int fd = file_of(data, size);
	MW_BUF_AUTO b = {0};
	struct mw_mbox *m;
	struct mw_from from;
	uint64_t at, last = 0;
	int r, n = 0;
	if (mw_mbox_new(fd, format, strict, &m) < 0)
		abort();
	while ((r = mw_mbox_next(m, &at, &from)) > 0) {
		if (at >= size || (n && at <= last))
			abort();
		last = at;
		if (n++ % 3 && mw_mbox_content(m, to_buf, &b) < 0)
			abort();
	}
	if (r == MW_EIO || (r && !strict) || b.n > 2 * size)
		abort();
	mw_mbox_free(m);
}

/* Lines end in CRLF, as in captured mail. */
static void
as_captured(const uint8_t *p, size_t n, struct mw_buf *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n' && (!ret->n || ret->p[ret->n - 1] != '\r'))
			mw_buf_puts(ret, "\r");
		mw_buf_put(ret, &p[i], 1);
	}
	if (ret->n)
		mw_buf_puts(ret, "\r\n");
}

static void
round_trip(const uint8_t *data, size_t size)
{
	struct mw_buf in[PARTS] = {{0}}, b = {0}, out = {0};
	struct mw_mbox *m;
	struct mw_from from;
	uint64_t at;
	size_t n = 0;
	while (size && n < PARTS) {
		const uint8_t *cut = memmem(data, size, "\n\n\n", 3);
		size_t k = cut ? (size_t)(cut - data) + 3 : size;
		char line[1200];
		struct mw_mbox_writer w;
		as_captured(data, k, &in[n]);
		mw_buf_put(&b, line,
		           mw_from_write(mw_str((const char *)data, k), (int64_t)k << 40,
		                         line, sizeof line));
		mw_mbox_writer_init(&w, to_buf, &b);
		if (mw_mbox_writer_put(&w, in[n].p, in[n].n) || mw_mbox_writer_end(&w))
			abort();
		data += k;
		size -= k;
		n++;
	}
	int fd = file_of(b.p ? (const void *)b.p : "", b.n);
	if (mw_mbox_new(fd, MW_MBOX_AUTO, true, &m) < 0)
		abort();
	for (size_t i = 0; i < n; i++) {
		mw_buf_clear(&out);
		if (mw_mbox_next(m, &at, &from) != 1 ||
		    mw_mbox_content(m, to_buf, &out) ||
		    !mw_str_eq(mw_buf_str(&out), mw_buf_str(&in[i])))
			abort();
		mw_buf_free(&in[i]);
	}
	if (mw_mbox_next(m, &at, &from) != 0)
		abort();
	mw_mbox_free(m);
	mw_buf_free(&b);
	mw_buf_free(&out);
	(void)close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int f = MW_MBOX_AUTO; f <= MW_MBOX_CL2; f++)
		read_all(data, size, (enum mw_mbox_format)f, f % 2);
	round_trip(data, size);
	return 0;
}
