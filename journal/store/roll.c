/* The life of the open segment: opened with the keys of the day, closed with a CLOSE
 * record and a trailer, or abandoned after a failure (FORMAT.md I3, I4, §5). In the
 * committer's thread. */
#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/record/cbor.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int
mw_segment_start(struct mw_store *st, struct mw_err *err)
{
	MW_BUF_AUTO stanzas = {0};
	int r = mw_store_own_again(st, err);
	if (r < 0)
		return r;
	mw_random(st->seg_key, sizeof st->seg_key);
	struct mw_seg_header h = {
	    .number = st->last_number + 1,
	    .first_seq = st->next_seq,
	    .first_batch = st->next_batch,
	    .created_us = st->clock->now_us(st->clock),
	    .prev_number = st->last_number,
	    .prev_batch = st->last_batch,
	    .prev_end = st->last_end,
	    .prev_open = st->last_open,
	    .delimiter = st->delimiter_crc,
	};
	memcpy(h.journal, st->id, MW_ID_LEN);
	memcpy(h.chain, st->chain, MW_HASH_LEN);
	mw_random(h.salt, sizeof h.salt);
	r = mw_store_stanzas(st, &h, &stanzas, err);
	if (r == 0)
		r = mw_seg_create(st->fs, st->dir, &h, &st->seg, err);
	mw_buf_wipe(&stanzas);
	if (r == 0)
		r = mw_aead_init(&st->seg_aead, st->seg_key);
	if (r < 0) {
		/* The file may have got its name before the failure: its number is spent.
		 */
		char path[PATH_MAX];
		mw_seg_path(path, sizeof path, st->dir, h.number);
		mw_seg_free(st->seg);
		st->seg = NULL;
		(void)st->fs->unlink(st->fs, path);
		return r;
	}
	st->seg_records = st->seg_mails = st->seg_bytes = 0;
	st->seg_first_seq = st->next_seq;
	st->seg_tmin = INT64_MAX;
	st->seg_tmax = INT64_MIN;
	st->seg_born_us = st->clock->mono_us(st->clock);
	(void)pthread_mutex_lock(&st->mu);
	st->stats.segment = h.number;
	st->want_prepare = true;
	(void)pthread_cond_signal(&st->prepare_cv);
	(void)pthread_mutex_unlock(&st->mu);
	mw_store_say(st, MW_LOG_INFO, "event=segment-open seg=%llu seq=%llu",
	             (unsigned long long)h.number, (unsigned long long)h.first_seq);
	return 0;
}

/* Leaves the segment as it is: its successor's header will say how far it counts (I4). */
void
mw_segment_abandon(struct mw_store *st, uint64_t good_end)
{
	st->last_number = st->seg->h.number;
	st->last_batch = st->next_batch - 1;
	st->last_end = good_end;
	st->last_open = true;
	mw_store_say(st, MW_LOG_ERR, "event=segment-abandoned seg=%llu end=%llu",
	             (unsigned long long)st->last_number, (unsigned long long)good_end);
	mw_dict_segment_end(st);
	mw_seg_free(st->seg);
	st->seg = NULL;
	mw_aead_done(&st->seg_aead);
	explicit_bzero(st->seg_key, sizeof st->seg_key);
}

/* ---- closing ---- */

static int
close_entry(struct mw_store *st, struct mw_entry **ret, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO b = {0};
	int r = mw_entry_new(st, MW_TYPE_CLOSE, &e, err);
	if (r < 0)
		return r;
	bool mails = st->seg_mails > 0;
	mw_cbor_put_map(&b, mails ? 7 : 5);
	mw_cbor_put_text(&b, "first");
	mw_cbor_put_uint(&b, st->seg_first_seq);
	mw_cbor_put_text(&b, "last");
	mw_cbor_put_uint(&b, st->next_seq);
	mw_cbor_put_text(&b, "records");
	mw_cbor_put_uint(&b, st->seg_records + 1);
	mw_cbor_put_text(&b, "mails");
	mw_cbor_put_uint(&b, st->seg_mails);
	mw_cbor_put_text(&b, "bytes");
	mw_cbor_put_uint(&b, st->seg_bytes);
	if (mails) {
		mw_cbor_put_text(&b, "tmin");
		mw_cbor_put_int(&b, st->seg_tmin);
		mw_cbor_put_text(&b, "tmax");
		mw_cbor_put_int(&b, st->seg_tmax);
	}
	if (b.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory while closing a segment");
	r = mw_entry_finish(e, st->clock->now_us(st->clock), b.p, b.n, err);
	if (r == 0)
		*ret = MW_TAKE(e);
	return r;
}

int
mw_segment_close(struct mw_store *st, struct mw_err *err)
{
	MW_ENTRY_AUTO *e = NULL;
	int r = close_entry(st, &e, err);
	if (r < 0)
		return r;
	struct mw_seg_trailer t = {.close_off = st->seg->at,
	                           .first_seq = st->seg_first_seq,
	                           .last_seq = st->next_seq,
	                           .last_batch = st->next_batch,
	                           .time_us = st->clock->now_us(st->clock)};
	uint64_t number = st->seg->h.number, records = st->seg_records;
	r = mw_commit_batch(st, e, err);
	if (r < 0)
		return r;
	uint64_t end = st->seg->at;
	memcpy(t.chain, st->chain, MW_HASH_LEN);
	r = mw_seg_finish(st->seg, &t, st->can_sign ? st->sign_seed : NULL, err);
	if (r < 0) {
		mw_segment_abandon(st, end);
		return r;
	}
	st->last_fill = end;
	st->last_number = number;
	st->last_batch = st->next_batch - 1;
	st->last_end = end;
	st->last_open = false;
	mw_dict_segment_end(st);
	mw_seg_free(st->seg);
	st->seg = NULL;
	mw_aead_done(&st->seg_aead);
	explicit_bzero(st->seg_key, sizeof st->seg_key);
	mw_store_say(st, MW_LOG_INFO,
	             "event=segment-closed seg=%llu records=%llu bytes=%llu",
	             (unsigned long long)number, (unsigned long long)records,
	             (unsigned long long)end);
	return 0;
}
