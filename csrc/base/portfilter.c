/* portfilter.c - the question "which sockets have one of these local ports?", as the kernel's
 * sock_diag takes it: a program of struct inet_diag_bc_op.
 *
 * Owns its text. The kernel goes through all sockets of the machine for a dump, so one
 * question for each port would cost their product; this is one for RC_PORTS_MAX.
 *
 * An op goes on behind itself on yes, and forward by `no` bytes on no. The end of the text
 * means that the socket is wanted, four bytes behind it that it is not. So: a binary search,
 * of which each leaf is a comparison and a jump to the end.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

typedef struct inet_diag_bc_op op;
enum { TEST = 2 * sizeof(op), LEAF = TEST + sizeof(op), EACH = TEST + LEAF };
_Static_assert(RC_PORTS_MAX *EACH < UINT16_MAX - 4, "a jump is 16 bits");

static int by_number(const void *a, const void *b)
{
    const uint16_t *one = a, *two = b;
    return (*one > *two) - (*one < *two);
}

/* `left`: bytes from here to the end of the whole text. */
static op *search(op *out, const uint16_t *ports, size_t count, unsigned left)
{
    if (count == 1) {
        *out++ = (op){.code = INET_DIAG_BC_S_EQ, .yes = TEST, .no = (uint16_t)(left + 4)};
        *out++ = (op){.no = ports[0]};
        *out++ = (op){.code = INET_DIAG_BC_JMP, .yes = sizeof(op), .no = (uint16_t)(left - TEST)};
        return out;
    }
    size_t half = count / 2, upper = count - half;
    unsigned over = (unsigned)(upper * EACH);
    *out++ = (op){.code = INET_DIAG_BC_S_GE, .yes = TEST, .no = (uint16_t)over};
    *out++ = (op){.no = ports[half]};
    out = search(out, ports + half, upper, left - TEST);
    return search(out, ports, half, left - over);
}

/* Ports in network order, in any order, some perhaps twice; at least one and at most
 * RC_PORTS_MAX. The length in bytes, or -errno; the caller frees the text. */
int rc_portfilter(const in_port_t *ports, size_t count, struct inet_diag_bc_op **text)
{
    uint16_t sorted[RC_PORTS_MAX];
    size_t kept = 0;
    if (count == 0 || count > RC_PORTS_MAX)
        return -EINVAL;
    for (size_t at = 0; at < count; at++)
        sorted[at] = ntohs(ports[at]);
    qsort(sorted, count, sizeof *sorted, by_number);
    for (size_t at = 0; at < count; at++)
        if (!kept || sorted[kept - 1] != sorted[at])
            sorted[kept++] = sorted[at];
    unsigned length = (unsigned)(kept * EACH - TEST);
    *text = malloc(length);
    if (!*text)
        return -ENOMEM;
    (void)search(*text, sorted, kept, length);
    return (int)length;
}
