/* cmd_status.c - mailwal status: from the daemon where it runs, else from the disk. */
#include "replay/retain.h"
#include "replay/status.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <string.h>

enum {
	OK = 0,
	WARNING = 1,
	CRITICAL = 2,
	UNKNOWN = 3
};

static void
print_last_mail(const struct mw_status *s)
{
	char date[32], ago[32];
	if (s->newest_us == 0)
		return;
	mw_time_local(date, sizeof date, s->newest_us);
	mw_duration_human(ago, sizeof ago, s->now_us - s->newest_us);
	if (s->newest_us > s->now_us) /* a clock jumped */
		printf("  Newest    %s\n", date);
	else
		printf("  Newest    %s (%s ago)\n", date, ago);
}

static void
print_marks(const struct mw_status *s)
{
	char date[32];
	if (s->complete.name) {
		mw_time_local(date, sizeof date, s->complete.end_us);
		MW_BUF_AUTO name = {0};
		mw_text_safe(mw_strz(s->complete.name), false, &name);
		printf("  Backup    mark %s completed %s, begun at record %llu\n",
		       mw_buf_cstr(&name), date,
		       (unsigned long long)s->complete.start_seq);
	} else {
		puts("  Backup    no completed mark");
	}
	if (s->running.name) {
		mw_time_local(date, sizeof date, s->running.start_us);
		MW_BUF_AUTO name = {0};
		mw_text_safe(mw_strz(s->running.name), false, &name);
		printf("            mark %s running since %s\n", mw_buf_cstr(&name),
		       date);
	}
}

/* What capture sections and the loop guard let pass, as far as the daemon tells. */
static void
print_passed(const struct mw_status *s)
{
	const json_t *by = json_object_get(s->daemon_json, "excluded_by"), *e;
	json_int_t replayed =
	    json_integer_value(json_object_get(s->daemon_json, "replayed"));
	size_t i;
	json_array_foreach(by, i, e)
	{
		char size[32];
		MW_BUF_AUTO name = {0};
		const char *section = json_string_value(json_object_get(e, "section"));
		mw_text_safe(mw_strz(section), false, &name);
		mw_size_human(size, sizeof size,
		              (uint64_t)json_integer_value(json_object_get(e, "bytes")));
		printf("  %s  %lld messages, %s, by capture %s\n",
		       i ? "        " : "Excluded",
		       (long long)json_integer_value(json_object_get(e, "messages")),
		       size, mw_buf_cstr(&name));
	}
	if (replayed)
		printf(
		    "  Replayed  %lld messages that mailwal put back were not journaled "
		    "again\n",
		    (long long)replayed);
}

static void
print_drill(const struct mw_status *s)
{
	char when[32], rto[32], rpo[32];
	if (!s->drill[0]) {
		puts("  Drill     none yet");
		return;
	}
	mw_time_local(when, sizeof when, s->drill_us);
	mw_duration_human(rto, sizeof rto, (int64_t)(s->drill_rto * 1e6));
	(void)snprintf(rpo, sizeof rpo, "not measured");
	if (s->drill_rpo >= 0)
		mw_duration_human(rpo, sizeof rpo, (int64_t)(s->drill_rpo * 1e6));
	printf("  Drill     %s: %s, %llu of %llu copies identical, RTO %s, RPO %s\n",
	       when,
	       s->drill_forged   ? "NOT SIGNED"
	       : s->drill_passed ? "passed"
	                         : "FAILED",
	       (unsigned long long)s->drill_identical,
	       (unsigned long long)s->drill_expected, rto, rpo);
}

static json_t *
drill_json(const struct mw_status *s)
{
	char when[40];
	if (!s->drill[0])
		return json_null();
	mw_time_rfc3339(when, sizeof when, s->drill_us);
	return json_pack("{s:o, s:s, s:s, s:b, s:I, s:I, s:f, s:o}", "name",
	                 mw_json_str(mw_strz(s->drill)), "time", when, "result",
	                 s->drill_passed ? "passed" : "failed", "signature_holds",
	                 !s->drill_forged, "expected", (json_int_t)s->drill_expected,
	                 "identical", (json_int_t)s->drill_identical, "rto_s",
	                 s->drill_rto, "rpo_s",
	                 s->drill_rpo >= 0 ? json_real(s->drill_rpo) : json_null());
}

static void
print_checkpoint(const struct mw_status *s)
{
	const struct mw_published *p = &s->checkpoint;
	char when[32];
	MW_BUF_AUTO to = {0};
	if (p->seq == 0)
		return;
	mw_time_local(when, sizeof when, p->time_us);
	mw_text_safe(mw_strz(p->file), false, &to);
	if (p->file[0] && p->command[0])
		mw_buf_puts(&to, " and ");
	mw_text_safe(mw_strz(p->command), false, &to);
	printf("  Anchor    %s: checkpoint of record %llu, to %s\n", when,
	       (unsigned long long)p->seq, mw_buf_cstr(&to));
}

static void
print_prune(const struct mw_status *s)
{
	char when[32], freed[32];
	if (s->prune_us == 0)
		return;
	mw_time_local(when, sizeof when, s->prune_us);
	mw_size_human(freed, sizeof freed, s->prune_freed);
	printf("  Prune     %s: %llu message%s removed, %llu segment file%s (%s)\n", when,
	       (unsigned long long)s->prune_mails, s->prune_mails == 1 ? "" : "s",
	       (unsigned long long)s->prune_segments, s->prune_segments == 1 ? "" : "s",
	       freed);
}

/* Members that say when something was last done; null: never. */
static void
last_json(json_t *o, const struct mw_status *s)
{
	const struct mw_published *p = &s->checkpoint;
	char when[40];
	json_t *c = json_null(), *r = json_null();
	if (p->seq) {
		mw_time_rfc3339(when, sizeof when, p->time_us);
		c = json_pack("{s:I, s:s, s:o, s:o}", "seq", (json_int_t)p->seq, "time",
		              when, "file",
		              p->file[0] ? mw_json_str(mw_strz(p->file)) : json_null(),
		              "command",
		              p->command[0] ? mw_json_str(mw_strz(p->command))
		                            : json_null());
	}
	if (s->prune_us) {
		mw_time_rfc3339(when, sizeof when, s->prune_us);
		r = json_pack("{s:s, s:I, s:I, s:I}", "time", when, "removed",
		              (json_int_t)s->prune_mails, "segments_removed",
		              (json_int_t)s->prune_segments, "bytes_freed",
		              (json_int_t)s->prune_freed);
	}
	(void)json_object_set_new(o, "last_checkpoint", c);
	(void)json_object_set_new(o, "last_prune", r);
}

static void
print_followers(const struct mw_status *s)
{
	for (size_t i = 0; i < s->n_follow; i++) {
		char lag[32];
		MW_BUF_AUTO to = {0};
		mw_duration_human(lag, sizeof lag, s->follow[i].lag_us);
		mw_text_safe(mw_strz(s->follow[i].target), false, &to);
		printf("  Standby   %s: %s%s\n", mw_buf_cstr(&to),
		       s->follow[i].lag_us ? lag : "current",
		       s->follow[i].lag_us ? " behind" : "");
	}
}

static json_t *
followers_json(const struct mw_status *s)
{
	json_t *v = json_array();
	for (size_t i = 0; i < s->n_follow; i++)
		(void)json_array_append_new(
		    v, json_pack("{s:o, s:f}", "target",
		                 mw_json_str(mw_strz(s->follow[i].target)), "lag_s",
		                 (double)s->follow[i].lag_us / 1e6));
	return v;
}

static void
print_journal(const struct mw_conf *conf, const struct mw_status *s)
{
	char size[32], free_bytes[32], since[32] = "";
	mw_size_human(size, sizeof size, s->disk_bytes);
	mw_size_human(free_bytes, sizeof free_bytes, s->free_bytes);
	if (s->oldest_us)
		mw_time_local(since, sizeof since, s->oldest_us);
	printf("%s\n", s->dir);
	printf("  Daemon    %s\n", s->daemon_text);
	printf("  Journal   %llu message%s%s%.10s, %llu record%s, %s in %llu segment%s\n",
	       (unsigned long long)s->mails, s->mails == 1 ? "" : "s",
	       since[0] ? " since " : "", since, (unsigned long long)s->records,
	       s->records == 1 ? "" : "s", size, (unsigned long long)s->segments,
	       s->segments == 1 ? "" : "s");
	print_last_mail(s);
	print_passed(s);
	if (s->failed_text[0])
		printf("  Failures  %s\n", s->failed_text);
	printf("  Disk      %s free\n", free_bytes);
	if (s->index_lag > 0)
		printf("  Index     %lld record%s behind\n", (long long)s->index_lag,
		       s->index_lag == 1 ? "" : "s");
	else if (s->daemon == 1)
		puts("  Index     up to date");
	print_marks(s);
	if (s->audit_us) {
		char when[32];
		mw_time_local(when, sizeof when, s->audit_us);
		printf("  Audit     %s: %lld accepted, %lld not journaled\n", when,
		       (long long)s->audit_accepted, (long long)s->audit_holes);
	}
	print_drill(s);
	print_checkpoint(s);
	print_prune(s);
	print_followers(s);
	mw_status_print_kept(conf, s);
	printf("  Keys      %s\n", s->encrypted ? "encrypted to recovery keys"
	                                        : "readable: no recovery key configured");
	for (size_t i = 0; i < s->n_problems; i++)
		printf("  PROBLEM   %s\n", s->problem[i].text);
	printf("  State     %s\n", s->n_problems ? "degraded" : "ok");
}

static json_t *
time_json(int64_t us)
{
	char text[32];
	if (us == 0)
		return json_null();
	mw_time_rfc3339(text, sizeof text, us);
	return json_string(text);
}

static json_t *
mark_json(const struct mw_mark_info *m)
{
	if (!m->name)
		return json_null();
	json_t *o = json_object();
	(void)json_object_set_new(o, "name", mw_json_str(mw_strz(m->name)));
	(void)json_object_set_new(o, "start_seq", json_integer((json_int_t)m->start_seq));
	(void)json_object_set_new(o, "start", time_json(m->start_us));
	(void)json_object_set_new(o, "end", time_json(m->end_us));
	return o;
}

static void
set_number(json_t *o, const char *key, uint64_t v)
{
	(void)json_object_set_new(o, key, json_integer((json_int_t)v));
}

static void
print_json(const struct mw_conf *conf, struct mw_status *s)
{
	json_t *o = json_object(), *problems = json_array();
	(void)json_object_set_new(o, "journal", mw_json_str(mw_strz(s->dir)));
	(void)json_object_set_new(o, "state",
	                          json_string(s->n_problems ? "degraded" : "ok"));
	for (size_t i = 0; i < s->n_problems; i++)
		(void)json_array_append_new(problems,
		                            mw_json_str(mw_strz(s->problem[i].text)));
	(void)json_object_set_new(o, "problems", problems);
	set_number(o, "unjournaled", s->passed.count);
	if (s->passed.count) {
		(void)json_object_set_new(o, "unjournaled_first",
		                          time_json(s->passed.first_us));
		(void)json_object_set_new(o, "unjournaled_last",
		                          time_json(s->passed.last_us));
	}
	(void)json_object_set_new(o, "daemon_running",
	                          s->daemon < 0 ? json_null() : json_boolean(s->daemon));
	if (s->daemon_json)
		(void)json_object_set_new(o, "daemon", MW_TAKE(s->daemon_json));
	if (s->opened) {
		set_number(o, "records", s->records);
		set_number(o, "mails", s->mails);
		set_number(o, "erased_records", s->erased);
		set_number(o, "segments", s->segments);
		set_number(o, "size_bytes", s->disk_bytes);
		set_number(o, "free_bytes", s->free_bytes);
		/* Only the daemon knows. */
		(void)json_object_set_new(o, "index_lag_records",
		                          s->daemon == 1 ? json_integer(s->index_lag)
		                                         : json_null());
		(void)json_object_set_new(o, "oldest", time_json(s->oldest_us));
		(void)json_object_set_new(o, "newest", time_json(s->newest_us));
		(void)json_object_set_new(o, "encrypted", json_boolean(s->encrypted));
		(void)json_object_set_new(o, "last_completed_mark",
		                          mark_json(&s->complete));
		(void)json_object_set_new(o, "running_mark", mark_json(&s->running));
		(void)json_object_set_new(o, "last_drill", drill_json(s));
		last_json(o, s);
		(void)json_object_set_new(o, "standbys", followers_json(s));
		json_t *holds = json_array();
		for (size_t i = 0; i < s->n_hold; i++)
			(void)json_array_append_new(holds,
			                            mw_json_str(mw_strz(s->hold[i])));
		(void)json_object_set_new(o, "holds", holds);
		(void)json_object_set_new(o, "holds_lost", mw_lost_json(s->lost));
		(void)json_object_set_new(o, "retention", mw_status_retention(conf));
		(void)json_object_set_new(o, "last_audit", time_json(s->audit_us));
		(void)json_object_set_new(o, "audit_holes",
		                          s->audit_us ? json_integer(s->audit_holes)
		                                      : json_null());
		(void)json_object_set_new(o, "audit_failed",
		                          time_json(s->audit_failed_us));
	}
	mw_cli_json(o);
}

/* ---- monitoring ---- */

struct nagios {
	int state;
	struct mw_buf text, perf;
	uint64_t mails, bytes, free_bytes, lag;
	int64_t drill_age_us; /* of the oldest last drill; -1: none */
};

static void
nagios_add(struct nagios *n, const struct mw_status *s)
{
	for (size_t i = 0; i < s->n_problems; i++) {
		int level = s->problem[i].level;
		n->state = level == UNKNOWN && n->state != CRITICAL ? UNKNOWN
		           : n->state == UNKNOWN && level != CRITICAL
		               ? UNKNOWN
		               : MW_MAX(n->state, level);
		if (level == CRITICAL)
			n->state = CRITICAL;
		mw_buf_printf(&n->text, "%s%s", n->text.n ? "; " : "",
		              s->problem[i].text);
	}
	if (s->drill[0])
		n->drill_age_us = MW_MAX(n->drill_age_us, s->now_us - s->drill_us);
	n->mails += s->mails;
	n->bytes += s->disk_bytes;
	n->lag += s->index_lag > 0 ? (uint64_t)s->index_lag : 0;
	n->free_bytes = MW_MIN(n->free_bytes, s->opened ? s->free_bytes : UINT64_MAX);
}

static int
nagios_print(const struct mw_cli *cli, struct nagios *n)
{
	static const char *const names[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
	uint64_t crit = cli->conf->min_free, warn = crit * 2;
	MW_BUF_AUTO safe = {0};
	if (n->text.n == 0)
		mw_buf_printf(&n->text, "%llu messages journaled",
		              (unsigned long long)n->mails);
	mw_text_safe(mw_buf_str(&n->text), false, &safe);
	/* A bar would begin the performance data. */
	for (size_t i = 0; i < safe.n; i++)
		if (safe.p[i] == '|')
			safe.p[i] = '/';
	printf("MAILWAL %s - %s | mails=%lluc size=%lluB", names[n->state],
	       mw_buf_cstr(&safe), (unsigned long long)n->mails,
	       (unsigned long long)n->bytes);
	if (n->free_bytes != UINT64_MAX)
		printf(" free=%lluB;%llu:;%llu:;0", (unsigned long long)n->free_bytes,
		       (unsigned long long)warn, (unsigned long long)crit);
	printf(" index_lag=%llu", (unsigned long long)n->lag);
	if (n->drill_age_us >= 0)
		printf(" drill_age=%llds;%lld", (long long)(n->drill_age_us / 1000000),
		       (long long)(cli->conf->drill_max_age / 1000000));
	puts("");
	mw_buf_free(&n->text);
	return n->state;
}

static int
one(struct mw_cli *cli, size_t k, struct nagios *n, bool nagios)
{
	struct mw_status s;
	int status = 0;
	mw_status_gather(cli, k, &s);
	if (nagios)
		nagios_add(n, &s);
	else if (cli->json)
		print_json(mw_cli_conf_of(cli, k), &s);
	if (!nagios && !s.opened)
		status = mw_cli_error(cli, &s.err);
	else if (!nagios && !cli->json)
		print_journal(mw_cli_conf_of(cli, k), &s);
	if (status == 0 && s.n_problems)
		status = 1;
	mw_status_done(&s);
	return status;
}

int
mw_cmd_status(struct mw_cli *cli, int argc, char **argv)
{
	struct nagios n = {.free_bytes = UINT64_MAX, .drill_age_us = -1};
	bool nagios = false, ack = false;
	int status = 0;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--nagios") == 0)
			nagios = true;
		else if (strcmp(argv[i], "--ack") == 0)
			ack = true;
		else
			return mw_cli_unknown(cli, mw_cmd_find("status"), argv[i]);
	}
	if (nagios && cli->json)
		return mw_cli_usage(cli, mw_cmd_find("status"),
		                    "--nagios or --json, not both");
	status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	for (size_t k = 0; ack && k < cli->n_journals; k++) {
		struct mw_err err = {0};
		if (mw_status_acknowledge(cli->journals[k], &err) < 0)
			return mw_cli_error(cli, &err);
	}
	for (size_t k = 0; k < cli->n_journals; k++) {
		int s = one(cli, k, &n, nagios);
		if (s > status || status == 0)
			status = s;
	}
	return nagios ? nagios_print(cli, &n) : status;
}
