#include "tests/support/taking.h"

#include "journal/base/util.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

char dir[64];
char *journal;
struct mw_store *store;
struct mw_capture cap;
atomic_int fail_sync, hang, slow_sync_ms, free_mib = MW_FREE_MIB;
static struct mw_fs fs;

/* ---- the journal ---- */

static int
fs_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	if (atomic_load(&fail_sync))
		return -EIO;
	while (atomic_load(&hang))
		(void)usleep(5000);
	(void)usleep((unsigned)atomic_load(&slow_sync_ms) * 1000);
	return mw_fs_posix()->sync(mw_fs_posix(), fd);
}

static int64_t
fs_free(const struct mw_fs *f, const char *path)
{
	(void)f;
	(void)path;
	return (int64_t)atomic_load(&free_mib) << 20;
}

struct mw_conf *
taking_settings(void)
{
	struct mw_conf *c = NULL;
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	if (mw_conf_load(NULL, &c, &report, &err) < 0)
		fail_msg("%s %s", err.msg, mw_buf_cstr(&report));
	return c;
}

int
taking_dir(void)
{
	(void)snprintf(dir, sizeof dir, "/tmp/mw-taking-XXXXXX");
	return mkdtemp(dir) && asprintf(&journal, "%s/j", dir) > 0 ? 0 : -1;
}

int
taking_open(struct mw_conf *c)
{
	struct mw_err err = {0};
	fs = *mw_fs_posix();
	fs.sync = fs_sync;
	fs.free_space = fs_free;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &fs,
	                          .min_free = 64 << 20,
	                          .segment_size = 8 << 20};
	int r = mw_store_create(journal, NULL, NULL, &err);
	if (r == 0)
		r = mw_store_open(&o, &store, &err);
	if (r == 0)
		r = mw_capture_init(&cap, store, c, &err);
	if (r < 0)
		(void)fprintf(stderr, "%s\n", err.msg);
	return r;
}

int
taking_end(void)
{
	char cmd[128];
	mw_store_close(store);
	mw_capture_done(&cap);
	free(journal);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	return system(cmd);
}

uint64_t
mails(void)
{
	struct mw_store_stats st;
	mw_store_stats(store, &st);
	return st.mails;
}

/* ---- sessions ---- */

void
on_done(void *arg)
{
	struct waiter *w = arg;
	pthread_mutex_lock(&w->lock);
	w->done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void
wait_done(struct waiter *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	w->done = false;
	pthread_mutex_unlock(&w->lock);
}

const char *
eom(struct mw_session *s)
{
	static struct mw_answer a;
	struct waiter w = MW_WAITER;
	int r = mw_session_eom(s, on_done, &w, &a);
	assert_true(r >= 0);
	if (r > 0) {
		wait_done(&w);
		mw_session_finish(s, &a);
	}
	return a.refuse ? a.code : "250";
}

void
rcpt(struct mw_session *s, const char *to)
{
	struct mw_str v[] = {mw_strz(to)};
	struct mw_answer a;
	assert_int_equal(mw_session_rcpt(s, v, 1, false, &a), 0);
}

/* ---- what is in it ---- */

uint64_t
last_mail(struct mw_arena *a, struct mw_mail *ret, struct mw_buf *content)
{
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	MW_STORE_AUTO *rd = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r, found = {0};
	uint64_t n = 0;
	int q;
	if (mw_store_open(&o, &rd, &err) < 0 || mw_cursor_new(rd, 1, &c, &err) < 0)
		fail_msg("%s", err.msg);
	while ((q = mw_cursor_next(c, &r, &err)) > 0)
		if (r.type == MW_TYPE_MAIL) {
			found = r;
			n++;
		}
	if (q < 0 ||
	    (n && (mw_record_mail(rd, &found, a, ret, &err) < 0 ||
	           mw_record_content(rd, &found, ret, 1 << 30, content, &err) < 0)))
		fail_msg("%s", err.msg);
	return n;
}

void
last(struct got *g)
{
	memset(g, 0, sizeof *g);
	g->arena = mw_arena_new(0);
	g->n = last_mail(g->arena, &g->mail, &g->content);
}

void
got_free(struct got *g)
{
	mw_arena_free(g->arena);
	mw_buf_free(&g->content);
}

void
str_is(struct mw_str got, const char *want)
{
	if (!mw_str_eq(got, mw_strz(want)))
		fail_msg("\"%.*s\", not \"%s\"", (int)got.n, got.p, want);
}
