/* loop.c - descriptors in the epoll set; and the clock.
 *
 * Owns: registration and removal. Does not own what happens on readiness.
 * Invariant: a descriptor leaves the epoll set before it is closed. epoll keys
 * on the open file description, so closing the number while a duplicate lives
 * (a worker holds one of every lane) would wake the loop for ever
 * (epoll(7), question 6).
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int64_t rc_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What it is ready for (poll(2)), 0 if for nothing until then, or -errno. A handler of the
 * program's would end the wait early. */
int rc_poll(int fd, short events, int64_t until_us)
{
    struct pollfd one = {.fd = fd, .events = events};
    int ready;
    do {
        int64_t left = until_us - rc_now_us();
        ready = poll(&one, 1, left > 0 ? (int)(left / 1000 + 1) : 0);
    } while (ready < 0 && errno == EINTR);
    return ready < 0 ? -errno : ready ? one.revents : 0;
}

void rc_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int rc_source_add(int epoll, struct rc_source *source, enum rc_source_kind kind, int fd,
                  uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    source->kind = kind;
    source->fd = fd;
    source->armed = events;
    return 0;
}

/* A timerfd of its own, which is not set. */
int rc_timer_add(int epoll, struct rc_source *source, enum rc_source_kind kind)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int error = fd < 0 ? -errno : rc_source_add(epoll, source, kind, fd, EPOLLIN);
    if (error)
        rc_close(&fd);
    return error;
}

int rc_source_arm(int epoll, struct rc_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (source->armed == events)
        return 0;
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return -errno;
    source->armed = events;
    return 0;
}

void rc_source_shut(int epoll, struct rc_source *source)
{
    if (source->fd < 0)
        return;
    (void)epoll_ctl(epoll, EPOLL_CTL_DEL, source->fd, NULL);
    rc_close(&source->fd);
}

/* The descriptor is somebody else's, and stays open. */
void rc_source_leave(int epoll, struct rc_source *source)
{
    if (source->fd >= 0)
        (void)epoll_ctl(epoll, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = -1;
}

int rc_send_descriptor(int socket, const void *bytes, size_t length, int fd)
{
    return rc_send_descriptors(socket, bytes, length, &fd, fd >= 0);
}

int rc_send_descriptors(int socket, const void *bytes, size_t length, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(RC_DESCRIPTORS_MOST * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (count > 0 && count <= RC_DESCRIPTORS_MOST) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        __builtin_memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return (size_t)sent == length ? 0 : -EIO;
}

/* Bytes received or -errno; *fd is -1 when none came. Further descriptors that
 * a hostile sender attached are closed by the kernel: there is room for one. */
ssize_t rc_receive_descriptor(int socket, void *bytes, size_t length, int *fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_LEN(sizeof(int)), /* CMSG_SPACE would fit two */
    };
    ssize_t got;
    do
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    *fd = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int)))
        __builtin_memcpy(fd, CMSG_DATA(header), sizeof *fd);
    else if (message.msg_flags & MSG_CTRUNC)
        return -EMFILE; /* one came, and there was no number for it */
    return got;
}
