/* No text but one that the key has signed is taken for a checkpoint, and what is taken
 * says what was signed. */
#include "journal/verify/checkpoint.h"
#include "journal/base/util.h"
#include "journal/codec/sign.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static uint8_t seed[MW_SIGN_SEED] = {1}, pk[MW_SIGN_PUBLIC];
	struct mw_checkpoint c;
	struct mw_err err;
	if (!pk[0] && !pk[1])
		mw_assert(mw_sign_public(seed, pk) == 0);
	/* nobody has signed anything with this key */
	mw_assert(mw_checkpoint_parse(mw_str((const char *)p, n), pk, &c, &err) < 0);
	return 0;
}
