#include "tests/support/fs_mem_int.h"

#include "journal/base/util.h"
#include "tests/support/dice.h"

#include <stdlib.h>
#include <string.h>

void
fs_mem_nameless(const struct fs_mem *m, void (*cb)(void *arg, const uint8_t *p, size_t n),
                void *arg)
{
	for (const struct inode *in = m->all; in; in = in->next) {
		bool named = false;
		for (size_t i = 0; i < m->n_names && !named; i++)
			named = m->names[i].seen == in;
		if (!named && in->disk.n)
			cb(arg, in->disk.p, in->disk.n);
	}
}

static uint64_t
dice(uint64_t *s)
{
	return dice_next(s) >> 33;
}

/* What the disk holds of a file after the crash. */
static struct inode *
survive(const struct inode *in, enum fs_crash how, uint64_t *seed)
{
	struct inode *out = calloc(1, sizeof *out);
	mw_assert(out);
	bool torn = how == FS_CRASH_TORN;
	bool grown =
	    how == FS_CRASH_KEEP || torn || (how == FS_CRASH_MIX && dice(seed) % 2);
	size_t dirty = 0, left;
	for (size_t i = 0; i < in->n_dirty; i++)
		dirty += in->dirty[i];
	left = torn ? dice(seed) % (dirty + 1) : 0;
	fs_mem_resize(&out->seen, in->lost || !grown ? in->disk.n : in->seen.n);
	size_t n = MW_MIN(in->disk.n, out->seen.n);
	if (n)
		memcpy(out->seen.p, in->disk.p, n);
	for (size_t i = 0; !in->lost && i < in->n_dirty; i++) {
		size_t off = i * SECTOR;
		bool keep =
		    how == FS_CRASH_KEEP || (how == FS_CRASH_MIX && dice(seed) % 2);
		if (!in->dirty[i] || !(keep || torn) || off >= out->seen.n ||
		    off >= in->seen.n)
			continue;
		size_t k = MW_MIN((size_t)SECTOR, MW_MIN(out->seen.n, in->seen.n) - off);
		if (torn && left == 0)
			break;
		if (torn && --left == 0)
			k = dice(seed) % (k + 1);
		memcpy(out->seen.p + off, in->seen.p + off, k);
	}
	fs_mem_resize(&out->disk, out->seen.n);
	if (out->seen.n)
		memcpy(out->disk.p, out->seen.p, out->seen.n);
	return out;
}

struct fs_mem *
fs_mem_crash(struct fs_mem *m, enum fs_crash how, uint64_t seed)
{
	struct fs_mem *x = fs_mem_new();
	seed = seed * 2654435761U + 12345;
	for (size_t i = 0; i < m->n_names; i++) {
		const struct name *n = &m->names[i];
		if (n->is_dir) {
			fs_mem_name(x, n->path, true)->is_dir = true;
			continue;
		}
		struct inode *in = n->disk;
		if (n->seen != n->disk &&
		    (how == FS_CRASH_KEEP || (how >= FS_CRASH_MIX && dice(&seed) % 2)))
			in = n->seen;
		if (!in)
			continue;
		struct name *to = fs_mem_name(x, n->path, true);
		to->seen = to->disk = fs_mem_keep(x, survive(in, how, &seed));
	}
	return x;
}

static uint64_t
hash(uint64_t h, const void *p, size_t n)
{
	const uint8_t *q = p;
	for (; n >= 8; n -= 8, q += 8) {
		uint64_t x;
		memcpy(&x, q, 8);
		h = (h ^ x) * 0x9E3779B97F4A7C15U;
		h ^= h >> 29;
	}
	for (; n; n--)
		h = (h ^ *q++) * 1099511628211U;
	return h;
}

uint64_t
fs_mem_hash(const struct fs_mem *m)
{
	uint64_t all = 0;
	for (size_t i = 0; i < m->n_names; i++) {
		const struct name *n = &m->names[i];
		if (!n->seen)
			continue;
		uint64_t h = hash(14695981039346656037U, n->path, strlen(n->path));
		all += hash(h, n->seen->seen.p, n->seen->seen.n);
	}
	return all;
}
