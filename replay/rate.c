#include "replay/rate.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
	TICK_MS = 100
};

#define SECOND 1e6
#define MOST   1e12 /* of either in a second: no limit at all, nor an overflow */

static int
wrong(const char *text, struct mw_err *err)
{
	(void)mw_fail(err, MW_EUSAGE, "--rate: '%.60s' is no rate", text);
	return mw_err_hint(err,
	                   "messages: 20, 300/min, 1000/h; bytes: 500K, 2M; repeat it "
	                   "for both");
}

int
mw_rate_parse(const char *text, struct mw_rate_limits *limits, struct mw_err *err)
{
	static const struct {
		const char *name;
		double s;
	} per[] = {{"", 1}, {"/s", 1}, {"/min", 60}, {"/h", 3600}};
	static const char units[] = "KMG";
	char *end;
	bool bytes = false;
	if (*text < '0' || *text > '9' || strpbrk(text, "xXeEpP"))
		return wrong(text, err);
	double v = strtod(text, &end);
	const char *u = *end ? strchr(units, *end) : NULL;
	if (u) {
		for (const char *k = units; k <= u; k++)
			v *= 1024;
		bytes = true;
		end++;
	}
	for (size_t i = 0; i < MW_COUNT(per); i++) {
		if (strcmp(end, per[i].name) != 0)
			continue;
		v /= per[i].s;
		if (!(v > 0) || v > MOST)
			return wrong(text, err);
		*(bytes ? &limits->bytes : &limits->messages) = v;
		return 0;
	}
	return wrong(text, err);
}

void
mw_rate_init(struct mw_rate *r, const struct mw_rate_limits *limits)
{
	*r = (struct mw_rate){.limits = *limits};
	(void)pthread_mutex_init(&r->mu, NULL);
}

void
mw_rate_done(struct mw_rate *r)
{
	(void)pthread_mutex_destroy(&r->mu);
}

/* One row: where it stands now, and n more in it. */
static int64_t
claim(int64_t *next_us, double rate, uint64_t n, int64_t now_us)
{
	if (rate <= 0 || !n)
		return 0;
	int64_t at = MW_MAX(*next_us, now_us);
	double us = (double)n / rate * SECOND;
	*next_us = at + (us < 1e15 ? (int64_t)us : (int64_t)1e15);
	return at - now_us;
}

int64_t
mw_rate_claim(struct mw_rate *r, uint64_t messages, uint64_t bytes, int64_t now_us)
{
	(void)pthread_mutex_lock(&r->mu);
	int64_t a = claim(&r->message_us, r->limits.messages, messages, now_us);
	int64_t b = claim(&r->byte_us, r->limits.bytes, bytes, now_us);
	(void)pthread_mutex_unlock(&r->mu);
	return MW_MAX(a, b);
}

void
mw_rate_wait(struct mw_rate *r, uint64_t messages, uint64_t bytes, bool (*stopped)(void))
{
	const struct mw_clock *clk = mw_clock_system();
	int64_t now = clk->mono_us(clk);
	int64_t end = now + mw_rate_claim(r, messages, bytes, now);
	while (now < end && !(stopped && stopped())) {
		int64_t ms = (end - now) / 1000 + 1;
		(void)poll(NULL, 0, (int)MW_MIN(ms, (int64_t)TICK_MS));
		now = clk->mono_us(clk);
	}
}
