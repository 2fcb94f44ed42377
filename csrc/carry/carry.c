/* carry.c - what this master hands to the one that takes its place by execve: written down, and
 * its descriptors kept open.
 *
 * Owns: whether that can be now (nothing is half-way that only this process knows), and the
 * writing. Does not own how it is read (resume.c).
 *
 * Not handed on, because it is made anew at no cost to anybody: the epoll set, timers, the order
 * of preference among lanes, programs (the one that is attached stays in force until its
 * successor takes its place in one step).
 *
 * Invariant: what is written down is at rest. A call of a worker that comes meanwhile waits in
 * the kernel, as long as a descriptor of its door is open.
 */
#include "internal.h"

#include "carry/carry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

/* ---- whether it can be --------------------------------------------------------------- */

static const char *worker_hinders(const struct rc_worker *worker)
{
    const struct rc_channel *channel = &worker->channel;
    if (worker->dead || worker->leaving || worker->process.fd < 0 || !channel->greeted)
        return "a worker begins or ends";
    if (rc_channel_has_line(channel) || channel->discarding)
        return "a worker says something";
    if (worker->leave.began_at || worker->move.began_at || worker->question.asked_at ||
        worker->given_up)
        return "connections move from a worker to another";
    return NULL;
}

static const char *group_hinders(const struct rc_group *group)
{
    if ((group->undelivered && !group->front) || group->ringing || group->held)
        return "connections are on their way to a worker";
    for (unsigned at = 0; at < group->count; at++) {
        const struct rc_lane *lane = group->lanes[at];
        if (rc_proof_pending(lane) || lane->proof.look_at || lane->bells)
            return "it is found out whether a worker accepts";
        if (lane->removing || lane->closing)
            return "a listener is being closed";
    }
    return NULL;
}

/* What is under way, or NULL. */
const char *rc_carry_hindrance(rc_engine *engine)
{
    if (engine->looks || engine->callers || engine->turns || engine->waits)
        return "a worker binds or listens";
    if (engine->rings.all || engine->handover.all)
        return "connections move from a worker to another";
    const char *what = rc_carry_unix_hinders(engine);
    for (const struct rc_worker *worker = engine->workers; worker && !what; worker = worker->next)
        what = worker_hinders(worker);
    for (const struct rc_group *group = engine->groups; group && !what; group = group->next)
        what = group_hinders(group);
    return what;
}

/* ---- writing ---------------------------------------------------------------------------- */

static struct rc_bytes bytes(const void *at, size_t length)
{
    return (struct rc_bytes){.at = (char *)at, .length = length};
}

static struct rc_bytes buffered(const struct rc_buffer *buffer)
{
    return bytes(buffer->bytes + buffer->start, buffer->end - buffer->start);
}

static void write_engine(struct rc_carry_text *text, const struct rc_engine *engine)
{
    struct rc_carried record = {.kind = RC_CARRIED_ENGINE};
    struct rc_kernel_maps maps;
    struct rc_open *opens;
    size_t count;
    rc_kernel_carry(engine, &maps);
    text->failed |= rc_opens_carry(engine, &opens, &count) < 0;
    record.is.engine = (struct rc_carried_engine){
        .format = RC_CARRY_FORMAT,
        .guard = engine->guard.pid,
        .line = engine->guard.line,
        .shim = engine->shim.port.fd,
        .token = (int64_t)engine->shim.token,
        .limited = engine->limited,
        .limit = (int64_t)engine->limit_before.rlim_cur,
        .limit_most = (int64_t)engine->limit_before.rlim_max,
        .expects_paths = engine->expects_paths,
        .bells = engine->rings.memory,
        .bells_shown = engine->rings.shown,
        .bpf_lanes = maps.lanes,
        .bpf_marks = maps.marks,
        .bpf_tallies = maps.tallies,
        .bpf_link = maps.link,
        .dispatches = engine->dispatch.on,
        .opens = bytes(opens, count * sizeof *opens),
    };
    rc_carry_write(text, &record);
    free(opens);
}

static void write_worker(struct rc_carry_text *text, const struct rc_worker *worker)
{
    struct rc_carried record = {.kind = RC_CARRIED_WORKER};
    record.is.worker = (struct rc_carried_worker){
        .id = worker->id,
        .generation = worker->generation,
        .slot = worker->slot,
        .party = worker->party,
        .pid = worker->pid,
        .born = worker->born.tv_sec,
        .born_ns = worker->born.tv_nsec,
        .process = worker->process.fd,
        .channel = worker->channel_source.fd,
        .channel_inode = (int64_t)worker->channel_inode,
        .door = worker->door.fd,
        .adopted = worker->adopted,
        .accepts = worker->accepts,
        .unproven = worker->unproven,
        .seen_waiting = worker->seen_waiting,
        .inscrutable = worker->inscrutable,
        .blind = worker->blind,
        .lies = worker->lies,
        .unlinks_seen = worker->unlinks_seen,
        .receives = worker->receives,
        .accepted = (int64_t)worker->accepted,
        .passes = worker->passes,
        .takes = worker->takes,
        .took = worker->took,
        .given = (int64_t)worker->given,
        .forgiven = (int64_t)worker->forgiven,
        .passed = bytes(worker->passed, sizeof worker->passed),
        .pending = bytes(worker->pending, worker->pendings * sizeof *worker->pending),
        .zeros = bytes(worker->zeros, sizeof worker->zeros),
        .heard = buffered(&worker->channel.in),
        .unsent = buffered(&worker->channel.out),
    };
    rc_carry_write(text, &record);
}

static void write_lane(struct rc_carry_text *text, const struct rc_lane *lane)
{
    struct rc_carried record = {.kind = RC_CARRIED_LANE};
    unsigned holders = rc_lane_holders(lane);
    uint32_t *others = calloc(holders + 1, sizeof *others);
    text->failed |= !others;
    if (!others)
        return;
    size_t count = rc_lane_others(lane, others, holders);
    record.is.lane = (struct rc_carried_lane){
        .fd = lane->source.fd,
        .worker = lane->worker ? lane->worker->id : 0,
        .party = lane->party,
        .index = lane->index,
        .pid = lane->pid,
        .descriptor = lane->descriptor,
        .number = lane->number,
        .counted = (int64_t)lane->counted,
        .backlog = lane->backlog,
        .inherited = lane->inherited,
        .ours = lane->ours,
        .deaf = lane->deaf,
        .by_leader = lane->by_leader,
        .proven = lane->proof.proven,
        .front = lane == lane->group->front,
        .pair = lane->receiver.pair.fd,
        .theirs = lane->receiver.theirs,
        .pair_inode = (int64_t)lane->receiver.inode,
        .offered = lane->receiver.offered,
        .late = lane->receiver.late,
        .others = bytes(others, count * sizeof *others),
    };
    rc_carry_write(text, &record);
    free(others);
}

static void write_group(struct rc_carry_text *text, const struct rc_group *group)
{
    struct rc_carried record = {.kind = RC_CARRIED_GROUP};
    struct rc_bytes undelivered = rc_carry_undelivered(group);
    int lanes, flows;
    rc_udp_carry(group, &lanes, &flows);
    text->failed |= undelivered.length && !undelivered.at;
    record.is.group = (struct rc_carried_group){
        .key = bytes(&group->key, sizeof group->key),
        .zero = bytes(&group->zero, sizeof group->zero),
        .zero_index = group->zero_index,
        .speaks = group->speaks,
        .blocks = group->blocks,
        .flow_lanes = lanes,
        .flows = flows,
        .unsure = group->unsure,
        .guests = bytes(group->guests, group->guest_count * sizeof *group->guests),
        .asides = bytes(group->asides, group->aside_count * sizeof *group->asides),
        .undelivered = undelivered,
    };
    rc_carry_write(text, &record);
    free(undelivered.at);
    for (unsigned at = 0; at < group->count; at++)
        write_lane(text, group->lanes[at]);
}

/* The text is the caller's, to free. */
int rc_carry(rc_engine *engine, char **out, size_t *length)
{
    struct rc_carry_text text = {0};
    rc_orders_settle(engine);
    write_engine(&text, engine);
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        write_worker(&text, worker);
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        write_group(&text, group);
    rc_carry_unixes(&text, engine->unixes);
    if (text.failed) {
        free(text.bytes);
        return -ENOMEM;
    }
    *out = text.bytes;
    *length = text.length;
    return 0;
}

/* ---- descriptors ------------------------------------------------------------------------ */

static void keep(int fd, bool on)
{
    if (fd >= 0)
        (void)fcntl(fd, F_SETFD, on ? 0 : FD_CLOEXEC);
}

/* Whether the descriptors of what was written stay open across an execve; what else there is
 * does not. The short slice of a CPU ends: its length would be taken for one that was given. */
void rc_carry_keep(rc_engine *engine, int on)
{
    struct rc_kernel_maps maps;
    rc_slice_short(engine, false);
    rc_kernel_carry(engine, &maps);
    const int own[] = {
        engine->guard.line, engine->shim.port.fd, engine->rings.memory, engine->rings.shown,
        maps.lanes,         maps.marks,           maps.tallies,         maps.link};
    for (size_t at = 0; at < sizeof own / sizeof own[0]; at++)
        keep(own[at], on);
    rc_carry_unix_fds(engine, keep, on);
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        keep(worker->process.fd, on);
        keep(worker->channel_source.fd, on);
        keep(worker->door.fd, on);
    }
    for (const struct rc_group *group = engine->groups; group; group = group->next) {
        int lanes, flows;
        rc_udp_carry(group, &lanes, &flows);
        keep(lanes, on);
        keep(flows, on);
        rc_carry_dispatch_fds(group, keep, on);
        for (unsigned at = 0; at < group->count; at++)
            keep(group->lanes[at]->source.fd, on);
    }
}
