/* pending.c - binds that have not listened yet, and which port-0 bind is which.
 *
 * Owns: each worker's list of them. They are known by process, number and inode,
 * never by a descriptor of ours: a bind that never listens (grpcio probes like
 * that, clients bind too) must leave no trace, and no port taken.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Whether the descriptor a bind was made on is still the same socket. */
static bool pending_open(const struct rc_pending *pending)
{
    char path[64];
    struct stat facts;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pending->pid, pending->fd);
    return stat(path, &facts) == 0 && facts.st_ino == pending->inode;
}

void rc_pending_delete(struct rc_worker *worker, unsigned at)
{
    memmove(&worker->pending[at], &worker->pending[at + 1],
            (--worker->pendings - at) * sizeof worker->pending[0]);
}

struct rc_pending *rc_pending_find(struct rc_worker *worker, uint64_t inode)
{
    for (unsigned at = 0; at < worker->pendings; at++)
        if (worker->pending[at].inode == inode)
            return &worker->pending[at];
    return NULL;
}

bool rc_pending_elsewhere(struct rc_engine *engine, const struct rc_key *key)
{
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        for (unsigned at = 0; !worker->dead && at < worker->pendings; at++)
            if (rc_same_place(&worker->pending[at].key, key))
                return true;
    return false;
}

void rc_pending_add(struct rc_worker *worker, const struct rc_pending *pending)
{
    if (worker->pendings == RC_PENDING_MAX)
        rc_pending_delete(worker, 0);
    worker->pending[worker->pendings++] = *pending;
}

/* ---- port 0 ------------------------------------------------------------------------ */

static struct rc_zero_count *zero_count(struct rc_worker *worker, const struct sockaddr_in6 *asked)
{
    for (size_t at = 0; at < sizeof worker->zeros / sizeof worker->zeros[0]; at++) {
        struct rc_zero_count *zero = &worker->zeros[at];
        if (zero->listened == 0)
            zero->asked = *asked;
        if (memcmp(&zero->asked, asked, sizeof *asked) == 0)
            return zero;
    }
    return NULL;
}

/* Which of this worker's port-0 listeners on that address this bind would be. */
int rc_zero_index(struct rc_worker *worker, const struct sockaddr_in6 *asked)
{
    struct rc_zero_count *zero = zero_count(worker, asked);
    if (!zero)
        return -1;
    int index = zero->listened;
    for (unsigned at = worker->pendings; at-- > 0;) {
        struct rc_pending *pending = &worker->pending[at];
        if (pending->zero_index < 0 || memcmp(&pending->zero, asked, sizeof *asked) != 0)
            continue;
        if (pending_open(pending))
            index++;
        else
            rc_pending_delete(worker, at);
    }
    return index;
}

/* The port that the same bind of another worker got, or 0. */
in_port_t rc_zero_port(struct rc_engine *engine, const struct rc_worker *worker,
                       const struct sockaddr_in6 *asked, int index)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        if (group->zero_index == index && memcmp(&group->zero, asked, sizeof *asked) == 0)
            return group->key.address.sin6_port;
    for (struct rc_worker *other = engine->workers; other; other = other->next)
        for (unsigned at = 0; other != worker && !other->dead && at < other->pendings; at++) {
            struct rc_pending *pending = &other->pending[at];
            if (pending->zero_index == index && memcmp(&pending->zero, asked, sizeof *asked) == 0 &&
                pending_open(pending))
                return pending->key.address.sin6_port;
        }
    return 0;
}

void rc_zero_listened(struct rc_worker *worker, const struct rc_pending *pending)
{
    struct rc_zero_count *zero =
        pending->zero_index < 0 ? NULL : zero_count(worker, &pending->zero);
    if (zero)
        zero->listened++;
}
