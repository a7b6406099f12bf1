/* main.c - mailwald: reads the configuration, owns the journal, runs a front end. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#include "journal/base/fs.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "milter/control.h"
#include "milter/engine.h"
#include "milter/expand.h"
#include "milter/handover.h"
#include "milter/identity.h"
#include "milter/metrics.h"
#include "milter/mfi.h"
#include "milter/process.h"
#include "milter/proxy.h"
#include "milter/publish.h"
#include "milter/verdict.h"

struct daemon {
	const char *file; /* configuration, NULL: defaults */
	struct mw_store *store;
	struct mw_capture cap;
	bool has_cap;
	struct mw_listeners listeners;
	struct mw_engine *engine;
	struct mw_control *control;
	struct mw_proxy *proxy;
	struct mw_publish *publish;
	struct mw_metrics *metrics;
	bool libmilter;
	bool take_over; /* -u */
	/* All is started, and nothing of it is being ended. Who reads it to use what is
	 * listened on holds the lock until he has done so. */
	pthread_mutex_t lock;
	bool serving;
};

/* What ends the daemon: the first of them, and nothing after it changes that. */
enum {
	STOP_NOT,
	STOP_TOLD,
	STOP_HANDED /* another mailwald has our sockets */
};

/* Written by handlers, and by the thread that hands over. */
static atomic_int got_stop, got_hup;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler must not wait for a lock");
static int signal_fd = -1;

/* Is this what ends it? */
static bool
set_stop(int why)
{
	int none = STOP_NOT;
	return atomic_compare_exchange_strong(&got_stop, &none, why);
}

static void
on_signal(int sig)
{
	int saved = errno;
	uint64_t one = 1;
	if (sig == SIGHUP)
		atomic_store(&got_hup, 1);
	else
		(void)set_stop(STOP_TOLD);
	(void)!write(signal_fd, &one, sizeof one); /* full only if already awake */
	errno = saved;
}

/* Signals are taken by this thread alone, and as handlers: libmilter keeps a thread in
 * sigwait() for SIGHUP too, and would stop. The kernel prefers the first thread of a
 * process as long as it does not block the signal. */
static int
signals_init(sigset_t *ret_ours, struct mw_err *err)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigemptyset(ret_ours);
	sigaddset(ret_ours, SIGTERM);
	sigaddset(ret_ours, SIGINT);
	sigaddset(ret_ours, SIGHUP);
	signal_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (signal_fd < 0)
		return mw_fail_errno(err, "cannot make an eventfd");
	/* Blocked until all other threads exist: they inherit that. */
	(void)pthread_sigmask(SIG_BLOCK, ret_ours, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGHUP, &sa, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	return 0;
}

static bool log_elsewhere; /* the log is not standard error */

static void
log_init(const struct mw_conf *conf)
{
	enum {
		AUTO,
		STDERR,
		SYSLOG
	};
	bool to_stderr = conf->log_target == STDERR ||
	                 (conf->log_target == AUTO &&
	                  (isatty(STDERR_FILENO) || getenv("JOURNAL_STREAM")));
	log_elsewhere = !to_stderr;
	mw_log_open("mailwald", !to_stderr,
	            (enum mw_level)(MW_LOG_ERR + conf->log_level));
}

/* On standard error, and in the log where that is elsewhere. */
static int
die(const struct mw_err *err)
{
	(void)fprintf(stderr, "mailwald: %s\n", err->msg);
	if (err->hint[0])
		(void)fprintf(stderr, "  hint: %s\n", err->hint);
	if (log_elsewhere)
		mw_log(MW_LOG_ERR, NULL, "event=exit error=%s reason=\"%s\"",
		       mw_err_name(err->code), err->msg);
	return mw_err_exit(err->code);
}

static void
on_note(void *arg, int level, const char *text)
{
	(void)arg;
	mw_log((enum mw_level)level, NULL, "%s", text);
}

/* A key that cannot be read must not mean a journal that everybody can read. */
static int
load_recovery(const struct mw_conf *conf, struct mw_buf *ret, struct mw_err *err)
{
	int r =
	    mw_store_load_recovery(conf->recovery_key.v, conf->recovery_key.n, ret, err);
	if (r == 0 || r == MW_ENOMEM)
		return r;
	(void)mw_err_prefix(err, "recovery_key");
	return err->code = MW_ECONF;
}

/* What a load alone does not check. */
static int
check(const struct mw_conf *conf, struct mw_err *err)
{
	int r = mw_listen_check(conf, err);
	if (r == 0)
		r = mw_verdict_check(conf, err);
	if (r == 0)
		r = mw_publish_check(conf, err);
	if (r == 0)
		r = mw_metrics_check(conf, err);
	if (r == 0)
		r = mw_proxy_check(conf, err);
	if (r < 0)
		return r;
	MW_BUF_AUTO keys = {0};
	return load_recovery(conf, &keys, err);
}

/* And the tables, which a running daemon does without for a while. */
static int
check_all(const struct mw_conf *conf, struct mw_err *err)
{
	int r = check(conf, err);
	if (r < 0 || conf->identities.n == 0)
		return r;
	struct mw_identity *id;
	r = mw_identity_open(conf, &id, err);
	if (r < 0)
		return r;
	r = mw_identity_check(id, err);
	mw_identity_close(id);
	if (r < 0) /* whatever it is, here it is a mistake in the configuration */
		err->code = MW_ECONF;
	return r < 0 ? MW_ECONF : 0;
}

static int
open_store(struct daemon *d, const struct mw_conf *conf, struct mw_err *err)
{
	struct mw_store_opts o = {
	    .dir = conf->journal_dir,
	    .mode = MW_STORE_WRITE,
	    .segment_size = conf->segment_size,
	    .segment_age_us = conf->segment_age,
	    .min_free = conf->min_free,
	    .gather_us = conf->commit_gather,
	    .probe_us = 2000000,
	    .level = (int)conf->compression_level,
	    .dictionary = conf->compression_dictionary,
	    .spill_above = conf->memory_per_message,
	    .delimiter = conf->recipient_delimiter,
	    .note = on_note,
	};
	MW_BUF_AUTO keys = {0};
	int r = load_recovery(conf, &keys, err);
	if (r < 0)
		return r;
	o.recovery = keys.p;
	o.n_recovery = keys.n / 32;
	return mw_store_open(&o, &d->store, err);
}

static int
give(struct daemon *d, int fd, struct mw_err *err)
{
	struct mw_listener v[MW_LISTEN_MAX];
	size_t n = d->listeners.n;
	memcpy(v, d->listeners.v, n * sizeof v[0]);
	n += mw_proxy_listeners(d->proxy, v + n, MW_LISTEN_MAX - n);
	return mw_handover_give(fd, v, n, err);
}

/* In the control thread. What is listened on goes to the peer; then we end. */
static int
on_handover(void *arg, int fd, struct mw_err *err)
{
	struct daemon *d = arg;
	uint64_t one = 1;
	pthread_mutex_lock(&d->lock);
	int r = d->serving && atomic_load(&got_stop) == STOP_NOT
	            ? give(d, fd, err)
	            : mw_fail(err, MW_EUNAVAIL, "mailwald is starting, or ending");
	pthread_mutex_unlock(&d->lock);
	if (r == 0)
		r = mw_handover_taken(fd, err);
	if (r < 0)
		return r;
	if (!set_stop(STOP_HANDED)) /* told to, since */
		return mw_fail(err, MW_EUNAVAIL, "mailwald is ending");
	mw_log(MW_LOG_NOTICE, NULL, "event=handing_over");
	(void)!write(signal_fd, &one, sizeof one); /* full only if already awake */
	return 0;
}

/* Opens the journal; with -u, in place of the mailwald that has it, once that has let
 * go of it. */
static int
open_journal(struct daemon *d, const struct mw_conf *conf, struct mw_err *err)
{
	enum {
		TRIES = 3000,
		EVERY_US = 20000
	};
	int r = open_store(d, conf, err);
	if (r != MW_ELOCKED || !d->take_over)
		return r;
	mw_err_clear(err);
	r = check(conf, err); /* before the one at work has given anything away */
	if (r < 0)
		return r;
	r = mw_handover_ask(conf, err);
	if (r < 0)
		return mw_err_prefix(err, "cannot take over");
	mw_log(MW_LOG_NOTICE, NULL, "event=taking_over");
	for (int i = 0; i < TRIES; i++) {
		mw_err_clear(err);
		r = open_store(d, conf, err);
		if (r != MW_ELOCKED)
			break;
		(void)usleep(EVERY_US);
	}
	return r;
}

/* A wrong setting is told like any other; a port that somebody else has keeps no mail
 * from being journaled. */
static int
start_metrics(struct daemon *d, struct mw_err *err)
{
	int r = mw_metrics_start(&d->cap, &d->metrics, err);
	if (r == 0 || (r == MW_ECONF && !d->take_over)) /* the old one has gone */
		return r;
	mw_log(MW_LOG_ERR, NULL,
	       "event=metrics_failed error=%s reason=\"%s\" hint=\"mail is journaled all "
	       "the "
	       "same\"",
	       mw_err_name(r), err->msg);
	mw_err_clear(err);
	return 0;
}

/* The journal's lock comes first: a second instance ends here, with the socket untouched.
 * Takes conf over in any case. */
static int
start(struct daemon *d, struct mw_conf *conf, struct mw_err *err)
{
	d->libmilter = conf->milter_engine == 1;
	int r = open_journal(d, conf, err);
	if (r == 0)
		r = mw_listen_open(conf, &d->listeners, err);
	if (r == 0)
		r = mw_capture_init(&d->cap, d->store, conf, err);
	if (r < 0) {
		mw_conf_free(conf);
		return r;
	}
	d->has_cap = true;
	struct mw_verdict *verdict;
	r = mw_verdict_start(d->store, conf, &verdict, err);
	if (r < 0)
		return r;
	atomic_store(&d->cap.verdict, verdict);
	struct mw_expand *expand;
	r = mw_expand_start(d->store, &expand, err);
	if (r < 0)
		return r;
	atomic_store(&d->cap.expand, expand);
	mw_identity_look(d->cap.settings->identity);
	struct mw_control_hooks hooks = {on_handover, d};
	r = mw_control_start(&d->cap, &hooks, &d->control, err);
	if (r == 0)
		r = mw_publish_start(d->store, d->cap.settings->conf, &d->publish, err);
	if (r == 0)
		r = mw_proxy_start(&d->cap, &d->proxy, err);
	mw_listen_inherit_done();
	if (r == 0)
		r = start_metrics(d, err);
	if (r == 0)
		r = d->libmilter
		        ? mw_mfi_start(&d->cap, &d->listeners, err)
		        : mw_engine_start(&d->cap, &d->listeners, &d->engine, err);
	return r;
}

static void
set_serving(struct daemon *d, bool serving)
{
	pthread_mutex_lock(&d->lock);
	d->serving = serving;
	pthread_mutex_unlock(&d->lock);
}

static void
stop(struct daemon *d, bool started)
{
	(void)set_stop(STOP_TOLD); /* it was told to, or libmilter left */
	bool handed = atomic_load(&got_stop) == STOP_HANDED;
	set_serving(d, false);
	(started ? mw_listen_inherit_done : mw_listen_inherit_undo)();
	if (handed)
		mw_proxy_leave(d->proxy);
	for (size_t i = 0; handed && i < d->listeners.n; i++)
		mw_listen_leave(&d->listeners.v[i]);
	mw_proxy_stop(d->proxy, handed);
	if (d->engine)
		mw_engine_stop(d->engine, handed || mw_listen_survives(&d->listeners));
	else if (d->libmilter && started)
		mw_mfi_stop();
	mw_control_stop(d->control);
	mw_metrics_stop(d->metrics);
	mw_listen_close(&d->listeners);
	if (d->has_cap) {
		mw_verdict_stop(atomic_exchange(&d->cap.verdict, NULL));
		mw_expand_stop(atomic_exchange(&d->cap.expand, NULL));
	}
	mw_publish_stop(d->publish);
	bool idle = d->has_cap && atomic_load(&d->cap.count.open_sessions) == 0;
	if (d->has_cap)
		mw_capture_settle(&d->cap);
	if (d->store)
		mw_store_close(d->store);
	/* libmilter leaves sessions of its own behind; they still look at the settings.
	 */
	if (d->has_cap && (idle || !d->libmilter))
		mw_capture_done(&d->cap);
}

/* A report on a configuration, line by line: it may be long. */
static void
log_report(struct mw_buf *report)
{
	struct mw_str rest = mw_buf_str(report), line, tail;
	for (int i = 0; i < 30 && rest.n; i++) {
		line = rest;
		tail = MW_STR("");
		(void)mw_str_cut(rest, '\n', &line,
		                 &tail); /* the last may lack its end */
		rest = tail;
		line = mw_str_trim(line);
		if (line.n)
			mw_log(MW_LOG_ERR, NULL, "event=reload_error text=\"%.*s\"",
			       (int)MW_MIN(line.n, 500), line.p);
	}
}

/* Takes conf over in any case. */
static int
take_settings(struct daemon *d, struct mw_conf *conf, struct mw_err *err)
{
	struct mw_settings *s = mw_capture_settings(&d->cap);
	int r = mw_conf_reloadable(s->conf, conf, err);
	mw_settings_unref(s);
	if (r == 0)
		r = mw_capture_reload(&d->cap, conf, err);
	if (r < 0) {
		mw_conf_free(conf);
		return r;
	}
	s = mw_capture_settings(&d->cap);
	mw_log_level((enum mw_level)(MW_LOG_ERR + s->conf->log_level));
	mw_store_set_min_free(d->store, s->conf->min_free);
	mw_store_set_gather(d->store, s->conf->commit_gather);
	mw_store_set_delimiter(d->store, s->conf->recipient_delimiter);
	mw_identity_look(s->identity);
	mw_settings_unref(s);
	return 0;
}

static void
reload(struct daemon *d)
{
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	struct mw_conf *conf = NULL;
	(void)sd_notify(0, "RELOADING=1");
	int r = mw_conf_load(d->file, &conf, &report, &err);
	if (r == 0)
		r = take_settings(d, conf, &err);
	atomic_store(&d->cap.reload_refused, r < 0);
	if (r == 0)
		atomic_store(&d->cap.loaded_us, d->cap.clock->now_us(d->cap.clock));
	if (r < 0) {
		log_report(&report);
		mw_log(MW_LOG_ERR, NULL,
		       "event=reload_refused error=%s reason=\"%s\" hint=\"%s\"",
		       mw_err_name(r), err.msg,
		       err.hint[0] ? err.hint : "the settings from before stay in force");
	} else {
		mw_log(MW_LOG_NOTICE, NULL, "event=reloaded");
	}
	(void)sd_notify(0, "READY=1");
}

static void
serve(struct daemon *d)
{
	uint64_t watchdog_us = 0;
	int timeout_ms = -1;
	if (sd_watchdog_enabled(0, &watchdog_us) > 0)
		timeout_ms = (int)MW_MIN(watchdog_us / 2000, 60000);
	if (d->libmilter && (timeout_ms < 0 || timeout_ms > 1000))
		timeout_ms = 1000; /* it may leave by itself */
	while (!atomic_load(&got_stop) && !(d->libmilter && mw_mfi_ended())) {
		struct pollfd p = {.fd = signal_fd, .events = POLLIN};
		uint64_t n;
		if (poll(&p, 1, timeout_ms) > 0)
			(void)!read(signal_fd, &n, sizeof n); /* only to reset it */
		if (watchdog_us)
			(void)sd_notify(0, "WATCHDOG=1");
		if (atomic_exchange(&got_hup, 0))
			reload(d);
	}
}

static int
run(const char *file, struct mw_conf *conf, bool take_over)
{
	/* Threads that libmilter leaves behind may see it. */
	static struct daemon d = {.lock = PTHREAD_MUTEX_INITIALIZER};
	d.file = file;
	d.take_over = take_over;
	struct mw_err err = {0};
	sigset_t ours;
	mw_process_init();
	log_init(conf);
	int r = signals_init(&ours, &err);
	if (r < 0)
		mw_conf_free(conf);
	else
		r = start(&d, conf, &err);
	if (r < 0) {
		stop(&d, false);
		return die(&err);
	}
	for (size_t i = 0; i < d.listeners.n; i++)
		mw_log(MW_LOG_NOTICE, NULL, "event=listening on=%s engine=%s",
		       d.listeners.v[i].name, d.libmilter ? "libmilter" : "native");
	mw_log(MW_LOG_NOTICE, NULL, "event=start version=%s journal=%s", MW_VERSION,
	       mw_store_dir(d.store));
	set_serving(&d, true);
	(void)sd_notify(0, "READY=1");
	(void)pthread_sigmask(SIG_UNBLOCK, &ours, NULL);
	serve(&d);
	(void)sd_notify(0, "STOPPING=1");
	mw_log(MW_LOG_NOTICE, NULL, "event=stopping");
	stop(&d, true);
	mw_log(MW_LOG_NOTICE, NULL, "event=stopped");
	return 0;
}

/* After the last words on standard output: 0, or a status that says that they are lost.
 */
static int
said(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	(void)fprintf(stderr, "mailwald: cannot write to standard output: %s\n",
	              strerror(errno));
	return EX_IOERR;
}

static int
usage(FILE *out, int status)
{
	(void)fprintf(out, "Usage: mailwald [-c FILE] [-t | -u]\n"
	                   "  -c FILE  read this configuration (--config FILE)\n"
	                   "  -t       check the configuration and exit\n"
	                   "  -u       take over from the mailwald that runs\n"
	                   "  -V       print the version and exit (--version)\n"
	                   "  -h       print this and exit (--help)\n");
	return status;
}

int
main(int argc, char **argv)
{
	static const struct option words[] = {{"help", no_argument, NULL, 'h'},
	                                      {"version", no_argument, NULL, 'V'},
	                                      {"config", required_argument, NULL, 'c'},
	                                      {NULL, 0, NULL, 0}};
	const char *file = mw_conf_default_file();
	bool test = false, take_over = false;
	int c;
	mw_fs_keep_standard();
	(void)signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is a full disk */
	while ((c = getopt_long(argc, argv, "c:tuhV", words, NULL)) != -1) {
		switch (c) {
		case 'c':
			file = optarg;
			if (*file == '\0') {
				fprintf(stderr, "mailwald: -c: the name is empty\n");
				return usage(stderr, EX_USAGE);
			}
			break;
		case 't':
			test = true;
			break;
		case 'u':
			take_over = true;
			break;
		case 'V':
			(void)printf("mailwald %s\n", MW_VERSION);
			return said();
		case 'h':
			(void)usage(stdout, 0);
			return said();
		default:
			return usage(stderr, EX_USAGE);
		}
	}
	if (optind != argc) {
		fprintf(stderr, "mailwald: unexpected argument '%s'\n", argv[optind]);
		return usage(stderr, EX_USAGE);
	}
	struct mw_err err = {0};
	MW_BUF_AUTO report = {0};
	struct mw_conf *conf;
	static const struct mw_conf_probe probes[] = {
	    {"recovery_key", mw_store_probe_recovery}};
	const struct mw_conf_load_opts o = {probes, test ? MW_COUNT(probes) : 0, NULL,
	                                    NULL};
	int r = mw_conf_load_checked(file, &o, &conf, &report, &err);
	if (report.n)
		(void)fprintf(stderr, "%s", mw_buf_cstr(&report));
	if (r < 0)
		return report.n ? mw_err_exit(r) : die(&err);
	if (!test)
		return run(file, conf, take_over);
	r = check_all(conf, &err);
	mw_conf_free(conf);
	if (r < 0)
		return die(&err);
	(void)printf("mailwald: the configuration %s is correct\n",
	             file ? file : "(defaults)");
	return said();
}
