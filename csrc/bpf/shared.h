/* shared.h - what the programs in the kernel and the master both see.
 *
 * Owns the layout of the maps. A lane is known here by its number, an index of
 * the sockarray and of the tallies; 0 is nobody's. Plain integers of fixed size
 * at their natural alignment only: one side is compiled for another machine.
 */
#ifndef RECLUSTER_BPF_SHARED_H
#define RECLUSTER_BPF_SHARED_H

#include <stdint.h>

enum {
    RC_NUMBERS = 4096,   /* lanes of one engine that can have a number */
    RC_PLAN_LANES = 512, /* lanes of one group that can be chosen at a time */
    RC_STIRRED_SHIFT = 16,
};

/* Per lane. `stirred`: when a connection last became established or ended, in units of
 * 2^RC_STIRRED_SHIFT ns (65 us; it goes round in 78 hours). `pending`: SYNs of the last one to two
 * periods without a handshake yet, as period << 32 | older << 16 | newer; see balance.bpf.c. */
struct rc_tally {
    uint32_t established; /* connections that the lane's worker has, or will have */
    uint32_t stirred;
    uint64_t pending;
    uint64_t accepted; /* ever established, of all lanes that had the number */
};

/* Who may be chosen. Worker w has the lanes entry[first[w]] to
 * entry[first[w + 1] - 1]; behind the last one stands RC_NO_LANE. An entry is read
 * in one piece, so it also says of which version it is. The entries come last: a verifier
 * without CAP_PERFMON has the loop over them go on until they end. */
#define RC_NO_LANE 0xffffffffu
#define RC_ENTRY(number, version) ((uint32_t)(version) << 16 | (number))
#define RC_ENTRY_NUMBER(entry) ((uint32_t)(entry) & 0xffff)
struct rc_side {
    uint32_t workers; /* 0: nobody, and nothing to fall back to */
    uint32_t lanes;
    uint32_t sink; /* its number; 0: there is none */
    uint32_t unused;
    uint32_t first[RC_PLAN_LANES + 1];
    uint32_t entry[RC_PLAN_LANES + 1];
};

/* Per group. The master writes the side that is not in use, then adds one to
 * version: its lowest bit says which side is. */
struct rc_plan {
    uint64_t version;
    uint64_t unused[7]; /* the cursor is written by every CPU: another cache line */
    uint64_t cursor;
    uint64_t unused_too[7];
    struct rc_side side[2];
};

/* Each lane has this on its socket, and each of its connections inherits it. */
struct rc_mark {
    uint32_t number;
    uint32_t counted; /* 1: the tally has this connection */
};

/* ---- flows.bpf.c ------------------------------------------------------------- */

enum {
    RC_FLOW_LANES = 1024,  /* lanes of one UDP group that can have a number */
    RC_FLOW_BUCKETS = 512, /* of flows that were not seen before */
    RC_FLOWS = 32768,      /* that are remembered; the one longest unheard of goes first */
};

struct rc_flow_key {
    uint32_t address[4]; /* as in the packet; of IPv4 the last word */
    uint32_t port;
};

/* Per UDP group. The lowest bit of version says which side is in force; until[n]:
 * CLOCK_MONOTONIC in ns, up to when lane n keeps the flows it has. */
struct rc_flow_plan {
    uint64_t version;
    uint64_t until[RC_FLOW_LANES];
    struct {
        uint32_t lane[RC_FLOW_BUCKETS];
    } side[2];
};

#endif
