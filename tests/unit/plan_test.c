/* plan_test.c - what --user and --domain name: the copies of the mail that they select.
 */
#include "replay/plan.h"

#include "journal/base/util.h"
#include "tests/support/reading.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LETTERS                                                                          \
	"b\xc3\xbc"                                                                      \
	"cher.example"
#define ALABEL "xn--bcher-kva.example"

static char plus[] = "+", sent[] = "Sent", letters[] = LETTERS, org[] = "example.org";
static char whole[] = "%u", folders[] = "%d/%n";
static struct scratch place;

struct site {
	char *pattern;
	char *domain[1];
	size_t n_domain;
};

static void
put(struct mw_store *st, const char *rcpt, const char *mailbox, const char *login)
{
	static const char text[] = "Subject: x\r\n\r\nx\r\n";
	struct mw_str box = mailbox ? mw_strz(mailbox) : mw_str("", 0);
	struct mw_rcpt r = {.addr = mw_strz(rcpt), .flags = login ? 0 : MW_RCPT_LOCAL};
	struct mw_mail m = {.time_us = INT64_C(1700000000000000),
	                    .sender = login ? mw_strz(login) : MW_STR("w@far.test"),
	                    .front = MW_STR("milter"),
	                    .direction = login ? MW_DIR_OUT : MW_DIR_IN,
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	if (login)
		m.auth_user = mw_strz(login);
	if (mailbox) {
		r.flags |= MW_RCPT_EXPANDED;
		r.mailbox = &box;
		r.n_mailbox = 1;
	}
	(void)journaled(st, &m, text, sizeof text - 1, NULL);
}

/* One message for each of them. */
static int
setup(void **state)
{
	struct mw_store *st = scratch_make(&place);
	(void)state;
	put(st, "kurt+bills@" LETTERS, NULL, NULL);
	put(st, "\"kurt\"@" ALABEL, NULL, NULL);
	put(st, "anna@example.org", NULL, NULL);
	put(st, "office@example.org", "anna+office@" ALABEL, NULL);
	put(st, "x@far.test", NULL, "otto@" ALABEL);
	mw_store_close(st);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	return scratch_remove(&place);
}

/* How many copies a replay with this option would put. */
static size_t
named(const struct site *s, const char *option, const char *value)
{
	struct reading r;
	struct mw_target *target;
	struct mw_plan *p = NULL;
	struct mw_query q;
	struct mw_err err = {0};
	char where[100], o[20], v[60];
	char *argv[] = {o, v, NULL};
	int i = 0;
	reading_begin(&r, &place);
	r.conf.mailbox_name = s->pattern;
	r.conf.recipient_delimiter = plus;
	r.conf.sent_folder = sent;
	r.conf.local_domains =
	    (struct mw_conf_list){(char **)(uintptr_t)s->domain, s->n_domain};
	mw_query_init(&q, r.arena);
	(void)snprintf(o, sizeof o, "%s", option);
	(void)snprintf(v, sizeof v, "%s", value);
	assert_int_equal(mw_query_option(&q, 2, argv, &i, &err), 1);
	(void)snprintf(where, sizeof where, "eml:%s/box", place.root);
	assert_int_equal(mw_target_new(where, &(struct mw_target_opts){.create = true},
	                               &target, &err),
	                 0);
	const struct mw_plan_opts opts = {.cli = &r.cli, .query = &q, .target = target};
	if (mw_plan_make(&opts, &p, &err) < 0)
		fail_msg("%s", err.msg);
	size_t n = p->n_wanted;
	mw_plan_free(p);
	mw_target_free(target);
	reading_end(&r);
	return n;
}

static void
of_a_domain(void **state)
{
	static const char *const forms[] = {LETTERS, ALABEL, "@" LETTERS, "@" ALABEL,
	                                    "B\xc3\x9c"
	                                    "CHER.example"};
	const struct site sites[] = {{whole, {letters}, 1},
	                             {whole, {NULL}, 0},
	                             {folders, {NULL}, 0}};
	(void)state;
	for (size_t k = 0; k < MW_COUNT(sites); k++) {
		for (size_t i = 0; i < MW_COUNT(forms); i++)
			assert_int_equal(named(&sites[k], "--domain", forms[i]), 4);
		assert_int_equal(named(&sites[k], "--domain", "cher.example"), 0);
	}
	for (size_t k = 1; k < MW_COUNT(sites); k++) {
		assert_int_equal(named(&sites[k], "--domain", "example.org"), 2);
		assert_int_equal(named(&sites[k], "--domain", "@Example.ORG"), 2);
	}
}

static void
of_a_user(void **state)
{
	static const struct {
		const char *user;
		size_t n;
	} t[] = {
	    {"kurt@" LETTERS, 2},
	    {"kurt@" ALABEL, 2},
	    {"\"kurt\"@" LETTERS, 2},
	    {"Kurt", 2},
	    {"kurt+bills@" ALABEL, 1},
	    {"kurt@example.org", 0},
	    {"anna@" LETTERS, 1},
	    {"anna@example.org", 1},
	    {"anna", 2},
	    {"office@example.org", 1},
	    {"office", 1},
	    {"ffice", 0},
	};
	const struct site sites[] = {{whole, {NULL}, 0}, {folders, {NULL}, 0}};
	(void)state;
	for (size_t k = 0; k < MW_COUNT(sites); k++)
		for (size_t i = 0; i < MW_COUNT(t); i++)
			if (named(&sites[k], "--user", t[i].user) != t[i].n)
				fail_msg("%s, %s: %zu", sites[k].pattern, t[i].user,
				         named(&sites[k], "--user", t[i].user));
	assert_int_equal(named(&sites[0], "--user", "otto@" LETTERS), 1);
	assert_int_equal(named(&sites[0], "--user", "otto@" ALABEL), 1);
	const struct site ours = {whole, {letters}, 1}, other = {whole, {org}, 1};
	assert_int_equal(named(&ours, "--user", "kurt@" ALABEL), 2);
	assert_int_equal(named(&ours, "--user", "otto@" LETTERS), 1);
	assert_int_equal(named(&other, "--user", "kurt@" ALABEL), 2);
}

/* The plan of a replay to maildir:ROOT/mail/%d/%n of a message to each of these, and what
 * it is of; script lays directories and links in ROOT. */
struct linked {
	struct scratch own;
	struct reading r;
	struct mw_target *target;
	struct mw_query q;
	struct mw_plan *p;
};

static void
linked_begin(struct linked *l, const char *const *to, const char *script)
{
	struct mw_err err = {0};
	char where[100];
	memset(l, 0, sizeof *l);
	struct mw_store *st = scratch_make(&l->own);
	for (; *to; to++)
		put(st, *to, NULL, NULL);
	mw_store_close(st);
	shell("cd %s && %s", l->own.root, script);
	reading_begin(&l->r, &l->own);
	l->r.conf.mailbox_name = whole;
	mw_query_init(&l->q, l->r.arena);
	l->q.all = true;
	(void)snprintf(where, sizeof where, "maildir:%s/mail/%%d/%%n", l->own.root);
	assert_int_equal(mw_target_new(where, &(struct mw_target_opts){.create = true},
	                               &l->target, &err),
	                 0);
	const struct mw_plan_opts opts = {.cli = &l->r.cli,
	                                  .query = &l->q,
	                                  .target = l->target};
	if (mw_plan_make(&opts, &l->p, &err) < 0)
		fail_msg("%s", err.msg);
}

static void
linked_end(struct linked *l)
{
	mw_plan_free(l->p);
	mw_target_free(l->target);
	reading_end(&l->r);
	(void)scratch_remove(&l->own);
}

/* Two mailboxes that are one directory, since one domain's is a link to the other's: one
 * box, also where the mailbox is still to be made. */
static void
one_directory(void **state)
{
	static const char *const to[] = {"anna@example.org", "anna@example.net",
	                                 "otto@example.net", "otto@example.org",
	                                 "otto@example.com", NULL};
	struct linked l;
	(void)state;
	linked_begin(&l, to,
	             "mkdir -p mail/example.org/otto mail/example.com && "
	             "ln -s example.org mail/example.net");
	assert_int_equal(l.p->n_wanted, 5);
	assert_int_equal(l.p->n_box, 3);
	for (size_t i = 0; i < l.p->n_box; i++) {
		bool com = strstr(l.p->box[i].box, "example.com") != NULL;
		assert_int_equal(l.p->box[i].shared, !com);
		assert_int_equal(l.p->box[i].n, com ? 1 : 2);
	}
	linked_end(&l);
}

/* How many boxes two people have; there are joe and eve of a.test. */
static size_t
boxes_of(const char *one, const char *other, const char *links)
{
	const char *const to[] = {one, other, NULL};
	struct linked l;
	char script[200];
	(void)snprintf(script, sizeof script,
	               "mkdir -p mail/a.test/joe mail/a.test/eve && %s", links);
	linked_begin(&l, to, script);
	size_t n = l.p->n_box;
	linked_end(&l);
	return n;
}

/* A link that its owner may turn elsewhere makes two boxes no one place, nor does, as
 * root, one in the place of a mailbox that others than root may lay there: it is refused.
 */
static void
whose_link(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(boxes_of("joe@a.test", "joe@b.test", "ln -s a.test mail/b.test"),
	                 1);
	assert_int_equal(boxes_of("joe@a.test", "joe@b.test",
	                          "ln -s a.test mail/b.test && "
	                          "chown -h 65534 mail/b.test"),
	                 2);
	assert_int_equal(boxes_of("joe@a.test", "eve@a.test",
	                          "rmdir mail/a.test/eve && ln -s joe mail/a.test/eve && "
	                          "chown -h 65534 mail/a.test/eve"),
	                 2);
	assert_int_equal(boxes_of("joe@a.test", "support@a.test",
	                          "ln -s joe mail/a.test/support"),
	                 1);
	assert_int_equal(boxes_of("joe@a.test", "support@a.test",
	                          "ln -s joe mail/a.test/support && "
	                          "chmod 777 mail/a.test"),
	                 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(of_a_domain),
	    cmocka_unit_test(of_a_user),
	    cmocka_unit_test(one_directory),
	    cmocka_unit_test(whose_link),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
