#include "replay/ledger_server.h"

#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/target.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define NOTE "target"

static bool
same_socket(const char *a, const char *b)
{
	MW_AUTOFREE char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
	return strcmp(real_a ? real_a : a, real_b ? real_b : b) == 0;
}

static struct addrinfo *
resolve(const struct mw_url *u)
{
	const struct addrinfo hint = {.ai_socktype = SOCK_STREAM,
	                              .ai_flags = AI_NUMERICSERV};
	struct addrinfo *ai = NULL;
	char port[16];
	(void)snprintf(port, sizeof port, "%u", u->port);
	return getaddrinfo(u->host, port, &hint, &ai) == 0 ? ai : NULL;
}

static bool
same_host(const struct mw_url *a, const struct mw_url *b)
{
	bool same = strcasecmp(a->host, b->host) == 0;
	struct addrinfo *of_a = same ? NULL : resolve(a);
	struct addrinfo *of_b = of_a ? resolve(b) : NULL;
	for (struct addrinfo *x = of_a; x && !same; x = x->ai_next)
		for (struct addrinfo *y = of_b; y && !same; y = y->ai_next)
			same = x->ai_addrlen == y->ai_addrlen &&
			       memcmp(x->ai_addr, y->ai_addr, x->ai_addrlen) == 0;
	if (of_a)
		freeaddrinfo(of_a);
	if (of_b)
		freeaddrinfo(of_b);
	return same;
}

static bool
same_server(const struct mw_url *a, const struct mw_url *b)
{
	if (a->ops != b->ops || a->unix_socket != b->unix_socket || a->port != b->port)
		return false;
	return a->unix_socket ? same_socket(a->host, b->host) : same_host(a, b);
}

/* Whose ledger the one in that directory is. */
static bool
whose(const char *dir, const char *name, char ret[MW_LEDGER_TARGET])
{
	char path[PATH_MAX];
	void *text;
	size_t n;
	if (snprintf(path, sizeof path, "%s/%s/" NOTE, dir, name) >= (int)sizeof path ||
	    mw_fs_read_file(mw_fs_posix(), path, MW_LEDGER_TARGET - 1, &text, &n) < 0)
		return false;
	memcpy(ret, text, n);
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	free(text);
	return mw_target_write_only(ret);
}

void
mw_ledger_server(const char *dir, const char *target, char name[MW_LEDGER_DIR],
                 char other[MW_LEDGER_TARGET])
{
	char path[PATH_MAX];
	struct mw_url mine = {0};
	struct dirent *e;
	bool found = false;
	*other = '\0';
	if (!mw_target_write_only(target) || mw_target_parse(target, &mine, NULL) < 0)
		return;
	int n = snprintf(path, sizeof path, "%s/%s/log", dir, name);
	DIR *d = n < (int)sizeof path && access(path, F_OK) < 0 ? opendir(dir) : NULL;
	while (d && !found && (e = readdir(d))) {
		struct mw_url theirs = {0};
		size_t len = strlen(e->d_name);
		if (*e->d_name == '.' || len >= MW_LEDGER_DIR ||
		    !whose(dir, e->d_name, other))
			continue;
		found = mw_target_parse(other, &theirs, NULL) == 0 &&
		        same_server(&mine, &theirs);
		free(theirs.host);
		if (found)
			memcpy(name, e->d_name, len + 1);
	}
	if (!found)
		*other = '\0';
	if (d)
		(void)closedir(d);
	free(mine.host);
}

int
mw_ledger_server_note(const char *ledger, const char *target, struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	char path[PATH_MAX], line[MW_LEDGER_TARGET + 1];
	int n = snprintf(line, sizeof line, "%s\n", target);
	if (!mw_target_write_only(target) || n >= (int)sizeof line ||
	    snprintf(path, sizeof path, "%s/" NOTE, ledger) >= (int)sizeof path ||
	    access(path, F_OK) == 0)
		return 0;
	int r = mw_fs_write_file(fs, ledger, NOTE, line, (size_t)n);
	errno = r < 0 ? -r : 0;
	return r < 0 ? mw_fail_errno(err, "cannot write %s", path) : 0;
}
