/* figures.h - what the programs of the benches measure with. No state. */
#ifndef MW_BENCH_FIGURES_H
#define MW_BENCH_FIGURES_H

#include <stdbool.h>
#include <stddef.h>

double now_s(void);   /* of a clock that goes on evenly */
double cpu_all(void); /* processor time of this process, seconds */

double quantile(double *v, size_t n, double q); /* 0.5: the median; sorts v */

/* Or the program ends with 70, and says what. */
void must(bool ok, const char *what);

#endif
