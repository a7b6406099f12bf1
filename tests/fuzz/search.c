/* Looking into a message never reads outside it, ends, and gives the same answer however
 * the message is cut; what is folded is valid UTF-8 and folds to itself. */
#include "replay/search.h"
#include "journal/base/err.h"
#include "journal/base/util.h"
#include "replay/cmd.h"
#include "replay/mime_walk.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void
text(void *arg, struct mw_str utf8)
{
	for (size_t i = 0; i < utf8.n;) {
		size_t len = mw_utf8_char(utf8.p + i, utf8.n - i);
		mw_assert(len > 0);
		i += len;
	}
	mw_buf_putstr(arg, utf8);
}

static void
pause_here(void *arg)
{
	mw_buf_putc(arg, '|');
}

static void
walk(const uint8_t *p, size_t n, size_t cut, struct mw_buf *out)
{
	const struct mw_walk_on on = {text, pause_here, text, out};
	struct mw_walk *w = mw_walk_new(&on);
	mw_assert(w);
	for (size_t at = 0; at < n; at += cut)
		mw_walk_put(w, p + at, MW_MIN(cut, n - at));
	mw_walk_end(w);
	mw_walk_free(w);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	MW_BUF_AUTO one = {0};
	MW_BUF_AUTO two = {0};
	MW_BUF_AUTO head = {0};
	MW_BUF_AUTO folded = {0};
	MW_BUF_AUTO again = {0};
	walk(p, n, n ? n : 1, &one);
	walk(p, n, 5, &two);
	mw_assert(one.n == two.n && (one.n == 0 || memcmp(one.p, two.p, one.n) == 0));
	mw_mime_header(mw_str((const char *)p, n), &head);
	bool space = true;
	mw_mime_fold(mw_buf_str(&one), &space, &folded);
	space = true;
	mw_mime_fold(mw_buf_str(&folded), &space, &again);
	mw_assert(again.n == folded.n &&
	          (again.n == 0 || memcmp(again.p, folded.p, again.n) == 0));
	return 0;
}
