/* The check after a run: what the target holds, compared with the journal; nothing is
 * changed. */
#include "journal/base/util.h"
#include "replay/look.h"

#include <stdlib.h>
#include <string.h>

enum {
	AT_ONCE = 200 /* copies whose profiles are held together */
};

static const char *
differs(const struct mw_profile *ours, const struct mw_profile *there, bool sent_copy)
{
	if (memcmp(ours->digest, there->digest, sizeof ours->digest) == 0)
		return NULL;
	/* What another program delivered may have been quoted beyond return. */
	if (memcmp(ours->unquoted, there->unquoted, sizeof ours->unquoted) != 0)
		return "altered: its body is not the captured one";
	/* A server or a later filter may add fields; a client's own Sent copy has others.
	 */
	if (sent_copy || mw_profile_subset(ours, there))
		return NULL;
	return "altered: header fields differ from the captured ones";
}

static int
compare(struct mw_look *l, size_t i, struct mw_profiler *f)
{
	struct mw_run *r = l->r;
	struct mw_plan_copy *p = &l->b->v[i];
	const struct mw_rc_stored *s = &l->s[l->c[i].stored];
	struct mw_err why = {0};
	if (!s->profile) /* it went while we looked */
		return mw_run_fate(r, p, MW_FATE_FAILED, "missing: not in the mailbox");
	int q = mw_run_content(r, &r->plan->rec[p->rec], mw_profiler_put, f, &why);
	MW_AUTOFREE struct mw_profile *ours = mw_profiler_take(f);
	if (q)
		return mw_run_fate(r, p, MW_FATE_FAILED, why.msg);
	if (!ours)
		return MW_ENOMEM;
	const char *bad = differs(ours, s->profile, l->c[i].how == MW_RC_SENT);
	(void)pthread_mutex_lock(&r->shared->mu);
	r->report->compared++;
	r->report->identical +=
	    memcmp(ours->exact, s->profile->exact, sizeof ours->exact) == 0;
	(void)pthread_mutex_unlock(&r->shared->mu);
	return mw_run_fate(r, p, bad ? MW_FATE_FAILED : MW_FATE_PRESENT, bad);
}

/* The next copies from *at on that are to be compared, with what they claimed fetched. */
static size_t
gather(struct mw_look *l, size_t *at, size_t v[AT_ONCE])
{
	size_t n = 0;
	for (; *at < l->b->n && n < AT_ONCE; ++*at) {
		const struct mw_plan_copy *p = &l->b->v[*at];
		if (!p->wanted || p->fate != MW_FATE_OPEN ||
		    l->c[*at].how == MW_RC_MISSING)
			continue;
		l->s[l->c[*at].stored].need = true;
		v[n++] = *at;
	}
	return n;
}

static int
absent(struct mw_look *l)
{
	int q = 0;
	for (size_t i = 0; i < l->b->n && !q; i++) {
		struct mw_plan_copy *p = &l->b->v[i];
		if (!p->wanted || p->fate != MW_FATE_OPEN || l->c[i].how != MW_RC_MISSING)
			continue;
		q = mw_run_ask_queue(l->r, l->b, p, l->err);
		if (q || p->waits == MW_WAITS_YES)
			continue;
		enum mw_fate known = mw_run_known_fate(p);
		q = known != MW_FATE_OPEN ? mw_run_fate(l->r, p, known, NULL)
		                          : mw_run_fate(l->r, p, MW_FATE_FAILED,
		                                        "missing: not in the mailbox");
	}
	return q;
}

int
mw_run_check(struct mw_look *l, struct mw_err *err)
{
	size_t at = 0, n, v[AT_ONCE];
	struct mw_profiler *f = mw_profiler_new();
	int q = f ? 0 : MW_ENOMEM;
	for (size_t i = 0; i < l->m; i++)
		l->s[i].need = false;
	while (!q && (n = gather(l, &at, v)) > 0) {
		q = mw_cli_stopped() ? mw_fail(err, MW_ECANCEL, "interrupted")
		                     : mw_look_fetch(l, n, err);
		if (q)
			break;
		for (size_t i = 0; i < n && !q; i++)
			q = compare(l, v[i], f);
		for (size_t i = 0; i < n; i++) {
			struct mw_rc_stored *s = &l->s[l->c[v[i]].stored];
			free(s->profile);
			s->profile = NULL;
			s->need = false;
		}
	}
	mw_profiler_free(f);
	if (!q)
		q = absent(l);
	return q == MW_ENOMEM ? mw_fail(err, q, "out of memory") : q;
}
