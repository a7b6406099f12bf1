#include "replay/drill_report.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void
mw_drill_name(int64_t start_us, char out[MW_DRILL_NAME])
{
	static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
	time_t t = (time_t)(start_us / 1000000);
	uint32_t us = (uint32_t)(start_us % 1000000); /* below 32^4 */
	struct tm tm;
	(void)gmtime_r(&t, &tm);
	size_t n = strftime(out, MW_DRILL_NAME, "%Y%m%dT%H%M%SZ", &tm);
	(void)snprintf(out + n, MW_DRILL_NAME - n, "-%c%c%c%c", digits[us >> 15 & 31],
	               digits[us >> 10 & 31], digits[us >> 5 & 31], digits[us & 31]);
}

/* ---- making ---- */

static void
put(json_t *o, const char *key, json_t *take)
{
	/* Out of memory shows at the end: a key is missing. */
	(void)json_object_set_new(o, key, take);
}

static void
put_num(json_t *o, const char *key, uint64_t v)
{
	put(o, key, json_integer((json_int_t)v));
}

static void
put_text(json_t *o, const char *key, const char *v)
{
	put(o, key, mw_json_str(mw_strz(v)));
}

static void
put_seconds(json_t *o, const char *key, int64_t us)
{
	put(o, key, json_real((double)us / 1e6));
}

static void
put_time(json_t *o, const char *key, int64_t us)
{
	char when[40];
	mw_time_rfc3339(when, sizeof when, us);
	put(o, key, us ? json_string(when) : json_null());
}

static json_t *
scope_json(const struct mw_drill *d)
{
	json_t *o = json_object();
	char seed[24];
	(void)snprintf(seed, sizeof seed, "%016llx", (unsigned long long)d->seed);
	put_text(o, "kind", d->sample ? "sample" : "all");
	put_text(o, "selection", d->selection ? d->selection : "");
	put_num(o, "eligible", d->n.eligible);
	put_num(o, "drawn", d->n.drawn);
	put_num(o, "drawn_as_newest", d->n.newest);
	put_num(o, "mailboxes", d->n.mailboxes);
	put_num(o, "bytes", d->n.bytes);
	put(o, "seed", d->sample ? json_string(seed) : json_null());
	return o;
}

static json_t *
copies_json(const struct mw_drill *d)
{
	const struct mw_drill_count *n = &d->n;
	const struct {
		const char *name;
		uint64_t v;
	} v[] = {
	    {"expected", n->expected},
	    {"restored", n->restored},
	    {"identical", n->identical},
	    {"identical_in_canonical_form", n->normalised},
	    {"missing", n->missing},
	    {"altered", n->altered},
	    {"wrong_folder", n->wrong_folder},
	    {"wrong_date", n->wrong_date},
	    {"out_of_order", n->out_of_order},
	    {"surplus", n->surplus},
	    {"failed", d->report.failed + d->report.doubtful},
	    {"left_out", n->left_out},
	    {"refused", d->report.refused},
	    {"bounced", d->report.bounced},
	    {"queued", d->report.queued},
	    {"removed", d->report.removed},
	    {"unreadable_records", d->plan ? d->plan->unreadable : 0},
	};
	json_t *o = json_object();
	for (size_t i = 0; i < MW_COUNT(v); i++)
		put_num(o, v[i].name, v[i].v);
	return o;
}

static json_t *
log_json(const struct mw_drill *d)
{
	const struct mw_drill_log *l = &d->log;
	json_t *o = json_object();
	char hex[65];
	mw_hex(hex, mw_store_id(d->st), MW_ID_LEN);
	put_text(o, "id", hex);
	put_text(o, "directory", mw_store_dir(d->st));
	put_num(o, "first_seq", l->first_seq);
	put_num(o, "last_seq", l->seq);
	mw_hex(hex, l->chain, sizeof l->chain);
	put_text(o, "chain", hex);
	put_num(o, "segments", l->verified.segments);
	put_num(o, "signed_segments", l->verified.signed_segments);
	put_num(o, "records", l->verified.records);
	put_num(o, "messages", l->verified.mails);
	put_num(o, "erased", l->verified.erased);
	put_num(o, "pruned_segments", l->verified.pruned);
	put_num(o, "lost_sequence_numbers", l->gaps);
	put(o, "encrypted", json_boolean(mw_store_recovery_keys(d->st) > 0));
	put(o, "newest_id", l->newest_id[0] ? json_string(l->newest_id) : json_null());
	put_time(o, "newest_time", l->newest_us);
	put(o, "mark", l->mark[0] ? mw_json_str(mw_strz(l->mark)) : json_null());
	put_time(o, "mark_time", l->mark_us);
	put_num(o, "since_mark_copies", l->since_copies);
	put_num(o, "since_mark_bytes", l->since_bytes);
	return o;
}

static json_t *
limit_json(int64_t us)
{
	return us ? json_real((double)us / 1e6) : json_null();
}

static json_t *
measured_json(const struct mw_drill *d)
{
	const struct mw_drill_time *t = &d->time;
	json_t *o = json_object();
	put(o, "rpo_s", t->rpo_known ? json_real((double)t->rpo_us / 1e6) : json_null());
	put(o, "rpo_is_bound", json_boolean(t->rpo_bound));
	put_time(o, "acknowledged_time", t->acknowledged_us);
	put(o, "backup_alone_rpo_s",
	    d->log.mark_us ? json_real((double)(t->start_us - d->log.mark_us) / 1e6)
	                   : json_null());
	put_seconds(o, "rto_s", t->rto_us);
	put(o, "rto_is_extrapolation", json_boolean(!t->rto_measured));
	put(o, "rto_limit_s", limit_json(d->cli->conf->drill_max_rto));
	put(o, "rpo_limit_s", limit_json(d->cli->conf->drill_max_rpo));
	put_seconds(o, "plan_s", t->plan_us);
	put_seconds(o, "restore_s", t->run_us);
	put_seconds(o, "read_back_s", t->read_us);
	put_num(o, "restored_bytes", d->n.restored_bytes);
	return o;
}

static json_t *
findings_json(const struct mw_drill *d)
{
	json_t *a = json_array();
	for (size_t i = 0; i < d->n_finding; i++) {
		const struct mw_drill_finding *f = &d->finding[i];
		json_t *o = json_object();
		put_text(o, "kind", f->kind);
		if (f->id[0])
			put_text(o, "id", f->id);
		if (f->seq)
			put_num(o, "seq", f->seq);
		if (f->mailbox[0])
			put_text(o, "mailbox", f->mailbox);
		put_text(o, "text", f->text);
		(void)json_array_append_new(a, o);
	}
	return a;
}

json_t *
mw_drill_json(const struct mw_drill *d, const char *name)
{
	json_t *o = json_object();
	char host[256] = "";
	bool own = d->scratch.dir[0] != '\0';
	(void)gethostname(host, sizeof host - 1);
	put_text(o, "format", "mailwal drill report 1");
	put_text(o, "name", name);
	put_text(o, "version", MW_VERSION);
	put_text(o, "host", host);
	put_text(o, "operator", d->operator_name);
	put_text(o, "result", mw_drill_passed(d) ? "passed" : "failed");
	put_time(o, "started", d->time.start_us);
	put_time(o, "ended", d->time.end_us);
	put_text(o, "target_kind",
	         !own                          ? "given"
	         : d->scratch.target[0] == 'm' ? "scratch maildir"
	                                       : "private dovecot");
	put_text(o, "target", d->to);
	put(o, "scope", scope_json(d));
	put(o, "copies", copies_json(d));
	put(o, "journal", log_json(d));
	put(o, "measured", measured_json(d));
	put_num(o, "findings_total", d->findings);
	put(o, "findings", findings_json(d));
	if (json_object_size(o) != 16) {
		json_decref(o);
		return NULL;
	}
	return o;
}

/* ---- reading values ---- */

const json_t *
mw_drill_at(const json_t *o, const char *path)
{
	char key[64];
	while (o && *path) {
		size_t n = strcspn(path, ".");
		if (n >= sizeof key)
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		o = json_object_get(o, key);
		path += n + (path[n] == '.');
	}
	return o;
}

int64_t
mw_drill_num(const json_t *o, const char *path)
{
	return (int64_t)json_integer_value(mw_drill_at(o, path));
}

double
mw_drill_real(const json_t *o, const char *path)
{
	return json_number_value(mw_drill_at(o, path));
}

const char *
mw_drill_str(const json_t *o, const char *path)
{
	const char *s = json_string_value(mw_drill_at(o, path));
	return s ? s : "";
}

bool
mw_drill_is(const json_t *o, const char *path)
{
	return json_is_true(mw_drill_at(o, path));
}
