/* scale.h - the parts of bench_scale: scale.c measures, scale_log.c makes the journal,
 * scale_index.c makes indexes. One journal in a program; main's thread.
 */
#ifndef MW_BENCH_SCALE_H
#define MW_BENCH_SCALE_H

#include "journal/store/store.h"

#include <stddef.h>

enum {
	ROUNDS = 5,
	PAD = 6000 /* bytes more to each message, where it is the bytes that count */
};

extern char path[260]; /* of the journal; beside it lie .key, .made and others */

void row(const char *what, double got, double limit, const char *unit);
/* A command that ends with 0, or 1: degraded. */
void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* What is in the journal; by make or known. */
extern unsigned long all_mails, people, days;
extern size_t pad; /* 0 or PAD */

/* n messages of some days, one by one, and some of a few days after. */
void make(unsigned long n);
void known(void); /* that which another process made */
struct mw_store *open_as(enum mw_store_mode mode, bool key);

/* Messages a second: a key of 16 bytes and a place of 8 for each token, sorted before. */
double sorted_append(unsigned long n);
/* An index of n entries without a log: built, asked, and looked through. */
void index_alone(unsigned long n);

#endif
