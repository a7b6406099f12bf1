/* conf_parse.c - any bytes as a configuration give settings or messages: what loads is
 * printed, loads again and prints the same; what does not has at least one message; no
 * byte that a terminal would act on comes out of either. */
#include "conf/conf.h"
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "conf_parse: %s\n", what);
		abort();
	}
}

static void
must_be_harmless(const struct mw_buf *b)
{
	for (size_t i = 0; i < b->n; i++)
		require(b->p[i] >= ' ' || b->p[i] == '\n' || b->p[i] == '\t',
		        "a control character in the output");
}

/* Parses text that is in memory; `!include` would read files, so the seeds have none but
 * of names that do not exist. */
static struct mw_conf *
parse(const void *p, size_t n, struct mw_buf *report, unsigned *ret_errors)
{
	struct mw_conf *c = NULL;
	struct mw_conf_load l = {.report = report, .arena = mw_arena_new(0)};
	struct mw_conf_file f = {.name = "/nonexistent/fuzz.conf"};

	require(mw_conf_load(NULL, &c, NULL, NULL) == 0 && l.arena, "no memory");
	l.conf = c;
	mw_conf_parse_text(&l, &f, mw_str(p, n));
	mw_conf_finish(&l);
	require(!l.nomem, "no memory");
	*ret_errors = l.errors;
	mw_arena_free(l.arena);
	return c;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	MW_BUF_AUTO report = {0}, shown = {0}, again = {0};
	unsigned errors;
	struct mw_conf *c;

	/* The directory does not exist, but an absolute pattern could read anything. */
	if (memmem(data, size, "!include", 8) && memchr(data, '/', size))
		return 0;
	c = parse(data, size, &report, &errors);
	must_be_harmless(&report);
	require((errors == 0) || report.n, "an error without a message");
	mw_conf_print(c, false, &shown);
	must_be_harmless(&shown);
	mw_conf_free(c);
	if (errors)
		return 0;
	mw_buf_clear(&report);
	c = parse(shown.p, shown.n, &report, &errors);
	if (errors)
		fputs(mw_buf_cstr(&report), stderr);
	require(errors == 0, "what is shown does not load");
	mw_conf_print(c, false, &again);
	require(mw_str_eq(mw_buf_str(&shown), mw_buf_str(&again)), "shown differently");
	mw_conf_free(c);
	return 0;
}
