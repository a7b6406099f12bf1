/* Wrong usage is told as such, 64, before anything is opened: for every command of the
 * table, whether or not there is a journal or a configuration. */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "tests/support/shell.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];
static json_t *commands; /* of `mailwal help --json` */

/* Where a command may be given: with a journal, without, with no configuration, and with
 * a wrong one. @ is the directory of this test. */
static const char *const places[] = {
    "-j @/j",
    "-j @/none",
    "-c @/none.conf",
    "-c @/wrong.conf",
};

/* Runs mailwal with these words; its exit status, and what it said in *ret. */
static int
ran(struct mw_buf *ret, const char *fmt, ...)
{
	static char said[1 << 20];
	char line[900];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	int status = shell_out(said, sizeof said, "%s/replay/mailwal %s 2>&1 </dev/null",
	                       MW_BINARY_DIR, line);
	mw_buf_clear(ret);
	mw_buf_puts(ret, said);
	return status;
}

static void
expect(int status, const char *text, const char *place, const char *words)
{
	MW_BUF_AUTO said = {0};
	char at[100];
	int n = (int)strcspn(place, "@");
	(void)snprintf(at, sizeof at, "%.*s%s%s", n, place, root, place + n + 1);
	int got = ran(&said, "%s %s", at, words);
	if (got != status || !strstr(mw_buf_cstr(&said), text))
		fail_msg("mailwal %s %s: exit %d, not %d; \"%s\" is not in: %s", at,
		         words, got, status, text, mw_buf_cstr(&said));
}

static void
everywhere(const char *text, const char *words)
{
	for (size_t i = 0; i < MW_COUNT(places); i++)
		expect(64, text, places[i], words);
}

static int
setup(void **state)
{
	MW_BUF_AUTO out = {0};
	json_error_t je;
	(void)state;
	(void)snprintf(root, sizeof root, "/tmp/mw-usage-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	shell("echo 'nonsense = 1' >%s/wrong.conf", root);
	if (ran(&out, "init %s/j", root) != 0 || ran(&out, "help --json") != 0)
		return -1;
	/* One object a line. */
	commands = json_array();
	char *save = NULL, *text = strdup(mw_buf_cstr(&out));
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		json_t *o = json_loads(l, 0, &je);
		if (json_is_string(json_object_get(o, "command")))
			json_array_append(commands, o);
		json_decref(o);
	}
	free(text);
	return json_array_size(commands) > 20 ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	json_decref(commands);
	shell("rm -rf %s", root);
	return 0;
}

static void
unknown_options(void **state)
{
	(void)state;
	size_t i;
	json_t *o;
	json_array_foreach(commands, i, o)
	{
		const char *name = json_string_value(json_object_get(o, "command"));
		char words[100];
		(void)snprintf(words, sizeof words, "%s --nonsense", name);
		everywhere("unknown option '--nonsense'", words);
		(void)snprintf(words, sizeof words, "%s --nonsense=7", name);
		everywhere("unknown option '--nonsense'", words);
		(void)snprintf(words, sizeof words, "%s -Z", name);
		everywhere("unknown option '-Z'", words);
	}
}

static void
too_many(void **state)
{
	(void)state;
	static const char *const lines[] = {
	    "status one",       "list one",     "export one --to eml:x",
	    "prune one",        "verify one",   "checkpoint 1",
	    "reindex one",      "version one",  "follow one --to x",
	    "show one two",     "mark one two", "import one two",
	    "hold add one two", "init one two",
	};
	for (size_t i = 0; i < MW_COUNT(lines); i++)
		everywhere("unexpected argument", lines[i]);
}

static void
values(void **state)
{
	(void)state;
	everywhere("--since needs a value", "list --since");
	everywhere("-S needs a value", "list -S");
	everywhere("--to needs a value", "replay --all --to");
	everywhere("--out needs a value", "checkpoint --out");
	everywhere("--raw takes no value", "show x --raw=1");
	everywhere("--yes takes no value", "prune --yes=no");
	/* A value may look like an option, and an operand behind "--". */
	expect(66, "no journal", "-j @/none", "list --since -2h");
	expect(66, "no journal", "-j @/none", "list -S -2h --subject --nonsense");
	expect(66, "no journal", "-j @/none", "show -- --nonsense");
	expect(0, "", "-j @/j", "list -S -2h --sender=--nonsense");
}

/* What a command does not take, wherever it is asked. */
static void
wrong_arguments(void **state)
{
	(void)state;
	static const char *const lines[] = {
	    "init ''",
	    "setup",
	    "setup exim",
	    "setup postfix --check --apply",
	    "setup postfix --quiet-instance",
	    "setup dovecot --quiet-instance --port x",
	    "setup dovecot --quiet-instance --port 143x",
	    "setup dovecot --quiet-instance --dir x",
	    "setup postfix --check --send-test a@b --wait x",
	    "list --since never",
	    "list --until 2026-13-01",
	    "list --since now --until yesterday",
	    "list --larger x",
	    "list --smaller -1",
	    "list --direction up",
	    "list --overlap x --since-mark m",
	    "list -o csv",
	    "list --limit x",
	    "show",
	    "show ''",
	    "show x --raw --headers",
	    "export --all",
	    "export --all --to nonsense",
	    "export --all --to imap://h",
	    "export --all --to eml:%u",
	    "export --to eml:x --since never",
	    "replay --all",
	    "replay --all --to nonsense",
	    "replay --all --to maildir:%z",
	    "replay --all --to maildir:",
	    "replay --all --to imap://",
	    "replay --all --to imap://h:0x",
	    "replay --all --to eml:x --fresh --resume",
	    "replay --all --to eml:x --jobs x",
	    "replay --all --to eml:x --rate x",
	    "replay --all --to eml:x --uid-gap x",
	    "replay --all --to eml:x --filing x",
	    "replay --all --to eml:x --auth-style x",
	    "replay --all --larger x --to eml:x",
	    "replay undo --to eml:x",
	    "replay undo r1 --user a --to eml:x",
	    "drill",
	    "drill nonsense",
	    "drill run --sample x",
	    "drill run --seed x",
	    "drill run --to lmtp:h:1",
	    "drill run --to nonsense",
	    "drill run --since never",
	    "drill report -o csv",
	    "recover",
	    "recover --all",
	    "recover --user a --since never",
	    "recover --user a --missing",
	    "recover --user a --folder x",
	    "recover --user a --to eml:x",
	    "recover --user a --all --to nonsense",
	    "recover --user a --history --all",
	    "recover --user a --limit x",
	    "recover --user a '' --to eml:x",
	    "mark",
	    "mark ''",
	    "mark m --complete --failed",
	    "mark m --list --complete",
	    "outcomes",
	    "audit",
	    "audit --since never log",
	    "hold",
	    "hold nonsense",
	    "hold add",
	    "hold add h --subject x",
	    "hold add h --since never",
	    "hold rm",
	    "hold rm h --all",
	    "hold list h",
	    "erase",
	    "erase --all",
	    "erase --since yesterday",
	    "erase --user a --since never",
	    "erase ''",
	    "follow",
	    "follow --to nonsense",
	    "follow --to eml:x --larger x",
	    "follow --to eml:x --rate x",
	    "follow --to eml:x --body x",
	    "import",
	    "import nonsense:x",
	    "import maildir:",
	    "verify --sample x",
	    "verify --sample 200%",
	    "keys",
	    "keys nonsense",
	    "keys new",
	    "keys rotate",
	    "keys rewrap x.pub",
	    "keys list x",
	    "config",
	    "config nonsense",
	    "config explain",
	};
	size_t k;
	json_t *o;
	for (size_t i = 0; i < MW_COUNT(lines); i++)
		everywhere("", lines[i]);
	/* Every command that can be called wrongly but for its options is among them. */
	static const char *const never[] = {"checkpoint", "reindex", "prune",
	                                    "version",    "help",    "status"};
	json_array_foreach(commands, k, o)
	{
		const char *name = json_string_value(json_object_get(o, "command"));
		bool found = false;
		for (size_t i = 0; i < MW_COUNT(never); i++)
			found = found || strcmp(never[i], name) == 0;
		for (size_t i = 0; i < MW_COUNT(lines); i++)
			found = found || (strncmp(lines[i], name, strlen(name)) == 0);
		if (!found)
			fail_msg("%s", name);
	}
}

/* The daemon, too. */
static void
daemon_arguments(void **state)
{
	(void)state;
	static const char *const lines[] = {"--nonsense", "-Z",   "-c",
	                                    "-t one",     "one",  "-c @/none.conf one",
	                                    "-t -c",      "-t=1", "-c @/none.conf -Z"};
	for (size_t i = 0; i < MW_COUNT(lines); i++) {
		char args[200], command[900];
		int n = (int)strcspn(lines[i], "@");
		(void)snprintf(args, sizeof args, "%.*s%s%s", n, lines[i],
		               lines[i][n] ? root : "",
		               lines[i][n] ? lines[i] + n + 1 : "");
		(void)snprintf(command, sizeof command,
		               "timeout 60 %s/milter/mailwald %s >/dev/null 2>&1",
		               MW_BINARY_DIR, args);
		int status = system(command);
		status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
		if (status != 64)
			fail_msg("mailwald %s: exit %d", args, status);
	}
}

/* Several letters in one word, as getopt(3) has it. */
static void
letters_in_one(void **state)
{
	(void)state;
	expect(0, "", "-j @/j", "list -qv");
	expect(0, "", "-qvj @/j", "list");
	expect(0, "", "-qvj@/j", "list");
	expect(0, "mailwal ", "-qV -j @", "");
	expect(0, "", "-j @/j", "list -qotsv");
	expect(0, "", "-j @/j", "list -vqo tsv --no-header");
	expect(0, "", "-j @/j", "prune -nq");
	expect(64, "-o: 'csv' is none of", "-j @/j", "list -qocsv");
	everywhere("unknown option '-qZ'", "list -qZ");
	everywhere("unknown option '-Zq'", "list -Zq");
	everywhere("unknown option '-nq'", "list -nq");
	expect(64, "unknown option '-qZ'", "-qZ -j @", "list");
	expect(64, "needs a value", "-j @/j", "list -qS");
	expect(66, "no journal", "-j @/none", "list -qS -2h");
}

static void
class_options_are_explained(void **state)
{
	(void)state;
	static const char *const names[] = {"retain.keep", "retain.default.keep",
	                                    "retain.some.name.keep"};
	MW_BUF_AUTO first = {0}, other = {0};
	assert_int_equal(ran(&first, "config explain %s", names[0]), 0);
	assert_true(first.n > 20);
	for (size_t i = 1; i < MW_COUNT(names); i++) {
		assert_int_equal(ran(&other, "config explain %s", names[i]), 0);
		assert_string_equal(mw_buf_cstr(&first), mw_buf_cstr(&other));
	}
	assert_int_equal(ran(&other, "config explain retain.default.kepe"), 66);
	assert_int_equal(ran(&other, "config explain retian.default.keep"), 66);
	assert_int_equal(ran(&other, "config explain retain."), 66);
	assert_int_equal(ran(&other, "config explain retain.default."), 66);
	assert_int_equal(ran(&other, "config explain ."), 66);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(unknown_options),
	    cmocka_unit_test(too_many),
	    cmocka_unit_test(values),
	    cmocka_unit_test(wrong_arguments),
	    cmocka_unit_test(daemon_arguments),
	    cmocka_unit_test(letters_in_one),
	    cmocka_unit_test(class_options_are_explained),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
