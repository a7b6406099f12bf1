#include "replay/outcomes.h"

#include "journal/base/path.h"
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "replay/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	FULL_BYTES = 150000, /* a record's size, about */
	ORIGINS = 1 << 16,
	AHEAD_US = 2000000 /* stamps of whole seconds, and the clock's steps */
};

#define HOUR_US  (INT64_C(3600) * 1000000)
#define BEGAN_US HOUR_US        /* before its first line, at most */
#define ZONES_US (15 * HOUR_US) /* as far as zones differ */

struct mw_gather_qid {
	uint64_t hash;    /* 0: free */
	uint64_t hash_as; /* of the queue ID before a requeue, 0: none */
	bool known;
	uint64_t seq;
	uint8_t id[MW_ID_LEN];
	size_t at; /* in v, plus 1; 0: nothing yet */
};

struct mw_gather_origin {
	uint64_t hash;
	int64_t time_us;
	char as[32]; /* requeued from */
};

/* ---- what is written already ---- */

static uint64_t
mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
	return a ^ a >> 29;
}

static uint64_t
fact_hash(uint64_t seq, struct mw_str addr, struct mw_str original, unsigned fact)
{
	uint64_t h = mix(seq * 64 + fact + 1, mw_hash64(addr));
	h = mix(h, mw_hash64(original));
	return h ? h : 1;
}

static int
grow_seen(struct mw_gather *g)
{
	size_t cap = g->cap_seen ? g->cap_seen * 2 : 1024;
	uint64_t *v = calloc(cap, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	for (size_t i = 0; i < g->cap_seen; i++) {
		size_t k = (size_t)g->seen[i] & (cap - 1);
		if (!g->seen[i])
			continue;
		while (v[k])
			k = (k + 1) & (cap - 1);
		v[k] = g->seen[i];
	}
	free(g->seen);
	g->seen = v;
	g->cap_seen = cap;
	return 0;
}

/* 1 new, 0 was there, MW_ENOMEM. */
static int
see(struct mw_gather *g, uint64_t h)
{
	if (g->n_seen * 2 >= g->cap_seen && grow_seen(g))
		return MW_ENOMEM;
	size_t k = (size_t)h & (g->cap_seen - 1);
	for (; g->seen[k]; k = (k + 1) & (g->cap_seen - 1))
		if (g->seen[k] == h)
			return 0;
	g->seen[k] = h;
	g->n_seen++;
	return 1;
}

static bool
has_seen(const struct mw_gather *g, uint64_t h)
{
	if (!g->n_seen)
		return false;
	size_t k = (size_t)h & (g->cap_seen - 1);
	while (g->seen[k] && g->seen[k] != h)
		k = (k + 1) & (g->cap_seen - 1);
	return g->seen[k] == h;
}

enum {
	WHOLE = 16,
	DONE = 32,
	FREED = 33
};

/* Is that fact, of the message as a whole, known of a record? */
static bool
is_known(const struct mw_gather *g, uint64_t seq, unsigned what)
{
	struct mw_str none = {0};
	return has_seen(g, fact_hash(seq, none, none, what));
}

static int
on_known(void *arg, const struct mw_outcome *o)
{
	struct mw_gather *g = arg;
	struct mw_str none = {0};
	int r = 0;
	g->known++;
	if (o->whole)
		r = see(g, fact_hash(o->seq, none, none, WHOLE + (unsigned)o->whole));
	g->refusals = g->refusals || o->whole == MW_FACT_REFUSED;
	if (r >= 0 && o->done)
		r = see(g, fact_hash(o->seq, none, none, DONE));
	if (r >= 0 && o->freed)
		r = see(g, fact_hash(o->seq, none, none, FREED));
	for (size_t i = 0; i < o->n_rcpt && r >= 0; i++)
		r = see(g, fact_hash(o->seq, o->rcpt[i].addr, o->rcpt[i].original,
		                     (unsigned)o->rcpt[i].fact));
	return r < 0 ? r : 0;
}

/* ---- gathering ---- */

static int
need_store(struct mw_gather *g, struct mw_err *err)
{
	return g->st ? 0 : mw_cli_open(g->cli, 0, &g->st, err);
}

int
mw_gather_init(struct mw_gather *g, struct mw_cli *cli, struct mw_err *err)
{
	*g = (struct mw_gather){.cli = cli, .arena = mw_arena_new(0)};
	g->origin = calloc(ORIGINS, sizeof *g->origin);
	if (!g->arena || !g->origin || mw_untaken_init(&g->untaken))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = need_store(g, err);
	return r < 0 ? r : mw_outcomes_walk(g->st, on_known, g, NULL, err);
}

static struct mw_gather_origin *
origin_of(struct mw_gather *g, uint64_t hash)
{
	struct mw_gather_origin *o = &g->origin[hash & (ORIGINS - 1)];
	return o; /* a table without chains: who is pushed out is merely not known */
}

static int
grow_qid(struct mw_gather *g)
{
	size_t cap = g->cap_qid ? g->cap_qid * 2 : 256;
	struct mw_gather_qid *v = calloc(cap, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	for (size_t i = 0; i < g->cap_qid; i++) {
		size_t k = (size_t)g->qid[i].hash & (cap - 1);
		if (!g->qid[i].hash)
			continue;
		while (v[k].hash)
			k = (k + 1) & (cap - 1);
		v[k] = g->qid[i];
	}
	free(g->qid);
	g->qid = v;
	g->cap_qid = cap;
	return 0;
}

/* Which record that queue ID means now. A message that was requeued and not captured a
 * second time is still the first record's. */
static int
look_up(struct mw_gather *g, struct mw_gather_qid *q, struct mw_str queue_id,
        int64_t time_us, struct mw_err *err)
{
	const struct mw_gather_origin *o = origin_of(g, q->hash);
	bool began = o->hash == q->hash;
	struct mw_record rec = {0};
	int r = need_store(g, err);
	if (r == 0)
		r = mw_outcomes_record(g->st, queue_id,
		                       began ? o->time_us - BEGAN_US : INT64_MIN,
		                       time_us + AHEAD_US, &rec, err);
	if (r == 0 && began && o->as[0])
		r = mw_outcomes_record(g->st, mw_strz(o->as), INT64_MIN,
		                       time_us + AHEAD_US, &rec, err);
	if (r == 0) {
		r = mw_outcomes_record(g->st, queue_id, time_us, time_us + ZONES_US, &rec,
		                       err);
		g->early += r > 0;
		return r < 0 ? r : 0;
	}
	if (r < 0)
		return r;
	q->known = true;
	q->seq = rec.seq;
	memcpy(q->id, rec.id, MW_ID_LEN);
	return 0;
}

static int
find_qid(struct mw_gather *g, struct mw_str queue_id, int64_t time_us,
         struct mw_gather_qid **ret, struct mw_err *err)
{
	uint64_t h = mw_hash64(queue_id);
	if (g->n_qid * 2 >= g->cap_qid && grow_qid(g))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	size_t k = (size_t)h & (g->cap_qid - 1);
	while (g->qid[k].hash && g->qid[k].hash != h)
		k = (k + 1) & (g->cap_qid - 1);
	*ret = &g->qid[k];
	if (g->qid[k].hash)
		return 0;
	g->qid[k].hash = h;
	g->n_qid++;
	return look_up(g, &g->qid[k], queue_id, time_us, err);
}

/* The outcome of that record among those not yet written. */
static struct mw_outcome *
pending(struct mw_gather *g, struct mw_gather_qid *q, struct mw_str queue_id)
{
	if (q->at)
		return &g->v[q->at - 1];
	struct mw_outcome *v =
	    mw_arena_grow(g->arena, g->v, &g->cap, g->n + 1, sizeof *v);
	if (!v)
		return NULL;
	g->v = v;
	struct mw_outcome *o = &v[g->n++];
	*o = (struct mw_outcome){.seq = q->seq};
	memcpy(o->id, q->id, MW_ID_LEN);
	o->queue_id = mw_arena_str(g->arena, queue_id);
	q->at = g->n;
	g->bytes += 60;
	return o->queue_id.p ? o : NULL;
}

static struct mw_str
keep(struct mw_gather *g, struct mw_str s, size_t most)
{
	return mw_arena_str(g->arena, mw_str(s.p, MW_MIN(s.n, most)));
}

static int
add_rcpt(struct mw_gather *g, struct mw_outcome *o, const struct mw_mta_event *e)
{
	size_t n = o->n_rcpt;
	/* A power of two is full: doubled. */
	if ((n & (n - 1)) == 0) {
		struct mw_outcome_rcpt *v =
		    mw_arena_alloc(g->arena, (n ? n * 2 : 1) * sizeof *v);
		if (!v)
			return MW_ENOMEM;
		if (n)
			memcpy(v, o->rcpt, n * sizeof *v);
		o->rcpt = v;
	}
	o->rcpt[n] =
	    (struct mw_outcome_rcpt){.addr = keep(g, e->addr, 2000),
	                             .original = keep(g, e->original, 2000),
	                             .fact = e->fact,
	                             .time_us = e->time_us,
	                             .dsn = keep(g, e->dsn, 20),
	                             .relay = keep(g, e->relay, 300),
	                             .text = keep(g, e->text, MW_OUTCOME_TEXT_MAX)};
	o->n_rcpt++;
	g->bytes += 60 + e->addr.n + e->original.n + e->relay.n +
	            MW_MIN(e->text.n, (size_t)MW_OUTCOME_TEXT_MAX);
	return 0;
}

/* The fact that an event is, of the message as a whole; 0: none. */
static enum mw_fact
whole_fact(enum mw_mta_kind k)
{
	return k == MW_MTA_EXPIRED     ? MW_FACT_EXPIRED
	       : k == MW_MTA_REFUSED   ? MW_FACT_REFUSED
	       : k == MW_MTA_DISCARDED ? MW_FACT_DISCARDED
	       : k == MW_MTA_HELD      ? MW_FACT_HELD
	                               : MW_FACT_UNKNOWN;
}

/* Sendmail logs it as it came, in its own way; a record has the address. */
static int
recipient(struct mw_gather *g, struct mw_mta_event *e)
{
	char *plain = mw_arena_alloc(g->arena, e->addr.n);
	if (plain)
		e->addr = mw_path_addr(mw_mtalog_plain(e->addr, plain), g->arena);
	return plain && e->addr.p ? 0 : MW_ENOMEM;
}

static int
apply(struct mw_gather *g, struct mw_gather_qid *q, struct mw_mta_event *e)
{
	struct mw_str none = {0};
	if (e->sendmail && e->addr.n && recipient(g, e) < 0)
		return MW_ENOMEM;
	enum mw_fact whole = whole_fact(e->kind);
	unsigned what = whole                        ? WHOLE + (unsigned)whole
	                : e->kind == MW_MTA_REMOVED  ? DONE
	                : e->kind == MW_MTA_RELEASED ? FREED
	                                             : (unsigned)e->fact;
	bool rcpt = e->kind == MW_MTA_DELIVERY;
	int r = see(g, fact_hash(q->seq, rcpt ? e->addr : none, rcpt ? e->original : none,
	                         what));
	if (r <= 0)
		return r;
	struct mw_outcome *o = pending(g, q, e->queue_id);
	if (!o)
		return MW_ENOMEM;
	g->written++;
	if (rcpt)
		return add_rcpt(g, o, e);
	if (whole) {
		o->whole = whole;
		o->whole_us = e->time_us;
		g->refusals = g->refusals || whole == MW_FACT_REFUSED;
	} else if (what == DONE) {
		o->done = true;
		o->done_us = e->time_us;
	} else {
		o->freed = true;
		if (o->whole == MW_FACT_REFUSED)
			o->whole = MW_FACT_UNKNOWN;
	}
	return 0;
}

static void
note_origin(struct mw_gather *g, const struct mw_mta_event *e)
{
	uint64_t h = mw_hash64(e->queue_id);
	struct mw_gather_origin *o = origin_of(g, h);
	if (o->hash == h && e->kind == MW_MTA_MESSAGE_ID)
		return; /* its beginning was seen */
	*o = (struct mw_gather_origin){.hash = h, .time_us = e->time_us};
	if (e->other.n && e->other.n < sizeof o->as)
		memcpy(o->as, e->other.p, e->other.n);
}

/* A message went on under another queue ID: under this one it is not in the queue any
 * more, and what becomes of it is not said here. */
static int
requeued(struct mw_gather *g, const struct mw_mta_event *e, struct mw_err *err)
{
	struct mw_mta_event gone = *e;
	struct mw_gather_qid *q;
	gone.kind = MW_MTA_REMOVED;
	gone.queue_id = e->other;
	int r = find_qid(g, e->other, e->time_us, &q, err);
	if (r == 0 && q->known)
		r = apply(g, q, &gone);
	return r;
}

/* ---- what its sender was told to bring again ---- */

struct untaken {
	struct mw_gather *g;
	struct mw_err *err;
};

/* Only of a record of that very time: a short queue ID may be an older message's too. And
 * only where what came again is in the journal, and is the same. */
static int
on_untaken(void *arg, struct mw_str queue_id, struct mw_str again, int64_t begun_us,
           int64_t ended_us)
{
	struct untaken *u = arg;
	struct mw_gather *g = u->g;
	struct mw_gather_qid *q;
	struct mw_record rec, other;
	struct mw_mta_event e = {.kind = MW_MTA_REFUSED,
	                         .queue_id = queue_id,
	                         .time_us = ended_us};
	int r = find_qid(g, queue_id, ended_us, &q, u->err);
	if (r < 0)
		return r;
	if (!q->known || is_known(g, q->seq, DONE))
		return 1;
	r = need_store(g, u->err);
	if (r == 0)
		r = mw_outcomes_record(g->st, queue_id, begun_us - AHEAD_US,
		                       ended_us + AHEAD_US, &rec, u->err);
	if (r < 0)
		return r;
	if (r == 0 || rec.seq != q->seq)
		return 1;
	r = mw_outcomes_record(g->st, again, begun_us - AHEAD_US, INT64_MAX, &other,
	                       u->err);
	if (r > 0)
		r = other.seq > rec.seq
		        ? mw_outcomes_again(g->st, &rec, queue_id, &other, u->err)
		        : 0;
	if (r <= 0) /* what cannot be read is not known to be the same */
		return r == MW_ENOMEM ? r : 0;
	r = apply(g, q, &e);
	return r < 0 ? mw_fail(u->err, r, "out of memory") : 1;
}

/* It is in the queue, or was: if it was told to be refused, that is taken back. */
static int
in_queue(struct mw_gather *g, struct mw_gather_qid *q, const struct mw_mta_event *e)
{
	struct mw_mta_event freed = *e;
	freed.kind = MW_MTA_RELEASED;
	if (e->sendmail || !q->known ||
	    !is_known(g, q->seq, WHOLE + (unsigned)MW_FACT_REFUSED))
		return 0;
	return apply(g, q, &freed);
}

/* A message enters the queue: of interest only where one was refused. */
static int
queued(struct mw_gather *g, const struct mw_mta_event *e, struct mw_err *err)
{
	struct mw_gather_qid *q;
	uint64_t before = g->n_qid;
	if (e->sendmail || !g->refusals)
		return 0;
	int r = find_qid(g, e->queue_id, e->time_us, &q, err);
	if (r < 0)
		return r;
	g->unknown += !q->known && g->n_qid != before;
	r = in_queue(g, q, e);
	return r < 0 ? mw_fail(err, r, "out of memory") : 0;
}

static bool
shows_queue(enum mw_mta_kind k)
{
	return k == MW_MTA_DELIVERY || k == MW_MTA_EXPIRED || k == MW_MTA_REMOVED;
}

int
mw_gather_event(struct mw_gather *g, const struct mw_mta_event *e, struct mw_err *err)
{
	struct mw_gather_qid *q;
	struct untaken untaken = {g, err};
	int r = mw_untaken_event(&g->untaken, e, on_untaken, &untaken);
	if (r < 0)
		return r == MW_ENOMEM ? mw_fail(err, r, "out of memory") : r;
	if (!e->queue_id.n)
		return 0;
	switch (e->kind) {
	case MW_MTA_PICKUP:
		if (e->other.n)
			r = requeued(g, e, err);
		note_origin(g, e);
		return r;
	case MW_MTA_CLIENT:
	case MW_MTA_MESSAGE_ID:
		note_origin(g, e);
		return 0;
	case MW_MTA_QUEUED:
		return queued(g, e, err);
	case MW_MTA_DELIVERY:
	case MW_MTA_EXPIRED:
	case MW_MTA_REMOVED:
	case MW_MTA_REFUSED:
	case MW_MTA_DISCARDED:
	case MW_MTA_HELD:
	case MW_MTA_RELEASED:
		break;
	default:
		return 0;
	}
	g->events++;
	uint64_t before = g->n_qid;
	r = find_qid(g, e->queue_id, e->time_us, &q, err);
	if (r < 0)
		return r;
	if (!q->known) {
		g->unknown += g->n_qid != before;
		return 0;
	}
	struct mw_mta_event one = *e;
	r = shows_queue(e->kind) ? in_queue(g, q, e) : 0;
	do
		r = r < 0 ? r : apply(g, q, &one);
	while (r >= 0 && mw_mtalog_next(&one));
	return r < 0 ? mw_fail(err, r, "out of memory") : 0;
}

bool
mw_gather_full(const struct mw_gather *g)
{
	return g->bytes >= FULL_BYTES || g->n_qid >= 100000;
}

int
mw_outcomes_lock(const char *dir, int *ret_fd, struct mw_err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/ledger/outcomes.lock", dir) >=
	    (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", dir);
	char *slash = strrchr(path, '/');
	*slash = 0; /* the ledger may have been deleted (FORMAT.md I1) */
	if (mkdir(path, 0750) < 0 && errno != EEXIST)
		return mw_fail_errno(err, "cannot make %s", path);
	*slash = '/';
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return mw_fail_errno(err, "cannot open %s", path);
	while (flock(fd, LOCK_EX) < 0) {
		if (errno == EINTR && !mw_cli_stopped())
			continue;
		int r = errno == EINTR ? mw_fail(err, MW_ECANCEL, "interrupted")
		                       : mw_fail_errno(err, "cannot lock %s", path);
		(void)close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/* Under the lock, so that no erasure comes between. */
static int
write_out(struct mw_gather *g, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	MW_GONE_AUTO *gone = NULL;
	MW_BUF_AUTO cbor = {0};
	uint64_t seq;
	int r = need_store(g, err);
	if (r == 0)
		r = mw_gone_load(g->st, &gone, err);
	if (r < 0)
		return r;
	g->written -= mw_outcomes_strip(g->st, gone, g->v, &g->n);
	struct mw_outcomes o = {clock->now_us(clock), g->v, g->n};
	/* Without a daemon the note opens the journal itself: one open at a time. */
	mw_store_close(MW_TAKE(g->st));
	if (g->n == 0)
		return 0;
	if (mw_outcomes_encode(&o, &cbor) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	r = mw_control_note(g->cli->journals[0], MW_TYPE_OUTCOME, o.time_us, cbor.p,
	                    cbor.n, &seq, err);
	g->records += r == 0;
	return r;
}

int
mw_gather_flush(struct mw_gather *g, struct mw_err *err)
{
	int r = 0;
	if (g->n) {
		MW_AUTOCLOSE int lock = -1;
		r = mw_cli_as_owner(g->cli->journals[0], err);
		if (r == 0)
			r = mw_outcomes_lock(g->cli->journals[0], &lock, err);
		if (r == 0)
			r = write_out(g, err);
		mw_cli_as_self();
	}
	if (r < 0)
		return r;
	mw_arena_reset(g->arena);
	if (g->cap_qid)
		memset(g->qid, 0, g->cap_qid * sizeof *g->qid);
	g->v = NULL;
	g->n = g->cap = g->bytes = g->n_qid = 0;
	return 0;
}

void
mw_gather_done(struct mw_gather *g)
{
	mw_store_close(g->st);
	mw_arena_free(g->arena);
	free(g->qid);
	free(g->seen);
	free(g->origin);
	mw_untaken_done(&g->untaken);
}
