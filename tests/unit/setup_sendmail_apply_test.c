/* setup_sendmail_apply_test.c - where `setup sendmail --apply` puts the filter, and that
 * the old file stays. */
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "replay/setup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SOCK "S=local:/run/mw/milter.sock,"
#define OURS "INPUT_MAIL_FILTER(`mailwal', `" SOCK " F=T, T=C:10s;S:30s;R:60s;E:5m')dnl\n"
#define OPEN "INPUT_MAIL_FILTER(`mailwal', `" SOCK " T=C:10s;S:30s;R:60s;E:5m')dnl\n"
#define HEAD "divert(0)dnl\nOSTYPE(`linux')dnl\ndnl MAILER(`no')dnl\n"
#define TAIL "MAILER(`local')dnl\nMAILER(`smtp')dnl\n"
#define SPAM "INPUT_MAIL_FILTER(`spam', `S=inet:8891@localhost')dnl\n"
#define LIST "define(`confINPUT_MAIL_FILTERS', `spam')dnl\n"
#define BOTH "define(`confINPUT_MAIL_FILTERS', `spam, wal')dnl\n"
#define MF   "MAIL_FILTER(`wal',\n\t`S=local:/run/mw/milter.sock, F=T')dnl\n"

static const struct {
	const char *name, *before, *after; /* after NULL: nothing to add */
	int code;                          /* of mw_sendmail_plan */
	bool accept;
} cases[] = {
    {"s.mc", HEAD TAIL, HEAD OURS TAIL, 0, false},
    {"s.mc", HEAD TAIL, HEAD OPEN TAIL, 0, true},
    {"s.mc", HEAD SPAM TAIL, HEAD SPAM OURS TAIL, 0, false},
    {"s.mc", HEAD TAIL SPAM "dnl x\n", HEAD TAIL SPAM OURS "dnl x\n", 0, false},
    {"s.mc", HEAD SPAM TAIL LIST, HEAD SPAM TAIL LIST OURS, 0, false},
    {"s.mc", HEAD, HEAD OURS, 0, false},
    {"s.mc", HEAD "dnl end", HEAD "dnl end\n" OURS, 0, false},
    {"s.mc", "", OURS, 0, false},
    {"s.mc", HEAD "LOCAL_CONFIG\nCwx\n" TAIL, HEAD OURS "LOCAL_CONFIG\nCwx\n" TAIL, 0,
     false},
    {"s.mc", "ifdef(`x', `\nMAILER(`no')dnl\n')\n  " TAIL,
     "ifdef(`x', `\nMAILER(`no')dnl\n')\n" OURS "  " TAIL, 0, false},
    {"s.mc", HEAD "#MAILER(`a')\n" TAIL, HEAD "#MAILER(`a')\n" OURS TAIL, 0, false},
    {"s.mc", "divert(-1)\n" TAIL OURS HEAD TAIL, "divert(-1)\n" TAIL OURS HEAD OURS TAIL,
     0, false},
    {"s.mc", HEAD OURS TAIL, NULL, 0, false},
    {"s.mc", HEAD MF BOTH TAIL, NULL, 0, false},
    {"s.mc", HEAD OPEN TAIL, NULL, 0, true},
    {"s.mc", HEAD MF SPAM TAIL, HEAD MF SPAM BOTH TAIL, 0, false},
    {"s.mc", HEAD MF TAIL, HEAD MF "define(`confINPUT_MAIL_FILTERS', `wal')dnl\n" TAIL, 0,
     false},
    {"s.mc", HEAD OURS LIST TAIL,
     HEAD OURS LIST "define(`confINPUT_MAIL_FILTERS', `spam, mailwal')dnl\n" TAIL, 0,
     false},
    {"s.mc", HEAD OPEN TAIL, NULL, MW_ECONF, false},
    {"s.mc", HEAD "INPUT_MAIL_FILTER(`mailwal', `S=inet:1@localhost, F=T')\n" TAIL, NULL,
     MW_ECONF, false},
    {"s.mc", HEAD MF "define(`confINPUT_MAIL_FILTERS', defn(`x')`, y')dnl\n" TAIL, NULL,
     MW_ECONF, false},
    {"s.cf", "O InputMailFilters=\n", NULL, MW_EUSAGE, false},
    {"submit.mc", HEAD TAIL, NULL, 0, false},
    {"s.mc", HEAD "FEATURE(`msp', `[127.0.0.1]')dnl\n", NULL, 0, false},
};

struct site {
	char dir[32], path[64];
	struct mw_conf conf;
	char socket[32], *listen[1];
	struct mw_arena *a;
};

static void
write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void
is_text(const char *path, const char *want)
{
	MW_AUTOFREE void *p = NULL;
	size_t n = 0;
	assert_int_equal(mw_fs_read_file(mw_fs_posix(), path, 1 << 20, &p, &n), 0);
	assert_string_equal(p, want);
}

static void
make_site(struct site *s, const char *name, const char *text)
{
	*s = (struct site){.dir = "/tmp/mw-setup-XXXXXX",
	                   .socket = "unix:/run/mw/milter.sock"};
	s->a = mw_arena_new(8U << 20);
	assert_true(s->a && mkdtemp(s->dir));
	(void)snprintf(s->path, sizeof s->path, "%s/%s", s->dir, name);
	s->listen[0] = s->socket;
	s->conf.milter_listen.v = s->listen;
	s->conf.milter_listen.n = 1;
	write_text(s->path, text);
	assert_int_equal(chmod(s->path, 0604), 0);
}

static void
end_site(struct site *s)
{
	char rm[64];
	(void)snprintf(rm, sizeof rm, "rm -r %s", s->dir);
	assert_int_equal(system(rm), 0);
	mw_arena_free(s->a);
}

/* What was added is what --check finds, in the place said. */
static void
one_case(size_t i)
{
	struct site s;
	struct mw_smplan p;
	struct mw_err err = {0};
	struct stat st;
	struct mw_sendmail now;
	bool listed = false, built = true;
	make_site(&s, cases[i].name, cases[i].before);
	s.conf.on_failure =
	    cases[i].accept ? MW_ON_FAILURE_ACCEPT : MW_ON_FAILURE_TEMPFAIL;
	int r = mw_sendmail_plan(&s.conf, s.path, s.a, &p, &err);
	if (r != cases[i].code)
		fail_msg("case %zu: %d, %s", i, r, err.msg);
	if (r == 0 && (p.add.n == 0) != (cases[i].after == NULL))
		fail_msg("case %zu: adds %zu bytes", i, p.add.n);
	is_text(s.path, cases[i].before);
	if (cases[i].after) {
		assert_int_equal(mw_sendmail_apply(&p, &err), 0);
		is_text(s.path, cases[i].after);
		is_text(p.kept, cases[i].before);
		assert_int_equal(stat(s.path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0604);
		assert_int_equal(mw_sendmail_make(&p, &built, &err), 0);
		assert_false(built); /* no Makefile */
		assert_int_equal(mw_sendmail_load(&s.conf, s.path, s.a, &now, &err), 0);
		assert_non_null(mw_sendmail_ours(&now, &listed));
		assert_true(listed);
		assert_int_equal(mw_sendmail_plan(&s.conf, s.path, s.a, &p, &err), 0);
		assert_int_equal(p.add.n, 0); /* once is enough */
	}
	end_site(&s);
}

static void
places(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++)
		one_case(i);
}

static void
an_old_copy_is_never_overwritten(void **state)
{
	(void)state;
	struct site s;
	struct mw_smplan p;
	struct mw_err err = {0};
	char link_path[80];
	make_site(&s, "s.mc", HEAD TAIL);
	(void)snprintf(link_path, sizeof link_path, "%s/link.mc", s.dir);
	assert_int_equal(symlink(s.path, link_path), 0);
	for (int i = 0; i < 3; i++) {
		char text[512], name[96];
		(void)snprintf(text, sizeof text, "dnl %d\n" HEAD TAIL, i);
		write_text(s.path, text);
		assert_int_equal(mw_sendmail_plan(&s.conf, link_path, s.a, &p, &err), 0);
		assert_int_equal(p.line, 5);
		assert_int_equal(mw_sendmail_apply(&p, &err), 0);
		(void)snprintf(name, sizeof name,
		               i ? "%s.before-mailwal.%d" : "%s.before-mailwal", s.path,
		               i);
		assert_string_equal(p.kept, name);
		is_text(name, text);
	}
	end_site(&s);
}

static void
a_file_that_changed_is_left_alone(void **state)
{
	(void)state;
	struct site s;
	struct mw_smplan p;
	struct mw_err err = {0};
	char rest[64];
	make_site(&s, "s.mc", HEAD TAIL);
	assert_int_equal(mw_sendmail_plan(&s.conf, s.path, s.a, &p, &err), 0);
	write_text(s.path, HEAD TAIL "dnl mine\n");
	assert_int_equal(mw_sendmail_apply(&p, &err), MW_EUNAVAIL);
	is_text(s.path, HEAD TAIL "dnl mine\n");
	(void)snprintf(rest, sizeof rest, "test $(ls %s | wc -l) = 1", s.dir);
	assert_int_equal(system(rest), 0);
	end_site(&s);
}

static void
what_make_did_decides(void **state)
{
	(void)state;
	static const struct {
		const char *makefile;
		int code;
		bool built;
	} runs[] = {
	    {"all:\n\tfalse\n", MW_EUNAVAIL, false},
	    {"all:\n\techo >s.cf\n", MW_ECONF, false},
	    {"all:\n\ttrue\n", 0, false},
	    {"all:\n\techo 'Xmailwal, S=local:/run/mw/milter.sock, F=T' >s.cf\n"
	     "\techo 'O InputMailFilters=mailwal' >>s.cf\n",
	     0, true},
	};
	for (size_t i = 0; i < MW_COUNT(runs); i++) {
		struct site s;
		struct mw_smplan p;
		struct mw_err err = {0};
		struct stat was, now;
		char makefile[64];
		bool built = false;
		make_site(&s, "s.mc", HEAD TAIL);
		(void)snprintf(makefile, sizeof makefile, "%s/Makefile", s.dir);
		write_text(makefile, runs[i].makefile);
		assert_int_equal(stat(s.path, &was), 0);
		assert_int_equal(mw_sendmail_plan(&s.conf, s.path, s.a, &p, &err), 0);
		assert_int_equal(mw_sendmail_apply(&p, &err), 0);
		assert_int_equal(mw_sendmail_make(&p, &built, &err), runs[i].code);
		assert_int_equal(built, runs[i].built);
		assert_int_equal(strstr(err.hint, "make that anew") != NULL,
		                 runs[i].code == MW_ECONF);
		assert_int_equal(stat(s.path, &now), 0);
		/* put back is the same file, not one like it */
		assert_int_equal(now.st_ino == was.st_ino, runs[i].code != 0);
		assert_int_equal(access(p.kept, F_OK) == 0, runs[i].code == 0);
		end_site(&s);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(places),
	    cmocka_unit_test(an_old_copy_is_never_overwritten),
	    cmocka_unit_test(a_file_that_changed_is_left_alone),
	    cmocka_unit_test(what_make_did_decides),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
