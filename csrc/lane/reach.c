/* reach.c - a connection of the master's own to one lane of a group, and to no other.
 *
 * Owns: the detour, for the connection's source port, in front of the group's program. It
 * is there while the handshake lasts, which over loopback is one call of connect(2); and the few
 * ports that such connections come from. We are the first to say that we are done, so each leaves
 * a TIME_WAIT, and a port of its own for each would be lost for a minute to all who connect on
 * this machine: a reload of 300 listeners and 16 workers took 4,800 of 28,000.
 *
 * Invariant: one lane of a group has a detour at a time.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { KNOCK_MS = 5 };

bool rc_reach_detour(const struct rc_group *group, unsigned limit, struct rc_detour *out)
{
    if (!group->ringing || group->ringing->index >= limit)
        return false;
    *out = (struct rc_detour){group->ringing->proof.port, group->ringing->index};
    return true;
}

void rc_reach_end(struct rc_lane *lane)
{
    if (lane->group->ringing != lane)
        return;
    lane->group->ringing = NULL;
    lane->group->refused |= rc_group_attach(lane->group, rc_group_members(lane->group)) < 0;
}

/* A server that defers its accepts until there is data would not be woken by a connection
 * on which nothing is said, so for the moment of its handshake it does not. */
static int connect_to(const struct rc_lane *lane, int fd)
{
    struct sockaddr_in6 to;
    int listener = lane->source.fd, error = 0;
    int defers = rc_socket_get(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT);
    rc_reachable(&lane->group->key, &to);
    if (defers > 0)
        (void)rc_socket_set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
    if (connect(fd, (struct sockaddr *)&to, rc_address_length(&to)) < 0 && errno != EINPROGRESS)
        error = -errno;
    if (defers > 0)
        (void)rc_socket_set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, defers);
    return error;
}

/* -EAGAIN: another's handshake lasts, or where the lane is will be known in a moment (order.c).
 * -EXDEV: from here the same address may lead to somebody else. */
static int may_begin(const struct rc_lane *lane)
{
    return lane->group->key.network ? -EXDEV : lane->group->ringing || lane->fresh ? -EAGAIN : 0;
}

/* The descriptor, with a port that no other has (lane->proof.port); or -errno. */
int rc_reach_begin(struct rc_lane *lane)
{
    int error = may_begin(lane);
    return error ? error : rc_sink_client(&lane->group->key, &lane->proof.port);
}

/* With one of the few ports, of which a group is reached from one after the other. */
static int begin_again(struct rc_engine *engine, struct rc_lane *lane)
{
    const struct rc_key *key = &lane->group->key;
    in_port_t *port = &engine->reach_ports[lane->group->reached++ % RC_REACH_PORTS];
    int fd = rc_client_at(key, port);
    if (fd < 0 && *port) { /* somebody else has it now */
        *port = 0;
        fd = rc_client_at(key, port);
    }
    lane->proof.port = *port;
    return fd;
}

/* Begins its handshake. rc_reach_end when it is over, or has failed. */
int rc_reach_go(struct rc_lane *lane, int fd)
{
    struct rc_group *group = lane->group;
    group->ringing = lane;
    int error = rc_group_attach(group, rc_group_members(group));
    return error ? error : connect_to(lane, fd);
}

/* Whether it is over; over loopback it is at once. */
bool rc_reach_over(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    return poll(&one, 1, KNOCK_MS) == 1 && !(one.revents & (POLLERR | POLLHUP));
}

static int go(struct rc_lane *lane, int fd)
{
    int error = fd < 0 ? fd : rc_reach_go(lane, fd);
    if (error < 0 && fd >= 0) {
        rc_close(&fd);
        rc_reach_end(lane);
    }
    return error < 0 ? error : fd;
}

/* Both. Where a connection from that port was there a moment ago (EADDRNOTAVAIL: off loopback
 * one that is over stands in the way for a minute), from one of its own. */
int rc_reach(struct rc_engine *engine, struct rc_lane *lane)
{
    int error = may_begin(lane);
    if (error)
        return error;
    int fd = go(lane, begin_again(engine, lane));
    return fd == -EADDRNOTAVAIL || fd == -EADDRINUSE ? go(lane, rc_reach_begin(lane)) : fd;
}

/* ---- for who has something to ask ------------------------------------------------------ */

/* Of the address that it listened on first. */
static struct rc_lane *first_lane(struct rc_engine *engine, const struct rc_worker *worker)
{
    struct rc_lane *found = NULL;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = group->key.type == SOCK_STREAM ? group->count : 0; at-- > 0;) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->worker && !lane->deaf && rc_lane_held_by(lane, worker))
                found = lane;
        }
    return found;
}

/* A handshake that is not over in one call is waited for as little as the sink's is. In dispatch it
 * is known by what a proof is known by (proof.c): as ours, and for this worker. */
int rc_knock(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    struct rc_lane *lane = worker ? first_lane(engine, worker) : NULL;
    if (!lane)
        return -ENOENT;
    if (rc_proof_pending(lane))
        return -EAGAIN;
    int fd = rc_reach(engine, lane);
    if (fd < 0)
        return fd;
    bool over = rc_reach_over(fd);
    rc_reach_end(lane);
    if (over && engine->dispatch.on)
        over = (lane->proof.client.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) >= 0;
    if (!over)
        rc_close(&fd);
    return over ? fd : -EAGAIN;
}

void rc_knock_end(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    for (struct rc_group *group = engine->groups; group && worker; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (rc_proof_pending(lane) && !lane->proof.waits && rc_lane_held_by(lane, worker))
                rc_proof_end(engine, lane);
        }
}
