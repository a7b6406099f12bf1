/* A prune carried out: tombstone, slots, then files with an audit (FORMAT.md §10). */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <stdlib.h>
#include <string.h>

struct files {
	struct mw_retain_log *l;
	bool *drop; /* of each segment */
	size_t n_drop;
};

/* ---- slots ---- */

static bool
to_wipe(const struct mw_retain_rec *r)
{
	return r->verdict == MW_REMOVE || (r->gone && !r->wiped);
}

/* *at: where to look from; records come in the order of their segments. NULL: it was not
 * there when they were listed. */
static const struct mw_segment_info *
segment_of(const struct mw_retain_log *l, uint64_t segment, size_t *at)
{
	while (*at < l->n_seg && l->seg[*at].number < segment)
		++*at;
	return *at < l->n_seg && l->seg[*at].number == segment ? &l->seg[*at] : NULL;
}

/* Tombstones for all that goes; the slots of what is in files that stay. */
static int
wipe(struct mw_retain_owner *o, const struct files *f, struct mw_retain_done *ret,
     struct mw_err *err)
{
	const struct mw_retain_log *l = f->l;
	size_t n_seq = 0, n = 0, at = 0;
	MW_AUTOFREE uint64_t *seq = calloc(l->n + 1, sizeof *seq);
	MW_AUTOFREE struct mw_target_rec *v = calloc(l->n + 1, sizeof *v);
	bool roll = false;
	if (!seq || !v)
		return mw_fail(err, MW_ENOMEM, "out of memory for a prune");
	for (size_t i = 0; i < l->n; i++) {
		const struct mw_retain_rec *r = &l->rec[i];
		if (r->verdict == MW_REMOVE) {
			seq[n_seq++] = r->seq;
			ret->records += r->type == MW_TYPE_MAIL;
			ret->notes += r->type != MW_TYPE_MAIL && r->type != MW_TYPE_DICT;
			ret->bytes += r->size;
		}
		if (!to_wipe(r))
			continue;
		const struct mw_segment_info *s = segment_of(l, r->segment, &at);
		if (s && f->drop[s - l->seg]) /* its file goes with all that is in it */
			continue;
		v[n++] = (struct mw_target_rec){r->segment, r->offset, r->seq};
		roll = roll || !s || !s->settled;
	}
	int r = mw_tomb_for(o, MW_TOMB_RETENTION, seq, n_seq, NULL, err);
	if (r == 0 && roll)
		r = mw_owner_roll(o, err);
	return r == 0 ? mw_wipe_all(o, v, n, err) : r;
}

/* ---- tokens ---- */

static bool
to_cut(const struct files *f, const struct noted *x, const struct mw_retain_rec *r,
       const struct mw_segment_info *s)
{
	bool named = false;
	if (!r->uncut || to_wipe(r) || r->seq > x->seq || !s || f->drop[s - f->l->seg])
		return false;
	for (size_t k = 0; !named && k < x->tomb.n_range; k++)
		named =
		    r->seq >= x->tomb.range[k].first && r->seq <= x->tomb.range[k].last;
	return named;
}

/* Of erasures that were cut short, and left somebody's tokens beside what others keep. */
static int
cut_by(struct mw_retain_owner *o, const struct files *f, const struct noted *x,
       struct mw_err *err)
{
	const struct mw_retain_log *l = f->l;
	MW_AUTOFREE struct mw_target_rec *v = NULL;
	size_t n = 0, at = 0;
	bool roll = false;
	for (size_t i = 0; i < l->n; i++) {
		const struct mw_retain_rec *r = &l->rec[i];
		const struct mw_segment_info *s = segment_of(l, r->segment, &at);
		if (!to_cut(f, x, r, s))
			continue;
		if (!v && !(v = calloc(l->n - i, sizeof *v)))
			return mw_fail(err, MW_ENOMEM, "out of memory for a prune");
		v[n++] = (struct mw_target_rec){r->segment, r->offset, r->seq};
		roll = roll || !s->settled;
	}
	int r = roll ? mw_owner_roll(o, err) : 0;
	return r == 0 && n ? mw_cut_all(o, v, n, &x->tomb, err) : r;
}

static int
cut(struct mw_retain_owner *o, const struct files *f, struct mw_err *err)
{
	bool any = false;
	int r = 0;
	for (size_t i = 0; i < f->l->n && !any; i++)
		any = f->l->rec[i].uncut;
	for (size_t k = 0; r == 0 && any && k < f->l->n_note; k++)
		if (f->l->note[k].type == MW_TYPE_TOMBSTONE && f->l->note[k].tomb.n_token)
			r = cut_by(o, f, &f->l->note[k], err);
	return r;
}

/* ---- files ---- */

static bool
in_segment(const struct mw_segment_info *s, uint64_t seq)
{
	return seq >= s->first_seq && seq <= s->last_seq;
}

/* Does it name records in segments before `before` that stay? */
static bool
covers_kept(const struct files *f, const struct mw_tombstone *t, size_t before)
{
	for (size_t i = 0; i < before; i++) {
		const struct mw_segment_info *s = &f->l->seg[i];
		for (size_t k = 0; !f->drop[i] && k < t->n_range; k++)
			if (t->range[k].first <= s->last_seq &&
			    t->range[k].last >= s->first_seq)
				return true;
	}
	return false;
}

/* The same note of a hold, which stands twice? */
static bool
is_twin(const struct noted *x, const struct noted *y)
{
	return x->type == MW_TYPE_HOLD && y->type == MW_TYPE_HOLD &&
	       mw_str_eq(x->hold.name, y->hold.name) &&
	       x->hold.time_us == y->hold.time_us && x->hold.released == y->hold.released;
}

/* The newest record of its name? For a hold: of its state; for marks: of that kind. */
static bool
is_newest(const struct mw_retain_log *l, size_t k)
{
	const struct noted *x = &l->note[k];
	for (size_t i = k + 1; i < l->n_note; i++) {
		const struct noted *y = &l->note[i];
		if (y->type != x->type)
			continue;
		if (x->type == MW_TYPE_HOLD && mw_str_eq(y->hold.name, x->hold.name) &&
		    !is_twin(x, y))
			return false;
		if (x->type == MW_TYPE_MARK && y->mark.phase == MW_MARK_COMPLETE &&
		    mw_str_eq(y->mark.name, x->mark.name) &&
		    y->mark.start_seq > MW_MAX(x->seq, x->mark.start_seq))
			return false;
	}
	return true;
}

/* A mark is needed until a later start of its name has completed. */
static bool
keeps_segment(const struct files *f, size_t k, const struct mw_segment_info *s,
              bool mails)
{
	const struct mw_retain_log *l = f->l;
	const struct noted *x = &l->note[k];
	if (x->type == MW_TYPE_MARK)
		return is_newest(l, k);
	if (x->type == MW_TYPE_TOMBSTONE)
		return !mails && covers_kept(f, &x->tomb, (size_t)(s - l->seg));
	if (x->type != MW_TYPE_HOLD || !is_newest(l, k))
		return false;
	if (!x->hold.released)
		return !mails;         /* else it is written anew */
	for (size_t i = 0; i < k; i++) /* a release outlives what it releases */
		if (l->note[i].type == MW_TYPE_HOLD &&
		    mw_str_eq(l->note[i].hold.name, x->hold.name) &&
		    !in_segment(s, l->note[i].seq))
			return true;
	return false;
}

static bool
record_done(const struct mw_retain_rec *r, int64_t now, int64_t floor)
{
	switch ((enum mw_type)r->type) {
	case MW_TYPE_MAIL:
	case MW_TYPE_OUTCOME:
	case MW_TYPE_EXPANSION:
	case MW_TYPE_SPF:
	case MW_TYPE_RESTORE:
	case MW_TYPE_DICT:
		return r->verdict == MW_REMOVE || r->verdict == MW_REMOVED;
	case MW_TYPE_MARK:
		return !r->broken && now - r->seen_us >= floor;
	case MW_TYPE_HOLD:
	case MW_TYPE_TOMBSTONE:
	case MW_TYPE_AUDIT:
		return !r->broken;
	case MW_TYPE_RECOVERY:
	case MW_TYPE_CLOSE:
		return true;
	}
	return false; /* not ours to judge */
}

/* May the file of segment i go? rec[*at …] are its records; *at moves behind them. */
static bool
may_drop(const struct files *f, size_t i, size_t *at, int64_t floor)
{
	const struct mw_retain_log *l = f->l;
	const struct mw_segment_info *s = &l->seg[i];
	int64_t now = l->n ? l->rec[l->n - 1].seen_us : 0;
	uint64_t seen = 0;
	bool done = s->settled && s->first_seq && i + 1 < l->n_seg, mails = false;
	for (; *at < l->n && l->rec[*at].segment <= s->number; ++*at) {
		const struct mw_retain_rec *r = &l->rec[*at];
		if (r->segment != s->number)
			continue;
		seen++;
		mails = mails || r->type == MW_TYPE_MAIL;
		done = done && record_done(r, now, floor);
	}
	if (!done || seen != s->last_seq - s->first_seq + 1)
		return false;
	/* Its header alone tells how far an unclosed predecessor counts (I13). */
	if (i > 0 && !f->drop[i - 1] && !l->seg[i - 1].closed)
		return false;
	for (size_t k = 0; k < l->n_note; k++)
		if (in_segment(s, l->note[k].seq) && keeps_segment(f, k, s, mails))
			return false;
	return true;
}

/* ---- what is written anew before its segment goes ---- */

static int
renew_tombstone(struct mw_retain_owner *o, const struct files *f,
                const struct mw_tombstone *t, struct mw_err *err)
{
	struct mw_tombstone left = *t;
	size_t n = 0, most = t->n_range + f->l->n_seg;
	MW_AUTOFREE struct mw_seq_range *v = calloc(most + 1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory for a tombstone");
	for (size_t i = 0; i < f->l->n_seg; i++) {
		const struct mw_segment_info *s = &f->l->seg[i];
		for (size_t k = 0; !f->drop[i] && s->settled && k < t->n_range; k++) {
			uint64_t first = MW_MAX(t->range[k].first, s->first_seq);
			uint64_t last = MW_MIN(t->range[k].last, s->last_seq);
			if (first <= last && n < most)
				v[n++] = (struct mw_seq_range){first, last};
		}
	}
	left.range = v;
	left.n_range = n;
	return mw_tomb_write(o, &left, err);
}

static bool
is_dropped(const struct files *f, uint64_t seq)
{
	for (size_t i = 0; i < f->l->n_seg; i++)
		if (f->drop[i] && in_segment(&f->l->seg[i], seq))
			return true;
	return false;
}

/* Does its twin go, too, which is before it? */
static bool
is_second(const struct files *f, size_t k)
{
	for (size_t i = 0; i < k; i++)
		if (is_twin(&f->l->note[i], &f->l->note[k]) &&
		    is_dropped(f, f->l->note[i].seq))
			return true;
	return false;
}

static int
renew_hold(struct mw_retain_owner *o, const struct mw_hold *h, struct mw_err *err)
{
	MW_BUF_AUTO cbor = {0};
	int r = mw_hold_encode(h, &cbor);
	return r < 0 ? mw_fail(err, r, "out of memory for a hold")
	             : mw_owner_note(o, MW_TYPE_HOLD, &cbor, err);
}

/* A hold in force that would go with its segment. */
static bool
is_due(const struct files *f, size_t k)
{
	const struct noted *x = &f->l->note[k];
	return x->type == MW_TYPE_HOLD && !x->hold.released && is_dropped(f, x->seq) &&
	       is_newest(f->l, k);
}

/* Does the twin of one stand where what is written now would stand? */
static bool
is_beside(const struct files *f)
{
	const struct mw_retain_log *l = f->l;
	uint64_t newest = l->seg[l->n_seg - 1].first_seq;
	for (size_t i = 0; i < l->n_note; i++)
		for (size_t k = 0; l->note[i].seq >= newest && k < i; k++)
			if (is_twin(&l->note[k], &l->note[i]) && is_due(f, k))
				return true;
	return false;
}

/* Twins go into segments of their own again. */
static int
renew(struct mw_retain_owner *o, const struct files *f, struct mw_err *err)
{
	const struct mw_retain_log *l = f->l;
	bool second = false;
	int r = is_beside(f) ? mw_owner_roll(o, err) : 0;
	for (size_t k = 0; r == 0 && k < l->n_note; k++) {
		const struct noted *x = &l->note[k];
		if (x->type == MW_TYPE_TOMBSTONE && is_dropped(f, x->seq))
			r = renew_tombstone(o, f, &x->tomb, err);
		else if (is_due(f, k) && is_second(f, k))
			second = true;
		else if (is_due(f, k))
			r = renew_hold(o, &x->hold, err);
	}
	if (r == 0 && second)
		r = mw_owner_roll(o, err);
	for (size_t k = 0; r == 0 && second && k < l->n_note; k++)
		if (is_due(f, k) && is_second(f, k))
			r = renew_hold(o, &l->note[k].hold, err);
	return r;
}

/* ---- the audit ---- */

static int
by_segment(const void *a, const void *b)
{
	uint64_t x = ((const struct mw_gone_segs *)a)->first_seg;
	uint64_t y = ((const struct mw_gone_segs *)b)->first_seg;
	return x < y ? -1 : x > y;
}

/* What went before and what goes now, neighbours joined. */
static size_t
join(struct mw_gone_segs *v, size_t n)
{
	size_t k = 0;
	if (n)
		qsort(v, n, sizeof *v, by_segment);
	for (size_t i = 0; i < n; i++) {
		struct mw_gone_segs *last = k ? &v[k - 1] : NULL;
		if (last && v[i].first_seg <= last->last_seg + 1) {
			if (v[i].last_seg <= last->last_seg)
				continue; /* a run that was cut short named it */
			last->last_seg = v[i].last_seg;
			last->last_seq = v[i].last_seq;
			last->clock_us = v[i].clock_us;
			last->took_us += v[i].took_us;
			memcpy(last->chain, v[i].chain, sizeof v[i].chain);
		} else {
			v[k++] = v[i];
		}
	}
	return k;
}

/* The segments to go, each with what the log's clock did in it; out has room. */
static size_t
gone_now(const struct files *f, struct mw_gone_segs *out)
{
	const struct mw_retain_log *l = f->l;
	struct mw_log_clock c = {.gone = l->audit ? l->audit->gone : NULL,
	                         .n_gone = l->audit ? l->audit->n_gone : 0,
	                         .quiet = l->quiet.seg,
	                         .n_quiet = l->quiet.n};
	size_t n = 0, at = 0;
	for (size_t i = 0; i < l->n_seg; i++) {
		const struct mw_segment_info *s = &l->seg[i];
		int64_t from = c.seen_us;
		for (bool first = true; at < l->n && l->rec[at].segment <= s->number;
		     at++, first = false) {
			mw_log_clock_step(&c, l->rec[at].seq, l->rec[at].time_us,
			                  l->rec[at].imported);
			from = first ? c.from_us : from;
		}
		if (!f->drop[i])
			continue;
		out[n] = (struct mw_gone_segs){.first_seg = s->number,
		                               .last_seg = s->number,
		                               .first_seq = s->first_seq,
		                               .last_seq = s->last_seq,
		                               .clock_us = c.cur_us,
		                               .took_us = c.seen_us - from};
		memcpy(out[n++].chain, s->chain, sizeof s->chain);
	}
	return n;
}

static int
audit(struct mw_retain_owner *o, const struct files *f, struct mw_retain_done *ret,
      struct mw_err *err)
{
	const struct mw_retain_log *l = f->l;
	struct mw_audit x = {.time_us = o->now_us,
	                     .by = mw_strz(o->by),
	                     .records = ret->records,
	                     .bytes = ret->bytes};
	size_t n = l->audit ? l->audit->n_gone : 0;
	MW_AUTOFREE struct mw_gone_segs *v = calloc(n + l->n_seg + 1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory for an audit record");
	for (size_t i = 0; i < n; i++)
		v[i] = l->audit->gone[i];
	n += gone_now(f, v + n);
	struct mw_lost settled = l->known;
	for (size_t i = 0; l->settle && i < l->lost.n; i++)
		if (mw_lost_add(&settled, l->arena, l->lost.v[i].first,
		                l->lost.v[i].last) < 0)
			return mw_fail(err, MW_ENOMEM,
			               "out of memory for an audit record");
	mw_lost_sort(&settled);
	if (settled.n > MW_SETTLED_MOST) {
		(void)mw_fail(
		    err, MW_ELIMIT,
		    "there are %zu places that cannot be read, more than one audit "
		    "record tells of (%d)",
		    settled.n, MW_SETTLED_MOST);
		return mw_err_hint(err, "this log can be read and replayed, not pruned: "
		                        "begin a new journal");
	}
	struct mw_lost lost = {.n = 0};
	if (!l->settle && mw_lost_told(&l->lost, l->arena, &lost) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory for an audit record");
	x.settled = settled.v;
	x.n_settled = settled.n;
	x.lost = lost.v;
	x.n_lost = lost.n;
	for (size_t i = 0; i < l->n_seg; i++) {
		x.segments += f->drop[i];
		x.freed += f->drop[i] ? l->seg[i].bytes : 0;
	}
	x.gone = v;
	x.n_gone = join(v, n);
	MW_BUF_AUTO cbor = {0};
	int r = mw_audit_encode(&x, &cbor);
	if (r < 0)
		return mw_fail(err, r, "out of memory for an audit record");
	r = mw_owner_note(o, MW_TYPE_AUDIT, &cbor, err);
	if (r == 0) {
		ret->segments = x.segments;
		ret->freed = x.freed;
	}
	return r;
}

static int
remove_files(struct mw_retain_owner *o, const struct files *f, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = calloc(f->n_drop + 1, sizeof *v);
	size_t n = 0;
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory for a prune");
	for (size_t i = 0; i < f->l->n_seg; i++)
		if (f->drop[i])
			v[n++] = f->l->seg[i].number;
	return n ? mw_owner_remove(o, v, n, err) : 0;
}

int
mw_retain_run(struct mw_retain_owner *o, struct mw_retain_log *l,
              struct mw_retain_done *ret, struct mw_err *err)
{
	struct files f = {.l = l};
	size_t at = 0;
	memset(ret, 0, sizeof *ret);
	f.drop = calloc(l->n_seg + 1, sizeof *f.drop);
	if (!f.drop)
		return mw_fail(err, MW_ENOMEM, "out of memory for a prune");
	for (size_t i = 0; i < l->n_seg; i++) {
		f.drop[i] = may_drop(&f, i, &at, MW_MAX(l->floor_us, MW_RETAIN_JUMP_US));
		f.n_drop += f.drop[i];
	}
	int r = wipe(o, &f, ret, err);
	if (r == 0)
		r = cut(o, &f, err);
	if (r == 0)
		r = f.n_drop ? renew(o, &f, err) : 0;
	if (r == 0)
		r = audit(o, &f, ret, err);
	if (r == 0)
		r = remove_files(o, &f, err);
	free(f.drop);
	return r;
}
