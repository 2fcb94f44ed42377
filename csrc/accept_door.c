/* accept_door.c - accept(2) of a worker, trapped: what is it to get?
 *
 * Owns: the question. Does not own the filter (notify.c), nor whose turn it is
 * (dispatch.c), nor how the answer is given, now or later (held.c).
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

/* The connection that this lane may have now: 0, or -EAGAIN. */
static int find_for(struct rc_engine *engine, struct rc_lane *lane, struct rc_hand *hand)
{
    struct rc_taker *taker = &lane->taker;
    if (taker->pair.fd >= 0) { /* of a pair, called past our Python part */
        int error;
        while ((error = rc_pass_receive(taker->theirs, hand)) == 0 && hand->fd < 0)
            ;
        if (!error)
            taker->offered = false;
        return error ? -EAGAIN : 0;
    }
    if (taker->offered || rc_dispatch_turn_of(engine, lane))
        return rc_dispatch_take(engine, lane, hand);
    int strange = taker->bell.fd >= 0 ? rc_bell_silence(&taker->bell, lane->source.fd, hand) : 0;
    return strange > 0 ? 0 : -EAGAIN;
}

/* The worker's lane that a call means, or NULL. Most mean the same as the time before. */
static struct rc_lane *find_lane(struct rc_engine *engine, const struct rc_worker *worker,
                                 pid_t thread, int number)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; group->front && at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->worker == worker && lane->taker.acceptor && lane->taker.number == number &&
                lane->taker.pair.fd < 0 && rc_is_same_file(thread, number, lane->source.fd))
                return lane;
        }
    int fd = rc_take_of_thread(worker, thread, number);
    if (fd < 0)
        return NULL;
    struct rc_lane *lane = rc_lane_find(engine, rc_socket_inode(fd));
    rc_close(&fd);
    return lane && lane->worker && lane->group->front ? lane : NULL;
}

/* O_NONBLOCK is the description's, which is ours as well. */
static bool waits(const struct rc_lane *lane)
{
    int pair = rc_dispatch_descriptor(lane);
    int status = fcntl(pair >= 0 ? pair : lane->source.fd, F_GETFL);
    return status >= 0 && !(status & O_NONBLOCK);
}

/* Whoever is woken runs next on this CPU (Linux 6.6), and need not be found another. */
void rc_accept_prepare(int door)
{
    (void)ioctl(door, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
}

/* True if the call has been dealt with; else it is none of ours, and may pass. */
bool rc_accept_asked(struct rc_engine *engine, struct rc_worker *worker, int door,
                     const struct seccomp_notif *notice)
{
    struct rc_held held = {.id = notice->id,
                           .thread = (pid_t)notice->pid,
                           .address = notice->data.args[1],
                           .length = notice->data.args[2],
                           .flags =
                               notice->data.nr == __NR_accept4 ? (int)notice->data.args[3] : 0};
    struct rc_hand hand;
    int number = (int)notice->data.args[0];
    struct rc_lane *lane = find_lane(engine, worker, held.thread, number);
    if (!lane || (held.flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)))
        return false;

    lane->taker.late = false;
    lane->taker.acceptor = held.thread;
    lane->taker.number = number;
    if (lane->taker.awake && !lane->taker.bell.rung)
        lane->taker.loops = true;
    int error = find_for(engine, lane, &hand);
    if (!error) {
        error = rc_held_give(engine, lane, door, &held, &hand);
        lane->taker.awake = !error;
    } else {
        lane->taker.awake = false;
        rc_held_silence(engine, lane);
        if (waits(lane))
            error = rc_held_keep(lane, &held);
    }
    if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
        lane->taker.late = true; /* others first */
    if (error)
        rc_held_refuse(door, held.id, error);
    rc_dispatch_run(engine, lane->group);
    return true;
}
