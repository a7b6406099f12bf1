/* sift_test.c - what threads leave out of a search: a search by the index, sifted, finds
 * and says of damage what a walk of the whole log does, whatever is looked for.
 * MW_TEST_THREADS */
#include "replay/sift.h"

#include "journal/base/util.h"
#include "tests/support/dice.h"
#include "tests/support/reading.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 6000, /* more than are looked at before it is known whether it helps */
	AT_ONCE = 200
};

#define ANNA "anna@a.test"

static struct scratch place;
static uint64_t n_damaged;
static uint64_t seed = 20260;

static unsigned
rnd(unsigned n)
{
	return dice_roll(&seed, n);
}

static const char *const words[] = {"Budget",
                                    "minutes",
                                    "GARDEN",
                                    "zanzibar",
                                    "invoice",
                                    "=?utf-8?q?Caf=C3=A9_au_lait?=",
                                    "=?koi8-r?b?8NLJ18XU?=",
                                    "M\xfcnchen",
                                    "r\xc3\xa9sum\xc3\xa9"};

struct batch {
	struct mw_entry *e[AT_ONCE];
	struct mw_loc loc[AT_ONCE];
	struct mw_store *st;
	atomic_int left;
};

static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct batch *b = arg;
	assert_int_equal(c->code, 0);
	atomic_fetch_sub(&b->left, 1);
}

static struct mw_entry *
entry(struct mw_store *st, size_t i)
{
	struct mw_err err = {0};
	struct mw_entry *e = NULL;
	char subject[200], from[100];
	bool anna = rnd(8) != 0;
	struct mw_rcpt r = {.addr = anna ? MW_STR(ANNA) : MW_STR("bob@a.test"),
	                    .flags = MW_RCPT_LOCAL};
	(void)snprintf(subject, sizeof subject, "%s %s", words[rnd(MW_COUNT(words))],
	               words[rnd(MW_COUNT(words))]);
	(void)snprintf(from, sizeof from, "Person %u <p%u@far.test>", rnd(50), rnd(50));
	struct mw_mail m = {.time_us = (int64_t)i + 1,
	                    .sender = mw_strz(rnd(2) ? "w@far.test" : "x@far.test"),
	                    .subject = mw_strz(subject),
	                    .from = mw_strz(from),
	                    .front = MW_STR("milter"),
	                    .direction = MW_DIR_IN,
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	char body[100];
	int n = snprintf(body, sizeof body, "Subject: %u\r\n\r\n%.*s\r\n", rnd(10),
	                 (int)rnd(40), "0123456789012345678901234567890123456789");
	assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, &err), 0);
	assert_int_equal(mw_entry_body(e, body, (size_t)n, &err), 0);
	assert_int_equal(mw_entry_describe(e, &m, &err), 0);
	m.subject = mw_strz(subject); /* not what the content says */
	m.from = mw_strz(from);
	assert_int_equal(mw_entry_finish_mail(e, &m, &err), 0);
	return e;
}

/* One byte of some records' metadata is another one now. */
static int
damage(void *arg, const struct mw_item *it)
{
	char path[200];
	(void)arg;
	if (it->rec.seq % 500 || !mw_str_eq(it->mail.rcpt[0].addr, MW_STR(ANNA)))
		return 0;
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", place.dir,
	               (unsigned long long)it->rec.loc.segment);
	off_t at = (off_t)(it->rec.loc.offset + it->rec.frame_len - it->rec.body_len -
	                   it->rec.meta_len / 2);
	int fd = open(path, O_RDWR);
	uint8_t b;
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 1;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	(void)close(fd);
	n_damaged++;
	return 0;
}

static int
setup(void **state)
{
	struct mw_err err = {0};
	(void)state;
	struct mw_store *st = scratch_make(&place);
	for (size_t i = 0; i < MAILS; i += AT_ONCE) {
		struct batch b = {.st = st};
		atomic_init(&b.left, AT_ONCE);
		for (size_t k = 0; k < AT_ONCE; k++) {
			b.e[k] = entry(st, i + k);
			mw_store_submit(st, b.e[k], on_commit, &b);
		}
		while (atomic_load(&b.left))
			(void)usleep(1000);
		for (size_t k = 0; k < AT_ONCE; k++)
			mw_entry_free(b.e[k]);
	}
	mw_store_close(st);
	struct reading w;
	struct mw_query q;
	reading_begin(&w, &place);
	mw_query_init(&q, w.arena);
	q.all = true;
	assert_int_equal(mw_select(&w.cli, &q, damage, NULL, NULL, NULL, &err), 0);
	reading_end(&w);
	return n_damaged > 4 ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	return scratch_remove(&place);
}

struct seen {
	uint64_t seq[MAILS];
	struct mw_sift_ref ref[MAILS];
	size_t n, bad;
};

static int
on_item(void *arg, const struct mw_item *it)
{
	struct seen *s = arg;
	assert_true(s->n < MAILS);
	s->ref[s->n] = (struct mw_sift_ref){.seq = it->rec.seq, .loc = it->rec.loc};
	s->seq[s->n++] = it->rec.seq;
	return 0;
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	struct seen *s = arg;
	assert_int_equal(err->code, MW_EDAMAGED);
	s->bad++;
}

static struct seen *
find(struct reading *w, const struct mw_query *q)
{
	struct mw_err err = {0};
	struct seen *s = calloc(1, sizeof *s);
	size_t bad;
	assert_non_null(s);
	assert_int_equal(mw_select(&w->cli, q, on_item, s, on_bad, &bad, &err), 0);
	assert_int_equal(bad, s->bad);
	return s;
}

/* Something to look for, that the index knows nothing of. */
static void
pick(struct mw_query *q, const char **v)
{
	static const char *const texts[] = {"zanzibar", "budget",    "cafe au lait",
	                                    "munchen",  "resume",    "nowhere",
	                                    "привет",   "GARDEN inv"};
	static const char *const people[] = {"person 7", "p3@far", "p49@far.test"};
	if (rnd(4)) {
		v[0] = texts[rnd(MW_COUNT(texts))];
		v[1] = texts[rnd(MW_COUNT(texts))];
		q->subject = v;
		q->n_subject = 1 + rnd(2);
	}
	if (rnd(3) == 0) {
		v[2] = people[rnd(MW_COUNT(people))];
		q->from = v + 2;
		q->n_from = 1;
	}
	if (rnd(4) == 0)
		q->larger = 20 + rnd(30);
	if (rnd(6) == 0)
		q->until_us = 1 + rnd(MAILS);
}

static void
finds_what_a_walk_finds(void **state)
{
	static const struct mw_select_key key = {MW_KEY_RCPT, ANNA};
	(void)state;
	for (int round = 0; round < 24; round++) {
		struct reading w;
		struct mw_query q;
		const char *v[3], *user = ANNA;
		reading_begin(&w, &place);
		mw_query_init(&q, w.arena);
		q.user = &user;
		q.n_user = 1;
		pick(&q, v);
		struct seen *log = find(&w, &q);
		q.key = &key;
		q.n_key = 1;
		struct seen *index = find(&w, &q);
		/* Those that the index names are of this user; all damaged ones are. */
		if (log->n != index->n || memcmp(log->seq, index->seq, sizeof log->seq) ||
		    log->bad != index->bad)
			fail_msg(
			    "round %d: %zu and %zu bad by the log, %zu and %zu by the "
			    "index",
			    round, log->n, log->bad, index->n, index->bad);
		free(log);
		free(index);
		reading_end(&w);
	}
}

/* All that can be read and does not match is out, and nothing else. */
static void
leaves_out_what_does_not_match(void **state)
{
	struct reading w;
	struct mw_query q;
	const char *text = "zanzibar";
	(void)state;
	reading_begin(&w, &place);
	mw_query_init(&q, w.arena);
	q.all = true;
	struct seen *all = find(&w, &q);
	q.all = false;
	assert_false(mw_sift_can(&q));
	q.subject = &text;
	q.n_subject = 1;
	assert_true(mw_sift_can(&q));
	struct seen *found = find(&w, &q);
	assert_true(found->n > 100 && found->n < MAILS / 2);
	struct mw_sift s = {.looked = 0};
	size_t n = 0, at = 0, in = 0;
	while (at < all->n && (n = mw_sift(&s, w.store, &q, all->ref + at, all->n - at)))
		at += n;
	assert_int_equal(at, all->n);
	for (size_t i = 0; i < all->n; i++)
		if (!all->ref[i].out) {
			assert_true(in < found->n);
			assert_int_equal(found->seq[in++], all->seq[i]);
		}
	assert_int_equal(in, found->n);
	assert_int_equal(s.out, all->n - found->n);
	/* Where most stay it is given up. */
	text = "e";
	s = (struct mw_sift){.looked = 0};
	assert_int_not_equal(mw_sift(&s, w.store, &q, all->ref, all->n), 0);
	assert_int_equal(mw_sift(&s, w.store, &q, all->ref, all->n), 0);
	free(all);
	free(found);
	reading_end(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(finds_what_a_walk_finds),
	    cmocka_unit_test(leaves_out_what_does_not_match),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
