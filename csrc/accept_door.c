/* accept_door.c - accept(2) of a worker, trapped and answered by the master.
 *
 * Owns: what an accept on a worker's lane gets, and those that wait. Does not own
 * the filter (notify.c), nor whose turn it is (dispatch.c). SECCOMP_ADDFD_FLAG_SEND
 * (Linux 5.14) makes the descriptor and the answer one step: either the worker has
 * the connection as the result of its call, or we have it still.
 *
 * A blocking accept is held: it is answered when there is a connection for it. A
 * signal takes it back, as it takes accept(2) back, because such a filter is without
 * WAIT_KILLABLE_RECV; the answer is ENOENT then, and the connection goes elsewhere.
 * Between looking whether it still waits and writing the address lies an instant in
 * which that may happen; accept is called again with the same memory, then.
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

static void reply_error(int door, uint64_t id, int error)
{
    struct seccomp_notif_resp reply = {.id = id, .error = error};
    (void)ioctl(door, SECCOMP_IOCTL_NOTIF_SEND, &reply); /* ENOENT: nobody waits for it */
}

static int write_peer(const struct rc_held *held, const struct rc_hand *hand)
{
    int room = 0, length = (int)hand->length;
    if (!held->address)
        return 0;
    struct iovec here = {&room, sizeof room};
    struct iovec there = {(void *)(uintptr_t)held->length, sizeof room};
    if (process_vm_readv(held->thread, &here, 1, &there, 1, 0) != sizeof room)
        return -EFAULT;
    if (room < 0)
        return -EINVAL;
    size_t part = room < length ? (size_t)room : (size_t)length;
    struct iovec ours[] = {{(void *)&hand->peer, part}, {&length, sizeof length}};
    struct iovec theirs[] = {{(void *)(uintptr_t)held->address, part},
                             {(void *)(uintptr_t)held->length, sizeof length}};
    return process_vm_writev(held->thread, ours, 2, theirs, 2, 0) == (ssize_t)(part + sizeof length)
               ? 0
               : -EFAULT;
}

/* 0: the connection is theirs, and closed here. -ENOENT: nobody waits any more.
 * Any other errno is the answer. */
static int deliver(int door, const struct rc_held *held, struct rc_hand *hand)
{
    uint64_t id = held->id;
    if (ioctl(door, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) < 0)
        return -ENOENT;
    int error = write_peer(held, hand);
    bool wants = (held->flags & SOCK_NONBLOCK) != 0; /* accepted by the master, it blocks */
    if (!error && wants && fcntl(hand->fd, F_SETFL, O_NONBLOCK) < 0)
        error = -errno;
    if (error)
        return error;
    struct seccomp_notif_addfd add = {
        .id = id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)hand->fd,
        .newfd_flags = held->flags & SOCK_CLOEXEC ? O_CLOEXEC : 0,
    };
    if (ioctl(door, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0) {
        error = errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : -ENOENT;
        if (wants)
            (void)fcntl(hand->fd, F_SETFL, 0);
        return error;
    }
    rc_close(&hand->fd);
    return 0;
}

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
    bool promised = taker->offered;
    if (!promised && !rc_dispatch_turn_of(engine, lane)) {
        int strange =
            taker->bell.fd >= 0 ? rc_bell_silence(&taker->bell, lane->source.fd, hand) : 0;
        return strange > 0 ? 0 : -EAGAIN;
    }
    int error = rc_dispatch_accept(engine, lane->group, hand);
    if (promised)
        rc_dispatch_settle(lane, !error);
    else if (!error)
        lane->worker->given++;
    if (!error)
        rc_dispatch_given(engine, lane, hand);
    return error ? -EAGAIN : 0;
}

/* A bell must not ring any more when the answer is there: many loops accept once
 * and look again, and some would wait in a blocking accept. */
static void silence(struct rc_engine *engine, struct rc_lane *lane)
{
    if (!lane->taker.offered)
        rc_dispatch_silence(engine, lane);
}

static int give(struct rc_engine *engine, struct rc_lane *lane, int door,
                const struct rc_held *held, struct rc_hand *hand)
{
    silence(engine, lane);
    int error = deliver(door, held, hand);
    if (error) {
        if (lane->worker->given)
            lane->worker->given--;
        rc_dispatch_return(engine, lane->group, hand);
    }
    return error;
}

static int hold(struct rc_lane *lane, const struct rc_held *held)
{
    struct rc_held **end = &lane->taker.held;
    struct rc_held *kept = malloc(sizeof *kept);
    if (!kept)
        return -ENOMEM;
    *kept = *held;
    kept->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = kept;
    return 0;
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
    int fd = rc_notify_descriptor(worker, (pid_t)notice->pid, (int)notice->data.args[0]);
    if (fd < 0)
        return false;
    struct rc_lane *lane = rc_lane_find(engine, rc_socket_inode(fd));
    int status = fcntl(fd, F_GETFL);
    rc_close(&fd);
    if (!lane || !lane->worker || !lane->group->front ||
        (held.flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)))
        return false;

    lane->taker.late = false;
    lane->taker.acceptor = held.thread;
    if (lane->taker.awake && !lane->taker.bell.rung)
        lane->taker.loops = true;
    int error = find_for(engine, lane, &hand);
    if (!error) {
        error = give(engine, lane, door, &held, &hand);
        lane->taker.awake = !error;
    } else {
        lane->taker.awake = false;
        silence(engine, lane);
        if (status >= 0 && !(status & O_NONBLOCK))
            error = hold(lane, &held);
    }
    if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
        lane->taker.late = true; /* others first */
    if (error)
        reply_error(door, held.id, error);
    rc_dispatch_run(engine, lane->group);
    return true;
}

/* The lane has been promised a connection, and somebody waits in accept for it.
 * False: they all have gone, ring its bell. */
bool rc_accept_answer_held(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_taker *taker = &lane->taker;
    struct rc_hand hand;
    bool done = false;
    while (!done && taker->held) {
        struct rc_held *held = taker->held;
        uint64_t id = held->id;
        taker->held = held->next;
        if (ioctl(lane->worker->door.fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0) {
            int error = find_for(engine, lane, &hand);
            done = true; /* in any case the promise is settled */
            if (!error)
                error = give(engine, lane, lane->worker->door.fd, held, &hand);
            else
                error = hold(lane, held);
            if (error && error != -ENOENT)
                reply_error(lane->worker->door.fd, id, error);
        }
        free(held);
    }
    return done;
}

void rc_accept_forget(struct rc_lane *lane)
{
    while (lane->taker.held) {
        struct rc_held *held = lane->taker.held;
        lane->taker.held = held->next;
        free(held);
    }
}
