#include "tests/bench/scale.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/index.h"
#include "journal/index/kv.h"
#include "tests/bench/figures.h"

#include <stdio.h>
#include <string.h>

enum {
	TOKENS = 14,
	PART = 100000 /* messages to a transaction of the limit */
};

static unsigned long appended, to_append;

static int
append_keys(void *arg, struct mw_kv_txn *t)
{
	(void)arg;
	unsigned long end = MW_MIN(to_append, appended + PART);
	for (unsigned long k = appended * TOKENS; k < end * TOKENS; k++) {
		uint8_t key[16] = {0}, val[8] = {0};
		mw_put64be(key, k * 97);
		mw_put64be(key + 8, k);
		if (mw_kv_append(t, mw_str((char *)key, sizeof key),
		                 mw_str((char *)val, sizeof val)) < 0)
			return MW_EIO;
	}
	return 0;
}

double
sorted_append(unsigned long n)
{
	struct mw_kv *kv = NULL;
	char file[300];
	(void)snprintf(file, sizeof file, "%s.lmdb", path);
	shell("rm -f '%s' '%s-lock'", file, file);
	double t0 = now_s();
	must(mw_kv_open(file, MW_KV_CREATE, &kv, NULL) == 0, file);
	to_append = n;
	for (appended = 0; appended < n; appended += MW_MIN(n - appended, PART))
		must(mw_kv_write(kv, append_keys, NULL, NULL) == 0, "LMDB");
	must(mw_kv_sync(kv, NULL) == 0, "LMDB");
	double rate = (double)n / (now_s() - t0);
	mw_kv_close(kv);
	shell("rm -f '%s' '%s-lock'", file, file);
	return rate;
}

void
index_alone(unsigned long n)
{
	enum {
		BATCH = 16384,
		SEGMENT = 20000, /* records to a segment: 64 MiB of 3 KB each */
		FRAME = 3200
	};
	static uint8_t tokens[BATCH][TOKENS * 8];
	static struct mw_index_entry e[BATCH];
	static const uint8_t journal[MW_ID_LEN] = "bench";
	struct mw_index *ix = NULL;
	unsigned long k = 0, who = n / 100 ? n / 100 : 1;
	double raw = sorted_append(MW_MIN(n, 2000000UL));
	shell("rm -rf '%s' && mkdir -p '%s/index'", path, path);
	must(mw_index_open(path, journal, 1, &ix, NULL) == 0, "index");
	double t0 = now_s();
	while (k < n) {
		size_t i = 0;
		uint64_t part = k / SEGMENT / MW_INDEX_SPAN;
		struct mw_index_point p = {0};
		for (; i < BATCH && k < n && k / SEGMENT / MW_INDEX_SPAN == part;
		     i++, k++) {
			for (unsigned j = 0; j < TOKENS; j++) {
				uint64_t x = j == 0 ? k % who + 1 : k * TOKENS + j + n;
				x *= UINT64_C(0x9e3779b97f4a7c15);
				mw_put64be(tokens[i] + (size_t)8 * j, x ^ x >> 32);
			}
			e[i] = (struct mw_index_entry){k + 1, k / SEGMENT + 1,
			                               8192 + k % SEGMENT * FRAME,
			                               tokens[i], TOKENS};
			p = (struct mw_index_point){
			    e[i].segment, e[i].offset + FRAME, k + 2, e[i].offset, {0}};
		}
		must(mw_index_put(ix, e, i, &p, NULL) == 0, "put");
	}
	mw_index_close(ix);
	printf("%lu entries of %d tokens\n", n, TOKENS);
	row("index built, entries/s", (double)n / (now_s() - t0), raw,
	    "LMDB sorted append");
	must(mw_index_open(path, journal, 0, &ix, NULL) == 0, "index");
	double v[ROUNDS];
	for (unsigned r = 0; r < 2 * ROUNDS; r++) { /* the second half is warm */
		static struct mw_index_hit hit[200];
		uint8_t t[8];
		uint64_t x =
		    (who / 7 * (r % ROUNDS + 1) % who + 1) * UINT64_C(0x9e3779b97f4a7c15);
		int found = 0;
		mw_put64be(t, x ^ x >> 32);
		t0 = now_s();
		for (unsigned long s = 1; s <= (n - 1) / SEGMENT + 1; s += MW_INDEX_SPAN)
			found += mw_index_find(ix, s, t, 0, hit, 200, NULL);
		v[r % ROUNDS] = (now_s() - t0) * 1e3;
		must(found >= 100, "found");
	}
	row("the 100 places of one recipient, warm, ms", quantile(v, ROUNDS, 0.5), 1,
	    "1 ms");
	mw_index_close(ix);
	must(mw_index_open(path, journal, 1, &ix, NULL) == 0, "index");
	t0 = now_s();
	for (unsigned long s = 1; s <= (n - 1) / SEGMENT + 1; s += MW_INDEX_SPAN) {
		struct mw_index_point p;
		must(mw_index_point(ix, s, &p, NULL) == 1, "state");
	}
	row("looked through by a writer, entries/s", (double)n / (now_s() - t0), raw,
	    "LMDB sorted append");
	mw_index_close(ix);
	shell("du -sm '%s/index' | cut -f1 | sed 's/$/ MB of index/'", path);
}
