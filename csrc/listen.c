/* listen.c - what a listen(2) of a worker becomes: a lane.
 *
 * Owns the decision: a new lane, one already known, or the lane of a dead
 * predecessor put in place of the caller's socket. The kernel is asked through
 * our duplicate, so the order of listens is ours: it is the order in the group.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

static void announce(struct rc_engine *engine, const struct rc_worker *worker,
                     const struct sockaddr_in6 *address, bool lane)
{
    struct rc_key key = {.address = *address};
    rc_emit_key(engine, RC_EVENT_LISTENING, worker->id, lane, &key);
}

/* The kernel calls listen(2) on our dup. The first lane of a group listens with
 * SO_REUSEPORT off (see bind_socket), but with the group's program attached
 * before: setsockopt makes the reuseport structure while the socket is unhashed,
 * and so the second lane is under the program from its first packet on. */
static int listen_first(int fd, unsigned backlog, uint32_t worker)
{
    struct rc_choice only = {.worker = worker};
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_steering_attach(fd, RC_BALANCE_AUTO, &only, 1, NULL);
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 0);
    if (error)
        return error;
    if (listen(fd, (int)backlog) < 0)
        return -errno;
    return rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

static int lane_new(struct rc_engine *engine, const struct rc_call *call,
                    const struct rc_pending *pending)
{
    struct rc_group *group = rc_group_find(engine, &pending->key);
    struct rc_lane *lane = calloc(1, sizeof *lane);
    int error = -ENOMEM, fd = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        error = -errno;
    if (!group)
        group = rc_group_new(engine, &pending->key);
    if (!lane || !group || fd < 0)
        goto fail;
    rc_lane_init(lane);
    lane->worker = call->worker;
    lane->party = call->worker->party;
    lane->by_leader = call->pid == call->worker->pid;
    lane->inode = pending->inode;
    lane->pid = call->pid;
    lane->descriptor = call->number;
    lane->backlog = rc_backlog_for(call->backlog);
    error = rc_group_append(group, lane);
    if (error)
        goto fail;
    error = group->count == 1                    ? listen_first(fd, lane->backlog, call->worker->id)
            : listen(fd, (int)lane->backlog) < 0 ? -errno
                                                 : 0;
    if (error) { /* as after bind, for another try */
        (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        group->count--;
        goto fail;
    }
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, pending->reuse_address);
    if (pending->zero_index >= 0) {
        group->zero = pending->zero;
        group->zero_index = pending->zero_index;
    }
    error = rc_source_add(engine->epoll, &lane->source, RC_SOURCE_LANE, fd, 0);
    if (error) { /* out of watches: without HUP we could not keep the order */
        group->count--;
        (void)shutdown(fd, SHUT_RDWR);
        goto fail;
    }
    if (group->count == 1)
        rc_group_add_sink(engine, group);
    (void)rc_group_steer(group);
    rc_group_watch(engine, group);
    return 0;
fail:
    if (group)
        rc_group_free_if_empty(engine, group);
    rc_close(&fd);
    free(lane);
    return error;
}

/* The backlog is the description's, and may only grow: any listen(2) sets it. */
static int lane_widen(struct rc_lane *lane, int asked)
{
    unsigned backlog = rc_backlog_for(asked);
    if (backlog <= lane->backlog)
        return 0;
    if (listen(lane->source.fd, (int)backlog) < 0)
        return -errno;
    lane->backlog = backlog;
    return 0;
}

/* In dispatch: how the lane's worker will be told, which may change what it has in
 * place of its socket. */
static int join(struct rc_engine *engine, const struct rc_call *call, struct rc_lane *lane,
                bool passes, struct rc_answer *answer)
{
    if (!engine->dispatch.on || lane->group->key.type != SOCK_STREAM)
        return 0;
    int flags = fcntl(call->fd, F_GETFL);
    int error = rc_dispatch_join(engine, lane, passes);
    int instead = error ? -1 : rc_dispatch_descriptor(lane);
    if (!error && instead < 0 && rc_socket_inode(call->fd) != lane->inode)
        instead = lane->source.fd; /* it had an end of a pair, and is not called by our part */
    if (instead >= 0 && rc_socket_inode(call->fd) == rc_socket_inode(instead))
        return error;
    if (instead >= 0) {
        answer->replace = instead;
        if (flags >= 0)
            (void)fcntl(instead, F_SETFL, flags);
    }
    return error;
}

/* A lane of the same address that nobody holds, and to which `worker` is heir:
 * its predecessor died or closed it, or it closed it itself (a server that
 * restarts in its process, one of its processes that ended). Else one that no
 * worker has had yet. */
struct rc_lane *rc_orphan_for(struct rc_engine *engine, const struct rc_worker *heir,
                              const struct rc_key *key)
{
    struct rc_group *group = rc_group_find(engine, key);
    for (const struct rc_worker *worker = heir; group && worker;
         worker = rc_find(engine, worker->heir_of))
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (lane->party) { /* of one that goes deaf the others still take */
                if (worker->dead && rc_lane_held_by(lane, worker) && rc_lane_all_dead(lane))
                    return lane;
                continue;
            }
            if (lane->worker != worker)
                continue;
            if (worker->dead || lane->deaf ||
                (worker == heir ? rc_lane_held(lane) == 0 /* not worth telling: it is back */
                                : rc_lane_is_deaf(engine, lane)))
                return lane;
        }
    for (unsigned at = 0; group && at < group->count; at++)
        if (engine->nobody && group->lanes[at]->worker == engine->nobody)
            return group->lanes[at];
    return NULL;
}

/* The lane, queue and all, takes the place of the caller's own socket: an orphan,
 * or the one its party shares. At listen and not at bind: granian's parent binds
 * a socket that never listens, gunicorn skips listen on one that already does
 * (SO_ACCEPTCONN). */
int rc_adopt(struct rc_engine *engine, const struct rc_call *call, struct rc_lane *lane,
             bool passes, struct rc_answer *answer)
{
    static const int kept[][2] = {{IPPROTO_TCP, TCP_NODELAY}, {SOL_SOCKET, SO_KEEPALIVE}};
    int flags = fcntl(call->fd, F_GETFL);
    int error = lane->backlog ? lane_widen(lane, call->backlog) : 0; /* 0: it is UDP */
    bool orphaned = rc_lane_all_dead(lane), held = rc_lane_held_by(lane, call->worker);
    if (!error && lane->party)
        error = rc_lane_join(lane, call->worker);
    if (!error)
        error = join(engine, call, lane, passes, answer);
    if (error)
        return error;
    if (lane->inherited) /* one that the program did not make */
        for (size_t at = 0; at < sizeof kept / sizeof kept[0]; at++) {
            int value = rc_socket_get(call->fd, kept[at][0], kept[at][1]);
            if (value > 0)
                (void)rc_socket_set(lane->source.fd, kept[at][0], kept[at][1], value);
        }
    /* O_NONBLOCK as the new program wants it; but it belongs to the description,
     * and of that no other can be had for the same socket. So while others use
     * the lane it stays as they have set it: they run the same program. */
    if (flags >= 0 && (orphaned || !lane->party))
        (void)fcntl(lane->source.fd, F_SETFL, flags);
    answer->adopted = lane;
    answer->previous = !lane->party ? lane->worker : held ? NULL : call->worker;
    if (answer->replace < 0)
        answer->replace = lane->source.fd;
    rc_dispatch_inherit(engine, lane, call->worker);
    rc_lane_calm(lane);
    if (lane->party)
        lane->party = call->worker->party ? call->worker->party : lane->party;
    else
        lane->worker = call->worker;
    if (lane->inherited)
        lane->party = call->worker->party;
    lane->pid = call->pid;
    lane->descriptor = call->number;
    lane->deaf = false;
    rc_lane_arrives(lane);
    lane->by_leader = call->pid == call->worker->pid;
    (void)rc_group_steer(lane->group);
    rc_group_watch(engine, lane->group);
    return 0;
}

/* The descriptor could not be put in place: the lane stays with its old owner. */
void rc_lanes_refused(struct rc_answer *answer)
{
    struct rc_lane *lane = answer->adopted;
    if (lane && lane->inherited && answer->previous && !answer->previous->pid) {
        lane->worker = answer->previous; /* nobody's again */
        lane->party = 0;
    } else if (lane && lane->party) {
        (void)rc_lane_leave(lane, answer->previous);
    } else if (lane) {
        const struct rc_worker *heir = lane->worker;
        lane->worker = answer->previous;
        lane->arrives_until_ms = 0;
        lane->deaf = !answer->previous->dead && answer->previous != heir;
    }
    answer->adopted = NULL;
    rc_unix_refused(answer);
    answer->joined = NULL;
}

/* What this worker's listen on that address is answered with, or NULL. */
static struct rc_lane *lane_for(struct rc_engine *engine, const struct rc_worker *worker,
                                const struct rc_key *key)
{
    struct rc_group *group = worker->party ? rc_group_find(engine, key) : NULL;
    struct rc_lane *shared = group ? rc_lane_of_party(group, worker->party) : NULL;
    return shared ? shared : rc_orphan_for(engine, worker, key);
}

void rc_lanes_listen(struct rc_engine *engine, const struct rc_call *asked,
                     struct rc_answer *answer)
{
    struct rc_call here = *asked;
    const struct rc_call *call = &here;
    bool passes = rc_dispatch_passes(&here.backlog);
    uint64_t inode = rc_socket_inode(call->fd);
    struct rc_lane *lane = rc_lane_find(engine, inode), *given;
    struct rc_pending *found = rc_pending_find(call->worker, inode);
    struct rc_pending pending;

    *answer = (struct rc_answer){.replace = -1};
    if (rc_unix_listen(engine, call, answer))
        return;
    if (lane) { /* a second call, or a process that shares the socket */
        answer->result = lane_widen(lane, call->backlog);
        if (!answer->result)
            answer->result = join(engine, call, lane, passes, answer);
        return;
    }
    if (found && (given = lane_for(engine, call->worker, &found->key)) != NULL) {
        answer->result = rc_adopt(engine, call, given, passes, answer);
        if (answer->result)
            return;
        rc_zero_listened(call->worker, found);
        announce(engine, call->worker, &found->key.address, true);
        /* The bind stays known: another process may have the socket too (the
         * workers of hypercorn do) and listen on it next, as a lane of its own. */
        found->zero_index = -1;
        return;
    }
    if (!found) {
        /* Bound where we did not look (port 0 without SO_REUSEADDR), or not TCP:
         * the worker's own business; worth knowing that it listens. */
        struct sockaddr_in6 address;
        answer->pass = true;
        if (rc_socket_get(call->fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
            rc_socket_get(call->fd, SOL_SOCKET, SO_ACCEPTCONN) == 0 &&
            rc_socket_name(call->fd, &address) == 0)
            announce(engine, call->worker, &address, false);
        return;
    }
    pending = *found;
    answer->result = lane_new(engine, call, &pending);
    if (answer->result == 0 && (lane = rc_lane_find(engine, inode)) != NULL)
        answer->result = join(engine, call, lane, passes, answer);
    if (answer->result == 0) {
        rc_pending_delete(call->worker, (unsigned)(found - call->worker->pending));
        rc_zero_listened(call->worker, &pending);
        announce(engine, call->worker, &pending.key.address, true);
    }
}
