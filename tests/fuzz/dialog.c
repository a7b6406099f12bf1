/* dialog.c - whatever bytes a client and the next server send to the proxy, in whatever
 * order: no end of a message goes on without its record, be it a dot or the last byte of
 * the last chunk; nothing goes on in DATA that a lax server could take for an end of
 * data; commands go on as whole lines, each chunk has its size, the loop guard's argument
 * of MAIL stays here, nothing crashes and nothing is left behind. The input is events:
 * kind, two bytes of length, data. Bit 0 of the first byte of all: LMTP; bit 1: the peer
 * may use XFORWARD; bit 2: the connection to the next server has served another client,
 * who said "EHLO h". */
#include "milter/dialog.h"

#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include "journal/base/util.h"
#include "tests/support/fuzzed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mw_outbox outbox;

struct talk {
	struct mw_dialog d;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned done;
	/* what the next server has seen */
	bool in_content;
	size_t dots, others;
	uint64_t before;
	unsigned sent; /* messages with their end */
	char last;
	char line[64]; /* the command, as far as it goes in here */
	size_t n_line;
	uint64_t chunk; /* bytes that are still to come of one */
	bool last_chunk;
};

static void
on_done(void *arg)
{
	struct talk *t = arg;
	pthread_mutex_lock(&t->lock);
	t->done++;
	pthread_cond_signal(&t->cond);
	pthread_mutex_unlock(&t->lock);
}

static void
commit(struct talk *t)
{
	pthread_mutex_lock(&t->lock);
	while (!t->done)
		pthread_cond_wait(&t->cond, &t->lock);
	require(t->done == 1, "answered twice");
	t->done = 0;
	pthread_mutex_unlock(&t->lock);
	mw_dialog_committed(&t->d);
}

static uint64_t
mails(void)
{
	struct mw_store_stats st;
	mw_store_stats(fuzzed_store, &st);
	return st.mails;
}

static void
see_end(struct talk *t)
{
	t->sent++;
	require(mails() - t->before >= t->sent, "an end without a record");
}

static void
see_line(struct talk *t)
{
	char *end;
	t->line[MW_MIN(t->n_line, sizeof t->line - 1)] = 0;
	t->n_line = 0;
	require(strncasecmp(t->line, "MAIL ", 5) != 0 ||
	            !strcasestr(t->line, " xmailwal="),
	        "what was said to us alone goes on");
	if (strncasecmp(t->line, "BDAT ", 5) != 0)
		return;
	t->chunk = strtoull(t->line + 5, &end, 10);
	t->last_chunk = strncasecmp(end, " LAST", 5) == 0;
	require(t->last_chunk || *end == '\r' || *end == ' ', "no chunk's command");
	if (t->chunk == 0 && t->last_chunk)
		see_end(t);
}

/* One byte of a command line on its way to the next server, or of a chunk. */
static void
see_command(struct talk *t, char c)
{
	if (t->chunk) {
		if (--t->chunk == 0 && t->last_chunk)
			see_end(t);
		return;
	}
	require(c != 0, "a NUL in a command");
	require(c != '\n' || t->last == '\r', "a bare LF in a command");
	require(t->last != '\r' || c == '\n', "a bare CR in a command");
	t->last = c;
	if (t->n_line < sizeof t->line)
		t->line[t->n_line] = c;
	t->n_line++;
	if (c == '\n')
		see_line(t);
}

/* One byte of content, as the laxest server would read it. */
static void
see_content(struct talk *t, char c)
{
	if (c == '\r' || c == '\n') {
		require(t->dots != 1 || t->others, "an end of data for a lax server");
		t->dots = t->others = 0;
	} else if (c == '.') {
		t->dots++;
	} else {
		t->others += c != 0;
	}
}

/* What is in to_next goes to the next server. */
static void
deliver(struct talk *t)
{
	struct mw_dialog *d = &t->d;
	size_t n = d->to_next.n, dot = n;
	if (d->state == MW_DI_FINAL && t->in_content) {
		require(n >= 3 && memcmp(d->to_next.p + n - 3, ".\r\n", 3) == 0,
		        "no dot at the end");
		dot = n - 3;
		see_end(t);
	}
	for (size_t i = 0; i < dot; i++) {
		if (t->in_content)
			see_content(t, (char)d->to_next.p[i]);
		else
			see_command(t, (char)d->to_next.p[i]);
	}
	if (dot < n)
		t->in_content = false;
	mw_buf_clear(&d->to_next);
	require(t->chunk == 0 || d->close_next || d->chunk.in || d->state == MW_DI_COMMIT,
	        "a chunk without its bytes");
	if (d->state == MW_DI_CONTENT && !d->chunk.in && !t->in_content) {
		t->in_content = true;
		t->dots = t->others = 0;
	}
	mw_buf_clear(&d->to_client);
}

static void
event(struct talk *t, uint8_t kind, const uint8_t *p, size_t n)
{
	switch (kind % 8) {
	case 0:
	case 1:
		if (mw_dialog_hungry(&t->d))
			mw_dialog_client(&t->d, p, n);
		break;
	case 2:
	case 3:
		if (!t->d.close_next)
			mw_dialog_next(&t->d, p, n);
		break;
	case 4:
		mw_dialog_client_eof(&t->d);
		break;
	case 5:
		mw_dialog_next_down(&t->d, "gone");
		break;
	case 6:
		if (t->d.deadline_us)
			mw_dialog_timeout(&t->d);
		break;
	default:
		if (n > 100) /* seldom: it ends all */
			mw_dialog_stop(&t->d);
	}
}

/* A new one takes the place of one that is gone, in the midst of whatever. */
static void
again(struct talk *t)
{
	if (t->d.reconnect) {
		t->n_line = 0;
		t->last = 0;
	}
	t->d.reconnect = false;
}

static void
next_used(struct mw_dialog *d)
{
	struct mw_used u = {.forwards = true};
	mw_buf_puts(&u.greeting, "220 mx\r\n");
	mw_buf_puts(&u.hello, d->o.lmtp ? "LHLO h" : "EHLO h");
	mw_buf_puts(&u.hello_reply, "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
	mw_dialog_next_used(d, &u);
	mw_buf_free(&u.greeting);
	mw_buf_free(&u.hello);
	mw_buf_free(&u.hello_reply);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct talk t = {.lock = PTHREAD_MUTEX_INITIALIZER,
	                 .cond = PTHREAD_COND_INITIALIZER};
	if (!fuzzed_store) {
		fuzzed_start();
		mw_outbox_init(&outbox, fuzzed_store, fuzzed_cap.clock);
	}
	if (size == 0 || size > 1 << 20)
		return 0;
	struct mw_dialog_opts o = {.cap = &fuzzed_cap,
	                           .outbox = &outbox,
	                           .lmtp = data[0] & 1,
	                           .trusted = data[0] & 2,
	                           .keep = data[0] & 4,
	                           .on = "here",
	                           .next = "there",
	                           .done = on_done,
	                           .arg = &t};
	t.before = mails();
	require(mw_dialog_init(&t.d, &o, NULL) == 0, "no memory");
	if (data[0] & 4)
		next_used(&t.d);
	for (size_t at = 1; at + 3 <= size;) {
		size_t n =
		    MW_MIN((size_t)data[at + 1] << 8 | data[at + 2], size - at - 3);
		event(&t, data[at], data + at + 3, n);
		again(&t);
		deliver(&t);
		/* mostly the disk is faster than the next event */
		while (t.d.state == MW_DI_COMMIT && !(data[at] & 128)) {
			commit(&t);
			deliver(&t);
		}
		at += 3 + n;
	}
	while (t.d.state == MW_DI_COMMIT) {
		commit(&t);
		deliver(&t);
	}
	mw_dialog_free(&t.d);
	require(atomic_load(&fuzzed_cap.count.open_sessions) == 0, "a session stays");
	require(atomic_load(&fuzzed_cap.count.at_eom) == 0, "a message stays");
	return 0;
}
