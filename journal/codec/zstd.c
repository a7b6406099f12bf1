#include "journal/codec/zstd.h"

#include "journal/base/util.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zdict.h>
#define ZSTD_STATIC_LINKING_ONLY /* a CDict in memory of ours, see new_cdict */
#include <zstd.h>
#include <zstd_errors.h>

enum {
	STREAM_WINDOW_LOG = 18, /* 256 KiB: bounds a session's memory */
	READ_WINDOW_LOG = 27,   /* what a reader accepts: 128 MiB */
	OUT = 32768,
	POOL = 8,
	STREAMS = 4,        /* kept; each has 1 MB or more */
	KEEP_DCTX = 4 << 20 /* one that had a large window is not kept */
};

struct mw_zdict {
	const ZSTD_CDict *c;
	void *c_mem; /* where it is */
	ZSTD_DDict *d;
};

struct mw_zc {
	ZSTD_CCtx *c;
	bool stream;
	uint8_t out[OUT];
};

struct mw_zd {
	ZSTD_DCtx *d;
	uint64_t made;
	bool begun, complete;
	uint8_t out[OUT];
};

/* Compressors for small parts, kept between messages: setting one up costs more than
 * compressing a short mail. */
static pthread_mutex_t pool_mu = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static struct mw_zc *pool[POOL];
static int pooled;
static struct mw_zc *s_pool[STREAMS]; /* streaming ones, which are much larger */
static int s_pooled;
static struct mw_zd *d_pool[POOL]; /* the same for decompressors */
static int d_pooled;

static int
new_ctx(struct mw_zc **ret)
{
	struct mw_zc *z = malloc(sizeof *z);
	if (!z)
		return MW_ENOMEM;
	z->c = ZSTD_createCCtx();
	z->stream = false;
	if (!z->c) {
		free(z);
		return MW_ENOMEM;
	}
	*ret = z;
	return 0;
}

static void
zc_free(struct mw_zc *z)
{
	if (!z)
		return;
	(void)ZSTD_freeCCtx(z->c);
	free(z);
}

int
mw_zc_new(int level, struct mw_zc **ret)
{
	(void)pthread_mutex_lock(&pool_mu);
	struct mw_zc *z = s_pooled ? s_pool[--s_pooled] : NULL;
	(void)pthread_mutex_unlock(&pool_mu);
	int r = z ? 0 : new_ctx(&z);
	if (r < 0)
		return r;
	z->stream = true;
	if (ZSTD_isError(ZSTD_CCtx_reset(z->c, ZSTD_reset_session_and_parameters)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(z->c, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(
	        ZSTD_CCtx_setParameter(z->c, ZSTD_c_windowLog, STREAM_WINDOW_LOG))) {
		zc_free(z);
		return MW_EBUG;
	}
	*ret = z;
	return 0;
}

void
mw_zc_free(struct mw_zc *z)
{
	if (z && z->stream) {
		(void)pthread_mutex_lock(&pool_mu);
		if (s_pooled < STREAMS) {
			s_pool[s_pooled++] = z;
			z = NULL;
		}
		(void)pthread_mutex_unlock(&pool_mu);
	}
	zc_free(z);
}

int
mw_zc_put(struct mw_zc *z, const void *p, size_t n, bool end, mw_zstd_sink *sink,
          void *arg)
{
	ZSTD_inBuffer in = {p, n, 0};
	for (;;) {
		ZSTD_outBuffer out = {z->out, sizeof z->out, 0};
		size_t left = ZSTD_compressStream2(z->c, &out, &in,
		                                   end ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return MW_ENOMEM;
		if (out.pos) {
			int r = sink(arg, z->out, out.pos);
			if (r < 0)
				return r;
		}
		if (end ? left == 0 : in.pos == in.size)
			return 0;
	}
}

/* zstd only says that it made none: for want of memory, or is it no dictionary? */
static int
new_ddict(const void *p, size_t n, struct mw_zdict *ret)
{
	static const uint8_t empty[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0};
	char out[1];
	ret->d = ZSTD_createDDict(p, n);
	if (ret->d)
		return 0;
	ZSTD_DCtx *d = ZSTD_createDCtx();
	if (!d)
		return MW_ENOMEM;
	size_t k =
	    ZSTD_decompress_usingDict(d, out, sizeof out, empty, sizeof empty, p, n);
	(void)ZSTD_freeDCtx(d);
	return ZSTD_isError(k) && ZSTD_getErrorCode(k) != ZSTD_error_memory_allocation
	           ? MW_EDAMAGED
	           : MW_ENOMEM;
}

/* ZSTD_createCDict of zstd 1.5.4 follows a null pointer where memory is wanting: so the
 * memory is ours. 513 is the source size that it reckons with. */
static int
new_cdict(const void *p, size_t n, int level, struct mw_zdict *ret)
{
	ZSTD_compressionParameters par = ZSTD_getCParams(level, 513, n);
	size_t size = ZSTD_estimateCDictSize_advanced(n, par, ZSTD_dlm_byCopy);
	ret->c_mem = malloc(size);
	if (!ret->c_mem)
		return MW_ENOMEM;
	ret->c = ZSTD_initStaticCDict(ret->c_mem, size, p, n, ZSTD_dlm_byCopy,
	                              ZSTD_dct_fullDict, par);
	return ret->c ? 0 : MW_EDAMAGED;
}

int
mw_zdict_new(const void *p, size_t n, int level, struct mw_zdict **ret)
{
	if (n < 8 || n > MW_ZDICT_MOST)
		return MW_EDAMAGED;
	struct mw_zdict *d = calloc(1, sizeof *d);
	if (!d)
		return MW_ENOMEM;
	/* zstd takes whatever does not begin with its number for plain text. */
	int r = memcmp(p, "\x37\xa4\x30\xec", 4) != 0 ? MW_EDAMAGED
	        : level                               ? new_cdict(p, n, level, d)
	                                              : new_ddict(p, n, d);
	if (r < 0) {
		mw_zdict_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

void
mw_zdict_free(struct mw_zdict *d)
{
	if (!d)
		return;
	free(d->c_mem);
	(void)ZSTD_freeDDict(d->d);
	free(d);
}

int
mw_zdict_make(struct mw_str text, const void *samples, const size_t *len, unsigned n,
              int level, struct mw_buf *out)
{
	enum {
		TABLES = 4096,    /* room for the entropy tables */
		TEXT_LEAST = 128, /* what zstd wants */
		DICT_LEAST = 256
	};
	ZDICT_params_t params = {.compressionLevel = level};
	size_t most = MW_MAX(text.n, (size_t)DICT_LEAST) + TABLES;
	if (text.n < TEXT_LEAST || n == 0)
		return MW_ENOTFOUND;
	if (mw_buf_reserve(out, most) < 0)
		return MW_ENOMEM;
	size_t k = ZDICT_finalizeDictionary(out->p + out->n, most, text.p, text.n,
	                                    samples, len, n, params);
	if (ZDICT_isError(k))
		return MW_ENOTFOUND;
	out->n += k;
	return 0;
}

static struct mw_zc *
pool_get(void)
{
	(void)pthread_mutex_lock(&pool_mu);
	struct mw_zc *z = pooled ? pool[--pooled] : NULL;
	(void)pthread_mutex_unlock(&pool_mu);
	return z;
}

static void
pool_put(struct mw_zc *z)
{
	(void)pthread_mutex_lock(&pool_mu);
	if (pooled < POOL) {
		pool[pooled++] = z;
		z = NULL;
	}
	(void)pthread_mutex_unlock(&pool_mu);
	zc_free(z);
}

int
mw_zc_all(int level, const struct mw_zdict *dict, const void *p, size_t n,
          mw_zstd_sink *sink, void *arg)
{
	struct mw_zc *z = pool_get();
	if (!z) {
		int r = new_ctx(&z);
		if (r < 0)
			return r;
	}
	(void)ZSTD_CCtx_reset(z->c, ZSTD_reset_session_and_parameters);
	int r = 0;
	if (ZSTD_isError(ZSTD_CCtx_setParameter(z->c, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(z->c, ZSTD_c_dictIDFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(z->c, n)))
		r = MW_EBUG;
	if (r == 0 && dict && ZSTD_isError(ZSTD_CCtx_refCDict(z->c, dict->c)))
		r = MW_EBUG;
	if (r == 0)
		r = mw_zc_put(z, p, n, true, sink, arg);
	pool_put(z);
	return r;
}

int
mw_zd_again(struct mw_zd *z, const struct mw_zdict *dict)
{
	z->made = 0;
	z->begun = z->complete = false;
	if (ZSTD_isError(ZSTD_DCtx_reset(z->d, ZSTD_reset_session_and_parameters)) ||
	    ZSTD_isError(
	        ZSTD_DCtx_setParameter(z->d, ZSTD_d_windowLogMax, READ_WINDOW_LOG)) ||
	    (dict && ZSTD_isError(ZSTD_DCtx_refDDict(z->d, dict->d))))
		return MW_ENOMEM;
	return 0;
}

int
mw_zd_new(const struct mw_zdict *dict, struct mw_zd **ret)
{
	(void)pthread_mutex_lock(&pool_mu);
	struct mw_zd *z = d_pooled ? d_pool[--d_pooled] : NULL;
	(void)pthread_mutex_unlock(&pool_mu);
	if (!z) {
		z = malloc(sizeof *z);
		if (!z)
			return MW_ENOMEM;
		z->d = ZSTD_createDCtx();
	}
	if (!z->d || mw_zd_again(z, dict) < 0) {
		ZSTD_freeDCtx(z->d);
		free(z);
		return MW_ENOMEM;
	}
	*ret = z;
	return 0;
}

bool
mw_zd_small(const struct mw_zd *z)
{
	return ZSTD_sizeof_DCtx(z->d) <= KEEP_DCTX;
}

void
mw_zd_free(struct mw_zd *z)
{
	if (!z)
		return;
	if (mw_zd_small(z)) {
		(void)pthread_mutex_lock(&pool_mu);
		if (d_pooled < POOL) {
			d_pool[d_pooled++] = z;
			z = NULL;
		}
		(void)pthread_mutex_unlock(&pool_mu);
	}
	if (!z)
		return;
	ZSTD_freeDCtx(z->d);
	free(z);
}

bool
mw_zd_complete(const struct mw_zd *z)
{
	return z->complete;
}

/* Is it one frame, there as a whole, that has room in z->out by its own word? (What zstd
 * says where it does not know is larger.) */
static bool
is_small_frame(const struct mw_zd *z, const void *p, size_t n)
{
	return !z->begun && ZSTD_getFrameContentSize(p, n) <= sizeof z->out &&
	       ZSTD_findFrameCompressedSize(p, n) == n;
}

static int
give(struct mw_zd *z, size_t n, uint64_t max_plain, mw_zstd_sink *sink, void *arg)
{
	z->made += n;
	if (z->made > max_plain)
		return MW_ELIMIT;
	return n ? sink(arg, z->out, n) : 0;
}

int
mw_zd_put(struct mw_zd *z, const void *p, size_t n, uint64_t max_plain,
          mw_zstd_sink *sink, void *arg)
{
	if (is_small_frame(z, p, n)) { /* metadata are; a stream takes longer */
		size_t k = ZSTD_decompressDCtx(z->d, z->out, sizeof z->out, p, n);
		z->begun = z->complete = true;
		return ZSTD_isError(k) ? MW_EDAMAGED : give(z, k, max_plain, sink, arg);
	}
	z->begun = true;
	ZSTD_inBuffer in = {p, n, 0};
	while (in.pos < in.size || !z->complete) {
		if (z->complete) /* bytes after the frame */
			return MW_EDAMAGED;
		ZSTD_outBuffer out = {z->out, sizeof z->out, 0};
		size_t left = ZSTD_decompressStream(z->d, &out, &in);
		if (ZSTD_isError(left))
			return MW_EDAMAGED;
		z->complete = left == 0;
		int r = give(z, out.pos, max_plain, sink, arg);
		if (r < 0)
			return r;
		if (in.pos == in.size && out.pos < sizeof z->out)
			break;
	}
	return in.pos < in.size ? MW_EDAMAGED : 0;
}
