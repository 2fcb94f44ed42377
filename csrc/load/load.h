/* load.h - how busy the worker of a lane is, by its queue and by what the worker does.
 * Direction: free -> pressure; hangs -> starved. Who looks, and when: watch/.
 */
#ifndef RECLUSTER_LOAD_H
#define RECLUSTER_LOAD_H

#include "recluster.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct rc_engine;
struct rc_group;
struct rc_lane;
struct rc_worker;

/* What was seen of a lane; times in microseconds of CLOCK_MONOTONIC, 0: not. */
struct rc_pressure {
    unsigned queued;    /* at marked_at, or at the last look at a queue that stands still */
    unsigned interval;  /* until the next look */
    int64_t look_at;    /* the next look */
    unsigned hot;       /* so many more looks before it is armed again */
    int64_t armed_at;   /* since when the next connection in it wakes us */
    int64_t busy_at;    /* since when its worker is at work */
    int open;           /* descriptors that its worker had open at the last look; -1: unknown */
    int64_t marked_at;  /* when its queue was last seen to be new or smaller */
    int64_t still_us;   /* it had stood still for so long at the last look; if it is congested */
    int64_t sampled_at; /* the last look at its worker */
    enum rc_pressure_kind work; /* its worker's: RC_FREE, RC_TAKING, RC_BUSY or RC_BLOCKED */
    bool crowded, congested, hung;
};

/* Of a lane whose queue stands still, until something is seen to be taken (hangs.c). */
struct rc_stall {
    int arrivals;    /* an epoll set of its own: has a connection come? -1: it is not looked at */
    unsigned queued; /* at the last look, */
    int64_t looked_at;
    int64_t since;   /* and at the first, */
    uint64_t ran_ns; /* by when its worker had run for so long */
};

/* While requests take so long that it matters whether a worker is at work;
 * microseconds. */
struct rc_polling {
    int64_t until;      /* 0: no polling */
    int64_t look_at;    /* the next one at workers */
    int64_t stirred_at; /* when a worker last went to work */
    int64_t counted_at; /* the connections of the whole network namespace: */
    uint64_t opened;
    uint64_t most; /* it ended since more than these came in a second; 0: not so */
};

enum rc_activity {
    RC_ACTIVITY_UNKNOWN,
    RC_ACTIVITY_WAIT, /* for connections */
    RC_ACTIVITY_WORK,
};

enum { RC_STARVED_US = 75000 }; /* whose queue stands still for less may only lack a CPU */

/* free.c */
enum rc_activity rc_worker_activity(struct rc_worker *worker);
void rc_lane_works(struct rc_engine *engine, struct rc_lane *lane, bool works, int64_t now);
bool rc_polling_on(const struct rc_engine *engine, int64_t now);
void rc_polling_begin(struct rc_engine *engine, int64_t now);
bool rc_polling_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now);
bool rc_polling_arrival(struct rc_engine *engine, struct rc_lane *lane, int64_t now);
void rc_polling_sweep(struct rc_engine *engine, int64_t now);
int rc_imbalance_names(const char *path);
int64_t rc_imbalance_look(struct rc_engine *engine);
void rc_imbalance_end(struct rc_engine *engine);
void rc_imbalance_begin(struct rc_engine *engine, int64_t now);
void rc_imbalance_sweep(struct rc_engine *engine, int64_t now);

/* slice.c */
void rc_slice_short(struct rc_engine *engine, bool wanted);
void rc_slice_child(const struct rc_engine *engine);

/* pressure.c */
unsigned rc_lane_queued(const struct rc_lane *lane, unsigned *limit);
unsigned rc_listener_queued(int fd);
enum rc_pressure_kind rc_lane_pressure(const struct rc_lane *lane);
bool rc_lane_stuck(const struct rc_lane *lane);
int64_t rc_lane_judged_us(const struct rc_lane *lane);
bool rc_lane_watched(const struct rc_lane *lane);
bool rc_lane_judged(const struct rc_engine *engine, const struct rc_lane *lane);
bool rc_group_any_free(const struct rc_group *group);
void rc_lane_calm(struct rc_lane *lane);
void rc_lane_rest(struct rc_engine *engine, struct rc_lane *lane, int64_t now);

/* hangs.c */
bool rc_lane_hangs(struct rc_lane *lane, unsigned queued, int64_t now);
void rc_lane_takes(struct rc_lane *lane);

/* starved.c */
bool rc_wants_cpu(pid_t process, uint64_t *ran_ns);

#endif
