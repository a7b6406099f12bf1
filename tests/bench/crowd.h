/* crowd.h - sessions that bring one message after the other, as mailwald's own engine has
 * them: a thread for each processor serves its share, makes the records of those that may
 * go on, and is woken once for all the answers that came meanwhile.
 *
 * Threads: crowd_run starts its own and has ended them when it returns; `hand` is called
 * in them, crowd_done by whoever answers, in any thread. Nothing is kept.
 */
#ifndef MW_BENCH_CROWD_H
#define MW_BENCH_CROWD_H

#include <stddef.h>

struct crowd_turn;

struct crowd {
	unsigned sessions, messages; /* all of them together */
	unsigned threads;            /* 0: one for each processor, at most 4 */
	void *arg;
	/* Makes the record of message k and hands it over; what it returns is dropped
	 * when crowd_done was called for the turn, once. */
	void *(*hand)(void *arg, unsigned k, struct crowd_turn *t);
	void (*drop)(void *record);
	void (*none)(void *arg); /* a session has no message any more; NULL ok */
};

/* The message of that turn is durable. */
void crowd_done(struct crowd_turn *t);

/* Seconds from the first message to the last answer; v gets those of each message, from
 * when its session was told that the one before was durable. */
double crowd_run(const struct crowd *c, double *v);

#endif
