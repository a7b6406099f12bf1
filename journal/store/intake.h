/* intake.h - messages streamed into a journal by another process: `mailwal import`.
 *
 * The connection is one that a request "import" on the control socket turned into a
 * stream (control.h), or a socket pair with a child that holds the journal's lock. After
 * the line "ok" the client sends frames of one kind byte, a length (4 bytes, little
 * endian) and that many bytes:
 *	B  a piece of a message's content, CRLF line ends, at most MW_INTAKE_PIECE
 *	M  its metadata as CBOR (record/meta.h): the message is whole
 *	X  (empty) forget the message begun
 *	Q  (empty) that is all
 * Each M is answered in order, when the record is durable, by "ok SEQ" or "error NAME
 * TEXT". At most MW_INTAKE_AHEAD messages are unanswered: these share syncs. When the
 * connection ends without Q, the message begun is forgotten; those that came whole stay.
 *
 * Server: size, digests and the header's fields are computed here, and the record is
 * marked as imported, whatever the client says. Memory: AHEAD entries, each spilled
 * (sealed) beyond the store's limit.
 */
#ifndef MW_STORE_INTAKE_H
#define MW_STORE_INTAKE_H

#include "journal/store/store.h"

enum {
	MW_INTAKE_PIECE = 256 * 1024,
	MW_INTAKE_META = 1024 * 1024,
	MW_INTAKE_AHEAD = 64,
	MW_INTAKE_IDLE_S = 900 /* a client that is silent for so long is gone */
};

struct mw_intake_opts {
	uint64_t max_content; /* bytes of one message; 0: no limit */
	int64_t now_us;       /* no message is younger */
};

struct mw_intake_done {
	uint64_t taken, refused;
};

/* Serves one connection to its end; the descriptor stays open. ret is set in any case. */
void mw_intake_serve(struct mw_store *st, int fd, const struct mw_intake_opts *o,
                     struct mw_intake_done *ret);

/* ---- client; one thread ---- */

struct mw_intake;

/* Called for each message in order: code 0, or why the journal did not take it. */
typedef void mw_intake_answer(void *arg, void *ref, int code, const char *why);

/* Takes fd over (on success only). */
int mw_intake_new(int fd, mw_intake_answer *cb, void *arg, struct mw_intake **ret,
                  struct mw_err *err) MW_CHECK;
int mw_intake_body(struct mw_intake *c, const void *p, size_t n,
                   struct mw_err *err) MW_CHECK;
/* Ends the message; ref is for its answer, which may come within a later call.
 * MW_EUNAVAIL when the other side is gone: the fate of what is unanswered is not known.
 */
int mw_intake_commit(struct mw_intake *c, const struct mw_mail *m, void *ref,
                     struct mw_err *err) MW_CHECK;
int mw_intake_abort(struct mw_intake *c, struct mw_err *err) MW_CHECK;
/* All answers so far; the connection stays. */
int mw_intake_flush(struct mw_intake *c, struct mw_err *err) MW_CHECK;
/* Says good-bye where that is possible, and closes. NULL ok. */
void mw_intake_free(struct mw_intake *c);

#endif
