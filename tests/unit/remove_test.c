/* Removing what can fail on the way: one file that cannot be removed keeps no other, a
 * cut whose sync failed is begun anew, and where nobody can tell whether a name still
 * leads to a file, what does not hold in it is damage.
 * MW_TEST_THREADS */
#include "journal/base/util.h"
#include "journal/record/retire.h"
#include "journal/segment/segment.h"
#include "journal/store/later.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/support/shell.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	SEGMENTS = 5
};

static char root[64], dir[128];
static const char content[] = "Subject: s\r\n\r\nhidden\r\n";
static struct mw_loc at[SEGMENTS];
static uint64_t seq[SEGMENTS];

/* ---- the real file system, with one thing wrong ---- */

static struct mw_fs bad;
static const char *_Atomic refuse; /* part of the names that are refused */
static const char *_Atomic gone;   /* … that are listed, and not there any more */
/* Of the descriptor by which a settled segment is changed; other threads prepare segments
 * at the same time. A mark is a write of 8 bytes. */
static atomic_int changed = -1, syncs_to_fail;
static atomic_uint syncs, marks;
static atomic_int leads;

static int
bad_unlink(const struct mw_fs *fs, const char *path)
{
	(void)fs;
	return refuse && strstr(path, refuse)
	           ? -EPERM
	           : mw_fs_posix()->unlink(mw_fs_posix(), path);
}

static int
bad_open(const struct mw_fs *fs, const char *path, int flags)
{
	(void)fs;
	const char *no = refuse, *left = gone;
	if (no && strstr(path, no) && (flags & MW_OPEN_WRITE))
		return -EPERM; /* as chattr +i does */
	if (left && strstr(path, left))
		return -ENOENT;
	int fd = mw_fs_posix()->open(mw_fs_posix(), path, flags);
	if ((flags & MW_OPEN_WRITE) && strstr(path, ".seg"))
		changed = fd;
	return fd;
}

static int
bad_close(const struct mw_fs *fs, int fd)
{
	(void)fs;
	if (changed == fd)
		changed = -1;
	return mw_fs_posix()->close(mw_fs_posix(), fd);
}

static int
bad_sync(const struct mw_fs *fs, int fd)
{
	(void)fs;
	syncs += changed == fd;
	if (changed == fd && syncs_to_fail && syncs_to_fail--)
		return -EIO;
	return mw_fs_posix()->sync(mw_fs_posix(), fd);
}

static int
bad_pwritev(const struct mw_fs *fs, int fd, struct iovec *iov, int n, uint64_t off)
{
	(void)fs;
	marks += changed == fd && n == 1 && iov[0].iov_len == 8;
	return mw_fs_posix()->pwritev(mw_fs_posix(), fd, iov, n, off);
}

static int
bad_leads_to(const struct mw_fs *fs, const char *path, int fd)
{
	(void)fs;
	return leads <= 0 ? leads : mw_fs_posix()->leads_to(mw_fs_posix(), path, fd);
}

static struct mw_store *
open_as(enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .fs = &bad, .mode = mode, .no_index = true};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	return st;
}

/* A writer that has made five segments, with a mail to two people in each. */
static struct mw_store *
filled(const char *name)
{
	struct mw_err err = {0};
	struct mw_rcpt to[] = {{.addr = MW_STR("anna@example.org")},
	                       {.addr = MW_STR("bob@example.org")}};
	bad = *mw_fs_posix();
	bad.unlink = bad_unlink;
	bad.open = bad_open;
	bad.close = bad_close;
	bad.sync = bad_sync;
	bad.pwritev = bad_pwritev;
	bad.leads_to = bad_leads_to;
	refuse = gone = NULL;
	syncs_to_fail = 0;
	leads = 1;
	(void)snprintf(dir, sizeof dir, "%s/%s", root, name);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	struct mw_store *st = open_as(MW_STORE_WRITE);
	for (int i = 0; i < SEGMENTS; i++) {
		struct mw_mail m = {.time_us = 1000 + i, .rcpt = to, .n_rcpt = 2};
		struct mw_commit c = journaled(st, &m, content, sizeof content - 1, NULL);
		at[i] = c.loc;
		seq[i] = c.seq;
		assert_int_equal(mw_store_roll(st, &err), 0);
	}
	return st;
}

static bool
there(uint64_t number, const char *suffix)
{
	char path[PATH_MAX];
	struct stat sb;
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.%s", dir,
	               (unsigned long long)number, suffix);
	return stat(path, &sb) == 0;
}

static void
one_that_stays_keeps_no_other(void **state)
{
	(void)state;
	struct mw_err err = {0};
	static const uint64_t all[] = {1, 2, 3, 4};
	struct mw_store *st = filled("stays");
	refuse = "0000000000000002.tmp";
	assert_int_equal(mw_store_remove(st, all, 4, &err), MW_EPERM);
	assert_non_null(strstr(err.msg, "cannot remove expired segments"));
	for (uint64_t n = 1; n <= 4; n++) {
		assert_false(there(n, "seg"));
		assert_int_equal(there(n, "tmp"), n == 2);
	}
	assert_true(there(5, "seg"));
	/* It stays so, and is tried again, with each writer; mail is taken all the same.
	 */
	mw_store_close(st);
	st = open_as(MW_STORE_WRITE);
	assert_true(there(2, "tmp"));
	mw_store_close(st);
	refuse = NULL;
	mw_store_close(open_as(MW_STORE_WRITE));
	assert_false(there(2, "tmp"));
}

static int
slot_is(int i, const uint8_t *token, bool *ret_has)
{
	MW_STORE_AUTO *st = open_as(MW_STORE_READ);
	MW_BUF_AUTO b = {0};
	struct mw_record r;
	assert_int_equal(mw_store_get(st, at[i], &r, NULL), 0);
	int is = mw_record_slot(st, &r, &b, NULL);
	*ret_has = false;
	for (size_t k = 0; k + 8 <= b.n; k += 8)
		*ret_has = *ret_has || memcmp(b.p + k, token, 8) == 0;
	return is;
}

static void
a_cut_whose_sync_failed_is_marked_again(void **state)
{
	(void)state;
	struct mw_err err = {0};
	uint8_t token[1][8];
	struct mw_store *st = filled("cut");
	mw_store_token(st, MW_KEY_RCPT, MW_STR("bob@example.org"), token[0]);
	struct mw_wipe_at place = {at[1].offset, seq[1]};
	struct mw_cut c = {(const uint8_t(*)[8])token, 1, &place, 1};
	bool has;
	syncs_to_fail = 1;
	syncs = marks = 0;
	assert_int_equal(mw_store_cut(st, at[1].segment, &c, &err), MW_EIO);
	assert_int_equal(syncs, 1); /* and not that descriptor once more (I5) */
	assert_int_equal(marks, 1);
	/* What is seen may not be what is on the disk: the mark may not be believed. */
	assert_int_equal(slot_is(1, token[0], &has), MW_SLOT_IS_BEING_CUT);
	assert_true(has);
	syncs = marks = 0;
	assert_int_equal(mw_store_cut(st, at[1].segment, &c, &err), 0);
	assert_int_equal(syncs, 3);
	assert_int_equal(marks, 2);
	assert_int_equal(slot_is(1, token[0], &has), MW_SLOT_IS_CUT);
	assert_false(has);
	/* Done is done; and the next record is as it was. */
	syncs = marks = 0;
	assert_int_equal(mw_store_cut(st, at[1].segment, &c, &err), 0);
	assert_int_equal(marks, 0);
	assert_int_equal(slot_is(2, token[0], &has), MW_SLOT_IS_WHOLE);
	assert_true(has);
	mw_store_close(st);
}

/* What opening a segment says whose header was overwritten, and of a record in it. */
static void
after_overwriting(int what_stat_says, int open_says, int record_says)
{
	struct mw_seg *s = NULL;
	struct mw_record r;
	MW_BUF_AUTO b = {0};
	struct mw_err err = {0};
	leads = 1;
	MW_STORE_AUTO *st = open_as(MW_STORE_READ);
	assert_int_equal(mw_store_get(st, at[1], &r, &err), 0); /* opened before */
	shell("cp '%s/segments/0000000000000002.seg' '%s/kept'", dir, dir);
	shell("dd if=/dev/zero of='%s/segments/0000000000000002.seg' bs=128K count=1 "
	      "conv=notrunc status=none",
	      dir);
	leads = what_stat_says;
	assert_int_equal(mw_seg_open(&bad, dir, 2, mw_store_id(st), &s, &err), open_says);
	assert_int_equal(mw_store_get(st, at[1], &r, &err), record_says);
	shell("cat '%s/kept' >'%s/segments/0000000000000002.seg'", dir, dir);
}

static void
only_who_is_sure_calls_it_gone(void **state)
{
	(void)state;
	mw_store_close(filled("leads"));
	after_overwriting(1, MW_EDAMAGED, MW_EDAMAGED);
	after_overwriting(-EIO, MW_EDAMAGED, MW_EDAMAGED);
	after_overwriting(-EACCES, MW_EDAMAGED, MW_EDAMAGED);
	after_overwriting(0, MW_ENOTFOUND, MW_ENOTFOUND);
}

/* A reader had the metadata when a prune beside it began to wipe the slot. */
static void
whose_slot_goes_meanwhile(void **state)
{
	(void)state;
	struct mw_store *st = filled("meanwhile");
	struct mw_err err = {0};
	struct mw_record r;
	struct mw_mail m;
	struct mw_commit note;
	MW_BUF_AUTO cbor = {0};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_STORE_AUTO *reader = open_as(MW_STORE_READ);
	assert_int_equal(mw_store_get(reader, at[1], &r, &err), 0);
	assert_int_equal(mw_record_mail(reader, &r, a, &m, &err), 0);
	shell("dd if=/dev/zero of='%s/segments/0000000000000002.seg' bs=1 seek=%llu "
	      "count=40 conv=notrunc status=none",
	      dir, (unsigned long long)at[1].offset + MW_FRAME_HEADER);
	assert_int_equal(mw_later_left(reader, &r, NULL, &m, &err), MW_EDAMAGED);
	struct mw_seq_range range = {seq[1], seq[1]};
	struct mw_tombstone t = {
	    MW_TOMB_RETENTION, 2000, MW_STR("test"), &range, 1, NULL, 0};
	assert_int_equal(mw_tombstone_encode(&t, &cbor), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_TOMBSTONE, 2000, cbor.p, cbor.n, &note,
	                               &err),
	                 0);
	assert_int_equal(mw_later_left(reader, &r, NULL, &m, &err), MW_EERASED);
	mw_store_close(st);
}

/* A file goes between the listing and the look for where to begin. */
static void
the_first_goes_while_a_place_is_sought(void **state)
{
	(void)state;
	struct mw_store *st = filled("sought");
	struct mw_err err = {0};
	struct mw_record r;
	struct mw_cursor *c = NULL;
	MW_STORE_AUTO *reader = open_as(MW_STORE_READ);
	gone = "0000000000000001.seg";
	assert_int_equal(mw_cursor_new(reader, seq[0] + 1, &c, &err), 0);
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	assert_int_equal(r.loc.segment, 2);
	mw_cursor_free(c);
	gone = NULL;
	mw_store_close(st);
}

/* What the real one says: of a name that is gone, of another file there, and where the
 * question cannot be answered. */
static void
where_a_name_leads(void **state)
{
	(void)state;
	char a[128], b[128], loop[160];
	const struct mw_fs *fs = mw_fs_posix();
	(void)snprintf(a, sizeof a, "%s/a", root);
	(void)snprintf(b, sizeof b, "%s/b", root);
	int fd = fs->open(fs, a, MW_OPEN_READ | MW_OPEN_WRITE | MW_OPEN_CREATE);
	assert_true(fd >= 0);
	assert_int_equal(fs->leads_to(fs, a, fd), 1);
	assert_int_equal(fs->leads_to(fs, b, fd), 0);
	assert_int_equal(rename(a, b), 0);
	assert_int_equal(fs->leads_to(fs, a, fd), 0);
	assert_int_equal(fs->leads_to(fs, b, fd), 1);
	shell("ln -s loop '%s/loop'", root);
	(void)snprintf(loop, sizeof loop, "%s/loop/a", root);
	assert_int_equal(fs->leads_to(fs, loop, fd), -ELOOP);
	(void)fs->close(fs, fd);
	assert_true(fs->leads_to(fs, b, fd) < 0);
}

/* After its sync a batch is answered only if its name is known to lead to it: where that
 * cannot be asked, or does not hold, the next segment takes what comes. */
static void
a_batch_whose_name_cannot_be_asked_is_refused(void **state)
{
	(void)state;
	struct mw_store *st = filled("asked");
	static const int says[] = {-EIO, -EACCES, 0};
	for (size_t i = 0; i < MW_COUNT(says); i++) {
		struct mw_mail m = {.time_us = 2000 + (int64_t)i};
		struct mw_err err = {0};
		uint8_t id[MW_ID_LEN];
		MW_ENTRY_AUTO *e = NULL;
		leads = says[i];
		assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &e, &err), 0);
		assert_int_equal(mw_entry_body(e, content, sizeof content - 1, &err), 0);
		assert_int_equal(mw_entry_describe(e, &m, &err), 0);
		assert_int_equal(mw_entry_finish_mail(e, &m, &err), 0);
		assert_true(mw_store_append(st, e, NULL, &err) < 0);
		leads = 1;
		(void)journaled(st, &m, content, sizeof content - 1, id);
	}
	mw_store_close(st);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "/tmp/mw-remove.XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", root);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_that_stays_keeps_no_other),
	    cmocka_unit_test(a_cut_whose_sync_failed_is_marked_again),
	    cmocka_unit_test(only_who_is_sure_calls_it_gone),
	    cmocka_unit_test(whose_slot_goes_meanwhile),
	    cmocka_unit_test(the_first_goes_while_a_place_is_sought),
	    cmocka_unit_test(where_a_name_leads),
	    cmocka_unit_test(a_batch_whose_name_cannot_be_asked_is_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
