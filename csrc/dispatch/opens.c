/* opens.c - how many connections of each worker are open.
 *
 * Owns: the count, by cookie, of the connections that were handed out. The kernel
 * tells everybody in the network namespace of each TCP socket that it destroys
 * (SKNLGRP_INET_TCP_DESTROY, net/core/sock_diag.c; no privilege is needed): so a
 * connection counts from the moment it is given until the kernel has let go of it,
 * however it ended, and nobody has to hold it open. The message comes by a kernel
 * thread, 0.2 ms later or, where CPUs are short, much later: so a few connections
 * are asked for as well (4 us each), in turn, before a choice.
 *
 * Invariants:
 *  - a cookie is known before its connection can end: the master still has it;
 *  - when messages were lost (ENOBUFS), the whole is compared with a dump.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { FIRST_ROOM = 256, BUFFER = 4 << 20, AT_A_TIME = 256, PORTS_MAX = 100 };
enum { LOOKS = 64, LOOK_EVERY_MS = 2 };

static uint64_t cookie_of(const struct inet_diag_sockid *id)
{
    return (uint64_t)id->idiag_cookie[0] | (uint64_t)id->idiag_cookie[1] << 32;
}

static uint64_t spread(uint64_t cookie)
{
    return cookie * 0x9e3779b97f4a7c15u;
}

static size_t place_of(const struct rc_opens *opens, uint64_t cookie)
{
    size_t at = (size_t)(spread(cookie) >> 20) & (opens->room - 1);
    while (opens->cookies[at] && opens->cookies[at] != cookie)
        at = (at + 1) & (opens->room - 1);
    return at;
}

static int grow(struct rc_opens *opens)
{
    struct rc_opens next = *opens;
    next.room = opens->room ? opens->room * 2 : FIRST_ROOM;
    next.cookies = calloc(next.room, sizeof *next.cookies);
    next.workers = calloc(next.room, sizeof *next.workers);
    next.flows = calloc(next.room, sizeof *next.flows);
    if (!next.cookies || !next.workers || !next.flows) {
        free(next.cookies);
        free(next.workers);
        free(next.flows);
        return -ENOMEM;
    }
    for (size_t at = 0; at < opens->room; at++)
        if (opens->cookies[at]) {
            size_t to = place_of(&next, opens->cookies[at]);
            next.cookies[to] = opens->cookies[at];
            next.workers[to] = opens->workers[at];
            next.flows[to] = opens->flows[at];
        }
    free(opens->cookies);
    free(opens->workers);
    free(opens->flows);
    *opens = next;
    return 0;
}

/* The places behind it may have come there because this one was taken. */
static void remove_at(struct rc_opens *opens, size_t at)
{
    size_t next = at;
    opens->count--;
    for (;;) {
        opens->cookies[at] = 0;
        size_t home;
        do {
            next = (next + 1) & (opens->room - 1);
            if (!opens->cookies[next])
                return;
            home = (size_t)(spread(opens->cookies[next]) >> 20) & (opens->room - 1);
        } while (at <= next ? at < home && home <= next : at < home || home <= next);
        opens->cookies[at] = opens->cookies[next];
        opens->workers[at] = opens->workers[next];
        opens->flows[at] = opens->flows[next];
        at = next;
    }
}

static void closed(struct rc_engine *engine, uint64_t cookie)
{
    struct rc_opens *opens = &engine->dispatch.opens;
    size_t at = opens->room ? place_of(opens, cookie) : 0;
    if (!opens->room || !opens->cookies[at])
        return;
    struct rc_worker *worker = rc_find(engine, opens->workers[at]);
    if (worker && worker->open)
        worker->open--;
    remove_at(opens, at);
}

static struct rc_flow flow_of(const struct rc_accepted *accepted, uint64_t cookie)
{
    struct rc_flow flow = {.family = (uint8_t)accepted->peer.sin6_family};
    struct sockaddr_in6 name;
    memset(&name, 0, sizeof name);
    (void)rc_socket_name(accepted->fd, &name);
    flow.id.idiag_sport = name.sin6_port;
    flow.id.idiag_dport = accepted->peer.sin6_port;
    flow.id.idiag_cookie[0] = (uint32_t)cookie;
    flow.id.idiag_cookie[1] = (uint32_t)(cookie >> 32);
    if (flow.family == AF_INET) {
        flow.id.idiag_src[0] = ((struct sockaddr_in *)(void *)&name)->sin_addr.s_addr;
        flow.id.idiag_dst[0] =
            ((const struct sockaddr_in *)(const void *)&accepted->peer)->sin_addr.s_addr;
    } else {
        memcpy(flow.id.idiag_src, &name.sin6_addr, sizeof name.sin6_addr);
        memcpy(flow.id.idiag_dst, &accepted->peer.sin6_addr, sizeof name.sin6_addr);
        flow.id.idiag_if = accepted->peer.sin6_scope_id;
    }
    return flow;
}

static int add(struct rc_opens *opens, uint32_t worker, const struct rc_flow *flow)
{
    if (opens->count * 2 >= opens->room && grow(opens) < 0 && opens->count + 1 >= opens->room)
        return -ENOMEM; /* it is not counted */
    uint64_t cookie = cookie_of(&flow->id);
    size_t at = place_of(opens, cookie);
    opens->cookies[at] = cookie;
    opens->workers[at] = worker;
    opens->flows[at] = *flow;
    opens->count++;
    return 0;
}

/* The connection is this worker's from now on, whosever it was. */
void rc_opens_add(struct rc_engine *engine, struct rc_worker *worker,
                  const struct rc_accepted *accepted)
{
    struct rc_opens *opens = &engine->dispatch.opens;
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    if (getsockopt(accepted->fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0 || !cookie)
        return;
    closed(engine, cookie);
    struct rc_flow flow = flow_of(accepted, cookie);
    worker->open += add(opens, worker->id, &flow) == 0;
}

/* Before a choice: ask about a few, at most every two milliseconds. One that the server has
 * closed, or half of it, is not open; what it still sends is the kernel's business. */
void rc_opens_look(struct rc_engine *engine, int64_t now_ms)
{
    struct rc_opens *opens = &engine->dispatch.opens;
    struct rc_flow_facts facts;
    int looks = LOOKS;
    if (now_ms - opens->looked_ms < LOOK_EVERY_MS)
        return;
    opens->looked_ms = now_ms;
    for (size_t places = opens->room; places > 0 && looks > 0 && opens->count; places--) {
        size_t at = opens->next++ & (opens->room - 1);
        if (!opens->cookies[at])
            continue;
        looks--;
        int found = rc_diag_find(engine, &opens->flows[at], &facts);
        if (found < 0)
            return; /* a sandbox without it: the messages are all there is */
        if (found == 0 || facts.state == TCP_LAST_ACK || facts.state == TCP_FIN_WAIT1 ||
            facts.state == TCP_FIN_WAIT2 || facts.state == TCP_CLOSING ||
            facts.state == TCP_TIME_WAIT) {
            closed(engine, opens->cookies[at]);
            opens->next--; /* another may have moved here */
        }
    }
}

/* It has died, and its connections with it. */
void rc_opens_forget(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_opens *opens = &engine->dispatch.opens;
    for (size_t at = 0; worker->open && at < opens->room;)
        if (opens->cookies[at] && opens->workers[at] == worker->id)
            remove_at(opens, at); /* what moves here is looked at next */
        else
            at++;
    worker->open = 0;
}

/* ---- what the kernel says ------------------------------------------------------- */

int rc_opens_open(struct rc_engine *engine)
{
    struct sockaddr_nl groups = {.nl_family = AF_NETLINK,
                                 .nl_groups = 1 << (SKNLGRP_INET_TCP_DESTROY - 1) |
                                              1 << (SKNLGRP_INET6_TCP_DESTROY - 1)};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return -errno;
    (void)rc_socket_set(fd, SOL_SOCKET, SO_RCVBUF, BUFFER); /* as much as rmem_max allows */
    int error = bind(fd, (struct sockaddr *)&groups, sizeof groups) < 0
                    ? -errno
                    : rc_source_add(engine->epoll, &engine->dispatch.opens.source, RC_SOURCE_OPENS,
                                    fd, EPOLLIN);
    if (error)
        rc_close(&fd);
    return error;
}

/* Only of sockets with a port of ours: others' must not wake us. */
int rc_opens_filter(struct rc_engine *engine)
{
    const uint32_t port = NLMSG_HDRLEN + offsetof(struct inet_diag_msg, id.idiag_sport);
    struct sock_filter text[2 * PORTS_MAX + 2];
    unsigned short length = 0;
    text[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, port);
    for (struct rc_group *group = engine->groups; group; group = group->next) {
        if (!group->front)
            continue;
        if (length > 2 * PORTS_MAX - 2)
            return 0; /* the filter stays as it was: no count for more ports than that */
        text[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                      ntohs(group->key.address.sin6_port), 0, 1);
        text[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
    }
    text[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {.len = length, .filter = text};
    if (setsockopt(engine->dispatch.opens.source.fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
                   sizeof program) < 0)
        return -errno;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;
    return (one > two) - (one < two);
}

/* All that fronts have, or had, of one family. */
static int dump_fronts(struct rc_engine *engine, sa_family_t family, struct rc_flows *flows)
{
    size_t count = 0;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        count++;
    in_port_t *ports = calloc(count + 1, sizeof *ports);
    if (!ports)
        return -ENOMEM;
    count = 0;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        if (group->front && group->key.address.sin6_family == family)
            ports[count++] = group->key.address.sin6_port;
    int error = rc_diag_dump(engine, family, ports, count, ~(1u << TCP_TIME_WAIT), flows);
    free(ports);
    return error;
}

/* Messages were lost: keep what a dump still has. */
static void compare(struct rc_engine *engine)
{
    struct rc_opens *opens = &engine->dispatch.opens;
    struct rc_flows flows = {0};
    int error = dump_fronts(engine, AF_INET, &flows);
    if (!error)
        error = dump_fronts(engine, AF_INET6, &flows);
    uint64_t *alive = error || !flows.count ? NULL : calloc(flows.count, sizeof *alive);
    if (!error && (alive || !flows.count)) {
        for (size_t at = 0; at < flows.count; at++)
            alive[at] = cookie_of(&flows.all[at].id);
        if (alive)
            qsort(alive, flows.count, sizeof *alive, by_number);
        for (size_t at = 0; at < opens->room;) {
            uint64_t cookie = opens->cookies[at];
            if (cookie &&
                !(alive && bsearch(&cookie, alive, flows.count, sizeof *alive, by_number)))
                closed(engine, cookie); /* what moves here is looked at next */
            else
                at++;
        }
    }
    free(alive);
    rc_flows_free(&flows);
}

void rc_opens_read(struct rc_engine *engine)
{
    char bytes[4096];
    bool lost = false;
    for (int most = AT_A_TIME; most > 0; most--) {
        ssize_t got = recv(engine->dispatch.opens.source.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == ENOBUFS) {
            lost = true;
            continue;
        }
        if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
            break;
        struct inet_diag_msg message;
        memcpy(&message, bytes + NLMSG_HDRLEN, sizeof message);
        closed(engine, cookie_of(&message.id));
    }
    if (lost)
        compare(engine);
}

/* ---- for the master that takes this one's place ---------------------------------- */

/* The caller frees them. */
int rc_opens_carry(const struct rc_engine *engine, struct rc_open **out, size_t *count)
{
    const struct rc_opens *opens = &engine->dispatch.opens;
    *count = 0;
    *out = opens->count ? calloc(opens->count, sizeof **out) : NULL;
    if (opens->count && !*out)
        return -ENOMEM;
    for (size_t at = 0; at < opens->room; at++)
        if (opens->cookies[at]) {
            (*out)[*count].worker = opens->workers[at];
            (*out)[(*count)++].flow = opens->flows[at];
        }
    return 0;
}

/* Before its workers. */
int rc_opens_resume(struct rc_engine *engine, const void *opens, size_t count)
{
    int error = 0;
    for (size_t at = 0; at < count && !error; at++) {
        struct rc_open one;
        memcpy(&one, (const char *)opens + at * sizeof one, sizeof one);
        error = add(&engine->dispatch.opens, one.worker, &one.flow);
    }
    return error;
}

/* With all workers and fronts. What has ended while nobody listened to the kernel is found by a
 * dump. */
int rc_opens_resumed(struct rc_engine *engine)
{
    const struct rc_opens *opens = &engine->dispatch.opens;
    for (size_t at = 0; at < opens->room; at++) {
        struct rc_worker *worker = opens->cookies[at] ? rc_find(engine, opens->workers[at]) : NULL;
        if (worker)
            worker->open++;
    }
    int error = rc_opens_filter(engine);
    if (!error)
        compare(engine);
    return error;
}

void rc_opens_close(struct rc_engine *engine)
{
    struct rc_opens *opens = &engine->dispatch.opens;
    free(opens->cookies);
    free(opens->workers);
    free(opens->flows);
    opens->cookies = NULL;
    opens->workers = NULL;
    opens->flows = NULL;
    opens->count = opens->room = 0;
}
