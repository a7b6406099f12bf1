/* logform.c - what journalctl prints, line by line, hostile; and the same bytes as the
 * text of an entry, which must come back as one line, with the entry behind it unharmed.
 */
#include "replay/logform.h"
#include "journal/base/util.h"
#include "replay/mtalog.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	LINE_MOST = 300, /* what a line is cut at, so that short inputs have such */
	MESSAGE_MOST = 60000
};

#define STAMP "1795469980.154934 vm postfix/lmtp[77]: "

/* All lines, as logsrc gives them; those that come out, each with its end, in out. */
static void
take_all(struct mw_str s, size_t most, struct mw_buf *out)
{
	struct mw_logform f = {.entry = false};
	while (s.n) {
		const char *end = memchr(s.p, '\n', s.n);
		size_t n = end ? (size_t)(end - s.p) : s.n, k = MW_MIN(n, most);
		char *raw = malloc(k ? k : 1); /* so that a sanitizer sees each overrun */
		struct mw_str got;
		struct mw_mta_event e;
		if (!raw)
			abort();
		memcpy(raw, s.p, k);
		int r = mw_logform_take(&f, mw_str(raw, k), &got);
		if (r < 0 || r > 1)
			abort();
		if (r) {
			(void)mw_mtalog_line(got, INT64_C(1795352400000000), &e);
			if (got.n && memchr(got.p, '\n', got.n))
				abort();
			mw_buf_putstr(out, got);
			mw_buf_putc(out, '\n');
		}
		if (n > k)
			mw_logform_rest(&f, n - k);
		free(raw);
		s = mw_str(s.p + n, s.n - n);
		if (s.n)
			s = mw_str(s.p + 1, s.n - 1);
	}
	mw_logform_done(&f);
}

static void
put_entry(struct mw_buf *b, const uint8_t *text, size_t n)
{
	mw_buf_puts(b, "__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795469980154934\n"
	               "_HOSTNAME=vm\nSYSLOG_IDENTIFIER=postfix/lmtp\nMESSAGE\n");
	for (int i = 0; i < 64; i += 8)
		mw_buf_putc(b, (char)((uint64_t)n >> i & 0xff));
	mw_buf_put(b, text, n);
	mw_buf_puts(b, "\n_PID=77\n\n");
}

static void
as_text(const uint8_t *data, size_t size, size_t most)
{
	static const char last[] = STAMP "removed\n";
	MW_BUF_AUTO in = {0}, out = {0};
	put_entry(&in, data, size);
	put_entry(&in, (const uint8_t *)"removed", 7);
	take_all(mw_buf_str(&in), most, &out);
	size_t tail = sizeof last - 1, head = sizeof STAMP - 1;
	if (out.n < head + 1 + tail || memcmp(out.p, STAMP, head) != 0 ||
	    memcmp(out.p + out.n - tail, last, tail) != 0)
		abort();
	if (most < SIZE_MAX)
		return;
	if (out.n != head + MW_MIN(size, (size_t)MESSAGE_MOST) + 1 + tail)
		abort();
	for (size_t i = 0; i < MW_MIN(size, (size_t)MESSAGE_MOST); i++)
		if (out.p[head + i] !=
		    (data[i] == '\n' || data[i] == '\r' ? ' ' : data[i]))
			abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mw_str s = {(const char *)data, size};
	MW_BUF_AUTO out = {0};
	if (!mw_logform_hint(s))
		abort();
	take_all(s, LINE_MOST, &out);
	mw_buf_clear(&out);
	take_all(s, SIZE_MAX, &out);
	as_text(data, size, LINE_MOST);
	as_text(data, size, SIZE_MAX);
	return 0;
}
