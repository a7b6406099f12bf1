/* usage.c - what a command's usage text says of its options: known before anything is
 * opened, so that wrong usage is told as such on any host. */
#include "replay/cmd.h"

#include "journal/base/str.h"
#include "journal/base/util.h"
#include "replay/select.h"

#include <ctype.h>
#include <string.h>

/* Options that every command takes, as in a usage text. */
static const char globals[] =
    "-c FILE|--config FILE|-j DIR|--journal DIR|--key FILE|"
    "--passphrase-file FILE|--json|-q|--quiet|-v|--verbose|-h|--help";
static const char leading[] = "-V|--version";

static bool
in_word(char c)
{
	return isalnum((unsigned char)c) || c == '-';
}

/* A value follows after one blank; "-S, --since T" has it for both. */
static enum mw_opt_kind
kind_at(const char *after, bool letter)
{
	if (letter && after[0] == ',' && after[1] == ' ' && after[2] == '-') {
		after += 2;
		while (in_word(*after))
			after++;
	}
	return after[0] == ' ' && isalnum((unsigned char)after[1]) ? MW_OPT_VALUE
	                                                           : MW_OPT_FLAG;
}

static enum mw_opt_kind
kind_in(const char *usage, struct mw_str opt)
{
	enum mw_opt_kind kind = MW_OPT_UNKNOWN;
	for (const char *p = usage; (p = memmem(p, strlen(p), opt.p, opt.n)) != NULL;
	     p += opt.n) {
		if ((p > usage && in_word(p[-1])) || in_word(p[opt.n]))
			continue;
		kind = MW_MAX(kind, kind_at(p + opt.n, opt.n == 2));
	}
	return kind;
}

enum mw_opt_kind
mw_cli_kind(const struct mw_cmd *cmd, struct mw_str opt)
{
	enum mw_opt_kind kind = kind_in(globals, opt);
	if (kind == MW_OPT_UNKNOWN && !cmd)
		return kind_in(leading, opt);
	if (kind == MW_OPT_UNKNOWN)
		kind = kind_in(cmd->usage, opt);
	if (kind == MW_OPT_UNKNOWN && strstr(cmd->usage, "SELECTION"))
		kind = kind_in(mw_query_usage, opt);
	return kind;
}

bool
mw_cli_bundled(const struct mw_cmd *cmd, const char *arg)
{
	if (arg[0] != '-' || !isalpha((unsigned char)arg[1]) || arg[2] == '\0')
		return false;
	for (const char *p = arg + 1; *p; p++) {
		char one[2] = {'-', *p};
		switch (mw_cli_kind(cmd, mw_str(one, 2))) {
		case MW_OPT_FLAG:
			break;
		case MW_OPT_VALUE: /* the rest is its value */
			return p > arg + 1;
		default:
			return false;
		}
	}
	return true;
}

/* The name of an option, without a value that is attached to it. */
static struct mw_str
name_of(const char *arg)
{
	return mw_str(arg, arg[1] == '-' ? strcspn(arg, "=") : 2);
}

int
mw_cli_check(const struct mw_cli *cli, const struct mw_cmd *cmd, int argc, char **argv)
{
	unsigned operands = 0, targets = 0;
	bool ended = false; /* by "--" */
	for (int i = 1; i < argc; i++) {
		bool option = !ended && argv[i][0] == '-' && argv[i][1];
		if (option && strcmp(argv[i], "--") == 0) {
			ended = true;
			continue;
		}
		if (!option) {
			if (++operands > cmd->operands)
				return mw_cli_unknown(cli, cmd, argv[i]);
			continue;
		}
		struct mw_str name = name_of(argv[i]);
		bool attached = argv[i][name.n] != '\0';
		if (mw_str_eq(name, mw_strz("--to")) && targets++)
			return mw_cli_usage(cli, cmd,
			                    "--to is given twice: one target at a time");
		enum mw_opt_kind kind = mw_cli_kind(cmd, name);
		if (kind == MW_OPT_UNKNOWN ||
		    (kind == MW_OPT_FLAG && attached && name.n == 2))
			return mw_cli_unknown(cli, cmd, argv[i]);
		if (kind == MW_OPT_FLAG && attached)
			return mw_cli_usage(cli, cmd, "%.*s takes no value", (int)name.n,
			                    name.p);
		if (kind == MW_OPT_VALUE && !attached && ++i >= argc)
			return mw_cli_usage(cli, cmd, "%s needs a value", argv[argc - 1]);
	}
	return 0;
}
