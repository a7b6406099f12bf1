/* quiet_test.c - a plan that passes over segments removes what one that looks at each
 * record removes, and nothing else: over random logs, rules, holds and clocks. */
#include "journal/base/util.h"
#include "journal/retain/retain.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HOUR ((int64_t)3600 * 1000000)
#define DAY  (24 * HOUR)

enum {
	LOGS = 24,
	ROUNDS = 5,
	KNOWN = 64,
	SEGMENT = 10 /* mails of one, where it is asked which */
};

static char root[64], dir[96];
static int64_t now_us;
static struct mw_clock lying;
static uint64_t dice;
static uint8_t known[KNOWN][MW_ID_LEN]; /* of the last mails */
static size_t n_known;
static unsigned passed_over, removed, notes_removed;

static int64_t
lie(const struct mw_clock *c)
{
	(void)c;
	return now_us;
}

static struct mw_store *
open_as(enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .mode = mode, .clock = &lying};
	return opened(&o);
}

/* ---- what is in the log ---- */

static void
mail(struct mw_store *st, bool imported)
{
	static const char body[] = "Subject: s\r\n\r\ntext\r\n";
	MW_ENTRY_AUTO *e = NULL;
	char to[40];
	(void)snprintf(to, sizeof to, "u%u@d%u.test", dice_roll(&dice, 4),
	               dice_roll(&dice, 3));
	struct mw_rcpt r = {.addr = mw_strz(to)};
	struct mw_mail m = {.time_us = now_us, .rcpt = &r, .n_rcpt = 1};
	if (imported)
		m.time_us -= (int64_t)dice_roll(&dice, 400) * 6 * HOUR;
	assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, NULL), 0);
	if (imported)
		mw_entry_imported(e);
	assert_int_equal(mw_entry_body(e, body, sizeof body - 1, NULL), 0);
	assert_int_equal(mw_entry_describe(e, &m, NULL), 0);
	assert_int_equal(mw_entry_finish_mail(e, &m, NULL), 0);
	memcpy(known[n_known++ % KNOWN], mw_entry_id(e), MW_ID_LEN);
	assert_int_equal(mw_store_append(st, e, NULL, NULL), 0);
}

/* Refers to mails of some time ago, be they there or not. */
static void
refers(struct mw_store *st)
{
	static const enum mw_type types[] = {MW_TYPE_OUTCOME, MW_TYPE_EXPANSION,
	                                     MW_TYPE_SPF, MW_TYPE_RESTORE};
	MW_ENTRY_AUTO *e = NULL;
	struct mw_rcpt r = {.addr = MW_STR("u1@d1.test")};
	struct mw_mail m = {.rcpt = &r, .n_rcpt = 1};
	enum mw_type type = types[dice_roll(&dice, MW_COUNT(types))];
	assert_int_equal(mw_entry_new(st, type, &e, NULL), 0);
	for (uint32_t k = dice_roll(&dice, 3) + 1; k && n_known; k--)
		mw_entry_refer(
		    e, known[dice_roll(&dice, (uint32_t)MW_MIN(n_known, (size_t)KNOWN))]);
	if (type == MW_TYPE_EXPANSION)
		mw_entry_people(e, &m);
	assert_int_equal(mw_entry_finish(e, now_us, "\xa0", 1, NULL), 0);
	assert_int_equal(mw_store_append(st, e, NULL, NULL), 0);
}

static void
mark(struct mw_store *st)
{
	uint8_t chain[32];
	struct mw_mark m = {.name = MW_STR("m"),
	                    .phase =
	                        dice_roll(&dice, 2) ? MW_MARK_START : MW_MARK_COMPLETE,
	                    .time_us = now_us,
	                    .start_seq = mw_store_head(st, chain)};
	MW_BUF_AUTO b = {0};
	assert_int_equal(mw_mark_encode(&m, &b), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_MARK, now_us, b.p, b.n, NULL, NULL),
	                 0);
}

static void
hold(struct mw_store *st)
{
	struct mw_str who = MW_STR("u2@d2.test");
	struct mw_hold h = {.name = dice_roll(&dice, 2) ? MW_STR("a") : MW_STR("b"),
	                    .released = dice_roll(&dice, 2),
	                    .time_us = now_us,
	                    .since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1,
	                    .user = &who,
	                    .n_user = 1};
	MW_BUF_AUTO b = {0};
	assert_int_equal(mw_hold_encode(&h, &b), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_HOLD, now_us, b.p, b.n, NULL, NULL),
	                 0);
}

static void
time_goes_on(uint32_t jumps)
{
	static const int64_t by[] = {-10 * 365 * DAY, 10 * 365 * DAY, -27 * HOUR,
	                             27 * HOUR,       -25 * HOUR,     25 * HOUR};
	now_us += (int64_t)dice_roll(&dice, 120) * HOUR / 60;
	if (dice_roll(&dice, 20) == 0) /* a little back: a batch has any order */
		now_us -= (int64_t)dice_roll(&dice, 90) * HOUR / 60;
	if (jumps && dice_roll(&dice, jumps) == 0)
		now_us += by[dice_roll(&dice, MW_COUNT(by))];
}

static void
grow(struct mw_store *st, uint32_t jumps, uint32_t notes, bool imports)
{
	for (unsigned s = dice_roll(&dice, 6) + 2; s; s--) {
		for (unsigned i = dice_roll(&dice, 25); i; i--) {
			time_goes_on(jumps);
			mail(st, imports && dice_roll(&dice, 30) == 0);
			if (notes && dice_roll(&dice, notes) == 0)
				refers(st);
			if (dice_roll(&dice, 60) == 0)
				mark(st);
			if (dice_roll(&dice, 90) == 0)
				hold(st);
		}
		assert_int_equal(mw_store_roll(st, NULL), 0);
	}
	mail(st, false);
}

/* ---- both plans ---- */

static struct mw_conf_retain rule[3];
static struct mw_conf conf;

static void
some_rules(void)
{
	static char names[3][2] = {"a", "b", "c"};
	static char text[] = "domain:d1.test";
	static char *match[] = {text};
	conf = (struct mw_conf){.retain = rule, .n_retain = 1};
	memset(rule, 0, sizeof rule);
	conf.n_retain = 1 + dice_roll(&dice, 2);
	for (size_t i = 0; i < conf.n_retain; i++) {
		rule[i].name = names[i];
		rule[i].keep_us = (int64_t)(dice_roll(&dice, 9) + 1) * DAY;
		if (i == 0 && dice_roll(&dice, 2)) /* the others are for ever, or of b */
			rule[i].match = (struct mw_conf_list){match, 1};
		if (dice_roll(&dice, 12) == 0)
			rule[i].max_size = 20000;
	}
}

struct plan {
	struct mw_retain_log *log;
	struct mw_retain_sum sum;
};

static void
make_plan(struct plan *p, bool fast)
{
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_err err = {0};
	struct mw_retain_limits l = {.rule = rule,
	                             .n_rule = conf.n_retain,
	                             .floor_us = DAY / 2,
	                             .now_us = now_us};
	struct mw_store *st = open_as(MW_STORE_READ);
	assert_int_equal(mw_rules_new(st, &conf, &rules, &err), 0);
	assert_int_equal(mw_holds_load(st, &holds, &err), 0);
	assert_int_equal(mw_retain_gather_for(st, rules, holds, fast ? &l : NULL, NULL,
	                                      &p->log, &err),
	                 0);
	mw_store_close(st);
	mw_rules_free(rules);
	mw_holds_free(holds);
	const struct mw_audit *a = p->log->audit;
	l.gone = a ? a->gone : NULL;
	l.n_gone = a ? a->n_gone : 0;
	l.quiet = &p->log->quiet;
	l.damaged = p->log->damaged > 0;
	l.lost = p->log->lost.n > 0;
	for (size_t i = p->log->n_seg; i > 0 && !p->log->seg[i - 1].settled; i--)
		l.open_seg = p->log->seg[i - 1].number;
	p->log->floor_us = l.floor_us;
	mw_retain_plan(&l, p->log->rec, p->log->n, &p->sum);
}

static bool
is_quiet(const struct plan *p, uint64_t seq)
{
	for (size_t i = 0; i < p->log->quiet.n; i++)
		if (seq >= p->log->quiet.seg[i].first_seq &&
		    seq <= p->log->quiet.seg[i].last_seq)
			return true;
	return false;
}

static void
same(const struct plan *all, const struct plan *fast)
{
	size_t k = 0;
	assert_int_equal(all->sum.clock_bad, fast->sum.clock_bad);
	assert_int_equal(all->sum.newest_us, fast->sum.newest_us);
	assert_int_equal(all->sum.all.remove, fast->sum.all.remove);
	assert_int_equal(all->sum.notes, fast->sum.notes);
	assert_int_equal(all->sum.pending, fast->sum.pending);
	assert_int_equal(all->log->damaged, fast->log->damaged);
	assert_int_equal(all->log->lost.n, fast->log->lost.n);
	assert_int_equal(all->log->n_note, fast->log->n_note);
	assert_int_equal(all->log->marked_seq, fast->log->marked_seq);
	for (size_t i = 0; i < all->log->n; i++) {
		const struct mw_retain_rec *x = &all->log->rec[i];
		bool quiet = is_quiet(fast, x->seq);
		notes_removed += x->verdict == MW_REMOVE && x->type != MW_TYPE_MAIL;
		if (quiet)
			assert_true(x->verdict < MW_REMOVE);
		if (quiet && x->type == MW_TYPE_MAIL)
			continue;
		assert_true(k < fast->log->n);
		const struct mw_retain_rec *y = &fast->log->rec[k++];
		assert_int_equal(x->seq, y->seq);
		assert_int_equal(x->type, y->type);
		assert_int_equal(x->verdict, y->verdict);
		assert_int_equal(x->held, y->held);
		if (!quiet)
			assert_int_equal(x->seen_us, y->seen_us);
	}
	assert_int_equal(k, fast->log->n);
	passed_over += (unsigned)fast->log->quiet.n;
}

/* The log's clock says of what stayed what it said before. */
static void
clock_is_as_before(const struct plan *before)
{
	struct plan after = {0};
	size_t k = 0;
	make_plan(&after, false);
	for (size_t i = 0; i < after.log->n; i++) {
		const struct mw_retain_rec *y = &after.log->rec[i];
		while (k < before->log->n && before->log->rec[k].seq < y->seq)
			k++;
		if (k < before->log->n && before->log->rec[k].seq == y->seq)
			assert_int_equal(before->log->rec[k].seen_us, y->seen_us);
	}
	mw_retain_free(after.log);
}

static void
one_log(unsigned n)
{
	struct mw_err err = {0};
	dice = n * 7919 + 1;
	uint32_t jumps = n % 4 == 3 ? 40 : n % 4 == 2 ? 400 : 0;
	uint32_t notes = n % 3 == 0 ? 0 : n % 3 == 1 ? 40 : 4;
	now_us = (int64_t)1700000000 * 1000000;
	n_known = 0;
	(void)snprintf(dir, sizeof dir, "%s/j%u", root, n);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct plan all = {0}, fast = {0};
		struct mw_retain_done done;
		struct mw_store *st = open_as(MW_STORE_WRITE);
		grow(st, jumps, notes, n % 5 == 4);
		mw_store_close(st);
		time_goes_on(jumps);
		some_rules();
		make_plan(&all, false);
		make_plan(&fast, true);
		same(&all, &fast);
		struct mw_retain_owner o = {.dir = dir, .by = "uid 0", .now_us = now_us};
		o.st = open_as(MW_STORE_WRITE);
		assert_int_equal(mw_retain_run(&o, fast.log, &done, &err), 0);
		mw_owner_close(&o);
		removed += (unsigned)done.records;
		clock_is_as_before(&all);
		mw_retain_free(all.log);
		mw_retain_free(fast.log);
	}
	shell("rm -rf '%s'", dir);
}

static void
as_if_all_were_looked_at(void **state)
{
	(void)state;
	lying = *mw_clock_system();
	lying.now_us = lie;
	(void)snprintf(root, sizeof root, "/tmp/mw-quiet-XXXXXX");
	assert_non_null(mkdtemp(root));
	for (unsigned n = 0; n < LOGS; n++)
		one_log(n);
	shell("rm -rf '%s'", root);
	print_message("%u segments passed over, %u mails and %u other records removed\n",
	              passed_over, removed, notes_removed);
	assert_true(passed_over > 100);
	assert_true(removed > 100);
	assert_true(notes_removed > 20);
}

/* Erases all mail of a segment. */
static void
erase_segment(uint64_t segment)
{
	static struct mw_record whole[SEGMENT];
	struct mw_erase_list e = {.whole = whole};
	struct mw_err err = {0};
	struct mw_record r;
	{
		MW_STORE_AUTO *st = open_as(MW_STORE_READ);
		MW_CURSOR_AUTO *c = NULL;
		assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
		while (mw_cursor_next(c, &r, &err) == 1)
			if (r.type == MW_TYPE_MAIL && r.loc.segment == segment)
				whole[e.n_whole++] = r;
	}
	assert_int_equal(e.n_whole, SEGMENT);
	struct mw_retain_owner o = {.dir = dir, .by = "uid 0", .now_us = now_us};
	o.st = open_as(MW_STORE_WRITE);
	assert_int_equal(mw_erase_run(&o, &e, &err), 0);
	mw_owner_close(&o);
}

/* The newest segment comes behind one that is gone, behind one that is passed over. */
static void
what_went_before_it_is_no_damage(void **state)
{
	static char name[] = "all";
	struct mw_err err = {0};
	struct mw_retain_done done;
	(void)state;
	now_us = (int64_t)1700000000 * 1000000;
	(void)snprintf(root, sizeof root, "/tmp/mw-quiet-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (int i = 0; i <= 3 * SEGMENT; i++) {
		now_us += HOUR / 60;
		mail(st, false);
		if (i % SEGMENT == SEGMENT - 1)
			assert_int_equal(mw_store_roll(st, NULL), 0);
	}
	mw_store_close(st);
	erase_segment(2);
	memset(rule, 0, sizeof rule);
	conf = (struct mw_conf){.retain = rule, .n_retain = 1};
	rule[0].name = name;
	rule[0].keep_us = 30 * DAY;
	for (unsigned round = 0; round < 3; round++) {
		struct plan all = {0}, fast = {0};
		make_plan(&all, false);
		make_plan(&fast, true);
		assert_int_equal(all.log->damaged, 0);
		assert_int_equal(fast.log->damaged, 0);
		struct mw_retain_owner o = {.dir = dir, .by = "uid 0", .now_us = now_us};
		o.st = open_as(MW_STORE_WRITE);
		assert_int_equal(mw_retain_run(&o, fast.log, &done, &err), 0);
		mw_owner_close(&o);
		mw_retain_free(all.log);
		mw_retain_free(fast.log);
	}
	shell("rm -rf '%s'", root);
}

/* The newest mail of a segment: its first bytes on disk are turned over. */
static void
spoil_last_mail(uint64_t segment, uint64_t at)
{
	struct mw_err err = {0};
	struct mw_record r, last = {0};
	{
		MW_STORE_AUTO *st = open_as(MW_STORE_READ);
		MW_CURSOR_AUTO *c = NULL;
		assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
		while (mw_cursor_next(c, &r, &err) == 1)
			if (r.type == MW_TYPE_MAIL && r.loc.segment == segment)
				last = r;
	}
	assert_int_equal(last.loc.segment, segment);
	char path[160];
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", dir,
	               (unsigned long long)segment);
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, (long)(last.loc.offset + at), SEEK_SET), 0);
	int was = fgetc(f);
	assert_true(was != EOF);
	assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
	assert_int_equal(fputc(~was & 0xff, f), ~was & 0xff);
	assert_int_equal(fclose(f), 0);
}

static void
refers_to(struct mw_store *st, const uint8_t *id)
{
	MW_ENTRY_AUTO *e = NULL;
	assert_int_equal(mw_entry_new(st, MW_TYPE_SPF, &e, NULL), 0);
	mw_entry_refer(e, id);
	assert_int_equal(mw_entry_finish(e, now_us, "\xa0", 1, NULL), 0);
	assert_int_equal(mw_store_append(st, e, NULL, NULL), 0);
}

/* What refers to a mail that cannot be read stays, where its segment is passed over, too.
 */
static void
an_unreadable_mail_keeps_its_outcome(void **state)
{
	static char name[] = "all";
	struct mw_err err = {0};
	(void)state;
	(void)snprintf(root, sizeof root, "/tmp/mw-quiet-XXXXXX");
	assert_non_null(mkdtemp(root));
	memset(rule, 0, sizeof rule);
	conf = (struct mw_conf){.retain = rule, .n_retain = 1};
	rule[0].name = name;
	rule[0].keep_us = 4 * DAY;
	for (uint64_t at = 0; at < 400; at += 40) {
		struct plan all = {0}, fast = {0};
		now_us = (int64_t)1700000000 * 1000000;
		n_known = 0;
		(void)snprintf(dir, sizeof dir, "%s/j%u", root, (unsigned)at);
		assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
		struct mw_store *st = open_as(MW_STORE_WRITE);
		for (int i = 0; i < 6 * SEGMENT; i++) {
			now_us += 2 * HOUR;
			mail(st, false);
			if (i % SEGMENT == SEGMENT - 1)
				assert_int_equal(mw_store_roll(st, NULL), 0);
		}
		refers_to(st, known[6 * SEGMENT - 1]);
		now_us += DAY;
		mail(st, false);
		mw_store_close(st);
		if (at == 0) { /* of such a log, segments are passed over */
			make_plan(&fast, true);
			assert_true(is_quiet(&fast, 60));
			mw_retain_free(fast.log);
		}
		spoil_last_mail(6, at);
		make_plan(&all, false);
		assert_int_equal(all.sum.notes, 0);
		make_plan(&fast, true);
		assert_int_equal(fast.sum.notes, 0);
		mw_retain_free(all.log);
		mw_retain_free(fast.log);
	}
	shell("rm -rf '%s'", root);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_if_all_were_looked_at),
	    cmocka_unit_test(what_went_before_it_is_no_damage),
	    cmocka_unit_test(an_unreadable_mail_keeps_its_outcome),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
