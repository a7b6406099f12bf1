/* mime_walk.h - a message cut into its parts as it streams by: texts, file names.
 *
 * Life: new → put… → end, for any number of messages → free. Memory does not grow with
 * the message, its parts, fields or depth: one line (longer ones come in pieces), three
 * fields of MW_MIME_FIELD bytes, MW_WALK_DEPTH boundaries; what is nested deeper is read
 * as text. Time is linear. One thread.
 */
#ifndef MW_REPLAY_MIME_WALK_H
#define MW_REPLAY_MIME_WALK_H

#include "replay/mime.h"

enum {
	MW_WALK_DEPTH = 32,
	MW_WALK_LINE = 4096
};

struct mw_walk_on { /* called during put and end */
	/* Text of a part, decoded, valid UTF-8 ending between characters; of HTML what a
	 * reader sees. */
	void (*text)(void *arg, struct mw_str utf8);
	/* The text so far and what comes next do not belong together. */
	void (*pause)(void *arg);
	/* File names of a part; two different ones are parted by LF. */
	void (*name)(void *arg, struct mw_str utf8);
	void *arg;
};

struct mw_walk;
struct mw_walk *mw_walk_new(const struct mw_walk_on *on); /* NULL: out of memory */
void mw_walk_free(struct mw_walk *w);                     /* NULL ok */
void mw_walk_put(struct mw_walk *w, const void *p, size_t n);
/* The message is whole; ready for the next one. */
void mw_walk_end(struct mw_walk *w);

#endif
