/* index_test.c - the index gives what a list of all entries gives, however they were put,
 * and names what it lacks; several processes may be at it. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/index.h"
#include "journal/index/kv.h"
#include "tests/support/dice.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	RECORDS = 10000,
	TOKENS = 9,
	KINDS = 400, /* so many different tokens that recur */
	PAGE = 97,
	ROUNDS = 40
};

static char dir[PATH_MAX];
static const uint8_t journal[MW_ID_LEN] = "0123456789abcde";
static struct mw_index_entry entry[RECORDS];
static uint8_t token[RECORDS][TOKENS][MW_TOKEN_LEN];
static uint64_t dice = 5;

static unsigned
roll(unsigned n)
{
	return dice_roll(&dice, n);
}

/* Some tokens stand in every record, some in many, most in one; some begin alike. */
static void
token_for(uint8_t out[MW_TOKEN_LEN], unsigned record, unsigned k)
{
	uint64_t v = k < 2 ? k : k < 5 ? 10 + roll(KINDS) : 1000 + record * 10 + k;
	v = (v + 1) * 0x9e3779b97f4a7c15ULL;
	if (k == 4)
		v &= 0xffffffff00000000ULL;
	if (k == 5)
		v = 0xffffffff00000000ULL | record % 50;
	if (k == 6)
		v = record % 3000;
	mw_put64be(out, v);
}

static void
make_entries(void)
{
	uint64_t seq = 5, segment = 1, offset = 8192;
	for (unsigned i = 0; i < RECORDS; i++) {
		unsigned n = roll(40) ? TOKENS : 0;
		for (unsigned k = 0; k < TOKENS; k++)
			token_for(token[i][k], i, k);
		entry[i] = (struct mw_index_entry){seq, segment, offset, token[i][0], n};
		seq += roll(100) ? 1 : 1 + roll(1000);
		offset += 8 * (1 + roll(roll(50) ? 500 : 1 << 26));
		if (!roll(1000)) {
			segment += 1 + roll(3);
			offset = 8192;
		}
	}
	assert_true(segment <= MW_INDEX_SPAN);
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

static void
put_all(struct mw_index *ix, unsigned most)
{
	struct mw_err err = {0};
	for (unsigned i = 0; i < RECORDS;) {
		unsigned n = MW_MIN(1 + roll(most), RECORDS - i);
		const struct mw_index_entry *last = &entry[i + n - 1];
		struct mw_index_point p = {.segment = last->segment,
		                           .offset = last->offset + 8,
		                           .next_seq = last->seq + 1,
		                           .last = last->offset};
		if (mw_index_put(ix, entry + i, n, &p, &err) < 0)
			fail_msg("%u: %s", i, err.msg);
		i += n;
	}
}

/* All places of a token, by pages, against the list. */
static int
same(struct mw_index *ix, const uint8_t t[MW_TOKEN_LEN], uint64_t from)
{
	struct mw_index_hit hit[PAGE];
	struct mw_err err = {0};
	int n = 0, k = 0;
	for (unsigned i = 0; i < RECORDS; i++) {
		bool has = false;
		for (unsigned j = 0; entry[i].seq >= from && j < entry[i].n_tokens; j++)
			has = has || memcmp(token[i][j], t, 4) == 0;
		if (!has)
			continue;
		if (k == n) {
			n = mw_index_find(ix, 1, t, from, hit, PAGE, &err);
			if (n < 0)
				return n;
			k = 0;
			if (n == 0)
				fail_msg("record %llu is not found",
				         (unsigned long long)entry[i].seq);
		}
		assert_int_equal(hit[k].seq, entry[i].seq);
		assert_int_equal(hit[k].segment, entry[i].segment);
		assert_int_equal(hit[k].offset, entry[i].offset);
		from = hit[k++].seq + 1;
	}
	assert_int_equal(k, n);
	return mw_index_find(ix, 1, t, from, hit, PAGE, &err);
}

static void
ask(struct mw_index *ix)
{
	static const uint8_t none[MW_TOKEN_LEN] = {0x80, 1, 2, 3},
	                     high[MW_TOKEN_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff};
	assert_int_equal(same(ix, none, 0), 0);
	assert_int_equal(same(ix, high, 0), 0);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(same(ix, token[roll(RECORDS)][i % TOKENS],
		                      i % 3 ? 0 : roll(RECORDS)),
		                 0);
}

static unsigned
lacking(struct mw_index *ix, unsigned from, unsigned n)
{
	static uint8_t bad[RECORDS];
	struct mw_err err = {0};
	unsigned k = 0;
	int r = mw_index_audit(ix, 1, entry + from, n, bad, &err);
	assert_true(r == 0 || r == MW_EDAMAGED);
	for (unsigned i = 0; i < n; i++)
		k += r < 0 || bad[i];
	return k;
}

static void
as_a_list(void **state)
{
	(void)state;
	static const unsigned most[] = {40, 900, RECORDS};
	for (size_t i = 0; i < MW_COUNT(most); i++) {
		struct mw_index *ix = open_index(1);
		put_all(ix, most[i]);
		ask(ix);
		mw_index_close(ix);
		ix = open_index(0);
		struct mw_index_point p;
		assert_int_equal(mw_index_point(ix, 1, &p, NULL), 1);
		assert_int_equal(p.next_seq, entry[RECORDS - 1].seq + 1);
		ask(ix);
		assert_int_equal(lacking(ix, 0, RECORDS), 0);
		assert_int_equal(lacking(ix, 4321, 678), 0);
		mw_index_close(ix);
		ix = open_index(1);
		assert_int_equal(mw_index_point(ix, 1, &p, NULL), 1); /* it is whole */
		if (i + 1 < MW_COUNT(most))
			assert_int_equal(mw_index_wipe(ix, NULL), 0);
		mw_index_close(ix);
	}
}

/* What the index does not say, or says otherwise, is named. */
static void
audit_finds(void **state)
{
	(void)state;
	struct mw_index *ix = open_index(0);
	uint64_t offset = entry[77].offset;
	while (entry[500].n_tokens == 0 || entry[501].n_tokens == 0)
		fail_msg("choose others");
	entry[77].offset += 8;
	token[500][3][0] ^= 1;
	token[501][8][3] ^= 1;
	entry[900].seq--; /* is not there any more */
	assert_int_equal(lacking(ix, 0, RECORDS), 4);
	entry[77].offset = offset;
	token[500][3][0] ^= 1;
	token[501][8][3] ^= 1;
	entry[900].seq++;
	assert_int_equal(lacking(ix, 0, RECORDS), 0);
	mw_index_close(ix);
}

/* A copy with one byte changed takes the file's place. */
static void
flip(const char *path, off_t at)
{
	char cmd[3 * PATH_MAX], copy[PATH_MAX];
	uint8_t b;
	(void)snprintf(copy, sizeof copy, "%.4000s.new", path);
	(void)snprintf(cmd, sizeof cmd, "cp '%s' '%s'", path, copy);
	assert_int_equal(system(cmd), 0);
	int fd = open(copy, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 0x10;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	assert_int_equal(close(fd), 0);
	assert_int_equal(rename(copy, path), 0);
}

/* A byte that is wrong is an error of some look-ups, and never a wrong answer; the next
 * writer finds it. */
static void
garbled(void **state)
{
	(void)state;
	char path[PATH_MAX];
	struct stat sb;
	unsigned found = 0;
	(void)snprintf(path, sizeof path, "%.4000s/index/00000000.mdb", dir);
	assert_int_equal(stat(path, &sb), 0);
	for (off_t at = 3 * 4096; at < sb.st_size; at += 4096 * 7 + 513) {
		flip(path, at);
		struct mw_index *ix = open_index(0);
		for (unsigned i = 0; i < TOKENS; i++)
			(void)!same(ix, token[3000][i], 0);
		mw_index_close(ix);
		flip(path, at);
		flip(path, at); /* another file: a map led astray stays open */
		ix = open_index(0);
		found += lacking(ix, 0, 900) > 0;
		mw_index_close(ix);
		flip(path, at);
	}
	assert_true(found > 0);
}

/* No program that is started gets a way into the index with it. */
static void
not_inherited(void **state)
{
	(void)state;
	char to[PATH_MAX], link[80];
	unsigned n = 0;
	struct mw_index *ix = open_index(1);
	struct mw_index_entry e0 = {entry[RECORDS - 1].seq + 1,
	                            entry[RECORDS - 1].segment,
	                            entry[RECORDS - 1].offset + 64, token[0][0], TOKENS};
	struct mw_index_point p = {.segment = e0.segment,
	                           .offset = e0.offset + 8,
	                           .next_seq = e0.seq + 1,
	                           .last = e0.offset};
	struct mw_err err = {0};
	if (mw_index_put(ix, &e0, 1, &p, &err) < 0)
		fail_msg("%s", err.msg);
	DIR *d = opendir("/proc/self/fd");
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		(void)snprintf(link, sizeof link, "/proc/self/fd/%.20s", e->d_name);
		ssize_t k = readlink(link, to, sizeof to - 1);
		to[MW_MAX(k, 0)] = '\0';
		if (strncmp(to, dir, strlen(dir)) != 0)
			continue;
		n++;
		if (!(fcntl((int)strtol(e->d_name, NULL, 10), F_GETFD) & FD_CLOEXEC))
			fail_msg("%s would be inherited", to);
	}
	(void)closedir(d);
	assert_true(n > 0);
	mw_index_close(ix);
}

/* One record after what is there, and it is found. */
static int
one_more(struct mw_index *ix, struct mw_err *err)
{
	struct mw_index_point p;
	struct mw_index_hit hit[2];
	int r = mw_index_point(ix, 1, &p, err);
	uint64_t seq = r == 1 ? p.next_seq : 1;
	const uint8_t *t = token[seq % RECORDS][8];
	struct mw_index_entry e = {seq, 1, 8 * seq, t, 1};
	p = (struct mw_index_point){.segment = 1, .offset = 8 * seq, .next_seq = seq + 1};
	if (r >= 0)
		r = mw_index_put(ix, &e, 1, &p, err);
	if (r >= 0)
		r = mw_index_find(ix, 1, t, seq, hit, 2, err);
	return r < 0 ? r : r == 1 && hit[0].seq == seq ? 0 : MW_EBUG;
}

enum role {
	DAEMON,  /* has it open all the time */
	REINDEX, /* wipes it and begins again */
	READER
};

static atomic_bool *over; /* shared by them */

static void
take_part(enum role role)
{
	struct mw_err err = {0};
	struct mw_index *ix = role == DAEMON ? open_index(1) : NULL;
	struct mw_index_hit hit[2];
	int r = 0;
	for (int i = 0; r >= 0 && (role == REINDEX ? i < ROUNDS : !*over); i++) {
		if (role != DAEMON)
			ix = open_index(role == REINDEX);
		if (role == READER) {
			r = mw_index_find(ix, 1, token[1][8], 0, hit, 2, &err);
		} else {
			while ((r = mw_index_begin(ix, &err)) == MW_ELOCKED)
				(void)usleep(1000);
			if (r >= 0 && role == REINDEX)
				r = mw_index_wipe(ix, &err);
			for (int k = 0; r >= 0 && k < 9; k++)
				r = one_more(ix, &err);
			mw_index_end(ix);
		}
		if (role != DAEMON)
			mw_index_close(ix);
	}
	if (r < 0)
		(void)fprintf(stderr, "%d: %d %s\n", (int)role, r, err.msg);
	_exit(r < 0);
}

/* Several processes at one index, one of which throws it away again and again: each finds
 * what it has put, and none meets a half of it. */
static void
processes(void **state)
{
	(void)state;
	pid_t pid[5];
	int status;
	struct mw_index *ix = open_index(1);
	assert_int_equal(mw_index_wipe(ix, NULL), 0);
	mw_index_close(ix);
	const enum role role[] = {REINDEX, REINDEX, DAEMON, READER, READER};
	over = mmap(NULL, sizeof *over, PROT_READ | PROT_WRITE,
	            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(over != MAP_FAILED);
	for (size_t i = 0; i < MW_COUNT(role); i++) {
		pid[i] = fork();
		assert_true(pid[i] >= 0);
		if (pid[i] == 0)
			take_part(role[i]);
	}
	unsigned bad = 0;
	for (size_t i = 0; i < MW_COUNT(role); i++) {
		*over = role[i] != REINDEX;
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		bad += status != 0;
	}
	assert_int_equal(bad, 0);
	assert_int_equal(munmap(over, sizeof *over), 0);
}

/* ---- what a merge moves ---- */

struct shape { /* of a partition: records and entries of each run */
	uint32_t n, records[100], entries[100];
};

static int
read_shape(void *arg, struct mw_kv_txn *t)
{
	struct shape *s = arg;
	struct mw_str v;
	if (mw_kv_txn_get(t, mw_str("", 1), &v) != 1)
		return MW_EDAMAGED;
	const uint8_t *p = (const uint8_t *)v.p;
	s->n = mw_get32(p + 81); /* FORMAT.md §9 */
	for (uint32_t i = 0; i < s->n && i < 100; i++) {
		s->records[i] = mw_get32(p + 85 + 28 * (size_t)i + 4);
		s->entries[i] = mw_get32(p + 85 + 28 * (size_t)i + 8);
	}
	return 0;
}

static struct shape
shape_of(void)
{
	char path[PATH_MAX];
	struct mw_kv *kv = NULL;
	struct mw_err err = {0};
	struct shape s = {0};
	(void)snprintf(path, sizeof path, "%.4000s/index/00000000.mdb", dir);
	assert_int_equal(mw_kv_open(path, MW_KV_READ, &kv, &err), 0);
	assert_int_equal(mw_kv_read(kv, read_shape, &s, &err), 0);
	mw_kv_close(kv);
	return s;
}

static void
put_one(struct mw_index *ix, uint64_t seq, const uint8_t *tokens, uint32_t n)
{
	struct mw_err err = {0};
	struct mw_index_entry e = {seq, 1, 8192 + seq * 1024, tokens, n};
	struct mw_index_point p = {.segment = 1,
	                           .offset = e.offset + 8,
	                           .next_seq = seq + 1,
	                           .last = e.offset};
	if (mw_index_put(ix, &e, 1, &p, &err) < 0)
		fail_msg("%s", err.msg);
}

/* A record with very many tokens is as much work to merge as thousands of others: it is
 * not written again with every few small ones. */
static void
large_records_stay(void **state)
{
	(void)state;
	enum {
		LARGE = 600000
	};
	struct mw_err err = {0};
	struct mw_index_hit hit[2];
	MW_AUTOFREE uint8_t *many = calloc(LARGE, MW_TOKEN_LEN);
	assert_non_null(many);
	for (uint64_t i = 0; i < LARGE; i++)
		mw_put64be(many + i * MW_TOKEN_LEN, (i + 1) * 0x9e3779b97f4a7c15ULL);
	struct mw_index *ix = open_index(1);
	assert_int_equal(mw_index_wipe(ix, &err), 0);
	put_one(ix, 1, many, LARGE);
	for (uint64_t seq = 2; seq < 66; seq++)
		put_one(ix, seq, many + seq * MW_TOKEN_LEN, 5);
	mw_index_close(ix);
	struct shape s = shape_of();
	assert_int_equal(s.n, 2);
	assert_int_equal(s.records[0], 1);
	assert_true(s.entries[0] > LARGE - 1000);
	assert_int_equal(s.records[1], 64);
	ix = open_index(0);
	assert_int_equal(mw_index_find(ix, 1, many + (size_t)3 * MW_TOKEN_LEN, 0, hit, 2,
	                               &err),
	                 2);
	assert_int_equal(hit[0].seq, 1);
	assert_int_equal(hit[1].seq, 2);
	mw_index_close(ix);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "%s/mw-index-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(dir));
	char sub[PATH_MAX];
	(void)snprintf(sub, sizeof sub, "%.4000s/index", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	make_entries();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[PATH_MAX + 20];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

/* Who was refused takes no note away: the other's maps are not on disk yet. */
static void
the_note_is_the_writers(void **state)
{
	(void)state;
	char note[PATH_MAX + 16];
	struct mw_err err = {0};
	(void)snprintf(note, sizeof note, "%.4000s/index/dirty", dir);
	struct mw_index *daemon = open_index(1);
	assert_true(mw_index_begin(daemon, &err) >= 0);
	struct mw_index *other = open_index(1);
	assert_int_equal(mw_index_begin(other, &err), MW_ELOCKED);
	mw_index_end(daemon);
	mw_index_close(other);
	assert_int_equal(access(note, F_OK), 0);
	other = open_index(1);
	assert_true(mw_index_begin(other, &err) >= 0);
	mw_index_close(other);
	assert_int_equal(access(note, F_OK), -1);
	assert_true(mw_index_begin(daemon, &err) >= 0);
	assert_int_equal(access(note, F_OK), 0);
	mw_index_close(daemon);
	assert_int_equal(access(note, F_OK), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_a_list),
	    cmocka_unit_test(audit_finds),
	    cmocka_unit_test(garbled),
	    cmocka_unit_test(not_inherited),
	    cmocka_unit_test(processes),
	    cmocka_unit_test(large_records_stay),
	    cmocka_unit_test(the_note_is_the_writers),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
