/* queue.h - what the MTA has in its queue, read by a command of its own; of several MTAs,
 * by one command each.
 *
 * Life: mw_queue_new → mw_queue_read, again and again → mw_queue_lists → mw_queue_free.
 * A read takes the place of the listing before it, unless they are asked to add up. One
 * thread reads; between reads any thread may ask.
 *
 * Understood are the JSON lines of Postfix (postqueue -j) and the text of mailq, as
 * Postfix and Sendmail print it. The output is taken as it comes: memory is that of one
 * message's entry and of what is kept. What a stranger may put into it (addresses, the
 * words of other servers) is data here; nothing of it is ever run or printed.
 */
#ifndef MW_REPLAY_QUEUE_H
#define MW_REPLAY_QUEUE_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mw_queue;

struct mw_queue_from {
	/* "none"; "auto": postqueue -j where Postfix is set up on this host, mailq where
	 * Sendmail is, else none; anything else: a program and its arguments, parted by
	 * blanks, run without a shell. */
	const char *command;
	const char *file; /* whose queue_command it is, for errors; NULL: of --queue */
};

/* What is said several times is asked once. *ret is NULL where all are none. Copies what
 * it needs. MW_EUSAGE, MW_ENOMEM. */
int mw_queue_new(const struct mw_queue_from *v, size_t n, struct mw_queue **ret,
                 struct mw_err *err) MW_CHECK;
void mw_queue_free(struct mw_queue *q); /* NULL ok */
/* How many commands are asked; they are counted from 0. */
size_t mw_queue_commands(const struct mw_queue *q);
/* Was each of them said, and none left out? Then what they do not list is in no queue; of
 * one that was found ("auto") nobody has said that it is the MTA of this journal. */
bool mw_queue_is_said(const struct mw_queue *q);
/* After a failure: leaves out the command that failed, if it was found, and returns true.
 * False: it was said, or there was none. */
bool mw_queue_leave_out(struct mw_queue *q);

/* Runs the commands, one by one. Only messages whose ID (mw_hash64) is known are kept.
 * add: what earlier reads found stays. MW_EUNAVAIL, MW_ETIMEOUT: a command cannot be run,
 * fails or does not end; MW_EFORMAT: that is no queue; MW_ECANCEL after a stop. After a
 * failure the listing is empty. */
int mw_queue_read(struct mw_queue *q, bool add, bool (*known)(void *arg, uint64_t id),
                  void *arg, struct mw_err *err) MW_CHECK;
/* Runs command k, and hands what it prints to cb as it comes: for mw_queue_learn, later.
 * As mw_queue_read, without MW_EFORMAT. stop: as mw_output_of has it. */
int mw_queue_print(struct mw_queue *q, size_t k, const atomic_bool *stop,
                   int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err),
                   void *arg, struct mw_err *err) MW_CHECK;
/* The listing as bytes, cut anywhere, in place of command k's output; n 0 ends it. 0,
 * MW_EFORMAT, MW_ENOMEM. */
int mw_queue_learn(struct mw_queue *q, size_t k, const void *p, size_t n,
                   bool (*known)(void *arg, uint64_t id), void *arg,
                   struct mw_err *err) MW_CHECK;

/* Is a message of that ID, captured at time_us, in the queue for a recipient of whom is
 * says yes? One that arrived at another time is another message: short queue IDs come
 * round again. cut: only the beginning of the recipient is known. */
bool mw_queue_lists(const struct mw_queue *q, uint64_t id, int64_t time_us,
                    bool (*is)(void *arg, struct mw_str rcpt, bool cut), void *arg);
/* Is it there for anybody? */
bool mw_queue_has(const struct mw_queue *q, uint64_t id, int64_t time_us);
size_t mw_queue_size(const struct mw_queue *q); /* messages kept */

#endif
