/* resume.c - what the master before has handed on (carry.c): read, and taken over.
 *
 * Owns the reading. Invariants:
 *  - what is taken over is complete, or nobody is served by half of it: the caller ends then;
 *  - there is a guard at each moment, and the old one is ended only when the new one knows all;
 *  - lanes are where the kernel has them, so the first program that is attached is right.
 */
#include "internal.h"

#include "carry/carry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* Calls `take` with each record, until one fails. */
typedef int taker(void *context, struct rc_carried *record);

static int each(const char *text, size_t length, taker *take, void *context, const char **missed)
{
    const char *at = text, *end = text + length;
    struct rc_carried record;
    int error;
    *missed = NULL;
    do {
        error = rc_carry_read(&at, end, &record, missed);
        bool more = record.kind != RC_CARRIED_NONE;
        if (!error && more)
            error = take(context, &record);
        rc_carried_free(&record);
        if (!more)
            break;
    } while (!error);
    return error;
}

/* ---- whether it can be read -------------------------------------------------------------- */

struct look {
    const char *wrong;
    unsigned engines, groups;
};

/* An array of whole ones, no more than there is room for. */
static bool whole(const struct rc_bytes *bytes, size_t each_one, size_t most)
{
    return bytes->length % each_one == 0 && bytes->length / each_one <= most;
}

static const char *wrong_with(struct look *look, const struct rc_carried *record)
{
    const struct rc_carried_worker *worker = &record->is.worker;
    const struct rc_carried_group *group = &record->is.group;
    if (record->kind == RC_CARRIED_ENGINE)
        return look->engines++ || record->is.engine.format != RC_CARRY_FORMAT ||
                       !whole(&record->is.engine.opens, sizeof(struct rc_open), SIZE_MAX)
                   ? "the format"
                   : NULL;
    if (!look->engines)
        return "the format";
    if (record->kind == RC_CARRIED_WORKER)
        return worker->passed.length != sizeof((struct rc_worker *)0)->passed ||
                       !whole(&worker->pending, sizeof(struct rc_pending), RC_PENDING_MAX) ||
                       worker->zeros.length != sizeof((struct rc_worker *)0)->zeros
                   ? "what workers have bound"
                   : NULL;
    if (record->kind == RC_CARRIED_GROUP) {
        look->groups++;
        return group->key.length != sizeof(struct rc_key) ||
                       group->zero.length != sizeof(struct rc_key) ||
                       !whole(&group->guests, sizeof(struct rc_guest), SIZE_MAX) ||
                       !whole(&group->asides, sizeof(struct rc_aside), RC_ASIDES_MAX) ||
                       !rc_carried_undelivered_fits(&group->undelivered)
                   ? "addresses"
                   : NULL;
    }
    if (record->kind == RC_CARRIED_UNIX)
        return rc_carried_unix_fits(&record->is.local) ? NULL : "AF_UNIX addresses";
    return !look->groups || !whole(&record->is.lane.others, sizeof(uint32_t), SIZE_MAX)
               ? "listeners"
               : NULL;
}

static int look_at(void *context, struct rc_carried *record)
{
    struct look *look = context;
    look->wrong = wrong_with(look, record);
    return look->wrong ? -EINVAL : 0;
}

/* Touches no descriptor. -EINVAL: what this version does not know. */
int rc_resumable(const char *text, size_t length, const char **wrong)
{
    struct look look = {0};
    int error = each(text, length, look_at, &look, wrong);
    if (look.wrong)
        *wrong = look.wrong;
    if (!error && !look.engines) {
        *wrong = "the format";
        error = -EINVAL;
    }
    return error;
}

/* ---- taking over ------------------------------------------------------------------------- */

struct taken {
    struct rc_engine *engine;
    struct rc_group *group;
    struct rc_worker **worker; /* where the next one goes: their order stays */
    struct rc_group **place;   /* and groups' */
    struct rc_guard before;
};

static int close_on_exec(int64_t fd)
{
    return fd >= 0 && fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

static int take_engine(struct taken *taken, const struct rc_carried_engine *record)
{
    struct rc_engine *engine = taken->engine;
    const struct rc_kernel_maps maps = {(int)record->bpf_lanes, (int)record->bpf_marks,
                                        (int)record->bpf_tallies, (int)record->bpf_link};
    taken->before = (struct rc_guard){.pid = (pid_t)record->guard, .line = (int)record->line};
    engine->limited = record->limited;
    engine->limit_before =
        (struct rlimit){.rlim_cur = (rlim_t)record->limit, .rlim_max = (rlim_t)record->limit_most};
    engine->expects_paths |= record->expects_paths != 0;
    const int64_t fds[] = {record->line,        record->shim,      record->bells,
                           record->bells_shown, record->bpf_lanes, record->bpf_marks,
                           record->bpf_tallies, record->bpf_link};
    int error = 0;
    for (size_t at = 0; at < sizeof fds / sizeof fds[0] && !error; at++)
        error = close_on_exec(fds[at]);
    if (!error && record->shim >= 0)
        error = rc_shim_resume(engine, (int)record->shim, (uint64_t)record->token);
    if (!error && record->dispatches)
        error = rc_balance_dispatch(engine);
    if (!error)
        error = rc_opens_resume(engine, record->opens.at,
                                record->opens.length / sizeof(struct rc_open));
    if (!error && record->bells >= 0)
        error = rc_rings_resume(engine, (int)record->bells, (int)record->bells_shown);
    return error ? error : rc_kernel_resume(engine, &maps);
}

static int fill(struct rc_buffer *buffer, const struct rc_bytes *from)
{
    if (!from->length)
        return 0;
    buffer->bytes = malloc(from->length);
    if (!buffer->bytes)
        return -ENOMEM;
    memcpy(buffer->bytes, from->at, from->length);
    buffer->room = buffer->end = from->length;
    return 0;
}

static void note_worker(struct rc_worker *worker, const struct rc_carried_worker *record)
{
    worker->id = (uint32_t)record->id;
    worker->generation = (unsigned)record->generation;
    worker->slot = (uint32_t)record->slot;
    worker->party = (uint32_t)record->party;
    worker->pid = (pid_t)record->pid;
    worker->born = (struct timespec){.tv_sec = record->born, .tv_nsec = record->born_ns};
    worker->channel_inode = (uint64_t)record->channel_inode;
    worker->adopted = record->adopted;
    worker->accepts = record->accepts;
    worker->unproven = (int)record->unproven;
    worker->seen_waiting = record->seen_waiting;
    worker->inscrutable = record->inscrutable;
    worker->blind = record->blind;
    worker->lies = (unsigned)record->lies;
    worker->unlinks_seen = record->unlinks_seen;
    worker->receives = record->receives;
    worker->accepted = (uint64_t)record->accepted;
    worker->passes = (unsigned)record->passes;
    worker->takes = record->takes;
    worker->took = record->took;
    worker->given = (uint64_t)record->given;
    worker->forgiven = (uint64_t)record->forgiven;
    memcpy(worker->passed, record->passed.at, sizeof worker->passed);
    memcpy(worker->pending, record->pending.at, record->pending.length);
    worker->pendings = (unsigned)(record->pending.length / sizeof *worker->pending);
    memcpy(worker->zeros, record->zeros.at, sizeof worker->zeros);
    worker->channel.greeted = true;
    worker->weight = 1;
}

static int watch(struct rc_engine *engine, struct rc_source *source, enum rc_source_kind kind,
                 int64_t fd, uint32_t events)
{
    int error = close_on_exec(fd);
    return error || fd < 0 ? error : rc_source_add(engine->epoll, source, kind, (int)fd, events);
}

static int take_worker(struct taken *taken, const struct rc_carried_worker *record)
{
    struct rc_engine *engine = taken->engine;
    struct rc_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return -ENOMEM;
    worker->output[0] = worker->output[1] = worker->child_channel = -1;
    worker->process.fd = worker->door.fd = worker->channel_source.fd = -1;
    rc_procfiles_begin(worker);
    note_worker(worker, record);
    *taken->worker = worker; /* from here on it is the engine's to free */
    taken->worker = &worker->next;
    int error = fill(&worker->channel.in, &record->heard);
    if (!error)
        error = fill(&worker->channel.out, &record->unsent);
    if (!error)
        error = watch(engine, &worker->process, RC_SOURCE_PROCESS, record->process, EPOLLIN);
    if (!error)
        error = watch(engine, &worker->door, RC_SOURCE_DOOR, record->door, EPOLLIN);
    uint32_t wanted = record->unsent.length ? EPOLLIN | EPOLLOUT : EPOLLIN;
    return error
               ? error
               : watch(engine, &worker->channel_source, RC_SOURCE_CHANNEL, record->channel, wanted);
}

static int take_group(struct taken *taken, const struct rc_carried_group *record)
{
    struct rc_key key;
    memcpy(&key, record->key.at, sizeof key);
    struct rc_group *group = taken->group = rc_group_new(taken->engine, &key);
    if (!group)
        return -ENOMEM;
    taken->engine->groups = group->next;
    group->next = NULL;
    *taken->place = group;
    taken->place = &group->next;
    memcpy(&group->zero, record->zero.at, sizeof group->zero);
    group->zero_index = (int)record->zero_index;
    group->speaks = (enum rc_speech)record->speaks;
    group->blocks = record->blocks;
    group->unsure = record->unsure;
    memcpy(group->asides, record->asides.at, record->asides.length);
    group->aside_count = (unsigned)(record->asides.length / sizeof *group->asides);
    int error = close_on_exec(record->flow_lanes);
    if (!error)
        error = close_on_exec(record->flows);
    if (!error)
        error = rc_carried_undelivered_take(group, &record->undelivered);
    if (error)
        return error;
    if (key.type == SOCK_DGRAM) {
        rc_udp_resume(group, (int)record->flow_lanes, (int)record->flows);
        rc_udp_look_soon(taken->engine);
    }
    if (!record->guests.length)
        return 0;
    group->guests = malloc(record->guests.length);
    if (!group->guests)
        return -ENOMEM;
    memcpy(group->guests, record->guests.at, record->guests.length);
    group->guest_count = group->guest_room =
        (unsigned)(record->guests.length / sizeof *group->guests);
    return 0;
}

static struct rc_worker *holder(struct rc_engine *engine, uint32_t id)
{
    return id == RC_NOBODY ? rc_nobody(engine) : rc_find(engine, id);
}

static int share(struct rc_engine *engine, struct rc_lane *lane, const struct rc_bytes *others)
{
    int error = 0;
    for (size_t at = others->length / sizeof(uint32_t); at-- > 0 && !error;) {
        uint32_t id;
        memcpy(&id, others->at + at * sizeof id, sizeof id);
        struct rc_worker *worker = holder(engine, id);
        error = worker ? rc_lane_join(lane, worker) : -ESRCH;
    }
    return error;
}

static void note_lane(struct rc_lane *lane, const struct rc_carried_lane *record)
{
    lane->party = (uint32_t)record->party;
    lane->pid = (pid_t)record->pid;
    lane->descriptor = (int)record->descriptor;
    lane->backlog = (unsigned)record->backlog;
    lane->inherited = record->inherited;
    lane->ours = record->ours;
    lane->deaf = record->deaf;
    lane->by_leader = record->by_leader;
    lane->proof.proven = record->proven;
}

static int take_lane(struct taken *taken, const struct rc_carried_lane *record)
{
    struct rc_engine *engine = taken->engine;
    struct rc_group *group = taken->group;
    struct rc_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return -ENOMEM;
    rc_lane_init(lane);
    note_lane(lane, record);
    lane->worker = record->worker ? holder(engine, (uint32_t)record->worker) : NULL;
    lane->inode = rc_socket_inode((int)record->fd);
    int error = record->worker && !lane->worker ? -ESRCH : lane->inode ? 0 : -EBADF;
    if (!error)
        error = rc_group_append(engine, group, lane);
    if (error) {
        free(lane);
        return error;
    }
    lane->index = (unsigned)record->index;
    if (record->front)
        group->front = lane;
    else if (!record->worker)
        group->sink = lane;
    if (lane->inherited && !lane->ours)
        group->kernel = NULL; /* as in inherited.c: a program stays on it */
    rc_kernel_known(lane, (uint32_t)record->number, (uint64_t)record->counted);
    error = share(engine, lane, &record->others);
    if (!error && group->key.type == SOCK_DGRAM) {
        rc_udp_known(lane, (uint32_t)record->number);
        error = close_on_exec(record->fd); /* not in the epoll set, as in udp.c */
        lane->source.fd = (int)record->fd;
    } else if (!error) {
        error = rc_carried_receiver_take(engine, lane, record);
        if (!error) /* as in front.c and receivers.c: what waits there already is told of, too */
            error = watch(engine, &lane->source, record->front ? RC_SOURCE_FRONT : RC_SOURCE_LANE,
                          record->fd, record->front || record->pair >= 0 ? EPOLLIN | EPOLLET : 0);
    }
    return error;
}

static int take_unix(struct taken *taken, const struct rc_carried_unix *record)
{
    int error = close_on_exec(record->fd);
    if (!error)
        error = close_on_exec(record->directory);
    return error ? error : rc_carried_unix_take(taken->engine, record);
}

static int take(void *context, struct rc_carried *record)
{
    switch (record->kind) {
    case RC_CARRIED_ENGINE:
        return take_engine(context, &record->is.engine);
    case RC_CARRIED_WORKER:
        return take_worker(context, &record->is.worker);
    case RC_CARRIED_GROUP:
        return take_group(context, &record->is.group);
    case RC_CARRIED_LANE:
        return take_lane(context, &record->is.lane);
    case RC_CARRIED_UNIX:
        return take_unix(context, &record->is.local);
    default:
        return -EINVAL;
    }
}

/* Before any worker, in an engine that has its policy. Nobody is live until the caller says who
 * is; the program of the master before goes on until then. */
int rc_resume(rc_engine *engine, const char *text, size_t length)
{
    struct taken taken = {.engine = engine, .worker = &engine->workers, .place = &engine->groups};
    const char *missed;
    if (engine->workers || engine->groups)
        return -EBUSY;
    taken.before.line = -1;
    int error = rc_resumable(text, length, &missed);
    if (!error)
        error = each(text, length, take, &taken, &missed);
    if (!error)
        error = rc_dispatch_resumed(engine);
    if (!error)
        error = rc_guard_relieve(engine, &taken.before);
    return error;
}
