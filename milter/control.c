#include "milter/control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "journal/base/bytes.h"
#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/record/retire.h"
#include "journal/store/control.h"
#include "milter/expand.h"
#include "milter/handover.h"
#include "milter/intake.h"
#include "milter/verdict.h"

enum {
	REQUEST_MAX = 2 << 20,
	TIMEOUT_S = 5,
	CALLERS = 16,
};

/* Has connected, and not asked yet. */
struct caller {
	int fd;
	uid_t uid;
	int64_t until;
	struct mw_buf in;
};

struct mw_control {
	struct mw_capture *cap;
	struct mw_control_hooks hooks;
	pthread_t thread;
	int fd, wake;
	struct mw_intakes *intakes;
	/* Of the thread; the oldest is first, and gives way to one more than there is
	 * room for. */
	struct caller caller[CALLERS];
	size_t n;
};

/* A JSON string; what is no printable ASCII becomes '?': queue IDs and the like only. */
static void
put_json(struct mw_buf *b, const char *z)
{
	mw_buf_putc(b, '"');
	for (; *z; z++)
		mw_buf_putc(b,
		            *z < ' ' || *z == '"' || *z == '\\' || *z == 0x7f ? '?' : *z);
	mw_buf_putc(b, '"');
}

static void
put_number(struct mw_buf *b, const char *key, uint64_t v)
{
	mw_buf_printf(b, ",\"%s\":%llu", key, (unsigned long long)v);
}

/* By section, in the order in which they first met a mail. */
static void
put_excluded(struct mw_capture *cap, struct mw_buf *out)
{
	mw_buf_puts(out, ",\"excluded_by\":[");
	pthread_mutex_lock(&cap->lock);
	for (size_t i = 0; i < cap->n_excluded; i++) {
		const struct mw_excluded *e = &cap->excluded[i];
		mw_buf_puts(out, i ? ",{\"section\":" : "{\"section\":");
		put_json(out, e->section);
		put_number(out, "messages", e->messages);
		put_number(out, "bytes", e->bytes);
		mw_buf_putc(out, '}');
	}
	pthread_mutex_unlock(&cap->lock);
	mw_buf_putc(out, ']');
}

static void
put_failures(struct mw_capture *cap, const struct mw_store_stats *st, struct mw_buf *out)
{
	uint64_t noted = atomic_load(&cap->noted_overloaded),
	         over = atomic_load(&cap->count.overloaded);
	put_number(out, "overloaded_unacknowledged", over > noted ? over - noted : 0);
	put_number(out, "failures", st->failures);
	/* That there was no space has ended when there is some. */
	uint64_t lost = st->failures - st->full;
	noted = atomic_load(&cap->noted_failures);
	put_number(out, "failures_unacknowledged", lost > noted ? lost - noted : 0);
	mw_buf_printf(out, ",\"failing\":%s,\"last_failure_us\":%lld,\"last_failure\":",
	              st->failing ? "true" : "false", (long long)st->failed_us);
	put_json(out, st->failed_code ? mw_err_text(st->failed_code) : "");
}

void
mw_control_status(struct mw_capture *cap, struct mw_buf *out)
{
	struct mw_store_stats st = {0};
	mw_store_stats(cap->store, &st);
	struct mw_counters *n = &cap->count;
	struct mw_settings *s = mw_capture_settings(cap);
	int64_t up = (cap->clock->mono_us(cap->clock) - cap->started_mono_us) / 1000000;
	mw_buf_printf(out, "{\"pid\":%ld,\"version\":\"%s\",\"uptime_s\":%lld",
	              (long)getpid(), MW_VERSION, (long long)up);
	mw_buf_printf(out, ",\"engine\":\"%s\",\"on_failure\":\"%s\"",
	              s->conf->milter_engine ? "libmilter" : "native",
	              s->conf->on_failure == MW_ON_FAILURE_ACCEPT ? "accept"
	                                                          : "tempfail");
	mw_settings_unref(s);
	int ready = mw_store_ready(cap->store);
	mw_buf_printf(out,
	              ",\"ready\":%s,\"ready_error\":", ready == 0 ? "true" : "false");
	put_json(out, ready == 0 ? "" : mw_err_name(ready));
	put_number(out, "journaled", atomic_load(&n->journaled));
	put_number(out, "tempfailed", atomic_load(&n->tempfailed));
	put_number(out, "passed_unjournaled", atomic_load(&n->passed_unjournaled));
	put_number(out, "overloaded", atomic_load(&n->overloaded));
	put_number(out, "in_flight_bytes", atomic_load(&n->in_flight));
	put_number(out, "replayed", atomic_load(&n->replayed));
	put_number(out, "excluded", atomic_load(&n->excluded));
	put_excluded(cap, out);
	put_number(out, "sessions", atomic_load(&n->sessions));
	put_number(out, "open_sessions", (uint64_t)atomic_load(&n->open_sessions));
	put_number(out, "at_end_of_message", (uint64_t)atomic_load(&n->at_eom));
	put_number(out, "aborted", atomic_load(&n->aborted));
	put_number(out, "imported", atomic_load(&n->imported));
	struct mw_verdict_stats spf;
	mw_verdict_stats(atomic_load(&cap->verdict), &spf);
	put_number(out, "spf_checked", spf.checked);
	put_number(out, "spf_temperror", spf.temperror);
	put_number(out, "spf_dropped", spf.dropped);
	put_number(out, "spf_queued", spf.queued);
	put_number(out, "spf_helper_deaths", spf.deaths);
	struct mw_expand_stats ex;
	mw_expand_stats(atomic_load(&cap->expand), &ex);
	put_number(out, "expansions", ex.expanded);
	put_number(out, "expansions_failed", ex.failed);
	put_number(out, "expansions_dropped", ex.dropped);
	put_number(out, "expansions_queued", ex.queued);
	put_number(out, "records", st.records);
	put_number(out, "mails", st.mails);
	put_number(out, "bytes_in", st.bytes_in);
	put_number(out, "bytes_stored", st.bytes_stored);
	put_number(out, "batches", st.batches);
	put_failures(cap, &st, out);
	put_number(out, "next_seq", st.next_seq);
	put_number(out, "segment", st.segment);
	mw_buf_printf(out, ",\"index_lag_records\":%lld",
	              (long long)st.index_lag_records);
	put_number(out, "free_bytes", st.free_bytes);
	pthread_mutex_lock(&cap->lock);
	struct mw_passed passed = cap->passed;
	char qid[sizeof cap->last_queue_id], id[sizeof cap->last_id];
	memcpy(qid, cap->last_queue_id, sizeof qid);
	memcpy(id, cap->last_id, sizeof id);
	int64_t last_us = cap->last_time_us;
	pthread_mutex_unlock(&cap->lock);
	put_number(out, "unacknowledged", passed.count - passed.acknowledged);
	mw_buf_printf(out, ",\"passed_first_us\":%lld,\"passed_last_us\":%lld",
	              (long long)passed.first_us, (long long)passed.last_us);
	mw_buf_puts(out, ",\"last_queue_id\":");
	put_json(out, qid);
	mw_buf_puts(out, ",\"last_id\":");
	put_json(out, id);
	mw_buf_printf(out, ",\"last_mail_us\":%lld}",
	              (long long)(last_us ? last_us : st.last_mail_us));
}

static int
bad_request(struct mw_err *err)
{
	return mw_fail(err, MW_EUSAGE, "cannot understand the request");
}

/* A prune's tombstones are of what has expired. */
static void
count_erased(struct mw_capture *cap, const uint8_t *cbor, size_t n)
{
	MW_ARENA_AUTO *a = mw_arena_new(0);
	struct mw_tombstone t;
	struct mw_err err;
	if (!a || mw_tombstone_decode(cbor, n, a, &t, &err) < 0 ||
	    t.why != MW_TOMB_ERASURE)
		return;
	for (size_t i = 0; i < t.n_range; i++)
		atomic_fetch_add(&cap->count.erased,
		                 t.range[i].last - t.range[i].first + 1);
}

/* "TYPE HEX" */
static int
do_note(struct mw_capture *cap, struct mw_str args, uid_t uid, struct mw_buf *out,
        struct mw_err *err)
{
	struct mw_str type, hex;
	if (!mw_str_cut(args, ' ', &type, &hex) || hex.n == 0 || hex.n % 2)
		return bad_request(err);
	unsigned t = 0;
	for (size_t i = 0; i < type.n; i++) {
		if (type.p[i] < '0' || type.p[i] > '9' || t > 100)
			return bad_request(err);
		t = t * 10 + (unsigned)(type.p[i] - '0');
	}
	/* Content comes through the milter only; the log's own marks from the store. */
	if ((t < MW_TYPE_OUTCOME || t > MW_TYPE_SPF || t == MW_TYPE_DICT) &&
	    t != MW_TYPE_RESTORE)
		return mw_fail(err, MW_EUSAGE, "records of type %u are not taken here",
		               t);
	MW_AUTOFREE uint8_t *cbor = malloc(hex.n / 2);
	if (!cbor)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!mw_unhex(cbor, hex.p, hex.n / 2))
		return bad_request(err);
	struct mw_commit c;
	int r = mw_store_note(cap->store, (enum mw_type)t, cap->clock->now_us(cap->clock),
	                      cbor, hex.n / 2, &c, err);
	if (r < 0)
		return r;
	if (t == MW_TYPE_TOMBSTONE)
		count_erased(cap, cbor, hex.n / 2);
	mw_log(MW_LOG_INFO, NULL, "event=note type=%s seq=%llu uid=%u",
	       mw_type_name((enum mw_type)t), (unsigned long long)c.seq, (unsigned)uid);
	mw_buf_printf(out, "%llu", (unsigned long long)c.seq);
	return 0;
}

/* A decimal number off the front of s; false if there is none. */
static bool
take_number(struct mw_str *s, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;
	for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++)
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(s->p[i] - '0'), &v))
			return false;
	*s = mw_str(s->p + i, s->n - i);
	*ret = v;
	return i > 0;
}

static bool
take_char(struct mw_str *s, char c)
{
	if (s->n == 0 || s->p[0] != c)
		return false;
	*s = mw_str(s->p + 1, s->n - 1);
	return true;
}

/* " OFFSET:SEQ …" to the end; v has room for args.n / 4 + 1. How many; 0: bad. */
static size_t
take_places(struct mw_str args, struct mw_wipe_at *v)
{
	size_t n = 0;
	for (; take_char(&args, ' '); n++)
		if (!take_number(&args, &v[n].offset) || !take_char(&args, ':') ||
		    !take_number(&args, &v[n].seq))
			return 0;
	return args.n ? 0 : n;
}

/* "SEGMENT OFFSET:SEQ …" */
static int
do_wipe(struct mw_capture *cap, struct mw_str args, struct mw_buf *out,
        struct mw_err *err)
{
	MW_AUTOFREE struct mw_wipe_at *v = calloc(args.n / 4 + 1, sizeof *v);
	uint64_t segment;
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!take_number(&args, &segment) || segment == 0)
		return bad_request(err);
	size_t n = take_places(args, v);
	if (n == 0)
		return bad_request(err);
	mw_buf_printf(out, "%zu", n);
	return mw_store_wipe(cap->store, segment, v, n, err);
}

/* "SEGMENT TOKENS OFFSET:SEQ …": tokens in hexadecimal, one after the other */
static int
do_cut(struct mw_capture *cap, struct mw_str args, struct mw_buf *out, struct mw_err *err)
{
	MW_AUTOFREE struct mw_wipe_at *v = calloc(args.n / 4 + 1, sizeof *v);
	MW_AUTOFREE uint8_t(*token)[8] = calloc(args.n / 16 + 1, sizeof *token);
	uint64_t segment;
	size_t hex = 0;
	if (!v || !token)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (!take_number(&args, &segment) || segment == 0 || !take_char(&args, ' '))
		return bad_request(err);
	while (hex < args.n && args.p[hex] != ' ')
		hex++;
	if (hex == 0 || hex % 16 || !mw_unhex((uint8_t *)token, args.p, hex / 2))
		return bad_request(err);
	struct mw_cut c = {(const uint8_t(*)[8])token, hex / 16, v, 0};
	c.n = take_places(mw_str(args.p + hex, args.n - hex), v);
	if (c.n == 0)
		return bad_request(err);
	mw_buf_printf(out, "%zu", c.n);
	return mw_store_cut(cap->store, segment, &c, err);
}

/* "SEGMENT SEGMENT …" */
static int
do_unlink(struct mw_capture *cap, struct mw_str args, struct mw_err *err)
{
	MW_AUTOFREE uint64_t *v = calloc(args.n / 2 + 1, sizeof *v);
	size_t n = 0;
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	do
		if (!take_number(&args, &v[n]) || v[n++] == 0)
			return bad_request(err);
	while (take_char(&args, ' '));
	return args.n ? bad_request(err) : mw_store_remove(cap->store, v, n, err);
}

static void
do_head(struct mw_capture *cap, struct mw_buf *out)
{
	uint8_t chain[32];
	char hex[65];
	uint64_t seq = mw_store_head(cap->store, chain);
	mw_hex(hex, chain, sizeof chain);
	mw_buf_printf(out, "%llu %s", (unsigned long long)seq, hex);
}

/* "TAG ID", in hexadecimal: a copy that is put back now, of that record. */
static int
do_expect(struct mw_capture *cap, struct mw_str args, struct mw_buf *out,
          struct mw_err *err)
{
	uint8_t tag[MW_TRAIL_TAG], id[MW_ID_LEN];
	struct mw_str t, i;
	if (!mw_str_cut(args, ' ', &t, &i) || t.n != 2 * sizeof tag ||
	    i.n != 2 * sizeof id || !mw_unhex(tag, t.p, sizeof tag) ||
	    !mw_unhex(id, i.p, sizeof id))
		return bad_request(err);
	struct mw_settings *s = mw_capture_settings(cap);
	bool proxy = s->conf->proxy_listen.n > 0;
	mw_settings_unref(s);
	mw_buf_puts(out, proxy ? "yes" : "no"); /* a milter is told by ENVID */
	return proxy ? mw_coming_tell(&cap->coming, tag, id,
	                              cap->clock->now_us(cap->clock), err)
	             : 0;
}

static int
handle(struct mw_capture *cap, struct mw_str line, uid_t uid, struct mw_buf *out,
       struct mw_err *err)
{
	struct mw_str word = line, args = MW_STR("");
	(void)mw_str_cut(line, ' ', &word, &args); /* a lone word has no arguments */
	if (mw_str_eq(word, MW_STR("status"))) {
		mw_control_status(cap, out);
		return 0;
	}
	if (mw_str_eq(word, MW_STR("head"))) {
		do_head(cap, out);
		return 0;
	}
	if (mw_str_eq(word, MW_STR("acknowledge"))) {
		int r = mw_capture_acknowledge(cap, err);
		if (r == 0)
			mw_log(MW_LOG_NOTICE, NULL, "event=acknowledged uid=%u",
			       (unsigned)uid);
		return r;
	}
	if (mw_str_eq(word, MW_STR("note")))
		return do_note(cap, args, uid, out, err);
	if (mw_str_eq(word, MW_STR("wipe")))
		return do_wipe(cap, args, out, err);
	if (mw_str_eq(word, MW_STR("cut")))
		return do_cut(cap, args, out, err);
	if (mw_str_eq(word, MW_STR("expect")))
		return do_expect(cap, args, out, err);
	if (mw_str_eq(word, MW_STR("unlink")))
		return do_unlink(cap, args, err);
	if (mw_str_eq(word, MW_STR("roll"))) {
		int r = mw_store_roll(cap->store, err);
		struct mw_store_stats st = {0};
		mw_store_stats(cap->store, &st);
		mw_buf_printf(out, "%llu", (unsigned long long)st.segment);
		return r;
	}
	return bad_request(err);
}

static void
send_all(int fd, struct mw_str s)
{
	while (s.n) {
		ssize_t k = send(fd, s.p, s.n, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return; /* the asker is gone; what was done stays done */
		s = mw_str(s.p + k, s.n - (size_t)k);
	}
}

static void
answer(int fd, int r, const char *error, struct mw_str text)
{
	MW_BUF_AUTO out = {0};
	if (r == 0) {
		mw_buf_puts(&out, "ok ");
		mw_buf_putstr(&out, text);
	} else {
		mw_buf_printf(&out, "error %s %s", mw_err_name(r), error);
	}
	mw_buf_putc(&out, '\n');
	if (mw_buf_ok(&out) == 0)
		send_all(fd, mw_buf_str(&out));
}

/* Does what is asked; true if the descriptor is somebody else's now. */
static bool
serve(struct mw_control *c, const struct caller *who, struct mw_str line)
{
	MW_BUF_AUTO text = {0};
	struct mw_err err = {0};
	int r;
	if (mw_str_eq(line, MW_STR(MW_HANDOVER_REQUEST)) && c->hooks.handover)
		r = c->hooks.handover(c->hooks.arg, who->fd, &err);
	else if (mw_str_eq(line, MW_STR("import")))
		return mw_intakes_take(c->intakes, who->fd, who->uid);
	else
		r = handle(c->cap, line, who->uid, &text, &err);
	if (r <= 0) /* else it is answered */
		answer(who->fd, r, err.msg, mw_buf_str(&text));
	return false;
}

static void
leave(struct mw_control *c, size_t i, bool keep_fd)
{
	struct caller *who = &c->caller[i];
	if (!keep_fd)
		(void)close(who->fd);
	mw_buf_free(&who->in);
	c->n--;
	memmove(who, who + 1, (c->n - i) * sizeof *who);
}

/* Takes what has come from a caller, and serves one whose line is whole. */
static void
hear(struct mw_control *c, size_t i)
{
	struct caller *who = &c->caller[i];
	char chunk[4096];
	struct mw_str line, rest;
	ssize_t k = recv(who->fd, chunk, sizeof chunk, MSG_DONTWAIT);
	if (k < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (k > 0)
		mw_buf_put(&who->in, chunk, (size_t)k);
	if (k <= 0 || mw_buf_ok(&who->in) < 0)
		leave(c, i, false);
	else if (memchr(chunk, '\n', (size_t)k) &&
	         mw_str_cut(mw_buf_str(&who->in), '\n', &line, &rest)) {
		const struct mw_clock *clock = mw_clock_system();
		int64_t began = clock->mono_us(clock);
		bool keep_fd = serve(c, who, mw_str_trim(line));
		/* What the others asked meanwhile was not heard: no silence of theirs. */
		int64_t took = clock->mono_us(clock) - began;
		for (size_t j = 0; j < c->n; j++)
			c->caller[j].until += took;
		leave(c, i, keep_fd);
	}
}

static void
come(struct mw_control *c)
{
	const struct timeval tv = {.tv_sec = TIMEOUT_S};
	struct caller who = {.in = {.max = REQUEST_MAX}, .uid = (uid_t)-1};
	who.fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC);
	if (who.fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			(void)usleep(200 * 1000); /* no descriptors: no spin */
		return;
	}
	(void)setsockopt(who.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	(void)setsockopt(who.fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	if (!mw_control_allowed(who.fd, &who.uid)) {
		answer(who.fd, MW_EPERM, "only root and the daemon's own user may ask",
		       MW_STR(""));
		(void)close(who.fd);
		return;
	}
	if (c->n == CALLERS)
		leave(c, 0, false);
	const struct mw_clock *clock = mw_clock_system();
	who.until = clock->mono_us(clock) + TIMEOUT_S * INT64_C(1000000);
	c->caller[c->n++] = who;
}

/* Who has not asked in time goes; ret_ms: until the next one must. */
static int
wait_ms(struct mw_control *c)
{
	const struct mw_clock *clock = mw_clock_system();
	int64_t now = clock->mono_us(clock);
	while (c->n && c->caller[0].until <= now)
		leave(c, 0, false);
	return c->n ? (int)((c->caller[0].until - now) / 1000 + 1) : -1;
}

static void *
control_main(void *arg)
{
	struct mw_control *c = arg;
	for (;;) {
		struct pollfd p[2 + CALLERS] = {{.fd = c->wake, .events = POLLIN},
		                                {.fd = c->fd, .events = POLLIN}};
		int ms = wait_ms(c);
		for (size_t i = 0; i < c->n; i++)
			p[2 + i] =
			    (struct pollfd){.fd = c->caller[i].fd, .events = POLLIN};
		if (poll(p, 2 + c->n, ms) < 0) {
			if (errno != EINTR)
				break;
			continue;
		}
		if (p[0].revents)
			break;
		for (size_t i = c->n;
		     i-- > 0;) /* from the end: who leaves moves those behind */
			if (p[2 + i].revents)
				hear(c, i);
		if (p[1].revents & POLLIN)
			come(c);
	}
	while (c->n)
		leave(c, c->n - 1, false);
	return NULL;
}

int
mw_control_start(struct mw_capture *cap, const struct mw_control_hooks *hooks,
                 struct mw_control **ret, struct mw_err *err)
{
	struct mw_control *c = calloc(1, sizeof *c);
	if (!c)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	c->cap = cap;
	c->hooks = *hooks;
	c->wake = -1;
	int r = c->fd = mw_control_listen(mw_store_dir(cap->store), err);
	if (r >= 0) {
		c->wake = eventfd(0, EFD_CLOEXEC);
		r = mw_intakes_new(cap, &c->intakes, err);
		if (r < 0)
			;
		else if (c->wake < 0 ||
		         pthread_create(&c->thread, NULL, control_main, c) != 0)
			r = mw_fail_errno(err, "cannot start the control thread");
	}
	if (r < 0) {
		if (c->fd >= 0)
			(void)close(c->fd);
		if (c->wake >= 0)
			(void)close(c->wake);
		mw_intakes_free(c->intakes);
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void
mw_control_stop(struct mw_control *c)
{
	char path[4096];
	uint64_t one = 1;
	if (!c)
		return;
	(void)!write(c->wake, &one, sizeof one); /* cannot be full: written once */
	(void)pthread_join(c->thread, NULL);
	mw_intakes_free(c->intakes);
	(void)close(c->fd);
	(void)close(c->wake);
	int n =
	    snprintf(path, sizeof path, "%s/control.sock", mw_store_dir(c->cap->store));
	if (n > 0 && (size_t)n < sizeof path)
		(void)unlink(path); /* a stale one does no harm */
	free(c);
}
