/* driver.c - runs a fuzz target without libFuzzer, as an ordinary test.
 *
 *   fuzz_<name> FILE|DIRECTORY...
 *
 * Each seed is given to the target as it is, cut short at many places, and mutated
 * MUTATIONS times with a fixed generator: the same input always makes the same run. A
 * crash, a sanitizer report or a non-zero return fails the test; the case that was
 * running is then named on standard error ("seed FILE, mutation N"). */

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MUTATIONS 200
#define SEED_MAX  (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char now_running[512]; /* for the signal handler */
static unsigned long runs;

static void
on_crash(int sig)
{
	static const char head[] = "crashed at ";

	(void)!write(STDERR_FILENO, head, sizeof(head) - 1);
	(void)!write(STDERR_FILENO, now_running, strlen(now_running));
	(void)!write(STDERR_FILENO, "\n", 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* xorshift64*: the same on every machine. */
static uint64_t
next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545F4914F6CDD1D);
}

static size_t
below(uint64_t *state, size_t n)
{
	return n ? (size_t)(next(state) % n) : 0;
}

/* The target gets its own exact-size block, so that a sanitizer sees each overrun. */
static int
run_one(const uint8_t *data, size_t n, const char *seed, const char *what, unsigned k)
{
	uint8_t *copy = malloc(n ? n : 1);
	int r;

	if (!copy) {
		fputs("no memory\n", stderr);
		exit(1);
	}
	if (n)
		memcpy(copy, data, n);
	snprintf(now_running, sizeof(now_running), "seed %s, %s %u", seed, what, k);
	r = LLVMFuzzerTestOneInput(copy, n);
	free(copy);
	runs++;
	if (r)
		fprintf(stderr, "%s: returned %d\n", now_running, r);
	return r;
}

static size_t
mutate_once(uint8_t *p, size_t n, size_t cap, uint64_t *rng)
{
	static const uint8_t odd[] = {0,   1,   0x7f, 0x80, 0xff, '\n', '\r',
	                              ' ', '"', '#',  '{',  '}',  '=',  '\\'};
	size_t at = below(rng, n), len;

	switch (next(rng) % 7) {
	case 0: /* flip a bit */
		if (n)
			p[at] ^= (uint8_t)(1U << below(rng, 8));
		return n;
	case 1: /* a byte that often matters */
		if (n)
			p[at] = odd[below(rng, sizeof(odd))];
		return n;
	case 2: /* any byte */
		if (n)
			p[at] = (uint8_t)next(rng);
		return n;
	case 3: /* cut out */
		len = below(rng, n - at + (n == 0));
		memmove(p + at, p + at + len, n - at - len);
		return n - len;
	case 4: /* put in */
		if (n == cap)
			return n;
		memmove(p + at + 1, p + at, n - at);
		p[at] = odd[below(rng, sizeof(odd))];
		return n + 1;
	case 5: /* say something twice */
		len = below(rng, n - at + (n == 0));
		if (len > cap - n)
			len = cap - n;
		memmove(p + at + len, p + at, n - at);
		return n + len;
	default: /* shorter */
		return at;
	}
}

static int
mutations(const uint8_t *data, size_t n, const char *seed)
{
	uint64_t rng = UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)n;
	size_t cap = 2 * n + 64, m;
	uint8_t *p = malloc(cap);
	unsigned k, j, steps;
	int r = 0;

	if (!p)
		return -1;
	for (k = 0; k < MUTATIONS && !r; k++) {
		if (n)
			memcpy(p, data, n);
		m = n;
		steps = 1 + (unsigned)below(&rng, 6);
		for (j = 0; j < steps; j++)
			m = mutate_once(p, m, cap, &rng);
		r = run_one(p, m, seed, "mutation", k);
	}
	free(p);
	return r;
}

static int
run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(SEED_MAX);
	size_t n, cut;
	unsigned k;
	int r;

	if (!f || !data) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		free(data);
		if (f)
			fclose(f);
		return -1;
	}
	n = fread(data, 1, SEED_MAX, f);
	fclose(f);
	r = run_one(data, n, path, "as it is", 0);
	for (k = 0; k < 32 && !r; k++) {
		cut = n * k / 32;
		r = run_one(data, cut, path, "cut at", (unsigned)cut);
	}
	if (!r)
		r = mutations(data, n, path);
	free(data);
	return r;
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int
run_directory(const char *path)
{
	struct dirent **names = NULL;
	int i, n = scandir(path, &names, NULL, by_name), r = 0, files = 0;
	char full[4096];
	struct stat st;

	if (n < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	for (i = 0; i < n; i++) {
		snprintf(full, sizeof(full), "%s/%s", path, names[i]->d_name);
		free(names[i]);
		if (r || stat(full, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		files++;
		r = run_file(full);
	}
	free(names);
	if (!r && !files) {
		fprintf(stderr, "%s: no seeds here\n", path);
		return -1;
	}
	return r;
}

int
main(int argc, char **argv)
{
	struct stat st;
	int i, r;

	if (argc < 2) {
		fprintf(stderr, "usage: %s FILE|DIRECTORY...\n", argv[0]);
		return 64;
	}
	signal(SIGSEGV, on_crash);
	signal(SIGABRT, on_crash);
	signal(SIGBUS, on_crash);
	signal(SIGFPE, on_crash);
	for (i = 1; i < argc; i++) {
		if (stat(argv[i], &st) < 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			return 1;
		}
		r = S_ISDIR(st.st_mode) ? run_directory(argv[i]) : run_file(argv[i]);
		if (r)
			return 1;
	}
	printf("%lu runs\n", runs);
	return 0;
}
