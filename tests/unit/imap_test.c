/* imap_test.c - the IMAP client: its parsers over tables, and itself against a server
 * that plays a script, well-behaved or not. */
#include "replay/imap.h"

#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct mw_imap_cur
cur(char *room, const char *text)
{
	size_t n = strlen(text);
	memcpy(room, text, n + 1);
	return (struct mw_imap_cur){room, n};
}

static void
a_fetch_response_is_read_whatever_its_order(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool ok;
		uint32_t uid;
		uint64_t size;
		const char *header;
	} t[] = {
	    {"* 1 FETCH (UID 7 RFC822.SIZE 10)", true, 7, 10, NULL},
	    {"* 1 FETCH (RFC822.SIZE 10 FLAGS (\\Seen $x) UID 7)", true, 7, 10, NULL},
	    {"* 1 FETCH (UID 7 BODY[HEADER.FIELDS (MESSAGE-ID RECEIVED)] {5}\r\nA: b\n)",
	     true, 7, 0, "A: b\n"},
	    {"* 1 FETCH (BODY[HEADER.FIELDS (\"MESSAGE-ID\")] \"x\\\"y\" UID 9)", true, 9,
	     0, "x\"y"},
	    {"* 1 FETCH (BODY[HEADER.FIELDS (MESSAGE-ID)] NIL UID 9)", true, 9, 0, ""},
	    {"* 1 FETCH (ENVELOPE ((NIL \"a\") {2}\r\n)) (x)) UID 3)", true, 3, 0, NULL},
	    {"* 1 fetch (uid 4294967295)", true, 4294967295U, 0, NULL},
	    {"* 1 FETCH (UID 4294967296)", false, 0, 0, NULL},
	    {"* 1 FETCH (UID 7", false, 0, 0, NULL},
	    {"* 1 FETCH (UID 7 X {9}\r\nab)", false, 0, 0, NULL},
	    {"* 1 FETCH (UID \"7\")", false, 0, 0, NULL},
	    {"* x FETCH (UID 7)", false, 0, 0, NULL},
	    {"* 1 EXISTS", false, 0, 0, NULL},
	    {"", false, 0, 0, NULL},
	};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		char room[300];
		struct mw_imap_fetch f = {0};
		bool ok = mw_imap_parse_fetch(cur(room, t[i].text), &f);
		if (ok != t[i].ok)
			fail_msg("%s", t[i].text);
		if (!ok)
			continue;
		assert_int_equal(f.uid, t[i].uid);
		assert_int_equal(f.size, t[i].size);
		assert_int_equal(f.has_header, t[i].header != NULL);
		if (t[i].header)
			assert_true(mw_str_eq(f.header, mw_strz(t[i].header)));
	}
}

static void
a_folder_list_line_is_read(void **state)
{
	(void)state;
	char room[300];
	struct mw_imap_list l;
	assert_true(mw_imap_parse_list(
	    cur(room, "* LIST (\\HasNoChildren \\Sent) \"/\" \"Sent \\\"Mail\\\"\""),
	    &l));
	assert_int_equal(l.flags, MW_FOLDER_SENT);
	assert_int_equal(l.delim, '/');
	assert_true(mw_str_eq(l.name, MW_STR("Sent \"Mail\"")));
	assert_true(
	    mw_imap_parse_list(cur(room, "* LIST (\\NoSelect) NIL {3}\r\na\"b"), &l));
	assert_int_equal(l.flags, MW_FOLDER_NOSELECT);
	assert_int_equal(l.delim, 0);
	assert_true(mw_str_eq(l.name, MW_STR("a\"b")));
	assert_true(mw_imap_parse_list(cur(room, "* LIST () \".\" INBOX"), &l));
	assert_false(mw_imap_parse_list(cur(room, "* LIST () \"ab\" INBOX"), &l));
	assert_false(mw_imap_parse_list(cur(room, "* LIST ("), &l));
}

static void
a_personal_namespace_is_found(void **state)
{
	(void)state;
	char room[300], delim;
	struct mw_str p;
	assert_true(mw_imap_parse_namespace(
	    cur(room, "* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"#news\" \".\"))"), &p,
	    &delim));
	assert_true(mw_str_eq(p, MW_STR("INBOX.")));
	assert_int_equal(delim, '.');
	assert_false(
	    mw_imap_parse_namespace(cur(room, "* NAMESPACE NIL NIL NIL"), &p, &delim));
	MW_BUF_AUTO foreign = {0};
	mw_imap_parse_foreign(cur(room, "* NAMESPACE ((\"INBOX.\" \".\")) ((\"Other \" "
	                                "\".\" \"X-A\" (\"b\" \"c\"))) ((\"#pub/\" "
	                                "\"/\")(\"x\" NIL))"),
	                      &foreign);
	assert_int_equal(foreign.n, 15);
	assert_memory_equal(foreign.p, "Other \0#pub/\0x", 15);
	mw_imap_parse_foreign(cur(room, "* NAMESPACE ((\"\" \"/\")) NIL NIL"), &foreign);
	assert_int_equal(foreign.n, 0);
}

static void
uid_sets_are_walked_in_order(void **state)
{
	(void)state;
	struct mw_str s = MW_STR("1:3,9,12:10");
	assert_int_equal(mw_imap_set_count(s), 7);
	assert_int_equal(mw_imap_set_at(s, 0), 1);
	assert_int_equal(mw_imap_set_at(s, 3), 9);
	assert_int_equal(mw_imap_set_at(s, 4), 10);
	assert_int_equal(mw_imap_set_at(s, 6), 12);
	assert_int_equal(mw_imap_set_at(s, 7), 0);
	assert_int_equal(mw_imap_set_count(MW_STR("1:4294967295")), 4294967295U);
	assert_int_equal(mw_imap_set_count(MW_STR("x")), 0);
	assert_int_equal(mw_imap_set_count(MW_STR("")), 0);
}

static void
dates_of_both_kinds_become_the_same_time(void **state)
{
	(void)state;
	int64_t us;
	assert_true(mw_imap_parse_date(MW_STR("22-Nov-2026 10:11:12 +0000"), &us));
	assert_int_equal(us, INT64_C(1795342272000000));
	assert_true(mw_imap_parse_date(MW_STR(" 2-Nov-2026 11:11:12 +0100"), &us));
	assert_int_equal(us, INT64_C(1793614272000000));
	assert_false(mw_imap_parse_date(MW_STR("22-Nix-2026 10:11:12 +0000"), &us));
	static const char *const same[] = {
	    "from x by y with ESMTP id 4X for <a@b>; Sun, 22 Nov 2026 10:11:12 +0000",
	    "by y id q; 22 Nov 2026 05:11:12 -0500 (EST)",
	    "by y; Sun, 22 Nov 26 10:11:12 GMT",
	    "; Sun,\r\n\t22 Nov 2026 (x) 05:11:12 EST",
	};
	for (size_t i = 0; i < 4; i++) {
		assert_true(mw_rfc5322_date(mw_strz(same[i]), &us));
		assert_int_equal(us, INT64_C(1795342272000000));
	}
	assert_false(mw_rfc5322_date(MW_STR("by y id q"), &us));
}

static void
folder_names_become_modified_utf7(void **state)
{
	(void)state;
	static const char *const t[][2] = {
	    {"Sent", "Sent"},
	    {"A&B", "A&-B"},
	    {"Entwürfe", "Entw&APw-rfe"},
	    {"~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"},
	    {"😀", "&2D3eAA-"},
	};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		MW_BUF_AUTO b = {0};
		assert_true(mw_imap_utf7(mw_strz(t[i][0]), &b));
		assert_string_equal(mw_buf_cstr(&b), t[i][1]);
		MW_BUF_AUTO back = {0};
		assert_true(mw_imap_from_utf7(mw_strz(t[i][1]), &back));
		assert_string_equal(mw_buf_cstr(&back), t[i][0]);
	}
	static const char *const wrong[] = {"A&B",       "&",     "&APw",
	                                    "&AEE-",     "&APx-", "Entw\xc3\xbc",
	                                    "&2D0-",     "&3gA-", "&AP*-",
	                                    "&APwA-",    "a\x01", "&,,,-",
	                                    "&APw-&APw-"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		MW_BUF_AUTO back = {0};
		if (mw_imap_from_utf7(mw_strz(wrong[i]), &back))
			fail_msg("%s", wrong[i]);
	}
	MW_BUF_AUTO b = {0};
	assert_false(mw_imap_utf7(MW_STR("\xff"), &b));
	assert_false(mw_imap_utf7(MW_STR("\xc3"), &b));
}

/* ---- against a scripted server ---- */

struct step {
	const char
	    *want; /* how the client's line, tag off, begins; NULL: nothing is read */
	const char *say; /* what is answered; %t stands for the tag; NULL: hang up */
};

static const char another[] = "another connection"; /* as what is wanted */

struct server {
	int fd;
	unsigned port;
	const struct step *step;
	pthread_t thread;
	char wrong[300];
};

static void
answer(int fd, const char *say, const char *tag)
{
	char out[4096];
	size_t n = 0;
	for (; *say && n < sizeof out - 100; say++) {
		if (say[0] == '%' && say[1] == 't') {
			n += (size_t)snprintf(out + n, sizeof out - n, "%s", tag);
			say++;
		} else {
			out[n++] = *say;
		}
	}
	assert_int_equal(write(fd, out, n), n);
}

static void *
play(void *arg)
{
	struct server *s = arg;
	int fd = accept(s->fd, NULL, NULL);
	FILE *f = fdopen(fd, "r");
	char line[2048], tag[100];
	for (const struct step *p = s->step; p->say; p++) {
		const char *rest = "";
		tag[0] = '\0';
		if (p->want == another) {
			(void)fclose(f);
			fd = accept(s->fd, NULL, NULL);
			f = fdopen(fd, "r");
		} else if (p->want) {
			if (!fgets(line, sizeof line, f))
				break;
			line[strcspn(line, "\r\n")] = '\0';
			char *sp = strchr(line, ' ');
			if (sp) {
				(void)snprintf(tag, sizeof tag, "%.*s", (int)(sp - line),
				               line);
				rest = sp + 1;
			}
			if (strncmp(rest, p->want, strlen(p->want)) != 0 &&
			    strncmp(line, p->want, strlen(p->want)) != 0) {
				(void)snprintf(s->wrong, sizeof s->wrong,
				               "wanted %s, got %.200s", p->want, line);
				break;
			}
		}
		answer(fd, p->say, tag);
	}
	(void)fclose(f);
	return NULL;
}

static void
serve(struct server *s, const struct step *step)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
	                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	union {
		struct sockaddr *any;
		struct sockaddr_in *in;
	} u = {.in = &a};
	*s = (struct server){.step = step};
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(s->fd, u.any, n), 0);
	assert_int_equal(listen(s->fd, 1), 0);
	assert_int_equal(getsockname(s->fd, u.any, &n), 0);
	s->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&s->thread, NULL, play, s), 0);
}

static void
served(struct server *s)
{
	(void)pthread_join(s->thread, NULL);
	(void)close(s->fd);
	assert_string_equal(s->wrong, "");
}

static int
connect_to(const struct server *s, struct mw_imap **ret, struct mw_err *err)
{
	struct mw_net_opts o = {.kind = MW_NET_IMAP,
	                        .host = "127.0.0.1",
	                        .port = s->port,
	                        .login = "alice",
	                        .password = "secret",
	                        .connect_ms = 5000,
	                        .idle_ms = 2000};
	return mw_imap_open(&o, ret, err);
}

/* It waits in vain, and says what may be wrong. */
static void
a_server_that_says_nothing_is_told_of(void **state)
{
	(void)state;
	static const char *const ca[] = {NULL, "/etc/ssl/certs/ca-certificates.crt"};
	struct sockaddr_in at = {.sin_family = AF_INET,
	                         .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
	assert_int_equal(listen(fd, 5), 0); /* the kernel takes the connections */
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
	for (size_t i = 0; i < 2; i++) {
		struct mw_net_opts o = {.kind = MW_NET_IMAP,
		                        .host = "127.0.0.1",
		                        .port = ntohs(at.sin_port),
		                        .login = "alice",
		                        .password = "secret",
		                        .ca_file = ca[i],
		                        .connect_ms = 300};
		struct mw_imap *c;
		struct mw_err err = {0};
		assert_int_equal(mw_imap_open(&o, &c, &err), MW_ETIMEOUT);
		assert_non_null(strstr(err.hint, "imaps://"));
	}
	(void)close(fd);
}

#define GREETING {NULL, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n"},
#define CAN      "LITERAL+ MULTIAPPEND UIDPLUS APPENDLIMIT=1000"
#define FLAT                                                                             \
	{"NAMESPACE", "%t BAD what\r\n"},                                                \
	    {"LIST", "* LIST (\\Noselect) \".\" \"\"\r\n%t OK\r\n"},
#define LOGIN                                                                            \
	GREETING{"AUTHENTICATE PLAIN", "%t OK in\r\n"},                                  \
	    {"CAPABILITY", "* CAPABILITY IMAP4rev1 " CAN "\r\n%t OK\r\n"}, FLAT

static void
logs_in(const struct step *script)
{
	struct server s;
	struct mw_imap *c;
	struct mw_err err = {0};
	serve(&s, script);
	assert_int_equal(connect_to(&s, &c, &err), 0);
	assert_int_equal(c->caps,
	                 MW_CAP_LITERAL_PLUS | MW_CAP_MULTIAPPEND | MW_CAP_UIDPLUS);
	assert_int_equal(c->append_limit, 1000);
	assert_int_equal(c->delim, '.');
	mw_imap_close(c);
	served(&s);
}

static void
capabilities_and_separator_are_learnt(void **state)
{
	(void)state;
	static const struct step script[] = {LOGIN{"LOGOUT", "* BYE\r\n%t OK\r\n"}, {0}};
	logs_in(script);
}

/* A round trip each is spared. */
static void
what_a_server_says_unasked_is_not_asked_for(void **state)
{
	(void)state;
	static const struct step script[] = {
	    /* "\0alice\0secret" */
	    GREETING{"AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==",
	             "%t OK [CAPABILITY IMAP4rev1 " CAN "] in\r\n"},
	    FLAT{"LOGOUT", "* BYE\r\n%t OK\r\n"},
	    {0}};
	logs_in(script);
}

static void
a_server_that_greets_otherwise_is_left_to_libcurl(void **state)
{
	(void)state;
#define CURLS                                                                            \
	{another, "* OK ready\r\n"},                                                     \
	    {"CAPABILITY", "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%t OK\r\n"},    \
	    {"AUTHENTICATE PLAIN", "%t OK in\r\n"},                                      \
	    {"CAPABILITY", "* CAPABILITY IMAP4rev1 " CAN "\r\n%t OK\r\n"}, FLAT          \
	{                                                                                \
		"LOGOUT", "* BYE\r\n%t OK\r\n"                                           \
	}
	static const char *const greeting[] = {
	    "* OK ready\r\n",
	    "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=CRAM-MD5] ready\r\n",
	    "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n",
	    "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN LOGINDISABLED] ready\r\n",
	    "* BYE later\r\n",
	};
	for (size_t i = 0; i < sizeof greeting / sizeof *greeting; i++) {
		const struct step script[] = {{NULL, greeting[i]}, CURLS, {0}};
		logs_in(script);
	}
}

static void
a_refused_login_brings_the_servers_words(void **state)
{
	(void)state;
	static const struct {
		const char *say;
		int code;
	} t[] = {
	    {"%t NO [AUTHENTICATIONFAILED] go away\r\n", MW_EAUTH},
	    {"%t NO [AUTHORIZATIONFAILED] go away\r\n", MW_ENOUSER},
	    {"%t NO [UNAVAILABLE] go away\r\n", MW_EUNAVAIL},
	    {"* BYE go away\r\n", MW_EUNAVAIL},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		const struct step script[] = {GREETING{"AUTHENTICATE PLAIN", t[i].say},
		                              {0}};
		struct server s;
		struct mw_imap *c;
		struct mw_err err = {0};
		serve(&s, script);
		assert_int_equal(connect_to(&s, &c, &err), t[i].code);
		assert_non_null(strstr(err.msg, "go away"));
		if (t[i].code != MW_EUNAVAIL)
			assert_non_null(strstr(err.msg, "alice"));
		assert_null(strstr(err.msg, "secret"));
		served(&s);
	}
}

static int
three_bytes(void *arg, const struct mw_imap_msg *m,
            int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	(void)arg, (void)m, (void)err;
	return sink(sarg, "abc", 3);
}

static void
an_append_gives_its_uid_or_the_refusal(void **state)
{
	(void)state;
	static const struct step script[] = {
	    LOGIN{"APPEND \"x\" \"22-Nov-2026 10:11:12 +0000\" {3+}", ""},
	    {"abc \"22-Nov-2026 10:11:12 +0000\" {3+}", ""},
	    {"abc", "%t OK\r\n"},
	    {0}};
	static const struct step full[] = {LOGIN{"APPEND", ""},
	                                   {"abc", "m5 NO [OVERQUOTA] full\r\n"},
	                                   {"LOGOUT", "* BYE\r\n"},
	                                   {0}};
	struct mw_imap_msg v[2] = {{INT64_C(1795342272000000), 3, "", NULL},
	                           {INT64_C(1795342272000000), 3, "", NULL}};
	struct mw_imap_batch one = {"\"x\"", v, 1, three_bytes, NULL},
	                     two = {"\"x\"", v, 2, three_bytes, NULL};
	struct mw_imap_appended a;
	struct mw_imap *c;
	struct mw_err err = {0};
	struct server s;
	serve(&s, full);
	assert_int_equal(connect_to(&s, &c, &err), 0);
	assert_int_equal(mw_imap_append(c, &one, &a, &err), 0);
	assert_int_equal(a.code, MW_EREFUSED);
	assert_int_equal(c->last.no, MW_NO_OVERQUOTA);
	assert_string_equal(c->last.text, "full");
	mw_imap_close(c);
	served(&s);
	serve(&s, script); /* its last answer has a wrong tag: "abc" */
	assert_int_equal(connect_to(&s, &c, &err), 0);
	assert_int_not_equal(mw_imap_append(c, &two, &a, &err), 0);
	mw_imap_close(c);
	served(&s);
}

static int
short_content(void *arg, const struct mw_imap_msg *m,
              int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	(void)arg, (void)m, (void)err;
	return sink(sarg, "ab", 2);
}

enum {
	LARGE =
	    40000,  /* in one piece: more than is kept back, less than goes out at once */
	LINE = 2047 /* what play() reads at a time */
};

static int
large_piece(void *arg, const struct mw_imap_msg *m,
            int (*sink)(void *, const void *, size_t), void *sarg, struct mw_err *err)
{
	static char text[LARGE];
	(void)arg, (void)m, (void)err;
	memset(text, 'x', sizeof text);
	return sink(sarg, text, sizeof text);
}

static void
what_is_sent_in_one_piece_stays_behind_what_stood_before_it(void **state)
{
	(void)state;
	struct step script[64] = {LOGIN{"APPEND \"x\"", ""}};
	struct mw_imap_msg m = {INT64_C(1795342272000000), LARGE, "", NULL};
	struct mw_imap_batch one = {"\"x\"", &m, 1, large_piece, NULL};
	struct mw_imap_appended a;
	struct mw_imap *c;
	struct mw_err err = {0};
	struct server s;
	size_t n = 0;
	while (script[n].say)
		n++;
	for (size_t i = 0; i < LARGE / LINE + 1; i++)
		script[n++] = (struct step){"xxx", ""};
	script[n - 1].say = "m5 OK\r\n";
	script[n] = (struct step){"LOGOUT", "* BYE\r\n"};
	serve(&s, script);
	assert_int_equal(connect_to(&s, &c, &err), 0);
	assert_int_equal(mw_imap_append(c, &one, &a, &err), 0);
	assert_int_equal(a.code, 0);
	mw_imap_close(c);
	served(&s);
}

static void
content_that_is_not_as_long_as_said_is_never_sent_as_whole(void **state)
{
	(void)state;
	static const struct step script[] = {LOGIN{0}};
	struct mw_imap_msg v = {0, 3, "", NULL};
	struct mw_imap_batch b = {"x", &v, 1, short_content, NULL};
	struct mw_imap_appended a;
	struct mw_imap *c;
	struct mw_err err = {0};
	struct server s;
	serve(&s, script);
	assert_int_equal(connect_to(&s, &c, &err), 0);
	assert_int_equal(mw_imap_append(c, &b, &a, &err), MW_EDAMAGED);
	assert_int_not_equal(c->sent, c->answered); /* of no more use */
	mw_imap_close(c);
	served(&s);
}

static void
a_bad_server_gives_a_clear_error(void **state)
{
	(void)state;
	static const struct {
		const char *name, *say;
		int code;
		bool stays; /* the server goes on listening */
	} t[] = {
	    {"wrong tag", "x1 OK\r\n", MW_EPROTO, false},
	    {"answer out of order", "m9 OK\r\n", MW_EPROTO, false},
	    {"no status", "%t FINE\r\n", MW_EPROTO, false},
	    {"hangs up", NULL, MW_EUNAVAIL, false},
	    {"hangs up in a literal", "* 1 FETCH (X {100}\r\nabc", MW_EUNAVAIL, false},
	    {"absurd literal", "* 1 FETCH (X {99999999999999999999}\r\n", MW_ELIMIT,
	     false},
	    {"unasked continuation", "+ go\r\n", MW_EPROTO, false},
	    {"NO", "%t NO [NONEXISTENT] none\r\n", MW_EREFUSED, false},
	    {"silence", "* OK still here\r\n", MW_ETIMEOUT, true},
	};
	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		const struct step script[] = {LOGIN{"NOOP", t[i].say},
		                              {"LOGOUT", t[i].stays ? "" : NULL},
		                              {0}};
		struct server s;
		struct mw_imap *c;
		struct mw_err err = {0};
		serve(&s, script);
		assert_int_equal(connect_to(&s, &c, &err), 0);
		int r = mw_imap_do(c, &err, "NOOP");
		if (r != t[i].code)
			fail_msg("%s: %d %s", t[i].name, r, err.msg);
		mw_imap_close(c);
		served(&s);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_server_that_says_nothing_is_told_of),
	    cmocka_unit_test(a_fetch_response_is_read_whatever_its_order),
	    cmocka_unit_test(a_folder_list_line_is_read),
	    cmocka_unit_test(a_personal_namespace_is_found),
	    cmocka_unit_test(uid_sets_are_walked_in_order),
	    cmocka_unit_test(dates_of_both_kinds_become_the_same_time),
	    cmocka_unit_test(folder_names_become_modified_utf7),
	    cmocka_unit_test(capabilities_and_separator_are_learnt),
	    cmocka_unit_test(what_a_server_says_unasked_is_not_asked_for),
	    cmocka_unit_test(a_server_that_greets_otherwise_is_left_to_libcurl),
	    cmocka_unit_test(a_refused_login_brings_the_servers_words),
	    cmocka_unit_test(an_append_gives_its_uid_or_the_refusal),
	    cmocka_unit_test(what_is_sent_in_one_piece_stays_behind_what_stood_before_it),
	    cmocka_unit_test(content_that_is_not_as_long_as_said_is_never_sent_as_whole),
	    cmocka_unit_test(a_bad_server_gives_a_clear_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
