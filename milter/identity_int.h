/* identity_int.h - one kind of alias table behind three functions. */
#ifndef MW_MILTER_IDENTITY_INT_H
#define MW_MILTER_IDENTITY_INT_H

#include "journal/base/buf.h"
#include "journal/base/err.h"
#include "journal/base/str.h"

#include <stdatomic.h>
#include <stdint.h>

/* One table in use by one resolve: begin (zeroed) → lookup* → end. */
struct mw_use {
	void *state; /* the kind's own */
	int fd;
	bool failed; /* sticky: a table that failed once is not asked again */
	int64_t deadline_mono_us;
	const atomic_bool *hurry; /* NULL: none */
};

struct mw_table_kind {
	bool network;
	/* `where` is the text after "TYPE:". MW_ECONF, MW_ENOMEM. */
	int (*open)(const char *where, void **ret_table, struct mw_err *err);
	void (*close)(void *table);
	/* Takes what one resolve needs; the newest version of a file. */
	int (*begin)(void *table, struct mw_use *u, struct mw_err *err);
	void (*end)(void *table, struct mw_use *u);
	/* 1: found, *out appended; 0: not there; negative: the table failed. */
	int (*lookup)(void *table, struct mw_use *u, struct mw_str key,
	              struct mw_buf *out, struct mw_err *err);
};

extern const struct mw_table_kind mw_table_virtual, mw_table_lmdb, mw_table_socketmap,
    mw_table_tcp;

#endif
