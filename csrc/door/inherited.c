/* inherited.c - listening sockets that were there before the first worker: of
 * systemd's activation, or bound by the master (--bind).
 *
 * Owns the worker without a process that has them until a real one listens
 * there: to the rest of the engine their lanes are those of a dead predecessor.
 *
 * Invariants:
 *  - somebody else may hold the socket too: it is never shut down, and so never
 *    leaves its group; when its worker goes it is nobody's again;
 *  - where siblings cannot join its reuseport group (may_join), all workers of all
 *    generations accept from the one socket.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

/* Siblings must be of one user. And what was connected while neither option was
 * on is in the way of any other bind, until it is closed (inet_csk_bind_conflict).
 * In dispatch what waits in the socket already would not be handed out. */
static bool may_join(const struct rc_engine *engine, int fd, const struct rc_key *key)
{
    if (engine->dispatch.on && key->type == SOCK_STREAM)
        return false;
    return (key->uid == geteuid() || geteuid() == 0) &&
           (key->type == SOCK_DGRAM || rc_socket_get(fd, SOL_SOCKET, SO_REUSEADDR) > 0 ||
            rc_socket_get(fd, SOL_SOCKET, SO_REUSEPORT) > 0);
}

/* One socket for all, in the manner of AF_UNIX. */
static void shared_name(const struct rc_key *key, struct rc_unix_name *name)
{
    name->bytes[0] = '=';
    name->bytes[1] = (char)key->type;
    memcpy(name->bytes + 2, &key->address, sizeof key->address);
    name->length = 2 + sizeof key->address;
}

/* Takes the descriptor on success. */
static int keep(struct rc_engine *engine, const struct rc_unix_name *name, const char *given,
                size_t length, int fd, struct rc_unix_lane **out)
{
    struct rc_unix_lane *lane = rc_unix_lane_new(engine, name, NULL, given, length, fd);
    if (!lane)
        return -ENOMEM;
    lane->bound = lane->shared = true;
    lane->backlog = 1; /* it is not ours to change */
    int error = rc_unix_join(lane, engine->unowned);
    if (error) {
        lane->fd = -1; /* the caller's */
        rc_unix_lane_free(engine, lane);
    }
    *out = lane;
    return error;
}

static int keep_internet(struct rc_engine *engine, const struct rc_key *key, int fd)
{
    struct rc_unix_name name;
    struct rc_unix_lane *lane;
    shared_name(key, &name);
    int error = keep(engine, &name, "", 0, fd, &lane);
    if (!error)
        rc_key_text(key, lane->text, sizeof lane->text);
    return error;
}

/* A path of the master's goes with it. No worker has run yet: its directory is kept, so
 * that later nothing is followed. */
static void keep_directory(struct rc_unix_lane *lane, const char *path)
{
    char folder[sizeof lane->given + 1];
    struct stat there;
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    lane->directory = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (lane->directory >= 0 &&
        fstatat(lane->directory, slash ? slash + 1 : path, &there, AT_SYMLINK_NOFOLLOW) == 0)
        lane->node = (struct rc_unix_node){there.st_dev, there.st_ino};
}

static int keep_unix(struct rc_engine *engine, int fd, bool ours)
{
    struct sockaddr_un bound;
    struct rc_unix_name name;
    struct rc_unix_lane *lane;
    struct rc_call here = {.pid = getpid(), .fd = fd};
    char path[sizeof bound.sun_path + 1] = "";
    socklen_t length = sizeof bound;
    memset(&bound, 0, sizeof bound);
    if (getsockname(fd, (struct sockaddr *)&bound, &length) < 0)
        return -errno;
    if (length <= offsetof(struct sockaddr_un, sun_path) || length > sizeof bound)
        return -EINVAL;
    length -= (socklen_t)offsetof(struct sockaddr_un, sun_path);
    size_t bytes = bound.sun_path[0] ? strnlen(bound.sun_path, length) : length;
    memcpy(path, bound.sun_path, bytes);
    if (!rc_unix_name_of(&here, AT_FDCWD, path, bytes, &name))
        return -EINVAL;
    int error = keep(engine, &name, path, bytes, fd, &lane);
    if (!error)
        lane->ours = ours;
    if (!error && ours && path[0])
        keep_directory(lane, path);
    engine->expects_paths |= path[0] != '\0';
    return error;
}

static int keep_lane(struct rc_engine *engine, const struct rc_key *key, int fd, bool ours)
{
    if (rc_group_find(engine, key))
        return -EEXIST;
    struct rc_group *group = rc_group_new(engine, key);
    struct rc_lane *lane = calloc(1, sizeof *lane);
    if (lane)
        lane->inode = rc_socket_inode(fd);
    int error = group && lane ? rc_group_append(engine, group, lane) : -ENOMEM;
    if (group && !ours) {
        /* A program stays on a socket that outlives us. A classic one then answers
         * with an index that there is not, which is as none; eBPF with a refusal. */
        group->kernel = NULL;
        group->flows_stay_ms = 0;
    }
    if (!error) {
        lane->source.fd = -1;
        rc_lane_init(lane);
        lane->worker = engine->unowned;
        lane->inherited = true;
        lane->ours = ours;
        lane->backlog = key->type == SOCK_STREAM; /* may only grow */
        error = key->type == SOCK_STREAM
                    ? rc_source_add(engine->epoll, &lane->source, RC_SOURCE_LANE, fd, 0)
                    : 0;
        lane->source.fd = error ? -1 : fd;
    }
    if (!error)
        error = rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error && key->type == SOCK_STREAM)
        rc_group_add_sink(engine, group); /* the first to join: now there is a kernel's group */
    if (error) {
        if (group && group->count) {
            group->count = 0;
            rc_table_remove_lane(&engine->table, lane);
            (void)epoll_ctl(engine->epoll, EPOLL_CTL_DEL, fd, NULL);
        }
        if (group)
            rc_group_free_if_empty(engine, group);
        free(lane);
    }
    return error;
}

/* Takes the descriptor on success. `ours`: the master has bound it. `text`: its address, as
 * events name it. */
int rc_inherit(rc_engine *engine, int given, int ours, char *text, size_t room)
{
    struct sockaddr_in6 address;
    struct rc_key key;
    int type = rc_socket_get(given, SOL_SOCKET, SO_TYPE);
    int domain = rc_socket_get(given, SOL_SOCKET, SO_DOMAIN);
    bool listens = rc_socket_get(given, SOL_SOCKET, SO_ACCEPTCONN) > 0;
    if (type < 0)
        return type;
    if ((type != SOCK_STREAM || !listens) && (type != SOCK_DGRAM || domain == AF_UNIX))
        return -ENOTSUP;
    if (!rc_nobody(engine))
        return -ENOMEM;
    int fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
    int error = fd < 0 ? -errno : 0;
    if (!error && domain == AF_UNIX) {
        error = keep_unix(engine, fd, ours);
        if (!error)
            (void)snprintf(text, room, "%s", engine->unixes->text);
    } else if (!error) {
        error = rc_socket_name(fd, &address);
        if (!error)
            error = rc_key_of(fd, engine->network, &address, &key);
        if (!error)
            error = may_join(engine, fd, &key) ? keep_lane(engine, &key, fd, ours)
                                               : keep_internet(engine, &key, fd);
        if (!error)
            rc_key_text(&key, text, room);
    }
    if (error)
        rc_close(&fd);
    else
        (void)close(given);
    return error;
}

/* A bind of an address whose inherited socket cannot be joined: it is given the
 * one there is. True if so. */
bool rc_inherited_bind(struct rc_engine *engine, const struct rc_call *call,
                       const struct sockaddr_in6 *address, struct rc_answer *answer)
{
    struct rc_unix_name name;
    struct rc_key key;
    if (!engine->unowned || rc_key_of(call->fd, engine->network, address, &key) < 0)
        return false;
    shared_name(&key, &name);
    struct rc_unix_lane *lane = engine->unixes;
    while (lane && !rc_unix_is_said(lane, &name))
        lane = lane->next;
    if (!lane)
        return false;
    rc_unix_give(engine, call, lane, answer);
    return true;
}

/* An inherited socket is of both families or of one, and cannot be changed; the
 * program's own still can. */
void rc_inherited_fit(struct rc_engine *engine, int fd, struct rc_key *key)
{
    struct rc_key other = *key;
    other.v6only = !key->v6only;
    if (key->address.sin6_family != AF_INET6 || rc_group_find(engine, key))
        return;
    struct rc_group *group = rc_group_find(engine, &other);
    if (group && group->lanes[0]->inherited &&
        rc_socket_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, other.v6only) == 0)
        key->v6only = other.v6only;
}
