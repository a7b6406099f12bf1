/* follow_state.c - how far a standby is: one small file a target and selection.
 *
 *	mailwal follow 1
 *	to TARGET
 *	began US SINCE-US		the first start, and what --since meant then
 *	JOURNAL-ID NEXT LAST-ID		a line for each journal; LAST-ID "-": none
 */
#include "replay/follow.h"

#include "journal/base/clock.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	FILE_MAX = 1 << 20
};

static const char head[] = "mailwal follow 1\n";

/* Is the record before `next` still the one it was? A log that lost its end in a crash
 * gives the same numbers to other records. What was pruned meanwhile is no matter. */
static bool
same_log(struct mw_store *st, const struct mw_follow_pos *p)
{
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record rec;
	if (p->next <= 1 || !p->has_last)
		return p->next <= 1;
	if (mw_cursor_new(st, p->next - 1, &c, NULL) < 0)
		return false;
	for (int tries = 0; tries < 64; tries++) {
		int r = mw_cursor_next(c, &rec, NULL);
		if (r < 0)
			continue;
		return r > 0 &&
		       (rec.seq >= p->next || memcmp(rec.id, p->last, MW_ID_LEN) == 0);
	}
	return false;
}

static void
parse(struct mw_follow *f, char *text)
{
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char journal[MW_ID_TEXT + 1], last[MW_ID_TEXT + 1], own[MW_ID_TEXT + 1];
		unsigned long long next;
		unsigned bits = 0;
		long long began, since;
		if (sscanf(line, "began %lld %lld", &began, &since) == 2) {
			f->began_us = began;
			f->q.since_us = since;
			continue;
		}
		if (sscanf(line, "%26s %llu %26s", journal, &next, last) != 3)
			continue;
		for (size_t k = 0; k < f->cli->n_journals; k++) {
			struct mw_follow_pos p = {.next = next};
			mw_id_text(own, mw_store_id(f->cli->stores[k]));
			if (strcmp(own, journal) != 0)
				continue;
			p.has_last = mw_id_parse(last, p.last, &bits) && bits == 128;
			if (same_log(f->cli->stores[k], &p))
				f->pos[k] = p;
		}
	}
}

int
mw_follow_load(struct mw_follow *f, struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	MW_AUTOFREE void *text = NULL;
	size_t n;
	for (size_t k = 0; k < f->cli->n_journals; k++)
		f->pos[k] = (struct mw_follow_pos){.next = 1};
	int r = mw_fs_read_file(fs, f->file, FILE_MAX, &text, &n);
	if (r == -ENOENT) { /* now, before the standby is reached, however late that is */
		const struct mw_clock *clock = mw_clock_system();
		f->began_us = f->q.marks_us = clock->now_us(clock);
		return mw_follow_save(f, err);
	}
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", f->file);
	}
	/* A file that cannot be understood costs one careful look at everything. */
	if (n >= sizeof head - 1 && memcmp(text, head, sizeof head - 1) == 0)
		parse(f, (char *)text + sizeof head - 1);
	f->q.marks_us = f->began_us;
	return mw_follow_boxes_load(f, err);
}

int
mw_follow_save(struct mw_follow *f, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	MW_BUF_AUTO b = {0};
	mw_buf_puts(&b, head);
	mw_buf_printf(&b, "to %s\n", f->to);
	if (f->began_us)
		mw_buf_printf(&b, "began %lld %lld\n", (long long)f->began_us,
		              (long long)f->q.since_us);
	for (size_t k = 0; k < f->cli->n_journals; k++) {
		char id[MW_ID_TEXT + 1], last[MW_ID_TEXT + 1] = "-";
		mw_id_text(id, mw_store_id(f->cli->stores[k]));
		if (f->pos[k].has_last)
			mw_id_text(last, f->pos[k].last);
		mw_buf_printf(&b, "%s %llu %s\n", id, (unsigned long long)f->pos[k].next,
		              last);
	}
	char *slash = strrchr(f->file, '/');
	if (mw_buf_ok(&b) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = f->own_state ? mw_cli_as_owner(f->cli->journals[0], err) : 0;
	if (r == 0) /* first: a mailbox that is not known has nothing noted of it */
		r = mw_follow_boxes_save(f, false, err);
	if (r == 0) {
		*slash = '\0';
		int e = mw_fs_write_file(mw_fs_posix(), f->file, slash + 1, b.p, b.n);
		*slash = '/';
		errno = -e;
		if (e < 0)
			r = mw_fail_errno(err, "cannot write %s", f->file);
	}
	mw_cli_as_self();
	f->dirty = f->dirty && r < 0;
	f->saved_us = clock->mono_us(clock);
	return r;
}
