/* setup_maps.c - smtpd_milter_maps: which clients it sends past the journal.
 *
 * A table's result takes the place of smtpd_milters for that client; DISABLE turns all
 * milters off. Tables that Postfix matches line by line (cidr, pcre, regexp) are read
 * here; the others are listed by postmap(1). What can be neither is a hole: who knows
 * what it says. */
#include "replay/setup.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

enum {
	MOST_TOLD = 8, /* entries named by each */
	MOST_BYTES = 4 << 20
};

struct maps {
	const struct mw_postfix *p;
	struct mw_advices *f;
	const char *where, *table;
	size_t bad, good;
	const char *seen[MOST_TOLD]; /* lists that were looked at */
	size_t n_seen;
};

#define text(...) mw_arena_printf(m->f->arena, __VA_ARGS__)

static const char fix[] = "give each client a list of milters that has mailwald";

static void
told(struct maps *m, struct mw_str key, const char *what)
{
	if (m->bad++ >= MOST_TOLD)
		return;
	mw_advice_add(m->f, MW_ADVICE_HOLE, "smtpd_milter_maps",
	              text("%s: %s gives %.*s %s: their mail has no record", m->where,
	                   m->table, (int)key.n, key.p, what),
	              fix);
}

/* A list that has us may still leave us out at times, or give us an older protocol. */
static void
look_at_list(struct maps *m, const char *list)
{
	for (size_t i = 0; i < m->n_seen; i++)
		if (strcmp(m->seen[i], list) == 0)
			return;
	if (m->n_seen == MW_COUNT(m->seen))
		return;
	m->seen[m->n_seen++] = list;
	mw_postfix_check_list(m->p, NULL, m->f, m->where, list);
}

static void
judge(struct maps *m, struct mw_str key, struct mw_str value)
{
	struct mw_milter_entry e;
	value = mw_arena_str(m->f->arena, mw_str_trim(value));
	key = mw_str_trim(key);
	if (!value.p)
		return;
	if (mw_str_ieq(value, MW_STR("DISABLE"))) {
		told(m, key, "DISABLE");
	} else if (!mw_milter_find(m->p, value.p, &e)) {
		told(m, key, "milters without mailwald");
	} else {
		m->good++;
		look_at_list(m, value.p);
	}
}

/* ---- tables of patterns ---- */

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* How many bytes of a line its pattern takes. */
static size_t
pattern_end(struct mw_str line, bool slashed)
{
	size_t n = 0;
	while (slashed && n < line.n && (line.p[n] == '!' || is_blank(line.p[n])))
		n++;
	if (slashed && n < line.n) {
		char end = line.p[n++];
		while (n < line.n && line.p[n] != end)
			n += line.p[n] == '\\' && n + 1 < line.n ? 2 : 1;
	}
	while (n < line.n && !is_blank(line.p[n]))
		n++;
	return n;
}

static void
pattern(struct maps *m, struct mw_str line, bool slashed)
{
	line = mw_str_trim(line);
	struct mw_str word = mw_str(line.p, pattern_end(line, false));
	if (word.n == 0 || mw_str_ieq(word, MW_STR("if")) ||
	    mw_str_ieq(word, MW_STR("endif")) || mw_str_starts(line, MW_STR("if/")) ||
	    mw_str_starts(line, MW_STR("if!")))
		return;
	size_t n = pattern_end(line, slashed);
	judge(m, mw_str(line.p, n), mw_str(line.p + n, line.n - n));
}

/* A logical line goes on in lines that begin with a blank; comments stand between. */
static int
pattern_file(struct maps *m, struct mw_str path, bool slashed)
{
	MW_AUTOFREE void *all = NULL;
	size_t n;
	MW_BUF_AUTO whole = {0};
	struct mw_str name = mw_arena_str(m->f->arena, path);
	if (!name.p || mw_fs_read_named(name.p, MOST_BYTES, &all, &n) < 0)
		return -1;
	for (struct mw_str rest = mw_str(all, n), line; rest.n;) {
		if (!mw_str_cut(rest, '\n', &line, &rest)) {
			line = rest;
			rest.n = 0;
		}
		struct mw_str trimmed = mw_str_trim(line);
		if (trimmed.n == 0 || trimmed.p[0] == '#')
			continue;
		if (!is_blank(line.p[0])) {
			pattern(m, mw_buf_str(&whole), slashed);
			mw_buf_clear(&whole);
		}
		mw_buf_putc(&whole, ' ');
		mw_buf_putstr(&whole, trimmed);
	}
	pattern(m, mw_buf_str(&whole), slashed);
	return mw_buf_ok(&whole);
}

/* cidr:{ {pattern result}, … }, or cidr:/path. */
static int
patterns(struct maps *m, struct mw_str name, bool slashed)
{
	if (name.n == 0 || name.p[0] != '{')
		return pattern_file(m, name, slashed);
	struct mw_str rest = mw_setup_unbrace(name), line;
	while (mw_setup_word(&rest, &line))
		pattern(m, mw_setup_unbrace(line), slashed);
	return 0;
}

/* ---- all others ---- */

static int
listed(struct maps *m)
{
	MW_BUF_AUTO out = {0};
	struct mw_err err = {0};
	struct mw_arena *a = m->f->arena;
	char *argv[6];
	size_t n = 0;
	argv[n++] = mw_arena_strdup(a, "postmap");
	if (m->p->dir) {
		argv[n++] = mw_arena_strdup(a, "-c");
		argv[n++] = mw_arena_strdup(a, m->p->dir);
	}
	argv[n++] = mw_arena_strdup(a, "-s");
	argv[n++] = mw_arena_strdup(a, m->table);
	argv[n] = NULL;
	for (size_t i = 0; i < n; i++)
		if (!argv[i])
			return -1;
	if (mw_setup_run(argv, &out, &err) < 0)
		return -1;
	struct mw_str rest = mw_buf_str(&out), line, key, value;
	while (mw_str_cut(rest, '\n', &line, &rest))
		if (mw_str_cut(line, '\t', &key, &value))
			judge(m, key, value);
	return 0;
}

/* 1: it has an answer for every client, so that no later table is asked. */
static int
table(struct maps *m, struct mw_str spec)
{
	struct mw_str type, name;
	while (mw_str_starts(spec, MW_STR("proxy:")))
		spec = mw_str(spec.p + 6, spec.n - 6);
	m->table = mw_arena_printf(m->f->arena, "%.*s", (int)spec.n, spec.p);
	if (!m->table || !mw_str_cut(spec, ':', &type, &name))
		return -1;
	if (mw_str_eq(type, MW_STR("static"))) {
		judge(m, MW_STR("all clients"), mw_setup_unbrace(name));
		return 1;
	}
	if (mw_str_eq(type, MW_STR("cidr")))
		return patterns(m, name, false);
	if (mw_str_eq(type, MW_STR("regexp")) || mw_str_eq(type, MW_STR("pcre")))
		return patterns(m, name, true);
	return listed(m);
}

void
mw_postfix_check_maps(const struct mw_postfix *p, struct mw_advices *f, const char *where,
                      const char *list)
{
	struct maps all = {.p = p, .f = f, .where = where}, *m = &all;
	struct mw_str rest = mw_strz(list), spec;
	bool unread = false;
	for (int r = 0; r <= 0 && mw_setup_word(&rest, &spec);) {
		r = table(m, spec);
		if (r >= 0)
			continue;
		unread = true;
		mw_advice_add(f, MW_ADVICE_HOLE, "smtpd_milter_maps",
		              text("%s: %.*s cannot be looked through: it can turn "
		                   "milters off for some clients",
		                   where, (int)spec.n, spec.p),
		              "see to it that each of its results has mailwald, or take "
		              "it out");
	}
	if (m->bad > MOST_TOLD)
		mw_advice_add(f, MW_ADVICE_HOLE, "smtpd_milter_maps",
		              text("%s: and %zu entries more", where, m->bad - MOST_TOLD),
		              fix);
	if (!m->bad && !unread && m->good)
		mw_advice_add(f, MW_ADVICE_NOTE, "smtpd_milter_maps",
		              text("%s is set; each of its results has mailwald", where),
		              NULL);
}
