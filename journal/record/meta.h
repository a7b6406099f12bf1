/* meta.h - what a record says about its message, and its CBOR form (FORMAT.md §6).
 *
 * Pure functions over bytes. Laws: decode(encode(m)) = m; any input decodes to a value or
 * to MW_EFORMAT; keys that a reader does not know are skipped, unless they begin with
 * '!', then the record is refused with MW_EVERSION (FORMAT.md I12).
 *
 * Ownership: decoded strings and arrays live in the caller's arena.
 */
#ifndef MW_RECORD_META_H
#define MW_RECORD_META_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "journal/base/err.h"
#include "journal/base/id.h"
#include "journal/base/str.h"

#include <stdint.h>

enum mw_type { /* numbers are on disk: never reuse one */
	MW_TYPE_MAIL = 1,
	MW_TYPE_OUTCOME = 2,
	MW_TYPE_MARK = 3,
	MW_TYPE_HOLD = 4,
	MW_TYPE_TOMBSTONE = 5,
	MW_TYPE_DICT = 6,
	MW_TYPE_AUDIT = 7,
	MW_TYPE_EXPANSION = 8,
	MW_TYPE_SPF = 9,
	MW_TYPE_RECOVERY = 10,
	MW_TYPE_CLOSE = 11,
	MW_TYPE_RESTORE = 12
};

const char *mw_type_name(enum mw_type t); /* "mail", …; "unknown" */

enum mw_direction {
	MW_DIR_IN = 0,
	MW_DIR_OUT = 1,
	MW_DIR_INTERNAL = 2
};
#define MW_DIRECTIONS 7U /* all, a bit for each */

const char *mw_direction_name(enum mw_direction d); /* "in", "out", "internal" */

enum mw_rcpt_flag {
	MW_RCPT_REFUSED = 1,   /* the MTA refused it: not part of the accepted envelope */
	MW_RCPT_LOCAL = 2,     /* has, or may have, a mailbox here */
	MW_RCPT_EXPANDED = 4,  /* mailbox[] is the expansion at capture (may be empty) */
	MW_RCPT_UNDECIDED = 8, /* an alias table failed: mailbox[] is not to be trusted */
	MW_RCPT_EXCLUDED = 16, /* the settings (capture) leave its copies out */
	MW_RCPT_LATER = 32     /* with UNDECIDED: the expansion is in a later record */
};

struct mw_rcpt {
	struct mw_str addr;     /* raw bytes, without angle brackets */
	struct mw_str args;     /* ESMTP arguments as given, "NOTIFY=NEVER ORCPT=…" */
	struct mw_str mailer;   /* the MTA's word for the transport, may be empty */
	uint32_t flags;         /* enum mw_rcpt_flag */
	struct mw_str *mailbox; /* final addresses after alias expansion */
	size_t n_mailbox;
};

enum mw_mail_flag {
	MW_MAIL_NO_BODY = 1,      /* zero body bytes: the last empty line is unknown */
	MW_MAIL_INEXACT = 2,      /* the MTA offered no exact header bytes */
	MW_MAIL_NON_SMTP = 4,     /* sendmail(1), bounce, …: no SMTP client */
	MW_MAIL_TABLES_FAILED = 8 /* an alias table could not be read */
};

struct mw_mail {
	int64_t time_us;          /* end of DATA, µs since 1970 UTC */
	struct mw_str queue_id;   /* may be empty */
	struct mw_str message_id; /* of the first Message-ID field, with <>, or empty */
	struct mw_str subject; /* raw first Subject field, unfolded, at most 1000 bytes */
	struct mw_str from;    /* raw first From field, likewise */
	struct mw_str client_addr, client_name, helo;
	uint32_t client_port;
	struct mw_str tls_version, tls_cipher;
	struct mw_str auth_type, auth_user,
	    auth_sender;                     /* SASL mechanism, login, MAIL AUTH= */
	struct mw_str daemon, mta, hostname; /* {daemon_name}, v, j */
	struct mw_str front;                 /* "milter", "smtp", "lmtp", "import" */
	struct mw_str sender, sender_args;
	struct mw_rcpt *rcpt;
	size_t n_rcpt;
	uint64_t size;        /* content bytes, CRLF line ends as handed over */
	uint64_t header_size; /* bytes before the empty line, its CRLF not counted */
	uint8_t sha256[32];   /* of the content */
	uint8_t digest[32];   /* of the canonical form (FORMAT.md §7) */
	enum mw_direction direction;
	uint32_t flags; /* enum mw_mail_flag */
	/* Of imported mail: the folder it was in, UTF-8 with "/" between levels; empty:
	 * INBOX or Sent. */
	struct mw_str folder;
	/* Capture sections that decided to journal it, each once; "" where none fitted a
	 * recipient. Empty: none fitted anybody. */
	struct mw_str *class;
	size_t n_class;
	/* header: and spam: words of retain sections that it fitted when it came. */
	struct mw_str *fact;
	size_t n_fact;
};

/* Appends the deterministic CBOR form. 0, MW_ENOMEM or MW_ELIMIT. */
int mw_mail_encode(const struct mw_mail *m, struct mw_buf *out) MW_CHECK;
int mw_mail_decode(const void *p, size_t n, struct mw_arena *a, struct mw_mail *ret,
                   struct mw_err *err) MW_CHECK;
/* The same; its strings point into p, and no NUL stands behind them. */
int mw_mail_decode_here(const void *p, size_t n, struct mw_arena *a, struct mw_mail *ret,
                        struct mw_err *err) MW_CHECK;

/* A mark: a named point in the log. The record's position is the point. */
enum mw_mark_phase {
	MW_MARK_START = 0,
	MW_MARK_COMPLETE = 1,
	MW_MARK_FAILED = 2
};

struct mw_mark {
	struct mw_str name;
	enum mw_mark_phase phase;
	int64_t time_us;
	uint64_t
	    start_seq;    /* complete, failed: the sequence number of the start record */
	struct mw_str by; /* who asked: "uid 0", … */
};

const char *mw_mark_phase_name(enum mw_mark_phase p); /* "start" … */
int mw_mark_encode(const struct mw_mark *m, struct mw_buf *out) MW_CHECK;
int mw_mark_decode(const void *p, size_t n, struct mw_arena *a, struct mw_mark *ret,
                   struct mw_err *err) MW_CHECK;

/* What a recovery found at the end of a segment that was not closed. */
struct mw_recovery {
	uint64_t segment;
	uint64_t end;        /* bytes of it that are whole batches */
	uint64_t torn_bytes; /* non-zero bytes after that, kept in the file */
	uint32_t damaged;    /* 0: torn tail; 1: "torn or damaged", undecidable */
};

/* What a CLOSE record says of its segment. */
struct mw_close {
	uint64_t first, last, records, mails;
	int64_t tmin_us, tmax_us; /* of the mails */
};

int mw_close_decode(const void *p, size_t n, struct mw_close *ret,
                    struct mw_err *err) MW_CHECK;

int mw_recovery_encode(const struct mw_recovery *r, struct mw_buf *out) MW_CHECK;
int mw_recovery_decode(const void *p, size_t n, struct mw_recovery *ret,
                       struct mw_err *err) MW_CHECK;

#endif
