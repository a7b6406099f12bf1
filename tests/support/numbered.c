#include "tests/support/numbered.h"

#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

int
numbered_setup(void **state)
{
	struct box *b = calloc(1, sizeof *b);
	assert_non_null(b);
	(void)snprintf(b->dir, sizeof b->dir, "%s/mw-store-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	(void)snprintf(b->journal, sizeof b->journal, "%.4000s/j", b->dir);
	struct mw_err err = {0};
	assert_int_equal(mw_store_create(b->journal, NULL, NULL, &err), 0);
	*state = b;
	return 0;
}

int
numbered_teardown(void **state)
{
	struct box *b = *state;
	shell("rm -rf '%s'", b->dir);
	free(b);
	return 0;
}

struct mw_store *
open_store(const struct box *b, enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = b->journal,
	                          .mode = mode,
	                          .segment_size = 1 << 20};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("open: %s", err.msg);
	return st;
}

void
content_of(unsigned k, struct mw_buf *out)
{
	mw_buf_printf(out, "Received: by x id Q%u;\r\nMessage-ID: <%u@x.test>\r\n", k, k);
	mw_buf_printf(out, "Subject: number\r\n %u\r\nFrom: a%u@x.test\r\n\r\n", k, k);
	size_t n = k % 4 == 3 ? 400000 + k * 7 : (size_t)k * 37 % 5000;
	uint64_t x = k + 1;
	for (size_t i = 0; i < n; i++) {
		(void)dice_next(&x);
		mw_buf_putc(out, k % 4 == 3 ? (char)(x >> 33) : (char)('a' + x % 7));
	}
}

struct mw_entry *
entry_of(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	struct mw_entry *e = NULL;
	MW_BUF_AUTO c = {0};
	content_of(k, &c);
	assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, &err), 0);
	for (size_t at = 0; at < c.n;) { /* cut anywhere */
		size_t n = MW_MIN(c.n - at, 1 + (at * 31 + k) % 70000);
		assert_int_equal(mw_entry_body(e, c.p + at, n, &err), 0);
		at += n;
	}
	char rcpt[64], qid[32];
	(void)snprintf(rcpt, sizeof rcpt, "User%u@Example.TEST", k % 5);
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	struct mw_rcpt r = {.addr = mw_strz(rcpt), .flags = MW_RCPT_LOCAL};
	struct mw_mail m = {.time_us = 1700000000000000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("s@x.test"),
	                    .front = MW_STR("milter"),
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	assert_int_equal(mw_entry_describe(e, &m, &err), 0);
	assert_int_equal(m.size, c.n);
	if (mw_entry_finish_mail(e, &m, &err) < 0)
		fail_msg("finish: %s", err.msg);
	return e;
}

void
append(struct mw_store *st, unsigned k)
{
	struct mw_err err = {0};
	struct mw_commit c;
	MW_ENTRY_AUTO *e = entry_of(st, k);
	if (mw_store_append(st, e, &c, &err) < 0)
		fail_msg("append: %s", err.msg);
}

void
check_all(struct mw_store *st, unsigned n)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	unsigned seen = 0;
	uint64_t seq = 0;
	int k;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		assert_int_equal(r.seq, seq + 1);
		seq = r.seq;
		if (r.type != MW_TYPE_MAIL)
			continue;
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_mail m;
		MW_BUF_AUTO got = {0};
		MW_BUF_AUTO want = {0};
		unsigned id;
		if (mw_record_mail(st, &r, a, &m, &err) < 0)
			fail_msg("meta: %s", err.msg);
		assert_int_equal(sscanf(m.queue_id.p, "Q%u", &id), 1);
		content_of(id, &want);
		if (mw_record_content(st, &r, &m, 1 << 24, &got, &err) < 0)
			fail_msg("content: %s", err.msg);
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.p, want.p, want.n);
		uint8_t sha[32];
		mw_sha256_of(want.p, want.n, sha);
		assert_memory_equal(m.sha256, sha, 32);
		char subject[32];
		(void)snprintf(subject, sizeof subject, "number %u", id);
		assert_true(mw_str_eq(m.subject, mw_strz(subject)));
		seen++;
	}
	if (k < 0)
		fail_msg("walk: %s", err.msg);
	assert_int_equal(seen, n);
}

int
find_cb(void *arg, const struct mw_record *r)
{
	struct found *f = arg;
	assert_true(f->n < 64);
	f->seq[f->n++] = r->seq;
	return 0;
}

void
find_rcpt(struct mw_store *st, struct found *f)
{
	struct mw_err err = {0};
	f->n = 0;
	if (mw_store_find(st, MW_KEY_RCPT, MW_STR("user2@example.test"), find_cb, f,
	                  &err) < 0)
		fail_msg("find: %s", err.msg);
}
