/* setup_dovecot.c - a Dovecot configuration as doveconf(1) gives it. */
#include "replay/setup_dovecot.h"

#include "journal/base/util.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

/* "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf"; warnings may stand before it. */
int
mw_dovecot_header(struct mw_dovecot *d, struct mw_str text, struct mw_err *err)
{
	struct mw_str line, version, path = {0}, rest = text;
	bool seen = false;
	while (!seen && mw_str_cut(rest, '\n', &line, &rest))
		seen = line.n > 3 && line.p[0] == '#' && line.p[1] == ' ' &&
		       isdigit((unsigned char)line.p[2]) &&
		       mw_str_cut(mw_str(line.p + 2, line.n - 2), ' ', &version, &path) &&
		       mw_str_cut(path, ' ', &line, &path);
	path = mw_str_trim(path);
	if (!seen || !path.n || path.p[0] != '/')
		return mw_fail(err, MW_EUNAVAIL,
		               "doveconf does not say which version and file it read");
	d->version = mw_arena_str(d->arena, version).p;
	d->path = mw_arena_str(d->arena, path).p;
	const char *slash = d->path ? strrchr(d->path, '/') : NULL;
	d->dir = slash
	             ? mw_arena_printf(d->arena, "%.*s", (int)(slash - d->path), d->path)
	             : NULL;
	if (!d->version || !d->dir)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (strncmp(d->version, "2.2.", 4) == 0 || strncmp(d->version, "2.3.", 4) == 0)
		return 0;
	(void)mw_fail(err, MW_EUNAVAIL,
	              "Dovecot %s: its settings are not those of 2.2 and 2.3, which are "
	              "the ones known here",
	              d->version);
	return mw_err_hint(err, "a master user is all that replay needs: a passdb with "
	                        "master = yes");
}

/* Lines "name=value"; what has a blank before the sign is a warning. */
int
mw_dovecot_settings(struct mw_dovecot *d, struct mw_str text, struct mw_err *err)
{
	struct mw_str line, name, value, rest = text;
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		if (!mw_str_cut(line, '=', &name, &value) || !name.n ||
		    memchr(name.p, ' ', name.n))
			continue;
		struct mw_pair *v =
		    mw_arena_grow(d->arena, d->set, &d->cap_set, d->n_set + 1, sizeof *v);
		struct mw_str n = mw_arena_str(d->arena, name),
		              t = mw_arena_str(d->arena, value);
		if (!v || !n.p || !t.p)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		d->set = v;
		d->set[d->n_set++] = (struct mw_pair){n.p, t.p};
	}
	return 0;
}

/* doveconf [-c FILE] and these words, up to a NULL. */
static int
doveconf(const struct mw_dovecot *d, const char *const word[5], struct mw_buf *out,
         struct mw_err *err)
{
	const char *v[8] = {"doveconf"};
	char *argv[MW_COUNT(v) + 1] = {NULL};
	size_t n = 1;
	if (d->config) {
		v[n++] = "-c";
		v[n++] = d->config;
	}
	for (size_t i = 0; word[i]; i++)
		v[n++] = word[i];
	for (size_t i = 0; i < n; i++) {
		argv[i] = mw_arena_strdup(d->arena, v[i]);
		if (!argv[i])
			return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return mw_setup_run(argv, out, err);
}

/* mail_plugins of another protocol. */
static int
plugins_of(const struct mw_dovecot *d, const char *filter, const char **ret,
           struct mw_err *err)
{
	MW_BUF_AUTO out = {0};
	int r = doveconf(d, (const char *const[5]){"-f", filter, "-h", "mail_plugins"},
	                 &out, err);
	if (r)
		return r;
	struct mw_str line = {0}, rest = mw_str_trim(mw_buf_str(&out));
	while (mw_str_cut(rest, '\n', &line, &rest))
		; /* warnings come first */
	*ret = mw_arena_str(d->arena, rest).p;
	return *ret ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

int
mw_dovecot_load(const struct mw_conf *conf, const char *config, struct mw_arena *a,
                struct mw_dovecot *ret, struct mw_err *err)
{
	MW_BUF_AUTO head = {0}, all = {0};
	*ret = (struct mw_dovecot){
	    .arena = a, .conf = conf, .config = config, .lmtp = "", .lda = ""};
	int r = doveconf(ret, (const char *const[5]){"-n"}, &head, err);
	if (!r)
		r = mw_dovecot_header(ret, mw_buf_str(&head), err);
	if (!r)
		r = doveconf(ret, (const char *const[5]){"-S", "-f", "protocol=imap"},
		             &all, err);
	if (!r)
		r = mw_dovecot_settings(ret, mw_buf_str(&all), err);
	if (!r)
		r = plugins_of(ret, "protocol=lmtp", &ret->lmtp, err);
	return r ? r : plugins_of(ret, "protocol=lda", &ret->lda, err);
}

/* ---- looking ---- */

static const char *
plain(const struct mw_dovecot *d, const char *name)
{
	for (size_t i = 0; i < d->n_set; i++)
		if (strcmp(d->set[i].name, name) == 0)
			return d->set[i].value;
	return "";
}

const char *
mw_dovecot_get(const struct mw_dovecot *d, const char *fmt, ...)
{
	MW_AUTOFREE char *name = NULL;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&name, fmt, ap);
	va_end(ap);
	if (n < 0) {
		name = NULL;
		return "";
	}
	const char *value = plain(d, name);
	return value[0] == '$' && !strchr(value, ' ') ? plain(d, value + 1) : value;
}

const char *
mw_dovecot_next(const struct mw_dovecot *d, const char **rest)
{
	*rest += strspn(*rest, " ");
	size_t n = strcspn(*rest, " ");
	const char *word = n ? mw_arena_printf(d->arena, "%.*s", (int)n, *rest) : NULL;
	*rest += n;
	return word;
}

bool
mw_dovecot_db(const struct mw_dovecot *d, const char *kind, const char **rest,
              struct mw_dovecot_db *ret)
{
	const char *n = mw_dovecot_next(d, rest);
	if (!n)
		return false;
	*ret = (struct mw_dovecot_db){
	    .driver = mw_dovecot_get(d, "%s/%s/driver", kind, n),
	    .args = mw_dovecot_get(d, "%s/%s/args", kind, n),
	    .result_success = mw_dovecot_get(d, "%s/%s/result_success", kind, n),
	    .master = strcmp(mw_dovecot_get(d, "%s/%s/master", kind, n), "yes") == 0,
	    .pass = strcmp(mw_dovecot_get(d, "%s/%s/pass", kind, n), "yes") == 0,
	    .deny = strcmp(mw_dovecot_get(d, "%s/%s/deny", kind, n), "yes") == 0,
	};
	return true;
}

void
mw_dovecot_passwd_file(const struct mw_dovecot *d, const char *args,
                       struct mw_passwd_file *ret)
{
	const struct {
		const char *name;
		const char **value;
	} opt[] = {{"scheme=", &ret->scheme}, {"username_format=", &ret->format}};
	*ret = (struct mw_passwd_file){"", "", ""};
	for (bool more = true; more;) {
		more = false;
		args += strspn(args, " ");
		for (size_t i = 0; i < MW_COUNT(opt); i++) {
			size_t n = strlen(opt[i].name);
			if (strncmp(args, opt[i].name, n) != 0)
				continue;
			size_t end = n + strcspn(args + n, " ");
			const char *v =
			    mw_arena_printf(d->arena, "%.*s", (int)(end - n), args + n);
			*opt[i].value = v ? v : "";
			args += end;
			more = true;
		}
	}
	ret->path = args;
}

bool
mw_dovecot_can_ask(const struct mw_dovecot *d)
{
	/* These know a user only by his password. */
	static const char *const blind[] = {"pam", "bsdauth", "imap", "oauth2"};
	const char *rest = mw_dovecot_get(d, "passdb");
	struct mw_dovecot_db db;
	while (mw_dovecot_db(d, "passdb", &rest, &db)) {
		bool can = !db.master && !db.deny;
		for (size_t i = 0; i < MW_COUNT(blind); i++)
			can = can && strcmp(db.driver, blind[i]) != 0;
		if (can)
			return true;
	}
	return false;
}

bool
mw_dovecot_acl_bars(const struct mw_dovecot *d)
{
	return mw_setup_has_word(mw_dovecot_get(d, "mail_plugins"), "acl") &&
	       !mw_dovecot_get(d, "plugin/acl_user")[0];
}
