#include "milter/spf_zone.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "journal/base/util.h"

enum {
	CNAME_DEPTH = 8
};

struct line {
	char *name, *type, *value;
};

struct mw_zone {
	struct line *v;
	size_t n, cap;
	int latency_ms;
};

static int
hex(char c)
{
	const char *digits = "0123456789abcdef";
	const char *p = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
	return p ? (int)(p - digits) : -1;
}

static char *
decode(const char *s)
{
	char *out = malloc(strlen(s) + 1), *to = out;
	if (!out)
		return NULL;
	for (; *s; s++) {
		if (*s == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0) {
			*to++ = (char)(hex(s[1]) * 16 + hex(s[2]));
			s += 2;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
	return out;
}

static int
add(struct mw_zone *z, const char *name, const char *type, const char *value)
{
	if (z->n == z->cap) {
		size_t cap = z->cap ? z->cap * 2 : 64;
		struct line *v = reallocarray(z->v, cap, sizeof *v);
		if (!v)
			return MW_ENOMEM;
		z->v = v;
		z->cap = cap;
	}
	struct line l = {decode(name), decode(type), decode(value)};
	z->v[z->n++] = l;
	return l.name && l.type && l.value ? 0 : MW_ENOMEM;
}

static int
parse(struct mw_zone *z, char *text, unsigned number, const char *path,
      struct mw_err *err)
{
	char *save = NULL;
	const char *name = strtok_r(text, " \t\r\n", &save);
	const char *type = name ? strtok_r(NULL, " \t\r\n", &save) : NULL;
	const char *value = type ? strtok_r(NULL, " \t\r\n", &save) : NULL;
	if (!name || *name == '#')
		return 0;
	if (type && !value && strcmp(name, "@latency") == 0) {
		z->latency_ms = (int)strtol(type, NULL, 10);
		return 0;
	}
	if (!type)
		return mw_fail(err, MW_EFORMAT, "%s:%u: no type", path, number);
	if (add(z, name, type, value ? value : "") < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return 0;
}

int
mw_zone_load(const char *path, struct mw_zone **ret, struct mw_err *err)
{
	char *text = NULL;
	size_t room = 0;
	unsigned number = 0;
	int r = 0;
	struct mw_zone *z = calloc(1, sizeof *z);
	FILE *f = z ? fopen(path, "re") : NULL;
	if (!f) {
		free(z);
		return mw_fail_errno(err, "cannot read %s", path);
	}
	while (r == 0 && getline(&text, &room, f) > 0)
		r = parse(z, text, ++number, path, err);
	free(text);
	(void)fclose(f);
	if (r < 0) {
		mw_zone_free(z);
		return r;
	}
	*ret = z;
	return 0;
}

void
mw_zone_free(struct mw_zone *z)
{
	if (!z)
		return;
	for (size_t i = 0; i < z->n; i++) {
		free(z->v[i].name);
		free(z->v[i].type);
		free(z->v[i].value);
	}
	free(z->v);
	free(z);
}

static bool
fits(const struct line *l, const char *name, size_t n, bool wild)
{
	if (!wild)
		return strlen(l->name) == n && strncasecmp(l->name, name, n) == 0;
	if (strncmp(l->name, "*.", 2) != 0)
		return false;
	size_t k = strlen(l->name + 1);
	return n > k && strncasecmp(l->name + 1, name + n - k, k) == 0;
}

/* What a value does in place of being one; false: it is one. */
static bool
act(const char *value)
{
	if (strcmp(value, "!crash") == 0)
		abort();
	while (strcmp(value, "!hang") == 0)
		(void)poll(NULL, 0, 1000);
	return strcmp(value, "!timeout") == 0;
}

/* One name, no CNAME followed but its target told. */
static enum mw_zone_answer
one(const struct mw_zone *z, const char *name, const char *type, const char **value,
    size_t *n, const char **alias)
{
	size_t len = strlen(name);
	bool seen = false, timeout = false;
	if (len && name[len - 1] == '.')
		len--;
	for (int wild = 0; wild <= 1 && !seen; wild++) {
		for (size_t i = 0; i < z->n; i++) {
			const struct line *l = &z->v[i];
			if (!fits(l, name, len, wild))
				continue;
			seen = true;
			if (strcmp(l->type, "ANY") == 0) {
				timeout = act(l->value) || timeout;
			} else if (strcmp(l->type, type) == 0) {
				if (act(l->value))
					return MW_ZONE_TIMEOUT;
				if (*n < MW_ZONE_VALUES)
					value[(*n)++] = l->value;
			} else if (strcmp(l->type, "CNAME") == 0) {
				*alias = l->value;
			}
		}
	}
	if (*n)
		return MW_ZONE_DATA;
	return timeout ? MW_ZONE_TIMEOUT : seen ? MW_ZONE_NO_DATA : MW_ZONE_NO_NAME;
}

enum mw_zone_answer
mw_zone_lookup(const struct mw_zone *z, const char *name, const char *type,
               const char *value[MW_ZONE_VALUES], size_t *ret_n)
{
	enum mw_zone_answer a = MW_ZONE_NO_NAME;
	if (z->latency_ms > 0)
		(void)poll(NULL, 0, z->latency_ms);
	*ret_n = 0;
	for (int depth = 0; depth < CNAME_DEPTH; depth++) {
		const char *alias = NULL;
		a = one(z, name, type, value, ret_n, &alias);
		if (a != MW_ZONE_NO_DATA || !alias)
			return a;
		name = alias;
	}
	return MW_ZONE_TIMEOUT; /* a loop: resolvers say SERVFAIL */
}
