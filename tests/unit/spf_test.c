/* The SPF record: its CBOR form, and how it is found from the mail that it refers to. */
#include "journal/base/util.h"
#include "journal/record/cbor.h"
#include "journal/record/spf.h"
#include "journal/store/store.h"
#include "tests/support/shell.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static const struct mw_spf full = {
    .ref = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
    .seq = 77,
    .ip = {"2001:db8::1", 11},
    .helo = {"\xff<>\r\n", 5},
    .from = {"a\0b@example.test", 16},
    .result = MW_SPF_SOFTFAIL,
    .code = 26,
    .record = {"v=spf1 ~all", 11},
    .explanation = {"no", 2},
    .reason = {"because", 7},
    .library = {"libspf2 1.2.10", 14},
    .time_us = -5,
    .took_us = 12345,
};

static void
same(const struct mw_spf *a, const struct mw_spf *b)
{
	assert_memory_equal(a->ref, b->ref, sizeof a->ref);
	assert_true(a->seq == b->seq && a->result == b->result && a->code == b->code);
	assert_true(a->time_us == b->time_us && a->took_us == b->took_us);
	assert_true(mw_str_eq(a->ip, b->ip) && mw_str_eq(a->helo, b->helo));
	assert_true(mw_str_eq(a->from, b->from) && mw_str_eq(a->record, b->record));
	assert_true(mw_str_eq(a->explanation, b->explanation));
	assert_true(mw_str_eq(a->reason, b->reason));
	assert_true(mw_str_eq(a->library, b->library));
}

static void
decode_of_encode_is_the_same(void **state)
{
	(void)state;
	struct mw_spf bare = {.result = MW_SPF_NONE}, got;
	const struct mw_spf *v[] = {&full, &bare};
	struct mw_err err = {0};
	for (size_t i = 0; i < MW_COUNT(v); i++) {
		MW_ARENA_AUTO *a = mw_arena_new(0);
		MW_BUF_AUTO b = {0};
		assert_int_equal(mw_spf_encode(v[i], &b), 0);
		assert_int_equal(mw_spf_decode(b.p, b.n, a, &got, &err), 0);
		same(v[i], &got);
		for (size_t n = 0; n < b.n; n++)
			assert_int_equal(mw_spf_decode(b.p, n, a, &got, &err),
			                 MW_EFORMAT);
	}
}

static void
names_go_both_ways(void **state)
{
	(void)state;
	enum mw_spf_result r;
	for (int i = MW_SPF_NONE; i <= MW_SPF_PERMERROR; i++) {
		const char *name = mw_spf_result_name((enum mw_spf_result)i);
		assert_true(mw_spf_result_parse(mw_strz(name), &r));
		assert_int_equal(r, i);
	}
	assert_false(mw_spf_result_parse(MW_STR("Pass"), &r));
	assert_false(mw_spf_result_parse(MW_STR(""), &r));
}

/* One more pair in front of an encoded record's own. */
static int
with_key(const char *key, struct mw_str value, struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	MW_BUF_AUTO b = {0};
	struct mw_spf got;
	mw_cbor_put_map(&b, 1);
	mw_cbor_put_text(&b, key);
	mw_cbor_put_bytes(&b, value);
	return mw_spf_decode(b.p, b.n, a, &got, err);
}

static void
unknown_and_wrong_values(void **state)
{
	(void)state;
	struct mw_err err = {0};
	assert_int_equal(with_key("later", MW_STR("x"), &err), 0);
	assert_int_equal(with_key("!later", MW_STR("x"), &err), MW_EVERSION);
	assert_int_equal(with_key("res", MW_STR("maybe"), &err), MW_EFORMAT);
	assert_int_equal(with_key("ref", MW_STR("short"), &err), MW_EFORMAT);
	assert_int_equal(with_key("seq", MW_STR("text"), &err), MW_EFORMAT);
}

struct found {
	size_t n;
	struct mw_record spf;
};

static int
find_cb(void *arg, const struct mw_record *r)
{
	struct found *f = arg;
	f->n++;
	if (r->type == MW_TYPE_SPF)
		f->spf = *r;
	return 0;
}

static void
append_mail(struct mw_store *st, uint8_t ret_id[MW_ID_LEN])
{
	struct mw_mail m = {.time_us = 1, .sender = MW_STR("a@example.test")};
	(void)journaled(st, &m, "A: b\r\n\r\n", 8, ret_id);
}

static void
append_verdict(struct mw_store *st, const uint8_t id[MW_ID_LEN])
{
	struct mw_err err = {0};
	MW_ENTRY_AUTO *e = NULL;
	MW_BUF_AUTO b = {0};
	struct mw_commit c;
	struct mw_spf s = full;
	memcpy(s.ref, id, MW_ID_LEN);
	assert_int_equal(mw_spf_encode(&s, &b), 0);
	assert_int_equal(mw_entry_new(st, MW_TYPE_SPF, &e, &err), 0);
	mw_entry_refer(e, id);
	assert_int_equal(mw_entry_finish(e, 9, b.p, b.n, &err), 0);
	assert_int_equal(mw_store_append(st, e, &c, &err), 0);
}

static void
check_found(struct mw_store *st, const uint8_t id[MW_ID_LEN])
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_err err = {0};
	struct found f = {0};
	struct mw_record r;
	char text[MW_ID_TEXT + 1];
	mw_id_text(text, id);
	for (size_t n = MW_ID_TEXT; n >= 8; n--) { /* whole and cut: the mail itself */
		text[n] = 0;
		assert_int_equal(mw_store_find_id(st, text, &r, &err), 0);
		assert_int_equal(r.type, MW_TYPE_MAIL);
		assert_memory_equal(r.id, id, MW_ID_LEN);
	}
	assert_int_equal(mw_store_find(st, MW_KEY_ID, mw_str((const char *)id, 6),
	                               find_cb, &f, &err),
	                 0);
	assert_int_equal(f.n, 2);
	MW_BUF_AUTO meta = {0};
	struct mw_spf got, want = full;
	memcpy(want.ref, id, MW_ID_LEN);
	assert_int_equal(mw_record_meta(st, &f.spf, &meta, &err), 0);
	assert_int_equal(mw_spf_decode(meta.p, meta.n, a, &got, &err), 0);
	same(&want, &got);
}

static void
found_from_its_mail(void **state)
{
	(void)state;
	char dir[] = "/tmp/mw-spf-XXXXXX", journal[64], cmd[128];
	uint8_t id[2][MW_ID_LEN];
	struct mw_err err = {0};
	struct mw_store *st;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	assert_int_equal(mw_store_create(journal, NULL, NULL, &err), 0);
	struct mw_store_opts o = {.dir = journal, .mode = MW_STORE_WRITE};
	assert_int_equal(mw_store_open(&o, &st, &err), 0);
	append_mail(st, id[0]);
	append_mail(st, id[1]);
	append_verdict(st, id[1]);
	append_verdict(st, id[0]);
	mw_store_close(st);
	o.mode = MW_STORE_READ;
	for (int with_index = 1; with_index >= 0; with_index--) {
		assert_int_equal(mw_store_open(&o, &st, &err), 0);
		check_found(st, id[0]);
		check_found(st, id[1]);
		mw_store_close(st);
		(void)snprintf(cmd, sizeof cmd, "rm -rf %s%s", dir,
		               with_index ? "/j/index" : "");
		assert_int_equal(system(cmd), 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(decode_of_encode_is_the_same),
	    cmocka_unit_test(names_go_both_ways),
	    cmocka_unit_test(unknown_and_wrong_values),
	    cmocka_unit_test(found_from_its_mail),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
