/* starved.c - does a worker that has not accepted in time have a reason to be waited
 * for? One that wants to run and got no CPU has: it would have accepted. One that
 * sleeps elsewhere, or computes, is busy.
 *
 * Owns nothing; reads /proc/TID and the CPU clocks of processes (clock_getcpuclockid(3);
 * everybody may).
 */
#include "internal.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHILDREN = 16, THREADS = 64 }; /* more are not looked at */

/* It runs, or would if it had a CPU. */
static bool may_run(pid_t thread)
{
    char line[512];
    const char *end = rc_stat_of(thread, line, sizeof line);
    return end && end[1] == ' ' && end[2] == 'R';
}

/* Any thread will do: the one that accepts may wait for what another holds, as
 * Python's do for their interpreter. */
static bool any_may_run(pid_t thread)
{
    bool may = may_run(thread);
    DIR *threads = may ? NULL : rc_proc_open(thread, "task");
    if (!threads)
        return may;
    long other;
    for (int most = THREADS; !may && most > 0 && (other = rc_proc_next(threads)) >= 0; most--)
        may = may_run((pid_t)other);
    closedir(threads);
    return may;
}

/* For how long it has run, since it was made; that of threads that have ended too. */
static uint64_t process_ran(pid_t process)
{
    clockid_t clock;
    struct timespec ran;
    if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &ran) < 0)
        return 0;
    return (uint64_t)ran.tv_sec * 1000000000 + (uint64_t)ran.tv_nsec;
}

/* A worker, and its children, which may be the ones that accept (gunicorn's, hypercorn's). */
bool rc_wants_cpu(pid_t process, uint64_t *ran_ns)
{
    char name[64], text[512];
    bool wants = any_may_run(process);
    *ran_ns = process_ran(process);
    snprintf(name, sizeof name, "task/%d/children", (int)process);
    if (rc_proc_read(process, name, text, sizeof text) <= 0)
        return wants;
    int length, child, most = CHILDREN;
    for (const char *at = text; most-- > 0 && sscanf(at, "%d%n", &child, &length) == 1;
         at += length) {
        wants |= any_may_run(child);
        *ran_ns += process_ran(child);
    }
    return wants;
}
