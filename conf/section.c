/* section.c - the kinds of sections and their settings, as data. */
#include "conf/conf_int.h"
#include "journal/base/util.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum {
	RELOAD = MW_CONF_RELOAD
};

static const struct mw_conf_opt retain_opts[] = {
    {"match", MW_CONF_LIST, offsetof(struct mw_conf_retain, match), "", "", "", RELOAD,
     "0.1",
     "Which mail the rule is for: class:NAME (the capture section that fitted), "
     "domain:DOMAIN or rcpt:ADDRESS (of a recipient), sender:ADDRESS, "
     "direction:in|out|internal, header:NAME[:PATTERN], spam:yes|no, larger:SIZE, "
     "smaller:SIZE. All must match; without any, every message does."},
    {"keep", MW_CONF_DURATION, offsetof(struct mw_conf_retain, keep_us), "0", "1s", "",
     RELOAD, "0.1", "Records older than this may be pruned."},
    {"max_size", MW_CONF_SIZE, offsetof(struct mw_conf_retain, max_size), "0", "1M", "",
     RELOAD, "0.1",
     "The oldest records of the rule may be pruned when together they take more than "
     "this."},
};
static const char *const retain_example[] = {"domain:example.org", "180d", "500G"};

static const struct mw_conf_opt capture_opts[] = {
    {"match", MW_CONF_LIST, offsetof(struct mw_conf_capture, match), "", "", "", RELOAD,
     "0.1",
     "Which mail the section is for: direction:in|out|internal, domain:DOMAIN or "
     "rcpt:ADDRESS (of a recipient), sender:ADDRESS, sender_domain:DOMAIN, user:LOGIN, "
     "client:ADDRESS[/BITS], header:NAME[:PATTERN], spam:yes|no, larger:SIZE, "
     "smaller:SIZE. Of each kind one must match; without any, every message does."},
    {"journal", MW_CONF_BOOL, offsetof(struct mw_conf_capture, journal), "yes", "", "",
     RELOAD, "0.1",
     "no: mail that the section is for passes without a record, and is counted."},
    {"on_failure", MW_CONF_ENUM, offsetof(struct mw_conf_capture, on_failure), "global",
     "", "global|tempfail|accept", RELOAD, "0.1",
     "As the setting of that name, for the mail of this section alone."},
};
static const char *const capture_example[] = {"direction:in spam:yes", "no", "accept"};

const struct mw_conf_section mw_conf_sections[MW_CONF_N_SECTIONS] = {
    {"capture", capture_opts, MW_COUNT(capture_opts), sizeof(struct mw_conf_capture),
     offsetof(struct mw_conf, capture), offsetof(struct mw_conf, n_capture),
     "What is journaled: sections, as many as you like, asked in this order for each "
     "recipient; the first that fits decides. What fits none is journaled.",
     capture_example},
    {"retain", retain_opts, MW_COUNT(retain_opts), sizeof(struct mw_conf_retain),
     offsetof(struct mw_conf, retain), offsetof(struct mw_conf, n_retain),
     "What may be pruned, and when: sections, as many as you like. Without any, nothing "
     "is pruned.",
     retain_example},
};

/* The members behind a kind's offsets. */

static char **
array_of(const struct mw_conf *c, const struct mw_conf_section *k)
{
	return (char **)((uintptr_t)c + k->array);
}

static size_t *
count_of(const struct mw_conf *c, const struct mw_conf_section *k)
{
	return (size_t *)((uintptr_t)c + k->count);
}

size_t
mw_conf_section_count(const struct mw_conf *c, const struct mw_conf_section *k)
{
	return *count_of(c, k);
}

void *
mw_conf_section_at(const struct mw_conf *c, const struct mw_conf_section *k, size_t i)
{
	return *array_of(c, k) + i * k->size;
}

const char *
mw_conf_section_name(const struct mw_conf *c, const struct mw_conf_section *k, size_t i)
{
	return *(char **)mw_conf_section_at(c, k, i);
}

void *
mw_conf_section_add(struct mw_conf *c, const struct mw_conf_section *k, const char *name)
{
	size_t *n = count_of(c, k);
	char **array = array_of(c, k), *v = realloc(*array, (*n + 1) * k->size);
	if (!v)
		return NULL;
	*array = v;
	char *p = v + *n * k->size;
	memset(p, 0, k->size);
	*(char **)(void *)p = strdup(name);
	if (!*(char **)(void *)p)
		return NULL;
	++*n; /* from here on it is freed with the others */
	for (size_t i = 0; i < k->n_opts; i++)
		if (mw_conf_value_default(p, &k->opts[i]) < 0)
			return NULL;
	return p;
}

void
mw_conf_sections_free(struct mw_conf *c)
{
	for (size_t s = 0; s < MW_CONF_N_SECTIONS; s++) {
		const struct mw_conf_section *k = &mw_conf_sections[s];
		for (size_t i = 0; i < *count_of(c, k); i++) {
			void *p = mw_conf_section_at(c, k, i);
			for (size_t o = 0; o < k->n_opts; o++)
				mw_conf_value_free(p, &k->opts[o]);
			free(*(char **)p);
		}
		free(*array_of(c, k));
	}
}

const struct mw_conf_section *
mw_conf_section_with(struct mw_str setting)
{
	for (size_t s = 0; s < MW_CONF_N_SECTIONS; s++) {
		const struct mw_conf_section *k = &mw_conf_sections[s];
		if (mw_conf_find(k->opts, k->n_opts, setting))
			return k;
	}
	return NULL;
}
