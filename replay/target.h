/* target.h - where mail is put: one interface for IMAP, LMTP, SMTP, Maildir, mbox and
 * eml.
 *
 * Life, per target: mw_target_new → for each box: open → scan → (fetch) → begin → (scan
 * again if begin says so) → put → close → mw_target_free. A box is one place of its own:
 * an IMAP mailbox with all its folders, a Maildir, an mbox file. After any failure other
 * than a refused message the caller closes the box, opens it again and scans: that, and
 * not a batch's atomicity, is why every copy is there once.
 *
 * Ownership: strings passed in are borrowed for the call; what a callback is given is
 * valid during that callback. Threads: one a struct mw_target; clones may be used side by
 * side, each on boxes of its own.
 */
#ifndef MW_REPLAY_TARGET_H
#define MW_REPLAY_TARGET_H

#include "journal/base/arena.h"
#include "journal/base/err.h"
#include "journal/record/meta.h"
#include "replay/profile.h"
#include "replay/rate.h"

#include <stdbool.h>

struct mw_target;

struct mw_sink;
struct mw_trail;

enum mw_filing { /* where what is not a Sent copy goes, on IMAP */
	MW_FILE_INBOX,
	MW_FILE_DETAIL, /* user+folder@…: into that folder, where there is one */
	MW_FILE_SIEVE   /* where the user's script says */
};

enum mw_layout { /* of a Maildir's folders */
	MW_LAYOUT_AUTO,
	MW_LAYOUT_PLUS,   /* Maildir++ as Dovecot has it */
	MW_LAYOUT_FS,     /* Dovecot's LAYOUT=fs */
	MW_LAYOUT_COURIER /* Maildir++ as Courier has it */
};

struct mw_target_opts {
	enum mw_filing filing;
	const char *delimiter; /* of MW_FILE_DETAIL: recipient_delimiter */
	struct mw_sink *sink;  /* for MW_FILE_SIEVE; of all clones */
	const char *password_file, *auth_user, *user_passwords, *tls_ca;
	bool separator; /* --auth-style separator: login "mailbox*name" */
	bool insecure;
	bool create; /* file targets: make the box where it is missing */
	enum mw_layout layout;
	struct mw_rate_limits rate; /* of what is put, all clones together */
	bool plain_dir;    /* export: the path is the box, whatever the mailbox */
	bool side_effects; /* --accept-side-effects */
	bool keep_sender;  /* LMTP, SMTP: the captured sender, not the null sender */
	const char
	    *sent_folder; /* UTF-8; "" or NULL: "Sent" where the server names none */
	/* All that is put goes here, made and subscribed where it is missing; UTF-8 with
	 * "/" between levels (see mw_target_folder_check). NULL: INBOX or Sent. */
	const char *folder;
	/* Who runs, for the staging folder's marker. */
	const char *ledger_id, *run_id, *journal_id;
	bool (*stopped)(void);
	/* Called for facts a person should see: "waiting for …". May be NULL. */
	void (*note)(void *arg, const char *text);
	void *note_arg;
};

/* Is text a target by its form? Nothing is opened. 0 or MW_EUSAGE. */
int mw_target_check(const char *text, struct mw_err *err) MW_CHECK;
/* Parses TARGET (grammar: mw_target_usage) and reads the password files; connects to
 * nothing. MW_EUSAGE with the grammar as hint; MW_EPERM, MW_ENOTFOUND for the files. */
int mw_target_new(const char *text, const struct mw_target_opts *o,
                  struct mw_target **ret, struct mw_err *err) MW_CHECK;
void mw_target_free(struct mw_target *t); /* NULL ok */
/* The same target once more, with no box open, for another thread. MW_ENOMEM. */
int mw_target_clone(const struct mw_target *t, struct mw_target **ret) MW_CHECK;
extern const char mw_target_usage[];

const char *mw_target_name(const struct mw_target *t); /* without secrets, for people */
bool mw_target_readable(const struct mw_target *t);    /* can say what it holds */
/* Is its scan faster where Received fields are not asked for? */
bool mw_target_brief(const struct mw_target *t);
/* Is that target's text one of those that cannot be read back (LMTP, SMTP)? */
bool mw_target_write_only(const char *text);
/* Is a box's name a path of this host? */
bool mw_target_is_files(const struct mw_target *t);

/* The box of a mailbox: copies of one message that meet in one box are one. The text
 * lives in the arena. MW_EUSAGE for a mailbox name that cannot be a path. */
int mw_target_box(struct mw_target *t, const char *mailbox, struct mw_arena *a,
                  const char **ret, struct mw_err *err) MW_CHECK;
/* Can this name be a folder? 0, or MW_EUSAGE with the reason. */
int mw_target_folder_check(const char *folder, struct mw_err *err) MW_CHECK;
/* Does the target keep Sent apart from INBOX? If not, the two copies are one. */
bool mw_target_has_sent(const struct mw_target *t);

/* One message the box holds. */
struct mw_found {
	uint64_t key;    /* the target's name for it, for fetch */
	uint64_t size;   /* as CRLF text where the target knows, else physical */
	int64_t date_us; /* arrival; INT64_MIN: unknown */
	bool sent_folder;
	struct mw_str header; /* at least the Message-ID and Received fields */
};

/* MW_ENOUSER, MW_EAUTH, MW_EUNAVAIL, MW_ELOCKED, MW_EREFUSED, … for this box. dry: change
 * nothing, not even the remains of an earlier run. */
int mw_target_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
                   struct mw_err *err) MW_CHECK;
int mw_target_scan(struct mw_target *t, int (*cb)(void *arg, const struct mw_found *f),
                   void *arg, struct mw_err *err) MW_CHECK;
/* Whole messages, as profiles, for keys in ascending order. A message that has gone in
 * the meantime is passed over. The callback takes the profile. */
int mw_target_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
                    int (*cb)(void *arg, uint64_t key, struct mw_profile *take),
                    void *arg, struct mw_err *err) MW_CHECK;
/* Gains the right to write, against other runs on other hosts too. 1: the box changed
 * since the last scan, scan again; 0: it did not. */
int mw_target_begin(struct mw_target *t, struct mw_err *err) MW_CHECK;

/* Could a scan find something else now than the last one? 1 yes, 0 no. */
int mw_target_changed(struct mw_target *t, struct mw_err *err) MW_CHECK;

struct mw_put { /* one copy to put */
	uint8_t id[MW_ID_LEN];
	int64_t time_us;
	uint64_t size; /* content bytes */
	bool sent;
	const char
	    *folder; /* UTF-8 with "/", where the target has folders; NULL: INBOX */
	void *ref;   /* the caller's */
};

struct mw_put_place {       /* where it went, as far as the target says */
	const char *folder; /* or NULL */
	uint32_t uidvalidity, uid;
	int64_t time_us; /* of arrival, which the target keeps; 0: unknown */
};

enum {
	MW_PUT_FILED =
	    1 /* code of done: given to the user's script; a scan tells the rest */
};

struct mw_put_io {
	/* The envelope; valid until the next call of either. */
	int (*envelope)(void *arg, const struct mw_put *p, const struct mw_mail **ret,
	                struct mw_err *err);
	/* Exactly the captured bytes. */
	int (*content)(void *arg, const struct mw_put *p,
	               int (*sink)(void *sarg, const void *b, size_t n), void *sarg,
	               struct mw_err *err);
	/* Durable before a batch can take effect. */
	int (*intent)(void *arg, const struct mw_put *const *v, size_t n,
	              struct mw_err *err);
	/* The fate of one copy: code 0, MW_PUT_FILED, or a refusal with its reason in
	 * why. */
	int (*done)(void *arg, const struct mw_put *p, int code, const char *why,
	            const struct mw_put_place *place);
	/* For targets that say them: the final recipient's address, as expanded at
	 * capture; the token of the loop guard (store/guard.h) for it and the body's
	 * digest. Valid until the next call of any. */
	int (*address)(void *arg, const struct mw_put *p, struct mw_str *ret,
	               struct mw_err *err);
	int (*token)(void *arg, const struct mw_put *p, struct mw_str rcpt,
	             const uint8_t body[32], char *ret, struct mw_err *err);
	/* Says to the daemon of the copy's journal that it comes back by way of a mail
	 * server (store/trail.h). NULL ok. */
	int (*tell)(void *arg, const struct mw_put *p, struct mw_str sender,
	            struct mw_str rcpt, const struct mw_trail *trail, struct mw_err *err);
	/* So many bytes are put before the captured ones; NULL ok. */
	void (*front)(void *arg, const struct mw_put *p, size_t bytes);
	const char *box; /* the box's own name, for targets that say it (LMTP) */
	void *arg;
};

/* Where a folder's UIDs go on, so that clients with caches of the time before the loss
 * see what comes; not for folders younger than the mail that is missing. */
struct mw_raised {
	const char *folder; /* as the server writes it */
	uint64_t uidnext, uidnext_to;
	uint64_t modseq, modseq_to; /* 0: the server has none */
	const char *why;            /* could not be raised, or not as far; NULL: it was */
};
struct mw_raise_folder {
	const char *folder; /* UTF-8 with "/" */
	uint64_t n;         /* copies that are missing there */
};
struct mw_raise_opts {
	uint64_t gap;         /* UIDs used up beyond the copies that are missing */
	uint64_t inbox, sent; /* copies that are missing */
	const struct mw_raise_folder *folder; /* and those with a folder of their own */
	size_t n_folder;
	int64_t newest_us; /* when the newest of them came; INT64_MAX: nobody knows */
	bool all;          /* every folder of the user, not only those that get copies */
	bool dry;          /* say it only */
	int (*told)(void *arg, const struct mw_raised *r);
	void *arg;
};
/* After begin (dry: after scan). 0, also for targets that cannot. */
int mw_target_raise(struct mw_target *t, const struct mw_raise_opts *o,
                    struct mw_err *err) MW_CHECK;
bool mw_target_raises(const struct mw_target *t);
/* Puts n copies, in order. Each is answered through done before 0 is returned. Negative:
 * something is in doubt; what was not answered may or may not be there. MW_ECANCEL after
 * a stop, at a consistent point. */
int mw_target_put(struct mw_target *t, const struct mw_put *v, size_t n,
                  const struct mw_put_io *io, struct mw_err *err) MW_CHECK;
/* Takes away what an earlier run put into the open box: removed(arg, i, code) for
 * each, 0: it is gone now (dry: it is where it was put, and stays); MW_ENOTFOUND: not
 * where it was put, so it is left alone. Places are those that done was told. MW_EUSAGE
 * for a target that cannot. */
struct mw_removal {
	const uint8_t *id;
	struct mw_put_place place;
};
struct mw_removing {
	const struct mw_removal *v;
	size_t n;
	bool dry;
	int (*removed)(void *arg, size_t i, int code);
	void *arg;
};
int mw_target_remove(struct mw_target *t, const struct mw_removing *what,
                     struct mw_err *err) MW_CHECK;
bool mw_target_removes(const struct mw_target *t);
/* Which one the open box is: another, or an older state of it, has another `same` or a
 * smaller `next` (each message put into its INBOX makes that greater by one at least).
 * 1; 0 it cannot be told. */
struct mw_target_mark {
	uint64_t same, next;
};
int mw_target_mark(struct mw_target *t, struct mw_target_mark *ret,
                   struct mw_err *err) MW_CHECK;
/* What the open box's server can do, in a few words. */
void mw_target_describe(struct mw_target *t, struct mw_buf *out);
/* Leaves the box clean (no staging folder, no lock). After an error: as far as possible.
 */
int mw_target_close(struct mw_target *t, struct mw_err *err) MW_CHECK;

/* ---- for implementations ---- */

struct mw_target_ops {
	const char *scheme;
	bool readable, has_sent;
	bool has_folders; /* takes --folder */
	bool brief;       /* see mw_target_brief */
	int (*open)(struct mw_target *t, const char *mailbox, const char *box, bool dry,
	            struct mw_err *err);
	int (*scan)(struct mw_target *t, int (*cb)(void *, const struct mw_found *),
	            void *arg, struct mw_err *err);
	int (*fetch)(struct mw_target *t, const uint64_t *keys, size_t n,
	             int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
	             struct mw_err *err);
	int (*changed)(struct mw_target *t, struct mw_err *err); /* NULL: maybe */
	int (*begin)(struct mw_target *t, struct mw_err *err);
	/* NULL: cannot */
	int (*raise)(struct mw_target *t, const struct mw_raise_opts *o,
	             struct mw_err *err);
	int (*put)(struct mw_target *t, const struct mw_put *v, size_t n,
	           const struct mw_put_io *io, struct mw_err *err);
	/* NULL: cannot */
	int (*remove)(struct mw_target *t, const struct mw_removing *what,
	              struct mw_err *err);
	void (*describe)(struct mw_target *t, struct mw_buf *out); /* NULL: nothing */
	/* As put, into an open box, without scan and begin, and without a lock that keeps
	 * other runs out; NULL: cannot. */
	int (*deliver)(struct mw_target *t, const struct mw_put *v, size_t n,
	               const struct mw_put_io *io, struct mw_err *err);
	/* See mw_target_mark; NULL: never. */
	int (*mark)(struct mw_target *t, struct mw_target_mark *ret, struct mw_err *err);
	bool keeps_open; /* a box may stay open between deliveries */
	int (*close)(struct mw_target *t, struct mw_err *err);
	void (*free)(struct mw_target *t);
};

struct mw_url { /* a parsed TARGET */
	const struct mw_target_ops *ops;
	char *host; /* or the path, the pattern, the unix socket */
	unsigned port;
	bool tls, unix_socket;
};
/* host is the caller's to free, also after an error. */
int mw_target_parse(const char *text, struct mw_url *ret, struct mw_err *err) MW_CHECK;

struct mw_target {
	const struct mw_target_ops *ops;
	struct mw_target_opts o;
	struct mw_url url;
	char *name;
	char *password;  /* wiped in mw_target_free */
	char *passwords; /* the --user-passwords file's text, wiped */
	bool silent;     /* a canary came to the sink */
	/* What begin will be followed by, as far as the caller knows: a hint. */
	uint64_t coming, coming_bytes;
	uint64_t message_limit; /* IMAP: of one command, as far as it was found out */
	bool brief; /* scans need not give Received fields; see mw_target_brief */
	void *own;  /* the implementation's state */
};

extern const struct mw_target_ops mw_target_imap, mw_target_lmtp, mw_target_smtp,
    mw_target_maildir, mw_target_mbox, mw_target_eml;

/* The password for a mailbox: of --user-passwords, else of --password-file. MW_EUSAGE
 * when none was given, MW_EAUTH when the mailbox has no line. */
int mw_target_password(const struct mw_target *t, const char *mailbox, const char **ret,
                       char *room, size_t room_n, struct mw_err *err) MW_CHECK;

#endif
