/* diag.c - how a mistake is shown:
 *
 *   mail.conf:2:1: error: unknown setting 'log_levl'; did you mean 'log_level'?
 *       2 | log_levl = info
 *         | ^~~~~~~~
 *
 * Columns count characters, not bytes. Nothing a terminal would act on gets through. */
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stdio.h>

enum {
	SHOWN = 160
}; /* most bytes of a line in the excerpt */

static bool
is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* A column each, as columns() has it, but for what is no UTF-8. */
static void
put_harmless(struct mw_buf *out, const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t k = p[i] == '\t' ? 1 : mw_utf8_harmless(p + i, n - i);
		if (k)
			mw_buf_put(out, p + i, k);
		else
			mw_buf_putc(out, '?');
		i += k ? k : 1;
	}
}

/* Characters in the first n bytes. */
static size_t
columns(const char *p, size_t n)
{
	size_t c = 0;

	for (size_t i = 0; i < n; i++)
		c += !is_continuation(p[i]);
	return c;
}

static void
excerpt(struct mw_buf *out, const struct mw_conf_line *line, size_t at, size_t len)
{
	struct mw_str s = line->text;
	size_t from = 0, n = s.n, i;

	/* Of a long line, the part around the place. */
	if (n > SHOWN) {
		from = at > SHOWN / 2 ? at - SHOWN / 2 : 0;
		while (from && is_continuation(s.p[from]))
			from--;
		n = MW_MIN(s.n - from, (size_t)SHOWN);
		while (from + n < s.n && n && is_continuation(s.p[from + n]))
			n--;
	}
	mw_buf_printf(out, "%5u | ", line->no);
	put_harmless(out, s.p + from, n);
	mw_buf_puts(out, "\n      | ");
	for (i = from; i < at && i < s.n; i++)
		if (!is_continuation(s.p[i]))
			mw_buf_putc(out, s.p[i] == '\t' ? '\t' : ' ');
	mw_buf_putc(out, '^');
	if (at + len > from + n)
		len = from + n > at ? from + n - at : 0;
	for (i = 1; i < columns(s.p + at, len); i++)
		mw_buf_putc(out, '~');
	mw_buf_putc(out, '\n');
}

void
mw_conf_diag(struct mw_conf_load *l, enum mw_conf_severity sev,
             const struct mw_conf_line *line, size_t at, size_t len, const char *fmt, ...)
{
	unsigned *count = sev == MW_CONF_ERROR ? &l->errors : &l->warnings;
	char text[700];
	va_list ap;

	if (++*count > MW_CONF_ERRORS) {
		if (*count == MW_CONF_ERRORS + 1)
			mw_buf_printf(l->report,
			              "%s: more than %d %s; the rest is not shown\n",
			              line->file, MW_CONF_ERRORS,
			              sev == MW_CONF_ERROR ? "errors" : "warnings");
		return;
	}
	if (at > line->text.n)
		at = line->text.n;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (l->o && l->o->told) {
		const struct mw_conf_told told = {
		    .error = sev == MW_CONF_ERROR,
		    .file = line->file,
		    .line = line->no,
		    .column = line->no ? columns(line->text.p, at) + 1 : 0,
		    .text = text};
		l->o->told(l->o->arg, &told);
	}
	mw_buf_puts(l->report, line->file);
	if (line->no)
		mw_buf_printf(l->report, ":%u:%zu", line->no,
		              columns(line->text.p, at) + 1);
	mw_buf_puts(l->report, sev == MW_CONF_ERROR ? ": error: " : ": warning: ");
	put_harmless(l->report, text, strlen(text));
	mw_buf_putc(l->report, '\n');
	if (line->no)
		excerpt(l->report, line, at, len);
}
