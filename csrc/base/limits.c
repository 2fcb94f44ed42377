/* limits.c - enough descriptors for the workers there are to be.
 *
 * Owns: RLIMIT_NOFILE of the master, raised up to its hard limit. A worker costs
 * about six descriptors (pidfd, channel, door, lanes, what it does), each
 * generation anew while it drains; the usual soft limit is 1,024 because of
 * select(2), which the master does not use. Workers get back what was.
 */
#include "internal.h"

#include <errno.h>

int rc_descriptors(rc_engine *engine, unsigned wanted)
{
    struct rlimit now;
    if (getrlimit(RLIMIT_NOFILE, &now) < 0)
        return -errno;
    if (now.rlim_cur >= wanted)
        return 0;
    struct rlimit more = {.rlim_cur = wanted < now.rlim_max ? wanted : now.rlim_max,
                          .rlim_max = now.rlim_max};
    if (more.rlim_cur == now.rlim_cur || setrlimit(RLIMIT_NOFILE, &more) < 0)
        return -EMFILE; /* what there is has to do */
    if (!engine->limited)
        engine->limit_before = now;
    engine->limited = true;
    return 0;
}

/* Whether so high a number leaves enough for what else the master has to open: the numbers that
 * are given are the lowest that are free. */
bool rc_descriptors_spare(int fd)
{
    struct rlimit now;
    return getrlimit(RLIMIT_NOFILE, &now) < 0 || (rlim_t)fd < now.rlim_cur - now.rlim_cur / 4;
}

/* In a child: as if nobody had raised it. */
void rc_descriptors_restore(const struct rc_engine *engine)
{
    if (engine->limited)
        (void)setrlimit(RLIMIT_NOFILE, &engine->limit_before);
}
