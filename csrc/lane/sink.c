/* sink.c - the member of each group that takes nothing.
 *
 * Owns: a listener of the master's own whose accept queue is full, with one
 * connection of the master's own. The kernel drops a SYN for such a listener
 * (tcp_conn_request, sk_acceptq_is_full), so steering to it means: neither
 * refused nor taken, the client tries again in a second. That is what a group
 * needs while no worker may be chosen, and while a removal moves indices.
 *
 * Dropping SYNs by SO_ATTACH_FILTER would be simpler, but on a TCP socket that
 * needs CAP_NET_ADMIN (seen on 6.18; not on older kernels).
 *
 * Invariant: no client's connection ever gets into the sink's queue. It joins a
 * group whose program never returns it, and is filled through a detour that only
 * the master's own source port takes.
 */
#include "internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { FILL_US = 50000 };

static int socket_for(const struct rc_key *key)
{
    int fd =
        socket(key->address.sin6_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (fd < 0)
        return -errno;
    int error = key->address.sin6_family == AF_INET6
                    ? rc_socket_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, key->v6only)
                    : 0;
    if (!error && key->device)
        error = rc_socket_set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, key->device);
    if (error)
        rc_close(&fd);
    return error ? error : fd;
}

/* A listener that joins the group of `lane`, which is of the same address. */
int rc_sibling_listen(const struct rc_key *key, int lane, int backlog)
{
    int fd = socket_for(key);
    if (fd < 0)
        return fd;
    int error = rc_same_network(fd, lane) ? 0 : -EXDEV;
    if (!error && key->uid != geteuid() && fchown(fd, key->uid, (gid_t)-1) < 0)
        error = -errno;
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    /* A client that came while the first lane listened exclusively has a socket
     * without SO_REUSEPORT in the same bucket; this lets ours pass by it. */
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!error &&
        bind(fd, (const struct sockaddr *)&key->address, rc_address_length(&key->address)) < 0)
        error = -errno;
    if (!error && listen(fd, backlog) < 0)
        error = -errno;
    if (error)
        rc_close(&fd);
    return error ? error : fd;
}

/* A client socket of the group's address, bound: its source port is known before it connects. */
static int client(const struct rc_key *key, in_port_t *port, bool shared)
{
    struct rc_key from = *key;
    struct sockaddr_in6 bound;
    int fd = socket_for(&from);
    if (fd < 0)
        return fd;
    from.address.sin6_port = htons(*port);
    int error = shared ? rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1) : 0;
    if (!error &&
        bind(fd, (const struct sockaddr *)&from.address, rc_address_length(&from.address)) < 0)
        error = -errno;
    if (!error)
        error = rc_socket_name(fd, &bound);
    if (error)
        rc_close(&fd);
    else
        *port = ntohs(bound.sin6_port);
    return error ? error : fd;
}

/* From this port (0: from any), which others of ours have had, or have to other addresses. */
int rc_client_at(const struct rc_key *key, in_port_t *port)
{
    return client(key, port, true);
}

/* From a port that nobody else has. */
int rc_sink_client(const struct rc_key *key, in_port_t *port)
{
    *port = 0;
    return client(key, port, false);
}

static bool is_full(int sink)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    return getsockopt(sink, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_unacked > 0;
}

/* Where we can connect to a listener of that address. */
void rc_reachable(const struct rc_key *key, struct sockaddr_in6 *to)
{
    struct sockaddr_in *to4 = (struct sockaddr_in *)(void *)to;
    *to = key->address;
    if (to->sin6_family == AF_INET && to4->sin_addr.s_addr == INADDR_ANY)
        to4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (to->sin6_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&to->sin6_addr))
        to->sin6_addr = in6addr_loopback;
}

/* Connects `client` to the group, whose program sends its port to the sink.
 * Over loopback the handshake is over before connect(2) returns; the wait is
 * for kernels that hand packets to another CPU. */
int rc_sink_fill(int sink, int client, const struct rc_key *key)
{
    struct sockaddr_in6 to;
    rc_reachable(key, &to);
    if (connect(client, (struct sockaddr *)&to, rc_address_length(&to)) < 0 && errno != EINPROGRESS)
        return -errno;
    (void)rc_poll(client, POLLOUT, rc_now_us() + FILL_US);
    return is_full(sink) ? 0 : -ETIMEDOUT;
}
