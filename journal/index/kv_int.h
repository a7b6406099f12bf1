/* kv_int.h - what kv.c and kv_pages.c share. Nobody else includes it. */
#ifndef MW_INDEX_KV_INT_H
#define MW_INDEX_KV_INT_H

#include "journal/index/kv.h"

#include <lmdb.h>

/* In a read transaction, inside the guard of kv.c: 0, MW_EDAMAGED, MW_ENOMEM. */
int mw_kv_pages(MDB_env *env, MDB_txn *txn, MDB_dbi dbi) MW_CHECK;

#endif
