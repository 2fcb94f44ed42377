/* guarding.c - the engine's guard: there is one while there are workers, and it knows them all.
 *
 * Owns what a new one is told, and when one takes the place of another. Does not own what a guard
 * does (guard.c).
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

static int start(struct rc_engine *engine, bool stops_first)
{
    struct rc_guarded known = {.asked = engine->asked};
    size_t most = 1;
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        most++;
    known.group = calloc(most, sizeof *known.group);
    known.door = calloc(most, sizeof *known.door);
    int error = known.group && known.door ? 0 : -errno;
    for (const struct rc_worker *worker = engine->workers; worker && !error;
         worker = worker->next) {
        if (worker->process.fd >= 0)
            known.group[known.groups++] = worker->pid;
        if (worker->door.fd >= 0)
            known.door[known.doors++] = worker->door.fd;
    }
    if (!error) {
        if (stops_first)
            rc_guard_stop(&engine->guard, engine->epoll);
        error = rc_guard_start(&engine->guard, engine->epoll, &known);
    }
    free(known.group);
    free(known.door);
    return error;
}

/* A guard that somebody has stopped lets its pipe fill: it is replaced. */
int rc_guard_ready(struct rc_engine *engine)
{
    if (rc_guard_takes(&engine->guard))
        return 0;
    return rc_guard_renew(engine);
}

int rc_guard_renew(struct rc_engine *engine)
{
    return start(engine, true);
}

/* The guard of the master before, in this process, is ended when there is one of ours: it has
 * what that one had received and not answered, and we have not. */
int rc_guard_relieve(struct rc_engine *engine, struct rc_guard *before)
{
    if (before->pid <= 0)
        return 0;
    before->source.fd = (int)syscall(SYS_pidfd_open, before->pid, 0);
    if (before->source.fd < 0)
        return -errno;
    int error = start(engine, false);
    if (!error)
        rc_guard_stop(before, engine->epoll);
    return error;
}
