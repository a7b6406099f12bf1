/* setup_dovecot.h - `mailwal setup dovecot`: what a Dovecot that mail is replayed into
 * must have, looked for in its configuration, and a master user added to it.
 *
 * Life: mw_dovecot_load reads the configuration through doveconf(1) → mw_dovecot_check
 * names what stands in the way of a replay; or mw_dovecot_plan says what is to be made →
 * mw_dovecot_apply makes it. Dovecot 2.2 and 2.3; 2.4 has other settings and is refused.
 * Everything lives in the arena. One thread.
 */
#ifndef MW_REPLAY_SETUP_DOVECOT_H
#define MW_REPLAY_SETUP_DOVECOT_H

#include "replay/setup.h"

struct mw_dovecot {
	struct mw_arena *arena;
	const struct mw_conf *conf;
	const char *config;     /* as given; NULL: Dovecot's own */
	const char *path, *dir; /* the file that doveconf read; its directory */
	const char *version;    /* "2.3.19.1" */
	struct mw_pair *set;    /* as doveconf -S names them, for protocol imap */
	size_t n_set, cap_set;  /* e.g. "passdb/0/driver" */
	const char *lmtp, *lda; /* mail_plugins of these protocols */
};

struct mw_dovecot_db { /* a passdb or userdb; "" is a setting that it lacks */
	const char *driver, *args, *result_success;
	bool master, pass, deny;
};

struct mw_passwd_file {                     /* what a passwd-file's args say */
	const char *path, *scheme, *format; /* "" where not said */
};

/* config: Dovecot's configuration file, NULL: its own. MW_EUNAVAIL: no doveconf, it
 * failed, or a version that we do not know. */
int mw_dovecot_load(const struct mw_conf *conf, const char *config, struct mw_arena *a,
                    struct mw_dovecot *ret, struct mw_err *err) MW_CHECK;
/* The two halves of that: the first line of doveconf -n, and all of doveconf -S. */
int mw_dovecot_header(struct mw_dovecot *d, struct mw_str text,
                      struct mw_err *err) MW_CHECK;
int mw_dovecot_settings(struct mw_dovecot *d, struct mw_str text,
                        struct mw_err *err) MW_CHECK;

/* A setting's value, one level of $name expanded; "" if there is none. */
const char *mw_dovecot_get(const struct mw_dovecot *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The next name in a list ("passdb", "namespace"), NULL at the end; *rest begins as the
 * list's value. */
const char *mw_dovecot_next(const struct mw_dovecot *d, const char **rest);
/* The next passdb or userdb (kind); false at the end. */
bool mw_dovecot_db(const struct mw_dovecot *d, const char *kind, const char **rest,
                   struct mw_dovecot_db *ret);
void mw_dovecot_passwd_file(const struct mw_dovecot *d, const char *args,
                            struct mw_passwd_file *ret);
/* Can one of the passdbs that users have be asked for a user without his password? */
bool mw_dovecot_can_ask(const struct mw_dovecot *d);
/* Do ACLs keep a master user out of the users' folders? */
bool mw_dovecot_acl_bars(const struct mw_dovecot *d);

/* What is wrong with a passwd-file of master users. */
void mw_dovecot_check_file(const struct mw_dovecot *d, const char *args,
                           struct mw_advices *f);
void mw_dovecot_check(const struct mw_dovecot *d, struct mw_advices *ret);

struct mw_dvplan {
	const struct mw_dovecot *d;
	const char *conf, *master;   /* the two files */
	const char *text;            /* of conf; NULL: it is there already */
	const char *other;           /* another master user's passdb, or NULL */
	bool make_master;            /* the password file is not there */
	bool made_conf, made_master; /* by mw_dovecot_apply */
	const char *group;           /* of the password file */
};

/* Says what is missing; nothing is written. MW_ECONF: a person must look first. */
int mw_dovecot_plan(const struct mw_dovecot *d, struct mw_dvplan *ret,
                    struct mw_err *err) MW_CHECK;
/* Makes the files, whole and durable, and reads the configuration again: if doveconf
 * refuses it, or the master user is not in it, they are removed again. */
int mw_dovecot_apply(struct mw_dvplan *p, struct mw_err *err) MW_CHECK;
/* `doveadm reload`, if it runs; *ret_running says whether. */
int mw_dovecot_reload(const struct mw_dovecot *d, bool *ret_running,
                      struct mw_err *err) MW_CHECK;
/* The configuration file that makes the master user. d NULL: for a Dovecot of which
 * nothing is known. */
void mw_dovecot_text(const struct mw_dovecot *d, const char *master, struct mw_buf *out);

/* `setup dovecot`, or with apply. An exit status. */
int mw_setup_dovecot_apply(const struct mw_cli *cli, const char *config, bool apply,
                           bool yes, struct mw_arena *a);

#endif
