/* status_keep.c - the part of a status that says what is kept: rules of retention, holds.
 */
#include "journal/base/util.h"
#include "journal/retain/retain.h"
#include "replay/status.h"

#include <stdio.h>

enum {
	LOOK_MOST = 200000 /* records */
};

int
mw_status_holds(struct mw_status *s, struct mw_store *st, struct mw_err *err)
{
	struct mw_holds *holds = NULL;
	const struct mw_hold *h;
	size_t cap = 0;
	int r = mw_holds_load(st, &holds, err);
	for (size_t i = 0; r == 0 && (h = mw_holds_get(holds, i)); i++) {
		const char *name =
		    mw_arena_printf(s->arena, "%.*s", (int)h->name.n, h->name.p);
		s->hold =
		    mw_arena_grow(s->arena, s->hold, &cap, s->n_hold + 1, sizeof name);
		if (!name || !s->hold)
			r = mw_fail(err, MW_ENOMEM, "out of memory");
		else
			s->hold[s->n_hold++] = name;
	}
	mw_holds_free(holds);
	/* A walk over much takes longer than monitoring waits: there the last prune's
	 * word counts. */
	if (r < 0 || s->records > LOOK_MOST)
		return r;
	s->lost = mw_arena_alloc(s->arena, sizeof *s->lost);
	if (s->lost)
		*s->lost = (struct mw_lost){.n = 0};
	return s->lost ? mw_holds_lost(st, s->arena, NULL, s->lost, err)
	               : mw_fail(err, MW_ENOMEM, "out of memory");
}

struct rules {
	json_t *array; /* or text */
	struct mw_buf *text;
	const char *word;
};

static void
on_setting(void *arg, const char *section, const char *word, const char *name,
           const char *value, const char *def)
{
	struct rules *r = arg;
	if (strcmp(section, "retain") != 0)
		return;
	bool first = !r->word || strcmp(r->word, word) != 0,
	     same = strcmp(value, def) == 0;
	r->word = word;
	if (r->array && first) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "name", mw_json_str(mw_strz(word)));
		(void)json_array_append_new(r->array, o);
	}
	if (r->array && !same)
		(void)json_object_set_new(json_array_get(r->array,
		                                         json_array_size(r->array) - 1),
		                          name, mw_json_str(mw_strz(value)));
	if (r->text && first)
		mw_buf_printf(r->text, "%s%s:", r->text->n ? "; " : "", word);
	if (r->text && !same)
		mw_buf_printf(r->text, " %s %s", name, value);
}

json_t *
mw_status_retention(const struct mw_conf *conf)
{
	struct rules r = {.array = json_array()};
	mw_conf_each_section(conf, on_setting, &r);
	return r.array;
}

void
mw_status_print_kept(const struct mw_conf *conf, const struct mw_status *s)
{
	MW_BUF_AUTO rules = {0};
	MW_BUF_AUTO names = {0};
	MW_BUF_AUTO safe = {0};
	struct rules r = {.text = &rules};
	mw_conf_each_section(conf, on_setting, &r);
	if (rules.n)
		mw_text_safe(mw_buf_str(&rules), false, &safe);
	printf("  Retention %s\n",
	       rules.n ? mw_buf_cstr(&safe) : "no rules: everything stays");
	mw_buf_clear(&safe);
	for (size_t i = 0; i < s->n_hold; i++)
		mw_buf_printf(&names, "%s%s", i ? ", " : "", s->hold[i]);
	mw_text_safe(mw_buf_str(&names), false, &safe);
	printf("  Holds     %s\n", s->n_hold ? mw_buf_cstr(&safe) : "none");
}
