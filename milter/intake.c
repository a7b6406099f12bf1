#include "milter/intake.h"

#include "journal/base/log.h"
#include "journal/base/util.h"
#include "journal/store/intake.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

enum {
	IMPORTS = 2 /* at a time; each may hold what its spill limit allows */
};

struct one {
	struct mw_intakes *all;
	pthread_t thread;
	int fd;
	uid_t uid;
	bool used;
	atomic_bool ended;
};

struct mw_intakes {
	struct mw_capture *cap;
	struct one v[IMPORTS];
};

int
mw_intakes_new(struct mw_capture *cap, struct mw_intakes **ret, struct mw_err *err)
{
	struct mw_intakes *v = calloc(1, sizeof *v);
	if (!v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	v->cap = cap;
	*ret = v;
	return 0;
}

static void *
intake_main(void *arg)
{
	struct one *x = arg;
	struct mw_capture *cap = x->all->cap;
	struct mw_settings *s = mw_capture_settings(cap);
	struct mw_intake_done done;
	const struct mw_intake_opts o = {.max_content = s->conf->message_limit,
	                                 .now_us = cap->clock->now_us(cap->clock)};
	mw_settings_unref(s);
	mw_intake_serve(cap->store, x->fd, &o, &done);
	atomic_fetch_add(&cap->count.imported, done.taken);
	mw_log(MW_LOG_NOTICE, NULL, "event=import imported=%llu not_imported=%llu uid=%u",
	       (unsigned long long)done.taken, (unsigned long long)done.refused,
	       (unsigned)x->uid);
	(void)shutdown(x->fd, SHUT_RDWR); /* closed by whoever joins us */
	atomic_store(&x->ended, true);
	return NULL;
}

static void
join(struct one *x)
{
	(void)pthread_join(x->thread, NULL);
	(void)close(x->fd);
	x->used = false;
}

static bool
refuse(int fd, int code, const char *text)
{
	char line[200];
	int n = snprintf(line, sizeof line, "error %s %s\n", mw_err_name(code), text);
	(void)!send(fd, line, (size_t)n, MSG_NOSIGNAL); /* the asker may be gone */
	return false;
}

bool
mw_intakes_take(struct mw_intakes *v, int fd, uid_t uid)
{
	struct one *x = NULL;
	const struct timeval none = {0};
	for (size_t i = 0; i < IMPORTS; i++) {
		if (v->v[i].used && atomic_load(&v->v[i].ended))
			join(&v->v[i]);
		if (!v->v[i].used && !x)
			x = &v->v[i];
	}
	if (!x)
		return refuse(fd, MW_ELOCKED, "as many imports as may be are at work");
	*x = (struct one){.all = v, .fd = fd, .uid = uid, .used = true};
	/* The stream has a deadline of its own. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
	if (send(fd, "ok\n", 3, MSG_NOSIGNAL) != 3) {
		x->used = false;
		return false;
	}
	if (pthread_create(&x->thread, NULL, intake_main, x) != 0) {
		x->used = false;
		return false; /* closed: the asker sees its end */
	}
	return true;
}

void
mw_intakes_free(struct mw_intakes *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < IMPORTS; i++) {
		if (!v->v[i].used)
			continue;
		(void)shutdown(v->v[i].fd, SHUT_RDWR);
		join(&v->v[i]);
	}
	free(v);
}
