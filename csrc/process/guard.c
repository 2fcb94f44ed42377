/* guard.c - a tiny process that outlives the master: it ends the workers, and answers for
 * the master whoever is left.
 *
 * Owns: the list of process groups that must not outlive the master, and a copy of every
 * door. It waits for records on a socket whose only lasting other end is the master's; its
 * end of file means that the master is gone, however it went, and every group still on the
 * list gets SIGKILL. What left its group before (a daemon) lives on, and its filter with it:
 * without anybody at the door each bind, listen or unlink of it would be answered ENOSYS. So
 * the guard stays, and lets every call pass, until the last of them has ended; first of all
 * those that the master had received and not answered (asked.c).
 *
 * PR_SET_PDEATHSIG is not enough: set-id changes clear it, it fires when the
 * forking *thread* ends, and the children of gunicorn, granian and
 * `uvicorn --workers` never had it.
 *
 * A guard that somebody has stopped: it is of the master's session, in a group of its own.
 * Such a group is continued by the kernel when the master's end makes it an orphan
 * (kill_orphaned_pgrp, unless the process that adopts it is of that session too); the HUP
 * that comes with it is blocked, as every signal.
 *
 * It keeps next to nothing of the master's memory (giveback.c).
 *
 * Invariant: a group is taken off the list before its leader is reaped, so the
 * guard never signals a number that the kernel may have given to somebody else. A record is
 * one message: it is never cut. One that could not be sent makes the guard stale.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum what { REMOVE, ADD, DOOR, DISBAND };
struct record {
    int32_t group;
    int32_t what; /* of DISBAND: the master has ended all workers itself */
};
enum { GROUPS_MAX = 1 << 20, DOORS_MAX = 1 << 17, ADD_US = 5000000, LEAVE_US = 1000000 };

/* ---- the guard's process: system calls only, for the host may have threads ------------- */

/* Of a process that has just been forked: room[0] is the line, the doors follow. */
struct post {
    pid_t *groups;
    size_t group_count;
    struct pollfd *polled;
    size_t count;
    const struct rc_asked *asked;
    bool disbanded;
};

static void close_between(unsigned from, unsigned before)
{
    struct rlimit most;
    if (from >= before || syscall(SYS_close_range, from, before - 1, 0u) == 0)
        return;
    /* An older profile refuses it. */
    if (getrlimit(RLIMIT_NOFILE, &most) == 0 && most.rlim_cur < before)
        before = (unsigned)most.rlim_cur;
    for (unsigned fd = from; fd < before; fd++)
        (void)close((int)fd);
}

/* All but what is polled; the end that it shares with the master first of all, for while
 * that is open there is no end of file. */
static void close_others(const struct post *post)
{
    unsigned from = 0;
    for (;;) {
        unsigned next = UINT32_MAX;
        for (size_t at = 0; at < post->count; at++)
            if ((unsigned)post->polled[at].fd >= from && (unsigned)post->polled[at].fd < next)
                next = (unsigned)post->polled[at].fd;
        close_between(from, next);
        if (next == UINT32_MAX)
            return;
        from = next + 1;
    }
}

static void add_door(struct post *post, int fd)
{
    if (post->count < DOORS_MAX)
        post->polled[post->count++] = (struct pollfd){.fd = fd}; /* events 0: its end only */
    else
        (void)close(fd);
}

static void drop_door(struct post *post, size_t at)
{
    (void)close(post->polled[at].fd);
    post->polled[at] = post->polled[--post->count];
}

static void note(struct post *post, const struct record *record)
{
    size_t at = 0;
    while (at < post->group_count && post->groups[at] != record->group)
        at++;
    if (record->what == ADD && at == post->group_count && at < GROUPS_MAX)
        post->groups[post->group_count++] = record->group;
    else if (record->what == REMOVE && at < post->group_count)
        post->groups[at] = post->groups[--post->group_count];
}

/* One record: false at the end of the line. */
static bool hear(struct post *post)
{
    struct record record;
    int fd;
    ssize_t got = rc_receive_descriptor(post->polled[0].fd, &record, sizeof record, &fd);
    if (got < 0)
        return got != -ECONNRESET; /* EMFILE: a door that we cannot have */
    if (fd >= 0)
        add_door(post, fd);
    if (got == 0)
        return false;
    if (record.what == DISBAND) {
        post->disbanded = true;
        post->group_count = 0;
    } else if (record.what != DOOR) {
        note(post, &record);
    }
    return true;
}

/* Lets one call pass. False: the door is of no use. */
static bool let_pass(int door)
{
    struct seccomp_notif notice;
    memset(&notice, 0, sizeof notice);
    if (ioctl(door, SECCOMP_IOCTL_NOTIF_RECV, &notice) < 0)
        return errno == ENOENT || errno == EINTR;
    rc_notify_reply(NULL, door, notice.id, true, 0);
    return true;
}

static void serve_doors(struct post *post)
{
    rc_close(&post->polled[0].fd);
    for (size_t at = 1; at < post->count; at++) {
        post->polled[at].events = POLLIN;
        rc_asked_pass(post->asked, post->polled[at].fd);
    }
    while (post->count > 1) {
        if (poll(post->polled, post->count, -1) < 0 && errno != EINTR)
            return;
        for (size_t at = post->count; at-- > 1;)
            if (post->polled[at].revents & POLLIN ? !let_pass(post->polled[at].fd)
                                                  : post->polled[at].revents)
                drop_door(post, at);
    }
}

static void watch_master(struct post *post)
{
    bool alive = true;
    while (alive) {
        if (poll(post->polled, post->count, -1) < 0)
            continue; /* no memory, for now */
        for (size_t at = post->count; at-- > 1;)
            if (post->polled[at].revents)
                drop_door(post, at);
        if (post->polled[0].revents)
            alive = hear(post);
    }
}

/* Shared with nobody, but the kernel never joins it to memory that is given back. */
static void *room_for(size_t count, size_t size)
{
    void *room = mmap(NULL, count * size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        _exit(1);
    return room;
}

/* The host's memory is not needed any more: what the guard was told is in rooms of its own. This
 * is all that is called from here on; a call that is added is added here too. */
static void give_back(void)
{
    const uintptr_t called[] = {
        (uintptr_t)poll,   (uintptr_t)recvmsg, (uintptr_t)ioctl,  (uintptr_t)kill,
        (uintptr_t)close,  (uintptr_t)read,    (uintptr_t)open,   (uintptr_t)madvise,
        (uintptr_t)memset, (uintptr_t)strlen,  (uintptr_t)strstr, (uintptr_t)strncmp,
        (uintptr_t)memcpy, (uintptr_t)syscall, (uintptr_t)_exit,
    };
    rc_memory_give_back(called, sizeof called / sizeof called[0]);
}

/* Without what libraries have asked to be called at a fork: their memory is given back. */
static pid_t fork_bare(void)
{
#ifdef __s390x__ /* the stack comes first */
    return (pid_t)syscall(SYS_clone, 0L, (long)SIGCHLD, 0L, 0L, 0L);
#else
    return (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
#endif
}

static _Noreturn void guard_main(int line, int masters, const struct rc_guarded *known)
{
    struct post post = {.groups = room_for(GROUPS_MAX, sizeof *post.groups),
                        .polled = room_for(DOORS_MAX, sizeof *post.polled),
                        .count = 1,
                        .asked = known->asked};
    struct rlimit most;

    (void)close(masters);
    prctl(PR_SET_NAME, "recluster-guard");
    setpgid(0, 0); /* a terminal's ^C and ^Z are for the others */
    post.polled[0] = (struct pollfd){.fd = line, .events = POLLIN};
    for (size_t at = 0; at < known->doors; at++)
        add_door(&post, known->door[at]);
    for (size_t at = 0; at < known->groups; at++)
        note(&post, &(struct record){.group = known->group[at], .what = ADD});
    close_others(&post);
    (void)!chdir("/");
    if (getrlimit(RLIMIT_NOFILE, &most) == 0) {
        most.rlim_cur = most.rlim_max; /* as many doors as there come */
        (void)setrlimit(RLIMIT_NOFILE, &most);
    }
    give_back();
    watch_master(&post);
    for (size_t at = 0; at < post.group_count; at++)
        kill(-post.groups[at], SIGKILL);
    /* A master that ends by itself waits for us; who stays for long is nobody's child. */
    if (post.disbanded && post.count > 1 && fork_bare() != 0)
        _exit(0);
    serve_doors(&post);
    _exit(0);
}

/* ---- the master's side ------------------------------------------------------------------ */

int rc_guard_start(struct rc_guard *guard, int epoll, const struct rc_guarded *known)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    (void)rc_socket_set(ends[1], SOL_SOCKET, SO_SNDBUF, 1 << 20);
    (void)fcntl(ends[1], F_SETFL, O_NONBLOCK); /* it must never block the master */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* and the guard keeps it so */
    struct rc_guarded told = *known;
    if (!rc_asked_share(known->asked, true))
        told.asked = NULL;
    pid_t pid = fork();
    if (pid == 0)
        guard_main(ends[0], ends[1], &told);
    (void)rc_asked_share(known->asked, false);
    int error = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[0]);
    if (error) {
        close(ends[1]);
        return error;
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    error =
        pidfd < 0 ? -errno : rc_source_add(epoll, &guard->source, RC_SOURCE_GUARD, pidfd, EPOLLIN);
    if (error) {
        if (pidfd >= 0)
            close(pidfd);
        (void)kill(pid, SIGKILL); /* ours, and not reaped */
        close(ends[1]);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return error;
    }
    guard->pid = pid;
    guard->line = ends[1];
    guard->stale = false;
    return 0;
}

static int tell(struct rc_guard *guard, pid_t group, enum what what, int fd)
{
    struct record record = {.group = group, .what = what};
    int error =
        guard->line < 0 ? -EBADF : rc_send_descriptor(guard->line, &record, sizeof record, fd);
    if (error)
        guard->stale = true;
    return error;
}

/* From the child itself, which may wait for a guard that comes to run late. */
int rc_guard_add(struct rc_guard *guard, pid_t group)
{
    (void)rc_poll(guard->line, POLLOUT, rc_now_us() + ADD_US);
    return tell(guard, group, ADD, -1);
}

int rc_guard_remove(struct rc_guard *guard, pid_t group)
{
    return tell(guard, group, REMOVE, -1);
}

int rc_guard_door(struct rc_guard *guard, int door)
{
    return tell(guard, 0, DOOR, door);
}

bool rc_guard_takes(const struct rc_guard *guard)
{
    return guard->pid > 0 && !guard->stale && rc_poll(guard->line, POLLOUT, 0) == POLLOUT;
}

static void reap(struct rc_guard *guard, int epoll)
{
    rc_close(&guard->line);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    rc_source_shut(epoll, &guard->source);
    guard->pid = 0;
}

/* Ends it without its killing anybody: before a new one takes over. */
void rc_guard_stop(struct rc_guard *guard, int epoll)
{
    if (guard->pid <= 0)
        return;
    (void)syscall(SYS_pidfd_send_signal, guard->source.fd, SIGKILL, NULL, 0);
    reap(guard, epoll);
}

/* The engine's owner has dealt with the workers: it kills nobody, and stays as long as
 * somebody needs it, as nobody's child. */
void rc_guard_leave(struct rc_guard *guard, int epoll)
{
    if (guard->pid <= 0)
        return;
    int error = tell(guard, 0, DISBAND, -1);
    if (!error) {
        rc_close(&guard->line);
        error = rc_poll(guard->source.fd, POLLIN, rc_now_us() + LEAVE_US) > 0 ? 0 : -ETIMEDOUT;
    }
    if (error) /* it was stopped, or has ended */
        (void)syscall(SYS_pidfd_send_signal, guard->source.fd, SIGKILL, NULL, 0);
    reap(guard, epoll);
}
