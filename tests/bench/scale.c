/* scale.c - a journal of many messages: what reading it takes, beside limits measured in
 * the same run; see scale. */
#include "tests/bench/scale.h"

#include "journal/base/arena.h"
#include "journal/base/id.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/segment/segment.h"
#include "journal/verify/verify.h"
#include "tests/bench/figures.h"

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void
row(const char *what, double got, double limit, const char *unit)
{
	printf("%-52s %12.2f %12.2f %-22s %8.2f\n", what, got, limit, unit,
	       limit > 0 ? got / limit : 0);
	(void)fflush(stdout);
}

void
shell(const char *fmt, ...)
{
	char cmd[900];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	int r = system(cmd);
	must(r != -1 && WIFEXITED(r) && WEXITSTATUS(r) <= 1, cmd); /* 1: degraded */
}

/* ---- limits ---- */

static double read_bytes, read_all;

static int
drop_one(const char *name, const struct stat *sb, int flag, struct FTW *w)
{
	(void)sb;
	(void)w;
	int fd = flag == FTW_F ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		(void)fdatasync(fd);
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		(void)close(fd);
	}
	return 0;
}

/* Nothing of the journal is in the kernel's cache any more. */
static void
cold(void)
{
	must(nftw(path, drop_one, 16, FTW_PHYS) == 0, path);
}

static int
read_one(const char *name, const struct stat *sb, int flag, struct FTW *w)
{
	static char block[1 << 20];
	ssize_t n;
	(void)sb;
	(void)w;
	if (flag != FTW_F || !strstr(name, ".seg"))
		return 0;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	must(fd >= 0, name);
	while ((n = read(fd, block, sizeof block)) > 0)
		read_bytes += (double)n;
	(void)close(fd);
	return 0;
}

/* MB/s of reading all segments, one after the other. */
static double
reading(void)
{
	double t0 = now_s();
	read_bytes = 0;
	must(nftw(path, read_one, 16, FTW_PHYS) == 0, path);
	read_all = read_bytes;
	return read_bytes / (now_s() - t0) / 1e6;
}

static void *
hash_some(void *arg)
{
	uint8_t sum[MW_SHA256_LEN], *block = arg;
	for (unsigned i = 0; i < 200; i++)
		mw_sha256_of(block, 1 << 20, sum);
	return NULL;
}

/* MB/s of SHA-256 on all processors at once. */
static double
hashing(void)
{
	static uint8_t block[64][1 << 20];
	long n = MW_MIN(sysconf(_SC_NPROCESSORS_ONLN), 64L);
	pthread_t t[64];
	double t0 = now_s();
	for (long i = 0; i < n; i++)
		must(pthread_create(&t[i], NULL, hash_some, block[i]) == 0, "thread");
	for (long i = 0; i < n; i++)
		(void)pthread_join(t[i], NULL);
	return (double)n * 200 * 1.048576 / (now_s() - t0);
}

/* ---- scans ---- */

static double
verify_once(bool key, double sample)
{
	struct mw_verify_result res;
	struct mw_verify_opts o = {.sample = sample};
	double t0 = now_s();
	struct mw_store *st = open_as(MW_STORE_READ, key);
	must(mw_verify_run(st, &o, &res, NULL) == 0, "verify finds something");
	mw_store_close(st);
	return (double)res.bytes / (now_s() - t0) / 1e6;
}

static void
scans(void)
{
	double v[3][ROUNDS], raw[2][ROUNDS], sha[ROUNDS];
	for (unsigned r = 0; r < ROUNDS; r++) {
		cold();
		raw[0][r] = reading();
		raw[1][r] = reading();
		sha[r] = hashing();
		cold();
		v[0][r] = verify_once(false, 0);
		v[1][r] = verify_once(false, 0);
		v[2][r] = r == 0 ? verify_once(true, 100) : v[2][0];
	}
	double hash = quantile(sha, ROUNDS, 0.5);
	double limit = MW_MIN(quantile(raw[0], ROUNDS, 0.5), hash);
	printf(
	    "read cold %.0f, warm %.0f, SHA-256 on all processors %.0f MB/s, %.0f MB\n",
	    quantile(raw[0], ROUNDS, 0.5), quantile(raw[1], ROUNDS, 0.5), hash,
	    read_all / 1e6);
	row("verify, cold, MB/s (aim 0.7)", quantile(v[0], ROUNDS, 0.5), limit,
	    "min(read, SHA-256)");
	limit = MW_MIN(quantile(raw[1], ROUNDS, 0.5), hash);
	row("verify, warm, MB/s", quantile(v[1], ROUNDS, 0.5), limit,
	    "min(read, SHA-256)");
	row("verify with the key, all contents, warm, MB/s", v[2][0], limit,
	    "min(read, SHA-256)");
}

static void
recovery(void)
{
	double v[ROUNDS], raw[ROUNDS];
	char file[300];
	MW_AUTOFREE uint64_t *list = NULL;
	size_t n;
	must(mw_seg_list(mw_fs_posix(), path, &list, &n, NULL) == 0, "segments");
	for (unsigned r = 0; r < ROUNDS; r++) {
		struct mw_seg *s = NULL;
		struct mw_seg_end e;
		mw_seg_path(file, sizeof file, path, list[0]);
		cold();
		read_bytes = 0;
		double t0 = now_s();
		must(read_one(file, NULL, FTW_F, NULL) == 0, file);
		raw[r] = read_bytes / (now_s() - t0) / 1e6;
		cold();
		t0 = now_s();
		must(mw_seg_open(mw_fs_posix(), path, list[0], NULL, &s, NULL) == 0,
		     file);
		must(mw_seg_end(s, NULL, NULL, &e, NULL) == 0 && e.gaps == 0, "scan");
		v[r] = (double)e.end / (now_s() - t0) / 1e6;
		mw_seg_free(s);
	}
	row("recovery scan of a segment, cold, MB/s (aim 0.7)", quantile(v, ROUNDS, 0.5),
	    quantile(raw, ROUNDS, 0.5), "read");
}

/* ---- the index ---- */

static void
rebuild(void)
{
	double v[3], raw[3];
	for (unsigned r = 0; r < 3; r++) {
		uint64_t n;
		raw[r] = sorted_append(all_mails);
		struct mw_store *st = open_as(MW_STORE_READ, false);
		double t0 = now_s();
		must(mw_store_reindex(st, &n, NULL) == 0, "reindex");
		v[r] = (double)n / (now_s() - t0);
		mw_store_close(st);
	}
	row("index rebuild, records/s (aim 0.5)", quantile(v, 3, 0.5),
	    quantile(raw, 3, 0.5), "LMDB sorted append");
}

static int
count(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return 0;
}

static int
drop(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return 0;
}

static void
looking_up(void)
{
	double v[ROUNDS], back[ROUNDS], by_id[ROUNDS];
	char id[MW_ID_TEXT + 1];
	for (unsigned r = 0; r < ROUNDS; r++) {
		struct mw_store *st = open_as(MW_STORE_READ, true);
		struct mw_record rec;
		struct mw_mail m;
		MW_ARENA_AUTO *a = mw_arena_new(0);
		char who[40];
		unsigned long k = people / 7 * (r + 1);
		for (unsigned again = 0; again < 2; again++) { /* the second is warm */
			unsigned n = 0;
			(void)snprintf(who, sizeof who, "u%lu@bench.test", k);
			double t0 = now_s();
			must(mw_store_find(st, MW_KEY_RCPT, mw_strz(who), count, &n,
			                   NULL) == 0 &&
			         n >= 100,
			     "look-up");
			v[r] = (now_s() - t0) * 1e3;
		}
		must(mw_store_last(st, all_mails / 2 + r * 1000, &rec, NULL) == 1,
		     "last");
		mw_id_text(id, rec.id);
		double t0 = now_s();
		must(mw_record_mail(st, &rec, a, &m, NULL) == 0 &&
		         mw_record_body(st, &rec, &m, drop, NULL, NULL) == 0,
		     "read");
		back[r] = (now_s() - t0) * 1e3;
		mw_store_close(st);
		cold();
		t0 = now_s();
		st = open_as(MW_STORE_READ, true);
		mw_arena_reset(a);
		must(mw_store_find_id(st, id, &rec, NULL) == 0 &&
		         mw_record_mail(st, &rec, a, &m, NULL) == 0 &&
		         mw_record_body(st, &rec, &m, drop, NULL, NULL) == 0,
		     "by ID");
		by_id[r] = (now_s() - t0) * 1e3;
		mw_store_close(st);
	}
	row("the 100 mails of one recipient, warm, ms", quantile(v, ROUNDS, 0.5), 1,
	    "1 ms");
	row("one message read back, warm, ms", quantile(back, ROUNDS, 0.5), 5, "5 ms");
	row("one known ID, all files cold, until its bytes, ms",
	    quantile(by_id, ROUNDS, 0.5), 50, "50 ms");
}

/* ---- commands ---- */

static void
command(const char *bin, const char *args, double limit_s)
{
	double t0 = now_s();
	shell("'%s' -c '%s.conf' -j '%s' --key '%s.key' %s >/dev/null", bin, path, path,
	      path, args);
	row(args, now_s() - t0, limit_s, limit_s > 0 ? "s" : "s, no limit");
}

static void
commands(const char *bin)
{
	shell("printf 'journal_dir = %s\\nprune_floor = 1h\\nretain all {\\n\\tkeep = "
	      "2d\\n}\\n' >'%s.conf'",
	      path, path);
	char one[80];
	(void)snprintf(one, sizeof one, "list --user u%lu@bench.test --limit 100",
	               people / 2);
	command(bin, "status", 0);
	command(bin, one, 0);
	command(bin, "list --limit 100", 0);
	command(bin, "prune -n", 0);
	command(bin, "prune --yes", 1);
	shell("'%s' -j '%s' verify -q --sample 0 >/dev/null", bin, path);
	shell("rm -f '%s.conf'", path);
}

int
main(int argc, char **argv)
{
	if (argc < 4) {
		(void)fprintf(
		    stderr, "usage: scale DIRECTORY MAILWAL log|make|read|scan|index [N "
		            "[DAYS]]\n");
		return 64;
	}
	unsigned long n = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
	const char *part = argv[3];
	days = argc > 5 ? strtoul(argv[5], NULL, 10) : 1;
	bool log = strcmp(part, "log") == 0, scan = strcmp(part, "scan") == 0;
	(void)snprintf(path, sizeof path, "%.200s/scale", argv[1]);
	printf("%-52s %12s %12s %-22s %8s\n", "", "measured", "limit", "", "ratio");
	if (strcmp(part, "index") == 0)
		index_alone(n ? n : 10000000);
	pad = scan ? PAD : 0;
	if (log || scan || strcmp(part, "make") == 0)
		make(n ? n : scan ? 100000 : 1000000);
	if (scan) {
		scans();
		recovery();
	}
	if (log || strcmp(part, "read") == 0) {
		known();
		looking_up();
		rebuild();
		commands(argv[2]);
	}
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	printf("most memory of this program: %.0f MB\n", (double)u.ru_maxrss / 1024);
	if (strcmp(part, "make") != 0)
		shell("rm -rf '%s' '%s.made' '%s.key' '%s.key.pub'", path, path, path,
		      path);
	return 0;
}
