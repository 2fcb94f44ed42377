/* udp.c - what a bind(2) of a UDP socket becomes: a lane, at once.
 *
 * Owns the decision. There is no listen: the bind makes the lane, and where a
 * predecessor has died, its socket is put in place, with what waits in it.
 *
 * Invariants:
 *  - we bind what the process could bind itself (rights.c), or what the cluster was given
 *    for its workers; anything else is the kernel's to refuse;
 *  - what a client does is not touched. Port 0, multicast and broadcast addresses are the
 *    kernel's alone; many processes may want those.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static bool for_many(const struct sockaddr_in6 *address)
{
    if (address->sin6_family == AF_INET6)
        return address->sin6_addr.s6_addr[0] == 0xff;
    in_addr_t host = ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
    return IN_MULTICAST(ntohl(host)) || host == INADDR_BROADCAST;
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

int rc_udp_bind_next(int fd, const struct sockaddr_in6 *address)
{
    int reuse = rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR);
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* connected ones: udpside.c */
    if (!error && bind(fd, (const struct sockaddr *)address, rc_address_length(address)) < 0)
        error = -errno;
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, reuse);
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
    error = rc_group_append(engine, group, lane);
    if (error)
        goto fail;
    int reuse = rc_socket_get(fd, SOL_SOCKET, SO_REUSEPORT) > 0;
    error = group->count == 1 ? bind_first(fd, &key->address, call->worker->slot)
                              : rc_udp_bind_next(fd, &key->address);
    if (error == -EADDRINUSE && group->count == 1 && reuse && rc_udp_all_own(engine, call, key)) {
        int address = rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR);
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        error = bind_first(fd, &key->address, call->worker->slot);
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, address);
    }
    if (error) {
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, reuse);
        rc_group_retract(engine, group, lane);
        goto fail;
    }
    /* Not in the epoll set: an unhashed UDP socket hangs up on nobody. */
    lane->source.fd = fd;
    rc_udp_look_soon(engine);
    (void)rc_group_steer(group);
    return 0;
fail:
    if (group)
        rc_group_free_if_empty(engine, group);
    rc_close(&fd);
    free(lane);
    return error;
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
        (void)rc_lane_vacate(engine, lane);
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
    if (address->sin6_port == 0 || for_many(address) ||
        rc_key_of(call->fd, engine->network, address, &key) < 0)
        return;
    /* A bind that was answered, but whose answer a signal took away (before
     * Linux 5.19), comes again. To one that is bound otherwise the kernel says so. */
    if (asked_again(call, rc_lane_find(engine, rc_socket_inode(call->fd)), &key)) {
        answer->pass = false;
        return;
    }
    int error = rc_socket_name(call->fd, &bound);
    struct rc_group *group = rc_group_find(engine, &key);
    bool given = group && group->lanes[0]->inherited;
    bool stranger = group && group->key.uid != key.uid; /* the kernel makes no group of them */
    if (!error && (bound.sin6_port || (!given && (stranger || !rc_may_bind(engine, call, &key)))))
        return;
    answer->pass = false;
    answer->result = error;
    if (error)
        return;
    if (group) /* those of one peer each get out of the way of who is bound next */
        rc_udp_look(engine, group, false);
    forget_closed(engine, call, &key);
    group = rc_group_find(engine, &key); /* it may have gone with its last lane */
    if (group && rc_udp_side(engine, call, group, answer))
        return;
    if (group)
        rc_udp_look(engine, group, true);
    struct rc_lane *orphan = rc_orphan_for(engine, call->worker, &key);
    if (orphan)
        rc_udp_leave_groups(orphan->source.fd);
    if (orphan)
        answer->result = rc_adopt(engine, call, orphan, false, answer);
    else
        answer->result = lane_new(engine, call, &key);
    if (answer->result == 0)
        rc_emit_key(engine, RC_EVENT_LISTENING, call->worker->id, true, &key);
}

const struct rc_part rc_udp_part = {.datagram_binds = rc_udp_bind,
                                    .datagram_connects = rc_udp_connects};
