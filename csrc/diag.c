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

static int flows_add(struct rc_flows *flows, const struct inet_diag_msg *message)
{
    if (flows->count == flows->room) {
        size_t room = flows->room ? flows->room * 2 : 64;
        struct rc_flow *all = realloc(flows->all, room * sizeof *all);
        if (!all)
            return -ENOMEM;
        flows->all = all;
        flows->room = room;
    }
    flows->all[flows->count++] = (struct rc_flow){
        .id = message->id, .family = message->idiag_family, .inode = message->idiag_inode};
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

static int ask(struct rc_engine *engine, const struct inet_diag_req_v2 *question, unsigned flags)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
    } request = {
        .head = {.nlmsg_len = sizeof request,
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                 .nlmsg_seq = ++engine->diag_asked},
        .body = *question,
    };
    struct iovec part = {.iov_base = &request, .iov_len = sizeof request};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
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

/* ---- all of a port -------------------------------------------------------- */

/* 1 at the end of the dump, 0 to go on, -errno. */
static int take(struct rc_engine *engine, const struct answer *answer, struct rc_flows *flows,
                bool *torn)
{
    size_t left = answer->length;
    const struct nlmsghdr *head = (const void *)answer->bytes;
    while (is_whole(head, left)) {
        int error = 0;
        if (head->nlmsg_seq != engine->diag_asked)
            error = -EPROTO;
        else if (head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR)
            return (error = verdict(head)) < 0 ? error : 1;
        else if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
            error = flows_add(flows, NLMSG_DATA(head));
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
                struct rc_flows *flows, bool *torn)
{
    struct answer answer;
    int state = ask(engine, question, NLM_F_DUMP);
    while (state == 0) {
        state = receive(engine, &answer);
        if (!state)
            state = take(engine, &answer, flows, torn);
    }
    if (state < 0)
        rc_close(&engine->diag);
    return state < 0 ? state : 0;
}

/* Adds the sockets with this local port whose state is in the set of bits. Some
 * may come twice: the kernel lets go of its tables between two datagrams. */
int rc_diag_dump(struct rc_engine *engine, sa_family_t family, in_port_t port, uint32_t states,
                 struct rc_flows *flows)
{
    struct inet_diag_req_v2 question = {.sdiag_family = (uint8_t)family,
                                        .sdiag_protocol = IPPROTO_TCP,
                                        .idiag_states = states,
                                        .id.idiag_sport = port};
    size_t before = flows->count;
    bool torn = false, again = false;
    int error = dump(engine, &question, flows, &torn);
    if (!error && torn) {
        flows->count = before;
        error = dump(engine, &question, flows, &again);
    }
    return error;
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
        .unsent = message->idiag_wqueue,
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
    int error = ask(engine, &question, 0);
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
