/* target_maildir.h - the Maildir target's own state, shared by its files. Private.
 *
 *	target_maildir.c        scan, fetch, put
 *	target_maildir_layout.c where folders lie, how they are made and made known
 */
#ifndef MW_REPLAY_TARGET_MAILDIR_H
#define MW_REPLAY_TARGET_MAILDIR_H

#include "replay/mdir_list.h"
#include "replay/target_files.h"

struct mw_mdir_place { /* a folder that copies go into */
	char *name;    /* UTF-8 with "/"; "" for INBOX */
	char *path;
	bool ready; /* it is there, and it is no link */
	struct mw_mdir_place *next;
};

struct mw_mdir_folder { /* a folder that was found */
	char *path;
	bool sent;
	dev_t dev;
	ino_t ino;
	struct mw_mdir_odd { /* what lies in new and cur, and is no file */
		size_t n;
		char *name; /* the first */
	} odd[2];
	struct mw_mdir_now now; /* once one was missed */
};

struct mw_mdir_message {
	uint32_t folder;
	bool in_new;
	char *name;
};

struct mw_mdir {
	char *path;
	enum mw_layout layout; /* never AUTO */
	const char *sent;      /* names */
	const char *dest;      /* of --folder; NULL: by the copy */
	struct mw_mdir_place *place;
	struct mw_mdir_folder *folder;
	size_t n_folder;
	struct mw_mdir_message *msg;
	size_t n_msg, cap_msg;
	mode_t file_mode;
	uid_t uid;
	gid_t gid;
	bool missing; /* dry run: it would be made */
	int lock_fd;  /* or -1 */
	unsigned counter;
};

/* Settles AUTO by what stands in the Maildir. */
void mw_mdir_layout(struct mw_mdir *m, enum mw_layout wish);
/* All folders into m->folder, INBOX first, each directory once, however many links lead
 * to it. */
int mw_mdir_folders(struct mw_mdir *m, struct mw_err *err) MW_CHECK;
/* The place of a folder. MW_EUSAGE: it can be none here. */
int mw_mdir_place(struct mw_mdir *m, const char *folder, struct mw_mdir_place **ret,
                  struct mw_err *err) MW_CHECK;
/* Makes it where it is missing, as the server would have, and subscribes it then. */
int mw_mdir_ready(struct mw_target *t, struct mw_mdir *m, struct mw_mdir_place *p,
                  struct mw_err *err) MW_CHECK;
int mw_mdir_make(const char *path, struct mw_err *err) MW_CHECK;
/* Its parts must be directories, not links to some, and for root it must be one itself,
 * or a link that nobody else can turn: root is not led elsewhere. */
int mw_mdir_no_links(const char *path, struct mw_err *err) MW_CHECK;
/* So many messages more, for the server that counts quota in maildirsize. */
void mw_mdir_count(struct mw_mdir *m, uint64_t bytes, size_t messages);

#endif
