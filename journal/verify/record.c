/* One record looked at: its slot, its dictionary, its content, the index on it. */
#include "journal/base/util.h"
#include "journal/verify/verify_int.h"

static int
drop(void *arg, const void *p, size_t n)
{
	(void)arg;
	(void)p;
	(void)n;
	return 0;
}

/* One message in so many, by a generator of our own, so that a run can be repeated. */
static bool
sampled(struct verify *v)
{
	v->dice = v->dice * 6364136223846793005ULL + 1442695040888963407ULL;
	double x = (double)(v->dice >> 33) / (double)(UINT64_C(1) << 31) * 100.0;
	return x < v->o->sample;
}

static int
check_content(struct verify *v, const struct mw_record *rec)
{
	struct mw_err e = {0};
	struct mw_finding f = {MW_FINDING_CONTENT, rec->loc.segment, rec->loc.offset,
	                       rec->seq,           rec->seq,         NULL};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_mail m;
	bool dict = rec->type == MW_TYPE_DICT; /* looked at always: much hangs on it */
	if (!a)
		return mw_fail(v->err, MW_ENOMEM, "out of memory while verifying");
	int r = dict ? mw_record_body(v->st, rec, NULL, drop, NULL, &e)
	             : mw_record_mail(v->st, rec, a, &m, &e);
	if (r == 0 && !dict && sampled(v)) {
		v->res->contents++;
		r = mw_record_body(v->st, rec, &m, drop, NULL, &e);
	}
	if (r == MW_EERASED || r == MW_EKEY || r == 0)
		return 0;
	if (r == MW_ENOMEM || r == MW_EIO) {
		if (v->err)
			*v->err = e;
		return r;
	}
	mw_verify_found(v, f, "%s", e.msg);
	return 0;
}

/* The point of the partition of that segment; what was gathered of the one before is
 * looked up. */
static int
index_part(struct verify *v, uint64_t segment)
{
	uint64_t part = (segment - 1) / MW_INDEX_SPAN;
	struct mw_finding f = {MW_FINDING_INDEX, segment, 0, 0, 0, NULL};
	if (v->point_for == part + 1)
		return 0;
	int r = mw_verify_index_flush(v);
	if (r < 0)
		return r;
	r = mw_index_point(v->index, segment, &v->point, NULL);
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	v->point_for = part + 1;
	v->have_point = r == 1;
	r = v->have_point ? mw_store_index_fits(v->st, &v->point) : 1;
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	if (r == 0) { /* look-ups do not use it */
		v->have_point = false;
		mw_verify_found(v, f, "the index is of another state of the log");
	}
	return 0;
}

/* Looks up what was gathered, all at once: that is far quicker than one by one. */
int
mw_verify_index_flush(struct verify *v)
{
	struct gathered *g = v->gathered;
	MW_AUTOFREE uint8_t *bad = calloc(g->n + 1, 1);
	if (!bad)
		return mw_verify_no_memory(v);
	for (size_t i = 0; i < g->n; i++)
		g->e[i].tokens = g->tokens.p + g->at[i];
	int r =
	    g->n ? mw_index_audit(v->index, g->e[0].segment, g->e, g->n, bad, NULL) : 0;
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	for (size_t i = 0; i < g->n; i++) {
		const struct mw_index_entry *e = &g->e[i];
		struct mw_finding f = {MW_FINDING_INDEX, e->segment, e->offset,
		                       e->seq,           e->seq,     NULL};
		if (r < 0 || bad[i])
			mw_verify_found(v, f,
			                "record %llu is not found through the index",
			                (unsigned long long)e->seq);
	}
	g->n = 0;
	mw_buf_clear(&g->tokens);
	return 0;
}

static int
check_index(struct verify *v, const struct mw_record *rec)
{
	struct gathered *g = v->gathered;
	if (!v->index)
		return 0;
	int r = index_part(v, rec->loc.segment);
	if (r < 0)
		return r;
	if (!v->have_point || rec->seq >= v->point.next_seq)
		return 0; /* not indexed yet: look-ups walk there */
	size_t before = g->tokens.n;
	r = mw_record_tokens(v->st, rec, &g->tokens, NULL);
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	if (r < 0)
		g->tokens.n = before;
	g->at[g->n] = before;
	g->e[g->n++] =
	    (struct mw_index_entry){.seq = rec->seq,
	                            .segment = rec->loc.segment,
	                            .offset = rec->loc.offset,
	                            .n_tokens = (uint32_t)((g->tokens.n - before) /
	                                                   MW_TOKEN_LEN)};
	return g->n == GATHERED || g->tokens.n >= GATHERED_TOKENS
	           ? mw_verify_index_flush(v)
	           : 0;
}

/* A wiped slot needs its tombstone, and the other way round. 1: the record is gone, or is
 * to go, when its dictionary may have gone before it. */
static int
check_slot(struct verify *v, const struct mw_record *rec)
{
	struct mw_finding f = {MW_FINDING_WIPED, rec->loc.segment, rec->loc.offset,
	                       rec->seq,         rec->seq,         NULL};
	bool named = v->gone && mw_gone_record(v->gone, rec->seq);
	int r = mw_record_wiped(v->st, rec, v->err);
	if (r < 0)
		return r == MW_EDAMAGED ? 0 : r;
	if (r == 1 && named) {
		v->res->erased++;
	} else if (r == 1) {
		mw_verify_found(
		    v, f, "record %llu was wiped, and no tombstone says so: tampering",
		    (unsigned long long)rec->seq);
	} else if (named) {
		f.kind = MW_FINDING_PENDING;
		mw_verify_found(v, f, "record %llu has a tombstone and is not wiped yet",
		                (unsigned long long)rec->seq);
		return 1;
	}
	return r;
}

/* A whole dictionary frame that is not wiped: 1, 0, MW_ENOMEM. */
static int
dict_there(struct verify *v, struct mw_seg *s, uint64_t off, uint32_t dict)
{
	struct mw_frame f;
	struct mw_record d;
	struct mw_loc loc = {s->h.number, off};
	int r = mw_seg_frame(s, off, MW_CHECK_ALL, &f, NULL, NULL);
	if (r == 1 && (f.type != MW_TYPE_DICT || f.dict != dict))
		return 0;
	if (r == 1)
		r = mw_store_get(v->st, loc, &d, NULL);
	else
		r = r < 0 ? r : MW_EDAMAGED;
	if (r == 0)
		r = mw_record_wiped(v->st, &d, NULL);
	return r == MW_ENOMEM ? mw_verify_no_memory(v) : r == 0;
}

/* Is what it was compressed with there? That needs no key to be seen. 1, 0, negative. */
static int
check_dict(struct verify *v, struct mw_seg *s, const struct mw_record *rec)
{
	struct mw_frame f;
	uint64_t first = 8 * (uint64_t)rec->dict, off = first;
	if (rec->dict == 0 || rec->type == MW_TYPE_DICT ||
	    (v->dict_seg == s->h.number && v->dict_good == rec->dict))
		return 1;
	for (int copy = 0; copy < 2; copy++) {
		int r = dict_there(v, s, off, rec->dict);
		if (r == 1) {
			v->dict_seg = s->h.number;
			v->dict_good = rec->dict;
		}
		if (r != 0)
			return r;
		r = mw_seg_find(s, first + 8, rec->loc.offset, 0, &off, &f, NULL);
		if (r == MW_ENOMEM)
			return mw_verify_no_memory(v);
		if (r != 1)
			break;
	}
	mw_verify_found(
	    v,
	    (struct mw_finding){MW_FINDING_CONTENT, s->h.number, rec->loc.offset,
	                        rec->seq, rec->seq, NULL},
	    "record %llu needs the dictionary at offset %llu, and neither copy of it is "
	    "there",
	    (unsigned long long)rec->seq, (unsigned long long)first);
	return 0;
}

int
mw_verify_record(struct verify *v, struct mw_seg *s, uint64_t off)
{
	struct mw_record rec;
	struct mw_loc loc = {s->h.number, off};
	int r = mw_store_get(v->st, loc, &rec, v->err);
	if (r < 0)
		return r == MW_EDAMAGED ? 0 : r;
	r = check_slot(v, &rec);
	if (r < 0)
		return r;
	bool goes = r == 1;
	r = check_index(v, &rec);
	if (r < 0 || (rec.type != MW_TYPE_MAIL && rec.type != MW_TYPE_DICT))
		return r;
	v->res->mails += rec.type == MW_TYPE_MAIL;
	r = goes ? 0 : check_dict(v, s, &rec);
	return r == 1 ? check_content(v, &rec) : r;
}
