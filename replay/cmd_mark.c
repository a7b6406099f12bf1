/* cmd_mark.c - mailwal mark: named points in the log, for backups. */
#include "journal/base/util.h"
#include "journal/store/control.h"
#include "replay/select.h"
#include "replay/table.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
	NAME_MAX_LEN = 100,
	LOCK_MS = 20000, /* for another mark, which takes as long as a sync */
	POLL_MS = 20
};

static const char for_whom[] = "marks are for root and the journal's owner";

struct ask {
	const char *name;
	enum mw_mark_phase phase;
	bool restart, list;
};

static int
check_name(const char *name, struct mw_err *err)
{
	size_t n = strlen(name);
	if (n == 0 || n > NAME_MAX_LEN)
		return mw_fail(err, MW_EUSAGE, "a mark's name has 1 to %d characters",
		               NAME_MAX_LEN);
	for (size_t i = 0; i < n;) {
		size_t len = mw_utf8_char(name + i, n - i);
		unsigned char c = (unsigned char)name[i];
		bool control = c < 0x21 || c == 0x7f ||
		               (c == 0xc2 && (unsigned char)name[i + 1] <= 0xa0);
		if (len == 0 || control)
			return mw_fail(
			    err, MW_EUSAGE,
			    "a mark's name has no blanks, control characters or "
			    "broken UTF-8");
		i += len;
	}
	return 0;
}

/* 0, or the exit status of a mistake. */
static int
parse(struct mw_cli *cli, int argc, char **argv, struct ask *a)
{
	const struct mw_cmd *cmd = mw_cmd_find("mark");
	struct mw_err err = {0};
	bool complete = false, failed = false, names = false;
	for (int i = 1; i < argc; i++) {
		if (names && !a->name)
			a->name = argv[i];
		else if (!names && strcmp(argv[i], "--") == 0)
			names = true;
		else if (names)
			return mw_cli_unknown(cli, cmd, argv[i]);
		else if (mw_cli_option(argc, argv, &i, "--complete", NULL, &err) > 0)
			complete = true;
		else if (mw_cli_option(argc, argv, &i, "--failed", NULL, &err) > 0)
			failed = true;
		else if (mw_cli_option(argc, argv, &i, "--restart", NULL, &err) > 0)
			a->restart = true;
		else if (mw_cli_option(argc, argv, &i, "--list", NULL, &err) > 0)
			a->list = true;
		else if (argv[i][0] == '-' || a->name)
			return mw_cli_unknown(cli, cmd, argv[i]);
		else
			a->name = argv[i];
	}
	if (complete + failed + a->restart > 1 ||
	    (a->list && (complete || failed || a->restart)))
		return mw_cli_usage(
		    cli, cmd,
		    "--complete, --failed, --restart and --list exclude each "
		    "other");
	if (!a->list && !a->name)
		return mw_cli_usage(cli, cmd, "which mark? give its name");
	if (a->name && check_name(a->name, &err) < 0)
		return mw_cli_error(cli, &err);
	a->phase = complete ? MW_MARK_COMPLETE : failed ? MW_MARK_FAILED : MW_MARK_START;
	return 0;
}

static const char *
state_name(enum mw_mark_phase s)
{
	return s == MW_MARK_START ? "running" : mw_mark_phase_name(s);
}

static void
print_json(const struct mw_mark_info *m)
{
	char start[32], end[32];
	json_t *o = json_object();
	mw_time_rfc3339(start, sizeof start, m->start_us);
	mw_time_rfc3339(end, sizeof end, m->end_us);
	(void)json_object_set_new(o, "name", mw_json_str(mw_strz(m->name)));
	(void)json_object_set_new(o, "state", json_string(state_name(m->state)));
	(void)json_object_set_new(o, "start_seq", json_integer((json_int_t)m->start_seq));
	(void)json_object_set_new(o, "start", json_string(start));
	if (m->state != MW_MARK_START)
		(void)json_object_set_new(o, "end", json_string(end));
	mw_cli_json(o);
}

static int
list(const struct mw_cli *cli, const char *name, const struct mw_mark_info *v, size_t n)
{
	static const struct mw_table_col cols[] = {
	    {"NAME", 0.3, 0},
	    {"STATE", 8, 0},
	    {"START", 19, 0},
	    {"END", 19, 0},
	    {"FROM RECORD", 11, MW_TABLE_RIGHT},
	};
	struct mw_table *t = mw_table_new(cols, MW_COUNT(cols), true);
	int r = t ? 0 : MW_ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (name && strcmp(name, v[i].name) != 0)
			continue;
		char start[32], end[32] = "-", seq[24];
		mw_time_local(start, sizeof start, v[i].start_us);
		if (v[i].state != MW_MARK_START)
			mw_time_local(end, sizeof end, v[i].end_us);
		(void)snprintf(seq, sizeof seq, "%llu",
		               (unsigned long long)v[i].start_seq);
		const char *cells[] = {v[i].name, state_name(v[i].state), start, end,
		                       seq};
		if (cli->json)
			print_json(&v[i]);
		else
			r = mw_table_row(t, cells);
	}
	if (r == 0 && t)
		r = mw_table_print(t);
	mw_table_free(t);
	return r;
}

/* The newest start of that name, or NULL. */
static const struct mw_mark_info *
newest(const char *name, const struct mw_mark_info *v, size_t n)
{
	while (n-- > 0)
		if (strcmp(v[n].name, name) == 0)
			return &v[n];
	return NULL;
}

static int
check_phase(const struct ask *a, const struct mw_mark_info *last, struct mw_err *err)
{
	char when[32] = "";
	if (last)
		mw_time_local(when, sizeof when,
		              last->state == MW_MARK_START ? last->start_us
		                                           : last->end_us);
	if (a->phase == MW_MARK_START) {
		if (!last || last->state != MW_MARK_START || a->restart)
			return 0;
		(void)mw_fail(err, MW_EUSAGE,
		              "mark '%s' was started at %s and has not ended", a->name,
		              when);
		return mw_err_hint(err,
		                   "end it with --complete or --failed, or start anew "
		                   "with --restart");
	}
	if (!last) {
		(void)mw_fail(err, MW_ENOTFOUND, "mark '%s' was never started", a->name);
		return mw_err_hint(err,
		                   "'mailwal mark %s' starts it; 'mailwal mark --list' "
		                   "shows all",
		                   a->name);
	}
	if (last->state != MW_MARK_START)
		return mw_fail(err, MW_EUSAGE, "mark '%s' has already ended: %s at %s",
		               a->name, mw_mark_phase_name(last->state), when);
	return 0;
}

static int
note(const struct mw_cli *cli, const char *name, enum mw_mark_phase phase,
     uint64_t start_seq, uint64_t *ret_seq, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	char by[32];
	MW_BUF_AUTO cbor = {0};
	(void)snprintf(by, sizeof by, "uid %u", (unsigned)getuid());
	struct mw_mark m = {.name = mw_strz(name),
	                    .phase = phase,
	                    .time_us = clock->now_us(clock),
	                    .start_seq = start_seq,
	                    .by = mw_strz(by)};
	if (mw_mark_encode(&m, &cbor) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	int r = mw_cli_as_owner(cli->journals[0], err);
	if (r == 0)
		r = mw_control_note(cli->journals[0], MW_TYPE_MARK, m.time_us, cbor.p,
		                    cbor.n, ret_seq, err);
	mw_cli_as_self();
	return r < 0 ? mw_cli_owner_hint(err, for_whom) : 0;
}

/* From the look at what there is until it is written: or two that start a mark at the
 * same moment would both believe that it is theirs, and the end of the first would be
 * taken for that of the second. */
static int
take_lock(const char *dir, int *ret_fd, struct mw_err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/mark.lock", dir) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", dir);
	int r = mw_cli_as_owner(dir, err);
	MW_AUTOCLOSE int fd =
	    r < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (r == 0 && fd < 0)
		r = mw_fail_errno(err, "cannot open %s", path);
	mw_cli_as_self();
	if (r < 0)
		return mw_cli_owner_hint(err, for_whom);
	for (int ms = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; ms += POLL_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return mw_fail_errno(err, "cannot lock %s", path);
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		if (ms >= LOCK_MS)
			return mw_fail(err, MW_ELOCKED, "another mark is at work on %s",
			               dir);
		(void)poll(NULL, 0, POLL_MS);
	}
	*ret_fd = MW_TAKE_FD(fd);
	return 0;
}

static void
tell(const struct mw_cli *cli, const struct ask *a, uint64_t seq, uint64_t start_seq)
{
	if (cli->json) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "message_type", json_string("summary"));
		(void)json_object_set_new(o, "name", mw_json_str(mw_strz(a->name)));
		(void)json_object_set_new(o, "state", json_string(state_name(a->phase)));
		(void)json_object_set_new(o, "seq", json_integer((json_int_t)seq));
		(void)json_object_set_new(o, "start_seq",
		                          json_integer((json_int_t)start_seq));
		mw_cli_json(o);
	} else if (!cli->quiet) {
		printf("mark '%s' %s at record %llu\n", a->name,
		       a->phase == MW_MARK_START ? "started"
		                                 : mw_mark_phase_name(a->phase),
		       (unsigned long long)seq);
	}
}

int
mw_cmd_mark(struct mw_cli *cli, int argc, char **argv)
{
	MW_ARENA_AUTO *arena = mw_arena_new(64U << 20);
	struct ask a = {.phase = MW_MARK_START};
	struct mw_err err = {0};
	struct mw_mark_info *v = NULL;
	size_t n = 0;
	uint64_t seq = 0;
	int status = parse(cli, argc, argv, &a);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	if (!arena)
		return mw_cli_error(cli,
		                    (mw_fail(&err, MW_ENOMEM, "out of memory"), &err));
	MW_AUTOCLOSE int lock = -1;
	int r = a.list ? 0 : take_lock(cli->journals[0], &lock, &err);
	if (r == 0)
		r = mw_marks(cli->stores[0], arena, &v, &n, &err);
	if (r == 0 && a.list)
		r = list(cli, a.name, v, n);
	if (r < 0 || a.list)
		return r < 0 ? mw_cli_error(cli, &err) : 0;
	const struct mw_mark_info *last = newest(a.name, v, n);
	if (check_phase(&a, last, &err) < 0)
		return mw_cli_error(cli, &err);
	/* Without a daemon the note opens the journal for writing: one open at a time. */
	mw_store_close(MW_TAKE(cli->stores[0]));
	if (a.restart && last && last->state == MW_MARK_START)
		r = note(cli, a.name, MW_MARK_FAILED, last->start_seq, &seq, &err);
	if (r == 0)
		r = note(cli, a.name, a.phase,
		         a.phase == MW_MARK_START ? 0 : last->start_seq, &seq, &err);
	if (r < 0)
		return mw_cli_error(cli, &err);
	tell(cli, &a, seq, a.phase == MW_MARK_START ? seq : last->start_seq);
	return 0;
}
