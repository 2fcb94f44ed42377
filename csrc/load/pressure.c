/* pressure.c - what is known of a lane: its queue, and its worker's state by it.
 *
 * Owns: the reading of rc_pressure, and of whom there is one. What is in it is seen by
 * congestion.c and free.c.
 */
#include "internal.h"

#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>

/* As RC_STARVED_US, */
enum {
    STUCK_US = 155000,        /* where parts were asked for, */
    EXACT_STUCK_US = 5000000, /* and where turns, which that ends */
};

/* For a listener tcpi_unacked is the length of its accept queue and tcpi_sacked
 * its limit (tcp_get_info, net/ipv4/tcp.c). */
static unsigned ask_listener(int fd, unsigned *limit)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        return 0;
    if (limit)
        *limit = info.tcpi_sacked;
    return info.tcpi_unacked;
}

unsigned rc_listener_queued(int fd)
{
    return ask_listener(fd, NULL);
}

/* Of UDP whether there is anything; what a dead worker left promises nothing. */
unsigned rc_lane_queued(const struct rc_lane *lane, unsigned *limit)
{
    if (lane->group->key.type == SOCK_DGRAM)
        return !lane->worker->dead && rc_socket_readable(lane->source.fd);
    return ask_listener(lane->source.fd, limit);
}

/* The lane is another's now, or nobody's: what was seen does not hold. */
void rc_lane_calm(struct rc_lane *lane)
{
    if (lane->pressure.hung)
        lane->worker->hung_lanes--;
    rc_lane_takes(lane);
    memset(&lane->pressure, 0, sizeof lane->pressure);
}

/* Nothing waits in it, and the next connection is to wake us. */
void rc_lane_rest(struct rc_engine *engine, struct rc_lane *lane, int64_t now)
{
    lane->pressure.queued = lane->pressure.hot = 0;
    lane->pressure.look_at = lane->pressure.marked_at = 0;
    lane->pressure.armed_at = now;
    (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN);
}

/* Where the kernel counts, a worker that takes nothing is passed over by its count alone,
 * and in a flood who lacks a CPU for a moment has its part all the same: to avoid it at
 * once gives that to the others. */
static bool is_congested(const struct rc_lane *lane)
{
    return lane->pressure.congested && ((!lane->group->kernel && !lane->group->flooded) ||
                                        lane->pressure.still_us >= RC_STARVED_US);
}

/* In a flood who is free has changed many times until the next look, and the few that were
 * would get it all; what stays true is who has fewer. */
enum rc_pressure_kind rc_lane_pressure(const struct rc_lane *lane)
{
    const struct rc_pressure *pressure = &lane->pressure;
    return pressure->hung         ? RC_HUNG
           : is_congested(lane)   ? RC_CONGESTED
           : lane->group->flooded ? (pressure->crowded ? RC_CROWDED : RC_FREE)
           : pressure->crowded && pressure->work < RC_CROWDED ? RC_CROWDED
                                                              : pressure->work;
}

/* Congested for so long that it is no matter of a busy machine. Exact turns are not
 * given up before a second: 2 CPUs with 20 runnable processes let a worker stand
 * for 200 ms again and again. */
bool rc_lane_stuck(const struct rc_lane *lane)
{
    int64_t least = rc_group_exact(lane->group) ? EXACT_STUCK_US : STUCK_US;
    return lane->pressure.congested && lane->pressure.still_us >= least;
}

/* For how long it must have stood still until all is decided that hangs on that. */
int64_t rc_lane_judged_us(const struct rc_lane *lane)
{
    return rc_group_exact(lane->group)                   ? EXACT_STUCK_US
           : rc_group_has_parts(lane->group)             ? STUCK_US
           : lane->group->kernel || lane->group->flooded ? RC_STARVED_US
                                                         : 0;
}

/* A shared lane is not: it is congested when all its workers are. Nor is one of UDP (a
 * flow comes to its worker whatever that does), or in dispatch, where nothing is queued
 * but a bell. */
bool rc_lane_watched(const struct rc_lane *lane)
{
    return lane->worker && lane->worker->live && !lane->worker->dead && !lane->removing &&
           !lane->closing && !lane->party && !lane->deaf && !lane->group->front &&
           lane->group->key.type == SOCK_STREAM;
}

/* Whether it is looked at what the lane's worker does. Where the kernel counts it need
 * not be: who is at work has a connection, and who is not has none. */
bool rc_lane_judged(const struct rc_engine *engine, const struct rc_lane *lane)
{
    return rc_lane_watched(lane) && engine->policy == RC_BALANCE_AUTO && !lane->group->kernel &&
           lane->by_leader && !lane->worker->inscrutable;
}

static bool is_free(const struct rc_lane *lane)
{
    return lane->pressure.work == RC_FREE && !lane->pressure.congested && !lane->pressure.hung;
}

/* Somebody in the group would take a connection at once. */
bool rc_group_any_free(const struct rc_group *group)
{
    for (unsigned at = 0; at < group->count; at++)
        if (rc_lane_watched(group->lanes[at]) && is_free(group->lanes[at]))
            return true;
    return false;
}
