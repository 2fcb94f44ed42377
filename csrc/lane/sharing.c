/* sharing.c - lanes that several workers accept from: one queue for a party.
 *
 * Owns: who holds a lane, and what follows from it for steering and draining.
 * Workers of one party (rc_worker_place; the caller takes a party for each
 * generation) get one lane per address: the first that listens makes it, and at
 * the listen of the others it takes the place of their own socket.
 *
 * Invariants:
 *  - lane->worker is a holder, lane->others are the rest; a lane has a holder
 *    until it leaves its group. A holder leaves when nothing of it runs;
 *  - what waits in a lane is owed by whoever is left to accept it: by each
 *    holder while nobody is steered to it any more, by nobody in particular
 *    while somebody is, and by exactly one of the dead when all are dead.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

struct rc_share {
    struct rc_share *next;
    struct rc_worker *worker;
};

/* ---- who holds it ------------------------------------------------------------ */

bool rc_lane_held_by(const struct rc_lane *lane, const struct rc_worker *worker)
{
    if (!worker || lane->worker == worker)
        return worker;
    const struct rc_share *share = lane->others;
    while (share && share->worker != worker)
        share = share->next;
    return share;
}

int rc_lane_join(struct rc_lane *lane, struct rc_worker *worker)
{
    if (rc_lane_held_by(lane, worker))
        return 0;
    struct rc_share *share = calloc(1, sizeof *share);
    if (!share)
        return -ENOMEM;
    *share = (struct rc_share){.next = lane->others, .worker = worker};
    lane->others = share;
    return 0;
}

/* False if there is nobody else to hold it, or it does not. */
bool rc_lane_leave(struct rc_lane *lane, const struct rc_worker *worker)
{
    struct rc_share **link = &lane->others, *share;
    if (!lane->others || !rc_lane_held_by(lane, worker))
        return false;
    if (lane->worker == worker) {
        rc_lane_calm(lane); /* what was seen was counted as that worker's */
        lane->worker = lane->others->worker;
    } else {
        while ((*link)->worker != worker)
            link = &(*link)->next;
    }
    share = *link;
    *link = share->next;
    free(share);
    return true;
}

void rc_lane_unshare(struct rc_lane *lane)
{
    while (lane->others) {
        struct rc_share *share = lane->others;
        lane->others = share->next;
        free(share);
    }
}

unsigned rc_lane_holders(const struct rc_lane *lane)
{
    unsigned count = lane->worker != NULL;
    for (const struct rc_share *share = lane->others; share; share = share->next)
        count++;
    return count;
}

/* The ids of all holders but lane->worker, the last that joined first; how many they are. */
size_t rc_lane_others(const struct rc_lane *lane, uint32_t *ids, size_t room)
{
    size_t count = 0;
    for (const struct rc_share *share = lane->others; share && count < room; share = share->next)
        ids[count++] = share->worker->id;
    return count;
}

struct rc_lane *rc_lane_of_party(struct rc_group *group, uint32_t party)
{
    for (unsigned at = 0; party && at < group->count; at++)
        if (group->lanes[at]->party == party && !group->lanes[at]->removing)
            return group->lanes[at];
    return NULL;
}

/* ---- what follows from it ------------------------------------------------------- */

static enum rc_level worker_level(const struct rc_worker *worker)
{
    if (!worker->live || worker->weight <= 0)
        return RC_LEVEL_NEVER;
    return worker->dead ? RC_LEVEL_ORPHAN : RC_LEVEL_LIVE;
}

enum rc_level rc_lane_level(const struct rc_lane *lane)
{
    if (!lane->worker || lane->removing || lane->closing)
        return RC_LEVEL_NEVER;
    enum rc_level best = worker_level(lane->worker);
    for (const struct rc_share *share = lane->others; share; share = share->next) {
        enum rc_level level = worker_level(share->worker);
        best = level > best ? level : best;
    }
    return best;
}

/* Of all whose level is the lane's: a lane that three accept from gets thrice
 * what one worker's gets. Not for a sink. */
double rc_lane_weight(const struct rc_lane *lane)
{
    enum rc_level level = rc_lane_level(lane);
    double weight = worker_level(lane->worker) == level ? lane->worker->weight : 0;
    for (const struct rc_share *share = lane->others; share; share = share->next)
        if (worker_level(share->worker) == level)
            weight += share->worker->weight;
    return weight;
}

/* Whether somebody but `worker` is alive to accept from it. */
bool rc_lane_has_others(const struct rc_lane *lane, const struct rc_worker *worker)
{
    bool has = lane->worker && lane->worker != worker && !lane->worker->dead;
    for (const struct rc_share *share = lane->others; share; share = share->next)
        has |= share->worker != worker && !share->worker->dead;
    return has;
}

bool rc_lane_all_dead(const struct rc_lane *lane)
{
    return !rc_lane_has_others(lane, NULL);
}

static bool lives(const struct rc_worker *worker)
{
    return worker->live && !worker->dead;
}

/* Whether somebody else is steered to it, and so goes on accepting. */
static bool has_live_others(const struct rc_lane *lane, const struct rc_worker *worker)
{
    bool has = lane->worker != worker && lives(lane->worker);
    for (const struct rc_share *share = lane->others; share; share = share->next)
        has |= share->worker != worker && lives(share->worker);
    return has;
}

/* Whether what waits in the lane keeps `worker` (see the invariants above). */
bool rc_lane_owed(const struct rc_lane *lane, const struct rc_worker *worker)
{
    if (!lane->worker || !rc_lane_held_by(lane, worker))
        return false;
    if (worker->dead)
        return rc_lane_all_dead(lane) && lane->worker == worker;
    return !has_live_others(lane, worker);
}

/* Whether a worker that is not live itself still polls a lane that others are
 * steered to: it cannot be made to stop, for the socket is theirs too. */
bool rc_shares_live(const struct rc_engine *engine, const struct rc_worker *worker)
{
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            if (lane->others && rc_lane_held_by(lane, worker) && has_live_others(lane, worker))
                return true;
        }
    return false;
}
