/* dialog_bdat.c - content in chunks (RFC 3030). A chunk goes on as it comes; only what
 * would complete the last one, its last byte, or its command when it is empty, waits for
 * the record. Bytes are counted, never looked at.
 *
 * The bytes of a chunk that is not wanted are read all the same: they are no commands.
 *
 * What the next server counts otherwise would be commands there, the client's, said in
 * our name. So it gets each command in one plain form, whatever the client wrote, and no
 * size that 32 bits do not hold: there are servers that take such a one for another. */
#include <stdio.h>

#include "journal/base/util.h"
#include "milter/dialog.h"

enum {
	EMPTY_MAX = 100, /* chunks without a byte */
	CHUNK_MAX = INT32_MAX,
};

/* "SIZE" or "SIZE LAST"; false: it is neither, and where the next command begins is not
 * known. */
static bool
parse(struct mw_str rest, uint64_t *ret_n, bool *ret_last)
{
	uint64_t n = 0;
	size_t i = 0;
	for (; i < rest.n && rest.p[i] >= '0' && rest.p[i] <= '9'; i++) {
		unsigned digit = (unsigned)(rest.p[i] - '0');
		if (n > ((uint64_t)INT64_MAX - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	if (i == 0 || (i < rest.n && rest.p[i] != ' '))
		return false;
	struct mw_str word = mw_str_trim(mw_str(rest.p + i, rest.n - i));
	*ret_n = n;
	*ret_last = mw_str_ieq(word, MW_STR("LAST"));
	return word.n == 0 || *ret_last;
}

static void
chunk_over(struct mw_dialog *d)
{
	struct mw_chunk *c = &d->chunk;
	c->in = false;
	if (c->skip) {
		c->skip = false;
		if (!d->dropped) {
			for (size_t i = 1; i < mw_dialog_replies(d); i++)
				mw_dialog_say(d, d->verdict);
			mw_dialog_junk(d, d->verdict);
			return;
		}
	}
	if (c->last || d->dropped)
		mw_dialog_data_end(d);
	else
		mw_dialog_wait(d, MW_DI_REPLY, 1);
}

/* The next server has said no to a chunk: whatever it may say to others, this message
 * will not reach its end. */
void
mw_dialog_chunk_refused(struct mw_dialog *d)
{
	d->chunk.failed = true;
	mw_session_abort(d->session);
}

/* Why there is no place for a chunk; NULL: there is. */
static const char *
misplaced(const struct mw_dialog *d)
{
	if (!d->open)
		return "503 5.5.1 MAIL first";
	if (d->accepted == 0)
		return "503 5.5.1 No valid recipients";
	return d->chunk.failed ? "503 5.5.1 A chunk was refused: RSET first" : NULL;
}

/* The command goes on, unless it would end the message at once. */
static void
chunk_begin(struct mw_dialog *d)
{
	struct mw_chunk *c = &d->chunk;
	d->verb = MW_VERB_BDAT;
	mw_dialog_keep_said(d, MW_VERB_BDAT);
	if (!c->begun)
		mw_dialog_data_begin(d);
	c->begun = true;
	struct mw_buf *to = c->last && c->left == 0 ? &d->held : &d->to_next;
	if (d->dropped)
		return;
	mw_buf_printf(to, "BDAT %llu%s\r\n", (unsigned long long)c->left,
	              c->last ? " LAST" : "");
	mw_buf_clear(&d->line);
	if (mw_buf_ok(&d->held) < 0)
		mw_dialog_data_drop(d, "451 4.3.0 Out of memory");
}

void
mw_dialog_bdat(struct mw_dialog *d, struct mw_str rest)
{
	struct mw_chunk *c = &d->chunk;
	uint64_t n;
	bool last;
	if (!d->chunking) { /* what follows would be read as commands */
		mw_dialog_bye(d, "421 5.5.1 BDAT is not offered here");
		return;
	}
	if (!parse(rest, &n, &last)) {
		mw_dialog_bye(d, "501 5.5.4 Syntax: BDAT size [LAST]; closing");
		return;
	}
	if (n > CHUNK_MAX) {
		mw_dialog_bye(d, "552 5.3.4 Chunk too large; closing");
		return;
	}
	if (c->begun && mw_dialog_data_late(d)) {
		mw_dialog_bye(d, "421 4.4.2 Timeout");
		return;
	}
	if (n == 0 && !last && ++c->empty > EMPTY_MAX) {
		mw_dialog_bye(d, "421 4.7.0 Too many chunks without content");
		return;
	}
	const char *why = misplaced(d);
	c->in = true;
	c->left = n;
	c->last = last;
	mw_dialog_wait(d, MW_DI_CONTENT, 1);
	if (why) {
		if (!c->begun)
			d->began_us = d->o.cap->clock->mono_us(d->o.cap->clock);
		c->skip = true;
		d->dropped = false;
		(void)snprintf(d->verdict, sizeof d->verdict, "%s", why);
	} else {
		chunk_begin(d);
	}
	if (n == 0)
		chunk_over(d);
}

bool
mw_dialog_chunk_run(struct mw_dialog *d)
{
	struct mw_chunk *c = &d->chunk;
	size_t n = d->in.n - d->in_at;
	const char *p = (char *)d->in.p + d->in_at;
	if (n == 0)
		return false;
	n = (size_t)MW_MIN((uint64_t)n, c->left);
	d->in_at += n;
	c->left -= n;
	if (!c->skip && !d->dropped) {
		bool hold = c->last && c->left == 0;
		mw_buf_put(&d->to_next, p, n - hold);
		if (hold)
			mw_buf_putc(&d->held, p[n - 1]);
		mw_dialog_content(d, p, n);
		if (!d->dropped && mw_buf_ok(&d->held) < 0)
			mw_dialog_data_drop(d, "451 4.3.0 Out of memory");
	}
	mw_dialog_data_going(d);
	if (c->left == 0)
		chunk_over(d);
	return d->in_at < d->in.n;
}
