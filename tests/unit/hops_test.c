/* hops_test.c - a message that several capture hosts journaled is one delivery, and what
 * only looks like one is not. */
#include "replay/hops.h"

#include "journal/base/util.h"
#include "journal/record/outcome.h"
#include "tests/support/reading.h"
#include "tests/support/shell.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	HOSTS = 3,
	MOST = 6,
	ALIASES = 2000
};

enum harm {
	FINE,
	TEAM,   /* none; but it goes to team@ as well */
	BEHIND, /* … and that is bert, this host knows */
	AWAY,   /* as TEAM; and to a recipient who is not ours, of a box like no other */
	TWO,    /* none; but it goes to team@ and team+x@, and to nobody else */
	ONE,    /* to team@ alone, and that is bert */
	MANY,   /* none; but it goes to so many aliases, and to nobody else */
	MANY_BEHIND, /* and those are bert */
	DAMAGED,     /* its content, behind the header */
	REFUSED,     /* by a later filter, the host's log says */
	DISCARDED,
	BOUNCED
};

struct mail {
	int host;
	const char *queue;
	const char *via[3]; /* queue IDs in Received fields, the newest first */
	const char *body;
	int second; /* when it was captured */
	enum harm harm;
};

struct world {
	struct scratch place[HOSTS];
	char *journal[HOSTS];
	struct mw_store *store[HOSTS];
	struct mw_conf conf;
	char *domain[1];
	struct mw_cli cli;
	struct mw_target *target;
};

static char local[] = "x.test", plus[] = "+", sent[] = "Sent", pattern[] = "%u";

static void
note(struct mw_store *st, const struct mail *x, const uint8_t *id, uint64_t seq)
{
	MW_BUF_AUTO b = {0};
	struct mw_err err = {0};
	struct mw_outcome one = {.seq = seq,
	                         .queue_id = mw_strz(x->queue),
	                         .whole = x->harm == REFUSED     ? MW_FACT_REFUSED
	                                  : x->harm == DISCARDED ? MW_FACT_DISCARDED
	                                                         : 0,
	                         .whole_us = INT64_C(1700000100000000)};
	struct mw_outcomes o = {.time_us = one.whole_us, .v = &one, .n = 1};
	struct mw_outcome_rcpt to = {.addr = MW_STR("anna@x.test"),
	                             .fact = MW_FACT_BOUNCED,
	                             .time_us = one.whole_us};
	one.rcpt = &to;
	one.n_rcpt = x->harm == BOUNCED;
	memcpy(one.id, id, MW_ID_LEN);
	assert_int_equal(mw_outcomes_encode(&o, &b), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_OUTCOME, one.whole_us, b.p, b.n, NULL,
	                               &err),
	                 0);
}

/* A byte of the content of the record that was written last. */
static void
damage(const char *dir, const struct mw_commit *c)
{
	struct mw_err err = {0};
	struct mw_record r;
	char path[200];
	uint8_t b;
	struct mw_store *st =
	    opened(&(struct mw_store_opts){.dir = dir, .mode = MW_STORE_READ});
	assert_int_equal(mw_store_get(st, c->loc, &r, &err), 0);
	mw_store_close(st);
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", dir,
	               (unsigned long long)r.loc.segment);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	off_t at = (off_t)(r.loc.offset + r.frame_len - r.body_len);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 1;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	(void)close(fd);
}

static void
put(struct mw_store *st, const char *dir, const struct mail *x)
{
	MW_BUF_AUTO text = {0};
	struct mw_str bert = MW_STR("bert@x.test");
	bool behind = x->harm == BEHIND || x->harm == ONE || x->harm == MANY_BEHIND;
	struct mw_rcpt r[] = {{.addr = MW_STR("anna@x.test"), .flags = MW_RCPT_LOCAL},
	                      {.addr = MW_STR("team@x.test"),
	                       .flags = MW_RCPT_LOCAL | (behind ? MW_RCPT_EXPANDED : 0),
	                       .mailbox = behind ? &bert : NULL,
	                       .n_mailbox = behind},
	                      {.addr = MW_STR("team+x@x.test"), .flags = MW_RCPT_LOCAL},
	                      {.addr = MW_STR("a/b@far.test")}};
	struct mw_mail m = {
	    .time_us = INT64_C(1700000000000000) + x->second * 1000000,
	    .queue_id = mw_strz(x->queue),
	    .sender = MW_STR("w@far.test"),
	    .front = MW_STR("milter"),
	    .direction = MW_DIR_IN,
	    .rcpt = x->harm == ONE || x->harm == TWO ? r + 1 : r,
	    .n_rcpt = x->harm == TEAM || x->harm == BEHIND || x->harm == TWO ? 2 : 1};
	if (x->harm == AWAY) {
		r[2] = r[3];
		m.n_rcpt = 3;
	}
	static struct mw_rcpt many[ALIASES];
	static char name[ALIASES][20];
	for (size_t i = 0; i < ALIASES; i++) {
		(void)snprintf(name[i], sizeof name[i], "a%zu@x.test", i);
		many[i] = (struct mw_rcpt){.addr = mw_strz(name[i]),
		                           .flags = r[1].flags,
		                           .mailbox = r[1].mailbox,
		                           .n_mailbox = r[1].n_mailbox};
	}
	if (x->harm == MANY || x->harm == MANY_BEHIND) {
		m.rcpt = many;
		m.n_rcpt = ALIASES;
	}
	for (size_t i = 0; i < MW_COUNT(x->via) && x->via[i]; i++)
		mw_buf_printf(&text,
		              "Received: from far.test (far.test [192.0.2.5])\r\n"
		              "\tby mx%zu.x.test (Postfix) with ESMTPS id %s\r\n"
		              "\tfor <anna@x.test>; Tue, 14 Nov 2023 22:13:20 +0000\r\n",
		              i, x->via[i]);
	mw_buf_printf(&text, "Message-ID: <1@far.test>\r\n\r\n%s\r\n", x->body);
	uint8_t id[MW_ID_LEN];
	struct mw_commit c = journaled(st, &m, text.p, text.n, id);
	if (x->harm >= REFUSED)
		note(st, x, id, c.seq);
	if (x->harm == DAMAGED)
		damage(dir, &c);
}

static void
begin(struct world *w, const struct mail *v)
{
	struct mw_err err = {0};
	char target[100];
	memset(w, 0, sizeof *w);
	for (int k = 0; k < HOSTS; k++) {
		struct mw_store *st = scratch_make(&w->place[k]);
		for (int i = 0; i < MOST && v[i].queue; i++)
			if (v[i].host == k)
				put(st, w->place[k].dir, &v[i]);
		mw_store_close(st);
		w->journal[k] = w->place[k].dir;
		w->store[k] = opened(
		    &(struct mw_store_opts){.dir = w->journal[k], .mode = MW_STORE_READ});
	}
	w->domain[0] = local;
	w->conf.mailbox_name = pattern;
	w->conf.recipient_delimiter = plus;
	w->conf.sent_folder = sent;
	w->conf.local_domains = (struct mw_conf_list){w->domain, 1};
	w->cli = (struct mw_cli){.conf = &w->conf,
	                         .journals = w->journal,
	                         .n_journals = HOSTS,
	                         .stores = w->store};
	(void)snprintf(target, sizeof target, "maildir:%s/box/%%u", w->place[0].root);
	struct mw_target_opts o = {.create = true};
	assert_int_equal(mw_target_new(target, &o, &w->target, &err), 0);
}

static void
end(struct world *w)
{
	mw_target_free(w->target);
	for (int k = 0; k < HOSTS; k++) {
		mw_store_close(w->store[k]);
		(void)scratch_remove(&w->place[k]);
	}
}

/* The plan in a word: for each copy its second, with '*' where it is wanted. */
static void
plan_for(const struct mail *v, int64_t since_second, int64_t until_second,
         const char *mailbox, const char *want)
{
	struct world w;
	struct mw_plan *p = NULL;
	struct mw_query q;
	struct mw_err err = {0};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO got = {0};
	size_t wanted = 0;
	begin(&w, v);
	mw_query_init(&q, a);
	q.all = true;
	if (since_second) {
		q.all = false;
		q.any_term = true;
		q.since_us = INT64_C(1700000000000000) + since_second * 1000000;
	}
	if (until_second) {
		q.all = false;
		q.any_term = true;
		q.until_us = INT64_C(1700000000000000) + until_second * 1000000;
	}
	const struct mw_plan_opts o = {.cli = &w.cli,
	                               .query = &q,
	                               .target = w.target,
	                               .mailbox = mailbox};
	if (mw_plan_make(&o, &p, &err) < 0)
		fail_msg("%s", err.msg);
	for (size_t b = 0; b < p->n_box; b++) {
		wanted += p->box[b].n_wanted;
		for (size_t i = 0; i < p->box[b].n; i++) {
			const struct mw_plan_copy *c = &p->box[b].v[i];
			mw_buf_printf(&got, " %d%s",
			              (int)(p->rec[c->rec].time_us / 1000000 -
			                    INT64_C(1700000000)),
			              c->wanted ? "*" : "");
		}
	}
	assert_string_equal(mw_buf_cstr(&got), want);
	assert_int_equal(wanted, p->n_wanted);
	mw_plan_free(p);
	end(&w);
}

static void
plan_is(const struct mail *v, int64_t since_second, const char *want)
{
	plan_for(v, since_second, 0, NULL, want);
	if (!since_second) /* one user's mail, as recover makes it */
		plan_for(v, 0, 0, "anna@x.test", want);
}

static void
a_relayed_message_is_one(void **state)
{
	static const struct mail two[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                      {1, "QB", {"QA"}, "x", 2, FINE}};
	static const struct mail three[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                        {1, "QB", {"QA"}, "x", 2, FINE},
	                                        {2, "QC", {"QB", "QA"}, "x", 3, FINE}};
	static const struct mail unseen[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                         {2, "QC", {"QB", "QA"}, "x", 3, FINE}};
	/* The clock of the second host is behind. */
	static const struct mail clocks[MOST] = {{0, "QA", {NULL}, "x", 9, FINE},
	                                         {1, "QB", {"QA"}, "x", 2, FINE}};
	(void)state;
	plan_is(two, 0, " 2*");
	plan_is(three, 0, " 3*");
	plan_is(unseen, 0, " 3*");
	plan_is(clocks, 0, " 2*");
	/* What selects one hop selects the message. */
	plan_is(two, 2, " 2*");
	plan_is(clocks, 5, " 2*");
}

/* The next host took it twice, since the first lost the answer. */
static void
two_later_records_stay_two(void **state)
{
	static const struct mail again[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                        {1, "QB", {"QA"}, "x", 2, FINE},
	                                        {1, "QC", {"QA"}, "x", 3, FINE}};
	(void)state;
	plan_is(again, 0, " 2* 3*");
}

static void
what_is_no_relay_stays(void **state)
{
	static const struct mail twice[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                        {1, "QB", {NULL}, "x", 2, FINE}};
	static const struct mail other_body[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                             {1, "QB", {"QA"}, "y", 2, FINE}};
	static const struct mail one_host[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                           {0, "QB", {"QA"}, "x", 2, FINE}};
	static const struct mail beside[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                         {1, "QB", {"QA"}, "x", 2, FINE},
	                                         {1, "QD", {"ZZ"}, "x", 3, FINE}};
	static const struct mail ring[MOST] = {{0, "QA", {"QB"}, "x", 1, FINE},
	                                       {1, "QB", {"QA"}, "x", 2, FINE}};
	static const struct mail nobody[MOST] = {{0, "", {NULL}, "x", 1, FINE},
	                                         {1, "", {""}, "x", 2, FINE}};
	(void)state;
	plan_is(twice, 0, " 1* 2*");
	plan_is(other_body, 0, " 1* 2*");
	plan_is(one_host, 0, " 1* 2*");
	plan_is(beside, 0, " 2* 3*");
	plan_is(beside, 3, " 2 3*");
	plan_is(ring, 0, " 1* 2*");
	plan_is(nobody, 0, " 1* 2*");
}

/* A later record that gives no mail cannot stand for one that does. */
static void
a_later_one_of_no_use_takes_nothing_away(void **state)
{
	static const struct mail refused[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                          {1, "QB", {"QA"}, "x", 2, REFUSED}};
	static const struct mail retried[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                          {1, "QB", {"QA"}, "x", 2, REFUSED},
	                                          {1, "QC", {"QA"}, "x", 3, FINE}};
	static const struct mail damaged[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                          {1, "QB", {"QA"}, "x", 2, DAMAGED}};
	static const struct mail bounced[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                          {1, "QB", {"QA"}, "x", 2, BOUNCED}};
	static const struct mail thrown[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                         {1, "QB", {"QA"}, "x", 2, DISCARDED}};
	(void)state;
	plan_is(bounced, 0, " 2*"); /* it had been taken */
	plan_is(thrown, 0, " 2*");
	plan_is(refused, 0, " 1* 2*");
	plan_is(retried, 0, " 2* 3*");
	plan_is(damaged, 0, " 1* 2*");
}

/* Many alike, on each host: each with its own. */
static void
each_goes_with_its_own(void **state)
{
	static const struct mail v[MOST] = {{0, "QA", {NULL}, "x", 1, FINE},
	                                    {0, "QB", {NULL}, "x", 2, FINE},
	                                    {0, "QC", {NULL}, "x", 3, FINE},
	                                    {1, "QD", {"QC"}, "x", 4, FINE},
	                                    {1, "QE", {"QA"}, "x", 5, FINE}};
	(void)state;
	plan_is(v, 0, " 2* 4* 5*");
}

/* Of an alias that only the next host resolved: the people behind it have it, unless the
 * selection leaves them out. Then its copy stays, so that it is named. */
static void
an_alias_goes_for_the_people_behind_it(void **state)
{
	static const struct mail v[MOST] = {{0, "QA", {NULL}, "x", 1, TEAM},
	                                    {1, "QB", {"QA"}, "x", 9, BEHIND}};
	(void)state;
	plan_for(v, 0, 0, NULL, " 9* 9*");
	plan_for(v, 0, 5, NULL, " 9* 1*"); /* anna, and team */
	/* What the next host has not taken yet for the one stays, though it is in the
	 * same mailbox as what it took for the other. */
	static const struct mail part[MOST] = {{0, "QA", {NULL}, "x", 1, TWO},
	                                       {1, "QB", {"QA"}, "x", 9, ONE}};
	plan_for(part, 0, 0, NULL, " 9* 1*");
	/* One of another site is on his way to no mailbox of ours. */
	static const struct mail away[MOST] = {{0, "QA", {NULL}, "x", 1, AWAY},
	                                       {1, "QB", {"QA"}, "x", 9, BEHIND}};
	plan_for(away, 0, 0, NULL, " 9* 9*");
	/* Of thousands, too, and in no time that grows with the cube of them. */
	static const struct mail many[MOST] = {{0, "QA", {NULL}, "x", 1, MANY},
	                                       {1, "QB", {"QA"}, "x", 9, MANY_BEHIND}};
	plan_for(many, 0, 0, NULL, " 9*");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_relayed_message_is_one),
	    cmocka_unit_test(two_later_records_stay_two),
	    cmocka_unit_test(what_is_no_relay_stays),
	    cmocka_unit_test(a_later_one_of_no_use_takes_nothing_away),
	    cmocka_unit_test(each_goes_with_its_own),
	    cmocka_unit_test(an_alias_goes_for_the_people_behind_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
