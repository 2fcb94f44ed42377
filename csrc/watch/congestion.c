/* congestion.c - what a lane's queue says of it, and when lanes are looked at.
 *
 * Owns: when a lane is looked at, and what was seen: congested (its queue stands still), hung
 * (nothing is taken from it at all: load/hangs.c). Does not own what its worker does
 * (load/free.c), nor the choice: that is choosing.c, which prefers the better and never refuses
 * the worse while there is nothing else.
 *
 * A lane at rest costs nothing: it is armed in the epoll set, and is looked at
 * only after a connection was seen waiting in it, by one timer for all lanes,
 * until its queue is empty again. (One that is taken before the master wakes is
 * not seen; it needs nothing.)
 *
 * Invariants:
 *  - the lane of a live worker is armed, or has a time of its next look;
 *  - a look never changes what a worker may do, only who is preferred.
 */
#include "internal.h"

#include <sys/epoll.h>

enum {
    STILL_US = 5000,         /* a queue that does not shrink for this long stands still */
    STILL_MOST_US = 1000000, /* between two looks at one that does */
    HOT_LOOKS = 8,           /* at a lane that gets one connection after another */
    STALL_MOST_US = 100000,  /* and as long as it may yet be found to hang */
    STEER_US = 10,           /* the cost of a program, by the lane (72 us for 128) */
};

/* ---- the next look ----------------------------------------------------------------- */

static void look_in(struct rc_engine *engine, struct rc_lane *lane, int64_t now, unsigned us)
{
    lane->pressure.interval = us;
    lane->pressure.look_at = now + us;
    rc_sweep_at(engine, lane->pressure.look_at);
}

/* After a change of pressure; at most so often that programs do not cost more
 * than the connections they steer. */
static void steer_if_stale(struct rc_engine *engine, struct rc_group *group, int64_t now)
{
    int64_t least = group->steered_at + (int64_t)group->count * STEER_US;
    if (!group->stale)
        return;
    if (now < least) {
        rc_sweep_at(engine, least);
        return;
    }
    group->steered_at = now;
    (void)rc_group_refresh(group); /* refused: the next change tries again */
}

/* ---- what was seen ------------------------------------------------------------------- */

static void set_hung(struct rc_lane *lane, bool hung)
{
    struct rc_worker *worker = lane->worker;
    if (lane->pressure.hung == hung)
        return;
    lane->pressure.hung = hung;
    lane->group->stale = true;
    worker->hung_lanes += hung ? 1 : -1u;
    worker->hung_queued = (int)lane->pressure.queued; /* told by reading.c, when there is room */
}

static void set_congested(struct rc_lane *lane, bool congested)
{
    lane->group->stale |= lane->pressure.congested != congested;
    lane->pressure.congested = congested;
}

/* ---- a look at a queue ------------------------------------------------------------------ */

/* Nothing waits in it. Where the next connection would wake us at once, a few looks more,
 * at the same moments for all lanes, cost less than to be woken by each lane for itself. */
static void emptied(struct rc_engine *engine, struct rc_lane *lane, int64_t now)
{
    struct rc_pressure *pressure = &lane->pressure;
    if (!pressure->hot || rc_polling_on(engine, now)) {
        rc_lane_rest(engine, lane, now);
        return;
    }
    pressure->hot--;
    pressure->queued = 0;
    pressure->marked_at = 0;
    look_in(engine, lane, now, (unsigned)(STILL_US - now % STILL_US));
}

/* A queue of one looks the same at each look though its connection is another each time:
 * only many looks tell, so they become fewer when all is decided, not before. */
static void stands_still(struct rc_engine *engine, struct rc_lane *lane, unsigned queued,
                         int64_t now)
{
    struct rc_pressure *pressure = &lane->pressure;
    bool decided = now - pressure->marked_at >= rc_lane_judged_us(lane);
    unsigned next = decided ? pressure->interval * 2 : STILL_US, most = STILL_MOST_US;
    pressure->queued = queued;
    pressure->still_us = now - pressure->marked_at;
    set_congested(lane, true);
    lane->group->stale |= decided;
    if (pressure->still_us >= RC_STARVED_US)
        set_hung(lane, rc_lane_hangs(lane, queued, now));
    if (lane->stall.arrivals >= 0 && !pressure->hung)
        most = STALL_MOST_US;
    if (rc_lane_judged(engine, lane) && rc_group_any_free(lane->group))
        rc_polling_begin(engine, now);
    look_in(engine, lane, now, next < most ? next : most);
}

static void look(struct rc_engine *engine, struct rc_lane *lane, int64_t now)
{
    struct rc_pressure *pressure = &lane->pressure;
    unsigned queued = rc_lane_queued(lane, NULL);
    if (queued == 0 || queued < pressure->queued) {
        set_congested(lane, false);
        set_hung(lane, false);
        rc_lane_takes(lane);
    }
    if (queued == 0) {
        emptied(engine, lane, now);
    } else if (queued < pressure->queued || pressure->marked_at == 0) {
        pressure->queued = queued;
        pressure->marked_at = now;
        look_in(engine, lane, now, STILL_US);
    } else if (now < pressure->marked_at + STILL_US) {
        look_in(engine, lane, now, (unsigned)(pressure->marked_at + STILL_US - now));
    } else if (!rc_lane_is_deaf(engine, lane)) {
        stands_still(engine, lane, queued, now);
    }
}

/* A connection waits in a lane that was at rest. */
void rc_lane_arrival(struct rc_engine *engine, struct rc_lane *lane)
{
    int64_t now = rc_now_us();
    (void)rc_source_arm(engine->epoll, &lane->source, 0);
    if (rc_handout_watches(engine, lane)) {
        rc_handout_run(engine, lane->group);
        return;
    }
    if (!rc_lane_watched(lane) ||
        rc_lane_is_deaf(engine, lane)) /* at once: a deaf lane traps clients */
        return;
    lane->pressure.hot = now - lane->pressure.armed_at < STILL_US ? HOT_LOOKS : 0;
    lane->pressure.queued = rc_lane_queued(lane, NULL);
    lane->pressure.marked_at = lane->pressure.queued ? now : 0;
    look_in(engine, lane, now, STILL_US);
    if (!rc_lane_judged(engine, lane))
        return;
    rc_imbalance_begin(engine, now);
    if (rc_polling_arrival(engine, lane, now))
        steer_if_stale(engine, lane->group, now);
}

/* ---- all of them -------------------------------------------------------------------------- */

void rc_lanes_sweep(struct rc_engine *engine)
{
    if (!rc_sweep_begin(engine))
        return;
    int64_t now = rc_now_us();
    engine->swept = 0;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        engine->swept += group->count;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->pressure.look_at && lane->pressure.look_at <= now)
                look(engine, lane, now);
            else if (lane->pressure.look_at)
                rc_sweep_at(engine, lane->pressure.look_at);
        }
    rc_orders_sweep(engine, now);
    rc_proof_sweep(engine, now);
    rc_polling_sweep(engine, now);
    rc_imbalance_sweep(engine, now);
    for (struct rc_group *group = engine->groups; group; group = group->next)
        steer_if_stale(engine, group, now);
    rc_slice_short(engine,
                   engine->handover.hastes || engine->imbalance_at || rc_polling_on(engine, now));
    rc_sweep_end(engine);
}

/* ---- for lanes -------------------------------------------------------------------------- */

/* After who is live has changed: lanes of live workers are watched, and only
 * they. */
void rc_group_watch(struct rc_engine *engine, struct rc_group *group)
{
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        bool wanted = rc_lane_watched(lane);
        if (lane == lane->group->front || lane->receiver.pair.fd >= 0)
            continue; /* dispatch has armed it */
        if (rc_handout_watches(engine, lane))
            continue; /* handout.c does, as long as it does */
        if (!wanted && (lane->pressure.look_at || lane->source.armed)) {
            rc_lane_calm(lane);
            (void)rc_source_arm(engine->epoll, &lane->source, 0);
        } else if (wanted && !lane->pressure.look_at && !lane->source.armed) {
            (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN);
        }
    }
}

const struct rc_part rc_watch_part = {.group_changed = rc_group_watch};
