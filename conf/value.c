/* value.c - the types of settings: text to value, value to text. */
#include "conf/conf_int.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(base, o, type)       (*(type *)((char *)(base) + (o)->offset))
#define FIELD_CONST(base, o, type) (*(type const *)((const char *)(base) + (o)->offset))

/* Settings whose default begins with a 0 that is not all of it are octal modes. */
static bool
is_octal(const struct mw_conf_opt *o)
{
	return o->type == MW_CONF_INT && o->def[0] == '0' && o->def[1];
}

static int
parse_int(const struct mw_conf_opt *o, const char *text, int64_t *ret)
{
	char *end;

	if (*text < '0' || *text > '9')
		return MW_ECONF;
	errno = 0;
	long long v = strtoll(text, &end, is_octal(o) ? 8 : 10);
	if (*end || errno)
		return MW_ECONF;
	*ret = v;
	return 0;
}

static int
parse_number(const struct mw_conf_opt *o, const char *text, int64_t *ret)
{
	uint64_t size;
	int r;

	switch (o->type) {
	case MW_CONF_SIZE:
		r = mw_size_parse(text, &size);
		if (!r)
			*ret = (int64_t)size; /* mw_size_parse stays below 2^63 */
		return r;
	case MW_CONF_DURATION:
		return mw_duration_parse(text, ret);
	default:
		return parse_int(o, text, ret);
	}
}

static const char *
expected(const struct mw_conf_opt *o)
{
	switch (o->type) {
	case MW_CONF_SIZE:
		return "a size such as 512K, 64M or 1G";
	case MW_CONF_DURATION:
		return "a duration such as 30d, 12h or 5min";
	default:
		return is_octal(o) ? "an octal mode such as 0660" : "a whole number";
	}
}

static int
set_number(void *base, const struct mw_conf_opt *o, const char *text, struct mw_err *err)
{
	int64_t v = 0, bound = 0;

	if (parse_number(o, text, &v) < 0)
		return mw_fail(err, MW_ECONF, "expected %s, got '%s'", expected(o), text);
	if (*o->min && parse_number(o, o->min, &bound) == 0 && v < bound)
		return mw_fail(err, MW_ECONF, "%s is too small; the least is %s", text,
		               o->min);
	if (*o->max && parse_number(o, o->max, &bound) == 0 && v > bound)
		return mw_fail(err, MW_ECONF, "%s is too large; the most is %s", text,
		               o->max);
	if (o->type == MW_CONF_SIZE)
		FIELD(base, o, uint64_t) = (uint64_t)v;
	else
		FIELD(base, o, int64_t) = v;
	return 0;
}

/* The words of an ENUM stand in `max`, with bars between them. */
static int
set_enum(void *base, const struct mw_conf_opt *o, const char *text, struct mw_err *err)
{
	char words[128];
	const char *names[16];
	size_t n = 0;
	char *save = NULL;

	(void)snprintf(words, sizeof words, "%s", o->max);
	for (char *w = strtok_r(words, "|", &save); w && n < MW_COUNT(names);
	     w = strtok_r(NULL, "|", &save)) {
		if (strcmp(w, text) == 0) {
			FIELD(base, o, int) = (int)n;
			return 0;
		}
		names[n++] = w;
	}
	char list[160] = "";
	size_t at = 0;
	for (size_t i = 0; i < n && at < sizeof list; i++)
		at += (size_t)snprintf(list + at, sizeof list - at, "%s%s",
		                       i == 0       ? ""
		                       : i + 1 == n ? " or "
		                                    : ", ",
		                       names[i]);
	const char *near = mw_nearest(text, names, n);
	return mw_fail(err, MW_ECONF, "expected %s, got '%s'%s%s%s", list, text,
	               near ? "; did you mean '" : "", near ? near : "",
	               near ? "'?" : "");
}

static int
set_bool(void *base, const struct mw_conf_opt *o, const char *text, struct mw_err *err)
{
	bool yes = strcmp(text, "yes") == 0;

	if (!yes && strcmp(text, "no") != 0)
		return mw_fail(err, MW_ECONF, "expected yes or no, got '%s'", text);
	FIELD(base, o, bool) = yes;
	return 0;
}

static int
list_add(struct mw_conf_list *l, const char *p, size_t n)
{
	char **v = realloc(l->v, (l->n + 1) * sizeof *v);

	if (!v)
		return MW_ENOMEM;
	l->v = v;
	v[l->n] = strndup(p, n);
	if (!v[l->n])
		return MW_ENOMEM;
	l->n++;
	return 0;
}

int
mw_conf_list_default(struct mw_conf_list *l, const char *text)
{
	static const char between[] = " \t,";

	for (text += strspn(text, between); *text; text += strspn(text, between)) {
		size_t n = strcspn(text, between);
		int r = list_add(l, text, n);
		if (r < 0)
			return r;
		text += n;
	}
	return 0;
}

void
mw_conf_list_clear(struct mw_conf_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	l->v = NULL;
	l->n = 0;
}

/* Of "rcpt:<a@b>" and "sender:<a@b>" in a match list, what is in the brackets. */
static int
add_item(struct mw_conf_list *list, const struct mw_conf_opt *o, const char *text)
{
	size_t n = strlen(text), key = strcspn(text, ":") + 1;
	bool address =
	    strncmp(text, "rcpt:<", 6) == 0 || strncmp(text, "sender:<", 8) == 0;
	if (strcmp(o->name, "match") != 0 || !address || text[n - 1] != '>' ||
	    n - key < 3)
		return list_add(list, text, n);
	char *copy = strdup(text);
	if (!copy)
		return MW_ENOMEM;
	memmove(copy + key, text + key + 1, n - key - 2);
	int r = list_add(list, copy, n - 2);
	free(copy);
	return r;
}

static int
set_value(void *base, const struct mw_conf_opt *o, const char *text, struct mw_err *err)
{
	char *copy;
	int r;

	switch (o->type) {
	case MW_CONF_STRING:
	case MW_CONF_PATH:
		copy = strdup(text);
		if (!copy)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		free(FIELD(base, o, char *));
		FIELD(base, o, char *) = copy;
		return 0;
	case MW_CONF_ENUM:
		return set_enum(base, o, text, err);
	case MW_CONF_BOOL:
		return set_bool(base, o, text, err);
	case MW_CONF_INT:
	case MW_CONF_SIZE:
	case MW_CONF_DURATION:
		return set_number(base, o, text, err);
	case MW_CONF_LIST:
		r = add_item(&FIELD(base, o, struct mw_conf_list), o, text);
		return r < 0 ? mw_fail(err, r, "out of memory") : 0;
	}
	return mw_fail(err, MW_EBUG, "setting of unknown type");
}

int
mw_conf_value_set(void *base, const struct mw_conf_opt *o, const char *text,
                  struct mw_err *err)
{
	int r = mw_conf_check(o, text, err);

	return r < 0 ? r : set_value(base, o, text, err);
}

int
mw_conf_value_default(void *base, const struct mw_conf_opt *o)
{
	struct mw_conf_opt plain = *o;

	mw_conf_value_free(base, o);
	if (o->type == MW_CONF_LIST)
		return mw_conf_list_default(&FIELD(base, o, struct mw_conf_list), o->def);
	/* A default may stand outside the bounds: 0 for "not set". */
	plain.min = "";
	return set_value(base, &plain, o->def, NULL);
}

void
mw_conf_value_free(void *base, const struct mw_conf_opt *o)
{
	if (o->type == MW_CONF_STRING || o->type == MW_CONF_PATH) {
		free(FIELD(base, o, char *));
		FIELD(base, o, char *) = NULL;
	} else if (o->type == MW_CONF_LIST) {
		mw_conf_list_clear(&FIELD(base, o, struct mw_conf_list));
	}
}

static bool
lists_equal(const struct mw_conf_list *a, const struct mw_conf_list *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return true;
}

bool
mw_conf_value_equal(const void *a, const void *b, const struct mw_conf_opt *o)
{
	switch (o->type) {
	case MW_CONF_STRING:
	case MW_CONF_PATH:
		return strcmp(FIELD_CONST(a, o, char *), FIELD_CONST(b, o, char *)) == 0;
	case MW_CONF_ENUM:
		return FIELD_CONST(a, o, int) == FIELD_CONST(b, o, int);
	case MW_CONF_BOOL:
		return FIELD_CONST(a, o, bool) == FIELD_CONST(b, o, bool);
	case MW_CONF_SIZE:
		return FIELD_CONST(a, o, uint64_t) == FIELD_CONST(b, o, uint64_t);
	case MW_CONF_INT:
	case MW_CONF_DURATION:
		return FIELD_CONST(a, o, int64_t) == FIELD_CONST(b, o, int64_t);
	case MW_CONF_LIST:
		return lists_equal(&FIELD_CONST(a, o, struct mw_conf_list),
		                   &FIELD_CONST(b, o, struct mw_conf_list));
	}
	return false;
}

/* In quotes where the grammar would read it otherwise. */
static void
put_word(struct mw_buf *out, const char *text, bool word)
{
	size_t n = strlen(text);
	bool plain = n > 0 && !strpbrk(text, word ? " \t,\"#;{}\\" : "\"#;{}\\") &&
	             text[0] != ' ' && text[0] != '\t' && text[n - 1] != ' ' &&
	             text[n - 1] != '\t';

	if (plain) {
		mw_buf_puts(out, text);
		return;
	}
	mw_buf_putc(out, '"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			mw_buf_putc(out, '\\');
		mw_buf_putc(out, *text);
	}
	mw_buf_putc(out, '"');
}

/* The largest unit that says it exactly. */
static void
put_units(struct mw_buf *out, uint64_t v, const char *const *names,
          const uint64_t *factors, size_t n)
{
	size_t i = 0;

	while (v && i + 1 < n && v % factors[i])
		i++;
	if (!v)
		mw_buf_putc(out, '0');
	else
		mw_buf_printf(out, "%" PRIu64 "%s", v / factors[i], names[i]);
}

static void
put_duration(struct mw_buf *out, int64_t us)
{
	static const char *const names[] = {"d", "h", "min", "s", "ms", "us"};
	static const uint64_t factors[] = {86400000000, 3600000000, 60000000,
	                                   1000000,     1000,       1};

	put_units(out, (uint64_t)us, names, factors, MW_COUNT(names));
}

static void
put_size(struct mw_buf *out, uint64_t v)
{
	static const char *const names[] = {"T", "G", "M", "K", ""};
	static const uint64_t factors[] = {UINT64_C(1) << 40, 1U << 30, 1U << 20,
	                                   1U << 10, 1};

	put_units(out, v, names, factors, MW_COUNT(names));
}

static void
put_enum(struct mw_buf *out, const char *words, int place)
{
	for (; place > 0 && strchr(words, '|'); place--)
		words = strchr(words, '|') + 1;
	mw_buf_put(out, words, strcspn(words, "|"));
}

/* For INT, SIZE and DURATION. */
static bool
is_default(const void *base, const struct mw_conf_opt *o)
{
	int64_t def = 0;

	if (parse_number(o, o->def, &def) < 0)
		return false;
	if (o->type == MW_CONF_SIZE)
		return FIELD_CONST(base, o, uint64_t) == (uint64_t)def;
	return FIELD_CONST(base, o, int64_t) == def;
}

void
mw_conf_value_text(const void *base, const struct mw_conf_opt *o, struct mw_buf *out)
{
	const struct mw_conf_list *l;

	switch (o->type) {
	case MW_CONF_STRING:
	case MW_CONF_PATH:
		put_word(out, FIELD_CONST(base, o, char *), false);
		return;
	case MW_CONF_ENUM:
		put_enum(out, o->max, FIELD_CONST(base, o, int));
		return;
	case MW_CONF_BOOL:
		mw_buf_puts(out, FIELD_CONST(base, o, bool) ? "yes" : "no");
		return;
	case MW_CONF_LIST:
		l = &FIELD_CONST(base, o, struct mw_conf_list);
		for (size_t i = 0; i < l->n; i++) {
			if (i)
				mw_buf_putc(out, ' ');
			put_word(out, l->v[i], true);
		}
		return;
	default:
		break;
	}
	if (is_default(base, o))
		mw_buf_puts(out, o->def);
	else if (o->type == MW_CONF_DURATION)
		put_duration(out, FIELD_CONST(base, o, int64_t));
	else if (o->type == MW_CONF_SIZE)
		put_size(out, FIELD_CONST(base, o, uint64_t));
	else if (is_octal(o))
		mw_buf_printf(out, "0%" PRIo64, FIELD_CONST(base, o, int64_t));
	else
		mw_buf_printf(out, "%" PRId64, FIELD_CONST(base, o, int64_t));
}
