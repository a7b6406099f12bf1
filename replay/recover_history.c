/* recover_history.c - who put back what for whom, as the journal has it. */
#include "journal/base/util.h"
#include "journal/record/retire.h"
#include "replay/recover_audit.h"
#include "replay/select.h"
#include "replay/table.h"

#include <stdio.h>
#include <string.h>

struct history {
	struct mw_cli *cli;
	struct mw_query q; /* its users; none: all */
	struct mw_arena *arena;
	struct mw_store *st;
	const struct mw_gone *gone; /* of st */
	struct mw_table *table;
	size_t bad;
	int bad_code;
};

static const struct mw_table_col columns[] = {
    {"DATE", 19, 0},
    {"BY", 0.25, MW_TABLE_TRUNC},
    {"FOR", 0.2, MW_TABLE_TRUNC},
    {"FOLDER", 0.15, MW_TABLE_TRUNC},
    {"MESSAGES", 8, MW_TABLE_RIGHT},
    {"RESULT", 0.2, MW_TABLE_TRUNC},
};

static void
set(json_t *o, const char *key, struct mw_str s)
{
	(void)json_object_set_new(o, key, mw_json_str(s));
}

static void
print_json(const struct mw_restore *x, const struct mw_record *r)
{
	const struct {
		const char *key;
		uint64_t v;
	} n[] = {{"seq", r->seq},
	         {"selected", x->selected},
	         {"restored", x->restored},
	         {"already_there", x->present},
	         {"failed", x->failed}};
	json_t *o = json_object(), *ids = json_array();
	char text[MW_ID_TEXT + 1], when[40];
	mw_time_rfc3339(when, sizeof when, x->time_us);
	(void)json_object_set_new(o, "message_type", json_string("restore"));
	(void)json_object_set_new(o, "time", json_string(when));
	(void)json_object_set_new(o, "phase", json_string(x->ended ? "end" : "begin"));
	set(o, "by", x->by);
	set(o, "user", x->user);
	set(o, "target", x->target);
	set(o, "folder", x->folder);
	set(o, "run", x->run);
	for (size_t i = 0; i < MW_COUNT(n); i++)
		if (i < 2 || x->ended)
			(void)json_object_set_new(o, n[i].key,
			                          json_integer((json_int_t)n[i].v));
	for (size_t i = 0; i < x->n_id; i++) {
		mw_id_text(text, x->id[i]);
		(void)json_array_append_new(ids, json_string(text));
	}
	(void)json_object_set_new(o, "ids", ids);
	mw_cli_json(o);
}

static int
print_row(struct history *h, const struct mw_restore *x)
{
	char when[32], n[32], result[80] = "begun";
	MW_BUF_AUTO by = {0}, user = {0}, folder = {0};
	mw_time_local(when, sizeof when, x->time_us);
	(void)snprintf(n, sizeof n, "%zu", x->n_id);
	if (x->ended)
		(void)snprintf(result, sizeof result,
		               "%llu put back, %llu there, %llu failed",
		               (unsigned long long)x->restored,
		               (unsigned long long)x->present,
		               (unsigned long long)x->failed);
	mw_buf_putstr(&by, x->by);
	mw_buf_putstr(&user, x->user);
	mw_buf_putstr(&folder, x->folder);
	const char *cells[] = {
	    when, mw_buf_cstr(&by), mw_buf_cstr(&user), mw_buf_cstr(&folder), n, result};
	return mw_table_row(h->table, cells);
}

static int
on_record(void *arg, const struct mw_record *r)
{
	struct history *h = arg;
	MW_BUF_AUTO meta = {0};
	struct mw_restore x;
	struct mw_err err = {0};
	if (mw_cli_stopped())
		return MW_ECANCEL;
	if (r->type != MW_TYPE_RESTORE || mw_gone_record(h->gone, r->seq))
		return 0;
	mw_arena_reset(h->arena);
	int k = mw_record_meta(h->st, r, &meta, &err);
	if (k == 0)
		k = mw_restore_decode(meta.p, meta.n, h->arena, &x, &err);
	if (k == MW_EERASED)
		return 0;
	if (k < 0) {
		if (h->bad++ == 0)
			(void)mw_cli_error(h->cli, &err);
		h->bad_code = h->bad_code ? h->bad_code : k;
		return 0;
	}
	k = h->q.n_user ? mw_query_is_user(&h->q, x.user) : 1;
	if (k <= 0)
		return k;
	if (!h->cli->json)
		return print_row(h, &x);
	print_json(&x, r);
	return 0;
}

int
mw_restore_history(struct mw_cli *cli, const char *user)
{
	MW_ARENA_AUTO *arena = mw_arena_new(64U << 20);
	struct history h = {.cli = cli, .arena = arena};
	struct mw_err err = {0};
	const char *users[] = {user};
	char type = MW_TYPE_RESTORE;
	int r = 0;
	mw_query_init(&h.q, arena);
	h.q.user = users;
	h.q.n_user = user != NULL;
	if (cli->conf)
		h.q.delimiter = cli->conf->recipient_delimiter;
	h.table = arena ? mw_table_new(columns, MW_COUNT(columns), true) : NULL;
	if (!h.table)
		return mw_err_exit(MW_ENOMEM);
	for (size_t k = 0; k < cli->n_journals && r == 0; k++) {
		MW_GONE_AUTO *gone = NULL;
		h.st = cli->stores[k];
		r = mw_gone_load(h.st, &gone, &err);
		h.gone = gone;
		if (r == 0)
			r = mw_store_find(h.st, MW_KEY_TYPE, mw_str(&type, 1), on_record,
			                  &h, &err);
	}
	if (r == 0 && !cli->json)
		r = mw_table_print(h.table);
	mw_table_free(h.table);
	if (r < 0) {
		if (!err.code)
			(void)mw_fail(&err, r, "%s", mw_err_text(r));
		return mw_cli_error(cli, &err);
	}
	return h.bad ? (h.bad_code == MW_EKEY ? mw_err_exit(MW_EKEY) : 3) : 0;
}
