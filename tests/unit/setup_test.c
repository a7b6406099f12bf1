/* setup_test.c - what `setup postfix` finds in configurations, without a Postfix. */
#include "journal/base/util.h"
#include "replay/setup.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct mw_arena *arena;

static int
setup(void **state)
{
	(void)state;
	arena = mw_arena_new(64U << 20);
	return arena ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	mw_arena_free(arena);
	return 0;
}

/* A configuration without a hole, which each case then spoils in one place. */
static const struct mw_pair good[] = {
    {"smtpd_milters",
     "inet:localhost:8891, { inet:127.0.0.1:11332, default_action=tempfail }"},
    {"non_smtpd_milters", "inet:127.0.0.1:11332"},
    {"milter_default_action", "tempfail"},
    {"milter_protocol", "6"},
    {"internal_mail_filter_classes", "notify bounce"},
    {"enable_long_queue_ids", "yes"},
    {"queue_directory", "/var/spool/postfix"},
};

static const struct mw_service services[] = {
    {"smtp", "inet", "smtpd", true},
    {"127.0.0.1:10025", "inet", "smtpd", true},
    {"cleanup", "unix", "cleanup", true},
};

struct postfix_case {
	struct mw_pair main[2], over[2];
	const char *listen; /* NULL: inet:127.0.0.1:11332 */
	const char *hole;   /* its name, NULL: none */
	const char *proxy;  /* proxy_listen, NULL: none */
};

static void
build(const struct postfix_case *c, struct mw_conf *conf, struct mw_postfix *p)
{
	char **listen = mw_arena_alloc(arena, sizeof *listen);
	*listen = mw_arena_strdup(arena, c->listen ? c->listen : "inet:127.0.0.1:11332");
	*conf = (struct mw_conf){.milter_listen = {listen, 1}};
	if (c->proxy) {
		conf->proxy_listen.v = mw_arena_alloc(arena, sizeof(char *));
		conf->proxy_listen.v[0] = mw_arena_strdup(arena, c->proxy);
		conf->proxy_listen.n = 1;
	}
	*p = (struct mw_postfix){.arena = arena, .conf = conf};
	p->main = mw_arena_alloc(arena, sizeof good + sizeof c->main);
	p->over = mw_arena_alloc(arena, sizeof c->over);
	/* What is found first counts. */
	for (size_t i = 0; i < MW_COUNT(c->main) && c->main[i].name; i++)
		p->main[p->n_main++] = c->main[i];
	for (size_t i = 0; i < MW_COUNT(good); i++)
		p->main[p->n_main++] = good[i];
	for (size_t i = 0; i < MW_COUNT(c->over) && c->over[i].name; i++)
		p->over[p->n_over++] = c->over[i];
	p->raw = p->main;
	p->n_raw = p->n_main;
	p->service = mw_arena_alloc(arena, sizeof services);
	memcpy(p->service, services, sizeof services);
	p->n_service = MW_COUNT(services);
}

static const struct postfix_case cases[] = {
    {.hole = NULL},
    {.main = {{"smtpd_milters", "inet:localhost:8891"}}, .hole = "smtpd_milters"},
    {.main = {{"smtpd_milters", ""}}, .hole = "smtpd_milters"},
    {.main = {{"non_smtpd_milters", ""}}, .hole = "non_smtpd_milters"},
    {.main = {{"smtpd_milters", "{ inet:127.0.0.1:11332, default_action=accept }"}},
     .hole = "default_action"},
    {.main = {{"smtpd_milters", "{inet:127.0.0.1:11332 default_action=quarantine}"}},
     .hole = "default_action"},
    {.main = {{"smtpd_milters", "{ inet:h:1, { default_action = quarantine } }, "
                                "inet:127.0.0.1:11332"}},
     .hole = "default_action"},
    {.main = {{"smtpd_milters",
               "{ inet:127.0.0.1:11332 protocol=6 default_action=accept }"}},
     .hole = "default_action"},
    {.main = {{"smtpd_milters", "inet:127.0.0.1:11332, { inet:h:1, "
                                "default_action=accept }"}},
     .hole = NULL}, /* not ours */
    {.main = {{"smtpd_milters", "{ inet:127.0.0.1:11332, protocol=5 }"}},
     .hole = "protocol"},
    {.main = {{"internal_mail_filter_classes", "bounce"}},
     .hole = "internal_mail_filter_classes"},
    {.main = {{"enable_long_queue_ids", "no"}}, .hole = "enable_long_queue_ids"},
    {.main = {{"smtpd_milter_maps", "cidr:/x"}}, .hole = "smtpd_milter_maps"},
    {.main = {{"smtpd_milter_maps", "static:disable"}}, .hole = "smtpd_milter_maps"},
    {.main = {{"smtpd_milter_maps", "static:inet:localhost:11332"}}, .hole = NULL},
    {.main = {{"smtpd_milter_maps", "static:{ { inet:h:1, default_action=accept } }"}},
     .hole = "smtpd_milter_maps"},
    {.main = {{"smtpd_milter_maps",
               "static:{ { inet:localhost:11332, default_action=accept } }"}},
     .hole = "default_action"},
    {.main = {{"smtpd_milter_maps",
               "cidr:{ {10.0.0.0/8 inet:127.0.0.1:11332}, {::1 DISABLE} }"}},
     .hole = "smtpd_milter_maps"},
    {.main = {{"smtpd_milter_maps",
               "cidr:{{10.0.0.0/8 inet:h:1, inet:127.0.0.1:11332}}"}},
     .hole = NULL},
    {.main = {{"smtpd_milter_maps", "pcre:{{/a b\\/c/i DISABLE}}"}},
     .hole = "smtpd_milter_maps"},
    {.main = {{"smtpd_milter_maps",
               "regexp:{{if /^1/}{!/a DISABLE/ inet:127.0.0.1:11332}{endif}}"}},
     .hole = NULL},
    /* What comes behind a table that answers for all is not asked. */
    {.main = {{"smtpd_milter_maps", "static:inet:localhost:11332, static:DISABLE"}},
     .hole = NULL},
    {.main = {{"receive_override_options", "no_address_mappings, no_milters"}},
     .hole = "no_milters"},
    {.main = {{"smtpd_proxy_filter", "127.0.0.1:10024"}}, .hole = "smtpd_proxy_filter"},
    {.over = {{"smtp/inet/smtpd_milters", ""}}, .hole = "service"},
    {.over = {{"smtp/inet/smtpd_milters", "inet:localhost:11332"}}, .hole = NULL},
    {.over = {{"smtp/inet/smtpd_proxy_filter", "127.0.0.1:10024"}},
     .hole = "smtpd_proxy_filter"},
    {.over = {{"smtp/inet/smtpd_proxy_filter", "127.0.0.1:10024"},
              {"smtp/inet/smtpd_milters", ""}},
     .hole = "service"},
    {.over = {{"smtp/inet/smtpd_proxy_filter", "127.0.0.1:10024"},
              {"smtp/inet/smtpd_milters", ""}},
     .proxy = "smtp:inet:127.0.0.1:10024->inet:127.0.0.1:10025",
     .hole = NULL},
    {.over = {{"smtp/inet/smtpd_proxy_filter", "inet:127.0.0.1:10024"},
              {"smtp/inet/smtpd_milters", ""}},
     .proxy = "lmtp:inet:127.0.0.1:10024->inet:127.0.0.1:10025",
     .hole = "service"},
    {.over = {{"smtp/inet/smtpd_milter_maps", "cidr:/x"}}, .hole = "smtpd_milter_maps"},
    {.over = {{"smtp/inet/smtpd_milter_maps", "static:DISABLE"}}, .hole = "service"},
    {.main = {{"content_filter", "amavis:[127.0.0.1]:10024"}},
     .over = {{"127.0.0.1:10025/inet/smtpd_milter_maps", "static:DISABLE"}},
     .hole = NULL},
    {.over = {{"cleanup/unix/non_smtpd_milters", ""}}, .hole = "service"},
    /* The same override is a hole without a content filter, and required with one. */
    {.over = {{"127.0.0.1:10025/inet/receive_override_options", "no_milters"}},
     .hole = "service"},
    {.main = {{"content_filter", "amavis:[127.0.0.1]:10024"}},
     .over = {{"127.0.0.1:10025/inet/receive_override_options", "no_milters"}},
     .hole = NULL},
    {.main = {{"content_filter", "amavis:[127.0.0.1]:10024"}},
     .over = {{"smtp/inet/receive_override_options", "no_milters"}},
     .hole = "service"},
    {.main = {{"smtpd_milters", "unix:mailwal/m"},
              {"non_smtpd_milters", "unix:/mailwal/m"}},
     .listen = "unix:/var/spool/postfix/mailwal/m",
     .hole = NULL},
    {.main = {{"smtpd_milters", "unix:/run/m"}, {"non_smtpd_milters", "unix:/run/m"}},
     .listen = "unix:/run/m",
     .hole = "chroot"},
    /* In a chroot this is /var/spool/postfix below /var/spool/postfix. */
    {.main = {{"smtpd_milters", "unix:/var/spool/postfix/mailwal/m"},
              {"non_smtpd_milters", "unix:mailwal/m"}},
     .listen = "unix:/var/spool/postfix/mailwal/m",
     .hole = "chroot"},
    {.main = {{"smtpd_milters", "unix:mailwal/m"},
              {"non_smtpd_milters", "unix:/var/spool/postfix/mailwal/m"}},
     .listen = "unix:/var/spool/postfix/mailwal/m",
     .hole = "chroot"},
    {.main = {{"smtpd_milters", "unix:mailwal/m"},
              {"non_smtpd_milters", "unix:mailwal/m"}},
     .over = {{"smtp/inet/smtpd_milters",
               "{ unix:/var/spool/postfix/mailwal/m, default_action=tempfail }"}},
     .listen = "unix:/var/spool/postfix/mailwal/m",
     .hole = "chroot"},
    /* A service's own default counts for it. */
    {.over = {{"127.0.0.1:10025/inet/milter_default_action", "accept"},
              {"127.0.0.1:10025/inet/smtpd_milters", "inet:127.0.0.1:11332"}},
     .hole = "default_action"},
    {.main = {{"smtpd_milters", "inet:127.0.0.1:11332"}},
     .over = {{"smtp/inet/milter_default_action", "accept"}},
     .hole = "default_action"},
    {.over = {{"smtp/inet/milter_default_action", "accept"}}, .hole = NULL},
    {.over = {{"cleanup/unix/milter_default_action", "accept"}},
     .hole = "default_action"},
    {.over = {{"smtp/inet/milter_protocol", "4"}}, .hole = "protocol"},
    {.main = {{"milter_default_action", "accept"},
              {"non_smtpd_milters", "{ inet:127.0.0.1:11332, default_action=tempfail }"}},
     .over = {{"smtp/inet/smtpd_milters", "inet:127.0.0.1:11332"},
              {"smtp/inet/milter_default_action", "tempfail"}},
     .hole = NULL},
};

static void
holes_are_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		struct mw_conf conf;
		struct mw_postfix p;
		struct mw_advices f;
		bool found = false;
		build(&cases[i], &conf, &p);
		mw_postfix_check(&p, &f);
		for (size_t k = 0; k < f.n; k++)
			if (f.v[k].kind == MW_ADVICE_HOLE && cases[i].hole &&
			    strcmp(f.v[k].name, cases[i].hole) == 0)
				found = true;
		if ((f.holes > 0) != (cases[i].hole != NULL) || found != (f.holes > 0))
			fail_msg("case %zu: %zu holes, first %s; expected %s", i, f.holes,
			         f.n ? f.v[0].text : "-",
			         cases[i].hole ? cases[i].hole : "none");
	}
}

/* One socket by two ways (/var/run is /run): it is found, and not put in twice. */
static void
a_link_is_the_same_place(void **state)
{
	(void)state;
	char root[] = "/tmp/mw-setup-XXXXXX", text[3][120];
	struct mw_conf conf;
	struct mw_postfix p;
	struct mw_pair *plan;
	struct mw_err err = {0};
	size_t n;
	assert_non_null(mkdtemp(root));
	(void)snprintf(text[0], sizeof text[0], "%s/run", root);
	assert_int_equal(mkdir(text[0], 0755), 0);
	(void)snprintf(text[1], sizeof text[1], "%s/link", root);
	assert_int_equal(symlink("run", text[1]), 0);
	(void)snprintf(text[0], sizeof text[0], "unix:%s/run/m", root);
	(void)snprintf(text[1], sizeof text[1], "{ unix:%s/link/m, command_timeout=9s }",
	               root);
	const struct postfix_case c = {.main = {{"smtpd_milters", text[1]},
	                                        {"non_smtpd_milters", text[1]}},
	                               .listen = text[0]};
	build(&c, &conf, &p);
	for (size_t i = 0; i < p.n_service; i++)
		p.service[i].chroot = false;
	assert_int_equal(mw_postfix_plan(&p, &plan, &n, &err), 0);
	for (size_t i = 0; i < n; i++) /* ours takes its place */
		if (strcmp(plan[i].name, "smtpd_milters") == 0)
			assert_null(strstr(plan[i].value, "link"));
	(void)snprintf(text[2], sizeof text[2], "rm -r '%s'", root);
	assert_int_equal(system(text[2]), 0);
}

/* A table that is a link is looked through, as Postfix does. */
static void
a_table_behind_a_link(void **state)
{
	(void)state;
	char root[] = "/tmp/mw-setup-XXXXXX", name[120], maps[120], cmd[60];
	struct mw_conf conf;
	struct mw_postfix p;
	struct mw_advices f;
	assert_non_null(mkdtemp(root));
	(void)snprintf(name, sizeof name, "%s/table", root);
	FILE *file = fopen(name, "w");
	assert_non_null(file);
	assert_true(fputs("10.0.0.0/8 inet:127.0.0.1:11332\n", file) >= 0);
	assert_int_equal(fclose(file), 0);
	(void)snprintf(name, sizeof name, "%s/link", root);
	assert_int_equal(symlink("table", name), 0);
	(void)snprintf(maps, sizeof maps, "cidr:%s", name);
	const struct postfix_case c = {.main = {{"smtpd_milter_maps", maps}}};
	build(&c, &conf, &p);
	mw_postfix_check(&p, &f);
	assert_int_equal(f.holes, 0);
	(void)snprintf(cmd, sizeof cmd, "rm -r '%s'", root);
	assert_int_equal(system(cmd), 0);
}

/* Making the planned settings leaves no hole that a setting can close, and no new plan.
 */
static void
a_plan_closes_them(void **state)
{
	(void)state;
	static const struct postfix_case spoiled[] = {
	    {.main = {{"smtpd_milters", "inet:a:1,inet:b:2"}, {"non_smtpd_milters", ""}}},
	    {.main = {{"smtpd_milters",
	               "{ inet:localhost:11332, default_action=accept }"}}},
	    {.main = {{"internal_mail_filter_classes", ""},
	              {"enable_long_queue_ids", "no"}}},
	};
	for (size_t i = 0; i < MW_COUNT(spoiled); i++) {
		struct mw_conf conf;
		struct mw_postfix p;
		struct mw_advices f;
		struct mw_pair *plan;
		size_t n;
		struct mw_err err = {0};
		build(&spoiled[i], &conf, &p);
		assert_int_equal(mw_postfix_plan(&p, &plan, &n, &err), 0);
		assert_true(n > 0);
		for (size_t k = 0; k < n; k++)
			for (size_t m = 0; m < p.n_main; m++)
				if (strcmp(p.main[m].name, plan[k].name) == 0)
					p.main[m].value = plan[k].value;
		mw_postfix_check(&p, &f);
		assert_int_equal(f.holes, 0);
		assert_int_equal(mw_postfix_plan(&p, &plan, &n, &err), 0);
		assert_int_equal(n, 0);
	}
}

static void
other_milters_stay(void **state)
{
	(void)state;
	static const struct postfix_case c = {
	    .main = {{"smtpd_milters", "{ inet:a:1, default_action=accept } , $rspamd"},
	             {"non_smtpd_milters", "$smtpd_milters"}}};
	struct mw_conf conf;
	struct mw_postfix p;
	struct mw_pair *plan;
	size_t n;
	struct mw_err err = {0};
	build(&c, &conf, &p);
	assert_int_equal(mw_postfix_plan(&p, &plan, &n, &err), 0);
	assert_int_equal(n, 1); /* the second list is the first */
	assert_non_null(strstr(plan[0].value,
	                       "{ inet:a:1, default_action=accept }, $rspamd, { inet:"));
}

static void
a_chroot_needs_a_way_in(void **state)
{
	(void)state;
	static const struct postfix_case c = {.listen = "unix:/run/mailwal/milter.sock"};
	struct mw_conf conf;
	struct mw_postfix p;
	struct mw_pair *plan;
	size_t n;
	struct mw_err err = {0};
	build(&c, &conf, &p);
	assert_int_equal(mw_postfix_plan(&p, &plan, &n, &err), MW_ECONF);
	assert_non_null(strstr(err.hint, "/var/spool/postfix/mailwal"));
}

static void
a_program_that_fails_is_told(void **state)
{
	(void)state;
	static char sh[] = "sh", c[] = "-c", script[] = "echo words; exit 3",
	            no[] = "/nonexistent/postconf";
	char *const fails[] = {sh, c, script, NULL}, *const missing[] = {no, NULL};
	MW_BUF_AUTO out = {0};
	struct mw_err err = {0};
	assert_int_equal(mw_setup_run(fails, &out, &err), MW_EUNAVAIL);
	assert_non_null(strstr(err.msg, "words"));
	assert_int_equal(mw_setup_run(missing, &out, &err), MW_EUNAVAIL);
	assert_true(err.hint[0] != '\0');
}

/* The holes of a chrooted Postfix at root/queue, whose list has "unix:", where and path,
 * while mailwald listens at root/at. */
static size_t
holes_of(const char *root, const char *at, const char *where, const char *path,
         bool want_plan)
{
	char listen[120], queue[120], list[120];
	(void)snprintf(listen, sizeof listen, "unix:%s/%s", root, at);
	(void)snprintf(queue, sizeof queue, "%s/queue", root);
	(void)snprintf(list, sizeof list, "unix:%s%s", where, path);
	const struct postfix_case c = {.main = {{"smtpd_milters", list},
	                                        {"non_smtpd_milters", list}},
	                               .listen = listen};
	struct mw_conf conf;
	struct mw_postfix p;
	struct mw_advices f;
	build(&c, &conf, &p);
	for (size_t i = 0; i < p.n_main; i++)
		if (strcmp(p.main[i].name, "queue_directory") == 0)
			p.main[i].value = queue;
	mw_postfix_check(&p, &f);
	if (want_plan) {
		struct mw_pair *plan;
		size_t n;
		struct mw_err err = {0};
		assert_int_equal(mw_postfix_plan(&p, &plan, &n, &err), 0);
		for (size_t i = 0; i < n; i++)
			if (strcmp(plan[i].name, "smtpd_milters") == 0)
				assert_non_null(strstr(plan[i].value, listen));
	}
	return f.holes;
}

static void
make(bool dir, const char *root, const char *below)
{
	char path[120];
	(void)snprintf(path, sizeof path, "%s/%s", root, below);
	if (dir)
		assert_int_equal(mkdir(path, 0755), 0);
	else
		assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
}

/* A socket that is put into the chroot: as another name of it, or by a mount. A link out
 * of the chroot leads nowhere there. */
static void
a_chroot_with_the_socket_put_into_it(void **state)
{
	(void)state;
	char root[] = "/tmp/mw-setup-XXXXXX", a[120], b[400];
	assert_non_null(mkdtemp(root));
	make(true, root, "run");
	make(true, root, "queue");
	make(true, root, "queue/mailwal");
	make(false, root, "run/m");
	assert_true(holes_of(root, "run/m", "", "mailwal/m", false) > 0);
	(void)snprintf(a, sizeof a, "%s/run/m", root);
	(void)snprintf(b, sizeof b, "%s/queue/mailwal/m", root);
	assert_int_equal(link(a, b), 0);
	assert_int_equal(holes_of(root, "run/m", "", "mailwal/m", false), 0);
	assert_int_equal(holes_of(root, "run/m", "", "/mailwal/m", false), 0);
	assert_true(holes_of(root, "run/m", root, "/queue/mailwal/m", false) > 0);
	(void)snprintf(b, sizeof b, "%s/queue/out", root);
	assert_int_equal(symlink("../run", b), 0);
	assert_true(holes_of(root, "run/m", "", "out/m", false) > 0);
	assert_true(holes_of(root, "queue/out/m", "", "out/m", false) > 0);
	assert_int_equal(holes_of(root, "queue/none/m", "", "none/m", false), 0);

	if (unshare(CLONE_NEWNS) == 0 &&
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0) {
		make(true, root, "queue/mounted");
		(void)snprintf(a, sizeof a, "%s/run", root);
		(void)snprintf(b, sizeof b, "%s/queue/mounted", root);
		assert_int_equal(mount(a, b, NULL, MS_BIND, NULL), 0);
		assert_int_equal(holes_of(root, "run/m", "", "mounted/m", false), 0);
		assert_int_equal(umount(b), 0);
		/* At the same path in the chroot it is what the plan names, too. */
		(void)snprintf(b, sizeof b, "mkdir -p '%s/queue%s/run'", root, root);
		assert_int_equal(system(b), 0);
		(void)snprintf(b, sizeof b, "%s/queue%s/run", root, root);
		assert_int_equal(mount(a, b, NULL, MS_BIND, NULL), 0);
		assert_int_equal(holes_of(root, "run/m", root, "/run/m", true), 0);
		assert_int_equal(umount(b), 0);
	}
	(void)snprintf(b, sizeof b, "rm -r '%s'", root);
	assert_int_equal(system(b), 0);
}

/* A stand-in for postfix(1): `status` ends with $STATUS, all calls are written down. */
static void
a_running_postfix_is_reloaded(void **state)
{
	static const struct postfix_case c = {.listen = "inet:127.0.0.1:11332"};
	char dir[] = "/tmp/mw-setup-test-XXXXXX";
	struct mw_conf conf;
	struct mw_postfix p;
	struct mw_err err = {0};
	bool running = false;
	(void)state;
	build(&c, &conf, &p);
	p.dir = "/etc/postfix-in";
	assert_non_null(mkdtemp(dir));
	MW_BUF_AUTO path = {0}, log = {0};
	mw_buf_printf(&path, "%s/postfix", dir);
	mw_buf_printf(&log, "%s/log", dir);
	FILE *f = fopen(mw_buf_cstr(&path), "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\necho \"$*\" >>%s\n[ $3 = reload ] || exit $STATUS\n",
	        mw_buf_cstr(&log));
	assert_int_equal(fchmod(fileno(f), 0755), 0);
	assert_int_equal(fclose(f), 0);
	MW_BUF_AUTO search = {0};
	mw_buf_printf(&search, "%s:%s", dir, getenv("PATH"));
	assert_int_equal(setenv("PATH", mw_buf_cstr(&search), 1), 0);

	assert_int_equal(setenv("STATUS", "1", 1), 0);
	assert_int_equal(mw_postfix_reload(&p, &running, &err), 0);
	assert_false(running);
	assert_int_equal(setenv("STATUS", "0", 1), 0);
	assert_int_equal(mw_postfix_reload(&p, &running, &err), 0);
	assert_true(running);

	char line[512] = "";
	f = fopen(mw_buf_cstr(&log), "r");
	assert_non_null(f);
	size_t got = fread(line, 1, sizeof line - 1, f);
	assert_int_equal(fclose(f), 0);
	line[got] = '\0';
	assert_string_equal(line, "-c /etc/postfix-in status\n-c /etc/postfix-in status\n"
	                          "-c /etc/postfix-in reload\n");
	assert_int_equal(unlink(mw_buf_cstr(&path)), 0);
	assert_int_equal(unlink(mw_buf_cstr(&log)), 0);
	assert_int_equal(rmdir(dir), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(holes_are_named),
	    cmocka_unit_test(a_link_is_the_same_place),
	    cmocka_unit_test(a_table_behind_a_link),
	    cmocka_unit_test(a_plan_closes_them),
	    cmocka_unit_test(other_milters_stay),
	    cmocka_unit_test(a_chroot_needs_a_way_in),
	    cmocka_unit_test(a_chroot_with_the_socket_put_into_it),
	    cmocka_unit_test(a_program_that_fails_is_told),
	    cmocka_unit_test(a_running_postfix_is_reloaded),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
