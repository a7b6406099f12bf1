#include "replay/target_imap.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/record/header.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
	FOLDERS_MAX = 200000,
	SETTLE_MS = 400, /* between two looks at a dead run's staging folder */
	SETTLE_ROUNDS = 15
};

static char *
quoted(struct mw_str name)
{
	MW_BUF_AUTO b = {0};
	if (!mw_imap_quote(name, &b))
		return NULL;
	return b.failed ? NULL : strdup(mw_buf_cstr(&b));
}

/* A folder of ours below the personal namespace, name in UTF-8, "/" as separator. */
static char *
own_name(const struct mw_imap *c, const char *utf8)
{
	MW_BUF_AUTO b = {0};
	mw_buf_puts(&b, c->prefix);
	if (!mw_imap_utf7(mw_strz(utf8), &b) || b.failed)
		return NULL;
	return quoted(mw_buf_str(&b));
}

/* --folder: "/" becomes the server's separator. */
static char *
dest_name(const struct mw_imap *c, const char *folder)
{
	MW_AUTOFREE char *name = strdup(folder);
	if (!name)
		return NULL;
	if (strcasecmp(name, "INBOX") == 0)
		return quoted(MW_STR("INBOX"));
	for (char *p = name; c->delim && *p; p++)
		*p = *p == '/' ? c->delim : *p;
	return own_name(c, name);
}

/* ---- folders ---- */

static int
on_list(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_box *b = arg;
	struct mw_imap_list l;
	if (!mw_imap_parse_list(cur, &l) ||
	    (l.flags & (MW_FOLDER_NOSELECT | MW_FOLDER_VIRTUAL)))
		return 0;
	char *q = quoted(l.name);
	if (!q)
		return 0; /* a name that no command can hold */
	if (strcmp(q, b->staging) == 0) {
		b->staging_seen = true;
		free(q);
		return 0;
	}
	for (size_t i = 0; i < b->n_folder; i++) {
		if (strcmp(b->folder[i].quoted, q) == 0) { /* listed twice */
			free(q);
			return 0;
		}
		if (i >
		    64) /* a long list is not searched for it: only INBOX is at stake */
			break;
	}
	if (b->n_folder >= FOLDERS_MAX) {
		free(q);
		return MW_ELIMIT;
	}
	if (b->n_folder == b->cap_folder) {
		size_t cap = b->cap_folder ? b->cap_folder * 2 : 16;
		void *p = realloc(b->folder, cap * sizeof *b->folder);
		if (!p) {
			free(q);
			return MW_ENOMEM;
		}
		b->folder = p;
		b->cap_folder = cap;
	}
	struct mw_imap_folder *f = &b->folder[b->n_folder++];
	*f = (struct mw_imap_folder){.quoted = q, .name = strndup(l.name.p, l.name.n)};
	f->sent = l.flags & MW_FOLDER_SENT;
	return f->name ? 0 : MW_ENOMEM;
}

/* The Sent folder: the one marked \Sent, else the configured name. */
static int
find_sent(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	const char *name =
	    t->o.sent_folder && *t->o.sent_folder ? t->o.sent_folder : "Sent";
	for (size_t i = 0; i < b->n_folder && !b->sent; i++)
		if (b->folder[i].sent)
			b->sent = strdup(b->folder[i].quoted);
	if (!b->sent)
		b->sent = own_name(b->c, name);
	if (!b->sent)
		return mw_fail(err, MW_ECONF,
		               "sent_folder \"%s\" cannot be a folder name", name);
	/* What was put into Sent by wish is looked for there like anywhere else. */
	bool plain = b->dest && strcmp(b->dest, b->sent) == 0;
	for (size_t i = 0; i < b->n_folder; i++)
		if (strcmp(b->folder[i].quoted, b->sent) == 0)
			b->folder[i].sent = !plain;
	return 0;
}

static int
list_folders(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	MW_AUTOFREE char *pattern = NULL;
	MW_BUF_AUTO p = {0};
	const char *ret =
	    (c->caps & MW_CAP_SPECIAL_USE) && (c->caps & MW_CAP_LIST_EXTENDED)
	        ? " RETURN (SPECIAL-USE)"
	        : "";
	/* Other users' and public namespaces have prefixes of their own; with an empty
	 * personal prefix they come along and are harmless but for their cost. */
	mw_buf_puts(&p, c->prefix);
	mw_buf_putc(&p, '*');
	pattern = quoted(mw_buf_str(&p));
	if (!pattern)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_imap_cmd(c, err, "LIST \"\" %s%s", pattern, ret);
	if (!r && c->prefix[0])
		r = mw_imap_cmd(c, err, "LIST \"\" INBOX%s", ret);
	if (!r)
		r = mw_imap_wait(c, on_list, b, err);
	if (!r && c->prefix[0])
		r = mw_imap_wait(c, on_list, b, err);
	if (r == MW_EREFUSED)
		return mw_imap_refused(c, err, "list the folders");
	return r ? r : find_sent(t, b, err);
}

static void
folders_free(struct mw_imap_folder *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].name);
		free(v[i].quoted);
	}
	free(v);
}

/* Lists the folders again, now that nobody else puts mail: 1 if there are others than at
 * the scan (another run may have made Sent), 0 if not. */
static int
relist(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap_folder *old = b->folder;
	size_t n = b->n_folder;
	b->folder = NULL;
	b->n_folder = b->cap_folder = 0;
	int r = list_folders(t, b, err);
	bool same = !r && n == b->n_folder;
	for (size_t i = 0; same && i < n; i++) {
		struct mw_imap_folder *f = &b->folder[i];
		same = strcmp(f->quoted, old[i].quoted) == 0;
		f->uidvalidity = old[i].uidvalidity;
		f->uidnext = old[i].uidnext;
		f->exists = old[i].exists;
	}
	folders_free(old, n);
	return r ? r : !same;
}

/* ---- the staging folder ---- */

struct marker { /* what a staging folder's first message says */
	bool any;
	char ledger[80], host[200], run[80];
};

static void
marker_field(struct mw_str header, const char *name, char *out, size_t n)
{
	struct mw_field f;
	if (!mw_header_find(header, name, &f))
		return;
	struct mw_str v = mw_str_trim(f.value);
	size_t k = MW_MIN(v.n, n - 1);
	for (size_t i = 0; i < k; i++)
		out[i] = (unsigned char)v.p[i] < 33 || (unsigned char)v.p[i] > 126
		             ? '?'
		             : v.p[i];
	out[k] = '\0';
}

static int
on_marker(void *arg, struct mw_imap_cur cur)
{
	struct marker *m = arg;
	struct mw_imap_fetch f;
	if (!mw_imap_parse_fetch(cur, &f) || !f.has_header)
		return 0;
	m->any = true;
	marker_field(f.header, "X-Mailwal-Ledger", m->ledger, sizeof m->ledger);
	marker_field(f.header, "X-Mailwal-Host", m->host, sizeof m->host);
	marker_field(f.header, "X-Mailwal-Run", m->run, sizeof m->run);
	return 0;
}

static int
on_counts(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_counts *n = arg, v;
	if (mw_imap_parse_counts(cur, &v))
		*n = v;
	return 0;
}

/* Sleeps, but not through a Ctrl-C. */
static void
nap(const struct mw_target *t, int ms)
{
	for (; ms > 0 && !(t->o.stopped && t->o.stopped()); ms -= 50)
		(void)poll(NULL, 0, 50);
}

static int
locked_by(struct mw_imap_box *b, const struct marker *m, struct mw_err *err)
{
	if (!m->any)
		mw_fail(err, MW_ELOCKED,
		        "mailbox %s has a folder " MW_STAGING_NAME
		        " that holds no marker of a replay",
		        b->mailbox);
	else
		mw_fail(err, MW_ELOCKED,
		        "mailbox %s is being replayed by host %s (run %s)", b->mailbox,
		        m->host, m->run);
	return mw_err_hint(
	    err, "if no replay is at work there, delete the folder " MW_STAGING_NAME
	         " of that mailbox; it holds only copies");
}

/* Waits until a dead run's server process has come to rest. */
static int
settle(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap_counts was = {.uidnext = UINT64_MAX}, now;
	for (int i = 0; i < SETTLE_ROUNDS; i++) {
		now = (struct mw_imap_counts){0};
		int r =
		    mw_imap_cmd(b->c, err, "STATUS %s (MESSAGES UIDNEXT)", b->staging);
		if (!r)
			r = mw_imap_wait(b->c, on_counts, &now, err);
		if (r)
			return r == MW_EREFUSED ? 1 : r; /* gone already */
		if (i && now.messages == was.messages && now.uidnext == was.uidnext)
			return 0;
		was = now;
		nap(t, SETTLE_MS);
	}
	return mw_fail(err, MW_ELOCKED,
	               "folder " MW_STAGING_NAME " of mailbox %s is in use", b->mailbox);
}

static int
drop_staging(struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	/* Emptied first: a MOVE that still runs elsewhere then finds nothing. */
	int r = mw_imap_do(c, err, "SELECT %s", b->staging);
	if (!r)
		r = mw_imap_do(c, err, "UID STORE 1:* +FLAGS.SILENT (\\Deleted)");
	if (!r || r == MW_EREFUSED)
		r = mw_imap_do(c, err, "CLOSE");
	if (!r || r == MW_EREFUSED)
		r = mw_imap_do(c, err, "DELETE %s", b->staging);
	b->selected = false;
	if (r == MW_EREFUSED && c->last.no != MW_NO_NONEXISTENT)
		return mw_imap_refused(c, err, "delete the folder " MW_STAGING_NAME);
	return r == MW_EREFUSED ? 0 : r;
}

/* There is a staging folder: of this ledger (whose lock we hold, so its run is dead), or
 * somebody else's. An empty one without marker was left between two steps. */
static int
take_over(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	struct marker m = {0};
	for (int round = 0; round < 2; round++) {
		struct mw_imap_counts n = {0};
		int r = settle(t, b, err);
		if (r)
			return r < 0 ? r : 0;
		r = mw_imap_do(c, err, "EXAMINE %s", b->staging);
		if (r)
			return r == MW_EREFUSED
			           ? mw_imap_refused(c, err, "open " MW_STAGING_NAME)
			           : r;
		r = mw_imap_cmd(c, err,
		                "FETCH 1 (BODY.PEEK[HEADER.FIELDS (X-MAILWAL-LEDGER "
		                "X-MAILWAL-HOST X-MAILWAL-RUN)])");
		if (!r)
			r = mw_imap_wait(c, on_marker, &m, err);
		if (r && r != MW_EREFUSED)
			return r;
		if (m.any)
			break;
		r = mw_imap_cmd(c, err, "STATUS %s (MESSAGES)", b->staging);
		if (!r)
			r = mw_imap_wait(c, on_counts, &n, err);
		if (r || n.messages)
			break;
		nap(t, 1500); /* another host may just be making it */
	}
	bool ours = m.any && t->o.ledger_id && strcmp(m.ledger, t->o.ledger_id) == 0;
	struct mw_imap_counts n = {0};
	int r = mw_imap_cmd(c, err, "STATUS %s (MESSAGES)", b->staging);
	if (!r)
		r = mw_imap_wait(c, on_counts, &n, err);
	if (r && r != MW_EREFUSED)
		return r;
	if (!ours && (m.any || n.messages))
		return locked_by(b, &m, err);
	return drop_staging(b, err);
}

static int
marker_content(void *arg, const struct mw_imap_msg *m,
               int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	const struct mw_buf *b = m->ref;
	(void)arg, (void)err;
	return sink(sarg, b->p, b->n);
}

static int
put_marker(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	MW_BUF_AUTO text = {0};
	char host[200] = "unknown";
	struct mw_imap_appended a;
	const struct mw_clock *clk = mw_clock_system();
	(void)gethostname(host, sizeof host - 1);
	mw_buf_printf(
	    &text,
	    "From: mailwal <mailwal@localhost>\r\n"
	    "Subject: a mailwal replay is at work\r\n"
	    "X-Mailwal-Host: %s\r\nX-Mailwal-Ledger: %s\r\n"
	    "X-Mailwal-Run: %s\r\nX-Mailwal-Journal: %s\r\n"
	    "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
	    "Mail is being put back into this mailbox. This folder goes away by\r\n"
	    "itself when that is done. It holds nothing but copies.\r\n",
	    host, t->o.ledger_id ? t->o.ledger_id : "-", t->o.run_id ? t->o.run_id : "-",
	    t->o.journal_id ? t->o.journal_id : "-");
	struct mw_imap_msg m = {clk->now_us(clk), text.n, "(\\Seen) ", &text};
	struct mw_imap_batch batch = {b->staging, &m, 1, marker_content, NULL};
	if (mw_buf_ok(&text))
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_imap_append(b->c, &batch, &a, err);
	if (r)
		return r;
	if (a.code)
		return mw_imap_refused(b->c, err, "write to the mailbox");
	b->marker_uid = a.uid;
	b->uidvalidity = a.uidvalidity;
	return 0;
}

static int
imap_begin(struct mw_target *t, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	struct mw_imap *c = b->c;
	int r = mw_imap_do(c, err, "CREATE %s", b->staging);
	if (r == MW_EREFUSED) {
		char first[600];
		(void)mw_imap_refused(c, err, "create the folder " MW_STAGING_NAME);
		(void)snprintf(first, sizeof first, "%s", err ? err->msg : "");
		struct mw_imap_counts n = {0};
		r = mw_imap_cmd(c, err, "STATUS %s (MESSAGES)", b->staging);
		if (!r)
			r = mw_imap_wait(c, on_counts, &n, err);
		if (!r) /* it is there: another run was faster */
			return mw_fail(err, MW_ELOCKED,
			               "mailbox %s is being replayed by "
			               "another run",
			               b->mailbox);
		return r == MW_EREFUSED ? mw_fail(err, r, "%s", first) : r;
	}
	if (r)
		return r;
	b->locked = true;
	r = put_marker(t, b, err);
	if (!r)
		r = relist(t, b, err);
	if (!r)
		r = mw_imap_box_changed(t, err);
	return r;
}

int
mw_imap_staging_purge(struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	/* The marker is the oldest message; "n:*" always names the newest one. */
	int r = mw_imap_do(c, err, "UID STORE 1:* +FLAGS.SILENT (\\Deleted)");
	if (!r)
		r = mw_imap_do(c, err, "STORE 1 -FLAGS.SILENT (\\Deleted)");
	if (!r)
		r = mw_imap_do(c, err, "EXPUNGE");
	return r;
}

/* ---- open and close ---- */

static void
box_free(struct mw_imap_box *b)
{
	if (!b)
		return;
	mw_imap_close(b->second);
	mw_imap_close(b->c);
	folders_free(b->folder, b->n_folder);
	free(b->staging);
	free(b->sent);
	free(b->dest);
	free(b->mailbox);
	free(b);
}

static int
log_in(struct mw_target *t, struct mw_imap_box *b, struct mw_imap **ret,
       struct mw_err *err)
{
	char user[600], room[512];
	const char *password;
	struct mw_net_opts o = {
	    .kind = t->url.tls ? MW_NET_IMAPS : MW_NET_IMAP,
	    .host = t->url.host,
	    .port = t->url.port,
	    .login = b->mailbox,
	    .ca_file = t->o.tls_ca,
	    .insecure = t->o.insecure,
	    .stopped = t->o.stopped,
	};
	if (!t->o.auth_user) {
		int r =
		    mw_target_password(t, b->mailbox, &password, room, sizeof room, err);
		if (r)
			return r;
	} else {
		password = t->password;
		o.login = t->o.auth_user;
		o.authzid = t->o.separator ? NULL : b->mailbox;
		if (t->o.separator && snprintf(user, sizeof user, "%s*%s", b->mailbox,
		                               t->o.auth_user) >= (int)sizeof user)
			return mw_fail(err, MW_ENOUSER, "mailbox name too long");
		if (t->o.separator)
			o.login = user;
	}
	o.password = password;
	int r = mw_imap_open(&o, ret, err);
	explicit_bzero(room, sizeof room);
	return r;
}

void
mw_imap_box_second(struct mw_target *t)
{
	struct mw_imap_box *b = mw_imap_box(t);
	struct mw_err ignored; /* a server that allows one connection is served by one */
	if (b->second_tried)
		return;
	b->second_tried = true;
	if (log_in(t, b, &b->second, &ignored))
		b->second = NULL;
}

static int
imap_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
          struct mw_err *err)
{
	(void)box;
	struct mw_imap_box *b = calloc(1, sizeof *b);
	if (!b || !(b->mailbox = strdup(mailbox))) {
		free(b);
		return mw_fail(err, MW_ENOMEM, "out of memory");
	}
	int r = log_in(t, b, &b->c, err);
	if (!r && !(b->staging = own_name(b->c, MW_STAGING_NAME)))
		r = mw_fail(err, MW_EPROTO, "the server's namespace prefix is unusable");
	if (!r && t->o.folder && !(b->dest = dest_name(b->c, t->o.folder)))
		r = mw_fail(err, MW_EUSAGE, "the server cannot have a folder \"%.100s\"",
		            t->o.folder);
	if (!r)
		r = list_folders(t, b, err);
	if (!r && b->staging_seen && !dry)
		r = take_over(t, b, err);
	if (r) {
		box_free(b);
		return r;
	}
	t->own = b;
	return 0;
}

static int
imap_close(struct mw_target *t, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	int r = 0;
	if (!b)
		return 0;
	t->own = NULL;
	if (b->locked && b->c && b->c->sent == b->c->answered && !b->c->bye[0])
		r = drop_staging(b, err);
	box_free(b);
	return r;
}

static void
imap_free(struct mw_target *t)
{
	box_free(mw_imap_box(t));
	t->own = NULL;
}

const struct mw_target_ops mw_target_imap = {
    .scheme = "imap",
    .readable = true,
    .has_sent = true,
    .has_folders = true,
    .open = imap_open,
    .scan = mw_imap_box_scan,
    .fetch = mw_imap_box_fetch,
    .begin = imap_begin,
    .put = mw_imap_box_put,
    .close = imap_close,
    .free = imap_free,
};
