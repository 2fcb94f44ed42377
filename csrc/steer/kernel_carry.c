/* kernel_carry.c - the maps of steering by eBPF, and the counting program, handed to the master
 * that takes this one's place (carry/).
 *
 * Owns which descriptors those are, and how they are taken over. The plans and programs of the
 * groups are made anew: the one that is attached goes on with its own until then.
 *
 * Invariant: a lane keeps its number, and so its connections their count.
 */
#include "steer/kernel.h"

#include <errno.h>
#include <stdlib.h>

void rc_kernel_carry(const struct rc_engine *engine, struct rc_kernel_maps *out)
{
    const struct rc_kernel *kernel = engine->kernel;
    *out = kernel ? (struct rc_kernel_maps){kernel->lanes, kernel->marks, kernel->tallies_map,
                                            kernel->link}
                  : (struct rc_kernel_maps){-1, -1, -1, -1};
}

/* Before the first group. Takes the descriptors; without any there is nothing to be done. */
int rc_kernel_resume(struct rc_engine *engine, const struct rc_kernel_maps *maps)
{
    void *tallies = NULL;
    if (maps->lanes < 0)
        return 0;
    struct rc_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        return -ENOMEM;
    int error = rc_bpf_see(maps->tallies, RC_NUMBERS, sizeof *kernel->tallies, &tallies);
    if (error) {
        free(kernel);
        return error;
    }
    kernel->policy = engine->policy == RC_BALANCE_ROUND_ROBIN ? RC_BALANCE_ROUND_ROBIN
                                                              : RC_BALANCE_LEAST_CONNECTIONS;
    kernel->lanes = maps->lanes;
    kernel->marks = maps->marks;
    kernel->tallies_map = maps->tallies;
    kernel->link = maps->link;
    kernel->tallies = tallies;
    kernel->taken[0] = true; /* nobody's */
    engine->kernel = kernel;
    return 0;
}

/* That lane has this number already; 0: none. */
void rc_kernel_known(struct rc_lane *lane, uint32_t number, uint64_t counted)
{
    struct rc_kernel *kernel = lane->group->kernel;
    if (!kernel || !number || number >= RC_NUMBERS)
        return;
    kernel->taken[number] = true;
    lane->number = number;
    lane->counted = counted;
}
