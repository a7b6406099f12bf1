/* main.c - mailwal: global options, the table of commands, one dispatch. */
#include "replay/cmd.h"

#include "journal/base/buf.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct mw_cmd mw_cmds[] = {
#include "replay/commands.def"
    {NULL, NULL, 0, NULL, NULL, 0},
};

const struct mw_cmd *
mw_cmd_find(const char *name)
{
	for (const struct mw_cmd *c = mw_cmds; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

struct globals {
	struct mw_cli cli; /* the first: begin() */
	const struct mw_cmd *cmd;
	char **conf_files;
	size_t n_conf_files;
	struct mw_conf **confs; /* [0] is cli.conf */
	const char *passphrase_file;
	bool help, version;
};

static int
global_option(struct globals *g, int argc, char **argv, int *i, struct mw_err *err)
{
	const char *v = NULL;
	int r;
	if ((r = mw_cli_option(argc, argv, i, "-c|--config", &v, err)) != 0) {
		if (r > 0 && *v == '\0')
			r = mw_fail(err, MW_EUSAGE, "--config: the name is empty");
		if (r > 0)
			g->conf_files[g->n_conf_files++] = strdup(v);
	} else if ((r = mw_cli_option(argc, argv, i, "-j|--journal", &v, err)) != 0) {
		if (r > 0 && *v == '\0')
			r = mw_fail(err, MW_EUSAGE, "--journal: the name is empty");
		if (r > 0)
			g->cli.journals[g->cli.n_journals++] = strdup(v);
	} else if ((r = mw_cli_option(argc, argv, i, "--key", &v, err)) != 0) {
		if (r > 0)
			g->cli.keys[g->cli.n_keys++] = strdup(v);
	} else if ((r = mw_cli_option(argc, argv, i, "--passphrase-file",
	                              &g->passphrase_file, err)) != 0) {
		return r;
	} else if ((r = mw_cli_option(argc, argv, i, "--json", NULL, err)) != 0) {
		g->cli.json = true;
	} else if ((r = mw_cli_option(argc, argv, i, "-q|--quiet", NULL, err)) != 0) {
		g->cli.quiet = true;
	} else if ((r = mw_cli_option(argc, argv, i, "-v|--verbose", NULL, err)) != 0) {
		g->cli.verbose++;
	} else if ((r = mw_cli_option(argc, argv, i, "-h|--help", NULL, err)) != 0) {
		g->help = true;
	}
	return r;
}

/* Is there an operand after the "--" at argv[0] that would look like an option without?
 */
static bool
any_dashed(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (argv[i][0] == '-' && argv[i][1])
			return true;
	return false;
}

/* "-qv" is "-q" and "-v": takes the first off argv[i] as an option of its own, which the
 * caller looks at, and lets the rest begin with a dash. NULL where it is none such. */
static char *
unbundle(const struct mw_cmd *cmd, char **arg)
{
	static char one[128][3];
	if (!mw_cli_bundled(cmd, *arg))
		return NULL;
	char letter = (*arg)[1], *opt = one[letter & 0x7f];
	opt[0] = '-';
	opt[1] = letter;
	++*arg;
	(*arg)[0] = '-';
	return opt;
}

/* Globals may stand after the command too; they are taken out, up to "--", unless they
 * are the value of the option before. The "--" itself is left out where the command need
 * not know of it. Returns the command's argc. */
static int
take_globals(struct globals *g, const struct mw_cmd *cmd, int argc, char **argv,
             char **ret_argv, struct mw_err *err)
{
	int n = 0;
	ret_argv[n++] = argv[0];
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") == 0) {
			i += !any_dashed(argc - i, argv + i);
			while (i < argc)
				ret_argv[n++] = argv[i++];
			break;
		}
		char *one = unbundle(cmd, &argv[i]);
		int k = 0, r = one ? global_option(g, 1, &one, &k, err)
		                   : global_option(g, argc, argv, &i, err);
		if (r < 0)
			return r;
		if (one) {
			i--; /* the rest comes next */
			if (r == 0)
				ret_argv[n++] = one;
		}
		if (r > 0 || one)
			continue;
		bool option = argv[i][0] == '-' && argv[i][1];
		ret_argv[n++] = argv[i];
		if (option && i + 1 < argc &&
		    mw_cli_kind(cmd, mw_strz(argv[i])) == MW_OPT_VALUE)
			ret_argv[n++] = argv[++i];
	}
	ret_argv[n] = NULL;
	return n;
}

static int
load_conf(struct globals *g, const char *file, struct mw_conf **ret)
{
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	int r = mw_conf_load(file, ret, &report, &err);
	if (report.n && (r < 0 || !g->cli.quiet))
		fputs(mw_buf_cstr(&report), stderr);
	return r < 0 ? mw_cli_error(&g->cli, &err) : 0;
}

/* All -c files; their journals unless -j names some. */
static int
load_confs(struct globals *g)
{
	size_t n = g->n_conf_files ? g->n_conf_files : 1;
	bool by_conf = g->cli.n_journals == 0;
	for (size_t k = 0; k < n; k++) {
		const char *file =
		    g->n_conf_files ? g->conf_files[k] : mw_conf_default_file();
		int status = load_conf(g, file, &g->confs[k]);
		if (status != 0)
			return status;
		if (by_conf)
			g->cli.journals[g->cli.n_journals++] =
			    strdup(g->confs[k]->journal_dir);
	}
	g->cli.conf = g->confs[0];
	g->cli.confs = g->confs;
	g->cli.n_confs = n;
	g->cli.conf_file = g->confs[0]->file;
	return 0;
}

static int
load_keys(struct globals *g)
{
	struct mw_err err = {0};
	if (mw_cli_load_keys(&g->cli, g->passphrase_file, &err) < 0)
		return mw_cli_error(&g->cli, &err);
	return 0;
}

static int
open_journals(struct globals *g)
{
	for (size_t k = 0; k < g->cli.n_journals; k++) {
		struct mw_err err = {0};
		if (mw_cli_open(&g->cli, k, &g->cli.stores[k], &err) < 0)
			return mw_cli_error(&g->cli, &err);
	}
	return 0;
}

/* What two copies of one journal hold would come twice, the erased too. */
static int
check_set(struct globals *g)
{
	struct mw_err err = {0};
	const struct mw_cli *c = &g->cli;
	for (size_t k = 1; k < c->n_journals; k++)
		for (size_t i = 0; i < k; i++) {
			if (memcmp(mw_store_id(c->stores[i]), mw_store_id(c->stores[k]),
			           MW_ID_LEN) != 0)
				continue;
			(void)mw_fail(&err, MW_EUSAGE,
			              "%s and %s are one journal, or copies of it",
			              c->journals[i], c->journals[k]);
			(void)mw_err_hint(&err, "name one of them: the newest");
			return mw_cli_error(&g->cli, &err);
		}
	return 0;
}

/* Monitoring knows 0 to 3 only, even when the configuration is wrong. */
static int
nagios_status(const struct mw_cmd *cmd, int argc, char **argv, int status)
{
	for (int i = 1; i < argc && status > 3; i++)
		if (cmd->fn == mw_cmd_status && strcmp(argv[i], "--nagios") == 0) {
			puts("MAILWAL UNKNOWN - wrong configuration or usage");
			return 3;
		}
	return status;
}

/* mw_cli_begin: what the command needs by its row of the table. */
static int
begin(struct mw_cli *cli)
{
	struct globals *g = (struct globals *)cli;
	unsigned needs = g->cmd->needs;
	int status = needs ? load_confs(g) : 0;
	if (status == 0 && (needs & MW_NEED_ONE_JOURNAL) && cli->n_journals != 1)
		status = mw_cli_usage(cli, g->cmd, "works on one journal at a time");
	if (status == 0)
		status = load_keys(g);
	if (status == 0 && (needs & (MW_NEED_JOURNAL | MW_NEED_ONE_JOURNAL)))
		status = open_journals(g);
	if (status == 0 && (needs & MW_NEED_SET))
		status = check_set(g);
	if (status == 0)
		mw_cli_catch_signals();
	return status;
}

static int
run(struct globals *g, const struct mw_cmd *cmd, int argc, char **argv)
{
	if (g->n_conf_files)
		g->cli.conf_file = g->conf_files[0];
	g->cmd = cmd;
	g->cli.begin = begin;
	int status = mw_cli_check(&g->cli, cmd, argc, argv);
	if (status == 0) {
		status = cmd->fn(&g->cli, argc, argv);
		mw_assert(status != 0 || g->cli.begun || !cmd->needs);
	}
	status = nagios_status(cmd, argc, argv, status);
	struct mw_err err = {0};
	if (mw_cli_flush(&err) < 0 && (status == 0 || status == 1))
		status = mw_cli_error(&g->cli, &err);
	return status;
}

static void
globals_done(struct globals *g)
{
	for (size_t k = 0; k < g->cli.n_journals; k++) {
		if (g->cli.stores[k])
			mw_store_close(g->cli.stores[k]);
		free(g->cli.journals[k]);
	}
	for (size_t k = 0; k < g->n_conf_files || k < 1; k++)
		mw_conf_free(g->confs[k]);
	for (size_t k = 0; k < g->n_conf_files; k++)
		free(g->conf_files[k]);
	for (size_t k = 0; k < g->cli.n_keys; k++)
		free(g->cli.keys[k]);
	mw_cli_wipe_keys(&g->cli);
	free(g->cli.stores);
	free(g->cli.journals);
	free(g->conf_files);
	free(g->confs);
	free(g->cli.keys);
}

static int
unknown_command(const struct mw_cli *cli, const char *name)
{
	const char *names[64];
	size_t n = 0;
	for (const struct mw_cmd *c = mw_cmds; c->name && n < MW_COUNT(names); c++)
		names[n++] = c->name;
	const char *near = mw_nearest(name, names, n);
	if (near)
		return mw_cli_usage(cli, NULL, "unknown command '%s'; did you mean '%s'?",
		                    name, near);
	return mw_cli_usage(cli, NULL, "unknown command '%s'", name);
}

static int
dispatch(struct globals *g, int argc, char **argv, char **sub)
{
	struct mw_err err = {0};
	int i;
	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		char *one = unbundle(NULL, &argv[i]), *opt = one ? one : argv[i];
		int k = 0, r = 1;
		if (strcmp(opt, "--version") == 0 || strcmp(opt, "-V") == 0)
			g->version = true;
		else
			r = one ? global_option(g, 1, &one, &k, &err)
			        : global_option(g, argc, argv, &i, &err);
		i -= one != NULL; /* the rest comes next */
		if (r < 0)
			return mw_cli_error(&g->cli, &err);
		if (r == 0)
			return mw_cli_usage(&g->cli, NULL, "unknown option '%s'",
			                    argv[i]);
	}
	const char *name = g->version ? "version" : i < argc ? argv[i] : NULL;
	if (!name && !g->help)
		return mw_cli_usage(&g->cli, NULL, "no command given");
	const struct mw_cmd *cmd = mw_cmd_find(name ? name : "help");
	if (!cmd)
		return unknown_command(&g->cli, name);
	sub[0] = argv[0];
	int n = 1;
	if (i < argc && !g->version) {
		n = take_globals(g, cmd, argc - i, argv + i, sub, &err);
		if (n < 0)
			return mw_cli_error(&g->cli, &err);
	}
	if (g->help && name) {
		static char help[] = "help";
		char *args[] = {help, argv[i], NULL};
		return run(g, mw_cmd_find("help"), g->version ? 1 : 2, args);
	}
	return run(g, cmd, n, sub);
}

/* Subjects are UTF-8 whatever cron's environment says. */
static void
set_locale(void)
{
	if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		(void)setlocale(LC_CTYPE, "C.UTF-8");
}

int
main(int argc, char **argv)
{
	mw_fs_keep_standard();
	(void)signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is a full disk */
	size_t room = (size_t)argc + 2;
	for (int i = 1; i < argc; i++) /* "-abc" may become three */
		room += argv[i][0] == '-' ? strlen(argv[i]) : 0;
	struct globals g = {0};
	mw_cli_json_begin();
	set_locale();
	g.cli.journals = calloc(room, sizeof *g.cli.journals);
	g.cli.stores = calloc(room, sizeof(struct mw_store *));
	g.cli.keys = calloc(room, sizeof *g.cli.keys);
	g.conf_files = calloc(room, sizeof *g.conf_files);
	g.confs = calloc(room, sizeof *g.confs);
	MW_AUTOFREE char **sub = calloc(room, sizeof *sub);
	if (!g.cli.journals || !g.cli.stores || !g.cli.keys || !g.conf_files ||
	    !g.confs || !sub) {
		fputs("mailwal: out of memory\n", stderr);
		return mw_err_exit(MW_ENOMEM);
	}
	int status = dispatch(&g, argc, argv, sub);
	globals_done(&g);
	return status;
}
