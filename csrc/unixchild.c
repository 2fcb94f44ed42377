/* unixchild.c - the child that binds a path: in the place of the worker, and as
 * the worker would. See unixerrand.c.
 *
 * Invariant: between fork and _exit it makes system calls only; the result is in
 * memory that the master shares.
 */
#include "unix.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- as whom ------------------------------------------------------------------- */

/* Who the worker is: the file is made as if it made it. */
struct identity {
    unsigned umask;
    uid_t user;
    gid_t group;
    gid_t groups[32];
    int count;
    bool known;
    unsigned long long powers; /* capabilities in effect */
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
        (void)sscanf(line, "CapEff: %llx", &who->powers);
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

/* Whether the master may do to a file just what that process may. */
bool rc_unix_same_powers(pid_t pid)
{
    struct identity theirs, ours;
    identity_of(pid, &theirs);
    identity_of(getpid(), &ours);
    return theirs.known && ours.known && theirs.user == ours.user && theirs.group == ours.group &&
           theirs.powers == ours.powers && theirs.count == ours.count &&
           memcmp(theirs.groups, ours.groups, (size_t)ours.count * sizeof *ours.groups) == 0;
}

/* ---- in the child ----------------------------------------------------------------- */

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

/* Where the worker would have bound it, and as it would have. */
static int bind_as(const struct rc_unix_errand *errand, const struct identity *who)
{
    char where[32];
    snprintf(where, sizeof where, "/proc/%d/cwd", (int)errand->caller);
    if (chdir(where) < 0)
        return -errno;
    (void)umask((mode_t)who->umask);
    int error = become(who);
    return error ? error : bind_path(errand->fd, errand->path);
}

/* In a directory of our own in which the path leads to the same name, so that
 * getsockname(2) and a client's getpeername(2) say what the program asked for. Where
 * no root of its own is allowed it is bound at the alias: a name that works, but
 * not the one asked for. */
static int bind_aside(const struct rc_unix_errand *errand)
{
    char name[NAME_MAX + 1], full[PATH_MAX], where[64];
    const char *path = errand->path, *slash = strrchr(path, '/');
    if (errand->folder >= 0 && fchdir(errand->folder) == 0 && (*path != '/' || enter_root() == 0))
        return bind_path(errand->fd, path);
    rc_unix_alias(errand->group, errand->bound->alias, name);
    int length =
        snprintf(full, sizeof full, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, name);
    if (length > 0 && (size_t)length < sizeof(((struct sockaddr_un *)0)->sun_path)) {
        snprintf(where, sizeof where, "/proc/%d/cwd", (int)errand->caller);
        return chdir(where) < 0 ? -errno : bind_path(errand->fd, full);
    }
    return fchdir(errand->group->directory) < 0 ? -errno : bind_path(errand->fd, name);
}

/* A child that hangs must hold nothing: not a lane, not a channel whose end a
 * worker waits for. */
static void close_others(const struct rc_unix_errand *errand)
{
    unsigned kept[3], count = 0, from = 3;
    int wanted[] = {errand->fd, errand->folder, errand->group ? errand->group->directory : -1};
    for (size_t at = 0; at < sizeof wanted / sizeof wanted[0]; at++)
        if (wanted[at] >= 3)
            kept[count++] = (unsigned)wanted[at];
    while (count) {
        unsigned least = 0;
        for (unsigned at = 1; at < count; at++)
            if (kept[at] < kept[least])
                least = at;
        if (kept[least] > from)
            (void)syscall(SYS_close_range, from, kept[least] - 1, 0);
        from = kept[least] + 1;
        kept[least] = kept[--count];
    }
    (void)syscall(SYS_close_range, from, ~0u, 0);
}

static _Noreturn void in_child(const struct rc_unix_errand *errand, const struct identity *who,
                               pid_t master)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != master)
        _exit(1);
    close_others(errand);
    *errand->outcome = errand->bound->alias ? bind_aside(errand) : bind_as(errand, who);
    _exit(0);
}

/* Returns its pid, or -errno. */
pid_t rc_unix_child(const struct rc_unix_errand *errand)
{
    struct identity who;
    sigset_t all, before;
    pid_t master = getpid();
    identity_of(errand->caller, &who);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        in_child(errand, &who, master);
    int error = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? error : pid;
}
