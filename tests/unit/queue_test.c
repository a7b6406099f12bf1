/* The MTA's queue as its commands print it, and what they must not print. */
#include "replay/queue.h"

#include "journal/base/buf.h"
#include "replay/output.h"
#include "replay/profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define S  INT64_C(1000000)
#define AT (1700000000 * S)

static const char json[] =
    "{\"queue_name\": \"deferred\", \"queue_id\": \"4FDE1210\", \"arrival_time\": "
    "1700000000, \"message_size\": 500, \"forced_expire\": false, \"sender\": "
    "\"w@remote.test\", \"recipients\": [{\"address\": \"dora@example.test\", "
    "\"delay_reason\": \"connect: \\\"x\\\" \\u0000\"}, {\"address\": "
    "\"emil@example.test\"}]}\n"
    "{\"queue_name\": \"hold\", \"queue_id\": \"3zXq2k1TxBz4w\", \"arrival_time\": "
    "1700000500, \"message_size\": 500, \"sender\": \"\", \"recipients\": "
    "[{\"address\": \"anna@example.test\"}]}\n";

static const char postfix[] =
    "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
    "4FDE1210*      500 Tue Nov 14 22:13:20  w@remote.test\n"
    "                      (connect to 127.0.0.1[127.0.0.1]:1: Connection refused)\n"
    "                                         dora@example.test\n"
    "(a reason that is longer than the line, so nothing stands before it)\n"
    "                                         emil@example.test\n"
    "\n"
    "3zXq2k1TxBz4w!  500 Tue Nov 14 22:21:40  MAILER-DAEMON\n"
    "                                         anna@example.test\n"
    "\n"
    "-- 1 Kbytes in 2 Requests.\n";

static const char sendmail[] =
    "\t\t/var/spool/mqueue (3 requests)\n"
    "-----Q-ID----- --Size-- -----Q-Time----- ------------Sender/Recipient-----------\n"
    "4FDE1210X           9 Sun Nov 22 18:00 <w@remote.test>\n"
    "                 (Deferred: Connection refused by [127.0.0.1])\n"
    "\t\t\t\t\t <dora@example.test>\n"
    "                 (reply: 4.0.0)\n"
    "\t\t\t\t\t <emil@example.te\n"
    "3zXq2k1TxBz4w*      0 (no control file)\n"
    "\t\t\t\t\t <anna@example.test>\n"
    "7AMI0000000001-     9 Sun Nov 22 18:00 <w@remote.test>\n"
    "\t\t\t\t\t <bert@example.test>\n"
    "\t\tTotal requests: 3\n";

static bool
known(void *arg, uint64_t id)
{
	(void)arg;
	return id == mw_hash64(MW_STR("4FDE1210")) ||
	       id == mw_hash64(MW_STR("3zXq2k1TxBz4w"));
}

static bool
is(void *arg, struct mw_str rcpt, bool cut)
{
	struct mw_str want = mw_strz(arg);
	return cut ? mw_str_istarts(want, rcpt) : mw_str_ieq(want, rcpt);
}

static bool
lists(const struct mw_queue *q, const char *id, int64_t time_us, const char *rcpt)
{
	union {
		const char *in;
		void *out;
	} arg = {rcpt};
	return mw_queue_lists(q, mw_hash64(mw_strz(id)), time_us, is, arg.out);
}

static int
one(const char *command, struct mw_queue **ret, struct mw_err *err)
{
	const struct mw_queue_from f = {.command = command};
	return mw_queue_new(&f, 1, ret, err);
}

static struct mw_queue *
make(const char *command)
{
	struct mw_queue *q = NULL;
	struct mw_err err = {0};
	assert_int_equal(one(command, &q, &err), 0);
	return q;
}

/* The whole text, in pieces of that size; what the end says. */
static int
learn(struct mw_queue *q, const char *text, size_t n, size_t piece)
{
	struct mw_err err = {0};
	for (size_t at = 0; at < n; at += piece) {
		size_t k = n - at < piece ? n - at : piece;
		int r = mw_queue_learn(q, 0, text + at, k, known, NULL, &err);
		if (r)
			return r;
	}
	return mw_queue_learn(q, 0, NULL, 0, known, NULL, &err);
}

static void
reads(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		bool times;
	} v[] = {{json, sizeof json - 1, true},
	         {postfix, sizeof postfix - 1, false},
	         {sendmail, sizeof sendmail - 1, false}};
	(void)state;
	for (size_t i = 0; i < 3; i++)
		for (size_t piece = 1; piece < 4096; piece = piece * 3 + 1) {
			struct mw_queue *q = make("x");
			assert_int_equal(learn(q, v[i].text, v[i].n, piece), 0);
			assert_int_equal(mw_queue_size(q), 2);
			assert_true(lists(q, "4FDE1210", AT, "dora@example.test"));
			assert_true(lists(q, "4FDE1210", AT, "Emil@Example.test"));
			assert_false(lists(q, "4FDE1210", AT, "anna@example.test"));
			assert_true(
			    lists(q, "3zXq2k1TxBz4w", AT + 500 * S, "anna@example.test"));
			assert_false(lists(q, "FFFFFFFF", AT, "dora@example.test"));
			/* The ID of a message of another day. */
			assert_int_equal(lists(q, "4FDE1210", AT + 90000 * S,
			                       "dora@example.test"),
			                 !v[i].times);
			assert_int_equal(mw_queue_has(q, mw_hash64(MW_STR("4FDE1210")),
			                              AT - 400 * S),
			                 !v[i].times);
			mw_queue_free(q);
		}
}

/* A line of JSON ends an entry of text, whose place may have moved with it. */
static void
mixed(void **state)
{
	static const char head[] =
	    "4FDE1210*      500 Tue Nov 14 22:13:20  w@remote.test\n"
	    "                                         dora@example.test\n"
	    "{\"queue_id\": \"3zXq2k1TxBz4w\", \"recipients\": []}\n"
	    "                                         emil@example.test\n";
	struct mw_queue *q = make("x");
	(void)state;
	assert_int_equal(learn(q, head, sizeof head - 1, 4096), 0);
	assert_true(lists(q, "4FDE1210", AT, "dora@example.test"));
	assert_false(lists(q, "4FDE1210", AT, "emil@example.test"));
	mw_queue_free(q);
}

static void
refuses(void **state)
{
	static const struct {
		const char *text;
		int code;
	} v[] = {
	    {"", 0},
	    {"Mail queue is empty\n", 0},
	    {"/var/spool/mqueue is empty\n\t\tTotal requests: 0\n", 0},
	    {"MSP Queue status...\n/var/spool/mqueue-client is empty\n", 0},
	    {"\t\t/var/spool/mqueue is empty\n\t\tTotal requests: 0\n", 0},
	    {"\t\tTotal requests: 0\n", 0},
	    {"permission denied\n", MW_EFORMAT},
	    {"  permission denied\n", MW_EFORMAT},
	    /* Exim's */
	    {" 4d  2.9K 0t5C6f-0000c8-00 <w@remote.test>\n          dora@example.test\n",
	     MW_EFORMAT},
	    {"{\"queue_id\": \"4FDE1210\", \"recip", MW_EFORMAT}, /* cut off */
	    {"{\"queue_id\": \"4FDE1210\"}\n{\n", MW_EFORMAT},
	    {"{\"queue_id\": 7}\n", MW_EFORMAT},
	    {"{\"queue_id\": \"4FDE1210\", \"arrival_time\": 1e300, \"recipients\": 7}\n",
	     0},
	    {"{\"queue_id\": \"4FDE1210\", \"arrival_time\": -9223372036854775808, "
	     "\"recipients\": [7, {}, {\"address\": \"\"}]}\n",
	     0},
	    {"4FDE1210* 12\n <\n <>\n <a\n>\n", 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		struct mw_queue *q = make("x");
		int r = learn(q, v[i].text, strlen(v[i].text), 7);
		if (r != v[i].code)
			print_error("%s: %d\n", v[i].text, r);
		assert_int_equal(r, v[i].code);
		/* and it is as good as new */
		assert_int_equal(learn(q, json, sizeof json - 1, 100), 0);
		mw_queue_free(q);
	}
}

/* Programs: one that lists, one that fails, one that is not there, one that never ends
 * its line. */
static void
runs(void **state)
{
	char path[] = "/tmp/mw-queue.XXXXXX", command[64];
	struct mw_err err = {0};
	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, json, sizeof json - 1), (ssize_t)(sizeof json - 1));
	(void)close(fd);
	(void)snprintf(command, sizeof command, "cat  %s", path);
	struct mw_queue *q = make(command);
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), 0);
	assert_int_equal(mw_queue_size(q), 2);
	assert_true(mw_queue_is_said(q));
	assert_int_equal(mw_queue_commands(q), 1);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(mw_queue_read(q, true, known, NULL, &err), 0);
	assert_int_equal(mw_queue_size(q), 2); /* added up */
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), 0);
	assert_int_equal(mw_queue_size(q), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), MW_EUNAVAIL);
	assert_non_null(strstr(err.msg, "No such file"));
	mw_queue_free(q);
	q = make("/nonexistent/postqueue -j");
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), MW_EUNAVAIL);
	mw_queue_free(q);
	q = make("head -c 100000000 /dev/zero");
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), MW_EFORMAT);
	mw_queue_free(q);
}

/* Of several hosts: each is asked, one that fails is named, and what one lists is no
 * other's, though their IDs be the same. */
static void
several(void **state)
{
	static const char *const text[] = {
	    "{\"queue_id\": \"4FDE1210\", \"arrival_time\": 1700000000, "
	    "\"recipients\": [{\"address\": \"anna@example.test\"}]}\n",
	    "{\"queue_id\": \"4FDE1210\", \"arrival_time\": 1600000000, "
	    "\"recipients\": [{\"address\": \"bert@example.test\"}]}\n"};
	char path[2][32], command[2][64];
	struct mw_err err = {0};
	struct mw_queue *q;
	(void)state;
	for (int i = 0; i < 2; i++) {
		(void)snprintf(path[i], sizeof path[i], "/tmp/mw-queue.XXXXXX");
		int fd = mkstemp(path[i]);
		assert_true(fd >= 0);
		assert_int_equal(write(fd, text[i], strlen(text[i])),
		                 (ssize_t)strlen(text[i]));
		(void)close(fd);
		(void)snprintf(command[i], sizeof command[i], "cat %s", path[i]);
	}
	struct mw_queue_from v[] = {{command[0], "a.conf"},
	                            {command[1], "b.conf"},
	                            {command[0], "c.conf"}};
	assert_int_equal(mw_queue_new(v, 3, &q, &err), 0);
	assert_int_equal(mw_queue_commands(q), 2); /* the first is asked once */
	assert_true(mw_queue_is_said(q));
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), 0);
	assert_int_equal(mw_queue_size(q), 2);
	assert_true(
	    lists(q, "4FDE1210", 1700000000 * INT64_C(1000000), "anna@example.test"));
	assert_true(
	    lists(q, "4FDE1210", 1600000000 * INT64_C(1000000), "bert@example.test"));
	assert_false(
	    lists(q, "4FDE1210", 1700000000 * INT64_C(1000000), "bert@example.test"));
	assert_int_equal(unlink(path[1]), 0);
	assert_int_equal(mw_queue_read(q, false, known, NULL, &err), MW_EUNAVAIL);
	assert_non_null(strstr(err.msg, "queue_command of b.conf: "));
	assert_false(mw_queue_leave_out(q)); /* it was said */
	mw_queue_free(q);
	v[1].command = "none";
	assert_int_equal(mw_queue_new(v, 2, &q, &err), 0);
	assert_int_equal(mw_queue_commands(q), 1);
	assert_false(mw_queue_is_said(q)); /* of the second's queue nothing is known */
	mw_queue_free(q);
	v[1].command = " ";
	assert_int_equal(mw_queue_new(v, 2, &q, &err), MW_EUSAGE);
	assert_non_null(strstr(err.msg, "queue_command of b.conf: "));
	assert_null(q);
	assert_int_equal(unlink(path[0]), 0);
}

static void
commands(void **state)
{
	struct mw_queue *q;
	struct mw_err err = {0};
	char many[200] = "";
	(void)state;
	q = make("none");
	assert_null(q);
	assert_int_equal(one("  ", &q, &err), MW_EUSAGE);
	for (int i = 0; i < 33; i++)
		(void)snprintf(many + strlen(many), sizeof many - strlen(many), "a ");
	assert_int_equal(one(many, &q, &err), MW_EUSAGE);
	assert_null(q);
	assert_int_equal(setenv("MAIL_CONFIG", "/nonexistent", 1), 0);
	if (access("/etc/mail/sendmail.cf", R_OK) < 0) {
		q = make("auto");
		assert_null(q);
	}
}

static int
keep(void *arg, const void *p, size_t n, struct mw_err *err)
{
	(void)err;
	mw_buf_put(arg, p, n);
	return 0;
}

static char *const *
shell(char *script)
{
	static char sh[] = "/bin/sh", c[] = "-c";
	static char *argv[4];
	argv[0] = sh;
	argv[1] = c;
	argv[2] = script;
	return argv;
}

/* A command that hangs is ended long before one that lists for a while. */
static void
silent(void **state)
{
	char hangs[] = "echo first; exec sleep 600", slow[] = "for i in 1 2 3 4 5 6; do "
	                                                      "echo $i; sleep 0.1; done";
	struct mw_err err = {0};
	MW_BUF_AUTO text = {0};
	(void)state;
	assert_int_equal(mw_output_of(shell(hangs), 2000, NULL, keep, &text, &err),
	                 MW_ETIMEOUT);
	assert_string_equal(mw_buf_cstr(&text), "first\n");
	assert_non_null(strstr(err.msg, "/bin/sh hangs: not a word in 2 s"));
	mw_buf_clear(&text);
	assert_int_equal(mw_output_of(shell(slow), 20000, NULL, keep, &text, &err), 0);
	assert_string_equal(mw_buf_cstr(&text), "1\n2\n3\n4\n5\n6\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reads),    cmocka_unit_test(mixed),
	    cmocka_unit_test(refuses),  cmocka_unit_test(runs),
	    cmocka_unit_test(commands), cmocka_unit_test(silent),
	    cmocka_unit_test(several),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
