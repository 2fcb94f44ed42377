/* unixwalk.c - where a path leads, as far as the kernel has it in memory.
 *
 * Owns nothing. Invariant: the master waits for no file system that may not answer: a path is
 * walked by RESOLVE_CACHED (openat2(2)), and only a local one is asked for more.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20 /* Linux 5.12 */
#endif

/* Links may lead over links without end: a worker's own must not keep us. */
enum { DEEPEST = 8, LOOKS_MOST = 64 };

/* An O_PATH descriptor, or -errno; -EAGAIN where the kernel would have to ask. */
static int open_cached(const char *path, int flags)
{
    struct open_how how = {.flags = (unsigned)(O_PATH | O_CLOEXEC | flags),
                           .resolve = RESOLVE_CACHED | RESOLVE_NO_MAGICLINKS};
    int fd = -1;
    int tries = 16; /* a rename elsewhere disturbs it */
    do
        fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && --tries);
    return fd < 0 ? -errno : fd;
}

/* Whether a descriptor is of a file system that answers by itself. One of a
 * network or of another process may let us wait for ever, so it is not asked
 * itself: its type is looked up in the list of mounts. */
static bool is_local(int fd)
{
    static const char known[] = " ext2 ext3 ext4 xfs btrfs tmpfs ramfs overlay f2fs zfs bcachefs ";
    char path[64], line[PATH_MAX + 512], type[64], wanted[66];
    int mount = -1, id;
    bool local = false;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(path, "re");
    while (file && mount < 0 && fgets(line, sizeof line, file))
        (void)sscanf(line, "mnt_id: %d", &mount);
    if (file)
        fclose(file);
    file = mount < 0 ? NULL : fopen("/proc/self/mountinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        const char *rest = strstr(line, " - ");
        if (sscanf(line, "%d", &id) != 1 || id != mount)
            continue;
        if (rest && sscanf(rest, " - %63s", type) == 1) {
            snprintf(wanted, sizeof wanted, " %s ", type);
            local = strstr(known, wanted);
        }
        break;
    }
    if (file)
        fclose(file);
    return local;
}

/* Where a link's time of access is due (relatime: the first time, and once a day) the kernel does
 * not follow it by what it has in memory alone. To read it sets that time. Those that it leads
 * over may have to be read as well. */
static void read_links(const char *path, unsigned depth, unsigned *looks)
{
    char part[PATH_MAX], text[PATH_MAX], next[2 * PATH_MAX];
    size_t whole = strnlen(path, sizeof part);
    bool may = *path == '/' && whole < sizeof part && depth < DEEPEST;
    for (size_t end = 1; may && end <= whole && *looks < LOOKS_MOST; end++) {
        if (end < whole && path[end] != '/')
            continue;
        (*looks)++;
        (void)snprintf(part, sizeof part, "%.*s", (int)end, path);
        int link = open_cached(part, O_NOFOLLOW);
        ssize_t length = link >= 0 && is_local(link) ? readlinkat(link, "", text, sizeof text) : -1;
        rc_close(&link);
        if (length <= 0 || (size_t)length == sizeof text)
            continue;
        int before = *text == '/' ? 0 : (int)(strrchr(part, '/') + 1 - part);
        (void)snprintf(next, sizeof next, "%.*s%.*s", before, part, (int)length, text);
        read_links(next, depth + 1, looks);
    }
}

/* As open_cached. */
static int open_known(const char *path, int flags)
{
    int fd = open_cached(path, flags);
    if (fd == -EAGAIN) {
        unsigned looks = 0;
        read_links(path, 0, &looks);
        fd = open_cached(path, flags);
    }
    return fd;
}

int rc_walk_folder(const char *path)
{
    char folder[PATH_MAX + RC_UNIX_PATH_MAX + 2];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s/", (int)(slash - path), path);
    return open_known(folder, O_DIRECTORY);
}

/* What the path leads to. A name that was removed is not in memory any more: there a
 * file system that answers is asked. */
int rc_walk_there(const char *path)
{
    int fd = open_known(path, O_NOFOLLOW);
    int folder = fd == -EAGAIN ? rc_walk_folder(path) : -1;
    if (folder >= 0 && is_local(folder)) {
        fd = openat(folder, strrchr(path, '/') + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    }
    rc_close(&folder);
    return fd;
}
