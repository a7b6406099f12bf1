/* drill_report.h - the report of a drill: made, signed, kept, found again, checked.
 *
 * A report is a C2SP signed note (journal/verify/note.h): the line "mailwal.drill/ID" of
 * the journal, then one JSON object (mailwal(1), DRILL REPORTS), signed by the journal's
 * key. Reports lie in "drills" in the journal's directory, as NAME.note with NAME =
 * "20261122T143440Z-k3x9"; names sort by time. Beside them "last" says in a few
 * "key value" lines what the newest one found, for mailwald's metrics. One thread.
 */
#ifndef MW_REPLAY_DRILL_REPORT_H
#define MW_REPLAY_DRILL_REPORT_H

#include "replay/drill.h"

enum {
	MW_DRILL_NAME = 40,
	MW_DRILL_REPORT_MAX = 16 << 20 /* bytes of a report that is read */
};

/* The name of a drill that began at start_us: to the microsecond, so that names sort. */
void mw_drill_name(int64_t start_us, char out[MW_DRILL_NAME]);
/* The report as JSON; NULL: out of memory. */
json_t *mw_drill_json(const struct mw_drill *d, const char *name);
/* Signs it; appends the note. */
int mw_drill_sign(struct mw_store *st, const json_t *o, struct mw_buf *out,
                  struct mw_err *err) MW_CHECK;
/* Signs and keeps it, as the journal's owner. */
/* Can a report be kept there? Makes the directory for it. */
int mw_drill_can_save(struct mw_store *st, struct mw_err *err) MW_CHECK;
int mw_drill_save(struct mw_store *st, const json_t *o, struct mw_err *err) MW_CHECK;

struct mw_drill_kept { /* a report as it was read; free with mw_drill_kept_done */
	char name[MW_DRILL_NAME];
	json_t *o;
	bool signed_here; /* by this journal's key, and not altered */
	void *note;       /* its whole text, NUL-terminated */
	size_t n;
};

/* Reads a note. MW_EFORMAT when it is none; a wrong signature is no error here. */
int mw_drill_read(struct mw_store *st, const char *path, struct mw_drill_kept *ret,
                  struct mw_err *err) MW_CHECK;
/* The kept report of that name or unique beginning of one; NULL: the newest.
 * MW_ENOTFOUND, MW_EUSAGE (ambiguous). */
int mw_drill_find(struct mw_store *st, const char *name, struct mw_drill_kept *ret,
                  struct mw_err *err) MW_CHECK;
void mw_drill_kept_done(struct mw_drill_kept *k);
/* Names of all kept reports, oldest first, in the arena. No directory: none. */
int mw_drill_names(struct mw_store *st, struct mw_arena *a, const char ***ret,
                   size_t *ret_n, struct mw_err *err) MW_CHECK;
/* Does what it says of the journal (identity, chain head, sequence numbers) fit this
 * journal still? 0; MW_EDAMAGED with the reason; else it could not be told. */
int mw_drill_fits(struct mw_store *st, const json_t *o, struct mw_err *err) MW_CHECK;

/* Values out of a report, whatever is in it: 0, "" or 0.0 where there is none. path:
 * "copies.expected". */
const json_t *mw_drill_at(const json_t *o, const char *path);
int64_t mw_drill_num(const json_t *o, const char *path);
double mw_drill_real(const json_t *o, const char *path);
const char *mw_drill_str(const json_t *o, const char *path);
bool mw_drill_is(const json_t *o, const char *path);

/* For people (drill_show.c): text of at most 90 columns, or a page of HTML that needs
 * nothing else. signed_here: what to say of the signature. */
void mw_drill_text(const json_t *o, bool signed_here, struct mw_buf *out);
void mw_drill_html(const json_t *o, bool signed_here, struct mw_buf *out);

#endif
