/* Mail that passes without a record: by a capture section, or because mailwal put it
 * back; and what both mean when the journal cannot take mail. MW_TEST_THREADS */
#include "milter/session_int.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal/base/util.h"
#include "milter/control.h"
#include "tests/support/taking.h"

#include <cmocka.h>

static struct mw_conf *
settings(const char *text)
{
	char path[] = "/tmp/mw-passing-XXXXXX";
	struct mw_conf *c = NULL;
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
	int r = mw_conf_load(path, &c, &report, &err);
	(void)unlink(path);
	if (r < 0)
		fail_msg("%s %s", err.msg, mw_buf_cstr(&report));
	return c;
}

static void
use(const char *text)
{
	struct mw_err err = {0};
	if (mw_capture_reload(&cap, settings(text), &err) < 0)
		fail_msg("%s", err.msg);
}

static int
setup(void **state)
{
	(void)state;
	return taking_dir() < 0 ? -1 : taking_open(settings(""));
}

static int
teardown(void **state)
{
	(void)state;
	return taking_end();
}

/* ---- a session from a script ---- */

/* One message through a session of its own; what the MTA is told at its end, or at MAIL.
 */
static const char *
send(const char *args, const char *to, const char *header, const char *body)
{
	static struct mw_answer a;
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str v[] = {MW_STR("<a@b.test>"), mw_strz(args)}, name, value;
	struct mw_str list = mw_strz(to), one, rest = mw_strz(header), line;
	assert_int_equal(mw_session_mail(s, v, args ? 2 : 1, true, &a), 0);
	if (a.refuse) {
		mw_session_free(s);
		return a.code;
	}
	while (mw_str_cut(list, ' ', &one, &list)) {
		char addr[80];
		(void)snprintf(addr, sizeof addr, "<%.*s>", (int)one.n, one.p);
		rcpt(s, addr);
	}
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		assert_true(mw_str_cut(line, ':', &name, &value));
		assert_int_equal(mw_session_header(s, name, value), 0);
	}
	assert_int_equal(mw_session_eoh(s), 0);
	assert_int_equal(mw_session_body(s, body, strlen(body)), 0);
	const char *code = eom(s);
	mw_session_free(s);
	return code;
}

static uint64_t
records(void)
{
	struct got g;
	last(&g);
	uint64_t n = g.n;
	got_free(&g);
	return n;
}

static const char sections[] =
    "capture spam { match = spam:yes; journal = no }\n"
    "capture soft { match = rcpt:soft@b.test; on_failure = accept }\n"
    "capture boss { match = rcpt:boss@b.test; journal = no }\n";

static void
excluded_mail_leaves_a_count_and_no_record(void **state)
{
	(void)state;
	use(sections);
	uint64_t n = records();
	assert_string_equal(send(NULL, "x@b.test ", "X-Spam: yes\nSubject: a\n", "hi"),
	                    "250");
	assert_string_equal(send(NULL, "boss@b.test ", "Subject: a\n", "hi"), "250");
	assert_string_equal(send(NULL, "boss+1@b.test ", "Subject: a\n", "hi"), "250");
	assert_int_equal(records(), n);
	assert_int_equal(atomic_load(&cap.count.excluded), 3);
	assert_int_equal(cap.n_excluded, 2);
	assert_string_equal(cap.excluded[0].section, "spam");
	assert_int_equal(cap.excluded[0].messages, 1);
	assert_string_equal(cap.excluded[1].section, "boss");
	assert_int_equal(cap.excluded[1].messages, 2);
	assert_int_equal(cap.excluded[1].bytes, 2 * strlen("Subject: a\r\n\r\nhi"));
	MW_BUF_AUTO out = {0};
	mw_control_status(&cap, &out);
	assert_non_null(strstr(mw_buf_cstr(&out), "\"excluded\":3,\"excluded_by\":[{"
	                                          "\"section\":\"spam\",\"messages\":1"));
	assert_int_equal(atomic_load(&cap.count.at_eom), 0);
}

static void
one_who_is_kept_keeps_the_mail(void **state)
{
	(void)state;
	use(sections);
	uint64_t n = records();
	assert_string_equal(send(NULL, "boss@b.test x@b.test ", "Subject: a\n", "hi"),
	                    "250");
	struct got g;
	last(&g);
	assert_int_equal(g.n, n + 1);
	assert_int_equal(g.mail.n_rcpt, 2);
	assert_int_equal(g.mail.rcpt[0].flags, MW_RCPT_LOCAL | MW_RCPT_EXCLUDED);
	assert_int_equal(g.mail.rcpt[1].flags, MW_RCPT_LOCAL);
	got_free(&g);
}

static void
trouble_meets_each_class_as_it_should(void **state)
{
	(void)state;
	static const struct {
		const char *to, *header, *code;
	} cases[] = {
	    {"x@b.test ", "Subject: a\n", "451"},
	    {"x@b.test ", "X-Spam: yes\n", "250"},
	    {"boss@b.test ", "Subject: a\n", "250"},
	    {"soft@b.test ", "Subject: a\n", "250"},
	    {"soft@b.test x@b.test ", "Subject: a\n", "451"},
	    {"soft@b.test boss@b.test ", "Subject: a\n", "250"},
	};
	use(sections);
	for (int trouble = 0; trouble < 3; trouble++) {
		uint64_t n = records(),
		         passed = atomic_load(&cap.count.passed_unjournaled);
		if (trouble == 0)
			atomic_store(&fail_sync, 1);
		else if (trouble == 1)
			atomic_store(&free_mib, 1);
		else /* beyond a limit: the entry is given up while content comes */
			use("message_limit = 6\ncapture spam { match = spam:yes; journal "
			    "= no }\n"
			    "capture soft { match = rcpt:soft@b.test; on_failure = "
			    "accept }\n"
			    "capture boss { match = rcpt:boss@b.test; journal = no }\n");
		for (size_t i = 0; i < MW_COUNT(cases); i++) {
			const char *want = cases[i].code,
			           *got = send(NULL, cases[i].to, cases[i].header, "hi");
			if (trouble == 2 && strcmp(want, "451") == 0)
				want = "552";
			if (strcmp(got, want) != 0)
				fail_msg("trouble %d, %s: %s, not %s", trouble,
				         cases[i].to, got, want);
		}
		atomic_store(&fail_sync, 0);
		atomic_store(&free_mib, 1 << 20);
		if (trouble > 0) /* what a sync failed for is not promised absent */
			assert_int_equal(records(), n);
		assert_int_equal(atomic_load(&cap.count.passed_unjournaled), passed + 2);
	}
	/* without such sections MAIL is refused at once */
	use("");
	atomic_store(&free_mib, 1);
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str v[] = {MW_STR("<a@b.test>")};
	struct mw_answer a;
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_true(a.refuse);
	mw_session_free(s);
	atomic_store(&free_mib, 1 << 20);
}

/* Memory ran out before the envelope was whole: nobody knows the mail's class. */
static void
an_unknown_class_is_met_with_the_strictest(void **state)
{
	(void)state;
	static const struct {
		const char *conf, *code;
	} cases[] = {
	    {"", "451"},
	    {"on_failure = accept\n", "250"},
	    {"on_failure = accept\ncapture law { match = rcpt:law@b.test; on_failure = "
	     "tempfail }\n",
	     "451"},
	    {"on_failure = accept\ncapture soft { match = rcpt:x@b.test; on_failure = "
	     "accept }\n",
	     "250"},
	    {"on_failure = tempfail\ncapture soft { match = rcpt:x@b.test; on_failure = "
	     "accept }\n",
	     "451"},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		use(cases[i].conf);
		struct mw_session *s = mw_session_new(&cap);
		struct mw_str from[] = {MW_STR("<a@b.test>")},
		              to[] = {MW_STR("<x@b.test>")};
		struct mw_answer a;
		assert_int_equal(mw_session_mail(s, from, 1, true, &a), 0);
		assert_int_equal(mw_session_rcpt(s, to, 1, false, &a), 0);
		s->lost = true;
		const char *got = eom(s);
		if (strcmp(got, cases[i].code) != 0)
			fail_msg("case %zu: %s, not %s", i, got, cases[i].code);
		mw_session_free(s);
	}
}

static void
token_for(const char *rcpt, const char *content, char envid[MW_GUARD_TOKEN + 8])
{
	char token[MW_GUARD_TOKEN];
	uint8_t key[MW_GUARD_KEY];
	struct mw_guard_body b;
	struct mw_guard g = {.rcpt = mw_strz(rcpt)};
	g.time_us = cap.clock->now_us(cap.clock);
	mw_id_new(g.id);
	assert_int_equal(mw_guard_body_init(&b), 0);
	mw_guard_body_put(&b, content, strlen(content));
	mw_guard_body_done(&b, g.body);
	mw_guard_key(store, key);
	mw_guard_make(key, &g, token);
	(void)snprintf(envid, MW_GUARD_TOKEN + 8, "ENVID=%s", token);
}

static void
what_mailwal_puts_back_is_not_journaled_again(void **state)
{
	(void)state;
	char envid[MW_GUARD_TOKEN + 8];
	use("");
	assert_string_equal(send(NULL, "x@b.test ", "Subject: a\n", "hi"), "250");
	uint64_t n = records();
	token_for("x@b.test", "Subject: a\r\n\r\nhi\r\n", envid);
	assert_string_equal(send(envid, "x@b.test ", "X-Added: by a filter\nSubject: a\n",
	                         "hi\r\n"),
	                    "250");
	assert_int_equal(atomic_load(&cap.count.replayed), 1);
	assert_int_equal(records(), n);
	/* who learns the token can do nothing with it */
	assert_string_equal(send(envid, "x@b.test ", "Subject: b\n", "hi\r\n"), "250");
	assert_int_equal(atomic_load(&cap.count.replayed), 1);
	assert_int_equal(records(), ++n);
	/* also when the journal is in trouble: there is nothing to write */
	token_for("x@b.test", "Subject: a\r\n\r\nhi\r\n", envid);
	atomic_store(&free_mib, 1);
	assert_string_equal(send(envid, "x@b.test ", "Subject: a\n", "hi\r\n"), "250");
	assert_string_equal(send(envid, "x@b.test ", "Subject: a\n", "no\r\n"), "451");
	atomic_store(&free_mib, 1 << 20);
	assert_int_equal(atomic_load(&cap.count.replayed), 2);
	/* another body, another recipient, one more recipient, a token of nobody */
	token_for("x@b.test", "Subject: a\r\n\r\nhi\r\n", envid);
	assert_string_equal(send(envid, "x@b.test ", "Subject: a\n", "ho\r\n"), "250");
	assert_string_equal(send(envid, "y@b.test ", "Subject: a\n", "hi\r\n"), "250");
	assert_string_equal(send(envid, "x@b.test y@b.test ", "Subject: a\n", "hi\r\n"),
	                    "250");
	envid[60] = envid[60] == '0' ? '1' : '0';
	assert_string_equal(send(envid, "x@b.test ", "Subject: a\n", "hi\r\n"), "250");
	assert_string_equal(send("ENVID=somebody-else", "x@b.test ", "A: b\n", "hi"),
	                    "250");
	assert_int_equal(records(), n + 5);
	assert_int_equal(atomic_load(&cap.count.replayed), 2);
}

static void
through_a_proxy_too(void **state)
{
	(void)state;
	static const char content[] = "Received: from a\r\nSubject: a\r\n\r\nhi\r\n";
	char envid[MW_GUARD_TOKEN + 8];
	struct mw_answer a;
	uint64_t n = records(), seq;
	uint8_t id[MW_ID_LEN];
	token_for("x@b.test", "Subject: a\r\n\r\nhi\r\n", envid);
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str v[] = {MW_STR("<a@b.test>"), MW_STR("SIZE=40"), mw_strz(envid)};
	mw_session_front(s, "smtp");
	assert_int_equal(mw_session_mail(s, v, 3, true, &a), 0);
	rcpt(s, "<x@b.test>");
	for (size_t i = 0; content[i]; i++)
		assert_int_equal(mw_session_content(s, content + i, 1), 0);
	struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
	assert_int_equal(mw_session_eom(s, on_done, &w, &a), 1);
	assert_true(w.done); /* nothing to wait for */
	assert_false(mw_session_record(s, id, &seq));
	mw_session_finish(s, &a);
	assert_false(a.refuse);
	mw_session_free(s);
	assert_int_equal(records(), n);
}

/* ---- what comes back without a token ---- */

/* One message through the proxy's session s; delivered: the next server takes it. */
static void
relay(struct mw_session *s, const char *from, const char *to, const char *content,
      bool delivered)
{
	struct mw_answer a;
	struct mw_str v[] = {mw_strz(from)}, list = mw_strz(to), one;
	struct waiter w = MW_WAITER;
	mw_session_front(s, "lmtp");
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	while (mw_str_cut(list, ' ', &one, &list)) {
		char addr[80];
		(void)snprintf(addr, sizeof addr, "<%.*s>", (int)one.n, one.p);
		rcpt(s, addr);
	}
	size_t n = strlen(content);
	for (size_t i = 0; i < n; i += 3)
		assert_int_equal(mw_session_content(s, content + i,
		                                    MW_MIN(n - i, (size_t)3)),
		                 0);
	if (mw_session_eom(s, on_done, &w, &a) == 1) {
		wait_done(&w);
		mw_session_finish(s, &a);
	}
	assert_false(a.refuse);
	if (delivered)
		mw_session_delivered(s);
	mw_session_abort(s);
}

static void
expect_back(const char *content, const char *from, const char *to)
{
	uint8_t key[MW_GUARD_KEY], tag[MW_TRAIL_TAG], id[MW_ID_LEN];
	struct mw_trail t;
	struct got g;
	struct mw_err err = {0};
	last(&g);
	const struct mw_trail_of of = {mw_strz(from), mw_strz(to), g.mail.digest};
	mw_trail_init(&t);
	mw_trail_put(&t, content, strlen(content));
	mw_trail_end(&t);
	mw_guard_key(store, key);
	mw_id_new(id);
	assert_true(mw_trail_tag(&t, key, &of, 0, tag));
	assert_int_equal(mw_coming_tell(&cap.coming, tag, id,
	                                cap.clock->now_us(cap.clock), &err),
	                 0);
	got_free(&g);
}

#define HOP "Received: by mx id 2\r\n"
#define WAS "Received: by mx id 1\r\nSubject: a\r\n\r\nhi\r\n"

static void
what_was_told_comes_back_once(void **state)
{
	(void)state;
	use("");
	struct mw_session *s = mw_session_new(&cap);
	relay(s, "<a@b.test>", "x@b.test ", WAS, true);
	uint64_t n = records(), replayed = atomic_load(&cap.count.replayed);
	expect_back(WAS, "", "X@B.test");
	static const struct {
		const char *from, *to, *content;
	} other[] = {
	    {"<>", "x@b.test ", WAS}, /* brought twice by a queue */
	    {"<a@b.test>", "x@b.test ", HOP WAS},
	    {"<>", "y@b.test ", HOP WAS},
	    {"<>", "x@b.test y@b.test ", HOP WAS},
	    {"<>", "x@b.test ", HOP WAS "ho\r\n"},
	    {"<>", "x@b.test ", HOP "X: y\r\n" WAS},
	    {"<>", "x@b.test ", HOP HOP HOP HOP HOP HOP HOP HOP HOP WAS}, /* a loop */
	    {"<>", "x@b.test ", HOP "Subject: a\r\n\r\nhi\r\n"},          /* sent again */
	    {"<>", "x@b.test ", "\r\n" HOP WAS},
	    {"<>", "x@b.test ", "x"},
	};
	for (size_t i = 0; i < MW_COUNT(other); i++)
		relay(s, other[i].from, other[i].to, other[i].content, true);
	assert_int_equal(records(), n += MW_COUNT(other));
	assert_int_equal(atomic_load(&cap.count.replayed), replayed);
	/* it, until it is delivered, whatever session brings it; then no more */
	relay(s, "<>", "x@b.test ", "Return-Path: <>\r\n" HOP WAS, false);
	mw_session_free(s);
	s = mw_session_new(&cap);
	relay(s, "<>", "x@b.test ", HOP WAS, false);
	relay(s, "<>", "x@b.test ", HOP HOP HOP HOP HOP HOP HOP HOP WAS, true);
	assert_int_equal(records(), n);
	assert_int_equal(atomic_load(&cap.count.replayed), replayed + 3);
	relay(s, "<>", "x@b.test ", HOP WAS, true);
	assert_int_equal(records(), n + 1);
	mw_session_free(s);
}

static void
what_was_told_over_a_restart_and_in_trouble(void **state)
{
	(void)state;
	use("");
	struct mw_session *s = mw_session_new(&cap);
	relay(s, "<a@b.test>", "x@b.test ", WAS, true);
	uint64_t n = records();
	expect_back(WAS, "", "x@b.test");
	mw_session_free(s);
	struct mw_capture other;
	struct mw_err err = {0};
	assert_int_equal(mw_capture_init(&other, store, settings(""), &err), 0);
	s = mw_session_new(&other);
	relay(s, "<>", "x@b.test ", HOP WAS, false);
	assert_int_equal(atomic_load(&other.count.replayed), 1);
	mw_session_free(s);
	mw_capture_settle(&other);
	mw_capture_done(&other);
	assert_int_equal(records(), n);
	/* a journal that takes nothing does not know what it is */
	struct mw_str v[] = {MW_STR("<>")};
	struct mw_answer a;
	s = mw_session_new(&cap);
	atomic_store(&free_mib, 1);
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_true(a.refuse);
	atomic_store(&free_mib, 1 << 20);
	relay(s, "<>", "x@b.test ", HOP WAS, true);
	assert_int_equal(records(), n);
	mw_session_free(s);
}

static void
what_passed_is_remembered_until_told(void **state)
{
	(void)state;
	struct mw_capture other;
	struct mw_passed p;
	struct mw_err err = {0};
	use("");
	assert_int_equal(mw_capture_acknowledge(&cap, &err), 0);
	uint64_t before = cap.passed.count;
	use("on_failure = accept\n");
	atomic_store(&free_mib, 1);
	for (int i = 0; i < 3; i++)
		assert_string_equal(send(NULL, "x@b.test ", "A: b\n", "hi"), "250");
	atomic_store(&free_mib, 1 << 20);
	for (int i = 0; i < 24000; i++) { /* written by another thread */
		assert_int_equal(mw_passed_read(journal, &p, &err), 0);
		if (p.count == before + 3)
			break;
		(void)usleep(5000);
	}
	assert_int_equal(p.count, before + 3);
	assert_int_equal(p.acknowledged, before);
	assert_true(p.first_us > 0 && p.first_us <= p.last_us);
	/* a daemon that starts knows of them */
	assert_int_equal(mw_capture_init(&other, store, settings(""), &err), 0);
	assert_int_equal(other.passed.count - other.passed.acknowledged, 3);
	assert_int_equal(mw_capture_acknowledge(&other, &err), 0);
	mw_capture_done(&other);
	assert_int_equal(mw_passed_read(journal, &p, &err), 0);
	assert_int_equal(p.acknowledged, p.count);
	assert_int_equal(p.first_us, 0);
	/* damage is told, and repaired by the next who writes */
	char path[100];
	(void)snprintf(path, sizeof path, "%s/passed", journal);
	FILE *f = fopen(path, "r+");
	assert_non_null(f);
	assert_int_equal(fseek(f, 25, SEEK_SET), 0);
	assert_int_equal(fputs("9", f) < 0, 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(mw_passed_read(journal, &p, &err), MW_EDAMAGED);
	assert_int_equal(mw_capture_acknowledge(&cap, &err), 0);
	assert_int_equal(mw_passed_read(journal, &p, &err), 0);
	assert_int_equal(p.count, before + 3);
}

/* A message of n bytes that has not come to its end. */
static struct mw_session *
half(size_t n)
{
	static char chunk[65536];
	struct mw_session *s = mw_session_new(&cap);
	struct mw_str v[] = {MW_STR("<a@b.test>")};
	struct mw_answer a;
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_false(a.refuse);
	rcpt(s, "<x@b.test>");
	assert_int_equal(mw_session_eoh(s), 0);
	for (; n; n -= MW_MIN(n, sizeof chunk))
		assert_int_equal(mw_session_body(s, chunk, MW_MIN(n, sizeof chunk)), 0);
	return s;
}

static void
too_much_at_a_time_is_not_taken(void **state)
{
	(void)state;
	use("memory_limit = 16M\nmemory_per_message = 8M\n");
	assert_int_equal(atomic_load(&cap.count.in_flight), 0);
	struct mw_session *one = half(300000), *two = half(300000), *small = half(1000);
	assert_int_equal(atomic_load(&cap.count.overloaded), 1); /* two */
	assert_string_equal(eom(two), "451");
	assert_string_equal(eom(small), "250");
	struct mw_session *three = half(300000);
	assert_string_equal(eom(one), "250");
	assert_string_equal(eom(three), "451");
	assert_string_equal(eom(three = (mw_session_free(three), half(300000))), "250");
	mw_session_free(three);
	mw_session_free(one);
	mw_session_free(two);
	mw_session_free(small);
	small = half(1000);
	assert_true(atomic_load(&cap.count.in_flight) >= 17000);
	mw_session_free(small); /* one that is dropped gives back too */
	assert_int_equal(atomic_load(&cap.count.in_flight), 0);
}

static void
a_disk_that_hangs_is_waited_for_so_long_only(void **state)
{
	(void)state;
	struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
	struct mw_answer a;
	use("commit_timeout = 3s\nqueue_age_limit = 1s\n");
	uint64_t n = records();
	atomic_store(&hang, 1);
	struct mw_session *s = half(1000);
	assert_int_equal(mw_session_eom(s, on_done, &w, &a), 1);
	assert_false(mw_session_overdue(s));
	(void)usleep(3100 * 1000);
	assert_true(mw_session_overdue(s));
	assert_false(mw_session_overdue(s));
	mw_session_finish(s, &a);
	assert_true(a.refuse);
	assert_string_equal(a.code, "451");
	/* whoever comes next is told at once; the session goes on */
	struct mw_str v[] = {MW_STR("<a@b.test>")};
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_true(a.refuse);
	mw_session_free(s);
	atomic_store(&hang, 0);
	assert_int_equal(mw_store_roll(store, &(struct mw_err){0}), 0);
	assert_false(w.done);               /* the answer that came late reached nobody */
	assert_int_equal(records(), n + 1); /* durable nevertheless */
	assert_string_equal(send(NULL, "x@b.test ", "A: b\n", "hi"), "250");
	assert_int_equal(atomic_load(&cap.count.at_eom), 0);
	assert_int_equal(atomic_load(&cap.count.in_flight), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(excluded_mail_leaves_a_count_and_no_record),
	    cmocka_unit_test(one_who_is_kept_keeps_the_mail),
	    cmocka_unit_test(trouble_meets_each_class_as_it_should),
	    cmocka_unit_test(an_unknown_class_is_met_with_the_strictest),
	    cmocka_unit_test(what_mailwal_puts_back_is_not_journaled_again),
	    cmocka_unit_test(through_a_proxy_too),
	    cmocka_unit_test(what_was_told_comes_back_once),
	    cmocka_unit_test(what_was_told_over_a_restart_and_in_trouble),
	    cmocka_unit_test(what_passed_is_remembered_until_told),
	    cmocka_unit_test(too_much_at_a_time_is_not_taken),
	    cmocka_unit_test(a_disk_that_hangs_is_waited_for_so_long_only),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
