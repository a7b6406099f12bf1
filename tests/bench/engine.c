/* engine.c - the log engine beside raw limits measured in the same run; see engine. */
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/zstd.h"
#include "journal/verify/verify.h"
#include "tests/bench/figures.h"
#include "tests/bench/floor.h"
#include "tests/bench/mail_log.h"
#include "tests/bench/raw.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
	SIZE = 8192,
	ROUNDS = 5
};

static void
row(const char *what, double got, double limit, double ratio, const char *unit)
{
	printf("%-44s %10.2f %10.2f %-10s %6.2f\n", what, got, limit, unit, ratio);
	(void)fflush(stdout);
}

/* ---- raw: write and fdatasync into a prepared file ---- */

static int
prepared(size_t bytes)
{
	char file[300];
	static uint8_t zeros[1 << 16];
	(void)snprintf(file, sizeof file, "%s/raw", dir);
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0, "raw file");
	for (size_t n = 0; n < bytes; n += sizeof zeros)
		must(write(fd, zeros, sizeof zeros) == sizeof zeros, "raw write");
	must(fsync(fd) == 0, "raw sync");
	return fd;
}

/* n commits of `record` bytes; the time at quantile q. */
static double
raw(size_t record, unsigned n, double q)
{
	static double v[4096];
	static uint8_t bytes[1 << 20];
	size_t room = 8 << 20;
	int fd = prepared(room);
	record = MW_MIN(record, sizeof bytes);
	for (unsigned i = 0; i < n; i++) {
		double t = now_s();
		off_t off = (off_t)(i * record % (room - record));
		must(pwrite(fd, bytes, record, off) == (ssize_t)record &&
		         fdatasync(fd) == 0,
		     "raw commit");
		v[i] = now_s() - t;
	}
	(void)close(fd);
	return quantile(v, n, q);
}

static void
latency(void)
{
	double ours[ROUNDS], disk[ROUNDS], gap[ROUNDS];
	static double v[500];
	for (unsigned r = 0; r < ROUNDS; r++) {
		disk[r] = raw(4096, 500, 0.5);
		fresh();
		struct mw_store *st = open_as(MW_STORE_WRITE, true);
		(void)usleep(300000); /* the next segment is prepared */
		for (unsigned i = 0; i < 500; i++) {
			double t = now_s();
			append(st, i);
			v[i] = now_s() - t;
		}
		struct mw_store_stats s;
		mw_store_stats(st, &s);
		gap[r] = (double)s.batches / (double)s.mails;
		mw_store_close(st);
		ours[r] = quantile(v, 500, 0.5);
	}
	double a = quantile(ours, ROUNDS, 0.5) * 1e6,
	       b = quantile(disk, ROUNDS, 0.5) * 1e6;
	row("p50 of one session, 8 KB, µs", a, 1.5 * b + 100, a / (1.5 * b + 100),
	    "1.5 raw+100");
	row("syncs a message, one session", quantile(gap, ROUNDS, 0.5), 1,
	    quantile(gap, ROUNDS, 0.5), "1");
}

/* ---- 64 sessions ---- */

static int
drop(void *arg, const void *p, size_t n)
{
	(void)p;
	*(size_t *)arg += n;
	return 0;
}

/* A dictionary of the beginnings of some mails. */
static struct mw_zdict *
dictionary(void)
{
	MW_BUF_AUTO text = {0};
	MW_BUF_AUTO dict = {0};
	MW_BUF_AUTO samples = {0};
	size_t len[64], k = MW_MIN(n_mails, MW_COUNT(len));
	struct mw_zdict *z = NULL;
	for (size_t i = 0; i < k; i++) {
		len[i] = MW_MIN(mails[i].n, (size_t)4096);
		mw_buf_put(&text, mails[i].p, MW_MIN(len[i], (size_t)1024));
		mw_buf_put(&samples, mails[i].p, len[i]);
	}
	if (mw_zdict_make(mw_buf_str(&text), samples.p, len, (unsigned)k, 3, &dict) == 0)
		must(mw_zdict_new(dict.p, dict.n, 3, &z) == 0, "dictionary");
	return z;
}

/* Messages a second on one core. */
static double
zstd_rate(const struct mw_zdict *z)
{
	size_t n = 0;
	double t = now_s();
	for (unsigned i = 0; i < 3000; i++)
		must(mw_zc_all(3, z, mails[i % n_mails].p, mails[i % n_mails].n, drop,
		               &n) == 0,
		     "zstd");
	return 3000 / (now_s() - t);
}

enum {
	SESSIONS = 64,
	EACH = 400,
	MANY = SESSIONS * EACH,
	ROOM = 8 << 20 /* of a raw file */
};

struct figures {
	double rate[ROUNDS], syncs[ROUNDS], p99[ROUNDS], p50[ROUNDS], cpu[ROUNDS];
	double stored;
};

/* A journal that has learned its dictionary, as it has after some minutes of mail. */
static struct mw_store *
with_dictionary(void)
{
	fresh();
	atomic_store(&learned, false);
	struct mw_store *st = open_as(MW_STORE_WRITE, true);
	for (unsigned i = 0; !atomic_load(&learned); i++) {
		must(i < 3000, "no dictionary");
		if (i < 1000)
			append(st, i);
		else
			(void)usleep(10000);
	}
	(void)usleep(300000); /* the next segment is prepared */
	return st;
}

static void
many_round(struct figures *f, unsigned r, unsigned threads, double *v)
{
	struct mw_store *st = with_dictionary();
	struct mw_store_stats a, b;
	mw_store_stats(st, &a);
	double cpu = cpu_all();
	f->rate[r] = MANY / sessions(st, SESSIONS, threads, MANY, v);
	f->cpu[r] = (cpu_all() - cpu) / MANY * 1e6;
	mw_store_stats(st, &b);
	f->syncs[r] = (double)(b.batches - a.batches) / (double)(b.mails - a.mails);
	f->stored = (double)(b.bytes_stored - a.bytes_stored) / MANY;
	mw_store_close(st);
	f->p99[r] = quantile(v, MANY, 0.99);
	f->p50[r] = quantile(v, MANY, 0.5);
}

static void
say_figures(const char *what, struct figures *f)
{
	printf("%s: %.0f messages/s, p50 %.2f ms, p99 %.2f ms, %.1f µs of CPU each\n",
	       what, quantile(f->rate, ROUNDS, 0.5), quantile(f->p50, ROUNDS, 0.5) * 1e3,
	       quantile(f->p99, ROUNDS, 0.5) * 1e3, quantile(f->cpu, ROUNDS, 0.5));
}

/* Each round has all of it, so that other work on the machine meets all alike. */
static void
many(void)
{
	static double v[MANY];
	static struct figures ours, threads, bottom, raw_f;
	double zstd[ROUNDS];
	struct mw_zdict *z = dictionary();
	for (unsigned r = 0; r < ROUNDS; r++) {
		many_round(&ours, r, 0, v);
		many_round(&threads, r, SESSIONS, v);
		int fd = prepared(ROOM);
		raw_f.rate[r] = raw_crowd(fd, ROOM, (size_t)ours.stored, EACH, v);
		must(raw_f.rate[r] > 0, "raw group commit");
		raw_f.p99[r] = quantile(v, MANY, 0.99);
		raw_f.p50[r] = quantile(v, MANY, 0.5);
		double cpu = cpu_all();
		bottom.rate[r] = floor_run(fd, ROOM, z, mails, n_mails, MANY, v);
		bottom.cpu[r] = (cpu_all() - cpu) / MANY * 1e6;
		bottom.p99[r] = quantile(v, MANY, 0.99);
		bottom.p50[r] = quantile(v, MANY, 0.5);
		(void)close(fd);
		zstd[r] = zstd_rate(z);
	}
	mw_zdict_free(z);
	double cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
	double group = quantile(raw_f.rate, ROUNDS, 0.5);
	double cpu = 0.9 * cores * quantile(zstd, ROUNDS, 0.5);
	double limit = MW_MIN(cpu, group), got = quantile(ours.rate, ROUNDS, 0.5);
	double p99 = quantile(raw_f.p99, ROUNDS, 0.5) * 1e3;
	printf("raw group commit %.0f records/s, p99 %.2f ms; 0.9 x %.0f cores x %.0f "
	       "messages/s, zstd -3 with a dictionary: %.0f\n",
	       group, p99, cores, quantile(zstd, ROUNDS, 0.5), cpu);
	say_figures("the log", &ours);
	say_figures("with a thread for each session", &threads);
	say_figures("the least: SHA-256, zstd, AES, write, sync, wake", &bottom);
	row("64 sessions, messages/s", got, limit, got / limit, "limit");
	row("the same, of the least", got, quantile(bottom.rate, ROUNDS, 0.5),
	    got / quantile(bottom.rate, ROUNDS, 0.5), "the least");
	row("syncs a message, 64 sessions", quantile(ours.syncs, ROUNDS, 0.5), 0.04,
	    quantile(ours.syncs, ROUNDS, 0.5) / 0.04, "0.04");
	row("p99 of 64 sessions, ms", quantile(ours.p99, ROUNDS, 0.5) * 1e3, 3 * p99,
	    quantile(ours.p99, ROUNDS, 0.5) * 1e3 / (3 * p99), "3 raw p99");
}

/* The log alone: to compare two builds, or to look into one. */
static void
log_alone(void)
{
	static double v[MANY];
	struct figures f;
	for (unsigned r = 0; r < ROUNDS; r++)
		many_round(&f, r, 0, v);
	say_figures("the log", &f);
}

/* ---- where the processor's time goes ---- */

struct thread_cpu {
	char name[24];
	double s;
};

/* CPU seconds of the threads of this process, by name. */
static size_t
threads(struct thread_cpu *v, size_t max)
{
	size_t n = 0;
	DIR *d = opendir("/proc/self/task");
	const struct dirent *e;
	while (d && (e = readdir(d)) && n < max) {
		char file[300], stat[600] = "";
		unsigned long long ns = 0;
		(void)snprintf(file, sizeof file, "/proc/self/task/%s/schedstat",
		               e->d_name);
		FILE *f = fopen(file, "re");
		if (!f)
			continue;
		bool ok = fscanf(f, "%llu", &ns) == 1;
		(void)fclose(f);
		(void)snprintf(file, sizeof file, "/proc/self/task/%s/comm", e->d_name);
		f = fopen(file, "re");
		if (!ok || !f)
			continue;
		if (fgets(stat, sizeof stat, f)) {
			stat[strcspn(stat, "\n")] = '\0';
			(void)snprintf(v[n].name, sizeof v[n].name, "%.23s", stat);
			v[n++].s = (double)ns / 1e9;
		}
		(void)fclose(f);
	}
	if (d)
		(void)closedir(d);
	return n;
}

/* Bytes written to the device under the journal. write_bytes of /proc/self/io counts a
 * large folio whole where one block of it is dirty: ten times too much on ext4. */
static double
written(void)
{
	struct stat sb;
	char file[100];
	unsigned long long v[7] = {0};
	must(stat(dir, &sb) == 0, dir);
	sync();
	(void)snprintf(file, sizeof file, "/sys/dev/block/%u:%u/stat", major(sb.st_dev),
	               minor(sb.st_dev));
	FILE *f = fopen(file, "re");
	for (size_t i = 0; f && i < MW_COUNT(v); i++)
		if (fscanf(f, "%llu", &v[i]) != 1)
			break;
	if (f)
		(void)fclose(f);
	return (double)v[6] * 512;
}

static void
cpu(const char *from, size_t bytes)
{
	enum {
		ALL = 20 * 1500
	};
	static double v[ALL];
	struct thread_cpu t[64];
	choose(from, bytes);
	fresh();
	struct mw_store *st = open_as(MW_STORE_WRITE, true);
	(void)usleep(300000);
	double disk = written(), start = cpu_all();
	double took = sessions(st, 20, 0, ALL, v);
	size_t n = threads(t, MW_COUNT(t));
	struct mw_store_stats s;
	mw_store_stats(st, &s);
	mw_store_close(st);
	double all = cpu_all() - start;
	printf("%zu messages of about %zu bytes: %.1f µs of CPU each, %.0f/s\n",
	       (size_t)ALL, bytes, all / ALL * 1e6, ALL / took);
	for (size_t i = 0; i < n; i++)
		printf("  %-16s %.1f µs a message\n", t[i].name, t[i].s / ALL * 1e6);
	double device = (written() - disk) / (double)s.bytes_stored;
	row("device bytes a stored byte, with zeros ahead", device, 2.25, device / 2.25,
	    "2.25");
}

/* ---- reading ---- */

static int
count(void *arg, const struct mw_record *r)
{
	(void)r;
	++*(unsigned *)arg;
	return 0;
}

static void
reading(void)
{
	enum {
		MAILS = 20000
	};
	double v[ROUNDS], sha[ROUNDS], re[ROUNDS], open_s[ROUNDS];
	struct mw_verify_result res = {0};
	fresh();
	struct mw_store *st = open_as(MW_STORE_WRITE, true);
	static double waste[MAILS];
	(void)sessions(st, 16, 0, MAILS, waste);
	mw_store_close(st);
	for (unsigned r = 0; r < ROUNDS; r++) {
		struct mw_verify_opts o = {.sample = 0};
		uint8_t sum[MW_SHA256_LEN];
		static uint8_t block[1 << 20];
		st = open_as(MW_STORE_READ, true);
		double t0 = now_s();
		must(mw_verify_run(st, &o, &res, NULL) == 0, "verify");
		v[r] = (double)res.bytes / (now_s() - t0) / 1e6;
		t0 = now_s();
		for (unsigned i = 0; i < 100; i++)
			mw_sha256_of(block, sizeof block, sum);
		sha[r] = 100 * 1.048576 / (now_s() - t0);
		uint64_t n;
		t0 = now_s();
		must(mw_store_reindex(st, &n, NULL) == 0, "reindex");
		re[r] = (double)n / (now_s() - t0);
		mw_store_close(st);
	}
	double a = quantile(v, ROUNDS, 0.5), b = quantile(sha, ROUNDS, 0.5);
	row("verify, all but contents, MB/s", a, b, a / b, "SHA-256");
	row("index rebuild, records/s", quantile(re, ROUNDS, 0.5), 0, 0, "");
	st = open_as(MW_STORE_READ, true);
	for (unsigned r = 0; r < ROUNDS; r++) {
		unsigned n = 0;
		char who[40];
		(void)snprintf(who, sizeof who, "u%u@bench.test", r * 7);
		double t0 = now_s();
		must(mw_store_find(st, MW_KEY_RCPT, mw_strz(who), count, &n, NULL) == 0,
		     "find");
		open_s[r] = (now_s() - t0) * 1e3;
		must(n == MAILS / 1000, "hits");
	}
	row("look-up of 20 mails of one among 20,000, ms", quantile(open_s, ROUNDS, 0.5),
	    1, quantile(open_s, ROUNDS, 0.5), "1 ms");
	for (unsigned r = 0; r < ROUNDS; r++) {
		struct mw_record rec;
		struct mw_mail m;
		MW_ARENA_AUTO *arena = mw_arena_new(0);
		MW_BUF_AUTO body = {0};
		double t0 = now_s();
		must(mw_store_last(st, MAILS / 2 + r * 100, &rec, NULL) == 1, "last");
		double t1 = now_s();
		must(mw_record_mail(st, &rec, arena, &m, NULL) == 0 &&
		         mw_record_content(st, &rec, &m, 1 << 20, &body, NULL) == 0,
		     "read");
		(void)t0;
		open_s[r] = (now_s() - t1) * 1e3;
	}
	row("one message read back warm, ms", quantile(open_s, ROUNDS, 0.5), 5,
	    quantile(open_s, ROUNDS, 0.5) / 5, "5 ms");
	mw_store_close(st);
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	row("most memory of this program, MB", (double)u.ru_maxrss / 1024, 128,
	    (double)u.ru_maxrss / 1024 / 128, "64+64x1");
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		(void)fprintf(stderr, "usage: engine DIRECTORY PART [MAIL]\n");
		return 64;
	}
	(void)snprintf(dir, sizeof dir, "%s", argv[1]);
	(void)snprintf(path, sizeof path, "%s/journal", dir);
	struct sched_param none = {0};
	(void)sched_setscheduler(0, SCHED_BATCH, &none); /* as mailwald's unit asks */
	const char *from = argc > 3 && *argv[3] ? argv[3] : NULL;
	choose(from, SIZE);
	make_keys();
	printf("%-44s %10s %10s %-10s %6s\n", "", "measured", "limit", "", "ratio");
	const char *part = argc > 2 ? argv[2] : "";
	if (!*part || strcmp(part, "latency") == 0)
		latency();
	if (!*part || strcmp(part, "many") == 0)
		many();
	if (strcmp(part, "log") == 0)
		log_alone();
	if (!*part || strcmp(part, "reading") == 0)
		reading();
	if (!*part || strcmp(part, "cpu") == 0) {
		cpu(from, 4096);
		cpu(from, 8192);
	}
	return 0;
}
