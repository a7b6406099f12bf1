/* cmd_verify.c - mailwal verify. */
#include "journal/verify/verify.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/verify/checkpoint.h"
#include "replay/cmd.h"
#include "replay/noted.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	CHECKPOINTS = 64
};

struct total { /* of a set of journals */
	uint64_t segments, records, mails, contents, bytes, failed;
};

struct verify {
	struct mw_cli *cli;
	const char *journal;
	int64_t start_us, shown_us; /* monotonic */
	bool terminal;
};

static void
finding_json(const struct verify *v, const struct mw_finding *f)
{
	json_t *o = json_object();
	(void)json_object_set_new(o, "message_type", json_string("finding"));
	(void)json_object_set_new(o, "journal", mw_json_str(mw_strz(v->journal)));
	(void)json_object_set_new(o, "kind", json_string(mw_finding_name(f->kind)));
	(void)json_object_set_new(o, "bad", json_boolean(mw_finding_bad(f->kind)));
	(void)json_object_set_new(o, "segment", json_integer((json_int_t)f->segment));
	(void)json_object_set_new(o, "offset", json_integer((json_int_t)f->offset));
	if (f->first_seq) {
		(void)json_object_set_new(o, "first_seq",
		                          json_integer((json_int_t)f->first_seq));
		(void)json_object_set_new(o, "last_seq",
		                          json_integer((json_int_t)f->last_seq));
	}
	(void)json_object_set_new(o, "text", mw_json_str(mw_strz(f->text)));
	mw_cli_json(o);
}

static void
clear_line(const struct verify *v)
{
	if (v->terminal && v->shown_us)
		fputs("\r\033[K", stderr);
}

static void
on_finding(void *arg, const struct mw_finding *f)
{
	struct verify *v = arg;
	MW_BUF_AUTO safe = {0};
	clear_line(v);
	if (v->cli->json) {
		finding_json(v, f);
		return;
	}
	if (!mw_finding_bad(f->kind) && v->cli->quiet)
		return;
	mw_text_safe(mw_strz(f->text), false, &safe);
	printf("%s: segment %llu, offset %llu", mw_finding_name(f->kind),
	       (unsigned long long)f->segment, (unsigned long long)f->offset);
	if (f->first_seq && f->first_seq == f->last_seq)
		printf(", record %llu", (unsigned long long)f->first_seq);
	else if (f->first_seq)
		printf(", records %llu to %llu", (unsigned long long)f->first_seq,
		       (unsigned long long)f->last_seq);
	printf(": %s\n", mw_buf_cstr(&safe));
}

/* On a terminal twice a second, else a line every ten seconds. */
static int
on_progress(void *arg, uint64_t done, uint64_t all)
{
	struct verify *v = arg;
	const struct mw_clock *clock = mw_clock_system();
	int64_t now = clock->mono_us(clock);
	int64_t every = v->terminal ? 500000 : 10000000;
	int64_t last = v->shown_us ? v->shown_us : v->start_us;
	if (!v->cli->quiet && now - last >= every) {
		char a[32], b[32];
		mw_size_human(a, sizeof a, done);
		mw_size_human(b, sizeof b, all);
		fprintf(stderr,
		        v->terminal ? "\r\033[K%s of %s, %.1f %%" : "%s of %s, %.1f %%\n",
		        a, b, all ? 100.0 * (double)done / (double)all : 0.0);
		v->shown_us = now;
	}
	return mw_cli_stopped();
}

/* Of one journal; "journal" where it is one of several and the summary is still to come.
 */
static void
summary_json(const struct verify *v, const struct mw_verify_result *r, int answer,
             double seconds, struct total *total)
{
	char chain[65];
	json_t *o = json_object(), *kinds = json_object();
	mw_hex(chain, r->chain, 32);
	uint64_t bad = 0;
	for (int k = 0; k <= MW_FINDING_PENDING; k++) {
		(void)json_object_set_new(kinds, mw_finding_name((enum mw_finding_kind)k),
		                          json_integer((json_int_t)r->findings[k]));
		bad += mw_finding_bad((enum mw_finding_kind)k) ? r->findings[k] : 0;
	}
	total->segments += r->segments;
	total->records += r->records;
	total->mails += r->mails;
	total->contents += r->contents;
	total->bytes += r->bytes;
	total->failed += bad;
	(void)json_object_set_new(o, "message_type",
	                          json_string(v->cli->n_journals > 1 ? "journal"
	                                                             : "summary"));
	(void)json_object_set_new(o, "journal", mw_json_str(mw_strz(v->journal)));
	(void)json_object_set_new(o, "ok", json_boolean(answer == 0));
	(void)json_object_set_new(o, "segments", json_integer((json_int_t)r->segments));
	(void)json_object_set_new(o, "records", json_integer((json_int_t)r->records));
	(void)json_object_set_new(o, "mails", json_integer((json_int_t)r->mails));
	(void)json_object_set_new(o, "contents_checked",
	                          json_integer((json_int_t)r->contents));
	(void)json_object_set_new(o, "bytes", json_integer((json_int_t)r->bytes));
	(void)json_object_set_new(o, "first_seq", json_integer((json_int_t)r->first_seq));
	(void)json_object_set_new(o, "last_seq", json_integer((json_int_t)r->last_seq));
	(void)json_object_set_new(o, "chain", json_string(chain));
	(void)json_object_set_new(o, "anchored_seq",
	                          json_integer((json_int_t)r->anchored_seq));
	bool whole = r->anchored_seq && r->anchored_seq == r->last_seq;
	(void)json_object_set_new(o, "tail",
	                          json_string(whole ? "anchored" : "not anchored"));
	(void)json_object_set_new(o, "signed_segments",
	                          json_integer((json_int_t)r->signed_segments));
	(void)json_object_set_new(o, "erased", json_integer((json_int_t)r->erased));
	(void)json_object_set_new(o, "pruned_segments",
	                          json_integer((json_int_t)r->pruned));
	(void)json_object_set_new(o, "findings", kinds);
	(void)json_object_set_new(o, "selected", json_integer((json_int_t)r->mails));
	(void)json_object_set_new(o, "failed", json_integer((json_int_t)bad));
	(void)json_object_set_new(o, "duration_s", json_real(seconds));
	mw_cli_json(o);
}

/* Of a set, after its journals. */
static void
total_json(const struct mw_cli *cli, const struct total *t, bool ok)
{
	json_t *o = json_object();
	(void)json_object_set_new(o, "message_type", json_string("summary"));
	(void)json_object_set_new(o, "ok", json_boolean(ok));
	(void)json_object_set_new(o, "journals",
	                          json_integer((json_int_t)cli->n_journals));
	(void)json_object_set_new(o, "segments", json_integer((json_int_t)t->segments));
	(void)json_object_set_new(o, "records", json_integer((json_int_t)t->records));
	(void)json_object_set_new(o, "mails", json_integer((json_int_t)t->mails));
	(void)json_object_set_new(o, "contents_checked",
	                          json_integer((json_int_t)t->contents));
	(void)json_object_set_new(o, "bytes", json_integer((json_int_t)t->bytes));
	(void)json_object_set_new(o, "selected", json_integer((json_int_t)t->mails));
	(void)json_object_set_new(o, "failed", json_integer((json_int_t)t->failed));
	mw_cli_json(o);
}

static const char *
s_of(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void
summary(const struct verify *v, const struct mw_verify_result *r, int answer,
        double seconds)
{
	char size[32], chain[65];
	mw_size_human(size, sizeof size, r->bytes);
	mw_hex(chain, r->chain, 32);
	printf("%s: %s: %llu segment%s, %llu record%s, %llu message%s (content of %llu "
	       "read), %s in %.1f s\n",
	       v->journal, answer == 0 ? "ok" : "DAMAGE FOUND",
	       (unsigned long long)r->segments, s_of(r->segments),
	       (unsigned long long)r->records, s_of(r->records),
	       (unsigned long long)r->mails, s_of(r->mails),
	       (unsigned long long)r->contents, size, seconds);
	if (r->last_seq)
		printf("chain head %.16s… at record %llu, %llu segment%s signed\n", chain,
		       (unsigned long long)r->last_seq,
		       (unsigned long long)r->signed_segments, s_of(r->signed_segments));
	if (r->erased || r->pruned)
		printf("%llu record%s erased or expired, %llu segment%s pruned, as the "
		       "log says\n",
		       (unsigned long long)r->erased, s_of(r->erased),
		       (unsigned long long)r->pruned, s_of(r->pruned));
	if (r->anchored_seq)
		printf("anchored by a checkpoint up to record %llu\n",
		       (unsigned long long)r->anchored_seq);
	else
		puts("not anchored: no checkpoint kept elsewhere was given, so a log "
		     "that was "
		     "cut or rewritten as a whole would look like this one");
}

struct asked {
	double sample;
	const char *file[CHECKPOINTS];
	void *text[CHECKPOINTS]; /* read once: it may be a pipe */
	size_t len[CHECKPOINTS];
	size_t n_file;
};

static int
read_checkpoints(struct asked *a, struct mw_err *err)
{
	for (size_t i = 0; i < a->n_file; i++) {
		int r = mw_fs_read_named(a->file[i], 65536, &a->text[i], &a->len[i]);
		if (r < 0) {
			errno = -r;
			return mw_fail_errno(err, "cannot read checkpoint %s",
			                     a->file[i]);
		}
	}
	return 0;
}

static bool
is_of(const struct asked *a, size_t i, const struct mw_store *st)
{
	char id[2 * MW_ID_LEN + 1];
	mw_hex(id, mw_store_id(st), MW_ID_LEN);
	return memmem(a->text[i], a->len[i], id, strlen(id)) != NULL;
}

/* The checkpoints that are of this journal. */
static int
load_checkpoints(struct mw_store *st, struct asked *a, struct mw_checkpoint *out,
                 size_t *ret_n, struct mw_err *err)
{
	*ret_n = 0;
	for (size_t i = 0; i < a->n_file; i++) {
		if (!is_of(a, i, st))
			continue;
		const uint8_t *pk = mw_store_sign_public(st);
		int r = pk ? mw_checkpoint_parse(mw_str(a->text[i], a->len[i]), pk,
		                                 &out[*ret_n], err)
		           : mw_fail(err, MW_EKEY, "this journal has no signing key");
		if (r < 0) {
			(void)mw_err_prefix(err, "%s", a->file[i]);
			return r;
		}
		++*ret_n;
	}
	return 0;
}

/* For the metrics. */
static void
note(const struct verify *v, const struct mw_verify_result *r, int answer)
{
	MW_BUF_AUTO lines = {0};
	uint64_t bad = 0;
	for (int k = 0; k <= MW_FINDING_PENDING; k++)
		bad += mw_finding_bad((enum mw_finding_kind)k) ? r->findings[k] : 0;
	mw_buf_printf(&lines, "passed %d\nfindings %llu\n", answer == 0,
	              (unsigned long long)bad);
	mw_noted(v->journal, "verify", false, &lines);
}

static int
verify(struct mw_cli *cli, size_t k, struct asked *a, struct total *total)
{
	struct mw_checkpoint points[CHECKPOINTS];
	const struct mw_clock *clock = mw_clock_system();
	struct verify v = {.cli = cli,
	                   .journal = cli->journals[k],
	                   .start_us = clock->mono_us(clock),
	                   .terminal = isatty(STDERR_FILENO) == 1};
	struct mw_verify_opts o = {.sample = a->sample,
	                           .checkpoint = points,
	                           .found = on_finding,
	                           .progress = on_progress,
	                           .arg = &v};
	struct mw_verify_result result = {0};
	struct mw_err err = {0};
	int r = load_checkpoints(cli->stores[k], a, points, &o.n_checkpoint, &err);
	if (r == 0)
		r = mw_verify_run(cli->stores[k], &o, &result, &err);
	clear_line(&v);
	if (r < 0)
		return mw_cli_error(cli, &err);
	note(&v, &result, r);
	double seconds = (double)(clock->mono_us(clock) - v.start_us) / 1e6;
	if (cli->json)
		summary_json(&v, &result, r, seconds, total);
	else if (!cli->quiet || r != 0)
		summary(&v, &result, r, seconds);
	return r;
}

static bool
parse_percent(const char *text, double *ret)
{
	char *end;
	*ret = strtod(text, &end);
	if (end == text || (*end == '%' ? end[1] : *end) != '\0')
		return false;
	return *ret >= 0 && *ret <= 100;
}

/* A checkpoint that no journal of the set knows: told before all is read for nothing. */
static int
unused(struct mw_cli *cli, const struct asked *a)
{
	for (size_t i = 0; i < a->n_file; i++) {
		struct mw_err err = {0};
		bool used = false;
		for (size_t k = 0; k < cli->n_journals; k++)
			used = used || is_of(a, i, cli->stores[k]);
		if (used)
			continue;
		(void)mw_fail(&err, MW_EFORMAT, "%s is no checkpoint of %s", a->file[i],
		              cli->n_journals > 1 ? "these journals" : "this journal");
		return mw_cli_error(cli, &err);
	}
	return 0;
}

/* Every journal of the set; 0, or the exit status. */
static int
verify_all(struct mw_cli *cli, struct asked *a)
{
	struct total total = {0};
	struct mw_err err = {0};
	if (read_checkpoints(a, &err) < 0)
		return mw_cli_error(cli, &err);
	int status = unused(cli, a);
	if (status != 0)
		return status;
	for (size_t k = 0; k < cli->n_journals; k++) {
		int s = verify(cli, k, a, &total);
		if (s > 1)
			return s;
		status = MW_MAX(status, s);
	}
	if (cli->json && cli->n_journals > 1)
		total_json(cli, &total, status == 0);
	return status;
}

int
mw_cmd_verify(struct mw_cli *cli, int argc, char **argv)
{
	const struct mw_cmd *cmd = mw_cmd_find("verify");
	struct asked a = {.sample = 100};
	int status = 0;
	for (int i = 1; i < argc; i++) {
		struct mw_err err = {0};
		const char *v = NULL, *file = NULL;
		int r = mw_cli_option(argc, argv, &i, "--sample", &v, &err);
		if (r == 0)
			r = mw_cli_option(argc, argv, &i, "--checkpoint", &file, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r == 0)
			return mw_cli_unknown(cli, cmd, argv[i]);
		if (file && a.n_file == CHECKPOINTS)
			return mw_cli_usage(cli, cmd, "more than %d checkpoints",
			                    CHECKPOINTS);
		if (file)
			a.file[a.n_file++] = file;
		else if (!parse_percent(v, &a.sample))
			return mw_cli_usage(cli, cmd,
			                    "--sample: '%s' is no share such as 5%%", v);
	}
	status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	status = verify_all(cli, &a);
	for (size_t i = 0; i < a.n_file; i++)
		free(a.text[i]);
	return status;
}
