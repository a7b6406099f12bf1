#include "replay/import_put.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/record/header.h"
#include "replay/imap_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MEMORY = 1 << 20,
	HEADER_SEEN = 256 * 1024 /* of a larger message */
};

struct sent { /* a message whose answer is due */
	char *name, *mailbox;
	uint64_t bytes;
};

struct mw_import_put {
	struct mw_import_put_opts o;
	struct mw_import_sink sink;
	struct mw_intake *intake;
	struct mw_import_sum sum;
	struct mw_err err; /* what ends everything; code 0: nothing */
	uint64_t *key;     /* copies brought in by this run; a hash set, 0: free */
	size_t n_key, cap_key;
	struct mw_profiler *profiler;
	/* the message at work */
	struct mw_arena *arena;
	struct mw_import_msg msg;
	struct mw_buf data; /* all of it, or its beginning once it streams */
	bool streaming;
	uint64_t size;
};

static int
give_up(struct mw_import_put *p, int code)
{
	if (!p->err.code)
		(void)mw_fail(&p->err, code, "%s", mw_err_text(code));
	return p->err.code;
}

/* ---- answers ---- */

static void
name_failed(struct mw_import_put *p, const char *name, const char *mailbox,
            const char *why)
{
	p->sum.failed++;
	mw_progress_add(p->o.progress, 1, 0);
	p->o.failed(p->o.arg, name, mailbox, why);
}

/* Trouble of the journal itself, which the next message would have too. */
static bool
ends_it(int code)
{
	return code == MW_ENOSPC || code == MW_EIO || code == MW_EPOISON ||
	       code == MW_ENOMEM || code == MW_EPERM || code == MW_ECREATE;
}

static void
on_answer(void *arg, void *ref, int code, const char *why)
{
	struct mw_import_put *p = arg;
	struct sent *s = ref;
	if (code == 0) {
		p->sum.imported++;
		p->sum.bytes += s->bytes;
		mw_progress_add(p->o.progress, 1, s->bytes);
	} else {
		name_failed(p, s->name, s->mailbox, why);
		if (ends_it(code) && !p->err.code)
			(void)mw_fail(&p->err, code, "the journal takes no more: %s",
			              why);
	}
	free(s->name);
	free(s->mailbox);
	free(s);
}

/* ---- copies of this run ---- */

static int
add_key(struct mw_import_put *p, uint64_t key, bool *ret_new)
{
	if ((p->n_key + 1) * 2 > p->cap_key) {
		size_t cap = p->cap_key ? 2 * p->cap_key : 4096;
		uint64_t *v = calloc(cap, sizeof *v);
		if (!v)
			return MW_ENOMEM;
		for (size_t i = 0; i < p->cap_key; i++) {
			size_t k = (size_t)p->key[i] & (cap - 1);
			while (p->key[i] && v[k])
				k = (k + 1) & (cap - 1);
			if (p->key[i])
				v[k] = p->key[i];
		}
		free(p->key);
		p->key = v;
		p->cap_key = cap;
	}
	size_t k = (size_t)key & (p->cap_key - 1);
	while (p->key[k] && p->key[k] != key)
		k = (k + 1) & (p->cap_key - 1);
	*ret_new = !p->key[k];
	p->n_key += *ret_new;
	p->key[k] = key;
	return 0;
}

static uint64_t
key_of(const struct mw_import_put *p, const struct mw_profile *f)
{
	MW_BUF_AUTO b = {0};
	mw_buf_put(&b, f->digest, sizeof f->digest);
	mw_buf_putc(&b, p->msg.sent ? 'S' : 'I');
	mw_buf_puts(&b, p->msg.mailbox);
	return mw_hash64(mw_buf_str(&b));
}

/* ---- what the header says ---- */

static bool
near_quarter(int64_t d)
{
	const int64_t minute = INT64_C(60) * 1000000, quarter = 15 * minute;
	int64_t off = ((d % quarter) + quarter) % quarter;
	return d > -14 * 4 * quarter && d < 14 * 4 * quarter &&
	       (off < 2 * minute || off > quarter - 2 * minute);
}

/* Arrival, where the source does not know it: the topmost Received field, else Date. A
 * time without zone that differs from the former by whole quarters of an hour was local.
 */
static int64_t
arrival(const struct mw_import_put *p, struct mw_str header)
{
	struct mw_field f;
	int64_t us = INT64_MIN;
	bool received =
	    mw_header_find(header, "Received", &f) && mw_rfc5322_date(f.value, &us);
	if (p->msg.time_us != INT64_MIN) {
		bool zone =
		    received && p->msg.no_zone && near_quarter(us - p->msg.time_us);
		return zone ? us : p->msg.time_us;
	}
	if (received)
		return us;
	if (mw_header_find(header, "Date", &f) && mw_rfc5322_date(f.value, &us))
		return us;
	const struct mw_clock *clock = mw_clock_system();
	return clock->now_us(clock);
}

static struct mw_str
between_angles(struct mw_str v)
{
	const char *a = memchr(v.p, '<', v.n);
	const char *b = a ? memchr(a, '>', v.n - (size_t)(a - v.p)) : NULL;
	return a && b ? mw_str(a + 1, (size_t)(b - a - 1)) : v;
}

/* Return-Path where there is one; of sent mail its owner; else the null sender. */
static struct mw_str
sender(struct mw_import_put *p, struct mw_str header)
{
	struct mw_field f;
	if (p->msg.sent)
		return mw_strz(p->msg.owner);
	if (p->msg.sender.p)
		return p->msg.sender;
	if (!mw_header_find(header, "Return-Path", &f))
		return MW_STR("");
	struct mw_str v = mw_header_unfold(p->arena, f.value, 1000);
	return v.n ? mw_str_trim(between_angles(v)) : MW_STR("");
}

/* A store's own message, no mail: "DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA". */
static bool
is_folder_data(struct mw_str header)
{
	struct mw_field f;
	return (mw_header_find(header, "X-IMAP", &f) ||
	        mw_header_find(header, "X-IMAPbase", &f)) &&
	       mw_header_find(header, "Subject", &f) &&
	       memmem(f.value.p, f.value.n, "FOLDER INTERNAL DATA", 20);
}

/* ---- the sink ---- */

static int
known(void *arg, const struct mw_import_msg *m)
{
	struct mw_import_put *p = arg;
	if (p->err.code)
		return p->err.code;
	int r = mw_seen_import(p->o.seen, m, &p->err);
	if (r > 0) {
		p->sum.selected++;
		p->sum.already_there++;
		mw_progress_add(p->o.progress, 1, 0);
	}
	return r;
}

static int
begin(void *arg, const struct mw_import_msg *m)
{
	struct mw_import_put *p = arg;
	if (p->err.code)
		return p->err.code;
	if (mw_cli_stopped())
		return mw_fail(&p->err, MW_ECANCEL, "interrupted");
	mw_arena_reset(p->arena);
	p->sum.selected++;
	mw_progress_what(p->o.progress, m->mailbox);
	p->msg = *m;
	p->msg.name = mw_arena_strdup(p->arena, m->name);
	p->msg.mailbox = mw_arena_strdup(p->arena, m->mailbox);
	p->msg.owner = mw_arena_strdup(p->arena, m->owner);
	if (m->sender.p)
		p->msg.sender = mw_arena_str(p->arena, m->sender);
	p->msg.folder = m->folder ? mw_arena_strdup(p->arena, m->folder) : "";
	if (!p->msg.name || !p->msg.mailbox || !p->msg.owner || !p->msg.folder)
		return give_up(p, MW_ENOMEM);
	mw_buf_clear(&p->data);
	p->size = 0;
	p->streaming = false;
	return 0;
}

static int
body(void *arg, const void *b, size_t n)
{
	struct mw_import_put *p = arg;
	int r = 0;
	(void)mw_profiler_put(p->profiler, b, n);
	p->size += n;
	if (!p->streaming) {
		mw_buf_put(&p->data, b, n);
		if (p->data.failed)
			return give_up(p, MW_ENOMEM);
		if (p->size <= MEMORY)
			return 0;
		p->streaming = true;
		if (p->intake)
			r = mw_intake_body(p->intake, p->data.p, p->data.n, &p->err);
		p->data.n = MW_MIN(p->data.n, (size_t)HEADER_SEEN);
		return r;
	}
	return p->intake ? mw_intake_body(p->intake, b, n, &p->err) : 0;
}

static int
take_back(struct mw_import_put *p)
{
	return p->streaming && p->intake ? mw_intake_abort(p->intake, &p->err) : 0;
}

static int
commit(struct mw_import_put *p, struct mw_str header)
{
	struct mw_str owner = mw_strz(p->msg.owner);
	struct mw_rcpt rcpt = {.addr = owner,
	                       .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
	                       .mailbox = &owner,
	                       .n_mailbox = 1};
	struct mw_mail m = {.time_us = arrival(p, header),
	                    .sender = sender(p, header),
	                    .rcpt = &rcpt,
	                    .n_rcpt = p->msg.sent ? 0 : 1,
	                    .front = MW_STR("import"),
	                    .folder = mw_strz(p->msg.folder),
	                    .direction = p->msg.sent ? MW_DIR_OUT : MW_DIR_IN};
	if (p->msg.sent)
		m.auth_user = owner;
	if (!p->intake) { /* a dry run */
		p->sum.imported++;
		p->sum.bytes += p->size;
		mw_progress_add(p->o.progress, 1, p->size);
		return 0;
	}
	struct sent *s = calloc(1, sizeof *s);
	if (!s || !(s->name = strdup(p->msg.name)) ||
	    !(s->mailbox = strdup(p->msg.mailbox))) {
		free(s ? s->name : NULL);
		free(s);
		return give_up(p, MW_ENOMEM);
	}
	s->bytes = p->size;
	int r =
	    p->streaming ? 0 : mw_intake_body(p->intake, p->data.p, p->data.n, &p->err);
	/* After a failure the answer never comes: the rest is the next run's. */
	return r < 0 ? r : mw_intake_commit(p->intake, &m, s, &p->err);
}

static int
end(void *arg, int code, const char *why)
{
	struct mw_import_put *p = arg;
	bool fresh = false;
	size_t hn;
	MW_AUTOFREE struct mw_profile *f = mw_profiler_take(p->profiler);
	if (code < 0) {
		name_failed(p, p->msg.name, p->msg.mailbox, why);
		return take_back(p);
	}
	if (!f)
		return give_up(p, MW_ENOMEM);
	(void)mw_header_split(mw_buf_str(&p->data), &hn);
	struct mw_str header = mw_str((const char *)p->data.p, hn);
	if (is_folder_data(header)) {
		p->sum.selected--;
		p->sum.skipped++;
		return take_back(p);
	}
	if (add_key(p, key_of(p, f), &fresh) < 0)
		return give_up(p, MW_ENOMEM);
	int r = fresh ? mw_seen(p->o.seen, &p->msg, header, f, &p->err) : 1;
	if (r < 0)
		return r;
	if (r == 0)
		return commit(p, header);
	p->sum.already_there++;
	mw_progress_add(p->o.progress, 1, 0);
	return take_back(p);
}

static int
trouble(void *arg, const char *name, const char *why)
{
	struct mw_import_put *p = arg;
	p->sum.selected++;
	name_failed(p, name, "", why);
	return p->err.code;
}

static void
skipped(void *arg, const char *name, uint64_t messages)
{
	struct mw_import_put *p = arg;
	p->sum.skipped += messages;
	if (messages && !p->o.cli->quiet && !p->o.cli->json) {
		mw_progress_clear(p->o.progress);
		fprintf(stderr, "mailwal: left out: %s (%llu message%s)\n", name,
		        (unsigned long long)messages, messages == 1 ? "" : "s");
	}
}

int
mw_import_put_new(const struct mw_import_put_opts *o, struct mw_import_put **ret,
                  struct mw_err *err)
{
	struct mw_import_put *p = calloc(1, sizeof *p);
	int r = p ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0) {
		p->o = *o;
		p->sink =
		    (struct mw_import_sink){known, begin, body, end, trouble, skipped, p};
		p->arena = mw_arena_new(0);
		p->profiler = mw_profiler_new();
		if (!p->arena || !p->profiler)
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	}
	if (r == 0 && o->fd >= 0)
		r = mw_intake_new(o->fd, on_answer, p, &p->intake, err);
	if (r < 0)
		mw_import_put_free(p);
	else
		*ret = p;
	return r;
}

const struct mw_import_sink *
mw_import_sink_of(const struct mw_import_put *p)
{
	return &p->sink;
}

int
mw_import_put_end(struct mw_import_put *p, struct mw_import_sum *ret, struct mw_err *err)
{
	struct mw_err e = {0};
	int r = p->intake ? mw_intake_flush(p->intake, &e) : 0;
	if (r < 0 && !p->err.code)
		p->err = e;
	*ret = p->sum;
	if (p->err.code && err)
		*err = p->err;
	return p->err.code;
}

void
mw_import_put_free(struct mw_import_put *p)
{
	if (!p)
		return;
	mw_intake_free(p->intake);
	mw_profiler_free(p->profiler);
	mw_arena_free(p->arena);
	mw_buf_free(&p->data);
	free(p->key);
	free(p);
}
