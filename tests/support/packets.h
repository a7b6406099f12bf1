/* packets.h - what an MTA sends to a milter, as bytes (milter/proto.h has the sources).
 */
#ifndef MW_TEST_PACKETS_H
#define MW_TEST_PACKETS_H

#include "journal/base/buf.h"

/* Offered by the MTA: all but "no reply to MAIL", so that a test sees its answer. */
enum {
	ALL_STEPS = 0x1fbfff,
	ALL_ACTIONS = 0x1ff
};

void packet(struct mw_buf *b, char cmd, const char *data, size_t n);
#define P(cmd, lit) packet(&b, cmd, lit, sizeof(lit) - 1) /* to a struct mw_buf b */

void be32(struct mw_buf *b, uint32_t v);
void negotiate(struct mw_buf *b, uint32_t version, uint32_t actions, uint32_t steps);

/* A whole small message of `sender` with its arguments, each with its NUL. */
void message(struct mw_buf *out, const char *sender, size_t n_sender);

#endif
