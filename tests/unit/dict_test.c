/* Dictionaries: what gets in, that every mail comes back exactly in every mode, what a
 * damaged, missing or erased one costs, and that it goes with the last record.
 * MW_TEST_THREADS */
#include "journal/base/util.h"
#include "journal/codec/dict.h"
#include "journal/codec/digest.h"
#include "journal/codec/keyring.h"
#include "journal/retain/retain.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	PEOPLE = 12
};

static char root[64], dir[128];
static uint8_t pk[MW_KEY_LEN], sk[MW_KEY_LEN];

/* Mails as a company has them: much in common, and something of their own. */
static void
content_of(unsigned k, struct mw_buf *out)
{
	uint64_t x = k + 7;
	mw_buf_printf(out,
	              "Received: from mail.partner%u.example (mail.partner%u.example "
	              "[192.0.2.%u])\r\n\tby mx.example.org (Postfix) with ESMTPS id "
	              "4X%08x;\r\n\tThu, 19 Nov 2026 08:%02u:%02u +0000 (UTC)\r\n"
	              "From: person%u@partner%u.example\r\nTo: box%u@example.org\r\n"
	              "Subject: Report number %u\r\nMIME-Version: 1.0\r\n"
	              "Content-Type: text/plain; charset=utf-8\r\n"
	              "Content-Transfer-Encoding: quoted-printable\r\n"
	              "Message-ID: <%u@partner.example>\r\n\r\n",
	              k % 7, k % 7, k % 250, k * 2654435761U, k % 60, k % 59, k % PEOPLE,
	              k % 7, k % PEOPLE, k, k);
	for (unsigned i = 0; i < 8 + k % 30; i++) {
		(void)dice_next(&x);
		mw_buf_printf(
		    out,
		    "Dear colleagues, please find the figures of item %u below: "
		    "%llx\r\n",
		    i, (unsigned long long)x);
	}
	mw_buf_puts(out, "--\r\nThis message is confidential and may be read by its "
	                 "addressee only.\r\n");
	if (k % 50 == 49) /* streamed: beyond what is compressed in one go */
		dice_noise(out, 300000, x);
}

static int
append_mail(struct mw_store *st, unsigned k, const char *content, size_t n)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	char qid[16], from[40], to[40];
	struct mw_commit c;
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	(void)snprintf(from, sizeof from, "person%u@partner.example", k % PEOPLE);
	(void)snprintf(to, sizeof to, "box%u@example.org", k % PEOPLE);
	struct mw_rcpt r = {.addr = mw_strz(to), .flags = MW_RCPT_LOCAL};
	struct mw_mail m = {.time_us = 1000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(from),
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	if (mw_entry_new(st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, content, n, &err) < 0 ||
	    mw_entry_describe(e, &m, &err) < 0 || mw_entry_finish_mail(e, &m, &err) < 0 ||
	    mw_store_append(st, e, &c, &err) < 0)
		fail_msg("%s", err.msg);
	return (int)c.seq;
}

static int
append(struct mw_store *st, unsigned k)
{
	MW_BUF_AUTO c = {0};
	content_of(k, &c);
	return append_mail(st, k, (const char *)c.p, c.n);
}

static struct mw_store *
open_as(enum mw_store_mode mode, bool dictionary, bool keys)
{
	struct mw_store_opts o = {.dir = dir,
	                          .mode = mode,
	                          .dictionary = dictionary,
	                          .dict_share = 100,
	                          .recovery = pk,
	                          .n_recovery = keys && mode == MW_STORE_WRITE,
	                          .secret = sk,
	                          .n_secret = mode == MW_STORE_READ};
	return opened(&o);
}

struct seen {
	unsigned mails, with_dict, dicts, bad, needy;
	uint64_t stored, dict_stored;
	struct mw_record first_dict, second_dict; /* of the first segment that has some */
};

/* Reads all of it: what comes back is exact, or named as lost. */
static struct seen
read_all(void)
{
	struct mw_store *st = open_as(MW_STORE_READ, false, false);
	struct mw_err err = {0};
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	struct seen s = {0};
	int k;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while ((k = mw_cursor_next(c, &r, &err)) != 0) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO want = {0};
		MW_BUF_AUTO got = {0};
		struct mw_mail m;
		unsigned id;
		if (k < 0)
			continue;
		if (r.type == MW_TYPE_DICT) {
			if (s.dicts == 0)
				s.first_dict = r;
			else if (s.dicts == 1)
				s.second_dict = r;
			s.dicts++;
			s.dict_stored += r.frame_len;
		}
		if (r.type != MW_TYPE_MAIL)
			continue;
		s.with_dict += r.dict != 0;
		s.stored += r.body_len;
		int e = mw_record_mail(st, &r, a, &m, &err);
		if (e == MW_EERASED)
			continue;
		if (e == 0)
			e = mw_record_content(st, &r, &m, 1 << 24, &got, &err);
		if (e < 0) {
			s.bad++;
			s.needy += strstr(err.msg, "dictionary") != NULL;
			assert_int_equal(e, MW_EDAMAGED);
			continue;
		}
		assert_int_equal(sscanf(m.queue_id.p, "Q%u", &id), 1);
		content_of(id, &want);
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.p, want.p, want.n);
		s.mails++;
	}
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
	return s;
}

static struct mw_verify_result
verify(int want)
{
	struct mw_store *st = open_as(MW_STORE_READ, false, false);
	struct mw_verify_opts o = {.sample = 100};
	struct mw_verify_result r;
	struct mw_err err = {0};
	int got = mw_verify_run(st, &o, &r, &err);
	if (got != want)
		fail_msg("verify answers %d, not %d: %s", got, want, err.msg);
	mw_store_close(st);
	return r;
}

static void
fresh(void)
{
	struct mw_err err = {0};
	char cmd[200];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
}

static int
setup(void **state)
{
	(void)state;
	char key[128];
	struct mw_err err = {0};
	(void)snprintf(root, sizeof root, "/tmp/mw-dict-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	(void)snprintf(key, sizeof key, "%s/key", root);
	assert_int_equal(mw_keyring_new(key, MW_STR(""), pk, &err), 0);
	assert_int_equal(mw_keyring_load_secret(key, MW_STR(""), sk, &err), 0);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[200];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

/* ---- what gets in ---- */

static void
only_what_many_share(void **state)
{
	(void)state;
	enum {
		N = 40
	};
	struct mw_dict_sample v[N];
	char text[N][600];
	MW_BUF_AUTO out = {0};
	for (unsigned i = 0; i < N; i++) {
		unsigned jane = i < 10;
		int n = snprintf(
		    text[i], sizeof text[i],
		    "Everybody here writes this very line, all the time.\n"
		    "%s\n%s\n%s\n"
		    "Number %u has a line of its own, %u of them, and %u more.\n",
		    i < 2 ? "Two only have these words in their mail, not more." : "-",
		    jane ? "Dear Jane Doe of Account 4711, here is what you asked for."
		         : "-",
		    i % 4 == 1 ? "One sender tells many people the same story again."
		               : "-",
		    i * 7919, i * 104729, i * 1299709);
		v[i] = (struct mw_dict_sample){(uint8_t *)text[i], (size_t)n,
		                               i % 4 == 1 ? 1 : 2 + i, jane ? 99 : i};
	}
	assert_int_equal(mw_dict_text(v, N, &out), 0);
	assert_non_null(memmem(out.p, out.n, "Everybody here writes this very line", 36));
	assert_null(memmem(out.p, out.n, "Two only", 8));
	assert_null(memmem(out.p, out.n, "Jane", 4));     /* one recipient */
	assert_null(memmem(out.p, out.n, "the same", 8)); /* one sender */
	assert_null(memmem(out.p, out.n, "1299709", 7));
}

static void
nothing_shared_is_no_dictionary(void **state)
{
	(void)state;
	uint8_t noise[8][2000];
	struct mw_dict_sample v[8];
	MW_BUF_AUTO out = {0};
	mw_random(noise, sizeof noise);
	for (unsigned i = 0; i < 8; i++)
		v[i] = (struct mw_dict_sample){noise[i], sizeof noise[i], i, i};
	assert_int_equal(mw_dict_text(v, 8, &out), 0);
	assert_int_equal(out.n, 0);
	assert_int_equal(mw_dict_text(NULL, 0, &out), 0);
}

/* ---- round trips ---- */

static void
round_trip(bool keys)
{
	struct mw_err err = {0};
	fresh();
	struct mw_store *st = open_as(MW_STORE_WRITE, true, keys);
	for (unsigned k = 0; k < 120; k++)
		append(st, k);
	assert_int_equal(mw_store_train(st), 1);
	for (unsigned k = 120; k < 240; k++) {
		append(st, k);
		if (k == 160 || k == 200)
			assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
	struct seen s = read_all();
	assert_int_equal(s.mails, 240);
	assert_int_equal(s.bad, 0);
	assert_true(s.with_dict >= 117); /* the streamed ones have none */
	assert_int_equal(s.dicts, 6);    /* two in each segment that needs it */
	assert_int_equal(verify(0).contents, 240);
}

static void
plain(void **state)
{
	(void)state;
	round_trip(false);
}

static void
encrypted(void **state)
{
	(void)state;
	round_trip(true);
	/* A reader without the key sees nothing; verify works without. */
	struct mw_store_opts o = {.dir = dir};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	struct mw_verify_opts vo = {.sample = 100};
	struct mw_verify_result res;
	MW_BUF_AUTO got = {0};
	struct seen s = read_all();
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	assert_int_equal(mw_record_content(st, &s.first_dict, NULL, 1 << 20, &got, &err),
	                 MW_EKEY);
	assert_int_equal(mw_verify_run(st, &vo, &res, &err), 0);
	mw_store_close(st);
}

static void
smaller(void **state)
{
	(void)state;
	uint64_t stored[2];
	for (int with = 0; with < 2; with++) {
		fresh();
		struct mw_store *st = open_as(MW_STORE_WRITE, with != 0, false);
		for (unsigned k = 1000; k < 1040; k++)
			append(st, k);
		assert_int_equal(mw_store_train(st), with);
		for (unsigned k = 0; k < 49; k++)
			append(st, k);
		mw_store_close(st);
		struct mw_store *rd = open_as(MW_STORE_READ, false, false);
		MW_CURSOR_AUTO *c = NULL;
		struct mw_record r;
		struct mw_err err = {0};
		stored[with] = 0;
		assert_int_equal(mw_cursor_new(rd, 41, &c, &err), 0);
		while (mw_cursor_next(c, &r, &err) == 1)
			stored[with] += r.type == MW_TYPE_MAIL ? r.body_len : 0;
		mw_cursor_free(MW_TAKE(c));
		mw_store_close(rd);
	}
	print_message("without %llu, with %llu\n", (unsigned long long)stored[0],
	              (unsigned long long)stored[1]);
	assert_true(stored[1] * 100 < stored[0] * 85);
}

/* Small segments are not worth a dictionary. */
static void
not_in_small_segments(void **state)
{
	(void)state;
	fresh();
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .dictionary = true,
	                          .dict_share = 1};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (unsigned k = 0; k < 40; k++)
		append(st, k);
	assert_int_equal(mw_store_train(st), 1);
	for (unsigned k = 0; k < 8; k++)
		append(st, k);
	mw_store_close(st);
	assert_int_equal(read_all().dicts, 0);
}

/* ---- damage ---- */

static void
flip(const struct mw_record *r, uint64_t at)
{
	char path[200], c;
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", dir,
	               (unsigned long long)r->loc.segment);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	off_t off = (off_t)(r->loc.offset + at);
	assert_int_equal(pread(fd, &c, 1, off), 1);
	c ^= 16;
	assert_int_equal(pwrite(fd, &c, 1, off), 1);
	(void)close(fd);
}

static void
damaged(void **state)
{
	(void)state;
	round_trip(true);
	struct seen s = read_all();
	uint64_t content = s.first_dict.frame_len - s.first_dict.body_len / 2;
	assert_int_equal(s.second_dict.loc.segment, s.first_dict.loc.segment);
	flip(&s.first_dict, content); /* one copy: nothing is lost */
	assert_int_equal(read_all().mails, 240);
	assert_int_equal(verify(1).findings[MW_FINDING_DAMAGED], 1);
	flip(&s.first_dict, content);
	flip(&s.first_dict, 30); /* its header */
	assert_int_equal(read_all().mails, 240);
	flip(&s.first_dict, 30);
	flip(&s.second_dict, content);
	assert_int_equal(read_all().mails, 240);
	flip(&s.first_dict, content); /* both: those that need it, by name */
	struct seen after = read_all();
	assert_true(after.bad > 30 && after.bad < 45);
	assert_int_equal(after.needy, after.bad);
	assert_int_equal(after.mails, 240 - after.bad);
	struct mw_verify_result v = verify(1);
	assert_int_equal(v.findings[MW_FINDING_CONTENT], after.bad);
	assert_int_equal(v.findings[MW_FINDING_DAMAGED], 2);
}

/* ---- erasure ---- */

static void
erase(unsigned first, unsigned last)
{
	struct mw_store *st = open_as(MW_STORE_READ, false, false);
	struct mw_err err = {0};
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r, whole[256];
	struct mw_erase_list list = {.whole = whole};
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while (mw_cursor_next(c, &r, &err) == 1)
		if (r.type == MW_TYPE_MAIL && r.time_us >= 1000 + first &&
		    r.time_us <= 1000 + last)
			whole[list.n_whole++] = r;
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
	struct mw_retain_owner o = {.dir = dir, .by = "test", .now_us = 5000};
	o.st = open_as(MW_STORE_WRITE, false, false);
	if (mw_erase_run(&o, &list, &err) < 0)
		fail_msg("%s", err.msg);
	mw_store_close(o.st);
}

/* It goes with the last record that needs it, and not before. */
static void
goes_with_the_last_record(void **state)
{
	(void)state;
	fresh();
	struct mw_err err = {0};
	struct mw_store *st = open_as(MW_STORE_WRITE, true, true);
	for (unsigned k = 0; k < 40; k++)
		append(st, k);
	assert_int_equal(mw_store_train(st), 1);
	assert_int_equal(mw_store_roll(st, &err), 0);
	for (unsigned k = 40; k < 44; k++)
		append(st, k);
	mw_store_close(st);
	struct seen s = read_all();
	assert_int_equal(s.dicts, 2);
	erase(40, 42);
	assert_int_equal(read_all().mails, 41);
	st = open_as(MW_STORE_READ, false, false);
	assert_int_equal(mw_record_wiped(st, &s.first_dict, &err), 0);
	mw_store_close(st);
	erase(43, 43);
	assert_int_equal(read_all().mails, 40);
	st = open_as(MW_STORE_READ, false, false);
	assert_int_equal(mw_record_wiped(st, &s.first_dict, &err), 1);
	assert_int_equal(mw_record_wiped(st, &s.second_dict, &err), 1);
	mw_store_close(st);
	assert_int_equal(verify(0).erased, 6);
}

/* Once mail that it was trained on is wiped, no new mail is compressed with it. */
static void
replaced_after_an_erasure(void **state)
{
	(void)state;
	fresh();
	struct mw_err err = {0};
	struct mw_store *st = open_as(MW_STORE_WRITE, true, true);
	for (unsigned k = 0; k < 40; k++)
		append(st, k);
	assert_int_equal(mw_store_train(st), 1);
	assert_int_equal(mw_store_roll(st, &err), 0);
	append(st, 40);
	struct mw_record r;
	assert_int_equal(mw_store_last(st, UINT64_MAX, &r, &err), 1);
	assert_int_not_equal(r.dict, 0);
	assert_int_equal(mw_store_last(st, 6, &r, &err), 1);
	struct mw_wipe_at at = {r.loc.offset, r.seq};
	assert_int_equal(mw_store_wipe(st, r.loc.segment, &at, 1, &err), 0);
	append(st, 41);
	assert_int_equal(mw_store_last(st, UINT64_MAX, &r, &err), 1);
	assert_int_equal(r.dict, 0);
	for (unsigned k = 42; k < 80; k++) /* a new one, from what came since */
		append(st, k);
	assert_int_equal(mw_store_train(st), 1);
	append(st, 80);
	assert_int_equal(mw_store_last(st, UINT64_MAX, &r, &err), 1);
	assert_int_not_equal(r.dict, 0);
	mw_store_close(st);
}

/* ---- threads ---- */

struct worker {
	pthread_t t;
	struct mw_store *st;
	unsigned from;
};

static void *
work(void *arg)
{
	struct worker *w = arg;
	for (unsigned k = w->from; k < w->from + 60; k++)
		append(w->st, k);
	return NULL;
}

static void
many_threads(void **state)
{
	(void)state;
	fresh();
	struct mw_err err = {0};
	struct worker w[4];
	struct mw_store *st = open_as(MW_STORE_WRITE, true, true);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){.st = st, .from = 100 * i};
		assert_int_equal(pthread_create(&w[i].t, NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		(void)mw_store_train(st);
		assert_int_equal(mw_store_roll(st, &err), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		(void)pthread_join(w[i].t, NULL);
	mw_store_close(st);
	assert_int_equal(read_all().mails, 240);
	(void)verify(0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(only_what_many_share),
	    cmocka_unit_test(nothing_shared_is_no_dictionary),
	    cmocka_unit_test(plain),
	    cmocka_unit_test(encrypted),
	    cmocka_unit_test(smaller),
	    cmocka_unit_test(not_in_small_segments),
	    cmocka_unit_test(damaged),
	    cmocka_unit_test(goes_with_the_last_record),
	    cmocka_unit_test(replaced_after_an_erasure),
	    cmocka_unit_test(many_threads),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
