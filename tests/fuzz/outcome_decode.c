/* Any bytes decode to outcomes or to an error, and what decodes encodes to something that
 * decodes to the same. */
#include "journal/record/outcome.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	MW_ARENA_AUTO *a = mw_arena_new(1 << 24);
	MW_BUF_AUTO one = {0};
	MW_BUF_AUTO two = {0};
	struct mw_err err;
	struct mw_outcomes o, again;
	if (mw_outcomes_decode(p, n, a, &o, &err) < 0)
		return 0;
	mw_assert(mw_outcomes_encode(&o, &one) == 0);
	mw_assert(mw_outcomes_decode(one.p, one.n, a, &again, &err) == 0);
	mw_assert(mw_outcomes_encode(&again, &two) == 0);
	mw_assert(one.n == two.n && memcmp(one.p, two.p, one.n) == 0);
	return 0;
}
