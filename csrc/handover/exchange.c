/* exchange.c - how far a connection's request and answer are, by the kernel's counts.
 *
 * Owns nothing. It looks at a duplicate of the server's end, and takes nothing out of it.
 */
#include "internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { ESTABLISHED = 1, TRIES = 3, HEAD = 16 };

static int ask(int fd, struct tcp_info *info)
{
    socklen_t length = sizeof *info;
    memset(info, 0, sizeof *info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length) < 0 ? -errno : 0;
}

/* What the server has read is what came less what lies there; what it has written, what was
 * acknowledged and what was not yet. Exact if nothing came between the questions. */
int rc_exchange_look(int fd, struct rc_exchange *out)
{
    struct tcp_info before, after;
    int unread = 0, unsent = 0;
    for (int tries = 0; tries < TRIES; tries++) {
        int error = ask(fd, &before);
        if (error || ioctl(fd, SIOCINQ, &unread) < 0 || ioctl(fd, SIOCOUTQ, &unsent) < 0)
            return error ? error : -errno;
        error = ask(fd, &after);
        if (error)
            return error;
        if (before.tcpi_bytes_received == after.tcpi_bytes_received &&
            before.tcpi_bytes_acked == after.tcpi_bytes_acked)
            break;
    }
    *out = (struct rc_exchange){
        .open = after.tcpi_state == ESTABLISHED,
        .read = after.tcpi_bytes_received - (unsigned)unread,
        .written = after.tcpi_bytes_acked + (unsigned)unsent,
        .unread = (unsigned)unread,
        .quiet_ms = after.tcpi_last_data_recv < after.tcpi_last_data_sent
                        ? after.tcpi_last_data_recv
                        : after.tcpi_last_data_sent,
        .answered_ms = (int64_t)after.tcpi_last_data_recv - (int64_t)after.tcpi_last_data_sent,
    };
    return 0;
}

/* 1: what lies there begins as a request of HTTP/1 does; 0: nothing does; -EPROTO: anything
 * else. Of a few bytes that may become one: 1. */
int rc_exchange_peek(int fd)
{
    static const char *const methods[] = {"GET /",   "POST /",    "PUT /",     "HEAD /", "DELETE /",
                                          "PATCH /", "OPTIONS /", "OPTIONS *", "GET h",  "POST h"};
    char head[HEAD];
    ssize_t got = recv(fd, head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
    if (got <= 0)
        return got == 0 || errno == EAGAIN ? 0 : -errno;
    for (size_t at = 0; at < sizeof methods / sizeof methods[0]; at++) {
        size_t length = strlen(methods[at]);
        if (memcmp(head, methods[at], (size_t)got < length ? (size_t)got : length) == 0)
            return 1;
    }
    return -EPROTO;
}
