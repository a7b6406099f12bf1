/* Are the pages of a map that are in use, and those on LMDB's list of free ones, all
 * there are, and each one thing only? */
#include "journal/base/util.h"
#include "journal/index/kv_int.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* What is in use is not free: else the next write would go over it. LMDB does not look.
 */

struct pages {
	uint8_t *used, *listed; /* a bit for each page */
	size_t n, size;
	size_t leaves, listed_n;
	uintptr_t base; /* where page 0 is; 0: not known yet */
};

static bool
mark(uint8_t *bits, size_t k)
{
	bool was = bits[k / 8] >> k % 8 & 1;
	bits[k / 8] |= (uint8_t)(1U << k % 8);
	return was;
}

/* The page of a key or a value begins with its own number, and is where that says. */
static int
page_used(struct pages *p, const void *at, size_t more)
{
	uintptr_t page = (uintptr_t)at & ~(uintptr_t)(p->size - 1);
	size_t number;
	memcpy(&number, (const void *)page, sizeof number);
	if (p->base == 0)
		p->base = page - number * p->size;
	if (number < 2 || number >= p->n || more > p->n - number ||
	    page != p->base + number * p->size)
		return MW_EDAMAGED;
	p->leaves += !mark(p->used, number);
	for (size_t k = 1; k < more; k++)
		p->leaves += !mark(p->used, number + k);
	return 0;
}

static int
pages_used(MDB_txn *txn, MDB_dbi dbi, struct pages *p)
{
	MDB_cursor *cur;
	MDB_val k, v;
	int rc = mdb_cursor_open(txn, dbi, &cur), r = 0;
	if (rc)
		return rc == ENOMEM ? MW_ENOMEM : MW_EDAMAGED;
	rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST);
	while (rc == 0 && r == 0) {
		/* a value of the leaf itself is near its key; else it has pages */
		uintptr_t a = (uintptr_t)k.mv_data & ~(uintptr_t)(p->size - 1);
		uintptr_t b = (uintptr_t)v.mv_data & ~(uintptr_t)(p->size - 1);
		r = page_used(p, k.mv_data, 1);
		if (r == 0 && a != b)
			r = page_used(p, v.mv_data, (v.mv_size + 15) / p->size + 1);
		if (r == 0)
			rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	return r == 0 && rc != MDB_NOTFOUND ? MW_EDAMAGED : r;
}

/* One entry: how many pages, and their numbers, descending. */
static int
pages_listed(struct pages *p, MDB_val v)
{
	size_t n, prev = SIZE_MAX, one;
	if (v.mv_size < sizeof n || v.mv_size % sizeof n)
		return MW_EDAMAGED;
	memcpy(&n, v.mv_data, sizeof n);
	if (n != v.mv_size / sizeof n - 1)
		return MW_EDAMAGED;
	for (size_t i = 1; i <= n; i++, prev = one) {
		memcpy(&one, (const char *)v.mv_data + i * sizeof n, sizeof one);
		if (one < 2 || one >= p->n || one >= prev ||
		    (p->used[one / 8] >> one % 8 & 1) || mark(p->listed, one))
			return MW_EDAMAGED;
	}
	p->listed_n += n;
	return 0;
}

static int
pages_free(MDB_txn *txn, struct pages *p)
{
	MDB_cursor *cur;
	MDB_val k, v;
	int rc = mdb_cursor_open(txn, 0, &cur), r = 0;
	if (rc)
		return rc == ENOMEM ? MW_ENOMEM : MW_EDAMAGED;
	rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST);
	while (rc == 0 && r == 0) {
		r = k.mv_size == sizeof(size_t) ? pages_listed(p, v) : MW_EDAMAGED;
		if (r == 0)
			rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	return r == 0 && rc != MDB_NOTFOUND ? MW_EDAMAGED : r;
}

int
mw_kv_pages(MDB_env *env, MDB_txn *txn, MDB_dbi dbi)
{
	MDB_envinfo info;
	MDB_stat own, list;
	if (mdb_env_info(env, &info) || mdb_stat(txn, dbi, &own) ||
	    mdb_stat(txn, 0, &list))
		return MW_EDAMAGED;
	struct pages p = {.n = info.me_last_pgno + 1, .size = own.ms_psize};
	if (p.size > (size_t)sysconf(_SC_PAGESIZE)) /* of another machine: not aligned */
		return 0;
	MW_AUTOFREE uint8_t *used = calloc(p.n / 8 + 1, 1);
	MW_AUTOFREE uint8_t *listed = calloc(p.n / 8 + 1, 1);
	p.used = used;
	p.listed = listed;
	if (!used || !listed)
		return MW_ENOMEM;
	int r = pages_used(txn, dbi, &p);
	if (r == 0)
		r = pages_free(txn, &p);
	if (r < 0)
		return r;
	size_t tree = own.ms_branch_pages + own.ms_leaf_pages + own.ms_overflow_pages;
	size_t of_list =
	    list.ms_branch_pages + list.ms_leaf_pages + list.ms_overflow_pages;
	return p.leaves != tree - own.ms_branch_pages ||
	               2 + tree + of_list + p.listed_n != p.n
	           ? MW_EDAMAGED
	           : 0;
}
