/* expansion.h - the final mailboxes of a mail's recipients, as the alias tables had them
 * when it came, in a record of its own: FORMAT.md §6, EXPANSION.
 *
 * Tables on a network are asked after the mail was answered. Pure functions over bytes;
 * the laws of meta.h. Decoded strings and arrays live in the caller's arena.
 */
#ifndef MW_RECORD_EXPANSION_H
#define MW_RECORD_EXPANSION_H

#include "journal/record/meta.h"

struct mw_expanded {    /* one recipient */
	uint64_t index; /* its place among the mail's recipients, from 0 */
	uint32_t flags; /* enum mw_rcpt_flag: LOCAL, EXPANDED, UNDECIDED */
	struct mw_str *mailbox;
	size_t n_mailbox;
};

struct mw_expansion {
	uint8_t ref[MW_ID_LEN]; /* the mail's record */
	uint64_t seq;           /* its sequence number */
	int64_t time_us;        /* when the tables had answered */
	uint64_t took_us;       /* since the mail was answered */
	enum mw_direction direction;
	uint32_t flags;       /* enum mw_mail_flag: TABLES_FAILED */
	struct mw_str reason; /* of a failure, in words */
	struct mw_expanded *rcpt;
	size_t n_rcpt;
};

/* 0, MW_ENOMEM or MW_ELIMIT. */
int mw_expansion_encode(const struct mw_expansion *x, struct mw_buf *out) MW_CHECK;
/* MW_EFORMAT, MW_EVERSION, MW_ENOMEM. */
int mw_expansion_decode(const void *p, size_t n, struct mw_arena *a,
                        struct mw_expansion *ret, struct mw_err *err) MW_CHECK;
/* Is there a recipient of m whose expansion is still to come? */
bool mw_expansion_awaited(const struct mw_mail *m);
/* Puts it into m, whose recipients are as its record has them; strings stay x's. Only
 * recipients whose expansion was to come are changed. */
void mw_expansion_apply(const struct mw_expansion *x, struct mw_mail *m);

#endif
