/* recover_test.c - whose mail an address means, and that looking it up by the index finds
 * what a walk of the whole log finds, for every pattern of mailbox_name. */
#include "replay/recover.h"

#include "journal/base/util.h"
#include "tests/support/reading.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct scratch place;

struct mail {
	const char *rcpt, *mailbox[2], *auth, *sender;
	uint32_t flags;
};

#define LOCAL    MW_RCPT_LOCAL
#define EXPANDED (MW_RCPT_LOCAL | MW_RCPT_EXPANDED)

static const struct mail mails[] = {
    {"alice@a.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"Alice+News@A.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"alice@b.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"info@a.test", {"alice@a.test", "bob@a.test"}, NULL, "w@far.test", EXPANDED},
    {"al@a.test", {"alice+x@a.test"}, NULL, "w@far.test", EXPANDED},
    {"far@far.test", {NULL}, "alice", "alice@a.test", 0},
    {"far@far.test", {NULL}, "Alice@a.test", "alice@a.test", 0},
    {"far@far.test", {NULL}, "alice@b.test", "alice@b.test", 0},
    {"bob@a.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"raw@a.test", {NULL}, NULL, "w@far.test", LOCAL | MW_RCPT_UNDECIDED},
    {"gone@a.test", {NULL}, NULL, "w@far.test", EXPANDED},
    {"alice@a.test", {NULL}, NULL, "w@far.test", LOCAL | MW_RCPT_REFUSED},
    {"\"alice\"@a.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"\"Alice+x\"@a.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"all@a.test", {"\"alice\"@a.test"}, NULL, "w@far.test", EXPANDED},
    {"far@far.test", {NULL}, "\"alice\"@a.test", "alice@a.test", 0},
    {"far@far.test", {NULL}, "\"alice\"", "alice@a.test", 0},
    {"\"eve\"@a.test", {NULL}, NULL, "w@far.test", LOCAL},
    {"\"+zoe+x\"@a.test", {NULL}, NULL, "w@far.test", LOCAL},
};

static void
put(struct mw_store *st, const struct mail *x, size_t i)
{
	struct mw_str box[2];
	struct mw_rcpt r = {.addr = mw_strz(x->rcpt), .flags = x->flags, .mailbox = box};
	struct mw_mail m = {.time_us = (int64_t)i + 1,
	                    .sender = mw_strz(x->sender),
	                    .auth_user = mw_strz(x->auth ? x->auth : ""),
	                    .front = MW_STR("milter"),
	                    .direction = x->auth ? MW_DIR_OUT : MW_DIR_IN,
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	for (; r.n_mailbox < 2 && x->mailbox[r.n_mailbox]; r.n_mailbox++)
		box[r.n_mailbox] = mw_strz(x->mailbox[r.n_mailbox]);
	(void)journaled(st, &m, "A: b\r\n\r\nc\r\n", 11, NULL);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_store *st = scratch_make(&place);
	for (size_t i = 0; i < MW_COUNT(mails); i++)
		put(st, &mails[i], i);
	mw_store_close(st);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	return scratch_remove(&place);
}

static char pattern_u[] = "%u", pattern_n[] = "%n", pattern_dn[] = "%d/%n",
            sent[] = "Sent", a_test[] = "a.test", b_test[] = "b.test";

static void
begin(struct reading *w, char *pattern, size_t domains)
{
	static char *local[] = {a_test, b_test};
	reading_begin(w, &place);
	w->conf.mailbox_name = pattern;
	w->conf.sent_folder = sent;
	w->conf.local_domains = (struct mw_conf_list){local, domains};
}

struct seen {
	struct reading *w;
	const char *mailbox;
	struct mw_arena *tmp;
	uint64_t set; /* a bit for each mail */
};

static int
on_item(void *arg, const struct mw_item *it)
{
	struct seen *s = arg;
	if (mw_recover_has_copy(&s->w->conf, &it->mail, s->mailbox, s->tmp) > 0)
		s->set |= UINT64_C(1) << (it->mail.time_us - 1);
	return 0;
}

static uint64_t
find(struct reading *w, const char *mailbox, const struct mw_recover_user *u)
{
	struct mw_err err = {0};
	struct mw_query q;
	struct seen s = {w, mailbox, mw_arena_new(0), 0};
	mw_query_init(&q, w->arena);
	q.all = true;
	q.key = u ? u->key : NULL;
	q.n_key = u ? u->n_key : 0;
	assert_int_equal(mw_select(&w->cli, &q, on_item, &s, NULL, NULL, &err), 0);
	mw_arena_free(s.tmp);
	return s.set;
}

static void
addresses_find_their_mailbox(void **state)
{
	(void)state;
	static const struct {
		char *pattern;
		size_t domains;
		const char *who, *mailbox;
		bool alias, keys;
	} t[] = {
	    {pattern_u, 2, "alice@a.test", "alice@a.test", false, true},
	    {pattern_u, 2, "ALICE+x@A.test", "alice@a.test", false, true},
	    {pattern_u, 2, "al@a.test", "alice@a.test", true, true},
	    {pattern_u, 2, "bob", "bob@a.test", false, true},
	    {pattern_u, 2, "raw@a.test", "raw@a.test", false, true},
	    {pattern_u, 0, "alice@b.test", "alice@b.test", false, true},
	    {pattern_u, 0, "bob", "bob@a.test", false, true},
	    {pattern_n, 2, "alice@a.test", "alice", false, true},
	    {pattern_n, 2, "alice", "alice", false, true},
	    {pattern_n, 0, "alice", "alice", false, false},
	    {pattern_n, 0, "alice@b.test", "alice", false, false},
	    {pattern_n, 2, "al@a.test", "alice", true, true},
	    {pattern_u, 2, "\"alice\"@a.test", "alice@a.test", false, true},
	    {pattern_u, 2, "all@a.test", "alice@a.test", true, true},
	    {pattern_u, 2, "eve@a.test", "eve@a.test", false, true},
	    {pattern_u, 2, "eve", "eve@a.test", false, true},
	    {pattern_n, 2, "eve@a.test", "eve", false, true},
	    {pattern_u, 2, "+zoe@a.test", "+zoe@a.test", false, false},
	    {pattern_dn, 2, "alice@a.test", "a.test/alice", false, true},
	    {pattern_dn, 2, "al@a.test", "a.test/alice", true, false},
	    {pattern_dn, 2, "a.test/alice", "a.test/alice", false, false},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		struct reading w;
		struct mw_err err = {0};
		struct mw_recover_user u = {.mailbox = NULL};
		begin(&w, t[i].pattern, t[i].domains);
		if (mw_recover_whose(&w.cli, t[i].who, w.arena, NULL, NULL, &u, &err))
			fail_msg("%zu %s: %s", i, t[i].who, err.msg);
		assert_string_equal(u.mailbox, t[i].mailbox);
		if (u.by_alias != t[i].alias || (u.key != NULL) != t[i].keys)
			fail_msg("%zu %s: alias %d, keys %d", i, t[i].who, u.by_alias,
			         u.key != NULL);
		uint64_t all = find(&w, u.mailbox, NULL), some = find(&w, u.mailbox, &u);
		if (!all || all != some)
			fail_msg("%zu %s: %llx by the log, %llx by the index", i,
			         t[i].who, (unsigned long long)all,
			         (unsigned long long)some);
		reading_end(&w);
	}
}

static void
others_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *who;
		int code;
		const char *text;
	} t[] = {
	    {"info@a.test", MW_EUSAGE, "alice@a.test, bob@a.test"},
	    {"alice", MW_EUSAGE, "alice@a.test, alice@b.test"},
	    {"nobody@a.test", MW_ENOUSER, "nobody@a.test"},
	    {"nobody", MW_ENOUSER, "nobody"},
	    {"far@far.test", MW_ENOUSER, "far"},
	    {"gone@a.test", MW_ENOUSER, "gone"},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		struct reading w;
		struct mw_err err = {0};
		struct mw_recover_user u;
		begin(&w, pattern_u, 2);
		assert_int_equal(mw_recover_whose(&w.cli, t[i].who, w.arena, NULL, NULL,
		                                  &u, &err),
		                 t[i].code);
		if (!strstr(err.msg, t[i].text))
			fail_msg("%s: %s", t[i].who, err.msg);
		reading_end(&w);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(addresses_find_their_mailbox),
	    cmocka_unit_test(others_are_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
