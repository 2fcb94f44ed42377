/* udp.c - what a bind(2) of a UDP socket becomes: a lane, at once.
 *
 * Owns the decision. There is no listen: the bind makes the lane, and where a
 * predecessor has died, its socket is put in place, with what waits in it.
 *
 * Invariant: what a client does is not touched. Port 0, multicast and broadcast
 * addresses are the kernel's alone; many processes may want those.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool for_many(const struct sockaddr_in6 *address)
{
    if (address->sin6_family == AF_INET6)
        return address->sin6_addr.s6_addr[0] == 0xff;
    in_addr_t host = ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
    return IN_MULTICAST(ntohl(host)) || host == INADDR_BROADCAST;
}

/* Something can be read, a datagram of no bytes too. */
bool rc_socket_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) == 1 && (one.revents & POLLIN);
}

/* A server may give each peer a socket of its own, on the same port: bound with
 * SO_REUSEPORT, then connected. The kernel finds it by its peer. */
bool rc_udp_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
}

/* The kernel's group has to be there before anybody may join: attached before
 * the bind, it is made for a socket that is not in the tables yet. After that
 * SO_REUSEPORT is off for the bind, which is exclusive, as in bind.c. */
static int bind_first(int fd, const struct sockaddr_in6 *address, uint32_t slot)
{
    struct rc_choice only = {.slot = slot, .weight = 1};
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_udp_attach(fd, &only, 1);
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 0);
    if (!error && bind(fd, (const struct sockaddr *)address, rc_address_length(address)) < 0)
        error = -errno;
    return error ? error : rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

static int bind_next(int fd, const struct sockaddr_in6 *address)
{
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error && bind(fd, (const struct sockaddr *)address, rc_address_length(address)) < 0)
        error = -errno;
    return error;
}

static int lane_new(struct rc_engine *engine, const struct rc_call *call, const struct rc_key *key)
{
    struct rc_group *group = rc_group_find(engine, key);
    struct rc_lane *lane = calloc(1, sizeof *lane);
    int fd = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    int error = fd < 0 ? -errno : -ENOMEM;
    if (!group)
        group = rc_group_new(engine, key);
    if (!lane || !group || fd < 0)
        goto fail;
    lane->source.fd = -1;
    rc_lane_init(lane);
    lane->worker = call->worker;
    lane->pid = call->pid;
    lane->descriptor = call->number;
    lane->inode = rc_socket_inode(fd);
    error = rc_group_append(group, lane);
    if (error)
        goto fail;
    int reuse = rc_socket_get(fd, SOL_SOCKET, SO_REUSEPORT) > 0;
    error = group->count == 1 ? bind_first(fd, &key->address, call->worker->slot)
                              : bind_next(fd, &key->address);
    if (error) {
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, reuse);
        group->count--;
        goto fail;
    }
    /* Not in the epoll set: an unhashed UDP socket hangs up on nobody. */
    lane->source.fd = fd;
    (void)rc_group_steer(group);
    return 0;
fail:
    if (group)
        rc_group_free_if_empty(engine, group);
    rc_close(&fd);
    free(lane);
    return error;
}

/* What the last one joined, the next one will join: the second time is an error. */
static void leave_groups(int fd)
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

/* Its worker is gone. A removal moves the last lane to another index, and while
 * it moves no program is right: its flows would meet another worker. So a lane
 * becomes nobody's, with nothing in it, and is the next one's that binds; it is
 * removed when it is the last. */
int rc_udp_vacate(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    char byte;
    struct rc_worker *nobody = rc_nobody(engine);
    if (!nobody)
        return -ENOMEM;
    lane->worker = nobody;
    lane->deaf = false;
    leave_groups(lane->source.fd);
    for (int most = 0; most < 100000; most++)
        if (recv(lane->source.fd, &byte, sizeof byte, MSG_DONTWAIT | MSG_TRUNC) < 0)
            break;
    (void)rc_group_steer(group);
    for (unsigned last = group->count; last-- > 0;) {
        struct rc_lane *tail = group->lanes[last];
        if (tail->worker != engine->nobody || tail->inherited || rc_lane_remove(engine, tail) < 0)
            break;
    }
    return 0;
}

/* A process that opens and closes the port again and again leaves no lane
 * behind each time: the kernel knows which are still open. */
static void forget_closed(struct rc_engine *engine, const struct rc_call *call,
                          const struct rc_key *key)
{
    struct rc_group *group = rc_group_find(engine, key);
    for (unsigned at = group ? group->count : 0; at-- > 0;) {
        struct rc_lane *lane = group->lanes[at];
        if (lane->worker != call->worker || lane->pid != call->pid || rc_lane_held(lane) != 0)
            continue;
        (void)rc_udp_vacate(engine, lane);
        return; /* the group may have gone with it; one at a time is enough */
    }
}

static bool asked_again(const struct rc_call *call, const struct rc_lane *lane,
                        const struct rc_key *key)
{
    return lane && lane->worker == call->worker && rc_same_place(&lane->group->key, key);
}

void rc_udp_bind(struct rc_engine *engine, const struct rc_call *call,
                 const struct sockaddr_in6 *address, struct rc_answer *answer)
{
    struct rc_key key;
    struct sockaddr_in6 bound;
    if (address->sin6_port == 0 || for_many(address) || rc_key_of(call->fd, address, &key) < 0)
        return;
    /* A bind that was answered, but whose answer a signal took away (before
     * Linux 5.19), comes again. To one that is bound otherwise the kernel says so. */
    if (asked_again(call, rc_lane_find(engine, rc_socket_inode(call->fd)), &key)) {
        answer->pass = false;
        return;
    }
    int error = rc_socket_name(call->fd, &bound);
    if (!error && bound.sin6_port)
        return;
    answer->pass = false;
    answer->result = error;
    if (error)
        return;
    forget_closed(engine, call, &key);
    struct rc_group *group = rc_group_find(engine, &key);
    struct rc_lane *orphan = rc_orphan_for(engine, call->worker, &key);
    if (group && group->key.uid != key.uid &&
        fchown(call->fd, group->key.uid, (gid_t)-1) == 0) /* siblings must be of one user */
        key.uid = group->key.uid;
    if (orphan)
        leave_groups(orphan->source.fd);
    if (orphan)
        answer->result = rc_adopt(engine, call, orphan, false, answer);
    else
        answer->result = lane_new(engine, call, &key);
    if (answer->result == 0)
        rc_emit_key(engine, RC_EVENT_LISTENING, call->worker->id, true, &key);
}
