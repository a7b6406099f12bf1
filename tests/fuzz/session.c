/* session.c - whatever bytes an MTA sends, the engine neither crashes nor hangs: every
 * end of message is answered once, what was answered with CONTINUE is in the journal and
 * nothing else is, no session or message stays behind, and how the bytes were cut does
 * not matter. Bit 0 of the first byte: the rest is packets as they are on the wire, or
 * (command, two bytes of length, data) with the framing added here; the other bits say
 * how to cut. */
#include "milter/proto.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "journal/base/util.h"
#include "tests/support/fuzzed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned done;
};

static void
on_done(void *arg)
{
	struct waiter *w = arg;
	pthread_mutex_lock(&w->lock);
	w->done++;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void
wait_done(struct waiter *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->cond, &w->lock);
	require(w->done == 1, "answered twice");
	w->done = 0;
	pthread_mutex_unlock(&w->lock);
}

static uint64_t
mails(void)
{
	struct mw_store_stats st;
	mw_store_stats(fuzzed_store, &st);
	return st.mails;
}

/* The replies, to compare runs; they hold no IDs. */
static int
run(const uint8_t *p, size_t n, size_t step, struct mw_buf *ret_replies)
{
	struct waiter w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
	struct mw_proto proto;
	int r = 0;
	uint64_t before = mails(), journaled = atomic_load(&fuzzed_cap.count.journaled);
	mw_proto_init(&proto, &fuzzed_cap, on_done, &w);
	for (size_t at = 0; r == 0 && at < n && !proto.closing; at += step) {
		r = mw_proto_input(&proto, p + at, MW_MIN(step, n - at), NULL);
		while (r == 0 && proto.pending) {
			wait_done(&w);
			r = mw_proto_resume(&proto, NULL);
		}
	}
	require(r == 0 || r == MW_EPROTO, "an unexpected error");
	mw_buf_putstr(ret_replies, mw_buf_str(&proto.out));
	mw_proto_done(&proto);
	require(atomic_load(&fuzzed_cap.count.open_sessions) == 0, "a session stays");
	require(atomic_load(&fuzzed_cap.count.at_eom) == 0, "a message stays");
	require(mails() - before == atomic_load(&fuzzed_cap.count.journaled) - journaled,
	        "journal and answers differ");
	return r;
}

static void
frame(struct mw_buf *out, const uint8_t *p, size_t n)
{
	static const uint8_t hello[] = {0, 0, 0, 13,   'O', 0,    0,    0,   6,
	                                0, 0, 1, 0xff, 0,   0x1f, 0xff, 0xff};
	mw_buf_put(out, hello, sizeof hello);
	while (n >= 3) {
		size_t k = MW_MIN((size_t)p[1] << 8 | p[2], n - 3);
		uint8_t len[4] = {0, 0, (uint8_t)((k + 1) >> 8), (uint8_t)(k + 1)};
		len[1] = k == 65535;
		mw_buf_put(out, len, 4);
		mw_buf_put(out, p, 1);
		mw_buf_put(out, p + 3, k);
		p += 3 + k;
		n -= 3 + k;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	MW_BUF_AUTO bytes = {0}, one = {0}, two = {0};
	if (!fuzzed_store)
		fuzzed_start();
	if (size == 0 || size > 1 << 20)
		return 0;
	if (data[0] & 1)
		frame(&bytes, data + 1, size - 1);
	else
		mw_buf_put(&bytes, data + 1, size - 1);
	if (bytes.n == 0)
		return 0;
	int r = run(bytes.p, bytes.n, bytes.n, &one);
	require(r == run(bytes.p, bytes.n, (size_t)(data[0] >> 1) + 1, &two),
	        "the cut decides about the result");
	require(mw_str_eq(mw_buf_str(&one), mw_buf_str(&two)),
	        "the cut decides about the replies");
	return 0;
}
