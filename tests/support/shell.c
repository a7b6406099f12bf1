#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

struct mw_store *
opened(const struct mw_store_opts *o)
{
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	if (mw_store_open(o, &st, &err) < 0)
		fail_msg("%s", err.msg);
	return st;
}
