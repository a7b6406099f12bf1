/* What outcomes mean for a copy: each class, and every doubt. */
#include "journal/base/util.h"
#include "replay/known.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define S       INT64_C(1000000)
#define MARK    (1000 * S)
#define A(name) MW_STR(name "@example.test")

static struct mw_conf *conf;

/* Up to three facts about anna's copy of record 7, then what is made of them. */
struct want {
	const char *name;
	struct {
		const char *addr, *original;
		enum mw_fact fact;
		int64_t s;
	} f[3];
	enum mw_fact whole;
	bool done, freed, sent, stale;
	enum mw_known_class known;
};

#define ANNA "anna@example.test"
static const struct want wants[] = {
    {"delivered before the mark",
     {{ANNA, "", MW_FACT_DELIVERED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_OLD},
    {"in another case, with an extension",
     {{"Anna+x@Example.Test", "", MW_FACT_DELIVERED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_OLD},
    {"by an alias",
     {{ANNA, "info@example.test", MW_FACT_DELIVERED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_OLD},
    {"within its second",
     {{ANNA, "", MW_FACT_DELIVERED, 999}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"after the mark",
     {{ANNA, "", MW_FACT_DELIVERED, 1100}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"twice, once after",
     {{ANNA, "", MW_FACT_DELIVERED, 900},
      {ANNA, "info@example.test", MW_FACT_DELIVERED, 1100}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"handed to another server",
     {{ANNA, "", MW_FACT_SENT, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"bounced",
     {{ANNA, "", MW_FACT_BOUNCED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_BOUNCED},
    {"another's bounce",
     {{"bert@example.test", "", MW_FACT_BOUNCED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"deferred, then expired",
     {{ANNA, "", MW_FACT_DEFERRED, 900}},
     MW_FACT_EXPIRED,
     true,
     false,
     false,
     false,
     MW_KNOWN_BOUNCED},
    {"deferred, then delivered",
     {{ANNA, "", MW_FACT_DEFERRED, 900}, {ANNA, "", MW_FACT_DELIVERED, 950}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_OLD},
    {"deferred",
     {{ANNA, "", MW_FACT_DEFERRED, 900}},
     0,
     false,
     false,
     false,
     false,
     MW_KNOWN_QUEUED},
    {"deferred when the log was read long ago",
     {{ANNA, "", MW_FACT_DEFERRED, 900}},
     0,
     false,
     false,
     false,
     true,
     MW_KNOWN_NOTHING},
    {"deferred and gone without a word",
     {{ANNA, "", MW_FACT_DEFERRED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"held", {{0}}, MW_FACT_HELD, false, false, false, false, MW_KNOWN_QUEUED},
    {"held and released",
     {{0}},
     MW_FACT_HELD,
     false,
     true,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"held, then delivered",
     {{ANNA, "", MW_FACT_DELIVERED, 1100}},
     MW_FACT_HELD,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"discarded by a transport",
     {{ANNA, "", MW_FACT_DISCARDED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_REFUSED},
    {"discarded as a whole",
     {{0}},
     MW_FACT_DISCARDED,
     false,
     false,
     false,
     false,
     MW_KNOWN_REFUSED},
    {"refused behind the capture",
     {{0}},
     MW_FACT_REFUSED,
     false,
     false,
     false,
     false,
     MW_KNOWN_REFUSED},
    {"refused: the sender has no copy either",
     {{0}},
     MW_FACT_REFUSED,
     false,
     false,
     true,
     false,
     MW_KNOWN_REFUSED},
    {"the sender's own copy",
     {{ANNA, "", MW_FACT_BOUNCED, 900}},
     0,
     true,
     false,
     true,
     false,
     MW_KNOWN_NOTHING},
    {"refused, and delivered: two messages of one queue ID, or a log that is wrong",
     {{ANNA, "", MW_FACT_DELIVERED, 1100}},
     MW_FACT_REFUSED,
     false,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"refused, and gone from the queue",
     {{0}},
     MW_FACT_REFUSED,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
    {"only of the raw recipient: a local name",
     {{"info@example.test", "", MW_FACT_BOUNCED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_BOUNCED},
    {"of what the raw recipient became, in two ways",
     {{"x@example.test", "info@example.test", MW_FACT_BOUNCED, 900},
      {"y@example.test", "info@example.test", MW_FACT_DELIVERED, 900}},
     0,
     true,
     false,
     false,
     false,
     MW_KNOWN_NOTHING},
};

/* Every fact comes in an outcome of its own, as a log is read piece by piece. */
static void
make(const struct want *w, struct mw_known **ret)
{
	struct mw_outcome o[5] = {
	    {.seq = 7}, {.seq = 7}, {.seq = 7}, {.seq = 7}, {.seq = 7}};
	struct mw_outcome_rcpt r[3] = {0};
	struct mw_err err;
	o[0].whole = w->whole;
	o[0].whole_us = 800 * S;
	for (size_t i = 0; i < 3 && w->f[i].addr; i++) {
		r[i] = (struct mw_outcome_rcpt){.addr = mw_strz(w->f[i].addr),
		                                .original = mw_strz(w->f[i].original),
		                                .fact = w->f[i].fact,
		                                .time_us = w->f[i].s * S};
		o[i + 1].rcpt = &r[i];
		o[i + 1].n_rcpt = 1;
	}
	o[4].done = w->done;
	o[4].freed = w->freed;
	assert_int_equal(mw_known_new(o, 5, !w->stale, ret, &err), 0);
}

static void
classes(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(wants); i++) {
		const struct want *w = &wants[i];
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_copy c = {.mailbox = ANNA,
		                    .rcpt = MW_STR("info@example.test"),
		                    .sent = w->sent};
		struct mw_known *k;
		make(w, &k);
		if (mw_known_copy(k, conf, 7, &c, MARK, a) != w->known)
			fail_msg("%s", w->name);
		/* Without a mark nothing is old; of another record nothing is known. */
		if (mw_known_copy(k, conf, 7, &c, INT64_MIN, a) == MW_KNOWN_OLD)
			fail_msg("%s", w->name);
		assert_int_equal(mw_known_copy(k, conf, 8, &c, MARK, a),
		                 MW_KNOWN_NOTHING);
		mw_known_free(k);
	}
}

/* What was not delivered before some moment cannot have been removed before it. */
static void
newest(void **state)
{
	(void)state;
	struct {
		struct mw_outcome_rcpt r;
		int64_t s; /* then; 0: nothing is known */
	} step[] = {
	    {{.addr = A("bert"), .fact = MW_FACT_DELIVERED, .time_us = 999 * S}, 0},
	    {{.addr = MW_STR(ANNA), .fact = MW_FACT_DEFERRED, .time_us = 500 * S}, 500},
	    {{.addr = MW_STR(ANNA), .fact = MW_FACT_DELIVERED, .time_us = 700 * S}, 700},
	    {{.addr = MW_STR(ANNA),
	      .original = A("info"),
	      .fact = MW_FACT_DELIVERED,
	      .time_us = 600 * S},
	     700},
	};
	struct mw_outcome o[MW_COUNT(step)];
	memset(o, 0, sizeof o);
	for (size_t n = 1; n <= MW_COUNT(step); n++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		struct mw_copy c = {.mailbox = ANNA, .rcpt = MW_STR(ANNA)};
		struct mw_known *k;
		struct mw_err err;
		o[n - 1] =
		    (struct mw_outcome){.seq = 7, .rcpt = &step[n - 1].r, .n_rcpt = 1};
		assert_int_equal(mw_known_new(o, n, true, &k, &err), 0);
		int64_t want = step[n - 1].s ? step[n - 1].s * S : INT64_MIN;
		assert_true(mw_known_newest(k, conf, 7, &c, a) == want);
		assert_true(mw_known_newest(k, conf, 8, &c, a) == INT64_MIN);
		c.sent = true;
		assert_true(mw_known_newest(k, conf, 7, &c, a) == INT64_MIN);
		assert_true(mw_known_newest(NULL, conf, 7, &c, a) == INT64_MIN);
		mw_known_free(k);
	}
}

static void
late(void **state)
{
	(void)state;
	enum {
		N = 1000
	};
	struct mw_outcome *o = calloc(N, sizeof *o);
	struct mw_outcome_rcpt r[3] = {
	    {.addr = MW_STR(ANNA), .fact = MW_FACT_DELIVERED, .time_us = 1100 * S},
	    {.addr = MW_STR(ANNA), .fact = MW_FACT_DELIVERED, .time_us = 900 * S},
	    {.addr = MW_STR(ANNA), .fact = MW_FACT_DEFERRED, .time_us = 1100 * S}};
	struct mw_known *k;
	struct mw_err err;
	uint64_t *v;
	size_t n;
	for (size_t i = 0; i < N; i++)
		o[i] = (struct mw_outcome){.seq = N - i, .rcpt = &r[i % 3], .n_rcpt = 1};
	assert_int_equal(mw_known_new(o, N, true, &k, &err), 0);
	assert_int_equal(mw_known_late(k, 501, MARK, &v, &n, &err), 0);
	assert_int_equal(n, 334);
	for (size_t i = 0; i < n; i++) {
		assert_true((N - v[i]) % 3 != 1);
		assert_true(v[i] <= 500 && (!i || v[i] > v[i - 1]));
	}
	free(v);
	assert_int_equal(mw_known_late(k, 1, MARK, &v, &n, &err), 0);
	assert_null(v);
	mw_known_free(k);
	free(o);
}

/* A message to everybody: the memory that it takes grows with them, not with their
 * square. */
static void
many(void **state)
{
	(void)state;
	enum {
		N = 5000
	};
	struct mw_outcome_rcpt *r = calloc(N, sizeof *r);
	char(*name)[40] = calloc(N, sizeof *name);
	MW_ARENA_AUTO *a = mw_arena_new(8U << 20);
	struct mw_known *k;
	struct mw_err err;
	assert_true(r && name && a);
	for (size_t i = 0; i < N; i++) {
		(void)snprintf(name[i], sizeof name[i], "user%zu@example.test", i);
		r[i] = (struct mw_outcome_rcpt){.addr = mw_strz(name[i]),
		                                .original = A("all"),
		                                .fact = i % 5 ? MW_FACT_DELIVERED
		                                              : MW_FACT_BOUNCED,
		                                .time_us = 900 * S};
	}
	struct mw_outcome o = {.seq = 7, .rcpt = r, .n_rcpt = N};
	assert_int_equal(mw_known_new(&o, 1, true, &k, &err), 0);
	for (size_t i = 0; i < N; i++) {
		struct mw_copy c = {.mailbox = name[i], .rcpt = A("all")};
		if (mw_known_copy(k, conf, 7, &c, MARK, a) !=
		    (i % 5 ? MW_KNOWN_OLD : MW_KNOWN_BOUNCED))
			fail_msg("%s", name[i]);
		assert_false(mw_known_may_wait(k, conf, 7, &c, a));
	}
	mw_known_free(k);
	free(r);
	free(name);
}

int
main(void)
{
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	char path[] = "/tmp/known.XXXXXX";
	static const char text[] = "mailbox_name = %u\nrecipient_delimiter = +\n"
	                           "local_domains = example.test\n";
	int fd = mkstemp(path);
	if (fd < 0 || write(fd, text, sizeof text - 1) != (ssize_t)sizeof text - 1)
		return 1;
	(void)close(fd);
	int r = mw_conf_load(path, &conf, &report, &err);
	(void)unlink(path);
	if (r < 0) {
		fputs(err.msg, stderr);
		return 1;
	}
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(classes),
	    cmocka_unit_test(newest),
	    cmocka_unit_test(late),
	    cmocka_unit_test(many),
	};
	r = cmocka_run_group_tests(tests, NULL, NULL);
	mw_conf_free(conf);
	return r;
}
