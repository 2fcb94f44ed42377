/* steering.h - programs that choose a lane: of classic BPF, which know indices, not lanes,
 * and by eBPF, where that is allowed (kernel.h has what its files share).
 * Direction: steering -> weighted, sticky -> text <- udpflow; kernel -> kernel_plan, cgroup,
 * bpf <- udpkernel.
 */
#ifndef RECLUSTER_STEERING_H
#define RECLUSTER_STEERING_H

#include "recluster.h"

#include <netinet/in.h>
#include <stdbool.h>

struct rc_engine;
struct rc_group;
struct rc_accepted;
struct rc_lane;
struct rc_udp_plan;
struct rc_worker;

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
/* A group's text, so that it is not attached again; length 0: it is not known. */
struct rc_attached {
    struct sock_filter *text;
    unsigned length;
};
int rc_steering_renew(int fd, enum rc_policy policy, const struct rc_choice *choices,
                      unsigned count, const struct rc_detour *detour, struct rc_attached *attached);

/* udpflow.c */
int rc_udp_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                 unsigned room);
int rc_udp_attach(int fd, const struct rc_choice *choices, unsigned count);
unsigned rc_udp_owner(const struct rc_choice *choices, unsigned count, uint32_t bucket);

/* A group's program in the kernel and what it reads (kernel_plan.c). */
struct rc_plan;
struct rc_kernel_plan {
    struct rc_plan *shared; /* NULL: there is none */
    int program;            /* descriptor; of account only where `shared` is */
    unsigned room;          /* lanes that it looks at */
    bool attached;
};

/* counts.c */
void rc_counts_note(struct rc_lane *lane);
void rc_counts_forgive(struct rc_worker *worker, uint64_t least);
void rc_counts_end(struct rc_worker *worker);

/* kernel.c */
void rc_kernel_close(struct rc_engine *engine);

/* kernel_carry.c: descriptors, or -1 */
struct rc_kernel_maps {
    int lanes, marks, tallies, link;
};
void rc_kernel_carry(const struct rc_engine *engine, struct rc_kernel_maps *out);
int rc_kernel_resume(struct rc_engine *engine, const struct rc_kernel_maps *maps);
void rc_kernel_known(struct rc_lane *lane, uint32_t number, uint64_t counted);

/* kernel_plan.c */
int rc_kernel_steer(struct rc_group *group);
void rc_kernel_forget(struct rc_group *group, struct rc_lane *lane);
void rc_kernel_plan_free(struct rc_kernel_plan *plan);
int rc_kernel_connections(const struct rc_lane *lane);
uint64_t rc_kernel_accepted(const struct rc_lane *lane);
void rc_kernel_moved(const struct rc_lane *to, struct rc_accepted *accepted);

/* udpkernel.c */
int rc_udp_steer(struct rc_group *group, const struct rc_choice *choices, unsigned count);
void rc_udp_forget(struct rc_group *group, struct rc_lane *lane);
void rc_udp_carry(const struct rc_group *group, int *lanes, int *flows);
void rc_udp_resume(struct rc_group *group, int lanes, int flows);
void rc_udp_known(struct rc_lane *lane, uint32_t number);
void rc_udp_plan_close(const struct rc_udp_plan *plan);
void rc_udp_plan_free(struct rc_group *group);

#endif
