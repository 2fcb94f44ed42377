/* unixname.c - names of AF_UNIX sockets in directories.
 *
 * Owns: binding a socket elsewhere than where its address says, and moving names.
 * Knows nothing of lanes. Aliases are names beside the address, numbered from 1;
 * number 0 is the address itself.
 *
 * Invariant: a name is put in place by rename(2), over what is there: at no
 * instant does the address lead nowhere.
 */
#include "unix.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/stat.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- where a path leads ------------------------------------------------------ */

/* A process with a root of its own means other files by the same names. */
static bool same_root(pid_t pid)
{
    char path[32];
    struct stat theirs, ours;
    snprintf(path, sizeof path, "/proc/%d/root", (int)pid);
    return stat(path, &theirs) == 0 && stat("/", &ours) == 0 && theirs.st_ino == ours.st_ino &&
           theirs.st_dev == ours.st_dev;
}

/* The directory of a path as that process sees it: an O_PATH descriptor, with
 * the name's other fields filled in. */
int rc_unix_find_directory(pid_t pid, const char *path, struct rc_unix_name *name)
{
    return rc_unix_find_directory_at(pid, AT_FDCWD, path, name);
}

int rc_unix_find_directory_at(pid_t pid, int at, const char *path, struct rc_unix_name *name)
{
    char start[48], folder[PATH_MAX];
    struct stat facts;
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    *name = (struct rc_unix_name){0};
    size_t length = strlen(base), before = slash ? (size_t)(slash - path) + 1 : 0;

    if (!length || length >= sizeof name->base || before >= sizeof folder)
        return -EINVAL;
    if (!same_root(pid))
        return -EXDEV;
    if (*path == '/' || at == AT_FDCWD)
        snprintf(start, sizeof start, "/proc/%d/%s", (int)pid, *path == '/' ? "root" : "cwd");
    else
        snprintf(start, sizeof start, "/proc/%d/fd/%d", (int)pid, at);
    int from = open(start, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (from < 0)
        return -errno;
    memcpy(folder, path, before);
    folder[before] = '\0';
    const char *rest = folder;
    while (*rest == '/') /* it is openat's own, from the root of that process */
        rest++;
    int fd = openat(from, *rest ? rest : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 ? -errno : 0;
    rc_close(&from);
    if (!error && fstat(fd, &facts) < 0)
        error = -errno;
    if (error) {
        rc_close(&fd);
        return error;
    }
    *name = (struct rc_unix_name){.device = facts.st_dev, .directory = facts.st_ino};
    memcpy(name->base, base, length);
    name->length = length;
    return fd;
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

/* ---- binding, in a child ------------------------------------------------------------ */

/* Who the worker is: the file is made as if it made it. */
struct identity {
    unsigned umask;
    uid_t user;
    gid_t group;
    gid_t groups[32];
    int count;
    bool known;
};

static void identity_of(pid_t pid, struct identity *who)
{
    char path[32], line[1024];
    unsigned user = 0, group = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    *who = (struct identity){.umask = 022};
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        int at = 0;
        (void)sscanf(line, "Umask: %o", &who->umask);
        if (sscanf(line, "Uid: %*u %*u %*u %u", &user) == 1) {
            who->user = user;
            who->known = true;
        }
        if (sscanf(line, "Gid: %*u %*u %*u %u", &group) == 1)
            who->group = group;
        if (strncmp(line, "Groups:", 7) != 0)
            continue;
        for (const char *rest = line + 7; who->count < 32 && sscanf(rest, "%u%n", &group, &at) == 1;
             rest += at)
            who->groups[who->count++] = group;
    }
    if (file)
        fclose(file);
}

/* The system calls themselves: glibc's would tell threads that are not there. */
static int become(const struct identity *who)
{
    if (geteuid() != 0 || !who->known || who->user == 0)
        return 0;
    if (syscall(SYS_setgroups, who->count, who->groups) < 0 ||
        syscall(SYS_setresgid, who->group, who->group, who->group) < 0 ||
        syscall(SYS_setresuid, who->user, who->user, who->user) < 0)
        return -errno;
    return 0;
}

static int bind_path(int fd, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length > sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, length);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length +
                                 (length < sizeof address.sun_path));
    return bind(fd, (const struct sockaddr *)&address, size) < 0 ? -errno : 0;
}

static bool is_bound(int fd)
{
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    return getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
           length > offsetof(struct sockaddr_un, sun_path);
}

/* What the child is to do: enter `where`, as its root if the path is absolute. */
struct errand {
    int fd;
    const char *where, *path;
    const struct identity *who;
    bool as_root;
};

/* A root of its own is allowed to root, and in a user namespace of one's own;
 * files made there belong to the same user as outside. */
static int enter_root(void)
{
    if (chroot(".") == 0)
        return 0;
    if (syscall(SYS_unshare, CLONE_NEWUSER) == 0 && chroot(".") == 0)
        return 0;
    return -errno;
}

static int run_errand(const struct errand *errand)
{
    int error = chdir(errand->where) < 0 ? -errno : 0;
    if (!error && errand->as_root)
        error = enter_root();
    if (!error && errand->who) {
        (void)umask((mode_t)errand->who->umask);
        error = become(errand->who);
    }
    return error ? error : bind_path(errand->fd, errand->path);
}

/* In a child, because working directory, root, umask and user are a process's,
 * and our host may have threads. It makes a handful of system calls. */
static int in_child(const struct errand *errand)
{
    sigset_t all, before;
    int status = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        _exit(-run_errand(errand) & 0xff);
    int error = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return error;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (is_bound(errand->fd)) /* also where a host that ignores SIGCHLD has no status */
        return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : -EIO;
}

/* Where the worker would have bound it, and as it would have. */
int rc_unix_bind_as(int fd, pid_t pid, const char *path)
{
    char where[32];
    struct identity who;
    identity_of(pid, &who);
    snprintf(where, sizeof where, "/proc/%d/cwd", (int)pid);
    struct errand errand = {.fd = fd, .where = where, .path = path, .who = &who};
    return in_child(&errand);
}

/* Makes (or, with `remove`, removes) the directories of `path` below `at`. */
static int chain(int at, const char *path, bool remove)
{
    char part[PATH_MAX];
    size_t length = strlen(path), step = 0;
    while (remove && length-- > 0)
        if (path[length] == '/' && length > 0 && path[length - 1] != '/') {
            memcpy(part, path, length);
            part[length] = '\0';
            (void)unlinkat(at, part + strspn(part, "/"), AT_REMOVEDIR);
        }
    for (; !remove && step < length; step++)
        if (path[step] == '/' && step > 0 && path[step - 1] != '/') {
            memcpy(part, path, step);
            part[step] = '\0';
            if (mkdirat(at, part + strspn(part, "/"), 0700) < 0 && errno != EEXIST)
                return -errno;
        }
    return 0;
}

/* In a directory of our own in which `path` leads to the same name, so that
 * getsockname(2) and a client's getpeername(2) say what the program asked for. */
static int bind_alike(int fd, const struct rc_unix_group *group, const char *path, unsigned alias)
{
    char folder[NAME_MAX + 1], where[64], name[NAME_MAX + 1];
    const char *inside = path + strspn(path, "/");
    if (strstr(path, ".."))
        return -ENOTSUP;
    snprintf(folder, sizeof folder, ".%s.recluster-d", group->name.base);
    if (mkdirat(group->directory, folder, 0700) < 0 && errno != EEXIST)
        return -errno;
    int error = 0, at = openat(group->directory, folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        error = -errno;
    if (!error)
        error = chain(at, inside, false);
    if (!error) {
        snprintf(where, sizeof where, "/proc/self/fd/%d", at); /* self: the child has it too */
        struct errand errand = {.fd = fd, .where = where, .path = path, .as_root = *path == '/'};
        error = in_child(&errand);
    }
    rc_unix_alias(group, alias, name);
    if (!error && renameat(at, inside, group->directory, name) < 0)
        error = -errno;
    if (at >= 0) {
        (void)unlinkat(at, inside, 0);
        (void)chain(at, inside, true);
    }
    rc_close(&at);
    (void)unlinkat(group->directory, folder, AT_REMOVEDIR);
    return error;
}

/* Binds at the alias. Where no root of its own is allowed, the alias is also
 * what getsockname(2) says: a name that works, but not the one asked for. */
int rc_unix_bind_aside(int fd, pid_t pid, const struct rc_unix_group *group, const char *path,
                       unsigned alias)
{
    char name[NAME_MAX + 1], full[PATH_MAX], where[64];
    rc_unix_unname(group, alias); /* left by one that was killed */
    int error = bind_alike(fd, group, path, alias);
    if (!error || is_bound(fd))
        return error;
    rc_unix_alias(group, alias, name);
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    int length = snprintf(full, sizeof full, "%.*s%s", folder, path, name);
    bool fits = length > 0 && (size_t)length < sizeof(((struct sockaddr_un *)0)->sun_path);
    if (fits)
        snprintf(where, sizeof where, "/proc/%d/cwd", (int)pid);
    else
        snprintf(where, sizeof where, "/proc/self/fd/%d", group->directory);
    struct errand errand = {.fd = fd, .where = where, .path = fits ? full : name};
    return in_child(&errand);
}
