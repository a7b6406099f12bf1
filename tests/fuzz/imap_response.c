/* imap_response.c - whatever a server sends, the parsers of responses and the profile of
 * a message end, stay within the bytes, and agree with themselves: what a FETCH response
 * yields lies inside it, a UID set's count is what walking it gives, and a profile does
 * not depend on how the bytes were cut. */
#include "replay/imap_parse.h"
#include "replay/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool ok, const char *what)
{
	if (!ok) {
		(void)fprintf(stderr, "imap_response: %s\n", what);
		abort();
	}
}

static bool
inside(struct mw_str s, const char *p, size_t n)
{
	return s.n == 0 || (s.p >= p && s.p + s.n <= p + n);
}

/* A fresh copy each time: the parsers unescape in place. */
static struct mw_imap_cur
fresh(char *room, const uint8_t *data, size_t n)
{
	memcpy(room, data, n);
	return (struct mw_imap_cur){room, n};
}

static void
parse_all(char *room, const uint8_t *data, size_t n)
{
	struct mw_imap_fetch f = {0};
	struct mw_imap_list l;
	struct mw_imap_counts c;
	struct mw_imap_status st;
	struct mw_str prefix;
	char delim;
	if (mw_imap_parse_fetch(fresh(room, data, n), &f))
		require(inside(f.header, room, n) && inside(f.body, room, n), "fetch");
	if (mw_imap_parse_list(fresh(room, data, n), &l))
		require(inside(l.name, room, n), "list");
	if (mw_imap_parse_counts(fresh(room, data, n), &c))
		require(inside(c.name, room, n), "status");
	MW_BUF_AUTO foreign = {0};
	mw_imap_parse_foreign(fresh(room, data, n), &foreign);
	if (mw_imap_parse_namespace(fresh(room, data, n), &prefix, &delim))
		require(inside(prefix, room, n), "namespace");
	struct mw_imap_cur cur = fresh(room, data, n);
	if (mw_imap_parse_status(mw_str(room, n), &st))
		require(inside(st.text, room, n) && inside(st.args, room, n), "answer");
	while (cur.n && mw_imap_skip(&cur))
		require(cur.p >= room && cur.p + cur.n == room + n, "cursor");
}

static void
parse_values(const char *p, size_t n)
{
	struct mw_str s = mw_str(p, n), rest = s;
	uint32_t a, b;
	uint64_t count = 0;
	int64_t us;
	while (mw_imap_set_next(&rest, &a, &b)) {
		require(a <= b, "range");
		count += (uint64_t)(b - a) + 1;
	}
	require(count == mw_imap_set_count(s), "count");
	require(count == 0 || mw_imap_set_at(s, count) == 0, "past the end");
	(void)mw_imap_parse_date(s, &us); /* the value is nobody's business here */
	(void)mw_rfc5322_date(s, &us);
	MW_BUF_AUTO out = {0};
	if (mw_imap_utf7(s, &out))
		for (size_t i = 0; i < out.n; i++)
			require(out.p[i] >= 32 && out.p[i] < 127, "utf-7");
}

static bool
any_queue(void *arg, uint64_t queue)
{
	(void)arg;
	return queue != 0;
}

static void
profiles(const uint8_t *data, size_t n)
{
	struct mw_facts facts;
	struct mw_profiler *f = mw_profiler_new();
	require(f != NULL, "memory");
	(void)mw_profiler_put(f, data, n);
	struct mw_profile *whole = mw_profiler_take(f);
	for (size_t at = 0; at < n;) {
		size_t k = 1 + data[at] % 7;
		k = k < n - at ? k : n - at;
		(void)mw_profiler_put(f, data + at, k);
		at += k;
	}
	struct mw_profile *cut = mw_profiler_take(f);
	require(whole && cut, "memory");
	require(memcmp(whole->digest, cut->digest, 32) == 0, "digest depends on cuts");
	require(memcmp(whole->body, cut->body, 16) == 0, "body depends on cuts");
	require(whole->cut || mw_profile_subset(whole, cut), "subset of itself");
	mw_header_facts(mw_str((const char *)data, n), any_queue, NULL, &facts);
	free(whole);
	free(cut);
	mw_profiler_free(f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *room = malloc(size + 1);
	require(room != NULL, "memory");
	room[size] = '\0';
	parse_all(room, data, size);
	memcpy(room, data, size);
	parse_values(room, size);
	free(room);
	profiles(data, size);
	return 0;
}
