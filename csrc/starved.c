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

/* Whether it may run; *ran_ns: for how long it has, since it was made. */
bool rc_thread_wants_cpu(pid_t thread, uint64_t *ran_ns)
{
    char text[512];
    unsigned long long ran;
    if (!read_file(thread, "stat", text, sizeof text))
        return false;
    const char *end = strrchr(text, ')'); /* of the name, which may hold anything */
    if (!end || end[1] != ' ' || end[2] != 'R')
        return false;
    if (!read_file(thread, "schedstat", text, sizeof text) || sscanf(text, "%llu", &ran) != 1)
        return false;
    *ran_ns = ran;
    return true;
}
