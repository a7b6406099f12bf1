/* users.c - does anybody know the users that a selection names? A name that was mistyped
 * must not look like a user who has no mail. */
#include "journal/base/domain.h"
#include "journal/base/fold.h"
#include "journal/base/util.h"
#include "replay/select.h"

struct sought {
	bool found;
	bool unsure; /* something could not be read */
};

static int
on_record(void *arg, const struct mw_record *r)
{
	struct sought *s = arg;
	s->found = s->found || r->type == MW_TYPE_MAIL;
	return s->found;
}

static int
on_item(void *arg, const struct mw_item *it)
{
	struct sought *s = arg;
	(void)it;
	s->found = true;
	return 1;
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	struct sought *s = arg;
	s->unsure = s->unsure || err->code != MW_EERASED;
}

static bool
is_ours(const struct mw_conf *conf, struct mw_str domain)
{
	return mw_domain_of(conf->local_domains.v, conf->local_domains.n, domain) != NULL;
}

/* What the index knows at once. */
static int
look_up(const struct mw_cli *cli, const char *user, struct sought *s, struct mw_err *err)
{
	struct mw_str name = mw_strz(user), domain = mw_addr_domain(name);
	/* The token of ß is that of ss: somebody else's mail. */
	if (!mw_is_ascii(mw_addr_local(name)))
		name = mw_str("", 0);
	const struct {
		enum mw_key kind;
		struct mw_str value;
	} key[] = {{MW_KEY_RCPT, name},
	           {MW_KEY_OWNER, name},
	           /* where no domain is named ours, each that mail came for is */
	           {MW_KEY_RCPT_DOMAIN,
	            cli->conf->local_domains.n ? mw_str("", 0) : domain}};
	int r = 0;
	for (size_t k = 0; r == 0 && k < cli->n_journals; k++)
		for (size_t i = 0; r == 0 && i < MW_COUNT(key); i++)
			if (key[i].value.n)
				r = mw_store_find_name(cli->stores[k], key[i].kind,
				                       key[i].value, on_record, s, err);
	return MW_MIN(r, 0);
}

/* And what only a walk tells: an address with its extension off, a name without domain.
 */
static int
walk(struct mw_cli *cli, const struct mw_query *q, const char *user, struct sought *s,
     struct mw_err *err)
{
	struct mw_query one;
	mw_query_init(&one, q->arena);
	one.user = &user;
	one.n_user = 1;
	one.any_term = true;
	return MW_MIN(mw_select(cli, &one, on_item, s, on_bad, NULL, err), 0);
}

int
mw_query_users(struct mw_cli *cli, const struct mw_query *q, struct mw_err *err)
{
	for (size_t i = 0; i < q->n_user; i++) {
		struct sought s = {.found = false};
		if (is_ours(cli->conf, mw_addr_domain(mw_strz(q->user[i]))))
			continue;
		int r = look_up(cli, q->user[i], &s, err);
		if (r == 0 && !s.found)
			r = walk(cli, q, q->user[i], &s, err);
		if (r < 0)
			return r;
		if (s.found || s.unsure)
			continue;
		(void)mw_fail(err, MW_ENOUSER,
		              "nobody here knows '%s': no recipient, alias or login of "
		              "the journal, and of no domain in local_domains",
		              q->user[i]);
		return mw_err_hint(err, "an address, its alias, or a login; 'mailwal "
		                        "list' shows what there is");
	}
	return 0;
}

int
mw_query_elsewhere(const struct mw_cli *cli, const struct mw_query *q, struct mw_err *err)
{
	const struct mw_conf *conf = cli->conf;
	struct mw_str d = mw_str("", 0);
	if (!conf || conf->local_domains.n == 0)
		return 0;
	for (size_t i = 0; i < q->n_user + q->n_domain; i++) {
		d = i < q->n_user ? mw_addr_domain(mw_strz(q->user[i]))
		                  : mw_query_domain(q, i - q->n_user);
		if (d.n == 0 || is_ours(conf, d))
			return 0;
	}
	if (d.n == 0)
		return 0;
	(void)
	    mw_fail(err, MW_ENOUSER,
	            "nothing was put back: %.*s is not in local_domains, so none of its "
	            "mail belongs into a mailbox here",
	            (int)MW_MIN(d.n, (size_t)200), d.p);
	return mw_err_hint(err, "'mailwal export' writes out any mail");
}
