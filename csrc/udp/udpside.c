/* udpside.c - further UDP sockets of a worker, on an address where it has a lane.
 *
 * Owns: what is known of them. Mostly such a socket is connected to one peer at once, and
 * closed when that has gone (DTLS, QUIC). A duplicate of ours would outlive it: what the
 * peer sends next would be that dead socket's, and nobody's. So none is kept. It joins the
 * kernel's group, for else it would get everything until it is connected, and is not
 * steered to. If it turns out to be there for all (a server with a socket for each thread)
 * it becomes a lane.
 *
 * Invariants:
 *  - in the kernel's group they are behind the lanes: before another lane is appended, they
 *    are looked at, and are lanes too, or gone;
 *  - a connected socket is none of the group: the kernel takes it out when it is connected
 *    (since Linux 6.13; before, where it was bound to all addresses), or we do, before
 *    another is bound.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { SOON_US = 50000, LATER_US = 1000000 };

/* There may be connected lanes: one that is all its worker has, or that was slow. */
void rc_udp_look_soon(struct rc_engine *engine)
{
    int64_t at = engine->alarm.at[RC_ALARM_SIDES];
    engine->udp_bound_at = rc_now_us();
    if (!at || at > engine->udp_bound_at + SOON_US)
        rc_alarm_set(engine, RC_ALARM_SIDES, engine->udp_bound_at + SOON_US);
}

/* ---- what became of them ------------------------------------------------------------ */

/* Our duplicate if it is there for all; -1: closed, or connected. */
static int side_take(struct rc_engine *engine, const struct rc_aside *side)
{
    struct rc_worker *worker = rc_find(engine, side->worker);
    int fd = worker ? rc_take_descriptor(worker, side->pid, side->number) : -1;
    if (fd < 0 || rc_socket_inode(fd) != side->inode) {
        rc_close(&fd);
    } else if (rc_udp_connected(fd)) {
        rc_udp_ungroup(fd);
        rc_close(&fd);
    }
    return fd < 0 ? -1 : fd;
}

static int side_becomes_lane(struct rc_engine *engine, struct rc_group *group,
                             const struct rc_aside *side, int fd)
{
    struct rc_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return -ENOMEM;
    rc_lane_init(lane);
    lane->worker = rc_find(engine, side->worker);
    lane->pid = side->pid;
    lane->descriptor = side->number;
    lane->inode = side->inode;
    int error = rc_group_append(engine, group, lane);
    if (error) {
        free(lane);
        return error;
    }
    lane->source.fd = fd;
    rc_emit_key(engine, RC_EVENT_LISTENING, side->worker, true, &group->key);
    return 0;
}

/* As the kernel: the last moves into the place of one that goes. In which order they went
 * is not known; those that stay are of one worker, mostly, and alike. Unless `young`, one
 * that was bound just now may still be connected, and so those behind it wait too. */
static void look_at_sides(struct rc_engine *engine, struct rc_group *group, bool young)
{
    int stays[RC_ASIDES_MAX];
    int64_t old = rc_now_us() - SOON_US;
    unsigned grown = 0, kept = 0;
    for (unsigned at = group->aside_count; at-- > 0;) {
        stays[at] = side_take(engine, &group->asides[at]);
        if (stays[at] < 0) {
            group->asides[at] = group->asides[--group->aside_count];
            stays[at] = stays[group->aside_count];
        }
    }
    while (grown < group->aside_count && (young || group->asides[grown].bound_at <= old) &&
           side_becomes_lane(engine, group, &group->asides[grown], stays[grown]) == 0)
        grown++;
    for (unsigned at = grown; at < group->aside_count; at++) {
        rc_close(&stays[at]);
        group->asides[kept++] = group->asides[at];
    }
    group->aside_count = kept;
    if (grown)
        (void)rc_group_steer(group);
}

/* Before a lane is appended; `young`: then all that stay have to be lanes too. The group
 * may go with its last lane. */
void rc_udp_look(struct rc_engine *engine, struct rc_group *group, bool young)
{
    look_at_sides(engine, group, young);
    for (unsigned at = group->count; at-- > 0;) {
        struct rc_lane *lane = group->lanes[at];
        bool last = group->count == 1;
        if (lane->inherited || !rc_udp_connected(lane->source.fd))
            continue;
        rc_udp_ungroup(lane->source.fd);
        rc_lane_forget(engine, lane);
        if (last)
            return;
    }
}

/* The preload library tells of it at once. Where we may not look into the process later
 * (can_be_seen) it had to become a lane. */
void rc_udp_connects(struct rc_engine *engine, const struct rc_call *call)
{
    struct rc_lane *lane = rc_lane_find(engine, rc_socket_inode(call->fd));
    if (lane && lane->group->key.type == SOCK_DGRAM)
        rc_udp_look(engine, lane->group, false);
}

void rc_udp_alarm(struct rc_engine *engine)
{
    int64_t now = rc_now_us();
    bool some = false;
    for (struct rc_group *group = engine->groups, *next; group; group = next) {
        next = group->next;
        some |= group->aside_count > 0;
        if (group->key.type == SOCK_DGRAM)
            rc_udp_look(engine, group, false);
    }
    if (some || now < engine->udp_bound_at + LATER_US)
        rc_alarm_set(engine, RC_ALARM_SIDES,
                     some ? now + SOON_US : engine->udp_bound_at + LATER_US);
}

/* ---- binding one ----------------------------------------------------------------- */

static bool has_lane(const struct rc_group *group, const struct rc_worker *worker)
{
    for (unsigned at = 0; group && at < group->count; at++)
        if (group->lanes[at]->worker == worker && rc_lane_held(group->lanes[at]) != 0)
            return true;
    return false;
}

/* We must be able to see later what has become of it. */
static bool can_be_seen(const struct rc_call *call)
{
    int fd = rc_take_descriptor(call->worker, call->pid, call->number);
    bool can = fd >= 0;
    rc_close(&fd);
    return can;
}

/* Whether it is one, and bound or refused. */
bool rc_udp_side(struct rc_engine *engine, const struct rc_call *call, struct rc_group *group,
                 struct rc_answer *answer)
{
    if (!has_lane(group, call->worker) || !can_be_seen(call))
        return false;
    if (rc_socket_get(call->fd, SOL_SOCKET, SO_REUSEPORT) <= 0 &&
        rc_socket_get(call->fd, SOL_SOCKET, SO_REUSEADDR) <= 0) {
        answer->pass = true; /* the kernel refuses it, as ever */
        return true;
    }
    look_at_sides(engine, group, false);
    if (group->aside_count == RC_ASIDES_MAX)
        look_at_sides(engine, group, true);
    answer->result = rc_udp_bind_next(call->fd, &group->key.address);
    if (answer->result == 0)
        group->asides[group->aside_count++] = (struct rc_aside){
            .worker = call->worker->id,
            .pid = call->pid,
            .number = call->number,
            .inode = rc_socket_inode(call->fd),
            .bound_at = rc_now_us(),
        };
    rc_udp_look_soon(engine);
    return true;
}

/* Whether all that is bound to the port is this worker's: sockets for one peer each, that it
 * still has when it has closed its lane and binds another. */
bool rc_udp_all_own(struct rc_engine *engine, const struct rc_call *call, const struct rc_key *key)
{
    const struct sockaddr_in6 *address = &key->address;
    struct rc_flows flows = {0};
    int error = key->network
                    ? -EXDEV
                    : rc_diag_udp(engine, address->sin6_family, address->sin6_port, &flows);
    rc_flows_once(&flows);
    if (!error)
        error = rc_holders_mark(call->worker->pid, &flows);
    bool own = !error;
    for (size_t at = 0; at < flows.count; at++)
        own &= flows.all[at].held;
    rc_flows_free(&flows);
    return own;
}
