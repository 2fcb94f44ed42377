/* watch.c - when something is queued in a lane.
 *
 * Owns: watching the lanes' queues, and the timer for that. Does not own what is
 * to be asked then (deaf.c).
 *
 * Our duplicate of a lane waits for EPOLLIN: a connection is queued. Each time it is
 * asked whether anybody is there to accept it. Then the lane rests before it is
 * watched again, or the master would wake for each connection. The longer it
 * rests, the more clients a lane without a holder can trap.
 *
 * Invariant: with nothing queued there is no system call.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { REST_MS = 20, REST_MAX_MS = 1000 };

static int64_t now_ms(void)
{
    struct timespec now; /* no system call: the vDSO has it */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void timer_at(struct rc_engine *engine, int64_t at_ms)
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = at_ms / 1000, .tv_nsec = (at_ms % 1000) * 1000000 + 1}};
    (void)timerfd_settime(engine->rest.fd, TFD_TIMER_ABSTIME, &when, NULL);
    engine->rest_ms = at_ms;
}

int rc_watch_open(struct rc_engine *engine)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    int error = rc_source_add(engine->epoll, &engine->rest, RC_SOURCE_REST, fd, EPOLLIN);
    if (error)
        rc_close(&fd);
    return error;
}

/* A worker listens on it, just now. */
void rc_lane_watch(struct rc_engine *engine, struct rc_lane *lane)
{
    lane->watch_ms = 0;
    lane->rest_ms = 0;
    lane->queued = 0;
    (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN);
}

/* EPOLLIN. (HUP comes in any case.) A queue that grows or stands while somebody
 * holds the lane is a worker that is busy or hung: watched ever more seldom. */
void rc_lane_queues(struct rc_engine *engine, struct rc_lane *lane)
{
    if (!lane->worker || lane->worker->dead || rc_lane_is_deaf(engine, lane)) {
        /* It waits for an heir, who will have it watched again. */
        (void)rc_source_arm(engine->epoll, &lane->source, 0);
        return;
    }
    unsigned queued = rc_lane_queued(lane, NULL);
    bool stands = lane->rest_ms && queued && queued >= lane->queued;
    unsigned rest = stands ? lane->rest_ms * 2 : REST_MS;
    lane->queued = queued;
    lane->rest_ms = rest < REST_MAX_MS ? rest : REST_MAX_MS;
    lane->watch_ms = now_ms() + lane->rest_ms;
    if (!engine->rest_ms || lane->watch_ms < engine->rest_ms)
        timer_at(engine, lane->watch_ms);
    (void)rc_source_arm(engine->epoll, &lane->source, 0);
}

/* The timer: lanes that have rested (or will have in a moment) are watched again. */
void rc_lanes_rested(struct rc_engine *engine)
{
    uint64_t times;
    if (read(engine->rest.fd, &times, sizeof times) != sizeof times)
        return;
    int64_t now = now_ms(), next = 0;
    engine->rest_ms = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->watch_ms && lane->watch_ms <= now + REST_MS / 4) {
                lane->watch_ms = 0;
                (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN);
            } else if (lane->watch_ms && (next == 0 || lane->watch_ms < next)) {
                next = lane->watch_ms;
            }
        }
    if (next)
        timer_at(engine, next);
}
