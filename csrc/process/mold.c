/* mold.c - workers that another process of ours forks: asked of it, adopted, let go.
 *
 * Owns both ends of such a birth: the master's question and adoption, and in the mold the two
 * forks. A mold is a worker without a door (spawn.c) that has imported what its generation's
 * workers have in common; what it forks is to be as any other worker.
 *
 * The worker's parent must be the master, so a middle process forks it and ends: the kernel
 * gives the orphan to the subreaper. The middle is a vfork, for two real forks would copy the
 * page tables twice; it calls glibc's fork, not the bare system call, for the libraries that
 * were imported have their atfork handlers.
 *
 * The mold may be killed at any point, so a worker does nothing before the master has said GO
 * on the channel, and ends if that closes first:
 *  - killed before the forks, or between them: no worker; the master hears of the mold's end;
 *  - after them, before its answer: the worker waits at the gate, as nobody's; the master closes
 *    the channel and it ends, an orphan that is reaped (rc_reap);
 *  - after its answer: it is no longer needed.
 * The answer is given when the middle has been waited for, and the master reaps no orphan while
 * a birth is under way. So the pid it gets is that of a child of its own, dead or alive. (In a
 * host that is no subreaper it is init's child; rc_worker_adopt looks whether it is the one.)
 *
 * Invariant: a worker is asked for once, for whoever waits at its gate has its channel.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GO "!"

/* linux/pidfd.h, as of 6.15. */
struct info {
    uint64_t mask, cgroup;
    uint32_t ids[11];
    int32_t exit_code;
};
#define GET_INFO _IOWR(0xff, 11, struct info)
enum { INFO_EXIT = 1 << 3 };

/* ---- the master's side ---------------------------------------------------------------- */

int rc_mold_ask(rc_engine *engine, uint32_t mold_id, uint32_t id, const char *line, size_t length)
{
    struct rc_worker *mold = rc_find(engine, mold_id), *worker = rc_find(engine, id);
    if (!mold || mold->channel_source.fd < 0 || !worker || worker->child_channel < 0 ||
        worker->asked)
        return -ESRCH;
    if (rc_poll(mold->channel_source.fd, POLLOUT, 0) != POLLOUT)
        return -EAGAIN; /* it does not read */
    const int fds[] = {worker->child_channel, worker->output[0], worker->output[1]};
    int error = rc_send_descriptors(mold->channel_source.fd, line, length, fds,
                                    worker->output[0] >= 0 ? 3 : 1);
    worker->asked = !error;
    return error;
}

int rc_worker_traps(rc_engine *engine, uint32_t id)
{
    struct rc_worker *worker = rc_find(engine, id);
    return worker ? (int)rc_spawn_traps(engine, worker) : -ESRCH;
}

/* Only now may it run: the guard knows it, and its end will be heard of. */
int rc_worker_adopt(rc_engine *engine, uint32_t id, pid_t pid)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || !worker->asked || worker->process.fd >= 0 || pid <= 0)
        return -ESRCH;
    int error = rc_guard_takes(&engine->guard) ? 0 : rc_guard_renew(engine);
    if (error)
        return error;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    error = pidfd < 0
                ? -errno
                : rc_source_add(engine->epoll, &worker->process, RC_SOURCE_PROCESS, pidfd, EPOLLIN);
    if (error) {
        rc_close(&pidfd);
        return error;
    }
    worker->pid = pid;
    worker->asked = false;
    worker->adopted = true;
    engine->orphans = true; /* nobody has looked meanwhile */
    (void)setpgid(pid, pid);
    (void)rc_guard_add(&engine->guard, pid); /* else it is stale, and will be renewed */
    (void)!send(worker->channel_source.fd, GO, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    rc_close(&worker->child_channel);
    rc_output_close(worker);
    worker->channel.held = false; /* what was said to it already comes behind */
    int state = rc_channel_flush(&worker->channel, worker->channel_source.fd);
    (void)rc_source_arm(engine->epoll, &worker->channel_source,
                        state > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return 0;
}

/* Of a zombie; false where it is none, or may not be looked at. */
static bool exit_code_of(pid_t pid, int *code)
{
    char line[1024];
    const char *end = rc_stat_of(pid, line, sizeof line);
    const char *last = end && strncmp(end, ") Z", 3) == 0 ? strrchr(end, ' ') : NULL;
    return last && sscanf(last, "%d", code) == 1;
}

/* How a worker has ended that is no child of ours. While nobody has reaped it, /proc tells; and
 * then the kernel whoever has a pidfd (Linux 6.15). */
int rc_mold_status(const struct rc_engine *engine, const struct rc_worker *worker)
{
    struct info info = {.mask = INFO_EXIT};
    int code, fd = worker->process.fd;
    if (!worker->adopted || (engine->flags & RC_SUBREAPER))
        return RC_STATUS_UNKNOWN;
    /* The signal comes second: it shows whose number that was. */
    if (!exit_code_of(worker->pid, &code) || syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0) {
        if (ioctl(fd, GET_INFO, &info) < 0 || !(info.mask & INFO_EXIT))
            return RC_STATUS_UNKNOWN;
        code = info.exit_code;
    }
    return WIFEXITED(code) ? WEXITSTATUS(code) : -WTERMSIG(code);
}

bool rc_birth_under_way(const struct rc_engine *engine)
{
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->asked)
            return true;
    return false;
}

/* ---- in the mold ----------------------------------------------------------------------- */

static bool let_through(int channel)
{
    char go;
    ssize_t got;
    do
        got = recv(channel, &go, 1, 0);
    while (got < 0 && errno == EINTR);
    return got == 1;
}

/* What the middle leaves in memory that it shares with the mold. */
struct birth {
    pid_t pid;
    int error;
};

/* The worker's pid; 0 in the worker, whose door is open then; or -errno. */
pid_t rc_mold_fork(int line, int channel, int traps, int ours)
{
    static volatile struct birth birth;
    sigset_t all, before;
    int status;
    birth.pid = -1;
    birth.error = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t middle = vfork();
    if (middle == 0) {
        pid_t pid = fork();
        if (pid != 0) {
            birth.pid = pid;
            birth.error = pid < 0 ? errno : 0;
            _exit(0);
        }
        (void)close(line);
        (void)setpgid(0, 0);
        if (!let_through(channel))
            _exit(0);
        rc_child_begin(channel, traps, ours);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return 0;
    }
    int error = middle < 0 ? errno : birth.error;
    while (middle > 0 && waitpid(middle, &status, 0) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? -error : birth.pid;
}
