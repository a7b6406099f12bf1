#include "replay/untaken.h"

#include "journal/base/util.h"
#include "replay/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SESSIONS = 4096,
	PLACES = 1 << 15,
	AWAITED = 1 << 13,
	WAYS = 4,         /* of these of one hash */
	MESSAGES = 500,   /* of a session that is followed */
	ENDED = 200,      /* sessions that wait, and */
	WAITING = 2000,   /* messages of them: each line is held against each */
	SAVED = 500,      /* sessions, and */
	SAVED_IDS = 3000, /* messages of them */
	QID_MAX = 41
};

#define SECOND_US INT64_C(1000000)
#define LATE_US   (2 * SECOND_US)   /* as processes' lines may cross */
#define PATIENT   (600 * SECOND_US) /* until a session that does not add up is dropped, */
#define DAYS      (5 * 86400 * SECOND_US) /* and until nobody comes again any more */

enum {
	RECEIVED = 1, /* its header came */
	TAKEN = 2,    /* it is known to the queue */
	REFUSED = 4,  /* the log says so itself */
	UNSURE = 8,   /* a filter held it or threw it away, whatever smtpd said then */
	CAME = 16,    /* again, and is in the queue */
	TOLD = 32,
	MARKS = 63
};

struct message {
	char qid[QID_MAX], again[QID_MAX]; /* again: "": has not come */
	uint64_t hash, msgid;              /* of qid; of its Message-ID, 0: none */
	uint64_t again_hash;
	int64_t begun_us;
	unsigned is;
};

struct mw_untaken_session {
	uint64_t proc, host; /* proc 0: none */
	int64_t ended_us;
	uint32_t data_ok, data_all, bdat_ok, bdat_all;
	bool quit; /* its client heard of each message */
	bool sure; /* it adds up: v has only those that were not taken */
	struct message *v;
	size_t n, cap;
};

struct mw_untaken_place {
	uint64_t hash;
	uint32_t at;
};

int
mw_untaken_init(struct mw_untaken *u)
{
	*u = (struct mw_untaken){.open = calloc(SESSIONS, sizeof *u->open),
	                         .ended = calloc(ENDED, sizeof *u->ended),
	                         .place = calloc(PLACES, sizeof *u->place),
	                         .await = calloc(AWAITED, sizeof *u->await)};
	return u->open && u->ended && u->place && u->await ? 0 : MW_ENOMEM;
}

static void
clear(struct mw_untaken_session *s)
{
	free(s->v);
	*s = (struct mw_untaken_session){0};
}

void
mw_untaken_done(struct mw_untaken *u)
{
	for (size_t i = 0; u->open && i < SESSIONS; i++)
		clear(&u->open[i]);
	for (size_t i = 0; i < u->n_ended; i++)
		clear(&u->ended[i]);
	free(u->open);
	free(u->ended);
	free(u->place);
	free(u->await);
	*u = (struct mw_untaken){0};
}

static uint64_t
proc_of(uint64_t host, uint32_t pid)
{
	uint64_t h = (host ^ pid) * UINT64_C(0x9e3779b97f4a7c15);
	h ^= h >> 29;
	return h ? h : 1;
}

static struct mw_untaken_session *
slot_of(const struct mw_untaken *u, uint64_t proc)
{
	return &u->open[proc & (SESSIONS - 1)];
}

static struct message *
find(const struct mw_untaken_session *s, struct mw_str qid, uint64_t hash)
{
	for (size_t i = s->n; i-- > 0;)
		if (s->v[i].hash == hash && mw_str_eq(mw_strz(s->v[i].qid), qid))
			return &s->v[i];
	return NULL;
}

/* Is the line older than what was read of its host? Then it says nothing of its time. */
static bool
late(struct mw_untaken *u, uint64_t host, int64_t us)
{
	size_t i = 0;
	while (i < u->n_host && u->newest[i].host != host)
		i++;
	if (i == MW_COUNT(u->newest))
		return true; /* more hosts than are followed */
	if (i == u->n_host) {
		u->newest[i].host = host;
		u->newest[i].us = us;
		u->n_host++;
	}
	bool is = us + LATE_US < u->newest[i].us;
	u->newest[i].us = MW_MAX(u->newest[i].us, us);
	return is;
}

/* ---- a session ---- */

static int
begin_message(struct mw_untaken *u, struct mw_untaken_session *s, struct mw_str qid,
              int64_t us)
{
	if (qid.n >= QID_MAX || s->n == MESSAGES) {
		clear(s); /* not followed any more */
		return 0;
	}
	uint64_t h = mw_hash64(qid);
	if (find(s, qid, h))
		return 0;
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 2;
		struct message *v = reallocarray(s->v, cap, sizeof *v);
		if (!v)
			return MW_ENOMEM;
		s->v = v;
		s->cap = cap;
	}
	struct message *m = &s->v[s->n++];
	*m = (struct message){.hash = h, .begun_us = us};
	memcpy(m->qid, qid.p, qid.n);
	u->place[h & (PLACES - 1)] =
	    (struct mw_untaken_place){h, (uint32_t)(s - u->open)};
	return 0;
}

/* Of the open session that the message is of; NULL: none is followed. */
static struct mw_untaken_session *
open_of(const struct mw_untaken *u, struct mw_str qid, uint64_t hash)
{
	const struct mw_untaken_place *p = &u->place[hash & (PLACES - 1)];
	struct mw_untaken_session *s = &u->open[p->at];
	return p->hash == hash && find(s, qid, hash) ? s : NULL;
}

static struct mw_untaken_place *
awaited(const struct mw_untaken *u, uint64_t hash)
{
	return &u->await[hash & (AWAITED - 1) & ~(WAYS - 1U)];
}

/* A message of the open session at that place may come again as what has that hash. Of
 * more than WAYS the newest ones are known. */
static void
await(struct mw_untaken *u, uint64_t hash, uint32_t at)
{
	struct mw_untaken_place *p = awaited(u, hash);
	size_t i = 0;
	while (i < WAYS - 1 && !(p[i].hash == hash && p[i].at == at))
		i++;
	memmove(p + 1, p, i * sizeof *p);
	p[0] = (struct mw_untaken_place){hash, at};
}

/* Those that wait for that message may have come again with it, if it is queued. Does
 * one wait for it from now on? */
static bool
came(struct mw_untaken_session *s, struct mw_str qid, uint64_t hash, uint64_t msgid,
     bool queued)
{
	bool some = false;
	for (size_t i = 0; i < s->n; i++) {
		struct message *m = &s->v[i];
		if (queued && m->again_hash == hash &&
		    mw_str_eq(mw_strz(m->again), qid)) {
			m->is |= CAME;
		} else if (!queued && m->msgid == msgid && !(m->is & (CAME | TOLD)) &&
		           qid.n < QID_MAX && !mw_str_eq(mw_strz(m->qid), qid)) {
			memcpy(m->again, qid.p, qid.n);
			m->again[qid.n] = '\0';
			m->again_hash = hash;
			some = true;
		}
	}
	return some;
}

/* Who comes again may do so while his session is open, or its end not written yet. */
static void
came_to_open(struct mw_untaken *u, struct mw_str qid, uint64_t hash, uint64_t msgid,
             bool queued)
{
	struct mw_untaken_place p[WAYS];
	uint64_t by = queued ? hash : msgid;
	memcpy(p, awaited(u, by), sizeof p);
	for (size_t i = WAYS; i-- > 0;)
		if (p[i].hash == by && came(&u->open[p[i].at], qid, hash, msgid, queued))
			await(u, hash, p[i].at);
}

/* Of a message; msgid: 0, or its Message-ID. */
static void
say(struct mw_untaken *u, struct mw_str qid, unsigned is, uint64_t msgid)
{
	uint64_t h = mw_hash64(qid);
	struct mw_untaken_session *open = open_of(u, qid, h);
	bool again = msgid || is == TAKEN;
	if (again)
		came_to_open(u, qid, h, msgid, is == TAKEN);
	for (size_t i = 0; i <= u->n_ended; i++) {
		struct mw_untaken_session *s = i < u->n_ended ? &u->ended[i] : open;
		struct message *m = s ? find(s, qid, h) : NULL;
		if (again && i < u->n_ended)
			(void)came(s, qid, h, msgid, is == TAKEN);
		if (!m)
			continue;
		m->is |= is;
		m->msgid = msgid ? msgid : m->msgid;
	}
	if (open && msgid)
		await(u, msgid, (uint32_t)(open - u->open));
}

/* "<>" is none. */
static uint64_t
msgid_of(struct mw_str s)
{
	return s.n > 2 ? mw_hash64(s) : 0;
}

static size_t
count(const struct mw_untaken_session *s, unsigned mask, unsigned is)
{
	size_t n = 0;
	for (size_t i = 0; i < s->n; i++)
		n += (s->v[i].is & mask) == is;
	return n;
}

static size_t
open_ones(const struct mw_untaken_session *s)
{
	return count(s, RECEIVED | TAKEN | REFUSED | TOLD, RECEIVED);
}

static bool
some_failed(const struct mw_untaken_session *s)
{
	return s->data_ok < s->data_all || s->bdat_ok < s->bdat_all;
}

/* Of the messages received the last one is in the queue, its client gone before the
 * answer or right behind it. Postfix counts that one as failed where it noticed. */
static bool
last_unsure(const struct mw_untaken_session *s)
{
	size_t i = s->n;
	while (i && !(s->v[i - 1].is & RECEIVED))
		i--;
	return !s->quit && i && s->v[i - 1].is & TAKEN;
}

/* Is each message accounted for? BDAT is counted by chunks, so only where there was one
 * message, and none of its chunks was taken. */
static bool
adds_up(const struct mw_untaken_session *s)
{
	size_t taken = count(s, TAKEN, TAKEN), left = open_ones(s);
	size_t refused = count(s, TAKEN | REFUSED, REFUSED);
	if (count(s, UNSURE, UNSURE) || last_unsure(s))
		return false;
	if (s->bdat_all)
		return !s->data_all && !s->bdat_ok && !taken && !refused && left == 1;
	return taken == s->data_ok && s->data_ok <= s->data_all &&
	       left + refused <= s->data_all - s->data_ok;
}

static void
drop_ended(struct mw_untaken *u, size_t i)
{
	clear(&u->ended[i]);
	u->n_ended--;
	memmove(&u->ended[i], &u->ended[i + 1], (u->n_ended - i) * sizeof u->ended[0]);
	u->ended[u->n_ended] = (struct mw_untaken_session){0};
}

static size_t
waiting(const struct mw_untaken *u)
{
	size_t n = 0;
	for (size_t i = 0; i < u->n_ended; i++)
		n += u->ended[i].n;
	return n;
}

static void
end_session(struct mw_untaken *u, struct mw_untaken_session *s,
            const struct mw_mta_event *e)
{
	s->ended_us = e->time_us;
	s->data_ok = e->data.ok;
	s->data_all = e->data.all;
	s->bdat_ok = e->bdat.ok;
	s->bdat_all = e->bdat.all;
	s->quit = e->quit;
	if (e->counted && some_failed(s) && open_ones(s)) {
		while (u->n_ended == ENDED || (u->n_ended && waiting(u) + s->n > WAITING))
			drop_ended(u, 0);
		u->ended[u->n_ended++] = *s;
		*s = (struct mw_untaken_session){0};
	}
	clear(s);
}

/* What adds up needs only those that were not taken. */
static void
settle(struct mw_untaken_session *s)
{
	size_t k = 0;
	for (size_t i = 0; i < s->n; i++)
		if ((s->v[i].is & (RECEIVED | TAKEN | REFUSED)) == RECEIVED)
			s->v[k++] = s->v[i];
	s->n = k;
	s->sure = true;
}

/* Tells of those that came again. */
static int
tell(struct mw_untaken_session *s, mw_untaken_cb *cb, void *arg)
{
	for (size_t i = 0; i < s->n; i++) {
		struct message *m = &s->v[i];
		if (!(m->is & CAME) || m->is & (TAKEN | REFUSED | TOLD))
			continue;
		int r =
		    cb(arg, mw_strz(m->qid), mw_strz(m->again), m->begun_us, s->ended_us);
		if (r < 0)
			return r;
		m->is &= ~(unsigned)CAME;
		m->again[0] = '\0';
		m->again_hash = 0;
		m->is |= r ? TOLD : 0U;
	}
	return 0;
}

/* The queue manager took a message at that time. */
static int
judge(struct mw_untaken *u, uint64_t host, int64_t us, mw_untaken_cb *cb, void *arg)
{
	int r = 0;
	for (size_t i = 0; i < u->n_ended && r >= 0;) {
		struct mw_untaken_session *s = &u->ended[i];
		bool past = s->host == host && us >= s->ended_us + SECOND_US;
		if (past && !s->sure && adds_up(s))
			settle(s);
		/* One that is in the queue after all: so much for its count. */
		bool wrong = s->sure && count(s, TAKEN, TAKEN);
		if (past && s->sure && !wrong)
			r = tell(s, cb, arg);
		if (r >= 0 && past &&
		    (wrong || !open_ones(s) ||
		     us > s->ended_us + (s->sure ? DAYS : PATIENT)))
			drop_ended(u, i);
		else
			i++;
	}
	return MW_MIN(r, 0);
}

static int
of_session(struct mw_untaken *u, uint64_t host, bool is_late,
           const struct mw_mta_event *e)
{
	uint64_t proc = proc_of(host, e->pid);
	struct mw_untaken_session *s = slot_of(u, proc);
	if (is_late) {
		if (s->proc == proc)
			clear(s);
		return 0;
	}
	if (e->kind == MW_MTA_CONNECT) {
		clear(s); /* or pushes another one out */
		s->proc = proc;
		s->host = host;
	} else if (s->proc == proc && e->kind == MW_MTA_CLIENT) {
		return begin_message(u, s, e->queue_id, e->time_us);
	} else if (s->proc == proc) {
		end_session(u, s, e);
	}
	return 0;
}

int
mw_untaken_event(struct mw_untaken *u, const struct mw_mta_event *e, mw_untaken_cb *cb,
                 void *arg)
{
	if (e->sendmail || !e->time_us)
		return 0;
	uint64_t host = mw_hash64(e->host);
	bool is_late = late(u, host, e->time_us);
	switch (e->kind) {
	case MW_MTA_CONNECT:
	case MW_MTA_CLIENT:
	case MW_MTA_DISCONNECT:
		return of_session(u, host, is_late, e);
	case MW_MTA_MESSAGE_ID:
		say(u, e->queue_id, RECEIVED, msgid_of(e->addr));
		return 0;
	case MW_MTA_REFUSED:
		say(u, e->queue_id, REFUSED, 0);
		return 0;
	case MW_MTA_QUEUED:
		say(u, e->queue_id, TAKEN, 0);
		return is_late ? 0 : judge(u, host, e->time_us, cb, arg);
	case MW_MTA_HELD:
	case MW_MTA_DISCARDED:
		say(u, e->queue_id, UNSURE, 0);
		return 0;
	case MW_MTA_DELIVERY:
	case MW_MTA_EXPIRED:
	case MW_MTA_REMOVED:
	case MW_MTA_RELEASED:
		say(u, e->queue_id, TAKEN, 0);
		return 0;
	default:
		return 0;
	}
}

/* ---- between runs ---- */

static json_t *
hex(uint64_t v)
{
	char text[20];
	(void)snprintf(text, sizeof text, "%llx", (unsigned long long)v);
	return json_string(text);
}

static uint64_t
hex_of(const json_t *o)
{
	const char *z = json_string_value(o);
	return z ? strtoull(z, NULL, 16) : 0;
}

static json_t *
session_json(const struct mw_untaken_session *s)
{
	json_t *ids = json_array();
	for (size_t i = 0; i < s->n; i++)
		(void)json_array_append_new(ids,
		                            json_pack("[s, I, i, o, s]", s->v[i].qid,
		                                      (json_int_t)s->v[i].begun_us,
		                                      (int)s->v[i].is, hex(s->v[i].msgid),
		                                      s->v[i].again));
	return json_pack("{s:o, s:o, s:I, s:b, s:b, s:[I, I, I, I], s:o}", "process",
	                 hex(s->proc), "host", hex(s->host), "ended_us",
	                 (json_int_t)s->ended_us, "sure", (int)s->sure, "quit",
	                 (int)s->quit, "counts", (json_int_t)s->data_ok,
	                 (json_int_t)s->data_all, (json_int_t)s->bdat_ok,
	                 (json_int_t)s->bdat_all, "messages", ids);
}

json_t *
mw_untaken_save(const struct mw_untaken *u)
{
	json_t *sessions = json_array(), *newest = json_array();
	size_t n = 0, ids = 0;
	for (size_t i = 0; i < u->n_host; i++)
		(void)json_array_append_new(newest,
		                            json_pack("[o, I]", hex(u->newest[i].host),
		                                      (json_int_t)u->newest[i].us));
	for (size_t i = 0; i < u->n_ended + SESSIONS && n < SAVED; i++) {
		const struct mw_untaken_session *s =
		    i < u->n_ended ? &u->ended[i] : &u->open[i - u->n_ended];
		if (!s->proc || ids + s->n > SAVED_IDS)
			continue;
		ids += s->n;
		n++;
		(void)json_array_append_new(sessions, session_json(s));
	}
	return json_pack("{s:o, s:o}", "newest", newest, "sessions", sessions);
}

static int
load_messages(struct mw_untaken *u, struct mw_untaken_session *s, const json_t *ids)
{
	size_t i;
	const json_t *o;
	json_array_foreach(ids, i, o)
	{
		const char *qid = json_string_value(json_array_get(o, 0));
		if (!qid || !*qid)
			continue;
		int r = begin_message(u, s, mw_strz(qid),
		                      json_integer_value(json_array_get(o, 1)));
		if (r)
			return r;
		struct message *m = find(s, mw_strz(qid), mw_hash64(mw_strz(qid)));
		const char *again = json_string_value(json_array_get(o, 4));
		if (!m)
			continue;
		m->is = (unsigned)json_integer_value(json_array_get(o, 2)) & MARKS;
		m->msgid = hex_of(json_array_get(o, 3));
		if (m->msgid)
			await(u, m->msgid, (uint32_t)(s - u->open));
		if (again && *again && strlen(again) < QID_MAX) {
			(void)snprintf(m->again, sizeof m->again, "%s", again);
			m->again_hash = mw_hash64(mw_strz(again));
			await(u, m->again_hash, (uint32_t)(s - u->open));
		}
	}
	return 0;
}

static uint32_t
count_of(const json_t *counts, size_t i)
{
	return (uint32_t)json_integer_value(json_array_get(counts, i));
}

int
mw_untaken_load(struct mw_untaken *u, const json_t *state)
{
	size_t i;
	const json_t *o;
	json_array_foreach(json_object_get(state, "newest"), i, o)(void)
	    late(u, hex_of(json_array_get(o, 0)),
	         json_integer_value(json_array_get(o, 1)));
	json_array_foreach(json_object_get(state, "sessions"), i, o)
	{
		uint64_t proc = hex_of(json_object_get(o, "process"));
		struct mw_untaken_session *s = slot_of(u, proc);
		const json_t *counts = json_object_get(o, "counts");
		int64_t ended_us = json_integer_value(json_object_get(o, "ended_us"));
		if (!proc)
			continue;
		clear(s);
		s->proc = proc;
		s->host = hex_of(json_object_get(o, "host"));
		s->sure = json_is_true(json_object_get(o, "sure"));
		if (load_messages(u, s, json_object_get(o, "messages")))
			return MW_ENOMEM;
		if (!ended_us)
			continue;
		struct mw_mta_event end = {
		    .time_us = ended_us,
		    .counted = true,
		    .quit = json_is_true(json_object_get(o, "quit")),
		    .data = {count_of(counts, 0), count_of(counts, 1)},
		    .bdat = {count_of(counts, 2), count_of(counts, 3)}};
		end_session(u, s, &end);
	}
	return 0;
}
