#include "replay/item.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/record/expansion.h"

#include <string.h>

static void
set_str(json_t *o, const char *key, struct mw_str s)
{
	(void)json_object_set_new(o, key, mw_json_str(s));
}

static void
set_hex(json_t *o, const char *key, const uint8_t *p)
{
	char hex[65];
	mw_hex(hex, p, 32);
	(void)json_object_set_new(o, key, json_string(hex));
}

json_t *
mw_item_flags(uint32_t flags)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} names[] = {{MW_MAIL_NO_BODY, "no_body"},
	             {MW_MAIL_INEXACT, "inexact"},
	             {MW_MAIL_NON_SMTP, "non_smtp"},
	             {MW_MAIL_TABLES_FAILED, "tables_failed"}};
	json_t *list = json_array();
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (flags & names[i].bit)
			(void)json_array_append_new(list, json_string(names[i].name));
	return list;
}

void
mw_item_to(const struct mw_mail *m, struct mw_buf *out)
{
	size_t n = 0;
	for (size_t i = 0; i < m->n_rcpt; i++) {
		if (m->rcpt[i].flags & MW_RCPT_REFUSED)
			continue;
		if (n++ == 0)
			mw_buf_putstr(out, m->rcpt[i].addr);
	}
	if (n > 1)
		mw_buf_printf(out, " +%zu", n - 1);
}

static void
set_recipients(json_t *o, const struct mw_mail *m)
{
	json_t *taken = json_array(), *refused = json_array(), *excluded = json_array();
	for (size_t i = 0; i < m->n_rcpt; i++) {
		bool no = (m->rcpt[i].flags & MW_RCPT_REFUSED) != 0;
		(void)json_array_append_new(no ? refused : taken,
		                            mw_json_str(m->rcpt[i].addr));
		if (m->rcpt[i].flags & MW_RCPT_EXCLUDED)
			(void)json_array_append_new(excluded,
			                            mw_json_str(m->rcpt[i].addr));
	}
	(void)json_object_set_new(o, "recipients", taken);
	if (json_array_size(refused))
		(void)json_object_set_new(o, "refused_recipients", refused);
	else
		json_decref(refused);
	if (json_array_size(excluded))
		(void)json_object_set_new(o, "excluded_recipients", excluded);
	else
		json_decref(excluded);
}

static void
set_mailboxes(json_t *o, const struct mw_cli *cli, const struct mw_mail *m,
              struct mw_arena *a)
{
	struct mw_copy *c = NULL;
	size_t n = 0;
	json_t *list = json_array();
	bool undecided = false;
	if (mw_expansion_awaited(m)) /* it is on its way, or was lost */
		(void)json_object_set_new(o, "expansion_missing", json_true());
	if (mw_copies(cli->conf, m, a, &c, &n, NULL) < 0)
		n = 0;
	for (size_t i = 0; i < n; i++) {
		if (c[i].sent)
			set_str(o, "sent_mailbox", mw_strz(c[i].mailbox));
		else
			(void)json_array_append_new(list,
			                            mw_json_str(mw_strz(c[i].mailbox)));
		undecided = undecided || c[i].undecided;
	}
	(void)json_object_set_new(o, "mailboxes", list);
	if (undecided)
		(void)json_object_set_new(o, "mailboxes_undecided", json_true());
}

static json_t *
client(const struct mw_mail *m)
{
	json_t *c = json_object();
	if (m->client_addr.n)
		set_str(c, "addr", m->client_addr);
	if (m->client_name.n)
		set_str(c, "name", m->client_name);
	if (m->helo.n)
		set_str(c, "helo", m->helo);
	if (m->client_port)
		(void)json_object_set_new(c, "port", json_integer(m->client_port));
	if (m->tls_version.n)
		set_str(c, "tls_version", m->tls_version);
	if (m->tls_cipher.n)
		set_str(c, "tls_cipher", m->tls_cipher);
	return c;
}

static void
set_header_text(json_t *o, const char *key, struct mw_str raw)
{
	MW_BUF_AUTO b = {0};
	mw_text_header(raw, &b);
	set_str(o, key, mw_buf_str(&b));
}

/* The capture sections that it came under, where there were some; "" for no section. */
static void
set_classes(json_t *o, const struct mw_mail *m)
{
	json_t *v = m->n_class ? json_array() : NULL;
	for (size_t i = 0; v && i < m->n_class; i++)
		(void)json_array_append_new(v, mw_json_str(m->class[i]));
	if (v)
		(void)json_object_set_new(o, "classes", v);
}

json_t *
mw_item_json(const struct mw_cli *cli, const struct mw_item *it, struct mw_arena *a)
{
	const struct mw_mail *m = &it->mail;
	char id[MW_ID_TEXT + 1], time[32];
	json_t *o = json_object();
	if (!o)
		return NULL;
	mw_id_text(id, it->rec.id);
	mw_time_rfc3339(time, sizeof time, m->time_us);
	(void)json_object_set_new(o, "id", json_string(id));
	(void)json_object_set_new(o, "seq", json_integer((json_int_t)it->rec.seq));
	(void)json_object_set_new(o, "time", json_string(time));
	set_str(o, "queue_id", m->queue_id);
	set_str(o, "message_id", m->message_id);
	set_str(o, "sender", m->sender);
	set_recipients(o, m);
	set_mailboxes(o, cli, m, a);
	(void)json_object_set_new(o, "direction",
	                          json_string(mw_direction_name(m->direction)));
	(void)json_object_set_new(o, "size", json_integer((json_int_t)m->size));
	set_hex(o, "digest", m->digest);
	set_hex(o, "sha256", m->sha256);
	set_header_text(o, "subject", m->subject);
	set_header_text(o, "from", m->from);
	(void)json_object_set_new(o, "client", client(m));
	set_str(o, "auth_user", m->auth_user);
	set_classes(o, m);
	(void)json_object_set_new(o, "flags", mw_item_flags(m->flags));
	set_str(o, "journal", mw_strz(mw_store_dir(it->store)));
	(void)json_object_set_new(o, "segment",
	                          json_integer((json_int_t)it->rec.loc.segment));
	(void)json_object_set_new(o, "offset",
	                          json_integer((json_int_t)it->rec.loc.offset));
	return o;
}
