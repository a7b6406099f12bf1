/* The header block of a segment, written twice in a row, so that what hits one of them
 * costs no records (FORMAT.md §2). */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/segment/segment_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "MAILWAL1";

enum {
	MOST_BLOCKS = 16 /* a header block is at most so many times MW_SEG_BLOCK */
};

static void
put_block(const struct mw_seg_header *h, uint32_t length, uint8_t *p)
{
	memcpy(p, magic, 8);
	mw_put32(p + 12, length);
	mw_put16(p + 16, 1);
	mw_put16(p + 18, 1);
	mw_put32(p + 24, h->prev_open);
	mw_put32(p + 28, h->delimiter);
	memcpy(p + 32, h->journal, MW_ID_LEN);
	memcpy(p + 48, h->salt, MW_SALT_LEN);
	mw_put64(p + 64, h->number);
	mw_put64(p + 72, h->first_seq);
	mw_put64(p + 80, h->first_batch);
	mw_put64(p + 88, (uint64_t)h->created_us);
	mw_put64(p + 96, h->prev_number);
	mw_put64(p + 104, h->prev_batch);
	mw_put64(p + 112, h->prev_end);
	memcpy(p + 120, h->chain, MW_HASH_LEN);
	mw_put32(p + 152, h->n_stanzas);
	if (h->stanzas_len)
		memcpy(p + STANZAS_AT, h->stanzas, h->stanzas_len);
	mw_put32(p + 8, mw_crc32c(0, p + 12, length - 12));
}

void
mw_seg_header_put(const struct mw_seg_header *h, uint8_t *p)
{
	uint32_t length = h->length / 2;
	put_block(h, length, p);
	memcpy(p + length, p, length);
}

static int
damaged(struct mw_err *err, uint64_t number, const char *what)
{
	return mw_fail(err, MW_EDAMAGED, "segment %llu: %s", (unsigned long long)number,
	               what);
}

static int
read_failed(struct mw_err *err, int64_t r, uint64_t number)
{
	errno = (int)-r;
	return mw_fail_errno(err, "cannot read segment %llu", (unsigned long long)number);
}

/* The block at `at`, if it is one: 1 and *ret, malloc'd, and its length; 0. */
static int
read_block(struct mw_seg *s, uint64_t number, uint64_t at, uint8_t **ret,
           uint32_t *ret_len, struct mw_err *err)
{
	uint8_t head[16];
	int64_t n = s->fs->pread(s->fs, s->fd, head, sizeof head, at);
	if (n < 0)
		return read_failed(err, n, number);
	uint32_t len = mw_get32(head + 12);
	if (n < (int64_t)sizeof head || memcmp(head, magic, 8) != 0 ||
	    len < MW_SEG_BLOCK || len % MW_SEG_BLOCK ||
	    len > MOST_BLOCKS * MW_SEG_BLOCK || (at && at != len))
		return 0;
	MW_AUTOFREE uint8_t *p = malloc(len);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory for a segment header");
	n = s->fs->pread(s->fs, s->fd, p, len, at);
	if (n < 0)
		return read_failed(err, n, number);
	if ((uint64_t)n < len || mw_get32(p + 8) != mw_crc32c(0, p + 12, len - 12))
		return 0;
	*ret = MW_TAKE(p);
	*ret_len = len;
	return 1;
}

static int
take_fields(struct mw_seg *s, uint64_t number, const uint8_t *journal, uint8_t *p,
            uint32_t len, struct mw_err *err)
{
	if (mw_get16(p + 16) > 1 || mw_get32(p + 20) != 0) {
		(void)mw_fail(err, MW_EVERSION, "segment %llu has format version %u",
		              (unsigned long long)number, mw_get16(p + 16));
		(void)mw_err_hint(err, "read it with a newer mailwal");
		return MW_EVERSION;
	}
	struct mw_seg_header *h = &s->h;
	h->length = 2 * len;
	memcpy(h->journal, p + 32, MW_ID_LEN);
	memcpy(h->salt, p + 48, MW_SALT_LEN);
	h->prev_open = (mw_get32(p + 24) & 1) != 0;
	h->delimiter = mw_get32(p + 28);
	h->number = mw_get64(p + 64);
	h->first_seq = mw_get64(p + 72);
	h->first_batch = mw_get64(p + 80);
	h->created_us = (int64_t)mw_get64(p + 88);
	h->prev_number = mw_get64(p + 96);
	h->prev_batch = mw_get64(p + 104);
	h->prev_end = mw_get64(p + 112);
	memcpy(h->chain, p + 120, MW_HASH_LEN);
	h->n_stanzas = mw_get32(p + 152);
	h->stanzas_len = len - STANZAS_AT;
	h->stanzas = malloc(h->stanzas_len);
	if (!h->stanzas)
		return mw_fail(err, MW_ENOMEM, "out of memory for a segment header");
	memcpy(h->stanzas, p + STANZAS_AT, h->stanzas_len);
	explicit_bzero(p, len);
	if (journal && memcmp(journal, h->journal, MW_ID_LEN) != 0)
		return mw_fail(err, MW_EFORMAT, "segment %llu belongs to another journal",
		               (unsigned long long)number);
	if (h->number != number)
		return mw_fail(err, MW_EFORMAT,
		               "the file of segment %llu holds segment %llu",
		               (unsigned long long)number, (unsigned long long)h->number);
	return 0;
}

int
mw_seg_header_get(struct mw_seg *s, uint64_t number, const uint8_t *journal,
                  struct mw_err *err)
{
	MW_AUTOFREE uint8_t *p = NULL;
	uint8_t *copy = NULL;
	uint32_t len = 0, copy_len = 0;
	int r = read_block(s, number, 0, &p, &len, err);
	if (r < 0)
		return r;
	/* the copy stands where the block ends; without the block: wherever one fits */
	int c = 0;
	for (uint32_t at = len ? len : MW_SEG_BLOCK;
	     c == 0 && at <= (len ? len : MOST_BLOCKS * MW_SEG_BLOCK); at += MW_SEG_BLOCK)
		c = read_block(s, number, at, &copy, &copy_len, err);
	if (c < 0)
		return c;
	s->header_hurt = r == 0 || c == 0 || memcmp(p, copy, len) != 0;
	if (r == 0 && c == 1) {
		p = copy;
		len = copy_len;
	} else {
		free(copy);
	}
	if (!p)
		return damaged(err, number, "no header that matches its checksum");
	return take_fields(s, number, journal, p, len, err);
}
