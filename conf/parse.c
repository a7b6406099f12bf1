/* parse.c - the grammar, one line at a time.
 *
 *   key = value                 # a comment begins a line or follows white space
 *   key = "quoted \" and \\"    lists: words between white space or commas
 *   retain NAME {               or on one line: retain NAME { keep = 30d; max_size = 1G }
 *     keep = 30d
 *   }
 *   !include PATTERN
 *
 * A mistake is told and the line is passed over; the next one is read as if nothing had
 * happened, so that all mistakes show at once. */
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

/* The setting that is being read: its row, where it lives, where it was set before. */
struct target {
	const struct mw_conf_opt *opt;
	void *base;
	struct mw_conf_origin *origin;
};

static bool
set_word(struct mw_conf_load *l, const struct mw_conf_line *line, const struct target *t,
         struct mw_conf_span s)
{
	struct mw_err err = {0};
	const char *text = mw_conf_unquote(l, line, s);

	if (!text)
		return false;
	int r = mw_conf_value_set(t->base, t->opt, text, &err);
	if (r == MW_ENOMEM)
		l->nomem = true;
	else if (r < 0)
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, s.len, "%s: %s", t->opt->name,
		             err.msg);
	else
		mw_conf_probe_later(l, t->opt, line, s.at, s.len, text);
	return r == 0;
}

/* Words between white space and commas; an empty list takes back all before it. */
static void
set_list(struct mw_conf_load *l, const struct mw_conf_line *line, const struct target *t,
         struct mw_conf_span v)
{
	struct mw_str text = line->text;
	struct mw_conf_list *list =
	    (struct mw_conf_list *)(void *)((char *)t->base + t->opt->offset);
	size_t i = v.at, end = v.at + v.len;

	/* The first setting replaces the default, the others add to it. */
	if (!t->origin->file || v.len == 0) {
		mw_conf_list_clear(list);
		mw_conf_probe_forget(l, t->opt);
	}
	t->origin->file = line->file;
	t->origin->line = line->no;
	while (i < end) {
		size_t from = i;
		if (mw_conf_is_blank(text.p[i]) || text.p[i] == ',') {
			i++;
			continue;
		}
		if (text.p[i] == '"')
			i = mw_conf_quote_end(text, i, end);
		while (i < end && !mw_conf_is_blank(text.p[i]) && text.p[i] != ',')
			i++;
		struct mw_conf_span word = {from, i - from};
		if (text.p[from] == '"' && mw_conf_quote_end(text, from, end) != i) {
			size_t e = mw_conf_quote_end(text, from, end);
			mw_conf_diag(l, MW_CONF_ERROR, line, e, i - e,
			             "%s: white space or a comma belongs between two "
			             "words",
			             t->opt->name);
			continue;
		}
		(void)set_word(l, line, t, word); /* told; the next word may be right */
	}
}

static void
set_scalar(struct mw_conf_load *l, const struct mw_conf_line *line,
           const struct target *t, struct mw_conf_span key, struct mw_conf_span v)
{
	struct mw_str text = line->text;

	if (v.len && text.p[v.at] == '"') {
		size_t e = mw_conf_quote_end(text, v.at, v.at + v.len);
		if (e && e < v.at + v.len) {
			struct mw_conf_span rest = mw_conf_trim(text, e, v.at + v.len);
			mw_conf_diag(l, MW_CONF_ERROR, line, rest.at, rest.len,
			             "%s: nothing may follow the closing quote",
			             t->opt->name);
			return;
		}
	}
	if (v.len == 0 && t->opt->type != MW_CONF_STRING) {
		mw_conf_diag(l, MW_CONF_ERROR, line, key.at, key.len,
		             "'%s' has no value; its default is %s", t->opt->name,
		             t->opt->def);
		return;
	}
	if (t->origin->file)
		mw_conf_diag(l, MW_CONF_WARNING, line, key.at, key.len,
		             "'%s' overrides the value from %s:%u", t->opt->name,
		             t->origin->file, t->origin->line);
	mw_conf_probe_forget(l, t->opt);
	if (set_word(l, line, t, v) && (t->opt->flags & MW_CONF_SECRET) &&
	    t->opt->type == MW_CONF_PATH) {
		const char *path = mw_conf_unquote(l, line, v);
		if (path && mw_conf_secret_exposed(path))
			mw_conf_diag(l, MW_CONF_WARNING, line, v.at, v.len,
			             "%s: others than its owner may read %s; chmod it to "
			             "0600",
			             t->opt->name, path);
	}
	t->origin->file = line->file;
	t->origin->line = line->no;
}

static void
unknown_key(struct mw_conf_load *l, const struct mw_conf_file *f,
            const struct mw_conf_line *line, struct mw_conf_span key)
{
	const char *name = mw_conf_keep_span(l, line, key), *near;
	struct mw_str s = mw_strz(name);

	if (f->open.file && mw_conf_find(mw_conf_opts, MW_CONF_N_OPTS, s)) {
		mw_conf_diag(l, MW_CONF_ERROR, line, key.at, key.len,
		             "'%s' does not belong into a section; is the '}' of the one "
		             "at line %u missing?",
		             name, f->open.no);
		return;
	}
	const struct mw_conf_section *k = mw_conf_section_with(s);
	if (k && (!f->open.file || k != f->kind)) {
		mw_conf_diag(l, MW_CONF_ERROR, line, key.at, key.len,
		             "'%s' belongs into a section '%s NAME { }'", name, k->name);
		return;
	}
	near = f->open.file ? mw_conf_nearest_opt(f->kind->opts, f->kind->n_opts, name)
	                    : mw_conf_nearest_opt(mw_conf_opts, MW_CONF_N_OPTS, name);
	mw_conf_diag(l, MW_CONF_ERROR, line, key.at, key.len,
	             "unknown setting '%s'%s%s%s%s%s", name,
	             f->open.file ? " in section " : "",
	             f->open.file ? f->kind->name : "", near ? "; did you mean '" : "",
	             near ? near : "", near ? "'?" : "");
}

static void
setting(struct mw_conf_load *l, struct mw_conf_file *f, const struct mw_conf_line *line,
        size_t from, size_t eq, size_t to)
{
	struct mw_conf_span key = mw_conf_trim(line->text, from, eq);
	struct mw_conf_span value = mw_conf_trim(line->text, eq + 1, to);
	struct mw_str name = mw_str(line->text.p + key.at, key.len);
	struct target t = {0};

	if (key.len == 0) {
		mw_conf_diag(l, MW_CONF_ERROR, line, eq, 1,
		             "the name of the setting is missing before '='");
		return;
	}
	if (f->open.file) {
		t.opt = mw_conf_find(f->kind->opts, f->kind->n_opts, name);
		t.base = f->section;
		if (t.opt)
			t.origin = &f->set[t.opt - f->kind->opts];
	} else {
		t.opt = mw_conf_find(mw_conf_opts, MW_CONF_N_OPTS, name);
		t.base = l->conf;
		if (t.opt)
			t.origin = &l->set[t.opt - mw_conf_opts];
	}
	if (!t.opt)
		unknown_key(l, f, line, key);
	else if (t.opt->type == MW_CONF_LIST)
		set_list(l, line, &t, value);
	else
		set_scalar(l, line, &t, key, value);
}

static const struct mw_conf_section *
kind_of(struct mw_str word)
{
	for (size_t i = 0; i < MW_CONF_N_SECTIONS; i++)
		if (mw_str_eq(mw_strz(mw_conf_sections[i].name), word))
			return &mw_conf_sections[i];
	return NULL;
}

/* Neither '=' nor a brace: say what is most likely missing. */
static void
no_equals(struct mw_conf_load *l, const struct mw_conf_line *line, struct mw_conf_span s)
{
	size_t n = 0;

	while (n < s.len && !mw_conf_is_blank(line->text.p[s.at + n]))
		n++;
	struct mw_str word = mw_str(line->text.p + s.at, n);
	const struct mw_conf_section *k = kind_of(word);
	if (k)
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, s.len,
		             "a section begins '%s NAME {' on one line", k->name);
	else if (mw_conf_find(mw_conf_opts, MW_CONF_N_OPTS, word) ||
	         mw_conf_section_with(word))
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, s.len,
		             "'=' is missing after '%.*s'", (int)n, word.p);
	else
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, s.len,
		             "expected 'key = value'");
}

static void
close_section(struct mw_conf_load *l, struct mw_conf_file *f)
{
	bool retain = strcmp(f->kind->name, "retain") == 0;
	const struct mw_conf_retain *r = retain ? f->section : NULL;

	if (r && !r->keep_us && !r->max_size && l->errors == f->errors)
		mw_conf_diag(l, MW_CONF_ERROR, &f->open, 0, f->open.text.n,
		             "section retain %s needs 'keep' or 'max_size'", r->name);
	f->open.file = NULL;
}

/* The kind of section that a line begins, or NULL, told. */
static const struct mw_conf_section *
section_kind(struct mw_conf_load *l, const struct mw_conf_line *line,
             struct mw_conf_span word)
{
	const char *names[MW_CONF_N_SECTIONS];
	const struct mw_conf_section *k =
	    kind_of(mw_str(line->text.p + word.at, word.len));

	if (k)
		return k;
	for (size_t i = 0; i < MW_CONF_N_SECTIONS; i++)
		names[i] = mw_conf_sections[i].name;
	const char *text = mw_conf_keep_span(l, line, word);
	const char *near = mw_nearest(text, names, MW_COUNT(names));
	mw_conf_diag(l, MW_CONF_ERROR, line, word.at, MW_MAX(word.len, (size_t)1),
	             "unknown section '%s'%s%s%s", text, near ? "; did you mean '" : "",
	             near ? near : "", near ? "'?" : "");
	return NULL;
}

/* A section that fits everything leaves nothing to those behind it. */
static void
shadowed(struct mw_conf_load *l, const struct mw_conf_line *line,
         struct mw_conf_span head)
{
	const struct mw_conf *c = l->conf;
	const struct mw_conf_capture *last =
	    c->n_capture ? &c->capture[c->n_capture - 1] : NULL;

	if (last && last->match.n == 0)
		mw_conf_diag(l, MW_CONF_WARNING, line, head.at, head.len,
		             "this section is never asked: 'capture %s' before it has "
		             "no 'match' and fits every message",
		             last->name);
}

/* Opens `retain NAME {` or its like; false if it cannot be one. */
static bool
open_section(struct mw_conf_load *l, struct mw_conf_file *f,
             const struct mw_conf_line *line, struct mw_conf_span head)
{
	struct mw_conf *c = l->conf;
	size_t n = 0;

	while (n < head.len && !mw_conf_is_blank(line->text.p[head.at + n]))
		n++;
	struct mw_conf_span name =
	    mw_conf_trim(line->text, head.at + n, head.at + head.len);
	const struct mw_conf_section *k =
	    section_kind(l, line, (struct mw_conf_span){head.at, n});
	if (!k)
		return false;
	const char *text = name.len ? mw_conf_unquote(l, line, name) : "";
	if (!text || !*text || (text[0] != '"' && strpbrk(text, " \t\""))) {
		mw_conf_diag(l, MW_CONF_ERROR, line, head.at, head.len,
		             "section %s needs a name, one word: %s NAME {", k->name,
		             k->name);
		return false;
	}
	for (size_t i = 0; i < mw_conf_section_count(c, k); i++)
		if (strcmp(mw_conf_section_name(c, k, i), text) == 0) {
			mw_conf_diag(l, MW_CONF_ERROR, line, name.at, name.len,
			             "there is a section %s %s already", k->name, text);
			return false;
		}
	if (k == kind_of(MW_STR("capture")))
		shadowed(l, line, head);
	f->kind = k;
	f->section = mw_conf_section_add(c, k, text);
	if (!f->section) {
		l->nomem = true;
		return false;
	}
	memset(f->set, 0, sizeof f->set);
	f->open = *line;
	f->errors = l->errors;
	/* The excerpt is wanted at the end of the section: the line must live on. */
	f->open.text.p = mw_conf_keep(l, line->text.p, line->text.n);
	f->open.text.n = strlen(f->open.text.p);
	return true;
}

static void statements(struct mw_conf_load *l, struct mw_conf_file *f,
                       const struct mw_conf_line *line, size_t from, size_t to);

static void
begin_section(struct mw_conf_load *l, struct mw_conf_file *f,
              const struct mw_conf_line *line, size_t from, size_t brace, size_t to)
{
	struct mw_conf_span head = mw_conf_trim(line->text, from, brace);

	if (f->open.file) {
		mw_conf_diag(
		    l, MW_CONF_ERROR, line, brace, 1,
		    "a section cannot stand in another; is the '}' of the one at "
		    "line %u missing?",
		    f->open.no);
		f->skip = 1;
	} else if (head.len == 0) {
		mw_conf_diag(l, MW_CONF_ERROR, line, brace, 1,
		             "'{' without a section: retain NAME {");
		f->skip = 1;
	} else if (!open_section(l, f, line, head)) {
		f->skip = 1;
	}
	if (brace + 1 < to)
		statements(l, f, line, brace + 1, to);
}

static void
end_section(struct mw_conf_load *l, struct mw_conf_file *f,
            const struct mw_conf_line *line, size_t at)
{
	if (f->skip)
		f->skip--;
	else if (f->open.file)
		close_section(l, f);
	else
		mw_conf_diag(l, MW_CONF_ERROR, line, at, 1, "'}' closes no section");
}

/* Where the word before the '=' at `eq` begins, if it is a setting of the open section
 * and something stands before it; else 0. */
static size_t
word_before(const struct mw_conf_file *f, struct mw_str t, size_t from, size_t eq)
{
	size_t end = eq;

	while (end > from && mw_conf_is_blank(t.p[end - 1]))
		end--;
	size_t at = end;
	while (at > from && !mw_conf_is_blank(t.p[at - 1]))
		at--;
	bool known =
	    mw_conf_find(f->kind->opts, f->kind->n_opts, mw_str(t.p + at, end - at));
	return known && mw_conf_trim(t, from, at).len ? at : 0;
}

/* One statement without the braces that close a section after it. */
static void
statement(struct mw_conf_load *l, struct mw_conf_file *f, const struct mw_conf_line *line,
          size_t from, size_t to)
{
	struct mw_conf_span s = mw_conf_trim(line->text, from, to);
	size_t end = s.at + s.len;
	size_t eq = mw_conf_find_plain(line->text, s.at, end, "=");

	if (s.len == 0 || f->skip)
		return;
	if (eq == end) {
		no_equals(l, line, s);
		return;
	}
	if (f->open.file && f->open.no == line->no) {
		/* retain x { keep = 1d max_size = 1G } */
		size_t more = mw_conf_find_plain(line->text, eq + 1, end, "=");
		size_t next = more < end ? word_before(f, line->text, eq + 1, more) : 0;
		if (more < end && !next) {
			mw_conf_diag(l, MW_CONF_ERROR, line, more, 1,
			             "two settings on one line need a ';' between them");
			return;
		}
		if (next) {
			setting(l, f, line, s.at, eq, next);
			statement(l, f, line, next, end);
			return;
		}
	}
	setting(l, f, line, s.at, eq, end);
}

/* A line, or what follows a '{': inside a section ';' ends a statement, '}' the section.
 */
static void
statements(struct mw_conf_load *l, struct mw_conf_file *f,
           const struct mw_conf_line *line, size_t from, size_t to)
{
	struct mw_str t = line->text;

	while (from < to) {
		struct mw_conf_span s = mw_conf_trim(t, from, to);
		size_t end = s.at + s.len, stop;
		if (s.len == 0)
			return;
		if (t.p[s.at] == '}') {
			end_section(l, f, line, s.at);
			from = s.at + 1;
			if (!f->open.file && !f->skip && mw_conf_trim(t, from, to).len) {
				mw_conf_diag(l, MW_CONF_ERROR, line,
				             mw_conf_trim(t, from, to).at,
				             mw_conf_trim(t, from, to).len,
				             "nothing may follow '}'");
				return;
			}
			continue;
		}
		stop = mw_conf_find_plain(t, s.at, end, "={");
		if (stop < end && t.p[stop] == '{') {
			if (f->skip) {
				f->skip++;
				from = stop + 1;
				continue;
			}
			begin_section(l, f, line, s.at, stop, end);
			return;
		}
		stop = f->open.file || f->skip ? mw_conf_find_plain(t, s.at, end, ";}")
		                               : end;
		statement(l, f, line, s.at, stop);
		from = stop < end && t.p[stop] == ';' ? stop + 1 : stop;
	}
}

static void
directive(struct mw_conf_load *l, struct mw_conf_file *f, const struct mw_conf_line *line,
          struct mw_conf_span s)
{
	static const char *const known[] = {"!include"};
	size_t n = 0;

	while (n < s.len && !mw_conf_is_blank(line->text.p[s.at + n]))
		n++;
	struct mw_conf_span word = {s.at, n};
	struct mw_conf_span arg = mw_conf_trim(line->text, s.at + n, s.at + s.len);
	if (!mw_conf_span_is(line->text, word, "!include")) {
		const char *name = mw_conf_keep_span(l, line, word);
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, n, "unknown directive '%s'%s",
		             name,
		             mw_nearest(name, known, 1) ? "; did you mean '!include'?"
		                                        : "");
		return;
	}
	if (f->open.file) {
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, n,
		             "!include cannot stand in a section; is the '}' of the one "
		             "at line %u missing?",
		             f->open.no);
		return;
	}
	const char *pattern = arg.len ? mw_conf_unquote(l, line, arg) : "";
	if (pattern && !*pattern)
		mw_conf_diag(l, MW_CONF_ERROR, line, s.at, s.len,
		             "!include needs the name of a file, or a pattern");
	else if (pattern)
		mw_conf_include(l, f, line, arg.at, arg.len, pattern);
}

/* Bytes that no line of a text file has. */
static bool
is_text(struct mw_conf_load *l, const struct mw_conf_line *line)
{
	struct mw_str t = line->text;

	if (t.n > MW_CONF_LINE) {
		mw_conf_diag(l, MW_CONF_ERROR, line, MW_CONF_LINE, 1,
		             "the line has more than %d bytes; a list can be given in "
		             "several lines",
		             MW_CONF_LINE);
		return false;
	}
	for (size_t i = 0; i < t.n; i++) {
		unsigned char c = (unsigned char)t.p[i];
		if (c == 0) {
			mw_conf_diag(l, MW_CONF_ERROR, line, i, 1,
			             "the line holds a NUL byte; is this a text file?");
			return false;
		}
		if ((c < ' ' && c != '\t') || c == 0x7f) {
			mw_conf_diag(l, MW_CONF_ERROR, line, i, 1,
			             "the line holds a control character (0x%02x)", c);
			return false;
		}
	}
	return true;
}

static void
parse_line(struct mw_conf_load *l, struct mw_conf_file *f,
           const struct mw_conf_line *line)
{
	size_t end;

	if (!is_text(l, line) || !mw_conf_content_end(l, line, &end))
		return;
	struct mw_conf_span s = mw_conf_trim(line->text, 0, end);
	if (s.len == 0)
		return;
	if (line->text.p[s.at] == '!' && !f->skip)
		directive(l, f, line, s);
	else
		statements(l, f, line, s.at, s.at + s.len);
}

void
mw_conf_parse_text(struct mw_conf_load *l, struct mw_conf_file *f, struct mw_str text)
{
	struct mw_conf_line line = {f->name, 0, {NULL, 0}};

	if (mw_str_starts(text, MW_STR("\xef\xbb\xbf")))
		text = mw_str(text.p + 3, text.n - 3);
	while (text.n && !l->nomem) {
		const char *nl = memchr(text.p, '\n', text.n);
		size_t n = nl ? (size_t)(nl - text.p) : text.n;
		line.no++;
		line.text = mw_str(text.p, n && text.p[n - 1] == '\r' ? n - 1 : n);
		parse_line(l, f, &line);
		n += nl != NULL;
		text = mw_str(text.p + n, text.n - n);
	}
	if (f->open.file)
		mw_conf_diag(l, MW_CONF_ERROR, &f->open, 0, f->open.text.n,
		             "the section is not closed: '}' is missing");
	f->open.file = NULL;
}
