/* nearest.c - "did you mean": edit distance with transpositions. */
#include "conf/conf.h"
#include "journal/base/util.h"

#include <string.h>

enum {
	LONGEST = 40
};

static char
fold(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c + ('a' - 'A'));
	return c == '-' ? '_' : c;
}

/* Insertions, deletions, changes and swaps of neighbours that turn a into b. */
static unsigned
distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned row[3][LONGEST + 1];
	unsigned *before = row[0], *last = row[1], *cur = row[2];

	for (unsigned j = 0; j <= nb; j++)
		last[j] = j;
	for (unsigned i = 1; i <= na; i++) {
		cur[0] = i;
		for (unsigned j = 1; j <= nb; j++) {
			unsigned change =
			    last[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
			cur[j] = MW_MIN(MW_MIN(last[j], cur[j - 1]) + 1, change);
			if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
			    fold(a[i - 2]) == fold(b[j - 1]))
				cur[j] = MW_MIN(cur[j], before[j - 2] + 1);
		}
		unsigned *free_row = before;
		before = last;
		last = cur;
		cur = free_row;
	}
	return last[nb];
}

const char *
mw_nearest(const char *word, const char *const *names, size_t n)
{
	size_t len = strlen(word);
	const char *best = NULL;
	unsigned best_d;

	if (len == 0 || len > LONGEST)
		return NULL;
	/* A third of the letters may be wrong, but never more than three. */
	best_d = MW_MIN((unsigned)len / 3 + 1, 4U);
	for (size_t i = 0; i < n; i++) {
		size_t m = strlen(names[i]);
		if (m > LONGEST)
			continue;
		unsigned d = distance(word, len, names[i], m);
		if (d < best_d) {
			best_d = d;
			best = names[i];
		}
	}
	return best;
}
