/* held.c - the answer to a trapped accept, and accepts that wait for theirs.
 *
 * Owns: the giving of a connection as the result of a call. SECCOMP_ADDFD_FLAG_SEND
 * (Linux 5.14) makes the descriptor and the answer one step: either the worker has
 * the connection, or we have it still.
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
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

void rc_held_refuse(int door, uint64_t id, int error)
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

/* A bell must not ring any more when the answer is there: many loops accept once
 * and look again, and some would wait in a blocking accept. Who else came to the lane
 * is found then, or when there is nothing else for its worker. */
void rc_held_silence(struct rc_engine *engine, struct rc_lane *lane)
{
    if (!lane->taker.offered && lane->taker.bell.rung)
        rc_dispatch_silence(engine, lane);
}

int rc_held_give(struct rc_engine *engine, struct rc_lane *lane, int door,
                 const struct rc_held *held, struct rc_hand *hand)
{
    rc_held_silence(engine, lane);
    int error = deliver(door, held, hand);
    if (error) {
        if (lane->worker->given)
            lane->worker->given--;
        rc_dispatch_return(engine, lane->group, hand);
    }
    return error;
}

/* A thread waits in one call: what it waited in before, a signal has taken back. */
int rc_held_keep(struct rc_lane *lane, const struct rc_held *held)
{
    struct rc_held **end = &lane->taker.held;
    struct rc_held *kept = malloc(sizeof *kept);
    if (!kept)
        return -ENOMEM;
    *kept = *held;
    kept->next = NULL;
    while (*end)
        if ((*end)->thread == held->thread) {
            struct rc_held *gone = *end;
            *end = gone->next;
            free(gone);
        } else {
            end = &(*end)->next;
        }
    *end = kept;
    return 0;
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
            int error = rc_dispatch_take(engine, lane, &hand);
            done = true; /* in any case the promise is settled */
            if (!error)
                error = rc_held_give(engine, lane, lane->worker->door.fd, held, &hand);
            else
                error = rc_held_keep(lane, held);
            if (error && error != -ENOENT)
                rc_held_refuse(lane->worker->door.fd, id, error);
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
