/* Walking the log in order, over segments, past damage (FORMAT.md §8). */
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "journal/store/store_int.h"

#include <stdlib.h>

struct mw_cursor {
	struct mw_store *st;
	uint64_t *list; /* segment numbers, ascending */
	size_t n_list;
	uint64_t last;    /* segment last finished with */
	uint64_t segment; /* 0: between segments */
	uint64_t off;
	uint64_t expect; /* sequence number due next, 0: any */
	uint64_t from;   /* skip what is before it */
	struct mw_extent ext;
	bool ext_known;
	uint64_t whole; /* a segment that goes at least as far as … */
	struct mw_seg_end whole_to;
	bool ask;       /* a writer that runs may say how far it goes */
	uint64_t limit; /* what is below it is durable: no need to look for the end */
	bool assumed;   /* ext is not looked up but follows from limit */
	bool ahead;     /* many records are read at a time */
	uint64_t frame; /* length of the frame before */
};

enum {
	AHEAD = 128 << 10, /* bytes read at a time where frames are small, */
	AHEAD_HEAD = 4096, /* and of each frame that is not: header, slot, metadata */
	AHEAD_SMALL = 16 << 10,
	ASK_ABOVE = 1 << 20
};

/* The newest durable record by the word of the writer, where one runs, and where so much
 * may stand behind the end of what is written that asking is less than reading it. */
static bool
ask_writer(struct mw_store *st, const struct mw_seg *s, const struct mw_seg_end *known,
           struct mw_seg_said *ret)
{
	uint64_t from = known ? known->end : s->h.length;
	if (st->mute || st->o.mode != MW_STORE_READ || s->size < from ||
	    s->size - from < ASK_ABOVE)
		return false;
	st->mute = mw_control_head(st->dir, &ret->next_seq, ret->chain, NULL) < 0;
	return !st->mute;
}

int
mw_store_extent(struct mw_store *st, uint64_t number, uint64_t next,
                const struct mw_seg_end *known, bool ask, struct mw_extent *ret,
                struct mw_err *err)
{
	struct mw_seg_said said;
	struct mw_open_seg *o;
	struct mw_extent x = {.final = true};
	int r = mw_store_seg(st, number, &o, err);
	if (r == 0 && !o->seg->closed) { /* it may have been closed since */
		mw_store_seg_drop(st, number);
		r = mw_store_seg(st, number, &o, err);
	}
	if (r < 0)
		return r;
	if (o->seg->closed) {
		x.end = o->seg->size - MW_SEG_TRAILER;
		*ret = x;
		return 0;
	}
	struct mw_seg *s = NULL;
	r = next ? mw_seg_open(st->fs, st->dir, next, st->id, &s, err) : MW_ENOTFOUND;
	if (r == MW_ENOMEM || r == MW_EIO || r == MW_EPERM)
		return r; /* it may say: nothing is decided without it (I13) */
	mw_err_clear(err);
	if (r == 0) {
		bool says = s->h.prev_number == number;
		x.end = s->h.prev_end;
		mw_seg_free(s);
		if (says) { /* I13 */
			*ret = x;
			return 0;
		}
	}
	ask = ask && !next && ask_writer(st, o->seg, known, &said);
	r = mw_seg_end(o->seg, known, ask ? &said : NULL, &x.open, err);
	if (r < 0)
		return r;
	x.end = x.open.end;
	x.final = next != 0;
	*ret = x;
	return 0;
}

static int
relist(struct mw_cursor *c, struct mw_err *err)
{
	uint64_t *v;
	size_t n;
	int r = mw_seg_list(c->st->fs, c->st->dir, &v, &n, err);
	if (r < 0)
		return r;
	free(c->list);
	c->list = v;
	c->n_list = n;
	return 0;
}

static uint64_t
after(const struct mw_cursor *c, uint64_t number)
{
	for (size_t i = 0; i < c->n_list; i++)
		if (c->list[i] > number)
			return c->list[i];
	return 0;
}

/* The segment that holds `from`: the last one that starts at or before it. */
static int
seek(struct mw_cursor *c, struct mw_err *err)
{
	for (size_t i = c->n_list; i > 0; i--) {
		struct mw_open_seg *o;
		int r = mw_store_seg(c->st, c->list[i - 1], &o, err);
		if (r == MW_EDAMAGED || r == MW_ENOTFOUND) /* or pruned while we looked */
			continue;
		if (r < 0)
			return r;
		if (o->seg->h.first_seq <= c->from) {
			c->last = c->list[i - 1] - 1;
			return 0;
		}
	}
	mw_err_clear(err);
	return 0;
}

int
mw_cursor_new(struct mw_store *st, uint64_t from, struct mw_cursor **ret,
              struct mw_err *err)
{
	struct mw_cursor *c = calloc(1, sizeof *c);
	if (!c)
		return mw_fail(err, MW_ENOMEM, "out of memory for a cursor");
	c->st = st;
	c->from = from;
	int r = relist(c, err);
	if (r == 0 && from > 1)
		r = seek(c, err);
	if (r < 0) {
		mw_cursor_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int
mw_cursor_at(struct mw_store *st, const struct mw_index_point *at, struct mw_cursor **ret,
             struct mw_err *err)
{
	int r = mw_cursor_new(st, 0, ret, err);
	if (r < 0)
		return r;
	(*ret)->segment = at->segment;
	(*ret)->last = at->segment - 1;
	(*ret)->off = at->offset;
	(*ret)->expect = at->next_seq;
	(*ret)->ext_known = false;
	return 0;
}

void
mw_cursor_point(const struct mw_cursor *c, struct mw_index_point *ret)
{
	ret->segment = c->segment ? c->segment : c->last;
	ret->offset = c->off;
	ret->next_seq = c->expect;
}

void
mw_cursor_free(struct mw_cursor *c)
{
	if (!c)
		return;
	if (c->ahead)
		for (int i = 0; i < MW_OPEN_SEGS; i++)
			if (c->st->open[i].seg)
				mw_seg_behind(c->st->open[i].seg);
	free(c->list);
	free(c);
}

void
mw_cursor_ahead(struct mw_cursor *c)
{
	c->ahead = true;
}

/* Has what stands at c->off at hand, with the records after it if they are small. */
static void
look_ahead(const struct mw_cursor *c, struct mw_seg *s)
{
	uint64_t left = c->ext.end - c->off, got = s->ahead_at + s->ahead_n;
	size_t want = c->frame < AHEAD_SMALL ? AHEAD : AHEAD_HEAD;
	bool there = c->off >= s->ahead_at && c->off < got &&
	             got - c->off >= MW_MIN(left, (uint64_t)AHEAD_HEAD);
	if (!there)
		mw_seg_ahead(s, c->off, (size_t)MW_MIN(left, (uint64_t)want));
}

/* Is the segment's end known from before? Where it has a successor, that says how far it
 * counts (I13); what a writer said serves look-ups alone. */
static bool
seen(const struct mw_cursor *c)
{
	return c->segment && c->segment == c->st->seen && !after(c, c->segment) &&
	       (c->ask || !c->st->seen_asked);
}

/* The newest segment's end, for the next look-up in this store. */
static void
remember(struct mw_cursor *c)
{
	bool open = !c->ext.final && !after(c, c->segment);
	if (open) {
		c->st->seen = c->segment;
		c->st->seen_end = c->ext.open;
		c->st->seen_asked = c->ask && !c->st->mute;
	} else if (c->st->seen == c->segment) {
		c->st->seen = 0;
	}
}

/* An open segment whose end this store has found before: what was written since is all
 * that is looked at, not the space behind it once more. */
static bool
seen_before(struct mw_cursor *c)
{
	struct mw_seg_end e = c->st->seen_end;
	struct mw_open_seg *o;
	if (!seen(c) || mw_store_seg(c->st, c->segment, &o, NULL) < 0 || o->seg->closed ||
	    mw_seg_grow(o->seg, &e, NULL) < 0)
		return false;
	c->ext = (struct mw_extent){.end = e.end, .open = e};
	c->ext_known = true;
	c->st->seen_end = e;
	return true;
}

static int
extent(struct mw_cursor *c, struct mw_err *err)
{
	const struct mw_seg_end *known =
	    c->ext_known && !c->ext.final && !c->assumed ? &c->ext.open : NULL;
	c->assumed = false;
	if (!known && seen_before(c))
		return 0;
	if (!known && c->segment && c->segment == c->whole)
		known = &c->whole_to;
	int r = mw_store_extent(c->st, c->segment, after(c, c->segment), known, c->ask,
	                        &c->ext, err);
	c->ext_known = r == 0;
	if (r == 0)
		remember(c);
	return r;
}

void
mw_cursor_seen(struct mw_cursor *c)
{
	const struct mw_seg_end *e = &c->st->seen_end;
	if (!seen(c) || c->off > e->end)
		return;
	c->ext = (struct mw_extent){.end = e->end, .open = *e};
	c->ext_known = true;
}

void
mw_cursor_whole(struct mw_cursor *c, const struct mw_record *last)
{
	c->whole = last->loc.segment;
	c->whole_to = (struct mw_seg_end){.end = last->loc.offset + last->frame_len,
	                                  .next_seq = last->seq + 1,
	                                  .next_batch = last->batch + 1};
	memcpy(c->whole_to.chain, last->chain, sizeof last->chain);
}

void
mw_cursor_ask(struct mw_cursor *c)
{
	c->ask = true;
}

/* The same for a cursor with a limit: the open segment goes on at least that far. One
 * that has a successor was abandoned, and may end with a batch that failed, whose numbers
 * were given out again (I4). */
static int
extent_to_limit(struct mw_cursor *c, struct mw_err *err)
{
	struct mw_open_seg *o;
	if (!c->limit || after(c, c->segment))
		return extent(c, err);
	int r = mw_store_seg(c->st, c->segment, &o, err);
	if (r < 0 || o->seg->closed)
		return r < 0 ? r : extent(c, err);
	c->ext = (struct mw_extent){.end = UINT64_MAX};
	c->ext_known = c->assumed = true;
	return 0;
}

void
mw_cursor_limit(struct mw_cursor *c, uint64_t limit)
{
	c->limit = limit;
}

/* The segment went while we were in it: whether that was to be, the header of the next
 * one is asked when that is entered. */
static void
left(struct mw_cursor *c, struct mw_err *err)
{
	mw_err_clear(err);
	mw_store_seg_drop(c->st, c->segment);
	c->last = c->segment;
	c->segment = 0;
	c->ext_known = false;
}

/* Enters the next segment: 1, or 0 if there is none; negative: damage, and the segment
 * is passed over. */
static int
enter(struct mw_cursor *c, struct mw_err *err)
{
	uint64_t number = after(c, c->last);
	if (!number) {
		int r = relist(c, err);
		if (r < 0)
			return r;
		number = after(c, c->last);
		if (!number)
			return 0;
	}
	struct mw_open_seg *o;
	int r = mw_store_seg(c->st, number, &o, err);
	if (r == MW_ENOTFOUND) { /* pruned while we looked */
		c->last = number;
		return relist(c, err) < 0 ? MW_EIO : 1;
	}
	if (r < 0) {
		c->last = number;
		c->off = 0;
		return r;
	}
	uint64_t due = c->expect, first = o->seg->h.first_seq;
	uint64_t length = o->seg->h.length;
	c->segment = number;
	c->off = length;
	c->expect = first;
	c->ext_known = false;
	r = extent_to_limit(c, err);
	if (r == MW_ENOTFOUND) {
		c->expect = due;
		left(c, err);
		return 1;
	}
	if (r < 0) {
		c->last = number;
		c->segment = 0;
		return r;
	}
	r = due && first > due ? mw_store_hole_known(c->st, due, first - 1, err) : 1;
	if (r == 0) {
		r = mw_fail(err, MW_EDAMAGED,
		            "records %llu to %llu are missing before segment %llu",
		            (unsigned long long)due, (unsigned long long)(first - 1),
		            (unsigned long long)number);
		if (err) {
			err->first_seq = due;
			err->last_seq = first - 1;
		}
	}
	return r;
}

/* After mw_fail. */
static int
names_lost(struct mw_err *err, uint64_t first, uint64_t last)
{
	if (err) {
		err->first_seq = first;
		err->last_seq = last;
	}
	return MW_EDAMAGED;
}

/* At an invalid frame before the end: goes to the next valid one, says what is lost. */
static int
skip_damage(struct mw_cursor *c, struct mw_seg *s, const char *why, struct mw_err *err)
{
	uint64_t at = c->off, due = c->expect, off;
	struct mw_frame f;
	int r = mw_seg_find(s, at + 8, c->ext.end, due, &off, &f, err);
	if (r < 0)
		return r;
	if (r == 0) {
		c->off = c->ext.end;
		(void)mw_fail(err, MW_EDAMAGED,
		              "segment %llu, offset %llu: %s; records from %llu to the "
		              "end of the segment are lost",
		              (unsigned long long)c->segment, (unsigned long long)at, why,
		              (unsigned long long)due);
		return names_lost(err, due, UINT64_MAX);
	}
	c->off = off;
	c->expect = f.seq;
	(void)mw_fail(err, MW_EDAMAGED,
	              "segment %llu, offset %llu: %s; records %llu to %llu are lost",
	              (unsigned long long)c->segment, (unsigned long long)at, why,
	              (unsigned long long)due, (unsigned long long)(f.seq - 1));
	return names_lost(err, due, f.seq - 1);
}

/* The newest segment, at its end: what was written since is met here at the cost of just
 * that. 1 there is more, 0 there is not, negative: the whole look is needed. */
static int
grow(struct mw_cursor *c)
{
	struct mw_open_seg *o;
	if (c->assumed || after(c, c->segment) ||
	    mw_store_seg(c->st, c->segment, &o, NULL) < 0)
		return MW_EFORMAT;
	int r = mw_seg_grow(o->seg, &c->ext.open, NULL);
	if (r == 1) {
		c->ext.end = c->ext.open.end;
		remember(c);
	}
	return r;
}

/* At the end of what is known of the segment: 1 go on, 0 end of the log. */
static int
at_end(struct mw_cursor *c, struct mw_err *err)
{
	if (!c->ext.final) {
		int more = relist(c, err);
		if (more == 0)
			more = grow(c);
		if (more >= 0)
			return more;
		uint64_t end = c->ext.end;
		int r = relist(c, err);
		if (r == 0)
			r = extent(c, err);
		if (r == MW_ENOTFOUND) {
			left(c, err);
			return 1;
		}
		if (r < 0)
			return r;
		if (c->ext.end > end)
			return 1;
		if (!c->ext.final)
			return 0;
	}
	c->last = c->segment;
	c->segment = 0;
	return 1;
}

int
mw_cursor_next(struct mw_cursor *c, struct mw_record *ret, struct mw_err *err)
{
	for (;;) {
		int r;
		if (c->limit && c->expect >= c->limit)
			return 0;
		if (!c->segment) {
			r = enter(c, err);
			if (r <= 0)
				return r;
			continue;
		}
		if (!c->ext_known) {
			r = extent_to_limit(c, err);
			if (r == MW_ENOTFOUND) {
				left(c, err);
				continue;
			}
			if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
				c->last = c->segment; /* told once, passed over */
				c->segment = 0;
			}
			if (r < 0)
				return r;
		}
		if (c->off >= c->ext.end) {
			r = at_end(c, err);
			if (r <= 0)
				return r;
			continue;
		}
		struct mw_open_seg *o;
		struct mw_frame f;
		const char *why = "";
		r = mw_store_seg(c->st, c->segment, &o, err);
		if (r == 0 && c->ahead)
			look_ahead(c, o->seg);
		if (r == 0)
			r = mw_seg_frame(o->seg, c->off, MW_CHECK_HEADER, &f, &why, err);
		if (r == MW_ENOTFOUND || (r == 0 && mw_seg_left(o->seg, c->st->dir))) {
			left(c, err);
			continue;
		}
		if (r < 0)
			return r;
		if ((r == 0 || f.seq != c->expect) && c->assumed) {
			r = extent(c, err); /* closed meanwhile, or damaged */
			if (r == MW_ENOTFOUND)
				left(c, err);
			else if (r < 0)
				return r;
			continue;
		}
		if (r == 0 || f.seq != c->expect)
			return skip_damage(c, o->seg,
			                   r ? "unexpected sequence number" : why, err);
		mw_record_of(ret, c->segment, c->off, &f);
		c->off += ret->frame_len;
		c->frame = ret->frame_len;
		c->expect = f.seq + 1;
		if (f.seq >= c->from)
			return 1;
	}
}

/* The newest record below `below` in the segments from `number` on. */
static int
last_from(struct mw_store *st, const struct mw_index_point *at, uint64_t below,
          struct mw_record *ret, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	bool found = false;
	int k = mw_cursor_at(st, at, &c, err);
	if (k == 0)
		mw_cursor_ahead(c);
	while (k == 0) {
		k = mw_cursor_next(c, &r, err);
		if (k == MW_EDAMAGED || k == MW_EFORMAT || k == MW_EVERSION) {
			mw_err_clear(err);
			k = 0;
			continue;
		}
		if (k <= 0 || r.seq >= below)
			break;
		*ret = r;
		found = true;
		k = 0;
	}
	return k < 0 ? k : found;
}

int
mw_store_last(struct mw_store *st, uint64_t below, struct mw_record *ret,
              struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	int r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	for (size_t i = n; r == 0 && i > 0; i--) {
		struct mw_open_seg *o;
		int e = mw_store_seg(st, v[i - 1], &o, err);
		if (e == MW_ENOMEM)
			return e;
		mw_err_clear(err);
		if (e < 0 || o->seg->h.first_seq >= below)
			continue;
		struct mw_index_point at = {.segment = v[i - 1],
		                            .offset = o->seg->h.length,
		                            .next_seq = o->seg->h.first_seq};
		r = last_from(st, &at, below, ret, err);
	}
	return r;
}
