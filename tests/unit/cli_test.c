/* The mailwal program on journals made here: hostile mail, wrong places, full outputs. */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define BODY(lit) (lit), sizeof(lit) - 1

struct sample {
	const char *queue_id, *sender, *rcpt[4], *auth;
	enum mw_direction direction;
	const char *content;
	size_t n;
};

static const struct sample samples[] = {
    {"4XplainAA",
     "bob@far.test",
     {"alice@example.org"},
     "",
     MW_DIR_IN,
     BODY("Received: by mx.example.org id 4XplainAA; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
          "From: Bob <bob@far.test>\r\nSubject: Hello there\r\n"
          "Message-ID: <one@far.test>\r\n\r\nHi.\r\n")},
    {"4XhostilB",
     "bob@far.test",
     {"alice+tag@example.org"},
     "",
     MW_DIR_IN,
     BODY("Subject: \x1b[31mred\x07 \xff\xfe \xc2\x9b"
          "31m =?utf-8?q?=1b[0m=00?=\r\n"
          "Message-ID: <two@far.test>\r\n\r\n\x1b]0;title\x07 \0nul \xff\r\n")},
    {"4XencodeC",
     "Alice@Example.org",
     {"carol@far.test", "!refused@far.test", "dave@far.test"},
     "alice",
     MW_DIR_OUT,
     BODY("subject: =?UTF-8?B?UsOpc3Vtw6k=?= of 2026\r\n"
          "Message-Id: no-angles@here\r\n\r\nbody\r\n.\r\n")},
    {"4XbounceD",
     "",
     {"alice@example.org", "erin@example.org"},
     "",
     MW_DIR_IN,
     BODY("Subject: Undelivered\r\n\r\n")},
    {"4XnothinE", "x@y.test", {"erin@example.org"}, "", MW_DIR_IN, BODY("")},
};

enum {
	N = MW_COUNT(samples)
};

static char root[256], journal[300], other[300];
static uint8_t ids[N][MW_ID_LEN];

/* ---- running the program ---- */

struct ran {
	int status;
	struct mw_buf out, err;
};

static void
slurp(int fd, struct mw_buf *b)
{
	uint8_t piece[8192];
	ssize_t n;
	while ((n = read(fd, piece, sizeof piece)) > 0)
		mw_buf_put(b, piece, (size_t)n);
	(void)close(fd);
}

/* Output goes to unlinked files, so that nothing can block. */
static void
run_to(struct ran *r, const char *stdout_path, const char *const *args)
{
	char program[512], out[300], err[300];
	char *argv[40];
	size_t n = 0;
	pid_t pid;
	int status;
	posix_spawn_file_actions_t fa;
	(void)snprintf(program, sizeof program, "%s/replay/mailwal", MW_BINARY_DIR);
	(void)snprintf(out, sizeof out, "%s/out", root);
	(void)snprintf(err, sizeof err, "%s/err", root);
	argv[n++] = program;
	for (; *args; args++)
		argv[n++] = strdup(*args);
	argv[n] = NULL;
	*r = (struct ran){0};
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, stdout_path ? stdout_path : out,
	                                 O_WRONLY | (stdout_path ? 0 : O_CREAT | O_TRUNC),
	                                 0600);
	posix_spawn_file_actions_addopen(&fa, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(posix_spawn(&pid, program, &fa, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&fa);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	r->status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
	slurp(open(out, O_RDONLY), &r->out);
	slurp(open(err, O_RDONLY), &r->err);
	for (size_t i = 1; i < n; i++)
		free(argv[i]);
}

#define RUN(r, ...) run_to((r), NULL, (const char *const[]){__VA_ARGS__, NULL})

static void
ran_done(struct ran *r)
{
	mw_buf_free(&r->out);
	mw_buf_free(&r->err);
}

static bool
holds(const struct mw_buf *b, const char *text)
{
	return b->n && memmem(b->p, b->n, text, strlen(text));
}

static size_t
lines(const struct mw_buf *b)
{
	size_t n = 0;
	for (size_t i = 0; i < b->n; i++)
		n += b->p[i] == '\n';
	return n;
}

static void
expect(int status, const char *text, const char *const *args)
{
	struct ran r;
	run_to(&r, NULL, args);
	if (r.status != status || (text && !holds(&r.err, text) && !holds(&r.out, text)))
		fail_msg(
		    "%s %s …: status %d, expected %d and \"%s\"; got \"%s\" and \"%s\"",
		    args[0], args[1] ? args[1] : "", r.status, status, text ? text : "",
		    mw_buf_cstr(&r.out), mw_buf_cstr(&r.err));
	ran_done(&r);
}

#define EXPECT(status, text, ...)                                                        \
	expect((status), (text), (const char *const[]){__VA_ARGS__, NULL})

/* ---- the journal ---- */

static void
append(struct mw_store *st, const struct sample *s, size_t at)
{
	struct mw_rcpt rcpt[4] = {0};
	struct mw_mail m = {.time_us = INT64_C(1795342440000000) + (int64_t)at * 1000000,
	                    .queue_id = mw_strz(s->queue_id),
	                    .sender = mw_strz(s->sender),
	                    .auth_user = mw_strz(s->auth),
	                    .client_addr = MW_STR("192.0.2.7"),
	                    .direction = s->direction,
	                    .rcpt = rcpt};
	for (; m.n_rcpt < 4 && s->rcpt[m.n_rcpt]; m.n_rcpt++) {
		const char *a = s->rcpt[m.n_rcpt];
		rcpt[m.n_rcpt].flags = *a == '!'                   ? MW_RCPT_REFUSED
		                       : strstr(a, "@example.org") ? MW_RCPT_LOCAL
		                                                   : 0;
		rcpt[m.n_rcpt].addr = mw_strz(a + (*a == '!'));
	}
	(void)journaled(st, &m, s->content, s->n, ids[at]);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	char program[512];
	(void)snprintf(program, sizeof program, "%s/replay/mailwal", MW_BINARY_DIR);
	if (access(program, X_OK) < 0)
		exit(77); /* built without the program */
	(void)snprintf(root, sizeof root, "/tmp/mw-cli-test-XXXXXX");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%s/journal", root);
	(void)snprintf(other, sizeof other, "%s/other", root);
	assert_int_equal(setenv("MAILWAL_CONFIG", "/dev/null", 1), 0);
	assert_int_equal(setenv("TZ", "UTC", 1), 0);
	EXPECT(0, "Next:", "init", journal);
	EXPECT(0, NULL, "-q", "init", other);
	MW_STORE_AUTO *st = NULL;
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_WRITE};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (size_t i = 0; i < N; i++)
		append(st, &samples[i], i);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char command[400];
	(void)snprintf(command, sizeof command, "rm -rf '%s'", root);
	return system(command);
}

/* ---- tests ---- */

static void
raw_is_what_was_captured(void **state)
{
	(void)state;
	for (size_t i = 0; i < N; i++) {
		struct ran r;
		char id[MW_ID_TEXT + 1];
		mw_id_text(id, ids[i]);
		RUN(&r, "-j", journal, "show", id, "--raw");
		assert_int_equal(r.status, 0);
		assert_int_equal(r.out.n, samples[i].n);
		if (r.out.n)
			assert_memory_equal(r.out.p, samples[i].content, samples[i].n);
		assert_int_equal(r.err.n, 0);
		ran_done(&r);
		id[8] = '\0';
		RUN(&r, "show", "--raw", id, "-j", journal);
		assert_int_equal(r.out.n, samples[i].n);
		ran_done(&r);
		RUN(&r, "show", "--raw", samples[i].queue_id, "-j", journal);
		assert_int_equal(r.out.n, samples[i].n);
		ran_done(&r);
	}
}

static void
json_has_the_contract(void **state)
{
	(void)state;
	static const char *const keys[] = {"id",       "seq",        "time",
	                                   "queue_id", "message_id", "sender",
	                                   "size",     "from",       "digest",
	                                   "sha256",   "recipients", "direction",
	                                   "subject",  "client"};
	struct ran r;
	RUN(&r, "-j", journal, "list", "--json");
	assert_int_equal(r.status, 0);
	assert_int_equal(lines(&r.out), N);
	char *line = (char *)(uintptr_t)mw_buf_cstr(&r.out), *save = NULL;
	size_t i = 0;
	for (char *l = strtok_r(line, "\n", &save); l;
	     l = strtok_r(NULL, "\n", &save), i++) {
		json_error_t je;
		json_t *o = json_loads(l, 0, &je);
		char id[MW_ID_TEXT + 1];
		assert_non_null(o);
		for (size_t k = 0; k < MW_COUNT(keys); k++)
			assert_non_null(json_object_get(o, keys[k]));
		mw_id_text(id, ids[i]);
		assert_string_equal(json_string_value(json_object_get(o, "id")), id);
		assert_int_equal(json_integer_value(json_object_get(o, "size")),
		                 samples[i].n);
		for (const char *p = l; *p; p++) /* nothing a terminal would obey */
			assert_true((unsigned char)*p >= ' ' && *p != 0x7f);
		json_decref(o);
	}
	assert_int_equal(i, N);
	ran_done(&r);
}

static void
summaries_have_the_contract(void **state)
{
	(void)state;
	static const char *const keys[] = {"selected", "already_there", "restored",
	                                   "failed", "duration_s"};
	char to[300];
	(void)snprintf(to, sizeof to, "eml:%s/summaries", root);
	const char *const jobs[][6] = {{"verify"},
	                               {"reindex"},
	                               {"checkpoint"},
	                               {"prune", "--dry-run"},
	                               {"export", "--all", "--to", to},
	                               {"drill", "run", "--all"}};
	for (size_t i = 0; i < MW_COUNT(jobs); i++) {
		struct ran r;
		const char *const *j = jobs[i];
		RUN(&r, "-j", journal, "--json", j[0], j[1], j[2], j[3]);
		assert_int_equal(r.status, 0);
		char *save = NULL, *line = NULL;
		char *text = (char *)(uintptr_t)mw_buf_cstr(&r.out);
		for (char *l = strtok_r(text, "\n", &save); l;
		     l = strtok_r(NULL, "\n", &save))
			line = l;
		assert_non_null(line);
		json_error_t je;
		json_t *o = json_loads(line, 0, &je);
		assert_non_null(o);
		assert_string_equal(json_string_value(json_object_get(o, "message_type")),
		                    "summary");
		for (size_t k = 0; k < MW_COUNT(keys); k++)
			assert_true(json_is_number(json_object_get(o, keys[k])));
		if (strcmp(j[0], "verify") == 0)
			assert_int_equal(json_integer_value(
			                     json_object_get(o, "selected")),
			                 N);
		json_decref(o);
		ran_done(&r);
	}
}

static void
json_of_outgoing_mail(void **state)
{
	(void)state;
	struct ran r;
	json_error_t je;
	RUN(&r, "-j", journal, "show", "4XencodeC", "--json");
	assert_int_equal(r.status, 0);
	json_t *o = json_loadb((const char *)r.out.p, r.out.n, 0, &je);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "subject")),
	                    "R\xc3\xa9sum\xc3\xa9 of 2026");
	assert_int_equal(json_array_size(json_object_get(o, "recipients")), 2);
	assert_int_equal(json_array_size(json_object_get(o, "refused_recipients")), 1);
	assert_int_equal(json_array_size(json_object_get(o, "mailboxes")), 0);
	assert_string_equal(json_string_value(json_object_get(o, "sent_mailbox")),
	                    "alice@example.org");
	json_decref(o);
	ran_done(&r);
}

static void
text_obeys_no_control(void **state)
{
	(void)state;
	static const char *const forms[] = {"table", "tsv"};
	for (size_t k = 0; k < MW_COUNT(forms); k++) {
		struct ran r;
		RUN(&r, "-j", journal, "list", "-o", forms[k]);
		assert_int_equal(r.status, 0);
		assert_int_equal(lines(&r.out), N + 1);
		for (size_t i = 0; i < r.out.n; i++)
			assert_true(r.out.p[i] >= ' ' || r.out.p[i] == '\n' ||
			            (k == 1 && r.out.p[i] == '\t'));
		assert_false(holds(&r.out, "\xc2\x9b"));
		assert_true(holds(&r.out, "\\x1b[31mred"));
		ran_done(&r);
	}
}

static void
selections(void **state)
{
	(void)state;
	static const struct {
		const char *opt, *value;
		size_t n;
	} cases[] = {
	    {"--user", "alice@example.org",
	     4}, /* with tag, a bounce, and sent as alice */
	    {"--user", "ALICE@example.ORG", 4},
	    {"--user", "alice", 4}, /* the login too */
	    {"--user", "refused@far.test", 0},
	    {"--domain", "far.test", 3},
	    {"--sender", "alice@example.org", 1},
	    {"--sender", "<>", 1},
	    {"--message-id", "<one@far.test>", 1},
	    {"--message-id", "one@far.test", 1},
	    {"--message-id", "<no-angles@here>", 1},
	    {"--queue-id", "4XbounceD", 1},
	    {"--queue-id", "4xbounced", 0},
	    {"--direction", "out", 1},
	    {"--subject", "r\xc3\x89SUM", 1},
	    {"--larger", "100", 1},
	    {"--smaller", "1", 1},
	    {"--since", "2026-11-22 10:14:03", 2},
	    {"--until", "@1795342442", 2},
	    {"--limit", "2", 2},
	};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct ran r;
		RUN(&r, "-j", journal, "list", "--json", cases[i].opt, cases[i].value);
		if (r.status != 0 || lines(&r.out) != cases[i].n)
			fail_msg("%s %s: status %d, %zu lines, expected %zu; %s",
			         cases[i].opt, cases[i].value, r.status, lines(&r.out),
			         cases[i].n, mw_buf_cstr(&r.err));
		ran_done(&r);
	}
}

static void
limit_takes_the_newest(void **state)
{
	(void)state;
	struct ran r;
	RUN(&r, "-j", journal, "-j", other, "list", "--limit", "1", "-o", "tsv",
	    "--no-header");
	assert_int_equal(lines(&r.out), 1);
	assert_true(holds(&r.out, "x@y.test"));
	ran_done(&r);
	RUN(&r, "-j", journal, "list", "--limit", "1", "--since", "2026-11-22", "-o",
	    "tsv", "--no-header");
	assert_int_equal(lines(&r.out), 1);
	assert_true(holds(&r.out, "Hello there"));
	ran_done(&r);
}

static void
wrong_usage(void **state)
{
	(void)state;
	EXPECT(64, "no command", "-q");
	EXPECT(64, "did you mean 'list'", "lst");
	EXPECT(64, "did you mean '--since'", "-j", journal, "list", "--sinec", "x");
	EXPECT(64, "not a time", "-j", journal, "list", "--since", "gestern");
	EXPECT(64, "needs a value", "-j", journal, "list", "--user");
	EXPECT(64, "not after", "-j", journal, "list", "-S", "now", "-U", "yesterday");
	EXPECT(64, "not both", "-j", journal, "show", "zz", "--raw", "--headers");
	EXPECT(64, "unknown verb", "config", "chekc");
	EXPECT(64, "which server", "setup", "exim");
	EXPECT(66, "no record has", "-j", journal, "show", "00000");
	EXPECT(0, "Usage: mailwal list", "list", "--help");
	EXPECT(0, "SELECTION", "help", "list");
}

static void
wrong_places(void **state)
{
	(void)state;
	char missing[320], config[320];
	(void)snprintf(missing, sizeof missing, "%s/missing", root);
	(void)snprintf(config, sizeof config, "%s/bad.conf", root);
	EXPECT(66, "mailwal init", "-j", missing, "list");
	EXPECT(73, "not empty", "init", journal);
	EXPECT(66, NULL, "-c", missing, "list");
	FILE *f = fopen(config, "w");
	assert_non_null(f);
	fputs("journal_dri = /x\n", f);
	fclose(f);
	EXPECT(78, "journal_dir", "-c", config, "list");
	EXPECT(78, "journal_dir", "config", "check", config);
	struct ran r;
	RUN(&r, "-j", root, "list"); /* a directory that is no journal */
	assert_int_not_equal(r.status, 0);
	assert_true(holds(&r.err, "journal"));
	ran_done(&r);
}

static void
full_output(void **state)
{
	(void)state;
	struct ran r;
	static const char *const what[] = {"list", "help", "version"};
	for (size_t i = 0; i < MW_COUNT(what); i++) {
		run_to(&r, "/dev/full",
		       (const char *const[]){"-j", journal, what[i], NULL});
		assert_int_equal(r.status, 74);
		assert_true(holds(&r.err, "standard output"));
		ran_done(&r);
	}
	run_to(&r, "/dev/full",
	       (const char *const[]){"-j", journal, "show", "4XplainAA", "--raw", NULL});
	assert_int_equal(r.status, 74);
	ran_done(&r);
}

static void
marks(void **state)
{
	(void)state;
	EXPECT(66, "never started", "-j", other, "mark", "nightly", "--complete");
	EXPECT(0, "started", "-j", other, "mark", "nightly");
	EXPECT(64, "has not ended", "-j", other, "mark", "nightly");
	EXPECT(0, "complete", "-j", other, "mark", "nightly", "--complete");
	EXPECT(64, "already ended", "-j", other, "mark", "nightly", "--failed");
	EXPECT(0, "started", "-j", other, "mark", "nightly");
	EXPECT(0, "started", "-j", other, "mark", "nightly", "--restart");
	EXPECT(0, "failed", "-j", other, "mark", "nightly", "--failed");
	EXPECT(64, "blanks", "-j", other, "mark", "a b");
	EXPECT(64, "one journal", "-j", other, "-j", journal, "mark", "x");
	struct ran r;
	RUN(&r, "-j", other, "mark", "--list", "--json");
	assert_int_equal(r.status, 0);
	assert_int_equal(lines(&r.out), 3);
	assert_true(holds(&r.out, "\"state\":\"complete\""));
	assert_true(holds(&r.out, "\"state\":\"failed\""));
	ran_done(&r);
	EXPECT(0, "nightly", "-j", other, "mark", "--list");
	EXPECT(66, "did you mean 'nightly'", "-j", other, "list", "--since-mark",
	       "nihgtly");
	EXPECT(0, NULL, "-j", other, "list", "--since-mark", "nightly");
	/* A name may begin with a dash. */
	EXPECT(64, "-x", "-j", other, "mark", "-x");
	EXPECT(0, "-x", "-j", other, "mark", "--", "-x");
	EXPECT(64, "--failed", "-j", other, "mark", "--", "-x", "--failed");
	EXPECT(0, "failed", "-j", other, "mark", "--failed", "--", "-x");
	EXPECT(0, "-x", "-j", other, "mark", "--list", "--", "-x");
	EXPECT(0, NULL, "-j", other, "list", "--since-mark=-x");
	EXPECT(64, "which mark", "-j", other, "mark", "--");
}

static void
status_without_daemon(void **state)
{
	(void)state;
	struct ran r;
	EXPECT(1, "not running", "-j", journal, "status");
	EXPECT(2, "MAILWAL CRITICAL", "-j", journal, "status", "--nagios");
	RUN(&r, "-j", journal, "status", "--json");
	json_error_t je;
	json_t *o = json_loadb((const char *)r.out.p, r.out.n, 0, &je);
	assert_non_null(o);
	assert_int_equal(json_integer_value(json_object_get(o, "mails")), N);
	assert_true(json_is_false(json_object_get(o, "daemon_running")));
	json_decref(o);
	ran_done(&r);
}

static void
reindex_gives_the_same(void **state)
{
	(void)state;
	struct ran before, after;
	RUN(&before, "-j", journal, "list", "--json", "--sender", "bob@far.test");
	EXPECT(0, "indexed", "-j", journal, "reindex");
	RUN(&after, "-j", journal, "list", "--json", "--sender", "bob@far.test");
	assert_int_equal(before.out.n, after.out.n);
	assert_int_equal(lines(&after.out), 2);
	assert_memory_equal(before.out.p, after.out.p, after.out.n);
	ran_done(&before);
	ran_done(&after);
}

/* Where the first sample lies, as show --json tells. */
static void
place(char *segment, size_t n, long *ret_offset)
{
	struct ran r;
	json_error_t je;
	RUN(&r, "-j", journal, "show", samples[0].queue_id, "--json");
	json_t *o = json_loadb((const char *)r.out.p, r.out.n, 0, &je);
	assert_non_null(o);
	(void)snprintf(segment, n, "segments/%016llx.seg",
	               (unsigned long long)json_integer_value(
	                   json_object_get(o, "segment")));
	*ret_offset = (long)json_integer_value(json_object_get(o, "offset"));
	json_decref(o);
	ran_done(&r);
}

static void
damage_is_told_and_contained(void **state)
{
	(void)state;
	char command[800], segment[64], path[500], copy[300];
	long offset;
	struct ran r;
	(void)snprintf(copy, sizeof copy, "%s/damaged", root);
	(void)snprintf(command, sizeof command, "cp -r '%s' '%s'", journal, copy);
	assert_int_equal(system(command), 0);
	EXPECT(0, "ok", "-j", copy, "verify");
	place(segment, sizeof segment, &offset);
	(void)snprintf(path, sizeof path, "%s/%s", copy, segment);
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, offset + 200, SEEK_SET), 0);
	int c = fgetc(f);
	assert_int_equal(fseek(f, offset + 200, SEEK_SET), 0);
	assert_int_not_equal(fputc(c ^ 0x55, f), EOF);
	assert_int_equal(fclose(f), 0);
	EXPECT(1, "DAMAGE FOUND", "-j", copy, "verify");
	RUN(&r, "-j", copy, "verify", "--json");
	assert_int_equal(r.status, 1);
	assert_true(holds(&r.out, "\"ok\":false"));
	ran_done(&r);
	RUN(&r, "-j", copy, "show", samples[0].queue_id, "--raw");
	assert_int_not_equal(r.status, 0);
	assert_true(r.out.n < samples[0].n); /* nothing after the failing piece */
	ran_done(&r);
	for (size_t i = 1; i < N; i++) {
		RUN(&r, "-j", copy, "show", samples[i].queue_id, "--raw");
		assert_int_equal(r.status, 0);
		assert_int_equal(r.out.n, samples[i].n);
		ran_done(&r);
	}
}

static void
monitoring_knows_four_answers(void **state)
{
	(void)state;
	char missing[320];
	(void)snprintf(missing, sizeof missing, "%s/missing", root);
	EXPECT(3, "MAILWAL UNKNOWN", "-c", missing, "status", "--nagios");
	EXPECT(3, "MAILWAL UNKNOWN", "-j", journal, "status", "--nagios", "--x");
	EXPECT(2, "MAILWAL CRITICAL", "-j", missing, "status", "--nagios");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(raw_is_what_was_captured),
	    cmocka_unit_test(json_has_the_contract),
	    cmocka_unit_test(json_of_outgoing_mail),
	    cmocka_unit_test(summaries_have_the_contract),
	    cmocka_unit_test(text_obeys_no_control),
	    cmocka_unit_test(selections),
	    cmocka_unit_test(limit_takes_the_newest),
	    cmocka_unit_test(wrong_usage),
	    cmocka_unit_test(wrong_places),
	    cmocka_unit_test(full_output),
	    cmocka_unit_test(marks),
	    cmocka_unit_test(status_without_daemon),
	    cmocka_unit_test(reindex_gives_the_same),
	    cmocka_unit_test(damage_is_told_and_contained),
	    cmocka_unit_test(monitoring_knows_four_answers),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
