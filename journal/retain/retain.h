/* retain.h - what may go, what must stay, and taking it out: prune, hold, erase (P10,
 * P11; FORMAT.md §10).
 *
 * Prune: mw_holds_load and mw_rules_new → mw_retain_gather (one walk of the log) →
 * mw_retain_plan (pure) → mw_retain_run. Nothing here needs a private key: rules and
 * holds are decided by the look-up tokens beside each record. Order on disk: tombstone
 * durable, then the slots wiped in segments that stay; audit durable, then files removed;
 * so after any crash a record is there, or a tombstone names it, and the next run
 * finishes.
 *
 * One thread. What is gathered lives until mw_retain_free.
 */
#ifndef MW_RETAIN_RETAIN_H
#define MW_RETAIN_RETAIN_H

#include "conf/conf.h"
#include "journal/record/retire.h"
#include "journal/store/store.h"

/* ---- holds ---- */

struct mw_holds;
/* The live ones, by name; without what cannot be read, see mw_holds_lost. */
int mw_holds_load(struct mw_store *st, struct mw_holds **ret,
                  struct mw_err *err) MW_CHECK;
void mw_holds_free(struct mw_holds *h); /* NULL ok */
const struct mw_hold *mw_holds_get(const struct mw_holds *h,
                                   size_t i); /* NULL: no more */

/* Records that cannot be read, so that each may be a hold, or say whom a mail was for. */
struct mw_lost {
	struct mw_seq_range *v; /* ascending, apart; in the caller's arena */
	size_t n, cap;
};
/* Those that a prune would find, less what an operator has settled; a walk of the log. */
int mw_holds_lost(struct mw_store *st, struct mw_arena *a, bool (*stopped)(void),
                  struct mw_lost *ret, struct mw_err *err) MW_CHECK;
uint64_t mw_lost_count(const struct mw_lost *l);
/* "12-15, 17", the first few of them. */
void mw_lost_text(const struct mw_lost *l, struct mw_buf *out);

struct mw_traits {            /* what can be known of a mail without a key */
	const uint8_t *token; /* n of 8 bytes */
	size_t n;
	int64_t time_us;
	uint64_t size; /* content bytes */
	/* Of a mail whose token are those of its expansion: its own; else NULL. What was
	 * decided at capture is there alone. */
	const uint8_t *own;
	size_t n_own;
};
/* The first hold that covers it, or NULL. A doubt holds. */
const struct mw_hold *mw_holds_match(const struct mw_holds *h, const struct mw_traits *t);

/* ---- rules ---- */

enum {
	MW_RULES_MOST = 64
};

struct mw_rules;
/* The retain sections of conf. MW_ECONF beyond MW_RULES_MOST. */
int mw_rules_new(const struct mw_store *st, const struct mw_conf *conf,
                 struct mw_rules **ret, struct mw_err *err) MW_CHECK;
void mw_rules_free(struct mw_rules *r); /* NULL ok */
/* Which rules have a say: bit k for rule k. Of each recipient the first rule that fits
 * counts. *ret_all: every recipient has one; else the mail is kept for ever. Where the
 * tokens leave it open, more rules have a say, never fewer. */
uint64_t mw_rules_match(const struct mw_rules *r, const struct mw_traits *t,
                        bool *ret_all);

/* ---- the plan ---- */

enum mw_verdict {
	MW_KEEP_UNRULED, /* no rule is for it */
	MW_KEEP_YOUNG,   /* a rule wants it still */
	MW_KEEP_HELD,
	MW_KEEP_FLOOR,  /* expired, but younger than prune_floor */
	MW_KEEP_NEEDED, /* expired, but no completed mark covers it */
	MW_KEEP_CLOCK,  /* expired, but the clock is not to be trusted */
	MW_KEEP_LOST,   /* expired, but a hold may have been lost */
	MW_REMOVE,
	MW_REMOVED /* a tombstone names it already */
};

struct mw_retain_rec {
	uint64_t seq, segment, offset;
	int64_t time_us;
	int64_t seen_us;       /* the log's own time at this record; set by the plan */
	uint64_t size;         /* stored bytes */
	uint32_t dict;         /* see struct mw_record */
	uint64_t rules;        /* mw_rules_match */
	const uint8_t *tokens; /* of a record that refers to mails; else NULL */
	uint32_t n_tokens;
	uint8_t token[8];                      /* of a mail's ID */
	uint8_t type, verdict;                 /* enum mw_type, enum mw_verdict */
	bool ruled, held, gone, wiped, broken; /* broken: its slot fails its check */
	bool imported;
	bool expanded; /* a mail whose rules are those of its expansion */
	bool uncut;    /* a tombstone names tokens of it that it still has */
	bool young;    /* refers to a mail in a quiet segment, or serves such */
};

/* A segment of which each mail is younger than any rule wants it gone: these are not
 * looked at. */
struct mw_quiet_seg {
	uint64_t number, first_seq, last_seq;
	int64_t tmin_us, close_us; /* its earliest and its last time */
	uint64_t mails, bytes;     /* bytes of its file */
};
struct mw_quiet {
	struct mw_quiet_seg *seg; /* malloc'd; ascending */
	size_t n;
	struct mw_record *rec; /* malloc'd: what is no mail in them, in log order */
	size_t n_rec;
};

struct mw_retain_limits {
	const struct mw_conf_retain *rule;
	size_t n_rule;
	int64_t floor_us, now_us;
	bool need_mark;
	uint64_t marked_seq; /* records below it are covered by a completed mark */
	const struct mw_gone_segs *gone; /* segments removed before, ascending */
	size_t n_gone;
	bool damaged;      /* part of the log could not be read */
	bool lost;         /* … and what it was is not known: it may be a hold */
	uint64_t open_seg; /* the first segment that may still grow; 0: none */
	const struct mw_quiet *quiet; /* NULL: none */
	uint64_t
	    look_least; /* gathering: quiet segments with fewer mails are looked at */
};

struct mw_retain_row { /* of one rule; a mail counts with the first that has a say */
	uint64_t messages, bytes;
	int64_t oldest_us; /* 0: none */
	uint64_t remove, remove_bytes;
	uint64_t held, floor, needed, clock, lost;
};

struct mw_retain_sum {
	struct mw_retain_row row[MW_RULES_MOST + 1]; /* the last of n_rule + 1: no rule */
	struct mw_retain_row all;
	uint64_t notes;   /* records that refer to removed mail, and go with it */
	uint64_t pending; /* named by a tombstone, and not wiped or cut yet */
	bool clock_bad;
	int64_t newest_us;
};

/* A gap this long between two records, or between the last one and now, is a clock that
 * jumped, or a host that was off: it counts as no time at all. */
#define MW_RETAIN_JUMP_US (INT64_C(26) * 3600 * 1000000)

/* The log's own clock: it goes on with the records' times, never back, and a jump counts
 * for nothing; so no lie of the wall clock makes a record old. What removed segments took
 * is in the audit. */
struct mw_log_clock {
	const struct mw_gone_segs *gone; /* those still ahead */
	size_t n_gone;
	const struct mw_quiet_seg *quiet; /* likewise */
	size_t n_quiet;
	bool running;
	int64_t cur_us;  /* the time of day it goes by */
	int64_t seen_us; /* what has passed since the first record */
	int64_t from_us; /* seen_us before the last step, removed segments counted */
};
/* imported: an older mail brought in; its time moves nothing. */
void mw_log_clock_step(struct mw_log_clock *c, uint64_t seq, int64_t time_us,
                       bool imported);

/* A quiet segment at once: as far as its steps would. False: who knows how far. */
bool mw_log_clock_pass(struct mw_log_clock *c, const struct mw_quiet_seg *q);

/* Sets seen_us and verdict of n records in log order, and sums up. Pure. */
void mw_retain_plan(const struct mw_retain_limits *l, struct mw_retain_rec *rec, size_t n,
                    struct mw_retain_sum *ret);

/* ---- the log ---- */

struct mw_retain_log {
	struct mw_arena *arena;
	struct mw_retain_rec *rec;
	size_t n, cap;
	struct mw_segment_info *seg; /* malloc'd */
	size_t n_seg;
	struct noted { /* MARK, HOLD, TOMBSTONE and AUDIT records, in log order */
		uint64_t seq;
		enum mw_type type;
		struct mw_mark mark;
		struct mw_hold hold;
		struct mw_tombstone tomb;
		struct mw_audit audit;
	} * note;
	size_t n_note, cap_note;
	uint64_t damaged;     /* places that could not be read */
	struct mw_lost lost;  /* records, of which each may be a hold */
	struct mw_lost known; /* … and of which an operator said that none was */
	bool settle;          /* set by the caller: he says so of lost now */
	uint64_t marked_seq;  /* of the newest completed mark's start; 0: none */
	const struct mw_audit *audit; /* the newest, or NULL */
	int64_t floor_us; /* set by the caller: younger marks keep their segment */
	struct mw_quiet quiet;
};

int mw_retain_gather(struct mw_store *st, const struct mw_rules *rules,
                     const struct mw_holds *holds, bool (*stopped)(void),
                     struct mw_retain_log **ret, struct mw_err *err) MW_CHECK;
/* The same for a plan with these limits (rules and now_us): quiet segments are passed
 * over, what is no mail in them excepted. The plan is the same, but their mails are not
 * in its rows. NULL: nothing is passed over. */
int mw_retain_gather_for(struct mw_store *st, const struct mw_rules *rules,
                         const struct mw_holds *holds, const struct mw_retain_limits *lim,
                         bool (*stopped)(void), struct mw_retain_log **ret,
                         struct mw_err *err) MW_CHECK;
void mw_retain_free(struct mw_retain_log *l); /* NULL ok */

/* ---- doing it ---- */

/* One prune, hold or erase at a time: MW_ELOCKED. The descriptor is closed by the caller.
 */
int mw_retain_lock(const char *dir, int *ret_fd, struct mw_err *err) MW_CHECK;

/* Who owns the journal: the daemon (st NULL), or we, with st opened for writing. */
struct mw_retain_owner {
	const char *dir;
	struct mw_store *st;
	const char *by; /* "uid 0" */
	int64_t now_us;
};
/* Fills st: asks for a daemon, else opens the journal. */
int mw_owner_open(struct mw_retain_owner *o, struct mw_err *err) MW_CHECK;
void mw_owner_close(struct mw_retain_owner *o);
int mw_owner_note(struct mw_retain_owner *o, enum mw_type type, const struct mw_buf *cbor,
                  struct mw_err *err) MW_CHECK;
/* A hold or its release, twice, in segments of their own: damage to one place leaves the
 * other. */
int mw_hold_write(struct mw_retain_owner *o, const struct mw_hold *h,
                  struct mw_err *err) MW_CHECK;
int mw_owner_roll(struct mw_retain_owner *o, struct mw_err *err) MW_CHECK;
int mw_owner_wipe(struct mw_retain_owner *o, uint64_t segment, const struct mw_wipe_at *p,
                  size_t n, struct mw_err *err) MW_CHECK;
int mw_owner_cut(struct mw_retain_owner *o, uint64_t segment, const struct mw_cut *c,
                 struct mw_err *err) MW_CHECK;
int mw_owner_remove(struct mw_retain_owner *o, const uint64_t *segment, size_t n,
                    struct mw_err *err) MW_CHECK;

struct mw_retain_done {
	uint64_t records, bytes, notes, segments, freed;
};
/* Carries the plan's verdicts out. */
int mw_retain_run(struct mw_retain_owner *o, struct mw_retain_log *l,
                  struct mw_retain_done *ret, struct mw_err *err) MW_CHECK;

/* A login as this version has it in tokens, and as earlier ones have it: the same, but
 * for letters beyond ASCII and quotes (I23). */
struct mw_erase_login {
	uint8_t token[2][MW_RETIRE_TOKEN];
};

struct mw_erase_list {
	struct mw_record *whole; /* to wipe */
	size_t n_whole;
	uint64_t *part; /* sequence numbers of mails that lose somebody's copies only */
	size_t n_part;
	struct mw_record *cut; /* these, and their expansions: they lose his tokens */
	size_t n_cut;
	uint32_t *cut_login;               /* of each, NULL: none of them was sent by */
	                                   /* him; else 0, or the number of login[] + 1 */
	uint8_t (*token)[MW_RETIRE_TOKEN]; /* whose: addresses */
	size_t n_token;
	/* His logins: another one may have the same without its domain, so that each is
	 * his in some mails only. */
	struct mw_erase_login *login;
	size_t n_login;
};
/* Tombstones first, then the slots and tokens; then the dictionaries in the segments it
 * hit that no live record needs any more. */
int mw_erase_run(struct mw_retain_owner *o, const struct mw_erase_list *e,
                 struct mw_err *err) MW_CHECK;

/* Was this address or login (kind MW_KEY_RCPT, MW_KEY_OWNER), in whatever form the record
 * has it, erased from record seq? 1, 0, MW_ENOMEM. */
int mw_gone_name(const struct mw_gone *g, const struct mw_store *st, uint64_t seq,
                 enum mw_key kind, struct mw_str name) MW_CHECK;

/* Takes out of m what was erased from record seq: recipients, mailboxes and login. 1, 0
 * nothing was, MW_ENOMEM: then m is as much as nothing. */
int mw_erased_strip(const struct mw_gone *g, const struct mw_store *st, uint64_t seq,
                    struct mw_mail *m) MW_CHECK;

#endif
