/* threads.c - what the threads of another process are in (/proc/PID/task/TID, proc(5)).
 *
 * Owns nothing. A thread's call needs ptrace access, which the parent of the same user has; what
 * it says was so a moment ago, but for a process that is stopped.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* "running", or the call's number and its arguments in hexadecimal. */
void rc_thread_parse(const char *text, struct rc_thread_call *call)
{
    char *at;
    long number = strtol(text, &at, 10);
    *call = (struct rc_thread_call){.number = -1};
    if (at == text || number < 0)
        return;
    call->number = number;
    for (unsigned argument = 0; argument < RC_THREAD_ARGUMENTS; argument++)
        call->argument[argument] = strtoull(at, &at, 16);
}

/* Some architectures have only the newer of each pair. */
enum rc_wait_kind rc_thread_waits(const struct rc_thread_call *call)
{
    switch (call->number) {
#ifdef SYS_accept
    case SYS_accept:
#endif
    case SYS_accept4:
        return RC_WAIT_ACCEPT;
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
#endif
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2:
#endif
    case SYS_epoll_pwait:
        return RC_WAIT_EPOLL;
#ifdef SYS_poll
    case SYS_poll:
#endif
    case SYS_ppoll:
        return RC_WAIT_POLL;
#ifdef SYS_select
    case SYS_select:
#endif
    case SYS_pselect6:
        return RC_WAIT_SELECT;
    default:
        return RC_WAIT_NONE;
    }
}

/* Also of a thread that runs, or has ended: then it is in none. */
static int call_of(pid_t pid, long thread, struct rc_thread_call *call)
{
    char name[48], text[256];
    *call = (struct rc_thread_call){.number = -1};
    snprintf(name, sizeof name, "task/%ld/syscall", thread);
    ssize_t length = rc_proc_read(pid, name, text, sizeof text);
    if (length == -ENOENT || length == -ESRCH)
        return access("/proc/self/syscall", F_OK) == 0 ? 0 : -ENOSYS; /* gVisor has none */
    if (length < 0)
        return (int)length;
    rc_thread_parse(text, call);
    return 0;
}

/* Until one visit returns another number than 0: that, 0, or -errno. Of a process that has ended
 * there are none. */
int rc_threads_visit(pid_t pid, int (*visit)(const struct rc_thread_call *call, void *given),
                     void *given)
{
    struct rc_thread_call call;
    int result = 0;
    DIR *threads = rc_proc_open(pid, "task");
    for (long thread; !result && threads && (thread = rc_proc_next(threads)) >= 0;) {
        result = call_of(pid, thread, &call);
        if (!result)
            result = visit(&call, given);
    }
    if (threads)
        closedir(threads);
    return result;
}

bool rc_thread_reads(const struct rc_thread_call *call, int number)
{
    static const long reads[] = {SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg};
    for (size_t at = 0; at < sizeof reads / sizeof reads[0]; at++)
        if (call->number == reads[at])
            return (int)call->argument[0] == number;
    return false;
}

/* Each thread of it, by SIGSTOP. */
bool rc_is_stopped(pid_t pid)
{
    char line[512];
    bool all = true;
    DIR *threads = rc_proc_open(pid, "task");
    if (!threads)
        return false;
    for (long thread; all && (thread = rc_proc_next(threads)) >= 0;) {
        const char *end = rc_stat_of((pid_t)thread, line, sizeof line);
        all = end && strncmp(end, ") T", 3) == 0;
    }
    closedir(threads);
    return all;
}
