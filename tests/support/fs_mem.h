/* fs_mem.h - a file system in memory that can fail and crash (the table of base/fs.h).
 *
 * Every file has two images: what a reader sees now, and what the disk has. A sync moves
 * the one to the other. A crash builds the disk's image from it: of each 512-byte sector
 * written since the last sync either the old or the new, by a seed; of each directory
 * entry changed since the last directory sync either the old or the new. A failed sync
 * leaves the written bytes visible and never lets them reach the disk, as Linux does;
 * opened with MW_OPEN_NOCACHE a file then shows what the disk has.
 * Thread-safe.
 */
#ifndef MW_TEST_FS_MEM_H
#define MW_TEST_FS_MEM_H

#include "journal/base/fs.h"

struct fs_mem;

enum fs_crash {
	FS_CRASH_DROP,
	FS_CRASH_KEEP,
	FS_CRASH_MIX,
	FS_CRASH_TORN /* of each file the sectors up to a point, which may lie within one
	               */
};

enum fs_op { /* for counting and failing by kind; FS_ANY counts all */
	FS_ANY,
	FS_WRITE,
	FS_SYNC,
	FS_SYNC_DIR,
	FS_OPEN,
	FS_READ,
	FS_OTHER
};

struct fs_mem *fs_mem_new(void);
void fs_mem_free(struct fs_mem *m);
const struct mw_fs *fs_mem_fs(struct fs_mem *m);

/* From the n-th call of that kind on (1: the next): fails with errno `e`; `times` calls
 * long, 0: for ever. A failing write leaves half of what it was given. */
void fs_mem_fail(struct fs_mem *m, enum fs_op op, uint64_t n, int e, uint64_t times);
/* At the n-th call of any kind the machine stops: that call and all later ones fail, and
 * nothing more reaches the disk. */
void fs_mem_stop_at(struct fs_mem *m, uint64_t n);
/* It was only the process that stopped there: what it wrote is visible to the next one,
 * synced or not. Failures that were planned are over. */
void fs_mem_revive(struct fs_mem *m);
uint64_t fs_mem_calls(const struct fs_mem *m, enum fs_op op);
/* Syncs asked of a descriptor after one on it had failed (must stay 0). */
uint64_t fs_mem_sins(const struct fs_mem *m);
/* What the next boot finds. The old one may be freed, or asked again. */
struct fs_mem *fs_mem_crash(struct fs_mem *m, enum fs_crash how, uint64_t seed);
/* A hash of all names and bytes that are visible: equal for equal states. */
uint64_t fs_mem_hash(const struct fs_mem *m);
void fs_mem_free_space(struct fs_mem *m, int64_t bytes);
/* What stands on the disk where files without a name were. */
void fs_mem_nameless(const struct fs_mem *m,
                     void (*cb)(void *arg, const uint8_t *p, size_t n), void *arg);
/* Direct access to a file's bytes, visible and on disk (tests that damage). */
uint8_t *fs_mem_bytes(struct fs_mem *m, const char *path, size_t *ret_n);

#endif
