#include "replay/target_imap_put.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

struct moved {
	size_t copied; /* so many by position, without MOVE; else 0 */
	/* what COPYUID said */
	uint32_t uidvalidity;
	struct mw_buf set, from;
	uint64_t n;
};

static void
moved_done(struct moved *m)
{
	mw_buf_free(&m->set);
	mw_buf_free(&m->from);
}

static void
note_copyuid(struct moved *m, struct mw_str args)
{
	struct mw_str validity, from, to, rest;
	if (!mw_str_cut(args, ' ', &validity, &rest) ||
	    !mw_str_cut(rest, ' ', &from, &to))
		return;
	m->uidvalidity = mw_imap_set_at(validity, 0);
	if (m->set.n) {
		mw_buf_putc(&m->set, ',');
		mw_buf_putc(&m->from, ',');
	}
	mw_buf_putstr(&m->set, to);
	mw_buf_putstr(&m->from, from);
	m->n += mw_imap_set_count(to);
}

static int
on_move(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_status st;
	if (mw_imap_parse_status(mw_str(cur.p + 2, cur.n - 2), &st) &&
	    mw_str_ieq(st.code, MW_STR("COPYUID")))
		note_copyuid(arg, st.args);
	return 0;
}

/* The n messages behind the marker from staging to the destination: the command. */
static int
move_send(struct mw_imap_putting *p, const char *uids, size_t n, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	const char *verb = c->caps & MW_CAP_MOVE ? "MOVE" : "COPY";
	return uids ? mw_imap_cmd(c, err, "UID %s %s %s", verb, uids, p->dest)
	            : mw_imap_cmd(c, err, "%s 2:%zu %s", verb, n + 1, p->dest);
}

static int
on_exists(void *arg, struct mw_imap_cur cur)
{
	struct mw_str n, word;
	if (mw_str_cut(mw_str(cur.p + 2, cur.n - 2), ' ', &n, &word) &&
	    mw_str_ieq(word, MW_STR("EXISTS")))
		*(uint32_t *)arg = mw_imap_set_at(n, 0);
	return 0;
}

/* What goes by position is all but the marker: n, and nothing of another run that took
 * the folder for its own. Asked once more when it was copied: what somebody took out of
 * the folder meanwhile went nowhere, and no answer says so. */
static int
only_ours(struct mw_imap_putting *p, size_t n, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	uint32_t exists = 0;
	int r = mw_imap_cmd(c, err, "SELECT %s", p->b->staging);
	if (!r)
		r = mw_imap_wait(c, on_exists, &exists, err);
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "open the folder " MW_STAGING_NAME);
	return r || exists == n + 1
	           ? r
	           : mw_fail(err, MW_EPROTO,
	                     "the folder " MW_STAGING_NAME " holds %u messages, not %zu",
	                     (unsigned)exists, n + 1);
}

static int
move_wait(struct mw_imap_putting *p, struct moved *m, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	int r = mw_imap_wait(c, on_move, m, err);
	if (!r && mw_str_ieq(mw_strz(c->last.code), MW_STR("COPYUID")))
		note_copyuid(m, mw_buf_str(&c->last.args));
	if (!r && c->cut) /* what it left is put anew after another look */
		return mw_fail(err, MW_EPROTO, "the server moved only some messages");
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "move mail to its folder");
	if (!r && m->copied)
		r = only_ours(p, m->copied, err);
	if (!r && !(c->caps & MW_CAP_MOVE))
		r = mw_imap_staging_purge(p->b, err);
	return r;
}

/* Each of the n messages was moved: all must have been seen, what a second connection
 * appended, and what somebody else may have taken out of the staging folder. */
static int
tell(struct mw_imap_putting *p, const struct moved *m, const struct mw_put *const *v,
     size_t n, struct mw_err *err)
{
	int r = 0;
	if (m->n != n && (m->n || p->b->c->caps & MW_CAP_UIDPLUS))
		r = mw_fail(err, MW_EPROTO, "the server moved %llu of %zu messages",
		            (unsigned long long)m->n, n);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_put_place place = {p->dest_name, m->uidvalidity,
		                             mw_imap_set_at(mw_buf_str(&m->set), i),
		                             v[i]->time_us};
		r = p->io->done(p->io->arg, v[i], 0, NULL, &place);
	}
	return r;
}

/* ---- under way ---- */

int
mw_imap_move_start(struct mw_imap_putting *p, struct mw_imap_round *d, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	/* The first connection must see what the second appended, and to select the
	 * folder once more makes sure of it in the same round trip; and of the order of
	 * answers: Dovecot may answer an APPEND after the UID commands behind it. */
	int r = mw_imap_cmd(c, err, "SELECT %s", p->b->staging);
	for (int i = 0; i < 2 && !r; i++) /* in the order of arrival */
		if (d->uids[i]) {
			d->moves++;
			r = p->sieve ? mw_imap_sieve_send(p->b, d->uids[i], err)
			             : move_send(p, d->uids[i], d->n, err);
		}
	d->behind = p->number;
	return r ? r : mw_net_flush(c->net, err);
}

/* ---- by a script ---- */

/* What the script left goes to INBOX, and then the folders are looked into. */
static int
move_rest(struct mw_imap_putting *p, const char *uids, struct moved *m,
          struct mw_err *err)
{
	int r = move_send(p, uids, 0, err);
	if (!r)
		r = move_wait(p, m, err);
	return r ? r : mw_imap_sieve_freshen(p->b, err);
}

static bool
is_in(const struct mw_buf *taken, uint32_t uid)
{
	for (size_t at = 0; at + sizeof uid <= taken->n; at += sizeof uid)
		if (memcmp(taken->p + at, &uid, sizeof uid) == 0)
			return true;
	return false;
}

/* Where each message went; uid 0: the script took it. One that it left and that was not
 * moved either is lost from the folder (Maildir, in which another process of the server
 * writes, can lose sight of files for a moment): nobody may think it filed. */
static int
places(const struct mw_imap_putting *p, const char *uids, const struct moved *m,
       const struct mw_buf *taken, struct mw_buf *ret, struct mw_err *err)
{
	size_t n = (size_t)mw_imap_set_count(mw_strz(uids)), k = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t to = 0, uid = mw_imap_set_at(mw_strz(uids), i);
		if (k < m->n && mw_imap_set_at(mw_buf_str(&m->from), k) == uid)
			to = mw_imap_set_at(mw_buf_str(&m->set), k++);
		else if (!is_in(taken, uid))
			return mw_fail(
			    err, MW_EPROTO,
			    "%s lost sight of mail in the folder " MW_STAGING_NAME,
			    mw_net_peer(p->b->c->net));
		mw_buf_put(ret, &to, sizeof to);
	}
	return ret->failed ? mw_fail(err, MW_ENOMEM, "out of memory") : 0;
}

/* The user's script, which was asked for, files what lies in staging. */
static int
by_script(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
          const char *uids, struct mw_err *err)
{
	struct moved m = {0};
	MW_BUF_AUTO taken = {0};
	MW_BUF_AUTO to = {0};
	int r = mw_imap_sieve_wait(p->t, p->b, uids, &taken, err);
	if (!r)
		r = move_rest(p, uids, &m, err);
	if (!r)
		r = places(p, uids, &m, &taken, &to, err);
	for (size_t i = 0; i < n && !r; i++) {
		struct mw_put_place place = {p->dest_name, m.uidvalidity, 0,
		                             v[i]->time_us};
		memcpy(&place.uid, to.p + i * sizeof place.uid, sizeof place.uid);
		r = place.uid ? p->io->done(p->io->arg, v[i], 0, NULL, &place)
		              : p->io->done(p->io->arg, v[i], MW_PUT_FILED, NULL, NULL);
	}
	moved_done(&m);
	return r;
}

int
mw_imap_move_end(struct mw_imap_putting *p, struct mw_imap_round *d, struct mw_err *err)
{
	struct moved m = {0};
	int r = mw_imap_wait(p->b->c, NULL, NULL, err);
	if (r == MW_EREFUSED)
		r = mw_imap_refused(p->b->c, err, "open the folder " MW_STAGING_NAME);
	if (!r && p->sieve) /* one connection appended all of it */
		return by_script(p, d->v, d->n, d->uids[d->uids[0] ? 0 : 1], err);
	for (unsigned i = 0; i < d->moves && !r; i++)
		r = move_wait(p, &m, err);
	if (!r)
		r = tell(p, &m, d->v, d->n, err);
	moved_done(&m);
	return r;
}

/* ---- at once ---- */

static int
script_now(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
           const char *uids, struct mw_err *err)
{
	if (!uids)
		return mw_fail(err, MW_EPROTO, "the server told no APPENDUID");
	int r = mw_imap_sieve_send(p->b, uids, err);
	return r ? r : by_script(p, v, n, uids, err);
}

int
mw_imap_move_now(struct mw_imap_putting *p, const struct mw_put *const *v, size_t n,
                 const char *uids, struct mw_err *err)
{
	struct mw_imap *c = p->b->c;
	struct moved m = {.copied = uids || c->caps & MW_CAP_MOVE ? 0 : n};
	int r = 0;
	if (!n || p->sieve)
		return n ? script_now(p, v, n, uids, err) : 0;
	/* By position where there is no UIDPLUS, the marker being the first. And Courier
	 * shows what was appended to the selected folder only to who asks; the great ones
	 * that know MOVE need no asking. */
	if (!uids)
		r = only_ours(p, n, err);
	else if (!(c->caps & MW_CAP_MOVE))
		r = mw_imap_do(c, err, "NOOP");
	if (!r)
		r = move_send(p, uids, n, err);
	if (!r)
		r = move_wait(p, &m, err);
	if (!r)
		r = tell(p, &m, v, n, err);
	moved_done(&m);
	return r;
}
