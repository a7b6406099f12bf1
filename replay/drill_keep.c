#include "replay/drill_report.h"

#include "journal/base/bytes.h"
#include "journal/base/clock.h"
#include "journal/base/util.h"
#include "journal/verify/note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".note"

int
mw_drill_sign(struct mw_store *st, const json_t *o, struct mw_buf *out,
              struct mw_err *err)
{
	char first[MW_NOTE_NAME];
	size_t start = out->n;
	/* No empty line and no control characters in it: what a note wants. */
	char *text =
	    json_dumps(o, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(12));
	if (!text)
		return mw_fail(err, MW_ENOMEM, "out of memory for a report");
	mw_note_name(MW_NOTE_DRILL, mw_store_id(st), first);
	mw_buf_printf(out, "%s\n", first);
	mw_buf_puts(out, text);
	mw_buf_putc(out, '\n');
	free(text);
	return mw_note_sign(st, MW_NOTE_DRILL, start, out, err);
}

static void
directory(struct mw_store *st, char out[PATH_MAX])
{
	(void)snprintf(out, PATH_MAX, "%.4000s/drills", mw_store_dir(st));
}

/* For mailwald, which links no JSON. */
static void
last_lines(const json_t *o, struct mw_buf *b)
{
	int64_t us = 0;
	(void)mw_time_parse(mw_drill_str(o, "ended"), 0, &us);
	mw_buf_printf(b, "time %lld\npassed %d\n", (long long)(us / 1000000),
	              strcmp(mw_drill_str(o, "result"), "passed") == 0);
	mw_buf_printf(b, "restored %lld\nmismatches %lld\n",
	              (long long)mw_drill_num(o, "copies.restored"),
	              (long long)mw_drill_num(o, "findings_total"));
	mw_buf_printf(b, "rto %.3f\n", mw_drill_real(o, "measured.rto_s"));
	if (json_is_number(mw_drill_at(o, "measured.rpo_s")))
		mw_buf_printf(b, "rpo %.3f\n", mw_drill_real(o, "measured.rpo_s"));
}

static int
write_file(const char *dir, const char *name, const struct mw_buf *b, struct mw_err *err)
{
	int r = mw_buf_ok(b);
	if (r < 0)
		return mw_fail(err, r, "out of memory for a report");
	r = mw_fs_write_file(mw_fs_posix(), dir, name, b->p, b->n);
	if (r == 0)
		return 0;
	errno = -r;
	return mw_fail_errno(err, "cannot write %s/%s", dir, name);
}

/* As the owner. */
static int
make_directory(struct mw_store *st, const char *dir, struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return mw_fail_errno(err, "cannot make %s", dir);
	if (fs->sync_dir(fs, mw_store_dir(st)) < 0)
		return mw_fail(err, MW_EIO, "cannot sync %s", mw_store_dir(st));
	return 0;
}

int
mw_drill_can_save(struct mw_store *st, struct mw_err *err)
{
	char dir[PATH_MAX];
	directory(st, dir);
	int r = mw_cli_as_owner(mw_store_dir(st), err);
	/* Made when there is something to keep. */
	if (r == 0 && faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) < 0 &&
	    (errno != ENOENT ||
	     faccessat(AT_FDCWD, mw_store_dir(st), W_OK | X_OK, AT_EACCESS) < 0))
		r = mw_fail_errno(err, "cannot keep a report in %s", dir);
	mw_cli_as_self();
	return r == 0 ? 0
	              : mw_cli_owner_hint(err, "a drill is for root and the journal's "
	                                       "owner");
}

int
mw_drill_save(struct mw_store *st, const json_t *o, struct mw_err *err)
{
	char dir[PATH_MAX], name[MW_DRILL_NAME + sizeof SUFFIX];
	MW_BUF_AUTO note = {0}, last = {0};
	int r = mw_drill_sign(st, o, &note, err);
	if (r < 0)
		return r;
	directory(st, dir);
	(void)snprintf(name, sizeof name, "%s" SUFFIX, mw_drill_str(o, "name"));
	last_lines(o, &last);
	if ((r = mw_cli_as_owner(mw_store_dir(st), err)) < 0)
		return r;
	r = make_directory(st, dir, err);
	if (r == 0)
		r = write_file(dir, name, &note, err);
	if (r == 0)
		r = write_file(dir, "last", &last, err);
	mw_cli_as_self();
	return r;
}

/* ---- finding ---- */

void
mw_drill_kept_done(struct mw_drill_kept *k)
{
	json_decref(k->o);
	free(k->note);
	*k = (struct mw_drill_kept){.o = NULL};
}

static int
read_report(struct mw_store *st, const char *path, bool kept, struct mw_drill_kept *ret,
            struct mw_err *err)
{
	struct mw_drill_kept k = {.o = NULL};
	char name[MW_NOTE_NAME];
	json_error_t e;
	struct mw_str text, line, rest;
	const uint8_t *pk = mw_store_sign_public(st);
	int r = kept ? mw_fs_read_file(mw_fs_posix(), path, MW_DRILL_REPORT_MAX, &k.note,
	                               &k.n)
	             : mw_fs_read_named(path, MW_DRILL_REPORT_MAX, &k.note, &k.n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read %s", path);
	}
	struct mw_str all = mw_str(k.note, k.n);
	if (!mw_note_text(all, &text) || !mw_str_cut(text, '\n', &line, &rest) ||
	    !mw_str_starts(line, mw_strz(MW_NOTE_DRILL)) ||
	    !(k.o = json_loadb(rest.p, rest.n, JSON_REJECT_DUPLICATES, &e)) ||
	    !json_is_object(k.o)) {
		mw_drill_kept_done(&k);
		return mw_fail(err, MW_EFORMAT, "%s is no report of a drill", path);
	}
	(void)snprintf(k.name, sizeof k.name, "%s", mw_drill_str(k.o, "name"));
	mw_note_name(MW_NOTE_DRILL, mw_store_id(st), name);
	k.signed_here =
	    pk && mw_note_open(all, name, pk, &text) && mw_str_eq(line, mw_strz(name));
	*ret = k;
	return 0;
}

int
mw_drill_read(struct mw_store *st, const char *path, struct mw_drill_kept *ret,
              struct mw_err *err)
{
	return read_report(st, path, false, ret, err);
}

struct names {
	struct mw_arena *arena;
	const char **v;
	size_t n, cap;
	bool failed;
};

static int
on_name(void *arg, const char *name)
{
	struct names *x = arg;
	size_t n = strlen(name), s = sizeof SUFFIX - 1;
	if (n <= s || n >= MW_DRILL_NAME + s || strcmp(name + n - s, SUFFIX) != 0 ||
	    name[0] == '.')
		return 0;
	const char **v =
	    mw_arena_grow(x->arena, x->v, &x->cap, x->n + 1, sizeof(const char *));
	struct mw_str copy = mw_arena_str(x->arena, mw_str(name, n - s));
	if (!v || !copy.p) {
		x->failed = true;
		return 1;
	}
	x->v = v;
	v[x->n++] = copy.p;
	return 0;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int
mw_drill_names(struct mw_store *st, struct mw_arena *a, const char ***ret, size_t *ret_n,
               struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	struct names x = {.arena = a};
	char dir[PATH_MAX];
	directory(st, dir);
	int r = fs->list(fs, dir, on_name, &x);
	if (x.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (r < 0 && r != -ENOENT) {
		errno = -r;
		return mw_fail_errno(err, "cannot look into %s", dir);
	}
	if (x.n)
		qsort(x.v, x.n, sizeof *x.v, by_name);
	*ret = x.v;
	*ret_n = x.n;
	return 0;
}

int
mw_drill_find(struct mw_store *st, const char *name, struct mw_drill_kept *ret,
              struct mw_err *err)
{
	MW_ARENA_AUTO *a = mw_arena_new(16U << 20);
	const char **v = NULL, *found = NULL;
	size_t n = 0, hits = 0;
	char dir[PATH_MAX], path[PATH_MAX + MW_DRILL_NAME + 16];
	int r = a ? mw_drill_names(st, a, &v, &n, err)
	          : mw_fail(err, MW_ENOMEM, "out of memory");
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (name && strncmp(v[i], name, strlen(name)) != 0)
			continue;
		found = v[i];
		hits++;
	}
	if (!hits && !name) {
		(void)mw_fail(err, MW_ENOTFOUND, "no drill was done yet");
		return mw_err_hint(err, "mailwal drill run");
	}
	if (!hits || (name && hits > 1)) {
		(void)mw_fail(err, hits ? MW_EUSAGE : MW_ENOTFOUND,
		              hits ? "several drills begin with '%s'" : "no drill '%s'",
		              name);
		return mw_err_hint(err, "mailwal drill list shows them");
	}
	directory(st, dir);
	(void)snprintf(path, sizeof path, "%s/%s" SUFFIX, dir, found);
	struct mw_drill_kept k;
	r = read_report(st, path, true, &k, err);
	if (r < 0)
		return r;
	if (strcmp(k.name, found) != 0) { /* an older one in a newer one's place */
		(void)mw_fail(err, MW_EFORMAT, "%s is the report of another drill, %s",
		              path, k.name);
		mw_drill_kept_done(&k);
		return MW_EFORMAT;
	}
	*ret = k;
	return 0;
}

/* ---- does it fit ---- */

static int
no_fit(struct mw_err *err, const char *why)
{
	return mw_fail(err, MW_EDAMAGED, "the report does not fit this journal: %s", why);
}

/* The record that the report ends with is gone: by a prune that the log tells of? */
static int
pruned(struct mw_store *st, uint64_t seq, const uint8_t chain[32], struct mw_err *err)
{
	MW_GONE_AUTO *g = NULL;
	uint8_t head[32];
	int r = mw_gone_load(st, &g, err);
	if (r < 0)
		return r;
	r = mw_gone_stretch(g, seq, seq, head);
	if (r == 1 || (r == 2 && memcmp(head, chain, sizeof head) == 0))
		return 0;
	return no_fit(err, r ? "the chain it saw is another one: the log was rewritten"
	                     : "its last record is not there, and no prune says why: the "
	                       "log was cut or damaged");
}

int
mw_drill_fits(struct mw_store *st, const json_t *o, struct mw_err *err)
{
	uint8_t id[MW_ID_LEN], chain[32];
	const char *journal = mw_drill_str(o, "journal.id");
	const char *head = mw_drill_str(o, "journal.chain");
	int64_t seq = mw_drill_num(o, "journal.last_seq");
	struct mw_record rec;
	if (strlen(journal) != sizeof id * 2 || !mw_unhex(id, journal, sizeof id) ||
	    strlen(head) != sizeof chain * 2 || !mw_unhex(chain, head, sizeof chain) ||
	    seq < 1)
		return mw_fail(err, MW_EFORMAT,
		               "the report does not say of which journal");
	if (memcmp(id, mw_store_id(st), sizeof id) != 0)
		return no_fit(err, "it is of another journal");
	int r = mw_store_last(st, UINT64_MAX, &rec, err);
	if (r < 0)
		return r;
	if (r == 0 || rec.seq < (uint64_t)seq)
		return no_fit(
		    err, "the log ends before what it saw: it was cut or rolled back");
	r = mw_store_last(st, (uint64_t)seq + 1, &rec, err);
	if (r < 0)
		return r;
	if (r == 0 || rec.seq != (uint64_t)seq)
		return pruned(st, (uint64_t)seq, chain, err);
	return memcmp(rec.chain, chain, sizeof chain) == 0
	           ? 0
	           : no_fit(err,
	                    "the chain it saw is another one: the log was rewritten");
}
