/* salvage_test.c - where slots are wiped or segments go, what the index had of other
 * segments is taken over, not read again; and what it then says is what the log has. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/index.h"
#include "journal/store/store_int.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	SEGMENTS = 6,
	EACH = 700, /* records of a segment */
	TOKENS = 3,
	ROUNDS = 24,
	MOST = 4000
};

static char dir[PATH_MAX];
static const uint8_t journal[MW_ID_LEN] = "salvaged";

static int
setup(void **state)
{
	(void)state;
	journal_make(dir, sizeof dir, "salvage");
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	journal_remove(dir);
	return 0;
}

static bool
found(struct mw_index *ix, const uint8_t *token, uint64_t segment, uint64_t seq)
{
	struct mw_index_hit hit[64];
	bool yes = false;
	int n = mw_index_find(ix, segment, token, 0, hit, MW_COUNT(hit), NULL);
	assert_true(n >= 0);
	for (int i = 0; i < n; i++)
		yes = yes || (hit[i].seq == seq && hit[i].segment == segment);
	return yes;
}

/* ---- an index alone ---- */

static uint8_t tokens[SEGMENTS * EACH][TOKENS][8];
static struct mw_index_entry entry[SEGMENTS * EACH];
static unsigned asked;
static uint64_t asked_first, asked_last;

static void
put_all(struct mw_index *ix)
{
	uint64_t dice = 3;
	for (size_t i = 0; i < SEGMENTS * EACH; i++) {
		for (size_t k = 0; k < TOKENS; k++)
			mw_put64(tokens[i][k], dice_next(&dice) ^ dice >> 31);
		entry[i] =
		    (struct mw_index_entry){i + 1, i / EACH + 1, 8192 + i % EACH * 512,
		                            tokens[i][0], TOKENS};
	}
	for (size_t s = 0; s < SEGMENTS; s++) {
		const struct mw_index_entry *e = &entry[s * EACH];
		struct mw_index_point p = {s + 1,
		                           e[EACH - 1].offset + 512,
		                           e[EACH - 1].seq + 1,
		                           e[EACH - 1].offset,
		                           {0}};
		assert_int_equal(mw_index_put(ix, e, EACH, &p, NULL), 0);
	}
}

/* The log has every other record of what was asked for, without tokens. */
static int
half(void *arg, const struct mw_index_hit *first, uint64_t last_seq,
     const struct mw_index_entry **ret, size_t *ret_n, struct mw_err *err)
{
	static struct mw_index_entry e[EACH];
	size_t n = 0;
	(void)err;
	asked++;
	asked_first = first->seq;
	asked_last = last_seq;
	for (uint64_t seq = first->seq; arg && seq <= last_seq; seq += 2) {
		e[n] = entry[seq - 1];
		e[n++].n_tokens = 0;
	}
	*ret = e;
	*ret_n = n;
	return 0;
}

static bool
no(void *arg)
{
	(void)arg;
	return false;
}

static bool
yes(void *arg)
{
	(void)arg;
	return true;
}

static void
one_segment(bool stays)
{
	static const uint64_t changed[] = {3, 77};
	struct mw_index *ix = NULL;
	struct mw_index_point p;
	assert_int_equal(mw_index_open(dir, journal, 1, &ix, NULL), 0);
	assert_true(mw_index_begin(ix, NULL) >= 0);
	put_all(ix);
	struct mw_index_salvage how = {
	    .segment = changed, .n = 2, .again = half, .stopped = no, .arg = &p};
	how.from = -1;
	assert_int_equal(mw_index_forget(dir, 1, &how.from, NULL), 0);
	how.arg = stays ? &p : NULL;
	assert_true(how.from >= 0);
	asked = 0;
	assert_int_equal(mw_index_drop(ix, 1, NULL), 0);
	how.stopped = yes;
	assert_true(mw_index_salvage(ix, 1, &how, NULL) < 0);
	how.stopped = no;
	assert_int_equal(mw_index_salvage(ix, 1, &how, NULL), 1);
	assert_int_equal(mw_index_take(ix, 1), 0);
	(void)close(how.from);
	assert_int_equal(asked, 1);
	assert_int_equal(asked_first, 2 * EACH + 1);
	assert_int_equal(asked_last, 3 * EACH);
	assert_int_equal(mw_index_point(ix, 1, &p, NULL), 1);
	assert_int_equal(p.next_seq, SEGMENTS * EACH + 1);
	for (size_t i = 0; i < SEGMENTS * EACH; i++)
		for (size_t k = 0; k < TOKENS; k++)
			assert_int_equal(found(ix, tokens[i][k], entry[i].segment,
			                       entry[i].seq),
			                 entry[i].segment != 3);
	mw_index_close(ix);
	/* another writer looks through it, and goes on with it */
	assert_int_equal(mw_index_open(dir, journal, 1, &ix, NULL), 0);
	assert_true(mw_index_begin(ix, NULL) >= 0);
	struct mw_index_entry more = {SEGMENTS * EACH + 9, SEGMENTS, 4096000,
	                              tokens[0][0], 1};
	p.next_seq = more.seq + 1;
	assert_int_equal(mw_index_put(ix, &more, 1, &p, NULL), 0);
	assert_true(found(ix, tokens[0][0], SEGMENTS, more.seq));
	assert_true(found(ix, tokens[0][0], 1, 1));
	mw_index_close(ix);
}

static void
changed_segment(void **state)
{
	(void)state;
	one_segment(true);
}

static void
lost_segment(void **state)
{
	(void)state;
	one_segment(false);
}

/* What is garbled is not taken over. */
static void
garbled(void **state)
{
	static const uint64_t changed[] = {3};
	struct mw_index *ix = NULL;
	char path[PATH_MAX];
	uint64_t dice = 11;
	unsigned bad = 0;
	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		assert_int_equal(mw_index_open(dir, journal, 1, &ix, NULL), 0);
		assert_true(mw_index_begin(ix, NULL) >= 0);
		assert_int_equal(mw_index_wipe(ix, NULL), 0);
		put_all(ix);
		mw_index_close(ix);
		(void)snprintf(path, sizeof path, "%.4000s/index/00000000.mdb", dir);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		off_t size = lseek(fd, 0, SEEK_END);
		uint8_t noise = (uint8_t)(dice_next(&dice) >> 40);
		off_t at = (off_t)(dice_next(&dice) >> 20) % (size - 8192) + 8192;
		assert_int_equal(pwrite(fd, &noise, 1, at), 1);
		(void)close(fd);
		assert_int_equal(mw_index_open(dir, journal, 1, &ix, NULL), 0);
		assert_true(mw_index_begin(ix, NULL) >= 0);
		struct mw_index_salvage how = {.segment = changed,
		                               .n = 1,
		                               .again = half,
		                               .stopped = no};
		how.from = -1;
		assert_int_equal(mw_index_forget(dir, 1, &how.from, NULL), 0);
		int r = mw_index_salvage(ix, 1, &how, NULL);
		(void)close(how.from);
		bad += r != 1;
		if (r == 1)
			assert_int_equal(mw_index_take(ix, 1), 0);
		for (size_t i = 0; r == 1 && i < SEGMENTS * EACH; i++)
			if (entry[i].segment != 3)
				assert_true(found(ix, tokens[i][0], entry[i].segment,
				                  entry[i].seq));
		mw_index_close(ix);
	}
	assert_in_range(bad, 10, 59);
}

/* ---- a log, and its index ---- */

static struct one {
	uint64_t seq;
	struct mw_loc loc;
	uint8_t token[TOKENS][8];
	bool wiped, gone;
} one[MOST];
static size_t n_one;
static uint8_t id[MW_ID_LEN];

static struct mw_store *
writer(void)
{
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_WRITE};
	return opened(&o);
}

static void
append(struct mw_store *st, uint64_t *dice)
{
	MW_ENTRY_AUTO *e = NULL;
	struct mw_commit c;
	struct one *x = &one[n_one++];
	assert_int_equal(mw_entry_new(st, MW_TYPE_MARK, &e, NULL), 0);
	for (size_t i = 0; i < TOKENS; i++) {
		mw_put64(x->token[i], dice_next(dice) ^ *dice >> 31);
		mw_buf_put(&e->tokens, x->token[i], 8);
	}
	assert_int_equal(mw_entry_finish(e, 1000, "\xa0", 1, NULL), 0);
	assert_int_equal(mw_store_append(st, e, &c, NULL), 0);
	x->seq = c.seq;
	x->loc = c.loc;
}

static void
wipe_some(struct mw_store *st, uint64_t *dice)
{
	struct mw_wipe_at p[8];
	struct one *first = &one[dice_roll(dice, (uint32_t)n_one)];
	size_t n = 0;
	struct mw_err err = {0};
	for (struct one *x = first; x < one + n_one && n < MW_COUNT(p); x++) {
		if (x->gone || x->loc.segment != first->loc.segment)
			continue;
		x->wiped = true;
		p[n++] = (struct mw_wipe_at){x->loc.offset, x->seq};
	}
	if (n)
		assert_int_equal(mw_store_wipe(st, first->loc.segment, p, n, &err), 0);
}

static void
remove_one(struct mw_store *st, uint64_t *dice)
{
	const struct one *first = &one[dice_roll(dice, (uint32_t)n_one / 2 + 1)];
	uint64_t segment = first->loc.segment;
	if (segment == one[n_one - 1].loc.segment)
		return;
	assert_int_equal(mw_store_remove(st, &segment, 1, NULL), 0);
	for (size_t i = 0; i < n_one; i++)
		one[i].gone = one[i].gone || one[i].loc.segment == segment;
}

static void
agree(void)
{
	struct mw_index *ix = NULL;
	struct mw_index_point p = {0};
	uint64_t last = one[n_one - 1].loc.segment;
	assert_int_equal(mw_index_open(dir, id, 0, &ix, NULL), 0);
	assert_int_equal(mw_index_point(ix, last, &p, NULL), 1);
	assert_true(p.next_seq > one[n_one - 1].seq);
	for (size_t i = 0; i < n_one; i++)
		for (size_t k = 0; k < TOKENS; k++)
			assert_int_equal(found(ix, one[i].token[k], one[i].loc.segment,
			                       one[i].seq),
			                 !one[i].wiped && !one[i].gone);
	mw_index_close(ix);
}

/* Whatever is wiped or removed, and whenever the writer ends. */
static void
any_order(void **state)
{
	uint64_t dice = 5;
	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct mw_store *st = writer();
		for (unsigned k = dice_roll(&dice, 4); k < 6; k++) {
			for (unsigned i = dice_roll(&dice, 30); i < 32; i++)
				append(st, &dice);
			assert_int_equal(mw_store_roll(st, NULL), 0);
			for (unsigned i = dice_roll(&dice, 4); i < 4; i++)
				wipe_some(st, &dice);
			if (dice_roll(&dice, 2))
				remove_one(st, &dice);
		}
		append(st, &dice);
		memcpy(id, mw_store_id(st), sizeof id);
		mw_store_close(st);
		agree();
	}
}

/* ---- a writer that ends does not wait for it ---- */

static struct mw_fs slow_fs;
static struct mw_clock leaping;
static atomic_bool slow, leaps;
static atomic_uint slow_reads;
static atomic_llong leapt_us;

static int64_t
slow_pread(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	char name[16] = "";
	(void)fs;
	if (slow && pthread_getname_np(pthread_self(), name, sizeof name) == 0 &&
	    strcmp(name, "mw-index") == 0) {
		(void)usleep(50000);
		slow_reads++;
	}
	return mw_fs_posix()->pread(mw_fs_posix(), fd, p, n, off);
}

/* Half a minute between any two looks. */
static int64_t
leap(const struct mw_clock *c)
{
	(void)c;
	if (leaps)
		leapt_us += 30000000;
	return mw_clock_system()->mono_us(mw_clock_system()) + leapt_us;
}

static void
an_end_in_time(void **state)
{
	enum {
		SEGS = 40
	};
	static struct mw_wipe_at place[SEGS];
	uint64_t segment[SEGS], dice = 7;
	(void)state;
	slow_fs = *mw_fs_posix();
	slow_fs.pread = slow_pread;
	slow_fs.at_hand = NULL;
	leaping = *mw_clock_system();
	leaping.mono_us = leap;
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &slow_fs,
	                          .clock = &leaping};
	struct mw_store *st = opened(&o);
	for (unsigned i = 0; i < SEGS; i++) {
		append(st, &dice);
		place[i] =
		    (struct mw_wipe_at){one[n_one - 1].loc.offset, one[n_one - 1].seq};
		segment[i] = one[n_one - 1].loc.segment;
		append(st, &dice);
		assert_int_equal(mw_store_roll(st, NULL), 0);
	}
	mw_store_close(st);
	st = opened(&o); /* and so its index has all */
	slow = true;
	for (unsigned i = 0; i < SEGS; i++)
		assert_int_equal(mw_store_wipe(st, segment[i], &place[i], 1, NULL), 0);
	slow_reads = 0;
	leaps = true;
	mw_store_close(st);
	assert_true(slow_reads <= 20); /* all of it would be some six for each */
	slow = leaps = false;
	n_one = 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(an_end_in_time, setup, teardown),
	    cmocka_unit_test_setup_teardown(changed_segment, setup, teardown),
	    cmocka_unit_test_setup_teardown(lost_segment, setup, teardown),
	    cmocka_unit_test_setup_teardown(garbled, setup, teardown),
	    cmocka_unit_test_setup_teardown(any_order, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
