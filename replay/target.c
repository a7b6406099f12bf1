#include "replay/target.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/cmd.h"
#include "replay/target_files.h"
#include "replay/target_imap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SECRETS_MAX = 16 * 1024 * 1024,
	FOLDER_MAX = 200 /* bytes of a --folder; file systems take 255 */
};

const char mw_target_usage[] =
    "TARGET is one of\n"
    "  imap://HOST[:PORT]  imaps://HOST[:PORT]   an IMAP server\n"
    "  lmtp:HOST:PORT  lmtp:unix:PATH            an LMTP server (see "
    "--accept-side-effects)\n"
    "  smtp:HOST:PORT                            an SMTP server (the same)\n"
    "  maildir:PATTERN  mbox:PATTERN  eml:DIR    files; %u mailbox, %n its local part,\n"
    "                                            %d its domain\n";

static int
wrong(struct mw_err *err, const char *text, const char *why)
{
	mw_fail(err, MW_EUSAGE, "target \"%.200s\": %s", text, why);
	return mw_err_hint(err,
	                   "imap://HOST, imaps://HOST, lmtp:HOST:PORT, lmtp:unix:PATH, "
	                   "smtp:HOST:PORT, "
	                   "maildir:PATTERN, mbox:FILE or eml:DIR");
}

/* "HOST", "HOST:PORT", "[::1]:PORT"; port 0 in: compulsory. */
static int
host_port(const char *s, unsigned port, struct mw_url *u)
{
	char *end;
	const char *colon = NULL;
	size_t n;
	if (*s == '[') {
		const char *close = strchr(s, ']');
		if (!close || (close[1] && close[1] != ':'))
			return MW_EUSAGE;
		colon = close[1] ? close + 1 : NULL;
		n = (size_t)(close - s) - 1;
		s++;
	} else {
		colon = strchr(s, ':');
		n = colon ? (size_t)(colon - s) : strlen(s);
	}
	if (colon) {
		unsigned long v = strtoul(colon + 1, &end, 10);
		if (*end || end == colon + 1 || v < 1 || v > 65535)
			return MW_EUSAGE;
		port = (unsigned)v;
	}
	if (!n || !port || memchr(s, '/', n) || memchr(s, '@', n))
		return MW_EUSAGE;
	u->host = strndup(s, n);
	u->port = port;
	return u->host ? 0 : MW_ENOMEM;
}

static int
parse_net(const char *text, struct mw_url *u, struct mw_err *err)
{
	char rest[300];
	bool smtp = strncasecmp(text, "smtp:", 5) == 0;
	bool lmtp = strncasecmp(text, "lmtp:", 5) == 0, mta = smtp || lmtp;
	u->tls = strncasecmp(text, "imaps://", 8) == 0;
	const char *s = text + (mta ? 5 : u->tls ? 8 : 7);
	u->ops = smtp ? &mw_target_smtp : lmtp ? &mw_target_lmtp : &mw_target_imap;
	if (mta && strncmp(s, "//", 2) == 0)
		s += 2;
	if (lmtp && strncasecmp(s, "unix:", 5) == 0) {
		if (s[5] != '/')
			return wrong(err, text, "the socket's path must begin with /");
		u->unix_socket = true;
		u->host = strdup(s + 5);
		return u->host ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	}
	size_t n = strlen(s);
	if (n && s[n - 1] == '/')
		n--;
	if (n >= sizeof rest)
		return wrong(err, text, "host name too long");
	memcpy(rest, s, n);
	rest[n] = '\0';
	if (host_port(rest, mta ? 0 : u->tls ? 993 : 143, u))
		return wrong(err, text,
		             smtp   ? "expected HOST:PORT"
		             : lmtp ? "expected HOST:PORT or unix:PATH"
		                    : "expected HOST or HOST:PORT; the user is given by "
		                      "--auth-user or by the mailbox itself");
	return 0;
}

bool
mw_target_write_only(const char *text)
{
	return strncasecmp(text, "lmtp:", 5) == 0 || strncasecmp(text, "smtp:", 5) == 0;
}

int
mw_target_parse(const char *text, struct mw_url *u, struct mw_err *err)
{
	static const struct mw_target_ops *const files[] = {&mw_target_maildir,
	                                                    &mw_target_mbox,
	                                                    &mw_target_eml};
	if (strncasecmp(text, "imap://", 7) == 0 ||
	    strncasecmp(text, "imaps://", 8) == 0 || mw_target_write_only(text))
		return parse_net(text, u, err);
	for (size_t i = 0; i < MW_COUNT(files); i++) {
		size_t n = strlen(files[i]->scheme);
		if (strncasecmp(text, files[i]->scheme, n) != 0 || text[n] != ':')
			continue;
		if (!text[n + 1])
			return wrong(err, text, "the path is missing");
		if (strcmp(text + n + 1, "-") == 0)
			return wrong(err, text,
			             "standard input and output are no place for mail; a "
			             "file of that name is ./-");
		u->ops = files[i];
		u->host = strdup(text + n + 1);
		if (!u->host)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		size_t k = strlen(u->host);
		while (k > 1 && u->host[k - 1] == '/')
			u->host[--k] = '\0';
		if (mw_files_pattern_check(u->host))
			return wrong(err, text,
			             "unknown %-letter; %u, %n, %d and %% are known");
		return 0;
	}
	return wrong(err, text, "unknown kind of target");
}

int
mw_target_check(const char *text, struct mw_err *err)
{
	struct mw_url u = {0};
	int r = mw_target_parse(text, &u, err);
	free(u.host);
	return r;
}

/* A file that holds secrets: warned about when others may read it. */
static int
read_secret(struct mw_target *t, const char *path, char **ret, struct mw_err *err)
{
	struct stat st;
	void *text = NULL;
	size_t n;
	if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) &&
	    t->o.note) {
		char said[400];
		(void)snprintf(said, sizeof said,
		               "warning: %s can be read by others (mode %03o)", path,
		               (unsigned)(st.st_mode & 0777));
		t->o.note(t->o.note_arg, said);
	}
	int r = mw_fs_read_named(path, SECRETS_MAX, &text, &n);
	if (r == -EISDIR || r == -EFBIG)
		return mw_fail(err, MW_EUSAGE, "%s is no password file", path);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read password file %s", path);
	}
	*ret = text;
	/* It would be cut there: UTF-16, say. Freed with the target. */
	return memchr(text, '\0', n)
	           ? mw_fail(err, MW_EFORMAT, "%s has a byte 0 in it: it is no text",
	                     path)
	           : 0;
}

static int
read_password(struct mw_target *t, struct mw_err *err)
{
	int r = read_secret(t, t->o.password_file, &t->password, err);
	if (r)
		return r;
	t->password[strcspn(t->password, "\r\n")] = '\0';
	return t->password[0] ? 0
	                      : mw_fail(err, MW_EFORMAT,
	                                "%s has no password: its first line is empty",
	                                t->o.password_file);
}

static int
load_secrets(struct mw_target *t, struct mw_err *err)
{
	int r = 0;
	if (t->ops == &mw_target_smtp && t->o.auth_user && !t->o.password_file)
		return mw_fail(err, MW_EUSAGE, "--auth-user needs --password-file");
	if (t->ops == &mw_target_smtp && t->o.auth_user)
		return read_password(t, err);
	if (t->ops != &mw_target_imap)
		return 0;
	if (!t->o.password_file && !t->o.user_passwords) {
		mw_fail(err, MW_EUSAGE, "%s needs a password", t->name);
		return mw_err_hint(err,
		                   "--auth-user NAME --password-file FILE for a master "
		                   "user, --user-passwords FILE for each mailbox's own");
	}
	if (t->o.auth_user && !t->o.password_file)
		return mw_fail(err, MW_EUSAGE, "--auth-user needs --password-file");
	if (t->o.password_file)
		r = read_password(t, err);
	if (!r && t->o.user_passwords)
		r = read_secret(t, t->o.user_passwords, &t->passwords, err);
	return r;
}

/* Told before a server is asked, whom a mistake in it would seem to be about. */
static int
check_certificates(const char *path, struct mw_err *err)
{
	struct stat st;
	void *text = NULL;
	size_t n;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return 0; /* a pipe, say, can be read once */
	int r = mw_fs_read_named(path, SECRETS_MAX, &text, &n);
	if (r == -EISDIR || r == -EFBIG)
		return mw_fail(err, MW_EUSAGE, "--tls-ca: %s is no file of certificates",
		               path);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "--tls-ca: cannot read %s", path);
	}
	bool pem = memmem(text, n, "-----BEGIN ", 11);
	free(text);
	return pem ? 0
	           : mw_fail(err, MW_EFORMAT, "--tls-ca: %s has no certificate (PEM)",
	                     path);
}

/* What happens to mail that a server takes as new (measured; see the manual). */
static int
side_effects(const struct mw_target *t, struct mw_err *err)
{
	bool smtp = t->ops == &mw_target_smtp;
	mw_fail(err, MW_EUSAGE, "%s delivers as if the mail arrived now",
	        smtp ? "SMTP" : "LMTP");
	mw_err_hint(
	    err,
	    "the arrival date is lost, redirect and notify of Sieve scripts%s may fire, "
	    "servers that drop what they saw before say that they took it, and nothing "
	    "can be read back; --accept-side-effects if that is wanted, imap:// if not",
	    smtp ? " and .forward, aliases and filters of the server" : "");
	return MW_EUSAGE;
}

int
mw_target_new(const char *text, const struct mw_target_opts *o, struct mw_target **ret,
              struct mw_err *err)
{
	struct mw_target *t = calloc(1, sizeof *t);
	if (!t)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	t->o = *o;
	int r = mw_target_parse(text, &t->url, err);
	if (!r) {
		t->ops = t->url.ops;
		t->name = strdup(text);
		r = t->name ? load_secrets(t, err)
		            : mw_fail(err, MW_ENOMEM, "out of memory");
	}
	if (!r && o->tls_ca)
		r = check_certificates(o->tls_ca, err);
	if (!r && o->folder && !t->ops->has_folders)
		r = mw_fail(err, MW_EUSAGE,
		            "--folder is for imap://, imaps:// and maildir: targets");
	if (!r && o->folder)
		r = mw_target_folder_check(o->folder, err);
	if (!r && !t->ops->readable && !o->side_effects)
		r = side_effects(t, err);
	if (r) {
		mw_target_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

static void
wipe(char *p)
{
	if (p)
		explicit_bzero(p, strlen(p));
	free(p);
}

void
mw_target_free(struct mw_target *t)
{
	if (!t)
		return;
	if (t->ops)
		t->ops->free(t);
	wipe(t->password);
	wipe(t->passwords);
	free(t->url.host);
	free(t->name);
	free(t);
}

static char *
dup_or_null(const char *s, bool *failed)
{
	char *p = s ? strdup(s) : NULL;
	*failed = *failed || (s && !p);
	return p;
}

int
mw_target_clone(const struct mw_target *t, struct mw_target **ret)
{
	bool failed = false;
	struct mw_target *c = calloc(1, sizeof *c);
	if (!c)
		return MW_ENOMEM;
	c->ops = t->ops;
	c->o = t->o;
	c->url = t->url;
	c->url.host = dup_or_null(t->url.host, &failed);
	c->name = dup_or_null(t->name, &failed);
	c->password = dup_or_null(t->password, &failed);
	c->passwords = dup_or_null(t->passwords, &failed);
	if (failed) {
		mw_target_free(c);
		return MW_ENOMEM;
	}
	*ret = c;
	return 0;
}

const char *
mw_target_name(const struct mw_target *t)
{
	return t->name;
}

bool
mw_target_is_files(const struct mw_target *t)
{
	return t->ops == &mw_target_maildir || t->ops == &mw_target_mbox ||
	       t->ops == &mw_target_eml;
}

bool
mw_target_readable(const struct mw_target *t)
{
	return t->ops->readable;
}

bool
mw_target_brief(const struct mw_target *t)
{
	return t->ops->brief;
}

int
mw_target_folder_check(const char *folder, struct mw_err *err)
{
	size_t n = strlen(folder), len;
	const char *why = NULL;
	if (!n || n > FOLDER_MAX)
		why = "its length";
	else if (folder[0] == '/' || folder[n - 1] == '/' || strstr(folder, "//"))
		why = "an empty level";
	for (size_t i = 0; i < n && !why; i += len) {
		unsigned char c = (unsigned char)folder[i];
		len = mw_utf8_char(folder + i, n - i);
		if (!len)
			why = "it is not UTF-8";
		else if (c < 32 || c == 127 || c == '%' || c == '*' ||
		         (len == 2 && c == 0xc2 && (unsigned char)folder[i + 1] < 0xa0))
			why = "a control character, '%' or '*'";
	}
	if (!why && strcmp(folder, MW_STAGING_NAME) == 0)
		why = "it is where mail waits during a run";
	if (!why)
		return 0;
	(void)mw_fail(err, MW_EUSAGE, "\"%.100s\" cannot be a folder: %s", folder, why);
	return mw_err_hint(err, "a name such as 'Recovered' or 'Archive/2026'");
}

bool
mw_target_has_sent(const struct mw_target *t)
{
	return t->ops->has_sent && !t->o.plain_dir;
}

int
mw_target_box(struct mw_target *t, const char *mailbox, struct mw_arena *a,
              const char **ret, struct mw_err *err)
{
	const char *box;
	if (t->ops == &mw_target_imap || !t->ops->readable)
		box = mw_arena_strdup(a, mailbox);
	else
		return mw_files_box(t, mailbox, a, ret, err);
	if (!box)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	*ret = box;
	return 0;
}

int
mw_target_open(struct mw_target *t, const char *mailbox, const char *box, bool dry,
               struct mw_err *err)
{
	return t->ops->open(t, mailbox, box, dry, err);
}

int
mw_target_scan(struct mw_target *t, int (*cb)(void *, const struct mw_found *), void *arg,
               struct mw_err *err)
{
	return t->ops->scan ? t->ops->scan(t, cb, arg, err) : 0;
}

int
mw_target_fetch(struct mw_target *t, const uint64_t *keys, size_t n,
                int (*cb)(void *, uint64_t, struct mw_profile *), void *arg,
                struct mw_err *err)
{
	return n && t->ops->fetch ? t->ops->fetch(t, keys, n, cb, arg, err) : 0;
}

int
mw_target_changed(struct mw_target *t, struct mw_err *err)
{
	return t->ops->changed ? t->ops->changed(t, err) : 1;
}

int
mw_target_begin(struct mw_target *t, struct mw_err *err)
{
	return t->ops->begin ? t->ops->begin(t, err) : 0;
}

int
mw_target_put(struct mw_target *t, const struct mw_put *v, size_t n,
              const struct mw_put_io *io, struct mw_err *err)
{
	return t->ops->put(t, v, n, io, err);
}

bool
mw_target_raises(const struct mw_target *t)
{
	return t->ops->raise != NULL;
}

int
mw_target_raise(struct mw_target *t, const struct mw_raise_opts *o, struct mw_err *err)
{
	return t->ops->raise ? t->ops->raise(t, o, err) : 0;
}

bool
mw_target_removes(const struct mw_target *t)
{
	return t->ops->remove != NULL;
}

int
mw_target_remove(struct mw_target *t, const struct mw_removing *what, struct mw_err *err)
{
	if (!t->ops->remove)
		return mw_fail(err, MW_EUSAGE, "%s: nothing can be taken away there",
		               t->name);
	return t->ops->remove(t, what, err);
}

int
mw_target_mark(struct mw_target *t, struct mw_target_mark *ret, struct mw_err *err)
{
	return t->ops->mark ? t->ops->mark(t, ret, err) : 0;
}

void
mw_target_describe(struct mw_target *t, struct mw_buf *out)
{
	if (t->ops->describe)
		t->ops->describe(t, out);
}

int
mw_target_close(struct mw_target *t, struct mw_err *err)
{
	return t->ops->close(t, err);
}

/* "mailbox:password" lines; '#' comments. The mailbox's case does not matter. */
int
mw_target_password(const struct mw_target *t, const char *mailbox, const char **ret,
                   char *room, size_t room_n, struct mw_err *err)
{
	size_t len = strlen(mailbox);
	for (const char *p = t->passwords; p && *p;) {
		size_t line = strcspn(p, "\n");
		size_t end = line && p[line - 1] == '\r' ? line - 1 : line;
		if (end > len && p[len] == ':' && strncasecmp(p, mailbox, len) == 0) {
			if (end - len - 1 >= room_n)
				return mw_fail(err, MW_EAUTH, "password of %s too long",
				               mailbox);
			memcpy(room, p + len + 1, end - len - 1);
			room[end - len - 1] = '\0';
			*ret = room;
			return 0;
		}
		p += line + (p[line] == '\n');
	}
	if (!t->password) {
		mw_fail(err, MW_EAUTH, "no password for mailbox %s", mailbox);
		return mw_err_hint(err, "%s has no line for it", t->o.user_passwords);
	}
	*ret = t->password;
	return 0;
}
