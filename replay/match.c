/* match.c - does a mail match a query? Pure functions over decoded metadata. */
#include "replay/select.h"

#include "journal/base/domain.h"
#include "journal/base/fold.h"
#include "journal/base/util.h"
#include "replay/search.h"

#include <string.h>

/* Length of the local part without its extension, as Postfix splits it. */
static size_t
base_length(struct mw_str local, const char *delimiter)
{
	if (!delimiter || !*delimiter)
		return local.n;
	/* With '-' as delimiter these are names, not extensions. */
	if (strchr(delimiter, '-') &&
	    (mw_str_istarts(local, MW_STR("owner-")) ||
	     (local.n > 8 &&
	      mw_str_ieq(mw_str(local.p + local.n - 8, 8), MW_STR("-request")))))
		return local.n;
	for (size_t i = 1; i < local.n; i++)
		if (local.p[i] != '\0' && strchr(delimiter, local.p[i]))
			return i;
	return local.n;
}

struct mw_str
mw_addr_base(struct mw_str addr, const char *delimiter, struct mw_arena *a)
{
	struct mw_str raw = mw_addr_local(addr), local = mw_addr_plain(raw);
	size_t n = base_length(local, delimiter), rest = addr.n - raw.n;
	if (n == raw.n)
		return addr;
	char *p = mw_arena_alloc(a, n + rest + 1);
	if (!p)
		return mw_str(NULL, 0);
	memcpy(p, local.p, n);
	if (rest)
		memcpy(p + n, addr.p + raw.n, rest);
	return mw_str(p, n + rest);
}

/* Plain ASCII needs no other form to be compared; that spares a walk its time. */
static bool
is_plain(struct mw_str local)
{
	return mw_is_ascii(local) && !(local.n && local.p[0] == '"');
}

/* These are 1, 0 or MW_ENOMEM: what cannot be compared is not said to be another's. */

static int
local_is(struct mw_str local, struct mw_str want, const char *delimiter)
{
	MW_BUF_AUTO x = {0};
	MW_BUF_AUTO y = {0};
	if (!is_plain(local) || !is_plain(want)) {
		local = mw_local_own(local, &x);
		want = mw_local_own(want, &y);
	}
	if (x.failed || y.failed)
		return MW_ENOMEM;
	return mw_str_ieq(local, want) ||
	       mw_str_ieq(mw_str(local.p, base_length(local, delimiter)), want);
}

int
mw_addr_is(struct mw_str addr, struct mw_str want, const char *delimiter)
{
	struct mw_str local = mw_addr_local(want);
	int r = local_is(mw_addr_local(addr), local, delimiter);
	if (r == 1 && local.n < want.n)
		r = mw_domain_same(mw_addr_domain(addr), mw_addr_domain(want));
	return r;
}

struct mw_str
mw_query_domain(const struct mw_query *q, size_t k)
{
	struct mw_str d = mw_strz(q->domain[k]);
	return d.n && d.p[0] == '@' ? mw_str(d.p + 1, d.n - 1) : d;
}

int
mw_query_is_user(const struct mw_query *q, struct mw_str addr)
{
	int r = 0;
	for (size_t k = 0; k < q->n_user && addr.n && r == 0; k++)
		r = mw_addr_is(addr, mw_strz(q->user[k]), q->delimiter);
	return r;
}

void
mw_query_site(struct mw_query *q, const struct mw_conf *conf)
{
	q->delimiter = conf->recipient_delimiter;
	q->only_domain = conf->local_domains.n == 1 ? conf->local_domains.v[0] : NULL;
}

static int
login_is(const struct mw_query *q, const struct mw_mail *m, struct mw_str want)
{
	struct mw_str local = mw_addr_local(m->auth_user), of = mw_addr_domain(want);
	bool bare = m->auth_user.n == local.n;
	int r = mw_addr_same(m->auth_user, want);
	if (r != 0)
		return r;
	r = local_is(local, mw_addr_local(want), NULL);
	if (r <= 0 || of.n == 0)
		return r;
	r = bare && q->only_domain ? mw_domain_same(of, mw_strz(q->only_domain)) : 0;
	return r ? r
	         : mw_domain_same(mw_addr_domain(bare ? m->sender : m->auth_user), of);
}

int
mw_query_is_login(const struct mw_query *q, const struct mw_mail *m)
{
	int r = 0;
	for (size_t k = 0; m->auth_user.n && k < q->n_user && r == 0; k++)
		r = login_is(q, m, mw_strz(q->user[k]));
	return r;
}

static int
rcpt_is(const struct mw_query *q, const struct mw_rcpt *rcpt, struct mw_str want)
{
	bool whole = mw_addr_domain(want).n > 0;
	if ((rcpt->flags & MW_RCPT_REFUSED) || (!whole && !(rcpt->flags & MW_RCPT_LOCAL)))
		return 0;
	int r = mw_addr_is(rcpt->addr, want, q->delimiter);
	for (size_t k = 0; k < rcpt->n_mailbox && r == 0; k++)
		r = mw_addr_is(rcpt->mailbox[k], want, q->delimiter);
	return r;
}

static int
match_user(const struct mw_query *q, const struct mw_mail *m)
{
	int r = mw_query_is_login(q, m);
	for (size_t k = 0; k < q->n_user && r == 0; k++)
		for (size_t i = 0; i < m->n_rcpt && r == 0; i++)
			r = rcpt_is(q, &m->rcpt[i], mw_strz(q->user[k]));
	return r;
}

static int
rcpt_is_of(const struct mw_rcpt *rcpt, struct mw_str domain)
{
	if (rcpt->flags & MW_RCPT_REFUSED)
		return 0;
	int r = mw_domain_same(mw_addr_domain(rcpt->addr), domain);
	for (size_t b = 0; b < rcpt->n_mailbox && r == 0; b++)
		r = mw_domain_same(mw_addr_domain(rcpt->mailbox[b]), domain);
	return r;
}

static int
match_domain(const struct mw_query *q, const struct mw_mail *m)
{
	int r = 0;
	for (size_t k = 0; k < q->n_domain && r == 0; k++) {
		struct mw_str want = mw_query_domain(q, k);
		r = mw_domain_same(mw_addr_domain(m->sender), want);
		for (size_t i = 0; i < m->n_rcpt && r == 0; i++)
			r = rcpt_is_of(&m->rcpt[i], want);
	}
	return r;
}

static int
match_sender(const struct mw_query *q, const struct mw_mail *m)
{
	int r = 0;
	for (size_t k = 0; k < q->n_sender && r == 0; k++) {
		struct mw_str want = mw_strz(q->sender[k]);
		if (mw_str_eq(want, MW_STR("<>")))
			want = mw_str("", 0);
		r = mw_addr_same(m->sender, want);
	}
	return r;
}

static struct mw_str
without_angles(struct mw_str s)
{
	if (s.n >= 2 && s.p[0] == '<' && s.p[s.n - 1] == '>')
		return mw_str(s.p + 1, s.n - 2);
	return s;
}

static bool
match_message_id(const struct mw_query *q, const struct mw_mail *m)
{
	struct mw_str have = without_angles(m->message_id);
	for (size_t k = 0; k < q->n_message_id; k++)
		if (mw_str_eq(have, without_angles(mw_strz(q->message_id[k]))))
			return true;
	return false;
}

static bool
match_queue_id(const struct mw_query *q, const struct mw_mail *m)
{
	for (size_t k = 0; k < q->n_queue_id; k++)
		if (mw_str_eq(m->queue_id, mw_strz(q->queue_id[k])))
			return true;
	return false;
}

static bool
match_id(const struct mw_query *q, const struct mw_mail *m, const uint8_t id[MW_ID_LEN])
{
	for (size_t k = 0; k < q->n_id; k++) {
		uint8_t prefix[MW_ID_LEN];
		unsigned bits;
		if (mw_str_eq(m->queue_id, mw_strz(q->id[k])))
			return true;
		if (mw_id_parse(q->id[k], prefix, &bits) && mw_id_match(id, prefix, bits))
			return true;
	}
	return false;
}

static bool
match_header(struct mw_str raw, const char *const *v, const struct mw_str *needle,
             size_t n)
{
	return !n ||
	       (needle ? mw_search_folded(raw, needle, n) : mw_search_header(raw, v, n));
}

int
mw_query_match(const struct mw_query *q, const struct mw_mail *m,
               const uint8_t id[MW_ID_LEN])
{
	if (m->time_us < q->since_us || m->time_us >= q->until_us)
		return 0;
	if (q->directions && !(q->directions & 1U << m->direction))
		return 0;
	if ((q->larger && m->size <= q->larger) || (q->smaller && m->size >= q->smaller))
		return 0;
	if ((q->n_id && !match_id(q, m, id)) ||
	    (q->n_queue_id && !match_queue_id(q, m)) ||
	    (q->n_message_id && !match_message_id(q, m)))
		return 0;
	int r = q->n_sender ? match_sender(q, m) : 1;
	if (r == 1 && q->n_user)
		r = match_user(q, m);
	if (r == 1 && q->n_domain)
		r = match_domain(q, m);
	if (r != 1)
		return r;
	return match_header(m->subject, q->subject, q->subject_needle, q->n_subject) &&
	       match_header(m->from, q->from, q->from_needle, q->n_from);
}
