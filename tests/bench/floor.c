#include "tests/bench/floor.h"

#include "journal/base/util.h"
#include "journal/codec/aead.h"
#include "journal/codec/digest.h"
#include "tests/bench/crowd.h"
#include "tests/bench/figures.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	SESSIONS = 64,
	ENOUGH = SESSIONS / 2,
	MOST = 32768 /* bytes of a record */
};

struct record {
	struct crowd_turn *t;
	struct record *next;
	size_t n;
	uint8_t bytes[MOST];
};

struct log {
	pthread_mutex_t mu;
	pthread_cond_t work;
	struct record *head; /* guarded by mu */
	unsigned waiting, left;
	int fd;
	size_t room;
	const struct mw_zdict *z;
	const struct floor_mail *m;
	size_t n_mail;
};

static int
keep(void *arg, const void *p, size_t n)
{
	struct record *r = arg;
	must(n <= MOST - MW_AEAD_TAG - r->n, "record");
	memcpy(r->bytes + r->n, p, n);
	r->n += n;
	return 0;
}

static void *
hand(void *arg, unsigned k, struct crowd_turn *t)
{
	struct log *l = arg;
	const struct floor_mail *m = &l->m[k % l->n_mail];
	static const uint8_t key[MW_AEAD_KEY], nonce[MW_AEAD_NONCE];
	uint8_t sum[MW_SHA256_LEN];
	struct mw_aead a = {0};
	struct record *r = malloc(sizeof *r);
	must(r != NULL, "memory");
	r->t = t;
	r->n = 0;
	mw_sha256_of(m->p, m->n, sum);
	must(mw_zc_all(3, l->z, m->p, m->n, keep, r) == 0, "zstd");
	struct mw_aead_in in = {nonce, sum, sizeof sum, r->bytes, r->n};
	must(mw_aead_init(&a, key) == 0 && mw_aead_seal(&a, &in, r->bytes) == 0, "seal");
	mw_aead_done(&a);
	r->n += MW_AEAD_TAG;
	(void)pthread_mutex_lock(&l->mu);
	r->next = l->head;
	l->head = r;
	l->waiting++;
	if (l->waiting >= MW_MIN((unsigned)ENOUGH, l->left))
		(void)pthread_cond_signal(&l->work);
	(void)pthread_mutex_unlock(&l->mu);
	return r;
}

static void *
commit(void *arg)
{
	struct log *l = arg;
	size_t at = 0;
	(void)pthread_mutex_lock(&l->mu);
	while (l->left) {
		if (l->waiting < MW_MIN((unsigned)ENOUGH, l->left)) {
			(void)pthread_cond_wait(&l->work, &l->mu);
			continue;
		}
		struct iovec iov[SESSIONS];
		struct record *list = l->head, *next;
		int n = 0;
		size_t bytes = 0;
		for (struct record *r = list; r; r = r->next) {
			iov[n++] = (struct iovec){r->bytes, r->n};
			bytes += r->n;
		}
		l->head = NULL;
		l->waiting = 0;
		l->left -= (unsigned)n;
		(void)pthread_mutex_unlock(&l->mu);
		at = at + bytes > l->room ? 0 : at;
		must(pwritev(l->fd, iov, n, (off_t)at) == (ssize_t)bytes &&
		         fdatasync(l->fd) == 0,
		     "floor commit");
		at += bytes;
		for (struct record *r = list; r; r = next) {
			next = r->next;
			crowd_done(r->t); /* r may be gone now */
		}
		(void)pthread_mutex_lock(&l->mu);
	}
	(void)pthread_mutex_unlock(&l->mu);
	return NULL;
}

double
floor_run(int fd, size_t room, const struct mw_zdict *z, const struct floor_mail *m,
          size_t n_mail, unsigned messages, double *v)
{
	struct log l = {.mu = PTHREAD_MUTEX_INITIALIZER,
	                .work = PTHREAD_COND_INITIALIZER,
	                .left = messages,
	                .fd = fd,
	                .room = room,
	                .z = z,
	                .m = m,
	                .n_mail = n_mail};
	struct crowd c = {.sessions = SESSIONS,
	                  .messages = messages,
	                  .arg = &l,
	                  .hand = hand,
	                  .drop = free};
	pthread_t t;
	must(pthread_create(&t, NULL, commit, &l) == 0, "thread");
	double took = crowd_run(&c, v);
	(void)pthread_join(t, NULL);
	return messages / took;
}
