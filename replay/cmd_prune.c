/* cmd_prune.c - mailwal prune: what the rules of retention let go. */
#include "journal/base/util.h"
#include "replay/noted.h"
#include "replay/retain.h"
#include "replay/table.h"

#include <stdio.h>
#include <string.h>

enum requires {
	REQUIRES_NONE,
	REQUIRES_SHIPPED,
	REQUIRES_MARKED
};

enum {
	LOOK_LEAST = 200000 /* mails that are worth to be passed over */
};

struct prune {
	struct mw_cli *cli;
	bool dry, yes, despite;
	size_t n_holds;
	struct mw_retain_log *log;
	struct mw_retain_sum sum;
	struct mw_retain_done done;
};

static const char *
rule_name(const struct mw_conf *conf, size_t k)
{
	return k < conf->n_retain ? conf->retain[k].name : "(no rule)";
}

static uint64_t
held_back(const struct mw_retain_row *r)
{
	return r->held + r->floor + r->needed + r->clock + r->lost;
}

/* ---- output ---- */

static json_t *
row_json(const char *name, const struct mw_retain_row *r)
{
	char when[32];
	json_t *o = json_object();
	mw_time_rfc3339(when, sizeof when, r->oldest_us);
	(void)json_object_set_new(o, "message_type", json_string("rule"));
	(void)json_object_set_new(o, "rule", mw_json_str(mw_strz(name)));
	(void)json_object_set_new(o, "messages", json_integer((json_int_t)r->messages));
	(void)json_object_set_new(o, "bytes", json_integer((json_int_t)r->bytes));
	if (r->oldest_us)
		(void)json_object_set_new(o, "oldest", json_string(when));
	(void)json_object_set_new(o, "remove", json_integer((json_int_t)r->remove));
	(void)json_object_set_new(o, "remove_bytes",
	                          json_integer((json_int_t)r->remove_bytes));
	(void)json_object_set_new(o, "held", json_integer((json_int_t)r->held));
	(void)json_object_set_new(o, "floor", json_integer((json_int_t)r->floor));
	(void)json_object_set_new(o, "not_marked", json_integer((json_int_t)r->needed));
	(void)json_object_set_new(o, "clock", json_integer((json_int_t)r->clock));
	(void)json_object_set_new(o, "damage", json_integer((json_int_t)r->lost));
	return o;
}

static int
add_row(struct mw_table *t, const struct mw_conf *conf, size_t k,
        const struct mw_retain_row *r)
{
	char keep[64] = "for ever", n[24], size[32], oldest[32] = "-", gone[24],
	     gone_size[32], back[24], most[32];
	if (k < conf->n_retain) {
		const struct mw_conf_retain *c = &conf->retain[k];
		keep[0] = '\0';
		if (c->keep_us)
			mw_duration_human(keep, sizeof keep, c->keep_us);
		mw_size_human(most, sizeof most, c->max_size);
		size_t at = strlen(keep);
		if (c->max_size)
			(void)snprintf(keep + at, sizeof keep - at, "%s%s",
			               at ? ", " : "", most);
	}
	(void)snprintf(n, sizeof n, "%llu", (unsigned long long)r->messages);
	(void)snprintf(gone, sizeof gone, "%llu", (unsigned long long)r->remove);
	(void)snprintf(back, sizeof back, "%llu", (unsigned long long)held_back(r));
	mw_size_human(size, sizeof size, r->bytes);
	mw_size_human(gone_size, sizeof gone_size, r->remove_bytes);
	if (r->oldest_us)
		mw_time_local(oldest, sizeof oldest, r->oldest_us);
	const char *cells[] = {rule_name(conf, k), keep, n, size, oldest, gone,
	                       gone_size,          back};
	return mw_table_row(t, cells);
}

static int
table(const struct prune *p)
{
	static const struct mw_table_col cols[] = {
	    {"RULE", 0.2, 0},
	    {"KEEP", 10, 0},
	    {"MESSAGES", 8, MW_TABLE_RIGHT},
	    {"SIZE", 10, MW_TABLE_RIGHT},
	    {"OLDEST", 19, 0},
	    {"REMOVE", 8, MW_TABLE_RIGHT},
	    {"SIZE", 10, MW_TABLE_RIGHT},
	    {"HELD BACK", 8, MW_TABLE_RIGHT},
	};
	const struct mw_conf *conf = p->cli->conf;
	struct mw_table *t = mw_table_new(cols, MW_COUNT(cols), true);
	int r = t ? 0 : MW_ENOMEM;
	for (size_t k = 0; r == 0 && k <= conf->n_retain; k++)
		r = add_row(t, conf, k, &p->sum.row[k]);
	if (r == 0)
		r = mw_table_print(t);
	mw_table_free(t);
	return r;
}

/* Messages that were passed over. */
static uint64_t
young(const struct prune *p)
{
	uint64_t n = 0;
	for (size_t i = 0; i < p->log->quiet.n; i++)
		n += p->log->quiet.seg[i].mails;
	return n;
}

static void
reasons(const struct prune *p)
{
	const struct mw_retain_row *a = &p->sum.all;
	if (a->held)
		printf("%llu expired messages stay: a hold covers them\n",
		       (unsigned long long)a->held);
	if (a->floor)
		printf("%llu expired messages stay: younger than prune_floor\n",
		       (unsigned long long)a->floor);
	if (a->needed)
		printf("%llu expired messages stay: no completed mark covers them\n",
		       (unsigned long long)a->needed);
	if (p->log->damaged)
		printf("%llu places cannot be read, their segments stay: see 'mailwal "
		       "verify'\n",
		       (unsigned long long)p->log->damaged);
	if (p->log->quiet.n)
		printf("%llu messages in %zu segments were not looked at: they are "
		       "younger than "
		       "any rule lets go ('prune -n' counts them, too)\n",
		       (unsigned long long)young(p), p->log->quiet.n);
	if (p->sum.pending)
		printf("%llu records of an earlier run are not wiped yet\n",
		       (unsigned long long)p->sum.pending);
}

static int
show_plan(const struct prune *p)
{
	const struct mw_conf *conf = p->cli->conf;
	int r = 0;
	if (p->cli->json) {
		for (size_t k = 0; k <= conf->n_retain; k++)
			mw_cli_json(row_json(rule_name(conf, k), &p->sum.row[k]));
	} else if (!p->cli->quiet) {
		r = table(p);
		reasons(p);
	}
	return r;
}

static void
summary(const struct prune *p)
{
	const struct mw_retain_done *d = &p->done;
	if (p->cli->json) {
		json_t *o = row_json("", &p->sum.all);
		(void)json_object_del(o, "rule");
		(void)json_object_set_new(o, "message_type", json_string("summary"));
		(void)json_object_set_new(o, "dry_run", json_boolean(p->dry));
		(void)json_object_set_new(o, "holds_lost", mw_lost_json(&p->log->lost));
		(void)json_object_set_new(o, "not_looked_at",
		                          json_integer((json_int_t)young(p)));
		(void)json_object_set_new(o, "clock_trusted",
		                          json_boolean(!p->sum.clock_bad));
		(void)json_object_set_new(o, "removed",
		                          json_integer((json_int_t)d->records));
		(void)json_object_set_new(o, "segments_removed",
		                          json_integer((json_int_t)d->segments));
		(void)json_object_set_new(o, "selected",
		                          json_integer((json_int_t)p->sum.all.remove));
		(void)json_object_set_new(o, "bytes_freed",
		                          json_integer((json_int_t)d->freed));
		mw_cli_json(o);
	} else if (!p->cli->quiet && p->dry) {
		printf("dry run: nothing was changed; %llu messages would go\n",
		       (unsigned long long)p->sum.all.remove);
	} else if (!p->cli->quiet) {
		char freed[32];
		mw_size_human(freed, sizeof freed, d->freed);
		printf("%llu messages removed, %llu segment files (%s) with them\n",
		       (unsigned long long)d->records, (unsigned long long)d->segments,
		       freed);
	}
}

/* ---- the run ---- */

static int
make_plan(struct prune *p, const struct mw_retain_owner *o, struct mw_err *err)
{
	const struct mw_conf *conf = p->cli->conf;
	struct mw_store *st = p->cli->stores[0];
	struct mw_rules *rules = NULL;
	struct mw_holds *holds = NULL;
	if (conf->prune_requires == REQUIRES_SHIPPED) {
		(void)mw_fail(err, MW_ECONF,
		              "prune_requires = shipped: this version does not ship "
		              "journals, so nothing is ever shipped");
		return mw_err_hint(err, "set it to marked or none");
	}
	int r = mw_rules_new(st, conf, &rules, err);
	if (r == 0)
		r = mw_holds_load(st, &holds, err);
	struct mw_retain_limits l = {.rule = conf->retain,
	                             .n_rule = conf->n_retain,
	                             .floor_us = conf->prune_floor,
	                             .now_us = o->now_us,
	                             .need_mark = conf->prune_requires == REQUIRES_MARKED,
	                             .look_least = LOOK_LEAST};
	if (r == 0) /* a dry run is there for its table */
		r = mw_retain_gather_for(st, rules, holds, p->dry ? NULL : &l,
		                         mw_cli_stopped, &p->log, err);
	while (r == 0 && mw_holds_get(holds, p->n_holds))
		p->n_holds++;
	mw_rules_free(rules);
	mw_holds_free(holds);
	if (r < 0)
		return r;
	const struct mw_audit *a = p->log->audit;
	p->log->floor_us = conf->prune_floor;
	l.marked_seq = p->log->marked_seq;
	l.gone = a ? a->gone : NULL;
	l.n_gone = a ? a->n_gone : 0;
	l.quiet = &p->log->quiet;
	l.damaged = p->log->damaged > 0;
	l.lost = p->log->lost.n > 0 && !p->despite;
	p->log->settle = p->despite;
	for (size_t i = p->log->n_seg; i > 0 && !p->log->seg[i - 1].settled; i--)
		l.open_seg = p->log->seg[i - 1].number;
	mw_retain_plan(&l, p->log->rec, p->log->n, &p->sum);
	return 0;
}

static int
clock_answer(const struct prune *p)
{
	char newest[32];
	if (!p->sum.clock_bad || p->sum.all.clock == 0)
		return 0;
	mw_time_local(newest, sizeof newest, p->sum.newest_us);
	fprintf(stderr,
	        "mailwal: the clock is more than 26 hours ahead of the newest record "
	        "(%s): nothing is removed\n"
	        "  hint: if the clock is right, the next run removes what has expired\n",
	        newest);
	return 1;
}

static int
damage_answer(const struct prune *p)
{
	MW_BUF_AUTO text = {0};
	if (p->log->lost.n == 0 || p->despite)
		return 0;
	mw_lost_text(&p->log->lost, &text);
	fprintf(stderr,
	        "mailwal: %llu records cannot be read (sequence %s), and a hold may be "
	        "among them: nothing is removed\n"
	        "  hint: 'mailwal verify' names the places; --despite-damage says that "
	        "no hold was there\n",
	        (unsigned long long)mw_lost_count(&p->log->lost), mw_buf_cstr(&text));
	return 1;
}

static int
run(struct prune *p, struct mw_err *err)
{
	struct mw_retain_job j;
	int r = mw_retain_begin(p->cli, !p->dry, &j, err);
	if (r == 0)
		r = make_plan(p, &j.owner, err);
	if (r == 0)
		r = show_plan(p);
	if (r == 0 && !p->dry && p->sum.all.remove)
		r = mw_retain_confirm(p->sum.all.remove, p->yes, "remove", err);
	else if (r == 0 && !p->dry && !p->yes && !isatty(STDIN_FILENO))
		r = mw_retain_confirm(0, false, "remove", err);
	/* A run that finds nothing is recorded too: the log's clock goes on by it. So is
	 * what was said of damage. */
	bool work = !p->dry && (p->cli->conf->n_retain || p->sum.pending ||
	                        (p->despite && p->log->lost.n));
	if (r == 0 && work)
		r = mw_retain_write(p->cli, &j, err);
	if (r == 0 && work)
		r = mw_retain_run(&j.owner, p->log, &p->done, err);
	mw_retain_end(&j);
	return r;
}

/* For the metrics. */
static void
note(const struct prune *p)
{
	MW_BUF_AUTO lines = {0};
	if (p->dry)
		return;
	mw_buf_printf(&lines, "removed %llu\nfreed %llu\n",
	              (unsigned long long)p->done.records,
	              (unsigned long long)p->done.freed);
	mw_noted(p->cli->journals[0], "prune", true, &lines);
	mw_buf_clear(&lines);
	mw_buf_printf(&lines, "holds %zu\n", p->n_holds);
	mw_noted(p->cli->journals[0], "holds", true, &lines);
}

int
mw_cmd_prune(struct mw_cli *cli, int argc, char **argv)
{
	struct prune p = {.cli = cli};
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "-n|--dry-run", NULL, &err);
		p.dry = p.dry || r > 0;
		if (r == 0) {
			r = mw_cli_option(argc, argv, &i, "--yes", NULL, &err);
			p.yes = p.yes || r > 0;
		}
		if (r == 0) {
			r = mw_cli_option(argc, argv, &i, "--despite-damage", NULL, &err);
			p.despite = p.despite || r > 0;
		}
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r == 0)
			return mw_cli_unknown(cli, mw_cmd_find("prune"), argv[i]);
	}
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	mw_cli_catch_signals();
	int r = run(&p, &err);
	if (r < 0 && !err.code)
		(void)mw_fail(&err, r, "%s", mw_err_text(r));
	status = r < 0 ? mw_cli_error(cli, &err) : clock_answer(&p);
	if (r == 0) {
		status |= damage_answer(&p);
		note(&p);
		summary(&p);
	}
	mw_retain_free(p.log);
	return status;
}
