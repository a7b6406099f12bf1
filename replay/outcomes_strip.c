/* What was erased is not noted again from a log that still names it (P11). */
#include "replay/outcomes.h"

#include "journal/retain/retain.h"

#include <string.h>

struct strip {
	const struct mw_store *st;
	const struct mw_gone *gone;
	uint64_t seq;
};

/* Where that cannot be found out: yes, since the log can be read again. */
static bool
is_erased(const struct strip *s, struct mw_str addr)
{
	return mw_gone_name(s->gone, s->st, s->seq, MW_KEY_RCPT, addr) != 0;
}

/* Is there a word in the text that is an erased address? */
static bool
names_erased(const struct strip *s, struct mw_str text)
{
	static const char ends[] = " \t<>()[]\"',;:";
	for (size_t i = 0; i < text.n; i++) {
		size_t from = i, to = i;
		if (text.p[i] != '@')
			continue;
		while (from > 0 && !memchr(ends, text.p[from - 1], sizeof ends - 1))
			from--;
		while (to < text.n && !memchr(ends, text.p[to], sizeof ends - 1))
			to++;
		while (to > i && text.p[to - 1] == '.') /* of a sentence */
			to--;
		if (is_erased(s, mw_str(text.p + from, to - from)))
			return true;
	}
	return false;
}

static size_t
strip_one(const struct strip *s, struct mw_outcome *o)
{
	size_t k = 0, had = o->n_rcpt;
	for (size_t i = 0; i < had; i++) {
		struct mw_outcome_rcpt r = o->rcpt[i];
		if (is_erased(s, r.addr))
			continue;
		if (is_erased(s, r.original))
			r.original = mw_str("", 0);
		if (names_erased(s, r.text))
			r.text = mw_str("", 0);
		if (names_erased(s, r.relay))
			r.relay = mw_str("", 0);
		o->rcpt[k++] = r;
	}
	o->n_rcpt = k;
	return had - k;
}

size_t
mw_outcomes_strip(struct mw_store *st, const struct mw_gone *gone, struct mw_outcome *v,
                  size_t *n)
{
	size_t k = 0, facts = 0;
	for (size_t i = 0; i < *n; i++) {
		struct strip s = {st, gone, v[i].seq};
		size_t others = (v[i].whole ? 1U : 0U) + (v[i].done ? 1U : 0U) +
		                (v[i].freed ? 1U : 0U);
		if (mw_gone_record(gone, v[i].seq)) {
			facts += v[i].n_rcpt + others;
			continue;
		}
		if (mw_gone_copies(gone, v[i].seq))
			facts += strip_one(&s, &v[i]);
		if (v[i].n_rcpt + others)
			v[k++] = v[i];
	}
	*n = k;
	return facts;
}
