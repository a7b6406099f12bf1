/* samples_cli.h - a journal with one mail of each awkward kind, an empty one beside it,
 * and the program run on them. Both are below a directory that the group's setup makes
 * and its teardown removes. One thread; everything fails in words.
 */
#ifndef MW_TEST_SAMPLES_CLI_H
#define MW_TEST_SAMPLES_CLI_H

#include "journal/base/buf.h"
#include "journal/record/meta.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sample {
	const char *queue_id, *sender, *rcpt[4], *auth; /* "!" before a refused one */
	enum mw_direction direction;
	const char *content;
	size_t n;
};

enum {
	N = 5
};
extern const struct sample samples[N];
extern uint8_t samples_id[N][MW_ID_LEN]; /* of their records */
extern char samples_dir[256], samples_journal[300],
    samples_empty[300]; /* the last is empty */

/* The first ends the program with 77 where mailwal was not built. */
int samples_setup(void **state);
int samples_teardown(void **state);

/* What a run of the program said, until ran_done. */
struct ran {
	int status; /* or the signal, negative */
	struct mw_buf out, err;
};
/* Runs mailwal with these words, its output to that file, or if NULL to be read. */
void run_to(struct ran *r, const char *stdout_path, const char *const *args);
#define RUN(r, ...) run_to((r), NULL, (const char *const[]){__VA_ARGS__, NULL})
void ran_done(struct ran *r);

bool ran_holds(const struct mw_buf *b, const char *text);
size_t ran_lines(const struct mw_buf *b);

/* A run that ends so and says text, unless that is NULL, on either output. */
void ran_expect(int status, const char *text, const char *const *args);
#define EXPECT(status, text, ...)                                                        \
	ran_expect((status), (text), (const char *const[]){__VA_ARGS__, NULL})

#endif
