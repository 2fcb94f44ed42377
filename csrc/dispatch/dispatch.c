/* dispatch.c - who gets the next connection, where the master hands them out.
 *
 * Owns: the choice, back-pressure and patience. Does not own how a worker is told
 * (pass.c), nor the connections (undelivered.c).
 *
 * Invariants:
 *  - a worker's lane has one offer at most: who has not taken its last connection
 *    gets no more. Where nobody can take, connections wait in the front's queue,
 *    in the kernel;
 *  - it is strict: the one whose turn it is is waited for, RC_PATIENCE_MS long, and
 *    while it only lacks a CPU up to STARVED_MS. Then it is late, its offer is taken
 *    back, and it is passed over until it accepts; what it missed it gets later, up
 *    to CATCH_UP connections of it.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BUSY_NS = 5000000, STARVED_MS = 1000, CATCH_UP = 32, AT_A_TIME = 64 };

/* ---- life ------------------------------------------------------------------- */

int rc_dispatch_open(struct rc_engine *engine, bool count)
{
    struct rc_dispatch *dispatch = &engine->dispatch;
    if (dispatch->on)
        return 0;
    int error = rc_timer_add(engine->epoll, &dispatch->patience, RC_SOURCE_PATIENCE);
    if (error)
        return error;
    error = count ? rc_opens_open(engine) : 0;
    if (error)
        rc_source_shut(engine->epoll, &dispatch->patience);
    dispatch->on = !error;
    return error;
}

/* All that the master before has handed on is here. Whoever comes to `rc_wait` first is told soon
 * that something may wait. */
int rc_dispatch_resumed(struct rc_engine *engine)
{
    if (!engine->dispatch.on)
        return 0;
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
    return engine->dispatch.opens.source.fd >= 0 ? rc_opens_resumed(engine) : 0;
}

/* ---- what waits -------------------------------------------------------------- */

static bool anything_waits(const struct rc_group *group)
{
    return group->undelivered || rc_listener_queued(group->front->source.fd) > 0;
}

/* ---- whose turn --------------------------------------------------------------- */

static bool is_there(const struct rc_lane *lane)
{
    return lane->worker && !lane->worker->dead && !lane->removing && !lane->deaf &&
           lane->receiver.pair.fd >= 0;
}

/* Where the new code cannot be passed any, who could is to take what is left in the front. But
 * where it can, and has died, its heirs are waited for. */
bool rc_dispatch_may_take(const struct rc_lane *lane)
{
    const struct rc_group *group = lane->group;
    bool others = false;
    if (lane->worker->takes || !lane->worker->took)
        return lane->worker->takes;
    for (unsigned at = 0; at < group->count; at++) {
        const struct rc_lane *other = group->lanes[at];
        if (!other->worker || !other->worker->live)
            continue;
        if (other->receiver.pair.fd >= 0)
            return false;
        others |= !other->worker->dead;
    }
    return others;
}

static bool can_take(const struct rc_lane *lane)
{
    return is_there(lane) && rc_dispatch_may_take(lane);
}

/* How much a worker has had, by which it is compared: who has least is next. */
static uint64_t load_of(const struct rc_engine *engine, const struct rc_worker *worker)
{
    return engine->policy == RC_BALANCE_LEAST_CONNECTIONS ? worker->open : worker->given;
}

/* Of equals who is free comes first, and of these who has had fewer in all. */
static bool comes_before(const struct rc_lane *a, const struct rc_lane *b)
{
    if (a->receiver.offered != b->receiver.offered)
        return b->receiver.offered;
    return a->worker->given < b->worker->given;
}

/* Of those that may be offered one, and have least, the first; NULL: there is none. */
static struct rc_lane *first_of(const struct rc_engine *engine, const struct rc_group *group)
{
    struct rc_lane *best = NULL;
    uint64_t least = UINT64_MAX;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (!can_take(lane) || lane->receiver.late)
            continue;
        uint64_t load = load_of(engine, lane->worker);
        if (!best || load < least || (load == least && comes_before(lane, best)))
            best = lane;
        if (load < least)
            least = load;
    }
    return best;
}

static void forgive(const struct rc_group *group)
{
    uint64_t most = 0;
    for (unsigned at = 0; at < group->count; at++)
        if (can_take(group->lanes[at]) && group->lanes[at]->worker->given > most)
            most = group->lanes[at]->worker->given;
    for (unsigned at = 0; at < group->count && most > CATCH_UP; at++)
        if (can_take(group->lanes[at]))
            rc_counts_forgive(group->lanes[at]->worker, most - CATCH_UP);
}

/* An offer through a pair ends when the worker has received it. */
static bool is_free(struct rc_lane *lane)
{
    struct rc_receiver *receiver = &lane->receiver;
    if (receiver->offered && rc_pass_taken(receiver->pair.fd))
        receiver->offered = false;
    return !receiver->offered;
}

/* The lane that gets the next connection. NULL: nobody, or *blocked, whose turn it
 * is, has not taken its last one. Several lanes of a worker count as one: who has
 * none free is offered nothing. That of all who have least none is known to be free is
 * the time to ask. */
static struct rc_lane *choose(const struct rc_engine *engine, const struct rc_group *group,
                              struct rc_lane **blocked)
{
    struct rc_lane *best = first_of(engine, group);
    if (best && best->receiver.offered) {
        uint64_t least = load_of(engine, best->worker);
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (can_take(lane) && !lane->receiver.late && load_of(engine, lane->worker) == least)
                (void)is_free(lane);
        }
        best = first_of(engine, group);
    }
    *blocked = best && best->receiver.offered ? best : NULL;
    return *blocked ? NULL : best;
}

/* ---- offering ------------------------------------------------------------------- */

static int offer(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_accepted accepted;
    int error = rc_dispatch_accept(engine, lane->group, &accepted);
    if (error)
        return error;
    rc_dispatch_given(engine, lane, &accepted); /* before it can end */
    error = rc_pass_send(lane->receiver.pair.fd, &accepted);
    if (error) {
        lane->receiver.late = true;
        if (error == -EPIPE) /* it has shut its end for reading: now we hear of it */
            (void)shutdown(lane->receiver.pair.fd, SHUT_RDWR);
        else /* the kernel lacks memory: patience tries again */
            rc_dispatch_be_patient(engine, RC_AGAIN_MS);
        rc_dispatch_return(engine, lane->group, &accepted);
        return 0;
    }
    close(accepted.fd);
    lane->receiver.offered = true;
    lane->receiver.since_ms = 0;
    lane->worker->given++;
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
    return 0;
}

/* Tell us when it has taken it. */
static void wait_for(struct rc_engine *engine, struct rc_lane *lane)
{
    (void)rc_source_arm(engine->epoll, &lane->receiver.pair, EPOLLOUT);
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
}

/* Hands out what waits, as far as there are receivers. Whoever makes one free, or
 * brings a connection, calls this: the front is polled by edges. */
void rc_dispatch_run(struct rc_engine *engine, struct rc_group *group)
{
    struct rc_lane *blocked;
    if (!group->front)
        return;
    if (engine->dispatch.opens.count)
        rc_opens_look(engine, rc_now_us() / 1000);
    for (int most = AT_A_TIME; most > 0; most--) {
        struct rc_lane *lane = choose(engine, group, &blocked);
        if (!lane) {
            if (blocked && anything_waits(group))
                wait_for(engine, blocked);
            return;
        }
        if (offer(engine, lane) < 0)
            return;
    }
    engine->dispatch.again = true; /* the doors first */
}

void rc_dispatch_run_all(struct rc_engine *engine)
{
    engine->dispatch.again = false;
    for (struct rc_group *group = engine->dispatch.on ? engine->groups : NULL; group;
         group = group->next)
        rc_dispatch_run(engine, group);
}

/* ---- taking back ------------------------------------------------------------------ */

/* It has had its time, and not for want of a CPU: it sleeps elsewhere, or it has run
 * for a while since it was first looked at and has not come to accept. */
static bool is_overdue(struct rc_lane *lane, int64_t now)
{
    struct rc_receiver *receiver = &lane->receiver;
    uint64_t ran = 0;
    if (!receiver->since_ms) { /* most are taken before the next look: this one is cheap */
        receiver->since_ms = now;
        receiver->ran_ns = 0;
        return false;
    }
    if (now - receiver->since_ms < RC_PATIENCE_MS)
        return false;
    if (!rc_wants_cpu(lane->worker->pid, &ran) || now - receiver->since_ms >= STARVED_MS)
        return true;
    if (!receiver->ran_ns)
        receiver->ran_ns = ran;
    return ran > receiver->ran_ns + BUSY_NS; /* not ran - ran_ns: a child of it may have ended */
}

static void lane_late(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_receiver *receiver = &lane->receiver;
    receiver->late = rc_dispatch_withdraw(engine, lane);
    receiver->since_ms = 0;
    receiver->looked_ms = rc_now_us() / 1000;
    if (receiver->late && rc_lane_is_deaf(engine, lane))
        return;
    if (!receiver->late)
        return;
    if (rc_pass_send(receiver->pair.fd, NULL) == 0) /* a nudge: is it back? */
        (void)rc_source_arm(engine->epoll, &receiver->pair, EPOLLOUT);
    else
        rc_dispatch_be_patient(engine, RC_AGAIN_MS);
}

/* Whoever was late may have been about to close its listener, and there is no event for that:
 * while others are offered connections, it is looked at now and then. */
static bool gave_up_since(struct rc_engine *engine, struct rc_lane *lane, int64_t now)
{
    if (!lane->receiver.late || now < lane->receiver.looked_ms + RC_AGAIN_MS)
        return false;
    lane->receiver.looked_ms = now;
    return rc_lane_is_deaf(engine, lane);
}

/* The worker's end of the pair is empty again. */
void rc_dispatch_taken(struct rc_engine *engine, struct rc_lane *lane)
{
    (void)rc_source_arm(engine->epoll, &lane->receiver.pair, 0);
    if (rc_pass_taken(lane->receiver.pair.fd))
        lane->receiver.offered = lane->receiver.late = false;
    rc_proof_taken(engine, lane);
    rc_dispatch_run(engine, lane->group);
}

void rc_dispatch_patience(struct rc_engine *engine)
{
    uint64_t times;
    if (read(engine->dispatch.patience.fd, &times, sizeof times) != sizeof times)
        return;
    engine->dispatch.patient = false;
    int64_t now = rc_now_us() / 1000;
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        bool waiting = false;
        for (unsigned at = 0; group->front && at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->deaf && lane->receiver.offered)
                (void)rc_dispatch_withdraw(engine, lane);
            if (!can_take(lane) || gave_up_since(engine, lane, now))
                continue;
            if (lane->receiver.late && rc_pass_taken(lane->receiver.pair.fd))
                lane->receiver.late = false; /* it could not be sent to: try again */
            if (!is_free(lane) && is_overdue(lane, now))
                lane_late(engine, lane);
            waiting |= lane->receiver.offered;
        }
        if (group->front)
            forgive(group);
        rc_dispatch_run(engine, group);
        if (waiting)
            rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
    }
}
