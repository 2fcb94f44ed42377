/* bind.c - what a bind(2) of a worker becomes.
 *
 * Owns the decision; the doors bring the call, pending.c remembers it. The
 * program keeps its own socket with every option it set; the kernel binds our
 * duplicate of it, so the result is known and there is no race on its memory.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* An MPTCP listener refuses the steering program; a plain TCP one serves the
 * same clients (they fall back, RFC 8684 section 3.7). */
static int plain_tcp(int fd, int domain)
{
    int flags = fcntl(fd, F_GETFL);
    int plain = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (plain < 0)
        return -errno;
    (void)fcntl(plain, F_SETFL, flags);
    (void)rc_socket_set(plain, SOL_SOCKET, SO_REUSEADDR,
                        rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR));
    (void)rc_socket_set(plain, SOL_SOCKET, SO_REUSEPORT,
                        rc_socket_get(fd, SOL_SOCKET, SO_REUSEPORT));
    if (domain == AF_INET6)
        (void)rc_socket_set(plain, IPPROTO_IPV6, IPV6_V6ONLY,
                            rc_socket_get(fd, IPPROTO_IPV6, IPV6_V6ONLY));
    return plain;
}

static int bind_socket(struct rc_engine *engine, const struct rc_call *call, int fd,
                       struct sockaddr_in6 *address)
{
    struct rc_pending pending = {.pid = call->pid, .fd = call->number, .zero_index = -1};
    bool reuse_address = rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR) > 0;
    bool reuse_port = rc_socket_get(fd, SOL_SOCKET, SO_REUSEPORT) > 0;

    if (address->sin6_port == 0) {
        pending.zero = *address;
        pending.zero_index = rc_zero_index(call->worker, address);
        if (pending.zero_index >= 0)
            address->sin6_port = rc_zero_port(engine, call->worker, address, pending.zero_index);
    }
    int error = rc_key_of(fd, address, &pending.key);
    if (error)
        return error;
    rc_inherited_fit(engine, fd, &pending.key);
    struct rc_group *group = address->sin6_port ? rc_group_find(engine, &pending.key) : NULL;
    /* The first of a group binds without SO_REUSEPORT, so that a foreign owner
     * or a second cluster is what it would be without us: EADDRINUSE. */
    bool first = !group && !rc_pending_elsewhere(engine, &pending.key);
    if (group && group->key.uid != pending.key.uid &&
        fchown(fd, group->key.uid, (gid_t)-1) == 0) /* siblings must be of one user */
        pending.key.uid = group->key.uid;
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, !first);
    if (!first) /* connections of the first lane may lack SO_REUSEPORT (sink.c) */
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, (struct sockaddr *)address, rc_address_length(address)) < 0) {
        struct sockaddr_in6 bound;
        error = -errno;
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, reuse_port);
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, reuse_address);
        /* A bind that was answered, but whose answer a signal took away
         * (before Linux 5.19), comes again. */
        if (error == -EINVAL && rc_pending_find(call->worker, rc_socket_inode(fd)) &&
            rc_socket_name(fd, &bound) == 0 && memcmp(&bound, address, sizeof bound) == 0)
            return 0;
        return error;
    }
    /* From here siblings may bind and, at the first listen, must not be in the
     * way of it; what the program had set comes back at listen. */
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    pending.reuse_address = reuse_address;
    pending.inode = rc_socket_inode(fd);
    error = rc_socket_name(fd, &pending.key.address);
    if (error)
        return error;
    rc_pending_add(call->worker, &pending);
    return 0;
}

void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    struct sockaddr_in6 address;
    int domain = rc_socket_get(call->fd, SOL_SOCKET, SO_DOMAIN);
    int protocol = rc_socket_get(call->fd, SOL_SOCKET, SO_PROTOCOL);

    *answer = (struct rc_answer){.replace = -1};
    answer->pass = true;
    if (domain == AF_UNIX) {
        rc_unix_bind(engine, call, answer);
        return;
    }
    if ((domain != AF_INET && domain != AF_INET6) ||
        (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP && protocol != IPPROTO_UDP))
        return;
    if (rc_address_canonical(&call->address, call->length, &address) < 0 ||
        address.sin6_family != domain)
        return; /* the kernel knows best what is wrong with it */
    if (rc_inherited_bind(engine, call, &address, answer))
        return;
    if (protocol == IPPROTO_UDP) {
        rc_udp_bind(engine, call, &address, answer);
        return;
    }
    if (address.sin6_port == 0 && rc_socket_get(call->fd, SOL_SOCKET, SO_REUSEADDR) <= 0 &&
        rc_socket_get(call->fd, SOL_SOCKET, SO_REUSEPORT) <= 0)
        return; /* a client's socket, or one that asked for a port of its own */

    int fd = call->fd, plain = -1;
    if (protocol == IPPROTO_MPTCP) {
        plain = plain_tcp(fd, domain);
        if (plain < 0)
            return;
        fd = plain;
    }
    answer->pass = false;
    answer->result = bind_socket(engine, call, fd, &address);
    if (plain >= 0 && answer->result == 0) {
        answer->replace = plain;
        answer->owned = true;
    } else {
        rc_close(&plain);
    }
}
