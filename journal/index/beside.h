/* beside.h - the files of an index: its maps, the note of a writer, the locks.
 *
 * dir is that of the index. No state; threads: as many as like. For index.c alone.
 */
#ifndef MW_INDEX_BESIDE_H
#define MW_INDEX_BESIDE_H

#include "journal/base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* Maps are not synced at each commit. A killed process loses nothing by that; a machine
 * that stopped may leave pages of different ages, which nobody would notice. So the
 * writer leaves a note with the boot it runs in, and a later boot throws such an index
 * away. */
int mw_beside_dir(const char *dir,
                  struct mw_err *err) MW_CHECK; /* makes it, if need be */
bool mw_beside_stale(const char *dir);          /* there is one, of another boot */
bool mw_beside_marked(const char *dir);
int mw_beside_mark(const char *dir, struct mw_err *err) MW_CHECK;
void mw_beside_clean(const char *dir);

/* Held while a process writes: *ret is a descriptor; closing it lets go. MW_ELOCKED: it
 * is another's, whose number is told. */
int mw_beside_lock(const char *dir, int *ret, struct mw_err *err) MW_CHECK;

enum {
	MW_BESIDE_MS = 5000 /* for others, in which they get through whatever they do */
};

/* A map is two files, its pages and LMDB's locks, which must belong together: so a pair
 * is made by one process alone, and removed while none is made. Open one while this
 * descriptor is held, alone if it may have to be made, and close it at once; -1: there is
 * no directory yet. MW_ELOCKED: somebody keeps us from it for longer than most_ms, since
 * he was stopped (SIGSTOP, a debugger). */
int mw_beside_files(const char *dir, bool alone, int most_ms, int *ret,
                    struct mw_err *err) MW_CHECK;
void mw_beside_path(const char *dir, uint64_t number, char out[PATH_MAX]);
/* MW_ELOCKED, as above: it is there still. */
int mw_beside_unlink(const char *dir, uint64_t number, struct mw_err *err) MW_CHECK;
/* A descriptor of its pages, with which they go on; -1: there are none, or it failed. */
int mw_beside_keep(const char *dir, uint64_t number) MW_CHECK;
/* One that is being made, by one process alone and without LMDB's locks; nobody else
 * looks at it until it has its name. mw_beside_unlink removes that, too. */
void mw_beside_new_path(const char *dir, uint64_t number, char out[PATH_MAX]);
void mw_beside_unlink_new(const char *dir, uint64_t number);
/* 0, MW_EIO, or MW_ELOCKED as above. */
int mw_beside_take(const char *dir, uint64_t number) MW_CHECK;
int mw_beside_wipe(const char *dir, struct mw_err *err) MW_CHECK; /* all of them */

#endif
