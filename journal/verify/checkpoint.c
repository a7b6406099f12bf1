#include "journal/verify/checkpoint.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/codec/sign.h"
#include "journal/verify/note.h"

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
