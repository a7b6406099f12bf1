/* setup_sendmail_test.c - what `setup sendmail --check` finds in .cf and .mc files. */
#include "journal/base/util.h"
#include "replay/setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fcntl.h>

#include <cmocka.h>

#define X "Xmailwal, S=local:/run/mw/milter.sock, F=T, T=C:10s;S:30s;R:60s;E:5m\n"
#define I "O InputMailFilters=spam,mailwal\n"
#define Y "Xspam, S=inet:8891@localhost\n"
#define D "O DaemonPortOptions=Name=MTA, Port=smtp, Addr=127.0.0.1\n"
#define L "INPUT_MAIL_FILTER(`mailwal', `S=local:/run/mw/milter.sock, F=T, T=E:5m')dnl\n"

enum {
	NO_SUBMIT = 1,
	OTHER_HOST = 2,
	DISCARD = 4,
	STALE = 8
};

static const struct {
	const char *text;
	bool mc;
	int what;
	const char *hole, *note; /* NULL: none */
} cases[] = {
    {I Y X D, false, 0, NULL, "position"},
    {"O InputMailFilters=mailwal\n" X D, false, 0, NULL, NULL},
    {"O InputMailFilters = mailwal, spam\n" X Y, false, 0, NULL, "position"},
    {"Xmailwal, S=/run/mw/milter.sock, F=4\nO InputMailFilters=mailwal\n", false, 0, NULL,
     NULL},
    {"Xmailwal, Socket=local:/run/mw/milter.sock, Flags=T\nO inputmailfilters=mailwal\n",
     false, 0, NULL, NULL},
    {I Y D, false, 0, "InputMailFilters", NULL},
    {"O InputMailFilters=spam\n" X Y, false, 0, "InputMailFilters", NULL},
    {"#O InputMailFilters=mailwal\n" X, false, 0, "InputMailFilters", NULL},
    {"", false, 0, "InputMailFilters", NULL},
    {"Xmailwal, S=local:/run/mw/milter.sock, T=E:5m\nO InputMailFilters=mailwal\n", false,
     0, "F", NULL},
    {"Xmailwal, S=local:/run/mw/milter.sock, F=R\nO InputMailFilters=mailwal\n", false, 0,
     NULL, "F"},
    /* Sendmail takes letters that mean nothing without a word. */
    {"Xmailwal, S=local:/run/mw/milter.sock, F=t\nO InputMailFilters=mailwal\n", false, 0,
     "F", NULL},
    {"Xmailwal, S=local:/run/mw/milter.sock, F=R T\nO InputMailFilters=mailwal\n", false,
     0, NULL, NULL},
    {"Xmailwal,\n\tS=local:/run/mw/milter.sock,\n F=T\nO InputMailFilters=\n MailWal\n",
     false, 0, NULL, NULL},
    {I Y X D "O DaemonPortOptions=Name=back,\n\tInputMailFilters=spam\n", false, 0,
     "daemon", NULL},
    {"Xmailwal, S=local:/run/mw/milter.sock, F=T, T=R:10s;E:20s\n"
     "O InputMailFilters=mailwal\n",
     false, 0, NULL, "T"},
    {"Xmailwal, S=local:/run/other.sock, F=T\nO InputMailFilters=mailwal\n", false, 0,
     "InputMailFilters", NULL},
    {I Y X D "O DaemonPortOptions=Name=back, Port=10025, InputMailFilters=spam\n", false,
     0, "daemon", NULL},
    {I Y X D "O DaemonPortOptions=N=back, P=10025, I=\n", false, 0, "daemon", NULL},
    {I Y X D "O DaemonPortOptions=N=back, P=10025, I=spam;mailwal\n", false, 0, NULL,
     "position"},
    {I Y X D, false, NO_SUBMIT, "submit", NULL},
    {I Y X D, false, OTHER_HOST, "submit", NULL},
    {I Y X D "Kaccess hash -T<TMPF> -o %s/access\n", false, 0, NULL, NULL},
    {I Y X D "Kaccess hash -T<TMPF> -o %s/access\n", false, DISCARD, "discard", NULL},
    {I Y X D, false, STALE, NULL, "stale"},
    {L, true, 0, NULL, NULL},
    {L, true, STALE, "stale", NULL},
    {"dnl " L, true, 0, "InputMailFilters", NULL},
    {"  " L "MAIL_FILTER(`spam', `S=inet:8891@localhost')\n"
     "define(`confINPUT_MAIL_FILTERS', `spam,mailwal')dnl\n",
     true, 0, NULL, "position"},
    {"MAIL_FILTER(`mailwal',\n\t`S=local:/run/mw/milter.sock, F=T')\n", true, 0,
     "InputMailFilters", NULL},
    {"INPUT_MAIL_FILTER(`mailwal',\n\t`S=local:/run/mw/milter.sock, F=T')\n", true, 0,
     NULL, NULL},
    {L "define(`confINPUT_MAIL_FILTERS', `spam')dnl\n", true, 0, "InputMailFilters",
     NULL},
    {"INPUT_MAIL_FILTER(`mailwal', `S=local:/run/mw/milter.sock')", true, 0, "F", NULL},
    {L "DAEMON_OPTIONS(`Port=10025, Name=back, InputMailFilters=')dnl\n", true, 0,
     "daemon", NULL},
    {L "FEATURE(`access_db', `text -o %s/access')dnl\n", true, DISCARD, "discard", NULL},
    {"divert(-1)\n" L "divert(0)dnl\n", true, 0, "InputMailFilters", NULL},
    {"divert(-1)\nundefine(`confINPUT_MAIL_FILTERS')\ndivert(0)dnl\n" L, true, 0, NULL,
     NULL},
    {L "undefine(`confINPUT_MAIL_FILTERS')dnl\n", true, 0, "InputMailFilters", NULL},
    {L "include(`/etc/mail/more.m4')dnl\n", true, 0, NULL, "m4"},
    {"include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\n" L, true, 0, NULL, NULL},
    {"ifdef(`HERE', `\n" L "')dnl\n", true, 0, NULL, "m4"},
    {"INPUT_MAIL_FILTER(`", true, 0, "InputMailFilters", NULL},
};

static void
put(const char *dir, const char *name, const char *text)
{
	char path[256];
	(void)snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void
build(const char *dir, size_t i)
{
	char text[2048];
	const char *at = strstr(cases[i].text, "%s");
	(void)snprintf(text, sizeof text, "%.*s%s%s",
	               at ? (int)(at - cases[i].text) : (int)strlen(cases[i].text),
	               cases[i].text, at ? dir : "", at ? at + 2 : "");
	put(dir, cases[i].mc ? "s.mc" : "s.cf", text);
	if (cases[i].mc || cases[i].what & STALE)
		put(dir, cases[i].mc ? "s.cf" : "s.mc", "");
	if (!(cases[i].what & NO_SUBMIT))
		put(dir, "submit.cf",
		    cases[i].what & OTHER_HOST ? "D{MTAHost}[192.0.2.9]\n"
		                               : "D{MTAHost}[127.0.0.1]\n");
	put(dir, "access",
	    cases[i].what & DISCARD
	        ? "# rows\nConnect:1.2.3\tREJECT\nFrom:x@y.test\tdiscard\n"
	        : "# DISCARD\nFrom:discard@x.test\tOK\n");
	char cf[256], mc[256];
	(void)snprintf(cf, sizeof cf, "%s/s.cf", dir);
	(void)snprintf(mc, sizeof mc, "%s/s.mc", dir);
	struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
	(void)utimensat(AT_FDCWD, cases[i].what & STALE ? cf : mc, old, 0);
}

static void
findings(void **state)
{
	(void)state;
	char socket[] = "unix:/run/mw/milter.sock", *listen[] = {socket};
	struct mw_conf conf = {.milter_listen = {listen, 1}};
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		char dir[] = "/tmp/mw-setup-XXXXXX", path[64], rm[64];
		MW_ARENA_AUTO *a = mw_arena_new(8U << 20);
		struct mw_sendmail s;
		struct mw_advices f;
		struct mw_err err = {0};
		bool hole = false, note = false;
		assert_true(a && mkdtemp(dir));
		build(dir, i);
		(void)snprintf(path, sizeof path, "%s/s.%s", dir,
		               cases[i].mc ? "mc" : "cf");
		if (mw_sendmail_load(&conf, path, a, &s, &err) < 0)
			fail_msg("%zu: %s", i, err.msg);
		mw_sendmail_check(&s, &f);
		for (size_t k = 0; k < f.n; k++) {
			const char *want =
			    f.v[k].kind == MW_ADVICE_HOLE ? cases[i].hole : cases[i].note;
			bool *seen = f.v[k].kind == MW_ADVICE_HOLE ? &hole : &note;
			*seen = *seen || (want && strcmp(want, f.v[k].name) == 0);
			if (f.v[k].kind == MW_ADVICE_HOLE && !*seen)
				fail_msg("%zu: %s: %s", i, f.v[k].name, f.v[k].text);
		}
		if (hole != !!cases[i].hole || note != !!cases[i].note)
			fail_msg("%zu: %zu findings, hole %d, note %d", i, f.n, hole,
			         note);
		(void)snprintf(rm, sizeof rm, "rm -r %s", dir);
		assert_int_equal(system(rm), 0);
	}
}

static void
a_missing_file_is_an_error(void **state)
{
	(void)state;
	MW_ARENA_AUTO *a = mw_arena_new(8U << 20);
	struct mw_conf conf = {0};
	struct mw_sendmail s;
	struct mw_err err = {0};
	assert_int_equal(mw_sendmail_load(&conf, "/no/such.cf", a, &s, &err),
	                 MW_ENOTFOUND);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(findings),
	    cmocka_unit_test(a_missing_file_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
