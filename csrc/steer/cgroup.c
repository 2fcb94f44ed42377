/* cgroup.c - the cgroup this process is in, as a directory.
 *
 * Owns: reading /proc/self/cgroup and /proc/self/mountinfo (cgroups(7)). It knows
 * nothing of what the directory is for. Sockets belong to the cgroup in which
 * their process was when it made them; workers are born into ours.
 */
#include "steer/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The path of our cgroup in the hierarchy of version 2, the line "0::PATH". */
static int own_path(char *out, size_t room)
{
    char line[PATH_MAX + 16];
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return -errno;
    int result = -ENOENT;
    while (result < 0 && fgets(line, sizeof line, file)) {
        size_t length = strcspn(line, "\n");
        if (strncmp(line, "0::/", 4) != 0 || length - 3 >= room)
            continue;
        memcpy(out, line + 3, length - 3);
        out[length - 3] = '\0';
        result = 0;
    }
    fclose(file);
    return result;
}

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        unsigned byte;
        if (*from == '\\' && sscanf(from + 1, "%3o", &byte) == 1) {
            *to = (char)byte;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* Our cgroup below one mount of a part of the hierarchy, or -ENOENT. */
static int open_below(const char *mount, const char *root, const char *path)
{
    char full[2 * PATH_MAX];
    size_t skip = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(path, root, skip) != 0 || (path[skip] != '/' && path[skip] != '\0'))
        return -ENOENT;
    if ((size_t)snprintf(full, sizeof full, "%s%s", mount, path + skip) >= sizeof full)
        return -ENAMETOOLONG;
    int fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A descriptor; -ENOENT where no cgroup of version 2 is to be seen. */
int rc_cgroup_open(void)
{
    char path[PATH_MAX], line[4 * PATH_MAX], root[PATH_MAX], mount[PATH_MAX];
    int fd = own_path(path, sizeof path);
    if (fd < 0)
        return fd;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    fd = -ENOENT;
    while (fd < 0 && fgets(line, sizeof line, file)) {
        const char *kind = strstr(line, " - cgroup2 ");
        if (!kind || sscanf(line, "%*s %*s %*s %4095s %4095s", root, mount) != 2)
            continue;
        unescape(root);
        unescape(mount);
        fd = open_below(mount, root, path);
    }
    fclose(file);
    return fd;
}
