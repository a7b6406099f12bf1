/* A segment file of any bytes is read without a crash and in bounded time, walked whole:
 * what comes out passed its checks, sequence numbers only rise, lengths are as stated.
 * Header, key stanzas, frames, slots, dictionaries, trailer. If the first byte is odd,
 * checksums are made right before, so that what is behind them is reached. */
#include "journal/segment/segment.h"
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/fs_mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum {
	BLOCK = 4096,
	MOST = 256 * 1024
};

static const uint8_t sk[32] = {0x48, 0x50, 0xfc, 0x51, 0x86, 0x8d, 0xe2, 0x76,
                               0x6a, 0x92, 0x8e, 0xf4, 0x91, 0x1e, 0x80, 0xb6,
                               0xb1, 0xa4, 0x16, 0x2f, 0xed, 0x1d, 0x21, 0x6b,
                               0xf6, 0x6f, 0x99, 0x88, 0x72, 0xda, 0xa8, 0x54};

static void
put_file(struct fs_mem *m, const char *path, const void *p, size_t n)
{
	const struct mw_fs *fs = fs_mem_fs(m);
	union {
		const void *in;
		void *out;
	} u = {p};
	struct iovec iov = {u.out, n};
	int fd = fs->open(fs, path, MW_OPEN_WRITE | MW_OPEN_CREATE);
	mw_assert(fd >= 0 && fs->pwritev(fs, fd, &iov, 1, 0) == 0);
	(void)fs->close(fs, fd);
}

static void
right_header(uint8_t *p, size_t n)
{
	for (size_t at = 0; at + BLOCK <= n && at <= 16 * BLOCK; at += BLOCK) {
		uint32_t len = mw_get32(p + at + 12);
		if (memcmp(p + at, "MAILWAL1", 8) == 0 && len >= BLOCK && len <= n - at)
			mw_put32(p + at + 8, mw_crc32c(0, p + at + 12, len - 12));
	}
}

/* Frame header, metadata, content and slot of what looks like a frame. */
static void
right_frame(uint8_t *f, size_t left, const uint8_t *salt)
{
	uint64_t slot = mw_get32(f + 52), meta = mw_get32(f + 56),
	         body = mw_get64(f + 64);
	uint64_t at = MW_FRAME_HEADER;
	if (slot >= 8 && slot < left && meta < left && body < left &&
	    at + slot + meta + body <= left) {
		mw_put32(f + at, mw_crc32c(0, f + at + 4, slot - 4));
		mw_put32(f + 60, mw_crc32c(0, f + at + slot, meta));
		mw_put32(f + 72, mw_crc32c(0, f + at + slot + meta, body));
	}
	mw_put32(f + 4,
	         mw_crc32c(mw_crc32c(0, salt, MW_SALT_LEN), f + 8, MW_FRAME_HEADER - 8));
}

static void
right(uint8_t *p, size_t n)
{
	right_header(p, n);
	if (n < BLOCK)
		return;
	for (size_t at = BLOCK; at + MW_FRAME_HEADER <= n; at += 8)
		if (memcmp(p + at, "MWF1", 4) == 0)
			right_frame(p + at, n - at, p + 48);
	for (size_t at = BLOCK; at + MW_SEG_TRAILER <= n; at++)
		if (memcmp(p + at, "MWALEND1", 8) == 0)
			mw_put32(p + at + 8, mw_crc32c(mw_crc32c(0, p + 48, MW_SALT_LEN),
			                               p + at + 12, MW_SEG_TRAILER - 12));
}

static int
drop(void *arg, const void *p, size_t n)
{
	(void)p;
	*(uint64_t *)arg += n;
	return 0;
}

static int
first_few(void *arg, const struct mw_record *r)
{
	(void)r;
	return ++*(unsigned *)arg == 20;
}

static void
look(struct mw_store *st, const struct mw_record *r)
{
	MW_ARENA_AUTO *a = mw_arena_new(1 << 24);
	MW_BUF_AUTO meta = {0};
	struct mw_mail m;
	uint64_t n = 0;
	(void)!mw_record_wiped(st, r, NULL);
	if (r->type == MW_TYPE_MAIL && mw_record_mail(st, r, a, &m, NULL) == 0 &&
	    mw_record_body(st, r, &m, drop, &n, NULL) == 0)
		mw_assert(n == r->plain_len && n == m.size);
	if (r->type != MW_TYPE_MAIL)
		(void)!mw_record_meta(st, r, &meta, NULL);
}

static void
walk(struct mw_store *st, size_t size)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	uint64_t last = 0;
	unsigned found = 0;
	size_t steps = 0;
	if (mw_cursor_new(st, 1, &c, &err) < 0)
		return;
	for (int q; (q = mw_cursor_next(c, &r, &err)) != 0;) {
		mw_assert(++steps < size + 16); /* it comes to an end */
		if (q < 0)
			continue;
		mw_assert(r.seq > last || last == 0);
		last = r.seq;
		if (steps < 50)
			look(st, &r);
	}
	(void)!mw_store_find(st, MW_KEY_RCPT, MW_STR("box@golden.test"), first_few,
	                     &found, &err);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	char text[300], id[33];
	if (n < 2 || n > MOST)
		return 0;
	MW_AUTOFREE uint8_t *file = malloc(n - 1);
	mw_assert(file);
	memcpy(file, p + 1, n - 1);
	if (p[0] & 1)
		right(file, n - 1);
	struct fs_mem *m = fs_mem_new();
	const struct mw_fs *fs = fs_mem_fs(m);
	mw_assert(fs->mkdir(fs, "/j") == 0 && fs->mkdir(fs, "/j/segments") == 0);
	mw_hex(id, n > 50 ? file + 32 : sk, 16);
	int k = snprintf(text, sizeof text,
	                 "mailwal journal 1\nid = %s\ntoken_key = %064d\n", id, 1);
	put_file(m, "/j/journal", text, (size_t)k);
	put_file(m, "/j/segments/0000000000000001.seg", file, n - 1);
	struct mw_store_opts o = {.dir = "/j", .fs = fs, .secret = sk, .n_secret = 1};
	struct mw_store *st = NULL;
	if (mw_store_open(&o, &st, NULL) == 0)
		walk(st, n);
	mw_store_close(st);
	fs_mem_free(m);
	return 0;
}
