#include "replay/status.h"

#include "journal/base/util.h"
#include "journal/retain/retain.h"
#include "journal/store/control.h"
#include "replay/drill_report.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FOLLOW_LAG_US (INT64_C(300) * 1000000) /* then a standby is told of */

static void add(struct mw_status *s, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
add(struct mw_status *s, int level, const char *fmt, ...)
{
	if (s->n_problems == MW_STATUS_PROBLEMS)
		return;
	struct mw_status_problem *p = &s->problem[s->n_problems++];
	va_list ap;
	p->level = level;
	va_start(ap, fmt);
	(void)vsnprintf(p->text, sizeof p->text, fmt, ap);
	va_end(ap);
}

/* ---- disk ---- */

struct tally {
	struct mw_status *s;
	const char *dir;
	int depth;
};

static int
count_entry(void *arg, const char *name)
{
	struct tally *t = arg;
	char path[4096];
	struct stat sb;
	const struct mw_fs *fs = mw_fs_posix();
	if (snprintf(path, sizeof path, "%s/%s", t->dir, name) >= (int)sizeof path ||
	    lstat(path, &sb) < 0)
		return 0; /* gone meanwhile */
	t->s->disk_bytes += (uint64_t)sb.st_blocks * 512;
	size_t n = strlen(name);
	if (S_ISREG(sb.st_mode) && n > 4 && strcmp(name + n - 4, ".seg") == 0)
		t->s->segments++;
	if (S_ISDIR(sb.st_mode) && t->depth > 0) {
		struct tally sub = {t->s, path, t->depth - 1};
		(void)fs->list(fs, path, count_entry, &sub);
	}
	return 0;
}

static void
ask_disk(const struct mw_conf *conf, struct mw_status *s)
{
	const struct mw_fs *fs = mw_fs_posix();
	struct tally t = {s, s->dir, 2};
	char free_text[32], floor_text[32];
	(void)fs->list(fs, s->dir, count_entry, &t);
	int64_t n = fs->free_space(fs, s->dir);
	s->free_bytes = n > 0 ? (uint64_t)n : 0;
	mw_size_human(free_text, sizeof free_text, s->free_bytes);
	mw_size_human(floor_text, sizeof floor_text, conf->min_free);
	if (s->free_bytes < conf->min_free)
		add(s, 2, "%s free, below min_free (%s): mail is not taken", free_text,
		    floor_text);
	else if (s->free_bytes < 2 * conf->min_free)
		add(s, 1, "%s free, close to min_free (%s)", free_text, floor_text);
}

/* ---- log ---- */

struct others { /* records that are not mail */
	const struct mw_gone *gone;
	uint64_t n;
	struct mw_record prune; /* the newest AUDIT; seq 0: none */
};

static int
count_record(void *arg, const struct mw_record *r)
{
	struct others *o = arg;
	if (r->type == MW_TYPE_AUDIT)
		o->prune = *r;
	o->n += !mw_gone_record(o->gone, r->seq); /* one to be wiped yet is gone */
	return 0;
}

/* The first or newest mail from record `from` on. */
static int64_t
mail_time(struct mw_store *st, uint64_t from, bool last)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	int64_t found = 0;
	int damage = 0;
	if (mw_cursor_new(st, from, &c, NULL) < 0)
		return 0;
	if (last) /* the first is soon found */
		mw_cursor_ahead(c);
	for (;;) {
		int k = mw_cursor_next(c, &r, NULL);
		if (k == 0 || (k < 0 && ++damage > 1000))
			break;
		if (k < 0 || r.type != MW_TYPE_MAIL || (last && r.imported))
			continue;
		found = r.time_us;
		if (!last)
			break;
	}
	return found;
}

static uint64_t
first_seq(struct mw_store *st)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	if (mw_cursor_new(st, 1, &c, NULL) < 0)
		return 0;
	for (int tries = 0; tries < 1000; tries++) {
		int k = mw_cursor_next(c, &r, NULL);
		if (k > 0)
			return r.seq;
		if (k == 0)
			break;
	}
	return 0;
}

/* Back from the end in growing steps, until there is a mail among them. */
static int64_t
newest_mail(struct mw_store *st, uint64_t first, const struct mw_record *newest)
{
	uint64_t last = newest->seq;
	if (newest->type == MW_TYPE_MAIL && !newest->imported)
		return newest->time_us;
	for (uint64_t back = 16;; back *= 16) {
		bool all = back > last - first;
		int64_t us = mail_time(st, all ? first : last + 1 - back, true);
		if (us || all)
			return us;
	}
}

int64_t
mw_status_newest_mail(struct mw_store *st)
{
	uint64_t first = first_seq(st);
	struct mw_record newest;
	return first && mw_store_last(st, UINT64_MAX, &newest, NULL) == 1
	           ? newest_mail(st, first, &newest)
	           : 0;
}

static void
ask_prune(struct mw_status *s, struct mw_store *st, const struct mw_record *r)
{
	MW_BUF_AUTO cbor = {0};
	struct mw_err err = {0};
	struct mw_audit a;
	if (r->seq == 0)
		return;
	if (mw_record_meta(st, r, &cbor, &err) < 0 ||
	    mw_audit_decode(cbor.p, cbor.n, s->arena, &a, &err) < 0) {
		add(s, 1, "the last prune: %s", err.msg);
		return;
	}
	s->prune_us = a.time_us;
	s->prune_mails = a.records;
	s->prune_segments = a.segments;
	s->prune_freed = a.freed;
	s->lost = mw_arena_alloc(s->arena, sizeof *s->lost);
	if (s->lost)
		*s->lost = (struct mw_lost){a.lost, a.n_lost, a.n_lost};
}

static void
ask_log(struct mw_status *s, struct mw_store *st)
{
	MW_GONE_AUTO *gone = NULL;
	struct others other = {.n = 0};
	struct mw_err err = {0};
	uint64_t first = first_seq(st), removed = 0;
	if (first == 0)
		return;
	if (mw_gone_load(st, &gone, &err) < 0) {
		add(s, 1, "%s", err.msg);
		return;
	}
	struct mw_record newest = {.seq = first};
	if (mw_store_last(st, UINT64_MAX, &newest, &err) < 0)
		add(s, 1, "%s", err.msg);
	uint64_t last = newest.seq;
	mw_gone_tally(gone, first, last, &removed, &s->erased);
	s->records = last - first + 1 - removed;
	/* The index knows every record that is not mail; the rest is mail, but for what
	 * was erased, of which nobody can tell any more. */
	other.gone = gone;
	for (int type = MW_TYPE_MAIL + 1; type <= MW_TYPE_RESTORE; type++) {
		char key = (char)type;
		mw_err_clear(&err);
		if (mw_store_find(st, MW_KEY_TYPE, mw_str(&key, 1), count_record, &other,
		                  &err) < 0)
			add(s, 1, "%s", err.msg);
	}
	other.n += s->erased;
	s->mails = s->records > other.n ? s->records - other.n : 0;
	s->oldest_us = mail_time(st, first, false);
	s->newest_us = s->mails ? newest_mail(st, first, &newest) : 0;
	ask_prune(s, st, &other.prune);
}

static void
ask_checkpoint(struct mw_status *s)
{
	struct mw_err err = {0};
	int r = mw_published_read(s->dir, &s->checkpoint, &err);
	if (r < 0 && r != MW_EPERM)
		add(s, 1, "%s", err.msg);
}

static void
ask_marks(struct mw_status *s, struct mw_store *st)
{
	struct mw_mark_info *v = NULL;
	size_t n = 0;
	struct mw_err err = {0};
	if (mw_marks(st, s->arena, &v, &n, &err) < 0) {
		add(s, 1, "%s", err.msg);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (v[i].state == MW_MARK_COMPLETE)
			s->complete = v[i];
		if (v[i].state == MW_MARK_START)
			s->running = v[i];
	}
	/* A start that a later one of the same name superseded runs no more. */
	for (size_t i = 0; s->running.name && i < n; i++)
		if (v[i].start_seq > s->running.start_seq &&
		    strcmp(v[i].name, s->running.name) == 0)
			s->running.name = NULL;
}

static void
ask_audit(struct mw_status *s)
{
	char path[4096];
	json_error_t je;
	(void)snprintf(path, sizeof path, "%s/ledger/%s", s->dir, MW_AUDIT_STATE);
	json_t *o = json_load_file(path, 0, &je);
	if (!o)
		return; /* never, or not ours to read */
	s->audit_us = json_integer_value(json_object_get(o, "time_us"));
	s->audit_accepted = json_integer_value(json_object_get(o, "accepted"));
	s->audit_holes = json_integer_value(json_object_get(o, "holes"));
	s->audit_failed_us = json_integer_value(json_object_get(o, "failed_us"));
	const char *why = json_string_value(json_object_get(o, "failed"));
	s->audit_failed = mw_arena_printf(s->arena, "%s", why ? why : "");
	json_decref(o);
	if (s->audit_failed_us && s->audit_failed)
		add(s, 1, "the last audit could not be done: %s", s->audit_failed);
	if (s->audit_holes > 0)
		add(s, 1, "the last audit found %lld messages accepted and not journaled",
		    (long long)s->audit_holes);
}

static void
ask_drill(const struct mw_conf *conf, struct mw_status *s, struct mw_store *st)
{
	struct mw_drill_kept k;
	char age[32];
	struct mw_err err = {0};
	if (mw_drill_find(st, NULL, &k, &err) < 0) {
		/* None yet, or not ours to read. */
		if (err.code != MW_ENOTFOUND && err.code != MW_EPERM)
			add(s, 1, "the last drill: %s", err.msg);
		return;
	}
	(void)snprintf(s->drill, sizeof s->drill, "%s", k.name);
	(void)mw_time_parse(mw_drill_str(k.o, "ended"), 0, &s->drill_us);
	s->drill_forged = !k.signed_here;
	s->drill_passed = strcmp(mw_drill_str(k.o, "result"), "passed") == 0;
	s->drill_expected = (uint64_t)mw_drill_num(k.o, "copies.expected");
	s->drill_identical =
	    (uint64_t)mw_drill_num(k.o, "copies.identical") +
	    (uint64_t)mw_drill_num(k.o, "copies.identical_in_canonical_form");
	s->drill_rto = mw_drill_real(k.o, "measured.rto_s");
	s->drill_rpo = json_is_number(mw_drill_at(k.o, "measured.rpo_s"))
	                   ? mw_drill_real(k.o, "measured.rpo_s")
	                   : -1;
	mw_duration_human(age, sizeof age, s->now_us - s->drill_us);
	if (s->drill_forged)
		add(s, 2,
		    "the report of the last drill is not signed by this journal, or "
		    "was altered");
	else if (!s->drill_passed)
		add(s, 2, "the last drill failed: %lld findings ('mailwal drill report')",
		    (long long)mw_drill_num(k.o, "findings_total"));
	if (conf->drill_max_age && s->now_us - s->drill_us > conf->drill_max_age)
		add(s, 1, "the last drill was %s ago, longer than drill_max_age", age);
	mw_drill_kept_done(&k);
}

static void
ask_holds(struct mw_status *s, struct mw_store *st)
{
	struct mw_err err = {0};
	MW_BUF_AUTO text = {0};
	if (mw_status_holds(s, st, &err) < 0)
		add(s, 1, "the holds: %s", err.msg);
	if (!s->lost || s->lost->n == 0)
		return;
	mw_lost_text(s->lost, &text);
	add(s, 2,
	    "%llu records cannot be read (sequence %.120s), and a hold may be among "
	    "them: "
	    "prune and erase remove nothing; 'mailwal hold list' shows what is in force, "
	    "add "
	    "again what is missing, then 'mailwal prune --despite-damage'",
	    (unsigned long long)mw_lost_count(s->lost), mw_buf_cstr(&text));
}

/* ---- daemon ---- */

static int64_t
number(const struct mw_status *s, const char *key)
{
	const json_t *v = json_object_get(s->daemon_json, key);
	return json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
}

static const char *
word(const struct mw_status *s, const char *key)
{
	const char *v = json_string_value(json_object_get(s->daemon_json, key));
	return v ? v : "";
}

/* A disk that was full and has space again is no trouble any more; one that lost a write
 * may do so again. */
static void
describe_failures(struct mw_status *s)
{
	char when[32];
	long long n = (long long)number(s, "failures");
	if (n == 0)
		return;
	mw_time_local(when, sizeof when, number(s, "last_failure_us"));
	(void)snprintf(
	    s->failed_text, sizeof s->failed_text,
	    "%lld write%s of the log failed since mailwald started, the last %s (%s)", n,
	    n == 1 ? "" : "s", when, word(s, "last_failure"));
	if (json_is_true(json_object_get(s->daemon_json, "failing")))
		add(s, 2, "the last write of the log failed, %s: %s; %lld failed in all",
		    when, word(s, "last_failure"), n);
	else if (number(s, "failures_unacknowledged") > 0)
		add(s, 1,
		    "%lld writes of the log failed, the last %s (%s); mail is journaled "
		    "again; look at the disk, then 'mailwal status --ack' ends this line",
		    (long long)number(s, "failures_unacknowledged"), when,
		    word(s, "last_failure"));
}

static void
describe_daemon(struct mw_status *s)
{
	char up[32];
	mw_duration_human(up, sizeof up, number(s, "uptime_s") * 1000000);
	(void)snprintf(
	    s->daemon_text, sizeof s->daemon_text,
	    "mailwald %s running, up %s; %lld journaled, %lld told to try again; "
	    "on failure: %s",
	    word(s, "version"), up, (long long)number(s, "journaled"),
	    (long long)number(s, "tempfailed"), word(s, "on_failure"));
	size_t n = strlen(s->daemon_text);
	if (number(s, "spf_checked") || number(s, "spf_dropped"))
		(void)snprintf(s->daemon_text + n, sizeof s->daemon_text - n,
		               "; SPF: %lld checked, %lld not",
		               (long long)number(s, "spf_checked"),
		               (long long)number(s, "spf_dropped"));
	s->index_lag = number(s, "index_lag_records");
	if (json_is_false(json_object_get(s->daemon_json, "ready")))
		add(s, 2, "mailwald cannot take mail now: %s", word(s, "ready_error"));
	s->passed = (struct mw_passed){.count = (uint64_t)number(s, "unacknowledged"),
	                               .first_us = number(s, "passed_first_us"),
	                               .last_us = number(s, "passed_last_us")};
	if (number(s, "overloaded_unacknowledged") > 0)
		add(s, 1,
		    "%lld messages were not taken for overload since mailwald started; "
		    "'mailwal status --ack' ends this line",
		    (long long)number(s, "overloaded_unacknowledged"));
	describe_failures(s);
}

static void
ask_daemon(struct mw_status *s)
{
	MW_BUF_AUTO reply = {0};
	struct mw_err err = {0};
	int r = mw_control_call(s->dir, "status", &reply, &err);
	if (r == 0) {
		json_error_t je;
		s->daemon = 1;
		s->daemon_json =
		    json_loadb(reply.n ? (const char *)reply.p : "", reply.n, 0, &je);
		describe_daemon(s);
		return;
	}
	if (r == MW_EUNAVAIL || r == MW_ENOTFOUND) {
		s->daemon = 0;
		(void)snprintf(s->daemon_text, sizeof s->daemon_text,
		               "mailwald is not running");
		add(s, 2, "mailwald is not running: no mail is being journaled");
		return;
	}
	s->daemon = -1;
	(void)snprintf(s->daemon_text, sizeof s->daemon_text, "cannot ask: %.200s",
	               err.msg);
	/* Whoever may read the journal need not be allowed to command the daemon. */
	if (r != MW_EPERM)
		add(s, 2, "mailwald does not answer: %s", err.msg);
}

/* What passed without a record, also before the daemon's last start. */
static void
tell_passed(struct mw_status *s)
{
	char first[32], last[32];
	struct mw_err err = {0};
	if (s->daemon != 1 && mw_passed_read(s->dir, &s->passed, &err) < 0) {
		add(s, 1, "%s", err.msg);
		return;
	}
	s->passed.count -= s->passed.acknowledged;
	if (s->passed.count == 0)
		return;
	mw_time_local(first, sizeof first, s->passed.first_us);
	mw_time_local(last, sizeof last, s->passed.last_us);
	add(s, 2,
	    "%llu messages passed without a record (on_failure = accept) from %s to %s; "
	    "'mailwal audit LOG' names them, 'mailwal status --ack' ends this line",
	    (unsigned long long)s->passed.count, first, last);
}

int
mw_status_acknowledge(const char *dir, struct mw_err *err)
{
	MW_BUF_AUTO reply = {0};
	struct mw_passed p;
	int r = mw_control_call(dir, "acknowledge", &reply, err);
	if (r != MW_EUNAVAIL && r != MW_ENOTFOUND)
		return r;
	/* No daemon: the file is ours. One that is damaged begins anew. */
	mw_err_clear(err);
	r = mw_passed_read(dir, &p, err);
	if (r < 0 && r != MW_EDAMAGED)
		return r;
	mw_err_clear(err);
	p.acknowledged = p.count;
	p.first_us = p.last_us = 0;
	return mw_passed_write(dir, &p, err);
}

static void
ask_followers(struct mw_status *s, struct mw_store *st)
{
	mw_status_followers(s, st);
	for (size_t i = 0; i < s->n_follow; i++) {
		char lag[32];
		mw_duration_human(lag, sizeof lag, s->follow[i].lag_us);
		if (s->follow[i].lag_us > FOLLOW_LAG_US)
			add(s, 1,
			    "the standby %.100s is %s behind (a standby that is no more: "
			    "delete its follow-*.state in %.100s/ledger)",
			    s->follow[i].target, lag, s->dir);
	}
}

void
mw_status_gather(const struct mw_cli *cli, size_t journal, struct mw_status *ret)
{
	const struct mw_clock *clock = mw_clock_system();
	const struct mw_conf *conf = mw_cli_conf_of(cli, journal);
	MW_STORE_AUTO *st = NULL;
	*ret = (struct mw_status){.dir = cli->journals[journal]};
	ret->now_us = clock->now_us(clock);
	ret->arena = mw_arena_new(64U << 20);
	int r = mw_cli_open(cli, journal, &st, &ret->err);
	if (r < 0 || !ret->arena) {
		if (r >= 0)
			(void)mw_fail(&ret->err, MW_ENOMEM, "out of memory");
		add(ret, r == MW_EPERM ? 3 : 2, "%s", ret->err.msg);
		ret->daemon = -1;
		return;
	}
	ret->opened = true;
	ret->encrypted = mw_store_recovery_keys(st) > 0;
	ask_daemon(ret);
	ask_disk(conf, ret);
	ask_log(ret, st);
	ask_marks(ret, st);
	ask_audit(ret);
	ask_checkpoint(ret);
	ask_drill(conf, ret, st);
	ask_holds(ret, st);
	ask_followers(ret, st);
	tell_passed(ret);
	if (ret->index_lag > 10000)
		add(ret, 1, "the index is %lld records behind",
		    (long long)ret->index_lag);
}

void
mw_status_done(struct mw_status *s)
{
	json_decref(s->daemon_json);
	mw_arena_free(s->arena);
}
