/* One person erased from mail that others keep: no token of his is left beside it or
 * beside its expansion, so neither the index nor a walk of the log finds it under his
 * address, and the others find it as before; what was cut short is finished by the next
 * prune. */
#include "journal/record/expansion.h"
#include "journal/record/retire.h"
#include "journal/segment/frame.h"
#include "journal/store/later.h"
#include "tests/support/retain_cli.h"
#include "tests/support/shell.h"

#include <ftw.h>

static const char *const alice = "alice@example.org", *const hr = "hr@example.org";

/* ---- the journal, seen without a key ---- */

static struct mw_store *
reader(bool no_index)
{
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_READ,
	                          .no_index = no_index};
	struct mw_err err = {0};
	struct mw_store *st = NULL;
	if (mw_store_open(&o, &st, &err) < 0)
		fail_msg("open: %s", err.msg);
	return st;
}

static int
count(void *arg, const struct mw_record *r)
{
	*(unsigned *)arg += r->type == MW_TYPE_MAIL || r->type == MW_TYPE_EXPANSION;
	return 0;
}

static unsigned
find_with(bool no_index, enum mw_key key, const char *value)
{
	MW_STORE_AUTO *st = reader(no_index);
	unsigned n = 0;
	assert_int_equal(mw_store_find(st, key, mw_strz(value), count, &n, NULL), 0);
	return n;
}

/* Records with that token; the index and the log agree. */
static unsigned
found(enum mw_key key, const char *value)
{
	unsigned n = find_with(false, key, value);
	assert_int_equal(find_with(true, key, value), n);
	return n;
}

static uint8_t wanted[8];
static unsigned files_with;

static int
search_file(const char *path, const struct stat *sb, int flag, struct FTW *w)
{
	(void)w;
	if (flag != FTW_F || sb->st_size == 0)
		return 0;
	size_t n = (size_t)sb->st_size;
	MW_AUTOFREE char *p = malloc(n);
	FILE *f = fopen(path, "re");
	assert_non_null(p);
	assert_non_null(f);
	n = fread(p, 1, n, f);
	(void)fclose(f);
	files_with += memmem(p, n, wanted, sizeof wanted) != NULL;
	return 0;
}

/* Files of the journal in which the token's bytes stand. */
static unsigned
files_that_have(enum mw_key key, const char *value)
{
	MW_STORE_AUTO *st = reader(true);
	mw_store_token(st, key, mw_strz(value), wanted);
	files_with = 0;
	assert_int_equal(nftw(journal, search_file, 16, FTW_PHYS), 0);
	return files_with;
}

static struct mw_record shared(const char *queue_id);

/* ---- a mail to a list, whose people were found out later ---- */

static void
put_list(void)
{
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	struct mw_store *st = writer(&f, NULL);
	struct mw_str boxes[] = {mw_strz(alice), mw_strz(hr)};
	struct mw_rcpt awaited = {.addr = MW_STR("list@example.org"),
	                          .flags = MW_RCPT_UNDECIDED | MW_RCPT_LATER};
	struct mw_rcpt known = {.addr = MW_STR("list@example.org"),
	                        .flags = MW_RCPT_LOCAL | MW_RCPT_EXPANDED,
	                        .mailbox = boxes,
	                        .n_mailbox = 2};
	struct mw_mail m = {.time_us = now_us,
	                    .queue_id = MW_STR("4XLIST"),
	                    .front = MW_STR("milter"),
	                    .rcpt = &awaited,
	                    .n_rcpt = 1};
	struct mw_mail expanded = {.rcpt = &known, .n_rcpt = 1};
	struct mw_expanded one = {0, known.flags, boxes, 2};
	struct mw_expansion x = {.time_us = now_us, .rcpt = &one, .n_rcpt = 1};
	MW_ENTRY_AUTO *later = NULL;
	MW_BUF_AUTO cbor = {0};
	struct mw_commit c =
	    journaled(st, &m, "Subject: x\r\n\r\nto you all\r\n", 26, x.ref);
	x.seq = c.seq;
	assert_int_equal(mw_expansion_encode(&x, &cbor), 0);
	assert_int_equal(mw_entry_new(st, MW_TYPE_EXPANSION, &later, &err), 0);
	mw_entry_refer(later, x.ref);
	mw_entry_people(later, &expanded);
	assert_int_equal(mw_entry_finish(later, now_us, cbor.p, cbor.n, &err), 0);
	assert_int_equal(mw_store_append(st, later, NULL, &err), 0);
	mw_store_close(st);
}

static int
note(void *arg, const struct mw_record *r)
{
	struct mw_record *all = arg;
	size_t n = 0;
	while (all[n].seq)
		n++;
	assert_true(n < 7);
	if (r->type == MW_TYPE_TOMBSTONE)
		all[n] = *r;
	return 0;
}

/* A bit of its frame, other than it was; twice: as it was. */
static void
turn(const struct mw_record *r)
{
	char path[400];
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", journal,
	               (unsigned long long)r->loc.segment);
	FILE *f = fopen(path, "r+e");
	assert_non_null(f);
	assert_int_equal(fseek(f, (long)r->loc.offset, SEEK_SET), 0);
	int c = fgetc(f);
	assert_int_equal(fseek(f, (long)r->loc.offset, SEEK_SET), 0);
	assert_int_equal(fputc(c ^ 4, f), c ^ 4);
	assert_int_equal(fclose(f), 0);
}

/* The slots say it, too: of the mail itself, and of its expansion. */
static void
also_without_tombstones(void)
{
	static const char type = MW_TYPE_TOMBSTONE;
	struct mw_record all[8] = {{.seq = 0}}, mail;
	struct mw_mail m;
	struct mw_err err = {0};
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_STORE_AUTO *st = reader(true);
	assert_int_equal(mw_store_find(st, MW_KEY_TYPE, mw_str(&type, 1), note, all,
	                               &err),
	                 0);
	assert_int_not_equal(all[0].seq, 0);
	for (size_t i = 0; all[i].seq; i++)
		turn(&all[i]);
	want(1, "verify");
	assert_int_equal(lines("list --user alice@example.org --no-header -o tsv"), 0);
	want(0, "show 4XLIST");
	assert_true(says(hr));
	assert_false(says(alice));
	mail = shared("4XLIST"); /* as a standby is kept by it */
	assert_int_equal(mw_later_mail(st, &mail, a, &m, &err), 0);
	assert_int_equal(m.n_rcpt, 1);
	assert_int_equal(m.rcpt[0].n_mailbox, 1);
	assert_true(mw_str_eq(m.rcpt[0].mailbox[0], mw_strz(hr)));
	for (size_t i = 0; all[i].seq; i++)
		turn(&all[i]);
	want(0, "verify");
}

static void
nobody_finds_it(void **state)
{
	(void)state;
	make(NULL);
	put_list();
	write_conf("");
	assert_int_equal(found(MW_KEY_RCPT, alice), 101);
	assert_int_equal(found(MW_KEY_RCPT, hr), 101);
	assert_int_equal(lines("list --user hr@example.org --no-header -o tsv"), 101);
	assert_int_equal(lines("list --user alice@example.org --no-header -o tsv"), 151);
	want(0, "erase --user alice@example.org --yes --json");
	assert_true(says("\"erased\":100,"));
	assert_true(says("\"kept_for_others\":51"));
	for (int round = 0; round < 2; round++) {
		assert_int_equal(found(MW_KEY_RCPT, alice), 0);
		assert_int_equal(found(MW_KEY_RCPT, "alice+x@example.org"), 0);
		assert_int_equal(found(MW_KEY_OWNER, alice), 0);
		assert_int_equal(found(MW_KEY_RCPT, hr), 101);
		assert_int_equal(lines("list --user hr@example.org --no-header -o tsv"),
		                 101);
		want(0, "verify --json");
		assert_true(says("\"index\":0"));
		want(0, "reindex");
	}
	assert_int_equal(files_that_have(MW_KEY_RCPT, alice), 0);
	assert_int_equal(files_that_have(MW_KEY_RCPT, "alice+x@example.org"), 0);
	assert_true(files_that_have(MW_KEY_RCPT, hr) > 0);
	want(0, "show 4XLIST");
	assert_true(says(hr));
	assert_false(says(alice));
	also_without_tombstones();
	want(0, "prune -n --json"); /* nothing is left to be done */
	want(0, "erase --user hr@example.org --yes --json");
	assert_true(says("\"erased\":101,"));
	assert_int_equal(files_that_have(MW_KEY_RCPT, hr), 0);
	want(0, "verify");
}

/* One extension of an address is not the address. */
static void
only_what_was_named(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	want(0, "erase --user alice+x@example.org --yes --json");
	assert_true(says("\"kept_for_others\":50"));
	assert_int_equal(found(MW_KEY_RCPT, "alice+x@example.org"), 0);
	assert_int_equal(lines("list --user alice@example.org --no-header -o tsv"), 100);
	assert_int_equal(lines("list --user hr@example.org --no-header -o tsv"), 100);
	want(0, "verify");
}

/* ---- by hand ---- */

static int
first_shared(void *arg, const struct mw_record *r)
{
	*(struct mw_record *)arg = *r;
	return 1;
}

static struct mw_record
shared(const char *queue_id)
{
	MW_STORE_AUTO *st = reader(true);
	struct mw_record r;
	assert_int_equal(mw_store_find(st, MW_KEY_QUEUE_ID, mw_strz(queue_id),
	                               first_shared, &r, NULL),
	                 1);
	return r;
}

static void
cut(const struct mw_record *r, uint8_t (*token)[8], size_t n)
{
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	MW_STORE_AUTO *st = writer(&f, NULL);
	struct mw_wipe_at at = {r->loc.offset, r->seq};
	struct mw_cut c = {(const uint8_t(*)[8])token, n, &at, 1};
	assert_int_equal(mw_store_cut(st, r->loc.segment, &c, &err), 0);
}

/* Tokens that go without a word are tampering. */
static void
without_a_tombstone(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	struct mw_record r = shared("4XB07q");
	uint8_t token[1][8];
	MW_STORE_AUTO *st = reader(true);
	mw_store_token(st, MW_KEY_RCPT, MW_STR("nobody@example.org"), token[0]);
	cut(&r, token, 1);
	want(0, "verify");
	mw_store_token(st, MW_KEY_RCPT, mw_strz(alice), token[0]);
	cut(&r, token, 1);
	want(1, "verify");
	assert_true(says("tampering"));
	want(0, "show 4XB07q --raw");
}

static void
rewrite(const struct mw_record *r, uint8_t *slot, bool put_back)
{
	char path[400];
	(void)snprintf(path, sizeof path, "%s/segments/%016llx.seg", journal,
	               (unsigned long long)r->loc.segment);
	FILE *f = fopen(path, "r+e");
	assert_non_null(f);
	assert_int_equal(fseek(f, (long)(r->loc.offset + MW_FRAME_HEADER), SEEK_SET), 0);
	if (put_back) {
		mw_slot_mark(slot, r->slot_len, MW_SLOT_LIVE);
		assert_int_equal(fwrite(slot, r->slot_len, 1, f), 1);
	} else {
		assert_int_equal(fread(slot, r->slot_len, 1, f), 1);
	}
	assert_int_equal(fclose(f), 0);
}

/* Tokens that are another record's, under a good checksum: a rule or a hold would go by
 * them. The segment key tells. */
static void
tokens_of_another(void **state)
{
	(void)state;
	char cmd[400];
	make(NULL);
	write_conf("");
	struct mw_record a = shared("4XA07q"), b = shared("4XA08q");
	uint8_t one[4096], other[4096];
	assert_int_equal(a.slot_len, b.slot_len);
	assert_true(a.slot_len <= sizeof one);
	rewrite(&a, one, false);
	rewrite(&b, other, false);
	memcpy(one + MW_SLOT_FIXED, other + MW_SLOT_FIXED, a.slot_len - MW_SLOT_FIXED);
	rewrite(&a, one, true);
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s/index'", journal);
	assert_int_equal(system(cmd), 0);
	want(1, "verify");
	assert_true(says("are not its own"));
	assert_true(says("tampering"));
}

/* The tombstone is there, and the machine stopped before the rest. */
static void
cut_short(void **state)
{
	(void)state;
	make(NULL);
	write_conf("");
	struct mw_err err = {0};
	struct fake f = {.now = now_us};
	struct mw_record r = shared("4XB07q");
	uint8_t token[2][8];
	struct mw_seq_range range = {r.seq, r.seq};
	struct mw_tombstone t = {.why = MW_TOMB_ERASURE,
	                         .time_us = now_us,
	                         .by = MW_STR("uid 0"),
	                         .range = &range,
	                         .n_range = 1,
	                         .token = token,
	                         .n_token = 2};
	MW_BUF_AUTO cbor = {0};
	struct mw_store *st = writer(&f, NULL);
	mw_store_token(st, MW_KEY_RCPT, mw_strz(alice), token[0]);
	mw_store_token(st, MW_KEY_RCPT, MW_STR("alice+x@example.org"), token[1]);
	assert_int_equal(mw_tombstone_encode(&t, &cbor), 0);
	assert_int_equal(mw_store_note(st, MW_TYPE_TOMBSTONE, now_us, cbor.p, cbor.n,
	                               NULL, &err),
	                 0);
	mw_store_close(st);
	want(0, "verify");
	assert_true(says("there yet"));
	assert_int_equal(found(MW_KEY_RCPT, "alice+x@example.org"), 50);
	want(0, "prune --yes");
	assert_int_equal(found(MW_KEY_RCPT, "alice+x@example.org"), 49);
	assert_int_equal(found(MW_KEY_RCPT, hr), 100);
	want(0, "verify");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nobody_finds_it),     cmocka_unit_test(only_what_was_named),
	    cmocka_unit_test(without_a_tombstone), cmocka_unit_test(tokens_of_another),
	    cmocka_unit_test(cut_short),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
