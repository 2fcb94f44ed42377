/* storedudp.c - which place in the kernel's group each stored UDP socket has.
 *
 * Owns how that is found out. A datagram that says it would be one that a program reads, behind
 * those of clients that wait. So while this looks each socket has a filter (socket(7)) that drops
 * what comes from a socket of ours and counts it: SO_MEMINFO tells the drops (Linux 4.12). The
 * group's program sends all to one place meanwhile; clients find somebody there as well.
 *
 * Invariant: no socket keeps the filter, and one that has a filter of its program's is not asked.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <unistd.h>

enum { REACH_US = 50000, LOOK_US = 1000 };

static uint32_t drops_of(const struct rc_lane *lane)
{
    uint32_t facts[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof facts;
    (void)getsockopt(lane->source.fd, SOL_SOCKET, SO_MEMINFO, facts, &length);
    return facts[SK_MEMINFO_DROPS];
}

/* How many instructions its filter has. */
static socklen_t filter_of(const struct rc_lane *lane)
{
    socklen_t length = 0;
    return getsockopt(lane->source.fd, SOL_SOCKET, SO_GET_FILTER, NULL, &length) < 0 ? 1 : length;
}

/* A filter sees the datagram from its UDP header on, which begins with the source port. */
static int shut_out(const struct rc_lane *lane, in_port_t port)
{
    struct sock_filter text[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog program = {.len = sizeof text / sizeof *text, .filter = text};
    return setsockopt(lane->source.fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0
               ? -errno
               : 0;
}

/* A socket of ours that sends there, and its port; or -errno. */
static int sender(const struct rc_key *key, in_port_t *port)
{
    struct sockaddr_in6 to, from;
    int fd = socket(key->address.sin6_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    rc_reachable(key, &to);
    int error = fd < 0 ? -errno : 0;
    if (!error && connect(fd, (struct sockaddr *)&to, rc_address_length(&to)) < 0)
        error = -errno;
    if (!error)
        error = rc_socket_name(fd, &from);
    if (error) {
        rc_close(&fd);
        return error;
    }
    *port = ntohs(from.sin6_port);
    return fd;
}

/* Where it was dropped; -1: nowhere. */
static int dropped_at(const struct rc_group *group, const uint32_t *before)
{
    for (unsigned at = 0; at < group->count; at++)
        if (drops_of(group->lanes[at]) != before[at])
            return (int)at;
    return -1;
}

/* The lane at that place; -1: it is not seen. A full queue drops too: here only that one's, but for
 * what was on its way to another when the program changed. So it has to be the same one twice. */
static int who_is_at(const struct rc_group *group, int fd, unsigned place, uint32_t *before)
{
    struct rc_choice only = {.index = place, .weight = 1};
    int found = -1;
    if (rc_udp_attach(group->lanes[0]->source.fd, &only, 1) < 0)
        return -1;
    for (int time = 0; time < 2; time++) {
        int64_t until = rc_now_us() + REACH_US;
        int at = -1;
        for (unsigned other = 0; other < group->count; other++)
            before[other] = drops_of(group->lanes[other]);
        if (send(fd, "", 0, 0) < 0)
            return -1;
        while ((at = dropped_at(group, before)) < 0 && rc_now_us() < until)
            (void)rc_poll(fd, 0, rc_now_us() + LOOK_US);
        if (at < 0 || (time && at != found))
            return -1;
        found = at;
    }
    return found;
}

/* `place_of`: of each lane, -1 for one that was not found; `numbers`: room for as many. */
void rc_stored_udp_places(const struct rc_group *group, int *place_of, uint32_t *numbers)
{
    in_port_t port = 0;
    unsigned shut = 0;
    int fd = sender(&group->key, &port);
    if (fd < 0)
        return;
    while (shut < group->count && filter_of(group->lanes[shut]) == 0 &&
           shut_out(group->lanes[shut], port) == 0)
        shut++;
    for (unsigned place = 0; shut == group->count && place < group->count; place++) {
        int at = who_is_at(group, fd, place, numbers);
        if (at >= 0 && place_of[at] < 0)
            place_of[at] = (int)place;
    }
    while (shut-- > 0)
        (void)setsockopt(group->lanes[shut]->source.fd, SOL_SOCKET, SO_DETACH_FILTER, "", 0);
    rc_close(&fd);
}
