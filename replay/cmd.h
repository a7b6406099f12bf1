/* cmd.h - the command line: one table of commands; global options first.
 *
 * A command is a function over the parsed globals and its own arguments; it returns an
 * exit status (0, 1, 3, sysexits or 130) and prints errors through mw_cli_error. What it
 * needs is in the table, so that main opens and refuses in one place: when the command
 * calls mw_cli_begin, its arguments looked at.
 */
#ifndef MW_REPLAY_CMD_H
#define MW_REPLAY_CMD_H

#include "conf/conf.h"
#include "journal/base/err.h"
#include "journal/store/store.h"

#include <jansson.h>
#include <stdbool.h>

enum mw_need {
	MW_NEED_CONF = 1,        /* a configuration that loads */
	MW_NEED_JOURNAL = 2,     /* at least one journal, opened for reading */
	MW_NEED_ONE_JOURNAL = 4, /* exactly one */
	MW_NEED_SET = 8,         /* all are read as one: none of them twice, nor a copy */
};

struct mw_cli {
	struct mw_conf *conf;
	struct mw_conf **confs; /* of all -c: [0] is conf */
	size_t n_confs;
	const char *conf_file; /* NULL: none */
	char **journals;       /* directories: -j, else journal_dir */
	size_t n_journals;
	struct mw_store **stores; /* opened for reading when the command needs them */
	char **keys;              /* --key */
	size_t n_keys;
	uint8_t *secret; /* their private keys, 32 bytes each */
	size_t n_secret;
	bool json, quiet;
	int verbose;
	/* What mw_cli_begin does; NULL: nothing is left to do. */
	int (*begin)(struct mw_cli *cli);
	bool begun;
};

/* The configuration whose journal that is; else the first. */
const struct mw_conf *mw_cli_conf_of(const struct mw_cli *cli, size_t journal);

struct mw_cmd {
	const char *name;
	int (*fn)(struct mw_cli *cli, int argc, char **argv); /* argv[0] is the name */
	unsigned needs;                                       /* enum mw_need */
	const char *summary; /* one line for `mailwal help` */
	/* After "Usage: mailwal ", then the options, then an example. Also read by the
	 * parser: an option that takes a value is followed by one blank and a word; one
	 * without is followed by a bracket, a bar, a line end or two blanks. With the
	 * word SELECTION in it, the options of select.h are the command's own too; every
	 * option that it takes is in one or the other. */
	const char *usage;
	unsigned
	    operands; /* arguments that are no options, its verbs among them: at most */
};
#define MW_ANY_OPERANDS ((unsigned)-1)

/* The table, in replay/main.c; ends with a NULL name. */
extern const struct mw_cmd mw_cmds[];
const struct mw_cmd *mw_cmd_find(const char *name);

/* Prints "mailwal: TEXT" and "  hint: …" to standard error; returns the exit status.
 * With --json also {"message_type":"error", "code", "name", "message", "hint"} there. */
int mw_cli_error(const struct mw_cli *cli, const struct mw_err *err);
/* "mailwal: TEXT" to standard error, unless --quiet; arg: the struct mw_cli. */
void mw_cli_note(void *arg, const char *text);
/* MW_EUSAGE with the command's usage line. */
int mw_cli_usage(const struct mw_cli *cli, const struct mw_cmd *cmd, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Takes argv[*i] if it is the option `names` ("--limit", or "-n|--dry-run"): 1, else 0.
 * With ret_value the option needs a value, "--opt VALUE", "--opt=VALUE", "-o VALUE" or
 * "-oVALUE", and *i moves past it; MW_EUSAGE if the value is missing, or there is one
 * where none belongs. */
int mw_cli_option(int argc, char **argv, int *i, const char *names,
                  const char **ret_value, struct mw_err *err);
/* The same for several at once: what takes a value, and what is a flag. */
struct mw_cli_opt {
	const char *names;
	const char **value; /* NULL: a flag */
	bool *flag;
};
int mw_cli_options(const struct mw_cli_opt *opt, size_t n, int argc, char **argv, int *i,
                   struct mw_err *err);
/* For an argument that nothing took: an unknown option (with the nearest known one) or
 * one argument too many. Returns the exit status of MW_EUSAGE. */
int mw_cli_unknown(const struct mw_cli *cli, const struct mw_cmd *cmd, const char *arg);
/* What the usage texts say of an option ("-q", "--since"): of the command and of those
 * that all take; cmd NULL: before the command. */
enum mw_opt_kind {
	MW_OPT_UNKNOWN,
	MW_OPT_FLAG,
	MW_OPT_VALUE
};
enum mw_opt_kind mw_cli_kind(const struct mw_cmd *cmd, struct mw_str opt);
/* Is arg several one-letter options in one, "-qv", the last perhaps with its value? */
bool mw_cli_bundled(const struct mw_cmd *cmd, const char *arg);
/* Before anything is opened: is each option one of the command's, has its value or none,
 * and are the operands not too many? 0, or the exit status of MW_EUSAGE, which is said.
 * The command's function still looks at what they mean. */
int mw_cli_check(const struct mw_cli *cli, const struct mw_cmd *cmd, int argc,
                 char **argv);
/* Every command calls it when it knows that its arguments are right, and before it uses
 * the configuration, keys or journals: reads and opens what the table says it needs. 0,
 * or an exit status, which is said. A second call does nothing. */
int mw_cli_begin(struct mw_cli *cli) MW_CHECK;
/* Opens journal k of the set for reading: 0 or the store's error. */
int mw_cli_open(const struct mw_cli *cli, size_t k, struct mw_store **ret,
                struct mw_err *err) MW_CHECK;
/* Fills cli->secret from cli->keys. passphrase_file NULL: they have none. MW_EKEY,
 * MW_EPERM, MW_ENOTFOUND. */
int mw_cli_load_keys(struct mw_cli *cli, const char *passphrase_file,
                     struct mw_err *err) MW_CHECK;
void mw_cli_wipe_keys(struct mw_cli *cli);
/* Before writing to a journal as root: takes on the effective identity of its owner, so
 * that no file in it becomes root's, which the daemon could not use. mw_cli_as_self goes
 * back. 0, or MW_EPERM and the like. */
int mw_cli_as_owner(const char *dir, struct mw_err *err) MW_CHECK;
void mw_cli_as_self(void);
/* After a failure to write to a journal: MW_EPERM gets this hint, unless it has one, or
 * no right in the world would help. Returns the code. */
int mw_cli_owner_hint(struct mw_err *err, const char *hint);
/* After output on stdout: 0, or MW_EIO if it did not get out. */
int mw_cli_flush(struct mw_err *err) MW_CHECK;
/* From now on counts the duration_s of a summary that says none itself. */
void mw_cli_json_begin(void);
/* One JSON object on one line of standard output; takes the reference. A summary gets
 * the members that every summary has, unless it has them already. */
void mw_cli_json(json_t *take);
/* A JSON string from mail bytes: invalid UTF-8 becomes U+FFFD, NUL becomes U+FFFD. */
json_t *mw_json_str(struct mw_str s);
/* Set by SIGINT/SIGTERM: long jobs stop at the next consistent point and return 130. */
bool mw_cli_stopped(void);
void mw_cli_catch_signals(void);

/* Text for people: control characters (C1 too) as \xNN, invalid UTF-8 as \xNN. With
 * keep_lines, LF and TAB stay, and CRLF becomes LF. */
void mw_text_safe(struct mw_str s, bool keep_lines, struct mw_buf *out);
/* A Subject or From as people read it: encoded words of any charset decoded, valid
 * UTF-8. */
void mw_text_header(struct mw_str raw, struct mw_buf *out);

/* One function per command, each in replay/cmd_<verb>.c. */
int mw_cmd_init(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_config(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_setup(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_status(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_list(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_show(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_export(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_replay(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_drill(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_follow(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_import(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_recover(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_mark(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_outcomes(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_audit(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_hold(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_prune(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_erase(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_verify(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_reindex(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_checkpoint(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_keys(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_version(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_help(struct mw_cli *cli, int argc, char **argv);

#endif
