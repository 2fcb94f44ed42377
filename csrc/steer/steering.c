/* steering.c - the classic BPF that decides which lane a new connection gets.
 *
 * Owns: the program's text and its attachment. Does not own which lanes are
 * live. Invariant: a program returns only indices it was given; the kernel
 * treats any other as "hash over the whole group" (sk_reuseport.c), which would
 * hand connections to lanes that must not have them.
 *
 * SO_ATTACH_REUSEPORT_CBPF needs no privilege (socket(7), Linux 4.5). Attaching
 * replaces the group's program in one step (RCU): this is the cutover. It costs most of what a
 * lane does, so a text that is attached already is not attached again (but at a cutover:
 * others in the group may attach programs of their own).
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>

/* A stretch of the random number's range that is turned into an index alike. */
struct stretch {
    uint32_t first;               /* the stretch begins at this number */
    uint32_t delta;               /* one lane per worker: index = number + delta */
    const struct rc_choice *many; /* or: one worker's several lanes */
    unsigned many_count;
};

static void emit_random(struct rc_text *program, uint32_t below)
{
    rc_text_add(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
    rc_text_add(program, BPF_ALU | BPF_MOD | BPF_K, below);
}

static void emit_worker(struct rc_text *program, const struct stretch *stretch)
{
    emit_random(program, stretch->many_count);
    for (unsigned at = 0; at + 1 < stretch->many_count; at++) {
        unsigned test = program->length;
        rc_text_add(program, BPF_JMP | BPF_JEQ | BPF_K, at);
        if (test < program->room)
            program->out[test].jf = 1;
        rc_text_add(program, BPF_RET | BPF_K, stretch->many[at].index);
    }
    rc_text_add(program, BPF_RET | BPF_K, stretch->many[stretch->many_count - 1].index);
}

/* Binary search over the stretches: A holds the random number. Conditional
 * jumps reach only 255 instructions, hence the JA to the right half. */
static void emit_search(struct rc_text *program, const struct stretch *stretches, unsigned count)
{
    if (count == 1) {
        if (stretches->many) {
            emit_worker(program, stretches);
            return;
        }
        if (stretches->delta)
            rc_text_add(program, BPF_ALU | BPF_ADD | BPF_K, stretches->delta);
        rc_text_add(program, BPF_RET | BPF_A, 0);
        return;
    }
    unsigned half = count / 2;
    unsigned test = program->length;
    rc_text_add(program, BPF_JMP | BPF_JGE | BPF_K, stretches[half].first);
    if (test < program->room)
        program->out[test].jf = 1;
    unsigned jump = program->length;
    rc_text_add(program, BPF_JMP | BPF_JA, 0);
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
    struct rc_text program = {.out = out, .room = room};
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
        rc_text_add(&program, BPF_RET | BPF_K, choices[0].index);
    } else {
        emit_random(&program, workers);
        emit_search(&program, stretches, used);
    }
    free(sorted);
    free(stretches);
    return program.length <= room ? (int)program.length : -E2BIG;
}

/* In front of a program: connections from one source port go to one index. It
 * sits behind an IPv4 header without options or an IPv6 one without extensions,
 * which is what a connection of our own has. */
static unsigned build_detour(const struct rc_detour *detour, struct sock_filter *out)
{
    const uint32_t version = (uint32_t)SKF_NET_OFF, port4 = version + 20, port6 = version + 40;
    struct sock_filter text[RC_DETOUR_LENGTH] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, version),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 0, 2),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, port4),
        BPF_STMT(BPF_JMP | BPF_JA, 1),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, port6),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, detour->port, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, detour->index),
    };
    memcpy(out, text, sizeof text);
    return RC_DETOUR_LENGTH;
}

static bool all_equal(const struct rc_choice *choices, unsigned count)
{
    for (unsigned at = 1; at < count; at++)
        if (choices[at].weight != choices[0].weight)
            return false;
    return true;
}

/* Where there is no memory it is attached once more than it must be. */
static void note(struct rc_attached *attached, const struct sock_filter *text, unsigned length)
{
    struct sock_filter *copy = realloc(attached->text, length * sizeof *text);
    attached->length = copy ? length : 0;
    if (copy) {
        memcpy(copy, text, length * sizeof *text);
        attached->text = copy;
    }
}

/* `attached`: what is there; the same again is not attached. NULL: it is not asked. */
int rc_steering_renew(int fd, enum rc_policy policy, const struct rc_choice *choices,
                      unsigned count, const struct rc_detour *detour, struct rc_attached *attached)
{
    struct sock_filter text[RC_PROGRAM_MAX];
    unsigned before = detour ? build_detour(detour, text) : 0, room = RC_PROGRAM_MAX - before;
    int length =
        policy == RC_BALANCE_SOURCE_IP ? rc_sticky_build(choices, count, text + before, room)
        : all_equal(choices, count)    ? rc_steering_build(choices, count, text + before, room)
                                       : rc_weighted_build(choices, count, text + before, room);
    if (length < 0)
        return length;
    unsigned whole = (unsigned)length + before;
    if (attached && attached->length == whole &&
        memcmp(attached->text, text, whole * sizeof *text) == 0)
        return 0;
    struct sock_fprog program = {.len = (unsigned short)whole, .filter = text};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return -errno;
    if (attached)
        note(attached, text, whole);
    return 0;
}

int rc_steering_attach(int fd, enum rc_policy policy, const struct rc_choice *choices,
                       unsigned count, const struct rc_detour *detour)
{
    return rc_steering_renew(fd, policy, choices, count, detour, NULL);
}
