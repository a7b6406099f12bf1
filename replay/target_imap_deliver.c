/* target_imap_deliver.c - new mail straight into INBOX, Sent or the folder that imported
 * mail was in, one command for several messages where the server can: for a standby that
 * is kept current. */
#include "replay/target_imap.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct deliver {
	struct mw_imap_box *b;
	const struct mw_put_io *io;
	const char *dest; /* quoted */
};

static int
content(void *arg, const struct mw_imap_msg *m, int (*sink)(void *, const void *, size_t),
        void *sarg, struct mw_err *err)
{
	const struct deliver *d = arg;
	return d->io->content(d->io->arg, m->ref, sink, sarg, err);
}

static void
fill_msg(struct mw_imap_msg *m, const struct mw_put *put)
{
	union { /* the message's ref is ours and read only */
		const struct mw_put *in;
		void *out;
	} u = {.in = put};
	*m = (struct mw_imap_msg){put->time_us, put->size, "", u.out};
}

static int
done(const struct deliver *d, const struct mw_put *p, uint32_t uidvalidity, uint32_t uid)
{
	struct mw_put_place place = {d->dest, uidvalidity, uid, p->time_us};
	return d->io->done(d->io->arg, p, 0, NULL, &place);
}

static int
refuse(const struct deliver *d, const struct mw_put *p, const char *why)
{
	return d->io->done(d->io->arg, p, MW_EREFUSED, why, NULL);
}

struct newest { /* of the folder: may one of the batch be among them? */
	const struct mw_put *const *v;
	size_t n;
	struct mw_imap_counts before; /* it was sent; all 0: not known */
	uint64_t uidvalidity;
	bool maybe;
};

static int
on_newest(void *arg, struct mw_imap_cur cur)
{
	struct newest *w = arg;
	struct mw_str rest = mw_str(cur.p + 2, cur.n - 2);
	struct mw_imap_status st;
	struct mw_imap_fetch f;
	if (mw_imap_parse_fetch(cur, &f)) {
		for (size_t i = 0; f.uid >= w->before.uidnext && i < w->n; i++)
			w->maybe =
			    w->maybe || f.date_us / 1000000 == w->v[i]->time_us / 1000000;
	} else if (mw_str_istarts(rest, MW_STR("OK [")) &&
	           mw_imap_parse_status(rest, &st) &&
	           mw_str_ieq(st.code, MW_STR("UIDVALIDITY"))) {
		w->uidvalidity = mw_imap_set_at(st.args, 0);
	}
	return 0;
}

static int
on_before(void *arg, struct mw_imap_cur cur)
{
	struct newest *w = arg;
	struct mw_imap_counts n;
	if (mw_imap_parse_counts(cur, &n))
		w->before = n;
	return 0;
}

/* So that it is known, should the server refuse them, what has come since. */
static int
look_before(struct deliver *d, struct newest *w, struct mw_err *err)
{
	struct mw_imap *c = d->b->c;
	int r = mw_imap_cmd(c, err, "STATUS %s (UIDNEXT UIDVALIDITY)", d->dest);
	if (!r)
		r = mw_imap_wait(c, on_before, w, err);
	return r == MW_EREFUSED ? 0 : r;
}

/* Not every server takes a MULTIAPPEND back that it refused (Stalwart keeps what came
 * before the message to blame). Where some of it may be there a look at the whole mailbox
 * has to tell. */
static int
none_kept(struct deliver *d, struct newest *w, struct mw_err *err)
{
	struct mw_imap *c = d->b->c;
	int r = mw_imap_cmd(c, err, "EXAMINE %s", d->dest);
	if (!r)
		r = mw_imap_wait(c, on_newest, w, err);
	bool known = w->before.uidnext && w->before.uidvalidity == w->uidvalidity;
	if (!r && known)
		r = mw_imap_cmd(c, err, "UID FETCH %llu:* (UID INTERNALDATE)",
		                (unsigned long long)w->before.uidnext);
	if (!r && known)
		r = mw_imap_wait(c, on_newest, w, err);
	if (r == MW_EREFUSED || (!r && (w->maybe || c->cut || !known)))
		return mw_fail(err, MW_EPROTO,
		               "the server refused %zu messages together and may have "
		               "kept some",
		               w->n);
	return r;
}

/* Refused together, and none of them is there: one by one tells whose fault it is. */
static int
append(struct deliver *d, const struct mw_put *const *v, size_t n, struct mw_err *err)
{
	struct mw_imap *c = d->b->c;
	struct mw_imap_appended a;
	MW_AUTOFREE struct mw_imap_msg *m = calloc(n, sizeof *m);
	if (!m)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		fill_msg(&m[i], v[i]);
	const struct mw_imap_batch batch = {d->dest, m, n, content, d};
	struct newest w = {.v = v, .n = n};
	int r = n > 1 ? look_before(d, &w, err) : 0;
	if (!r)
		r = mw_imap_append(c, &batch, &a, err);
	if (r < 0)
		return r;
	if (a.code && n == 1) {
		char why[400];
		(void)snprintf(why, sizeof why, "server said: %s%s%s%s",
		               c->last.code[0] ? "[" : "", c->last.code,
		               c->last.code[0] ? "] " : "", c->last.text);
		return refuse(d, v[0], why);
	}
	if (a.code)
		r = none_kept(d, &w, err);
	for (size_t i = 0; i < n && r == 0; i++)
		r = a.code ? append(d, v + i, 1, err)
		           : done(d, v[i], a.uidvalidity, n == 1 ? a.uid : 0);
	return r;
}

static int
to_folder(struct deliver *d, const struct mw_put *v, size_t n, const char *const *to,
          struct mw_err *err)
{
	enum {
		MOST = 200,
		MOST_BYTES = 8 << 20
	};
	const struct mw_put *batch[MOST];
	const struct mw_imap *c = d->b->c;
	size_t k = 0;
	uint64_t bytes = 0;
	int r = 0;
	for (size_t i = 0; i < n && r == 0; i++) {
		if (to[i] != d->dest)
			continue;
		if (!v[i].size || (c->append_limit && v[i].size > c->append_limit)) {
			r = refuse(d, &v[i],
			           v[i].size ? "larger than the server's limit"
			                     : "the message is empty, which IMAP cannot "
			                       "store");
			continue;
		}
		batch[k++] = &v[i];
		bytes += v[i].size;
		if (k == MOST || k == c->message_limit || bytes >= MOST_BYTES ||
		    !(c->caps & MW_CAP_MULTIAPPEND)) {
			r = append(d, batch, k, err);
			k = 0;
			bytes = 0;
		}
	}
	return r == 0 && k ? append(d, batch, k, err) : r;
}

static int
on_mark(void *arg, struct mw_imap_cur cur)
{
	struct mw_target_mark *mark = arg;
	struct mw_imap_counts n;
	if (mw_imap_parse_counts(cur, &n) && n.uidvalidity && n.uidnext)
		*mark = (struct mw_target_mark){n.uidvalidity, n.uidnext};
	return 0;
}

int
mw_imap_box_mark(struct mw_target *t, struct mw_target_mark *ret, struct mw_err *err)
{
	struct mw_imap *c = mw_imap_box(t)->c;
	struct mw_target_mark mark = {0, 0};
	int r = mw_imap_cmd(c, err, "STATUS INBOX (UIDNEXT UIDVALIDITY)");
	if (!r)
		r = mw_imap_wait(c, on_mark, &mark, err);
	if (r < 0 && r != MW_EREFUSED) /* it may have no INBOX */
		return r;
	*ret = mark;
	return mark.same != 0;
}

int
mw_imap_box_deliver(struct mw_target *t, const struct mw_put *v, size_t n,
                    const struct mw_put_io *io, struct mw_err *err)
{
	struct deliver d = {mw_imap_box(t), io, NULL};
	MW_AUTOFREE const char **to = calloc(n ? n : 1, sizeof *to);
	int r = to ? mw_imap_destinations(t, io, v, n, to, err)
	           : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && r == 0; i++) {
		size_t k = 0;
		while (k < i && to[k] != to[i])
			k++;
		if (k < i) /* went with that one */
			continue;
		d.dest = to[i];
		if (d.dest != mw_imap_inbox)
			r = mw_imap_need_folder(d.b, d.dest, err);
		if (r == 0)
			r = to_folder(&d, v, n, to, err);
	}
	return r;
}
