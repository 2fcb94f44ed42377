/* kernel.h - what the files of the in-kernel implementation of steering share:
 * kernel.c, kernel_plan.c, cgroup.c, and bpf.c below them. Not installed.
 */
#ifndef RECLUSTER_KERNEL_H
#define RECLUSTER_KERNEL_H

#include "internal.h"

#include "bpf/shared.h"

_Static_assert(sizeof(struct rc_tally) % 8 == 0 && sizeof(struct rc_plan) % 8 == 0,
               "an array map rounds its values up to 8 bytes");

/* ---- bpf.c: the bpf system call --------------------------------------------- */

enum rc_bpf_map {
    RC_MAP_LANES,   /* REUSEPORT_SOCKARRAY: number -> lane */
    RC_MAP_MARKS,   /* SK_STORAGE: socket -> struct rc_mark */
    RC_MAP_TALLIES, /* ARRAY: number -> struct rc_tally */
    RC_MAP_PLAN,    /* ARRAY of one: struct rc_plan, or rc_flow_plan */
    RC_MAP_FLOWS,   /* LRU_HASH: struct rc_flow_key -> number */
    RC_MAPS,
};

enum rc_bpf_program { RC_BPF_ROUND_ROBIN, RC_BPF_LEAST_CONNECTIONS, RC_BPF_COUNT, RC_BPF_FLOWS };

int rc_bpf_sockarray(unsigned entries);
int rc_bpf_shared(unsigned entries, size_t each, void **memory);
int rc_bpf_see(int map, unsigned entries, size_t each, void **memory);
void rc_bpf_unshare(void *memory, size_t length);
int rc_bpf_storage(void);
int rc_bpf_flows(void);
int rc_bpf_update(int map, uint32_t key, const void *value);
int rc_bpf_load(enum rc_bpf_program program, const int maps[RC_MAPS], unsigned lanes, char *log,
                size_t room);
int rc_bpf_link_cgroup(int program, int cgroup);

/* ---- cgroup.c ------------------------------------------------------------------ */

int rc_cgroup_open(void);

/* ---- kernel.c, kernel_plan.c ------------------------------------------------------ */

/* Of an engine whose steering is done in the kernel. */
struct rc_kernel {
    enum rc_policy policy;
    int lanes, marks, tallies_map, link; /* descriptors, or -1 */
    struct rc_tally *tallies;            /* shared with the programs */
    struct rc_kernel_plan spare;         /* for the first group: it has been loaded to try */
    uint32_t next;                       /* where to look for a free number */
    bool taken[RC_NUMBERS];
    struct rc_lane *sorted[RC_PLAN_LANES]; /* scratch of rc_kernel_steer */
};

int rc_kernel_plan_new(struct rc_kernel *kernel, struct rc_kernel_plan *plan, unsigned lanes,
                       const char **refused);
uint32_t rc_kernel_number(struct rc_kernel *kernel);

#endif
