/* corner.h - a journal to which the tests of the engine's corners append, and the look-up
 * that tells what it has; both go through a file table that a test may change. For one
 * file of a program.
 */
#ifndef MW_TEST_CORNER_H
#define MW_TEST_CORNER_H

#include "journal/base/util.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], dir[80];
static struct mw_fs fs; /* the real one, with an eye on it */

static inline struct mw_store *
open_with(const struct mw_store_opts *given)
{
	struct mw_store_opts o = *given;
	o.dir = dir;
	o.fs = &fs;
	return opened(&o);
}

static inline struct mw_store *
writer(bool index)
{
	return open_with(
	    &(struct mw_store_opts){.mode = MW_STORE_WRITE, .no_index = !index});
}

static inline struct mw_store *
reader(void)
{
	return open_with(&(struct mw_store_opts){.mode = MW_STORE_READ});
}

static inline void
fresh(void)
{
	struct mw_err err = {0};
	fs = *mw_fs_posix();
	shell("rm -rf '%s'", dir);
	assert_int_equal(mw_store_create(dir, NULL, NULL, &err), 0);
}

/* A finished entry to u@corner.test. */
static inline struct mw_entry *
entry(struct mw_store *st, unsigned k, struct mw_str content)
{
	struct mw_err err = {0};
	struct mw_entry *e = NULL;
	char qid[16], from[40], to[40];
	(void)snprintf(qid, sizeof qid, "Q%u", k);
	(void)snprintf(from, sizeof from, "f%u@corner.test", k);
	(void)snprintf(to, sizeof to, "t%u@corner.test", k);
	struct mw_rcpt r[2] = {{.addr = MW_STR("u@corner.test")}, {.addr = mw_strz(to)}};
	struct mw_mail m = {.time_us = 1000 + k,
	                    .queue_id = mw_strz(qid),
	                    .sender = mw_strz(from),
	                    .rcpt = r,
	                    .n_rcpt = 2};
	if (mw_entry_new(st, MW_TYPE_MAIL, &e, &err) < 0 ||
	    mw_entry_body(e, content.p, content.n, &err) < 0 ||
	    mw_entry_describe(e, &m, &err) < 0 || mw_entry_finish_mail(e, &m, &err) < 0)
		fail_msg("%s", err.msg);
	return e;
}

static inline void
append(struct mw_store *st, unsigned k, struct mw_str content)
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = entry(st, k, content);
	if (mw_store_append(st, e, NULL, &err) < 0)
		fail_msg("%s", err.msg);
}

struct hits {
	unsigned n;
	uint64_t segment[64];
};

static inline int
hit(void *arg, const struct mw_record *r)
{
	struct hits *h = arg;
	if (h->n < MW_COUNT(h->segment))
		h->segment[h->n] = r->loc.segment;
	h->n++;
	return 0;
}

static inline struct hits
find(struct mw_store *st)
{
	struct hits h = {.n = 0};
	struct mw_err err = {0};
	if (mw_store_find(st, MW_KEY_RCPT, MW_STR("u@corner.test"), hit, &h, &err) < 0)
		fail_msg("%s", err.msg);
	return h;
}

static inline void
segment_path(unsigned n, char out[200])
{
	(void)snprintf(out, 200, "%s/segments/%016x.seg", dir, n);
}

static inline int
setup(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof root, "%s/mw-corner-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)snprintf(dir, sizeof dir, "%s/j", root);
	return 0;
}

static inline int
teardown(void **state)
{
	(void)state;
	shell("rm -rf '%s'", root);
	return 0;
}

#endif
