/* door.c - a call of the preload library to the master: connect, ask, hear.
 *
 * Owns: the connection's making, and one question and answer over it. Does not own what
 * is asked.
 */
#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int rc_plain_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    return (int)syscall(SYS_connect, fd, address, length);
}

/* A connected door, with worker and token filled in, or -1. `door`: name/worker/token, or NULL;
 * `patience`: seconds that the master has for each step, 0: for ever. */
int rc_door_connect(const char *door, int patience, struct rc_wire_request *request)
{
    const struct timeval limit = {.tv_sec = patience};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    unsigned worker;
    unsigned long long token;

    if (!door || sscanf(door, "%63[^/]/%u/%llx", name, &worker, &token) != 3)
        return -1;
    size_t length = strlen(name);
    memcpy(address.sun_path + 1, name, length); /* abstract: a leading zero byte */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (patience) {
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    int failed;
    do
        failed = rc_plain_connect(fd, (struct sockaddr *)&address, size);
    while (failed < 0 && errno == EINTR);
    if (failed < 0) {
        close(fd);
        return -1;
    }
    request->worker = worker;
    request->token = token;
    return fd;
}

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

/* 0, or -1. */
int rc_door_send(int door, const struct rc_wire_request *request, int fd)
{
    union control control = {0};
    struct iovec part = {.iov_base = (void *)request, .iov_len = sizeof *request};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = fd < 0 ? NULL : &control,
        .msg_controllen = fd < 0 ? 0 : sizeof control,
    };
    ssize_t moved;

    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    do
        moved = sendmsg(door, &message, MSG_NOSIGNAL);
    while (moved < 0 && errno == EINTR);
    return moved == sizeof *request ? 0 : -1;
}

int rc_door_exchange(int door, const struct rc_wire_request *request, int fd,
                     struct rc_wire_reply *reply, int *replacement)
{
    union control control = {0};
    struct iovec part = {.iov_base = reply, .iov_len = sizeof *reply};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t moved;
    if (rc_door_send(door, request, fd) < 0)
        return -1;
    do
        moved = recvmsg(door, &message, MSG_CMSG_CLOEXEC);
    while (moved < 0 && errno == EINTR);
    if (moved != sizeof *reply || reply->magic != RC_WIRE_MAGIC)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(replacement, CMSG_DATA(header), sizeof *replacement);
    return 0;
}
