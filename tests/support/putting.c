#include "tests/support/putting.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

char boxes[64];

int
putting_setup(void **state)
{
	(void)state;
	(void)snprintf(boxes, sizeof boxes, "/tmp/mw-target-XXXXXX");
	return mkdtemp(boxes) ? 0 : -1;
}

int
putting_teardown(void **state)
{
	(void)state;
	char cmd[128];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", boxes);
	return system(cmd);
}

const char *const messages[N] = {
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

struct mw_put_io
putting_io(struct world *w, const char *box)
{
	return (struct mw_put_io){.envelope = envelope,
	                          .content = content,
	                          .intent = intent,
	                          .done = done,
	                          .box = box,
	                          .arg = w};
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

struct mw_target *
target(const char *text)
{
	struct mw_target *t = NULL;
	struct mw_err err = {0};
	struct mw_target_opts o = {.create = true};
	if (mw_target_new(text, &o, &t, &err))
		fail_msg("%s: %s", text, err.msg);
	return t;
}

void
put_all(struct mw_target *t, struct world *w)
{
	struct mw_err err = {0};
	struct mw_put v[N];
	struct mw_put_io io = putting_io(w, "alice@x");
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

void
look_into(struct mw_target *t, struct world *w)
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

void
forget(struct world *w)
{
	for (size_t i = 0; i < w->found; i++)
		free(w->profile[i]);
	w->found = 0;
	memset(w->profile, 0, sizeof w->profile);
}

size_t
count_of(const struct world *w, size_t i)
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

bool
holds_file(const char *path, const char *want)
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

void
write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}
