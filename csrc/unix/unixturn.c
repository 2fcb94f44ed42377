/* unixturn.c - one after the other at one name: who unlinks, binds or listens there.
 *
 * Owns the turns and who waits for one. The kernel does these calls for the worker itself
 * (SECCOMP_USER_NOTIF_FLAG_CONTINUE; the shim, by its plain call), for only so they are
 * done with its rights, in its directory, root and umask. When it has done so is not told.
 * So while one worker has its turn at a name, the others' calls for the same name are not
 * answered: else a sibling's late unlink would remove what has just been bound.
 *
 * A turn is over when its thread comes with another call, when the socket shows it
 * (bound, listening), when the shim hangs up, when its worker has ended; and after a
 * while, so nobody waits for ever for one that was stopped.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TURN_US = 1000000, LISTEN_US = 10000000, FIRST_LOOK_MS = 1, LAST_LOOK_MS = 32 };

/* Somebody's call that waits for another's turn. */
struct rc_unix_wait {
    struct rc_unix_wait *next;
    struct rc_later later;
    struct rc_call call; /* with a duplicate of its own */
    int64_t until_us;    /* who takes turn after turn must not keep the others away */
    bool unlinks;
    struct rc_unix_name name;
};

/* ---- looks ---------------------------------------------------------------------- */

static void look_in(struct rc_engine *engine, unsigned ms)
{
    engine->unix_look_ms = ms;
    rc_alarm_set(engine, RC_ALARM_UNIX, rc_now_us() + (int64_t)ms * 1000);
}

/* Whether the socket has the name that was asked for: its path is read twice, by us and by
 * the kernel, and may have been changed in between. */
static bool is_bound(const struct rc_unix_lane *lane)
{
    struct sockaddr_un name;
    size_t length = rc_unix_name_at(lane->fd, &name);
    return length && length == lane->given_length &&
           memcmp(name.sun_path, lane->given, length) == 0;
}

bool rc_unix_bound(struct rc_engine *engine, struct rc_unix_lane *lane)
{
    if (!lane->bound && is_bound(lane)) {
        lane->bound = true;
        (void)rc_unix_leads(lane->name, rc_unix_like_us(lane->who), lane->fd, &lane->node);
        rc_unix_lose_older(engine, lane, lane->asks ? lane->asks->worker : NULL);
    }
    return lane->bound;
}

static void listened(struct rc_engine *engine, struct rc_unix_turn *turn)
{
    if (rc_socket_get(turn->lane->fd, SOL_SOCKET, SO_ACCEPTCONN) <= 0)
        turn->lane->backlog = 0; /* for another try */
    else if (!turn->worker->dead)
        rc_unix_listened(engine, turn->lane, turn->worker);
}

/* Frees it. */
static void over(struct rc_engine *engine, struct rc_unix_turn *turn)
{
    struct rc_unix_turn **link = &engine->turns;
    struct rc_unix_lane *lane = turn->lane;
    while (*link != turn)
        link = &(*link)->next;
    *link = turn->next;
    if (lane && turn->kind == RC_TURN_LISTEN)
        listened(engine, turn);
    else if (lane && turn->kind == RC_TURN_BIND && !rc_unix_bound(engine, lane))
        rc_unix_lane_free(engine, lane);
    else if (lane && turn->kind == RC_TURN_UNLINK)
        lane->lost |= !lane->removed && rc_unix_leads(lane->name, rc_unix_like_us(lane->who),
                                                      lane->fd, &lane->node) != RC_LEADS_THERE;
    free(turn);
}

static bool shows(struct rc_engine *engine, const struct rc_unix_turn *turn)
{
    return rc_now_us() >= turn->until_us ||
           (turn->lane && turn->kind == RC_TURN_BIND && rc_unix_bound(engine, turn->lane)) ||
           (turn->lane && turn->kind == RC_TURN_LISTEN &&
            rc_socket_get(turn->lane->fd, SOL_SOCKET, SO_ACCEPTCONN) > 0);
}

/* Which turns are over, as far as it can be seen. */
void rc_unix_look(struct rc_engine *engine)
{
    for (struct rc_unix_turn *turn = engine->turns, *next; turn; turn = next) {
        next = turn->next;
        if (shows(engine, turn))
            over(engine, turn);
    }
}

void rc_unix_alarm(struct rc_engine *engine)
{
    bool more = engine->waits;
    rc_unix_look(engine);
    for (const struct rc_unix_turn *turn = engine->turns; turn && !more; turn = turn->next)
        more = turn->kind == RC_TURN_LISTEN;
    if (more)
        look_in(engine,
                engine->unix_look_ms < LAST_LOOK_MS ? engine->unix_look_ms * 2 : LAST_LOOK_MS);
}

/* ---- turns ---------------------------------------------------------------------- */

/* False: no memory, and nobody will wait for it. */
bool rc_unix_turn(struct rc_engine *engine, const struct rc_call *call, enum rc_unix_turn_kind kind,
                  const struct rc_unix_name *name, struct rc_unix_lane *lane)
{
    struct rc_unix_turn *turn = calloc(1, sizeof *turn + name->length);
    if (!turn)
        return false;
    turn->kind = kind;
    turn->worker = call->worker;
    turn->thread = call->thread;
    turn->caller = call->caller;
    turn->lane = lane;
    turn->until_us = rc_now_us() + (kind == RC_TURN_LISTEN ? LISTEN_US : TURN_US);
    turn->length = name->length;
    memcpy(turn->name, name->bytes, name->length);
    turn->next = engine->turns;
    engine->turns = turn;
    /* Its event must not wait for another call. */
    if (kind == RC_TURN_LISTEN)
        look_in(engine, FIRST_LOOK_MS);
    return true;
}

bool rc_unix_must_wait(const struct rc_engine *engine, const struct rc_worker *worker,
                       const struct rc_unix_name *name)
{
    for (const struct rc_unix_turn *turn = engine->turns; turn; turn = turn->next)
        if (turn->worker != worker && turn->kind != RC_TURN_LISTEN &&
            turn->length == name->length && memcmp(turn->name, name->bytes, name->length) == 0)
            return true;
    return false;
}

/* The shim's caller is in its plain call: it hangs up when that is done. */
bool rc_unix_has_turn(const struct rc_engine *engine, const struct rc_shim_caller *caller)
{
    const struct rc_unix_turn *turn = engine->turns;
    while (turn && turn->caller != caller)
        turn = turn->next;
    return turn;
}

/* ---- who waits ------------------------------------------------------------------- */

static void wait_free(struct rc_engine *engine, struct rc_unix_wait *wait)
{
    struct rc_unix_wait **link = &engine->waits;
    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
    rc_close(&wait->call.fd);
    free(wait);
}

int rc_unix_wait(struct rc_engine *engine, const struct rc_call *call, bool unlinks,
                 const struct rc_unix_name *name, struct rc_later **later)
{
    struct rc_unix_wait *wait = calloc(1, sizeof *wait), **last = &engine->waits;
    int fd = unlinks ? -1 : fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    int error = !wait ? -ENOMEM : !unlinks && fd < 0 ? -errno : 0;
    if (error) {
        rc_close(&fd);
        free(wait);
        return error;
    }
    wait->call = *call;
    wait->call.fd = fd;
    wait->until_us = rc_now_us() + TURN_US;
    wait->unlinks = unlinks;
    wait->name = *name;
    while (*last)
        last = &(*last)->next;
    *last = wait;
    *later = &wait->later;
    look_in(engine, FIRST_LOOK_MS);
    return 0;
}

/* In the order in which they came. */
void rc_unix_retry(struct rc_engine *engine)
{
    for (struct rc_unix_wait *wait = engine->waits, *next; wait; wait = next) {
        struct rc_answer answer = {.pass = true, .replace = -1};
        next = wait->next;
        if (rc_now_us() < wait->until_us &&
            rc_unix_must_wait(engine, wait->call.worker, &wait->name))
            continue;
        rc_unix_decide(engine, &wait->call, wait->unlinks, &wait->name, &answer);
        const struct rc_later later = wait->later;
        wait->later = (struct rc_later){0};
        if (later.answer)
            later.answer(engine, wait->call.worker, &later, answer.pass, answer.result);
        wait_free(engine, wait);
    }
}

/* ---- ends ------------------------------------------------------------------------ */

/* Who made a call: the caller, or one thread of the worker (0: all that is the worker's). */
struct maker {
    const struct rc_worker *worker;
    pid_t thread;
    const struct rc_shim_caller *caller;
};

static bool is_by(const struct maker *who, const struct rc_worker *worker, pid_t thread,
                  const struct rc_shim_caller *caller)
{
    if (who->caller)
        return caller == who->caller;
    return worker == who->worker && (!who->thread || (thread == who->thread && !caller));
}

/* It has done what it was let do, and waits for nothing. */
static void end(struct rc_engine *engine, const struct maker *who)
{
    for (struct rc_unix_turn *turn = engine->turns, *next; turn; turn = next) {
        next = turn->next;
        if (is_by(who, turn->worker, turn->thread, turn->caller))
            over(engine, turn);
    }
    for (struct rc_unix_wait *wait = engine->waits, *next; wait; wait = next) {
        next = wait->next;
        if (is_by(who, wait->call.worker, wait->call.thread, wait->call.caller))
            wait_free(engine, wait);
    }
}

/* The thread calls again (a signal may have taken it away from where it waited). */
void rc_unix_came_back(struct rc_engine *engine, const struct rc_worker *worker, pid_t thread)
{
    end(engine, &(struct maker){.worker = worker, .thread = thread});
}

/* The caller has hung up. */
void rc_later_forget(struct rc_engine *engine, const struct rc_shim_caller *caller)
{
    end(engine, &(struct maker){.caller = caller});
}

void rc_unix_turns_exited(struct rc_engine *engine, const struct rc_worker *worker)
{
    end(engine, &(struct maker){.worker = worker});
}

/* In a forked child, which only closes. */
void rc_unix_turns_close(const struct rc_engine *engine)
{
    for (const struct rc_unix_wait *wait = engine->waits; wait; wait = wait->next)
        if (wait->call.fd >= 0)
            (void)close(wait->call.fd);
}

void rc_unix_turns_free(struct rc_engine *engine)
{
    while (engine->waits)
        wait_free(engine, engine->waits);
    while (engine->turns) {
        struct rc_unix_turn *turn = engine->turns;
        engine->turns = turn->next;
        free(turn);
    }
}
