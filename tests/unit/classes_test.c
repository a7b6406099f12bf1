/* The capture sections: how they are written, and what they decide for whom. */
#include "milter/classes.h"

#include "journal/base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct mw_conf *
load(const char *text, struct mw_buf *report, int *ret)
{
	char path[] = "/tmp/mw-classes-XXXXXX";
	struct mw_conf *c = NULL;
	struct mw_err err = {0};
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
	*ret = mw_conf_load(path, &c, report, &err);
	(void)unlink(path);
	return c;
}

/* ---- how they are written ---- */

static void
what_is_written_is_what_is_shown(void **state)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {
	    {"capture a { match = direction:in; journal = no }\n",
	     "capture a {\n  match = direction:in\n  journal = no\n}\n"},
	    {"capture b {\n  on_failure = accept\n}\n",
	     "capture b {\n  on_failure = accept\n}\n"},
	    {"capture all {\n}\n", "capture all {\n}\n"},
	    {"capture l { match = domain:[192.0.2.1] sender_domain:[IPv6:2001:db8::1] "
	     "}\n",
	     "capture l {\n  match = domain:[192.0.2.1] "
	     "sender_domain:[IPv6:2001:db8::1]\n}\n"},
	    {"capture q { match = \"header:Subject: * out of office *\", "
	     "\"header:X:\\\"a, b\\\"\" \"rcpt:\\\"a b\\\"@b.test\" }\n",
	     "capture q {\n  match = \"header:Subject: * out of office *\" "
	     "\"header:X:\\\"a, b\\\"\" \"rcpt:\\\"a b\\\"@b.test\"\n}\n"},
	    {"capture c {\n match = rcpt:a@b.test domain:c.test sender: "
	     "sender:root sender_domain:d.test user:* client:192.0.2.0/24 "
	     "client:2001:db8::/32 header:List-Id \"header:X-A:*b c*\" spam:yes "
	     "larger:5M smaller:1G\n}\n",
	     "capture c {\n  match = rcpt:a@b.test domain:c.test sender: sender:root "
	     "sender_domain:d.test user:* client:192.0.2.0/24 client:2001:db8::/32 "
	     "header:List-Id \"header:X-A:*b c*\" spam:yes larger:5M smaller:1G\n}\n"},
	    {"retain r { match = class:a header:List-Id spam:no larger:1M; keep = 1d }\n"
	     "capture a {\n}\n",
	     "capture a {\n}\nretain r {\n  match = class:a header:List-Id spam:no "
	     "larger:1M\n  keep = 1d\n}\n"},
	    {"retain r { keep = 1d }\ncapture a { journal = no }\n",
	     "capture a {\n  journal = no\n}\nretain r {\n  keep = 1d\n}\n"},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_BUF_AUTO report = {0}, out = {0};
		int r;
		struct mw_conf *c = load(cases[i].text, &report, &r);
		if (r < 0)
			fail_msg("%s", mw_buf_cstr(&report));
		mw_conf_print(c, true, &out);
		assert_string_equal(mw_buf_cstr(&out), cases[i].shown);
		mw_conf_free(c);
	}
}

static void
mistakes_name_their_place(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
	    {"capture a { match = direction:up }\n",
	     ":1:21: error: match: expected in, out or internal, got 'up'"},
	    {"capture a {\n match = spam:maybe\n}\n",
	     ":2:10: error: match: expected spam:yes or spam:no, got 'spam:maybe'"},
	    {"capture a { match = from:x }\n",
	     ":1:21: error: match: expected direction:"},
	    {"capture a { match = client:1.2.3 }\n",
	     ":1:21: error: match: expected an address such as 192.0.2.1"},
	    {"capture a { match = client:10.0.0.0/33 }\n",
	     ":1:21: error: match: expected an address such as 192.0.2.1"},
	    {"capture a { match = client:::1/129 }\n",
	     ":1:21: error: match: expected an address such as 192.0.2.1"},
	    {"capture a { match = client:10.0.0.0/ }\n",
	     ":1:21: error: match: expected an address such as 192.0.2.1"},
	    {"capture a { match = header::x }\n",
	     ":1:21: error: match: expected the name of a header field"},
	    {"capture a { match = larger:big }\n",
	     ":1:21: error: match: expected a size such as 512K or 64M, got 'big'"},
	    {"capture a { match = user: }\n",
	     ":1:21: error: match: expected a login, or * for any"},
	    {"capture a { match = domain:[192.0.2.1 }\n",
	     ":1:21: error: match: '[192.0.2.1' is not a domain; expected an address in"},
	    {"capture a { match = domain:[b.test] }\n",
	     ":1:21: error: match: '[b.test]' is not a domain; expected an address in"},
	    {"capture a { match = sender_domain:[2001:db8::1] }\n",
	     ":1:21: error: match: '[2001:db8::1]' is not a domain; expected an address "
	     "in"},
	    {"capture a { match = domain:[] }\n",
	     ":1:21: error: match: '[]' is not a domain; expected an address in"},
	    {"capture a { match = domain:a@b }\n",
	     ":1:21: error: match: expected a domain"},
	    {"capture a { journal = maybe }\n",
	     ":1:23: error: journal: expected yes or no, got 'maybe'"},
	    {"capture a { on_failure = later }\n",
	     ":1:26: error: on_failure: expected global, tempfail or accept"},
	    {"retain a { match = class: ; keep = 1d }\n",
	     ":1:20: error: match: expected the name of a capture section"},
	    {"retain a { match = spam:maybe; keep = 1d }\n",
	     ":1:20: error: match: expected spam:yes or spam:no, got 'spam:maybe'"},
	    {"retain a { match = smaller:x; keep = 1d }\n",
	     ":1:20: error: match: expected a size such as 512K or 64M, got 'x'"},
	    {"retain a { match = user:x; keep = 1d }\n",
	     ":1:20: error: match: expected class:NAME, domain:DOMAIN"},
	    {"capture a { jurnal = no }\n",
	     ":1:13: error: unknown setting 'jurnal' in section capture; did you mean "
	     "'journal'?"},
	    {"capture a { keep = 1d }\n",
	     ":1:13: error: 'keep' belongs into a section 'retain NAME { }'"},
	    {"capture a { }\ncapture a { }\n",
	     ":2:9: error: there is a section capture a already"},
	    {"captur a { }\n",
	     ":1:1: error: unknown section 'captur'; did you mean 'capture'?"},
	    {"capture a\n", ":1:1: error: a section begins 'capture NAME {' on one line"},
	    {"journal = no\n",
	     ":1:1: error: 'journal' belongs into a section 'capture NAME { }'"},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_BUF_AUTO report = {0};
		int r;
		struct mw_conf *c = load(cases[i].text, &report, &r);
		assert_null(c);
		assert_int_equal(r, MW_ECONF);
		if (!strstr(mw_buf_cstr(&report), cases[i].message))
			fail_msg("%s: %s", cases[i].text, mw_buf_cstr(&report));
	}
}

static void
a_section_behind_one_that_fits_all_is_warned_of(void **state)
{
	MW_BUF_AUTO report = {0};
	int r;
	(void)state;
	struct mw_conf *c =
	    load("capture a { journal = no }\ncapture b { match = spam:yes }\n", &report,
	         &r);
	assert_int_equal(r, 0);
	assert_non_null(
	    strstr(mw_buf_cstr(&report), ":2:1: warning: this section is never"));
	mw_conf_free(c);
}

static void
a_class_of_no_section_is_warned_of(void **state)
{
	MW_BUF_AUTO report = {0};
	int r;
	(void)state;
	struct mw_conf *c = load("retain r { match = class:lists; keep = 1d }\n"
	                         "retain s { match = class:a; keep = 1d }\n"
	                         "capture a { match = spam:yes }\n",
	                         &report, &r);
	assert_int_equal(r, 0);
	assert_non_null(strstr(mw_buf_cstr(&report),
	                       "warning: retain r: there is no section 'capture lists'"));
	assert_null(strstr(mw_buf_cstr(&report), "retain s"));
	mw_conf_free(c);
}

/* ---- what they decide ---- */

#define IN  MW_DIR_IN, ""
#define OUT MW_DIR_OUT, "anna"

struct want {
	const char *sections;
	enum mw_direction direction;
	const char *user, *sender, *client, *header;
	uint64_t size;
	/* "a@b" accepted, "-a@b" refused, "!a@b" not local, "a@b>c@d,e@f" expanded */
	const char *rcpt[4];
	const char *excluded; /* numbers of the excluded recipients, "" none */
	bool journal;
	const char *section; /* that excluded it */
	int on_failure;
};

static struct mw_str
to(struct mw_str s, struct mw_rcpt *r, struct mw_str *boxes)
{
	struct mw_str list;
	if (!mw_str_cut(s, '>', &s, &list))
		return s;
	r->flags |= MW_RCPT_EXPANDED;
	r->mailbox = boxes;
	while (list.n) {
		struct mw_str one = list, rest = MW_STR("");
		(void)mw_str_cut(list, ',', &one, &rest);
		r->mailbox[r->n_mailbox++] = one;
		list = rest;
	}
	return s;
}

static void
one(const struct want *w)
{
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	struct mw_classes *classes;
	struct mw_str boxes[4][8];
	struct mw_rcpt rcpt[4] = {0};
	char excluded[8] = "";
	int r;
	struct mw_conf *c = load(w->sections, &report, &r);
	if (r < 0)
		fail_msg("%s", mw_buf_cstr(&report));
	assert_int_equal(mw_classes_new(c, &classes, &err), 0);
	struct mw_mail m = {.direction = w->direction,
	                    .auth_user = mw_strz(w->user),
	                    .sender = mw_strz(w->sender ? w->sender : "s@else.test"),
	                    .client_addr = mw_strz(w->client),
	                    .rcpt = rcpt};
	for (; m.n_rcpt < 4 && w->rcpt[m.n_rcpt]; m.n_rcpt++) {
		struct mw_rcpt *p = &rcpt[m.n_rcpt];
		struct mw_str s = mw_strz(w->rcpt[m.n_rcpt]);
		p->flags = *s.p == '-'   ? MW_RCPT_REFUSED
		           : *s.p == '!' ? 0
		                         : MW_RCPT_LOCAL;
		if (*s.p == '-' || *s.p == '!')
			s = mw_str(s.p + 1, s.n - 1);
		p->addr = to(s, p, boxes[m.n_rcpt]);
	}
	/* in one piece, and byte by byte */
	for (size_t cut = 1000; cut; cut = cut == 1000 ? 1 : 0) {
		struct mw_scan scan;
		struct mw_class got;
		struct mw_str h = mw_strz(w->header);
		mw_scan_begin(&scan, classes);
		for (size_t i = 0; i < h.n; i += cut)
			mw_scan_put(&scan, h.p + i, MW_MIN(cut, h.n - i));
		mw_scan_end(&scan);
		mw_classes_decide(classes, c, &scan, w->size, &m, &got);
		mw_scan_free(&scan);
		size_t n = 0;
		for (size_t i = 0; i < m.n_rcpt; i++)
			if (rcpt[i].flags & MW_RCPT_EXCLUDED)
				excluded[n++] = (char)('0' + i);
		excluded[n] = 0;
		if (got.journal != w->journal || strcmp(excluded, w->excluded) != 0)
			fail_msg("%s: %s, excluded: %s", w->sections,
			         got.journal ? "journaled" : "not journaled", excluded);
		if (got.journal)
			assert_int_equal(got.on_failure, w->on_failure);
		else
			assert_string_equal(mw_classes_name(classes, got.section),
			                    w->section);
	}
	mw_classes_free(classes);
	mw_conf_free(c);
}

static void
the_first_that_fits_decides(void **state)
{
	static const char spam[] = "capture spam { match = spam:yes; journal = no }\n";
	static const char order[] =
	    "capture legal { match = domain:legal.test }\n"
	    "capture lists { match = header:List-Id; journal = no }\n";
	static const struct want cases[] = {
	    {"", IN, .rcpt = {"a@b.test"}, .excluded = "", .journal = true},
	    /* spam flags of the two filters; what only looks like one */
	    {spam, IN, .header = "X-Spam-Flag: YES\r\n\r\n", .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "spam"},
	    {spam, IN, .header = "A: b\r\nx-spam:\t YES\r\n", .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "spam"},
	    {spam, IN, .header = "X-Spam-Status: Yes, score=9\r\n\r\n",
	     .rcpt = {"a@b.test"}, .excluded = "0", .section = "spam"},
	    {spam, IN, .header = "X-Spam-Flag: NO\r\n\r\n", .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    {spam, IN, .header = "X-Spam: yesterday\r\n\r\n", .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    {spam, IN, .header = "A: b\r\n X-Spam-Flag: YES\r\n\r\n",
	     .rcpt = {"a@b.test"}, .excluded = "", .journal = true},
	    {spam, IN, .header = "A: b\r\n\r\nX-Spam-Flag: YES\r\n", .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    /* the order of the file */
	    {order, IN, .header = "List-Id: x\r\n\r\n", .rcpt = {"a@legal.test"},
	     .excluded = "", .journal = true},
	    {order, IN, .header = "List-Id: x\r\n\r\n", .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "lists"},
	    /* one of several recipients keeps the mail; the others are marked */
	    {order, IN, .header = "List-Id: x\r\n\r\n",
	     .rcpt = {"a@b.test", "a@legal.test", "c@b.test"}, .excluded = "02",
	     .journal = true},
	    {order, IN, .header = "List-Id: x\r\n\r\n",
	     .rcpt = {"a@b.test", "-a@legal.test"}, .excluded = "0", .section = "lists"},
	    /* a folded field is one line */
	    {"capture x { match = \"header:Subject:a*z\"; journal = no }\n", IN,
	     .header = "Subject: A b\r\n c Z\r\n\r\n", .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "x"},
	    {"capture x { match = \"header:Subject:*out of office*\"; journal = no }\n",
	     IN, .header = "Subject: Re:  Out\r\n of office\r\n\r\n",
	     .rcpt = {"a@b.test"}, .excluded = "0", .section = "x"},
	    {"capture x { match = domain:[192.0.2.1]; journal = no }\n", IN,
	     .rcpt = {"a@[192.0.2.1]", "a@[192.0.2.2]"}, .excluded = "0",
	     .journal = true},
	    {"capture x { match = sender_domain:[IPv6:2001:db8::1]; journal = no }\n", IN,
	     .sender = "s@[ipv6:2001:DB8::1]", .rcpt = {"a@b.test"}, .excluded = "0",
	     .section = "x"},
	    {"capture x { match = header:Subject:a?z; journal = no }\n", IN,
	     .header = "Subject: abbz\r\n\r\n", .rcpt = {"a@b.test"}, .excluded = "",
	     .journal = true},
	    /* no recipient, all refused */
	    {"capture all { journal = no }\n", IN, .excluded = "", .section = "all"},
	    {"capture x { match = domain:b.test; journal = no }\n", IN,
	     .rcpt = {"-a@b.test"}, .excluded = "", .journal = true},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++)
		one(&cases[i]);
}

static void
each_kind_of_word_must_fit(void **state)
{
	static const char both[] = "capture x { match = sender:a@x.test sender:b@x.test "
	                           "larger:1K; journal = no }\n";
	static const char ours[] =
	    "capture x { match = direction:internal direction:out; journal = no }\n";
	static const struct want cases[] = {
	    {both, IN, .sender = "B@x.test", .size = 1025, .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "x"},
	    {both, IN, .sender = "b@x.test", .size = 1024, .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    {both, IN, .sender = "c@x.test", .size = 4096, .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    {"capture x { match = smaller:10; journal = no }\n", IN, .size = 9,
	     .rcpt = {"a@b.test"}, .excluded = "0", .section = "x"},
	    /* bounces */
	    {"capture x { match = sender:; journal = no }\n", IN, .sender = "",
	     .rcpt = {"a@b.test"}, .excluded = "0", .section = "x"},
	    {"capture x { match = sender:; journal = no }\n", IN, .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    {"capture x { match = sender_domain:ELSE.test; journal = no }\n", IN,
	     .rcpt = {"a@b.test"}, .excluded = "0", .section = "x"},
	    /* extensions; mailboxes of an alias */
	    {"capture x { match = rcpt:a@b.test; journal = no }\n", IN,
	     .rcpt = {"A+x@B.test", "ab@b.test", "a+x@c.test"}, .excluded = "0",
	     .journal = true},
	    {"capture x { match = rcpt:a@b.test; journal = no }\n", IN,
	     .rcpt = {"info@b.test>a@b.test,c@b.test", "one@b.test>a+1@b.test"},
	     .excluded = "1", .journal = true},
	    {"capture x { match = rcpt:info@b.test; journal = no }\n", IN,
	     .rcpt = {"info@b.test>a@b.test,c@b.test"}, .excluded = "0", .section = "x"},
	    /* direction is each recipient's own */
	    {"capture x { match = direction:out; journal = no }\n", OUT,
	     .rcpt = {"a@b.test", "!z@far.test"}, .excluded = "1", .journal = true},
	    {ours, OUT, .rcpt = {"a@b.test", "!z@far.test"}, .excluded = "01",
	     .section = "x"},
	    {ours, IN, .rcpt = {"a@b.test", "!z@far.test"}, .excluded = "",
	     .journal = true},
	    /* logins */
	    {"capture x { match = user:*; journal = no }\n", OUT, .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "x"},
	    {"capture x { match = user:*; journal = no }\n", IN, .rcpt = {"a@b.test"},
	     .excluded = "", .journal = true},
	    {"capture x { match = user:ANNA; journal = no }\n", OUT, .rcpt = {"a@b.test"},
	     .excluded = "0", .section = "x"},
	    /* networks */
	    {"capture x { match = client:192.0.2.128/25; journal = no }\n", IN,
	     .client = "192.0.2.200", .rcpt = {"a@b.test"}, .excluded = "0",
	     .section = "x"},
	    {"capture x { match = client:192.0.2.128/25; journal = no }\n", IN,
	     .client = "192.0.2.127", .rcpt = {"a@b.test"}, .excluded = "",
	     .journal = true},
	    {"capture x { match = client:2001:db8::/33; journal = no }\n", IN,
	     .client = "2001:db8:7fff::1", .rcpt = {"a@b.test"}, .excluded = "0",
	     .section = "x"},
	    {"capture x { match = client:0.0.0.0/0; journal = no }\n", IN,
	     .client = "::1", .rcpt = {"a@b.test"}, .excluded = "", .journal = true},
	    {"capture x { match = client:127.0.0.1; journal = no }\n", IN,
	     .rcpt = {"a@b.test"}, .excluded = "", .journal = true},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++)
		one(&cases[i]);
}

static void
the_strictest_policy_counts(void **state)
{
	enum {
		T = MW_ON_FAILURE_TEMPFAIL,
		A = MW_ON_FAILURE_ACCEPT
	};
	static const char soft[] =
	    "capture soft { match = domain:b.test; on_failure = accept }\n";
	static const char hard[] =
	    "on_failure = accept\n"
	    "capture hard { match = domain:b.test; on_failure = tempfail }\n"
	    "capture no { match = domain:c.test; journal = no }\n";
	static const struct want cases[] = {
	    {soft, IN, .rcpt = {"a@b.test"}, .excluded = "", .journal = true,
	     .on_failure = A},
	    {soft, IN, .rcpt = {"a@c.test"}, .excluded = "", .journal = true,
	     .on_failure = T},
	    {soft, IN, .rcpt = {"a@b.test", "a@c.test"}, .excluded = "", .journal = true,
	     .on_failure = T},
	    {hard, IN, .rcpt = {"a@b.test", "a@d.test"}, .excluded = "", .journal = true,
	     .on_failure = T},
	    {hard, IN, .rcpt = {"a@d.test"}, .excluded = "", .journal = true,
	     .on_failure = A},
	    /* an excluded recipient has no say */
	    {hard, IN, .rcpt = {"a@c.test", "a@d.test"}, .excluded = "0", .journal = true,
	     .on_failure = A},
	};
	(void)state;
	for (size_t i = 0; i < MW_COUNT(cases); i++)
		one(&cases[i]);
}

/* What stays with the record: "class class/fact fact". */
static void
the_record_says_of_which_class_it_is(void **state)
{
	static const char text[] =
	    "capture boss { match = rcpt:boss@b.test }\n"
	    "capture spam { match = spam:yes }\n"
	    "capture no { match = rcpt:no@b.test; journal = no }\n"
	    "retain a { match = header:List-Id spam:no; keep = 1d }\n"
	    "retain b { match = HEADER:list-id; keep = 1d }\n"
	    "retain c { match = \"header:Subject:*a b*\" spam:yes; keep = 1d }\n";
	static const struct {
		const char *header, *rcpt[3], *want;
	} cases[] = {
	    {"A: b\r\n\r\n", {"x@b.test"}, "/spam:no "},
	    {"A: b\r\n\r\n", {"boss@b.test"}, "boss /spam:no "},
	    {"A: b\r\n\r\n", {"boss@b.test", "x@b.test"}, "boss - /spam:no "},
	    {"X-Spam: yes\r\n\r\n", {"x@b.test", "y@b.test"}, "spam /spam:yes "},
	    {"X-Spam: yes\r\n\r\n", {"x@b.test", "boss@b.test"}, "boss spam /spam:yes "},
	    /* who is left out has no say */
	    {"List-Id: x\r\n\r\n",
	     {"no@b.test", "boss@b.test"},
	     "boss /header:List-Id spam:no "},
	    {"Subject: is a b c\r\n\r\n",
	     {"no@b.test", "x@b.test"},
	     "/spam:no header:Subject:*a b* "},
	};
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	struct mw_classes *classes;
	int r;
	(void)state;
	/* a word's kind is in small letters: so it is told apart from a typing error */
	struct mw_conf *c = load(text, &report, &r);
	assert_null(c);
	char *small = strdup(text);
	assert_non_null(small);
	memcpy(strstr(small, "HEADER:"), "header:", 7);
	c = load(small, &report, &r);
	free(small);
	if (r < 0)
		fail_msg("%s", mw_buf_cstr(&report));
	assert_int_equal(mw_classes_new(c, &classes, &err), 0);
	for (size_t i = 0; i < MW_COUNT(cases); i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO got = {0};
		struct mw_rcpt rcpt[3] = {0};
		struct mw_mail m = {.rcpt = rcpt};
		struct mw_class k;
		struct mw_scan scan;
		for (; m.n_rcpt < 3 && cases[i].rcpt[m.n_rcpt]; m.n_rcpt++)
			rcpt[m.n_rcpt] =
			    (struct mw_rcpt){.addr = mw_strz(cases[i].rcpt[m.n_rcpt]),
			                     .flags = MW_RCPT_LOCAL};
		mw_scan_begin(&scan, classes);
		mw_scan_put(&scan, cases[i].header, strlen(cases[i].header));
		mw_scan_end(&scan);
		mw_classes_decide(classes, c, &scan, 10, &m, &k);
		assert_int_equal(mw_classes_note(classes, &scan, &k, a, &m), 0);
		for (size_t j = 0; j < m.n_class; j++)
			mw_buf_printf(&got, "%.*s ", MW_MAX((int)m.class[j].n, 1),
			              m.class[j].n ? m.class[j].p : "-");
		mw_buf_puts(&got, "/");
		for (size_t j = 0; j < m.n_fact; j++)
			mw_buf_printf(&got, "%.*s ", (int)m.fact[j].n, m.fact[j].p);
		assert_string_equal(mw_buf_cstr(&got), cases[i].want);
		mw_scan_free(&scan);
	}
	mw_classes_free(classes);
	mw_conf_free(c);
}

static void
hostile_headers_cost_little(void **state)
{
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	struct mw_classes *classes;
	struct mw_scan scan;
	struct mw_class got;
	struct mw_rcpt rcpt = {.addr = MW_STR("a@b.test")};
	struct mw_mail m = {.rcpt = &rcpt, .n_rcpt = 1};
	char chunk[4096];
	int r;
	(void)state;
	struct mw_conf *c = load("capture x { match = header:A:*a*a*a*a*a*b spam:yes; "
	                         "journal = no }\n",
	                         &report, &r);
	assert_int_equal(r, 0);
	assert_int_equal(mw_classes_new(c, &classes, &err), 0);
	/* one endless field, then what comes too late to be looked at */
	memset(chunk, 'a', sizeof chunk);
	mw_scan_begin(&scan, classes);
	mw_scan_put(&scan, "A:", 2);
	for (int i = 0; i < 300; i++)
		mw_scan_put(&scan, chunk, sizeof chunk);
	assert_true(scan.over);
	mw_scan_put(&scan, "\r\nX-Spam: yes\r\n\r\n", 17);
	mw_classes_decide(classes, c, &scan, 0, &m, &got);
	assert_true(got.journal);
	mw_scan_free(&scan);
	mw_classes_free(classes);
	mw_conf_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_written_is_what_is_shown),
	    cmocka_unit_test(mistakes_name_their_place),
	    cmocka_unit_test(a_section_behind_one_that_fits_all_is_warned_of),
	    cmocka_unit_test(a_class_of_no_section_is_warned_of),
	    cmocka_unit_test(the_record_says_of_which_class_it_is),
	    cmocka_unit_test(the_first_that_fits_decides),
	    cmocka_unit_test(each_kind_of_word_must_fit),
	    cmocka_unit_test(the_strictest_policy_counts),
	    cmocka_unit_test(hostile_headers_cost_little),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
