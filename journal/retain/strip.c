/* The copies of one person taken out of a message that others keep. */
#include "journal/base/util.h"
#include "journal/retain/retain.h"

static bool
erased(const struct mw_gone *g, const struct mw_store *st, uint64_t seq, enum mw_key kind,
       struct mw_str value)
{
	uint8_t token[8];
	mw_store_token(st, kind, value, token);
	return value.n && mw_gone_token(g, seq, token);
}

/* False: nobody is left behind this recipient. */
static bool
strip_rcpt(const struct mw_gone *g, const struct mw_store *st, uint64_t seq,
           struct mw_rcpt *r, bool *ret_any)
{
	bool addr = erased(g, st, seq, MW_KEY_RCPT, r->addr);
	size_t k = 0;
	for (size_t i = 0; i < r->n_mailbox; i++)
		if (!erased(g, st, seq, MW_KEY_RCPT, r->mailbox[i]))
			r->mailbox[k++] = r->mailbox[i];
	bool lost = k < r->n_mailbox;
	r->n_mailbox = k;
	*ret_any = *ret_any || addr || lost;
	if (k == 0 && (addr || lost))
		return false;
	if (addr) /* an alias of others too: they keep it, without the erased name */
		r->addr = r->mailbox[0];
	return true;
}

bool
mw_erased_strip(const struct mw_gone *g, const struct mw_store *st, uint64_t seq,
                struct mw_mail *m)
{
	bool any = false;
	size_t k = 0;
	if (!mw_gone_copies(g, seq))
		return false;
	for (size_t i = 0; i < m->n_rcpt; i++)
		if (strip_rcpt(g, st, seq, &m->rcpt[i], &any))
			m->rcpt[k++] = m->rcpt[i];
	m->n_rcpt = k;
	if (erased(g, st, seq, MW_KEY_OWNER, m->auth_user)) {
		m->auth_user = mw_str("", 0);
		any = true;
	}
	return any;
}
