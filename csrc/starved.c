/* starved.c - does a thread that has not accepted in time have a reason to be waited
 * for? One that wants to run and got no CPU has: it would have accepted. One that
 * sleeps elsewhere, or computes, is busy.
 *
 * Owns nothing; reads /proc/TID/stat and schedstat (CONFIG_SCHED_INFO).
 */
#include "internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CHILDREN = 16 }; /* more are not looked at */

static bool read_file(pid_t thread, const char *name, char *text, size_t room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)thread, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, room - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* Whether it may run; adds for how long it has, since it was made. */
static bool wants_cpu(pid_t thread, uint64_t *ran_ns)
{
    char text[512];
    unsigned long long ran;
    if (!read_file(thread, "stat", text, sizeof text))
        return false;
    const char *end = strrchr(text, ')'); /* of the name, which may hold anything */
    bool wants = end && end[1] == ' ' && end[2] == 'R';
    if (!read_file(thread, "schedstat", text, sizeof text) || sscanf(text, "%llu", &ran) != 1)
        return false;
    *ran_ns += ran;
    return wants;
}

/* The thread that accepts, or if it is not known the leader of a worker: then also
 * its children, which may be the ones that accept (gunicorn's, hypercorn's). */
bool rc_wants_cpu(pid_t thread, bool children, uint64_t *ran_ns)
{
    char name[64], text[512];
    *ran_ns = 0;
    bool wants = wants_cpu(thread, ran_ns);
    snprintf(name, sizeof name, "task/%d/children", (int)thread);
    if (!children || !read_file(thread, name, text, sizeof text))
        return wants;
    int length, child, most = CHILDREN;
    for (const char *at = text; most-- > 0 && sscanf(at, "%d%n", &child, &length) == 1;
         at += length)
        wants |= wants_cpu(child, ran_ns);
    return wants;
}
