#include "replay/target_imap.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A commit costs the server about the same whatever it holds, more in a large mailbox:
 * batches end when both of the first two are reached, or one of the others. */
enum {
	BATCH_MESSAGES = 500,
	BATCH_BYTES = 16 * 1024 * 1024,
	BATCH_MESSAGES_MAX = 4000,
	BATCH_BYTES_MAX = 64 * 1024 * 1024,
	/* Smaller ones are not worth a second connection. */
	TWO_MESSAGES = 200,
	TWO_BYTES = 4 * 1024 * 1024
};

/* The first connection moves as well: this part of a batch is its share. */
#define FIRST_SHARE 0.35

struct put { /* one call of mw_imap_box_put */
	struct mw_target *t;
	struct mw_imap_box *b;
	const struct mw_put_io *io;
	const char *dest;             /* quoted */
	const char *dest_name;        /* for the ledger */
	char full[400];               /* the server said over quota: no more is tried */
	const struct mw_put **moving; /* MOVEs are under way for these */
	size_t n_moving;
	unsigned n_moves; /* commands */
	bool one;         /* no second connection for now */
	bool sieve;       /* by the user's script, what it leaves to INBOX */
};

struct piece { /* a message as it is sent */
	const struct mw_put *put;
	char *prefix; /* in front of the content, or NULL */
};

struct moved { /* what COPYUID said */
	uint32_t uidvalidity;
	struct mw_buf set, from;
	uint64_t n;
};

static int
content(void *arg, const struct mw_imap_msg *m, int (*sink)(void *, const void *, size_t),
        void *sarg, struct mw_err *err)
{
	const struct put *p = arg;
	const struct piece *piece = m->ref;
	int r = piece->prefix ? sink(sarg, piece->prefix, strlen(piece->prefix)) : 0;
	return r ? r : p->io->content(p->io->arg, piece->put, sink, sarg, err);
}

static int
refuse(const struct put *p, const struct mw_put *m, const char *why)
{
	return p->io->done(p->io->arg, m, MW_EREFUSED, why, NULL);
}

static void
note_copyuid(struct moved *m, struct mw_str args)
{
	struct mw_str validity, from, to, rest;
	if (!mw_str_cut(args, ' ', &validity, &rest) ||
	    !mw_str_cut(rest, ' ', &from, &to))
		return;
	m->uidvalidity = mw_imap_set_at(validity, 0);
	if (m->set.n) {
		mw_buf_putc(&m->set, ',');
		mw_buf_putc(&m->from, ',');
	}
	mw_buf_putstr(&m->set, to);
	mw_buf_putstr(&m->from, from);
	m->n += mw_imap_set_count(to);
}

static int
on_move(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_status st;
	if (mw_imap_parse_status(mw_str(cur.p + 2, cur.n - 2), &st) &&
	    mw_str_ieq(st.code, MW_STR("COPYUID")))
		note_copyuid(arg, st.args);
	return 0;
}

/* Everything but the marker from staging to the destination: the command. */
static int
move_send(struct put *p, const char *uids, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	const char *verb = c->caps & MW_CAP_MOVE ? "MOVE" : "COPY";
	int r = 0;
	/* By position where there is no UIDPLUS, the marker being the first. And Courier
	 * shows what was appended to the selected folder only to who asks; the great ones
	 * that know MOVE need no asking. */
	if (!uids || !(c->caps & MW_CAP_MOVE))
		r = mw_imap_do(c, err, "NOOP");
	if (!r)
		r = uids ? mw_imap_cmd(c, err, "UID %s %s %s", verb, uids, p->dest)
		         : mw_imap_cmd(c, err, "%s 2:* %s", verb, p->dest);
	return r ? r : mw_net_flush(c->net, err);
}

static int
move_wait(struct put *p, struct moved *m, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	int r = mw_imap_wait(c, on_move, m, err);
	if (!r && mw_str_ieq(mw_strz(c->last.code), MW_STR("COPYUID")))
		note_copyuid(m, mw_buf_str(&c->last.args));
	if (!r && c->cut) /* what it left is put anew after another look */
		return mw_fail(err, MW_EPROTO, "the server moved only some messages");
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "move mail to its folder");
	if (!r && !(c->caps & MW_CAP_MOVE))
		r = mw_imap_staging_purge(p->b, err);
	return r;
}

/* Takes the answer to the MOVE under way, if any, and reports each message of it. */
static int
finish_move(struct put *p, struct mw_err *err)
{
	struct moved m = {0};
	size_t n = p->n_moving;
	int r = 0;
	p->n_moving = 0;
	if (!n)
		return 0;
	for (unsigned i = 0; i < p->n_moves && !r; i++)
		r = move_wait(p, &m, err);
	/* All must have been seen: what a second connection appended, and what somebody
	 * else may have taken out of the staging folder. */
	if (!r && m.n != n && (m.n || p->b->c->caps & MW_CAP_UIDPLUS))
		r = mw_fail(err, MW_EPROTO, "the server moved %llu of %zu messages",
		            (unsigned long long)m.n, n);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_put_place place = {p->dest_name, m.uidvalidity,
		                             mw_imap_set_at(mw_buf_str(&m.set), i),
		                             p->moving[i]->time_us};
		r = p->io->done(p->io->arg, p->moving[i], 0, NULL, &place);
	}
	mw_buf_free(&m.set);
	mw_buf_free(&m.from);
	return r;
}

/* The user's script files what lies in staging; the rest goes to INBOX. */
static int
settle_sieve(struct put *p, const struct mw_put *const *v, size_t n, const char *uids,
             struct mw_err *err)
{
	struct moved m = {0};
	size_t k = 0;
	if (!uids)
		return mw_fail(err, MW_EPROTO, "the server told no APPENDUID");
	int r = mw_imap_sieve_file(p->t, p->b, uids, err);
	if (!r)
		r = move_send(p, uids, err);
	if (!r)
		r = move_wait(p, &m, err);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_put_place place = {p->dest_name, m.uidvalidity, 0,
		                             v[i]->time_us};
		uint32_t uid = mw_imap_set_at(mw_strz(uids), i);
		if (k < m.n && mw_imap_set_at(mw_buf_str(&m.from), k) == uid)
			place.uid = mw_imap_set_at(mw_buf_str(&m.set), k++);
		r = place.uid ? p->io->done(p->io->arg, v[i], 0, NULL, &place)
		              : p->io->done(p->io->arg, v[i], MW_PUT_FILED, NULL, NULL);
	}
	mw_buf_free(&m.set);
	mw_buf_free(&m.from);
	return r;
}

/* Starts the MOVE of a batch that was appended. Where the next batch can be sent without
 * a pause, its answer is taken when that is done; else at once. */
static int
settle_batch(struct put *p, const struct mw_put *const *v, size_t n, const char *uids,
             struct mw_err *err)
{
	unsigned overlap = MW_CAP_MOVE | MW_CAP_LITERAL_PLUS | MW_CAP_MULTIAPPEND;
	if (!n || p->sieve)
		return n ? settle_sieve(p, v, n, uids, err) : 0;
	const struct mw_put **copy = reallocarray(p->moving, n, sizeof(void *));
	if (!copy)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	p->moving = copy;
	memcpy(copy, v, n * sizeof(void *));
	int r = move_send(p, uids, err);
	if (r)
		return r;
	p->n_moving = n;
	p->n_moves = 1;
	return uids && (p->b->c->caps & overlap) == overlap ? 0 : finish_move(p, err);
}

static void
quota_note(struct put *p)
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

static int append_batch(struct put *p, const struct mw_put *const *v, size_t n,
                        struct mw_err *err);

/* NO for a batch: nothing of it may stay; halves find the message that is to blame. */
static int
refused_batch(struct put *p, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	char why[400];
	refusal(c, why, sizeof why);
	if (c->last.no == MW_NO_TRYCREATE || c->last.no == MW_NO_NONEXISTENT)
		return mw_fail(err, MW_EPROTO,
		               "the folder " MW_STAGING_NAME " went away");
	if (n == 1 && c->last.no == MW_NO_OVERQUOTA)
		quota_note(p);
	int r = mw_imap_staging_purge(p->b, err);
	if (r)
		return r;
	if (n == 1)
		return refuse(p, v[0], why);
	r = append_batch(p, v, n / 2, err);
	return r ? r : append_batch(p, v + n / 2, n - n / 2, err);
}

/* Messages and what stands in front of each. */
struct load {
	struct mw_imap_msg *m;
	struct piece *piece;
	size_t n;
};

static void
load_done(struct load *l)
{
	for (size_t i = 0; l->piece && i < l->n; i++)
		free(l->piece[i].prefix);
	free(l->piece);
	free(l->m);
}

static int
load_make(struct put *p, const struct mw_put *const *v, size_t n, struct load *l,
          struct mw_err *err)
{
	*l = (struct load){calloc(n, sizeof *l->m), calloc(n, sizeof *l->piece), n};
	int r = l->m && l->piece ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		struct piece *q = &l->piece[i];
		q->put = v[i];
		if (p->sieve)
			r = mw_imap_sieve_prefix(p->io, v[i], &q->prefix, err);
		uint64_t size = v[i]->size + (q->prefix ? strlen(q->prefix) : 0);
		l->m[i] = (struct mw_imap_msg){v[i]->time_us, size, "", q};
	}
	if (r)
		load_done(l);
	return r;
}

static int
append_multi(struct put *p, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	struct mw_imap_appended a;
	MW_AUTOFREE char *uids = NULL;
	struct load l;
	int r = load_make(p, v, n, &l, err);
	if (r)
		return r;
	struct mw_imap_batch batch = {p->b->staging, l.m, n, content, p};
	int sent = mw_imap_append_send(c, &batch, err);
	load_done(&l);
	r = sent < 0 ? sent : finish_move(p, err);
	if (!r)
		r = mw_imap_append_wait(c, sent, &a, err);
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
	return settle_batch(p, v, n, uids, err);
}

/* No MULTIAPPEND: one command each, then one MOVE for those that were taken. */
static int
append_singly(struct put *p, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	MW_AUTOFREE const struct mw_put **ok = calloc(n, sizeof(void *));
	MW_BUF_AUTO uids = {0};
	size_t n_ok = 0;
	bool all_uids = true;
	int r = ok ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
		struct piece piece = {v[i], NULL};
		struct mw_imap_msg m = {v[i]->time_us, v[i]->size, "", &piece};
		struct mw_imap_batch batch = {p->b->staging, &m, 1, content, p};
		struct mw_imap_appended a;
		char why[400];
		if (p->full[0]) {
			r = refuse(p, v[i], p->full);
			continue;
		}
		r = mw_imap_append(c, &batch, &a, err);
		if (r)
			return r;
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
	         : settle_batch(p, ok, n_ok, all_uids ? mw_buf_cstr(&uids) : NULL, err);
}

/* ---- two connections ---- */

bool
mw_imap_two(const struct mw_imap *c, uint64_t messages, uint64_t bytes)
{
	const unsigned needed =
	    MW_CAP_MOVE | MW_CAP_LITERAL_PLUS | MW_CAP_MULTIAPPEND | MW_CAP_UIDPLUS;
	return messages > 1 && (c->caps & needed) == needed &&
	       (messages >= TWO_MESSAGES || bytes >= TWO_BYTES);
}

static bool
worth_two(struct put *p, const struct mw_put *const *v, size_t n)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < n; i++)
		bytes += v[i]->size;
	if (p->one || p->sieve || !mw_imap_two(p->b->c, n, bytes))
		return false;
	mw_imap_box_second(p->t);
	return p->b->second && mw_imap_two(p->b->second, n, bytes);
}

/* How many of the batch the first connection appends. */
static size_t
first_share(const struct mw_put *const *v, size_t n)
{
	uint64_t all = 0, sum = 0;
	size_t k = 0;
	for (size_t i = 0; i < n; i++)
		all += v[i]->size;
	while (k < n - 1 && (double)sum < FIRST_SHARE * (double)all)
		sum += v[k++]->size;
	return k;
}

/* The answer to one of the two: 0 and the UIDs (the caller's), 1 refused. */
static int
take_half(struct mw_imap *c, size_t n, char **ret_uids, struct mw_err *err)
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

/* Starts the two MOVEs, in the order of arrival; their answers are taken later. */
static int
settle_two(struct put *p, const struct mw_put *const *v, size_t n, char *const uids[2],
           struct mw_err *err)
{
	const struct mw_put **copy = reallocarray(p->moving, n, sizeof(void *));
	if (!copy)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	p->moving = copy;
	memcpy(copy, v, n * sizeof(void *));
	/* The first connection must see what the second appended. */
	int r = mw_imap_do(p->b->c, err, "NOOP");
	if (!r)
		r = move_send(p, uids[0], err);
	if (!r)
		r = move_send(p, uids[1], err);
	if (r)
		return r;
	p->n_moving = n;
	p->n_moves = 2;
	return 0;
}

static int
append_two(struct put *p, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct mw_imap *const c[2] = {p->b->c, p->b->second};
	size_t h = first_share(v, n);
	struct load l;
	int r = load_make(p, v, n, &l, err);
	if (r)
		return r;
	const struct mw_imap_batch half[2] = {{p->b->staging, l.m, h, content, p},
	                                      {p->b->staging, l.m + h, n - h, content,
	                                       p}};
	char *uids[2] = {NULL, NULL};
	bool refused = false;
	r = mw_imap_append_send_two(c, half, err);
	load_done(&l);
	if (!r)
		r = finish_move(p, err);
	for (int k = 0; k < 2 && r >= 0; k++) {
		r = take_half(c[k], half[k].n, &uids[k], err);
		refused = refused || r > 0;
	}
	if (r >= 0 && refused) { /* one connection finds out which is to blame */
		p->one = true;
		r = mw_imap_staging_purge(p->b, err);
		r = r ? r : append_batch(p, v, n, err);
		p->one = false;
	} else if (r >= 0) {
		r = settle_two(p, v, n, uids, err);
	}
	free(uids[0]);
	free(uids[1]);
	return r;
}

static int
append_batch(struct put *p, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	int r = 0;
	if (p->full[0]) {
		for (size_t i = 0; i < n && !r; i++)
			r = refuse(p, v[i], p->full);
		return r;
	}
	if (worth_two(p, v, n))
		return append_two(p, v, n, err);
	if (p->b->c->caps & MW_CAP_MULTIAPPEND)
		return append_multi(p, v, n, err);
	return append_singly(p, v, n, err);
}

/* What no server takes, or this one says it does not, is told without being sent. */
static int
unfit(struct put *p, const struct mw_put *m)
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
batch_full(const struct put *p, size_t n, uint64_t bytes)
{
	return n == p->b->c->message_limit ||
	       (n >= BATCH_MESSAGES && bytes >= BATCH_BYTES) || n >= BATCH_MESSAGES_MAX ||
	       bytes >= BATCH_BYTES_MAX;
}

static int
flush_batch(struct put *p, const struct mw_put **v, size_t n, struct mw_err *err)
{
	if (!n)
		return 0;
	if (p->t->o.stopped && p->t->o.stopped()) {
		int q = finish_move(p, err);
		return q ? q : mw_fail(err, MW_ECANCEL, "interrupted");
	}
	int r = p->io->intent ? p->io->intent(p->io->arg, v, n, err) : 0;
	return r ? r : append_batch(p, v, n, err);
}

static int
put_to(struct put *p, const struct mw_put *v, size_t n, const char *const *to,
       struct mw_err *err)
{
	MW_AUTOFREE const struct mw_put **batch = calloc(n ? n : 1, sizeof(void *));
	size_t k = 0;
	uint64_t bytes = 0;
	int r = batch ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++) {
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
	return r ? r : finish_move(p, err);
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
put_all(struct put *p, const struct mw_put *v, size_t n, const char **to,
        struct mw_err *err)
{
	bool sieve = p->t->o.filing == MW_FILE_SIEVE;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		if (!to[i])
			continue;
		p->dest = p->dest_name = to[i];
		p->sieve = sieve && to[i] == mw_imap_inbox;
		if (p->sieve)
			r = mw_imap_sieve_prove(p->t, p->b, err);
		else if (to[i] != mw_imap_inbox)
			r = mw_imap_need_folder(p->b, to[i], err);
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
	struct put p = {.t = t, .b = b, .io = io};
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
	free(p.moving);
	return r;
}
