/* drill_test.c - the drill: its sample, its eyes (what it finds in a target that was
 * tampered with), its signed report (every byte of it), the same facts in the journal. */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/drill_report.h"
#include "tests/support/drill_cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

#include <cmocka.h>

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
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
