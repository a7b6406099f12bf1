/* Every allocation fails once while records are taken out of a journal: what is pruned or
 * erased is gone then or at the next run, and nothing else is. */
/* MW_TEST_COST 10 */
#include "tests/support/alloc_journal.h"

static int
prune(struct mw_err *err)
{
	struct mw_conf_retain rule = {.name = (char *)(uintptr_t) "all", .max_size = 1};
	struct mw_conf conf = {.retain = &rule, .n_retain = 1};
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *log = NULL;
	struct mw_retain_sum sum;
	struct mw_retain_done done;
	struct mw_store *st = NULL;
	int r = open_reader(work, &st, err);
	if (r == 0)
		r = mw_rules_new(st, &conf, &rules, err);
	if (r == 0)
		r = mw_holds_load(st, &holds, err);
	if (r == 0)
		r = mw_retain_gather(st, rules, holds, NULL, &log, err);
	mw_store_close(st);
	if (r == 0) {
		struct mw_retain_limits l = {.rule = &rule,
		                             .n_rule = 1,
		                             .now_us = now_us,
		                             .gone = log->audit ? log->audit->gone : NULL,
		                             .n_gone =
		                                 log->audit ? log->audit->n_gone : 0,
		                             .damaged = log->damaged > 0};
		require(!l.damaged, "the log is called damaged");
		mw_retain_plan(&l, log->rec, log->n, &sum);
		struct mw_retain_owner o = {.dir = work, .by = "uid 0", .now_us = now_us};
		r = open_writer(work, &o.st, err);
		if (r == 0)
			r = mw_retain_run(&o, log, &done, err);
		mw_owner_close(&o);
	}
	mw_retain_free(log);
	mw_holds_free(holds);
	mw_rules_free(rules);
	return r;
}

static void
prune_one(void)
{
	struct mw_err err = {0};
	int r = prune(&err);
	enomem(r, &err);
	memset(&now, 0, sizeof now); /* all of them may be gone */
}

static void
prune_after(void)
{
	struct mw_err err = {0};
	check(work, &now);
	require(prune(&err) == 0, "the next run fails: %s", err.msg);
	check(work, &now);
	MW_STORE_AUTO *st = NULL;
	require(open_reader(work, &st, &err) == 0, "%s", err.msg);
	require(look_up(st, MW_KEY_RCPT, MW_STR("u1@d1.test"), 0, &err) == 0, "%s",
	        err.msg);
}

static int
first_mail(void *arg, const struct mw_record *r)
{
	*(struct mw_record *)arg = *r;
	return 1;
}

static void
erase_one(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	struct mw_record rec = {.seq = 0};
	struct mw_erase_list e = {.whole = &rec, .n_whole = 1};
	struct mw_retain_owner o = {.dir = work, .by = "uid 0", .now_us = now_us};
	int r = open_reader(work, &st, &err);
	if (r == 0)
		r = mw_store_find(st, MW_KEY_QUEUE_ID, MW_STR("Q1"), first_mail, &rec,
		                  &err);
	if (r == 0) /* it has no tokens any more */
		return;
	if (r == 1)
		r = open_writer(work, &o.st, &err);
	if (r == 0)
		r = mw_erase_run(&o, &e, &err);
	enomem(r, &err);
	mw_owner_close(&o);
	now.acked[1] = false; /* gone, or named by a tombstone, or still there */
}

static void
erase_after(void)
{
	check(work, &now);
	erase_one();
	MW_STORE_AUTO *st = NULL;
	struct mw_err err = {0};
	require(open_reader(work, &st, &err) == 0, "%s", err.msg);
	struct mw_verify_result res;
	require(verify(st, &res, &err) == 0, "%s", err.msg);
	check(work, &now);
}

static void
runs(void)
{
	each("prune", fresh_copy, prune_one, prune_after);
	each("erase", fresh_copy, erase_one, erase_after);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(plain_journal),
	    cmocka_unit_test(encrypted_journal),
	    cmocka_unit_test(journal_with_a_dictionary),
	};
	journal_runs = runs;
	return cmocka_run_group_tests(tests, setup, teardown);
}
