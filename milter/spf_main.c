/* spf_main.c - mailwald-spf: answers questions on descriptor 3, in a sandbox. Started by
 * mailwald, one process for each check that may run at a time. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "journal/base/util.h"
#include "milter/spf.h"
#include "milter/spf_sandbox.h"

struct settings {
	const char *host, *zone;
	uid_t uid;
	gid_t gid;
	pid_t parent;
};

static int
usage(void)
{
	(void)fprintf(
	    stderr, "Usage: mailwald-spf [--uid N --gid N] [--parent PID] [--host NAME] "
	            "[--zone FILE]\n"
	            "mailwald starts this; there is nothing here for people.\n");
	return EX_USAGE;
}

static bool
number(const char *text, long *ret)
{
	char *end;
	errno = 0;
	*ret = strtol(text, &end, 10);
	return errno == 0 && end != text && !*end && *ret >= 0;
}

static bool
parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {{"uid", required_argument, NULL, 'u'},
	                                        {"gid", required_argument, NULL, 'g'},
	                                        {"parent", required_argument, NULL, 'p'},
	                                        {"host", required_argument, NULL, 'h'},
	                                        {"zone", required_argument, NULL, 'z'},
	                                        {NULL, 0, NULL, 0}};
	int o;
	long n;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'h')
			s->host = *optarg ? optarg : NULL;
		else if (o == 'z')
			s->zone = optarg;
		else if (o == '?' || !number(optarg, &n))
			return false;
		else if (o == 'u')
			s->uid = (uid_t)n;
		else if (o == 'g')
			s->gid = (gid_t)n;
		else
			s->parent = (pid_t)n;
	}
	return optind == argc && (s->uid == (uid_t)-1) == (s->gid == (gid_t)-1);
}

/* Cuts a packet into its fields; each must end with NUL. */
static bool
fields(const char *p, size_t n, const char *ask[MW_SPF_ASK_N])
{
	size_t at = 0;
	for (int i = 0; i < MW_SPF_ASK_N; i++) {
		const char *end = at < n ? memchr(p + at, 0, n - at) : NULL;
		if (!end)
			return false;
		ask[i] = p + at;
		at = (size_t)(end - p) + 1;
	}
	return at == n;
}

static int
serve(struct mw_spf_server *s)
{
	static char packet[MW_SPF_PACKET_MAX];
	MW_BUF_AUTO out = {.max = MW_SPF_PACKET_MAX};
	const char *ask[MW_SPF_ASK_N];
	for (;;) {
		ssize_t n = recv(MW_SPF_FD, packet, sizeof packet, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? EX_IOERR : 0;
		if (!fields(packet, (size_t)n, ask))
			return EX_DATAERR;
		mw_buf_clear(&out);
		mw_spf_check(s, ask, &out);
		if (mw_buf_ok(&out) < 0)
			return EX_OSERR;
		if (send(MW_SPF_FD, out.p, out.n, MSG_NOSIGNAL) != (ssize_t)out.n)
			return EX_IOERR;
	}
}

int
main(int argc, char **argv)
{
	struct settings set = {.uid = (uid_t)-1, .gid = (gid_t)-1};
	struct mw_err err = {0};
	struct mw_zone *zone = NULL;
	struct mw_spf_server *s = NULL;
	if (!parse(argc, argv, &set))
		return usage();
	int r = set.zone ? mw_zone_load(set.zone, &zone, &err) : 0;
	if (r == 0)
		r = mw_spf_sandbox(set.uid, set.gid, set.parent, &err);
	if (r == 0)
		r = mw_spf_server_new(set.host, zone, &s, &err);
	if (r < 0) {
		(void)fprintf(stderr, "mailwald-spf: %s\n", err.msg);
		return mw_err_exit(r);
	}
	_exit(serve(s)); /* a leak checker could not run in here */
}
