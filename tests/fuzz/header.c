/* Header walking, unfolding, decoding and the canonical form never read outside their
 * input, end, and give the same canonical form however the input is cut. */
#include "journal/record/header.h"
#include "journal/base/err.h"
#include "journal/record/canon.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void
collect(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
}

static void
canon(const uint8_t *p, size_t n, size_t cut, struct mw_buf *out)
{
	struct mw_canon c;
	mw_canon_init(&c, collect, out);
	for (size_t at = 0; at < n; at += cut)
		mw_canon_put(&c, p + at, n - at < cut ? n - at : cut);
	mw_canon_done(&c);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	MW_ARENA_AUTO *a = mw_arena_new(1 << 24);
	MW_BUF_AUTO one = {0};
	MW_BUF_AUTO two = {0};
	struct mw_str in = mw_str((const char *)p, n), rest = in;
	struct mw_field f;
	size_t header;
	while (mw_header_next(&rest, &f)) {
		MW_BUF_AUTO d = {0};
		struct mw_str u = mw_header_unfold(a, f.value, 1000);
		if (!u.p)
			break;
		mw_header_decode(u, &d);
		(void)mw_header_msgid(u);
		(void)mw_header_received_id(u);
	}
	mw_assert(mw_header_split(in, &header) <= n && header <= n);
	canon(p, n, n ? n : 1, &one);
	canon(p, n, 3, &two);
	mw_assert(one.n == two.n && (one.n == 0 || memcmp(one.p, two.p, one.n) == 0));
	return 0;
}
