#include "journal/verify/verify.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/verify/checkpoint.h"
#include "journal/verify/verify_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *
mw_finding_name(enum mw_finding_kind k)
{
	static const char *const names[] = {"damaged",    "missing", "chain",
	                                    "content",    "index",   "signature",
	                                    "checkpoint", "wiped",   "torn",
	                                    "undecided",  "pending"};
	return names[k];
}

bool
mw_finding_bad(enum mw_finding_kind k)
{
	return k < MW_FINDING_TORN;
}

int
mw_verify_no_memory(struct verify *v)
{
	return mw_fail(v->err, MW_ENOMEM, "out of memory while verifying");
}

static void
check_chain(struct verify *v, const struct mw_seg *s, const struct mw_facts *x)
{
	const struct mw_frame *f = &x->f;
	struct mw_frame g = *f;
	if (v->chain_known) {
		mw_frame_chain(&g, v->chain, x->sums.meta, x->sums.body);
		if (memcmp(g.chain, f->chain, MW_HASH_LEN) != 0)
			mw_verify_found(
			    v,
			    (struct mw_finding){MW_FINDING_CHAIN, s->h.number, x->off,
			                        f->seq, f->seq, NULL},
			    "record %llu does not follow from the one before it",
			    (unsigned long long)f->seq);
	}
	memcpy(v->chain, f->chain, MW_HASH_LEN);
	v->chain_known = true;
}

/* A checkpoint at this record: does the log go through it? */
static void
check_anchor(struct verify *v, uint64_t segment, uint64_t off, const struct mw_frame *f)
{
	for (size_t i = 0; i < v->o->n_checkpoint; i++) {
		const struct mw_checkpoint *c = &v->o->checkpoint[i];
		if (c->seq != f->seq)
			continue;
		if (memcmp(c->chain, f->chain, MW_HASH_LEN) == 0)
			v->res->anchored_seq = f->seq;
		else
			mw_verify_found(
			    v,
			    (struct mw_finding){MW_FINDING_CHECKPOINT, segment, off,
			                        f->seq, f->seq, NULL},
			    "record %llu is not the one that the checkpoint of %lld "
			    "saw: the "
			    "history was rewritten",
			    (unsigned long long)f->seq,
			    (long long)(c->time_us / 1000000));
	}
}

static int
check_signature(struct verify *v, const struct mw_seg *s)
{
	const uint8_t *pk = mw_store_sign_public(v->st);
	int r = pk ? mw_seg_signed(s, pk) : 0;
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	if (r == 1)
		v->res->signed_segments++;
	if (r == 1 || !pk)
		return 0;
	mw_verify_found(v,
	                (struct mw_finding){MW_FINDING_SIGNATURE, s->h.number,
	                                    s->t.close_off, 0, 0, NULL},
	                r < 0 ? "the signature of segment %llu does not hold"
	                      : "segment %llu is closed but not signed",
	                (unsigned long long)s->h.number);
	return 0;
}

/* Checkpoints that the log never reached, or not any more. */
static void
check_reach(struct verify *v)
{
	for (size_t i = 0; i < v->o->n_checkpoint; i++) {
		const struct mw_checkpoint *c = &v->o->checkpoint[i];
		if (c->seq <= v->res->last_seq)
			continue;
		mw_verify_found(
		    v,
		    (struct mw_finding){MW_FINDING_CHECKPOINT, 0, 0, v->res->last_seq + 1,
		                        c->seq, NULL},
		    "a checkpoint saw record %llu, the log ends at %llu: it was cut or "
		    "rolled "
		    "back",
		    (unsigned long long)c->seq, (unsigned long long)v->res->last_seq);
	}
}

static int
check_record(struct verify *v, struct mw_seg *s, const struct mw_facts *x,
             const struct mw_look *l)
{
	check_chain(v, s, x);
	check_anchor(v, s->h.number, x->off, &x->f);
	v->res->records++;
	return mw_verify_record(v, s, x, l);
}

/* Its tombstone is written, and the machine stopped while its slot was wiped: 1, 0. */
static int
half_wiped(struct verify *v, uint64_t segment, uint64_t off, uint64_t seq)
{
	struct mw_record rec;
	struct mw_loc loc = {segment, off};
	if (!v->gone || !mw_gone_record(v->gone, seq))
		return 0;
	int r = mw_store_get(v->st, loc, &rec, NULL);
	if (r == 0)
		r = mw_record_wiped(v->st, &rec, NULL);
	return r == MW_ENOMEM ? mw_verify_no_memory(v) : r == MW_EDAMAGED;
}

/* A place where no valid frame stands, before `end`. Returns where to go on. */
static int
pass_damage(struct verify *v, struct mw_seg *s, uint64_t off, uint64_t end,
            const char *why, uint64_t *ret_off)
{
	struct mw_frame f;
	struct mw_finding fd = {MW_FINDING_DAMAGED, s->h.number, off,
	                        v->expect,          v->expect,   NULL};
	/* A frame whose header holds tells its own length: only it is lost. */
	int r = mw_seg_frame(s, off, MW_CHECK_HEADER, &f, NULL, v->err);
	if (r < 0)
		return r;
	if (r == 1 && f.seq == v->expect && off + mw_frame_len(&f) <= end) {
		r = half_wiped(v, s->h.number, off, f.seq);
		if (r < 0)
			return r;
		if (r == 1)
			fd.kind = MW_FINDING_PENDING;
		mw_verify_found(v, fd, "record %llu is lost: %s",
		                (unsigned long long)f.seq, why);
		memcpy(v->chain, f.chain, MW_HASH_LEN);
		v->chain_known = true;
		v->expect = f.seq + 1;
		*ret_off = off + mw_frame_len(&f);
		return 0;
	}
	uint64_t next;
	v->chain_known = false;
	r = mw_seg_find(s, off + 8, end, v->expect, &next, &f, v->err);
	if (r < 0)
		return r;
	if (r == 0) {
		mw_verify_found(
		    v, fd, "records from %llu to the end of the segment are lost: %s",
		    (unsigned long long)v->expect, why);
		v->expect = 0;
		*ret_off = end;
		return 0;
	}
	fd.last_seq = f.seq ? f.seq - 1 : 0;
	mw_verify_found(v, fd, "records %llu to %llu are lost: %s",
	                (unsigned long long)fd.first_seq, (unsigned long long)fd.last_seq,
	                why);
	v->expect = f.seq;
	*ret_off = next;
	return 0;
}

/* What the frame at off says: found out ahead, or now. */
static int
facts(struct verify *v, struct mw_seg *s, uint64_t off, bool again,
      const struct mw_facts **ret, const struct mw_look **ret_look)
{
	*ret = v->ahead && !again ? mw_ahead_at(v->ahead, off, ret_look) : NULL;
	if (*ret)
		return 0;
	mw_buf_clear(&v->token);
	mw_buf_clear(&v->text);
	*ret = &v->facts;
	*ret_look = &v->look;
	return mw_verify_look(&v->look, s, off, &v->facts, v->err);
}

struct place {
	uint64_t off, end;
	uint64_t next; /* where to go on */
	bool again;    /* it was looked at before: not by what was found then */
	const struct mw_facts *x; /* of a record; NULL: there was none */
	const struct mw_look *l;
};

static int
check_place(struct verify *v, struct mw_seg *s, void *arg)
{
	struct place *p = arg;
	const struct mw_facts *x;
	int r = facts(v, s, p->off, p->again, &x, &p->l);
	p->again = true;
	p->x = NULL;
	if (r < 0)
		return r;
	if (x->valid != 1 || x->f.seq != v->expect)
		return pass_damage(v, s, p->off, p->end,
		                   x->valid ? "unexpected sequence number" : x->why,
		                   &p->next);
	r = check_record(v, s, x, p->l);
	v->expect = x->f.seq + 1;
	v->res->last_seq = x->f.seq;
	p->next = p->off + mw_frame_len(&x->f);
	p->x = x;
	return r;
}

/* 0, 1: the segment left the log meanwhile, negative. */
static int
walk(struct verify *v, struct mw_seg *s, uint64_t end)
{
	struct place p = {.off = s->h.length, .end = end};
	if (v->ahead)
		mw_ahead_segment(v->ahead, s, end);
	for (; p.off < end; p.off = p.next) {
		if (v->o->progress &&
		    v->o->progress(v->o->arg, v->res->bytes + p.off, v->all_bytes))
			return mw_fail(v->err, MW_ECANCEL, "interrupted");
		p.again = false;
		int r = mw_verify_surely(v, s, check_place, &p);
		if (r == 0 && p.x)
			r = mw_verify_index(v, p.x, p.l);
		if (r != 0)
			return r;
	}
	return 0;
}

/* Segments are not there before this one: was that a prune? */
static bool
was_pruned(struct verify *v, const struct mw_seg *s)
{
	const struct mw_seg_header *h = &s->h;
	uint8_t chain[MW_HASH_LEN];
	uint64_t first = v->expect ? v->expect : v->res->segments ? h->first_seq - 1 : 1;
	int named = 0;
	if (h->first_seq > 1 && h->prev_number >= v->prev_number && v->gone)
		named = mw_gone_stretch(v->gone, first, h->first_seq - 1, chain);
	if (named == 0)
		return false;
	v->res->pruned += h->prev_number - v->prev_number;
	if (named == 2 && memcmp(chain, h->chain, MW_HASH_LEN) != 0)
		mw_verify_found(
		    v, (struct mw_finding){MW_FINDING_CHAIN, h->number, 0, 0, 0, NULL},
		    "segment %llu does not continue the chain of what was pruned "
		    "before it",
		    (unsigned long long)h->number);
	return true;
}

/* What the header says of the segment before it. */
static void
check_link(struct verify *v, const struct mw_seg *s)
{
	const struct mw_seg_header *h = &s->h;
	struct mw_finding f = {MW_FINDING_MISSING, h->number, 0, 0, 0, NULL};
	bool first = v->res->segments == 0;
	if (h->prev_number != v->prev_number && was_pruned(v, s)) {
		v->chain_known = false;
	} else if (h->prev_number != v->prev_number) {
		if (v->expect && h->first_seq > v->expect) {
			f.first_seq = v->expect;
			f.last_seq = h->first_seq - 1;
		} else if (first && h->first_seq > 1) {
			f.first_seq = 1;
			f.last_seq = h->first_seq - 1;
		}
		mw_verify_found(v, f,
		                "segment %llu follows segment %llu, which is not there",
		                (unsigned long long)h->number,
		                (unsigned long long)h->prev_number);
		v->chain_known = false;
	} else if (v->expect && h->first_seq > v->expect) {
		f.kind = MW_FINDING_DAMAGED;
		f.first_seq = v->expect;
		f.last_seq = h->first_seq - 1;
		mw_verify_found(v, f, "records %llu to %llu are lost before segment %llu",
		                (unsigned long long)f.first_seq,
		                (unsigned long long)f.last_seq,
		                (unsigned long long)h->number);
		v->chain_known = false;
	} else if ((v->expect && h->first_seq < v->expect) ||
	           (v->chain_known && memcmp(v->chain, h->chain, MW_HASH_LEN) != 0)) {
		f.kind = MW_FINDING_CHAIN;
		mw_verify_found(
		    v, f, "segment %llu does not continue the chain of segment %llu",
		    (unsigned long long)h->number, (unsigned long long)v->prev_number);
	}
	v->expect = h->first_seq;
	memcpy(v->chain, h->chain, MW_HASH_LEN);
	v->chain_known = true;
	if (first)
		v->res->first_seq = h->first_seq;
}

static int
bounds(struct verify *v, struct mw_seg *s, uint64_t next, uint64_t *ret_end)
{
	struct mw_seg *n = NULL;
	if (s->closed) {
		*ret_end = s->size - MW_SEG_TRAILER;
		return 0;
	}
	int r = next ? mw_seg_open(v->fs, v->dir, next, mw_store_id(v->st), &n, NULL)
	             : MW_ENOTFOUND;
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	if (r == 0) {
		bool says = n->h.prev_number == s->h.number;
		bool open = n->h.prev_open;
		uint64_t end = n->h.prev_end;
		mw_seg_free(n);
		if (says) {
			struct mw_seg_end rest = {.end = end};
			*ret_end = end;
			if (!open)
				mw_verify_found(
				    v,
				    (struct mw_finding){MW_FINDING_DAMAGED, s->h.number,
				                        end, 0, 0, NULL},
				    "segment %llu was closed, and its trailer is damaged",
				    (unsigned long long)s->h.number);
			else if (s->size > end)
				mw_verify_found(v,
				                (struct mw_finding){MW_FINDING_TORN,
				                                    s->h.number, rest.end,
				                                    0, 0, NULL},
				                "%llu bytes of an unfinished write, kept",
				                (unsigned long long)(s->size - end));
			return 0;
		}
	}
	struct mw_seg_end e;
	r = mw_seg_end(s, NULL, NULL, &e, v->err);
	if (r < 0)
		return r;
	*ret_end = e.end;
	if (e.torn_bytes)
		mw_verify_found(v,
		                (struct mw_finding){MW_FINDING_UNDECIDED, s->h.number,
		                                    e.end, e.next_seq, e.next_seq, NULL},
		                "torn or damaged: %llu bytes after the last whole record",
		                (unsigned long long)e.torn_bytes);
	return 0;
}

/* Keys added later stand in a file of their own; without it the first ones still open. */
static void
check_added(struct verify *v, uint64_t number)
{
	struct mw_err e = {0};
	if (mw_store_added_check(v->st, number, &e) == MW_EDAMAGED)
		mw_verify_found(
		    v, (struct mw_finding){MW_FINDING_DAMAGED, number, 0, 0, 0, NULL},
		    "%s; the keys in the segment itself still open it", e.msg);
}

struct around {
	uint64_t next, end;
};

/* What is not of a single record. */
static int
check_around(struct verify *v, struct mw_seg *s, void *arg)
{
	struct around *a = arg;
	if (s->header_hurt)
		mw_verify_found(v,
		                (struct mw_finding){MW_FINDING_DAMAGED, s->h.number, 0, 0,
		                                    0, NULL},
		                "one of the two header blocks of segment %llu is damaged",
		                (unsigned long long)s->h.number);
	check_added(v, s->h.number);
	check_link(v, s);
	return bounds(v, s, a->next, &a->end);
}

/* *ret_left: it left the log before we were through. */
static int
check_segment(struct verify *v, uint64_t number, uint64_t next, bool *ret_left)
{
	struct mw_seg *s = NULL;
	struct mw_err e = {0};
	struct around a = {.next = next};
	int r = mw_seg_open(v->fs, v->dir, number, mw_store_id(v->st), &s, &e);
	*ret_left = r == MW_ENOTFOUND;
	if (*ret_left) /* the header of the next one tells whether that was to be */
		return 0;
	if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
		mw_verify_found(v,
		                (struct mw_finding){MW_FINDING_DAMAGED, number, 0, 0, 0,
		                                    NULL},
		                "%s; its records, from %llu on, are lost", e.msg,
		                (unsigned long long)v->expect);
		v->chain_known = false;
		v->expect = 0;
		v->prev_number = number;
		return 0;
	}
	if (r < 0) {
		if (v->err)
			*v->err = e;
		return r;
	}
	r = mw_verify_surely(v, s, check_around, &a);
	if (r == 0)
		r = walk(v, s, a.end);
	if (r == 1) {
		*ret_left = true;
		mw_seg_free(s);
		return 0;
	}
	if (r == 0 && s->closed && v->chain_known &&
	    memcmp(v->chain, s->t.chain, MW_HASH_LEN) != 0)
		mw_verify_found(v,
		                (struct mw_finding){MW_FINDING_CHAIN, number,
		                                    s->t.close_off, 0, 0, NULL},
		                "the trailer of segment %llu states another chain head",
		                (unsigned long long)number);
	if (r == 0 && s->closed)
		r = check_signature(v, s);
	v->res->bytes += s->size;
	v->res->segments++;
	v->prev_number = number;
	mw_seg_free(s);
	return r;
}

static int
begin(struct verify *v)
{
	v->gathered = calloc(2, sizeof *v->gathered);
	v->look.arena = mw_arena_new(0);
	if (!v->gathered || !v->look.arena)
		return mw_verify_no_memory(v);
	if (mw_gone_load(v->st, &v->gone, NULL) == MW_ENOMEM ||
	    mw_store_index(v->st, &v->index, NULL) == MW_ENOMEM)
		return mw_verify_no_memory(v);
	v->look.st = v->st;
	v->look.sample = v->o->sample;
	v->look.token = &v->token;
	v->look.text = &v->text;
	if (v->o->threads != MW_VERIFY_PLAIN)
		mw_ahead_start(&v->look, v->fs, v->o->threads, v->all_bytes, &v->ahead);
	return 0;
}

static void
done(struct verify *v)
{
	mw_ahead_stop(v->ahead);
	mw_gone_free(v->gone);
	for (int i = 0; v->gathered && i < 2; i++)
		mw_buf_free(&v->gathered[i].tokens);
	free(v->gathered);
	mw_arena_free(v->look.arena);
	mw_buf_free(&v->token);
	mw_buf_free(&v->text);
}

/* The segments of the list; if the last of them left the log, those that came after it.
 */
static int
check_all(struct verify *v, const uint64_t *list, size_t n)
{
	MW_AUTOFREE uint64_t *more = NULL;
	bool left = false;
	int r = 0;
	for (;;) {
		for (size_t i = 0; r == 0 && i < n; i++)
			r = check_segment(v, list[i], i + 1 < n ? list[i + 1] : 0, &left);
		if (r < 0 || !left)
			return r;
		uint64_t last = list[n - 1];
		free(MW_TAKE(more));
		r = mw_seg_list(v->fs, v->dir, &more, &n, v->err);
		for (list = more; r == 0 && n && *list <= last; n--)
			list++;
		if (r < 0 || n == 0)
			return r;
	}
}

int
mw_verify_run(struct mw_store *st, const struct mw_verify_opts *o,
              struct mw_verify_result *ret, struct mw_err *err)
{
	struct verify v = {.st = st,
	                   .fs = mw_fs_posix(),
	                   .dir = mw_store_dir(st),
	                   .o = o,
	                   .res = ret,
	                   .err = err};
	MW_AUTOFREE uint64_t *list = NULL;
	size_t n;
	memset(ret, 0, sizeof *ret);
	int r = mw_seg_list(v.fs, v.dir, &list, &n, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		struct mw_seg *s = NULL;
		if (mw_seg_open(v.fs, v.dir, list[i], NULL, &s, NULL) == 0)
			v.all_bytes += s->size;
		mw_seg_free(s);
	}
	r = begin(&v);
	if (r == 0)
		r = check_all(&v, list, n);
	if (r == 0)
		r = mw_verify_index_flush(&v);
	done(&v);
	if (r == 0)
		check_reach(&v);
	memcpy(ret->chain, v.chain, MW_HASH_LEN);
	if (r < 0)
		return r;
	for (int k = 0; k <= MW_FINDING_PENDING; k++)
		if (ret->findings[k] && mw_finding_bad((enum mw_finding_kind)k))
			return 1;
	return 0;
}
