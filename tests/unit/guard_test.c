/* The token of the loop guard: what it says yes to, and everything it must say no to. */
#include "journal/store/trail.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "journal/store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char mail[] = "Received: from a by b\r\nSubject: x\r\n\r\nfirst line\r\n"
                           "second\r\n";
static const int64_t now = INT64_C(1790000000) * 1000000;

static void
body(const char *text, size_t cut, uint8_t out[MW_SHA256_LEN])
{
	struct mw_guard_body b;
	size_t n = strlen(text);
	assert_int_equal(mw_guard_body_init(&b), 0);
	for (size_t i = 0; i < n; i += cut)
		mw_guard_body_put(&b, text + i, MW_MIN(cut, n - i));
	mw_guard_body_done(&b, out);
	mw_guard_body_free(&b);
}

static bool
same_body(const char *a, const char *b)
{
	uint8_t x[MW_SHA256_LEN], y[MW_SHA256_LEN];
	body(a, 1000, x);
	for (size_t cut = 1; cut < 9; cut++) {
		body(b, cut, y);
		if (memcmp(x, y, sizeof x) != 0)
			return false;
	}
	return true;
}

static void
body_is_what_survives_the_way(void **state)
{
	(void)state;
	assert_true(same_body(mail, mail));
	/* fields come and go */
	assert_true(same_body(mail, "X-Spam: no\nSubject: y\n\nfirst line\nsecond\n"));
	assert_true(same_body(mail, "Subject: x\r\n\r\nfirst line\r\nsecond\r\n\r\n"));
	assert_true(same_body("Received: a\r\n\r\nx\r\n", "\r\nx"));
	assert_true(same_body("A: b\r\n", "C: d\r\n\r\n")); /* no body at all */
	assert_false(same_body(mail, "Subject: x\r\n\r\nfirst line\r\nSecond\r\n"));
	assert_false(same_body(mail, "Subject: x\r\n\r\nfirst line\r\n\r\nsecond\r\n"));
	assert_false(same_body(mail, "first line\r\nsecond\r\n"));
	assert_false(same_body("A: b\r\n\r\n\r\n x", "A: b\r\n\r\nx"));
}

static void
a_token_says_yes_once_for_what_it_was_made_for(void **state)
{
	(void)state;
	uint8_t key[MW_GUARD_KEY], other[MW_GUARD_KEY];
	char token[MW_GUARD_TOKEN];
	struct mw_guard g = {.time_us = now, .rcpt = MW_STR("Anna@Example.test")};
	mw_random(key, sizeof key);
	mw_random(other, sizeof other);
	mw_id_new(g.id);
	body(mail, 7, g.body);
	mw_guard_make(key, &g, token);
	struct mw_str t = mw_strz(token);
	assert_true(t.n <= 100); /* RFC 3461: ENVID */
	assert_int_equal(strspn(token, "0123456789abcdefghijklmnopqrstuvwxyz."), t.n);
	assert_true(mw_guard_looks_like(t));

	struct mw_guard q = {.rcpt = MW_STR("anna@EXAMPLE.test")};
	memcpy(q.body, g.body, sizeof q.body);
	assert_true(mw_guard_check(key, t, now + 5000000, &q));
	assert_memory_equal(q.id, g.id, sizeof g.id);
	assert_int_equal(q.time_us, now);
	/* another key, body, recipient; too old, or from a clock far ahead */
	assert_false(mw_guard_check(other, t, now, &q));
	q.body[31] ^= 1;
	assert_false(mw_guard_check(key, t, now, &q));
	q.body[31] ^= 1;
	q.rcpt = MW_STR("bert@example.test");
	assert_false(mw_guard_check(key, t, now, &q));
	q.rcpt = MW_STR("");
	assert_false(mw_guard_check(key, t, now, &q));
	q.rcpt = g.rcpt;
	int64_t day = INT64_C(86400000000);
	assert_true(mw_guard_check(key, t, now + MW_GUARD_DAYS * day - 1, &q));
	assert_false(mw_guard_check(key, t, now + MW_GUARD_DAYS * day + 1000, &q));
	assert_true(mw_guard_check(key, t, now - INT64_C(3600000000), &q));
	assert_false(mw_guard_check(key, t, now - INT64_C(3600001000), &q));
}

static void
no_character_of_a_token_can_be_changed(void **state)
{
	(void)state;
	uint8_t key[MW_GUARD_KEY] = {1};
	char token[MW_GUARD_TOKEN], bad[MW_GUARD_TOKEN];
	struct mw_guard g = {.time_us = now, .rcpt = MW_STR("a@b.test")}, q = g;
	mw_id_new(g.id);
	mw_guard_make(key, &g, token);
	size_t n = strlen(token);
	for (size_t i = 0; i < n; i++)
		for (const char *c = "0123456789abcdefghjkmnpqrstvwxyz.ABZ- "; *c; c++) {
			memcpy(bad, token, n + 1);
			bad[i] = *c;
			/* an ID has more than one spelling, but of one ID */
			if (*c == token[i] || (*c | 32) == token[i])
				continue;
			assert_false(mw_guard_check(key, mw_strz(bad), now, &q));
		}
	for (size_t i = 0; i < n; i++)
		assert_false(mw_guard_check(key, mw_str(token, i), now, &q));
	assert_false(mw_guard_looks_like(MW_STR("")));
	assert_false(mw_guard_looks_like(MW_STR("mwr2.")));
}

static void
a_very_long_recipient_has_no_token(void **state)
{
	(void)state;
	char rcpt[1100], token[MW_GUARD_TOKEN];
	uint8_t key[MW_GUARD_KEY] = {1};
	memset(rcpt, 'a', sizeof rcpt);
	struct mw_guard g = {.time_us = now, .rcpt = mw_str(rcpt, sizeof rcpt)}, q = g;
	mw_guard_make(key, &g, token);
	assert_false(mw_guard_check(key, mw_strz(token), now, &q));
}

static void
each_journal_has_its_own_key(void **state)
{
	(void)state;
	uint8_t key[3][MW_GUARD_KEY];
	char dir[2][40] = {"/tmp/mw-guard-XXXXXX", "/tmp/mw-guard-XXXXXX"};
	for (int i = 0; i < 3; i++) {
		MW_STORE_AUTO *st = NULL;
		struct mw_err err = {0};
		if (i < 2) {
			assert_non_null(mkdtemp(dir[i]));
			assert_int_equal(mw_store_create(dir[i], NULL, NULL, &err), 0);
		}
		struct mw_store_opts o = {.dir = dir[i % 2]};
		assert_int_equal(mw_store_open(&o, &st, &err), 0);
		mw_guard_key(st, key[i]);
	}
	assert_memory_not_equal(key[0], key[1], MW_GUARD_KEY);
	assert_memory_equal(key[0], key[2], MW_GUARD_KEY);
	for (int i = 0; i < 2; i++) {
		char cmd[80];
		(void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir[i]);
		assert_int_equal(system(cmd), 0);
	}
}

/* ---- the trail ---- */

static bool
tag_of(const char *text, size_t cut, const struct mw_trail_of *of, size_t from,
       uint8_t tag[MW_TRAIL_TAG])
{
	static const uint8_t key[MW_GUARD_KEY] = {7};
	struct mw_trail t;
	size_t n = strlen(text);
	mw_trail_init(&t);
	for (size_t i = 0; i < n; i += cut)
		mw_trail_put(&t, text + i, MW_MIN(cut, n - i));
	mw_trail_end(&t);
	return mw_trail_tag(&t, key, of, from, tag);
}

static bool
comes_back(const char *was, const char *is, size_t from)
{
	static const uint8_t digest[MW_SHA256_LEN] = {1};
	const struct mw_trail_of of = {MW_STR(""), MW_STR("a@b.test"), digest};
	uint8_t x[MW_TRAIL_TAG], y[MW_TRAIL_TAG];
	if (!tag_of(was, 1000, &of, 0, x))
		return false;
	for (size_t cut = 1; cut < 9; cut++)
		if (!tag_of(is, cut, &of, from, y) || memcmp(x, y, sizeof x) != 0)
			return false;
	return true;
}

static void
a_trail_is_all_old_fields_in_their_order(void **state)
{
	(void)state;
#define A   "Received: by a id 1; Sun\r\n"
#define B   "Received: by b id 2;\r\n\tMon\r\n"
#define NEW "Received: by c id 3; Tue\r\n"
	static const char was[] = B "X: x\r\n" A "\r\nReceived: no more\r\n";
	assert_true(comes_back(was, was, 0));
	assert_true(comes_back(was, NEW B "X: x\r\n" A "\r\n", 1));
	assert_true(
	    comes_back(was, "Return-Path: <>\n" NEW "Y: y\nreceived: d\n" B A, 2));
	/* folded otherwise, in other letters; and what is no such field */
	assert_true(comes_back(was, NEW "RECEIVED:by b\r\n id 2; Mon\r\n" A, 1));
	assert_true(comes_back(was, NEW B "Receive: d\nReceived-SPF: e\nX-" NEW A, 1));
	/* another, one less, one more, another order, nothing added, nothing */
	assert_false(comes_back(was, NEW "Received: by b id 4; Mon\r\n" A, 1));
	assert_false(comes_back(was, NEW B "\r\n" A, 1));
	assert_false(comes_back(was, NEW A, 1));
	assert_false(comes_back(was, NEW B A NEW, 1));
	assert_false(comes_back(was, NEW B NEW A, 1));
	assert_false(comes_back(was, NEW A B, 1));
	assert_false(comes_back(was, was, 1));
	assert_false(comes_back(was, "", 0));
#undef A
#undef B
#undef NEW
}

static void
nothing_has_the_tag_of_another(void **state)
{
	(void)state;
	uint8_t digest[MW_SHA256_LEN] = {1}, x[MW_TRAIL_TAG], y[MW_TRAIL_TAG];
	char long_rcpt[1200];
	static const char one[] = "Received: a\r\n\r\n";
	struct mw_trail_of of = {MW_STR("s@b.test"), MW_STR("A@b.test"), digest};
	assert_true(tag_of(one, 5, &of, 0, x));
	of.rcpt = MW_STR("a@B.test");
	assert_true(tag_of(one, 5, &of, 0, y));
	assert_memory_equal(x, y, sizeof x);
	of.rcpt = MW_STR("b@b.test");
	assert_true(tag_of(one, 5, &of, 0, y));
	assert_memory_not_equal(x, y, sizeof x);
	of.rcpt = MW_STR("a@b.test");
	of.sender = MW_STR("");
	assert_true(tag_of(one, 5, &of, 0, y));
	assert_memory_not_equal(x, y, sizeof x);
	of.sender = MW_STR("s@b.test");
	digest[31] = 1;
	assert_true(tag_of(one, 5, &of, 0, y));
	assert_memory_not_equal(x, y, sizeof x);
	memset(long_rcpt, 'a', sizeof long_rcpt);
	of.rcpt = mw_str(long_rcpt, sizeof long_rcpt);
	assert_false(tag_of(one, 5, &of, 0, y));
}

static void
as_many_fields_as_a_loop_has(void **state)
{
	(void)state;
	MW_BUF_AUTO text = {0};
	uint8_t digest[MW_SHA256_LEN] = {1}, tag[MW_TRAIL_TAG];
	const struct mw_trail_of of = {MW_STR(""), MW_STR("a@b.test"), digest};
	for (size_t n = 1; n <= 2000; n++) {
		mw_buf_printf(&text, "Received: %zu\r\n", n);
		if (n > MW_TRAIL_MOST + 1 && n < 2000)
			continue;
		bool fits = n <= MW_TRAIL_MOST;
		assert_int_equal(tag_of(mw_buf_cstr(&text), 999, &of, n - 1, tag), fits);
		assert_false(tag_of(mw_buf_cstr(&text), 999, &of, n, tag));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_trail_is_all_old_fields_in_their_order),
	    cmocka_unit_test(nothing_has_the_tag_of_another),
	    cmocka_unit_test(as_many_fields_as_a_loop_has),
	    cmocka_unit_test(body_is_what_survives_the_way),
	    cmocka_unit_test(a_token_says_yes_once_for_what_it_was_made_for),
	    cmocka_unit_test(no_character_of_a_token_can_be_changed),
	    cmocka_unit_test(a_very_long_recipient_has_no_token),
	    cmocka_unit_test(each_journal_has_its_own_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
