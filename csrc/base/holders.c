/* holders.c - which sockets the processes of a worker hold, by /proc.
 *
 * Owns nothing. A worker is more than its leader: whoever is in its process
 * group (also after the leader's child that forked it has ended), and whoever
 * descends from one of those (a child may have a group of its own).
 *
 * Invariant: what ends while we look is no error; what may not be looked at is
 * one, for its connections would be taken for nobody's. Not seen: a socket that
 * is only in an io_uring's own table, or on its way in a message.
 */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct members {
    pid_t *pids;
    size_t count, room;
};

static int members_add(struct members *members, pid_t pid)
{
    if (members->count == members->room) {
        size_t room = members->room ? members->room * 2 : 16;
        pid_t *pids = realloc(members->pids, room * sizeof *pids);
        if (!pids)
            return -ENOMEM;
        members->pids = pids;
        members->room = room;
    }
    members->pids[members->count++] = pid;
    return 0;
}

/* What an error says of a process that we have met: 0 if only that it ended. */
static int unless_ended(int error)
{
    return error == ENOENT || error == ESRCH ? 0 : -error;
}

/* getpgid for every process costs less than to open a file of one. */
static int add_group(struct members *members, pid_t group)
{
    DIR *all = opendir("/proc");
    int error = all ? 0 : -errno;
    for (long pid; !error && (pid = rc_proc_next(all)) >= 0;)
        if (getpgid((pid_t)pid) == group)
            error = members_add(members, (pid_t)pid);
    if (all)
        closedir(all);
    return error;
}

/* Each thread has its own list of children. Those in the group are known. */
static int add_children(struct members *members, pid_t pid, pid_t group)
{
    char path[64];
    int child, error = 0;
    DIR *threads = rc_proc_open(pid, "task");
    if (!threads)
        return unless_ended(errno);
    for (long thread; !error && (thread = rc_proc_next(threads)) >= 0;) {
        snprintf(path, sizeof path, "/proc/%d/task/%ld/children", pid, thread);
        FILE *list = fopen(path, "re"); /* absent without CONFIG_PROC_CHILDREN */
        if (!list)
            error = unless_ended(errno);
        while (list && !error && fscanf(list, "%d", &child) == 1)
            if (getpgid(child) != group)
                error = members_add(members, child);
        if (list)
            fclose(list);
    }
    closedir(threads);
    return error;
}

/* A zombie holds nothing, but /proc/PID/fd is root's then. */
bool rc_is_zombie(pid_t pid)
{
    char line[512];
    ssize_t length = rc_proc_read(pid, "stat", line, sizeof line);
    if (length < 0)
        return !unless_ended((int)-length); /* reaped meanwhile: the same */
    const char *end = strrchr(line, ')');   /* of the name, which may hold anything */
    return end && end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
}

static void mark(struct rc_flows *flows, uint32_t inode, pid_t pid, long number)
{
    size_t low = 0, high = flows->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (flows->all[middle].inode < inode)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == flows->count || flows->all[low].inode != inode || flows->all[low].held)
        return;
    flows->all[low].held = true;
    flows->all[low].holder = pid;
    flows->all[low].number = (int)number;
}

static int mark_held(pid_t pid, void *given)
{
    struct rc_flows *flows = given;
    char path[64], target[64];
    unsigned inode;
    DIR *descriptors = rc_proc_open(pid, "fd");
    if (!descriptors) {
        int error = unless_ended(errno);
        return error == -EACCES && rc_is_zombie(pid) ? 0 : error;
    }
    int error = 0;
    for (long number; !error && (number = rc_proc_next(descriptors)) >= 0;) {
        snprintf(path, sizeof path, "%ld", number);
        ssize_t length = readlinkat(dirfd(descriptors), path, target, sizeof target - 1);
        if (length < 0) {
            error = unless_ended(errno);
            continue;
        }
        target[length] = '\0';
        if (sscanf(target, "socket:[%u]", &inode) == 1)
            mark(flows, inode, pid, number);
    }
    closedir(descriptors);
    return error;
}

bool rc_process_holds(pid_t pid, uint64_t inode)
{
    struct rc_flow one = {.inode = (uint32_t)inode};
    struct rc_flows flows = {.all = &one, .count = 1, .room = 1};
    return mark_held(pid, &flows) == 0 && one.held;
}

/* Calls `visit` for each process of that group, and for each descendant of one, until it
 * returns what is not 0: that, 0, or -errno. */
int rc_holders_visit(pid_t group, int (*visit)(pid_t pid, void *given), void *given)
{
    struct members members = {0};
    int result = add_group(&members, group);
    for (size_t at = 0; !result && at < members.count; at++) {
        result = add_children(&members, members.pids[at], group);
        if (!result)
            result = visit(members.pids[at], given);
    }
    free(members.pids);
    return result;
}

/* Marks what is held by one of them. The flows are sorted by inode, each there once. */
int rc_holders_mark(pid_t group, struct rc_flows *flows)
{
    return rc_holders_visit(group, mark_held, flows);
}

/* How many of them it holds, or -errno. They are freed. */
int rc_holders_count(pid_t group, struct rc_flows *flows)
{
    int held = 0;
    rc_flows_once(flows);
    int error = flows->count ? rc_holders_mark(group, flows) : 0;
    for (size_t at = 0; at < flows->count; at++)
        held += flows->all[at].held;
    rc_flows_free(flows);
    return error ? error : held;
}

/* Whether the epoll that the process has at that number has the socket (proc(5)). */
bool rc_epoll_has(pid_t pid, long number, uint64_t inode)
{
    char path[64], line[160];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%ld", pid, number);
    FILE *info = fopen(path, "re");
    while (info && !found && fgets(line, sizeof line, info)) {
        const char *at = strncmp(line, "tfd:", 4) == 0 ? strstr(line, " ino:") : NULL;
        found = at && strtoull(at + 5, NULL, 16) == inode;
    }
    if (info)
        fclose(info);
    return found;
}

/* Whether an epoll of that process has the socket, though no number leads there any more: who
 * closes without EPOLL_CTL_DEL hears of it while anybody holds it. True if it cannot be seen. */
bool rc_polled_by(pid_t pid, uint64_t inode)
{
    char path[24], target[64];
    bool found = false;
    DIR *descriptors = rc_proc_open(pid, "fd");
    if (!descriptors)
        return errno != ENOENT;
    for (long number; !found && (number = rc_proc_next(descriptors)) >= 0;) {
        snprintf(path, sizeof path, "%ld", number);
        ssize_t length = readlinkat(dirfd(descriptors), path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = '\0';
        if (strcmp(target, "anon_inode:[eventpoll]") != 0)
            continue;
        found = rc_epoll_has(pid, number, inode);
    }
    closedir(descriptors);
    return found;
}
