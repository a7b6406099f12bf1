#include "replay/import_seen.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/record/header.h"
#include "journal/store/later.h"
#include "replay/imap_parse.h"
#include "replay/select.h"

#include <stdlib.h>
#include <string.h>

enum {
	RECEIVED_FIELDS = 4, /* from the top: the queue ID is in one of the first */
	TAIL_MAX = 2000000   /* records kept in memory; more: the index must do */
};

#define DAY_US    (INT64_C(86400) * 1000000)
#define RECENT_US (INT64_C(3600) * 1000000)

struct token { /* of a record that the index does not have yet */
	uint8_t t[8];
	uint32_t rec;  /* in tail */
	uint32_t next; /* of the same slot, position + 1 */
};

struct mw_seen {
	struct mw_store *st;
	const struct mw_conf *conf;
	struct mw_arena *arena; /* of one question */
	uint64_t before;        /* what is below is looked up in the index */
	uint64_t began;         /* the log's end when we began */
	int64_t recent_us;      /* what is older cannot be captured any more */
	struct mw_cursor *cursor;
	struct mw_record *tail; /* from before on, less what this import brings */
	size_t n_tail, cap_tail;
	struct token *token;
	size_t n_token, cap_token;
	uint32_t *slot; /* position + 1 of its first token */
	size_t n_slot;
	bool no_key; /* metadata cannot be read: tokens must do */
};

enum rule {
	BY_QUEUE,
	BY_DIGEST,
	BY_MESSAGE_ID,
	BY_FACTS
};

struct ask { /* one question at work */
	struct mw_seen *s;
	const struct mw_import_msg *m;
	const struct mw_profile *p;
	enum rule rule;
	uint64_t msgid;
	struct mw_str message_id;
	int64_t received_us; /* BY_QUEUE */
	bool found;
};

void
mw_seen_free(struct mw_seen *s)
{
	if (!s)
		return;
	mw_cursor_free(s->cursor);
	mw_arena_free(s->arena);
	free(s->slot);
	free(s->token);
	free(s->tail);
	free(s);
}

/* ---- whose copy is it ---- */

static bool
token_in(const struct mw_buf *b, const struct mw_store *st, enum mw_key key,
         struct mw_str name)
{
	uint8_t t[MW_STORE_NAMES][8];
	int n = mw_store_names(st, key, name, t);
	for (size_t i = 0; i + 8 <= b->n; i += 8)
		for (int k = 0; k < n; k++)
			if (memcmp(b->p + i, t[k], 8) == 0)
				return true;
	return false;
}

/* Without metadata: is the owner among the recipients, or its sender? A mailbox named by
 * the local part alone has all local domains. */
static bool
tokens_of_owner(const struct ask *q, const struct mw_record *rec)
{
	const struct mw_conf *conf = q->s->conf;
	struct mw_str owner = mw_strz(q->m->owner), local = mw_addr_local(owner);
	const char *pattern = conf->mailbox_name ? conf->mailbox_name : "%u";
	bool any_domain = !strstr(pattern, "%u") && !strstr(pattern, "%d");
	MW_BUF_AUTO t = {0};
	if (mw_later_tokens(q->s->st, rec, &t, NULL) < 0)
		return false;
	if (token_in(&t, q->s->st, MW_KEY_RCPT, owner) ||
	    token_in(&t, q->s->st, MW_KEY_OWNER, owner) ||
	    token_in(&t, q->s->st, MW_KEY_OWNER, local))
		return true;
	for (size_t i = 0; any_domain && i < conf->local_domains.n; i++) {
		const char *a = mw_arena_printf(q->s->arena, "%.*s@%s", (int)local.n,
		                                local.p, conf->local_domains.v[i]);
		if (a && token_in(&t, q->s->st, MW_KEY_RCPT, mw_strz(a)))
			return true;
	}
	return false;
}

/* Has the record a copy for this mailbox? An import of ours is one for the same folder
 * kind; a captured message may be any of the user's. */
static bool
copies_of_owner(const struct ask *q, const struct mw_record *rec,
                const struct mw_mail *mail)
{
	struct mw_copy *c;
	size_t n;
	if (mw_copies(q->s->conf, mail, q->s->arena, &c, &n, NULL) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcmp(c[i].mailbox, q->m->mailbox) == 0 &&
		    (!rec->imported || c[i].sent == q->m->sent))
			return true;
	return false;
}

/* ---- what is the same ---- */

static struct mw_profile *
profile_of(struct mw_store *st, const struct mw_record *rec)
{
	struct mw_profiler *f = mw_profiler_new();
	struct mw_profile *p = NULL;
	if (f && mw_record_body(st, rec, NULL, mw_profiler_put, f, NULL) == 0)
		p = mw_profiler_take(f);
	mw_profiler_free(f);
	return p;
}

static bool
same_body(const struct ask *q, const struct mw_record *rec)
{
	MW_AUTOFREE struct mw_profile *p = profile_of(q->s->st, rec);
	if (!p || memcmp(p->unquoted, q->p->unquoted, sizeof p->unquoted) != 0)
		return false;
	return q->m->sent || mw_profile_subset(p, q->p);
}

static bool
near(int64_t a, int64_t b, int64_t by)
{
	int64_t d;
	return !__builtin_sub_overflow(a, b, &d) && d > -by && d < by;
}

/* What a record's header and tokens say; then, where it can be read, its metadata. */
static bool
is_it(struct ask *q, const struct mw_record *rec)
{
	struct mw_seen *s = q->s;
	struct mw_mail mail;
	MW_BUF_AUTO t = {0};
	struct mw_err why = {0};
	if (rec->type != MW_TYPE_MAIL)
		return false;
	if (q->rule == BY_FACTS && (!rec->imported || rec->plain_len != q->m->size ||
	                            rec->time_us / 1000000 != q->m->time_us / 1000000))
		return false;
	int64_t at = q->received_us != INT64_MIN ? q->received_us : q->m->time_us;
	if (q->rule == BY_QUEUE && !near(at, rec->time_us, DAY_US))
		return false;
	int r = s->no_key ? MW_EKEY : mw_later_mail(s->st, rec, s->arena, &mail, &why);
	s->no_key = s->no_key || r == MW_EKEY;
	if (r == MW_EKEY) {
		bool same_id = !q->message_id.n ||
		               (mw_record_tokens(s->st, rec, &t, NULL) == 0 &&
		                token_in(&t, s->st, MW_KEY_MESSAGE_ID, q->message_id));
		if (!same_id || !tokens_of_owner(q, rec))
			return false;
		/* The content cannot be compared; only a user's own is taken for it. */
		return q->rule != BY_MESSAGE_ID ||
		       (q->m->sent && !rec->imported && near(at, rec->time_us, DAY_US));
	}
	if (r < 0 || !copies_of_owner(q, rec, &mail))
		return false;
	uint64_t msgid = mw_msgid_hash(mail.message_id);
	switch (q->rule) {
	case BY_QUEUE: /* queue IDs come round again */
		return !(msgid && q->msgid && msgid != q->msgid);
	case BY_DIGEST:
		return memcmp(mail.digest, q->p->digest, sizeof mail.digest) == 0;
	case BY_MESSAGE_ID:
		return msgid == q->msgid && same_body(q, rec);
	case BY_FACTS:
		return msgid == q->msgid;
	}
	return false;
}

static int
on_candidate(void *arg, const struct mw_record *rec)
{
	struct ask *q = arg;
	q->found = is_it(q, rec);
	return q->found;
}

/* ---- records captured meanwhile ---- */

static int
grow(void **v, size_t *cap, size_t want, size_t size)
{
	if (want <= *cap)
		return 0;
	size_t n = *cap ? 2 * *cap : 256;
	void *p = reallocarray(*v, n, size);
	if (!p)
		return MW_ENOMEM;
	*v = p;
	*cap = n;
	return 0;
}

static void
link_token(struct mw_seen *s, size_t i)
{
	uint32_t *slot = &s->slot[mw_get64(s->token[i].t) & (s->n_slot - 1)];
	s->token[i].next = *slot;
	*slot = (uint32_t)i + 1;
}

static int
add_token(struct mw_seen *s, const uint8_t *t)
{
	void *v = s->token;
	if (s->n_token >= UINT32_MAX - 1 ||
	    grow(&v, &s->cap_token, s->n_token + 1, sizeof *s->token) < 0)
		return MW_ENOMEM;
	s->token = v;
	struct token *x = &s->token[s->n_token++];
	memcpy(x->t, t, sizeof x->t);
	x->rec = (uint32_t)s->n_tail;
	if (s->n_token <= s->n_slot) {
		link_token(s, s->n_token - 1);
		return 0;
	}
	size_t n = s->n_slot ? 2 * s->n_slot : 1024;
	uint32_t *slot = calloc(n, sizeof *slot);
	if (!slot)
		return MW_ENOMEM;
	free(s->slot);
	s->slot = slot;
	s->n_slot = n;
	for (size_t i = 0; i < s->n_token; i++)
		link_token(s, i);
	return 0;
}

static int
add_tail(struct mw_seen *s, const struct mw_record *rec, struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	struct mw_err e = {0};
	void *v = s->tail;
	int r = mw_record_tokens(s->st, rec, &b, &e);
	if (r < 0 && r != MW_ENOMEM)
		return 0; /* erased, or damaged: as good as not there */
	if (r == 0)
		r = grow(&v, &s->cap_tail, s->n_tail + 1, sizeof *s->tail);
	if (r == 0)
		s->tail = v;
	for (size_t i = 0; r == 0 && i + 8 <= b.n; i += 8)
		r = add_token(s, b.p + i);
	if (r < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	s->tail[s->n_tail++] = *rec;
	return 0;
}

/* What the log has got since the last look. What was imported since we began is ours. */
static int
read_tail(struct mw_seen *s, struct mw_err *err)
{
	for (int failures = 0; failures < 64;) {
		struct mw_record rec;
		struct mw_err e = {0};
		int r = mw_cursor_next(s->cursor, &rec, &e);
		if (r == 0)
			return 0;
		if (r < 0) {
			failures++;
			continue;
		}
		if (rec.type != MW_TYPE_MAIL || (rec.imported && rec.seq >= s->began))
			continue;
		r = add_tail(s, &rec, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool
in_tail(struct ask *q, enum mw_key key, struct mw_str value)
{
	struct mw_seen *s = q->s;
	uint8_t t[8];
	if (!s->n_slot)
		return false;
	mw_store_token(s->st, key, value, t);
	uint32_t i = s->slot[mw_get64(t) & (s->n_slot - 1)];
	for (; i; i = s->token[i - 1].next)
		if (memcmp(s->token[i - 1].t, t, sizeof t) == 0 &&
		    is_it(q, &s->tail[s->token[i - 1].rec]))
			return true;
	return false;
}

int
mw_seen_new(struct mw_store *st, const struct mw_conf *conf, struct mw_seen **ret,
            struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	struct mw_record last;
	struct mw_seen *s = calloc(1, sizeof *s);
	int r = s && (s->arena = mw_arena_new(64U << 20)) ? 0 : MW_ENOMEM;
	if (r < 0) {
		free(s);
		return mw_fail(err, r, "out of memory");
	}
	s->st = st;
	s->conf = conf;
	s->recent_us = clock->now_us(clock) - RECENT_US;
	r = mw_store_last(st, UINT64_MAX, &last, err);
	s->began = s->before = r > 0 ? last.seq + 1 : 1;
	if (r >= 0)
		r = mw_store_indexed(st, &s->before, err);
	if (s->before > s->began || s->began - s->before > TAIL_MAX)
		s->before = s->began;
	if (r >= 0)
		r = mw_cursor_new(st, s->before, &s->cursor, err);
	if (r >= 0 && s->before < s->began)
		r = read_tail(s, err);
	if (r < 0)
		mw_seen_free(s);
	else
		*ret = s;
	return r < 0 ? r : 0;
}

static int
look(struct ask *q, enum rule rule, enum mw_key key, struct mw_str value,
     struct mw_err *err)
{
	struct mw_seen *s = q->s;
	q->rule = rule;
	q->found = false;
	if (!value.n)
		return 0;
	int r = s->before > 1 ? mw_store_find_before(s->st, key, value, s->before,
	                                             on_candidate, q, err)
	                      : 0;
	if (r < 0)
		return r;
	return q->found || in_tail(q, key, value);
}

/* ---- the questions ---- */

static int
look_queue(struct ask *q, struct mw_str header, struct mw_err *err)
{
	struct mw_field f;
	int n = 0, r = 0;
	while (r == 0 && n < RECEIVED_FIELDS && mw_header_next(&header, &f)) {
		if (!mw_str_ieq(f.name, MW_STR("Received")))
			continue;
		n++;
		struct mw_str v = mw_header_unfold(q->s->arena, f.value, 4096);
		struct mw_str id = v.p ? mw_header_received_id(v) : mw_str("", 0);
		q->received_us = INT64_MIN;
		if (!id.n)
			continue;
		(void)mw_rfc5322_date(v, &q->received_us);
		r = look(q, BY_QUEUE, MW_KEY_QUEUE_ID, id, err);
	}
	q->received_us = INT64_MIN;
	return r;
}

static struct mw_str
message_id_of(struct mw_seen *s, struct mw_str header)
{
	struct mw_field f;
	if (!mw_header_find(header, "Message-ID", &f))
		return mw_str("", 0);
	struct mw_str v = mw_header_unfold(s->arena, f.value, 1000);
	return v.p ? mw_header_msgid(v) : mw_str("", 0);
}

int
mw_seen(struct mw_seen *s, const struct mw_import_msg *m, struct mw_str header,
        const struct mw_profile *p, struct mw_err *err)
{
	struct ask q = {.s = s, .m = m, .p = p, .received_us = INT64_MIN};
	mw_arena_reset(s->arena);
	int r =
	    m->time_us == INT64_MIN || m->time_us >= s->recent_us ? read_tail(s, err) : 0;
	if (r < 0)
		return r;
	q.message_id = message_id_of(s, header);
	q.msgid = mw_msgid_hash(q.message_id);
	r = look(&q, BY_DIGEST, MW_KEY_DIGEST,
	         mw_str((const char *)p->digest, sizeof p->digest), err);
	if (r == 0 && !m->sent)
		r = look_queue(&q, header, err);
	if (r == 0)
		r = look(&q, BY_MESSAGE_ID, MW_KEY_MESSAGE_ID, q.message_id, err);
	return r;
}

int
mw_seen_import(struct mw_seen *s, const struct mw_import_msg *m, struct mw_err *err)
{
	struct ask q = {.s = s, .m = m, .received_us = INT64_MIN};
	mw_arena_reset(s->arena);
	if (!m->size || m->time_us == INT64_MIN)
		return 0;
	q.message_id = mw_header_msgid(mw_str_trim(m->message_id));
	q.msgid = mw_msgid_hash(q.message_id);
	return look(&q, BY_FACTS, MW_KEY_MESSAGE_ID, q.message_id, err);
}
