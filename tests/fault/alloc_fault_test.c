/* Every allocation fails once, in the journal: while it is created, written, read in
 * every way there is, and indexed anew; and in a dictionary. */
/* MW_TEST_COST 15 */
#include "tests/support/alloc_journal.h"

#include "journal/codec/zstd.h"

/* The journal goes on. */
static void
goes_on(const char *dir, struct ledger *l, unsigned k)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	require(open_writer(dir, &st, &err) == 0, "does not open: %s", err.msg);
	require(append(st, k, l, &err) == 0, "takes nothing more: %s", err.msg);
	mw_store_close(st);
	check(dir, l);
}

/* Create. */

static void
nothing_there(void)
{
	shell("rm -rf '%s'", work);
	memset(&now, 0, sizeof now);
}

static void
create_one(void)
{
	struct mw_err err = {0};
	int r = mw_store_create(work, &fs, NULL, &err);
	enomem(r, &err);
}

static void
create_after(void)
{
	struct mw_err err = {0};
	int r = mw_store_create(work, &fs, NULL, &err);
	require(r == 0 || r == MW_ECREATE, "cannot be created: %s", err.msg);
	goes_on(work, &now, MAILS);
}

/* Write: recovery of a journal whose last segment is open, mails, a note, a roll. */

static void
write_one(void)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	int r = open_writer(work, &st, &err);
	enomem(r, &err);
	if (r < 0)
		return;
	for (unsigned k = MAILS; k < (with_dict ? ALL - 1 : MAILS + 4); k++) {
		mw_err_clear(&err);
		enomem(append(st, k, &now, &err), &err);
		if (with_dict && k == MAILS + 5) /* which the next mails bring along */
			(void)mw_store_train(st);
		if (k != MAILS + 2)
			continue;
		enomem(mark(st, &err), &err);
		enomem(mw_store_roll(st, &err), &err);
	}
	mw_store_close(st);
}

static void
write_after(void)
{
	check(work, &now);
	goes_on(work, &now, ALL - 1);
}

/* Read, every way there is; a wrong answer is worse than none. */

static int
walk(struct mw_store *st, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	unsigned k, n = 0, dicts = 0;
	int q = mw_cursor_new(st, 1, &c, err);
	while (q == 0 && (q = mw_cursor_next(c, &r, err)) == 1) {
		q = r.type == MW_TYPE_MAIL ? read_one(st, &r, &k, err) : 0;
		n += r.type == MW_TYPE_MAIL;
		dicts += r.type == MW_TYPE_MAIL && r.dict;
		if (q < 0)
			return q;
	}
	require(q < 0 || n == MAILS, "%u mails, not %u", n, MAILS);
	require(q < 0 || dicts == (with_dict ? 2 : 0), "%u mails with a dictionary",
	        dicts);
	return q;
}

static void
read_one_way(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	struct mw_record r;
	struct mw_verify_result res;
	struct mw_segment_info *info = NULL;
	MW_GONE_AUTO *g = NULL;
	size_t n = 0;
	int q = open_reader(base, &st, &err);
	enomem(q, &err);
	if (q < 0)
		return;
	enomem(walk(st, &err), &err);
	mw_err_clear(&err);
	enomem(look_up(st, MW_KEY_RCPT, MW_STR("u1@d1.test"), MAILS, &err), &err);
	enomem(look_up(st, MW_KEY_QUEUE_ID, MW_STR("Q3"), 1, &err), &err);
	q = mw_store_last(st, UINT64_MAX, &r, &err);
	enomem(q, &err);
	if (q == 1) {
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, r.id);
		q = mw_store_find_id(st, id, &r, &err);
		enomem(q, &err);
	}
	q = mw_gone_load(st, &g, &err);
	enomem(q, &err);
	q = mw_store_segment_info(st, &info, &n, &err);
	enomem(q, &err);
	for (size_t i = 0; q == 0 && i < n; i++)
		require(info[i].first_seq > 0, "segment %zu is called damaged", i + 1);
	free(info);
	q = verify(st, &res, &err);
	enomem(q, &err);
	require(q <= 0, "verify speaks of damage");
	require(q < 0 || res.contents == MAILS, "%llu contents checked",
	        (unsigned long long)res.contents);
}

static void
nothing(void)
{
}

/* Rebuild the index. */

static void
reindex_one(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	uint64_t n;
	int r = open_reader(work, &st, &err);
	if (r == 0)
		r = mw_store_reindex(st, &n, &err);
	enomem(r, &err);
}

static void
reindex_after(void)
{
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	require(open_reader(work, &st, &err) == 0, "%s", err.msg);
	require(look_up(st, MW_KEY_RCPT, MW_STR("u1@d1.test"), MAILS, &err) == 0, "%s",
	        err.msg);
	check(work, &now);
}

static void
runs(void)
{
	each("create", nothing_there, create_one, create_after);
	each("write", fresh_copy, write_one, write_after);
	each("read", nothing, read_one_way, nothing);
	each("reindex", fresh_copy, reindex_one, reindex_after);
}

/* Want of memory is not called damage, nor damage want of memory. */
static void
dictionary(void **state)
{
	(void)state;
	MW_BUF_AUTO d = {0};
	size_t len[8];
	for (size_t i = 0; i < MW_COUNT(len); i++)
		len[i] = 250;
	struct mw_str text = mw_str((const char *)content[0].p, 2000);
	assert_int_equal(mw_zdict_make(text, text.p, len, MW_COUNT(len), 3, &d), 0);
	for (int level = 0; level <= 3; level += 3) {
		uint64_t failed = 1;
		for (uint64_t n = 1; failed; n++) {
			struct mw_zdict *z = NULL;
			alloc_fail_at(n, 1);
			int r = mw_zdict_new(d.p, d.n, level, &z);
			failed = alloc_fail_off();
			assert_int_equal(r, failed ? MW_ENOMEM : 0);
			mw_zdict_free(z);
		}
		for (size_t at = 8; at < 12; at++) {
			struct mw_zdict *z = NULL;
			uint8_t was = d.p[at];
			d.p[at] = 0xff;
			assert_int_equal(mw_zdict_new(d.p, d.n, level, &z), MW_EDAMAGED);
			d.p[at] = was;
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dictionary),
	    cmocka_unit_test(plain_journal),
	    cmocka_unit_test(encrypted_journal),
	    cmocka_unit_test(journal_with_a_dictionary),
	};
	journal_runs = runs;
	return cmocka_run_group_tests(tests, setup, teardown);
}
