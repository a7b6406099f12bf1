#include "replay/cmd.h"

#include <string.h>

/* Is arg one of the bar-separated names? Sets the place of an attached value. */
static bool
named(const char *arg, const char *names, const char **ret_attached)
{
	while (*names) {
		size_t n = strcspn(names, "|");
		if (strncmp(arg, names, n) == 0) {
			bool longform = n > 2;
			if (arg[n] == '\0') {
				*ret_attached = NULL;
				return true;
			}
			if (longform && arg[n] == '=') {
				*ret_attached = arg + n + 1;
				return true;
			}
			if (!longform) {
				*ret_attached = arg + n;
				return true;
			}
		}
		names += n + (names[n] == '|');
	}
	return false;
}

int
mw_cli_option(int argc, char **argv, int *i, const char *names, const char **ret_value,
              struct mw_err *err)
{
	const char *arg = argv[*i], *attached = NULL;
	if (arg[0] != '-' || !named(arg, names, &attached))
		return 0;
	if (!ret_value) {
		if (attached && arg[1] != '-')
			return 0; /* "-nx": some other option, or none */
		if (attached)
			return mw_fail(err, MW_EUSAGE, "%.*s takes no value",
			               (int)strcspn(arg, "="), arg);
		return 1;
	}
	if (attached) {
		*ret_value = attached;
		return 1;
	}
	if (*i + 1 >= argc)
		return mw_fail(err, MW_EUSAGE, "%s needs a value", arg);
	*ret_value = argv[++*i];
	return 1;
}

int
mw_cli_options(const struct mw_cli_opt *opt, size_t n, int argc, char **argv, int *i,
               struct mw_err *err)
{
	for (size_t k = 0; k < n; k++) {
		int r = mw_cli_option(argc, argv, i, opt[k].names, opt[k].value, err);
		if (r > 0 && opt[k].flag)
			*opt[k].flag = true;
		if (r)
			return r;
	}
	return 0;
}
