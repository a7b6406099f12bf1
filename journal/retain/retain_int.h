/* retain_int.h - what the files of the room share. Nobody else includes it. */
#ifndef MW_RETAIN_INT_H
#define MW_RETAIN_INT_H

#include "journal/retain/retain.h"

/* quiet.c: MW_ENOMEM, MW_ECANCEL or 0; ret may be empty. */
int mw_quiet_find(struct mw_store *st, const struct mw_retain_limits *lim,
                  const struct mw_segment_info *seg, size_t n, const struct mw_gone *gone,
                  bool (*stopped)(void), struct mw_quiet *ret) MW_CHECK;
void mw_quiet_free(struct mw_quiet *q);
bool mw_quiet_has(const struct mw_quiet *q, uint64_t seq);
/* Marks what refers to mails in these segments. 1; 0 that is left open; MW_ENOMEM. */
int mw_quiet_notes(struct mw_store *st, struct mw_retain_log *l) MW_CHECK;
/* plan.c: of a type that refers to mails? */
bool mw_retain_is_note(uint8_t type);

/* lost.c: MW_ENOMEM or 0. One more; and, when all are there, in order, without what the
 * newest audit (or NULL) explains; ret_settled gets what it names as settled. */
int mw_lost_add(struct mw_lost *l, struct mw_arena *a, uint64_t first,
                uint64_t last) MW_CHECK;
void mw_lost_sort(struct mw_lost *l);
int mw_lost_settle(struct mw_lost *l, const struct mw_audit *x, struct mw_arena *a,
                   struct mw_lost *ret_settled) MW_CHECK;
enum {
	/* Ranges in one audit record, which must fit into a request to mailwald. */
	MW_LOST_TOLD = 10000,
	MW_SETTLED_MOST = 40000
};
/* As much of l as an audit record tells: the last of too many ranges goes on to the end.
 */
int mw_lost_told(const struct mw_lost *l, struct mw_arena *a,
                 struct mw_lost *ret) MW_CHECK;

struct mw_target_rec {
	uint64_t segment, offset, seq;
};

/* In as many records as it takes. */
int mw_tomb_write(struct mw_retain_owner *o, const struct mw_tombstone *t,
                  struct mw_err *err) MW_CHECK;
/* A tombstone for n ascending sequence numbers; of whose copies (its tokens count), or
 * NULL: the records. */
int mw_tomb_for(struct mw_retain_owner *o, enum mw_tomb_why why, const uint64_t *seq,
                size_t n, const struct mw_tombstone *who, struct mw_err *err) MW_CHECK;
/* Wipes n slots, in log order. */
int mw_wipe_all(struct mw_retain_owner *o, const struct mw_target_rec *v, size_t n,
                struct mw_err *err) MW_CHECK;
/* Takes tokens out of the slots of n records, in log order. */
int mw_cut_all(struct mw_retain_owner *o, const struct mw_target_rec *v, size_t n,
               const struct mw_tombstone *t, struct mw_err *err) MW_CHECK;
/* After an erasure: dictionaries in the segments it hit that no live record needs. */
int mw_erase_dicts(struct mw_retain_owner *o, const struct mw_erase_list *e,
                   struct mw_err *err) MW_CHECK;

#endif
