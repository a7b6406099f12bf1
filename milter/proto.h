/* proto.h - the milter protocol (version 6, and older) over plain bytes; no socket here.
 *
 * Bytes from the MTA go in, bytes for the MTA collect in `out`, the session does the
 * work. Life: mw_proto_init → mw_proto_input* → mw_proto_done. When an end of message was
 * handed to the store, `pending` is set and input must wait: the done callback (any
 * thread) tells the owner, who calls mw_proto_resume in its own thread.
 *
 * Threads: one at a time. Memory: one packet of at most MW_PACKET_MAX; nothing when idle.
 * A peer that breaks the protocol gets MW_EPROTO: send what is in out, then close.
 */
#ifndef MW_MILTER_PROTO_H
#define MW_MILTER_PROTO_H

#include "journal/base/buf.h"
#include "milter/session.h"

enum {
	MW_PACKET_MAX = 2 << 20,
	/* While a commit is slow, how often the MTA hears that we are still at it. A
	 * Sendmail filter without T= waits 10 s for each word. */
	MW_PROGRESS_S = 3
};

struct mw_proto {
	struct mw_capture *cap;
	struct mw_session *session; /* from negotiation on */
	struct mw_buf in, out;
	uint32_t steps; /* as negotiated */
	bool pending;   /* an end of message waits for the store */
	bool closing;   /* the MTA said QUIT: send out, then close */
	bool served;    /* an end of message was answered */
	void (*done)(void *arg);
	void *done_arg;
};

void mw_proto_init(struct mw_proto *p, struct mw_capture *cap, void (*done)(void *arg),
                   void *done_arg);
/* Nothing may be pending. */
void mw_proto_done(struct mw_proto *p);
/* Takes n bytes, cut anywhere. 0, MW_EPROTO, MW_ENOMEM. */
int mw_proto_input(struct mw_proto *p, const void *bytes, size_t n,
                   struct mw_err *err) MW_CHECK;
/* After the callback: answers, then goes on with what had come meanwhile. */
int mw_proto_resume(struct mw_proto *p, struct mw_err *err) MW_CHECK;
/* Tells a waiting MTA that we are still at it. */
void mw_proto_progress(struct mw_proto *p);

#endif
