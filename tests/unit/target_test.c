/* TARGET grammar, and one suite that every file target passes: what is put is found again
 * with its bytes and its date; a failure leaves nothing half-written. */
#include "tests/support/putting.h"

#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const kinds[][2] = {{"maildir:", "/%u/Maildir"},
                                       {"mbox:", "/%n-%d"},
                                       {"eml:", "/eml"}};

static void
what_is_put_is_found_again(void **state)
{
	(void)state;
	for (size_t k = 0; k < 3; k++) {
		char text[200];
		struct world w = {.fail_at = -1};
		(void)snprintf(text, sizeof text, "%s%s%s", kinds[k][0], boxes,
		               kinds[k][1]);
		struct mw_target *t = target(text);
		look_into(t, &w); /* nothing there yet, and looking makes nothing */
		assert_int_equal(w.found, 0);
		put_all(t, &w);
		assert_int_equal(w.done, N);
		assert_int_equal(w.failed, 0);
		look_into(t, &w);
		assert_int_equal(w.found, N);
		for (size_t i = 0; i < N; i++)
			if (count_of(&w, i) != 1)
				fail_msg("%s: message %zu", text, i);
		forget(&w);
		put_all(t, &w); /* the same again: the target does not judge */
		look_into(t, &w);
		assert_int_equal(w.found, 2 * N);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count_of(&w, i), 2);
		forget(&w);
		mw_target_free(t);
	}
}

static void
a_record_that_breaks_half_way_leaves_nothing(void **state)
{
	(void)state;
	for (size_t k = 0; k < 3; k++) {
		char text[200];
		struct world w = {.fail_at = 3};
		(void)snprintf(text, sizeof text, "%s%s%s", kinds[k][0], boxes,
		               kinds[k][1]);
		struct mw_target *t = target(text);
		put_all(t, &w);
		assert_int_equal(w.done, N - 1);
		assert_int_equal(w.failed, 1);
		assert_string_equal(w.why, "the record is damaged");
		look_into(t, &w);
		assert_int_equal(w.found, N - 1);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count_of(&w, i), i != 3);
		forget(&w);
		mw_target_free(t);
	}
}

static void
bytes_in_files_are_the_captured_ones(void **state)
{
	(void)state;
	static const char *const exact[] = {"maildir", "eml"};
	for (size_t k = 0; k < 2; k++) {
		char text[200], path[100];
		struct world w = {.fail_at = -1};
		(void)snprintf(path, sizeof path, "%s/%s", boxes, exact[k]);
		(void)snprintf(text, sizeof text, "%s:%s", exact[k], path);
		struct mw_target *t = target(text);
		put_all(t, &w);
		mw_target_free(t);
		for (size_t i = 0; i < N; i++)
			assert_true(holds_file(path, messages[i]));
	}
}

static void
an_mbox_torn_by_a_dead_run_is_cut_back(void **state)
{
	(void)state;
	char text[200], path[120], lock[140], host[100] = "";
	struct world w = {.fail_at = -1};
	(void)snprintf(text, sizeof text, "mbox:%s/box", boxes);
	(void)snprintf(path, sizeof path, "%s/box", boxes);
	(void)snprintf(lock, sizeof lock, "%s.lock", path);
	struct mw_target *t = target(text);
	put_all(t, &w);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(access(lock, F_OK), -1);
	(void)gethostname(host, sizeof host - 1);
	FILE *f = fopen(lock, "w");
	/* No process has this number: beyond the kernel's largest. */
	(void)fprintf(f, "mailwal 4194999 %s %lld\n", host, (long long)st.st_size);
	(void)fclose(f);
	f = fopen(path, "a");
	(void)fputs("From x Thu Nov 19 10:00:00 2026\nMessage-ID: <to", f);
	(void)fclose(f);
	put_all(t, &w);
	look_into(t, &w);
	assert_int_equal(w.found, 2 * N);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(count_of(&w, i), 2);
	forget(&w);
	mw_target_free(t);
}

static void
write_box(const char *text)
{
	char path[100];
	(void)snprintf(path, sizeof path, "%s/box", boxes);
	write_text(path, text);
}

/* What others wrote need not end with the empty line before the next From_ line. */
static void
an_mbox_may_end_anywhere(void **state)
{
	(void)state;
#define FROM "From x Thu Nov 19 10:00:00 2026\nSubject: theirs\n\n"
	static const char *const ends[] = {
	    "",
	    "\n",
	    "\r\n",
	    FROM "no end",
	    FROM "one end\n",
	    FROM "two ends\n\n",
	    FROM "CRLF\r\n",
	    FROM "CRLF twice\r\n\r\n",
	    "From x Thu Nov 19 10:00:00 2026\nContent-Length: 4\n\nbody",
	    "From x Thu Nov 19 10:00:00 2026\nContent-Length: 5\n\nbody\n",
	};
	for (size_t k = 0; k < MW_COUNT(ends); k++) {
		char text[200];
		struct world w = {.fail_at = -1};
		write_box(ends[k]);
		(void)snprintf(text, sizeof text, "mbox:%s/box", boxes);
		struct mw_target *t = target(text);
		put_all(t, &w);
		look_into(t, &w);
		if (w.found != N + (strncmp(ends[k], "From ", 5) == 0))
			fail_msg("behind '%s' %zu are found", ends[k], (size_t)w.found);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count_of(&w, i), 1);
		forget(&w);
		mw_target_free(t);
	}
}

static void
a_target_is_understood_or_refused_clearly(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int code;
	} t[] = {
	    {"imap://host", MW_EUSAGE}, /* no password */
	    {"imap://", MW_EUSAGE},
	    {"imap://user@host", MW_EUSAGE},
	    {"imap://host:99999", MW_EUSAGE},
	    {"imap://[::1", MW_EUSAGE},
	    {"http://host", MW_EUSAGE},
	    {"host", MW_EUSAGE},
	    {"", MW_EUSAGE},
	    {"lmtp:host", MW_EUSAGE},
	    {"lmtp:host:24", MW_EUSAGE}, /* side effects not accepted */
	    {"lmtp:unix:relative", MW_EUSAGE},
	    {"smtp:host", MW_EUSAGE},
	    {"smtp:host:25", MW_EUSAGE}, /* side effects not accepted */
	    {"maildir:", MW_EUSAGE},
	    {"maildir:/x/%q", MW_EUSAGE},
	    {"maildir:/x/%", MW_EUSAGE},
	    {"maildir:/x/%d/%n", 0},
	    {"mbox:/x", 0},
	    {"eml:/x/", 0},
	};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct mw_target *tg = NULL;
		struct mw_err err = {0};
		struct mw_target_opts o = {0};
		if (mw_target_new(t[i].text, &o, &tg, &err) != t[i].code)
			fail_msg("%s: %s", t[i].text, err.msg);
		assert_int_equal(tg != NULL, t[i].code == 0);
		assert_int_equal(err.hint[0] != '\0', t[i].code != 0);
		mw_target_free(tg);
	}
}

static void
a_mailbox_name_never_leaves_its_place(void **state)
{
	(void)state;
	static const char *const bad[] = {"../etc", "a/b@x", ".hidden",
	                                  "",       "a\n@x", "x@../y"};
	struct mw_target *t = target("maildir:/srv/%d/%n/Maildir");
	struct mw_arena *a = mw_arena_new(0);
	struct mw_err err = {0};
	const char *box;
	assert_int_equal(mw_target_box(t, "alice@example.org", a, &box, &err), 0);
	assert_string_equal(box, "/srv/example.org/alice/Maildir");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(mw_target_box(t, bad[i], a, &box, &err), MW_ENOUSER);
	mw_arena_free(a);
	mw_target_free(t);
}

static void
passwords_are_found_by_mailbox(void **state)
{
	(void)state;
	char path[100], room[20];
	const char *pw;
	struct mw_target *t = NULL;
	struct mw_err err = {0};
	(void)snprintf(path, sizeof path, "%s/pw", boxes);
	FILE *f = fopen(path, "w");
	(void)fputs("alice@x:a:b \r\nbob@x:secret\n", f);
	(void)fclose(f);
	(void)chmod(path, 0600);
	struct mw_target_opts o = {.user_passwords = path};
	assert_int_equal(mw_target_new("imap://h", &o, &t, &err), 0);
	assert_int_equal(mw_target_password(t, "Alice@X", &pw, room, sizeof room, &err),
	                 0);
	assert_string_equal(pw, "a:b ");
	assert_int_equal(mw_target_password(t, "bob@x", &pw, room, sizeof room, &err), 0);
	assert_string_equal(pw, "secret");
	assert_int_equal(mw_target_password(t, "bob", &pw, room, sizeof room, &err),
	                 MW_EAUTH);
	mw_target_free(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_is_put_is_found_again, putting_setup,
	                                    putting_teardown),
	    cmocka_unit_test_setup_teardown(a_record_that_breaks_half_way_leaves_nothing,
	                                    putting_setup, putting_teardown),
	    cmocka_unit_test_setup_teardown(bytes_in_files_are_the_captured_ones,
	                                    putting_setup, putting_teardown),
	    cmocka_unit_test_setup_teardown(an_mbox_may_end_anywhere, putting_setup,
	                                    putting_teardown),
	    cmocka_unit_test_setup_teardown(an_mbox_torn_by_a_dead_run_is_cut_back,
	                                    putting_setup, putting_teardown),
	    cmocka_unit_test(a_target_is_understood_or_refused_clearly),
	    cmocka_unit_test(a_mailbox_name_never_leaves_its_place),
	    cmocka_unit_test_setup_teardown(passwords_are_found_by_mailbox, putting_setup,
	                                    putting_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
