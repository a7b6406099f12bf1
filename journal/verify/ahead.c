/* Looking ahead: a segment is read in pieces, each byte once, and threads find out what
 * the frames in them say, while the caller judges those before. Its pieces are in a ring,
 * in log order; one that is not ready when its turn comes is waited for, by working on
 * others. A piece belongs to whoever took it; all else here is under mu, or the
 * caller's own. */
#include "journal/base/util.h"
#include "journal/verify/verify_int.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>

enum {
	PIECE_LEAST = 64 << 10, /* after damage one begins small */
	PIECE_MOST = 1 << 20,
	FRAMES = 1024,          /* to a piece */
	OWN_WINDOW = 256 << 10, /* for frames that are larger than a piece */
	THREADS_MOST = 8,
	WORTH_IT = 4 << 20 /* bytes of a log from which threads are worth their start */
};

enum state {
	FREE,
	READY,
	TAKEN,
	DONE
};

struct piece {
	enum state state;
	uint64_t segment, off;
	size_t bytes;
	uint8_t *buf;
	struct mw_facts *v; /* FRAMES of them */
	size_t n, at;
	struct mw_buf token, text;
	struct mw_look look; /* for who reads the facts: its buffers */
};

struct worker {
	struct mw_ahead *a;
	pthread_t thread;
	struct mw_window *w;
	struct mw_store *st;
	struct mw_seg *seg;
	struct mw_arena *arena;
};

struct mw_ahead {
	struct mw_look like;
	const struct mw_fs *fs;
	struct worker worker[THREADS_MOST]; /* the first is the caller */
	unsigned n_worker, n_thread;
	pthread_mutex_t mu;
	pthread_cond_t work, done;
	bool stop;
	struct piece *piece; /* ring: count of them from head on */
	size_t n_piece, head, count;
	struct mw_job *job; /* one that nobody has taken yet */
	/* the caller's own */
	struct mw_seg *seg;
	uint64_t next, end; /* where the next piece begins */
	size_t size, most;
	bool head_done;
};

/* ---- at work ---- */

/* The segment of a piece, as this worker reads it. */
static struct mw_seg *
segment(struct worker *k, const struct piece *p)
{
	const struct mw_store *st = k->st;
	if (k->seg && k->seg->h.number == p->segment)
		return k->seg;
	mw_seg_free(k->seg);
	k->seg = NULL;
	if (mw_seg_open(mw_window_fs(k->w), mw_store_dir(st), p->segment, mw_store_id(st),
	                &k->seg, NULL) < 0)
		k->seg = NULL;
	return k->seg;
}

static void
look_at(struct worker *k, struct piece *p)
{
	struct mw_look l = k->a->like;
	struct mw_seg *s = segment(k, p);
	l.st = k->st;
	l.arena = k->arena;
	l.token = &p->token;
	l.text = &p->text;
	if (s)
		mw_window_show(k->w, s->fd, p->off, p->buf, p->bytes);
	for (size_t i = 0; i < p->n; i++) {
		uint64_t off = p->v[i].off;
		if (!s || mw_verify_look(&l, s, off, &p->v[i], NULL) < 0)
			p->v[i].valid = -1; /* the caller will, and say why it cannot */
		if (p->token.failed || p->text.failed) {
			p->token.failed = p->text.failed = false;
			p->v[i].valid = -1;
		}
	}
	mw_window_forget(k->w);
}

/* Does the job that nobody has taken, if there is one. With mu held. */
static bool
work_job(struct mw_ahead *a)
{
	struct mw_job *j = a->job;
	if (!j)
		return false;
	a->job = NULL;
	(void)pthread_mutex_unlock(&a->mu);
	j->run(j->arg);
	(void)pthread_mutex_lock(&a->mu);
	j->state = DONE;
	(void)pthread_cond_broadcast(&a->done);
	return true;
}

/* The oldest piece that nobody has taken. With mu held. */
static bool
work_piece(struct worker *k)
{
	struct mw_ahead *a = k->a;
	for (size_t i = 0; i < a->count; i++) {
		struct piece *p = &a->piece[(a->head + i) % a->n_piece];
		if (p->state != READY)
			continue;
		p->state = TAKEN;
		(void)pthread_mutex_unlock(&a->mu);
		look_at(k, p);
		(void)pthread_mutex_lock(&a->mu);
		p->state = DONE;
		(void)pthread_cond_broadcast(&a->done);
		return true;
	}
	return false;
}

static void *
run(void *arg)
{
	struct worker *k = arg;
	struct mw_ahead *a = k->a;
	(void)pthread_setname_np(pthread_self(), "mw-verify");
	(void)pthread_mutex_lock(&a->mu);
	while (!a->stop)
		if (!work_job(a) && !work_piece(k))
			(void)pthread_cond_wait(&a->work, &a->mu);
	(void)pthread_mutex_unlock(&a->mu);
	return NULL;
}

/* ---- pieces ---- */

/* The frames of p, by their headers, as far as they follow each other; how many bytes
 * they take. A frame that is larger than the piece is one of its own. */
static uint64_t
split(struct mw_ahead *a, struct piece *p)
{
	uint64_t at = 0;
	struct mw_frame f;
	p->n = 0;
	while (p->n < FRAMES && at + MW_FRAME_HEADER <= p->bytes) {
		if (!mw_frame_decode(p->buf + at, a->seg->h.salt, &f))
			break;
		uint64_t len = mw_frame_len(&f);
		if (len > a->end - p->off - at || (p->n && len > p->bytes - at))
			break;
		p->v[p->n++] = (struct mw_facts){.off = p->off + at};
		at += len;
	}
	return at;
}

/* Reads on, while there is room. */
static void
fill(struct mw_ahead *a)
{
	while (a->count < a->n_piece && a->next < a->end) {
		struct piece *p = &a->piece[(a->head + a->count) % a->n_piece];
		size_t n = (size_t)MW_MIN(a->end - a->next, (uint64_t)a->size);
		int64_t got = a->fs->pread(a->fs, a->seg->fd, p->buf, n, a->next);
		p->segment = a->seg->h.number;
		p->off = a->next;
		p->bytes = got > 0 ? (size_t)got : 0;
		p->at = 0;
		mw_buf_clear(&p->token);
		mw_buf_clear(&p->text);
		uint64_t len = split(a, p);
		if (len == 0)
			return; /* damage: the caller says where it goes on */
		a->next += len;
		a->size = MW_MIN(2 * a->size, a->most);
		(void)pthread_mutex_lock(&a->mu);
		p->state = READY;
		a->count++;
		(void)pthread_cond_signal(&a->work);
		(void)pthread_mutex_unlock(&a->mu);
	}
}

static void
release(struct mw_ahead *a)
{
	(void)pthread_mutex_lock(&a->mu);
	a->piece[a->head].state = FREE;
	a->head = (a->head + 1) % a->n_piece;
	a->count--;
	(void)pthread_mutex_unlock(&a->mu);
	a->head_done = false;
}

/* The first piece is done when this returns. */
static struct piece *
head(struct mw_ahead *a)
{
	struct piece *p = &a->piece[a->head];
	if (a->head_done)
		return p;
	(void)pthread_mutex_lock(&a->mu);
	while (p->state != DONE)
		if (!work_piece(&a->worker[0]))
			(void)pthread_cond_wait(&a->done, &a->mu);
	(void)pthread_mutex_unlock(&a->mu);
	a->head_done = true;
	return p;
}

static void
forget(struct mw_ahead *a, uint64_t next)
{
	(void)pthread_mutex_lock(&a->mu);
	for (size_t i = 0; i < a->count; i++) {
		struct piece *p = &a->piece[(a->head + i) % a->n_piece];
		while (p->state == TAKEN)
			(void)pthread_cond_wait(&a->done, &a->mu);
		p->state = FREE;
	}
	a->count = 0;
	(void)pthread_mutex_unlock(&a->mu);
	a->head_done = false;
	a->next = next;
	a->size = MW_MIN((size_t)PIECE_LEAST, a->most);
}

void
mw_ahead_segment(struct mw_ahead *a, struct mw_seg *s, uint64_t end)
{
	forget(a, s->h.length);
	a->seg = s;
	a->end = end;
	/* Not WILLNEED for what comes: the kernel then reads page by page, at half the
	 * rate of its own reading ahead and for four times the processor time. */
	(void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

const struct mw_facts *
mw_ahead_at(struct mw_ahead *a, uint64_t off, const struct mw_look **ret_look)
{
	for (;;) {
		if (a->count == 0) {
			forget(a, off);
			fill(a);
			if (a->count == 0)
				return NULL;
		}
		struct piece *p = head(a);
		if (p->at == p->n) {
			release(a);
			fill(a);
		} else if (p->v[p->at].off != off) {
			forget(a, off);
		} else {
			const struct mw_facts *x = &p->v[p->at++];
			*ret_look = &p->look;
			return x->valid < 0 ? NULL : x;
		}
	}
}

/* ---- other jobs ---- */

void
mw_ahead_do(struct mw_ahead *a, struct mw_job *j)
{
	if (!a || a->n_thread == 0) {
		j->run(j->arg);
		j->state = DONE;
		return;
	}
	(void)pthread_mutex_lock(&a->mu);
	j->state = READY;
	a->job = j; /* the one before it was waited for */
	(void)pthread_cond_signal(&a->work);
	(void)pthread_mutex_unlock(&a->mu);
}

void
mw_ahead_wait(struct mw_ahead *a, struct mw_job *j)
{
	if (!a || a->n_thread == 0)
		return;
	(void)pthread_mutex_lock(&a->mu);
	while (j->state != DONE)
		if (!work_job(a) && !work_piece(&a->worker[0]))
			(void)pthread_cond_wait(&a->done, &a->mu);
	(void)pthread_mutex_unlock(&a->mu);
}

/* ---- beginning and end ---- */

static bool
worker_new(struct mw_ahead *a, struct worker *k)
{
	k->a = a;
	k->w = mw_window_new(a->fs, OWN_WINDOW);
	k->arena = mw_arena_new(0);
	return k->w && k->arena &&
	       mw_store_again(a->like.st, mw_window_fs(k->w), &k->st, NULL) == 0;
}

static void
worker_free(struct worker *k)
{
	mw_seg_free(k->seg);
	mw_store_close(k->st);
	mw_arena_free(k->arena);
	mw_window_free(k->w);
}

static bool
pieces_new(struct mw_ahead *a)
{
	a->piece = calloc(a->n_piece, sizeof *a->piece);
	for (size_t i = 0; a->piece && i < a->n_piece; i++) {
		struct piece *p = &a->piece[i];
		p->buf = malloc(a->most);
		p->v = calloc(FRAMES, sizeof *p->v);
		p->look.token = &p->token;
		p->look.text = &p->text;
		if (!p->buf || !p->v)
			return false;
	}
	return a->piece != NULL;
}

/* Signals are the caller's; those of a fault stay where they are made. */
static void
threads_start(struct mw_ahead *a)
{
	sigset_t most, old;
	(void)sigfillset(&most);
	(void)sigdelset(&most, SIGSEGV);
	(void)sigdelset(&most, SIGBUS);
	(void)pthread_sigmask(SIG_SETMASK, &most, &old);
	for (unsigned i = 1; i < a->n_worker; i++) {
		if (pthread_create(&a->worker[i].thread, NULL, run, &a->worker[i]) != 0)
			break;
		a->n_thread++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void
mw_ahead_start(const struct mw_look *like, const struct mw_fs *fs, int threads,
               uint64_t bytes, struct mw_ahead **ret)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	*ret = NULL;
	if (threads == 0 && bytes < PIECE_LEAST)
		return;
	struct mw_ahead *a = calloc(1, sizeof *a);
	if (!a)
		return;
	if (threads <= 0)
		threads = bytes < WORTH_IT || cpus < 1 ? 1 : (int)MW_MIN(cpus, 1 << 10);
	threads = MW_MIN(threads, (int)THREADS_MOST);
	a->like = *like;
	a->fs = fs;
	a->n_piece = threads == 1 ? 1 : 2 * (size_t)threads + 2;
	a->most = (size_t)MW_MAX(MW_MIN(bytes, (uint64_t)PIECE_MOST), (uint64_t)4096);
	int r = pthread_mutex_init(&a->mu, NULL) + pthread_cond_init(&a->work, NULL) +
	        pthread_cond_init(&a->done, NULL);
	mw_assert(r == 0);
	bool ok = pieces_new(a);
	while (ok && a->n_worker < (unsigned)threads &&
	       worker_new(a, &a->worker[a->n_worker]))
		a->n_worker++;
	if (!ok || a->n_worker == 0) {
		mw_ahead_stop(a);
		return;
	}
	threads_start(a);
	*ret = a;
}

void
mw_ahead_stop(struct mw_ahead *a)
{
	if (!a)
		return;
	(void)pthread_mutex_lock(&a->mu);
	a->stop = true;
	(void)pthread_cond_broadcast(&a->work);
	(void)pthread_mutex_unlock(&a->mu);
	for (unsigned i = 1; i <= a->n_thread; i++)
		(void)pthread_join(a->worker[i].thread, NULL);
	for (unsigned i = 0; i < THREADS_MOST; i++)
		worker_free(&a->worker[i]);
	for (size_t i = 0; a->piece && i < a->n_piece; i++) {
		free(a->piece[i].buf);
		free(a->piece[i].v);
		mw_buf_free(&a->piece[i].token);
		mw_buf_free(&a->piece[i].text);
	}
	free(a->piece);
	(void)pthread_mutex_destroy(&a->mu);
	(void)pthread_cond_destroy(&a->work);
	(void)pthread_cond_destroy(&a->done);
	free(a);
}
