/* strays.c - processes of a dead worker that went to the background.
 *
 * Owns the question which they are, and a signal for them. A daemon leaves its process
 * group and its parent, so neither names it; what it has, does: a lane of the worker, or
 * the worker's end of the channel, of which no other process can have a copy. One that has
 * closed both is known, where orphans are ours (subreaper), by WORKER_ID and
 * RECLUSTER_GENERATION in its environment, or, without those, by when it began.
 *
 * Invariant: nothing of a living worker is signalled, nor a child of the master's own; and
 * a process only by a pidfd that was opened before it was looked at.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ENVIRONMENT_MOST = 1 << 17, LOOKS = 3 };
#define TICK 0.02 /* seconds; /proc counts a process's start in hundredths */
#define LATE 1.0  /* a second fork after the leader's end */

static bool holds_its_sockets(const struct rc_engine *engine, const struct rc_worker *worker,
                              pid_t pid)
{
    if (worker->channel_inode && rc_process_holds(pid, worker->channel_inode))
        return true;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (rc_lane_held_by(group->lanes[at], worker) &&
                rc_process_holds(pid, group->lanes[at]->inode))
                return true;
    return false;
}

/* Whether the variables in `all`, each ended by a zero, have one that begins so. */
static bool has_variable(const char *all, size_t length, const char *wanted, size_t compared)
{
    for (size_t at = 0; at < length; at += strlen(all + at) + 1)
        if (strncmp(all + at, wanted, compared) == 0)
            return true;
    return false;
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Seconds since the machine began; negative if it cannot be known. */
static double began_at(pid_t pid)
{
    char line[1024];
    unsigned long long ticks = 0;
    const char *end = rc_stat_of(pid, line, sizeof line);
    if (!end || sscanf(end,
                       ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                       "%*d %*d %llu",
                       &ticks) != 1)
        return -1;
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* A daemon comes just before or after the end of the process that started it. */
static bool began_in_its_time(const struct rc_worker *worker, pid_t pid)
{
    double born = (double)worker->born.tv_sec + (double)worker->born.tv_nsec / 1e9;
    double age = seconds_of(CLOCK_REALTIME) - born, began = began_at(pid);
    return began >= seconds_of(CLOCK_BOOTTIME) - age - TICK && began <= worker->died + LATE;
}

/* A worker that was forked and not exec'd has the master's environment, as /proc shows it. */
static bool is_by_its_environment(const struct rc_worker *worker, pid_t pid)
{
    char id[32], generation[48];
    snprintf(id, sizeof id, "WORKER_ID=%u", worker->slot);
    snprintf(generation, sizeof generation, "RECLUSTER_GENERATION=%u", worker->generation);
    char *all = malloc(ENVIRONMENT_MOST + 1);
    ssize_t got = all ? rc_proc_read(pid, "environ", all, ENVIRONMENT_MOST + 1) : 0;
    size_t length = got > 0 ? (size_t)got : 0;
    bool is = false;
    if (length && has_variable(all, length, id, strlen(id) + 1))
        is = has_variable(all, length, generation, strlen(generation) + 1);
    else if (length && !has_variable(all, length, id, strcspn(id, "=") + 1))
        is = began_in_its_time(worker, pid);
    free(all);
    return is;
}

static bool is_stray(const struct rc_engine *engine, const struct rc_worker *worker, pid_t pid)
{
    struct rc_worker *living;
    enum rc_descent descent = rc_descent(engine, pid, &living);
    if (living || descent == RC_DESCENT_STRANGE || pid == getpid() || pid == engine->guard.pid)
        return false;
    if (holds_its_sockets(engine, worker, pid))
        return true;
    for (const struct rc_worker *other = engine->workers; other; other = other->next)
        if (other != worker && holds_its_sockets(engine, other, pid))
            return false;
    return (descent == RC_DESCENT_OURS && is_by_its_environment(worker, pid));
}

/* 1 if it is one, and has the signal (0: none). */
static int signal_if_stray(const struct rc_engine *engine, const struct rc_worker *worker,
                           pid_t pid, int number)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return 0;
    int is = is_stray(engine, worker, pid);
    if (is && number)
        (void)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0);
    close(pidfd);
    return is;
}

/* The leader has ended well: whether another of its group, which is about to be killed, has
 * its sockets. A daemon leaves the group a moment after its parent's end at the latest. */
void rc_strays_note(const struct rc_engine *engine, struct rc_worker *worker)
{
    worker->died = seconds_of(CLOCK_BOOTTIME);
    DIR *all = worker->status == 0 ? opendir("/proc") : NULL;
    if (!all)
        return;
    for (pid_t pid; !worker->left_some && (pid = (pid_t)rc_proc_next(all)) > 0;)
        if (pid != worker->pid && getpgid(pid) == worker->pid)
            worker->left_some = holds_its_sockets(engine, worker, pid);
    closedir(all);
}

/* Without being a subreaper a daemon is anybody's child. Else its topmost process is ours,
 * which is enough to be told, but not to be killed: then each process is. */
static int look(const struct rc_engine *engine, const struct rc_worker *worker, int number)
{
    bool topmost = (engine->flags & RC_SUBREAPER) && number != SIGKILL;
    int found = 0;
    DIR *all = opendir("/proc");
    if (!all)
        return -errno;
    for (pid_t pid; (pid = (pid_t)rc_proc_next(all)) > 0;)
        if (!topmost || rc_parent_of(pid) == getpid())
            found += signal_if_stray(engine, worker, pid, number);
    closedir(all);
    return found;
}

/* It is done only for workers that ended well before they were of use. A look may come to
 * a process that has forked another since the names were read, and ended. */
int rc_worker_strays(rc_engine *engine, uint32_t id, int number)
{
    const struct rc_worker *worker = rc_find(engine, id);
    if (!worker || !worker->dead)
        return -ESRCH;
    int found = 0;
    for (int looks = 0; looks < LOOKS && found == 0; looks++)
        found = look(engine, worker, number);
    return found < 0 ? found : found + worker->left_some;
}
