/* cmd_hold.c - mailwal hold: what may be neither pruned nor erased. */
#include "journal/base/util.h"
#include "replay/noted.h"
#include "replay/retain.h"
#include "replay/select.h"
#include "replay/table.h"

#include <stdio.h>
#include <string.h>

enum {
	NAME_MOST = 100
};

static int
check_name(const char *name, struct mw_err *err)
{
	size_t n = strlen(name);
	for (size_t i = 0, len; i < n; i += len) {
		unsigned char c = (unsigned char)name[i];
		len = mw_utf8_char(name + i, n - i);
		if (len == 0 || c < 0x21 || c == 0x7f)
			n = 0;
	}
	if (n == 0 || n > NAME_MOST || name[0] == '-')
		return mw_fail(err, MW_EUSAGE,
		               "a hold's name has 1 to %d characters, no blanks or "
		               "control characters",
		               NAME_MOST);
	return 0;
}

/* ---- list ---- */

static void
put_words(struct mw_buf *b, const char *key, const struct mw_str *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		mw_buf_printf(b, "%s--%s ", b->n ? " " : "", key);
		mw_buf_putstr(b, v[i]);
	}
}

static void
put_time(struct mw_buf *b, const char *key, int64_t us)
{
	char when[32];
	mw_time_local(when, sizeof when, us);
	mw_buf_printf(b, "%s--%s '%s'", b->n ? " " : "", key, when);
}

/* The selection as it would be typed. */
static void
selection(const struct mw_hold *h, struct mw_buf *b)
{
	put_words(b, "user", h->user, h->n_user);
	put_words(b, "domain", h->domain, h->n_domain);
	put_words(b, "sender", h->sender, h->n_sender);
	put_words(b, "message-id", h->message_id, h->n_message_id);
	put_words(b, "queue-id", h->queue_id, h->n_queue_id);
	if (h->since_us != INT64_MIN)
		put_time(b, "since", h->since_us);
	if (h->until_us != INT64_MAX)
		put_time(b, "until", h->until_us);
	if (h->direction >= 0)
		mw_buf_printf(b, "%s--direction %s", b->n ? " " : "",
		              mw_direction_name((enum mw_direction)h->direction));
	if (h->larger)
		mw_buf_printf(b, "%s--larger %llu", b->n ? " " : "",
		              (unsigned long long)h->larger);
	if (h->smaller)
		mw_buf_printf(b, "%s--smaller %llu", b->n ? " " : "",
		              (unsigned long long)h->smaller);
	if (b->n == 0)
		mw_buf_puts(b, "everything");
}

static json_t *
hold_json(const struct mw_hold *h)
{
	char when[32];
	MW_BUF_AUTO b = {0};
	json_t *o = json_object();
	selection(h, &b);
	mw_time_rfc3339(when, sizeof when, h->time_us);
	(void)json_object_set_new(o, "name", mw_json_str(h->name));
	(void)json_object_set_new(o, "time", json_string(when));
	(void)json_object_set_new(o, "by", mw_json_str(h->by));
	(void)json_object_set_new(o, "selection", mw_json_str(mw_buf_str(&b)));
	return o;
}

static int
list(struct mw_cli *cli, const struct mw_holds *holds)
{
	static const struct mw_table_col cols[] = {{"NAME", 0.2, 0},
	                                           {"SINCE", 19, 0},
	                                           {"BY", 8, 0},
	                                           {"HOLDS", 0.4, 0}};
	struct mw_table *t = mw_table_new(cols, MW_COUNT(cols), true);
	const struct mw_hold *h;
	int r = t ? 0 : MW_ENOMEM;
	for (size_t i = 0; r == 0 && (h = mw_holds_get(holds, i)); i++) {
		char when[32];
		MW_BUF_AUTO what = {0};
		MW_BUF_AUTO name = {0};
		MW_BUF_AUTO by = {0};
		if (cli->json) {
			mw_cli_json(hold_json(h));
			continue;
		}
		selection(h, &what);
		mw_buf_putstr(&name, h->name);
		mw_buf_putstr(&by, h->by);
		mw_time_local(when, sizeof when, h->time_us);
		const char *cells[] = {mw_buf_cstr(&name), when, mw_buf_cstr(&by),
		                       mw_buf_cstr(&what)};
		r = mw_table_row(t, cells);
	}
	if (r == 0 && !cli->json)
		r = mw_table_print(t);
	mw_table_free(t);
	return r;
}

/* Tells of what cannot be read: 1 there is such. */
static int
tell_lost(struct mw_cli *cli, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO text = {0};
	struct mw_lost lost;
	int r = a ? mw_holds_lost(cli->stores[0], a, mw_cli_stopped, &lost, err)
	          : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r < 0 || lost.n == 0)
		return r;
	mw_lost_text(&lost, &text);
	if (cli->json) {
		json_t *o = json_object();
		(void)json_object_set_new(o, "message_type", json_string("holds_lost"));
		(void)json_object_set_new(o, "sequence", mw_lost_json(&lost));
		mw_cli_json(o);
	}
	fprintf(
	    stderr,
	    "mailwal: %llu records cannot be read (sequence %s): each may be a hold, or "
	    "the release of one, that is not in this list\n"
	    "  hint: prune and erase remove nothing meanwhile; add again what is "
	    "missing, then 'mailwal prune --despite-damage'\n",
	    (unsigned long long)mw_lost_count(&lost), mw_buf_cstr(&text));
	return 1;
}

/* ---- add and rm ---- */

struct ask {
	const char *verb, *name;
	struct mw_query q;
	struct mw_arena *arena;
};

static int
words(const struct ask *a, const char **v, size_t n, struct mw_str **ret, size_t *ret_n)
{
	*ret = mw_arena_alloc(a->arena, (n + 1) * sizeof **ret);
	*ret_n = n;
	for (size_t i = 0; *ret && i < n; i++)
		(*ret)[i] = mw_strz(v[i] + (v[i][0] == '@'));
	return *ret ? 0 : MW_ENOMEM;
}

/* A hold must be decided without a key, by what stands beside the records. */
static int
check_terms(const struct mw_query *q, struct mw_err *err)
{
	if (q->n_subject || q->n_from || q->n_body || q->n_attachment)
		return mw_fail(
		    err, MW_EUSAGE,
		    "a hold cannot go by --subject, --from, --attachment or --body: "
		    "messages may be encrypted");
	if (q->since_mark)
		return mw_fail(err, MW_EUSAGE,
		               "a hold cannot go by --since-mark; give "
		               "--since with the time of the mark");
	for (size_t i = 0; i < q->n_user; i++)
		if (q->user[i][0] == '@')
			return mw_fail(err, MW_EUSAGE,
			               "'%s' is no address; --domain holds a domain",
			               q->user[i]);
	for (size_t i = 0; i < q->n_user; i++)
		if (!strchr(q->user[i], '@'))
			return mw_fail(
			    err, MW_EUSAGE,
			    "a hold needs the whole address of a user, not '%s'",
			    q->user[i]);
	for (size_t i = 0; i < q->n_sender; i++)
		if (strcmp(q->sender[i], "<>") == 0)
			return mw_fail(err, MW_EUSAGE,
			               "a hold cannot go by the empty sender");
	if (q->directions != MW_DIRECTIONS && q->directions & (q->directions - 1))
		return mw_fail(err, MW_EUSAGE,
		               "a hold takes one --direction: make two holds");
	return 0;
}

/* The one of this set, or -1: any of them. */
static int
one_direction(unsigned set)
{
	return set && !(set & (set - 1)) ? __builtin_ctz(set) : -1;
}

static int
fill(const struct ask *a, struct mw_hold *h, struct mw_err *err)
{
	const struct mw_query *q = &a->q;
	h->since_us = q->since_us;
	h->until_us = q->until_us;
	h->direction = one_direction(q->directions);
	h->larger = q->larger;
	h->smaller = q->smaller;
	if (words(a, q->user, q->n_user, &h->user, &h->n_user) < 0 ||
	    words(a, q->domain, q->n_domain, &h->domain, &h->n_domain) < 0 ||
	    words(a, q->sender, q->n_sender, &h->sender, &h->n_sender) < 0 ||
	    words(a, q->message_id, q->n_message_id, &h->message_id, &h->n_message_id) <
	        0 ||
	    words(a, q->queue_id, q->n_queue_id, &h->queue_id, &h->n_queue_id) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return 0;
}

static const struct mw_hold *
find(const struct mw_holds *holds, const char *name)
{
	const struct mw_hold *h;
	for (size_t i = 0; (h = mw_holds_get(holds, i)); i++)
		if (mw_str_eq(h->name, mw_strz(name)))
			return h;
	return NULL;
}

/* For the metrics. */
static void
note(const struct mw_cli *cli, size_t n)
{
	MW_BUF_AUTO lines = {0};
	mw_buf_printf(&lines, "holds %zu\n", n);
	mw_noted(cli->journals[0], "holds", true, &lines);
}

static int
change(struct mw_cli *cli, const struct ask *a, struct mw_hold *h, struct mw_err *err)
{
	struct mw_retain_job j = {.lock = -1};
	struct mw_holds *holds = NULL;
	int r = mw_retain_begin(cli, true, &j, err);
	if (r == 0)
		r = mw_holds_load(cli->stores[0], &holds, err);
	const struct mw_hold *old = r == 0 ? find(holds, a->name) : NULL;
	if (r == 0 && h->released && !old) {
		r = mw_fail(err, MW_ENOTFOUND, "no hold is named '%s'", a->name);
		r = mw_err_hint(err, "'mailwal hold list' shows them");
	} else if (r == 0 && !h->released && old) {
		r = mw_fail(err, MW_EUSAGE, "there is a hold '%s' already", a->name);
		r = mw_err_hint(err, "give another name: holds add up");
	}
	size_t n = 0;
	while (r == 0 && mw_holds_get(holds, n))
		n++;
	mw_holds_free(holds);
	if (r == 0)
		r = mw_retain_write(cli, &j, err);
	const char *by = mw_arena_strdup(a->arena, j.by); /* the caller tells it, too */
	if (r == 0 && !by)
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	h->by = mw_strz(by ? by : "");
	h->time_us = j.owner.now_us;
	if (r == 0)
		r = mw_hold_write(&j.owner, h, err);
	mw_retain_end(&j);
	if (r == 0)
		note(cli, h->released ? n - 1 : n + 1);
	return r;
}

static int
on_held(void *arg, const struct mw_item *it)
{
	(void)arg;
	(void)it;
	return 1;
}

/* Surely: where something cannot be read, it may be that. */
static bool
holds_nothing(struct mw_cli *cli, struct mw_query *q)
{
	size_t bad = 0;
	mw_query_site(q, cli->conf);
	return q->any_term && mw_select(cli, q, on_held, NULL, NULL, &bad, NULL) == 0 &&
	       bad == 0;
}

static int
add_or_rm(struct mw_cli *cli, struct ask *a)
{
	struct mw_err err = {0};
	bool rm = strcmp(a->verb, "rm") == 0;
	struct mw_hold h = {.name = mw_strz(a->name),
	                    .released = rm,
	                    .since_us = INT64_MIN,
	                    .until_us = INT64_MAX,
	                    .direction = -1};
	int r = check_name(a->name, &err);
	if (r == 0 && !rm)
		r = check_terms(&a->q, &err);
	if (r == 0 && !rm)
		r = fill(a, &h, &err);
	int status = r == 0 ? mw_cli_begin(cli) : mw_cli_error(cli, &err);
	if (status != 0)
		return status;
	bool nothing = !rm && holds_nothing(cli, &a->q);
	if (change(cli, a, &h, &err) < 0)
		return mw_cli_error(cli, &err);
	if (cli->json) {
		json_t *o = hold_json(&h);
		if (rm) /* the note of a release does not say what was held */
			(void)json_object_del(o, "selection");
		(void)json_object_set_new(o, "message_type", json_string("summary"));
		(void)json_object_set_new(o, "state",
		                          json_string(rm ? "released" : "held"));
		mw_cli_json(o);
	} else if (!cli->quiet && rm) {
		printf("hold '%s' released\n", a->name);
	} else if (!cli->quiet) {
		MW_BUF_AUTO b = {0};
		selection(&h, &b);
		printf("hold '%s' holds %s\n", a->name, mw_buf_cstr(&b));
	}
	/* It may be meant for mail to come; more often a word is mistyped. */
	if (nothing)
		fprintf(stderr,
		        "mailwal: warning: no mail that is in the journal now is held by "
		        "this\n"
		        "  hint: if that is a mistake: 'mailwal hold rm %s'; 'mailwal "
		        "list' with the same selection shows what is held\n",
		        a->name);
	return 0;
}

int
mw_cmd_hold(struct mw_cli *cli, int argc, char **argv)
{
	const struct mw_cmd *cmd = mw_cmd_find("hold");
	MW_ARENA_AUTO *arena = mw_arena_new(16U << 20);
	struct mw_err err = {0};
	struct mw_holds *holds = NULL;
	struct ask a = {.arena = arena};
	if (!arena)
		return mw_err_exit(MW_ENOMEM);
	mw_query_init(&a.q, arena);
	for (int i = 1; i < argc; i++) {
		int r = mw_query_option(&a.q, argc, argv, &i, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r > 0)
			continue;
		if (argv[i][0] == '-' || (a.verb && a.name))
			return mw_cli_unknown(cli, cmd, argv[i]);
		if (a.verb)
			a.name = argv[i];
		else
			a.verb = argv[i];
	}
	if (mw_query_check(&a.q, &err) < 0)
		return mw_cli_error(cli, &err);
	bool is_list = a.verb && strcmp(a.verb, "list") == 0;
	bool is_rm = a.verb && strcmp(a.verb, "rm") == 0;
	if (!is_list && !is_rm && !(a.verb && strcmp(a.verb, "add") == 0))
		return mw_cli_usage(cli, cmd, "add, rm or list?");
	if (is_list == (a.name != NULL))
		return mw_cli_usage(cli, cmd,
		                    is_list ? "list takes no name"
		                            : "which hold? give its name");
	if ((is_list || is_rm) && (a.q.any_term || a.q.all))
		return mw_cli_usage(cli, cmd, "a selection belongs to add");
	if (!is_list)
		return add_or_rm(cli, &a);
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	mw_cli_catch_signals();
	int r = mw_holds_load(cli->stores[0], &holds, &err);
	if (r == 0)
		r = list(cli, holds);
	mw_holds_free(holds);
	if (r == 0)
		r = tell_lost(cli, &err);
	if (r < 0 && !err.code)
		(void)mw_fail(&err, r, "%s", mw_err_text(r));
	return r < 0 ? mw_cli_error(cli, &err) : r;
}
