/* dispatch.c - who gets the next connection, where the master hands them out.
 *
 * Owns: the choice, back-pressure and patience. Does not own how a worker is told
 * (pass.c, bell.c), nor its accept (accept_door.c), nor the connections (hands.c).
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
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer < 0)
        return -errno;
    int error =
        rc_source_add(engine->epoll, &dispatch->patience, RC_SOURCE_PATIENCE, timer, EPOLLIN);
    if (error) {
        rc_close(&timer);
        return error;
    }
    error = count ? rc_opens_open(engine) : 0;
    if (error)
        rc_source_shut(engine->epoll, &dispatch->patience);
    dispatch->on = !error;
    return error;
}

/* ---- what waits -------------------------------------------------------------- */

/* Is there a connection that no bell rings for? The kernel is asked only where what it
 * said last is not enough: nobody but us takes from the front's queue. */
static bool anything_left(struct rc_group *group)
{
    unsigned waiting = 0;
    for (const struct rc_hand *hand = group->hand; hand; hand = hand->next)
        waiting++;
    if (waiting + group->left <= group->promised)
        group->left = rc_listener_queued(group->front->source.fd);
    return waiting + group->left > group->promised;
}

/* ---- whose turn --------------------------------------------------------------- */

static bool can_take(const struct rc_lane *lane)
{
    return lane->worker && lane->worker->takes && !lane->worker->dead && !lane->removing &&
           !lane->deaf && (lane->taker.pair.fd >= 0 || lane->taker.bell.fd >= 0);
}

/* How much a worker has had, by which it is compared: who has least is next. */
static uint64_t load_of(const struct rc_engine *engine, const struct rc_worker *worker)
{
    return engine->policy == RC_BALANCE_LEAST_CONNECTIONS ? worker->open + worker->promised
                                                          : worker->given;
}

/* Of equals who is free comes first, and of these who has had fewer in all. */
static bool comes_before(const struct rc_lane *a, const struct rc_lane *b)
{
    if (a->taker.offered != b->taker.offered)
        return b->taker.offered;
    return a->worker->given < b->worker->given;
}

/* Of those that may be offered one, and have least, the first; NULL: there is none. */
static struct rc_lane *first_of(const struct rc_engine *engine, const struct rc_group *group)
{
    struct rc_lane *best = NULL;
    uint64_t least = UINT64_MAX;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (!can_take(lane) || lane->taker.late)
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
        if (can_take(group->lanes[at]) && group->lanes[at]->worker->given < most - CATCH_UP)
            group->lanes[at]->worker->given = most - CATCH_UP;
}

/* An offer through a pair ends when the worker has received it. */
static bool is_free(struct rc_lane *lane)
{
    struct rc_taker *taker = &lane->taker;
    if (taker->offered && taker->pair.fd >= 0 && rc_pass_taken(taker->pair.fd))
        taker->offered = false;
    return !taker->offered;
}

/* The lane that gets the next connection. NULL: nobody, or *blocked, whose turn it
 * is, has not taken its last one. Several lanes of a worker count as one: who has
 * none free is offered nothing. That of all who have least none is known to be free is
 * the time to ask. */
static struct rc_lane *choose(const struct rc_engine *engine, const struct rc_group *group,
                              struct rc_lane **blocked)
{
    struct rc_lane *best = first_of(engine, group);
    if (best && best->taker.offered) {
        uint64_t least = load_of(engine, best->worker);
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (can_take(lane) && !lane->taker.late && load_of(engine, lane->worker) == least)
                (void)is_free(lane);
        }
        best = first_of(engine, group);
    }
    *blocked = best && best->taker.offered ? best : NULL;
    return *blocked ? NULL : best;
}

/* May it have the next connection now? It asks, so it is preferred to its equals. */
bool rc_dispatch_turn_of(struct rc_engine *engine, struct rc_lane *lane)
{
    if (!can_take(lane) || lane->taker.offered)
        return false;
    uint64_t load = load_of(engine, lane->worker);
    for (unsigned at = 0; at < lane->group->count; at++) {
        const struct rc_lane *other = lane->group->lanes[at];
        if (can_take(other) && !other->taker.late && load_of(engine, other->worker) < load)
            return false;
    }
    return anything_left(lane->group);
}

/* ---- offering ------------------------------------------------------------------- */

/* A promise is an offer whose connection still lies in the front's queue. */
static void promise(struct rc_engine *engine, struct rc_lane *lane)
{
    lane->taker.offered = true;
    lane->taker.since_ms = 0; /* the first look of patience starts the clock */
    lane->worker->given++;
    lane->worker->promised++;
    lane->group->promised++;
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
}

static int offer_by_pair(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_hand hand;
    int error = rc_dispatch_accept(engine, lane->group, &hand);
    if (error)
        return error;
    rc_dispatch_given(engine, lane, &hand); /* before it can end */
    error = rc_pass_send(lane->taker.pair.fd, &hand);
    if (error) {
        lane->taker.late = true;
        if (error == -EPIPE) /* it has shut its end for reading: now we hear of it */
            (void)shutdown(lane->taker.pair.fd, SHUT_RDWR);
        else /* the kernel lacks memory: patience tries again */
            rc_dispatch_be_patient(engine, RC_AGAIN_MS);
        rc_dispatch_return(engine, lane->group, &hand);
        return 0;
    }
    close(hand.fd);
    lane->taker.offered = true;
    lane->taker.since_ms = 0;
    lane->worker->given++;
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
    return 0;
}

static void ring(struct rc_engine *engine, struct rc_lane *lane)
{
    if (rc_bell_ring(&lane->taker.bell, &lane->group->key) < 0) {
        rc_dispatch_settle(lane, false);
        lane->taker.late = true;
        rc_dispatch_be_patient(engine, RC_AGAIN_MS);
    }
}

static int offer(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->taker.pair.fd >= 0)
        return offer_by_pair(engine, lane);
    if (!anything_left(lane->group))
        return -EAGAIN;
    promise(engine, lane);
    if (lane->taker.held && rc_accept_answer_held(engine, lane))
        return 0;
    if (!lane->taker.loops || !lane->taker.awake)
        ring(engine, lane);
    return 0;
}

/* Tell us when it has taken it. */
static void wait_for(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_taker *taker = &lane->taker;
    if (taker->pair.fd >= 0)
        (void)rc_source_arm(engine->epoll, &taker->pair, EPOLLOUT);
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
}

/* Hands out what waits, as far as there are takers. Whoever makes a taker free, or
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
            if (blocked && anything_left(group))
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
    struct rc_taker *taker = &lane->taker;
    pid_t thread = taker->acceptor ? taker->acceptor : lane->worker->pid;
    uint64_t ran = 0;
    if (!taker->since_ms) { /* most are taken before the next look: this one is cheap */
        taker->since_ms = now;
        taker->ran_ns = 0;
        return false;
    }
    if (now - taker->since_ms < RC_PATIENCE_MS)
        return false;
    if (!rc_wants_cpu(thread, !taker->acceptor, &ran) || now - taker->since_ms >= STARVED_MS)
        return true;
    if (!taker->ran_ns)
        taker->ran_ns = ran;
    return ran > taker->ran_ns + BUSY_NS; /* not ran - ran_ns: a child of it may have ended */
}

static void lane_late(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_taker *taker = &lane->taker;
    taker->late = rc_dispatch_withdraw(engine, lane);
    taker->since_ms = 0;
    if (taker->late && rc_lane_is_deaf(engine, lane))
        return;
    if (!taker->late || taker->pair.fd < 0)
        return;                                  /* its bell still rings */
    if (rc_pass_send(taker->pair.fd, NULL) == 0) /* a nudge: is it back? */
        (void)rc_source_arm(engine->epoll, &taker->pair, EPOLLOUT);
    else
        rc_dispatch_be_patient(engine, RC_AGAIN_MS);
}

/* The worker's end of the pair is empty again. */
void rc_dispatch_taken(struct rc_engine *engine, struct rc_lane *lane)
{
    (void)rc_source_arm(engine->epoll, &lane->taker.pair, 0);
    if (rc_pass_taken(lane->taker.pair.fd))
        lane->taker.offered = lane->taker.late = false;
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
            if (lane->deaf && lane->taker.offered)
                (void)rc_dispatch_withdraw(engine, lane);
            if (!can_take(lane))
                continue;
            if (lane->taker.pair.fd >= 0 && lane->taker.late && rc_pass_taken(lane->taker.pair.fd))
                lane->taker.late = false; /* it could not be sent to: try again */
            if (lane->taker.pair.fd < 0 && !lane->taker.bell.rung) {
                lane->taker.late = false; /* it could not be rung: try again */
                lane->taker.awake = false;
                if (lane->taker.offered) /* it was expected to ask by itself */
                    ring(engine, lane);
            }
            if (!is_free(lane) && is_overdue(lane, now))
                lane_late(engine, lane);
            waiting |= lane->taker.offered;
        }
        if (group->front)
            forgive(group);
        rc_dispatch_run(engine, group);
        if (waiting)
            rc_dispatch_be_patient(engine, RC_PATIENCE_MS);
    }
}
