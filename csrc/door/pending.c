/* pending.c - binds that have not listened yet, and which port-0 bind is which.
 *
 * Owns: each worker's list of them, in the order of the binds. They are known by
 * process, number and inode, never by a descriptor of ours: a bind that never listens
 * (grpcio probes like that, clients bind too) must leave no trace, and no port taken.
 * Whether the kernel has bound them (yet) is not known.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

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

void rc_pending_add(struct rc_worker *worker, const struct rc_pending *pending)
{
    if (worker->pendings == RC_PENDING_MAX)
        rc_pending_delete(worker, 0);
    worker->pending[worker->pendings++] = *pending;
}

/* A duplicate of its socket for a moment; -ENOENT: it is closed; else it cannot be had.
 * A shim that is about to bind has left us its own. */
static int take(struct rc_engine *engine, struct rc_worker *worker,
                const struct rc_pending *pending)
{
    for (struct rc_shim_caller *caller = engine->callers; caller; caller = caller->next)
        if (caller->binds >= 0 && rc_socket_inode(caller->binds) == pending->inode)
            return fcntl(caller->binds, F_DUPFD_CLOEXEC, 3);
    int fd = rc_take_descriptor(worker, pending->pid, pending->fd);
    if (fd == -EBADF || fd == -ESRCH || fd == -ENOTSOCK)
        return -ENOENT;
    if (fd < 0) { /* where it may not be taken, its name may be read */
        uint64_t there = rc_socket_at(pending->pid, pending->fd);
        return there && there != pending->inode ? -ENOENT : fd;
    }
    if (rc_socket_inode(fd) == pending->inode)
        return fd;
    rc_close(&fd);
    return -ENOENT;
}

/* Siblings can bind this address, and at the first listen nobody is in the way of it:
 * whatever the programs had set, which comes back at listen. True if anybody but `self`
 * has bound it, or is about to. */
bool rc_pending_share(struct rc_engine *engine, const struct rc_worker *self,
                      const struct rc_key *key)
{
    bool found = false;
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        for (unsigned at = worker->dead ? 0 : worker->pendings; at-- > 0;) {
            if (!rc_same_place(&worker->pending[at].key, key) || worker->pending[at].zero)
                continue;
            int fd = take(engine, worker, &worker->pending[at]);
            if (fd == -ENOENT) {
                rc_pending_delete(worker, at);
                continue;
            }
            found |= worker != self;
            if (fd < 0)
                continue;
            (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
            (void)rc_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
            rc_close(&fd);
        }
    return found;
}

/* ---- port 0 ------------------------------------------------------------------------
 * The kernel gives each a port of its own, which it keeps unless it listens: clients
 * bind port 0 too. Those that listen are the n-th of their worker at that address, and
 * all n-th are one group. */

static struct rc_zero_count *zero_count(struct rc_worker *worker, const struct rc_key *asked)
{
    for (size_t at = 0; at < sizeof worker->zeros / sizeof worker->zeros[0]; at++) {
        struct rc_zero_count *zero = &worker->zeros[at];
        if (zero->listened == 0)
            zero->asked = *asked;
        if (rc_same_place(&zero->asked, asked))
            return zero;
    }
    return NULL;
}

static bool may_still_listen(struct rc_engine *engine, struct rc_worker *worker,
                             const struct rc_pending *pending)
{
    struct sockaddr_in6 peer;
    socklen_t length = sizeof peer;
    int fd = take(engine, worker, pending);
    if (fd < 0)
        return fd != -ENOENT;
    bool connected = getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
    rc_close(&fd);
    return !connected;
}

static bool same_zero(const struct rc_pending *pending, const struct rc_key *asked)
{
    struct rc_key key = pending->key;
    key.address.sin6_port = 0;
    return pending->zero && rc_same_place(&key, asked);
}

/* Which of its worker's port-0 listeners on that address `found` is, by the order of
 * binds; -1: too many. Those bound before it that may listen later come before it. */
int rc_zero_index(struct rc_engine *engine, struct rc_worker *worker,
                  const struct rc_pending *found, const struct rc_key *asked)
{
    struct rc_zero_count *zero = zero_count(worker, asked);
    int before = 0, index = 0;
    if (!zero)
        return -1;
    for (const struct rc_pending *one = worker->pending; one < found; one++)
        before += same_zero(one, asked) && may_still_listen(engine, worker, one);
    for (; index < RC_ZEROS_MAX; index++)
        if (!(zero->listened >> index & 1) && before-- == 0)
            return index;
    return -1;
}

/* The group of that index, or NULL. */
struct rc_group *rc_zero_group(struct rc_engine *engine, const struct rc_key *asked, int index)
{
    for (struct rc_group *group = engine->groups; group && index >= 0; group = group->next)
        if (group->zero_index == index && group->key.uid == asked->uid &&
            rc_same_place(&group->zero, asked))
            return group;
    return NULL;
}

void rc_zero_listened(struct rc_worker *worker, const struct rc_key *asked, int index)
{
    struct rc_zero_count *zero = index < 0 ? NULL : zero_count(worker, asked);
    if (zero)
        zero->listened |= UINT64_C(1) << index;
}
