/* deaf.c - lanes that their worker has given up, though it lives.
 *
 * Owns the question "does a process of the worker still hold this lane?", and
 * telling of a lane that none holds. Does not own when it is asked: when something
 * is queued (congestion.c), when an offer is not taken (dispatch.c), when a worker
 * says that it leaves, when its heir listens.
 *
 * There is no event for it. close(2) of a worker is not the last one, for we have
 * a duplicate: the lane stays in its group, takes handshakes, and nobody accepts
 * (uvicorn does that when it has served its limit_max_requests). Only
 * shutdown(2) is seen by itself, as HUP.
 *
 * Invariant: a lane is called deaf only if every process of the worker could be
 * looked at, and none has it; where one may not be looked at, nothing changes.
 * Deaf it remains until somebody listens in its place (listen.c, adopt): no
 * process can get it back but by a message from one that we do not know.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>

enum { ARRIVAL_MS = 5000 };

/* In dispatch an end of a pair may lie in the place of the socket. */
static uint64_t inode_of(const struct rc_lane *lane)
{
    return lane->receiver.pair.fd >= 0 ? lane->receiver.inode : lane->inode;
}

/* Where it was when it was last seen, it mostly still is: one system call. */
static bool in_its_place(const struct rc_lane *lane)
{
    return rc_socket_at(lane->pid, lane->descriptor) == inode_of(lane);
}

/* Twice: a process that is forked between the list of processes and the look at
 * its parent is missed, and the parent may have closed its own. */
static int held_by_any(struct rc_lane *lane)
{
    struct rc_flow one = {.inode = (uint32_t)inode_of(lane)};
    struct rc_flows flows = {.all = &one, .count = 1, .room = 1};
    int error = 0;
    for (int looks = 0; looks < 2 && !error && !one.held; looks++)
        error = rc_holders_mark(lane->worker->pid, &flows);
    if (!error && one.held) {
        lane->pid = one.holder;
        lane->descriptor = one.number;
    }
    return error ? error : one.held;
}

/* The shim gets an adopted lane in a message: until it has put it in place no
 * process has it, and connections wait in it already. */
void rc_lane_arrives(struct rc_lane *lane)
{
    lane->arrives_until_ms = rc_now_us() / 1000 + ARRIVAL_MS;
}

/* 1: a process of its worker has it; 0: none has; -errno: it cannot be known. */
int rc_lane_held(struct rc_lane *lane)
{
    if (!lane->worker || lane->worker->dead || lane->worker->pid <= 0)
        return -ESRCH;
    int held = in_its_place(lane) ? 1 : held_by_any(lane);
    if (held == 1)
        lane->arrives_until_ms = 0;
    return held == 0 && lane->arrives_until_ms > rc_now_us() / 1000 ? -EAGAIN : held;
}

static int lanes_left(const struct rc_lane *given_up)
{
    int left = 0;
    for (unsigned at = 0; at < given_up->group->count; at++) {
        const struct rc_lane *lane = given_up->group->lanes[at];
        left += lane != given_up && lane->worker == given_up->worker && !lane->deaf;
    }
    return left;
}

/* Looks, and if it is: it is steered to no more while another lives, and told of.
 * Where a turn has no room to tell, it is for the next look to find out. */
bool rc_lane_is_deaf(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->deaf || engine->text_count == RC_TEXTS || rc_lane_held(lane) != 0)
        return lane->deaf;
    lane->deaf = true;
    rc_lane_calm(lane);             /* and it is not looked at any more */
    if (lane->receiver.pair.fd < 0) /* by edges, and what comes there is the master's to accept */
        (void)rc_source_arm(engine->epoll, &lane->source, 0);
    (void)rc_group_steer(lane->group); /* else the next Live does it */
    rc_emit_key(engine, RC_EVENT_DEAF, lane->worker->id, lanes_left(lane), &lane->group->key);
    rc_group_changed(engine, lane->group);
    return true;
}

/* HUP: the kernel has taken the lane out of its group and reset its queue. */
void rc_lane_shut_down(struct rc_engine *engine, const struct rc_lane *lane)
{
    if (lane->worker && !lane->worker->dead)
        rc_emit_key(engine, RC_EVENT_DEAF, lane->worker->id, lanes_left(lane), &lane->group->key);
}

int rc_deaf(rc_engine *engine, uint32_t id)
{
    unsigned queued = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->worker && lane->worker->id == id && rc_lane_is_deaf(engine, lane))
                queued += rc_lane_waiting(lane);
        }
    return (int)queued;
}

/* While `on`, lanes that nobody holds (of dead workers, and deaf ones) take no
 * more connections, also where there are no others: clients meet the sink. What
 * is queued waits for an heir, and a lane that somebody listens on is chosen at
 * once. Returns how many groups have that address. */
int rc_hold(rc_engine *engine, const char *address, int on)
{
    char text[128];
    int count = 0, first = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        rc_key_text(&group->key, text, sizeof text);
        if (strcmp(text, address) != 0)
            continue;
        group->held = on;
        int error = rc_group_steer(group);
        first = first ? first : error;
        count++;
    }
    return first ? first : count;
}
