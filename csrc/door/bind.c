/* bind.c - what a bind(2) of a worker becomes: for TCP, what the kernel says to it.
 *
 * Owns what is set on a TCP socket before; pending.c remembers it, and at listen
 * (listen.c) the lane is made from what the kernel did. So no port and no address is
 * ever lent: rights, Landlock and namespaces are those of the process itself, and what
 * its memory says to us need not be what it says to the kernel.
 *
 * Invariant: the first of a group binds without SO_REUSEPORT where somebody foreign
 * listens, a second cluster too: EADDRINUSE. Only who has a sibling there gets it, and so
 * does the sibling.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* An MPTCP listener refuses the steering program; a plain TCP one serves the same
 * clients (they fall back, RFC 8684 section 3.7). It has to be what theirs is: of their
 * user and network, else there is none. */
static int plain_tcp(int fd, int domain)
{
    struct stat theirs;
    int flags = fcntl(fd, F_GETFL);
    int plain = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    int error = plain < 0 ? -errno : 0;
    if (!error && !rc_same_network(plain, fd))
        error = -EXDEV;
    if (!error && (fstat(fd, &theirs) < 0 ||
                   (theirs.st_uid != geteuid() && fchown(plain, theirs.st_uid, theirs.st_gid) < 0)))
        error = -errno;
    if (error) {
        rc_close(&plain);
        return error;
    }
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

/* Whether anybody listens at that port already; true also where it is not known. */
bool rc_place_taken(struct rc_engine *engine, const struct rc_key *key)
{
    struct rc_flows found = {0};
    int error = key->network ? -EXDEV : 0;
    for (unsigned at = 0; !error && at < 2; at++)
        error = rc_diag_dump(engine, at ? AF_INET6 : AF_INET, &key->address.sin6_port, 1,
                             1 << TCP_LISTEN, &found);
    bool taken = error || found.count;
    rc_flows_free(&found);
    return taken;
}

static void prepare(struct rc_engine *engine, const struct rc_call *call, int fd,
                    const struct sockaddr_in6 *address, struct rc_answer *answer)
{
    struct rc_pending pending = {.pid = call->pid, .fd = call->number};
    struct rc_pending *before;
    struct rc_group *group = NULL;

    pending.inode = rc_socket_inode(fd);
    before = rc_pending_find(call->worker, pending.inode);
    if (before) { /* the kernel has refused the one before; this is another try */
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, before->reuse_address);
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, before->reuse_port);
        rc_pending_delete(call->worker, (unsigned)(before - call->worker->pending));
    }
    pending.reuse_address = rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR) > 0;
    pending.reuse_port = rc_socket_get(fd, SOL_SOCKET, SO_REUSEPORT) > 0;
    pending.zero = address->sin6_port == 0;
    if (rc_key_of(fd, engine->network, address, &pending.key) < 0)
        return;
    if (!pending.zero) {
        rc_inherited_fit(engine, fd, &pending.key);
        group = rc_group_find(engine, &pending.key);
        /* Connections of the first lane may lack SO_REUSEPORT (sink.c). */
        if (rc_pending_share(engine, call->worker, &pending.key) || group) {
            (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
            (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        } else if (pending.reuse_port && rc_place_taken(engine, &pending.key)) {
            (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 0); /* a foreign one's */
        }
        answer->share = true;
    }
    if (!group && !pending.zero)
        rc_unclaimed_in_the_way(engine, call->worker->id, &pending.key);
    /* What the cluster was given for its workers (--bind, LISTEN_FDS), or allows them, is theirs,
     * whether they could bind it themselves or not. */
    if ((group && group->lanes[0]->inherited) || rc_is_allowed(engine, &pending.key)) {
        pending.given = true;
        answer->pass = false;
        if (bind(fd, (const struct sockaddr *)address, rc_address_length(address)) < 0)
            answer->result = -errno;
    }
    if (answer->result == 0)
        rc_pending_add(call->worker, &pending);
}

void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    struct sockaddr_in6 address, bound;
    const struct rc_pending *before;
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
        rc_datagram_binds(engine, call, &address, answer);
        return;
    }
    if (rc_socket_name(call->fd, &bound) == 0 && bound.sin6_port) {
        /* The kernel will say that it is bound; but our own answer may have been lost to
         * a signal (before Linux 5.19), and then the call comes again. */
        before = rc_pending_find(call->worker, rc_socket_inode(call->fd));
        answer->pass = !before || !before->given || memcmp(&bound, &address, sizeof bound) != 0;
        return;
    }
    if (address.sin6_port == 0 && rc_socket_get(call->fd, SOL_SOCKET, SO_REUSEADDR) <= 0 &&
        rc_socket_get(call->fd, SOL_SOCKET, SO_REUSEPORT) <= 0)
        return; /* a client's socket, or one that asked for a port of its own */

    int fd = call->fd;
    if (protocol == IPPROTO_MPTCP) {
        fd = plain_tcp(call->fd, domain);
        if (fd < 0)
            return; /* without a lane: the worker's own */
        answer->replace = fd;
        answer->owned = true;
    }
    prepare(engine, call, fd, &address, answer);
}
