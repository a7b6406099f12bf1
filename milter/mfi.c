#include "milter/mfi.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmilter/mfapi.h>
#include <libmilter/mfdef.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "journal/base/clock.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/proto.h"

enum {
	ARGS_MAX = 64
};

/* libmilter knows no argument for its callbacks: one front end per process. */
static struct mw_capture *the_cap;
static pthread_t the_thread;
static atomic_bool ended;
static atomic_int inside;  /* callbacks running */
static atomic_bool closed; /* at the end: callbacks touch nothing any more */
static int poke_fd = -1;   /* our listening socket, to wake libmilter at stop */

struct link {
	struct mw_session *session;
	unsigned long steps;
	pthread_mutex_t lock; /* guards done */
	pthread_cond_t cond;
	bool done;
};

static struct link *
link_of(SMFICTX *ctx)
{
	return smfi_getpriv(ctx);
}

static struct link *
link_new(void)
{
	struct link *l = calloc(1, sizeof *l);
	pthread_condattr_t attr;
	if (!l || !(l->session = mw_session_new(the_cap))) {
		free(l);
		return NULL;
	}
	(void)pthread_mutex_init(&l->lock, NULL); /* cannot fail with NULL attributes */
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&l->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	return l;
}

/* libmilter decides about the number of parameters. */
static sfsistat
/* NOLINTNEXTLINE(readability-function-size) */
do_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2,
             unsigned long f3, unsigned long *pf0, unsigned long *pf1, unsigned long *pf2,
             unsigned long *pf3)
{
	const unsigned long want = SMFIP_HDR_LEADSPC | SMFIP_RCPT_REJ | SMFIP_NR_HDR |
	                           SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_RCPT |
	                           SMFIP_NR_DATA | SMFIP_NR_UNKN | SMFIP_NR_EOH |
	                           SMFIP_NR_BODY;
	(void)f2;
	(void)f3;
	struct link *l = link_of(ctx);
	if (!l && !(l = link_new()))
		return SMFIS_TEMPFAIL;
	(void)smfi_setpriv(ctx, l); /* fails without a context only */
	l->steps = f1 & want;
	/* As in proto.c: MAIL keeps its reply while the journal is sick. */
	if (l->steps & SMFIP_HDR_LEADSPC && mw_policy_well(the_cap))
		l->steps |= f1 & SMFIP_NR_MAIL;
	mw_session_exact(l->session, l->steps & SMFIP_HDR_LEADSPC);
	if (f0 & SMFIF_SETSYMLIST)
		for (int i = 0; i < (int)MW_COUNT(mw_session_symbols); i++) {
			char list[256];
			(void)snprintf(list, sizeof list, "%s", mw_session_symbols[i]);
			(void)smfi_setsymlist(ctx, i, list); /* else: the MTA's own */
		}
	*pf0 = f0 & SMFIF_SETSYMLIST;
	*pf1 = l->steps;
	*pf2 = *pf3 = 0;
	return SMFIS_CONTINUE;
}

/* What a step returns when all is well. */
static sfsistat
go_on(const struct link *l, unsigned long no_reply)
{
	return l->steps & no_reply ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat
step(const struct link *l, int r, unsigned long no_reply)
{
	return r < 0 ? SMFIS_TEMPFAIL : go_on(l, no_reply);
}

/* libmilter gives macros by question only. */
static void
take_macros(SMFICTX *ctx, struct link *l, char stage)
{
	static const char *const name[] = {
	    "i",
	    "j",
	    "v",
	    "{daemon_name}",
	    "{client_addr}",
	    "{client_name}",
	    "{client_port}",
	    "{tls_version}",
	    "{cipher}",
	    "{auth_type}",
	    "{auth_authen}",
	    "{auth_author}",
	    "{rcpt_mailer}",
	};
	mw_session_macros(l->session, stage);
	for (size_t i = 0; i < MW_COUNT(name); i++) {
		char n[32];
		(void)snprintf(n, sizeof n, "%s", name[i]);
		/* {rcpt_mailer} stays set in libmilter; it belongs to RCPT alone */
		const char *v = i + 1 == MW_COUNT(name) && stage != 'R'
		                    ? NULL
		                    : smfi_getsymval(ctx, n);
		if (v)
			mw_session_macro(l->session, stage, mw_strz(name[i]), mw_strz(v));
	}
}

static sfsistat
give(SMFICTX *ctx, const struct mw_answer *a)
{
	char code[4], xcode[8], text[120];
	if (!a->refuse)
		return SMFIS_CONTINUE;
	memcpy(code, a->code, sizeof code);
	memcpy(xcode, a->xcode, sizeof xcode);
	memcpy(text, a->text, sizeof text);
	(void)smfi_setreply(ctx, code, xcode, text); /* else: the MTA's own text */
	return a->code[0] == '5' ? SMFIS_REJECT : SMFIS_TEMPFAIL;
}

static sfsistat
do_connect(SMFICTX *ctx, char *name, _SOCK_ADDR *sa)
{
	struct link *l = link_of(ctx);
	char addr[INET6_ADDRSTRLEN] = "";
	unsigned port = 0;
	char family = 'U';
	if (!l)
		return SMFIS_TEMPFAIL;
	if (sa && sa->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, sa, sizeof in);
		(void)inet_ntop(AF_INET, &in.sin_addr, addr, sizeof addr);
		port = ntohs(in.sin_port);
		family = '4';
	} else if (sa && sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in;
		memcpy(&in, sa, sizeof in);
		(void)inet_ntop(AF_INET6, &in.sin6_addr, addr, sizeof addr);
		port = ntohs(in.sin6_port);
		family = '6';
	} else if (sa && sa->sa_family == AF_UNIX) {
		family = 'L';
	}
	take_macros(ctx, l, 'C');
	mw_session_connect(l->session, mw_strz(name), family, port, mw_strz(addr));
	return go_on(l, SMFIP_NR_CONN);
}

static sfsistat
do_helo(SMFICTX *ctx, char *helo)
{
	struct link *l = link_of(ctx);
	if (!l)
		return SMFIS_TEMPFAIL;
	take_macros(ctx, l, 'H');
	mw_session_helo(l->session, mw_strz(helo));
	return go_on(l, SMFIP_NR_HELO);
}

static size_t
args(char **argv, struct mw_str *v)
{
	size_t n = 0;
	for (; argv && argv[n] && n < ARGS_MAX; n++)
		v[n] = mw_strz(argv[n]);
	return n;
}

static sfsistat
do_mail(SMFICTX *ctx, char **argv)
{
	struct link *l = link_of(ctx);
	struct mw_str v[ARGS_MAX];
	struct mw_answer a;
	if (!l)
		return SMFIS_TEMPFAIL;
	take_macros(ctx, l, 'M');
	bool can_refuse = !(l->steps & SMFIP_NR_MAIL);
	if (mw_session_mail(l->session, v, args(argv, v), can_refuse, &a) < 0)
		return SMFIS_TEMPFAIL;
	return can_refuse ? give(ctx, &a) : SMFIS_NOREPLY;
}

static sfsistat
do_rcpt(SMFICTX *ctx, char **argv)
{
	struct link *l = link_of(ctx);
	struct mw_str v[ARGS_MAX];
	struct mw_answer a;
	if (!l)
		return SMFIS_TEMPFAIL;
	bool can_refuse = !(l->steps & SMFIP_NR_RCPT);
	take_macros(ctx, l, 'R');
	if (mw_session_rcpt(l->session, v, args(argv, v), can_refuse, &a) < 0)
		return SMFIS_TEMPFAIL;
	return can_refuse ? give(ctx, &a) : SMFIS_NOREPLY;
}

static sfsistat
do_data(SMFICTX *ctx)
{
	struct link *l = link_of(ctx);
	return l ? step(l, mw_session_data(l->session), SMFIP_NR_DATA) : SMFIS_TEMPFAIL;
}

static sfsistat
do_header(SMFICTX *ctx, char *name, char *value)
{
	struct link *l = link_of(ctx);
	if (!l)
		return SMFIS_TEMPFAIL;
	return step(l, mw_session_header(l->session, mw_strz(name), mw_strz(value)),
	            SMFIP_NR_HDR);
}

static sfsistat
do_eoh(SMFICTX *ctx)
{
	struct link *l = link_of(ctx);
	return l ? step(l, mw_session_eoh(l->session), SMFIP_NR_EOH) : SMFIS_TEMPFAIL;
}

static sfsistat
do_body(SMFICTX *ctx, unsigned char *p, size_t n)
{
	struct link *l = link_of(ctx);
	return l ? step(l, mw_session_body(l->session, p, n), SMFIP_NR_BODY)
	         : SMFIS_TEMPFAIL;
}

static void
on_done(void *arg)
{
	struct link *l = arg;
	pthread_mutex_lock(&l->lock);
	l->done = true;
	pthread_cond_signal(&l->cond);
	pthread_mutex_unlock(&l->lock);
}

/* Waits for the store; tells the MTA now and then that we are still at it. */
static void
wait_done(SMFICTX *ctx, struct link *l)
{
	struct timespec at;
	pthread_mutex_lock(&l->lock);
	(void)clock_gettime(CLOCK_MONOTONIC, &at);
	for (int left = MW_PROGRESS_S; !l->done;) {
		at.tv_sec++;
		while (!l->done &&
		       pthread_cond_timedwait(&l->cond, &l->lock, &at) != ETIMEDOUT)
			;
		if (l->done)
			break;
		pthread_mutex_unlock(&l->lock);
		bool over = mw_session_overdue(l->session);
		if (!over && --left == 0) {
			(void)smfi_progress(
			    ctx); /* the MTA may be gone; the answer tells */
			left = MW_PROGRESS_S;
		}
		pthread_mutex_lock(&l->lock);
		if (over)
			break;
	}
	l->done = false;
	pthread_mutex_unlock(&l->lock);
}

static sfsistat
do_eom(SMFICTX *ctx)
{
	struct link *l = link_of(ctx);
	struct mw_answer a;
	if (!l)
		return SMFIS_TEMPFAIL;
	take_macros(ctx, l, 'E');
	int r = mw_session_eom(l->session, on_done, l, &a);
	if (r < 0)
		return SMFIS_TEMPFAIL;
	if (r > 0) {
		wait_done(ctx, l);
		mw_session_finish(l->session, &a);
	}
	return give(ctx, &a);
}

static sfsistat
do_abort(SMFICTX *ctx)
{
	struct link *l = link_of(ctx);
	if (l)
		mw_session_abort(l->session);
	return SMFIS_CONTINUE;
}

/* Also the only call after a time-out: what the message still holds is freed here. */
static sfsistat
do_close(SMFICTX *ctx)
{
	struct link *l = link_of(ctx);
	if (!l)
		return SMFIS_CONTINUE; /* it never negotiated: a probe */
	(void)smfi_setpriv(ctx, NULL);
	mw_session_free(l->session);
	pthread_cond_destroy(&l->cond);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return SMFIS_CONTINUE;
}

static sfsistat
do_unknown(SMFICTX *ctx, const char *line)
{
	struct link *l = link_of(ctx);
	if (!l)
		return SMFIS_CONTINUE;
	mw_session_unknown(l->session, mw_strz(line));
	return go_on(l, SMFIP_NR_UNKN);
}

/* libmilter's threads live on after smfi_main(): once the gate is closed, no callback
 * reaches a session or the store behind it. */
static bool
enter(void)
{
	atomic_fetch_add(&inside, 1);
	if (!atomic_load(&closed))
		return true;
	atomic_fetch_sub(&inside, 1);
	return false;
}

#define GATED(name, params, args)                                                        \
	static sfsistat on_##name params                                                 \
	{                                                                                \
		if (!enter())                                                            \
			return SMFIS_TEMPFAIL;                                           \
		sfsistat r = do_##name args;                                             \
		atomic_fetch_sub(&inside, 1);                                            \
		return r;                                                                \
	}

/* NOLINTNEXTLINE(readability-function-size) */
GATED(negotiate,
      (SMFICTX * ctx, unsigned long f0, unsigned long f1, unsigned long f2,
       unsigned long f3, unsigned long *p0, unsigned long *p1, unsigned long *p2,
       unsigned long *p3),
      (ctx, f0, f1, f2, f3, p0, p1, p2, p3))
GATED(connect, (SMFICTX * ctx, char *name, _SOCK_ADDR *sa), (ctx, name, sa))
GATED(helo, (SMFICTX * ctx, char *helo), (ctx, helo))
GATED(mail, (SMFICTX * ctx, char **argv), (ctx, argv))
GATED(rcpt, (SMFICTX * ctx, char **argv), (ctx, argv))
GATED(data, (SMFICTX * ctx), (ctx))
GATED(header, (SMFICTX * ctx, char *name, char *value), (ctx, name, value))
GATED(eoh, (SMFICTX * ctx), (ctx))
GATED(body, (SMFICTX * ctx, unsigned char *p, size_t n), (ctx, p, n))
GATED(eom, (SMFICTX * ctx), (ctx))
GATED(abort, (SMFICTX * ctx), (ctx))
GATED(close, (SMFICTX * ctx), (ctx))
GATED(unknown, (SMFICTX * ctx, const char *line), (ctx, line))

static void *
run(void *arg)
{
	(void)arg;
	if (smfi_main() != MI_SUCCESS)
		mw_log(MW_LOG_ERR, NULL, "event=libmilter_failed");
	atomic_store(&ended, true);
	return NULL;
}

/* libmilter polls and accepts in a circle when no descriptor is left, as fast as the
 * processor can. The dynamic linker gives it this accept in place of the C library's: it
 * waits a little then, and they wait in the listen queue. */
__attribute__((visibility("default"))) int
accept(int fd, __SOCKADDR_ARG addr, socklen_t *restrict len)
{
	enum {
		NAP_US = 100 * 1000,
		WARN_EVERY_US = 60 * 1000 * 1000
	};
	static atomic_int_least64_t warned;
	int conn = -1;
	errno = EMFILE;
	if (!mw_listen_crowded(fd))
		conn = accept4(fd, addr, len, 0);
	if (conn >= 0 ||
	    (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM))
		return conn;
	int saved = errno;
	const struct mw_clock *clock = mw_clock_system();
	int_least64_t now = clock->mono_us(clock), last = atomic_load(&warned);
	if ((!last || now - last >= WARN_EVERY_US) &&
	    atomic_compare_exchange_strong(&warned, &last, now))
		mw_log(MW_LOG_ERR, NULL, "event=accept_paused reason=\"%s\"",
		       strerror(saved));
	(void)usleep(NAP_US);
	errno = saved;
	return conn;
}

int
mw_mfi_start(struct mw_capture *cap, const struct mw_listeners *l, struct mw_err *err)
{
	static char name[] = "mailwald";
	struct smfiDesc desc = {
	    .xxfi_name = name,
	    .xxfi_version = SMFI_VERSION,
	    .xxfi_flags = SMFIF_NONE,
	    .xxfi_connect = on_connect,
	    .xxfi_helo = on_helo,
	    .xxfi_envfrom = on_mail,
	    .xxfi_envrcpt = on_rcpt,
	    .xxfi_header = on_header,
	    .xxfi_eoh = on_eoh,
	    .xxfi_body = on_body,
	    .xxfi_eom = on_eom,
	    .xxfi_abort = on_abort,
	    .xxfi_close = on_close,
	    .xxfi_unknown = on_unknown,
	    .xxfi_data = on_data,
	    .xxfi_negotiate = on_negotiate,
	};
	char conn[32];
	if (l->n != 1)
		return mw_fail(err, MW_ECONF,
		               "libmilter listens in one place only: "
		               "milter_listen names %zu",
		               l->n);
	the_cap = cap;
	poke_fd = l->v[0].fd;
	struct mw_settings *s = mw_capture_settings(cap);
	int idle_s = (int)MW_MIN(s->conf->milter_idle_timeout / 1000000 + 1, 1 << 30);
	mw_settings_unref(s);
	(void)smfi_setmaxdatasize(MW_PACKET_MAX);
	/* "fd:N" is Debian's; it lets mode, group and systemd's sockets be ours. */
	(void)snprintf(conn, sizeof conn, "fd:%d", l->v[0].fd);
	if (smfi_register(desc) != MI_SUCCESS || smfi_settimeout(idle_s) != MI_SUCCESS ||
	    smfi_setconn(conn) != MI_SUCCESS || smfi_opensocket(false) != MI_SUCCESS) {
		(void)mw_fail(err, MW_EUNAVAIL, "libmilter cannot use the socket %s",
		              l->v[0].name);
		return mw_err_hint(err, "use milter_engine = native");
	}
	if (pthread_create(&the_thread, NULL, run, NULL) != 0)
		return mw_fail(err, MW_ENOMEM, "cannot start a thread for libmilter");
	return 0;
}

bool
mw_mfi_ended(void)
{
	return atomic_load(&ended);
}

/* libmilter looks at its stop flag every 5 s or when a connection comes: one comes. */
static void
poke(void)
{
	struct sockaddr_storage sa = {0};
	socklen_t n = sizeof sa;
	if (getsockname(poke_fd, (struct sockaddr *)&sa, &n) < 0)
		return;
	MW_AUTOCLOSE int fd =
	    socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)connect(fd, (const struct sockaddr *)&sa, n); /* best effort */
}

void
mw_mfi_stop(void)
{
	(void)smfi_stop();
	for (int i = 0; i < 12 && !mw_mfi_ended(); i++) {
		poke();
		(void)usleep(500 * 1000);
	}
	/* What is in a callback gets its answer before the process leaves. */
	for (int i = 0; i < 90 && atomic_load(&the_cap->count.at_eom) > 0; i++)
		(void)usleep(100 * 1000);
	(void)usleep(200 * 1000); /* the last reply is written after its callback */
	atomic_store(&closed, true);
	for (int i = 0; i < 20 && atomic_load(&inside) > 0; i++)
		(void)usleep(100 * 1000);
}
