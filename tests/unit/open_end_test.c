/* open_end_test.c - look-ups in a segment that is being written: they begin where the
 * index ends and do not read all of it, and find what a walk of the log finds, damaged or
 * not, whatever a writer says of its log. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "journal/store/store_int.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"
#include "tests/support/reading.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	MAILS = 240,
	INDEXED = 225,
	CONTENT = 8000,
	ROUNDS = 60,
	AHEAD = 8 << 20, /* zeros behind the last record */
	DRIPS = 2000
};

static struct scratch place;
static char copy[100];
static struct mw_loc loc[MAILS]; /* of each */
static uint64_t len[MAILS], used;
static uint64_t head_seq; /* of the newest record */
static uint8_t head_chain[32], older_chain[32];
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
	if (used)
		shell("truncate -s %llu '%s/segments/%016llx.seg'",
		      (unsigned long long)used + AHEAD, copy,
		      (unsigned long long)loc[0].segment);
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
		memcpy(older_chain, head_chain, sizeof head_chain);
		memcpy(head_chain, r.chain, sizeof head_chain);
		head_seq = r.seq;
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

/* ---- a writer that says how far its log goes ---- */

static struct writer {
	pthread_t thread;
	int fd, stop[2];
	const char *answer; /* NULL: none */
	unsigned asked, dripped;
} writer;
static const char drip[] = "o"; /* as the answer: this, one after the other */

static void *
writer_main(void *arg)
{
	struct writer *w = arg;
	int open[64];
	size_t n = 0;
	for (;;) {
		struct pollfd p[2] = {{.fd = w->fd, .events = POLLIN},
		                      {.fd = w->stop[0], .events = POLLIN}};
		char line[100];
		/* Who was not answered in time has asked all the same. */
		if (poll(p, 2, -1) < 0 || (p[1].revents && !p[0].revents))
			break;
		int fd = accept(w->fd, NULL, NULL);
		if (fd < 0)
			continue;
		w->asked++;
		if (!w->answer && n < MW_COUNT(open)) {
			open[n++] = fd;
			continue;
		}
		ssize_t k = recv(fd, line, sizeof line, 0);
		while (w->answer == drip && w->dripped < DRIPS &&
		       poll(&p[1], 1, 30) == 0 && send(fd, "o", 1, MSG_NOSIGNAL) == 1)
			w->dripped++;
		if (k == 5 && memcmp(line, "head\n", 5) == 0)
			(void)!send(fd, w->answer, strlen(w->answer), MSG_NOSIGNAL);
		(void)close(fd);
	}
	while (n)
		(void)close(open[--n]);
	return NULL;
}

static void
writer_start(const char *answer)
{
	struct mw_err err = {0};
	writer = (struct writer){.answer = answer};
	writer.fd = mw_control_listen(copy, &err);
	assert_true(writer.fd >= 0);
	assert_int_equal(pipe(writer.stop), 0);
	assert_int_equal(pthread_create(&writer.thread, NULL, writer_main, &writer), 0);
}

/* How often it was asked. */
static unsigned
writer_stop(void)
{
	assert_int_equal(write(writer.stop[1], "", 1), 1);
	(void)pthread_join(writer.thread, NULL);
	(void)close(writer.fd);
	(void)close(writer.stop[0]);
	(void)close(writer.stop[1]);
	return writer.asked;
}

static const char *
head_is(char out[120], uint64_t seq, const uint8_t chain[32])
{
	char hex[65];
	mw_hex(hex, chain, 32);
	(void)snprintf(out, 120, "ok %llu %s\n", (unsigned long long)seq, hex);
	return out;
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

/* How much a look-up reads beside a writer with this answer. */
static uint64_t
read_beside(const char *answer, unsigned *ret_asked)
{
	refresh();
	writer_start(answer);
	struct mw_store *st = open_copy(true);
	n_read = 0;
	for (size_t q = 0; q < 4; q++)
		assert_int_equal(find(st, q).n, MAILS / 40);
	mw_store_close(st);
	*ret_asked = writer_stop();
	return n_read;
}

/* On a busy machine the answer may come late, and is not waited for. */
static bool
is_believed(const char *answer)
{
	unsigned asked;
	for (int i = 0; i < 600; i++) {
		bool little = read_beside(answer, &asked) < AHEAD / 4;
		assert_int_equal(asked, 1);
		if (little)
			return true;
	}
	return false;
}

/* That nothing durable stands in the space behind the end is believed of a writer that
 * names the last record before it, and of nobody else. */
static void
space_is_left_to_the_writer(void **unused)
{
	char text[6][120];
	unsigned asked;
	const char *not_enough[] = {
	    head_is(text[0], head_seq, older_chain),
	    head_is(text[1], head_seq + 1, head_chain),
	    head_is(text[2], head_seq - 1, head_chain),
	    head_is(text[3], 1, older_chain),
	    head_is(text[4], UINT64_MAX, head_chain),
	    "ok 3\n",
	    "ok\n",
	    "error USAGE no such request\n",
	    "",
	    NULL,
	};
	(void)unused;
	assert_true(is_believed(head_is(text[5], head_seq, head_chain)));
	/* What it had not synced yet may have become durable since, or not. */
	assert_true(is_believed(head_is(text[5], head_seq - 1, older_chain)));
	for (size_t i = 0; i < MW_COUNT(not_enough); i++) {
		uint64_t n = read_beside(not_enough[i], &asked);
		if (n < AHEAD)
			fail_msg("answer %zu: only %llu bytes are read", i,
			         (unsigned long long)n);
		assert_int_equal(asked, 1);
	}
	refresh();
	writer_start(text[5]);
	struct mw_store *st = open_copy(false); /* without an index nothing is known */
	assert_int_equal(find(st, 3).n, MAILS / 40);
	mw_store_close(st);
	assert_int_equal(writer_stop(), 0);
}

/* One that answers by a byte now and then is not listened to for long. */
static void
slow_answer(void **unused)
{
	(void)unused;
	refresh();
	writer_start(drip);
	struct mw_store *st = open_copy(true);
	assert_int_equal(find(st, 3).n, MAILS / 40);
	mw_store_close(st);
	assert_int_equal(writer_stop(), 1);
	assert_in_range(writer.dripped, 0, DRIPS - 1);
}

static void
walk_all(struct mw_store *st)
{
	struct mw_cursor *c = NULL;
	struct mw_record r;
	assert_int_equal(mw_cursor_new(st, 1, &c, NULL), 0);
	while (mw_cursor_next(c, &r, NULL) == 1)
		continue;
	mw_cursor_free(c);
}

/* What a writer said to a look-up is no end to a walk, which tells of damage. */
static void
walk_after_look_up_reads_all(void **unused)
{
	char text[120];
	bool little = false;
	(void)unused;
	head_is(text, head_seq, head_chain);
	for (int i = 0; i < 600 && !little; i++) {
		refresh();
		writer_start(text);
		struct mw_store *st = open_copy(true);
		n_read = 0;
		assert_int_equal(find(st, 3).n, MAILS / 40);
		little = n_read < AHEAD / 4;
		n_read = 0;
		walk_all(st);
		if (little)
			assert_true(n_read >= AHEAD);
		mw_store_close(st);
		assert_int_equal(writer_stop(), 1);
	}
	assert_true(little);
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

struct told {
	uint64_t records, damaged;
	struct mw_verify_result v;
};

/* What a walk of the log and verify tell. */
static struct told
tell(struct mw_store *st)
{
	struct told t = {0};
	struct mw_cursor *c = NULL;
	struct mw_record r;
	struct mw_err err = {0};
	struct mw_verify_opts o = {.sample = 100, .threads = MW_VERIFY_PLAIN};
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	for (int k; (k = mw_cursor_next(c, &r, &err)) != 0;) {
		assert_true(k == 1 || k == MW_EDAMAGED);
		t.records += k == 1;
		t.damaged += k != 1;
	}
	mw_cursor_free(c);
	assert_true(mw_verify_run(st, &o, &t.v, &err) >= 0);
	return t;
}

/* Where a record is damaged, all is found and told beside a writer as without one. */
static void
damage_beside_a_writer(void **unused)
{
	char text[120];
	unsigned asked = 0;
	(void)unused;
	head_is(text, head_seq, head_chain);
	for (int round = 0; round < ROUNDS / 2; round++) {
		struct found alone[40];
		refresh();
		damage(dice_roll(&state, 8) ? INDEXED + dice_roll(&state, MAILS - INDEXED)
		                            : MAILS - 1);
		if (dice_roll(&state, 2))
			damage(INDEXED + dice_roll(&state, MAILS - INDEXED));
		struct mw_store *st = open_copy(true);
		for (size_t q = 0; q < 40; q++)
			alone[q] = find(st, q);
		struct told a = tell(st);
		mw_store_close(st);
		writer_start(text);
		st = open_copy(true);
		for (size_t q = 0; q < 40; q++) {
			struct found f = find(st, q);
			assert_int_equal(f.n, alone[q].n);
			for (size_t i = 0; i < f.n; i++)
				assert_true(has(&alone[q], f.seq[i]));
		}
		struct told b = tell(st);
		mw_store_close(st);
		asked += writer_stop();
		assert_memory_equal(&a, &b, sizeof a);
	}
	assert_true(asked >= ROUNDS / 2);
}

/* Bytes in the space behind the end: nothing acknowledged, so a look-up need not know of
 * them; a verify tells of them. */
static void
rubbish_beside_a_writer(void **unused)
{
	char text[120], path[200];
	(void)unused;
	for (int beside = 0; beside < 2; beside++)
		for (int at = 0; at < 2; at++) {
			refresh();
			(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", copy,
			               (unsigned long long)loc[0].segment);
			int fd = open(path, O_WRONLY);
			assert_int_equal(pwrite(fd, "rubbish", 7,
			                        (off_t)used + (at ? AHEAD / 2 : 8)),
			                 7);
			(void)close(fd);
			if (beside)
				writer_start(head_is(text, head_seq, head_chain));
			struct mw_store *st = open_copy(true);
			assert_int_equal(find(st, 3).n, MAILS / 40);
			struct told t = tell(st);
			assert_int_equal(t.v.findings[MW_FINDING_UNDECIDED] +
			                     t.v.findings[MW_FINDING_TORN],
			                 1);
			mw_store_close(st);
			if (beside)
				assert_true(writer_stop() > 0);
		}
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
	    cmocka_unit_test(space_is_left_to_the_writer),
	    cmocka_unit_test(slow_answer),
	    cmocka_unit_test(walk_after_look_up_reads_all),
	    cmocka_unit_test(damage_beside_a_writer),
	    cmocka_unit_test(rubbish_beside_a_writer),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
