/* buf.h - a growing byte buffer with a declared maximum. Zero-initialise, then use. */
#ifndef MW_BASE_BUF_H
#define MW_BASE_BUF_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stddef.h>
#include <stdint.h>

struct mw_buf {
	uint8_t *p;
	size_t n;
	size_t cap;
	size_t max;  /* 0: no limit; beyond it MW_ELIMIT */
	bool failed; /* sticky: an append failed; later appends do nothing */
	int why;     /* the error of the first append that failed */
};

/* 0, MW_ENOMEM or MW_ELIMIT; on failure the content is unchanged. */
int mw_buf_reserve(struct mw_buf *b, size_t extra) MW_CHECK;
/* Sticky-failure appends: check b->failed, or mw_buf_ok(), once at the end. */
void mw_buf_put(struct mw_buf *b, const void *p, size_t n);
void mw_buf_putc(struct mw_buf *b, char c);
void mw_buf_puts(struct mw_buf *b, const char *z);
void mw_buf_putstr(struct mw_buf *b, struct mw_str s);
void mw_buf_printf(struct mw_buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* 0, or the error that an append met. */
int mw_buf_ok(const struct mw_buf *b) MW_CHECK;
/* Adds a terminating NUL (not counted in n) and returns the text; "" on failure. */
const char *mw_buf_cstr(struct mw_buf *b);
struct mw_str mw_buf_str(const struct mw_buf *b);
void mw_buf_clear(struct mw_buf *b); /* n = 0, memory kept */
void mw_buf_free(struct mw_buf *b);
/* Overwrites the content before freeing it: for keys and passwords. */
void mw_buf_wipe(struct mw_buf *b);
/* Removes n bytes from the front. */
void mw_buf_drop(struct mw_buf *b, size_t n);

#define MW_BUF_AUTO __attribute__((cleanup(mw_buf_free))) struct mw_buf

#endif
