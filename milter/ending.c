/* ending.c - the end of a message: aliases, direction, class, record, answer. */
#include <stdio.h>

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/expand.h"
#include "milter/identity.h"
#include "milter/session_int.h"
#include "milter/verdict.h"

static void
complete(struct mw_session *s, const struct mw_commit *c)
{
	s->commit = *c;
	s->done(s->done_arg);
}

static void
on_commit(void *arg, const struct mw_commit *c)
{
	struct mw_ticket *t = arg;
	int waiting = MW_TICKET_WAITING;
	if (atomic_compare_exchange_strong(&t->state, &waiting, MW_TICKET_ANSWERED)) {
		if (c->code == 0)
			mw_capture_waited(t->session->cap, c->wait_us);
		complete(t->session, c); /* its owner frees the ticket */
		return;
	}
	mw_log(MW_LOG_NOTICE, NULL, "event=late error=%s wait_ms=%lld",
	       c->code ? mw_err_name(c->code) : "none", (long long)(c->wait_us / 1000));
	mw_entry_free(t->entry);
	free(t);
}

/* Hands the entry to the committer. */
static void
submit(struct mw_session *s)
{
	struct mw_ticket *t = calloc(1, sizeof *t);
	if (!t) {
		struct mw_commit c = {.code =
		                          mw_fail(&s->fail, MW_ENOMEM, "out of memory")};
		complete(s, &c);
		return;
	}
	t->session = s;
	struct mw_entry *e = t->entry = s->entry;
	struct mw_store *store = s->cap->store;
	atomic_store(&s->ticket, t); /* from here on s may be given up, and gone */
	mw_store_submit(store, e, on_commit, t);
}

bool
mw_session_overdue(struct mw_session *s)
{
	const struct mw_clock *clock = s->cap->clock;
	struct mw_ticket *t = atomic_load(&s->ticket);
	int waiting = MW_TICKET_WAITING;
	if (s->state != MW_ST_PENDING || !t ||
	    clock->mono_us(clock) - s->submit_mono_us < s->set->conf->commit_timeout ||
	    !atomic_compare_exchange_strong(&t->state, &waiting, MW_TICKET_GIVEN_UP))
		return false;
	s->entry = NULL; /* now the ticket's, and that the store's */
	atomic_store(&s->ticket, NULL);
	(void)mw_fail(&s->fail, MW_ETIMEOUT,
	              "the disk did not answer within commit_timeout");
	s->commit = (struct mw_commit){.code = MW_ETIMEOUT};
	return true;
}

/* How many recipients it has; the first of them. */
static size_t
recipients(const struct mw_session *s, struct mw_str *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < s->mail.n_rcpt; i++)
		if (!(s->mail.rcpt[i].flags & MW_RCPT_REFUSED) && n++ == 0)
			*ret = s->mail.rcpt[i].addr;
	return n;
}

/* Is it what replay said would come (journal/store/trail.h)? Only behind at least one
 * more mail server, and not many: whatever else may stand in their fields is journaled.
 * Where the journal has failed the digest is not known. */
static bool
came_back(struct mw_session *s)
{
	enum {
		HOPS = 8
	};
	struct mw_trail_of of = {.sender = s->mail.sender, .digest = s->mail.digest};
	const struct mw_clock *clock = s->cap->clock;
	uint8_t tag[MW_TRAIL_TAG];
	if (!s->trail || s->fail.code || recipients(s, &of.rcpt) != 1)
		return false;
	mw_trail_end(s->trail);
	for (size_t i = 1; i <= HOPS && !s->returned; i++)
		s->returned =
		    mw_trail_tag(s->trail, s->cap->guard_key, &of, i, tag) &&
		    mw_coming_take(&s->cap->coming, tag, clock->now_us(clock), &s->back);
	if (!s->returned)
		return false;
	memcpy(s->replayed_id, s->back.id, MW_ID_LEN);
	if (!s->front) /* what becomes of it will not be known here */
		mw_session_delivered(s);
	return true;
}

/* Is it what mailwal put back, for this one recipient, as it was? */
static bool
is_replayed(struct mw_session *s)
{
	struct mw_guard g = {0};
	const struct mw_clock *clock = s->cap->clock;
	if (!s->token[0])
		return came_back(s);
	size_t n = recipients(s, &g.rcpt);
	mw_guard_body_done(&s->guard, g.body);
	int64_t now = clock->now_us(clock);
	bool fits =
	    n == 1 && mw_guard_check(s->cap->guard_key, mw_strz(s->token), now, &g);
	if (fits && mw_once_take(&s->cap->used, g.tag, g.time_us, now)) {
		memcpy(s->replayed_id, g.id, MW_ID_LEN);
		return true;
	}
	s->token[0] = 0;
	if (came_back(s))
		return true;
	mw_log(MW_LOG_WARN, s->macro[MW_MACRO_QUEUE_ID],
	       "event=not_a_replay reason=\"its token %s\" hint=\"it is journaled\"",
	       fits ? "was used before, or is older than this mailwald"
	            : "is of another journal or message, or too old");
	return false;
}

static void
decide(struct mw_session *s)
{
	mw_scan_end(&s->scan);
	mw_classes_decide(s->set->classes, s->set->conf, &s->scan, s->content, &s->mail,
	                  &s->class);
	if (is_replayed(s))
		s->pass = MW_PASS_REPLAYED;
	else if (!s->class.journal)
		s->pass = MW_PASS_EXCLUDED;
	else if (s->fail.code)
		s->pass = MW_PASS_FAILED;
}

/* Metadata is final: seals the entry and hands it to the committer. */
static void
seal_and_submit(struct mw_session *s)
{
	struct mw_commit none = {0};
	mw_message_direct(s->set->conf, &s->mail);
	decide(s);
	if (s->pass) {
		none.code = s->pass == MW_PASS_FAILED ? s->fail.code : 0;
		mw_session_coming(s, false);
		complete(s, &none);
		return;
	}
	none.code =
	    mw_classes_note(s->set->classes, &s->scan, &s->class, s->arena, &s->mail);
	if (none.code < 0)
		(void)mw_fail(&s->fail, none.code, "out of memory for the classes");
	else
		none.code = mw_entry_finish_mail(s->entry, &s->mail, &s->fail);
	if (none.code < 0) {
		mw_session_coming(s, false);
		complete(s, &none);
		return;
	}
	struct mw_store *store = s->cap->store;
	bool counted = s->coming;
	s->coming = false;
	submit(s);   /* s may be gone */
	if (counted) /* not before: the commit that waits for it is to take it along */
		mw_store_coming(store, -1);
}

/* Tables in files and memory are asked at once. Those on a network are asked when the
 * message has its answer; until then its recipients stand as they came. */
static void
resolve(struct mw_session *s)
{
	struct mw_err err = {0};
	const struct mw_clock *c = s->cap->clock;
	struct mw_until until = {c->mono_us(c) + s->set->conf->identities_timeout, NULL};
	struct mw_mail *m = &s->mail;
	if (mw_identity_network(s->set->identity)) {
		for (size_t i = 0; i < m->n_rcpt; i++)
			if (!(m->rcpt[i].flags & MW_RCPT_REFUSED))
				m->rcpt[i].flags |= MW_RCPT_UNDECIDED | MW_RCPT_LATER;
	} else if (mw_identity_resolve(s->set->identity, s->arena, m, &until, &err) < 0) {
		mw_log(MW_LOG_WARN, s->macro[MW_MACRO_QUEUE_ID],
		       "event=undecided error=%s reason=\"%s\"", mw_err_name(err.code),
		       err.msg);
	}
}

static int
refused_at_end(struct mw_session *s, struct mw_answer *ret)
{
	if (s->too_many) {
		atomic_fetch_add(&s->cap->count.tempfailed, 1);
		mw_policy_too_many(ret);
		mw_log(MW_LOG_WARN, s->macro[MW_MACRO_QUEUE_ID],
		       "event=refused stage=eom reply=452 nrcpt=%zu "
		       "reason=\"more than recipient_limit\"",
		       s->mail.n_rcpt);
	} else {
		const char *qid = s->macro[MW_MACRO_QUEUE_ID];
		struct mw_failure f = {qid ? qid : "",
		                       mw_classes_strictest(s->set->classes,
		                                            s->set->conf->on_failure)};
		mw_policy_failed(s->cap, s->set->conf, &f, &s->fail, ret);
	}
	mw_session_clear(s);
	return 0;
}

/* The journal has failed; does the class of the message matter still? Not when even its
 * envelope is not known whole. */
static bool
may_pass(const struct mw_session *s)
{
	return s->arena && s->fail.code != MW_ENOMEM && (s->set->classes || s->token[0]);
}

int
mw_session_eom(struct mw_session *s, void (*done)(void *arg), void *arg,
               struct mw_answer *ret)
{
	memset(ret, 0, sizeof *ret);
	if (s->state == MW_ST_ENVELOPE || s->state == MW_ST_HEADER)
		mw_session_end_header(s);
	if (s->state != MW_ST_BODY)
		return MW_EPROTO;
	if (!s->fail.code && (s->lost || s->lost_conn))
		(void)mw_fail(&s->fail, MW_ENOMEM, "out of memory for the envelope");
	if (!s->too_many)
		mw_message_build(s);
	if (!s->fail.code && !s->too_many &&
	    mw_entry_describe(s->entry, &s->mail, &s->fail) < 0 && !s->fail.code)
		(void)mw_fail(&s->fail, MW_EBUG, "the entry has no description");
	if (!s->fail.code && !s->too_many)
		(void)!mw_policy_load(s->cap, s->set->conf, false,
		                      &s->fail); /* in fail */
	if (s->too_many || (s->fail.code && !may_pass(s)))
		return refused_at_end(s, ret);
	s->state = MW_ST_PENDING;
	s->done = done;
	s->done_arg = arg;
	atomic_fetch_add(&s->cap->count.at_eom, 1);
	s->submit_mono_us = s->cap->clock->mono_us(s->cap->clock);
	if (s->set->identity)
		resolve(s);
	seal_and_submit(s);
	return 1;
}

/* An address for the log: no byte of it can be taken for another key. */
static const char *
log_addr(struct mw_str a, char *out, size_t n)
{
	size_t m = MW_MIN(a.n, n - 1);
	for (size_t i = 0; i < m; i++) {
		char c = a.p[i];
		out[i] = c == ' ' || c == '<' || c == '>' || c == '"' ? '?' : c;
	}
	out[m] = 0;
	return out;
}

static void
log_journaled(struct mw_session *s)
{
	char id[MW_ID_TEXT + 1], from[256];
	mw_id_text(id, mw_entry_id(s->entry));
	mw_log(MW_LOG_INFO, s->macro[MW_MACRO_QUEUE_ID],
	       "event=journaled id=%s from=<%s> nrcpt=%zu size=%llu seg=%llu off=%llu "
	       "wait_ms=%lld",
	       id, log_addr(s->mail.sender, from, sizeof from), s->mail.n_rcpt,
	       (unsigned long long)s->mail.size,
	       (unsigned long long)s->commit.loc.segment,
	       (unsigned long long)s->commit.loc.offset,
	       (long long)(s->commit.wait_us / 1000));
}

static void
log_passed(struct mw_session *s)
{
	char id[MW_ID_TEXT + 1], from[256];
	const char *qid = s->macro[MW_MACRO_QUEUE_ID];
	if (s->pass == MW_PASS_REPLAYED) {
		mw_id_text(id, s->replayed_id);
		mw_log(MW_LOG_INFO, qid, "event=replayed id=%s size=%llu", id,
		       (unsigned long long)s->content);
		atomic_fetch_add(&s->cap->count.replayed, 1);
		return;
	}
	const char *section = mw_classes_name(s->set->classes, s->class.section);
	mw_log(MW_LOG_INFO, qid,
	       "event=excluded section=%s from=<%s> nrcpt=%zu size=%llu", section,
	       log_addr(s->mail.sender, from, sizeof from), s->mail.n_rcpt,
	       (unsigned long long)s->content);
	mw_capture_excluded(s->cap, section, s->content);
}

void
mw_session_finish(struct mw_session *s, struct mw_answer *ret)
{
	memset(ret, 0, sizeof *ret);
	free(atomic_exchange(&s->ticket, NULL));
	if (s->pass == MW_PASS_EXCLUDED || s->pass == MW_PASS_REPLAYED) {
		log_passed(s);
	} else if (s->commit.code == 0) {
		log_journaled(s);
		atomic_fetch_add(&s->cap->count.recipients, s->mail.n_rcpt);
		mw_capture_journaled(s->cap, s->mail.queue_id, mw_entry_id(s->entry),
		                     s->mail.time_us);
		mw_verdict_ask(atomic_load(&s->cap->verdict), &s->mail,
		               mw_entry_id(s->entry), s->commit.seq);
		mw_expand_ask(atomic_load(&s->cap->expand), s->set, &s->mail,
		              mw_entry_id(s->entry), s->commit.seq);
	} else {
		const char *qid = s->macro[MW_MACRO_QUEUE_ID];
		struct mw_failure f = {qid ? qid : "", s->class.on_failure};
		if (!s->fail.code)
			(void)mw_fail(&s->fail, s->commit.code, "the commit failed: %s",
			              mw_err_text(s->commit.code));
		mw_policy_failed(s->cap, s->set->conf, &f, &s->fail, ret);
	}
	atomic_fetch_sub(&s->cap->count.at_eom, 1);
	mw_session_clear(s);
}
