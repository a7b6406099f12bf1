#include "journal/base/log.h"
#include "journal/base/str.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static bool to_syslog;
static bool to_journald; /* standard error is systemd's: it wants "<6>" in front */
static atomic_int most_level = MW_LOG_INFO;
static char prog[32] = "mailwal";

void
mw_log_open(const char *program, bool use_syslog, enum mw_level most)
{
	(void)snprintf(prog, sizeof prog, "%s", program);
	to_syslog = use_syslog;
	to_journald = !use_syslog && getenv("JOURNAL_STREAM") && !isatty(STDERR_FILENO);
	mw_log_level(most);
	if (use_syslog)
		openlog(prog, LOG_PID | LOG_NDELAY, LOG_MAIL);
}

void
mw_log_level(enum mw_level most)
{
	atomic_store(&most_level, (int)most);
}

void
mw_log(enum mw_level level, const char *id, const char *fmt, ...)
{
	char line[1200];
	if ((int)level > atomic_load(&most_level))
		return;
	int n = id && *id ? snprintf(line, sizeof line, "%s: ", id) : 0;
	if (n < 0 || (size_t)n >= sizeof line)
		n = 0;
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
	va_end(ap);
	for (size_t i = 0, k; line[i]; i += k ? k : 1) {
		k = mw_utf8_harmless(line + i, strlen(line + i));
		if (!k)
			line[i] = '?';
	}
	if (to_syslog) {
		syslog((int)level, "%s", line);
	} else {
		char out[1300];
		int m = to_journald ? snprintf(out, sizeof out, "<%d>%s\n", level, line)
		                    : snprintf(out, sizeof out, "%s: %s\n", prog, line);
		if (m > 0)
			(void)!write(STDERR_FILENO, out,
			             (size_t)m < sizeof out ? (size_t)m : sizeof out - 1);
	}
}
