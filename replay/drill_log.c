#include "replay/drill.h"

#include "journal/base/util.h"
#include "journal/store/control.h"
#include "replay/erased.h"
#include "replay/select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	NEWEST =
	    8 /* mails looked at: they may be stored in another order than they came */
};

/* ---- before ---- */

/* What the daemon acknowledged last, and how far the log is durable. */
static uint64_t
ask_daemon(struct mw_drill *d)
{
	MW_BUF_AUTO reply = {.max = 1 << 20};
	json_error_t e;
	d->time.rpo_bound = true;
	if (mw_control_call(mw_store_dir(d->st), "status", &reply, NULL) < 0)
		return UINT64_MAX;
	json_t *o = json_loads(mw_buf_cstr(&reply), 0, &e);
	json_int_t next = json_integer_value(json_object_get(o, "next_seq"));
	const char *id = json_string_value(json_object_get(o, "last_id"));
	if (id && strlen(id) == MW_ID_TEXT) {
		memcpy(d->log.acknowledged_id, id, MW_ID_TEXT + 1);
		d->time.acknowledged_us =
		    json_integer_value(json_object_get(o, "last_mail_us"));
		d->time.rpo_bound = false;
	}
	json_decref(o);
	return next > 0 ? (uint64_t)next : UINT64_MAX;
}

static int
newest_mark(struct mw_drill *d, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(64U << 20);
	struct mw_mark_info *v = NULL;
	size_t n = 0;
	int r = a ? mw_marks(d->st, a, &v, &n, err)
	          : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && r == 0; i++) {
		if (v[i].state != MW_MARK_COMPLETE)
			continue;
		(void)snprintf(d->log.mark, sizeof d->log.mark, "%s", v[i].name);
		d->log.mark_seq = v[i].start_seq;
		d->log.mark_us = v[i].start_us;
	}
	return r;
}

int
mw_drill_log_before(struct mw_drill *d, struct mw_err *err)
{
	struct mw_record rec;
	uint64_t durable = ask_daemon(d);
	int r = mw_store_last(d->st, durable, &rec, err);
	if (r == 0)
		return mw_fail(err, MW_ENOTFOUND, "the journal %s has no records yet",
		               mw_store_dir(d->st));
	if (r < 0)
		return r;
	d->log.seq = rec.seq;
	memcpy(d->log.chain, rec.chain, sizeof d->log.chain);
	return newest_mark(d, err);
}

/* ---- after ---- */

static void
on_finding(void *arg, const struct mw_finding *f)
{
	struct mw_drill *d = arg;
	struct mw_record rec;
	struct mw_loc loc = {f->segment, f->offset};
	if (!mw_finding_bad(f->kind))
		return;
	if (f->first_seq &&
	    (f->kind == MW_FINDING_DAMAGED || f->kind == MW_FINDING_MISSING))
		d->log.gaps += f->last_seq - f->first_seq + 1;
	/* A frame whose header holds still says which record it was. */
	bool known = f->first_seq && f->first_seq == f->last_seq &&
	             mw_store_get(d->st, loc, &rec, NULL) == 0 && rec.seq == f->first_seq;
	mw_drill_found(d, mw_finding_name(f->kind), known ? rec.id : NULL, NULL,
	               "segment %llu, offset %llu: %s", (unsigned long long)f->segment,
	               (unsigned long long)f->offset, f->text);
	if (f->first_seq && d->n_finding && d->findings == d->n_finding)
		d->finding[d->n_finding - 1].seq = f->first_seq;
}

static int
on_progress(void *arg, uint64_t done, uint64_t all)
{
	(void)arg;
	(void)done;
	(void)all;
	return mw_cli_stopped();
}

/* What a replay from the mark on would have to put back. */
static int
count_since(struct mw_drill *d, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_erased erased = {0};
	struct mw_record rec;
	int k = 1,
	    r = a ? mw_cursor_new(d->st, d->log.mark_seq ? d->log.mark_seq : 1, &c, err)
	          : mw_fail(err, MW_ENOMEM, "out of memory");
	while (r == 0 && (k = mw_cursor_next(c, &rec, NULL)) != 0) {
		struct mw_copy *copy;
		struct mw_mail m;
		size_t n = 0;
		if (mw_cli_stopped())
			r = mw_fail(err, MW_ECANCEL, "interrupted");
		if (k < 0 || rec.type != MW_TYPE_MAIL)
			continue; /* damage is named already */
		mw_arena_reset(a);
		if (mw_erased_mail(&erased, d->st, 0, &rec, a, &m, NULL) < 0)
			continue;
		int q = mw_copies(d->cli->conf, &m, a, &copy, &n, err);
		r = r ? r : q;
		d->log.since_copies += n;
		d->log.since_bytes += n * m.size;
	}
	mw_erased_done(&erased);
	return r;
}

static int
drop(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return 0;
}

/* Reads it whole. Mail that was imported says nothing of how far the capture got. */
static int
read_whole(struct mw_drill *d, const struct mw_record *r, struct mw_arena *a)
{
	struct mw_mail m;
	mw_arena_reset(a);
	if (mw_record_mail(d->st, r, a, &m, NULL) < 0 ||
	    mw_record_body(d->st, r, &m, drop, NULL, NULL) < 0 ||
	    mw_str_eq(m.front, MW_STR("import")))
		return -1;
	if (m.time_us > d->log.newest_us) {
		d->log.newest_us = m.time_us;
		mw_id_text(d->log.newest_id, r->id);
	}
	return 0;
}

/* Is the mail that mailwald acknowledged last in the log? */
static bool
has_acknowledged(struct mw_drill *d, struct mw_arena *a)
{
	struct mw_record r;
	return d->log.acknowledged_id[0] &&
	       mw_store_find_id(d->st, d->log.acknowledged_id, &r, NULL) == 0 &&
	       read_whole(d, &r, a) == 0;
}

/* The last mails from record `from` on, in a ring; returns how many there were. */
static size_t
last_mails(struct mw_drill *d, uint64_t from, struct mw_record ring[NEWEST])
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record rec;
	size_t n = 0;
	int k;
	if (mw_cursor_new(d->st, from, &c, NULL) < 0)
		return 0;
	while ((k = mw_cursor_next(c, &rec, NULL)) != 0)
		if (k > 0 && rec.type == MW_TYPE_MAIL)
			ring[n++ % NEWEST] = rec;
	return n;
}

/* The newest mail that can be read whole: sets newest_id and newest_us. */
static void
find_newest(struct mw_drill *d, struct mw_arena *a)
{
	struct mw_record ring[NEWEST];
	size_t n = 0;
	for (uint64_t back = 64; d->log.newest_us == 0; back *= 16) {
		bool all = back >= d->log.seq;
		n = last_mails(d, all ? 1 : d->log.seq - back, ring);
		for (size_t i = 0; i < MW_MIN(n, (size_t)NEWEST); i++)
			(void)read_whole(d, &ring[i], a);
		if (all)
			break;
	}
}

int
mw_drill_log_after(struct mw_drill *d, struct mw_err *err)
{
	struct mw_verify_opts o = {.sample = 0,
	                           .found = on_finding,
	                           .progress = on_progress,
	                           .arg = d};
	int r = mw_verify_run(d->st, &o, &d->log.verified, err);
	if (r < 0)
		return r;
	d->log.first_seq = d->log.verified.first_seq;
	r = count_since(d, err);
	if (r < 0)
		return r;
	MW_ARENA_AUTO *a = mw_arena_new(0);
	if (!a)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	bool found = has_acknowledged(d, a);
	find_newest(d, a);
	int64_t until = d->time.rpo_bound ? d->time.start_us : d->time.acknowledged_us;
	d->time.rpo_known = found || d->log.newest_us;
	if (!found && d->log.newest_us)
		d->time.rpo_us = MW_MAX(INT64_C(0), until - d->log.newest_us);
	return 0;
}

/* ---- can it be done ---- */

int
mw_drill_check(struct mw_drill *d, struct mw_err *err)
{
	uint8_t sig[64];
	/* Not after an hour's work, but now. */
	int r = mw_store_sign(d->st, "", 0, sig, err);
	if (r < 0)
		return r;
	if (mw_store_recovery_keys(d->st) && d->cli->n_secret == 0) {
		(void)mw_fail(err, MW_EKEY,
		              "the journal is encrypted: a drill needs a recovery key");
		return mw_err_hint(err, "--key FILE");
	}
	struct mw_record ring[NEWEST], rec;
	r = mw_store_last(d->st, UINT64_MAX, &rec, err);
	d->log.seq = r > 0 ? rec.seq : 0;
	if (r < 0 || d->cli->n_secret == 0)
		return r < 0 ? r : 0;
	/* Does this key open the newest mail? */
	size_t n = 0;
	for (uint64_t back = 64; n == 0; back *= 16) {
		bool all = back >= d->log.seq;
		n = last_mails(d, all ? 1 : d->log.seq - back, ring);
		if (all)
			break;
	}
	MW_ARENA_AUTO *a = n ? mw_arena_new(0) : NULL;
	struct mw_mail m;
	if (a && mw_record_mail(d->st, &ring[(n - 1) % NEWEST], a, &m, err) == MW_EKEY)
		return MW_EKEY;
	mw_err_clear(err);
	return 0;
}
