/* setup_tables.c - what a table of Postfix's says, row by row.
 *
 * Tables that Postfix matches line by line (cidr, pcre, regexp) are read here; the others
 * are listed by postmap(1). */
#include "replay/setup.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	MOST_BYTES = 4 << 20
};

struct table {
	const struct mw_postfix *p;
	struct mw_arena *arena;
	const char *name;
	mw_table_row *row;
	void *arg;
};

static void
give(const struct table *m, struct mw_str key, struct mw_str value)
{
	m->row(m->arg, m->name, mw_str_trim(key), mw_str_trim(value));
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
pattern(const struct table *m, struct mw_str line, bool slashed)
{
	line = mw_str_trim(line);
	struct mw_str word = mw_str(line.p, pattern_end(line, false));
	if (word.n == 0 || mw_str_ieq(word, MW_STR("if")) ||
	    mw_str_ieq(word, MW_STR("endif")) || mw_str_starts(line, MW_STR("if/")) ||
	    mw_str_starts(line, MW_STR("if!")))
		return;
	size_t n = pattern_end(line, slashed);
	give(m, mw_str(line.p, n), mw_str(line.p + n, line.n - n));
}

/* A logical line goes on in lines that begin with a blank; comments stand between. */
static int
pattern_file(const struct table *m, struct mw_str path, bool slashed)
{
	MW_AUTOFREE void *all = NULL;
	size_t n;
	MW_BUF_AUTO whole = {0};
	struct mw_str name = mw_arena_str(m->arena, path);
	struct stat st; /* a pipe is waited for, for ever */
	if (!name.p || stat(name.p, &st) < 0 || !S_ISREG(st.st_mode) ||
	    mw_fs_read_named(name.p, MOST_BYTES, &all, &n) < 0)
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
patterns(const struct table *m, struct mw_str name, bool slashed)
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
listed(const struct table *m)
{
	MW_BUF_AUTO out = {0};
	struct mw_err err = {0};
	struct mw_arena *a = m->arena;
	char *argv[6];
	size_t n = 0;
	argv[n++] = mw_arena_strdup(a, "postmap");
	if (m->p->dir) {
		argv[n++] = mw_arena_strdup(a, "-c");
		argv[n++] = mw_arena_strdup(a, m->p->dir);
	}
	argv[n++] = mw_arena_strdup(a, "-s");
	argv[n++] = mw_arena_strdup(a, m->name);
	argv[n] = NULL;
	for (size_t i = 0; i < n; i++)
		if (!argv[i])
			return -1;
	if (mw_setup_run(argv, &out, &err) < 0)
		return -1;
	struct mw_str rest = mw_buf_str(&out), line, key, value;
	while (mw_str_cut(rest, '\n', &line, &rest))
		if (mw_str_cut(line, '\t', &key, &value))
			give(m, key, value);
	return 0;
}

int
mw_postfix_table(const struct mw_postfix *p, struct mw_arena *a, struct mw_str spec,
                 mw_table_row *row, void *arg)
{
	struct mw_str type, name;
	while (mw_str_starts(spec, MW_STR("proxy:")))
		spec = mw_str(spec.p + 6, spec.n - 6);
	const struct table all = {p, a, mw_arena_str(a, spec).p, row, arg}, *m = &all;
	if (!m->name || !mw_str_cut(spec, ':', &type, &name))
		return -1;
	if (mw_str_eq(type, MW_STR("static"))) {
		give(m, MW_STR("all clients"), mw_setup_unbrace(name));
		return 1;
	}
	if (mw_str_eq(type, MW_STR("cidr")))
		return patterns(m, name, false);
	if (mw_str_eq(type, MW_STR("regexp")) || mw_str_eq(type, MW_STR("pcre")))
		return patterns(m, name, true);
	return listed(m);
}
