#include "milter/verdict.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/aside.h"
#include "milter/helper.h"

enum {
	WORKERS = 4,
	OPEN_MAX = 2000,
	NAME_KEPT = 1000 /* bytes of HELO and sender in a record */
};

struct question {
	struct mw_aside_q q;
	uint8_t id[MW_ID_LEN];
	uint64_t seq;
	struct mw_spf spf; /* strings point into text */
	char text[];
};

struct mw_verdict {
	struct mw_store *store;
	struct mw_helper_setup setup;
	int stop_fd;
	struct mw_aside *aside;
	atomic_uint_fast64_t deaths;
	struct mw_helper helper[WORKERS]; /* each of one thread */
};

static int64_t
now_us(bool wall)
{
	const struct mw_clock *c = mw_clock_system();
	return wall ? c->now_us(c) : c->mono_us(c);
}

/* ---- questions ---- */

static bool
is_outside(struct mw_str addr)
{
	char text[INET6_ADDRSTRLEN + 1];
	struct in_addr v4;
	struct in6_addr v6;
	if (addr.n == 0 || addr.n >= sizeof text)
		return false;
	memcpy(text, addr.p, addr.n);
	text[addr.n] = 0;
	if (inet_pton(AF_INET, text, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 != 127;
	return inet_pton(AF_INET6, text, &v6) == 1 && !IN6_IS_ADDR_LOOPBACK(&v6);
}

static struct mw_str
keep(char **at, struct mw_str s)
{
	size_t n = MW_MIN(s.n, (size_t)NAME_KEPT);
	struct mw_str out = mw_str(*at, n);
	if (n)
		memcpy(*at, s.p, n);
	*at += n;
	return out;
}

static struct question *
question_new(const struct mw_mail *m, const uint8_t id[MW_ID_LEN], uint64_t seq)
{
	size_t n = MW_MIN(m->client_addr.n, (size_t)NAME_KEPT) +
	           MW_MIN(m->helo.n, (size_t)NAME_KEPT) +
	           MW_MIN(m->sender.n, (size_t)NAME_KEPT);
	struct question *q = calloc(1, sizeof *q + n);
	if (!q)
		return NULL;
	char *at = q->text;
	q->q.bytes = sizeof *q + n;
	memcpy(q->id, id, MW_ID_LEN);
	q->seq = seq;
	q->spf.ip = keep(&at, m->client_addr);
	q->spf.helo = keep(&at, m->helo);
	q->spf.from = keep(&at, m->sender);
	return q;
}

void
mw_verdict_ask(struct mw_verdict *v, const struct mw_mail *m, const uint8_t id[MW_ID_LEN],
               uint64_t seq)
{
	if (!v || m->direction != MW_DIR_IN || m->flags & MW_MAIL_NON_SMTP ||
	    !is_outside(m->client_addr))
		return;
	struct question *q = question_new(m, id, seq);
	mw_aside_ask(v->aside, q ? &q->q : NULL);
}

static void
question_free(struct mw_aside_q *q)
{
	free(q);
}

/* ---- the answer ---- */

/* A record of the verdict, sealed here, not in the writer. */
static int
seal(struct mw_verdict *v, struct question *q)
{
	struct mw_err err = {0};
	MW_BUF_AUTO cbor = {0};
	MW_ENTRY_AUTO *e = NULL;
	memcpy(q->spf.ref, q->id, MW_ID_LEN);
	q->spf.seq = q->seq;
	int r = mw_spf_encode(&q->spf, &cbor);
	if (r == 0)
		r = mw_entry_new(v->store, MW_TYPE_SPF, &e, &err);
	if (r == 0) {
		mw_entry_refer(e, q->id);
		r = mw_entry_finish(e, q->spf.time_us, cbor.p, cbor.n, &err);
	}
	if (r < 0)
		return r;
	q->q.doubtful = q->spf.result == MW_SPF_TEMPERROR;
	q->q.entry = MW_TAKE(e);
	return 0;
}

/* MW_ECANCEL: stopped, there is no verdict. */
static int
answer(void *owner, unsigned thread, struct mw_aside_q *aq)
{
	struct mw_verdict *v = owner;
	struct question *q = (struct question *)aq;
	struct mw_helper *h = &v->helper[thread];
	struct mw_err err = {0};
	uint64_t deaths = h->deaths;
	int64_t start = now_us(false);
	q->spf.time_us = now_us(true);
	int r = mw_helper_ask(h, &q->spf, &err);
	q->spf.took_us = (uint64_t)(now_us(false) - start);
	if (r == MW_ECANCEL)
		return r;
	if (r < 0)
		mw_log(MW_LOG_NOTICE, NULL,
		       "event=spf_helper_ended error=%s reason=\"%s\"", mw_err_name(r),
		       err.msg);
	atomic_fetch_add(&v->deaths, h->deaths - deaths);
	return seal(v, q);
}

static void
hurry(void *owner)
{
	uint64_t one = 1;
	/* cannot be full */
	(void)!write(((struct mw_verdict *)owner)->stop_fd, &one, sizeof one);
}

/* By the thread that started it. */
static void
end_helper(void *owner, unsigned thread)
{
	mw_helper_end(&((struct mw_verdict *)owner)->helper[thread]);
}

static void
dropped(uint64_t total, const char *why)
{
	mw_log(MW_LOG_WARN, NULL, "event=spf_dropped dropped=%llu reason=\"%s\"",
	       (unsigned long long)total, why);
}

/* ---- life ---- */

static const struct mw_aside_kind kind = {
    .threads = WORKERS,
    .open_max = OPEN_MAX,
    .bytes_max = 16 << 20,
    .gather_ms = 250,
    .drop_at_stop = true,
    .overloaded = "more mail than SPF checks can keep up with",
    .answer = answer,
    .free = question_free,
    .hurry = hurry,
    .thread_end = end_helper,
    .dropped = dropped,
};

int
mw_verdict_check(const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_helper_setup s;
	return conf->spf ? mw_helper_setup(conf, &s, err) : 0;
}

int
mw_verdict_start(struct mw_store *store, const struct mw_conf *conf,
                 struct mw_verdict **ret, struct mw_err *err)
{
	*ret = NULL;
	if (!conf->spf)
		return 0;
	struct mw_verdict *v = calloc(1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	v->store = store;
	v->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < WORKERS; i++)
		mw_helper_init(&v->helper[i], &v->setup, v->stop_fd);
	int r = v->stop_fd < 0 ? mw_fail_errno(err, "cannot make an eventfd") : 0;
	if (r == 0)
		r = mw_helper_setup(conf, &v->setup, err);
	if (r == 0)
		r = mw_aside_start(&kind, store, v, &v->aside, err);
	if (r < 0) {
		mw_verdict_stop(v);
		return r;
	}
	*ret = v;
	return 0;
}

void
mw_verdict_stop(struct mw_verdict *v)
{
	if (!v)
		return;
	mw_aside_stop(v->aside);
	if (v->stop_fd >= 0)
		(void)close(v->stop_fd);
	free(v);
}

void
mw_verdict_stats(struct mw_verdict *v, struct mw_verdict_stats *ret)
{
	struct mw_aside_stats s;
	mw_aside_stats(v ? v->aside : NULL, &s);
	ret->checked = s.recorded;
	ret->temperror = s.doubtful;
	ret->dropped = s.dropped;
	ret->deaths = v ? atomic_load(&v->deaths) : 0;
	ret->queued = s.open;
}
