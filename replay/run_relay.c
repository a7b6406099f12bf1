#include "replay/run.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "journal/store/trail.h"

#include <stdio.h>
#include <string.h>

/* Targets that cannot be read back: the ledger is the only memory. And copies that their
 * users' scripts filed, which the ledger must remember in part. */

/* Of all recipients of the mail, the one whose copy this is. */
int
mw_run_address(void *arg, const struct mw_put *p, struct mw_str *ret, struct mw_err *err)
{
	struct mw_run *r = arg;
	const struct mw_plan_copy *copy = p->ref;
	struct mw_copy *c;
	size_t n;
	int q = mw_run_load(r, &r->plan->rec[copy->rec], err);
	if (!q)
		q = mw_copies(r->cli->conf, &r->mail, r->arena, &c, &n, err);
	if (q)
		return q;
	for (size_t i = 0; i < n; i++)
		if (!c[i].sent && strcmp(c[i].mailbox, r->box->mailbox) == 0) {
			*ret = c[i].addr;
			return 0;
		}
	return mw_fail(err, MW_EDAMAGED, "the record names no such recipient any more");
}

int
mw_run_token(void *arg, const struct mw_put *p, struct mw_str rcpt,
             const uint8_t body[MW_SHA256_LEN], char *ret, struct mw_err *err)
{
	struct mw_run *r = arg;
	const struct mw_plan_copy *copy = p->ref;
	const struct mw_clock *clk = mw_clock_system();
	uint8_t key[MW_GUARD_KEY];
	struct mw_guard g = {.time_us = clk->now_us(clk), .rcpt = rcpt};
	struct mw_store *st = mw_run_store(r, r->plan->rec[copy->rec].journal, err);
	if (!st)
		return err && err->code ? err->code : MW_EIO;
	memcpy(g.id, p->id, sizeof g.id);
	memcpy(g.body, body, sizeof g.body);
	mw_guard_key(st, key);
	mw_guard_make(key, &g, ret);
	explicit_bzero(key, sizeof key);
	return 0;
}

/* Without a daemon, or where it does not take it, the copy may be journaled once more:
 * that is no reason not to put it back. Who said so once is not asked again. */
int
mw_run_tell(void *arg, const struct mw_put *p, struct mw_str sender, struct mw_str rcpt,
            const struct mw_trail *trail, struct mw_err *err)
{
	struct mw_run *r = arg;
	const struct mw_plan_copy *copy = p->ref;
	const struct mw_plan_rec *rec = &r->plan->rec[copy->rec];
	const struct mw_trail_of of = {sender, rcpt, rec->digest};
	const uint64_t bit = UINT64_C(1) << (rec->journal % 64);
	uint8_t key[MW_GUARD_KEY], tag[MW_TRAIL_TAG];
	char hex[2 * MW_TRAIL_TAG + 1], id[2 * MW_ID_LEN + 1], request[128];
	MW_BUF_AUTO reply = {.max = 4096};
	struct mw_err why = {0};
	if (r->untold & bit)
		return 0;
	struct mw_store *st = mw_run_store(r, rec->journal, err);
	if (!st)
		return err && err->code ? err->code : MW_EIO;
	mw_guard_key(st, key);
	bool any = mw_trail_tag(trail, key, &of, 0, tag);
	explicit_bzero(key, sizeof key);
	if (!any)
		return 0;
	mw_hex(hex, tag, sizeof tag);
	mw_hex(id, p->id, MW_ID_LEN);
	(void)snprintf(request, sizeof request, "expect %s %s", hex, id);
	int q = mw_control_call(mw_store_dir(st), request, &reply, &why);
	if (q != MW_EUNAVAIL && (q || !mw_str_eq(mw_buf_str(&reply), MW_STR("yes"))))
		r->untold |= bit;
	return 0;
}

static int
ledger_fates(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	int q = 0;
	for (size_t i = 0; i < b->n && !q; i++) {
		struct mw_plan_copy *p = &b->v[i];
		const uint8_t *id = r->plan->rec[p->rec].id;
		if (!p->wanted || p->fate != MW_FATE_OPEN)
			continue;
		enum mw_ledger_state st =
		    r->ledger ? mw_ledger_get(r->ledger, id, b->box, p->sent)
		              : MW_LEDGER_NONE;
		if (st == MW_LEDGER_NONE)
			q = mw_run_ask_queue(r, b, p, err);
		if (q)
			break;
		if (p->waits == MW_WAITS_YES) /* no scan could tell more at the end */
			q = mw_run_fate(r, p, MW_FATE_QUEUED, NULL);
		else if (st == MW_LEDGER_NONE && mw_run_known_fate(p) != MW_FATE_OPEN)
			q = mw_run_fate(r, p, mw_run_known_fate(p), NULL);
		else if (p->sent)
			q = mw_run_fate(r, p, MW_FATE_SKIPPED,
			                "LMTP and SMTP cannot file into a Sent folder");
		else if (st == MW_LEDGER_DONE)
			q = mw_run_fate(r, p, MW_FATE_PRESENT, NULL);
		else if (st == MW_LEDGER_DOUBTFUL && !r->resend_doubtful)
			q = mw_run_fate(r, p, MW_FATE_DOUBTFUL,
			                "an earlier run was cut off while delivering it; "
			                "--resend-doubtful sends it again");
	}
	return q ? mw_fail(err, q, "out of memory") : 0;
}

/* What was under way when the line broke may have arrived. */
static int
doubt(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	int q = 0;
	for (size_t i = 0; i < b->n && !q; i++)
		if (b->v[i].wanted && b->v[i].fate == MW_FATE_TRIED)
			q = mw_run_fate(r, &b->v[i], MW_FATE_DOUBTFUL,
			                "the connection broke while delivering it");
	return q ? mw_fail(err, q, "out of memory") : 0;
}

int
mw_run_write_only(struct mw_run *r, struct mw_plan_box *b, struct mw_err *err)
{
	int tries = 0, q = ledger_fates(r, b, err);
	while (!q) {
		size_t before = mw_run_open_copies(b);
		if (!before)
			return 0;
		if (r->dry) {
			for (size_t i = 0; i < b->n && !q; i++)
				if (b->v[i].wanted && b->v[i].fate == MW_FATE_OPEN)
					q = mw_run_fate(r, &b->v[i], MW_FATE_RESTORED,
					                NULL);
			return q ? mw_fail(err, q, "out of memory") : 0;
		}
		int code = mw_target_open(r->target, b->mailbox, b->box, false, err);
		if (!code)
			code = mw_run_put_missing(r, b, before, err);
		q = doubt(r, b, err);
		if (q || !code)
			return q;
		tries = mw_run_open_copies(b) < before ? 1 : tries + 1;
		if (!mw_run_worth_retry(code) || tries >= MW_RUN_ATTEMPTS)
			return mw_run_open_copies(b) || code == MW_ECANCEL ? code : 0;
	}
	return q;
}

/* ---- filing by script ---- */

int
mw_run_taken(struct mw_run *r, struct mw_plan_copy *p)
{
	return mw_run_fate(r, p, MW_FATE_SKIPPED,
	                   "the user's Sieve script discards it or sends it on");
}

int
mw_run_filed(struct mw_run *r, struct mw_plan_copy *p, bool there, struct mw_err *err)
{
	const uint8_t *id = r->plan->rec[p->rec].id;
	const char *box = r->box->box;
	int q = there ? mw_ledger_done(r->ledger, id, box, p->sent, NULL, err)
	              : mw_ledger_taken(r->ledger, id, box, p->sent, err);
	p->filed = false;
	if (q)
		return q;
	return there ? mw_run_fate(r, p, MW_FATE_RESTORED, NULL) : mw_run_taken(r, p);
}

bool
mw_run_taken_before(const struct mw_run *r, const struct mw_plan_copy *p)
{
	return r->sieve && r->ledger && p->fate == MW_FATE_OPEN &&
	       mw_ledger_get(r->ledger, r->plan->rec[p->rec].id, r->box->box, p->sent) ==
	           MW_LEDGER_TAKEN;
}
