/* slice.c - the master is given a CPU at once while it looks at workers.
 *
 * Owns: the slice of the thread that runs the loop. With a short one the scheduler lets
 * it go before those that run for long (EEVDF with sched_runtime, Linux 6.12, no
 * privilege is needed; earlier kernels take the call and ignore it). What it then does
 * is short: tens of microseconds. A look that comes milliseconds late, as it does where
 * workers keep all CPUs busy, is of no use.
 *
 * Invariant: a worker never has it, and the thread has it only while there are looks.
 */
#include "internal.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { SLICE_NS = 100000, NORMAL = 0, BATCH = 3 }; /* SCHED_OTHER, and SCHED_BATCH of sched.h */

/* sched_setattr(2); glibc before 2.41 has no declaration of it. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static void set_slice(uint64_t ns)
{
    struct attributes now = {0};
    if (syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) < 0 ||
        (now.policy != NORMAL && now.policy != BATCH))
        return;
    now.size = sizeof now;
    now.runtime = ns; /* 0: the default */
    (void)syscall(SYS_sched_setattr, 0, &now, 0);
}

void rc_slice_short(struct rc_engine *engine, bool wanted)
{
    if (engine->short_slice == wanted)
        return;
    engine->short_slice = wanted;
    set_slice(wanted ? SLICE_NS : 0);
}

/* In a child: what the fork copied. */
void rc_slice_child(const struct rc_engine *engine)
{
    if (engine->short_slice)
        set_slice(0);
}
