/* unclaimed.c - addresses that were there before the first worker, and that no worker
 * wants: who connects there is refused, not left to wait for nobody.
 *
 * Owns: a duplicate of each such socket, accepted from by the master; and the look at
 * which of them stands in the way of a worker's bind.
 *
 * Invariant: the master accepts only while the lane is nobody's. Who adopts it makes its
 * description blocking or not as it likes (listen.c), and an accept here could wait.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REFUSED_AT_ONCE = 64 };

struct rc_unclaimed {
    struct rc_grave grave;
    struct rc_source source;
    struct rc_unclaimed *next;
    char address[128];
};

/* The descriptor of a lane there that no worker has; -1: there is none. */
static int nobodys(const struct rc_engine *engine, const char *address)
{
    char text[128];
    for (const struct rc_group *group = engine->groups; engine->unowned && group;
         group = group->next) {
        rc_key_text(&group->key, text, sizeof text);
        if (group->key.type == SOCK_STREAM && strcmp(text, address) == 0)
            for (unsigned at = 0; at < group->count; at++)
                if (group->lanes[at]->worker == engine->unowned)
                    return group->lanes[at]->source.fd;
    }
    for (const struct rc_unix_lane *lane = engine->unixes; engine->unowned && lane;
         lane = lane->next)
        if (strcmp(lane->text, address) == 0 && lane->count == 1 &&
            lane->members[0] == engine->unowned)
            return lane->fd;
    return -1;
}

static struct rc_unclaimed **find(struct rc_engine *engine, const char *address)
{
    struct rc_unclaimed **at = &engine->unclaimed;
    while (*at && strcmp((*at)->address, address) != 0)
        at = &(*at)->next;
    return at;
}

static void drop(struct rc_engine *engine, struct rc_unclaimed **at)
{
    struct rc_unclaimed *one = *at;
    *at = one->next;
    rc_source_shut(engine->epoll, &one->source);
    rc_bury(engine, one);
}

/* 0, or -ENOENT: no lane of nobody's is there. */
int rc_refuse(rc_engine *engine, const char *address, int on)
{
    struct rc_unclaimed **at = find(engine, address);
    int lane = nobodys(engine, address);
    if (*at)
        drop(engine, at);
    if (!on)
        return 0;
    if (lane < 0)
        return -ENOENT;
    struct rc_unclaimed *one = calloc(1, sizeof *one);
    int fd = one ? fcntl(lane, F_DUPFD_CLOEXEC, 3) : -1;
    int error = !one ? -ENOMEM : fd < 0 ? -errno : 0;
    if (!error && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        error = -errno;
    if (!error)
        error = rc_source_add(engine->epoll, &one->source, RC_SOURCE_UNCLAIMED, fd, EPOLLIN);
    if (error) {
        rc_close(&fd);
        free(one);
        return error;
    }
    strncpy(one->address, address, sizeof one->address - 1);
    one->next = engine->unclaimed;
    engine->unclaimed = one;
    return 0;
}

void rc_unclaimed_called(struct rc_engine *engine, struct rc_source *source)
{
    static const struct linger reset = {.l_onoff = 1};
    struct rc_unclaimed *one = RC_CONTAINER(source, struct rc_unclaimed, source);
    if (nobodys(engine, one->address) < 0) {
        drop(engine, find(engine, one->address));
        return;
    }
    for (unsigned count = 0; count < REFUSED_AT_ONCE; count++) {
        int caller = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
        if (caller < 0)
            return;
        (void)setsockopt(caller, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        (void)close(caller);
    }
}

/* In a forked child: closes only, as close_all (engine.c). */
void rc_unclaimed_close(const struct rc_engine *engine)
{
    for (const struct rc_unclaimed *one = engine->unclaimed; one; one = one->next)
        (void)close(one->source.fd);
}

void rc_unclaimed_free(struct rc_engine *engine)
{
    while (engine->unclaimed) {
        struct rc_unclaimed *one = engine->unclaimed;
        engine->unclaimed = one->next;
        free(one);
    }
}

/* ---- in the way of others -------------------------------------------------------- */

static bool is_any(const struct sockaddr_in6 *address)
{
    const struct sockaddr_in *address4 = (const void *)address;
    return address->sin6_family == AF_INET ? address4->sin_addr.s_addr == 0
                                           : IN6_IS_ADDR_UNSPECIFIED(&address->sin6_addr);
}

/* Two addresses of one port that are not the same, of which the kernel lets only one
 * listen (ipv6_rcv_saddr_equal, inet_rcv_saddr_equal). */
static bool collide(const struct rc_key *one, const struct rc_key *other)
{
    bool any = is_any(&one->address) || is_any(&other->address);
    if (one->address.sin6_port != other->address.sin6_port || one->type != other->type ||
        one->network != other->network || !any)
        return false;
    if (one->address.sin6_family == other->address.sin6_family)
        return memcmp(&one->address, &other->address, sizeof one->address) != 0;
    const struct rc_key *six = one->address.sin6_family == AF_INET6 ? one : other;
    return !six->v6only && is_any(&six->address);
}

void rc_unclaimed_in_the_way(struct rc_engine *engine, uint32_t worker, const struct rc_key *key)
{
    char wanted[128], given[128], both[sizeof wanted + sizeof given];
    for (const struct rc_group *group = engine->unowned ? engine->groups : NULL; group;
         group = group->next)
        if (group->lanes[0]->inherited && collide(&group->key, key)) {
            rc_key_text(key, wanted, sizeof wanted);
            rc_key_text(&group->key, given, sizeof given);
            (void)snprintf(both, sizeof both, "%s %s", wanted, given);
            rc_emit_place(engine, RC_EVENT_IN_THE_WAY, worker, 0, both);
            return;
        }
}
