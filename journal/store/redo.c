/* redo.c - the index of segments in which slots are wiped, or that are removed: free
 * pages of a map keep old keys, so a partition goes whole before that, and is made again
 * after it. What it had of other segments is taken over out of the old file, which has no
 * name any more. */
#include "journal/base/util.h"
#include "journal/store/store_int.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static uint64_t
part_of(uint64_t segment)
{
	return (segment - 1) / MW_INDEX_SPAN;
}

/* With redo_mu held, like all that has a struct mw_redo. */
static struct mw_redo *
find(struct mw_store *st, uint64_t part)
{
	for (size_t i = 0; i < st->n_redo; i++)
		if (st->redo[i].part == part)
			return &st->redo[i];
	return NULL;
}

static struct mw_redo *
find_or_add(struct mw_store *st, uint64_t part)
{
	struct mw_redo *p = find(st, part);
	if (p)
		return p;
	p = reallocarray(st->redo, st->n_redo + 1, sizeof *p);
	if (!p)
		return NULL;
	st->redo = p;
	p += st->n_redo++;
	*p = (struct mw_redo){.part = part, .old = -1};
	return p;
}

static void
drop(struct mw_store *st, struct mw_redo *p)
{
	if (p->old >= 0)
		(void)close(p->old);
	free(p->segment);
	*p = st->redo[--st->n_redo];
}

/* MW_ENOMEM. */
static int
add(struct mw_redo *p, uint64_t segment)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->segment[i] == segment)
			return 0;
	uint64_t *v = reallocarray(p->segment, p->n + 1, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	p->segment = v;
	v[p->n++] = segment;
	return 0;
}

int
mw_redo_begin(struct mw_store *st, uint64_t segment, struct mw_err *err)
{
	int old = -1, r = 0;
	(void)pthread_mutex_lock(&st->redo_mu);
	size_t known = st->n_redo;
	struct mw_redo *p = NULL;
	if (st->have_indexer) { /* room for it before anything is done */
		p = find_or_add(st, part_of(segment));
		r = p ? add(p, segment) : MW_ENOMEM;
		if (r < 0)
			(void)mw_fail(err, r, "out of memory for the index");
	}
	if (r == 0)
		r = mw_index_forget(st->dir, segment, &old, err);
	if (r < 0 && p && st->n_redo > known)
		drop(st, p);
	if (r == 0 && p) {
		p->changing++;
		p->revision++;
		if (p->old < 0) { /* else this one was begun anew since: it has less */
			p->old = old;
			old = -1;
		}
	}
	if (old >= 0)
		(void)close(old);
	(void)pthread_mutex_unlock(&st->redo_mu);
	return r;
}

void
mw_redo_end(struct mw_store *st, uint64_t segment)
{
	if (!st->have_indexer)
		return;
	(void)pthread_mutex_lock(&st->redo_mu);
	struct mw_redo *p = find(st, part_of(segment));
	if (p && p->changing)
		p->changing--;
	(void)pthread_mutex_unlock(&st->redo_mu);
	(void)pthread_mutex_lock(&st->mu);
	(void)pthread_cond_signal(&st->index_cv);
	(void)pthread_mutex_unlock(&st->mu);
}

bool
mw_redo_waits(struct mw_store *st)
{
	(void)pthread_mutex_lock(&st->redo_mu);
	bool any = st->n_redo > 0;
	(void)pthread_mutex_unlock(&st->redo_mu);
	return any;
}

void
mw_redo_let_go(struct mw_store *st)
{
	(void)pthread_mutex_lock(&st->redo_mu);
	for (size_t i = 0; i < st->n_redo; i++) {
		if (st->redo[i].old >= 0)
			(void)close(st->redo[i].old);
		st->redo[i].old = -1;
	}
	(void)pthread_mutex_unlock(&st->redo_mu);
}

void
mw_redo_free(struct mw_store *st)
{
	while (st->n_redo)
		drop(st, &st->redo[0]);
	free(st->redo);
	st->redo = NULL;
}

/* ---- the index thread ---- */

struct again {
	struct mw_store *st;
	struct mw_store *reader;
	uint64_t part, revision;
	uint64_t *segment; /* those that are there */
	size_t n_segment;
	struct mw_index_entry *e;
	size_t *at; /* where the tokens of each begin */
	size_t n, cap;
	struct mw_buf tokens;
};

static bool
has_changed(void *arg)
{
	const struct again *a = arg;
	if (mw_index_time_is_up(a->reader))
		return true;
	(void)pthread_mutex_lock(&a->st->redo_mu);
	const struct mw_redo *p = find(a->st, a->part);
	bool yes = !p || p->revision != a->revision;
	(void)pthread_mutex_unlock(&a->st->redo_mu);
	return yes;
}

static int
more_room(struct again *a)
{
	size_t cap = a->cap ? 2 * a->cap : 4096;
	struct mw_index_entry *e = reallocarray(a->e, cap, sizeof *e);
	if (e)
		a->e = e;
	size_t *at = e ? reallocarray(a->at, cap, sizeof *at) : NULL;
	if (!at)
		return MW_ENOMEM;
	a->at = at;
	a->cap = cap;
	return 0;
}

static int
take(struct again *a, const struct mw_record *rec, struct mw_err *err)
{
	int r = a->n < a->cap ? 0 : more_room(a);
	if (r < 0)
		return mw_fail(err, r, "out of memory while indexing");
	a->at[a->n] = a->tokens.n;
	r = mw_index_entry_of(a->reader, rec, &a->tokens, &a->e[a->n], err);
	a->n += r == 0;
	return r;
}

/* Where in the log that place is, or what follows it there; 0: nothing does. */
static int
place_of(struct again *a, const struct mw_index_hit *first, struct mw_index_point *ret,
         struct mw_err *err)
{
	struct mw_open_seg *o;
	size_t i = 0;
	while (i < a->n_segment && a->segment[i] < first->segment)
		i++;
	if (i == a->n_segment)
		return 0;
	*ret = (struct mw_index_point){first->segment, first->offset, first->seq, 0, {0}};
	if (a->segment[i] == first->segment)
		return 1;
	int r = mw_store_seg(a->reader, a->segment[i], &o, err);
	if (r < 0)
		return r;
	ret->segment = a->segment[i];
	ret->offset = o->seg->h.length;
	ret->next_seq = o->seg->h.first_seq;
	return 1;
}

/* Of a stretch of the log, entries. */
static int
read_again(void *arg, const struct mw_index_hit *first, uint64_t last_seq,
           const struct mw_index_entry **ret, size_t *ret_n, struct mw_err *err)
{
	struct again *a = arg;
	struct mw_index_point from;
	MW_CURSOR_AUTO *c = NULL;
	a->n = 0;
	mw_buf_clear(&a->tokens);
	int r = place_of(a, first, &from, err);
	bool any = r == 1 && from.next_seq <= last_seq;
	if (any)
		r = mw_cursor_at(a->reader, &from, &c, err);
	if (any && r == 0) {
		mw_cursor_limit(c, last_seq + 1);
		mw_cursor_ahead(c);
	}
	while (any && r == 0) {
		struct mw_record rec;
		r = mw_cursor_next(c, &rec, err);
		if (r == MW_EDAMAGED || r == MW_EFORMAT || r == MW_EVERSION) {
			mw_err_clear(err); /* verify tells */
			r = 0;
			continue;
		}
		if (r <= 0 || rec.seq > last_seq)
			break;
		r = has_changed(a) ? MW_ECANCEL : take(a, &rec, err);
	}
	for (size_t i = 0; i < a->n; i++)
		a->e[i].tokens = a->tokens.p + a->at[i];
	*ret = a->e;
	*ret_n = a->n;
	return MW_MIN(r, 0);
}

/* What it was but for the segments that changed; a failure costs a look at all of its
 * segments. */
static bool
salvage(struct again *a, struct mw_index *ix, uint64_t segment, const uint64_t *changed,
        size_t n, int old)
{
	struct mw_index_salvage how = {.from = old,
	                               .segment = changed,
	                               .n = n,
	                               .again = read_again,
	                               .stopped = has_changed,
	                               .arg = a};
	int r =
	    mw_seg_list(a->reader->fs, a->reader->dir, &a->segment, &a->n_segment, NULL);
	if (r == 0)
		r = mw_index_salvage(ix, segment, &how, NULL);
	free(a->segment);
	free(a->e);
	free(a->at);
	mw_buf_free(&a->tokens);
	return r == 1;
}

/* One partition: 1 done, 0 it changes at the moment, or did so meanwhile. */
static int
redo_part(struct mw_store *st, struct mw_index *ix, uint64_t part)
{
	struct again a = {.st = st, .reader = st->ix_reader, .part = part};
	MW_AUTOFREE uint64_t *changed = NULL;
	size_t n = 0;
	int old = -1;
	(void)pthread_mutex_lock(&st->redo_mu);
	struct mw_redo *p = find(st, part);
	bool now = p && !p->changing;
	if (now) {
		a.revision = p->revision;
		changed = calloc(p->n + 1, sizeof *changed);
		for (; changed && n < p->n; n++)
			changed[n] = p->segment[n];
		if (changed && p->old >= 0)
			old = fcntl(p->old, F_DUPFD_CLOEXEC, 0);
	}
	(void)pthread_mutex_unlock(&st->redo_mu);
	if (!now)
		return 0;
	uint64_t segment = part * MW_INDEX_SPAN + 1;
	bool saved = old >= 0 && salvage(&a, ix, segment, changed, n, old);
	if (old >= 0)
		(void)close(old);
	(void)pthread_mutex_lock(&st->redo_mu);
	p = find(st, part);
	bool done = p && p->revision == a.revision;
	if (done) {
		if (!saved || mw_index_take(ix, segment) < 0)
			(void)!mw_index_drop(ix, segment, NULL);
		drop(st, p);
	}
	(void)pthread_mutex_unlock(&st->redo_mu);
	return done;
}

bool
mw_redo_run(struct mw_store *st, struct mw_index *ix)
{
	uint64_t part[64];
	(void)pthread_mutex_lock(&st->redo_mu);
	size_t n = MW_MIN(st->n_redo, MW_COUNT(part));
	for (size_t i = 0; i < n; i++)
		part[i] = st->redo[i].part;
	(void)pthread_mutex_unlock(&st->redo_mu);
	if (n == 0)
		return true;
	/* one of the files that the reader has open may have been unlinked */
	mw_store_segs_close(st->ix_reader);
	st->ix_reader->index_done = 0;
	for (size_t i = 0; i < n; i++) {
		if (mw_index_drop(ix, part[i] * MW_INDEX_SPAN + 1, NULL) < 0)
			return false;
		(void)redo_part(st, ix, part[i]);
	}
	return !mw_redo_waits(st);
}
