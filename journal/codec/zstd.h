/* zstd.h - compression of record parts: one zstd frame a part (RFC 8878).
 *
 * A compressor or decompressor belongs to one thread at a time. Output goes to a sink in
 * pieces of any size. Memory of a streaming compressor is bounded (window 256 KiB).
 */
#ifndef MW_CODEC_ZSTD_H
#define MW_CODEC_ZSTD_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int mw_zstd_sink(void *arg, const void *p, size_t n); /* 0 or MW_E* */

struct mw_zc;    /* compressor */
struct mw_zd;    /* decompressor */
struct mw_zdict; /* a dictionary, ready for use; many threads may use one */

enum {
	MW_ZDICT_MOST = 1 << 20 /* bytes: no reader takes more */
};

/* A dictionary out of its bytes, for compressing with that level, or, with level 0, for
 * decompressing. MW_ENOMEM, or MW_EDAMAGED: these bytes are none. */
int mw_zdict_new(const void *p, size_t n, int level, struct mw_zdict **ret) MW_CHECK;
void mw_zdict_free(struct mw_zdict *d); /* NULL ok */
/* The bytes of a dictionary with that text, its entropy tables made from n samples that
 * stand back to back; appended to out. MW_ENOMEM, or MW_ENOTFOUND: zstd makes none of so
 * little. */
int mw_zdict_make(struct mw_str text, const void *samples, const size_t *len, unsigned n,
                  int level, struct mw_buf *out) MW_CHECK;

int mw_zc_new(int level, struct mw_zc **ret) MW_CHECK;
int mw_zc_put(struct mw_zc *z, const void *p, size_t n, bool end, mw_zstd_sink *sink,
              void *arg) MW_CHECK;
void mw_zc_free(struct mw_zc *z); /* NULL ok */
/* All at once; contexts are pooled, so this is cheap for small inputs. With a dictionary
 * (or NULL) its level counts; the frame then carries no dictionary ID. */
int mw_zc_all(int level, const struct mw_zdict *dict, const void *p, size_t n,
              mw_zstd_sink *sink, void *arg) MW_CHECK;

/* dict: what the frame was compressed with, or NULL; it must stay as long as frames
 * are put. */
int mw_zd_new(const struct mw_zdict *dict, struct mw_zd **ret) MW_CHECK;
/* One that is there, for another frame; on failure it is good for mw_zd_free only. */
int mw_zd_again(struct mw_zd *z, const struct mw_zdict *dict) MW_CHECK;
/* Fewer than `max_plain` bytes in all, else MW_ELIMIT; garbage is MW_EDAMAGED. */
int mw_zd_put(struct mw_zd *z, const void *p, size_t n, uint64_t max_plain,
              mw_zstd_sink *sink, void *arg) MW_CHECK;
bool mw_zd_complete(const struct mw_zd *z); /* the frame has ended */
bool mw_zd_small(const struct mw_zd *z);    /* its memory is worth keeping */
void mw_zd_free(struct mw_zd *z);           /* NULL ok */

#endif
