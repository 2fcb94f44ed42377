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
#include <unistd.h>

/* A poll or select of no descriptors is a sleep (Python's time.sleep before 3.11 is one). */
static bool waits(const char *text)
{
    struct rc_thread_call call;
    rc_thread_parse(text, &call);
    switch (rc_thread_waits(&call)) {
    case RC_WAIT_NONE:
        return false;
    case RC_WAIT_POLL:
        return call.argument[1] != 0;
    case RC_WAIT_SELECT:
        return call.argument[0] != 0;
    default:
        return true;
    }
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
