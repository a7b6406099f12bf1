#include "journal/store/control.h"

#include "journal/base/bytes.h"
#include "journal/base/util.h"
#include "journal/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum {
	REPLY_MAX = 1 << 20,
	TIMEOUT_MS = 30000,
	STATUS_MS = 8000, /* monitoring gives up after ten seconds */
	HEAD_MS = 50      /* about what it takes to do without an answer */
};

/* A unix address is short; a journal's path may be long. So: through the directory's
 * descriptor. */
static int
address(const char *dir, struct sockaddr_un *sa, int *ret_dirfd, struct mw_err *err)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return mw_fail_errno(err, "cannot open %s", dir);
	memset(sa, 0, sizeof *sa);
	sa->sun_family = AF_UNIX;
	(void)snprintf(sa->sun_path, sizeof sa->sun_path, "/proc/self/fd/%d/control.sock",
	               fd);
	*ret_dirfd = fd;
	return 0;
}

int
mw_control_listen(const char *dir, struct mw_err *err)
{
	struct sockaddr_un sa;
	MW_AUTOCLOSE int dirfd = -1;
	int r = address(dir, &sa, &dirfd, err);
	if (r < 0)
		return r;
	MW_AUTOCLOSE int fd =
	    socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return mw_fail_errno(err, "cannot create a control socket");
	(void)unlinkat(dirfd, "control.sock", 0);
	/* the mode from its first moment on: Linux takes the descriptor's */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
	    fchmodat(dirfd, "control.sock", 0660, 0) < 0 || listen(fd, 16) < 0)
		return mw_fail_errno(err, "cannot listen on %s/control.sock", dir);
	return MW_TAKE_FD(fd);
}

bool
mw_control_allowed(int fd, uid_t *ret_uid)
{
	struct ucred uc;
	socklen_t n = sizeof uc;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &n) < 0)
		return false;
	*ret_uid = uc.uid;
	return uc.uid == 0 || uc.uid == geteuid();
}

static int
send_all(int fd, const char *p, size_t n, struct mw_err *err)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return mw_fail_errno(err, "cannot speak to mailwald");
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

static int
receive(int fd, int ms, struct mw_buf *in, struct mw_err *err)
{
	const struct mw_clock *clock = mw_clock_system();
	int64_t until = clock->mono_us(clock) + ms * INT64_C(1000);
	for (;;) {
		char tmp[4096];
		struct pollfd pf = {fd, POLLIN, 0};
		int64_t left = until - clock->mono_us(clock);
		int k = poll(&pf, 1, (int)((MW_MAX(left, 0) + 999) / 1000));
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return mw_fail(err, MW_ETIMEOUT, "no answer in %.3g s",
			               ms / 1000.0);
		ssize_t n = recv(fd, tmp, sizeof tmp, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return mw_fail_errno(err, "cannot hear mailwald");
		if (n == 0)
			return 0;
		mw_buf_put(in, tmp, (size_t)n);
		if (in->failed)
			return mw_fail(err, MW_ELIMIT, "mailwald's answer is too long");
	}
}

/* "error NAME TEXT" back into a code. */
static int
remote_error(struct mw_str line, struct mw_err *err)
{
	struct mw_str name, text;
	if (!mw_str_cut(line, ' ', &name, &text))
		return mw_fail(err, MW_EPROTO, "mailwald answered '%.*s'", (int)line.n,
		               line.p);
	int code = MW_EPROTO;
#define MW_ERROR(ename, num, class, status, etext)                                       \
	if (mw_str_ieq(name, mw_strz(#ename)))                                           \
		code = MW_E##ename;
#include "journal/base/errors.def"
#undef MW_ERROR
	return mw_fail(err, code, "mailwald: %.*s", (int)text.n, text.p);
}

static int
patience(const char *request)
{
	return strcmp(request, "status") == 0 ? STATUS_MS
	       : strcmp(request, "head") == 0 ? HEAD_MS
	                                      : TIMEOUT_MS;
}

/* A connection with the request sent on it. */
int
mw_control_ask(const char *dir, const char *request, int *ret_fd, struct mw_err *err)
{
	struct sockaddr_un sa;
	MW_AUTOCLOSE int dirfd = -1;
	int r = address(dir, &sa, &dirfd, err);
	if (r < 0)
		return r;
	MW_AUTOCLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return mw_fail_errno(err, "cannot create a socket");
	/* Also for a place in the queue of one that hangs. */
	const struct timeval wait = {patience(request) / 1000,
	                             patience(request) % 1000 * 1000};
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return mw_fail(err, MW_EUNAVAIL, "no mailwald owns %s", dir);
		if (errno == EAGAIN)
			return mw_fail(err, MW_ETIMEOUT,
			               "mailwald in %s takes no request", dir);
		return mw_fail_errno(err, "cannot reach mailwald in %s", dir);
	}
	r = send_all(fd, request, strlen(request), err);
	if (r == 0)
		r = send_all(fd, "\n", 1, err);
	if (r == 0)
		*ret_fd = MW_TAKE_FD(fd);
	return r;
}

int
mw_control_hello(int fd, struct mw_err *err)
{
	MW_BUF_AUTO in = {.max = 2048};
	char c = 0;
	while (c != '\n') {
		struct pollfd pf = {fd, POLLIN, 0};
		int k = poll(&pf, 1, TIMEOUT_MS);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0 || recv(fd, &c, 1, 0) != 1)
			return mw_fail(err, MW_EPROTO,
			               "the journal's writer gave no answer");
		mw_buf_putc(&in, c);
		if (in.failed)
			return mw_fail(err, MW_ELIMIT, "mailwald's answer is too long");
	}
	struct mw_str line = mw_str_trim(mw_buf_str(&in));
	if (mw_str_eq(line, MW_STR("ok")))
		return 0;
	return mw_str_starts(line, MW_STR("error "))
	           ? remote_error(mw_str(line.p + 6, line.n - 6), err)
	           : mw_fail(err, MW_EPROTO, "mailwald answered nothing that is known");
}

int
mw_control_stream(const char *dir, const char *request, int *ret_fd, struct mw_err *err)
{
	MW_AUTOCLOSE int fd = -1;
	int r = mw_control_ask(dir, request, &fd, err);
	if (r == 0)
		r = mw_control_hello(fd, err);
	if (r == 0)
		*ret_fd = MW_TAKE_FD(fd);
	return r;
}

int
mw_control_call(const char *dir, const char *request, struct mw_buf *reply,
                struct mw_err *err)
{
	MW_AUTOCLOSE int fd = -1;
	MW_BUF_AUTO in = {.max = REPLY_MAX};
	int r = mw_control_ask(dir, request, &fd, err);
	if (r == 0)
		r = receive(fd, patience(request), &in, err);
	if (r < 0)
		return r;
	struct mw_str line = mw_str_trim(mw_buf_str(&in));
	if (mw_str_starts(line, MW_STR("ok"))) {
		mw_buf_putstr(reply, mw_str_trim(mw_str(line.p + 2, line.n - 2)));
		return mw_buf_ok(reply);
	}
	if (mw_str_starts(line, MW_STR("error ")))
		return remote_error(mw_str(line.p + 6, line.n - 6), err);
	return mw_fail(err, MW_EPROTO,
	               "mailwald closed the connection without an answer");
}

int
mw_control_head(const char *dir, uint64_t *ret_next, uint8_t ret_chain[32],
                struct mw_err *err)
{
	MW_BUF_AUTO reply = {.max = 4096};
	int r = mw_control_call(dir, "head", &reply, err);
	if (r < 0)
		return r;
	char *end;
	const char *text = mw_buf_cstr(&reply);
	unsigned long long seq = strtoull(text, &end, 10);
	if (end == text || *end != ' ' || strlen(end + 1) != 64 ||
	    !mw_unhex(ret_chain, end + 1, 32))
		return mw_fail(err, MW_EPROTO, "mailwald answered '%.100s'", text);
	*ret_next = seq + 1;
	return 0;
}

static int
note_by_daemon(const char *dir, int type, const void *cbor, size_t n, uint64_t *ret_seq,
               struct mw_err *err)
{
	MW_BUF_AUTO req = {0};
	MW_BUF_AUTO reply = {.max = 4096};
	mw_buf_printf(&req, "note %d ", type);
	int r = mw_buf_reserve(&req, 2 * n + 2);
	if (r < 0)
		return mw_fail(err, r, "out of memory");
	mw_hex((char *)req.p + req.n, cbor, n);
	req.n += 2 * n;
	r = mw_control_call(dir, mw_buf_cstr(&req), &reply, err);
	if (r < 0)
		return r;
	char *end;
	const char *text = mw_buf_cstr(&reply);
	unsigned long long seq = strtoull(text, &end, 10);
	if (end == text)
		return mw_fail(err, MW_EPROTO, "mailwald gave no sequence number");
	*ret_seq = seq;
	return 0;
}

int
mw_control_note(const char *dir, int type, int64_t time_us, const void *cbor, size_t n,
                uint64_t *ret_seq, struct mw_err *err)
{
	int r = note_by_daemon(dir, type, cbor, n, ret_seq, err);
	if (r != MW_EUNAVAIL)
		return r;
	mw_err_clear(err);
	MW_STORE_AUTO *st = NULL;
	/* a small segment for a small note: little is prepared ahead */
	struct mw_store_opts o = {.dir = dir,
	                          .mode = MW_STORE_WRITE,
	                          .segment_size = 1 << 20};
	struct mw_commit c;
	r = mw_store_open(&o, &st, err);
	if (r == 0)
		r = mw_store_note(st, (enum mw_type)type, time_us, cbor, n, &c, err);
	if (r == 0)
		*ret_seq = c.seq;
	return r;
}
