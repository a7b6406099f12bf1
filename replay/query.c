/* query.c - the options of a SELECTION. */
#include "replay/select.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "replay/mime.h"

#include <string.h>

const char mw_query_usage[] =
    "SELECTION (different options narrow, a repeated one widens):\n"
    "  -S, --since T        journaled at T or later: '2026-11-20 08:00', yesterday,\n"
    "                       -2h, 7d (seven days ago), Mon 10:00, @1700000000, RFC 3339\n"
    "  -U, --until T        journaled before T\n"
    "  --since-mark NAME    from the start of this mark on (its last completed one)\n"
    "  --overlap D          with --since-mark: and what is at most D older\n"
    "  -u, --user ADDR      to this recipient or mailbox, or sent under this login\n"
    "  --domain D           from or to this domain\n"
    "  --sender ADDR        by envelope sender; '<>' for bounces\n"
    "  --message-id ID      with or without <>\n"
    "  --queue-id ID        the MTA's queue ID\n"
    "  --direction in|out|internal\n"
    "  --subject TEXT       the subject has this in it; case and accents do not matter\n"
    "  --from TEXT          the same for the From field\n"
    "  --attachment TEXT    the name of an attachment has this in it\n"
    "  --body TEXT          the text has this in it; each message is read for it\n"
    "  --larger N           more than N bytes (10K, 5M)\n"
    "  --smaller N          less than N bytes\n"
    "  --all                everything\n";

void
mw_query_init(struct mw_query *q, struct mw_arena *a)
{
	*q = (struct mw_query){.since_us = INT64_MIN,
	                       .until_us = INT64_MAX,
	                       .delimiter = "+",
	                       .arena = a};
}

static int
add(struct mw_query *q, const char ***list, size_t *n, const char *v, struct mw_err *err)
{
	/* Room doubles at powers of two, so that no capacity need be kept. */
	if ((*n & (*n - 1)) == 0) {
		size_t cap = *n;
		const char **p = mw_arena_grow(q->arena, *list, &cap, *n + 1, sizeof *p);
		if (!p)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		*list = p;
	}
	(*list)[(*n)++] = v;
	return 1;
}

/* The earlier, or with `later` (an end) the later, of what was given; `unset` is neither.
 */
static int
take_time(const char *opt, const char *v, bool later, int64_t unset, int64_t *ret,
          struct mw_err *err)
{
	const struct mw_clock *c = mw_clock_system();
	int64_t us;
	int r = later ? mw_time_parse_last(v, c->now_us(c), &us)
	              : mw_time_parse(v, c->now_us(c), &us);
	if (r < 0) {
		(void)mw_fail(err, MW_EUSAGE, "%s: '%s' is not a time", opt, v);
		return mw_err_hint(err, "such as '2026-11-20 08:00', yesterday, -2h, 7d, "
		                        "@1700000000 or 2026-11-20T08:00:00Z");
	}
	if (*ret == unset || (later ? us > *ret : us < *ret))
		*ret = us;
	return 1;
}

static int
take_size(const char *opt, const char *v, bool more, uint64_t *ret, struct mw_err *err)
{
	uint64_t n;
	if (mw_size_parse(v, &n) < 0 || n == 0) {
		(void)mw_fail(err, MW_EUSAGE, "%s: '%s' is not a size", opt, v);
		return mw_err_hint(err, "bytes, or such as 100K, 5M, 1G");
	}
	if (*ret == 0 || (more ? n > *ret : n < *ret))
		*ret = n;
	return 1;
}

static int
take_direction(const char *v, unsigned *ret, struct mw_err *err)
{
	for (int d = MW_DIR_IN; d <= MW_DIR_INTERNAL; d++)
		if (strcmp(v, mw_direction_name((enum mw_direction)d)) == 0) {
			*ret |= 1U << d;
			return 1;
		}
	return mw_fail(err, MW_EUSAGE, "--direction: '%s' is none of in, out, internal",
	               v);
}

enum taker {
	SINCE,
	UNTIL,
	MARK,
	OVERLAP,
	LIST,
	DIRECTION,
	LARGER,
	SMALLER
};

struct option_row {
	const char *names;
	enum taker taker;
	size_t list, count; /* offsets in struct mw_query, for LIST */
};

#define LIST_ROW(name, member)                                                           \
	{                                                                                \
		name, LIST, offsetof(struct mw_query, member),                           \
		    offsetof(struct mw_query, n_##member)                                \
	}

static const struct option_row rows[] = {
    {"-S|--since", SINCE, 0, 0},          {"-U|--until", UNTIL, 0, 0},
    {"--since-mark", MARK, 0, 0},         {"--overlap", OVERLAP, 0, 0},
    LIST_ROW("-u|--user", user),          LIST_ROW("--domain", domain),
    LIST_ROW("--sender", sender),         LIST_ROW("--message-id", message_id),
    LIST_ROW("--queue-id", queue_id),     LIST_ROW("--subject", subject),
    {"--direction", DIRECTION, 0, 0},     {"--larger", LARGER, 0, 0},
    {"--smaller", SMALLER, 0, 0},         LIST_ROW("--from", from),
    LIST_ROW("--attachment", attachment), LIST_ROW("--body", body),
};

static int
take(struct mw_query *q, const struct option_row *row, const char *v, struct mw_err *err)
{
	const char *opt = strstr(row->names, "--");
	char *base = (char *)q;
	switch (row->taker) {
	case SINCE:
		return take_time(opt, v, false, INT64_MIN, &q->since_us, err);
	case UNTIL:
		return take_time(opt, v, true, INT64_MAX, &q->until_us, err);
	case MARK:
		if (q->since_mark && strcmp(q->since_mark, v) != 0)
			return mw_fail(err, MW_EUSAGE,
			               "--since-mark: '%s' or '%s', not both",
			               q->since_mark, v);
		q->since_mark = v;
		return 1;
	case OVERLAP:
		if (mw_duration_parse(v, &q->overlap_us) < 0 || q->overlap_us < 0)
			return mw_fail(err, MW_EUSAGE,
			               "--overlap: '%s' is not a duration "
			               "such as 10min or 2h",
			               v);
		return 1;
	case LIST:
		if (*v == '\0')
			return mw_fail(err, MW_EUSAGE,
			               "%s needs a value that is not empty", opt);
		return add(q, (const char ***)(void *)(base + row->list),
		           (size_t *)(void *)(base + row->count), v, err);
	case DIRECTION:
		return take_direction(v, &q->directions, err);
	case LARGER:
		return take_size(opt, v, false, &q->larger, err);
	case SMALLER:
		return take_size(opt, v, true, &q->smaller, err);
	}
	return 0;
}

int
mw_query_option(struct mw_query *q, int argc, char **argv, int *i, struct mw_err *err)
{
	int r = mw_cli_option(argc, argv, i, "--all", NULL, err);
	if (r != 0) {
		q->all = r > 0;
		return r;
	}
	for (size_t k = 0; k < MW_COUNT(rows); k++) {
		const char *v = NULL;
		r = mw_cli_option(argc, argv, i, rows[k].names, &v, err);
		if (r < 0)
			return r;
		if (r > 0) {
			q->any_term = true;
			return take(q, &rows[k], v, err);
		}
	}
	return 0;
}

/* Texts of which nothing is left to compare would match everything. */
static int
check_texts(const struct mw_query *q, struct mw_err *err)
{
	const struct {
		const char *option, **v;
		size_t n;
	} list[] = {{"--subject", q->subject, q->n_subject},
	            {"--from", q->from, q->n_from},
	            {"--attachment", q->attachment, q->n_attachment},
	            {"--body", q->body, q->n_body}};
	for (size_t i = 0; i < MW_COUNT(list); i++) {
		for (size_t k = 0; k < list[i].n; k++) {
			MW_BUF_AUTO b = {0};
			mw_mime_fold_needle(mw_strz(list[i].v[k]), &b);
			if (mw_buf_ok(&b) == 0 && b.n == 0)
				return mw_fail(
				    err, MW_EUSAGE,
				    "%s: there is nothing in '%.100s' to look for",
				    list[i].option, list[i].v[k]);
		}
	}
	return 0;
}

int
mw_query_check(const struct mw_query *q, struct mw_err *err)
{
	if (q->since_us != INT64_MIN && q->until_us != INT64_MAX &&
	    q->until_us <= q->since_us)
		return mw_fail(err, MW_EUSAGE, "--until is not after --since");
	if (q->larger && q->smaller && q->smaller <= q->larger)
		return mw_fail(err, MW_EUSAGE,
		               "nothing is larger than --larger and smaller "
		               "than --smaller");
	if (q->overlap_us && !q->since_mark)
		return mw_fail(err, MW_EUSAGE, "--overlap belongs to --since-mark");
	if (q->all && (q->any_term || q->n_id))
		return mw_fail(err, MW_EUSAGE,
		               "--all takes no other selection beside it");
	return check_texts(q, err);
}
