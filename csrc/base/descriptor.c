/* descriptor.c - what a process of a worker has at a number: a duplicate of it.
 *
 * Owns nothing. pidfd_getfd(2), Linux 5.6, needs ptrace access, which the parent of the
 * same user has.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The notification names a thread; /proc knows its process. */
pid_t rc_process_of(pid_t thread)
{
    char text[256];
    ssize_t length = rc_proc_read(thread, "status", text, sizeof text);
    if (length < 0)
        return length == -ENOENT ? -ESRCH : (pid_t)length;
    const char *line = strstr(text, "\nTgid:");
    int process = -1;
    return line && sscanf(line, "\nTgid: %d", &process) == 1 ? process : -ESRCH;
}

/* The inode of the socket that a process has at that number, or 0: by its name, for a
 * stat(2) would ask whoever made the file, and may never be answered. */
uint64_t rc_socket_at(pid_t process, int number)
{
    char path[64], name[64];
    unsigned long long inode;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)process, number);
    errno = 0;
    ssize_t length = readlink(path, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = '\0';
    return sscanf(name, "socket:[%llu]", &inode) == 1 ? inode : 0;
}

enum { LIES_MAX = 8 };

/* A socket, or -ENOTSOCK. Another file, whose last close may be ours and wait for whoever serves
 * the file, is closed where nobody waits for it. Of a worker that has done so once it is looked
 * first what is there (most never do, and a look costs more than the taking); where that has
 * changed in between, again and again, it is a liar. */
static int take(struct rc_worker *worker, int pidfd, pid_t process, int number)
{
    if (worker->lies > LIES_MAX)
        return -EACCES;
    if (worker->lies && !rc_socket_at(process, number) && errno != EACCES)
        return errno == ENOENT ? -EBADF : -ENOTSOCK;
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
    if (fd < 0)
        return -errno;
    if (rc_socket_get(fd, SOL_SOCKET, SO_TYPE) != -ENOTSOCK)
        return fd;
    worker->lies++;
    rc_reader_discard(fd);
    return -ENOTSOCK;
}

int rc_take_descriptor(struct rc_worker *worker, pid_t process, int number)
{
    if (process == worker->pid) /* -1 once it is reaped */
        return worker->process.fd < 0 ? -ESRCH : take(worker, worker->process.fd, process, number);
    int pidfd = (int)syscall(SYS_pidfd_open, process, 0);
    if (pidfd < 0)
        return -errno;
    int fd = take(worker, pidfd, process, number);
    close(pidfd);
    return fd;
}
