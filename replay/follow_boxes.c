/* follow_boxes.c - is the standby still the one that was filled? What the mailboxes'
 * marks were is kept in a file beside the state's:
 *
 *	mailwal standby 1\n
 *	SAME NEXT NUL MAILBOX NUL BOX NUL	for each; the numbers in decimal
 */
#include "replay/follow.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/plan_place.h"
#include "replay/run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FILE_MAX = 256 << 20,
	AWAY_MAX = 3, /* mailboxes that cannot be reached, while none could */
	AGAIN_MS = 300,
	SAVE_S = 30 /* NEXT may be behind so long; it is a lower bound */
};

static const char head[] = "mailwal standby 1\n";

/* ---- the table, by box ---- */

static size_t
place(const struct mw_follow *f, const char *box)
{
	size_t i = 0;
	for (size_t end = f->n_box; i < end;) {
		size_t mid = i + (end - i) / 2;
		if (strcmp(f->box[mid].box, box) < 0)
			i = mid + 1;
		else
			end = mid;
	}
	return i;
}

static struct mw_follow_box *
find(const struct mw_follow *f, const char *box)
{
	size_t i = place(f, box);
	return i < f->n_box && strcmp(f->box[i].box, box) == 0 ? &f->box[i] : NULL;
}

/* The mark of a box, from now on. */
static int
keep(struct mw_follow *f, const char *mailbox, const char *box,
     const struct mw_target_mark *mark, struct mw_err *err)
{
	struct mw_follow_box *b = find(f, box);
	if (b) {
		f->boxes_new = f->boxes_new || b->mark.same != mark->same;
		b->mark = *mark;
		f->boxes_dirty = true;
		return 0;
	}
	if (f->n_box == f->cap_box) {
		size_t cap = f->cap_box ? f->cap_box * 2 : 64;
		struct mw_follow_box *v = reallocarray(f->box, cap, sizeof *v);
		if (!v)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		f->box = v;
		f->cap_box = cap;
	}
	struct mw_follow_box one = {strdup(mailbox), strdup(box), *mark, false};
	if (!one.mailbox || !one.box) {
		free(one.mailbox);
		free(one.box);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	size_t i = place(f, box);
	memmove(&f->box[i + 1], &f->box[i], (f->n_box - i) * sizeof *f->box);
	f->box[i] = one;
	f->n_box++;
	f->boxes_new = f->boxes_dirty = true;
	return 0;
}

void
mw_follow_boxes_free(struct mw_follow *f)
{
	for (size_t i = 0; i < f->n_box; i++) {
		free(f->box[i].mailbox);
		free(f->box[i].box);
	}
	free(f->box);
	f->box = NULL;
	f->n_box = f->cap_box = 0;
}

static bool
is_another(const struct mw_target_mark *then, const struct mw_target_mark *now)
{
	return now->same != then->same || now->next < then->next;
}

/* ---- the file ---- */

static int
file_of(const struct mw_follow *f, char *ret, size_t n, struct mw_err *err)
{
	return snprintf(ret, n, "%s.boxes", f->file) < (int)n
	           ? 0
	           : mw_fail(err, MW_EUSAGE, "path too long");
}

int
mw_follow_boxes_load(struct mw_follow *f, struct mw_err *err)
{
	char file[sizeof f->file + 8];
	MW_AUTOFREE void *text = NULL;
	size_t n;
	int r = file_of(f, file, sizeof file, err);
	if (r < 0)
		return r;
	r = mw_fs_read_file(mw_fs_posix(), file, FILE_MAX, &text, &n);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", file);
	}
	struct mw_str rest = mw_str(text, n), numbers, mailbox, box;
	if (!mw_str_starts(rest, mw_str(head, sizeof head - 1)))
		return 0; /* of another version: noted anew */
	rest = mw_str(rest.p + sizeof head - 1, rest.n - (sizeof head - 1));
	r = 0;
	while (!r && mw_str_cut(rest, '\0', &numbers, &rest) &&
	       mw_str_cut(rest, '\0', &mailbox, &rest) &&
	       mw_str_cut(rest, '\0', &box, &rest)) {
		struct mw_target_mark m;
		if (sscanf(numbers.p, "%" SCNu64 " %" SCNu64, &m.same, &m.next) == 2)
			r = keep(f, mailbox.p, box.p, &m, err);
	}
	f->boxes_new = f->boxes_dirty = false;
	return r;
}

int
mw_follow_boxes_save(struct mw_follow *f, bool now, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	int64_t age = clock->mono_us(clock) - f->boxes_saved_us;
	char file[sizeof f->file + 8];
	MW_BUF_AUTO b = {0};
	if (!f->boxes_new &&
	    (!f->boxes_dirty || (!now && age < INT64_C(1000000) * SAVE_S)))
		return 0;
	int r = file_of(f, file, sizeof file, err);
	if (r < 0)
		return r;
	mw_buf_puts(&b, head);
	for (size_t i = 0; i < f->n_box; i++) {
		const struct mw_follow_box *x = &f->box[i];
		mw_buf_printf(&b, "%" PRIu64 " %" PRIu64, x->mark.same, x->mark.next);
		mw_buf_putc(&b, '\0');
		mw_buf_put(&b, x->mailbox, strlen(x->mailbox) + 1);
		mw_buf_put(&b, x->box, strlen(x->box) + 1);
	}
	if (mw_buf_ok(&b) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	char *slash = strrchr(file, '/');
	*slash = '\0';
	int e = mw_fs_write_file(mw_fs_posix(), file, slash + 1, b.p, b.n);
	*slash = '/';
	if (e < 0) {
		errno = -e;
		return mw_fail_errno(err, "cannot write %s", file);
	}
	f->boxes_new = f->boxes_dirty = false;
	f->boxes_saved_us = clock->mono_us(clock);
	return 0;
}

/* ---- a look at many of them ---- */

struct looked {
	const char *mailbox, *box;
	struct mw_target_mark mark;
	bool told, done; /* done: it could be looked at, whether it told or not */
};

struct looks { /* by all threads, under mu */
	pthread_mutex_t mu;
	const struct mw_target *target;
	struct looked *v;
	size_t n, next;
	size_t reached, away; /* mailboxes */
	int code;             /* of what ends it */
	struct mw_err why;
};

/* 1: v says now what the box is; 0: it does not say; negative. */
static int
look(struct mw_target *t, struct looked *v, struct mw_err *err)
{
	struct mw_err ignored;
	int r = mw_target_open(t, v->mailbox, v->box, true, err);
	if (r < 0)
		return r;
	r = mw_target_mark(t, &v->mark, err);
	(void)!mw_target_close(t, &ignored); /* nothing was changed there */
	return r;
}

static bool
ends(struct looks *l, int r, const struct mw_err *why)
{
	bool gone = r == MW_EUNAVAIL || r == MW_ETIMEOUT;
	(void)pthread_mutex_lock(&l->mu);
	l->reached += !gone;
	l->away += gone;
	if (!l->code && (r == MW_ENOMEM || (l->away >= AWAY_MAX && !l->reached))) {
		l->code = r;
		l->why = *why;
	}
	if (gone && !l->why.code)
		l->why = *why;
	bool over = l->code != 0;
	(void)pthread_mutex_unlock(&l->mu);
	return over;
}

static void *
work(void *arg)
{
	struct looks *l = arg;
	struct mw_target *t = NULL;
	struct mw_err why = {0};
	bool over = mw_target_clone(l->target, &t) < 0 &&
	            ends(l, mw_fail(&why, MW_ENOMEM, "out of memory"), &why);
	while (!over && !mw_cli_stopped()) {
		struct looked *v = NULL;
		(void)pthread_mutex_lock(&l->mu);
		while (l->next < l->n && l->v[l->next].done)
			l->next++;
		if (!l->code && l->next < l->n)
			v = &l->v[l->next++];
		(void)pthread_mutex_unlock(&l->mu);
		if (!v)
			break;
		int r = look(t, v, &why);
		v->told = r > 0;
		v->done = r >= 0;
		over = ends(l, r, &why);
	}
	mw_target_free(t);
	return NULL;
}

/* Several at a time. 0; MW_ECANCEL; MW_ENOMEM; or why none could be reached. A single one
 * that cannot be looked at is not told of: its mail will be. */
static int
look_all(struct mw_follow *f, struct looked *v, size_t n, struct mw_err *err)
{
	struct looks l = {.mu = PTHREAD_MUTEX_INITIALIZER,
	                  .target = f->target,
	                  .v = v,
	                  .n = n};
	pthread_t thread[MW_JOBS_DEFAULT - 1];
	size_t k = 0;
	while (k < MW_COUNT(thread) && k + 1 < n &&
	       pthread_create(&thread[k], NULL, work, &l) == 0)
		k++;
	(void)work(&l);
	while (k > 0)
		(void)pthread_join(thread[--k], NULL);
	(void)pthread_mutex_destroy(&l.mu);
	if (mw_cli_stopped())
		return mw_fail(err, MW_ECANCEL, "interrupted");
	if (!l.code && l.away && !l.reached)
		l.code = l.why.code;
	return l.code ? mw_fail(err, l.code, "%s", l.why.msg) : 0;
}

/* As look_all; what could not be looked at is, once more: a mailbox that is just being
 * made fails whom it meets. */
static int
look_twice(struct mw_follow *f, struct looked *v, size_t n, struct mw_err *err)
{
	struct mw_err second = {0};
	int r = n ? look_all(f, v, n, err) : 0;
	size_t left = 0;
	for (size_t i = 0; i < n && !r; i++)
		left += !v[i].done;
	if (!left)
		return r;
	(void)poll(NULL, 0, AGAIN_MS);
	r = look_all(f, v, n, &second);
	if (r != MW_ECANCEL && r != MW_ENOMEM)
		return 0;
	*err = second;
	return r;
}

int
mw_follow_boxes_check(struct mw_follow *f, struct mw_err *err)
{
	MW_AUTOFREE struct looked *v = calloc(f->n_box + 1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < f->n_box; i++)
		v[i] =
		    (struct looked){.mailbox = f->box[i].mailbox, .box = f->box[i].box};
	int r = look_twice(f, v, f->n_box, err);
	for (size_t i = 0; i < f->n_box && !r; i++)
		if (v[i].told && is_another(&f->box[i].mark, &v[i].mark))
			f->box[i].anew = true;
	return r;
}

int
mw_follow_boxes_note(struct mw_follow *f, const struct mw_plan *p, struct mw_err *err)
{
	MW_AUTOFREE struct looked *v = calloc(p->n_box + 1, sizeof *v);
	size_t n = 0;
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n_box; i++)
		if (!p->box[i].bad_name)
			v[n++] = (struct looked){.mailbox = p->box[i].mailbox,
			                         .box = p->box[i].box};
	int r = look_twice(f, v, n, err);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_follow_box *b = find(f, v[i].box);
		if (!v[i].told)
			continue;
		if (b && !b->anew && is_another(&b->mark, &v[i].mark))
			b->anew =
			    true; /* since it was checked: its mark stays that of then */
		else
			r = keep(f, v[i].mailbox, v[i].box, &v[i].mark, err);
	}
	return r;
}

/* ---- those that are others now ---- */

bool
mw_follow_boxes_anew(const struct mw_follow *f, struct mw_buf *ret)
{
	enum {
		NAMED = 3
	};
	size_t n = 0;
	for (size_t i = 0; i < f->n_box; i++) {
		if (!f->box[i].anew)
			continue;
		if (n < NAMED)
			mw_buf_printf(ret, "%s%s", n ? ", " : "", f->box[i].mailbox);
		n++;
	}
	if (n > NAMED)
		mw_buf_printf(ret, " and %zu more", n - NAMED);
	mw_buf_puts(ret, n == 1 ? ": this mailbox is not the one that was filled, or an "
	                          "older state of it; what it lacks is put there"
	                        : ": these mailboxes are not those that were filled, or "
	                          "older states of them; what they lack is put there");
	return n > 0;
}

/* By its name, or by that of another that is the same place (plan_place.h): the plan has
 * one name of those that the table has. */
static bool
is_anew(const struct mw_follow *f, const char *box)
{
	const struct mw_follow_box *b = find(f, box);
	bool anew = b && b->anew;
	for (size_t i = 0; i < f->n_box && !b && !anew; i++)
		anew = f->box[i].anew && mw_target_is_files(f->target) &&
		       mw_plan_one_place(f->box[i].box, box);
	return anew;
}

void
mw_follow_boxes_only_anew(const struct mw_follow *f, struct mw_plan *p)
{
	size_t k = 0;
	for (size_t i = 0; i < p->n_box; i++) {
		if (is_anew(f, p->box[i].box)) {
			p->box[k++] = p->box[i];
			continue;
		}
		p->n_wanted -= p->box[i].n_wanted;
		free(p->box[i].v);
	}
	p->n_box = k;
}

void
mw_follow_boxes_filled(struct mw_follow *f)
{
	for (size_t i = 0; i < f->n_box; i++)
		f->box[i].anew = false;
}

/* ---- live ---- */

int
mw_follow_box_opened(struct mw_follow *f, struct mw_target *t, const char *mailbox,
                     const char *box, struct mw_err *err)
{
	struct mw_target_mark now;
	struct mw_follow_box *b = find(f, box);
	int r = mw_target_mark(t, &now, err);
	if (r <= 0)
		return r;
	if (!b)
		return keep(f, mailbox, box, &now, err);
	b->anew = is_another(&b->mark, &now);
	return b->anew ? mw_fail(err, MW_EPROTO, "mailbox %s was replaced", mailbox) : 0;
}

bool
mw_follow_box_got(struct mw_follow *f, const char *box, const struct mw_put_place *at)
{
	struct mw_follow_box *b = find(f, box);
	if (!b || !at || !at->uidvalidity || !at->folder ||
	    strcmp(at->folder, "INBOX") != 0)
		return true;
	if (at->uidvalidity != b->mark.same) {
		b->anew = true;
		return false;
	}
	b->mark.next = MW_MAX(b->mark.next, (uint64_t)at->uid) + 1;
	f->boxes_dirty = true;
	return true;
}
