/* open_end_test.c - look-ups in a segment that is being written: they begin where the
 * index ends and do not read all of it, and find what a walk of the log finds, damaged or
 * not. */
#include "journal/base/util.h"
#include "journal/store/store_int.h"
#include "tests/support/dice.h"
#include "tests/support/reading.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 240,
	INDEXED = 225,
	CONTENT = 8000,
	ROUNDS = 60
};

static struct scratch place;
static char copy[100];
static struct mw_loc loc[MAILS]; /* of each */
static uint64_t len[MAILS], used;
static uint64_t state = 4711;

/* ---- a file system that counts ---- */

static struct mw_fs counting;
static uint64_t n_read;

static int64_t
count_pread(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	const struct mw_fs *posix = mw_fs_posix();
	(void)fs;
	int64_t r = posix->pread(posix, fd, p, n, off);
	n_read += r > 0 ? (uint64_t)r : 0;
	return r;
}

/* ---- a journal whose writer is not at its end ---- */

static void
refresh(void)
{
	shell("rm -rf '%s' && cp -r '%s' '%s'", copy, place.dir, copy);
}

static int
setup(void **unused)
{
	struct mw_err err = {0};
	struct mw_index *ix = NULL;
	char content[CONTENT];
	(void)unused;
	mw_store_close(scratch_make(&place));
	(void)snprintf(copy, sizeof copy, "%s/copy", place.root);
	struct mw_store *st = opened(&(struct mw_store_opts){.dir = place.dir,
	                                                     .mode = MW_STORE_WRITE,
	                                                     .no_index = true});
	uint64_t limit = 0;
	for (size_t i = 0; i < MAILS; i++) {
		char qid[20];
		(void)snprintf(qid, sizeof qid, "q%zu", i % 40);
		struct mw_mail m = {.queue_id = mw_strz(qid), .front = MW_STR("milter")};
		for (size_t k = 0; k < sizeof content; k++)
			content[k] = (char)('a' + dice_roll(&state, 26));
		struct mw_commit c = journaled(st, &m, content, sizeof content, NULL);
		limit = i == INDEXED ? c.seq : limit;
	}
	struct mw_store *rd =
	    opened(&(struct mw_store_opts){.dir = place.dir, .mode = MW_STORE_READ});
	rd->loading_gone = true;
	assert_int_equal(mw_index_open(place.dir, rd->id, 1, &ix, &err), 0);
	assert_int_equal(mw_index_catch_up(rd, ix, limit, NULL, &err), 0);
	mw_index_close(ix);
	struct mw_cursor *c = NULL;
	struct mw_record r;
	assert_int_equal(mw_cursor_new(rd, 1, &c, &err), 0);
	for (size_t i = 0; i < MAILS;) {
		assert_int_equal(mw_cursor_next(c, &r, &err), 1);
		if (r.type != MW_TYPE_MAIL)
			continue;
		len[i] = r.frame_len;
		loc[i++] = r.loc;
	}
	used = loc[MAILS - 1].offset + len[MAILS - 1];
	mw_cursor_free(c);
	mw_store_close(rd);
	refresh();
	shell("cp -r '%s' '%s.sound'", copy, copy);
	mw_store_close(st);
	shell("rm -rf '%s' && mv '%s.sound' '%s'", place.dir, copy, place.dir);
	return 0;
}

static int
teardown(void **unused)
{
	(void)unused;
	return scratch_remove(&place);
}

/* ---- what a look-up finds ---- */

struct found {
	uint64_t seq[MAILS];
	size_t n;
};

static int
note(void *arg, const struct mw_record *r)
{
	struct found *f = arg;
	assert_true(f->n < MAILS);
	f->seq[f->n++] = r->seq;
	return 0;
}

static struct mw_store *
open_copy(bool index)
{
	counting = *mw_fs_posix();
	counting.pread = count_pread;
	return opened(&(struct mw_store_opts){
	    .dir = copy, .mode = MW_STORE_READ, .fs = &counting, .no_index = !index});
}

static struct found
find(struct mw_store *st, size_t q)
{
	struct found f = {.n = 0};
	struct mw_err err = {0};
	char qid[20];
	(void)snprintf(qid, sizeof qid, "q%zu", q);
	if (mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(qid), note, &f, &err) < 0)
		fail_msg("%s", err.msg);
	return f;
}

static void
little_is_read(void **unused)
{
	(void)unused;
	refresh();
	struct mw_store *st = open_copy(true);
	n_read = 0;
	struct found f = find(st, 3);
	struct mw_open_seg *o;
	struct mw_err err = {0};
	assert_int_equal(mw_store_seg(st, loc[0].segment, &o, &err), 0);
	uint64_t by_index = n_read - (o->seg->size - used);
	assert_false(o->seg->closed);
	assert_int_equal(f.n, MAILS / 40);
	mw_store_close(st);
	st = open_copy(false);
	n_read = 0;
	assert_int_equal(find(st, 3).n, MAILS / 40);
	mw_store_close(st);
	assert_true(n_read >= used); /* the space behind it aside, */
	if (by_index > used / 3)     /* 15 records of 240, and a few pages for each hit */
		fail_msg("%llu bytes of %llu are read", (unsigned long long)by_index,
		         (unsigned long long)used);
}

/* Somewhere in one record: a bit, a sector of zeros, or all of it. */
static void
damage(size_t i)
{
	char path[200];
	uint8_t b[512] = {0};
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", copy,
	               (unsigned long long)loc[i].segment);
	int fd = open(path, O_RDWR);
	off_t at = (off_t)(loc[i].offset + dice_roll(&state, (uint32_t)len[i]));
	assert_true(fd >= 0);
	switch (dice_roll(&state, 3)) {
	case 0:
		assert_int_equal(pread(fd, b, 1, at), 1);
		b[0] ^= (uint8_t)(1U << dice_roll(&state, 8));
		assert_int_equal(pwrite(fd, b, 1, at), 1);
		break;
	case 1:
		at &= ~(off_t)511;
		assert_int_equal(pwrite(fd, b, sizeof b, at), sizeof b);
		break;
	default:
		at = (off_t)loc[i].offset;
		for (uint64_t k = 0; k < len[i]; k += 8)
			assert_int_equal(pwrite(fd, b, 8, at + (off_t)k), 8);
	}
	(void)close(fd);
}

static bool
has(const struct found *f, uint64_t seq)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->seq[i] == seq)
			return true;
	return false;
}

/* Nothing that a walk of the log finds is missed; more is found only where the index
 * knows that there was more. */
static void
as_by_a_walk(void **unused)
{
	(void)unused;
	for (int round = 0; round < ROUNDS; round++) {
		size_t hurt = dice_roll(&state, 3), least = MAILS;
		refresh();
		for (size_t k = 0; k < hurt; k++) {
			size_t i = dice_roll(&state, 2)
			               ? dice_roll(&state, MAILS)
			               : INDEXED + dice_roll(&state, MAILS - INDEXED);
			least = MW_MIN(least, i);
			damage(i);
		}
		struct mw_store *with = open_copy(true), *without = open_copy(false);
		for (size_t q = 0; q < 40; q++) {
			struct found a = find(with, q), b = find(without, q);
			for (size_t i = 0; i < b.n; i++)
				assert_true(has(&a, b.seq[i]));
			if (least > INDEXED)
				assert_int_equal(a.n, b.n);
			if (!hurt)
				assert_int_equal(a.n, MAILS / 40);
		}
		mw_store_close(with);
		mw_store_close(without);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(little_is_read),
	    cmocka_unit_test(as_by_a_walk),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
