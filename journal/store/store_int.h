/* store_int.h - what the files of the store share. Nobody else includes it. */
#ifndef MW_STORE_INT_H
#define MW_STORE_INT_H

#include "journal/base/buf.h"
#include "journal/codec/aead.h"
#include "journal/codec/digest.h"
#include "journal/codec/zstd.h"
#include "journal/index/index.h"
#include "journal/record/canon.h"
#include "journal/segment/segment.h"
#include "journal/store/dict_int.h"
#include "journal/store/spill.h"
#include "journal/store/store.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
	MW_PIECE = 65536, /* plain bytes of a sealed piece (FORMAT.md §6) */
	MW_AAD_LEN = 8 + MW_ID_LEN + MW_ID_LEN + 1,
	MW_HEADER_KEEP = 1 << 20, /* header bytes kept for Message-ID, Subject, From */
	MW_ONE_SHOT = 128 * 1024, /* content up to here is compressed in one go */
	MW_OPEN_SEGS = 16,
	MW_SEG_DICTS = 4,        /* dictionaries that an open segment is known to have */
	MW_READ_DICTS = 4,       /* a reader keeps at hand */
	MW_FRAME_HOST = 1,       /* frame flag: record key under the host key */
	MW_FRAME_IMPORTED = 2,   /* … its time is older than the log at its place */
	MW_KEYS_MOST = 16,       /* recovery keys of a journal */
	MW_WRAPPED_SEG_KEY = 88, /* a stanza of kind 2: key ID, enc, ciphertext */
	MW_ID_TOKEN = 6          /* leading bytes of a record ID that make its token */
};

/* A part on its way to disk: compressed, cut, sealed, in memory or spilled. */
struct mw_sealing {
	uint8_t part; /* 0 metadata, 1 content */
	uint64_t pieces;
	struct mw_buf plain;    /* compressed bytes of the piece in progress */
	struct mw_buf out;      /* sealed bytes not spilled */
	struct mw_spill *spill; /* NULL: none */
	uint64_t spilled, len;
	uint32_t crc;
	struct mw_sha256 sha;
};

struct mw_entry {
	struct mw_store *st;
	enum mw_type type;
	uint8_t id[MW_ID_LEN];
	uint8_t key[MW_AEAD_KEY];
	uint8_t aad[MW_AAD_LEN];
	struct mw_aead aead;
	int64_t time_us;
	/* content */
	uint64_t size, header_size;
	bool header_done, cr_pending, line_start;
	struct mw_buf header;
	struct mw_buf early;  /* content not yet compressed, up to MW_ONE_SHOT */
	struct mw_zc *zc;     /* beyond that */
	struct mw_dict *dict; /* what its content was compressed with; a DICT: itself */
	struct mw_sha256 sha, canon_sha;
	struct mw_canon canon;
	struct mw_arena *arena; /* strings of mw_entry_describe */
	struct mw_sealing body, meta;
	uint8_t sha256[MW_SHA256_LEN], digest[MW_SHA256_LEN];
	bool body_done, finished, imported;
	struct mw_buf tokens;
	bool parted;        /* it has tokens of recipients … */
	uint32_t delimiter; /* … without extension, as these characters part it: CRC */
	/* commit */
	struct mw_entry *next;
	uint8_t *head; /* frame header and slot */
	size_t head_len;
	uint64_t offset; /* once durable: where it is */
	int64_t wait_us;
	uint8_t meta_hash[MW_HASH_LEN], body_hash[MW_HASH_LEN];
	struct mw_frame frame;
	int64_t submitted_us;
	void (*cb)(void *arg, const struct mw_commit *c);
	void *cb_arg;
};

struct mw_open_seg { /* reader's cache of open segments */
	struct mw_seg *seg;
	uint8_t key[MW_AEAD_KEY];
	bool have_key, key_tried; /* see mw_store_seg_key */
	struct mw_aead aead;      /* with that key, once a record was opened */
	uint64_t used;
};

struct mw_read_dict { /* reader's cache */
	uint64_t segment;
	uint32_t at;
	struct mw_zdict *z;
	uint64_t used;
};

struct mw_redo { /* a partition of the index of which segments change, or went */
	uint64_t part;
	uint64_t *segment;
	size_t n;
	int old;           /* what it was: a file without a name; -1: none */
	unsigned changing; /* so many are at it */
	uint64_t revision;
};

struct mw_store {
	char dir[PATH_MAX];
	const struct mw_fs *fs;
	const struct mw_clock *clock;
	struct mw_store_opts o;
	_Atomic uint64_t min_free; /* o.min_free, which a reload changes */
	_Atomic int64_t gather_us; /* o.gather_us, likewise */
	atomic_int coming;         /* entries on their way, see mw_store_coming */
	atomic_uint waiting;       /* entries in the queue at `head` */
	atomic_bool gathering;     /* the committer waits for them, on `arrived` */
	uint8_t id[MW_ID_LEN];
	uint8_t token_key[32];
	struct mw_hmac token_hmac; /* begun with it */
	uint8_t sign_public[32];
	uint8_t sign_seed[32]; /* writer */
	bool can_sign, has_public;
	uint8_t host_key[MW_AEAD_KEY];
	uint8_t recovery[MW_KEYS_MOST][32]; /* public */
	size_t n_recovery;
	uint8_t *secret; /* n_secret private keys of 32 bytes */
	size_t n_secret;
	int lock_fd;

	/* reading (one thread) */
	struct mw_open_seg open[MW_OPEN_SEGS];
	int last_seg; /* of these, the one asked for last */
	uint64_t tick;
	struct mw_aead aead; /* for the next record that is opened */
	struct mw_zd *zd;    /* and its next part, or NULL */
	uint64_t seen;       /* an open segment whose end was looked for, 0: none */
	struct mw_seg_end seen_end;
	bool seen_asked;        /* the writer may have said it */
	bool mute;              /* the writer was asked how far it goes, in vain */
	struct mw_index *index; /* reader's handle, opened on first use */
	uint64_t index_done; /* catching up: partitions below that segment are complete */
	_Atomic int64_t index_until; /* … which ends then (mono_us); 0: when it is done */
	struct mw_read_dict read_dict[MW_READ_DICTS];

	/* writing. Lock order: mu alone; nothing is called back under it. */
	pthread_mutex_t mu; /* guards the block up to `stats` */
	pthread_cond_t work, idle, arrived;
	struct mw_entry *head, **tail;
	int64_t
	    batch_us; /* when the oldest of the batch at work was submitted; 0: none */
	char delimiter[16]; /* o.delimiter, which a reload changes */
	bool stop, want_roll, busy;
	int roll_code;
	uint64_t rolls_done;
	uint64_t durable_seq; /* next sequence number after what is durable */
	uint8_t durable_chain[MW_HASH_LEN]; /* of the record before it */
	uint64_t indexed_seq;
	struct mw_store_stats stats;

	/* the committer's own */
	pthread_t committer, indexer, preparer;
	bool have_committer, have_indexer, have_preparer;
	unsigned hurry;   /* so many commits do not wait for others */
	int64_t tried_us; /* when the last batch was written, or the disk probed */
	struct mw_seg *seg;
	uint8_t seg_key[MW_AEAD_KEY];
	struct mw_aead seg_aead, host_aead;
	uint64_t seg_records, seg_mails, seg_bytes, seg_first_seq;
	int64_t seg_tmin, seg_tmax, seg_born_us;
	bool last_open;                             /* … was left without a trailer */
	uint64_t last_number, last_batch, last_end; /* of the segment before */
	uint64_t segments_before; /* the newest one that this writer found */
	/* Whose tokens a new segment has (segment.h): of the last batch with such tokens,
	 * 0 if they were not all made by the same. */
	uint32_t delimiter_crc;
	uint64_t next_seq, next_batch;
	uint8_t chain[MW_HASH_LEN];
	struct mw_dicts *dicts; /* NULL: none wanted; guards itself */
	struct {
		struct mw_dict *d;
		uint32_t at;
	} seg_dict[MW_SEG_DICTS]; /* what the open segment has */
	size_t n_seg_dict;
	_Atomic uint64_t last_fill; /* bytes of the last segment; the preparer reads */
	pthread_cond_t prepare_cv, index_cv;
	struct mw_spiller spiller; /* guards itself */
	bool want_prepare;
	pthread_mutex_t redo_mu; /* guards the block up to `n_redo`; not with mu */
	struct mw_redo *redo;    /* partitions of the index to be made again */
	size_t n_redo;
	bool loading_gone;          /* reading: what went is being gathered */
	struct mw_gone *gone;       /* reading: what went, as far as it was asked for */
	struct mw_store *ix_reader; /* the indexer's own reader */
};

/* lock.c */
int mw_store_identity(struct mw_store *st, struct mw_err *err) MW_CHECK;
int mw_store_lock(struct mw_store *st, struct mw_err *err) MW_CHECK;

/* place.c: whether dir, or where it would be made, is fit to be written as a journal:
 * MW_ECONF on a network file system. *ret_memory names one that is gone with the next
 * boot, else NULL. */
int mw_store_place(const struct mw_fs *fs, const char *dir, const char **ret_memory,
                   struct mw_err *err) MW_CHECK;
/* What dir is in, or would be. */
const char *mw_store_above(const char *dir, char buf[PATH_MAX]);
/* Before a segment begins: is the directory still ours, and the lock in it? */
int mw_store_own_again(struct mw_store *st, struct mw_err *err) MW_CHECK;
void mw_store_unlock(struct mw_store *st);

/* keys.c */
/* Loads, or takes as given, the journal's public recovery keys; copies the secret ones.
 */
int mw_store_keys(struct mw_store *st, struct mw_err *err) MW_CHECK;
/* Once the lock is held: writes down the keys a writer was given. */
int mw_store_keys_keep(struct mw_store *st, struct mw_err *err) MW_CHECK;
void mw_store_keys_done(struct mw_store *st);
/* The stanzas of a new segment; out is appended to. */
int mw_store_stanzas(struct mw_store *st, struct mw_seg_header *h, struct mw_buf *out,
                     struct mw_err *err) MW_CHECK;
/* A segment's key out of its stanzas: 1 and key set, 0 no key opens it, MW_ENOMEM. */
int mw_store_unwrap(const struct mw_store *st, const struct mw_seg *s,
                    uint8_t key[MW_AEAD_KEY]) MW_CHECK;
/* A stanza for the public key pk, appended to out; and opened with a secret key at hand:
 * as mw_store_unwrap. */
int mw_wrap_stanza(const struct mw_seg_header *h, const uint8_t key[MW_AEAD_KEY],
                   const uint8_t pk[32], struct mw_buf *out) MW_CHECK;
int mw_unwrap_stanza(const struct mw_store *st, const struct mw_seg *s, const uint8_t *p,
                     uint8_t key[MW_AEAD_KEY]) MW_CHECK;

/* rewrap.c: the file of keys added to a segment */
struct mw_added {
	void *file;
	size_t size;
	const uint8_t *stanzas;
	uint32_t n;
};
/* 1, 0 none, MW_EDAMAGED. Freed by mw_added_free, unless it fails. */
int mw_added_load(const struct mw_store *st, const struct mw_seg *s, struct mw_added *ret,
                  struct mw_err *err) MW_CHECK;
void mw_added_free(struct mw_added *a);
/* What stanza i has of kind 2, or NULL. */
const uint8_t *mw_added_stanza(const struct mw_added *a, uint32_t i);
/* Was it made by who knew this key of the segment? */
bool mw_added_proven(const struct mw_added *a, const uint8_t key[MW_AEAD_KEY]);
int mw_added_unwrap(const struct mw_store *st, const struct mw_seg *s,
                    uint8_t key[MW_AEAD_KEY]) MW_CHECK;
void mw_added_path(const struct mw_store *st, uint64_t number, char out[PATH_MAX]);

/* Records that the host itself must read: marks, notes of its own doings. */
bool mw_type_of_host(enum mw_type t);

/* entry.c */
int mw_seal_put(struct mw_entry *e, struct mw_sealing *s, const void *p, size_t n,
                struct mw_err *err) MW_CHECK;

/* token.c: onto an entry that is not finished; a failure stays in its buffer. */
void mw_token_add(struct mw_entry *e, enum mw_key kind, struct mw_str value);
void mw_token_mail(struct mw_entry *e, const struct mw_mail *m);
void mw_token_unique(struct mw_buf *b); /* sorts, too */

/* commit.c */
int mw_commit_start(struct mw_store *st, struct mw_err *err) MW_CHECK;
void mw_commit_stop(struct mw_store *st);
/* What the committer has written is durable; with mu held, or alone. */
void mw_store_durable(struct mw_store *st);
void mw_store_say(const struct mw_store *st, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* batch.c, roll.c: the committer's thread only */
int mw_commit_batch(struct mw_store *st, struct mw_entry *list,
                    struct mw_err *err) MW_CHECK;
int mw_segment_start(struct mw_store *st, struct mw_err *err) MW_CHECK;
int mw_segment_close(struct mw_store *st, struct mw_err *err) MW_CHECK;
/* Leaves it as it is, good up to good_end: its successor's header will say so (I4). */
void mw_segment_abandon(struct mw_store *st, uint64_t good_end);

/* recover.c */
int mw_store_recover(struct mw_store *st, struct mw_recovery *ret_note,
                     struct mw_err *err) MW_CHECK;

/* remove.c: what a removal that was cut short left. */
void mw_store_finish_removal(struct mw_store *st);

/* read.c */
/* e, what reading that record reported: what could not be read may have gone meanwhile,
 * and then it is MW_EERASED. */
int mw_store_or_gone(struct mw_store *st, uint64_t seq, int e,
                     struct mw_err *err) MW_CHECK;
int mw_store_seg(struct mw_store *st, uint64_t number, struct mw_open_seg **ret,
                 struct mw_err *err) MW_CHECK;
/* Its key, which is opened when it is first needed (that takes longer than all else): 1
 * and o->key, 0 no key opens it, MW_ENOMEM. */
int mw_store_seg_key(struct mw_store *st, struct mw_open_seg *o,
                     struct mw_err *err) MW_CHECK;
void mw_store_seg_drop(struct mw_store *st, uint64_t number);
/* Closes all that are open but the newest: who reads on does not come back. */
void mw_store_segs_newest(struct mw_store *st);
void mw_store_segs_close(struct mw_store *st);
/* How far a segment counts: *ret_end, and whether that can still change. next: the number
 * of the segment after it, 0 if there is none. known: see mw_seg_end. ask: a writer that
 * runs is asked what is durable, and what stands behind that is not read. */
struct mw_extent {
	uint64_t end;
	bool final;
	struct mw_seg_end open; /* when not final */
};
int mw_store_extent(struct mw_store *st, uint64_t number, uint64_t next,
                    const struct mw_seg_end *known, bool ask, struct mw_extent *ret,
                    struct mw_err *err) MW_CHECK;
void mw_record_of(struct mw_record *r, uint64_t segment, uint64_t off,
                  const struct mw_frame *f);

/* cursor.c */
int mw_cursor_at(struct mw_store *st, const struct mw_index_point *at,
                 struct mw_cursor **ret, struct mw_err *err) MW_CHECK;
/* Of a segment whose end this store has looked for before, only what was written since is
 * looked at: a look-up must not cost a walk of the open segment each time. */
void mw_cursor_seen(struct mw_cursor *c);
/* The index knows this record, so the log reaches over it: where it ends is looked for
 * from there on, not by a walk of the whole open segment. */
void mw_cursor_whole(struct mw_cursor *c, const struct mw_record *last);
/* For look-ups, which tell of no damage: see mw_store_extent. */
void mw_cursor_ask(struct mw_cursor *c);
/* Stops before sequence number `limit`; all below it is known to be durable, so the end
 * of an open segment need not be looked for. */
void mw_cursor_limit(struct mw_cursor *c, uint64_t limit);
void mw_cursor_point(const struct mw_cursor *c, struct mw_index_point *ret);

/* find.c: as mw_store_find, of records with a sequence number of at least *from, which
 * then is where the next look begins: in the newest segment, where numbers may change */
int mw_store_find_from(struct mw_store *st, enum mw_key key, struct mw_str value,
                       uint64_t *from, int (*cb)(void *arg, const struct mw_record *r),
                       void *arg, struct mw_err *err) MW_CHECK;

/* gone.c */
/* Is the hole first … last in the log one that an audit record names? 1, 0, negative. */
int mw_store_hole_known(struct mw_store *st, uint64_t first, uint64_t last,
                        struct mw_err *err) MW_CHECK;

/* reindex.c */
int mw_index_start(struct mw_store *st, struct mw_err *err) MW_CHECK;
void mw_index_stop(struct mw_store *st);
bool mw_index_time_is_up(struct mw_store *st);
/* An entry without its tokens, which are appended to `tokens`. */
int mw_index_entry_of(struct mw_store *st, const struct mw_record *rec,
                      struct mw_buf *tokens, struct mw_index_entry *ret,
                      struct mw_err *err) MW_CHECK;
int mw_index_catch_up(struct mw_store *st, struct mw_index *ix, uint64_t limit_seq,
                      uint64_t *ret_records, struct mw_err *err) MW_CHECK;

/* redo.c: before a segment of a writer's is changed or removed, and after it: its part of
 * the index is gone at once, and made again by the index thread. */
int mw_redo_begin(struct mw_store *st, uint64_t segment,
                  struct mw_err *err) MW_CHECK; /* MW_ELOCKED: mw_index_forget */
void mw_redo_end(struct mw_store *st, uint64_t segment);
bool mw_redo_waits(struct mw_store *st);
/* Closes what is left of the old ones: who cannot make them anew now keeps nothing back.
 */
void mw_redo_let_go(struct mw_store *st);
/* The index thread's, between begin and end: does what waits; true: nothing does now. */
bool mw_redo_run(struct mw_store *st, struct mw_index *ix);
void mw_redo_free(struct mw_store *st);

#endif
