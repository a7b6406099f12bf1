/* fs_mem_int.h - the inside of fs_mem: fs_mem.c is what runs and fails, fs_mem_crash.c
 * what the next boot finds. Whoever looks at names or inodes holds mu, or is the only one
 * left.
 */
#ifndef MW_TEST_FS_MEM_INT_H
#define MW_TEST_FS_MEM_INT_H

#include "tests/support/fs_mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SECTOR = 512,
	FILES = 4096,
	FDS = 256
};

struct image {
	uint8_t *p;
	size_t n, cap;
};

struct inode {
	struct image seen, disk;
	uint8_t *dirty; /* one byte a sector of seen: written since the last sync */
	size_t n_dirty;
	bool lost;          /* a sync failed: nothing of it reaches the disk any more */
	struct inode *next; /* of all inodes */
};

struct name {
	char *path;
	struct inode *seen, *disk; /* NULL: no such entry */
	bool is_dir, dir_on_disk;
};

struct plan {
	enum fs_op op;
	uint64_t from, to;
	int err;
};

struct fs_mem {
	struct mw_fs fs;
	pthread_mutex_t mu;
	struct name names[FILES];
	size_t n_names;
	struct inode *all; /* unlinked and lost ones too; freed with the whole */
	struct inode *fds[FDS];
	bool fd_used[FDS];
	bool fd_dead[FDS]; /* a call on it failed: who writes or syncs it again sins */
	uint64_t calls[FS_OTHER + 1];
	struct plan plan;
	uint64_t stop_at;
	bool stopped;
	uint64_t sins;
	int64_t space;
};

/* The entry of that path; if there is none it is made, or NULL. */
struct name *fs_mem_name(struct fs_mem *m, const char *path, bool make);

/* An image of n bytes: cut, or zeros behind what it has. */
void fs_mem_resize(struct image *im, size_t n);

/* The inode is freed with the whole. */
struct inode *fs_mem_keep(struct fs_mem *m, struct inode *in);

#endif
