/* One batch: frames get their place in the log, one gathering write, one sync (FORMAT.md
 * §3, I6, I7). In the committer's thread. */
#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	IOV = 256,
	COPY = 1 << 20
};

/* Gives an entry its place: sequence number, slot, chain, header. */
static int
place(struct mw_store *st, struct mw_entry *e, uint16_t pos, uint64_t off,
      uint8_t chain[MW_HASH_LEN])
{
	struct mw_frame *f = &e->frame;
	uint8_t aad[MW_ID_LEN + 8], wrapped[MW_WRAPPED_KEY], mac[MW_SHA256_LEN];
	f->seq = st->next_seq + pos;
	f->batch = st->next_batch;
	f->batch_pos = pos;
	if (e->type == MW_TYPE_DICT)
		f->dict = mw_dict_placed(st, e->dict, off);
	else
		f->dict = e->dict ? mw_dict_at(st, e->dict) : 0;
	if (e->dict && !f->dict) /* more at once than a segment is known to have */
		return MW_EBUG;  /* it could not be read again */
	memcpy(aad, e->id, MW_ID_LEN);
	mw_put64(aad + MW_ID_LEN, f->seq);
	struct mw_aead_in in = {e->id, aad, sizeof aad, e->key, MW_AEAD_KEY};
	bool host = mw_type_of_host(e->type);
	f->flags =
	    (uint8_t)((host ? MW_FRAME_HOST : 0) | (e->imported ? MW_FRAME_IMPORTED : 0));
	int r = mw_aead_seal(host ? &st->host_aead : &st->seg_aead, &in, wrapped);
	if (r < 0)
		return r;
	struct mw_hmac h;
	mw_hmac_init(&h, st->seg_key, sizeof st->seg_key);
	mw_hmac_update(&h, "tokens", 6);
	mw_hmac_update(&h, e->id, MW_ID_LEN);
	mw_hmac_update(&h, e->tokens.p, e->tokens.n);
	mw_hmac_final(&h, mac);
	struct mw_slot slot = {mac, wrapped, e->tokens.p,
	                       (uint32_t)(e->tokens.n / MW_TOKEN_LEN)};
	mw_slot_encode(&slot, e->head + MW_FRAME_HEADER);
	mw_frame_chain(f, chain, e->meta_hash, e->body_hash);
	memcpy(chain, f->chain, MW_HASH_LEN);
	mw_frame_encode(f, st->seg->h.salt, e->head);
	return 0;
}

struct gather {
	struct iovec iov[IOV];
	int n;
	size_t bytes;
};

static int
gather_flush(struct mw_store *st, struct gather *g, struct mw_err *err)
{
	int r = g->n ? mw_seg_write(st->seg, g->iov, g->n, g->bytes, err) : 0;
	g->n = 0;
	g->bytes = 0;
	return r;
}

static int
gather_put(struct mw_store *st, struct gather *g, void *p, size_t n, struct mw_err *err)
{
	if (n == 0)
		return 0;
	if (g->n == IOV) {
		int r = gather_flush(st, g, err);
		if (r < 0)
			return r;
	}
	g->iov[g->n++] = (struct iovec){p, n};
	g->bytes += n;
	return 0;
}

/* Copies what was spilled into the segment. */
static int
unspill(struct mw_store *st, struct mw_entry *e, struct mw_err *err)
{
	MW_AUTOFREE uint8_t *p = malloc(COPY);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory for a spilled message");
	for (uint64_t at = 0; at < e->body.spilled;) {
		size_t k = (size_t)MW_MIN(e->body.spilled - at, (uint64_t)COPY);
		int64_t n = st->fs->pread(st->fs, mw_spill_fd(e->body.spill), p, k, at);
		if (n != (int64_t)k) {
			errno = n < 0 ? (int)-n : EIO;
			return mw_fail_errno(err, "cannot read a spill file back");
		}
		struct iovec iov = {p, k};
		int r = mw_seg_write(st->seg, &iov, 1, k, err);
		if (r < 0)
			return r;
		at += k;
	}
	return 0;
}

static int
write_entry(struct mw_store *st, struct gather *g, struct mw_entry *e, struct mw_err *err)
{
	static uint8_t zeros[8];
	uint64_t plain = e->head_len + e->meta.len + e->body.len;
	size_t pad = (size_t)(mw_frame_len(&e->frame) - plain);
	int r = gather_put(st, g, e->head, e->head_len, err);
	if (r == 0)
		r = gather_put(st, g, e->meta.out.p, e->meta.out.n, err);
	if (r == 0 && e->body.spilled) {
		r = gather_flush(st, g, err);
		if (r == 0)
			r = unspill(st, e, err);
	}
	if (r == 0)
		r = gather_put(st, g, e->body.out.p, e->body.out.n, err);
	if (r == 0)
		r = gather_put(st, g, zeros, pad, err);
	return r;
}

/* The records of dictionaries that the batch needs and the segment lacks, before it. */
static int
add_dicts(struct mw_store *st, struct mw_entry *list, struct mw_entry **ret)
{
	struct mw_entry *dicts = NULL;
	for (struct mw_entry *e = list; e; e = e->next) {
		struct mw_entry *two = NULL;
		bool have = !e->dict || mw_dict_at(st, e->dict);
		for (struct mw_entry *d = dicts; !have && d && d != list; d = d->next)
			have = d->dict == e->dict;
		if (have)
			continue;
		int r = mw_dict_entries(st, e->dict, &two);
		if (r < 0) {
			mw_dict_entries_free(dicts, list);
			return r;
		}
		two->next->next = dicts ? dicts : list;
		dicts = two;
	}
	*ret = dicts ? dicts : list;
	return 0;
}

static int
write_batch(struct mw_store *st, struct mw_entry *list, uint8_t chain[MW_HASH_LEN],
            uint64_t *ret_count, struct mw_err *err)
{
	struct gather g = {.n = 0};
	uint64_t off = st->seg->at, count = 0;
	int r = 0;
	for (struct mw_entry *e = list; r == 0 && e; e = e->next) {
		r = place(st, e, (uint16_t)count++, off, chain);
		if (r < 0)
			(void)mw_fail(err, r, "%s while committing", mw_err_text(r));
		else
			r = write_entry(st, &g, e, err);
		e->offset = off;
		off += mw_frame_len(&e->frame);
	}
	if (r == 0)
		r = gather_flush(st, &g, err);
	if (r == 0) /* I6, I7: nothing is answered before this */
		r = mw_seg_sync(st->seg, err);
	if (r == 0) /* durable where nobody finds it is not durable */
		r = mw_seg_in_place(st->seg, st->dir, err);
	*ret_count = count;
	return r;
}

/* Writes and syncs a batch into the open segment. On failure the segment is abandoned. */
int
mw_commit_batch(struct mw_store *st, struct mw_entry *list, struct mw_err *err)
{
	uint8_t chain[MW_HASH_LEN];
	uint64_t start = st->seg->at, count = 0;
	struct mw_entry *all = list;
	memcpy(chain, st->chain, sizeof chain);
	int r = add_dicts(st, list, &all);
	if (r < 0) /* nothing is written yet */
		return mw_fail(err, r, "out of memory for a dictionary");
	r = write_batch(st, all, chain, &count, err);
	if (r < 0) {
		mw_dict_entries_free(all, list);
		mw_segment_abandon(st, start);
		return r;
	}
	for (struct mw_entry *e = all; e; e = e->next) {
		st->seg_records++;
		if (e->type == MW_TYPE_MAIL) {
			st->seg_mails++;
			st->seg_bytes += e->size;
			st->seg_tmin = MW_MIN(st->seg_tmin, e->time_us);
			st->seg_tmax = MW_MAX(st->seg_tmax, e->time_us);
		}
		e->wait_us = st->clock->mono_us(st->clock) - e->submitted_us;
	}
	mw_dict_entries_free(all, list);
	memcpy(st->chain, chain, sizeof chain);
	st->next_seq += count;
	st->next_batch++;
	uint64_t last = atomic_load(&st->last_fill);
	mw_dict_fill(st, MW_MAX(st->seg->at, last));
	return 0;
}
