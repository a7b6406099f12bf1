/* status.h - what is known of one journal's health, from the daemon and from the disk.
 *
 * mw_status_gather never fails: what it cannot learn becomes a problem in the list.
 */
#ifndef MW_REPLAY_STATUS_H
#define MW_REPLAY_STATUS_H

#include "journal/store/passed.h"
#include "journal/verify/checkpoint.h"
#include "replay/select.h"

enum {
	MW_STATUS_PROBLEMS = 16,
	MW_STATUS_FOLLOWERS = 16
};

/* In the directory ledger of the journal: the summary of the last audit; and where a
 * later one could not be done, when and why. */
#define MW_AUDIT_STATE "audit.state"

struct mw_status_problem {
	int level; /* as monitoring counts: 1 warning, 2 critical, 3 unknown */
	char text[400];
};

struct mw_status_follow { /* a standby that `mailwal follow` keeps */
	const char *target;
	int64_t lag_us; /* age of the oldest message it lacks; 0: it lacks none */
};

struct mw_status {
	const char *dir;
	int64_t now_us;
	int daemon; /* 1 runs, 0 does not, -1 could not ask */
	char daemon_text[300];
	char failed_text[200];             /* writes that failed; "": none did */
	json_t *daemon_json;               /* its own answer, or NULL */
	bool opened;                       /* what follows is known */
	struct mw_err err;                 /* why not */
	uint64_t records, mails, segments; /* mails: that can still be read */
	uint64_t erased;                   /* records there whose key is gone */
	uint64_t disk_bytes, free_bytes;
	int64_t index_lag;
	int64_t oldest_us, newest_us; /* 0: no mail */
	bool encrypted;
	struct mw_passed passed;                       /* what went past the journal */
	struct mw_mark_info complete, running;         /* newest; name NULL: none */
	int64_t audit_us, audit_accepted, audit_holes; /* last audit; 0: never */
	int64_t audit_failed_us;        /* a later one could not be done; 0: none */
	const char *audit_failed;       /* why */
	struct mw_published checkpoint; /* the newest that mailwald published */
	int64_t prune_us;               /* last prune; 0: never */
	uint64_t prune_mails, prune_segments, prune_freed;
	char drill[48]; /* name of the last drill; "": none yet */
	int64_t drill_us;
	bool drill_passed, drill_forged; /* forged: its signature does not hold */
	uint64_t drill_expected, drill_identical;
	double drill_rto, drill_rpo; /* seconds; RPO -1: not measured */
	struct mw_status_follow follow[MW_STATUS_FOLLOWERS];
	size_t n_follow;
	const char **hold; /* names of those in force; in the arena */
	size_t n_hold;
	/* What may be holds and cannot be read, in the arena; NULL: nothing. */
	struct mw_lost *lost;
	struct mw_status_problem problem[MW_STATUS_PROBLEMS];
	size_t n_problems;
	struct mw_arena *arena;
};

void mw_status_gather(const struct mw_cli *cli, size_t journal, struct mw_status *ret);
void mw_status_done(struct mw_status *s);
/* Fills follow (status_follow.c). */
void mw_status_followers(struct mw_status *s, struct mw_store *st);
/* status_keep.c: fills hold; the rules as JSON; both as lines for people. */
int mw_status_holds(struct mw_status *s, struct mw_store *st,
                    struct mw_err *err) MW_CHECK;
json_t *mw_status_retention(const struct mw_conf *conf);
void mw_status_print_kept(const struct mw_conf *conf, const struct mw_status *s);
/* An operator has taken note of what passed without a record. */
int mw_status_acknowledge(const char *dir, struct mw_err *err) MW_CHECK;
/* When the newest mail was captured; 0: there is none. */
int64_t mw_status_newest_mail(struct mw_store *st);

#endif
