/* The drill: its sample, its eyes (what it finds in a target that was tampered with), its
 * signed report (every byte of it), and the command on damaged and encrypted journals. */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/drill_report.h"
#include "tests/support/shell.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

enum {
	MAILS = 24
};

static char root[256], journal[300], conf_file[300], out[1 << 20];
static struct mw_conf *conf;

/* ---- a journal ---- */

static void
put(struct mw_store *st, int i, const char *rcpt, const char *auth, int64_t when)
{
	MW_BUF_AUTO text = {0};
	char qid[16];
	struct mw_rcpt r = {.addr = mw_strz(rcpt), .flags = MW_RCPT_LOCAL};
	(void)snprintf(qid, sizeof qid, "4Xdrill%02dq", i);
	struct mw_mail m = {.time_us = when,
	                    .queue_id = mw_strz(qid),
	                    .sender = MW_STR("bob@example.org"),
	                    .auth_user = mw_strz(auth),
	                    .front = MW_STR("milter"),
	                    .direction = MW_DIR_INTERNAL,
	                    .rcpt = &r,
	                    .n_rcpt = 1};
	/* Two in three have a Message-ID; every fourth is one again that its user has. */
	int k = i % 4 == 3 ? i - 3 : i;
	mw_buf_printf(&text, "Subject: number %d\r\n", k);
	if (k % 3)
		mw_buf_printf(&text, "Message-ID: <%d@far.test>\r\n", k);
	mw_buf_printf(&text, "\r\n");
	for (int j = 0; j < 20 * k; j++)
		mw_buf_printf(&text, "%d %d\r\n", j * 7919, k);
	(void)journaled(st, &m, text.p, text.n, NULL);
}

static void
add_mails(int from, int n, const uint8_t *recovery)
{
	static const char *const users[] = {"alice@example.org", "bob@example.org",
	                                    "carol@example.org"};
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20,
	                          .recovery = recovery,
	                          .n_recovery = recovery ? 1 : 0};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	int64_t start = mw_clock_system()->now_us(mw_clock_system()) - 3600 * 1000000LL;
	for (int i = from; i < from + n; i++)
		put(st, i, users[i % 3], i % 4 ? "" : "bob@example.org",
		    start + i * 60000000LL);
	mw_store_close(st);
}

static void
fresh(const uint8_t *recovery)
{
	struct mw_err err = {0};
	char cmd[700];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	add_mails(0, MAILS, recovery);
}

static int run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int
run(const char *fmt, ...)
{
	char args[1024], cmd[2048];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(args, sizeof args, fmt, ap);
	va_end(ap);
	(void)
	    snprintf(cmd, sizeof cmd,
	             "TZ=UTC TMPDIR='%s' '%s/replay/mailwal' -c '%s' %s </dev/null 2>&1",
	             root, MW_BINARY_DIR, conf_file, args);
	FILE *p = popen(cmd, "r"); /* NOLINT: a test */
	assert_non_null(p);
	size_t n = fread(out, 1, sizeof out - 1, p);
	out[n] = '\0';
	int status = pclose(p);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
want(int status, const char *args, const char *text)
{
	int got = run("%s", args);
	if (got != status || !strstr(out, text))
		fail_msg("mailwal %s: exit %d, not %d, or no '%s':\n%s", args, got,
		         status, text, out);
}

static struct mw_store *
reader(void)
{
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	return st;
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	(void)snprintf(root, sizeof root, "%s/mw-drill-XXXXXX",
	               getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(root));
	(void)snprintf(journal, sizeof journal, "%s/j", root);
	(void)snprintf(conf_file, sizeof conf_file, "%s/conf", root);
	FILE *f = fopen(conf_file, "w");
	assert_non_null(f);
	fprintf(f, "journal_dir = %s\nlocal_domains = example.org\n", journal);
	assert_int_equal(fclose(f), 0);
	return mw_conf_load(conf_file, &conf, &report, &err);
}

static int
teardown(void **state)
{
	char cmd[600];
	(void)state;
	mw_conf_free(conf);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", root);
	return system(cmd);
}

/* ---- the sample ---- */

static void
samples_are_fair(void **state)
{
	(void)state;
	enum {
		BOXES = 5,
		COPIES = 20,
		ALL = BOXES * COPIES,
		ROUNDS = 2000,
		DRAW = 10
	};
	static unsigned hits[ALL];
	struct mw_plan_rec rec[ALL] = {0};
	static struct mw_plan_copy copy[ALL];
	struct mw_plan_box box[BOXES] = {0};
	struct mw_plan p = {.rec = rec, .n_rec = ALL, .box = box, .n_box = BOXES};
	uint8_t first[ALL] = {0};
	for (int round = 0; round < ROUNDS + 1; round++) {
		uint64_t seed = (uint64_t)(round % ROUNDS), newest = 99;
		for (size_t i = 0; i < ALL; i++) {
			rec[i].time_us = (int64_t)(i * 37 % ALL);
			copy[i] =
			    (struct mw_plan_copy){.rec = (uint32_t)i, .wanted = true};
		}
		for (size_t i = 0; i < BOXES; i++)
			box[i] = (struct mw_plan_box){.v = copy + i * COPIES,
			                              .n = COPIES,
			                              .n_wanted = COPIES};
		p.n_wanted = ALL;
		assert_int_equal(mw_drill_draw(&p, DRAW, 3, seed, &newest), 0);
		assert_in_range(newest, 0, 3);
		assert_int_equal(p.n_wanted, DRAW + newest);
		uint64_t n = 0;
		for (size_t i = 0; i < ALL; i++) {
			n += copy[i].wanted;
			if (rec[i].time_us >= ALL - 3)
				assert_true(copy[i].wanted);
			else
				hits[i] += copy[i].wanted;
			if (round == 0)
				first[i] = copy[i].wanted;
			if (round == ROUNDS) /* the first seed once more */
				assert_int_equal(first[i], copy[i].wanted);
		}
		assert_int_equal(n, p.n_wanted);
		n = 0;
		for (size_t i = 0; i < BOXES; i++)
			n += box[i].n_wanted;
		assert_int_equal(n, p.n_wanted);
	}
	/* 200 expected, standard deviation 13.4: six of them */
	for (size_t i = 0; i < ALL; i++)
		if (rec[i].time_us < ALL - 3)
			assert_in_range(hits[i], 120, 280);
}

/* ---- what it sees ---- */

struct eyes {
	struct mw_cli cli;
	struct mw_store *st[1];
	char *dirs[1];
	struct mw_query q;
	struct mw_drill d;
	char target[400];
};

static int
make_all(struct eyes *e)
{
	struct mw_err err = {0};
	*e = (struct eyes){.dirs = {journal}};
	e->st[0] = reader();
	e->cli = (struct mw_cli){.conf = conf,
	                         .journals = e->dirs,
	                         .n_journals = 1,
	                         .stores = e->st,
	                         .quiet = true};
	assert_int_equal(mw_drill_init(&e->d, &e->cli, &err), 0);
	mw_query_init(&e->q, e->d.arena);
	e->q.all = true;
	e->d.query = &e->q;
	(void)snprintf(e->target, sizeof e->target, "maildir:%s/box/%%u", root);
	e->d.t.create = true;
	assert_int_equal(mw_target_new(e->target, &e->d.t, &e->d.target, &err), 0);
	const struct mw_plan_opts po = {.cli = &e->cli,
	                                .query = &e->q,
	                                .target = e->d.target};
	assert_int_equal(mw_plan_make(&po, &e->d.plan, &err), 0);
	e->d.run = (struct mw_run){.cli = &e->cli,
	                           .plan = e->d.plan,
	                           .target = e->d.target,
	                           .report = &e->d.report};
	return mw_run_all(&e->d.run, &err);
}

static void
in_box(const char *fmt, ...)
{
	char cmd[1500];
	va_list ap;
	int n = snprintf(cmd, sizeof cmd, "cd '%s/box/alice@example.org' && ", root);
	va_start(ap, fmt);
	(void)vsnprintf(cmd + n, sizeof cmd - (size_t)n, fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("%s", cmd);
}

/* Fills a Maildir, does one thing to it, and has the drill look. */
static void
look(const char *tamper, struct mw_drill_count *ret, char kind[32])
{
	struct eyes e;
	struct mw_err err = {0};
	char cmd[600];
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s/box'", root);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(make_all(&e), 0);
	in_box("%s", tamper);
	assert_int_equal(mw_drill_compare(&e.d, &err), 0);
	*ret = e.d.n;
	(void)snprintf(kind, 32, "%s", e.d.n_finding ? e.d.finding[0].kind : "");
	assert_int_equal(mw_drill_passed(&e.d), e.d.findings == 0);
	assert_int_equal(mw_drill_done(&e.d, &err), 0);
	mw_store_close(e.st[0]);
}

static void
every_difference_is_seen(void **state)
{
	(void)state;
	struct mw_drill_count n;
	char kind[32];
	const uint64_t all = MAILS + MAILS / 4; /* and a Sent copy of each fourth */
	fresh(NULL);
	look("true", &n, kind);
	assert_string_equal(kind, "");
	assert_int_equal(n.expected, all);
	assert_int_equal(n.identical, all);
	look("rm \"$(ls new/* | sed -n 3p)\"", &n, kind);
	assert_string_equal(kind, "missing");
	assert_int_equal(n.missing, 1);
	assert_int_equal(n.identical, all - 1);
	/* One byte, with the file's date as it was. */
	look("f=$(ls new/* | sed -n 3p); touch -r \"$f\" t; "
	     "sed -i '1s/number/Number/' \"$f\"; touch -r t \"$f\"; rm t",
	     &n, kind);
	assert_int_equal(n.identical, all - 1);
	assert_int_equal(n.altered + n.missing, 1);
	assert_true(n.wrong_date == 0);
	/* A store that adds a trace field: no Maildir of ours does. */
	look("f=$(ls new/* | sed -n 2p); touch -r \"$f\" t; "
	     "sed -i '1i Delivered-To: x\\r' \"$f\"; touch -r t \"$f\"; rm t",
	     &n, kind);
	assert_string_equal(kind, "altered");
	assert_int_equal(n.altered, 1);
	assert_int_equal(n.normalised, 0);
	look("touch -d '2001-01-01' \"$(ls new/* | sed -n 1p)\"", &n, kind);
	assert_string_equal(kind, "date");
	assert_int_equal(n.wrong_date, 1);
	look("mkdir -p .Sent/cur .Sent/new .Sent/tmp; mv \"$(ls new/* | sed -n 4p)\" "
	     ".Sent/new/",
	     &n, kind);
	assert_string_equal(kind, "folder");
	assert_int_equal(n.wrong_folder, 1);
	look("cp -p \"$(ls new/* | sed -n 1p)\" new/9999999999.M1P1Q1_x.host", &n, kind);
	assert_int_equal(n.surplus, 1);
	assert_int_equal(n.identical, all);
	look("mv \"$(ls new/* | sed -n 1p)\" new/9999999999.M1P1Q1_x.host", &n, kind);
	assert_string_equal(kind, "order");
	assert_true(n.out_of_order >= 1);
	assert_int_equal(n.surplus, 0);
	look("f=$(ls new/* | sed -n 1p); mv \"$f\" ../bob@example.org/new/", &n, kind);
	assert_int_equal(n.missing, 1);
	assert_int_equal(n.surplus, 1);
}

/* ---- the report ---- */

static void
newest_note(char path[600])
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_STORE_AUTO *st = reader();
	const char **v = NULL;
	size_t n = 0;
	struct mw_err err = {0};
	assert_int_equal(mw_drill_names(st, a, &v, &n, &err), 0);
	assert_true(n > 0);
	(void)snprintf(path, 600, "%s/drills/%s.note", journal, v[n - 1]);
}

/* Would "drill verify" say yes? */
static bool
holds(struct mw_store *st, const char *path)
{
	struct mw_drill_kept k;
	struct mw_err err = {0};
	if (mw_drill_read(st, path, &k, &err) < 0)
		return false;
	bool ok = k.signed_here && mw_drill_fits(st, k.o, &err) == 0;
	mw_drill_kept_done(&k);
	return ok;
}

static void
every_flipped_byte_is_seen(void **state)
{
	(void)state;
	char path[600], copy[600];
	MW_AUTOFREE void *text = NULL;
	size_t n = 0;
	fresh(NULL);
	want(0, "drill run --all", "RESULT: PASSED");
	newest_note(path);
	assert_int_equal(mw_fs_read_file(mw_fs_posix(), path, 1 << 20, &text, &n), 0);
	assert_true(n > 1500);
	MW_STORE_AUTO *st = reader();
	assert_true(holds(st, path));
	(void)snprintf(copy, sizeof copy, "%s/copy.note", root);
	MW_AUTOCLOSE int fd = open(copy, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, n, 0), n);
	assert_true(holds(st, copy));
	for (size_t i = 0; i < n; i++) {
		static const uint8_t masks[] = {0x01, 0x20, 0x80};
		for (size_t m = 0; m < sizeof masks; m++) {
			uint8_t old = ((uint8_t *)text)[i];
			uint8_t bad = old ^ masks[m];
			assert_int_equal(pwrite(fd, &bad, 1, (off_t)i), 1);
			if (holds(st, copy))
				fail_msg("byte %zu of %zu, 0x%02x as 0x%02x", i, n, old,
				         bad);
			assert_int_equal(pwrite(fd, &old, 1, (off_t)i), 1);
		}
	}
	assert_true(holds(st, copy));
	for (size_t cut = 0; cut < n; cut += 7) { /* torn */
		assert_int_equal(ftruncate(fd, (off_t)cut), 0);
		assert_false(holds(st, copy));
	}
}

static void
facts_must_fit_the_journal(void **state)
{
	(void)state;
	char cmd[900], path[600];
	fresh(NULL);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s/old'; cp -a '%s' '%s/old'", root,
	               journal, root);
	assert_int_equal(system(cmd), 0);
	add_mails(MAILS, 6, NULL);
	want(0, "drill run --all", "RESULT: PASSED");
	want(0, "drill verify", ": ok: ");
	add_mails(MAILS + 6, 3, NULL); /* the log goes on, and the report still fits */
	want(0, "drill verify", ": ok: ");
	newest_note(path);
	(void)snprintf(cmd, sizeof cmd, "cp '%s' '%s/kept.note'", path, root);
	assert_int_equal(system(cmd), 0);
	/* A log rolled back to an older copy, with the same keys. */
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'; mv '%s/old' '%s'", journal, root,
	               journal);
	assert_int_equal(system(cmd), 0);
	(void)snprintf(cmd, sizeof cmd, "drill verify '%s/kept.note'", root);
	want(1, cmd, "cut or rolled back");
	/* Written on from there: the numbers are back, the chain is another one. */
	add_mails(100, 20, NULL);
	want(1, cmd, "rewritten");
	/* Another journal: another key. */
	fresh(NULL);
	want(1, cmd, "not signed by this journal");
	want(0, "drill list", "no drill was done yet");
	want(66, "drill verify", "no drill was done yet");
	want(66, "drill report 2026", "no drill");
}

static void
names_sort_by_time(void **state)
{
	(void)state;
	char before[MW_DRILL_NAME] = "", name[MW_DRILL_NAME];
	int64_t us = INT64_C(1795361590999990);
	for (int i = 0; i < 40; i++, us += i * i * i + 1) {
		mw_drill_name(us, name);
		assert_true(strcmp(before, name) < 0);
		memcpy(before, name, sizeof before);
	}
	mw_drill_name(INT64_C(1795361590000000), name);
	assert_string_equal(name, "20261122T153310Z-0000");
}

static void
hostile_text_is_escaped(void **state)
{
	(void)state;
	MW_BUF_AUTO html = {0}, text = {0};
	json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:[{s:s, s:s, s:s, s:s}]}", "name",
	                      "<script>alert(1)</script>", "result", "failed", "operator",
	                      "\"><img src=x>\x1b[2J", "findings_total", 1, "findings",
	                      "kind", "a&b", "id", "<i>", "mailbox", "'\"<b>@x", "text",
	                      "</table><script>\x07");
	assert_non_null(o);
	mw_drill_html(o, false, &html);
	mw_drill_text(o, false, &text);
	json_decref(o);
	const char *h = mw_buf_cstr(&html), *t = mw_buf_cstr(&text);
	assert_null(strstr(h, "<script"));
	assert_null(strstr(h, "<img"));
	assert_null(strstr(h, "<b>"));
	assert_null(strstr(h, "<i>"));
	assert_null(strchr(h, 0x1b));
	assert_non_null(strstr(h, "&lt;script&gt;"));
	assert_non_null(strstr(h, "a&amp;b"));
	assert_null(strchr(t, 0x1b));
	assert_null(strchr(t, 0x07));
	assert_non_null(strstr(t, "DOES NOT HOLD"));
}

/* ---- the command ---- */

static void
nothing_left(void)
{
	char cmd[600];
	(void)snprintf(cmd, sizeof cmd,
	               "test -z \"$(ls -d '%s'/mailwal-drill-* 2>/dev/null)\"", root);
	assert_int_equal(system(cmd), 0);
}

/* Flips a byte in the content of one record; returns its ID. */
static void
damage(char id[MW_ID_TEXT + 1])
{
	MW_STORE_AUTO *st = reader();
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	char path[600];
	uint8_t b;
	assert_int_equal(mw_cursor_new(st, 11, &c, &err), 0);
	do
		assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	while (r.type != MW_TYPE_MAIL);
	mw_id_text(id, r.id);
	(void)snprintf(path, sizeof path, "%s/segments/%016llu.seg", journal,
	               (unsigned long long)r.loc.segment);
	MW_AUTOCLOSE int fd = open(path, O_RDWR);
	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	off_t at = (off_t)(r.loc.offset + r.frame_len - r.body_len / 2);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 0x40;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
}

static void
a_damaged_record_is_named(void **state)
{
	(void)state;
	char id[MW_ID_TEXT + 1], small[MW_ID_SHORT + 1];
	fresh(NULL);
	damage(id);
	(void)snprintf(small, sizeof small, "%s", id);
	want(1, "drill run --all", small);
	assert_non_null(strstr(out, "RESULT: FAILED"));
	assert_non_null(strstr(out, "damaged"));
	want(1, "--json drill run --all", id);
	want(1, "-q drill run --all", small);
	/* Not in the sample, and found all the same: the log is read as a whole. */
	want(1, "drill run --user alice@example.org --sample 1 --seed 1", small);
	want(0, "drill verify", "the drill failed");
	want(0, "drill list", "FAILED");
	nothing_left();
}

static void
wrong_use_is_told(void **state)
{
	(void)state;
	char cmd[900];
	fresh(NULL);
	want(64, "drill", "run, list, report or verify");
	want(64, "drill walk", "'walk' is none of");
	want(64, "drill run --sample 0", "no number of copies");
	want(64, "drill run --sample -3", "no number of copies");
	want(64, "drill run --sample 3 --all", "exclude each other");
	want(64, "drill run --seed xyz", "hexadecimal");
	want(64, "drill run --to nowhere", "unknown kind");
	want(64, "drill run --to lmtp:unix:/x", "cannot be read back");
	want(64, "drill run --to smtp:localhost:25", "cannot be read back");
	want(64, "drill report -o pdf", "is not text");
	want(66, "drill run --scratch /nonexistent", "no scratch directory");
	want(66, "drill run --user nobody@example.org", "names no mail");
	/* A target that holds mail may be the live one. */
	(void)snprintf(cmd, sizeof cmd,
	               "drill run --all --create --to 'maildir:%s/live/%%u'", root);
	want(0, cmd, "PASSED");
	want(64, cmd, "is no scratch target");
	(void)snprintf(cmd, sizeof cmd, "drill run --all --to 'eml:%s/eml'", root);
	want(0, cmd, "PASSED");
	want(64, cmd, "is no scratch target");
	(void)snprintf(cmd, sizeof cmd, "drill run --all --create --to 'mbox:%s/box-%%u'",
	               root);
	want(0, cmd, "PASSED");
	want(64, cmd, "is no scratch target");
	nothing_left();
	struct mw_err err = {0};
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	want(66, "drill run", "no records yet");
	(void)snprintf(cmd, sizeof cmd, "ls '%s/drills' 2>/dev/null && exit 1; exit 0",
	               journal);
	assert_int_equal(system(cmd), 0);
}

static void
encrypted_needs_its_key(void **state)
{
	(void)state;
	char cmd[1200], file[700];
	struct mw_err err = {0};
	MW_BUF_AUTO pk = {0};
	fresh(NULL); /* keys new wants a configuration */
	for (int i = 0; i < 2; i++) {
		(void)snprintf(cmd, sizeof cmd,
		               "keys new --on-this-host --out '%s/key%d'", root, i);
		want(0, cmd, "");
	}
	(void)snprintf(file, sizeof file, "%s/key0.pub", root);
	char *files[] = {file};
	assert_int_equal(mw_store_load_recovery(files, 1, &pk, &err), 0);
	fresh(pk.p);
	want(77, "drill run", "needs a recovery key");
	(void)snprintf(cmd, sizeof cmd, "--key '%s/key1' drill run", root);
	want(77, cmd, "encrypted");
	(void)snprintf(cmd, sizeof cmd, "--key '%s/key0' drill run", root);
	want(0, cmd, "RESULT: PASSED");
	assert_non_null(strstr(out, "opened with a recovery key"));
	want(0, "drill verify", ": ok: "); /* no key for that */
	nothing_left();
}

/* A drill that was killed leaves mail behind: the next one removes it, but nothing that
 * somebody uses. */
static void
remains_are_removed(void **state)
{
	(void)state;
	char cmd[900];
	fresh(NULL);
	(void)snprintf(cmd, sizeof cmd,
	               "mkdir -p '%s/mailwal-drill-DEAD01/mail/a/new' "
	               "'%s/mailwal-drill-USED01' && echo x > "
	               "'%s/mailwal-drill-DEAD01/mail/a/new/1' && touch "
	               "'%s/mailwal-drill-DEAD01/lock' '%s/mailwal-drill-USED01/lock'",
	               root, root, root, root, root);
	assert_int_equal(system(cmd), 0);
	(void)snprintf(cmd, sizeof cmd, "%s/mailwal-drill-USED01/lock", root);
	MW_AUTOCLOSE int fd = open(cmd, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	want(0, "drill run --sample 3", "PASSED");
	(void)snprintf(cmd, sizeof cmd,
	               "test ! -e '%s/mailwal-drill-DEAD01' && rm -r "
	               "'%s/mailwal-drill-USED01'",
	               root, root);
	assert_int_equal(system(cmd), 0);
	nothing_left();
}

/* ---- a journal of many days ---- */

static void
configure(const char *text)
{
	FILE *f = fopen(conf_file, "w");
	assert_non_null(f);
	fprintf(f, "journal_dir = %s\nlocal_domains = example.org\n%s", journal, text);
	assert_int_equal(fclose(f), 0);
}

static int64_t fake_us;

static int64_t
fake_now(const struct mw_clock *c)
{
	(void)c;
	return fake_us;
}

static int64_t
fake_mono(const struct mw_clock *c)
{
	(void)c;
	return mw_clock_system()->mono_us(mw_clock_system());
}

/* A mail and a segment for each day from `from` days ago to `to` days ago. */
static void
days(int from, int to)
{
	const struct mw_clock clock = {fake_now, fake_mono, NULL};
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20,
	                          .clock = &clock};
	int64_t now = mw_clock_system()->now_us(mw_clock_system());
	fake_us = now - from * INT64_C(86400000000);
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (int d = from; d > to; d--) {
		fake_us = now - d * INT64_C(86400000000);
		put(st, d % 24, "alice@example.org", "", fake_us);
		assert_int_equal(mw_store_roll(st, &err), 0);
	}
	mw_store_close(st);
}

/* A report outlives the records that it saw, as long as the log says where they went. */
static void
a_prune_is_no_forgery(void **state)
{
	(void)state;
	char cmd[700];
	struct mw_err err = {0};
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", journal);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	days(50, 40);
	want(0, "drill run --all", "PASSED");
	days(40, 0);
	want(0, "drill verify", ": ok: ");
	configure("retain all { keep = 20d }\n");
	want(0, "prune --yes", "");
	(void)snprintf(cmd, sizeof cmd, "test ! -e '%s/segments/0000000000000002.seg'",
	               journal);
	assert_int_equal(system(cmd), 0);
	want(0, "drill verify", ": ok: ");
	want(0, "--json drill run --all", "\"lost_sequence_numbers\":0");
	assert_null(strstr(out, "\"pruned_segments\":0"));
	configure("");
}

/* What the log explains is no loss; what it does not is one. */
static void
gaps_need_a_reason(void **state)
{
	(void)state;
	char cmd[900];
	MW_STORE_AUTO *st = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_err err = {0};
	struct mw_record r;
	char id[MW_ID_TEXT + 1];
	fresh(NULL);
	add_mails(MAILS, 6, NULL);
	add_mails(MAILS + 6, 6, NULL);
	want(0, "drill run --all", "PASSED");
	st = reader();
	assert_int_equal(mw_cursor_new(st, 3, &c, &err), 0);
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	mw_id_text(id, r.id);
	(void)snprintf(cmd, sizeof cmd, "erase %s --yes", id);
	want(0, cmd, "");
	want(0, "--json drill run --all", "\"lost_sequence_numbers\":0");
	assert_non_null(strstr(out, "\"erased\":1,"));
	assert_non_null(strstr(out, "\"expected\":44,"));
	/* The second segment is gone, and no prune says so. */
	(void)snprintf(cmd, sizeof cmd, "rm '%s/segments/0000000000000002.seg'", journal);
	assert_int_equal(system(cmd), 0);
	want(1, "--json drill run --all", "\"kind\":\"missing\"");
	assert_non_null(strstr(out, "\"result\":\"failed\""));
	assert_null(strstr(out, "\"lost_sequence_numbers\":0"));
}

/* Imported mail has dates of long ago: it says nothing of what the capture lost. */
static void
imported_mail_has_no_rpo(void **state)
{
	(void)state;
	char cmd[900];
	struct mw_err err = {0};
	(void)snprintf(
	    cmd, sizeof cmd,
	    "rm -rf '%s' && mkdir -p '%s/old/new' '%s/old/cur' '%s/old/tmp' && "
	    "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'Subject: old %%s\\r\\n"
	    "\\r\\nx\\r\\n' $i > '%s/old/new/'$i.h && touch -d 2001-01-$i "
	    "'%s/old/new/'$i.h; done",
	    journal, root, root, root, root, root);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	(void)snprintf(cmd, sizeof cmd,
	               "import 'maildir:%s/old' --user alice@example.org", root);
	want(0, cmd, "12 imported");
	want(0, "drill run --all", "RPO         not measured");
	want(0, "--json drill list", "\"rpo_s\":null");
	want(1, "status", "RPO not measured");
	want(0, "drill list", "not measured");
	add_mails(0, 3, NULL);
	want(0, cmd, "");
	(void)snprintf(cmd, sizeof cmd,
	               "rm '%s/old/new/'*; printf 'Subject: more\\r\\n\\r\\n' "
	               "> '%s/old/new/77.h'; touch -d 2001-02-01 '%s/old/new/77.h'",
	               root, root, root);
	assert_int_equal(system(cmd), 0);
	(void)snprintf(cmd, sizeof cmd,
	               "import 'maildir:%s/old' --user alice@example.org", root);
	want(0, cmd, "1 imported");
	want(0, "drill run --all", "at most "); /* by the captured ones, an hour old */
	assert_non_null(strstr(out, " min: age"));
}

static void
status_tells_the_last_drill(void **state)
{
	(void)state;
	char id[MW_ID_TEXT + 1], cmd[900], path[600];
	configure("");
	fresh(NULL);
	want(1, "status", "Drill     none yet");
	want(1, "--json status", "\"last_drill\":null");
	want(0, "drill run --all", "PASSED");
	want(1, "status", ": passed, 30 of 30 copies identical, RTO ");
	assert_null(strstr(out, "drill_max_age"));
	want(1, "--json status", "\"result\":\"passed\",\"signature_holds\":true");
	want(2, "status --nagios", " drill_age=");
	assert_non_null(strstr(out, ";3024000"));
	configure("drill_max_age = 1ms\n");
	want(1, "status", "longer than drill_max_age");
	configure("drill_max_age = 0\n");
	want(1, "status", "passed");
	assert_null(strstr(out, "drill_max_age"));
	configure("drill_max_rto = 1ms\n");
	want(1, "drill run --all", "rto: RTO ");
	want(1, "status", "the last drill failed: 1 findings");
	configure("drill_max_rto = 1h\ndrill_max_rpo = 1ms\n");
	want(0, "drill run --all", " is wanted"); /* no daemon: RPO is a bound */
	configure("");
	damage(id);
	want(1, "drill run --all", "FAILED");
	want(1, "status", "FAILED, 29 of 30 copies identical");
	newest_note(path);
	(void)snprintf(cmd, sizeof cmd, "sed -i 's/\"failed\"/\"passed\"/' '%s'", path);
	assert_int_equal(system(cmd), 0);
	want(1, "status", "NOT SIGNED");
	want(1, "drill report", "not signed by this journal's key");
	want(0, "drill list", "BAD SIGNATURE");
	/* What is no report at all does not hide the others. */
	(void)snprintf(cmd, sizeof cmd, "echo x > '%s/drills/20200101T000000Z-xxxx.note'",
	               journal);
	assert_int_equal(system(cmd), 0);
	want(65, "drill list", "BAD SIGNATURE");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(samples_are_fair),
	    cmocka_unit_test(every_difference_is_seen),
	    cmocka_unit_test(every_flipped_byte_is_seen),
	    cmocka_unit_test(facts_must_fit_the_journal),
	    cmocka_unit_test(names_sort_by_time),
	    cmocka_unit_test(hostile_text_is_escaped),
	    cmocka_unit_test(a_damaged_record_is_named),
	    cmocka_unit_test(a_prune_is_no_forgery),
	    cmocka_unit_test(gaps_need_a_reason),
	    cmocka_unit_test(imported_mail_has_no_rpo),
	    cmocka_unit_test(status_tells_the_last_drill),
	    cmocka_unit_test(wrong_use_is_told),
	    cmocka_unit_test(encrypted_needs_its_key),
	    cmocka_unit_test(remains_are_removed),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
