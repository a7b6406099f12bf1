/* pool.h - a few threads for work that may wait on a network.
 *
 * Threads start with the first job. mw_pool_free runs what is queued, then ends them.
 * A job's memory is the caller's and must stay until its function was called.
 */
#ifndef MW_MILTER_POOL_H
#define MW_MILTER_POOL_H

#include <stdbool.h>

struct mw_pool;

struct mw_job {
	struct mw_job *next;
	void (*fn)(void *arg);
	void *arg;
};

struct mw_pool *mw_pool_new(unsigned threads); /* NULL: out of memory */
void mw_pool_free(struct mw_pool *p);          /* NULL ok */
/* The same, but waits no longer than that for jobs that hang. False: some do, and go on
 * until the process ends: what they look at must stay as it is. */
bool mw_pool_end(struct mw_pool *p, unsigned seconds);
/* False when no thread can be had: the function is not called. */
bool mw_pool_run(struct mw_pool *p, struct mw_job *job);

#endif
