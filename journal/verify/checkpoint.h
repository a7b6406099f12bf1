/* checkpoint.h - a signed statement of where the log stood, to be kept off the host.
 *
 * Form: a C2SP signed note (c2sp.org/signed-note, tlog-checkpoint): origin line
 * "mailwal.journal/ID", the sequence number, the chain head in base64, extension lines;
 * an empty line; "— NAME BASE64(key hash ‖ Ed25519 signature)". Held against the log it
 * shows truncation, rollback, rewriting and re-signing, which the host alone cannot.
 */
#ifndef MW_VERIFY_CHECKPOINT_H
#define MW_VERIFY_CHECKPOINT_H

#include "journal/store/store.h"

struct mw_checkpoint {
	uint8_t journal[MW_ID_LEN];
	uint64_t seq;
	uint8_t chain[32];
	int64_t time_us;
};

/* A checkpoint of record r of this journal, signed by its key; appended to out. */
int mw_checkpoint_make(struct mw_store *st, const struct mw_record *r, int64_t now_us,
                       struct mw_buf *out, struct mw_err *err) MW_CHECK;
/* Reads one; the signature must hold under pk (32 bytes). MW_EFORMAT, MW_EDAMAGED. */
int mw_checkpoint_parse(struct mw_str text, const uint8_t *pk, struct mw_checkpoint *ret,
                        struct mw_err *err) MW_CHECK;

/* Where the newest checkpoint was put: a note in the directory ledger of the journal, for
 * whoever asks how things are; a text file, replaced as a whole. */
struct mw_published {
	uint64_t seq;       /* 0: none yet */
	int64_t time_us;    /* when it was put there */
	char file[1024];    /* empty: to none */
	char command[1024]; /* its program; empty: to none */
};
int mw_published_write(const char *dir, const struct mw_published *p,
                       struct mw_err *err) MW_CHECK;
/* Zeros where there is none yet; MW_EDAMAGED. */
int mw_published_read(const char *dir, struct mw_published *ret,
                      struct mw_err *err) MW_CHECK;

#endif
