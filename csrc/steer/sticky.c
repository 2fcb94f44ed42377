/* sticky.c - the program that sends a client's address to the same slot each time.
 *
 * Owns: BUCKETS, into which addresses are hashed, and which slot has which.
 * Congestion plays no part, and a slot's workers follow one another in it.
 *
 * Invariant: each bucket has one order of preference over all slots, for ever;
 * it belongs to the first of them that is live. So a slot that goes away moves
 * its own buckets and no other, and gets the same ones when it comes back. The
 * orders are such that
 *  - while slots 0..N-1 are live, each has floor or ceil of BUCKETS / N: slot N
 *    takes one N+1st of them, one at a time from whoever has most;
 *  - what a slot in the middle leaves is spread over the others.
 *
 * 720 is divisible by most small numbers, and three eBPF instructions for each
 * bucket stay below net.core.optmem_max before Linux 6.7 (20,480 bytes), to
 * which sk_reuseport_attach_filter (net/core/filter.c) holds a program.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>

enum { BUCKETS = 720, STRIDE = 487 /* prime: visits all, and near ones far apart */ };

/* The slots that had a bucket, one after the other, as slots were added. The sum
 * of BUCKETS / n for all n is below 8 BUCKETS. */
struct past {
    uint16_t slot;
    int16_t before; /* an index, or -1 */
};
struct table {
    struct past all[8 * BUCKETS];
    unsigned used;
    int16_t newest[BUCKETS];
};

/* A slot's buckets while the table grows. */
struct stack {
    unsigned count;
    int16_t top;
};

static uint32_t score(unsigned bucket, unsigned slot)
{
    uint32_t mixed = bucket * 0x9e3779b1u ^ (slot + 1) * 0x85ebca6bu;
    mixed = (mixed ^ mixed >> 16) * 0x7feb352du;
    mixed = (mixed ^ mixed >> 15) * 0x846ca68bu;
    return mixed ^ mixed >> 16;
}

static void give(struct table *table, unsigned bucket, unsigned slot)
{
    table->all[table->used] =
        (struct past){.slot = (uint16_t)slot, .before = table->newest[bucket]};
    table->newest[bucket] = (int16_t)table->used++;
}

/* Slots 0..slots-1, each taking from those before it. */
static void grow(struct table *table, struct stack *stacks, unsigned slots)
{
    int16_t below[BUCKETS];
    stacks[0] = (struct stack){.count = BUCKETS, .top = BUCKETS - 1};
    for (int16_t bucket = 0; bucket < BUCKETS; bucket++) {
        below[bucket] = (int16_t)(bucket - 1);
        table->newest[bucket] = -1;
        give(table, (unsigned)bucket, 0);
    }
    for (unsigned slot = 1; slot < slots && slot < BUCKETS; slot++) {
        struct stack *own = &stacks[slot];
        unsigned most = 0, from = 0;
        *own = (struct stack){.top = -1};
        for (unsigned other = 0; other < slot; other++)
            most = stacks[other].count > most ? stacks[other].count : most;
        while (own->count < BUCKETS / (slot + 1)) {
            if (from == slot) { /* all have less now */
                from = 0;
                most--;
            }
            struct stack *other = &stacks[from++];
            if (other->count < most)
                continue;
            int16_t bucket = other->top;
            other->top = below[bucket];
            other->count--;
            below[bucket] = own->top;
            own->top = bucket;
            own->count++;
            give(table, (unsigned)bucket, slot);
        }
    }
}

/* The first of a bucket's order that is live. The order: the slot that had it
 * last; then of the later slots those that outscore the one it was taken from;
 * then that one, and so on; at the end all by score. */
static unsigned owner(const struct table *table, const unsigned *members, unsigned slots,
                      unsigned bucket)
{
    unsigned best = 0;
    for (int at = table->newest[bucket]; at >= 0; at = table->all[at].before) {
        const struct past *past = &table->all[at];
        if (members[past->slot])
            return past->slot;
        bool found = false;
        uint32_t least = past->before < 0 ? 0 : score(bucket, table->all[past->before].slot);
        for (unsigned slot = past->slot + 1u; slot < slots; slot++) {
            uint32_t its = score(bucket, slot);
            if (members[slot] && (its > least || (past->before < 0 && !found))) {
                least = its;
                best = slot;
                found = true;
            }
        }
        if (found)
            return best;
    }
    return best; /* not reached: slot 0 is in each bucket's past */
}

/* Of the slot's lanes the one for that bucket: by weight between the workers (a
 * canary beside the one it may replace), by score between one worker's lanes. */
static unsigned lane_in_slot(const struct rc_choice *lanes, unsigned count, unsigned bucket)
{
    double total = 0, below = 0;
    double wanted = (bucket * STRIDE % BUCKETS + 0.5) / BUCKETS;
    unsigned at = 0, end = 0;
    for (; end < count; end++)
        total += end == 0 || lanes[end].worker != lanes[end - 1].worker ? lanes[end].weight : 0;
    for (;;) {
        for (end = at + 1; end < count && lanes[end].worker == lanes[at].worker; end++)
            ;
        below += lanes[at].weight;
        if (end == count || below > wanted * total)
            break;
        at = end;
    }
    return lanes[at + score(bucket, lanes[at].worker) % (end - at)].index;
}

static int by_slot(const void *left, const void *right)
{
    const struct rc_choice *a = left, *b = right;
    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    if (a->worker != b->worker)
        return a->worker < b->worker ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* A = a hash of the packet's source address, IPv4 or IPv6, below BUCKETS. */
static void add_hash(struct rc_text *text)
{
    const uint32_t header = (uint32_t)SKF_NET_OFF;
    const struct sock_filter load[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, header),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, header + 12),
        BPF_STMT(BPF_JMP | BPF_JA, 13),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, header + 8),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x9e3779b1u),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, header + 12),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x85ebca6bu),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, header + 16),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0xc2b2ae35u),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, header + 20),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_MISC | BPF_TAX, 0), /* both come here */
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x7feb352du),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 15),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x846ca68bu),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, BUCKETS),
    };
    for (size_t at = 0; at < sizeof load / sizeof load[0]; at++) {
        if (text->length < text->room)
            text->out[text->length] = load[at];
        text->length++;
    }
}

/* Returns the length or -errno. */
int rc_sticky_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                    unsigned room)
{
    struct rc_text text = {.out = out, .room = room};
    struct rc_leaf leaves[BUCKETS];
    unsigned used = 0, slots = 0;
    int result = -ENOMEM;
    if (count == 0)
        return -EINVAL;
    for (unsigned at = 0; at < count; at++) {
        if (choices[at].slot >= RC_SLOTS_MAX)
            return -EINVAL;
        slots = choices[at].slot >= slots ? choices[at].slot + 1 : slots;
    }
    struct rc_choice *sorted = calloc(count, sizeof *sorted);
    struct table *table = calloc(1, sizeof *table);
    struct stack *stacks = calloc(slots, sizeof *stacks);
    unsigned *members = calloc(slots, sizeof *members); /* how many lanes a slot has */
    unsigned *where = calloc(slots, sizeof *where);     /* where they begin in sorted */
    if (!sorted || !table || !stacks || !members || !where)
        goto out;
    for (unsigned at = 0; at < count; at++)
        sorted[at] = choices[at];
    qsort(sorted, count, sizeof *sorted, by_slot);
    for (unsigned at = count; at-- > 0;) {
        members[sorted[at].slot]++;
        where[sorted[at].slot] = at;
    }
    grow(table, stacks, slots);
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        unsigned slot = owner(table, members, slots, bucket);
        unsigned index = lane_in_slot(sorted + where[slot], members[slot], bucket);
        if (!used || leaves[used - 1].index != index)
            leaves[used++] = (struct rc_leaf){bucket, index};
    }
    if (used > 1)
        add_hash(&text);
    rc_text_search(&text, leaves, used);
    result = text.length <= room ? (int)text.length : -E2BIG;
out:
    free(sorted);
    free(table);
    free(stacks);
    free(members);
    free(where);
    return result;
}
