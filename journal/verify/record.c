/* One record looked at: its slot, its dictionary, its content, the index on it. */
#include "journal/base/util.h"
#include "journal/verify/verify_int.h"

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
	if (r == 1)
		mw_index_ahead(v->index, segment);
	r = v->have_point ? mw_store_index_fits(v->st, &v->point) : 1;
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	if (r == 0) { /* look-ups do not use it */
		v->have_point = false;
		r = mw_verify_gone_more(v);
		if (r < 0)
			return r;
		if (!mw_verify_is_gone(v, v->point.next_seq - 1)) /* it ended in that */
			mw_verify_found(v, f, "the index is of another state of the log");
	}
	return 0;
}

static void
look_up(void *arg)
{
	struct gathered *g = arg;
	g->answer = mw_index_audit(g->index, g->e[0].segment, g->e, g->n, g->bad, NULL);
}

/* The index was asked about what the record had when it was looked at, and was made anew
 * meanwhile, if somebody removed something: 1 it lacks that record all the same, 0,
 * MW_ENOMEM. */
static int
lacks(struct verify *v, const struct mw_index_entry *e)
{
	struct mw_index_entry now = *e;
	struct mw_index_point point;
	struct mw_record rec;
	MW_BUF_AUTO token = {0};
	uint8_t bad = 0;
	if (!v->gone_grew)
		return 1;
	if (mw_verify_is_gone(v, e->seq))
		return 0;
	int r = mw_index_point(v->index, e->segment, &point, NULL);
	if (r == 0 || (r == 1 && point.next_seq <= e->seq))
		return 0; /* look-ups walk there */
	if (r == 1)
		r = mw_store_get(v->st, (struct mw_loc){e->segment, e->offset}, &rec,
		                 NULL);
	if (r == 0)
		r = mw_record_tokens(v->st, &rec, &token, NULL);
	if (r == 0) {
		now.tokens = token.p;
		now.n_tokens = (uint32_t)(token.n / MW_TOKEN_LEN);
		r = mw_index_audit(v->index, e->segment, &now, 1, &bad, NULL);
	}
	if (r == MW_ENOMEM)
		return mw_verify_no_memory(v);
	return r < 0 || bad;
}

/* What came of what was looked up. */
static int
told(struct verify *v, struct gathered *g)
{
	if (!g->asked)
		return 0;
	mw_ahead_wait(v->ahead, &g->job);
	g->asked = false;
	if (g->answer == MW_ENOMEM)
		return mw_verify_no_memory(v);
	bool any = g->answer < 0 || memchr(g->bad, 1, g->n);
	int r = any ? mw_verify_gone_more(v) : 0;
	for (size_t i = 0; any && r >= 0 && i < g->n; i++) {
		const struct mw_index_entry *e = &g->e[i];
		struct mw_finding f = {MW_FINDING_INDEX, e->segment, e->offset,
		                       e->seq,           e->seq,     NULL};
		int bad = g->answer < 0 || g->bad[i] ? lacks(v, e) : 0;
		r = MW_MIN(bad, 0);
		if (bad > 0)
			mw_verify_found(v, f,
			                "record %llu is not found through the index",
			                (unsigned long long)e->seq);
	}
	g->n = 0;
	mw_buf_clear(&g->tokens);
	return MW_MIN(r, 0);
}

/* Looks up what was gathered, all at once: that is far quicker than one by one. It is
 * told when the next so many have been gathered, so somebody else can do it. */
static int
ask(struct verify *v)
{
	struct gathered *g = &v->gathered[v->filling];
	struct gathered *other = &v->gathered[1 - v->filling];
	int r = told(v, other);
	if (r < 0 || g->n == 0)
		return r;
	for (size_t i = 0; i < g->n; i++)
		g->e[i].tokens = g->tokens.p + g->at[i];
	g->index = v->index;
	g->job = (struct mw_job){.run = look_up, .arg = g};
	g->asked = true;
	mw_ahead_do(v->ahead, &g->job);
	v->filling = 1 - v->filling;
	return 0;
}

int
mw_verify_index_flush(struct verify *v)
{
	int r = ask(v); /* tells what was asked before */
	return r < 0 ? r : told(v, &v->gathered[1 - v->filling]);
}

int
mw_verify_index(struct verify *v, const struct mw_facts *x, const struct mw_look *l)
{
	const struct mw_record *rec = &x->rec;
	if (!v->index || x->wiped < 0)
		return 0;
	int r = index_part(v, rec->loc.segment);
	if (r < 0)
		return r;
	if (!v->have_point || rec->seq >= v->point.next_seq)
		return 0; /* not indexed yet: look-ups walk there */
	struct gathered *g = &v->gathered[v->filling];
	g->at[g->n] = g->tokens.n;
	mw_buf_put(&g->tokens, l->token->p + x->tokens, x->n_tokens);
	if (mw_buf_ok(&g->tokens) < 0)
		return mw_verify_no_memory(v);
	g->e[g->n++] =
	    (struct mw_index_entry){.seq = rec->seq,
	                            .segment = rec->loc.segment,
	                            .offset = rec->loc.offset,
	                            .n_tokens = (uint32_t)(x->n_tokens / MW_TOKEN_LEN)};
	return g->n == GATHERED || g->tokens.n >= GATHERED_TOKENS ? ask(v) : 0;
}

/* Tokens that are gone need a tombstone for somebody's copies, and the other way round.
 */
static void
check_cut(struct verify *v, const struct mw_facts *x, const struct mw_look *l)
{
	const struct mw_record *rec = &x->rec;
	struct mw_finding f = {MW_FINDING_WIPED, rec->loc.segment, rec->loc.offset,
	                       rec->seq,         rec->seq,         NULL};
	bool named = v->gone && mw_gone_copies(v->gone, rec->seq);
	bool left = x->slot == MW_SLOT_IS_BEING_CUT;
	if (!named && x->slot != MW_SLOT_IS_WHOLE)
		mw_verify_found(v, f,
		                "tokens of record %llu were removed, and no tombstone "
		                "says so: tampering",
		                (unsigned long long)rec->seq);
	if (x->foreign)
		mw_verify_found(v, f,
		                "the tokens of record %llu are not its own: tampering",
		                (unsigned long long)rec->seq);
	for (size_t i = 0; named && !left && i < x->n_tokens; i += MW_TOKEN_LEN)
		left = mw_gone_token(v->gone, rec->seq, l->token->p + x->tokens + i);
	if (!named || !left)
		return;
	f.kind = MW_FINDING_PENDING;
	mw_verify_found(v, f,
	                "somebody was erased from record %llu, and his tokens are "
	                "there yet",
	                (unsigned long long)rec->seq);
}

/* Each record has a token of its own ID, which the journal's token key makes again: with
 * another key nothing is found, and no hold opens. */
static void
check_key(struct verify *v, const struct mw_facts *x, const struct mw_look *l)
{
	const struct mw_record *rec = &x->rec;
	struct mw_finding f = {MW_FINDING_CONTENT, rec->loc.segment, rec->loc.offset,
	                       rec->seq,           rec->seq,         NULL};
	uint8_t own[MW_TOKEN_LEN];
	mw_store_token(v->st, MW_KEY_ID, mw_str((const char *)rec->id, 6), own);
	for (size_t i = 0; i < x->n_tokens; i += MW_TOKEN_LEN)
		if (memcmp(l->token->p + x->tokens + i, own, sizeof own) == 0)
			return;
	mw_verify_found(v, f,
	                "record %llu does not have the token of its ID: it, or "
	                "token_key in the file 'journal', is not what it was",
	                (unsigned long long)rec->seq);
}

/* A wiped slot needs its tombstone, and the other way round. 1: the record is gone, or is
 * to go, when its dictionary may have gone before it. */
static int
check_slot(struct verify *v, const struct mw_facts *x, const struct mw_look *l)
{
	const struct mw_record *rec = &x->rec;
	struct mw_finding f = {MW_FINDING_WIPED, rec->loc.segment, rec->loc.offset,
	                       rec->seq,         rec->seq,         NULL};
	bool named = v->gone && mw_gone_record(v->gone, rec->seq);
	int r = x->wiped;
	if (r < 0)
		return 0;
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
	} else {
		check_cut(v, x, l);
		check_key(v, x, l);
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
mw_verify_record(struct verify *v, struct mw_seg *s, const struct mw_facts *x,
                 const struct mw_look *l)
{
	const struct mw_record *rec = &x->rec;
	struct mw_finding f = {MW_FINDING_CONTENT, s->h.number, x->off,
	                       rec->seq,           rec->seq,    NULL};
	if (x->wiped < 0)
		return 0;
	int r = check_slot(v, x, l);
	if (r < 0)
		return r;
	bool goes = r == 1;
	if (rec->type != MW_TYPE_MAIL && rec->type != MW_TYPE_DICT)
		return 0;
	v->res->mails += rec->type == MW_TYPE_MAIL;
	r = goes ? 0 : check_dict(v, s, rec);
	if (r != 1)
		return r;
	v->res->contents += x->read_back;
	if (x->content < 0)
		mw_verify_found(v, f, "%s", (const char *)l->text->p + x->text);
	return 0;
}
