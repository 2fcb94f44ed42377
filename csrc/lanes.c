/* lanes.c - groups, their lanes, and who may be chosen.
 *
 * Owns: the master's duplicate of every lane, and the order of lanes in the
 * kernel's reuseport group. Does not own the doors a call comes through.
 *
 * Invariants:
 *  - group->lanes[i] is the kernel's socks[i]: appended at listen, and on
 *    removal the last moves into the hole (net/core/sock_reuseport.c);
 *  - a lane leaves the group only when no process can still poll it: shutting
 *    down a polled listener makes every event loop spin and resets its queue;
 *  - no lane is ever wrapped by anything that touches O_NONBLOCK: that flag
 *    belongs to the description which the worker shares.
 */
#include "internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- steering a group ------------------------------------------------------ */

enum level { NEVER, ORPHAN, LIVE };

static enum level lane_level(const struct rc_lane *lane)
{
    if (!lane->worker->live || lane->removing)
        return NEVER;
    return lane->worker->dead ? ORPHAN : LIVE;
}

static void lane_set_deaf(struct rc_lane *lane, bool deaf)
{
    if (lane->deaf == deaf)
        return;
    if ((deaf ? rc_steering_deafen : rc_steering_hear)(lane->source.fd) == 0)
        lane->deaf = deaf;
}

/* Attaches a program over the chosen lanes below index `limit`. */
static int group_attach(const struct rc_group *group, unsigned limit)
{
    struct rc_choice *choices = calloc(group->count, sizeof *choices);
    unsigned count = 0;
    if (!choices)
        return -ENOMEM;
    for (unsigned at = 0; at < group->count && at < limit; at++)
        if (group->lanes[at]->chosen)
            choices[count++] = (struct rc_choice){at, group->lanes[at]->worker->id};
    /* Nothing to choose: leave the program there is. Lanes are deaf then. */
    int error = count ? rc_steering_attach(group->lanes[0]->source.fd, choices, count) : 0;
    free(choices);
    return error;
}

void rc_group_choose(struct rc_group *group)
{
    enum level best = NEVER;
    for (unsigned at = 0; at < group->count; at++) {
        enum level level = lane_level(group->lanes[at]);
        best = level > best ? level : best;
    }
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        lane->chosen = best != NEVER && lane_level(lane) == best;
    }
}

/* With nobody to choose, new connections are neither refused nor taken: each
 * lane is deaf until one goes live (a worker that listens before it is ready). */
void rc_group_steer(struct rc_group *group)
{
    bool any = false;
    if (group->count == 0)
        return;
    rc_group_choose(group);
    for (unsigned at = 0; at < group->count; at++)
        any |= group->lanes[at]->chosen;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (lane->chosen && !lane->closing)
            lane_set_deaf(lane, false);
    }
    (void)group_attach(group, group->count);
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (lane->closing || !any)
            lane_set_deaf(lane, true);
    }
}

void rc_lanes_resteer(struct rc_engine *engine)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        rc_group_steer(group);
}

int rc_steer(rc_engine *engine, const uint32_t *live, size_t count)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        worker->live = false;
        for (size_t at = 0; at < count; at++)
            worker->live |= live[at] == worker->id;
    }
    rc_lanes_resteer(engine);
    return 0;
}

/* ---- groups ------------------------------------------------------------------ */

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
    group->next = engine->groups;
    engine->groups = group;
    return group;
}

void rc_group_free_if_empty(struct rc_engine *engine, struct rc_group *group)
{
    if (group->count)
        return;
    struct rc_group **link = &engine->groups;
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    free(group->lanes);
    rc_bury(engine, group);
}

/* ---- adding and removing lanes ------------------------------------------------ */

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

static unsigned lane_index(const struct rc_lane *lane)
{
    unsigned at = 0;
    while (lane->group->lanes[at] != lane)
        at++;
    return at;
}

/* The kernel has taken (or is about to take) the lane out of its group. */
static void lane_forget(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    group->lanes[lane_index(lane)] = group->lanes[group->count - 1];
    group->count--;
    rc_source_shut(engine->epoll, &lane->source);
    rc_group_steer(group);
    rc_group_free_if_empty(engine, group);
    rc_bury(engine, lane);
}

/* Removing moves the last lane to a new index, and no program can be right
 * before and after at once, so the moving one is not chosen meanwhile. Where it
 * is the only one that may be chosen, the others are deafened instead: a SYN
 * that meets the move is dropped and comes again, it never reaches a wrong lane. */
static void lane_remove(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    unsigned last = group->count - 1;
    lane->removing = true;
    rc_group_choose(group);
    if (lane_index(lane) != last && group->lanes[last]->chosen) {
        bool others = false;
        for (unsigned at = 0; at < last; at++)
            others |= group->lanes[at]->chosen;
        if (others)
            (void)group_attach(group, last);
        else
            for (unsigned at = 0; at < last; at++)
                lane_set_deaf(group->lanes[at], true);
    } else {
        (void)group_attach(group, group->count);
    }
    (void)shutdown(lane->source.fd, SHUT_RDWR);
    lane_forget(engine, lane);
}

/* A worker shut its own listener down (grpcio's stop() does): the kernel has
 * removed it already and moved the last one. */
void rc_lanes_hup(struct rc_engine *engine, struct rc_lane *lane)
{
    lane_forget(engine, lane);
}

void rc_lanes_drop(struct rc_engine *engine, struct rc_worker *worker)
{
    for (struct rc_group *group = engine->groups, *next; group; group = next) {
        next = group->next; /* the group goes with its last lane */
        for (unsigned at = group->count; at-- > 0;)
            if (group->lanes[at]->worker == worker)
                lane_remove(engine, group->lanes[at]);
    }
}

int rc_close_lanes(rc_engine *engine, uint32_t id)
{
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++)
            if (id == 0 || group->lanes[at]->worker->id == id)
                group->lanes[at]->closing = true;
        rc_group_steer(group);
    }
    return 0;
}

struct rc_lane *rc_lane_find(struct rc_engine *engine, uint64_t inode)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->inode == inode)
                return group->lanes[at];
    return NULL;
}

/* ---- facts ------------------------------------------------------------------------------- */

/* For a listener tcpi_unacked is the length of its accept queue and tcpi_sacked
 * its limit (tcp_get_info, net/ipv4/tcp.c). */
static unsigned lane_queued(const struct rc_lane *lane, unsigned *limit)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(lane->source.fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        return 0;
    if (limit)
        *limit = info.tcpi_sacked;
    return info.tcpi_unacked;
}

int rc_queued(rc_engine *engine, uint32_t id)
{
    unsigned queued = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->worker->id == id)
                queued += lane_queued(group->lanes[at], NULL);
    return (int)queued;
}

int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room)
{
    size_t count = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++, count++) {
            const struct rc_lane *lane = group->lanes[at];
            if (count >= room)
                continue;
            struct rc_lane_facts *facts = &out[count];
            *facts = (struct rc_lane_facts){.worker = lane->worker->id,
                                            .chosen = lane->chosen && !lane->deaf};
            facts->queued = lane_queued(lane, &facts->backlog);
            rc_address_text(&group->key.address, facts->address, sizeof facts->address);
        }
    return (int)count;
}
