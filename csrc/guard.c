/* guard.c - a tiny process that outlives the master by a few milliseconds.
 *
 * Owns: the list of process groups that must not outlive the master. It blocks
 * in read(2) on a pipe whose only lasting write end is the master's; end of
 * file means the master is gone, however it went, and every group still on the
 * list gets SIGKILL.
 *
 * PR_SET_PDEATHSIG is not enough: set-id changes clear it, it fires when the
 * forking *thread* ends, and the children of gunicorn, granian and
 * `uvicorn --workers` never had it.
 *
 * Invariant: a group is taken off the list before its leader is reaped, so the
 * guard never signals a number that the kernel may have given to somebody else.
 * A record is one 8-byte write, below PIPE_BUF: it is never cut.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct record {
    int32_t group;
    int32_t add;
};
enum { GROUPS_MAX = 1 << 20 };

/* In the child of a possibly multi-threaded program: system calls only. */
static void guard_main(int pipe)
{
    prctl(PR_SET_NAME, "recluster-guard");
    setsid(); /* a terminal's ^C and ^Z are for the others */
    if (pipe > 0)
        (void)syscall(SYS_close_range, 0u, (unsigned)pipe - 1, 0u);
    (void)syscall(SYS_close_range, (unsigned)pipe + 1, ~0u, 0u);
    (void)!chdir("/");

    pid_t *groups = mmap(NULL, GROUPS_MAX * sizeof *groups, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (groups == MAP_FAILED)
        _exit(1);
    size_t count = 0;
    struct record record;
    ssize_t got;
    while ((got = read(pipe, &record, sizeof record)) == sizeof record ||
           (got < 0 && errno == EINTR)) {
        if (got < 0)
            continue;
        size_t at = 0;
        while (at < count && groups[at] != record.group)
            at++;
        if (record.add && at == count && count < GROUPS_MAX)
            groups[count++] = record.group;
        else if (!record.add && at < count)
            groups[at] = groups[--count];
    }
    for (size_t at = 0; at < count; at++)
        kill(-groups[at], SIGKILL);
    _exit(0);
}

int rc_guard_start(struct rc_guard *guard, int epoll)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* and the guard keeps it so */
    pid_t pid = fork();
    if (pid == 0) {
        guard_main(ends[0]);
        _exit(0);
    }
    int error = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[0]);
    if (error) {
        close(ends[1]);
        return error;
    }
    /* The write end must never block the master; should a stopped guard let
     * the pipe fill, the failed write tells and it is replaced. */
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    error =
        pidfd < 0 ? -errno : rc_source_add(epoll, &guard->source, RC_SOURCE_GUARD, pidfd, EPOLLIN);
    if (error) {
        if (pidfd >= 0)
            close(pidfd);
        close(ends[1]);
        waitpid(pid, NULL, 0); /* its pipe is at its end: it exits at once */
        return error;
    }
    guard->pid = pid;
    guard->pipe = ends[1];
    return 0;
}

static int tell(const struct rc_guard *guard, pid_t group, bool add)
{
    struct record record = {.group = group, .add = add};
    ssize_t sent;
    do
        sent = write(guard->pipe, &record, sizeof record);
    while (sent < 0 && errno == EINTR);
    return sent == sizeof record ? 0 : -errno;
}

int rc_guard_add(const struct rc_guard *guard, pid_t group)
{
    return tell(guard, group, true);
}

int rc_guard_remove(const struct rc_guard *guard, pid_t group)
{
    return tell(guard, group, false);
}

bool rc_guard_takes(const struct rc_guard *guard)
{
    struct pollfd one = {.fd = guard->pipe, .events = POLLOUT};
    return poll(&one, 1, 0) == 1 && one.revents == POLLOUT;
}

/* Ends it without its killing anybody: before a new one takes over, or when the
 * engine's owner deals with the workers itself. */
void rc_guard_stop(struct rc_guard *guard, int epoll)
{
    if (guard->pid <= 0)
        return;
    (void)syscall(SYS_pidfd_send_signal, guard->source.fd, SIGKILL, NULL, 0);
    rc_close(&guard->pipe);
    while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    rc_source_shut(epoll, &guard->source);
    guard->pid = 0;
}
