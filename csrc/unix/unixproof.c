/* unixproof.c - whether a worker accepts from the sockets that all generations accept from:
 * AF_UNIX names, and those that were there before the first worker.
 *
 * Owns when it is looked. A connection would prove nothing here, for whoever is quickest takes
 * it; so it is seen from outside that somebody of this worker waits at the socket
 * (waiters.c), or has accepted from it already, as where there is so much to do that it
 * never waits.
 *
 * Invariant: new code that cannot start is not taken for ready. A worker that was idle at most
 * looks of IDLE_US and is not seen to wait is (it may sleep between two accepts), and so is one
 * that may not be looked at; the caller is told why with the event.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>

enum {
    LOOK_US = 1000, /* until the first look; each pause is twice the last, */
    LOOK_MOST_US = 100000,
    IDLE_US = 5000000,
    IDLE_PART = 4, /* who boots is at work at more than one look of so many */
};

/* ---- what can be seen -------------------------------------------------------------------- */

/* Connections of an internet address that was there before. */
static int inet_connections(struct rc_engine *engine, const struct rc_unix_lane *lane,
                            const struct rc_worker *worker)
{
    const unsigned states = ~(1u << TCP_LISTEN | 1u << TCP_TIME_WAIT);
    struct rc_flows flows = {0};
    struct sockaddr_in6 name;
    int error = rc_socket_name(lane->fd, &name);
    if (!error)
        error = rc_diag_dump(engine, name.sin6_family, &name.sin6_port, 1, states, &flows);
    int held = rc_holders_count(worker->pid, &flows);
    return error ? error : held;
}

static bool has_accepted(struct rc_engine *engine, const struct rc_unix_lane *lane,
                         const struct rc_worker *worker)
{
    return rc_socket_get(lane->fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX
               ? rc_unix_connections(engine, worker) > 0
               : inet_connections(engine, lane, worker) > 0;
}

/* An rc_waiting of all its names: where it does the least; or -errno. */
static int look_at(struct rc_engine *engine, const struct rc_worker *worker)
{
    int least = RC_WAITS_THERE;
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next) {
        if (!rc_unix_is_member(lane, worker) || lane->lost ||
            rc_socket_get(lane->fd, SOL_SOCKET, SO_ACCEPTCONN) <= 0)
            continue;
        int waits = rc_waiters_look(engine, worker, lane->inode);
        if (waits == RC_WAITS_BUSY && has_accepted(engine, lane, worker))
            waits = RC_WAITS_THERE;
        least = waits < least ? waits : least;
    }
    return least;
}

/* Of the names that lead elsewhere by now: who has them is to be replaced. */
void rc_unix_tell_lost(struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        if (lane->lost && rc_unix_is_member(lane, worker))
            rc_emit_place(engine, RC_EVENT_DEAF, worker->id, 0, lane->text);
}

static bool has_lost(const struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_unix_lane *lane = engine->unixes; lane; lane = lane->next)
        if (lane->lost && rc_unix_is_member(lane, worker))
            return true;
    return false;
}

/* ---- when -------------------------------------------------------------------------------- */

static void decide(struct rc_engine *engine, struct rc_worker *worker, int error)
{
    worker->shared_proof =
        (struct rc_shared_proof){.tell_at = has_lost(engine, worker) ? rc_now_us() + LOOK_US : 0};
    worker->unproven = error ? error : worker->unproven;
    engine->unsettled += !worker->unsettled;
    worker->unsettled = true; /* the turn's end tells it (rc_proof_heard) */
}

static void look(struct rc_engine *engine, struct rc_worker *worker, int64_t now)
{
    struct rc_shared_proof *proof = &worker->shared_proof;
    int waits = look_at(engine, worker);
    if (waits < 0 || waits == RC_WAITS_THERE) {
        decide(engine, worker, waits < 0 ? waits : 0);
        return;
    }
    proof->looks++;
    proof->busy += waits == RC_WAITS_BUSY;
    if (now - proof->since >= IDLE_US) {
        if (proof->busy * IDLE_PART <= proof->looks) {
            decide(engine, worker, -ETIME);
            return;
        }
        proof->since = now;
        proof->looks = proof->busy = 0;
    }
    proof->interval = proof->interval < LOOK_MOST_US / 2 ? proof->interval * 2 : LOOK_MOST_US;
    proof->look_at = now + proof->interval;
}

static void set_alarm(struct rc_engine *engine)
{
    int64_t first = 0;
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        const struct rc_shared_proof *proof = &worker->shared_proof;
        int64_t at = proof->look_at ? proof->look_at : proof->tell_at;
        if (at && !worker->dead && (!first || at < first))
            first = at;
    }
    rc_alarm_set(engine, RC_ALARM_UNIX_PROOFS, first);
}

void rc_unix_proofs_alarm(struct rc_engine *engine)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        struct rc_shared_proof *proof = &worker->shared_proof;
        int64_t now = rc_now_us();
        if (worker->dead)
            continue;
        if (proof->tell_at && proof->tell_at <= now) {
            proof->tell_at = 0;
            rc_unix_tell_lost(engine, worker);
        }
        if (proof->look_at && proof->look_at <= now)
            look(engine, worker, now);
    }
    set_alarm(engine);
}

/* The worker listens there now. Whether it is to be found out. */
bool rc_unix_prove(struct rc_engine *engine, const struct rc_unix_lane *lane,
                   struct rc_worker *worker)
{
    if (!engine->proves || (worker->accepts && worker->live) ||
        rc_socket_get(lane->fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM)
        return false;
    worker->accepts = false;
    int64_t now = rc_now_us();
    worker->shared_proof =
        (struct rc_shared_proof){.since = now, .interval = LOOK_US, .look_at = now + LOOK_US};
    set_alarm(engine);
    return true;
}
