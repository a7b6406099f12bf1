/* cli_drill_test.c - the drill as a command: on damaged, encrypted and pruned journals,
 * used wrongly, and after a drill that was killed. */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/drill_report.h"
#include "tests/support/drill_cli.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include <cmocka.h>

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
	    cmocka_unit_test(a_damaged_record_is_named),
	    cmocka_unit_test(wrong_use_is_told),
	    cmocka_unit_test(encrypted_needs_its_key),
	    cmocka_unit_test(remains_are_removed),
	    cmocka_unit_test(a_prune_is_no_forgery),
	    cmocka_unit_test(gaps_need_a_reason),
	    cmocka_unit_test(imported_mail_has_no_rpo),
	    cmocka_unit_test(status_tells_the_last_drill),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
