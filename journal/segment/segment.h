/* segment.h - one file of the log: header, frames, trailer (FORMAT.md §2, §5, §8).
 *
 * Writing: mw_seg_create → (mw_seg_write… mw_seg_sync)* → mw_seg_finish → mw_seg_free.
 * After any failed write or sync the segment is dead: every later call gives MW_EPOISON
 * and the descriptor is not touched again (I5). Reading: mw_seg_open → mw_seg_end →
 * mw_seg_frame / mw_seg_find → mw_seg_free. No locks inside: one thread at a time.
 */
#ifndef MW_SEGMENT_SEGMENT_H
#define MW_SEGMENT_SEGMENT_H

#include "journal/base/buf.h"
#include "journal/base/fs.h"
#include "journal/segment/frame.h"

enum {
	MW_SEG_BLOCK = 4096,
	MW_SEG_TRAILER = 152
};

struct mw_seg_header {
	uint32_t length; /* of both header blocks: where the frames begin */
	uint8_t journal[MW_ID_LEN];
	uint8_t salt[MW_SALT_LEN];
	uint64_t number, first_seq, first_batch;
	int64_t created_us;
	uint64_t prev_number, prev_batch, prev_end;
	uint32_t delimiter; /* CRC of the extension delimiters; 0: none, unknown */
	bool prev_open;     /* the predecessor was left without a trailer */
	uint8_t chain[MW_HASH_LEN]; /* before the first frame */
	uint8_t *stanzas;           /* kind, length, bytes …; owned by the segment */
	size_t stanzas_len;
	uint32_t n_stanzas;
};

struct mw_seg_trailer {
	uint64_t close_off, first_seq, last_seq, last_batch;
	int64_t time_us;
	uint8_t chain[MW_HASH_LEN];
	uint8_t raw[MW_SEG_TRAILER]; /* reader: as it stands in the file */
};

struct mw_seg {
	const struct mw_fs *fs;
	int fd;
	struct mw_seg_header h;
	uint64_t at;   /* writer: where the next frame goes */
	uint64_t size; /* reader: file size when last looked */
	bool dead, writable;
	bool closed;      /* reader: ends with a valid trailer */
	bool header_hurt; /* reader: one of the two header blocks does not hold */
	struct mw_seg_trailer t;
	uint8_t *ahead; /* what mw_seg_ahead read: ahead_n bytes at ahead_at */
	uint64_t ahead_at;
	size_t ahead_n, ahead_cap;
};

/* "DIR/segments/NNNNNNNNNNNNNNNN.seg" into out (PATH_MAX). */
void mw_seg_path(char *out, size_t n, const char *dir, uint64_t number);

/* Makes dir/segments/next.tmp, zero-filled to `fill` bytes, so that later writes need no
 * new blocks. Safe beside mw_seg_create in another thread. Any failure just leaves the
 * work to mw_seg_create. */
void mw_seg_prepare(const struct mw_fs *fs, const char *dir, uint64_t fill);
/* Header block into the prepared file (or a new one), sync, rename, directory sync (I3).
 * h is copied, stanzas too. */
int mw_seg_create(const struct mw_fs *fs, const char *dir, const struct mw_seg_header *h,
                  struct mw_seg **ret, struct mw_err *err) MW_CHECK;
/* Writes at seg->at and moves it. The iovecs may be changed. */
int mw_seg_write(struct mw_seg *s, struct iovec *iov, int n, size_t bytes,
                 struct mw_err *err) MW_CHECK;
int mw_seg_sync(struct mw_seg *s, struct mw_err *err) MW_CHECK;
/* MW_EIO where its name in journal `dir` does not lead to it any more: what is written
 * there is lost. As after a failed sync the segment takes nothing from then on. */
int mw_seg_in_place(struct mw_seg *s, const char *dir, struct mw_err *err) MW_CHECK;
/* After the CLOSE frame is written: trailer, signed with the Ed25519 seed (NULL: not
 * signed), cut to length, sync. */
int mw_seg_finish(struct mw_seg *s, const struct mw_seg_trailer *t, const uint8_t *seed,
                  struct mw_err *err) MW_CHECK;
/* Reader, of a closed segment: 1 the signature holds under this public key, 0 it has
 * none, MW_EDAMAGED it does not hold, MW_ENOMEM. */
int mw_seg_signed(const struct mw_seg *s, const uint8_t *pk) MW_CHECK;
void mw_seg_free(struct mw_seg *s); /* NULL ok */

/* n bytes at off: as fs->pread, out of what mw_seg_ahead read where that holds them. */
int64_t mw_seg_read(struct mw_seg *s, void *p, size_t n, uint64_t off) MW_CHECK;
/* For one who walks: reads len bytes at off in one piece, for mw_seg_read and
 * mw_seg_frame. What is wiped or written in there later is not seen until the next call
 * or mw_seg_behind. A failure is left to the reads themselves. */
void mw_seg_ahead(struct mw_seg *s, uint64_t off, size_t len);
void mw_seg_behind(struct mw_seg *s); /* forgets it */
/* n bytes at off where they were read ahead, until the next call of either; else NULL. */
const uint8_t *mw_seg_at_hand(const struct mw_seg *s, size_t n, uint64_t off);

/* Did it leave the log while we had it open (I20)? Whoever finds that what he read does
 * not hold asks that afterwards: it is no damage then. */
bool mw_seg_left(const struct mw_seg *s, const char *dir);

/* Opens for reading and checks header and, where there is one, trailer. MW_ENOTFOUND,
 * MW_EVERSION, MW_EDAMAGED (header), MW_EFORMAT (of another journal). journal may be
 * NULL: any. */
int mw_seg_open(const struct mw_fs *fs, const char *dir, uint64_t number,
                const uint8_t *journal, struct mw_seg **ret, struct mw_err *err) MW_CHECK;

/* The same, after dropping what the kernel has cached of the file: after a failed write
 * the cache may show bytes that the disk does not have. */
int mw_seg_open_disk(const struct mw_fs *fs, const char *dir, uint64_t number,
                     const uint8_t *journal, struct mw_seg **ret,
                     struct mw_err *err) MW_CHECK;

enum mw_check {
	MW_CHECK_HEADER,
	MW_CHECK_ALL
};

/* The frame at off: 1 and *ret; 0 if no valid one stands there. With MW_CHECK_ALL slot
 * and payload CRCs too; `why` (may be NULL) gets the reason of a 0. Negative: I/O. */
int mw_seg_frame(struct mw_seg *s, uint64_t off, enum mw_check how, struct mw_frame *ret,
                 const char **why, struct mw_err *err) MW_CHECK;
struct mw_seg_sums { /* SHA-256 of the stored metadata and content */
	uint8_t meta[MW_HASH_LEN], body[MW_HASH_LEN];
};

/* The same with MW_CHECK_ALL, and the sums that the chain needs, each byte read once. */
int mw_seg_frame_sums(struct mw_seg *s, uint64_t off, struct mw_frame *ret,
                      struct mw_seg_sums *sums, const char **why,
                      struct mw_err *err) MW_CHECK;
/* The first offset >= from, below `limit`, where a frame with a valid header stands
 * (sequence number >= min_seq): 1, 0 none, negative I/O. */
int mw_seg_find(struct mw_seg *s, uint64_t from, uint64_t limit, uint64_t min_seq,
                uint64_t *ret_off, struct mw_frame *ret, struct mw_err *err) MW_CHECK;

struct mw_seg_end {
	uint64_t end; /* what is before it belongs to the log */
	uint64_t next_seq, next_batch;
	uint8_t chain[MW_HASH_LEN]; /* of the last frame that counts */
	uint64_t torn_bytes;        /* bytes after end up to the last that is not zero */
	uint64_t gaps;              /* damaged places before end */
};

struct mw_seg_said {       /* the newest durable record, as the writer itself named it */
	uint64_t next_seq; /* after it */
	uint8_t chain[MW_HASH_LEN];
};

/* Where the log ends in a segment that nothing else decides about (FORMAT.md §8). Walks
 * from `known`, which holds (NULL: the first frame), with MW_CHECK_ALL. Behind the last
 * frame everything is read to the end of the file; unless `said` is not NULL, the walk
 * has come over the record that it names, and zeros stand there. */
int mw_seg_end(struct mw_seg *s, const struct mw_seg_end *known,
               const struct mw_seg_said *said, struct mw_seg_end *ret,
               struct mw_err *err) MW_CHECK;

/* Goes on from an end that held a moment ago, over what was written since, without
 * looking at the space behind it: 1 and *e moved, 0 nothing stands there yet, MW_EFORMAT
 * something that is no whole valid frame, which only mw_seg_end can judge. */
int mw_seg_grow(struct mw_seg *s, struct mw_seg_end *e, struct mw_err *err) MW_CHECK;

/* Numbers of the segments in a journal, ascending; malloc'd. */
int mw_seg_list(const struct mw_fs *fs, const char *dir, uint64_t **ret, size_t *ret_n,
                struct mw_err *err) MW_CHECK;
/* The same of those on their way out, which have their last name (I20). */
int mw_seg_list_doomed(const struct mw_fs *fs, const char *dir, uint64_t **ret,
                       size_t *ret_n, struct mw_err *err) MW_CHECK;

#endif
