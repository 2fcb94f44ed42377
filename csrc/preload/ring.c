/* ring.c - what a bell brings: in a worker, the other side of csrc/handover/ring.c.
 *
 * Owns: the page of bells, and the swap of one for the connection that it stands for. The
 * page is asked for when a process of a worker first listens or accepts, and kept by its forks.
 *
 * Invariants:
 *  - an accept is the plain system call, and one look at the page;
 *  - a connection is the program's only when the master has been told that it has arrived, so
 *    it is never two workers';
 *  - whatever goes wrong, what accept(2) has returned is returned.
 */
#define _GNU_SOURCE
#include "door.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATIENCE = 2 }; /* seconds, for a master that has been stopped */

static const struct rc_ring_page *the_page;
static int asked;

/* The master's own accept, too, comes by here: it has no RECLUSTER_RING. */
static const struct rc_ring_page *page(void)
{
    const struct rc_ring_page *known = __atomic_load_n(&the_page, __ATOMIC_ACQUIRE);
    if (known || __atomic_load_n(&asked, __ATOMIC_RELAXED))
        return known;
    const char *name = getenv("RECLUSTER_RING");
    if (!name)
        return NULL;
    struct rc_wire_request request = {.magic = RC_WIRE_MAGIC, .operation = RC_WIRE_PAGE};
    struct rc_wire_reply reply;
    int before = errno, memory = -1;
    __atomic_store_n(&asked, 1, __ATOMIC_RELAXED);
    int door = rc_door_connect(name, PATIENCE, &request);
    if (door >= 0 && rc_door_exchange(door, &request, -1, &reply, &memory) == 0 && memory >= 0) {
        void *found = mmap(NULL, sizeof *known, PROT_READ, MAP_SHARED, memory, 0);
        known = found == MAP_FAILED ? NULL : found;
    }
    if (memory >= 0)
        close(memory);
    if (door >= 0)
        close(door);
    __atomic_store_n(&the_page, known, __ATOMIC_RELEASE);
    errno = before;
    return known;
}

/* Asks, the first time. */
int rc_ring_joined(void)
{
    return page() != NULL;
}

static int is_listed(const struct rc_ring_page *page, uint16_t port)
{
    for (size_t at = 0; at < RC_PAGE_PORTS; at++)
        if (__atomic_load_n(&page->ports[at], __ATOMIC_RELAXED) == port)
            return 1;
    return 0;
}

/* Whether it may be one, by its port; that it is, the master knows. */
static int may_be_bell(const struct rc_ring_page *known, const struct rc_wire_request *request)
{
    if (!__atomic_load_n(&known->rung, __ATOMIC_ACQUIRE))
        return 0;
    sa_family_t family = request->address.sin6_family; /* the port is at the same place in both */
    return (family == AF_INET || family == AF_INET6) &&
           is_listed(known, ntohs(request->address.sin6_port));
}

/* As accept4 was asked: a received descriptor is close-on-exec, and its description is as
 * it was. */
static void set_flags(int fd, int flags)
{
    int now = fcntl(fd, F_GETFL);
    int wanted = flags & SOCK_NONBLOCK ? now | O_NONBLOCK : now & ~O_NONBLOCK;
    if (now >= 0 && wanted != now)
        (void)fcntl(fd, F_SETFL, wanted);
    if (!(flags & SOCK_CLOEXEC))
        (void)fcntl(fd, F_SETFD, 0);
}

static void tell(const void *name, socklen_t size, struct sockaddr *address, socklen_t *length)
{
    if (!address || !length)
        return;
    memcpy(address, name, *length < size ? *length : size);
    *length = size;
}

/* Whether it is a connection to the same port as that socket. */
static int is_accepted_at(int fd, in_port_t port)
{
    struct sockaddr_in6 name, peer; /* in an IPv4 one the port is at the same place */
    socklen_t size = sizeof name, length = sizeof peer;
    return syscall(SYS_getsockname, fd, &name, &size) == 0 &&
           (name.sin6_family == AF_INET || name.sin6_family == AF_INET6) &&
           name.sin6_port == port && syscall(SYS_getpeername, fd, &peer, &length) == 0;
}

/* Sends what this process has accepted there, but for the bell itself: the master may not take
 * it (pidfd_getfd(2) is denied), and is about to give it to others. */
static void tell_accepted(int door, int listener, int bell, struct rc_wire_request *request)
{
    struct sockaddr_in6 name;
    socklen_t size = sizeof name;
    DIR *descriptors = opendir("/proc/self/fd");
    const struct dirent *entry;
    request->operation = RC_WIRE_HAVE;
    if (syscall(SYS_getsockname, listener, &name, &size) == 0)
        while (descriptors && (entry = readdir(descriptors))) {
            int fd = atoi(entry->d_name);
            if (fd == bell || fd == door || fd == dirfd(descriptors) || entry->d_name[0] == '.' ||
                !is_accepted_at(fd, name.sin6_port))
                continue;
            request->number = fd;
            if (rc_door_send(door, request, fd) < 0)
                break;
        }
    if (descriptors)
        closedir(descriptors);
    request->operation = RC_WIRE_KEPT;
    (void)rc_door_send(door, request, -1);
}

/* What it brings; with RC_BRINGS_ANOTHER, *out. */
static int ask(int listener, int bell, struct rc_wire_request *request, struct rc_wire_reply *reply,
               int *out)
{
    request->magic = RC_WIRE_MAGIC;
    request->operation = RC_WIRE_BELL;
    request->number = request->backlog = -1;
    request->length = sizeof request->address;
    int door = rc_door_connect(getenv("RECLUSTER_RING"), PATIENCE, request), found = -1;
    if (door < 0)
        return RC_BRINGS_ITSELF;
    int brings = RC_BRINGS_ITSELF;
    if (rc_door_exchange(door, request, -1, reply, &found) == 0)
        brings = reply->brings;
    if (brings == RC_BRINGS_ANOTHER) {
        request->operation = RC_WIRE_KEPT;
        ssize_t sent = -1;
        if (found >= 0)
            do
                sent = send(door, request, sizeof *request, MSG_NOSIGNAL);
            while (sent < 0 && errno == EINTR);
        if (sent != sizeof *request) /* it stays with the master */
            brings = RC_BRINGS_NOTHING;
    }
    if (brings == RC_BRINGS_QUESTION)
        tell_accepted(door, listener, bell, request);
    if (brings != RC_BRINGS_ANOTHER && found >= 0) {
        close(found);
        found = -1;
    }
    close(door);
    *out = found;
    return brings;
}

/* Somebody who waits in accept(2) goes on waiting only if more is there: a loop that has
 * seen it readable expects to come back. */
static int has_more(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    int flags = fcntl(fd, F_GETFL);
    return (flags >= 0 && flags & O_NONBLOCK) || poll(&one, 1, 0) > 0;
}

/* The name is asked of accept itself: of a bell that was withdrawn nobody else tells it. */
int rc_ring_accept(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    const struct rc_ring_page *known = page();
    if (!known)
        return (int)syscall(SYS_accept4, fd, address, length, flags);
    for (int before = errno;;) {
        struct rc_wire_request request;
        struct rc_wire_reply reply;
        socklen_t size = sizeof request.path;
        int found = (int)syscall(SYS_accept4, fd, &request.path, &size, flags), another = -1;
        if (found < 0)
            return found;
        int brings = RC_BRINGS_ITSELF;
        if (may_be_bell(known, &request))
            brings = ask(fd, found, &request, &reply, &another);
        errno = before;
        if (brings == RC_BRINGS_ITSELF) {
            tell(&request.path, size, address, length);
            return found;
        }
        close(found);
        if (brings == RC_BRINGS_ANOTHER) {
            set_flags(another, flags);
            tell(&reply.peer, reply.length, address, length);
            return another;
        }
        if (!has_more(fd)) {
            errno = ECONNABORTED;
            return -1;
        }
    }
}
