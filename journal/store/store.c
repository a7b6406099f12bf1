#include "journal/store/store.h"

#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <stdio.h>
#include <stdlib.h>

static void
defaults(struct mw_store *st, const struct mw_store_opts *o)
{
	st->o = *o;
	st->fs = o->fs ? o->fs : mw_fs_posix();
	st->clock = o->clock ? o->clock : mw_clock_system();
	if (!st->o.segment_size)
		st->o.segment_size = UINT64_C(64) << 20;
	if (!st->o.segment_age_us)
		st->o.segment_age_us = INT64_C(3600) * 1000000;
	if (!st->o.level)
		st->o.level = 3;
	if (!st->o.spill_above)
		st->o.spill_above = 256 * 1024;
	st->lock_fd = -1;
	if (o->delimiter)
		(void)snprintf(st->delimiter, sizeof st->delimiter, "%s", o->delimiter);
	st->delimiter_crc = mw_crc32c(0, st->delimiter, strlen(st->delimiter));
	st->o.delimiter = NULL;
	atomic_store(&st->min_free, st->o.min_free);
	atomic_store(&st->gather_us, st->o.gather_us);
	st->tail = &st->head;
}

static int
init_sync(struct mw_store *st)
{
	pthread_condattr_t a;
	if (pthread_condattr_init(&a) != 0)
		return MW_ENOMEM;
	(void)pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	int bad = pthread_mutex_init(&st->mu, NULL) != 0 ||
	          pthread_mutex_init(&st->redo_mu, NULL) != 0 ||
	          pthread_cond_init(&st->work, &a) != 0 ||
	          pthread_cond_init(&st->idle, &a) != 0 ||
	          pthread_cond_init(&st->arrived, &a) != 0 ||
	          pthread_cond_init(&st->prepare_cv, &a) != 0 ||
	          pthread_cond_init(&st->index_cv, &a) != 0;
	(void)pthread_condattr_destroy(&a);
	return bad ? MW_ENOMEM : 0;
}

/* Writes down what a recovery found, where it found more than zeros. */
static int
note_recovery(struct mw_store *st, const struct mw_recovery *n, struct mw_err *err)
{
	if (n->torn_bytes == 0)
		return 0;
	MW_BUF_AUTO b = {0};
	int r = mw_recovery_encode(n, &b);
	if (r < 0)
		return mw_fail(err, r, "out of memory while recovering");
	struct mw_err e = {0};
	r = mw_store_note(st, MW_TYPE_RECOVERY, st->clock->now_us(st->clock), b.p, b.n,
	                  NULL, &e);
	if (r < 0) /* a full disk must not keep the daemon from answering */
		mw_store_say(st, MW_LOG_WARN, "event=recovery-not-noted error=%s",
		             mw_err_name(r));
	return 0;
}

static int
open_writer(struct mw_store *st, struct mw_err *err)
{
	struct mw_recovery note;
	const char *memory;
	int r = mw_store_place(st->fs, st->dir, &memory, err);
	if (r == 0)
		r = mw_store_lock(st, err);
	if (r == 0)
		r = mw_store_keys_keep(st, err);
	if (r == 0)
		r = mw_store_recover(st, &note, err);
	if (r < 0)
		return r;
	if (memory)
		mw_store_say(st, MW_LOG_WARN, "event=journal-in-memory filesystem=%s",
		             memory);
	st->segments_before = st->last_number;
	mw_store_finish_removal(st);
	mw_store_durable(st);
	st->stats.next_seq = st->next_seq;
	st->stats.segment = st->last_number;
	r = mw_dict_start(st, err);
	if (r == 0)
		r = mw_commit_start(st, err);
	if (r == 0)
		r = note_recovery(st, &note, err);
	if (r == 0 && !st->o.no_index)
		r = mw_index_start(st, err);
	return r;
}

int
mw_store_open(const struct mw_store_opts *o, struct mw_store **ret, struct mw_err *err)
{
	struct mw_store *st = calloc(1, sizeof *st);
	if (!st || init_sync(st) < 0) {
		free(st);
		return mw_fail(err, MW_ENOMEM, "out of memory for a journal");
	}
	defaults(st, o);
	int r = mw_spiller_init(&st->spiller, st->fs, st->dir);
	if (r < 0)
		r = mw_fail(err, r, "out of memory for a journal");
	else if (snprintf(st->dir, sizeof st->dir, "%s", o->dir) >=
	         (int)sizeof st->dir - 64)
		r = mw_fail(err, MW_EUSAGE, "path too long: %.80s…", o->dir);
	if (r == 0)
		r = mw_store_identity(st, err);
	if (r == 0)
		r = mw_store_keys(st, err);
	if (r == 0 && o->mode == MW_STORE_WRITE)
		r = open_writer(st, err);
	if (r < 0) {
		mw_store_close(st);
		return r;
	}
	*ret = st;
	return 0;
}

int
mw_store_again(const struct mw_store *st, const struct mw_fs *fs, struct mw_store **ret,
               struct mw_err *err)
{
	struct mw_store_opts o = st->o;
	o.mode = MW_STORE_READ;
	o.dir = st->dir;
	o.fs = fs ? fs : st->fs;
	o.note = NULL;
	o.no_index = true;
	o.secret = st->secret;
	o.n_secret = st->n_secret;
	int r = mw_store_open(&o, ret, err);
	if (r == 0) /* it is not asked what a hole in the log is: that is a walk of it */
		(*ret)->loading_gone = true;
	return r;
}

void
mw_store_close(struct mw_store *st)
{
	if (!st)
		return;
	mw_commit_stop(st);
	mw_spiller_done(&st->spiller);
	mw_dict_stop(st);
	mw_index_stop(st);
	mw_dict_read_done(st);
	mw_gone_free(st->gone);
	mw_store_segs_close(st);
	mw_index_close(st->index);
	mw_seg_free(st->seg); /* one that could not be closed */
	mw_aead_done(&st->seg_aead);
	mw_store_unlock(st);
	mw_aead_done(&st->host_aead);
	mw_store_keys_done(st);
	mw_redo_free(st);
	(void)pthread_mutex_destroy(&st->redo_mu);
	(void)pthread_mutex_destroy(&st->mu);
	(void)pthread_cond_destroy(&st->work);
	(void)pthread_cond_destroy(&st->idle);
	(void)pthread_cond_destroy(&st->arrived);
	(void)pthread_cond_destroy(&st->prepare_cv);
	(void)pthread_cond_destroy(&st->index_cv);
	explicit_bzero(st, sizeof *st);
	free(st);
}

const uint8_t *
mw_store_id(const struct mw_store *st)
{
	return st->id;
}

const char *
mw_store_dir(const struct mw_store *st)
{
	return st->dir;
}

void
mw_store_stats(struct mw_store *st, struct mw_store_stats *ret)
{
	int64_t have = st->fs->free_space(st->fs, st->dir);
	(void)pthread_mutex_lock(&st->mu);
	if (have >= 0)
		st->stats.free_bytes = (uint64_t)have;
	*ret = st->stats;
	ret->coming = atomic_load(&st->coming);
	if (st->durable_seq > st->indexed_seq)
		ret->index_lag_records = (int64_t)(st->durable_seq - st->indexed_seq);
	else
		ret->index_lag_records = 0;
	(void)pthread_mutex_unlock(&st->mu);
}
