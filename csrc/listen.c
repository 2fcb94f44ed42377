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
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

unsigned rc_backlog_for(int asked)
{
    static const unsigned enough = 1024;
    unsigned most = 4096, wanted = asked < 0 ? UINT32_MAX : (unsigned)asked;
    FILE *file = fopen("/proc/sys/net/core/somaxconn", "re");
    if (file) {
        if (fscanf(file, "%u", &most) != 1)
            most = 4096;
        fclose(file);
    }
    unsigned least = most < enough ? most : enough;
    return wanted > most ? most : wanted < least ? least : wanted;
}

static void announce(struct rc_engine *engine, const struct rc_worker *worker,
                     const struct sockaddr_in6 *address, bool lane)
{
    char text[128];
    rc_address_text(address, text, sizeof text);
    rc_announce(engine, worker, text, lane);
}

/* The kernel calls listen(2) on our dup. The first lane of a group listens with
 * SO_REUSEPORT off (see bind_socket), but with the group's program attached
 * before: setsockopt makes the reuseport structure while the socket is unhashed,
 * and so the second lane is under the program from its first packet on. */
static int listen_first(int fd, unsigned backlog, uint32_t worker)
{
    struct rc_choice only = {0, worker};
    int error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_steering_attach(fd, &only, 1, NULL);
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
    lane->source.fd = -1;
    lane->worker = call->worker;
    lane->inode = pending->inode;
    lane->pid = call->pid;
    lane->number = call->number;
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

/* A lane of the same address whose worker died, and to which `worker` is heir. */
struct rc_lane *rc_orphan_for(struct rc_engine *engine, const struct rc_worker *worker,
                              const struct rc_key *key)
{
    struct rc_group *group = rc_group_find(engine, key);
    struct rc_worker *dead = rc_find(engine, worker->heir_of);
    for (; group && dead; dead = rc_find(engine, dead->heir_of))
        for (unsigned at = 0; dead->dead && at < group->count; at++)
            if (group->lanes[at]->worker == dead)
                return group->lanes[at];
    for (unsigned at = 0; group && at < group->count; at++)
        if (group->lanes[at]->worker && group->lanes[at]->worker->id == RC_NOBODY)
            return group->lanes[at];
    return NULL;
}

/* The orphan, queue and all, takes the place of the successor's own socket. At
 * listen and not at bind: granian's parent binds a socket that never listens,
 * gunicorn skips listen on one that already does (SO_ACCEPTCONN). */
int rc_adopt(const struct rc_call *call, struct rc_lane *lane, struct rc_answer *answer)
{
    static const int kept[][2] = {{IPPROTO_TCP, TCP_NODELAY}, {SOL_SOCKET, SO_KEEPALIVE}};
    int flags = fcntl(call->fd, F_GETFL);
    int error = lane->backlog ? lane_widen(lane, call->backlog) : 0; /* 0: it is UDP */
    if (error)
        return error;
    if (lane->inherited) /* one that the program did not make */
        for (size_t at = 0; at < sizeof kept / sizeof kept[0]; at++) {
            int value = rc_socket_get(call->fd, kept[at][0], kept[at][1]);
            if (value > 0)
                (void)rc_socket_set(lane->source.fd, kept[at][0], kept[at][1], value);
        }
    if (flags >= 0) /* O_NONBLOCK as the new program wants it */
        (void)fcntl(lane->source.fd, F_SETFL, flags);
    answer->adopted = lane;
    answer->previous = lane->worker;
    answer->replace = lane->source.fd;
    lane->worker = call->worker;
    lane->pid = call->pid;
    lane->number = call->number;
    (void)rc_group_steer(lane->group);
    return 0;
}

/* The descriptor could not be put in place: the lane stays with its old owner. */
void rc_lanes_refused(struct rc_answer *answer)
{
    if (answer->adopted)
        answer->adopted->worker = answer->previous;
    answer->adopted = NULL;
    rc_unix_refused(answer);
    answer->joined = NULL;
}

void rc_lanes_listen(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    uint64_t inode = rc_socket_inode(call->fd);
    struct rc_lane *lane = rc_lane_find(engine, inode), *orphan;
    struct rc_pending *found = rc_pending_find(call->worker, inode);
    struct rc_pending pending;

    *answer = (struct rc_answer){.replace = -1};
    if (rc_unix_listen(engine, call, answer))
        return;
    if (lane) { /* a second call, or a process that shares the socket */
        answer->result = lane_widen(lane, call->backlog);
        return;
    }
    if (found && (orphan = rc_orphan_for(engine, call->worker, &found->key)) != NULL) {
        answer->result = rc_adopt(call, orphan, answer);
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
    if (answer->result == 0) {
        rc_pending_delete(call->worker, (unsigned)(found - call->worker->pending));
        rc_zero_listened(call->worker, &pending);
        announce(engine, call->worker, &pending.key.address, true);
    }
}
