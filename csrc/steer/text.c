/* text.c - classic BPF, written down: what the programs of all policies are made of.
 *
 * Owns: a text that may be longer than its room (the length goes on, so that one
 * can tell), and the binary search over leaves. Knows no policy.
 */
#include "internal.h"

#include <linux/filter.h>
#include <string.h>

void rc_text_add(struct rc_text *text, uint16_t code, uint32_t k)
{
    if (text->length < text->room)
        text->out[text->length] = (struct sock_filter){.code = code, .k = k};
    text->length++;
}

/* Binary search for the leaf that A lies in. A conditional jump reaches only 255
 * instructions; over a longer left half it needs a JA to help. */
void rc_text_search(struct rc_text *text, const struct rc_leaf *leaves, unsigned count)
{
    if (count == 1) {
        rc_text_add(text, BPF_RET | BPF_K, leaves->index);
        return;
    }
    unsigned half = count / 2, test = text->length;
    rc_text_add(text, BPF_JMP | BPF_JGE | BPF_K, leaves[half].first);
    rc_text_search(text, leaves, half);
    unsigned over = text->length - test - 1;
    if (text->length < text->room) {
        struct sock_filter *at = text->out + test;
        if (over <= UINT8_MAX) {
            at->jt = (uint8_t)over;
        } else {
            at->jf = 1;
            memmove(at + 2, at + 1, over * sizeof *at);
            at[1] = (struct sock_filter){.code = BPF_JMP | BPF_JA, .k = over};
        }
    }
    text->length += over > UINT8_MAX;
    rc_text_search(text, leaves + half, count - half);
}
