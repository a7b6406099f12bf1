#include "replay/target_imap.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	AHEAD = 16,      /* folders whose commands are sent before the first answer */
	FETCH_UIDS = 200 /* messages of one body FETCH */
};

#define KEY(folder, uid) ((uint64_t)(folder) << 32 | (uid))

/* ---- scan ---- */

struct scan {
	const struct mw_target *t;
	struct mw_imap_box *b;
	size_t i; /* folder being answered */
	int (*cb)(void *, const struct mw_found *);
	void *arg;
	bool bad;
};

/* "* OK [UIDVALIDITY n] …", "* n EXISTS" of an EXAMINE. */
static int
on_examine(void *arg, struct mw_imap_cur cur)
{
	struct scan *s = arg;
	struct mw_imap_folder *f = &s->b->folder[s->i];
	struct mw_str rest = mw_str(cur.p + 2, cur.n - 2), n, word;
	struct mw_imap_status st;
	if (mw_str_istarts(rest, MW_STR("OK [")) && mw_imap_parse_status(rest, &st)) {
		uint32_t v = mw_imap_set_at(st.args, 0);
		if (mw_str_ieq(st.code, MW_STR("UIDVALIDITY")))
			f->uidvalidity = v;
		else if (mw_str_ieq(st.code, MW_STR("UIDNEXT")))
			f->uidnext = v;
	} else if (mw_str_cut(rest, ' ', &n, &word) &&
	           mw_str_ieq(word, MW_STR("EXISTS"))) {
		f->exists = mw_imap_set_at(n, 0);
	}
	return 0;
}

int
mw_imap_ask_place(struct mw_imap *c, struct mw_err *err)
{
	return c->dovecot ? mw_imap_cmd(c, err, "UID FETCH * (X-MAILBOX)") : 0;
}

/* The name as LIST writes it, or in UTF-8. */
static bool
is_named(const struct mw_imap_folder *f, struct mw_str name)
{
	MW_BUF_AUTO utf8 = {0};
	return mw_str_ieq(name, mw_strz(f->name)) ||
	       (mw_imap_from_utf7(mw_strz(f->name), &utf8) &&
	        mw_str_eq(name, mw_buf_str(&utf8)));
}

bool
mw_imap_is_place(struct mw_imap_box *b, struct mw_imap_folder *f,
                 const struct mw_imap_fetch *m)
{
	bool other = false;
	if (!m->mailbox.n || m->has_header)
		return false;
	for (size_t i = 0; i < b->n_folder && !other && !is_named(f, m->mailbox); i++)
		other = is_named(&b->folder[i], m->mailbox);
	if (other && !f->shows)
		mw_buf_put(&b->barred, f->quoted, strlen(f->quoted) + 1);
	f->shows = f->shows || other;
	return true;
}

static int
on_message(void *arg, struct mw_imap_cur cur)
{
	struct scan *s = arg;
	struct mw_imap_fetch f;
	if (!mw_imap_parse_fetch(cur, &f)) {
		struct mw_str n, rest = mw_str(cur.p + 2, cur.n - 2);
		if (!mw_str_cut(rest, ' ', &n, &rest))
			return 0;
		s->bad = s->bad || mw_str_istarts(rest, MW_STR("FETCH"));
		s->b->folder[s->i].expunged += mw_str_ieq(rest, MW_STR("EXPUNGE"));
		return 0;
	}
	if (mw_imap_is_place(s->b, &s->b->folder[s->i], &f) || !f.uid || !f.has_size ||
	    !f.has_header)
		return 0; /* a flag update that came in between */
	s->b->folder[s->i].heard++;
	s->b->folder[s->i].top = MW_MAX(s->b->folder[s->i].top, f.seq);
	if (s->b->folder[s->i].shows)
		return 0;
	if (mw_imap_is_placeholder(s->t, f.header)) {
		uint64_t key = KEY(s->i, f.uid);
		mw_buf_put(&s->b->stale, &key, sizeof key);
		return 0;
	}
	struct mw_found found = {KEY(s->i, f.uid), f.size, f.date_us,
	                         s->b->folder[s->i].sent, f.header};
	return s->cb(s->arg, &found);
}

static int
ask_messages(const struct mw_target *t, const char *set, struct mw_err *err)
{
	const struct mw_imap_box *b = t->own;
	return mw_imap_cmd(b->c, err,
	                   "UID FETCH %s (UID RFC822.SIZE INTERNALDATE "
	                   "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID%s)])",
	                   set, t->brief ? "" : " RECEIVED");
}

static int
ask_folder(const struct mw_target *t, size_t i, struct mw_err *err)
{
	const struct mw_imap_box *b = t->own;
	int r = mw_imap_cmd(b->c, err, "EXAMINE %s", b->folder[i].quoted);
	r = r ? r : mw_imap_ask_place(b->c, err);
	return r ? r : ask_messages(t, "1:*", err);
}

static int
unreadable(const struct scan *s, struct mw_err *err)
{
	return mw_fail(err, MW_EPROTO, "%s sends a FETCH response that cannot be read",
	               mw_net_peer(s->b->c->net));
}

/* What a server does not mention would be put back a second time. */
static int
all_heard(const struct scan *s, const struct mw_imap_folder *f, struct mw_err *err)
{
	if (f->shows || f->heard + f->expunged >= f->exists)
		return 0;
	return mw_fail(err, MW_EPROTO,
	               "%s tells of %llu messages in folder %.200s, which has %llu",
	               mw_net_peer(s->b->c->net), (unsigned long long)f->heard, f->name,
	               (unsigned long long)f->exists);
}

/* How many messages the older part has at least, now that the folder is open again: its
 * newest message has that number; and all but the newer ones that were heard, and what
 * has come since. Of both parts any may have been expunged in between. */
static uint64_t
of_rest(const struct mw_imap_folder *then, const struct mw_imap_folder *now)
{
	uint64_t newer = then->heard;
	if (!then->uidnext || now->uidnext < then->uidnext)
		return now->top;
	newer += now->uidnext - then->uidnext;
	return MW_MAX(now->top, now->exists > newer ? now->exists - newer : 0);
}

/* A server that dealt with the newest messages only is asked for the rest. What the
 * folder was at first still counts as the scan: what changed in between is seen by that.
 */
static int
hear_rest(struct scan *s, struct mw_err *err)
{
	struct mw_imap *c = s->b->c;
	struct mw_imap_folder *f = &s->b->folder[s->i];
	const struct mw_imap_folder then = *f;
	uint32_t above = UINT32_MAX;
	char set[40];
	f->heard = f->expunged = f->top = 0;
	int r = mw_imap_cmd(c, err, "EXAMINE %s", f->quoted);
	if (!r)
		r = mw_imap_wait(c, on_examine, s, err);
	c->cut = f->cut;
	while (!r && (r = mw_imap_go_on(c, &above, err)) > 0) {
		(void)snprintf(set, sizeof set, "1:%u", (unsigned)above - 1);
		r = ask_messages(s->t, set, err);
		if (!r)
			r = mw_imap_wait(c, on_message, s, err);
		if (!r && s->bad)
			r = unreadable(s, err);
	}
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "read a folder");
	bool anew = f->uidvalidity != then.uidvalidity;
	f->exists = of_rest(&then, f);
	if (!r && !anew)
		r = all_heard(s, f, err);
	f->exists = then.exists;
	f->uidnext = then.uidnext;
	f->uidvalidity = then.uidvalidity;
	return !r && anew
	           ? mw_fail(err, MW_EPROTO,
	                     "folder %.200s was replaced while it was looked at", f->name)
	           : r;
}

static int
hear_folder(struct scan *s, struct mw_err *err)
{
	struct mw_imap *c = s->b->c;
	struct mw_err second;
	char what[300];
	struct mw_imap_folder *f = &s->b->folder[s->i];
	f->uidvalidity = 0;
	f->uidnext = f->exists = f->expunged = f->heard = f->top = 0;
	f->cut = 0;
	int r = mw_imap_wait(c, on_examine, s, err);
	if (r == MW_EREFUSED) {
		bool gone = c->last.no == MW_NO_NONEXISTENT;
		(void)snprintf(what, sizeof what, "look into folder %.200s", f->name);
		r = mw_imap_refused(c, err, what);
		for (int i = c->dovecot ? 0 : 1; i < 2;
		     i++) { /* FETCH without a folder */
			int q = mw_imap_wait(c, NULL, NULL, &second);
			if (q && q != MW_EREFUSED)
				return mw_fail(err, q, "%s", second.msg);
		}
		return gone ? 0 : r;
	}
	if (r)
		return r;
	/* Dovecot may begin to answer the second FETCH before it ends the first. */
	if (c->dovecot)
		r = mw_imap_wait(c, on_message, s, err);
	if (r && r != MW_EREFUSED)
		return r;
	r = mw_imap_wait(c, on_message, s, err);
	if (r == MW_EREFUSED && !f->exists)
		r = 0; /* some servers refuse 1:* in an empty folder */
	if (r == MW_EREFUSED) {
		(void)snprintf(what, sizeof what, "read folder %.200s", f->name);
		return mw_imap_refused(c, err, what);
	}
	f->cut = c->cut;
	return !r && s->bad ? unreadable(s, err) : r;
}

int
mw_imap_box_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *),
                 void *arg, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	struct scan s = {t, b, 0, cb, arg, false};
	size_t asked = 0;
	int r = 0;
	b->selected = false;
	mw_buf_clear(&b->stale);
	for (s.i = 0; s.i < b->n_folder && !r; s.i++) {
		while (!r && asked < b->n_folder && asked < s.i + AHEAD)
			r = ask_folder(t, asked++, err);
		if (!r)
			r = hear_folder(&s, err);
	}
	for (s.i = 0; s.i < b->n_folder && !r; s.i++)
		r = b->folder[s.i].cut ? hear_rest(&s, err)
		                       : all_heard(&s, &b->folder[s.i], err);
	if (!r)
		r = mw_imap_may_go_to(t, b, err);
	if (!r && b->stale.n && !b->dry)
		r = mw_imap_sweep(b, err);
	if (r && b->c->sent != b->c->answered)
		b->locked = false; /* no use of the connection any more */
	return r;
}

/* ---- changed since the scan? ---- */

struct watch {
	struct mw_imap_folder *f;
	bool same;
};

static int
on_status(void *arg, struct mw_imap_cur cur)
{
	struct watch *w = arg;
	struct mw_imap_counts n;
	if (mw_imap_parse_counts(cur, &n))
		w->same = n.uidvalidity == w->f->uidvalidity &&
		          n.uidnext == w->f->uidnext && n.messages == w->f->exists &&
		          n.uidnext;
	return 0;
}

static int
ask_status(struct mw_imap_box *b, size_t i, struct mw_err *err)
{
	return mw_imap_cmd(b->c, err, "STATUS %s (MESSAGES UIDNEXT UIDVALIDITY)",
	                   b->folder[i].quoted);
}

/* *changed is set where the folder is not as it was. */
static int
hear_status(struct mw_imap_box *b, size_t i, bool *changed, struct mw_err *err)
{
	struct watch w = {&b->folder[i], false};
	int r = mw_imap_wait(b->c, on_status, &w, err);
	if (r == MW_EREFUSED)
		r = 0; /* gone: something changed */
	*changed = *changed || !w.same;
	return r;
}

int
mw_imap_changed_send(struct mw_imap_box *b, struct mw_err *err)
{
	int r = 0;
	for (size_t i = 0; i < b->n_folder && !r; i++)
		r = ask_status(b, i, err);
	return r;
}

int
mw_imap_changed_wait(struct mw_imap_box *b, struct mw_err *err)
{
	bool changed = false;
	int r = 0;
	for (size_t i = 0; i < b->n_folder && !r; i++)
		r = hear_status(b, i, &changed, err);
	return r ? r : changed;
}

int
mw_imap_box_changed(struct mw_target *t, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	size_t asked = 0;
	bool changed = false;
	int r = 0;
	for (size_t i = 0; i < b->n_folder && !r; i++) {
		while (!r && asked < b->n_folder && asked < i + AHEAD * 4)
			r = ask_status(b, asked++, err);
		if (!r)
			r = hear_status(b, i, &changed, err);
	}
	return r ? r : changed;
}

/* ---- bodies ---- */

struct bodies {
	struct mw_profiler *p;
	size_t folder;
	int (*cb)(void *, uint64_t, struct mw_profile *);
	void *arg;
};

static int
on_body(void *arg, struct mw_imap_cur cur)
{
	struct bodies *s = arg;
	struct mw_imap_fetch f;
	if (!mw_imap_parse_fetch(cur, &f) || !f.has_body)
		return 0;
	(void)mw_profiler_put(s->p, f.body.p, f.body.n); /* one that came quoted */
	struct mw_profile *p = mw_profiler_take(s->p);
	if (!p)
		return MW_ENOMEM;
	if (f.uid)
		return s->cb(s->arg, KEY(s->folder, f.uid), p);
	free(p);
	return 0;
}

/* Of the n keys, which ascend, *ret_left are still to be asked for. */
static int
fetch_part(struct mw_imap *c, struct bodies *s, const uint64_t *keys, size_t n,
           size_t *ret_left, struct mw_err *err)
{
	MW_BUF_AUTO set = {0};
	size_t left = 0;
	for (size_t i = 0; i < n; i++)
		mw_buf_printf(&set, i ? ",%u" : "%u", (unsigned)(uint32_t)keys[i]);
	int r = mw_imap_cmd(c, err, "UID FETCH %s (UID BODY.PEEK[])", mw_buf_cstr(&set));
	if (r)
		return r;
	c->body = mw_profiler_put;
	c->body_arg = s->p;
	r = mw_imap_wait(c, on_body, s, err);
	c->body = NULL;
	while (left < n && (uint32_t)keys[left] < c->cut)
		left++;
	*ret_left = left;
	if (!r && c->cut && (left == n || c->cut == 1)) /* 1: it does not say where */
		return mw_fail(err, MW_EPROTO, "the server sends none of the messages");
	return r == MW_EREFUSED ? mw_imap_refused(c, err, "read messages") : r;
}

static int
fetch_some(struct mw_imap *c, struct bodies *s, const uint64_t *keys, size_t n,
           struct mw_err *err)
{
	int r = 0;
	while (n && !r)
		r = fetch_part(c, s, keys, n, &n, err);
	return r;
}

int
mw_imap_box_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
                  int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
                  struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	struct bodies s = {mw_profiler_new(), SIZE_MAX, cb, arg};
	int r = s.p ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	b->selected = false;
	for (size_t i = 0; i < n && !r;) {
		size_t folder = (size_t)(keys[i] >> 32), k = i;
		if (folder != s.folder) {
			s.folder = folder;
			r = mw_imap_do(b->c, err, "EXAMINE %s", b->folder[folder].quoted);
			if (r == MW_EREFUSED)
				r = mw_imap_refused(b->c, err, "open a folder again");
		}
		while (k < n && keys[k] >> 32 == folder && k - i < FETCH_UIDS)
			k++;
		if (!r)
			r = fetch_some(b->c, &s, keys + i, k - i, err);
		i = k;
	}
	mw_profiler_free(s.p);
	return r;
}
