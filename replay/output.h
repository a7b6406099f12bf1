/* output.h - what another program prints, as it prints it.
 *
 * No shell; nothing on its standard input; one thread for the length of the call.
 */
#ifndef MW_REPLAY_OUTPUT_H
#define MW_REPLAY_OUTPUT_H

#include "journal/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	MW_OUTPUT_S = 120,      /* in which it must end */
	MW_OUTPUT_SILENT_S = 30 /* and no longer without a word */
};

/* Runs argv, which may be silent for silent_ms at a time, and hands over its standard
 * output in pieces, until cb fails (that code is returned, and the program ended) or it
 * ends. MW_EUNAVAIL: it cannot be started, or ends with a status other than 0 (with the
 * first words of its standard error); MW_ETIMEOUT; MW_ECANCEL once mw_cli_stopped(), or
 * another thread has set stop (NULL ok). */
int mw_output_of(char *const argv[], int silent_ms, const atomic_bool *stop,
                 int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err),
                 void *arg, struct mw_err *err) MW_CHECK;

#endif
