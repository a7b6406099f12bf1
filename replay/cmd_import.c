/* cmd_import.c - mailwal import: mail that exists already comes in as records. */
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "replay/import_put.h"
#include "replay/select.h"
#include "replay/target_args.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct job {
	struct mw_cli *cli;
	struct mw_import_src src;
	struct mw_import_sum sum;
	struct mw_progress progress;
	struct mw_arena *arena;
	bool dry;
	pid_t writer; /* our own, where no daemon runs; 0: none */
	uint64_t named;
};

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("import");
}

static int
mbox_format(struct job *j, const char *v, struct mw_err *err)
{
	static const char *const names[] = {"auto", "rd", "o", "cl", "cl2"};
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (strcasecmp(v, names[i]) == 0) {
			j->src.format = (enum mw_mbox_format)i;
			return 1;
		}
	return mw_fail(err, MW_EUSAGE, "--mbox-format is auto, rd, o, cl or cl2");
}

/* 1 taken, 0 not ours, negative wrong. */
static int
option(struct job *j, int argc, char **argv, int *i, struct mw_err *err)
{
	const struct mw_cli_opt opts[] = {
	    {"--user", &j->src.user, NULL},
	    {"--sent", NULL, &j->src.sent},
	    {"--all-folders", NULL, &j->src.all_folders},
	    {"-n|--dry-run", NULL, &j->dry},
	};
	const char *v, *was = j->src.user;
	int r = mw_cli_options(opts, MW_COUNT(opts), argc, argv, i, err);
	if (r > 0 && j->src.user != was) {
		if (mw_query_address("--user", j->src.user, j->arena, &j->src.user, err) <
		    0)
			return MW_EUSAGE;
		/* Whoever is looked for may be called anything; what comes in stays. */
		if (!strchr(j->src.user, '@') && strpbrk(j->src.user, " \t\"<>,;:"))
			return mw_fail(err, MW_EUSAGE, "--user: '%s' is no address",
			               j->src.user);
		return r;
	}
	if (!r)
		r = mw_target_login_option(&j->src.t, argc, argv, i, err);
	if (r)
		return r;
	r = mw_cli_option(argc, argv, i, "--mbox-format", &v, err);
	return r > 0 ? mbox_format(j, v, err) : r;
}

static int
check_source(const char *text, struct mw_err *err)
{
	static const char *const kinds[] = {"maildir:", "mbox:", "eml:", "imap:",
	                                    "imaps:"};
	for (size_t i = 0; i < MW_COUNT(kinds); i++)
		if (strncasecmp(text, kinds[i], strlen(kinds[i])) == 0)
			return mw_target_check(text, err);
	(void)mw_fail(err, MW_EUSAGE, "'%s' is nothing to import from", text);
	return mw_err_hint(err, "maildir:PATTERN, mbox:PATTERN, eml:PATTERN, imap://HOST "
	                        "or imaps://HOST");
}

static int
parse(struct job *j, int argc, char **argv)
{
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = option(j, argc, argv, &i, &err);
		if (r < 0)
			return mw_cli_error(j->cli, &err);
		if (r > 0)
			continue;
		if (argv[i][0] == '-' || j->src.text)
			return mw_cli_unknown(j->cli, self(), argv[i]);
		j->src.text = argv[i];
	}
	if (!j->src.text)
		return mw_cli_usage(j->cli, self(), "import from where? maildir:DIR, …");
	if (check_source(j->src.text, &err) < 0)
		return mw_cli_error(j->cli, &err);
	return 0;
}

/* ---- the journal's writer ---- */

/* One import at a time: two over the same source would not see each other's records. */
static int
take_lock(const char *dir, int *ret_fd, struct mw_err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/import.lock", dir) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long");
	int r = mw_cli_as_owner(dir, err);
	int fd = r < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (r == 0 && fd < 0)
		r = mw_fail_errno(err, "cannot make %s", path);
	mw_cli_as_self();
	if (r < 0)
		return r;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		(void)close(fd);
		return mw_fail(err, MW_ELOCKED, "another import into %s is at work", dir);
	}
	*ret_fd = fd;
	return 0;
}

static void
say(int fd, const char *text)
{
	(void)!send(fd, text, strlen(text), MSG_NOSIGNAL); /* the parent may be gone */
}

/* The child's whole life: it holds the journal's lock and takes in what the parent sends.
 * An interrupt is for the parent; its end is ours. */
static int
writer(const struct mw_cli *cli, int fd)
{
	const struct mw_conf *conf = cli->conf;
	const struct mw_clock *clock = mw_clock_system();
	struct mw_store_opts o = {.dir = cli->journals[0],
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = conf->segment_size,
	                          .segment_age_us = conf->segment_age,
	                          .min_free = conf->min_free,
	                          .level = (int)conf->compression_level,
	                          .spill_above = conf->memory_per_message,
	                          .delimiter = conf->recipient_delimiter};
	struct mw_intake_opts io = {.max_content = conf->message_limit,
	                            .now_us = clock->now_us(clock)};
	struct mw_intake_done done;
	struct mw_store *st = NULL;
	struct mw_err err = {0};
	MW_BUF_AUTO keys = {0};
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	int r = mw_store_load_recovery(conf->recovery_key.v, conf->recovery_key.n, &keys,
	                               &err);
	o.recovery = keys.p;
	o.n_recovery = keys.n / 32;
	if (r == 0)
		r = mw_cli_as_owner(o.dir, &err);
	if (r == 0)
		r = mw_store_open(&o, &st, &err);
	if (r < 0) {
		char line[800];
		(void)snprintf(line, sizeof line, "error %s %s\n", mw_err_name(r),
		               err.msg);
		say(fd, line);
		return 1;
	}
	say(fd, "ok\n");
	mw_intake_serve(st, fd, &io, &done);
	mw_store_close(st);
	return 0;
}

/* Before the reader has its index open: LMDB does not live through a fork. */
static int
start_writer(struct job *j, int *ret_fd, struct mw_err *err)
{
	int fd[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return mw_fail_errno(err, "cannot make a socket pair");
	(void)fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		(void)close(fd[0]);
		_exit(writer(j->cli, fd[1]));
	}
	(void)close(fd[1]);
	if (pid < 0) {
		(void)close(fd[0]);
		return mw_fail_errno(err, "cannot start a process");
	}
	j->writer = pid;
	int r = mw_control_hello(fd[0], err);
	if (r < 0)
		(void)close(fd[0]);
	else
		*ret_fd = fd[0];
	return r;
}

static int
connect_writer(struct job *j, int *ret_fd, struct mw_err *err)
{
	int r = mw_control_stream(j->cli->journals[0], "import", ret_fd, err);
	if (r != MW_EUNAVAIL)
		return r;
	mw_err_clear(err);
	return start_writer(j, ret_fd, err);
}

/* ---- results ---- */

static void
on_failed(void *arg, const char *name, const char *mailbox, const char *why)
{
	struct job *j = arg;
	mw_progress_clear(&j->progress);
	j->named++;
	if (j->cli->json) {
		json_t *o = json_pack("{s:s, s:o, s:o, s:o}", "message_type", "failed",
		                      "name", mw_json_str(mw_strz(name)), "mailbox",
		                      mw_json_str(mw_strz(mailbox)), "reason",
		                      mw_json_str(mw_strz(why)));
		mw_cli_json(o);
		return;
	}
	MW_BUF_AUTO n = {0}, w = {0};
	mw_text_safe(mw_strz(name), false, &n);
	mw_text_safe(mw_strz(why), false, &w);
	fprintf(stderr, "mailwal: not taken in: %s: %s\n", mw_buf_cstr(&n),
	        mw_buf_cstr(&w));
}

static void
tell(const struct job *j, int64_t took_us)
{
	const struct mw_import_sum *s = &j->sum;
	if (j->cli->json) {
		json_t *o =
		    json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}",
		              "message_type", "summary", "command", "import", "dry_run",
		              j->dry, "selected", (json_int_t)s->selected,
		              "already_there", (json_int_t)s->already_there, "imported",
		              (json_int_t)s->imported, "restored", (json_int_t)0,
		              "failed", (json_int_t)s->failed, "left_out",
		              (json_int_t)s->skipped, "bytes", (json_int_t)s->bytes,
		              "duration_s", (double)took_us / 1e6);
		mw_cli_json(o);
		return;
	}
	if (j->cli->quiet)
		return;
	char size[32], time[32];
	mw_size_human(size, sizeof size, s->bytes);
	mw_duration_human(time, sizeof time, took_us);
	printf("%llu message%s: %llu %s (%s), %llu in the journal already, %llu failed; "
	       "%llu left out; %s\n",
	       (unsigned long long)s->selected, s->selected == 1 ? "" : "s",
	       (unsigned long long)s->imported, j->dry ? "would be imported" : "imported",
	       size, (unsigned long long)s->already_there, (unsigned long long)s->failed,
	       (unsigned long long)s->skipped, time);
}

static int
walk(struct job *j, struct mw_import_put *put, struct mw_err *err)
{
	struct mw_err walked = {0};
	j->src.sink = mw_import_sink_of(put);
	mw_progress_start(&j->progress, 0, j->cli->quiet || j->cli->json);
	int r = mw_import_walk(&j->src, &walked);
	int e = mw_import_put_end(put, &j->sum, err);
	mw_progress_clear(&j->progress);
	if (e < 0)
		return e;
	if (r < 0)
		*err = walked;
	return r;
}

static int
work(struct job *j, struct mw_err *err)
{
	struct mw_seen *seen = NULL;
	struct mw_import_put *put = NULL;
	MW_AUTOCLOSE int lock = -1;
	int fd = -1, r = 0;
	if (!j->dry) {
		r = take_lock(j->cli->journals[0], &lock, err);
		if (r == 0)
			r = connect_writer(j, &fd, err);
	}
	if (r == 0)
		r = mw_seen_new(j->cli->stores[0], j->cli->conf, &seen, err);
	const struct mw_import_put_opts o = {.cli = j->cli,
	                                     .seen = seen,
	                                     .progress = &j->progress,
	                                     .fd = fd,
	                                     .failed = on_failed,
	                                     .arg = j};
	if (r == 0)
		r = mw_import_put_new(&o, &put, err);
	if (r == 0)
		fd = -1; /* its own now */
	if (r == 0)
		r = walk(j, put, err);
	mw_import_put_free(put);
	if (fd >= 0)
		(void)close(fd);
	mw_seen_free(seen);
	while (j->writer > 0 && waitpid(j->writer, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

int
mw_cmd_import(struct mw_cli *cli, int argc, char **argv)
{
	const struct mw_clock *clock = mw_clock_system();
	struct job j = {.cli = cli};
	struct mw_err err = {0};
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	if (!arena)
		return mw_err_exit(MW_ENOMEM);
	j.arena = arena;
	j.src.cli = cli;
	int status = parse(&j, argc, argv);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status)
		return status;
	(void)signal(SIGPIPE, SIG_IGN);
	mw_cli_catch_signals();
	j.src.t.stopped = mw_cli_stopped;
	j.src.t.note = mw_cli_note;
	j.src.t.note_arg = cli;
	int64_t start = clock->mono_us(clock);
	int r = work(&j, &err);
	if (r < 0) {
		status = mw_err_exit(r);
		if (r != MW_ECANCEL)
			(void)mw_cli_error(cli, &err);
	} else if (j.sum.failed) {
		status = 3;
	}
	if (r == 0 || j.sum.selected)
		tell(&j, clock->mono_us(clock) - start);
	if (mw_cli_flush(&err) < 0)
		return mw_cli_error(cli, &err);
	return status;
}
