/* threads.c - what the threads of another process are in (/proc/PID/task/TID, proc(5)).
 *
 * Owns nothing. A thread's call needs ptrace access, which the parent of the same user has; what
 * it says was so a moment ago, but for a process that is stopped.
 */
#include "internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Also of a thread that runs, or has ended: then it is in none. */
static int call_of(pid_t pid, const char *thread, struct rc_thread_call *call)
{
    char path[64], text[256] = "", *at;
    *call = (struct rc_thread_call){.number = -1};
    snprintf(path, sizeof path, "/proc/%d/task/%.10s/syscall", pid, thread);
    errno = 0;
    FILE *file = fopen(path, "re");
    bool got = file && fgets(text, sizeof text, file);
    int error = errno;
    if (file)
        fclose(file);
    if (!got && (error == ENOENT || error == ESRCH))
        return access("/proc/self/syscall", F_OK) == 0 ? 0 : -ENOSYS; /* gVisor has none */
    if (!got)
        return -error;
    long number = strtol(text, &at, 10);
    if (at == text || number < 0)
        return 0;
    call->number = number;
    for (unsigned argument = 0; argument < RC_THREAD_ARGUMENTS; argument++)
        call->argument[argument] = strtoull(at, &at, 16);
    return 0;
}

/* Until one visit returns another number than 0: that, 0, or -errno. Of a process that has ended
 * there are none. */
int rc_threads_visit(pid_t pid, int (*visit)(const struct rc_thread_call *call, void *given),
                     void *given)
{
    char path[64];
    struct rc_thread_call call;
    int result = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    const struct dirent *entry;
    while (!result && threads && (entry = readdir(threads))) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        result = call_of(pid, entry->d_name, &call);
        if (!result)
            result = visit(&call, given);
    }
    if (threads)
        closedir(threads);
    return result;
}

bool rc_thread_reads(const struct rc_thread_call *call, int number)
{
    static const long reads[] = {SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg};
    for (size_t at = 0; at < sizeof reads / sizeof reads[0]; at++)
        if (call->number == reads[at])
            return (int)call->argument[0] == number;
    return false;
}

/* Each thread of it, by SIGSTOP. */
bool rc_is_stopped(pid_t pid)
{
    char path[64], line[512];
    bool all = true;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    const struct dirent *entry;
    if (!threads)
        return false;
    while (all && (entry = readdir(threads))) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        const char *end = rc_stat_of((pid_t)atoi(entry->d_name), line, sizeof line);
        all = end && strncmp(end, ") T", 3) == 0;
    }
    closedir(threads);
    return all;
}
