/* target_imap.h - the IMAP target's own state, shared by its files. Private.
 *
 *	target_imap.c       login, folder list
 *	target_imap_stage.c the staging folder: exclusion, what a dead run left, clean-up
 *	target_imap_scan.c  what the mailbox holds
 *	target_imap_sieve.c filing by the user's Sieve script, without side effects
 *	target_imap_raise.c UIDNEXT and HIGHESTMODSEQ of restored folders
 *	target_imap_put.c   batches into the staging folder, MOVE, bisection of refusals;
 *	                    its own header names the files beside it
 */
#ifndef MW_REPLAY_TARGET_IMAP_H
#define MW_REPLAY_TARGET_IMAP_H

#include "replay/imap.h"
#include "replay/target.h"

#include <pthread.h>
#include <stdatomic.h>

/* One name for all runs and hosts: its creation is the lock. */
#define MW_STAGING_NAME "mailwal-staging"
/* Behind that name, before a number: one that the server can neither open nor delete. */
#define MW_STAGING_BROKEN "-broken-"
/* How the Message-ID of what only uses up a UID begins. */
#define MW_PLACEHOLDER "uid-placeholder."

struct mw_imap_folder {
	char *name;   /* as the server writes it */
	char *quoted; /* ready for a command */
	bool sent;
	bool leave;           /* \Trash and the like: no import */
	bool shows;           /* mail of other folders, by what the server told */
	uint32_t uidvalidity; /* of the last scan */
	uint64_t uidnext, exists;
	uint64_t expunged, heard; /* while they were asked for; told of */
	uint64_t top;             /* the highest number of these */
	uint32_t cut;             /* only those from this UID on; 0: all */
};

struct mw_imap_box {
	struct mw_imap *c;
	struct mw_imap *second; /* appends beside it; NULL: none */
	bool second_tried;
	const struct mw_target *of;
	bool second_coming;      /* its login is under way in a thread of its own, */
	pthread_t second_thread; /* which alone touches `second` until it is joined */
	atomic_bool second_here; /* and has come to its end */
	char *mailbox;
	struct mw_imap_folder *folder;
	size_t n_folder, cap_folder;
	bool id_due;   /* what LIST stands behind is the answer to ID */
	char *staging; /* quoted */
	char *sent;    /* quoted name of the Sent folder, NULL until known */
	char *dest;    /* of --folder; NULL: INBOX or Sent */
	char **other;  /* quoted names of folders that copies ask for */
	size_t n_other;
	bool staging_seen;    /* the folder list has it */
	struct mw_buf broken; /* quoted names, each with its NUL: put aside by a run */
	struct mw_buf barred; /* the same: not looked into, and nothing goes there */
	bool locked;          /* it is ours */
	bool marked;          /* our marker was seen in it */
	uint32_t made;        /* its UIDVALIDITY when we had made it; 0: unknown */
	bool selected;        /* it is selected */
	bool dry;             /* nothing may be changed */
	uint32_t marker_uid;  /* UID of the marker message; 0: unknown */
	bool marker_due;      /* its answer, and that of the SELECT behind it */
	int marker_sent;      /* as mw_imap_append_send said */
	unsigned drop_due;    /* answers to what takes the staging folder away */
	size_t listed;       /* folders that the last mw_imap_sieve_freshen was told of */
	struct mw_buf stale; /* uint64_t keys: placeholders that a dead run left */
};

static inline struct mw_imap_box *
mw_imap_box(struct mw_target *t)
{
	return t->own;
}

int mw_imap_box_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *),
                     void *arg, struct mw_err *err) MW_CHECK;
int mw_imap_box_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
                      int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
                      struct mw_err *err) MW_CHECK;
/* Dovecot tells of a message where it really lies, and so which folders are virtual
 * though they are not marked. Asks for the newest of the selected folder; where
 * c->dovecot is not set nothing is sent, and there is no answer to wait for. */
int mw_imap_ask_place(struct mw_imap *c, struct mw_err *err) MW_CHECK;
/* Is it the answer to that? f->shows is set then where the folder is virtual. */
bool mw_imap_is_place(struct mw_imap_box *b, struct mw_imap_folder *f,
                      const struct mw_imap_fetch *m);
/* Does what is to be put there go into folders that show mail of others? MW_EUSAGE or
 * MW_ECONF. */
int mw_imap_may_go_to(const struct mw_target *t, const struct mw_imap_box *b,
                      struct mw_err *err) MW_CHECK;
/* STATUS of all folders against the last scan: 1 changed, 0 the same. */
int mw_imap_box_changed(struct mw_target *t, struct mw_err *err) MW_CHECK;
int mw_imap_box_put(struct mw_target *t, const struct mw_put *v, size_t n,
                    const struct mw_put_io *io, struct mw_err *err) MW_CHECK;
/* See mw_target_raise; the mailbox is ours, and scanned. */
int mw_imap_box_raise(struct mw_target *t, const struct mw_raise_opts *o,
                      struct mw_err *err) MW_CHECK;
/* Is it one of those that raise makes, of this ledger? */
bool mw_imap_is_placeholder(const struct mw_target *t, struct mw_str header);
/* Takes away those that the scan found. */
int mw_imap_sweep(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
int mw_imap_box_remove(struct mw_target *t, const struct mw_removing *what,
                       struct mw_err *err) MW_CHECK;
/* Straight into INBOX or Sent, without the staging folder (target_imap_deliver.c). */
int mw_imap_box_deliver(struct mw_target *t, const struct mw_put *v, size_t n,
                        const struct mw_put_io *io, struct mw_err *err) MW_CHECK;
/* UIDVALIDITY and UIDNEXT of INBOX. */
int mw_imap_box_mark(struct mw_target *t, struct mw_target_mark *ret,
                     struct mw_err *err) MW_CHECK;
/* A folder (its quoted name), made and subscribed where it is missing. */
int mw_imap_need_folder(struct mw_imap_box *b, const char *folder,
                        struct mw_err *err) MW_CHECK;
/* Begins with a second connection for the same mailbox, beside what else is done, where
 * what is coming is worth it. */
void mw_imap_second_start(struct mw_target *t);
/* It is b->second from the first call on that finds it logged in; never, where it cannot
 * be had. */
void mw_imap_second_take(struct mw_imap_box *b);
/* The same, but waits for its login. */
void mw_imap_second_wait(struct mw_imap_box *b);
/* Can so much be put over two connections such as c, and is it worth it? */
bool mw_imap_two(const struct mw_imap *c, uint64_t messages, uint64_t bytes);
/* Lists the folders again, now that nobody else puts mail: 1 if there are others than at
 * the scan (another run may have made Sent), 0 if not. */
int mw_imap_box_relist(struct mw_target *t, struct mw_imap_box *b,
                       struct mw_err *err) MW_CHECK;
/* The same in halves. */
int mw_imap_relist_send(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
int mw_imap_relist_wait(struct mw_target *t, struct mw_imap_box *b,
                        struct mw_err *err) MW_CHECK;
/* mw_imap_box_changed in halves. */
int mw_imap_changed_send(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
int mw_imap_changed_wait(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
/* The staging folder made, its marker on the way; 1: the mailbox changed since the scan.
 * MW_ELOCKED: another run has it. */
int mw_imap_staging_begin(struct mw_target *t, struct mw_err *err) MW_CHECK;
/* The marker is there, and the staging folder selected, for all that follows but
 * APPENDs. MW_EREFUSED: it is not. */
int mw_imap_staging_settle(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
/* There is one already: of this ledger (whose lock we hold, so its run is dead), and it
 * is emptied and deleted; or somebody else's: MW_ELOCKED. */
int mw_imap_staging_take_over(struct mw_target *t, struct mw_imap_box *b,
                              struct mw_err *err) MW_CHECK;
int mw_imap_staging_drop(struct mw_target *t, struct mw_imap_box *b,
                         struct mw_err *err) MW_CHECK;
/* The same, sent ahead behind other commands where it is selected; what it holds is lost
 * whatever becomes of these. drop takes the answers. */
int mw_imap_staging_drop_send(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
/* Deletes what earlier runs put aside, as far as the server lets it by now. */
int mw_imap_staging_tidy(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
/* The quoted name of a folder given in UTF-8 with "/", as --folder; NULL: no such name.
 */
char *mw_imap_dest_name(const struct mw_imap *c, const char *folder);
/* The same for imported mail's own folder; NULL: it goes to INBOX. */
char *mw_imap_other_name(const struct mw_imap_box *b, const char *folder);

/* Is it a folder that shows mail of others (\\All and the like), or one of another user's
 * or a shared namespace? What lies there is nobody's copy here. */
bool mw_imap_barred(const struct mw_imap_box *b, const char *quoted);

/* For each copy the quoted name of the folder it goes to: equal ones are the same
 * pointer. mw_imap_inbox where filing by Sieve may come in. */
extern const char mw_imap_inbox[];
int mw_imap_destinations(struct mw_target *t, const struct mw_put_io *io,
                         const struct mw_put *v, size_t n, const char **to,
                         struct mw_err *err) MW_CHECK;
/* Once a target: proves with a canary that what scripts send out comes to our sink. The
 * staging folder is selected. MW_ECONF: it does not, or the server cannot filter. */
int mw_imap_sieve_prove(struct mw_target *t, struct mw_imap_box *b,
                        struct mw_err *err) MW_CHECK;
/* What LMTP would put in front, so that scripts know the envelope; free() it. */
int mw_imap_sieve_prefix(const struct mw_put_io *io, const struct mw_put *p, char **ret,
                         struct mw_err *err) MW_CHECK;
/* Asks for the script to be run on these messages of the staging folder. */
int mw_imap_sieve_send(struct mw_imap_box *b, const char *uids,
                       struct mw_err *err) MW_CHECK;
/* Waits for it; those that it took away are gone from there then, and their UIDs
 * (uint32_t) appended to taken. */
int mw_imap_sieve_wait(struct mw_target *t, struct mw_imap_box *b, const char *uids,
                       struct mw_buf *taken, struct mw_err *err) MW_CHECK;
/* Has the server look into the folders, where that is cheap: for the next messages filed
 * there it reads less. */
int mw_imap_sieve_freshen(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
/* Folders that are new since the scan, and hold mail, become visible to clients. */
int mw_imap_sieve_subscribe(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;
/* Removes everything but the marker from the selected staging folder. */
int mw_imap_staging_purge(struct mw_imap_box *b, struct mw_err *err) MW_CHECK;

#endif
