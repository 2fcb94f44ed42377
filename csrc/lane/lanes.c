/* lanes.c - groups, their lanes, and who may be chosen.
 *
 * Owns: the master's duplicate of every lane, and the order of lanes in the
 * kernel's reuseport group. Does not own the doors a call comes through.
 *
 * Invariants:
 *  - each lane's index is what the kernel has it at (order.c);
 *  - a lane leaves the group only when no process can still poll it: shutting
 *    down a polled listener makes every event loop spin and resets its queue;
 *  - each group has a sink (sink.c) among its lanes, the one without a worker;
 *  - no lane is ever wrapped by anything that touches O_NONBLOCK: that flag
 *    belongs to the description which the worker shares.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

int rc_lanes_resteer(struct rc_engine *engine)
{
    int first = 0;
    rc_orders_settle(engine);
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        int error = rc_group_steer(group);
        first = first ? first : error;
        rc_group_changed(engine, group);
    }
    return first;
}

int rc_steer(rc_engine *engine, const struct rc_live *live, size_t count)
{
    for (size_t at = 0; at < count; at++)
        if (!(live[at].weight >= 0 && live[at].weight <= 1e15)) /* a NaN is neither */
            return -EINVAL;
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        worker->live = false;
        for (size_t at = 0; at < count; at++)
            if (live[at].worker == worker->id) {
                worker->live = true;
                worker->weight = live[at].weight;
            }
    }
    for (struct rc_group *group = engine->groups; group; group = group->next)
        group->attached.length = 0;
    int error = rc_lanes_resteer(engine);
    rc_live_changed(engine, count > 0);
    return error;
}

int rc_balance(rc_engine *engine, enum rc_policy policy)
{
    if (engine->groups)
        return -EBUSY;
    engine->policy = policy;
    return 0;
}

/* ---- groups ------------------------------------------------------------------ */

void rc_group_free_if_empty(struct rc_engine *engine, struct rc_group *group)
{
    if (group->count)
        return;
    struct rc_group **link = &engine->groups;
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    rc_table_remove_group(&engine->table, group);
    rc_group_goes(engine, group);
    rc_kernel_plan_free(&group->plan);
    rc_udp_plan_free(group);
    free(group->lanes);
    free(group->guests);
    free(group->attached.text);
    rc_bury(engine, group);
}

/* ---- adding and removing lanes ------------------------------------------------ */

/* As the kernel does: the last one moves into its place. */
static void lane_take_out(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    rc_lane_calm(lane);
    rc_kernel_forget(group, lane);
    rc_udp_forget(group, lane);
    rc_order_take_out(lane);
    rc_table_remove_lane(&engine->table, lane);
}

static bool has_worker(const struct rc_group *group)
{
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->worker)
            return true;
    return false;
}

/* The kernel has taken (or is about to take) the lane out of its group. */
void rc_lane_forget(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    struct rc_worker *worker = lane->worker;
    rc_proof_end(engine, lane);
    rc_lane_goes(engine, lane);
    lane_take_out(engine, lane);
    rc_lane_unshare(lane);
    if (group->sink == lane)
        group->sink = NULL;
    if (group->front == lane)
        group->front = NULL;
    rc_source_shut(engine->epoll, &lane->source);
    rc_close(&lane->knocking);
    (void)rc_group_steer(group);
    rc_bury(engine, lane);
    rc_proof_settle(engine, worker, false);
    if (group->count && !has_worker(group))
        rc_lane_forget(engine, group->lanes[group->count - 1]); /* the last one locks up */
    else
        rc_group_free_if_empty(engine, group);
}

/* Removing moves the last lane to a new index, and no program can be right
 * before and after at once, so the moving one is not chosen meanwhile. Where it
 * is the only one that may be, the sink is: a SYN that meets the move is dropped
 * and comes again, it never reaches a wrong lane. The caller has looked at the order. */
int rc_lane_remove(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    unsigned members = rc_group_members(group), last = members - 1;
    lane->removing = true;
    (void)rc_group_choose(group);
    int error = rc_group_attach(group, lane->index == last ? members : last);
    if (error) { /* no memory: with the old program a removal would be wrong */
        lane->removing = false;
        (void)rc_group_choose(group);
        return error;
    }
    if (group->key.type == SOCK_DGRAM) {
        struct sockaddr_in6 itself;
        rc_reachable(&group->key, &itself);
        rc_udp_retire(lane->source.fd, &itself);
    }
    (void)shutdown(lane->source.fd, SHUT_RDWR);
    rc_lane_forget(engine, lane);
    return 0;
}

/* In dispatch: what the worker shut down is not its listener but the end of a pair that
 * lies in its place. It meant the listener. */
void rc_lanes_shut(struct rc_engine *engine, struct rc_lane *lane)
{
    rc_lane_shut_down(engine, lane);
    rc_lane_goes(engine, lane);
    (void)rc_order_look(engine, lane->group);
    (void)rc_lane_remove(engine, lane); /* no memory: nobody is told by it any more */
}

/* A socket that was shut down may listen again (inet_shutdown, tcp_disconnect). It
 * has kept its address, but its port only if it was bound to a given one: else
 * getsockname still tells it (inet_sport), but it is given up (inet_num). */
static int listen_again(const struct rc_lane *lane)
{
    struct sockaddr_in6 address = lane->group->key.address;
    int fd = lane->source.fd, reuse = rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR);
    int error = 0;
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* as in bind.c */
    if (bind(fd, (struct sockaddr *)&address, rc_address_length(&address)) < 0 && errno != EINVAL)
        error = -errno; /* EINVAL: it has its port */
    if (!error && listen(fd, (int)lane->backlog) < 0)
        error = -errno;
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, reuse);
    return error;
}

/* A worker shut its own listener down (grpcio's stop() does): the kernel has
 * removed it already and moved the last one. Others that share the lane need it
 * still. What waited in it is lost, by that worker's doing. */
void rc_lanes_hup(struct rc_engine *engine, struct rc_lane *lane)
{
    (void)rc_order_look(engine, lane->group);
    if (!lane->others || rc_lane_all_dead(lane)) {
        rc_lane_shut_down(engine, lane);
        rc_lane_forget(engine, lane);
        return;
    }
    struct rc_group *group = lane->group;
    rc_proof_end(engine, lane);
    lane_take_out(engine, lane);
    (void)rc_group_append(engine, group, lane); /* there is room: it was in */
    group->attached.length = 0;                 /* a group of one has begun anew */
    if (listen_again(lane) < 0)
        rc_lane_forget(engine, lane);
    else
        (void)rc_group_steer(group);
}

/* Gives the group its sink. Without one (its socket cannot be made, or not be
 * filled) nothing is lost, but clients that come while nobody may be chosen are
 * taken by whoever listens. */
void rc_group_add_sink(struct rc_engine *engine, struct rc_group *group)
{
    struct rc_lane *sink = calloc(1, sizeof *sink);
    if (sink)
        rc_lane_init(sink);
    struct rc_detour detour = {.index = rc_group_members(group)};
    int client = sink ? rc_sink_client(&group->key, &detour.port) : -1;
    int fd = client >= 0 ? rc_sibling_listen(&group->key, group->lanes[0]->source.fd, 0) : -1;
    if (fd >= 0)
        sink->inode = rc_socket_inode(fd);
    int error = fd >= 0 ? rc_group_append(engine, group, sink) : -1;
    if (!error) {
        error = rc_source_add(engine->epoll, &sink->source, RC_SOURCE_LANE, fd, 0);
        if (error)
            rc_group_retract(engine, group, sink);
    }
    if (error) { /* closing it takes it out of the kernel's group: it was the last */
        rc_close(&fd);
        free(sink);
    } else {
        /* Until it is full, all but our own client go to the first lane, live or
         * not: a stranger in the sink's queue would never be served. */
        struct rc_choice first = {.index = group->lanes[0]->index};
        group->attached.length = 0;
        error = rc_steering_attach(group->lanes[0]->source.fd, group->policy, &first, 1, &detour);
        if (!error)
            error = rc_sink_fill(fd, client, &group->key);
        if (!error) {
            group->sink = sink;
            (void)rc_group_steer(group);
        } else {
            rc_lane_forget(engine, sink); /* closing it removes it: it is the last */
        }
    }
    rc_close(&client);
}

/* Of a UDP lane whose worker is gone. A removal moves the last lane to another index,
 * and while it moves no program is right: its flows would meet another worker. So a
 * lane becomes nobody's, with nothing in it, and is the next one's that binds; it is
 * removed when it is the last. */
int rc_lane_vacate(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    struct rc_worker *nobody = rc_nobody(engine);
    if (!nobody)
        return -ENOMEM;
    lane->worker = nobody;
    lane->deaf = false;
    rc_udp_leave_groups(lane->source.fd);
    rc_udp_empty(lane->source.fd);
    (void)rc_group_steer(group);
    for (unsigned last = group->count; last-- > 0;) {
        struct rc_lane *tail = group->lanes[last];
        if (tail->worker != engine->unowned || tail->inherited || rc_lane_remove(engine, tail) < 0)
            break;
    }
    return 0;
}

/* Of an inherited one: as at the beginning. */
static void lane_return(struct rc_engine *engine, struct rc_lane *lane)
{
    lane->worker = engine->unowned;
    lane->party = 0;
    lane->deaf = false;
    (void)rc_group_steer(lane->group);
}

/* 0, or -errno with some lanes left: call again later. */
int rc_lanes_drop(struct rc_engine *engine, struct rc_worker *worker)
{
    int first = 0;
    rc_unix_drop(engine, worker);
    (void)rc_orders_look(engine, worker);
    for (struct rc_group *group = engine->groups, *next; group; group = next) {
        next = group->next; /* the group goes with its last lane */
        for (unsigned at = group->count; at-- > 0;) {
            struct rc_lane *lane = group->lanes[at];
            int error = 0;
            if (rc_lane_leave(lane, worker)) {
                error = rc_group_steer(group);
            } else if (!rc_lane_held_by(lane, worker)) {
                continue;
            } else if (lane->inherited) {
                lane_return(engine, lane);
            } else if (group->key.type == SOCK_DGRAM) {
                error = rc_lane_vacate(engine, lane);
            } else {
                error = rc_lane_remove(engine, lane);
            }
            at = group->count < at ? group->count : at; /* more may have gone, the sink too */
            first = first ? first : error;
        }
    }
    return first;
}

int rc_close_lanes(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    int first = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++)
            if (id == 0 || (rc_lane_held_by(group->lanes[at], worker) &&
                            !rc_lane_has_others(group->lanes[at], worker)))
                group->lanes[at]->closing = true;
        int error = rc_group_steer(group);
        first = first ? first : error;
    }
    if (id == 0)
        rc_unix_close(engine);
    return first;
}

/* ---- facts ------------------------------------------------------------------------------- */

int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room)
{
    size_t count = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        char address[sizeof out->address];
        rc_key_text(&group->key, address, sizeof address);
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            if (lane->worker ? lane->worker == engine->unowned : lane != group->front)
                continue;
            if (count++ >= room)
                continue;
            struct rc_lane_facts *facts = &out[count - 1];
            *facts = (struct rc_lane_facts){.worker = lane->worker ? lane->worker->id : 0,
                                            .chosen = lane->chosen};
            facts->holders = rc_lane_holders(lane);
            facts->pressure = (int)rc_lane_pressure(lane);
            facts->queued = rc_lane_queued(lane, &facts->backlog);
            facts->connections = rc_kernel_connections(lane);
            memcpy(facts->address, address, sizeof address);
        }
    }
    return (int)rc_unix_lanes(engine, out, room, count);
}
