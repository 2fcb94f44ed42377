/* unix.c - AF_UNIX stream listeners, while workers come and go.
 *
 * Owns what the rest of the engine asks of them: who leaves, what is queued, the end.
 */
#include "unix/unixlane.h"

#include <stdio.h>
#include <unistd.h>

int rc_expect_paths(rc_engine *engine)
{
    engine->expects_paths = true;
    return 0;
}

/* ---- workers come and go --------------------------------------------------------------- */

void rc_unix_exited(struct rc_engine *engine, const struct rc_worker *worker)
{
    rc_unix_turns_exited(engine, worker);
    for (struct rc_unix_lane *lane = engine->unixes, *next; lane; lane = next) {
        next = lane->next;
        rc_unix_unask(lane, worker);
        rc_unix_lane_tidy(engine, lane);
    }
}

void rc_unix_drop(struct rc_engine *engine, const struct rc_worker *worker)
{
    rc_unix_exited(engine, worker);
    for (struct rc_unix_lane *lane = engine->unixes, *next; lane; lane = next) {
        next = lane->next;
        rc_unix_part(lane, worker);
        rc_unix_lane_tidy(engine, lane);
    }
}

/* Of a socket that the worker listens on; 0: there is none. */
uint64_t rc_unix_inode(const struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        if (rc_unix_is_member(lane, worker))
            return lane->inode;
    return 0;
}

/* From now on the first worker that removes the path does so. */
void rc_unix_close(struct rc_engine *engine)
{
    engine->unix_closing = true;
}

/* Connections that wait for this worker and nobody else: 0 or 1, for the kernel
 * tells only whether there are any. */
unsigned rc_unix_queued(struct rc_engine *engine, const struct rc_worker *worker)
{
    unsigned queued = 0;
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next) {
        /* Of what was there before the first worker, the rest is for the next. */
        bool others = worker->dead && rc_unix_is_member(lane, engine->unowned);
        for (unsigned at = 0; at < lane->count; at++)
            others |= !lane->members[at]->dead &&
                      (worker->dead || (lane->members[at]->live && !worker->live));
        queued += rc_unix_is_member(lane, worker) && !others && rc_socket_readable(lane->fd);
    }
    return queued;
}

size_t rc_unix_lanes(const struct rc_engine *engine, struct rc_lane_facts *out, size_t room,
                     size_t count)
{
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        for (unsigned at = 0; at < lane->count; at++) {
            if (lane->members[at] == engine->unowned || count++ >= room)
                continue;
            struct rc_lane_facts *facts = &out[count - 1];
            *facts = (struct rc_lane_facts){
                .worker = lane->members[at]->id,
                .chosen = lane->members[at]->live && !engine->unix_closing && !lane->lost,
                .queued = rc_socket_readable(lane->fd),
                .backlog = lane->backlog,
            };
            snprintf(facts->address, sizeof facts->address, "%s", lane->text);
        }
    return count;
}

/* In a forked child, which only closes. */
void rc_unix_close_all(const struct rc_engine *engine)
{
    rc_unix_turns_close(engine);
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next) {
        (void)close(lane->fd);
        if (lane->directory >= 0)
            (void)close(lane->directory);
    }
}

void rc_unix_free(struct rc_engine *engine)
{
    rc_unix_turns_free(engine);
    while (engine->unixes)
        rc_unix_lane_free(engine, engine->unixes);
}
