/* front.c - the lane of the master's that gets a group's connections in dispatch.
 *
 * Owns: making it. It has the options of a worker's listening socket, for connections
 * inherit them: without TCP_NODELAY gunicorn's keep-alive took 43 ms a request
 * instead of 1.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

static const struct {
    int level, name;
} inherited[] = {
    {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_OOBINLINE},
    {SOL_SOCKET, SO_PRIORITY},
    {SOL_SOCKET, SO_RCVLOWAT},
    {SOL_SOCKET, SO_MARK},
    {SOL_SOCKET, SO_BUSY_POLL},
    {SOL_SOCKET, SO_TIMESTAMP},
    {SOL_SOCKET, SO_ZEROCOPY},
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_FASTOPEN},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_TCP, TCP_SAVE_SYN},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IPV6, IPV6_TCLASS},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
};

/* SO_RCVBUF reads as twice what was set; and to set it ends the kernel's own
 * tuning, so only what the program has set is. */
static void copy_buffer(int from, int to, int name)
{
    int wanted = rc_socket_get(from, SOL_SOCKET, name);
    if (wanted > 0 && wanted != rc_socket_get(to, SOL_SOCKET, name))
        (void)rc_socket_set(to, SOL_SOCKET, name, wanted / 2);
}

static void copy_bytes(int from, int to, int level, int name)
{
    char theirs[64], ours[64];
    socklen_t length = sizeof theirs, our_length = sizeof ours;
    memset(theirs, 0, sizeof theirs);
    memset(ours, 0, sizeof ours);
    if (getsockopt(from, level, name, theirs, &length) == 0 &&
        getsockopt(to, level, name, ours, &our_length) == 0 &&
        (length != our_length || memcmp(theirs, ours, sizeof ours) != 0))
        (void)setsockopt(to, level, name, theirs, length);
}

/* What a kernel, or a privilege, does not give is not there for `from` either. */
void rc_front_copy_options(int from, int to)
{
    for (size_t at = 0; at < sizeof inherited / sizeof inherited[0]; at++) {
        int wanted = rc_socket_get(from, inherited[at].level, inherited[at].name);
        if (wanted >= 0 && wanted != rc_socket_get(to, inherited[at].level, inherited[at].name))
            (void)rc_socket_set(to, inherited[at].level, inherited[at].name, wanted);
    }
    copy_buffer(from, to, SO_RCVBUF);
    copy_buffer(from, to, SO_SNDBUF);
    copy_bytes(from, to, SOL_SOCKET, SO_LINGER);
    copy_bytes(from, to, SOL_SOCKET, SO_RCVTIMEO);
    copy_bytes(from, to, SOL_SOCKET, SO_SNDTIMEO);
    copy_bytes(from, to, IPPROTO_TCP, TCP_CONGESTION);
}

/* Polled by edges: one event for each connection that comes, none while it waits. */
int rc_front_new(struct rc_engine *engine, struct rc_group *group, int like, unsigned backlog)
{
    struct rc_lane *front = calloc(1, sizeof *front);
    int fd = front ? rc_sibling_listen(&group->key, like, (int)backlog) : -ENOMEM;
    if (fd >= 0)
        front->inode = rc_socket_inode(fd);
    int error = fd < 0 ? fd : rc_group_append(engine, group, front);
    if (!error) {
        rc_lane_init(front);
        front->backlog = backlog;
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        rc_front_copy_options(like, fd);
        error =
            rc_source_add(engine->epoll, &front->source, RC_SOURCE_FRONT, fd, EPOLLIN | EPOLLET);
        if (error)
            rc_group_retract(engine, group, front);
    }
    if (error) { /* closing it takes it out of the kernel's group: it was the last */
        if (fd >= 0)
            rc_close(&fd);
        free(front);
        return error;
    }
    group->front = front;
    return rc_group_steer(group);
}
