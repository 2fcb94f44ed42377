/* descent.c - whose process a pid is: a worker's, the master's at least, or a stranger's.
 *
 * Owns nothing. A process belongs to the worker in whose process group it is, or in whose
 * group one of its parents is; one that left its parents is a child of the subreaper.
 *
 * Invariant: only a leader that is not reaped yet counts, for its number cannot have
 * become another's.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEEPEST = 64 }; /* who hides deeper pays for it himself */

/* Of /proc/PID/stat what follows the name, which may hold anything; NULL: no such process. */
const char *rc_stat_of(pid_t pid, char *line, size_t room)
{
    return rc_proc_read(pid, "stat", line, room) < 0 ? NULL : strrchr(line, ')');
}

pid_t rc_parent_of(pid_t pid)
{
    char line[512];
    int parent = -1;
    const char *end = rc_stat_of(pid, line, sizeof line);
    return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : -1;
}

static struct rc_worker *leader_of(const struct rc_engine *engine, pid_t pid)
{
    pid_t group = getpgid(pid);
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->process.fd >= 0 && (worker->pid == pid || worker->pid == group))
            return worker;
    return NULL;
}

/* *worker is NULL where it is of our tree, but has left its worker's part of it. */
enum rc_descent rc_descent(const struct rc_engine *engine, pid_t pid, struct rc_worker **worker)
{
    *worker = NULL;
    for (int depth = 0; depth < DEEPEST && pid > 0; depth++) {
        if (pid == getpid())
            return RC_DESCENT_OURS;
        if ((*worker = leader_of(engine, pid)) != NULL)
            return RC_DESCENT_OURS;
        if (pid == 1) /* without a subreaper it may have come from anywhere */
            return engine->flags & RC_SUBREAPER ? RC_DESCENT_STRANGE : RC_DESCENT_UNKNOWN;
        pid = rc_parent_of(pid);
    }
    return RC_DESCENT_STRANGE;
}
