/* publish.h - checkpoints of the log, put where the owner of this host cannot take them
 * back.
 *
 * A thread of its own signs, at the start and every checkpoint_interval, how far the log
 * is durable, whether something was captured since or not (so that silence tells
 * something), and gives it to a file and a command. Nothing here delays a capture (P5): a
 * place that hangs holds up only the next checkpoint; a command is killed after its time.
 */
#ifndef MW_MILTER_PUBLISH_H
#define MW_MILTER_PUBLISH_H

#include "conf/conf.h"
#include "journal/store/store.h"

struct mw_publish;

/* What a start would refuse: MW_ECONF. */
int mw_publish_check(const struct mw_conf *conf, struct mw_err *err) MW_CHECK;
/* *ret is NULL where nothing is configured. store is borrowed. MW_ECONF, MW_ENOMEM. */
int mw_publish_start(struct mw_store *store, const struct mw_conf *conf,
                     struct mw_publish **ret, struct mw_err *err) MW_CHECK;
/* One last checkpoint, then frees; waits a few seconds at most. NULL ok. */
void mw_publish_stop(struct mw_publish *p);

#endif
