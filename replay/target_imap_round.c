#include "replay/target_imap_put.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

/* Rounds: while the server takes one batch, the next is on its way already, and the one
 * before is moved. Over two connections where it is worth that, each with a part of the
 * batch: two processes of the server write then; where scripts file, the second appends
 * all of it, while the first runs them. Whatever is refused, all that is not
 * moved by then is taken out of the staging folder and appended anew, a batch at a time.
 */

enum {
	/* Smaller ones are not worth a second connection. */
	TWO_MESSAGES = 100,
	TWO_BYTES = 2 * 1024 * 1024
};

static const unsigned needed =
    MW_CAP_MOVE | MW_CAP_LITERAL_PLUS | MW_CAP_MULTIAPPEND | MW_CAP_UIDPLUS;

/* The first connection moves as well: this part of a batch is its share. */
#define FIRST_SHARE 0.35

bool
mw_imap_two(const struct mw_imap *c, uint64_t messages, uint64_t bytes)
{
	return messages > 1 && (c->caps & needed) == needed &&
	       (messages >= TWO_MESSAGES || bytes >= TWO_BYTES);
}

bool
mw_imap_rounds(const struct mw_imap_putting *p)
{
	const struct mw_imap_box *b = p->b;
	if (p->one || (b->c->caps & needed) != needed)
		return false;
	if (!p->sieve)
		return true;
	mw_imap_second_wait(p->b);
	return b->second && (b->second->caps & needed) == needed;
}

/* How many of the batch the first connection appends. */
static size_t
first_part(const struct mw_imap_putting *p, const struct mw_put *const *v, size_t n)
{
	uint64_t all = 0, sum = 0;
	size_t k = 0;
	if (p->sieve) /* which the first one runs meanwhile */
		return 0;
	for (size_t i = 0; i < n; i++)
		all += v[i]->size;
	/* What the second sends could come before the marker. */
	if (p->b->marker_due || p->b->second_coming || !p->b->second ||
	    !mw_imap_two(p->b->c, n, all) || !mw_imap_two(p->b->second, n, all))
		return n;
	while (k < n - 1 && (double)sum < FIRST_SHARE * (double)all)
		sum += v[k++]->size;
	return k;
}

static void
round_done(struct mw_imap_round *d)
{
	free(d->v);
	free(d->uids[0]);
	free(d->uids[1]);
	*d = (struct mw_imap_round){0};
}

void
mw_imap_rounds_done(struct mw_imap_putting *p)
{
	while (p->n_round)
		round_done(&p->round[--p->n_round]);
	p->n_moving = 0;
}

static int
round_make(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
           struct mw_imap_round *ret, struct mw_err *err)
{
	*ret = (struct mw_imap_round){.v = malloc(n * sizeof *ret->v), .n = n};
	if (!ret->v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	memcpy(ret->v, v, n * sizeof *v);
	ret->part = first_part(p, v, n);
	ret->number = ++p->number;
	return 0;
}

static int
send_round(struct mw_imap_putting *p, const struct mw_imap_round *d, struct mw_err *err)
{
	struct mw_imap *const c[2] = {p->b->c, d->part < d->n ? p->b->second : NULL};
	struct mw_imap_load l;
	int r = mw_imap_load_make(p, d->v, d->n, &l, err);
	if (r)
		return r;
	const struct mw_imap_batch part[2] = {{p->b->staging, l.m, d->part,
	                                       mw_imap_load_content, p},
	                                      {p->b->staging, l.m + d->part,
	                                       d->n - d->part, mw_imap_load_content, p}};
	r = mw_imap_append_send_two(c, part, err);
	mw_imap_load_done(&l);
	return r;
}

/* The answer to an APPEND of n messages: 0 and the UIDs (the caller's), 1 refused. */
static int
take_part(struct mw_imap *c, size_t n, char **ret_uids, struct mw_err *err)
{
	struct mw_imap_appended a;
	struct mw_str validity, set;
	int r = mw_imap_append_wait(c, 1, &a, err);
	if (r || a.code)
		return r ? r : 1;
	if (!a.uid || !mw_str_cut(mw_buf_str(&c->last.args), ' ', &validity, &set) ||
	    mw_imap_set_count(set) != n)
		return mw_fail(err, MW_EPROTO, "the server miscounts its APPENDUID");
	*ret_uids = strndup(set.p, set.n);
	return *ret_uids ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

/* The oldest of those that are moved is where it belongs. */
static int
oldest_moved(struct mw_imap_putting *p, struct mw_err *err)
{
	int r = mw_imap_move_end(p, &p->round[0], err);
	if (r)
		return r;
	round_done(&p->round[0]);
	p->n_moving--;
	p->n_round--;
	memmove(&p->round[0], &p->round[1], p->n_round * sizeof p->round[0]);
	p->round[p->n_round] = (struct mw_imap_round){0};
	return 0;
}

/* The answers to the APPENDs of a round (the first that is not moved, or one behind it,
 * after those before it), and to the MOVEs that went out behind it: 0, 1 some of it was
 * refused. */
static int
take_round(struct mw_imap_putting *p, size_t place, struct mw_err *err)
{
	struct mw_imap_round *d = &p->round[place];
	uint64_t number = d->number;
	size_t part = d->part, rest = d->n - d->part;
	int r = part ? take_part(p->b->c, part, &d->uids[0], err) : 0;
	bool refused = r > 0;
	r = r < 0 ? r : 0;
	for (; !r && p->n_moving && p->round[0].behind == number; place--)
		r = oldest_moved(p, err);
	if (!r && rest) {
		r = take_part(p->b->second, rest, &p->round[place].uids[1], err);
		refused = refused || r > 0;
	}
	return r < 0 ? r : refused;
}

/* Nothing that is not moved may stay in the staging folder; then one by one. What was
 * sent behind a round that was refused has its answers taken first. */
static int
anew(struct mw_imap_putting *p, struct mw_err *err)
{
	int r = 0;
	for (size_t left = p->n_round - p->n_moving - 1; left && r >= 0; left--)
		r = take_round(p, p->n_round - left, err);
	r = r < 0 ? r : 0;
	while (!r && p->n_moving)
		r = oldest_moved(p, err);
	if (!r)
		r = mw_imap_do(p->b->c, err, "SELECT %s", p->b->staging);
	if (r == MW_EREFUSED)
		r = mw_imap_refused(p->b->c, err, "open the folder " MW_STAGING_NAME);
	if (!r)
		r = mw_imap_staging_purge(p->b, err);
	p->one = true;
	for (size_t i = 0; i < p->n_round && !r; i++)
		r = mw_imap_put_batch(p, p->round[i].v, p->round[i].n, err);
	p->one = false;
	mw_imap_rounds_done(p);
	return r;
}

/* Without its marker the staging folder is nobody's: then what was sent into it has its
 * answers taken, and that was all. */
static int
settle(struct mw_imap_putting *p, struct mw_err *err)
{
	struct mw_err ignored;
	int q = 0, r = mw_imap_staging_settle(p->b, err);
	for (size_t i = 0; r == MW_EREFUSED && i < p->n_round && q >= 0; i++)
		q = take_round(p, i, &ignored);
	return r;
}

/* The oldest round that is not moved: appended, and its MOVEs under way. */
static int
advance(struct mw_imap_putting *p, struct mw_err *err)
{
	int r = settle(p, err);
	if (r)
		return r;
	r = take_round(p, p->n_moving, err);
	if (r)
		return r < 0 ? r : anew(p, err);
	while (p->sieve && p->n_moving && !r) /* more is asked for behind a script */
		r = oldest_moved(p, err);
	if (r)
		return r;
	r = mw_imap_move_start(p, &p->round[p->n_moving], err);
	p->n_moving++;
	return r;
}

/* Has the server got on with what it was asked for? */
static bool
answered(const struct mw_imap_putting *p)
{
	const struct mw_imap_box *b = p->b;
	if (!p->sieve)
		return mw_net_heard(b->c->net);
	return mw_net_heard(b->second->net) && (!p->n_moving || mw_net_heard(b->c->net));
}

int
mw_imap_round_put(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                  struct mw_err *err)
{
	mw_imap_second_take(p->b);
	struct mw_imap_round *d = &p->round[p->n_round];
	int r = round_make(p, v, n, d, err);
	if (r)
		return r;
	p->n_round++;
	r = send_round(p, d, err);
	if (!r && answered(p))
		r = settle(p, err);
	while (!r && p->n_round - p->n_moving > (p->sieve ? 0 : 1) &&
	       (p->n_round - p->n_moving == MW_IMAP_ROUNDS || answered(p)))
		r = advance(p, err);
	return r;
}

int
mw_imap_round_end(struct mw_imap_putting *p, struct mw_err *err)
{
	int r = 0;
	bool any = p->n_round;
	while (!r && p->n_round > p->n_moving)
		r = advance(p, err);
	if (!r && any && p->last && !p->sieve)
		r = mw_imap_staging_drop_send(p->b, err);
	while (!r && p->n_round)
		r = oldest_moved(p, err);
	return r;
}
