/* groups.c - the list of groups, and their arrays of lanes. Nothing but memory; to find them
 * is table.c's. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct rc_group *rc_group_find(struct rc_engine *engine, const struct rc_key *key)
{
    return rc_table_group(&engine->table, key);
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
    rc_table_add_group(&engine->table, group);
    return group;
}

void rc_lane_init(struct rc_lane *lane)
{
    lane->proof.client.fd = lane->stall.arrivals = -1;
    lane->source.fd = lane->knocking = lane->receiver.pair.fd = lane->receiver.theirs = -1;
}

/* The lane has its inode, if it is to be found by that. */
int rc_group_append(struct rc_engine *engine, struct rc_group *group, struct rc_lane *lane)
{
    if (group->count == group->room) {
        unsigned room = group->room ? group->room * 2 : 8;
        struct rc_lane **lanes = realloc(group->lanes, room * sizeof *lanes);
        if (!lanes)
            return -ENOMEM;
        group->lanes = lanes;
        group->room = room;
    }
    rc_order_append(group, lane);
    lane->group = group;
    rc_table_add_lane(&engine->table, lane);
    return 0;
}

/* Takes back the last place, which was this lane's, or is another's copy of its own. */
void rc_group_retract(struct rc_engine *engine, struct rc_group *group, const struct rc_lane *lane)
{
    group->count--;
    rc_table_remove_lane(&engine->table, lane);
}

struct rc_lane *rc_lane_find(struct rc_engine *engine, uint64_t inode)
{
    struct rc_lane *lane = inode ? rc_table_lane(&engine->table, inode) : NULL;
    bool pairs = inode && !lane && engine->dispatch.on; /* by an end of one */
    for (struct rc_group *group = pairs ? engine->groups : NULL; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->receiver.inode == inode)
                return group->lanes[at];
    return lane;
}

/* To the rest of the engine a lane has a worker. Nobody's has this one: dead, and
 * so without a process, and its lanes wait for an heir; live, and so connections are
 * let into them meanwhile. It is not in the list of workers. NULL: no memory. */
struct rc_worker *rc_nobody(struct rc_engine *engine)
{
    struct rc_worker *nobody = engine->unowned ? engine->unowned : calloc(1, sizeof *nobody);
    if (nobody && !engine->unowned) {
        nobody->id = RC_NOBODY;
        nobody->process.fd = nobody->door.fd = nobody->channel_source.fd = -1;
        nobody->output[0] = nobody->output[1] = nobody->child_channel = nobody->activity_fd =
            nobody->open_fd = -1;
        nobody->dead = nobody->gone = nobody->live = true;
        nobody->weight = 1;
        engine->unowned = nobody;
    }
    return nobody;
}
