/* udpkernel.c - steering a UDP group by eBPF: flows stay where they are.
 *
 * Owns: each group's program and what it reads (bpf/shared.h, struct rc_flow_plan),
 * and the numbers of its lanes. Does not own who may be chosen (lanes.c), nor which
 * bucket is whose (udpflow.c): a flow that was not seen before goes by that.
 *
 * Without the privilege there is none of it, and flows move at once where the
 * classic program of udpflow.c says.
 *
 * Invariant: all buckets change in one step, the store to the version.
 */
#include "steer/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#ifndef SO_ATTACH_REUSEPORT_EBPF
#define SO_ATTACH_REUSEPORT_EBPF 52
#endif

struct rc_udp_plan {
    struct rc_flow_plan *shared;
    int lanes, flows, program; /* descriptors */
    bool attached;
    bool taken[RC_FLOW_LANES];
};

/* Closes only, so that a forked child may do it too. */
void rc_udp_plan_close(const struct rc_udp_plan *plan)
{
    int lanes = plan->lanes, flows = plan->flows, program = plan->program;
    rc_bpf_unshare(plan->shared, sizeof *plan->shared);
    rc_close(&lanes);
    rc_close(&flows);
    rc_close(&program);
}

void rc_udp_plan_free(struct rc_group *group)
{
    if (group->flows)
        rc_udp_plan_close(group->flows);
    free(group->flows);
    group->flows = NULL;
}

/* Of maps that are there already, or (-1) of new ones. Takes them. */
static int plan_new(struct rc_udp_plan **out, int lanes, int flows)
{
    struct rc_udp_plan *plan = calloc(1, sizeof *plan);
    void *shared = NULL;
    int map = -1, error = 0;
    if (!plan) {
        rc_close(&lanes);
        rc_close(&flows);
        return -ENOMEM;
    }
    plan->program = -1;
    plan->taken[0] = true; /* nobody's */
    error = plan->lanes = lanes < 0 ? rc_bpf_sockarray(RC_FLOW_LANES) : lanes;
    plan->flows = flows;
    if (error >= 0 && flows < 0)
        error = plan->flows = rc_bpf_flows();
    if (error >= 0)
        error = map = rc_bpf_shared(1, sizeof *plan->shared, &shared);
    plan->shared = shared;
    if (error >= 0) {
        const int maps[RC_MAPS] = {
            [RC_MAP_LANES] = plan->lanes, [RC_MAP_PLAN] = map, [RC_MAP_FLOWS] = plan->flows};
        error = plan->program = rc_bpf_load(RC_BPF_FLOWS, maps, 0, NULL, 0);
    }
    rc_close(&map); /* the program keeps it */
    if (error < 0) {
        rc_udp_plan_close(plan);
        free(plan);
        return error;
    }
    *out = plan;
    return 0;
}

/* ---- for the master that takes this one's place (carry/) -------------------------------- */

/* A socket can be in one such map only, so the next master has to have this one. */
void rc_udp_carry(const struct rc_group *group, int *lanes, int *flows)
{
    *lanes = group->flows ? group->flows->lanes : -1;
    *flows = group->flows ? group->flows->flows : -1;
}

/* Without the privilege, which was there, flows go by their buckets from now on. */
void rc_udp_resume(struct rc_group *group, int lanes, int flows)
{
    if (lanes >= 0 && plan_new(&group->flows, lanes, flows) < 0)
        group->flows_stay_ms = 0;
}

void rc_udp_known(struct rc_lane *lane, uint32_t number)
{
    struct rc_udp_plan *plan = lane->group->flows;
    if (!plan || !number || number >= RC_FLOW_LANES)
        return;
    plan->taken[number] = true;
    lane->number = number;
}

static int lane_enter(struct rc_udp_plan *plan, struct rc_lane *lane)
{
    uint64_t descriptor = (uint64_t)lane->source.fd;
    uint32_t number = 1;
    while (number < RC_FLOW_LANES && plan->taken[number])
        number++;
    if (number == RC_FLOW_LANES)
        return -ENOSPC;
    int error = rc_bpf_update(plan->lanes, number, &descriptor);
    if (error)
        return error;
    plan->taken[number] = true;
    lane->number = number;
    return 0;
}

/* The lane leaves its group, and with that the sockarray. */
void rc_udp_forget(struct rc_group *group, struct rc_lane *lane)
{
    if (!group->flows || !lane->number)
        return;
    __atomic_store_n(&group->flows->shared->until[lane->number], 0, __ATOMIC_RELAXED);
    group->flows->taken[lane->number] = false;
    lane->number = 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* How long a lane that is not chosen any more keeps its flows. */
static void let_keep(struct rc_group *group, uint64_t now)
{
    for (unsigned at = 0; at < group->count; at++) {
        const struct rc_lane *lane = group->lanes[at];
        uint64_t *until = &group->flows->shared->until[lane->number], value = *until;
        if (!lane->number)
            continue;
        if (lane->chosen)
            value = UINT64_MAX;
        else if (lane->worker->dead || lane->deaf || lane->removing)
            value = 0;
        else if (value == UINT64_MAX)
            value = now + (uint64_t)group->flows_stay_ms * 1000000u;
        __atomic_store_n(until, value, __ATOMIC_RELAXED);
    }
}

/* 0: the program is attached, and these lanes get the new flows. Else classic BPF must. */
static int steer(struct rc_group *group, const struct rc_choice *choices, unsigned count)
{
    int error = group->flows_stay_ms ? 0 : -ENOTSUP;
    if (!error && !group->flows)
        error = plan_new(&group->flows, -1, -1);
    for (unsigned at = 0; at < group->count && !error; at++)
        if (!group->lanes[at]->number)
            error = lane_enter(group->flows, group->lanes[at]);
    if (error) {
        if (!group->flows)
            group->flows_stay_ms = 0; /* it is not allowed here: once is enough */
        return error;
    }
    struct rc_flow_plan *plan = group->flows->shared;
    uint64_t version = plan->version + 1;
    for (uint32_t bucket = 0; bucket < RC_FLOW_BUCKETS; bucket++) {
        unsigned index = rc_udp_owner(choices, count, bucket);
        plan->side[version & 1].lane[bucket] = group->lanes[index]->number;
    }
    __atomic_store_n(&plan->version, version, __ATOMIC_SEQ_CST); /* the cutover */
    let_keep(group, now_ns());
    if (group->flows->attached)
        return 0;
    error = rc_socket_set(group->lanes[0]->source.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF,
                          group->flows->program);
    group->flows->attached = !error;
    return error;
}

int rc_udp_steer(struct rc_group *group, const struct rc_choice *choices, unsigned count)
{
    if (steer(group, choices, count) == 0)
        return 0;
    int error = rc_udp_attach(group->lanes[0]->source.fd, choices, count);
    if (!error && group->flows)
        group->flows->attached = false;
    return error;
}

/* Before the first worker. */
int rc_flows_stay(rc_engine *engine, unsigned ms)
{
    engine->flows_stay_ms = ms;
    return 0;
}
