/* cmd_show.c - mailwal show. */
#include "journal/base/util.h"
#include "replay/erased.h"
#include "replay/item.h"
#include "replay/outcomes.h"
#include "replay/sender.h"

#include <stdio.h>
#include <string.h>

enum what {
	SUMMARY,
	RAW,
	HEADERS,
	ENVELOPE
};
enum {
	CANDIDATES = 10,
	TEXT_SHOWN = 4096
};

struct found {
	struct mw_item item[CANDIDATES]; /* mail unset: it is decoded again */
	size_t n;
	struct mw_err bad; /* the first that could not be read */
};

static int
on_item(void *arg, const struct mw_item *it)
{
	struct found *f = arg;
	if (f->n == CANDIDATES)
		return 1;
	f->item[f->n] = *it;
	memset(&f->item[f->n].mail, 0, sizeof it->mail);
	f->n++;
	return 0;
}

static void
on_bad(void *arg, const struct mw_err *err)
{
	struct found *f = arg;
	if (!f->bad.code)
		f->bad = *err;
}

static int
several(const char *text, const struct found *f, struct mw_err *err)
{
	MW_BUF_AUTO list = {0};
	for (size_t i = 0; i < f->n; i++) {
		char id[MW_ID_TEXT + 1], date[32];
		mw_id_text(id, f->item[i].rec.id);
		mw_time_local(date, sizeof date, f->item[i].rec.time_us);
		mw_buf_printf(&list, "%s%.*s (%s)", i ? ", " : "", MW_ID_SHORT, id, date);
	}
	(void)mw_fail(err, MW_EUSAGE, "'%s' fits more than one record", text);
	return mw_err_hint(err, "%s%s", mw_buf_cstr(&list),
	                   f->n == CANDIDATES ? ", …" : "");
}

/* Finds the one record that the text names. */
static int
find(struct mw_cli *cli, struct mw_query *q, struct found *f, struct mw_err *err)
{
	int r = mw_select(cli, q, on_item, f, on_bad, NULL, err);
	if (r < 0)
		return r;
	if (f->n > 1)
		return several(q->id[0], f, err);
	if (f->n == 1)
		return 0;
	if (f->bad.code) {
		*err = f->bad;
		return f->bad.code;
	}
	(void)mw_fail(err, MW_ENOTFOUND, "no record has the ID or queue ID '%s'",
	              q->id[0]);
	return mw_err_hint(err,
	                   "an ID may be cut to its first %d characters or more; "
	                   "'mailwal list' shows them",
	                   MW_ID_MIN);
}

/* ---- output of content ---- */

struct out {
	uint64_t left;       /* bytes still wanted */
	struct mw_buf *keep; /* NULL: straight to standard output */
};

static int
sink(void *arg, const void *p, size_t n)
{
	struct out *o = arg;
	if (n > o->left)
		n = (size_t)o->left;
	o->left -= n;
	if (o->keep) {
		mw_buf_put(o->keep, p, n);
		if (mw_buf_ok(o->keep) < 0)
			return MW_ENOMEM;
	} else if (n && fwrite(p, 1, n, stdout) != n) {
		return MW_EIO;
	}
	if (mw_cli_stopped())
		return MW_ECANCEL;
	return 0;
}

/* The first `n` bytes of the content; all of it is read and checked even so. */
static int
content(const struct mw_item *it, uint64_t n, struct mw_buf *keep, struct mw_err *err)
{
	struct out o = {n, keep};
	return mw_record_body(it->store, &it->rec, &it->mail, sink, &o, err);
}

static void
print_text(struct mw_str s)
{
	MW_BUF_AUTO b = {0};
	if (!isatty(STDOUT_FILENO)) {
		(void)fwrite(s.p, 1, s.n, stdout);
		return;
	}
	mw_text_safe(s, true, &b);
	(void)fwrite(b.p, 1, b.n, stdout);
}

static void
line(const char *key, struct mw_str value)
{
	MW_BUF_AUTO b = {0};
	if (value.n == 0)
		return;
	mw_text_safe(value, false, &b);
	printf("%-13s %s\n", key, mw_buf_cstr(&b));
}

static void
print_rcpt(const struct mw_rcpt *r)
{
	MW_BUF_AUTO b = {0};
	mw_buf_putc(&b, '<');
	mw_buf_putstr(&b, r->addr);
	mw_buf_putc(&b, '>');
	if (r->args.n) {
		mw_buf_putc(&b, ' ');
		mw_buf_putstr(&b, r->args);
	}
	if (r->mailer.n) {
		mw_buf_puts(&b, " via ");
		mw_buf_putstr(&b, r->mailer);
	}
	if (r->flags & MW_RCPT_REFUSED)
		mw_buf_puts(&b, " (refused by the mail server)");
	else if (!(r->flags & MW_RCPT_LOCAL))
		mw_buf_puts(&b, " (not local)");
	if (r->flags & MW_RCPT_EXCLUDED)
		mw_buf_puts(&b, " (excluded by a capture section: no copy is put back)");
	if (r->flags & MW_RCPT_LATER)
		mw_buf_puts(&b, " (not expanded: no alias table has answered)");
	else if (r->flags & MW_RCPT_UNDECIDED)
		mw_buf_puts(&b, " (alias table failed at capture)");
	for (size_t k = 0; k < r->n_mailbox; k++) {
		mw_buf_puts(&b, k ? ", " : " -> ");
		mw_buf_putstr(&b, r->mailbox[k]);
	}
	line("recipient", mw_buf_str(&b));
}

static void
print_client(const struct mw_mail *m)
{
	MW_BUF_AUTO b = {0};
	if (m->client_name.n || m->client_addr.n) {
		mw_buf_putstr(&b, m->client_name);
		mw_buf_puts(&b, " [");
		mw_buf_putstr(&b, m->client_addr);
		mw_buf_putc(&b, ']');
		if (m->client_port)
			mw_buf_printf(&b, ":%u", (unsigned)m->client_port);
	}
	line("client", mw_buf_str(&b));
	line("helo", m->helo);
	mw_buf_clear(&b);
	if (m->tls_version.n) {
		mw_buf_putstr(&b, m->tls_version);
		mw_buf_putc(&b, ' ');
		mw_buf_putstr(&b, m->tls_cipher);
	}
	line("tls", mw_buf_str(&b));
	line("login", m->auth_user);
	line("mechanism", m->auth_type);
}

static void
print_envelope(const struct mw_mail *m)
{
	MW_BUF_AUTO b = {0};
	mw_buf_putc(&b, '<');
	mw_buf_putstr(&b, m->sender);
	mw_buf_putc(&b, '>');
	if (m->sender_args.n) {
		mw_buf_putc(&b, ' ');
		mw_buf_putstr(&b, m->sender_args);
	}
	line("sender", mw_buf_str(&b));
	for (size_t i = 0; i < m->n_rcpt; i++)
		print_rcpt(&m->rcpt[i]);
	print_client(m);
	line("queue ID", m->queue_id);
	line("daemon", m->daemon);
	line("server", m->mta);
	line("host", m->hostname);
}

static void
print_mailboxes(const struct mw_cli *cli, const struct mw_mail *m, struct mw_arena *a)
{
	struct mw_copy *c = NULL;
	size_t n = 0;
	MW_BUF_AUTO b = {0};
	if (mw_copies(cli->conf, m, a, &c, &n, NULL) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		mw_buf_printf(&b, "%s%s%s", i ? ", " : "", c[i].mailbox,
		              c[i].sent ? " (sent)" : "");
	line("mailboxes", mw_buf_str(&b));
}

static void
print_spf(const struct mw_item *it, struct mw_arena *a)
{
	struct mw_spf s;
	MW_BUF_AUTO b = {0};
	if (!mw_sender_find(it->store, it->rec.id, a, &s))
		return;
	mw_buf_puts(&b, mw_spf_result_name(s.result));
	if (s.reason.n) {
		mw_buf_puts(&b, " (");
		mw_buf_putstr(&b, s.reason);
		mw_buf_putc(&b, ')');
	}
	line("spf", mw_buf_str(&b));
	line("spf record", s.record);
}

static void
print_facts(const struct mw_cli *cli, const struct mw_item *it, struct mw_arena *a)
{
	char id[MW_ID_TEXT + 1], date[32], human[32], text[128];
	const struct mw_mail *m = &it->mail;
	mw_id_text(id, it->rec.id);
	mw_time_local(date, sizeof date, m->time_us);
	mw_size_human(human, sizeof human, m->size);
	line("id", mw_strz(id));
	line("journaled", mw_strz(date));
	(void)snprintf(text, sizeof text, "%llu bytes (%s)", (unsigned long long)m->size,
	               human);
	line("size", mw_strz(text));
	line("direction", mw_strz(mw_direction_name(m->direction)));
	for (size_t i = 0; i < m->n_class; i++)
		line("class", m->class[i].n ? m->class[i] : MW_STR("(none, for some)"));
	print_envelope(m);
	print_mailboxes(cli, m, a);
	print_spf(it, a);
	mw_outcomes_text(it->store, &it->rec, a, line);
	(void)snprintf(text, sizeof text, "segment %llu, offset %llu, record %llu",
	               (unsigned long long)it->rec.loc.segment,
	               (unsigned long long)it->rec.loc.offset,
	               (unsigned long long)it->rec.seq);
	line("place", mw_strz(text));
	if (m->flags & MW_MAIL_INEXACT)
		line("note", MW_STR("the mail server offered no exact header bytes"));
}

static int
show_summary(const struct mw_cli *cli, const struct mw_item *it, struct mw_arena *a,
             struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	uint64_t n = it->mail.header_size + 2 + TEXT_SHOWN;
	if (cli->verbose)
		n = it->mail.size;
	n = MW_MIN(n, it->mail.size);
	int r = content(it, n, &b, err);
	print_facts(cli, it, a);
	putchar('\n');
	print_text(mw_buf_str(&b));
	if (b.n && b.p[b.n - 1] != '\n')
		putchar('\n');
	if (r == 0 && n < it->mail.size)
		printf("[… %llu more bytes; --raw shows all]\n",
		       (unsigned long long)(it->mail.size - n));
	return r;
}

static int
show_headers(const struct mw_item *it, struct mw_err *err)
{
	MW_BUF_AUTO b = {0};
	int r = content(it, it->mail.header_size, &b, err);
	if (r == 0)
		print_text(mw_buf_str(&b));
	return r;
}

static int
show(const struct mw_cli *cli, enum what what, const struct mw_item *it,
     struct mw_arena *a, struct mw_err *err)
{
	switch (what) {
	case RAW:
		return content(it, UINT64_MAX, NULL, err);
	case HEADERS:
		return show_headers(it, err);
	case ENVELOPE:
		print_envelope(&it->mail);
		return 0;
	case SUMMARY:
		break;
	}
	return show_summary(cli, it, a, err);
}

static json_t *
with_spf(json_t *o, const struct mw_item *it, struct mw_arena *a)
{
	struct mw_spf s;
	bool found = mw_sender_find(it->store, it->rec.id, a, &s);
	return found ? mw_sender_add(o, &s) : o;
}

/* 0, or the exit status of a mistake. */
static int
parse(struct mw_cli *cli, int argc, char **argv, enum what *what, const char **ret_id)
{
	static const char *const names[] = {
	    [RAW] = "--raw", [HEADERS] = "--headers", [ENVELOPE] = "--envelope"};
	const struct mw_cmd *cmd = mw_cmd_find("show");
	struct mw_err err = {0};
	bool words = false;
	for (int i = 1; i < argc; i++) {
		int r = 0;
		if (!words && strcmp(argv[i], "--") == 0) {
			words = true;
			continue;
		}
		for (enum what w = RAW; !words && r == 0 && w <= ENVELOPE; w++) {
			r = mw_cli_option(argc, argv, &i, names[w], NULL, &err);
			if (r > 0 && *what != SUMMARY && *what != w)
				return mw_cli_usage(cli, cmd, "%s or %s, not both",
				                    names[*what], names[w]);
			if (r > 0)
				*what = w;
		}
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r > 0)
			continue;
		if ((argv[i][0] == '-' && !words) || *ret_id)
			return mw_cli_unknown(cli, cmd, argv[i]);
		*ret_id = argv[i];
	}
	if (!*ret_id || !**ret_id)
		return mw_cli_usage(cli, cmd, "which message? give its ID or queue ID");
	if (cli->json && *what != SUMMARY)
		return mw_cli_usage(cli, cmd, "--json or %s, not both", names[*what]);
	return 0;
}

int
mw_cmd_show(struct mw_cli *cli, int argc, char **argv)
{
	MW_ARENA_AUTO *a = mw_arena_new(512U << 20);
	enum what what = SUMMARY;
	const char *id = NULL;
	struct found f = {.n = 0};
	struct mw_erased erased = {.v = NULL};
	struct mw_query q;
	struct mw_err err = {0};
	int status = parse(cli, argc, argv, &what, &id);
	if (status == 0)
		status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	if (!a)
		return mw_cli_error(cli,
		                    (mw_fail(&err, MW_ENOMEM, "out of memory"), &err));
	mw_query_init(&q, a);
	q.id = &id;
	q.n_id = 1;
	int r = find(cli, &q, &f, &err);
	struct mw_item *it = &f.item[0];
	if (r == 0)
		r = mw_erased_mail(&erased, it->store, it->journal, &it->rec, a,
		                   &it->mail, &err);
	mw_erased_done(&erased);
	if (r == 0 && cli->json)
		mw_cli_json(mw_outcomes_add(with_spf(mw_item_json(cli, it, a), it, a),
		                            it->store, &it->rec, a));
	else if (r == 0)
		r = show(cli, what, it, a, &err);
	if (r == MW_EIO && ferror(stdout))
		return 0; /* main says so */
	if (r < 0 && !err.code)
		(void)mw_fail(&err, r, "%s", mw_err_text(r));
	return r < 0 ? mw_cli_error(cli, &err) : 0;
}
