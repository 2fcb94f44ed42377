/* usage.c - what the processes of a worker use: memory, CPU time, descriptors (proc(5)).
 *
 * Owns nothing. A worker is its leader and what descends from it: under `npm start` the server is a
 * child. What cannot be read of one that ends meanwhile, or is another user's, is not counted.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_ROOM = 1024, THREADS_MOST = 64 };

/* Fields of /proc/PID/stat, counted from the state, which is behind the name. */
enum { UTIME = 11, CSTIME = 14, THREADS = 17, RSS = 21 };

/* How many threads it has, or -ESRCH for a text that is none. */
static int add_stat(const char *text, struct rc_usage *out)
{
    const char *at = strrchr(text, ')'); /* of the name, which may hold anything */
    long ticks = 0, threads = 0, pages = 0;
    for (int field = 0; at && field <= RSS; field++) {
        at = strchr(at + 1, ' '); /* in front of it */
        if (at && field >= UTIME && field <= CSTIME)
            ticks += strtol(at, NULL, 10);
        else if (at && field == THREADS)
            threads = strtol(at, NULL, 10);
        else if (at && field == RSS)
            pages = strtol(at, NULL, 10);
    }
    if (!at)
        return -ESRCH;
    out->cpu_ticks += ticks;
    out->resident += pages * sysconf(_SC_PAGE_SIZE);
    return (int)threads;
}

/* Those that are to be looked at, the next one last. */
struct left {
    pid_t pids[RC_USAGE_PIDS];
    unsigned count;
};

static void add_children(const char *text, struct left *left)
{
    char *end;
    for (long pid; left->count < RC_USAGE_PIDS && (pid = strtol(text, &end, 10)) > 0; text = end)
        left->pids[left->count++] = (pid_t)pid;
}

/* Of all of its threads: who forks is the parent. (Absent without CONFIG_PROC_CHILDREN.) */
static void add_children_of_threads(pid_t pid, struct left *left)
{
    char name[48], text[TEXT_ROOM];
    DIR *threads = rc_proc_open(pid, "task");
    if (!threads)
        return;
    long thread;
    for (int seen = 0; seen < THREADS_MOST && (thread = rc_proc_next(threads)) >= 0; seen++) {
        (void)snprintf(name, sizeof name, "task/%ld/children", thread);
        if (rc_proc_read(pid, name, text, sizeof text) > 0)
            add_children(text, left);
    }
    (void)closedir(threads);
}

/* 0 before Linux 6.2. */
static void add_descriptors(const struct stat *about, struct rc_usage *out)
{
    out->descriptors += about->st_size;
}

static int add_leader(struct rc_worker *worker, struct left *left, struct rc_usage *out)
{
    char text[TEXT_ROOM];
    struct stat about;
    ssize_t length = rc_procfile_read(worker, RC_PROCFILE_STAT, text, sizeof text);
    int threads = length < 0 ? (int)length : add_stat(text, out);
    if (threads < 0)
        return threads;
    out->pids[out->count++] = worker->pid;
    int fd = rc_procfile_take(worker, RC_PROCFILE_FD);
    if (fd >= 0 && fstat(fd, &about) == 0)
        add_descriptors(&about, out);
    rc_procfile_put(worker, RC_PROCFILE_FD, fd);
    if (threads > 1)
        add_children_of_threads(worker->pid, left);
    else if (rc_procfile_read(worker, RC_PROCFILE_CHILDREN, text, sizeof text) > 0)
        add_children(text, left);
    return 0;
}

static void add_process(pid_t pid, struct left *left, struct rc_usage *out)
{
    char text[TEXT_ROOM], path[32];
    struct stat about;
    if (rc_proc_read(pid, "stat", text, sizeof text) < 0 || add_stat(text, out) < 0)
        return;
    out->pids[out->count++] = pid;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    if (stat(path, &about) == 0)
        add_descriptors(&about, out);
    add_children_of_threads(pid, left);
}

/* RC_USAGE_PIDS processes at most. */
int rc_usage(rc_engine *engine, uint32_t id, struct rc_usage *out)
{
    struct rc_worker *worker = rc_find(engine, id);
    struct rc_usage usage = {0};
    struct left left = {.count = 0};
    if (!worker || worker->pid <= 0 || worker->dead)
        return -ESRCH;
    int error = add_leader(worker, &left, &usage);
    while (!error && left.count > 0 && usage.count < RC_USAGE_PIDS)
        add_process(left.pids[--left.count], &left, &usage);
    if (!error)
        *out = usage;
    return error;
}
