/* audit.c - what the doors have not seen: listeners of a worker that are no lanes, and
 * guests among our lanes.
 *
 * Owns nothing. io_uring can bind and listen (Linux 6.11), 32-bit programs have calls of
 * their own, static ones pass the preload library by. Nothing of that is steered to, or
 * kept at a reload; so it is told.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LISTENING = 1u << 10 }; /* TCP_LISTEN */

/* Those of our network namespace that are no lanes of ours, each once, by inode. */
static int others(struct rc_engine *engine, struct rc_flows *flows)
{
    const in_port_t any = 0;
    size_t kept = 0;
    int error = rc_diag_dump(engine, AF_INET, &any, 1, LISTENING, flows);
    if (!error || error == -ENOENT)
        error = rc_diag_dump(engine, AF_INET6, &any, 1, LISTENING, flows);
    if (error)
        return error;
    rc_flows_once(flows);
    for (size_t at = 0; at < flows->count; at++)
        if (!rc_lane_find(engine, flows->all[at].inode))
            flows->all[kept++] = flows->all[at];
    flows->count = kept;
    return 0;
}

static void place_of(const struct rc_flow *flow, struct rc_place *place)
{
    struct rc_key key = {.type = SOCK_STREAM};
    struct sockaddr_in *four = (struct sockaddr_in *)(void *)&key.address;
    key.address.sin6_family = flow->family;
    key.address.sin6_port = flow->id.idiag_sport;
    if (flow->family == AF_INET)
        four->sin_addr.s_addr = flow->id.idiag_src[0];
    else
        memcpy(&key.address.sin6_addr, flow->id.idiag_src, sizeof flow->id.idiag_src);
    *place = (struct rc_place){.listeners = 1};
    rc_key_text(&key, place->address, sizeof place->address);
}

/* The door has seen it, and let it pass: a port of its own. */
static bool has_passed(const struct rc_worker *worker, uint32_t inode)
{
    for (size_t at = 0; at < sizeof worker->passed / sizeof worker->passed[0]; at++)
        if (worker->passed[at] == inode)
            return true;
    return false;
}

void rc_worker_passed(struct rc_worker *worker, uint64_t inode)
{
    worker->passed[worker->passes++ % (sizeof worker->passed / sizeof worker->passed[0])] =
        (uint32_t)inode;
}

/* Where the worker listens behind the door's back. What the master has open too is a lane,
 * or was given to the cluster. Returns how many there are. */
int rc_unseen(rc_engine *engine, uint32_t id, struct rc_place *out, size_t room)
{
    const struct rc_worker *worker = rc_find(engine, id);
    struct rc_flows flows = {0};
    size_t count = 0;
    int error = worker && worker->process.fd >= 0 ? others(engine, &flows) : -ESRCH;
    if (!error && flows.count)
        error = rc_holders_mark(worker->pid, &flows);
    for (size_t at = 0; at < flows.count && !error; at++) {
        const struct rc_flow *flow = &flows.all[at];
        if (!flow->held || has_passed(worker, flow->inode) ||
            rc_process_holds(getpid(), flow->inode))
            continue;
        if (count++ < room)
            place_of(flow, &out[count - 1]);
    }
    rc_flows_free(&flows);
    return error ? error : (int)count;
}

/* The addresses where others listen among our lanes, as of now. */
int rc_shared(rc_engine *engine, struct rc_place *out, size_t room)
{
    size_t count = 0;
    int error = rc_orders_look(engine, NULL);
    if (error)
        return error;
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        if (!group->guest_count && !group->unsure)
            continue;
        if (count++ >= room)
            continue;
        out[count - 1] = (struct rc_place){.listeners = group->guest_count,
                                           .unsure = group->unsure && !group->plan.attached};
        rc_key_text(&group->key, out[count - 1].address, sizeof out->address);
    }
    return (int)count;
}
