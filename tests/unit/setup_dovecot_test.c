/* setup_dovecot_test.c - what `setup dovecot` finds in configurations, and what it would
 * add, without a Dovecot. */
#include "journal/base/util.h"
#include "replay/setup_dovecot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAD "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\n"

/* A configuration without a hole; what a case puts before it counts instead. */
#define GOOD                                                                             \
	"doveconf: Warning: something = else\n"                                          \
	"protocols= imap lmtp\n"                                                         \
	"listen=*, ::\n"                                                                 \
	"ssl=yes\n"                                                                      \
	"auth_mechanisms=plain login\n"                                                  \
	"auth_username_format=%Lu\n"                                                     \
	"auth_default_realm=\n"                                                          \
	"auth_master_user_separator=*\n"                                                 \
	"recipient_delimiter=+\n"                                                        \
	"default_internal_user=dovecot\n"                                                \
	"default_internal_group=dovecot\n"                                               \
	"service/imap-login/inet_listener=imap imaps\n"                                  \
	"service/imap-login/inet_listener/imap/port=143\n"                               \
	"service/imap-login/inet_listener/imap/ssl=no\n"                                 \
	"service/imap-login/inet_listener/imaps/port=993\n"                              \
	"service/imap-login/inet_listener/imaps/ssl=yes\n"                               \
	"namespace=inbox\n"                                                              \
	"namespace/inbox/mailbox=Trash Sent\\_Mail\n"                                    \
	"namespace/inbox/mailbox/Sent\\_Mail/special_use=\\Sent\n"                       \
	"passdb=0 1\n"                                                                   \
	"passdb/0/driver=ldap\n"                                                         \
	"passdb/0/master=yes\n"                                                          \
	"passdb/0/result_success=continue\n"                                             \
	"passdb/1/driver=sql\n"                                                          \
	"passdb/1/master=no\n"                                                           \
	"userdb=0\n"                                                                     \
	"userdb/0/driver=sql\n"

/* names: of holes, each with '!', and of notes, in the order in which they are found */
static const struct {
	const char *before, *names, *lmtp, *mailbox_name;
} cases[] = {
    {"", "master_user", NULL, NULL}, /* a note: ldap is not looked at */
    {"protocols= lmtp\n", "!protocols master_user", NULL, NULL},
    {"protocols= imap\nauth_mechanisms=login\n", "!auth_mechanisms master_user", NULL,
     NULL},
    {"auth_mechanisms=scram-sha-256 PLAIN\n", "master_user", NULL, NULL},
    {"service/imap-login/inet_listener/imap/port=0\n", "listener master_user", NULL,
     NULL},
    {"service/imap-login/inet_listener/imap/port=0\n"
     "service/imap-login/inet_listener/imaps/port=0\n",
     "!listener master_user", NULL, NULL},
    {"listen=192.0.2.1\n", "listener master_user", NULL, NULL},
    {"listen=192.0.2.1\nservice/imap-login/inet_listener/imap/address=127.0.0.1\n",
     "master_user", NULL, NULL},
    {"passdb/0/master=no\n", "!master_user", NULL, NULL},
    {"passdb=\n", "!master_user !passdb", NULL, NULL},
    {"passdb=0\n", "master_user !result_success !passdb", NULL, NULL},
    {"passdb/1/driver=pam\n", "master_user !result_success", NULL, NULL},
    {"passdb/1/driver=pam\npassdb/0/result_success=return-ok\n", "master_user", NULL,
     NULL},
    {"passdb/1/driver=pam\npassdb/0/result_success=return-ok\npassdb/0/pass=yes\n",
     "master_user !result_success", NULL, NULL},
    {"passdb=0 1 2\npassdb/1/driver=pam\npassdb/2/driver=passwd-file\n", "master_user",
     NULL, NULL},
    {"passdb=0 1 2\npassdb/1/driver=pam\npassdb/2/driver=passwd-file\n"
     "passdb/2/deny=yes\n",
     "master_user !result_success", NULL, NULL},
    {"auth_master_user_separator=\n", "master_user auth_master_user_separator", NULL,
     NULL},
    {"userdb=\n", "master_user !userdb", NULL, NULL},
    {"userdb/0/driver=prefetch\n", "master_user", NULL, NULL},
    {"userdb/0/driver=prefetch\npassdb/0/result_success=return-ok\n",
     "master_user !userdb", NULL, NULL},
    {"userdb=0 1\nuserdb/0/driver=prefetch\nuserdb/1/driver=sql\n", "master_user", NULL,
     NULL},
    {"userdb/0/driver=passwd\n", "master_user !mailbox_name", NULL, NULL},
    {"userdb/0/driver=passwd\n", "master_user", NULL, "%n"},
    {"userdb/0/driver=passwd\nauth_username_format=%Ln\n", "master_user", NULL, NULL},
    {"mail_plugins=quota acl\n", "master_user !acl_user", NULL, NULL},
    {"mail_plugins=quota acl\nplugin/acl_user=%u\n", "master_user", NULL, NULL},
    {"mail_plugins=push_notification notify\n", "master_user push_notification", NULL,
     NULL},
    {"mail_plugins=imap_sieve\nplugin/imapsieve_mailbox1_name=Junk\n",
     "master_user imap_sieve", NULL, NULL},
    {"mail_plugins=imap_sieve\nplugin/imapsieve_mailbox1_name=Junk\n"
     "plugin/imapsieve_mailbox2_name=*\nplugin/imapsieve_mailbox2_causes=APPEND COPY\n",
     "master_user !imap_sieve", NULL, NULL},
    {"mail_plugins=imap_sieve\nplugin/imapsieve_mailbox1_name=*\n"
     "plugin/imapsieve_mailbox1_causes=FLAG\n",
     "master_user imap_sieve", NULL, NULL},
    {"lmtp_save_to_detail_mailbox=yes\n", "master_user lmtp_save_to_detail_mailbox", NULL,
     NULL},
    {"", "master_user sieve", "quota sieve", NULL},
    {"recipient_delimiter=-\n", "master_user recipient_delimiter", NULL, NULL},
    {"namespace/inbox/mailbox/Sent\\_Mail/special_use=\\Drafts\n",
     "master_user special_use", NULL, NULL},
    {"imap_capability=IMAP4rev1\n", "master_user imap_capability", NULL, NULL},
    {"imap_capability=+XFOO\n", "master_user", NULL, NULL},
};

struct fixture {
	struct mw_arena *a;
	struct mw_conf conf;
	struct mw_dovecot d;
	char name[8], plus[2], sent[8];
};

static void
begin(struct fixture *x, const char *before)
{
	struct mw_err err = {0};
	MW_BUF_AUTO text = {0};
	*x = (struct fixture){.name = "%u", .plus = "+", .sent = "Sent"};
	x->a = mw_arena_new(8U << 20);
	assert_non_null(x->a);
	x->conf.mailbox_name = x->name;
	x->conf.recipient_delimiter = x->plus;
	x->conf.sent_folder = x->sent;
	x->d =
	    (struct mw_dovecot){.arena = x->a, .conf = &x->conf, .lmtp = "", .lda = ""};
	mw_buf_puts(&text, before);
	mw_buf_puts(&text, GOOD);
	assert_int_equal(mw_dovecot_header(&x->d, MW_STR("warning\n" HEAD), &err), 0);
	assert_int_equal(mw_dovecot_settings(&x->d, mw_buf_str(&text), &err), 0);
	assert_string_equal(mw_dovecot_get(&x->d, "doveconf: Warning: something "), "");
}

/* "!hole note …" */
static void
names_of(const struct mw_advices *f, struct mw_buf *out)
{
	for (size_t i = 0; i < f->n; i++)
		mw_buf_printf(out, "%s%s%s", i ? " " : "",
		              f->v[i].kind == MW_ADVICE_HOLE ? "!" : "", f->v[i].name);
}

static void
finds(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct fixture x;
		struct mw_advices f;
		MW_BUF_AUTO names = {0};
		begin(&x, cases[i].before);
		if (cases[i].mailbox_name)
			(void)snprintf(x.name, sizeof x.name, "%s",
			               cases[i].mailbox_name);
		if (cases[i].lmtp)
			x.d.lmtp = cases[i].lmtp;
		mw_dovecot_check(&x.d, &f);
		names_of(&f, &names);
		if (strcmp(mw_buf_cstr(&names), cases[i].names) != 0)
			fail_msg("case %zu: %s, not %s", i, mw_buf_cstr(&names),
			         cases[i].names);
		mw_arena_free(x.a);
	}
}

/* ---- the password file ---- */

static const struct {
	const char *text; /* NULL: no file */
	unsigned mode;
	const char *options, *settings, *names;
} files[] = {
    {"mailwal:{SHA512-CRYPT}x::::::allow_nets=127.0.0.0/8\n", 0640, "", "", ""},
    {"# nobody\n\n", 0640, "", "", "!master_file"},
    {"", 0640, "", "", "!master_file"},
    {"mailwal\n", 0640, "", "", "!master_file"},
    {"mailwal::::::::\n", 0640, "", "", "!master_file"},
    {"mailwal:x", 0640, "", "", ""},
    {"mailwal:x\n", 0644, "", "", "!master_file"},
    {"mailwal:x\n", 0642, "", "", "!master_file"},
    {"mailwal:x\n", 0000, "", "", "!master_file"},
    {"mailwal:{plain}x\n", 0640, "", "", "master_file"},
    {"mailwal:x\n", 0640, "scheme=PLAIN username_format=%Ln ", "", "master_file"},
    {"mailwal:::::::nopassword\n", 0640, "", "", "!master_file"},
    {"mailwal:::::::a=b nopassword=y\n", 0640, "", "", "!master_file"},
    {"mailwal:x::::::nopassword\n", 0640, "", "", "!master_file"},
    {"mailwal:x:nopassword:::::\n", 0640, "", "", ""},
    {"mailwal:x::::::nopasswordish\n", 0640, "", "", ""},
    {NULL, 0, "", "", "!master_file"},
    {"mailwal:x\n", 0640, "", "auth_default_realm=x.test\n", "!auth_default_realm"},
    {"mailwal@x.test:x\n", 0640, "", "auth_default_realm=x.test\n", ""},
    {"mailwal:x\n", 0640, "username_format=%Ln ", "auth_default_realm=x.test\n", ""},
};

/* The auth service's user here is nobody, and the file is his or out of his reach. */
static void
looks_into_files(void **state)
{
	(void)state;
	char dir[] = "/tmp/mw-setup-XXXXXX";
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	for (size_t i = 0; i < MW_COUNT(files); i++) {
		char path[64], args[128], before[128];
		struct fixture x;
		struct mw_advices f;
		MW_BUF_AUTO names = {0};
		(void)snprintf(path, sizeof path, "%s/m", dir);
		(void)snprintf(args, sizeof args, "%s%s", files[i].options, path);
		(void)snprintf(before, sizeof before, "%sservice/auth/user=nobody\n",
		               files[i].settings);
		(void)unlink(path);
		if (files[i].text) {
			FILE *t = fopen(path, "w");
			assert_non_null(t);
			assert_true(fputs(files[i].text, t) >= 0);
			assert_int_equal(fclose(t), 0);
			assert_int_equal(chown(path, 65534, (gid_t)-1), 0);
			assert_int_equal(chmod(path, files[i].mode), 0);
		}
		begin(&x, before);
		f = (struct mw_advices){.arena = x.a};
		mw_dovecot_check_file(&x.d, args, &f);
		names_of(&f, &names);
		if (strcmp(mw_buf_cstr(&names), files[i].names) != 0)
			fail_msg("file %zu: \"%s\", not \"%s\"", i, mw_buf_cstr(&names),
			         files[i].names);
		mw_arena_free(x.a);
	}
	char rm[64];
	(void)snprintf(rm, sizeof rm, "rm -r %s", dir);
	assert_int_equal(system(rm), 0);
}

/* A directory that the auth service cannot pass. */
static void
looks_at_directories(void **state)
{
	(void)state;
	char dir[] = "/tmp/mw-setup-XXXXXX", path[64], rm[64];
	struct fixture x;
	assert_non_null(mkdtemp(dir)); /* 0700, root's */
	(void)snprintf(path, sizeof path, "%s/m", dir);
	FILE *t = fopen(path, "w");
	assert_non_null(t);
	assert_true(fputs("mailwal:x\n", t) >= 0);
	assert_int_equal(fclose(t), 0);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(chown(path, 65534, (gid_t)-1), 0);
	for (int open = 0; open < 2; open++) {
		struct mw_advices f;
		assert_int_equal(chmod(dir, open ? 0711 : 0700), 0);
		begin(&x, "service/auth/user=nobody\n");
		f = (struct mw_advices){.arena = x.a};
		mw_dovecot_check_file(&x.d, path, &f);
		assert_int_equal(f.holes, !open);
		mw_arena_free(x.a);
	}
	(void)snprintf(rm, sizeof rm, "rm -r %s", dir);
	assert_int_equal(system(rm), 0);
}

/* ---- what would be added ---- */

static const struct {
	const char *before, *has, *lacks;
} texts[] = {
    {"", "  result_success = continue\n", "acl_user"},
    {"", "args = username_format=%Ln /x/mailwal-master\n", "separator = "},
    {"passdb/1/driver=pam\n", "master = yes\n", "\n  result_success"},
    {"auth_master_user_separator=\n", "auth_master_user_separator = *\n", "acl_user"},
    {"mail_plugins=acl\n", "plugin {\n  acl_user = %u\n}\n", "separator = "},
    {"mail_plugins=acl\nplugin/acl_user=x\n", "passdb {", "acl_user"},
};

static void
writes(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(texts); i++) {
		struct fixture x;
		MW_BUF_AUTO out = {0};
		begin(&x, texts[i].before);
		mw_dovecot_text(&x.d, "/x/mailwal-master", &out);
		if (!strstr(mw_buf_cstr(&out), texts[i].has) ||
		    strstr(mw_buf_cstr(&out), texts[i].lacks))
			fail_msg("text %zu:\n%s", i, mw_buf_cstr(&out));
		mw_arena_free(x.a);
	}
}

static void
knows_versions(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int code;
	} heads[] = {
	    {"# 2.2.36 (1f10bfa63): /usr/local/etc/dovecot.conf\n", 0},
	    {"# 2.4.1-4 (7d8c0bce3f): /etc/dovecot/dovecot.conf\n", MW_EUNAVAIL},
	    {"# Hostname: vm\n", MW_EUNAVAIL},
	    {"# 2.3.19.1 (9b53102964): dovecot.conf\n", MW_EUNAVAIL},
	    {"", MW_EUNAVAIL},
	};
	for (size_t i = 0; i < MW_COUNT(heads); i++) {
		struct mw_arena *a = mw_arena_new(1 << 20);
		struct mw_dovecot d = {.arena = a};
		struct mw_err err = {0};
		assert_int_equal(mw_dovecot_header(&d, mw_strz(heads[i].text), &err),
		                 heads[i].code);
		if (i == 0) {
			assert_string_equal(d.version, "2.2.36");
			assert_string_equal(d.path, "/usr/local/etc/dovecot.conf");
			assert_string_equal(d.dir, "/usr/local/etc");
		}
		mw_arena_free(a);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(finds),
	    cmocka_unit_test(looks_into_files),
	    cmocka_unit_test(looks_at_directories),
	    cmocka_unit_test(writes),
	    cmocka_unit_test(knows_versions),
	};
	if (geteuid() != 0) {
		puts("needs root: files of another user");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
