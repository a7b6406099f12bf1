#include "tests/bench/mail_log.h"

#include "journal/base/id.h"
#include "journal/base/util.h"
#include "journal/codec/hpke.h"
#include "tests/bench/crowd.h"
#include "tests/bench/figures.h"
#include "tests/support/dice.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	SIZE = 8192,
	GATHER_US = 8000 /* the default of commit_gather */
};

char dir[200], path[260];
struct floor_mail *mails;
size_t n_mails;
atomic_bool learned;
static uint8_t public_key[MW_HPKE_KEY], secret_key[MW_HPKE_KEY];

static void
keep(uint8_t *p, size_t n)
{
	mails = reallocarray(mails, n_mails + 1, sizeof *mails);
	must(mails != NULL, "memory");
	mails[n_mails++] = (struct floor_mail){p, n};
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

void
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

void
make_keys(void)
{
	mw_random(secret_key, sizeof secret_key);
	must(mw_hpke_public(secret_key, public_key) == 0, "keys");
}

static void
on_note(void *arg, int level, const char *text)
{
	(void)arg;
	(void)level;
	if (strstr(text, "event=dictionary-"))
		atomic_store(&learned, true);
}

struct mw_store *
open_as(enum mw_store_mode mode, bool index)
{
	struct mw_store_opts o = {.dir = path,
	                          .mode = mode,
	                          .no_index = !index,
	                          .gather_us = GATHER_US,
	                          .note = on_note,
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

void
fresh(void)
{
	char cmd[400];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", path);
	must(system(cmd) == 0, "cannot clean up");
	must(mw_store_create(path, NULL, NULL, NULL) == 0, "no journal");
}

/* A record of message k, finished. */
static struct mw_entry *
entry(struct mw_store *st, unsigned k)
{
	MW_ENTRY_AUTO *e = NULL;
	char qid[24], to[40], from[40];
	const struct floor_mail *b = &mails[k % n_mails];
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
	return MW_TAKE(e);
}

void
append(struct mw_store *st, unsigned k)
{
	MW_ENTRY_AUTO *e = entry(st, k);
	must(mw_store_append(st, e, NULL, NULL) == 0, "append");
}

/* ---- sessions ---- */

struct turn {
	struct mw_store *st;
	struct mw_entry *e;
	struct crowd_turn *t;
};

/* Whoever has its answer is on its way with the next message, as mailwald counts. */
static void
answered(void *arg, const struct mw_commit *c)
{
	struct turn *t = arg;
	must(c->code == 0, "append");
	mw_store_coming(t->st, 1);
	crowd_done(t->t);
}

static void *
hand(void *arg, unsigned k, struct crowd_turn *ct)
{
	struct turn *t = malloc(sizeof *t);
	must(t != NULL, "memory");
	*t = (struct turn){arg, entry(arg, k), ct};
	mw_store_submit(t->st, t->e, answered, t);
	mw_store_coming(arg, -1);
	return t;
}

static void
drop_turn(void *record)
{
	struct turn *t = record;
	mw_entry_free(t->e);
	free(t);
}

static void
no_more(void *arg)
{
	mw_store_coming(arg, -1);
}

double
sessions(struct mw_store *st, unsigned n, unsigned threads, unsigned messages, double *v)
{
	struct crowd c = {.sessions = n,
	                  .messages = messages,
	                  .threads = threads,
	                  .arg = st,
	                  .hand = hand,
	                  .drop = drop_turn,
	                  .none = no_more};
	mw_store_coming(st, (int)n);
	return crowd_run(&c, v);
}
