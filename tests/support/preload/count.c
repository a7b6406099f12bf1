/* count.c - counts what a program has allocated and not freed, for LD_PRELOAD.
 *
 * MW_COUNT=FILE     FILE.<pid> holds the number of blocks and of bytes as two 64-bit
 *                   numbers, kept up to date; a child that executes nothing counts along
 * MW_COUNT_LEAK=1   each accepted connection leaks one byte, to show that it is seen
 *
 * Threads may call everything at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);

struct count {
	atomic_int_fast64_t blocks, bytes;
};

static struct count early;
static struct count *now = &early;
static int leak;

static void *
plus(void *p)
{
	if (p) {
		atomic_fetch_add(&now->blocks, 1);
		atomic_fetch_add(&now->bytes, (int64_t)malloc_usable_size(p));
	}
	return p;
}

static void
minus(void *p)
{
	if (p) {
		atomic_fetch_sub(&now->blocks, 1);
		atomic_fetch_sub(&now->bytes, (int64_t)malloc_usable_size(p));
	}
}

void *
malloc(size_t n)
{
	return plus(__libc_malloc(n));
}

void *
calloc(size_t n, size_t size)
{
	return plus(__libc_calloc(n, size));
}

void
free(void *p)
{
	int saved = errno;
	minus(p);
	__libc_free(p);
	errno = saved;
}

void *
realloc(void *p, size_t n)
{
	int64_t had = p ? (int64_t)malloc_usable_size(p) : 0;
	void *q = __libc_realloc(p, n);
	if (q || (p && n == 0)) {
		atomic_fetch_sub(&now->blocks, p != NULL);
		atomic_fetch_sub(&now->bytes, had);
		(void)plus(q);
	}
	return q;
}

void *
reallocarray(void *p, size_t n, size_t size)
{
	size_t all;
	if (__builtin_mul_overflow(n, size, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, all);
}

void *
memalign(size_t align, size_t n)
{
	return plus(__libc_memalign(align, n));
}

void *
aligned_alloc(size_t align, size_t n)
{
	return plus(__libc_memalign(align, n));
}

int
posix_memalign(void **ret, size_t align, size_t n)
{
	void *p = plus(__libc_memalign(align, n));
	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}

int
accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int r = (int)syscall(SYS_accept4, fd, addr, len, flags);
	if (r >= 0 && leak) {
		void *volatile lost = malloc(1);
		(void)lost;
	}
	return r;
}

__attribute__((constructor)) static void
begin(void)
{
	char path[4096];
	const char *base = getenv("MW_COUNT");
	leak = getenv("MW_COUNT_LEAK") != NULL;
	if (!base)
		return;
	(void)snprintf(path, sizeof path, "%s.%d", base, (int)getpid());
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof *now) < 0)
		abort();
	struct count *p =
	    mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		abort();
	(void)close(fd);
	atomic_store(&p->blocks, atomic_load(&early.blocks));
	atomic_store(&p->bytes, atomic_load(&early.bytes));
	now = p;
}
