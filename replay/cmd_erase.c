/* cmd_erase.c - mailwal erase: one message, or one person's mail, out of the journal. */
#include "journal/base/util.h"
#include "journal/record/retire.h"
#include "journal/store/later.h"
#include "replay/erase_list.h"
#include "replay/erase_outcomes.h"
#include "replay/later.h"
#include "replay/retain.h"
#include "replay/select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct erase {
	struct mw_cli *cli;
	struct mw_query q;
	bool dry, yes, despite;
	struct mw_holds *holds;
	struct mw_arena *tmp; /* of one mail */
	struct mw_erase_listed l;
	struct mw_renew renew;     /* records that speak of others too */
	uint32_t login;            /* of the mail at hand: see mw_erase_name_login */
	size_t n_mail;             /* messages among those that go as a whole */
	uint64_t last;             /* records beyond it are not looked at */
	int64_t newest_us;         /* of those selected; INT64_MIN: none */
	size_t n_held;             /* of those selected */
	size_t unknown;            /* records that could not be read, at least */
	bool more;                 /* … of the last ones it is not known how many */
	struct mw_err no_key;      /* the first for want of a key; code 0: none */
	struct mw_seq_range *lost; /* which, where that is known */
	size_t n_lost, cap_lost;
	struct mw_buf names; /* of holds that cover some */
	struct mw_err *err;
};

/* Somebody's mail may be there, or his: nobody knows. */
static void
on_bad(void *arg, const struct mw_err *err)
{
	struct erase *e = arg;
	bool whole = err->last_seq != UINT64_MAX;
	struct mw_seq_range *v = NULL;
	if (err->code == MW_EERASED)
		return;
	if (err->code == MW_EKEY) { /* ends the command, which tells it */
		if (!e->no_key.code)
			e->no_key = *err;
		return;
	}
	(void)mw_cli_error(e->cli, err);
	e->more = e->more || !whole;
	e->unknown += err->first_seq && whole ? err->last_seq - err->first_seq + 1 : 1;
	if (err->first_seq)
		v = mw_arena_grow(e->q.arena, e->lost, &e->cap_lost, e->n_lost + 1,
		                  sizeof *v);
	if (!v) /* the line above has named it */
		return;
	e->lost = v;
	e->lost[e->n_lost++] = (struct mw_seq_range){err->first_seq, err->last_seq};
}

/* 1 if a hold covers it. */
static int
is_held(struct erase *e, struct mw_store *st, const struct mw_record *r)
{
	MW_BUF_AUTO t = {0};
	int k = mw_later_tokens(st, r, &t, e->err);
	if (k < 0)
		return k;
	struct mw_traits traits = {t.p, t.n / 8, r->time_us, r->plain_len, NULL, 0};
	const struct mw_hold *h = mw_holds_match(e->holds, &traits);
	if (!h)
		return 0;
	e->n_held++;
	MW_BUF_AUTO word = {0};
	mw_buf_putstr(&word, h->name);
	if (!e->names.n || !strstr(mw_buf_cstr(&e->names), mw_buf_cstr(&word)))
		mw_buf_printf(&e->names, "%s%s", e->names.n ? ", " : "",
		              mw_buf_cstr(&word));
	return 1;
}

/* Records that speak of this one mail only go with it. */
static int
on_note(void *arg, const struct mw_record *r)
{
	struct erase *e = arg;
	MW_BUF_AUTO t = {0};
	if (r->type == MW_TYPE_EXPANSION) /* always of one mail */
		return mw_erase_take_whole(&e->l, r, e->err);
	if (r->type != MW_TYPE_SPF && r->type != MW_TYPE_OUTCOME &&
	    r->type != MW_TYPE_RESTORE)
		return 0;
	int k = mw_record_tokens(e->cli->stores[0], r, &t, e->err);
	if (k < 0)
		return k;
	if (t.n == 0)
		return 0;
	/* own ID, type, and the mail's ID */
	if (t.n <= (size_t)3 * 8)
		return mw_erase_take_whole(&e->l, r, e->err);
	return r->type == MW_TYPE_OUTCOME ? mw_renew_note(&e->renew, r, e->err) : 0;
}

/* Of a mail that others keep: what became of this person's copy goes too, and by his
 * address it is found no more. */
static int
on_kept(void *arg, const struct mw_record *r)
{
	struct erase *e = arg;
	if (r->type == MW_TYPE_EXPANSION)
		return mw_erase_take_cut(&e->l, r, e->login, e->err);
	int k = r->type == MW_TYPE_OUTCOME ? mw_record_wiped(e->cli->stores[0], r, e->err)
	                                   : 1;
	return k == 0 ? mw_renew_note(&e->renew, r, e->err) : MW_MIN(k, 0);
}

static int
take_whole(struct erase *e, struct mw_store *st, const struct mw_record *r)
{
	e->newest_us = MW_MAX(e->newest_us, r->time_us);
	int k = mw_erase_take_whole(&e->l, r, e->err);
	e->n_mail += k == 0;
	if (k == 0)
		k = mw_store_find(st, MW_KEY_ID, mw_str((const char *)r->id, 6), on_note,
		                  e, e->err);
	return k;
}

/* ---- one person ---- */

/* Takes this person out of m and notes under which names. */
static int
take_out(struct erase *e, struct mw_store *st, struct mw_mail *m)
{
	size_t n = 0;
	int r = 0;
	e->login = 0;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		struct mw_rcpt *p = &m->rcpt[i];
		int addr = mw_query_is_user(&e->q, p->addr);
		size_t k = 0, had = p->n_mailbox;
		if (addr < 0)
			return mw_fail(e->err, addr, "out of memory");
		if (addr && r == 0)
			r = mw_erase_name_address(&e->l, st, &e->q, p->addr, e->err);
		for (size_t b = 0; b < had; b++) {
			int his = mw_query_is_user(&e->q, p->mailbox[b]);
			if (his < 0)
				return mw_fail(e->err, his, "out of memory");
			if (!his)
				p->mailbox[k++] = p->mailbox[b];
			else if (r == 0)
				r = mw_erase_name_address(&e->l, st, &e->q, p->mailbox[b],
				                          e->err);
		}
		p->n_mailbox = k;
		if (k || !(addr || had))
			m->rcpt[n++] = *p;
	}
	m->n_rcpt = n;
	int login = mw_query_is_login(&e->q, m);
	if (login < 0)
		return mw_fail(e->err, login, "out of memory");
	if (login) {
		if (r == 0)
			r = mw_erase_name_login(&e->l, st, m->auth_user, &e->login,
			                        e->err);
		m->auth_user = mw_str("", 0);
	}
	return r;
}

static int
on_item(void *arg, const struct mw_item *it)
{
	struct erase *e = arg;
	struct mw_mail m = it->mail; /* its arrays live for this call, and are ours */
	struct mw_copy *c = NULL;
	size_t n = 0;
	if (it->rec.seq > e->last)
		return 0;
	e->newest_us = MW_MAX(e->newest_us, it->rec.time_us);
	int r = is_held(e, it->store, &it->rec);
	if (r == MW_EDAMAGED && e->despite) { /* a hold may cover it */
		struct mw_err why = *e->err;
		mw_err_clear(e->err);
		why.first_seq = why.last_seq = it->rec.seq;
		on_bad(e, &why);
		return 0;
	}
	if (r != 0)
		return r < 0 ? r : 0;
	r = take_out(e, it->store, &m);
	mw_arena_reset(e->tmp);
	if (r == 0)
		r = mw_copies(e->cli->conf, &m, e->tmp, &c, &n, e->err);
	if (r < 0)
		return r;
	if (n == 0)
		return take_whole(e, it->store, &it->rec);
	r = mw_erase_take_part(&e->l, it->rec.seq, e->err);
	if (r < 0)
		return r;
	r = mw_erase_take_cut(&e->l, &it->rec, e->login, e->err);
	return r < 0 ? r
	             : mw_store_find(it->store, MW_KEY_ID,
	                             mw_str((const char *)it->rec.id, 6), on_kept, e,
	                             e->err);
}

/* What says that mail was put back for this person names him. */
static int
on_restore(void *arg, const struct mw_record *r)
{
	struct erase *e = arg;
	struct mw_store *st = e->cli->stores[0];
	MW_BUF_AUTO meta = {0};
	struct mw_restore x;
	struct mw_err why = {0};
	if (r->type != MW_TYPE_RESTORE || r->time_us < e->q.since_us ||
	    r->time_us >= e->q.until_us)
		return 0;
	mw_arena_reset(e->tmp);
	int k = mw_record_meta(st, r, &meta, &why);
	if (k == 0)
		k = mw_restore_decode(meta.p, meta.n, e->tmp, &x, &why);
	if (k == MW_EERASED)
		return 0;
	if (k < 0) {
		why.first_seq = why.last_seq = r->seq;
		on_bad(e, &why);
		return 0;
	}
	k = mw_query_is_user(&e->q, x.user);
	if (k < 0)
		return mw_fail(e->err, k, "out of memory");
	return k ? mw_erase_take_whole(&e->l, r, e->err) : 0;
}

/* ---- by ID: nothing needs to be read, so no key is needed ---- */

struct by_id {
	struct mw_record rec;
	size_t n;
};

static int
on_queue_id(void *arg, const struct mw_record *r)
{
	struct by_id *b = arg;
	if (r->type == MW_TYPE_MAIL) {
		b->rec = *r;
		b->n++;
	}
	return 0;
}

static int
take_id(struct erase *e, const char *text)
{
	struct mw_store *st = e->cli->stores[0];
	struct by_id b = {.n = 0};
	int r = mw_store_find_id(st, text, &b.rec, e->err);
	if (r == MW_ENOTFOUND || r == MW_EUSAGE) {
		int k = mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(text), on_queue_id, &b,
		                      NULL);
		if (k < 0 || b.n == 0)
			return r;
		mw_err_clear(e->err);
		if (b.n > 1)
			return mw_fail(e->err, MW_EUSAGE,
			               "%zu messages had the queue ID '%s'; give the ID",
			               b.n, text);
		r = 0;
	}
	if (r == 0 && b.rec.type != MW_TYPE_MAIL)
		return mw_fail(e->err, MW_EUSAGE, "'%s' is no message but a %s record",
		               text, mw_type_name(b.rec.type));
	for (size_t i = 0; r == 0 && i < e->l.list.n_whole; i++)
		if (e->l.list.whole[i].seq == b.rec.seq)
			return 0;
	if (r == 0)
		r = mw_record_wiped(st, &b.rec, e->err);
	if (r == 1)
		return mw_fail(e->err, MW_EERASED, "record '%s' has been erased", text);
	if (r == 0)
		r = is_held(e, st, &b.rec);
	if (r == 0)
		r = take_whole(e, st, &b.rec);
	return r < 0 ? r : 0;
}

static int
choose_now(struct erase *e)
{
	struct mw_store *st = e->cli->stores[0];
	int r = 0;
	mw_query_site(&e->q, e->cli->conf);
	if (e->q.n_user) {
		char type = MW_TYPE_RESTORE;
		r = mw_query_users(e->cli, &e->q, e->err);
		if (r < 0)
			return r;
		r = mw_select(e->cli, &e->q, on_item, e, on_bad, NULL, e->err);
		return r ? r
		         : mw_store_find(st, MW_KEY_TYPE, mw_str(&type, 1), on_restore, e,
		                         e->err);
	}
	for (size_t i = 0; r == 0 && i < e->q.n_id; i++)
		r = take_id(e, e->q.id[i]);
	return r;
}

static void
unchoose(struct erase *e)
{
	mw_erase_list_clear(&e->l);
	e->n_mail = e->n_held = e->unknown = e->n_lost = 0;
	e->more = false;
	e->newest_us = INT64_MIN;
	mw_buf_clear(&e->names);
}

/* What comes in meanwhile is left alone: of the newest of what there is, expansions may
 * still be on their way, and these are to go too. */
static int
choose(struct erase *e)
{
	struct mw_store *st = e->cli->stores[0];
	struct mw_record last = {.seq = 0};
	int r = mw_holds_load(st, &e->holds, e->err);
	if (r == 0)
		r = mw_store_last(st, UINT64_MAX, &last, e->err);
	if (r < 0)
		return r;
	e->last = last.seq;
	e->newest_us = INT64_MIN;
	r = choose_now(e);
	if (r == 0 && !e->dry && e->newest_us != INT64_MIN &&
	    mw_later_wait(e->cli->conf, e->newest_us, mw_cli_stopped)) {
		unchoose(e);
		r = mw_cli_stopped() ? mw_fail(e->err, MW_ECANCEL, "interrupted")
		                     : choose_now(e);
	}
	return r;
}

/* ---- the command ---- */

static json_t *
json_lost(const struct erase *e)
{
	json_t *v = json_array();
	for (size_t i = 0; i < e->n_lost; i++) {
		json_t *range = json_array();
		uint64_t last = e->lost[i].last;
		(void)json_array_append_new(range,
		                            json_integer((json_int_t)e->lost[i].first));
		(void)json_array_append_new(range, last == UINT64_MAX
		                                       ? json_null()
		                                       : json_integer((json_int_t)last));
		(void)json_array_append_new(v, range);
	}
	return v;
}

/* "12, 15 to 18, 20 and on" */
static void
put_lost(const struct erase *e, struct mw_buf *b)
{
	for (size_t i = 0; i < e->n_lost; i++) {
		const struct mw_seq_range *l = &e->lost[i];
		mw_buf_printf(b, "%s%llu", i ? ", " : "", (unsigned long long)l->first);
		if (l->last == UINT64_MAX)
			mw_buf_puts(b, " and on");
		else if (l->last != l->first)
			mw_buf_printf(b, " to %llu", (unsigned long long)l->last);
	}
}

static void
tell_lost(const struct erase *e)
{
	MW_BUF_AUTO b = {0};
	put_lost(e, &b);
	fprintf(stderr,
	        "mailwal: warning: %zu %srecord%s cannot be read and may be this "
	        "person's: not judged, not erased%s%s\n",
	        e->unknown, e->more ? "or more " : "",
	        e->unknown == 1 && !e->more ? "" : "s", b.n ? ": records " : "",
	        mw_buf_cstr(&b));
}

static void
tell(const struct erase *e)
{
	size_t part = e->l.list.n_part;
	if (e->cli->json) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "message_type", json_string("summary"));
		(void)json_object_set_new(o, "dry_run", json_boolean(e->dry));
		(void)json_object_set_new(o, "selected",
		                          json_integer((json_int_t)(e->n_mail + part)));
		(void)json_object_set_new(o, "erased",
		                          json_integer((json_int_t)e->n_mail));
		(void)json_object_set_new(o, "kept_for_others",
		                          json_integer((json_int_t)part));
		(void)json_object_set_new(o, "unreadable",
		                          json_integer((json_int_t)e->unknown));
		(void)json_object_set_new(o, "not_judged", json_lost(e));
		(void)json_object_set_new(o, "failed",
		                          json_integer((json_int_t)e->unknown));
		mw_cli_json(o);
		return;
	}
	if (e->unknown)
		tell_lost(e);
	if (e->cli->quiet)
		return;
	printf("%s%zu message%s %serased\n", e->dry ? "dry run: " : "", e->n_mail,
	       e->n_mail == 1 ? "" : "s", e->dry ? "would be " : "");
	if (part)
		printf("%zu more %s others have too: %s for this person only, the "
		       "others keep them\n",
		       part, "that", e->dry ? "would be gone" : "gone");
}

/* What records of outcomes say of other mail, gathered; they go with the rest. */
static int
gather_outcomes(struct erase *e)
{
	int r = mw_renew_prepare(&e->renew, e->cli->stores[0], &e->l.list, &e->q, e->err);
	if (r == MW_EKEY)
		return mw_err_hint(e->err, "nothing was erased; give --key FILE");
	for (size_t i = 0; r == 0 && i < e->renew.n_rec; i++)
		r = mw_erase_take_whole(&e->l, &e->renew.rec[i], e->err);
	return r;
}

static int
refuse(struct erase *e)
{
	if (e->no_key.code) {
		(void)mw_fail(e->err, MW_EKEY,
		              "%s, so nobody knows whose mail is there; nothing was "
		              "erased",
		              e->no_key.msg);
		return mw_err_hint(e->err, "give --key FILE");
	}
	if (e->unknown && !e->despite) {
		(void)mw_fail(e->err, MW_EKEY,
		              "%zu %srecord%s cannot be read, so nobody knows whose mail "
		              "that is; nothing was erased",
		              e->unknown, e->more ? "or more " : "",
		              e->unknown == 1 && !e->more ? "" : "s");
		return mw_err_hint(e->err, "--despite-damage erases the rest, and "
		                           "names what cannot be judged");
	}
	if (e->n_held == 0)
		return e->despite ? 0 : mw_retain_no_hold_lost(e->cli, e->err);
	(void)mw_fail(e->err, MW_EPERM,
	              "%zu message%s under hold (%s); nothing was erased", e->n_held,
	              e->n_held == 1 ? " is" : "s are", mw_buf_cstr(&e->names));
	return mw_err_hint(e->err, "'mailwal hold rm NAME' releases a hold");
}

static int
run(struct erase *e, struct mw_retain_job *j)
{
	MW_AUTOCLOSE int lock = -1;
	int r = mw_retain_begin(e->cli, !e->dry, j, e->err);
	if (r == 0 && !e->dry)
		r = mw_outcomes_lock(e->cli->journals[0], &lock, e->err);
	if (r == 0)
		r = choose(e);
	if (r == 0)
		r = refuse(e);
	size_t n = e->n_mail + e->l.list.n_part;
	if (r == 0 && n)
		r = gather_outcomes(e);
	if (r != 0 || n == 0 || e->dry)
		return r;
	r = mw_retain_confirm(n, e->yes, "erase", e->err);
	if (r == 0)
		r = mw_retain_write(e->cli, j, e->err);
	if (r == 0)
		r = mw_renew_write(&e->renew, &j->owner, e->err);
	if (r == 0)
		r = mw_erase_run(&j->owner, &e->l.list, e->err);
	return r;
}

static int
add_id(struct mw_query *q, const char *id, struct mw_err *err)
{
	if (*id == '\0')
		return mw_fail(err, MW_EUSAGE, "an ID is empty");
	const char **v = mw_arena_alloc(q->arena, (q->n_id + 1) * sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < q->n_id; i++)
		v[i] = q->id[i];
	v[q->n_id++] = id;
	q->id = v;
	return 0;
}

/* 0, or the exit status of a mistake. */
static int
parse(struct erase *e, int argc, char **argv)
{
	const struct mw_cmd *cmd = mw_cmd_find("erase");
	for (int i = 1; i < argc; i++) {
		int r = mw_query_option(&e->q, argc, argv, &i, e->err);
		if (r == 0 &&
		    (r = mw_cli_option(argc, argv, &i, "-n|--dry-run", NULL, e->err)) > 0)
			e->dry = true;
		if (r == 0 &&
		    (r = mw_cli_option(argc, argv, &i, "--yes", NULL, e->err)) > 0)
			e->yes = true;
		if (r == 0 && (r = mw_cli_option(argc, argv, &i, "--despite-damage", NULL,
		                                 e->err)) > 0)
			e->despite = true;
		if (r == 0 && argv[i][0] == '-')
			return mw_cli_unknown(e->cli, cmd, argv[i]);
		if (r == 0)
			r = add_id(&e->q, argv[i], e->err);
		if (r < 0)
			return mw_cli_error(e->cli, e->err);
	}
	if (e->q.all || (!e->q.n_user && !e->q.n_id))
		return mw_cli_usage(e->cli, cmd, "whose mail? give --user, or IDs");
	if (!e->q.n_user && e->q.any_term)
		return mw_cli_usage(e->cli, cmd,
		                    "a selection narrows --user; IDs stand alone");
	if (mw_query_check(&e->q, e->err) < 0)
		return mw_cli_error(e->cli, e->err);
	return 0;
}

int
mw_cmd_erase(struct mw_cli *cli, int argc, char **argv)
{
	MW_ARENA_AUTO *arena = mw_arena_new(16U << 20);
	MW_ARENA_AUTO *tmp = mw_arena_new(64U << 20);
	struct mw_err err = {0};
	struct erase e = {.cli = cli, .tmp = tmp, .err = &err};
	struct mw_retain_job j = {.lock = -1};
	if (!arena || !tmp)
		return mw_err_exit(MW_ENOMEM);
	mw_query_init(&e.q, arena);
	int status = parse(&e, argc, argv);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	mw_cli_catch_signals();
	int r = run(&e, &j);
	mw_retain_end(&j);
	if (r < 0 && !err.code)
		(void)mw_fail(&err, r, "%s", mw_err_text(r));
	if (r < 0)
		status = mw_cli_error(cli, &err);
	else
		tell(&e);
	if (r >= 0 && e.unknown)
		status = 3;
	mw_renew_done(&e.renew);
	mw_holds_free(e.holds);
	mw_buf_free(&e.names);
	mw_erase_list_free(&e.l);
	return status;
}
