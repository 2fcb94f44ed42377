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
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALONE_US = 100000 };

/* ---- life ---------------------------------------------------------------------- */

int rc_engine_new(rc_engine **out, unsigned flags)
{
    struct rc_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return -ENOMEM;
    engine->flags = flags;
    engine->deadline_ms = -1;
    engine->timer.fd = engine->sweep.fd = engine->signals.fd = engine->guard.source.fd = -1;
    engine->unix_watch.fd = -1;
    engine->shim.port.fd = engine->guard.pipe = engine->diag = -1;
    engine->dispatch.patience.fd = engine->dispatch.opens.source.fd = -1;
    engine->epoll = epoll_create1(EPOLL_CLOEXEC);
    int error = engine->epoll < 0 ? -errno : 0;
    int timer = error ? -1 : timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (!error && timer < 0)
        error = -errno;
    if (!error)
        error = rc_source_add(engine->epoll, &engine->timer, RC_SOURCE_TIMER, timer, EPOLLIN);
    if (!error)
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (!error && timer < 0)
        error = -errno;
    if (!error)
        error = rc_source_add(engine->epoll, &engine->sweep, RC_SOURCE_SWEEP, timer, EPOLLIN);
    if (!error)
        timer = -1; /* the source's now */
    if (!error && (flags & RC_SUBREAPER) && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        error = -errno;
    if (error) {
        rc_source_shut(engine->epoll, &engine->timer);
        rc_source_shut(engine->epoll, &engine->sweep);
        rc_close(&timer);
        rc_close(&engine->epoll);
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
        free(worker);
    }
    while (engine->groups) {
        struct rc_group *group = engine->groups;
        engine->groups = group->next;
        for (unsigned at = 0; at < group->count; at++) {
            rc_accept_forget(group->lanes[at]);
            rc_lane_unshare(group->lanes[at]);
            free(group->lanes[at]);
        }
        rc_hands_free(group);
        free(group->lanes);
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
    free(engine->nobody);
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
        close_if_open(worker->doing_fd);
        close_if_open(worker->open_fd);
    }
    for (const struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++) {
            close_if_open(group->lanes[at]->source.fd);
            close_if_open(group->lanes[at]->taker.pair.fd);
            close_if_open(group->lanes[at]->taker.theirs);
            close_if_open(group->lanes[at]->taker.bell.fd);
        }
        if (group->flows)
            rc_udp_plan_close(group->flows);
    }
    for (const struct rc_shim_caller *caller = engine->callers; caller; caller = caller->next)
        close_if_open(caller->source.fd);
    close_if_open(engine->timer.fd);
    close_if_open(engine->sweep.fd);
    close_if_open(engine->signals.fd);
    close_if_open(engine->guard.source.fd);
    close_if_open(engine->guard.pipe);
    close_if_open(engine->shim.port.fd);
    close_if_open(engine->unix_watch.fd);
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
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (const struct rc_hand *hand = group->hand; hand; hand = hand->next)
            close_if_open(hand->fd);
    close_all(engine);
}

/* Whoever still runs is killed. */
void rc_engine_free(rc_engine *engine)
{
    if (!engine)
        return;
    rc_haste(engine, false);
    rc_guard_stop(&engine->guard, engine->epoll);
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->process.fd >= 0) {
            (void)kill(-worker->pid, SIGKILL);
            (void)rc_worker_signal(engine, worker->id, SIGKILL);
            while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        }
    if (engine->masked)
        pthread_sigmask(SIG_SETMASK, &engine->mask_before, NULL);
    if (engine->flags & RC_SUBREAPER)
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    rc_kernel_close(engine);
    rc_unix_free(engine);
    close_all(engine);
    free_memory(engine);
}

int rc_engine_fd(const rc_engine *engine)
{
    return engine->epoll;
}

/* ---- what it listens to ----------------------------------------------------------- */

int rc_signals(rc_engine *engine, const int *numbers, size_t count)
{
    sigset_t before;
    sigemptyset(&engine->signal_set);
    for (size_t at = 0; at < count; at++)
        sigaddset(&engine->signal_set, numbers[at]);
    if (engine->flags & RC_SUBREAPER)
        sigaddset(&engine->signal_set, SIGCHLD);
    int fd = signalfd(-1, &engine->signal_set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    rc_source_shut(engine->epoll, &engine->signals);
    int error = rc_source_add(engine->epoll, &engine->signals, RC_SOURCE_SIGNALS, fd, EPOLLIN);
    if (error) {
        close(fd);
        return error;
    }
    pthread_sigmask(SIG_BLOCK, &engine->signal_set, &before);
    if (!engine->masked)
        engine->mask_before = before;
    engine->masked = true;
    return 0;
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
    (void)epoll_ctl(engine->epoll, EPOLL_CTL_DEL, fd, NULL);
    watch->source.fd = -1;
    rc_bury(engine, watch);
    return 0;
}

/* ---- one turn ------------------------------------------------------------------------ */

static void on_signals(struct rc_engine *engine)
{
    struct signalfd_siginfo info;
    for (int most = 0; most < 4; most++) {
        if (read(engine->signals.fd, &info, sizeof info) != sizeof info)
            return;
        if (info.ssi_signo == SIGCHLD)
            engine->orphans = true;
        else
            rc_emit(engine, RC_EVENT_SIGNAL, 0, (int)info.ssi_signo, NULL, 0);
    }
}

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
    return source->kind == RC_SOURCE_DOOR || source->kind == RC_SOURCE_SHIM_PORT ||
           source->kind == RC_SOURCE_SHIM_CALL;
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
    case RC_SOURCE_SIGNALS:
        on_signals(engine);
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
    case RC_SOURCE_LANE:
        if (ready & EPOLLHUP)
            rc_lanes_hup(engine, RC_CONTAINER(source, struct rc_lane, source));
        else if (RC_CONTAINER(source, struct rc_lane, source)->taker.pair.fd >= 0)
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
    case RC_SOURCE_ERRAND:
        rc_unix_errand_ended(engine, source);
        break;
    case RC_SOURCE_UNIX:
        rc_unix_noticed(engine);
        break;
    case RC_SOURCE_FRONT:
        rc_dispatch_run(engine, RC_CONTAINER(source, struct rc_lane, source)->group);
        break;
    case RC_SOURCE_PAIR:
        if (ready & EPOLLHUP)
            rc_lanes_shut(engine, RC_CONTAINER(source, struct rc_lane, taker.pair));
        else
            rc_dispatch_taken(engine, RC_CONTAINER(source, struct rc_lane, taker.pair));
        break;
    case RC_SOURCE_PATIENCE:
        rc_dispatch_patience(engine);
        break;
    case RC_SOURCE_OPENS:
        rc_opens_read(engine);
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
    if (engine->shim.starved) { /* a turn has passed: a descriptor may be free */
        engine->shim.starved = false;
        (void)rc_source_arm(engine->epoll, &engine->shim.port, EPOLLIN);
    }
    int ready = epoll_wait(engine->epoll, batch, RC_TURN, timeout_ms);
    if (ready < 0)
        return -errno;
    engine->text_count = 0;
    engine->turn++;
    for (int doors = 1; doors >= 0; doors--)
        for (int at = 0; at < ready; at++) {
            struct rc_source *source = batch[at].data.ptr;
            if (source->fd >= 0 && is_door(source) == doors)
                dispatch(engine, source, batch[at].events);
        }
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (rc_has_to_tell(worker))
            rc_hear(engine, worker);
    if (engine->orphans)
        rc_reap_orphans(engine);
    if (engine->dispatch.again)
        rc_dispatch_run_all(engine);
    hurry_if_needed(engine);
    return ready;
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
    int ready;
    int64_t until = rc_now_us() + ALONE_US;
    do
        ready = turn(engine, engine->dispatch.again ? 0 : timeout_ms);
    while (ready >= 0 && output.count == 0 &&
           (engine->dispatch.again || (timeout_ms < 0 && ready > 0 && rc_now_us() < until)));
    engine->output = NULL;
    return ready >= 0 ? (int)output.count : ready == -EINTR ? 0 : ready;
}
