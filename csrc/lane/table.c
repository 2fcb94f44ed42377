/* table.c - finding a group by its place, and a lane by the inode of its socket.
 *
 * Owns: chains in two arrays of fixed length. With as many listeners as there are chains a
 * look meets one or two; with fewer it is what a growing table would be, without its memory.
 *
 * Invariant: a group is in its chain from rc_group_new until it is freed; a lane that has an
 * inode, from rc_group_append until it leaves its group.
 */
#include "internal.h"

static size_t chain_of(uint64_t number)
{
    return (size_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 32) % RC_CHAINS;
}

/* Whatever else is in the key: most differ by port or address. */
static struct rc_group **groups_like(struct rc_table *table, const struct rc_key *key)
{
    const unsigned char *bytes = (const void *)&key->address;
    uint64_t sum = 0;
    for (size_t at = 0; at < sizeof key->address; at++)
        sum = sum * 31 + bytes[at];
    return &table->groups[chain_of(sum)];
}

void rc_table_add_group(struct rc_table *table, struct rc_group *group)
{
    struct rc_group **chain = groups_like(table, &group->key);
    group->alike = *chain;
    *chain = group;
}

void rc_table_remove_group(struct rc_table *table, const struct rc_group *group)
{
    struct rc_group **link = groups_like(table, &group->key);
    while (*link != group)
        link = &(*link)->alike;
    *link = group->alike;
}

struct rc_group *rc_table_group(struct rc_table *table, const struct rc_key *key)
{
    struct rc_group *group = *groups_like(table, key);
    while (group && !rc_same_place(&group->key, key))
        group = group->alike;
    return group;
}

void rc_table_add_lane(struct rc_table *table, struct rc_lane *lane)
{
    struct rc_lane **chain = &table->lanes[chain_of(lane->inode)];
    if (!lane->inode)
        return;
    lane->alike = *chain;
    *chain = lane;
}

void rc_table_remove_lane(struct rc_table *table, const struct rc_lane *lane)
{
    struct rc_lane **link = &table->lanes[chain_of(lane->inode)];
    while (*link && *link != lane)
        link = &(*link)->alike;
    if (*link)
        *link = lane->alike;
}

struct rc_lane *rc_table_lane(const struct rc_table *table, uint64_t inode)
{
    struct rc_lane *lane = table->lanes[chain_of(inode)];
    while (lane && lane->inode != inode)
        lane = lane->alike;
    return lane;
}
