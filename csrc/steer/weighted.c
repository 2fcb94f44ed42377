/* weighted.c - the program that gives each worker its part by weight.
 *
 * Owns: the thresholds. The random number has 31 bits (a 32nd would cost an
 * instruction at half of the tests, for the kernel's BPF sign-extends), so a
 * part is exact to one in two thousand million.
 */
#include "internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>

static const uint32_t RANGE = 0x80000000u;

static unsigned lanes_of(const struct rc_choice *choices, unsigned count, uint32_t worker)
{
    unsigned lanes = 0;
    for (unsigned at = 0; at < count; at++)
        lanes += choices[at].worker == worker;
    return lanes;
}

/* A worker's lanes share its weight equally. Returns the length or -errno. */
int rc_weighted_build(const struct rc_choice *choices, unsigned count, struct sock_filter *out,
                      unsigned room)
{
    struct rc_text text = {.out = out, .room = room};
    struct rc_leaf *leaves = calloc(count, sizeof *leaves);
    double *parts = calloc(count, sizeof *parts);
    double total = 0, below = 0;
    unsigned used = 0;
    int result = -ENOMEM;
    if (!leaves || !parts)
        goto out;
    for (unsigned at = 0; at < count; at++) {
        parts[at] = choices[at].weight / lanes_of(choices, count, choices[at].worker);
        total += parts[at];
    }
    result = -EINVAL;
    if (!(total > 0))
        goto out;
    for (unsigned at = 0; at < count; at++) {
        if (parts[at] <= 0)
            continue;
        uint32_t first = (uint32_t)(below / total * RANGE);
        below += parts[at];
        if (used && leaves[used - 1].first == first) /* too small a part for one number */
            leaves[used - 1].index = choices[at].index;
        else if (first < RANGE)
            leaves[used++] = (struct rc_leaf){first, choices[at].index};
    }
    if (used > 1) {
        rc_text_add(&text, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
        rc_text_add(&text, BPF_ALU | BPF_AND | BPF_K, RANGE - 1);
    }
    rc_text_search(&text, leaves, used);
    result = text.length <= room ? (int)text.length : -E2BIG;
out:
    free(leaves);
    free(parts);
    return result;
}
