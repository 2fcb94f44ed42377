/* unixdoor.c - what a bind(2) and a listen(2) of an AF_UNIX stream socket become.
 *
 * Owns the decision; unix.c owns groups and lanes, unixname.c the names.
 * Each bind of a worker gets a socket of its own, bound, aside of an address that
 * is another's too; the listen puts the generation's lane in its place.
 */
#include "unix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- bind -------------------------------------------------------------------------- */

static bool is_stream(int fd)
{
    return rc_socket_get(fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX &&
           rc_socket_get(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
}

static socklen_t bound_name(int fd, struct sockaddr_un *out)
{
    socklen_t length = sizeof *out;
    memset(out, 0, sizeof *out);
    if (getsockname(fd, (struct sockaddr *)out, &length) < 0 || length > sizeof *out)
        return 0;
    return length > offsetof(struct sockaddr_un, sun_path)
               ? length - (socklen_t)offsetof(struct sockaddr_un, sun_path)
               : 0;
}

static void bind_in_directory(struct rc_engine *engine, const struct rc_call *call,
                              const char *path, struct rc_answer *answer)
{
    struct rc_unix_name name;
    int directory = rc_unix_find_directory(call->pid, path, &name);
    if (directory < 0 && directory != -EAGAIN)
        return;          /* the kernel will find the same, or it is none of our business */
    if (directory < 0) { /* the child gets to know it first */
        answer->pass = false;
        answer->result = rc_unix_errand_start(engine, call, NULL, path, 0, &answer->later);
        return;
    }
    struct rc_unix_group *group = rc_unix_group_find(engine, &name);
    if (!group && (rc_unix_is_private(call->worker, directory) ||
                   rc_unix_count_own(engine, call->worker) >= RC_UNIX_OWN_MAX)) {
        rc_close(&directory);
        return;
    }
    if (group && group->one_for_all) {
        rc_close(&directory);
        rc_unix_give(engine, call, group, answer);
        return;
    }
    answer->pass = false;
    if (group)
        rc_close(&directory);
    else if (!(group = rc_unix_group_new(engine, &name, path, directory)))
        rc_close(&directory);
    answer->result = -ENOMEM;
    if (!group)
        return;
    bool aside = rc_unix_asked_by_others(engine, group, call->worker);
    group->shared |= aside;
    answer->result = rc_unix_errand_start(engine, call, group, path, aside ? ++group->aliases : 0,
                                          &answer->later);
}

/* O_NONBLOCK belongs to the description: while another accepts from it, it stays
 * as it is. Cleared under an event loop, that would hang in accept(2). */
static void give_mode(const struct rc_call *call, const struct rc_unix_lane *lane)
{
    int flags = fcntl(call->fd, F_GETFL);
    for (unsigned at = 0; at < lane->count; at++)
        if (!lane->members[at]->dead && lane->members[at] != call->worker)
            return;
    if (flags >= 0)
        (void)fcntl(lane->fd, F_SETFL, flags);
}

/* The name is the socket's until its last holder closes it, and cannot be bound
 * a second time: the one socket is handed to whoever asks. */
void rc_unix_give(struct rc_engine *engine, const struct rc_call *call, struct rc_unix_group *group,
                  struct rc_answer *answer)
{
    int given = group->lanes ? group->lanes->fd : group->held;
    struct rc_unix_bound *bound = calloc(1, sizeof *bound);
    answer->pass = false;
    answer->result = bound ? 0 : -ENOMEM;
    if (group->lanes)
        give_mode(call, group->lanes);
    /* A program may see that it listens already, and not do so itself. */
    if (bound && group->lanes && !rc_unix_is_member(group->lanes, call->worker)) {
        answer->result = rc_unix_join(group->lanes, call->worker);
        if (!answer->result)
            rc_emit_place(engine, RC_EVENT_LISTENING, call->worker->id, true, group->text);
    }
    if (answer->result) {
        free(bound);
        return;
    }
    group->shared = true;
    answer->replace = given;
    bound->inode = rc_socket_inode(given);
    rc_unix_bound_add(group, call->worker, bound);
}

static void bind_abstract(struct rc_engine *engine, const struct rc_call *call,
                          const struct sockaddr_un *address, size_t length,
                          struct rc_answer *answer)
{
    struct rc_unix_name name = {.length = length - 1};
    memcpy(name.base, address->sun_path + 1, length - 1);
    struct rc_unix_group *group = rc_unix_group_find(engine, &name);
    if (!group && rc_unix_count_own(engine, call->worker) >= RC_UNIX_OWN_MAX)
        return;
    if (group && (group->lanes || group->held >= 0)) {
        rc_unix_give(engine, call, group, answer);
        return;
    }
    struct rc_unix_bound *bound = calloc(1, sizeof *bound);
    answer->pass = false;
    answer->result = -ENOMEM;
    if (!bound)
        return;
    int held = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    answer->result = held < 0 ? -errno : 0;
    if (!answer->result && bind(held, (const struct sockaddr *)address,
                                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        answer->result = -errno;
    if (!answer->result && !group && !(group = rc_unix_group_new(engine, &name, "", -1)))
        answer->result = -ENOMEM;
    if (answer->result) {
        rc_close(&held);
        free(bound);
        return;
    }
    rc_close(&group->held);
    group->held = held;
    bound->inode = rc_socket_inode(held);
    rc_unix_bound_add(group, call->worker, bound);
}

void rc_unix_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    struct sockaddr_un now;
    struct rc_unix_group *group;
    size_t before = offsetof(struct sockaddr_un, sun_path);
    if (!is_stream(call->fd) || call->path_length <= before ||
        call->path_length > sizeof call->path)
        return; /* without a name the kernel makes one up */
    size_t length = call->path_length - before, had = bound_name(call->fd, &now);
    answer->later = rc_unix_errand_of(engine, rc_socket_inode(call->fd));
    if (answer->later) { /* a signal took it away from there, and it comes again */
        answer->pass = false;
        return;
    }
    if (had) {
        /* One that was answered before a signal took the answer away. */
        answer->pass = !rc_unix_bound_find(engine, call->worker, rc_socket_inode(call->fd), &group);
        return;
    }
    if (call->path.sun_path[0] == '\0') {
        bind_abstract(engine, call, &call->path, length, answer);
        return;
    }
    char path[sizeof call->path.sun_path + 1] = "";
    memcpy(path, call->path.sun_path, strnlen(call->path.sun_path, length));
    bind_in_directory(engine, call, path, answer);
}

/* ---- listen ------------------------------------------------------------------------- */

/* Seen first at listen: bound with an address of 12 bytes (see notify.c), or
 * before we looked. */
static struct rc_unix_bound *bound_late(struct rc_engine *engine, const struct rc_call *call,
                                        struct rc_unix_group **of)
{
    struct sockaddr_un name;
    struct rc_unix_name key;
    struct rc_unix_node there;
    socklen_t length = bound_name(call->fd, &name);
    char path[sizeof name.sun_path + 1] = "";
    if (!length || name.sun_path[0] == '\0' ||
        rc_socket_get(call->fd, SOL_SOCKET, SO_ACCEPTCONN) != 0)
        return NULL;
    memcpy(path, name.sun_path, strnlen(name.sun_path, length));
    int directory = rc_unix_find_directory(call->pid, path, &key);
    if (directory < 0)
        return NULL;
    struct rc_unix_group *group = rc_unix_group_find(engine, &key);
    struct rc_unix_bound *bound = NULL;
    if (group || (!rc_unix_is_private(call->worker, directory) &&
                  rc_unix_count_own(engine, call->worker) < RC_UNIX_OWN_MAX))
        bound = calloc(1, sizeof *bound);
    if (bound && !group)
        group = rc_unix_group_new(engine, &key, path, directory);
    if (!bound || !group || group->directory != directory)
        rc_close(&directory);
    if (!bound || !group) {
        free(bound);
        return NULL;
    }
    bound->inode = rc_socket_inode(call->fd);
    bound->at_address = true;
    if (rc_unix_node_at(group, 0, &there))
        bound->node = there;
    rc_unix_bound_add(group, call->worker, bound);
    group->shared |= rc_unix_asked_by_others(engine, group, call->worker);
    *of = group;
    return bound;
}

/* One whose last name is gone is never found again. */
static bool can_be_found(const struct rc_unix_group *group, const struct rc_unix_lane *lane)
{
    struct rc_unix_node there;
    return (rc_unix_node_at(group, lane->alias, &there) &&
            rc_unix_same_node(&there, &lane->node)) ||
           (rc_unix_node_at(group, 0, &there) && rc_unix_same_node(&there, &lane->node));
}

/* The lane that the worker accepts from: of a dead one whose heir it is and that
 * nobody has any more, or its generation's. */
static struct rc_unix_lane *lane_for(struct rc_engine *engine, const struct rc_unix_group *group,
                                     const struct rc_worker *worker)
{
    for (struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
        for (struct rc_worker *dead = rc_find(engine, worker->heir_of);
             dead && dead->dead && !rc_unix_has_living(lane); dead = rc_find(engine, dead->heir_of))
            if (rc_unix_is_member(lane, dead))
                return lane;
    for (struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
        if (group->one_for_all ||
            (lane->generation == worker->generation && can_be_found(group, lane)))
            return lane;
    for (struct rc_unix_lane *lane = group->lanes; lane; lane = lane->next)
        if (lane->generation == RC_NO_GENERATION) { /* it was there before the first worker */
            lane->generation = worker->generation;
            rc_unix_part(lane, engine->nobody);
            return lane;
        }
    return NULL;
}

static int lane_widen(struct rc_unix_lane *lane, int asked)
{
    unsigned backlog = rc_backlog_for(asked);
    if (backlog <= lane->backlog)
        return 0;
    if (listen(lane->fd, (int)backlog) < 0)
        return -errno;
    lane->backlog = backlog;
    return 0;
}

static int lane_new(struct rc_engine *engine, const struct rc_call *call,
                    struct rc_unix_group *group, struct rc_unix_bound *bound)
{
    struct rc_unix_lane *lane = calloc(1, sizeof *lane);
    int error = -ENOMEM, fd = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        error = -errno;
    if (!lane || fd < 0)
        goto fail;
    lane->fd = fd;
    lane->watch = -1;
    lane->inode = bound->inode;
    lane->generation = call->worker->generation;
    lane->node = bound->node;
    error = rc_unix_join(lane, call->worker);
    if (!error)
        error = lane_widen(lane, call->backlog);
    if (error)
        goto fail;
    lane->alias = bound->alias;
    bound->alias = 0;
    lane->next = group->lanes;
    group->lanes = lane;
    rc_close(&group->held);
    if (bound->at_address)
        group->placed = lane; /* if it still is; unixplace.c looks */
    rc_unix_watch(engine, group, lane);
    return 0;
fail:
    rc_close(&fd);
    if (lane)
        free(lane->members);
    free(lane);
    return error;
}

static int lane_give(const struct rc_call *call, struct rc_unix_lane *lane,
                     struct rc_answer *answer)
{
    int error = lane_widen(lane, call->backlog);
    bool new = !rc_unix_is_member(lane, call->worker);
    give_mode(call, lane);
    if (!error)
        error = rc_unix_join(lane, call->worker);
    if (error)
        return error;
    answer->replace = lane->fd;
    answer->joined = new ? lane : NULL;
    answer->joiner = call->worker;
    return 0;
}

/* The descriptor could not be put in place. */
void rc_unix_refused(const struct rc_answer *answer)
{
    if (answer->joined)
        rc_unix_part(answer->joined, answer->joiner);
}

/* True if it is an AF_UNIX stream socket, or one for all, and so answered here. */
bool rc_unix_listen(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    struct rc_unix_group *group = NULL;
    uint64_t inode = rc_socket_inode(call->fd);
    struct rc_unix_lane *lane = rc_unix_lane_find(engine, inode, &group);
    if (!lane && !is_stream(call->fd))
        return false;
    answer->pass = false;
    if (lane) { /* again, or by a process that shares the socket */
        bool new = !rc_unix_is_member(lane, call->worker);
        answer->result = lane_widen(lane, call->backlog);
        if (!answer->result)
            answer->result = rc_unix_join(lane, call->worker);
        if (!answer->result && new)
            rc_emit_place(engine, RC_EVENT_LISTENING, call->worker->id, true, group->text);
        return true;
    }
    struct rc_unix_bound *bound = rc_unix_bound_find(engine, call->worker, inode, &group);
    if (!bound)
        bound = bound_late(engine, call, &group);
    if (!bound) { /* the worker's own business */
        answer->pass = true;
        return true;
    }
    lane = lane_for(engine, group, call->worker);
    if (lane)
        answer->result = lane_give(call, lane, answer);
    else
        answer->result = lane_new(engine, call, group, bound);
    if (answer->result)
        return true;
    /* The bind stays known, as in listen.c: another process may have the socket. */
    if (bound->alias) {
        rc_unix_unname(group, bound->alias);
        bound->alias = 0;
        bound->node = (struct rc_unix_node){0}; /* the number may become a stranger's */
    }
    /* Now: the next one may unlink the name before it binds. */
    (void)rc_unix_share(engine, group);
    (void)rc_unix_place(engine, group);
    rc_emit_place(engine, RC_EVENT_LISTENING, call->worker->id, true, group->text);
    return true;
}
