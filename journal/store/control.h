/* control.h - how commands speak to the daemon that owns a journal.
 *
 * A unix stream socket "control.sock" in the journal directory; peers are root or the
 * daemon's own user (SO_PEERCRED). One request line, one answer, then the connection
 * ends. Anything that fails answers "error NAME TEXT".
 *
 *	status                    "ok {JSON}"
 *	head                      "ok SEQ HEX": the newest durable record, 0 if there is
 *	                          none, and its chain hash
 *	note TYPE HEX             "ok SEQ": appends a small record (CBOR as hex)
 *	roll                      "ok SEGMENT": closes the open segment
 *	wipe SEGMENT OFF:SEQ …    "ok N": wipes key slots in a closed segment
 *	unlink SEGMENT            "ok": removes its file (not that of the newest)
 *	acknowledge               "ok": what passed unjournaled is known (passed.h)
 *	expect TAG ID             "ok yes": a copy of that record comes (trail.h);
 *	                          "ok no": there is no proxy, so nobody looks for it
 *	handover                  "ok NAME …" with the listening sockets; the daemon ends
 *	import                    "ok", then the connection is a stream of intake.h
 */
#ifndef MW_STORE_CONTROL_H
#define MW_STORE_CONTROL_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

#include <sys/types.h>

/* A listening, non-blocking socket in dir (an old one is replaced: the caller holds the
 * journal's lock). Negative MW_E*. */
int mw_control_listen(const char *dir, struct mw_err *err) MW_CHECK;
/* Peer of an accepted connection; true if it may command (root, or our own uid). */
bool mw_control_allowed(int fd, uid_t *ret_uid);
/* A connection with the request sent on it; the answer is the caller's to read.
 * MW_EUNAVAIL when no daemon listens. */
int mw_control_ask(const char *dir, const char *request, int *ret_fd,
                   struct mw_err *err) MW_CHECK;
/* Sends one request and reads the answer's text (after "ok ") into reply. MW_EUNAVAIL
 * when no daemon listens; the daemon's own error otherwise. */
int mw_control_call(const char *dir, const char *request, struct mw_buf *reply,
                    struct mw_err *err) MW_CHECK;
/* What is the writer's newest durable record? *ret_next is the sequence number after it.
 * One that does not answer at once is not waited for. Negative: none runs, or we may not
 * ask it, or it does not know the question. */
int mw_control_head(const char *dir, uint64_t *ret_next, uint8_t ret_chain[32],
                    struct mw_err *err) MW_CHECK;
/* Sends one request that turns the connection into a stream, and reads the line "ok": the
 * descriptor. The daemon's own error otherwise, MW_EUNAVAIL when none listens. */
int mw_control_stream(const char *dir, const char *request, int *ret_fd,
                      struct mw_err *err) MW_CHECK;
/* The answer's first line from fd, byte by byte: 0 for "ok", or what it says instead. */
int mw_control_hello(int fd, struct mw_err *err) MW_CHECK;
/* Appends a record through the daemon, or directly (taking the lock) where none runs. */
int mw_control_note(const char *dir, int type, int64_t time_us, const void *cbor,
                    size_t n, uint64_t *ret_seq, struct mw_err *err) MW_CHECK;

#endif
