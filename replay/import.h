/* import.h - mail that exists already, on its way into a journal: source → known? →
 * record.
 *
 * A source (import_maildir.c, import_mbox.c, import_eml.c, import_imap.c) walks what it
 * was given and pushes message by message into a sink: begin → body … → end. The sink
 * (import_put.c) asks import_seen.h whether the journal has the copy and streams what is
 * missing to the journal's writer (journal/store/intake.h).
 *
 * Errors: what goes wrong with one message or one mailbox is told to the sink and the
 * walk goes on; a sink's negative answer ends it. One thread. Strings are borrowed for
 * the call.
 */
#ifndef MW_REPLAY_IMPORT_H
#define MW_REPLAY_IMPORT_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "replay/cmd.h"
#include "replay/mbox.h"
#include "replay/target.h"

struct mw_import_msg {
	const char *name;    /* for people: a path, a folder and a number */
	const char *owner;   /* address */
	const char *mailbox; /* login name (mw_mailbox_name) */
	const char *folder;  /* other than INBOX and Sent: see struct mw_mail; or NULL */
	bool sent;
	int64_t time_us;      /* arrival; INT64_MIN: as the header says */
	bool no_zone;         /* time_us was written without its zone */
	struct mw_str sender; /* p NULL: as the header says */
	/* Where a source knows them before the content: else 0 and empty. */
	uint64_t size;
	struct mw_str message_id;
};

struct mw_import_sink {
	/* Before the content is asked for, by what a server says of it: 1 it is there
	 * already (and counted), 0 go on with begin, now or later. */
	int (*known)(void *arg, const struct mw_import_msg *m);
	/* 0 send the content; negative: the end of everything. */
	int (*begin)(void *arg, const struct mw_import_msg *m);
	/* Content with CRLF line ends, cut anywhere. */
	int (*body)(void *arg, const void *p, size_t n);
	/* code 0: whole. Negative: the source failed in the middle, and why. */
	int (*end)(void *arg, int code, const char *why);
	/* A message or place that could not be read at all. */
	int (*trouble)(void *arg, const char *name, const char *why);
	/* Folders or messages left out on purpose. */
	void (*skipped)(void *arg, const char *name, uint64_t messages);
	void *arg;
};

struct mw_import_src {
	struct mw_cli *cli;
	const char *text; /* "maildir:…" */
	const char *user; /* --user, or NULL */
	bool sent;        /* --sent: all of it is the user's own sent mail */
	bool all_folders;
	enum mw_mbox_format format;
	struct mw_target_opts t; /* how to log in */
	const struct mw_import_sink *sink;
};

/* MW_EUSAGE, MW_ENOTFOUND, …: nothing could be begun. */
int mw_import_walk(const struct mw_import_src *s, struct mw_err *err) MW_CHECK;

/* ---- between the sources ---- */

struct mw_import_box { /* one user's place */
	const char *path, *owner, *mailbox;
};

int mw_import_maildir(const struct mw_import_src *s, const struct mw_import_box *b,
                      struct mw_err *err) MW_CHECK;
int mw_import_mbox(const struct mw_import_src *s, const struct mw_import_box *b,
                   struct mw_err *err) MW_CHECK;
int mw_import_eml(const struct mw_import_src *s, const struct mw_import_box *b,
                  struct mw_err *err) MW_CHECK;
/* b->path is not used: the target is s->text. */
int mw_import_imap(const struct mw_import_src *s, const struct mw_import_box *b,
                   struct mw_target *t, struct mw_err *err) MW_CHECK;

/* Every place that a pattern (%u %n %d) names on this disk, in order of name. With user
 * its own only. cb's non-zero ends the walk and is returned. */
int mw_import_places(const struct mw_import_src *s, const char *pattern,
                     int (*cb)(void *arg, const struct mw_import_box *b), void *arg,
                     struct mw_err *err) MW_CHECK;
/* The address and mailbox of what a path or login names: a domain is added where only one
 * is local. MW_EUSAGE for a domain that is not local. Both live in the arena. */
int mw_import_owner(const struct mw_conf *conf, const char *name, struct mw_arena *a,
                    struct mw_import_box *ret, struct mw_err *err) MW_CHECK;

enum mw_import_folder {
	MW_IMPORT_INBOX,
	MW_IMPORT_SENT,
	MW_IMPORT_LEAVE /* Trash, Junk, Drafts */
};
/* By its last part, as clients name such folders. */
enum mw_import_folder mw_import_folder(const struct mw_conf *conf, struct mw_str name,
                                       char delim);

/* A folder's name in a store as a record has it, into room: NULL for INBOX and for what
 * could not be put back under that name. utf7: names are in modified UTF-7. */
const char *mw_import_folder_name(struct mw_str name, char delim, bool utf7, char *room,
                                  size_t room_n);

/* Line ends to CRLF: a message whose first line ends in CRLF stays as it is, in any other
 * each lone LF gets its CR. */
struct mw_crlf {
	const struct mw_import_sink *sink;
	bool decided, as_is, cr;
};
int mw_crlf_put(struct mw_crlf *c, const void *p, size_t n);

/* A file's content to the sink, begin and end included. */
int mw_import_file(const struct mw_import_src *s, int fd, const struct mw_import_msg *m);

#endif
