/* base_test.c - journal/base: IDs, buffers, arenas, bytes, strings, errors, files.
 */
#include "journal/base/arena.h"
#include "journal/base/buf.h"
/* The program text, so that both ways of computing a CRC can be called. */
#include "journal/base/bytes.c"
#include "journal/base/err.h"
#include "journal/base/fs.h"
#include "journal/base/id.h"
#include "journal/base/util.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void
ids_go_round(void **state)
{
	uint8_t id[MW_ID_LEN], back[MW_ID_LEN];
	char text[MW_ID_TEXT + 1], part[MW_ID_TEXT + 1];
	unsigned bits;

	(void)state;
	for (int k = 0; k < 200; k++) {
		mw_id_new(id);
		mw_id_text(text, id);
		assert_int_equal(strlen(text), MW_ID_TEXT);
		assert_true(mw_id_parse(text, back, &bits));
		assert_int_equal(bits, 128);
		assert_memory_equal(id, back, MW_ID_LEN);
		for (unsigned n = MW_ID_MIN; n <= MW_ID_TEXT; n++) {
			(void)snprintf(part, sizeof part, "%.*s", (int)n, text);
			assert_true(mw_id_parse(part, back, &bits));
			assert_int_equal(bits, n < MW_ID_TEXT ? 5 * n : 128);
			assert_true(mw_id_match(id, back, bits));
			/* The last bit of the prefix differs: no match. */
			back[(bits - 1) / 8] ^= (uint8_t)(1U << (7 - (bits - 1) % 8));
			assert_false(mw_id_match(id, back, bits));
		}
	}
	memset(id, 0xff, sizeof id);
	mw_id_text(text, id);
	assert_string_equal(text, "zzzzzzzzzzzzzzzzzzzzzzzzzw");
	memset(id, 0, sizeof id);
	mw_id_text(text, id);
	assert_string_equal(text, "00000000000000000000000000");
	assert_true(mw_id_match(id, back, 0));
}

static void
ids_are_read_leniently_but_not_wrongly(void **state)
{
	static const char *const wrong[] = {
	    "",
	    "abc",
	    "abcu",
	    "ab d",
	    "abc-",
	    "äbcd",
	    "\xff\xff\xff\xff",
	    "zzzzzzzzzzzzzzzzzzzzzzzzzzz",
	    "zzzzzzzzzzzzzzzzzzzzzzzzzz", /* two bits too many */
	};
	uint8_t a[MW_ID_LEN], b[MW_ID_LEN];
	unsigned na, nb;

	(void)state;
	assert_true(mw_id_parse("10ABCD", a, &na));
	assert_true(mw_id_parse("lOabcd", b, &nb));
	assert_int_equal(na, nb);
	assert_memory_equal(a, b, MW_ID_LEN);
	assert_true(mw_id_parse("ioabcd", b, &nb));
	assert_memory_equal(a, b, MW_ID_LEN);
	for (size_t i = 0; i < MW_COUNT(wrong); i++)
		if (mw_id_parse(wrong[i], a, &na))
			fail_msg("'%s' is taken for an ID", wrong[i]);
}

static void
buffers_keep_their_limit(void **state)
{
	struct mw_buf b = {.max = 8};
	MW_BUF_AUTO big = {0};

	(void)state;
	mw_buf_puts(&b, "1234");
	mw_buf_printf(&b, "%d", 5678);
	assert_int_equal(mw_buf_ok(&b), 0);
	assert_string_equal(mw_buf_cstr(&b), "12345678"); /* the NUL does not count */
	mw_buf_putc(&b, '9');
	assert_int_equal(mw_buf_ok(&b), MW_ELIMIT);
	assert_string_equal(mw_buf_cstr(&b), "");
	assert_int_equal(b.n, 8);
	mw_buf_clear(&b);
	mw_buf_puts(&b, "way too long for it");
	assert_int_equal(mw_buf_ok(&b), MW_ELIMIT);
	assert_int_equal(b.n, 0);
	mw_buf_puts(&b, "x"); /* sticky */
	assert_int_equal(b.n, 0);
	mw_buf_clear(&b);
	mw_buf_printf(&b, "%s", "123456789");
	assert_int_equal(mw_buf_ok(&b), MW_ELIMIT);
	mw_buf_free(&b);
	assert_int_equal(b.max, 8);
	assert_null(b.p);

	mw_buf_drop(&big, 0);
	assert_string_equal(mw_buf_cstr(&big), "");
	for (int i = 0; i < 1000; i++)
		mw_buf_printf(&big, "%03d,", i);
	assert_int_equal(big.n, 4000);
	mw_buf_drop(&big, 3996);
	assert_string_equal(mw_buf_cstr(&big), "999,");
	mw_buf_putstr(&big, mw_str(NULL, 0));
	mw_buf_drop(&big, 4);
	assert_int_equal(mw_buf_str(&big).n, 0);
	assert_int_equal(mw_buf_reserve(&big, SIZE_MAX), MW_ELIMIT);
	mw_buf_wipe(&big);
	assert_null(big.p);
}

static void
arenas_keep_their_limit(void **state)
{
	MW_ARENA_AUTO *a = mw_arena_new(4096);
	size_t cap = 0;
	int *v = NULL;

	(void)state;
	assert_non_null(a);
	for (size_t i = 0; i < 40; i++) {
		char *p = mw_arena_alloc(a, i);
		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 16, 0);
		for (size_t j = 0; j < i; j++)
			assert_int_equal(p[j], 0);
		memset(p, 0xaa, i);
	}
	assert_null(mw_arena_alloc(a, 4096));
	assert_null(mw_arena_alloc(a, SIZE_MAX));
	assert_true(mw_arena_used(a) <= 4096);
	mw_arena_reset(a);
	assert_int_equal(mw_arena_used(a), 0);
	char *p = mw_arena_alloc(a, 4096);
	assert_non_null(p);
	for (size_t i = 0; i < 4096; i++)
		assert_int_equal(p[i], 0);
	assert_null(mw_arena_alloc(a, 1));
	mw_arena_reset(a);
	for (int i = 0; i < 100; i++) {
		v = mw_arena_grow(a, v, &cap, (size_t)i + 1, sizeof *v);
		assert_non_null(v);
		v[i] = i;
	}
	for (int i = 0; i < 100; i++)
		assert_int_equal(v[i], i);
	assert_null(mw_arena_grow(a, v, &cap, SIZE_MAX / 2, sizeof *v));
	mw_arena_reset(a);
	struct mw_str s = mw_arena_str(a, mw_str("a\0b", 3));
	assert_int_equal(s.n, 3);
	assert_memory_equal(s.p, "a\0b", 4);
	assert_non_null(mw_arena_str(a, mw_str(NULL, 0)).p);
	assert_string_equal(mw_arena_strdup(a, "x"), "x");
	assert_string_equal(mw_arena_printf(a, "%d-%s", 7, "y"), "7-y");
	mw_arena_free(NULL);
}

/* RFC 3720 appendix B.4, and the check value of the Rocksoft catalogue. */
static void
crc32c_known_vectors(void **state)
{
	uint8_t zeros[32] = {0}, ones[32], up[32], down[32], any[1031];
	uint32_t x = 1;

	(void)state;
	memset(ones, 0xff, sizeof ones);
	for (size_t i = 0; i < 32; i++) {
		up[i] = (uint8_t)i;
		down[i] = (uint8_t)(31 - i);
	}
	assert_int_equal(mw_crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(mw_crc32c(0, zeros, 32), 0x8a9136aa);
	assert_int_equal(mw_crc32c(0, ones, 32), 0x62a8ab43);
	assert_int_equal(mw_crc32c(0, up, 32), 0x46dd794e);
	assert_int_equal(mw_crc32c(0, down, 32), 0x113fdb5c);
	assert_int_equal(mw_crc32c(0, "", 0), 0);
	assert_int_equal(~crc_soft(~0U, (const uint8_t *)"123456789", 9), 0xe3069283);

	for (size_t i = 0; i < sizeof any; i++) {
		x = x * 1103515245 + 12345;
		any[i] = (uint8_t)(x >> 16);
	}
	uint32_t whole = mw_crc32c(0, any, sizeof any);
	for (size_t n = 0; n < sizeof any; n += 7) {
		assert_int_equal(mw_crc32c(mw_crc32c(0, any, n), any + n, sizeof any - n),
		                 whole);
		assert_int_equal(~crc_soft(~0U, any + n % 9, n ? n - n % 9 % n : 0),
		                 mw_crc32c(0, any + n % 9, n ? n - n % 9 % n : 0));
	}
}

static void
fields_and_reader(void **state)
{
	uint8_t p[32];
	struct mw_rd r = {.p = p, .n = 15};

	(void)state;
	mw_put16(p, 0x1234);
	mw_put32(p + 2, 0x89abcdef);
	mw_put64(p + 6, UINT64_C(0xfedcba9876543210));
	p[14] = 0xee;
	assert_int_equal(p[0], 0x34);
	assert_int_equal(mw_rd16(&r), 0x1234);
	assert_int_equal(mw_rd32(&r), 0x89abcdef);
	assert_true(mw_rd64(&r) == UINT64_C(0xfedcba9876543210));
	assert_int_equal(mw_rd8(&r), 0xee);
	assert_false(r.bad);
	assert_non_null(mw_rd_bytes(&r, 0));
	assert_int_equal(mw_rd8(&r), 0);
	assert_true(r.bad);
	r.at = 0;
	assert_int_equal(mw_rd64(&r), 0); /* sticky */
	struct mw_rd all = {.p = p, .n = 15, .at = 3};
	assert_null(mw_rd_bytes(&all, SIZE_MAX));
	mw_put64be(p, UINT64_C(0x0102030405060708));
	assert_int_equal(p[0], 1);
	assert_true(mw_get64be(p) == UINT64_C(0x0102030405060708));
}

static void
hexadecimal(void **state)
{
	uint8_t p[3] = {0x00, 0xaf, 0x9c}, q[3];
	char text[7];

	(void)state;
	mw_hex(text, p, 3);
	assert_string_equal(text, "00af9c");
	assert_true(mw_unhex(q, "00AF9c", 3));
	assert_memory_equal(p, q, 3);
	assert_false(mw_unhex(q, "00a", 3));
	assert_false(mw_unhex(q, "00ag00", 3));
	assert_false(mw_unhex(q, "", 1));
}

static void
strings(void **state)
{
	struct mw_str a, b;

	(void)state;
	assert_true(mw_str_eq(mw_str(NULL, 0), MW_STR("")));
	assert_false(mw_str_eq(MW_STR("a"), MW_STR("b")));
	assert_true(mw_str_ieq(MW_STR("Message-ID"), MW_STR("message-id")));
	assert_false(mw_str_ieq(MW_STR("["), MW_STR("{"))); /* 0x5b | 0x20 */
	assert_false(mw_str_ieq(MW_STR("@"), MW_STR("`")));
	assert_true(mw_str_starts(MW_STR("abc"), MW_STR("ab")));
	assert_false(mw_str_starts(MW_STR("a"), MW_STR("ab")));
	assert_true(mw_str_istarts(MW_STR("ABC"), MW_STR("ab")));
	assert_true(mw_str_eq(mw_str_trim(MW_STR(" \t\r\n a b \n")), MW_STR("a b")));
	assert_int_equal(mw_str_trim(MW_STR("  ")).n, 0);
	assert_int_equal(mw_str_trim(mw_str(NULL, 0)).n, 0);
	assert_true(mw_str_cut(MW_STR("k=v=w"), '=', &a, &b));
	assert_true(mw_str_eq(a, MW_STR("k")) && mw_str_eq(b, MW_STR("v=w")));
	assert_false(mw_str_cut(MW_STR("k"), '=', &a, &b));
	assert_false(mw_str_cut(mw_str(NULL, 0), '=', &a, &b));
	assert_true(mw_str_eq(mw_addr_domain(MW_STR("\"a@b\"@c.org")), MW_STR("c.org")));
	assert_true(mw_str_eq(mw_addr_local(MW_STR("\"a@b\"@c.org")), MW_STR("\"a@b\"")));
	assert_int_equal(mw_addr_domain(MW_STR("root")).n, 0);
	assert_true(mw_str_eq(mw_addr_local(MW_STR("root")), MW_STR("root")));
	assert_int_equal(mw_addr_domain(mw_str(NULL, 0)).n, 0);
}

static void
errors(void **state)
{
	struct mw_err err = {0};
	char lng[2000];

	(void)state;
	assert_int_equal(mw_fail(NULL, MW_EIO, "x"), MW_EIO);
	assert_int_equal(mw_fail(&err, MW_ELOCKED, "cannot lock %s", "/j"), MW_ELOCKED);
	assert_string_equal(err.msg, "cannot lock /j");
	assert_int_equal(mw_err_hint(&err, "stop %s", "it"), MW_ELOCKED);
	assert_int_equal(mw_err_prefix(&err, "journal %d", 1), MW_ELOCKED);
	assert_string_equal(err.msg, "journal 1: cannot lock /j");
	assert_string_equal(err.hint, "stop it");
	memset(lng, 'x', sizeof lng - 1);
	lng[sizeof lng - 1] = '\0';
	(void)mw_err_prefix(&err, "%s", lng);
	assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
	errno = ENOSPC;
	assert_int_equal(mw_fail_errno(&err, "cannot write"), MW_ENOSPC);
	assert_string_equal(err.msg, "cannot write: No space left on device");
	assert_string_equal(err.hint, "");
	assert_int_equal(err.sys_errno, ENOSPC);
	assert_int_equal(errno, ENOSPC);
	assert_string_equal(mw_err_name(MW_ELOCKED), "locked");
	assert_string_equal(mw_err_name(0), "ok");
	assert_string_equal(mw_err_name(-9999), "unknown");
	assert_int_equal(mw_err_exit(MW_ECONF), 78);
	assert_int_equal(mw_err_exit(MW_ECANCEL), 130);
	assert_int_equal(mw_err_exit(-9999), 70);
	assert_int_equal(mw_err_exit(5), 0);
	assert_int_equal(mw_err_class(MW_EIO), MW_CLASS_TRANSIENT);
	mw_err_clear(&err);
	assert_int_equal(err.code, 0);
	mw_err_clear(NULL);
}

static int
count_name(void *arg, const char *name)
{
	int *n = arg;

	assert_true(strcmp(name, ".") && strcmp(name, ".."));
	return ++*n == 2 ? 77 : 0;
}

static void
files(void **state)
{
	const struct mw_fs *fs = mw_fs_posix();
	char dir[] = "/tmp/mw-base-XXXXXX", path[64];
	void *p;
	size_t n;
	int names = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(mw_fs_write_file(fs, dir, "a", "hello", 5), 0);
	assert_int_equal(mw_fs_write_file(fs, dir, "a", "hi", 2), 0);
	assert_int_equal(mw_fs_write_file(fs, dir, "b", "", 0), 0);
	(void)snprintf(path, sizeof path, "%s/a", dir);
	assert_int_equal(mw_fs_read_file(fs, path, 100, &p, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(p, "hi");
	free(p);
	assert_int_equal(mw_fs_read_file(fs, path, 1, &p, &n), -EFBIG);
	assert_int_equal(fs->list(fs, dir, count_name, &names), 77);
	assert_int_equal(fs->open(fs, path, MW_OPEN_WRITE | MW_OPEN_CREATE), -EEXIST);

	/* Many pieces, empty ones among them, in one call. */
	int fd = fs->open(fs, path, MW_OPEN_READ | MW_OPEN_WRITE);
	struct iovec iov[5] = {{NULL, 0},
	                       {(char *)(uintptr_t) "ab", 2},
	                       {NULL, 0},
	                       {(char *)(uintptr_t) "cde", 3},
	                       {NULL, 0}};
	char got[8] = "";
	assert_true(fd >= 0);
	assert_int_equal(fs->pwritev(fs, fd, iov, 5, 1), 0);
	assert_int_equal(fs->size(fs, fd), 6);
	assert_int_equal(fs->pread(fs, fd, got, 8, 0), 6);
	assert_string_equal(got, "habcde");
	assert_int_equal(fs->truncate(fs, fd, 2), 0);
	assert_int_equal(fs->sync(fs, fd), 0);
	assert_int_equal(fs->pread(fs, fd, got, 8, 2), 0);
	assert_int_equal(fs->close(fs, fd), 0);
	assert_int_equal(fs->sync_dir(fs, dir), 0);
	assert_true(fs->free_space(fs, dir) > 0);
	fd = fs->open_temp(fs, dir);
	assert_true(fd >= 0);
	assert_int_equal(fs->close(fs, fd), 0);
	assert_int_equal(fs->unlink(fs, path), 0);
	assert_int_equal(fs->unlink(fs, path), -ENOENT);
	assert_int_equal(mw_fs_read_file(fs, path, 9, &p, &n), -ENOENT);
	(void)snprintf(path, sizeof path, "%s/b", dir);
	assert_int_equal(fs->unlink(fs, path), 0);
	assert_int_equal(rmdir(dir), 0); /* nothing temporary is left */
}
int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ids_go_round),
	    cmocka_unit_test(ids_are_read_leniently_but_not_wrongly),
	    cmocka_unit_test(buffers_keep_their_limit),
	    cmocka_unit_test(arenas_keep_their_limit),
	    cmocka_unit_test(crc32c_known_vectors),
	    cmocka_unit_test(fields_and_reader),
	    cmocka_unit_test(hexadecimal),
	    cmocka_unit_test(strings),
	    cmocka_unit_test(errors),
	    cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
