/* watch.h - when lanes are looked at, and what follows at once from what is seen. */
#ifndef RECLUSTER_WATCH_H
#define RECLUSTER_WATCH_H

#include "base/parts.h"

struct rc_engine;
struct rc_group;
struct rc_lane;

extern const struct rc_part rc_watch_part;

/* congestion.c */
void rc_lane_arrival(struct rc_engine *engine, struct rc_lane *lane);
void rc_group_watch(struct rc_engine *engine, struct rc_group *group);
void rc_lanes_sweep(struct rc_engine *engine);

#endif
