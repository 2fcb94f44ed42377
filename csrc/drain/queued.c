/* queued.c - how many connections wait in the lanes of a worker.
 *
 * Owns nothing. It is asked at each look at a worker that drains, and mostly nothing waits in
 * any of many lanes: one poll(2) for all of them costs a tenth of a getsockopt for each.
 */
#include "internal.h"

#include <poll.h>

enum { AT_A_TIME = 64 };

struct batch {
    struct pollfd polled[AT_A_TIME];
    const struct rc_lane *lanes[AT_A_TIME];
    unsigned count;
};

/* Where poll is refused (RLIMIT_NOFILE is below their number) each is asked. */
static unsigned ask(struct batch *batch)
{
    unsigned queued = 0;
    int ready = poll(batch->polled, batch->count, 0);
    for (unsigned at = 0; ready && at < batch->count; at++)
        if (ready < 0 || batch->polled[at].revents)
            queued += rc_lane_waiting(batch->lanes[at]);
    batch->count = 0;
    return queued;
}

int rc_queued(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    struct batch batch = {.count = 0};
    unsigned queued = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            if (!rc_lane_owed(lane, worker))
                continue;
            queued += rc_dispatch_queued(lane);
            batch.lanes[batch.count] = lane;
            batch.polled[batch.count++] = (struct pollfd){.fd = lane->source.fd, .events = POLLIN};
            if (batch.count == AT_A_TIME)
                queued += ask(&batch);
        }
    queued += ask(&batch);
    return (int)(queued + (worker ? rc_unix_queued(engine, worker) : 0));
}
