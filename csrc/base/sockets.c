/* sockets.c - reading a socket: options, identity, address, the key of its group.
 *
 * Owns nothing. Invariant: two addresses that the kernel takes for the same are
 * the same bytes here, so that keys compare with memcmp.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE /* Linux 5.14 */
#define SO_NETNS_COOKIE 71
#endif

int rc_socket_get(int fd, int level, int name)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) < 0 ? -errno : value;
}

int rc_socket_set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* Something can be read, a datagram of no bytes too. */
bool rc_socket_readable(int fd)
{
    int ready = rc_poll(fd, POLLIN, 0);
    return ready > 0 && (ready & POLLIN);
}

/* Below that the kernel cuts it to what net.core.somaxconn allows. */
unsigned rc_backlog_for(int asked)
{
    enum { ENOUGH = 1024 };
    return asked < 0 ? INT_MAX : asked < ENOUGH ? ENOUGH : (unsigned)asked;
}

/* The backlog is the description's, and may only grow: any listen(2) sets it. */
int rc_widen(int listener, unsigned *backlog, int asked)
{
    unsigned wanted = rc_backlog_for(asked);
    if (wanted <= *backlog)
        return 0;
    if (listen(listener, (int)wanted) < 0)
        return -errno;
    *backlog = wanted;
    return 0;
}

/* The network namespace that it is in, by a number that is never given again. */
int rc_socket_network(int fd, uint64_t *cookie)
{
    socklen_t length = sizeof *cookie;
    *cookie = 0;
    return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &length) < 0 ? -errno : 0;
}

bool rc_same_network(int one, int other)
{
    uint64_t here, there;
    return rc_socket_network(one, &here) == 0 && rc_socket_network(other, &there) == 0 &&
           here == there;
}

uint64_t rc_socket_inode(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) < 0 ? 0 : facts.st_ino;
}

/* The address in one rc_address_canonical form, so that keys compare by bytes: a
 * sockaddr_in without its padding, a sockaddr_in6 without its flow label. */
int rc_address_canonical(const struct sockaddr_in6 *from, socklen_t length,
                         struct sockaddr_in6 *out)
{
    memset(out, 0, sizeof *out);
    if (from->sin6_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        memcpy(out, from, offsetof(struct sockaddr_in, sin_zero));
        return 0;
    }
    if (from->sin6_family == AF_INET6 && length >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
        memcpy(out, from, length < sizeof *out ? length : sizeof *out);
        out->sin6_flowinfo = 0;
        return 0;
    }
    return -EAFNOSUPPORT;
}

int rc_socket_name(int fd, struct sockaddr_in6 *out)
{
    struct sockaddr_in6 raw;
    socklen_t length = sizeof raw;
    memset(&raw, 0, sizeof raw);
    if (getsockname(fd, (struct sockaddr *)&raw, &length) < 0)
        return -errno;
    return rc_address_canonical(&raw, length, out);
}

/* Of IPv6, whether IPv4 clients come too: the kernel decides by the address at bind,
 * but for the unspecified one. */
static int only_v6(int fd, const struct sockaddr_in6 *address)
{
    if (address->sin6_family != AF_INET6)
        return 0;
    if (!IN6_IS_ADDR_UNSPECIFIED(&address->sin6_addr))
        return !IN6_IS_ADDR_V4MAPPED(&address->sin6_addr);
    return rc_socket_get(fd, IPPROTO_IPV6, IPV6_V6ONLY);
}

/* `home`: the master's own network. */
int rc_key_of(int fd, uint64_t home, const struct sockaddr_in6 *address, struct rc_key *key)
{
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return -errno;
    *key = (struct rc_key){.address = *address, .uid = facts.st_uid};
    int error = rc_socket_network(fd, &key->network);
    if (error)
        return error;
    if (key->network == home)
        key->network = 0;
    key->type = rc_socket_get(fd, SOL_SOCKET, SO_TYPE);
    if (key->type < 0)
        return key->type;
    key->v6only = only_v6(fd, address);
    if (key->v6only < 0)
        return key->v6only;
    int device = rc_socket_get(fd, SOL_SOCKET, SO_BINDTOIFINDEX);
    key->device = device > 0 ? device : 0;
    return 0;
}

/* sin_port and sin6_port are at the same offset. */
_Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
               "ports at different offsets");

socklen_t rc_address_length(const struct sockaddr_in6 *address)
{
    return address->sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof *address;
}

void rc_address_text(const struct sockaddr_in6 *address, char *out, size_t room)
{
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = ntohs(address->sin6_port);
    if (address->sin6_family == AF_INET) {
        const unsigned char *byte =
            (const unsigned char *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
        snprintf(out, room, "%u.%u.%u.%u:%u", byte[0], byte[1], byte[2], byte[3], port);
        return;
    }
    inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof host);
    snprintf(out, room, "[%s]:%u", host, port);
}

void rc_key_text(const struct rc_key *key, char *out, size_t room)
{
    size_t before = 0;
    if (key->network) /* what is not reached from here is not the same address */
        before = (size_t)snprintf(out, room, "netns:%llu:", (unsigned long long)key->network);
    if (key->type == SOCK_DGRAM)
        before += (size_t)snprintf(out + before, room - before, "udp:");
    rc_address_text(&key->address, out + before, room - before);
}

bool rc_same_place(const struct rc_key *a, const struct rc_key *b)
{
    return memcmp(&a->address, &b->address, sizeof a->address) == 0 && a->v6only == b->v6only &&
           a->device == b->device && a->type == b->type && a->network == b->network;
}
