#include "replay/recover_audit.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/record/retire.h"
#include "journal/store/control.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The login that this session began with, which su and sudo do not change. */
static long
login_uid(void)
{
	char text[32] = "";
	FILE *f = fopen("/proc/self/loginuid", "re");
	if (!f)
		return -1;
	bool got = fgets(text, sizeof text, f) != NULL;
	(void)fclose(f);
	unsigned long v = got ? strtoul(text, NULL, 10) : UINT32_MAX;
	return v >= UINT32_MAX ? -1 : (long)v;
}

static const char *
name_of(uid_t uid)
{
	const struct passwd *pw = getpwuid(uid);
	return pw ? pw->pw_name : "?";
}

static void
say_who(struct mw_restore_log *l)
{
	long login = login_uid();
	int n = snprintf(l->by, sizeof l->by, "uid %u (%.60s)", (unsigned)getuid(),
	                 name_of(getuid()));
	if (login >= 0 && n > 0 && n < (int)sizeof l->by)
		(void)snprintf(l->by + n, sizeof l->by - (size_t)n, ", login %ld (%.60s)",
		               login, name_of((uid_t)login));
}

static int
note(struct mw_restore_log *l, size_t journal, const struct mw_restore *x,
     struct mw_err *err)
{
	const char *dir = l->cli->journals[journal];
	MW_BUF_AUTO cbor = {0};
	uint64_t seq = 0;
	if (mw_restore_encode(x, &cbor) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_cli_as_owner(dir, err);
	if (r == 0)
		r = mw_control_note(dir, MW_TYPE_RESTORE, x->time_us, cbor.p, cbor.n,
		                    &seq, err);
	mw_cli_as_self();
	if (r == 0 && !l->report->audit_seq)
		l->report->audit_seq = seq;
	return r < 0 ? mw_cli_owner_hint(err, "what is put back must be on record in "
	                                      "the journal: recover is for root and the "
	                                      "journal's owner")
	             : 0;
}

/* Is the copy one to tell of? */
static bool
told(const struct mw_plan_copy *c, bool ended)
{
	return ended ? c->fate == MW_FATE_RESTORED
	             : c->fate == MW_FATE_OPEN || c->fate == MW_FATE_TRIED;
}

/* The records for one journal: all IDs, so many at a time. An end is told even where
 * nothing was put back. */
static int
tell(struct mw_restore_log *l, const struct mw_plan *p, size_t journal,
     struct mw_restore *x, struct mw_err *err)
{
	MW_AUTOFREE uint8_t(*id)[MW_ID_LEN] = calloc(MW_RESTORE_IDS, MW_ID_LEN);
	int r = id ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	bool concerned = false;
	x->id = id;
	x->n_id = 0;
	for (size_t b = 0; b < p->n_box && r == 0; b++) {
		for (size_t i = 0; i < p->box[b].n && r == 0; i++) {
			const struct mw_plan_copy *c = &p->box[b].v[i];
			const struct mw_plan_rec *rec = &p->rec[c->rec];
			if (rec->journal != journal || !c->wanted)
				continue;
			concerned = concerned || x->ended;
			if (!told(c, x->ended))
				continue;
			memcpy(id[x->n_id++], rec->id, MW_ID_LEN);
			if (x->n_id == MW_RESTORE_IDS) {
				r = note(l, journal, x, err);
				x->n_id = 0;
				concerned = false;
			}
		}
	}
	return r == 0 && (x->n_id || concerned) ? note(l, journal, x, err) : r;
}

static int
tell_all(struct mw_restore_log *l, const struct mw_plan *p, bool ended,
         struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	const struct mw_report *rep = l->report;
	struct mw_restore x = {.time_us = clock->now_us(clock),
	                       .by = mw_strz(l->by),
	                       .user = mw_strz(rep->user),
	                       .target = mw_strz(rep->target),
	                       .folder = mw_strz(rep->folder ? rep->folder : ""),
	                       .run = mw_strz(rep->run_id ? rep->run_id : ""),
	                       .ended = ended,
	                       .selected = p->n_wanted};
	int r = 0;
	if (ended) {
		x.restored = rep->restored;
		x.present = rep->already_there;
		x.failed = rep->failed;
	}
	for (size_t k = 0; k < l->cli->n_journals && r == 0; k++)
		r = tell(l, p, k, &x, err);
	return r;
}

int
mw_restore_log_begin(struct mw_restore_log *l, const struct mw_plan *p,
                     struct mw_err *err)
{
	if (l->begun)
		return 0;
	say_who(l);
	int r = tell_all(l, p, false, err);
	l->begun = r == 0;
	return r;
}

int
mw_restore_log_end(struct mw_restore_log *l, const struct mw_plan *p, struct mw_err *err)
{
	return l->begun && p ? tell_all(l, p, true, err) : 0;
}
