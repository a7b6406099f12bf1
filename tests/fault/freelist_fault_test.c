/* LMDB's own list of free pages, and what its head pages say, garbled in every way, at
 * rest and under a writer at work: the index is found out and built anew, or gives the
 * right answers; it never gives wrong ones and never ends the process. And an index whose
 * sync failed is not trusted. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/index.h"
#include "tests/support/dice.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	PAGE = 4096,
	STEP = 160, /* entries to a put */
	STEPS = 14, /* before the damage */
	AFTER = 8,  /* and after it */
	GROUPS = 40,
	SEEDS = 52,
	META_AT = 16, /* in pages 0 and 1: magic, version, address, size, two trees */
	LIST_AT = META_AT + 24,
	TREE_AT = LIST_AT + 48,
	LAST_AT = TREE_AT + 48,
	ROOT_AT = 40 /* in a tree */
};

static const uint8_t journal[MW_ID_LEN] = "a test";
static char dir[80], file[120];
static uint64_t dice;
static uint32_t n_put; /* entries that are in the index */
static unsigned healed;

static uint64_t
roll(uint64_t n)
{
	return dice_roll(&dice, (uint32_t)n);
}

static void
token(uint32_t k, uint8_t out[MW_TOKEN_LEN])
{
	mw_put64be(out, (uint64_t)(k * UINT32_C(2654435761)) << 32 | k);
}

static struct mw_index *
open_index(int writable)
{
	struct mw_index *ix = NULL;
	struct mw_err err = {0};
	if (mw_index_open(dir, journal, writable, &ix, &err) < 0)
		fail_msg("%s", err.msg);
	return ix;
}

/* The next STEP entries. */
static int
put(struct mw_index *ix)
{
	static uint8_t tokens[STEP][2 * MW_TOKEN_LEN];
	struct mw_index_entry e[STEP];
	for (uint32_t i = 0; i < STEP; i++) {
		uint32_t k = n_put + i;
		token(k + 1, tokens[i]);
		token(1000000000 + k % GROUPS, tokens[i] + MW_TOKEN_LEN);
		e[i] = (struct mw_index_entry){k + 1, 1, 8192 + 64 * (uint64_t)k,
		                               tokens[i], 2};
	}
	struct mw_index_point p = {1,
	                           8192 + 64 * (uint64_t)(n_put + STEP),
	                           n_put + STEP + 1,
	                           e[STEP - 1].offset,
	                           {0}};
	int r = mw_index_put(ix, e, STEP, &p, NULL);
	if (r == 0)
		n_put += STEP;
	return r;
}

/* As the store goes on: from where the index says it is; what is garbled goes. */
static void
go_on(struct mw_index *ix, uint32_t until)
{
	for (unsigned again = 0; n_put < until;) {
		struct mw_index_point p;
		int r = mw_index_point(ix, 1, &p, NULL);
		assert_true(r >= 0);
		n_put = r == 1 ? (uint32_t)p.next_seq - 1 : 0;
		healed += r == 0;
		while (r >= 0 && n_put < until)
			r = put(ix);
		if (r >= 0)
			break;
		assert_int_equal(r, MW_EDAMAGED);
		assert_int_equal(mw_index_drop(ix, 1, NULL), 0);
		assert_true(++again < 4);
	}
}

/* Everything is found, or it is said that it is garbled: 0, MW_EDAMAGED. */
static int
ask(struct mw_index *ix, unsigned seed)
{
	static struct mw_index_hit hit[STEP * (STEPS + AFTER)];
	uint8_t t[MW_TOKEN_LEN];
	for (uint32_t k = 0; k < n_put; k += 97) {
		token(k + 1, t);
		int n = mw_index_find(ix, 1, t, 0, hit, MW_COUNT(hit), NULL);
		if (n < 0)
			return n;
		if (n != 1 || hit[0].seq != k + 1 || hit[0].offset != 8192 + 64 * k)
			fail_msg("seed %u: entry %u: %d hits", seed, k, n);
	}
	for (uint32_t g = 0; g < GROUPS; g++) {
		token(1000000000 + g, t);
		int n = mw_index_find(ix, 1, t, 0, hit, MW_COUNT(hit), NULL);
		if (n < 0)
			return n;
		if ((uint32_t)n != n_put / GROUPS)
			fail_msg("seed %u: group %u: %d hits", seed, g, n);
		for (int i = 0; i < n; i++)
			assert_int_equal(hit[i].seq, g + (uint32_t)i * GROUPS + 1);
	}
	return 0;
}

/* ---- damage ---- */

static uint64_t
get(int fd, uint64_t at)
{
	uint8_t b[8];
	assert_int_equal(pread(fd, b, 8, (off_t)at), 8);
	return mw_get64(b);
}

static void
set(int fd, uint64_t at, uint64_t v)
{
	uint8_t b[8];
	mw_put64(b, v);
	assert_int_equal(pwrite(fd, b, 8, (off_t)at), 8);
}

/* The page on which the list's entries are: of the newer head, and the offset of one
 * entry's numbers; 0: there is none. */
static uint64_t
list_entry(int fd, uint64_t head)
{
	uint64_t root = get(fd, head + LIST_AT + ROOT_AT);
	if (root == UINT64_MAX)
		return 0;
	uint8_t p[PAGE];
	if (pread(fd, p, PAGE, (off_t)(root * PAGE)) != PAGE || !(p[10] & 2))
		return 0; /* no leaf */
	unsigned n = (mw_get16(p + 12) - 16U) / 2;
	if (n == 0)
		return 0;
	unsigned node = mw_get16(p + 16 + 2 * roll(n));
	/* node: data size (4), flags (2), key size (2), key, data */
	return root * PAGE + node + 8 + mw_get16(p + node + 6);
}

static void
fill_page(int fd, uint64_t page, int how, uint64_t other)
{
	uint8_t p[PAGE];
	if (how == 1)
		assert_int_equal(pread(fd, p, PAGE, (off_t)(other * PAGE)), PAGE);
	else
		for (size_t i = 0; i < PAGE; i++)
			p[i] = how == 0 ? (uint8_t)roll(256) : 0;
	assert_int_equal(pwrite(fd, p, PAGE, (off_t)(page * PAGE)), PAGE);
}

static void
garble_entry(int fd, uint64_t at, unsigned how, uint64_t tree)
{
	uint64_t n = get(fd, at), one = at + 8 + 8 * roll(n ? n : 1);
	switch (how) {
	case 0:
		set(fd, one, tree);
		break;
	case 1:
		set(fd, one, roll(200));
		break;
	case 2:
		set(fd, at, roll(2) ? UINT64_C(1) << 60 : n + 1 + roll(300));
		break;
	case 3:
		for (uint64_t i = 0; i < n; i++)
			set(fd, at + 8 + 8 * i, n + 3 - i);
		break;
	case 4:
		set(fd, one, get(fd, at + 8));
		break;
	default:
		set(fd, one, UINT64_C(1) << (20 + roll(43)));
		break;
	}
}

static void
garble(unsigned seed)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	uint64_t newer =
	    get(fd, META_AT + PAGE + 128) > get(fd, META_AT + 128) ? PAGE : 0;
	uint64_t list = get(fd, newer + LIST_AT + ROOT_AT);
	uint64_t tree = get(fd, newer + TREE_AT + ROOT_AT);
	uint64_t at = list_entry(fd, newer);
	unsigned how = seed % 13;
	if (how < 6 && at) {
		garble_entry(fd, at, how, tree);
	} else if (how < 9 && list != UINT64_MAX) {
		fill_page(fd, list, (int)how - 6, tree);
	} else {
		for (uint64_t head = 0; head <= PAGE; head += PAGE)
			if (how == 9)
				set(fd, head + LIST_AT + ROOT_AT, tree);
			else if (how == 10)
				set(fd, head + LIST_AT + ROOT_AT, roll(100));
			else if (how == 11) /* where the file is to grow */
				set(fd, head + LAST_AT, 2 + roll(30));
			else
				set(fd, head + LIST_AT + 8 * roll(6), roll(100));
	}
	assert_int_equal(close(fd), 0);
}

/* ---- the tests ---- */

static void
begin(unsigned seed)
{
	char cmd[200];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s/index' && mkdir -p '%s/index'", dir,
	               dir);
	assert_int_equal(system(cmd), 0);
	dice = seed + 1;
	n_put = 0;
}

/* One that nothing happened to is never thrown away. */
static void
unharmed(void)
{
	begin(1);
	for (unsigned k = 1; k < 70; k++) {
		struct mw_index_point p;
		struct mw_index *ix = open_index(1);
		if (k > 1) {
			assert_int_equal(mw_index_point(ix, 1, &p, NULL), 1);
			assert_int_equal(p.next_seq, n_put + 1);
		}
		assert_int_equal(put(ix), 0);
		mw_index_close(ix);
	}
}

static void
at_rest(unsigned seed)
{
	begin(seed);
	struct mw_index *ix = open_index(1);
	go_on(ix, STEP * STEPS);
	mw_index_close(ix);
	garble(seed);
	ix = open_index(1);
	go_on(ix, STEP * (STEPS + AFTER));
	if (ask(ix, seed) < 0) {
		assert_int_equal(mw_index_drop(ix, 1, NULL), 0);
		n_put = 0;
		go_on(ix, STEP * (STEPS + AFTER));
		assert_int_equal(ask(ix, seed), 0);
	}
	mw_index_close(ix);
	ix = open_index(0);
	assert_int_equal(ask(ix, seed), 0);
	mw_index_close(ix);
}

__attribute__((unused)) static void
at_work(unsigned seed)
{
	begin(seed);
	struct mw_index *ix = open_index(1);
	go_on(ix, STEP * STEPS);
	garble(seed);
	for (unsigned k = 0; k < AFTER; k++) {
		go_on(ix, STEP * (STEPS + k + 1));
		int r = ask(ix, seed);
		if (r < 0) { /* the store walks the log then */
			assert_int_equal(r, MW_EDAMAGED);
			assert_int_equal(mw_index_drop(ix, 1, NULL), 0);
			n_put = 0;
		}
	}
	mw_index_close(ix);
	/* Whoever comes next makes it whole. */
	ix = open_index(1);
	n_put = 0;
	go_on(ix, STEP * (STEPS + AFTER));
	assert_int_equal(ask(ix, seed), 0);
	mw_index_close(ix);
}

/* fdatasync, as LMDB calls it, fails while this is set. */
static bool no_sync;

int
fdatasync(int fd)
{
	if (no_sync) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static void
sync_fails(void)
{
	char note[120];
	(void)snprintf(note, sizeof note, "%s/index/dirty", dir);
	begin(1);
	struct mw_index *ix = open_index(1);
	go_on(ix, STEP * 3);
	assert_int_equal(access(note, F_OK), 0);
	no_sync = true;
	mw_index_close(ix);
	no_sync = false;
	assert_int_equal(access(note, F_OK), 0);  /* the next boot is warned */
	assert_int_equal(access(file, F_OK), -1); /* and this one does not use it */
	struct mw_err err = {0};
	ix = open_index(1);
	assert_true(mw_index_begin(ix, &err) >= 0);
	n_put = 0;
	go_on(ix, STEP * 3);
	mw_index_close(ix);
	assert_int_equal(access(note, F_OK), -1);
	ix = open_index(0);
	assert_int_equal(ask(ix, 0), 0);
	mw_index_close(ix);
}

const char *__lsan_default_suppressions(void);
const char *
__lsan_default_suppressions(void)
{
	return "leak:mdb_env_open\nleak:mdb_cursor_open\nleak:mdb_txn_begin\n"
	       "leak:mw_kv_read\nleak:mw_kv_write\nleak:mw_kv_check\n";
}

/* One test: cmocka takes SIGSEGV and SIGBUS for itself at the start of each. */
static void
free_list(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "%s/mw-free-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(file, sizeof file, "%s/index/00000000.mdb", dir);
	unharmed();
	sync_fails();
	for (unsigned seed = 0; seed < SEEDS; seed++)
		at_rest(seed);
	/* once each for the beginning, and the two of sync_fails */
	print_message("at rest: built anew %u times\n", healed - SEEDS - 2);
	assert_true(healed - SEEDS - 2 > SEEDS / 2);
#ifndef __SANITIZE_ADDRESS__
	/* LMDB itself reads what it has freed when its list of free pages changes under
	 * its hands; the sanitizer would stop there, before anybody can notice damage. */
	for (unsigned seed = 0; seed < SEEDS; seed++)
		at_work(seed);
#endif
	char cmd[100];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	assert_int_equal(system(cmd), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(free_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
