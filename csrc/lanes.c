/* lanes.c - groups, their lanes, and who may be chosen.
 *
 * Owns: the master's duplicate of every lane, and the order of lanes in the
 * kernel's reuseport group. Does not own the doors a call comes through.
 *
 * Invariants:
 *  - group->lanes[i] is the kernel's socks[i]: appended at listen, and on
 *    removal the last moves into the hole (net/core/sock_reuseport.c);
 *  - a lane leaves the group only when no process can still poll it: shutting
 *    down a polled listener makes every event loop spin and resets its queue;
 *  - no lane is ever wrapped by anything that touches O_NONBLOCK: that flag
 *    belongs to the description which the worker shares.
 */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- steering a group ------------------------------------------------------ */

enum level { NEVER, ORPHAN, LIVE };

static enum level lane_level(const struct rc_lane *lane)
{
    if (!lane->worker->live || lane->removing)
        return NEVER;
    return lane->worker->dead ? ORPHAN : LIVE;
}

static void lane_set_deaf(struct rc_lane *lane, bool deaf)
{
    if (lane->deaf == deaf)
        return;
    if ((deaf ? rc_steering_deafen : rc_steering_hear)(lane->source.fd) == 0)
        lane->deaf = deaf;
}

/* Attaches a program over the chosen lanes below index `limit`. */
static int group_attach(const struct rc_group *group, unsigned limit)
{
    struct rc_choice *choices = calloc(group->count, sizeof *choices);
    unsigned count = 0;
    if (!choices)
        return -ENOMEM;
    for (unsigned at = 0; at < group->count && at < limit; at++)
        if (group->lanes[at]->chosen)
            choices[count++] = (struct rc_choice){at, group->lanes[at]->worker->id};
    /* Nothing to choose: leave the program there is. Lanes are deaf then. */
    int error = count ? rc_steering_attach(group->lanes[0]->source.fd, choices, count) : 0;
    free(choices);
    return error;
}

static void group_choose(struct rc_group *group)
{
    enum level best = NEVER;
    for (unsigned at = 0; at < group->count; at++) {
        enum level level = lane_level(group->lanes[at]);
        best = level > best ? level : best;
    }
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        lane->chosen = best != NEVER && lane_level(lane) == best;
    }
}

/* With nobody to choose, new connections are neither refused nor taken: each
 * lane is deaf until one goes live (a worker that listens before it is ready). */
static void group_steer(struct rc_group *group)
{
    bool any = false;
    if (group->count == 0)
        return;
    group_choose(group);
    for (unsigned at = 0; at < group->count; at++)
        any |= group->lanes[at]->chosen;
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (lane->chosen && !lane->closing)
            lane_set_deaf(lane, false);
    }
    (void)group_attach(group, group->count);
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        if (lane->closing || !any)
            lane_set_deaf(lane, true);
    }
}

void rc_lanes_resteer(struct rc_engine *engine)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        group_steer(group);
}

int rc_steer(rc_engine *engine, const uint32_t *live, size_t count)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next) {
        worker->live = false;
        for (size_t at = 0; at < count; at++)
            worker->live |= live[at] == worker->id;
    }
    rc_lanes_resteer(engine);
    return 0;
}

/* ---- groups ------------------------------------------------------------------ */

static bool same_place(const struct rc_key *a, const struct rc_key *b)
{
    return memcmp(&a->address, &b->address, sizeof a->address) == 0 && a->v6only == b->v6only &&
           a->device == b->device;
}

static struct rc_group *group_find(struct rc_engine *engine, const struct rc_key *key)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        if (same_place(&group->key, key))
            return group;
    return NULL;
}

static struct rc_group *group_new(struct rc_engine *engine, const struct rc_key *key)
{
    struct rc_group *group = calloc(1, sizeof *group);
    if (!group)
        return NULL;
    group->key = *key;
    group->zero_index = -1;
    group->next = engine->groups;
    engine->groups = group;
    return group;
}

static void group_free_if_empty(struct rc_engine *engine, struct rc_group *group)
{
    if (group->count)
        return;
    struct rc_group **link = &engine->groups;
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    free(group->lanes);
    rc_bury(engine, group);
}

/* ---- adding and removing lanes ------------------------------------------------ */

static int group_append(struct rc_group *group, struct rc_lane *lane)
{
    if (group->count == group->room) {
        unsigned room = group->room ? group->room * 2 : 8;
        struct rc_lane **lanes = realloc(group->lanes, room * sizeof *lanes);
        if (!lanes)
            return -ENOMEM;
        group->lanes = lanes;
        group->room = room;
    }
    group->lanes[group->count++] = lane;
    lane->group = group;
    return 0;
}

static unsigned lane_index(const struct rc_lane *lane)
{
    unsigned at = 0;
    while (lane->group->lanes[at] != lane)
        at++;
    return at;
}

/* The kernel has taken (or is about to take) the lane out of its group. */
static void lane_forget(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    group->lanes[lane_index(lane)] = group->lanes[group->count - 1];
    group->count--;
    rc_source_shut(engine->epoll, &lane->source);
    group_steer(group);
    group_free_if_empty(engine, group);
    rc_bury(engine, lane);
}

/* Removing moves the last lane to a new index, and no program can be right
 * before and after at once, so the moving one is not chosen meanwhile. Where it
 * is the only one that may be chosen, the others are deafened instead: a SYN
 * that meets the move is dropped and comes again, it never reaches a wrong lane. */
static void lane_remove(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_group *group = lane->group;
    unsigned last = group->count - 1;
    lane->removing = true;
    group_choose(group);
    if (lane_index(lane) != last && group->lanes[last]->chosen) {
        bool others = false;
        for (unsigned at = 0; at < last; at++)
            others |= group->lanes[at]->chosen;
        if (others)
            (void)group_attach(group, last);
        else
            for (unsigned at = 0; at < last; at++)
                lane_set_deaf(group->lanes[at], true);
    } else {
        (void)group_attach(group, group->count);
    }
    (void)shutdown(lane->source.fd, SHUT_RDWR);
    lane_forget(engine, lane);
}

/* A worker shut its own listener down (grpcio's stop() does): the kernel has
 * removed it already and moved the last one. */
void rc_lanes_hup(struct rc_engine *engine, struct rc_lane *lane)
{
    lane_forget(engine, lane);
}

void rc_lanes_drop(struct rc_engine *engine, struct rc_worker *worker)
{
    for (struct rc_group *group = engine->groups, *next; group; group = next) {
        next = group->next; /* the group goes with its last lane */
        for (unsigned at = group->count; at-- > 0;)
            if (group->lanes[at]->worker == worker)
                lane_remove(engine, group->lanes[at]);
    }
}

int rc_close_lanes(rc_engine *engine, uint32_t id)
{
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        for (unsigned at = 0; at < group->count; at++)
            if (id == 0 || group->lanes[at]->worker->id == id)
                group->lanes[at]->closing = true;
        group_steer(group);
    }
    return 0;
}

/* ---- looking at sockets --------------------------------------------------------- */

static int get_option(int fd, int level, int name)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) < 0 ? -errno : value;
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

static uint64_t inode_of(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) < 0 ? 0 : facts.st_ino;
}

/* The address in one canonical form, so that keys compare by bytes: a
 * sockaddr_in without its padding, a sockaddr_in6 without its flow label. */
static int canonical(const struct sockaddr_in6 *from, socklen_t length, struct sockaddr_in6 *out)
{
    memset(out, 0, sizeof *out);
    if (from->sin6_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        memcpy(out, from, offsetof(struct sockaddr_in, sin_zero));
        return 0;
    }
    if (from->sin6_family == AF_INET6 && length >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
        memcpy(out, from, length < sizeof *out ? length : sizeof *out);
        out->sin6_flowinfo = 0;
        return 0;
    }
    return -EAFNOSUPPORT;
}

static int sockname(int fd, struct sockaddr_in6 *out)
{
    struct sockaddr_in6 raw;
    socklen_t length = sizeof raw;
    memset(&raw, 0, sizeof raw);
    if (getsockname(fd, (struct sockaddr *)&raw, &length) < 0)
        return -errno;
    return canonical(&raw, length, out);
}

static int key_of(int fd, const struct sockaddr_in6 *address, struct rc_key *key)
{
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return -errno;
    *key = (struct rc_key){.address = *address, .uid = facts.st_uid};
    if (address->sin6_family == AF_INET6)
        key->v6only = get_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    int device = get_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX);
    key->device = device > 0 ? device : 0;
    return 0;
}

/* sin_port and sin6_port are at the same offset. */
_Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
               "ports at different offsets");

static socklen_t length_of(const struct sockaddr_in6 *address)
{
    return address->sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof *address;
}

void rc_address_text(const struct sockaddr_in6 *address, char *out, size_t room)
{
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = ntohs(address->sin6_port);
    if (address->sin6_family == AF_INET) {
        const unsigned char *byte =
            (const unsigned char *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
        snprintf(out, room, "%u.%u.%u.%u:%u", byte[0], byte[1], byte[2], byte[3], port);
        return;
    }
    inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof host);
    snprintf(out, room, "[%s]:%u", host, port);
}

/* ---- binds that have not listened yet --------------------------------------------- */

/* Whether the descriptor a bind was made on is still the same socket. */
static bool pending_open(const struct rc_pending *pending)
{
    char path[64];
    struct stat facts;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pending->pid, pending->fd);
    return stat(path, &facts) == 0 && facts.st_ino == pending->inode;
}

static void pending_delete(struct rc_worker *worker, unsigned at)
{
    memmove(&worker->pending[at], &worker->pending[at + 1],
            (--worker->pendings - at) * sizeof worker->pending[0]);
}

static struct rc_pending *pending_find(struct rc_worker *worker, uint64_t inode)
{
    for (unsigned at = 0; at < worker->pendings; at++)
        if (worker->pending[at].inode == inode)
            return &worker->pending[at];
    return NULL;
}

static bool pending_elsewhere(struct rc_engine *engine, const struct rc_key *key)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        for (unsigned at = 0; !worker->dead && at < worker->pendings; at++)
            if (same_place(&worker->pending[at].key, key))
                return true;
    return false;
}

static void pending_add(struct rc_worker *worker, const struct rc_pending *pending)
{
    if (worker->pendings == RC_PENDING_MAX)
        pending_delete(worker, 0);
    worker->pending[worker->pendings++] = *pending;
}

/* ---- port 0 ------------------------------------------------------------------------ */

static struct rc_zero_count *zero_count(struct rc_worker *worker, const struct sockaddr_in6 *asked)
{
    for (size_t at = 0; at < sizeof worker->zeros / sizeof worker->zeros[0]; at++) {
        struct rc_zero_count *zero = &worker->zeros[at];
        if (zero->listened == 0)
            zero->asked = *asked;
        if (memcmp(&zero->asked, asked, sizeof *asked) == 0)
            return zero;
    }
    return NULL;
}

/* Which of this worker's port-0 listeners on that address this bind would be. */
static int zero_index(struct rc_worker *worker, const struct sockaddr_in6 *asked)
{
    struct rc_zero_count *zero = zero_count(worker, asked);
    if (!zero)
        return -1;
    int index = zero->listened;
    for (unsigned at = worker->pendings; at-- > 0;) {
        struct rc_pending *pending = &worker->pending[at];
        if (pending->zero_index < 0 || memcmp(&pending->zero, asked, sizeof *asked) != 0)
            continue;
        if (pending_open(pending))
            index++;
        else
            pending_delete(worker, at);
    }
    return index;
}

/* The port that the same bind of another worker got, or 0. */
static in_port_t zero_port(struct rc_engine *engine, const struct rc_worker *worker,
                           const struct sockaddr_in6 *asked, int index)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        if (group->zero_index == index && memcmp(&group->zero, asked, sizeof *asked) == 0)
            return group->key.address.sin6_port;
    for (struct rc_worker *other = engine->workers; other; other = other->next)
        for (unsigned at = 0; other != worker && !other->dead && at < other->pendings; at++) {
            struct rc_pending *pending = &other->pending[at];
            if (pending->zero_index == index &&
                memcmp(&pending->zero, asked, sizeof *asked) == 0 && pending_open(pending))
                return pending->key.address.sin6_port;
        }
    return 0;
}

/* ---- bind ----------------------------------------------------------------------------- */

/* An MPTCP listener refuses the steering program; a plain TCP one serves the
 * same clients (they fall back, RFC 8684 section 3.7). */
static int plain_tcp(int fd, int domain)
{
    int flags = fcntl(fd, F_GETFL);
    int plain = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (plain < 0)
        return -errno;
    (void)fcntl(plain, F_SETFL, flags);
    (void)set_option(plain, SOL_SOCKET, SO_REUSEADDR, get_option(fd, SOL_SOCKET, SO_REUSEADDR));
    (void)set_option(plain, SOL_SOCKET, SO_REUSEPORT, get_option(fd, SOL_SOCKET, SO_REUSEPORT));
    if (domain == AF_INET6)
        (void)set_option(plain, IPPROTO_IPV6, IPV6_V6ONLY,
                         get_option(fd, IPPROTO_IPV6, IPV6_V6ONLY));
    return plain;
}

static int bind_socket(struct rc_engine *engine, const struct rc_call *call, int fd,
                       struct sockaddr_in6 *address)
{
    struct rc_pending pending = {.pid = call->pid, .fd = call->number, .zero_index = -1};
    bool reuse_address = get_option(fd, SOL_SOCKET, SO_REUSEADDR) > 0;
    bool reuse_port = get_option(fd, SOL_SOCKET, SO_REUSEPORT) > 0;

    if (address->sin6_port == 0) {
        pending.zero = *address;
        pending.zero_index = zero_index(call->worker, address);
        if (pending.zero_index >= 0)
            address->sin6_port = zero_port(engine, call->worker, address, pending.zero_index);
    }
    int error = key_of(fd, address, &pending.key);
    if (error)
        return error;
    struct rc_group *group = address->sin6_port ? group_find(engine, &pending.key) : NULL;
    /* The first of a group binds without SO_REUSEPORT, so that a foreign owner
     * or a second cluster is what it would be without us: EADDRINUSE. */
    bool first = !group && !pending_elsewhere(engine, &pending.key);
    if (group && group->key.uid != pending.key.uid &&
        fchown(fd, group->key.uid, (gid_t)-1) == 0) /* siblings must be of one user */
        pending.key.uid = group->key.uid;
    (void)set_option(fd, SOL_SOCKET, SO_REUSEPORT, !first);
    if (bind(fd, (struct sockaddr *)address, length_of(address)) < 0) {
        struct sockaddr_in6 bound;
        error = -errno;
        (void)set_option(fd, SOL_SOCKET, SO_REUSEPORT, reuse_port);
        /* A bind that was answered, but whose answer a signal took away
         * (before Linux 5.19), comes again. */
        if (error == -EINVAL && pending_find(call->worker, inode_of(fd)) &&
            sockname(fd, &bound) == 0 && memcmp(&bound, address, sizeof bound) == 0)
            return 0;
        return error;
    }
    /* From here siblings may bind and, at the first listen, must not be in the
     * way of it; what the program had set comes back at listen. */
    (void)set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    (void)set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    pending.reuse_address = reuse_address;
    pending.inode = inode_of(fd);
    error = sockname(fd, &pending.key.address);
    if (error)
        return error;
    pending_add(call->worker, &pending);
    return 0;
}

void rc_lanes_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    struct sockaddr_in6 address;
    int domain = get_option(call->fd, SOL_SOCKET, SO_DOMAIN);
    int protocol = get_option(call->fd, SOL_SOCKET, SO_PROTOCOL);

    *answer = (struct rc_answer){.replace = -1};
    answer->pass = true;
    if ((domain != AF_INET && domain != AF_INET6) ||
        get_option(call->fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM ||
        (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP))
        return;
    if (canonical(&call->address, call->length, &address) < 0 || address.sin6_family != domain)
        return; /* the kernel knows best what is wrong with it */
    if (address.sin6_port == 0 && get_option(call->fd, SOL_SOCKET, SO_REUSEADDR) <= 0 &&
        get_option(call->fd, SOL_SOCKET, SO_REUSEPORT) <= 0)
        return; /* a client's socket, or one that asked for a port of its own */

    int fd = call->fd, plain = -1;
    if (protocol == IPPROTO_MPTCP) {
        plain = plain_tcp(fd, domain);
        if (plain < 0)
            return;
        fd = plain;
    }
    answer->pass = false;
    answer->result = bind_socket(engine, call, fd, &address);
    if (plain >= 0 && answer->result == 0) {
        answer->replace = plain;
        answer->owned = true;
    } else {
        rc_close(&plain);
    }
}

/* ---- listen ---------------------------------------------------------------------------- */

static unsigned backlog_for(int asked)
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

static struct rc_lane *lane_find(struct rc_engine *engine, uint64_t inode)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->inode == inode)
                return group->lanes[at];
    return NULL;
}

static void announce(struct rc_engine *engine, const struct rc_worker *worker,
                     const struct sockaddr_in6 *address, bool lane)
{
    if (engine->text_count == sizeof engine->texts / sizeof engine->texts[0])
        return;
    char *text = engine->texts[engine->text_count++];
    rc_address_text(address, text, sizeof engine->texts[0]);
    rc_emit(engine, RC_EVENT_LISTENING, worker->id, lane, text, strlen(text));
}

/* The kernel calls listen(2) on our dup. The first lane of a group listens with
 * SO_REUSEPORT off (see bind_socket), but with the group's program attached
 * before: setsockopt makes the reuseport structure while the socket is unhashed,
 * and so the second lane is under the program from its first packet on. */
static int listen_first(int fd, unsigned backlog, uint32_t worker)
{
    struct rc_choice only = {0, worker};
    int error = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (!error)
        error = rc_steering_attach(fd, &only, 1);
    if (!error)
        error = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 0);
    if (error)
        return error;
    if (listen(fd, (int)backlog) < 0)
        return -errno;
    return set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

static int lane_new(struct rc_engine *engine, const struct rc_call *call,
                    const struct rc_pending *pending)
{
    struct rc_group *group = group_find(engine, &pending->key);
    struct rc_lane *lane = calloc(1, sizeof *lane);
    int error = -ENOMEM, fd = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        error = -errno;
    if (!group)
        group = group_new(engine, &pending->key);
    if (!lane || !group || fd < 0)
        goto fail;
    lane->source.fd = -1;
    lane->worker = call->worker;
    lane->inode = pending->inode;
    lane->backlog = backlog_for(call->backlog);
    error = group_append(group, lane);
    if (error)
        goto fail;
    group_choose(group);
    if (!lane->chosen && group->count == 1) /* not ready: not one SYN before it is */
        lane->deaf = rc_steering_deafen(fd) == 0;
    error = group->count == 1 ? listen_first(fd, lane->backlog, call->worker->id)
            : listen(fd, (int)lane->backlog) < 0 ? -errno
                                                 : 0;
    if (error) {
        group->count--;
        goto fail;
    }
    (void)set_option(fd, SOL_SOCKET, SO_REUSEADDR, pending->reuse_address);
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
    group_steer(group);
    return 0;
fail:
    if (group)
        group_free_if_empty(engine, group);
    rc_close(&fd);
    free(lane);
    return error;
}

/* The backlog is the description's, and may only grow: any listen(2) sets it. */
static int lane_widen(struct rc_lane *lane, int asked)
{
    unsigned backlog = backlog_for(asked);
    if (backlog <= lane->backlog)
        return 0;
    if (listen(lane->source.fd, (int)backlog) < 0)
        return -errno;
    lane->backlog = backlog;
    return 0;
}

/* A lane of the same address whose worker died, and to which `worker` is heir. */
static struct rc_lane *orphan_for(struct rc_engine *engine, const struct rc_worker *worker,
                                  const struct rc_key *key)
{
    struct rc_group *group = group_find(engine, key);
    struct rc_worker *dead = rc_find(engine, worker->heir_of);
    for (; group && dead; dead = rc_find(engine, dead->heir_of))
        for (unsigned at = 0; dead->dead && at < group->count; at++)
            if (group->lanes[at]->worker == dead)
                return group->lanes[at];
    return NULL;
}

/* The orphan, queue and all, takes the place of the successor's own socket. At
 * listen and not at bind: granian's parent binds a socket that never listens,
 * gunicorn skips listen on one that already does (SO_ACCEPTCONN). */
static int adopt(const struct rc_call *call, struct rc_lane *lane, struct rc_answer *answer)
{
    int flags = fcntl(call->fd, F_GETFL);
    int error = lane_widen(lane, call->backlog);
    if (error)
        return error;
    if (flags >= 0) /* O_NONBLOCK as the new program wants it */
        (void)fcntl(lane->source.fd, F_SETFL, flags);
    answer->adopted = lane;
    answer->previous = lane->worker;
    answer->replace = lane->source.fd;
    lane->worker = call->worker;
    group_steer(lane->group);
    return 0;
}

/* The descriptor could not be put in place: the lane stays with its old owner. */
void rc_lanes_refused(struct rc_answer *answer)
{
    if (answer->adopted)
        answer->adopted->worker = answer->previous;
    answer->adopted = NULL;
}

static void zero_listened(struct rc_worker *worker, const struct rc_pending *pending)
{
    struct rc_zero_count *zero =
        pending->zero_index < 0 ? NULL : zero_count(worker, &pending->zero);
    if (zero)
        zero->listened++;
}

void rc_lanes_listen(struct rc_engine *engine, const struct rc_call *call,
                     struct rc_answer *answer)
{
    uint64_t inode = inode_of(call->fd);
    struct rc_lane *lane = lane_find(engine, inode), *orphan;
    struct rc_pending *found = pending_find(call->worker, inode);
    struct rc_pending pending;

    *answer = (struct rc_answer){.replace = -1};
    if (lane) { /* a second call, or a process that shares the socket */
        answer->result = lane_widen(lane, call->backlog);
        return;
    }
    if (found && (orphan = orphan_for(engine, call->worker, &found->key)) != NULL) {
        answer->result = adopt(call, orphan, answer);
        if (answer->result)
            return;
        zero_listened(call->worker, found);
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
        if (get_option(call->fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
            get_option(call->fd, SOL_SOCKET, SO_ACCEPTCONN) == 0 &&
            sockname(call->fd, &address) == 0)
            announce(engine, call->worker, &address, false);
        return;
    }
    pending = *found;
    pending_delete(call->worker, (unsigned)(found - call->worker->pending));
    answer->result = lane_new(engine, call, &pending);
    if (answer->result == 0) {
        zero_listened(call->worker, &pending);
        announce(engine, call->worker, &pending.key.address, true);
    }
}

/* ---- facts ------------------------------------------------------------------------------- */

/* For a listener tcpi_unacked is the length of its accept queue and tcpi_sacked
 * its limit (tcp_get_info, net/ipv4/tcp.c). */
static unsigned lane_queued(const struct rc_lane *lane, unsigned *limit)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(lane->source.fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        return 0;
    if (limit)
        *limit = info.tcpi_sacked;
    return info.tcpi_unacked;
}

int rc_queued(rc_engine *engine, uint32_t id)
{
    unsigned queued = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++)
            if (group->lanes[at]->worker->id == id)
                queued += lane_queued(group->lanes[at], NULL);
    return (int)queued;
}

int rc_lanes(rc_engine *engine, struct rc_lane_facts *out, size_t room)
{
    size_t count = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++, count++) {
            const struct rc_lane *lane = group->lanes[at];
            if (count >= room)
                continue;
            struct rc_lane_facts *facts = &out[count];
            *facts = (struct rc_lane_facts){.worker = lane->worker->id,
                                            .chosen = lane->chosen && !lane->deaf};
            facts->queued = lane_queued(lane, &facts->backlog);
            rc_address_text(&group->key.address, facts->address, sizeof facts->address);
        }
    return (int)count;
}
