#include "conf/conf.h"

#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef MW_CONF_FILE
#define MW_CONF_FILE "/etc/mailwal/mailwal.conf"
#endif

enum {
	ARENA = 64 << 20
};

static struct mw_conf *
defaults(void)
{
	struct mw_conf *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	for (size_t i = 0; i < MW_CONF_N_OPTS; i++)
		if (mw_conf_value_default(c, &mw_conf_opts[i]) < 0) {
			mw_conf_free(c);
			return NULL;
		}
	return c;
}

void
mw_conf_free(struct mw_conf *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < MW_CONF_N_OPTS; i++)
		mw_conf_value_free(c, &mw_conf_opts[i]);
	mw_conf_sections_free(c);
	free(c->file);
	free(c);
}

void
mw_conf_finish(struct mw_conf_load *l)
{
	const struct mw_conf_origin *o = &l->set[MW_CONF_N_milter_listen];
	struct mw_conf_line line = {o->file, 0, {NULL, 0}};

	/* Unless something else was wrong with it. */
	if (o->file && l->conf->milter_listen.n == 0 && l->errors == 0)
		mw_conf_diag(l, MW_CONF_ERROR, &line, 0, 0,
		             "milter_listen (line %u) names no place to listen in",
		             o->line);
}

/* A class that is given to no mail any more is no mistake: older records have it. */
static void
foreign_classes(struct mw_conf_load *l, const char *file)
{
	const struct mw_conf *c = l->conf;
	const struct mw_conf_line line = {.file = file};

	for (size_t i = 0; i < c->n_retain; i++)
		for (size_t k = 0; k < c->retain[i].match.n; k++) {
			const char *word = c->retain[i].match.v[k];
			size_t n = 0;
			if (strncmp(word, "class:", 6) != 0)
				continue;
			while (n < c->n_capture &&
			       strcmp(c->capture[n].name, word + 6) != 0)
				n++;
			if (n == c->n_capture)
				mw_conf_diag(l, MW_CONF_WARNING, &line, 0, 0,
				             "retain %s: there is no section 'capture "
				             "%s', so no new mail is of that class",
				             c->retain[i].name, word + 6);
		}
}

static int
load_file(const char *file, struct mw_conf_load *l, struct mw_err *err)
{
	int r;

	l->arena = mw_arena_new(ARENA);
	l->conf->file = strdup(file);
	if (!l->arena || !l->conf->file)
		return mw_fail(err, MW_ENOMEM, "out of memory reading %s", file);
	r = mw_conf_parse_file(l, file, err);
	if (r < 0)
		return r;
	if (l->nomem)
		return mw_fail(err, MW_ENOMEM, "out of memory reading %s", file);
	foreign_classes(l, file);
	mw_conf_probe_all(l);
	mw_conf_finish(l);
	if (!l->errors)
		return 0;
	(void)mw_fail(err, MW_ECONF, "%s: %u error%s", file, l->errors,
	              l->errors == 1 ? "" : "s");
	if (l->warnings)
		(void)mw_fail(err, MW_ECONF, "%s: %u error%s, %u warning%s", file,
		              l->errors, l->errors == 1 ? "" : "s", l->warnings,
		              l->warnings == 1 ? "" : "s");
	return MW_ECONF;
}

int
mw_conf_load(const char *file, struct mw_conf **ret, struct mw_buf *report,
             struct mw_err *err)
{
	static const struct mw_conf_load_opts plain;

	return mw_conf_load_checked(file, &plain, ret, report, err);
}

int
mw_conf_load_checked(const char *file, const struct mw_conf_load_opts *o,
                     struct mw_conf **ret, struct mw_buf *report, struct mw_err *err)
{
	struct mw_buf unwanted = {0};
	struct mw_conf_load l = {.o = o,
	                         .conf = defaults(),
	                         .report = report ? report : &unwanted};
	int r = 0;

	if (!l.conf)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (file)
		r = load_file(file, &l, err);
	mw_arena_free(l.arena);
	mw_buf_free(&unwanted);
	if (r < 0) {
		mw_conf_free(l.conf);
		return r;
	}
	*ret = l.conf;
	return 0;
}

const char *
mw_conf_default_file(void)
{
	const char *env = getenv("MAILWAL_CONFIG");

	if (env && *env)
		return env;
	return access(MW_CONF_FILE, F_OK) == 0 ? MW_CONF_FILE : NULL;
}

/* libmilter hears of it before it runs, and no more. */
static bool
for_libmilter(const struct mw_conf *old, const struct mw_conf_opt *o)
{
	return old->milter_engine == 1 && strcmp(o->name, "milter_idle_timeout") == 0;
}

int
mw_conf_reloadable(const struct mw_conf *old, const struct mw_conf *new,
                   struct mw_err *err)
{
	MW_BUF_AUTO names = {0};
	for (size_t i = 0; i < MW_CONF_N_OPTS; i++) {
		const struct mw_conf_opt *o = &mw_conf_opts[i];
		if (mw_conf_value_equal(old, new, o) ||
		    ((o->flags & MW_CONF_RELOAD) && !for_libmilter(old, o)))
			continue;
		mw_buf_printf(&names, "%s%s", names.n ? ", " : "", o->name);
	}
	if (names.n == 0 && !names.failed)
		return 0;
	(void)mw_fail(err, MW_ECONF,
	              "%s cannot change while mailwald runs; all settings stay as they "
	              "were",
	              mw_buf_cstr(&names));
	return mw_err_hint(err, "restart mailwald, or take the change back");
}
