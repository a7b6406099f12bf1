#include "tests/bench/scale.h"

#include "journal/base/id.h"
#include "journal/base/util.h"
#include "journal/codec/keyring.h"
#include "tests/bench/figures.h"
#include "tests/support/dice.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
	WRITERS = 32
};

char path[260];
unsigned long all_mails, people, days;
size_t pad;
static uint8_t public_key[MW_KEY_LEN], secret_key[MW_KEY_LEN];
static struct mw_clock lying; /* the writer's: days pass as it likes */
static _Atomic int64_t lie_us;
static int64_t begin_us;

static int64_t
lie(const struct mw_clock *c)
{
	(void)c;
	return lie_us;
}

struct mw_store *
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

void
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
void
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
