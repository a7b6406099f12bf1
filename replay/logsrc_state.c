/* logsrc_state.c - how far logs were read, kept in a small JSON file. */
#include "replay/logsrc.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/profile.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
	FILE_MAX = 1 << 20,
	SOURCES_MAX = 100 /* the oldest are forgotten */
};

static uint64_t
hex_of(const json_t *o, const char *key)
{
	const char *z = json_string_value(json_object_get(o, key));
	return z ? strtoull(z, NULL, 16) : 0;
}

static int64_t
int_of(const json_t *o, const char *key)
{
	int64_t v = json_integer_value(json_object_get(o, key));
	return v > 0 ? v : 0;
}

static int
add(struct mw_logsrc_state *s, const struct mw_logsrc_pos *p)
{
	struct mw_logsrc_pos *v = reallocarray(s->v, s->n + 1, sizeof *v);
	char *path = strdup(p->path);
	if (v)
		s->v = v;
	if (!v || !path) {
		free(path);
		return MW_ENOMEM;
	}
	s->v[s->n] = *p;
	s->v[s->n++].path = path;
	return 0;
}

static void
forget(struct mw_logsrc_state *s, size_t i)
{
	free(s->v[i].path);
	memmove(s->v + i, s->v + i + 1, (s->n - i - 1) * sizeof *s->v);
	s->n--;
}

int
mw_logsrc_load(const char *file, struct mw_logsrc_state *s, struct mw_err *err)
{
	MW_AUTOFREE void *text = NULL;
	size_t n, i;
	json_error_t je;
	json_t *root, *o;
	int r = mw_fs_read_file(mw_fs_posix(), file, FILE_MAX, &text, &n);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", file);
	}
	root = json_loadb(text, n, 0, &je);
	r = 0;
	json_array_foreach(json_object_get(root, "logs"), i, o)
	{
		const char *path = json_string_value(json_object_get(o, "path"));
		struct mw_logsrc_pos p = {.inode = (uint64_t)int_of(o, "inode"),
		                          .offset = (uint64_t)int_of(o, "offset"),
		                          .head = hex_of(o, "head"),
		                          .tail = hex_of(o, "tail"),
		                          .head_n = (size_t)int_of(o, "head_bytes"),
		                          .time_us = int_of(o, "time_us")};
		union {
			const char *in;
			char *out;
		} name = {path};
		p.path = name.out;
		if (path && !r && p.head_n <= MW_LOGSRC_HEAD)
			r = add(s, &p);
	}
	json_decref(s->beside);
	s->beside = json_incref(json_object_get(root, "beside"));
	/* Damaged: read again from the start, which adds nothing twice that matters. */
	json_decref(root);
	return r ? mw_fail(err, r, "out of memory") : 0;
}

int
mw_logsrc_save(const struct mw_logsrc_state *s, const char *dir, const char *name,
               struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	json_t *logs = json_array(), *root = json_object();
	for (size_t i = 0; i < s->n; i++) {
		const struct mw_logsrc_pos *p = &s->v[i];
		char head[20], tail[20];
		(void)snprintf(head, sizeof head, "%llx", (unsigned long long)p->head);
		(void)snprintf(tail, sizeof tail, "%llx", (unsigned long long)p->tail);
		(void)json_array_append_new(
		    logs, json_pack("{s:s, s:I, s:I, s:s, s:I, s:s, s:I}", "path",
		                    p->path, "inode", (json_int_t)p->inode, "offset",
		                    (json_int_t)p->offset, "head", head, "head_bytes",
		                    (json_int_t)p->head_n, "tail", tail, "time_us",
		                    (json_int_t)p->time_us));
	}
	(void)json_object_set_new(root, "logs", logs);
	if (s->beside)
		(void)json_object_set(root, "beside", s->beside);
	char *text = json_dumps(root, JSON_INDENT(1));
	json_decref(root);
	if (!text)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = fs->mkdir(fs, dir);
	if (r == 0 || r == -EEXIST)
		r = mw_fs_write_file(fs, dir, name, text, strlen(text));
	free(text);
	if (r >= 0)
		return 0;
	errno = -r;
	return mw_fail_errno(err, "cannot write %s/%s", dir, name);
}

void
mw_logsrc_state_done(struct mw_logsrc_state *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i].path);
	free(s->v);
	json_decref(s->beside);
	*s = (struct mw_logsrc_state){0};
}

int
mw_logsrc_note(const struct mw_logsrc *l, struct mw_logsrc_state *s)
{
	if (!l->journald && (l->passes || !l->offset))
		return 0;
	union {
		const char *in;
		char *out;
	} name = {l->path};
	struct mw_logsrc_pos p = {.path = name.out,
	                          .inode = l->inode,
	                          .time_us = l->time_us};
	if (!l->journald) {
		p.offset = l->offset;
		p.head_n = l->head_n;
		p.head = mw_hash64(mw_str(l->head, l->head_n));
		p.tail = mw_hash64(mw_str(l->tail, l->tail_n));
	}
	for (size_t i = s->n; i-- > 0;) {
		const struct mw_logsrc_pos *o = &s->v[i];
		/* The same log: its beginning is the beginning of ours. */
		bool same = l->journald
		                ? strcmp(o->path, "journald") == 0
		                : o->head_n && o->head_n <= l->head_n &&
		                      mw_hash64(mw_str(l->head, o->head_n)) == o->head;
		if (same) {
			p.time_us = MW_MAX(p.time_us, o->time_us);
			forget(s, i);
		}
	}
	while (s->n >= SOURCES_MAX)
		forget(s, 0);
	return add(s, &p);
}

/* Does the file begin as the position's log does? */
static bool
begins_as(const char *path, const struct mw_logsrc_pos *p, bool *ret_more)
{
	char head[MW_LOGSRC_HEAD];
	struct stat sb;
	FILE *f = mw_fs_stream(path);
	if (!f)
		return false;
	bool same = p->head_n && fread(head, 1, p->head_n, f) == p->head_n &&
	            mw_hash64(mw_str(head, p->head_n)) == p->head;
	*ret_more = fstat(fileno(f), &sb) == 0 && (uint64_t)sb.st_size > p->offset;
	(void)fclose(f);
	return same;
}

char *
mw_logsrc_rest(const char *path, const struct mw_logsrc_state *s)
{
	const struct mw_logsrc_pos *p = NULL;
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");
	char *found = NULL;
	bool more = false;
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i].path, path) == 0)
			p = &s->v[i];
	DIR *d = p && dir && !begins_as(path, p, &more) ? opendir(dir) : NULL;
	for (struct dirent *e; d && !found && (e = readdir(d)) != NULL;) {
		char *name = NULL;
		if (strcmp(e->d_name, base) == 0 ||
		    strncmp(e->d_name, base, strlen(base)) != 0)
			continue;
		if (asprintf(&name, "%s%s", dir, e->d_name) < 0)
			break;
		if (begins_as(name, p, &more) && more)
			found = name;
		else
			free(name);
	}
	if (d)
		(void)closedir(d);
	free(dir);
	return found;
}
