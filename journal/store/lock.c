/* The journal's identity file and its lock. */
#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "journal/codec/sign.h"
#include "journal/store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char first_line[] = "mailwal journal ";

struct contents {
	int entries;
	bool journal;   /* the file of that name is there */
	bool leftovers; /* … of a creation that failed do not count */
};

static int
count_one(void *arg, const char *name)
{
	static const char *const made[] = {"segments",     "index",
	                                   "ledger",       "signing_key",
	                                   ".journal.tmp", ".signing_key.tmp"};
	struct contents *c = arg;
	for (size_t i = 0; c->leftovers && i < MW_COUNT(made); i++)
		if (strcmp(name, made[i]) == 0)
			return 0;
	c->entries++;
	c->journal = c->journal || strcmp(name, "journal") == 0;
	return 0;
}

/* Without its file `journal` it is none; but with segments it was one. */
static int
check_empty(const struct mw_fs *fs, const char *dir, struct mw_err *err)
{
	static const char *const data[] = {"segments", "ledger"};
	struct contents c = {.leftovers = true};
	int r = fs->list(fs, dir, count_one, &c);
	c.leftovers = false;
	for (size_t i = 0; r == 0 && i < MW_COUNT(data); i++) {
		char path[PATH_MAX];
		(void)!snprintf(path, sizeof path, "%.4000s/%s", dir, data[i]);
		r = fs->list(fs, path, count_one, &c);
		r = r == -ENOENT || r == -ENOTDIR ? 0 : r;
	}
	if (r == -ENOTDIR)
		return mw_fail(err, MW_ECREATE, "%s is no directory", dir);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", dir);
	}
	if (c.entries == 0)
		return 0;
	if (c.journal) {
		(void)mw_fail(err, MW_ECREATE, "%s is not empty: it is a journal already",
		              dir);
		(void)mw_err_hint(err,
		                  "use it as it is ('mailwal -j %s status'), or give "
		                  "a directory that does not exist yet",
		                  dir);
		return MW_ECREATE;
	}
	(void)mw_fail(err, MW_ECREATE, "%s is not empty", dir);
	(void)mw_err_hint(err, "give a directory that is empty or does not exist yet; "
	                       "mailwal init makes it");
	return MW_ECREATE;
}

static int
make_dirs(const struct mw_fs *fs, const char *dir, struct mw_err *err)
{
	static const char *const subs[] = {"segments", "index", "ledger"};
	char parent[PATH_MAX];
	int r = fs->mkdir(fs, dir);
	if (r == -ENOTDIR) /* of its parents, one */
		return mw_fail(err, MW_ECREATE, "cannot create %s: %s is no directory",
		               dir, mw_store_above(dir, parent));
	if (r < 0 && r != -EEXIST) {
		errno = -r;
		(void)mw_fail_errno(err, "cannot create %s", dir);
		return r == -ENOENT
		           ? mw_fail(err, MW_ECREATE,
		                     "cannot create %s: no such parent directory", dir)
		           : (err ? err->code : MW_ECREATE);
	}
	r = check_empty(fs, dir, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < MW_COUNT(subs); i++) {
		char path[PATH_MAX];
		if (snprintf(path, sizeof path, "%s/%s", dir, subs[i]) >=
		    (int)sizeof path)
			return mw_fail(err, MW_EUSAGE, "path too long: %s", dir);
		r = fs->mkdir(fs, path);
		if (r < 0 && r != -EEXIST) {
			errno = -r;
			return mw_fail_errno(err, "cannot create %s", path);
		}
	}
	return 0;
}

/* The Ed25519 key that signs closed segments; it stays with the journal, so it proves
 * nothing against who owns the host: checkpoints kept elsewhere do. */
static int
make_signing_key(const struct mw_fs *fs, const char *dir, char pubx[65],
                 struct mw_err *err)
{
	uint8_t seed[32], pk[32];
	char text[66];
	mw_random(seed, sizeof seed);
	if (mw_sign_public(seed, pk) < 0)
		return mw_fail(err, MW_ENOMEM, "cannot make a signing key");
	mw_hex(pubx, pk, sizeof pk);
	mw_hex(text, seed, sizeof seed);
	text[64] = '\n';
	int r = mw_fs_write_secret(fs, dir, "signing_key", text, 65);
	explicit_bzero(seed, sizeof seed);
	explicit_bzero(text, sizeof text);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s/signing_key", dir);
	}
	return 0;
}

static int
load_signing_key(struct mw_store *st)
{
	char path[PATH_MAX];
	MW_AUTOFREE void *text = NULL;
	size_t n;
	uint8_t pk[32];
	(void)!snprintf(path, sizeof path, "%.4000s/signing_key", st->dir);
	int r = mw_fs_read_file(st->fs, path, 4096, &text, &n);
	if (r < 0)
		return r == -ENOMEM ? MW_ENOMEM : 0;
	r = 0;
	if (n >= 64 && mw_unhex(st->sign_seed, text, 32)) {
		r = mw_sign_public(st->sign_seed, pk);
		st->can_sign = r == 0 && memcmp(pk, st->sign_public, 32) == 0;
	}
	explicit_bzero(text, n);
	return r;
}

/* The last line of the file 'journal', of what stands before it. */
static int
check_of(struct mw_str before, char out[65], struct mw_err *err)
{
	struct mw_sha256 h;
	uint8_t sum[MW_SHA256_LEN];
	if (mw_sha256_init(&h) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory for a journal");
	mw_sha256_update(&h, before.p, before.n);
	mw_sha256_final(&h, sum);
	mw_hex(out, sum, sizeof sum);
	return 0;
}

int
mw_store_create(const char *dir, const struct mw_fs *fs, const struct mw_clock *clock,
                struct mw_err *err)
{
	if (!fs)
		fs = mw_fs_posix();
	if (!clock)
		clock = mw_clock_system();
	const char *memory;
	int r = mw_store_place(fs, dir, &memory, err);
	if (r == 0)
		r = make_dirs(fs, dir, err);
	if (r < 0)
		return r;
	uint8_t id[MW_ID_LEN], key[32];
	char idx[2 * MW_ID_LEN + 1], keyx[65], pubx[65], when[40], text[512];
	mw_id_new(id);
	mw_random(key, sizeof key);
	mw_hex(idx, id, sizeof id);
	mw_hex(keyx, key, sizeof key);
	mw_time_rfc3339(when, sizeof when, clock->now_us(clock));
	r = make_signing_key(fs, dir, pubx, err);
	if (r < 0)
		return r;
	int n = snprintf(text, sizeof text,
	                 "%s1\nid = %s\ncreated = %s\ntoken_key = %s\nsign_public = %s\n",
	                 first_line, idx, when, keyx, pubx);
	char check[65];
	r = check_of(mw_str(text, (size_t)n), check, err);
	if (r < 0)
		return r;
	n += snprintf(text + n, sizeof text - (size_t)n, "check = %s\n", check);
	r = mw_fs_write_file(fs, dir, "journal", text, (size_t)n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s/journal", dir);
	}
	return 0;
}

static int
not_a_journal(struct mw_err *err, const char *dir, const char *why)
{
	(void)mw_fail(err, MW_EFORMAT, "%s is not a journal: %s", dir, why);
	(void)mw_err_hint(err,
	                  "if it is the right directory, put back a copy of its file "
	                  "'journal' from a backup of the journal");
	return MW_EFORMAT;
}

/* What hangs on this file: holds and marks open with its token key, and look-ups go by
 * it; so half of it is not good enough. */
static int
damaged_identity(struct mw_err *err, const char *dir, const char *why)
{
	(void)mw_fail(err, MW_EDAMAGED, "%s/journal is damaged: %s", dir, why);
	(void)mw_err_hint(err, "it was written once and never changes: put back a copy "
	                       "of it from a backup of the journal");
	return MW_EDAMAGED;
}

static int
take_first(const struct mw_store *st, struct mw_str line, struct mw_err *err)
{
	if (!mw_str_starts(line, mw_strz(first_line)))
		return not_a_journal(err, st->dir, "unknown first line");
	if (line.n == sizeof first_line && line.p[line.n - 1] == '1')
		return 0;
	(void)mw_fail(err, MW_EVERSION, "%s has a newer format: '%.*s'", st->dir,
	              (int)MW_MIN(line.n, 40), line.p);
	(void)mw_err_hint(err, "use a newer mailwal");
	return MW_EVERSION;
}

struct identity {
	bool id, key, check;
	const char *wrong; /* a line that is not as we wrote it */
};

static void
take_line(struct mw_store *st, struct mw_str line, struct identity *i)
{
	struct mw_str k, v;
	bool cut = mw_str_cut(line, '=', &k, &v), good = true;
	k = cut ? mw_str_trim(k) : line;
	v = cut ? mw_str_trim(v) : mw_str("", 0);
	if (mw_str_eq(k, MW_STR("id")))
		good = i->id = v.n == 2 * MW_ID_LEN && mw_unhex(st->id, v.p, MW_ID_LEN);
	else if (mw_str_eq(k, MW_STR("sign_public")))
		good = st->has_public = v.n == 64 && mw_unhex(st->sign_public, v.p, 32);
	else if (mw_str_eq(k, MW_STR("token_key")))
		good = i->key = v.n == 64 && mw_unhex(st->token_key, v.p, 32);
	else if (line.n && !mw_str_eq(k, MW_STR("created")))
		i->wrong = "a line that is not known";
	if (!good)
		i->wrong = "a key that is none";
}

/* Journals that are older than the check have known lines only. */
static int
take_identity(struct mw_store *st, struct mw_str text, struct mw_err *err)
{
	static const struct mw_str check = MW_STR("check = ");
	struct mw_str rest = text, line;
	struct identity i = {0};
	char sum[65];
	int r = mw_str_cut(rest, '\n', &line, &rest) ? take_first(st, line, err) : 0;
	while (r == 0 && mw_str_cut(rest, '\n', &line, &rest)) {
		if (!mw_str_starts(line, check)) {
			take_line(st, line, &i);
			continue;
		}
		r = check_of(mw_str(text.p, (size_t)(line.p - text.p)), sum, err);
		i.check =
		    r == 0 && rest.n == 0 &&
		    mw_str_eq(mw_str(line.p + check.n, line.n - check.n), mw_strz(sum));
		if (r == 0 && !i.check)
			return damaged_identity(err, st->dir, "it fails its check");
	}
	if (r < 0)
		return r;
	if (rest.n)
		i.wrong = "its last line is cut";
	if (!i.id || !i.key)
		return not_a_journal(err, st->dir, "its file 'journal' is incomplete");
	return i.wrong && !i.check ? damaged_identity(err, st->dir, i.wrong) : 0;
}

int
mw_store_identity(struct mw_store *st, struct mw_err *err)
{
	char path[PATH_MAX];
	MW_AUTOFREE void *text = NULL;
	size_t n;
	if (snprintf(path, sizeof path, "%s/journal", st->dir) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", st->dir);
	int r = mw_fs_read_file(st->fs, path, 65536, &text, &n);
	if (r == -EISDIR) { /* the directory above a journal that is called so */
		(void)mw_fail(err, MW_ENOTFOUND,
		              "%s is not a journal: its 'journal' is a directory",
		              st->dir);
		return mw_err_hint(err, "perhaps that one is: -j '%s'", path);
	}
	if (r == -ENOENT) {
		struct stat sb;
		bool dir = stat(st->dir, &sb) == 0;
		(void)mw_fail(err, MW_ENOTFOUND,
		              dir ? "%s is not a journal: no file 'journal' in it"
		                  : "no journal at %s",
		              st->dir);
		/* Not where it would refuse to. */
		if (check_empty(st->fs, st->dir, NULL) != MW_ECREATE)
			(void)mw_err_hint(err, "'mailwal init %s' creates one", st->dir);
		return MW_ENOTFOUND;
	}
	if (r == -ENOTDIR)
		return mw_fail(err, MW_ENOTFOUND, "%s is not a journal: no directory",
		               st->dir);
	if (r < 0) {
		errno = -r;
		int code = mw_fail_errno(err, "cannot read %s", path);
		return r == -EACCES ? mw_err_hint(err, "it is for root and the journal's "
		                                       "owner")
		                    : code;
	}
	r = take_identity(st, mw_str(text, n), err);
	explicit_bzero(text, n);
	if (r < 0)
		return r;
	if (st->has_public && load_signing_key(st) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory for a journal");
	mw_hmac_init(&st->token_hmac, st->token_key, sizeof st->token_key);
	return 0;
}

int
mw_store_lock(struct mw_store *st, struct mw_err *err)
{
	char path[PATH_MAX], pid[32] = "";
	if (snprintf(path, sizeof path, "%s/lock", st->dir) >= (int)sizeof path)
		return mw_fail(err, MW_EUSAGE, "path too long: %s", st->dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0) {
		struct stat sb;
		bool own =
		    errno == EACCES && stat(st->dir, &sb) == 0 && sb.st_uid == geteuid();
		int code = mw_fail_errno(err, "cannot open %s", path);
		return own ? mw_err_hint(err,
		                         "the journal is ours, that file is not: was "
		                         "mailwald run as root? chown -R "
		                         "--reference='%s' '%s'",
		                         st->dir, st->dir)
		           : code;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int e = errno;
		ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
		(void)close(fd);
		errno = e;
		if (e != EWOULDBLOCK)
			return mw_fail_errno(err, "cannot lock %s", path);
		(void)mw_fail(err, MW_ELOCKED, "journal %s is in use by process %.*s",
		              st->dir, n > 0 ? (int)strcspn(pid, "\n") : 1,
		              n > 0 ? pid : "?");
		(void)mw_err_hint(err, "only one mailwald may own a journal");
		return MW_ELOCKED;
	}
	int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	(void)!ftruncate(fd, 0);
	(void)!pwrite(fd, pid, (size_t)n, 0);
	st->lock_fd = fd;
	return 0;
}

/* While the lock was another's, somebody else may have written to the log. */
static int
not_continued(struct mw_store *st, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n;
	int r = mw_seg_list(st->fs, st->dir, &v, &n, err);
	if (r == 0 && n && v[n - 1] > st->last_number)
		r = mw_fail(err, MW_EIO,
		            "the log in %s has gone on without this mailwald: restart it",
		            st->dir);
	return r;
}

int
mw_store_own_again(struct mw_store *st, struct mw_err *err)
{
	char path[PATH_MAX], id[2 * MW_ID_LEN + 1];
	MW_AUTOFREE void *text = NULL;
	size_t n;
	struct stat is, named;
	if (!st->fs->leads_to) /* nothing moves there */
		return 0;
	(void)!snprintf(path, sizeof path, "%.4000s/journal", st->dir);
	int r = mw_fs_read_file(st->fs, path, 4096, &text, &n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	mw_hex(id, st->id, MW_ID_LEN);
	bool same = memmem(text, n, id, strlen(id)) != NULL;
	explicit_bzero(text, n);
	if (!same)
		return mw_fail(err, MW_EIO, "%s is another journal now: restart mailwald",
		               st->dir);
	(void)!snprintf(path, sizeof path, "%.4000s/lock", st->dir);
	if (fstat(st->lock_fd, &is) == 0 && stat(path, &named) == 0 &&
	    is.st_dev == named.st_dev && is.st_ino == named.st_ino)
		return 0;
	int old = st->lock_fd;
	r = mw_store_lock(st, err);
	if (r < 0)
		return r;
	r = not_continued(st, err);
	(void)close(r < 0 ? st->lock_fd : old); /* the next attempt finds the same */
	st->lock_fd = r < 0 ? old : st->lock_fd;
	return r;
}

void
mw_store_unlock(struct mw_store *st)
{
	if (st->lock_fd >= 0) {
		(void)!ftruncate(st->lock_fd, 0);
		(void)close(st->lock_fd);
	}
	st->lock_fd = -1;
}

const uint8_t *
mw_store_sign_public(const struct mw_store *st)
{
	return st->has_public ? st->sign_public : NULL;
}

int
mw_store_sign(const struct mw_store *st, const void *p, size_t n, uint8_t sig[64],
              struct mw_err *err)
{
	if (!st->can_sign) {
		(void)mw_fail(err, MW_EKEY, "%s/signing_key cannot be read", st->dir);
		(void)mw_err_hint(err, "run this as the owner of the journal");
		return MW_EKEY;
	}
	int r = mw_sign(st->sign_seed, p, n, sig);
	return r < 0 ? mw_fail(err, r, "cannot sign") : 0;
}
