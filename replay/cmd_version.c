/* cmd_version.c - mailwal version. */
#include "replay/cmd.h"

#include <stdio.h>

/* The on-disk format that this program reads and writes (FORMAT.md). */
static const char format[] = "1";

int
mw_cmd_version(struct mw_cli *cli, int argc, char **argv)
{
	if (argc > 1)
		return mw_cli_unknown(cli, mw_cmd_find("version"), argv[1]);
	if (cli->json) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "program", json_string("mailwal"));
		(void)json_object_set_new(o, "version", json_string(MW_VERSION));
		(void)json_object_set_new(o, "format", json_string(format));
		(void)json_object_set_new(o, "jansson",
		                          json_string(jansson_version_str()));
		mw_cli_json(o);
		return 0;
	}
	printf("mailwal %s (journal format %s)\n", MW_VERSION, format);
	return 0;
}
