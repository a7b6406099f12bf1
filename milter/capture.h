/* capture.h - what all sessions of one daemon share: store, settings, counters.
 *
 * Life: mw_capture_init, sessions come and go, mw_capture_done after the last of them.
 * Threads: all functions may be called from any thread. The store is borrowed; settings
 * are immutable and counted, so that a reload leaves running messages with the old ones.
 */
#ifndef MW_MILTER_CAPTURE_H
#define MW_MILTER_CAPTURE_H

#include "conf/conf.h"
#include "journal/store/guard.h"
#include "journal/store/passed.h"
#include "journal/store/store.h"

#include "milter/coming.h"
#include "milter/once.h"
#include "milter/pool.h"

#include <pthread.h>
#include <stdatomic.h>

struct mw_classes;
struct mw_expand;
struct mw_identity;
struct mw_verdict;

struct mw_settings {
	atomic_int refs;
	struct mw_conf *conf;         /* owned */
	struct mw_identity *identity; /* owned; NULL: no alias tables */
	struct mw_classes *classes;   /* owned; NULL: no capture sections */
};

struct mw_counters {
	atomic_uint_fast64_t journaled;          /* durable, and answered so */
	atomic_uint_fast64_t tempfailed;         /* refused because of our trouble */
	atomic_uint_fast64_t passed_unjournaled; /* let pass in spite of it */
	atomic_uint_fast64_t excluded;           /* passed by a capture section */
	atomic_uint_fast64_t replayed;           /* put back by mailwal: passed */
	atomic_uint_fast64_t sessions;           /* milter connections that negotiated */
	atomic_uint_fast64_t aborted;    /* messages that never reached their end */
	atomic_uint_fast64_t imported;   /* older mail, by `mailwal import` */
	atomic_uint_fast64_t recipients; /* of those journaled */
	atomic_uint_fast64_t erased;     /* records, by `mailwal erase` */
	atomic_int open_sessions;
	atomic_int at_eom;               /* ends of message not yet answered */
	atomic_uint_fast64_t overloaded; /* failures because a limit was reached */
	atomic_uint_fast64_t in_flight;  /* bytes of memory that messages take, about */
};

/* What one capture section let pass without a record. */
struct mw_excluded {
	char section[64];
	uint64_t messages, bytes;
};

enum {
	MW_EXCLUDED_MOST = 64 /* sections that are told apart */
};

enum {
	MW_WAIT_BUCKETS = 13
};
extern const int64_t mw_wait_bounds_us[MW_WAIT_BUCKETS - 1]; /* the last is open */

struct mw_waits { /* ends of message, by how long they waited for the disk */
	atomic_uint_fast64_t bucket[MW_WAIT_BUCKETS], sum_us;
};

struct mw_capture {
	struct mw_store *store;
	char *dir; /* of the journal; outlives the store */
	const struct mw_clock *clock;
	uint8_t guard_key[MW_GUARD_KEY];
	struct mw_once used;     /* tokens of the loop guard */
	struct mw_coming coming; /* what comes back without one */
	int64_t started_mono_us;
	struct mw_expand *_Atomic expand;   /* network tables; NULL: off */
	struct mw_pool *notes;              /* writes `passed` */
	struct mw_verdict *_Atomic verdict; /* SPF; NULL: off */
	struct mw_counters count;
	/* Of those counted, how many an operator knows of. */
	atomic_uint_fast64_t noted_overloaded, noted_failures;
	struct mw_waits waits;
	atomic_int_fast64_t loaded_us; /* when the settings in force were read */
	atomic_int reload_refused;     /* the last one was */
	pthread_mutex_t lock;          /* guards what follows */
	struct mw_settings *settings;
	char last_queue_id[64];
	char last_id[MW_ID_TEXT + 1];
	int64_t last_time_us; /* of the last message journaled by this process; 0: none */
	struct mw_excluded excluded[MW_EXCLUDED_MOST];
	size_t n_excluded;
	struct mw_passed passed;
	bool passed_new, passed_writing; /* not yet written; somebody is at it */
	struct mw_job passed_job;
};

/* Takes conf over (on success only). MW_ENOMEM, MW_ECONF (alias tables, capture). */
int mw_capture_init(struct mw_capture *cap, struct mw_store *store, struct mw_conf *conf,
                    struct mw_err *err) MW_CHECK;
void mw_capture_done(struct mw_capture *cap);
/* New settings for messages that start from now on; takes conf over on success. */
int mw_capture_reload(struct mw_capture *cap, struct mw_conf *conf,
                      struct mw_err *err) MW_CHECK;
/* The current settings, counted: give them back with mw_settings_unref. */
struct mw_settings *mw_capture_settings(struct mw_capture *cap);
void mw_settings_unref(struct mw_settings *s); /* NULL ok */
/* Counts a message that passed in spite of our trouble, here and on disk; never waits. */
void mw_capture_passed(struct mw_capture *cap);
/* Waits a few seconds at most until what passed is on disk: before the journal's lock
 * goes, since its next owner reads it. */
void mw_capture_settle(struct mw_capture *cap);
/* An operator has taken note of all that passed. Waits for the disk. */
int mw_capture_acknowledge(struct mw_capture *cap, struct mw_err *err) MW_CHECK;
/* Counts a message that a capture section let pass. */
void mw_capture_excluded(struct mw_capture *cap, const char *section, uint64_t bytes);
/* Counts a message's wait for its commit. */
void mw_capture_waited(struct mw_capture *cap, int64_t us);
/* Notes the last journaled message for `status`. */
void mw_capture_journaled(struct mw_capture *cap, struct mw_str queue_id,
                          const uint8_t id[MW_ID_LEN], int64_t time_us);

#endif
