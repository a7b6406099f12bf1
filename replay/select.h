/* select.h - SELECTION (design: command-line contract) → records of a journal set.
 *
 * Parse: each command gives its arguments to mw_query_option first; what it does not take
 * is the command's own. Run: mw_select walks the set and hands over each matching mail,
 * per journal in log order, with its decoded metadata.
 */
#ifndef MW_REPLAY_SELECT_H
#define MW_REPLAY_SELECT_H

#include "journal/store/store.h"
#include "replay/cmd.h"

struct mw_query {
	int64_t since_us, until_us; /* INT64_MIN / INT64_MAX: open */
	const char *since_mark;     /* records from the mark's start record on */
	int64_t overlap_us;         /* with since_mark: also what is this much older */
	const char **user, **domain, **sender, **message_id, **queue_id, **subject;
	size_t n_user, n_domain, n_sender, n_message_id, n_queue_id, n_subject;
	int direction; /* -1: any; enum mw_direction */
	uint64_t larger, smaller; /* bytes; 0: off */
	bool all;      /* --all given */
	bool any_term; /* some term given */
	const char **id; /* positional record IDs or prefixes, where the command takes them */
	size_t n_id;
	struct mw_arena *arena;
};

void mw_query_init(struct mw_query *q, struct mw_arena *a);
/* If argv[*i] is a SELECTION option, takes it (and its value, advancing *i) and returns
 * 1; 0 if it is none; MW_EUSAGE with text if its value is wrong. Both "--opt value" and
 * "--opt=value". Repeated values of one option are OR-ed, different options AND-ed. */
int mw_query_option(struct mw_query *q, int argc, char **argv, int *i,
		    struct mw_err *err);
/* until before since, and the like. */
int mw_query_check(const struct mw_query *q, struct mw_err *err);
/* The SELECTION part of a usage text. */
extern const char mw_query_usage[];

struct mw_item {
	struct mw_store *store;
	size_t journal;           /* its position in the set */
	struct mw_record rec;
	struct mw_mail mail;      /* valid during the callback */
};

/* Does this mail match (time, user, domain, …; not since_mark)? */
bool mw_query_match(const struct mw_query *q, const struct mw_mail *m,
		    const uint8_t id[MW_ID_LEN]);

/* Calls cb for each match until it returns non-zero, which is returned. Damage and
 * unreadable records met on the way are passed to bad (may be NULL) and counted in
 * *ret_bad; the walk goes on. Uses the index where the query has a key that it knows. */
int mw_select(struct mw_cli *cli, const struct mw_query *q,
	      int (*cb)(void *arg, const struct mw_item *it), void *arg,
	      void (*bad)(void *arg, const struct mw_err *err), size_t *ret_bad,
	      struct mw_err *err) MW_CHECK;

/* The newest mark of that name in a journal: its start record, and whether it was
 * completed. 0, MW_ENOTFOUND (hint: the nearest name). */
struct mw_mark_info {
	uint64_t start_seq;
	int64_t start_us, end_us;
	enum mw_mark_phase state; /* START: still running or never ended */
};
int mw_mark_find(struct mw_store *st, const char *name, struct mw_mark_info *ret,
		 struct mw_err *err) MW_CHECK;

/* Final mailboxes of a mail: for each accepted local recipient its expansion at capture
 * (or itself), mapped by mailbox_name; with the folder: NULL for INBOX, or sent_folder
 * for the SASL login of outgoing mail. Each (mailbox, sent) once. */
struct mw_copy {
	const char *mailbox; /* login name, after mailbox_name; in the arena */
	struct mw_str rcpt;  /* the envelope recipient it comes from (for Sent: the sender) */
	bool sent;           /* the owner's Sent copy */
	bool undecided;      /* an alias table failed at capture: the raw recipient is used */
};
int mw_copies(const struct mw_conf *conf, const struct mw_mail *m, struct mw_arena *a,
	      struct mw_copy **ret, size_t *ret_n, struct mw_err *err) MW_CHECK;

#endif
