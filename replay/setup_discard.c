/* setup_discard.c - tables whose rows have Postfix answer 250 and throw the message away:
 * before any milter sees its content, so that it has no record. */
#include "replay/setup.h"

#include "journal/base/util.h"

#include <string.h>

enum {
	MOST_TOLD = 8 /* rows named by each setting */
};

struct discards {
	const struct mw_postfix *p;
	struct mw_advices *f;
	const char *where;
	size_t found;
};

#define text(...) mw_arena_printf(d->f->arena, __VA_ARGS__)

static void
row(void *arg, const char *table, struct mw_str key, struct mw_str value)
{
	struct discards *d = arg;
	struct mw_str word = mw_str(value.p, 0);
	while (word.n < value.n && !strchr(" \t,", value.p[word.n]))
		word.n++;
	if (!mw_str_ieq(word, MW_STR("DISCARD")) || d->found++ >= MOST_TOLD)
		return;
	mw_advice_add(d->f, MW_ADVICE_HOLE, "discard",
	              text("%s: %s: %.*s DISCARD: such mail is answered with 250 and has "
	                   "no record",
	                   d->where, table, (int)key.n, key.p),
	              "REJECT, if that is not wanted");
}

static void
look(struct discards *d, struct mw_str spec)
{
	if (mw_postfix_table(d->p, d->f->arena, spec, row, d) < 0)
		mw_advice_add(d->f, MW_ADVICE_NOTE, "discard",
		              text("%s: %.*s cannot be looked through: what it answers "
		                   "with DISCARD is acknowledged without a record",
		                   d->where, (int)spec.n, spec.p),
		              "look through it");
}

static void
more(const struct discards *d)
{
	if (d->found > MOST_TOLD)
		mw_advice_add(d->f, MW_ADVICE_HOLE, "discard",
		              text("%s: %zu more rows with DISCARD", d->where,
		                   d->found - MOST_TOLD),
		              NULL);
}

/* header_checks: a list of tables. */
static void
tables(struct discards *d, const char *list)
{
	struct mw_str rest = mw_strz(list), spec;
	while (mw_setup_word(&rest, &spec))
		look(d, spec);
	more(d);
}

/* smtpd_recipient_restrictions: "permit_mynetworks, check_client_access hash:/file, …" */
static void
restrictions(struct discards *d, const char *list)
{
	struct mw_str rest = mw_strz(list), word;
	bool table = false;
	while (mw_setup_word(&rest, &word)) {
		if (table)
			look(d, mw_setup_unbrace(word));
		struct mw_str end = MW_STR("_access");
		table = !table && mw_str_istarts(word, MW_STR("check_")) &&
		        word.n > end.n &&
		        mw_str_ieq(mw_str(word.p + word.n - end.n, end.n), end);
	}
	more(d);
}

static const struct {
	const char *name;
	void (*look)(struct discards *d, const char *list);
} settings[] = {
    {"header_checks", tables},
    {"body_checks", tables},
    {"mime_header_checks", tables},
    {"nested_header_checks", tables},
    {"milter_header_checks", tables},
    {"smtpd_client_restrictions", restrictions},
    {"smtpd_helo_restrictions", restrictions},
    {"smtpd_sender_restrictions", restrictions},
    {"smtpd_relay_restrictions", restrictions},
    {"smtpd_recipient_restrictions", restrictions},
    {"smtpd_data_restrictions", restrictions},
    {"smtpd_end_of_data_restrictions", restrictions},
};

void
mw_postfix_check_discards(const struct mw_postfix *p, struct mw_advices *f)
{
	const char *headers = mw_postfix_get(p, settings[0].name);
	for (size_t i = 0; i < MW_COUNT(settings); i++) {
		struct discards all = {p, f, settings[i].name, 0}, *d = &all;
		const char *v = mw_postfix_get(p, settings[i].name);
		/* Some of them are $header_checks unless set. */
		if (i == 0 || settings[i].look != tables || strcmp(v, headers) != 0)
			settings[i].look(d, v);
		for (size_t k = 0; k < p->n_service; k++) {
			const struct mw_service *s = &p->service[k];
			v = mw_postfix_override(p, s, settings[i].name);
			d->found = 0;
			d->where =
			    text("service %s/%s: %s", s->name, s->type, settings[i].name);
			if (v && d->where)
				settings[i].look(d, v);
		}
	}
}
