/* Walking a segment's frames and deciding where the log ends (FORMAT.md §8). */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/base/window.h"
#include "journal/codec/digest.h"
#include "journal/segment/segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHUNK = 1 << 16,
	STEP = 1 << 14,
	WINDOW = 1 << 20
};

static int
read_fail(struct mw_seg *s, int64_t r, struct mw_err *err)
{
	errno = (int)-r;
	return mw_fail_errno(err, "cannot read segment %llu",
	                     (unsigned long long)s->h.number);
}

void
mw_seg_ahead(struct mw_seg *s, uint64_t off, size_t len)
{
	mw_seg_behind(s);
	if (len > s->ahead_cap) {
		uint8_t *p = realloc(s->ahead, len);
		if (!p)
			return; /* slower, no worse */
		s->ahead = p;
		s->ahead_cap = len;
	}
	int64_t n = s->fs->pread(s->fs, s->fd, s->ahead, len, off);
	s->ahead_at = off;
	s->ahead_n = n > 0 ? (size_t)n : 0;
}

void
mw_seg_behind(struct mw_seg *s)
{
	s->ahead_n = 0;
}

const uint8_t *
mw_seg_at_hand(const struct mw_seg *s, size_t n, uint64_t off)
{
	if (off < s->ahead_at || off - s->ahead_at > s->ahead_n ||
	    n > s->ahead_n - (size_t)(off - s->ahead_at))
		return NULL;
	return s->ahead + (off - s->ahead_at);
}

int64_t
mw_seg_read(struct mw_seg *s, void *p, size_t n, uint64_t off)
{
	const uint8_t *here = mw_seg_at_hand(s, n, off);
	if (!here)
		return s->fs->pread(s->fs, s->fd, p, n, off);
	memcpy(p, here, n);
	return (int64_t)n;
}

static int
no(const char **why, const char *text)
{
	if (why)
		*why = text;
	return 0;
}

struct stretch {
	uint64_t off, len;
	uint32_t crc;
	uint8_t *hash; /* NULL: its SHA-256 is not wanted */
};

static const void *
at_hand(const struct mw_seg *s, size_t n, uint64_t off)
{
	return s->fs->at_hand ? s->fs->at_hand(s->fs, s->fd, n, off) : NULL;
}

/* One of the file, each byte read once: 1 its CRC holds, 0 it does not, negative I/O. */
static int
check_stretch(struct mw_seg *s, const struct stretch *x, struct mw_err *err)
{
	uint8_t room[STEP];
	uint64_t off = x->off, len = x->len;
	struct mw_sha256 h;
	uint32_t crc = 0;
	mw_assert(mw_sha256_init(&h) == 0);
	while (len) {
		size_t k = (size_t)MW_MIN(len, (uint64_t)STEP);
		const uint8_t *p = at_hand(s, k, off);
		int64_t n = p ? (int64_t)k : s->fs->pread(s->fs, s->fd, room, k, off);
		p = p ? p : room;
		if (n < 0)
			return read_fail(s, n, err);
		if ((size_t)n < k)
			return 0;
		crc = mw_crc32c(crc, p, k);
		if (x->hash)
			mw_sha256_update(&h, p, k);
		off += k;
		len -= k;
	}
	if (x->hash)
		mw_sha256_final(&h, x->hash);
	return crc == x->crc;
}

static int
check_slot(struct mw_seg *s, uint64_t off, uint32_t len, struct mw_err *err)
{
	struct mw_slot slot;
	const void *there = at_hand(s, len, off);
	if (there)
		return mw_slot_decode(there, len, &slot) != MW_SLOT_BAD;
	MW_AUTOFREE uint8_t *p = malloc(len);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading");
	int64_t n = s->fs->pread(s->fs, s->fd, p, len, off);
	if (n < 0)
		return read_fail(s, n, err);
	return (uint64_t)n == len && mw_slot_decode(p, len, &slot) != MW_SLOT_BAD;
}

/* All that stands behind the header of f at off: 1, 0 and why, negative I/O. */
static int
check_parts(struct mw_seg *s, uint64_t off, const struct mw_frame *f,
            struct mw_seg_sums *sums, const char **why, struct mw_err *err)
{
	uint64_t at = off + MW_FRAME_HEADER;
	int r = check_slot(s, at, f->slot_len, err);
	if (r <= 0)
		return r < 0 ? r : no(why, "key slot does not match its checksum");
	struct stretch x = {at + f->slot_len, f->meta_len, f->meta_crc,
	                    sums ? sums->meta : NULL};
	r = check_stretch(s, &x, err);
	if (r <= 0)
		return r < 0 ? r : no(why, "metadata do not match their checksum");
	x = (struct stretch){x.off + f->meta_len, f->body_len, f->body_crc,
	                     sums ? sums->body : NULL};
	r = check_stretch(s, &x, err);
	if (r <= 0)
		return r < 0 ? r : no(why, "content does not match its checksum");
	return 1;
}

int
mw_seg_frame(struct mw_seg *s, uint64_t off, enum mw_check how, struct mw_frame *ret,
             const char **why, struct mw_err *err)
{
	uint8_t head[MW_FRAME_HEADER];
	int64_t n = how == MW_CHECK_HEADER
	                ? mw_seg_read(s, head, sizeof head, off)
	                : s->fs->pread(s->fs, s->fd, head, sizeof head, off);
	if (n < 0)
		return read_fail(s, n, err);
	if ((size_t)n < sizeof head)
		return no(why, "file ends");
	struct mw_frame f;
	if (!mw_frame_decode(head, s->h.salt, &f))
		return no(why, "no valid frame header");
	if (off > s->size || mw_frame_len(&f) > s->size - off) {
		/* a file being written grows under a reader */
		int64_t size = s->fs->size(s->fs, s->fd);
		if (size < 0)
			return read_fail(s, size, err);
		s->size = (uint64_t)size;
		if (off > s->size || mw_frame_len(&f) > s->size - off)
			return no(why, "frame goes past the end of the file");
	}
	if (how == MW_CHECK_ALL) {
		int r = check_parts(s, off, &f, NULL, why, err);
		if (r <= 0)
			return r;
	}
	*ret = f;
	return 1;
}

int
mw_seg_frame_sums(struct mw_seg *s, uint64_t off, struct mw_frame *ret,
                  struct mw_seg_sums *sums, const char **why, struct mw_err *err)
{
	struct mw_frame f;
	int r = mw_seg_frame(s, off, MW_CHECK_HEADER, &f, why, err);
	if (r == 1)
		r = check_parts(s, off, &f, sums, why, err);
	if (r == 1)
		*ret = f;
	return r;
}

int
mw_seg_find(struct mw_seg *s, uint64_t from, uint64_t limit, uint64_t min_seq,
            uint64_t *ret_off, struct mw_frame *ret, struct mw_err *err)
{
	static const uint8_t magic[4] = {'M', 'W', 'F', '1'};
	MW_AUTOFREE uint8_t *p = malloc(CHUNK);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading");
	from = (from + 7) & ~UINT64_C(7);
	while (from < limit) {
		int64_t n = s->fs->pread(s->fs, s->fd, p, CHUNK, from);
		if (n < 0)
			return read_fail(s, n, err);
		if (n < MW_FRAME_HEADER)
			return 0;
		for (size_t i = 0; i + 8 <= (size_t)n && from + i < limit; i += 8) {
			if (memcmp(p + i, magic, 4) != 0)
				continue;
			struct mw_frame f;
			int r = mw_seg_frame(s, from + i, MW_CHECK_HEADER, &f, NULL, err);
			if (r < 0)
				return r;
			if (r == 1 && f.seq >= min_seq) {
				*ret_off = from + i;
				*ret = f;
				return 1;
			}
		}
		from += (uint64_t)n & ~UINT64_C(7);
		if (n < CHUNK)
			return 0;
	}
	return 0;
}

/* Bytes from off up to the last one that is not zero. */
static int
nonzero_tail(struct mw_seg *s, uint64_t off, uint64_t *ret, struct mw_err *err)
{
	MW_AUTOFREE uint8_t *p = malloc(CHUNK);
	if (!p)
		return mw_fail(err, MW_ENOMEM, "out of memory while reading");
	uint64_t start = off, last = 0;
	for (;;) {
		int64_t n = s->fs->pread(s->fs, s->fd, p, CHUNK, off);
		if (n < 0)
			return read_fail(s, n, err);
		if (n == 0)
			break;
		bool zero = p[0] == 0 && memcmp(p, p + 1, (size_t)n - 1) == 0;
		for (int64_t i = n - 1; !zero && i >= 0; i--)
			if (p[i]) {
				last = off + (uint64_t)i + 1 - start;
				break;
			}
		off += (uint64_t)n;
	}
	*ret = last;
	return 0;
}

/* Is what stands at e->end, and is not valid, acknowledged data that was damaged? 1 and
 * the place to go on; 0 no. A valid frame of a batch that could only be written after the
 * missing ones were synced proves it (I6). */
static int
proves_damage(struct mw_seg *s, const struct mw_seg_end *e, uint64_t *ret_off,
              struct mw_err *err)
{
	uint64_t from = e->end + 8, batch = e->next_batch - 1;
	for (;;) {
		struct mw_frame f;
		uint64_t off;
		int r = mw_seg_find(s, from, UINT64_MAX, e->next_seq, &off, &f, err);
		if (r <= 0)
			return r;
		r = mw_seg_frame(s, off, MW_CHECK_ALL, &f, NULL, err);
		if (r < 0)
			return r;
		if (r == 1 &&
		    (f.batch > batch + 1 ||
		     (f.batch == batch + 1 && f.seq - f.batch_pos > e->next_seq))) {
			*ret_off = off;
			return 1;
		}
		from = off + 8;
	}
}

static void
step(struct mw_seg_end *e, const struct mw_frame *f, uint64_t off)
{
	e->end = off + mw_frame_len(f);
	e->next_seq = f->seq + 1;
	e->next_batch = f->batch + 1;
	memcpy(e->chain, f->chain, MW_HASH_LEN);
}

/* Is there nothing where the next frame would begin? 1, 0 something, negative I/O. */
static int
nothing_at(struct mw_seg *s, uint64_t off, struct mw_err *err)
{
	static const uint8_t zero[MW_FRAME_HEADER];
	uint8_t head[MW_FRAME_HEADER];
	int64_t n = s->fs->pread(s->fs, s->fd, head, sizeof head, off);
	if (n < 0)
		return read_fail(s, n, err);
	return n == 0 || memcmp(head, zero, (size_t)n) == 0;
}

int
mw_seg_grow(struct mw_seg *s, struct mw_seg_end *e, struct mw_err *err)
{
	int moved = 0;
	for (;;) {
		struct mw_frame f;
		int r = mw_seg_frame(s, e->end, MW_CHECK_ALL, &f, NULL, err);
		if (r < 0)
			return r;
		if (r == 1 && f.seq == e->next_seq) {
			step(e, &f, e->end);
			moved = 1;
			continue;
		}
		if (moved)
			return 1;
		r = nothing_at(s, e->end, err);
		return r < 0 ? r : r ? 0 : MW_EFORMAT;
	}
}

static bool
names(const struct mw_seg_said *said, const struct mw_seg_end *e)
{
	return said && said->next_seq == e->next_seq &&
	       memcmp(said->chain, e->chain, MW_HASH_LEN) == 0;
}

/* The walk of mw_seg_end. Before a place is looked at again, what was read ahead is
 * forgotten: a writer may have gone on since. w may be NULL. */
static int
walk(struct mw_seg *s, struct mw_window *w, const struct mw_seg_said *said,
     struct mw_seg_end *ret, struct mw_err *err)
{
	struct mw_seg_end e = *ret;
	bool all = false; /* that was durable when the writer was asked */
	for (;;) {
		all = all || names(said, &e);
		struct mw_frame f;
		uint64_t off;
		int r = mw_seg_frame(s, e.end, MW_CHECK_ALL, &f, NULL, err);
		if (r < 0)
			return r;
		if (r == 1 && f.seq == e.next_seq) {
			step(&e, &f, e.end);
			continue;
		}
		if (w)
			mw_window_forget(w);
		if (all) {
			r = nothing_at(s, e.end, err);
			if (r == 1)
				break;
			if (r == 0) /* or has just been written? */
				r = mw_seg_frame(s, e.end, MW_CHECK_ALL, &f, NULL, err);
			if (r == 1 && f.seq == e.next_seq)
				continue;
			if (r < 0)
				return r;
		}
		r = nonzero_tail(s, e.end, &e.torn_bytes, err);
		if (r < 0)
			return r;
		if (!e.torn_bytes) /* nothing proves anything */
			break;
		r = proves_damage(s, &e, &off, err);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		/* A reader beside the writer may have looked too early: look again. */
		if (w)
			mw_window_forget(w);
		r = mw_seg_frame(s, e.end, MW_CHECK_ALL, &f, NULL, err);
		if (r < 0)
			return r;
		if (r == 1 && f.seq == e.next_seq)
			continue;
		e.gaps++;
		r = mw_seg_frame(s, off, MW_CHECK_ALL, &f, NULL, err);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		step(&e, &f, off);
	}
	*ret = e;
	return 0;
}

int
mw_seg_end(struct mw_seg *s, const struct mw_seg_end *known,
           const struct mw_seg_said *said, struct mw_seg_end *ret, struct mw_err *err)
{
	const struct mw_fs *below = s->fs;
	struct mw_seg_end e = {.end = s->h.length,
	                       .next_seq = s->h.first_seq,
	                       .next_batch = s->h.first_batch};
	memcpy(e.chain, s->h.chain, MW_HASH_LEN);
	if (known)
		e = *known;
	/* Frames are short, and reading each alone is what takes the time. */
	uint64_t n = known ? 0 : MW_MIN(s->size, (uint64_t)WINDOW);
	MW_WINDOW_AUTO *w = mw_window_new(below, (size_t)MW_MAX(n, (uint64_t)CHUNK));
	if (w)
		s->fs = mw_window_fs(w);
	int r = walk(s, w, said, &e, err);
	s->fs = below;
	if (r == 0)
		*ret = e;
	return r;
}
