/* The listing of a mail queue, as any program may print it: no crash, and a second
 * reading finds the same. */
#include "replay/queue.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
some(void *arg, uint64_t id)
{
	(void)arg;
	return id % 4 != 0;
}

static size_t
learn(struct mw_queue *q, const uint8_t *p, size_t n, size_t piece)
{
	struct mw_err err = {0};
	int r = 0;
	for (size_t at = 0; at < n && !r; at += piece)
		r = mw_queue_learn(q, 0, p + at, n - at < piece ? n - at : piece, some,
		                   NULL, &err);
	r = mw_queue_learn(q, 0, NULL, 0, some, NULL, &err);
	return mw_queue_size(q) * 2 + (r != 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct mw_queue_from from = {.command = "true"};
	struct mw_queue *q[2] = {NULL, NULL};
	struct mw_err err = {0};
	size_t n[2] = {0, 0};
	for (int i = 0; i < 2; i++) {
		if (mw_queue_new(&from, 1, &q[i], &err))
			abort();
		n[i] = learn(q[i], data, size, i ? 3 : size + 1);
		mw_queue_free(q[i]);
	}
	if (n[0] != n[1])
		abort();
	return 0;
}
