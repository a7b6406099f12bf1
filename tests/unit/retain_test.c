/* The plan of a prune, in tables: what goes, what stays and why; and the record forms. */
#include "journal/retain/retain.h"

#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HOUR (INT64_C(3600) * 1000000)
#define DAY  (24 * HOUR)
#define T0   (INT64_C(1700000000) * 1000000)

enum {
	N = 50
};

static struct mw_retain_rec rec[N + 8];

/* One mail a day, 100 bytes each, the newest an hour ago. */
static int64_t
days(void)
{
	memset(rec, 0, sizeof rec);
	for (size_t i = 0; i < N; i++)
		rec[i] = (struct mw_retain_rec){.seq = i + 1,
		                                .segment = i + 1,
		                                .time_us = T0 + (int64_t)i * DAY,
		                                .size = 100,
		                                .type = MW_TYPE_MAIL,
		                                .token = {(uint8_t)i},
		                                .rules = 1,
		                                .ruled = true};
	return T0 + (N - 1) * DAY + HOUR;
}

static struct mw_retain_sum sum;

static uint64_t
plan(const struct mw_retain_limits *l)
{
	mw_retain_plan(l, rec, N, &sum);
	return sum.all.remove;
}

static void
age_and_why_not(void **state)
{
	(void)state;
	struct mw_conf_retain rule[2] = {{.keep_us = 30 * DAY}, {.keep_us = 40 * DAY}};
	struct mw_retain_limits l = {.rule = rule, .n_rule = 1, .now_us = days()};
	assert_int_equal(plan(&l), 20);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(rec[i].verdict, i < 20 ? MW_REMOVE : MW_KEEP_YOUNG);
	assert_int_equal(sum.row[0].messages, N);
	assert_int_equal(sum.row[0].remove_bytes, 2000);

	rec[3].held = true;
	assert_int_equal(plan(&l), 19);
	assert_int_equal(rec[3].verdict, MW_KEEP_HELD);
	assert_int_equal(sum.row[0].held, 1);

	l.floor_us = 45 * DAY; /* beats the rule */
	assert_int_equal(plan(&l), 4);
	assert_int_equal(sum.row[0].floor, 15);

	l.floor_us = DAY;
	l.need_mark = true;
	assert_int_equal(plan(&l), 0); /* no mark has completed */
	l.marked_seq = 11;
	assert_int_equal(plan(&l), 9); /* 1 … 10 are covered, one of them held */
	assert_int_equal(sum.row[0].needed, 10);
	l.need_mark = false;

	/* of two rules that have a say, both must let go */
	l.n_rule = 2;
	rec[0].rules = 3;
	rec[15].rules = 3;
	assert_int_equal(plan(&l), 18);
	assert_int_equal(rec[0].verdict, MW_REMOVE);
	assert_int_equal(rec[15].verdict, MW_KEEP_YOUNG);

	/* a recipient without a rule keeps it for ever; so does a slot that is broken */
	rec[1].ruled = false;
	rec[2].broken = true;
	assert_int_equal(plan(&l), 16);
	assert_int_equal(rec[1].verdict, MW_KEEP_UNRULED);
	assert_int_equal(sum.row[2].messages, 1);

	rec[4].gone = true;
	assert_int_equal(plan(&l), 15);
	assert_int_equal(rec[4].verdict, MW_REMOVED);
	assert_int_equal(sum.pending, 1);
}

/* Years of older mail between two captured ones make nothing old: the clock goes by what
 * was captured. */
static void
imported_mail(void **state)
{
	(void)state;
	struct mw_conf_retain rule = {.keep_us = 30 * DAY};
	struct mw_retain_limits l = {.rule = &rule, .n_rule = 1, .now_us = days()};
	/* The first and the last are captured, the rest imported, 20 hours apart. */
	for (size_t i = 0; i < N; i++)
		rec[i].time_us = T0 - 300 * DAY + (int64_t)i * 20 * HOUR;
	rec[0].time_us = T0;
	rec[N - 1].time_us = T0 + HOUR;
	l.now_us = T0 + 2 * HOUR;
	assert_true(plan(&l) > 5); /* what would happen, the captured one among them */
	assert_int_equal(rec[0].verdict, MW_REMOVE);
	for (size_t i = 1; i < N - 1; i++)
		rec[i].imported = true;
	assert_int_equal(plan(&l), 0);
	l.now_us = T0 + 21 * HOUR;
	rule.keep_us = 19 * HOUR; /* imported mail ages from its import on */
	assert_int_equal(plan(&l), N);
}

static void
size_limits(void **state)
{
	(void)state;
	struct mw_conf_retain rule = {.max_size = 1000};
	struct mw_retain_limits l = {.rule = &rule, .n_rule = 1, .now_us = days()};
	assert_int_equal(plan(&l), 40); /* the ten newest stay */
	assert_int_equal(rec[39].verdict, MW_REMOVE);
	assert_int_equal(rec[40].verdict, MW_KEEP_YOUNG);
	l.floor_us = 20 * DAY; /* floor, hold and mark beat it */
	assert_int_equal(plan(&l), 30);
	rec[5].held = true;
	assert_int_equal(plan(&l), 29);
	l.need_mark = true;
	assert_int_equal(plan(&l), 0);
	/* both limits: either is enough */
	l = (struct mw_retain_limits){.rule = &rule, .n_rule = 1, .now_us = days()};
	rule.keep_us = 5 * DAY;
	assert_int_equal(plan(&l), 45);
}

static void
clocks_that_jump(void **state)
{
	(void)state;
	struct mw_conf_retain rule = {.keep_us = 60 * DAY};
	struct mw_retain_limits l = {.rule = &rule, .n_rule = 1};
	static const int64_t years[] = {10 * 365, -10 * 365, 2, -2, 100 * 365};
	for (size_t k = 0; k < MW_COUNT(years); k++) {
		int64_t jump = years[k] * DAY;
		/* the wall clock alone */
		l.now_us = days() + jump;
		assert_int_equal(plan(&l), 0);
		assert_int_equal(sum.clock_bad, jump > 0);
		/* the newest mail has it too */
		rec[N - 1].time_us += jump;
		assert_int_equal(plan(&l), 0);
		/* one in the middle, and the first one */
		l.now_us = days();
		rec[20].time_us += jump;
		rec[0].time_us += jump;
		assert_int_equal(plan(&l), 0);
		/* all from the middle on: a host that came up with a wrong clock */
		l.now_us = days() + jump;
		for (size_t i = 25; i < N; i++)
			rec[i].time_us += jump;
		assert_int_equal(plan(&l), 0);
	}
	/* what had expired before the jump stays too while the clock is not trusted */
	rule.keep_us = 30 * DAY;
	l.now_us = days() + 3650 * DAY;
	assert_int_equal(plan(&l), 0);
	assert_int_equal(sum.all.clock, 19); /* less the hour since the newest */
	/* and the run after it, with the jump back */
	l.now_us = days();
	assert_int_equal(plan(&l), 20);
	/* mail out of order does not make time run faster */
	days();
	for (size_t i = 0; i < N; i++)
		rec[i].time_us = T0 + (i % 2 ? 0 : 20 * HOUR);
	l.now_us = T0 + 21 * HOUR;
	rule.keep_us = 2 * DAY;
	assert_int_equal(plan(&l), 0);
	/* extreme values do not wrap */
	rec[3].time_us = INT64_MAX;
	rec[4].time_us = INT64_MIN;
	l.now_us = INT64_MAX;
	assert_int_equal(plan(&l), 0);
}

/* A stretch that was removed is counted by what the audit says of it. */
static void
removed_stretch(void **state)
{
	(void)state;
	struct mw_conf_retain rule = {.keep_us = 30 * DAY};
	struct mw_gone_segs gone = {.first_seg = 11,
	                            .last_seg = 30,
	                            .first_seq = 11,
	                            .last_seq = 30,
	                            .clock_us = T0 + 29 * DAY,
	                            .took_us = 20 * DAY};
	struct mw_retain_limits l = {.rule = &rule, .n_rule = 1, .now_us = days()};
	memmove(rec + 10, rec + 30, 20 * sizeof *rec);
	mw_retain_plan(&l, rec, 30, &sum);
	assert_int_equal(sum.all.remove, 0); /* a gap of 21 days looks like a jump */
	l.gone = &gone;
	l.n_gone = 1;
	mw_retain_plan(&l, rec, 30, &sum);
	assert_int_equal(sum.all.remove, 10);
}

/* Records about mails go with the last of them. */
static void
notes_about_mail(void **state)
{
	(void)state;
	struct mw_conf_retain rule = {.keep_us = 30 * DAY};
	struct mw_retain_limits l = {.rule = &rule, .n_rule = 1, .now_us = days()};
	uint8_t old[16] = {0}, mixed[16] = {1};
	mixed[8] = 40;
	old[8] = 2;
	for (size_t k = 0; k < 2; k++) {
		struct mw_retain_rec *r = &rec[10 + k];
		r->type = k ? MW_TYPE_OUTCOME : MW_TYPE_SPF;
		r->tokens = k ? mixed : old;
		r->n_tokens = 2;
	}
	assert_int_equal(plan(&l), 18);
	assert_int_equal(rec[10].verdict, MW_REMOVE);
	assert_int_equal(rec[11].verdict, MW_KEEP_YOUNG);
	assert_int_equal(sum.notes, 1);
	l.damaged = true; /* a mail that cannot be read may need it */
	assert_int_equal(plan(&l), 18);
	assert_int_equal(rec[10].verdict, MW_KEEP_YOUNG);
	mw_retain_plan(&l, rec, 0, &sum);
	assert_int_equal(sum.all.messages, 0);
}

/* ---- rules, by tokens alone ---- */

static struct mw_store *store;
static uint8_t tokens[32][8];
static struct mw_traits traits;

static void
token(enum mw_key kind, const char *p, size_t n)
{
	assert_true(traits.n < MW_COUNT(tokens));
	mw_store_token(store, kind, mw_str(p, n), tokens[traits.n++]);
}

/* A mail to these recipients, as capture notes it. */
static void
mail_to(const char *const *rcpt, uint8_t domains, char direction)
{
	char shape[2] = {0, (char)domains};
	traits = (struct mw_traits){.token = tokens[0]};
	for (; *rcpt; rcpt++) {
		token(MW_KEY_RCPT, *rcpt, strlen(*rcpt));
		const char *d = strchr(*rcpt, '@') + 1;
		token(MW_KEY_RCPT_DOMAIN, d, strlen(d));
		shape[0] = (char)MW_MIN(shape[0] + 1, 2);
	}
	token(MW_KEY_SENDER, "s@far.test", 10);
	token(MW_KEY_DIRECTION, &direction, 1);
	token(MW_KEY_SHAPE, shape, 2);
}

static void
rules(void **state)
{
	(void)state;
	static char *m0[] = {(char *)(uintptr_t) "rcpt:HR@example.org"};
	static char *m1[] = {(char *)(uintptr_t) "domain:lists.test"};
	static char *m2[] = {(char *)(uintptr_t) "domain:b.test",
	                     (char *)(uintptr_t) "sender:s@far.test"};
	static char *m3[] = {(char *)(uintptr_t) "direction:out"};
	struct mw_conf_retain sect[] = {{.match = {m0, 1}},
	                                {.match = {m1, 1}},
	                                {.match = {m2, 2}},
	                                {.match = {m3, 1}}};
	struct mw_conf conf = {.retain = sect, .n_retain = 4};
	static const struct {
		const char *rcpt[4];
		uint8_t domains;
		char direction;
		uint64_t rules;
		bool all;
	} t[] = {
	    {{"hr@example.org"}, 1, MW_DIR_IN, 1, true},
	    {{"x@example.org"}, 1, MW_DIR_IN, 0, false},
	    {{"x@example.org"}, 1, MW_DIR_OUT, 8, true},
	    {{"hr@example.org"}, 1, MW_DIR_OUT, 1, true}, /* the first that fits */
	    {{"a@lists.test"}, 1, MW_DIR_IN, 2, true},
	    {{"a@lists.test", "b@lists.test"}, 1, MW_DIR_IN, 2, true},
	    {{"a@lists.test", "x@b.test"}, 2, MW_DIR_IN, 6, true},
	    {{"a@lists.test", "x@example.org"}, 2, MW_DIR_IN, 2, false},
	    {{"a@lists.test", "x@example.org"}, 2, MW_DIR_OUT, 10, true},
	    {{"hr@example.org", "x@example.org"}, 1, MW_DIR_IN, 1, false},
	    {{"hr@example.org", "x@lists.test"}, 2, MW_DIR_IN, 3, false},
	};
	char dir[] = "/tmp/mw-rules-XXXXXX", journal[64], cmd[128];
	struct mw_err err = {0};
	struct mw_rules *r = NULL;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	assert_int_equal(mw_store_open(&o, &store, &err), 0);
	assert_int_equal(mw_rules_new(store, &conf, &r, &err), 0);
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		bool all;
		mail_to(t[i].rcpt, t[i].domains, t[i].direction);
		uint64_t got = mw_rules_match(r, &traits, &all);
		if (got != t[i].rules || all != t[i].all)
			fail_msg("case %zu: rules %llx, all %d", i,
			         (unsigned long long)got, all);
	}
	/* tokens of an older writer: nothing is known of the recipients, so it stays */
	bool all;
	traits.n = 1;
	mw_store_token(store, MW_KEY_RCPT, MW_STR("hr@example.org"), tokens[0]);
	assert_int_equal(mw_rules_match(r, &traits, &all), 1);
	assert_false(all);
	mw_rules_free(r);
	mw_store_close(store);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
}

/* What was decided at capture, and sizes: of all copies, or of some only. */
static void
rules_by_class(void **state)
{
	(void)state;
	static char *m0[] = {(char *)(uintptr_t) "class:bulk"};
	static char *m1[] = {(char *)(uintptr_t) "spam:yes",
	                     (char *)(uintptr_t) "larger:1M"};
	static char *m2[] = {(char *)(uintptr_t) "header:List-Id:*News*"};
	static char *m3[] = {(char *)(uintptr_t) "smaller:1K",
	                     (char *)(uintptr_t) "direction:in"};
	struct mw_conf_retain sect[] = {{.match = {m0, 1}},
	                                {.match = {m1, 2}},
	                                {.match = {m2, 1}},
	                                {.match = {m3, 2}}};
	struct mw_conf conf = {.retain = sect, .n_retain = 4};
	static const struct {
		const char *cls, *fact; /* cls: "\1" all, "\2" some */
		uint64_t size, rules;
		bool all;
	} t[] = {
	    {"\1bulk", NULL, 5000, 1, true},
	    {"\2bulk", NULL, 5000, 1, false},
	    {"\2bulk", NULL, 500, 9, true}, /* the second goes for all of them */
	    {"\1Bulk", NULL, 5000, 0, false},
	    {"\1other", "spam:yes", 5000, 0, false},
	    {NULL, "spam:yes", (1 << 20) + 1, 2, true},
	    {NULL, "spam:yes", 1 << 20, 0, false},
	    {NULL, "spam:no", 2 << 20, 0, false},
	    {NULL, "HEADER:LIST-ID:*NEWS*", 5000, 4, true},
	    {NULL, "header:list-id", 5000, 0, false},
	    {NULL, NULL, 1023, 8, true},
	    {NULL, NULL, 1024, 0, false},
	};
	static const char *const two[] = {"a@x.test", "b@y.test", NULL};
	char dir[] = "/tmp/mw-rules-XXXXXX", journal[64], cmd[128];
	struct mw_err err = {0};
	struct mw_rules *r = NULL;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	assert_int_equal(mw_store_open(&o, &store, &err), 0);
	assert_int_equal(mw_rules_new(store, &conf, &r, &err), 0);
	for (size_t i = 0; i < 2 * MW_COUNT(t); i++) {
		uint8_t own[2][8], extra[32][8];
		bool all;
		size_t k = i / 2, n = 0;
		if (t[k].cls)
			mw_store_token(store, MW_KEY_CLASS, mw_strz(t[k].cls), own[n++]);
		if (t[k].fact)
			mw_store_token(store, MW_KEY_FACT, mw_strz(t[k].fact), own[n++]);
		mail_to(two, 2, MW_DIR_IN);
		traits.size = t[k].size;
		if (i % 2) { /* the same with recipients that were expanded later */
			traits.own = own[0];
			traits.n_own = n;
		} else {
			memcpy(extra, own, sizeof own);
			memcpy(extra[n], tokens, traits.n * 8);
			traits.token = extra[0];
			traits.n += n;
		}
		uint64_t got = mw_rules_match(r, &traits, &all);
		if (got != t[k].rules || all != t[k].all)
			fail_msg("case %zu: rules %llx, all %d", i,
			         (unsigned long long)got, all);
	}
	mw_rules_free(r);
	mw_store_close(store);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
}

/* ---- the records ---- */

static void
records(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO b = {0};
	struct mw_err err = {0};
	struct mw_str user[] = {MW_STR("alice@example.org"), MW_STR("b\xff@x")};
	struct mw_hold h = {.name = MW_STR("case 1"),
	                    .time_us = -5,
	                    .by = MW_STR("uid 0"),
	                    .since_us = INT64_MIN,
	                    .until_us = 77,
	                    .user = user,
	                    .n_user = 2,
	                    .direction = MW_DIR_OUT,
	                    .larger = 10};
	struct mw_hold h2;
	assert_int_equal(mw_hold_encode(&h, &b), 0);
	assert_int_equal(mw_hold_decode(b.p, b.n, a, &h2, &err), 0);
	assert_int_equal(h2.since_us, INT64_MIN);
	assert_int_equal(h2.until_us, 77);
	assert_int_equal(h2.direction, MW_DIR_OUT);
	assert_int_equal(h2.n_user, 2);
	assert_true(mw_str_eq(h2.user[1], user[1]));
	assert_int_equal(h2.n_domain, 0);
	for (size_t n = 0; n < b.n; n++)
		assert_int_equal(mw_hold_decode(b.p, n, a, &h2, &err), MW_EFORMAT);

	struct mw_seq_range range[] = {{1, 1}, {3, 10}, {12, UINT64_MAX - 1}};
	uint8_t token[1][8] = {"1234567"};
	struct mw_tombstone t = {.why = MW_TOMB_ERASURE,
	                         .time_us = 9,
	                         .range = range,
	                         .n_range = 3,
	                         .token = token,
	                         .n_token = 1};
	struct mw_tombstone t2;
	mw_buf_clear(&b);
	assert_int_equal(mw_tombstone_encode(&t, &b), 0);
	assert_int_equal(mw_tombstone_decode(b.p, b.n, a, &t2, &err), 0);
	assert_int_equal(t2.n_range, 3);
	assert_int_equal(t2.range[2].last, UINT64_MAX - 1);
	assert_memory_equal(t2.token[0], token[0], 8);
	for (size_t n = 0; n < b.n; n++)
		assert_int_equal(mw_tombstone_decode(b.p, n, a, &t2, &err), MW_EFORMAT);
	range[1].first = 1; /* not ascending */
	mw_buf_clear(&b);
	assert_int_equal(mw_tombstone_encode(&t, &b), 0);
	assert_int_equal(mw_tombstone_decode(b.p, b.n, a, &t2, &err), MW_EFORMAT);

	struct mw_gone_segs gone = {1, 4, 1, 99, {7}, -3, 12};
	struct mw_audit x = {.by = MW_STR("uid 0"),
	                     .freed = 5,
	                     .gone = &gone,
	                     .n_gone = 1};
	struct mw_audit x2;
	struct mw_seq_range lost = {7, 9}, settled[] = {{4, 4}, {11, 30}};
	mw_buf_clear(&b);
	assert_int_equal(mw_audit_encode(&x, &b), 0);
	assert_int_equal(mw_audit_decode(b.p, b.n, a, &x2, &err), 0);
	assert_int_equal(x2.n_gone, 1);
	assert_memory_equal(&x2.gone[0], &gone, sizeof gone);
	assert_int_equal(x2.n_lost + x2.n_settled, 0);
	x.lost = &lost;
	x.n_lost = 1;
	x.settled = settled;
	x.n_settled = 2;
	mw_buf_clear(&b);
	assert_int_equal(mw_audit_encode(&x, &b), 0);
	assert_int_equal(mw_audit_decode(b.p, b.n, a, &x2, &err), 0);
	assert_int_equal(x2.n_lost, 1);
	assert_memory_equal(x2.lost, &lost, sizeof lost);
	assert_int_equal(x2.n_settled, 2);
	assert_memory_equal(x2.settled, settled, sizeof settled);
	for (size_t n = 0; n < b.n; n++)
		assert_int_equal(mw_audit_decode(b.p, n, a, &x2, &err), MW_EFORMAT);
}

static void
restore_records_come_back(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(1 << 20);
	MW_BUF_AUTO b = {0};
	struct mw_err err = {0};
	uint8_t id[2][MW_ID_LEN] = {{1}, {2}};
	struct mw_restore x = {.time_us = -5,
	                       .by = MW_STR("uid 0, login anna"),
	                       .user = MW_STR("alice@example.org"),
	                       .target = MW_STR("imap://127.0.0.1"),
	                       .folder = MW_STR("Zur\xc3\xbc"
	                                        "ck"),
	                       .run = MW_STR("R1"),
	                       .ended = true,
	                       .selected = 4,
	                       .restored = 2,
	                       .present = 1,
	                       .failed = 1,
	                       .id = id,
	                       .n_id = 2};
	struct mw_restore y;
	assert_int_equal(mw_restore_encode(&x, &b), 0);
	assert_int_equal(mw_restore_decode(b.p, b.n, a, &y, &err), 0);
	assert_true(y.time_us == -5 && y.ended && y.selected == 4 && y.restored == 2);
	assert_true(y.present == 1 && y.failed == 1 && y.n_id == 2);
	assert_true(mw_str_eq(y.by, x.by) && mw_str_eq(y.user, x.user));
	assert_true(mw_str_eq(y.target, x.target) && mw_str_eq(y.folder, x.folder));
	assert_true(mw_str_eq(y.run, x.run));
	assert_memory_equal(y.id, id, sizeof id);
	for (size_t n = 0; n < b.n; n++)
		assert_int_equal(mw_restore_decode(b.p, n, a, &y, &err), MW_EFORMAT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(restore_records_come_back),
	    cmocka_unit_test(age_and_why_not),
	    cmocka_unit_test(imported_mail),
	    cmocka_unit_test(size_limits),
	    cmocka_unit_test(clocks_that_jump),
	    cmocka_unit_test(removed_stretch),
	    cmocka_unit_test(rules),
	    cmocka_unit_test(rules_by_class),
	    cmocka_unit_test(notes_about_mail),
	    cmocka_unit_test(records),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
