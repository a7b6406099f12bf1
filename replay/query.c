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

enum name_kind {
	TEXT, /* as it is */
	WORD, /* without blanks around it */
	ADDRESS,
	DOMAIN
};

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

int
mw_query_time(const char *opt, const char *v, bool later, int64_t *ret,
              struct mw_err *err)
{
	const struct mw_clock *c = mw_clock_system();
	int r = later ? mw_time_parse_last(v, c->now_us(c), ret)
	              : mw_time_parse(v, c->now_us(c), ret);
	if (r == 0)
		return 0;
	(void)mw_fail(err, MW_EUSAGE, "%s: '%s' is not a time", opt, v);
	return mw_err_hint(err, "such as '2026-11-20 08:00', yesterday, -2h, 7d, "
	                        "@1700000000 or 2026-11-20T08:00:00Z");
}

/* The earlier, or with `later` (an end) the later, of what was given; `unset` is neither.
 */
static int
take_time(const char *opt, const char *v, bool later, int64_t unset, int64_t *ret,
          struct mw_err *err)
{
	int64_t us;
	int r = mw_query_time(opt, v, later, &us, err);
	if (r < 0)
		return r;
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

/* Of "<a@b>" and "Ann <a@b>", as logs and mail programs have it, the address. What stands
 * in quotes is part of a name; of more than one '<', or of an address in front of it with
 * a comma, nobody knows which is meant. */
static struct mw_str
in_brackets(struct mw_str s)
{
	const char *open = NULL;
	bool quoted = false, at = false, comma = false;
	for (size_t i = 0; i < s.n; i++) {
		if (quoted && s.p[i] == '\\') {
			i++;
		} else if (s.p[i] == '"') {
			quoted = !quoted;
		} else if (s.p[i] == '<' && !quoted) {
			if (open || (at && comma))
				return s;
			open = s.p + i;
		} else if (!quoted && !open) {
			at = at || s.p[i] == '@';
			comma = comma || s.p[i] == ',' || s.p[i] == ';';
		}
	}
	if (!open || quoted || s.n < 3 || s.p[s.n - 1] != '>')
		return s;
	return mw_str_trim(mw_str(open + 1, (size_t)(s.p + s.n - 1 - (open + 1))));
}

/* Something that is in no address, as in a list of them or with a comment behind it. A
 * name without '@' may have blanks; one '@' at least is not in quotes. */
static bool
is_more(struct mw_str s)
{
	bool quoted = false, more = false, blank = false, at = false;
	if (mw_str_eq(s, MW_STR("<>")))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (quoted && s.p[i] == '\\')
			i++;
		else if (s.p[i] == '"')
			quoted = !quoted;
		else if (!quoted) {
			more = more || strchr(",;<>()", s.p[i]);
			blank = blank || (unsigned char)s.p[i] <= ' ';
			at = at || s.p[i] == '@';
		}
	}
	bool any = memchr(s.p, '@', s.n) != NULL;
	return more || (any && (blank || quoted || !at));
}

static int
check_address(const char *opt, struct mw_str s, struct mw_err *err)
{
	if (s.p[0] == '@')
		return mw_fail(err, MW_EUSAGE,
		               "%s: '%.*s' is no address; --domain is for a domain", opt,
		               (int)s.n, s.p);
	if (s.p[s.n - 1] == '@')
		return mw_fail(err, MW_EUSAGE, "%s: '%.*s' has nothing after its '@'",
		               opt, (int)s.n, s.p);
	if (!is_more(s))
		return 0;
	(void)mw_fail(err, MW_EUSAGE, "%s: '%.*s' is not one address", opt, (int)s.n,
	              s.p);
	return mw_err_hint(err, "give %s once for each of several", opt);
}

static int
check_domain(const char *opt, struct mw_str s, struct mw_err *err)
{
	size_t at = s.p[0] == '@';
	bool bad = s.n == at;
	for (size_t i = at; i < s.n; i++)
		bad = bad || (unsigned char)s.p[i] <= ' ' || strchr("@,;<>()\"", s.p[i]);
	return bad ? mw_fail(err, MW_EUSAGE, "%s: '%.*s' is no domain", opt, (int)s.n,
	                     s.p)
	           : 0;
}

static int
take_name(enum name_kind kind, const char *opt, const char *v, struct mw_arena *a,
          const char **ret, struct mw_err *err)
{
	struct mw_str s = mw_str_trim(mw_strz(v));
	if (kind == ADDRESS)
		s = in_brackets(s);
	if (s.n == 0)
		return mw_fail(err, MW_EUSAGE, "%s needs a value that is not empty", opt);
	int r = kind == ADDRESS  ? check_address(opt, s, err)
	        : kind == DOMAIN ? check_domain(opt, s, err)
	                         : 0;
	*ret = r ? NULL : mw_arena_str(a, s).p;
	return r || *ret ? r : mw_fail(err, MW_ENOMEM, "out of memory");
}

int
mw_query_address(const char *opt, const char *v, struct mw_arena *a, const char **ret,
                 struct mw_err *err)
{
	return take_name(ADDRESS, opt, v, a, ret, err);
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
	enum name_kind kind;
};

#define LIST_ROW(name, member, kind)                                                     \
	{                                                                                \
		name, LIST, offsetof(struct mw_query, member),                           \
		    offsetof(struct mw_query, n_##member), kind                          \
	}

static const struct option_row rows[] = {
    {"-S|--since", SINCE, 0, 0, TEXT},
    {"-U|--until", UNTIL, 0, 0, TEXT},
    {"--since-mark", MARK, 0, 0, TEXT},
    {"--overlap", OVERLAP, 0, 0, TEXT},
    LIST_ROW("-u|--user", user, ADDRESS),
    LIST_ROW("--domain", domain, DOMAIN),
    LIST_ROW("--sender", sender, ADDRESS),
    LIST_ROW("--message-id", message_id, WORD),
    LIST_ROW("--queue-id", queue_id, WORD),
    LIST_ROW("--subject", subject, TEXT),
    {"--direction", DIRECTION, 0, 0, TEXT},
    {"--larger", LARGER, 0, 0, TEXT},
    {"--smaller", SMALLER, 0, 0, TEXT},
    LIST_ROW("--from", from, TEXT),
    LIST_ROW("--attachment", attachment, TEXT),
    LIST_ROW("--body", body, TEXT),
};

static int
take(struct mw_query *q, const struct option_row *row, const char *v, struct mw_err *err)
{
	const char *opt = strstr(row->names, "--");
	char *base = (char *)q;
	int r;
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
		if (row->kind != TEXT &&
		    (r = take_name(row->kind, opt, v, q->arena, &v, err)) < 0)
			return r;
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
