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
#include "unix.h"

#include <errno.h>
#include <fcntl.h>
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

/* One socket for all, in the manner of the abstract namespace (unixdoor.c). */
static void shared_name(const struct rc_key *key, struct rc_unix_name *name)
{
    *name = (struct rc_unix_name){.directory = (ino_t)key->type, .length = sizeof key->address};
    memcpy(name->base, &key->address, sizeof key->address);
}

static int keep(struct rc_engine *engine, const struct rc_unix_name *name, const char *given,
                const char *text, int fd, int directory, bool shared)
{
    struct rc_unix_lane *lane = calloc(1, sizeof *lane);
    struct rc_unix_group *group = lane ? rc_unix_group_new(engine, name, given, directory) : NULL;
    if (!group) {
        free(lane);
        return -ENOMEM;
    }
    lane->fd = fd;
    lane->watch = -1;
    lane->inode = rc_socket_inode(fd);
    lane->generation = RC_NO_GENERATION;
    int error = rc_unix_join(lane, engine->nobody);
    if (error) {
        free(lane);
        group->directory = -1; /* the caller's */
        rc_unix_group_tidy(engine, group);
        return error;
    }
    if (text)
        strncpy(group->text, text, sizeof group->text - 1);
    group->lanes = group->placed = lane;
    group->one_for_all = shared;
    if (directory >= 0 && rc_unix_node_at(group, 0, &lane->node) && !shared)
        (void)rc_unix_share(engine, group);
    return 0;
}

static int keep_internet(struct rc_engine *engine, const struct rc_key *key, int fd)
{
    struct rc_unix_name name;
    char text[128];
    shared_name(key, &name);
    rc_key_text(key, text, sizeof text);
    return keep(engine, &name, "", text, fd, -1, true);
}

/* A path of the master's is replaced at a cutover as any other is; one that came
 * from outside is not ours to replace. */
static int keep_unix(struct rc_engine *engine, int fd, bool ours)
{
    struct sockaddr_un bound;
    struct rc_unix_name name;
    char path[sizeof bound.sun_path + 1] = "";
    socklen_t length = sizeof bound;
    memset(&bound, 0, sizeof bound);
    if (getsockname(fd, (struct sockaddr *)&bound, &length) < 0)
        return -errno;
    if (length <= offsetof(struct sockaddr_un, sun_path) || length > sizeof bound)
        return -EINVAL;
    length -= (socklen_t)offsetof(struct sockaddr_un, sun_path);
    if (!bound.sun_path[0]) {
        name = (struct rc_unix_name){.length = length - 1};
        memcpy(name.base, bound.sun_path + 1, length - 1);
        return keep(engine, &name, "", NULL, fd, -1, true);
    }
    memcpy(path, bound.sun_path, strnlen(bound.sun_path, length));
    int directory = rc_unix_find_directory(getpid(), path, &name);
    int error = directory < 0 ? directory : keep(engine, &name, path, NULL, fd, directory, !ours);
    if (error)
        rc_close(&directory);
    engine->expects_paths = true;
    return error;
}

static int keep_lane(struct rc_engine *engine, const struct rc_key *key, int fd, bool ours)
{
    if (rc_group_find(engine, key))
        return -EEXIST;
    struct rc_group *group = rc_group_new(engine, key);
    struct rc_lane *lane = calloc(1, sizeof *lane);
    int error = group && lane ? rc_group_append(group, lane) : -ENOMEM;
    if (group && !ours) {
        /* A program stays on a socket that outlives us. A classic one then answers
         * with an index that there is not, which is as none; eBPF with a refusal. */
        group->kernel = NULL;
        group->flows_stay_ms = 0;
    }
    if (!error) {
        lane->source.fd = -1;
        rc_lane_init(lane);
        lane->worker = engine->nobody;
        lane->inode = rc_socket_inode(fd);
        lane->inherited = true;
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
            (void)epoll_ctl(engine->epoll, EPOLL_CTL_DEL, fd, NULL);
        }
        if (group)
            rc_group_free_if_empty(engine, group);
        free(lane);
    }
    return error;
}

/* Takes the descriptor on success. `ours`: the master has bound it. */
int rc_inherit(rc_engine *engine, int given, int ours)
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
    } else if (!error) {
        error = rc_socket_name(fd, &address);
        if (!error)
            error = rc_key_of(fd, &address, &key);
        if (!error)
            error = may_join(engine, fd, &key) ? keep_lane(engine, &key, fd, ours)
                                               : keep_internet(engine, &key, fd);
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
    if (!engine->nobody || rc_key_of(call->fd, address, &key) < 0)
        return false;
    shared_name(&key, &name);
    struct rc_unix_group *group = rc_unix_group_find(engine, &name);
    if (!group)
        return false;
    rc_unix_give(engine, call, group, answer);
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
