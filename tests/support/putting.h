/* putting.h - mail that a test puts into a target below a directory of its own, and what
 * the target says is there afterwards. One directory at a time; one thread.
 */
#ifndef MW_TEST_PUTTING_H
#define MW_TEST_PUTTING_H

#include "replay/target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define T INT64_C(1795342272000000)

enum {
	N = 6 /* messages */
};
extern const char *const messages[N]; /* each with CR LF, hostile to an mbox */

extern char boxes[64];              /* the directory: made and removed by these two */
int putting_setup(void **state);    /* 0, else negative */
int putting_teardown(void **state); /* 0: all of it is gone */

struct world { /* the journal's side, and what came back */
	size_t done, failed, intents;
	int fail_at; /* content of this message fails half-way; -1: none */
	char why[200];
	struct mw_mail mail;
	size_t found;
	int64_t date[2 * N];
	uint64_t key[2 * N], size[2 * N];
	struct mw_profile *profile[2 * N];
	bool any_sent;
};

/* What a put asks back; the world tells what happened. */
struct mw_put_io putting_io(struct world *w, const char *box);

/* The target so named, or the test fails in words. */
struct mw_target *target(const char *text);

/* Puts all messages into the box of alice@x, message i dated T + i * 61 s. */
void put_all(struct mw_target *t, struct world *w);

void look_into(struct mw_target *t,
               struct world *w); /* what is in her box, until forget */
void forget(struct world *w);

/* How many of what was found are message i, with its date. */
size_t count_of(const struct world *w, size_t i);

/* Is there a file below path with exactly this content? */
bool holds_file(const char *path, const char *want);

/* A file with that text, in place of whatever was there. */
void write_text(const char *path, const char *text);

#endif
