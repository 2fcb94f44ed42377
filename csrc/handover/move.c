/* move.c - a worker that would end at the stop signal gets it at a moment at which that costs
 * nobody anything.
 *
 * Owns that moment. Every connection is held (handover.c), and held still where that is possible
 * (freeze.c), until each has been answered and asks for more; then the server is stopped, so that
 * what is seen of it stays so, looked at once more, and told to end. What clients have asked for
 * by then, siblings answer.
 *
 * Invariants:
 *  - all or none: where one connection cannot be held, or may still be owed a part of an answer,
 *    the worker is left as it was;
 *  - a server is stopped for STOPPED_US at most, and held still for WAIT_US.
 */
#include "internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    WAIT_US = 1000000,
    STOPPED_US = 10000,
    AGAIN_US = 20000, /* after it was stopped in vain, */
    ASK_US = 5000,    /* and after all threads were looked at */
};

static void tell(const struct rc_move *move, int signal)
{
    (void)syscall(SYS_pidfd_send_signal, move->server_fd, signal, NULL, 0);
}

static void go_on(struct rc_move *move, int64_t now)
{
    if (move->stopped_at)
        tell(move, SIGCONT);
    move->stopped_at = 0;
    move->again_at = now + AGAIN_US;
}

/* What is held is the caller's business. */
void rc_move_end(struct rc_worker *worker)
{
    if (!worker->move.began_at)
        return;
    go_on(&worker->move, 0);
    rc_close(&worker->move.server_fd);
    worker->move.began_at = 0;
}

static bool is_of(const struct rc_kept *kept, const struct rc_worker *worker)
{
    return kept->worker == worker && kept->state == RC_KEPT_HELD;
}

/* ---- whether all is answered -------------------------------------------------------------- */

struct readers {
    struct rc_engine *engine;
    const struct rc_worker *worker;
};

static int mark(const struct rc_thread_call *call, void *given)
{
    const struct readers *readers = given;
    for (struct rc_kept *kept = readers->engine->handover.all; kept; kept = kept->next)
        if (is_of(kept, readers->worker) && rc_thread_reads(call, kept->number))
            kept->reads = true;
    return 0;
}

/* Before anything that costs more is asked. */
static bool are_settled(const struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
        if (is_of(kept, worker) && !kept->settled && kept->last.read)
            return false;
    return true;
}

/* Which threads stand in read(2). Of one that is stopped it is not known whether it has come
 * back with something; so this is asked before, and what was so is so while no byte moves. */
static bool mark_readers(struct rc_engine *engine, const struct rc_worker *worker)
{
    struct readers readers = {engine, worker};
    bool any = false;
    for (struct rc_kept *kept = engine->handover.all; kept; kept = kept->next) {
        kept->reads = false;
        kept->before = kept->last;
        any |= is_of(kept, worker) && kept->blocks;
    }
    return !any || rc_threads_visit(worker->move.server, mark, &readers) == 0;
}

/* Of an answer no end is seen from outside. But who asks for more has got all of it, and a
 * thread that has answered and stands in read(2) waits for the next request. */
static bool is_asked_for(const struct rc_kept *kept)
{
    const struct rc_exchange *now = &kept->last;
    bool unmoved = now->read == kept->before.read && now->written == kept->before.written;
    if (now->read == 0 && now->written == 0)
        return true;
    return kept->settled && (!now->unread || rc_exchange_peek(kept->client.fd) == 1) &&
           (kept->blocks ? kept->reads && unmoved : now->unread > 0);
}

/* And what has been quiet for long enough the user has said to be over. */
static bool is_whole(const struct rc_kept *kept, unsigned quiet_ms)
{
    const struct rc_exchange *now = &kept->last;
    return is_asked_for(kept) || (kept->settled && !now->unread && now->quiet_ms >= quiet_ms);
}

static bool are_whole(const struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
        if (is_of(kept, worker) && !is_whole(kept, worker->move.quiet_ms))
            return false;
    return true;
}

/* Where no request was seen yet, what is there may be TLS. */
static bool speak_http(const struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
        if (is_of(kept, worker) && kept->group->speaks != RC_SPEECH_HTTP1)
            return false;
    return true;
}

/* Nor will it be: what follows an answer there is no request of HTTP/1. */
static bool speaks_other(struct rc_engine *engine, const struct rc_worker *worker)
{
    for (struct rc_kept *kept = engine->handover.all; kept; kept = kept->next) {
        if (!is_of(kept, worker) || !kept->settled || !kept->last.unread ||
            rc_exchange_peek(kept->client.fd) != -EPROTO)
            continue;
        if (kept->group->speaks == RC_SPEECH_UNKNOWN)
            kept->group->speaks = RC_SPEECH_OTHER;
        return true;
    }
    return false;
}

/* Those that are not yet answered may read what they want for that. */
static bool hold_still(struct rc_engine *engine, const struct rc_worker *worker, int64_t now)
{
    bool all = true;
    for (struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
        if (is_of(kept, worker) && !kept->group->blocks)
            all &= rc_freeze_ready(kept, now);
    return all;
}

/* ---- the moment ---------------------------------------------------------------------------- */

static void try(struct rc_engine *engine, struct rc_worker *worker, int64_t now)
{
    struct rc_move *move = &worker->move;
    if (!move->stopped_at) {
        if (!hold_still(engine, worker, now) || now < move->again_at ||
            !are_settled(engine, worker))
            return;
        move->again_at = now + ASK_US;
        if (mark_readers(engine, worker) && are_whole(engine, worker)) {
            move->stopped_at = now;
            tell(move, SIGSTOP);
        }
        return;
    }
    bool stopped = rc_is_stopped(move->server);
    for (struct rc_kept *kept = engine->handover.all; stopped && kept; kept = kept->next)
        if (is_of(kept, worker))
            rc_handover_glance(kept);
    if (stopped && !are_whole(engine, worker)) {
        go_on(move, now);
    } else if (stopped && speak_http(engine, worker)) {
        for (struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
            kept->moved |= is_of(kept, worker) && is_asked_for(kept);
        tell(move, move->signal);
        worker->leave = (struct rc_leave){.sent_at = now, .answered = true};
        rc_move_end(worker);
    } else if (now > move->stopped_at + STOPPED_US) {
        go_on(move, now);
    }
}

/* After each look at what is held. True if one is under way. */
bool rc_move_look(struct rc_engine *engine, int64_t now)
{
    bool any = false;
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        struct rc_move *move = &worker->move;
        if (move->began_at)
            try(engine, worker, now);
        if (move->began_at && !move->stopped_at &&
            (now > move->began_at + WAIT_US || speaks_other(engine, worker))) {
            rc_move_end(worker);
            rc_handover_let_go(engine, worker);
        }
        any |= move->began_at != 0;
    }
    return any;
}

/* One whose server is another process than the one that has the connections is not moved. */
static int all_are_the_servers(const struct rc_engine *engine, const struct rc_worker *worker)
{
    bool any = false;
    for (const struct rc_kept *kept = engine->handover.all; kept; kept = kept->next) {
        if (!is_of(kept, worker))
            continue;
        if (kept->pid != worker->move.server)
            return -ENOTSUP;
        if (kept->group->speaks == RC_SPEECH_OTHER)
            return -EPROTO;
        any = true;
    }
    return any ? 0 : -ENOTCONN;
}

/* With worker->move as it was asked for. */
int rc_move_begin(struct rc_engine *engine, struct rc_worker *worker)
{
    int error = rc_handover_hold(engine, worker);
    worker->move.server_fd = -1;
    if (!error) {
        worker->move.server_fd = rc_server_open(engine, worker, &worker->move.server);
        error = worker->move.server_fd < 0 ? worker->move.server_fd : 0;
    }
    if (!error)
        error = all_are_the_servers(engine, worker);
    if (error) {
        rc_handover_let_go(engine, worker);
        rc_close(&worker->move.server_fd);
        return error;
    }
    worker->move.began_at = rc_now_us();
    rc_handover_alarm(engine);
    return 0;
}

int rc_move(rc_engine *engine, uint32_t id, int signal, double quiet)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->dead)
        return -ESRCH;
    if (!engine->rings.page)
        return -ENOTSUP;
    if (worker->move.began_at || worker->question.asked_at || worker->leave.began_at ||
        worker->leave.sent_at)
        return 0;
    struct rc_move move = {.signal = signal,
                           .quiet_ms =
                               quiet * 1000 < UINT32_MAX ? (unsigned)(quiet * 1000) : UINT32_MAX};
    worker->move = move;
    int error = rc_move_begin(engine, worker);
    if (error == -EPERM && rc_question_ask(engine, worker) == 0) {
        worker->question.moves = true;
        rc_handover_alarm(engine);
        return 0;
    }
    return error;
}
