/* counts.c - what is counted of a worker, for whoever measures: its CPU time, its connections.
 *
 * Owns: the sums. Does not own the counting: in dispatch that is undelivered.c and opens.c, with
 * eBPF the programs in the kernel; otherwise nobody counts.
 *
 * Invariants: a connection is told of one worker, the one that had its lane when it was noted;
 * a count never goes down, though what was given may be taken back.
 */
#include "internal.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What has come to the lane since the last time is its worker's. */
void rc_counts_note(struct rc_lane *lane)
{
    uint64_t now = rc_kernel_accepted(lane);
    if (now <= lane->counted) /* or nobody counts any more (rc_kernel_forget, a group's end) */
        return;
    if (lane->worker)
        lane->worker->accepted += now - lane->counted;
    lane->counted = now;
}

/* In dispatch it is as if it had been given so many. */
void rc_counts_forgive(struct rc_worker *worker, uint64_t least)
{
    if (worker->given >= least)
        return;
    worker->forgiven += least - worker->given;
    worker->given = least;
}

/* It is a zombie, and not reaped: waitid(2) has a fifth argument, which glibc hides. */
void rc_counts_end(struct rc_worker *worker)
{
    siginfo_t info;
    struct rusage used = {0};
    if (syscall(SYS_waitid, P_PIDFD, worker->process.fd, &info, WEXITED | WNOHANG | WNOWAIT,
                &used) < 0)
        return;
    worker->cpu_us = (int64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
                     used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

/* False of one that listens, and accepts for itself: nobody counts what it gets. */
static bool is_passed_any(const struct rc_engine *engine, const struct rc_worker *worker)
{
    bool alone = false;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            if (group->lanes[at]->worker != worker)
                continue;
            if (group->lanes[at]->receiver.pair.fd >= 0)
                return true;
            alone = true;
        }
    return !alone;
}

static void count_dispatched(const struct rc_engine *engine, struct rc_worker *worker,
                             struct rc_counts *out)
{
    if (!is_passed_any(engine, worker))
        return;
    uint64_t got = worker->given > worker->forgiven ? worker->given - worker->forgiven : 0;
    worker->accepted = got > worker->accepted ? got : worker->accepted;
    out->accepted = (int64_t)worker->accepted;
    if (engine->dispatch.opens.source.fd >= 0)
        out->connections = (int)worker->open;
}

static void count_lanes(struct rc_engine *engine, struct rc_worker *worker, struct rc_counts *out)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            int open = lane->worker == worker ? rc_kernel_connections(lane) : -1;
            if (open < 0)
                continue;
            rc_counts_note(lane);
            out->accepted = (int64_t)worker->accepted;
            out->connections = open + (out->connections < 0 ? 0 : out->connections);
        }
}

int rc_counts(rc_engine *engine, uint32_t id, struct rc_counts *out)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker)
        return -ESRCH;
    *out = (struct rc_counts){.cpu_us = worker->cpu_us, .accepted = -1, .connections = -1};
    if (engine->dispatch.on)
        count_dispatched(engine, worker, out);
    else
        count_lanes(engine, worker, out);
    if (out->accepted < 0 && worker->accepted)
        out->accepted = (int64_t)worker->accepted;
    return 0;
}
