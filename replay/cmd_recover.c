/* cmd_recover.c - mailwal recover: one user's mail, found and put back. */
#include "journal/base/domain.h"
#include "journal/base/util.h"
#include "replay/erased.h"
#include "replay/list.h"
#include "replay/outcomes.h"
#include "replay/queue.h"
#include "replay/recover.h"
#include "replay/recover_audit.h"
#include "replay/run.h"
#include "replay/target_args.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SCANNED = 9 /* characters of an ID that are looked up by a walk, not by tokens */
};

struct recover {
	struct mw_cli *cli;
	struct mw_list_opts list; /* with the query */
	struct mw_target_opts t;
	const char *who, *to, *report_file, *state, *queue;
	struct mw_queue *mta_queue;
	bool dry, missing, history;
	bool put; /* something may be put back; else it is only looked */
	struct mw_arena *arena, *tmp;
	struct mw_recover_user user;
	struct mw_report report;
	struct mw_run run;
	struct mw_restore_log log;
	struct mw_erased erased;
	bool *fresh; /* by journal: the MTA's logs were read just now */
};

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("recover");
}

/* ---- arguments ---- */

static int
add_id(struct mw_query *q, const char *id, struct mw_err *err)
{
	if (*id == '\0')
		return mw_fail(err, MW_EUSAGE, "an ID is empty");
	/* Room doubles at powers of two, so that no capacity need be kept. */
	if ((q->n_id & (q->n_id - 1)) == 0) {
		size_t cap = q->n_id;
		const char **v =
		    mw_arena_grow(q->arena, q->id, &cap, q->n_id + 1, sizeof *v);
		if (!v)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		q->id = v;
	}
	q->id[q->n_id++] = id;
	return 1;
}

/* 1 taken, 0 not ours, negative wrong. */
static int
option(struct recover *c, int argc, char **argv, int *i, struct mw_err *err)
{
	const struct mw_cli_opt opts[] = {
	    {"-u|--user", &c->who, NULL},        {"--to", &c->to, NULL},
	    {"--report", &c->report_file, NULL}, {"--state", &c->state, NULL},
	    {"--missing", NULL, &c->missing},    {"--history", NULL, &c->history},
	    {"-n|--dry-run", NULL, &c->dry},     {"--queue", &c->queue, NULL},
	};
	const char *was = c->who;
	int r = mw_cli_options(opts, MW_COUNT(opts), argc, argv, i, err);
	if (r > 0 && was && c->who != was)
		return mw_fail(err, MW_EUSAGE, "one user at a time");
	if (r > 0 && c->who != was && *c->who)
		return mw_query_address("--user", c->who, c->arena, &c->who, err) < 0
		           ? MW_EUSAGE
		           : r;
	if (!r)
		r = mw_target_option(&c->t, argc, argv, i, err);
	if (!r)
		r = mw_list_option(&c->list, argc, argv, i, err);
	return r ? r : mw_query_option(&c->list.q, argc, argv, i, err);
}

/* What does not fit together; 0, or the exit status. */
static int
check(struct recover *c)
{
	struct mw_query *q = &c->list.q;
	struct mw_err err = {0};
	if (c->history && (c->to || c->missing || q->n_id || q->any_term || q->all))
		return mw_cli_usage(c->cli, self(),
		                    "--history takes nothing but --user beside it");
	if (c->history)
		return 0;
	if (!c->who || !*c->who)
		return mw_cli_usage(c->cli, self(), "whose mail? give --user");
	if (mw_query_check(q, &err) < 0)
		return mw_cli_error(c->cli, &err);
	if (q->n_id && q->any_term)
		return mw_cli_usage(c->cli, self(), "give IDs or a selection, not both");
	if (c->missing && !c->to)
		return mw_cli_usage(c->cli, self(),
		                    "--missing needs the mail store to look into: "
		                    "--to TARGET");
	if (!c->to && (c->t.folder || c->dry || c->report_file || c->queue))
		return mw_cli_usage(c->cli, self(),
		                    "--folder, --dry-run, --queue and --report belong to "
		                    "--to");
	if ((c->to && mw_target_check(c->to, &err) < 0) ||
	    (c->t.folder && mw_target_folder_check(c->t.folder, &err) < 0) ||
	    mw_report_check(c->report_file, c->dry ? NULL : c->to, &err) < 0)
		return mw_cli_error(c->cli, &err);
	c->put = c->to && (!c->missing || c->t.folder);
	bool named = q->any_term || q->all || q->n_id;
	if (c->put && !c->missing && !named)
		return mw_cli_usage(c->cli, self(),
		                    "say what to put back: IDs, a selection, --missing "
		                    "or --all");
	q->all = q->all || !named;
	return 0;
}

static int
parse(struct recover *c, int argc, char **argv)
{
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = option(c, argc, argv, &i, &err);
		if (!r && argv[i][0] == '-' && strcmp(argv[i], "--") != 0)
			return mw_cli_unknown(c->cli, self(), argv[i]);
		if (!r && strcmp(argv[i], "--") != 0)
			r = add_id(&c->list.q, argv[i], &err);
		if (r < 0)
			return mw_cli_error(c->cli, &err);
	}
	return check(c);
}

/* ---- the chosen IDs ---- */

struct named {
	struct recover *c;
	size_t n, of_user;
	struct mw_err bad; /* the first that could not be read */
};

static int
on_named(void *arg, const struct mw_item *it)
{
	struct named *n = arg;
	int r = mw_recover_has_copy(n->c->cli->conf, &it->mail, n->c->user.mailbox,
	                            n->c->tmp);
	n->n++;
	n->of_user += r > 0;
	return r < 0 ? r : 0;
}

static void
on_named_bad(void *arg, const struct mw_err *err)
{
	struct named *n = arg;
	if (!n->bad.code)
		n->bad = *err;
}

/* Erased mail is in no index, but the frame with its ID still stands in the log. */
static bool
was_erased(struct recover *c, const char *text)
{
	char prefix[SCANNED + 1];
	uint8_t id[MW_ID_LEN];
	unsigned bits;
	if (!mw_id_parse(text, id, &bits))
		return false;
	(void)snprintf(prefix, sizeof prefix, "%s", text);
	for (size_t k = 0; k < c->cli->n_journals; k++) {
		struct mw_record rec;
		struct mw_err ignored;
		if (mw_store_find_id(c->cli->stores[k], prefix, &rec, &ignored) == 0 &&
		    mw_id_match(rec.id, id, bits) && rec.type == MW_TYPE_MAIL)
			return true;
	}
	return false;
}

/* Each ID must name mail of this user that is still there; nothing is done else. */
static int
check_ids(struct recover *c, struct mw_err *err)
{
	const struct mw_query *all = &c->list.q;
	for (size_t i = 0; i < all->n_id; i++) {
		struct named n = {.c = c};
		struct mw_query q;
		mw_query_init(&q, c->arena);
		q.id = &all->id[i];
		q.n_id = 1;
		int r = mw_select(c->cli, &q, on_named, &n, on_named_bad, NULL, err);
		if (r < 0)
			return r;
		if (n.of_user)
			continue;
		if (!n.n && n.bad.code) {
			*err = n.bad;
			return n.bad.code;
		}
		if (!n.n && was_erased(c, all->id[i]))
			return mw_fail(err, MW_EERASED, "record '%s' has been erased",
			               all->id[i]);
		(void)mw_fail(err, MW_ENOTFOUND,
		              n.n ? "'%s' is no mail of %s"
		                  : "no record has the ID or queue ID '%s'",
		              all->id[i], c->user.mailbox);
		return mw_err_hint(err, "'mailwal recover --user %s' lists what there is",
		                   c->user.mailbox);
	}
	return 0;
}

/* ---- listing ---- */

static int
take_copy(void *arg, const struct mw_item *it)
{
	struct recover *c = arg;
	return mw_recover_has_copy(c->cli->conf, &it->mail, c->user.mailbox, c->tmp);
}

static int
by_seq(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

struct gone { /* sequence numbers of what is missing, by journal, ascending */
	uint64_t **seq;
	size_t *n;
};

static int
take_gone(void *arg, const struct mw_item *it)
{
	const struct gone *g = arg;
	return g->n[it->journal] && bsearch(&it->rec.seq, g->seq[it->journal],
	                                    g->n[it->journal], sizeof(uint64_t), by_seq);
}

/* Prints what the run found missing. */
static int
print_missing(struct recover *c)
{
	struct mw_plan *p = c->run.plan;
	size_t n = c->cli->n_journals;
	struct gone g = {calloc(n, sizeof(uint64_t *)), calloc(n, sizeof(size_t))};
	struct mw_err err = {0};
	int status = 0;
	bool room = g.seq && g.n;
	for (size_t k = 0; room && k < n; k++)
		room = (g.seq[k] = calloc(p->n_wanted + 1, sizeof(uint64_t))) != NULL;
	for (size_t b = 0; room && b < p->n_box; b++)
		for (size_t i = 0; i < p->box[b].n; i++) {
			const struct mw_plan_copy *x = &p->box[b].v[i];
			const struct mw_plan_rec *rec = &p->rec[x->rec];
			if (x->wanted && x->fate == MW_FATE_RESTORED)
				g.seq[rec->journal][g.n[rec->journal]++] = rec->seq;
		}
	for (size_t k = 0; room && k < n && !status; k++) {
		qsort(g.seq[k], g.n[k], sizeof(uint64_t), by_seq);
		if (mw_cli_open(c->cli, k, &c->cli->stores[k], &err) < 0)
			status = mw_cli_error(c->cli, &err);
	}
	c->list.take = take_gone;
	c->list.arg = &g;
	c->list.q.n_body = c->list.q.n_attachment = 0; /* they were looked into */
	if (!room)
		status = mw_err_exit(MW_ENOMEM);
	else if (!status && c->report.restored)
		status = mw_list_run(&c->list, NULL);
	for (size_t k = 0; g.seq && k < n; k++)
		free(g.seq[k]);
	free(g.seq);
	free(g.n);
	return status;
}

/* ---- outcomes, audit ---- */

static enum mw_known_class
ask_known(void *arg, struct mw_run *r, struct mw_plan_copy *copy)
{
	struct recover *c = arg;
	const struct mw_plan_rec *rec = &r->plan->rec[copy->rec];
	struct mw_err ignored = {0}; /* in doubt nothing is known */
	struct mw_known *known = NULL;
	struct mw_outcome o = {0};
	struct mw_copy *v;
	size_t n;
	enum mw_known_class k = MW_KNOWN_NOTHING;
	copy->may_wait = !copy->sent && !rec->imported;
	struct mw_store *st = mw_run_store(r, rec->journal, &ignored);
	if (!st || mw_run_load(r, rec, &ignored) < 0)
		return k;
	mw_arena_reset(c->tmp);
	const struct mw_gone *gone;
	if (mw_erased_gone(&c->erased, st, rec->journal, &gone, &ignored) < 0 ||
	    mw_outcomes_of(st, gone, &r->rec, c->tmp, &o) <= 0)
		return k;
	o.seq = rec->seq;
	if (mw_known_new(&o, 1, c->fresh[rec->journal], &known, &ignored) < 0)
		return k;
	if (mw_copies(c->cli->conf, &r->mail, c->tmp, &v, &n, &ignored) < 0)
		n = 0;
	for (size_t i = 0; i < n; i++)
		if (v[i].sent == copy->sent &&
		    mw_addr_eq(mw_strz(v[i].mailbox), mw_strz(c->user.mailbox))) {
			k = mw_known_copy(known, c->cli->conf, rec->seq, &v[i], INT64_MIN,
			                  c->tmp);
			copy->may_wait &= mw_known_may_wait(known, c->cli->conf, rec->seq,
			                                    &v[i], c->tmp);
		}
	mw_known_free(known);
	return k;
}

static int
before_put(void *arg, struct mw_run *r, struct mw_err *err)
{
	struct recover *c = arg;
	return mw_restore_log_begin(&c->log, r->plan, err);
}

/* ---- the run ---- */

static void
on_bad_walk(void *arg, const struct mw_err *err)
{
	const struct recover *c = arg;
	if (err->code != MW_EERASED || c->cli->verbose)
		(void)mw_cli_error(c->cli, err);
}

/* The readers of a command and a writer, or two readers, of one index in one process do
 * not go together. */
static void
close_stores(struct mw_cli *cli)
{
	for (size_t k = 0; k < cli->n_journals; k++)
		if (cli->stores[k])
			mw_store_close(MW_TAKE(cli->stores[k]));
}

static int
open_ledger(struct recover *c, struct mw_err *err)
{
	char dir[PATH_MAX];
	int n = c->state ? snprintf(dir, sizeof dir, "%s", c->state)
	                 : snprintf(dir, sizeof dir, "%s/ledger", c->cli->journals[0]);
	if (n < 0 || n >= (int)sizeof dir)
		return mw_fail(err, MW_EUSAGE, "path too long");
	int r = mw_ledger_open(dir, c->to, false, &c->run.ledger, err);
	if (r)
		return r;
	c->t.ledger_id = mw_ledger_id(c->run.ledger);
	c->t.run_id = c->report.run_id = mw_ledger_run(c->run.ledger);
	return 0;
}

static int
prepare(struct recover *c, struct mw_err *err)
{
	static char journal[MW_ID_TEXT + 1] = "-";
	int r = c->put && !c->dry ? open_ledger(c, err) : 0;
	if (r)
		return r;
	mw_id_text(journal, mw_store_id(c->cli->stores[0]));
	c->t.journal_id = journal;
	c->t.sent_folder = c->cli->conf->sent_folder;
	c->t.stopped = mw_cli_stopped;
	c->t.note = mw_cli_note;
	c->t.note_arg = c->cli;
	r = mw_target_new(c->to, &c->t, &c->run.target, err);
	if (!r && !mw_target_readable(c->run.target)) {
		(void)mw_fail(err, MW_EUSAGE, "recover cannot see what '%s' has", c->to);
		return mw_err_hint(err, "imap://, imaps://, maildir:, mbox: and eml: can "
		                        "be read back");
	}
	c->report.state = c->state;
	if (!r)
		c->report.undoable = mw_target_removes(c->run.target);
	c->report.again = mw_target_again(c->cli, &c->report, &c->t);
	c->fresh = calloc(c->cli->n_journals, sizeof *c->fresh);
	if (!c->fresh)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t k = 0; k < c->cli->n_journals; k++)
		c->fresh[k] = mw_known_is_fresh(c->cli->journals[k], c->cli->stores[k]);
	return r;
}

static int
run(struct recover *c, struct mw_err *err)
{
	int r = prepare(c, err);
	if (r)
		return r;
	const struct mw_plan_opts po = {.cli = c->cli,
	                                .query = &c->list.q,
	                                .target = c->run.target,
	                                .mailbox = c->user.mailbox,
	                                .bad = mw_report_unreadable,
	                                .arg = &c->report};
	r = mw_run_queue_find(c->cli, c->queue, &c->mta_queue, err);
	if (!r)
		r = mw_plan_make(&po, &c->run.plan, err);
	close_stores(c->cli);
	if (r)
		return r;
	c->run.queue = c->mta_queue;
	r = c->run.plan->n_wanted ? mw_run_queue_first(&c->run, err) : 0;
	if (r)
		return r;
	c->run.dry = c->dry || !c->put;
	c->run.jobs = 1;
	c->run.before_put = before_put;
	c->run.ask_known = ask_known;
	c->run.arg = c;
	return mw_run_all(&c->run, err);
}

static int
with_target(struct recover *c)
{
	struct mw_err err = {0}, second = {0};
	c->report.command = "recover";
	c->report.target = c->to;
	c->report.user = c->user.mailbox;
	c->report.folder = c->t.folder;
	c->log = (struct mw_restore_log){.cli = c->cli, .report = &c->report};
	(void)signal(SIGPIPE, SIG_IGN); /* a broken connection is an error, not the end */
	int r = run(c, &err), s = 0;
	mw_run_close_stores(&c->run);
	if (mw_restore_log_end(&c->log, c->run.plan, &second) < 0)
		s = mw_cli_error(c->cli, &second);
	if (!r && !c->put)
		s = print_missing(c);
	int status = mw_run_finish(&c->run, r, &err, c->report_file);
	if (!r && !c->put && c->report.restored && !c->cli->quiet)
		fprintf(stderr, "mailwal: --folder NAME puts back what is missing; or "
		                "give IDs\n");
	return status ? status : s;
}

static int
work(struct recover *c)
{
	struct mw_err err = {0};
	int r =
	    mw_recover_whose(c->cli, c->who, c->arena, on_bad_walk, c, &c->user, &err);
	if (r == 0) {
		c->list.q.key = c->user.key;
		c->list.q.n_key = c->user.n_key;
		r = check_ids(c, &err);
	}
	if (r < 0)
		return mw_cli_error(c->cli, &err);
	if (c->user.by_alias && !c->cli->quiet)
		fprintf(stderr, "mailwal: %s is an alias of %s\n", c->who,
		        c->user.mailbox);
	if (c->to)
		return with_target(c);
	c->list.take = take_copy;
	c->list.arg = c;
	return mw_list_run(&c->list, NULL);
}

int
mw_cmd_recover(struct mw_cli *cli, int argc, char **argv)
{
	MW_ARENA_AUTO *arena = mw_arena_new(64U << 20);
	MW_ARENA_AUTO *tmp = mw_arena_new(64U << 20);
	struct recover c = {.cli = cli, .arena = arena, .tmp = tmp};
	struct mw_err err = {0};
	if (!arena || !tmp || mw_report_init(&c.report, &err))
		return mw_err_exit(MW_ENOMEM);
	c.list.cli = cli;
	c.list.header = true;
	mw_query_init(&c.list.q, arena);
	c.run.cli = cli;
	c.run.report = &c.report;
	int status = parse(&c, argc, argv);
	if (!status)
		status = mw_cli_begin(cli);
	if (!status)
		status = c.history ? mw_restore_history(cli, c.who) : work(&c);
	mw_target_free(c.run.target);
	mw_queue_free(c.mta_queue);
	mw_plan_free(c.run.plan);
	mw_run_done(&c.run);
	mw_ledger_close(c.run.ledger);
	mw_report_done(&c.report);
	mw_erased_done(&c.erased);
	free(c.fresh);
	return status;
}
