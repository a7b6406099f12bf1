#include "tests/bench/figures.h"

#include "journal/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

double
now_s(void)
{
	const struct mw_clock *c = mw_clock_system();
	return (double)c->mono_us(c) / 1e6;
}

double
cpu_all(void)
{
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
	       (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6;
}

void
must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "bench: %s\n", what);
	exit(70);
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

double
quantile(double *v, size_t n, double q)
{
	qsort(v, n, sizeof *v, by_value);
	return v[(size_t)((double)(n - 1) * q)];
}
