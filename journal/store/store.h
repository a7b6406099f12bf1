/* store.h - the journal as a whole: append · commit · read · recover.
 *
 * Life: mw_store_create once; mw_store_open (recovers); then, as writer, mw_entry_new →
 * mw_entry_body* → mw_entry_finish → mw_store_append | mw_store_submit; as reader,
 * mw_cursor_* or mw_store_get → mw_record_mail / mw_record_body; mw_store_close.
 *
 * Threads: a writer store may be used by many threads, one entry by one thread at a time.
 * A reader store and its cursors belong to one thread; open several for several threads.
 * One writer per journal (flock); readers need no lock and may run beside the writer.
 *
 * Promises kept here: P1 (append returns 0 only after the batch's sync returned 0), P2,
 * P6 (the index is a cache), P7 (a reader never returns bytes that fail their check).
 */
#ifndef MW_STORE_STORE_H
#define MW_STORE_STORE_H

#include "journal/base/clock.h"
#include "journal/base/err.h"
#include "journal/base/fs.h"
#include "journal/base/id.h"
#include "journal/record/meta.h"

struct mw_store;
struct mw_entry;
struct mw_cursor;

enum mw_store_mode {
	MW_STORE_READ,
	MW_STORE_WRITE
};

struct mw_store_opts {
	const char *dir;
	enum mw_store_mode mode;
	const struct mw_fs *fs;       /* NULL: POSIX */
	const struct mw_clock *clock; /* NULL: system */
	uint64_t segment_size;        /* bytes; 0: 64 MiB */
	int64_t segment_age_us;       /* close an open segment after this; 0: 1 h */
	uint64_t min_free;            /* bytes; appends fail below with MW_ENOSPC */
	int64_t gather_us;            /* see mw_store_coming; 0: commits do not wait */
	int64_t probe_us; /* after a batch failed, and nothing more came: how often the
	                     disk is tried, until it is well; 0: only by what comes */
	int level;        /* zstd level; 0: 3 */
	bool dictionary;  /* writer: train dictionaries and use them */
	/* Most percent of a segment that its dictionary may take; 0: 5; 100: any. */
	unsigned dict_share;
	uint64_t spill_above; /* stored bytes of one entry kept in memory; 0: 256 KiB */
	bool no_index; /* writer: do not maintain the index; reader: do not use it */
	/* Writer: characters that part an address extension from the local part; a
	 * recipient is found without its extension too. NULL: none. Copied. */
	const char *delimiter;
	/* Writer: public recovery keys, 32 bytes each. When some are given they become
	 * the journal's keys for every new segment, now and for later writers that give
	 * none (the journal remembers them); a journal with keys never goes back to none.
	 */
	const uint8_t *recovery;
	size_t n_recovery;
	/* Reader: private recovery keys, 32 bytes each; copied, wiped at close. */
	const uint8_t *secret;
	size_t n_secret;
	/* Called, never under a lock, for facts worth a log line: "event=… key=value". */
	void (*note)(void *arg, int level, const char *text);
	void *note_arg;
};

/* Creates a journal in dir, which must not exist or be an empty directory (MW_EEXIST is
 * MW_ECREATE here). */
int mw_store_create(const char *dir, const struct mw_fs *fs, const struct mw_clock *clock,
                    struct mw_err *err) MW_CHECK;
/* Write mode takes the lock (MW_ELOCKED names the holder's pid), recovers (FORMAT.md §8)
 * and starts a new segment; read mode changes nothing on disk. */
int mw_store_open(const struct mw_store_opts *o, struct mw_store **ret,
                  struct mw_err *err) MW_CHECK;
/* A reader of the same journal with the same keys and without an index, for another
 * thread; fs: what it reads through, NULL: what st does. */
int mw_store_again(const struct mw_store *st, const struct mw_fs *fs,
                   struct mw_store **ret, struct mw_err *err) MW_CHECK;
/* Writer: waits for what was submitted, closes the segment, syncs the index. */
void mw_store_close(struct mw_store *st);
const uint8_t *mw_store_id(const struct mw_store *st); /* the journal's 128-bit ID */
const char *mw_store_dir(const struct mw_store *st);
/* Public recovery keys out of PEM files, 32 bytes each, appended to out. */
int mw_store_load_recovery(char *const *files, size_t n, struct mw_buf *out,
                           struct mw_err *err) MW_CHECK;
/* Is this file such a key? 0, or why not (mw_conf_probe of recovery_key). */
int mw_store_probe_recovery(const char *file, struct mw_err *err) MW_CHECK;
/* Makes these the journal's recovery keys for every segment that starts from now on; a
 * running writer takes them at its next segment. No lock is needed. */
int mw_store_set_recovery(const char *dir, const uint8_t *pk, size_t n,
                          struct mw_err *err) MW_CHECK;
/* Public key number k (< mw_store_recovery_keys) of the journal. */
const uint8_t *mw_store_recovery_key(const struct mw_store *st, size_t k);
/* Who can read a segment: calls cb for each of its key stanzas with the 8-byte key ID, or
 * NULL for a segment key in the clear. */
int mw_store_segment_keys(struct mw_store *st, uint64_t number,
                          void (*cb)(void *arg, const uint8_t *id), void *arg,
                          struct mw_err *err) MW_CHECK;
/* Lets these public keys (n of 32 bytes) open the segment too; needs a private key that
 * does. The segment itself is not changed: the stanzas stand in a file beside it. 1 done,
 * 0 nothing to do (they do already, or the segment is readable without); MW_EKEY. The
 * caller is the journal's owner and holds the retain lock. */
int mw_store_rewrap(struct mw_store *st, uint64_t number, const uint8_t *pk, size_t n,
                    struct mw_err *err) MW_CHECK;
/* The file of added keys of a segment: 1 well, 0 there is none, MW_EDAMAGED. Whether it
 * is the work of who knew the segment's key is looked at where a key opens it. */
int mw_store_added_check(struct mw_store *st, uint64_t number,
                         struct mw_err *err) MW_CHECK;
/* Numbers of the segments, ascending; malloc'd. */
int mw_store_segments(struct mw_store *st, uint64_t **ret, size_t *ret_n,
                      struct mw_err *err) MW_CHECK;
/* How many recovery keys new segments are encrypted to; 0: the journal is readable. */
size_t mw_store_recovery_keys(const struct mw_store *st);

/* The public half of the key that signs this journal's segments and checkpoints; NULL if
 * it has none. */
const uint8_t *mw_store_sign_public(const struct mw_store *st);
/* Signs with the journal's own key; MW_EKEY where the key file is not readable. */
int mw_store_sign(const struct mw_store *st, const void *p, size_t n, uint8_t sig[64],
                  struct mw_err *err) MW_CHECK;

/* Writer: how far the log is durable: the newest record's sequence number, 0 if there is
 * none, and its chain hash. */
uint64_t mw_store_head(struct mw_store *st, uint8_t chain[32]);

/* ---- writing ---- */

struct mw_loc {
	uint64_t segment; /* number, from 1 */
	uint64_t offset;  /* of the frame in the segment's file */
};

/* A new entry with a fresh random ID. Compression and encryption happen in the calling
 * thread as bytes come; beyond spill_above the (encrypted) bytes go to an unlinked file.
 */
int mw_entry_new(struct mw_store *st, enum mw_type type, struct mw_entry **ret,
                 struct mw_err *err) MW_CHECK;
/* Content bytes, cut anywhere. MAIL only. */
int mw_entry_body(struct mw_entry *e, const void *p, size_t n,
                  struct mw_err *err) MW_CHECK;
/* After the last body byte, for MAIL: sets size, header_size, sha256 and digest in *m,
 * message_id, subject and from where the header has them (strings live as long as e). */
int mw_entry_describe(struct mw_entry *e, struct mw_mail *m, struct mw_err *err) MW_CHECK;
/* Seals a MAIL entry with its metadata, or any other type with its CBOR bytes. An OUTCOME
 * refers to the mails that it speaks of without being told. */
int mw_entry_finish_mail(struct mw_entry *e, const struct mw_mail *m,
                         struct mw_err *err) MW_CHECK;
int mw_entry_finish(struct mw_entry *e, int64_t time_us, const void *cbor, size_t n,
                    struct mw_err *err) MW_CHECK;
/* Before finishing a MAIL that is not captured now but brought in from a mailbox: its
 * time (of arrival there) says nothing of the log's own clock. */
void mw_entry_imported(struct mw_entry *e);
/* Before finishing: whoever looks for the record `id` finds this one as well. */
void mw_entry_refer(struct mw_entry *e, const uint8_t id[MW_ID_LEN]);
/* Before finishing an EXPANSION: it is found by the people of its mail, and rules and
 * holds go by it. */
void mw_entry_people(struct mw_entry *e, const struct mw_mail *m);
const uint8_t *mw_entry_id(const struct mw_entry *e);
size_t mw_entry_memory(const struct mw_entry *e); /* bytes it holds, about */
void mw_entry_free(struct mw_entry *e); /* NULL ok; before submit, or after its answer */

struct mw_commit { /* the answer to a submit */
	int code;  /* 0: durable; else MW_E*, and the record is not promised absent */
	uint64_t seq;
	struct mw_loc loc;
	uint32_t batch_records; /* how many shared the sync */
	int64_t wait_us;
};

/* Hands a finished entry to the committer; cb runs in the committer's thread exactly
 * once, after the sync or the failure; it must not block. The entry must stay until
 * then. */
void mw_store_submit(struct mw_store *st, struct mw_entry *e,
                     void (*cb)(void *arg, const struct mw_commit *c), void *arg);
/* The same, waiting. */
int mw_store_append(struct mw_store *st, struct mw_entry *e, struct mw_commit *ret,
                    struct mw_err *err) MW_CHECK;
/* Convenience: a small record of any type. */
int mw_store_note(struct mw_store *st, enum mw_type type, int64_t time_us,
                  const void *cbor, size_t n, struct mw_commit *ret,
                  struct mw_err *err) MW_CHECK;
/* Has a dictionary trained now, on the samples there are: 1 a new one is in use, 0 not.
 * Else that happens by itself, in the background. */
int mw_store_train(struct mw_store *st);
/* Closes the open segment and starts the next (also done by size and age). */
int mw_store_roll(struct mw_store *st, struct mw_err *err) MW_CHECK;

/* May this writer take mail now? 0, or MW_ENOSPC below the floor. A disk that failed is
 * asked again by the next message, not refused here: only that finds out that it is back.
 * Cheap; for refusing at MAIL before the data comes. */
int mw_store_ready(struct mw_store *st);
/* How long the oldest entry that was submitted has waited for its answer; 0: none waits.
 */
int64_t mw_store_waiting_us(struct mw_store *st);
/* New values, at any time (a reload). */
void mw_store_set_min_free(struct mw_store *st, uint64_t bytes);
void mw_store_set_gather(struct mw_store *st, int64_t us);
/* For records that are described from now on. */
void mw_store_set_delimiter(struct mw_store *st, const char *z);
/* Group commit's hint: so many more (or, negative, fewer) entries are on their way, each
 * counted from when its end can be foreseen until it is submitted or given up (taken off
 * just after the submit, so that it shares the commit). While eight or more are, a commit
 * waits gather_us before it takes what was submitted, a quarter of it while four or more
 * are, or until none is any more, or 32 wait and no more than these are on their way: one
 * write and one sync for several where each would have had its own. One that waited in
 * vain lets the next eight go at once. Any thread; cheap. */
void mw_store_coming(struct mw_store *st, int change);

struct mw_store_stats {
	uint64_t records, mails, bytes_in, bytes_stored; /* since open, this process */
	uint64_t batches, failures, full; /* full: of the failures, for lack of space */
	bool failing;    /* the last batch, and no probe went well since */
	uint64_t probes; /* see probe_us */
	int failed_code; /* of the last that failed; 0: none did */
	int64_t failed_us;
	uint64_t next_seq;
	uint64_t segment;
	int64_t last_mail_us; /* 0: none */
	int64_t index_lag_records;
	uint64_t free_bytes;
	int coming; /* entries on their way, see mw_store_coming */
};
void mw_store_stats(struct mw_store *st, struct mw_store_stats *ret);

/* ---- reading ---- */

struct mw_record { /* a frame whose header checked out */
	struct mw_loc loc;
	uint64_t seq, batch;
	int64_t time_us;
	uint8_t id[MW_ID_LEN];
	enum mw_type type;
	uint32_t meta_len; /* stored bytes */
	uint64_t body_len; /* stored bytes */
	uint64_t frame_len;
	uint64_t plain_len; /* content bytes, before compression */
	bool erased;        /* left to callers; see mw_record_wiped */
	bool imported;      /* older mail brought in: its time is not the log's */
	uint32_t slot_len, meta_crc, body_crc; /* for reading it back */
	uint8_t flags;
	uint32_t dict;     /* its dictionary is at 8 times this in the segment; 0: none */
	uint8_t chain[32]; /* head of the hash chain at this record */
};

/* Walks the log in order from sequence number `from` (1: the start). */
int mw_cursor_new(struct mw_store *st, uint64_t from, struct mw_cursor **ret,
                  struct mw_err *err) MW_CHECK;
/* 1: *ret is the next record; 0: end of the log (call again later to see new ones);
 * negative: damage at one place, named in err; the next call goes on after it. */
int mw_cursor_next(struct mw_cursor *c, struct mw_record *ret,
                   struct mw_err *err) MW_CHECK;
/* From now on much is read at a time: for walks of which every record is looked into.
 * What is wiped meanwhile may be seen for that long. */
void mw_cursor_ahead(struct mw_cursor *c);
void mw_cursor_free(struct mw_cursor *c);

/* The newest record whose sequence number is below `below` (UINT64_MAX: of all): 1, or 0
 * if there is none. */
int mw_store_last(struct mw_store *st, uint64_t below, struct mw_record *ret,
                  struct mw_err *err) MW_CHECK;

/* The record at a known place. MW_ENOTFOUND, MW_EDAMAGED, … */
int mw_store_get(struct mw_store *st, struct mw_loc loc, struct mw_record *ret,
                 struct mw_err *err) MW_CHECK;
/* The same where its sequence number is known: MW_EERASED if it went meanwhile. */
int mw_store_get_seq(struct mw_store *st, struct mw_loc loc, uint64_t seq,
                     struct mw_record *ret, struct mw_err *err) MW_CHECK;
/* For one who is going to look at the n > 0 records at v, in log order: reads the first,
 * and with it those that are near, in one piece; says how many. What is wiped meanwhile
 * may be seen until the next call of either. */
size_t mw_store_ahead(struct mw_store *st, const struct mw_loc *v, size_t n);
void mw_store_behind(struct mw_store *st);
/* Decrypted metadata. MW_EERASED, MW_EKEY, MW_EDAMAGED. */
int mw_record_meta(struct mw_store *st, const struct mw_record *r, struct mw_buf *out,
                   struct mw_err *err) MW_CHECK;
int mw_record_mail(struct mw_store *st, const struct mw_record *r, struct mw_arena *a,
                   struct mw_mail *ret, struct mw_err *err) MW_CHECK;
/* The same for one who looks at many: its strings point into `meta`, whose content is
 * replaced, and no NUL stands behind them. */
int mw_record_mail_here(struct mw_store *st, const struct mw_record *r,
                        struct mw_buf *meta, struct mw_arena *a, struct mw_mail *ret,
                        struct mw_err *err) MW_CHECK;
/* Streams the content in pieces, each authenticated before it is passed on; at the end
 * size and SHA-256 are compared with m when m is not NULL. sink returns 0 or a negative
 * code, which is handed back. */
int mw_record_body(struct mw_store *st, const struct mw_record *r,
                   const struct mw_mail *m,
                   int (*sink)(void *arg, const void *p, size_t n), void *arg,
                   struct mw_err *err) MW_CHECK;
/* All of it in memory, at most `max` bytes. */
int mw_record_content(struct mw_store *st, const struct mw_record *r,
                      const struct mw_mail *m, size_t max, struct mw_buf *out,
                      struct mw_err *err) MW_CHECK;

enum mw_key {                  /* what can be looked up; numbers are hashed into tokens */
	MW_KEY_ID = 1,         /* its first 6 bytes; also records that refer to it */
	MW_KEY_QUEUE_ID = 2,   /* exact */
	MW_KEY_MESSAGE_ID = 3, /* with <>, exact */
	MW_KEY_RCPT = 4,       /* envelope recipient or final mailbox, case folded */
	MW_KEY_SENDER = 5,     /* envelope sender, case folded */
	MW_KEY_OWNER = 6,      /* SASL login, case folded */
	MW_KEY_DOMAIN = 7,     /* domain of any sender or recipient, case folded */
	MW_KEY_DIGEST = 8,     /* 32 bytes */
	MW_KEY_TYPE = 9,       /* one byte: every record that is not MAIL */
	MW_KEY_DIRECTION = 10, /* one byte: enum mw_direction */
	MW_KEY_RCPT_DOMAIN = 11, /* domain of an accepted recipient or of its mailbox */
	MW_KEY_SHAPE = 12,       /* two bytes, see mw_shape */
	MW_KEY_CLASS =
	    13,          /* enum mw_class_of as a byte, then the capture section's name */
	MW_KEY_FACT = 14 /* a header: or spam: word of a retain section, case folded */
};

enum mw_class_of {
	MW_CLASS_OF_ALL = 1,  /* every recipient's copies are of that class */
	MW_CLASS_OF_SOME = 2, /* some are of others, or of none */
};

/* What rules for whole messages must know of the recipients: final mailboxes (0, 1, 2:
 * more, or not decided) and distinct recipient domains (255: that many or more). */
struct mw_shape {
	uint8_t mailboxes, domains;
};

/* The token of a value, 8 bytes, as key slots have it (FORMAT.md §4): of a name, the
 * token of exactly this form of it. */
void mw_store_token(const struct mw_store *st, enum mw_key kind, struct mw_str value,
                    uint8_t out[8]);

enum {
	MW_STORE_NAMES = 10
};

enum {
	MW_STORE_OWN = 2
};

/* The tokens that the record which has the name in this form may have of it: that of its
 * key, or, from an earlier version, that of the form, where it is another one. How many,
 * 0 for an empty name, or MW_ENOMEM. */
int mw_store_own_names(const struct mw_store *st, enum mw_key kind, struct mw_str name,
                       uint8_t ret[MW_STORE_OWN][8]) MW_CHECK;

/* All tokens that records may have of a name (MW_KEY_RCPT, SENDER, OWNER, DOMAIN,
 * RCPT_DOMAIN), in whatever form they are asked for it: that of its key, which has them
 * all (I23), then those of its forms in records of earlier versions. How many, 0 for an
 * empty name, or MW_ENOMEM. */
int mw_store_names(const struct mw_store *st, enum mw_key kind, struct mw_str name,
                   uint8_t ret[MW_STORE_NAMES][8]) MW_CHECK;

/* Calls cb for each record with that key, oldest first, until it returns non-zero (which
 * is returned). Complete: what the index lacks is found by scanning. A record is a
 * candidate only: tokens are hashes, so the caller compares the metadata. */
int mw_store_find(struct mw_store *st, enum mw_key key, struct mw_str value,
                  int (*cb)(void *arg, const struct mw_record *r), void *arg,
                  struct mw_err *err) MW_CHECK;
/* The same for a name, by each of mw_store_names in turn: oldest first of one token, and
 * a record may come more than once. Of names with forms (mw_addr_has_forms) it knows all
 * that this version wrote. */
int mw_store_find_name(struct mw_store *st, enum mw_key key, struct mw_str name,
                       int (*cb)(void *arg, const struct mw_record *r), void *arg,
                       struct mw_err *err) MW_CHECK;
/* As mw_store_find, for records with a sequence number below `before` only. Where the
 * index covers these it need not look at what was written since: for many look-ups beside
 * a writer. */
int mw_store_find_before(struct mw_store *st, enum mw_key key, struct mw_str value,
                         uint64_t before, int (*cb)(void *arg, const struct mw_record *r),
                         void *arg, struct mw_err *err) MW_CHECK;
/* Calls cb for each record of the segments in which an address with an extension may have
 * no token without it, as these delimiters part them: their writer knew others, or none.
 * In all other segments mw_store_find knows it. "" parts none: no record. */
int mw_store_each_unparted(struct mw_store *st, const char *delimiter,
                           int (*cb)(void *arg, const struct mw_record *r), void *arg,
                           struct mw_err *err) MW_CHECK;
/* By a token as it stands in a slot. */
int mw_store_find_token(struct mw_store *st, const uint8_t token[8],
                        int (*cb)(void *arg, const struct mw_record *r), void *arg,
                        struct mw_err *err) MW_CHECK;
/* All records below *ret_seq are in the index; what is beyond, a look-up walks over. */
int mw_store_indexed(struct mw_store *st, uint64_t *ret_seq, struct mw_err *err) MW_CHECK;
/* A record by ID text or unique prefix: 0, MW_ENOTFOUND, or MW_EUSAGE if ambiguous. */
int mw_store_find_id(struct mw_store *st, const char *text, struct mw_record *ret,
                     struct mw_err *err) MW_CHECK;

/* Is its key slot wiped? 1, 0, or negative (MW_EDAMAGED: the slot fails its check). */
int mw_record_wiped(struct mw_store *st, const struct mw_record *r,
                    struct mw_err *err) MW_CHECK;
/* Both: its tokens are appended to out, and enum mw_slot_is returned. */
enum mw_slot_is {
	MW_SLOT_IS_WHOLE = 0,
	MW_SLOT_IS_WIPED = 1,
	MW_SLOT_IS_CUT = 2,      /* some tokens were removed from it */
	MW_SLOT_IS_BEING_CUT = 3 /* … and that is not finished */
};
int mw_record_slot(struct mw_store *st, const struct mw_record *r, struct mw_buf *out,
                   struct mw_err *err) MW_CHECK;
/* Were these tokens written with the record? 1; 0 they were not; 1 too where that cannot
 * be told: without the segment's key, or after some were removed. */
int mw_record_tokens_own(struct mw_store *st, const struct mw_record *r,
                         struct mw_err *err) MW_CHECK;
/* Tokens (8 bytes each) of a record as its slot holds them, appended to out. */
int mw_record_tokens(struct mw_store *st, const struct mw_record *r, struct mw_buf *out,
                     struct mw_err *err) MW_CHECK;
/* Is this one of them? 1, 0, or negative. */
int mw_record_has_token(struct mw_store *st, const struct mw_record *r,
                        const uint8_t token[8], struct mw_err *err) MW_CHECK;

/* Was the index made of this log as it is now? 1; 0 it is of another state of it (a log
 * or an index that was put back from a copy); MW_ENOMEM. */
struct mw_index;
struct mw_index_point;
int mw_store_index_fits(struct mw_store *st, const struct mw_index_point *p) MW_CHECK;
/* The reader's own handle of the index, NULL where it has none or is a writer: LMDB wants
 * a file opened once in a process. MW_ENOMEM. */
int mw_store_index(struct mw_store *st, struct mw_index **ret,
                   struct mw_err *err) MW_CHECK;
/* Throws the index away and builds it again from the log. MW_ELOCKED: another process is
 * at the index; nothing has changed. */
int mw_store_reindex(struct mw_store *st, uint64_t *ret_records,
                     struct mw_err *err) MW_CHECK;

/* ---- what went (FORMAT.md I9, I14 to I16) ---- */

struct mw_segment_info {
	uint64_t number, first_seq, last_seq;
	uint64_t bytes;    /* of its file */
	uint8_t chain[32]; /* of its last frame that counts */
	bool closed;       /* it ends with its trailer */
	bool settled; /* nothing is appended to it any more; else last_seq and chain are
	               * not known */
};
/* All segments, ascending; malloc'd. One whose header is damaged has first_seq 0. */
int mw_store_segment_info(struct mw_store *st, struct mw_segment_info **ret,
                          size_t *ret_n, struct mw_err *err) MW_CHECK;

struct mw_wipe_at { /* a record to wipe */
	uint64_t offset, seq;
};
/* Writer: wipes key slots in one settled segment and syncs it. Nothing is written unless
 * each place has the frame of that sequence number. Wiping twice does no harm: a run that
 * was cut short is run again. The tombstone that names them must be durable already.
 * MW_EUSAGE while the segment is still open. Any thread, one at a time. */
int mw_store_wipe(struct mw_store *st, uint64_t segment, const struct mw_wipe_at *p,
                  size_t n, struct mw_err *err) MW_CHECK;
/* Writer: removes these tokens from the slots of records that stay, in one settled
 * segment, so that no crash on the way leaves a slot that fails its check. All else as
 * mw_store_wipe. */
struct mw_cut {
	const uint8_t (*token)[8];
	size_t n_token;
	const struct mw_wipe_at *at;
	size_t n;
};
int mw_store_cut(struct mw_store *st, uint64_t segment, const struct mw_cut *c,
                 struct mw_err *err) MW_CHECK;
/* Writer: removes the files of settled segments that are not the newest, durably: first
 * the keys of all that is in them, then the files. The audit record that names them must
 * be durable already. One that is gone is no error. MW_EUSAGE: nothing was removed. */
int mw_store_remove(struct mw_store *st, const uint64_t *segment, size_t n,
                    struct mw_err *err) MW_CHECK;

/* What tombstones and audit records in the log say, gathered once. */
struct mw_gone;
int mw_gone_load(struct mw_store *st, struct mw_gone **ret, struct mw_err *err) MW_CHECK;
/* Adds what was written since: 1 there was something, 0 nothing, negative. */
int mw_gone_more(struct mw_gone *g, struct mw_store *st, struct mw_err *err) MW_CHECK;
void mw_gone_free(struct mw_gone *g); /* NULL ok */
/* By now, is that record named as erased, or as removed with its segment? 1, 0, negative.
 * A tombstone is durable before anything is wiped, so who meets something that does not
 * hold, or is not there, and asks afterwards, can tell damage from what a prune does
 * beside him. */
int mw_store_gone(struct mw_store *st, uint64_t seq, struct mw_err *err) MW_CHECK;
/* Does a tombstone name this whole record? */
bool mw_gone_record(const struct mw_gone *g, uint64_t seq);
/* Does one name anything of the records first … last? */
bool mw_gone_touches(const struct mw_gone *g, uint64_t first, uint64_t last);
/* Does one name copies in it? */
bool mw_gone_copies(const struct mw_gone *g, uint64_t seq);
/* Are the copies of the address or login with this token (8 bytes) erased from it? */
bool mw_gone_token(const struct mw_gone *g, uint64_t seq, const uint8_t *token);
/* Does an audit record name all of the records first … last as removed with their
 * segments? 0 no; 1 yes, and more after them (a removal that was cut short); 2 yes, and
 * chain, if not NULL, is that of the last one. */
int mw_gone_stretch(const struct mw_gone *g, uint64_t first, uint64_t last,
                    uint8_t chain[32]);
/* Of the records first … last: how many went with their segments, and how many of those
 * that are still there a tombstone names whole. */
void mw_gone_tally(const struct mw_gone *g, uint64_t first, uint64_t last,
                   uint64_t *ret_removed, uint64_t *ret_erased);
/* The removed stretches of the newest audit record; owned by g. */
struct mw_gone_segs;
const struct mw_gone_segs *mw_gone_segments(const struct mw_gone *g, size_t *ret_n);

static inline void
mw_gone_autofree_(struct mw_gone **p)
{
	mw_gone_free(*p);
}
#define MW_GONE_AUTO __attribute__((cleanup(mw_gone_autofree_))) struct mw_gone

static inline void
mw_store_autoclose_(struct mw_store **p)
{
	if (*p)
		mw_store_close(*p);
}
static inline void
mw_entry_autofree_(struct mw_entry **p)
{
	mw_entry_free(*p);
}
static inline void
mw_cursor_autofree_(struct mw_cursor **p)
{
	mw_cursor_free(*p);
}
#define MW_STORE_AUTO  __attribute__((cleanup(mw_store_autoclose_))) struct mw_store
#define MW_ENTRY_AUTO  __attribute__((cleanup(mw_entry_autofree_))) struct mw_entry
#define MW_CURSOR_AUTO __attribute__((cleanup(mw_cursor_autofree_))) struct mw_cursor

#endif
