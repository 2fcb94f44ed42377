/* balance.bpf.c - which lane a new connection gets, decided in the kernel.
 *
 * Owns: round_robin and least_connections (SK_REUSEPORT, one of them on each
 * group) and count (SOCK_OPS, on the cgroup, for the latter).
 *
 * Invariants:
 *  - a lane is returned only if its entry is of the plan that was in force when the
 *    program looked: else the master has gone on meanwhile, and it looks again;
 *  - where no lane of the plan can be had the SYN goes to the sink, and without
 *    one it is refused: never to the kernel's hash over the whole group, which
 *    has retired lanes in it (SK_PASS without a selection means that);
 *  - a connection is counted once, and uncounted once.
 *
 * Built by `make bpf` into balance.h. Plain clang, no libbpf: maps are external
 * symbols, and the loader puts their descriptors in (csrc/steer/bpf.c).
 */
#include <linux/bpf.h>

#include "shared.h"

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

extern char rc_map_lanes[];        /* REUSEPORT_SOCKARRAY, by number */
extern char rc_map_marks[];        /* SK_STORAGE of struct rc_mark */
extern char rc_map_tallies[];      /* ARRAY of struct rc_tally, by number */
extern struct rc_plan rc_map_plan; /* the one value of an ARRAY; each group has its own */

static void *(*const lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const select_reuseport)(struct sk_reuseport_md *ctx, void *map, void *key,
                                      uint64_t flags) = (void *)BPF_FUNC_sk_select_reuseport;
static void *(*const storage_get)(void *map, void *sk, void *value,
                                  uint64_t flags) = (void *)BPF_FUNC_sk_storage_get;
static long (*const set_flags)(struct bpf_sock_ops *ctx,
                               int flags) = (void *)BPF_FUNC_sock_ops_cb_flags_set;
static uint64_t (*const coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static uint64_t (*const exact_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;

enum { ATTEMPTS = 4, TRIES = 4 };

/* ---- pending: SYNs that may become connections ------------------------------- */

/* A burst arrives faster than its handshakes end, and would all go to the lane
 * that has the least when it begins. So a SYN counts at once, for one to two
 * periods: long enough for a handshake, and what a flood leaves goes away. */
enum { PERIOD_SHIFT = 30 /* about a second */, HALF_MAX = 0xffff };

INLINE uint64_t period_now(void)
{
    return (coarse_ns() >> PERIOD_SHIFT) & 0xffffffff;
}

/* The same, as it is now: what was newer is older, what was older is forgotten. */
INLINE uint64_t aged(uint64_t pending, uint64_t now)
{
    uint64_t behind = now - (pending >> 32);
    if (behind == 0)
        return pending;
    return now << 32 | (behind == 1 ? (pending & HALF_MAX) << 16 : 0);
}

/* Adds a SYN, or takes away the oldest. With more CPUs in the way than TRIES it
 * is left out: one too many or too few for a second. */
INLINE void pending_change(volatile uint64_t *pending, uint64_t now, int add)
{
#pragma unroll
    for (int at = 0; at < TRIES; at++) {
        uint64_t before = *pending, after = aged(before, now);
        if (add)
            after += (after & HALF_MAX) != HALF_MAX;
        else if (after >> 16 & HALF_MAX)
            after -= 1 << 16;
        else if (after & HALF_MAX)
            after -= 1;
        if (__sync_val_compare_and_swap(pending, before, after) == before)
            return;
    }
}

/* ---- choosing ------------------------------------------------------------------ */

/* Not every packet that meets a listener is a SYN: the ACK of a SYN cookie is to
 * be given a lane, a late packet of a dead connection will be refused by any. Only
 * a SYN moves the cursor. 0 for a SYN; -1 for what is too short for TCP. (The
 * verifier goes every way to a loop, so there is one way only.) */
INLINE int not_syn(const struct sk_reuseport_md *ctx)
{
    const uint8_t *header = (const uint8_t *)(long)ctx->data;
    if ((const void *)(header + 14) > (const void *)(long)ctx->data_end)
        return -1;
    return (header[13] & 0x12) ^ 0x02;
}

/* All ones if the number is negative, else none. clang must not see through it: it
 * would make branches of what hangs on it, and the verifier goes every way through
 * a branch, for each way that came to it. */
INLINE uint64_t if_negative(int64_t number)
{
    __asm__("%0 s>>= 63" : "+r"(number));
    return (uint64_t)number;
}

/* The master writes it meanwhile. */
INLINE volatile struct rc_plan *shared(void)
{
    return &rc_map_plan;
}

INLINE uint64_t turn(int other)
{
    return __sync_fetch_and_add(&shared()->cursor, ((uint64_t)other - 1) >> 63);
}

/* The lane gets the connection, if the entry is of that version. */
INLINE int select(struct sk_reuseport_md *ctx, uint32_t entry, uint64_t version)
{
    uint32_t number = RC_ENTRY_NUMBER(entry);
    return entry == RC_ENTRY(number, version) &&
           select_reuseport(ctx, rc_map_lanes, &number, 0) == 0;
}

INLINE int to_sink(struct sk_reuseport_md *ctx)
{
    uint32_t number = shared()->side[shared()->version & 1].sink;
    return number && select_reuseport(ctx, rc_map_lanes, &number, 0) == 0 ? SK_PASS : SK_DROP;
}

/* Worker after worker, and within a worker lane after lane. */
INLINE int in_turn(struct sk_reuseport_md *ctx, int other)
{
#pragma unroll /* for a verifier without CAP_PERFMON, which goes on where a loop ends */
    for (int at = 0; at < ATTEMPTS; at++) {
        uint64_t version = shared()->version;
        volatile struct rc_side *side = &shared()->side[version & 1];
        uint32_t workers = side->workers;
        if (workers == 0)
            break;
        uint64_t number = turn(other), worker = number % workers;
        if (worker >= RC_PLAN_LANES)
            break;
        uint32_t first = side->first[worker], count = side->first[worker + 1] - first;
        if (count > 1)
            first += (uint32_t)(number / workers % count);
        if (select(ctx, side->entry[first % RC_PLAN_LANES], version))
            return SK_PASS;
    }
    return to_sink(ctx);
}

SECTION("program/round_robin") int round_robin(struct sk_reuseport_md *ctx)
{
    int other = not_syn(ctx);
    return other < 0 ? SK_DROP : in_turn(ctx, other);
}

/* newer + older of this period; newer alone of the one before; else none. */
INLINE uint64_t pending_of(uint64_t pending, uint64_t now)
{
    int64_t behind = (int64_t)(now - (pending >> 32));
    return (pending & HALF_MAX & if_negative(behind - 2)) +
           (pending >> 16 & HALF_MAX & if_negative(behind - 1));
}

INLINE uint32_t stirred_now(void)
{
    return (uint32_t)(exact_ns() >> RC_STIRRED_SHIFT);
}

/* Of lanes with equally many connections, which one first. With none: whose turn it is,
 * so that short connections, which leave all at none, go round. Else the one where a
 * connection came or went most recently: its worker is about to answer, where one that
 * blocks was quiet for longer. Past RECENT nothing can be told from that. */
enum { RECENT = 256 /* 17 ms */ };

INLINE uint64_t order_of(uint64_t has, uint32_t quiet, uint64_t turns)
{
    uint64_t any = if_negative(-(int64_t)has), old = if_negative(RECENT - 1 - (int64_t)quiet);
    return (quiet & any & ~old) | (turns & ~(any & ~old)) + (RECENT & any & old);
}

/* The lane with the fewest. Workers of one program have equally many lanes, so what is
 * even among lanes is even among workers. Where the plan has changed meanwhile, or the
 * lane is gone: any of the plan, in turn. */
SECTION("program/least_connections") int least_connections(struct sk_reuseport_md *ctx)
{
    int other = not_syn(ctx);
    if (other < 0)
        return SK_DROP;
    uint64_t now = period_now(), version = shared()->version;
    uint32_t stirred = stirred_now();
    volatile struct rc_side *side = &shared()->side[version & 1];
    uint64_t lanes = side->lanes, least = ~0ull >> 1, mixed = 0;
    if (lanes == 0)
        return SK_DROP;
    uint64_t after = lanes - turn(other) % lanes;
    volatile uint32_t *entry = side->entry;
    for (uint64_t at = 0; at < RC_PLAN_LANES; at++, entry++) {
        __asm__("" : "+r"(entry)); /* steps on: a sum would be a new one each time, and refused */
        uint32_t this = *entry, number = RC_ENTRY_NUMBER(this);
        volatile struct rc_tally *tally = lookup(rc_map_tallies, &number);
        if (!tally) /* RC_NO_LANE: the end */
            break;
        uint64_t has = tally->established + pending_of(tally->pending, now);
        uint64_t turns = at + after - lanes; /* from the one whose turn it is to this one */
        turns += lanes & if_negative((int64_t)turns);
        uint64_t order = order_of(has, stirred - tally->stirred, turns);
        uint64_t more = (has << 32 | order << 16 | number) - least;
        least += more & if_negative((int64_t)more);
        mixed |= this ^ RC_ENTRY(number, version);
    }
    uint32_t best = RC_ENTRY_NUMBER(least);
    struct rc_tally *tally = lookup(rc_map_tallies, &best);
    if (!tally || mixed)
        return in_turn(ctx, other);
    if (!other)
        pending_change(&tally->pending, now, 1);
    return select(ctx, RC_ENTRY(best, version), version) ? SK_PASS : in_turn(ctx, other);
}

/* ---- counting ------------------------------------------------------------------- */

enum { ESTABLISHED = 1, SYN_RECEIVED = 3, CLOSE_WAIT = 8 };

/* A connection counts from the end of its handshake (a flood of SYNs has none)
 * until its server has closed it or it was reset. CLOSE_WAIT counts: the client
 * says no more, the server may still work for it. */
SECTION("program/count") int count(struct bpf_sock_ops *ctx)
{
    uint32_t what = ctx->op;
    if (what != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && what != BPF_SOCK_OPS_STATE_CB)
        return 1;
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 1;
    struct rc_mark *mark = storage_get(rc_map_marks, sk, 0, 0);
    if (!mark)
        return 1;
    struct rc_tally *tally = lookup(rc_map_tallies, &mark->number);
    if (!tally)
        return 1;
    if (what == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
        if (mark->counted)
            return 1;
        if (set_flags(ctx, (int)(ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG)) != 0)
            return 1; /* its end would not be told */
        mark->counted = 1;
        (void)__sync_fetch_and_add(&tally->established, 1);
        (void)__sync_fetch_and_add(&tally->accepted, 1);
        tally->stirred = stirred_now();
        pending_change(&tally->pending, period_now(), 0);
        return 1;
    }
    uint32_t state = ctx->args[1];
    if (!mark->counted || state == ESTABLISHED || state == SYN_RECEIVED || state == CLOSE_WAIT)
        return 1;
    mark->counted = 0;
    (void)__sync_fetch_and_add(&tally->established, (uint32_t)-1);
    tally->stirred = stirred_now();
    return 1;
}
