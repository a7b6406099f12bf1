#include "replay/target_imap.h"

#include "journal/base/buf.h"
#include "journal/base/id.h"
#include "journal/base/util.h"
#include "replay/sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Filing by the user's own Sieve script, on a Dovecot instance that sends nothing out
 * (mailwal setup dovecot --quiet): UID FILTER SIEVE DELIVERY runs the script on what lies
 * in the staging folder. What it files is in its folder then, and marked \Deleted here;
 * what it keeps is untouched; it skips vacation and reject, but sends redirect and
 * notify: they must reach our own sink and nobody else, which a canary proves first. */

enum {
	CANARY_MS = 10000,
	ROUNDS_MAX = 100000,
	FRESHEN_MAX = 64 /* folders */
};

/* ---- silence ---- */

static int
canary_filter(struct mw_imap_box *b, const char *token, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	if (!b->marker_uid)
		return mw_fail(err, MW_EPROTO, "%s offers no UIDPLUS",
		               mw_net_peer(c->net));
	/* No literal: one that is not read together with its command (the server's buffer
	 * ends between them) makes Dovecot's imap_filter_sieve lose the command. */
	int r = mw_imap_do(c, err,
	                   "UID FILTER SIEVE SCRIPT \"redirect "
	                   "\\\"mailwal-canary-%s@silence.invalid\\\";\" UID %u",
	                   token, (unsigned)b->marker_uid);
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "run a Sieve script");
	/* The redirect marked the marker as deleted; it stays. */
	return r ? r
	         : mw_imap_do(c, err, "UID STORE %u -FLAGS.SILENT (\\Deleted)",
	                      (unsigned)b->marker_uid);
}

int
mw_imap_sieve_prove(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	uint8_t id[MW_ID_LEN];
	char token[MW_ID_TEXT + 1];
	const unsigned needed = MW_CAP_FILTER_SIEVE | MW_CAP_MULTIAPPEND |
	                        MW_CAP_UIDPLUS | MW_CAP_MOVE | MW_CAP_LITERAL_PLUS;
	if (t->silent)
		return 0;
	if ((b->c->caps & needed) != needed) {
		mw_fail(err, MW_ECONF, "%s cannot file by Sieve: it offers no %s",
		        mw_net_peer(b->c->net),
		        b->c->caps & MW_CAP_FILTER_SIEVE ? "UIDPLUS, MOVE, MULTIAPPEND"
		                                         : "FILTER=SIEVE");
		return mw_err_hint(err, "mailwal setup dovecot --quiet makes an instance "
		                        "that does");
	}
	mw_id_new(id);
	mw_id_text(token, id);
	int r = canary_filter(b, token, err);
	if (r)
		return r;
	if (!mw_sink_saw(t->o.sink, token, CANARY_MS)) {
		mw_fail(err, MW_ECONF,
		        "%s is not silent: what a script sends out does not come to %s",
		        mw_net_peer(b->c->net), mw_sink_where(t->o.sink));
		return mw_err_hint(err,
		                   "its submission_host must be that address: mailwal "
		                   "setup dovecot --quiet");
	}
	t->silent = true;
	return 0;
}

/* ---- filing ---- */

static bool
clean(struct mw_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= 32 || s.p[i] == 127)
			return false;
	return true;
}

int
mw_imap_sieve_prefix(const struct mw_put_io *io, const struct mw_put *p, char **ret,
                     struct mw_err *err)
{
	MW_BUF_AUTO text = {0};
	const struct mw_mail *m;
	struct mw_str to;
	int r = io->envelope(io->arg, p, &m, err);
	if (r)
		return r;
	if (clean(m->sender)) {
		mw_buf_puts(&text, "Return-Path: <");
		mw_buf_putstr(&text, m->sender);
		mw_buf_puts(&text, ">\r\n");
	}
	r = io->address(io->arg, p, &to, err);
	if (r)
		return r;
	if (clean(to)) {
		mw_buf_puts(&text, "Delivered-To: ");
		mw_buf_putstr(&text, to);
		mw_buf_puts(&text, "\r\n");
	}
	*ret = mw_buf_ok(&text) ? NULL : strdup(text.n ? mw_buf_cstr(&text) : "");
	return *ret ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

struct filtered { /* of one FILTER */
	uint32_t
	    failed; /* the last UID that ended with errors, when nothing followed it */
	unsigned errors;
};

/* "* 7 FILTERED (TAG m9) UID 12 OK" or "… ERRORS {n}". */
static int
on_filtered(void *arg, struct mw_imap_cur cur)
{
	struct filtered *f = arg;
	struct mw_str n, rest = mw_str(cur.p + 2, cur.n - 2), uid;
	if (!mw_str_cut(rest, ' ', &n, &rest) ||
	    !mw_str_istarts(rest, MW_STR("FILTERED ")))
		return 0;
	const char *at = memmem(rest.p, rest.n, ") UID ", 6);
	if (!at)
		return 0;
	rest = mw_str(at + 6, rest.n - (size_t)(at + 6 - rest.p));
	if (!mw_str_cut(rest, ' ', &uid, &rest))
		return 0;
	bool bad = mw_str_istarts(rest, MW_STR("ERRORS"));
	f->failed = bad ? mw_imap_set_at(uid, 0) : 0;
	f->errors += bad;
	return 0;
}

/* "* SEARCH 7 8 12" */
static int
on_taken(void *arg, struct mw_imap_cur cur)
{
	struct mw_buf *taken = arg;
	struct mw_str word, rest = mw_str(cur.p + 2, cur.n - 2);
	if (!mw_str_istarts(rest, MW_STR("SEARCH ")))
		return 0;
	for (rest = mw_str(rest.p + 7, rest.n - 7); rest.n;) {
		if (!mw_str_cut(rest, ' ', &word, &rest)) {
			word = rest;
			rest = mw_str("", 0);
		}
		uint32_t uid = mw_imap_set_at(word, 0);
		mw_buf_put(taken, &uid, sizeof uid);
	}
	return taken->failed ? MW_ENOMEM : 0;
}

/* Which of these the script took, and takes them out. */
static int
take_filed(struct mw_imap_box *b, const char *uids, struct mw_buf *taken,
           struct mw_err *err)
{
	struct mw_imap *c = b->c;
	int r = mw_imap_cmd(c, err, "UID SEARCH UID %s DELETED", uids);
	if (!r)
		r = mw_imap_cmd(c, err, "UID EXPUNGE %s", uids);
	if (!r)
		r = mw_imap_wait(c, on_taken, taken, err);
	if (!r)
		r = mw_imap_wait(c, NULL, NULL, err);
	return r == MW_EREFUSED
	           ? mw_imap_refused(c, err, "take filed mail out of " MW_STAGING_NAME)
	           : r;
}

static void
note_script(struct mw_target *t, const struct mw_imap_box *b, const char *text)
{
	char line[500];
	if (!t->o.note)
		return;
	(void)snprintf(line, sizeof line,
	               "mailbox %.100s: its Sieve script cannot be run, so mail goes to "
	               "INBOX: %.250s",
	               b->mailbox, text);
	t->o.note(t->o.note_arg, line);
}

int
mw_imap_sieve_send(struct mw_imap_box *b, const char *uids, struct mw_err *err)
{
	return mw_imap_cmd(b->c, err, "UID FILTER SIEVE DELIVERY UID %s", uids);
}

/* A passing failure ends a FILTER early, and what it keeps is not mentioned: after an
 * error that nothing followed, the rest is filtered once more, which does no harm. */
int
mw_imap_sieve_wait(struct mw_target *t, struct mw_imap_box *b, const char *uids,
                   struct mw_buf *taken, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	MW_AUTOFREE char *set = strdup(uids);
	struct mw_str all = mw_strz(uids);
	uint32_t last = mw_imap_set_at(all, mw_imap_set_count(all) - 1);
	if (!set)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (int i = 0; i < ROUNDS_MAX; i++) {
		struct filtered f = {0};
		int r = i ? mw_imap_sieve_send(b, set, err) : 0;
		if (!r)
			r = mw_imap_wait(c, on_filtered, &f, err);
		if (r == MW_EREFUSED) {
			note_script(t, b, c->last.text);
			break; /* what an earlier round filed is not for INBOX too */
		}
		if (r)
			return r;
		if (!f.failed || f.failed >= last)
			break;
		free(set);
		set = NULL;
		if (asprintf(&set, "%u:%u", (unsigned)f.failed + 1, (unsigned)last) < 0)
			return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	return take_filed(b, uids, taken, err);
}

static int
on_listed(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_box *b = arg;
	struct mw_imap_list l;
	b->listed += mw_imap_parse_list(cur, &l);
	return 0;
}

/* Not where there are many, by the scan or since a script made them, nor where there are
 * folders that show mail of others: to look into them is dear. */
int
mw_imap_sieve_freshen(struct mw_imap_box *b, struct mw_err *err)
{
	if (b->n_folder > FRESHEN_MAX || b->listed > FRESHEN_MAX || b->barred.n)
		return 0;
	b->listed = 0;
	int r = mw_imap_cmd(b->c, err, "LIST \"\" \"*\" RETURN (STATUS (MESSAGES))");
	if (!r)
		r = mw_imap_wait(b->c, on_listed, b, err);
	return r == MW_EREFUSED ? 0 : r;
}

/* ---- what scripts made ---- */

struct names {
	const struct mw_imap_box *b;
	struct mw_buf made; /* quoted names, one a line */
};

static int
on_folder(void *arg, struct mw_imap_cur cur)
{
	struct names *n = arg;
	MW_BUF_AUTO q = {0};
	struct mw_imap_list l;
	if (!mw_imap_parse_list(cur, &l) ||
	    (l.flags & (MW_FOLDER_NOSELECT | MW_FOLDER_VIRTUAL)) ||
	    !mw_imap_quote(l.name, &q) || q.failed)
		return 0;
	const char *name = mw_buf_cstr(&q);
	if (strcmp(name, n->b->staging) == 0 || mw_imap_barred(n->b, name))
		return 0;
	for (size_t i = 0; i < n->b->n_folder; i++)
		if (strcmp(n->b->folder[i].quoted, name) == 0)
			return 0;
	mw_buf_puts(&n->made, name);
	mw_buf_putc(&n->made, '\n');
	return 0;
}

static int
on_counts(void *arg, struct mw_imap_cur cur)
{
	bool *any = arg;
	struct mw_imap_counts n;
	*any = *any || (mw_imap_parse_counts(cur, &n) && n.messages);
	return 0;
}

/* Is there mail in it? In a Maildir the server lists its own directories as folders, too:
 * what Pigeonhole notes of redirects lies in .dovecot.lda-dupes.locks. */
static int
holds_mail(struct mw_imap_box *b, struct mw_str name, bool *ret, struct mw_err *err)
{
	*ret = false;
	int r = mw_imap_cmd(b->c, err, "STATUS %.*s (MESSAGES)", (int)name.n, name.p);
	if (!r)
		r = mw_imap_wait(b->c, on_counts, ret, err);
	return r == MW_EREFUSED ? 0 : r; /* no folder after all */
}

int
mw_imap_sieve_subscribe(struct mw_imap_box *b, struct mw_err *err)
{
	struct names n = {.b = b};
	int r = mw_imap_cmd(b->c, err, "LIST \"\" \"*\"");
	if (!r)
		r = mw_imap_wait(b->c, on_folder, &n, err);
	struct mw_str line, rest = mw_buf_str(&n.made);
	while (!r && mw_str_cut(rest, '\n', &line, &rest)) {
		bool any;
		r = holds_mail(b, line, &any, err);
		if (r || !any)
			continue;
		r = mw_imap_do(b->c, err, "SUBSCRIBE %.*s", (int)line.n, line.p);
		r = r == MW_EREFUSED ? 0 : r; /* shown or not, the mail is there */
	}
	mw_buf_free(&n.made);
	return r == MW_EREFUSED ? 0 : r;
}

/* ---- where to ---- */

const char mw_imap_inbox[] = "INBOX";

/* The folder that the address asks for: user+folder@…, when the user has it. */
static int
detail_folder(struct mw_target *t, const struct mw_put_io *io, const struct mw_put *v,
              const char **ret, struct mw_err *err)
{
	const char *delimiter = t->o.delimiter ? t->o.delimiter : "";
	const struct mw_imap_box *b = mw_imap_box(t);
	struct mw_str addr, local;
	int r = io->address(io->arg, v, &addr, err);
	if (r)
		return r;
	local = mw_addr_local(addr);
	size_t at = 0;
	while (at < local.n && !strchr(delimiter, local.p[at]))
		at++;
	*ret = mw_imap_inbox;
	if (at + 1 >= local.n)
		return 0;
	MW_AUTOFREE char *name = strndup(local.p + at + 1, local.n - at - 1);
	if (!name)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	MW_AUTOFREE char *quoted = mw_imap_dest_name(b->c, name);
	for (size_t i = 0; quoted && i < b->n_folder; i++)
		if (strcmp(b->folder[i].quoted, quoted) == 0)
			*ret = b->folder[i].quoted;
	return 0;
}

/* The folder that imported mail was in, as one pointer for all of it. */
static int
other_folder(struct mw_imap_box *b, const char *folder, const char **ret,
             struct mw_err *err)
{
	char *name = mw_imap_other_name(b, folder);
	*ret = mw_imap_inbox;
	if (!name)
		return 0;
	for (size_t i = 0; i < b->n_other; i++)
		if (strcmp(b->other[i], name) == 0) {
			free(name);
			*ret = b->other[i];
			return 0;
		}
	char **v = reallocarray(b->other, b->n_other + 1, sizeof *v);
	if (!v) {
		free(name);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	b->other = v;
	*ret = v[b->n_other++] = name;
	return 0;
}

int
mw_imap_destinations(struct mw_target *t, const struct mw_put_io *io,
                     const struct mw_put *v, size_t n, const char **to,
                     struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	bool detail = t->o.filing == MW_FILE_DETAIL && io->address;
	int r = 0;
	for (size_t i = 0; i < n && !r; i++) {
		to[i] = b->dest ? b->dest : v[i].sent ? b->sent : mw_imap_inbox;
		if (to[i] == mw_imap_inbox && v[i].folder)
			r = other_folder(b, v[i].folder, &to[i], err);
		else if (detail && to[i] == mw_imap_inbox)
			r = detail_folder(t, io, &v[i], &to[i], err);
	}
	return r;
}
