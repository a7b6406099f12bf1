#include "replay/logform.h"

#include "journal/base/util.h"
#include "replay/profile.h"

#include <jansson.h>
#include <string.h>

enum {
	SOURCE_TIME, /* as short forms show it, */
	TIME,        /* or where there is none */
	HOST,
	TAG,
	COMM,
	PID,
	OTHER_PID,
	MESSAGE,
	MESSAGE_MOST = 60000,
	FIELD_MOST = 768 << 20
};

static const char *const names[MW_LOGFORM_FIELDS] = {[SOURCE_TIME] =
                                                         "_SOURCE_REALTIME_TIMESTAMP",
                                                     [TIME] = "__REALTIME_TIMESTAMP",
                                                     [HOST] = "_HOSTNAME",
                                                     [TAG] = "SYSLOG_IDENTIFIER",
                                                     [COMM] = "_COMM",
                                                     [PID] = "_PID",
                                                     [OTHER_PID] = "SYSLOG_PID",
                                                     [MESSAGE] = "MESSAGE"};

void
mw_logform_done(struct mw_logform *f)
{
	mw_buf_free(&f->line);
	for (size_t i = 0; i < MW_LOGFORM_FIELDS; i++)
		mw_buf_free(&f->value[i]);
}

static void
begin(struct mw_logform *f)
{
	for (size_t i = 0; i < MW_LOGFORM_FIELDS; i++)
		mw_buf_clear(&f->value[i]);
}

/* The first one counts where there are several. */
static int
field_of(const struct mw_logform *f, struct mw_str name)
{
	for (int i = 0; i < MW_LOGFORM_FIELDS; i++)
		if (mw_str_eq(name, mw_strz(names[i])))
			return f->value[i].n ? -1 : i;
	return -1;
}

static void
add(struct mw_logform *f, int field, const char *p, size_t n)
{
	struct mw_buf *b = field < 0 ? NULL : &f->value[field];
	if (b && b->n < MESSAGE_MOST)
		mw_buf_put(b, p, MW_MIN(n, MESSAGE_MOST - b->n));
}

static bool
digits(struct mw_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return s.n > 0;
}

/* Nothing in it that ends a word of a log line. */
static bool
plain(struct mw_str s, const char *ends)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= ' ' || strchr(ends, s.p[i]))
			return false;
	return s.n > 0;
}

/* 1 and the line that the fields make; an empty one where one is missing or odd. */
static int
emit(struct mw_logform *f, struct mw_str *ret)
{
	struct mw_str v[MW_LOGFORM_FIELDS];
	for (size_t i = 0; i < MW_LOGFORM_FIELDS; i++) {
		if (mw_buf_ok(&f->value[i]) < 0)
			return MW_ENOMEM;
		v[i] = mw_buf_str(&f->value[i]);
	}
	struct mw_str tag = v[TAG].n ? v[TAG] : v[COMM];
	struct mw_str pid = v[PID].n ? v[PID] : v[OTHER_PID], us;
	us = digits(v[SOURCE_TIME]) ? v[SOURCE_TIME] : v[TIME];
	mw_buf_clear(&f->line);
	if (us.n > 6 && digits(us) && plain(v[HOST], "") && plain(tag, "[]:")) {
		mw_buf_putstr(&f->line, mw_str(us.p, us.n - 6));
		mw_buf_printf(&f->line, ".%.6s ", us.p + us.n - 6);
		mw_buf_putstr(&f->line, v[HOST]);
		mw_buf_putc(&f->line, ' ');
		mw_buf_putstr(&f->line, tag);
		if (digits(pid))
			mw_buf_printf(&f->line, "[%.*s]", (int)MW_MIN(pid.n, 20U), pid.p);
		mw_buf_puts(&f->line, ": ");
		for (size_t i = 0; i < v[MESSAGE].n; i++) {
			char c = v[MESSAGE].p[i];
			mw_buf_putc(&f->line, c == '\n' || c == '\r' ? ' ' : c);
		}
	}
	if (mw_buf_ok(&f->line) < 0)
		return MW_ENOMEM;
	*ret = mw_buf_str(&f->line);
	return 1;
}

/* ---- JSON ---- */

/* Text; or, where it is not UTF-8, an array of its bytes. */
static void
add_json(struct mw_logform *f, int field, const json_t *o)
{
	size_t i;
	const json_t *one;
	if (json_is_string(o))
		add(f, field, json_string_value(o), json_string_length(o));
	json_array_foreach(o, i, one)
	{
		char c = (char)json_integer_value(one);
		if (!json_is_integer(one)) { /* a field that is there twice */
			mw_buf_clear(&f->value[field]);
			return;
		}
		add(f, field, &c, 1);
	}
}

/* What is no JSON stays as it is. */
static int
from_json(struct mw_logform *f, struct mw_str raw, struct mw_str *ret)
{
	json_error_t je;
	json_t *o = json_loadb(raw.p, raw.n, JSON_ALLOW_NUL, &je);
	if (!o)
		return 1;
	begin(f);
	for (int i = 0; i < MW_LOGFORM_FIELDS; i++)
		add_json(f, i, json_object_get(o, names[i]));
	json_decref(o);
	return emit(f, ret);
}

/* ---- export ---- */

/* A line within a field that holds bytes: eight with their number, little end first, the
 * bytes, a line end. */
static void
binary(struct mw_logform *f, struct mw_str raw)
{
	struct mw_str s = raw;
	bool end = true; /* the line's own end is yet to be taken */
	while (f->length_left && (s.n || end)) {
		uint8_t c = s.n ? (uint8_t)s.p[0] : '\n';
		f->length |= (uint64_t)c << 8 * (8 - f->length_left);
		if (s.n)
			s = mw_str(s.p + 1, s.n - 1);
		else
			end = false;
		if (--f->length_left == 0)
			f->data_left = f->length;
	}
	if (f->length_left || !end)
		return;
	if (f->data_left <= s.n) { /* it ends in this line */
		add(f, f->field, s.p, (size_t)f->data_left);
		f->binary = false;
		return;
	}
	add(f, f->field, s.p, s.n);
	add(f, f->field, "\n", 1);
	f->data_left -= s.n + 1;
}

static int
from_export(struct mw_logform *f, struct mw_str raw, struct mw_str *ret)
{
	struct mw_str name, value;
	if (f->binary) {
		binary(f, raw);
		return 0;
	}
	if (!raw.n) {
		f->entry = false;
		return emit(f, ret);
	}
	if (mw_str_cut(raw, '=', &name, &value)) {
		add(f, field_of(f, name), value.p, value.n);
		return 0;
	}
	f->field = field_of(f, raw);
	f->binary = true;
	f->length = 0;
	f->length_left = 8;
	return 0;
}

void
mw_logform_rest(struct mw_logform *f, size_t n)
{
	if (!f->binary || f->length_left)
		return;
	f->binary = n <= f->data_left; /* else it ended there */
	f->data_left -= MW_MIN((uint64_t)n, f->data_left);
}

int
mw_logform_take(struct mw_logform *f, struct mw_str raw, struct mw_str *ret)
{
	static const struct mw_str first = {"__CURSOR=", 9};
	*ret = raw;
	/* Not within a field of bytes: who had them logged writes what he likes there.
	 * (Of a length that no field of systemd's has, nothing is believed.) */
	if ((!f->binary || f->data_left > FIELD_MOST) && mw_str_starts(raw, first)) {
		begin(f);
		f->entry = true;
		f->binary = false;
		return 0;
	}
	if (f->entry)
		return from_export(f, raw, ret);
	if (mw_str_starts(raw, MW_STR("-- "))) /* journalctl's: No entries, Boot … */
		return 0;
	if (raw.n && raw.p[0] == '\x1e') /* json-seq */
		raw = mw_str(raw.p + 1, raw.n - 1);
	else if (mw_str_starts(raw, MW_STR("data: {"))) /* json-sse */
		raw = mw_str(raw.p + 6, raw.n - 6);
	return raw.n > 1 && raw.p[0] == '{' ? from_json(f, raw, ret) : 1;
}

/* ---- what is none of these ---- */

const char *
mw_logform_hint(struct mw_str head)
{
	static const struct {
		struct mw_str begin;
		const char *what;
	} known[] = {
	    {{"\x1f\x8b", 2}, "it is packed: unpack it first, as by 'gzip -dc'"},
	    {{"\xfd\x37zXZ", 5}, "it is packed: unpack it first, as by 'xz -dc'"},
	    {{"\x28\xb5\x2f\xfd", 4}, "it is packed: unpack it first, as by 'zstd -dc'"},
	    {{"BZh", 3}, "it is packed: unpack it first, as by 'bzip2 -dc'"},
	    {{"\x04\x22\x4d\x18", 4}, "it is packed: unpack it first, as by 'lz4 -dc'"},
	    {{"LPKSHHRH", 8},
	     "it is a file of systemd's journal: give the word "
	     "'journald', or what 'journalctl -o json --file' prints"},
	    {{"{\n", 2},
	     "of JSON it reads one object a line: 'journalctl -o json', not "
	     "json-pretty"},
	    {{"[", 1},
	     "its times count from the start of the machine: use 'journalctl "
	     "-o short-iso-precise', json or export"},
	};
	for (size_t i = 0; i < MW_COUNT(known); i++)
		if (mw_str_starts(head, known[i].begin))
			return known[i].what;
	return "it reads what syslog daemons and Postfix write, and of journalctl the "
	       "forms short, short-full, short-iso(-precise), short-precise, short-unix, "
	       "json and export (not verbose, cat, with-unit)";
}
