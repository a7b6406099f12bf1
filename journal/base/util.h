/* util.h - ownership by scope: MW_AUTO(fn) frees a local, MW_TAKE(p) hands it on. */
#ifndef MW_BASE_UTIL_H
#define MW_BASE_UTIL_H

#include <stdlib.h>
#include <unistd.h>

#define MW_AUTO(fn) __attribute__((cleanup(fn)))
#define MW_TAKE(p)                                                                       \
	__extension__({                                                                  \
		__typeof__(p) mw_taken_ = (p);                                           \
		(p) = NULL;                                                              \
		mw_taken_;                                                               \
	})
#define MW_TAKE_FD(fd)                                                                   \
	__extension__({                                                                  \
		int mw_taken_ = (fd);                                                    \
		(fd) = -1;                                                               \
		mw_taken_;                                                               \
	})
#define MW_COUNT(a)  (sizeof(a) / sizeof((a)[0]))
#define MW_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MW_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Defines a cleanup helper: `name` calls fn on a pointer variable. */
#define MW_DEFINE_CLEANUP(type, name, fn)                                                \
	static inline void name(type **p)                                                \
	{                                                                                \
		if (*p)                                                                  \
			fn(*p);                                                          \
	}

static inline void
mw_autofree_(void *p)
{
	free(*(void **)p);
}
#define MW_AUTOFREE MW_AUTO(mw_autofree_)

static inline void
mw_autoclose_(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}
#define MW_AUTOCLOSE MW_AUTO(mw_autoclose_)

#endif
