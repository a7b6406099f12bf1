/* preload.c - what tests lie about to a real server, as a library for LD_PRELOAD.
 *
 * MW_SYSLOG=FILE       syslog(3) appends to FILE, in the form that a syslog daemon
 * writes; nothing reaches the system's log MW_HOSTNAME=NAME     gethostname(2) says NAME;
 * Sendmail waits a minute for one with a dot MW_SYNC_DELAY=FILE   each fdatasync and
 * fsync first sleeps as many milliseconds as FILE says at that moment; below 0: until it
 * says something else; no file, no delay MW_SYNC_FAIL=FILE    each fdatasync and fsync
 * fails with the errno that FILE says at that moment; no file, or 0: none does
 * MW_STATFS=NUMBER     statfs(2) gives NUMBER (any base) for the type of each file system
 * MW_CLOCK_SHIFT=FILE  the time of day is as many seconds later as FILE says at that
 *                      moment; no file, none
 * MW_ONLY=NAME         of these, syncs are changed in the program of that name alone
 *
 * All are read when the program starts, since it may drop its environment. Threads may
 * call everything at once.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static char log_path[4096], delay_path[4096], fail_path[4096], shift_path[4096],
    host_name[256], statfs_type[32];
static char ident[64] = "program";
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fdatasync)(int), (*real_fsync)(int);
static int (*real_gethostname)(char *, size_t);

static void
take(const char *name, char *ret, size_t n)
{
	const char *v = getenv(name);
	(void)snprintf(ret, n, "%s", v ? v : "");
}

__attribute__((constructor)) static void
begin(void)
{
	take("MW_SYSLOG", log_path, sizeof log_path);
	take("MW_SYNC_DELAY", delay_path, sizeof delay_path);
	take("MW_SYNC_FAIL", fail_path, sizeof fail_path);
	const char *only = getenv("MW_ONLY");
	if (only && strcmp(only, program_invocation_short_name) != 0)
		delay_path[0] = fail_path[0] = 0;
	take("MW_CLOCK_SHIFT", shift_path, sizeof shift_path);
	take("MW_HOSTNAME", host_name, sizeof host_name);
	take("MW_STATFS", statfs_type, sizeof statfs_type);
	*(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	*(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	*(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
	*(void **)&real_gethostname = dlsym(RTLD_NEXT, "gethostname");
}

int
gethostname(char *name, size_t n)
{
	if (!host_name[0])
		return real_gethostname(name, n);
	(void)snprintf(name, n, "%s", host_name);
	return 0;
}

int
statfs(const char *path, struct statfs *ret)
{
	int (*real)(const char *, struct statfs *); /* called before begin() too */
	*(void **)&real = dlsym(RTLD_NEXT, "statfs");
	int r = real(path, ret);
	if (r == 0 && statfs_type[0])
		ret->f_type = (__typeof__(ret->f_type))strtoul(statfs_type, NULL, 0);
	return r;
}

/* ---- syslog ---- */

static void
put(const char *format, va_list ap)
{
	char text[8192], line[8448], stamp[32];
	time_t now = time(NULL);
	struct tm tm;
	if (!log_path[0])
		return;
	(void)vsnprintf(text, sizeof text, format, ap);
	(void)localtime_r(&now, &tm);
	(void)strftime(stamp, sizeof stamp, "%b %e %H:%M:%S", &tm);
	int n = snprintf(line, sizeof line, "%s rig %s[%d]: %s", stamp, ident,
	                 (int)getpid(), text);
	n = n < (int)sizeof line - 1 ? n : (int)sizeof line - 2;
	while (n && line[n - 1] == '\n')
		n--;
	line[n++] = '\n';
	int fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return;
	if (write(fd, line, (size_t)n) != n)
		(void)!write(2, "preload: log\n", 13);
	(void)close(fd);
}

void
openlog(const char *name, int option, int facility)
{
	(void)option;
	(void)facility;
	if (name)
		(void)snprintf(ident, sizeof ident, "%s", name);
}

void
closelog(void)
{
}

void
vsyslog(int priority, const char *format, va_list ap)
{
	(void)priority;
	put(format, ap);
}

void
syslog(int priority, const char *format, ...)
{
	va_list ap;
	(void)priority;
	va_start(ap, format);
	put(format, ap);
	va_end(ap);
}

/* What a program calls that was compiled with _FORTIFY_SOURCE. */
void __syslog_chk(int priority, int flag, const char *format, ...);
void __vsyslog_chk(int priority, int flag, const char *format, va_list ap);

void
__syslog_chk(int priority, int flag, const char *format, ...)
{
	va_list ap;
	(void)priority;
	(void)flag;
	va_start(ap, format);
	put(format, ap);
	va_end(ap);
}

void
__vsyslog_chk(int priority, int flag, const char *format, va_list ap)
{
	(void)priority;
	(void)flag;
	put(format, ap);
}

/* ---- a clock that jumps ---- */

static long
number_in(const char *path)
{
	char text[16];
	if (!path[0])
		return 0;
	int e = errno, fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		(void)close(fd);
	errno = e;
	text[n > 0 ? n : 0] = 0;
	return strtol(text, NULL, 10);
}

int
clock_gettime(clockid_t clock, struct timespec *ret)
{
	int (*real)(clockid_t, struct timespec *) = real_clock_gettime;
	if (!real) /* before begin() */
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	int r = real(clock, ret);
	if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ret->tv_sec += number_in(shift_path);
	return r;
}

time_t
time(time_t *ret)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (ret)
		*ret = now.tv_sec;
	return now.tv_sec;
}

/* ---- slow and broken disks ---- */

/* 0, or that it fails, with errno set. */
static int
before_sync(void)
{
	long ms;
	while ((ms = number_in(delay_path)) < 0)
		(void)nanosleep(&(struct timespec){0, 10000000}, NULL);
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	if (ms > 0)
		(void)nanosleep(&t, NULL);
	long fails = number_in(fail_path);
	if (fails)
		errno = (int)fails;
	return fails ? -1 : 0;
}

int
fdatasync(int fd)
{
	return before_sync() < 0 ? -1 : real_fdatasync(fd);
}

int
fsync(int fd)
{
	return before_sync() < 0 ? -1 : real_fsync(fd);
}
