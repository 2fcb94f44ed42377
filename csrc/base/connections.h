/* connections.h - TCP connections as the kernel names them: diag.c, portfilter.c (netlink),
 * holders.c (who has them), facts.c (what is known of them), opens.c (when they end).
 */
#ifndef RECLUSTER_CONNECTIONS_H
#define RECLUSTER_CONNECTIONS_H

#include <linux/inet_diag.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A TCP connection, by the kernel's name for it. */
struct rc_flow {
    struct inet_diag_sockid id; /* with the cookie no two are the same */
    uint32_t inode;             /* 0: no process has it */
    uint8_t family;
    bool held;
    pid_t holder; /* the first that was seen to have it, */
    int number;   /* as this descriptor */
};

struct rc_flows {
    struct rc_flow *all;
    size_t count, room;
};

struct rc_flow_facts {
    uint8_t state;
    uint32_t inode, unread;
    uint32_t unacked, unsent;      /* bytes: all that are not acknowledged; of these, not sent */
    uint64_t received, sent;       /* bytes */
    uint32_t received_ms, sent_ms; /* since the last one; since the handshake if there is none */
};

struct rc_engine;
int rc_diag_dump(struct rc_engine *engine, sa_family_t family, const in_port_t *ports, size_t count,
                 uint32_t states, struct rc_flows *flows);
int rc_diag_udp(struct rc_engine *engine, sa_family_t family, in_port_t port,
                struct rc_flows *flows);
int rc_diag_find(struct rc_engine *engine, const struct rc_flow *flow, struct rc_flow_facts *out);
void rc_flows_free(struct rc_flows *flows);
int rc_flows_add(struct rc_flows *flows, const struct rc_flow *flow);
void rc_flows_once(struct rc_flows *flows);
int rc_holders_visit(pid_t group, int (*visit)(pid_t pid, void *given), void *given);
int rc_holders_mark(pid_t group, struct rc_flows *flows);
int rc_holders_count(pid_t group, struct rc_flows *flows);
bool rc_is_zombie(pid_t pid);
bool rc_epoll_has(pid_t pid, long number, uint64_t inode);
bool rc_process_holds(pid_t pid, uint64_t inode);
bool rc_polled_by(pid_t pid, uint64_t inode);

/* portfilter.c; the kernel checks each jump by going to its aim from the beginning */
enum { RC_PORTS_MAX = 1024 };
int rc_portfilter(const in_port_t *ports, size_t count, struct inet_diag_bc_op **text);

#endif
