#include "tests/support/conffile.h"

#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mw-conf-XXXXXX";

void
put_bytes(const char *name, const char *text, size_t n)
{
	FILE *f = fopen(name, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

void
put(const char *name, const char *text)
{
	put_bytes(name, text, strlen(text));
}

int
in_directory(void **state)
{
	(void)state;
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

int
remove_directory(void **state)
{
	char cmd[64];

	(void)state;
	if (chdir("/") < 0)
		return -1;
	(void)snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd) == 0 ? 0 : -1;
}

char *
load(const char *text, size_t n, struct mw_buf *report, struct mw_err *err, int *ret_r)
{
	struct mw_conf *c = NULL;
	MW_BUF_AUTO out = {0};

	put_bytes("c.conf", text, n);
	*ret_r = mw_conf_load("c.conf", &c, report, err);
	if (*ret_r < 0) {
		assert_null(c);
		return NULL;
	}
	mw_conf_print(c, true, &out);
	assert_string_equal(c->file, "c.conf");
	mw_conf_free(c);
	return strdup(mw_buf_cstr(&out));
}
