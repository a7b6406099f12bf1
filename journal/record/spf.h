/* spf.h - a verdict on a mail's sender (RFC 7208), a record of its own: FORMAT.md §6,
 * SPF.
 *
 * It holds all that went into the check and the published record, so that the verdict can
 * be worked out again. Pure functions over bytes; the laws of meta.h. Decoded strings
 * live in the caller's arena.
 */
#ifndef MW_RECORD_SPF_H
#define MW_RECORD_SPF_H

#include "journal/record/meta.h"

enum mw_spf_result {
	MW_SPF_NONE,
	MW_SPF_NEUTRAL,
	MW_SPF_PASS,
	MW_SPF_FAIL,
	MW_SPF_SOFTFAIL,
	MW_SPF_TEMPERROR,
	MW_SPF_PERMERROR
};

const char *mw_spf_result_name(enum mw_spf_result r); /* "none", "neutral", … */
bool mw_spf_result_parse(struct mw_str word, enum mw_spf_result *ret);

struct mw_spf {
	uint8_t ref[MW_ID_LEN];       /* the mail's record */
	uint64_t seq;                 /* its sequence number */
	struct mw_str ip, helo, from; /* what was checked; from empty: the HELO name */
	enum mw_spf_result result;
	uint32_t code;        /* the library's error number, 0 for none */
	struct mw_str record; /* as published; several are separated by LF */
	struct mw_str explanation;
	struct mw_str reason;  /* the library's, or why there was no check */
	struct mw_str library; /* name and version of what decided */
	int64_t time_us;       /* when it was checked */
	uint64_t took_us;
};

/* 0, MW_ENOMEM or MW_ELIMIT. */
int mw_spf_encode(const struct mw_spf *s, struct mw_buf *out) MW_CHECK;
/* MW_EFORMAT, MW_EVERSION, MW_ENOMEM. */
int mw_spf_decode(const void *p, size_t n, struct mw_arena *a, struct mw_spf *ret,
                  struct mw_err *err) MW_CHECK;

#endif
