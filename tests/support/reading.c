#include "tests/support/reading.h"

#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct mw_store *
scratch_make(struct scratch *s)
{
	struct mw_err err = {0};
	(void)snprintf(s->root, sizeof s->root, "/tmp/mw-test-XXXXXX");
	assert_non_null(mkdtemp(s->root));
	(void)snprintf(s->dir, sizeof s->dir, "%s/j", s->root);
	if (mw_store_create(s->dir, NULL, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	return opened(&(struct mw_store_opts){.dir = s->dir,
	                                      .mode = MW_STORE_WRITE,
	                                      .segment_size = 1 << 20,
	                                      .delimiter = "+"});
}

int
scratch_remove(const struct scratch *s)
{
	shell("rm -rf '%s'", s->root);
	return 0;
}

void
reading_begin(struct reading *r, struct scratch *s)
{
	static char plus[] = "+";
	*r = (struct reading){.journal = s->dir};
	r->conf.recipient_delimiter = plus;
	r->cli = (struct mw_cli){.conf = &r->conf,
	                         .journals = &r->journal,
	                         .n_journals = 1,
	                         .stores = &r->store};
	r->arena = mw_arena_new(0);
	assert_non_null(r->arena);
	r->store = opened(&(struct mw_store_opts){.dir = s->dir, .mode = MW_STORE_READ});
}

void
reading_end(struct reading *r)
{
	mw_store_close(r->store);
	mw_arena_free(r->arena);
}
