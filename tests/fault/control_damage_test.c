/* A bit that flips anywhere in what the log says of holds and erasures, or in the slot of
 * a mail from which somebody was erased: nobody who was erased is given back, and nothing
 * under hold may go (P10, P11). Each bit of these frames, read as replay and prune read
 * the log, with and without recovery keys; and a bit of each part, by the program. */
/* MW_TEST_COST 20 */
#include "journal/codec/keyring.h"
#include "journal/retain/retain.h"
#include "replay/erased.h"
#include "tests/support/retain_cli.h"

#include <fcntl.h>
#include <unistd.h>

#define ALICE "alice@example.org"
#define HR    "hr@example.org"
#define HELD  "held@example.org"

static uint8_t sk[32], pk[32];
static char key[300]; /* --key FILE, or nothing */

enum {
	MOST = 64
};
static struct mw_record record[MOST]; /* the journal as it is */
static size_t n_record;

/* ---- a journal ---- */

static void
mails(const uint8_t *recovery)
{
	static const struct mail kinds[] = {
	    {"4XBOTH", "bob@far.test", {ALICE, HR}, NULL, MW_DIR_IN},
	    {"4XSENT", "team@example.org", {HR}, ALICE, MW_DIR_INTERNAL},
	    {"4XHELD", "bob@far.test", {HELD}, NULL, MW_DIR_IN},
	    {"4XGOES", "bob@far.test", {HR}, NULL, MW_DIR_IN},
	};
	struct mw_err err = {0};
	struct fake f = {.now = now_us - 30 * DAY};
	shell("rm -rf '%s'", journal);
	if (mw_store_create(journal, NULL, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	struct mw_store *st = writer(&f, recovery);
	for (size_t i = 0; i < MW_COUNT(kinds); i++)
		put(st, &kinds[i], f.now + (int64_t)i * 1000000);
	assert_int_equal(mw_store_roll(st, &err), 0);
	/* the clock of the log goes on with what is captured */
	for (int d = 29; d >= 0; d--) {
		static const struct mail day = {
		    "4XDAY", "bob@far.test", {HR}, NULL, MW_DIR_IN};
		f.now = now_us - d * DAY;
		put(st, &day, f.now);
	}
	mw_store_close(st);
}

static struct mw_store *
reader(void)
{
	return opened(&(struct mw_store_opts){.dir = journal,
	                                      .mode = MW_STORE_READ,
	                                      .no_index = true,
	                                      .secret = sk,
	                                      .n_secret = 1});
}

static void
look(void)
{
	MW_STORE_AUTO *st = reader();
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	int r = mw_cursor_new(st, 1, &c, &err);
	assert_int_equal(r, 0);
	for (n_record = 0; (r = mw_cursor_next(c, &record[n_record], &err)) > 0;)
		assert_true(++n_record < MOST);
	assert_int_equal(r, 0);
}

static void
in_set(const char *args, int a, int b)
{
	char all[1024];
	(void)snprintf(all, sizeof all, "%s %s", key, args);
	int got = run("%s", all);
	if (got != a && got != b)
		fail_msg("mailwal %s: exit %d, neither %d nor %d:\n%s", all, got, a, b,
		         out);
}

static void
build(bool encrypted)
{
	mails(encrypted ? pk : NULL);
	write_conf("retain all { keep = 10d }\n");
	want(0, "hold add court --user " HELD);
	want(0, "hold add over --user " HR);
	want(0, "hold rm over");
	in_set("erase --user " ALICE " --yes --json", 0, 0);
	assert_true(says("\"kept_for_others\":2"));
	want(0, "prune --dry-run --json");
	assert_true(says("\"held\":1,"));
	assert_false(says("\"selected\":0,"));
	look();
}

/* ---- damage ---- */

static void
flip(const struct mw_record *r, uint64_t bit)
{
	char path[400];
	uint8_t b;
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", journal,
	               (unsigned long long)r->loc.segment);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	off_t at = (off_t)(r->loc.offset + bit / 8);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= (uint8_t)(1U << (bit % 8));
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	assert_int_equal(close(fd), 0);
}

static bool
is_control(const struct mw_record *r)
{
	return r->type == MW_TYPE_HOLD || r->type == MW_TYPE_TOMBSTONE;
}

/* ---- what readers make of it ---- */

static void
nobody_is_back(struct mw_store *st)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_CURSOR_AUTO *c = NULL;
	struct mw_erased e = {.n = 0};
	struct mw_record r;
	struct mw_err err = {0};
	int k = mw_cursor_new(st, 1, &c, &err);
	assert_int_equal(k, 0);
	while ((k = mw_cursor_next(c, &r, &err)) != 0) {
		struct mw_mail m;
		if (k < 0 || r.type != MW_TYPE_MAIL)
			continue;
		mw_arena_reset(a);
		if (mw_erased_mail(&e, st, 0, &r, a, &m, &err) < 0)
			continue;
		assert_true(mw_str_eq(m.auth_user, MW_STR("")));
		for (size_t i = 0; i < m.n_rcpt; i++)
			assert_false(mw_str_eq(m.rcpt[i].addr, MW_STR(ALICE)));
		if (mw_str_eq(m.queue_id, MW_STR("4XBOTH"))) /* another one keeps it */
			assert_int_equal(m.n_rcpt, 1);
	}
	mw_erased_done(&e);
}

/* May prune take a mail that was under hold? */
static void
nothing_held_goes(struct mw_store *st, const struct mw_conf *c, uint64_t held)
{
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *log = NULL;
	struct mw_retain_sum sum;
	struct mw_err err = {0};
	assert_int_equal(mw_rules_new(st, c, &rules, &err), 0);
	int r = mw_holds_load(st, &holds, &err);
	if (r == 0)
		r = mw_retain_gather(st, rules, holds, NULL, &log, &err);
	if (r == 0) {
		/* as with --despite-damage: it stands twice */
		struct mw_retain_limits l = {.rule = c->retain,
		                             .n_rule = c->n_retain,
		                             .now_us = now_us};
		mw_retain_plan(&l, log->rec, log->n, &sum);
		for (size_t i = 0; i < log->n; i++)
			if (log->rec[i].seq == held)
				assert_int_not_equal(log->rec[i].verdict, MW_REMOVE);
	}
	mw_retain_free(log);
	mw_holds_free(holds);
	mw_rules_free(rules);
}

static uint64_t
seq_of(const char *queue_id)
{
	MW_STORE_AUTO *st = reader();
	MW_ARENA_AUTO *a = mw_arena_new(0);
	for (size_t i = 0; i < n_record; i++) {
		struct mw_mail m;
		struct mw_err err = {0};
		if (record[i].type == MW_TYPE_MAIL &&
		    mw_record_mail(st, &record[i], a, &m, &err) == 0 &&
		    mw_str_eq(m.queue_id, mw_strz(queue_id)))
			return record[i].seq;
	}
	fail_msg("no %s", queue_id);
	return 0;
}

/* Each bit, or one of so many. */
static void
each_bit(uint64_t step)
{
	struct mw_conf *c = NULL;
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	uint64_t held = seq_of("4XHELD"), both = seq_of("4XBOTH"), bits = 0;
	assert_int_equal(mw_conf_load(conf, &c, &report, &err), 0);
	for (size_t i = 0; i < n_record; i++) {
		const struct mw_record *r = &record[i];
		uint64_t from = 0, to = 8 * (r->frame_len - r->body_len);
		if (r->seq == both) { /* what else it says is of no account here */
			from = UINT64_C(8) * 120;
			to = from + UINT64_C(8) * r->slot_len;
		} else if (!is_control(r)) {
			continue;
		}
		for (uint64_t bit = from; bit < to; bit += step, bits++) {
			flip(r, bit);
			MW_STORE_AUTO *st = reader();
			nobody_is_back(st);
			nothing_held_goes(st, c, held);
			flip(r, bit);
		}
	}
	assert_true(bits * step > 10000);
	mw_conf_free(c);
}

/* ---- what the commands say ---- */

/* One bit in each part of a frame. */
static size_t
parts(const struct mw_record *r, uint64_t bit[5])
{
	bit[0] = 3;                                     /* magic */
	bit[1] = UINT64_C(8) * 48 + 1;                  /* type */
	bit[2] = UINT64_C(8) * (120 + 40);              /* key slot: the key */
	bit[3] = UINT64_C(8) * (120 + 72) + 5;          /* a token */
	bit[4] = UINT64_C(8) * (120 + r->slot_len + 4); /* metadata */
	return 5;
}

static void
by_the_program(const struct mw_record *r)
{
	char args[600], pair[64];
	in_set("verify", 1, 1);
	in_set("list --user " ALICE " --json", 0, 3);
	assert_false(says("4XBOTH"));
	in_set("list --json --all", 0, 3);
	assert_false(says(ALICE));
	(void)snprintf(args, sizeof args,
	               "replay --all --to maildir:%s/box-%%u --create --dry-run", root);
	in_set(args, 0, 3);
	assert_false(says("box-alice"));
	if (r->type == MW_TYPE_TOMBSTONE)
		return;
	/* each of these tells that a hold may be lost, and which record it was */
	(void)snprintf(pair, sizeof pair, "[[%llu,%llu]]", (unsigned long long)r->seq,
	               (unsigned long long)r->seq);
	in_set("hold list --json", 1, 1);
	assert_true(says(pair));
	in_set("status --json", 1, 1);
	assert_true(says(pair));
	assert_true(says("a hold may be among them"));
	in_set("status --nagios", 2, 2);
	assert_true(says("a hold may be among them"));
	in_set("prune --dry-run --json", 1, 1);
	assert_true(says(pair));
	shell("cp -a '%s' '%s/kept'", journal, root);
	in_set("prune --yes --json", 1, 1);
	assert_true(says("\"removed\":0,"));
	assert_true(says(pair));
	in_set("erase 4XHELD --yes", 77, 77);
	in_set("erase 4XHELD --despite-damage --yes", 77, 77);
	in_set("prune --despite-damage --yes --json", 0, 0);
	in_set("show 4XHELD", 0, 0);
	in_set("hold list --json", 0, 0);
	assert_true(says("court"));
	in_set("prune --yes --json", 0, 0);
	shell("rm -rf '%s' && mv '%s/kept' '%s'", journal, root, journal);
}

static void
each_part(void)
{
	for (size_t i = 0; i < n_record; i++) {
		uint64_t bit[5];
		if (!is_control(&record[i]))
			continue;
		for (size_t k = 0, n = parts(&record[i], bit); k < n; k++) {
			flip(&record[i], bit[k]);
			by_the_program(&record[i]);
			flip(&record[i], bit[k]);
		}
	}
	in_set("verify", 0, 0);
	in_set("hold list --json", 0, 0);
	in_set("status --json", 1, 1);
	assert_true(says("\"holds_lost\":[]"));
}

static void
plain(void **state)
{
	(void)state;
	key[0] = '\0';
	build(false);
	each_part();
	each_bit(5); /* all of them: 1 */
}

static void
encrypted(void **state)
{
	(void)state;
	char name[280];
	(void)snprintf(name, sizeof name, "%s/key", root);
	(void)snprintf(key, sizeof key, "--key %s", name);
	assert_int_equal(mw_keyring_new(name, MW_STR(""), pk, NULL), 0);
	assert_int_equal(mw_keyring_load_secret(name, MW_STR(""), sk, NULL), 0);
	build(true);
	each_part();
	each_bit(13); /* where each stands is no matter of keys */
}

/* Where the segments of both go, both are written anew, in two segments again; and no
 * more than once. */
static void
stays_twice(void **state)
{
	(void)state;
	static const struct mail day = {"4XDAY", "bob@far.test", {HR}, NULL, MW_DIR_IN};
	struct mw_err err = {0};
	struct fake f = {.now = now_us - 30 * DAY};
	struct mw_str user[] = {MW_STR(HELD)};
	struct mw_hold h = {.name = MW_STR("early"),
	                    .time_us = f.now,
	                    .since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1,
	                    .user = user,
	                    .n_user = 1};
	key[0] = '\0';
	if (mw_store_create(journal, NULL, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	struct mw_retain_owner o = {journal, writer(&f, NULL), "uid 0", f.now};
	put(o.st, &day, f.now);
	assert_int_equal(mw_hold_write(&o, &h, &err), 0);
	for (int d = 30; d >= 0; d--) {
		f.now = now_us - d * DAY;
		put(o.st, &day, f.now);
		if (d % 7 == 0)
			assert_int_equal(mw_store_roll(o.st, &err), 0);
	}
	mw_store_close(o.st);
	write_conf("retain all { keep = 10d }\n");
	uint64_t before = 0;
	for (int round = 0; round < 3; round++) {
		uint64_t in[2] = {0, 0};
		size_t n = 0;
		look();
		for (size_t i = 0; i < n_record; i++)
			if (record[i].type == MW_TYPE_HOLD && ++n <= 2)
				in[n - 1] = record[i].loc.segment;
		assert_int_equal(n, 2);
		assert_true(in[0] < in[1]);
		assert_true(round == 1 ? in[0] > before : round == 0 || in[0] == before);
		before = round ? in[0] : in[1];
		want(0, "hold list --json");
		assert_true(says("early"));
		want(0, "prune --yes --json");
		want(0, "verify");
	}
}

/* All mail of that segment goes, as a prune has it that comes while st is open. */
static void
prune_segment(struct mw_retain_owner *o, uint64_t segment)
{
	static const struct mw_conf none;
	MW_STORE_AUTO *st = reader();
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *l = NULL;
	struct mw_retain_done done;
	struct mw_err err = {0};
	assert_int_equal(mw_rules_new(st, &none, &rules, &err), 0);
	assert_int_equal(mw_holds_load(st, &holds, &err), 0);
	assert_int_equal(mw_retain_gather(st, rules, holds, NULL, &l, &err), 0);
	for (size_t i = 0; i < l->n; i++)
		if (l->rec[i].type == MW_TYPE_MAIL && l->rec[i].segment == segment)
			l->rec[i].verdict = MW_REMOVE;
	assert_int_equal(mw_retain_run(o, l, &done, &err), 0);
	assert_int_equal(done.segments, 1);
	mw_retain_free(l);
	mw_holds_free(holds);
	mw_rules_free(rules);
}

/* Where only one goes, what is written anew does not join the other in the segment that
 * is open. */
static void
stays_apart(void **state)
{
	(void)state;
	static const struct mail day = {"4XDAY", "bob@far.test", {HR}, NULL, MW_DIR_IN};
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	struct mw_hold h = {.name = MW_STR("apart"),
	                    .time_us = f.now,
	                    .since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1};
	if (mw_store_create(journal, NULL, NULL, &err) < 0)
		fail_msg("create: %s", err.msg);
	struct mw_retain_owner o = {journal, writer(&f, NULL), "uid 0", f.now};
	put(o.st, &day, f.now);
	assert_int_equal(mw_hold_write(&o, &h, &err), 0);
	put(o.st, &day, f.now);
	for (int round = 0; round < 3; round++) {
		uint64_t in[2] = {0, 0};
		size_t n = 0;
		look();
		for (size_t i = 0; i < n_record; i++)
			if (record[i].type == MW_TYPE_HOLD && ++n <= 2)
				in[n - 1] = record[i].loc.segment;
		assert_int_equal(n, 2);
		assert_true(in[0] < in[1]);
		if (round < 2)
			prune_segment(&o, in[0]);
		if (round == 0)
			put(o.st, &day, f.now);
	}
	mw_store_close(o.st);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(plain, setup, teardown),
	    cmocka_unit_test_setup_teardown(encrypted, setup, teardown),
	    cmocka_unit_test_setup_teardown(stays_twice, setup, teardown),
	    cmocka_unit_test_setup_teardown(stays_apart, setup, teardown),
	};
	return cmocka_run_group_tests_name("damage to holds and tombstones", tests, NULL,
	                                   NULL);
}
