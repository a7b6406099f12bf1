/* known_set.c - the outcomes of a whole journal set, and the marks they are held against.
 */
#include "replay/known.h"

#include "journal/base/util.h"

#include <stdlib.h>

/* When the backup began and ended: by the completed mark of each journal; in one that
 * lacks it, by the earliest in the set (as the selection does). An uncompleted mark
 * proves nothing. */
static int
find_marks(const struct mw_cli *cli, const struct mw_query *q, struct mw_known_set *s,
           uint64_t *seq, struct mw_err *err)
{
	int64_t earliest = INT64_MAX, latest = INT64_MIN;
	bool doubt = false;
	for (size_t k = 0; k < s->n; k++) {
		struct mw_mark_info m;
		struct mw_err e = {0};
		int r =
		    mw_mark_find_then(cli->stores[k], q->since_mark, q->marks_us, &m, &e);
		seq[k] = UINT64_MAX;
		if (r == MW_ENOTFOUND)
			continue;
		if (r < 0) {
			*err = e;
			return r;
		}
		doubt = doubt || m.state != MW_MARK_COMPLETE;
		seq[k] = m.start_seq;
		s->mark_us[k] = m.start_us;
		s->end_us[k] = m.end_us;
		earliest = MW_MIN(earliest, m.start_us);
		latest = MW_MAX(latest, m.end_us);
	}
	for (size_t k = 0; k < s->n; k++) {
		if (doubt || earliest == INT64_MAX) {
			s->mark_us[k] = s->end_us[k] = INT64_MIN;
		} else if (seq[k] == UINT64_MAX) {
			s->mark_us[k] = earliest;
			s->end_us[k] = latest;
		}
	}
	return 0;
}

int
mw_known_set_load(const struct mw_cli *cli, const struct mw_query *q,
                  struct mw_known_set *ret, struct mw_err *err)
{
	struct mw_known_set s = {.n = cli->n_journals};
	uint64_t *seq = calloc(s.n + 1, sizeof *seq);
	s.known = calloc(s.n + 1, sizeof(struct mw_known *));
	s.mark_us = calloc(s.n + 1, sizeof *s.mark_us);
	s.end_us = calloc(s.n + 1, sizeof *s.end_us);
	s.late = calloc(s.n + 1, sizeof *s.late);
	int r = seq && s.known && s.mark_us && s.end_us && s.late
	            ? 0
	            : mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t k = 0; k < s.n && r == 0; k++) {
		s.mark_us[k] = s.end_us[k] = INT64_MIN;
		r = mw_known_load(cli->stores[k],
		                  mw_known_is_fresh(cli->journals[k], cli->stores[k]),
		                  &s.known[k], err);
	}
	if (r == 0 && q->since_mark)
		r = find_marks(cli, q, &s, seq, err);
	for (size_t k = 0; k < s.n && r == 0 && q->since_mark; k++)
		if (s.mark_us[k] != INT64_MIN)
			r = mw_known_late(s.known[k], seq[k], s.mark_us[k],
			                  &s.late[k].seq, &s.late[k].n, err);
	free(seq);
	if (r < 0)
		mw_known_set_done(&s);
	else
		*ret = s;
	return r;
}

void
mw_known_set_done(struct mw_known_set *s)
{
	for (size_t k = 0; k < s->n; k++) {
		if (s->known)
			mw_known_free(s->known[k]);
		if (s->late)
			free(s->late[k].seq);
	}
	free(s->known);
	free(s->mark_us);
	free(s->end_us);
	free(s->late);
	*s = (struct mw_known_set){0};
}
