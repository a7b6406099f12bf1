/* include.c - files: reading one, and all that a pattern names. */
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	FILE_BYTES = 1 << 20
};

/* What the caller opened for us, to be waited for: "config check -", "-c <(…)". */
static bool
given(const char *path)
{
	return strcmp(path, "/dev/stdin") == 0 || strncmp(path, "/dev/fd/", 8) == 0;
}

/* The whole file, at most FILE_BYTES, into b; *st is the file's. */
static int
slurp(const char *path, struct mw_buf *b, struct stat *st, struct mw_err *err)
{
	MW_AUTOCLOSE int fd =
	    open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (given(path) ? 0 : O_NONBLOCK));
	ssize_t n;

	if (fd < 0 || fstat(fd, st) < 0)
		return mw_fail_errno(err, "cannot read %s", path);
	if (S_ISDIR(st->st_mode)) {
		errno = EISDIR;
		(void)mw_fail_errno(err, "cannot read %s", path);
		return MW_ECONF;
	}
	if (!given(path) && (S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode)))
		return mw_fail(err, MW_ECONF, "%s is a pipe or socket, no file", path);
	do {
		if (mw_buf_reserve(b, 16384) < 0)
			return mw_fail(err, MW_ENOMEM, "out of memory reading %s", path);
		n = read(fd, b->p + b->n, 16384);
		if (n < 0 && errno != EINTR)
			return mw_fail_errno(err, "cannot read %s", path);
		b->n += n > 0 ? (size_t)n : 0;
		if (b->n > FILE_BYTES)
			return mw_fail(err, MW_ECONF, "%s is larger than 1 MiB", path);
	} while (n != 0);
	return 0;
}

int
mw_conf_read(struct mw_conf_load *l, const char *path, struct mw_conf_file *parent,
             struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	struct mw_conf_file f = {.name = mw_arena_strdup(l->arena, path),
	                         .parent = parent};
	struct stat st = {0};
	unsigned depth = 0;
	int r;

	if (!f.name)
		return mw_fail(err, MW_ENOMEM, "out of memory reading %s", path);
	r = slurp(path, &b, &st, err);
	if (r < 0)
		return r;
	f.dev = st.st_dev;
	f.ino = st.st_ino;
	for (const struct mw_conf_file *p = parent; p; p = p->parent) {
		if (p->dev == f.dev && p->ino == f.ino)
			return mw_fail(err, MW_ECONF, "%s includes itself", path);
		if (++depth > MW_CONF_DEPTH)
			return mw_fail(err, MW_ECONF,
			               "files are included more than %d deep",
			               MW_CONF_DEPTH);
	}
	if (++l->files > MW_CONF_FILES)
		return mw_fail(err, MW_ECONF, "more than %d files are included",
		               MW_CONF_FILES);
	if (b.n >= 2 &&
	    ((b.p[0] == 0xff && b.p[1] == 0xfe) || (b.p[0] == 0xfe && b.p[1] == 0xff)))
		return mw_fail(err, MW_ECONF, "%s is UTF-16; save it as UTF-8", path);
	mw_conf_parse_text(l, &f, mw_buf_str(&b));
	return 0;
}

int
mw_conf_parse_file(struct mw_conf_load *l, const char *path, struct mw_err *err)
{
	return mw_conf_read(l, path, NULL, err);
}

/* The pattern below the directory of the including file, whose own name is no pattern. */
static const char *
full_pattern(struct mw_conf_load *l, const char *includer, const char *pattern,
             bool magic)
{
	const char *slash = strrchr(includer, '/');
	char *out, *q;

	if (*pattern == '/' || !slash)
		return pattern;
	out = mw_arena_alloc(l->arena, 2 * strlen(includer) + strlen(pattern) + 2);
	if (!out)
		return NULL;
	q = out;
	for (const char *p = includer; p <= slash; p++) {
		if (magic && strchr("*?[\\", *p))
			*q++ = '\\';
		*q++ = *p;
	}
	memcpy(q, pattern, strlen(pattern) + 1);
	return out;
}

static void
include_one(struct mw_conf_load *l, struct mw_conf_file *f,
            const struct mw_conf_line *line, struct mw_str where, const char *path)
{
	struct mw_err err = {0};
	int r = mw_conf_read(l, path, f, &err);

	if (r == MW_ENOMEM)
		l->nomem = true;
	else if (r < 0)
		mw_conf_diag(l, MW_CONF_ERROR, line, (size_t)(where.p - line->text.p),
		             where.n, "%s", err.msg);
}

void
mw_conf_include(struct mw_conf_load *l, struct mw_conf_file *f,
                const struct mw_conf_line *line, size_t at, size_t len,
                const char *pattern)
{
	struct mw_str where = mw_str(line->text.p + at, len);
	bool magic = strpbrk(pattern, "*?[") != NULL;
	const char *full = full_pattern(l, f->name, pattern, magic);
	glob_t g;
	int r;

	if (!full) {
		l->nomem = true;
		return;
	}
	if (!magic) {
		include_one(l, f, line, where, full);
		return;
	}
	r = glob(full, 0, NULL, &g);
	if (r == GLOB_NOMATCH)
		return; /* an empty conf.d is nothing to complain about */
	if (r) {
		l->nomem |= r == GLOB_NOSPACE;
		mw_conf_diag(l, MW_CONF_ERROR, line, at, len, "cannot read %s", full);
		return;
	}
	for (size_t i = 0; i < g.gl_pathc && !l->nomem; i++)
		include_one(l, f, line, where, g.gl_pathv[i]);
	globfree(&g);
}
