/* hops.h - one message that went through several capture hosts.
 *
 * A host that relays to another leaves a record in its own journal, and the next one
 * makes a second of the same message. They are one delivery, so in a journal set the last
 * hop stands for all of them. Known by the canonical digest, which leaves out trace
 * fields, and by the queue ID of the earlier hop in a Received field of the later one's
 * captured header (RFC 5321 §4.4): a message that was really sent twice has no such
 * field.
 *
 * One thread.
 */
#ifndef MW_REPLAY_HOPS_H
#define MW_REPLAY_HOPS_H

#include "replay/known.h"
#include "replay/plan.h"

/* Takes copies of earlier hops out of the boxes of p (oldest first), and boxes of which
 * nothing is left; what was wanted of them is wanted of the later one. Where the later
 * host took the mail for the same recipient, an alias that it alone could resolve, its
 * copies may lie in other boxes, which t names, or outside. A record that cannot be read
 * to its end is no later hop, nor is one that was refused behind its capture, by the
 * MTA's log: then the mail stayed with the host before it. known: of each journal; NULL:
 * loaded here, where it is asked. Nothing to do, and nothing done, with one journal.
 * MW_ENOMEM, MW_ECANCEL. */
int mw_hops_merge(struct mw_cli *cli, struct mw_plan *p, struct mw_target *t,
                  struct mw_known *const *known, struct mw_err *err) MW_CHECK;

#endif
