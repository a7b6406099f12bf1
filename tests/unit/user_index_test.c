/* list --user by the index gives just what a walk of the log gives, whatever the
 * addresses look like, and whatever delimiters the writers of the segments knew. */
#include "journal/base/util.h"
#include "journal/record/expansion.h"
#include "replay/select.h"
#include "tests/support/dice.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
	MAILS = 400,
	WRITERS = 8,
	RELOADS = 60
};

static const char *const locals[] = {"a",      "b",         "A+x",         "a+y",
                                     "a-b",    "a-b+c",     "a+b-c",       "owner-a",
                                     "b+",     "a-request", "b-request",   "owner-b+c",
                                     "+a",     "-b",        "a_b",         "a=b+c",
                                     "\"a\"",  "\"A+x\"",   "\"a-b\"",     "\"b+\"",
                                     "\"+a\"", "\"+a-x\"",  "\"owner-a\"", "\"a\\+b\"",
                                     "\"a b\""};
static const char *const domains[] = {"d.test", "D.Test", "e.test"};
static const char *const delimiters[] = {"+", "-", "+-", "", "-+", "_"};

static char dir[64];
static uint64_t dice_state = 20261123;

static size_t
dice(size_t n)
{
	return dice_roll(&dice_state, (uint32_t)n);
}

static struct mw_str
address(struct mw_arena *a)
{
	return mw_strz(mw_arena_printf(a, "%s@%s", locals[dice(MW_COUNT(locals))],
	                               domains[dice(MW_COUNT(domains))]));
}

static struct mw_str *
boxes(struct mw_arena *a, size_t n)
{
	struct mw_str *v = mw_arena_alloc(a, (n + 1) * sizeof *v);
	assert_non_null(v);
	for (size_t i = 0; i < n; i++)
		v[i] = address(a);
	return v;
}

static void
expand_later(struct mw_store *st, const uint8_t *id, uint64_t seq, struct mw_arena *a)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO b = {0};
	struct mw_rcpt r = {.addr = address(a),
	                    .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
	                    .mailbox = boxes(a, 2),
	                    .n_mailbox = 2};
	struct mw_expanded one = {0, r.flags, r.mailbox, 2};
	struct mw_expansion x = {.seq = seq, .time_us = 2, .rcpt = &one, .n_rcpt = 1};
	struct mw_mail m = {.rcpt = &r, .n_rcpt = 1};
	memcpy(x.ref, id, MW_ID_LEN);
	assert_int_equal(mw_expansion_encode(&x, &b), 0);
	assert_int_equal(mw_entry_new(st, MW_TYPE_EXPANSION, &e, &err), 0);
	mw_entry_refer(e, id);
	mw_entry_people(e, &m);
	assert_int_equal(mw_entry_finish(e, 2, b.p, b.n, &err), 0);
	assert_int_equal(mw_store_append(st, e, NULL, &err), 0);
}

static void
put(struct mw_store *st, int64_t when)
{
	static const char text[] = "Subject: x\r\n\r\nsome text\r\n";
	uint8_t id[MW_ID_LEN];
	MW_ARENA_AUTO *a = mw_arena_new(1 << 20);
	struct mw_rcpt r[3];
	struct mw_mail m = {.time_us = when,
	                    .front = MW_STR("milter"),
	                    .sender = address(a),
	                    .rcpt = r,
	                    .n_rcpt = 1 + dice(3)};
	bool later = dice(5) == 0;
	memset(r, 0, sizeof r);
	for (size_t i = 0; i < m.n_rcpt; i++) {
		r[i].addr = address(a);
		r[i].flags = dice(2) ? MW_RCPT_LOCAL : 0;
		r[i].flags |= dice(6) ? 0 : MW_RCPT_REFUSED;
		r[i].n_mailbox = dice(3);
		r[i].mailbox = boxes(a, r[i].n_mailbox);
	}
	if (later) {
		r[0].flags = MW_RCPT_UNDECIDED | MW_RCPT_LATER;
		r[0].n_mailbox = 0;
	}
	if (dice(3) == 0)
		m.auth_user = dice(2) ? address(a) : MW_STR("a");
	struct mw_commit c = journaled(st, &m, text, sizeof text - 1, id);
	if (later && dice(4))
		expand_later(st, id, c.seq, a);
}

/* A writer whose delimiters change while it runs, by reloads: an entry that was described
 * before one may come to the log after records that were described later. */
static void
put_over_reloads(void)
{
	static const char text[] = "Subject: x\r\n\r\nsome text\r\n";
	struct mw_err err = {0};
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20,
	                          .delimiter = "+"};
	struct mw_store *st;
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (unsigned k = 0; k < RELOADS; k++) {
		MW_ARENA_AUTO *a = mw_arena_new(1 << 20);
		MW_ENTRY_AUTO *late = NULL;
		struct mw_rcpt r = {.addr = address(a)};
		struct mw_mail m = {.time_us = INT64_C(1700000001000000) + k,
		                    .front = MW_STR("milter"),
		                    .sender = address(a),
		                    .rcpt = &r,
		                    .n_rcpt = 1};
		assert_int_equal(mw_entry_new(st, MW_TYPE_MAIL, &late, &err), 0);
		assert_int_equal(mw_entry_body(late, text, sizeof text - 1, &err), 0);
		assert_int_equal(mw_entry_describe(late, &m, &err), 0);
		assert_int_equal(mw_entry_finish_mail(late, &m, &err), 0);
		mw_store_set_delimiter(st, delimiters[dice(MW_COUNT(delimiters))]);
		for (size_t n = dice(3); n; n--)
			put(st, INT64_C(1700000001000000) + k);
		assert_int_equal(mw_store_append(st, late, NULL, &err), 0);
	}
	mw_store_close(st);
}

static int
setup(void **state)
{
	struct mw_err err = {0};
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-user-index-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
	for (unsigned w = 0; w < WRITERS; w++) {
		struct mw_store_opts o = {.dir = dir,
		                          .mode = MW_STORE_WRITE,
		                          .segment_size = 1 << 20,
		                          .delimiter = delimiters[w % 5]};
		struct mw_store *st;
		assert_int_equal(mw_store_open(&o, &st, &err), 0);
		for (unsigned k = 0; k < MAILS / WRITERS; k++)
			put(st, INT64_C(1700000000000000) + w * 1000 + k);
		mw_store_close(st);
	}
	put_over_reloads();
	return 0;
}

static int
teardown(void **state)
{
	char cmd[100];
	(void)state;
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

struct seen {
	uint64_t seq[MAILS * 3];
	size_t n;
};

static int
on_item(void *arg, const struct mw_item *it)
{
	struct seen *s = arg;
	assert_true(s->n < MW_COUNT(s->seq));
	s->seq[s->n++] = it->rec.seq;
	return 0;
}

static void
ask(struct mw_cli *cli, struct mw_arena *a, const char **user, bool by_index,
    struct seen *ret)
{
	struct mw_query q;
	struct mw_err err = {0};
	mw_query_init(&q, a);
	q.user = user;
	q.n_user = user[1] ? 2 : 1;
	q.any_term = true;
	q.user_by_index = by_index;
	ret->n = 0;
	if (mw_select(cli, &q, on_item, ret, NULL, NULL, &err) < 0)
		fail_msg("%s", err.msg);
}

static void
compare(struct mw_cli *cli, struct mw_arena *a, const char **user, size_t *hits)
{
	struct seen walked, found;
	ask(cli, a, user, false, &walked);
	ask(cli, a, user, true, &found);
	*hits += walked.n;
	if (walked.n == found.n &&
	    memcmp(walked.seq, found.seq, found.n * sizeof *found.seq) == 0)
		return;
	fail_msg("--user %s%s%s with delimiters '%s': %zu walked, %zu by the index",
	         user[0], user[1] ? " --user " : "", user[1] ? user[1] : "",
	         cli->conf->recipient_delimiter, walked.n, found.n);
}

static void
same_answers(void **state)
{
	(void)state;
	struct mw_err err = {0};
	struct mw_store_opts o = {.dir = dir, .mode = MW_STORE_READ};
	struct mw_store *st;
	size_t hits = 0;
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (size_t d = 0; d < MW_COUNT(delimiters); d++) {
		struct mw_conf conf = {.recipient_delimiter =
		                           (char *)(uintptr_t)delimiters[d]};
		struct mw_cli cli = {.conf = &conf, .n_journals = 1, .stores = &st};
		MW_ARENA_AUTO *a = mw_arena_new(1 << 20);
		for (size_t i = 0; i < MW_COUNT(locals); i++) {
			struct mw_str one = address(a);
			const char *user[] = {mw_arena_printf(a, "%s@%s", locals[i],
			                                      domains[dice(3)]),
			                      NULL};
			compare(&cli, a, user, &hits);
			user[1] = one.p;
			compare(&cli, a, user, &hits);
			user[0] = locals[i]; /* no domain */
			compare(&cli, a, user, &hits);
		}
	}
	mw_store_close(st);
	assert_true(hits > 5000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(same_answers),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
