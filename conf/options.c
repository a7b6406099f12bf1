/* options.c - options.def as data. */
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stddef.h>
#include <stdio.h>

enum {
	RELOAD = MW_CONF_RELOAD,
	SECRET = MW_CONF_SECRET
};

const struct mw_conf_opt mw_conf_opts[MW_CONF_N_OPTS] = {
#define MW_OPT(name, type, member, def, min, max, flags, since, text)                    \
	{name,                                                                           \
	 MW_CONF_##type,                                                                 \
	 offsetof(struct mw_conf, member),                                               \
	 def,                                                                            \
	 min,                                                                            \
	 max,                                                                            \
	 flags,                                                                          \
	 since,                                                                          \
	 text},
#include "conf/options.def"
#undef MW_OPT
};

const struct mw_conf_opt *
mw_conf_find(const struct mw_conf_opt *rows, size_t n, struct mw_str name)
{
	for (size_t i = 0; i < n; i++)
		if (mw_str_eq(mw_strz(rows[i].name), name))
			return &rows[i];
	return NULL;
}

const char *
mw_conf_nearest_opt(const struct mw_conf_opt *rows, size_t n, const char *name)
{
	const char *names[MW_CONF_N_OPTS];

	for (size_t i = 0; i < n; i++)
		names[i] = rows[i].name;
	return mw_nearest(name, names, n);
}

const char *
mw_conf_type_name(enum mw_conf_type t)
{
	static const char *const names[] = {"STRING", "PATH", "ENUM",     "BOOL",
	                                    "INT",    "SIZE", "DURATION", "LIST"};

	return names[t];
}
