#include "replay/plan.h"

#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/hops.h"
#include "replay/known.h"
#include "replay/plan_place.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct chosen { /* a selected record */
	size_t journal;
	uint64_t seq;
};

struct walk {
	const struct mw_plan_opts *o;
	struct mw_cli *cli;
	struct mw_query q;
	struct mw_known_set known;
	struct mw_target *t;
	struct mw_plan *plan;
	struct mw_plan_places places;
	struct mw_arena *tmp; /* of one message */
	struct chosen *chosen;
	size_t n_chosen, cap_chosen;
	const char *folder;              /* of the record before */
	const struct mw_plan_box *first; /* the first box, just made: to be told */
	struct mw_err *err;
	bool second;
	bool everything; /* --all alone: one walk does */
};

static uint64_t
hash(const char *z)
{
	uint64_t h = UINT64_C(1469598103934665603);
	for (; *z; z++)
		h = (h ^ (unsigned char)*z) * UINT64_C(1099511628211);
	return h ^ h >> 29;
}

static size_t
find_slot(const struct mw_plan *p, const char *box)
{
	size_t i = (size_t)hash(box) & (p->n_slot - 1);
	while (p->slot[i] && strcmp(p->box[p->slot[i] - 1].box, box) != 0)
		i = (i + 1) & (p->n_slot - 1);
	return i;
}

static int
grow(void **v, size_t *cap, size_t want, size_t size)
{
	if (want <= *cap)
		return 0;
	size_t n = *cap ? *cap * 2 : 64;
	void *p = reallocarray(*v, n, size);
	if (!p)
		return MW_ENOMEM;
	*v = p;
	*cap = n;
	return 0;
}

static int
rehash(struct mw_plan *p)
{
	size_t n = p->n_slot ? p->n_slot * 2 : 256;
	size_t *slot = calloc(n, sizeof *slot);
	if (!slot)
		return MW_ENOMEM;
	free(p->slot);
	p->slot = slot;
	p->n_slot = n;
	for (size_t i = 0; i < p->n_box; i++)
		p->slot[find_slot(p, p->box[i].box)] = i + 1;
	return 0;
}

/* A new box that is the place of another is only a name of that one. */
static int
meet(struct walk *w, struct mw_plan_box *b, struct mw_plan_box **ret)
{
	struct mw_plan *p = w->plan;
	size_t own = (size_t)(b - p->box), at = own;
	if (!mw_target_is_files(w->t))
		return 0;
	if (mw_plan_place(&w->places, b->box, own, &at))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	if (at != own)
		b->same = at + 1;
	*ret = &p->box[at];
	(*ret)->shared |= at != own;
	return 0;
}

/* The box of a mailbox; made in the first walk only. NULL with r 0: not concerned. */
static int
get_box(struct walk *w, const char *mailbox, struct mw_plan_box **ret)
{
	struct mw_plan *p = w->plan;
	const char *name;
	struct mw_err why;
	void *v = p->box;
	*ret = NULL;
	int bad = mw_target_box(w->t, mailbox, w->tmp, &name, &why);
	if (bad == MW_ENOMEM)
		return mw_fail(w->err, bad, "out of memory");
	if (bad)
		name = mailbox;
	if (p->n_box * 2 >= p->n_slot && rehash(p))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	size_t i = find_slot(p, name);
	if (p->slot[i]) {
		*ret = &p->box[p->slot[i] - 1];
		if ((*ret)->same)
			*ret = &p->box[(*ret)->same - 1];
		(*ret)->shared |= strcmp((*ret)->mailbox, mailbox) != 0;
		return 0;
	}
	if (w->second)
		return 0;
	if (grow(&v, &p->cap_box, p->n_box + 1, sizeof *p->box))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	p->box = v;
	struct mw_plan_box *b = &p->box[p->n_box];
	*b = (struct mw_plan_box){.bad_name = bad != 0};
	b->box = mw_arena_strdup(p->arena, name);
	b->mailbox = mw_arena_strdup(p->arena, mailbox);
	if (!b->box || !b->mailbox)
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	p->slot[i] = ++p->n_box;
	*ret = b;
	w->first = p->n_box == 1 && !bad ? b : NULL;
	return bad ? 0 : meet(w, b, ret);
}

/* Is it u's, by its mailbox or (but in Sent) by an address that it came to? ub is u
 * without an extension, which says nothing of whose mailbox it is. */
static int
is_of(const struct mw_conf *conf, const struct mw_copy *c, struct mw_str u,
      struct mw_str ub, struct mw_arena *tmp)
{
	const char *delimiter = conf->recipient_delimiter;
	struct mw_str box = mw_strz(c->mailbox);
	const char *login = mw_mailbox_name(conf, ub, tmp);
	int r = login ? mw_addr_same(box, mw_strz(login)) : MW_ENOMEM;
	if (r == 0)
		r = mw_addr_is(box, u, NULL);
	if (r == 0 && !c->sent)
		r = mw_addr_is(c->rcpt, u, delimiter);
	if (r == 0 && !c->sent)
		r = mw_addr_is(c->rcpt, ub, delimiter);
	if (r == 0 && !c->sent)
		r = mw_addr_is(c->addr, ub, delimiter);
	return r;
}

static int
is_in(const struct mw_copy *c, struct mw_str domain)
{
	int r = mw_domain_same(mw_addr_domain(mw_strz(c->mailbox)), domain);
	if (r == 0)
		r = mw_domain_same(mw_addr_domain(c->rcpt), domain);
	return r ? r : mw_domain_same(mw_addr_domain(c->addr), domain);
}

int
mw_plan_named(const struct mw_conf *conf, const struct mw_query *q,
              const struct mw_copy *c, struct mw_arena *tmp)
{
	int r = q->n_user == 0;
	for (size_t i = 0; i < q->n_user && r == 0; i++) {
		struct mw_str u = mw_strz(q->user[i]);
		struct mw_str ub = mw_addr_base(u, conf->recipient_delimiter, tmp);
		r = ub.p ? is_of(conf, c, u, ub, tmp) : MW_ENOMEM;
	}
	if (r <= 0 || q->n_domain == 0)
		return r;
	r = 0;
	for (size_t i = 0; i < q->n_domain && r == 0; i++)
		r = is_in(c, mw_query_domain(q, i));
	return r;
}

static int
copy_named(struct walk *w, const struct mw_copy *c)
{
	int r = w->o->mailbox ? mw_addr_same(mw_strz(c->mailbox), mw_strz(w->o->mailbox))
	                      : mw_plan_named(w->cli->conf, &w->q, c, w->tmp);
	return r < 0 ? mw_fail(w->err, r, "out of memory") : r;
}

/* The folder of imported mail, kept once for all that follow each other from it. One that
 * no target could have (a record's bytes may be anything) is none. */
static int
folder_of(struct walk *w, const struct mw_mail *m, const char **ret)
{
	struct mw_err ignored = {0};
	*ret = NULL;
	if (!m->folder.n || w->o->export || memchr(m->folder.p, '\0', m->folder.n))
		return 0;
	if (w->folder && mw_str_eq(mw_strz(w->folder), m->folder)) {
		*ret = w->folder;
		return 0;
	}
	struct mw_str s = mw_arena_str(w->plan->arena, m->folder);
	if (!s.p)
		return MW_ENOMEM;
	if (mw_target_folder_check(s.p, &ignored) == 0)
		*ret = w->folder = s.p;
	return 0;
}

static int
add_rec(struct walk *w, const struct mw_item *it)
{
	struct mw_plan *p = w->plan;
	void *v = p->rec;
	if (p->n_rec >= UINT32_MAX || grow(&v, &p->cap_rec, p->n_rec + 1, sizeof *p->rec))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	p->rec = v;
	const struct mw_mail *m = &it->mail;
	const char *folder;
	if (folder_of(w, m, &folder))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	struct mw_plan_rec *r = &p->rec[p->n_rec++];
	*r = (struct mw_plan_rec){
	    .loc = it->rec.loc,
	    .seq = it->rec.seq,
	    .time_us = m->time_us,
	    .size = m->size,
	    .msgid = mw_msgid_hash(m->message_id),
	    .queue = m->queue_id.n ? mw_hash64(m->queue_id) : 0,
	    .folder = folder,
	    .journal = (uint32_t)it->journal,
	    .imported = it->rec.imported,
	};
	memcpy(r->id, it->rec.id, sizeof r->id);
	memcpy(r->digest, m->digest, sizeof r->digest);
	return 0;
}

static int
add_copy(struct walk *w, struct mw_plan_box *b, const struct mw_plan_copy *c)
{
	struct mw_plan *p = w->plan;
	void *v = b->v;
	uint32_t rec = (uint32_t)(p->n_rec - 1);
	/* One file for all: what meets in a box is one copy. */
	for (size_t i = b->n; i-- > 0 && b->v[i].rec == rec;) {
		if (b->v[i].sent != c->sent)
			continue;
		if (b->v[i].known != c->known)
			b->v[i].known = MW_KNOWN_NOTHING;
		b->v[i].may_wait |= c->may_wait;
		if (c->wanted && !b->v[i].wanted) {
			b->n_wanted++;
			p->n_wanted++;
			b->v[i].wanted = true;
		}
		return 0;
	}
	if (grow(&v, &b->cap, b->n + 1, sizeof *b->v))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	b->v = v;
	b->v[b->n] = *c;
	b->v[b->n].rec = rec;
	b->v[b->n++].fate = MW_FATE_OPEN;
	b->n_wanted += c->wanted;
	p->n_wanted += c->wanted;
	return 0;
}

static int
by_place(const void *x, const void *y)
{
	const struct chosen *a = x, *b = y;
	if (a->journal != b->journal)
		return a->journal < b->journal ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	struct walk *w = arg;
	if (w->o->bad)
		w->o->bad(w->o->arg, err);
}

static void
tell_first(struct walk *w, const struct mw_item *it)
{
	if (w->first && w->o->first_box)
		w->o->first_box(w->o->arg, w->first->mailbox, w->first->box,
		                it->rec.imported);
	w->first = NULL;
}

/* First walk: the selected records, and the boxes that their copies belong into. */
static int
on_selected(void *arg, const struct mw_item *it)
{
	struct walk *w = arg;
	struct mw_copy *c;
	size_t n;
	void *v = w->chosen;
	struct mw_plan_box *b;
	bool any = false;
	mw_arena_reset(w->tmp);
	int r = mw_copies(w->cli->conf, &it->mail, w->tmp, &c, &n, w->err);
	for (size_t i = 0; i < n && !r; i++) {
		r = copy_named(w, &c[i]);
		if (r <= 0)
			continue;
		any = true;
		r = get_box(w, c[i].mailbox, &b);
		tell_first(w, it);
	}
	if (r || !any)
		return r;
	if (grow(&v, &w->cap_chosen, w->n_chosen + 1, sizeof *w->chosen))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	w->chosen = v;
	w->chosen[w->n_chosen++] = (struct chosen){it->journal, it->rec.seq};
	return 0;
}

static enum mw_known_class
known_of(struct walk *w, const struct mw_item *it, const struct mw_copy *c)
{
	if (w->o->mailbox) /* whoever runs the plan asks for it */
		return MW_KNOWN_NOTHING;
	struct mw_known *known = w->known.known[it->journal];
	const struct mw_conf *conf = w->cli->conf;
	enum mw_known_class k = mw_known_copy(known, conf, it->rec.seq, c,
	                                      w->known.mark_us[it->journal], w->tmp);
	int64_t end = w->known.end_us[it->journal];
	if (k == MW_KNOWN_NOTHING && it->mail.time_us <= end &&
	    mw_known_newest(known, conf, it->rec.seq, c, w->tmp) <= end)
		return MW_KNOWN_UNSURE;
	return k;
}

static bool
may_wait(struct walk *w, const struct mw_item *it, const struct mw_copy *c)
{
	return !w->o->mailbox && !it->rec.imported &&
	       mw_known_may_wait(w->known.known[it->journal], w->cli->conf, it->rec.seq,
	                         c, w->tmp);
}

/* Taken for somebody of ours, who is nobody here: an alias that leads outside. In a set
 * it may stand for what another host knew as a mailbox (hops.h). */
static int
went_outside(struct walk *w, const struct mw_item *it)
{
	struct mw_plan *p = w->plan;
	void *v = p->gone_on;
	bool any = false;
	for (size_t i = 0; i < it->mail.n_rcpt; i++)
		any = any || (it->mail.rcpt[i].flags & MW_RCPT_LOCAL);
	if (!any || w->cli->n_journals < 2 || w->o->mailbox)
		return 0;
	int r = add_rec(w, it);
	if (r)
		return r;
	if (grow(&v, &p->cap_gone_on, p->n_gone_on + 1, sizeof *p->gone_on))
		return mw_fail(w->err, MW_ENOMEM, "out of memory");
	p->gone_on = v;
	p->gone_on[p->n_gone_on++] = (uint32_t)(p->n_rec - 1);
	return 0;
}

static int
on_any(void *arg, const struct mw_item *it)
{
	struct walk *w = arg;
	struct mw_copy *c;
	size_t n;
	bool added = false;
	struct chosen key = {it->journal, it->rec.seq};
	mw_arena_reset(w->tmp);
	int r = mw_copies(w->cli->conf, &it->mail, w->tmp, &c, &n, w->err);
	if (r)
		return r;
	if (!n)
		return went_outside(w, it);
	bool chosen =
	    w->everything ||
	    (w->n_chosen && bsearch(&key, w->chosen, w->n_chosen, sizeof key, by_place));
	bool sent_apart = mw_target_has_sent(w->t);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_plan_box *b;
		int named = copy_named(w, &c[i]);
		if (named < 0)
			return named;
		bool wanted = chosen && named;
		if (w->o->mailbox) {
			if (!named)
				continue;
			c[i].mailbox = w->o->mailbox;
			chosen = chosen && !wanted; /* its first copy stands for it */
		}
		if (!mw_target_readable(w->t) && !wanted)
			continue;
		r = get_box(w, c[i].mailbox, &b);
		tell_first(w, it);
		if (r || !b)
			continue;
		if (!added)
			r = add_rec(w, it);
		added = true;
		const struct mw_plan_copy made = {
		    .sent = c[i].sent && sent_apart,
		    .wanted = wanted,
		    .known = (uint8_t)known_of(w, it, &c[i]),
		    .may_wait = may_wait(w, it, &c[i]),
		    .told = !w->o->mailbox &&
		            mw_known_told(w->known.known[it->journal], it->rec.seq),
		};
		if (!r)
			r = add_copy(w, b, &made);
	}
	return r;
}

static int
on_export(void *arg, const struct mw_item *it)
{
	struct walk *w = arg;
	struct mw_plan_box *b;
	mw_arena_reset(w->tmp);
	int r = get_box(w, "", &b);
	if (!r)
		r = add_rec(w, it);
	const struct mw_plan_copy made = {.wanted = true, .known = MW_KNOWN_NOTHING};
	return r ? r : add_copy(w, b, &made);
}

static const struct mw_plan_rec *sort_rec; /* qsort has no argument; one thread */

static int
by_time(const void *x, const void *y)
{
	const struct mw_plan_copy *a = x, *b = y;
	const struct mw_plan_rec *ra = &sort_rec[a->rec], *rb = &sort_rec[b->rec];
	if (ra->time_us != rb->time_us)
		return ra->time_us < rb->time_us ? -1 : 1;
	return a->rec < b->rec ? -1 : a->rec > b->rec;
}

static int
by_mailbox(const void *x, const void *y)
{
	const struct mw_plan_box *a = x, *b = y;
	return strcmp(a->mailbox, b->mailbox);
}

static void
sort_all(struct mw_plan *p)
{
	mw_plan_drop_names(p);
	sort_rec = p->rec;
	for (size_t i = 0; i < p->n_box; i++)
		if (p->box[i].n)
			qsort(p->box[i].v, p->box[i].n, sizeof *p->box[i].v, by_time);
	if (p->n_box)
		qsort(p->box, p->n_box, sizeof *p->box, by_mailbox);
	free(p->slot); /* positions have changed */
	p->slot = NULL;
	p->n_slot = 0;
}

struct told {
	size_t box;
	const uint8_t *digest;
};

static int
by_digest(const void *x, const void *y)
{
	const struct told *a = x, *b = y;
	if (a->box != b->box)
		return a->box < b->box ? -1 : 1;
	return memcmp(a->digest, b->digest, sizeof((struct mw_plan_rec *)0)->digest);
}

/* The same message twice in a box, and the log tells of one only: maybe the sender was
 * told to come again with it. */
static int
mark_twins(struct mw_plan *p, struct mw_err *err)
{
	size_t n = 0, silent = 0;
	for (size_t b = 0; b < p->n_box; b++)
		for (size_t i = 0; i < p->box[b].n; i++) {
			const struct mw_plan_copy *c = &p->box[b].v[i];
			n += c->told;
			silent += c->wanted && !c->told;
		}
	if (!n || !silent)
		return 0;
	MW_AUTOFREE struct told *v = calloc(n, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	n = 0;
	for (size_t b = 0; b < p->n_box; b++)
		for (size_t i = 0; i < p->box[b].n; i++)
			if (p->box[b].v[i].told)
				v[n++] =
				    (struct told){b, p->rec[p->box[b].v[i].rec].digest};
	qsort(v, n, sizeof *v, by_digest);
	for (size_t b = 0; b < p->n_box; b++)
		for (size_t i = 0; i < p->box[b].n; i++) {
			struct mw_plan_copy *c = &p->box[b].v[i];
			const struct mw_plan_rec *rec = &p->rec[c->rec];
			struct told key = {b, rec->digest};
			c->twin = c->wanted && !c->told && !rec->imported &&
			          bsearch(&key, v, n, sizeof *v, by_digest) != NULL;
		}
	return 0;
}

static int
two_walks(struct walk *w)
{
	struct mw_query all;
	int r = 0;
	w->plan->by_message = w->o->mailbox != NULL;
	if (!w->o->mailbox) /* else outcomes are asked for what is missing only */
		r = mw_known_set_load(w->cli, &w->q, &w->known, w->err);
	if (r)
		return r;
	w->q.late = w->q.since_mark && w->known.late ? w->known.late : NULL;
	w->everything = w->q.all && !w->q.any_term && !w->q.n_id && !w->q.span;
	if (!w->everything)
		r = mw_select(w->cli, &w->q, on_selected, w, NULL, NULL, w->err);
	if (r)
		return r;
	if (w->n_chosen)
		qsort(w->chosen, w->n_chosen, sizeof *w->chosen, by_place);
	w->second = !w->everything; /* boxes are known by now */
	mw_query_init(&all, w->tmp);
	all.all = true;
	all.key = w->q.key;
	all.n_key = w->q.n_key;
	return mw_select(w->cli, &all, on_any, w, on_bad, &w->plan->unreadable, w->err);
}

int
mw_plan_make(const struct mw_plan_opts *o, struct mw_plan **ret, struct mw_err *err)
{
	struct mw_plan *p = calloc(1, sizeof *p);
	struct walk w = {
	    .o = o, .cli = o->cli, .q = *o->query, .t = o->target, .plan = p, .err = err};
	w.tmp = mw_arena_new(0);
	if (p)
		p->arena = mw_arena_new(0);
	int r = p && p->arena && w.tmp ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	if (!r && o->export)
		r = mw_select(o->cli, o->query, on_export, &w, on_bad, &p->unreadable,
		              err);
	else if (!r)
		r = two_walks(&w);
	if (!r)
		sort_all(p);
	if (!r && !o->export)
		r = mw_hops_merge(o->cli, p, o->target, w.known.known, err);
	if (!r && !o->export && !o->mailbox)
		r = mark_twins(p, err);
	free(w.chosen);
	mw_plan_places_done(&w.places);
	mw_known_set_done(&w.known);
	mw_arena_free(w.tmp);
	if (r) {
		mw_plan_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void
mw_plan_free(struct mw_plan *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n_box; i++)
		free(p->box[i].v);
	free(p->box);
	free(p->rec);
	free(p->gone_on);
	free(p->slot);
	mw_arena_free(p->arena);
	free(p);
}
