/* check.c - what the words of some settings must look like, so that a mistake shows at
 * its line in the file and not hours later in a log. */
#include "conf/conf_int.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>

/* If text begins with prefix: what follows it; else NULL. */
static const char *
after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static int
check_path(const char *text, struct mw_err *err)
{
	if (*text != '/')
		return mw_fail(err, MW_ECONF,
		               "expected an absolute path, one that begins with /, got "
		               "'%s'",
		               text);
	return 0;
}

static int
check_unix(const char *path, struct mw_err *err)
{
	struct sockaddr_un un;
	int r = check_path(path, err);

	if (!r && strlen(path) >= sizeof un.sun_path)
		r = mw_fail(err, MW_ECONF,
		            "the path of a unix socket has at most %zu characters, this "
		            "one %zu",
		            sizeof un.sun_path - 1, strlen(path));
	return r;
}

static int
check_port(const char *p, size_t n, struct mw_err *err)
{
	unsigned long port = 0;
	size_t i;

	for (i = 0; i < n && i < 6 && p[i] >= '0' && p[i] <= '9'; i++)
		port = port * 10 + (unsigned long)(p[i] - '0');
	if (n == 0 || i < n || port < 1 || port > 65535)
		return mw_fail(err, MW_ECONF,
		               "expected a port from 1 to 65535, got '%.*s'",
		               (int)MW_MIN(n, (size_t)40), p);
	return 0;
}

static int
check_host(const char *p, size_t n, struct mw_err *err)
{
	if (n > 2 && p[0] == '[' && p[n - 1] == ']') {
		if (strspn(p + 1, "0123456789abcdefABCDEF:.%") >= n - 2)
			return 0;
		return mw_fail(err, MW_ECONF, "'%.*s' is not an IPv6 address", (int)n, p);
	}
	if (n == 0)
		return mw_fail(err, MW_ECONF, "the host is missing");
	if (memchr(p, ':', n))
		return mw_fail(err, MW_ECONF,
		               "write an IPv6 address in brackets, as in [%.*s]", (int)n,
		               p);
	for (size_t i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		            "0123456789.-_",
		            p[i]))
			return mw_fail(err, MW_ECONF, "'%.*s' is not a host", (int)n, p);
	return 0;
}

/* HOST:PORT; `at_too`: or libmilter's PORT@HOST. */
static int
check_inet(const char *s, bool at_too, struct mw_err *err)
{
	const char *at = strrchr(s, '@'), *colon = strrchr(s, ':');
	int r;

	if (at_too && at) {
		size_t n = strlen(at + 1);
		/* libmilter wants an IPv6 address bare: inet6:PORT@::1 */
		bool bare = n && strspn(at + 1, "0123456789abcdefABCDEF:.%") == n;
		r = check_port(s, (size_t)(at - s), err);
		return r < 0 || bare ? r : check_host(at + 1, n, err);
	}
	if (!colon)
		return mw_fail(err, MW_ECONF, "expected HOST:PORT, got '%s'", s);
	r = check_port(colon + 1, strlen(colon + 1), err);
	return r < 0 ? r : check_host(s, (size_t)(colon - s), err);
}

static int
check_listen(const char *text, struct mw_err *err)
{
	const char *s;

	if ((s = after(text, "unix:")) || (s = after(text, "local:")))
		return check_unix(s, err);
	if ((s = after(text, "inet:")) || (s = after(text, "inet6:")))
		return check_inet(s, true, err);
	if (strcmp(text, "systemd") == 0)
		return 0;
	if (*text == '/')
		return mw_fail(err, MW_ECONF,
		               "'%s' needs a type; did you mean 'unix:%s'?", text, text);
	return mw_fail(err, MW_ECONF,
	               "expected unix:PATH, inet:HOST:PORT or systemd, got '%s'", text);
}

/* unix:PATH or inet:HOST:PORT */
static int
check_place(const char *text, struct mw_err *err)
{
	const char *s;

	if ((s = after(text, "unix:")))
		return check_unix(s, err);
	if ((s = after(text, "inet:")))
		return check_inet(s, false, err);
	return mw_fail(err, MW_ECONF, "expected unix:PATH or inet:HOST:PORT, got '%s'",
	               text);
}

/* smtp:LISTEN->NEXT or lmtp:LISTEN->NEXT */
static int
check_proxy(const char *text, struct mw_err *err)
{
	const char *s = after(text, "smtp:"), *arrow = strstr(text, "->");
	char listen[300];
	int r;

	if (!s)
		s = after(text, "lmtp:");
	if (!s || !arrow || (size_t)(arrow - s) >= sizeof listen)
		return mw_fail(err, MW_ECONF,
		               "expected smtp:LISTEN->NEXT or lmtp:LISTEN->NEXT without "
		               "blanks, as in smtp:inet:127.0.0.1:10025->"
		               "inet:127.0.0.1:10026, got '%s'",
		               text);
	memcpy(listen, s, (size_t)(arrow - s));
	listen[arrow - s] = 0;
	r = check_place(listen, err);
	if (r == 0)
		r = check_place(arrow + 2, err);
	if (r == 0 && strcmp(listen, arrow + 2) == 0)
		return mw_fail(err, MW_ECONF, "'%s' would lead to itself", text);
	return r;
}

/* unix:PATH:NAME or inet:HOST:PORT:NAME */
static int
check_socketmap(const char *s, struct mw_err *err)
{
	const char *name = strrchr(s, ':'), *rest;
	char where[300];

	if (!name || !name[1] || (size_t)(name - s) >= sizeof where)
		goto wrong;
	memcpy(where, s, (size_t)(name - s));
	where[name - s] = '\0';
	if ((rest = after(where, "unix:")))
		return check_unix(rest, err);
	if ((rest = after(where, "inet:")))
		return check_inet(rest, false, err);
wrong:
	return mw_fail(
	    err, MW_ECONF,
	    "expected socketmap:unix:PATH:NAME or socketmap:inet:HOST:PORT:NAME, "
	    "got 'socketmap:%s'",
	    s);
}

static int
check_identity(const char *text, struct mw_err *err)
{
	static const char *const types[] = {"virtual", "lmdb", "socketmap", "tcp"};
	const char *s, *near;
	char type[24];

	if ((s = after(text, "virtual:")) || (s = after(text, "lmdb:")))
		return check_path(s, err);
	if ((s = after(text, "socketmap:")))
		return check_socketmap(s, err);
	if ((s = after(text, "tcp:")))
		return check_inet(s, false, err);
	(void)snprintf(type, sizeof type, "%.*s", (int)MW_MIN(strcspn(text, ":"), 23U),
	               text);
	if (*text == '/' || !strchr(text, ':'))
		return mw_fail(
		    err, MW_ECONF,
		    "expected TYPE:TABLE with a type of virtual, lmdb, socketmap "
		    "or tcp, got '%s'",
		    text);
	near = mw_nearest(type, types, MW_COUNT(types));
	if (near)
		return mw_fail(err, MW_ECONF,
		               "unknown type of table '%s'; did you mean '%s'?", type,
		               near);
	return mw_fail(
	    err, MW_ECONF,
	    "unknown type of table '%s'; there are virtual, lmdb, socketmap and "
	    "tcp (see postmap(1) and 'postconf -m' for a way to one of them)",
	    type);
}

static int
check_mailbox(const char *text, struct mw_err *err)
{
	bool varies = false;

	for (const char *p = text; *p; p++) {
		if (*p != '%')
			continue;
		p++;
		if (!*p || !strchr("und%", *p))
			return mw_fail(
			    err, MW_ECONF,
			    "'%%%.1s' is not known; there are %%u (whole "
			    "address), %%n (local part), %%d (domain) and %%%%",
			    p);
		varies |= *p != '%';
	}
	if (!varies)
		return mw_fail(
		    err, MW_ECONF,
		    "'%s' would give every recipient the same mailbox; use %%u "
		    "or %%n",
		    text);
	return 0;
}

/* An address in place of a name: [192.0.2.1], [IPv6:2001:db8::1] (RFC 5321 4.1.3). */
static int
check_literal(const char *text, struct mw_err *err)
{
	bool six = strncasecmp(text, "[IPv6:", 6) == 0;
	char addr[64];
	unsigned char bin[16];

	(void)snprintf(addr, sizeof addr, "%s", text + (six ? 6 : 1));
	size_t n = strlen(addr);
	if (n && addr[n - 1] == ']')
		addr[n - 1] = '\0';
	else
		n = 0;
	if (n && inet_pton(six ? AF_INET6 : AF_INET, addr, bin) == 1)
		return 0;
	return mw_fail(err, MW_ECONF,
	               "'%s' is not a domain; expected an address in the brackets, as "
	               "in [192.0.2.1] or [IPv6:2001:db8::1]",
	               text);
}

static int
check_domain(const char *text, struct mw_err *err)
{
	size_t n = strlen(text);

	if (*text == '[')
		return check_literal(text, err);
	if (strchr(text, '@'))
		return mw_fail(err, MW_ECONF, "expected a domain, got the address '%s'",
		               text);
	for (const char *p = text; *p; p++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		            "0123456789.-_",
		            *p) &&
		    (unsigned char)*p < 0x80)
			return mw_fail(err, MW_ECONF, "'%s' is not a domain%s", text,
			               *text == '$' ? " (Postfix's $names are not known "
			                              "here)"
			                            : "");
	if (n == 0 || n > 253 || *text == '.' || text[n - 1] == '.' || strstr(text, ".."))
		return mw_fail(err, MW_ECONF, "'%s' is not a domain", text);
	return 0;
}

static int
check_match(const char *text, struct mw_err *err)
{
	const char *s;

	if ((s = after(text, "domain:")))
		return check_domain(s, err);
	if ((s = after(text, "rcpt:")) || (s = after(text, "sender:"))) {
		const char *at = strrchr(s, '@');
		if (*s && (!at || (at > s && at[1])))
			return 0;
		return mw_fail(err, MW_ECONF, "expected an address, got '%s'", s);
	}
	if ((s = after(text, "direction:"))) {
		if (strcmp(s, "in") == 0 || strcmp(s, "out") == 0 ||
		    strcmp(s, "internal") == 0)
			return 0;
		return mw_fail(err, MW_ECONF, "expected in, out or internal, got '%s'",
		               s);
	}
	return mw_fail(
	    err, MW_ECONF,
	    "expected class:NAME, domain:DOMAIN, rcpt:ADDRESS, "
	    "sender:ADDRESS, direction:in|out|internal, header:NAME[:PATTERN], "
	    "spam:yes|no, larger:SIZE or smaller:SIZE, got '%s'",
	    text);
}

static int
check_address(const char *s, bool empty_too, struct mw_err *err)
{
	const char *at = strrchr(s, '@');

	if ((empty_too || *s) && (!at || (at > s && at[1])))
		return 0;
	return mw_fail(err, MW_ECONF, "expected an address, got '%s'", s);
}

static int
check_network(const char *text, struct mw_err *err)
{
	char addr[64];
	unsigned char bin[16];
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	bool six = strchr(text, ':') != NULL;
	char *end = NULL;

	(void)snprintf(addr, sizeof addr, "%.*s", (int)MW_MIN(n, sizeof addr - 1), text);
	unsigned long bits = slash ? strtoul(slash + 1, &end, 10) : 0;
	if (inet_pton(six ? AF_INET6 : AF_INET, addr, bin) == 1 &&
	    (!slash ||
	     (slash[1] >= '0' && slash[1] <= '9' && !*end && bits <= (six ? 128U : 32U))))
		return 0;
	return mw_fail(err, MW_ECONF,
	               "expected an address such as 192.0.2.1, or a network such as "
	               "192.0.2.0/24, got '%s'",
	               text);
}

/* NAME or NAME:PATTERN */
static int
check_header(const char *text, struct mw_err *err)
{
	size_t n = strcspn(text, ":");

	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] == '=' || text[i] == 0x7f)
			n = 0;
	if (n && n < 64)
		return 0;
	return mw_fail(err, MW_ECONF,
	               "expected the name of a header field, as in header:List-Id or "
	               "\"header:List-Id:*announce*\", got '%s'",
	               text);
}

static int
check_capture_match(const char *text, struct mw_err *err)
{
	const char *s;
	uint64_t size;

	if ((s = after(text, "domain:")) || (s = after(text, "sender_domain:")))
		return check_domain(s, err);
	if ((s = after(text, "rcpt:")))
		return check_address(s, false, err);
	if ((s = after(text, "sender:"))) /* empty: that of bounces */
		return check_address(s, true, err);
	if (after(text, "direction:"))
		return check_match(text, err);
	if ((s = after(text, "user:")))
		return *s ? 0 : mw_fail(err, MW_ECONF, "expected a login, or * for any");
	if ((s = after(text, "client:")))
		return check_network(s, err);
	if ((s = after(text, "header:")))
		return check_header(s, err);
	if ((s = after(text, "spam:"))) {
		if (strcmp(s, "yes") == 0 || strcmp(s, "no") == 0)
			return 0;
		return mw_fail(err, MW_ECONF, "expected spam:yes or spam:no, got '%s'",
		               text);
	}
	if ((s = after(text, "larger:")) || (s = after(text, "smaller:"))) {
		if (mw_size_parse(s, &size) == 0)
			return 0;
		return mw_fail(err, MW_ECONF,
		               "expected a size such as 512K or 64M, got '%s'", s);
	}
	return mw_fail(err, MW_ECONF,
	               "expected direction:, domain:, rcpt:, sender:, sender_domain:, "
	               "user:, client:, header:, spam:, larger: or smaller: and a value, "
	               "got '%s'",
	               text);
}

static int
check_retain_match(const char *text, struct mw_err *err)
{
	const char *s = after(text, "class:");

	if (s)
		return *s ? 0
		          : mw_fail(err, MW_ECONF,
		                    "expected the name of a capture section, as in "
		                    "class:NAME");
	if (after(text, "header:") || after(text, "spam:") || after(text, "larger:") ||
	    after(text, "smaller:"))
		return check_capture_match(text, err);
	return check_match(text, err);
}

/* A folder below the mailbox; the target's own separator is put in at replay. */
static int
check_folder(const char *text, struct mw_err *err)
{
	size_t n = strlen(text);

	if (n && (*text == '/' || text[n - 1] == '/' || strstr(text, "//")))
		return mw_fail(err, MW_ECONF,
		               "expected the name of a folder such as Sent, got '%s'",
		               text);
	return 0;
}

static int
check_delimiter(const char *text, struct mw_err *err)
{
	for (const char *p = text; *p; p++)
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
		    (*p >= '0' && *p <= '9') || *p == '@' || *p == ' ' || *p == '\t')
			return mw_fail(err, MW_ECONF,
			               "expected characters such as + or -, got '%s'",
			               text);
	return 0;
}

int
mw_conf_check(const struct mw_conf_opt *o, const char *text, struct mw_err *err)
{
	static const struct {
		const char *name;
		int (*fn)(const char *text, struct mw_err *err);
	} checks[] = {
	    {"milter_listen", check_listen}, {"proxy_listen", check_proxy},
	    {"identities", check_identity},  {"mailbox_name", check_mailbox},
	    {"local_domains", check_domain}, {"recovery_key", check_path},
	    {"sent_folder", check_folder},   {"recipient_delimiter", check_delimiter},
	    {"match", check_retain_match},
	};

	if (o->type == MW_CONF_PATH)
		return check_path(text, err);
	if (o == mw_conf_sections[0].opts) /* capture's match is richer than retain's */
		return check_capture_match(text, err);
	for (size_t i = 0; i < MW_COUNT(checks); i++)
		if (strcmp(checks[i].name, o->name) == 0)
			return checks[i].fn(text, err);
	return 0;
}

bool
mw_conf_secret_exposed(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO));
}
