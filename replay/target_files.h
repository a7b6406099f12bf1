/* target_files.h - what Maildir, mbox and eml have in common: paths out of patterns, and
 * reading a file as a found message or as a profile. Private to the file targets.
 */
#ifndef MW_REPLAY_TARGET_FILES_H
#define MW_REPLAY_TARGET_FILES_H

#include "replay/target.h"

#include <sys/stat.h>

/* 0, or MW_EUSAGE for a %-letter that is none of %u %n %d %%. */
int mw_files_pattern_check(const char *pattern);
/* The box of a mailbox (see mw_target_box): the pattern expanded; for eml: with the
 * mailbox as directory below. A mailbox that would leave its place ("..", "/", NUL, a
 * leading dot) is refused. */
int mw_files_box(struct mw_target *t, const char *mailbox, struct mw_arena *a,
                 const char **ret, struct mw_err *err) MW_CHECK;

/* The header of the message in fd, at most MW_PROFILE_HEADER bytes, into buf. */
int mw_files_header(int fd, struct mw_buf *buf, struct mw_err *err) MW_CHECK;
/* The whole of it as a profile. */
int mw_files_profile(int fd, struct mw_profile **ret, struct mw_err *err) MW_CHECK;
/* Makes path and what is missing above it, with the mode and (as root) the owner of the
 * nearest directory that was there, others' bits off. */
int mw_files_mkdirs(const char *path, struct mw_err *err) MW_CHECK;
/* For a dry run: is there something else in the place of path or of what is above it? */
int mw_files_mkdirs_dry(const char *path, struct mw_err *err) MW_CHECK;
/* The remove operation of Maildirs: the file's name holds the record's ID. */
int mw_files_remove(struct mw_target *t, const struct mw_removing *what,
                    struct mw_err *err) MW_CHECK;
/* Keeps other mailwals out of this directory, whatever ledger they have, until *ret_fd is
 * closed. -1 where the file system has no such locks. MW_ELOCKED after a minute. */
int mw_files_lock(struct mw_target *t, const char *dir, int *ret_fd,
                  struct mw_err *err) MW_CHECK;
/* Which file or directory it is: that of another time differs where the file system keeps
 * birth times, else mostly. The mark operation of file targets. */
void mw_files_mark(const char *path, struct mw_target_mark *ret);
/* As root: does this link lead to a directory, through links that nobody but root can
 * turn elsewhere? They are root's, or of the directory's owner where he cannot put
 * another in its place. */
bool mw_files_link_stays(const char *path);
/* fsync of a directory. */
int mw_files_sync_dir(const char *path, struct mw_err *err) MW_CHECK;

struct mw_files_out { /* a message being written to a file */
	int fd;
	const char *path;
	struct mw_err *err;
	char buf[64 * 1024];
	size_t n;
	uint64_t total;
};
int mw_files_write(void *out, const void *p, size_t n); /* a sink */
int mw_files_flush(struct mw_files_out *o) MW_CHECK;

/* Fails the way that fits a full disk, a read-only one, a quota: one message's refusal.
 */
bool mw_files_is_refusal(int code);

#endif
