/* udpflow.c - the steering program of a UDP group: a flow stays with its worker.
 *
 * Owns: which bucket of the hash of a datagram's source belongs to which lane.
 * Does not own the hash tables of the kernel, nor who may be chosen (lanes.c).
 *
 * Invariant: the bucket's owner is the worker with the highest weight among the
 * chosen (rendezvous hashing), by the seat a worker inherits from the one it
 * replaces. So when a worker goes, only its own buckets move; they come back with
 * its successor, and nobody has to remember anything.
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

struct text {
    struct sock_filter *out;
    unsigned room, length;
};

static void emit(struct text *text, uint16_t code, uint32_t k)
{
    if (text->length < text->room)
        text->out[text->length] = (struct sock_filter){.code = code, .k = k};
    text->length++;
}

static void emit_test(struct text *text, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    if (text->length < text->room)
        text->out[text->length] = (struct sock_filter){.code = code, .jt = yes, .jf = no, .k = k};
    text->length++;
}

/* Mixes a word of the packet into the hash, which X holds. */
static void emit_mix(struct text *text, uint16_t load, uint32_t offset)
{
    emit(text, load, offset);
    emit(text, BPF_ALU | BPF_XOR | BPF_X, 0);
    emit(text, BPF_ALU | BPF_MUL | BPF_K, MULTIPLIER);
    emit(text, BPF_MISC | BPF_TAX, 0);
}

/* A = the bucket of the datagram's source address and port. What stands at 0 is
 * the datagram's text, its network header at SKF_NET_OFF. The port is looked for
 * behind a header without options: with some, it is something of the same flow. */
static void emit_hash(struct text *text, unsigned buckets)
{
    const uint32_t net = (uint32_t)SKF_NET_OFF;
    emit(text, BPF_LDX | BPF_IMM, 0);
    emit(text, BPF_LD | BPF_B | BPF_ABS, net);
    emit(text, BPF_ALU | BPF_RSH | BPF_K, 4);
    emit_test(text, BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 9);
    emit_mix(text, BPF_LD | BPF_W | BPF_ABS, net + 12);
    emit_mix(text, BPF_LD | BPF_H | BPF_ABS, net + 20);
    emit(text, BPF_JMP | BPF_JA, 20);
    for (uint32_t word = 0; word < 4; word++)
        emit_mix(text, BPF_LD | BPF_W | BPF_ABS, net + 8 + 4 * word);
    emit_mix(text, BPF_LD | BPF_H | BPF_ABS, net + 40);
    emit(text, BPF_MISC | BPF_TXA, 0);
    emit(text, BPF_ALU | BPF_RSH | BPF_K, 15);
    emit(text, BPF_ALU | BPF_AND | BPF_K, buckets - 1);
}

/* A bucket and all behind it, to the next one, have this index. */
struct run {
    uint32_t first;
    unsigned index;
};

/* Conditional jumps reach only 255 instructions, hence the JA. */
static void emit_search(struct text *text, const struct run *runs, unsigned count)
{
    if (count == 1) {
        emit(text, BPF_RET | BPF_K, runs->index);
        return;
    }
    unsigned half = count / 2;
    emit_test(text, BPF_JMP | BPF_JGE | BPF_K, runs[half].first, 0, 1);
    unsigned jump = text->length;
    emit(text, BPF_JMP | BPF_JA, 0);
    emit_search(text, runs, half);
    if (jump < text->room)
        text->out[jump].k = text->length - jump - 1;
    emit_search(text, runs + half, count - half);
}

/* Of 64 bits, evenly (splitmix64). */
static uint64_t weight(uint32_t bucket, uint32_t seat, uint32_t turn)
{
    uint64_t x = ((uint64_t)seat << 32 | bucket) + 0x9e3779b97f4a7c15u * (turn + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* First the worker, then one of its lanes: each worker has an equal part. */
static unsigned owner(const struct rc_choice *choices, unsigned count, uint32_t bucket)
{
    unsigned best = 0, turn = 0, chosen = 0;
    for (unsigned at = 1; at < count; at++)
        if (choices[at].worker != choices[best].worker &&
            weight(bucket, choices[at].worker, 0) > weight(bucket, choices[best].worker, 0))
            best = at;
    uint64_t most = 0;
    for (unsigned at = 0; at < count; at++)
        if (choices[at].worker == choices[best].worker) {
            uint64_t mine = weight(bucket, choices[at].worker, ++turn);
            if (turn == 1 || mine > most) {
                most = mine;
                chosen = at;
            }
        }
    return choices[chosen].index;
}

/* `worker` of a choice is its seat here. Returns the length, or -errno. */
int rc_udp_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                 unsigned room)
{
    struct text text = {.out = out, .room = room};
    struct run runs[MANY_BUCKETS];
    unsigned used = 0, buckets = count > FEW_LANES ? MANY_BUCKETS : FEW_BUCKETS;
    if (count == 0)
        return -EINVAL;
    if (count > 1)
        emit_hash(&text, buckets);
    for (uint32_t bucket = 0; bucket < buckets; bucket++) {
        unsigned index = owner(choices, count, bucket);
        if (used == 0 || runs[used - 1].index != index)
            runs[used++] = (struct run){bucket, index};
    }
    emit_search(&text, runs, used);
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
