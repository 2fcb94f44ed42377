/* hangs.c - does nobody take anything out of a lane, though connections wait there?
 *
 * Owns the verdict, which is about that lane's worker alone. Does not own that others are
 * preferred before (pressure.c), nor what follows (the caller).
 *
 * A queue's length does not tell: of a busy worker it looks the same at each look where another
 * connection has come for the one that was taken. So it is asked whether any has come: by the
 * edges of an epoll set in which the lane is alone, which wakes nobody. One has come, and there
 * are no more than before: one was taken.
 *
 * What a worker sleeps counts, and what it computes; what it would run but has no CPU does not.
 */
#include "internal.h"

#include <sys/epoll.h>

enum {
    HUNG_US = 1000000,
    STEP_US = 50000, /* between two looks: they read /proc */
};

void rc_lane_takes(struct rc_lane *lane)
{
    rc_close(&lane->stall.arrivals);
}

/* Whether a connection has come since it was last asked. */
static bool has_come(const struct rc_stall *stall)
{
    struct epoll_event edge;
    return epoll_wait(stall->arrivals, &edge, 1, 0) != 0;
}

static void begin(struct rc_lane *lane, int64_t now)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    struct rc_stall *stall = &lane->stall;
    stall->arrivals = epoll_create1(EPOLL_CLOEXEC);
    if (stall->arrivals < 0 ||
        epoll_ctl(stall->arrivals, EPOLL_CTL_ADD, lane->source.fd, &event) < 0) {
        rc_close(&stall->arrivals); /* the next look tries again */
        return;
    }
    (void)has_come(stall); /* those that wait already */
    stall->since = now;
    (void)rc_wants_cpu(lane->worker->pid, &stall->ran_ns);
}

/* Whether it wanted nothing else than it had, or had a CPU for all that time. */
static bool had_its_time(struct rc_stall *stall, pid_t worker)
{
    uint64_t ran;
    bool wants = rc_wants_cpu(worker, &ran);
    if (ran < stall->ran_ns)
        stall->ran_ns = ran; /* a child has ended */
    return !wants || ran - stall->ran_ns >= (uint64_t)HUNG_US * 1000;
}

/* A look at a queue that is not seen to shrink. `queued` was read before, so what comes between
 * is an edge of this look, and of the next one's length: never an edge without a length. */
bool rc_lane_hangs(struct rc_lane *lane, unsigned queued, int64_t now)
{
    struct rc_stall *stall = &lane->stall;
    bool watched = stall->arrivals >= 0;
    if (watched && now < stall->looked_at + STEP_US)
        return lane->pressure.hung;
    if (!watched)
        begin(lane, now);
    else if (has_come(stall) && rc_lane_queued(lane, NULL) <= stall->queued)
        rc_lane_takes(lane);
    stall->queued = queued;
    stall->looked_at = now;
    if (stall->arrivals < 0 || now - stall->since < HUNG_US)
        return false;
    return lane->pressure.hung || had_its_time(stall, lane->worker->pid);
}
