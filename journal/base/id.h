/* id.h - 128-bit random record and journal IDs, shown in Crockford's base32. */
#ifndef MW_BASE_ID_H
#define MW_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MW_ID_LEN = 16,
	MW_ID_TEXT = 26,  /* characters of the whole ID, lower case */
	MW_ID_SHORT = 11, /* characters shown in tables; any unique prefix is accepted */
	MW_ID_MIN = 4     /* shortest accepted prefix */
};

/* Fills p from getrandom(2); aborts if the kernel has none. */
void mw_random(void *p, size_t n);
void mw_id_new(uint8_t id[MW_ID_LEN]);
/* out has room for MW_ID_TEXT + 1. */
void mw_id_text(char *out, const uint8_t id[MW_ID_LEN]);
/* A whole ID or a prefix of it. On true, the ID's first *ret_bits bits are set in
 * ret_id (rest zero). I, L read as 1, O as 0; case does not matter. */
bool mw_id_parse(const char *text, uint8_t ret_id[MW_ID_LEN], unsigned *ret_bits);
bool mw_id_match(const uint8_t id[MW_ID_LEN], const uint8_t prefix[MW_ID_LEN],
                 unsigned bits);

#endif
