/* dispatched.c - what the master holds where it accepts for its workers, written down and taken
 * over: connections that nobody has taken yet, and the pairs by which workers are told.
 *
 * Owns both ends of these. Who has how many connections open is opens.c's, which has its own form.
 *
 * Invariant: a connection is in the state, or in a queue of the kernel's that stays: a front's, or
 * that of the worker's end of a pair.
 */
#include "internal.h"

#include "carry/carry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* The caller frees them. `at` is NULL where there are none, or no memory. */
struct rc_bytes rc_carry_undelivered(const struct rc_group *group)
{
    size_t count = 0;
    for (const struct rc_accepted *one = group->undelivered; one; one = one->next)
        count++;
    struct rc_accepted *all = count ? calloc(count, sizeof *all) : NULL;
    struct rc_bytes bytes = {.at = (char *)all, .length = count * sizeof *all};
    for (const struct rc_accepted *one = group->undelivered; one && all; one = one->next) {
        *all = *one;
        all++->next = NULL;
    }
    return bytes;
}

void rc_carry_dispatch_fds(const struct rc_group *group, void (*keep)(int fd, bool on), bool on)
{
    for (const struct rc_accepted *one = group->undelivered; one; one = one->next)
        keep(one->fd, on);
    for (unsigned at = 0; at < group->count; at++) {
        keep(group->lanes[at]->receiver.pair.fd, on);
        keep(group->lanes[at]->receiver.theirs, on);
    }
}

bool rc_carried_undelivered_fits(const struct rc_bytes *undelivered)
{
    return undelivered->length % sizeof(struct rc_accepted) == 0;
}

/* The first is to be the next that is given. */
int rc_carried_undelivered_take(struct rc_group *group, const struct rc_bytes *undelivered)
{
    for (size_t at = undelivered->length; at > 0; at -= sizeof(struct rc_accepted)) {
        struct rc_accepted one;
        memcpy(&one, undelivered->at + at - sizeof one, sizeof one);
        if (fcntl(one.fd, F_SETFD, FD_CLOEXEC) < 0)
            return -errno;
        rc_accepted_keep(group, &one);
    }
    return 0;
}

/* Whether an offer has been taken meanwhile is asked by the first look at it. */
int rc_carried_receiver_take(struct rc_engine *engine, struct rc_lane *lane,
                             const struct rc_carried_lane *record)
{
    struct rc_receiver *receiver = &lane->receiver;
    receiver->inode = (uint64_t)record->pair_inode;
    if (record->pair < 0)
        return 0;
    receiver->offered = record->offered;
    receiver->late = record->late;
    receiver->theirs = (int)record->theirs;
    if (fcntl(receiver->theirs, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl((int)record->pair, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    uint32_t wanted = record->offered || record->late ? EPOLLOUT : 0;
    return rc_source_add(engine->epoll, &receiver->pair, RC_SOURCE_PAIR, (int)record->pair, wanted);
}
