/* mbox_int.h - between mbox.c and mbox_length.c. */
#ifndef MW_REPLAY_MBOX_INT_H
#define MW_REPLAY_MBOX_INT_H

#include "replay/mbox.h"

enum {
	MW_MBOX_BUFFER = 128 * 1024,
	MW_FROM_MAX = 2000 /* a longer line begins no message */
};

struct mw_lines { /* a file, line by line */
	int fd;
	char *buf; /* MW_MBOX_BUFFER bytes */
	size_t at, n;
	uint64_t off; /* of buf[at] in the file */
	bool mid;     /* the piece to come goes on with a line */
	bool failed;
};

/* A line, or a piece of one that is too long for the buffer; bol: it begins one. False at
 * the end, or failed. */
bool mw_lines_next(struct mw_lines *r, struct mw_str *ret, bool *ret_bol);
void mw_lines_back(struct mw_lines *r, size_t n); /* the last n bytes once more */
void mw_lines_seek(struct mw_lines *r, uint64_t at);

bool mw_line_blank(struct mw_str line);
/* How many '>' stand before "From "; 0: it is no quoted line. */
size_t mw_line_quoted(struct mw_str line);

struct mw_length { /* the Content-Length of a header */
	uint64_t n;
	bool has, wrong; /* wrong: no number, or another one before */
};
void mw_length_note(struct mw_length *l, struct mw_str line);

struct mw_lengths {
	struct mw_lines r; /* its own place in the file */
	int known;         /* a file of lengths: 1 yes, -1 no, 0 not asked yet */
};
/* Is the length l of the body at believed, by MW_MBOX_AUTO or a dialect with lengths? */
bool mw_length_holds(struct mw_lengths *s, enum mw_mbox_format format, uint64_t at,
                     const struct mw_length *l);

#endif
