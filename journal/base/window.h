/* window.h - reading in large pieces: a file system in front of another one.
 *
 * Small reads are answered out of a stretch of a file that is in memory already: one that
 * the caller has read (mw_window_show), or one that the window itself read ahead. What a
 * file held when the stretch was read is what is seen until mw_window_forget; a read that
 * reaches past the stretch goes to the file. A path that is opened for reading twice is
 * one descriptor. Everything but reading passes through. One thread; closed last.
 */
#ifndef MW_BASE_WINDOW_H
#define MW_BASE_WINDOW_H

#include "journal/base/fs.h"

struct mw_window;

/* bytes: of a stretch, some pages at least. NULL: out of memory. */
struct mw_window *mw_window_new(const struct mw_fs *below, size_t bytes);
void mw_window_free(struct mw_window *w); /* NULL ok; its files are closed before */
/* What to read through; it lives as long as w. */
const struct mw_fs *mw_window_fs(const struct mw_window *w);
/* n bytes at p, which stay with the caller, stand at off in the file fd of this window.
 */
void mw_window_show(struct mw_window *w, int fd, uint64_t off, const void *p, size_t n);
/* The next read is from the file. */
void mw_window_forget(struct mw_window *w);

static inline void
mw_window_autofree_(struct mw_window **w)
{
	mw_window_free(*w);
}
#define MW_WINDOW_AUTO __attribute__((cleanup(mw_window_autofree_))) struct mw_window

#endif
