/* order.c - who is where in the kernel's reuseport group: our lanes, and guests.
 *
 * Owns: each lane's index. A guest is a listener that did not come by our doors: another
 * program of the same user with SO_REUSEPORT, or one of a worker's that the door did not
 * see. It is in the array like any other, so without knowing it our indices would be wrong
 * from the next removal on. The program never returns a guest's.
 *
 * Invariants:
 *  - a socket is appended at listen, and when one goes the last takes its place
 *    (reuseport_detach_sock);
 *  - before a lane is appended or removed the kernel is asked who is there (one dump of
 *    sock_diag): so guests that are new are the last, and of those that went there is
 *    mostly one. Where several went at once from among others, the order is a guess;
 *  - lanes of who is not live come many at a time, and nothing leads to them yet. Where no
 *    guest is known they are appended unasked, fresh: at an index that a guest may have. One
 *    dump puts all of them in their places before anything relies on that: steering, a
 *    removal, a connection of our own (reach.c).
 */
#include "internal.h"

#include <errno.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>

enum {
    LISTENING = 1u << 10, /* TCP_LISTEN */
    APART_US = 5000,      /* between two looks for lanes that are fresh, at least, and */
    COST = 200,           /* so many times what one costs: that grows with all who listen; */
    APART_MOST_US = 20000,
};

unsigned rc_group_members(const struct rc_group *group)
{
    return group->count + group->guest_count;
}

/* The last takes that place. True if it was another. */
static bool move_last(struct rc_group *group, unsigned place)
{
    unsigned last = rc_group_members(group) - 1;
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->index == last) {
            group->lanes[at]->index = place;
            return last != place;
        }
    for (unsigned at = 0; at < group->guest_count; at++)
        if (group->guests[at].index == last) {
            group->guests[at].index = place;
            return last != place;
        }
    return false;
}

void rc_order_take_out(struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    unsigned at = 0;
    while (group->lanes[at] != lane)
        at++;
    (void)move_last(group, lane->index);
    group->lanes[at] = group->lanes[--group->count];
}

void rc_order_append(struct rc_group *group, struct rc_lane *lane)
{
    lane->index = rc_group_members(group);
    lane->fresh = group->fresh; /* what comes after one is no surer */
    group->lanes[group->count++] = lane;
}

/* ---- guests ------------------------------------------------------------------------ */

static bool is_at(const struct rc_flow *flow, const struct rc_key *key)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)&key->address;
    if ((int)flow->id.idiag_if != key->device || !flow->inode)
        return false;
    if (key->address.sin6_family == AF_INET)
        return flow->id.idiag_src[0] == four->sin_addr.s_addr;
    return memcmp(flow->id.idiag_src, &key->address.sin6_addr, sizeof flow->id.idiag_src) == 0;
}

static bool is_there(const struct rc_flows *flows, const struct rc_key *key, uint64_t inode)
{
    for (size_t at = 0; at < flows->count; at++)
        if (flows->all[at].inode == (uint32_t)inode && is_at(&flows->all[at], key))
            return true;
    return false;
}

/* The one that is the last of those that went, or NULL. */
static struct rc_guest *last_gone(const struct rc_group *group, const struct rc_flows *flows)
{
    struct rc_guest *last = NULL;
    for (unsigned at = 0; at < group->guest_count; at++) {
        struct rc_guest *guest = &group->guests[at];
        if ((!last || guest->index > last->index) && !is_there(flows, &group->key, guest->inode))
            last = guest;
    }
    return last;
}

static void guests_leave(struct rc_group *group, const struct rc_flows *flows)
{
    struct rc_guest *gone;
    unsigned went = 0;
    bool moved = false;
    while ((gone = last_gone(group, flows)) != NULL) {
        moved |= move_last(group, gone->index);
        *gone = group->guests[--group->guest_count];
        went++;
    }
    group->unsure |= moved && went > 1;
}

static struct rc_lane *lane_of(const struct rc_group *group, uint32_t inode)
{
    for (unsigned at = 0; at < group->count; at++)
        if ((uint32_t)group->lanes[at]->inode == inode)
            return group->lanes[at];
    return NULL;
}

static bool is_guest(const struct rc_group *group, uint32_t inode)
{
    for (unsigned at = 0; at < group->guest_count; at++)
        if (group->guests[at].inode == inode)
            return true;
    return false;
}

/* The kernel lists listeners of one address from the newest on; IPv6 with SO_REUSEPORT, as
 * all in a group are, from the oldest on (__inet_hash). So newcomers are appended in the order
 * in which they began to listen. */
static const struct rc_flow *in_turn(const struct rc_flows *flows, sa_family_t family, size_t turn)
{
    return &flows->all[family == AF_INET ? flows->count - 1 - turn : turn];
}

static int guest_comes(struct rc_group *group, uint32_t inode, unsigned index)
{
    if (group->guest_count == group->guest_room) {
        unsigned room = group->guest_room ? group->guest_room * 2 : 4;
        struct rc_guest *guests = realloc(group->guests, room * sizeof *guests);
        if (!guests)
            return -ENOMEM;
        group->guests = guests;
        group->guest_room = room;
    }
    group->guests[group->guest_count++] = (struct rc_guest){.inode = inode, .index = index};
    return 0;
}

/* The first of those that are fresh, or NULL. */
static struct rc_lane *first_fresh(const struct rc_group *group)
{
    struct rc_lane *first = NULL;
    for (unsigned at = 0; group->fresh && at < group->count; at++)
        if (group->lanes[at]->fresh && (!first || group->lanes[at]->index < first->index))
            first = group->lanes[at];
    return first;
}

/* In their places, up to that one; NULL: all. (One that is not listed any more has gone.) */
static void settle(struct rc_group *group, const struct rc_lane *up_to, unsigned *next)
{
    struct rc_lane *lane;
    while ((lane = first_fresh(group)) != NULL) {
        lane->fresh = false;
        lane->index = (*next)++;
        if (lane == up_to)
            return;
    }
}

/* `flows`: who listens at the group's port, as the kernel lists them. */
static int update(struct rc_group *group, const struct rc_flows *flows)
{
    int error = 0;
    guests_leave(group, flows);
    unsigned next = rc_group_members(group);
    for (unsigned at = 0; at < group->count; at++)
        next -= group->lanes[at]->fresh;
    for (size_t turn = 0; turn < flows->count && !error; turn++) {
        const struct rc_flow *flow = in_turn(flows, group->key.address.sin6_family, turn);
        const struct rc_lane *lane = is_at(flow, &group->key) ? lane_of(group, flow->inode) : NULL;
        if (lane && lane->fresh)
            settle(group, lane, &next);
        else if (!lane && is_at(flow, &group->key) && !is_guest(group, flow->inode))
            error = guest_comes(group, flow->inode, next++);
    }
    settle(group, NULL, &next);
    return error;
}

/* Of what is fresh still, there is no telling. */
static void stay(struct rc_group *group)
{
    for (unsigned at = 0; group->fresh && at < group->count; at++)
        group->lanes[at]->fresh = false;
    group->fresh = false;
}

/* Nobody could join before the first lane, and another network is not seen from here. */
static bool has_order(const struct rc_group *group)
{
    return group->count && group->key.type == SOCK_STREAM && !group->key.network;
}

/* Where sock_diag is refused there are no guests that we know of. */
int rc_order_look(struct rc_engine *engine, struct rc_group *group)
{
    const struct sockaddr_in6 *address = &group->key.address;
    struct rc_flows flows = {0};
    if (!has_order(group))
        return 0;
    int error =
        rc_diag_dump(engine, address->sin6_family, &address->sin6_port, 1, LISTENING, &flows);
    if (!error)
        error = update(group, &flows);
    stay(group);
    rc_flows_free(&flows);
    return error;
}

/* ---- of many groups by one dump ------------------------------------------------------ */

/* Where the worker has a lane; NULL: all; or only where there are fresh ones. */
struct meant {
    const struct rc_worker *worker;
    bool fresh;
};

static bool is_meant(const struct rc_group *group, sa_family_t family, struct meant meant)
{
    if (!has_order(group) || group->key.address.sin6_family != family ||
        (meant.fresh && !group->fresh))
        return false;
    for (unsigned at = 0; meant.worker && at < group->count; at++)
        if (rc_lane_held_by(group->lanes[at], meant.worker))
            return true;
    return !meant.worker;
}

/* By port, and those of one as the kernel has listed them. */
static int by_port(const void *a, const void *b)
{
    const struct rc_flow *one = a, *two = b;
    if (one->id.idiag_sport != two->id.idiag_sport)
        return one->id.idiag_sport < two->id.idiag_sport ? -1 : 1;
    return (one->number > two->number) - (one->number < two->number);
}

static struct rc_flows at_port(const struct rc_flows *flows, in_port_t port)
{
    size_t low = 0, high = flows->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (flows->all[middle].id.idiag_sport < port)
            low = middle + 1;
        else
            high = middle;
    }
    struct rc_flows found = {.all = flows->all + low};
    while (low + found.count < flows->count && found.all[found.count].id.idiag_sport == port)
        found.count++;
    return found;
}

static int look_at_family(struct rc_engine *engine, sa_family_t family, struct meant meant)
{
    struct rc_flows flows = {0};
    size_t groups = 0, count = 0;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        groups++;
    in_port_t *ports = calloc(groups + 1, sizeof *ports);
    if (!ports)
        return -ENOMEM;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        if (is_meant(group, family, meant))
            ports[count++] = group->key.address.sin6_port;
    int error = rc_diag_dump(engine, family, ports, count, LISTENING, &flows);
    free(ports);
    for (size_t at = 0; at < flows.count; at++)
        flows.all[at].number = (int)at;
    if (flows.count)
        qsort(flows.all, flows.count, sizeof *flows.all, by_port);
    for (struct rc_group *group = engine->groups; group; group = group->next)
        if (is_meant(group, family, meant)) {
            struct rc_flows here = at_port(&flows, group->key.address.sin6_port);
            error = error ? error : update(group, &here);
            stay(group);
        }
    rc_flows_free(&flows);
    return error;
}

/* As rc_order_look at each group where the worker has a lane; NULL: at all. */
int rc_orders_look(struct rc_engine *engine, const struct rc_worker *worker)
{
    int error = look_at_family(engine, AF_INET, (struct meant){worker, false});
    int other = look_at_family(engine, AF_INET6, (struct meant){worker, false});
    return error ? error : other;
}

/* ---- lanes that are fresh -------------------------------------------------------------- */

/* Puts them in their places. */
void rc_orders_settle(struct rc_engine *engine)
{
    if (!engine->fresh)
        return;
    int64_t began = rc_now_us();
    engine->fresh = false;
    (void)look_at_family(engine, AF_INET, (struct meant){NULL, true});
    (void)look_at_family(engine, AF_INET6, (struct meant){NULL, true});
    int64_t now = rc_now_us(), apart = (now - began) * COST;
    apart = apart < APART_US ? APART_US : apart > APART_MOST_US ? APART_MOST_US : apart;
    engine->order_at = now + apart;
}

/* As soon as it is time. */
void rc_orders_sweep(struct rc_engine *engine, int64_t now)
{
    if (engine->fresh && now >= engine->order_at)
        rc_orders_settle(engine);
    else if (engine->fresh)
        rc_sweep_at(engine, engine->order_at);
}

/* Before a lane is appended. `steered`: connections are led to it at once. */
void rc_order_expect(struct rc_engine *engine, struct rc_group *group, bool steered)
{
    int64_t now = rc_now_us();
    if (!has_order(group))
        return;
    if (steered || group->guest_count) {
        (void)rc_order_look(engine, group);
        return;
    }
    group->fresh = engine->fresh = true;
    rc_orders_sweep(engine, now);
}
