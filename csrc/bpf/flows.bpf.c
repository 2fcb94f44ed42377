/* flows.bpf.c - which lane of a UDP group a datagram goes to (SK_REUSEPORT).
 *
 * Owns: the flows that were seen, by source address and port, and the lane of each.
 *
 * Invariant: a flow goes to the lane it went to last, for as long as the master lets
 * it: without end while the lane may be chosen, for a while after that, not at all
 * when its worker is dead. Else it goes where its bucket leads, and stays there.
 *
 * Built by `make bpf` into balance.h, as balance.bpf.c is.
 */
#include <linux/bpf.h>

#include "shared.h"

#define SECTION(name) __attribute__((section(name), used))

extern char rc_map_lanes[]; /* REUSEPORT_SOCKARRAY, by number */
extern char rc_map_flows[]; /* LRU_HASH of struct rc_flow_key -> number */
extern struct rc_flow_plan rc_map_plan;

static void *(*const lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const update)(void *map, const void *key, const void *value,
                            uint64_t flags) = (void *)BPF_FUNC_map_update_elem;
static long (*const select_reuseport)(struct sk_reuseport_md *ctx, void *map, void *key,
                                      uint64_t flags) = (void *)BPF_FUNC_sk_select_reuseport;
static long (*const load_bytes)(const void *ctx, uint32_t offset, void *to, uint32_t length,
                                uint32_t from) = (void *)BPF_FUNC_skb_load_bytes_relative;
static uint64_t (*const coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;

#define IPV4 0x0800
#define MULTIPLIER 0x9e3779b1u

SECTION("program/flows") int flows(struct sk_reuseport_md *ctx)
{
    const uint8_t *header = (const uint8_t *)(long)ctx->data;
    volatile struct rc_flow_plan *plan = &rc_map_plan;
    struct rc_flow_key key = {.address = {0, 0, 0, 0}};
    long error;
    if ((const void *)(header + 8) > (const void *)(long)ctx->data_end)
        return SK_DROP; /* too short for UDP */
    key.port = (uint32_t)header[0] << 8 | header[1];
    if (ctx->eth_protocol == __builtin_bswap16(IPV4))
        error = load_bytes(ctx, 12, &key.address[3], 4, BPF_HDR_START_NET);
    else
        error = load_bytes(ctx, 8, key.address, 16, BPF_HDR_START_NET);
    if (error)
        return SK_DROP;

    uint32_t *seen = lookup(rc_map_flows, &key);
    if (seen) {
        uint32_t lane = *seen % RC_FLOW_LANES;
        if (plan->until[lane] > coarse_ns() && select_reuseport(ctx, rc_map_lanes, &lane, 0) == 0)
            return SK_PASS;
    }
    uint32_t hash = key.port * MULTIPLIER;
#pragma unroll
    for (int at = 0; at < 4; at++)
        hash = (hash ^ key.address[at]) * MULTIPLIER;
    uint32_t lane = plan->side[plan->version & 1].lane[hash >> 15 & (RC_FLOW_BUCKETS - 1)];
    (void)update(rc_map_flows, &key, &lane, BPF_ANY);
    (void)select_reuseport(ctx, rc_map_lanes, &lane, 0);
    return SK_PASS; /* without a selection: by the kernel's hash, if all are gone */
}
