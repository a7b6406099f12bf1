/* Who is left in a mail from which somebody's copies were erased. */
#include "journal/base/util.h"
#include "journal/store/later.h"
#include "journal/store/store_int.h"

#include <string.h>

/* 0: nobody is left behind this recipient; 1, MW_ENOMEM. */
static int
strip_rcpt(struct mw_rcpt *r, mw_is_erased *erased, const void *arg, bool *ret_any)
{
	int addr = r->addr.n ? erased(arg, MW_KEY_RCPT, r->addr) : 0;
	size_t k = 0;
	if (addr < 0)
		return addr;
	for (size_t i = 0; i < r->n_mailbox; i++) {
		struct mw_str box = r->mailbox[i];
		int gone = box.n ? erased(arg, MW_KEY_RCPT, box) : 0;
		if (gone < 0)
			return gone;
		if (!gone)
			r->mailbox[k++] = box;
	}
	bool lost = k < r->n_mailbox;
	r->n_mailbox = k;
	*ret_any = *ret_any || addr || lost;
	if (k == 0 && (addr || lost))
		return 0;
	if (addr) /* an alias of others too: they keep it, without the erased name */
		r->addr = r->mailbox[0];
	return 1;
}

int
mw_mail_strip(struct mw_mail *m, mw_is_erased *erased, const void *arg)
{
	bool any = false;
	size_t k = 0;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		int r = strip_rcpt(&m->rcpt[i], erased, arg, &any);
		if (r < 0)
			return r;
		if (r)
			m->rcpt[k++] = m->rcpt[i];
	}
	m->n_rcpt = k;
	int login = m->auth_user.n ? erased(arg, MW_KEY_OWNER, m->auth_user) : 0;
	if (login > 0)
		m->auth_user = mw_str("", 0);
	return login ? login : any;
}

struct left {
	const struct mw_store *st;
	struct mw_buf tokens; /* that are still there */
};

/* Each name in a mail had a token beside the mail or beside its expansion. */
static int
is_cut(const void *arg, enum mw_key kind, struct mw_str name)
{
	const struct left *l = arg;
	uint8_t token[MW_STORE_OWN][8];
	int n = mw_store_own_names(l->st, kind, name, token);
	for (size_t i = 0; i + 8 <= l->tokens.n; i += 8)
		for (int k = 0; k < n; k++)
			if (memcmp(l->tokens.p + i, token[k], 8) == 0)
				return 0;
	return n < 0 ? n : 1;
}

int
mw_later_left(struct mw_store *st, const struct mw_record *mail,
              const struct mw_record *expansion, struct mw_mail *m, struct mw_err *err)
{
	struct left l = {.st = st};
	int k = mw_record_slot(st, mail, &l.tokens, err);
	int x = k >= 0 && expansion ? mw_record_slot(st, expansion, &l.tokens, err)
	                            : MW_SLOT_IS_WHOLE;
	int r = 0;
	/* While tokens are being removed these are under no check: then the tombstone
	 * alone says whose. */
	if (k == MW_SLOT_IS_CUT || x == MW_SLOT_IS_CUT)
		r = mw_mail_strip(m, is_cut, &l);
	mw_buf_free(&l.tokens);
	if (r < 0)
		return mw_fail(err, r, "out of memory");
	if (k < 0)
		return mw_store_or_gone(st, mail->seq, k, err);
	return x < 0 ? mw_store_or_gone(st, expansion->seq, x, err) : 0;
}
