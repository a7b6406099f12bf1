/* err.h - errors: a negative code, and a text the caller provides the room for.
 *
 * Every function that can fail returns 0 or a positive answer on success and a negative
 * MW_E* on failure; the last parameter is a `struct mw_err *` that may be NULL. The text
 * says what failed and on which object; the hint says what to do. Nothing is allocated.
 */
#ifndef MW_BASE_ERR_H
#define MW_BASE_ERR_H

#include <stdarg.h>
#include <stdint.h>

enum mw_errcode {
#define MW_ERROR(name, num, class, status, text) MW_E##name = -(num),
#include "journal/base/errors.def"
#undef MW_ERROR
};

enum mw_errclass {
	MW_CLASS_TRANSIENT,
	MW_CLASS_PERMANENT,
	MW_CLASS_OPERATOR,
	MW_CLASS_BUG
};

struct mw_err {
	int code;      /* MW_E*, 0 while unset */
	int sys_errno; /* errno at the time of failure, or 0 */
	/* The records that cannot be read for it (the last: UINT64_MAX, to the end of
	 * their segment); 0, 0: not known, or none. */
	uint64_t first_seq, last_seq;
	char msg[600];
	char hint[300];
};

#define MW_CHECK __attribute__((warn_unused_result))

/* Sets text and code, returns code. `err` may be NULL. errno is kept. */
int mw_fail(struct mw_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Like mw_fail, appends ": strerror(errno)" and picks the code that fits errno
 * (ENOSPC, EDQUOT, EFBIG: MW_ENOSPC; EACCES, EPERM, EROFS: MW_EPERM; ENOMEM: MW_ENOMEM;
 * ENOENT: MW_ENOTFOUND; else MW_EIO). */
int mw_fail_errno(struct mw_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Adds or replaces the hint; returns err->code (or 0 without err). */
int mw_err_hint(struct mw_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the text; returns err->code. */
int mw_err_prefix(struct mw_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void mw_err_clear(struct mw_err *err);

const char *mw_err_name(int code); /* "io", "locked", …; "ok" for >= 0 */
const char *mw_err_text(int code); /* the text of errors.def */
enum mw_errclass mw_err_class(int code);
int mw_err_exit(int code); /* sysexits status; 0 for code >= 0 */

/* Only our own mistake can trip this; never used on bytes from outside. Always on. */
void mw_panic(const char *file, int line, const char *what) __attribute__((noreturn));
#define mw_assert(x) ((x) ? (void)0 : mw_panic(__FILE__, __LINE__, #x))

#endif
