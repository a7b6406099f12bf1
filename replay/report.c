#include "replay/report.h"

#include "journal/base/buf.h"
#include "journal/base/clock.h"
#include "journal/base/fs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
	LINES_SHOWN = 20 /* for people; --report has all */
};

int
mw_report_init(struct mw_report *r, struct mw_err *err)
{
	const struct mw_clock *c = mw_clock_system();
	*r = (struct mw_report){.start_us = c->now_us(c)};
	r->arena = mw_arena_new(0);
	return r->arena ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
}

void
mw_report_done(struct mw_report *r)
{
	mw_arena_free(r->arena);
	r->arena = NULL;
	r->issue = NULL;
	r->n_issue = 0;
}

int
mw_report_issue(struct mw_report *r, const uint8_t *id, const struct mw_issue *what)
{
	struct mw_issue *v =
	    mw_arena_grow(r->arena, r->issue, &r->cap_issue, r->n_issue + 1, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	r->issue = v;
	struct mw_issue *i = &v[r->n_issue];
	*i = *what;
	i->id[0] = '\0';
	if (id)
		mw_id_text(i->id, id);
	/* A mailbox that fails as a whole repeats its reason: kept once. */
	const struct mw_issue *last = r->n_issue ? &v[r->n_issue - 1] : NULL;
	i->mailbox = last && strcmp(last->mailbox, what->mailbox) == 0
	                 ? last->mailbox
	                 : mw_arena_strdup(r->arena, what->mailbox);
	i->reason = last && strcmp(last->reason, what->reason) == 0
	                ? last->reason
	                : mw_arena_strdup(r->arena, what->reason);
	if (!i->mailbox || !i->reason)
		return MW_ENOMEM;
	r->n_issue++;
	return 0;
}

void
mw_report_unreadable(void *arg, const struct mw_err *err)
{
	struct mw_report *r = arg;
	char text[sizeof err->msg + sizeof err->hint + 4];
	const struct mw_issue what = {.mailbox = "",
	                              .kind = "unreadable",
	                              .reason = text};
	(void)snprintf(text, sizeof text, *err->hint ? "%s (%s)" : "%s", err->msg,
	               err->hint);
	r->no_key = r->no_key || err->code == MW_EKEY;
	if (err->code != MW_EERASED)
		(void)mw_report_issue(arg, NULL, &what);
}

int
mw_report_raised(struct mw_report *r, const struct mw_report_raise *what)
{
	struct mw_report_raise *v =
	    mw_arena_grow(r->arena, r->raise, &r->cap_raise, r->n_raise + 1, sizeof *v);
	if (!v)
		return MW_ENOMEM;
	r->raise = v;
	struct mw_report_raise *i = &v[r->n_raise];
	*i = *what;
	i->mailbox = mw_arena_strdup(r->arena, what->mailbox);
	i->folder = mw_arena_strdup(r->arena, what->folder);
	i->why = what->why ? mw_arena_strdup(r->arena, what->why) : NULL;
	if (!i->mailbox || !i->folder || (what->why && !i->why))
		return MW_ENOMEM;
	r->n_raise++;
	if (what->why)
		r->not_raised++;
	else
		r->raised++;
	return 0;
}

json_t *
mw_report_raise_json(const struct mw_report_raise *a)
{
	const struct {
		const char *name;
		uint64_t v;
	} n[] = {
	    {"uidnext", a->uidnext},
	    {"uidnext_to", a->uidnext_to},
	    {"highestmodseq", a->modseq},
	    {"highestmodseq_to", a->modseq_to},
	};
	json_t *o = json_object();
	(void)json_object_set_new(o, "mailbox", mw_json_str(mw_strz(a->mailbox)));
	(void)json_object_set_new(o, "folder", mw_json_str(mw_strz(a->folder)));
	for (size_t i = 0; i < sizeof n / sizeof n[0]; i++)
		(void)json_object_set_new(o, n[i].name, json_integer((json_int_t)n[i].v));
	if (a->why)
		(void)json_object_set_new(o, "reason", mw_json_str(mw_strz(a->why)));
	return o;
}

uint64_t
mw_report_left(const struct mw_report *r)
{
	return r->selected - r->undone - r->already_there - r->restored - r->failed -
	       r->doubtful - r->skipped - r->removed - r->refused - r->bounced -
	       r->queued;
}

static json_t *
issues(const struct mw_report *r, bool all)
{
	json_t *a = json_array();
	for (size_t k = 0; k < r->n_issue; k++) {
		const struct mw_issue *i = &r->issue[k];
		char when[40];
		bool failure =
		    strcmp(i->kind, "failed") == 0 || strcmp(i->kind, "doubtful") == 0;
		if (!all && !failure)
			continue;
		json_t *o = json_object();
		if (i->id[0])
			(void)json_object_set_new(o, "id", json_string(i->id));
		(void)json_object_set_new(o, "mailbox", mw_json_str(mw_strz(i->mailbox)));
		(void)json_object_set_new(o, "folder",
		                          r->folder
		                              ? mw_json_str(mw_strz(r->folder))
		                              : json_string(i->sent ? "Sent" : "INBOX"));
		(void)json_object_set_new(o, "kind", json_string(i->kind));
		(void)json_object_set_new(o, "reason", mw_json_str(mw_strz(i->reason)));
		if (i->time_us) {
			mw_time_rfc3339(when, sizeof when, i->time_us);
			(void)json_object_set_new(o, "time", json_string(when));
		}
		(void)json_array_append_new(a, o);
	}
	return a;
}

static json_t *
summary(const struct mw_report *r)
{
	json_t *o = json_object();
	const struct {
		const char *name;
		uint64_t v;
	} n[] = {
	    {"selected", r->selected},     {"already_there", r->already_there},
	    {"restored", r->restored},     {"failed", r->failed},
	    {"doubtful", r->doubtful},     {"ambiguous", r->ambiguous},
	    {"skipped", r->skipped},       {"left", mw_report_left(r)},
	    {"removed", r->removed},       {"refused", r->refused},
	    {"bounced", r->bounced},       {"queued", r->queued},
	    {"unreadable", r->unreadable}, {"mailboxes", r->mailboxes},
	    {"bytes", r->bytes},           {"held_back", r->held_back},
	    {"raised", r->raised},         {"not_raised", r->not_raised},
	    {"look_in_use", r->in_use},
	};
	(void)json_object_set_new(o, "message_type", json_string("summary"));
	(void)json_object_set_new(o, "command", json_string(r->command));
	(void)json_object_set_new(o, "target", mw_json_str(mw_strz(r->target)));
	if (r->run_id)
		(void)json_object_set_new(o, "run", json_string(r->run_id));
	if (r->user)
		(void)json_object_set_new(o, "user", mw_json_str(mw_strz(r->user)));
	if (r->folder)
		(void)json_object_set_new(o, "folder", mw_json_str(mw_strz(r->folder)));
	if (r->audit_seq)
		(void)json_object_set_new(o, "audit_seq",
		                          json_integer((json_int_t)r->audit_seq));
	(void)json_object_set_new(o, "dry_run", json_boolean(r->dry));
	(void)json_object_set_new(o, "interrupted", json_boolean(r->interrupted));
	for (size_t i = 0; i < sizeof n / sizeof n[0]; i++)
		(void)json_object_set_new(o, n[i].name, json_integer((json_int_t)n[i].v));
	if (strcmp(r->command, "replay undo") == 0)
		(void)json_object_set_new(o, "undone",
		                          json_integer((json_int_t)r->undone));
	if (r->check) {
		(void)json_object_set_new(o, "compared",
		                          json_integer((json_int_t)r->compared));
		(void)json_object_set_new(o, "identical",
		                          json_integer((json_int_t)r->identical));
	}
	(void)json_object_set_new(o, "duration_s",
	                          json_real((double)r->duration_us / 1e6));
	return o;
}

/* One line each; what shares mailbox and reason is told once. */
static void
say_issues(const struct mw_report *r)
{
	size_t shown = 0;
	for (size_t k = 0, next; k < r->n_issue; k = next) {
		const struct mw_issue *i = &r->issue[k];
		for (next = k + 1; next < r->n_issue; next++) {
			const struct mw_issue *j = &r->issue[next];
			if (strcmp(j->mailbox, i->mailbox) != 0 ||
			    strcmp(j->reason, i->reason) != 0 ||
			    strcmp(j->kind, i->kind) != 0)
				break;
		}
		if (++shown > LINES_SHOWN) {
			fprintf(stderr,
			        "  … and %zu more; --report FILE names them all\n",
			        r->n_issue - k);
			return;
		}
		MW_BUF_AUTO b = {0};
		if (next - k > 1)
			mw_buf_printf(&b, *i->mailbox ? "%zu of " : "%zu: ", next - k);
		else if (i->id[0])
			mw_buf_printf(&b, "%.*s ", MW_ID_SHORT, i->id);
		mw_text_safe(mw_strz(i->mailbox), false, &b);
		mw_buf_puts(&b, *i->mailbox ? ": " : "");
		mw_text_safe(mw_strz(i->reason), false, &b);
		fprintf(stderr, "%s: %s\n", i->kind, mw_buf_cstr(&b));
	}
}

/* Folders whose UIDs did not go up: their users may miss mail. */
static void
say_raises(const struct mw_report *r)
{
	size_t shown = 0;
	for (size_t k = 0; k < r->n_raise; k++) {
		const struct mw_report_raise *a = &r->raise[k];
		MW_BUF_AUTO b = {0};
		if (!a->why || ++shown > LINES_SHOWN)
			continue;
		mw_text_safe(mw_strz(a->mailbox), false, &b);
		mw_buf_puts(&b, ": folder ");
		mw_text_safe(mw_strz(a->folder), false, &b);
		mw_buf_puts(&b, ": ");
		mw_text_safe(mw_strz(a->why), false, &b);
		fprintf(stderr, "UIDs not raised: %s\n", mw_buf_cstr(&b));
	}
	if (shown > LINES_SHOWN)
		fprintf(stderr, "  … and %zu more; --report FILE names them all\n",
		        shown - LINES_SHOWN);
}

/* The tail that every sentence has. */
static void
say_rest(const struct mw_report *r)
{
	const struct {
		uint64_t n;
		const char *what;
	} rest[] = {
	    {r->doubtful, "doubtful"},
	    {r->skipped, "skipped"},
	    {r->removed, "removed by their users"},
	    {r->refused, "refused"},
	    {r->bounced, "bounced"},
	    {r->queued, "in the mail server's queue"},
	    {r->unreadable, "records unreadable"},
	    {r->held_back, "replies and redirects held back"},
	};
	for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
		if (rest[i].n)
			printf(", %llu %s", (unsigned long long)rest[i].n, rest[i].what);
	if (r->raised)
		printf(", UIDs %s in %llu %s", r->dry ? "to be raised" : "raised",
		       (unsigned long long)r->raised,
		       r->raised == 1 ? "folder" : "folders");
	if (r->not_raised)
		printf(", UIDs not raised in %llu %s", (unsigned long long)r->not_raised,
		       r->not_raised == 1 ? "folder" : "folders");
}

static void
say_undo(const struct mw_report *r)
{
	say_issues(r);
	printf("%llu %s put back by that run: %llu taken away%s, %llu left alone, %llu "
	       "failed; %llu unaccounted%s.\n",
	       (unsigned long long)r->selected, r->selected == 1 ? "copy" : "copies",
	       (unsigned long long)r->undone, r->dry ? " (dry run)" : "",
	       (unsigned long long)r->skipped, (unsigned long long)r->failed,
	       (unsigned long long)mw_report_left(r),
	       r->interrupted ? " (interrupted)" : "");
}

static void
say_check(const struct mw_report *r)
{
	char took[32];
	mw_duration_human(took, sizeof took, r->duration_us);
	say_issues(r);
	printf("%llu %s: %llu there and compared, %llu of them byte for byte; %llu "
	       "missing, altered or not to be seen",
	       (unsigned long long)r->selected, r->selected == 1 ? "copy" : "copies",
	       (unsigned long long)r->already_there, (unsigned long long)r->identical,
	       (unsigned long long)r->failed);
	say_rest(r);
	printf("; %llu unaccounted%s. %llu %s, %s.\n",
	       (unsigned long long)mw_report_left(r),
	       r->interrupted ? " (interrupted)" : "", (unsigned long long)r->mailboxes,
	       r->mailboxes == 1 ? "mailbox" : "mailboxes", took);
}

static void
say(const struct mw_report *r)
{
	unsigned long long n = r->selected;
	bool export = strcmp(r->command, "export") == 0;
	bool messages = export || r->user;
	const char *unit = messages ? "message" : "copy",
	           *units = messages ? "messages" : "copies";
	char took[32];
	mw_duration_human(took, sizeof took, r->duration_us);
	say_issues(r);
	say_raises(r);
	printf("%llu %s%s: %llu already there, %llu %s, %llu failed", n,
	       n == 1 ? unit : units, r->dry ? " (dry run)" : "",
	       (unsigned long long)r->already_there, (unsigned long long)r->restored,
	       export ? (r->dry ? "to be written" : "written")
	              : (r->dry ? "to be put back" : "put back"),
	       (unsigned long long)r->failed);
	if (r->ambiguous)
		printf(" (%llu of those put back ambiguous)",
		       (unsigned long long)r->ambiguous);
	say_rest(r);
	printf("; %llu unaccounted%s. %llu %s, %s.\n",
	       (unsigned long long)mw_report_left(r),
	       r->interrupted ? " (interrupted)" : "", (unsigned long long)r->mailboxes,
	       export              ? r->mailboxes == 1 ? "place" : "places"
	       : r->mailboxes == 1 ? "mailbox"
	                           : "mailboxes",
	       took);
	if (r->interrupted && !r->mailboxes)
		printf("Interrupted before the first mailbox: nothing was put back.\n");
	if (r->undoable && r->restored && r->run_id && !r->dry)
		printf("To take it back: mailwal replay undo %s%s\n", r->run_id,
		       r->again ? r->again : "");
}

void
mw_report_print(const struct mw_report *r, bool json)
{
	if (!json) {
		if (r->check)
			say_check(r);
		else if (strcmp(r->command, "replay undo") == 0)
			say_undo(r);
		else if (strcmp(r->command, "replay prepare") == 0)
			say_issues(r);
		else
			say(r);
		return;
	}
	json_t *o = summary(r);
	(void)json_object_set_new(o, "failures", issues(r, false));
	mw_cli_json(o);
}

static int
cannot_write(int r, const char *path, struct mw_err *err)
{
	if (!r)
		return 0;
	errno = -r;
	if (r == -ENOENT || r == -ENOTDIR || r == -EISDIR)
		return mw_fail(err, MW_ECREATE, "cannot write the report %s: %s", path,
		               r == -EISDIR ? "that is a directory"
		                            : "no such directory");
	return mw_fail_errno(err, "cannot write the report %s", path);
}

/* The path without "." and doubled slashes, from the root. False: not to be told. */
static bool
plain_path(const char *path, size_t n, struct mw_buf *ret)
{
	char cwd[PATH_MAX];
	if (n > 0 && path[0] != '/') {
		if (!getcwd(cwd, sizeof cwd))
			return false;
		mw_buf_puts(ret, strcmp(cwd, "/") == 0 ? "" : cwd);
	}
	for (size_t i = 0, k; i < n; i += k + 1) {
		const char *end = memchr(path + i, '/', n - i);
		k = end ? (size_t)(end - path) - i : n - i;
		if (k == 2 && memcmp(path + i, "..", 2) == 0)
			return false;
		if (k > 0 && !(k == 1 && path[i] == '.'))
			mw_buf_printf(ret, "/%.*s", (int)k, path + i);
	}
	return mw_buf_ok(ret) == 0;
}

static bool
at_or_below(const struct mw_buf *a, const struct mw_buf *b)
{
	return b->n == 0 || (a->n >= b->n && memcmp(a->p, b->p, b->n) == 0 &&
	                     (a->n == b->n || a->p[b->n] == '/'));
}

/* Will the run itself make the directory of its report? It makes those on the way to its
 * boxes, as far as they have a name before the first box has, and some below. */
static bool
is_made(const char *path, const char *to)
{
	MW_BUF_AUTO dir = {0}, made = {0};
	bool mbox = strncasecmp(to, "mbox:", 5) == 0;
	if (!mbox && strncasecmp(to, "eml:", 4) != 0 &&
	    strncasecmp(to, "maildir:", 8) != 0)
		return false;
	const char *box = strchr(to, ':') + 1, *slash = strrchr(path, '/');
	size_t n = strcspn(box, "%");
	bool whole = !box[n];
	while (whole && n > 1 && box[n - 1] == '/')
		n--;
	while ((!whole || mbox) && n > 0 && box[n - 1] != '/')
		n--;
	if (!slash || !plain_path(path, (size_t)(slash - path), &dir) ||
	    !plain_path(n ? box : ".", n ? n : 1, &made))
		return false;
	return at_or_below(&made, &dir) || (!(mbox && whole) && at_or_below(&dir, &made));
}

int
mw_report_check(const char *path, const char *to, struct mw_err *err)
{
	int r = path ? mw_fs_may_write_named(path) : 0;
	return r == -ENOENT && to && is_made(path, to) ? 0 : cannot_write(r, path, err);
}

int
mw_report_write(const struct mw_report *r, const char *path, struct mw_err *err)
{
	char when[40];
	json_t *o = summary(r);
	mw_time_rfc3339(when, sizeof when, r->start_us);
	(void)json_object_set_new(o, "message_type", json_string("report"));
	(void)json_object_set_new(o, "started", json_string(when));
	(void)json_object_set_new(o, "copies", issues(r, true));
	json_t *raises = json_array();
	for (size_t i = 0; i < r->n_raise; i++)
		(void)json_array_append_new(raises, mw_report_raise_json(&r->raise[i]));
	(void)json_object_set_new(o, "uids", raises);
	MW_BUF_AUTO text = {0};
	size_t lines = strcmp(path, "-") == 0 ? 0 : JSON_INDENT(1); /* there, one line */
	char *dump = json_dumps(o, lines | JSON_SORT_KEYS);
	json_decref(o);
	if (dump)
		mw_buf_printf(&text, "%s\n", dump);
	free(dump);
	if (!text.n || mw_buf_ok(&text) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return cannot_write(mw_fs_write_named(path, text.p, text.n), path, err);
}
