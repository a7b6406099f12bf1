#include "replay/progress.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	TTY_US = 200000,
	PLAIN_US = 10000000
};

static int64_t
mono(void)
{
	const struct mw_clock *c = mw_clock_system();
	return c->mono_us(c);
}

void
mw_progress_start(struct mw_progress *p, uint64_t total, bool quiet)
{
	*p = (struct mw_progress){.on = !quiet, .total = total};
	p->tty = isatty(STDERR_FILENO);
	p->start_us = p->last_us = p->done_us = mono();
}

/* Copies are done by the batch: what counts is the rate until the last was, and how long
 * that is ago. */
static void
show(struct mw_progress *p, int64_t now)
{
	char left[32] = "-", size[32], of[32] = "";
	MW_BUF_AUTO who = {0};
	double s = (double)(p->done_us - p->start_us) / 1e6,
	       rate = s > 0 ? (double)p->done / s : 0;
	if (rate > 0 && p->total >= p->done) {
		int64_t us = (int64_t)((double)(p->total - p->done) / rate * 1e6) -
		             (now - p->done_us);
		mw_duration_human(left, sizeof left, MW_MAX(us, 0));
	}
	if (p->total)
		(void)snprintf(of, sizeof of, "/%llu", (unsigned long long)p->total);
	mw_size_human(size, sizeof size, p->bytes);
	if (p->what)
		mw_text_safe(mw_strz(p->what), false, &who);
	fprintf(stderr, "%s%llu%s copies, %.0f/s, %s put%s, ", p->tty ? "\r" : "",
	        (unsigned long long)p->done, of, rate, size, p->total ? " back" : "");
	if (p->total)
		fprintf(stderr, "%s left, ", left);
	fprintf(stderr, "%.40s%s", mw_buf_cstr(&who), p->tty ? "\033[K" : "\n");
	(void)fflush(stderr);
	p->shown = p->tty;
}

static void
tick(struct mw_progress *p)
{
	if (!p->on)
		return;
	int64_t now = mono();
	if (now - p->last_us < (p->tty ? TTY_US : PLAIN_US))
		return;
	p->last_us = now;
	show(p, now);
}

void
mw_progress_what(struct mw_progress *p, const char *what)
{
	p->what = what;
	tick(p);
}

void
mw_progress_add(struct mw_progress *p, uint64_t n, uint64_t bytes)
{
	p->done += n;
	p->bytes += bytes;
	p->done_us = p->on ? mono() : 0;
	tick(p);
}

void
mw_progress_clear(struct mw_progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
