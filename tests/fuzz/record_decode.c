/* Any bytes decode to a value or to an error, and what decodes encodes to something that
 * decodes to the same: mail metadata, marks, recovery notes, verdicts. */
#include "journal/base/err.h"
#include "journal/record/meta.h"
#include "journal/record/retire.h"
#include "journal/record/spf.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void
mail(const uint8_t *p, size_t n)
{
	MW_ARENA_AUTO *a = mw_arena_new(1 << 24);
	MW_BUF_AUTO one = {0};
	MW_BUF_AUTO two = {0};
	struct mw_err err;
	struct mw_mail m, again;
	if (mw_mail_decode(p, n, a, &m, &err) < 0)
		return;
	mw_assert(mw_mail_encode(&m, &one) == 0);
	mw_assert(mw_mail_decode(one.p, one.n, a, &again, &err) == 0);
	mw_assert(mw_mail_encode(&again, &two) == 0);
	mw_assert(one.n == two.n && memcmp(one.p, two.p, one.n) == 0);
}

/* HOLD, TOMBSTONE, AUDIT, RESTORE. */
static void
retired(const uint8_t *p, size_t n)
{
	MW_ARENA_AUTO *a = mw_arena_new(1 << 24);
	MW_BUF_AUTO b = {0};
	struct mw_err err;
	struct mw_hold h;
	struct mw_tombstone t;
	struct mw_audit x;
	struct mw_restore y;
	if (mw_hold_decode(p, n, a, &h, &err) == 0) {
		mw_assert(mw_hold_encode(&h, &b) == 0);
		mw_assert(mw_hold_decode(b.p, b.n, a, &h, &err) == 0);
	}
	mw_buf_clear(&b);
	if (mw_tombstone_decode(p, n, a, &t, &err) == 0) {
		mw_assert(mw_tombstone_encode(&t, &b) == 0);
		mw_assert(mw_tombstone_decode(b.p, b.n, a, &t, &err) == 0);
	}
	mw_buf_clear(&b);
	if (mw_audit_decode(p, n, a, &x, &err) == 0) {
		mw_assert(mw_audit_encode(&x, &b) == 0);
		mw_assert(mw_audit_decode(b.p, b.n, a, &x, &err) == 0);
	}
	mw_buf_clear(&b);
	if (mw_restore_decode(p, n, a, &y, &err) == 0) {
		mw_assert(mw_restore_encode(&y, &b) == 0);
		mw_assert(mw_restore_decode(b.p, b.n, a, &y, &err) == 0);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	MW_ARENA_AUTO *a = mw_arena_new(1 << 24);
	struct mw_err err;
	struct mw_mark k;
	struct mw_recovery r;
	mail(p, n);
	retired(p, n);
	if (mw_mark_decode(p, n, a, &k, &err) == 0) {
		MW_BUF_AUTO b = {0};
		mw_assert(mw_mark_encode(&k, &b) == 0);
	}
	(void)!mw_recovery_decode(p, n, &r, &err);
	struct mw_spf s;
	if (mw_spf_decode(p, n, a, &s, &err) == 0) {
		MW_BUF_AUTO b = {0};
		mw_assert(mw_spf_encode(&s, &b) == 0);
		mw_assert(mw_spf_decode(b.p, b.n, a, &s, &err) == 0);
	}
	return 0;
}
