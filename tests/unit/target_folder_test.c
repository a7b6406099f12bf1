/* Folders of Maildirs as targets: --folder and folders that mail is imported with, in
 * every layout, by names that lead elsewhere and links that do. */
#include "tests/support/putting.h"

#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The same, in a Maildir of Courier's: lines end in LF. */
static bool
holds_lf(const char *path, const char *want)
{
	char text[500];
	size_t n = 0;
	for (const char *p = want; *p && n + 1 < sizeof text; p++)
		if (p[0] != '\r' || p[1] != '\n')
			text[n++] = *p;
	text[n] = '\0';
	return holds_file(path, text);
}

/* --folder: everything goes there, and is found there. */
static void
a_folder_takes_everything(void **state)
{
	(void)state;
	static const char *const names[][2] = {{"Zur\xc3\xbc"
	                                        "ck/2026",
	                                        ".Zur&APw-ck.2026/new"},
	                                       {"inbox", "new"},
	                                       {"Sent", ".Sent/new"}};
	for (size_t k = 0; k < MW_COUNT(names); k++) {
		char text[200], path[300];
		struct mw_err err = {0};
		struct mw_target *t = NULL;
		struct mw_target_opts o = {.create = true, .folder = names[k][0]};
		struct world w = {.fail_at = -1};
		(void)snprintf(text, sizeof text, "maildir:%s/box%zu", boxes, k);
		assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
		put_all(t, &w);
		assert_int_equal(w.done, N);
		(void)snprintf(path, sizeof path, "%s/box%zu/%s", boxes, k, names[k][1]);
		for (size_t i = 0; i < N; i++)
			assert_true(holds_file(path, messages[i]));
		look_into(t, &w);
		assert_int_equal(w.found, N);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count_of(&w, i), 1);
		assert_false(w.any_sent);
		forget(&w);
		mw_target_free(t);
	}
}

static void
assert_text(const char *path, const char *want)
{
	char got[500];
	FILE *f = fopen(path, "r");
	if (!f)
		fail_msg("%s is not there", path);
	got[fread(got, 1, sizeof got - 1, f)] = '\0';
	(void)fclose(f);
	assert_string_equal(got, want);
}

/* Maildirs as servers leave them: the file that settles the layout, where the folder lies
 * then, and what the list of subscriptions says afterwards. */
static void
layouts(void **state)
{
	static const struct {
		enum mw_layout wish;
		const char *file, *text; /* that stands there before */
		const char *folder;      /* a directory that stands there before */
		const char *path, *list, *listed;
	} v[] = {
	    {MW_LAYOUT_AUTO, "courierimapsubscribed", "INBOX.Sent\n", NULL,
	     ".A&APw-.b/new", "courierimapsubscribed", "INBOX.Sent\nINBOX.A&APw-.b\n"},
	    {MW_LAYOUT_AUTO, "courierimapuiddb", "1 1 1\n", NULL, ".A&APw-.b/new",
	     "courierimapsubscribed", "INBOX.A&APw-.b\n"},
	    {MW_LAYOUT_COURIER, "x", "", NULL, ".A&APw-.b/new", "courierimapsubscribed",
	     "INBOX.A&APw-.b\n"},
	    {MW_LAYOUT_AUTO, "subscriptions", "V\t2\n\nSent\n", NULL, ".A&APw-.b/new",
	     "subscriptions", "V\t2\n\nSent\nA&APw-\tb\n"},
	    {MW_LAYOUT_AUTO, "subscriptions", "Sent", NULL, ".A&APw-.b/new",
	     "subscriptions", "Sent\nA&APw-.b\n"},
	    {MW_LAYOUT_AUTO, "subscriptions", "A&APw-.b\n", NULL, ".A&APw-.b/new",
	     "subscriptions", "A&APw-.b\n"},
	    {MW_LAYOUT_AUTO, "x", "", NULL, ".A&APw-.b/new", "subscriptions",
	     "A&APw-.b\n"},
	    {MW_LAYOUT_AUTO, "x", "", "Old/2020", "A&APw-/b/new", "subscriptions",
	     "A&APw-/b\n"},
	    {MW_LAYOUT_FS, "x", "", NULL, "A&APw-/b/new", "subscriptions", "A&APw-/b\n"},
	    {MW_LAYOUT_PLUS, "x", "", "Old", ".A&APw-.b/new", "subscriptions",
	     "A&APw-.b\n"},
	};
	(void)state;
	for (size_t k = 0; k < MW_COUNT(v); k++) {
		char text[200], path[400], cmd[600];
		struct mw_err err = {0};
		struct mw_target *t = NULL;
		struct mw_target_opts o = {.create = true,
		                           .layout = v[k].wish,
		                           .folder = "A\xc3\xbc/b"};
		struct world w = {.fail_at = -1};
		(void)snprintf(cmd, sizeof cmd,
		               "mkdir -p '%s/lay%zu/cur' '%s/lay%zu/new' '%s/lay%zu/tmp' "
		               "'%s/lay%zu/%s/cur' '%s/lay%zu/%s/new'",
		               boxes, k, boxes, k, boxes, k, boxes, k,
		               v[k].folder ? v[k].folder : "", boxes, k,
		               v[k].folder ? v[k].folder : "");
		assert_int_equal(system(cmd), 0);
		(void)snprintf(path, sizeof path, "%s/lay%zu/%s", boxes, k, v[k].file);
		write_text(path, v[k].text);
		(void)snprintf(path, sizeof path, "%s/lay%zu/maildirsize", boxes, k);
		write_text(path, "1000S\n0 0\n");
		(void)snprintf(text, sizeof text, "maildir:%s/lay%zu", boxes, k);
		assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
		put_all(t, &w);
		assert_int_equal(w.done, N);
		(void)snprintf(path, sizeof path, "%s/lay%zu/%s", boxes, k, v[k].path);
		bool courier = strncmp(v[k].list, "courier", 7) == 0;
		for (size_t i = 0; i < N; i++)
			assert_true(courier ? holds_lf(path, messages[i])
			                    : holds_file(path, messages[i]));
		(void)snprintf(path, sizeof path, "%s/lay%zu/%s", boxes, k, v[k].list);
		assert_text(path, v[k].listed);
		(void)snprintf(path, sizeof path, "%s/lay%zu/%.10s/maildirfolder", boxes,
		               k, v[k].path);
		assert_int_equal(access(path, F_OK), v[k].path[0] == '.' ? 0 : -1);
		look_into(t, &w);
		assert_int_equal(w.found, N);
		forget(&w);
		mw_target_free(t);
	}
}

/* A folder that is reached by several links is one, and a circle ends. */
static void
links_are_followed_once(void **state)
{
	char text[200], cmd[900];
	struct mw_err err = {0};
	struct mw_target *t = NULL;
	struct mw_target_opts o = {.create = true, .layout = MW_LAYOUT_FS, .folder = "A"};
	struct world w = {.fail_at = -1};
	(void)state;
	(void)snprintf(text, sizeof text, "maildir:%s/ring", boxes);
	assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
	put_all(t, &w);
	(void)snprintf(cmd, sizeof cmd,
	               "cd '%s/ring' && ln -s A B && ln -s .. A/up && ln -s . self",
	               boxes);
	assert_int_equal(system(cmd), 0);
	look_into(t, &w);
	assert_int_equal(w.found, N);
	forget(&w);
	mw_target_free(t);
}

/* Puts the messages as mail that was in a folder; what a look then finds. */
static void
put_into(const char *text, enum mw_layout layout, const char *folder, struct world *w)
{
	struct mw_err err = {0};
	struct mw_target *t = NULL;
	struct mw_target_opts o = {.create = true, .layout = layout};
	struct mw_put v[N];
	struct mw_put_io io = putting_io(w, NULL);
	*w = (struct world){.fail_at = -1};
	assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
	for (size_t i = 0; i < N; i++)
		v[i] = (struct mw_put){.time_us = T,
		                       .size = strlen(messages[i]),
		                       .folder = folder,
		                       .ref = (void *)(uintptr_t)&messages[i]};
	struct mw_arena *a = mw_arena_new(0);
	const char *box;
	assert_int_equal(mw_target_box(t, "alice", a, &box, &err), 0);
	if (mw_target_open(t, "alice", box, false, &err) ||
	    mw_target_begin(t, &err) != 0 || mw_target_put(t, v, N, &io, &err))
		fail_msg("%s: %s", text, err.msg);
	assert_int_equal(mw_target_close(t, &err), 0);
	mw_arena_free(a);
	look_into(t, w);
	mw_target_free(t);
}

/* What a folder's name may be is up to the store that mail is imported from. */
static void
imported_folders_stay_in_their_maildir(void **state)
{
	static char deep[101], wide[200];
	static const struct {
		const char *folder;
		enum mw_layout layout;
		const char *path; /* NULL: INBOX */
	} v[] = {
	    {"Archive/2020", MW_LAYOUT_PLUS, ".Archive.2020/new"},
	    {"Archive/2020", MW_LAYOUT_FS, "Archive/2020/new"},
	    {"a.b", MW_LAYOUT_FS, "a.b/new"},
	    {"cur", MW_LAYOUT_PLUS, ".cur/new"},
	    /* these cannot be, or the server would not show them */
	    {".", MW_LAYOUT_PLUS, NULL},
	    {"..", MW_LAYOUT_PLUS, NULL},
	    {"../x", MW_LAYOUT_PLUS, NULL},
	    {"Fa.", MW_LAYOUT_PLUS, NULL},
	    {".a", MW_LAYOUT_COURIER, NULL},
	    {"a..b", MW_LAYOUT_PLUS, NULL},
	    {".", MW_LAYOUT_FS, NULL},
	    {"..", MW_LAYOUT_FS, NULL},
	    {"a/../../b", MW_LAYOUT_FS, NULL},
	    {"a/cur", MW_LAYOUT_FS, NULL},
	    {deep, MW_LAYOUT_FS, NULL},
	    {wide, MW_LAYOUT_PLUS, NULL},
	    {wide, MW_LAYOUT_FS, NULL},
	    /* no scan looks for them there */
	    {"Sent", MW_LAYOUT_PLUS, NULL},
	    {"Sent", MW_LAYOUT_FS, NULL},
	};
	(void)state;
	for (size_t i = 0; i < 100; i++)
		deep[i] = i % 2 ? '/' : 'a';
	deep[99] = '\0';
	for (size_t i = 0; i < 198; i++)
		wide[i] = "\xc3\xbcx"[i % 3];
	for (size_t k = 0; k < MW_COUNT(v); k++) {
		char text[200], path[300], cmd[300];
		struct world w;
		(void)snprintf(text, sizeof text, "maildir:%s/%zu/in/box", boxes, k);
		(void)snprintf(path, sizeof path, "%s/%zu/in/box/%s", boxes, k,
		               v[k].path ? v[k].path : "new");
		put_into(text, v[k].layout, v[k].folder, &w);
		if (w.done != N || w.failed || w.found != N || w.any_sent)
			fail_msg("%zu %s: %zu put, %zu not, %zu found%s", k, v[k].folder,
			         w.done, w.failed, w.found, w.any_sent ? ", sent" : "");
		for (size_t i = 0; i < N; i++)
			if (!(v[k].layout == MW_LAYOUT_COURIER
			          ? holds_lf(path, messages[i])
			          : holds_file(path, messages[i])))
				fail_msg("%zu %s: not in %s", k, v[k].folder, path);
		(void)snprintf(cmd, sizeof cmd, "test \"$(ls -A '%s/%zu/in')\" = box",
		               boxes, k);
		assert_int_equal(system(cmd), 0);
		forget(&w);
	}
}

/* The levels of a folder are its user's; where they lead, root makes nothing. */
static void
links_lead_root_nowhere(void **state)
{
	static const char *const link[][3] = {{"A", "A/b", "fs"}, {".A", "A", "plus"}};
	(void)state;
	if (geteuid() != 0)
		skip();
	for (size_t k = 0; k < MW_COUNT(link); k++) {
		char text[200], cmd[600];
		struct world w;
		(void)snprintf(cmd, sizeof cmd,
		               "cd '%s' && mkdir -p %zu/cur %zu/new %zu/tmp out%zu && "
		               "ln -s ../out%zu %zu/%s",
		               boxes, k, k, k, k, k, k, link[k][0]);
		assert_int_equal(system(cmd), 0);
		(void)snprintf(text, sizeof text, "maildir:%s/%zu", boxes, k);
		put_into(text, k ? MW_LAYOUT_PLUS : MW_LAYOUT_FS, link[k][1], &w);
		assert_int_equal(w.failed, N);
		assert_non_null(strstr(w.why, "symbolic link"));
		forget(&w);
		(void)snprintf(cmd, sizeof cmd, "test -z \"$(ls -A '%s/out%zu')\"", boxes,
		               k);
		assert_int_equal(system(cmd), 0);
	}
}

static void
a_folder_name_is_checked(void **state)
{
	(void)state;
	static const char *const bad[] = {"",          "/",
	                                  "/a",        "a/",
	                                  "a//b",      "a\nb",
	                                  "a\x7f",     "\xff",
	                                  "a\xc2\x85", "mailwal-staging",
	                                  "a%",        "*"};
	struct mw_err err = {0};
	char name[300];
	for (size_t k = 0; k < MW_COUNT(bad); k++)
		assert_int_equal(mw_target_folder_check(bad[k], &err), MW_EUSAGE);
	memset(name, 'a', sizeof name);
	name[201] = '\0';
	assert_int_equal(mw_target_folder_check(name, &err), MW_EUSAGE);
	name[200] = '\0';
	assert_int_equal(mw_target_folder_check(name, &err), 0);
	assert_int_equal(mw_target_folder_check("Zur\xc3\xbc"
	                                        "ck/a b.c",
	                                        &err),
	                 0);
	struct mw_target_opts o = {.create = true, .folder = "Back"};
	struct mw_target *t = NULL;
	(void)snprintf(name, sizeof name, "mbox:%s/box", boxes);
	assert_int_equal(mw_target_new(name, &o, &t, &err), MW_EUSAGE);
	assert_non_null(strstr(err.msg, "--folder"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_folder_takes_everything, putting_setup,
	                                    putting_teardown),
	    cmocka_unit_test_setup_teardown(a_folder_name_is_checked, putting_setup,
	                                    putting_teardown),
	    cmocka_unit_test_setup_teardown(layouts, putting_setup, putting_teardown),
	    cmocka_unit_test_setup_teardown(links_are_followed_once, putting_setup,
	                                    putting_teardown),
	    cmocka_unit_test_setup_teardown(imported_folders_stay_in_their_maildir,
	                                    putting_setup, putting_teardown),
	    cmocka_unit_test_setup_teardown(links_lead_root_nowhere, putting_setup,
	                                    putting_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
