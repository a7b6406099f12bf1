/* import_imap.c - a user's mailbox over IMAP: nothing is changed there, no flag either.
 */
#include "replay/import.h"

#include "journal/base/util.h"
#include "journal/record/header.h"
#include "replay/target_imap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BATCH = 100, /* messages of one FETCH */
	BATCH_BYTES = 8 << 20,
	NAME_ROOM = 700
};

struct one {
	uint32_t uid;
	uint64_t size;
	int64_t date_us;
	char *message_id;
};

struct folder {
	const struct mw_import_src *s;
	const struct mw_import_box *b;
	struct mw_imap *c;
	struct mw_imap_box *box;
	struct mw_imap_folder *f;
	const char *as; /* its name in a record; or NULL */
	char room[512];
	bool sent;
	struct one *v;
	size_t n, cap;
	/* the FETCH under way */
	const struct one *only; /* it asks for one message: this */
	const struct one *cur;  /* whose content is coming, or NULL */
	int failed;             /* of the sink: ends everything */
	bool uid_first;         /* the server names a message before its content */
	uint64_t exists, gone;  /* messages of the folder, and those expunged meanwhile */
};

static int
on_head(void *arg, struct mw_imap_cur cur)
{
	struct folder *w = arg;
	struct mw_imap_fetch f;
	struct mw_field id;
	if (!mw_imap_parse_fetch(cur, &f)) {
		struct mw_str n, rest = mw_str(cur.p + 2, cur.n - 2);
		if (!mw_str_cut(rest, ' ', &n, &rest))
			return 0;
		if (mw_str_ieq(rest, MW_STR("EXISTS")))
			w->exists = mw_imap_set_at(n, 0);
		w->gone += mw_str_ieq(rest, MW_STR("EXPUNGE"));
		return 0;
	}
	if (mw_imap_is_place(w->box, w->f, &f) || !f.uid || !f.has_size || !f.has_header)
		return 0;
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 256;
		void *p = reallocarray(w->v, cap, sizeof *w->v);
		if (!p)
			return MW_ENOMEM;
		w->v = p;
		w->cap = cap;
	}
	struct mw_str v = mw_header_find(f.header, "Message-ID", &id)
	                      ? mw_str_trim(id.value)
	                      : mw_str("", 0);
	w->v[w->n] = (struct one){f.uid, f.size, f.date_us, strndup(v.n ? v.p : "", v.n)};
	if (!w->v[w->n].message_id)
		return MW_ENOMEM;
	w->n++;
	return 0;
}

static int
by_uid(const void *a, const void *b)
{
	uint32_t x = ((const struct one *)a)->uid, y = ((const struct one *)b)->uid;
	return x < y ? -1 : x > y;
}

static void
message(const struct folder *w, const struct one *o, char name[NAME_ROOM],
        struct mw_import_msg *ret)
{
	(void)snprintf(name, NAME_ROOM, "%.200s, folder %.300s, UID %u", w->b->mailbox,
	               w->f->name, (unsigned)o->uid);
	*ret = (struct mw_import_msg){.name = name,
	                              .owner = w->b->owner,
	                              .mailbox = w->b->mailbox,
	                              .folder = w->as,
	                              .sent = w->sent,
	                              .time_us = o->date_us,
	                              .size = o->size,
	                              .message_id = mw_strz(o->message_id)};
}

static int
start(struct folder *w, uint32_t uid)
{
	char name[NAME_ROOM];
	struct mw_import_msg m;
	struct one key = {.uid = uid};
	w->cur = uid ? bsearch(&key, w->v, w->n, sizeof *w->v, by_uid) : w->only;
	if (!w->cur)
		return MW_EPROTO;
	message(w, w->cur, name, &m);
	return w->s->sink->begin(w->s->sink->arg, &m);
}

/* Whose content is it? The response says so before or after it; after is too late, so of
 * such a server one message is asked for at a time. */
static uint32_t
uid_before(struct folder *w)
{
	struct mw_str s = mw_buf_str(&w->c->resp);
	const char *p = s.n ? memmem(s.p, s.n, "(UID ", 5) : NULL;
	const char *end = p ? memchr(p + 5, ' ', s.n - (size_t)(p + 5 - s.p)) : NULL;
	w->uid_first = end != NULL;
	return end ? mw_imap_set_at(mw_str(p + 5, (size_t)(end - p - 5)), 0) : 0;
}

static int
to_sink(void *arg, const void *p, size_t n)
{
	struct folder *w = arg;
	if (!w->failed && !w->cur)
		w->failed = start(w, uid_before(w));
	if (!w->failed)
		w->failed = w->s->sink->body(w->s->sink->arg, p, n);
	return 0; /* the rest of the literal must be read in any case */
}

static int
on_body(void *arg, struct mw_imap_cur cur)
{
	struct folder *w = arg;
	struct mw_imap_fetch f;
	if (!mw_imap_parse_fetch(cur, &f) || !f.has_body)
		return 0;
	if (!w->failed && !w->cur) /* empty, or it came quoted */
		w->failed = start(w, f.uid);
	if (!w->failed && f.body.n)
		w->failed = w->s->sink->body(w->s->sink->arg, f.body.p, f.body.n);
	if (!w->failed)
		w->failed = w->s->sink->end(w->s->sink->arg, 0, NULL);
	w->cur = NULL;
	return 0;
}

/* Messages of one FETCH; one that its user removed meanwhile is passed over. A server
 * that deals with some only leaves the first *ret_left of them, whose UIDs ascend. */
static int
fetch_part(struct folder *w, const struct one *const *v, size_t n, size_t *ret_left,
           struct mw_err *err)
{
	size_t left = 0;
	const struct mw_import_sink *sink = w->s->sink;
	MW_BUF_AUTO set = {0};
	struct mw_err why = {0};
	for (size_t i = 0; i < n; i++)
		mw_buf_printf(&set, i ? ",%u" : "%u", (unsigned)v[i]->uid);
	if (mw_buf_ok(&set) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	w->only = n == 1 ? v[0] : NULL;
	w->cur = NULL;
	int r =
	    mw_imap_cmd(w->c, err, "UID FETCH %s (UID BODY.PEEK[])", mw_buf_cstr(&set));
	if (r < 0)
		return r;
	w->c->body = to_sink;
	w->c->body_arg = w;
	r = mw_imap_wait(w->c, on_body, w, &why);
	w->c->body = NULL;
	if (w->cur && !w->failed)
		w->failed = sink->end(sink->arg, r < 0 ? r : MW_EPROTO,
		                      r < 0 ? why.msg : "it did not come whole");
	if (w->failed)
		return w->failed;
	if (r == MW_EREFUSED)
		return mw_imap_refused(w->c, err, "read messages");
	while (left < n && v[left]->uid < w->c->cut)
		left++;
	*ret_left = left;
	if (r == 0 && w->c->cut && (left == n || w->c->cut == 1))
		return mw_fail(err, MW_EPROTO, "the server sends none of the messages");
	return r < 0 ? mw_fail(err, r, "%s", why.msg) : 0;
}

static int
fetch(struct folder *w, const struct one *const *v, size_t n, struct mw_err *err)
{
	int r = 0;
	while (n && r == 0)
		r = fetch_part(w, v, n, &n, err);
	return r;
}

static int
messages(struct folder *w, struct mw_err *err)
{
	const struct mw_import_sink *sink = w->s->sink;
	const struct one *batch[BATCH];
	size_t n = 0;
	uint64_t bytes = 0;
	bool one = true; /* first of all: does the server say the UID in time? */
	int r = 0;
	for (size_t i = 0; i < w->n && r == 0; i++) {
		char name[NAME_ROOM];
		struct mw_import_msg m;
		message(w, &w->v[i], name, &m);
		r = sink->known(sink->arg, &m);
		if (r == 0) {
			batch[n++] = &w->v[i];
			bytes += w->v[i].size;
		}
		r = r > 0 ? 0 : r;
		if (r == 0 && (n == (one ? 1 : BATCH) || bytes >= BATCH_BYTES)) {
			r = fetch(w, batch, n, err);
			one = !w->uid_first;
			n = 0;
			bytes = 0;
		}
	}
	return r == 0 && n ? fetch(w, batch, n, err) : r;
}

static int
heads(struct folder *w, struct mw_err *err)
{
	uint32_t above = 0;
	int r;
	do {
		char set[20] = "*";
		if (above)
			(void)snprintf(set, sizeof set, "%u", (unsigned)above - 1);
		else
			above = UINT32_MAX;
		r = mw_imap_cmd(w->c, err,
		                "UID FETCH 1:%s (UID RFC822.SIZE INTERNALDATE "
		                "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])",
		                set);
		if (r == 0)
			r = mw_imap_wait(w->c, on_head, w, err);
		if (r == 0)
			r = mw_imap_go_on(w->c, &above, err);
	} while (r > 0);
	if (r == MW_EREFUSED && !w->exists)
		return 0; /* some servers refuse 1:* in an empty folder */
	return r;
}

/* w->f->shows is set where the folder shows mail of others. */
static int
where_it_lies(struct folder *w, struct mw_err *err)
{
	int r = mw_imap_ask_place(w->c, err);
	if (r == 0 && w->c->dovecot)
		r = mw_imap_wait(w->c, on_head, w, err);
	return r == MW_EREFUSED ? 0 : r;
}

static int
one_folder(struct folder *w, struct mw_err *err)
{
	char what[300];
	w->exists = w->gone = 0;
	int r = mw_imap_cmd(w->c, err, "EXAMINE %s", w->f->quoted);
	if (r == 0)
		r = mw_imap_wait(w->c, on_head, w, err);
	if (r == 0)
		r = where_it_lies(w, err);
	if (r == 0 && w->f->shows)
		return 0;         /* what it shows is another folder's */
	uint64_t had = w->exists; /* what comes meanwhile was not asked for */
	if (r == 0)
		r = heads(w, err);
	if (r == MW_EREFUSED) {
		(void)snprintf(what, sizeof what, "read folder %.200s", w->f->name);
		return mw_imap_refused(w->c, err, what);
	}
	if (r == 0 && w->n)
		qsort(w->v, w->n, sizeof *w->v, by_uid);
	r = r < 0 ? r : messages(w, err);
	if (r == 0 && w->n + w->gone < had)
		return mw_fail(err, MW_EREFUSED,
		               "the server tells of %zu messages in folder %.200s, which "
		               "has %llu",
		               w->n, w->f->name, (unsigned long long)had);
	return r;
}

static void
forget(struct folder *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->v[i].message_id);
	w->n = 0;
}

static int
on_count(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_counts n;
	if (mw_imap_parse_counts(cur, &n))
		*(uint64_t *)arg = n.messages;
	return 0;
}

static int
leave(struct folder *w, struct mw_err *err)
{
	uint64_t n = 0;
	char name[NAME_ROOM];
	int r = mw_imap_cmd(w->c, err, "STATUS %s (MESSAGES)", w->f->quoted);
	if (r == 0)
		r = mw_imap_wait(w->c, on_count, &n, err);
	(void)snprintf(name, sizeof name, "%.200s, folder %.300s", w->b->mailbox,
	               w->f->name);
	if (r == 0)
		w->s->sink->skipped(w->s->sink->arg, name, n);
	return r == MW_EREFUSED ? 0 : r;
}

int
mw_import_imap(const struct mw_import_src *s, const struct mw_import_box *b,
               struct mw_target *t, struct mw_err *err)
{
	/* Dry: what an earlier replay left there is not ours to clean up. */
	int r = mw_target_open(t, b->mailbox, b->mailbox, true, err);
	if (r < 0)
		return r;
	struct mw_imap_box *box = mw_imap_box(t);
	struct folder w = {.s = s, .b = b, .c = box->c, .box = box};
	for (size_t i = 0; i < box->n_folder && r == 0; i++) {
		struct mw_err why = {0};
		w.f = &box->folder[i];
		enum mw_import_folder kind =
		    mw_import_folder(s->cli->conf, mw_strz(w.f->name), box->c->delim);
		w.sent = s->sent || w.f->sent || kind == MW_IMPORT_SENT;
		struct mw_str name = mw_strz(w.f->name), own = mw_strz(box->c->prefix);
		if (own.n && mw_str_starts(name, own))
			name = mw_str(name.p + own.n, name.n - own.n);
		w.as = w.sent ? NULL
		              : mw_import_folder_name(name, box->c->delim, true, w.room,
		                                      sizeof w.room);
		bool left = (w.f->leave || (kind == MW_IMPORT_LEAVE && !w.f->sent)) &&
		            !s->all_folders;
		r = left ? leave(&w, &why) : one_folder(&w, &why);
		forget(&w);
		if (r == MW_EREFUSED && why.code == r) /* this folder only */
			r = s->sink->trouble(s->sink->arg, w.f->name, why.msg);
		else if (r < 0 && why.code && err)
			*err = why;
	}
	free(w.v);
	struct mw_err second;
	int c = mw_target_close(t, r ? &second : err);
	return r ? r : c;
}
