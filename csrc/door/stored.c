/* stored.c - listeners that outlive the master: kept by somebody who has their descriptors
 * (systemd's store), and given to the master that comes next.
 *
 * Owns: which those are, and how a master that gets them finds each one's place in the
 * kernel's group, for on that steering depends (order.c). What the one before knew of it may
 * have been wrong at the moment it was killed. So the kernel is asked: a connection of ours
 * is sent to each place in turn, by a detour as in reach.c, and the queue that grows is there.
 *
 * Invariants:
 *  - until the order is known nobody is live, so nobody is steered wrong;
 *  - a stored lane is nobody's, as one of a dead predecessor, until a worker listens there;
 *    then it is a lane like any other, shut down when its time has come;
 *  - lanes beside one that systemd has made are not kept: it has that one itself, and would
 *    have to be told apart from them.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { REACH_US = 50000, TRIES = 3, NOBODY_THERE = -1 };

static bool has_foreign(const struct rc_group *group)
{
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->inherited && !group->lanes[at]->ours)
            return true;
    return false;
}

/* Not a UDP socket that has one peer: what that sends after the worker's end would be nobody's
 * (udp/udpside.c). */
static bool is_worth_it(const struct rc_lane *lane)
{
    bool udp = lane->group->key.type == SOCK_DGRAM;
    return lane->worker && !lane->removing && !(udp && rc_udp_connected(lane->source.fd));
}

/* What is worth to be kept now; how many they are. The descriptors stay the engine's. */
int rc_stored_lanes(rc_engine *engine, struct rc_stored *out, size_t room)
{
    size_t count = 0;
    for (const struct rc_group *group = engine->groups; group; group = group->next) {
        if (group->key.network || group->front || has_foreign(group))
            continue;
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            if (is_worth_it(lane) && count++ < room)
                out[count - 1] = (struct rc_stored){.inode = lane->inode, .fd = lane->source.fd};
        }
    }
    return rc_unix_stored(engine, out, room, (int)count);
}

/* ---- the next master -------------------------------------------------------------------- */

static int append(struct rc_engine *engine, const struct rc_key *key, int fd)
{
    struct rc_group *group = rc_group_find(engine, key);
    struct rc_lane *lane = calloc(1, sizeof *lane);
    if (!group)
        group = rc_group_new(engine, key);
    int error = group && lane ? 0 : -ENOMEM;
    if (!error) {
        rc_lane_init(lane);
        lane->worker = engine->unowned;
        lane->inode = rc_socket_inode(fd);
        error = rc_group_append(engine, group, lane);
    }
    if (!error && key->type == SOCK_DGRAM) {
        lane->source.fd = fd; /* not in the epoll set (udp/udp.c) */
    } else if (!error) {
        lane->source.fd = fd;
        (void)rc_lane_queued(lane, &lane->backlog);
        lane->source.fd = -1;
        error = rc_source_add(engine->epoll, &lane->source, RC_SOURCE_LANE, fd, 0);
        if (error)
            rc_group_retract(engine, group, lane);
    }
    if (error) {
        if (group)
            rc_group_free_if_empty(engine, group);
        free(lane);
    }
    return error;
}

static bool is_lane(const struct rc_engine *engine, int fd)
{
    if (rc_socket_get(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM)
        return !rc_udp_connected(fd);
    return !engine->dispatch.on && rc_socket_get(fd, SOL_SOCKET, SO_ACCEPTCONN) > 0;
}

static int restore_inet(rc_engine *engine, int given, char *text, size_t room)
{
    struct sockaddr_in6 address;
    struct rc_key key;
    if (!is_lane(engine, given))
        return -ENOTSUP;
    int error = rc_socket_name(given, &address);
    if (!error)
        error = rc_key_of(given, engine->network, &address, &key);
    if (!error && key.network)
        error = -EXDEV;
    if (!error && !rc_nobody(engine))
        error = -ENOMEM;
    int fd = error ? -1 : fcntl(given, F_DUPFD_CLOEXEC, 3);
    if (!error && fd < 0)
        error = -errno;
    if (!error)
        error = append(engine, &key, fd);
    if (error) {
        rc_close(&fd);
        return error;
    }
    rc_key_text(&key, text, room);
    (void)close(given);
    return 0;
}

static int restore_unix(rc_engine *engine, int given, const struct rc_unix_note *note, char *text,
                        size_t room)
{
    if (!rc_nobody(engine))
        return -ENOMEM;
    int fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
    int error = fd < 0 ? -errno : rc_unix_restore(engine, fd, note);
    if (error) {
        rc_close(&fd);
        return error;
    }
    (void)snprintf(text, room, "%s", engine->unixes->text);
    (void)close(given);
    return 0;
}

/* What the master before had bound itself (--bind), and would remove at the end. */
static int restore_ours(rc_engine *engine, int given, const struct rc_unix_node *node, char *text,
                        size_t room)
{
    int error = rc_inherit(engine, given, true, text, room);
    if (!error &&
        (engine->unixes->node.device != node->device || engine->unixes->node.inode != node->inode))
        rc_close(&engine->unixes->directory); /* the path is another's now */
    return error;
}

/* What the next master needs to know of it, besides the descriptor. */
int rc_stored_note(const rc_engine *engine, uint64_t inode, char *text, size_t room)
{
    return rc_unix_stored_note(engine, inode, text, room);
}

/* Takes the descriptor on success; rc_restored when all are there. */
int rc_restore(rc_engine *engine, int given, const char *note, char *text, size_t room)
{
    struct rc_unix_note unix_note;
    bool listens = rc_socket_get(given, SOL_SOCKET, SO_ACCEPTCONN) > 0;
    if (listens && rc_socket_get(given, SOL_SOCKET, SO_DOMAIN) == AF_UNIX) {
        if (!rc_unix_stored_read(note, &unix_note))
            return -EINVAL;
        return unix_note.rights ? restore_unix(engine, given, &unix_note, text, room)
                                : restore_ours(engine, given, &unix_note.node, text, room);
    }
    return restore_inet(engine, given, text, room);
}

/* ---- the order ------------------------------------------------------------------------ */

/* Which lane's queue grows when a connection goes to that place. It stays there: the server
 * that takes it reads the end, and what it says to that is taken, until all serve. */
static int who_is_at(struct rc_engine *engine, struct rc_group *group, unsigned place,
                     unsigned *queued)
{
    struct rc_lane *first = group->lanes[0];
    unsigned index = first->index, grown = 0;
    int found = NOBODY_THERE;
    for (unsigned at = 0; at < group->count; at++)
        queued[at] = rc_lane_queued(group->lanes[at], NULL);
    first->index = place;
    int fd = rc_reach(engine, first);
    first->index = index;
    if (fd < 0)
        return NOBODY_THERE;
    (void)rc_poll(fd, POLLOUT, rc_now_us() + REACH_US);
    rc_reach_end(first);
    for (unsigned at = 0; at < group->count; at++)
        if (rc_lane_queued(group->lanes[at], NULL) > queued[at]) {
            found = (int)at;
            grown++;
        }
    if (grown != 1) { /* of two one was a client's, begun before */
        rc_close(&fd);
        return NOBODY_THERE;
    }
    (void)shutdown(fd, SHUT_WR);
    group->lanes[found]->knocks++;
    rc_close(&group->lanes[found]->knocking);
    group->lanes[found]->knocking = fd;
    return found;
}

/* Those that were not found get what is left, as a guess. */
static bool fill_up(struct rc_group *group, const int *place_of, bool *taken, unsigned members)
{
    unsigned next = 0;
    bool sure = true;
    for (unsigned at = 0; at < group->count + group->guest_count; at++) {
        bool guest = at >= group->count;
        if (!guest && place_of[at] >= 0) {
            group->lanes[at]->index = (unsigned)place_of[at];
            continue;
        }
        while (next < members && taken[next])
            next++;
        if (guest)
            group->guests[at - group->count].index = next;
        else
            group->lanes[at]->index = next;
        taken[next] = true;
        sure &= guest && group->guest_count == 1;
    }
    return sure;
}

static void ask_each_place(struct rc_engine *engine, struct rc_group *group, int *place_of,
                           unsigned *queued)
{
    for (unsigned place = 0; place < rc_group_members(group); place++) {
        int at = NOBODY_THERE;
        for (unsigned tries = 0; tries < TRIES && at < 0; tries++)
            at = who_is_at(engine, group, place, queued);
        if (at >= 0 && place_of[at] < 0)
            place_of[at] = (int)place;
    }
}

static int find_order(struct rc_engine *engine, struct rc_group *group)
{
    unsigned members = rc_group_members(group);
    unsigned *numbers = calloc(members, sizeof *numbers);
    int *place_of = calloc(members, sizeof *place_of);
    bool *taken = calloc(members, sizeof *taken);
    int error = numbers && place_of && taken ? 0 : -ENOMEM;
    for (unsigned at = 0; !error && at < members; at++)
        place_of[at] = -1;
    if (!error && group->key.type == SOCK_DGRAM)
        rc_stored_udp_places(group, place_of, numbers);
    else if (!error)
        ask_each_place(engine, group, place_of, numbers);
    for (unsigned at = 0; !error && at < members; at++)
        if (place_of[at] >= 0)
            taken[place_of[at]] = true;
    if (!error)
        group->unsure |= !fill_up(group, place_of, taken, members);
    free(numbers);
    free(place_of);
    free(taken);
    return error;
}

/* A full queue would take no connection of ours, and one that defers would not show it. */
static void make_room(const struct rc_group *group, bool defers_not)
{
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        unsigned limit = 0, queued = rc_lane_queued(lane, &limit);
        if (defers_not)
            (void)rc_socket_set(lane->source.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
        if (queued + group->count >= limit &&
            listen(lane->source.fd, (int)(limit + group->count + 1)) == 0)
            lane->backlog = limit + group->count + 1;
    }
}

static int restored_tcp(struct rc_engine *engine, struct rc_group *group)
{
    int defers = rc_socket_get(group->lanes[0]->source.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT);
    (void)rc_order_look(engine, group);
    make_room(group, defers > 0);
    int error = rc_group_members(group) > 1 ? find_order(engine, group) : 0;
    for (unsigned at = 0; defers > 0 && at < group->count; at++)
        (void)rc_socket_set(group->lanes[at]->source.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, defers);
    rc_group_add_sink(engine, group);
    return error;
}

/* Without guests, which are not known of UDP, a lane's place is that in its group (udpkernel.c). */
static int restored_udp(struct rc_engine *engine, struct rc_group *group)
{
    int error = group->count > 1 ? find_order(engine, group) : 0;
    for (unsigned place = 0; place < group->count; place++)
        while (group->lanes[place]->index != place) {
            struct rc_lane *lane = group->lanes[place];
            group->lanes[place] = group->lanes[lane->index];
            group->lanes[lane->index] = lane;
        }
    return error;
}

/* All that rc_restore took are in order, and their groups complete. Before the first worker. */
int rc_restored(rc_engine *engine)
{
    int first = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        if (group->sink || group->lanes[0]->worker != engine->unowned || group->lanes[0]->inherited)
            continue;
        int error = group->key.type == SOCK_STREAM ? restored_tcp(engine, group)
                                                   : restored_udp(engine, group);
        if (!error)
            error = rc_group_steer(group);
        first = first ? first : error;
    }
    return first;
}

/* ---- what nobody wanted ------------------------------------------------------------------ */

/* Who sends there asks again, so nothing is waited for. Those that are not the last wait, empty,
 * for who binds next. */
static void forsake_udp(struct rc_engine *engine, struct rc_group *group)
{
    struct rc_lane *last = NULL;
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->worker == engine->unowned && !group->lanes[at]->inherited) {
            last = group->lanes[at];
            rc_udp_empty(last->source.fd);
        }
    if (last)
        (void)rc_lane_vacate(engine, last);
}

/* When as many workers serve as there should be: lanes that none of them has taken go, if
 * nothing waits in them. How many connections wait in the others. */
int rc_forsaken(rc_engine *engine)
{
    unsigned waiting = 0;
    for (struct rc_group *group = engine->groups, *next; group; group = next) {
        next = group->next; /* it may go with its last lane */
        if (group->key.type == SOCK_DGRAM)
            forsake_udp(engine, group);
        for (unsigned at = group->key.type == SOCK_STREAM ? group->count : 0; at-- > 0;) {
            struct rc_lane *lane = group->lanes[at];
            rc_close(&lane->knocking);
            if (lane->worker != engine->unowned || lane->inherited)
                continue;
            unsigned queued = rc_lane_queued(lane, NULL);
            if (queued > lane->knocks) {
                waiting += queued - lane->knocks;
                continue;
            }
            (void)rc_order_look(engine, group);
            (void)rc_lane_remove(engine, lane);
            at = group->count < at ? group->count : at; /* the sink may have gone with it */
        }
    }
    return (int)waiting;
}
