#include "milter/policy.h"

#include <stdio.h>

#include "journal/base/log.h"

static void
answer(struct mw_answer *ret, const char *code, const char *xcode, const char *text)
{
	ret->refuse = true;
	(void)snprintf(ret->code, sizeof ret->code, "%s", code);
	(void)snprintf(ret->xcode, sizeof ret->xcode, "%s", xcode);
	(void)snprintf(ret->text, sizeof ret->text, "%s", text);
}

static void
refuse(const struct mw_conf *conf, const struct mw_err *err, struct mw_answer *ret)
{
	/* The one refusal that no retry can cure is a limit the postmaster set. */
	if (err->code == MW_ELIMIT)
		answer(ret, "552", "5.3.4",
		       "Message exceeds the limits of the mail journal");
	else if (conf->on_failure_close)
		answer(ret, "421", "4.3.0", "Mail journal unavailable, try again later");
	else
		answer(ret, "451", "4.3.0", "Mail journal unavailable, try again later");
}

static bool
overloaded(struct mw_capture *cap, const struct mw_conf *conf, bool new)
{
	return (new &&atomic_load(&cap->count.in_flight) > conf->memory_limit) ||
	       mw_store_waiting_us(cap->store) > conf->queue_age_limit;
}

int
mw_policy_load(struct mw_capture *cap, const struct mw_conf *conf, bool new,
               struct mw_err *err)
{
	if (!overloaded(cap, conf, new))
		return 0;
	uint64_t bytes = atomic_load(&cap->count.in_flight);
	int64_t us = mw_store_waiting_us(cap->store);
	atomic_fetch_add(&cap->count.overloaded, 1);
	return mw_fail(err, MW_EUNAVAIL,
	               "overload: messages in flight take %llu MiB (memory_limit), the "
	               "oldest has waited %lld s for the disk (queue_age_limit)",
	               (unsigned long long)(bytes >> 20), (long long)(us / 1000000));
}

bool
mw_policy_well(struct mw_capture *cap)
{
	struct mw_settings *s = mw_capture_settings(cap);
	bool well = mw_store_ready(cap->store) == 0 && !overloaded(cap, s->conf, true);
	mw_settings_unref(s);
	return well;
}

void
mw_policy_too_many(struct mw_answer *ret)
{
	answer(ret, "452", "4.5.3", "Too many recipients for the mail journal");
}

void
mw_policy_early(struct mw_capture *cap, const struct mw_conf *conf,
                const struct mw_err *err, struct mw_answer *ret)
{
	memset(ret, 0, sizeof *ret);
	if (conf->on_failure == MW_ON_FAILURE_ACCEPT)
		return;
	atomic_fetch_add(&cap->count.tempfailed, 1);
	mw_log(MW_LOG_WARN, NULL, "event=refused stage=mail error=%s reason=\"%s\"",
	       mw_err_name(err->code), err->msg);
	refuse(conf, err, ret);
}

void
mw_policy_failed(struct mw_capture *cap, const struct mw_conf *conf,
                 const struct mw_failure *f, const struct mw_err *err,
                 struct mw_answer *ret)
{
	memset(ret, 0, sizeof *ret);
	if (f->on_failure == MW_ON_FAILURE_ACCEPT) {
		mw_capture_passed(cap);
		mw_log(MW_LOG_ERR, f->queue_id,
		       "event=unjournaled error=%s reason=\"%s\" "
		       "hint=\"this message passes without a record (on_failure = "
		       "accept)\"",
		       mw_err_name(err->code), err->msg);
		return;
	}
	atomic_fetch_add(&cap->count.tempfailed, 1);
	refuse(conf, err, ret);
	mw_log(MW_LOG_ERR, f->queue_id,
	       "event=refused stage=eom reply=%s error=%s reason=\"%s\"", ret->code,
	       mw_err_name(err->code), err->msg);
}
