/* logform.h - the forms in which journalctl(1) writes entries for programs, as lines.
 *
 * "-o json" (json-seq, json-sse) and "-o export" become "SECONDS.MICROS host tag[pid]:
 * text", which mtalog reads; every other line stays as it is. Only what journald itself
 * and syslog(3) have set is taken, and a line end within a text becomes a blank.
 *
 * Life: zeroed → mw_logform_take for each line → mw_logform_done. One thread, no I/O.
 */
#ifndef MW_REPLAY_LOGFORM_H
#define MW_REPLAY_LOGFORM_H

#include "journal/base/buf.h"
#include "journal/base/str.h"

enum {
	MW_LOGFORM_FIELDS = 8
};

struct mw_logform {
	struct mw_buf line; /* what was made last */
	struct mw_buf value[MW_LOGFORM_FIELDS];
	bool entry;           /* within one of export */
	bool binary;          /* within a field of it that is preceded by its length: */
	int field;            /* which one, -1: of no interest */
	unsigned length_left; /* bytes of the length, and then of the field, to come */
	uint64_t length, data_left;
};

/* 1: *ret is a line, valid until the next call; 0: none yet; MW_ENOMEM. */
int mw_logform_take(struct mw_logform *f, struct mw_str raw, struct mw_str *ret) MW_CHECK;
/* So many bytes more, without its end, stood in the line that was taken last. */
void mw_logform_rest(struct mw_logform *f, size_t n);
void mw_logform_done(struct mw_logform *f);

/* What is to be done about a log that begins so, and in which no line can be read. */
const char *mw_logform_hint(struct mw_str head);

#endif
