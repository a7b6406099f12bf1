/* setup_maps.c - smtpd_milter_maps: which clients it sends past the journal.
 *
 * A table's result takes the place of smtpd_milters for that client; DISABLE turns all
 * milters off. A table that cannot be looked through is a hole: who knows what it says.
 */
#include "replay/setup.h"

#include "journal/base/util.h"

#include <stdlib.h>
#include <string.h>

enum {
	MOST_TOLD = 8 /* entries named by each */
};

struct maps {
	const struct mw_postfix *p;
	struct mw_advices *f;
	const char *where;
	size_t bad, good;
	const char *seen[MOST_TOLD]; /* lists that were looked at */
	size_t n_seen;
};

#define text(...) mw_arena_printf(m->f->arena, __VA_ARGS__)

static const char fix[] = "give each client a list of milters that has mailwald";

static void
told(struct maps *m, const char *table, struct mw_str key, const char *what)
{
	if (m->bad++ >= MOST_TOLD)
		return;
	mw_advice_add(m->f, MW_ADVICE_HOLE, "smtpd_milter_maps",
	              text("%s: %s gives %.*s %s: their mail has no record", m->where,
	                   table, (int)key.n, key.p, what),
	              fix);
}

/* A list that has us may still leave us out at times, or give us an older protocol. */
static void
look_at_list(struct maps *m, const char *list)
{
	for (size_t i = 0; i < m->n_seen; i++)
		if (strcmp(m->seen[i], list) == 0)
			return;
	if (m->n_seen == MW_COUNT(m->seen))
		return;
	m->seen[m->n_seen++] = list;
	mw_postfix_check_list(m->p, NULL, m->f, m->where, list);
}

static void
judge(void *arg, const char *table, struct mw_str key, struct mw_str value)
{
	struct maps *m = arg;
	struct mw_milter_entry e;
	value = mw_arena_str(m->f->arena, mw_str_trim(value));
	if (!value.p)
		return;
	if (mw_str_ieq(value, MW_STR("DISABLE"))) {
		told(m, table, key, "DISABLE");
	} else if (!mw_milter_find(m->p, value.p, &e)) {
		told(m, table, key, "milters without mailwald");
	} else {
		m->good++;
		look_at_list(m, value.p);
	}
}

void
mw_postfix_check_maps(const struct mw_postfix *p, struct mw_advices *f, const char *where,
                      const char *list)
{
	struct maps all = {.p = p, .f = f, .where = where}, *m = &all;
	struct mw_str rest = mw_strz(list), spec;
	bool unread = false;
	for (int r = 0; r <= 0 && mw_setup_word(&rest, &spec);) {
		r = mw_postfix_table(p, f->arena, spec, judge, m);
		if (r >= 0)
			continue;
		unread = true;
		mw_advice_add(f, MW_ADVICE_HOLE, "smtpd_milter_maps",
		              text("%s: %.*s cannot be looked through: it can turn "
		                   "milters off for some clients",
		                   where, (int)spec.n, spec.p),
		              "see to it that each of its results has mailwald, or take "
		              "it out");
	}
	if (m->bad > MOST_TOLD)
		mw_advice_add(f, MW_ADVICE_HOLE, "smtpd_milter_maps",
		              text("%s: and %zu entries more", where, m->bad - MOST_TOLD),
		              fix);
	if (!m->bad && !unread && m->good)
		mw_advice_add(f, MW_ADVICE_NOTE, "smtpd_milter_maps",
		              text("%s is set; each of its results has mailwald", where),
		              NULL);
}
