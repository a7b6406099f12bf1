/* One walk of the log: what is in it, and what rules and holds say of it. */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <stdlib.h>
#include <string.h>

struct walk {
	struct mw_store *st;
	const struct mw_rules *rules;
	const struct mw_holds *holds;
	struct mw_gone *gone;
	struct mw_retain_log *l;
	struct mw_err *err;
};

static int
no_memory(struct walk *w)
{
	return mw_fail(w->err, MW_ENOMEM, "out of memory: the log has too many records");
}

static int
lose(struct walk *w, uint64_t first, uint64_t last)
{
	return mw_lost_add(&w->l->lost, w->l->arena, first, last) < 0 ? no_memory(w) : 0;
}

/* MARK, HOLD, TOMBSTONE, AUDIT: what they say is kept. One that cannot be read counts as
 * damage, so that its segment stays. */
static int
take_note(struct walk *w, const struct mw_record *r)
{
	struct mw_retain_log *l = w->l;
	MW_BUF_AUTO cbor = {0};
	struct mw_err e = {0};
	struct noted x = {.seq = r->seq, .type = r->type};
	int k = mw_record_meta(w->st, r, &cbor, &e);
	if (k == 0 && r->type == MW_TYPE_MARK)
		k = mw_mark_decode(cbor.p, cbor.n, l->arena, &x.mark, &e);
	else if (k == 0 && r->type == MW_TYPE_HOLD)
		k = mw_hold_decode(cbor.p, cbor.n, l->arena, &x.hold, &e);
	else if (k == 0 && r->type == MW_TYPE_TOMBSTONE)
		k = mw_tombstone_decode(cbor.p, cbor.n, l->arena, &x.tomb, &e);
	else if (k == 0)
		k = mw_audit_decode(cbor.p, cbor.n, l->arena, &x.audit, &e);
	if (k == MW_ENOMEM)
		return no_memory(w);
	if (k < 0) {
		l->damaged++;
		l->rec[l->n - 1].broken = true;
		return r->type == MW_TYPE_HOLD ? lose(w, r->seq, r->seq) : 0;
	}
	void *p = mw_arena_grow(l->arena, l->note, &l->cap_note, l->n_note + 1, sizeof x);
	if (!p)
		return no_memory(w);
	l->note = p;
	l->note[l->n_note++] = x;
	if (r->type == MW_TYPE_MARK && x.mark.phase == MW_MARK_COMPLETE)
		l->marked_seq = MW_MAX(l->marked_seq, x.mark.start_seq);
	return 0;
}

static bool
is_uncut(const struct mw_gone *g, uint64_t seq, int slot, const struct mw_buf *t)
{
	bool yes = slot == MW_SLOT_IS_BEING_CUT;
	for (size_t i = 0; !yes && i + MW_RETIRE_TOKEN <= t->n; i += MW_RETIRE_TOKEN)
		yes = mw_gone_token(g, seq, t->p + i);
	return yes;
}

static int
take_tokens(struct walk *w, const struct mw_record *r, struct mw_retain_rec *x)
{
	MW_BUF_AUTO t = {0};
	int k = mw_record_slot(w->st, r, &t, NULL);
	if (k == MW_ENOMEM)
		return no_memory(w);
	x->wiped = k == MW_SLOT_IS_WIPED;
	x->broken = k < 0;
	if (k < 0 && !x->gone) {
		w->l->damaged++;
		return r->type == MW_TYPE_EXPANSION ? lose(w, r->seq, r->seq) : 0;
	}
	if (x->wiped || x->broken)
		return 0;
	x->uncut = mw_gone_copies(w->gone, r->seq) && is_uncut(w->gone, r->seq, k, &t);
	struct mw_traits traits = {t.p, t.n / 8, r->time_us, r->plain_len, NULL, 0};
	if (r->type == MW_TYPE_MAIL) {
		x->rules = mw_rules_match(w->rules, &traits, &x->ruled);
		x->held = mw_holds_match(w->holds, &traits) != NULL;
		return 0;
	}
	struct mw_str s = mw_arena_str(w->l->arena, mw_buf_str(&t));
	if (!s.p)
		return no_memory(w);
	x->tokens = (const uint8_t *)s.p;
	x->n_tokens = (uint32_t)(t.n / 8);
	return 0;
}

static int
take(struct walk *w, const struct mw_record *r)
{
	struct mw_retain_log *l = w->l;
	struct mw_retain_rec *p = l->rec;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 4096;
		p = reallocarray(l->rec, cap, sizeof *p);
		if (!p)
			return no_memory(w);
		l->rec = p;
		l->cap = cap;
	}
	struct mw_retain_rec *x = &p[l->n++];
	*x = (struct mw_retain_rec){.seq = r->seq,
	                            .segment = r->loc.segment,
	                            .offset = r->loc.offset,
	                            .time_us = r->time_us,
	                            .size = r->frame_len,
	                            .dict = r->dict,
	                            .type = (uint8_t)r->type,
	                            .imported = r->imported,
	                            .gone = mw_gone_record(w->gone, r->seq)};
	switch (r->type) {
	case MW_TYPE_MAIL:
		mw_store_token(w->st, MW_KEY_ID, mw_str((const char *)r->id, 6),
		               x->token);
		return take_tokens(w, r, x);
	case MW_TYPE_OUTCOME:
	case MW_TYPE_EXPANSION:
	case MW_TYPE_SPF:
	case MW_TYPE_RESTORE:
	case MW_TYPE_DICT:
		return take_tokens(w, r, x);
	case MW_TYPE_MARK:
	case MW_TYPE_HOLD:
	case MW_TYPE_TOMBSTONE:
	case MW_TYPE_AUDIT:
		return take_note(w, r);
	case MW_TYPE_RECOVERY:
	case MW_TYPE_CLOSE:
		break;
	}
	return 0;
}

/* Did all of these go with their segments, as the newest audit says? */
static bool
all_gone(const struct mw_gone *g, uint64_t first, uint64_t last)
{
	size_t n;
	const struct mw_gone_segs *v = mw_gone_segments(g, &n);
	for (size_t i = 0; i < n && first <= last; i++)
		if (v[i].first_seq <= first && v[i].last_seq >= first)
			first = v[i].last_seq + 1;
	return first > last;
}

/* From one record until before another. */
static int
walk_from(struct walk *w, uint64_t from, uint64_t to, bool (*stopped)(void))
{
	MW_CURSOR_AUTO *c = NULL;
	unsigned failures = 0;
	size_t before = w->l->n;
	int r = mw_cursor_new(w->st, from, &c, w->err);
	if (r == 0)
		mw_cursor_ahead(c);
	while (r == 0) {
		struct mw_record rec;
		struct mw_err e = {0};
		if (stopped && stopped())
			return mw_fail(w->err, MW_ECANCEL, "interrupted");
		r = mw_cursor_next(c, &rec, &e);
		if (r == 0 || (r > 0 && rec.seq >= to))
			return 0;
		if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
			w->l->damaged++;
			r = 0;
		} else if (r < 0 && ++failures < 64 && r != MW_ENOMEM) {
			r = 0;
		} else if (r < 0) {
			if (w->err)
				*w->err = e;
		} else {
			/* a hole where we came in is one, too */
			if (from > 1 && w->l->n == before && rec.seq > from)
				w->l->damaged += !all_gone(w->gone, from, rec.seq - 1);
			r = take(w, &rec);
		}
	}
	return r;
}

/* All of the log, and of quiet segments what is no mail. */
static int
walk(struct walk *w, bool (*stopped)(void))
{
	const struct mw_quiet *q = &w->l->quiet;
	uint64_t from = 1;
	size_t k = 0;
	int r = 0;
	for (size_t i = 0; r == 0 && i < q->n; i++) {
		if (from < q->seg[i].first_seq)
			r = walk_from(w, from, q->seg[i].first_seq, stopped);
		for (; r == 0 && k < q->n_rec && q->rec[k].seq <= q->seg[i].last_seq; k++)
			r = take(w, &q->rec[k]);
		from = q->seg[i].last_seq + 1;
	}
	return r == 0 ? walk_from(w, from, UINT64_MAX, stopped) : r;
}

/* ---- expansions ---- */

struct by_token {
	const uint8_t *token;
	size_t i;
};

static int
cmp_token(const void *a, const void *b)
{
	return memcmp(((const struct by_token *)a)->token,
	              ((const struct by_token *)b)->token, 8);
}

/* The mail as its expansion x has it: rules go by that, holds by both. */
static int
expand_mail(struct walk *w, const struct mw_retain_rec *x, struct mw_retain_rec *mail)
{
	struct mw_loc loc = {mail->segment, mail->offset};
	struct mw_record r;
	MW_BUF_AUTO both = {0};
	int k = mw_store_get(w->st, loc, &r, NULL);
	if (k == 0)
		k = mw_record_tokens(w->st, &r, &both, NULL);
	size_t n_own = both.n / 8;
	mw_buf_put(&both, x->tokens, (size_t)x->n_tokens * 8);
	if (k == MW_ENOMEM || mw_buf_ok(&both) < 0)
		return no_memory(w);
	if (k < 0) {
		mail->broken = true; /* it was readable a moment ago */
		return 0;
	}
	struct mw_traits t = {x->tokens,   x->n_tokens, mail->time_us,
	                      r.plain_len, both.p,      n_own};
	struct mw_traits all = {both.p, both.n / 8, mail->time_us, r.plain_len, NULL, 0};
	if (!mail->expanded) /* the first counts */
		mail->rules = mw_rules_match(w->rules, &t, &mail->ruled);
	mail->expanded = true;
	mail->held = mail->held || mw_holds_match(w->holds, &all) != NULL;
	return 0;
}

/* Recipients that were expanded later: their records say for whom the mail is. */
static int
take_expansions(struct walk *w)
{
	struct mw_retain_log *l = w->l;
	size_t n = 0, n_x = 0;
	int r = 0;
	for (size_t i = 0; i < l->n; i++)
		n_x += l->rec[i].type == MW_TYPE_EXPANSION && l->rec[i].n_tokens;
	if (n_x == 0)
		return 0;
	MW_AUTOFREE struct by_token *v = calloc(l->n, sizeof *v);
	if (!v)
		return no_memory(w);
	for (size_t i = 0; i < l->n; i++)
		if (l->rec[i].type == MW_TYPE_MAIL && !l->rec[i].gone)
			v[n++] = (struct by_token){l->rec[i].token, i};
	if (n)
		qsort(v, n, sizeof *v, cmp_token);
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		const struct mw_retain_rec *x = &l->rec[i];
		if (x->type != MW_TYPE_EXPANSION || x->gone)
			continue;
		for (uint32_t k = 0; r == 0 && n && k < x->n_tokens; k++) {
			struct by_token want = {x->tokens + 8 * (size_t)k, 0};
			const struct by_token *m =
			    bsearch(&want, v, n, sizeof want, cmp_token);
			if (m)
				r = expand_mail(w, x, &l->rec[m->i]);
		}
	}
	return r;
}

/* Records of which not even the type is known: each may be a hold. */
static int
take_lost(struct walk *w)
{
	struct mw_retain_log *l = w->l;
	uint64_t next = 1, end = 1;
	size_t k = 0;
	int r = 0;
	for (size_t i = 0; r == 0 && i <= l->n; i++) {
		uint64_t seq = i < l->n ? l->rec[i].seq : UINT64_MAX;
		for (; r == 0 && k < l->quiet.n && l->quiet.seg[k].first_seq <= seq;
		     k++) {
			const struct mw_quiet_seg *q = &l->quiet.seg[k];
			if (q->first_seq > next) /* all that is in it is known */
				r = lose(w, next, q->first_seq - 1);
			next = MW_MAX(next, q->last_seq + 1);
		}
		if (r < 0 || i == l->n)
			break;
		if (seq > next)
			r = lose(w, next, seq - 1);
		next = MW_MAX(next, seq + 1);
	}
	for (size_t i = 0; i < l->n_seg; i++)
		end = MW_MAX(end, l->seg[i].last_seq + 1);
	if (r == 0 && end > next)
		r = lose(w, next, end - 1);
	if (r == 0 && mw_lost_settle(&l->lost, l->audit, l->arena, &l->known) < 0)
		r = no_memory(w);
	return r;
}

/* lim: NULL: nothing is passed over. 1; 0: something is left open, look at all. */
static int
gather(struct walk *w, const struct mw_retain_limits *lim, bool (*stopped)(void))
{
	struct mw_retain_log *l = w->l;
	int r = mw_gone_load(w->st, &w->gone, w->err);
	if (r == 0)
		r = mw_store_segment_info(w->st, &l->seg, &l->n_seg, w->err);
	if (r == 0 && lim) {
		r = mw_quiet_find(w->st, lim, l->seg, l->n_seg, w->gone, stopped,
		                  &l->quiet);
		if (r < 0)
			r = mw_fail(w->err, r,
			            r == MW_ENOMEM ? "out of memory" : "interrupted");
	}
	if (r == 0)
		r = walk(w, stopped);
	if (r == 0)
		r = take_expansions(w);
	mw_gone_free(w->gone);
	for (size_t k = 0; r == 0 && k < l->n_note; k++)
		if (l->note[k].type == MW_TYPE_AUDIT)
			l->audit = &l->note[k].audit;
	if (r == 0)
		r = take_lost(w);
	if (r == 0)
		r = l->quiet.n ? mw_quiet_notes(w->st, l) : 1;
	return r == MW_ENOMEM ? no_memory(w) : r;
}

int
mw_retain_gather_for(struct mw_store *st, const struct mw_rules *rules,
                     const struct mw_holds *holds, const struct mw_retain_limits *lim,
                     bool (*stopped)(void), struct mw_retain_log **ret,
                     struct mw_err *err)
{
	for (;;) {
		struct walk w = {.st = st, .rules = rules, .holds = holds, .err = err};
		w.l = calloc(1, sizeof *w.l);
		if (!w.l || !(w.l->arena = mw_arena_new(0))) {
			free(w.l);
			return mw_fail(err, MW_ENOMEM, "out of memory");
		}
		int r = gather(&w, lim, stopped);
		if (r == 1) {
			*ret = w.l;
			return 0;
		}
		mw_retain_free(w.l);
		if (r < 0)
			return r;
		lim = NULL;
	}
}

int
mw_retain_gather(struct mw_store *st, const struct mw_rules *rules,
                 const struct mw_holds *holds, bool (*stopped)(void),
                 struct mw_retain_log **ret, struct mw_err *err)
{
	return mw_retain_gather_for(st, rules, holds, NULL, stopped, ret, err);
}

void
mw_retain_free(struct mw_retain_log *l)
{
	if (!l)
		return;
	mw_arena_free(l->arena);
	mw_quiet_free(&l->quiet);
	free(l->rec);
	free(l->seg);
	free(l);
}
