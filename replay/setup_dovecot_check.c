/* setup_dovecot_check.c - what stands in the way of a replay into this Dovecot: first
 * what keeps replay out, then what would act on mail that is put back. */
#include "replay/setup_dovecot.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define text(...) mw_arena_printf(f->arena, __VA_ARGS__)

static void
hole(struct mw_advices *f, const char *name, const char *what, const char *fix)
{
	mw_advice_add(f, MW_ADVICE_HOLE, name, what, fix);
}

static void
note(struct mw_advices *f, const char *name, const char *what, const char *fix)
{
	mw_advice_add(f, MW_ADVICE_NOTE, name, what, fix);
}

/* ---- getting in ---- */

/* "" is every address. */
static bool
on_loopback(const char *list)
{
	return !list[0] || mw_setup_has_word(list, "*") ||
	       mw_setup_has_word(list, "127.0.0.1") ||
	       mw_setup_has_word(list, "localhost") || mw_setup_has_word(list, "0.0.0.0");
}

static void
check_listeners(const struct mw_dovecot *d, struct mw_advices *f)
{
	const char *at = "service/imap-login/inet_listener",
	           *rest = mw_dovecot_get(d, "%s", at), *n;
	bool open = false, plain = false, loop = false;
	while ((n = mw_dovecot_next(d, &rest)) != NULL) {
		const char *addr = mw_dovecot_get(d, "%s/%s/address", at, n);
		bool tls = strcmp(mw_dovecot_get(d, "%s/%s/ssl", at, n), "yes") == 0;
		if (strtol(mw_dovecot_get(d, "%s/%s/port", at, n), NULL, 10) == 0)
			continue;
		if (!addr[0])
			addr = mw_dovecot_get(d, "listen");
		open = true;
		plain = plain || !tls;
		loop = loop || (!tls && on_loopback(addr));
	}
	if (!open)
		hole(f, "listener",
		     "service imap-login has no port: there is no IMAP to replay into",
		     "inet_listener imap { address = 127.0.0.1  port = 143 }");
	else if (!plain)
		note(f, "listener",
		     "IMAP is there with TLS from the start only: --to imaps://NAME, "
		     "with a "
		     "name that the certificate holds, or --tls-ca or --insecure",
		     "");
	else if (!loop)
		note(
		    f, "listener",
		    text("IMAP without TLS from the start does not listen on 127.0.0.1%s",
		         strcmp(mw_dovecot_get(d, "ssl"), "no") == 0
		             ? ", and ssl = no: replay to another address of it needs "
		               "--insecure"
		             : ": replay to another address of it wants STARTTLS and a "
		               "valid certificate"),
		    "");
}

static void
check_door(const struct mw_dovecot *d, struct mw_advices *f)
{
	const char *mechanisms = mw_dovecot_get(d, "auth_mechanisms");
	if (!mw_setup_has_word(mw_dovecot_get(d, "protocols"), "imap"))
		hole(f, "protocols",
		     text("protocols = %s: there is no IMAP to replay into",
		          mw_dovecot_get(d, "protocols")),
		     "protocols = $protocols imap (Debian: package dovecot-imapd)");
	else
		check_listeners(d, f);
	if (!mw_setup_has_word(mechanisms, "plain"))
		hole(f, "auth_mechanisms",
		     text("auth_mechanisms = %s: replay logs in by PLAIN", mechanisms),
		     text("auth_mechanisms = plain %s", mechanisms));
}

/* ---- the master user ---- */

/* Does a master login ask the users' own passdbs too? */
static bool
goes_on(const struct mw_dovecot_db *db)
{
	return db->pass || strncmp(db->result_success, "continue", 8) == 0;
}

static void
check_master(const struct mw_dovecot *d, const struct mw_dovecot_db *db,
             struct mw_advices *f)
{
	if (strcmp(db->driver, "passwd-file") == 0)
		mw_dovecot_check_file(d, db->args, f);
	else
		note(f, "master_user",
		     text("master users are in a passdb of driver %s, which was not "
		          "looked at",
		          db->driver),
		     "");
	if (goes_on(db) && !mw_dovecot_can_ask(d))
		hole(f, "result_success",
		     "the master user's passdb goes on to the users' own (result_success "
		     "or pass), of which none knows a user without his password: every "
		     "login of a master user fails",
		     "take result_success = continue out: the userdb says who exists");
}

static void
check_masters(const struct mw_dovecot *d, struct mw_advices *f)
{
	const char *rest = mw_dovecot_get(d, "passdb");
	struct mw_dovecot_db db;
	bool master = false, users = false;
	while (mw_dovecot_db(d, "passdb", &rest, &db)) {
		if (db.master)
			check_master(d, &db, f);
		master = master || db.master;
		users = users || !(db.master || db.deny);
	}
	if (!master)
		hole(
		    f, "master_user",
		    "no passdb has master = yes: replay would need every user's password "
		    "(--user-passwords)",
		    "mailwal setup dovecot --apply");
	if (!users)
		hole(
		    f, "passdb",
		    "there is no passdb for users: Dovecot's auth process does not start",
		    "");
	const char *sep = mw_dovecot_get(d, "auth_master_user_separator");
	if (master && strcmp(sep, "*") != 0)
		note(f, "auth_master_user_separator",
		     text("auth_master_user_separator is %s%s: --auth-style separator, "
		          "which says mailbox*name, does not work here; the default, "
		          "authzid, does",
		          sep[0] ? "" : "not set", sep),
		     "");
}

/* Is there a master login that asks the master users' passdb alone? */
static bool
stops_short(const struct mw_dovecot *d)
{
	const char *rest = mw_dovecot_get(d, "passdb");
	struct mw_dovecot_db db;
	while (mw_dovecot_db(d, "passdb", &rest, &db))
		if (db.master && !goes_on(&db))
			return true;
	return false;
}

static void
check_users(const struct mw_dovecot *d, struct mw_advices *f)
{
	const char *rest = mw_dovecot_get(d, "userdb");
	struct mw_dovecot_db db;
	size_t n = 0, prefetch = 0, system = 0;
	for (; mw_dovecot_db(d, "userdb", &rest, &db); n++) {
		prefetch += strcmp(db.driver, "prefetch") == 0;
		system += strcmp(db.driver, "passwd") == 0;
	}
	if (!n)
		hole(f, "userdb",
		     "there is no userdb: Dovecot does not know where mailboxes are", "");
	else if (n == prefetch && stops_short(d))
		hole(f, "userdb",
		     "the only userdb is prefetch, which knows what the users' passdb "
		     "said, "
		     "and a master user's login does not ask that one",
		     "result_success = continue in the passdb with master = yes");
	/* %n, %Ln, %{username}: the address without its domain */
	bool short_name = strstr(mw_dovecot_get(d, "auth_username_format"), "n") != NULL;
	if (n && n == system && !short_name &&
	    (strstr(d->conf->mailbox_name, "%u") || strchr(d->conf->mailbox_name, '@')))
		hole(f, "mailbox_name",
		     text("mailbox_name = %s in mailwal's configuration names mailboxes "
		          "by address, and the users here are those of the system, "
		          "which have no domain",
		          d->conf->mailbox_name),
		     "mailbox_name = %n");
	if (mw_dovecot_acl_bars(d))
		hole(
		    f, "acl_user",
		    "plugin acl: a master user has no rights in the users' folders; "
		    "replay "
		    "would find no INBOX",
		    "plugin { acl_user = %u }: master users have the rights of the user");
}

/* ---- what acts on mail ---- */

/* Does one of the imapsieve rules see what a replay puts into INBOX or Sent? */
static bool
rule_acts(const struct mw_dovecot *d, int i)
{
	const char *name = mw_dovecot_get(d, "plugin/imapsieve_mailbox%d_name", i),
	           *cause = mw_dovecot_get(d, "plugin/imapsieve_mailbox%d_causes", i);
	return (strchr(name, '*') || strcasecmp(name, "INBOX") == 0 ||
	        strcasecmp(name, d->conf->sent_folder) == 0) &&
	       (!cause[0] || mw_setup_has_word(cause, "APPEND") ||
	        mw_setup_has_word(cause, "COPY"));
}

static void
check_imapsieve(const struct mw_dovecot *d, struct mw_advices *f)
{
	static const char *const quiet =
	    "replay to the instance that mailwal setup dovecot --quiet-instance makes";
	const char *plugins = mw_dovecot_get(d, "mail_plugins");
	bool acts = false;
	if (mw_setup_has_word(plugins, "push_notification"))
		note(f, "push_notification",
		     "plugin push_notification is on for imap: what it announces it "
		     "announces for mail that is put back too",
		     quiet);
	if (!mw_setup_has_word(plugins, "imap_sieve"))
		return;
	for (int i = 1; mw_dovecot_get(d, "plugin/imapsieve_mailbox%d_name", i)[0]; i++)
		acts = acts || rule_acts(d, i);
	if (acts)
		hole(f, "imap_sieve",
		     "plugin imap_sieve runs a script on what is put into INBOX or Sent: "
		     "replay would run it for every message",
		     quiet);
	else
		note(f, "imap_sieve",
		     "plugin imap_sieve runs scripts on what is put into some folders, "
		     "with "
		     "replay --folder too; and those that users attached to folders",
		     quiet);
}

static void
check_filing(const struct mw_dovecot *d, struct mw_advices *f)
{
	if (strcmp(mw_dovecot_get(d, "lmtp_save_to_detail_mailbox"), "yes") == 0)
		note(f, "lmtp_save_to_detail_mailbox",
		     "mail to user+folder is delivered into that folder: replay does so "
		     "with "
		     "--filing detail",
		     "");
	if (!mw_setup_has_word(d->lmtp, "sieve") && !mw_setup_has_word(d->lda, "sieve"))
		return;
	const char *module = text("%s/lib95_imap_filter_sieve_plugin.so",
	                          mw_dovecot_get(d, "mail_plugin_dir"));
	if (module && access(module, F_OK) == 0)
		note(f, "sieve",
		     "users' Sieve scripts file mail on delivery: replay does so with "
		     "--sieve, on a second instance that sends nothing out",
		     "mailwal setup dovecot --quiet-instance");
	else
		note(f, "sieve",
		     text("users' Sieve scripts file mail on delivery; replay can do so "
		          "(--sieve) only with Pigeonhole's imap_filter_sieve, and %s is "
		          "not there",
		          module ? module : "it"),
		     "Debian: package dovecot-sieve");
}

/* The folders marked \Sent, of all namespaces. */
static size_t
count_sent(const struct mw_dovecot *d)
{
	const char *spaces = mw_dovecot_get(d, "namespace"), *ns, *box;
	size_t n = 0;
	while ((ns = mw_dovecot_next(d, &spaces)) != NULL) {
		const char *boxes = mw_dovecot_get(d, "namespace/%s/mailbox", ns);
		while ((box = mw_dovecot_next(d, &boxes)) != NULL)
			n += mw_setup_has_word(
			    mw_dovecot_get(d, "namespace/%s/mailbox/%s/special_use", ns,
			                   box),
			    "\\Sent");
	}
	return n;
}

static void
check_names(const struct mw_dovecot *d, struct mw_advices *f)
{
	const char *ours = d->conf->recipient_delimiter, *sent = d->conf->sent_folder,
	           *theirs = mw_dovecot_get(d, "recipient_delimiter");
	if (strcmp(ours ? ours : "", theirs) != 0)
		note(f, "recipient_delimiter",
		     text("recipient_delimiter is \"%s\" here and \"%s\" in mailwal's "
		          "configuration: user+detail may be another mailbox there than "
		          "on delivery",
		          theirs, ours ? ours : ""),
		     "the same in Postfix, Dovecot and mailwal.conf");
	size_t n = count_sent(d);
	if (sent && sent[0] && !n)
		note(f, "special_use",
		     text("no folder is marked \\Sent: sent mail goes into \"%s\" "
		          "(sent_folder)",
		          sent),
		     text("namespace inbox { mailbox %s { special_use = \\Sent } }",
		          sent));
	const char *capability = mw_dovecot_get(d, "imap_capability");
	if (capability[0] && capability[0] != '+' &&
	    !mw_setup_has_word(capability, "UIDPLUS"))
		note(f, "imap_capability",
		     "imap_capability leaves UIDPLUS out: replay undo, and raising UIDs, "
		     "do "
		     "not work without it",
		     "take imap_capability out");
}

void
mw_dovecot_check(const struct mw_dovecot *d, struct mw_advices *f)
{
	*f = (struct mw_advices){.arena = d->arena};
	check_door(d, f);
	check_masters(d, f);
	check_users(d, f);
	check_imapsieve(d, f);
	check_filing(d, f);
	check_names(d, f);
}
