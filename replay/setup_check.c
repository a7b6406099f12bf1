/* setup_check.c - every way past the journal that a Postfix configuration shows. */
#include "replay/setup.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void
mw_advice_add(struct mw_advices *f, enum mw_advice_kind kind, const char *name,
              const char *text, const char *fix)
{
	struct mw_advice *v = mw_arena_grow(f->arena, f->v, &f->cap, f->n + 1, sizeof *v);
	if (!v || !text)
		return;
	f->v = v;
	f->v[f->n++] = (struct mw_advice){kind, name, text, fix ? fix : ""};
	f->holes += kind == MW_ADVICE_HOLE;
}

#define text(...) mw_arena_printf(f->arena, __VA_ARGS__)

bool
mw_setup_has_word(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list; *p;) {
		size_t len = strcspn(p, ", \t");
		if (len == n && strncasecmp(p, word, n) == 0)
			return true;
		p += len;
		p += strspn(p, ", \t");
	}
	return false;
}

/* ---- our entry in a list ---- */

/* What counts for a service, or, NULL, for those that set nothing themselves. */
static const char *
setting(const struct mw_postfix *p, const struct mw_service *s, const char *name)
{
	const char *v = s ? mw_postfix_override(p, s, name) : NULL;
	return v ? v : mw_postfix_get(p, name);
}

static void
check_action(const struct mw_postfix *p, const struct mw_service *s, struct mw_advices *f,
             const char *where, const struct mw_milter_entry *e, bool ours)
{
	struct mw_str action = mw_milter_option(e, "default_action");
	if (action.n == 0)
		action = mw_strz(setting(p, s, "milter_default_action"));
	if (ours && mw_str_ieq(action, MW_STR("accept")))
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "default_action",
		    text("%s: default_action is accept: while mailwald is down, mail "
		         "passes "
		         "without a record (and so does every later message of the same "
		         "session)",
		         where),
		    "default_action=tempfail");
	if (mw_str_starts(action, MW_STR("quarantine")))
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "default_action",
		    text(
		        ours
		            ? "%s: default_action is quarantine: while mailwald is down, "
		              "mail is held, and a release from hold passes no milter"
		            : "%s: a milter before mailwald has "
		              "default_action=quarantine: "
		              "while it is down, mail is held unjournaled, and a release "
		              "from hold passes no milter",
		        where),
		    "default_action=tempfail");
	if (ours && mw_str_ieq(action, MW_STR("reject")))
		mw_advice_add(
		    f, MW_ADVICE_NOTE, "default_action",
		    text("%s: default_action is reject: while mailwald is down, senders "
		         "get "
		         "a final refusal",
		         where),
		    "default_action=tempfail");
}

static void
check_protocol(const struct mw_postfix *p, const struct mw_service *s,
               struct mw_advices *f, const char *where, const struct mw_milter_entry *e)
{
	struct mw_str protocol = mw_milter_option(e, "protocol");
	if (protocol.n == 0)
		protocol = mw_strz(setting(p, s, "milter_protocol"));
	if (protocol.n && protocol.p[0] >= '2' && protocol.p[0] <= '5')
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "protocol",
		    text("%s: milter protocol %.*s does not carry the exact white space "
		         "of "
		         "headers",
		         where, (int)protocol.n, protocol.p),
		    "protocol=6");
}

void
mw_postfix_check_list(const struct mw_postfix *p, const struct mw_service *s,
                      struct mw_advices *f, const char *where, const char *list)
{
	struct mw_str rest = mw_strz(list);
	struct mw_milter_entry e;
	bool seen = false;
	while (mw_milter_next(&rest, &e)) {
		bool ours = mw_milter_is_ours(p, e.socket);
		if (ours || !seen)
			check_action(p, s, f, where, &e, ours);
		if (ours)
			check_protocol(p, s, f, where, &e);
		else if (seen)
			mw_advice_add(
			    f, MW_ADVICE_NOTE, "position",
			    text("%s: %.*s comes after mailwald: records lack what it "
			         "adds, "
			         "and hold what it refuses",
			         where, (int)e.socket.n, e.socket.p),
			    "mailwald last, unless that is wanted");
		else
			mw_advice_add(
			    f, MW_ADVICE_NOTE, "position",
			    text("%s: %.*s comes before mailwald: what it discards or "
			         "quarantines has no record",
			         where, (int)e.socket.n, e.socket.p),
			    "mailwald first, if that is not wanted");
		seen = seen || ours;
	}
}

static const char *
listen_text(const struct mw_postfix *p, struct mw_advices *f)
{
	return text("milter_listen = %s",
	            p->conf->milter_listen.n ? p->conf->milter_listen.v[0] : "");
}

/* ---- main.cf ---- */

static void
check_milters(const struct mw_postfix *p, struct mw_advices *f)
{
	struct mw_milter_entry e;
	const char *smtpd = mw_postfix_get(p, "smtpd_milters");
	const char *local = mw_postfix_get(p, "non_smtpd_milters");
	if (!mw_milter_find(p, smtpd, &e))
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "smtpd_milters",
		    text("smtpd_milters does not name mailwald (%s): mail over SMTP has "
		         "no "
		         "record",
		         listen_text(p, f)),
		    "mailwal setup postfix --apply");
	else
		mw_postfix_check_list(p, NULL, f, "smtpd_milters", smtpd);
	if (!mw_milter_find(p, local, &e))
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "non_smtpd_milters",
		    "non_smtpd_milters does not name mailwald: mail from sendmail(1), "
		    "cron, "
		    "web applications and postsuper -r has no record",
		    "non_smtpd_milters = $smtpd_milters");
	else
		mw_postfix_check_list(p, NULL, f, "non_smtpd_milters", local);
}

static void
check_classes(const struct mw_postfix *p, struct mw_advices *f)
{
	const char *classes = mw_postfix_get(p, "internal_mail_filter_classes");
	bool bounce = mw_setup_has_word(classes, "bounce"),
	     notify = mw_setup_has_word(classes, "notify");
	if (!bounce || !notify)
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "internal_mail_filter_classes",
		    text("internal_mail_filter_classes lacks %s: %s have no record",
		         bounce   ? "notify"
		         : notify ? "bounce"
		                  : "bounce and notify",
		         bounce   ? "notices to the postmaster"
		         : notify ? "bounces"
		                  : "bounces and notices to the postmaster"),
		    "internal_mail_filter_classes = bounce, notify");
}

static void
check_main(const struct mw_postfix *p, struct mw_advices *f)
{
	mw_postfix_check_maps(p, f, "smtpd_milter_maps",
	                      mw_postfix_get(p, "smtpd_milter_maps"));
	if (mw_postfix_get(p, "multi_instance_directories")[0])
		mw_advice_add(f, MW_ADVICE_NOTE, "instances",
		              text("multi_instance_directories = %s: other instances, "
		                   "which were not looked at",
		                   mw_postfix_get(p, "multi_instance_directories")),
		              "mailwal setup postfix --check --postfix-config DIR for "
		              "each");
	if (mw_setup_has_word(mw_postfix_get(p, "receive_override_options"),
	                      "no_milters"))
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "no_milters",
		    "main.cf: receive_override_options has no_milters: no milter sees "
		    "any "
		    "mail",
		    "set it only at the service that takes mail back from a content "
		    "filter");
	if (mw_postfix_get(p, "smtpd_proxy_filter")[0])
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "smtpd_proxy_filter",
		    "smtpd_proxy_filter stands beside smtpd_milters: the milter then "
		    "sees the "
		    "envelope but never the message",
		    "use one of the two in a service; milters belong at the re-entry "
		    "side");
	if (strcmp(mw_postfix_get(p, "enable_long_queue_ids"), "yes") != 0)
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "enable_long_queue_ids",
		    "queue IDs are short and come again: a record and a line of the mail "
		    "log "
		    "cannot be told to be the same message",
		    "enable_long_queue_ids = yes");
	mw_postfix_check_discards(p, f);
}

/* ---- master.cf ---- */

static bool
is_loopback(const char *name)
{
	return strncmp(name, "127.", 4) == 0 || strncmp(name, "localhost:", 10) == 0 ||
	       strncmp(name, "[::1]:", 6) == 0 || strncmp(name, "::1:", 4) == 0;
}

/* Is there a content filter that hands mail back over SMTP? */
static bool
has_filter(const struct mw_postfix *p)
{
	if (mw_postfix_get(p, "content_filter")[0] ||
	    mw_postfix_get(p, "smtpd_proxy_filter")[0])
		return true;
	for (size_t i = 0; i < p->n_service; i++) {
		const char *a = mw_postfix_override(p, &p->service[i], "content_filter");
		const char *b =
		    mw_postfix_override(p, &p->service[i], "smtpd_proxy_filter");
		if ((a && *a) || (b && *b))
			return true;
	}
	return false;
}

/* Does its before-queue filter lead to one of our proxies? */
static bool
has_our_proxy(const struct mw_postfix *p, const struct mw_service *s)
{
	const char *v = mw_postfix_override(p, s, "smtpd_proxy_filter");
	struct mw_str filter = mw_str_trim(mw_strz(v ? v : ""));
	if (mw_str_starts(filter, MW_STR("inet:")))
		filter = mw_str(filter.p + 5, filter.n - 5);
	for (size_t i = 0; filter.n && i < p->conf->proxy_listen.n; i++) {
		const char *w = p->conf->proxy_listen.v[i], *arrow = strstr(w, "->");
		struct mw_str listen =
		    arrow ? mw_str(w, (size_t)(arrow - w)) : mw_strz(w);
		if (!mw_str_starts(listen, MW_STR("smtp:")))
			continue;
		listen = mw_str(listen.p + 5, listen.n - 5);
		if (mw_str_starts(listen, MW_STR("inet:")))
			listen = mw_str(listen.p + 5, listen.n - 5);
		if (mw_str_eq(listen, filter))
			return true;
	}
	return false;
}

/* A service that goes past the milters: required where a content filter hands mail back
 * that was journaled on its way in, a hole elsewhere. */
static void
past_milters(const struct mw_postfix *p, struct mw_advices *f, const struct mw_service *s,
             const char *how)
{
	bool reentry = strcmp(s->command, "smtpd") == 0 && has_filter(p) &&
	               (is_loopback(s->name) || strcmp(s->type, "unix") == 0);
	if (strcmp(s->command, "smtpd") == 0 && has_our_proxy(p, s))
		mw_advice_add(
		    f, MW_ADVICE_NOTE, "proxy",
		    text("service %s/%s: %s: its mail is journaled by mailwald's proxy",
		         s->name, s->type, how),
		    NULL);
	else if (reentry)
		mw_advice_add(
		    f, MW_ADVICE_NOTE, "re-entry",
		    text("service %s/%s: %s, as it must be on the re-entry side of a "
		         "content "
		         "filter: its mail was journaled when it came in",
		         s->name, s->type, how),
		    NULL);
	else
		mw_advice_add(f, MW_ADVICE_HOLE, "service",
		              text("service %s/%s: %s: its mail has no record", s->name,
		                   s->type, how),
		              "take that override out of master.cf");
}

/* Does it ask those milters? */
static bool
is_user(const struct mw_service *s, const char *list)
{
	return strcmp(s->command,
	              strcmp(list, "smtpd_milters") == 0 ? "smtpd" : "cleanup") == 0;
}

static bool
has_defaults(const struct mw_postfix *p, const struct mw_service *s)
{
	return mw_postfix_override(p, s, "milter_default_action") ||
	       mw_postfix_override(p, s, "milter_protocol");
}

static void
check_service(const struct mw_postfix *p, struct mw_advices *f,
              const struct mw_service *s)
{
	struct mw_milter_entry e;
	bool smtpd = strcmp(s->command, "smtpd") == 0;
	const char *lists[] = {"smtpd_milters", "non_smtpd_milters"};
	const char *v = mw_postfix_override(p, s, "receive_override_options");
	if (v && mw_setup_has_word(v, "no_milters"))
		past_milters(p, f, s, "receive_override_options has no_milters");
	for (size_t i = 0; i < MW_COUNT(lists); i++) {
		v = mw_postfix_override(p, s, lists[i]);
		if (v && !mw_milter_find(p, v, &e))
			past_milters(p, f, s,
			             text("%s is set without mailwald", lists[i]));
		else if (v)
			mw_postfix_check_list(p, s, f,
			                      text("service %s/%s", s->name, s->type), v);
		else if (is_user(s, lists[i]) && has_defaults(p, s) &&
		         mw_milter_find(p, mw_postfix_get(p, lists[i]), &e))
			mw_postfix_check_list(p, s, f,
			                      text("service %s/%s", s->name, s->type),
			                      mw_postfix_get(p, lists[i]));
	}
	v = mw_postfix_override(p, s, "smtpd_proxy_filter");
	const char *own = mw_postfix_override(p, s, "smtpd_milters");
	bool milters = own ? *own : mw_postfix_get(p, "smtpd_milters")[0];
	if (smtpd && v && *v && milters)
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "smtpd_proxy_filter",
		    text("service %s/%s: smtpd_proxy_filter stands beside smtpd_milters: "
		         "the "
		         "milter then sees the envelope but never the message",
		         s->name, s->type),
		    "-o smtpd_milters= here, and milters at the re-entry side");
	v = mw_postfix_override(p, s, "smtpd_milter_maps");
	if (v && strcasecmp(v, "static:DISABLE") == 0)
		past_milters(p, f, s, text("smtpd_milter_maps is %s", v));
	else if (v)
		mw_postfix_check_maps(
		    p, f, text("service %s/%s: smtpd_milter_maps", s->name, s->type), v);
}

/* Does a service find us where one of its lists says? */
static bool
finds(const struct mw_postfix *p, const struct mw_service *s)
{
	struct mw_milter_entry e;
	return mw_milter_find(p,
	                      setting(p, s,
	                              strcmp(s->command, "smtpd") == 0
	                                  ? "smtpd_milters"
	                                  : "non_smtpd_milters"),
	                      &e) &&
	       mw_milter_reaches(p, e.socket, true);
}

/* Can a chrooted service open the socket that the list names? */
static void
check_chroot(const struct mw_postfix *p, struct mw_advices *f)
{
	if (mw_milter_address(p, true))
		return;
	const char *said = NULL;
	for (size_t i = 0; i < p->n_service; i++) {
		const struct mw_service *s = &p->service[i];
		bool ours = strcmp(s->command, "smtpd") == 0 ||
		            strcmp(s->command, "cleanup") == 0;
		if (!s->chroot || !ours || (said && strcmp(said, s->command) == 0) ||
		    finds(p, s))
			continue;
		said = s->command;
		mw_advice_add(
		    f, MW_ADVICE_HOLE, "chroot",
		    text("service %s/%s runs in the chroot %s and cannot reach %s",
		         s->name, s->type, mw_postfix_get(p, "queue_directory"),
		         listen_text(p, f)),
		    text("milter_listen = unix:%s/mailwal/milter.sock in mailwal.conf",
		         mw_postfix_get(p, "queue_directory")));
	}
}

/* Does the list name the socket as the service sees it? */
static void
check_paths(const struct mw_postfix *p, struct mw_advices *f)
{
	static const char *const lists[] = {"smtpd_milters", "non_smtpd_milters"};
	bool no_way = !mw_milter_address(p, true); /* told already */
	for (size_t i = 0; i < 2 * p->n_service; i++) {
		const struct mw_service *s = &p->service[i / 2];
		struct mw_milter_entry e;
		const char *list = setting(p, s, lists[i % 2]);
		if (!is_user(s, lists[i % 2]) || (s->chroot && no_way) ||
		    !mw_milter_find(p, list, &e) ||
		    mw_milter_reaches(p, e.socket, s->chroot))
			continue;
		const char *way = mw_milter_address(p, s->chroot);
		mw_advice_add(f, MW_ADVICE_HOLE, "chroot",
		              text("service %s/%s runs %s and finds no mailwald at "
		                   "%.*s",
		                   s->name, s->type,
		                   s->chroot ? text("in the chroot %s",
		                                    mw_postfix_get(p, "queue_directory"))
		                             : "without a chroot",
		                   (int)e.socket.n, e.socket.p),
		              text("%s there", way ? way : "its path"));
	}
}

void
mw_postfix_check(const struct mw_postfix *p, struct mw_advices *ret)
{
	*ret = (struct mw_advices){.arena = p->arena};
	check_milters(p, ret);
	check_classes(p, ret);
	check_main(p, ret);
	for (size_t i = 0; i < p->n_service; i++)
		check_service(p, ret, &p->service[i]);
	check_chroot(p, ret);
	check_paths(p, ret);
}
