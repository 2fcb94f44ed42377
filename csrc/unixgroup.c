/* unixgroup.c - AF_UNIX stream listeners: what a bind and a listen of one become.
 *
 * Owns the groups and lanes of AF_UNIX addresses. The kernel has no reuseport
 * for them: an address leads to one socket. So all workers of a generation accept
 * from one lane, each generation has its own, and the cutover is a rename(2)
 * (unixplace.c). In the abstract namespace there is no renaming: there all
 * generations accept from one.
 *
 * Invariants:
 *  - each bind of a worker gets a socket of its own, bound, aside of the address;
 *    the listen puts the generation's lane in its place;
 *  - an address that one worker alone has asked for may be its own business: a
 *    duplicate of the listener and a second name of it are kept, and what the worker
 *    does to the first is left as it is.
 */
#include "unix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

struct rc_unix_group *rc_unix_group_find(struct rc_engine *engine, const struct rc_unix_name *name)
{
    struct rc_unix_group *group = engine->unixes;
    while (group &&
           (group->name.device != name->device || group->name.directory != name->directory ||
            group->name.length != name->length ||
            memcmp(group->name.base, name->base, name->length) != 0))
        group = group->next;
    return group;
}

struct rc_unix_group *rc_unix_group_new(struct rc_engine *engine, const struct rc_unix_name *name,
                                        const char *given, int directory)
{
    struct rc_unix_group *group = calloc(1, sizeof *group);
    if (!group)
        return NULL;
    group->name = *name;
    group->directory = directory;
    group->held = -1;
    group->one_for_all = directory < 0;
    group->late = directory >= 0 && strlen(given) + 3 == RC_NETLINK_LENGTH;
    snprintf(group->given, sizeof group->given, "%s", given);
    if (directory >= 0)
        snprintf(group->text, sizeof group->text, "unix:%s", given);
    else
        snprintf(group->text, sizeof group->text, "unix:@%.*s", (int)name->length, name->base);
    group->next = engine->unixes;
    engine->unixes = group;
    return group;
}

void rc_unix_group_tidy(struct rc_engine *engine, struct rc_unix_group *group)
{
    if (group->lanes || group->bound || group->errands)
        return;
    struct rc_unix_group **link = &engine->unixes;
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    if (group->refusing) {
        struct rc_unix_node there;
        if (rc_unix_node_at(group, 0, &there) && rc_unix_same_node(&there, &group->refusing_node))
            rc_unix_unname(group, 0);
        rc_unix_unname(group, group->refusing);
    }
    rc_close(&group->directory);
    rc_close(&group->held);
    rc_bury(engine, group);
}

struct rc_unix_lane *rc_unix_lane_find(struct rc_engine *engine, uint64_t inode,
                                       struct rc_unix_group **of)
{
    for (*of = inode ? engine->unixes : NULL; *of; *of = (*of)->next)
        for (struct rc_unix_lane *lane = (*of)->lanes; lane; lane = lane->next)
            if (lane->inode == inode)
                return lane;
    return NULL;
}

bool rc_unix_is_member(const struct rc_unix_lane *lane, const struct rc_worker *worker)
{
    for (unsigned at = 0; at < lane->count; at++)
        if (lane->members[at] == worker)
            return true;
    return false;
}

int rc_unix_join(struct rc_unix_lane *lane, struct rc_worker *worker)
{
    if (rc_unix_is_member(lane, worker))
        return 0;
    if (lane->count == lane->room) {
        unsigned room = lane->room ? lane->room * 2 : 4;
        struct rc_worker **members = realloc(lane->members, room * sizeof *members);
        if (!members)
            return -ENOMEM;
        lane->members = members;
        lane->room = room;
    }
    lane->members[lane->count++] = worker;
    return 0;
}

void rc_unix_part(struct rc_unix_lane *lane, const struct rc_worker *worker)
{
    for (unsigned at = lane->count; at-- > 0;)
        if (lane->members[at] == worker)
            lane->members[at] = lane->members[--lane->count];
}

bool rc_unix_has_living(const struct rc_unix_lane *lane)
{
    for (unsigned at = 0; at < lane->count; at++)
        if (!lane->members[at]->dead)
            return true;
    return false;
}

/* Nobody has it any more. The address goes with it, unless it leads elsewhere. */
void rc_unix_lane_free(struct rc_engine *engine, struct rc_unix_group *group,
                       struct rc_unix_lane *lane)
{
    struct rc_unix_lane **link = &group->lanes;
    struct rc_unix_node there;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    rc_unix_unwatch(engine, lane);
    if (group->placed == lane)
        group->placed = NULL;
    if (!group->one_for_all) {
        if (rc_unix_node_at(group, 0, &there) && rc_unix_same_node(&there, &lane->node))
            rc_unix_unname(group, 0);
        if (lane->alias)
            rc_unix_unname(group, lane->alias);
    }
    rc_close(&lane->fd);
    free(lane->members);
    lane->members = NULL;
    rc_bury(engine, lane);
}

/* ---- binds ----------------------------------------------------------------------------- */

struct rc_unix_bound *rc_unix_bound_find(struct rc_engine *engine, const struct rc_worker *worker,
                                         uint64_t inode, struct rc_unix_group **of)
{
    for (*of = inode ? engine->unixes : NULL; *of; *of = (*of)->next)
        for (struct rc_unix_bound *bound = (*of)->bound; bound; bound = bound->next)
            if (bound->inode == inode && (!worker || bound->worker == worker))
                return bound;
    return NULL;
}

void rc_unix_bound_free(struct rc_unix_group *group, struct rc_unix_bound *bound)
{
    struct rc_unix_bound **link = &group->bound;
    while (*link != bound)
        link = &(*link)->next;
    *link = bound->next;
    if (bound->alias)
        rc_unix_unname(group, bound->alias);
    free(bound);
}

/* Known until its worker exits, as in pending.c, and as there not without end. */
void rc_unix_bound_add(struct rc_unix_group *group, struct rc_worker *worker,
                       struct rc_unix_bound *bound)
{
    struct rc_unix_bound *oldest = NULL;
    unsigned count = 0;
    for (struct rc_unix_bound *one = group->bound; one; one = one->next)
        if (one->worker == worker) {
            oldest = one;
            count++;
        }
    if (count >= RC_PENDING_MAX)
        rc_unix_bound_free(group, oldest);
    bound->worker = worker;
    bound->next = group->bound;
    group->bound = bound;
}

unsigned rc_unix_count_own(const struct rc_engine *engine, const struct rc_worker *worker)
{
    unsigned count = 0;
    for (const struct rc_unix_group *group = engine->unixes; group; group = group->next) {
        for (const struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
            count += !group->shared && rc_unix_is_member(lane, worker);
        for (const struct rc_unix_bound *bound = group->bound; bound; bound = bound->next)
            count += !group->shared && bound->worker == worker;
    }
    return count;
}

/* Whether this is the worker's first look at an address that another has. */
bool rc_unix_asked_by_others(const struct rc_engine *engine, const struct rc_unix_group *group,
                             const struct rc_worker *worker)
{
    for (const struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
        if (!rc_unix_is_member(lane, worker))
            return true;
    for (const struct rc_unix_bound *bound = group->bound; bound; bound = bound->next)
        if (bound->worker != worker)
            return true;
    return group->shared || rc_unix_errand_elsewhere(engine, group, worker);
}

/* Whoever had it has closed it and removed its path. */
void rc_unix_forget(struct rc_engine *engine, struct rc_unix_group *group)
{
    while (group->lanes)
        rc_unix_lane_free(engine, group, group->lanes);
    while (group->bound)
        rc_unix_bound_free(group, group->bound);
    rc_unix_group_tidy(engine, group);
}

void rc_unix_unwatch(struct rc_engine *engine, struct rc_unix_lane *lane)
{
    if (lane->watch >= 0 && engine->unix_watch.fd >= 0)
        (void)inotify_rm_watch(engine->unix_watch.fd, lane->watch);
    lane->watch = -1;
}

bool rc_unix_errand_elsewhere(const struct rc_engine *engine, const struct rc_unix_group *group,
                              const struct rc_worker *worker)
{
    const struct rc_unix_errand *errand = engine->errands;
    while (errand && (errand->group != group || errand->worker == worker || !errand->worker))
        errand = errand->next;
    return errand;
}

/* Whether another is about to bind there, and where that is is not known yet: by
 * the text of the path. */
bool rc_unix_errand_blind(const struct rc_engine *engine, const struct rc_worker *worker,
                          const char *path)
{
    const struct rc_unix_errand *errand = engine->errands;
    while (errand && (errand->group || errand->worker == worker || !errand->worker ||
                      strcmp(errand->path, path) != 0))
        errand = errand->next;
    return errand;
}
