/* The plan: which records may go. Pure functions over what was gathered. */
#include "journal/base/util.h"
#include "journal/retain/retain_int.h"

#include <stdlib.h>
#include <string.h>

/* Goes on over what has no records here: segments that were removed, and quiet ones. */
static void
advance(struct mw_log_clock *c, uint64_t seq)
{
	for (;;) {
		bool gone = c->n_gone && c->gone->last_seq < seq;
		bool quiet = c->n_quiet && c->quiet->last_seq < seq;
		if (gone && !(quiet && c->quiet->last_seq < c->gone->last_seq)) {
			c->running = true;
			c->cur_us = c->gone->clock_us;
			c->seen_us += MW_MAX(c->gone->took_us, 0);
			c->gone++;
			c->n_gone--;
		} else if (quiet) {
			c->seen_us += MW_MAX(c->quiet->close_us - c->cur_us, 0);
			c->cur_us = MW_MAX(c->cur_us, c->quiet->close_us);
			c->quiet++;
			c->n_quiet--;
		} else {
			return;
		}
	}
}

bool
mw_log_clock_pass(struct mw_log_clock *c, const struct mw_quiet_seg *q)
{
	int64_t d;
	advance(c, q->first_seq);
	/* Whatever times it has, each is near the latest before it. */
	if (!c->running ||
	    __builtin_sub_overflow(MW_MAX(c->cur_us, q->close_us),
	                           MW_MIN(c->cur_us, q->tmin_us), &d) ||
	    d > MW_RETAIN_JUMP_US)
		return false;
	c->quiet = q;
	c->n_quiet = 1;
	advance(c, q->last_seq + 1);
	return true;
}

void
mw_log_clock_step(struct mw_log_clock *c, uint64_t seq, int64_t time_us, bool imported)
{
	int64_t d;
	advance(c, seq);
	c->from_us = c->seen_us;
	if (imported || (c->n_quiet && c->quiet->first_seq <= seq))
		return;
	if (c->running && !__builtin_sub_overflow(time_us, c->cur_us, &d) &&
	    d <= MW_RETAIN_JUMP_US && d >= -MW_RETAIN_JUMP_US) {
		c->seen_us += MW_MAX(d, 0);
		c->cur_us = MW_MAX(c->cur_us, time_us);
	} else {
		c->cur_us = time_us;
	}
	c->running = true;
}

/* Returns the log's time now. */
static int64_t
log_time(const struct mw_retain_limits *l, struct mw_retain_rec *rec, size_t n,
         struct mw_retain_sum *sum)
{
	struct mw_log_clock c = {.gone = l->gone, .n_gone = l->n_gone};
	int64_t d = 0;
	if (l->quiet) {
		c.quiet = l->quiet->seg;
		c.n_quiet = l->quiet->n;
	}
	for (size_t i = 0; i < n; i++) {
		mw_log_clock_step(&c, rec[i].seq, rec[i].time_us, rec[i].imported);
		rec[i].seen_us = c.seen_us;
	}
	if (c.n_quiet)
		advance(&c, c.quiet[c.n_quiet - 1].last_seq + 1);
	if (!c.running)
		c.cur_us = l->now_us;
	sum->newest_us = c.cur_us;
	sum->clock_bad =
	    __builtin_sub_overflow(l->now_us, c.cur_us, &d) || d > MW_RETAIN_JUMP_US;
	return sum->clock_bad ? c.seen_us : c.seen_us + MW_MAX(d, 0);
}

bool
mw_retain_is_note(uint8_t type)
{
	return type == MW_TYPE_OUTCOME || type == MW_TYPE_EXPANSION ||
	       type == MW_TYPE_SPF || type == MW_TYPE_RESTORE;
}

static enum mw_verdict
judge(const struct mw_retain_limits *l, const struct mw_retain_rec *r, int64_t age,
      uint64_t over, bool clock_bad)
{
	if (r->gone)
		return MW_REMOVED;
	if (r->broken || !r->ruled || r->rules == 0)
		return MW_KEEP_UNRULED;
	for (size_t k = 0; k < l->n_rule; k++) {
		uint64_t bit = UINT64_C(1) << k;
		bool old = l->rule[k].keep_us && age > l->rule[k].keep_us;
		if ((r->rules & bit) && !old && !(over & bit))
			return MW_KEEP_YOUNG;
	}
	if (r->held)
		return MW_KEEP_HELD;
	if (age < l->floor_us)
		return MW_KEEP_FLOOR;
	if (l->need_mark && r->seq >= l->marked_seq)
		return MW_KEEP_NEEDED;
	if (l->lost)
		return MW_KEEP_LOST;
	return clock_bad ? MW_KEEP_CLOCK : MW_REMOVE;
}

static void
count_one(struct mw_retain_row *row, const struct mw_retain_rec *r)
{
	row->messages++;
	row->bytes += r->size;
	if (!row->oldest_us || r->time_us < row->oldest_us)
		row->oldest_us = r->time_us;
	row->remove += r->verdict == MW_REMOVE;
	row->remove_bytes += r->verdict == MW_REMOVE ? r->size : 0;
	row->held += r->verdict == MW_KEEP_HELD;
	row->floor += r->verdict == MW_KEEP_FLOOR;
	row->needed += r->verdict == MW_KEEP_NEEDED;
	row->clock += r->verdict == MW_KEEP_CLOCK;
	row->lost += r->verdict == MW_KEEP_LOST;
}

static int
by_token(const void *a, const void *b)
{
	return memcmp(a, b, 8);
}

/* Records that refer to mails go when none of these mails stays. */
static void
judge_notes(const struct mw_retain_limits *l, struct mw_retain_rec *rec, size_t n,
            int64_t now, struct mw_retain_sum *sum)
{
	size_t kept = 0, notes = 0;
	for (size_t i = 0; i < n; i++)
		notes += mw_retain_is_note(rec[i].type);
	if (notes == 0)
		return;
	MW_AUTOFREE uint8_t(*tokens)[8] = calloc(n + 1, 8);
	for (size_t i = 0; tokens && i < n; i++)
		if (rec[i].type == MW_TYPE_MAIL && rec[i].verdict != MW_REMOVE &&
		    rec[i].verdict != MW_REMOVED)
			memcpy(tokens[kept++], rec[i].token, 8);
	if (kept)
		qsort(tokens, kept, 8, by_token);
	for (size_t i = 0; i < n; i++) {
		struct mw_retain_rec *r = &rec[i];
		if (!mw_retain_is_note(r->type))
			continue;
		bool needed = r->young || !tokens || l->damaged || sum->clock_bad ||
		              r->broken || now - r->seen_us < l->floor_us;
		for (uint32_t k = 0; !needed && k < r->n_tokens; k++)
			needed = kept && bsearch(r->tokens + 8 * (size_t)k, tokens, kept,
			                         8, by_token);
		r->verdict = r->gone ? MW_REMOVED : needed ? MW_KEEP_YOUNG : MW_REMOVE;
		sum->notes += r->verdict == MW_REMOVE;
	}
}

/* A dictionary goes with the last record of its segment that needs it. */
static bool
dict_needed(const struct mw_retain_rec *rec, size_t n, size_t i)
{
	for (size_t k = i + 1; k < n && rec[k].segment == rec[i].segment; k++)
		if (rec[k].dict == rec[i].dict && rec[k].type != MW_TYPE_DICT &&
		    rec[k].verdict != MW_REMOVE && rec[k].verdict != MW_REMOVED)
			return true;
	return false;
}

static void
judge_dicts(const struct mw_retain_limits *l, struct mw_retain_rec *rec, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct mw_retain_rec *r = &rec[i];
		if (r->type != MW_TYPE_DICT)
			continue;
		bool grows = l->open_seg && r->segment >= l->open_seg;
		if (r->gone)
			r->verdict = MW_REMOVED;
		else if (!r->young && !l->damaged && !grows && !dict_needed(rec, n, i))
			r->verdict = MW_REMOVE;
	}
}

void
mw_retain_plan(const struct mw_retain_limits *l, struct mw_retain_rec *rec, size_t n,
               struct mw_retain_sum *ret)
{
	uint64_t total[MW_RULES_MOST] = {0};
	memset(ret, 0, sizeof *ret);
	int64_t now = log_time(l, rec, n, ret);
	for (size_t i = n; i > 0; i--) { /* newest first: size limits spare them */
		struct mw_retain_rec *r = &rec[i - 1];
		uint64_t over = 0;
		ret->pending += (r->gone && !r->wiped) || r->uncut;
		r->verdict = MW_KEEP_YOUNG;
		if (r->type != MW_TYPE_MAIL)
			continue;
		for (size_t k = 0; k < l->n_rule && !r->gone; k++) {
			uint64_t bit = UINT64_C(1) << k;
			if (!(r->rules & bit))
				continue;
			total[k] += r->size;
			if (l->rule[k].max_size && total[k] > l->rule[k].max_size)
				over |= bit;
		}
		r->verdict = (uint8_t)judge(l, r, now - r->seen_us, over, ret->clock_bad);
		if (r->gone)
			continue;
		size_t row =
		    r->ruled && r->rules ? (size_t)__builtin_ctzll(r->rules) : l->n_rule;
		count_one(&ret->row[row], r);
		count_one(&ret->all, r);
	}
	judge_notes(l, rec, n, now, ret);
	judge_dicts(l, rec, n);
}
