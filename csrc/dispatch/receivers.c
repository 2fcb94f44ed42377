/* receivers.c - how the worker of each lane is told of its connections, in dispatch.
 *
 * Owns: making and dropping a pair when a worker listens, is not live any more, or
 * ends. Does not own whose turn it is (dispatch.c).
 *
 * Invariant: what a worker was given and has not taken is taken back before its pair
 * goes.
 */
#include "internal.h"
#include "preload/wire.h"

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
        if (worker->live && !worker->takes)
            rc_counts_forgive(worker, start); /* no burst for the new one */
        worker->takes = worker->live;
        worker->took |= worker->takes;
    }
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (!lane->worker || rc_dispatch_may_take(lane) || rc_proof_pending(lane))
                continue;
            (void)rc_dispatch_withdraw(engine, lane);
            rc_dispatch_take_strays(engine, lane);
        }
        rc_dispatch_run(engine, group);
    }
}

static void drop_pair(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->receiver.pair.fd < 0)
        return;
    (void)rc_dispatch_withdraw(engine, lane);
    rc_source_shut(engine->epoll, &lane->receiver.pair);
    (void)rc_source_arm(engine->epoll, &lane->source, 0);
    rc_close(&lane->receiver.theirs);
    lane->receiver.late = false;
}

static int make_pair(struct rc_engine *engine, struct rc_lane *lane)
{
    int ours = -1, theirs = -1;
    int error = rc_pass_pair(&lane->group->key.address, &ours, &theirs);
    if (!error)
        error = rc_source_add(engine->epoll, &lane->receiver.pair, RC_SOURCE_PAIR, ours, 0);
    if (error) {
        rc_close(&ours);
        rc_close(&theirs);
        return error;
    }
    lane->receiver.theirs = theirs;
    lane->receiver.inode = rc_socket_inode(theirs);
    rc_lane_calm(lane);
    (void)rc_source_arm(engine->epoll, &lane->source, EPOLLIN | EPOLLET);
    return rc_group_steer(lane->group); /* the front stands for it from now on */
}

void rc_dispatch_strays(struct rc_engine *engine, struct rc_lane *lane)
{
    rc_dispatch_take_strays(engine, lane);
    rc_dispatch_run(engine, lane->group);
}

/* One front for each group, as long as the longest backlog. -EXDEV: in that network namespace
 * we cannot listen. */
static int have_front(struct rc_engine *engine, struct rc_group *group, const struct rc_lane *like)
{
    if (!group->front) {
        int error = rc_front_new(engine, group, like->source.fd, like->backlog);
        if (!error && engine->dispatch.opens.source.fd >= 0)
            error = rc_opens_filter(engine);
        return error;
    }
    if (like->backlog > group->front->backlog &&
        listen(group->front->source.fd, (int)like->backlog) == 0)
        group->front->backlog = like->backlog;
    return 0;
}

/* A worker listens on this lane (again), and `passes`: it can be passed connections. */
int rc_dispatch_join(struct rc_engine *engine, struct rc_lane *lane, bool passes)
{
    int error = 0;
    if (!engine->dispatch.on)
        return 0;
    if (!passes && lane->receiver.pair.fd >= 0) {
        drop_pair(engine, lane);
        error = rc_group_steer(lane->group);
    }
    if (passes)
        error = have_front(engine, lane->group, lane);
    if (error == -EXDEV)
        return 0;
    if (!error && passes && lane->receiver.pair.fd < 0)
        error = make_pair(engine, lane);
    if (!error)
        rc_dispatch_run(engine, lane->group); /* what waited because nobody could be told */
    return error;
}

/* Does our part in the worker ask, who can receive what is passed? */
bool rc_dispatch_passes(int *backlog)
{
    if (*backlog >> 16 != RC_PASS_MARK)
        return false;
    *backlog &= RC_PASS_BACKLOG;
    return true;
}

/* A successor gets connections at once if the dead (or deaf) one did, but nothing that
 * it has missed, nor what was offered to that one. */
void rc_dispatch_inherit(struct rc_engine *engine, struct rc_lane *lane, struct rc_worker *to)
{
    uint64_t start = least_given(engine);
    (void)rc_dispatch_withdraw(engine, lane);
    to->takes |= lane->worker->takes;
    to->took |= to->takes;
    rc_counts_forgive(to, start);
}

/* The descriptor that the worker is to have in place of its socket, or -1. */
int rc_dispatch_descriptor(const struct rc_lane *lane)
{
    return lane->receiver.pair.fd >= 0 ? lane->receiver.theirs : -1;
}

void rc_dispatch_leave(struct rc_engine *engine, struct rc_lane *lane)
{
    drop_pair(engine, lane);
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
                rc_dispatch_take_strays(engine, group->lanes[at]);
                rc_proof_end(engine, group->lanes[at]);
                group->lanes[at]->receiver.late = false;
            }
        rc_dispatch_run(engine, group);
    }
}

/* What waits for this worker beside its lane's own queue. What waits in the front
 * is anybody's, but where nobody is live it is for those that were last. */
unsigned rc_dispatch_queued(const struct rc_lane *lane)
{
    const struct rc_group *group = lane->group;
    if (!group->front || lane->receiver.pair.fd < 0)
        return 0;
    unsigned waiting = lane->receiver.offered && !rc_pass_taken(lane->receiver.pair.fd);
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->chosen && group->lanes[at]->receiver.pair.fd >= 0)
            return waiting;
    if (!rc_dispatch_may_take(lane))
        return waiting;
    for (const struct rc_accepted *accepted = group->undelivered; accepted;
         accepted = accepted->next)
        waiting++;
    return waiting + rc_listener_queued(group->front->source.fd);
}

const char *rc_balance_how(const rc_engine *engine)
{
    bool pairs = false, others = false;
    if (!engine->dispatch.on)
        return "";
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            pairs |= lane->receiver.pair.fd >= 0;
            others |= lane->worker && lane->receiver.pair.fd < 0 && group->key.type == SOCK_STREAM;
        }
    if (pairs && others)
        return "dispatch (SCM_RIGHTS) and reuseport";
    return pairs ? "dispatch (SCM_RIGHTS)" : others ? "reuseport" : "dispatch";
}

/* Before the first worker. */
int rc_balance_dispatch(rc_engine *engine)
{
    if (engine->groups || engine->workers)
        return -EBUSY;
    return rc_dispatch_open(engine, engine->policy == RC_BALANCE_LEAST_CONNECTIONS);
}

static void group_goes(struct rc_engine *engine, struct rc_group *group)
{
    (void)engine;
    rc_accepted_free(group);
}

const struct rc_part rc_dispatch_part = {
    .live_changed = rc_dispatch_resteer, .lane_goes = rc_dispatch_leave, .group_goes = group_goes};
