/* dict_int.h - the dictionaries of a store, for the files of the store alone.
 *
 * Writer: mw_dict_start; mails are offered as samples, a thread trains; whoever
 * compresses a mail takes the one in use (mw_dict_get) and hangs it on its entry; the
 * committer puts its records into the segment first; mw_dict_stop. All of it does nothing
 * in a store without `dictionary`. Reader: mw_dict_for. One thread a reader, any for the
 * rest.
 */
#ifndef MW_STORE_DICT_INT_H
#define MW_STORE_DICT_INT_H

#include "journal/codec/zstd.h"
#include "journal/store/store.h"

struct mw_dict;  /* counted references */
struct mw_dicts; /* a writer's */

struct mw_dict_note { /* metadata of a DICT record */
	int64_t time_us;
	uint64_t mails; /* it was trained on */
	uint64_t size;
};

int mw_dict_start(struct mw_store *st, struct mw_err *err) MW_CHECK;
void mw_dict_stop(struct mw_store *st); /* after the committer and all entries are gone */

struct mw_dict *mw_dict_ref(struct mw_dict *d); /* NULL ok */
void mw_dict_unref(struct mw_dict *d);          /* NULL ok */
const struct mw_zdict *mw_dict_z(const struct mw_dict *d);
/* The one to compress new mail with, a reference of the caller's; NULL: none. */
struct mw_dict *mw_dict_get(struct mw_store *st);
/* A mail whose content is complete, and is still in memory, may become a sample. */
void mw_dict_offer(struct mw_entry *e, const struct mw_mail *m);
/* This mail is erased: nothing made from it is used for new mail any more. */
void mw_dict_forget(struct mw_store *st, const uint8_t id[MW_ID_LEN]);
/* Is there anything that was made from mail? */
bool mw_dict_knows_mail(struct mw_store *st);
/* How large segments get here: a dictionary must be worth its place. */
void mw_dict_fill(struct mw_store *st, uint64_t bytes);

/* Its two records, linked, ready to be placed. */
int mw_dict_entries(struct mw_store *st, struct mw_dict *d,
                    struct mw_entry **ret) MW_CHECK;
/* Frees linked entries up to `end`, which stays. */
void mw_dict_entries_free(struct mw_entry *e, const struct mw_entry *end);
/* Committer: where in the open segment it stands, in units of 8 bytes; 0: not there. */
uint32_t mw_dict_at(const struct mw_store *st, const struct mw_dict *d);
/* Committer: a record of it is placed at off; the place that records name. */
uint32_t mw_dict_placed(struct mw_store *st, struct mw_dict *d, uint64_t off);
void mw_dict_segment_end(struct mw_store *st);

/* entry.c: a finished DICT entry. */
int mw_entry_dict(struct mw_store *st, struct mw_str bytes, const struct mw_dict_note *n,
                  struct mw_entry **ret, struct mw_err *err) MW_CHECK;

/* dictread.c: what record r was compressed with, NULL for nothing; owned by the store,
 * good until the next call. MW_EDAMAGED names r and its dictionary. */
int mw_dict_for(struct mw_store *st, const struct mw_record *r,
                const struct mw_zdict **ret, struct mw_err *err) MW_CHECK;
void mw_dict_read_done(struct mw_store *st);

#endif
