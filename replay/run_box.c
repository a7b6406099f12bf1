#include "replay/run.h"

#include "journal/base/util.h"
#include "replay/early.h"
#include "replay/look.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	NAP_MS = 500,
	/* Within a second Dovecot takes what a script sends on for sent already, and
	 * leaves it where it is. */
	NAP_SIEVE_MS = 1500
};

static const char went[] = "it expired or was erased since the plan was made";

/* To be looked for and put; what waits for the MTA's queue is not. */
static bool
is_open(const struct mw_plan_copy *p)
{
	return p->wanted && p->waits != MW_WAITS_YES &&
	       (p->fate == MW_FATE_OPEN || p->fate == MW_FATE_TRIED);
}

/* Is another copy of the same message there? They stand side by side. */
static bool
sibling_there(const struct mw_look *l, size_t i)
{
	const struct mw_plan_copy *v = l->b->v;
	return (i > 0 && v[i - 1].rec == v[i].rec && l->c[i - 1].how != MW_RC_MISSING) ||
	       (i + 1 < l->b->n && v[i + 1].rec == v[i].rec &&
	        l->c[i + 1].how != MW_RC_MISSING);
}

/* The copies that are there and were refused behind their capture: mostly none. */
static int
find_refused(const struct mw_look *l, size_t **ret, size_t *ret_n)
{
	size_t n = 0;
	for (size_t k = 0; k < l->b->n && l->r->retries_stand; k++)
		n += l->b->v[k].known == MW_KNOWN_REFUSED && l->c[k].how != MW_RC_MISSING;
	*ret_n = 0;
	if (n && !(*ret = calloc(n, sizeof **ret)))
		return MW_ENOMEM;
	for (size_t k = 0; *ret_n < n; k++)
		if (l->b->v[k].known == MW_KNOWN_REFUSED && l->c[k].how != MW_RC_MISSING)
			(*ret)[(*ret_n)++] = k;
	return 0;
}

/* Is one of the same content there that was refused behind its capture? Then this one is
 * its retry, if the target took each as it came. */
static bool
refused_there(struct mw_look *l, size_t i, const size_t *refused, size_t n)
{
	const struct mw_plan_rec *rec = l->r->plan->rec;
	struct mw_plan_copy *v = l->b->v;
	for (size_t k = 0; k < n; k++) {
		struct mw_plan_copy *x = &v[refused[k]];
		if (x->spent || x->sent != v[i].sent ||
		    memcmp(rec[x->rec].digest, rec[v[i].rec].digest,
		           sizeof rec->digest) != 0)
			continue;
		x->spent = true;
		return true;
	}
	return false;
}

/* Settles what the look found present; returns how many are still to put. */
static int
settle(struct mw_look *l, size_t *ret_left, struct mw_err *err)
{
	MW_AUTOFREE size_t *refused = NULL;
	size_t left = 0, removed = 0, n_refused;
	int q = find_refused(l, &refused, &n_refused);
	for (size_t i = 0; i < l->b->n && !q; i++) {
		struct mw_plan_copy *p = &l->b->v[i];
		if (!p->wanted || (p->fate != MW_FATE_OPEN && p->fate != MW_FATE_TRIED))
			continue;
		p->ambiguous = l->c[i].ambiguous;
		bool missing = l->c[i].how == MW_RC_MISSING &&
		               !(l->r->plan->by_message && sibling_there(l, i));
		if (missing && n_refused && p->known != MW_KNOWN_REFUSED &&
		    p->fate == MW_FATE_OPEN)
			missing = !refused_there(l, i, refused, n_refused);
		if (missing && l->r->ask_known && p->fate == MW_FATE_OPEN)
			p->known = (uint8_t)l->r->ask_known(l->r->arg, l->r, p);
		if (missing)
			q = mw_run_ask_queue(l->r, l->b, p, err);
		if (q || p->waits == MW_WAITS_YES)
			continue;
		enum mw_fate known =
		    p->fate == MW_FATE_OPEN ? mw_run_known_fate(p) : MW_FATE_OPEN;
		if (p->filed) {
			q = mw_run_filed(l->r, p, l->c[i].how != MW_RC_MISSING, err);
		} else if (missing && mw_run_taken_before(l->r, p)) {
			q = mw_run_taken(l->r, p);
		} else if (missing && known != MW_FATE_OPEN) {
			removed += known == MW_FATE_REMOVED;
			q = mw_run_fate(l->r, p, known, NULL);
		} else if (missing)
			left++;
		else
			q = mw_run_fate(l->r, p,
			                p->fate == MW_FATE_TRIED ? MW_FATE_RESTORED
			                                         : MW_FATE_PRESENT,
			                NULL);
	}
	if (removed && !l->m) {
		struct mw_run_shared *sh = l->r->shared;
		(void)pthread_mutex_lock(&sh->mu);
		sh->empty_boxes++;
		sh->empty_removed += removed;
		(void)pthread_mutex_unlock(&sh->mu);
	}
	*ret_left = left;
	return q ? mw_fail(err, q, "out of memory") : 0;
}

/* ---- putting ---- */

static struct mw_plan_copy *
copy_of(const struct mw_put *p)
{
	return p->ref;
}

static const struct mw_plan_rec *
rec_of(const struct mw_run *r, const struct mw_put *p)
{
	return &r->plan->rec[copy_of(p)->rec];
}

static int
io_envelope(void *arg, const struct mw_put *p, const struct mw_mail **ret,
            struct mw_err *err)
{
	struct mw_run *r = arg;
	int q = mw_run_load(r, rec_of(r, p), err);
	if (q) {
		r->broken = copy_of(p);
		r->broken_err = *err;
		return q;
	}
	*ret = &r->mail;
	return 0;
}

struct tap { /* tells a journal's failure from the target's */
	int (*sink)(void *, const void *, size_t);
	void *arg;
	bool sink_failed;
	struct mw_rate *rate; /* NULL: these bytes were counted */
};

static int
tap(void *arg, const void *p, size_t n)
{
	struct tap *t = arg;
	if (t->rate)
		mw_rate_wait(t->rate, 0, n, mw_cli_stopped);
	int q = t->sink(t->arg, p, n);
	t->sink_failed = t->sink_failed || q;
	return q;
}

static int
io_content(void *arg, const struct mw_put *p, int (*sink)(void *, const void *, size_t),
           void *sarg, struct mw_err *err)
{
	struct mw_run *r = arg;
	struct tap t = {sink, sarg, false, NULL};
	struct mw_err why = {0};
	if (r->charged != copy_of(p)) { /* LMTP and SMTP look at a message first */
		r->charged = copy_of(p);
		t.rate = &r->shared->rate;
		mw_rate_wait(t.rate, 1, 0, mw_cli_stopped);
	}
	int q = mw_run_content(r, rec_of(r, p), tap, &t, &why);
	if (q && !t.sink_failed) {
		r->broken = copy_of(p);
		r->broken_err = why;
		if (err)
			*err = why;
	}
	return q; /* the sink's own failure is in the target's err already */
}

static int
io_intent(void *arg, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct mw_run *r = arg;
	int q = 0;
	for (size_t i = 0; i < n && !q; i++) {
		copy_of(v[i])->fate = MW_FATE_TRIED;
		if (r->ledger)
			q = mw_ledger_intent(r->ledger, v[i]->id, r->box->box, v[i]->sent,
			                     err);
	}
	/* On files the ledger is a record only; a sync each would cost more than the
	 * mail. */
	if (!q && r->ledger && (n > 1 || !mw_target_readable(r->target)))
		q = mw_ledger_sync(r->ledger, err);
	return q;
}

static int
io_done(void *arg, const struct mw_put *p, int code, const char *why,
        const struct mw_put_place *place)
{
	struct mw_run *r = arg;
	struct mw_err err;
	int q = 0;
	if (code == MW_PUT_FILED) {
		copy_of(p)->filed = true;
		return 0;
	}
	if (r->ledger && !code)
		q = mw_ledger_done(r->ledger, p->id, r->box->box, p->sent, place, &err);
	else if (r->ledger)
		q = mw_ledger_refused(r->ledger, p->id, r->box->box, p->sent, &err);
	if (q)
		return q;
	if (code == MW_EERASED)
		return mw_run_fate(r, copy_of(p), MW_FATE_SKIPPED, went);
	return mw_run_fate(r, copy_of(p), code ? MW_FATE_FAILED : MW_FATE_RESTORED, why);
}

static void
io_front(void *arg, const struct mw_put *p, size_t bytes)
{
	(void)arg;
	copy_of(p)->front = bytes < UINT32_MAX ? (uint32_t)bytes : 0;
}

/* What could not be read expired, or was erased, since the plan was made; all else in the
 * box that went with it need not be tried. */
static int
skip_gone(struct mw_run *r, const struct mw_plan_box *b)
{
	int q = 0;
	for (size_t i = 0; i < b->n && !q; i++) {
		struct mw_plan_copy *p = &b->v[i];
		const struct mw_plan_rec *rec = &r->plan->rec[p->rec];
		struct mw_store *st = mw_run_store(r, rec->journal, NULL);
		if (is_open(p) &&
		    (p == r->broken || (st && mw_store_gone(st, rec->seq, NULL) == 1)))
			q = mw_run_fate(r, p, MW_FATE_SKIPPED, went);
	}
	return q;
}

/* Nothing more is to be done about the copy that could not be read. */
static int
settle_broken(struct mw_run *r, const struct mw_plan_box *b)
{
	if (!r->broken ||
	    (r->broken->fate != MW_FATE_OPEN && r->broken->fate != MW_FATE_TRIED))
		return 0;
	return r->broken_err.code == MW_EERASED
	           ? skip_gone(r, b)
	           : mw_run_fate(r, r->broken, MW_FATE_FAILED, r->broken_err.msg);
}

int
mw_run_put_missing(struct mw_run *r, struct mw_plan_box *b, size_t n, struct mw_err *err)
{
	struct mw_put_io io = {.envelope = io_envelope,
	                       .content = io_content,
	                       .intent = io_intent,
	                       .done = io_done,
	                       .address = mw_run_address,
	                       .token = mw_run_token,
	                       .tell = mw_run_tell,
	                       .front = io_front,
	                       .box = b->box,
	                       .arg = r};
	MW_AUTOFREE struct mw_put *v = calloc(n ? n : 1, sizeof *v);
	size_t k = 0;
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < b->n && k < n; i++) {
		struct mw_plan_copy *p = &b->v[i];
		const struct mw_plan_rec *rec = &r->plan->rec[p->rec];
		if (!is_open(p))
			continue;
		v[k] = (struct mw_put){.time_us = rec->time_us,
		                       .size = rec->size,
		                       .sent = p->sent,
		                       .folder = p->sent ? NULL : rec->folder,
		                       .ref = p};
		memcpy(v[k++].id, rec->id, MW_ID_LEN);
	}
	r->broken = NULL;
	if (r->before_put) {
		mw_run_close_stores(r);
		int no = r->before_put(r->arg, r, err);
		if (no)
			return no;
	}
	int q = mw_run_raise(r, b, err);
	if (!q)
		q = mw_target_put(r->target, v, k, &io, err);
	if (settle_broken(r, b))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (r->ledger) {
		struct mw_err second;
		int s = mw_ledger_sync(r->ledger, q ? &second : err);
		q = q ? q : s;
	}
	return q;
}

/* The box becomes ours: 0, or 1 where it changed since it was looked at. */
static int
begin(struct mw_run *r, const struct mw_plan_box *b, struct mw_err *err)
{
	r->target->coming = r->target->coming_bytes = 0;
	for (size_t i = 0; i < b->n; i++)
		if (is_open(&b->v[i])) {
			r->target->coming++;
			r->target->coming_bytes += r->plan->rec[b->v[i].rec].size;
		}
	return mw_target_begin(r->target, err);
}

/* Is nothing there of what is wanted (so that the store looks like no live one), and
 * something of it to be put for certain? */
static int
will_put(const struct mw_look *l, struct mw_err *err)
{
	int any = 0;
	for (size_t i = 0; i < l->b->n; i++) {
		struct mw_plan_copy *p = &l->b->v[i];
		if (!p->wanted)
			continue;
		if (l->c[i].how != MW_RC_MISSING || p->fate != MW_FATE_OPEN)
			return 0;
		if (any || mw_run_known_fate(p) != MW_FATE_OPEN ||
		    mw_run_taken_before(l->r, p))
			continue;
		int q = mw_run_ask_queue(l->r, l->b, p, err);
		if (q)
			return q;
		any = p->waits != MW_WAITS_YES;
	}
	return any;
}

/* Is the box as it was looked at? Where mail is to be put, what makes it ours asks that
 * anyway. 1 or 0. */
static int
is_same(const struct mw_look *l, bool *ret_begun, struct mw_err *err)
{
	struct mw_run *r = l->r;
	int q = r->dry || r->check ? 0 : will_put(l, err);
	if (q < 0)
		return q;
	*ret_begun = q > 0;
	q = q > 0 ? begin(r, l->b, err) : mw_target_changed(r->target, err);
	return q < 0 ? q : q == 0;
}

/* One attempt: 0 the box is done. */
static int
attempt(struct mw_run *r, struct mw_look *l, struct mw_plan_box *b, struct mw_err *err)
{
	size_t left = 0;
	bool begun = false;
	int q = mw_look_early(l, err);
	l->early = MW_EARLY_NONE;
	if (q == MW_LOOK_IF_SAME)
		q = is_same(l, &begun, err);
	if (q < 0)
		return q;
	q = q ? 0 : mw_look(l, err);
	if (!q && r->check)
		return mw_run_check(l, err);
	if (!q)
		q = settle(l, &left, err);
	if (q || !left)
		return q;
	if (r->dry) {
		q = mw_run_may_put(r, b, err);
		if (!q)
			q = mw_run_raise(r, b, err);
		if (q)
			return q;
		for (size_t i = 0; i < b->n && !q; i++)
			if (is_open(&b->v[i]))
				q = mw_run_fate(r, &b->v[i], MW_FATE_RESTORED, NULL);
		return q ? mw_fail(err, q, "out of memory") : 0;
	}
	q = mw_run_may_put(r, b, err);
	if (q)
		return q;
	q = begun ? 0 : begin(r, b, err);
	if (q > 0) { /* it moved on between the look and the lock */
		q = mw_look(l, err);
		if (!q)
			q = settle(l, &left, err);
	}
	mw_look_forget(l);
	return q || !left ? q : mw_run_put_missing(r, b, left, err);
}

/* Is another try of the same box any use? */
bool
mw_run_worth_retry(int code)
{
	return code == MW_EUNAVAIL || code == MW_ETIMEOUT || code == MW_EPROTO ||
	       code == MW_EREFUSED || code == MW_EDAMAGED || code == MW_EERASED ||
	       code == MW_EKEY || code == MW_EIO || code == MW_EFORMAT;
}

size_t
mw_run_open_copies(const struct mw_plan_box *b)
{
	size_t n = 0;
	for (size_t i = 0; i < b->n; i++)
		n += is_open(&b->v[i]);
	return n;
}

/* A box of which all that is wanted never arrived: often there is no such mailbox. */
static int
nothing_arrived(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	int q = 0;
	for (size_t i = 0; i < b->n; i++)
		if (b->v[i].wanted && !mw_run_never_arrived(&b->v[i]))
			return 0;
	for (size_t i = 0; i < b->n && !q; i++)
		if (b->v[i].wanted && b->v[i].fate == MW_FATE_OPEN)
			q = mw_run_fate(r, &b->v[i], mw_run_known_fate(&b->v[i]), NULL);
	return q ? mw_fail(err, q, "out of memory") : 1;
}

static bool
any_filed(const struct mw_plan_box *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->v[i].filed && b->v[i].fate == MW_FATE_TRIED)
			return true;
	return false;
}

/* All is put, but the connection was cut before the box was closed (code): what was left
 * behind is taken away by the next open. */
static void
tidy(struct mw_run *r, const struct mw_plan_box *b, int code)
{
	struct mw_err why;
	if (r->dry || (code != MW_EUNAVAIL && code != MW_ETIMEOUT && code != MW_EPROTO))
		return;
	int q = mw_cli_stopped()
	            ? mw_fail(&why, MW_ECANCEL, "interrupted")
	            : mw_target_open(r->target, b->mailbox, b->box, r->dry, &why);
	if (!q)
		q = mw_target_close(r->target, &why);
	if (q && r->target->o.note) {
		char text[600];
		(void)snprintf(text, sizeof text,
		               "warning: mailbox %.100s could not be tidied, the next "
		               "run into it does that: %.300s",
		               b->mailbox, why.msg);
		r->target->o.note(r->target->o.note_arg, text);
	}
}

static int
run_readable(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	struct mw_look l;
	int tries = 0, q = mw_look_init(&l, r, b, err);
	while (!q || tries) {
		l.early = MW_EARLY_NONE;
		size_t before = mw_run_open_copies(b);
		if (mw_cli_stopped())
			q = mw_fail(err, MW_ECANCEL, "interrupted");
		else if (mw_early_of(r->early, b->box))
			q = mw_early_take(r->early, r, &l, err);
		else
			q = mw_target_open(r->target, b->mailbox, b->box, r->dry, err);
		if (!q) {
			q = attempt(r, &l, b, err);
			struct mw_err second;
			int c = mw_target_close(r->target, q ? &second : err);
			q = q ? q : c;
			if (!q && any_filed(b))
				continue; /* another look, at what scripts made too */
		}
		size_t after = mw_run_open_copies(b);
		if (!q || (!after && q != MW_ECANCEL && q != MW_ENOMEM)) {
			tidy(r, b, q);
			q = 0; /* every copy has its answer */
			break;
		}
		tries = after < before ? 1 : tries + 1;
		if (!mw_run_worth_retry(q) || tries >= MW_RUN_ATTEMPTS)
			break;
		for (int i = r->sieve ? NAP_SIEVE_MS : NAP_MS; i > 0 && !mw_cli_stopped();
		     i -= 100)
			(void)poll(NULL, 0, 100);
	}
	mw_look_done(&l);
	return q;
}

int
mw_run_box(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	if (r->prepare)
		return mw_run_prepare(r, b, err);
	if (b->bad_name)
		return mw_fail(err, MW_ENOUSER,
		               "mailbox name \"%.100s\" cannot be a path", b->mailbox);
	int q = nothing_arrived(r, b, err);
	if (q)
		return q > 0 ? 0 : q;
	return mw_target_readable(r->target) ? run_readable(r, b, err)
	                                     : mw_run_write_only(r, b, err);
}
