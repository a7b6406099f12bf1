/* alloc_clients.h - clients of a front end that bring two mails in one connection, again
 * and again, while another allocation fails each time: what they are told is held against
 * the journal.
 *
 * For exactly one file of a program (alloc_fail.h), whose main sets `front`;
 * from one thread. MW_FAULT_ROUNDS=all fails each allocation; else a slice (MW_SEED moves
 * it).
 */
#ifndef MW_TEST_ALLOC_CLIENTS_H
#define MW_TEST_ALLOC_CLIENTS_H

#include "tests/support/alloc_fail.h"

#include "journal/base/util.h"
#include "milter/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cmocka.h>

enum {
	MAILS = 2,  /* in one connection */
	SLICE = 150 /* failures that the short form tries */
};

enum answer {
	LOST,
	REFUSED,
	TAKEN
};

static char dir[64], journal[80];
static struct mw_store *store;
static struct mw_capture cap;
static struct mw_fs fs;
static uint64_t at_call; /* that fails; 0: none */

/* The program's: set by its main. */
static struct {
	/* One connection, with what its mails were told. */
	void (*conversation)(enum answer got[MAILS]);
	/* Holds that against what came into the journal since sequence number `from`. */
	void (*check)(uint64_t from, const enum answer got[MAILS]);
} front;

#define require(x, ...)                                                                  \
	do {                                                                             \
		if (!(x)) {                                                              \
			print_error("allocation %llu: ", (unsigned long long)at_call);   \
			fail_msg(__VA_ARGS__);                                           \
		}                                                                        \
	} while (0)

static inline int
no_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)fd;
	return 0;
}

static inline int
dial(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 20};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	memcpy(a.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
	return fd;
}

static inline uint64_t
next_seq(void)
{
	struct mw_store_stats s;
	mw_store_stats(store, &s);
	return s.next_seq;
}

/* A conversation in which nothing fails; the allocations that it makes. */
static inline uint64_t
all_taken(void)
{
	enum answer got[MAILS];
	uint64_t from = next_seq();
	at_call = 0;
	alloc_fail_at(0, 0);
	front.conversation(got);
	uint64_t calls = atomic_load(&alloc_calls);
	for (unsigned k = 0; k < MAILS; k++)
		assert_int_equal(got[k], TAKEN);
	front.check(from, got);
	return calls;
}

static inline void
every_allocation(void **state)
{
	(void)state;
	const char *z = getenv("MW_FAULT_ROUNDS"), *seed = getenv("MW_SEED");
	enum answer got[MAILS];
	(void)all_taken(); /* caches of libraries are filled */
	uint64_t calls = all_taken(), count[3] = {0}, hit = 0;
	uint64_t step = z && strcmp(z, "all") == 0 ? 1 : calls / SLICE + 1;
	uint64_t n = 1 + (seed ? strtoull(seed, NULL, 10) % step : 0);
	for (; n <= calls + step; n += step) {
		at_call = n;
		uint64_t from = next_seq();
		alloc_fail_at(n, hit % 5 == 4 ? 20 : 1);
		front.conversation(got);
		hit += alloc_fail_off() > 0;
		front.check(from, got);
		for (unsigned k = 0; k < MAILS; k++)
			count[got[k]]++;
	}
	(void)all_taken();
	print_message("%llu allocations, %llu made to fail; of the mails %llu taken, "
	              "%llu refused, %llu cut off\n",
	              (unsigned long long)calls, (unsigned long long)hit,
	              (unsigned long long)count[TAKEN],
	              (unsigned long long)count[REFUSED],
	              (unsigned long long)count[LOST]);
	assert_true(hit > 20 && count[REFUSED] + count[LOST] > 10);
}

#endif
