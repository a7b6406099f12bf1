#include "milter/process.h"

#include <malloc.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void
limits(void)
{
	struct rlimit core = {0}, files;
	/* A core file would hold mail. Best effort all. */
	(void)setrlimit(RLIMIT_CORE, &core);
#ifndef __SANITIZE_ADDRESS__ /* the leak checker traces its own process */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Under load the MTA's processes and this one wake each other several times a message.
 * Batch scheduling lets the one that runs finish what it is writing, so that a wake-up
 * finds more to do: about 5 % more messages, and no difference on an idle processor
 * (sched(7)). An administrator's other choice stays. */
static void
scheduling(void)
{
	struct sched_param none = {0};
	if (sched_getscheduler(0) == SCHED_OTHER)
		(void)sched_setscheduler(0, SCHED_BATCH, &none); /* best effort */
}

/* What is large (tables of a dictionary that is learnt, buffers of a large message) comes
 * from the system and goes back there as soon as it is freed. Left to itself, malloc
 * takes such sizes out of its heaps after the first of them, and holes of megabytes stay.
 */
static void
memory(void)
{
	enum {
		LARGE = 128 * 1024
	};
	(void)mallopt(M_MMAP_THRESHOLD, LARGE); /* best effort */
}

void
mw_process_init(void)
{
	memory();
	limits();
	scheduling();
}
