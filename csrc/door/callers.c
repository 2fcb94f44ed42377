/* callers.c - who may speak at the preload door, how many, and for how long.
 *
 * Owns: the list of callers. The door's address is abstract, so anybody in the network
 * namespace can connect.
 *
 * Invariants:
 *  - a process that is not of our tree costs one look: nothing of it is kept, and there are
 *    at most STRANGERS_MAX looks in a PAUSE;
 *  - a caller has asked within SILENCE, or is gone. One that waits for its answer is not
 *    silent;
 *  - while the port is not looked at, an alarm is set.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { CALLERS_MAX = 128, STRANGERS_MAX = 100 };
enum { SILENCE_US = 5000000, PAUSE_US = 100000 };

static void next_alarm(struct rc_engine *engine)
{
    int64_t at = engine->shim.paused_until;
    for (const struct rc_shim_caller *caller = engine->callers; caller; caller = caller->next)
        if (caller->silent_until && (!at || caller->silent_until < at))
            at = caller->silent_until;
    rc_alarm_set(engine, RC_ALARM_CALLERS, at);
}

static void pause_port(struct rc_engine *engine, int64_t until)
{
    engine->shim.paused_until = until;
    (void)rc_source_arm(engine->epoll, &engine->shim.port, 0);
    next_alarm(engine);
}

void rc_caller_free(struct rc_engine *engine, struct rc_shim_caller *caller)
{
    struct rc_shim_caller **link = &engine->callers;
    if (caller->ring) { /* it ends, and comes back here */
        rc_ring_end(engine, caller->ring);
        return;
    }
    while (*link != caller)
        link = &(*link)->next;
    *link = caller->next;
    engine->shim.calls--;
    rc_source_shut(engine->epoll, &caller->source);
    rc_close(&caller->binds);
    rc_bury(engine, caller);
    next_alarm(engine);
}

/* It has its answer, and does what it may: it hangs up then, in time (unixturn.c). */
void rc_caller_stays(struct rc_engine *engine, struct rc_shim_caller *caller)
{
    caller->silent_until = rc_now_us() + SILENCE_US;
    (void)rc_source_arm(engine->epoll, &caller->source, 0);
    next_alarm(engine);
}

/* It was told to bind this itself, and hangs up when it has. A sibling may bind before this
 * one has said that it may: see pending.c. */
void rc_caller_binds(struct rc_engine *engine, struct rc_shim_caller *caller, int fd)
{
    caller->binds = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    rc_caller_stays(engine, caller);
}

static void silent_gone(struct rc_engine *engine, int64_t now)
{
    for (struct rc_shim_caller *caller = engine->callers, *next; caller; caller = next) {
        next = caller->next;
        if (caller->silent_until && caller->silent_until <= now) {
            rc_later_forget(engine, caller);
            rc_caller_free(engine, caller);
        }
    }
}

void rc_callers_alarm(struct rc_engine *engine)
{
    int64_t now = rc_now_us();
    silent_gone(engine, now);
    if (engine->shim.paused_until && engine->shim.paused_until <= now) {
        engine->shim.paused_until = 0;
        (void)rc_source_arm(engine->epoll, &engine->shim.port, EPOLLIN);
    }
    next_alarm(engine);
}

/* Whether another look at a stranger is within the bounds; *until when not. */
static bool may_look(struct rc_shim *shim, int64_t now, int64_t *until)
{
    if (now - shim->strangers_at >= PAUSE_US) {
        shim->strangers_at = now;
        shim->strangers = 0;
    }
    *until = shim->strangers_at + PAUSE_US;
    return ++shim->strangers < STRANGERS_MAX;
}

/* Where a process that has left its parents is adopted by another than us, it is known by
 * its user, and by what it says (shimdoor.c). */
static bool is_welcome(const struct rc_engine *engine, const struct ucred *peer,
                       struct rc_worker **worker)
{
    enum rc_descent descent = rc_descent(engine, peer->pid, worker);
    return descent == RC_DESCENT_OURS || (descent == RC_DESCENT_UNKNOWN && peer->uid == geteuid());
}

static int caller_new(struct rc_engine *engine, int fd, const struct ucred *peer,
                      const struct rc_worker *worker, int64_t now)
{
    struct rc_shim_caller *caller = calloc(1, sizeof *caller);
    int error =
        caller ? rc_source_add(engine->epoll, &caller->source, RC_SOURCE_SHIM_CALL, fd, EPOLLIN)
               : -ENOMEM;
    if (error) {
        free(caller);
        return error;
    }
    caller->pid = peer->pid;
    caller->binds = -1;
    caller->release = rc_caller_free;
    caller->worker = worker ? worker->id : 0;
    caller->silent_until = now + SILENCE_US;
    caller->next = engine->callers;
    engine->callers = caller;
    engine->shim.calls++;
    next_alarm(engine);
    return 0;
}

void rc_shim_accept(struct rc_engine *engine)
{
    struct ucred peer = {.pid = 0};
    socklen_t length = sizeof peer;
    struct rc_worker *worker;
    int64_t until, now = rc_now_us();
    if (engine->shim.calls >= CALLERS_MAX) { /* those behind wait in connect(2) */
        pause_port(engine, now + PAUSE_US);
        return;
    }
    int fd = accept4(engine->shim.port.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            pause_port(engine, now + PAUSE_US); /* no descriptor is left, or no memory */
        return;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
        !is_welcome(engine, &peer, &worker)) {
        rc_close(&fd);
        if (!may_look(&engine->shim, now, &until))
            pause_port(engine, until);
    } else if (caller_new(engine, fd, &peer, worker, now) < 0) {
        rc_close(&fd);
    }
}
