/* groups.c - the list of groups, and their arrays of lanes. Nothing but memory. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct rc_group *rc_group_find(struct rc_engine *engine, const struct rc_key *key)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        if (rc_same_place(&group->key, key))
            return group;
    return NULL;
}

struct rc_group *rc_group_new(struct rc_engine *engine, const struct rc_key *key)
{
    struct rc_group *group = calloc(1, sizeof *group);
    if (!group)
        return NULL;
    group->key = *key;
    group->zero_index = -1;
    group->policy = engine->policy;
    group->kernel = key->type == SOCK_STREAM ? engine->kernel : NULL;
    group->flows_stay_ms = key->type == SOCK_DGRAM ? engine->flows_stay_ms : 0;
    group->next = engine->groups;
    engine->groups = group;
    return group;
}

void rc_lane_init(struct rc_lane *lane)
{
    lane->source.fd = lane->taker.pair.fd = lane->taker.theirs = lane->taker.bell.fd = -1;
}

int rc_group_append(struct rc_group *group, struct rc_lane *lane)
{
    if (group->count == group->room) {
        unsigned room = group->room ? group->room * 2 : 8;
        struct rc_lane **lanes = realloc(group->lanes, room * sizeof *lanes);
        if (!lanes)
            return -ENOMEM;
        group->lanes = lanes;
        group->room = room;
    }
    group->lanes[group->count++] = lane;
    lane->group = group;
    return 0;
}

struct rc_lane *rc_lane_find(struct rc_engine *engine, uint64_t inode)
{
    for (struct rc_group *group = inode ? engine->groups : NULL; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->inode == inode || group->lanes[at]->taker.inode == inode)
                return group->lanes[at];
    return NULL;
}

/* To the rest of the engine a lane has a worker. Nobody's has this one: dead, and
 * so without a process, and its lanes wait for an heir; live, and so connections are
 * let into them meanwhile. It is not in the list of workers. NULL: no memory. */
struct rc_worker *rc_nobody(struct rc_engine *engine)
{
    struct rc_worker *nobody = engine->nobody ? engine->nobody : calloc(1, sizeof *nobody);
    if (nobody && !engine->nobody) {
        nobody->id = UINT32_MAX;
        nobody->process.fd = nobody->door.fd = nobody->channel_source.fd = -1;
        nobody->child_channel = nobody->doing_fd = nobody->open_fd = -1;
        nobody->dead = nobody->gone = nobody->live = true;
        nobody->weight = 1;
        engine->nobody = nobody;
    }
    return nobody;
}
