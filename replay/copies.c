/* copies.c - which mailboxes a mail belongs into. Pure functions. */
#include "replay/select.h"

#include "journal/base/domain.h"
#include "journal/base/fold.h"
#include "journal/base/util.h"

#include <string.h>

static char
lower(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static struct mw_str
whole(struct mw_str local, struct mw_str domain, struct mw_arena *a)
{
	char *p = local.p ? mw_arena_alloc(a, local.n + domain.n + 2) : NULL;
	if (!p)
		return mw_str(NULL, 0);
	memcpy(p, local.p, local.n);
	p[local.n] = '@';
	if (domain.n)
		memcpy(p + local.n + 1, domain.p, domain.n);
	return mw_str(p, local.n + (domain.n ? domain.n + 1 : 0));
}

/* In lower case of any script; b is its memory. Empty after a failure. */
static struct mw_str
lowered(struct mw_str s, struct mw_buf *b)
{
	if (mw_is_ascii(s))
		return s;
	mw_lower(s, b);
	return mw_buf_str(b);
}

/* Of a domain that no one has said how to write: one form, whichever a mail came with.
 * Mail in A-labels is the common one, and letters belong with letters before the @. */
static struct mw_str
one_form(struct mw_str local, struct mw_str domain, struct mw_buf *b)
{
	if (!mw_domain_has_forms(domain))
		return domain;
	return mw_is_ascii(local) ? mw_domain_key(domain, b)
	                          : mw_domain_letters(domain, b);
}

const char *
mw_mailbox_name(const struct mw_conf *conf, struct mw_str addr, struct mw_arena *a)
{
	const char *pattern =
	    conf->mailbox_name && *conf->mailbox_name ? conf->mailbox_name : "%u";
	struct mw_str local = mw_addr_local(addr), domain = mw_addr_domain(addr);
	const char *ours =
	    mw_domain_of(conf->local_domains.v, conf->local_domains.n, domain);
	/* as the site writes it */
	MW_BUF_AUTO low_local = {0};
	MW_BUF_AUTO low_domain = {0};
	local = lowered(mw_addr_plain(local), &low_local);
	domain = ours ? mw_strz(ours) : one_form(local, domain, &low_domain);
	addr = whole(local, domain, a);
	if (!addr.p || low_local.failed || low_domain.failed)
		return NULL;
	local = mw_str(addr.p, addr.n - (domain.n ? domain.n + 1 : 0));
	size_t room = strlen(pattern) + 1;
	for (const char *p = pattern; *p; p++)
		room += *p == '%' ? addr.n : 0;
	char *out = mw_arena_alloc(a, room), *o = out;
	if (!out)
		return NULL;
	for (const char *p = pattern; *p; p++) {
		struct mw_str part = mw_str(p, 1);
		if (*p == '%' && p[1]) {
			p++;
			part = *p == 'u'   ? addr
			       : *p == 'n' ? local
			       : *p == 'd'
			           ? domain
			           : mw_str(*p == '%' ? p : p - 1, *p == '%' ? 1 : 2);
		}
		for (size_t i = 0; i < part.n; i++)
			*o++ = lower(part.p[i]);
	}
	return out;
}

/* Copies found so far, with a hash table over them: a mailing to ten thousand recipients
 * must not take a hundred million comparisons. */
struct set {
	struct mw_arena *arena;
	struct mw_copy *v;
	size_t n, cap;
	size_t *slot; /* position + 1, 0: free */
	size_t n_slots;
};

static size_t
hash(const char *z, bool sent)
{
	size_t h = sent ? 77 : 5381;
	for (; *z; z++)
		h = h * 33 ^ (unsigned char)*z;
	return h;
}

static size_t
slot_for(const struct set *s, const char *mailbox, bool sent)
{
	size_t i = hash(mailbox, sent) & (s->n_slots - 1);
	while (s->slot[i]) {
		const struct mw_copy *c = &s->v[s->slot[i] - 1];
		if (c->sent == sent && strcmp(c->mailbox, mailbox) == 0)
			break;
		i = (i + 1) & (s->n_slots - 1);
	}
	return i;
}

static bool
rehash(struct set *s)
{
	size_t n = s->n_slots ? s->n_slots * 4 : 16;
	s->slot = mw_arena_alloc(s->arena, n * sizeof *s->slot);
	s->n_slots = n;
	for (size_t k = 0; s->slot && k < s->n; k++)
		s->slot[slot_for(s, s->v[k].mailbox, s->v[k].sent)] = k + 1;
	return s->slot != NULL;
}

static int
add(struct set *s, struct mw_copy c, struct mw_err *err)
{
	if (!c.mailbox)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (c.mailbox[0] == '\0')
		return 0; /* a recipient without local part has no mailbox */
	if (s->n * 2 >= s->n_slots && !rehash(s))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	size_t i = slot_for(s, c.mailbox, c.sent);
	if (s->slot[i]) {
		/* One decided way into this mailbox is enough. */
		struct mw_copy *old = &s->v[s->slot[i] - 1];
		old->undecided = old->undecided && c.undecided;
		return 0;
	}
	s->v = mw_arena_grow(s->arena, s->v, &s->cap, s->n + 1, sizeof *s->v);
	if (!s->v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	s->v[s->n++] = c;
	s->slot[i] = s->n;
	return 0;
}

/* The mailbox of a final address. An extension is off here too: Postfix hands what an
 * alias left unmatched on to the expansion (alias+tag → user+tag), and delivery drops it.
 */
static int
add_address(struct set *s, const struct mw_conf *conf, const struct mw_rcpt *r,
            struct mw_str addr, bool undecided, struct mw_err *err)
{
	struct mw_str base = mw_addr_base(addr, conf->recipient_delimiter, s->arena);
	const char *mailbox =
	    base.p || base.n == 0 ? mw_mailbox_name(conf, base, s->arena) : NULL;
	return add(s, (struct mw_copy){mailbox, r->addr, addr, false, undecided}, err);
}

static bool
is_local_domain(const struct mw_conf *conf, struct mw_str domain)
{
	if (conf->local_domains.n == 0)
		return domain.n > 0;
	return mw_domain_of(conf->local_domains.v, conf->local_domains.n, domain) != NULL;
}

/* A login without domain gets the sender's, where that is one of ours, or the only local
 * one; else it is the mailbox's name as it stands. */
static const char *
sent_mailbox(const struct mw_conf *conf, const struct mw_mail *m, struct mw_arena *a)
{
	struct mw_str user = m->auth_user, domain = mw_str("", 0);
	if (mw_addr_domain(user).n)
		return mw_mailbox_name(conf, user, a);
	if (is_local_domain(conf, mw_addr_domain(m->sender)))
		domain = mw_addr_domain(m->sender);
	else if (conf->local_domains.n == 1)
		domain = mw_strz(conf->local_domains.v[0]);
	if (domain.n == 0)
		return mw_mailbox_name(conf, user, a);
	const char *whole =
	    mw_arena_printf(a, "%.*s@%.*s", (int)user.n, user.p, (int)domain.n, domain.p);
	return whole ? mw_mailbox_name(conf, mw_strz(whole), a) : NULL;
}

int
mw_copies(const struct mw_conf *conf, const struct mw_mail *m, struct mw_arena *a,
          struct mw_copy **ret, size_t *ret_n, struct mw_err *err)
{
	struct set s = {.arena = a};
	int r = 0;
	for (size_t i = 0; r == 0 && i < m->n_rcpt; i++) {
		const struct mw_rcpt *rcpt = &m->rcpt[i];
		if ((rcpt->flags & (MW_RCPT_REFUSED | MW_RCPT_EXCLUDED)) ||
		    !(rcpt->flags & MW_RCPT_LOCAL))
			continue;
		bool undecided = (rcpt->flags & MW_RCPT_UNDECIDED) != 0;
		if (undecided || !(rcpt->flags & MW_RCPT_EXPANDED)) {
			r = add_address(&s, conf, rcpt, rcpt->addr, undecided, err);
			continue;
		}
		for (size_t k = 0; r == 0 && k < rcpt->n_mailbox; k++) {
			/* An alias may lead out of the house: no mailbox of ours. */
			struct mw_str domain = mw_addr_domain(rcpt->mailbox[k]);
			if (domain.n && !is_local_domain(conf, domain))
				continue;
			r = add_address(&s, conf, rcpt, rcpt->mailbox[k], false, err);
		}
	}
	bool outgoing = m->direction == MW_DIR_OUT || m->direction == MW_DIR_INTERNAL;
	if (r == 0 && outgoing && m->auth_user.n && conf->sent_folder &&
	    conf->sent_folder[0])
		r = add(&s,
		        (struct mw_copy){sent_mailbox(conf, m, a), m->sender,
		                         mw_str("", 0), true, false},
		        err);
	if (r < 0)
		return r;
	*ret = s.v;
	*ret_n = s.n;
	return 0;
}
