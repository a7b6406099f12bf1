#include "replay/audit.h"

#include "journal/base/util.h"
#include "replay/profile.h"

#include <stdlib.h>
#include <string.h>

#define MINUTE_US (INT64_C(60) * 1000000)

enum {
	PROCS = 4096
};

/* A smtpd, from the beginning of its session to its end; a cleanup. */
struct mw_audit_proc {
	uint64_t id; /* host and number; 0: none */
	bool begun;  /* the session's beginning was seen */
	bool down;   /* a milter failed in this session; for cleanup's next message */
	size_t row;  /* its message, plus 1 */
};

static const struct {
	const char *name, *text;
} causes[] = {
    [MW_AUDIT_FINE] = {"fine", "in the journal"},
    [MW_AUDIT_REENTRY] = {"reentry", "came out of a message that is in the journal"},
    [MW_AUDIT_BEFORE] = {"before", "older than the journal"},
    [MW_AUDIT_NOTICE] = {"notice",
                         "a bounce or notice: internal_mail_filter_classes does not "
                         "name bounce and notify"},
    [MW_AUDIT_DISCARDED] = {"discarded",
                            "answered with 250 and thrown away by a DISCARD action"},
    [MW_AUDIT_DOWN] = {"milter_down",
                       "a milter was out of reach, and the mail server did not refuse: "
                       "see default_action (Sendmail: F=)"},
    [MW_AUDIT_PICKUP] = {"pickup", "from sendmail(1): non_smtpd_milters does not name "
                                   "mailwald (Sendmail: there is no "
                                   "submit.cf that hands it to the daemon)"},
    [MW_AUDIT_NO_MILTERS] = {"no_milters",
                             "from this host, without milters (a content filter's "
                             "re-entry, no_milters), and not known from before"},
    [MW_AUDIT_OTHER] = {"other",
                        "by SMTP, past the milter: see smtpd_milters of that service, "
                        "smtpd_milter_maps, receive_override_options, "
                        "smtpd_proxy_filter; Sendmail: InputMailFilters"},
};

const char *
mw_audit_name(enum mw_audit_cause c)
{
	return causes[c].name;
}

const char *
mw_audit_text(enum mw_audit_cause c)
{
	return causes[c].text;
}

bool
mw_audit_hole(enum mw_audit_cause c)
{
	return c >= MW_AUDIT_NOTICE;
}

int
mw_audit_init(struct mw_audit *a, struct mw_err *err)
{
	*a = (struct mw_audit){.arena = mw_arena_new(0), .n_slot = 1024};
	a->slot = calloc(a->n_slot, sizeof *a->slot);
	a->proc = calloc(PROCS, sizeof *a->proc);
	return a->arena && a->slot && a->proc ? 0
	                                      : mw_fail(err, MW_ENOMEM, "out of memory");
}

void
mw_audit_done(struct mw_audit *a)
{
	mw_arena_free(a->arena);
	free(a->v);
	free(a->slot);
	free(a->down);
	free(a->proc);
	a->arena = NULL;
}

/* ---- rows ---- */

static size_t
place(const struct mw_audit *a, struct mw_str queue_id)
{
	size_t k = (size_t)mw_hash64(queue_id) & (a->n_slot - 1);
	while (a->slot[k] && !mw_str_eq(a->v[a->slot[k] - 1].queue_id, queue_id))
		k = (k + 1) & (a->n_slot - 1);
	return k;
}

static int
more_slots(struct mw_audit *a)
{
	size_t n = a->n_slot * 2, *old = a->slot, n_old = a->n_slot;
	size_t *slot = calloc(n, sizeof *slot);
	if (!slot)
		return MW_ENOMEM;
	a->slot = slot;
	a->n_slot = n;
	for (size_t i = 0; i < n_old; i++)
		if (old[i])
			slot[place(a, a->v[old[i] - 1].queue_id)] = old[i];
	free(old);
	return 0;
}

/* The row of a queue ID; a new one where there is none, or with `anew`. NULL: memory. */
static struct mw_audit_row *
row(struct mw_audit *a, struct mw_str queue_id, int64_t us, bool anew)
{
	if (a->n * 2 >= a->n_slot && more_slots(a))
		return NULL;
	size_t k = place(a, queue_id);
	if (a->slot[k] && !anew)
		return &a->v[a->slot[k] - 1];
	if (a->n == a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 256;
		struct mw_audit_row *v = reallocarray(a->v, cap, sizeof *v);
		if (!v)
			return NULL;
		a->v = v;
		a->cap = cap;
	}
	struct mw_audit_row *r = &a->v[a->n++];
	*r = (struct mw_audit_row){.begun_us = us, .last_us = us, .older = a->slot[k]};
	r->queue_id = mw_arena_str(a->arena, queue_id);
	a->slot[k] = a->n;
	return r->queue_id.p ? r : NULL;
}

static const struct mw_audit_row *
by_hash(const struct mw_audit *a, uint64_t hash)
{
	size_t k = (size_t)hash & (a->n_slot - 1);
	for (; a->slot[k]; k = (k + 1) & (a->n_slot - 1))
		if (mw_hash64(a->v[a->slot[k] - 1].queue_id) == hash)
			return &a->v[a->slot[k] - 1];
	return NULL;
}

static int
note_down(struct mw_audit *a, int64_t us)
{
	if (a->n_down && us - a->down[a->n_down - 1] < 1000000)
		return 0;
	if (a->n_down == a->cap_down) {
		size_t cap = a->cap_down ? a->cap_down * 2 : 64;
		int64_t *v = reallocarray(a->down, cap, sizeof *v);
		if (!v)
			return MW_ENOMEM;
		a->down = v;
		a->cap_down = cap;
	}
	a->down[a->n_down++] = us;
	return 0;
}

static void
accepted_at(struct mw_audit_row *r, const struct mw_mta_event *e)
{
	r->accepted_us = e->time_us;
	r->coarse = e->coarse;
}

static void
began_smtp(struct mw_audit *a, struct mw_audit_row *r, const struct mw_mta_event *e)
{
	size_t k = e->pid % MW_COUNT(a->discard);
	r->smtp = true;
	r->client = mw_arena_str(a->arena, e->addr);
	if (a->discard[k].pid != e->pid || e->time_us - a->discard[k].us > 10 * MINUTE_US)
		return;
	a->discard[k].pid = 0;
	r->discarded = r->accepted = r->received = true;
	accepted_at(r, e);
}

static int
child_of(struct mw_audit *a, struct mw_str child, struct mw_str parent, int64_t us,
         bool notice)
{
	struct mw_audit_row *r = row(a, child, us, false);
	if (!r)
		return MW_ENOMEM;
	r->parent = mw_hash64(parent);
	r->notice = r->notice || notice;
	return 0;
}

/* Sendmail says all of it in one line. */
static void
queued_sendmail(struct mw_audit *a, struct mw_audit_row *r, const struct mw_mta_event *e)
{
	struct mw_str name, addr, rest;
	size_t k = e->pid % MW_COUNT(a->broken);
	r->smtp = r->sendmail = true;
	r->received = r->received || e->text.n;
	r->down = a->broken[k].pid == e->pid &&
	          e->time_us - a->broken[k].us < INT64_C(3600) * 1000000;
	if (e->text.n > 2)
		r->message_id = mw_arena_str(a->arena, e->text);
	if (!mw_str_cut(e->relay, '[', &name, &addr) ||
	    !mw_str_cut(addr, ']', &addr, &rest))
		return;
	if (mw_str_istarts(addr, MW_STR("IPv6:")))
		addr = mw_str(addr.p + 5, addr.n - 5);
	r->client = mw_arena_str(a->arena, addr);
}

/* What sendmail(1) of Sendmail took is accepted by the daemon that it hands it to, where
 * it passes the milters; or it goes out from there, and has passed none. */
static void
delivered_past(struct mw_audit_row *r, const struct mw_mta_event *e)
{
	bool out = e->fact == MW_FACT_DELIVERED || e->fact == MW_FACT_SENT;
	if (r->accepted || !((r->local && out) || r->unproved))
		return;
	r->accepted = r->received = true;
	accepted_at(r, e);
}

static void
apply(struct mw_audit *a, struct mw_audit_row *r, const struct mw_mta_event *e)
{
	switch (e->kind) {
	case MW_MTA_CLIENT:
		began_smtp(a, r, e);
		break;
	case MW_MTA_PICKUP:
		r->pickup = true;
		r->local = e->sendmail;
		if (e->other.n)
			r->parent = mw_hash64(e->other);
		break;
	case MW_MTA_MESSAGE_ID:
		r->received = true;
		if (e->addr.n > 2)
			r->message_id = mw_arena_str(a->arena, e->addr);
		break;
	case MW_MTA_DELIVERY:
		delivered_past(r, e);
		break;
	case MW_MTA_QUEUED:
		if (e->sendmail)
			queued_sendmail(a, r, e);
		if (e->sendmail && !e->text.n) {
			/* Sendmail tells of what was given up half way too, without a
			 * Message-ID: a delivery shows that it has it */
			r->unproved = true;
			break;
		}
		r->null_sender =
		    !e->addr.n || mw_str_istarts(e->addr, MW_STR("double-bounce@"));
		/* fall through */
	case MW_MTA_HELD:
	case MW_MTA_DISCARDED:
		if (!r->accepted)
			accepted_at(r, e);
		r->accepted = true;
		r->discarded = r->discarded || e->kind == MW_MTA_DISCARDED;
		r->received = r->received || e->kind != MW_MTA_QUEUED;
		break;
	case MW_MTA_REFUSED:
		r->refused = true;
		break;
	case MW_MTA_REMOVED:
		r->removed = true;
		break;
	case MW_MTA_PROBE:
		r->probe = true;
		break;
	default:
		break;
	}
}

/* ---- which message a milter failed for ---- */

static struct mw_audit_proc *
proc_of(struct mw_audit *a, const struct mw_mta_event *e, uint64_t *ret_id)
{
	uint64_t h = (mw_hash64(e->host) ^ e->pid) * UINT64_C(0x9e3779b97f4a7c15);
	*ret_id = h | 1;
	return &a->proc[(h >> 40) & (PROCS - 1)];
}

static void
session_event(struct mw_audit *a, const struct mw_mta_event *e)
{
	uint64_t id;
	struct mw_audit_proc *p = proc_of(a, e, &id);
	if (e->kind == MW_MTA_CONNECT)
		*p = (struct mw_audit_proc){.id = id, .begun = true};
	else if (p->id == id)
		*p = (struct mw_audit_proc){0};
}

/* What a process of Postfix is at now. */
static void
at_message(struct mw_audit *a, struct mw_audit_row *r, const struct mw_mta_event *e)
{
	uint64_t id;
	struct mw_audit_proc *p = proc_of(a, e, &id);
	bool smtpd = e->kind == MW_MTA_CLIENT, known = p->id == id;
	if (e->sendmail || (!smtpd && e->kind != MW_MTA_MESSAGE_ID))
		return;
	/* What SMTP brought has its milters from smtpd: cleanup connects for the rest. */
	r->down = r->down || (known && p->down && (smtpd || !r->smtp));
	if (!known || !smtpd)
		*p = (struct mw_audit_proc){.id = id};
	p->row = (size_t)(r - a->v) + 1;
}

/* A smtpd's milter stays away for the rest of its session. A cleanup reaches for one at
 * the beginning of a message, before it is named, and else speaks of the one it has. */
static int
milter_down(struct mw_audit *a, const struct mw_mta_event *e)
{
	static const char *const before[] = {
	    "",           "SMFIC_OPTNEG", "SMFIC_CONNECT",
	    "SMFIC_HELO", "SMFIC_MAIL",   "SMFIC_RCPT"};
	uint64_t id;
	struct mw_audit_proc *p = proc_of(a, e, &id);
	if (mw_str_eq(e->service, MW_STR("cleanup"))) {
		for (size_t i = 0; i < MW_COUNT(before); i++)
			if (mw_str_eq(e->text, mw_strz(before[i]))) {
				*p = (struct mw_audit_proc){.id = id, .down = true};
				return 0;
			}
		if (p->id != id || !p->row)
			return note_down(a, e->time_us);
	} else if (p->id != id || !p->begun) {
		return note_down(a, e->time_us);
	} else {
		p->down = true;
	}
	if (p->row)
		a->v[p->row - 1].down = true;
	return 0;
}

int
mw_audit_event(struct mw_audit *a, const struct mw_mta_event *e)
{
	if (e->time_us) {
		a->first_us = a->first_us ? MW_MIN(a->first_us, e->time_us) : e->time_us;
		a->last_us = MW_MAX(a->last_us, e->time_us);
	}
	if (e->kind == MW_MTA_MILTER_DOWN && e->sendmail) {
		/* said by the process of that session, for all that follows in it */
		size_t k = e->pid % MW_COUNT(a->broken);
		a->broken[k].pid = e->pid;
		a->broken[k].us = e->time_us;
		return 0;
	}
	if (e->kind == MW_MTA_MILTER_DOWN)
		return milter_down(a, e);
	if (e->kind == MW_MTA_CONNECT || e->kind == MW_MTA_DISCONNECT) {
		session_event(a, e);
		return 0;
	}
	if (e->kind == MW_MTA_CLIENT_DISCARD) {
		size_t k = e->pid % MW_COUNT(a->discard);
		a->discard[k].pid = e->pid;
		a->discard[k].us = e->time_us;
		return 0;
	}
	if (e->kind == MW_MTA_NOTHING || !e->queue_id.n)
		return 0;
	bool begins = e->kind == MW_MTA_CLIENT || e->kind == MW_MTA_PICKUP;
	struct mw_audit_row *r = row(a, e->queue_id, e->time_us, false);
	if (r && begins && r->removed) /* short queue IDs come again */
		r = row(a, e->queue_id, e->time_us, true);
	if (!r)
		return MW_ENOMEM;
	r->last_us = MW_MAX(r->last_us, e->time_us);
	apply(a, r, e);
	at_message(a, r, e);
	if (e->other.n && e->kind == MW_MTA_DELIVERY)
		return child_of(a, e->other, e->queue_id, e->time_us, false);
	if (e->other.n && e->kind == MW_MTA_NOTICE)
		return child_of(a, e->other, e->queue_id, e->time_us, true);
	return 0;
}

bool
mw_audit_expects(const struct mw_audit_row *r)
{
	return r->received && r->accepted && !r->refused && !r->probe;
}

/* ---- judging ---- */

static bool
loopback(struct mw_str addr)
{
	return mw_str_starts(addr, MW_STR("127.")) || mw_str_eq(addr, MW_STR("::1")) ||
	       mw_str_eq(addr, MW_STR("0:0:0:0:0:0:0:1"));
}

/* The first message of each Message-ID that is in the journal. */
struct ids {
	size_t *slot;
	size_t n;
};

static int
gather_ids(const struct mw_audit *a, struct ids *ids)
{
	ids->n = 1024;
	while (ids->n < a->n * 2)
		ids->n *= 2;
	ids->slot = calloc(ids->n, sizeof *ids->slot);
	if (!ids->slot)
		return MW_ENOMEM;
	for (size_t i = 0; i < a->n; i++) {
		const struct mw_audit_row *r = &a->v[i];
		if (!r->journaled || !r->message_id.n)
			continue;
		size_t k = (size_t)mw_hash64(r->message_id) & (ids->n - 1);
		while (ids->slot[k] &&
		       !mw_str_eq(a->v[ids->slot[k] - 1].message_id, r->message_id))
			k = (k + 1) & (ids->n - 1);
		if (!ids->slot[k])
			ids->slot[k] = i + 1;
	}
	return 0;
}

static bool
known_before(const struct mw_audit *a, const struct ids *ids,
             const struct mw_audit_row *r)
{
	if (!r->message_id.n)
		return false;
	size_t k = (size_t)mw_hash64(r->message_id) & (ids->n - 1);
	for (; ids->slot[k]; k = (k + 1) & (ids->n - 1)) {
		const struct mw_audit_row *o = &a->v[ids->slot[k] - 1];
		if (mw_str_eq(o->message_id, r->message_id))
			return o->begun_us <= r->begun_us + 1000000;
	}
	return false;
}

/* Did it come out of a message in the journal, by what the server itself says? */
static bool
of_journaled(const struct mw_audit *a, const struct mw_audit_row *r)
{
	for (int depth = 0; depth < 20 && r->parent && !r->notice; depth++) {
		r = by_hash(a, r->parent);
		if (!r)
			return false;
		if (r->journaled)
			return true;
	}
	return false;
}

static bool
was_down(const struct mw_audit *a, const struct mw_audit_row *r)
{
	size_t low = 0, high = a->n_down;
	int64_t from = r->begun_us - 10 * MINUTE_US;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (a->down[mid] < from)
			low = mid + 1;
		else
			high = mid;
	}
	return low < a->n_down && a->down[low] <= r->accepted_us + 1000000;
}

static enum mw_audit_cause
cause(const struct mw_audit *a, const struct ids *ids, const struct mw_audit_row *r,
      int64_t journal_us)
{
	if (!mw_audit_expects(r) || r->journaled)
		return MW_AUDIT_FINE;
	if (of_journaled(a, r) ||
	    ((r->pickup || loopback(r->client)) && known_before(a, ids, r)))
		return MW_AUDIT_REENTRY;
	/* a stamp of whole seconds is of any time in that second */
	if (r->accepted_us + (r->coarse ? 999999 : 0) < journal_us)
		return MW_AUDIT_BEFORE;
	if (r->discarded)
		return MW_AUDIT_DISCARDED;
	if (r->down || (r->smtp && !r->sendmail && was_down(a, r)))
		return MW_AUDIT_DOWN;
	if (r->notice || (!r->smtp && !r->pickup && r->null_sender))
		return MW_AUDIT_NOTICE;
	if (r->pickup)
		return MW_AUDIT_PICKUP;
	return loopback(r->client) ? MW_AUDIT_NO_MILTERS : MW_AUDIT_OTHER;
}

int
mw_audit_judge(struct mw_audit *a, int64_t journal_us)
{
	struct ids ids = {0};
	if (gather_ids(a, &ids))
		return MW_ENOMEM;
	for (size_t i = 0; i < a->n; i++)
		a->v[i].cause = cause(a, &ids, &a->v[i], journal_us);
	free(ids.slot);
	return 0;
}
