/* stop.c - signals to workers: who of one gets the stop signal, and whether it heard it coming.
 *
 * Owns the question which process of a worker is its server. What recluster has started
 * may be a shell, `npm start`, `go run`: it holds no lane, and a signal would end it, or
 * not reach the server behind it. So the server is the topmost process, from the leader
 * down to the one that listened, that has a lane open, of TCP or else of AF_UNIX; where none
 * has, the leader.
 *
 * Invariant: a process that is not our child is signalled by a pidfd, taken before it was
 * seen to hold the lane, so the number cannot have become somebody else's.
 */
#include "internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEEPEST = 16 }; /* processes between leader and server */

/* A process of the worker that has the socket open, or -1. */
static pid_t holder_among(const struct rc_worker *worker, uint64_t inode)
{
    struct rc_flow one = {.inode = (uint32_t)inode};
    struct rc_flows flows = {.all = &one, .count = 1, .room = 1};
    return rc_holders_mark(worker->pid, &flows) == 0 && one.held ? one.holder : -1;
}

/* Of a lane. */
static pid_t holder_of(struct rc_lane *lane, const struct rc_worker *worker)
{
    if (lane->worker == worker && !lane->party)
        return !lane->deaf && rc_lane_held(lane) == 1 ? lane->pid : -1;
    if (!lane->party || !rc_lane_held_by(lane, worker))
        return -1;
    return holder_among(worker, lane->inode);
}

static pid_t topmost(const struct rc_worker *worker, uint64_t inode, pid_t pid)
{
    pid_t top = pid;
    for (int depth = 0; depth < DEEPEST && pid != worker->pid; depth++) {
        pid = rc_parent_of(pid);
        if (pid <= 1 || pid == getpid())
            break;
        if (rc_process_holds(pid, inode))
            top = pid;
    }
    return top;
}

static pid_t server_of(struct rc_engine *engine, const struct rc_worker *worker)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            pid_t holder = holder_of(group->lanes[at], worker);
            if (holder > 0)
                return topmost(worker, group->lanes[at]->inode, holder);
        }
    uint64_t inode = rc_unix_inode(engine, worker);
    if (!inode || rc_process_holds(worker->pid, inode)) /* mostly, and that is soon known */
        return worker->pid;
    pid_t holder = holder_among(worker, inode);
    return holder > 0 ? topmost(worker, inode, holder) : worker->pid;
}

int rc_worker_server(rc_engine *engine, uint32_t id)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->process.fd < 0)
        return -ESRCH;
    return server_of(engine, worker);
}

/* A pidfd of that, or -errno. */
int rc_server_open(struct rc_engine *engine, const struct rc_worker *worker, pid_t *server)
{
    if (worker->process.fd < 0)
        return -ESRCH;
    *server = server_of(engine, worker);
    int pidfd = (int)syscall(SYS_pidfd_open, *server, 0);
    if (pidfd < 0)
        return -errno;
    if (server_of(engine, worker) != *server)
        rc_close(&pidfd);
    return pidfd < 0 ? -ESRCH : pidfd;
}

int rc_worker_signal(rc_engine *engine, uint32_t id, int number)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->process.fd < 0)
        return -ESRCH;
    if (syscall(SYS_pidfd_send_signal, worker->process.fd, number, NULL, 0) < 0)
        return -errno;
    return 0;
}

int rc_worker_kill(rc_engine *engine, uint32_t id)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->process.fd < 0)
        return -ESRCH;
    /* The leader is not reaped, so the group's number cannot have been given to another. (But
     * where SIGCHLD is ignored the kernel reaps: what is left of the group is dealt with when
     * the end is heard of.) */
    int error = rc_worker_signal(engine, id, 0);
    if (error)
        return error;
    if (kill(-worker->pid, SIGKILL) < 0 && errno != ESRCH)
        return -errno;
    return rc_worker_signal(engine, id, SIGKILL);
}

int rc_worker_stop(rc_engine *engine, uint32_t id, int number)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->process.fd < 0)
        return -ESRCH;
    pid_t server;
    int pidfd = rc_server_open(engine, worker, &server);
    bool told = pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) == 0;
    rc_close(&pidfd);
    return told ? 0 : rc_worker_signal(engine, id, number);
}

/* Whether the worker has read all that was sent to it: it listens to its channel. */
int rc_worker_heard(rc_engine *engine, uint32_t id)
{
    const struct rc_worker *worker = rc_find(engine, id);
    int unread = 0;
    if (!worker || worker->channel_source.fd < 0)
        return 0;
    if (worker->channel.out.end != worker->channel.out.start)
        return 0;
    return ioctl(worker->channel_source.fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}
