#include "replay/ledger.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "journal/codec/digest.h"
#include "replay/ledger_server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	WORDS = 10, /* of a line */
	LINE_LIMIT = 8192,
	WRITE_AT = 256 * 1024,
	LOCK_MS = 3000, /* for what a killed run leaves for a moment */
	LOCK_POLL_MS = 20
};

struct entry { /* open addressing, key 0: free */
	uint64_t key;
	uint8_t state;
};

struct mw_ledger {
	pthread_mutex_t mu; /* guards what follows the names */
	int lock_fd, log_fd;
	char *path, *dir;             /* of the log, and where it is */
	char other[MW_LEDGER_TARGET]; /* the name under which the server is known */
	char id[MW_ID_TEXT + 1], run[MW_ID_TEXT + 1]; /* set once */
	struct mw_buf out;
	struct entry *slot;
	size_t n, cap;
	bool unsynced;
};

/* 64 bits of SHA-256 over record, box and folder kind. */
static uint64_t
key_of(const uint8_t id[MW_ID_LEN], const char *box, bool sent)
{
	uint8_t d[32];
	MW_BUF_AUTO b = {0};
	mw_buf_put(&b, id, MW_ID_LEN);
	mw_buf_putc(&b, sent ? 'S' : 'I');
	mw_buf_puts(&b, box);
	mw_sha256_of(b.p, b.n, d);
	uint64_t k = mw_get64(d);
	return k ? k : 1;
}

static struct entry *
find(const struct mw_ledger *l, uint64_t key)
{
	if (!l->cap)
		return NULL;
	size_t i = (size_t)key & (l->cap - 1);
	while (l->slot[i].key && l->slot[i].key != key)
		i = (i + 1) & (l->cap - 1);
	return &l->slot[i];
}

static int
set(struct mw_ledger *l, uint64_t key, enum mw_ledger_state state)
{
	if ((l->n + 1) * 4 > l->cap * 3) {
		struct mw_ledger bigger = {.cap = l->cap ? l->cap * 2 : 1024};
		bigger.slot = calloc(bigger.cap, sizeof *bigger.slot);
		if (!bigger.slot)
			return MW_ENOMEM;
		for (size_t i = 0; i < l->cap; i++)
			if (l->slot[i].key)
				*find(&bigger, l->slot[i].key) = l->slot[i];
		free(l->slot);
		l->slot = bigger.slot;
		l->cap = bigger.cap;
	}
	struct entry *e = find(l, key);
	if (!e->key)
		l->n++;
	*e = (struct entry){key, (uint8_t)state};
	return 0;
}

static void
encode(struct mw_buf *b, const char *s)
{
	if (!*s)
		mw_buf_putc(b, '%'); /* an empty word */
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c <= 32 || c >= 127 || c == '%')
			mw_buf_printf(b, "%%%02x", c);
		else
			mw_buf_putc(b, (char)c);
	}
}

static bool
decode(char *s)
{
	char *out = s;
	if (strcmp(s, "%") == 0) {
		*s = '\0';
		return true;
	}
	for (; *s; s++) {
		uint8_t v = (uint8_t)*s;
		if (*s == '%') {
			if (!s[1] || !s[2] || !mw_unhex(&v, s + 1, 1))
				return false;
			s += 2;
		}
		*out++ = (char)v;
	}
	*out = '\0';
	return true;
}

struct line {
	char kind;
	uint8_t id[MW_ID_LEN];
	char *run, *box, *word[WORDS];
	size_t n;
	bool sent;
};

/* Takes a line without its newline to pieces; false for anything odd. */
static bool
parse_line(char *line, struct line *ret)
{
	char *crc = strrchr(line, ' ');
	char want[9], **word = ret->word, *save = NULL;
	unsigned bits;
	size_t n = 0;
	if (!crc)
		return false;
	uint8_t sum[4];
	mw_put32(sum, mw_crc32c(0, line, (size_t)(crc - line)));
	mw_hex(want, sum, 4);
	if (strcmp(crc + 1, want) != 0)
		return false;
	for (char *w = strtok_r(line, " ", &save); w && n < WORDS;
	     w = strtok_r(NULL, " ", &save))
		word[n++] = w;
	if (n < 5 || !mw_id_parse(word[2], ret->id, &bits) || bits != 128 ||
	    !decode(word[3]))
		return false;
	ret->kind = word[0][0];
	ret->run = word[1];
	ret->box = word[3];
	ret->sent = word[4][0] == '1';
	ret->n = n;
	return true;
}

static int
load_line(void *arg, struct line *w)
{
	enum mw_ledger_state st = w->kind == 'D'   ? MW_LEDGER_DONE
	                          : w->kind == 'I' ? MW_LEDGER_DOUBTFUL
	                          : w->kind == 'T' ? MW_LEDGER_TAKEN
	                                           : MW_LEDGER_NONE;
	return set(arg, key_of(w->id, w->box, w->sent), st);
}

/* Every whole line of a log to cb; its first code other than 0 ends it. */
static int
each_line(const char *path, int (*cb)(void *arg, struct line *w), void *arg,
          struct mw_err *err)
{
	FILE *f = mw_fs_stream(path);
	struct line w;
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int r = 0;
	if (!f)
		return errno == ENOENT ? 0 : mw_fail_errno(err, "cannot read %s", path);
	while (!r && (n = getline(&line, &cap, f)) > 0) {
		if (line[n - 1] != '\n' || n > LINE_LIMIT)
			continue; /* torn */
		line[n - 1] = '\0';
		if (parse_line(line, &w))
			r = cb(arg, &w);
	}
	free(line);
	(void)fclose(f);
	return r;
}

static int
load(struct mw_ledger *l, const char *path, struct mw_err *err)
{
	int r = each_line(path, load_line, l, err);
	return r == MW_ENOMEM ? mw_fail(err, r, "out of memory") : r;
}

static int
open_failed(struct mw_err *err, const char *path)
{
	int r = mw_fail_errno(err, "cannot keep a ledger in %s", path);
	(void)mw_err_hint(err, "--state DIR names a directory that can be written");
	return r;
}

static int
make_dir(const char *path, struct mw_err *err)
{
	return mkdir(path, 0700) < 0 && errno != EEXIST ? open_failed(err, path) : 0;
}

static int
take_lock(struct mw_ledger *l, const char *dir, struct mw_err *err)
{
	char path[PATH_MAX], pid[32] = "";
	if (snprintf(path, sizeof path, "%s/lock", dir) >= (int)sizeof path)
		return mw_fail(err, MW_ECREATE, "path too long: %.100s", dir);
	l->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->lock_fd < 0)
		return open_failed(err, path);
	for (int ms = 0; flock(l->lock_fd, LOCK_EX | LOCK_NB) < 0; ms += LOCK_POLL_MS) {
		ssize_t k = pread(l->lock_fd, pid, sizeof pid - 1, 0);
		pid[k > 0 ? strspn(pid, "0123456789") : 0] = '\0';
		/* What a killed run was about to start has its files still. */
		bool dead =
		    pid[0] && kill((pid_t)strtol(pid, NULL, 10), 0) < 0 && errno == ESRCH;
		if (!dead || ms >= LOCK_MS)
			return mw_fail(err, MW_ELOCKED,
			               "another replay to this target is at work%s%s",
			               pid[0] ? ", pid " : "", pid);
		(void)poll(NULL, 0, LOCK_POLL_MS);
	}
	int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	if (ftruncate(l->lock_fd, 0) < 0 || pwrite(l->lock_fd, pid, (size_t)n, 0) != n)
		return mw_fail_errno(err, "cannot write %s", path);
	return 0;
}

static int
get_id(struct mw_ledger *l, const char *dir, struct mw_err *err)
{
	const struct mw_fs *fs = mw_fs_posix();
	char path[PATH_MAX];
	uint8_t id[MW_ID_LEN];
	unsigned bits;
	void *p;
	size_t n;
	(void)snprintf(path, sizeof path, "%s/id", dir);
	if (mw_fs_read_file(fs, path, 100, &p, &n) == 0) {
		char *text = p;
		text[strcspn(text, "\n")] = '\0';
		bool good = mw_id_parse(text, id, &bits) && bits == 128;
		if (good)
			memcpy(l->id, text, sizeof l->id);
		free(p);
		if (good)
			return 0;
	}
	mw_id_new(id);
	mw_id_text(l->id, id);
	char line[MW_ID_TEXT + 2];
	n = (size_t)snprintf(line, sizeof line, "%s\n", l->id);
	int r = mw_fs_write_file(fs, dir, "id", line, n);
	if (r) {
		errno = -r;
		return mw_fail_errno(err, "cannot write %s", path);
	}
	return 0;
}

/* Opens the log for appending; a torn last line is ended, so that the next is whole. */
static int
open_log(struct mw_ledger *l, const char *path, struct mw_err *err)
{
	struct stat st;
	char last = '\n';
	l->log_fd =
	    open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->log_fd < 0 || fstat(l->log_fd, &st) < 0)
		return mw_fail_errno(err, "cannot open %s", path);
	if (st.st_size && pread(l->log_fd, &last, 1, st.st_size - 1) != 1)
		return mw_fail_errno(err, "cannot read %s", path);
	if (last != '\n')
		mw_buf_putc(&l->out, '\n');
	return 0;
}

int
mw_ledger_open(const char *dir, const char *target, bool read_it, struct mw_ledger **ret,
               struct mw_err *err)
{
	char path[PATH_MAX], hex[MW_LEDGER_DIR];
	uint8_t d[32], run[MW_ID_LEN];
	struct mw_ledger *l = calloc(1, sizeof *l);
	if (!l)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	l->lock_fd = l->log_fd = -1;
	(void)pthread_mutex_init(&l->mu, NULL);
	mw_sha256_of(target, strlen(target), d);
	mw_hex(hex, d, 8);
	mw_ledger_server(dir, target, hex, l->other);
	mw_id_new(run);
	mw_id_text(l->run, run);
	int r = make_dir(dir, err);
	int n = snprintf(path, sizeof path, "%s/%s", dir, hex);
	if (!r && n + 8 >= (int)sizeof path)
		r = mw_fail(err, MW_ECREATE, "path too long: %.100s", dir);
	if (!r)
		r = make_dir(path, err);
	if (!r)
		r = take_lock(l, path, err);
	if (!r)
		r = get_id(l, path, err);
	if (!r)
		r = mw_ledger_server_note(path, target, err);
	if (!r && !(l->dir = strdup(path)))
		r = mw_fail(err, MW_ENOMEM, "out of memory");
	if (!r) {
		memcpy(path + n, "/log", 5);
		if (!(l->path = strdup(path)))
			r = mw_fail(err, MW_ENOMEM, "out of memory");
		if (!r && read_it)
			r = load(l, path, err);
	}
	if (!r)
		r = open_log(l, path, err);
	if (r) {
		mw_ledger_close(l);
		return r;
	}
	*ret = l;
	return 0;
}

void
mw_ledger_close(struct mw_ledger *l)
{
	struct mw_err ignored;
	if (!l)
		return;
	if (l->log_fd >= 0 && mw_ledger_sync(l, &ignored))
		l->unsynced = false; /* the next scan tells what the ledger could not */
	if (l->log_fd >= 0)
		(void)close(l->log_fd);
	if (l->lock_fd >= 0)
		(void)close(l->lock_fd); /* and the lock with it */
	mw_buf_free(&l->out);
	free(l->slot);
	free(l->path);
	free(l->dir);
	(void)pthread_mutex_destroy(&l->mu);
	free(l);
}

const char *
mw_ledger_id(const struct mw_ledger *l)
{
	return l->id;
}

const char *
mw_ledger_dir(const struct mw_ledger *l)
{
	return l->dir;
}

size_t
mw_ledger_forget(struct mw_ledger *l)
{
	size_t n = 0;
	for (size_t i = 0; i < l->cap; i++)
		n += l->slot[i].key && l->slot[i].state != MW_LEDGER_NONE;
	free(MW_TAKE(l->slot));
	l->n = l->cap = 0;
	return n;
}

const char *
mw_ledger_other(const struct mw_ledger *l)
{
	return l->other[0] ? l->other : NULL;
}

const char *
mw_ledger_run(const struct mw_ledger *l)
{
	return l->run;
}

enum mw_ledger_state
mw_ledger_get(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
              bool sent)
{
	(void)pthread_mutex_lock(&l->mu);
	const struct entry *e = find(l, key_of(id, box, sent));
	enum mw_ledger_state st =
	    e && e->key ? (enum mw_ledger_state)e->state : MW_LEDGER_NONE;
	(void)pthread_mutex_unlock(&l->mu);
	return st;
}

static int
write_out(struct mw_ledger *l, struct mw_err *err)
{
	size_t at = 0;
	if (l->out.failed)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	while (at < l->out.n) {
		ssize_t k = write(l->log_fd, l->out.p + at, l->out.n - at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return mw_fail_errno(err, "cannot write the ledger");
		at += (size_t)k;
		l->unsynced = true;
	}
	mw_buf_clear(&l->out);
	return 0;
}

static int
sync_out(struct mw_ledger *l, struct mw_err *err)
{
	int r = write_out(l, err);
	if (r || !l->unsynced)
		return r;
	if (fdatasync(l->log_fd) < 0)
		return mw_fail_errno(err, "cannot sync the ledger");
	l->unsynced = false;
	return 0;
}

int
mw_ledger_sync(struct mw_ledger *l, struct mw_err *err)
{
	(void)pthread_mutex_lock(&l->mu);
	int r = sync_out(l, err);
	(void)pthread_mutex_unlock(&l->mu);
	return r;
}

static void
start_line(struct mw_ledger *l, char kind, const uint8_t id[MW_ID_LEN], const char *box,
           bool sent)
{
	char text[MW_ID_TEXT + 1];
	mw_id_text(text, id);
	mw_buf_printf(&l->out, "%c %s %s ", kind, l->run, text);
	encode(&l->out, box);
	mw_buf_puts(&l->out, sent ? " 1" : " 0");
}

static int
end_line(struct mw_ledger *l, size_t from, struct mw_err *err)
{
	uint8_t sum[4];
	char hex[9];
	mw_put32(sum, mw_crc32c(0, l->out.p + from, l->out.n - from));
	mw_hex(hex, sum, 4);
	mw_buf_printf(&l->out, " %s\n", hex);
	return l->out.n > WRITE_AT || l->out.failed ? write_out(l, err) : 0;
}

static int
simple_line(struct mw_ledger *l, char kind, enum mw_ledger_state st,
            const uint8_t id[MW_ID_LEN], const char *box, bool sent, struct mw_err *err)
{
	(void)pthread_mutex_lock(&l->mu);
	size_t from = l->out.n;
	start_line(l, kind, id, box, sent);
	int r = set(l, key_of(id, box, sent), st)
	            ? mw_fail(err, MW_ENOMEM, "out of memory")
	            : end_line(l, from, err);
	(void)pthread_mutex_unlock(&l->mu);
	return r;
}

int
mw_ledger_intent(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                 bool sent, struct mw_err *err)
{
	return simple_line(l, 'I', MW_LEDGER_DOUBTFUL, id, box, sent, err);
}

int
mw_ledger_refused(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                  bool sent, struct mw_err *err)
{
	return simple_line(l, 'R', MW_LEDGER_NONE, id, box, sent, err);
}

int
mw_ledger_taken(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                bool sent, struct mw_err *err)
{
	return simple_line(l, 'T', MW_LEDGER_TAKEN, id, box, sent, err);
}

int
mw_ledger_undone(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
                 bool sent, struct mw_err *err)
{
	return simple_line(l, 'U', MW_LEDGER_NONE, id, box, sent, err);
}

/* ---- what a run put ---- */

struct of_run {
	const char *run;
	char whole[MW_ID_TEXT + 1]; /* the one run that it stands for */
	struct mw_ledger undone;    /* keys of lines "U", as a set */
	int (*cb)(void *, const struct mw_ledger_put *);
	void *arg;
	size_t n;
};

static int
note_undone(void *arg, struct line *w)
{
	struct of_run *o = arg;
	bool ours = strncmp(w->run, o->run, strlen(o->run)) == 0;
	if (ours && !o->whole[0] && w->kind != 'U')
		(void)snprintf(o->whole, sizeof o->whole, "%s", w->run);
	if (ours && w->kind != 'U' && strcmp(o->whole, w->run) != 0)
		return MW_EUSAGE;
	if (w->kind != 'U' && w->kind != 'D')
		return 0;
	return set(&o->undone, key_of(w->id, w->box, w->sent),
	           w->kind == 'U' ? MW_LEDGER_DONE : MW_LEDGER_NONE);
}

static int
give_put(void *arg, struct line *w)
{
	struct of_run *o = arg;
	if (w->kind != 'D' || strcmp(w->run, o->whole) != 0 || w->n < 8 ||
	    !decode(w->word[5]))
		return 0;
	struct mw_ledger_put put = {
	    .box = w->box,
	    .sent = w->sent,
	    .place = {w->word[5], (uint32_t)strtoul(w->word[6], NULL, 10),
	              (uint32_t)strtoul(w->word[7], NULL, 10),
	              w->n == WORDS ? strtoll(w->word[8], NULL, 10) : 0}};
	memcpy(put.id, w->id, MW_ID_LEN);
	const struct entry *e = find(&o->undone, key_of(w->id, w->box, w->sent));
	put.undone = e && e->key && e->state == MW_LEDGER_DONE;
	o->n++;
	return o->cb(o->arg, &put);
}

int
mw_ledger_of_run(struct mw_ledger *l, const char *run,
                 int (*cb)(void *arg, const struct mw_ledger_put *put), void *arg,
                 struct mw_err *err)
{
	struct of_run o = {.run = run, .cb = cb, .arg = arg};
	int r = each_line(l->path, note_undone, &o, err);
	if (!r && o.whole[0])
		r = each_line(l->path, give_put, &o, err);
	free(o.undone.slot);
	if (r == MW_EUSAGE)
		return mw_fail(err, r,
		               "\"%.60s\" stands for several runs: say more of it", run);
	if (r == MW_ENOMEM)
		return mw_fail(err, r, "out of memory");
	return r ? r : (int)MW_MIN(o.n, (size_t)INT_MAX);
}

int
mw_ledger_done(struct mw_ledger *l, const uint8_t id[MW_ID_LEN], const char *box,
               bool sent, const struct mw_put_place *place, struct mw_err *err)
{
	static const struct mw_put_place unknown = {NULL, 0, 0, 0};
	if (!place)
		place = &unknown;
	(void)pthread_mutex_lock(&l->mu);
	size_t from = l->out.n;
	start_line(l, 'D', id, box, sent);
	mw_buf_putc(&l->out, ' ');
	encode(&l->out, place->folder ? place->folder : "");
	mw_buf_printf(&l->out, " %u %u %lld", (unsigned)place->uidvalidity,
	              (unsigned)place->uid, (long long)place->time_us);
	int r = set(l, key_of(id, box, sent), MW_LEDGER_DONE)
	            ? mw_fail(err, MW_ENOMEM, "out of memory")
	            : end_line(l, from, err);
	(void)pthread_mutex_unlock(&l->mu);
	return r;
}
