/* helper.h - one mailwald-spf process: started when it is needed, killed when it hangs.
 *
 * Life: mw_helper_init → mw_helper_ask* → mw_helper_end. One thread at a time, and always
 * the same one: the process dies with the thread that started it. A process that dies or
 * does not answer in time costs the question in hand, nothing else; the next question
 * starts another one. When one after the other dies, starts are delayed: 0.1 s, doubled
 * up to 30 s, until an answer comes.
 */
#ifndef MW_MILTER_HELPER_H
#define MW_MILTER_HELPER_H

#include "conf/conf.h"
#include "journal/record/spf.h"

#include <sys/types.h>

struct mw_helper_setup { /* the same for all helpers */
	char path[512];
	char host[256]; /* empty: the helper asks the system */
	uid_t uid;      /* (uid_t)-1: as we are */
	gid_t gid;
	int64_t timeout_us;
};

struct mw_helper {
	const struct mw_helper_setup *setup; /* borrowed */
	int stop_fd;                         /* borrowed; readable: give up at once */
	pid_t pid;                           /* 0: none runs */
	int fd;
	unsigned asked;      /* of this process */
	int64_t back_off_us; /* before the next start */
	uint64_t deaths;     /* killed for silence, or died */
	char packet[16384];
};

/* Finds program and user. MW_ECONF. */
int mw_helper_setup(const struct mw_conf *conf, struct mw_helper_setup *ret,
                    struct mw_err *err) MW_CHECK;
void mw_helper_init(struct mw_helper *h, const struct mw_helper_setup *s, int stop_fd);
/* Asks about ip, helo and from of *io; sets result, code, record, explanation, reason and
 * library, which live in the helper until the next call. Without an answer (MW_ETIMEOUT,
 * MW_EUNAVAIL, MW_EPROTO) the result is temperror and the reason says why; MW_ECANCEL:
 * stopped. Takes at most the timeout, and the delay of a start. */
int mw_helper_ask(struct mw_helper *h, struct mw_spf *io, struct mw_err *err) MW_CHECK;
void mw_helper_end(struct mw_helper *h);

#endif
