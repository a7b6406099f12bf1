#include "replay/drill.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int
mw_drill_init(struct mw_drill *d, struct mw_cli *cli, struct mw_err *err)
{
	*d = (struct mw_drill){.cli = cli,
	                       .st = cli->stores[0],
	                       .sample = MW_DRILL_SAMPLE};
	d->scratch.lock = -1;
	d->arena = mw_arena_new(0);
	if (!d->arena)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return mw_report_init(&d->report, err);
}

int
mw_drill_done(struct mw_drill *d, struct mw_err *err)
{
	mw_target_free(d->target);
	mw_plan_free(d->plan);
	if (d->run.report)
		mw_run_done(&d->run);
	mw_report_done(&d->report);
	int r = mw_scratch_end(&d->scratch, err);
	mw_arena_free(d->arena);
	*d = (struct mw_drill){.scratch = {.lock = -1}};
	return r;
}

void
mw_drill_found(struct mw_drill *d, const char *kind, const uint8_t *id,
               const char *mailbox, const char *fmt, ...)
{
	char text[800];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	d->findings++;
	if (d->n_finding == MW_DRILL_FINDINGS)
		return;
	void *v = mw_arena_grow(d->arena, d->finding, &d->cap_finding, d->n_finding + 1,
	                        sizeof *d->finding);
	const char *copy = mw_arena_strdup(d->arena, text);
	const char *box = mailbox ? mw_arena_strdup(d->arena, mailbox) : "";
	if (!v || !copy || !box) {
		d->out_of_memory = true;
		return;
	}
	d->finding = v;
	struct mw_drill_finding *f = &d->finding[d->n_finding++];
	*f = (struct mw_drill_finding){.kind = kind, .mailbox = box, .text = copy};
	if (id)
		mw_id_text(f->id, id);
}

bool
mw_drill_passed(const struct mw_drill *d)
{
	return d->findings == 0 && !d->out_of_memory && d->n.expected > 0 &&
	       d->n.identical + d->n.normalised == d->n.expected;
}

bool
mw_drill_expected(const struct mw_plan_copy *c)
{
	switch ((enum mw_fate)c->fate) {
	case MW_FATE_REFUSED:
	case MW_FATE_BOUNCED:
	case MW_FATE_QUEUED:
	case MW_FATE_REMOVED:
		return false;
	case MW_FATE_OPEN:
	case MW_FATE_TRIED:
	case MW_FATE_PRESENT:
	case MW_FATE_RESTORED:
	case MW_FATE_FAILED:
	case MW_FATE_DOUBTFUL:
	case MW_FATE_SKIPPED:
		break;
	}
	return c->wanted;
}

/* ---- the sample ---- */

/* splitmix64: the same seed draws the same copies from the same journal. */
static uint64_t
dice(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static int
newest_first(const void *x, const void *y)
{
	int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
	return a > b ? -1 : a < b;
}

/* The arrival from which on the newest k copies count; INT64_MAX for none. */
static int
newest_from(const struct mw_plan *p, uint64_t k, int64_t *ret)
{
	MW_AUTOFREE int64_t *t = calloc(p->n_wanted + 1, sizeof *t);
	size_t n = 0;
	if (!t)
		return MW_ENOMEM;
	for (size_t i = 0; i < p->n_box; i++)
		for (size_t j = 0; j < p->box[i].n; j++)
			if (p->box[i].v[j].wanted && n < p->n_wanted)
				t[n++] = p->rec[p->box[i].v[j].rec].time_us;
	if (n)
		qsort(t, n, sizeof *t, newest_first);
	*ret = k == 0 || n == 0 ? INT64_MAX : t[MW_MIN(k, n) - 1];
	return 0;
}

int
mw_drill_draw(struct mw_plan *p, uint64_t sample, uint64_t newest, uint64_t seed,
              uint64_t *ret_newest)
{
	uint64_t left = p->n_wanted, need = MW_MIN(sample, left), taken = 0;
	int64_t from;
	int r = newest_from(p, newest, &from);
	if (r < 0)
		return r;
	*ret_newest = 0;
	p->n_wanted = 0;
	for (size_t i = 0; i < p->n_box; i++) {
		struct mw_plan_box *b = &p->box[i];
		b->n_wanted = 0;
		for (size_t j = 0; j < b->n; j++) {
			struct mw_plan_copy *c = &b->v[j];
			if (!c->wanted)
				continue;
			/* Each with the chance need/left: all samples of this size are
			 * equally likely. */
			bool drawn = dice(&seed) % left < need;
			bool is_new = taken < newest && p->rec[c->rec].time_us >= from;
			need -= drawn;
			left--;
			taken += is_new;
			*ret_newest += is_new && !drawn;
			c->wanted = drawn || is_new;
			b->n_wanted += c->wanted;
			p->n_wanted += c->wanted;
		}
	}
	return 0;
}

/* Boxes of which nothing was drawn are not opened. */
static void
drop_boxes(struct mw_plan *p)
{
	size_t k = 0;
	for (size_t i = 0; i < p->n_box; i++) {
		if (p->box[i].n_wanted)
			p->box[k++] = p->box[i];
		else
			free(p->box[i].v);
	}
	p->n_box = k;
}

/* ---- the run ---- */

static void
say(const struct mw_drill *d, const char *what)
{
	if (!d->cli->quiet && !d->cli->json)
		fprintf(stderr, "mailwal: %s\n", what);
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	if (err->code != MW_EERASED) /* that is as it should be */
		mw_drill_found(arg, "unreadable", NULL, NULL, "%s", err->msg);
}

/* Mail of a private Dovecot belongs to the journal's owner, never to root. */
static void
mail_owner(const struct mw_drill *d, uid_t *ret_uid, gid_t *ret_gid)
{
	struct stat sb;
	const struct passwd *pw;
	*ret_uid = geteuid();
	*ret_gid = getegid();
	if (geteuid() != 0)
		return;
	if (stat(mw_store_dir(d->st), &sb) == 0 && sb.st_uid != 0) {
		*ret_uid = sb.st_uid;
		*ret_gid = sb.st_gid;
	} else if ((pw = getpwnam("nobody"))) {
		*ret_uid = pw->pw_uid;
		*ret_gid = pw->pw_gid;
	}
}

static int
make_target(struct mw_drill *d, struct mw_err *err)
{
	bool dovecot = strcmp(d->to, "dovecot") == 0;
	const char *to = d->to;
	uid_t uid;
	gid_t gid;
	int r = 0;
	if (dovecot || strcmp(d->to, "scratch") == 0) {
		r = mw_scratch_make(d->scratch_base, &d->scratch, err);
		mail_owner(d, &uid, &gid);
		if (r == 0 && dovecot)
			r = mw_scratch_dovecot(&d->scratch, uid, gid, err);
		else if (r == 0)
			mw_scratch_maildir(&d->scratch);
		to = d->scratch.target;
		d->t.create = true;
		if (dovecot)
			d->t.password_file = d->scratch.password_file;
	}
	/* Who holds a mailbox's staging folder: this drill, also when it tries again. */
	uint8_t own[MW_ID_LEN];
	mw_id_new(own);
	mw_id_text(d->id, own);
	mw_id_text(d->journal_id, mw_store_id(d->st));
	d->t.ledger_id = d->t.run_id = d->id;
	d->t.journal_id = d->journal_id;
	if (r == 0)
		r = mw_target_new(to, &d->t, &d->target, err);
	if (r == 0 && !mw_target_readable(d->target))
		r = mw_fail(err, MW_EUSAGE,
		            "%s cannot be read back, so it cannot be drilled with",
		            d->to);
	return r;
}

static int
make_plan(struct mw_drill *d, struct mw_err *err)
{
	const struct mw_plan_opts po = {.cli = d->cli,
	                                .query = d->query,
	                                .target = d->target,
	                                .bad = on_bad,
	                                .arg = d};
	int r = mw_plan_make(&po, &d->plan, err);
	if (r < 0)
		return r;
	d->n.eligible = d->plan->n_wanted;
	if (d->sample && mw_drill_draw(d->plan, d->sample, (d->sample + 9) / 10, d->seed,
	                               &d->n.newest) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	drop_boxes(d->plan);
	d->n.drawn = d->plan->n_wanted;
	d->n.mailboxes = d->plan->n_box;
	if (!d->n.drawn && !d->findings)
		return mw_fail(
		    err, MW_ENOTFOUND,
		    "the selection names no mail that belongs into a mailbox here");
	for (size_t i = 0; i < d->plan->n_box; i++)
		for (size_t j = 0; j < d->plan->box[i].n; j++)
			if (d->plan->box[i].v[j].wanted)
				d->n.bytes += d->plan->rec[d->plan->box[i].v[j].rec].size;
	return 0;
}

/* What the run itself could not put. */
static void
take_report(struct mw_drill *d)
{
	const struct mw_report *r = &d->report;
	d->n.restored = r->restored + r->already_there;
	d->n.restored_bytes = r->bytes;
	for (size_t i = 0; i < r->n_issue; i++) {
		const struct mw_issue *k = &r->issue[i];
		uint8_t id[MW_ID_LEN];
		unsigned bits;
		if (strcmp(k->kind, "failed") != 0 && strcmp(k->kind, "doubtful") != 0)
			continue;
		bool known = k->id[0] && mw_id_parse(k->id, id, &bits);
		mw_drill_found(d, "failed", known ? id : NULL, k->mailbox, "%s",
		               k->reason);
	}
}

static int
restore(struct mw_drill *d, struct mw_err *err)
{
	const struct mw_clock *clk = mw_clock_system();
	int64_t t0 = clk->mono_us(clk);
	int r = make_plan(d, err);
	int64_t t1 = clk->mono_us(clk);
	d->time.plan_us = t1 - t0;
	if (r == 0 && d->scratch.dir[0])
		r = mw_scratch_room(&d->scratch, d->n.bytes, err);
	else if (r == 0)
		r = mw_drill_is_scratch(d, err);
	if (r < 0)
		return r;
	say(d, "putting the sample into the scratch target");
	d->report.command = "drill";
	d->report.target = d->to;
	d->run = (struct mw_run){.cli = d->cli,
	                         .plan = d->plan,
	                         .target = d->target,
	                         .report = &d->report};
	t1 = clk->mono_us(clk);
	r = mw_run_all(&d->run, err);
	d->time.run_us = clk->mono_us(clk) - t1;
	take_report(d);
	return r;
}

static void
carry_over(struct mw_drill *d)
{
	const struct mw_drill_log *l = &d->log;
	double by_copies = 0, by_bytes = 0;
	if (d->n.restored)
		by_copies = (double)l->since_copies / (double)d->n.restored;
	if (d->n.restored_bytes)
		by_bytes = (double)l->since_bytes / (double)d->n.restored_bytes;
	double ratio = MW_MAX(by_copies, by_bytes);
	d->time.rto_measured =
	    l->since_copies == d->n.restored && l->since_bytes == d->n.restored_bytes;
	d->time.rto_us = d->time.plan_us + (int64_t)((double)d->time.run_us * ratio);
}

/* The site's own limits. An upper bound of the RPO says nothing. */
static void
check_limits(struct mw_drill *d)
{
	const struct mw_conf *c = d->cli->conf;
	char is[32], most[32];
	if (c->drill_max_rto && d->time.rto_us > c->drill_max_rto) {
		mw_duration_human(is, sizeof is, d->time.rto_us);
		mw_duration_human(most, sizeof most, c->drill_max_rto);
		mw_drill_found(d, "rto", NULL, NULL, "RTO %s is beyond drill_max_rto, %s",
		               is, most);
	}
	if (c->drill_max_rpo && !d->time.rpo_bound && d->time.rpo_known &&
	    d->time.rpo_us > c->drill_max_rpo) {
		mw_duration_human(is, sizeof is, d->time.rpo_us);
		mw_duration_human(most, sizeof most, c->drill_max_rpo);
		mw_drill_found(d, "rpo", NULL, NULL, "RPO %s is beyond drill_max_rpo, %s",
		               is, most);
	}
}

int
mw_drill_run(struct mw_drill *d, struct mw_err *err)
{
	const struct mw_clock *clk = mw_clock_system();
	d->time.start_us = clk->now_us(clk);
	int r = mw_drill_log_before(d, err);
	if (r == 0)
		r = make_target(d, err);
	if (r == 0) {
		say(d, "reading the journal");
		r = restore(d, err);
	}
	if (r == 0) {
		say(d, "reading everything back");
		int64_t t = clk->mono_us(clk);
		r = mw_drill_compare(d, err);
		d->time.read_us = clk->mono_us(clk) - t;
	}
	if (r == 0) {
		say(d, "checking the log");
		r = mw_drill_log_after(d, err);
	}
	if (r == 0) {
		carry_over(d);
		check_limits(d);
	}
	if (r == 0 && d->out_of_memory)
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	d->time.end_us = clk->now_us(clk);
	return r;
}
