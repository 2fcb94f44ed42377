/* choosing.c - which lanes of a group new connections may go to, and saying so.
 *
 * Owns: the choice among a group's lanes, by who is live and who is preferred, and
 * its attachment. Does not own what it is made from: levels (sharing.c), pressure
 * (pressure.c), nor the programs (steering.c, kernel_plan.c, front.c).
 *
 * Invariant: the better kind of lane there is is chosen, and the worse never refused
 * while there is nothing else.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

/* Of a lane whose worker is live, the pressure makes the level: from LIVE up to FREE. */
enum level { NEVER, ORPHAN, LIVE, FREE = LIVE + RC_HUNG - RC_FREE };

/* By address a client comes to its slot whatever that does. Where parts were asked
 * for, or turns, they are exact, but for who is stuck: to prefer one worker or another from
 * one moment to the next would make a canary's what chance makes it. */
static enum level lane_level(const struct rc_lane *lane)
{
    enum rc_level level = rc_lane_level(lane);
    const struct rc_group *group = lane->group;
    if (group->key.type == SOCK_DGRAM && rc_udp_connected(lane->source.fd))
        return NEVER; /* the kernel finds it by its peer */
    if (level == RC_LEVEL_LIVE && lane->deaf)
        level = RC_LEVEL_ORPHAN; /* it waits for a successor too */
    if (level != RC_LEVEL_LIVE)
        return level == RC_LEVEL_ORPHAN && !group->held ? ORPHAN : NEVER;
    if (group->policy == RC_BALANCE_SOURCE_IP ||
        (rc_group_has_parts(group) && !rc_lane_stuck(lane)))
        return FREE;
    return (enum level)(FREE - rc_lane_pressure(lane));
}

/* Whether the lanes' weights differ. */
static bool group_weighed(const struct rc_group *group)
{
    double first = 0;
    for (unsigned at = 0; at < group->count; at++) {
        if (rc_lane_level(group->lanes[at]) != RC_LEVEL_LIVE)
            continue;
        double weight = rc_lane_weight(group->lanes[at]);
        if (first > 0 && (weight < first || weight > first))
            return true;
        first = weight;
    }
    return false;
}

/* Whether that differs from the last choice. */
bool rc_group_choose(struct rc_group *group)
{
    enum level best = NEVER;
    bool changed = false;
    group->weighed = group_weighed(group);
    for (unsigned at = 0; at < group->count; at++) {
        enum level level = lane_level(group->lanes[at]);
        best = level > best ? level : best;
    }
    for (unsigned at = 0; at < group->count; at++) {
        struct rc_lane *lane = group->lanes[at];
        bool before = lane->chosen;
        lane->chosen = best != NEVER && lane_level(lane) == best;
        changed |= lane->chosen != before;
    }
    return changed;
}

/* Which index a lane is chosen by, or -1. One that is about to move has none: others
 * stand in for it. By address a client has one slot, so its SYN is dropped by the sink,
 * and comes again a second later, rather than that another worker gets it. */
static int index_below(const struct rc_group *group, unsigned at, unsigned limit)
{
    if (!group->lanes[at]->chosen)
        return -1;
    unsigned index = group->lanes[at]->index;
    if (index < limit)
        return (int)index;
    if (group->policy != RC_BALANCE_SOURCE_IP || !group->sink)
        return -1;
    unsigned sink = group->sink->index;
    return sink < limit ? (int)sink : -1;
}

/* The chosen lanes, as what a program chooses from. In dispatch the front stands for all of
 * those whose workers are passed their connections. */
static unsigned gather(const struct rc_group *group, unsigned limit, struct rc_choice *choices)
{
    unsigned count = 0;
    double passed = 0;
    for (unsigned at = 0; at < group->count; at++) {
        const struct rc_lane *lane = group->lanes[at];
        int index = index_below(group, at, limit);
        if (lane->chosen && lane->receiver.pair.fd >= 0)
            passed += rc_lane_weight(lane);
        else if (index >= 0)
            choices[count++] = (struct rc_choice){(unsigned)index, lane->worker->id,
                                                  lane->worker->slot, rc_lane_weight(lane)};
    }
    if (passed > 0 && group->front && group->front->index < limit)
        choices[count++] = (struct rc_choice){.index = group->front->index, .weight = passed};
    return count;
}

/* Steers to the chosen lanes: by eBPF where the engine has it, else by a classic
 * program over those below index `limit`. Where there is none, to the sink:
 * clients wait. */
int rc_group_attach(struct rc_group *group, unsigned limit)
{
    struct rc_detour detour;
    bool detoured = rc_reach_detour(group, limit, &detour);
    if (group->count == 1 && group->lanes[0]->inherited)
        return 0; /* the kernel makes a group of it when a second one joins */
    if (!detoured && rc_kernel_steer(group) == 0) {
        group->attached.length = 0;
        return 0;
    }
    struct rc_choice *choices = calloc(group->count, sizeof *choices);
    if (!choices)
        return -ENOMEM;
    unsigned count = gather(group, limit, choices);
    int lane = group->lanes[0]->source.fd;
    if (count == 0 && group->sink && group->sink->index < limit)
        choices[count++] = (struct rc_choice){.index = group->sink->index};
    if (count == 0 && detoured) /* without a sink: whoever listens */
        choices[count++] = (struct rc_choice){.index = detour.index};
    int error = count == 0 ? 0
                : group->key.type == SOCK_DGRAM
                    ? rc_udp_steer(group, choices, count)
                    : rc_steering_renew(lane, group->policy, choices, count,
                                        detoured ? &detour : NULL, &group->attached);
    if (count && !error)
        group->plan.attached = false;
    free(choices);
    return error;
}

int rc_group_steer(struct rc_group *group)
{
    if (group->count == 0)
        return 0;
    (void)rc_group_choose(group);
    int error = rc_group_attach(group, rc_group_members(group));
    group->stale = false;
    group->refused = error != 0;
    return error;
}

/* After a change of pressure only: often the choice stays what it was. */
int rc_group_refresh(struct rc_group *group)
{
    if (group->count == 0 || (!rc_group_choose(group) && !group->refused)) {
        group->stale = false;
        return 0;
    }
    return rc_group_steer(group);
}
