/* kv.h - LMDB in the small: only kv*.c see lmdb.h.
 *
 * A map file is open once in a process: the second to ask gets MW_ELOCKED. Write
 * transactions are serialised by LMDB; a full map is grown and the transaction run again,
 * so write callbacks must be repeatable. Read transactions live inside one call; values
 * are copied out. Map files must be on a local file system. Not across fork.
 *
 * LMDB has no checksums and trusts its pages. A fault (SIGSEGV, SIGBUS) or an assertion
 * inside one of these calls becomes MW_EDAMAGED; such a map is left as it is, its memory
 * too. The handlers for both signals are installed at the first call and pass on what
 * happens elsewhere.
 */
#ifndef MW_INDEX_KV_H
#define MW_INDEX_KV_H

#include "journal/base/buf.h"
#include "journal/base/err.h"

#include <stdbool.h>

struct mw_kv;
struct mw_kv_txn;

enum {
	MW_KV_READ = 1,
	MW_KV_CREATE = 2,
	MW_KV_FOREIGN = 4
};

/* MW_KV_READ opens for reading only; MW_KV_FOREIGN: a map of another program (a Postfix
 * lmdb: table): read without a lock file, as often as wanted. MW_ENOTFOUND, MW_EPERM,
 * MW_ELOCKED, MW_EDAMAGED (no LMDB file, or another version's), MW_EIO. */
int mw_kv_open(const char *path, int flags, struct mw_kv **ret,
               struct mw_err *err) MW_CHECK;
void mw_kv_close(struct mw_kv *kv); /* NULL ok */
/* That path still is the file which was opened. */
bool mw_kv_is_at(const struct mw_kv *kv, const char *path);

/* 1 and the value appended to out; 0 if there is none. */
int mw_kv_get(struct mw_kv *kv, struct mw_str key, struct mw_buf *out,
              struct mw_err *err) MW_CHECK;
/* One read transaction around cb, whose result is returned. Values die with it. Keep it
 * short: collect, then work. */
int mw_kv_read(struct mw_kv *kv, int (*cb)(void *arg, struct mw_kv_txn *t), void *arg,
               struct mw_err *err) MW_CHECK;
/* One write transaction: cb puts and deletes; committed when it returns 0, else rolled
 * back and its code returned. */
int mw_kv_write(struct mw_kv *kv, int (*cb)(void *arg, struct mw_kv_txn *t), void *arg,
                struct mw_err *err) MW_CHECK;
/* In a transaction; values last until its next write. 1 and the value; 0 there is none;
 * MW_EIO, MW_EDAMAGED. */
int mw_kv_txn_get(struct mw_kv_txn *t, struct mw_str key, struct mw_str *ret) MW_CHECK;
/* The greatest key that is not greater. */
int mw_kv_txn_floor(struct mw_kv_txn *t, struct mw_str key, struct mw_str *ret_key,
                    struct mw_str *ret) MW_CHECK;
/* A key that is greater than all others in the map: fills pages. */
int mw_kv_append(struct mw_kv_txn *t, struct mw_str key, struct mw_str val) MW_CHECK;
/* All keys from `from` on that are less than `to`. */
int mw_kv_del_range(struct mw_kv_txn *t, struct mw_str from, struct mw_str to) MW_CHECK;
int mw_kv_put(struct mw_kv_txn *t, struct mw_str key, struct mw_str val) MW_CHECK;
/* Looks through all pages: nothing that is in use is on LMDB's list of free pages, and
 * none is missing there. 0, or MW_EDAMAGED. By the writer, between its transactions. */
int mw_kv_check(struct mw_kv *kv, struct mw_err *err) MW_CHECK;
/* Forces what was committed to disk (the environment does not sync each commit). */
int mw_kv_sync(struct mw_kv *kv, struct mw_err *err) MW_CHECK;
/* All of it will be read: the kernel may begin. */
void mw_kv_ahead(struct mw_kv *kv);

#endif
