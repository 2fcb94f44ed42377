/* hands.c - connections between the front's queue and a worker, in dispatch.
 *
 * Owns: taking the next one, keeping what was given and not taken, and the counts of
 * what was given. Does not own who gets it (dispatch.c).
 *
 * Invariant: a connection in the master's hand is there because a worker did not take
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
int rc_dispatch_accept(struct rc_engine *engine, struct rc_group *group, struct rc_hand *out)
{
    struct rc_hand *hand = group->hand;
    if (hand) {
        *out = *hand;
        group->hand = hand->next;
        free(hand);
        return 0;
    }
    *out = (struct rc_hand){.length = sizeof out->peer};
    out->fd = group->front ? accept4(group->front->source.fd, (struct sockaddr *)&out->peer,
                                     &out->length, SOCK_CLOEXEC)
                           : -1;
    if (group->left)
        group->left--;
    if (out->fd >= 0)
        return 0;
    group->left = 0;
    int error = group->front ? -errno : -EAGAIN;
    if (error == -EINTR || error == -ECONNABORTED || error == -EPROTO)
        error = -EAGAIN;
    if (error != -EAGAIN) /* no descriptor or memory: no event tells when there is */
        rc_dispatch_be_patient(engine, RC_AGAIN_MS);
    return error;
}

void rc_hands_free(struct rc_group *group)
{
    while (group->hand) {
        struct rc_hand *hand = group->hand;
        group->hand = hand->next;
        close(hand->fd);
        free(hand);
    }
}

void rc_dispatch_return(struct rc_engine *engine, struct rc_group *group,
                        const struct rc_hand *hand)
{
    struct rc_hand *kept = malloc(sizeof *kept);
    if (!kept) { /* 48 bytes: the process is at its end anyway */
        close(hand->fd);
        return;
    }
    *kept = *hand;
    kept->next = group->hand;
    group->hand = kept;
    rc_dispatch_be_patient(engine, RC_PATIENCE_MS); /* somebody looks at it, whoever called */
}

void rc_dispatch_given(struct rc_engine *engine, struct rc_lane *lane, const struct rc_hand *hand)
{
    if (engine->dispatch.opens.source.fd >= 0)
        rc_opens_add(engine, lane->worker, hand);
}

/* The connection has been given after all, or goes to somebody else. */
void rc_dispatch_settle(struct rc_lane *lane, bool given)
{
    if (!lane->taker.offered || lane->taker.pair.fd >= 0)
        return;
    lane->taker.offered = false;
    lane->worker->promised--;
    lane->group->promised--;
    if (!given)
        lane->worker->given--;
}

/* 1 if it had not taken it: the connection is in our hand again. */
bool rc_dispatch_withdraw(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_taker *taker = &lane->taker;
    struct rc_hand hand;
    bool had = taker->offered;
    if (taker->pair.fd < 0) {
        rc_dispatch_settle(lane, false);
        return had;
    }
    had = false;
    while (rc_pass_receive(taker->theirs, &hand) == 0)
        if (hand.fd >= 0) { /* else it was a nudge */
            had = true;
            lane->worker->given--;
            rc_dispatch_return(engine, lane->group, &hand);
        }
    taker->offered = false;
    return had;
}

/* Its bell, if it has one, does not ring any more; who else came to the lane is in our
 * hand. */
void rc_dispatch_silence(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_hand stranger;
    while ((lane->taker.bell.fd >= 0 || lane->taker.pair.fd >= 0) &&
           rc_bell_silence(&lane->taker.bell, lane->source.fd, &stranger) > 0)
        rc_dispatch_return(engine, lane->group, &stranger);
}

/* This lane's worker gets the next connection, promised or not: 0, or -EAGAIN. */
int rc_dispatch_take(struct rc_engine *engine, struct rc_lane *lane, struct rc_hand *out)
{
    bool promised = lane->taker.offered;
    int error = rc_dispatch_accept(engine, lane->group, out);
    if (promised)
        rc_dispatch_settle(lane, !error);
    else if (!error)
        lane->worker->given++;
    if (!error)
        rc_dispatch_given(engine, lane, out);
    return error ? -EAGAIN : 0;
}
