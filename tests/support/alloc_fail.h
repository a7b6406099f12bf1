/* alloc_fail.h - makes the n-th allocation of a program fail.
 *
 * For exactly one file of a program: it defines malloc, calloc, realloc and their kin, so
 * that libraries are hit as well. Built with MW_ALLOC_WRAP (sanitizers bring their own
 * malloc) only what the program itself calls is hit, through the linker's --wrap.
 * Counting is over all threads. In Debian's libc strdup, asprintf, fopen and opendir get
 * their memory from here too.
 */
#ifndef MW_TEST_ALLOC_FAIL_H
#define MW_TEST_ALLOC_FAIL_H

#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_uint_fast64_t alloc_calls; /* since alloc_fail_at */
static atomic_uint_fast64_t alloc_from;  /* 0: none fails */
static atomic_uint_fast64_t alloc_to;
static atomic_uint_fast64_t alloc_failed;

/* Allocations number n to n + times - 1 from now on fail; n 0: none, only counted. */
static inline void
alloc_fail_at(uint64_t n, uint64_t times)
{
	atomic_store(&alloc_calls, 0);
	atomic_store(&alloc_failed, 0);
	atomic_store(&alloc_to, n + times);
	atomic_store(&alloc_from, n);
}

/* No more failures; how many there were. */
static inline uint64_t
alloc_fail_off(void)
{
	atomic_store(&alloc_from, 0);
	return atomic_load(&alloc_failed);
}

static inline bool
alloc_fails(void)
{
	uint64_t from = atomic_load(&alloc_from);
	uint64_t n = atomic_fetch_add(&alloc_calls, 1) + 1;
	if (!from || n < from || n >= atomic_load(&alloc_to))
		return false;
	atomic_fetch_add(&alloc_failed, 1);
	if (getenv("MW_ALLOC_TRACE")) { /* where: for whoever hunts what the test found */
		void *at[24];
		backtrace_symbols_fd(at, backtrace(at, 24), STDERR_FILENO);
	}
	errno = ENOMEM;
	return true;
}

#ifdef MW_ALLOC_WRAP
#define MW_ALLOC(f) __wrap_##f
#define MW_REAL(f)  __real_##f
char *__real_strdup(const char *z);
char *__real_strndup(const char *z, size_t n);
char *__wrap_strdup(const char *z);
char *__wrap_strndup(const char *z, size_t n);

char *
__wrap_strdup(const char *z)
{
	return alloc_fails() ? NULL : __real_strdup(z);
}

char *
__wrap_strndup(const char *z, size_t n)
{
	return alloc_fails() ? NULL : __real_strndup(z, n);
}
#else
#define MW_ALLOC(f) f
#define MW_REAL(f)  __libc_##f
#endif

void *MW_REAL(malloc)(size_t n);
void *MW_REAL(calloc)(size_t k, size_t n);
void *MW_REAL(realloc)(void *p, size_t n);
#ifdef MW_ALLOC_WRAP
void *MW_ALLOC(malloc)(size_t n);
void *MW_ALLOC(calloc)(size_t k, size_t n);
void *MW_ALLOC(realloc)(void *p, size_t n);
void *MW_ALLOC(reallocarray)(void *p, size_t k, size_t n);
#endif

void *
MW_ALLOC(malloc)(size_t n)
{
	return alloc_fails() ? NULL : MW_REAL(malloc)(n);
}

void *
MW_ALLOC(calloc)(size_t k, size_t n)
{
	return alloc_fails() ? NULL : MW_REAL(calloc)(k, n);
}

void *
MW_ALLOC(realloc)(void *p, size_t n)
{
	return alloc_fails() ? NULL : MW_REAL(realloc)(p, n);
}

void *
MW_ALLOC(reallocarray)(void *p, size_t k, size_t n)
{
	size_t all;
	if (__builtin_mul_overflow(k, n, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return MW_ALLOC(realloc)(p, all);
}

#endif
