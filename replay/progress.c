#include "replay/progress.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
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
	p->start_us = p->last_us = mono();
}

static void
show(struct mw_progress *p, int64_t now)
{
	char eta[32] = "-", size[32];
	MW_BUF_AUTO who = {0};
	double s = (double)(now - p->start_us) / 1e6,
	       rate = s > 0 ? (double)p->done / s : 0;
	if (rate > 0 && p->total >= p->done)
		mw_duration_human(eta, sizeof eta,
		                  (int64_t)((double)(p->total - p->done) / rate * 1e6));
	mw_size_human(size, sizeof size, p->bytes);
	if (p->what)
		mw_text_safe(mw_strz(p->what), false, &who);
	fprintf(stderr, "%s%llu/%llu copies, %.0f/s, %s put back, %s left, %.40s%s",
	        p->tty ? "\r" : "", (unsigned long long)p->done,
	        (unsigned long long)p->total, rate, size, eta, mw_buf_cstr(&who),
	        p->tty ? "\033[K" : "\n");
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
	tick(p);
}

void
mw_progress_clear(struct mw_progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
