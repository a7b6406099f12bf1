/* What the store finds, with its index, without it, and with one that is garbled: by
 * recipient, by the beginning of an ID, and what refers to a mail. MW_TEST_THREADS */
#include "tests/support/numbered.h"

#include "journal/base/util.h"
#include "journal/record/outcome.h"
#include "journal/record/retire.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int
give_up(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return MW_EDAMAGED;
}

static void
index_is_a_cache(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	for (unsigned k = 0; k < 60; k++)
		append(st, k);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	struct found one, two;
	find_rcpt(rd, &one);
	assert_int_equal(one.n, 12);
	mw_store_close(rd);
	mw_store_close(st);

	char ix[PATH_MAX];
	(void)snprintf(ix, sizeof ix, "%.4000s/index/00000000.mdb", b->journal);
	struct stat sb;
	assert_int_equal(stat(ix, &sb), 0);
	rd = open_store(b, MW_STORE_READ);
	find_rcpt(rd, &two); /* from the index */
	assert_int_equal(one.n, two.n);
	assert_memory_equal(one.seq, two.seq, one.n * sizeof one.seq[0]);
	mw_store_close(rd);

	/* What the caller's function says is the answer, by index and by walk. */
	struct mw_err err = {0};
	for (int k = 0; k < 2; k++) {
		unsigned calls = 0;
		rd = open_store(b, MW_STORE_READ);
		assert_int_equal(mw_store_find(rd, MW_KEY_RCPT,
		                               MW_STR("user2@example.test"), give_up,
		                               &calls, &err),
		                 MW_EDAMAGED);
		assert_int_equal(calls, 1);
		mw_store_close(rd);
		if (k == 0)
			assert_int_equal(truncate(ix, 5000), 0); /* garbled */
	}

	rd = open_store(b, MW_STORE_READ);
	find_rcpt(rd, &two);
	assert_int_equal(one.n, two.n);
	mw_store_close(rd);

	shell("rm -rf '%s'", ix); /* gone */
	rd = open_store(b, MW_STORE_READ);
	find_rcpt(rd, &two);
	assert_int_equal(one.n, two.n);
	uint64_t n = 0;
	assert_int_equal(mw_store_reindex(rd, &n, &err), 0);
	assert_true(n >= 60);
	find_rcpt(rd, &two);
	assert_int_equal(one.n, two.n);
	mw_store_close(rd);
}

static void
id_prefixes(void **state)
{
	struct box *b = *state;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = entry_of(st, 1);
	char id[MW_ID_TEXT + 1];
	mw_id_text(id, mw_entry_id(e));
	struct mw_commit c;
	assert_int_equal(mw_store_append(st, e, &c, &err), 0);
	for (unsigned k = 2; k < 12; k++)
		append(st, k);
	struct mw_store *rd = open_store(b, MW_STORE_READ);
	struct mw_record r;
	for (size_t n = MW_ID_TEXT; n >= 7; n -= n > 12 ? 15 : 1) {
		id[n] = '\0';
		if (mw_store_find_id(rd, id, &r, &err) < 0)
			fail_msg("find %s: %s", id, err.msg);
		assert_int_equal(r.seq, c.seq);
	}
	assert_int_equal(mw_store_find_id(rd, "zzzzzzzzzzz", &r, &err), MW_ENOTFOUND);
	mw_store_close(rd);
	mw_store_close(st);
}

static int
count_type(void *arg, const struct mw_record *r)
{
	unsigned *n = arg;
	n[r->type == MW_TYPE_OUTCOME || r->type == MW_TYPE_RESTORE]++;
	return 0;
}

/* Whoever looks for a mail finds the outcomes that speak of it, and no others. */
static void
outcomes_refer_to_their_mails(void **arg)
{
	struct box *b = *arg;
	struct mw_store *st = open_store(b, MW_STORE_WRITE);
	struct mw_outcome v[2] = {{.seq = 1, .done = true}, {.seq = 2, .done = true}};
	struct mw_outcomes o = {.time_us = 1, .v = v, .n = 2};
	uint8_t other[MW_ID_LEN];
	struct mw_commit c;
	struct mw_err err = {0};
	MW_BUF_AUTO cb = {0};
	mw_id_new(v[0].id);
	mw_id_new(v[1].id);
	mw_id_new(other);
	uint8_t back[1][MW_ID_LEN];
	mw_id_new(back[0]);
	struct mw_restore x = {.id = back, .n_id = 1};
	assert_int_equal(mw_restore_encode(&x, &cb), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_RESTORE, 5, cb.p, cb.n, &c, &err), 0);
	mw_buf_clear(&cb);
	assert_int_equal(mw_outcomes_encode(&o, &cb), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_OUTCOME, 5, cb.p, cb.n, &c, &err), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_OUTCOME, 5, "junk", 4, &c, &err), 0);
	const uint8_t *const ids[] = {v[0].id, v[1].id, back[0], other};
	for (unsigned i = 0; i < 4; i++) {
		unsigned n[2] = {0};
		struct mw_str id = {(const char *)ids[i], 6};
		assert_int_equal(mw_store_find(st, MW_KEY_ID, id, count_type, n, &err),
		                 0);
		assert_int_equal(n[0], 0);
		assert_int_equal(n[1], i < 3);
	}
	mw_store_close(st);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, numbered_setup, numbered_teardown)
	    T(index_is_a_cache),
	    T(id_prefixes),
	    T(outcomes_refer_to_their_mails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
