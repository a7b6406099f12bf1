#include "journal/verify/checkpoint.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/codec/sign.h"
#include "journal/verify/note.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define ORIGIN MW_NOTE_CHECKPOINT

int
mw_checkpoint_make(struct mw_store *st, const struct mw_record *r, int64_t now_us,
                   struct mw_buf *out, struct mw_err *err)
{
	char name[MW_NOTE_NAME], head[64], when[40];
	size_t start = out->n;
	mw_note_name(ORIGIN, mw_store_id(st), name);
	mw_base64(r->chain, sizeof r->chain, head);
	mw_time_rfc3339(when, sizeof when, now_us);
	mw_buf_printf(out, "%s\n%llu\n%s\ntime %s\n", name, (unsigned long long)r->seq,
	              head, when);
	return mw_note_sign(st, ORIGIN, start, out, err);
}

static int
malformed(struct mw_err *err, const char *what)
{
	return mw_fail(err, MW_EFORMAT, "no checkpoint: %s", what);
}

static int
parse_text(struct mw_str text, struct mw_checkpoint *c, struct mw_err *err)
{
	struct mw_str rest = text, line;
	char num[32];
	if (!mw_str_cut(rest, '\n', &line, &rest) ||
	    !mw_str_starts(line, mw_strz(ORIGIN)) ||
	    line.n != sizeof ORIGIN - 1 + 2 * MW_ID_LEN ||
	    !mw_unhex(c->journal, line.p + sizeof ORIGIN - 1, MW_ID_LEN))
		return malformed(err, "its first line names no journal");
	if (!mw_str_cut(rest, '\n', &line, &rest) || line.n == 0 || line.n >= sizeof num)
		return malformed(err, "its second line is no sequence number");
	memcpy(num, line.p, line.n);
	num[line.n] = '\0';
	char *end;
	c->seq = strtoull(num, &end, 10);
	if (*end || c->seq == 0)
		return malformed(err, "its second line is no sequence number");
	if (!mw_str_cut(rest, '\n', &line, &rest) ||
	    !mw_unbase64(line.p, line.n, c->chain, sizeof c->chain))
		return malformed(err, "its third line is no chain head");
	while (mw_str_cut(rest, '\n', &line, &rest)) {
		char when[40] = "";
		if (!mw_str_starts(line, MW_STR("time ")) || line.n - 5 >= sizeof when)
			continue;
		memcpy(when, line.p + 5, line.n - 5);
		(void)mw_time_parse(when, 0, &c->time_us);
	}
	return 0;
}

int
mw_checkpoint_parse(struct mw_str text, const uint8_t *pk, struct mw_checkpoint *ret,
                    struct mw_err *err)
{
	struct mw_checkpoint c = {.seq = 0};
	char name[MW_NOTE_NAME];
	struct mw_str signed_text;
	if (!mw_note_text(text, &signed_text))
		return malformed(err, "there is no empty line before the signature");
	int e = parse_text(signed_text, &c, err);
	if (e < 0)
		return e;
	mw_note_name(ORIGIN, c.journal, name);
	if (!mw_note_open(text, name, pk, &signed_text))
		return mw_fail(
		    err, MW_EDAMAGED,
		    "the checkpoint is not signed by this journal's key, or was "
		    "altered");
	*ret = c;
	return 0;
}

/* ---- where it went ---- */

static const char state_name[] = "checkpoint.state";

int
mw_published_write(const char *dir, const struct mw_published *p, struct mw_err *err)
{
	char ledger[PATH_MAX];
	MW_BUF_AUTO b = {0};
	if (snprintf(ledger, sizeof ledger, "%s/ledger", dir) >= (int)sizeof ledger)
		return mw_fail(err, MW_EUSAGE, "path too long: %.80s", dir);
	mw_buf_printf(&b, "seq %llu\ntime_us %lld\nfile %s\ncommand %s\n",
	              (unsigned long long)p->seq, (long long)p->time_us, p->file,
	              p->command);
	if (mw_buf_ok(&b) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_fs_write_file(mw_fs_posix(), ledger, state_name, b.p, b.n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s/%s", ledger, state_name);
	}
	return 0;
}

static bool
take_line(struct mw_published *p, struct mw_str line)
{
	struct mw_str name, v;
	if (!mw_str_cut(line, ' ', &name, &v) || v.n >= sizeof p->file)
		return false;
	if (mw_str_eq(name, MW_STR("seq")))
		p->seq = strtoull(v.p, NULL, 10); /* a newline ends it */
	else if (mw_str_eq(name, MW_STR("time_us")))
		p->time_us = strtoll(v.p, NULL, 10);
	else if (mw_str_eq(name, MW_STR("file")))
		memcpy(p->file, v.p, v.n);
	else if (mw_str_eq(name, MW_STR("command")))
		memcpy(p->command, v.p, v.n);
	return true;
}

int
mw_published_read(const char *dir, struct mw_published *ret, struct mw_err *err)
{
	char path[PATH_MAX];
	MW_AUTOFREE void *text = NULL;
	size_t n;
	memset(ret, 0, sizeof *ret);
	if (snprintf(path, sizeof path, "%s/ledger/%s", dir, state_name) >=
	    (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %.80s", dir);
	int r = mw_fs_read_file(mw_fs_posix(), path, 8192, &text, &n);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	struct mw_str rest = mw_str(text, n), line;
	bool good = true;
	while (good && rest.n && mw_str_cut(rest, '\n', &line, &rest))
		good = take_line(ret, line);
	if (good && rest.n == 0 && ret->seq)
		return 0;
	memset(ret, 0, sizeof *ret);
	return mw_fail(err, MW_EDAMAGED, "%s is not what mailwald wrote", path);
}
