/* Any line gives an event or none; every string of the event lies within the line, and
 * is not longer without its escapes. */
#include "replay/mtalog.h"
#include "journal/base/err.h"

#include <stddef.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct mw_mta_event e;
	struct mw_str line = {(const char *)p, n};
	bool some = mw_mtalog_line(line, INT64_C(1795352400000000), &e);
	const struct mw_str s[] = {e.service, e.queue_id, e.addr, e.original,
	                           e.relay,   e.dsn,      e.text, e.other};
	mw_assert(some == (e.kind != MW_MTA_NOTHING));
	for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)
		mw_assert(!s[i].n || (s[i].p >= line.p && s[i].p + s[i].n <= line.p + n));
	char *plain = malloc(n + 1); /* so that a sanitizer sees each overrun */
	mw_assert(plain);
	for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)
		mw_assert(mw_mtalog_plain(s[i], plain).n <= s[i].n);
	free(plain);
	for (size_t i = 0; mw_mtalog_next(&e); i++)
		mw_assert(i < n && e.addr.p >= line.p &&
		          e.addr.p + e.addr.n <= line.p + n);
	return 0;
}
