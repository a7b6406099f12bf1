/* engine.h - the native front end: epoll, a few threads, proto.h behind each connection.
 *
 * Life: mw_engine_start → … → mw_engine_stop. Threads: each engine thread has its own
 * epoll and owns the connections it accepted; listening sockets are shared. Answers of
 * the store come back through an eventfd. The listeners are borrowed.
 */
#ifndef MW_MILTER_ENGINE_H
#define MW_MILTER_ENGINE_H

#include "milter/capture.h"
#include "milter/listen.h"

struct mw_engine;

int mw_engine_start(struct mw_capture *cap, const struct mw_listeners *l,
                    struct mw_engine **ret, struct mw_err *err) MW_CHECK;
/* Stops accepting, answers what is at end of message, closes the rest, at most about 9 s;
 * then frees. drain: others accept in our place; connections that have brought no message
 * yet, and those in one, get 3 s for it. */
void mw_engine_stop(struct mw_engine *e, bool drain);

#endif
