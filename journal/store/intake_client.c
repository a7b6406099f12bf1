/* The importer's side of the stream that intake.h describes. */
#include "journal/store/intake.h"

#include "journal/base/buf.h"
#include "journal/base/bytes.h"
#include "journal/base/util.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	SEND_AT = 64 * 1024,
	ANSWER_MS = 120000 /* a disk in trouble takes its time */
};

struct mw_intake {
	int fd;
	mw_intake_answer *cb;
	void *arg;
	void *ref[MW_INTAKE_AHEAD];
	size_t head, n;
	struct mw_buf out, in;
	struct mw_buf piece; /* content not yet framed */
	bool broken;
};

int
mw_intake_new(int fd, mw_intake_answer *cb, void *arg, struct mw_intake **ret,
              struct mw_err *err)
{
	struct mw_intake *c = calloc(1, sizeof *c);
	if (!c)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	c->fd = fd;
	c->cb = cb;
	c->arg = arg;
	c->in.max = 4096;
	*ret = c;
	return 0;
}

static int
gone(struct mw_intake *c, struct mw_err *err)
{
	c->broken = true;
	(void)mw_fail(err, MW_EUNAVAIL, "the journal's writer ended during the import");
	(void)mw_err_hint(err,
	                  "run the import again: what is in the journal is not taken "
	                  "twice");
	return MW_EUNAVAIL;
}

static int
send_out(struct mw_intake *c, struct mw_err *err)
{
	size_t at = 0;
	while (at < c->out.n) {
		ssize_t k = send(c->fd, c->out.p + at, c->out.n - at, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return gone(c, err);
		at += (size_t)k;
	}
	mw_buf_clear(&c->out);
	return 0;
}

/* "error NAME TEXT" */
static int
code_of(struct mw_str line, struct mw_str *ret_text)
{
	struct mw_str name = line, text = MW_STR("");
	(void)mw_str_cut(line, ' ', &name, &text);
	*ret_text = text;
#define MW_ERROR(ename, num, class, status, etext)                                       \
	if (mw_str_ieq(name, mw_strz(#ename)))                                           \
		return MW_E##ename;
#include "journal/base/errors.def"
#undef MW_ERROR
	return MW_EPROTO;
}

static int
answer(struct mw_intake *c, struct mw_str line, struct mw_err *err)
{
	char why[300] = "";
	int code = 0;
	if (!c->n)
		return gone(c, err);
	if (mw_str_starts(line, MW_STR("error "))) {
		struct mw_str text;
		code = code_of(mw_str(line.p + 6, line.n - 6), &text);
		memcpy(why, text.p, MW_MIN(text.n, sizeof why - 1));
	} else if (!mw_str_starts(line, MW_STR("ok "))) {
		return gone(c, err);
	}
	void *ref = c->ref[c->head];
	c->head = (c->head + 1) % MW_INTAKE_AHEAD;
	c->n--;
	c->cb(c->arg, ref, code, why);
	return 0;
}

/* Answers until at most `left` are due; what is there already is taken in any case. */
static int
hear(struct mw_intake *c, size_t left, struct mw_err *err)
{
	for (;;) {
		struct mw_str line, rest;
		while (mw_str_cut(mw_buf_str(&c->in), '\n', &line, &rest)) {
			size_t used = line.n + 1;
			int r = answer(c, line, err);
			if (r < 0)
				return r;
			mw_buf_drop(&c->in, used);
		}
		struct pollfd pf = {c->fd, POLLIN, 0};
		char tmp[2048];
		int k = poll(&pf, 1, c->n > left ? ANSWER_MS : 0);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0 && c->n <= left)
			return 0;
		if (k <= 0) {
			c->broken = true;
			return mw_fail(err, MW_ETIMEOUT,
			               "the journal's writer does not answer");
		}
		ssize_t n = recv(c->fd, tmp, sizeof tmp, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return gone(c, err);
		mw_buf_put(&c->in, tmp, (size_t)n);
		if (mw_buf_ok(&c->in) < 0)
			return gone(c, err);
	}
}

static int
put(struct mw_intake *c, char kind, const void *p, size_t n, struct mw_err *err)
{
	uint8_t head[5] = {(uint8_t)kind};
	if (c->broken)
		return gone(c, err);
	mw_put32(head + 1, (uint32_t)n);
	mw_buf_put(&c->out, head, sizeof head);
	mw_buf_put(&c->out, p, n);
	if (mw_buf_ok(&c->out) < 0)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	return c->out.n >= SEND_AT ? send_out(c, err) : 0;
}

static int
put_piece(struct mw_intake *c, struct mw_err *err)
{
	if (!c->piece.n)
		return 0;
	int r = put(c, 'B', c->piece.p, c->piece.n, err);
	mw_buf_clear(&c->piece);
	return r;
}

int
mw_intake_body(struct mw_intake *c, const void *p, size_t n, struct mw_err *err)
{
	const char *q = p;
	int r = 0;
	while (r == 0 && n) {
		size_t k = MW_MIN(n, (size_t)SEND_AT - c->piece.n);
		mw_buf_put(&c->piece, q, k);
		if (mw_buf_ok(&c->piece) < 0)
			return mw_fail(err, MW_ENOMEM, "out of memory");
		q += k;
		n -= k;
		if (c->piece.n == SEND_AT)
			r = put_piece(c, err);
	}
	return r;
}

int
mw_intake_commit(struct mw_intake *c, const struct mw_mail *m, void *ref,
                 struct mw_err *err)
{
	MW_BUF_AUTO cbor = {.max = MW_INTAKE_META};
	int r = mw_mail_encode(m, &cbor);
	if (r < 0)
		return mw_fail(err, r, "cannot encode metadata: %s", mw_err_text(r));
	/* Room for one more first: what is unanswered is bounded on both sides. */
	if (c->n == MW_INTAKE_AHEAD) {
		r = send_out(c, err);
		if (r == 0)
			r = hear(c, MW_INTAKE_AHEAD / 2, err);
		if (r < 0)
			return r;
	}
	r = put_piece(c, err);
	if (r == 0)
		r = put(c, 'M', cbor.p, cbor.n, err);
	if (r < 0)
		return r;
	c->ref[(c->head + c->n++) % MW_INTAKE_AHEAD] = ref;
	return hear(c, MW_INTAKE_AHEAD, err);
}

int
mw_intake_abort(struct mw_intake *c, struct mw_err *err)
{
	mw_buf_clear(&c->piece);
	return put(c, 'X', "", 0, err);
}

int
mw_intake_flush(struct mw_intake *c, struct mw_err *err)
{
	int r = c->broken ? gone(c, err) : send_out(c, err);
	return r < 0 ? r : hear(c, 0, err);
}

void
mw_intake_free(struct mw_intake *c)
{
	if (!c)
		return;
	if (!c->broken && put(c, 'Q', "", 0, NULL) == 0)
		(void)!send_out(c, NULL);
	(void)close(c->fd);
	mw_buf_free(&c->out);
	mw_buf_free(&c->in);
	mw_buf_free(&c->piece);
	free(c);
}
