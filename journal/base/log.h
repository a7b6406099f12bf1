/* log.h - one line per fact: "QUEUEID: event=… key=value …". Only programs call it.
 *
 * Goes to syslog (facility mail) or standard error, with the level as a systemd prefix
 * there. Values never hold subjects, bodies or keys; every key is registered in
 * tests/lint/log-keys. Thread-safe.
 */
#ifndef MW_BASE_LOG_H
#define MW_BASE_LOG_H

#include <stdbool.h>

enum mw_level {
	MW_LOG_ERR = 3,
	MW_LOG_WARN = 4,
	MW_LOG_NOTICE = 5,
	MW_LOG_INFO = 6,
	MW_LOG_DEBUG = 7
};

/* use_syslog false: standard error. */
void mw_log_open(const char *program, bool use_syslog, enum mw_level most);
/* Another threshold, at any time. */
void mw_log_level(enum mw_level most);
/* id: queue ID or NULL ("-" is printed by none). fmt gives "event=… key=value". Control
 * characters that a value brings along are replaced by '?'. */
void mw_log(enum mw_level level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
