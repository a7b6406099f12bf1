/* cmd_audit.c - mailwal audit: accepted by the MTA and not journaled, and the reverse. */
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/audit.h"
#include "replay/logsrc.h"
#include "replay/noted.h"
#include "replay/outcomes.h"
#include "replay/status.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SECOND_US INT64_C(1000000)
#define DAY_US    (86400 * SECOND_US)

enum {
	SHOWN = 20 /* of each list, for people; --json has all */
};

struct job {
	struct mw_cli *cli;
	struct mw_audit a;
	int64_t since_us;
	int64_t first_us, empty_us; /* of the log's lines; of its empty files; or 0 */
	uint64_t lines, of_mta;
	uint64_t *seq; /* of records that the log knows of, sorted at the end */
	size_t n_seq, cap_seq;
	size_t *without, n_without; /* rows that were accepted and have no record */
	uint64_t accepted, journaled, erased, reentry, before, holes, refused, extra;
	uint64_t unseen; /* journaled after since_us, and before the log begins */
	bool told;
};

static int
add_seq(struct job *j, uint64_t seq)
{
	if (j->n_seq == j->cap_seq) {
		size_t cap = j->cap_seq ? j->cap_seq * 2 : 256;
		uint64_t *v = reallocarray(j->seq, cap, sizeof *v);
		if (!v)
			return MW_ENOMEM;
		j->seq = v;
		j->cap_seq = cap;
	}
	j->seq[j->n_seq++] = seq;
	return 0;
}

static void
begins(int64_t *first_us, int64_t us)
{
	if (us && (!*first_us || us < *first_us))
		*first_us = us;
}

/* An empty one has been so since it was made, or emptied: the beginning, if all are. */
static void
begins_empty(struct job *j, const char *path)
{
	struct stat st;
	if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
		begins(&j->empty_us, st.st_mtime * SECOND_US);
}

static int
read_log(struct job *j, const char *path, struct mw_err *err)
{
	struct mw_logsrc l;
	struct mw_str line;
	struct mw_mta_event e;
	/* systemd's journal is long: a day before is enough to know how mail began. */
	char name[] = "journald";
	struct mw_logsrc_pos pos = {.path = name, .time_us = j->since_us - DAY_US};
	struct mw_logsrc_state from = {.v = &pos, .n = 1};
	int r = mw_logsrc_open(&l, path, j->since_us > DAY_US ? &from : NULL, false, err);
	int got = 1;
	while (r == 0 && got > 0) {
		if (mw_cli_stopped())
			r = mw_fail(err, MW_ECANCEL, "interrupted");
		else
			r = got = mw_logsrc_line(&l, &line, -1, err);
		if (r <= 0)
			continue;
		j->lines++;
		(void)mw_mtalog_line(line, l.ref_us, &e);
		l.stamped = l.stamped || e.time_us;
		begins(&j->first_us, e.time_us);
		j->of_mta += e.mta;
		r = mw_audit_event(&j->a, &e) ? mw_fail(err, MW_ENOMEM, "out of memory")
		                              : 0;
	}
	if (!l.lines && !l.journald)
		begins_empty(j, path);
	struct mw_err second;
	int c = mw_logsrc_close(&l, r ? &second : err);
	if (r == 0 && c == 0)
		c = mw_logsrc_check(&l, err);
	return r ? r : c;
}

/* Mail journaled after since_us, by whether the log can name it. (What is logged of a
 * message may lie a minute apart from its record.) */
static int
count_mail(const struct job *j, uint64_t *ret_before, uint64_t *ret_within,
           struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	const struct mw_clock *clock = mw_clock_system();
	int64_t begin = MW_MAX(j->first_us ? j->first_us : j->since_us, j->since_us);
	int64_t to = clock->now_us(clock) - 60 * SECOND_US;
	int bad = 0, k, r = mw_cursor_new(j->cli->stores[0], 1, &c, err);
	*ret_before = *ret_within = 0;
	while (r >= 0) {
		struct mw_record rec;
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		k = mw_cursor_next(c, &rec, NULL);
		if (k == 0 || (k < 0 && ++bad > 1000))
			break;
		if (k < 0 || rec.type != MW_TYPE_MAIL || rec.imported)
			continue;
		*ret_before +=
		    rec.time_us >= j->since_us && rec.time_us < begin - 60 * SECOND_US;
		*ret_within += rec.time_us >= begin + 60 * SECOND_US && rec.time_us <= to;
	}
	return MW_MIN(r, 0);
}

/* A log without a line of a mail server, though mail was journaled in its time, is not
 * the log of that server: nothing was compared. One that begins after that mail, or has
 * been empty since then, was rotated, or cut: that is told. */
static int
check_lines(struct job *j, struct mw_err *err)
{
	uint64_t n = 0;
	j->first_us = j->lines ? j->first_us : j->empty_us;
	bool late = j->since_us > INT64_MIN / 2 && j->first_us > j->since_us;
	int r = j->of_mta && !late ? 0 : count_mail(j, &j->unseen, &n, err);
	if (r < 0 || j->of_mta || !n)
		return r;
	(void)mw_fail(err, MW_EFORMAT,
	              "not a line of Postfix or Sendmail among %llu of the log, though "
	              "%llu messages were journaled%s",
	              (unsigned long long)j->lines, (unsigned long long)n,
	              j->since_us > 0 || j->first_us ? " since then" : "");
	(void)mw_err_hint(err,
	                  "name the log that the mail server writes to (see 'postconf "
	                  "maillog_file', or give 'journald'); if it was rotated since, "
	                  "the one before it too, older first");
	return MW_EFORMAT;
}

/* Which rows have a record. */
static int
look_up(struct job *j, struct mw_err *err)
{
	for (size_t i = 0; i < j->a.n; i++) {
		struct mw_audit_row *r = &j->a.v[i];
		struct mw_record rec;
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		if (!r->received && !r->accepted)
			continue; /* refused before its content */
		int f = mw_outcomes_record(j->cli->stores[0], r->queue_id,
		                           r->begun_us - 600 * SECOND_US,
		                           MW_MAX(r->accepted_us, r->last_us) +
		                               60 * SECOND_US,
		                           &rec, err);
		if (f < 0)
			return f;
		r->journaled = f > 0;
		if (f > 0 && add_seq(j, rec.seq))
			return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return 0;
}

/* ---- what was erased, or has expired ---- */

/* Its tokens are wiped, so only its time is left: of the messages accepted then that have
 * no record it is the nearest one. Each accounts for one. */
static struct mw_audit_row *
row_of_erased(struct job *j, const struct mw_record *rec)
{
	struct mw_audit_row *best = NULL;
	int64_t least = INT64_MAX;
	for (size_t i = 0; i < j->n_without; i++) {
		struct mw_audit_row *r = &j->a.v[j->without[i]];
		int64_t away = llabs(r->accepted_us - rec->time_us);
		if (r->journaled || rec->time_us < r->begun_us - SECOND_US ||
		    rec->time_us > r->accepted_us + 2 * SECOND_US || away >= least)
			continue;
		best = r;
		least = away;
	}
	return best;
}

static int
find_without(struct job *j, struct mw_err *err)
{
	j->without = calloc(j->a.n + 1, sizeof *j->without);
	if (!j->without)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < j->a.n; i++)
		if (j->a.v[i].accepted && !j->a.v[i].journaled)
			j->without[j->n_without++] = i;
	return 0;
}

static int
look_up_erased(struct job *j, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_store *st = j->cli->stores[0];
	int64_t from = INT64_MAX, to = INT64_MIN;
	int bad = 0, r = find_without(j, err);
	for (size_t i = 0; i < j->n_without; i++) {
		const struct mw_audit_row *w = &j->a.v[j->without[i]];
		from = MW_MIN(from, w->begun_us - SECOND_US);
		to = MW_MAX(to, w->accepted_us + 2 * SECOND_US);
	}
	if (r == 0 && j->n_without)
		r = mw_cursor_new(st, 1, &c, err);
	if (r == 0 && c)
		mw_cursor_ahead(c);
	while (r == 0 && c) {
		struct mw_record rec;
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		int k = mw_cursor_next(c, &rec, NULL);
		if (k == 0 || (k < 0 && ++bad > 1000))
			break;
		if (k < 0 || rec.type != MW_TYPE_MAIL)
			continue;
		if (rec.time_us < from || rec.time_us > to ||
		    mw_record_wiped(st, &rec, NULL) != 1)
			continue;
		struct mw_audit_row *row = row_of_erased(j, &rec);
		if (!row)
			continue;
		row->journaled = true;
		j->erased++;
		if (add_seq(j, rec.seq))
			r = mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return r;
}

/* ---- the reverse ---- */

static int
by_u64(const void *x, const void *y)
{
	uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
	return a < b ? -1 : a > b;
}

static void
tell_extra(struct job *j, const struct mw_record *r)
{
	char id[MW_ID_TEXT + 1], when[40];
	j->extra++;
	mw_id_text(id, r->id);
	mw_time_rfc3339(when, sizeof when, r->time_us);
	if (j->cli->json)
		mw_cli_json(json_pack("{s:s, s:s, s:s}", "message_type", "not_accepted",
		                      "id", id, "time", when));
	else if (!j->cli->quiet && j->extra <= SHOWN)
		printf("journaled, not accepted: %.*s %s\n", MW_ID_SHORT, id, when);
}

/* Mail journaled in the log's time that the log does not know of: the sender hung up, the
 * mail server failed behind the milter. (The last minute may not be written yet.) */
static int
reverse(struct job *j, struct mw_err *err)
{
	MW_CURSOR_AUTO *c = NULL;
	int64_t from = MW_MAX(j->a.first_us, j->since_us) + 60 * SECOND_US;
	int64_t to = j->a.last_us - SECOND_US;
	int bad = 0, r = mw_cursor_new(j->cli->stores[0], 1, &c, err);
	if (j->n_seq)
		qsort(j->seq, j->n_seq, sizeof *j->seq, by_u64);
	while (r >= 0) {
		struct mw_record rec;
		struct mw_err e = {0};
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		int k = mw_cursor_next(c, &rec, &e);
		if (k == 0 || (k < 0 && ++bad > 1000))
			break;
		if (k < 0 || rec.type != MW_TYPE_MAIL || rec.imported ||
		    rec.time_us < from || rec.time_us > to)
			continue;
		if (!j->n_seq ||
		    !bsearch(&rec.seq, j->seq, j->n_seq, sizeof rec.seq, by_u64))
			tell_extra(j, &rec);
	}
	return r < 0 ? r : 0;
}

/* What "journal" says of the beginning; INT64_MAX if it cannot be read. */
static int64_t
created(const char *dir)
{
	char path[PATH_MAX], text[64];
	MW_AUTOFREE void *p = NULL;
	size_t n;
	int64_t us;
	(void)snprintf(path, sizeof path, "%s/journal", dir);
	if (mw_fs_read_file(mw_fs_posix(), path, 65536, &p, &n) < 0)
		return INT64_MAX;
	const char *at = strstr(p, "\ncreated = ");
	if (!at)
		return INT64_MAX;
	at += strlen("\ncreated = ");
	(void)snprintf(text, sizeof text, "%.*s", (int)strcspn(at, "\n"), at);
	return mw_time_parse(text, 0, &us) < 0 ? INT64_MAX : us;
}

/* Since when it should have everything: its creation, or where that was pruned, its first
 * record. What was imported has the time of another day. */
static int64_t
beginning(const char *dir, struct mw_store *st)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record rec;
	int64_t us = created(dir);
	int bad = 0, k;
	if (mw_cursor_new(st, 1, &c, NULL) < 0)
		return us;
	bool first = false; /* the one with which it began was seen */
	while ((k = mw_cursor_next(c, &rec, NULL)) != 0 && bad < 100 &&
	       !mw_cli_stopped()) {
		if (k < 0) {
			bad++;
			continue;
		}
		first = first || rec.seq == 1;
		if (!rec.imported)
			return first ? MW_MIN(us, rec.time_us) : rec.time_us;
	}
	return us;
}

/* ---- telling ---- */

static void
tell_hole(struct job *j, const struct mw_audit_row *r)
{
	char when[40];
	if (j->cli->json) {
		mw_time_rfc3339(when, sizeof when, r->accepted_us);
		mw_cli_json(
		    json_pack("{s:s, s:o, s:s, s:s, s:s, s:o, s:o}", "message_type",
		              "hole", "queue_id", mw_json_str(r->queue_id), "time", when,
		              "cause", mw_audit_name(r->cause), "text",
		              mw_audit_text(r->cause), "client", mw_json_str(r->client),
		              "message_id", mw_json_str(r->message_id)));
		return;
	}
	if (j->cli->quiet || j->holes > SHOWN)
		return;
	mw_time_local(when, sizeof when, r->accepted_us);
	printf("hole: %.*s %s %s\n", (int)r->queue_id.n, r->queue_id.p, when,
	       mw_audit_text(r->cause));
}

static void
count(struct job *j)
{
	for (size_t i = 0; i < j->a.n; i++) {
		const struct mw_audit_row *r = &j->a.v[i];
		if (r->begun_us < j->since_us)
			continue;
		j->refused += r->refused && r->journaled;
		if (!mw_audit_expects(r))
			continue;
		j->accepted++;
		j->journaled += r->journaled;
		j->reentry += r->cause == MW_AUDIT_REENTRY;
		j->before += r->cause == MW_AUDIT_BEFORE;
		if (mw_audit_hole(r->cause)) {
			j->holes++;
			tell_hole(j, r);
		}
	}
}

static json_t *
summary(const struct job *j)
{
	char from[40] = "", to[40] = "";
	if (j->a.last_us) {
		mw_time_rfc3339(from, sizeof from, MW_MAX(j->a.first_us, j->since_us));
		mw_time_rfc3339(to, sizeof to, j->a.last_us);
	}
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
	                 "s:I, s:I, s:s, s:s}",
	                 "message_type", "summary", "command", "audit", "lines",
	                 (json_int_t)j->lines, "accepted", (json_int_t)j->accepted,
	                 "journaled", (json_int_t)j->journaled, "erased",
	                 (json_int_t)j->erased, "reentry", (json_int_t)j->reentry,
	                 "before_journal", (json_int_t)j->before, "holes",
	                 (json_int_t)j->holes, "refused_later", (json_int_t)j->refused,
	                 "not_accepted", (json_int_t)j->extra, "not_compared",
	                 (json_int_t)j->unseen, "selected", (json_int_t)j->accepted,
	                 "failed", (json_int_t)j->holes, "from", from, "to", to);
}

static void
tell(const struct job *j)
{
	if (j->cli->json) {
		mw_cli_json(summary(j));
		return;
	}
	if (j->cli->quiet)
		return;
	if (j->holes > SHOWN)
		printf("… and %llu more holes; --json names them all\n",
		       (unsigned long long)(j->holes - SHOWN));
	printf("%llu accepted: %llu in the journal, %llu came out of those, %llu older "
	       "than it, %llu holes",
	       (unsigned long long)j->accepted, (unsigned long long)j->journaled,
	       (unsigned long long)j->reentry, (unsigned long long)j->before,
	       (unsigned long long)j->holes);
	printf(". %llu journaled and then refused, %llu not accepted in this log.\n",
	       (unsigned long long)j->refused, (unsigned long long)j->extra);
	if (j->erased)
		printf("%llu of those in the journal were erased or have expired since, "
		       "by their "
		       "time.\n",
		       (unsigned long long)j->erased);
}

/* Takes o. */
static int
leave(const struct job *j, json_t *o, struct mw_err *err)
{
	char dir[PATH_MAX];
	char *text = json_dumps(o, JSON_INDENT(1));
	json_decref(o);
	if (!text)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	(void)snprintf(dir, sizeof dir, "%s/ledger", j->cli->journals[0]);
	const struct mw_fs *fs = mw_fs_posix();
	int r = mw_cli_as_owner(j->cli->journals[0], err);
	if (r == 0) {
		r = fs->mkdir(fs, dir);
		if (r == 0 || r == -EEXIST)
			r = mw_fs_write_file(fs, dir, MW_AUDIT_STATE, text, strlen(text));
		errno = r < 0 ? -r : 0;
		if (r < 0)
			r = mw_fail_errno(err, "cannot write %s/%s", dir, MW_AUDIT_STATE);
	}
	mw_cli_as_self();
	free(text);
	return r < 0 ? r : 0;
}

/* For the metrics. */
static void
note(const struct job *j, bool done)
{
	MW_BUF_AUTO lines = {0};
	mw_buf_printf(&lines, "passed %d\n", done && !j->holes);
	if (done)
		mw_buf_printf(&lines, "holes %llu\n", (unsigned long long)j->holes);
	mw_noted(j->cli->journals[0], "audit", true, &lines);
}

/* For status; an audit that cannot leave its result is still an audit: it was told, and a
 * hole is its answer. */
static int
remember(const struct job *j, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	json_t *o = summary(j);
	(void)json_object_set_new(o, "time_us",
	                          json_integer((json_int_t)clock->now_us(clock)));
	note(j, true);
	return leave(j, o, err);
}

/* For status too: beside what the last one found, that this one could not be done. */
static void
remember_failure(const struct job *j, const struct mw_err *why)
{
	const struct mw_clock *clock = mw_clock_system();
	char path[PATH_MAX];
	struct mw_err err;
	(void)snprintf(path, sizeof path, "%s/ledger/%s", j->cli->journals[0],
	               MW_AUDIT_STATE);
	json_t *o = json_load_file(path, 0, NULL);
	if (!json_is_object(o)) {
		json_decref(o);
		o = json_object();
	}
	(void)json_object_set_new(o, "failed_us",
	                          json_integer((json_int_t)clock->now_us(clock)));
	(void)json_object_set_new(o, "failed", mw_json_str(mw_strz(why->msg)));
	note(j, false);
	(void)!leave(j, o, &err);
}

static int
work(struct job *j, const char *const *log, size_t n_log, struct mw_err *err)
{
	int r = mw_audit_init(&j->a, err);
	for (size_t i = 0; i < n_log && r == 0; i++)
		r = read_log(j, log[i], err);
	if (r == 0)
		r = check_lines(j, err);
	if (r == 0)
		r = look_up(j, err);
	if (r == 0)
		r = look_up_erased(j, err);
	if (r == 0 &&
	    mw_audit_judge(&j->a, beginning(j->cli->journals[0], j->cli->stores[0])))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	if (r == 0) {
		count(j);
		r = reverse(j, err);
	}
	return r;
}

static int
parse(struct job *j, int argc, char **argv, const char **log, size_t *ret_n)
{
	const struct mw_cmd *cmd = mw_cmd_find("audit");
	struct mw_err err = {0};
	const char *since = NULL;
	for (int i = 1; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "-S|--since", &since, &err);
		if (r < 0)
			return mw_cli_error(j->cli, &err);
		if (r == 0 && argv[i][0] == '-' && argv[i][1])
			return mw_cli_unknown(j->cli, cmd, argv[i]);
		if (r == 0)
			log[(*ret_n)++] = argv[i];
	}
	if (!*ret_n)
		return mw_cli_usage(j->cli, cmd, "which log? a file, - or journald");
	if (since && mw_query_time("--since", since, false, &j->since_us, &err) < 0)
		return mw_cli_error(j->cli, &err);
	return 0;
}

static void
warn_unseen(const struct job *j)
{
	char when[40];
	mw_time_local(when, sizeof when, j->first_us);
	fprintf(stderr,
	        "mailwal: warning: the log begins at %s; %llu messages journaled before "
	        "that were not compared\n  hint: name the log before it too, older "
	        "first\n",
	        when, (unsigned long long)j->unseen);
}

int
mw_cmd_audit(struct mw_cli *cli, int argc, char **argv)
{
	struct job j = {.cli = cli, .since_us = INT64_MIN / 2};
	struct mw_err err = {0};
	size_t n_log = 0;
	MW_AUTOFREE const char **log = calloc((size_t)argc + 1, sizeof *log);
	if (!log)
		return mw_err_exit(MW_ENOMEM);
	int status = parse(&j, argc, argv, log, &n_log);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status)
		return status;
	int r = work(&j, log, n_log, &err);
	if (r == 0) {
		tell(&j);
		j.told = true;
		if (j.of_mta || !j.unseen) /* else nothing was compared: no audit */
			r = remember(&j, &err);
	}
	if (r < 0 && r != MW_ECANCEL && !j.told)
		remember_failure(&j, &err);
	if (r < 0)
		status = mw_cli_error(cli, &err);
	if (r == 0 && j.unseen)
		warn_unseen(&j);
	else if (r == 0 && !j.accepted && !cli->quiet)
		fprintf(stderr, "mailwal: warning: this log names no accepted mail\n");
	status = j.told && j.holes ? 1 : r < 0 ? status : 0;
	mw_audit_done(&j.a);
	free(j.seq);
	free(j.without);
	return status;
}
