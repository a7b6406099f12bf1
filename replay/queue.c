#include "replay/queue.h"

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/cmd.h"
#include "replay/output.h"
#include "replay/profile.h"

#include <stdlib.h>
#include <string.h>

enum {
	WORDS = 32,
	LINE_MAX_BYTES = 64 << 20 /* one message's JSON, with all its recipients */
};

#define SECOND_US INT64_C(1000000)
#define BEFORE_US (300 * SECOND_US)   /* the clocks of one host, with its whole seconds */
#define AFTER_US  (86400 * SECOND_US) /* from MAIL to the end of DATA */

struct rcpt {
	struct mw_str addr;
	bool cut;
	uint32_t next; /* plus 1 */
};

struct entry {
	uint64_t id;
	int64_t arrived_us; /* INT64_MIN: not said */
	uint32_t first;     /* recipient, plus 1 */
	uint32_t from;      /* two hosts may give the same ID to two messages */
};

struct source {
	char *words, *text, *file; /* text: the command as given */
	char *argv[WORDS + 1];
	bool said, left_out;
};

struct mw_queue {
	struct source *from;
	size_t n_from, n_given;
	bool partial;  /* one of those that were given is not asked */
	size_t failed; /* the last that did, plus 1 */
	struct mw_arena *arena;
	struct entry *v; /* hash by id; id 0: free */
	size_t n, cap;
	struct rcpt *rcpt;
	size_t n_rcpt, cap_rcpt;
	/* of the read under way */
	uint32_t reading;
	struct mw_buf line;
	struct entry *at;  /* mailq: whose recipients come now; NULL: nobody's */
	size_t junk, good; /* lines of text that say nothing, and that say something */
	bool broken;       /* a line that should be JSON */
};

/* ---- what is kept ---- */

static size_t
slot(const struct mw_queue *q, uint64_t id, uint32_t from)
{
	size_t i = (size_t)(id >> 17) & (q->cap - 1);
	while (q->v[i].id && (q->v[i].id != id || q->v[i].from != from))
		i = (i + 1) & (q->cap - 1);
	return i;
}

static int
grow(struct mw_queue *q)
{
	struct entry *old = q->v;
	size_t n = q->cap;
	q->v = calloc(n ? n * 2 : 64, sizeof *q->v);
	if (!q->v) {
		q->v = old;
		return MW_ENOMEM;
	}
	q->cap = n ? n * 2 : 64;
	for (size_t i = 0; i < n; i++)
		if (old[i].id)
			q->v[slot(q, old[i].id, old[i].from)] = old[i];
	free(old);
	return 0;
}

static void
forget(struct mw_queue *q)
{
	mw_arena_reset(q->arena);
	memset(q->v, 0, q->cap * sizeof *q->v);
	q->n = q->n_rcpt = 0;
}

static void
begin(struct mw_queue *q)
{
	mw_buf_clear(&q->line);
	q->at = NULL;
	q->junk = q->good = 0;
	q->broken = false;
}

static struct entry *
add_entry(struct mw_queue *q, uint64_t id, int64_t arrived_us)
{
	if (q->n * 2 >= q->cap && grow(q))
		return NULL;
	struct entry *e = &q->v[slot(q, id, q->reading)];
	q->n += !e->id;
	/* Listed twice: two reads, or a message that moved while it was read. */
	e->id = id;
	e->from = q->reading;
	e->arrived_us = arrived_us;
	return e;
}

static int
add_rcpt(struct mw_queue *q, struct entry *e, struct mw_str addr, bool cut)
{
	if (q->n_rcpt == q->cap_rcpt) {
		size_t cap = q->cap_rcpt ? q->cap_rcpt * 2 : 256;
		void *p =
		    cap < UINT32_MAX ? reallocarray(q->rcpt, cap, sizeof *q->rcpt) : NULL;
		if (!p)
			return MW_ENOMEM;
		q->rcpt = p;
		q->cap_rcpt = cap;
	}
	struct rcpt *r = &q->rcpt[q->n_rcpt];
	*r = (struct rcpt){.addr = mw_arena_str(q->arena, addr),
	                   .cut = cut,
	                   .next = e->first};
	if (addr.n && !r->addr.p)
		return MW_ENOMEM;
	e->first = (uint32_t)++q->n_rcpt;
	return 0;
}

static const struct entry *
find(const struct mw_queue *q, uint64_t id, uint32_t from, int64_t time_us)
{
	const struct entry *e = &q->v[slot(q, id, from)];
	if (!id || !e->id)
		return NULL;
	if (e->arrived_us == INT64_MIN)
		return e;
	return time_us > e->arrived_us - BEFORE_US && time_us < e->arrived_us + AFTER_US
	           ? e
	           : NULL;
}

bool
mw_queue_lists(const struct mw_queue *q, uint64_t id, int64_t time_us,
               bool (*is)(void *arg, struct mw_str rcpt, bool cut), void *arg)
{
	for (uint32_t k = 0; k < q->n_from; k++) {
		const struct entry *e = find(q, id, k, time_us);
		for (uint32_t i = e ? e->first : 0; i; i = q->rcpt[i - 1].next)
			if (is(arg, q->rcpt[i - 1].addr, q->rcpt[i - 1].cut))
				return true;
	}
	return false;
}

bool
mw_queue_has(const struct mw_queue *q, uint64_t id, int64_t time_us)
{
	for (uint32_t k = 0; k < q->n_from; k++)
		if (find(q, id, k, time_us))
			return true;
	return false;
}

size_t
mw_queue_size(const struct mw_queue *q)
{
	return q->n;
}

/* ---- its words ---- */

struct knows {
	bool (*known)(void *arg, uint64_t id);
	void *arg;
};

static struct mw_str
member(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);
	return json_is_string(v) ? mw_str(json_string_value(v), json_string_length(v))
	                         : mw_str("", 0);
}

static int
take_json(struct mw_queue *q, struct mw_str line, const struct knows *k)
{
	json_t *o = json_loadb(line.p, line.n, JSON_ALLOW_NUL, NULL);
	struct mw_str id = member(o, "queue_id");
	const json_t *at = json_object_get(o, "arrival_time"), *rcpt;
	json_t *list = json_object_get(o, "recipients");
	int r = 0;
	size_t i;
	q->at = NULL; /* entries move */
	q->good += id.n > 0;
	q->broken |= !id.n;
	uint64_t h = id.n ? mw_hash64(id) : 0;
	if (h && k->known(k->arg, h)) {
		int64_t s = json_is_integer(at) ? json_integer_value(at) : INT64_MIN;
		bool sane = s > 0 && s < INT64_MAX / SECOND_US - 86400;
		struct entry *e = add_entry(q, h, sane ? s * SECOND_US : INT64_MIN);
		r = e ? 0 : MW_ENOMEM;
		json_array_foreach(list, i, rcpt)
		{
			struct mw_str addr = member(rcpt, "address");
			if (!r && addr.n)
				r = add_rcpt(q, e, addr, false);
		}
	}
	json_decref(o);
	return r;
}

static bool
alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* "4FDE1210*  1234 Sun Nov 22 18:00:00  sender", where Sendmail has a remark in place of
 * the size at times. */
static int
take_head(struct mw_queue *q, struct mw_str line, const struct knows *k)
{
	size_t n = 0;
	while (n < line.n && alnum(line.p[n]))
		n++;
	struct mw_str id = mw_str(line.p, n);
	while (n < line.n && line.p[n] && strchr("*!#-+?X", line.p[n]))
		n++;
	size_t blank = n;
	while (n < line.n && (line.p[n] == ' ' || line.p[n] == '\t'))
		n++;
	q->at = NULL;
	bool head = id.n >= 5 && n > blank && n < line.n &&
	            ((line.p[n] >= '0' && line.p[n] <= '9') || line.p[n] == '(');
	if (!head) {
		bool frame = line.n && (line.p[0] == '-' || line.p[0] == '/' ||
		                        mw_str_istarts(line, MW_STR("Mail queue is")));
		q->good += frame;
		q->junk += !frame;
		return 0;
	}
	q->good++;
	uint64_t h = mw_hash64(id);
	if (!k->known(k->arg, h) && id.p[id.n - 1] == 'X') /* Sendmail: not now */
		h = mw_hash64(mw_str(id.p, id.n - 1));
	if (!k->known(k->arg, h))
		return 0;
	q->at = add_entry(q, h, INT64_MIN);
	return q->at ? 0 : MW_ENOMEM;
}

/* Sendmail says so of each of several directories, and counts them up. */
static bool
says_empty(struct mw_str s)
{
	return mw_str_starts(s, MW_STR("Total requests")) ||
	       (s.n > 9 && mw_str_ieq(mw_str(s.p + s.n - 8, 8), MW_STR("is empty")));
}

/* A recipient, or what was said of one. */
static int
take_tail(struct mw_queue *q, struct mw_str line)
{
	struct mw_str s = mw_str_trim(line);
	if (!q->good) { /* nothing that it could belong to */
		q->good += says_empty(s);
		q->junk++;
	}
	if (!q->at || !s.n || s.p[0] == '(' || mw_str_starts(s, MW_STR("Total requests")))
		return 0;
	bool open = s.p[0] == '<', cut = open && s.p[s.n - 1] != '>';
	if (open)
		s = mw_str(s.p + 1, s.n - 1 - !cut);
	return s.n ? add_rcpt(q, q->at, s, cut) : 0;
}

static int
take_line(struct mw_queue *q, struct mw_str line, const struct knows *k)
{
	while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	if (!mw_str_trim(line).n)
		return 0;
	if (line.p[0] == '{')
		return take_json(q, line, k);
	if (line.p[0] == ' ' || line.p[0] == '\t' || line.p[0] == '(')
		return take_tail(q, line);
	if (says_empty(line)) {
		q->good++;
		return 0;
	}
	return take_head(q, line, k);
}

static int
learn_lines(struct mw_queue *q, const char *p, size_t n, const struct knows *k,
            struct mw_err *err)
{
	while (n) {
		const char *end = memchr(p, '\n', n);
		size_t len = end ? (size_t)(end - p) + 1 : n;
		if (q->line.n + len > LINE_MAX_BYTES)
			return mw_fail(err, MW_EFORMAT, "a line of the queue has no end");
		mw_buf_put(&q->line, p, len);
		if (mw_buf_ok(&q->line) || (end && take_line(q, mw_buf_str(&q->line), k)))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		if (end)
			mw_buf_clear(&q->line);
		p += len;
		n -= len;
	}
	return 0;
}

int
mw_queue_learn(struct mw_queue *q, size_t k, const void *p, size_t n,
               bool (*known)(void *arg, uint64_t id), void *arg, struct mw_err *err)
{
	const struct knows of = {known, arg};
	q->reading = (uint32_t)k;
	if (n)
		return learn_lines(q, p, n, &of, err);
	int r = take_line(q, mw_buf_str(&q->line), &of);
	bool junk = q->broken || (q->junk && !q->good);
	begin(q);
	if (r)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (junk)
		return mw_fail(err, MW_EFORMAT, "that is not how a mail queue is listed");
	return 0;
}

/* ---- life ---- */

static const char *
found_here(void)
{
	const char *dir = getenv("MAIL_CONFIG");
	MW_BUF_AUTO path = {0};
	mw_buf_printf(&path, "%s/main.cf", dir ? dir : "/etc/postfix");
	if (access(mw_buf_cstr(&path), R_OK) == 0)
		return "postqueue -j";
	return access("/etc/mail/sendmail.cf", R_OK) == 0 ? "mailq" : NULL;
}

static int
cut_words(struct source *s, const char *command, struct mw_err *err)
{
	char *save = NULL;
	size_t n = 0;
	s->words = strdup(command);
	s->text = strdup(command);
	if (!s->words || !s->text)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (char *w = strtok_r(s->words, " \t", &save); w;
	     w = strtok_r(NULL, " \t", &save)) {
		if (n == WORDS)
			return mw_fail(err, MW_EUSAGE,
			               "the queue's command has more than %d words",
			               WORDS);
		s->argv[n++] = w;
	}
	return n ? 0
	         : mw_fail(err, MW_EUSAGE,
	                   "the queue's command is empty: auto, none, or a program");
}

/* Whose command it is, before what went wrong with it. */
static int
whose(const struct mw_queue *q, const char *file, int code, struct mw_err *err)
{
	if (code && file && q->n_given > 1 && code != MW_ECANCEL && code != MW_ENOMEM)
		(void)mw_err_prefix(err, "queue_command of %s", file);
	return code;
}

static int
add_source(struct mw_queue *q, const struct mw_queue_from *f, struct mw_err *err)
{
	bool said = strcmp(f->command, "auto") != 0;
	const char *command = said ? f->command : found_here();
	if (strcmp(f->command, "none") == 0 || !command) {
		q->partial = true;
		return 0;
	}
	for (size_t i = 0; i < q->n_from; i++)
		if (strcmp(q->from[i].text, command) == 0 && q->from[i].said == said)
			return 0;
	struct source *s = &q->from[q->n_from++];
	s->said = said;
	s->file = f->file ? strdup(f->file) : NULL;
	if (f->file && !s->file)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return whose(q, f->file, cut_words(s, command, err), err);
}

int
mw_queue_new(const struct mw_queue_from *v, size_t n, struct mw_queue **ret,
             struct mw_err *err)
{
	*ret = NULL;
	struct mw_queue *q = calloc(1, sizeof *q);
	if (!q)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	q->n_given = n;
	q->from = calloc(n ? n : 1, sizeof *q->from);
	q->arena = mw_arena_new(0);
	int r = q->from && q->arena && grow(q) == 0
	            ? 0
	            : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !r; i++)
		r = add_source(q, &v[i], err);
	if (r || !q->n_from)
		mw_queue_free(q);
	else
		*ret = q;
	return r;
}

void
mw_queue_free(struct mw_queue *q)
{
	if (!q)
		return;
	for (size_t i = 0; q->from && i < q->n_from; i++) {
		free(q->from[i].words);
		free(q->from[i].text);
		free(q->from[i].file);
	}
	free(q->from);
	mw_arena_free(q->arena);
	mw_buf_free(&q->line);
	free(q->v);
	free(q->rcpt);
	free(q);
}

size_t
mw_queue_commands(const struct mw_queue *q)
{
	return q->n_from;
}

bool
mw_queue_is_said(const struct mw_queue *q)
{
	bool said = !q->partial;
	for (size_t i = 0; i < q->n_from; i++)
		said = said && q->from[i].said;
	return said;
}

bool
mw_queue_leave_out(struct mw_queue *q)
{
	if (!q->failed || q->from[q->failed - 1].said)
		return false;
	q->from[q->failed - 1].left_out = true;
	return true;
}

/* ---- asking the commands ---- */

struct reading {
	struct mw_queue *q;
	size_t k;
	struct knows known;
};

static int
on_output(void *arg, const void *p, size_t n, struct mw_err *err)
{
	struct reading *r = arg;
	return mw_queue_learn(r->q, r->k, p, n, r->known.known, r->known.arg, err);
}

int
mw_queue_print(struct mw_queue *q, size_t k, const atomic_bool *stop,
               int (*cb)(void *arg, const void *p, size_t n, struct mw_err *err),
               void *arg, struct mw_err *err)
{
	const struct source *s = &q->from[k];
	if (s->left_out)
		return 0;
	int r = mw_output_of(s->argv, MW_OUTPUT_SILENT_S * 1000, stop, cb, arg, err);
	q->failed = r ? k + 1 : 0;
	return whose(q, s->file, r, err);
}

static int
read_one(struct reading *rd, struct mw_err *err)
{
	struct mw_queue *q = rd->q;
	const struct source *s = &q->from[rd->k];
	if (s->left_out)
		return 0;
	begin(q);
	int r =
	    mw_output_of(s->argv, MW_OUTPUT_SILENT_S * 1000, NULL, on_output, rd, err);
	if (!r)
		r = mw_queue_learn(q, rd->k, NULL, 0, rd->known.known, rd->known.arg,
		                   err);
	q->failed = r ? rd->k + 1 : 0;
	if (r == MW_EFORMAT)
		(void)mw_err_hint(err, "it was printed by: %s", s->text);
	return whose(q, s->file, r, err);
}

int
mw_queue_read(struct mw_queue *q, bool add, bool (*known)(void *arg, uint64_t id),
              void *arg, struct mw_err *err)
{
	int r = 0;
	if (!add)
		forget(q);
	for (size_t k = 0; k < q->n_from && !r; k++) {
		struct reading rd = {q, k, {known, arg}};
		r = read_one(&rd, err);
	}
	if (r)
		forget(q);
	return r;
}
