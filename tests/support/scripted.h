/* scripted.h - sessions as scripts over a journal that takes mail: the settings changed
 * under way, and the steps that every script has. For one file of a program, from one
 * thread: setup and teardown are a group's.
 */
#ifndef MW_TEST_SCRIPTED_H
#define MW_TEST_SCRIPTED_H

#include "milter/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "journal/base/util.h"
#include "tests/support/taking.h"

#include <cmocka.h>

static inline void
use(struct mw_conf *c)
{
	struct mw_err err = {0};
	if (mw_capture_reload(&cap, c, &err) < 0)
		fail_msg("%s", err.msg);
}

static inline struct mw_conf *
with_domain(const char *name)
{
	struct mw_conf *c = taking_settings();
	c->local_domains.v = calloc(2, sizeof(char *)); /* freed with the settings */
	c->local_domains.v[0] = strdup(name);
	c->local_domains.n = 1;
	return c;
}

static inline int
setup(void **state)
{
	(void)state;
	return taking_dir() < 0 ? -1 : taking_open(taking_settings());
}

static inline int
teardown(void **state)
{
	(void)state;
	struct mw_store_stats stats;
	mw_store_stats(store, &stats);
	assert_int_equal(stats.coming, 0); /* each that began was counted out */
	return taking_end();
}

static inline void
mail(struct mw_session *s, const char *from)
{
	struct mw_str v[] = {mw_strz(from)};
	struct mw_answer a;
	assert_int_equal(mw_session_mail(s, v, 1, true, &a), 0);
	assert_false(a.refuse);
}

static inline void
macro(struct mw_session *s, char stage, const char *name, const char *value)
{
	mw_session_macro(s, stage, mw_strz(name), mw_strz(value));
}

#endif
