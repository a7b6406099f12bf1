/* setup_postfix.c - reading a Postfix configuration, and changing it. */
#include "replay/setup.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

/* Everything that mw_postfix_check looks at. Asked by name: that gives the defaults too.
 */
static const char *const wanted[] = {
    "smtpd_milters",
    "non_smtpd_milters",
    "milter_default_action",
    "milter_protocol",
    "internal_mail_filter_classes",
    "enable_long_queue_ids",
    "smtpd_milter_maps",
    "queue_directory",
    "receive_override_options",
    "smtpd_proxy_filter",
    "content_filter",
    "mail_version",
    "compatibility_level",
    "multi_instance_directories",
    "header_checks",
    "body_checks",
    "mime_header_checks",
    "nested_header_checks",
    "milter_header_checks",
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
};

/* postconf [-c DIR] [-o WORD…] FLAG [NAME…] into lines. over: words, a NUL behind each.
 */
static int
ask(const struct mw_postfix *p, const char *flag, const struct mw_buf *over,
    bool with_names, struct mw_buf *out, struct mw_err *err)
{
	enum {
		OTHERS = 5
	};
	size_t n = 0, n_over = 0;
	struct mw_str word, rest = over ? mw_buf_str(over) : MW_STR("");
	for (size_t i = 0; i < rest.n; i++)
		n_over += rest.p[i] == 0;
	MW_AUTOFREE char **argv =
	    calloc(MW_COUNT(wanted) + 2 * n_over + OTHERS, sizeof *argv);
	if (!argv)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	argv[n++] = mw_arena_strdup(p->arena, "postconf");
	if (p->dir) {
		argv[n++] = mw_arena_strdup(p->arena, "-c");
		argv[n++] = mw_arena_strdup(p->arena, p->dir);
	}
	while (mw_str_cut(rest, 0, &word, &rest)) {
		argv[n++] = mw_arena_strdup(p->arena, "-o");
		argv[n++] = mw_arena_strdup(p->arena, word.p);
	}
	if (flag)
		argv[n++] = mw_arena_strdup(p->arena, flag);
	for (size_t i = 0; with_names && i < MW_COUNT(wanted); i++)
		argv[n++] = mw_arena_strdup(p->arena, wanted[i]);
	for (size_t i = 0; i < n; i++)
		if (!argv[i])
			return mw_fail(err, MW_ENOMEM, "out of memory");
	return mw_setup_run(argv, out, err);
}

static bool
next_line(struct mw_str *rest, struct mw_str *ret)
{
	if (rest->n == 0)
		return false;
	if (!mw_str_cut(*rest, '\n', ret, rest)) {
		*ret = *rest;
		rest->n = 0;
	}
	return true;
}

static int
pairs(struct mw_postfix *p, const struct mw_buf *text, struct mw_pair **list, size_t *n,
      size_t *cap, struct mw_err *err)
{
	struct mw_str rest = mw_buf_str(text), line, name, value;
	while (next_line(&rest, &line)) {
		if (!mw_str_cut(line, '=', &name, &value))
			continue;
		struct mw_pair *v =
		    mw_arena_grow(p->arena, *list, cap, *n + 1, sizeof *v);
		name = mw_arena_str(p->arena, mw_str_trim(name));
		value = mw_arena_str(p->arena, mw_str_trim(value));
		if (!v || !name.p || !value.p)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		*list = v;
		(*list)[(*n)++] = (struct mw_pair){name.p, value.p};
	}
	return 0;
}

static struct mw_str
take_word(struct mw_str *line)
{
	*line = mw_str_trim(*line);
	size_t n = 0;
	while (n < line->n && line->p[n] != ' ' && line->p[n] != '\t')
		n++;
	struct mw_str word = mw_str(line->p, n);
	line->p += n;
	line->n -= n;
	return word;
}

/* name type private unpriv chroot wakeup maxproc command; continued lines are indented.
 */
static int
services(struct mw_postfix *p, const struct mw_buf *text, struct mw_err *err)
{
	struct mw_str rest = mw_buf_str(text), line;
	size_t cap = 0;
	/* Before Postfix 3, and where it is to do as then, "-" is a chroot. */
	bool old = strtol(mw_postfix_get(p, "compatibility_level"), NULL, 10) < 1;
	while (next_line(&rest, &line)) {
		if (line.n == 0 || line.p[0] == ' ' || line.p[0] == '\t' ||
		    line.p[0] == '#')
			continue;
		struct mw_str w[8];
		for (size_t i = 0; i < MW_COUNT(w); i++)
			w[i] = take_word(&line);
		if (w[7].n == 0)
			continue;
		struct mw_service *v = mw_arena_grow(p->arena, p->service, &cap,
		                                     p->n_service + 1, sizeof *v);
		struct mw_str name = mw_arena_str(p->arena, w[0]);
		struct mw_str type = mw_arena_str(p->arena, w[1]);
		struct mw_str command = mw_arena_str(p->arena, w[7]);
		if (!v || !name.p || !type.p || !command.p)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		p->service = v;
		v[p->n_service++] =
		    (struct mw_service){name.p, type.p, command.p,
		                        w[4].p[0] == 'y' || (w[4].p[0] == '-' && old)};
	}
	return 0;
}

/* ---- what a service sets by way of another setting ---- */

static bool
is_wanted(const char *name)
{
	for (size_t i = 0; i < MW_COUNT(wanted); i++)
		if (strcmp(wanted[i], name) == 0)
			return true;
	return false;
}

/* Does the text have $name, ${name…} or $(name…)? */
static bool
refers(const char *text, const char *name)
{
	size_t n = strlen(name);
	for (const char *at = text; (at = strchr(at, '$'));) {
		at++;
		at += *at == '{' || *at == '(';
		if (strncmp(at, name, n) == 0 && !strchr("_abcdefghijklmnopqrstuvwxyz"
		                                         "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		                                         "0123456789",
		                                         at[n] ? at[n] : '.'))
			return true;
	}
	return false;
}

/* Its -o of settings that main.cf refers to, as words for postconf. */
static int
words_of(const struct mw_postfix *p, const struct mw_service *s, const char *all,
         struct mw_buf *ret, struct mw_err *err)
{
	const char *prefix = mw_arena_printf(p->arena, "%s/%s/", s->name, s->type);
	if (!prefix)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n_over; i++) {
		const char *name = p->over[i].name;
		if (strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		name += strlen(prefix);
		if (!is_wanted(name) && refers(all, name)) {
			mw_buf_printf(ret, "%s=%s", name, p->over[i].value);
			mw_buf_putc(ret, 0);
		}
	}
	return mw_buf_ok(ret) < 0 ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}

/* What is another value than main.cf's, and not set by the service itself, is its own. */
static int
add_changed(struct mw_postfix *p, const struct mw_service *s, const struct mw_pair *v,
            size_t n, struct mw_err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(v[i].value, mw_postfix_get(p, v[i].name)) == 0 ||
		    mw_postfix_override(p, s, v[i].name))
			continue;
		struct mw_pair *more = mw_arena_grow(p->arena, p->over, &p->cap_over,
		                                     p->n_over + 1, sizeof *more);
		const char *name =
		    mw_arena_printf(p->arena, "%s/%s/%s", s->name, s->type, v[i].name);
		if (!more || !name)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		p->over = more;
		p->over[p->n_over++] = (struct mw_pair){name, v[i].value};
	}
	return 0;
}

/* Services with the same words, as is usual, are one question. */
static int
indirect(struct mw_postfix *p, struct mw_err *err)
{
	MW_BUF_AUTO all = {0};
	MW_BUF_AUTO last = {0};
	struct mw_pair *v = NULL;
	size_t n = 0, cap = 0;
	int r = ask(p, "-n", NULL, false, &all, err);
	for (size_t i = 0; r == 0 && i < p->n_service; i++) {
		MW_BUF_AUTO words = {0};
		MW_BUF_AUTO out = {0};
		r = words_of(p, &p->service[i], mw_buf_cstr(&all), &words, err);
		if (r < 0 || words.n == 0)
			continue;
		if (!mw_str_eq(mw_buf_str(&words), mw_buf_str(&last))) {
			v = NULL;
			n = cap = 0;
			r = ask(p, "-x", &words, true, &out, err);
			if (r == 0)
				r = pairs(p, &out, &v, &n, &cap, err);
			mw_buf_clear(&last);
			mw_buf_putstr(&last, mw_buf_str(&words));
		}
		if (r == 0)
			r = add_changed(p, &p->service[i], v, n, err);
	}
	return r;
}

int
mw_postfix_load(const struct mw_conf *conf, const char *dir, struct mw_arena *a,
                struct mw_postfix *ret, struct mw_err *err)
{
	MW_BUF_AUTO out = {0};
	*ret = (struct mw_postfix){.arena = a, .dir = dir, .conf = conf};
	size_t cap_main = 0, cap_raw = 0;
	int r = ask(ret, "-x", NULL, true, &out, err);
	if (r == 0)
		r = pairs(ret, &out, &ret->main, &ret->n_main, &cap_main, err);
	mw_buf_clear(&out);
	if (r == 0)
		r = ask(ret, NULL, NULL, true, &out, err);
	if (r == 0)
		r = pairs(ret, &out, &ret->raw, &ret->n_raw, &cap_raw, err);
	mw_buf_clear(&out);
	if (r == 0)
		r = ask(ret, "-Px", NULL, false, &out, err);
	if (r == 0)
		r = pairs(ret, &out, &ret->over, &ret->n_over, &ret->cap_over, err);
	mw_buf_clear(&out);
	if (r == 0)
		r = ask(ret, "-M", NULL, false, &out, err);
	if (r == 0)
		r = services(ret, &out, err);
	return r == 0 ? indirect(ret, err) : r;
}

void
mw_postfix_unseen(const struct mw_conf *conf, struct mw_arena *a, struct mw_postfix *ret)
{
	static struct mw_pair usual[] = {{"mail_version", "(not asked)"},
	                                 {"queue_directory", "/var/spool/postfix"}};
	*ret = (struct mw_postfix){.arena = a,
	                           .conf = conf,
	                           .main = usual,
	                           .n_main = MW_COUNT(usual)};
}

const char *
mw_postfix_get(const struct mw_postfix *p, const char *name)
{
	for (size_t i = 0; i < p->n_main; i++)
		if (strcmp(p->main[i].name, name) == 0)
			return p->main[i].value;
	return "";
}

const char *
mw_postfix_override(const struct mw_postfix *p, const struct mw_service *s,
                    const char *name)
{
	size_t a = strlen(s->name), b = strlen(s->type);
	for (size_t i = 0; i < p->n_over; i++) {
		const char *n = p->over[i].name;
		if (strncmp(n, s->name, a) == 0 && n[a] == '/' &&
		    strncmp(n + a + 1, s->type, b) == 0 && n[a + 1 + b] == '/' &&
		    strcmp(n + a + b + 2, name) == 0)
			return p->over[i].value;
	}
	return NULL;
}

static const char *
raw(const struct mw_postfix *p, const char *name)
{
	for (size_t i = 0; i < p->n_raw; i++)
		if (strcmp(p->raw[i].name, name) == 0)
			return p->raw[i].value;
	return "";
}

/* The list with our entry in it: in its old place, or at the end. What comes by way of
 * another setting ($name) stays as it is. NULL: out of memory. */
static const char *
with_ours(const struct mw_postfix *p, const char *name, const char *ours)
{
	MW_BUF_AUTO b = {0};
	const char *list = raw(p, name);
	struct mw_milter_entry e;
	bool there = false;
	if (strcmp(list, "$smtpd_milters") == 0 ||
	    (!mw_milter_find(p, list, &e) &&
	     mw_milter_find(p, mw_postfix_get(p, name), &e)))
		return list;
	struct mw_str rest = mw_strz(list);
	while (mw_milter_next(&rest, &e)) {
		bool is = mw_milter_is_ours(p, e.socket);
		if (is && there)
			continue;
		if (b.n)
			mw_buf_puts(&b, ", ");
		if (is)
			mw_buf_puts(&b, ours);
		else
			mw_buf_putstr(&b, e.text);
		there = there || is;
	}
	if (!there)
		mw_buf_printf(&b, "%s%s", b.n ? ", " : "", ours);
	return mw_buf_ok(&b) < 0 ? NULL : mw_arena_strdup(p->arena, mw_buf_cstr(&b));
}

static bool
any_chroot(const struct mw_postfix *p)
{
	for (size_t i = 0; i < p->n_service; i++)
		if (p->service[i].chroot &&
		    (strcmp(p->service[i].command, "smtpd") == 0 ||
		     strcmp(p->service[i].command, "cleanup") == 0))
			return true;
	return false;
}

static int
no_way_in(const struct mw_postfix *p, struct mw_err *err)
{
	(void)mw_fail(err, MW_ECONF,
	              "Postfix runs in a chroot and cannot reach any of milter_listen");
	return mw_err_hint(err,
	                   "in mailwal.conf: milter_listen = "
	                   "unix:%s/mailwal/milter.sock (or inet:127.0.0.1:11332)",
	                   mw_postfix_get(p, "queue_directory"));
}

int
mw_postfix_plan(const struct mw_postfix *p, struct mw_pair **ret, size_t *ret_n,
                struct mw_err *err)
{
	const char *socket = mw_milter_address(p, any_chroot(p));
	if (!socket)
		return no_way_in(p, err);
	const char *action =
	    p->conf->on_failure == MW_ON_FAILURE_ACCEPT ? "accept" : "tempfail";
	const char *entry = mw_arena_printf(p->arena,
	                                    "{ %s, default_action=%s, protocol=6, "
	                                    "connect_timeout=10s, command_timeout=30s, "
	                                    "content_timeout=120s }",
	                                    socket, action);
	struct mw_pair all[4] = {{"smtpd_milters", NULL},
	                         {"non_smtpd_milters", NULL},
	                         {"internal_mail_filter_classes", "bounce, notify"},
	                         {"enable_long_queue_ids", "yes"}};
	struct mw_pair *v = mw_arena_alloc(p->arena, sizeof all);
	if (!entry || !v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	*ret_n = 0;
	for (size_t i = 0; i < MW_COUNT(all); i++) {
		const char *now = raw(p, all[i].name);
		if (!all[i].value)
			all[i].value = with_ours(p, all[i].name, entry);
		if (!all[i].value)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		bool same = strcmp(now, all[i].value) == 0 ||
		            (strcmp(all[i].name, "internal_mail_filter_classes") == 0 &&
		             mw_setup_has_word(now, "bounce") &&
		             mw_setup_has_word(now, "notify"));
		if (!same)
			v[(*ret_n)++] = all[i];
	}
	*ret = v;
	return 0;
}

int
mw_postfix_apply(const struct mw_postfix *p, const struct mw_pair *plan, size_t n,
                 struct mw_err *err)
{
	char *argv[12];
	size_t k = 0;
	MW_BUF_AUTO out = {0};
	argv[k++] = mw_arena_strdup(p->arena, "postconf");
	if (p->dir) {
		argv[k++] = mw_arena_strdup(p->arena, "-c");
		argv[k++] = mw_arena_strdup(p->arena, p->dir);
	}
	argv[k++] = mw_arena_strdup(p->arena, "-e");
	for (size_t i = 0; i < n && k < MW_COUNT(argv) - 1; i++)
		argv[k++] =
		    mw_arena_printf(p->arena, "%s = %s", plan[i].name, plan[i].value);
	argv[k] = NULL;
	for (size_t i = 0; i < k; i++)
		if (!argv[i])
			return mw_fail(err, MW_ENOMEM, "out of memory");
	/* One call, one rewrite of main.cf: all of it or nothing. */
	return mw_setup_run(argv, &out, err);
}

static int
postfix_command(const struct mw_postfix *p, const char *command, struct mw_err *err)
{
	MW_BUF_AUTO out = {0};
	char *argv[] = {mw_arena_strdup(p->arena, "postfix"), NULL, NULL, NULL, NULL};
	size_t k = 1;
	if (p->dir) {
		argv[k++] = mw_arena_strdup(p->arena, "-c");
		argv[k++] = mw_arena_strdup(p->arena, p->dir);
	}
	argv[k++] = mw_arena_strdup(p->arena, command);
	for (size_t i = 0; i < k; i++)
		if (!argv[i])
			return mw_fail(err, MW_ENOMEM, "out of memory");
	return mw_setup_run(argv, &out, err);
}

int
mw_postfix_reload(const struct mw_postfix *p, bool *ret_running, struct mw_err *err)
{
	bool running = postfix_command(p, "status", NULL) == 0;
	int r = running ? postfix_command(p, "reload", err) : 0;
	if (r == 0)
		*ret_running = running;
	return r;
}
