/* status_follow.c - how far behind the standbys of a journal are, by follow's state
 * files.
 */
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/status.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The age of the oldest record that is not there yet; 0: none. */
static void
behind(const struct mw_status *s, struct mw_store *st, uint64_t next,
       struct mw_status_follow *f)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record rec;
	if (mw_cursor_new(st, next, &c, NULL) < 0)
		return;
	for (int tries = 0; tries < 64; tries++) {
		int r = mw_cursor_next(c, &rec, NULL);
		if (r == 0)
			return;
		if (r < 0 || rec.type != MW_TYPE_MAIL || rec.imported)
			continue;
		f->lag_us = MW_MAX(s->now_us - rec.time_us, 1);
		return;
	}
}

/* It was never filled: what came before its first start is no lag, and may not be meant
 * to go there. */
static void
unfilled(const struct mw_status *s, struct mw_store *st, int64_t began_us,
         struct mw_status_follow *f)
{
	struct mw_record last;
	if (mw_store_last(st, UINT64_MAX, &last, NULL) > 0 && last.time_us >= began_us)
		f->lag_us = MW_MAX(s->now_us - began_us, 1);
}

static void
one(struct mw_status *s, struct mw_store *st, const char *name)
{
	char path[PATH_MAX], own[MW_ID_TEXT + 1], journal[MW_ID_TEXT + 1];
	MW_AUTOFREE void *text = NULL;
	char *save = NULL;
	size_t n;
	unsigned long long next;
	long long began = 0;
	bool ours = false;
	struct mw_status_follow *f = &s->follow[s->n_follow];
	if (snprintf(path, sizeof path, "%s/ledger/%s", s->dir, name) >= (int)sizeof path)
		return;
	if (mw_fs_read_file(mw_fs_posix(), path, 1 << 20, &text, &n) < 0)
		return;
	*f = (struct mw_status_follow){.target = ""};
	mw_id_text(own, mw_store_id(st));
	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "to ", 3) == 0)
			f->target = mw_arena_strdup(s->arena, line + 3);
		else if (sscanf(line, "began %lld", &began) == 1)
			continue;
		else if (sscanf(line, "%26s %llu", journal, &next) == 2 &&
		         strcmp(journal, own) == 0) {
			if (next <= 1 && began)
				unfilled(s, st, began, f);
			else
				behind(s, st, next, f);
			ours = true;
		}
	}
	s->n_follow += ours && f->target;
}

void
mw_status_followers(struct mw_status *s, struct mw_store *st)
{
	char path[PATH_MAX];
	struct dirent *e;
	if (snprintf(path, sizeof path, "%s/ledger", s->dir) >= (int)sizeof path)
		return;
	DIR *d = opendir(path);
	while (d && (e = readdir(d)) && s->n_follow < MW_STATUS_FOLLOWERS) {
		size_t n = strlen(e->d_name);
		if (strncmp(e->d_name, "follow-", 7) == 0 && n > 6 &&
		    strcmp(e->d_name + n - 6, ".state") == 0)
			one(s, st, e->d_name);
	}
	if (d)
		(void)closedir(d);
}
