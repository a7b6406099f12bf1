/* setup.h - `mailwal setup`: the mail server's settings, read, judged and written.
 *
 * mw_postfix_load reads a Postfix configuration through postconf(1); mw_postfix_check
 * names every way past the journal in it; mw_postfix_plan says what to change. Nothing is
 * changed before mw_postfix_apply. mw_sendmail_load and mw_sendmail_check do the same for
 * a sendmail.cf, mw_sendmail_plan and mw_sendmail_apply for the .mc it is made of.
 * Everything lives in the arena.
 */
#ifndef MW_REPLAY_SETUP_H
#define MW_REPLAY_SETUP_H

#include "journal/base/arena.h"
#include "journal/base/buf.h"
#include "replay/cmd.h"

#include <sys/stat.h>

/* Runs a program (looked up in PATH, no shell), collects standard output and error; at
 * most 30 s. 0 if it ended with status 0, else MW_EUNAVAIL with what it said. */
int mw_setup_run(char *const argv[], struct mw_buf *out, struct mw_err *err) MW_CHECK;

struct mw_pair { /* "name = value" */
	const char *name, *value;
};

struct mw_service { /* a line of master.cf */
	const char *name, *type, *command;
	bool chroot;
};

struct mw_postfix {
	struct mw_arena *arena;
	const char *dir;      /* configuration directory, NULL: Postfix's own */
	struct mw_pair *main; /* settings we look at, $names expanded */
	size_t n_main;
	struct mw_pair *raw; /* the same as written */
	size_t n_raw;
	struct mw_pair *over; /* "service/type/name", per service */
	size_t n_over, cap_over;
	struct mw_service *service;
	size_t n_service;
	const struct mw_conf *conf;
};

enum mw_advice_kind {
	MW_ADVICE_HOLE,
	MW_ADVICE_NOTE
};

struct mw_advice {
	enum mw_advice_kind kind;
	const char *name; /* short, for machines: "default_action" */
	const char *text, *fix;
};

struct mw_advices {
	struct mw_advice *v;
	size_t n, cap, holes;
	struct mw_arena *arena;
};

/* MW_EUNAVAIL: no postconf, or it failed. */
int mw_postfix_load(const struct mw_conf *conf, const char *dir, struct mw_arena *a,
                    struct mw_postfix *ret, struct mw_err *err) MW_CHECK;
/* The same for a Postfix of which nothing is known: as installed, without milters. */
void mw_postfix_unseen(const struct mw_conf *conf, struct mw_arena *a,
                       struct mw_postfix *ret);
/* A setting's value; "" if there is none. */
const char *mw_postfix_get(const struct mw_postfix *p, const char *name);
/* What this service sets for itself, or NULL. */
const char *mw_postfix_override(const struct mw_postfix *p, const struct mw_service *s,
                                const char *name);
void mw_postfix_check(const struct mw_postfix *p, struct mw_advices *ret);
/* What a list of milters that has ours does to us; where: the setting it is of. s: the
 * service whose own settings count, or NULL. */
void mw_postfix_check_list(const struct mw_postfix *p, const struct mw_service *s,
                           struct mw_advices *f, const char *where, const char *list);
/* Each row of a table ("type:name", "proxy:…" too) to row, blanks around key and value
 * cut off; table: its name without proxy. 0; 1: it has an answer for every key, so that
 * no later table is asked; -1: it cannot be looked through. */
typedef void mw_table_row(void *arg, const char *table, struct mw_str key,
                          struct mw_str value);
int mw_postfix_table(const struct mw_postfix *p, struct mw_arena *a, struct mw_str spec,
                     mw_table_row *row, void *arg) MW_CHECK;
/* Rows that answer with DISCARD, in tables of headers, bodies and access(5). */
void mw_postfix_check_discards(const struct mw_postfix *p, struct mw_advices *f);
/* Whom the tables of smtpd_milter_maps send past us. where: the setting's name, with its
 * service. */
void mw_postfix_check_maps(const struct mw_postfix *p, struct mw_advices *f,
                           const char *where, const char *maps);
/* Settings to make, as name and value. 0, or MW_ECONF if no socket of ours can be
 * reached by a chrooted Postfix. */
int mw_postfix_plan(const struct mw_postfix *p, struct mw_pair **ret, size_t *ret_n,
                    struct mw_err *err) MW_CHECK;
int mw_postfix_apply(const struct mw_postfix *p, const struct mw_pair *plan, size_t n,
                     struct mw_err *err) MW_CHECK;
/* `postfix reload`, if it runs; *ret_running says whether. Until then a running Postfix
 * has the old settings, and mail passes by. */
int mw_postfix_reload(const struct mw_postfix *p, bool *ret_running,
                      struct mw_err *err) MW_CHECK;

/* Puts the path of the socket in place of "systemd" in milter_listen: where the unit
 * mailwald.socket of this host listens, else where the one that we install does. */
int mw_setup_places(struct mw_conf *conf, struct mw_err *err) MW_CHECK;

/* A second Dovecot that sends nothing out (mailwal replay --sieve). */
struct mw_quiet {
	char *config;           /* of the running one; NULL: its own default */
	const char *dir, *sink; /* its base_dir; HOST:PORT of our sink */
	unsigned port;
};

/* Its configuration, out of the running one's (doveconf -n). MW_EUNAVAIL. */
int mw_setup_quiet(const struct mw_quiet *q, struct mw_buf *out,
                   struct mw_err *err) MW_CHECK;

/* Is this word in a list parted by commas and blanks (any case)? */
bool mw_setup_has_word(const char *list, const char *word);

/* One entry of smtpd_milters: "unix:…", or "{ unix:…, name=value, … }". */
struct mw_milter_entry {
	struct mw_str text;    /* as written */
	struct mw_str socket;  /* "unix:path", "inet:host:port" */
	struct mw_str options; /* what follows it, without the brace */
};

/* Takes the next word off a list parted by commas and blanks, where what stands in braces
 * is one word; false at the end. */
bool mw_setup_word(struct mw_str *rest, struct mw_str *ret);
/* Without its pair of braces, if it has one, and the blanks within. */
struct mw_str mw_setup_unbrace(struct mw_str s);

/* Takes the next entry off *rest; false at the end. */
bool mw_milter_next(struct mw_str *rest, struct mw_milter_entry *ret);
/* The value of an entry's own option, or empty. */
struct mw_str mw_milter_option(const struct mw_milter_entry *e, const char *name);
/* Is this where our mailwald listens? */
bool mw_milter_is_ours(const struct mw_postfix *p, struct mw_str socket);
/* … and does a service find it there? A socket in the network always. */
bool mw_milter_reaches(const struct mw_postfix *p, struct mw_str socket, bool chrooted);
/* Our entry in a list of milters; false if it is not there. */
bool mw_milter_find(const struct mw_postfix *p, const char *list,
                    struct mw_milter_entry *ret);
/* Our socket as Postfix must write it, or NULL: out of reach from within the chroot. */
const char *mw_milter_address(const struct mw_postfix *p, bool chrooted);

void mw_advice_add(struct mw_advices *f, enum mw_advice_kind kind, const char *name,
                   const char *text, const char *fix);

struct mw_smfilter { /* an X line, or MAIL_FILTER */
	const char *name;
	/* S=, F= (the letter that counts of T, 4, R; empty: none), T= */
	struct mw_str socket, flags, timeouts;
};

struct mw_smdaemon { /* DaemonPortOptions */
	struct mw_str name, filters;
	bool own; /* it has filters of its own */
};

struct mw_sendmail {
	struct mw_arena *arena;
	const struct mw_conf *conf;
	const char *path, *submit; /* the file read, and the submit.cf beside it */
	const char *stale;         /* the .cf, if it is older than its .mc; else NULL */
	const char *access;        /* source of the access table, NULL: none */
	const char *unread; /* a macro of the .mc that is not followed, and where */
	bool mc, has_submit;
	struct mw_str input; /* InputMailFilters */
	struct mw_str mta_host;
	struct mw_smfilter *filter;
	struct mw_smdaemon *daemon;
	size_t n_filter, cap_filter, n_daemon, cap_daemon;
};

/* path: a sendmail.cf, or the .mc that one is made of (m4 itself is not run: calls at the
 * beginning of lines are read). */
int mw_sendmail_load(const struct mw_conf *conf, const char *path, struct mw_arena *a,
                     struct mw_sendmail *ret, struct mw_err *err) MW_CHECK;
void mw_sendmail_check(const struct mw_sendmail *s, struct mw_advices *ret);
/* The filter that is mailwald's, or NULL; *ret_listed: InputMailFilters names it. */
const struct mw_smfilter *mw_sendmail_ours(const struct mw_sendmail *s, bool *ret_listed);

struct mw_smplan { /* what to add to a .mc file */
	struct mw_arena *arena;
	const struct mw_conf *conf;
	const char *mc, *cf, *dir; /* the file, the .cf beside it, their directory */
	struct stat was;           /* of the file when it was read */
	struct mw_str old, add;    /* its text; the line to add, empty: nothing */
	size_t at, line;           /* where: offset, and number of that line */
	bool before_section;       /* that is where MAILER or a LOCAL_ section begins */
	bool newline;              /* the last line lacks its end */
	bool makefile;             /* the directory has one */
	bool msp;                  /* a submit.mc: no filter belongs there */
	const char *kept;          /* the old file's second name, after apply */
};

/* path: a .mc file (MW_EUSAGE else). MW_ECONF: it has something that a person must
 * change. Nothing is written. */
int mw_sendmail_plan(const struct mw_conf *conf, const char *path, struct mw_arena *a,
                     struct mw_smplan *ret, struct mw_err *err) MW_CHECK;
/* Replaces the file, whole and durable; the old one stays as FILE.before-mailwal (or
 * .before-mailwal.N, if there are such). MW_EUNAVAIL: it changed since it was read. */
int mw_sendmail_apply(struct mw_smplan *p, struct mw_err *err) MW_CHECK;
/* After that: `make -C` of the directory, if it has a Makefile; *ret_built: the .cf is
 * new and has the filter. If make fails, or its .cf has no such filter, the old file is
 * put back. */
int mw_sendmail_make(const struct mw_smplan *p, bool *ret_built,
                     struct mw_err *err) MW_CHECK;
/* `setup sendmail --apply`; path NULL: /etc/mail/sendmail.mc. An exit status. */
int mw_setup_sendmail_apply(const struct mw_cli *cli, const char *path, bool yes,
                            struct mw_arena *a);
/* Asks, unless yes. -1: go on; else the exit status: declined, or nobody to ask. */
int mw_setup_confirm(const struct mw_cli *cli, bool yes);

/* One test message through the mail server, by SMTP, and whether the journal has it then.
 * Life: mw_probe_new (looks at the options, opens the journals of cli for reading) →
 * mw_probe_run → mw_probe_free. The texts are as they were given; address must last.
 * One thread. */
struct mw_probe_opts {
	const char *address; /* sender and recipient */
	const char *via;     /* HOST:PORT; NULL: 127.0.0.1:25 */
	const char *wait;    /* seconds for the record to come; NULL: 30 */
};
struct mw_probe;

/* Are the options right? 0 or MW_EUSAGE. */
int mw_probe_check(const struct mw_probe_opts *o, struct mw_err *err) MW_CHECK;
/* MW_EUSAGE, or why a journal cannot be read. */
int mw_probe_new(struct mw_cli *cli, const struct mw_probe_opts *o, struct mw_probe **ret,
                 struct mw_err *err) MW_CHECK;
/* Sends it, waits, says what came of it. The exit status: 1 and *ret_hole where the
 * server took it and the journal lacks it, 69 where the server refused it. */
int mw_probe_run(struct mw_probe *p, bool *ret_hole) MW_CHECK;
void mw_probe_free(struct mw_probe *p); /* NULL ok */

/* What to do for the others: text for people. */
void mw_setup_sendmail(const struct mw_conf *conf, struct mw_buf *out);
/* Only the line for sendmail.mc. */
void mw_sendmail_line(const struct mw_conf *conf, struct mw_buf *out);
void mw_setup_dovecot(const struct mw_conf *conf, struct mw_buf *out);
/* A shell script that raises UIDNEXT and HIGHESTMODSEQ of every folder of every mailbox;
 * config: Dovecot's, NULL: its own default. MW_EUSAGE: a name that no script can hold. */
int mw_setup_raise(const char *config, struct mw_buf *out, struct mw_err *err) MW_CHECK;

#endif
