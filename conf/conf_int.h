/* conf_int.h - private to conf/: the table of settings as data, and the loader's state.
 *
 * options.def becomes mw_conf_opts[] (options.c). A setting is read and written through
 * its row: value.c knows the types, check.c what the words of some lists and strings must
 * look like, diag.c how a mistake is shown, parse.c the grammar, print.c everything that
 * comes out of the table again. One thread; nothing here outlives the load but the
 * mw_conf itself. */
#ifndef MW_CONF_CONF_INT_H
#define MW_CONF_CONF_INT_H

#include "conf/conf.h"
#include "journal/base/arena.h"

#include <sys/types.h>

enum mw_conf_type {
	MW_CONF_STRING,
	MW_CONF_PATH,
	MW_CONF_ENUM,
	MW_CONF_BOOL,
	MW_CONF_INT,
	MW_CONF_SIZE,
	MW_CONF_DURATION,
	MW_CONF_LIST
};

enum mw_conf_flag {
	MW_CONF_RELOAD = 1, /* SIGHUP takes a new value */
	MW_CONF_SECRET = 2  /* the named file holds a secret; a value is never shown */
};

struct mw_conf_opt {
	const char *name;
	enum mw_conf_type type;
	size_t offset; /* in struct mw_conf, or in the section's struct */
	const char *def, *min, *max;
	unsigned flags; /* enum mw_conf_flag */
	const char *since, *text;
};

enum {
#define MW_OPT(name, type, member, def, min, max, flags, since, text) MW_CONF_N_##member,
#include "conf/options.def"
#undef MW_OPT
	MW_CONF_N_OPTS,
	MW_CONF_N_SECTIONS = 2,
	MW_CONF_SECTION_OPTS = 8 /* most settings of a section */
};

/* A kind of section, `NAME WORD { … }`: its settings, and the array in struct mw_conf
 * that its sections go to. Their struct begins with `char *name`, the word. */
struct mw_conf_section {
	const char *name;
	const struct mw_conf_opt *opts;
	size_t n_opts, size;        /* size of the struct */
	size_t array, count;        /* offsets in struct mw_conf: pointer, size_t */
	const char *text;           /* above the example in the sample */
	const char *const *example; /* a value for each setting */
};

extern const struct mw_conf_opt mw_conf_opts[MW_CONF_N_OPTS];
extern const struct mw_conf_section mw_conf_sections[MW_CONF_N_SECTIONS];

/* The sections of a kind. */
size_t mw_conf_section_count(const struct mw_conf *c, const struct mw_conf_section *k);
/* The struct of number i; its name is the first member. */
void *mw_conf_section_at(const struct mw_conf *c, const struct mw_conf_section *k,
                         size_t i);
const char *mw_conf_section_name(const struct mw_conf *c, const struct mw_conf_section *k,
                                 size_t i);
/* One more, with defaults; NULL: out of memory. */
void *mw_conf_section_add(struct mw_conf *c, const struct mw_conf_section *k,
                          const char *name);
void mw_conf_sections_free(struct mw_conf *c);
/* The kind with a setting of that name, or NULL. */
const struct mw_conf_section *mw_conf_section_with(struct mw_str setting);

/* The row of a name among n rows, or NULL. */
const struct mw_conf_opt *mw_conf_find(const struct mw_conf_opt *rows, size_t n,
                                       struct mw_str name);
/* The nearest setting to a wrong name, or NULL. */
const char *mw_conf_nearest_opt(const struct mw_conf_opt *rows, size_t n,
                                const char *name);
/* The type as the manual writes it: "SIZE". */
const char *mw_conf_type_name(enum mw_conf_type t);

/* value.c: base points to the struct that holds the member. */

/* Sets a value from its text; a LIST gets one more word. MW_ECONF with the reason in err
 * ("expected a size …"), without the name of the setting; MW_ENOMEM. */
int mw_conf_value_set(void *base, const struct mw_conf_opt *o, const char *text,
                      struct mw_err *err) MW_CHECK;
/* Splits text at white space and commas and adds each word, unchecked: for defaults. */
int mw_conf_list_default(struct mw_conf_list *l, const char *text) MW_CHECK;
void mw_conf_list_clear(struct mw_conf_list *l);
/* Appends the value as it would be written in the file. The default's own spelling is
 * used when the value is the default. */
void mw_conf_value_text(const void *base, const struct mw_conf_opt *o,
                        struct mw_buf *out);
/* Frees what a value owns and leaves zero. */
void mw_conf_value_free(void *base, const struct mw_conf_opt *o);
/* Gives the member its default. MW_ENOMEM. */
int mw_conf_value_default(void *base, const struct mw_conf_opt *o) MW_CHECK;
bool mw_conf_value_equal(const void *a, const void *b, const struct mw_conf_opt *o);

/* check.c: what one value, or one word of a list, must look like beyond its type.
 * MW_ECONF with the reason. */
int mw_conf_check(const struct mw_conf_opt *o, const char *text,
                  struct mw_err *err) MW_CHECK;
/* True if a file holds a secret and others than its owner can read it. */
bool mw_conf_secret_exposed(const char *path);

/* The loader. */

struct mw_conf_origin {
	const char *file; /* NULL: not set in any file */
	unsigned line;
};

struct mw_conf_line {
	const char *file;
	unsigned no;
	struct mw_str text; /* the whole line, for the excerpt */
};

/* A value that is still to be probed. */
struct mw_conf_probed {
	struct mw_conf_probed *next;
	const struct mw_conf_probe *probe;
	const struct mw_conf_opt *opt;
	const char *text;
	struct mw_conf_line line;
	size_t at, len;
};

struct mw_conf_load {
	const struct mw_conf_load_opts *o;
	struct mw_conf_probed *probed, **probed_end; /* in the arena, in order */
	struct mw_conf *conf;
	struct mw_buf *report;
	struct mw_arena *arena; /* names of files and words, for as long as the load */
	unsigned errors, warnings, files;
	bool nomem;
	struct mw_conf_origin set[MW_CONF_N_OPTS]; /* where each was set last */
};

enum mw_conf_severity {
	MW_CONF_ERROR,
	MW_CONF_WARNING
};

/* Adds "FILE:LINE:COL: error: TEXT", the line and a marker under len bytes at `at`.
 * A line number of 0 gives "FILE: error: TEXT". */
void mw_conf_diag(struct mw_conf_load *l, enum mw_conf_severity sev,
                  const struct mw_conf_line *line, size_t at, size_t len, const char *fmt,
                  ...) __attribute__((format(printf, 6, 7)));
/* Reads one file and all it includes into l. 0 however many mistakes it held (they are
 * counted in l); a negative error if the file itself cannot be read. */
int mw_conf_parse_file(struct mw_conf_load *l, const char *path,
                       struct mw_err *err) MW_CHECK;

/* include.c and parse.c share the files that are being read. */
struct mw_conf_file {
	const char *name;
	struct mw_conf_file *parent; /* the file with the !include */
	dev_t dev;
	ino_t ino;
	/* The open section: */
	struct mw_conf_line open; /* its first line; file NULL: none */
	const struct mw_conf_section *kind;
	void *section;   /* its struct in the configuration */
	unsigned errors; /* how many there were when it was opened */
	unsigned skip;   /* depth of an unknown section that is passed over */
	struct mw_conf_origin set[MW_CONF_SECTION_OPTS];
};

enum {
	MW_CONF_DEPTH = 16,
	MW_CONF_FILES = 256,
	MW_CONF_LINE = 4096,
	MW_CONF_ERRORS = 50
};

/* scan.c: the parts of a line. */
struct mw_conf_span {
	size_t at, len;
};

bool mw_conf_is_blank(char c);
/* Without the blanks at both ends of [from, to). */
struct mw_conf_span mw_conf_trim(struct mw_str text, size_t from, size_t to);
bool mw_conf_span_is(struct mw_str text, struct mw_conf_span s, const char *word);
/* A copy that lives as long as the load; "" when there is no memory (and l->nomem). */
const char *mw_conf_keep(struct mw_conf_load *l, const char *p, size_t n);
const char *mw_conf_keep_span(struct mw_conf_load *l, const struct mw_conf_line *line,
                              struct mw_conf_span s);
/* The place after the closing quote of the one at i; 0 if it is not closed. */
size_t mw_conf_quote_end(struct mw_str t, size_t i, size_t to);
/* The first byte in [from, to) that is in `set`, outside quotes; `to` if none. */
size_t mw_conf_find_plain(struct mw_str t, size_t from, size_t to, const char *set);
/* Where the line's content ends: before a comment. False, and told, if a quote is not
 * closed. */
bool mw_conf_content_end(struct mw_conf_load *l, const struct mw_conf_line *line,
                         size_t *ret_end);
/* A value or word without its quotes and backslashes; NULL after an error, told. */
const char *mw_conf_unquote(struct mw_conf_load *l, const struct mw_conf_line *line,
                            struct mw_conf_span s);

/* `!include PATTERN`: reads each file that matches. `at`, `len`: the pattern's place. */
void mw_conf_include(struct mw_conf_load *l, struct mw_conf_file *f,
                     const struct mw_conf_line *line, size_t at, size_t len,
                     const char *pattern);
/* Reads one file under `parent` (NULL: the first). As mw_conf_parse_file. */
int mw_conf_read(struct mw_conf_load *l, const char *path, struct mw_conf_file *parent,
                 struct mw_err *err) MW_CHECK;
/* The lines of a file that is in memory. Also what the fuzzer drives. */
void mw_conf_parse_text(struct mw_conf_load *l, struct mw_conf_file *f,
                        struct mw_str text);
/* Notes a value for its probe, if there is one for the setting. */
void mw_conf_probe_later(struct mw_conf_load *l, const struct mw_conf_opt *o,
                         const struct mw_conf_line *line, size_t at, size_t len,
                         const char *text);
/* A list was emptied: what was in it is no matter any more. */
void mw_conf_probe_forget(struct mw_conf_load *l, const struct mw_conf_opt *o);
void mw_conf_probe_all(struct mw_conf_load *l);
/* What can only be said once all files are read. */
void mw_conf_finish(struct mw_conf_load *l);

#endif
