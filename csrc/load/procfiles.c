/* procfiles.c - files of /proc/PID of a worker's leader that are looked at again and again.
 *
 * Owns: their descriptors, from the first look at each until the worker is reaped. They stay open,
 * for the way to one costs more than what is read there; and such a file stays that process's,
 * across an exec, and whoever gets the number next.
 *
 * Invariant: where descriptors are scarce none stays open.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

void rc_procfiles_begin(struct rc_worker *worker)
{
    for (int which = 0; which < RC_PROCFILES; which++)
        worker->procfiles[which] = -1;
}

void rc_procfiles_end(struct rc_worker *worker)
{
    for (int which = 0; which < RC_PROCFILES; which++)
        rc_close(&worker->procfiles[which]);
}

/* In a forked child, which writes nothing. */
void rc_procfiles_abandon(const struct rc_worker *worker)
{
    for (int which = 0; which < RC_PROCFILES; which++)
        if (worker->procfiles[which] >= 0)
            (void)close(worker->procfiles[which]);
}

/* A descriptor, for rc_procfile_put; or -errno. The leader is not reaped, so that the number is
 * still its own. */
int rc_procfile_take(struct rc_worker *worker, enum rc_procfile which)
{
    char path[64];
    int pid = (int)worker->pid, flags = O_RDONLY;
    if (worker->procfiles[which] >= 0)
        return worker->procfiles[which];
    switch (which) {
    case RC_PROCFILE_FD:
        (void)snprintf(path, sizeof path, "/proc/%d/fd", pid);
        flags = O_PATH | O_DIRECTORY;
        break;
    case RC_PROCFILE_SYSCALL:
        (void)snprintf(path, sizeof path, "/proc/%d/syscall", pid);
        break;
    case RC_PROCFILE_STAT:
        (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
        break;
    default:
        (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    }
    int fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0 && rc_descriptors_spare(fd))
        worker->procfiles[which] = fd;
    return fd < 0 ? -errno : fd;
}

void rc_procfile_put(const struct rc_worker *worker, enum rc_procfile which, int fd)
{
    if (fd >= 0 && worker->procfiles[which] != fd)
        (void)close(fd);
}

/* What fits of it, ended by a zero; its length, or -errno. One that cannot be read is let go. */
ssize_t rc_procfile_read(struct rc_worker *worker, enum rc_procfile which, char *text, size_t room)
{
    int fd = rc_procfile_take(worker, which);
    if (fd < 0)
        return fd;
    ssize_t got = pread(fd, text, room - 1, 0);
    int error = got < 0 ? -errno : 0;
    rc_procfile_put(worker, which, fd);
    if (error)
        rc_close(&worker->procfiles[which]);
    text[error ? 0 : got] = '\0';
    return error ? error : got;
}
