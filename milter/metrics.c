#include "milter/metrics.h"

#include <stdio.h>
#include <sys/stat.h>

#include "journal/base/util.h"
#include "milter/expand.h"
#include "milter/verdict.h"

enum {
	NOTED_MAX = 4096
};

enum metric {
#define MW_METRIC(name, type, help) M_##name,
#include "milter/metrics.def"
#undef MW_METRIC
};

static const struct {
	const char *name, *type, *help;
} metrics[] = {
#define GAUGE                       "gauge"
#define COUNTER                     "counter"
#define HISTOGRAM                   "histogram"
#define MW_METRIC(name, type, help) {#name, type, help},
#include "milter/metrics.def"
#undef MW_METRIC
};

static void
head(struct mw_buf *b, enum metric m)
{
	mw_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", metrics[m].name, metrics[m].help,
	              metrics[m].name, metrics[m].type);
}

static void
number(struct mw_buf *b, enum metric m, uint64_t v)
{
	head(b, m);
	mw_buf_printf(b, "%s %llu\n", metrics[m].name, (unsigned long long)v);
}

static void
labelled(struct mw_buf *b, enum metric m, const char *label, const char *value,
         uint64_t v)
{
	mw_buf_printf(b, "%s{%s=\"", metrics[m].name, label);
	for (; *value; value++) { /* a section's name is the operator's */
		if (*value == '"' || *value == '\\')
			mw_buf_putc(b, '\\');
		mw_buf_putc(b, *value == '\n' ? ' ' : *value);
	}
	mw_buf_printf(b, "\"} %llu\n", (unsigned long long)v);
}

static void
seconds(struct mw_buf *b, enum metric m, int64_t us)
{
	head(b, m);
	mw_buf_printf(b, "%s %lld.%06lld\n", metrics[m].name, (long long)(us / 1000000),
	              (long long)(us % 1000000));
}

static void
messages(struct mw_capture *cap, struct mw_buf *b)
{
	struct mw_counters *n = &cap->count;
	const enum metric m = M_mailwal_messages_total;
	static const enum metric by_section[] = {M_mailwal_excluded_messages_total,
	                                         M_mailwal_excluded_bytes_total};
	head(b, m);
	labelled(b, m, "result", "journaled", atomic_load(&n->journaled));
	labelled(b, m, "result", "excluded", atomic_load(&n->excluded));
	labelled(b, m, "result", "replayed", atomic_load(&n->replayed));
	labelled(b, m, "result", "tempfailed", atomic_load(&n->tempfailed));
	labelled(b, m, "result", "passed_unjournaled",
	         atomic_load(&n->passed_unjournaled));
	for (size_t k = 0; k < MW_COUNT(by_section); k++) {
		head(b, by_section[k]);
		pthread_mutex_lock(&cap->lock);
		for (size_t i = 0; i < cap->n_excluded; i++) {
			const struct mw_excluded *e = &cap->excluded[i];
			labelled(b, by_section[k], "section", e->section,
			         k ? e->bytes : e->messages);
		}
		pthread_mutex_unlock(&cap->lock);
	}
	pthread_mutex_lock(&cap->lock);
	uint64_t passed = cap->passed.count - cap->passed.acknowledged;
	pthread_mutex_unlock(&cap->lock);
	number(b, M_mailwal_unacknowledged_messages, passed);
	number(b, M_mailwal_overload_failures_total, atomic_load(&n->overloaded));
	number(b, M_mailwal_imported_messages_total, atomic_load(&n->imported));
	number(b, M_mailwal_aborted_messages_total, atomic_load(&n->aborted));
}

static void
waits(struct mw_capture *cap, struct mw_buf *b)
{
	const char *name = metrics[M_mailwal_commit_wait_seconds].name;
	struct mw_waits *w = &cap->waits;
	uint64_t sum = 0;
	head(b, M_mailwal_commit_wait_seconds);
	for (size_t i = 0; i < MW_WAIT_BUCKETS; i++) {
		sum += atomic_load(&w->bucket[i]);
		if (i < MW_WAIT_BUCKETS - 1)
			mw_buf_printf(b, "%s_bucket{le=\"%g\"} %llu\n", name,
			              (double)mw_wait_bounds_us[i] / 1e6,
			              (unsigned long long)sum);
	}
	/* The sum over the buckets, so that the two cannot differ. */
	mw_buf_printf(b, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)sum);
	mw_buf_printf(b, "%s_sum %.6f\n%s_count %llu\n", name,
	              (double)atomic_load(&w->sum_us) / 1e6, name,
	              (unsigned long long)sum);
}

/* ---- what is on the disk ---- */

struct tally {
	const char *dir;
	int depth;
	uint64_t bytes, segments;
};

static int
on_entry(void *arg, const char *name)
{
	struct tally *t = arg;
	const struct mw_fs *fs = mw_fs_posix();
	char path[4096];
	struct stat sb;
	size_t n = strlen(name);
	if (snprintf(path, sizeof path, "%s/%s", t->dir, name) >= (int)sizeof path ||
	    lstat(path, &sb) < 0)
		return 0; /* gone meanwhile */
	t->bytes += (uint64_t)sb.st_blocks * 512;
	t->segments += S_ISREG(sb.st_mode) && n > 4 && strcmp(name + n - 4, ".seg") == 0;
	if (S_ISDIR(sb.st_mode) && t->depth > 0) {
		struct tally sub = {path, t->depth - 1, 0, 0};
		(void)fs->list(fs, path, on_entry, &sub);
		t->bytes += sub.bytes;
	}
	return 0;
}

/* By the sizes of files; none is opened. */
static void
disk(struct mw_capture *cap, struct mw_buf *b)
{
	static const char *const kinds[] = {"segments", "index"};
	const struct mw_fs *fs = mw_fs_posix();
	struct tally t[MW_COUNT(kinds)];
	char path[MW_COUNT(kinds)][4096];
	for (size_t i = 0; i < MW_COUNT(kinds); i++) {
		(void)snprintf(path[i], sizeof path[i], "%.4000s/%s",
		               mw_store_dir(cap->store), kinds[i]);
		t[i] = (struct tally){path[i], 2, 0, 0};
		(void)fs->list(fs, path[i], on_entry, &t[i]);
	}
	number(b, M_mailwal_segments, t[0].segments);
	head(b, M_mailwal_journal_bytes);
	for (size_t i = 0; i < MW_COUNT(kinds); i++)
		labelled(b, M_mailwal_journal_bytes, "kind", kinds[i], t[i].bytes);
}

static void
journal(struct mw_capture *cap, struct mw_buf *b)
{
	struct mw_store_stats st = {0};
	struct mw_counters *n = &cap->count;
	mw_store_stats(cap->store, &st);
	pthread_mutex_lock(&cap->lock);
	int64_t last = cap->last_time_us ? cap->last_time_us : st.last_mail_us;
	uint64_t floor = cap->settings->conf->min_free;
	pthread_mutex_unlock(&cap->lock);
	number(b, M_mailwal_message_bytes_total, st.bytes_in);
	number(b, M_mailwal_recipients_total, atomic_load(&n->recipients));
	number(b, M_mailwal_stored_bytes_total, st.bytes_stored);
	number(b, M_mailwal_records_total, st.records);
	number(b, M_mailwal_commits_total, st.batches);
	number(b, M_mailwal_commit_failures_total, st.failures);
	waits(cap, b);
	number(b, M_mailwal_milter_sessions,
	       (uint64_t)MW_MAX(atomic_load(&n->open_sessions), 0));
	number(b, M_mailwal_milter_sessions_total, atomic_load(&n->sessions));
	number(b, M_mailwal_pending_messages,
	       (uint64_t)MW_MAX(atomic_load(&n->at_eom), 0));
	number(b, M_mailwal_in_flight_bytes, atomic_load(&n->in_flight));
	seconds(b, M_mailwal_last_message_timestamp_seconds, last);
	number(b, M_mailwal_sequence_number, st.next_seq ? st.next_seq - 1 : 0);
	number(b, M_mailwal_segment_number, st.segment);
	disk(cap, b);
	number(b, M_mailwal_erased_records_total, atomic_load(&n->erased));
	number(b, M_mailwal_index_lag_records,
	       (uint64_t)MW_MAX(st.index_lag_records, INT64_C(0)));
	number(b, M_mailwal_filesystem_avail_bytes, st.free_bytes);
	number(b, M_mailwal_filesystem_floor_bytes, floor);
}

static void
spf(struct mw_capture *cap, struct mw_buf *b)
{
	const enum metric m = M_mailwal_spf_checks_total;
	struct mw_verdict_stats s = {0};
	mw_verdict_stats(atomic_load(&cap->verdict), &s);
	head(b, m);
	labelled(b, m, "result", "verdict", s.checked - MW_MIN(s.checked, s.temperror));
	labelled(b, m, "result", "temperror", s.temperror);
	labelled(b, m, "result", "dropped", s.dropped);
	number(b, M_mailwal_spf_queued, s.queued);
	number(b, M_mailwal_spf_helper_deaths_total, s.deaths);
}

static void
expansions(struct mw_capture *cap, struct mw_buf *b)
{
	const enum metric m = M_mailwal_expansions_total;
	struct mw_expand_stats s;
	mw_expand_stats(atomic_load(&cap->expand), &s);
	head(b, m);
	labelled(b, m, "result", "expanded", s.expanded);
	labelled(b, m, "result", "undecided", s.failed);
	labelled(b, m, "result", "dropped", s.dropped);
	number(b, M_mailwal_expansions_queued, s.queued);
}

/* The value on the line "key value" of what a command left: digits and one point. */
static bool
noted_value(const char *text, const char *key, char out[32])
{
	size_t n = strlen(key);
	for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		if (strncmp(p, key, n) != 0 || p[n] != ' ')
			continue;
		size_t len = strspn(p + n + 1, "0123456789.");
		if (len == 0 || len >= 32 || p[n + 1 + len] != '\n')
			return false;
		memcpy(out, p + n + 1, len);
		out[len] = '\0';
		return true;
	}
	return false;
}

/* Of the files that commands leave: nothing where there is none. */
static void
noted(struct mw_capture *cap, struct mw_buf *b)
{
	static const struct {
		enum metric m;
		const char *file, *key;
	} rows[] = {
	    {M_mailwal_drill_last_run_timestamp_seconds, "drills/last", "time"},
	    {M_mailwal_drill_last_success, "drills/last", "passed"},
	    {M_mailwal_drill_restored_messages, "drills/last", "restored"},
	    {M_mailwal_drill_mismatches, "drills/last", "mismatches"},
	    {M_mailwal_drill_rto_seconds, "drills/last", "rto"},
	    {M_mailwal_drill_rpo_seconds, "drills/last", "rpo"},
	    {M_mailwal_verify_last_run_timestamp_seconds, "ledger/last.verify", "time"},
	    {M_mailwal_verify_last_success, "ledger/last.verify", "passed"},
	    {M_mailwal_verify_findings, "ledger/last.verify", "findings"},
	    {M_mailwal_audit_last_run_timestamp_seconds, "ledger/last.audit", "time"},
	    {M_mailwal_audit_last_success, "ledger/last.audit", "passed"},
	    {M_mailwal_audit_holes, "ledger/last.audit", "holes"},
	    {M_mailwal_prune_last_run_timestamp_seconds, "ledger/last.prune", "time"},
	    {M_mailwal_prune_last_messages, "ledger/last.prune", "removed"},
	    {M_mailwal_prune_last_freed_bytes, "ledger/last.prune", "freed"},
	    {M_mailwal_holds, "ledger/last.holds", "holds"},
	};
	MW_AUTOFREE void *text = NULL;
	for (size_t i = 0; i < MW_COUNT(rows); i++) {
		char path[4096 + 32], value[32];
		size_t n;
		if (i == 0 || strcmp(rows[i].file, rows[i - 1].file) != 0) {
			free(text);
			text = NULL;
			(void)snprintf(path, sizeof path, "%.4000s/%s",
			               mw_store_dir(cap->store), rows[i].file);
			if (mw_fs_read_file(mw_fs_posix(), path, NOTED_MAX, &text, &n) <
			    0)
				text = NULL;
		}
		if (!text || !noted_value(text, rows[i].key, value))
			continue;
		head(b, rows[i].m);
		mw_buf_printf(b, "%s %s\n", metrics[rows[i].m].name, value);
	}
}

void
mw_metrics_text(struct mw_capture *cap, struct mw_buf *out)
{
	int64_t up = cap->clock->mono_us(cap->clock) - cap->started_mono_us;
	head(out, M_mailwal_build_info);
	labelled(out, M_mailwal_build_info, "version", MW_VERSION, 1);
	seconds(out, M_mailwal_start_time_seconds, cap->clock->now_us(cap->clock) - up);
	struct mw_store_stats st = {0};
	mw_store_stats(cap->store, &st);
	number(out, M_mailwal_ready, mw_store_ready(cap->store) == 0 && !st.failing);
	messages(cap, out);
	journal(cap, out);
	spf(cap, out);
	expansions(cap, out);
	number(out, M_mailwal_config_reload_success,
	       atomic_load(&cap->reload_refused) == 0);
	seconds(out, M_mailwal_config_last_reload_timestamp_seconds,
	        atomic_load(&cap->loaded_us));
	noted(cap, out);
}
