/* print.c - what comes out of the table again: show, explain, the sample file. */
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Breaks text at words so that no line is longer than `width`, prefix included. */
static void
put_wrapped(struct mw_buf *out, const char *prefix, const char *text, size_t width)
{
	size_t col = 0, n;

	while (*text) {
		n = strcspn(text, " ");
		if (col && col + 1 + n > width) {
			mw_buf_putc(out, '\n');
			col = 0;
		}
		if (col == 0) {
			mw_buf_puts(out, prefix);
			col = strlen(prefix);
		} else {
			mw_buf_putc(out, ' ');
			col++;
		}
		mw_buf_put(out, text, n);
		col += n;
		text += n;
		text += strspn(text, " ");
	}
	mw_buf_putc(out, '\n');
}

/* A secret is never shown; the name of the file that holds it may be. */
static bool
is_hidden(const struct mw_conf_opt *o)
{
	return (o->flags & MW_CONF_SECRET) && o->type != MW_CONF_PATH;
}

static void
put_value(const void *base, const struct mw_conf_opt *o, struct mw_buf *out)
{
	if (is_hidden(o))
		mw_buf_puts(out, "(hidden)");
	else
		mw_conf_value_text(base, o, out);
}

static void
put_setting(const void *base, const struct mw_conf_opt *o, const char *indent,
            struct mw_buf *out)
{
	mw_buf_printf(out, "%s%s =", indent, o->name);
	size_t n = out->n;
	mw_buf_putc(out, ' ');
	put_value(base, o, out);
	if (out->n == n + 1 && !out->failed)
		out->n = n; /* an empty list: no blank at the end of the line */
	mw_buf_putc(out, '\n');
}

/* A section, with what differs from the defaults. */
static void
put_section(const struct mw_conf *c, const struct mw_conf_section *k, size_t i,
            struct mw_buf *out)
{
	const void *p = mw_conf_section_at(c, k, i);

	mw_buf_printf(out, "%s %s {\n", k->name, mw_conf_section_name(c, k, i));
	for (size_t o = 0; o < k->n_opts; o++) {
		MW_BUF_AUTO value = {0};
		mw_conf_value_text(p, &k->opts[o], &value);
		if (strcmp(mw_buf_cstr(&value), k->opts[o].def) != 0)
			put_setting(p, &k->opts[o], "  ", out);
	}
	mw_buf_puts(out, "}\n");
}

void
mw_conf_print(const struct mw_conf *c, bool changed_only, struct mw_buf *out)
{
	struct mw_conf *def = NULL;

	if (changed_only && mw_conf_load(NULL, &def, NULL, NULL) < 0) {
		out->failed = true;
		return;
	}
	for (size_t i = 0; i < MW_CONF_N_OPTS; i++)
		if (!def || !mw_conf_value_equal(c, def, &mw_conf_opts[i]))
			put_setting(c, &mw_conf_opts[i], "", out);
	for (size_t s = 0; s < MW_CONF_N_SECTIONS; s++)
		for (size_t i = 0; i < mw_conf_section_count(c, &mw_conf_sections[s]);
		     i++)
			put_section(c, &mw_conf_sections[s], i, out);
	mw_conf_free(def);
}

/* "SIZE, from 1M to 4G", "tempfail or accept" */
static void
put_kind(const struct mw_conf_opt *o, struct mw_buf *out)
{
	if (o->type == MW_CONF_ENUM) {
		for (const char *p = o->max; *p; p++) {
			if (*p != '|')
				mw_buf_putc(out, *p);
			else
				mw_buf_puts(out, strchr(p + 1, '|') ? ", " : " or ");
		}
		return;
	}
	mw_buf_puts(out,
	            o->type == MW_CONF_BOOL ? "yes or no" : mw_conf_type_name(o->type));
	if (*o->min && strcmp(o->min, "0") != 0 && *o->max)
		mw_buf_printf(out, ", from %s to %s", o->min, o->max);
	else if (*o->min && strcmp(o->min, "0") != 0)
		mw_buf_printf(out, ", at least %s", o->min);
	else if (*o->max)
		mw_buf_printf(out, ", at most %s", o->max);
}

static void
put_explained(const struct mw_conf_opt *o, const char *section, struct mw_buf *out)
{
	mw_buf_printf(out, "%s = ", o->name);
	put_kind(o, out);
	mw_buf_putc(out, '\n');
	put_wrapped(out, "    ", o->text, 78);
	mw_buf_printf(out, "    Default: %s\n",
	              !*o->def                    ? "empty"
	              : section && *o->def == '0' ? "none"
	                                          : o->def);
	mw_buf_printf(out, "    Takes effect: %s\n",
	              o->flags & MW_CONF_RELOAD ? "on reload" : "on restart");
	if (section)
		mw_buf_printf(out, "    Stands in: a section '%s NAME { }'\n", section);
	mw_buf_printf(out, "    Since: mailwal %s\n", o->since);
}

int
mw_conf_explain(const char *key, struct mw_buf *out, struct mw_err *err)
{
	struct mw_str name = mw_strz(key), kind, rest;
	const struct mw_conf_opt *o = mw_conf_find(mw_conf_opts, MW_CONF_N_OPTS, name);
	bool found = o != NULL;

	if (o)
		put_explained(o, NULL, out);
	if (!mw_str_cut(name, '.', &kind, &rest))
		kind = rest = name;
	/* As `config show --json` names it: the section's own name says nothing here. */
	const char *last = rest.p == key ? NULL : memrchr(rest.p, '.', rest.n);
	if (last)
		rest = mw_str(last + 1, rest.n - (size_t)(last + 1 - rest.p));
	/* retain: all of it; retain.keep and retain.default.keep; keep: wherever there is
	 * one */
	for (size_t s = 0; s < MW_CONF_N_SECTIONS; s++) {
		const struct mw_conf_section *k = &mw_conf_sections[s];
		bool named = mw_str_eq(mw_strz(k->name), kind),
		     all = named && rest.p == key;
		for (size_t i = 0; i < k->n_opts; i++) {
			bool same = mw_str_eq(mw_strz(k->opts[i].name), rest);
			if (!all && !(same && (named || rest.p == key)))
				continue;
			put_explained(&k->opts[i], k->name, out);
			found = true;
		}
	}
	if (found)
		return 0;
	(void)mw_fail(err, MW_ENOTFOUND, "there is no setting '%s'", key);
	const char *near = mw_conf_nearest_opt(mw_conf_opts, MW_CONF_N_OPTS, key);
	if (near)
		(void)mw_err_hint(err, "did you mean '%s'?", near);
	return MW_ENOTFOUND;
}

void
mw_conf_sample(struct mw_buf *out)
{
	mw_buf_puts(out,
	            "# mailwal.conf - see mailwal.conf(5).\n"
	            "#\n"
	            "# Everything has a default, shown here behind a '#'. Take it away "
	            "and change what\n"
	            "# you need; 'mailwal config check' looks at the result, 'mailwal "
	            "config show -n'\n"
	            "# prints what differs from the defaults.\n");
	for (size_t i = 0; i < MW_CONF_N_OPTS; i++) {
		const struct mw_conf_opt *o = &mw_conf_opts[i];
		mw_buf_putc(out, '\n');
		put_wrapped(out, "# ", o->text, 88);
		if (o->type == MW_CONF_ENUM) {
			mw_buf_puts(out, "# One of: ");
			put_kind(o, out);
			mw_buf_puts(out, ".\n");
		}
		mw_buf_printf(out, "#%s =%s%s\n", o->name, *o->def ? " " : "", o->def);
	}
	for (size_t i = 0; i < MW_CONF_N_SECTIONS; i++) {
		const struct mw_conf_section *k = &mw_conf_sections[i];
		mw_buf_putc(out, '\n');
		put_wrapped(out, "# ", k->text, 88);
		mw_buf_printf(out, "#%s default {\n", k->name);
		for (size_t o = 0; o < k->n_opts; o++) {
			put_wrapped(out, "#  # ", k->opts[o].text, 88);
			mw_buf_printf(out, "#  %s = %s\n", k->opts[o].name,
			              k->example[o]);
		}
		mw_buf_puts(out, "#}\n");
	}
	mw_buf_puts(out, "\n# More files; a pattern is read in order of the names.\n"
	                 "#!include conf.d/*.conf\n");
}

void
mw_conf_each(const struct mw_conf *c,
             void (*cb)(void *arg, const char *name, const char *value, const char *def),
             void *arg)
{
	MW_BUF_AUTO b = {0};

	for (size_t i = 0; i < MW_CONF_N_OPTS; i++) {
		mw_buf_clear(&b);
		if (mw_conf_opts[i].type == MW_CONF_STRING &&
		    !is_hidden(&mw_conf_opts[i]))
			mw_buf_puts(&b, *(char *const *)((const char *)c +
			                                 mw_conf_opts[i].offset));
		else
			put_value(c, &mw_conf_opts[i], &b);
		cb(arg, mw_conf_opts[i].name, mw_buf_cstr(&b), mw_conf_opts[i].def);
	}
}

void
mw_conf_each_section(const struct mw_conf *c,
                     void (*cb)(void *arg, const char *section, const char *word,
                                const char *name, const char *value, const char *def),
                     void *arg)
{
	MW_BUF_AUTO b = {0};

	for (size_t s = 0; s < MW_CONF_N_SECTIONS; s++) {
		const struct mw_conf_section *k = &mw_conf_sections[s];
		for (size_t i = 0; i < mw_conf_section_count(c, k); i++)
			for (size_t o = 0; o < k->n_opts; o++) {
				mw_buf_clear(&b);
				put_value(mw_conf_section_at(c, k, i), &k->opts[o], &b);
				cb(arg, k->name, mw_conf_section_name(c, k, i),
				   k->opts[o].name, mw_buf_cstr(&b), k->opts[o].def);
			}
	}
}

void
mw_conf_notes(const struct mw_conf *c, struct mw_buf *out)
{
	if (c->local_domains.n == 0)
		mw_buf_puts(out,
		            "note: local_domains is not set: every recipient counts as "
		            "local, so that mail sent\n"
		            "      to other sites would be put back here\n");
	if (c->recovery_key.n == 0)
		mw_buf_puts(out, "note: recovery_key is not set: whoever can read the "
		                 "journal's files can read the mail\n");
	if (c->on_failure == MW_ON_FAILURE_ACCEPT)
		mw_buf_puts(out, "note: on_failure = accept: a message that cannot be "
		                 "journaled is delivered without a record\n");
}
