/* shell.h - what tests on journals in files begin with. No state; any thread. */
#ifndef MW_TEST_SHELL_H
#define MW_TEST_SHELL_H

#include "journal/store/store.h"

/* Runs that command; the test fails, and shows it, unless it ends with 0. */
void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Runs that command: its exit status, -1 for a signal, and what it printed, cut to room.
 */
int shell_out(char *out, size_t room, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A new journal, "j" in a directory of its own that bears the test's name; the path of
 * the journal, by which both are removed. */
void journal_make(char *path, size_t room, const char *test);
void journal_remove(const char *path);

/* The store opened so; the test fails in words. */
struct mw_store *opened(const struct mw_store_opts *o);

/* A mail of n bytes, described by what m says and the content, appended and durable; its
 * ID is put where ret_id points, if anywhere. The test fails in words. */
struct mw_commit journaled(struct mw_store *st, struct mw_mail *m, const void *content,
                           size_t n, uint8_t *ret_id);

#endif
