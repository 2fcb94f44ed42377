/* descriptor.c - what a thread of a worker has at a number: a duplicate of it, or whether
 * it is what we think.
 *
 * Owns nothing. pidfd_getfd(2), Linux 5.6, and kcmp(2); they need ptrace access, which
 * the parent of the same user has.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The notification names a thread; /proc knows its process. */
pid_t rc_process_of(pid_t thread)
{
    char path[32], text[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return -ESRCH;
    text[got] = '\0';
    const char *line = strstr(text, "\nTgid:");
    int process = -1;
    return line && sscanf(line, "\nTgid: %d", &process) == 1 ? process : -ESRCH;
}

int rc_take_descriptor(const struct rc_worker *worker, pid_t process, int number)
{
    int pidfd =
        process == worker->pid ? worker->process.fd : (int)syscall(SYS_pidfd_open, process, 0);
    if (pidfd < 0)
        return -errno;
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
    int error = fd < 0 ? -errno : 0;
    if (pidfd != worker->process.fd)
        close(pidfd);
    return error ? error : fd;
}

/* A duplicate of what a thread of the worker has at that number. */
int rc_take_of_thread(const struct rc_worker *worker, pid_t thread, int number)
{
    if (thread == worker->pid)
        return rc_take_descriptor(worker, thread, number);
    int pidfd = (int)syscall(SYS_pidfd_open, thread, O_EXCL); /* PIDFD_THREAD, Linux 6.9 */
    if (pidfd < 0) {
        pid_t process = rc_process_of(thread);
        return process < 0 ? process : rc_take_descriptor(worker, process, number);
    }
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
    int error = fd < 0 ? -errno : 0;
    close(pidfd);
    return error ? error : fd;
}

/* Whether it is this file of ours. False also where it cannot be asked (a kernel without
 * kcmp(2), a profile that denies it): a duplicate tells, then, for more system calls. */
bool rc_is_same_file(pid_t thread, int number, int ours)
{
    return syscall(SYS_kcmp, getpid(), thread, KCMP_FILE, ours, number) == 0;
}
