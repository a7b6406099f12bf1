/* mail_log.h - the journal of the engine's bench, and mail that is appended to it: real
 * mail where a directory of it is given, else a made-up text.
 *
 * One journal in a program. append and sessions are for the main thread; sessions starts
 * threads as crowd.h says.
 */
#ifndef MW_BENCH_MAIL_LOG_H
#define MW_BENCH_MAIL_LOG_H

#include "journal/store/store.h"
#include "tests/bench/floor.h"

#include <stdatomic.h>

extern char dir[200], path[260]; /* of the bench; the journal, in it */

extern struct floor_mail *mails; /* what is appended, one after the other */
extern size_t n_mails;
/* Mail of about so many bytes: files of a quarter less to a quarter more. */
void choose(const char *from, size_t bytes);

void make_keys(void);
void fresh(void); /* a new journal */
struct mw_store *open_as(enum mw_store_mode mode, bool index);
extern atomic_bool learned; /* the writer has a dictionary */

void append(struct mw_store *st, unsigned k); /* one message, alone */

/* threads: 0, as mailwald has them. Seconds that it took; v as crowd_run. */
double sessions(struct mw_store *st, unsigned n, unsigned threads, unsigned messages,
                double *v);

#endif
