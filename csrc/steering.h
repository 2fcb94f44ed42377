/* steering.h - programs of classic BPF that choose a lane, and the sink. They know
 * indices, not lanes. Direction: steering -> weighted, sticky -> text; udpflow, sink.
 */
#ifndef RECLUSTER_STEERING_H
#define RECLUSTER_STEERING_H

#include "recluster.h"

#include <netinet/in.h>

struct rc_key;

/* text.c */
struct sock_filter;
enum { RC_PROGRAM_MAX = 4096 };
/* A program that is being written: no more than `room` of it is kept. */
struct rc_text {
    struct sock_filter *out;
    unsigned length, room;
};
/* What the accumulator leads to, from `first` up to the next leaf's. */
struct rc_leaf {
    uint32_t first;
    unsigned index;
};
void rc_text_add(struct rc_text *text, uint16_t code, uint32_t k);
void rc_text_search(struct rc_text *text, const struct rc_leaf *leaves, unsigned count);

/* steering.c; the choice by weights in weighted.c, by address in sticky.c */
struct rc_choice {
    unsigned index;  /* position in the group */
    uint32_t worker; /* equal numbers share one worker's part */
    uint32_t slot;   /* for source_ip: equal numbers share one slot's part */
    double weight;   /* the worker's part; where all are equal none need be given */
};
int rc_steering_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room);
int rc_weighted_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room);
int rc_sticky_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                    unsigned room);
/* Connections from this source port go to this index. */
struct rc_detour {
    in_port_t port; /* host order */
    unsigned index;
};
enum { RC_DETOUR_LENGTH = 8 };
int rc_steering_attach(int fd, enum rc_policy policy, const struct rc_choice *choices,
                       unsigned count, const struct rc_detour *detour);

/* sink.c */
int rc_sibling_listen(const struct rc_key *key, int lane, int backlog);
int rc_client_at(const struct rc_key *key, in_port_t port);
void rc_reachable(const struct rc_key *key, struct sockaddr_in6 *to);
int rc_sink_listen(const struct rc_key *key, int lane);
int rc_sink_client(const struct rc_key *key, in_port_t *port);
int rc_sink_fill(int sink, int client, const struct rc_key *key);

/* udpflow.c */
int rc_udp_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                 unsigned room);
int rc_udp_attach(int fd, const struct rc_choice *choices, unsigned count);
unsigned rc_udp_owner(const struct rc_choice *choices, unsigned count, uint32_t bucket);

#endif
