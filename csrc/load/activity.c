/* activity.c - does a worker wait for connections, or is it at work?
 *
 * Owns: the reading of /proc/PID/syscall (proc(5), Linux 2.6.27; needs ptrace
 * access, which a parent of the same user has). An event loop that runs a
 * handler, and a blocking server that answers one request, are seen the same
 * way: their thread is not in a call that waits for descriptors.
 *
 * Only the leader's main thread is looked at, and it is believed to be the one
 * that accepts only after it was seen waiting: a server that accepts in other
 * threads or processes stays RC_ACTIVITY_UNKNOWN, or always seems to wait, and then
 * its queue alone tells.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Some architectures have only the newer of each pair. */
static const int waiting_calls[] = {
    SYS_accept4,
#ifdef SYS_accept
    SYS_accept,
#endif
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
#endif
    SYS_epoll_pwait,
#ifdef SYS_epoll_pwait2
    SYS_epoll_pwait2,
#endif
#ifdef SYS_poll
    SYS_poll,
#endif
    SYS_ppoll,
#ifdef SYS_select
    SYS_select,
#endif
    SYS_pselect6,
};

/* The argument that counts descriptors: none means sleep (Python's time.sleep
 * before 3.11 is a select). 0: the call has no such argument. */
static int counting_argument(long call)
{
#ifdef SYS_poll
    if (call == SYS_poll)
        return 2;
#endif
#ifdef SYS_select
    if (call == SYS_select)
        return 1;
#endif
    if (call == SYS_ppoll)
        return 2;
    return call == SYS_pselect6 ? 1 : 0;
}

/* "running", or the call's number and its arguments in hexadecimal. */
static bool waits(const char *text)
{
    char *rest;
    long call = strtol(text, &rest, 10);
    if (rest == text)
        return false;
    for (size_t at = 0; at < sizeof waiting_calls / sizeof waiting_calls[0]; at++) {
        if (call != waiting_calls[at])
            continue;
        unsigned long value = 1;
        for (int argument = counting_argument(call); argument > 0; argument--)
            value = strtoul(rest, &rest, 16);
        return value != 0;
    }
    return false;
}

enum rc_activity rc_worker_activity(struct rc_worker *worker)
{
    char path[32], text[256];
    if (worker->pid <= 0 || worker->dead || worker->inscrutable)
        return RC_ACTIVITY_UNKNOWN;
    if (worker->activity_fd < 0) {
        /* Not reaped, so the number is still its own; and the file stays that
         * process's, whoever gets the number next. */
        (void)snprintf(path, sizeof path, "/proc/%d/syscall", (int)worker->pid);
        worker->activity_fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    ssize_t length =
        worker->activity_fd < 0 ? -1 : pread(worker->activity_fd, text, sizeof text - 1, 0);
    int error = errno;
    if (length <= 0) {
        /* Yama, hidepid or a kernel without it: it will not be better next time.
         * A shortage of descriptors will. */
        worker->inscrutable = length < 0 && (error == EPERM || error == EACCES || error == ENOENT);
        rc_close(&worker->activity_fd);
        return RC_ACTIVITY_UNKNOWN;
    }
    text[length] = '\0';
    if (waits(text)) {
        worker->seen_waiting = true;
        return RC_ACTIVITY_WAIT;
    }
    return worker->seen_waiting ? RC_ACTIVITY_WORK : RC_ACTIVITY_UNKNOWN;
}
