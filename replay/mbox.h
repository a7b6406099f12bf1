/* mbox.h - how an mbox file is read: one place for import and for the mbox target.
 *
 * A message begins with a From_ line ("From SENDER DATE") at the start of the file or
 * after an empty line; that empty line is no content. Dialects differ in what they do
 * with body lines that look the same:
 *
 *	mboxrd	one '>' before each ">…From ": taken off again
 *	mboxo	'>' before "From " only; ">From " may have been there before
 *	mboxcl	as mboxo, with Content-Length
 *	mboxcl2	Content-Length, and nothing quoted
 *
 * What mailwal writes is mboxrd, and says so: three blanks before the date. There no
 * length counts, each "\n" was "\r\n", and quoting goes for the header too, so that all
 * of it is read back as it was. In the header of others only ">From :" is a quoted line;
 * ">From SENDER DATE" there is one of UUCP's.
 *
 * MW_MBOX_AUTO, for the rest: a Content-Length is its sender's word where the store did
 * not write it. It is believed where it leads to the end of the file or to a From_ line,
 * and there is no From_ line within: then it hides nobody's mail, and what follows from
 * it is that nothing in this message is quoted. Where there is one within, the file must
 * be one of lengths beyond doubt (see lengths_rule in mbox_length.c); else the From_ line
 * wins: a message in two pieces is a surplus, a hidden one a loss.
 *
 * The content comes with CRLF line ends; a message whose first line has CRLF in the file
 * stays as it is. The file must not change meanwhile. One thread. Long lines and large
 * messages need no more memory than small ones.
 */
#ifndef MW_REPLAY_MBOX_H
#define MW_REPLAY_MBOX_H

#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdbool.h>
#include <stdint.h>

enum mw_mbox_format {
	MW_MBOX_AUTO,
	MW_MBOX_RD,
	MW_MBOX_O,
	MW_MBOX_CL, /* Content-Length wherever it fits */
	MW_MBOX_CL2
};

struct mw_from { /* a From_ line */
	struct mw_str sender;
	int64_t us;
	bool zone; /* it says its own */
	bool own;  /* written by mailwal */
};

/* 1 with ret filled, 0 if it is no such line. */
int mw_from_line(struct mw_str line, struct mw_from *ret);
/* The line, LF included, as mailwal writes it: its length. */
size_t mw_from_write(struct mw_str sender, int64_t us, char *line, size_t room);

struct mw_mbox_writer { /* CRLF to LF, mboxrd quoting; content cut anywhere */
	int (*sink)(void *, const void *, size_t);
	void *arg;
	uint64_t marks; /* '>' seen at the start of this line, held back */
	size_t match;   /* letters of "From " seen after them */
	bool deciding, cr;
	char last;
};
void mw_mbox_writer_init(struct mw_mbox_writer *w,
                         int (*sink)(void *, const void *, size_t), void *arg);
int mw_mbox_writer_put(void *writer, const void *p, size_t n); /* a sink */
/* With the empty line before the next From_ line. */
int mw_mbox_writer_end(struct mw_mbox_writer *w);

struct mw_mbox;

/* fd is borrowed. strict: what stands before the first From_ line is no mbox. MW_ENOMEM.
 */
int mw_mbox_new(int fd, enum mw_mbox_format format, bool strict, struct mw_mbox **ret);
void mw_mbox_free(struct mw_mbox *m); /* NULL ok */
/* The next message: 1; 0: none. at: where its From_ line is. ret is valid until the next
 * call. MW_EFORMAT (strict), MW_EIO. */
int mw_mbox_next(struct mw_mbox *m, uint64_t *ret_at, struct mw_from *ret);
/* Its content; what the sink answers, other than 0, ends it. MW_EIO. */
int mw_mbox_content(struct mw_mbox *m, int (*sink)(void *, const void *, size_t),
                    void *arg);
bool mw_mbox_failed(const struct mw_mbox *m); /* the file, not the sink */
/* What was found out of the whole file, for another reader of it; 0: nothing yet. */
int mw_mbox_known(const struct mw_mbox *m);
void mw_mbox_know(struct mw_mbox *m, int known);
/* The next message is the one whose From_ line is there. */
void mw_mbox_seek(struct mw_mbox *m, uint64_t at);

#endif
