/* target_imap_raise.c - UIDNEXT and HIGHESTMODSEQ of a restored folder, raised.
 *
 * A backup brings back the folder's UIDVALIDITY with an old UIDNEXT. What is put there
 * then gets UIDs that other messages had before the loss, and a client that kept its
 * cache passes it over for ever (RFC 9051 §2.3.1.1 forbids it, a backup knows no RFC).
 * IMAP has no command to raise them, so UIDs are used up: placeholders, small, read and
 * marked \Deleted, are copied from the staging folder and expunged at once; flags of one
 * of them are changed until HIGHESTMODSEQ has got as far.
 */
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/target_imap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	SEEDS = 128,       /* placeholders of one COPY */
	SEEDS_SINGLY = 16, /* where each needs an APPEND of its own */
	COPIES_AHEAD = 16, /* commands in flight */
	STORES_AHEAD = 100,
	RANGES = 200, /* of one UID EXPUNGE */
	YOUNG_S = 10
};

struct range {
	uint32_t first, last;
};

struct raise {
	struct mw_target *t;
	struct mw_imap_box *b;
	const struct mw_raise_opts *o;
	char *seed; /* UIDs of the placeholders in the staging folder; NULL: none yet */
	uint64_t n_seed;
	struct other { /* folders of their own that missing copies have */
		char *quoted;
		uint64_t n;
	} * other;      /* as many as o->n_folder */
	uint64_t inbox; /* copies for INBOX, those that cannot have theirs included */
	struct range *range; /* placeholders in the folder at work */
	size_t n_range, cap_range;
	uint64_t uidnext, modseq; /* the folder's, as last heard */
	char why[400];            /* what the server refused */
};

/* ---- which folders, and how far ---- */

static int
name_others(struct raise *w)
{
	const struct mw_raise_opts *o = w->o;
	w->inbox = o->inbox;
	w->other = o->n_folder ? calloc(o->n_folder, sizeof *w->other) : NULL;
	if (o->n_folder && !w->other)
		return MW_ENOMEM;
	for (size_t i = 0; i < o->n_folder; i++) {
		w->other[i].n = o->folder[i].n;
		w->other[i].quoted = mw_imap_other_name(w->b, o->folder[i].folder);
		w->inbox += w->other[i].quoted ? 0 : o->folder[i].n;
	}
	return 0;
}

/* Copies of imported mail that go into that folder; *ret_all: of all that have one. */
static uint64_t
of_others(const struct raise *w, const struct mw_imap_folder *f, uint64_t *ret_all)
{
	uint64_t n = 0;
	*ret_all = 0;
	for (size_t i = 0; i < w->o->n_folder; i++) {
		*ret_all += w->o->folder[i].n;
		if (w->other[i].quoted && strcmp(w->other[i].quoted, f->quoted) == 0)
			n += w->other[i].n;
	}
	return n;
}

/* How many UIDs beyond the gap; false: leave the folder alone. */
static bool
concerns(const struct raise *w, const struct mw_imap_folder *f, uint64_t *ret)
{
	const struct mw_raise_opts *o = w->o;
	const struct mw_imap_box *b = w->b;
	bool scattered = w->t->o.filing != MW_FILE_INBOX; /* to any folder */
	uint64_t others, n = of_others(w, f, &others);
	if (b->dest)
		n = strcmp(f->quoted, b->dest) == 0 ? o->inbox + o->sent + others : 0;
	else if (b->sent && strcmp(f->quoted, b->sent) == 0)
		n = o->sent;
	else if (strcasecmp(f->name, "INBOX") == 0 || scattered)
		n += w->inbox;
	*ret = n;
	return n || o->all;
}

/* UIDVALIDITY is the time of creation nearly everywhere (a little later for folders made
 * together): one made after the last of the missing mail had come was never seen with
 * other UIDs. */
static bool
is_young(const struct raise *w, const struct mw_imap_folder *f)
{
	const struct mw_clock *clk = mw_clock_system();
	return (int64_t)f->uidvalidity > w->o->newest_us / 1000000 + YOUNG_S &&
	       (int64_t)f->uidvalidity <= clk->now_us(clk) / 1000000 + YOUNG_S;
}

/* ---- the server's answers ---- */

static void
note_why(struct raise *w, const char *what)
{
	const struct mw_imap *c = w->b->c;
	if (!w->why[0])
		(void)snprintf(w->why, sizeof w->why, "cannot %s: server said: %s%s%s%s",
		               what, c->last.code[0] ? "[" : "", c->last.code,
		               c->last.code[0] ? "] " : "", c->last.text);
}

static int
note_copy(struct raise *w, struct mw_str args)
{
	struct mw_str validity, from, to, rest;
	uint32_t a, z;
	if (!mw_str_cut(args, ' ', &validity, &rest) ||
	    !mw_str_cut(rest, ' ', &from, &to))
		return 0;
	while (mw_imap_set_next(&to, &a, &z)) {
		if (w->n_range && w->range[w->n_range - 1].last + 1 == a) {
			w->range[w->n_range - 1].last = z;
			continue;
		}
		if (w->n_range == w->cap_range) {
			size_t cap = w->cap_range ? w->cap_range * 2 : 32;
			void *p = reallocarray(w->range, cap, sizeof *w->range);
			if (!p)
				return MW_ENOMEM;
			w->range = p;
			w->cap_range = cap;
		}
		w->range[w->n_range++] = (struct range){a, z};
	}
	return 0;
}

static int
on_select(void *arg, struct mw_imap_cur cur)
{
	struct raise *w = arg;
	struct mw_str rest = mw_str(cur.p + 2, cur.n - 2);
	struct mw_imap_status st;
	if (mw_str_istarts(rest, MW_STR("OK [")) && mw_imap_parse_status(rest, &st) &&
	    mw_str_ieq(st.code, MW_STR("HIGHESTMODSEQ")))
		(void)mw_imap_number(st.args, &w->modseq);
	return 0;
}

static int
on_counts(void *arg, struct mw_imap_cur cur)
{
	struct raise *w = arg;
	struct mw_imap_counts n;
	if (mw_imap_parse_counts(cur, &n)) {
		w->uidnext = n.uidnext;
		w->modseq = n.modseq;
	}
	return 0;
}

/* ---- the steps ---- */

static int
content(void *arg, const struct mw_imap_msg *m, int (*sink)(void *, const void *, size_t),
        void *sarg, struct mw_err *err)
{
	const struct mw_buf *text = arg;
	(void)m, (void)err;
	return sink(sarg, text->p, text->n);
}

/* Placeholders in the staging folder, which is selected then. */
static int
make_seeds(struct raise *w, uint64_t need, struct mw_err *err)
{
	struct mw_imap_box *b = w->b;
	const struct mw_clock *clk = mw_clock_system();
	bool multi = b->c->caps & MW_CAP_MULTIAPPEND;
	uint64_t limit = b->c->message_limit ? b->c->message_limit : SEEDS;
	size_t n = (size_t)MW_MIN(need, (uint64_t)(multi ? SEEDS : SEEDS_SINGLY));
	n = (size_t)MW_MIN((uint64_t)n, limit);
	struct mw_imap_msg m[SEEDS];
	struct mw_str validity, set;
	MW_BUF_AUTO text = {0}, uids = {0};
	mw_buf_printf(&text,
	              "Subject: mailwal holds a place\r\nMessage-ID: <" MW_PLACEHOLDER
	              "%s@mailwal.invalid>\r\n\r\nIt goes away by itself.\r\n",
	              w->t->o.ledger_id ? w->t->o.ledger_id : "-");
	if (mw_buf_ok(&text))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		m[i] = (struct mw_imap_msg){clk->now_us(clk), text.n,
		                            "(\\Seen \\Deleted) ", NULL};
	for (size_t i = 0; i < n; i += multi ? n : 1) {
		struct mw_imap_batch batch = {b->staging, m, multi ? n : 1, content,
		                              &text};
		struct mw_imap_appended a;
		int r = mw_imap_append(b->c, &batch, &a, err);
		if (r)
			return r;
		if (a.code) {
			note_why(w, "append placeholders");
			return 0;
		}
		if (a.uid &&
		    mw_str_cut(mw_buf_str(&b->c->last.args), ' ', &validity, &set))
			mw_buf_printf(&uids, uids.n ? ",%.*s" : "%.*s", (int)set.n,
			              set.p);
	}
	w->n_seed = mw_imap_set_count(mw_buf_str(&uids));
	if (w->n_seed != n) {
		w->n_seed = 0;
		(void)snprintf(w->why, sizeof w->why, "the server tells no APPENDUID");
		return 0;
	}
	w->seed = strdup(mw_buf_cstr(&uids));
	if (!w->seed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	/* Some servers show only to who asks what was appended to the selected folder. */
	int r = mw_imap_do(b->c, err, "NOOP");
	return r == MW_EREFUSED ? 0 : r;
}

static int
select_staging(struct raise *w, struct mw_err *err)
{
	struct mw_imap_box *b = w->b;
	if (b->selected)
		return 0;
	int r = mw_imap_do(b->c, err, "SELECT %s", b->staging);
	b->selected = !r;
	return r == MW_EREFUSED ? mw_imap_refused(b->c, err, "open " MW_STAGING_NAME) : r;
}

/* At least `need` UIDs of the folder. */
static int
use_up(struct raise *w, const struct mw_imap_folder *f, uint64_t need, struct mw_err *err)
{
	struct mw_imap *c = w->b->c;
	uint64_t left = (need + w->n_seed - 1) / w->n_seed;
	while (left && !w->why[0] && !(w->t->o.stopped && w->t->o.stopped())) {
		unsigned n = (unsigned)MW_MIN(left, (uint64_t)COPIES_AHEAD);
		int r = 0;
		for (unsigned i = 0; i < n && !r; i++)
			r = mw_imap_cmd(c, err, "UID COPY %s %s", w->seed, f->quoted);
		for (unsigned i = 0; i < n && !r; i++) {
			r = mw_imap_wait(c, NULL, NULL, err);
			if (r == MW_EREFUSED) {
				note_why(w, "copy placeholders");
				r = 0;
			} else if (!r &&
			           mw_str_ieq(mw_strz(c->last.code), MW_STR("COPYUID"))) {
				r = note_copy(w, mw_buf_str(&c->last.args));
			}
		}
		if (r)
			return r == MW_ENOMEM ? mw_fail(err, r, "out of memory") : r;
		left -= n;
	}
	return 0;
}

/* Each change of a flag is one MODSEQ; `most` of them, whatever the server counts. */
static int
change_flags(struct raise *w, uint64_t to, uint64_t most, struct mw_err *err)
{
	struct mw_imap *c = w->b->c;
	uint64_t left = w->modseq && to > w->modseq ? MW_MIN(to - w->modseq, most) : 0;
	int r = 0;
	while (left && !r && !(w->t->o.stopped && w->t->o.stopped())) {
		unsigned n = (unsigned)MW_MIN(left, (uint64_t)STORES_AHEAD);
		for (unsigned i = 0; i < n && !r; i++)
			r = mw_imap_cmd(c, err,
			                "UID STORE %u %cFLAGS.SILENT (\\Answered)",
			                (unsigned)w->range[0].first,
			                (left - i) % 2 ? '-' : '+');
		for (unsigned i = 0; i < n && !r; i++) {
			r = mw_imap_wait(c, NULL, NULL, err);
			if (r == MW_EREFUSED) {
				note_why(w, "change a placeholder's flags");
				r = 0;
			}
		}
		left = w->why[0] ? 0 : left - n;
	}
	return r;
}

static int
expunge(struct mw_imap *c, const struct range *v, size_t n, struct mw_err *err)
{
	uint64_t limit = c->message_limit ? c->message_limit : UINT64_MAX;
	uint64_t part = 0; /* UIDs of v[i] that are done */
	int r = 0;
	for (size_t i = 0; i < n && !r;) {
		MW_BUF_AUTO set = {0};
		uint64_t room = limit;
		for (size_t k = 0; k < RANGES && i < n && room; k++) {
			uint64_t first = v[i].first + part, left = v[i].last - first + 1;
			uint64_t take = MW_MIN(left, room);
			mw_buf_printf(&set, k ? ",%u:%u" : "%u:%u", (unsigned)first,
			              (unsigned)(first + take - 1));
			room -= take;
			part = take == left ? 0 : part + take;
			i += take == left;
		}
		if (mw_buf_ok(&set))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		/* Again, for a server whose COPY does not keep flags. */
		r = mw_imap_cmd(c, err, "UID STORE %s +FLAGS.SILENT (\\Deleted)",
		                mw_buf_cstr(&set));
		if (!r)
			r = mw_imap_cmd(c, err, "UID EXPUNGE %s", mw_buf_cstr(&set));
		int a = r ? r : mw_imap_wait(c, NULL, NULL, err);
		if (!a || a == MW_EREFUSED)
			r = mw_imap_wait(c, NULL, NULL, err);
		r = a && a != MW_EREFUSED ? a : r;
	}
	return r;
}

static int
in_folder(struct raise *w, const struct mw_imap_folder *f, const struct mw_raised *told,
          struct mw_err *err)
{
	struct mw_imap *c = w->b->c;
	w->b->selected = false;
	w->modseq = 0;
	int r = mw_imap_cmd(c, err, "SELECT %s", f->quoted);
	if (!r)
		r = mw_imap_wait(c, on_select, w, err);
	if (!r)
		r = change_flags(w, told->modseq_to, told->modseq_to - told->modseq, err);
	if (!r)
		r = expunge(c, w->range, w->n_range, err);
	if (r == MW_EREFUSED) {
		note_why(w, "expunge the placeholders");
		r = 0;
	}
	return r;
}

static int
look(struct raise *w, const struct mw_imap_folder *f, struct mw_err *err)
{
	struct mw_imap *c = w->b->c;
	w->uidnext = w->modseq = 0;
	int r = mw_imap_cmd(c, err, "STATUS %s (UIDNEXT%s)", f->quoted,
	                    c->caps & MW_CAP_CONDSTORE ? " HIGHESTMODSEQ" : "");
	if (!r)
		r = mw_imap_wait(c, on_counts, w, err);
	if (r == MW_EREFUSED)
		note_why(w, "ask for UIDNEXT");
	return r == MW_EREFUSED ? 0 : r;
}

static int
raise_folder(struct raise *w, const struct mw_imap_folder *f, struct mw_raised *told,
             struct mw_err *err)
{
	uint64_t need = told->uidnext_to - told->uidnext;
	w->n_range = 0;
	w->why[0] = '\0';
	int r = select_staging(w, err);
	if (!r && !w->seed)
		r = make_seeds(w, need, err);
	if (!r && w->seed)
		r = use_up(w, f, need, err);
	if (!r && w->n_range)
		r = in_folder(w, f, told, err);
	if (!r)
		r = look(w, f, err);
	if (r)
		return r;
	if (!w->why[0] && w->uidnext < told->uidnext_to)
		(void)snprintf(w->why, sizeof w->why,
		               "the server's UIDNEXT did not follow");
	else if (!w->why[0] && told->modseq && w->modseq < told->modseq_to)
		(void)snprintf(w->why, sizeof w->why,
		               "the server's HIGHESTMODSEQ did not follow");
	told->uidnext_to = w->uidnext;
	told->modseq_to = w->modseq;
	told->why = w->why[0] ? w->why : NULL;
	return 0;
}

static int
consider(struct raise *w, const struct mw_imap_folder *f, struct mw_err *err)
{
	uint64_t n, gap = w->o->gap;
	if (f->shows || !concerns(w, f, &n) || is_young(w, f))
		return 0;
	w->why[0] = '\0';
	int r = look(w, f, err);
	if (r)
		return r;
	struct mw_raised told = {.folder = f->name,
	                         .uidnext = w->uidnext,
	                         .uidnext_to = w->uidnext,
	                         .modseq = w->modseq,
	                         .modseq_to = w->modseq};
	if (w->why[0])
		told.why = w->why;
	else if (!(w->b->c->caps & MW_CAP_UIDPLUS))
		told.why = "the server has no UIDPLUS";
	else if (!w->uidnext)
		told.why = "the server does not tell its UIDNEXT";
	else if (w->uidnext + n + gap >= UINT32_MAX)
		told.why = "its UIDs are nearly used up";
	if (told.why)
		return w->o->told(w->o->arg, &told);
	told.uidnext_to += n + gap;
	/* a message that was seen cost two: come, read */
	told.modseq_to += told.modseq ? 2 * n + gap : 0;
	if (!w->o->dry)
		r = raise_folder(w, f, &told, err);
	return r ? r : w->o->told(w->o->arg, &told);
}

int
mw_imap_box_raise(struct mw_target *t, const struct mw_raise_opts *o, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	struct raise w = {.t = t, .b = b, .o = o};
	int r = name_others(&w) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
	if (!r)
		r = mw_imap_staging_settle(b, err);
	for (size_t i = 0; i < b->n_folder && !r; i++)
		r = consider(&w, &b->folder[i], err);
	if (!r && w.seed) {
		r = select_staging(&w, err);
		if (!r)
			r = mw_imap_do(b->c, err, "UID EXPUNGE %s", w.seed);
		if (r == MW_EREFUSED)
			r = mw_imap_refused(b->c, err, "empty " MW_STAGING_NAME);
	}
	for (size_t i = 0; w.other && i < o->n_folder; i++)
		free(w.other[i].quoted);
	free(w.other);
	free(w.seed);
	free(w.range);
	return r;
}

/* ---- what a dead run left ---- */

bool
mw_imap_is_placeholder(const struct mw_target *t, struct mw_str header)
{
	char id[200];
	if (!t->o.ledger_id)
		return false;
	/* The ledger's ID is random: nobody outside can make such a message. */
	int n = snprintf(id, sizeof id, "<" MW_PLACEHOLDER "%s@mailwal.invalid>",
	                 t->o.ledger_id);
	return n > 0 && (size_t)n < sizeof id &&
	       memmem(header.p, header.n, id, (size_t)n) != NULL;
}

int
mw_imap_sweep(struct mw_imap_box *b, struct mw_err *err)
{
	size_t n = b->stale.n / sizeof(uint64_t);
	const uint64_t *key = (const void *)b->stale.p;
	int r = mw_buf_ok(&b->stale) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
	for (size_t i = 0, k; i < n && !r; i = k) {
		size_t folder = (size_t)(key[i] >> 32);
		MW_AUTOFREE struct range *v = calloc(n - i, sizeof *v);
		if (!v)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		size_t m = 0; /* ranges: they stand side by side */
		for (k = i; k < n && key[k] >> 32 == folder; k++) {
			uint32_t uid = (uint32_t)key[k];
			if (m && v[m - 1].last + 1 == uid)
				v[m - 1].last = uid;
			else
				v[m++] = (struct range){uid, uid};
		}
		b->selected = false;
		r = mw_imap_do(b->c, err, "SELECT %s", b->folder[folder].quoted);
		if (!r)
			r = expunge(b->c, v, m, err);
		r = r == MW_EREFUSED ? 0 : r; /* they are marked \Deleted, and read */
	}
	mw_buf_clear(&b->stale);
	return r;
}
