/* What becomes of outcomes when mail is erased, through the program: records that speak
 * of several mails, erasures cut short, logs that still name who is gone. */
#include "journal/codec/hpke.h"
#include "journal/codec/keyring.h"
#include "journal/record/outcome.h"
#include "tests/support/retain_cli.h"

/* ---- outcomes of several mails in one record ---- */

static int
keep_record(void *arg, const struct mw_record *r)
{
	*(struct mw_record *)arg = *r;
	return r->type == MW_TYPE_MAIL;
}

/* What is said of one mail: of its recipients, and of all of it. */
static struct mw_outcome
outcome_of(struct mw_store *st, const char *qid, struct mw_outcome_rcpt *r, size_t n)
{
	struct mw_record rec = {.seq = 0};
	struct mw_err err = {0};
	struct mw_outcome o = {.rcpt = r, .n_rcpt = n, .queue_id = mw_strz(qid)};
	assert_int_equal(mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(qid), keep_record,
	                               &rec, &err),
	                 1);
	o.seq = rec.seq;
	memcpy(o.id, rec.id, sizeof o.id);
	return o;
}

static void
note_outcomes(struct mw_store *st, struct mw_outcome *v, size_t n)
{
	struct mw_outcomes o = {now_us, v, n};
	struct mw_err err = {0};
	MW_BUF_AUTO b = {0};
	assert_int_equal(mw_outcomes_encode(&o, &b), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_OUTCOME, now_us, b.p, b.n, NULL, &err),
	                 0);
}

/* Three records: the first and the last speak of several mails. */
static void
make_outcomes(const uint8_t *recovery)
{
	struct fake f = {.now = now_us};
	struct mw_store *st = writer(&f, recovery);
	struct mw_outcome_rcpt alice = {.addr = MW_STR("alice@example.org"),
	                                .fact = MW_FACT_DEFERRED,
	                                .dsn = MW_STR("4.2.2"),
	                                .relay = MW_STR("box.example.org"),
	                                .text = MW_STR("no room for Alice@example.org")};
	struct mw_outcome_rcpt hr = alice, both[2], hr_done;
	hr.addr = MW_STR("hr@example.org");
	hr.text = MW_STR("no room");
	both[0] = alice;
	both[1] = hr;
	both[1].original = MW_STR("alice@example.org"); /* she has it sent on */
	hr_done = hr;
	hr_done.fact = MW_FACT_DELIVERED;
	hr_done.dsn = MW_STR("2.0.0");
	struct mw_outcome first[] = {outcome_of(st, "4XA07q", &alice, 1),
	                             outcome_of(st, "4XH07q", &hr, 1),
	                             outcome_of(st, "4XB07q", both, 2),
	                             outcome_of(st, "4XH08q", NULL, 0)};
	first[3].whole = MW_FACT_HELD;
	struct mw_outcome second = outcome_of(st, "4XH07q", &hr_done, 1);
	struct mw_outcome last[] = {outcome_of(st, "4XA08q", &alice, 1),
	                            outcome_of(st, "4XH08q", NULL, 0)};
	last[1].freed = true;
	note_outcomes(st, first, MW_COUNT(first));
	note_outcomes(st, &second, 1);
	note_outcomes(st, last, MW_COUNT(last));
	mw_store_close(st);
}

/* How many outcomes can be read, and how many of them name alice. */
static unsigned
outcomes_left(const uint8_t *sk, unsigned *ret_alice)
{
	struct mw_store_opts o = {.dir = journal, .secret = sk, .n_secret = sk ? 1 : 0};
	struct mw_err err = {0};
	MW_STORE_AUTO *st = NULL;
	MW_CURSOR_AUTO *c = NULL;
	struct mw_record r;
	unsigned n = 0;
	*ret_alice = 0;
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	assert_int_equal(mw_cursor_new(st, 1, &c, &err), 0);
	while (mw_cursor_next(c, &r, &err) == 1) {
		MW_BUF_AUTO b = {0};
		if (r.type != MW_TYPE_OUTCOME || mw_record_meta(st, &r, &b, &err) < 0)
			continue;
		n++;
		*ret_alice += memmem(b.p, b.n, "lice", 4) != NULL;
	}
	return n;
}

static void
outcomes_are_erased(const uint8_t *sk, const uint8_t *pk)
{
	unsigned alice = 0;
	char key[300], args[600];
	make(pk);
	make_outcomes(pk);
	write_conf("");
	key[0] = '\0';
	if (sk) {
		(void)snprintf(key, sizeof key, "--key %.250s/key", root);
		want(77, "erase 4XA07q --yes"); /* which others share a record with */
		assert_true(says("nothing was erased"));
	}
	assert_int_equal(outcomes_left(sk, &alice), 3);
	assert_int_equal(alice, 2);
	(void)snprintf(args, sizeof args, "%s erase --user alice@example.org --yes", key);
	want(0, args);
	assert_true(outcomes_left(sk, &alice) > 0);
	assert_int_equal(alice, 0);
	/* of the others all is known that was known, and the latest counts */
	(void)snprintf(args, sizeof args, "%s show 4XH07q", key);
	want(0, args);
	assert_true(says("delivered"));
	assert_false(says("deferred"));
	(void)snprintf(args, sizeof args, "%s show 4XB07q", key);
	want(0, args);
	assert_true(says("deferred"));
	assert_true(says("no room"));
	assert_false(says("lice"));
	(void)snprintf(args, sizeof args, "%s show 4XH08q", key);
	want(0, args);
	assert_false(says("held"));
	(void)snprintf(args, sizeof args, "%s verify", key);
	want(0, args);
}

static void
erase_outcomes(void **state)
{
	(void)state;
	outcomes_are_erased(NULL, NULL);
	/* status counts what can be read, and nothing else as mail */
	(void)run("status --json");
	assert_true(says("\"mails\":100,"));
	assert_true(says("\"erased_records\":102,"));
	assert_true(says("\"last_prune\":null"));
	write_conf("retain all { keep = 20d }\n");
	want(0, "prune --yes");
	(void)run("status --json");
	assert_true(says("\"mails\":40,"));
	assert_true(says("\"last_prune\":{\"time\":"));
	assert_true(says("\"removed\":60,"));
	(void)run("status");
	assert_true(says("60 messages removed"));
}

/* An erasure ended after its tombstones, before it wiped anything: what it was to take
 * away is not told again by the next one, which is of somebody else. */
static void
erase_cut_short(void **state)
{
	(void)state;
	char cmd[2000];
	unsigned alice = 0;
	make(NULL);
	make_outcomes(NULL);
	write_conf("");
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s.k' && cp -a '%s' '%s.k'", journal,
	               journal, journal);
	assert_int_equal(system(cmd), 0);
	want(0, "erase --user alice@example.org --yes");
	(void)snprintf(cmd, sizeof cmd,
	               "cp -p '%s.k'/segments/* '%s/segments/' && rm -rf '%s.k' "
	               "'%s'/index/*",
	               journal, journal, journal, journal);
	assert_int_equal(system(cmd), 0);
	(void)outcomes_left(NULL, &alice);
	assert_int_equal(alice, 2); /* which its tombstones name */
	want(0, "show 4XB07q");     /* readers go by these */
	assert_true(says("deferred"));
	assert_false(says("lice"));
	want(0, "--json show 4XB07q");
	assert_true(says("\"outcomes\""));
	assert_false(says("lice"));
	want(0, "erase --user hr@example.org --yes");
	(void)outcomes_left(NULL, &alice);
	assert_int_equal(alice, 0);
	want(0, "prune --yes"); /* wipes the rest */
	want(0, "verify");
}

/* A log that still names who was erased, read after it or between. */
static void
erased_are_not_noted_again(void **state)
{
	(void)state;
	static const struct {
		const char *qid, *to, *more, *reply;
	} lines_of[] = {
	    {"4XA07q", "alice@example.org", "", "ok"}, /* hers alone: nothing */
	    {"4XB07q", "alice+x@example.org", "", "ok"},
	    {"4XB07q", "hr@example.org", ", orig_to=<alice+x@example.org>",
	     "forwarded for Alice+X@example.org."},
	    {"4XH07q", "hr@example.org", "", "ok"},
	};
	char path[400];
	unsigned alice = 0;
	make(NULL);
	write_conf("");
	want(0, "erase --user alice@example.org --yes");
	(void)snprintf(path, sizeof path, "%s/mail.log", root);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	for (size_t i = 0; i < MW_COUNT(lines_of); i++) {
		char when[40];
		mw_time_rfc3339(when, sizeof when, now_us);
		fprintf(f,
		        "%s mx postfix/lmtp[77]: %s: to=<%s>%s, relay=box, delay=1, "
		        "delays=0/0/0/1, dsn=2.0.0, status=sent (%s)\n",
		        when, lines_of[i].qid, lines_of[i].to, lines_of[i].more,
		        lines_of[i].reply);
	}
	assert_int_equal(fclose(f), 0);
	assert_int_equal(run("--json outcomes '%s'", path), 0);
	assert_int_equal(outcomes_left(NULL, &alice), 1);
	assert_int_equal(alice, 0);
	want(0, "show 4XB07q");
	assert_true(says("hr@example.org"));
	assert_true(says("delivered"));
	want(0, "show 4XH07q");
	assert_true(says("delivered"));
	want(0, "verify");
}

static void
erase_outcomes_encrypted(void **state)
{
	(void)state;
	uint8_t sk[32], pk[32], other[32];
	char path[400];
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	(void)snprintf(path, sizeof path, "%s/other", root);
	assert_int_equal(mw_keyring_new(path, MW_STR(""), other, &err), 0);
	(void)snprintf(path, sizeof path, "%s/key", root);
	assert_int_equal(mw_keyring_new(path, MW_STR(""), pk, &err), 0);
	assert_int_equal(mw_keyring_load_secret(path, MW_STR(""), sk, &err), 0);
	outcomes_are_erased(sk, pk);
	make(pk);
	make_outcomes(pk);
	struct mw_store *st = writer(&f, other); /* the last word cannot be read */
	struct mw_outcome last = outcome_of(st, "4XH07q", NULL, 0);
	note_outcomes(st, &last, 1);
	mw_store_close(st);
	(void)snprintf(path, sizeof path, "--key %.250s/key erase 4XA07q --yes", root);
	want(77, path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(erase_outcomes),
	    cmocka_unit_test(erase_cut_short),
	    cmocka_unit_test(erased_are_not_noted_again),
	    cmocka_unit_test(erase_outcomes_encrypted),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
