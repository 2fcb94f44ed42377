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

static void announce(struct rc_engine *engine, struct rc_worker *worker, const struct rc_key *key,
                     struct rc_lane *lane)
{
    bool needed = rc_proof_needed(engine, lane, worker);
    rc_emit_key(engine, RC_EVENT_LISTENING, worker->id, 1 + needed, key);
    if (needed)
        rc_proof_ask(engine, lane, worker);
}

/* The kernel calls listen(2) on our dup. The first lane of a group listens with
 * SO_REUSEPORT off, so that the kernel's own EADDRINUSE tells of a foreign owner or a
 * second cluster, but with the group's program attached before: setsockopt makes the
 * reuseport structure while the socket is unhashed, and so the second lane is under
 * the program from its first packet on. SO_REUSEADDR lets it pass by siblings that are
 * bound and by connections of before. */
static int listen_alone(int fd, unsigned backlog, const struct rc_choice *only)
{
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_steering_attach(fd, RC_BALANCE_AUTO, only, 1, NULL);
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 0);
    if (error)
        return error;
    if (listen(fd, (int)backlog) < 0)
        error = -errno;
    int shared = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    return error ? error : shared;
}

static int listen_next(int fd, unsigned backlog)
{
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    return !error && listen(fd, (int)backlog) < 0 ? -errno : error;
}

/* A program that sets SO_REUSEPORT alone can start at once where connections of before,
 * in TIME_WAIT, have it alone too: they are in the way of who listens without it. (A
 * socket that has a program already cannot join them: inet_csk_bind_conflict.) */
static int listen_first(struct rc_engine *engine, int fd, unsigned backlog,
                        const struct rc_worker *worker, const struct rc_pending *pending)
{
    struct rc_choice only = {.worker = worker->id};
    (void)rc_pending_share(engine, worker, &pending->key);
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (error)
        return error;
    if (!pending->reuse_port || rc_place_taken(engine, &pending->key))
        return listen_alone(fd, backlog, &only);
    error = listen_next(fd, backlog);
    return error ? error : rc_steering_attach(fd, RC_BALANCE_AUTO, &only, 1, NULL);
}

/* The port that the kernel gave to a bind of port 0 can be exchanged: a socket that
 * was shut down while it listened has lost it, and nothing else. */
static int move_to(int fd, const struct sockaddr_in6 *address)
{
    struct sockaddr_in6 own;
    int error = rc_socket_name(fd, &own);
    if (error || own.sin6_port == address->sin6_port)
        return error;
    if (listen(fd, 0) < 0 || shutdown(fd, SHUT_RDWR) < 0)
        return -errno;
    error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!error && bind(fd, (const struct sockaddr *)address, rc_address_length(address)) < 0)
        error = -errno;
    if (error) /* as before, if that is to be had */
        (void)bind(fd, (const struct sockaddr *)&own, rc_address_length(&own));
    return error;
}

/* zero: what was asked for, if that was port 0 and nobody has listened there yet. */
static int lane_new(struct rc_engine *engine, const struct rc_call *call,
                    const struct rc_pending *pending, const struct rc_key *zero, int zero_index)
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
    rc_order_expect(engine, group, engine->dispatch.on || rc_lane_level(lane) == RC_LEVEL_LIVE);
    error = rc_group_append(engine, group, lane);
    if (error)
        goto fail;
    if (pending->port)
        error = move_to(fd, &pending->key.address);
    if (!error)
        error = group->count == 1 ? listen_first(engine, fd, lane->backlog, call->worker, pending)
                                  : listen_next(fd, lane->backlog);
    if (error) {
        rc_group_retract(engine, group, lane);
        if (rc_socket_get(fd, SOL_SOCKET, SO_ACCEPTCONN) > 0)
            (void)shutdown(fd, SHUT_RDWR);
        goto fail;
    }
    /* Whoever asks for SO_REUSEPORT does not wait for TIME_WAIT either; the next start
     * may have to listen alone. */
    (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR,
                        pending->reuse_address || pending->reuse_port);
    if (zero && group->count == 1) {
        group->zero = *zero;
        group->zero_index = zero_index;
    }
    error = rc_source_add(engine->epoll, &lane->source, RC_SOURCE_LANE, fd, 0);
    if (error) { /* out of watches: without HUP we could not keep the order */
        rc_group_retract(engine, group, lane);
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

/* Of UDP one that was stored: of a worker that was ours and is dead it was emptied. */
static unsigned waits_in(const struct rc_lane *lane)
{
    return lane->group->key.type == SOCK_DGRAM ? rc_socket_readable(lane->source.fd)
                                               : rc_lane_queued(lane, NULL);
}

/* Of those that no worker has (yet) the one in which the most wait. */
static struct rc_lane *fullest_unowned(const struct rc_engine *engine, const struct rc_group *group)
{
    struct rc_lane *found = NULL;
    for (unsigned at = 0; engine->unowned && group && at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (lane->worker == engine->unowned && (!found || waits_in(lane) > waits_in(found)))
            found = lane;
    }
    return found;
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
    return fullest_unowned(engine, group);
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
    int error = lane->backlog ? rc_widen(lane->source.fd, &lane->backlog, call->backlog)
                              : 0; /* 0: it is UDP */
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
    if (lane->fresh)
        rc_orders_settle(engine);
    rc_dispatch_inherit(engine, lane, call->worker);
    rc_lane_calm(lane);
    if (lane->party)
        lane->party = call->worker->party ? call->worker->party : lane->party;
    else
        lane->worker = call->worker;
    if (lane->inherited || answer->previous == engine->unowned)
        lane->party = call->worker->party;
    lane->pid = call->pid;
    lane->descriptor = call->number;
    lane->deaf = false;
    rc_lane_arrives(lane);
    lane->by_leader = call->pid == call->worker->pid;
    (void)rc_group_steer(lane->group);
    rc_group_watch(engine, lane->group);
    rc_handout_run(engine, lane->group); /* what it waited for it has now */
    return 0;
}

/* The descriptor could not be put in place: the lane stays with its old owner. */
void rc_lanes_refused(struct rc_answer *answer)
{
    struct rc_lane *lane = answer->adopted;
    if (lane && answer->previous && answer->previous->id == RC_NOBODY) {
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

/* Where it is to listen: where the kernel has bound it, or, of port 0, at its n-th
 * sibling's port. 1, 0 if it is bound to nothing, -errno. */
static int find_place(struct rc_engine *engine, const struct rc_call *call,
                      const struct rc_pending *found, struct rc_pending *out, struct rc_key *zero,
                      int *zero_index)
{
    struct sockaddr_in6 bound;
    const struct rc_group *group;
    *out = *found;
    *zero_index = -1;
    int error = rc_socket_name(call->fd, &bound);
    if (error || bound.sin6_port == 0)
        return error;
    error = rc_key_of(call->fd, engine->network, &bound, &out->key);
    if (error)
        return error;
    if (found->zero) {
        *zero = out->key;
        zero->address.sin6_port = 0;
        *zero_index = rc_zero_index(engine, call->worker, found, zero);
        group = rc_zero_group(engine, zero, *zero_index);
        out->port = group ? group->key.address.sin6_port : 0;
    }
    if (out->port)
        out->key.address.sin6_port = out->port;
    return 1;
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
    struct rc_key key, zero;
    struct sockaddr_in6 address;
    int zero_index;

    *answer = (struct rc_answer){.replace = -1};
    if (rc_unix_listen(engine, call, answer))
        return;
    if (lane) { /* a second call, or a process that shares the socket */
        answer->result = rc_widen(lane->source.fd, &lane->backlog, call->backlog);
        if (!answer->result)
            answer->result = join(engine, call, lane, passes, answer);
        return;
    }
    int placed = found ? find_place(engine, call, found, &pending, &zero, &zero_index) : 0;
    if (placed < 0) {
        answer->result = placed;
        return;
    }
    if (!placed) {
        /* Bound where we did not look (port 0 without SO_REUSEADDR), or not TCP:
         * the worker's own business; worth knowing that it listens. */
        answer->pass = true;
        if (rc_socket_get(call->fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
            rc_socket_get(call->fd, SOL_SOCKET, SO_ACCEPTCONN) == 0 &&
            rc_socket_name(call->fd, &address) == 0 &&
            rc_key_of(call->fd, engine->network, &address, &key) == 0) {
            rc_worker_passed(call->worker, inode);
            rc_emit_key(engine, RC_EVENT_LISTENING, call->worker->id, false, &key);
        }
        return;
    }
    if ((given = lane_for(engine, call->worker, &pending.key)) != NULL) {
        answer->result = rc_adopt(engine, call, given, passes, answer);
        if (answer->result)
            return;
        rc_zero_listened(call->worker, &zero, zero_index);
        /* The bind stays known: another process may have the socket too (the
         * workers of hypercorn do) and listen on it next, as a lane of its own. */
        found->port = pending.key.address.sin6_port;
        found->zero = false;
    } else {
        answer->result =
            lane_new(engine, call, &pending, zero_index < 0 ? NULL : &zero, zero_index);
        if (answer->result == 0 && (lane = rc_lane_find(engine, inode)) != NULL)
            answer->result = join(engine, call, lane, passes, answer);
        if (answer->result)
            return;
        rc_pending_delete(call->worker, (unsigned)(found - call->worker->pending));
        rc_zero_listened(call->worker, &zero, zero_index);
    }
    announce(engine, call->worker, &pending.key, given ? given : lane);
}
