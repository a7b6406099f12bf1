/* The writer's dictionary (FORMAT.md §6, I17, I18): trained on samples of the mail that
 * comes in, in a thread of its own, off the way of any commit. What is trained lives in
 * memory for as long as it is used; each segment that needs it has its own copies, which
 * the committer writes before the first record that does. */
#include "journal/codec/dict.h"
#include "journal/base/bytes.h"
#include "journal/base/domain.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/dict_int.h"
#include "journal/store/store_int.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
	SAMPLE_MOST = 16384,     /* bytes of one message */
	SAMPLES_BYTES = 4 << 20, /* a round looks at as much */
	FIRST_BYTES = 2 << 20,   /* while there is no dictionary */
	SAMPLES = 4096,
	REST_S = 600,     /* between rounds at least */
	REST_CPU = 100,   /* and as many times what the last one took */
	GAIN_PERCENT = 3, /* a new dictionary must be better by as much */
	SHARE_PERCENT = 5 /* of a segment that its dictionary may take */
};

struct mw_dict {
	atomic_uint refs;
	struct mw_zdict *z;
	struct mw_buf bytes;
	uint8_t (*id)[MW_ID_LEN]; /* of the mails it was trained on, sorted */
	size_t n_id;
	int64_t time_us;
	uint64_t stored; /* bytes of its records in a segment */
};

struct sample {
	size_t at, n;
	uint64_t sender, rcpt;
	uint8_t id[MW_ID_LEN];
};

struct mw_dicts {
	pthread_mutex_t mu; /* guards what follows; nothing is called back under it */
	pthread_cond_t wake, done;
	pthread_t thread;
	bool have_thread, stop, want, busy, tainted;
	uint64_t rounds;
	bool adopted;       /* by the last round */
	int64_t rest_until; /* monotonic µs: no samples before */
	uint8_t *mem;       /* SAMPLES_BYTES, locked */
	size_t used;
	struct sample *s;
	size_t n;
	uint8_t seen[8192];      /* a bit for the first 16 bits of each sample's ID */
	struct mw_dict *current; /* NULL: none */
	bool worth;              /* segments are large enough for it */
	uint64_t fill;
	struct mw_entry *spare; /* its records for the next segment, two in a row */
	struct mw_dict *spare_of;
};

/* ---- references ---- */

struct mw_dict *
mw_dict_ref(struct mw_dict *d)
{
	if (d)
		atomic_fetch_add(&d->refs, 1);
	return d;
}

void
mw_dict_unref(struct mw_dict *d)
{
	if (!d || atomic_fetch_sub(&d->refs, 1) != 1)
		return;
	mw_zdict_free(d->z);
	mw_buf_wipe(&d->bytes);
	mw_buf_free(&d->bytes);
	free(d->id);
	free(d);
}

const struct mw_zdict *
mw_dict_z(const struct mw_dict *d)
{
	return d ? d->z : NULL;
}

struct mw_dict *
mw_dict_get(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	if (!ds)
		return NULL;
	(void)pthread_mutex_lock(&ds->mu);
	struct mw_dict *d = ds->worth ? mw_dict_ref(ds->current) : NULL;
	(void)pthread_mutex_unlock(&ds->mu);
	return d;
}

/* With mu held. */
static void
judge_worth(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	uint64_t share = st->o.dict_share ? st->o.dict_share : SHARE_PERCENT;
	ds->worth = ds->current &&
	            (share >= 100 || ds->current->stored * 100 <= ds->fill * share);
}

void
mw_dict_fill(struct mw_store *st, uint64_t bytes)
{
	struct mw_dicts *ds = st->dicts;
	if (!ds)
		return;
	(void)pthread_mutex_lock(&ds->mu);
	ds->fill = bytes;
	judge_worth(st);
	(void)pthread_mutex_unlock(&ds->mu);
}

/* ---- samples ---- */

static uint64_t
hash_of(struct mw_store *st, struct mw_str s)
{
	uint8_t t[MW_TOKEN_LEN];
	MW_BUF_AUTO b = {0};
	struct mw_str key = mw_addr_key(s, &b);  /* empty after a failure: all are one */
	mw_store_token(st, MW_KEY_RCPT, key, t); /* nobody can aim at it */
	return mw_get64(t);
}

/* Out of the swap, where the limit lets us; pages come when they are written. */
static void
lock(void *mem)
{
	(void)mlock2(mem, SAMPLES_BYTES, MLOCK_ONFAULT);
}

/* Between rounds, which is nearly always, samples take no memory. */
static void
give_back(void *mem)
{
	(void)munlock(mem, SAMPLES_BYTES); /* what is locked is not given back */
	(void)madvise(mem, SAMPLES_BYTES, MADV_DONTNEED);
	lock(mem);
}

/* With mu held. */
static void
drop_samples(struct mw_dicts *ds)
{
	explicit_bzero(ds->mem, ds->used);
	give_back(ds->mem);
	memset(ds->seen, 0, sizeof ds->seen);
	ds->used = ds->n = 0;
}

/* With mu held: may samples be taken now? */
static bool
wanted(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	return !ds->busy && !ds->want && !ds->stop &&
	       st->clock->mono_us(st->clock) >= ds->rest_until;
}

void
mw_dict_offer(struct mw_entry *e, const struct mw_mail *m)
{
	struct mw_store *st = e->st;
	struct mw_dicts *ds = st->dicts;
	size_t n = MW_MIN(e->early.n, (size_t)SAMPLE_MOST);
	if (!ds || n == 0)
		return;
	struct sample s = {.n = n}; /* lists and services send for many: From counts */
	s.sender = hash_of(st, m->from.n ? m->from : m->sender);
	for (size_t i = 0; i < m->n_rcpt; i++)
		if (!(m->rcpt[i].flags & MW_RCPT_REFUSED))
			s.rcpt += hash_of(st, m->rcpt[i].addr);
	memcpy(s.id, e->id, sizeof s.id);
	(void)pthread_mutex_lock(&ds->mu);
	if (wanted(st)) {
		s.at = ds->used;
		memcpy(ds->mem + ds->used, e->early.p, n);
		ds->used += n;
		ds->s[ds->n++] = s;
		ds->seen[mw_get16(s.id) / 8] |= (uint8_t)(1U << (s.id[0] % 8));
		size_t most = ds->current ? SAMPLES_BYTES : FIRST_BYTES;
		if (ds->used + SAMPLE_MOST > most || ds->n == SAMPLES) {
			ds->want = true;
			(void)pthread_cond_signal(&ds->wake);
		}
	}
	(void)pthread_mutex_unlock(&ds->mu);
}

static int
by_id(const void *a, const void *b)
{
	return memcmp(a, b, MW_ID_LEN);
}

static void
free_spare(struct mw_dicts *ds, struct mw_entry **ret)
{
	*ret = ds->spare;
	ds->spare = NULL;
	ds->spare_of = NULL;
}

void
mw_dict_entries_free(struct mw_entry *e, const struct mw_entry *end)
{
	while (e && e != end) {
		struct mw_entry *next = e->next;
		mw_entry_free(e);
		e = next;
	}
}

bool
mw_dict_knows_mail(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	if (!ds)
		return false;
	(void)pthread_mutex_lock(&ds->mu);
	bool any = ds->n || ds->current;
	(void)pthread_mutex_unlock(&ds->mu);
	return any;
}

void
mw_dict_forget(struct mw_store *st, const uint8_t id[MW_ID_LEN])
{
	struct mw_dicts *ds = st->dicts;
	struct mw_dict *old = NULL;
	struct mw_entry *spare = NULL;
	if (!ds)
		return;
	(void)pthread_mutex_lock(&ds->mu);
	bool maybe = ds->seen[mw_get16(id) / 8] & (1U << (id[0] % 8));
	for (size_t i = 0; maybe && i < ds->n; i++) {
		if (memcmp(ds->s[i].id, id, MW_ID_LEN) != 0)
			continue;
		if (ds->busy) { /* it is being trained on */
			ds->tainted = true;
		} else {
			drop_samples(ds);
			ds->want = false;
		}
		break;
	}
	if (ds->current &&
	    bsearch(id, ds->current->id, ds->current->n_id, MW_ID_LEN, by_id)) {
		old = MW_TAKE(ds->current);
		free_spare(ds, &spare);
		ds->worth = false;
		ds->rest_until = 0;
	}
	(void)pthread_mutex_unlock(&ds->mu);
	mw_dict_entries_free(spare, NULL);
	mw_dict_unref(old);
	if (old)
		mw_store_say(st, MW_LOG_INFO, "event=dictionary-dropped reason=erased");
}

/* ---- training ---- */

static int
count_sink(void *arg, const void *p, size_t n)
{
	(void)p;
	*(uint64_t *)arg += n;
	return 0;
}

/* Stored bytes of samples from … n with a dictionary, or with none. */
static int
measure(const struct mw_dicts *ds, const struct mw_zdict *z, int level, size_t from,
        uint64_t *ret)
{
	*ret = 0;
	int r = 0;
	for (size_t i = from; r == 0 && i < ds->n; i++)
		r = mw_zc_all(level, z, ds->mem + ds->s[i].at, ds->s[i].n, count_sink,
		              ret);
	return r;
}

/* The bytes of a dictionary made from the first n samples. */
static int
train(const struct mw_dicts *ds, size_t n, int level, struct mw_buf *out)
{
	MW_BUF_AUTO text = {0};
	MW_AUTOFREE struct mw_dict_sample *v = calloc(n + 1, sizeof *v);
	MW_AUTOFREE size_t *len = calloc(n + 1, sizeof *len);
	if (!v || !len)
		return MW_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct sample *s = &ds->s[i];
		v[i] = (struct mw_dict_sample){ds->mem + s->at, s->n, s->sender, s->rcpt};
		len[i] = s->n;
	}
	int r = mw_dict_text(v, n, &text);
	if (r == 0)
		r = mw_zdict_make(mw_buf_str(&text), ds->mem, len, (unsigned)n, level,
		                  out);
	mw_buf_wipe(&text);
	return r;
}

static int
dict_new(struct mw_store *st, size_t n, struct mw_dict **ret)
{
	const struct mw_dicts *ds = st->dicts;
	struct mw_dict *d = calloc(1, sizeof *d);
	if (!d)
		return MW_ENOMEM;
	atomic_store(&d->refs, 1);
	d->time_us = st->clock->now_us(st->clock);
	d->id = calloc(n + 1, MW_ID_LEN);
	int r = d->id ? train(ds, n, st->o.level, &d->bytes) : MW_ENOMEM;
	if (r == 0)
		r = mw_zdict_new(d->bytes.p, d->bytes.n, st->o.level, &d->z);
	if (r < 0) {
		mw_dict_unref(d);
		return r;
	}
	for (size_t i = 0; i < n; i++)
		memcpy(d->id[i], ds->s[i].id, MW_ID_LEN);
	d->n_id = n;
	qsort(d->id, n, MW_ID_LEN, by_id);
	*ret = d;
	return 0;
}

/* Two records of it, in a row. */
static int
make_entries(struct mw_store *st, struct mw_dict *d, struct mw_entry **ret)
{
	struct mw_entry *first = NULL, *second = NULL;
	struct mw_dict_note note = {d->time_us, d->n_id, d->bytes.n};
	struct mw_str bytes = mw_buf_str(&d->bytes);
	int r = mw_entry_dict(st, bytes, &note, &first, NULL);
	if (r == 0)
		r = mw_entry_dict(st, bytes, &note, &second, NULL);
	if (r < 0) {
		mw_entry_free(first);
		return r;
	}
	first->dict = mw_dict_ref(d);
	second->dict = mw_dict_ref(d);
	first->next = second;
	second->next = NULL;
	*ret = first;
	return 0;
}

int
mw_dict_entries(struct mw_store *st, struct mw_dict *d, struct mw_entry **ret)
{
	struct mw_dicts *ds = st->dicts;
	struct mw_entry *e = NULL;
	(void)pthread_mutex_lock(&ds->mu);
	if (ds->spare && ds->spare_of == d) {
		free_spare(ds, &e);
		(void)pthread_cond_signal(&ds->wake); /* a new one, ahead of need */
	}
	(void)pthread_mutex_unlock(&ds->mu);
	if (!e)
		return make_entries(st, d, ret);
	*ret = e;
	return 0;
}

/* A round on the samples at hand, which nobody changes meanwhile: trained on the older
 * ones, held against what is in use on the newest quarter. *ret stays NULL unless the new
 * one is better. */
static int
round_of(struct mw_store *st, struct mw_dict *current, struct mw_dict **ret,
         uint64_t *ret_before, uint64_t *ret_after)
{
	const struct mw_dicts *ds = st->dicts;
	size_t n = ds->n - ds->n / 4;
	struct mw_dict *d = NULL;
	if (n == 0)
		return 0;
	int r = dict_new(st, n, &d);
	if (r == 0)
		r = measure(ds, mw_dict_z(current), st->o.level, n, ret_before);
	if (r == 0)
		r = measure(ds, d->z, st->o.level, n, ret_after);
	if (r == 0 && *ret_after * 100 <= *ret_before * (100 - GAIN_PERCENT) &&
	    *ret_before)
		*ret = MW_TAKE(d);
	mw_dict_unref(d);
	return r == MW_ENOTFOUND ? 0 : r;
}

static uint64_t
stored_of(const struct mw_entry *e)
{
	uint64_t n = 0;
	for (; e; e = e->next)
		n += e->head_len + e->meta.len + e->body.len;
	return n;
}

/* In the trainer's thread, with mu held and given up meanwhile. */
static void
train_round(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	struct mw_dict *current = mw_dict_ref(ds->current), *new = NULL;
	struct mw_entry *spare = NULL;
	uint64_t before = 0, after = 0;
	size_t n = ds->n;
	ds->want = false;
	ds->busy = true;
	ds->tainted = false;
	(void)pthread_mutex_unlock(&ds->mu);
	int64_t start = st->clock->mono_us(st->clock);
	int r = round_of(st, current, &new, &before, &after);
	if (r == 0 && new)
		r = make_entries(st, new, &spare);
	int64_t now = st->clock->mono_us(st->clock), took = now - start;
	mw_dict_unref(current);
	(void)pthread_mutex_lock(&ds->mu);
	struct mw_entry *old_spare = NULL;
	struct mw_dict *old = NULL;
	ds->adopted = r == 0 && new && !ds->tainted;
	if (ds->adopted) {
		old = ds->current;
		free_spare(ds, &old_spare);
		new->stored = stored_of(spare);
		ds->current = mw_dict_ref(new);
		ds->spare = MW_TAKE(spare);
		ds->spare_of = new;
		judge_worth(st);
	}
	drop_samples(ds);
	ds->rest_until =
	    now + MW_MAX((int64_t)REST_S * 1000000, REST_CPU * MW_MAX(took, 0));
	if (ds->tainted)
		ds->rest_until = 0;
	bool adopted = ds->adopted;
	(void)pthread_mutex_unlock(&ds->mu);
	mw_store_say(st, r < 0 ? MW_LOG_WARN : MW_LOG_INFO,
	             "event=dictionary-%s samples=%zu before=%llu after=%llu bytes=%zu "
	             "took_us=%lld",
	             r < 0     ? "failed"
	             : adopted ? "new"
	                       : "kept",
	             n, (unsigned long long)before, (unsigned long long)after,
	             adopted ? new->bytes.n : 0, (long long)took);
	mw_dict_entries_free(spare, NULL);
	mw_dict_entries_free(old_spare, NULL);
	mw_dict_unref(old);
	mw_dict_unref(new);
	(void)pthread_mutex_lock(&ds->mu);
	ds->busy = false;
	ds->rounds++;
	(void)pthread_cond_broadcast(&ds->done);
}

/* With mu held and given up meanwhile. */
static void
make_spare(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	struct mw_dict *d = mw_dict_ref(ds->current);
	struct mw_entry *e = NULL;
	(void)pthread_mutex_unlock(&ds->mu);
	int r = make_entries(st, d, &e);
	(void)pthread_mutex_lock(&ds->mu);
	if (r == 0 && ds->current == d && !ds->spare) {
		ds->spare = MW_TAKE(e);
		ds->spare_of = d;
	}
	(void)pthread_mutex_unlock(&ds->mu);
	mw_dict_entries_free(e, NULL);
	mw_dict_unref(d);
	(void)pthread_mutex_lock(&ds->mu);
	if (r < 0 && !ds->stop) /* the committer makes its own; once is enough */
		(void)pthread_cond_wait(&ds->wake, &ds->mu);
}

static void *
trainer(void *arg)
{
	struct mw_store *st = arg;
	struct mw_dicts *ds = st->dicts;
	/* Of this thread alone (Linux); if refused, it only takes its full share. */
	(void)setpriority(PRIO_PROCESS, 0, 10);
	(void)pthread_mutex_lock(&ds->mu);
	while (!ds->stop) {
		if (ds->want)
			train_round(st);
		else if (ds->current && !ds->spare)
			make_spare(st);
		else
			(void)pthread_cond_wait(&ds->wake, &ds->mu);
	}
	ds->rounds++; /* whoever waits for a round waits no more */
	(void)pthread_cond_broadcast(&ds->done);
	(void)pthread_mutex_unlock(&ds->mu);
	return NULL;
}

int
mw_store_train(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	if (!ds)
		return 0;
	(void)pthread_mutex_lock(&ds->mu);
	while (ds->busy)
		(void)pthread_cond_wait(&ds->done, &ds->mu);
	uint64_t due = ds->rounds + 1;
	ds->want = true;
	(void)pthread_cond_signal(&ds->wake);
	while (ds->rounds < due)
		(void)pthread_cond_wait(&ds->done, &ds->mu);
	bool adopted = ds->adopted;
	ds->rest_until = 0;
	(void)pthread_mutex_unlock(&ds->mu);
	return adopted;
}

/* ---- life ---- */

int
mw_dict_start(struct mw_store *st, struct mw_err *err)
{
	struct mw_dicts *ds;
	if (!st->o.dictionary)
		return 0;
	ds = calloc(1, sizeof *ds);
	if (!ds)
		return mw_fail(err, MW_ENOMEM, "out of memory for a dictionary");
	(void)pthread_mutex_init(&ds->mu, NULL);
	(void)pthread_cond_init(&ds->wake, NULL);
	(void)pthread_cond_init(&ds->done, NULL);
	st->dicts = ds;
	ds->fill = st->last_fill;
	ds->s = calloc(SAMPLES, sizeof *ds->s);
	void *mem = mmap(NULL, SAMPLES_BYTES, PROT_READ | PROT_WRITE,
	                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || !ds->s) {
		if (mem != MAP_FAILED)
			(void)munmap(mem, SAMPLES_BYTES);
		return mw_fail(err, MW_ENOMEM, "out of memory for a dictionary");
	}
	ds->mem = mem;
	lock(mem);
	(void)madvise(mem, SAMPLES_BYTES, MADV_DONTDUMP);
	if (pthread_create(&ds->thread, NULL, trainer, st) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start the trainer");
	ds->have_thread = true;
	return 0;
}

void
mw_dict_stop(struct mw_store *st)
{
	struct mw_dicts *ds = st->dicts;
	if (!ds)
		return;
	(void)pthread_mutex_lock(&ds->mu);
	ds->stop = true;
	(void)pthread_cond_broadcast(&ds->wake);
	(void)pthread_mutex_unlock(&ds->mu);
	if (ds->have_thread)
		(void)pthread_join(ds->thread, NULL);
	mw_dict_segment_end(st);
	mw_dict_entries_free(ds->spare, NULL);
	mw_dict_unref(ds->current);
	if (ds->mem) {
		drop_samples(ds);
		(void)munmap(ds->mem, SAMPLES_BYTES);
	}
	free(ds->s);
	(void)pthread_mutex_destroy(&ds->mu);
	(void)pthread_cond_destroy(&ds->wake);
	(void)pthread_cond_destroy(&ds->done);
	free(ds);
	st->dicts = NULL;
}
