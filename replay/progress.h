/* progress.h - how far a job is, on standard error: one moving line on a terminal, a
 * plain line every ten seconds otherwise, nothing when quiet.
 */
#ifndef MW_REPLAY_PROGRESS_H
#define MW_REPLAY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct mw_progress {
	bool on, tty, shown;
	uint64_t total, done, bytes;
	int64_t start_us, last_us; /* monotonic */
	int64_t done_us;           /* when the last of those that are done was */
	const char *what;          /* the current mailbox, borrowed */
};

/* total 0: how many there are is not known. */
void mw_progress_start(struct mw_progress *p, uint64_t total, bool quiet);
void mw_progress_what(struct mw_progress *p, const char *what);
/* n more done, with so many bytes. Cheap. */
void mw_progress_add(struct mw_progress *p, uint64_t n, uint64_t bytes);
/* Takes the moving line away, before other output and at the end. */
void mw_progress_clear(struct mw_progress *p);

#endif
