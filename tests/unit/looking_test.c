/* Commands that only look leave the journal as it is: its own user's, another one's, and
 * one on ground that cannot be written. */
#include "tests/support/retain_cli.h"

static const char *const looking[] = {
    "verify",
    "verify --sample 10%",
    "list",
    "status",
    "show 4XA01q",
    "recover --user alice@example.org",
    "prune -n",
    "erase -n --user alice@example.org",
    "hold list",
    "mark --list",
    "drill list",
    "keys list",
    "replay -n --all --to eml:/nonexistent",
};

/* Every file with its times; not the index, a cache with a lock of its readers. */
static char *
tree(void)
{
	static char text[2][1 << 16];
	static int k;
	k = !k;
	assert_int_equal(shell_out(text[k], sizeof text[k],
	                           "find '%s' -name index -prune -o -printf '%%p %%T@ "
	                           "%%C@ %%s %%u %%m\\n' | "
	                           "sort",
	                           journal),
	                 0);
	return text[k];
}

/* As in a copy of what counts alone. */
static void
no_ledger(void)
{
	assert_int_equal(shell_out(out, sizeof out, "rm -r '%s/ledger'", journal), 0);
}

static void
writes_nothing(void **state)
{
	(void)state;
	make(NULL);
	no_ledger();
	write_conf("retain default { keep = 10d }\n");
	for (size_t i = 0; i < MW_COUNT(looking); i++) {
		const char *before = tree();
		int got = run("%s", looking[i]);
		const char *after = tree();
		if (got > 1 || strcmp(before, after) != 0)
			fail_msg("%s: %d\n%s\nbefore:\n%s\nafter:\n%s", looking[i], got,
			         out, before, after);
	}
}

/* How to run the program: with the journal as another user, or on read-only ground. */
static const char *const ways[] = {
    "setpriv --reuid=65534 --regid=65534 --clear-groups env",
    "unshare -m sh -c 'mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && "
    "shift && exec \"$@\"' '%s' -",
};

static void
works_all_the_same(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	make(NULL);
	write_conf("");
	assert_int_equal(run("reindex"), 0);
	assert_int_equal(shell_out(out, sizeof out,
	                           "chmod -R a+rX '%s' && chmod 755 '%s'", root, root),
	                 0);
	for (size_t i = 0; i < MW_COUNT(ways); i++) {
		char with[400];
		const char *at = strstr(ways[i], "%s");
		(void)snprintf(with, sizeof with, "%.*s%s%s",
		               at ? (int)(at - ways[i]) : 300, ways[i], at ? journal : "",
		               at ? at + 2 : "");
		if (shell_out(out, sizeof out, "%s '%s/replay/mailwal' version 2>&1",
		              with, MW_BINARY_DIR) != 0) {
			print_message("%s: cannot be done here: %s\n", ways[i], out);
			continue;
		}
		for (size_t k = 0; k < 3; k++) {
			const char *before = tree();
			int got = shell_out(out, sizeof out,
			                    "%s '%s/replay/mailwal' -c '%s' %s 2>&1",
			                    with, MW_BINARY_DIR, conf, looking[k]);
			const char *after = tree();
			if (got != 0 || strcmp(before, after) != 0)
				fail_msg("%s: %s: %d\n%s\nbefore:\n%s\nafter:\n%s", with,
				         looking[k], got, out, before, after);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(writes_nothing),
	    cmocka_unit_test(works_all_the_same),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
