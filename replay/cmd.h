/* cmd.h - the command line: one table of commands; global options first.
 *
 * A command is a function over the parsed globals and its own arguments; it returns an
 * exit status (0, 1, 3, sysexits or 130) and prints errors through mw_cli_error. What it
 * needs is in the table, so that main opens and refuses in one place.
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
};

struct mw_cli {
	struct mw_conf *conf;
	const char *conf_file; /* NULL: none */
	char **journals;       /* directories: -j, else journal_dir */
	size_t n_journals;
	struct mw_store **stores; /* opened for reading when the command needs them */
	char **keys;              /* --key */
	size_t n_keys;
	bool json, quiet;
	int verbose;
};

struct mw_cmd {
	const char *name;
	int (*fn)(struct mw_cli *cli, int argc, char **argv); /* argv[0] is the name */
	unsigned needs;      /* enum mw_need */
	const char *summary; /* one line for `mailwal help` */
	const char *usage;   /* after "Usage: mailwal ", then the options, then an example */
};

/* The table, in replay/main.c; ends with a NULL name. */
extern const struct mw_cmd mw_cmds[];
const struct mw_cmd *mw_cmd_find(const char *name);

/* Prints "mailwal: TEXT" and "  hint: …" to standard error; returns the exit status.
 * With --json also {"message_type":"error", "code", "name", "message", "hint"} there. */
int mw_cli_error(const struct mw_cli *cli, const struct mw_err *err);
/* MW_EUSAGE with the command's usage line. */
int mw_cli_usage(const struct mw_cli *cli, const struct mw_cmd *cmd, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* One JSON object on one line of standard output; takes the reference. */
void mw_cli_json(json_t *take);
/* A JSON string from mail bytes: invalid UTF-8 becomes U+FFFD, NUL becomes U+FFFD. */
json_t *mw_json_str(struct mw_str s);
/* Set by SIGINT/SIGTERM: long jobs stop at the next consistent point and return 130. */
bool mw_cli_stopped(void);

/* One function per command, each in replay/cmd_<verb>.c. */
int mw_cmd_init(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_config(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_setup(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_status(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_list(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_show(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_export(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_replay(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_mark(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_verify(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_reindex(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_version(struct mw_cli *cli, int argc, char **argv);
int mw_cmd_help(struct mw_cli *cli, int argc, char **argv);

#endif
