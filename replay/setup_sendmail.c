/* setup_sendmail.c - a Sendmail configuration (.cf, or the .mc it is made of), and every
 * way past the journal in it. */
#include "replay/setup.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	FILE_LIMIT = 4 << 20,
	DISCARDS_NAMED = 10
};

static struct mw_str
line_of(struct mw_str *rest)
{
	struct mw_str line;
	if (!mw_str_cut(*rest, '\n', &line, rest)) {
		line = *rest;
		rest->n = 0;
	}
	return line;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* ---- what both forms come down to ---- */

/* Sendmail takes any letters, and asks for these, in this order. */
static struct mw_str
flag_of(struct mw_str flags)
{
	static const char known[] = "T4R";
	for (const char *k = known; *k; k++) {
		const char *at = flags.n ? memchr(flags.p, *k, flags.n) : NULL;
		if (at)
			return mw_str(at, 1);
	}
	return MW_STR("");
}

static int
add_filter(struct mw_sendmail *s, struct mw_str name, struct mw_str equates)
{
	struct mw_smfilter *v = mw_arena_grow(s->arena, s->filter, &s->cap_filter,
	                                      s->n_filter + 1, sizeof *v);
	struct mw_str n = mw_arena_str(s->arena, mw_str_trim(name));
	struct mw_str e = mw_arena_str(s->arena, mw_str_trim(equates));
	if (!v || !n.p || !e.p)
		return MW_ENOMEM;
	s->filter = v;
	v[s->n_filter] = (struct mw_smfilter){.name = n.p};
	while (e.n) { /* only the first letter of a name counts */
		struct mw_str word, rest = mw_str("", 0), key, value;
		if (!mw_str_cut(e, ',', &word, &rest))
			word = e;
		e = rest;
		word = mw_str_trim(word);
		if (!mw_str_cut(word, '=', &key, &value) || key.n == 0)
			continue;
		value = mw_str_trim(value);
		if (key.p[0] == 'S')
			v[s->n_filter].socket = value;
		else if (key.p[0] == 'F')
			v[s->n_filter].flags = flag_of(value);
		else if (key.p[0] == 'T')
			v[s->n_filter].timeouts = value;
	}
	s->n_filter++;
	return 0;
}

static int
add_daemon(struct mw_sendmail *s, struct mw_str options)
{
	struct mw_smdaemon *v = mw_arena_grow(s->arena, s->daemon, &s->cap_daemon,
	                                      s->n_daemon + 1, sizeof *v);
	struct mw_str o = mw_arena_str(s->arena, options);
	if (!v || !o.p)
		return MW_ENOMEM;
	s->daemon = v;
	v[s->n_daemon] = (struct mw_smdaemon){.name = MW_STR("(no name)")};
	while (o.n) {
		struct mw_str word, rest = mw_str("", 0), key, value;
		if (!mw_str_cut(o, ',', &word, &rest))
			word = o;
		o = rest;
		if (!mw_str_cut(mw_str_trim(word), '=', &key, &value) || key.n == 0)
			continue;
		if (key.p[0] == 'N')
			v[s->n_daemon].name = mw_str_trim(value);
		else if (key.p[0] == 'I')
			v[s->n_daemon].own = true,
			v[s->n_daemon].filters = mw_str_trim(value);
	}
	s->n_daemon++;
	return 0;
}

/* "hash -T<TMPF> -o /etc/mail/access": the last word is the file. */
static void
set_access(struct mw_sendmail *s, struct mw_str map)
{
	map = mw_str_trim(map);
	size_t at = map.n;
	while (at && !is_blank(map.p[at - 1]))
		at--;
	if (at < map.n && map.p[at] == '/')
		s->access = mw_arena_str(s->arena, mw_str(map.p + at, map.n - at)).p;
}

static void
set_input(struct mw_sendmail *s, struct mw_str list)
{
	s->input = mw_arena_str(s->arena, mw_str_trim(list));
}

/* ---- sendmail.cf ---- */

static int
cf_option(struct mw_sendmail *s, struct mw_str line)
{
	struct mw_str name, value;
	if (!mw_str_cut(line, '=', &name, &value))
		return 0;
	name = mw_str_trim(name);
	if (mw_str_ieq(name, MW_STR("InputMailFilters")))
		set_input(s, value);
	else if (mw_str_ieq(name, MW_STR("DaemonPortOptions")))
		return add_daemon(s, value);
	return 0;
}

/* A line that begins with a blank goes on with the one before. */
static struct mw_str
folded(struct mw_str *rest)
{
	struct mw_str line = line_of(rest);
	while (rest->n && is_blank(rest->p[0])) {
		struct mw_str more = line_of(rest);
		line.n = (size_t)(more.p + more.n - line.p);
	}
	return line;
}

static int
read_cf(struct mw_sendmail *s, struct mw_str text)
{
	struct mw_str name, rest;
	while (text.n) {
		struct mw_str line = folded(&text);
		int r = 0;
		if (line.n < 2)
			continue;
		struct mw_str body = mw_str(line.p + 1, line.n - 1);
		if (line.p[0] == 'X' && mw_str_cut(body, ',', &name, &rest))
			r = add_filter(s, name, rest);
		else if (line.p[0] == 'O' && is_blank(line.p[1]))
			r = cf_option(s, body);
		else if (mw_str_starts(line, MW_STR("Kaccess ")))
			set_access(s, body);
		else if (mw_str_starts(line, MW_STR("D{MTAHost}")))
			s->mta_host =
			    mw_arena_str(s->arena,
			                 mw_str_trim(mw_str(line.p + 10, line.n - 10)));
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- sendmail.mc ---- */

/* The next argument of an m4 call, its quotes off. */
static struct mw_str
mc_argument(struct mw_str *rest)
{
	int depth = 0;
	size_t i = 0;
	for (; i < rest->n; i++) {
		char c = rest->p[i];
		if (c == '`')
			depth++;
		else if (c == '\'' && depth > 0)
			depth--;
		else if (depth == 0 && (c == ',' || c == ')'))
			break;
	}
	struct mw_str v = mw_str_trim(mw_str(rest->p, i));
	i += i < rest->n && rest->p[i] == ',';
	*rest = mw_str(rest->p + i, rest->n - i);
	if (v.n >= 2 && v.p[0] == '`' && v.p[v.n - 1] == '\'')
		v = mw_str(v.p + 1, v.n - 2);
	return v;
}

static int
mc_call(struct mw_sendmail *s, struct mw_str name, struct mw_str rest)
{
	struct mw_str a = mc_argument(&rest), b = mc_argument(&rest);
	bool input = mw_str_eq(name, MW_STR("INPUT_MAIL_FILTER"));
	if (input || mw_str_eq(name, MW_STR("MAIL_FILTER"))) {
		if (input)
			s->input = mw_strz(
			    mw_arena_printf(s->arena, "%.*s%s%.*s", (int)s->input.n,
			                    s->input.n ? s->input.p : "",
			                    s->input.n ? "," : "", (int)a.n, a.p));
		return add_filter(s, a, b);
	}
	if (mw_str_eq(name, MW_STR("DAEMON_OPTIONS")))
		return add_daemon(s, a);
	if (mw_str_eq(name, MW_STR("define")) &&
	    mw_str_eq(a, MW_STR("confINPUT_MAIL_FILTERS")))
		set_input(s, b);
	else if (mw_str_eq(name, MW_STR("undefine")) &&
	         mw_str_eq(a, MW_STR("confINPUT_MAIL_FILTERS")))
		set_input(s, MW_STR(""));
	else if (mw_str_eq(name, MW_STR("FEATURE")) && mw_str_eq(a, MW_STR("access_db")))
		set_access(s, b.n ? b : MW_STR("hash /etc/mail/access"));
	return 0;
}

static bool
is_name(char c)
{
	return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* What only m4 can tell; Sendmail's own macros, which each file includes, say nothing. */
static bool
is_unread(struct mw_str name, struct mw_str rest)
{
	static const char *const names[] = {"include", "sinclude", "ifdef",      "ifelse",
	                                    "syscmd",  "esyscmd",  "changequote"};
	static const char own[] = "m4/cf.m4";
	struct mw_str a = mc_argument(&rest);
	if (a.n >= sizeof own - 1 &&
	    memcmp(a.p + a.n - (sizeof own - 1), own, sizeof own - 1) == 0)
		return false;
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (mw_str_eq(name, mw_strz(names[i])))
			return true;
	return false;
}

/* Calls at the beginning of a line; what begins with dnl is a comment, and so is what is
 * diverted to nowhere. */
static int
read_mc(struct mw_sendmail *s, struct mw_str text)
{
	bool nowhere = false;
	for (size_t number = 1; text.n; number++) {
		struct mw_str all = text, line = mw_str_trim(line_of(&text));
		size_t n = 0;
		while (n < line.n && is_name(line.p[n]))
			n++;
		struct mw_str name = mw_str(line.p, n);
		if (n == line.n || line.p[n] != '(') {
			if (mw_str_eq(name, MW_STR("divert"))) /* as "divert(0)" */
				nowhere = false;
			continue;
		}
		const char *from = line.p + n + 1; /* arguments may go on below */
		struct mw_str rest = mw_str(from, all.n - (size_t)(from - all.p));
		if (mw_str_eq(name, MW_STR("divert"))) {
			nowhere = mw_str_starts(mc_argument(&rest), MW_STR("-"));
			continue;
		}
		if (nowhere)
			continue;
		if (!s->unread && is_unread(name, rest))
			s->unread = mw_arena_printf(s->arena, "%.*s in line %zu",
			                            (int)name.n, name.p, number);
		int r = mc_call(s, name, rest);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- files ---- */

static int
read_file(struct mw_arena *a, const char *path, struct mw_str *ret)
{
	void *p = NULL;
	size_t n = 0;
	struct stat st;
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode)) /* a pipe is waited for, for ever */
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	int r = mw_fs_read_named(path, FILE_LIMIT, &p, &n);
	if (r < 0)
		return r;
	*ret = mw_arena_str(a, mw_str(p, n));
	free(p);
	return ret->p ? 0 : -ENOMEM;
}

static bool
newer(const char *a, const char *b)
{
	struct stat x, y;
	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_mtime > y.st_mtime;
}

int
mw_sendmail_load(const struct mw_conf *conf, const char *path, struct mw_arena *a,
                 struct mw_sendmail *ret, struct mw_err *err)
{
	struct mw_str text;
	*ret = (struct mw_sendmail){.arena = a, .conf = conf, .path = path};
	size_t n = strlen(path), dir = n;
	while (dir && path[dir - 1] != '/')
		dir--;
	ret->mc = n > 3 && strcmp(path + n - 3, ".mc") == 0;
	ret->submit = mw_arena_printf(a, "%.*ssubmit.cf", (int)dir, path);
	const char *cf = mw_arena_printf(a, "%.*s.cf", (int)(n > 3 ? n - 3 : n), path);
	const char *mc = mw_arena_printf(a, "%.*s.mc", (int)(n > 3 ? n - 3 : n), path);
	if (!ret->submit || !cf || !mc)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = read_file(a, path, &text);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	ret->stale = newer(mc, cf) ? cf : NULL;
	if ((ret->mc ? read_mc(ret, text) : read_cf(ret, text)) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	struct mw_sendmail submit = {.arena = a};
	r = read_file(a, ret->submit, &text);
	if (r == 0 && read_cf(&submit, text) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	ret->has_submit = r == 0;
	ret->mta_host = submit.mta_host;
	return 0;
}

/* ---- check ---- */

#define text(...) mw_arena_printf(f->arena, __VA_ARGS__)
#define STR(s)    (int)(s).n, (s).n ? (s).p : ""

static bool
is_ours(const struct mw_sendmail *s, const struct mw_smfilter *v)
{
	const struct mw_postfix here = {.arena = s->arena, .conf = s->conf};
	struct mw_str socket = v->socket;
	if (socket.n && socket.p[0] == '/')
		socket = mw_strz(mw_arena_printf(s->arena, "local:%.*s", STR(socket)));
	return socket.p && mw_milter_is_ours(&here, socket);
}

static const struct mw_smfilter *
by_name(const struct mw_sendmail *s, struct mw_str name)
{
	for (size_t i = 0; i < s->n_filter; i++)
		if (mw_str_ieq(mw_strz(s->filter[i].name), name))
			return &s->filter[i];
	return NULL;
}

/* Names parted by commas or semicolons. */
static bool
next_name(struct mw_str *list, struct mw_str *ret)
{
	size_t n = 0;
	if (list->n == 0)
		return false;
	while (n < list->n && list->p[n] != ',' && list->p[n] != ';')
		n++;
	*ret = mw_str_trim(mw_str(list->p, n));
	n += n < list->n;
	*list = mw_str(list->p + n, list->n - n);
	return true;
}

static const struct mw_smfilter *
ours_in(const struct mw_sendmail *s, struct mw_str list)
{
	struct mw_str name;
	while (next_name(&list, &name)) {
		const struct mw_smfilter *v = by_name(s, name);
		if (v && is_ours(s, v))
			return v;
	}
	return NULL;
}

const struct mw_smfilter *
mw_sendmail_ours(const struct mw_sendmail *s, bool *ret_listed)
{
	const struct mw_smfilter *ours = ours_in(s, s->input);
	*ret_listed = ours != NULL;
	for (size_t i = 0; !ours && i < s->n_filter; i++)
		if (is_ours(s, &s->filter[i]))
			ours = &s->filter[i];
	return ours;
}

static void
check_flags(const struct mw_smfilter *v, struct mw_advices *f)
{
	char flag = v->flags.n ? v->flags.p[0] : 0;
	if (!flag)
		mw_advice_add(f, MW_ADVICE_HOLE, "F",
		              text("filter %s has no F=: while mailwald is down, mail "
		                   "passes without a record",
		                   v->name),
		              "F=T (or F=4, which also closes the connection)");
	else if (flag == 'R')
		mw_advice_add(f, MW_ADVICE_NOTE, "F",
		              text("filter %s has F=R: while mailwald is down, senders "
		                   "get a final refusal",
		                   v->name),
		              "F=T");
	struct mw_str end = v->timeouts, word;
	while (next_name(&end, &word)) {
		/* E: is the one that progress reports do not stretch */
		if (word.n < 3 || word.p[0] != 'E' || word.p[1] != ':')
			continue;
		long long n = strtoll(word.p + 2, NULL, 10);
		if (word.p[word.n - 1] == 's' && n < 60)
			mw_advice_add(f, MW_ADVICE_NOTE, "T",
			              text("filter %s has T=%.*s: a slow disk is given "
			                   "up on after that time, whatever mailwald "
			                   "says meanwhile",
			                   v->name, STR(word)),
			              "E:5m");
	}
}

static void
check_position(const struct mw_sendmail *s, struct mw_str list, struct mw_advices *f)
{
	struct mw_str name;
	bool seen = false;
	while (next_name(&list, &name)) {
		const struct mw_smfilter *v = by_name(s, name);
		if (v && is_ours(s, v))
			seen = true;
		else if (seen)
			mw_advice_add(f, MW_ADVICE_NOTE, "position",
			              text("filter %.*s comes after mailwald: records "
			                   "lack what it adds, and hold what it refuses",
			                   STR(name)),
			              "mailwald last, unless that is wanted");
		else
			mw_advice_add(f, MW_ADVICE_NOTE, "position",
			              text("filter %.*s comes before mailwald: what it "
			                   "discards has no record",
			                   STR(name)),
			              "mailwald first, if that is not wanted");
	}
}

static void
check_filters(const struct mw_sendmail *s, struct mw_advices *f)
{
	bool listed = false;
	const struct mw_smfilter *ours = mw_sendmail_ours(s, &listed);
	if (listed) {
		check_flags(ours, f);
		check_position(s, s->input, f);
	} else if (ours) {
		mw_advice_add(f, MW_ADVICE_HOLE, "InputMailFilters",
		              text("filter %s is mailwald's, but InputMailFilters does "
		                   "not name it: mail has no record",
		                   ours->name),
		              "INPUT_MAIL_FILTER in place of MAIL_FILTER");
		check_flags(ours, f);
	} else {
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "InputMailFilters",
		    text("no input mail filter is mailwald's (milter_listen = %s): mail "
		         "has no record",
		         s->conf->milter_listen.n ? s->conf->milter_listen.v[0] : ""),
		    "mailwal setup sendmail --apply");
	}
	for (size_t i = 0; i < s->n_daemon; i++) {
		const struct mw_smdaemon *d = &s->daemon[i];
		if (d->own && !ours_in(s, d->filters))
			mw_advice_add(f, MW_ADVICE_HOLE, "daemon",
			              text("daemon %.*s has filters of its own without "
			                   "mailwald (InputMailFilters=%.*s): its mail "
			                   "has no record",
			                   STR(d->name), STR(d->filters)),
			              "take InputMailFilters= (I=) out of that "
			              "DAEMON_OPTIONS");
		else if (d->own)
			check_position(s, d->filters, f);
	}
}

static void
check_submit(const struct mw_sendmail *s, struct mw_advices *f)
{
	struct mw_str h = s->mta_host;
	if (!s->has_submit)
		mw_advice_add(f, MW_ADVICE_HOLE, "submit",
		              text("there is no %s: mail from sendmail(1), cron and web "
		                   "applications goes out without passing a filter",
		                   s->submit),
		              "FEATURE(`msp') in submit.mc");
	else if (h.n && !mw_str_starts(h, MW_STR("[127.")) &&
	         !mw_str_istarts(h, MW_STR("localhost")) &&
	         !mw_str_ieq(h, MW_STR("[localhost]")) &&
	         !mw_str_ieq(h, MW_STR("[IPv6:::1]")))
		mw_advice_add(f, MW_ADVICE_HOLE, "submit",
		              text("%s hands mail from sendmail(1) to %.*s, past the "
		                   "filters of this host",
		                   s->submit, STR(h)),
		              "FEATURE(`msp', `[127.0.0.1]') in submit.mc");
}

/* An access table's rows whose action is DISCARD: answered with 250 and thrown away
 * before any filter sees the message. */
static void
check_access(const struct mw_sendmail *s, struct mw_advices *f)
{
	struct mw_str rows;
	size_t line = 0, found = 0;
	if (!s->access || read_file(s->arena, s->access, &rows) < 0)
		return;
	while (rows.n) {
		struct mw_str row = mw_str_trim(line_of(&rows));
		line++;
		if (row.n == 0 || row.p[0] == '#')
			continue;
		size_t at = row.n;
		while (at && !is_blank(row.p[at - 1]) && row.p[at - 1] != '|')
			at--;
		if (!mw_str_ieq(mw_str(row.p + at, row.n - at), MW_STR("DISCARD")))
			continue;
		if (++found > DISCARDS_NAMED)
			continue;
		mw_advice_add(f, MW_ADVICE_HOLE, "discard",
		              text("%s:%zu: DISCARD: such mail is answered with 250 and "
		                   "has no record",
		                   s->access, line),
		              "REJECT, if that is not wanted");
	}
	if (found > DISCARDS_NAMED)
		mw_advice_add(f, MW_ADVICE_HOLE, "discard",
		              text("%s: %zu more rows with DISCARD", s->access,
		                   found - DISCARDS_NAMED),
		              NULL);
}

void
mw_sendmail_check(const struct mw_sendmail *s, struct mw_advices *ret)
{
	struct mw_advices *f = ret;
	*ret = (struct mw_advices){.arena = s->arena};
	check_filters(s, f);
	check_submit(s, f);
	check_access(s, f);
	if (s->stale)
		mw_advice_add(
		    f, s->mc ? MW_ADVICE_HOLE : MW_ADVICE_NOTE, "stale",
		    text("%s is older than its .mc file: what that says does not "
		         "count yet",
		         s->stale),
		    "make, and restart Sendmail");
	if (s->unread)
		mw_advice_add(f, MW_ADVICE_NOTE, "m4",
		              text("%s: what it makes is not looked at here", s->unread),
		              "check the .cf file that m4 makes");
	mw_advice_add(f, MW_ADVICE_NOTE, "notices",
	              "Sendmail's own bounces and notices pass no filter and have no "
	              "record",
	              NULL);
}
