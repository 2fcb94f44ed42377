/* unixerrand.c - the bind(2) of a path, done by a child, and answered when it has ended.
 *
 * Owns: the call that waits for it, and what is made and cleared away around it. A
 * child, because working directory, root, umask and user are a process's, and our
 * host may have threads.
 * Does not own what the bind means (unixdoor.c).
 *
 * Invariant: the master walks no path that a worker has made up. It may lead into
 * a FUSE or NFS that never answers: then the child hangs, and with it the bind of
 * that worker, as it would without us. The child (unixchild.c) goes with its worker.
 */
#include "unix.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LAST_WAIT_MS = 1000 };

static bool is_bound(int fd)
{
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    return getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
           length > offsetof(struct sockaddr_un, sun_path);
}

/* ---- in the master: before and after ------------------------------------------------ */

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

static void folder_name(const struct rc_unix_errand *errand, char out[NAME_MAX + 1])
{
    snprintf(out, NAME_MAX + 1, ".%s.recluster-%u-d", errand->group->name.base,
             errand->bound->alias);
}

static void make_folder(struct rc_unix_errand *errand)
{
    char name[NAME_MAX + 1];
    const struct rc_unix_group *group = errand->group;
    rc_unix_unname(group, errand->bound->alias); /* left by one that was killed */
    if (strstr(errand->path, ".."))
        return;
    folder_name(errand, name);
    if (mkdirat(group->directory, name, 0700) < 0 && errno != EEXIST)
        return;
    errand->folder = openat(group->directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (errand->folder >= 0 && chain(errand->folder, errand->path, false) < 0) {
        (void)chain(errand->folder, errand->path + strspn(errand->path, "/"), true);
        rc_close(&errand->folder);
    }
}

/* What was bound in the folder gets the alias for its name; where it was bound
 * there in the first place, there is nothing to move. */
static void clear_folder(struct rc_unix_errand *errand)
{
    char name[NAME_MAX + 1], alias[NAME_MAX + 1];
    const struct rc_unix_group *group = errand->group;
    const char *inside = errand->path + strspn(errand->path, "/");
    if (!errand->bound->alias)
        return;
    rc_unix_alias(group, errand->bound->alias, alias);
    if (errand->folder >= 0) {
        (void)renameat(errand->folder, inside, group->directory, alias);
        (void)unlinkat(errand->folder, inside, 0);
        (void)chain(errand->folder, inside, true);
        rc_close(&errand->folder);
    }
    folder_name(errand, name);
    (void)unlinkat(group->directory, name, AT_REMOVEDIR);
}

static int start_child(struct rc_engine *engine, struct rc_unix_errand *errand)
{
    *errand->outcome = -EINTR; /* it was killed */
    if (errand->bound->alias)
        make_folder(errand);
    pid_t pid = rc_unix_child(errand);
    if (pid < 0)
        return pid;
    int error = 0;
    errand->child = pid;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        error = -errno;
    } else {
        error = rc_source_add(engine->epoll, &errand->source, RC_SOURCE_ERRAND, pidfd, EPOLLIN);
        if (error)
            rc_close(&pidfd);
    }
    if (error) { /* killed, it ends at once: it has walked no path yet, or is in a wait to be killed
                  */
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    return error;
}

static void errand_free(struct rc_engine *engine, struct rc_unix_errand *errand)
{
    struct rc_unix_errand **link = &engine->errands;
    while (*link && *link != errand)
        link = &(*link)->next;
    if (*link)
        *link = errand->next;
    rc_source_shut(engine->epoll, &errand->source);
    rc_close(&errand->fd);
    rc_close(&errand->folder);
    if (errand->outcome)
        (void)munmap(errand->outcome, sizeof *errand->outcome);
    if (errand->group) {
        errand->group->errands--;
        rc_unix_group_tidy(engine, errand->group);
    }
    free(errand->bound);
    rc_bury(engine, errand);
}

/* The one of that socket: a bind that a signal took the answer from comes again. */
struct rc_later *rc_unix_errand_of(struct rc_engine *engine, uint64_t inode)
{
    struct rc_unix_errand *errand = engine->errands;
    while (errand && errand->inode != inode)
        errand = errand->next;
    return errand ? &errand->later : NULL;
}

/* Of a child that was killed: it may have bound already. */
static void undo(struct rc_unix_errand *errand)
{
    clear_folder(errand);
    if (errand->group && (errand->bound->alias || is_bound(errand->fd)))
        rc_unix_unname(errand->group, errand->bound->alias);
}

/* A bind of `path` for that call; at an alias of the group's, or at the address. */
int rc_unix_errand_start(struct rc_engine *engine, const struct rc_call *call,
                         struct rc_unix_group *group, const char *path, unsigned alias,
                         struct rc_later **later)
{
    struct rc_unix_errand *errand = calloc(1, sizeof *errand);
    if (!errand) {
        if (group)
            rc_unix_group_tidy(engine, group);
        return -ENOMEM;
    }
    errand->source.fd = errand->folder = -1;
    errand->fd = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    errand->bound = calloc(1, sizeof *errand->bound);
    int error = errand->fd < 0 ? -errno : errand->bound ? 0 : -ENOMEM;
    void *shared = mmap(NULL, sizeof *errand->outcome, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    errand->outcome = shared == MAP_FAILED ? NULL : shared;
    if (!error && !errand->outcome)
        error = -ENOMEM;
    errand->group = group;
    if (group)
        group->errands++;
    if (!error) {
        errand->worker = call->worker;
        errand->caller = call->pid;
        errand->inode = rc_socket_inode(call->fd);
        errand->bound->alias = alias;
        snprintf(errand->path, sizeof errand->path, "%s", path);
        error = start_child(engine, errand);
        if (error)
            undo(errand);
    }
    if (error) {
        errand_free(engine, errand);
        return error;
    }
    errand->next = engine->errands;
    engine->errands = errand;
    *later = &errand->later;
    return 0;
}

static void reap(struct rc_unix_errand *errand)
{
    siginfo_t info;
    /* ECHILD: who reaps strangers here (rc_reap_orphans) was first. */
    (void)waitid((idtype_t)P_PIDFD, (id_t)errand->source.fd, &info, WEXITED);
}

/* What it was that the child has bound, if its path is one that is looked after. */
static int find_group(struct rc_engine *engine, struct rc_unix_errand *errand)
{
    struct rc_unix_name name;
    if (errand->group)
        return 0;
    int directory = rc_unix_find_directory(errand->caller, errand->path, &name);
    if (directory < 0)
        return 0;
    struct rc_unix_group *group = rc_unix_group_find(engine, &name);
    if (group || rc_unix_is_private(errand->worker, directory) ||
        rc_unix_count_own(engine, errand->worker) >= RC_UNIX_OWN_MAX) {
        rc_close(&directory);
    } else {
        group = rc_unix_group_new(engine, &name, errand->path, directory);
        if (!group)
            rc_close(&directory);
        if (!group)
            return -ENOMEM;
    }
    errand->group = group;
    if (group)
        group->errands++;
    return 0;
}

/* Another worker has the address, which is no mistake of this one: once more, aside. */
static bool again(struct rc_engine *engine, struct rc_unix_errand *errand)
{
    struct rc_later *later;
    struct rc_call call = {.worker = errand->worker, .pid = errand->caller, .fd = errand->fd};
    struct rc_unix_group *group = errand->group;
    if (!group || errand->bound->alias || group->one_for_all ||
        !rc_unix_asked_by_others(engine, group, errand->worker))
        return false;
    group->shared = true;
    if (rc_unix_errand_start(engine, &call, group, errand->path, ++group->aliases, &later) < 0)
        return false;
    *later = errand->later;
    return true;
}

/* Its address may be removed before it listens; then it must have another name. */
static void name_twice(struct rc_unix_group *group, struct rc_unix_bound *bound)
{
    unsigned alias = ++group->aliases;
    rc_unix_unname(group, alias); /* left by one that was killed */
    if (rc_unix_name_it(group, 0, alias) == 0)
        bound->alias = alias;
}

/* The child has ended, one way or another. */
void rc_unix_errand_ended(struct rc_engine *engine, struct rc_source *source)
{
    struct rc_unix_errand *errand = RC_CONTAINER(source, struct rc_unix_errand, source);
    reap(errand);
    int error = is_bound(errand->fd) ? 0 : *errand->outcome ? *errand->outcome : -EIO;
    if (!errand->worker) { /* it died meanwhile */
        undo(errand);
        errand_free(engine, errand);
        return;
    }
    clear_folder(errand);
    int known = find_group(engine, errand);
    error = error ? error : known;
    if (error == -EADDRINUSE && again(engine, errand)) {
        errand_free(engine, errand);
        return;
    }
    if (!error && errand->group) {
        struct rc_unix_bound *bound = errand->bound;
        bound->at_address = !bound->alias;
        if (!rc_unix_node_at(errand->group, bound->alias, &bound->node))
            bound->node = (struct rc_unix_node){0};
        bound->inode = errand->inode;
        if (errand->group->errands == 1 && !errand->group->bound && !errand->group->lanes)
            rc_unix_sweep(errand->group); /* nobody else is about to listen here */
        if (bound->at_address && bound->node.inode)
            name_twice(errand->group, bound);
        rc_unix_bound_add(errand->group, errand->worker, bound);
        errand->group->shared |= rc_unix_asked_by_others(engine, errand->group, errand->worker);
        errand->bound = NULL;
    }
    rc_later_answer(engine, errand->worker, &errand->later, error);
    errand_free(engine, errand);
}

/* Those that have ended and were not served yet. */
void rc_unix_errands_catch_up(struct rc_engine *engine)
{
    for (struct rc_unix_errand *errand = engine->errands, *next; errand; errand = next) {
        next = errand->next;
        if (rc_socket_readable(errand->source.fd)) { /* a pidfd is, at the end */
            rc_unix_errand_ended(engine, &errand->source);
            next = engine->errands; /* it may have begun another */
        }
    }
}

/* Its worker is gone; it is freed when it has ended. */
void rc_unix_errands_cancel(struct rc_engine *engine, const struct rc_worker *worker)
{
    for (struct rc_unix_errand *errand = engine->errands; errand; errand = errand->next)
        if (errand->worker == worker) {
            (void)syscall(SYS_pidfd_send_signal, errand->source.fd, SIGKILL, NULL, 0);
            errand->worker = NULL;
        }
}

/* The caller does not wait any more. */
void rc_later_forget(struct rc_engine *engine, const struct rc_shim_caller *caller)
{
    for (struct rc_unix_errand *errand = engine->errands; errand; errand = errand->next)
        if (errand->later.caller == caller)
            errand->later = (struct rc_later){0};
}

void rc_unix_errands_close(const struct rc_engine *engine)
{
    for (const struct rc_unix_errand *errand = engine->errands; errand; errand = errand->next) {
        (void)close(errand->source.fd);
        (void)close(errand->fd);
        if (errand->folder >= 0)
            (void)close(errand->folder);
    }
}

void rc_unix_errands_free(struct rc_engine *engine)
{
    while (engine->errands) {
        struct rc_unix_errand *errand = engine->errands;
        struct pollfd end = {.fd = errand->source.fd, .events = POLLIN};
        (void)syscall(SYS_pidfd_send_signal, errand->source.fd, SIGKILL, NULL, 0);
        /* One that hangs in a file system cannot even die; we must. */
        if (poll(&end, 1, LAST_WAIT_MS) == 1) {
            reap(errand);
            undo(errand);
        }
        errand_free(engine, errand);
    }
}
