/* policy.h - from an error to what the MTA is told.
 *
 * The postmaster chose with on_failure (P4): tempfail answers 451 (421 with
 * on_failure_close), accept lets the message pass, counts it and raises an alarm in the
 * log.
 */
#ifndef MW_MILTER_POLICY_H
#define MW_MILTER_POLICY_H

#include "milter/capture.h"

struct mw_answer {
	bool refuse;   /* false: CONTINUE */
	char code[4];  /* "451" */
	char xcode[8]; /* "4.3.0" */
	char text[120];
};

/* 0, or MW_EUNAVAIL, counted: messages wait longer for the disk than the limits allow, or
 * (when new) more of them are in flight. */
int mw_policy_load(struct mw_capture *cap, const struct mw_conf *conf, bool new,
                   struct mw_err *err) MW_CHECK;
/* Is nothing known that would refuse a message now? Then MAIL needs no answer. */
bool mw_policy_well(struct mw_capture *cap);
/* At MAIL, before anything is lost: refuses under tempfail, silent under accept. */
void mw_policy_early(struct mw_capture *cap, const struct mw_conf *conf,
                     const struct mw_err *err, struct mw_answer *ret);
struct mw_failure {
	const char *queue_id; /* may be empty */
	int on_failure;       /* enum mw_on_failure: of the message's class */
};

/* At the end of a message that could not be journaled: counts, logs, decides. */
void mw_policy_failed(struct mw_capture *cap, const struct mw_conf *conf,
                      const struct mw_failure *f, const struct mw_err *err,
                      struct mw_answer *ret);
/* A recipient beyond recipient_limit: 452 under either policy. */
void mw_policy_too_many(struct mw_answer *ret);

#endif
