#include "replay/target_imap.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/record/header.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The staging folder: its creation is the lock of a mailbox, its first message says who
 * holds it, and only what has left it is in the mailbox. */

enum {
	SETTLE_MS = 400, /* between two looks at a dead run's staging folder */
	SETTLE_SAME = 3, /* … that find what the one before them did */
	SETTLE_ROUNDS = 15,
	DELETE_TRIES = 4,
	AGAIN_MS = 1100,
	COPY_MS = 10000,
	FOLDERS_AT_ONCE = 64 /* asked for with what else the beginning asks */
};

struct marker { /* what a staging folder's first message says */
	bool any;
	char ledger[80], host[200], run[80];
};

static void
marker_field(struct mw_str header, const char *name, char *out, size_t n)
{
	struct mw_field f;
	if (!mw_header_find(header, name, &f))
		return;
	struct mw_str v = mw_str_trim(f.value);
	size_t k = MW_MIN(v.n, n - 1);
	for (size_t i = 0; i < k; i++)
		out[i] = (unsigned char)v.p[i] < 33 || (unsigned char)v.p[i] > 126
		             ? '?'
		             : v.p[i];
	out[k] = '\0';
}

static int
on_marker(void *arg, struct mw_imap_cur cur)
{
	struct marker *m = arg;
	struct mw_imap_fetch f;
	if (!mw_imap_parse_fetch(cur, &f) || !f.has_header)
		return 0;
	m->any = true;
	marker_field(f.header, "X-Mailwal-Ledger", m->ledger, sizeof m->ledger);
	marker_field(f.header, "X-Mailwal-Host", m->host, sizeof m->host);
	marker_field(f.header, "X-Mailwal-Run", m->run, sizeof m->run);
	return 0;
}

static int
ask_marker(struct mw_imap *c, struct mw_err *err)
{
	return mw_imap_cmd(c, err,
	                   "FETCH 1 (BODY.PEEK[HEADER.FIELDS (X-MAILWAL-LEDGER "
	                   "X-MAILWAL-HOST X-MAILWAL-RUN)])");
}

static int
on_counts(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_counts *n = arg, v;
	if (mw_imap_parse_counts(cur, &v))
		*n = v;
	return 0;
}

/* Sleeps, but not through a Ctrl-C. */
static void
nap(const struct mw_target *t, int ms)
{
	for (; ms > 0 && !(t->o.stopped && t->o.stopped()); ms -= 50)
		(void)poll(NULL, 0, 50);
}

static int
locked_by(struct mw_imap_box *b, const struct marker *m, struct mw_err *err)
{
	if (!m->any || !m->run[0])
		mw_fail(err, MW_ELOCKED,
		        "mailbox %s has a folder " MW_STAGING_NAME
		        " that holds no marker of a replay",
		        b->mailbox);
	else
		mw_fail(err, MW_ELOCKED,
		        "mailbox %s is being replayed by host %s (run %s)", b->mailbox,
		        m->host, m->run);
	return mw_err_hint(
	    err, "if no replay is at work there, delete the folder " MW_STAGING_NAME
	         " of that mailbox; it holds only copies");
}

/* Waits until a dead run's server process has come to rest. */
static int
settle(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap_counts was = {.uidnext = UINT64_MAX}, now;
	int same = 0;
	for (int i = 0; i < SETTLE_ROUNDS; i++) {
		now = (struct mw_imap_counts){0};
		int r =
		    mw_imap_cmd(b->c, err, "STATUS %s (MESSAGES UIDNEXT)", b->staging);
		if (!r)
			r = mw_imap_wait(b->c, on_counts, &now, err);
		if (r)
			return r == MW_EREFUSED ? 1 : r; /* gone already */
		bool equal = now.messages == was.messages && now.uidnext == was.uidnext;
		same = equal ? same + 1 : 0;
		if (same == SETTLE_SAME)
			return 0;
		was = now;
		nap(t, SETTLE_MS);
	}
	return mw_fail(err, MW_ELOCKED,
	               "folder " MW_STAGING_NAME " of mailbox %s is in use", b->mailbox);
}

/* Cyrus keeps a deleted folder under a name that ends in the second of its deletion, and
 * so refuses to delete a second one of the same name within it: not now is not never. */
static int
delete_staging(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	int r = 0;
	for (int i = 0; i < DELETE_TRIES; i++) {
		r = mw_imap_do(c, err, "DELETE %s", b->staging);
		if (r != MW_EREFUSED || c->last.no == MW_NO_NONEXISTENT)
			break;
		nap(t, AGAIN_MS);
	}
	return r;
}

int
mw_imap_staging_drop_send(struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	if (!b->selected || c->message_limit)
		return 0;
	int r = mw_imap_cmd(c, err, "SELECT %s", b->staging);
	if (!r)
		r = mw_imap_cmd(c, err, "UID STORE 1:* +FLAGS.SILENT (\\Deleted)");
	if (!r)
		r = mw_imap_cmd(c, err, "CLOSE");
	if (!r)
		r = mw_imap_cmd(c, err, "DELETE %s", b->staging);
	b->drop_due = r ? 0 : 4;
	return r ? r : mw_net_flush(c->net, err);
}

/* In one round trip; only where it is selected for certain, since what is selected loses
 * all it holds. It is selected once more all the same: where that fails nothing is. */
static int
drop_selected(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	int r = b->drop_due ? 0 : mw_imap_staging_drop_send(b, err);
	for (; b->drop_due && (!r || r == MW_EREFUSED); b->drop_due--)
		r = mw_imap_wait(c, NULL, NULL, err);
	if (r != MW_EREFUSED || c->last.no == MW_NO_NONEXISTENT)
		return r;
	nap(t, AGAIN_MS);
	return delete_staging(t, b, err);
}

static int
on_expunge(void *arg, struct mw_imap_cur cur)
{
	struct mw_str n, word;
	if (mw_str_cut(mw_str(cur.p + 2, cur.n - 2), ' ', &n, &word) &&
	    mw_str_ieq(word, MW_STR("EXPUNGE")))
		*(bool *)arg = true;
	return 0;
}

/* Marks all of the selected folder \Deleted. To stay selected (keep): but for the marker,
 * which is its oldest message, and these are expunged. A server may deal with the newest
 * messages of a command only, and need not say so: it is asked as long as it comes on;
 * what is left then goes with a folder that is about to be deleted. */
static int
empty(struct mw_imap_box *b, bool keep, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	bool more = true, gone = true;
	int r = 0;
	while (!r && more && gone) {
		/* "n:*" always names the newest one. */
		r = mw_imap_do(c, err, "UID STORE 1:* +FLAGS.SILENT (\\Deleted)");
		more = c->cut > 0;
		if (!r && !more && !keep)
			return 0;
		if (!r && keep)
			r = mw_imap_do(c, err, "STORE 1 -FLAGS.SILENT (\\Deleted)");
		gone = false;
		if (!r)
			r = mw_imap_cmd(c, err, "EXPUNGE");
		if (!r)
			r = mw_imap_wait(c, on_expunge, &gone, err);
		more = more || c->cut;
	}
	if (!r && more && keep)
		return mw_fail(err, MW_EPROTO,
		               "%s does not expunge the folder " MW_STAGING_NAME,
		               mw_net_peer(c->net));
	return r;
}

static int
drop_unselected(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	int r = mw_imap_do(c, err, "SELECT %s", b->staging);
	bool open = !r; /* else what CLOSE expunges might be the user's */
	if (open)
		r = empty(b, false, err);
	if (open && (!r || r == MW_EREFUSED))
		r = mw_imap_do(c, err, "CLOSE");
	if (!r || r == MW_EREFUSED)
		r = delete_staging(t, b, err);
	return r;
}

static int
on_made(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_status st;
	if (mw_imap_parse_status(mw_str(cur.p + 2, cur.n - 2), &st) &&
	    mw_str_ieq(st.code, MW_STR("UIDVALIDITY")))
		*(uint32_t *)arg = mw_imap_set_at(st.args, 0);
	return 0;
}

/* Opens it, and notes its UIDVALIDITY. */
static int
open_staging(struct mw_imap_box *b, uint32_t *ret, struct mw_err *err)
{
	*ret = 0;
	int r = mw_imap_cmd(b->c, err, "SELECT %s", b->staging);
	if (!r)
		r = mw_imap_wait(b->c, on_made, ret, err);
	b->selected = !r;
	return r;
}

int
mw_imap_staging_drop(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	uint32_t now = 0;
	int r = 0;
	if (b->locked && (!b->marked || (!b->selected && !c->message_limit)))
		r = open_staging(b, &now, err);
	if (r && r != MW_EREFUSED)
		return r;
	/* Before our marker was seen another run may have made it anew. */
	if (b->locked && !b->marked && b->made && now && now != b->made) {
		b->locked = b->selected = false;
		return 0;
	}
	/* Emptied first: a MOVE that still runs elsewhere then finds nothing. */
	bool at_once = b->drop_due || (b->selected && !c->message_limit);
	r = at_once ? drop_selected(t, b, err) : drop_unselected(t, b, err);
	b->selected = false;
	if (r == MW_EREFUSED && c->last.no != MW_NO_NONEXISTENT)
		return mw_imap_refused(c, err, "delete the folder " MW_STAGING_NAME);
	return r == MW_EREFUSED ? 0 : r;
}

/* A folder in whose deletion the server's process was killed: Dovecot lists it, and for
 * half a minute neither opens nor deletes it, nor lets another be made in its place. It
 * is put aside, and a later run deletes it. */
static int
put_aside(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	char text[400];
	const struct mw_clock *clk = mw_clock_system();
	long long now = (long long)(clk->now_us(clk) / 1000);
	int n = (int)strlen(b->staging) - 1; /* without the last quote */
	int r = mw_imap_do(b->c, err, "RENAME %s %.*s" MW_STAGING_BROKEN "%lld\"",
	                   b->staging, n, b->staging, now);
	if (r == MW_EREFUSED)
		return mw_imap_refused(b->c, err,
		                       "put the broken folder " MW_STAGING_NAME " aside");
	if (r)
		return r;
	b->staging_seen = false;
	(void)snprintf(
	    text, sizeof text,
	    "warning: mailbox %.100s has a folder " MW_STAGING_NAME MW_STAGING_BROKEN
	    "%lld that the server can neither open nor delete now: it was killed while "
	    "it deleted it. A run in a minute or later removes it",
	    b->mailbox, now);
	if (t->o.note)
		t->o.note(t->o.note_arg, text);
	return 0;
}

static int
on_listed(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_list l;
	bool *there = arg;
	*there = *there || mw_imap_parse_list(cur, &l);
	return 0;
}

/* It cannot be looked at: it has just gone, or its deletion is under way, or never comes
 * to an end. */
static int
going(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	for (int i = 0; i < SETTLE_ROUNDS; i++) {
		bool there = false;
		int r = mw_imap_cmd(b->c, err, "LIST \"\" %s", b->staging);
		if (!r)
			r = mw_imap_wait(b->c, on_listed, &there, err);
		if (r && r != MW_EREFUSED)
			return r;
		if (!there) {
			b->staging_seen = false;
			return 0;
		}
		nap(t, SETTLE_MS);
	}
	return put_aside(t, b, err);
}

int
mw_imap_staging_tidy(struct mw_imap_box *b, struct mw_err *err)
{
	const char *p = (const char *)b->broken.p;
	int r = mw_buf_ok(&b->broken) ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
	for (size_t at = 0; !r && at < b->broken.n; at += strlen(p + at) + 1) {
		/* Opened to be written to, Dovecot takes it for a folder again. */
		r = mw_imap_do(b->c, err, "SELECT %s", p + at);
		if (!r)
			r = mw_imap_do(b->c, err, "CLOSE");
		if (!r)
			r = mw_imap_do(b->c, err, "DELETE %s", p + at);
		r = r == MW_EREFUSED ? 0 : r;
	}
	mw_buf_clear(&b->broken);
	return r;
}

/* There is a staging folder: of this ledger (whose lock we hold, so its run is dead), or
 * somebody else's. An empty one without marker was left between two steps. */
int
mw_imap_staging_take_over(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	struct marker m = {0};
	for (int round = 0; round < 2; round++) {
		struct mw_imap_counts n = {0};
		int r = settle(t, b, err);
		if (r)
			return r < 0 ? r : going(t, b, err);
		r = mw_imap_do(c, err, "EXAMINE %s", b->staging);
		if (r)
			return r == MW_EREFUSED
			           ? mw_imap_refused(c, err, "open " MW_STAGING_NAME)
			           : r;
		r = ask_marker(c, err);
		if (!r)
			r = mw_imap_wait(c, on_marker, &m, err);
		if (r && r != MW_EREFUSED)
			return r;
		if (m.any)
			break;
		r = mw_imap_cmd(c, err, "STATUS %s (MESSAGES)", b->staging);
		if (!r)
			r = mw_imap_wait(c, on_counts, &n, err);
		if (r || n.messages)
			break;
		nap(t, 1500); /* another host may just be making it */
	}
	bool ours = m.any && t->o.ledger_id && strcmp(m.ledger, t->o.ledger_id) == 0;
	struct mw_imap_counts n = {0};
	int r = mw_imap_cmd(c, err, "STATUS %s (MESSAGES)", b->staging);
	if (!r)
		r = mw_imap_wait(c, on_counts, &n, err);
	if (r && r != MW_EREFUSED)
		return r;
	if (!ours && (m.any || n.messages))
		return locked_by(b, &m, err);
	r = mw_imap_staging_drop(t, b, err);
	/* Without MOVE a COPY of the dead run may still come to its end, unseen. */
	if (!r && n.messages > 1 && !(c->caps & MW_CAP_MOVE))
		nap(t, COPY_MS);
	return r;
}

static int
marker_content(void *arg, const struct mw_imap_msg *m,
               int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	const struct mw_buf *b = m->ref;
	(void)arg, (void)err;
	return sink(sarg, b->p, b->n);
}

/* The marker goes on its way; its answer is due with that of a SELECT behind it, which
 * waits for what was asked before, on any server. (APPEND and LIST do not wait for each
 * other: Dovecot answers an APPEND last.) */
static int
put_marker(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	MW_BUF_AUTO text = {0};
	char host[200] = "unknown";
	const struct mw_clock *clk = mw_clock_system();
	(void)gethostname(host, sizeof host - 1);
	mw_buf_printf(
	    &text,
	    "From: mailwal <mailwal@localhost>\r\n"
	    "Subject: a mailwal replay is at work\r\n"
	    "X-Mailwal-Host: %s\r\nX-Mailwal-Ledger: %s\r\n"
	    "X-Mailwal-Run: %s\r\nX-Mailwal-Journal: %s\r\n"
	    "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
	    "Mail is being put back into this mailbox. This folder goes away by\r\n"
	    "itself when that is done. It holds nothing but copies.\r\n",
	    host, t->o.ledger_id ? t->o.ledger_id : "-", t->o.run_id ? t->o.run_id : "-",
	    t->o.journal_id ? t->o.journal_id : "-");
	struct mw_imap_msg m = {clk->now_us(clk), text.n, "(\\Seen) ", &text};
	struct mw_imap_batch batch = {b->staging, &m, 1, marker_content, NULL};
	if (mw_buf_ok(&text))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	b->marker_sent = mw_imap_append_send(b->c, &batch, err);
	if (b->marker_sent < 0)
		return b->marker_sent;
	int r = mw_imap_cmd(b->c, err, "SELECT %s", b->staging);
	r = r ? r : ask_marker(b->c, err);
	b->marker_due = !r;
	b->selected = !r;
	return r ? r : mw_net_flush(b->c->net, err);
}

/* Whoever took the folder away while it had no marker yet may have made it anew: it is
 * his whose marker came first. Where none is shown nobody can know: the folder stays
 * locked, and so is taken away in the end. */
static int
hear_marker(struct mw_imap_box *b, bool put, struct mw_err *err)
{
	struct marker m = {0};
	const char *run = b->of->o.run_id ? b->of->o.run_id : "-";
	int r = mw_imap_wait(b->c, on_marker, &m, err);
	b->marked = m.any && strcmp(m.run, run) == 0;
	if (!put || (r && r != MW_EREFUSED) || b->marked)
		return r == MW_EREFUSED ? 0 : r;
	if (!m.any) {
		mw_fail(err, MW_EREFUSED,
		        "%s does not show the message that was just put into the "
		        "folder " MW_STAGING_NAME " of mailbox %s",
		        mw_net_peer(b->c->net), b->mailbox);
		return mw_err_hint(
		    err, "without it two runs could put the same mail into that mailbox; "
		         "nothing was put back there: look what keeps the server from "
		         "showing it, then run the replay again");
	}
	b->locked = b->selected = false;
	return locked_by(b, &m, err);
}

int
mw_imap_staging_settle(struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap_appended a;
	struct mw_err ignored;
	if (!b->marker_due)
		return 0;
	b->marker_due = false;
	int r = mw_imap_append_wait(b->c, b->marker_sent, &a, err);
	if (!r && a.code)
		r = mw_imap_refused(b->c, err, "write to the mailbox");
	if (r && r != MW_EREFUSED)
		return r;
	int q = mw_imap_wait(b->c, NULL, NULL, r ? &ignored : err);
	b->selected = !q;
	b->marker_uid = r ? 0 : a.uid;
	if (!r && q == MW_EREFUSED)
		(void)mw_imap_refused(b->c, err, "open the folder " MW_STAGING_NAME);
	bool put = !r && !q;
	if (q && q != MW_EREFUSED)
		return r ? r : q;
	int m = hear_marker(b, put, put ? err : &ignored);
	return r ? r : q ? q : m;
}

/* Makes the folder. Refused because it is there, though it cannot be looked at:
 * somebody's deletion is under way, or never comes to an end. */
static int
create_staging(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	char first[600];
	for (int i = 0; i < SETTLE_ROUNDS; i++) {
		int r = mw_imap_do(c, err, "CREATE %s", b->staging);
		if (r != MW_EREFUSED)
			return r;
		bool there = c->last.no == MW_NO_ALREADYEXISTS;
		(void)mw_imap_refused(c, err, "create the folder " MW_STAGING_NAME);
		(void)snprintf(first, sizeof first, "%s", err ? err->msg : "");
		struct mw_imap_counts n = {0};
		r = mw_imap_cmd(c, err, "STATUS %s (MESSAGES)", b->staging);
		if (!r)
			r = mw_imap_wait(c, on_counts, &n, err);
		if (!r) /* it is there: another run was faster */
			return mw_fail(err, MW_ELOCKED,
			               "mailbox %s is being replayed by "
			               "another run",
			               b->mailbox);
		if (r != MW_EREFUSED)
			return r;
		if (!there)
			return mw_fail(err, r, "%s", first);
		nap(t, SETTLE_MS);
	}
	int r = put_aside(t, b, err);
	if (!r)
		r = mw_imap_do(c, err, "CREATE %s", b->staging);
	return r == MW_EREFUSED
	           ? mw_imap_refused(c, err, "create the folder " MW_STAGING_NAME)
	           : r;
}

/* In one round trip: makes the folder, looks whether another changed since the scan, and
 * lists them. 1: changed, 0: not; MW_EREFUSED: the folder was not made. Opened, since of
 * a folder that is, as the last one scanned, STATUS tells what the server last knew; and
 * to be written to, or Courier takes no APPEND into it. */
static int
create_and_look(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_err ignored;
	int r = mw_imap_cmd(b->c, err, "CREATE %s", b->staging);
	if (!r)
		r = mw_imap_cmd(b->c, err, "SELECT %s", b->staging);
	if (!r)
		r = mw_imap_changed_send(b, err);
	if (!r)
		r = mw_imap_relist_send(b, err);
	if (!r)
		r = mw_imap_wait(b->c, NULL, NULL, err);
	bool made = !r;
	b->locked = made;
	if (r && r != MW_EREFUSED)
		return r;
	/* What is asked behind a CREATE that was refused says nothing. */
	struct mw_err *why = made ? err : &ignored;
	int open = mw_imap_wait(b->c, on_made, &b->made, why);
	bool lost = open && open != MW_EREFUSED;
	int changed = lost ? open : mw_imap_changed_wait(b, why);
	int other = changed < 0 ? changed : mw_imap_relist_wait(t, b, why);
	if (other < 0 && (made || b->c->sent != b->c->answered))
		return made ? other : mw_fail(err, other, "%s", ignored.msg);
	return made ? changed || other : r;
}

int
mw_imap_staging_begin(struct mw_target *t, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	bool at_once = b->n_folder <= FOLDERS_AT_ONCE;
	mw_imap_second_start(t);
	int changed = at_once ? create_and_look(t, b, err) : 0;
	if (changed < 0 && (changed != MW_EREFUSED || b->locked))
		return changed;
	bool looked = b->locked;
	int r = looked ? 0 : create_staging(t, b, err);
	if (r)
		return r;
	b->locked = true;
	if (!looked)
		r = open_staging(b, &b->made, err);
	if (!r || r == MW_EREFUSED)
		r = put_marker(t, b, err);
	if (!r && (changed > 0 || !looked || t->o.filing == MW_FILE_SIEVE))
		r = mw_imap_staging_settle(b, err);
	if (!r && !looked)
		changed = mw_imap_box_relist(t, b, err);
	if (!r && !looked && !changed)
		changed = mw_imap_box_changed(t, err);
	return r ? r : changed;
}

int
mw_imap_staging_purge(struct mw_imap_box *b, struct mw_err *err)
{
	return empty(b, true, err);
}
