#include "replay/target_imap.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	FOLDERS_MAX = 200000
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

/* Somebody who writes INBOX/Archive, or INBOX.Archive, means what the server calls so,
 * and not a folder INBOX in the namespace that begins with INBOX. */
static const char *
without_prefix(const struct mw_imap *c, const char *folder)
{
	size_t n = c->prefix ? strlen(c->prefix) : 0;
	if (n < 2 || strncasecmp(folder, c->prefix, n - 1) != 0 || !folder[n - 1])
		return folder;
	bool parted = folder[n - 1] == '/' || folder[n - 1] == c->prefix[n - 1];
	return parted && folder[n] ? folder + n : folder;
}

/* --folder: "/" becomes the server's separator. */
char *
mw_imap_dest_name(const struct mw_imap *c, const char *folder)
{
	if (strcasecmp(folder, "INBOX") == 0)
		return quoted(MW_STR("INBOX"));
	MW_AUTOFREE char *name = strdup(without_prefix(c, folder));
	if (!name)
		return NULL;
	for (char *p = name; c->delim && *p; p++)
		*p = *p == '/' ? c->delim : *p;
	return own_name(c, name);
}

bool
mw_imap_barred(const struct mw_imap_box *b, const char *quoted)
{
	const char *p = (const char *)b->barred.p;
	for (size_t at = 0; at < b->barred.n; at += strlen(p + at) + 1)
		if (strcmp(p + at, quoted) == 0)
			return true;
	return mw_imap_foreign(b->c, quoted + 1);
}

/* A name that this server cannot have means INBOX, and so do those that no scan would
 * look into for it: Sent, and what is barred. */
char *
mw_imap_other_name(const struct mw_imap_box *b, const char *folder)
{
	char *name = mw_imap_dest_name(b->c, folder);
	if (name && strcmp(name, b->sent) != 0 && strcmp(name, "\"INBOX\"") != 0 &&
	    !mw_imap_barred(b, name))
		return name;
	free(name);
	return NULL;
}

/* ---- folders ---- */

static int
on_list(void *arg, struct mw_imap_cur cur)
{
	struct mw_imap_box *b = arg;
	struct mw_imap_list l;
	if (!mw_imap_parse_list(cur, &l) || (l.flags & MW_FOLDER_NOSELECT))
		return 0;
	char *q = quoted(l.name);
	if (!q)
		return 0; /* a name that no command can hold */
	/* With an empty personal prefix other users' and shared folders come along. INBOX
	 * is the user's, whatever a server says of it. */
	if (strcasecmp(q, "\"INBOX\"") != 0 &&
	    ((l.flags & MW_FOLDER_VIRTUAL) || mw_imap_foreign(b->c, q + 1))) {
		mw_buf_put(&b->barred, q, strlen(q) + 1);
		free(q);
		return 0;
	}
	size_t n = strlen(b->staging) - 1; /* without the last quote */
	bool ours = strcmp(q, b->staging) == 0;
	if (ours || (strncmp(q, b->staging, n) == 0 &&
	             strncmp(q + n, MW_STAGING_BROKEN, strlen(MW_STAGING_BROKEN)) == 0)) {
		b->staging_seen = b->staging_seen || ours;
		if (!ours)
			mw_buf_put(&b->broken, q, strlen(q) + 1);
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
	f->leave = l.flags & MW_FOLDER_LEAVE;
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

/* Asks for the folders below a prefix, and at first who the server is. */
static int
list_send(struct mw_imap_box *b, const char *prefix, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	MW_AUTOFREE char *pattern = NULL;
	MW_BUF_AUTO p = {0};
	const char *ret =
	    (c->caps & MW_CAP_SPECIAL_USE) && (c->caps & MW_CAP_LIST_EXTENDED)
	        ? " RETURN (SPECIAL-USE)"
	        : "";
	mw_buf_puts(&p, prefix);
	mw_buf_putc(&p, '*');
	pattern = quoted(mw_buf_str(&p));
	if (!pattern)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	b->id_due = (c->caps & MW_CAP_ID) && !c->id_asked;
	c->id_asked = true;
	int r = b->id_due ? mw_imap_cmd(c, err, "ID NIL") : 0;
	if (!r)
		r = mw_imap_cmd(c, err, "LIST \"\" %s%s", pattern, ret);
	if (!r && prefix[0])
		r = mw_imap_cmd(c, err, "LIST \"\" INBOX%s", ret);
	return r;
}

/* Takes the answers; on: what is done with each folder, NULL: nothing. */
static int
list_wait(struct mw_imap_box *b, const char *prefix, mw_imap_on *on, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	int r = b->id_due ? mw_imap_wait(c, mw_imap_on_id, c, err) : 0;
	if (!r || (b->id_due && r == MW_EREFUSED))
		r = mw_imap_wait(c, on, b, err);
	if (!r && prefix[0])
		r = mw_imap_wait(c, on, b, err);
	return r;
}

static int
list_take(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	mw_buf_clear(&b->broken);
	mw_buf_clear(&b->barred);
	int r = list_wait(b, b->c->prefix, on_list, err);
	if (r == MW_EREFUSED)
		return mw_imap_refused(b->c, err, "list the folders");
	return r ? r : find_sent(t, b, err);
}

static int
list_folders(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	int r = list_send(b, b->c->prefix, err);
	return r ? r : list_take(t, b, err);
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

static int
by_name(const void *a, const void *b)
{
	const struct mw_imap_folder *x = *(const struct mw_imap_folder *const *)a;
	const struct mw_imap_folder *y = *(const struct mw_imap_folder *const *)b;
	return strcmp(x->quoted, y->quoted);
}

/* The same names, in whatever order? */
static bool
same_names(struct mw_imap_folder *x, struct mw_imap_folder *y, size_t n)
{
	MW_AUTOFREE struct mw_imap_folder **p = calloc(n + 1, 2 * sizeof(void *));
	bool same = p != NULL; /* without memory it is looked at again */
	for (size_t i = 0; p && i < n; i++) {
		p[i] = &x[i];
		p[n + i] = &y[i];
	}
	if (p) {
		qsort(p, n, sizeof(void *), by_name);
		qsort(p + n, n, sizeof(void *), by_name);
	}
	for (size_t i = 0; same && i < n; i++)
		same = strcmp(p[i]->quoted, p[n + i]->quoted) == 0;
	return same;
}

int
mw_imap_relist_send(struct mw_imap_box *b, struct mw_err *err)
{
	return list_send(b, b->c->prefix, err);
}

int
mw_imap_relist_wait(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap_folder *old = b->folder;
	size_t n = b->n_folder, cap = b->cap_folder;
	b->folder = NULL;
	b->n_folder = b->cap_folder = 0;
	int r = list_take(t, b, err);
	bool same = !r && n == b->n_folder && same_names(old, b->folder, n);
	if (same) { /* as the scan knows them */
		struct mw_imap_folder *again = b->folder;
		b->folder = old;
		b->cap_folder = cap;
		old = again;
		for (size_t i = 0; i < n; i++) /* the list does not tell */
			if (b->folder[i].shows)
				mw_buf_put(&b->barred, b->folder[i].quoted,
				           strlen(b->folder[i].quoted) + 1);
	}
	folders_free(old, n);
	return r ? r : !same;
}

int
mw_imap_box_relist(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	int r = mw_imap_relist_send(b, err);
	return r ? r : mw_imap_relist_wait(t, b, err);
}

/* ---- open and close ---- */

static void
second_join(struct mw_imap_box *b)
{
	if (b->second_coming)
		(void)pthread_join(b->second_thread, NULL);
	b->second_coming = false;
}

static void
box_free(struct mw_imap_box *b)
{
	if (!b)
		return;
	second_join(b);
	mw_imap_close(b->second);
	mw_imap_close(b->c);
	folders_free(b->folder, b->n_folder);
	free(b->staging);
	free(b->sent);
	free(b->dest);
	for (size_t i = 0; i < b->n_other; i++)
		free(b->other[i]);
	free(b->other);
	free(b->mailbox);
	mw_buf_free(&b->stale);
	mw_buf_free(&b->broken);
	mw_buf_free(&b->barred);
	free(b);
}

typedef int opener(const struct mw_net_opts *, struct mw_imap **, struct mw_err *);

static int
log_in(const struct mw_target *t, const struct mw_imap_box *b, opener *open,
       struct mw_imap **ret, struct mw_err *err)
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
	    .note = t->o.note,
	    .note_arg = t->o.note_arg,
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
	int r = open(&o, ret, err);
	explicit_bzero(room, sizeof room);
	return r;
}

static void *
second_log_in(void *arg)
{
	struct mw_imap_box *b = arg;
	struct mw_err ignored; /* a server that allows one connection is served by one */
	if (log_in(b->of, b, mw_imap_open_bare, &b->second, &ignored))
		b->second = NULL;
	atomic_store(&b->second_here, true);
	return NULL;
}

void
mw_imap_second_start(struct mw_target *t)
{
	struct mw_imap_box *b = mw_imap_box(t);
	if (b->second_tried || !mw_imap_two(b->c, t->coming, t->coming_bytes))
		return;
	b->second_tried = b->second_coming =
	    pthread_create(&b->second_thread, NULL, second_log_in, b) == 0;
}

void
mw_imap_second_take(struct mw_imap_box *b)
{
	if (b->second_coming && atomic_load(&b->second_here))
		second_join(b);
}

void
mw_imap_second_wait(struct mw_imap_box *b)
{
	second_join(b);
}

/* No folder at all: Cyrus lets a proxy user act for somebody who has no mailbox. */
static int
need_inbox(struct mw_imap_box *b, struct mw_err *err)
{
	struct mw_imap *c = b->c;
	int r = mw_imap_do(c, err, "EXAMINE INBOX");
	if (r != MW_EREFUSED)
		return r;
	mw_fail(err, MW_ENOUSER, "%s has no mailbox %s: server said: %s",
	        mw_net_peer(c->net), b->mailbox, c->last.text);
	return mw_err_hint(err, "make it there, then run the replay again");
}

int
mw_imap_may_go_to(const struct mw_target *t, const struct mw_imap_box *b,
                  struct mw_err *err)
{
	if (b->barred.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (b->dest && mw_imap_barred(b, b->dest))
		return mw_fail(
		    err, MW_EUSAGE,
		    "nothing can be put into \"%.100s\" of %s: it shows mail of "
		    "other folders, or is not the user's own",
		    t->o.folder, b->mailbox);
	if (mw_imap_barred(b, b->sent))
		return mw_fail(err, MW_ECONF,
		               "%s of %s shows mail of other folders: sent_folder names "
		               "the one for Sent copies",
		               b->sent, b->mailbox);
	return 0;
}

/* The names that begin with the namespace's prefix. */
static int
own_names(const struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	if (!(b->staging = own_name(b->c, MW_STAGING_NAME)))
		return mw_fail(err, MW_EPROTO,
		               "the server's namespace prefix is unusable");
	if (t->o.folder && !(b->dest = mw_imap_dest_name(b->c, t->o.folder)))
		return mw_fail(err, MW_EUSAGE,
		               "the server cannot have a folder \"%.100s\"", t->o.folder);
	return 0;
}

/* Login, namespace and folders. Most servers have no prefix: while the answer to that is
 * on its way the folders are asked for as if there were none. */
static int
greet(struct mw_target *t, struct mw_imap_box *b, struct mw_err *err)
{
	int r = log_in(t, b, mw_imap_open_send, &b->c, err);
	bool ahead = !r && (b->c->caps & MW_CAP_NAMESPACE) && !mw_net_heard(b->c->net);
	if (ahead)
		r = list_send(b, "", err);
	if (!r)
		r = mw_imap_open_wait(b->c, err);
	if (!r)
		r = own_names(t, b, err);
	if (r || (ahead && !b->c->prefix[0]))
		return r ? r : list_take(t, b, err);
	if (ahead)
		r = list_wait(b, "", NULL, err);
	return r && r != MW_EREFUSED ? r : list_folders(t, b, err);
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
	b->dry = dry;
	b->of = t;
	int r = greet(t, b, err);
	/* What another connection found out is not forgotten. */
	if (!r && t->message_limit &&
	    (!b->c->message_limit || t->message_limit < b->c->message_limit))
		b->c->message_limit = t->message_limit;
	if (!r)
		r = mw_imap_may_go_to(t, b, err);
	if (!r && !b->n_folder)
		r = need_inbox(b, err);
	if (!r && b->staging_seen && !dry)
		r = mw_imap_staging_take_over(t, b, err);
	if (!r && !dry)
		r = mw_imap_staging_tidy(b, err);
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
	struct mw_err ignored;
	int r = 0;
	if (!b)
		return 0;
	t->own = NULL;
	if (b->c)
		t->message_limit = b->c->message_limit;
	if (b->locked && b->c && b->marker_due && mw_imap_staging_settle(b, &ignored))
		b->selected = false;
	if (b->locked && b->c && b->c->sent == b->c->answered + b->drop_due &&
	    !b->c->bye[0]) {
		r = mw_imap_staging_drop(t, b, err);
		if (r == MW_EREFUSED && t->o.note) {
			char text[400];
			(void)snprintf(
			    text, sizeof text,
			    "warning: mailbox %.100s keeps its folder " MW_STAGING_NAME
			    ": %.200s",
			    b->mailbox, b->c->last.text);
			t->o.note(t->o.note_arg, text);
		}
	}
	box_free(b);
	return r;
}

/* STATUS tells of the selected folder what the server last knew: NOOP has it look. */
static int
imap_changed(struct mw_target *t, struct mw_err *err)
{
	struct mw_imap_box *b = mw_imap_box(t);
	int r = mw_imap_do(b->c, err, "NOOP");
	r = r ? r : mw_imap_box_relist(t, b, err);
	return r ? r : mw_imap_box_changed(t, err);
}

static void
imap_describe(struct mw_target *t, struct mw_buf *out)
{
	static const struct {
		unsigned cap;
		const char *name;
	} caps[] = {
	    {MW_CAP_MULTIAPPEND, "MULTIAPPEND"},
	    {MW_CAP_LITERAL_PLUS, "LITERAL+"},
	    {MW_CAP_LITERAL_MINUS, "LITERAL-"},
	    {MW_CAP_UIDPLUS, "UIDPLUS"},
	    {MW_CAP_MOVE, "MOVE"},
	    {MW_CAP_SPECIAL_USE, "SPECIAL-USE"},
	    {MW_CAP_CONDSTORE, "CONDSTORE"},
	};
	const struct mw_imap_box *b = mw_imap_box(t);
	for (size_t i = 0; i < MW_COUNT(caps); i++)
		if (b->c->caps & caps[i].cap)
			mw_buf_printf(out, out->n ? " %s" : "%s", caps[i].name);
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
    .brief = true,
    .open = imap_open,
    .scan = mw_imap_box_scan,
    .fetch = mw_imap_box_fetch,
    .changed = imap_changed,
    .begin = mw_imap_staging_begin,
    .raise = mw_imap_box_raise,
    .put = mw_imap_box_put,
    .remove = mw_imap_box_remove,
    .describe = imap_describe,
    .deliver = mw_imap_box_deliver,
    .mark = mw_imap_box_mark,
    .keeps_open = true,
    .close = imap_close,
    .free = imap_free,
};
