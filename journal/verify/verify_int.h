/* verify_int.h - what the files of the room share. Nobody else includes it. */
#ifndef MW_VERIFY_VERIFY_INT_H
#define MW_VERIFY_VERIFY_INT_H

#include "journal/base/buf.h"
#include "journal/index/index.h"
#include "journal/segment/segment.h"
#include "journal/verify/verify.h"

enum {
	GATHERED = 32768,
	GATHERED_TOKENS = 32 << 20 /* or so many bytes: to sort them takes twice that */
};

struct gathered { /* records that are to be looked up in the index */
	struct mw_index_entry e[GATHERED];
	size_t at[GATHERED]; /* of its tokens; e[].tokens are set at the end */
	size_t n;
	struct mw_buf tokens;
};

struct verify {
	struct mw_store *st;
	const struct mw_fs *fs;
	const char *dir;
	const struct mw_verify_opts *o;
	struct mw_verify_result *res;
	struct mw_err *err;
	struct mw_index *index;
	struct mw_index_point point; /* of the partition of point_for */
	uint64_t point_for;
	bool have_point;
	struct gathered *gathered;
	uint64_t expect; /* next sequence number, 0: any */
	uint8_t chain[MW_HASH_LEN];
	bool chain_known;
	uint64_t prev_number;
	uint64_t all_bytes;
	uint64_t dice;
	uint64_t dict_seg; /* a dictionary that is there: its segment and place */
	uint32_t dict_good;
	struct mw_gone *gone; /* what tombstones and audits say; NULL: nothing known */
};

void mw_verify_found(struct verify *v, struct mw_finding f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* MW_ENOMEM, said so. */
int mw_verify_no_memory(struct verify *v) MW_CHECK;
/* The record in the frame at off, whose checksums hold. */
int mw_verify_record(struct verify *v, struct mw_seg *s, uint64_t off) MW_CHECK;

/* Looks up in the index what was gathered for it. */
int mw_verify_index_flush(struct verify *v) MW_CHECK;

#endif
