/* options.c - options.def as data, and what belongs into sections. */
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

const struct mw_conf_opt mw_conf_retain_opts[MW_CONF_N_RETAIN] = {
    {"match", MW_CONF_LIST, offsetof(struct mw_conf_retain, match), "", "", "", RELOAD,
     "0.1",
     "Which mail the rule is for: domain:DOMAIN or rcpt:ADDRESS (of a recipient), "
     "sender:ADDRESS, direction:in|out|internal. All must match; without any, every "
     "message does."},
    {"keep", MW_CONF_DURATION, offsetof(struct mw_conf_retain, keep_us), "0", "1s", "",
     RELOAD, "0.1", "Records older than this may be pruned."},
    {"max_size", MW_CONF_SIZE, offsetof(struct mw_conf_retain, max_size), "0", "1M", "",
     RELOAD, "0.1",
     "The oldest records of the rule may be pruned when together they take more than "
     "this."},
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
	const char *names[MW_CONF_N_OPTS + MW_CONF_N_RETAIN];

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
