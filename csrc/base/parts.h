/* parts.h - what the parts of the engine do when something happens in one that is below them.
 *
 * A lane that goes concerns who watches it, who rings at it, who passes connections on. Those
 * stand above lanes, so each gives a table, and lanes call whoever has one. engine/engine.c
 * has the list of tables, in the order in which they are called. Any entry may be NULL.
 */
#ifndef RECLUSTER_PARTS_H
#define RECLUSTER_PARTS_H

#include <netinet/in.h>
#include <stdbool.h>

struct rc_answer;
struct rc_call;
struct rc_engine;
struct rc_group;
struct rc_lane;

struct rc_part {
    /* The caller has said who is live, and all groups are steered so. */
    void (*live_changed)(struct rc_engine *engine, bool any_live);
    /* Who is live in it, or whether somebody holds a lane of it. */
    void (*group_changed)(struct rc_engine *engine, struct rc_group *group);
    void (*lane_goes)(struct rc_engine *engine, struct rc_lane *lane);
    void (*group_goes)(struct rc_engine *engine, struct rc_group *group);
    /* Of a datagram socket, which is a lane as soon as it is bound; and connected to a peer. */
    void (*datagram_binds)(struct rc_engine *engine, const struct rc_call *call,
                           const struct sockaddr_in6 *address, struct rc_answer *answer);
    void (*datagram_connects)(struct rc_engine *engine, const struct rc_call *call);
};

void rc_live_changed(struct rc_engine *engine, bool any_live);
void rc_group_changed(struct rc_engine *engine, struct rc_group *group);
void rc_lane_goes(struct rc_engine *engine, struct rc_lane *lane);
void rc_group_goes(struct rc_engine *engine, struct rc_group *group);
void rc_datagram_binds(struct rc_engine *engine, const struct rc_call *call,
                       const struct sockaddr_in6 *address, struct rc_answer *answer);
void rc_datagram_connects(struct rc_engine *engine, const struct rc_call *call);

#endif
