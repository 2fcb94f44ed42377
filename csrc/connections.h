/* connections.h - TCP connections as the kernel names them: diag.c (netlink),
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
    uint32_t inode, unread, unsent;
    uint64_t received, sent;       /* bytes */
    uint32_t received_ms, sent_ms; /* since the last one; since the handshake if there is none */
};

struct rc_engine;
int rc_diag_dump(struct rc_engine *engine, sa_family_t family, in_port_t port, uint32_t states,
                 struct rc_flows *flows);
int rc_diag_find(struct rc_engine *engine, const struct rc_flow *flow, struct rc_flow_facts *out);
void rc_flows_free(struct rc_flows *flows);
int rc_holders_mark(pid_t group, struct rc_flows *flows);

struct rc_drain {
    struct rc_retirement *retirement; /* shared by those that retired together */
    struct rc_flows connections;
    int half_open;   /* at the last look */
    bool empty;      /* its lanes' queues, at the last look */
    bool known;      /* connections are those of the worker */
    int64_t calm_ms; /* CLOCK_MONOTONIC of the first such look, of AF_UNIX connections */
};
void rc_drain_free(struct rc_drain *drain);

#endif
