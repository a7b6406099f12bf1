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

struct mw_late { /* records of a journal, sorted by sequence number */
	uint64_t *seq;
	size_t n;
};

struct mw_select_key { /* an entry of the index */
	enum mw_key kind;
	const char *value;
};

struct mw_span {           /* records of one journal by sequence number */
	uint64_t from, to; /* to: not itself */
};

struct mw_query {
	int64_t since_us, until_us; /* INT64_MIN / INT64_MAX: open */
	const char *since_mark;     /* records from the mark's start record on */
	int64_t marks_us;           /* marks as they were then; 0: as they are */
	int64_t overlap_us;         /* with since_mark: also what is this much older */
	const struct mw_late *late; /* with since_mark: also these; by journal, or NULL */
	const char **user, **domain, **sender, **message_id, **queue_id, **subject;
	size_t n_user, n_domain, n_sender, n_message_id, n_queue_id, n_subject;
	const char **from, **attachment, **body; /* texts, see search.h */
	size_t n_from, n_attachment, n_body;
	/* subject and from as mw_search_needles has them; NULL: each time anew */
	const struct mw_str *subject_needle, *from_needle;
	unsigned directions;        /* a bit for each enum mw_direction; 0: any */
	uint64_t larger, smaller;   /* bytes; 0: off */
	const struct mw_span *span; /* by journal: none but these; NULL: all */
	bool all;                   /* --all given */
	bool any_term;              /* some term given */
	const char *
	    *id; /* positional record IDs or prefixes, where the command takes them */
	size_t n_id;
	/* Only records with one of these keys are looked at: the rest of the query must
	 * imply that. Not an option; NULL: by the terms. */
	const struct mw_select_key *key;
	size_t n_key;
	/* --user with a domain is looked up; what cannot be read is then not told of. */
	bool user_by_index;
	const char *delimiter; /* characters that part an extension from the local part */
	const char
	    *only_domain; /* the local domain, where there is one only; else NULL */
	struct mw_arena *arena;
};

void mw_query_init(struct mw_query *q, struct mw_arena *a);
/* If argv[*i] is a SELECTION option, takes it (and its value, advancing *i) and returns
 * 1; 0 if it is none; MW_EUSAGE with text if its value is wrong. Both "--opt value" and
 * "--opt=value". Repeated values of one option are OR-ed, different options AND-ed. */
int mw_query_option(struct mw_query *q, int argc, char **argv, int *i,
                    struct mw_err *err);
/* An address as it is given by hand: blanks around it and "Name <…>" go. MW_EUSAGE where
 * it cannot be one. The result lives in the arena. */
int mw_query_address(const char *opt, const char *v, struct mw_arena *a, const char **ret,
                     struct mw_err *err);
/* A time as it is given by hand; later: see mw_time_parse_last. 0 or MW_EUSAGE, with a
 * hint. */
int mw_query_time(const char *opt, const char *v, bool later, int64_t *ret,
                  struct mw_err *err);
/* What the configuration of a site says of addresses and logins. */
void mw_query_site(struct mw_query *q, const struct mw_conf *conf);
/* until before since, and the like. */
int mw_query_check(const struct mw_query *q, struct mw_err *err);
/* Does somebody know each --user: a record (recipient, alias expansion, login), or, by
 * the domain, local_domains? MW_ENOUSER names the first whom nobody does. For commands
 * that act on the mail they select; an empty result is none of its concern. */
int mw_query_users(struct mw_cli *cli, const struct mw_query *q,
                   struct mw_err *err) MW_CHECK;
/* Where nothing of a selection belongs into a mailbox: because all whom it names are of
 * domains that are not in local_domains? Then MW_ENOUSER says so. */
int mw_query_elsewhere(const struct mw_cli *cli, const struct mw_query *q,
                       struct mw_err *err) MW_CHECK;
/* The SELECTION part of a usage text. */
extern const char mw_query_usage[];

struct mw_item {
	struct mw_store *store;
	size_t journal; /* its position in the set */
	struct mw_record rec;
	struct mw_mail mail; /* valid during the callback */
};

/* Does this mail match: 1, 0, or MW_ENOMEM? (time, user, domain, …; not since_mark,
 * attachment and body.)
 * --user matches an accepted envelope recipient (with or without its extension), an
 * expanded mailbox and the SASL login; without '@' the local part of a local recipient or
 * mailbox, or of the SASL login. Case is folded everywhere but in queue and message IDs.
 */
int mw_query_match(const struct mw_query *q, const struct mw_mail *m,
                   const uint8_t id[MW_ID_LEN]) MW_CHECK;

/* Is this address, with or without its extension, one of the --user terms? 1, 0 or
 * MW_ENOMEM, as of the others here. */
int mw_query_is_user(const struct mw_query *q, struct mw_str addr) MW_CHECK;
/* Was it sent under the login of one of them? A login without domain has the sender's, or
 * the only local one; a term without one is the local part of the login. */
int mw_query_is_login(const struct mw_query *q, const struct mw_mail *m) MW_CHECK;

/* Calls cb for each match until it returns non-zero, which is returned. Damage and
 * unreadable records met on the way are passed to bad (may be NULL) and counted in
 * *ret_bad (NULL ok); erased ones are passed too (MW_EERASED) but not counted. The walk
 * goes on. Uses the index where the query has a key that it knows. Ends with MW_ECANCEL
 * once mw_cli_stopped(). */
int mw_select(struct mw_cli *cli, const struct mw_query *q,
              int (*cb)(void *arg, const struct mw_item *it), void *arg,
              void (*bad)(void *arg, const struct mw_err *err), size_t *ret_bad,
              struct mw_err *err) MW_CHECK;

/* One start of a mark, with its end where there is one. */
struct mw_mark_info {
	const char *name; /* in the arena of mw_marks; NULL from mw_mark_find */
	uint64_t start_seq;
	int64_t start_us, end_us;
	enum mw_mark_phase state; /* START: still running or never ended */
};
/* All starts in a journal, oldest first. */
int mw_marks(struct mw_store *st, struct mw_arena *a, struct mw_mark_info **ret,
             size_t *ret_n, struct mw_err *err) MW_CHECK;
/* The newest completed start of that name; where none was completed the newest start.
 * A backup that reuses its name every night is so found by its last good run. 0 or
 * MW_ENOTFOUND (hint: the nearest name). */
int mw_mark_find(struct mw_store *st, const char *name, struct mw_mark_info *ret,
                 struct mw_err *err) MW_CHECK;
/* The same as it was at that time; where no such mark had begun by then, or at 0, as it
 * is. */
int mw_mark_find_then(struct mw_store *st, const char *name, int64_t then_us,
                      struct mw_mark_info *ret, struct mw_err *err) MW_CHECK;

/* Lower-case login of a final address, by the pattern mailbox_name (%u %n %d, %%). NULL:
 * out of memory. */
const char *mw_mailbox_name(const struct mw_conf *conf, struct mw_str addr,
                            struct mw_arena *a);
/* The address without its extension (user+tag@d → user@d), as Postfix splits it; addr
 * itself where there is none. In the arena or addr; p NULL when out of memory. */
struct mw_str mw_addr_base(struct mw_str addr, const char *delimiter, struct mw_arena *a);
/* Is it the wanted one, as it is or without its extension? Without '@' in the wanted one
 * its local part is. Domains are compared in any form (journal/base/domain.h). */
int mw_addr_is(struct mw_str addr, struct mw_str want, const char *delimiter) MW_CHECK;
/* The k-th --domain, without an '@' before it. */
struct mw_str mw_query_domain(const struct mw_query *q, size_t k);

/* Final mailboxes of a mail: for each accepted local recipient its expansion at capture
 * (or itself), mapped by mailbox_name; with the folder: NULL for INBOX, or sent_folder
 * for the SASL login of outgoing mail. Each (mailbox, sent) once. */
struct mw_copy {
	const char *mailbox; /* login name, after mailbox_name; in the arena */
	struct mw_str
	    rcpt; /* the envelope recipient it comes from (for Sent: the sender) */
	struct mw_str addr; /* the final address, with its extension (for Sent: none) */
	bool sent;          /* the owner's Sent copy */
	bool undecided; /* an alias table failed at capture: the raw recipient is used */
};
int mw_copies(const struct mw_conf *conf, const struct mw_mail *m, struct mw_arena *a,
              struct mw_copy **ret, size_t *ret_n, struct mw_err *err) MW_CHECK;

#endif
