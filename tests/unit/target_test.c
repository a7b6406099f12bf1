/* target_test.c - TARGET grammar, and one suite that every file target passes: what is
 * put is found again with its bytes and its date; a failure leaves nothing half-written.
 */
#include "replay/target.h"

#include "journal/base/buf.h"
#include "journal/base/util.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define T INT64_C(1795342272000000)

static char dir[64];

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-target-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	char cmd[128];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

static const char *const messages[] = {
    "Message-ID: <1@x>\r\nSubject: a\r\n\r\nFrom here\r\n>From there\r\n.\r\n..\r\n",
    "Subject: no id, no end of line\r\n\r\nlast line",
    "Message-ID: <3@x>\r\n\r\n\r\n\r\n",
    "Message-ID: <4@x>\r\n folded\r\n\r\n\xff\xfe caf\xe9 >>From x\r\n>>From "
    "y\r\nFrom\r\n",
    "Message-ID: <5@x>\r\n",
    "Message-ID: <6@x>\r\n\r\nFrom s Thu Nov 19 10:00:00 2026\r\n\r\nFrom s Thu Nov 19 "
    "10:00:00 "
    "2026\r\n",
};
enum {
	N = sizeof messages / sizeof messages[0]
};

struct world { /* the journal's side, and what came back */
	size_t done, failed, intents;
	int fail_at; /* content of this message fails half-way; -1: none */
	char why[200];
	struct mw_mail mail;
	size_t found;
	int64_t date[2 * N];
	uint64_t key[2 * N], size[2 * N];
	struct mw_profile *profile[2 * N];
	bool any_sent;
};

static int
envelope(void *arg, const struct mw_put *p, const struct mw_mail **ret,
         struct mw_err *err)
{
	struct world *w = arg;
	(void)p, (void)err;
	w->mail = (struct mw_mail){.sender = MW_STR("s@x"), .time_us = T};
	*ret = &w->mail;
	return 0;
}

static size_t
index_of(const struct mw_put *p)
{
	return (size_t)(const char *const *)p->ref - (size_t)messages;
}

static int
content(void *arg, const struct mw_put *p, int (*sink)(void *, const void *, size_t),
        void *sarg, struct mw_err *err)
{
	const struct world *w = arg;
	size_t i = index_of(p) / sizeof messages[0], n = strlen(messages[i]);
	int r = sink(sarg, messages[i], n / 2);
	if (!r && (int)i == w->fail_at)
		return mw_fail(err, MW_EDAMAGED, "the record is damaged");
	return r ? r : sink(sarg, messages[i] + n / 2, n - n / 2);
}

static int
intent(void *arg, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct world *w = arg;
	(void)v, (void)err;
	w->intents += n;
	return 0;
}

static int
done(void *arg, const struct mw_put *p, int code, const char *why,
     const struct mw_put_place *place)
{
	struct world *w = arg;
	(void)p, (void)place;
	w->done += !code;
	w->failed += code != 0;
	if (why)
		(void)snprintf(w->why, sizeof w->why, "%s", why);
	return 0;
}

static int
on_found(void *arg, const struct mw_found *f)
{
	struct world *w = arg;
	assert_true(w->found < 2 * N);
	w->any_sent = w->any_sent || f->sent_folder;
	w->date[w->found] = f->date_us;
	w->size[w->found] = f->size;
	w->key[w->found++] = f->key;
	return 0;
}

static int
on_profile(void *arg, uint64_t key, struct mw_profile *take)
{
	struct world *w = arg;
	for (size_t i = 0; i < w->found; i++)
		if (w->key[i] == key && !w->profile[i]) {
			w->profile[i] = take;
			return 0;
		}
	fail_msg("a key nobody asked for");
	return 0;
}

static struct mw_target *
target(const char *text)
{
	struct mw_target *t = NULL;
	struct mw_err err = {0};
	struct mw_target_opts o = {.create = true};
	if (mw_target_new(text, &o, &t, &err))
		fail_msg("%s: %s", text, err.msg);
	return t;
}

/* Puts all messages into the box of alice; the world tells what happened. */
static void
put_all(struct mw_target *t, struct world *w)
{
	struct mw_err err = {0};
	struct mw_put v[N];
	struct mw_put_io io = {.envelope = envelope,
	                       .content = content,
	                       .intent = intent,
	                       .done = done,
	                       .box = "alice@x",
	                       .arg = w};
	const char *box;
	struct mw_arena *a = mw_arena_new(0);
	for (size_t i = 0; i < N; i++) {
		union {
			const char *const *in;
			void *out;
		} u = {.in = &messages[i]};
		v[i] = (struct mw_put){{(uint8_t)(16 * i + 1)},
		                       T + (int64_t)i * 61000000,
		                       strlen(messages[i]),
		                       false,
		                       NULL,
		                       u.out};
	}
	assert_int_equal(mw_target_box(t, "alice@x", a, &box, &err), 0);
	assert_int_equal(mw_target_open(t, "alice@x", box, false, &err), 0);
	assert_int_equal(mw_target_begin(t, &err), 0);
	if (mw_target_put(t, v, N, &io, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(mw_target_close(t, &err), 0);
	mw_arena_free(a);
}

static void
look(struct mw_target *t, struct world *w)
{
	struct mw_err err = {0};
	const char *box;
	struct mw_arena *a = mw_arena_new(0);
	assert_int_equal(mw_target_box(t, "alice@x", a, &box, &err), 0);
	if (mw_target_open(t, "alice@x", box, true, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(mw_target_scan(t, on_found, w, &err), 0);
	if (mw_target_fetch(t, w->key, w->found, on_profile, w, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(mw_target_close(t, &err), 0);
	mw_arena_free(a);
}

static void
forget(struct world *w)
{
	for (size_t i = 0; i < w->found; i++)
		free(w->profile[i]);
	w->found = 0;
	memset(w->profile, 0, sizeof w->profile);
}

/* How many of what was found are message i, with its date. */
static size_t
count(const struct world *w, size_t i)
{
	struct mw_profiler *f = mw_profiler_new();
	size_t n = 0;
	(void)mw_profiler_put(f, messages[i], strlen(messages[i]));
	struct mw_profile *p = mw_profiler_take(f);
	for (size_t k = 0; k < w->found; k++)
		n += w->profile[k] && memcmp(p->digest, w->profile[k]->digest, 32) == 0 &&
		     w->date[k] == T + (int64_t)i * 61000000;
	free(p);
	mw_profiler_free(f);
	return n;
}

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
		(void)snprintf(text, sizeof text, "%s%s%s", kinds[k][0], dir,
		               kinds[k][1]);
		struct mw_target *t = target(text);
		look(t, &w); /* nothing there yet, and looking makes nothing */
		assert_int_equal(w.found, 0);
		put_all(t, &w);
		assert_int_equal(w.done, N);
		assert_int_equal(w.failed, 0);
		look(t, &w);
		assert_int_equal(w.found, N);
		for (size_t i = 0; i < N; i++)
			if (count(&w, i) != 1)
				fail_msg("%s: message %zu", text, i);
		forget(&w);
		put_all(t, &w); /* the same again: the target does not judge */
		look(t, &w);
		assert_int_equal(w.found, 2 * N);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count(&w, i), 2);
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
		(void)snprintf(text, sizeof text, "%s%s%s", kinds[k][0], dir,
		               kinds[k][1]);
		struct mw_target *t = target(text);
		put_all(t, &w);
		assert_int_equal(w.done, N - 1);
		assert_int_equal(w.failed, 1);
		assert_string_equal(w.why, "the record is damaged");
		look(t, &w);
		assert_int_equal(w.found, N - 1);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count(&w, i), i != 3);
		forget(&w);
		mw_target_free(t);
	}
}

/* Is there a file below path with exactly this content? */
static bool
holds(const char *path, const char *want)
{
	char cmd[400], name[300], got[500];
	bool found = false;
	(void)snprintf(cmd, sizeof cmd, "find '%s' -type f -size %zuc ! -name '*.json'",
	               path, strlen(want));
	FILE *f = popen(cmd, "r");
	while (!found && fgets(name, sizeof name, f)) {
		name[strcspn(name, "\n")] = '\0';
		int fd = open(name, O_RDONLY);
		ssize_t n = read(fd, got, sizeof got);
		found = n == (ssize_t)strlen(want) && memcmp(got, want, (size_t)n) == 0;
		(void)close(fd);
	}
	(void)pclose(f);
	return found;
}

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
	return holds(path, text);
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
		(void)snprintf(text, sizeof text, "maildir:%s/box%zu", dir, k);
		assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
		put_all(t, &w);
		assert_int_equal(w.done, N);
		(void)snprintf(path, sizeof path, "%s/box%zu/%s", dir, k, names[k][1]);
		for (size_t i = 0; i < N; i++)
			assert_true(holds(path, messages[i]));
		look(t, &w);
		assert_int_equal(w.found, N);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count(&w, i), 1);
		assert_false(w.any_sent);
		forget(&w);
		mw_target_free(t);
	}
}

static void
write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
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
		               dir, k, dir, k, dir, k, dir, k,
		               v[k].folder ? v[k].folder : "", dir, k,
		               v[k].folder ? v[k].folder : "");
		assert_int_equal(system(cmd), 0);
		(void)snprintf(path, sizeof path, "%s/lay%zu/%s", dir, k, v[k].file);
		write_text(path, v[k].text);
		(void)snprintf(path, sizeof path, "%s/lay%zu/maildirsize", dir, k);
		write_text(path, "1000S\n0 0\n");
		(void)snprintf(text, sizeof text, "maildir:%s/lay%zu", dir, k);
		assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
		put_all(t, &w);
		assert_int_equal(w.done, N);
		(void)snprintf(path, sizeof path, "%s/lay%zu/%s", dir, k, v[k].path);
		bool courier = strncmp(v[k].list, "courier", 7) == 0;
		for (size_t i = 0; i < N; i++)
			assert_true(courier ? holds_lf(path, messages[i])
			                    : holds(path, messages[i]));
		(void)snprintf(path, sizeof path, "%s/lay%zu/%s", dir, k, v[k].list);
		assert_text(path, v[k].listed);
		(void)snprintf(path, sizeof path, "%s/lay%zu/%.10s/maildirfolder", dir, k,
		               v[k].path);
		assert_int_equal(access(path, F_OK), v[k].path[0] == '.' ? 0 : -1);
		look(t, &w);
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
	(void)snprintf(text, sizeof text, "maildir:%s/ring", dir);
	assert_int_equal(mw_target_new(text, &o, &t, &err), 0);
	put_all(t, &w);
	(void)snprintf(cmd, sizeof cmd,
	               "cd '%s/ring' && ln -s A B && ln -s .. A/up && ln -s . self", dir);
	assert_int_equal(system(cmd), 0);
	look(t, &w);
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
	struct mw_put_io io = {.envelope = envelope,
	                       .content = content,
	                       .intent = intent,
	                       .done = done,
	                       .arg = w};
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
	look(t, w);
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
		(void)snprintf(text, sizeof text, "maildir:%s/%zu/in/box", dir, k);
		(void)snprintf(path, sizeof path, "%s/%zu/in/box/%s", dir, k,
		               v[k].path ? v[k].path : "new");
		put_into(text, v[k].layout, v[k].folder, &w);
		if (w.done != N || w.failed || w.found != N || w.any_sent)
			fail_msg("%zu %s: %zu put, %zu not, %zu found%s", k, v[k].folder,
			         w.done, w.failed, w.found, w.any_sent ? ", sent" : "");
		for (size_t i = 0; i < N; i++)
			if (!(v[k].layout == MW_LAYOUT_COURIER
			          ? holds_lf(path, messages[i])
			          : holds(path, messages[i])))
				fail_msg("%zu %s: not in %s", k, v[k].folder, path);
		(void)snprintf(cmd, sizeof cmd, "test \"$(ls -A '%s/%zu/in')\" = box",
		               dir, k);
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
		               dir, k, k, k, k, k, k, link[k][0]);
		assert_int_equal(system(cmd), 0);
		(void)snprintf(text, sizeof text, "maildir:%s/%zu", dir, k);
		put_into(text, k ? MW_LAYOUT_PLUS : MW_LAYOUT_FS, link[k][1], &w);
		assert_int_equal(w.failed, N);
		assert_non_null(strstr(w.why, "symbolic link"));
		forget(&w);
		(void)snprintf(cmd, sizeof cmd, "test -z \"$(ls -A '%s/out%zu')\"", dir,
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
	(void)snprintf(name, sizeof name, "mbox:%s/box", dir);
	assert_int_equal(mw_target_new(name, &o, &t, &err), MW_EUSAGE);
	assert_non_null(strstr(err.msg, "--folder"));
}

static void
bytes_in_files_are_the_captured_ones(void **state)
{
	(void)state;
	static const char *const exact[] = {"maildir", "eml"};
	for (size_t k = 0; k < 2; k++) {
		char text[200], path[100];
		struct world w = {.fail_at = -1};
		(void)snprintf(path, sizeof path, "%s/%s", dir, exact[k]);
		(void)snprintf(text, sizeof text, "%s:%s", exact[k], path);
		struct mw_target *t = target(text);
		put_all(t, &w);
		mw_target_free(t);
		for (size_t i = 0; i < N; i++)
			assert_true(holds(path, messages[i]));
	}
}

static void
an_mbox_torn_by_a_dead_run_is_cut_back(void **state)
{
	(void)state;
	char text[200], path[120], lock[140], host[100] = "";
	struct world w = {.fail_at = -1};
	(void)snprintf(text, sizeof text, "mbox:%s/box", dir);
	(void)snprintf(path, sizeof path, "%s/box", dir);
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
	look(t, &w);
	assert_int_equal(w.found, 2 * N);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(count(&w, i), 2);
	forget(&w);
	mw_target_free(t);
}

static void
write_box(const char *text)
{
	char path[100];
	(void)snprintf(path, sizeof path, "%s/box", dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
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
		(void)snprintf(text, sizeof text, "mbox:%s/box", dir);
		struct mw_target *t = target(text);
		put_all(t, &w);
		look(t, &w);
		if (w.found != N + (strncmp(ends[k], "From ", 5) == 0))
			fail_msg("behind '%s' %zu are found", ends[k], (size_t)w.found);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(count(&w, i), 1);
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
	(void)snprintf(path, sizeof path, "%s/pw", dir);
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
	    cmocka_unit_test_setup_teardown(what_is_put_is_found_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_record_that_breaks_half_way_leaves_nothing,
	                                    setup, teardown),
	    cmocka_unit_test_setup_teardown(bytes_in_files_are_the_captured_ones, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(an_mbox_may_end_anywhere, setup, teardown),
	    cmocka_unit_test_setup_teardown(an_mbox_torn_by_a_dead_run_is_cut_back, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(a_folder_takes_everything, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_folder_name_is_checked, setup, teardown),
	    cmocka_unit_test_setup_teardown(layouts, setup, teardown),
	    cmocka_unit_test_setup_teardown(links_are_followed_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(imported_folders_stay_in_their_maildir, setup,
	                                    teardown),
	    cmocka_unit_test_setup_teardown(links_lead_root_nowhere, setup, teardown),
	    cmocka_unit_test(a_target_is_understood_or_refused_clearly),
	    cmocka_unit_test(a_mailbox_name_never_leaves_its_place),
	    cmocka_unit_test_setup_teardown(passwords_are_found_by_mailbox, setup,
	                                    teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
