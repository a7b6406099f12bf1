/* Expansions: their bytes, what they do to a mail, and that they are found. */
#include "journal/store/later.h"

#include "conf/conf.h"
#include "journal/retain/retain.h"
#include "replay/later.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/base/util.h"
#include "tests/support/shell.h"

#include <cmocka.h>

static struct mw_str boxes[] = {{"ann@d.test", 10}, {"bob@far.test", 12}};
static struct mw_expanded two[] = {{0, MW_RCPT_LOCAL | MW_RCPT_EXPANDED, boxes, 2},
                                   {2, MW_RCPT_UNDECIDED, NULL, 0}};
static const struct mw_expansion full = {
    .ref = {1, 2, 3},
    .seq = 77,
    .time_us = -5,
    .took_us = 123456,
    .direction = MW_DIR_INTERNAL,
    .flags = MW_MAIL_TABLES_FAILED,
    .reason = {"no answer", 9},
    .rcpt = two,
    .n_rcpt = 2,
};

static void
encode(const struct mw_expansion *x, struct mw_buf *b)
{
	assert_int_equal(mw_expansion_encode(x, b), 0);
}

static void
round_trip(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO b = {0}, again = {0};
	struct mw_expansion x;
	struct mw_err err = {0};
	encode(&full, &b);
	assert_int_equal(mw_expansion_decode(b.p, b.n, a, &x, &err), 0);
	assert_int_equal(x.seq, 77);
	assert_int_equal(x.direction, MW_DIR_INTERNAL);
	assert_int_equal(x.n_rcpt, 2);
	assert_int_equal(x.rcpt[0].n_mailbox, 2);
	assert_true(mw_str_eq(x.rcpt[0].mailbox[1], boxes[1]));
	assert_true(mw_str_eq(x.reason, MW_STR("no answer")));
	encode(&x, &again);
	assert_int_equal(again.n, b.n);
	assert_memory_equal(again.p, b.p, b.n);
	for (size_t n = 0; n < b.n; n++) /* cut anywhere it is no expansion */
		assert_int_equal(mw_expansion_decode(b.p, n, a, &x, &err), MW_EFORMAT);
	for (size_t i = 0; i < b.n * 8; i++) { /* any bit flipped: a value, or refused */
		b.p[i / 8] ^= (uint8_t)(1U << (i % 8));
		int r = mw_expansion_decode(b.p, b.n, a, &x, &err);
		assert_true(r == 0 || r == MW_EFORMAT || r == MW_EVERSION);
		b.p[i / 8] ^= (uint8_t)(1U << (i % 8));
	}
}

static void
strangers(void **state)
{
	(void)state;
	static const uint8_t skip[] = {0xa1, 0x63, 'n', 'e', 'w', 0x82, 1, 2};
	static const uint8_t must[] = {0xa1, 0x64, '!', 'n', 'e', 'w', 1};
	static const uint8_t huge[] = {0xa1, 0x61, 'r', 0x9b, 0, 0, 0, 0xff, 0, 0, 0, 0};
	static const uint8_t wide[] = {0xa1, 0x63, 'd', 'i', 'r', 3};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_expansion x;
	struct mw_err err = {0};
	assert_int_equal(mw_expansion_decode(skip, sizeof skip, a, &x, &err), 0);
	assert_int_equal(mw_expansion_decode(must, sizeof must, a, &x, &err),
	                 MW_EVERSION);
	assert_int_equal(mw_expansion_decode(huge, sizeof huge, a, &x, &err), MW_EFORMAT);
	assert_int_equal(mw_expansion_decode(wide, sizeof wide, a, &x, &err), MW_EFORMAT);
}

static void
applied(void **state)
{
	(void)state;
	struct mw_rcpt r[] = {
	    {.addr = MW_STR("team@d.test"),
	     .flags = MW_RCPT_LATER | MW_RCPT_UNDECIDED | MW_RCPT_EXCLUDED},
	    {.addr = MW_STR("no@d.test"), .flags = MW_RCPT_REFUSED},
	    {.addr = MW_STR("sure@d.test"), .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED},
	};
	struct mw_mail m = {.rcpt = r, .n_rcpt = 3};
	struct mw_expanded out[] = {two[0], two[1], {9, MW_RCPT_EXPANDED, boxes, 2}};
	struct mw_expansion x = full;
	x.rcpt = out;
	x.n_rcpt = 3;
	assert_true(mw_expansion_awaited(&m));
	mw_expansion_apply(&x, &m);
	assert_false(mw_expansion_awaited(&m));
	assert_int_equal(r[0].flags, MW_RCPT_LOCAL | MW_RCPT_EXPANDED | MW_RCPT_EXCLUDED);
	assert_int_equal(r[0].n_mailbox, 2);
	assert_int_equal(r[1].flags, MW_RCPT_REFUSED);
	/* what was decided at capture stays */
	assert_int_equal(r[2].flags, MW_RCPT_LOCAL | MW_RCPT_EXPANDED);
	assert_int_equal(m.direction, MW_DIR_INTERNAL);
	assert_int_equal(m.flags, MW_MAIL_TABLES_FAILED);
	mw_expansion_apply(&x, &m); /* twice is once */
	assert_int_equal(r[0].n_mailbox, 2);
	struct mw_mail none = {.n_rcpt = 0};
	mw_expansion_apply(&x, &none);
	assert_int_equal(none.direction, MW_DIR_IN);
}

/* ---- in a journal ---- */

static char dir[64];
static uint8_t ids[3][MW_ID_LEN];

static void
append(struct mw_store *st, struct mw_entry *e, struct mw_commit *c)
{
	struct mw_err err = {0};
	if (mw_store_append(st, e, c, &err) < 0)
		fail_msg("%s", err.msg);
}

static uint64_t
append_mail(struct mw_store *st, uint8_t ret_id[MW_ID_LEN])
{
	struct mw_rcpt r = {.addr = MW_STR("team@d.test"),
	                    .flags = MW_RCPT_UNDECIDED | MW_RCPT_LATER};
	struct mw_mail m = {.time_us = 1, .rcpt = &r, .n_rcpt = 1};
	struct mw_commit c = journaled(st, &m, "A: b\r\n\r\n", 8, ret_id);
	return c.seq;
}

static void
append_expansion(struct mw_store *st, const uint8_t id[MW_ID_LEN], uint64_t seq,
                 struct mw_str box)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO b = {0};
	struct mw_commit c;
	struct mw_expanded one = {0, MW_RCPT_LOCAL | MW_RCPT_EXPANDED, &box, 1};
	struct mw_expansion x = {.seq = seq, .time_us = 2, .rcpt = &one, .n_rcpt = 1};
	struct mw_rcpt r = {.addr = MW_STR("team@d.test"),
	                    .flags = MW_RCPT_EXPANDED,
	                    .mailbox = &box,
	                    .n_mailbox = 1};
	struct mw_mail m = {.rcpt = &r, .n_rcpt = 1};
	memcpy(x.ref, id, MW_ID_LEN);
	encode(&x, &b);
	assert_int_equal(mw_entry_new(st, MW_TYPE_EXPANSION, &e, &err), 0);
	mw_entry_refer(e, id);
	mw_entry_people(e, &m);
	assert_int_equal(mw_entry_finish(e, 2, b.p, b.n, &err), 0);
	append(st, e, &c);
}

static struct mw_store *
open_store(enum mw_store_mode mode)
{
	struct mw_store_opts o = {.dir = dir, .mode = mode};
	return opened(&o);
}

static int
setup(void **state)
{
	struct mw_err err = {0};
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-expansion-XXXXXX");
	if (!mkdtemp(dir) || mw_store_create(dir, NULL, NULL, &err) < 0)
		return -1;
	MW_STORE_AUTO *st = open_store(MW_STORE_WRITE);
	uint64_t seq[3];
	for (size_t i = 0; i < 3; i++)
		seq[i] = append_mail(st, ids[i]);
	append_expansion(st, ids[2], seq[2], MW_STR("cat@d.test"));
	append_expansion(st, ids[0], seq[0], MW_STR("ann@d.test"));
	append_expansion(st, ids[0], seq[0], MW_STR("dog@d.test")); /* one too many */
	return 0;
}

static int
teardown(void **state)
{
	char cmd[128];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

struct seen {
	struct mw_record r;
	size_t n;
};

static int
on_any(void *arg, const struct mw_record *r)
{
	struct seen *s = arg;
	s->r = *r;
	s->n++;
	return 0;
}

static void
found(void **state)
{
	(void)state;
	static const struct {
		const char *box;
		size_t mail;
	} cases[] = {{"ann@d.test", 0}, {"CAT@D.TEST", 2}};
	struct mw_err err = {0};
	MW_STORE_AUTO *st = open_store(MW_STORE_READ);
	MW_ARENA_AUTO *a = mw_arena_new(0);
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct seen s = {.n = 0};
		struct mw_expansion x;
		struct mw_record mail;
		struct mw_mail m;
		assert_int_equal(mw_store_find(st, MW_KEY_RCPT, mw_strz(cases[i].box),
		                               on_any, &s, &err),
		                 0);
		assert_int_equal(s.n, 1);
		assert_int_equal(mw_later_read(st, &s.r, a, &x, &err), 1);
		assert_int_equal(mw_later_of(st, &x, &mail, &err), 1);
		assert_memory_equal(mail.id, ids[cases[i].mail], MW_ID_LEN);
		assert_int_equal(mw_later_mail(st, &mail, a, &m, &err), 0);
		assert_int_equal(m.rcpt[0].flags, MW_RCPT_LOCAL | MW_RCPT_EXPANDED);
		assert_true(mw_str_ieq(m.rcpt[0].mailbox[0], mw_strz(cases[i].box)));
	}
	struct mw_expansion x;
	struct mw_record of;
	assert_int_equal(mw_later_find(st, ids[1], a, &x, &of, &err), 0); /* none came */
}

static void
tokens(void **state)
{
	(void)state;
	uint8_t t[8];
	struct mw_err err = {0};
	struct seen s = {.n = 0};
	MW_STORE_AUTO *st = open_store(MW_STORE_READ);
	MW_BUF_AUTO all = {0};
	char text[MW_ID_TEXT + 1];
	mw_id_text(text, ids[2]);
	assert_int_equal(mw_store_find_id(st, text, &s.r, &err), 0);
	assert_int_equal(mw_later_tokens(st, &s.r, &all, &err), 0);
	size_t hits = 0;
	mw_store_token(st, MW_KEY_RCPT, MW_STR("cat@d.test"), t);
	for (size_t i = 0; i < all.n; i += 8)
		hits += memcmp(all.p + i, t, 8) == 0;
	assert_int_equal(hits, 1);
}

/* Rules and holds go by the mailboxes, not by what the mail's own record says. */
static void
retained(void **state)
{
	(void)state;
	char term[] = "rcpt:ann@d.test";
	char *terms[] = {term};
	struct mw_conf_retain rule = {.match = {terms, 1}};
	struct mw_conf conf = {.retain = &rule, .n_retain = 1};
	struct mw_str user = MW_STR("cat@d.test");
	struct mw_hold hold = {.name = MW_STR("h"),
	                       .since_us = INT64_MIN,
	                       .until_us = INT64_MAX,
	                       .direction = -1,
	                       .user = &user,
	                       .n_user = 1};
	struct mw_err err = {0};
	MW_BUF_AUTO b = {0};
	assert_int_equal(mw_hold_encode(&hold, &b), 0);
	MW_STORE_AUTO *st = open_store(MW_STORE_WRITE);
	assert_int_equal(mw_store_note(st, MW_TYPE_HOLD, 3, b.p, b.n, NULL, &err), 0);
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	struct mw_retain_log *l = NULL;
	assert_int_equal(mw_rules_new(st, &conf, &rules, &err), 0);
	assert_int_equal(mw_holds_load(st, &holds, &err), 0);
	assert_int_equal(mw_retain_gather(st, rules, holds, NULL, &l, &err), 0);
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++) {
		const struct mw_retain_rec *r = &l->rec[i];
		if (r->type != MW_TYPE_MAIL)
			continue;
		assert_int_equal(r->held, n == 2);
		assert_int_equal(r->rules, n == 0);
		assert_int_equal(r->ruled, n == 0);
		n++;
	}
	assert_int_equal(n, 3);
	mw_retain_free(l);
	mw_holds_free(holds);
	mw_rules_free(rules);
}

/* ---- a disk that does not give a record back ---- */

static struct mw_fs sick;
static uint64_t sick_from, sick_to;

static int64_t
sick_pread(const struct mw_fs *fs, int fd, void *p, size_t n, uint64_t off)
{
	const struct mw_fs *posix = mw_fs_posix();
	(void)fs;
	if (off < sick_to && off + n > sick_from)
		return -EIO;
	return posix->pread(posix, fd, p, n, off);
}

static struct mw_store *
open_sick(const struct mw_record *r)
{
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	sick = *mw_fs_posix();
	sick.pread = sick_pread;
	sick_from = sick_to = 0;
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_READ, .fs = &sick};
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	sick_from = r->loc.offset + 120 + r->slot_len; /* its metadata */
	sick_to = sick_from + r->meta_len;
	return st;
}

/* An expansion that the disk does not give back is not one that never came: else the mail
 * would go by the address it came to. */
static void
not_given_back(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct seen s = {.n = 0};
	char text[MW_ID_TEXT + 1];
	struct mw_record mail, of;
	struct mw_mail m;
	struct mw_expansion x;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_STORE_AUTO *st = open_store(MW_STORE_READ);
	assert_int_equal(mw_store_find(st, MW_KEY_RCPT, MW_STR("ann@d.test"), on_any, &s,
	                               &err),
	                 0);
	assert_int_equal(s.r.type, MW_TYPE_EXPANSION);
	MW_STORE_AUTO *bad = open_sick(&s.r);
	mw_id_text(text, ids[0]);
	assert_int_equal(mw_store_find_id(bad, text, &mail, &err), 0);
	assert_int_equal(mw_later_read(bad, &s.r, a, &x, &err), MW_EIO);
	assert_non_null(strstr(err.msg, "expansion"));
	assert_int_equal(mw_later_find(bad, ids[0], a, &x, &of, &err), MW_EIO);
	assert_int_equal(mw_later_mail(bad, &mail, a, &m, &err), MW_EIO);
	/* Others are served, and so is this one when the disk is well again; also after
	 * so many look-ups that all are gathered at once. */
	struct mw_laters all = {.asked = 0};
	for (unsigned round = 0; round < 200; round++) {
		int want = round < 150 ? MW_EIO : 0;
		mw_arena_reset(a);
		mw_err_clear(&err);
		if (round == 150)
			sick_to = sick_from;
		assert_int_equal(mw_record_mail(bad, &mail, a, &m, &err), 0);
		assert_int_equal(mw_laters_apply(&all, bad, &mail, a, &m, &err), want);
		assert_int_equal(mw_expansion_awaited(&m), want < 0);
	}
	mw_id_text(text, ids[2]);
	sick_to = sick_from + s.r.meta_len;
	assert_int_equal(mw_store_find_id(bad, text, &mail, &err), 0);
	assert_int_equal(mw_record_mail(bad, &mail, a, &m, &err), 0);
	assert_int_equal(mw_laters_apply(&all, bad, &mail, a, &m, &err), 0);
	assert_false(mw_expansion_awaited(&m));
	mw_laters_done(&all);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(round_trip),     cmocka_unit_test(strangers),
	    cmocka_unit_test(applied),        cmocka_unit_test(found),
	    cmocka_unit_test(tokens),         cmocka_unit_test(retained),
	    cmocka_unit_test(not_given_back),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
