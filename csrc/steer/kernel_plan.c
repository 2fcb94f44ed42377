/* kernel_plan.c - steering one group by eBPF.
 *
 * Owns: the numbers of lanes, each group's plan (bpf/shared.h), and its program's
 * attachment. Does not own who may be chosen (lanes.c).
 *
 * Invariants:
 *  - a plan changes in one step, the store to its version: until then the program
 *    reads one side, after that the other. Each entry says its version, so that
 *    a program that looked before the step, and reads after the next, knows.
 *    Every SYN after the step is given to a lane of the new side;
 *  - a lane has its number, its place in the sockarray and its mark before a plan
 *    names it;
 *  - a number is given again only when no connection counts for it any more:
 *    connections keep the mark of a lane that is gone.
 *
 * The program answers with a socket, not with an index, so lanes may come and go
 * without the moves that classic BPF asks for (lanes.c, lane_remove).
 */
#include "steer/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifndef SO_ATTACH_REUSEPORT_EBPF
#define SO_ATTACH_REUSEPORT_EBPF 52
#endif

enum { FEW_LANES = 32 };

/* ---- numbers ------------------------------------------------------------------ */

/* A free one, or 0. The one that was let go longest ago comes first. */
uint32_t rc_kernel_number(struct rc_kernel *kernel)
{
    for (unsigned tried = 0; tried < RC_NUMBERS; tried++) {
        uint32_t number = kernel->next++ % RC_NUMBERS;
        struct rc_tally *tally = &kernel->tallies[number];
        if (kernel->taken[number] || __atomic_load_n(&tally->established, __ATOMIC_ACQUIRE))
            continue;
        kernel->taken[number] = true;
        __atomic_store_n(&tally->pending, 0, __ATOMIC_RELAXED);
        return number;
    }
    return 0;
}

static int lane_enter(struct rc_kernel *kernel, struct rc_lane *lane)
{
    struct rc_mark mark = {.number = rc_kernel_number(kernel)};
    uint64_t descriptor = (uint64_t)lane->source.fd;
    if (!mark.number)
        return -ENOSPC;
    int error = 0;
    if (kernel->marks >= 0 && lane->worker)
        error = rc_bpf_update(kernel->marks, (uint32_t)lane->source.fd, &mark);
    if (!error)
        error = rc_bpf_update(kernel->lanes, mark.number, &descriptor);
    if (error)
        kernel->taken[mark.number] = false;
    else
        lane->number = mark.number;
    lane->counted = rc_kernel_accepted(lane);
    return error;
}

/* The lane leaves its group: with that the kernel takes it out of the sockarray. */
void rc_kernel_forget(struct rc_group *group, struct rc_lane *lane)
{
    rc_counts_note(lane);
    if (group->kernel && lane->number)
        group->kernel->taken[lane->number] = false;
    lane->number = 0;
}

int rc_kernel_connections(const struct rc_lane *lane)
{
    const struct rc_kernel *kernel = lane->group->kernel;
    if (!kernel || kernel->marks < 0 || !lane->number)
        return -1;
    int count = (int)__atomic_load_n(&kernel->tallies[lane->number].established, __ATOMIC_RELAXED);
    return count > lane->bells ? count - lane->bells : 0;
}

/* A connection has its lane's mark for life. It is another's from now on. */
void rc_kernel_moved(const struct rc_lane *to, struct rc_accepted *accepted)
{
    const struct rc_kernel *kernel = to->group->kernel;
    const struct rc_mark mark = {.number = to->number, .counted = 1};
    if (!kernel || kernel->marks < 0 || !accepted->number || !to->number ||
        accepted->number == to->number)
        return;
    if (rc_bpf_update(kernel->marks, (uint32_t)accepted->fd, &mark) < 0)
        return; /* it goes on counting for who had it */
    (void)__atomic_sub_fetch(&kernel->tallies[accepted->number].established, 1, __ATOMIC_RELAXED);
    (void)__atomic_add_fetch(&kernel->tallies[to->number].established, 1, __ATOMIC_RELAXED);
    accepted->number = to->number;
}

/* Connections that lanes of this number ever got; 0 where nobody counts. */
uint64_t rc_kernel_accepted(const struct rc_lane *lane)
{
    const struct rc_kernel *kernel = lane->group->kernel;
    if (!kernel || kernel->marks < 0 || !lane->number)
        return 0;
    return __atomic_load_n(&kernel->tallies[lane->number].accepted, __ATOMIC_RELAXED);
}

/* ---- a group's plan --------------------------------------------------------------- */

/* For as many lanes at least. Without CAP_PERFMON the verifier may want all that there is room
 * for (bpf/shared.h). */
int rc_kernel_plan_new(struct rc_kernel *kernel, struct rc_kernel_plan *plan, unsigned lanes,
                       const char **refused)
{
    void *shared = NULL;
    unsigned room =
        lanes > FEW_LANES || kernel->policy == RC_BALANCE_ROUND_ROBIN ? RC_PLAN_LANES : FEW_LANES;
    *refused = "bpf";
    int map = rc_bpf_shared(1, sizeof(struct rc_plan), &shared);
    if (map < 0)
        return map;
    const int maps[RC_MAPS] = {kernel->lanes, kernel->marks, kernel->tallies_map, map};
    enum rc_bpf_program which =
        kernel->policy == RC_BALANCE_ROUND_ROBIN ? RC_BPF_ROUND_ROBIN : RC_BPF_LEAST_CONNECTIONS;
    *refused = "bpf: SK_REUSEPORT";
    int program = rc_bpf_load(which, maps, room, NULL, 0);
    if (program < 0 && room < RC_PLAN_LANES)
        program = rc_bpf_load(which, maps, room = RC_PLAN_LANES, NULL, 0);
    rc_close(&map); /* the program and our mapping keep it */
    if (program < 0) {
        rc_bpf_unshare(shared, sizeof(struct rc_plan));
        return program;
    }
    *plan = (struct rc_kernel_plan){.shared = shared, .program = program, .room = room};
    return 0;
}

void rc_kernel_plan_free(struct rc_kernel_plan *plan)
{
    if (!plan->shared)
        return;
    rc_bpf_unshare(plan->shared, sizeof(struct rc_plan));
    rc_close(&plan->program);
    *plan = (struct rc_kernel_plan){0};
}

/* One that looks at all that are chosen. The program of the one before goes on until this one
 * is attached. */
static int take_plan(struct rc_group *group)
{
    const char *refused;
    struct rc_kernel_plan *spare = &group->kernel->spare, plan = *spare;
    unsigned chosen = 0;
    for (unsigned at = 0; at < group->count; at++)
        chosen += group->lanes[at]->chosen;
    if (chosen > RC_PLAN_LANES)
        return -E2BIG;
    if (group->plan.shared && group->plan.room >= chosen)
        return 0;
    if (spare->shared && spare->room >= chosen) {
        *spare = (struct rc_kernel_plan){0};
    } else {
        int error = rc_kernel_plan_new(group->kernel, &plan, chosen, &refused);
        if (error)
            return error;
    }
    rc_kernel_plan_free(&group->plan);
    group->plan = plan;
    return 0;
}

static int by_worker(const void *left, const void *right)
{
    const struct rc_lane *a = *(struct rc_lane *const *)left, *b = *(struct rc_lane *const *)right;
    if (a->worker != b->worker)
        return a->worker->id < b->worker->id ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

static void set(uint32_t *entry, uint32_t value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELAXED);
}

/* Fills the side; returns how many lanes it has, or -errno. Where nobody may be
 * chosen the sink is. */
static int fill(struct rc_group *group, struct rc_side *side, uint64_t version)
{
    struct rc_lane **lanes = group->kernel->sorted;
    unsigned count = 0, workers = 0;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        int error = lane->number ? 0 : lane_enter(group->kernel, lane);
        if (error && error != -EINVAL)
            return error;
        if (error || !lane->chosen) /* EINVAL: its worker has shut it down just now */
            continue;
        if (count == RC_PLAN_LANES)
            return -E2BIG;
        lanes[count++] = lane;
    }
    qsort(lanes, count, sizeof(struct rc_lane *), by_worker);
    side->sink = group->sink ? group->sink->number : 0;
    for (unsigned at = 0; at < count; at++) {
        if (at == 0 || lanes[at]->worker != lanes[at - 1]->worker)
            side->first[workers++] = at;
        set(&side->entry[at], RC_ENTRY(lanes[at]->number, version));
    }
    if (count == 0 && side->sink) {
        side->first[workers++] = 0;
        set(&side->entry[count++], RC_ENTRY(side->sink, version));
    }
    side->first[workers] = count;
    set(&side->entry[count], RC_NO_LANE);
    side->workers = workers;
    side->lanes = count;
    return (int)count;
}

static bool same(const struct rc_side *a, const struct rc_side *b)
{
    for (unsigned at = 0; at < a->lanes && at < b->lanes; at++)
        if (RC_ENTRY_NUMBER(a->entry[at]) != RC_ENTRY_NUMBER(b->entry[at]))
            return false;
    return a->workers == b->workers && a->lanes == b->lanes && a->sink == b->sink &&
           memcmp(a->first, b->first, a->workers * sizeof *a->first) == 0;
}

/* 0: the program is attached, and chooses among the chosen lanes from now on.
 * Else it does not, and classic BPF must (-ENOTSUP: this engine has no eBPF, or the
 * weights differ, as with a canary: turns know nothing of parts). */
int rc_kernel_steer(struct rc_group *group)
{
    if (!group->kernel || group->weighed)
        return -ENOTSUP;
    int error = take_plan(group);
    if (error)
        return error;
    struct rc_plan *plan = group->plan.shared;
    uint64_t version = plan->version;
    struct rc_side *fresh = &plan->side[(version + 1) & 1];
    int count = fill(group, fresh, version + 1);
    if (count < 0)
        return count;
    if (count == 0) /* and no sink: as classic BPF does, leave it as it is */
        return group->plan.attached ? 0 : -ENOENT;
    if (!group->plan.attached || !same(fresh, &plan->side[version & 1]))
        __atomic_store_n(&plan->version, version + 1, __ATOMIC_SEQ_CST); /* the cutover */
    if (group->plan.attached)
        return 0;
    error = rc_socket_set(group->lanes[0]->source.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF,
                          group->plan.program);
    group->plan.attached = !error;
    return error;
}
