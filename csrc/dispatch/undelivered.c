/* undelivered.c - connections between the front's queue and a worker, in dispatch.
 *
 * Owns: taking the next one, keeping what was given and not taken, and the counts of
 * what was given. Does not own who gets it (dispatch.c).
 *
 * Invariant: a connection that the master holds is there because a worker did not take
 * it, and is the next to be given.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

void rc_dispatch_be_patient(struct rc_engine *engine, int ms)
{
    struct rc_dispatch *dispatch = &engine->dispatch;
    struct itimerspec when = {.it_value.tv_nsec = (long)ms * 1000000};
    if (!dispatch->patient)
        dispatch->patient = timerfd_settime(dispatch->patience.fd, 0, &when, NULL) == 0;
}

/* The next connection: 0, -EAGAIN, or -errno of accept(2). */
int rc_dispatch_accept(struct rc_engine *engine, struct rc_group *group, struct rc_accepted *out)
{
    struct rc_accepted *accepted = group->undelivered;
    if (accepted) {
        *out = *accepted;
        group->undelivered = accepted->next;
        free(accepted);
        return 0;
    }
    *out = (struct rc_accepted){.length = sizeof out->peer};
    out->fd = group->front ? accept4(group->front->source.fd, (struct sockaddr *)&out->peer,
                                     &out->length, SOCK_CLOEXEC)
                           : -1;
    if (out->fd >= 0)
        return 0;
    int error = group->front ? -errno : -EAGAIN;
    if (error == -EINTR || error == -ECONNABORTED || error == -EPROTO)
        error = -EAGAIN;
    if (error != -EAGAIN) /* no descriptor or memory: no event tells when there is */
        rc_dispatch_be_patient(engine, RC_AGAIN_MS);
    return error;
}

void rc_accepted_free(struct rc_group *group)
{
    while (group->undelivered) {
        struct rc_accepted *accepted = group->undelivered;
        group->undelivered = accepted->next;
        close(accepted->fd);
        free(accepted);
    }
}

/* It was given to one that has not taken it: the next to be given. */
void rc_accepted_keep(struct rc_group *group, const struct rc_accepted *accepted)
{
    struct rc_accepted *kept = malloc(sizeof *kept);
    if (!kept) { /* 48 bytes: the process is at its end anyway */
        close(accepted->fd);
        return;
    }
    *kept = *accepted;
    kept->next = group->undelivered;
    group->undelivered = kept;
}

void rc_dispatch_return(struct rc_engine *engine, struct rc_group *group,
                        const struct rc_accepted *accepted)
{
    rc_accepted_keep(group, accepted);
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS); /* somebody looks at it, whoever called */
}

void rc_dispatch_given(struct rc_engine *engine, struct rc_lane *lane,
                       const struct rc_accepted *accepted)
{
    if (engine->dispatch.opens.source.fd >= 0)
        rc_opens_add(engine, lane->worker, accepted);
}

/* True if it had not taken one: we hold that again. */
bool rc_dispatch_withdraw(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_receiver *receiver = &lane->receiver;
    struct rc_accepted accepted;
    bool had = false;
    if (receiver->pair.fd < 0)
        return false;
    while (rc_pass_receive(receiver->theirs, &accepted) == 0)
        if (accepted.fd >= 0 && rc_proof_is(lane, &accepted)) {
            rc_close(&accepted.fd);
        } else if (accepted.fd >= 0) { /* else it was a nudge */
            had = true;
            lane->worker->given--;
            rc_dispatch_return(engine, lane->group, &accepted);
        }
    receiver->offered = false;
    return had;
}

/* Nobody accepts from the lane of a pair. What comes to it nevertheless, for it was there
 * before the group had a front, is as good as what comes to that; but for a connection of our
 * own, which proves that this worker accepts. Only what is there is accepted: the description
 * may be blocking. */
void rc_dispatch_take_strays(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->receiver.pair.fd < 0)
        return;
    for (unsigned queued = rc_listener_queued(lane->source.fd); queued > 0; queued--) {
        struct rc_accepted stray = {.length = sizeof stray.peer};
        stray.fd =
            accept4(lane->source.fd, (struct sockaddr *)&stray.peer, &stray.length, SOCK_CLOEXEC);
        if (stray.fd < 0)
            return;
        if (rc_proof_is(lane, &stray) && lane->worker->dead)
            rc_close(&stray.fd);
        else if (!rc_proof_pass(engine, lane, &stray))
            rc_dispatch_return(engine, lane->group, &stray);
    }
}
