/* cmd_help.c - mailwal help. */
#include "replay/cmd.h"
#include "replay/select.h"
#include "replay/target.h"

#include <stdio.h>
#include <string.h>

static void
list_json(void)
{
	for (const struct mw_cmd *c = mw_cmds; c->name; c++)
		mw_cli_json(json_pack("{s:s, s:s, s:s}", "command", c->name, "summary",
		                      c->summary, "usage", c->usage));
}

static void
list(void)
{
	puts("Usage: mailwal [-c FILE | -j JOURNAL]... [OPTION]... COMMAND "
	     "[ARGUMENT]...\n\n"
	     "A write-ahead log for mail: what the mail server accepted is kept, and any "
	     "part\n"
	     "of it can be put back.\n\nCommands:");
	for (const struct mw_cmd *c = mw_cmds; c->name; c++)
		printf("  %-10s %s\n", c->name, c->summary);
	puts("\nOptions, before or after the command:\n"
	     "  -c, --config FILE    configuration (default: $MAILWAL_CONFIG, else\n"
	     "                       /etc/mailwal/mailwal.conf); repeat it for several "
	     "journals\n"
	     "  -j, --journal DIR    a journal's directory, in place of journal_dir; "
	     "repeatable\n"
	     "      --key FILE       private recovery key, for an encrypted journal\n"
	     "      --passphrase-file FILE  its passphrase, if it has one\n"
	     "      --json           for machines: one object a line\n"
	     "  -q, --quiet          errors only\n"
	     "  -v, --verbose        more\n"
	     "  -h, --help           this, or help on the command\n"
	     "      --version        the version\n\n"
	     "'mailwal help COMMAND' explains one; mailwal(1) has examples and exit "
	     "codes.");
}

int
mw_cmd_help(struct mw_cli *cli, int argc, char **argv)
{
	if (argc > 2)
		return mw_cli_unknown(cli, mw_cmd_find("help"), argv[2]);
	if (argc < 2) {
		if (cli->json)
			list_json();
		else
			list();
		return 0;
	}
	const struct mw_cmd *c = mw_cmd_find(argv[1]);
	if (!c) {
		struct mw_err err = {0};
		(void)mw_fail(&err, MW_EUSAGE, "no command named '%s'", argv[1]);
		(void)mw_err_hint(&err, "'mailwal help' lists them");
		return mw_cli_error(cli, &err);
	}
	if (cli->json) {
		mw_cli_json(json_pack("{s:s, s:s, s:s}", "command", c->name, "summary",
		                      c->summary, "usage", c->usage));
		return 0;
	}
	printf("mailwal %s: %s\n\nUsage: mailwal %s\n", c->name, c->summary, c->usage);
	if (strstr(c->usage, "[SELECTION]"))
		printf("\n%s", mw_query_usage);
	if (strstr(c->usage, "--to TARGET"))
		printf("\n%s", mw_target_usage);
	return 0;
}
