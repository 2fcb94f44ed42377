/* shim.c - the door where seccomp cannot be it: an LD_PRELOAD library.
 *
 * Owns bind(2), listen(2) and unlink(2) of a dynamically linked worker. It hands the
 * worker's own socket to the master and does what the master says. Static
 * programs and raw system calls pass it by.
 *
 * Invariant: whatever goes wrong here, the caller sees the plain system call.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int plain_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    return (int)syscall(SYS_bind, fd, address, length);
}

static int plain_listen(int fd, int backlog)
{
    return (int)syscall(SYS_listen, fd, backlog);
}

static int plain_unlinkat(int at, const char *path, int flags)
{
    return (int)syscall(SYS_unlinkat, at, path, flags);
}

static int has_type(int fd, int type)
{
    int found = 0;
    socklen_t length = sizeof found;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &found, &length) == 0 && found == type;
}

/* What the master may have something to say about. A UDP client's port 0 is not. */
static int is_for_master(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_in *internet = (const struct sockaddr_in *)(const void *)address;
    if (!address || length < sizeof address->sa_family)
        return 0;
    if (address->sa_family == AF_UNIX)
        return length > offsetof(struct sockaddr_un, sun_path) &&
               length <= sizeof(struct sockaddr_un) && has_type(fd, SOCK_STREAM);
    return (address->sa_family == AF_INET || address->sa_family == AF_INET6) &&
           length >= sizeof *internet && length <= sizeof(struct sockaddr_storage) &&
           (has_type(fd, SOCK_STREAM) || (internet->sin_port && has_type(fd, SOCK_DGRAM)));
}

/* We are here for accept(2) only (accept.c); calls pass through seccomp. */
static int is_door_elsewhere(void)
{
    const char *door = getenv("RECLUSTER_SHIM");
    return door && strcmp(door, RC_SHIM_RECEIVES) == 0;
}

static int is_internet(int fd)
{
    int found = 0;
    socklen_t length = sizeof found;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &found, &length) == 0 &&
           (found == AF_INET || found == AF_INET6);
}

/* A connected door, with worker and token filled in, or -1. */
static int door_connect(struct rc_wire_request *request)
{
    const char *door = getenv("RECLUSTER_SHIM");
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
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    int failed;
    do
        failed = connect(fd, (struct sockaddr *)&address, size);
    while (failed < 0 && errno == EINTR);
    if (failed < 0) {
        close(fd);
        return -1;
    }
    request->worker = worker;
    request->token = token;
    return fd;
}

static int exchange(int door, const struct rc_wire_request *request, int fd,
                    struct rc_wire_reply *reply, int *replacement)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
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
    if (moved != sizeof *request)
        return -1;

    part = (struct iovec){.iov_base = reply, .iov_len = sizeof *reply};
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
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

/* 1: the master has done it, *result is the call's result. 0: do it plainly. */
static int ask(struct rc_wire_request *request, int fd, int *result)
{
    int before = errno, replacement = -1, handled = 0;
    struct rc_wire_reply reply;

    request->magic = RC_WIRE_MAGIC;
    if (fd >= 0)
        request->number = fd;
    int door = door_connect(request);
    if (door >= 0 && exchange(door, request, fd, &reply, &replacement) == 0 && !reply.pass) {
        int flags = fcntl(fd, F_GETFD);
        handled = 1;
        if (replacement >= 0 &&
            dup3(replacement, fd, flags >= 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0) < 0)
            handled = 0;
        *result = reply.error ? -1 : 0;
    }
    if (replacement >= 0)
        close(replacement);
    if (door >= 0)
        close(door);
    errno = handled && reply.error ? reply.error : before;
    return handled;
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct rc_wire_request request = {.operation = RC_WIRE_BIND, .length = length};
    int result;

    if (!is_for_master(fd, address, length))
        return plain_bind(fd, address, length);
    memcpy(&request.path, address, length < sizeof request.path ? length : sizeof request.path);
    return ask(&request, fd, &result) ? result : plain_bind(fd, address, length);
}

EXPORT int listen(int fd, int backlog)
{
    struct rc_wire_request request = {.operation = RC_WIRE_LISTEN};
    int result;

    request.backlog = backlog >= 0 && backlog < RC_PASS_BACKLOG ? backlog : RC_PASS_BACKLOG;
    request.backlog |= RC_PASS_MARK << 16;

    if (!has_type(fd, SOCK_STREAM))
        return plain_listen(fd, backlog);
    if (is_door_elsewhere()) /* it sees the call, and that we can receive */
        return plain_listen(fd, is_internet(fd) ? request.backlog : backlog);
    return ask(&request, fd, &result) ? result : plain_listen(fd, backlog);
}

/* A server removes its path; the master knows whether it is others' too. Only a
 * socket is worth a question. */
EXPORT int unlinkat(int at, const char *path, int flags)
{
    struct rc_wire_request request = {.operation = RC_WIRE_UNLINK, .number = at};
    struct stat facts;
    int result, before = errno;
    size_t length = strnlen(path, sizeof request.path.sun_path);

    if (!length || length == sizeof request.path.sun_path || flags ||
        fstatat(at, path, &facts, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(facts.st_mode)) {
        errno = before;
        return plain_unlinkat(at, path, flags);
    }
    memcpy(request.path.sun_path, path, length);
    return ask(&request, -1, &result) ? result : plain_unlinkat(at, path, flags);
}

EXPORT int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
