/* conffile.h - configuration files in a directory of the test's own, which its group's
 * setup makes the current one, and its teardown removes. One in a program.
 */
#ifndef MW_TEST_CONFFILE_H
#define MW_TEST_CONFFILE_H

#include "conf/conf.h"

int in_directory(void **state);
int remove_directory(void **state);

/* A file of that name holds just that. */
void put_bytes(const char *name, const char *text, size_t n);
void put(const char *name, const char *text);

/* Loads text as c.conf; the printed settings that differ, for free(), or NULL. */
char *load(const char *text, size_t n, struct mw_buf *report, struct mw_err *err,
           int *ret_r);

#endif
