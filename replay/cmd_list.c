/* cmd_list.c - mailwal list. */
#include "journal/base/util.h"
#include "replay/erased.h"
#include "replay/item.h"
#include "replay/list.h"
#include "replay/sender.h"
#include "replay/table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum format {
	TABLE,
	TSV
};
enum {
	ROWS_AT_ONCE = 1000, /* of a table: memory stays small, widths nearly steady */
	STRETCH = 256        /* records of the log, for a few matches; then longer ones */
};

struct ref { /* a match, kept where the order is not that of one log */
	int64_t time_us;
	size_t journal;
	struct mw_record rec;
};

struct list {
	struct mw_cli *cli;
	struct mw_query q;
	struct mw_arena *arena; /* of one row */
	struct mw_senders senders;
	enum format format;
	bool header;
	int (*take)(void *arg, const struct mw_item *it);
	void *arg;
	uint64_t limit; /* 0: none */
	bool newest;    /* the limit counts from the end */
	bool backwards; /* and so the log is walked from there, stretch by stretch */
	struct mw_table *table;
	uint64_t n;
	struct ref *ref; /* with newest: a ring per journal */
	size_t n_ref, cap_ref, ring_from;
	int failed;
	bool no_key; /* some record needs a key that was not given */
};

static const struct mw_table_col columns[] = {
    {"ID", 11, 0},
    {"DATE", 19, 0},
    {"FROM", 0.2, MW_TABLE_TRUNC},
    {"TO", 0.2, MW_TABLE_TRUNC},
    {"SUBJECT", 0.3, MW_TABLE_TRUNC},
    {"SIZE", 8, MW_TABLE_RIGHT},
};

static int
flush_table(struct list *l)
{
	return l->table ? mw_table_print(l->table) : 0;
}

static void
put_cell(struct mw_buf *b, struct mw_str s, char end)
{
	mw_text_safe(s, false, b);
	mw_buf_putc(b, end);
}

static int
print_tsv(const char *id, const char *date, const struct mw_mail *m, struct mw_str from,
          struct mw_str to, struct mw_str subject)
{
	MW_BUF_AUTO b = {0};
	mw_buf_printf(&b, "%s\t%s\t", id, date);
	put_cell(&b, from, '\t');
	put_cell(&b, to, '\t');
	put_cell(&b, subject, '\t');
	mw_buf_printf(&b, "%llu\n", (unsigned long long)m->size);
	if (mw_buf_ok(&b) < 0)
		return MW_ENOMEM;
	(void)fwrite(b.p, 1, b.n, stdout); /* errors stick: looked at after each row */
	return 0;
}

static int
print_row(struct list *l, const struct mw_item *it)
{
	const struct mw_mail *m = &it->mail;
	char id[MW_ID_TEXT + 1], date[32], size[32];
	MW_BUF_AUTO to = {0};
	MW_BUF_AUTO from = {0};
	MW_BUF_AUTO subject = {0};
	mw_id_text(id, it->rec.id);
	id[MW_ID_SHORT] = '\0';
	mw_time_local(date, sizeof date, m->time_us);
	mw_item_to(m, &to);
	if (m->sender.n)
		mw_buf_putstr(&from, m->sender);
	else
		mw_buf_puts(&from, "<>");
	mw_text_header(m->subject, &subject);
	if (l->format == TSV)
		return print_tsv(id, date, m, mw_buf_str(&from), mw_buf_str(&to),
		                 mw_buf_str(&subject));
	mw_size_human(size, sizeof size, m->size);
	const char *cells[] = {
	    id, date, mw_buf_cstr(&from), mw_buf_cstr(&to), mw_buf_cstr(&subject), size};
	int r = mw_table_row(l->table, cells);
	if (r == 0 && mw_table_rows(l->table) >= ROWS_AT_ONCE)
		r = flush_table(l);
	return r;
}

static int
print_item(struct list *l, const struct mw_item *it)
{
	int r = 0;
	if (l->cli->json) {
		mw_arena_reset(l->arena);
		json_t *o = mw_item_json(l->cli, it, l->arena);
		struct mw_spf spf;
		if (mw_senders_find(&l->senders, it->store, it->rec.id, l->arena, &spf))
			o = mw_sender_add(o, &spf);
		mw_cli_json(o);
	} else {
		r = print_row(l, it);
	}
	if (r == 0 && ferror(stdout))
		r = MW_EIO;
	l->n++;
	return l->failed = r;
}

/* Keeps the match; with `newest` only the last `limit` of this journal. */
static int
keep(struct list *l, const struct mw_item *it)
{
	if (l->n_ref > l->ring_from && l->ref[l->n_ref - 1].journal != it->journal)
		l->ring_from = l->n_ref;
	struct ref r = {it->mail.time_us, it->journal, it->rec};
	if (l->newest && l->n_ref - l->ring_from >= l->limit) {
		/* Two limits' worth, then the older half goes: no ring arithmetic. */
		if (l->n_ref - l->ring_from >= 2 * l->limit) {
			memmove(l->ref + l->ring_from, l->ref + l->n_ref - l->limit,
			        l->limit * sizeof r);
			l->n_ref = l->ring_from + l->limit;
		}
	}
	if (l->n_ref == l->cap_ref) {
		size_t cap = l->cap_ref ? l->cap_ref * 2 : 256;
		struct ref *v = reallocarray(l->ref, cap, sizeof *v);
		if (!v)
			return l->failed = MW_ENOMEM;
		l->ref = v;
		l->cap_ref = cap;
	}
	l->ref[l->n_ref++] = r;
	return 0;
}

static bool
keeps(const struct list *l)
{
	return l->newest || l->cli->n_journals > 1;
}

static int
on_item(void *arg, const struct mw_item *it)
{
	struct list *l = arg;
	int taken = l->take ? l->take(l->arg, it) : 1;
	if (taken <= 0)
		return taken;
	if (keeps(l))
		return keep(l, it);
	int r = print_item(l, it);
	return r == 0 && l->limit && l->n >= l->limit ? 1 : r;
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	struct list *l = arg;
	bool said = err->code == MW_EKEY && l->no_key; /* of another stretch */
	l->no_key = l->no_key || err->code == MW_EKEY;
	if (!said && (err->code != MW_EERASED || l->cli->verbose))
		(void)mw_cli_error(l->cli, err);
}

static int
by_time(const void *a, const void *b)
{
	const struct ref *x = a, *y = b;
	if (x->time_us != y->time_us)
		return x->time_us < y->time_us ? -1 : 1;
	if (x->journal != y->journal)
		return x->journal < y->journal ? -1 : 1;
	return x->rec.seq < y->rec.seq ? -1 : x->rec.seq > y->rec.seq;
}

static int
by_seq(const void *a, const void *b)
{
	uint64_t x = ((const struct ref *)a)->rec.seq;
	uint64_t y = ((const struct ref *)b)->rec.seq;
	return x < y ? -1 : x > y;
}

static int
print_kept(struct list *l)
{
	MW_ARENA_AUTO *a = mw_arena_new(256U << 20);
	struct mw_erased erased = {.v = NULL};
	size_t from = 0, to = l->n_ref;
	int r = a ? 0 : MW_ENOMEM;
	if (l->n_ref && l->cli->n_journals > 1)
		qsort(l->ref, l->n_ref, sizeof *l->ref, by_time);
	else if (l->n_ref && l->backwards)
		qsort(l->ref, l->n_ref, sizeof *l->ref, by_seq);
	if (l->limit && l->n_ref > l->limit) {
		from = l->newest ? l->n_ref - l->limit : 0;
		to = from + l->limit;
	}
	for (size_t i = from; r == 0 && i < to; i++) {
		struct mw_item it = {.store = l->cli->stores[l->ref[i].journal],
		                     .journal = l->ref[i].journal,
		                     .rec = l->ref[i].rec};
		struct mw_err err = {0};
		mw_arena_reset(a);
		if (mw_cli_stopped())
			r = MW_ECANCEL;
		else if (mw_erased_mail(&erased, it.store, it.journal, &it.rec, a,
		                        &it.mail, &err) < 0)
			on_bad(l, &err); /* it was readable a moment ago */
		else
			r = print_item(l, &it);
	}
	mw_erased_done(&erased);
	return r;
}

static int
parse_limit(const char *v, uint64_t *ret, struct mw_err *err)
{
	char *end;
	errno = 0;
	unsigned long long n = strtoull(v, &end, 10);
	if (errno || end == v || *end || *v == '-' || n == 0 || n > 100000000)
		return mw_fail(err, MW_EUSAGE, "--limit: '%s' is not a number above 0",
		               v);
	*ret = n;
	return 0;
}

int
mw_list_option(struct mw_list_opts *o, int argc, char **argv, int *i, struct mw_err *err)
{
	const char *v = NULL;
	int r = mw_cli_option(argc, argv, i, "-o", &v, err);
	if (r > 0) {
		o->tsv = strcmp(v, "tsv") == 0;
		if (!o->tsv && strcmp(v, "table") != 0)
			return mw_fail(err, MW_EUSAGE, "-o: '%s' is none of table, tsv",
			               v);
	}
	if (r == 0 && (r = mw_cli_option(argc, argv, i, "--limit", &v, err)) > 0)
		r = parse_limit(v, &o->limit, err) < 0 ? MW_EUSAGE : 1;
	if (r == 0 && (r = mw_cli_option(argc, argv, i, "--no-header", NULL, err)) > 0)
		o->header = false;
	return r;
}

/* 0, or the exit status of a mistake. */
static int
parse(struct mw_list_opts *o, int argc, char **argv)
{
	const struct mw_cmd *cmd = mw_cmd_find("list");
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = mw_query_option(&o->q, argc, argv, &i, &err);
		if (r == 0)
			r = mw_list_option(o, argc, argv, &i, &err);
		if (r < 0)
			return mw_cli_error(o->cli, &err);
		if (r == 0)
			return mw_cli_unknown(o->cli, cmd, argv[i]);
	}
	return mw_query_check(&o->q, &err) < 0 ? mw_cli_error(o->cli, &err) : 0;
}

/* The newest matches of one journal, from its end on backwards. */
static int
select_back(struct list *l, struct mw_store *st, const struct mw_span *all,
            struct mw_span *span, size_t *n_bad, struct mw_err *err)
{
	struct mw_record last;
	struct mw_query q = l->q;
	uint64_t n = STRETCH + 2 * l->limit;
	size_t had = l->n_ref;
	struct mw_err ignored; /* the walk meets it, and says so */
	int r = mw_store_last(st, UINT64_MAX, &last, &ignored);
	if (r == MW_ENOMEM)
		return mw_fail(err, r, "out of memory");
	q.span = all;
	uint64_t at = r == 1 ? last.seq + 1 : UINT64_MAX;
	span->from = UINT64_MAX; /* what has come since belongs to it */
	n = r == 1 ? n : UINT64_MAX;
	for (r = 0; r == 0 && at > 1; n *= 8) {
		size_t bad = 0;
		span->to = span->from;
		at = span->from = at > n ? at - n : 1;
		l->ring_from = l->n_ref;
		r = mw_select(l->cli, &q, on_item, l, on_bad, &bad, err);
		*n_bad += bad;
		if (l->n_ref - had >= l->limit)
			break;
	}
	*span = (struct mw_span){0};
	return r;
}

static int
select_all(struct list *l, size_t *n_bad, struct mw_err *err)
{
	const struct mw_query *q = &l->q;
	/* What the index finds is found at once. */
	l->backwards = l->newest && !q->n_id && !q->n_queue_id && !q->n_message_id &&
	               !q->n_sender && !q->n_user && !q->key && !q->span;
	if (!l->backwards)
		return mw_select(l->cli, q, on_item, l, on_bad, n_bad, err);
	MW_AUTOFREE struct mw_span *v = calloc(l->cli->n_journals + 1, sizeof *v);
	int r = v ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t k = 0; r == 0 && k < l->cli->n_journals; k++)
		r = select_back(l, l->cli->stores[k], v, &v[k], n_bad, err);
	return r;
}

static int
run(struct list *l)
{
	struct mw_err err = {0};
	size_t n_bad = 0;
	if (l->format == TSV && l->header && !l->cli->json)
		puts("id\tdate\tfrom\tto\tsubject\tsize");
	int r = select_all(l, &n_bad, &err);
	if (r >= 0)
		r = keeps(l) ? print_kept(l) : 0;
	if (r == 0 || r == MW_ECANCEL) {
		int p = flush_table(l);
		r = p < 0 ? p : r;
	}
	if (r == MW_EIO && ferror(stdout))
		return 0; /* main says so */
	if (r < 0) {
		if (!err.code)
			(void)mw_fail(&err, r, "%s", mw_err_text(r));
		return mw_cli_error(l->cli, &err);
	}
	if (l->no_key)
		return mw_err_exit(MW_EKEY);
	if (n_bad && !l->cli->quiet)
		fprintf(stderr,
		        "mailwal: %zu place%s could not be read; 'mailwal verify' says "
		        "more\n",
		        n_bad, n_bad == 1 ? "" : "s");
	return n_bad ? 3 : 0;
}

int
mw_list_run(const struct mw_list_opts *o, uint64_t *ret_n)
{
	MW_ARENA_AUTO *row = mw_arena_new(256U << 20);
	struct list l = {.cli = o->cli,
	                 .q = o->q,
	                 .arena = row,
	                 .format = o->tsv ? TSV : TABLE,
	                 .header = o->header,
	                 .take = o->take,
	                 .arg = o->arg,
	                 .limit = o->limit};
	struct mw_err err = {0};
	l.q.user_by_index = true;
	l.newest = l.limit && l.q.since_us == INT64_MIN && !l.q.since_mark;
	l.table = row ? mw_table_new(columns, MW_COUNT(columns), l.header) : NULL;
	if (!l.table)
		return mw_cli_error(o->cli,
		                    (mw_fail(&err, MW_ENOMEM, "out of memory"), &err));
	int status = run(&l);
	if (ret_n)
		*ret_n = l.n;
	mw_table_free(l.table);
	free(l.ref);
	mw_senders_done(&l.senders);
	return status;
}

int
mw_cmd_list(struct mw_cli *cli, int argc, char **argv)
{
	MW_ARENA_AUTO *words = mw_arena_new(16U << 20);
	struct mw_list_opts o = {.cli = cli, .header = true};
	struct mw_err err = {0};
	if (!words)
		return mw_cli_error(cli,
		                    (mw_fail(&err, MW_ENOMEM, "out of memory"), &err));
	mw_query_init(&o.q, words);
	int status = parse(&o, argc, argv);
	if (status == 0)
		status = mw_cli_begin(cli);
	return status ? status : mw_list_run(&o, NULL);
}
