/* probe.c - values that are looked at once everything is read: does the file they name
 * exist, is it what it should be? Only what still stands then is looked at. */
#include "conf/conf_int.h"

#include <string.h>

void
mw_conf_probe_later(struct mw_conf_load *l, const struct mw_conf_opt *o,
                    const struct mw_conf_line *line, size_t at, size_t len,
                    const char *text)
{
	const struct mw_conf_probe *probe = NULL;

	for (size_t i = 0; l->o && i < l->o->n_probe; i++)
		if (strcmp(l->o->probe[i].name, o->name) == 0)
			probe = &l->o->probe[i];
	if (!probe)
		return;
	struct mw_conf_probed *p = mw_arena_alloc(l->arena, sizeof *p);
	if (!p) {
		l->nomem = true;
		return;
	}
	*p = (struct mw_conf_probed){NULL, probe, o, text, *line, at, len};
	/* The file's text is gone by then. */
	p->line.text.p = mw_conf_keep(l, line->text.p, line->text.n);
	p->line.text.n = strlen(p->line.text.p);
	if (!l->probed_end)
		l->probed_end = &l->probed;
	*l->probed_end = p;
	l->probed_end = &p->next;
}

void
mw_conf_probe_forget(struct mw_conf_load *l, const struct mw_conf_opt *o)
{
	for (struct mw_conf_probed *p = l->probed; p; p = p->next)
		if (p->opt == o)
			p->probe = NULL;
}

void
mw_conf_probe_all(struct mw_conf_load *l)
{
	for (const struct mw_conf_probed *p = l->probed; p; p = p->next) {
		struct mw_err err = {0};
		if (p->probe && p->probe->fn(p->text, &err) < 0)
			mw_conf_diag(l, MW_CONF_ERROR, &p->line, p->at, p->len, "%s: %s",
			             p->opt->name, err.msg);
	}
}
