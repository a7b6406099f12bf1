/* scale.c - a journal of many messages: what reading it takes, beside limits measured in
 * the same run; see scale. */
#include "journal/base/arena.h"
#include "journal/base/bytes.h"
#include "journal/base/id.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/keyring.h"
#include "journal/index/index.h"
#include "journal/index/kv.h"
#include "journal/segment/segment.h"
#include "journal/store/store.h"
#include "journal/verify/verify.h"
#include "tests/support/dice.h"

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum {
	ROUNDS = 5,
	WRITERS = 32,
	PAD = 6000 /* bytes more to each message, where it is the bytes that count */
};

static char path[260];
static uint8_t public_key[MW_KEY_LEN], secret_key[MW_KEY_LEN];
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
	(void)fprintf(stderr, "scale: %s\n", what);
	exit(70);
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double
median(double *v, size_t n)
{
	qsort(v, n, sizeof *v, by_value);
	return v[n / 2];
}

static void
row(const char *what, double got, double limit, const char *unit)
{
	printf("%-52s %12.2f %12.2f %-22s %8.2f\n", what, got, limit, unit,
	       limit > 0 ? got / limit : 0);
	(void)fflush(stdout);
}

static void
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

/* ---- a day of mail, and a few days after it ---- */

static unsigned long all_mails, people, days;
static struct mw_clock lying; /* the writer's: days pass as it likes */
static _Atomic int64_t lie_us;

static int64_t
lie(const struct mw_clock *c)
{
	(void)c;
	return lie_us;
}
static size_t pad;
static int64_t begin_us;

static struct mw_store *
open_as(enum mw_store_mode mode, bool key)
{
	struct mw_store_opts o = {.dir = path,
	                          .mode = mode,
	                          .recovery = public_key,
	                          .n_recovery = mode == MW_STORE_WRITE,
	                          .secret = secret_key,
	                          .delimiter = "+",
	                          .n_secret = key,
	                          .clock = mode == MW_STORE_WRITE ? &lying : NULL};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(&o, &st, &err) < 0)
		must(false, err.msg);
	return st;
}

static void
append(struct mw_store *st, unsigned long k, int64_t time_us)
{
	static const char text[] =
	    "From: Somebody <somebody@example.net>\r\nSubject: about that\r\n"
	    "Message-ID: <%lu.%lx@example.net>\r\n\r\nDear all,\r\n\r\n"
	    "this is message %lu, and it says %lx, %lx and %lx.\r\n";
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	    "0123456789+/";
	MW_ENTRY_AUTO *e = NULL;
	char qid[24], to[40], from[40], body[600 + PAD];
	uint64_t x = k * 2654435761UL;
	size_t n = (size_t)snprintf(body, 600, text, k, x, k, x * 7, x * 13, x * 29);
	for (size_t i = 0; i < pad; i++) { /* as if of an attachment */
		body[n++] = digits[dice_next(&x) >> 58];
	}
	(void)snprintf(qid, sizeof qid, "Q%lu", k);
	(void)snprintf(to, sizeof to, "u%lu@bench.test", k % people);
	(void)snprintf(from, sizeof from, "w%lu@d%lu.test", k * 7 % 50021, k % 2111);
	struct mw_rcpt r = {.addr = mw_strz(to)};
	struct mw_mail m = {.time_us = time_us,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(from),
	                    .client_addr = MW_STR("192.0.2.25"),
	                    .helo = MW_STR("mail.example.net"),
	                    .front = MW_STR("milter"),
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	for (int64_t was = lie_us; was < time_us;) /* a clock does not go back */
		if (atomic_compare_exchange_weak(&lie_us, &was, time_us))
			break;
	must(mw_entry_new(st, MW_TYPE_MAIL, &e, NULL) == 0 &&
	         mw_entry_body(e, body, n, NULL) == 0 &&
	         mw_entry_describe(e, &m, NULL) == 0 &&
	         mw_entry_finish_mail(e, &m, NULL) == 0 &&
	         mw_store_append(st, e, NULL, NULL) == 0,
	     "append");
}

/* What was made may be read by another process: it has the key and the number. */
static void
made(void)
{
	char file[300];
	(void)snprintf(file, sizeof file, "%s.made", path);
	FILE *f = fopen(file, "we");
	must(f && fprintf(f, "%lu %lu\n", all_mails, days) > 0 && fclose(f) == 0, file);
}

static void
known(void)
{
	char file[300];
	(void)snprintf(file, sizeof file, "%s.made", path);
	FILE *f = fopen(file, "re");
	must(f && fscanf(f, "%lu %lu", &all_mails, &days) == 2, file);
	(void)fclose(f);
	people = all_mails / 100 ? all_mails / 100 : 1;
	(void)snprintf(file, sizeof file, "%s.key", path);
	must(mw_keyring_load_secret(file, MW_STR(""), secret_key, NULL) == 0, file);
}

struct writer {
	struct mw_store *st;
	unsigned long first, last;
};

static void *
write_some(void *arg)
{
	const struct writer *w = arg;
	double step = (double)days * 86400e6 / (double)all_mails;
	for (unsigned long k = w->first; k < w->last; k++)
		append(w->st, k, begin_us + (int64_t)(step * (double)k));
	return NULL;
}

/* Writers take turns in stretches, so that time goes on about as the log does. */
static void
make(unsigned long n)
{
	enum {
		STRETCH = 64
	};
	pthread_t t[WRITERS];
	struct writer w[WRITERS];
	char file[300];
	(void)snprintf(file, sizeof file, "%s.key", path);
	shell("rm -f '%s' '%s.pub'", file, file);
	must(mw_keyring_new(file, MW_STR(""), public_key, NULL) == 0 &&
	         mw_keyring_load_secret(file, MW_STR(""), secret_key, NULL) == 0,
	     file);
	all_mails = n;
	people = n / 100 ? n / 100 : 1;
	begin_us = mw_clock_system()->now_us(mw_clock_system()) -
	           (int64_t)(days + 7) * 86400000000;
	shell("rm -rf '%s'", path);
	must(mw_store_create(path, NULL, NULL, NULL) == 0, "no journal");
	lying = *mw_clock_system();
	lying.now_us = lie;
	lie_us = begin_us;
	struct mw_store *st = open_as(MW_STORE_WRITE, false);
	double t0 = now_s();
	for (unsigned long at = 0; at < n;) {
		unsigned long round = MW_MIN(n - at, (unsigned long)WRITERS * STRETCH);
		unsigned long each = (round + WRITERS - 1) / WRITERS, k = at;
		unsigned used = 0;
		for (; used < WRITERS && k < at + round; used++, k += each) {
			w[used] = (struct writer){st, k, MW_MIN(k + each, at + round)};
			must(pthread_create(&t[used], NULL, write_some, &w[used]) == 0,
			     "thread");
		}
		for (unsigned i = 0; i < used; i++)
			(void)pthread_join(t[i], NULL);
		at += round;
	}
	must(mw_store_roll(st, NULL) == 0, "roll");
	for (unsigned day = 1; day <= 6; day++) {
		append(st, n + day, begin_us + (int64_t)(day + days) * 86400000000 - 1);
		must(mw_store_roll(st, NULL) == 0, "roll");
	}
	mw_store_close(st);
	made();
	printf("%lu messages written, %.0f/s\n", n, (double)n / (now_s() - t0));
	(void)fflush(stdout);
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
	double hash = median(sha, ROUNDS);
	double limit = MW_MIN(median(raw[0], ROUNDS), hash);
	printf(
	    "read cold %.0f, warm %.0f, SHA-256 on all processors %.0f MB/s, %.0f MB\n",
	    median(raw[0], ROUNDS), median(raw[1], ROUNDS), hash, read_all / 1e6);
	row("verify, cold, MB/s (aim 0.7)", median(v[0], ROUNDS), limit,
	    "min(read, SHA-256)");
	limit = MW_MIN(median(raw[1], ROUNDS), hash);
	row("verify, warm, MB/s", median(v[1], ROUNDS), limit, "min(read, SHA-256)");
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
		must(mw_seg_end(s, NULL, &e, NULL) == 0 && e.gaps == 0, "scan");
		v[r] = (double)e.end / (now_s() - t0) / 1e6;
		mw_seg_free(s);
	}
	row("recovery scan of a segment, cold, MB/s (aim 0.7)", median(v, ROUNDS),
	    median(raw, ROUNDS), "read");
}

/* ---- the index ---- */

enum {
	TOKENS = 14,
	PART = 100000 /* messages to a transaction of the limit */
};

static unsigned long appended, to_append;

static int
append_keys(void *arg, struct mw_kv_txn *t)
{
	(void)arg;
	unsigned long end = MW_MIN(to_append, appended + PART);
	for (unsigned long k = appended * TOKENS; k < end * TOKENS; k++) {
		uint8_t key[16] = {0}, val[8] = {0};
		mw_put64be(key, k * 97);
		mw_put64be(key + 8, k);
		if (mw_kv_append(t, mw_str((char *)key, sizeof key),
		                 mw_str((char *)val, sizeof val)) < 0)
			return MW_EIO;
	}
	return 0;
}

/* Messages a second: a key of 16 bytes and a place of 8 for each token, sorted before. */
static double
sorted_append(unsigned long n)
{
	struct mw_kv *kv = NULL;
	char file[300];
	(void)snprintf(file, sizeof file, "%s.lmdb", path);
	shell("rm -f '%s' '%s-lock'", file, file);
	double t0 = now_s();
	must(mw_kv_open(file, MW_KV_CREATE, &kv, NULL) == 0, file);
	to_append = n;
	for (appended = 0; appended < n; appended += MW_MIN(n - appended, PART))
		must(mw_kv_write(kv, append_keys, NULL, NULL) == 0, "LMDB");
	must(mw_kv_sync(kv, NULL) == 0, "LMDB");
	double rate = (double)n / (now_s() - t0);
	mw_kv_close(kv);
	shell("rm -f '%s' '%s-lock'", file, file);
	return rate;
}

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
	row("index rebuild, records/s (aim 0.5)", median(v, 3), median(raw, 3),
	    "LMDB sorted append");
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
	row("the 100 mails of one recipient, warm, ms", median(v, ROUNDS), 1, "1 ms");
	row("one message read back, warm, ms", median(back, ROUNDS), 5, "5 ms");
	row("one known ID, all files cold, until its bytes, ms", median(by_id, ROUNDS),
	    50, "50 ms");
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

/* ---- an index of so many entries, without a log ---- */

static void
index_alone(unsigned long n)
{
	enum {
		BATCH = 16384,
		SEGMENT = 20000, /* records to a segment: 64 MiB of 3 KB each */
		FRAME = 3200
	};
	static uint8_t tokens[BATCH][TOKENS * 8];
	static struct mw_index_entry e[BATCH];
	static const uint8_t journal[MW_ID_LEN] = "bench";
	struct mw_index *ix = NULL;
	unsigned long k = 0, who = n / 100 ? n / 100 : 1;
	double raw = sorted_append(MW_MIN(n, 2000000UL));
	shell("rm -rf '%s' && mkdir -p '%s/index'", path, path);
	must(mw_index_open(path, journal, 1, &ix, NULL) == 0, "index");
	double t0 = now_s();
	while (k < n) {
		size_t i = 0;
		uint64_t part = k / SEGMENT / MW_INDEX_SPAN;
		struct mw_index_point p = {0};
		for (; i < BATCH && k < n && k / SEGMENT / MW_INDEX_SPAN == part;
		     i++, k++) {
			for (unsigned j = 0; j < TOKENS; j++) {
				uint64_t x = j == 0 ? k % who + 1 : k * TOKENS + j + n;
				x *= UINT64_C(0x9e3779b97f4a7c15);
				mw_put64be(tokens[i] + (size_t)8 * j, x ^ x >> 32);
			}
			e[i] = (struct mw_index_entry){k + 1, k / SEGMENT + 1,
			                               8192 + k % SEGMENT * FRAME,
			                               tokens[i], TOKENS};
			p = (struct mw_index_point){
			    e[i].segment, e[i].offset + FRAME, k + 2, e[i].offset, {0}};
		}
		must(mw_index_put(ix, e, i, &p, NULL) == 0, "put");
	}
	mw_index_close(ix);
	printf("%lu entries of %d tokens\n", n, TOKENS);
	row("index built, entries/s", (double)n / (now_s() - t0), raw,
	    "LMDB sorted append");
	must(mw_index_open(path, journal, 0, &ix, NULL) == 0, "index");
	double v[ROUNDS];
	for (unsigned r = 0; r < 2 * ROUNDS; r++) { /* the second half is warm */
		static struct mw_index_hit hit[200];
		uint8_t t[8];
		uint64_t x =
		    (who / 7 * (r % ROUNDS + 1) % who + 1) * UINT64_C(0x9e3779b97f4a7c15);
		int found = 0;
		mw_put64be(t, x ^ x >> 32);
		t0 = now_s();
		for (unsigned long s = 1; s <= (n - 1) / SEGMENT + 1; s += MW_INDEX_SPAN)
			found += mw_index_find(ix, s, t, 0, hit, 200, NULL);
		v[r % ROUNDS] = (now_s() - t0) * 1e3;
		must(found >= 100, "found");
	}
	row("the 100 places of one recipient, warm, ms", median(v, ROUNDS), 1, "1 ms");
	mw_index_close(ix);
	must(mw_index_open(path, journal, 1, &ix, NULL) == 0, "index");
	t0 = now_s();
	for (unsigned long s = 1; s <= (n - 1) / SEGMENT + 1; s += MW_INDEX_SPAN) {
		struct mw_index_point p;
		must(mw_index_point(ix, s, &p, NULL) == 1, "state");
	}
	row("looked through by a writer, entries/s", (double)n / (now_s() - t0), raw,
	    "LMDB sorted append");
	mw_index_close(ix);
	shell("du -sm '%s/index' | cut -f1 | sed 's/$/ MB of index/'", path);
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
