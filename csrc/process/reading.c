/* reading.c - what a worker says: its hello, its lines, and last its end.
 *
 * Owns: reading the channels, as far as there is room for events. Does not own their
 * format (channel.c), nor what the lines mean.
 *
 * Invariant: a worker's exit is told after all that it has said.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>

/* Each descriptor of a turn may emit a few events beside messages, which are taken
 * only while more than RESERVE places are free. */
enum { RESERVE = RC_TURN * 4 };

static bool full(const struct rc_output *output)
{
    return output->count + RESERVE >= output->room;
}

/* The lines that are complete in the buffer, as far as there is room. */
static void emit_lines(struct rc_engine *engine, struct rc_worker *worker)
{
    const char *line;
    size_t length;
    while (!full(engine->output)) {
        int state = rc_channel_line(&worker->channel, &line, &length);
        if (state == 0)
            return;
        if (state < 0)
            rc_emit(engine, RC_EVENT_GARBLED, worker->id, RC_LINE_MAX, NULL, 0);
        else
            rc_emit(engine, RC_EVENT_MESSAGE, worker->id, 0, line, length);
    }
}

/* What a child says first: its door, or why it has none. */
static bool greet(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_hello hello;
    int door = -1;
    int error = rc_channel_hello(worker->channel_source.fd, &hello, &door);
    if (error == -EAGAIN && !worker->leaving)
        return false;
    worker->channel.greeted = true;
    if (!error)
        error = -hello.error;
    if (!error && door >= 0)
        error = rc_source_add(engine->epoll, &worker->door, RC_SOURCE_DOOR, door, EPOLLIN);
    if (!error && door >= 0 && rc_guard_door(&engine->guard, door) < 0 && engine->guard.pid > 0)
        (void)rc_guard_renew(engine); /* the new one has it; refused: the next spawn tries again */
    if (error) {                      /* whatever it binds would be refused, or not be seen */
        rc_close(&door);
        (void)rc_worker_kill(engine, worker->id);
    }
    rc_emit(engine, RC_EVENT_DOOR, worker->id, -error, NULL, 0);
    return true;
}

static bool changes_hung(const struct rc_worker *worker)
{
    return !worker->dead && worker->told_hung != (worker->hung_lanes > 0);
}

/* Derived, not told as it happens: in one sweep more workers than there is room for may hang. */
static void tell_hung(struct rc_engine *engine, struct rc_worker *worker)
{
    if (!changes_hung(worker) || full(engine->output))
        return;
    worker->told_hung = !worker->told_hung;
    if (worker->told_hung)
        rc_emit(engine, RC_EVENT_HUNG, worker->id, worker->hung_queued, NULL, 0);
    else
        rc_emit(engine, RC_EVENT_TAKES, worker->id, 0, NULL, 0);
}

/* At most one read per turn: lines already emitted point into the buffer. */
void rc_hear(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_channel *channel = &worker->channel;
    bool more = false;
    tell_hung(engine, worker);
    if (worker->heard == engine->turn)
        return;
    worker->heard = engine->turn;
    if (!channel->greeted && worker->channel_source.fd >= 0 && !greet(engine, worker))
        return;
    if (worker->channel_source.fd >= 0 && !rc_channel_has_line(channel)) {
        int got = rc_channel_read(channel, worker->channel_source.fd);
        more = got > 0;
        if (channel->finished || (got < 0 && worker->leaving))
            rc_source_shut(engine->epoll, &worker->channel_source);
    }
    emit_lines(engine, worker);
    if (worker->leaving && !more && !rc_channel_has_line(channel) && !full(engine->output)) {
        worker->leaving = false;
        rc_source_shut(engine->epoll, &worker->channel_source);
        rc_emit(engine, RC_EVENT_EXIT, worker->id, worker->status, NULL, 0);
        if (worker->door.fd < 0)
            rc_worker_departed(engine, worker);
    }
}

bool rc_has_to_tell(const struct rc_worker *worker)
{
    return worker->leaving || rc_channel_has_line(&worker->channel) || changes_hung(worker);
}

void rc_channel_ready(struct rc_engine *engine, struct rc_worker *worker, uint32_t ready)
{
    if (ready & EPOLLOUT) {
        int state = rc_channel_flush(&worker->channel, worker->channel_source.fd);
        if (state <= 0)
            (void)rc_source_arm(engine->epoll, &worker->channel_source, EPOLLIN);
    }
    /* While its lines wait for room it is not read: the socket fills, and the
     * worker that floods waits. */
    if (ready & ~(uint32_t)EPOLLOUT)
        rc_hear(engine, worker);
}
