/* parts.c - tells every part of the engine that wants to hear it what has happened below.
 *
 * Owns nothing but the loop over engine->parts.
 */
#include "internal.h"

#define TELL(entry, ...)                                                                           \
    for (const struct rc_part *const *part = engine->parts; *part; part++)                         \
        if ((*part)->entry)                                                                        \
    (*part)->entry(engine, __VA_ARGS__)

void rc_live_changed(struct rc_engine *engine, bool any_live)
{
    TELL(live_changed, any_live);
}

void rc_group_changed(struct rc_engine *engine, struct rc_group *group)
{
    TELL(group_changed, group);
}

void rc_lane_goes(struct rc_engine *engine, struct rc_lane *lane)
{
    TELL(lane_goes, lane);
}

void rc_group_goes(struct rc_engine *engine, struct rc_group *group)
{
    TELL(group_goes, group);
}

void rc_datagram_binds(struct rc_engine *engine, const struct rc_call *call,
                       const struct sockaddr_in6 *address, struct rc_answer *answer)
{
    TELL(datagram_binds, call, address, answer);
}

void rc_datagram_connects(struct rc_engine *engine, const struct rc_call *call)
{
    TELL(datagram_connects, call);
}
