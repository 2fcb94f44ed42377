/* look.c - looks into workers' memory, for a call of theirs that waits.
 *
 * Owns: which are under way. Does not own how it is read (reader.c), nor what the call is
 * answered with (notify.c).
 *
 * Invariant: a worker has IN_FLIGHT_MAX looks under way at most: more are refused.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { IN_FLIGHT_MAX = 4 };

static unsigned in_flight(const struct rc_engine *engine, uint32_t worker)
{
    unsigned count = 0;
    for (const struct rc_look *look = engine->looks; look; look = look->next)
        count += look->worker == worker;
    return count;
}

/* Begins to read `length` bytes of theirs, or a text of that many at most: 1 if it is done
 * (rc_look_result), 0 if it will be (RC_SOURCE_LOOK), -errno and the look is the caller's. */
int rc_look_begin(struct rc_engine *engine, struct rc_look *look, uint64_t from, size_t length,
                  bool text)
{
    const struct rc_wanted wanted = {look->call.pid, from, length, text};
    if (in_flight(engine, look->worker) >= IN_FLIGHT_MAX)
        return -EAGAIN;
    int done = rc_reader_read(engine, &wanted, &look->reader), error = done < 0 ? done : 0;
    if (!done) {
        int event = rc_reader_event(look->reader);
        error = rc_source_add(engine->epoll, &look->source, RC_SOURCE_LOOK, event, EPOLLIN);
        if (error)
            rc_reader_put(engine, look->reader);
    }
    if (error)
        return error;
    look->next = engine->looks;
    engine->looks = look;
    return done;
}

/* How many bytes, or -errno. */
ssize_t rc_look_result(const struct rc_look *look, const char **bytes)
{
    return rc_reader_result(look->reader, bytes);
}

/* In a forked child. */
void rc_look_close(const struct rc_look *look)
{
    rc_reader_close(look->reader);
    if (look->call.fd >= 0)
        (void)close(look->call.fd);
}

void rc_look_end(struct rc_engine *engine, struct rc_look *look)
{
    struct rc_look **link = &engine->looks;
    while (*link != look)
        link = &(*link)->next;
    *link = look->next;
    rc_source_leave(engine->epoll, &look->source);
    rc_close(&look->call.fd);
    rc_reader_put(engine, look->reader);
    rc_bury(engine, look);
}

/* At the end: whoever outlives us is not to wait. */
void rc_looks_pass(struct rc_engine *engine)
{
    while (engine->looks) {
        const struct rc_worker *worker = rc_find(engine, engine->looks->worker);
        if (worker && worker->door.fd >= 0)
            rc_notify_reply(engine->asked, worker->door.fd, engine->looks->notice, true, 0);
        rc_look_end(engine, engine->looks);
    }
    rc_readers_rest(engine);
}
