#include "milter/capture.h"

#include <stdio.h>
#include <unistd.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/classes.h"
#include "milter/identity.h"
#include "milter/pool.h"

static int
settings_new(struct mw_conf *conf, struct mw_settings **ret, struct mw_err *err)
{
	struct mw_settings *s = calloc(1, sizeof *s);
	if (!s)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	atomic_init(&s->refs, 1);
	int r = mw_classes_new(conf, &s->classes, err);
	if (r == 0 && conf->identities.n)
		r = mw_identity_open(conf, &s->identity, err);
	if (r < 0) {
		mw_classes_free(s->classes);
		free(s);
		return r;
	}
	s->conf = conf;
	*ret = s;
	return 0;
}

void
mw_settings_unref(struct mw_settings *s)
{
	if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	mw_identity_close(s->identity);
	mw_classes_free(s->classes);
	mw_conf_free(s->conf);
	free(s);
}

/* ---- what passed without a record ---- */

static int
save(struct mw_capture *cap, const struct mw_passed *p, struct mw_err *err)
{
	return mw_passed_write(cap->dir, p, err);
}

/* The file is there from the start: later, on a full disk, it could not be made. */
static void
load_passed(struct mw_capture *cap)
{
	struct mw_err err = {0};
	int r = mw_passed_read(cap->dir, &cap->passed, &err);
	if (r == 0)
		r = save(cap, &cap->passed, &err);
	if (r < 0)
		mw_log(MW_LOG_WARN, NULL, "event=note_lost error=%s reason=\"%s\"",
		       mw_err_name(r), err.msg);
}

static void
write_passed(void *arg)
{
	struct mw_capture *cap = arg;
	struct mw_err err = {0};
	pthread_mutex_lock(&cap->lock);
	while (cap->passed_new) {
		struct mw_passed p = cap->passed;
		cap->passed_new = false;
		pthread_mutex_unlock(&cap->lock);
		int r = save(cap, &p, &err);
		if (r < 0) /* the next one tries again */
			mw_log(MW_LOG_ERR, NULL, "event=note_lost error=%s reason=\"%s\"",
			       mw_err_name(r), err.msg);
		pthread_mutex_lock(&cap->lock);
	}
	cap->passed_writing = false;
	pthread_mutex_unlock(&cap->lock);
}

/* Has what is known written soon. Called with the lock, which it gives back. */
static void
write_soon(struct mw_capture *cap)
{
	cap->passed_new = true;
	bool start = !cap->passed_writing;
	cap->passed_writing = true;
	pthread_mutex_unlock(&cap->lock);
	if (!start)
		return;
	cap->passed_job = (struct mw_job){.fn = write_passed, .arg = cap};
	if (mw_pool_run(cap->notes, &cap->passed_job))
		return;
	pthread_mutex_lock(&cap->lock);
	cap->passed_writing = false; /* no thread to be had: the next one tries */
	pthread_mutex_unlock(&cap->lock);
}

void
mw_capture_passed(struct mw_capture *cap)
{
	int64_t now = cap->clock->now_us(cap->clock);
	atomic_fetch_add(&cap->count.passed_unjournaled, 1);
	pthread_mutex_lock(&cap->lock);
	if (cap->passed.count++ == cap->passed.acknowledged)
		cap->passed.first_us = now;
	cap->passed.last_us = now;
	write_soon(cap);
}

void
mw_capture_settle(struct mw_capture *cap)
{
	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&cap->lock);
		bool busy = cap->passed_writing;
		pthread_mutex_unlock(&cap->lock);
		if (!busy && !mw_coming_busy(&cap->coming))
			return;
		(void)usleep(10000);
	}
}

int
mw_capture_acknowledge(struct mw_capture *cap, struct mw_err *err)
{
	struct mw_store_stats st = {0};
	mw_store_stats(cap->store, &st);
	uint64_t over = atomic_load(&cap->count.overloaded);
	pthread_mutex_lock(&cap->lock);
	struct mw_passed p = cap->passed;
	pthread_mutex_unlock(&cap->lock);
	p.acknowledged = p.count;
	p.first_us = p.last_us = 0;
	int r = save(cap, &p, err);
	if (r < 0)
		return r;
	atomic_store(&cap->noted_failures, st.failures - st.full);
	atomic_store(&cap->noted_overloaded, over);
	pthread_mutex_lock(&cap->lock);
	uint64_t more = cap->passed.count - p.count; /* that passed meanwhile */
	cap->passed.acknowledged = p.count;
	if (!more)
		cap->passed.first_us = cap->passed.last_us = 0;
	/* The file may have been written by both, in either order. */
	write_soon(cap);
	return 0;
}

const int64_t mw_wait_bounds_us[MW_WAIT_BUCKETS - 1] = {1000,    2500,    5000,
                                                        10000,   25000,   50000,
                                                        100000,  250000,  500000,
                                                        1000000, 2500000, 5000000};

void
mw_capture_waited(struct mw_capture *cap, int64_t us)
{
	size_t i = 0;
	while (i < MW_WAIT_BUCKETS - 1 && us > mw_wait_bounds_us[i])
		i++;
	atomic_fetch_add(&cap->waits.bucket[i], 1);
	atomic_fetch_add(&cap->waits.sum_us, (uint64_t)(us > 0 ? us : 0));
}

int
mw_capture_init(struct mw_capture *cap, struct mw_store *store, struct mw_conf *conf,
                struct mw_err *err)
{
	memset(cap, 0, sizeof *cap);
	cap->store = store;
	cap->clock = mw_clock_system();
	cap->started_mono_us = cap->clock->mono_us(cap->clock);
	atomic_store(&cap->loaded_us, cap->clock->now_us(cap->clock));
	mw_guard_key(store, cap->guard_key);
	cap->dir = strdup(mw_store_dir(store));
	cap->notes = mw_pool_new(1);
	int r = cap->notes && cap->dir ? settings_new(conf, &cap->settings, err)
	                               : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r < 0) {
		mw_pool_free(cap->notes);
		free(cap->dir);
		return r;
	}
	int64_t now = cap->clock->now_us(cap->clock);
	mw_once_init(&cap->used, now / 1000 * 1000, MW_GUARD_DAYS * INT64_C(86400000000));
	mw_coming_open(&cap->coming, cap->dir, cap->notes, now);
	load_passed(cap);
	(void)pthread_mutex_init(&cap->lock, NULL); /* cannot fail with NULL attributes */
	return 0;
}

void
mw_capture_done(struct mw_capture *cap)
{
	mw_pool_free(cap->notes); /* what is to be written is written first */
	mw_settings_unref(cap->settings);
	cap->notes = NULL;
	explicit_bzero(cap->guard_key, sizeof cap->guard_key);
	mw_once_done(&cap->used);
	mw_coming_close(&cap->coming);
	free(cap->dir);
	cap->settings = NULL;
	pthread_mutex_destroy(&cap->lock);
}

int
mw_capture_reload(struct mw_capture *cap, struct mw_conf *conf, struct mw_err *err)
{
	struct mw_settings *s = NULL;
	int r = settings_new(conf, &s, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&cap->lock);
	struct mw_settings *old = cap->settings;
	cap->settings = s;
	pthread_mutex_unlock(&cap->lock);
	mw_settings_unref(old);
	return 0;
}

struct mw_settings *
mw_capture_settings(struct mw_capture *cap)
{
	pthread_mutex_lock(&cap->lock);
	struct mw_settings *s = cap->settings;
	atomic_fetch_add(&s->refs, 1);
	pthread_mutex_unlock(&cap->lock);
	return s;
}

void
mw_capture_journaled(struct mw_capture *cap, struct mw_str queue_id,
                     const uint8_t id[MW_ID_LEN], int64_t time_us)
{
	pthread_mutex_lock(&cap->lock);
	(void)snprintf(cap->last_queue_id, sizeof cap->last_queue_id, "%.*s",
	               (int)MW_MIN(queue_id.n, sizeof cap->last_queue_id),
	               queue_id.n ? queue_id.p : "");
	mw_id_text(cap->last_id, id);
	cap->last_time_us = time_us;
	pthread_mutex_unlock(&cap->lock);
	atomic_fetch_add(&cap->count.journaled, 1);
}

void
mw_capture_excluded(struct mw_capture *cap, const char *section, uint64_t bytes)
{
	static const char others[] = "(other)";
	pthread_mutex_lock(&cap->lock);
	size_t i = 0, n = cap->n_excluded;
	while (i < n && strcmp(cap->excluded[i].section, section) != 0)
		i++;
	if (i == MW_EXCLUDED_MOST) { /* reloads renamed them many times */
		i--;
		section = others;
	}
	struct mw_excluded *e = &cap->excluded[i];
	if (i == n || section == others)
		(void)snprintf(e->section, sizeof e->section, "%s", section);
	cap->n_excluded = MW_MAX(n, i + 1);
	e->messages++;
	e->bytes += bytes;
	pthread_mutex_unlock(&cap->lock);
	atomic_fetch_add(&cap->count.excluded, 1);
}
