/* cli_keys_test.c - the program on an encrypted journal: with, without and with wrong
 * keys. */
#include "journal/base/util.h"
#include "journal/codec/keyring.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char content[] = "Subject: secret words\r\n\r\nhidden\r\n";
static char root[64];

/* Runs mailwal with these words in the test's directory; output goes to "out". */
static int
mailwal(const char *words)
{
	char command[1200];
	(void)
	    snprintf(command, sizeof command,
	             "cd '%s' && MAILWAL_CONFIG=/dev/null '%s/replay/mailwal' -j journal "
	             "%s >out 2>err </dev/null",
	             root, MW_BINARY_DIR, words);
	int status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool
said(const char *file, const char *text)
{
	char path[128];
	void *p = NULL;
	size_t n;
	(void)snprintf(path, sizeof path, "%s/%s", root, file);
	assert_int_equal(mw_fs_read_file(mw_fs_posix(), path, 1 << 20, &p, &n), 0);
	bool found = memmem(p, n, text, strlen(text)) != NULL;
	free(p);
	return found;
}

static void
new_key(const char *name, const char *passphrase, uint8_t pk[MW_KEY_LEN])
{
	char path[128];
	struct mw_err err = {0};
	(void)snprintf(path, sizeof path, "%s/%s", root, name);
	assert_int_equal(mw_keyring_new(path, mw_strz(passphrase), pk, &err), 0);
}

static int
setup(void **state)
{
	(void)state;
	struct mw_err err = {0};
	char path[512];
	uint8_t pk[2][MW_KEY_LEN], other[MW_KEY_LEN];
	(void)snprintf(path, sizeof path, "%s/replay/mailwal", MW_BINARY_DIR);
	if (access(path, X_OK) < 0)
		exit(77); /* built without the program */
	(void)snprintf(root, sizeof root, "/tmp/mw-cli-keys-XXXXXX");
	assert_non_null(mkdtemp(root));
	new_key("plain", "", pk[0]);
	new_key("locked", "open sesame", pk[1]);
	new_key("other", "", other);
	(void)snprintf(path, sizeof path, "%s/phrase", root);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs("open sesame\n", f);
	fclose(f);
	(void)snprintf(path, sizeof path, "%s/journal", root);
	assert_int_equal(mw_store_create(path, NULL, NULL, &err), 0);
	MW_STORE_AUTO *st = NULL;
	struct mw_store_opts o = {.dir = path,
	                          .mode = MW_STORE_WRITE,
	                          .recovery = pk[0],
	                          .n_recovery = 2};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	for (int i = 0; i < 3; i++) {
		struct mw_rcpt r = {.addr = MW_STR("alice@example.org"),
		                    .flags = MW_RCPT_LOCAL};
		struct mw_mail m = {.time_us = INT64_C(1795342440000000) + i,
		                    .queue_id = i ? MW_STR("4Xother") : MW_STR("4Xfirst"),
		                    .rcpt = &r,
		                    .n_rcpt = 1};
		(void)journaled(st, &m, content, sizeof content - 1, NULL);
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	char command[128];
	(void)snprintf(command, sizeof command, "rm -rf '%s'", root);
	return system(command);
}

static void
without_a_key(void **state)
{
	(void)state;
	assert_int_equal(mailwal("list"), 77);
	assert_true(said("err", "--key"));
	assert_false(said("out", "secret"));
	assert_int_equal(mailwal("show 4Xfirst --raw"), 77);
	assert_false(said("out", "hidden"));
	/* What needs no key works without. */
	assert_int_equal(mailwal("verify"), 0);
	assert_int_equal(mailwal("status --json"), 1);
	assert_true(said("out", "\"encrypted\":true"));
	assert_true(said("out", "\"mails\":3"));
	assert_int_equal(mailwal("mark nightly"), 0);
	assert_int_equal(mailwal("mark nightly --complete"), 0);
}

static void
with_a_key(void **state)
{
	(void)state;
	assert_int_equal(mailwal("list --key plain"), 0);
	assert_true(said("out", "secret words"));
	assert_int_equal(mailwal("show 4Xfirst --raw --key plain"), 0);
	assert_true(said("out", content));
	assert_int_equal(mailwal("list --key locked --passphrase-file phrase"), 0);
	assert_true(said("out", "secret words"));
	/* Any one of several opens it. */
	assert_int_equal(mailwal("list --key other --key plain"), 0);
}

static void
with_a_wrong_key(void **state)
{
	(void)state;
	char command[128];
	assert_int_equal(mailwal("list --key other"), 77);
	assert_true(said("err", "no key given opens it"));
	assert_int_equal(mailwal("list --key locked"), 77);
	assert_true(said("err", "passphrase"));
	assert_int_equal(mailwal("list --key plain.pub"), 77);
	assert_true(said("err", "plain.pub is a public key"));
	assert_false(said("err", "chmod"));
	assert_int_equal(mailwal("list --key missing"), 66);
	assert_int_equal(mailwal("list --passphrase-file phrase"), 64);
	assert_int_equal(mailwal("list --key locked --passphrase-file missing"), 66);
	(void)snprintf(command, sizeof command, "chmod 644 '%s/other'", root);
	assert_int_equal(system(command), 0);
	assert_int_equal(mailwal("list --key other"), 77);
	assert_true(said("err", "chmod 600"));
}

static void
rewrap_command(void **state)
{
	(void)state;
	assert_int_equal(mailwal("keys new --out fresh --on-this-host"), 0);
	assert_int_equal(mailwal("list --key fresh"), 77);
	assert_int_equal(mailwal("keys rewrap fresh.pub"), 64);
	assert_int_equal(mailwal("keys rewrap --key plain"), 64);
	assert_int_equal(mailwal("keys rewrap fresh.pub --key fresh"), 3);
	assert_true(said("err", "none of the keys given"));
	assert_int_equal(mailwal("keys rewrap fresh.pub --key plain --json"), 0);
	assert_true(said("out", "\"not_opened\":0"));
	assert_int_equal(mailwal("list --key fresh"), 0);
	assert_true(said("out", "secret words"));
	assert_int_equal(mailwal("keys rewrap fresh.pub --key plain"), 0);
	assert_true(said("out", "0 segments open with these keys too now"));
	assert_int_equal(mailwal("verify --key fresh"), 0);
	assert_int_equal(mailwal("verify"), 0);
}

static void
keys_command(void **state)
{
	(void)state;
	assert_int_equal(mailwal("keys new --out made"), 77); /* the journal is here */
	assert_true(said("err", "--on-this-host"));
	assert_int_equal(mailwal("keys new --out made --on-this-host"), 0);
	assert_int_equal(mailwal("keys new --out made --on-this-host"), 73);
	assert_true(said("err", "there already"));
	assert_int_equal(mailwal("keys rotate made"), 65);
	assert_true(said("err", "made is a private key"));
	assert_int_equal(mailwal("keys rotate made.pub"), 0);
	assert_true(said("out", "encrypted to 1 recovery key"));
	assert_int_equal(mailwal("keys list"), 0);
	assert_true(said("out", "and every new one"));
	assert_int_equal(mailwal("keys"), 64);
	assert_int_equal(mailwal("keys rotate"), 64);
}

/* What was encrypted to the new key from the start needs nothing, and no old key. */
static void
rewrap_after_a_rotation(void **state)
{
	(void)state;
	assert_int_equal(mailwal("mark rotated"), 0);
	assert_int_equal(mailwal("mark rotated --complete"), 0);
	assert_int_equal(mailwal("keys rewrap made.pub --key plain"), 0);
	assert_false(said("err", "none of the keys given"));
	assert_int_equal(mailwal("list --key made"), 0);
	assert_true(said("out", "secret words"));
	assert_int_equal(mailwal("keys rewrap made.pub --key plain"), 0);
	assert_true(said("out", "0 segments open with these keys too now"));
	/* but to add another one to it does */
	assert_int_equal(mailwal("keys rewrap fresh.pub --key plain"), 3);
	assert_true(said("err", "none of the keys given"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_a_key),    cmocka_unit_test(with_a_key),
	    cmocka_unit_test(with_a_wrong_key), cmocka_unit_test(rewrap_command),
	    cmocka_unit_test(keys_command),     cmocka_unit_test(rewrap_after_a_rotation),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
