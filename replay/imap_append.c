#include "replay/imap.h"

#include "journal/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tap { /* between the journal and the wire: counts, keeps the wire's own error */
	struct mw_imap *c;
	uint64_t left;
	struct mw_err *err;
};

static int
to_wire(void *arg, const void *p, size_t n)
{
	struct tap *t = arg;
	if (n > t->left)
		return mw_fail(t->err, MW_EDAMAGED,
		               "content longer than its record says");
	t->left -= n;
	return mw_net_send(t->c->net, p, n, t->err);
}

/* "[flags ]"date" {n+}": 1 the content may follow, 0 the server refused. */
static int
announce(struct mw_imap *c, const struct mw_imap_msg *m, struct mw_err *err)
{
	char date[32], head[128];
	bool plus = (c->caps & MW_CAP_LITERAL_PLUS) ||
	            ((c->caps & MW_CAP_LITERAL_MINUS) && m->size <= 4096);
	mw_time_imap(date, sizeof date, m->date_us);
	int n = snprintf(head, sizeof head, " %s\"%s\" {%llu%s}\r\n", m->flags, date,
	                 (unsigned long long)m->size, plus ? "+" : "");
	int r = mw_net_send(c->net, head, (size_t)n, err);
	if (r)
		return r;
	return plus ? 1 : mw_imap_continue(c, err);
}

static int
send_message(struct mw_imap *c, const struct mw_imap_batch *b, size_t i,
             struct mw_err *err)
{
	int r = announce(c, &b->v[i], err);
	if (r <= 0)
		return r;
	struct tap t = {c, b->v[i].size, err};
	r = b->content(b->arg, &b->v[i], to_wire, &t, err);
	if (!r && t.left)
		r = mw_fail(err, MW_EDAMAGED, "content shorter than its record says");
	return r ? r : 1;
}

static int
send_head(struct mw_imap *c, const struct mw_imap_batch *b, struct mw_err *err)
{
	char head[1200];
	int len = snprintf(head, sizeof head, "m%u APPEND %s", c->sent + 1, b->folder);
	if (len < 0 || (size_t)len >= sizeof head)
		return mw_fail(err, MW_ELIMIT, "folder name too long");
	c->sent++;
	return mw_net_send(c->net, head, (size_t)len, err);
}

int
mw_imap_append_send(struct mw_imap *c, const struct mw_imap_batch *b, struct mw_err *err)
{
	int r = send_head(c, b, err);
	if (r)
		return r;
	for (size_t i = 0; i < b->n; i++) {
		r = send_message(c, b, i, err);
		if (r <= 0)
			return r;
	}
	r = mw_net_send(c->net, "\r\n", 2, err);
	return r ? r : 1;
}

int
mw_imap_append_send_two(struct mw_imap *const c[2], const struct mw_imap_batch b[2],
                        struct mw_err *err)
{
	size_t next[2] = {0, 0};
	int r = 0;
	for (int k = 0; k < 2 && !r; k++)
		if (b[k].n)
			r = send_head(c[k], &b[k], err);
	while (!r && (next[0] < b[0].n || next[1] < b[1].n)) {
		/* To the one that takes it, else to the one that lags behind. */
		int k = next[0] * b[1].n > next[1] * b[0].n;
		if (next[!k] < b[!k].n && (next[k] == b[k].n || !mw_net_ready(c[k]->net)))
			k = !k;
		r = send_message(c[k], &b[k], next[k]++, err);
		if (r >= 0)
			r = r ? 0 : mw_fail(err, MW_EPROTO, "no LITERAL+ after all");
	}
	/* The second first: it may be idle, while the other has commands to do. */
	for (int k = 1; k >= 0 && !r; k--) {
		if (!b[k].n)
			continue;
		r = mw_net_send(c[k]->net, "\r\n", 2, err);
		if (!r)
			r = mw_net_flush(c[k]->net, err);
	}
	return r;
}

int
mw_imap_append_wait(struct mw_imap *c, int sent, struct mw_imap_appended *ret,
                    struct mw_err *err)
{
	struct mw_imap_appended a = {0};
	int r = sent ? mw_imap_wait(c, NULL, NULL, err) : MW_EREFUSED;
	if (r == MW_EREFUSED)
		a.code = r;
	else if (r)
		return r;
	if (!a.code && mw_str_ieq(mw_strz(c->last.code), MW_STR("APPENDUID"))) {
		struct mw_str validity, set;
		if (mw_str_cut(mw_buf_str(&c->last.args), ' ', &validity, &set)) {
			a.uidvalidity = mw_imap_set_at(validity, 0);
			a.uid = mw_imap_set_at(set, 0);
		}
	}
	*ret = a;
	return 0;
}

int
mw_imap_append(struct mw_imap *c, const struct mw_imap_batch *b,
               struct mw_imap_appended *ret, struct mw_err *err)
{
	int sent = mw_imap_append_send(c, b, err);
	return sent < 0 ? sent : mw_imap_append_wait(c, sent, ret, err);
}
