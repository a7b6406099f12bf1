/* The alias tables: Postfix virtual(5) look-ups, nesting, loops, servers that fail.
 * MW_TEST_THREADS */
#include "milter/identity.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/index/kv.h"

#include <cmocka.h>

#define IN_TIME_US INT64_C(60000000) /* for what answers; the machine may be busy */

static char dir[64];

static const char *
in_dir(const char *name)
{
	static char path[4][160];
	static unsigned at;
	at = (at + 1) % 4;
	(void)snprintf(path[at], sizeof path[at], "%s/%s", dir, name);
	return path[at];
}

static void
write_file(const char *name, const char *text)
{
	FILE *f = fopen(in_dir(name), "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

struct site {
	struct mw_conf conf;
	char *table[4], *domain[4];
	char delims[8];
};

static struct mw_identity *
site_open(struct site *s, const char *table, const char *domain, const char *delims)
{
	memset(s, 0, sizeof *s);
	s->table[0] = strdup(table);
	s->conf.identities = (struct mw_conf_list){s->table, 1};
	if (domain) {
		s->domain[0] = strdup(domain);
		s->conf.local_domains = (struct mw_conf_list){s->domain, 1};
	}
	(void)snprintf(s->delims, sizeof s->delims, "%s", delims);
	s->conf.recipient_delimiter = s->delims;
	s->conf.identities_timeout = IN_TIME_US;
	struct mw_identity *id = NULL;
	struct mw_err err = {0};
	if (mw_identity_open(&s->conf, &id, &err) < 0)
		fail_msg("%s", err.msg);
	return id;
}

static void
site_close(struct site *s, struct mw_identity *id)
{
	mw_identity_close(id);
	free(s->table[0]);
	free(s->domain[0]);
}

/* "a,b" of the mailboxes, or "?CODE" when undecided. */
static const char *
resolve_in(struct mw_identity *id, const char *addr, int64_t timeout_us,
           uint32_t *ret_flags)
{
	static char out[4096];
	const struct mw_clock *c = mw_clock_system();
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_rcpt r = {.addr = mw_strz(addr)};
	struct mw_mail m = {.rcpt = &r, .n_rcpt = 1};
	struct mw_err err = {0};
	int q = mw_identity_resolve(id, a, &m,
	                            &(struct mw_until){c->mono_us(c) + timeout_us, NULL},
	                            &err);
	if (ret_flags)
		*ret_flags = m.flags;
	if (r.flags & MW_RCPT_UNDECIDED) {
		assert_true(q < 0);
		(void)snprintf(out, sizeof out, "?%s", mw_err_name(q));
		return out;
	}
	assert_true(r.flags & MW_RCPT_EXPANDED);
	out[0] = 0;
	for (size_t i = 0; i < r.n_mailbox; i++)
		(void)snprintf(out + strlen(out), sizeof out - strlen(out), "%s%.*s",
		               i ? "," : "", (int)r.mailbox[i].n, r.mailbox[i].p);
	return out;
}

static const char *
resolve(struct mw_identity *id, const char *addr)
{
	return resolve_in(id, addr, IN_TIME_US, NULL);
}

static const char virtual_text[] =
    "# comment\n"
    "example.org          anything at all\n"
    "info@example.org     ann@example.org,\n"
    "# a comment does not end the entry\n"
    "\n"
    "\tbob@example.org\n"
    "TEAM@Example.ORG     info@example.org, carol@example.org carol@example.org\n"
    "self@example.org     self@example.org, ann@example.org\n"
    "a@example.org        b@example.org\n"
    "b@example.org        a@example.org\n"
    "dia@example.org      d1@example.org d2@example.org\n"
    "d1@example.org       d3@example.org\n"
    "d2@example.org       d3@example.org\n"
    "lists+x@example.org  exact@example.org\n"
    "sales@example.org    dan@example.org\n"
    "root                 admin@example.org\n"
    "@moved.example       @example.org\n"
    "@catch.example       eve@example.org\n"
    "\"two words\"@example.org  fay@example.org\n"
    "brackets@example.org <gus@example.org>\n"
    "novalue@example.org\n"
    "first@example.org    one@example.org\n"
    "first@example.org    two@example.org";

static void
virtual_rules(void **state)
{
	(void)state;
	static const struct {
		const char *name, *addr, *want;
	} cases[] = {
	    {"no entry", "zoe@example.org", "zoe@example.org"},
	    {"no entry keeps case", "Zoe@Example.org", "Zoe@Example.org"},
	    {"continued line", "info@example.org", "ann@example.org,bob@example.org"},
	    {"key is folded", "Info@EXAMPLE.org", "ann@example.org,bob@example.org"},
	    {"nested, doubles once", "team@example.org",
	     "carol@example.org,ann@example.org,bob@example.org"},
	    {"leads to itself too", "self@example.org",
	     "self@example.org,ann@example.org"},
	    {"loop", "a@example.org", "?limit"},
	    {"two ways to one", "dia@example.org", "d3@example.org"},
	    {"exact with extension", "lists+x@example.org", "exact@example.org"},
	    {"extension carried over", "sales+eu@example.org", "dan+eu@example.org"},
	    {"extension, no entry", "zoe+x@example.org", "zoe+x@example.org"},
	    {"user form for a local domain", "root@example.org", "admin@example.org"},
	    {"user form with extension", "root+x@example.org", "admin+x@example.org"},
	    {"user form not elsewhere", "root@else.example", "root@else.example"},
	    {"no domain", "root", "admin@example.org"},
	    {"domain moved", "sales+eu@moved.example", "dan+eu@example.org"},
	    {"catch-all", "who@catch.example", "eve@example.org"},
	    {"catch-all with extension", "who+x@catch.example", "eve+x@example.org"},
	    {"quoted local part", "\"two words\"@example.org", "fay@example.org"},
	    {"brackets in a result", "brackets@example.org", "gus@example.org"},
	    {"entry without value", "novalue@example.org", "novalue@example.org"},
	    {"first of two", "first@example.org", "one@example.org"},
	    {"UTF-8", "j\xc3\xb6rg@example.org", "j\xc3\xb6rg@example.org"},
	    {"empty", "", ""},
	    {"only an at sign", "@", "@"},
	    {"extension sign first", "+x@example.org", "+x@example.org"},
	};
	write_file("v", virtual_text);
	char spec[200];
	struct site s;
	(void)snprintf(spec, sizeof spec, "virtual:%s", in_dir("v"));
	struct mw_identity *id = site_open(&s, spec, "example.org", "+");
	assert_false(mw_identity_network(id));
	assert_int_equal(mw_identity_check(id, NULL), 0);
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		const char *got = resolve(id, cases[i].addr);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s: %s gave \"%s\", not \"%s\"", cases[i].name,
			         cases[i].addr, got, cases[i].want);
	}
	site_close(&s, id);
}

static void
file_changes(void **state)
{
	(void)state;
	char spec[200];
	uint32_t flags;
	struct site s;
	(void)snprintf(spec, sizeof spec, "virtual:%s", in_dir("change"));
	struct mw_identity *id = site_open(&s, spec, NULL, "+");
	(void)unlink(in_dir("change"));
	assert_true(mw_identity_check(id, NULL) < 0);
	assert_string_equal(resolve_in(id, "x@y.test", 1000000, &flags), "?notfound");
	assert_true(flags & MW_MAIL_TABLES_FAILED);
	for (int i = 0; i < 20; i++) { /* seen at once, even within one tick */
		char text[64], want[64];
		(void)snprintf(text, sizeof text, "x@y.test u%d@y.test\n", i);
		(void)snprintf(want, sizeof want, "u%d@y.test", i);
		write_file("change", text);
		assert_string_equal(resolve(id, "x@y.test"), want);
	}
	write_file("new", "x@y.test renamed@y.test\n");
	assert_int_equal(rename(in_dir("new"), in_dir("change")), 0);
	assert_string_equal(resolve(id, "x@y.test"), "renamed@y.test");
	site_close(&s, id);
}

/* A table may be reached by a link, as Postfix' own may; what is no file fails at once,
 * and does not keep anybody waiting. */
static void
links_and_pipes(void **state)
{
	(void)state;
	struct site s;
	char spec[200];
	write_file("behind", "info@a.test anna@b.test\n");
	assert_int_equal(symlink("behind", in_dir("link")), 0);
	(void)snprintf(spec, sizeof spec, "virtual:%s", in_dir("link"));
	struct mw_identity *id = site_open(&s, spec, NULL, "");
	assert_string_equal(resolve(id, "info@a.test"), "anna@b.test");
	assert_int_equal(unlink(in_dir("link")), 0);
	assert_int_equal(mkfifo(in_dir("link"), 0600), 0);
	assert_string_equal(resolve(id, "info@a.test"), "?io");
	assert_int_equal(unlink(in_dir("link")), 0);
	assert_int_equal(symlink("/dev/zero", in_dir("link")), 0);
	assert_string_equal(resolve(id, "info@a.test"), "?io");
	assert_int_equal(unlink(in_dir("link")), 0);
	write_file("link", "info@a.test otto@b.test\n");
	assert_string_equal(resolve(id, "info@a.test"), "otto@b.test");
	site_close(&s, id);
	assert_int_equal(unlink(in_dir("link")), 0);
	assert_int_equal(unlink(in_dir("behind")), 0);
}

static void
limits(void **state)
{
	(void)state;
	char spec[200];
	struct site s;
	FILE *f = fopen(in_dir("big"), "w");
	assert_non_null(f);
	for (int i = 0; i < 100; i++)
		(void)fprintf(f, "d%d@y.test d%d@y.test\n", i, i + 1);
	(void)fprintf(f, "deep@y.test d0@y.test\nbig@y.test\n");
	for (int i = 0; i < 10000; i++)
		(void)fprintf(f, " m%d@y.test%s\n", i, i < 9999 ? "," : "");
	(void)fprintf(f, "over@y.test big@y.test, one-more@y.test\n");
	(void)fclose(f);
	(void)snprintf(spec, sizeof spec, "virtual:%s", in_dir("big"));
	struct mw_identity *id = site_open(&s, spec, NULL, "");
	assert_string_equal(resolve(id, "d0@y.test"), "d100@y.test");
	assert_string_equal(resolve(id, "deep@y.test"), "?limit");
	assert_string_equal(resolve(id, "over@y.test"), "?limit");
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_rcpt r[2] = {{.addr = MW_STR("big@y.test")},
	                       {.addr = MW_STR("x@y.test"), .flags = MW_RCPT_REFUSED}};
	struct mw_mail m = {.rcpt = r, .n_rcpt = 2};
	assert_int_equal(mw_identity_resolve(id, a, &m,
	                                     &(struct mw_until){INT64_MAX, NULL}, NULL),
	                 0);
	assert_int_equal(r[0].n_mailbox, 10000);
	assert_int_equal(r[1].flags, MW_RCPT_REFUSED);
	site_close(&s, id);
}

static void
bad_specs(void **state)
{
	(void)state;
	static const char *const bad[] = {
	    "virtual",
	    "virtual:",
	    "nis:x",
	    "socketmap:unix:/x",
	    "socketmap:udp:x:1:n",
	    "tcp:host",
	    "tcp::1",
	    "tcp:host:",
	    "socketmap:inet:x:name",
	    "socketmap:unix::name",
	};
	for (size_t i = 0; i < MW_COUNT(bad); i++) {
		char *spec = strdup(bad[i]);
		struct mw_conf conf = {.identities = {&spec, 1}};
		struct mw_identity *id = NULL;
		struct mw_err err = {0};
		if (mw_identity_open(&conf, &id, &err) != MW_ECONF)
			fail_msg("%s was taken", bad[i]);
		assert_null(id);
		free(spec);
	}
}

static int
put_rows(void *arg, struct mw_kv_txn *t)
{
	(void)arg;
	int r = mw_kv_put(t, mw_str("nul@y.test\0", 11), mw_str("ann@y.test\0", 11));
	return r ? r : mw_kv_put(t, MW_STR("plain@y.test"), MW_STR("bob@y.test"));
}

static void
lmdb_maps(void **state)
{
	(void)state;
	char spec[200];
	struct site s;
	struct mw_kv *kv;
	struct mw_err err = {0};
	(void)snprintf(spec, sizeof spec, "lmdb:%s", in_dir("map"));
	struct mw_identity *id = site_open(&s, spec, NULL, "+");
	assert_true(mw_identity_check(id, NULL) < 0);
	assert_int_equal(mw_kv_open(in_dir("map.lmdb"), MW_KV_CREATE, &kv, &err), 0);
	assert_int_equal(mw_kv_write(kv, put_rows, NULL, &err), 0);
	mw_kv_close(kv);
	assert_string_equal(resolve(id, "nul@y.test"), "ann@y.test");
	assert_string_equal(resolve(id, "Plain+x@y.test"), "bob+x@y.test");
	assert_string_equal(resolve(id, "other@y.test"), "other@y.test");
	site_close(&s, id);
}

/* ---- servers ---- */

enum answer {
	ANSWER,
	SILENT,
	HANG_UP,
	GARBAGE
};

struct server {
	int fd;
	unsigned port;
	bool socketmap;
	enum answer how;
	pthread_t thread;
};

static const char *
answer_to(const struct server *s, const char *q, size_t n, char *out, size_t max)
{
	static const char ask_map[] = "15:tab info@y.test,";
	if (s->how == GARBAGE)
		return "rubbish:\n";
	if (!s->socketmap) {
		if (n == 15 && memcmp(q, "get info@y.test", 15) == 0)
			return "200 ann%40y.test,%20bob@y.test\n";
		if (memmem(q, n, "fail", 4))
			return "400 later\n";
		return "500 no%20such\n";
	}
	if (n == sizeof ask_map - 1 && memcmp(q, ask_map, n) == 0)
		return "24:OK ann@y.test,bob@y.test,";
	if (memmem(q, n, "fail", 4))
		return "10:TEMP later,";
	(void)snprintf(out, max, "9:NOTFOUND ,");
	return out;
}

static void *
server_main(void *arg)
{
	struct server *s = arg;
	for (;;) {
		int c = accept(s->fd, NULL, NULL);
		if (c < 0)
			return NULL;
		char q[512], out[64];
		size_t n = 0;
		char end = s->socketmap ? ',' : '\n';
		while (s->how != HANG_UP) {
			ssize_t k = recv(c, q + n, 1, 0);
			if (k <= 0)
				break;
			if (q[n++] != end || s->how == SILENT) {
				n = n < sizeof q ? n : 0;
				continue;
			}
			size_t m = s->socketmap ? n : n - 1;
			const char *a = answer_to(s, q, m, out, sizeof out);
			for (size_t i = 0; i < strlen(a); i++) /* byte by byte */
				(void)!send(c, a + i, 1, MSG_NOSIGNAL);
			n = 0;
		}
		(void)close(c);
	}
}

static void
server_start(struct server *s, bool socketmap, enum answer how)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof in;
	s->socketmap = socketmap;
	s->how = how;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&in, sizeof in), 0);
	assert_int_equal(listen(s->fd, 10), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&in, &n), 0);
	s->port = ntohs(in.sin_port);
	assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void
server_stop(struct server *s)
{
	(void)shutdown(s->fd, SHUT_RDWR);
	(void)pthread_join(s->thread, NULL);
	(void)close(s->fd);
}

static void
network_tables(void **state)
{
	(void)state;
	for (int map = 0; map < 2; map++) {
		struct server srv;
		struct site s;
		char spec[100];
		uint32_t flags;
		server_start(&srv, map, ANSWER);
		(void)snprintf(spec, sizeof spec,
		               map ? "socketmap:inet:127.0.0.1:%u:tab"
		                   : "tcp:127.0.0.1:%u",
		               srv.port);
		struct mw_identity *id = site_open(&s, spec, NULL, "+");
		assert_true(mw_identity_network(id));
		assert_string_equal(resolve(id, "info@y.test"), "ann@y.test,bob@y.test");
		assert_string_equal(resolve(id, "zoe@y.test"), "zoe@y.test");
		assert_string_equal(resolve_in(id, "fail@y.test", IN_TIME_US, &flags),
		                    "?unavail");
		assert_true(flags & MW_MAIL_TABLES_FAILED);
		server_stop(&srv);
		assert_string_equal(resolve(id, "info@y.test"), "?unavail");
		site_close(&s, id);
	}
}

static void
network_trouble(void **state)
{
	(void)state;
	static const struct {
		enum answer how;
		const char *want;
	} cases[] = {{SILENT, "?timeout"}, {HANG_UP, "?unavail"}, {GARBAGE, "?unavail"}};
	const struct mw_clock *c = mw_clock_system();
	for (size_t i = 0; i < 2 * MW_COUNT(cases); i++) {
		struct server srv;
		struct site s;
		char spec[100];
		bool map = i % 2;
		server_start(&srv, map, cases[i / 2].how);
		(void)snprintf(spec, sizeof spec,
		               map ? "socketmap:inet:127.0.0.1:%u:tab"
		                   : "tcp:127.0.0.1:%u",
		               srv.port);
		struct mw_identity *id = site_open(&s, spec, NULL, "+");
		int64_t t = c->mono_us(c),
		        most = cases[i / 2].how == SILENT ? 200000 : IN_TIME_US;
		assert_string_equal(resolve_in(id, "info@y.test", most, NULL),
		                    cases[i / 2].want);
		assert_true(c->mono_us(c) - t < IN_TIME_US);
		site_close(&s, id);
		server_stop(&srv);
	}
}

/* 1000 recipients and a silent server: one deadline for all of them. */
static void
one_deadline(void **state)
{
	(void)state;
	enum {
		N = 1000
	};
	struct server srv;
	struct site s;
	char spec[100];
	server_start(&srv, false, SILENT);
	(void)snprintf(spec, sizeof spec, "tcp:127.0.0.1:%u", srv.port);
	struct mw_identity *id = site_open(&s, spec, NULL, "+");
	MW_ARENA_AUTO *a = mw_arena_new(0);
	static struct mw_rcpt r[N];
	for (int i = 0; i < N; i++)
		r[i] = (struct mw_rcpt){.addr = MW_STR("x@y.test")};
	struct mw_mail m = {.rcpt = r, .n_rcpt = N};
	const struct mw_clock *c = mw_clock_system();
	int64_t t = c->mono_us(c);
	assert_int_equal(mw_identity_resolve(id, a, &m,
	                                     &(struct mw_until){t + 200000, NULL}, NULL),
	                 MW_ETIMEOUT);
	assert_true(c->mono_us(c) - t < IN_TIME_US);
	for (int i = 0; i < N; i++)
		assert_int_equal(r[i].flags, MW_RCPT_UNDECIDED);
	site_close(&s, id);
	server_stop(&srv);
}

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof dir, "/tmp/mw-identity-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	static const char *const names[] = {"v",   "change",   "new",
	                                    "big", "map.lmdb", "map.lmdb-lock"};
	for (size_t i = 0; i < MW_COUNT(names); i++)
		(void)unlink(in_dir(names[i]));
	return rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(virtual_rules),   cmocka_unit_test(file_changes),
	    cmocka_unit_test(links_and_pipes), cmocka_unit_test(limits),
	    cmocka_unit_test(bad_specs),       cmocka_unit_test(lmdb_maps),
	    cmocka_unit_test(network_tables),  cmocka_unit_test(network_trouble),
	    cmocka_unit_test(one_deadline),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
