#include "journal/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct errrow {
	int code;
	char name[12];
	enum mw_errclass class;
	int status;
	const char *text;
};

static struct errrow rows[] = {
#define MW_ERROR(name, num, class, status, text)                                         \
	{MW_E##name, #name, MW_CLASS_##class, status, text},
#include "journal/base/errors.def"
#undef MW_ERROR
};

/* Names are shown in lower case; before main() there is one thread. */
__attribute__((constructor)) static void
fold_names(void)
{
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		for (char *p = rows[i].name; *p; p++)
			if (*p >= 'A' && *p <= 'Z')
				*p = (char)(*p + ('a' - 'A'));
}

static const struct errrow *
row(int code)
{
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].code == code)
			return &rows[i];
	return NULL;
}

int
mw_fail(struct mw_err *err, int code, const char *fmt, ...)
{
	if (err) {
		int e = errno;
		va_list ap;
		va_start(ap, fmt);
		char text[sizeof err->msg]; /* an argument may be err->msg itself */
		(void)vsnprintf(text, sizeof text, fmt, ap);
		va_end(ap);
		memcpy(err->msg, text, sizeof text);
		err->code = code;
		err->sys_errno = 0;
		err->first_seq = err->last_seq = 0;
		err->hint[0] = '\0';
		errno = e;
	}
	return code;
}

static int
code_of_errno(int e)
{
	switch (e) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return MW_ENOSPC;
	case EACCES:
	case EPERM:
	case EROFS:
		return MW_EPERM;
	case ENOMEM:
		return MW_ENOMEM;
	case ENOENT:
		return MW_ENOTFOUND;
	default:
		return MW_EIO;
	}
}

int
mw_fail_errno(struct mw_err *err, const char *fmt, ...)
{
	int e = errno;
	int code = code_of_errno(e);
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
		va_end(ap);
		if (n >= 0 && (size_t)n < sizeof err->msg - 2) {
			char tmp[128];
			(void)snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s",
			               strerror_r(e, tmp, sizeof tmp));
		}
		err->code = code;
		err->sys_errno = e;
		err->first_seq = err->last_seq = 0;
		err->hint[0] = '\0';
	}
	errno = e;
	return code;
}

int
mw_err_hint(struct mw_err *err, const char *fmt, ...)
{
	if (!err)
		return 0;
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(err->hint, sizeof err->hint, fmt, ap);
	va_end(ap);
	return err->code;
}

int
mw_err_prefix(struct mw_err *err, const char *fmt, ...)
{
	if (!err)
		return 0;
	char old[sizeof err->msg];
	memcpy(old, err->msg, sizeof old);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n + 3 < sizeof err->msg)
		(void)snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %.*s",
		               (int)(sizeof err->msg - (size_t)n - 3), old);
	return err->code;
}

void
mw_err_clear(struct mw_err *err)
{
	if (err)
		memset(err, 0, sizeof *err);
}

const char *
mw_err_name(int code)
{
	const struct errrow *r = row(code);
	return code >= 0 ? "ok" : r ? r->name : "unknown";
}

const char *
mw_err_text(int code)
{
	const struct errrow *r = row(code);
	return code >= 0 ? "ok" : r ? r->text : "unknown error";
}

enum mw_errclass
mw_err_class(int code)
{
	const struct errrow *r = row(code);
	return r ? r->class : MW_CLASS_BUG;
}

int
mw_err_exit(int code)
{
	const struct errrow *r = row(code);
	return code >= 0 ? 0 : r ? r->status : 70;
}

void
mw_panic(const char *file, int line, const char *what)
{
	fprintf(stderr, "mailwal: internal error at %s:%d: %s\n", file, line, what);
	abort();
}
