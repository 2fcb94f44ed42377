/* handout.c - what waits in a lane from which nobody takes goes to siblings, at once.
 *
 * Owns: whose queues are handed out (of the dead, of those who have given their lane up or
 * were given up themselves), and to whom. Does not own how (ring.c).
 *
 * A connection is taken out of such a queue when a sibling asks for one. So where nobody can
 * receive it waits for an heir, as it ever did, and an heir that comes first has it all.
 *
 * Invariants:
 *  - the master never waits in accept(2): it takes only what is there, from a description
 *    that does not block, and makes only that of a lane without a process so;
 *  - a lane that is handed out is armed while nothing waits in it, and else has bells rung
 *    for what does;
 *  - by address (source_ip) a client has one worker: those lanes are kept for its heir.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MOST = 64,     /* bells of one group at a time */
    LATE_MOST = 8, /* of one worker that were not asked for in time: it is no receiver then */
};

static bool has_no_process(const struct rc_lane *lane)
{
    return rc_lane_all_dead(lane) || lane->deaf;
}

/* One that lives may take what we are about to take, and then a description that blocks would
 * have us wait. */
static bool is_orphan(const struct rc_lane *lane)
{
    if (!lane->worker || lane->removing || lane->group->key.type != SOCK_STREAM)
        return false;
    if (has_no_process(lane))
        return true;
    int flags = lane->worker->given_up && !lane->others ? fcntl(lane->source.fd, F_GETFL) : 0;
    return flags > 0 && flags & O_NONBLOCK;
}

static bool is_receiver(const struct rc_lane *lane)
{
    return lane->worker && lane->worker->receives && !lane->worker->dead && !lane->deaf &&
           !lane->worker->given_up && !lane->pressure.hung && rc_lane_level(lane) == RC_LEVEL_LIVE;
}

struct tally {
    unsigned fresh, late;
};

static bool brings(const struct rc_ring *ring)
{
    return !ring->barrier && !ring->asks;
}

static struct tally count_rings(const struct rc_engine *engine, const struct rc_group *group,
                                const struct rc_lane *lane)
{
    struct tally tally = {0, 0};
    for (const struct rc_ring *ring = engine->rings.all; ring; ring = ring->next)
        if (!ring->caller && !ring->withdrawn && brings(ring) &&
            (lane ? ring->lane == lane : ring->lane->group == group)) {
            tally.fresh += !ring->late;
            tally.late += ring->late;
        }
    return tally;
}

static bool is_in_time(const struct rc_engine *engine, const struct rc_lane *lane)
{
    return count_rings(engine, lane->group, lane).late < LATE_MOST;
}

static bool has_receiver(const struct rc_engine *engine, const struct rc_group *group)
{
    for (unsigned at = 0; at < group->count; at++)
        if (is_receiver(group->lanes[at]) && is_in_time(engine, group->lanes[at]))
            return true;
    return false;
}

/* Of those that steering chooses, else of all that live, the one with the fewest bells for
 * its part. NULL: nobody can receive. */
static struct rc_lane *receiver_of(const struct rc_engine *engine, const struct rc_group *group)
{
    struct rc_lane *best = NULL;
    double least = 0;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (!is_receiver(lane))
            continue;
        struct tally rings = count_rings(engine, group, lane);
        double load = (rings.fresh + 2 * rings.late + (unsigned)rc_lane_waiting(lane) + 1) /
                      rc_lane_weight(lane);
        if (rings.late >= LATE_MOST)
            continue;
        if (!best || lane->chosen > best->chosen || (lane->chosen == best->chosen && load < least))
            best = lane, least = load;
    }
    return best;
}

/* Whether somebody serves there, and nobody who does could ever be given what is out of its queue.
 * Who is late now (busy, or stopped), or not there yet, takes it later. */
static bool is_in_vain(const struct rc_group *group)
{
    bool serves = false;
    for (unsigned at = 0; at < group->count; at++) {
        const struct rc_lane *lane = group->lanes[at];
        if (!lane->worker || has_no_process(lane) || rc_lane_level(lane) != RC_LEVEL_LIVE)
            continue;
        if (lane->worker->receives)
            return false;
        serves = true;
    }
    return serves;
}

/* Whether somebody who serves there receives: one who is late now (busy) does so in a moment. */
bool rc_handout_can(const struct rc_group *group)
{
    for (unsigned at = 0; at < group->count; at++)
        if (is_receiver(group->lanes[at]))
            return true;
    return false;
}

static bool is_handed_out(const struct rc_engine *engine, const struct rc_group *group)
{
    return engine->rings.page && !group->front && group->policy != RC_BALANCE_SOURCE_IP;
}

/* Whether a connection that comes to it is for others. */
bool rc_handout_watches(const struct rc_engine *engine, const struct rc_lane *lane)
{
    return is_handed_out(engine, lane->group) && is_orphan(lane) &&
           has_receiver(engine, lane->group);
}

/* ---- taking -------------------------------------------------------------------------------- */

static bool is_ours(struct rc_engine *engine, const struct rc_lane *lane,
                    const struct rc_accepted *accepted)
{
    struct rc_ring *ring = rc_ring_named(engine, &accepted->peer);
    if (ring && ring->lane == lane && !ring->caller)
        rc_ring_end(engine, ring);
    return ring || rc_proof_is(lane, accepted);
}

/* A client that has gone meanwhile needs no worker. */
static bool is_gone(const struct rc_accepted *accepted)
{
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    return getpeername(accepted->fd, (struct sockaddr *)&peer, &length) < 0;
}

static bool take_from(struct rc_engine *engine, struct rc_lane *lane, struct rc_accepted *out)
{
    int flags = fcntl(lane->source.fd, F_GETFL);
    if (flags < 0 ||
        (!(flags & O_NONBLOCK) && fcntl(lane->source.fd, F_SETFL, flags | O_NONBLOCK) < 0))
        return false;
    for (unsigned queued = rc_lane_queued(lane, NULL); queued > 0; queued--) {
        *out = (struct rc_accepted){.length = sizeof out->peer, .number = lane->number};
        out->fd =
            accept4(lane->source.fd, (struct sockaddr *)&out->peer, &out->length, SOCK_CLOEXEC);
        if (out->fd < 0)
            return false;
        if (!is_ours(engine, lane, out) && !is_gone(out))
            return true;
        rc_close(&out->fd);
    }
    return false;
}

/* For who has asked. */
bool rc_handout_next(struct rc_engine *engine, struct rc_group *group, struct rc_accepted *out)
{
    struct rc_accepted *accepted = group->undelivered;
    if (accepted) {
        *out = *accepted;
        group->undelivered = accepted->next;
        free(accepted);
        return true;
    }
    for (unsigned at = 0; at < group->count; at++)
        if (is_orphan(group->lanes[at]) && take_from(engine, group->lanes[at], out))
            return true;
    return false;
}

/* ---- ringing -----------------------------------------------------------------------------------
 */

static unsigned waiting_in(struct rc_engine *engine, const struct rc_group *group)
{
    unsigned waiting = 0;
    for (const struct rc_accepted *accepted = group->undelivered; accepted;
         accepted = accepted->next)
        waiting++;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (!is_orphan(lane))
            continue;
        unsigned queued = rc_lane_waiting(lane);
        (void)rc_source_arm(engine->epoll, &lane->source, queued ? 0 : EPOLLIN);
        waiting += queued;
    }
    return waiting;
}

/* A bell too many would bring nothing, and counts as a connection while it lies there. */
static void withdraw_all(struct rc_engine *engine, const struct rc_group *group)
{
    for (struct rc_ring *ring = engine->rings.all; ring; ring = ring->next)
        if (ring->lane->group == group && !ring->caller && !ring->withdrawn && brings(ring))
            rc_ring_withdraw(engine, ring);
}

void rc_handout_run(struct rc_engine *engine, struct rc_group *group)
{
    if (!is_handed_out(engine, group))
        return;
    bool any = has_receiver(engine, group);
    if (group->undelivered && is_in_vain(group))
        rc_accepted_free(group);
    unsigned waiting = any ? waiting_in(engine, group) : 0;
    struct tally rung = count_rings(engine, group, NULL);
    if (!waiting && any && rung.fresh + rung.late)
        withdraw_all(engine, group);
    for (; rung.fresh < waiting && rung.fresh < MOST; rung.fresh++) {
        struct rc_lane *to = receiver_of(engine, group);
        if (!to || rc_ring_at(engine, to) < 0)
            break; /* the next event of a bell, or its alarm, goes on */
    }
}

void rc_handout_run_all(struct rc_engine *engine)
{
    for (struct rc_group *group = engine->rings.page ? engine->groups : NULL; group;
         group = group->next)
        rc_handout_run(engine, group);
}

/* ---- for the caller ----------------------------------------------------------------------------
 */

/* Its queues are for others from now on, though it lives. */
int rc_give_up(rc_engine *engine, uint32_t id)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker)
        return -ESRCH;
    worker->given_up = true;
    rc_handout_run_all(engine);
    return 0;
}

/* Whether siblings take what waits in all its lanes. */
int rc_hands_out(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    bool any = false;
    for (struct rc_group *group = engine->groups; worker && group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            if (!rc_lane_held_by(lane, worker) || rc_lane_waiting(lane) == 0)
                continue;
            if (!rc_handout_watches(engine, lane))
                return 0;
            any = true;
        }
    return any;
}

int rc_receives(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    return worker && worker->receives;
}
