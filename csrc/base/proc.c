/* proc.c - reading what /proc says of a process (proc(5)): a file as text, a folder of numbers.
 *
 * Owns nothing. What ends meanwhile is -ENOENT or -ESRCH, whichever call met it first.
 */
#include "internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What fits of /proc/PID/NAME, ended by a zero; its length, or -errno. */
ssize_t rc_proc_read(pid_t pid, const char *name, char *text, size_t room)
{
    char path[64];
    size_t length = 0;
    ssize_t got = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while (length < room - 1 && (got = read(fd, text + length, room - 1 - length)) > 0)
        length += (size_t)got;
    int error = got < 0 ? -errno : 0;
    close(fd);
    text[length] = '\0';
    return error ? error : (ssize_t)length;
}

/* /proc/PID/NAME, or NULL with errno. */
DIR *rc_proc_open(pid_t pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return opendir(path);
}

/* The next entry that is a number, or -1. */
long rc_proc_next(DIR *folder)
{
    const struct dirent *entry;
    while ((entry = readdir(folder)))
        if (isdigit((unsigned char)entry->d_name[0]))
            return strtol(entry->d_name, NULL, 10);
    return -1;
}
