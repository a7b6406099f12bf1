#include "replay/cmd.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/mime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
put_valid(struct mw_str s, struct mw_buf *out)
{
	for (size_t i = 0; i < s.n;) {
		size_t len = mw_utf8_char(s.p + i, s.n - i);
		if (len == 0 || s.p[i] == '\0') {
			mw_buf_puts(out, "\xef\xbf\xbd");
			i++;
		} else {
			mw_buf_put(out, s.p + i, len);
			i += len;
		}
	}
}

json_t *
mw_json_str(struct mw_str s)
{
	MW_BUF_AUTO b = {0};
	put_valid(s, &b);
	if (mw_buf_ok(&b) < 0)
		return NULL;
	return json_stringn(b.n ? (const char *)b.p : "", b.n);
}

static bool
is_c1(const char *p, size_t len)
{
	return len == 2 && (unsigned char)p[0] == 0xc2 && (unsigned char)p[1] < 0xa0;
}

static bool
is_control(const char *p, size_t len)
{
	unsigned char c = (unsigned char)p[0];
	return (len == 1 && (c < 0x20 || c == 0x7f)) || is_c1(p, len);
}

void
mw_text_safe(struct mw_str s, bool keep_lines, struct mw_buf *out)
{
	for (size_t i = 0; i < s.n;) {
		size_t len = mw_utf8_char(s.p + i, s.n - i);
		char c = s.p[i];
		if (keep_lines && c == '\r' && i + 1 < s.n && s.p[i + 1] == '\n') {
			i++;
			continue;
		}
		if (keep_lines && (c == '\n' || c == '\t')) {
			mw_buf_putc(out, c);
			i++;
			continue;
		}
		if (len && !is_control(s.p + i, len)) {
			mw_buf_put(out, s.p + i, len);
			i += len;
			continue;
		}
		for (size_t k = 0; k < (len ? len : 1); k++)
			mw_buf_printf(out, "\\x%02x", (unsigned char)s.p[i + k]);
		i += len ? len : 1;
	}
}

void
mw_text_header(struct mw_str raw, struct mw_buf *out)
{
	MW_BUF_AUTO decoded = {0};
	mw_mime_header(raw, &decoded);
	put_valid(mw_buf_str(&decoded), out);
}

static int64_t began_us;

void
mw_cli_json_begin(void)
{
	const struct mw_clock *clock = mw_clock_system();
	began_us = clock->mono_us(clock);
}

/* What every summary has, where the command did not say more. */
static void
complete_summary(json_t *o)
{
	static const char *const counts[] = {"selected", "already_there", "restored",
	                                     "failed"};
	const char *type = json_string_value(json_object_get(o, "message_type"));
	const struct mw_clock *clock = mw_clock_system();
	if (!type || strcmp(type, "summary") != 0)
		return;
	for (size_t i = 0; i < MW_COUNT(counts); i++)
		if (!json_object_get(o, counts[i]))
			(void)json_object_set_new(o, counts[i], json_integer(0));
	if (!json_object_get(o, "duration_s"))
		(void)json_object_set_new(
		    o, "duration_s",
		    json_real((double)(clock->mono_us(clock) - began_us) / 1e6));
}

void
mw_cli_json(json_t *take)
{
	complete_summary(take);
	/* jansson escapes C0 controls only; a terminal obeys DEL and C1 as well. */
	char *text =
	    take ? json_dumps(take, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	json_decref(take);
	if (!text) {
		fputs("mailwal: out of memory\n", stderr);
		return;
	}
	for (const char *p = text; *p;) {
		size_t len = mw_utf8_char(p, strnlen(p, 4));
		if (*p == 0x7f) {
			fputs("\\u007f", stdout);
			p++;
		} else if (is_c1(p, len)) {
			fprintf(stdout, "\\u%04x", (unsigned)(unsigned char)p[1]);
			p += 2;
		} else {
			putchar(*p++);
		}
	}
	putchar('\n');
	free(text);
}
