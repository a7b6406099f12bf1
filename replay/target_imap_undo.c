/* Taking away what a run put: by UID, which names one message for ever while UIDVALIDITY
 * stands (RFC 9051 §2.3.1.1) — unless the store itself was restored since: then both come
 * again, and the UID may be another message's. So the time of arrival must be the same.
 */
#include "journal/base/util.h"
#include "replay/target_imap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	AT_ONCE = 500 /* UIDs of one command */
};

struct away { /* the messages of one folder */
	bool dry;
	uint32_t uidvalidity;
	const struct mw_removal *v;
	size_t n;
	bool *there;
};

static int
on_select(void *arg, struct mw_imap_cur cur)
{
	struct away *a = arg;
	struct mw_str rest = mw_str(cur.p + 2, cur.n - 2);
	struct mw_imap_status st;
	if (mw_str_istarts(rest, MW_STR("OK [")) && mw_imap_parse_status(rest, &st) &&
	    mw_str_ieq(st.code, MW_STR("UIDVALIDITY")))
		a->uidvalidity = mw_imap_set_at(st.args, 0);
	return 0;
}

static bool
is_it(const struct mw_put_place *p, const struct mw_imap_fetch *f)
{
	if (p->uid != f->uid)
		return false;
	return !p->time_us ||
	       (f->date_us != INT64_MIN && f->date_us / 1000000 == p->time_us / 1000000);
}

static int
on_there(void *arg, struct mw_imap_cur cur)
{
	struct away *a = arg;
	struct mw_imap_fetch f;
	if (!mw_imap_parse_fetch(cur, &f) || !f.uid)
		return 0;
	for (size_t i = 0; i < a->n; i++)
		if (is_it(&a->v[i].place, &f))
			a->there[i] = true;
	return 0;
}

static void
uid_set(const struct away *a, bool all, uint32_t below, struct mw_buf *out)
{
	mw_buf_clear(out);
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i].place.uid && a->v[i].place.uid < below &&
		    (all || a->there[i]))
			mw_buf_printf(out, out->n ? ",%u" : "%u",
			              (unsigned)a->v[i].place.uid);
}

/* A command for all of them, or for those that are there; as often as a server that deals
 * with the newest ones only, announced or not, wants it. */
static int
with_each(struct mw_imap *c, struct away *a, bool all, const char *const words[2],
          struct mw_err *err)
{
	uint32_t above = UINT32_MAX;
	int r = 1;
	while (r > 0) {
		MW_BUF_AUTO set = {0};
		uid_set(a, all, above, &set);
		if (mw_buf_ok(&set))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		if (!set.n)
			return 0;
		r = mw_imap_cmd(c, err, "UID %s %s%s", words[0], mw_buf_cstr(&set),
		                words[1]);
		if (!r)
			r = mw_imap_wait(c, all ? on_there : NULL, a, err);
		if (!r)
			r = mw_imap_go_on(c, &above, err);
	}
	return r;
}

/* Some messages of the selected folder. */
static int
remove_some(struct mw_imap *c, struct away *a, struct mw_err *err)
{
	static const char *const look[2] = {"FETCH", " (UID INTERNALDATE)"},
	                         *const mark[2] = {"STORE", " +FLAGS.SILENT (\\Deleted)"},
	                         *const expunge[2] = {"EXPUNGE", ""};
	int r = with_each(c, a, true, look, err);
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "look for what was put back");
	if (!r && !a->dry)
		r = with_each(c, a, false, mark, err);
	if (!r && !a->dry)
		r = with_each(c, a, false, expunge, err);
	return r == MW_EREFUSED ? mw_imap_refused(c, err, "take mail away") : r;
}

/* The name as the ledger has it: quoted already, or plain. */
static int
select_folder(struct mw_imap_box *b, const char *name, struct away *a, struct mw_err *err)
{
	MW_BUF_AUTO q = {0};
	if (name[0] != '"' && !mw_imap_quote(mw_strz(name), &q))
		return MW_ENOTFOUND;
	if (mw_buf_ok(&q))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	b->selected = false;
	int r = mw_imap_cmd(b->c, err, "%s %s", a->dry ? "EXAMINE" : "SELECT",
	                    name[0] == '"' ? name : mw_buf_cstr(&q));
	if (!r)
		r = mw_imap_wait(b->c, on_select, a, err);
	if (r != MW_EREFUSED)
		return r;
	return b->c->last.no == MW_NO_NONEXISTENT
	           ? MW_ENOTFOUND
	           : mw_imap_refused(b->c, err, "open the folder it was put into");
}

static int
remove_from(struct mw_imap_box *b, const struct mw_removal *v, size_t n, bool *there,
            bool dry, struct mw_err *err)
{
	struct away a = {.dry = dry};
	const char *name = v[0].place.folder;
	int r = name && *name ? select_folder(b, name, &a, err) : MW_ENOTFOUND;
	if (r == MW_ENOTFOUND)
		return 0; /* the folder has gone */
	if (r)
		return r;
	if (a.uidvalidity != v[0].place.uidvalidity || !a.uidvalidity)
		return 0; /* made anew since */
	uint64_t limit = b->c->message_limit ? b->c->message_limit : AT_ONCE;
	size_t most = (size_t)MW_MIN(limit, (uint64_t)AT_ONCE);
	for (size_t i = 0; i < n && !r; i += most) {
		a.v = v + i;
		a.there = there + i;
		a.n = MW_MIN(n - i, most);
		r = remove_some(b->c, &a, err);
	}
	return r;
}

static bool
same_folder(const struct mw_put_place *a, const struct mw_put_place *b)
{
	return a->uidvalidity == b->uidvalidity &&
	       strcmp(a->folder ? a->folder : "", b->folder ? b->folder : "") == 0;
}

int
mw_imap_box_remove(struct mw_target *t, const struct mw_removing *what,
                   struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	const struct mw_removal *v = what->v;
	size_t n = what->n;
	MW_AUTOFREE bool *there = calloc(n ? n : 1, sizeof *there);
	int r = 0;
	if (!there)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!(b->c->caps & MW_CAP_UIDPLUS))
		return mw_fail(err, MW_EUSAGE,
		               "%s does not know UIDPLUS: single messages cannot be "
		               "taken away there",
		               mw_net_peer(b->c->net));
	for (size_t i = 0, k; i < n && !r; i = k) {
		for (k = i + 1; k < n && same_folder(&v[i].place, &v[k].place); k++)
			;
		r = remove_from(b, v + i, k - i, there + i, what->dry, err);
		for (size_t j = i; j < k && !r; j++)
			r = what->removed(what->arg, j, there[j] ? 0 : MW_ENOTFOUND);
	}
	return r;
}
