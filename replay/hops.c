#include "replay/hops.h"

#include "journal/base/util.h"
#include "journal/store/later.h"
#include "replay/plan_place.h"
#include "replay/profile.h"
#include "replay/took.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX (1U << 20) /* of a header, the rest of it tells nothing */

struct hops {
	struct mw_cli *cli;
	struct mw_plan *p;
	struct mw_target *t;
	struct mw_plan_box *b;
	bool *gone; /* by position in b->v */
	struct mw_buf header;
	bool whole;                    /* and that is all of it */
	bool to_end;                   /* the content behind it is wanted, too */
	struct mw_known *const *known; /* by journal; NULL: own, as far as it was asked */
	struct mw_known **own;
	struct mw_err *err;
	struct over *over; /* all boxes at once; NULL: one box */
};

/* ---- what may be one message ---- */

static const struct mw_plan *sort_plan; /* qsort has no argument; one thread */
static const struct mw_plan_box *sort_box;

/* Those that may be one side by side, and of these, equal queue IDs. */
static int
by_digest(const void *x, const void *y)
{
	const struct mw_plan_copy *a = &sort_box->v[*(const uint32_t *)x];
	const struct mw_plan_copy *b = &sort_box->v[*(const uint32_t *)y];
	const struct mw_plan_rec *ra = &sort_plan->rec[a->rec];
	const struct mw_plan_rec *rb = &sort_plan->rec[b->rec];
	int d = memcmp(ra->digest, rb->digest, sizeof ra->digest);
	if (d != 0)
		return d;
	if (a->sent != b->sent)
		return a->sent ? 1 : -1;
	return ra->queue < rb->queue ? -1 : ra->queue > rb->queue;
}

static const struct mw_plan_rec *
rec_of(const struct hops *h, uint32_t at)
{
	return &h->p->rec[h->b->v[at].rec];
}

static bool
alike(const struct hops *h, uint32_t a, uint32_t b)
{
	return h->b->v[a].sent == h->b->v[b].sent &&
	       memcmp(rec_of(h, a)->digest, rec_of(h, b)->digest, 32) == 0;
}

/* ---- one group of them ---- */

struct group {
	const struct hops *h;
	const uint32_t *v; /* positions in the box, by queue ID */
	size_t n, later;   /* the one whose header is looked at */
	uint32_t *link;    /* later and earlier in turn, by position in v */
	size_t n_link, cap_link;
	bool failed; /* out of memory */
};

static void
add_link(struct group *g, size_t earlier)
{
	if (g->n_link + 2 > g->cap_link) {
		size_t cap = g->cap_link ? g->cap_link * 2 : 16;
		uint32_t *v = reallocarray(g->link, cap, sizeof *v);
		if (!v) {
			g->failed = true;
			return;
		}
		g->link = v;
		g->cap_link = cap;
	}
	g->link[g->n_link++] = (uint32_t)g->later;
	g->link[g->n_link++] = (uint32_t)earlier;
}

/* Called for the queue ID of each Received field. */
static bool
name_hop(void *arg, uint64_t queue)
{
	struct group *g = arg;
	size_t i = 0;
	for (size_t end = g->n; i < end;) {
		size_t mid = i + (end - i) / 2;
		if (rec_of(g->h, g->v[mid])->queue < queue)
			i = mid + 1;
		else
			end = mid;
	}
	for (; i < g->n && rec_of(g->h, g->v[i])->queue == queue; i++)
		if (rec_of(g->h, g->v[i])->journal !=
		    rec_of(g->h, g->v[g->later])->journal)
			add_link(g, i);
	return false; /* go on: not only the topmost field */
}

static int
keep_header(void *arg, const void *p, size_t n)
{
	struct hops *h = arg;
	if (mw_cli_stopped())
		return MW_ECANCEL;
	if (h->whole)
		return 0;
	size_t from = h->header.n < 3 ? 0 : h->header.n - 3;
	mw_buf_put(&h->header, p, n);
	if (h->header.failed)
		return MW_ENOMEM;
	const uint8_t *text = h->header.p;
	const uint8_t *end = memmem(text + from, h->header.n - from, "\r\n\r\n", 4);
	if (end)
		h->header.n = (size_t)(end - text) + 2;
	h->whole = end || h->header.n >= HEADER_MAX;
	return h->whole && !h->to_end ? MW_ECANCEL : 0;
}

/* 1: the header is there, and, to the end, all else was read too; 0: it cannot be read;
 * negative: all is over. */
static int
load_header(struct hops *h, const struct mw_plan_rec *r, bool to_end)
{
	struct mw_record rec;
	struct mw_mail m;
	struct mw_err why = {0};
	struct mw_store *st = h->cli->stores[r->journal];
	MW_ARENA_AUTO *a = mw_arena_new(0);
	mw_buf_clear(&h->header);
	h->whole = false;
	h->to_end = to_end;
	int q = a ? mw_store_get_seq(st, r->loc, r->seq, &rec, &why) : MW_ENOMEM;
	if (!q)
		q = mw_record_mail(st, &rec, a, &m, &why);
	if (!q)
		q = mw_record_body(st, &rec, &m, keep_header, h, &why);
	if (q == MW_ENOMEM)
		return mw_fail(h->err, q, "out of memory");
	if (mw_cli_stopped())
		return mw_fail(h->err, MW_ECANCEL, "interrupted");
	return q == 0 || (q == MW_ECANCEL && h->whole);
}

/* 1: the host refused it after all. */
static int
not_taken(struct hops *h, const struct mw_plan_rec *r)
{
	if (h->known)
		return mw_known_not_taken(h->known[r->journal], r->seq);
	struct mw_known **k = &h->own[r->journal];
	int q = *k ? 0 : mw_known_load(h->cli->stores[r->journal], false, k, h->err);
	return q < 0 ? q : mw_known_not_taken(*k, r->seq);
}

static bool
of_several_journals(const struct hops *h, const uint32_t *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (rec_of(h, v[i])->journal != rec_of(h, v[0])->journal)
			return true;
	return false;
}

static void
want(struct hops *h, struct mw_plan_box *b, uint32_t at)
{
	struct mw_plan_copy *c = &b->v[at];
	b->n_wanted += !c->wanted;
	h->p->n_wanted += !c->wanted;
	c->wanted = true;
}

/* ---- a mailbox that only the later host resolved ---- */

/* All copies of the plan but Sent ones, in the order of their records: what an alias is
 * on one host, on the next is the people behind it. */
struct place {
	uint32_t rec, box, at;
	bool gone;
};

struct over {
	struct place *v;
	size_t n;
	bool any;               /* of them is gone */
	struct mw_arena *arena; /* of one pair */
};

static int
by_record(const void *x, const void *y)
{
	const struct place *a = x, *b = y;
	if (a->rec != b->rec)
		return a->rec < b->rec ? -1 : 1;
	return a->box < b->box ? -1 : a->box > b->box;
}

static int
by_box(const void *x, const void *y)
{
	const struct place *a = x, *b = y;
	return a->box < b->box ? -1 : a->box > b->box;
}

static size_t
first_of(const struct over *o, uint32_t rec)
{
	size_t i = 0;
	for (size_t end = o->n; i < end;) {
		size_t mid = i + (end - i) / 2;
		if (o->v[mid].rec < rec)
			i = mid + 1;
		else
			end = mid;
	}
	return i;
}

struct whose { /* a record's copies */
	struct mw_mail mail;
	struct mw_copy *v;
	size_t n;
	struct mw_took took;
};

/* 1, or 0: it cannot be read. */
static int
load_whose(struct hops *h, uint32_t rec, struct whose *ret)
{
	const struct mw_plan_rec *pr = &h->p->rec[rec];
	struct mw_store *st = h->cli->stores[pr->journal];
	struct mw_record r;
	struct mw_err why = {0};
	struct mw_arena *a = h->over->arena;
	int q = mw_store_get_seq(st, pr->loc, pr->seq, &r, &why);
	if (!q)
		q = mw_later_mail(st, &r, a, &ret->mail, &why);
	if (!q)
		q = mw_copies(h->cli->conf, &ret->mail, a, &ret->v, &ret->n, &why);
	if (!q)
		q = mw_took_init(&ret->took, &ret->mail, a);
	return q == MW_ENOMEM ? mw_fail(h->err, q, "out of memory") : q == 0;
}

/* NULL: none, or it is a copy in Sent. */
static const char *
box_of(struct hops *h, const struct mw_copy *c)
{
	const char *name;
	struct mw_err why;
	return !c->sent &&
	               mw_target_box(h->t, c->mailbox, h->over->arena, &name, &why) == 0
	           ? name
	           : NULL;
}

/* The same by its name, or, where some were found to be so, one place through links. */
static bool
is_box(const struct hops *h, const char *name, const struct mw_plan_box *b)
{
	return strcmp(name, b->box) == 0 ||
	       (b->shared && mw_target_is_files(h->t) && mw_plan_one_place(name, b->box));
}

/* What was wanted of the alias is wanted of the people behind it. False: not all of them
 * are in the plan, since the selection leaves somebody out. */
static bool
want_those(struct hops *h, const struct whose *w, uint32_t rec, struct mw_str rcpt,
           bool wanted)
{
	struct over *o = h->over;
	bool all = true;
	for (size_t i = 0; i < w->n; i++) {
		if (w->v[i].sent || !mw_str_ieq(w->v[i].rcpt, rcpt))
			continue;
		const char *name = box_of(h, &w->v[i]); /* once: there may be thousands */
		bool there = false;
		for (size_t k = first_of(o, rec); k < o->n && o->v[k].rec == rec; k++) {
			struct mw_plan_box *b = &h->p->box[o->v[k].box];
			if (!name || !is_box(h, name, b))
				continue;
			there = true;
			if (wanted)
				want(h, b, o->v[k].at);
		}
		all = all && there;
	}
	return all;
}

struct left {             /* recipients whom the later host was not given */
	const char **box; /* theirs; NULL: it is not known which */
	size_t n;
};

static int
find_left(struct hops *h, const struct whose *later, const struct mw_mail *m,
          struct left *ret)
{
	const unsigned none = MW_RCPT_REFUSED | MW_RCPT_EXCLUDED;
	const struct mw_conf *conf = h->cli->conf;
	struct mw_arena *a = h->over->arena;
	size_t cap = 0;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		const struct mw_rcpt *r = &m->rcpt[i];
		size_t n = r->n_mailbox ? r->n_mailbox : 1;
		bool ours = (r->flags & (none | MW_RCPT_LOCAL)) == MW_RCPT_LOCAL;
		for (size_t k = 0; k < n && ours; k++) {
			struct mw_str addr = r->n_mailbox ? r->mailbox[k] : r->addr;
			if (mw_took_has(&later->took, addr))
				continue;
			struct mw_str base =
			    mw_addr_base(addr, conf->recipient_delimiter, a);
			struct mw_copy c = {.mailbox = mw_mailbox_name(conf, base, a)};
			const char *name = c.mailbox ? box_of(h, &c) : NULL;
			ret->box = mw_arena_grow(a, ret->box, &cap, ret->n + 1,
			                         sizeof *ret->box);
			if (!ret->box)
				return mw_fail(h->err, MW_ENOMEM, "out of memory");
			ret->box[ret->n++] = name;
		}
	}
	return 0;
}

/* Is one of them of that box? Two may share it, and the one may be on his way still. */
static bool
some_left(const struct hops *h, const struct left *l, const struct mw_plan_box *b)
{
	for (size_t i = 0; i < l->n; i++)
		if (!l->box[i] || is_box(h, l->box[i], b))
			return true;
	return false;
}

/* Copies of the earlier record go whose recipients the later host took as its own,
 * wherever they led there, if that is in the plan. */
static int
replace(struct hops *h, uint32_t later, uint32_t earlier)
{
	struct over *o = h->over;
	struct whose l, e;
	mw_arena_reset(o->arena);
	int r = load_whose(h, later, &l);
	if (r > 0)
		r = load_whose(h, earlier, &e);
	if (r <= 0)
		return r;
	struct left left = {.n = 0};
	r = find_left(h, &l, &e.mail, &left);
	for (size_t i = 0; i < e.n && !r; i++) {
		const char *name = box_of(h, &e.v[i]);
		if (!name || !mw_took_has(&l.took, e.v[i].addr))
			continue;
		for (size_t k = first_of(o, earlier); k < o->n && o->v[k].rec == earlier;
		     k++) {
			struct mw_plan_box *b = &h->p->box[o->v[k].box];
			if (o->v[k].gone || !is_box(h, name, b) || some_left(h, &left, b))
				continue;
			o->v[k].gone = want_those(h, &l, later, e.v[i].addr,
			                          b->v[o->v[k].at].wanted);
			o->any |= o->v[k].gone;
		}
	}
	return r;
}

/* A copy goes if one names it that nobody names: of a ring, which only made-up fields can
 * make, all stay. */
static int
judge(struct hops *h, const struct group *g)
{
	MW_AUTOFREE bool *named = calloc(g->n, sizeof *named);
	int r = named ? 0 : mw_fail(h->err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < g->n_link && !r; i += 2)
		named[g->link[i + 1]] = true;
	for (size_t i = 0; i < g->n_link && !r; i += 2) {
		uint32_t later = g->v[g->link[i]], earlier = g->v[g->link[i + 1]];
		if (named[g->link[i]])
			continue;
		if (h->over) {
			r = replace(h, h->b->v[later].rec, h->b->v[earlier].rec);
			continue;
		}
		h->gone[earlier] = true;
		if (h->b->v[earlier].wanted)
			want(h, h->b, later);
	}
	return r;
}

/* The links of one copy to earlier ones, if it can stand for them: read to its end, and
 * taken by its host. */
static int
link_one(struct hops *h, struct group *g)
{
	struct mw_facts ignored;
	const struct mw_plan_rec *rec = rec_of(h, g->v[g->later]);
	size_t before = g->n_link;
	int r = load_header(h, rec, false);
	if (r <= 0)
		return r;
	mw_header_facts(mw_buf_str(&h->header), name_hop, g, &ignored);
	if (g->failed)
		return mw_fail(h->err, MW_ENOMEM, "out of memory");
	if (g->n_link == before)
		return 0;
	r = not_taken(h, rec);
	bool stands = r == 0 && (r = load_header(h, rec, true)) == 1;
	if (!stands)
		g->n_link = before;
	return MW_MIN(r, 0);
}

static int
merge_group(struct hops *h, const uint32_t *v, size_t n)
{
	struct group g = {.h = h, .v = v, .n = n};
	int r = 0;
	for (; g.later < n && !r; g.later++)
		r = link_one(h, &g);
	if (!r)
		r = judge(h, &g);
	free(g.link);
	return r;
}

/* ---- a box ---- */

static void
take_out(struct hops *h)
{
	struct mw_plan_box *b = h->b;
	size_t k = 0;
	for (size_t i = 0; i < b->n; i++) {
		if (!h->gone[i]) {
			b->v[k++] = b->v[i];
			continue;
		}
		b->n_wanted -= b->v[i].wanted;
		h->p->n_wanted -= b->v[i].wanted;
	}
	b->n = k;
}

/* Groups of what lies in h->b, one after the other. */
static int
merge_groups(struct hops *h)
{
	size_t n = h->b->n, end;
	MW_AUTOFREE uint32_t *order = calloc(n + 1, sizeof *order);
	int r = order ? 0 : mw_fail(h->err, MW_ENOMEM, "out of memory");
	if (r)
		return r;
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	sort_plan = h->p;
	sort_box = h->b;
	qsort(order, n, sizeof *order, by_digest);
	for (size_t i = 0; i < n && !r; i = end) {
		for (end = i + 1; end < n && alike(h, order[i], order[end]);)
			end++;
		if (of_several_journals(h, order + i, end - i))
			r = merge_group(h, order + i, end - i);
	}
	return r;
}

static int
merge_box(struct hops *h)
{
	MW_AUTOFREE bool *gone = calloc(h->b->n + 1, sizeof *gone);
	if (!gone)
		return mw_fail(h->err, MW_ENOMEM, "out of memory");
	h->gone = gone;
	int r = merge_groups(h);
	if (!r)
		take_out(h);
	return r;
}

/* ---- all boxes at once ---- */

static size_t
count_places(const struct mw_plan *p, struct place *v)
{
	size_t n = 0;
	for (size_t k = 0; k < p->n_box; k++)
		for (size_t i = 0; i < p->box[k].n; i++) {
			const struct mw_plan_copy *c = &p->box[k].v[i];
			if (!c->sent && v)
				v[n] = (struct place){c->rec, (uint32_t)k, (uint32_t)i,
				                      false};
			n += !c->sent;
		}
	return n;
}

/* What was replaced, and boxes of which nothing is left. */
static int
take_places(struct hops *h)
{
	struct mw_plan *p = h->p;
	struct over *o = h->over;
	size_t kept = 0, at = 0, most = 0;
	if (!o->any)
		return 0;
	for (size_t k = 0; k < p->n_box; k++)
		most = MW_MAX(most, p->box[k].n);
	MW_AUTOFREE bool *gone = calloc(most + 1, sizeof *gone);
	if (!gone) /* before anything is moved */
		return mw_fail(h->err, MW_ENOMEM, "out of memory");
	qsort(o->v, o->n, sizeof *o->v, by_box);
	for (size_t k = 0; k < p->n_box; k++) {
		struct mw_plan_box b = p->box[k];
		memset(gone, 0, (b.n + 1) * sizeof *gone);
		for (; at < o->n && o->v[at].box == k; at++)
			gone[o->v[at].at] = o->v[at].gone;
		h->b = &b;
		h->gone = gone;
		take_out(h);
		p->box[kept] = b;
		if (b.n)
			kept++;
		else
			free(b.v);
	}
	p->n_box = kept;
	return 0;
}

/* A box of each record's first copy takes the place of the plan's; and of those without
 * any, whose mail only went on. */
static int
merge_expanded(struct hops *h)
{
	struct over o = {.n = count_places(h->p, NULL)};
	struct mw_plan_box all = {.n = 0};
	int r = 0;
	MW_AUTOFREE struct place *v = calloc(o.n + 1, sizeof *v);
	MW_AUTOFREE struct mw_plan_copy *first =
	    calloc(o.n + h->p->n_gone_on + 1, sizeof *first);
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	if (!v || !first || !arena)
		return mw_fail(h->err, MW_ENOMEM, "out of memory");
	(void)count_places(h->p, v);
	qsort(v, o.n, sizeof *v, by_record);
	o.v = v;
	o.arena = arena;
	for (size_t i = 0; i < o.n; i++)
		if (i == 0 || v[i].rec != v[i - 1].rec)
			first[all.n++] = (struct mw_plan_copy){.rec = v[i].rec};
	for (size_t i = 0; i < h->p->n_gone_on; i++)
		first[all.n++] = (struct mw_plan_copy){.rec = h->p->gone_on[i]};
	all.v = first;
	h->b = &all;
	h->over = &o;
	r = merge_groups(h);
	if (!r)
		r = take_places(h);
	h->over = NULL;
	return r;
}

int
mw_hops_merge(struct mw_cli *cli, struct mw_plan *p, struct mw_target *t,
              struct mw_known *const *known, struct mw_err *err)
{
	struct hops h = {.cli = cli, .p = p, .t = t, .known = known, .err = err};
	int r = 0;
	if (cli->n_journals < 2)
		return 0;
	h.own = calloc(cli->n_journals, sizeof *h.own);
	if (!h.own)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n_box && !r; i++) {
		h.b = &p->box[i];
		if (h.b->n > 1 && h.b->n_wanted)
			r = merge_box(&h);
	}
	if (!r && p->n_wanted)
		r = merge_expanded(&h);
	for (size_t i = 0; i < cli->n_journals; i++)
		mw_known_free(h.own[i]);
	free(h.own);
	mw_buf_free(&h.header);
	return r;
}
