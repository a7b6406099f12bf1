/* What a writer does before its first record: find where the log ends (FORMAT.md §8). */
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <stdlib.h>

/* Cuts the zero-filled rest off a segment that was not closed. Only zeros are cut. */
static void
trim(struct mw_store *st, uint64_t number, uint64_t keep)
{
	char path[PATH_MAX];
	mw_seg_path(path, sizeof path, st->dir, number);
	int fd = st->fs->open(st->fs, path, MW_OPEN_WRITE);
	if (fd < 0)
		return;
	int64_t size = st->fs->size(st->fs, fd);
	if (size > 0 && (uint64_t)size > keep)
		(void)st->fs->truncate(st->fs, fd, keep);
	(void)st->fs->close(st->fs, fd);
}

/* The writer before us may have been killed between a write and its sync. What is about
 * to be read, and to be fixed by the next header (I13), must be on disk before: else a
 * machine that stops later would take it away again, and its absence would look like
 * damage. After a sync that failed the kernel's cache shows what the disk does not have:
 * reading starts from the disk (MW_OPEN_NOCACHE), so either way what is read is durable.
 */
static int
sync_newest(struct mw_store *st, uint64_t number, struct mw_err *err)
{
	char path[PATH_MAX];
	mw_seg_path(path, sizeof path, st->dir, number);
	int fd = st->fs->open(st->fs, path, MW_OPEN_WRITE);
	if (fd < 0) {
		errno = -fd;
		return mw_fail_errno(err, "cannot open %s", path);
	}
	int r = st->fs->sync(st->fs, fd);
	(void)st->fs->close(st->fs, fd);
	if (r < 0)
		mw_store_say(st, MW_LOG_WARN, "event=recovery-sync-failed seg=%llu",
		             (unsigned long long)number);
	return 0;
}

static void
take_closed(struct mw_store *st, const struct mw_seg *s)
{
	st->next_seq = s->t.last_seq + 1;
	st->next_batch = s->t.last_batch + 1;
	st->last_number = s->h.number;
	st->last_batch = s->t.last_batch;
	st->last_end = s->size - MW_SEG_TRAILER;
	st->last_fill = s->size;
	memcpy(st->chain, s->t.chain, MW_HASH_LEN);
}

static int
take_open(struct mw_store *st, struct mw_seg *s, struct mw_recovery *note,
          struct mw_err *err)
{
	struct mw_seg_end e;
	int r = mw_seg_end(s, NULL, NULL, &e, err);
	if (r < 0)
		return r;
	st->next_seq = e.next_seq;
	st->next_batch = e.next_batch;
	st->last_number = s->h.number;
	st->last_batch = e.next_batch - 1;
	st->last_end = e.end;
	st->last_open = true;
	st->last_fill = e.end;
	memcpy(st->chain, e.chain, MW_HASH_LEN);
	note->segment = s->h.number;
	note->end = e.end;
	note->torn_bytes = e.torn_bytes;
	note->damaged = e.torn_bytes > 0;
	mw_store_say(st, e.torn_bytes || e.gaps ? MW_LOG_WARN : MW_LOG_NOTICE,
	             "event=recovered seg=%llu seq=%llu end=%llu torn=%llu gaps=%llu",
	             (unsigned long long)s->h.number, (unsigned long long)e.next_seq,
	             (unsigned long long)e.end, (unsigned long long)e.torn_bytes,
	             (unsigned long long)e.gaps);
	trim(st, s->h.number, e.end + e.torn_bytes);
	return 0;
}

int
mw_store_recover(struct mw_store *st, struct mw_recovery *ret_note, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	memset(ret_note, 0, sizeof *ret_note);
	st->next_seq = st->next_batch = 1;
	int r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	if (r < 0)
		return r;
	if (n == 0)
		return 0;
	struct mw_seg *s = NULL;
	r = sync_newest(st, v[n - 1], err);
	if (r < 0)
		return r;
	r = mw_seg_open_disk(st->fs, st->dir, v[n - 1], st->id, &s, err);
	if (r < 0) {
		/* Going on would guess at sequence numbers that were given out. */
		(void)mw_err_hint(err,
		                  "'mailwal verify' tells the extent; move the newest "
		                  "segment's file aside only if its records are lost "
		                  "anyway");
		return r;
	}
	if (s->closed)
		take_closed(st, s);
	else
		r = take_open(st, s, ret_note, err);
	mw_seg_free(s);
	return r;
}
