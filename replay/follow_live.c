/* follow_live.c - new records, as they come, over sessions that stay open. */
#include "replay/follow.h"
#include "replay/plan_place.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	BATCH = 500,   /* records of one step */
	SESSIONS = 64, /* open at a time */
	IDLE_S = 300,  /* then a session is closed: before the server does */
	BAD_S = 60     /* a mailbox that cannot be opened is not tried again so soon */
};

struct mw_follow_session {
	char *box;
	struct mw_target *t; /* NULL: none is open */
	int64_t used_us;     /* monotonic */
	int64_t bad_us;      /* until then its mail fails with why */
	int bad;             /* MW_E… of it */
	char why[300];
};

struct copy {                      /* one to put */
	const char *box, *mailbox; /* in the arena of the step */
	size_t journal, order;
	struct mw_record rec;
	int64_t time_us;
	const char *folder; /* of imported mail, in the arena; or NULL */
	struct mw_str addr; /* in the arena; of one to Sent: none */
	uint8_t digest[MW_FOLLOW_DIGEST];
	bool sent;
};

struct step {
	struct mw_follow *f;
	struct mw_arena *arena;
	struct copy *v;
	size_t n, cap;
	struct mw_follow_pos *pos;  /* after it */
	size_t n_rec, most;         /* records of this step, and at most */
	uint64_t bytes, most_bytes; /* of their content */
	/* the mail at hand, for put */
	struct mw_arena *tmp;
	struct mw_mail mail;
	const struct copy *loaded;
	int passing; /* the target's disk is full, or the like */
	struct mw_err why;
};

static int64_t
now_mono(void)
{
	const struct mw_clock *clock = mw_clock_system();
	return clock->mono_us(clock);
}

bool
mw_follow_passing(int code, const char *text)
{
	if (code == MW_EAUTH) /* not this user, but whoever answers for users */
		return strcasestr(text, "unavailable") || strcasestr(text, "temporar");
	return code == MW_EUNAVAIL || code == MW_ETIMEOUT || code == MW_EPROTO ||
	       code == MW_ELOCKED || code == MW_EIO || code == MW_ENOSPC;
}

/* ---- sessions ---- */

static void
close_one(struct mw_follow_session *s)
{
	struct mw_err ignored;
	if (s->t && s->t->own)
		(void)!mw_target_close(s->t, &ignored); /* its mail is settled */
	mw_target_free(s->t);
	s->t = NULL;
}

void
mw_follow_close_sessions(struct mw_follow *f)
{
	for (size_t i = 0; i < f->n_session; i++) {
		close_one(&f->session[i]);
		free(f->session[i].box);
	}
	free(f->session);
	f->session = NULL;
	f->n_session = 0;
}

static struct mw_follow_session *
session_of(struct mw_follow *f, const char *box)
{
	int64_t now = now_mono();
	struct mw_follow_session *found = NULL, *oldest = NULL;
	if (!f->session) {
		f->session = calloc(SESSIONS, sizeof *f->session);
		if (!f->session)
			return NULL;
		f->n_session = SESSIONS;
	}
	for (size_t i = 0; i < f->n_session; i++) {
		struct mw_follow_session *s = &f->session[i];
		if (s->t && now - s->used_us > INT64_C(1000000) * IDLE_S)
			close_one(s);
		if (s->box && strcmp(s->box, box) == 0)
			found = s;
		if (!oldest || !s->box || (oldest->box && s->used_us < oldest->used_us))
			oldest = s;
	}
	if (found)
		return found;
	close_one(oldest);
	free(oldest->box);
	*oldest = (struct mw_follow_session){.box = strdup(box)};
	return oldest->box ? oldest : NULL;
}

static int
open_session(struct mw_follow *f, struct mw_follow_session *s, const struct copy *c,
             struct mw_err *err)
{
	bool keep = f->target->ops->keeps_open;
	if (s->t)
		return 0;
	if (mw_target_clone(f->target, &s->t) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	/* Dry means for what stays open: leave the remains of an earlier run alone. */
	int r = mw_target_open(s->t, c->mailbox, c->box, keep, err);
	if (r == 0)
		r = mw_follow_box_opened(f, s->t, c->mailbox, c->box, err);
	if (r < 0) {
		mw_target_free(s->t);
		s->t = NULL;
	}
	return r;
}

/* ---- what is to be put ---- */

/* Where imported mail was, where a target can have it. */
static int
folder_of(struct step *s, const char **ret)
{
	const struct mw_str f = s->mail.folder;
	struct mw_err ignored;
	*ret = NULL;
	if (!f.n || memchr(f.p, '\0', f.n))
		return 0;
	struct mw_str z = mw_arena_str(s->arena, f);
	if (!z.p)
		return MW_ENOMEM;
	if (mw_target_folder_check(z.p, &ignored) == 0)
		*ret = z.p;
	return 0;
}

/* By its name, or as one directory by another. */
static bool
is_box(const struct step *s, const char *a, const char *b)
{
	return strcmp(a, b) == 0 ||
	       (mw_target_is_files(s->f->target) && mw_plan_one_place(a, b));
}

static bool
is_there(const struct step *s, const uint8_t *id, const char *box, bool sent)
{
	for (size_t k = s->n; k-- > 0;)
		if (memcmp(s->v[k].rec.id, id, MW_ID_LEN) == 0 && s->v[k].sent == sent &&
		    is_box(s, s->v[k].box, box))
			return true;
	return mw_follow_is_put(s->f, id, box, sent);
}

/* Did that host take it for this recipient, as one of its own, and were all copies that
 * it made of that put? An alias here is the people behind it there. */
static bool
went_on(struct step *s, const struct mw_follow_twin *t, struct mw_str addr)
{
	struct mw_follow *f = s->f;
	bool took = mw_follow_took(&t->mail, addr);
	for (size_t i = 0; i < t->n && took; i++) {
		const struct mw_copy *c = &t->copy[i];
		const char *box;
		struct mw_err ignored;
		if (c->sent || !mw_str_ieq(c->rcpt, addr))
			continue;
		took =
		    mw_target_box(f->target, c->mailbox, s->tmp, &box, &ignored) == 0 &&
		    is_there(s, t->id, box, false);
	}
	return took;
}

/* Was this copy put already, out of another host's journal? */
static bool
is_twin(struct step *s, const struct mw_follow_twin *t, size_t n, const struct mw_copy *c,
        const char *box, bool sent)
{
	for (size_t i = 0; i < n; i++)
		if (is_there(s, t[i].id, box, sent) ||
		    (t[i].later && !c->sent && went_on(s, &t[i], c->addr)))
			return true;
	return false;
}

static int
add_copies(struct step *s, size_t journal, const struct mw_record *rec,
           struct mw_err *err)
{
	struct mw_follow *f = s->f;
	struct mw_copy *c;
	struct mw_follow_twin *twin;
	size_t n, n_twin;
	const char *folder;
	bool sent_apart = mw_target_has_sent(f->target);
	if (folder_of(s, &folder))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_copies(f->cli->conf, &s->mail, s->tmp, &c, &n, err);
	if (r == 0)
		r = mw_follow_twins(f, s->pos, journal, rec, &s->mail, s->tmp, &twin,
		                    &n_twin, err);
	for (size_t i = 0; i < n && r == 0; i++) {
		const char *box;
		int named = mw_plan_named(f->cli->conf, &f->q, &c[i], s->tmp);
		if (named < 0)
			return mw_fail(err, named, "out of memory");
		if (!named)
			continue;
		struct mw_err why = {0};
		if (mw_target_box(f->target, c[i].mailbox, s->arena, &box, &why) < 0) {
			mw_follow_hold(f, journal, rec, c[i].mailbox, c[i].addr,
			               MW_ENOUSER, why.msg);
			continue;
		}
		bool sent = c[i].sent && sent_apart;
		bool twice = is_twin(s, twin, n_twin, &c[i], box, sent);
		/* One file for all: what meets in a box is one copy. */
		for (size_t k = s->n; k-- > 0 && s->v[k].rec.seq == rec->seq &&
		                      s->v[k].journal == journal;)
			twice = twice ||
			        (s->v[k].sent == sent && is_box(s, s->v[k].box, box));
		const struct mw_follow_what what = {journal, rec, s->mail.digest, box,
		                                    sent};
		int again = twice ? 1 : mw_follow_is_retry(f, &what, s->tmp);
		if (again < 0)
			return mw_fail(err, again, "out of memory");
		if (again)
			continue;
		s->v = mw_arena_grow(s->arena, s->v, &s->cap, s->n + 1, sizeof *s->v);
		const char *mailbox = mw_arena_strdup(s->arena, c[i].mailbox);
		struct mw_str addr = mw_arena_str(s->arena, c[i].addr);
		if (!s->v || !mailbox || (c[i].addr.n && !addr.p))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		s->v[s->n] = (struct copy){.box = box,
		                           .mailbox = mailbox,
		                           .journal = journal,
		                           .order = s->n,
		                           .rec = *rec,
		                           .time_us = s->mail.time_us,
		                           .folder = folder,
		                           .addr = addr,
		                           .sent = sent};
		memcpy(s->v[s->n].digest, s->mail.digest, sizeof s->v[0].digest);
		s->n++;
	}
	return r;
}

static int
take_record(struct step *s, size_t journal, const struct mw_record *rec,
            struct mw_err *err)
{
	struct mw_follow *f = s->f;
	struct mw_err why = {0};
	if (rec->type != MW_TYPE_MAIL)
		return 0;
	mw_arena_reset(s->tmp);
	int r = mw_later_mail(f->cli->stores[journal], rec, s->tmp, &s->mail, &why);
	if (r == MW_EKEY || r == MW_ENOMEM || r == MW_EIO) { /* nothing is passed over */
		*err = why;
		return r;
	}
	if (r < 0) {
		f->sum.unreadable += r != MW_EERASED;
		return 0;
	}
	r = mw_query_match(&f->q, &s->mail, rec->id);
	if (r < 0)
		return mw_fail(err, r, "out of memory");
	return r ? add_copies(s, journal, rec, err) : 0;
}

/* The next one of a journal, or the one that was left waiting. */
static int
next_record(struct mw_follow *f, size_t k, struct mw_record *ret, struct mw_err *err)
{
	if (f->wait[k].since_us) {
		*ret = f->wait[k].rec;
		return 1;
	}
	return mw_cursor_next(f->cursor[k], ret, err);
}

/* Is the expansion of this mail still to come? Then what follows waits with it, for as
 * long as it may take and no longer. */
static bool
awaits(struct step *s, size_t k, const struct mw_record *rec)
{
	struct mw_follow *f = s->f;
	const struct mw_clock *c = mw_clock_system();
	struct mw_follow_wait *w = &f->wait[k];
	int64_t within = mw_later_within_us(f->cli->conf), age;
	bool yes = false;
	if (rec->type == MW_TYPE_MAIL && within > 0 &&
	    !__builtin_sub_overflow(c->now_us(c), rec->time_us, &age) &&
	    age < within + f->cli->conf->commit_timeout &&
	    (!w->since_us || now_mono() - w->since_us < within)) {
		mw_arena_reset(s->tmp);
		yes =
		    mw_later_mail(f->cli->stores[k], rec, s->tmp, &s->mail, NULL) == 0 &&
		    mw_expansion_awaited(&s->mail);
	}
	if (!yes)
		w->since_us = 0;
	else if (!w->since_us)
		*w = (struct mw_follow_wait){*rec, MW_MAX(now_mono(), INT64_C(1))};
	return yes;
}

static int
gather(struct step *s, struct mw_err *err)
{
	struct mw_follow *f = s->f;
	for (size_t k = 0; k < f->cli->n_journals; k++) {
		int failures = 0;
		while (s->n_rec < s->most && s->bytes < s->most_bytes) {
			struct mw_record rec;
			struct mw_err why = {0};
			int r = next_record(f, k, &rec, &why);
			if (r == 0)
				break;
			if (r < 0) { /* damage: verify tells of it */
				if (++failures == 64) {
					*err = why;
					return r;
				}
				f->sum.unreadable++;
				continue;
			}
			if (awaits(s, k, &rec))
				break;
			s->n_rec++;
			s->bytes += rec.plain_len;
			s->pos[k].next = rec.seq + 1;
			memcpy(s->pos[k].last, rec.id, MW_ID_LEN);
			s->pos[k].has_last = true;
			r = take_record(s, k, &rec, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* ---- putting ---- */

static int
load(struct step *s, const struct copy *c, struct mw_err *err)
{
	if (s->loaded == c)
		return 0;
	s->loaded = NULL;
	mw_arena_reset(s->tmp);
	int r =
	    mw_later_mail(s->f->cli->stores[c->journal], &c->rec, s->tmp, &s->mail, err);
	if (r == 0)
		s->loaded = c;
	return r;
}

static int
io_envelope(void *arg, const struct mw_put *p, const struct mw_mail **ret,
            struct mw_err *err)
{
	struct step *s = arg;
	int r = load(s, p->ref, err);
	*ret = &s->mail;
	return r;
}

static int
io_content(void *arg, const struct mw_put *p, int (*sink)(void *, const void *, size_t),
           void *sarg, struct mw_err *err)
{
	struct step *s = arg;
	const struct copy *c = p->ref;
	int r = load(s, c, err);
	return r < 0 ? r
	             : mw_record_body(s->f->cli->stores[c->journal], &c->rec, &s->mail,
	                              sink, sarg, err);
}

static int
io_done(void *arg, const struct mw_put *p, int code, const char *why,
        const struct mw_put_place *place)
{
	struct step *s = arg;
	struct mw_follow *f = s->f;
	const struct copy *c = p->ref;
	const struct mw_clock *clock = mw_clock_system();
	if (code == 0 && !mw_follow_box_got(f, c->box, place))
		s->passing =
		    mw_fail(&s->why, MW_EPROTO, "mailbox %s was replaced", c->mailbox);
	if (code < 0 && mw_follow_passing(code, why)) {
		s->passing = mw_fail(&s->why, code, "%s", why);
		return 0;
	}
	if (code < 0) {
		mw_follow_hold(f, c->journal, &c->rec, c->mailbox, c->addr, code, why);
		return 0;
	}
	const struct mw_follow_what what = {c->journal, &c->rec, c->digest, c->box,
	                                    c->sent};
	mw_follow_was_put(f, &what);
	f->sum.stored++;
	f->sum.delay_us = clock->now_us(clock) - c->time_us;
	if (f->cli->json && f->cli->verbose) {
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, p->id);
		mw_cli_json(json_pack("{s:s, s:s, s:o, s:f}", "message_type", "stored",
		                      "id", id, "mailbox",
		                      mw_json_str(mw_strz(c->mailbox)), "delay_s",
		                      (double)f->sum.delay_us / 1e6));
	}
	return 0;
}

static int
by_box(const void *x, const void *y)
{
	const struct copy *a = x, *b = y;
	int r = strcmp(a->box, b->box);
	return r ? r : a->order < b->order ? -1 : a->order > b->order;
}

static void
fail_all(struct mw_follow *f, const struct copy *v, size_t n, int code, const char *why)
{
	for (size_t i = 0; i < n; i++)
		mw_follow_hold(f, v[i].journal, &v[i].rec, v[i].mailbox, v[i].addr, code,
		               why);
}

/* The copies of one box. */
static int
one_box(struct step *s, struct copy *v, size_t n, struct mw_err *err)
{
	struct mw_follow *f = s->f;
	const struct mw_put_io io = {.envelope = io_envelope,
	                             .content = io_content,
	                             .done = io_done,
	                             .box = v[0].box,
	                             .arg = s};
	MW_AUTOFREE struct mw_put *put = calloc(n, sizeof *put);
	/* Here no server waits for the rest of a command. */
	for (size_t i = 0; i < n; i++)
		mw_rate_wait(&f->rate, 1, v[i].rec.plain_len, mw_cli_stopped);
	if (mw_cli_stopped())
		return mw_fail(err, MW_ECANCEL, "interrupted");
	struct mw_follow_session *ses = session_of(f, v[0].box);
	if (!put || !ses)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (ses->bad_us > now_mono()) {
		fail_all(f, v, n, ses->bad, ses->why);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		put[i] = (struct mw_put){.time_us = v[i].time_us,
		                         .size = v[i].rec.plain_len,
		                         .sent = v[i].sent,
		                         .folder = v[i].folder,
		                         .ref = &v[i]};
		memcpy(put[i].id, v[i].rec.id, MW_ID_LEN);
	}
	int r = open_session(f, ses, &v[0], err);
	if (r < 0 && r != MW_ECANCEL && r != MW_ENOMEM &&
	    !mw_follow_passing(r, err->msg)) {
		(void)snprintf(ses->why, sizeof ses->why, "%s", err->msg);
		ses->bad_us = now_mono() + INT64_C(1000000) * BAD_S;
		ses->bad = r;
		fail_all(f, v, n, r, ses->why);
		mw_err_clear(err);
		return 0;
	}
	if (r == 0)
		r = ses->t->ops->deliver(ses->t, put, n, &io, err);
	ses->used_us = now_mono();
	if (r == 0 && s->passing) {
		*err = s->why;
		r = s->passing;
	}
	if (r < 0 || !f->target->ops->keeps_open)
		close_one(ses);
	return r;
}

static int
put_all(struct step *s, struct mw_err *err)
{
	int r = 0;
	if (s->n)
		qsort(s->v, s->n, sizeof *s->v, by_box);
	for (size_t i = 0, k; i < s->n && r == 0; i = k) {
		for (k = i + 1; k < s->n && strcmp(s->v[k].box, s->v[i].box) == 0; k++)
			;
		r = mw_cli_stopped() ? mw_fail(err, MW_ECANCEL, "interrupted")
		                     : one_box(s, s->v + i, k - i, err);
	}
	return r;
}

int
mw_follow_step(struct mw_follow *f, struct mw_err *err)
{
	size_t n = f->cli->n_journals;
	const struct mw_rate_limits *most = &f->rate.limits;
	struct step s = {.f = f, .most = BATCH, .most_bytes = UINT64_MAX};
	/* What waits together goes together: about a second's worth. */
	if (most->messages > 0)
		s.most = (size_t)MW_MAX(1.0, MW_MIN((double)BATCH, most->messages));
	if (most->bytes > 0 && most->bytes < 1e18)
		s.most_bytes = (uint64_t)most->bytes + 1;
	MW_AUTOFREE struct mw_follow_pos *pos = calloc(n, sizeof *pos);
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	MW_ARENA_AUTO *tmp = mw_arena_new(256U << 20);
	if (!pos || !arena || !tmp)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	memcpy(pos, f->pos, n * sizeof *pos);
	s.pos = pos;
	s.arena = arena;
	s.tmp = tmp;
	int r = gather(&s, err);
	if (r == 0)
		r = put_all(&s, err);
	if (r < 0)
		return r;
	if (!s.n_rec)
		return 0;
	memcpy(f->pos, pos, n * sizeof *pos);
	f->dirty = true;
	return 1;
}
