/* diag.c - asking the kernel about TCP connections: NETLINK_SOCK_DIAG.
 *
 * Owns: the engine's one netlink socket, opened at the first question. Does not
 * own what is asked or what it means. Needs no privilege.
 *
 * Invariants:
 *  - nothing here waits: the kernel answers inside send(2), and goes on with a
 *    dump inside each recv(2), so an answer is there or will never be;
 *  - an exchange that broke off leaves nothing behind: the socket is closed, and
 *    the next question opens another.
 */
#include "internal.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MAX = 32768 }; /* the kernel's limit for one datagram of a dump */

struct answer {
    _Alignas(struct nlmsghdr) char bytes[ANSWER_MAX];
    size_t length;
};

void rc_flows_free(struct rc_flows *flows)
{
    free(flows->all);
    *flows = (struct rc_flows){0};
}

static int by_inode(const void *left, const void *right)
{
    const struct rc_flow *a = left, *b = right;
    return (a->inode > b->inode) - (a->inode < b->inode);
}

/* By inode, each once, as rc_holders_mark wants them; without those that nobody has. */
void rc_flows_once(struct rc_flows *flows)
{
    size_t kept = 0;
    if (flows->count == 0)
        return;
    qsort(flows->all, flows->count, sizeof *flows->all, by_inode);
    for (size_t at = 0; at < flows->count; at++)
        if (flows->all[at].inode && (!kept || flows->all[kept - 1].inode != flows->all[at].inode))
            flows->all[kept++] = flows->all[at];
    flows->count = kept;
}

int rc_flows_add(struct rc_flows *flows, const struct rc_flow *flow)
{
    if (flows->count == flows->room) {
        size_t room = flows->room ? flows->room * 2 : 64;
        struct rc_flow *all = realloc(flows->all, room * sizeof *all);
        if (!all)
            return -ENOMEM;
        flows->all = all;
        flows->room = room;
    }
    flows->all[flows->count++] = *flow;
    return 0;
}

/* Connected, it takes messages from the kernel alone. */
static int diag_open(struct rc_engine *engine)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (engine->diag >= 0)
        return 0;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
        int error = -errno;
        rc_close(&fd);
        return error;
    }
    engine->diag = fd;
    return 0;
}

/* `filter`: which sockets, beside what the question says; NULL: all. */
static int ask(struct rc_engine *engine, const struct inet_diag_req_v2 *question, unsigned flags,
               struct inet_diag_bc_op *filter, size_t length)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
        struct rtattr part;
    } request = {
        .head = {.nlmsg_len = offsetof(__typeof__(request), part),
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                 .nlmsg_seq = ++engine->diag_asked},
        .body = *question,
        .part = {.rta_type = INET_DIAG_REQ_BYTECODE, .rta_len = (uint16_t)RTA_LENGTH(length)},
    };
    _Static_assert(offsetof(__typeof__(request), part) % RTA_ALIGNTO == 0, "no gap before it");
    if (filter)
        request.head.nlmsg_len += RTA_LENGTH(length);
    struct iovec parts[] = {
        {.iov_base = &request, .iov_len = filter ? sizeof request : request.head.nlmsg_len},
        {.iov_base = filter, .iov_len = length},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = filter ? 2 : 1};
    int error = diag_open(engine);
    if (!error && sendmsg(engine->diag, &message, MSG_DONTWAIT) < 0)
        error = -errno;
    return error;
}

static int receive(struct rc_engine *engine, struct answer *answer)
{
    struct iovec part = {.iov_base = answer->bytes, .iov_len = sizeof answer->bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t got = recvmsg(engine->diag, &message, MSG_DONTWAIT);
    if (got < 0)
        return -errno;
    answer->length = (size_t)got;
    return message.msg_flags & MSG_TRUNC ? -EMSGSIZE : 0;
}

static bool is_whole(const struct nlmsghdr *head, size_t left)
{
    return left >= sizeof *head && head->nlmsg_len >= sizeof *head && head->nlmsg_len <= left;
}

/* The errno in a message that is not about a socket; both kinds begin with it. */
static int verdict(const struct nlmsghdr *head)
{
    int error = 0;
    if (head->nlmsg_len >= NLMSG_LENGTH(sizeof error))
        memcpy(&error, NLMSG_DATA(head), sizeof error);
    return error;
}

/* ---- all of some ports ----------------------------------------------------- */

/* 1 at the end of the dump, 0 to go on, -errno. */
static int take(struct rc_engine *engine, const struct answer *answer, struct rc_flows *flows,
                bool *torn)
{
    size_t left = answer->length;
    const struct nlmsghdr *head = (const void *)answer->bytes;
    while (is_whole(head, left)) {
        const struct inet_diag_msg *told = NLMSG_DATA(head);
        int error = 0;
        if (head->nlmsg_seq != engine->diag_asked)
            error = -EPROTO;
        else if (head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR)
            return (error = verdict(head)) < 0 ? error : 1;
        else if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
            error = rc_flows_add(flows, &(struct rc_flow){.id = told->id,
                                                          .family = told->idiag_family,
                                                          .inode = told->idiag_inode});
        if (error)
            return error;
        *torn |= (head->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        size_t step = NLMSG_ALIGN(head->nlmsg_len);
        left -= step < left ? step : left;
        head = (const void *)((const char *)head + step);
    }
    return 0;
}

static int dump(struct rc_engine *engine, const struct inet_diag_req_v2 *question,
                struct inet_diag_bc_op *filter, size_t length, struct rc_flows *flows, bool *torn)
{
    struct answer answer;
    int state = ask(engine, question, NLM_F_DUMP, filter, length);
    while (state == 0) {
        state = receive(engine, &answer);
        if (!state)
            state = take(engine, &answer, flows, torn);
    }
    if (state < 0)
        rc_close(&engine->diag);
    return state < 0 ? state : 0;
}

static int dump_some(struct rc_engine *engine, struct inet_diag_req_v2 *question,
                     const in_port_t *ports, size_t count, struct rc_flows *flows)
{
    struct inet_diag_bc_op *filter = NULL;
    size_t before = flows->count;
    bool torn = false, again = false;
    int error = 0, length = 0;
    if (count > 1)
        length = rc_portfilter(ports, count, &filter);
    else
        question->id.idiag_sport = ports[0];
    if (length < 0)
        return length;
    error = dump(engine, question, filter, (size_t)length, flows, &torn);
    if (!error && torn) {
        flows->count = before;
        error = dump(engine, question, filter, (size_t)length, flows, &again);
    }
    free(filter);
    return error;
}

/* Adds the sockets with one of these local ports (0: with any) whose state is in the set of
 * bits. Some may come twice: the kernel lets go of its tables between two datagrams. */
int rc_diag_dump(struct rc_engine *engine, sa_family_t family, const in_port_t *ports, size_t count,
                 uint32_t states, struct rc_flows *flows)
{
    int error = 0;
    for (size_t from = 0, some; !error && from < count; from += some) {
        struct inet_diag_req_v2 question = {
            .sdiag_family = (uint8_t)family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = states};
        some = count - from < RC_PORTS_MAX ? count - from : RC_PORTS_MAX;
        error = dump_some(engine, &question, ports + from, some, flows);
    }
    return error;
}

/* Of UDP, connected and not. */
int rc_diag_udp(struct rc_engine *engine, sa_family_t family, in_port_t port,
                struct rc_flows *flows)
{
    struct inet_diag_req_v2 question = {
        .sdiag_family = (uint8_t)family, .sdiag_protocol = IPPROTO_UDP, .idiag_states = UINT32_MAX};
    return dump_some(engine, &question, &port, 1, flows);
}

/* ---- one connection -------------------------------------------------------- */

static void read_info(const struct nlmsghdr *head, struct rc_flow_facts *out)
{
    const struct inet_diag_msg *message = NLMSG_DATA(head);
    struct tcp_info info;
    size_t left = head->nlmsg_len - NLMSG_LENGTH(sizeof *message);
    memset(&info, 0, sizeof info);
    for (const struct rtattr *part = (const void *)(message + 1); RTA_OK(part, left);
         part = RTA_NEXT(part, left))
        if (part->rta_type == INET_DIAG_INFO) {
            size_t length = RTA_PAYLOAD(part); /* an older or newer kernel's */
            memcpy(&info, RTA_DATA(part), length < sizeof info ? length : sizeof info);
        }
    *out = (struct rc_flow_facts){
        .state = message->idiag_state,
        .inode = message->idiag_inode,
        .unread = message->idiag_rqueue,
        .unacked = message->idiag_wqueue,
        .unsent = info.tcpi_notsent_bytes,
        .received = info.tcpi_bytes_received,
        .sent = info.tcpi_bytes_sent,
        .received_ms = info.tcpi_last_data_recv,
        .sent_ms = info.tcpi_last_data_sent,
    };
}

/* 1 and its facts, or 0 if it is gone: the cookie tells it from a later one with
 * the same addresses, and from a listener that would take it. */
int rc_diag_find(struct rc_engine *engine, const struct rc_flow *flow, struct rc_flow_facts *out)
{
    struct inet_diag_req_v2 question = {.sdiag_family = flow->family,
                                        .sdiag_protocol = IPPROTO_TCP,
                                        .idiag_ext = 1 << (INET_DIAG_INFO - 1),
                                        .id = flow->id};
    struct answer answer;
    const struct nlmsghdr *head = (const void *)answer.bytes;
    int error = ask(engine, &question, 0, NULL, 0);
    if (!error)
        error = receive(engine, &answer);
    if (!error && (!is_whole(head, answer.length) || head->nlmsg_seq != engine->diag_asked))
        error = -EPROTO;
    if (!error && head->nlmsg_type == NLMSG_ERROR) {
        error = verdict(head);
        if (error == -ENOENT || error == -ESTALE)
            return 0;
        error = error < 0 ? error : -EPROTO;
    }
    if (!error && head->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
        error = -EPROTO;
    if (error) {
        rc_close(&engine->diag);
        return error;
    }
    read_info(head, out);
    return 1;
}
