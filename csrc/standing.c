/* standing.c - queues that stand still.
 *
 * Owns: when a lane's queue is looked at, and the timer for that. Does not own what
 * it means (deaf.c).
 *
 * Invariant: with nothing queued there is no system call. Our duplicate of a lane
 * waits for EPOLLIN: a connection is queued. Then it is looked at twice; if the
 * queue has not become smaller, it stands. One that moves rests before EPOLLIN is
 * waited for again, so that under load a lane costs a few looks per second; one
 * that stands is looked at ever more seldom.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_MS = 10, REST_MAX_MS = 100, STAND_MAX_MS = 1000 };

static int64_t now_ms(void)
{
    struct timespec now; /* no system call: the vDSO has it */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int timer_at(struct rc_engine *engine, int64_t at_ms)
{
    struct itimerspec when = {0};
    if (engine->standing.fd < 0) {
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0)
            return -errno;
        int error =
            rc_source_add(engine->epoll, &engine->standing, RC_SOURCE_STANDING, fd, EPOLLIN);
        if (error) {
            rc_close(&fd);
            return error;
        }
    }
    when.it_value.tv_sec = at_ms / 1000;
    when.it_value.tv_nsec = (at_ms % 1000) * 1000000 + 1;
    if (timerfd_settime(engine->standing.fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        return -errno;
    engine->look_ms = at_ms;
    return 0;
}

/* Without a timer there is no look: EPOLLIN stays off, and that is all. */
static void look_at(struct rc_engine *engine, struct rc_lane *lane, unsigned in_ms)
{
    lane->look_ms = now_ms() + in_ms;
    if (engine->look_ms == 0 || lane->look_ms < engine->look_ms)
        (void)timer_at(engine, lane->look_ms);
}

/* A worker listens on it, just now. */
void rc_lane_watch(struct rc_engine *engine, struct rc_lane *lane)
{
    lane->look_ms = 0;
    lane->rest_ms = LOOK_MS;
    (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN);
}

/* EPOLLIN. HUP is told of in any case. */
void rc_lane_queues(struct rc_engine *engine, struct rc_lane *lane)
{
    (void)rc_source_arm(engine->epoll, &lane->source, 0);
    if (!lane->worker || lane->worker->dead || lane->deaf)
        return; /* it waits for an heir, who will watch it again */
    lane->stood = rc_lane_queued(lane, NULL);
    look_at(engine, lane, LOOK_MS);
}

static void look(struct rc_engine *engine, struct rc_lane *lane)
{
    unsigned queued = rc_lane_queued(lane, NULL);
    lane->look_ms = 0;
    if (!lane->worker || lane->worker->dead || lane->deaf)
        return;
    if (lane->stood == 0) { /* it has rested */
        (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN);
        return;
    }
    bool stands = queued >= lane->stood;
    if (stands && rc_lane_is_deaf(engine, lane))
        return;
    unsigned most = stands ? STAND_MAX_MS : REST_MAX_MS;
    lane->rest_ms = lane->rest_ms * 2 < most ? lane->rest_ms * 2 : most;
    lane->stood = stands ? queued : 0;
    look_at(engine, lane, lane->rest_ms);
}

void rc_standing_look(struct rc_engine *engine)
{
    uint64_t times;
    if (read(engine->standing.fd, &times, sizeof times) != sizeof times)
        return;
    int64_t now = now_ms(), next = 0;
    engine->look_ms = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->look_ms && lane->look_ms <= now)
                look(engine, lane);
            if (lane->look_ms && (next == 0 || lane->look_ms < next))
                next = lane->look_ms;
        }
    if (next && next != engine->look_ms)
        (void)timer_at(engine, next);
}
