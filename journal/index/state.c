/* What a partition states of itself, to bytes and back (FORMAT.md §9). */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/index/index_int.h"

#include <stdlib.h>
#include <string.h>

enum {
	VERSION = 4,
	POINT_LEN = 1 + MW_ID_LEN + 32 + 32 + 4, /* then the runs, and a checksum */
	RUN_LEN = 28
};

static struct mw_str
state_key(void)
{
	return MW_STR("\0");
}

void
index_state_free(struct index_state *s)
{
	free(s->run);
	s->run = NULL;
}

static int
decode(const uint8_t journal[MW_ID_LEN], struct mw_str v, struct index_state *ret)
{
	const uint8_t *p = (const uint8_t *)v.p;
	if (v.n < POINT_LEN + 4 || p[0] != VERSION ||
	    memcmp(p + 1, journal, MW_ID_LEN) != 0 ||
	    mw_get32(p + v.n - 4) != mw_crc32c(0, p, v.n - 4))
		return MW_EDAMAGED;
	struct index_state s = {.n = mw_get32(p + 81)};
	if ((v.n - POINT_LEN - 4) / RUN_LEN != s.n)
		return MW_EDAMAGED;
	s.run = calloc(s.n + 2, sizeof *s.run); /* room to add */
	if (!s.run)
		return MW_ENOMEM;
	s.point.segment = mw_get64(p + 17);
	s.point.offset = mw_get64(p + 25);
	s.point.next_seq = mw_get64(p + 33);
	s.point.last = mw_get64(p + 41);
	memcpy(s.point.chain, p + 49, sizeof s.point.chain);
	p += POINT_LEN;
	for (uint32_t i = 0; i < s.n; i++, p += RUN_LEN)
		s.run[i] = (struct mw_run){mw_get32(p), mw_get32(p + 4), mw_get32(p + 8),
		                           mw_get64(p + 12), mw_get64(p + 20)};
	*ret = s;
	return 0;
}

int
index_state_get(struct mw_kv_txn *t, const uint8_t journal[MW_ID_LEN],
                struct index_state *ret)
{
	struct mw_str v;
	int r = mw_kv_txn_get(t, state_key(), &v);
	if (r == 1)
		r = decode(journal, v, ret);
	else
		return r;
	return r < 0 ? r : 1;
}

int
index_state_put(struct mw_kv_txn *t, const uint8_t journal[MW_ID_LEN],
                const struct index_state *s)
{
	uint8_t v[POINT_LEN] = {VERSION}, run[RUN_LEN];
	MW_BUF_AUTO b = {0};
	memcpy(v + 1, journal, MW_ID_LEN);
	mw_put64(v + 17, s->point.segment);
	mw_put64(v + 25, s->point.offset);
	mw_put64(v + 33, s->point.next_seq);
	mw_put64(v + 41, s->point.last);
	memcpy(v + 49, s->point.chain, sizeof s->point.chain);
	mw_put32(v + 81, s->n);
	mw_buf_put(&b, v, sizeof v);
	for (uint32_t i = 0; i < s->n; i++) {
		mw_put32(run, s->run[i].id);
		mw_put32(run + 4, s->run[i].records);
		mw_put32(run + 8, s->run[i].entries);
		mw_put64(run + 12, s->run[i].first_seq);
		mw_put64(run + 20, s->run[i].last_seq);
		mw_buf_put(&b, run, sizeof run);
	}
	mw_put32(run, mw_crc32c(0, b.p, b.n));
	mw_buf_put(&b, run, 4);
	int r = mw_buf_ok(&b);
	return r < 0 ? r : mw_kv_put(t, state_key(), mw_buf_str(&b));
}
