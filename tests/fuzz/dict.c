/* Any bytes as a dictionary, and any as what was compressed with it, give content within
 * its limit or an error; and what is compressed with it comes back. The first two bytes
 * say how long the dictionary is. */
#include "journal/base/util.h"
#include "journal/codec/zstd.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static int
keep(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
	return mw_buf_ok(arg);
}

static int
unpack(const struct mw_zdict *d, const void *p, size_t n, struct mw_buf *out)
{
	struct mw_zd *z = NULL;
	mw_assert(mw_zd_new(d, &z) == 0);
	int r = mw_zd_put(z, p, n, 1 << 20, keep, out);
	if (r == 0 && !mw_zd_complete(z))
		r = MW_EDAMAGED;
	mw_zd_free(z);
	return r;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct mw_zdict *to = NULL, *from = NULL;
	MW_BUF_AUTO any = {0};
	MW_BUF_AUTO packed = {0};
	MW_BUF_AUTO back = {0};
	if (n < 2 || n > 1 << 18)
		return 0;
	size_t len = (size_t)p[0] << 8 | p[1];
	p += 2;
	n -= 2;
	len = MW_MIN(len, n);
	if (mw_zdict_new(p, len, 0, &from) == 0) {
		(void)!unpack(from, p + len, n - len, &any);
		mw_assert(any.n <= 1 << 20);
		if (mw_zdict_new(p, len, 3, &to) == 0 &&
		    mw_zc_all(3, to, p + len, n - len, keep, &packed) == 0) {
			mw_assert(unpack(from, packed.p, packed.n, &back) == 0);
			mw_assert(back.n == n - len &&
			          (!back.n || memcmp(back.p, p + len, back.n) == 0));
		}
	}
	mw_zdict_free(to);
	mw_zdict_free(from);
	return 0;
}
