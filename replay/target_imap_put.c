#include "replay/target_imap_put.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A commit costs the server about the same whatever it holds, more in a large mailbox:
 * batches end when both of the first two are reached, or one of the others. Of little
 * mail they are smaller, so that there are some to be sent one behind the other. */
enum {
	BATCH_MESSAGES = 500,
	BATCH_BYTES = 16 * 1024 * 1024,
	BATCH_MESSAGES_MAX = 4000,
	BATCH_BYTES_MAX = 64 * 1024 * 1024,
	BATCHES = 8,
	BATCH_LEAST = 4, /* no smaller than this part of the first two */
	/* The server opens a folder anew for each message that a script files there, and
	 * reads all that was written to it since somebody looked into it. */
	BATCH_FILTER = 125
};

struct mw_imap_piece { /* a message as it is sent */
	const struct mw_put *put;
	char *prefix; /* in front of the content, or NULL */
};

int
mw_imap_load_content(void *arg, const struct mw_imap_msg *m,
                     int (*sink)(void *, const void *, size_t), void *sarg,
                     struct mw_err *err)
{
	const struct mw_imap_putting *p = arg;
	const struct mw_imap_piece *piece = m->ref;
	int r = piece->prefix ? sink(sarg, piece->prefix, strlen(piece->prefix)) : 0;
	return r ? r : p->io->content(p->io->arg, piece->put, sink, sarg, err);
}

void
mw_imap_load_done(struct mw_imap_load *l)
{
	for (size_t i = 0; l->piece && i < l->n; i++)
		free(l->piece[i].prefix);
	free(l->piece);
	free(l->m);
}

int
mw_imap_load_make(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                  struct mw_imap_load *l, struct mw_err *err)
{
	*l = (struct mw_imap_load){calloc(n, sizeof *l->m), calloc(n, sizeof *l->piece),
	                           n};
	int r = l->m && l->piece ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_imap_piece *q = &l->piece[i];
		q->put = v[i];
		if (p->sieve)
			r = mw_imap_sieve_prefix(p->io, v[i], &q->prefix, err);
		if (q->prefix && p->io->front)
			p->io->front(p->io->arg, v[i], strlen(q->prefix));
		uint64_t size = v[i]->size + (q->prefix ? strlen(q->prefix) : 0);
		l->m[i] = (struct mw_imap_msg){v[i]->time_us, size, "", q};
	}
	if (r)
		mw_imap_load_done(l);
	return r;
}

static int
refuse(const struct mw_imap_putting *p, const struct mw_put *m, const char *why)
{
	return p->io->done(p->io->arg, m, MW_EREFUSED, why, NULL);
}

static void
quota_note(struct mw_imap_putting *p)
{
	const struct mw_imap *c = p->b->c;
	(void)snprintf(p->full, sizeof p->full, "over quota: %s", c->last.text);
}

/* The text of a refusal of one message. */
static void
refusal(const struct mw_imap *c, char *out, size_t n)
{
	const char *lb = c->last.code[0] ? "[" : "", *rb = c->last.code[0] ? "] " : "";
	(void)snprintf(out, n, "server said: %s%s%s%s", lb, c->last.code, rb,
	               c->last.text);
}

/* Somebody took the staging folder away: no fault of a message. */
static bool
went_away(const struct mw_imap *c)
{
	return c->last.no == MW_NO_TRYCREATE || c->last.no == MW_NO_NONEXISTENT;
}

/* NO for a batch: nothing of it may stay; halves find the message that is to blame. */
static int
refused_batch(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
              struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	char why[400];
	refusal(c, why, sizeof why);
	if (went_away(c))
		return mw_fail(err, MW_EPROTO,
		               "the folder " MW_STAGING_NAME " went away");
	if (n == 1 && c->last.no == MW_NO_OVERQUOTA)
		quota_note(p);
	int r = mw_imap_staging_purge(p->b, err);
	if (r)
		return r;
	if (n == 1)
		return refuse(p, v[0], why);
	r = mw_imap_put_batch(p, v, n / 2, err);
	return r ? r : mw_imap_put_batch(p, v + n / 2, n - n / 2, err);
}

static int
append_multi(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
             struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	struct mw_imap_appended a;
	MW_AUTOFREE char *uids = NULL;
	struct mw_imap_load l;
	int r = mw_imap_load_make(p, v, n, &l, err);
	if (r)
		return r;
	struct mw_imap_batch batch = {p->b->staging, l.m, n, mw_imap_load_content, p};
	int sent = mw_imap_append_send(c, &batch, err);
	mw_imap_load_done(&l);
	r = sent < 0 ? sent : mw_imap_append_wait(c, sent, &a, err);
	if (r)
		return r;
	if (a.code)
		return refused_batch(p, v, n, err);
	if (a.uid) {
		struct mw_str validity, set;
		if (!mw_str_cut(mw_buf_str(&c->last.args), ' ', &validity, &set) ||
		    mw_imap_set_count(set) != n)
			return mw_fail(err, MW_EPROTO,
			               "the server miscounts its APPENDUID");
		uids = strndup(set.p, set.n);
		if (!uids)
			return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return mw_imap_move_now(p, v, n, uids, err);
}

/* No MULTIAPPEND: one command each, then one MOVE for those that were taken. */
static int
append_singly(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
              struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	MW_AUTOFREE const struct mw_put **ok = calloc(n, sizeof(void *));
	MW_BUF_AUTO uids = {0};
	size_t n_ok = 0;
	bool all_uids = true;
	int r = ok ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_imap_piece piece = {v[i], NULL};
		struct mw_imap_msg m = {v[i]->time_us, v[i]->size, "", &piece};
		struct mw_imap_batch batch = {p->b->staging, &m, 1, mw_imap_load_content,
		                              p};
		struct mw_imap_appended a;
		char why[400];
		if (p->full[0]) {
			r = refuse(p, v[i], p->full);
			continue;
		}
		r = mw_imap_append(c, &batch, &a, err);
		if (r)
			return r;
		if (a.code && went_away(c))
			return mw_fail(err, MW_EPROTO,
			               "the folder " MW_STAGING_NAME " went away");
		if (a.code) {
			refusal(c, why, sizeof why);
			if (c->last.no == MW_NO_OVERQUOTA)
				quota_note(p);
			r = refuse(p, v[i], why);
			continue;
		}
		mw_buf_printf(&uids, n_ok ? ",%u" : "%u", (unsigned)a.uid);
		all_uids = all_uids && a.uid;
		ok[n_ok++] = v[i];
	}
	return r ? r
	         : mw_imap_move_now(p, ok, n_ok, all_uids ? mw_buf_cstr(&uids) : NULL,
	                            err);
}

int
mw_imap_put_batch(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                  struct mw_err *err)
{
	int r = 0;
	if (p->full[0]) {
		for (size_t i = 0; i < n && !r; i++)
			r = refuse(p, v[i], p->full);
		return r;
	}
	if (p->b->c->caps & MW_CAP_MULTIAPPEND)
		return append_multi(p, v, n, err);
	return append_singly(p, v, n, err);
}

/* What no server takes, or this one says it does not, is told without being sent. */
static int
unfit(struct mw_imap_putting *p, const struct mw_put *m)
{
	char why[120];
	uint64_t limit = p->b->c->append_limit;
	if (!m->size) {
		(void)refuse(p, m, "the message is empty, which IMAP cannot store");
		return 1;
	}
	if (!limit || m->size <= limit)
		return 0;
	(void)snprintf(why, sizeof why, "larger than the server's limit of %llu bytes",
	               (unsigned long long)limit);
	(void)refuse(p, m, why);
	return 1;
}

static bool
batch_full(const struct mw_imap_putting *p, size_t n, uint64_t bytes)
{
	return n == p->b->c->message_limit ||
	       (n >= p->batch_messages && bytes >= p->batch_bytes) ||
	       n >= BATCH_MESSAGES_MAX || bytes >= BATCH_BYTES_MAX;
}

static uint64_t
between(uint64_t v, uint64_t most)
{
	return v > most ? most : MW_MAX(v, most / BATCH_LEAST);
}

static void
size_batches(struct mw_imap_putting *p, const struct mw_put *v, size_t n)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < n; i++)
		bytes += v[i].size;
	bool rounds = mw_imap_rounds(p);
	if (p->sieve) {
		p->batch_messages =
		    rounds ? between(n / BATCHES, BATCH_FILTER) : BATCH_FILTER;
		p->batch_bytes = 0;
		return;
	}
	p->batch_messages =
	    rounds ? between(n / BATCHES, BATCH_MESSAGES) : BATCH_MESSAGES;
	p->batch_bytes = rounds ? between(bytes / BATCHES, BATCH_BYTES) : BATCH_BYTES;
}

static int
flush_batch(struct mw_imap_putting *p, const struct mw_put **v, size_t n,
            struct mw_err *err)
{
	if (!n)
		return 0;
	if (p->t->o.stopped && p->t->o.stopped()) {
		int q = mw_imap_round_end(p, err);
		return q ? q : mw_fail(err, MW_ECANCEL, "interrupted");
	}
	int r = p->io->intent ? p->io->intent(p->io->arg, v, n, err) : 0;
	bool rounds = !p->full[0] && mw_imap_rounds(p);
	if (!r && !rounds)
		r = mw_imap_staging_settle(p->b, err);
	if (r || !rounds)
		return r ? r : mw_imap_put_batch(p, v, n, err);
	return mw_imap_round_put(p, v, n, err);
}

static int
put_to(struct mw_imap_putting *p, const struct mw_put *v, size_t n, const char *const *to,
       struct mw_err *err)
{
	bool last = true;
	MW_AUTOFREE const struct mw_put **batch = calloc(n ? n : 1, sizeof(void *));
	size_t k = 0;
	size_batches(p, v, n);
	uint64_t bytes = 0;
	int r = batch ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		last = last && (!to[i] || to[i] == p->dest);
		if (to[i] != p->dest || unfit(p, &v[i]))
			continue;
		batch[k++] = &v[i];
		bytes += v[i].size;
		if (!batch_full(p, k, bytes))
			continue;
		r = flush_batch(p, batch, k, err);
		k = 0;
		bytes = 0;
	}
	if (!r)
		r = flush_batch(p, batch, k, err);
	/* What is asked behind a script takes its answers first. */
	p->last = last && p->t->o.filing != MW_FILE_SIEVE;
	return r ? r : mw_imap_round_end(p, err);
}

int
mw_imap_need_folder(struct mw_imap_box *b, const char *folder, struct mw_err *err)
{
	char what[300];
	for (size_t i = 0; i < b->n_folder; i++)
		if (strcmp(b->folder[i].quoted, folder) == 0)
			return 0;
	int r = mw_imap_do(b->c, err, "CREATE %s", folder);
	(void)snprintf(what, sizeof what, "create the folder %.200s", folder);
	if (r == MW_EREFUSED && b->c->last.no != MW_NO_ALREADYEXISTS)
		return mw_imap_refused(b->c, err, what);
	if (!r || r == MW_EREFUSED)
		r = mw_imap_do(b->c, err, "SUBSCRIBE %s", folder);
	return r == MW_EREFUSED ? 0 : r; /* shown or not, the mail is there */
}

static int
put_all(struct mw_imap_putting *p, const struct mw_put *v, size_t n, const char **to,
        struct mw_err *err)
{
	bool sieve = p->t->o.filing == MW_FILE_SIEVE;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		if (!to[i])
			continue;
		p->dest = p->dest_name = to[i];
		p->sieve = sieve && to[i] == mw_imap_inbox;
		if (p->sieve) {
			r = mw_imap_sieve_prove(p->t, p->b, err);
		} else if (to[i] != mw_imap_inbox) {
			r = mw_imap_staging_settle(p->b, err);
			if (!r)
				r = mw_imap_need_folder(p->b, to[i], err);
		}
		if (!r)
			r = put_to(p, v, n, to, err);
		if (!r && p->sieve)
			r = mw_imap_sieve_subscribe(p->b, err);
		for (size_t k = i; k < n; k++)
			if (to[k] == p->dest)
				to[k] = NULL;
	}
	return r;
}

int
mw_imap_box_put(struct mw_target *t, const struct mw_put *v, size_t n,
                const struct mw_put_io *io, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	struct mw_imap_putting p = {.t = t, .b = b, .io = io};
	MW_AUTOFREE const char **to = calloc(n ? n : 1, sizeof *to);
	int r = to ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	if (!r && !b->selected)
		r = mw_imap_do(b->c, err, "SELECT %s", b->staging);
	if (r == MW_EREFUSED)
		return mw_imap_refused(b->c, err, "open the folder " MW_STAGING_NAME);
	b->selected = !r;
	if (!r)
		r = mw_imap_destinations(t, io, v, n, to, err);
	if (!r)
		r = put_all(&p, v, n, to, err);
	mw_imap_rounds_done(&p);
	/* Folders that scripts made are looked into as well. */
	if (!r && t->o.filing == MW_FILE_SIEVE)
		r = mw_imap_box_relist(t, b, err);
	return r < 0 ? r : 0;
}
