/* logsrc.h - where a mail server's log comes from, line by line, and how far it was read.
 *
 * A source is a file (also one packed by gzip, xz, zstd or bzip2, whatever its name is),
 * "-" for standard input, or "journald" for systemd's journal. Other programs are started
 * without a shell. What journalctl(1) writes for programs comes as lines (logform.h).
 *
 * How far a source was read is kept by its content, not its name: a hash of its first
 * bytes, the offset of the line to come, and a hash of the bytes before it. So a rotated
 * or packed log is known again, and one that was truncated and begun anew is not.
 *
 * Life: mw_logsrc_open → mw_logsrc_line until 0 → (follow: wait, again) →
 * mw_logsrc_close. One thread. Lines are valid until the next call.
 */
#ifndef MW_REPLAY_LOGSRC_H
#define MW_REPLAY_LOGSRC_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

#include "replay/logform.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	MW_LOGSRC_HEAD = 200,  /* bytes that tell one log from another */
	MW_LOGSRC_TAIL = 100,  /* bytes before the offset */
	MW_LOGSRC_LINE = 65536 /* longer lines are cut */
};

struct mw_logsrc_pos { /* how far */
	char *path;    /* malloc'd; where it was found last */
	uint64_t inode;
	uint64_t offset, head, tail;
	size_t head_n;
	int64_t time_us; /* of the newest line */
};

struct mw_logsrc_state { /* of all sources ever read; zero to start */
	struct mw_logsrc_pos *v;
	size_t n;
	json_t *beside; /* what the reader keeps with it, owned; NULL: nothing */
};

int mw_logsrc_load(const char *file, struct mw_logsrc_state *s,
                   struct mw_err *err) MW_CHECK;
/* Writes dir/name: temp, sync, rename. */
int mw_logsrc_save(const struct mw_logsrc_state *s, const char *dir, const char *name,
                   struct mw_err *err) MW_CHECK;
void mw_logsrc_state_done(struct mw_logsrc_state *s);

struct mw_logsrc {
	const char *path;
	int fd;
	pid_t pid;           /* of the program that writes to fd, or 0 */
	const char *program; /* that unpacks it, or NULL */
	bool stream, journald, ended, cut;
	size_t over;  /* of the line given last, what it had beyond MW_LOGSRC_LINE */
	bool passes;  /* a pipe, or entries of several lines: no place in it is noted */
	bool whole;   /* read from its beginning */
	bool stamped; /* set by the reader: some line had a time that can be read */
	uint64_t lines;
	struct mw_logform form;
	uint64_t inode, offset;
	int64_t ref_us;  /* no line is younger: for stamps without a year */
	int64_t time_us; /* set by the reader: newest line */
	struct mw_buf in;
	size_t at;
	char head[MW_LOGSRC_HEAD], tail[MW_LOGSRC_TAIL];
	size_t head_n, tail_n;
};

/* With s: goes on where it says. MW_ENOTFOUND, MW_EPERM, MW_EIO. */
int mw_logsrc_open(struct mw_logsrc *l, const char *path, const struct mw_logsrc_state *s,
                   bool follow, struct mw_err *err) MW_CHECK;
/* 1: *ret is a line without its end; 0: no whole line now, and l->ended if there will be
 * none; < 0: MW_EIO. With wait_ms > 0 a stream is waited for that long. A last line
 * without its newline is given at the end of what cannot grow. */
int mw_logsrc_line(struct mw_logsrc *l, struct mw_str *ret, int wait_ms,
                   struct mw_err *err) MW_CHECK;
/* MW_EFORMAT for one that has lines, and none with a time that can be read; what to do.
 */
int mw_logsrc_check(const struct mw_logsrc *l, struct mw_err *err) MW_CHECK;
/* At the end of a followed file: 1 if another file has its name now, or it was
 * truncated; the caller closes it and opens it again. */
int mw_logsrc_rotated(const struct mw_logsrc *l);
/* Notes how far l was read. 0 or MW_ENOMEM. */
int mw_logsrc_note(const struct mw_logsrc *l, struct mw_logsrc_state *s) MW_CHECK;
/* The file beside path that a state's unread rest of path is in now (it was rotated), or
 * NULL: malloc'd. */
char *mw_logsrc_rest(const char *path, const struct mw_logsrc_state *s);
/* 0; MW_EIO if the program behind it failed. */
int mw_logsrc_close(struct mw_logsrc *l, struct mw_err *err);

#endif
