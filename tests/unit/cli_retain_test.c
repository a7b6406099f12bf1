/* mailwal prune, hold and erase on journals made here, through the program: plain and
 * encrypted, without any private key for prune and hold. */
/* MW_TEST_COST 20 */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/record/outcome.h"
#include "journal/store/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/support/retain_cli.h"

/* ---- prune ---- */

static void
prune(const uint8_t *recovery)
{
	make(recovery);
	write_conf("retain personnel { match = rcpt:hr@example.org; keep = 45d }\n"
	           "retain mail { match = direction:in; keep = 20d }\n");
	uint64_t before = used();
	want(0, "prune --dry-run --json");
	/* to alice alone: 20 days; hr, and what hr has too: 45; outgoing: for ever */
	assert_true(says("\"rule\":\"mail\",\"messages\":50"));
	assert_true(says("\"rule\":\"personnel\",\"messages\":100"));
	assert_true(says("\"rule\":\"(no rule)\",\"messages\":50"));
	assert_true(says("\"remove\":40,"));
	assert_int_equal(used(), before);
	want(64, "prune"); /* nobody to ask */
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":40"));
	want(0, "verify --json");
	assert_true(says("\"erased\":40"));
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":0"));
	want(0, "verify");
	/* now what is sent goes too, and files with it */
	write_conf("retain all { keep = 20d }\n");
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":80"));
	assert_true(used() < before * 6 / 10);
	want(0, "verify --json");
	if (!says("\"pruned_segments\":31"))
		fail_msg("%s", out);
	if (!recovery)
		assert_int_equal(lines("list --all --no-header -o tsv"), 80);
	want(0, "prune --yes");
	want(0, "verify");
}

static void
prune_plain(void **state)
{
	(void)state;
	prune(NULL);
}

static void
prune_encrypted(void **state)
{
	(void)state;
	uint8_t sk[32], pk[32];
	mw_random(sk, sizeof sk);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	prune(pk);
}

static void
prune_in_the_middle(void **state)
{
	(void)state;
	make(NULL);
	write_conf("retain all { keep = 10d }\n");
	want(0, "hold add case-1 --user alice@example.org --until -45d");
	want(0, "hold add case-1b --queue-id 4XH30q");
	want(64, "hold add case-1");
	want(0, "hold list --json");
	assert_true(says("\"name\":\"case-1b\""));
	want(0, "prune --yes --json");
	assert_true(says("\"held\":16"));
	want(0, "verify --json");
	assert_true(says("\"missing\":0"));
	want(0, "list --all --no-header");
	assert_true(says("4XH30q") || lines("list --queue-id 4XH30q --no-header") == 1);
	want(77, "erase 4XH30q --yes");
	assert_true(says("case-1b"));
	want(0, "hold rm case-1");
	want(0, "hold rm case-1b");
	want(66, "hold rm case-1b");
	want(0, "prune --yes --json");
	want(0, "verify");
	want(0, "prune --yes --json");
	want(0, "verify --json");
	want(0, "hold list");
	if (lines("list --all --no-header -o tsv") != 40)
		fail_msg("%s", out);
}

static void
limits(void **state)
{
	(void)state;
	make(NULL);
	write_conf("prune_floor = 30d\nretain all { keep = 10d }\n");
	want(0, "prune -n --json");
	assert_true(says("\"remove\":80"));
	assert_true(says("\"floor\":80"));
	write_conf("prune_requires = marked\nretain all { keep = 10d }\n");
	want(0, "prune -n --json");
	assert_true(says("\"not_marked\":160"));
	want(0, "mark nightly");
	want(0, "prune -n --json");
	assert_true(says("\"remove\":0,"));
	want(0, "mark nightly --complete");
	want(0, "prune -n --json");
	assert_true(says("\"remove\":160"));
	write_conf("prune_requires = shipped\nretain all { keep = 10d }\n");
	want(78, "prune -n");
	write_conf("retain all { max_size = 1M }\n");
	want(0, "prune -n --json");
	assert_true(says("\"remove\":0,"));
}

/* ---- erase ---- */

static void
erase(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	assert_int_equal(lines("list --user alice@example.org --no-header -o tsv"), 150);
	want(0, "erase --user alice@example.org -n --json");
	assert_true(says("\"erased\":100"));
	assert_true(says("\"kept_for_others\":50"));
	want(64, "erase --user alice@example.org");
	want(0, "erase --user alice@example.org --yes --json");
	assert_true(says("\"erased\":100"));
	assert_int_equal(lines("list --user alice@example.org --no-header -o tsv"), 0);
	assert_int_equal(lines("list --user alice --no-header -o tsv"), 0);
	assert_int_equal(lines("list --user hr@example.org --no-header -o tsv"), 100);
	want(0, "verify --json");
	assert_true(says("\"erased\":100"));
	assert_true(says("\"index\":0"));
	want(0, "show 4XB07q");
	assert_false(says("lice"));
	assert_int_not_equal(run("show 4XA07q --raw"), 0);
	char target[400];
	(void)snprintf(target, sizeof target,
	               "replay --all --create --to maildir:%s/m/%%u", root);
	want(0, target);
	(void)snprintf(target, sizeof target, "%s/m/alice@example.org", root);
	struct stat sb;
	assert_int_not_equal(stat(target, &sb), 0);
	(void)snprintf(target, sizeof target, "%s/m/hr@example.org", root);
	assert_int_equal(stat(target, &sb), 0);
	/* the other keeper too: then it is gone for good */
	want(0, "erase --user hr@example.org --yes --json");
	assert_true(says("\"erased\":100"));
	assert_true(says("\"kept_for_others\":0"));
	assert_int_equal(lines("list --all --no-header -o tsv"), 0);
	want(0, "verify");
	want(66, "erase 4XB07q --yes");
}

/* Does the token of that queue ID stand in any file of the journal? */
static bool
token_is_left(const char *qid)
{
	static const char *const subs[] = {"segments", "index"};
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	uint8_t token[8];
	bool found = false;
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	mw_store_token(st, MW_KEY_QUEUE_ID, mw_strz(qid), token);
	mw_store_close(st);
	for (size_t i = 0; i < MW_COUNT(subs); i++) {
		char dir[400], path[800];
		(void)snprintf(dir, sizeof dir, "%s/%s", journal, subs[i]);
		DIR *d = opendir(dir);
		assert_non_null(d);
		for (struct dirent *e; (e = readdir(d));) {
			void *p = NULL;
			size_t n = 0;
			(void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
			if (mw_fs_read_file(mw_fs_posix(), path, 64U << 20, &p, &n) == 0)
				found = found || memmem(p, n, token, sizeof token);
			free(p);
		}
		(void)closedir(d);
	}
	return found;
}

static void
erase_encrypted(void **state)
{
	(void)state;
	uint8_t sk[32], pk[32];
	mw_random(sk, sizeof sk);
	assert_int_equal(mw_hpke_public(sk, pk), 0);
	make(pk);
	write_conf("");
	want(77, "erase --user alice@example.org --yes"); /* no key: nobody can tell */
	assert_true(says("is encrypted, so nobody knows whose mail is there"));
	assert_false(says("1 message"));
	assert_true(token_is_left("4XA07q"));
	want(0, "erase 4XA07q --yes"); /* an ID needs none */
	assert_false(token_is_left("4XA07q"));
	assert_true(token_is_left("4XA08q"));
	assert_int_not_equal(run("erase 4XA07q --yes"), 0);
	want(0, "verify --json");
	assert_true(says("\"erased\":1,"));
}

/* A slot wiped by hand is tampering. */
static void
wiped_by_hand(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	struct fake f = {.now = now_us};
	struct mw_store *st = writer(&f, NULL);
	struct mw_segment_info *v;
	struct mw_record r;
	struct mw_err err = {0};
	size_t n;
	assert_int_equal(mw_store_segment_info(st, &v, &n, &err), 0);
	mw_store_close(st);
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_READ};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	struct mw_cursor *c;
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	assert_int_equal(mw_cursor_next(c, &r, &err), 1);
	mw_cursor_free(c);
	mw_store_close(st);
	st = writer(&f, NULL);
	struct mw_wipe_at p = {r.loc.offset, r.seq + 1};
	assert_int_equal(mw_store_wipe(st, r.loc.segment, &p, 1, &err), MW_EUSAGE);
	p.seq = r.seq;
	assert_int_equal(mw_store_wipe(st, r.loc.segment, &p, 1, &err), 0);
	assert_int_equal(mw_store_remove(st, &v[n - 1].number, 1, &err), MW_EUSAGE);
	free(v);
	mw_store_close(st);
	want(1, "verify");
	assert_true(says("tampering"));
}

/* Removed files that the process still has open: their space is not back yet. */
static unsigned
still_open(pid_t pid)
{
	char n[32];
	(void)shell_out(n, sizeof n,
	                "ls -l /proc/%ld/fd | grep -c '[.]\\(seg\\|tmp\\) (deleted)'",
	                (long)pid);
	return (unsigned)strtoul(n, NULL, 10);
}

/* The same with mailwald owning the journal: everything goes over its socket. */
static void
through_the_daemon(void **state)
{
	(void)state;
	char program[512], path[400], log[400];
	struct stat sb;
	make(NULL);
	char text[600];
	(void)snprintf(text, sizeof text,
	               "milter_listen = unix:%s/milter.sock\nlog_target = stderr\n"
	               "min_free = 0\nretain all { keep = 20d }\n",
	               root);
	write_conf(text);
	(void)snprintf(program, sizeof program, "%s/milter/mailwald", MW_BINARY_DIR);
	(void)snprintf(path, sizeof path, "%s/control.sock", journal);
	(void)snprintf(log, sizeof log, "%s/mailwald.log", root);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen(log, "w", stderr) || !freopen("/dev/null", "w", stdout))
			_exit(126);
		(void)execl(program, program, "-c", conf, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 2400 && stat(path, &sb) < 0; i++)
		(void)usleep(50000);
	want(0, "status --json"); /* it answers, so later commands find it */
	unsigned before = segments();
	want(0, "hold add case --queue-id 4XA40q");
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":119"));
	assert_true(says("\"held\":1,"));
	assert_true(segments() < before * 6 / 10);
	for (int i = 0; i < 2400 && still_open(pid); i++)
		(void)usleep(50000);
	assert_int_equal(still_open(pid), 0);
	want(0, "verify --json");
	assert_true(says("\"ok\":true"));
	want(0, "erase --user hr@example.org --yes --json");
	if (!says("\"erased\":20"))
		fail_msg("%s", out);
	assert_true(says("\"kept_for_others\":20"));
	want(0, "verify --json");
	assert_true(says("\"pending\":0"));
	want(77, "erase 4XA40q --yes");
	want(0, "hold rm case");
	want(0, "erase 4XA40q --yes");
	assert_int_equal(lines("list --all --no-header -o tsv"), 60);
	want(0, "verify --json");
	assert_true(says("\"ok\":true"));
	assert_int_equal(kill(pid, SIGTERM), 0);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	want(0, "verify");
	assert_int_equal(lines("list --all --no-header -o tsv"), 60);
}

/* A second prune, hold or erase at the same time is told so. */
static void
one_at_a_time(void **state)
{
	(void)state;
	char path[400];
	make(NULL);
	write_conf("retain all { keep = 20d }\n");
	(void)snprintf(path, sizeof path, "%s/retain.lock", journal);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	want(75, "prune --yes");
	want(75, "hold add x");
	want(75, "erase --user alice@example.org --yes");
	want(0, "prune -n");
	(void)close(fd);
	want(0, "prune --yes");
}

/* Keys are added to segments while others prune and erase: one waits for the other, and
 * what is left is whole and opens with the new key. */
static void
rewrap_beside_prune_and_erase(void **state)
{
	(void)state;
	uint8_t pk[32], fresh[32];
	struct mw_err err = {0};
	char old_key[300], new_key[300], args[900], cmd[3000], path[400];
	(void)snprintf(old_key, sizeof old_key, "%s/old", root);
	(void)snprintf(new_key, sizeof new_key, "%s/new", root);
	assert_int_equal(mw_keyring_new(old_key, MW_STR(""), pk, &err), 0);
	assert_int_equal(mw_keyring_new(new_key, MW_STR(""), fresh, &err), 0);
	make(pk);
	write_conf("retain all { keep = 20d }\n");
	(void)snprintf(args, sizeof args, "--key %s keys rewrap %s.pub", old_key,
	               new_key);
	(void)snprintf(path, sizeof path, "%s/retain.lock", journal);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	want(75, args);
	(void)close(fd);
	(void)snprintf(cmd, sizeof cmd,
	               "m='%s/replay/mailwal -c %s'\n"
	               "again() { until $m \"$@\" </dev/null >/dev/null 2>&1; do\n"
	               "  [ $? = 75 ] || exit 9; done; }\n"
	               "(again prune --yes) & p=$!\n"
	               "(again --key %s erase --user alice@example.org --yes) & e=$!\n"
	               "(again %s; again %s) & w=$!\n"
	               "wait $p && wait $e && wait $w",
	               MW_BINARY_DIR, conf, old_key, args, args);
	assert_int_equal(system(cmd), 0);
	(void)snprintf(args, sizeof args, "--key %s verify", new_key);
	want(0, args);
	(void)snprintf(args, sizeof args, "--key %s list --all --no-header -o tsv",
	               new_key);
	assert_int_equal(lines(args), 40); /* of 20 days: to hr, alone and with alice */
	(void)snprintf(cmd, sizeof cmd,
	               "cd '%s/segments' && for k in *.keys; do "
	               "test -e \"${k%%.keys}.seg\" || exit 1; done",
	               journal);
	assert_int_equal(system(cmd), 0);
}

/* A host that was off for days, or a clock that jumped: the first run removes nothing and
 * says so; the next one, a day's records later, goes on. */
static void
clock_ahead(void **state)
{
	(void)state;
	now_us -= 5 * DAY;
	make(NULL);
	now_us += 5 * DAY;
	write_conf("retain all { keep = 20d }\n");
	want(1, "prune -n --json");
	assert_true(says("\"remove\":0,"));
	want(1, "prune --yes --json");
	assert_true(says("\"removed\":0"));
	assert_true(says("\"clock_trusted\":false"));
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":120")); /* the gap made nobody old */
	want(0, "verify");
}

/* A hold without selection holds everything; what cannot be held is refused. */
static void
holds(void **state)
{
	(void)state;
	make(NULL);
	write_conf("retain all { keep = 20d }\n");
	want(64, "hold add x --subject secret");
	want(64, "hold add x --user alice");
	want(64, "hold add x --since-mark nightly");
	want(64, "hold add");
	want(64, "hold");
	want(64, "hold add 'a b'");
	want(0, "hold add everything --json");
	assert_true(says("\"selection\":\"everything\""));
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":0"));
	assert_true(says("\"held\":120,"));
	want(77, "erase --user hr@example.org --yes");
	assert_true(says("everything"));
	want(0, "hold rm everything");
	want(0, "hold add out --direction out");
	want(0, "prune --yes --json");
	assert_true(says("\"removed\":90"));
	want(0, "hold list --json");
	assert_false(says("everything"));
	want(0, "verify");
}

/* A record that cannot be told for what it was may be a hold: nothing goes. */
static void
hold_lost(void **state)
{
	(void)state;
	make(NULL);
	write_conf("retain all { keep = 20d }\n");
	want(0, "hold add everything");
	/* it stands in two segments: in one of them alone it is not lost */
	for (unsigned k = 1; k <= 2; k++) {
		shell("f=$(ls '%s'/segments/*.seg | tail -n %u | head -n 1) && printf x "
		      "| dd of=\"$f\" bs=1 seek=8212 conv=notrunc status=none",
		      journal, k);
		want(1, "hold list --json");
		assert_int_equal(says("everything"), k == 1);
		want(1, "prune --dry-run --json");
		assert_int_equal(says("\"held\":120,"), k == 1);
	}
	want(1, "prune --dry-run --json");
	assert_true(says("\"damage\":120,"));
	want(1, "hold list");
	assert_true(says("2 records cannot be read (sequence "));
	assert_true(says("each may be a hold"));
	want(1, "prune --yes --json");
	assert_true(says("2 records cannot be read"));
	assert_true(says("\"removed\":0"));
	want(65, "erase 4XA40q --yes");
	assert_true(says("a hold may be among them"));
	want(65, "erase 4XA40q --dry-run");
	assert_true(says("--despite-damage"));
	want(0, "erase 4XA40q --despite-damage --dry-run --json");
	assert_true(says("\"erased\":1,"));
	want(0, "show 4XA40q");
	want(0, "erase 4XA40q --despite-damage --yes --json");
	assert_true(says("\"erased\":1,"));
	want(66, "show 4XA40q");
	want(0, "prune --despite-damage --yes --json");
	assert_true(says("\"removed\":119"));
	/* what he said is remembered, as long as nothing else is damaged */
	want(0, "prune --yes --json");
	assert_true(says("\"holds_lost\":[]"));
	want(0, "hold list");
	want(0, "hold add all");
	want(0, "prune --yes --json");
	want(0, "hold rm all");
	want(0, "erase 4XA10q --yes --json");
	shell("f=$(ls '%s'/segments/*.seg | head -n 1) && printf x | "
	      "dd of=\"$f\" bs=1 seek=8212 conv=notrunc status=none",
	      journal);
	want(1, "prune --yes --json");
	want(65, "erase 4XA09q --yes");
}

/* What he says of damage is remembered where nothing is ever to be removed, too: erase
 * and status go by it. */
static void
settled_without_rules(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	want(0, "hold add hers --user alice@example.org");
	shell("f=$(ls '%s'/segments/*.seg | tail -n 2 | head -n 1) && printf x "
	      "| dd of=\"$f\" bs=1 seek=8212 conv=notrunc status=none",
	      journal);
	want(1, "hold list");
	want(65, "erase 4XH40q --yes");
	want(0, "prune --despite-damage --dry-run");
	want(1, "hold list");
	want(0, "prune --despite-damage --yes --json");
	assert_true(says("\"removed\":0"));
	want(0, "hold list");
	assert_true(says("hers"));
	want(0, "erase 4XH40q --yes");
}

/* Whose mail a damaged record was nobody knows: one person's is erased but for these, and
 * they are named. */
static void
not_judged(void **state)
{
	(void)state;
	make(NULL);
	write_conf("retain all { keep = 90d }\n");
	want(0, "mark nightly");
	/* the newest record is nothing that could be told, of the first the metadata are
	 * hurt */
	shell("cd '%s'/segments && f=$(ls *.seg | tail -n 1) && "
	      "printf x | dd of=\"$f\" bs=1 seek=8212 conv=notrunc status=none && "
	      "printf xxxx | dd of=0000000000000001.seg bs=1 seek=8530 conv=notrunc "
	      "status=none",
	      journal);
	want(77, "erase --user hr@example.org --yes");
	assert_true(says("nobody knows whose mail that is") && says("--despite-damage"));
	want(3, "erase --user hr@example.org --despite-damage -n --json");
	assert_true(says("\"erased\":50,") && says("\"kept_for_others\":50,"));
	want(3, "erase --user hr@example.org --despite-damage --yes --json");
	assert_true(says("\"erased\":50,") && says("\"kept_for_others\":50,"));
	assert_true(says("\"not_judged\":[[1,1],[251,251]]") && says("\"failed\":2,"));
	assert_int_equal(lines(
	                     "list --user hr@example.org --no-header -o tsv 2>/dev/null"),
	                 0);
	want(3, "erase --user alice@example.org --despite-damage --yes");
	assert_true(says("records 1, 251"));
	want(0, "prune --despite-damage --yes --json"); /* the rest has expired */
	assert_true(says("\"segments_removed\":4"));
	want(1, "verify");
	assert_true(says("record 1 "));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(prune_plain),
	    cmocka_unit_test(prune_encrypted),
	    cmocka_unit_test(prune_in_the_middle),
	    cmocka_unit_test(limits),
	    cmocka_unit_test(erase),
	    cmocka_unit_test(erase_encrypted),
	    cmocka_unit_test(wiped_by_hand),
	    cmocka_unit_test(through_the_daemon),
	    cmocka_unit_test(one_at_a_time),
	    cmocka_unit_test(rewrap_beside_prune_and_erase),
	    cmocka_unit_test(clock_ahead),
	    cmocka_unit_test(holds),
	    cmocka_unit_test(hold_lost),
	    cmocka_unit_test(settled_without_rules),
	    cmocka_unit_test(not_judged),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
