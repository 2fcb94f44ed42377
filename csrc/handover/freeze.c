/* freeze.c - the connections of a worker held still before it is told to stop.
 *
 * Owns: when its stop signal is sent. SO_RCVLOWAT belongs to the socket, so set on our duplicate
 * it makes the worker's loop blind to what the client sends: no request is read that would not
 * be answered. A bell at the worker that brings nothing is the barrier: when it has been asked
 * for, no batch of events from before is left in its loop.
 *
 * Invariants:
 *  - only where every connection there has been non-blocking whenever one was looked at: a read(2)
 *    that began would take and not return, and some servers block only while they read;
 *  - what is frozen is thawed: by who lets it go, or after STUCK_US for the worker to answer it;
 *  - the signal is sent at the latest WAIT_US after it was asked for.
 */
#include "internal.h"

#include <sys/socket.h>

enum {
    LOW_WATER = 50000, /* below 64 K the buffer does not grow */
    WAIT_US = 1000000,
    BODY_US = 4000, /* what lies there may be the body of what was read, so for */
    THAW_US = 3000, /* so long it may be read */
    STUCK_US = 400000,
};

static void set_still(struct rc_kept *kept, bool still)
{
    if (kept->still == still)
        return;
    kept->still =
        rc_socket_set(kept->client.fd, SOL_SOCKET, SO_RCVLOWAT, still ? LOW_WATER : 1) == 0 &&
        still;
}

void rc_freeze_end(struct rc_kept *kept)
{
    set_still(kept, false);
}

static bool may_freeze(const struct rc_engine *engine, const struct rc_worker *worker)
{
    bool any = false;
    for (const struct rc_kept *kept = engine->handover.all; kept; kept = kept->next) {
        if (kept->worker != worker)
            continue;
        if (kept->group->blocks || kept->group->speaks == RC_SPEECH_OTHER)
            return false;
        any = true;
    }
    return any && worker->receives;
}

/* False where the caller is to send the signal now. */
bool rc_freeze_begin(struct rc_engine *engine, struct rc_worker *worker, int signal)
{
    int64_t now = rc_now_us();
    if (!may_freeze(engine, worker))
        return false;
    for (struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
        if (kept->worker == worker) {
            set_still(kept, true);
            kept->turned_at = now;
        }
    worker->leave =
        (struct rc_leave){.signal = signal, .began_at = now, .barriers = worker->leave.barriers};
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->key.type == SOCK_STREAM && group->lanes[at]->worker == worker &&
                rc_ring_barrier(engine, group->lanes[at]) == 0)
                worker->leave.barriers++;
    return true;
}

void rc_leave_now(struct rc_engine *engine, struct rc_worker *worker, int64_t now)
{
    (void)rc_worker_stop(engine, worker->id, worker->leave.signal);
    worker->leave.signal = 0;
    worker->leave.sent_at = now;
}

/* Of one connection: whether it has been answered, so that it is held still. */
bool rc_freeze_ready(struct rc_kept *kept, int64_t now)
{
    if (kept->settled || (kept->last.read == 0 && kept->last.written == 0)) {
        set_still(kept, true);
        return true;
    }
    if (kept->last.unread == 0) {
        set_still(kept, true); /* it is being answered */
    } else if (now > kept->turned_at + (kept->still ? BODY_US : THAW_US)) {
        kept->turned_at = now;
        set_still(kept, !kept->still);
    }
    return false;
}

/* After each look at what is held. */
void rc_freeze_look(struct rc_engine *engine, int64_t now)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        const struct rc_leave *leave = &worker->leave;
        bool all = leave->barriers == 0;
        if ((!leave->began_at && !leave->sent_at) || worker->dead)
            continue;
        for (struct rc_kept *kept = engine->handover.all; kept; kept = kept->next) {
            if (kept->worker != worker || kept->state != RC_KEPT_HELD)
                continue;
            if (leave->signal)
                all &= rc_freeze_ready(kept, now);
            else if (now > leave->sent_at + STUCK_US)
                set_still(kept, false); /* it is not let go: the old worker answers */
        }
        if (leave->signal && (all || now > leave->began_at + WAIT_US)) {
            worker->leave.answered = all;
            rc_leave_now(engine, worker, now);
        }
    }
}

/* When it was sent its stop signal, us; 0: not by us; -1: when all was answered, so that how soon
 * it ends says nothing of it. */
int64_t rc_left_at(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    return !worker ? 0 : worker->leave.answered ? -1 : worker->leave.sent_at;
}
