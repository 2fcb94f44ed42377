/* sockets.c - reading a socket: options, identity, address, the key of its group.
 *
 * Owns nothing. Invariant: two addresses that the kernel takes for the same are
 * the same bytes here, so that keys compare with memcmp.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1 && (one.revents & POLLIN);
}

unsigned rc_backlog_for(int asked)
{
    static const unsigned enough = 1024;
    unsigned most = 4096, wanted = asked < 0 ? UINT32_MAX : (unsigned)asked;
    FILE *file = fopen("/proc/sys/net/core/somaxconn", "re");
    if (file) {
        if (fscanf(file, "%u", &most) != 1)
            most = 4096;
        fclose(file);
    }
    unsigned least = most < enough ? most : enough;
    return wanted > most ? most : wanted < least ? least : wanted;
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

int rc_key_of(int fd, const struct sockaddr_in6 *address, struct rc_key *key)
{
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return -errno;
    *key = (struct rc_key){.address = *address, .uid = facts.st_uid};
    key->type = rc_socket_get(fd, SOL_SOCKET, SO_TYPE);
    if (address->sin6_family == AF_INET6)
        key->v6only = rc_socket_get(fd, IPPROTO_IPV6, IPV6_V6ONLY);
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
    size_t before = key->type == SOCK_DGRAM ? (size_t)snprintf(out, room, "udp:") : 0;
    rc_address_text(&key->address, out + before, room - before);
}

bool rc_same_place(const struct rc_key *a, const struct rc_key *b)
{
    return memcmp(&a->address, &b->address, sizeof a->address) == 0 && a->v6only == b->v6only &&
           a->device == b->device && a->type == b->type;
}
