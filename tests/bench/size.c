/* size.c - what a stream of mail takes on disk, with and without a dictionary. The
 * program behind tests/bench/size, which feeds it and prints the table.
 *
 *	bench_size JOURNAL LEVEL DICTIONARY(0|1) OLDER [KEY] < stream
 *
 * KEY: encrypted, to a new key in the file KEY, and in the middle to another one, KEY.2.
 *
 * stream: for each message "SENDER RECIPIENT… TAB LENGTH LF", then its bytes. The first
 * OLDER messages are learnt from, the others are measured. Prints one JSON object. */
#include "journal/base/util.h"
#include "journal/codec/keyring.h"
#include "journal/codec/zstd.h"
#include "journal/store/store.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
	LINE = 65536,
	RCPTS = 64,
	BLOCK = 256 * 1024,
	ROUND = 1000 /* older mails to a round of training, and one at their end */
};

struct bench {
	struct mw_store *st;
	int level;
	bool dictionary;
	unsigned long older, n;
	uint64_t from_seq; /* what is measured begins here */
	uint64_t plain, alone, blocks;
	struct mw_buf block;
	double alone_s;
	uint8_t sk[2][MW_KEY_LEN], pk[2][MW_KEY_LEN];
	size_t n_keys;
};

static void
die(const char *what, const struct mw_err *err)
{
	(void)fprintf(stderr, "bench_size: %s: %s\n", what, err ? err->msg : "");
	exit(1);
}

static double
cpu_s(void)
{
	struct rusage u;
	(void)getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6;
}

static int
count(void *arg, const void *p, size_t n)
{
	(void)p;
	*(uint64_t *)arg += n;
	return 0;
}

static void
flush_block(struct bench *b)
{
	if (b->block.n &&
	    mw_zc_all(3, NULL, b->block.p, b->block.n, count, &b->blocks) < 0)
		die("zstd", NULL);
	mw_buf_clear(&b->block);
}

/* The other ways to store it, for comparison. */
static void
compare(struct bench *b, const uint8_t *p, size_t n)
{
	double start = cpu_s();
	if (mw_zc_all(3, NULL, p, n, count, &b->alone) < 0)
		die("zstd", NULL);
	b->alone_s += cpu_s() - start;
	b->plain += n;
	while (n) {
		size_t k = MW_MIN(n, BLOCK - b->block.n);
		mw_buf_put(&b->block, p, k);
		p += k;
		n -= k;
		if (b->block.n == BLOCK)
			flush_block(b);
	}
}

static uint64_t
append(struct bench *b, char *envelope, const uint8_t *p, size_t n)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	struct mw_rcpt r[RCPTS];
	struct mw_commit c;
	char qid[32], *save = NULL;
	memset(r, 0, sizeof r);
	(void)snprintf(qid, sizeof qid, "4X%08lX", b->n);
	struct mw_mail m = {.time_us = 1763600000000000 + (int64_t)b->n * 1000000,
	                    .queue_id = mw_strz(qid),
	                    .client_addr = MW_STR("192.0.2.25"),
	                    .client_name = MW_STR("mail.example.net"),
	                    .helo = MW_STR("mail.example.net"),
	                    .hostname = MW_STR("mx.example.org"),
	                    .front = MW_STR("milter"),
	                    .rcpt = r};
	char *word = strtok_r(envelope, " ", &save);
	m.sender = mw_strz(word ? word : "");
	while (m.n_rcpt < RCPTS && (word = strtok_r(NULL, " ", &save)))
		r[m.n_rcpt++] =
		    (struct mw_rcpt){.addr = mw_strz(word), .flags = MW_RCPT_LOCAL};
	if (mw_entry_new(b->st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, p, n, &err) < 0 || mw_entry_describe(e, &m, &err) < 0 ||
	    mw_entry_finish_mail(e, &m, &err) < 0 ||
	    mw_store_append(b->st, e, &c, &err) < 0)
		die("append", &err);
	return c.seq;
}

/* A new segment, to the second key if there are keys. */
static void
next_part(struct bench *b, const char *dir)
{
	struct mw_err err = {0};
	if ((b->n_keys && mw_store_set_recovery(dir, b->pk[1], 1, &err) < 0) ||
	    mw_store_roll(b->st, &err) < 0)
		die("roll", &err);
}

static void
feed(struct bench *b, const char *dir)
{
	static char line[LINE];
	MW_BUF_AUTO m = {0};
	while (fgets(line, sizeof line, stdin)) {
		char *tab = strchr(line, '\t');
		if (!tab)
			die("bad stream", NULL);
		*tab = '\0';
		size_t n = strtoul(tab + 1, NULL, 10);
		mw_buf_clear(&m);
		if (mw_buf_reserve(&m, n + 1) < 0 || fread(m.p, 1, n, stdin) != n)
			die("short stream", NULL);
		if (b->n == b->older)
			next_part(b, dir);
		if (b->n == b->older || (b->n < b->older && b->n % ROUND == ROUND - 1))
			(void)mw_store_train(b->st);
		uint64_t seq = append(b, line, m.p, n);
		if (b->n == b->older)
			b->from_seq = seq;
		if (b->n >= b->older)
			compare(b, m.p, n);
		b->n++;
	}
	flush_block(b);
}

struct sums {
	uint64_t mails, content, tags, meta, frames, dicts, n_dicts, segments, checked;
};

static int
drop(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return 0;
}

/* Reads everything back, exactly, and sums up what was measured. */
static struct sums
read_back(struct bench *b, const char *dir)
{
	struct mw_store_opts o = {.dir = dir, .secret = b->sk[0], .n_secret = b->n_keys};
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	struct sums s = {0};
	uint64_t segment = 0;
	int k;
	if (mw_store_open(&o, &st, &err) < 0 || mw_cursor_new(st, 1, &c, &err) < 0)
		die("open", &err);
	while ((k = mw_cursor_next(c, &r, &err)) == 1) {
		if (r.type == MW_TYPE_MAIL) {
			MW_ARENA_AUTO *a = mw_arena_new(0);
			struct mw_mail m;
			if (mw_record_mail(st, &r, a, &m, &err) < 0 ||
			    mw_record_body(st, &r, &m, drop, NULL, &err) < 0)
				die("read", &err);
			s.checked++;
		}
		if (r.seq + 2 < b->from_seq) /* dictionaries stand before the first */
			continue;
		s.segments += r.loc.segment != segment;
		segment = r.loc.segment;
		if (r.type == MW_TYPE_DICT) {
			s.dicts += r.frame_len;
			s.n_dicts++;
			continue;
		}
		uint64_t tags = 16 * ((r.body_len + 65551) / 65552);
		s.mails += r.type == MW_TYPE_MAIL;
		s.content += r.body_len - tags;
		s.tags += tags;
		s.meta += r.meta_len;
		s.frames += r.frame_len - r.meta_len - r.body_len;
	}
	if (k < 0)
		die("walk", &err);
	mw_cursor_free(MW_TAKE(c));
	mw_store_close(st);
	return s;
}

/* Bytes of the files in a directory. */
static uint64_t
bytes_in(const char *dir, const char *sub)
{
	char path[4096];
	uint64_t n = 0;
	(void)snprintf(path, sizeof path, "%s/%s", dir, sub);
	DIR *d = opendir(path);
	const struct dirent *e;
	while (d && (e = readdir(d))) {
		struct stat sb;
		if (fstatat(dirfd(d), e->d_name, &sb, 0) == 0 && S_ISREG(sb.st_mode))
			n += (uint64_t)sb.st_blocks * 512;
	}
	if (d)
		(void)closedir(d);
	return n;
}

static void
new_keys(struct bench *b, const char *file)
{
	struct mw_err err = {0};
	char path[4096];
	for (; b->n_keys < 2; b->n_keys++) {
		(void)snprintf(path, sizeof path, "%s%s", file, b->n_keys ? ".2" : "");
		if (mw_keyring_new(path, MW_STR(""), b->pk[b->n_keys], &err) < 0 ||
		    mw_keyring_load_secret(path, MW_STR(""), b->sk[b->n_keys], &err) < 0)
			die("keys", &err);
	}
}

static void
note(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	if (strstr(text, "dictionary"))
		(void)fprintf(stderr, "%s\n", text);
}

int
main(int argc, char **argv)
{
	struct bench b = {.n = 0};
	struct mw_err err = {0};
	if (argc < 5 || argc > 6)
		return 64;
	if (argc == 6)
		new_keys(&b, argv[5]);
	b.level = (int)strtol(argv[2], NULL, 10);
	b.dictionary = strcmp(argv[3], "0") != 0;
	b.older = strtoul(argv[4], NULL, 10);
	struct mw_store_opts o = {.dir = argv[1],
	                          .mode = MW_STORE_WRITE,
	                          .level = b.level,
	                          .dictionary = b.dictionary,
	                          .recovery = b.pk[0],
	                          .n_recovery = b.n_keys ? 1 : 0,
	                          .note = note};
	if (mw_store_create(argv[1], NULL, NULL, &err) < 0 ||
	    mw_store_open(&o, &b.st, &err) < 0)
		die(argv[1], &err);
	double start = cpu_s();
	feed(&b, argv[1]);
	double feed_s = cpu_s() - start - b.alone_s;
	mw_store_close(b.st);
	struct sums s = read_back(&b, argv[1]);
	if (s.checked != b.n)
		die("messages are missing", NULL);
	(void)printf(
	    "{\"mails\":%llu,\"plain\":%llu,\"alone\":%llu,\"blocks\":%llu,"
	    "\"content\":%llu,\"tags\":%llu,\"meta\":%llu,\"frames\":%llu,"
	    "\"dicts\":%llu,\"n_dicts\":%llu,\"segments\":%llu,"
	    "\"index\":%llu,\"all_mails\":%lu,\"cpu_s\":%.3f,\"alone_s\":%.3f}\n",
	    (unsigned long long)s.mails, (unsigned long long)b.plain,
	    (unsigned long long)b.alone, (unsigned long long)b.blocks,
	    (unsigned long long)s.content, (unsigned long long)s.tags,
	    (unsigned long long)s.meta, (unsigned long long)s.frames,
	    (unsigned long long)s.dicts, (unsigned long long)s.n_dicts,
	    (unsigned long long)s.segments,
	    (unsigned long long)bytes_in(argv[1], "index"), b.n, feed_s, b.alone_s);
	mw_buf_free(&b.block);
	return 0;
}
