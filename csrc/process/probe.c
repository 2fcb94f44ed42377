/* probe.c - can the seccomp door work here?
 *
 * Tries the real thing on a child of its own: filter, listener passed over,
 * memory read, descriptor taken, and the call answered. A table of kernel
 * versions and sandbox names would be wrong tomorrow; the kernel is not.
 * Nothing is bound or joined: the child's bind is answered, not done.
 */
#include "internal.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBE_US = 5000000 };

static void probe_child(int channel)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int door = rc_notify_install(RC_TRAP_BINDS);
    if (rc_channel_greet(channel, door < 0 ? -1 : door, door < 0 ? -door : 0) < 0 || door < 0)
        _exit(1);
    close(door);
    _exit(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : 1);
}

static int wait_readable(int fd)
{
    int ready = rc_poll(fd, POLLIN, rc_now_us() + PROBE_US);
    return ready < 0 ? ready : ready == 0 ? -ETIMEDOUT : 0;
}

static int probe_answer(int door, pid_t child, const char **step)
{
    struct seccomp_notif notice;
    struct sockaddr_in address;
    memset(&notice, 0, sizeof notice);
    *step = "seccomp notification";
    int error = wait_readable(door);
    if (error)
        return error;
    if (ioctl(door, SECCOMP_IOCTL_NOTIF_RECV, &notice) < 0)
        return -errno;
    *step = "pidfd_open";
    int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    if (pidfd < 0)
        return -errno;
    *step = "pidfd_getfd";
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, (int)notice.data.args[0], 0);
    error = fd < 0 ? -errno : 0;
    rc_close(&fd);
    close(pidfd);
    if (error)
        return error;
    *step = "process_vm_readv";
    struct iovec here = {.iov_base = &address, .iov_len = sizeof address};
    struct iovec there = {.iov_base = (void *)(uintptr_t)notice.data.args[1],
                          .iov_len = sizeof address};
    if (process_vm_readv(child, &here, 1, &there, 1, 0) < 0)
        return -errno;
    struct seccomp_notif_resp reply = {.id = notice.id};
    *step = "seccomp notification";
    return ioctl(door, SECCOMP_IOCTL_NOTIF_SEND, &reply) < 0 ? -errno : 0;
}

/* 0, or -errno with *refused naming what was refused. */
int rc_door_probe(const char **refused)
{
    int ends[2], door = -1, error, status = 0;
    struct rc_hello hello = {0};
    *refused = "socketpair";
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* no handler of the program in the child */
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        probe_child(ends[1]);
    }
    error = child < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    *refused = "fork";
    if (error)
        goto out;
    *refused = "seccomp";
    error = wait_readable(ends[0]);
    if (!error)
        error = rc_channel_hello(ends[0], &hello, &door);
    if (!error && hello.error)
        error = -hello.error;
    if (!error && door < 0)
        error = -EPROTO;
    if (!error)
        error = probe_answer(door, child, refused);
    if (error)
        kill(child, SIGKILL); /* ours, and not reaped: the number is its own */
    rc_close(&door);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!error && status != 0) {
        *refused = "seccomp notification";
        error = -EPROTO;
    }
out:
    close(ends[0]);
    return error;
}
