/* unixname.c - names of AF_UNIX sockets in directories.
 *
 * Owns: where a path leads, and moving names. Knows nothing of lanes. Aliases are
 * names beside the address, numbered from 1; number 0 is the address itself.
 *
 * Invariants:
 *  - a name is put in place by rename(2), over what is there: at no instant does
 *    the address lead nowhere;
 *  - the master waits for no file system that may not answer: a worker's path is
 *    walked only as far as the kernel has it in memory (RESOLVE_CACHED), and only
 *    directories of local file systems are worked in.
 */
#include "unix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20 /* Linux 5.12 */
#endif

/* ---- where a path leads ------------------------------------------------------ */

/* What a link of /proc says. It is only read: to follow it may ask a file system. */
static bool link_of(pid_t pid, const char *which, char out[PATH_MAX])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
    ssize_t length = readlink(path, out, PATH_MAX - 1);
    out[length > 0 ? length : 0] = '\0';
    return length > 0;
}

/* A process with a root or with mounts of its own means other files by the same
 * names. */
static bool same_view(pid_t pid)
{
    char theirs[PATH_MAX], ours[PATH_MAX];
    return link_of(pid, "root", theirs) && strcmp(theirs, "/") == 0 &&
           link_of(pid, "ns/mnt", theirs) && link_of(getpid(), "ns/mnt", ours) &&
           strcmp(theirs, ours) == 0;
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

/* The first `length` bytes of a path that process means, from the root. */
static bool full_path(pid_t pid, int at, const char *path, size_t length, char out[2 * PATH_MAX])
{
    char start[PATH_MAX] = "", number[32];
    snprintf(number, sizeof number, "fd/%d", at);
    if (*path != '/' && !link_of(pid, at == AT_FDCWD ? "cwd" : number, start))
        return false;
    snprintf(out, 2 * PATH_MAX, "%s/%.*s", start, (int)length, path);
    return true;
}

/* An O_PATH descriptor, or -errno; -EAGAIN where the kernel would have to ask. */
static int open_known(const char *path, int flags)
{
    struct open_how how = {.flags = (unsigned)(O_PATH | O_CLOEXEC | flags),
                           .resolve = RESOLVE_CACHED};
    int fd = -1;
    int tries = 16; /* a rename elsewhere disturbs it */
    do
        fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && --tries);
    return fd < 0 ? -errno : fd;
}

/* The directory of a path as that process sees it: an O_PATH descriptor, with
 * the name's other fields filled in. -EAGAIN: it is not known without asking a
 * file system; then somebody else must have walked there first. -EXDEV: it is none
 * of our business. */
int rc_unix_find_directory(pid_t pid, const char *path, struct rc_unix_name *name)
{
    return rc_unix_find_directory_at(pid, AT_FDCWD, path, name);
}

int rc_unix_find_directory_at(pid_t pid, int at, const char *path, struct rc_unix_name *name)
{
    char folder[2 * PATH_MAX];
    struct stat facts;
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    *name = (struct rc_unix_name){0};
    size_t length = strlen(base);

    if (!length || length >= sizeof name->base)
        return -EINVAL;
    if (!same_view(pid))
        return -EXDEV;
    if (!full_path(pid, at, path, slash ? (size_t)(slash - path) : 0, folder))
        return -ENOENT;
    int fd = open_known(folder, O_DIRECTORY);
    if (fd < 0)
        return fd;
    int error = !is_local(fd) ? -EXDEV : fstat(fd, &facts) < 0 ? -errno : 0;
    if (error) {
        rc_close(&fd);
        return error;
    }
    *name = (struct rc_unix_name){.device = facts.st_dev, .directory = facts.st_ino};
    memcpy(name->base, base, length);
    name->length = length;
    return fd;
}

/* Whether it is certainly something else than a socket, by what the kernel has in
 * memory: a quick answer for a worker that removes many files. */
bool rc_unix_is_other_file(pid_t pid, int at, const char *path)
{
    char full[2 * PATH_MAX];
    struct statx facts;
    memset(&facts, 0, sizeof facts);
    int fd = full_path(pid, at, path, strlen(path), full) ? open_known(full, O_NOFOLLOW) : -1;
    bool other =
        fd >= 0 &&
        syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &facts) == 0 &&
        !S_ISSOCK(facts.stx_mode);
    rc_close(&fd);
    return other;
}

/* A directory that only the worker's user may enter, made after the worker: what
 * tempfile.mkdtemp makes. What listens there (a Manager of multiprocessing) is
 * for its own processes. */
bool rc_unix_is_private(const struct rc_worker *worker, int directory)
{
    struct statx facts;
    memset(&facts, 0, sizeof facts);
    if (syscall(SYS_statx, directory, "", AT_EMPTY_PATH, STATX_MODE | STATX_BTIME, &facts) < 0 ||
        !(facts.stx_mask & STATX_BTIME) || (facts.stx_mode & 077))
        return false;
    return facts.stx_btime.tv_sec > worker->born.tv_sec ||
           (facts.stx_btime.tv_sec == worker->born.tv_sec &&
            facts.stx_btime.tv_nsec > worker->born.tv_nsec);
}

void rc_unix_alias(const struct rc_unix_group *group, unsigned number, char out[NAME_MAX + 1])
{
    if (number)
        snprintf(out, NAME_MAX + 1, ".%s.recluster-%u", group->name.base, number);
    else
        snprintf(out, NAME_MAX + 1, "%s", group->name.base);
}

/* False if there is nothing. */
bool rc_unix_node_at(const struct rc_unix_group *group, unsigned alias, struct rc_unix_node *out)
{
    char name[NAME_MAX + 1];
    struct stat facts;
    rc_unix_alias(group, alias, name);
    if (fstatat(group->directory, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    *out = (struct rc_unix_node){facts.st_dev, facts.st_ino};
    return true;
}

/* ---- names ---------------------------------------------------------------------- */

void rc_unix_unname(const struct rc_unix_group *group, unsigned alias)
{
    char name[NAME_MAX + 1];
    rc_unix_alias(group, alias, name);
    (void)unlinkat(group->directory, name, 0);
}

/* `to` becomes another name of what `from` leads to, over what it led to. With
 * an address that exists its owner and mode are kept. */
int rc_unix_name_it(const struct rc_unix_group *group, unsigned from, unsigned to)
{
    char old[NAME_MAX + 1], new[NAME_MAX + 1], step[NAME_MAX + 1];
    struct stat facts;
    rc_unix_alias(group, from, old);
    rc_unix_alias(group, to, new);
    snprintf(step, sizeof step, ".%s.recluster", group->name.base);
    if (to == 0 && fstatat(group->directory, new, &facts, AT_SYMLINK_NOFOLLOW) == 0) {
        (void)fchownat(group->directory, old, facts.st_uid, facts.st_gid, AT_SYMLINK_NOFOLLOW);
        (void)fchmodat(group->directory, old, facts.st_mode & 07777, 0);
    }
    /* A link first: renaming two names of one inode to each other does nothing
     * (rename(2)), and link(2) does not replace. */
    (void)unlinkat(group->directory, step, 0);
    if (linkat(group->directory, old, group->directory, step, 0) < 0)
        return -errno;
    int error = renameat(group->directory, step, group->directory, new) < 0 ? -errno : 0;
    (void)unlinkat(group->directory, step, 0);
    return error;
}

/* ---- what a master that was killed has left ------------------------------------------- */

static bool is_refused(const struct rc_unix_group *group, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s",
                          group->directory, name);
    int fd = length > 0 && (size_t)length < sizeof address.sun_path
                 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
                 : -1;
    bool refused = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0 &&
                   errno == ECONNREFUSED;
    rc_close(&fd);
    return refused;
}

/* Removes aliases of this address on which nobody listens. A directory may be
 * large and a name too long to be tried: what is not seen stays. */
void rc_unix_sweep(const struct rc_unix_group *group)
{
    enum { ENTRIES = 10000 };
    char before[NAME_MAX + 1];
    int fd = openat(group->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    if (!entries)
        rc_close(&fd);
    snprintf(before, sizeof before, ".%s.recluster-", group->name.base);
    for (int most = 0; entries && most < ENTRIES && (entry = readdir(entries)); most++)
        if (strncmp(entry->d_name, before, strlen(before)) == 0 && entry->d_type == DT_SOCK &&
            is_refused(group, entry->d_name))
            (void)unlinkat(group->directory, entry->d_name, 0);
    if (entries)
        closedir(entries);
}
