/* engine.c - the log engine beside raw limits measured in the same run; see engine. */
#include "journal/base/id.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/hpke.h"
#include "journal/codec/zstd.h"
#include "journal/index/index.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/bench/raw.h"
#include "tests/support/dice.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
	SIZE = 8192,
	GATHER_US = 8000, /* the default of commit_gather */
	ROUNDS = 5
};

static char dir[200], path[260];

/* What is appended: real mail where a directory of it is given, else a made-up text. */
struct message {
	uint8_t *p;
	size_t n;
};
static struct message *mails;
static size_t n_mails;
static uint8_t public_key[MW_HPKE_KEY], secret_key[MW_HPKE_KEY];

static double
now_s(void)
{
	const struct mw_clock *c = mw_clock_system();
	return (double)c->mono_us(c) / 1e6;
}

static void
must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "engine: %s\n", what);
	exit(70);
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double
at(double *v, size_t n, double q)
{
	qsort(v, n, sizeof *v, by_value);
	return v[(size_t)((double)(n - 1) * q)];
}

static void
row(const char *what, double got, double limit, double ratio, const char *unit)
{
	printf("%-44s %10.2f %10.2f %-10s %6.2f\n", what, got, limit, unit, ratio);
	(void)fflush(stdout);
}

static void
keep(uint8_t *p, size_t n)
{
	mails = reallocarray(mails, n_mails + 1, sizeof *mails);
	must(mails != NULL, "memory");
	mails[n_mails++] = (struct message){p, n};
}

static size_t least, most; /* bytes of the files that are taken */

static int
load_one(const char *name, const struct stat *sb, int flag, struct FTW *w)
{
	size_t n = (size_t)sb->st_size;
	(void)w;
	if (flag != FTW_F || n < least || n > most)
		return 0;
	FILE *f = fopen(name, "re");
	uint8_t *p = malloc(n);
	must(f && p && fread(p, 1, n, f) == n, name);
	(void)fclose(f);
	keep(p, n);
	return 0;
}

/* A text that compresses well: words, with some noise. */
static void
make_mail(void)
{
	static uint8_t mail_bytes[SIZE];
	static const char *const w[] = {"the ",  "of ",     "mail ", "server ", "and ",
	                                "re: ",  "meeting", " on ",  "please ", "find ",
	                                "your ", "account", " to ",  "\r\n"};
	uint64_t x = 11;
	size_t n = (size_t)snprintf((char *)mail_bytes, SIZE, "Subject: bench\r\n\r\n");
	while (n < SIZE) {
		(void)dice_next(&x);
		const char *s = w[(x >> 33) % MW_COUNT(w)];
		if ((x >> 50) % 5 == 0)
			mail_bytes[n++] = (uint8_t)('a' + (x >> 40) % 26);
		for (; *s && n < SIZE; s++)
			mail_bytes[n++] = (uint8_t)*s;
	}
	keep(mail_bytes, SIZE);
}

/* Mail of about so many bytes: files of a quarter less to a quarter more. */
static void
choose(const char *from, size_t bytes)
{
	n_mails = 0;
	least = bytes - bytes / 4;
	most = bytes + bytes / 4;
	if (from)
		must(nftw(from, load_one, 16, FTW_PHYS) == 0, from);
	if (n_mails == 0)
		make_mail();
}

static struct mw_store *
open_as(enum mw_store_mode mode, bool index)
{
	struct mw_store_opts o = {.dir = path,
	                          .mode = mode,
	                          .no_index = !index,
	                          .gather_us = GATHER_US,
	                          .dictionary = mode == MW_STORE_WRITE,
	                          .recovery = public_key,
	                          .n_recovery = mode == MW_STORE_WRITE,
	                          .secret = secret_key,
	                          .n_secret = mode == MW_STORE_READ};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err.msg);
		exit(70);
	}
	return st;
}

static void
fresh(void)
{
	char cmd[400];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", path);
	must(system(cmd) == 0, "cannot clean up");
	must(mw_store_create(path, NULL, NULL, NULL) == 0, "no journal");
}

struct answer {
	struct mw_store *st;
	bool more;
	int code;
	sem_t there;
};

/* Whoever has its answer and more mail is on its way with the next, as mailwald counts.
 */
static void
answered(void *arg, const struct mw_commit *c)
{
	struct answer *a = arg;
	a->code = c->code;
	if (a->more)
		mw_store_coming(a->st, 1);
	(void)sem_post(&a->there);
}

/* One message, counted as coming already; `more`: the session has another one. */
static void
append(struct mw_store *st, unsigned k, bool more)
{
	MW_ENTRY_AUTO *e = NULL;
	char qid[24], to[40], from[40];
	const struct message *b = &mails[k % n_mails];
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	(void)snprintf(to, sizeof to, "u%u@bench.test", k % 1000);
	(void)snprintf(from, sizeof from, "w%u@d%u.test", k * 7 % 5003, k % 211);
	struct mw_rcpt r = {.addr = mw_strz(to)};
	struct mw_mail m = {.time_us = 1000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(from),
	                    .client_addr = MW_STR("192.0.2.25"),
	                    .client_name = MW_STR("mail.example.net"),
	                    .helo = MW_STR("mail.example.net"),
	                    .hostname = MW_STR("mx.example.org"),
	                    .front = MW_STR("milter"),
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	must(mw_entry_new(st, MW_TYPE_MAIL, &e, NULL) == 0 &&
	         mw_entry_body(e, b->p, b->n, NULL) == 0 &&
	         mw_entry_describe(e, &m, NULL) == 0 &&
	         mw_entry_finish_mail(e, &m, NULL) == 0,
	     "a record");
	struct answer a = {.st = st, .more = more};
	(void)sem_init(&a.there, 0, 0);
	mw_store_coming(st, -1);
	mw_store_submit(st, e, answered, &a);
	while (sem_wait(&a.there) != 0)
		;
	(void)sem_destroy(&a.there);
	must(a.code == 0, "append");
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
	return at(v, n, q);
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
			mw_store_coming(st, 1);
			append(st, i, false);
			v[i] = now_s() - t;
		}
		struct mw_store_stats s;
		mw_store_stats(st, &s);
		gap[r] = (double)s.batches / (double)s.mails;
		mw_store_close(st);
		ours[r] = at(v, 500, 0.5);
	}
	double a = at(ours, ROUNDS, 0.5) * 1e6, b = at(disk, ROUNDS, 0.5) * 1e6;
	row("p50 of one session, 8 KB, µs", a, 1.5 * b + 100, a / (1.5 * b + 100),
	    "1.5 raw+100");
	row("syncs a message, one session", at(gap, ROUNDS, 0.5), 1, at(gap, ROUNDS, 0.5),
	    "1");
}

/* ---- 64 sessions ---- */

struct crowd {
	struct mw_store *st;
	unsigned first, n;
	double *v;
};

static void *
session(void *arg)
{
	struct crowd *c = arg;
	mw_store_coming(c->st, 1);
	for (unsigned i = 0; i < c->n; i++) {
		double t = now_s();
		append(c->st, c->first + i, i + 1 < c->n);
		c->v[i] = now_s() - t;
	}
	return NULL;
}

static int
drop(void *arg, const void *p, size_t n)
{
	(void)p;
	*(size_t *)arg += n;
	return 0;
}

/* Messages a second on one core, with a dictionary of the beginnings of some. */
static double
zstd_rate(void)
{
	MW_BUF_AUTO text = {0};
	MW_BUF_AUTO dict = {0};
	MW_BUF_AUTO samples = {0};
	size_t len[64], k = MW_MIN(n_mails, MW_COUNT(len)), n = 0;
	struct mw_zdict *z = NULL;
	for (size_t i = 0; i < k; i++) {
		len[i] = MW_MIN(mails[i].n, (size_t)4096);
		mw_buf_put(&text, mails[i].p, MW_MIN(len[i], (size_t)1024));
		mw_buf_put(&samples, mails[i].p, len[i]);
	}
	if (mw_zdict_make(mw_buf_str(&text), samples.p, len, (unsigned)k, 3, &dict) == 0)
		must(mw_zdict_new(dict.p, dict.n, 3, &z) == 0, "dictionary");
	double t = now_s();
	for (unsigned i = 0; i < 3000; i++)
		must(mw_zc_all(3, z, mails[i % n_mails].p, mails[i % n_mails].n, drop,
		               &n) == 0,
		     "zstd");
	t = now_s() - t;
	mw_zdict_free(z);
	return 3000 / t;
}

static void
many(void)
{
	enum {
		SESSIONS = 64,
		EACH = 400
	};
	static double v[SESSIONS * EACH];
	double rate[ROUNDS], syncs[ROUNDS], p99[ROUNDS], stored = 0;
	for (unsigned r = 0; r < ROUNDS; r++) {
		pthread_t t[SESSIONS];
		struct crowd c[SESSIONS];
		fresh();
		struct mw_store *st = open_as(MW_STORE_WRITE, true);
		(void)usleep(300000);
		double t0 = now_s();
		for (unsigned i = 0; i < SESSIONS; i++) {
			c[i] = (struct crowd){st, i * EACH, EACH, v + i * EACH};
			must(pthread_create(&t[i], NULL, session, &c[i]) == 0, "thread");
		}
		for (unsigned i = 0; i < SESSIONS; i++)
			(void)pthread_join(t[i], NULL);
		rate[r] = SESSIONS * EACH / (now_s() - t0);
		struct mw_store_stats s;
		mw_store_stats(st, &s);
		syncs[r] = (double)s.batches / (double)s.mails;
		stored = (double)s.bytes_stored / (double)s.mails;
		mw_store_close(st);
		p99[r] = at(v, SESSIONS * EACH, 0.99);
	}
	/* the limits: ready records gathered and synced, and compressing on all cores */
	double raw_rate[ROUNDS], raw_p99[ROUNDS];
	for (unsigned r = 0; r < ROUNDS; r++) {
		size_t room = 8 << 20;
		int fd = prepared(room);
		raw_rate[r] = raw_crowd(fd, room, (size_t)stored, EACH, v);
		must(raw_rate[r] > 0, "raw group commit");
		raw_p99[r] = at(v, SESSIONS * EACH, 0.99);
		(void)close(fd);
	}
	double group = at(raw_rate, ROUNDS, 0.5), group_p99 = at(raw_p99, ROUNDS, 0.5);
	double zstd = zstd_rate();
	double cpu = 0.9 * (double)sysconf(_SC_NPROCESSORS_ONLN) * zstd;
	printf("raw group commit %.0f records/s, p99 %.2f ms; zstd -3 with a dictionary "
	       "%.0f messages/s on a core\n",
	       group, group_p99 * 1e3, zstd);
	double limit = MW_MIN(cpu, group);
	double got = at(rate, ROUNDS, 0.5);
	row("64 sessions, messages/s", got, limit, got / limit, "limit");
	row("syncs a message, 64 sessions", at(syncs, ROUNDS, 0.5), 0.04,
	    at(syncs, ROUNDS, 0.5) / 0.04, "0.04");
	row("p99 of 64 sessions, ms", at(p99, ROUNDS, 0.5) * 1e3, 3 * group_p99 * 1e3,
	    at(p99, ROUNDS, 0.5) / (3 * group_p99), "3 raw p99");
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

static double
cpu_all(void)
{
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
	       (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6;
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
		SESSIONS = 20,
		EACH = 1500,
		ALL = SESSIONS * EACH
	};
	static double v[ALL];
	struct thread_cpu t[64];
	pthread_t id[SESSIONS];
	struct crowd c[SESSIONS];
	choose(from, bytes);
	fresh();
	struct mw_store *st = open_as(MW_STORE_WRITE, true);
	(void)usleep(300000);
	double disk = written(), start = cpu_all(), t0 = now_s();
	for (unsigned i = 0; i < SESSIONS; i++) {
		c[i] = (struct crowd){st, i * EACH, EACH, v + i * EACH};
		must(pthread_create(&id[i], NULL, session, &c[i]) == 0, "thread");
	}
	for (unsigned i = 0; i < SESSIONS; i++)
		(void)pthread_join(id[i], NULL);
	double took = now_s() - t0;
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
	pthread_t t[16];
	struct crowd c[16];
	static double waste[MAILS];
	for (unsigned i = 0; i < 16; i++) {
		c[i] = (struct crowd){st, i * (MAILS / 16), MAILS / 16,
		                      waste + i * (MAILS / 16)};
		must(pthread_create(&t[i], NULL, session, &c[i]) == 0, "thread");
	}
	for (unsigned i = 0; i < 16; i++)
		(void)pthread_join(t[i], NULL);
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
	double a = at(v, ROUNDS, 0.5), b = at(sha, ROUNDS, 0.5);
	row("verify, all but contents, MB/s", a, b, a / b, "SHA-256");
	row("index rebuild, records/s", at(re, ROUNDS, 0.5), 0, 0, "");
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
	row("look-up of 20 mails of one among 20,000, ms", at(open_s, ROUNDS, 0.5), 1,
	    at(open_s, ROUNDS, 0.5), "1 ms");
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
	row("one message read back warm, ms", at(open_s, ROUNDS, 0.5), 5,
	    at(open_s, ROUNDS, 0.5) / 5, "5 ms");
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
	const char *from = argc > 3 && *argv[3] ? argv[3] : NULL;
	choose(from, SIZE);
	mw_random(secret_key, sizeof secret_key);
	must(mw_hpke_public(secret_key, public_key) == 0, "keys");
	printf("%-44s %10s %10s %-10s %6s\n", "", "measured", "limit", "", "ratio");
	const char *part = argc > 2 ? argv[2] : "";
	if (!*part || strcmp(part, "latency") == 0)
		latency();
	if (!*part || strcmp(part, "many") == 0)
		many();
	if (!*part || strcmp(part, "reading") == 0)
		reading();
	if (!*part || strcmp(part, "cpu") == 0) {
		cpu(from, 4096);
		cpu(from, 8192);
	}
	return 0;
}
