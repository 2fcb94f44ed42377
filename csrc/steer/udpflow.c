/* udpflow.c - the steering program of a UDP group: a flow stays with its worker.
 *
 * Owns: which bucket of the hash of a datagram's source belongs to which lane.
 * Does not own the hash tables of the kernel, nor who may be chosen (lanes.c).
 *
 * Invariant: the bucket's owner is the slot with the highest score among the chosen
 * (rendezvous hashing). So when a worker goes, only its own buckets move; they come
 * back with its successor, and nobody has to remember anything.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <sys/socket.h>

/* A program is charged to the socket's option memory, of which there were 20 KiB
 * before Linux 6.7: at most 512 leaves, each of three instructions of 8 bytes. */
enum { FEW_BUCKETS = 256, MANY_BUCKETS = 512, FEW_LANES = 32, HASH_LENGTH = 40 };
#define MULTIPLIER 0x9e3779b1u

static void emit_test(struct rc_text *text, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    if (text->length < text->room)
        text->out[text->length] = (struct sock_filter){.code = code, .jt = yes, .jf = no, .k = k};
    text->length++;
}

/* Mixes a word of the packet into the hash, which X holds. */
static void emit_mix(struct rc_text *text, uint16_t load, uint32_t offset)
{
    rc_text_add(text, load, offset);
    rc_text_add(text, BPF_ALU | BPF_XOR | BPF_X, 0);
    rc_text_add(text, BPF_ALU | BPF_MUL | BPF_K, MULTIPLIER);
    rc_text_add(text, BPF_MISC | BPF_TAX, 0);
}

/* A = the bucket of the datagram's source address and port. What stands at 0 is
 * the datagram's text, its network header at SKF_NET_OFF. The port is looked for
 * behind a header without options: with some, it is something of the same flow. */
static void emit_hash(struct rc_text *text, unsigned buckets)
{
    const uint32_t net = (uint32_t)SKF_NET_OFF;
    rc_text_add(text, BPF_LDX | BPF_IMM, 0);
    rc_text_add(text, BPF_LD | BPF_B | BPF_ABS, net);
    rc_text_add(text, BPF_ALU | BPF_RSH | BPF_K, 4);
    emit_test(text, BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 9);
    emit_mix(text, BPF_LD | BPF_W | BPF_ABS, net + 12);
    emit_mix(text, BPF_LD | BPF_H | BPF_ABS, net + 20);
    rc_text_add(text, BPF_JMP | BPF_JA, 20);
    for (uint32_t word = 0; word < 4; word++)
        emit_mix(text, BPF_LD | BPF_W | BPF_ABS, net + 8 + 4 * word);
    emit_mix(text, BPF_LD | BPF_H | BPF_ABS, net + 40);
    rc_text_add(text, BPF_MISC | BPF_TXA, 0);
    rc_text_add(text, BPF_ALU | BPF_RSH | BPF_K, 15);
    rc_text_add(text, BPF_ALU | BPF_AND | BPF_K, buckets - 1);
}

/* Of 64 bits, evenly (splitmix64). */
static uint64_t score(uint32_t bucket, uint32_t what, uint32_t turn)
{
    uint64_t x = ((uint64_t)what << 32 | bucket) + 0x9e3779b97f4a7c15u * (turn + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Of the lanes of a slot, by weight: there are several where a canary stands beside
 * the old generation, or a worker has several. */
static unsigned within(const struct rc_choice *choices, unsigned count, uint32_t bucket,
                       uint32_t slot)
{
    double sum = 0, part;
    unsigned last = 0;
    for (unsigned at = 0; at < count; at++)
        sum += choices[at].slot == slot ? choices[at].weight : 0;
    part = (double)(score(bucket, slot, 1) >> 11) / (double)(1ull << 53) * sum;
    for (unsigned at = 0; at < count; at++) {
        if (choices[at].slot != slot)
            continue;
        last = at;
        if ((part -= choices[at].weight) < 0)
            break;
    }
    return choices[last].index;
}

/* The index of the lane that has the bucket. */
unsigned rc_udp_owner(const struct rc_choice *choices, unsigned count, uint32_t bucket)
{
    unsigned best = 0;
    for (unsigned at = 1; at < count; at++)
        if (choices[at].slot != choices[best].slot &&
            score(bucket, choices[at].slot, 0) > score(bucket, choices[best].slot, 0))
            best = at;
    return within(choices, count, bucket, choices[best].slot);
}

/* Returns the length, or -errno. */
int rc_udp_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                 unsigned room)
{
    struct rc_text text = {.out = out, .room = room};
    struct rc_leaf runs[MANY_BUCKETS];
    unsigned used = 0, buckets = count > FEW_LANES ? MANY_BUCKETS : FEW_BUCKETS;
    if (count == 0)
        return -EINVAL;
    if (count > 1)
        emit_hash(&text, buckets);
    for (uint32_t bucket = 0; bucket < buckets; bucket++) {
        unsigned index = rc_udp_owner(choices, count, bucket);
        if (used == 0 || runs[used - 1].index != index)
            runs[used++] = (struct rc_leaf){bucket, index};
    }
    rc_text_search(&text, runs, used);
    return text.length <= room ? (int)text.length : -E2BIG;
}

int rc_udp_attach(int fd, const struct rc_choice *choices, unsigned count)
{
    struct sock_filter text[HASH_LENGTH + 3 * MANY_BUCKETS];
    int length = rc_udp_build(choices, count, text, sizeof text / sizeof text[0]);
    if (length < 0)
        return length;
    struct sock_fprog program = {.len = (unsigned short)length, .filter = text};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return -errno;
    return 0;
}
