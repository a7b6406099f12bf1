/* conf.h - the configuration: one table (options.def) behind parser, show, explain,
 * sample file and manual page (mailwal.conf(5)).
 *
 * Grammar: `key = value`, `section name { … }`, `!include PATTERN`, '#' comments. Every
 * setting has a default. Loading is all or nothing; all mistakes are reported at once,
 * each with file:line:column, the line with a marker under it, and the nearest known
 * name.
 */
#ifndef MW_CONF_CONF_H
#define MW_CONF_CONF_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct mw_conf_list {
	char **v;
	size_t n;
};

struct mw_conf_retain { /* retain NAME { … } */
	char *name;
	struct mw_conf_list match; /* "class:lists", "domain:example.org", … */
	int64_t keep_us;
	uint64_t max_size;
};

/* capture NAME { … }: sections in the order of the file; see milter/rules.h. */
struct mw_conf_capture {
	char *name;
	struct mw_conf_list match; /* "direction:in", "header:List-Id", … */
	bool journal;
	int on_failure; /* enum mw_class_failure */
};

enum mw_class_failure {
	MW_CLASS_GLOBAL = 0, /* as the setting on_failure */
	MW_CLASS_TEMPFAIL = 1,
	MW_CLASS_ACCEPT = 2
};

struct mw_conf {
	char *file; /* as loaded; NULL: defaults only */
#define MW_OPT(name, type, member, def, min, max, flags, since, text)                    \
	MW_CONF_CTYPE_##type member;
#define MW_CONF_CTYPE_STRING   char *
#define MW_CONF_CTYPE_PATH     char *
#define MW_CONF_CTYPE_ENUM     int
#define MW_CONF_CTYPE_BOOL     bool
#define MW_CONF_CTYPE_INT      int64_t
#define MW_CONF_CTYPE_SIZE     uint64_t
#define MW_CONF_CTYPE_DURATION int64_t /* µs */
#define MW_CONF_CTYPE_LIST     struct mw_conf_list
#include "conf/options.def"
#undef MW_OPT
	struct mw_conf_retain *retain;
	size_t n_retain;
	struct mw_conf_capture *capture;
	size_t n_capture;
};

enum mw_on_failure {
	MW_ON_FAILURE_TEMPFAIL = 0,
	MW_ON_FAILURE_ACCEPT = 1
};

/* Loads file, or the defaults when file is NULL. On failure MW_ECONF (or MW_ENOTFOUND,
 * MW_EPERM for the file itself) and all diagnostics in `report`, ready to print. Warnings
 * are in `report` on success too. The result is freed with mw_conf_free. */
int mw_conf_load(const char *file, struct mw_conf **ret, struct mw_buf *report,
                 struct mw_err *err) MW_CHECK;

/* A look at each value that a file gives one setting, beyond what its text shows: is the
 * file there, is it a key? 0, or an error whose text is told at the value's place. */
struct mw_conf_probe {
	const char *name;
	int (*fn)(const char *text, struct mw_err *err);
};

/* One mistake, or one warning, with its place; line 0: it has none in the file. */
struct mw_conf_told {
	bool error; /* else a warning */
	const char *file;
	unsigned line;
	size_t column;
	const char *text;
};

struct mw_conf_load_opts {
	const struct mw_conf_probe *probe;
	size_t n_probe;
	void (*told)(void *arg, const struct mw_conf_told *t); /* NULL ok */
	void *arg;
};

/* mw_conf_load for a check: with probes, and each diagnostic handed over as well. */
int mw_conf_load_checked(const char *file, const struct mw_conf_load_opts *o,
                         struct mw_conf **ret, struct mw_buf *report,
                         struct mw_err *err) MW_CHECK;
void mw_conf_free(struct mw_conf *c);
/* Which file a program reads when none is named: $MAILWAL_CONFIG if set, else
 * /etc/mailwal/mailwal.conf if it exists, else NULL. */
const char *mw_conf_default_file(void);
/* `key = value` lines: all settings, or only those that differ from the default. */
void mw_conf_print(const struct mw_conf *c, bool changed_only, struct mw_buf *out);
/* The text on one setting; MW_ENOTFOUND with the nearest name as hint. */
int mw_conf_explain(const char *key, struct mw_buf *out, struct mw_err *err) MW_CHECK;
/* The commented sample file (conf/mailwal.conf is this, a test compares). */
void mw_conf_sample(struct mw_buf *out);
/* What is no mistake but worth knowing (local_domains not set, no recovery key …), one
 * "note: …" each; nothing if there is none. For `config check` only. */
void mw_conf_notes(const struct mw_conf *c, struct mw_buf *out);
/* Calls cb for each setting: name, value as text, default as text. Strings are as they
 * are, without the quotes of the file. */
void mw_conf_each(const struct mw_conf *c,
                  void (*cb)(void *arg, const char *name, const char *value,
                             const char *def),
                  void *arg);
/* The same for each setting of each section: "retain", its name, the setting … */
void mw_conf_each_section(const struct mw_conf *c,
                          void (*cb)(void *arg, const char *section, const char *word,
                                     const char *name, const char *value,
                                     const char *def),
                          void *arg);
/* Reload: refuses (MW_ECONF, naming the option) when one that cannot change at run time
 * differs between the two. */
int mw_conf_reloadable(const struct mw_conf *old, const struct mw_conf *new,
                       struct mw_err *err) MW_CHECK;

/* The nearest of n names within a small edit distance, or NULL: "did you mean". Used for
 * settings, sections and commands alike. */
const char *mw_nearest(const char *word, const char *const *names, size_t n);

#endif
