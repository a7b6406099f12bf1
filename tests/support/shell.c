#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

void
shell(const char *fmt, ...)
{
	char cmd[2000];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("%s", cmd);
}

int
shell_out(char *out, size_t room, const char *fmt, ...)
{
	char cmd[2048];
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	FILE *p = popen(cmd, "r"); /* NOLINT: a test */
	assert_non_null(p);
	out[fread(out, 1, room - 1, p)] = '\0';
	int status = pclose(p);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void
journal_make(char *path, size_t room, const char *test)
{
	struct mw_err err = {0};
	const char *tmp = getenv("TMPDIR");
	(void)snprintf(path, room - 2, "%s/mw-%s-XXXXXX", tmp ? tmp : "/tmp", test);
	assert_non_null(mkdtemp(path));
	memcpy(path + strlen(path), "/j", 3);
	if (mw_store_create(path, NULL, NULL, &err) < 0)
		fail_msg("%s", err.msg);
}

void
journal_remove(const char *path)
{
	shell("rm -rf '%.*s'", (int)strlen(path) - 2, path);
}

struct mw_store *
opened(const struct mw_store_opts *o)
{
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	return st;
}

struct mw_commit
journaled(struct mw_store *st, struct mw_mail *m, const void *content, size_t n,
          uint8_t *ret_id)
{
	struct mw_commit c;
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	if (mw_entry_new(st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, content, n, &err) < 0 || mw_entry_describe(e, m, &err) < 0 ||
	    mw_entry_finish_mail(e, m, &err) < 0 || mw_store_append(st, e, &c, &err) < 0)
		fail_msg("%s", err.msg);
	if (ret_id)
		memcpy(ret_id, mw_entry_id(e), MW_ID_LEN);
	return c;
}
