/* metrics.h - what mailwald counts, as Prometheus text; and the place where it is asked.
 *
 * Life: mw_metrics_start after mw_capture_init, mw_metrics_stop before mw_capture_done.
 * Threads: one of its own answers requests; nothing of the mail's way waits for it.
 */
#ifndef MW_MILTER_METRICS_H
#define MW_MILTER_METRICS_H

#include "milter/capture.h"

/* All of it (text format 0.0.4), appended to out. Any thread. */
void mw_metrics_text(struct mw_capture *cap, struct mw_buf *out);

struct mw_metrics;

/* Serves GET /metrics at metrics_listen; *ret NULL where that is empty. MW_ECONF for a
 * place that is neither a unix socket nor this host; MW_EPERM, MW_EIO (in use). */
int mw_metrics_start(struct mw_capture *cap, struct mw_metrics **ret,
                     struct mw_err *err) MW_CHECK;
void mw_metrics_stop(struct mw_metrics *m); /* NULL ok */
/* Only syntax: MW_ECONF. */
int mw_metrics_check(const struct mw_conf *conf, struct mw_err *err) MW_CHECK;

#endif
