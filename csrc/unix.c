/* unix.c - AF_UNIX stream listeners, while workers come and go.
 *
 * Owns what the rest of the engine asks of them: who leaves, what is queued, the end.
 * What they are is in unixgroup.c.
 */
#include "unix.h"

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
    rc_unix_errands_cancel(engine, worker);
    for (struct rc_unix_group *group = engine->unixes, *next; group; group = next) {
        next = group->next;
        for (struct rc_unix_bound *bound = group->bound, *after; bound; bound = after) {
            after = bound->next;
            if (bound->worker == worker)
                rc_unix_bound_free(group, bound);
        }
        rc_unix_group_tidy(engine, group);
    }
}

void rc_unix_drop(struct rc_engine *engine, const struct rc_worker *worker)
{
    rc_unix_exited(engine, worker);
    for (struct rc_unix_group *group = engine->unixes, *next; group; group = next) {
        next = group->next;
        for (struct rc_unix_lane *lane = group->lanes, *after; lane; lane = after) {
            after = lane->next;
            rc_unix_part(lane, worker);
            if (lane->count == 0)
                rc_unix_lane_free(engine, group, lane);
        }
        if (group->lanes && !group->placed)
            (void)rc_unix_place(engine, group);
        rc_unix_group_tidy(engine, group);
    }
}

/* Connections that wait for this worker and nobody else: 0 or 1, for the kernel
 * tells only whether there are any. */
unsigned rc_unix_queued(struct rc_engine *engine, const struct rc_worker *worker)
{
    unsigned queued = 0;
    for (const struct rc_unix_group *group = engine->unixes; group; group = group->next)
        for (const struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next) {
            /* Of what was there before the first worker, the rest is for the next. */
            bool others = worker->dead && rc_unix_is_member(lane, engine->nobody);
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
    for (const struct rc_unix_group *group = engine->unixes; group; group = group->next)
        for (const struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
            for (unsigned at = 0; at < lane->count; at++) {
                if (lane->members[at] == engine->nobody || count++ >= room)
                    continue;
                struct rc_lane_facts *facts = &out[count - 1];
                *facts = (struct rc_lane_facts){
                    .worker = lane->members[at]->id,
                    .chosen = lane->members[at]->live && !group->closing &&
                              (group->placed == lane || group->one_for_all),
                    .queued = rc_socket_readable(lane->fd),
                    .backlog = lane->backlog,
                };
                snprintf(facts->address, sizeof facts->address, "%s", group->text);
            }
    return count;
}

/* In a forked child, which only closes. */
void rc_unix_close_all(const struct rc_engine *engine)
{
    rc_unix_errands_close(engine);
    for (const struct rc_unix_group *group = engine->unixes; group; group = group->next) {
        for (const struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
            (void)close(lane->fd);
        if (group->directory >= 0)
            (void)close(group->directory);
        if (group->held >= 0)
            (void)close(group->held);
    }
}

void rc_unix_free(struct rc_engine *engine)
{
    rc_unix_errands_free(engine);
    while (engine->unixes) {
        struct rc_unix_group *group = engine->unixes;
        while (group->bound)
            rc_unix_bound_free(group, group->bound);
        while (group->lanes)
            rc_unix_lane_free(engine, group, group->lanes);
        rc_unix_group_tidy(engine, group);
    }
}
