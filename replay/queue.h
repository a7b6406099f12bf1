/* queue.h - what the MTA has in its queue, read by a command of its own.
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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mw_queue;

/* command: "none": *ret is NULL; "auto": postqueue -j where Postfix is set up on this
 * host, mailq where Sendmail is, else *ret is NULL; anything else: a program and its
 * arguments, parted by blanks, run without a shell. MW_EUSAGE, MW_ENOMEM. */
int mw_queue_new(const char *command, struct mw_queue **ret, struct mw_err *err) MW_CHECK;
void mw_queue_free(struct mw_queue *q); /* NULL ok */
const char *mw_queue_command(const struct mw_queue *q);
/* Was the command said? Then what it does not list is in no queue; of one that was found
 * ("auto") nobody has said that it is the MTA of this journal. */
bool mw_queue_is_said(const struct mw_queue *q);

/* Runs the command. Only messages whose ID (mw_hash64) is known are kept. add: what
 * earlier reads found stays. MW_EUNAVAIL, MW_ETIMEOUT: the command cannot be run, fails
 * or does not end; MW_EFORMAT: that is no queue; MW_ECANCEL after a stop. After a failure
 * the listing is empty. */
int mw_queue_read(struct mw_queue *q, bool add, bool (*known)(void *arg, uint64_t id),
                  void *arg, struct mw_err *err) MW_CHECK;
/* Runs the command, and hands what it prints to cb as it comes: for mw_queue_learn,
 * later. As mw_queue_read, without MW_EFORMAT. */
int mw_queue_print(const struct mw_queue *q,
                   int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err),
                   void *arg, struct mw_err *err) MW_CHECK;
/* The listing as bytes, cut anywhere, in place of a command's output; n 0 ends it. 0,
 * MW_EFORMAT, MW_ENOMEM. */
int mw_queue_learn(struct mw_queue *q, const void *p, size_t n,
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
