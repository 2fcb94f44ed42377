/* steering.c - the classic BPF that decides which lane a new connection gets.
 *
 * Owns: the program's text and its attachment. Does not own which lanes are
 * live. Invariant: a program returns only indices it was given; the kernel
 * treats any other as "hash over the whole group" (sk_reuseport.c), which would
 * hand connections to lanes that must not have them.
 *
 * SO_ATTACH_REUSEPORT_CBPF needs no privilege (socket(7), Linux 4.5). Attaching
 * replaces the group's program in one step (RCU): this is the cutover.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>

struct program {
    struct sock_filter *out;
    unsigned length, room;
};

/* A stretch of the random number's range that is turned into an index alike. */
struct stretch {
    uint32_t first;               /* the stretch begins at this number */
    uint32_t delta;               /* one lane per worker: index = number + delta */
    const struct rc_choice *many; /* or: one worker's several lanes */
    unsigned many_count;
};

static void emit(struct program *program, uint16_t code, uint32_t k)
{
    if (program->length < program->room)
        program->out[program->length] = (struct sock_filter){.code = code, .k = k};
    program->length++;
}

static void emit_random(struct program *program, uint32_t below)
{
    emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
    emit(program, BPF_ALU | BPF_MOD | BPF_K, below);
}

static void emit_worker(struct program *program, const struct stretch *stretch)
{
    emit_random(program, stretch->many_count);
    for (unsigned at = 0; at + 1 < stretch->many_count; at++) {
        unsigned test = program->length;
        emit(program, BPF_JMP | BPF_JEQ | BPF_K, at);
        if (test < program->room)
            program->out[test].jf = 1;
        emit(program, BPF_RET | BPF_K, stretch->many[at].index);
    }
    emit(program, BPF_RET | BPF_K, stretch->many[stretch->many_count - 1].index);
}

/* Binary search over the stretches: A holds the random number. Conditional
 * jumps reach only 255 instructions, hence the JA to the right half. */
static void emit_search(struct program *program, const struct stretch *stretches, unsigned count)
{
    if (count == 1) {
        if (stretches->many) {
            emit_worker(program, stretches);
            return;
        }
        if (stretches->delta)
            emit(program, BPF_ALU | BPF_ADD | BPF_K, stretches->delta);
        emit(program, BPF_RET | BPF_A, 0);
        return;
    }
    unsigned half = count / 2;
    unsigned test = program->length;
    emit(program, BPF_JMP | BPF_JGE | BPF_K, stretches[half].first);
    if (test < program->room)
        program->out[test].jf = 1;
    unsigned jump = program->length;
    emit(program, BPF_JMP | BPF_JA, 0);
    emit_search(program, stretches, half);
    if (jump < program->room)
        program->out[jump].k = program->length - jump - 1;
    emit_search(program, stretches + half, count - half);
}

static int by_worker(const void *left, const void *right)
{
    const struct rc_choice *a = left, *b = right;
    if (a->worker != b->worker)
        return a->worker < b->worker ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Every worker gets an equal part of new connections, however many lanes it
 * has; within a worker every lane an equal one. Returns the length or -errno. */
int rc_steering_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room)
{
    struct program program = {.out = out, .room = room};
    if (count == 0)
        return -EINVAL;
    struct rc_choice *sorted = calloc(count, sizeof *sorted);
    struct stretch *stretches = calloc(count, sizeof *stretches);
    if (!sorted || !stretches) {
        free(sorted);
        free(stretches);
        return -ENOMEM;
    }
    memcpy(sorted, choices, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_worker);
    bool several = false;
    for (unsigned at = 1; at < count; at++)
        several |= sorted[at].worker == sorted[at - 1].worker;
    if (!several) /* in order of index, runs are longer and the program shorter */
        memcpy(sorted, choices, count * sizeof *sorted);

    unsigned workers = 0, used = 0;
    for (unsigned at = 0; at < count; workers++) {
        unsigned end = at + 1;
        while (several && end < count && sorted[end].worker == sorted[at].worker)
            end++;
        uint32_t delta = sorted[at].index - workers;
        bool one = end == at + 1;
        const struct stretch *last = used ? &stretches[used - 1] : NULL;
        if (!(one && last && !last->many && last->delta == delta))
            stretches[used++] = (struct stretch){
                .first = workers,
                .delta = delta,
                .many = one ? NULL : &sorted[at],
                .many_count = end - at,
            };
        at = end;
    }
    if (workers == 1 && !several) {
        emit(&program, BPF_RET | BPF_K, choices[0].index);
    } else {
        emit_random(&program, workers);
        emit_search(&program, stretches, used);
    }
    free(sorted);
    free(stretches);
    return program.length <= room ? (int)program.length : -E2BIG;
}

int rc_steering_attach(int fd, const struct rc_choice *choices, unsigned count)
{
    struct sock_filter text[RC_PROGRAM_MAX];
    int length = rc_steering_build(choices, count, text, RC_PROGRAM_MAX);
    if (length < 0)
        return length;
    struct sock_fprog program = {.len = (unsigned short)length, .filter = text};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return -errno;
    return 0;
}

/* A deaf lane drops each new SYN (flags SYN without ACK at offset 13 of the TCP
 * header, where a socket filter begins to read) and nothing else: half-open and
 * queued connections are finished, late clients retransmit after a second. */
int rc_steering_deafen(int fd)
{
    struct sock_filter text[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),          BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog program = {.len = 5, .filter = text};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
        return -errno;
    return 0;
}

int rc_steering_hear(int fd)
{
    int unused = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused) < 0)
        return -errno;
    return 0;
}
