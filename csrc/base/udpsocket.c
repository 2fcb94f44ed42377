/* udpsocket.c - what a UDP socket is, and making it as good as new. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

/* A server may give each peer a socket of its own, on the same port: bound with
 * SO_REUSEPORT, then connected. The kernel finds it by its peer. */
bool rc_udp_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
}

/* What the last one joined, the next one will join: the second time is an error. */
void rc_udp_leave_groups(int fd)
{
    char line[256], name[64];
    unsigned index = 0, address;
    FILE *file = fopen("/proc/net/igmp", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (*line != '\t') { /* an interface, with its groups on the lines behind it */
            (void)sscanf(line, "%u", &index);
            continue;
        }
        if (sscanf(line, " %x", &address) != 1)
            continue;
        struct ip_mreqn member = {.imr_ifindex = (int)index};
        member.imr_multiaddr.s_addr = address; /* in network order, as a number of ours */
        (void)setsockopt(fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &member, sizeof member);
    }
    if (file)
        fclose(file);
    file = fopen("/proc/net/igmp6", "re");
    while (file && fgets(line, sizeof line, file)) {
        struct ipv6_mreq member = {0};
        char hex[33];
        if (sscanf(line, "%u %63s %32s", &index, name, hex) != 3 || strlen(hex) != 32)
            continue;
        for (size_t at = 0; at < 16; at++)
            if (sscanf(hex + 2 * at, "%2hhx", &member.ipv6mr_multiaddr.s6_addr[at]) != 1)
                break;
        member.ipv6mr_interface = index;
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, &member, sizeof member);
    }
    if (file)
        fclose(file);
}

/* Nobody reads any more what came for the last one. */
void rc_udp_empty(int fd)
{
    char byte;
    for (int most = 0; most < 100000; most++)
        if (recv(fd, &byte, sizeof byte, MSG_DONTWAIT | MSG_TRUNC) < 0)
            break;
}

/* Any new hash takes a socket out of the kernel's group, also that of the device it has.
 * And the next that is bound must not be put in a group with this one: the kernel takes the
 * first that has SO_REUSEPORT and the address, and since 6.13 one that is connected too. */
void rc_udp_ungroup(int fd)
{
    if (rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1) == 0)
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 0);
    int device = rc_socket_get(fd, SOL_SOCKET, SO_BINDTOIFINDEX);
    if (device >= 0)
        (void)rc_socket_set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, device);
}

/* Others may have it still (systemd's store), and a shutdown does not take it out of the kernel's
 * tables, as it does with a listener. Connected to itself it gets nothing any more. */
void rc_udp_retire(int fd, const struct sockaddr_in6 *itself)
{
    rc_udp_ungroup(fd);
    (void)connect(fd, (const struct sockaddr *)itself, rc_address_length(itself));
}
