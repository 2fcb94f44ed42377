/* accept.c - accept(2) of a worker: the plain one, a bell's (ring.c), or what comes in dispatch.
 *
 * Owns accept, accept4 and, in dispatch, what a program asks about its listening socket: one end
 * of a pair lies in its place (csrc/lane/pass.c), over which the master passes connections.
 * It is known by the name of its other end, which also says what the program listens
 * on: so forks, duplicates and exec need no memory of ours.
 *
 * Invariant: any other descriptor gets the plain system call.
 */
#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int hex(char digit)
{
    return digit >= '0' && digit <= '9'   ? digit - '0'
           : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                                          : -1;
}

/* Whether it is an end of a pair of the master's; what its program listens on. There are
 * none where there are bells. */
static int is_pair(int fd, struct sockaddr_in6 *address)
{
    if (rc_ring_joined() || !getenv("RECLUSTER_SHIM"))
        return 0;
    struct sockaddr_un peer;
    socklen_t length = sizeof peer;
    size_t prefix = sizeof RC_PASS_NAME - 1;
    int before = errno;
    memset(&peer, 0, sizeof peer);
    int failed = syscall(SYS_getpeername, fd, &peer, &length) < 0;
    errno = before;
    if (failed || peer.sun_family != AF_UNIX || peer.sun_path[0] ||
        memcmp(peer.sun_path + 1, RC_PASS_NAME, prefix) != 0)
        return 0;
    /* Anybody may have bound a name that begins so. */
    size_t room = length < sizeof peer ? length : sizeof peer,
           head = offsetof(struct sockaddr_un, sun_path);
    if (room < head + 1 + prefix + 1 + 2 * sizeof *address)
        return 0;
    const char *digits = (const char *)&peer + room - 2 * sizeof *address;
    if (digits[-1] != '/')
        return 0;
    unsigned char *out = (void *)address;
    for (size_t at = 0; at < sizeof *address; at++) {
        int high = hex(digits[2 * at]), low = high < 0 ? -1 : hex(digits[2 * at + 1]);
        if (low < 0)
            return 0;
        out[at] = (unsigned char)(high << 4 | low);
    }
    return 1;
}

static void tell(const struct sockaddr_in6 *from, socklen_t size, struct sockaddr *address,
                 socklen_t *length)
{
    if (!address || !length)
        return;
    memcpy(address, from, *length < size ? *length : size);
    *length = size;
}

/* A message without a descriptor only asks whether somebody receives. */
static int receive(int fd, struct rc_pass_head *head, int flags)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    for (;;) {
        struct iovec part = {.iov_base = head, .iov_len = sizeof *head};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = CMSG_LEN(sizeof(int))};
        int place = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* see rc_pass_receive */
        if (place < 0)
            return -1;
        close(place);
        ssize_t got = recvmsg(fd, &message, flags & SOCK_CLOEXEC ? MSG_CMSG_CLOEXEC : 0);
        if (got < 0)
            return -1;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            int found;
            memcpy(&found, CMSG_DATA(header), sizeof found);
            return found;
        }
        if (got < (ssize_t)sizeof *head || message.msg_flags & MSG_CTRUNC) {
            errno = got ? EMFILE : ECONNABORTED;
            return -1;
        }
    }
}

EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    struct sockaddr_in6 name;
    struct rc_pass_head head;
    if (!is_pair(fd, &name))
        return rc_ring_accept(fd, address, length, flags);
    int found = receive(fd, &head, flags);
    if (found >= 0 && flags & SOCK_NONBLOCK)
        (void)fcntl(found, F_SETFL, O_NONBLOCK);
    if (found >= 0)
        tell(&head.peer, head.length, address, length);
    return found;
}

EXPORT int accept(int fd, struct sockaddr *address, socklen_t *length)
{
    return accept4(fd, address, length, 0);
}

EXPORT int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    socklen_t room = length ? *length : 0;
    struct sockaddr_in6 name;
    int result = (int)syscall(SYS_getsockname, fd, address, length);
    if (result == 0 && room >= sizeof address->sa_family && address->sa_family == AF_UNIX &&
        is_pair(fd, &name)) {
        *length = room;
        tell(&name, name.sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof name, address,
             length);
    }
    return result;
}

/* What tells a listening TCP socket from others. */
EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    struct sockaddr_in6 bound;
    int result = (int)syscall(SYS_getsockopt, fd, level, name, value, length);
    if (level != SOL_SOCKET || result != 0 || *length != sizeof(int))
        return result;
    if ((name == SO_DOMAIN || name == SO_TYPE || name == SO_PROTOCOL || name == SO_ACCEPTCONN) &&
        is_pair(fd, &bound))
        *(int *)value = name == SO_DOMAIN     ? bound.sin6_family
                        : name == SO_TYPE     ? SOCK_STREAM
                        : name == SO_PROTOCOL ? IPPROTO_TCP
                                              : 1;
    return result;
}

/* Connections have the options that the socket had when it listened. */
EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    struct sockaddr_in6 bound;
    int result = (int)syscall(SYS_setsockopt, fd, level, name, value, length);
    return result < 0 && is_pair(fd, &bound) ? 0 : result;
}
