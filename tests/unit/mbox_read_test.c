/* What is a message in an mbox: the dialects, and lengths that a sender chose. */
#include "journal/base/buf.h"
#include "journal/base/util.h"
#include "replay/mbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define F   "From x@y Thu Nov 19 10:00:00 2026\n" /* others, with one blank or two */
#define F2  "From x@y  Thu Nov 19 10:00:00 2026\n"
#define OWN "From x@y   Thu Nov 19 10:00:00 2026\n"
#define H   "Subject: s\n"
#define H_  "Subject: s\r\n"
#define MAX 6

static int
to_buf(void *arg, const void *p, size_t n)
{
	mw_buf_put(arg, p, n);
	return 0;
}

static int
file_of(const char *p, size_t n)
{
	int fd = memfd_create("mbox", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	return fd;
}

/* The messages of p, each in a buffer; how many. */
static size_t
messages(const char *p, size_t n, enum mw_mbox_format format, struct mw_buf *ret)
{
	MW_AUTOCLOSE int fd = file_of(p, n);
	struct mw_mbox *m;
	struct mw_from from;
	uint64_t at[MAX];
	size_t k = 0;
	assert_int_equal(mw_mbox_new(fd, format, true, &m), 0);
	while (mw_mbox_next(m, &at[k], &from) > 0) {
		assert_int_equal(mw_mbox_content(m, to_buf, &ret[k]), 0);
		assert_true(++k < MAX);
	}
	for (size_t i = k; i-- > 0;) { /* and in any order */
		MW_BUF_AUTO again = {0};
		uint64_t there;
		mw_mbox_seek(m, at[i]);
		assert_int_equal(mw_mbox_next(m, &there, &from), 1);
		assert_true(there == at[i]);
		assert_int_equal(mw_mbox_content(m, to_buf, &again), 0);
		assert_true(mw_str_eq(mw_buf_str(&again), mw_buf_str(&ret[i])));
	}
	mw_mbox_free(m);
	return k;
}

static void
dialects(void **state)
{
	(void)state;
#define A MW_MBOX_AUTO
	static const struct {
		const char *what;
		enum mw_mbox_format format;
		const char *text;
		const char *want[3];
	} t[] = {
	    {"two",
	     A,
	     F H "\none\n\n" F2 H "\ntwo\n\n",
	     {H_ "\r\none\r\n", H_ "\r\ntwo\r\n"}},
	    {"no empty last line",
	     A,
	     F H "\none\n\n" F H "\ntwo\n",
	     {H_ "\r\none\r\n", H_ "\r\ntwo\r\n"}},
	    {"no last line end",
	     A,
	     F H "\none\n\n" F H "\ntwo",
	     {H_ "\r\none\r\n", H_ "\r\ntwo"}},
	    {"no empty line before a From_ line",
	     A,
	     F H "\none\n" F H "\ntwo\n",
	     {H_ "\r\none\r\nFrom x@y Thu Nov 19 10:00:00 2026\r\n" H_ "\r\ntwo\r\n"}},
	    {"no body", A, F H "\n" F H "\n\n" F H, {H_ "\r\n", H_ "\r\n", H_}},
	    {"own, no body", A, OWN H "\n" OWN H "\n\n" OWN "\n", {H_, H_ "\r\n", ""}},
	    {"CRLF",
	     A,
	     "From x@y Thu Nov 19 10:00:00 2026\r\nSubject: s\r\n\r\n1\n2\r\n\r\n",
	     {H_ "\r\n1\n2\r\n"}},
	    {"CRLF in an LF file",
	     A,
	     F H_ "\r\n1\n2\r\n\n" F H "\n1\r\n2\n\n",
	     {H_ "\r\n1\n2\r\n", H_ "\r\n1\r\n2\r\n"}},
	    {"own: CR CR LF",
	     A,
	     OWN "Subject: s\r\n\n1\r\n2\n\r\n\n",
	     {"Subject: s\r\r\n\r\n1\r\r\n2\r\n\r\r\n"}},
	    {"own, made CRLF",
	     A,
	     "From x@y   Thu Nov 19 10:00:00 2026\r\n" H_ "\r\n>From a\r\n\r\n",
	     {H_ "\r\nFrom a\r\n"}},
	    {"quoted",
	     A,
	     F H "\n>From a\n>>From b\nFrom c\n> From d\n\n",
	     {H_ "\r\nFrom a\r\n>From b\r\nFrom c\r\n> From d\r\n"}},
	    {"quoted, o",
	     MW_MBOX_O,
	     F H "\n>From a\n>>From b\n\n",
	     {H_ "\r\nFrom a\r\n>>From b\r\n"}},
	    {"quoted, cl2 without a length",
	     MW_MBOX_CL2,
	     F H "\n>From a\n\n",
	     {H_ "\r\n>From a\r\n"}},
	    {"header of others",
	     A,
	     F ">From r Thu Nov 19 10:00:00 2026\n" H "\nb\n\n",
	     {">From r Thu Nov 19 10:00:00 2026\r\n" H_ "\r\nb\r\n"}},
	    {"own header",
	     A,
	     OWN ">From : r\n" H "\nb\n\n",
	     {"From : r\r\n" H_ "\r\nb\r\n"}},
	    {"no date",
	     A,
	     F H "\none\n\nFrom here to there\n\n",
	     {H_ "\r\none\r\n\r\nFrom here to there\r\n"}},
	    /* lengths that hold */
	    {"cl2",
	     A,
	     F H "Content-Length: 12\n\n1\n>From a\n2\n\n" F H "\n3\n\n",
	     {H_ "Content-Length: 12\r\n\r\n1\r\n>From a\r\n2\r\n", H_ "\r\n3\r\n"}},
	    {"cl",
	     MW_MBOX_CL,
	     F H "Content-Length: 12\n\n1\n>From a\n2\n\n" F H "\n3\n\n",
	     {H_ "Content-Length: 12\r\n\r\n1\r\nFrom a\r\n2\r\n", H_ "\r\n3\r\n"}},
	    {"cl2, no empty line",
	     A,
	     F "Content-Length: 2\n\n1\n" F H "\n2\n\n",
	     {"Content-Length: 2\r\n\r\n1\r\n", H_ "\r\n2\r\n"}},
	    {"cl2, no line end",
	     A,
	     F "Content-Length: 1\n\n1\n\n" F H "\n2\n\n",
	     {"Content-Length: 1\r\n\r\n1", H_ "\r\n2\r\n"}},
	    {"cl2, empty lines at the end",
	     A,
	     F "Content-Length: 4\n\n1\n\n\n\n" F H "\n2\n\n",
	     {"Content-Length: 4\r\n\r\n1\r\n\r\n\r\n", H_ "\r\n2\r\n"}},
	    /* and such as do not */
	    {"too short",
	     A,
	     F "Content-Length: 2\n\n1\n2\n\n" F H "\n3\n\n",
	     {"Content-Length: 2\r\n\r\n1\r\n2\r\n", H_ "\r\n3\r\n"}},
	    {"short of an empty line",
	     A,
	     F "Content-Length: 2\n\n1\n\n\n" F H "\n3\n\n",
	     {"Content-Length: 2\r\n\r\n1\r\n\r\n", H_ "\r\n3\r\n"}},
	    {"beyond the end",
	     A,
	     F "Content-Length: 999\n\n1\n\n" F H "\n3\n\n",
	     {"Content-Length: 999\r\n\r\n1\r\n", H_ "\r\n3\r\n"}},
	    {"two of them",
	     A,
	     F "Content-Length: 8\nContent-Length: 2\n\n>From a\n\n",
	     {"Content-Length: 8\r\nContent-Length: 2\r\n\r\nFrom a\r\n"}},
	    {"as before it was quoted",
	     A,
	     F "Content-Length: 7\n\nFrom a\n\n" F H "\n3\n\n",
	     {"Content-Length: 7\r\n\r\nFrom a\r\n", H_ "\r\n3\r\n"}},
	    {"as before it was quoted, mboxo",
	     A,
	     F "Content-Length: 7\n\n>From a\n\n" F H "\n3\n\n",
	     {"Content-Length: 7\r\n\r\nFrom a\r\n", H_ "\r\n3\r\n"}},
	    {"to behind a '>'",
	     A,
	     F "Content-Length: 3\n\n1\n>From boss@b Thu Nov 19 "
	       "10:00:00 2020\nFrom: boss\n\n2\n\n",
	     {"Content-Length: 3\r\n\r\n1\r\nFrom boss@b Thu Nov 19 10:00:00 2020\r\n"
	      "From: boss\r\n\r\n2\r\n"}},
	    {"own: none counts",
	     A,
	     OWN "Content-Length: 8\n\n>From a\n\n" OWN H "\n2\n\n",
	     {"Content-Length: 8\r\n\r\nFrom a\r\n", H_ "\r\n2\r\n"}},
	};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		struct mw_buf b[MAX] = {{0}};
		size_t n = messages(t[i].text, strlen(t[i].text), t[i].format, b), k = 0;
		for (; k < MAX; k++) {
			const char *want = k < 3 ? t[i].want[k] : NULL;
			const char *got = k < n ? mw_buf_cstr(&b[k]) : NULL;
			if (!want != !got || (want && strcmp(want, got) != 0))
				fail_msg("%s: message %zu is '%s', not '%s'", t[i].what,
				         k, got ? got : "none", want ? want : "none");
		}
		for (k = 0; k < MAX; k++)
			mw_buf_free(&b[k]);
	}
}

/* n messages of 14 bytes of body with a length each. */
static void
put_good(struct mw_buf *b, int n, const char *body)
{
	for (int i = 0; i < n; i++)
		mw_buf_printf(b, F2 "Content-Length: %zu\n\n%s\n", strlen(body), body);
}

/* In one of a store's files: how many messages are there, of which the first has a body
 * with a From_ line in it? */
static size_t
within(int others, const char *other, bool victim, bool honest)
{
	static const char inner[] = "1\n\n" F "From: boss\n\n2\n";
	MW_BUF_AUTO b = {0};
	struct mw_buf out[64] = {{0}};
	mw_buf_printf(&b, F2 "Content-Length: %zu\n\n%s\n", sizeof inner - 1, inner);
	put_good(&b, others, other);
	if (victim)
		mw_buf_printf(&b, F2 H "\nno length\n\n");
	MW_AUTOCLOSE int fd = file_of((const char *)b.p, b.n);
	struct mw_mbox *m;
	struct mw_from from;
	uint64_t at;
	size_t n = 0;
	assert_int_equal(mw_mbox_new(fd, MW_MBOX_AUTO, false, &m), 0);
	while (mw_mbox_next(m, &at, &from) > 0)
		assert_int_equal(mw_mbox_content(m, to_buf, &out[n++ % 64]), 0);
	mw_mbox_free(m);
	if (honest)
		assert_non_null(strstr(mw_buf_cstr(&out[0]), "boss"));
	else
		assert_null(strstr(mw_buf_cstr(&out[0]), "boss"));
	for (size_t i = 0; i < 64; i++)
		mw_buf_free(&out[i]);
	return n;
}

static void
a_length_hides_no_mail(void **state)
{
	(void)state;
	/* Nothing shows that the store does not quote: as if the middle were somebody
	 * else's, which its sender's length hides. */
	assert_int_equal(within(0, "", false, false), 2);
	assert_int_equal(within(1, "1\n", false, false), 3);
	assert_int_equal(within(9, "1\n", false, false), 11);
	/* A store of lengths, beyond doubt: by lines that it would have quoted, or since
	 * there are so many of them. */
	assert_int_equal(within(1, "From me\n", false, true), 2);
	assert_int_equal(within(40, "1\n", false, true), 41);
	/* Some stores quote only behind an empty line: that shows nothing. */
	assert_int_equal(within(1, "x\nFrom me\n", false, false), 3);
	/* But not where a single one has none. */
	assert_int_equal(within(1, "From me\n", true, false), 4);
	assert_int_equal(within(40, "1\n", true, false), 43);
}

static void
what_is_written_is_read(void **state)
{
	(void)state;
	static const char *const t[] = {
	    "",
	    "\r\n",
	    "H: 1\r\n",
	    "H: 1\r\n\r\n",
	    "H: 1\r\n\r\n\r\n\r\n",
	    "H: 1\r\r\n\r\nx\r\r\n\r\r\n",
	    "From : x\r\n>From : y\r\n\r\nFrom x\r\n>From y\r\n>>>From "
	    "z\r\n>\r\nFrom\r\n",
	    "From x@y   Thu Nov 19 10:00:00 2026\r\nH: 1\r\n\r\nx\r\n",
	    "Content-Length: 8\r\n\r\nFrom x\r\n",
	    "Content-Length: 0\r\n\r\nx\r\n\r\nFrom x@y Thu Nov 19 10:00:00 "
	    "2026\r\n\r\nx\r\n",
	};
	for (size_t i = 0; i < MW_COUNT(t); i++)
		for (size_t step = 1; step < 64; step *= 3) {
			MW_BUF_AUTO b = {0};
			struct mw_buf out[MAX] = {{0}};
			size_t n = strlen(t[i]);
			for (int k = 0; k < 2; k++) {
				struct mw_mbox_writer w;
				char line[1200];
				mw_buf_put(&b, line,
				           mw_from_write(MW_STR("a b"), -1, line,
				                         sizeof line));
				mw_mbox_writer_init(&w, to_buf, &b);
				for (size_t at = 0; at < n; at += step)
					assert_int_equal(
					    mw_mbox_writer_put(&w, t[i] + at,
					                       MW_MIN(step, n - at)),
					    0);
				assert_int_equal(mw_mbox_writer_end(&w), 0);
			}
			assert_int_equal(messages((const char *)b.p, b.n, MW_MBOX_AUTO,
			                          out),
			                 2);
			for (int k = 0; k < 2; k++) {
				if (!mw_str_eq(mw_buf_str(&out[k]), mw_str(t[i], n)))
					fail_msg("'%s' came back as '%s'", t[i],
					         mw_buf_cstr(&out[k]));
				mw_buf_free(&out[k]);
			}
		}
}

/* A body that ends in the middle of a line, where a piece of it does. */
static void
a_length_of_pieces(void **state)
{
	(void)state;
	for (int n = 131071; n <= 131073; n++)
		for (int lines = 1; lines <= 2; lines++) {
			MW_BUF_AUTO b = {0};
			struct mw_buf out[MAX] = {{0}};
			mw_buf_printf(&b, F "Content-Length: %d\n\n", n);
			for (int i = 0; i < n; i++)
				mw_buf_putc(&b, 'x');
			mw_buf_puts(&b, lines == 1 ? "\n" : "\n\n");
			mw_buf_puts(&b, F H "\n1\n\n" F H "\n2\n\n");
			assert_int_equal(messages((const char *)b.p, b.n, MW_MBOX_AUTO,
			                          out),
			                 3);
			for (int k = 0; k < 3; k++)
				mw_buf_free(&out[k]);
		}
}

static void
many_marks(void **state)
{
	(void)state;
	for (int n = 131065; n < 131080; n++) {
		MW_BUF_AUTO in = {0}, b = {0};
		struct mw_buf out[MAX] = {{0}};
		struct mw_mbox_writer w;
		mw_buf_puts(&in, "H: 1\r\n\r\n");
		for (int i = 0; i < n; i++)
			mw_buf_putc(&in, '>');
		mw_buf_puts(&in, "From x\r\n");
		mw_buf_puts(&b, OWN);
		mw_mbox_writer_init(&w, to_buf, &b);
		assert_int_equal(mw_mbox_writer_put(&w, in.p, in.n), 0);
		assert_int_equal(mw_mbox_writer_end(&w), 0);
		assert_int_equal(messages((const char *)b.p, b.n, MW_MBOX_AUTO, out), 1);
		assert_true(mw_str_eq(mw_buf_str(&out[0]), mw_buf_str(&in)));
		mw_buf_free(&out[0]);
	}
}

static void
what_a_sender_is_called(void **state)
{
	(void)state;
	static const char dated[] = "From \"a   Mon Nov 23 10:00:00 1970 b\"@x.test  "
	                            "Thu Nov 19 10:00:00 2026\n",
	                  words[] =
	                      "From \"a a a a a a a a a a a a a a a a a a a a a a a a "
	                      "a a\"@x.test  Thu Nov 19 10:00:00 2026\n";
	struct mw_from f;
	assert_int_equal(mw_from_line(mw_strz(dated), &f), 1);
	assert_true(!f.own && f.us == INT64_C(1795082400000000));
	assert_int_equal(mw_from_line(mw_strz(words), &f), 1);
}

static void
a_far_time_is_read_back(void **state)
{
	(void)state;
	static const int64_t t[] = {INT64_MIN, -1, 0, INT64_MAX};
	for (size_t i = 0; i < MW_COUNT(t); i++) {
		char line[1200];
		struct mw_from f;
		size_t n = mw_from_write(MW_STR(""), t[i], line, sizeof line);
		assert_int_equal(mw_from_line(mw_str(line, n), &f), 1);
		assert_true(f.own && f.sender.n == 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dialects),
	    cmocka_unit_test(a_length_hides_no_mail),
	    cmocka_unit_test(what_is_written_is_read),
	    cmocka_unit_test(a_length_of_pieces),
	    cmocka_unit_test(many_marks),
	    cmocka_unit_test(what_a_sender_is_called),
	    cmocka_unit_test(a_far_time_is_read_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
