/* note.h - C2SP signed notes (c2sp.org/signed-note) by a journal's own Ed25519 key.
 *
 * Form: a text that ends with LF and has no empty line; an empty line; lines
 * "— NAME BASE64(key hash ‖ signature)". NAME is KIND ‖ the journal's ID in hex. Pure
 * functions over memory, any thread.
 */
#ifndef MW_VERIFY_NOTE_H
#define MW_VERIFY_NOTE_H

#include "journal/store/store.h"

#define MW_NOTE_CHECKPOINT "mailwal.journal/"
#define MW_NOTE_DRILL      "mailwal.drill/"

enum {
	MW_NOTE_NAME = 80 /* room for a name */
};

/* KIND and the journal's ID. */
void mw_note_name(const char *kind, const uint8_t journal[MW_ID_LEN],
                  char out[MW_NOTE_NAME]);
/* Signs what stands in out from `start` on, and appends the signature. MW_EKEY where the
 * journal's key cannot be read, MW_ENOMEM. */
int mw_note_sign(struct mw_store *st, const char *kind, size_t start, struct mw_buf *out,
                 struct mw_err *err) MW_CHECK;
/* The text of a note, its last LF included: true if `name` signed it with the public key
 * pk (32 bytes). What other names signed is passed over. */
bool mw_note_open(struct mw_str note, const char *name, const uint8_t *pk,
                  struct mw_str *ret_text);
/* The text before the first empty line, whoever signed it: false if there is no empty
 * line. */
bool mw_note_text(struct mw_str note, struct mw_str *ret_text);

#endif
