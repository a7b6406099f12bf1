/* main.c - mailwal: global options, the table of commands, one dispatch. */
#include "replay/cmd.h"

const struct mw_cmd mw_cmds[] = {
	{NULL, NULL, 0, NULL, NULL},
};

int
main(void)
{
	return 64;
}
