#include "milter/spf_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "journal/base/util.h"

enum {
	MEMORY = 512 << 20,
	CPU_SECONDS = 300,
	FILES = 32,
	NICE = 10
};

/* ---- user and limits ---- */

static int
drop_user(uid_t uid, gid_t gid, struct mw_err *err)
{
	if (uid == (uid_t)-1)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		return mw_fail_errno(err, "cannot become user %u", (unsigned)uid);
	return 0;
}

static void
limit(__rlimit_resource_t what, rlim_t most)
{
	struct rlimit l;
	if (getrlimit(what, &l) < 0)
		return;
	l.rlim_max = MW_MIN(l.rlim_max, most);
	l.rlim_cur = l.rlim_max;
	(void)setrlimit(what, &l); /* another limiter may forbid it: seccomp follows */
}

static void
limits(void)
{
	(void)setpriority(PRIO_PROCESS, 0, NICE); /* mail goes first */
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_CPU, CPU_SECONDS);
	limit(RLIMIT_NOFILE, FILES);
	limit(RLIMIT_NPROC, 0);
	limit(RLIMIT_FSIZE, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	limit(RLIMIT_AS, MEMORY); /* sanitizers reserve terabytes */
#endif
}

/* ---- files ---- */

static void
allow_below(int rules, const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return;
	struct landlock_path_beneath_attr at = {.allowed_access =
	                                            LANDLOCK_ACCESS_FS_READ_FILE |
	                                            LANDLOCK_ACCESS_FS_READ_DIR,
	                                        .parent_fd = fd};
	(void)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &at, 0);
	(void)close(fd);
}

/* Best effort: kernels before 5.13 have none, a container may forbid it. */
static void
lock_files(void)
{
	static const char *const readable[] = {"/etc", "/run", "/lib", "/usr/lib",
	                                       "/usr/share"};
	struct landlock_ruleset_attr all = {.handled_access_fs =
	                                        (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
	if (rules < 0)
		return;
	for (size_t i = 0; i < MW_COUNT(readable); i++)
		allow_below(rules, readable[i]);
	(void)syscall(SYS_landlock_restrict_self, rules, 0);
	(void)close(rules);
}

/* ---- system calls ---- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH
#define ARG_LOW(n)  (offsetof(struct seccomp_data, args) + 8 * (n))
#define LOAD(off)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (off))
#define ALLOW       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define REFUSE      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define IF_EQ(k, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), 0, (n))
/* A call without conditions. */
#define CALL(name) IF_EQ(SYS_##name, 1), ALLOW
/* A call whose argument may have no bit of the mask set. */
#define CALL_WITHOUT(name, arg, mask)                                                    \
	IF_EQ(SYS_##name, 4), LOAD(ARG_LOW(arg)),                                        \
	    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (mask), 1, 0), ALLOW, REFUSE

static struct sock_filter code[] = {
    LOAD(offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    LOAD(offsetof(struct seccomp_data, nr)),
    /* questions, answers, DNS */
    CALL(recvfrom),
    CALL(recvmsg),
    CALL(recvmmsg),
    CALL(sendto),
    CALL(sendmsg),
    CALL(sendmmsg),
    CALL(connect),
    CALL(bind),
    CALL(getsockname),
    CALL(getpeername),
    CALL(setsockopt),
    CALL(getsockopt),
    CALL(ppoll),
    CALL(ioctl),
    CALL(read),
    CALL(readv),
    CALL(write),
    CALL(writev),
    CALL(close),
    CALL(fcntl),
    CALL(lseek),
    CALL(fstat),
    CALL(newfstatat),
    CALL(statx),
    CALL(uname),
    CALL(getpid),
    CALL(gettid),
    CALL(getuid),
    CALL(geteuid),
    CALL(getgid),
    CALL(getegid),
    CALL(getrandom),
    /* time, memory, end */
    CALL(clock_gettime),
    CALL(clock_nanosleep),
    CALL(nanosleep),
    CALL(gettimeofday),
    CALL(restart_syscall),
    CALL(brk),
    CALL(munmap),
    CALL(madvise),
    CALL(mremap),
    CALL(futex),
    CALL(sched_yield),
    CALL(rt_sigaction),
    CALL(rt_sigprocmask),
    CALL(rt_sigreturn),
    CALL(sigaltstack),
    CALL(tgkill),
    CALL(exit),
    CALL(exit_group),
#ifdef __x86_64__
    CALL(poll),
    CALL(time),
    CALL(stat),
    CALL_WITHOUT(open, 1, O_ACCMODE | O_CREAT | O_TRUNC),
#endif
    CALL_WITHOUT(openat, 2, O_ACCMODE | O_CREAT | O_TRUNC),
    CALL_WITHOUT(mmap, 2, PROT_EXEC),
    CALL_WITHOUT(mprotect, 2, PROT_EXEC),
    /* unix (nscd, resolved), IPv4 and IPv6 only */
    IF_EQ(SYS_socket, 8),
    LOAD(ARG_LOW(0)),
    IF_EQ(AF_INET, 1),
    ALLOW,
    IF_EQ(AF_INET6, 1),
    ALLOW,
    IF_EQ(AF_UNIX, 1),
    ALLOW,
    REFUSE,
    REFUSE,
};

static int
lock_calls(struct mw_err *err)
{
	struct sock_fprog prog = {MW_COUNT(code), code};
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
		return mw_fail_errno(err, "cannot limit the system calls");
	return 0;
}
#else
static int
lock_calls(struct mw_err *err)
{
	(void)err; /* the numbers of this machine's calls are not in the list */
	return 0;
}
#endif

int
mw_spf_sandbox(uid_t uid, gid_t gid, pid_t parent, struct mw_err *err)
{
	int r = drop_user(uid, gid, err);
	if (r < 0)
		return r;
	limits();
	/* after the change of user, which clears it */
	if (parent && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return mw_fail_errno(err, "cannot die with the parent");
	if (parent && getppid() != parent)
		return mw_fail(err, MW_EUNAVAIL, "the parent is gone");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return mw_fail_errno(err, "cannot give up privileges");
	lock_files();
	return lock_calls(err);
}
