/* takers.c - how the worker of each lane is told of its connections, in dispatch.
 *
 * Owns: making and dropping a taker when a worker listens, is not live any more, or
 * ends. Does not own whose turn it is (dispatch.c).
 *
 * Invariant: what a worker was given and has not taken is taken back before its taker
 * goes.
 */
#include "internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static uint64_t least_given(const struct rc_engine *engine)
{
    uint64_t least = UINT64_MAX;
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->takes && !worker->dead && worker->given < least)
            least = worker->given;
    return least == UINT64_MAX ? 0 : least;
}

/* After the caller has said who is live. Where nobody is (a shutdown), those that
 * were last serve what waits. */
void rc_dispatch_resteer(struct rc_engine *engine, bool any_live)
{
    if (!engine->dispatch.on || !any_live)
        return;
    uint64_t start = least_given(engine);
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        if (worker->live && !worker->takes && worker->given < start)
            worker->given = start; /* no burst for the new one */
        worker->takes = worker->live;
    }
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (!lane->worker || lane->worker->takes)
                continue;
            (void)rc_dispatch_withdraw(engine, lane);
            rc_dispatch_silence(engine, lane);
        }
        rc_dispatch_run(engine, group);
    }
}

static void drop_pair(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->taker.pair.fd < 0)
        return;
    (void)rc_dispatch_withdraw(engine, lane);
    rc_source_shut(engine->epoll, &lane->taker.pair);
    (void)rc_source_arm(engine->epoll, &lane->source, 0);
    rc_close(&lane->taker.theirs);
    lane->taker.late = false;
}

static void drop_bell(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->taker.bell.fd < 0)
        return;
    (void)rc_dispatch_withdraw(engine, lane);
    rc_dispatch_silence(engine, lane);
    rc_accept_forget(lane);
    rc_close(&lane->taker.bell.fd);
    lane->taker.bell = (struct rc_bell){.fd = -1};
    lane->taker.late = false;
}

static int make_pair(struct rc_engine *engine, struct rc_lane *lane)
{
    int ours = -1, theirs = -1;
    int error = rc_pass_pair(&lane->group->key.address, &ours, &theirs);
    if (!error)
        error = rc_source_add(engine->epoll, &lane->taker.pair, RC_SOURCE_PAIR, ours, 0);
    if (error) {
        rc_close(&ours);
        rc_close(&theirs);
        return error;
    }
    drop_bell(engine, lane);
    lane->taker.theirs = theirs;
    lane->taker.inode = rc_socket_inode(theirs);
    rc_lane_calm(lane);
    (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN | EPOLLET);
    return 0;
}

static int make_bell(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_bell bell = {.fd = -1};
    int error = rc_bell_new(&lane->group->key, &bell);
    if (error)
        return error;
    drop_pair(engine, lane);
    lane->taker.bell = bell;
    return rc_group_steer(lane->group); /* the program learns its port */
}

/* Nobody accepts from the lane of a pair. What comes to it nevertheless, for it
 * was there before the group had a front, is as good as what comes to that. */
void rc_dispatch_strays(struct rc_engine *engine, struct rc_lane *lane)
{
    rc_dispatch_silence(engine, lane);
    rc_dispatch_run(engine, lane->group);
}

/* A worker listens on this lane (again). Makes the group's front, and the way in
 * which this worker is told. */
int rc_dispatch_join(struct rc_engine *engine, struct rc_lane *lane, bool passes)
{
    struct rc_group *group = lane->group;
    int error = 0;
    if (!engine->dispatch.on)
        return 0;
    if (!group->front) {
        error = rc_front_new(engine, group, lane->source.fd, lane->backlog);
        if (!error && engine->dispatch.opens.source.fd >= 0)
            error = rc_opens_filter(engine);
        if (error == -EXDEV) /* another network namespace, where we cannot listen */
            return 0;
    } else if (lane->backlog > group->front->backlog) {
        if (listen(group->front->source.fd, (int)lane->backlog) == 0)
            group->front->backlog = lane->backlog;
    }
    if (!error && passes && lane->taker.pair.fd < 0)
        error = make_pair(engine, lane);
    else if (!error && !passes && lane->taker.bell.fd < 0)
        error = make_bell(engine, lane);
    if (!error)
        rc_dispatch_run(engine, group); /* what waited because nobody could be told */
    return error;
}

/* Does our part in the worker ask, who can receive what is passed? */
bool rc_dispatch_passes(int *backlog)
{
    if (*backlog >> 16 != RC_LISTEN_PASSES)
        return false;
    *backlog &= RC_LISTEN_BACKLOG;
    return true;
}

/* A successor gets connections at once if the dead (or deaf) one did, but nothing that
 * it has missed, nor what it was promised. */
void rc_dispatch_inherit(struct rc_engine *engine, struct rc_lane *lane, struct rc_worker *to)
{
    uint64_t start = least_given(engine);
    (void)rc_dispatch_withdraw(engine, lane);
    to->takes |= lane->worker->takes;
    if (to->given < start)
        to->given = start;
}

/* The descriptor that the worker is to have in place of its socket, or -1. */
int rc_dispatch_descriptor(const struct rc_lane *lane)
{
    return lane->taker.pair.fd >= 0 ? lane->taker.theirs : -1;
}

void rc_dispatch_leave(struct rc_engine *engine, struct rc_lane *lane)
{
    drop_pair(engine, lane);
    drop_bell(engine, lane);
}

void rc_dispatch_worker_ended(struct rc_engine *engine, struct rc_worker *worker)
{
    if (!engine->dispatch.on)
        return;
    rc_opens_forget(engine, worker);
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->worker == worker) {
                (void)rc_dispatch_withdraw(engine, group->lanes[at]);
                rc_dispatch_silence(engine, group->lanes[at]);
                rc_accept_forget(group->lanes[at]);
                group->lanes[at]->taker.late = false;
                group->lanes[at]->taker.acceptor = 0;
                group->lanes[at]->taker.awake = group->lanes[at]->taker.loops = false;
            }
        rc_dispatch_run(engine, group);
    }
}

/* What waits for this worker beside its lane's own queue. What waits in the front
 * is anybody's, but where nobody is live it is for those that were last. */
unsigned rc_dispatch_queued(const struct rc_lane *lane)
{
    const struct rc_group *group = lane->group;
    unsigned waiting = 0;
    if (!group->front)
        return 0;
    if (lane->taker.pair.fd >= 0 && lane->taker.offered && !rc_pass_taken(lane->taker.pair.fd))
        waiting++;
    if (lane->taker.pair.fd < 0 && lane->taker.offered)
        waiting++;
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->chosen)
            return waiting;
    for (const struct rc_hand *hand = group->hand; hand && lane->worker->takes; hand = hand->next)
        waiting++;
    return waiting + (lane->worker->takes ? rc_listener_queued(group->front->source.fd) : 0);
}

const char *rc_balance_how(const rc_engine *engine)
{
    bool pairs = false, bells = false;
    if (!engine->dispatch.on)
        return "";
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            pairs |= group->lanes[at]->taker.pair.fd >= 0;
            bells |= group->lanes[at]->taker.bell.fd >= 0;
        }
    if (pairs && bells)
        return "dispatch (SCM_RIGHTS; trapped accept)";
    return pairs ? "dispatch (SCM_RIGHTS)" : bells ? "dispatch (trapped accept)" : "dispatch";
}

/* Before the first worker: what is trapped of it is decided at its birth. */
int rc_balance_dispatch(rc_engine *engine)
{
    if (engine->groups || engine->workers)
        return -EBUSY;
    return rc_dispatch_open(engine, engine->policy == RC_BALANCE_LEAST_CONNECTIONS);
}
