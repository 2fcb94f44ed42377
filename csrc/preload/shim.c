/* shim.c - the door where seccomp cannot be it: an LD_PRELOAD library.
 *
 * Owns bind(2), listen(2), connect(2) and unlink(2) of a dynamically linked worker. It hands the
 * worker's own socket to the master and does what the master says. Static
 * programs and raw system calls pass it by.
 *
 * Invariant: whatever goes wrong here, the caller sees the plain system call.
 */
#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* No flow label and no scope of IPv6: those that have one are read in our memory. */
static int can_tell(const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
    if (!address || length < sizeof(struct sockaddr_in) || length > sizeof(struct sockaddr_storage))
        return 0;
    return address->sa_family == AF_INET ||
           (address->sa_family == AF_INET6 && length >= sizeof *six && !six->sin6_flowinfo &&
            !six->sin6_scope_id);
}

/* With the address in the rest of the arguments (wire.h). */
static int plain_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
    const uint64_t first[3] = {(uint32_t)fd, (uintptr_t)address, length};
    struct rc_told told = {0};
    uint64_t rest[3] = {0};
    if (can_tell(address, length)) {
        told.family = address->sa_family;
        told.port = four->sin_port;
        if (told.family == AF_INET)
            told.host[0] = four->sin_addr.s_addr;
        else
            memcpy(told.host, &six->sin6_addr, sizeof told.host);
        told.check = rc_told_check(&told, first);
        memcpy(rest, &told, sizeof rest);
    }
    return (int)syscall(SYS_bind, (uint64_t)(uint32_t)fd, address, (uint64_t)length, rest[0],
                        rest[1], rest[2]);
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

/* Else we are here for what comes by the ring only (ring.c), or in the master itself. */
static int has_door(void)
{
    return getenv("RECLUSTER_SHIM") != NULL;
}

static int is_internet(int fd)
{
    int found = 0;
    socklen_t length = sizeof found;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &found, &length) == 0 &&
           (found == AF_INET || found == AF_INET6);
}

/* Asks, and puts in place what the master wants there. The door, to be closed when the
 * call is over; -1, and reply->pass: the master cannot say. */
static int ask(struct rc_wire_request *request, int fd, struct rc_wire_reply *reply)
{
    int before = errno, replacement = -1;

    request->magic = RC_WIRE_MAGIC;
    if (fd >= 0)
        request->number = fd;
    int door = rc_door_connect(getenv("RECLUSTER_SHIM"), 0, request);
    int failed = door < 0 || rc_door_exchange(door, request, fd, reply, &replacement) < 0;
    if (!failed && replacement >= 0) {
        int flags = fcntl(fd, F_GETFD);
        failed = dup3(replacement, fd, flags >= 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0) < 0;
    }
    if (failed)
        *reply = (struct rc_wire_reply){.pass = RC_WIRE_PLAIN};
    if (replacement >= 0)
        close(replacement);
    errno = before;
    return door;
}

static void done(int door)
{
    int before = errno;
    if (door >= 0)
        close(door);
    errno = before;
}

/* What the master has answered is the call's result. */
static int answered(int door, const struct rc_wire_reply *reply)
{
    done(door);
    if (!reply->error)
        return 0;
    errno = reply->error;
    return -1;
}

/* The master holds our socket until then, and has said the same to those that wait. */
static void share(int fd)
{
    int before = errno, on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    errno = before;
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct rc_wire_request request = {.operation = RC_WIRE_BIND, .length = length};
    struct rc_wire_reply reply;

    if (!has_door() || !is_for_master(fd, address, length))
        return plain_bind(fd, address, length);
    memcpy(&request.path, address, length < sizeof request.path ? length : sizeof request.path);
    int door = ask(&request, fd, &reply);
    if (!reply.pass)
        return answered(door, &reply);
    int result = plain_bind(fd, address, length);
    if (result == 0 && reply.pass == RC_WIRE_SHARE)
        share(fd);
    done(door);
    return result;
}

/* Whether it may be a lane: the master has given those SO_REUSEPORT. */
static int may_be_udp_lane(int fd)
{
    int found = 0;
    socklen_t length = sizeof found;
    return has_type(fd, SOCK_DGRAM) && is_internet(fd) &&
           getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &found, &length) == 0 && found;
}

/* The master lets go of what is one peer's: its duplicate would outlive ours. */
EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct rc_wire_request request = {.operation = RC_WIRE_CONNECTED};
    struct rc_wire_reply reply;
    int result = rc_plain_connect(fd, address, length), before = errno;

    if (result == 0 && has_door() && may_be_udp_lane(fd))
        done(ask(&request, fd, &reply));
    errno = before;
    return result;
}

EXPORT int listen(int fd, int backlog)
{
    struct rc_wire_request request = {.operation = RC_WIRE_LISTEN};
    struct rc_wire_reply reply;

    request.backlog = backlog >= 0 && backlog < RC_PASS_BACKLOG ? backlog : RC_PASS_BACKLOG;
    request.backlog |= RC_PASS_MARK << 16;

    (void)rc_ring_joined();
    if (!has_door() || !has_type(fd, SOCK_STREAM))
        return plain_listen(fd, backlog);
    if (is_door_elsewhere()) /* it sees the call, and that we can receive */
        return plain_listen(fd, is_internet(fd) ? request.backlog : backlog);
    int door = ask(&request, fd, &reply);
    if (!reply.pass)
        return answered(door, &reply);
    int result = plain_listen(fd, backlog);
    done(door);
    return result;
}

/* A server removes its path; the master knows whether it is others' too. Only a
 * socket is worth a question, or one that is gone: a sibling may have removed it. */
EXPORT int unlinkat(int at, const char *path, int flags)
{
    struct rc_wire_request request = {.operation = RC_WIRE_UNLINK, .number = at};
    struct rc_wire_reply reply;
    struct stat facts;
    int before = errno;
    int found = has_door() ? fstatat(at, path, &facts, AT_SYMLINK_NOFOLLOW) : -1;
    size_t length = has_door() ? strnlen(path, sizeof request.path.sun_path) : 0;

    if (!length || length == sizeof request.path.sun_path || flags ||
        (found < 0 ? errno != ENOENT : !S_ISSOCK(facts.st_mode))) {
        errno = before;
        return plain_unlinkat(at, path, flags);
    }
    memcpy(request.path.sun_path, path, length);
    int door = ask(&request, -1, &reply);
    if (!reply.pass)
        return answered(door, &reply);
    int result = plain_unlinkat(at, path, flags);
    done(door);
    return result;
}

EXPORT int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
