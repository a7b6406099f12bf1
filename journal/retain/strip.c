/* The copies of one person taken out of a message that others keep, as tombstones say. */
#include "journal/retain/retain.h"
#include "journal/store/later.h"

struct said {
	const struct mw_gone *gone;
	const struct mw_store *st;
	uint64_t seq;
};

int
mw_gone_name(const struct mw_gone *g, const struct mw_store *st, uint64_t seq,
             enum mw_key kind, struct mw_str name)
{
	uint8_t token[MW_STORE_OWN][8];
	int n = mw_store_own_names(st, kind, name, token);
	for (int i = 0; i < n; i++)
		if (mw_gone_token(g, seq, token[i]))
			return 1;
	return n < 0 ? n : 0;
}

static int
is_said(const void *arg, enum mw_key kind, struct mw_str name)
{
	const struct said *s = arg;
	return mw_gone_name(s->gone, s->st, s->seq, kind, name);
}

int
mw_erased_strip(const struct mw_gone *g, const struct mw_store *st, uint64_t seq,
                struct mw_mail *m)
{
	struct said s = {g, st, seq};
	return mw_gone_copies(g, seq) ? mw_mail_strip(m, is_said, &s) : 0;
}
