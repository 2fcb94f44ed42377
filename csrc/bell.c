/* bell.c - makes the listening socket of a worker readable, and unreadable again.
 *
 * Owns: a client socket of the master's with a port of its own, which the group's
 * program sends to this lane, and that program. Ringing is a
 * connection that waits in the lane's queue; the worker wakes and calls accept,
 * which is trapped and answered with another connection (accept_door.c).
 *
 * Invariant: whatever else is found in a lane's queue is a client, for a stranger
 * may come from the same port of another address: it is handed out, never closed.
 * New connections go to the front while any worker may be chosen, else to the sink; to
 * a worker's lane only its bell.
 *
 * Over loopback the handshake is over before connect(2) has returned; where it is
 * not (packets go to another CPU), the bell rings a little later.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PORT_TRIES = 8 };

/* The port must be asked for by number: one that the kernel chose is lost when the
 * socket is disconnected (SOCK_BINDPORT_LOCK, net/ipv4/af_inet.c). */
int rc_bell_new(const struct rc_key *key, struct rc_bell *bell)
{
    int error = -EADDRINUSE;
    for (int tries = 0; tries < PORT_TRIES && error == -EADDRINUSE; tries++) {
        in_port_t port;
        int probe = rc_sink_client(key, &port);
        if (probe < 0)
            return probe;
        rc_close(&probe);
        int fd = rc_client_at(key, port);
        error = fd < 0 ? fd : 0;
        if (!error)
            *bell = (struct rc_bell){.fd = fd, .port = port};
    }
    return error;
}

int rc_bell_ring(struct rc_bell *bell, const struct rc_key *key)
{
    struct sockaddr_in6 to;
    if (bell->rung)
        return 0;
    rc_reachable(key, &to);
    if (connect(bell->fd, (struct sockaddr *)&to, rc_address_length(&to)) < 0 &&
        errno != EINPROGRESS)
        return -errno;
    bell->rung = true;
    return 0;
}

static bool is_ours(const struct rc_bell *bell, const struct sockaddr_in6 *peer)
{
    const struct sockaddr_in *peer4 = (const struct sockaddr_in *)(const void *)peer;
    if (ntohs(peer->sin6_port) != bell->port)
        return false;
    if (peer->sin6_family == AF_INET)
        return memcmp(&peer4->sin_addr, &bell->host[0], sizeof peer4->sin_addr) == 0;
    return memcmp(&peer->sin6_addr, bell->host, sizeof peer->sin6_addr) == 0;
}

/* 1 and a stranger that was in the queue: call again. 0: of what was in the queue
 * nothing is left. The worker cannot take from it meanwhile, its accept is trapped; and only what
 * is there is accepted, for the description may be blocking. */
int rc_bell_silence(struct rc_bell *bell, int lane, struct rc_hand *stranger)
{
    if (bell->rung) {
        struct sockaddr_in6 self;
        struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
        socklen_t length = sizeof self;
        memset(&self, 0, sizeof self);
        if (getsockname(bell->fd, (struct sockaddr *)&self, &length) == 0) {
            if (self.sin6_family == AF_INET)
                memcpy(bell->host, &((struct sockaddr_in *)(void *)&self)->sin_addr, 4);
            else
                memcpy(bell->host, &self.sin6_addr, sizeof bell->host);
        }
        (void)connect(bell->fd, &nowhere, sizeof nowhere); /* with RST: no TIME_WAIT */
        bell->rung = false;
    }
    for (unsigned queued = rc_listener_queued(lane); queued > 0; queued--) {
        *stranger = (struct rc_hand){.length = sizeof stranger->peer};
        stranger->fd =
            accept4(lane, (struct sockaddr *)&stranger->peer, &stranger->length, SOCK_CLOEXEC);
        if (stranger->fd < 0)
            return 0;
        if (!is_ours(bell, &stranger->peer))
            return 1;
        close(stranger->fd);
    }
    return 0;
}

/* ---- the program's part ------------------------------------------------------- */

struct text {
    struct sock_filter *out;
    unsigned length, room;
};

static void emit(struct text *text, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    if (text->length < text->room)
        text->out[text->length] = (struct sock_filter){code, jt, jf, k};
    text->length++;
}

static int by_port(const void *a, const void *b)
{
    const struct rc_detour *one = a, *two = b;
    return (one->port > two->port) - (one->port < two->port);
}

/* Binary search; a port that is no bell's runs on to a jump to the end, whose
 * distance is filled in later (a jump of 0 marks it). */
static void search(struct text *text, const struct rc_detour *bells, unsigned count)
{
    if (count == 1) {
        emit(text, BPF_JMP | BPF_JEQ | BPF_K, bells->port, 0, 1);
        emit(text, BPF_RET | BPF_K, bells->index, 0, 0);
        emit(text, BPF_JMP | BPF_JA, 0, 0, 0);
        return;
    }
    unsigned half = count / 2, right = half * 3 + (half - 1) * 2;
    emit(text, BPF_JMP | BPF_JGE | BPF_K, bells[half].port, 0, 1);
    emit(text, BPF_JMP | BPF_JA, right, 0, 0);
    search(text, bells, half);
    search(text, bells + half, count - half);
}

/* In front of a program: each bell's port goes to its lane. The length, or 0. */
unsigned rc_bells_build(const struct rc_group *group, struct sock_filter *out, unsigned room)
{
    const uint32_t version = (uint32_t)SKF_NET_OFF, port4 = version + 20, port6 = version + 40;
    struct rc_detour *bells = calloc(group->count ? group->count : 1, sizeof *bells);
    struct text text = {.out = out, .room = room};
    unsigned count = 0;
    for (unsigned at = 0; bells && at < group->count; at++)
        if (group->lanes[at]->worker && group->lanes[at]->taker.bell.fd >= 0)
            bells[count++] = (struct rc_detour){group->lanes[at]->taker.bell.port, at};
    if (count) {
        qsort(bells, count, sizeof *bells, by_port);
        emit(&text, BPF_LD | BPF_B | BPF_ABS, version, 0, 0);
        emit(&text, BPF_ALU | BPF_RSH | BPF_K, 4, 0, 0);
        emit(&text, BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2);
        emit(&text, BPF_LD | BPF_H | BPF_ABS, port4, 0, 0);
        emit(&text, BPF_JMP | BPF_JA, 1, 0, 0);
        emit(&text, BPF_LD | BPF_H | BPF_ABS, port6, 0, 0);
        unsigned first = text.length;
        search(&text, bells, count);
        for (unsigned at = first; at < text.length && at < room; at++)
            if (out[at].code == (BPF_JMP | BPF_JA) && out[at].k == 0)
                out[at].k = text.length - at - 1;
    }
    free(bells);
    return text.length <= room ? text.length : 0;
}

/* One program: bells to their lanes, all others to the front, or to the sink. */
int rc_bells_attach(const struct rc_group *group, unsigned limit)
{
    struct sock_filter text[RC_PROGRAM_MAX];
    unsigned front = group->count, sink = group->count;
    bool open = false;
    for (unsigned at = 0; at < group->count; at++) {
        open |= group->lanes[at]->chosen;
        if (group->lanes[at] == group->front)
            front = at;
        if (group->lanes[at] == group->sink)
            sink = at;
    }
    unsigned index = open && front < limit ? front : sink < limit ? sink : front;
    unsigned length = rc_bells_build(group, text, RC_PROGRAM_MAX - 1);
    text[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, index);
    struct sock_fprog program = {.len = (unsigned short)length, .filter = text};
    if (setsockopt(group->lanes[0]->source.fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
                   sizeof program) < 0)
        return -errno;
    return 0;
}
