/* engine.c - the loop: one epoll set, one deadline, an array of events out.
 *
 * Owns: rc_wait and the life of an engine. Invariants:
 *  - doors are served before anything else in a turn: a worker stands in bind
 *    or listen, and a signal there could cut its call short;
 *  - memory that a later event of the same turn may still point to is buried,
 *    and freed at the start of the next turn;
 *  - with nothing to do there is no system call: the deadline is a timerfd, set
 *    only when it changes.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALONE_US = 100000, END_US = 2000000, GATHER_MS = 5 };

/* ---- life ---------------------------------------------------------------------- */

/* In the order in which they are told of what happens below them. */
static const struct rc_part *const parts[] = {&rc_watch_part, &rc_handover_part, &rc_dispatch_part,
                                              &rc_udp_part, NULL};

int rc_engine_new(rc_engine **out, unsigned flags)
{
    struct rc_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return -ENOMEM;
    engine->parts = parts;
    engine->flags = flags;
    engine->deadline_ms = -1;
    engine->owner = getpid();
    sigemptyset(&engine->handled);
    engine->timer.fd = engine->sweep.fd = engine->guard.source.fd = -1;
    engine->alarm.source.fd = engine->shim.port.fd = engine->guard.line = engine->diag = -1;
    engine->dispatch.patience.fd = engine->dispatch.opens.source.fd = -1;
    engine->rings.memory = engine->rings.shown = -1;
    engine->epoll = epoll_create1(EPOLL_CLOEXEC);
    int error = engine->epoll < 0 ? -errno : 0;
    if (!error)
        error = rc_timer_add(engine->epoll, &engine->timer, RC_SOURCE_TIMER);
    if (!error)
        error = rc_timer_add(engine->epoll, &engine->sweep, RC_SOURCE_SWEEP);
    int here = error ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!error && here < 0)
        error = -errno;
    if (!error)
        error = rc_socket_network(here, &engine->network);
    rc_close(&here);
    if (!error)
        error = rc_alarm_open(engine);
    if (!error)
        error = rc_asked_new(&engine->asked);
    if (!error && (flags & RC_SUBREAPER) && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        error = -errno;
    if (error) {
        rc_source_shut(engine->epoll, &engine->timer);
        rc_source_shut(engine->epoll, &engine->sweep);
        rc_source_shut(engine->epoll, &engine->alarm.source);
        rc_close(&engine->epoll);
        rc_asked_free(engine->asked);
        free(engine);
        return error;
    }
    *out = engine;
    return 0;
}

static void free_memory(struct rc_engine *engine)
{
    while (engine->workers) {
        struct rc_worker *worker = engine->workers;
        engine->workers = worker->next;
        rc_channel_free(&worker->channel);
        rc_drain_free(&worker->drain);
        free(worker->question.all);
        free(worker);
    }
    while (engine->groups) {
        struct rc_group *group = engine->groups;
        engine->groups = group->next;
        for (unsigned at = 0; at < group->count; at++) {
            rc_lane_unshare(group->lanes[at]);
            free(group->lanes[at]);
        }
        rc_accepted_free(group);
        free(group->lanes);
        free(group->guests);
        free(group->attached.text);
        free(group->flows);
        free(group);
    }
    while (engine->watches) {
        struct rc_watch *watch = engine->watches;
        engine->watches = watch->next;
        free(watch);
    }
    while (engine->callers) {
        struct rc_shim_caller *caller = engine->callers;
        engine->callers = caller->next;
        free(caller);
    }
    rc_unclaimed_free(engine);
    rc_rings_free(engine);
    rc_handover_free(engine);
    free(engine->unowned);
    free(engine->become.groups);
    free(engine->allowed);
    rc_opens_close(engine);
    rc_free_graves(engine);
    free(engine);
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

/* Closes only, and writes nothing: in a forked child an EPOLL_CTL_DEL would
 * remove the master's registration (the two share one epoll instance), and each
 * page written would be copied first. */
static void close_all(const struct rc_engine *engine)
{
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        close_if_open(worker->process.fd);
        close_if_open(worker->channel_source.fd);
        close_if_open(worker->door.fd);
        close_if_open(worker->child_channel);
        close_if_open(worker->output[0]);
        close_if_open(worker->output[1]);
        close_if_open(worker->activity_fd);
        close_if_open(worker->open_fd);
        if (worker->move.began_at)
            close_if_open(worker->move.server_fd);
        rc_question_close(worker);
    }
    for (const struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++) {
            close_if_open(group->lanes[at]->source.fd);
            close_if_open(group->lanes[at]->stall.arrivals);
            close_if_open(group->lanes[at]->proof.client.fd);
            close_if_open(group->lanes[at]->receiver.pair.fd);
            close_if_open(group->lanes[at]->receiver.theirs);
            close_if_open(group->lanes[at]->knocking);
        }
        if (group->flows)
            rc_udp_plan_close(group->flows);
    }
    for (const struct rc_shim_caller *caller = engine->callers; caller; caller = caller->next) {
        close_if_open(caller->source.fd);
        close_if_open(caller->binds);
    }
    rc_unclaimed_close(engine);
    rc_rings_close(engine);
    rc_handover_close(engine);
    for (const struct rc_look *look = engine->looks; look; look = look->next)
        rc_look_close(look);
    if (engine->reader)
        rc_reader_close(engine->reader);
    close_if_open(engine->timer.fd);
    close_if_open(engine->sweep.fd);
    close_if_open(engine->alarm.source.fd);
    close_if_open(engine->guard.source.fd);
    close_if_open(engine->guard.line);
    close_if_open(engine->shim.port.fd);
    close_if_open(engine->diag);
    close_if_open(engine->dispatch.patience.fd);
    close_if_open(engine->dispatch.opens.source.fd);
    close_if_open(engine->epoll);
}

/* The memory stays, shared with the master and small: to free it would be to
 * copy it. */
void rc_engine_abandon(rc_engine *engine)
{
    rc_kernel_close(engine);
    rc_unix_close_all(engine);
    rc_rings_unmap(engine);
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (const struct rc_accepted *accepted = group->undelivered; accepted;
             accepted = accepted->next)
            close_if_open(accepted->fd);
    close_all(engine);
}

/* Killed, all end at once; but who stands in a call that cannot be killed (a dead NFS) may do so
 * much later, or never: it is not waited for, and is its reaper's then. */
static void end_workers(struct rc_engine *engine)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        (void)rc_worker_kill(engine, worker->id);
    int64_t until = rc_now_us() + END_US;
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->process.fd >= 0 && rc_poll(worker->process.fd, POLLIN, until) > 0) {
            (void)rc_guard_remove(&engine->guard, worker->pid);
            while (waitpid(worker->pid, NULL, WNOHANG) < 0 && errno == EINTR)
                ;
        }
}

/* Whoever still runs is killed. In a process that was forked by others than us nothing
 * happens: the workers are its parent's, and the numbers may by now be other files'. */
void rc_engine_free(rc_engine *engine)
{
    if (!engine || engine->owner != getpid())
        return;
    rc_slice_short(engine, false);
    end_workers(engine);
    if (engine->flags & RC_SUBREAPER) /* first: a guard that stays is not to become our child */
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    rc_unix_free(engine);
    rc_looks_pass(engine);
    rc_guard_leave(&engine->guard, engine->epoll);
    rc_kernel_close(engine);
    close_all(engine);
    rc_asked_free(engine->asked);
    free_memory(engine);
}

void rc_foreground(rc_engine *engine)
{
    engine->foreground = true;
}

int rc_engine_fd(const rc_engine *engine)
{
    return engine->epoll;
}

/* ---- what it listens to ----------------------------------------------------------- */

int rc_signal_handled(rc_engine *engine, int number)
{
    return sigaddset(&engine->handled, number) < 0 ? -errno : 0;
}

static int set_timer(struct rc_engine *engine, int64_t at_ms)
{
    struct itimerspec when = {0};
    if (at_ms >= 0) {
        when.it_value.tv_sec = at_ms / 1000;
        when.it_value.tv_nsec = (at_ms % 1000) * 1000000 + 1; /* 0 would disarm */
    }
    return timerfd_settime(engine->timer.fd, TFD_TIMER_ABSTIME, &when, NULL) < 0 ? -errno : 0;
}

int rc_deadline(rc_engine *engine, int64_t at_ms)
{
    if (at_ms == engine->deadline_ms)
        return 0;
    /* A hurried timer fires first, and is set to the deadline then. */
    int error = engine->hurried ? 0 : set_timer(engine, at_ms);
    if (!error)
        engine->deadline_ms = at_ms;
    return error;
}

int rc_watch(rc_engine *engine, int fd)
{
    struct rc_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return -ENOMEM;
    int error = rc_source_add(engine->epoll, &watch->source, RC_SOURCE_WATCH, fd, EPOLLIN);
    if (error) {
        free(watch);
        return error;
    }
    watch->next = engine->watches;
    engine->watches = watch;
    return 0;
}

/* The descriptor is the caller's, and stays open. */
int rc_unwatch(rc_engine *engine, int fd)
{
    struct rc_watch **link = &engine->watches;
    while (*link && (*link)->source.fd != fd)
        link = &(*link)->next;
    if (!*link)
        return -ENOENT;
    struct rc_watch *watch = *link;
    *link = watch->next;
    rc_source_leave(engine->epoll, &watch->source);
    rc_bury(engine, watch);
    return 0;
}

/* ---- one turn ------------------------------------------------------------------------ */

static void on_timer(struct rc_engine *engine)
{
    uint64_t times;
    if (read(engine->timer.fd, &times, sizeof times) != sizeof times)
        return;
    if (engine->hurried) {
        engine->hurried = false;
        (void)set_timer(engine, engine->deadline_ms);
        return;
    }
    engine->deadline_ms = -1;
    rc_emit(engine, RC_EVENT_DEADLINE, 0, 0, NULL, 0);
}

/* Somebody killed the guard: a new one gets the whole list. */
static void on_guard(struct rc_engine *engine)
{
    (void)rc_guard_renew(engine); /* else the next spawn tries again */
}

static void on_door(struct rc_engine *engine, struct rc_worker *worker, uint32_t ready)
{
    if (ready & EPOLLIN)
        (void)rc_notify_receive(engine, worker);
    else if (ready & (EPOLLHUP | EPOLLERR))
        rc_worker_departed(engine, worker);
}

static bool is_door(const struct rc_source *source)
{
    return source->kind == RC_SOURCE_DOOR || source->kind == RC_SOURCE_LOOK ||
           source->kind == RC_SOURCE_SHIM_PORT || source->kind == RC_SOURCE_SHIM_CALL;
}

static void dispatch(struct rc_engine *engine, struct rc_source *source, uint32_t ready)
{
    switch (source->kind) {
    case RC_SOURCE_TIMER:
        on_timer(engine);
        break;
    case RC_SOURCE_SWEEP:
        rc_lanes_sweep(engine);
        break;
    case RC_SOURCE_WATCH:
        rc_emit(engine, RC_EVENT_READABLE, 0, source->fd, NULL, 0);
        break;
    case RC_SOURCE_GUARD:
        on_guard(engine);
        break;
    case RC_SOURCE_PROCESS:
        rc_worker_exited(engine, RC_CONTAINER(source, struct rc_worker, process));
        break;
    case RC_SOURCE_CHANNEL:
        rc_channel_ready(engine, RC_CONTAINER(source, struct rc_worker, channel_source), ready);
        break;
    case RC_SOURCE_DOOR:
        on_door(engine, RC_CONTAINER(source, struct rc_worker, door), ready);
        break;
    case RC_SOURCE_LOOK:
        rc_notify_looked(engine, source);
        break;
    case RC_SOURCE_LANE:
        if (ready & EPOLLHUP)
            rc_lanes_hup(engine, RC_CONTAINER(source, struct rc_lane, source));
        else if (RC_CONTAINER(source, struct rc_lane, source)->receiver.pair.fd >= 0)
            rc_dispatch_strays(engine, RC_CONTAINER(source, struct rc_lane, source));
        else
            rc_lane_arrival(engine, RC_CONTAINER(source, struct rc_lane, source));
        break;
    case RC_SOURCE_SHIM_PORT:
        rc_shim_accept(engine);
        break;
    case RC_SOURCE_SHIM_CALL:
        rc_shim_call(engine, source);
        break;
    case RC_SOURCE_ALARM:
        rc_due(engine);
        break;
    case RC_SOURCE_UNCLAIMED:
        rc_unclaimed_called(engine, source);
        break;
    case RC_SOURCE_FRONT:
        rc_dispatch_run(engine, RC_CONTAINER(source, struct rc_lane, source)->group);
        break;
    case RC_SOURCE_PAIR:
        if (ready & EPOLLHUP)
            rc_lanes_shut(engine, RC_CONTAINER(source, struct rc_lane, receiver.pair));
        else
            rc_dispatch_taken(engine, RC_CONTAINER(source, struct rc_lane, receiver.pair));
        break;
    case RC_SOURCE_PATIENCE:
        rc_dispatch_patience(engine);
        break;
    case RC_SOURCE_OPENS:
        rc_opens_read(engine);
        break;
    case RC_SOURCE_RING:
        rc_ring_closed(engine, RC_CONTAINER(source, struct rc_ring, client));
        break;
    case RC_SOURCE_KEPT:
        rc_handover_heard(engine, RC_CONTAINER(source, struct rc_kept, client));
        break;
    case RC_SOURCE_PROOF:
        rc_proof_answered(engine, RC_CONTAINER(source, struct rc_lane, proof.client));
        break;
    }
}

/* Lines in a buffer do not make the epoll set readable; a timer that is due
 * does, so that a host that only polls our descriptor comes back. */
static void hurry_if_needed(struct rc_engine *engine)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (rc_has_to_tell(worker)) {
            if (!engine->hurried)
                engine->hurried = set_timer(engine, 0) == 0;
            return;
        }
}

/* One turn: whether anything was ready. */
static int turn(struct rc_engine *engine, int timeout_ms)
{
    struct epoll_event batch[RC_TURN];
    rc_free_graves(engine);
    int ready = epoll_wait(engine->epoll, batch, RC_TURN, timeout_ms);
    if (ready < 0)
        return -errno;
    engine->turn++;
    for (int doors = 1; doors >= 0; doors--)
        for (int at = 0; at < ready; at++) {
            struct rc_source *source = batch[at].data.ptr;
            if (source->fd >= 0 && is_door(source) == doors)
                dispatch(engine, source, batch[at].events);
        }
    if (engine->waits)
        rc_unix_retry(engine);
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (rc_has_to_tell(worker))
            rc_hear(engine, worker);
    if (engine->orphans)
        rc_reap(engine);
    if (engine->dispatch.again)
        rc_dispatch_run_all(engine);
    rc_proof_heard(engine);
    hurry_if_needed(engine);
    return ready;
}

/* Nobody waits for what is told, and more of it comes: a worker that boots begins to listen,
 * on one address after the other. */
static bool gathers(const struct rc_engine *engine)
{
    const struct rc_output *output = engine->output;
    for (size_t at = 0; at < output->count; at++)
        if (output->events[at].kind != RC_EVENT_LISTENING || output->events[at].value != 2)
            return false;
    return output->count && engine->text_count < RC_TEXTS / 2;
}

/* What the engine does by itself (looks at lanes, handing out connections) is no event:
 * the caller is not woken for that, if it would wait for ever anyway. But from time to
 * time: a signal that came between two waits has only set a flag of the caller's. */
int rc_wait(rc_engine *engine, struct rc_event *events, size_t room, int timeout_ms)
{
    struct rc_output output = {.events = events, .room = room};
    if (room < RC_EVENTS_MIN)
        return -EINVAL;
    engine->output = &output;
    engine->text_count = 0;
    int ready;
    int64_t until = rc_now_us() + ALONE_US, told = 0; /* since when there is something to tell */
    bool more;
    do {
        ready = turn(engine, engine->dispatch.again ? 0 : told ? GATHER_MS : timeout_ms);
        int64_t now = rc_now_us();
        more = ready > 0 && timeout_ms < 0 &&
               (output.count ? gathers(engine) && (!told || now < told + GATHER_MS * 1000)
                             : now < until);
        told = output.count && !told ? now : told;
    } while (more || (ready >= 0 && output.count == 0 && engine->dispatch.again));
    engine->output = NULL;
    /* A signal may have ended the wait for more of what is to be told. */
    return output.count ? (int)output.count : ready == -EINTR ? 0 : ready < 0 ? ready : 0;
}
