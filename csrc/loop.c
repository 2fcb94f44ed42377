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
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int64_t rc_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
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

int rc_send_descriptor(int socket, const void *bytes, size_t length, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        __builtin_memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
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
    return got;
}
