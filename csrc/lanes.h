/* lanes.h - lanes and groups: the master's own of every listener, which of them may be
 * chosen, and what is known of each.
 *
 * Direction: lanes -> choosing -> sharing, pressure; congestion -> vigil, doing, crowd,
 * haste; deaf -> holders. steering.h is below, doors.h above.
 */
#ifndef RECLUSTER_LANES_H
#define RECLUSTER_LANES_H

#include "dispatch.h"
#include "loop.h"
#include "recluster.h"
#include "sockets.h"

struct rc_engine;
struct rc_call;
struct rc_answer;

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
    int64_t avoided_at; /* since when it is not chosen because it is congested */
    enum rc_pressure_kind work; /* its worker's: RC_FREE, RC_TAKING, RC_BUSY or RC_BLOCKED */
    bool crowded, congested, hung;
};

struct rc_lane {
    struct rc_grave grave;
    struct rc_source source; /* our dup of the listening socket; events = 0, for HUP */
    struct rc_group *group;
    struct rc_worker *worker; /* NULL: the group's sink */
    struct rc_share *others;  /* further holders of a shared lane */
    uint32_t party;           /* not 0: the lane of all workers of that party */
    uint64_t inode;
    pid_t pid;       /* who has it, */
    int descriptor;  /* as which descriptor, when it was last seen: where a look begins */
    uint32_t number; /* by which programs in the kernel know it; 0: not at all */
    unsigned backlog;
    bool inherited;           /* somebody else's too: never shut down (inherited.c) */
    int64_t arrives_until_ms; /* adopted, and perhaps still on its way in a message; 0: not */
    bool deaf;                /* its worker lives, and no process of it has the lane any more */
    struct rc_pressure pressure;
    bool by_leader; /* listened on by the worker's leader, not by a child or a thread */
    bool chosen;    /* the attached program may return it */
    bool closing;   /* caller asked for no new SYN */
    bool removing;
    struct rc_taker taker; /* in dispatch */
};

/* A group's program in the kernel and what it reads (kernel_plan.c). */
struct rc_plan;
struct rc_kernel_plan {
    struct rc_plan *shared; /* NULL: there is none */
    int program;            /* descriptor; of account only where `shared` is */
    bool attached;
};

/* lanes[i] is at index i of the kernel's reuseport group: appended at listen,
 * and when one is removed the last takes its place (reuseport_detach_sock). */
struct rc_group {
    struct rc_grave grave;
    struct rc_group *next;
    struct rc_key key;
    struct sockaddr_in6 zero;
    int zero_index; /* -1: the port was asked for by number */
    struct rc_lane **lanes;
    struct rc_lane *sink;  /* one of them, or NULL */
    struct rc_lane *front; /* one of them: in dispatch; or NULL */
    struct rc_hand *hand;
    unsigned promised; /* offers by bells */
    unsigned left;     /* in the front's queue, at least: only we take from it */
    enum rc_policy policy;
    bool weighed; /* its lanes have different weights */
    bool stale;   /* pressure has changed since the last choice */
    bool flooded; /* connections come, and stay, faster than workers are looked at */
    int open;     /* what workers had open when that was last looked at, */
    int known;    /* of how many it was known; 0: not looked at yet */
    bool refused; /* the last choice could not be attached */
    int64_t steered_at;
    unsigned count, room;
    bool held;                /* where only lanes without a holder are left, the sink is better */
    struct rc_kernel *kernel; /* the engine's, or NULL */
    struct rc_kernel_plan plan;
    struct rc_udp_plan *flows; /* of a UDP group; NULL: there is none */
    unsigned flows_stay_ms;    /* 0: not to be had */
};

/* Whether turns or counts were asked for by name: then they are kept to. In auto
 * the kernel's count is one help of several, and who is congested is avoided. */
static inline bool rc_group_exact(const struct rc_group *group)
{
    return group->kernel && group->policy != RC_BALANCE_AUTO;
}

/* Whether each worker has a part that was asked for. */
static inline bool rc_group_has_parts(const struct rc_group *group)
{
    return group->policy == RC_BALANCE_WEIGHTED || group->weighed || rc_group_exact(group);
}

/* While requests take so long that it matters whether a worker is at work;
 * microseconds. */
struct rc_vigil {
    int64_t until;      /* 0: no vigil */
    int64_t look_at;    /* the next one at workers */
    int64_t stirred_at; /* when a worker last went to work */
    int64_t counted_at; /* the connections of the whole network namespace: */
    uint64_t opened;
    uint64_t most; /* it ended since more than these came in a second; 0: not so */
};

/* groups.c */
struct rc_group *rc_group_find(struct rc_engine *engine, const struct rc_key *key);
struct rc_group *rc_group_new(struct rc_engine *engine, const struct rc_key *key);
void rc_lane_init(struct rc_lane *lane);
int rc_group_append(struct rc_group *group, struct rc_lane *lane);
struct rc_lane *rc_lane_find(struct rc_engine *engine, uint64_t inode);
struct rc_worker *rc_nobody(struct rc_engine *engine);

/* lanes.c */
void rc_group_add_sink(struct rc_engine *engine, struct rc_group *group);
void rc_group_free_if_empty(struct rc_engine *engine, struct rc_group *group);
void rc_lanes_hup(struct rc_engine *engine, struct rc_lane *lane);
void rc_lanes_shut(struct rc_engine *engine, struct rc_lane *lane);
int rc_lane_vacate(struct rc_engine *engine, struct rc_lane *lane);
int rc_lanes_drop(struct rc_engine *engine, struct rc_worker *worker);
int rc_lanes_resteer(struct rc_engine *engine);

/* choosing.c */
unsigned rc_lane_index(const struct rc_lane *lane);
bool rc_group_choose(struct rc_group *group);
int rc_group_attach(struct rc_group *group, unsigned limit);
int rc_group_steer(struct rc_group *group);
int rc_group_refresh(struct rc_group *group);

/* udpkernel.c */
struct rc_choice;
struct rc_udp_plan;
int rc_udp_steer(struct rc_group *group, const struct rc_choice *choices, unsigned count);
void rc_udp_forget(struct rc_group *group, struct rc_lane *lane);
void rc_udp_plan_close(const struct rc_udp_plan *plan);
void rc_udp_plan_free(struct rc_group *group);

/* deaf.c */
void rc_lane_arrives(struct rc_lane *lane);
int rc_lane_held(struct rc_lane *lane);
bool rc_lane_is_deaf(struct rc_engine *engine, struct rc_lane *lane);
void rc_lane_shut_down(struct rc_engine *engine, const struct rc_lane *lane);

/* sharing.c */
enum rc_level { RC_LEVEL_NEVER, RC_LEVEL_ORPHAN, RC_LEVEL_LIVE };
enum rc_level rc_lane_level(const struct rc_lane *lane);
double rc_lane_weight(const struct rc_lane *lane);
bool rc_lane_held_by(const struct rc_lane *lane, const struct rc_worker *worker);
bool rc_lane_has_others(const struct rc_lane *lane, const struct rc_worker *worker);
bool rc_lane_all_dead(const struct rc_lane *lane);
bool rc_lane_owed(const struct rc_lane *lane, const struct rc_worker *worker);
unsigned rc_lane_holders(const struct rc_lane *lane);
int rc_lane_join(struct rc_lane *lane, struct rc_worker *worker);
bool rc_lane_leave(struct rc_lane *lane, const struct rc_worker *worker);
void rc_lane_unshare(struct rc_lane *lane);
struct rc_lane *rc_lane_of_party(struct rc_group *group, uint32_t party);
bool rc_shares_live(const struct rc_engine *engine, const struct rc_worker *worker);

/* pressure.c */
enum { RC_STARVED_US = 75000 }; /* whose queue stands still for less may only lack a CPU */
unsigned rc_lane_queued(const struct rc_lane *lane, unsigned *limit);
unsigned rc_listener_queued(int fd);
enum rc_pressure_kind rc_lane_pressure(const struct rc_lane *lane);
bool rc_lane_stuck(const struct rc_lane *lane);
int64_t rc_lane_judged_us(const struct rc_lane *lane);
bool rc_lane_watched(const struct rc_lane *lane);
bool rc_lane_judged(const struct rc_engine *engine, const struct rc_lane *lane);
bool rc_group_any_free(const struct rc_group *group);
void rc_lane_chosen(struct rc_lane *lane, bool chosen);
void rc_lane_calm(struct rc_lane *lane);

/* congestion.c */
void rc_lane_arrival(struct rc_engine *engine, struct rc_lane *lane);
void rc_group_watch(struct rc_engine *engine, struct rc_group *group);
void rc_lanes_sweep(struct rc_engine *engine);

/* crowd.c */
int rc_crowd_names(const char *path);
int64_t rc_crowd_look(struct rc_engine *engine);
void rc_crowd_end(struct rc_engine *engine);

/* haste.c */
void rc_haste(struct rc_engine *engine, bool wanted);
void rc_haste_child(const struct rc_engine *engine);

/* vigil.c */
bool rc_vigil_on(const struct rc_engine *engine, int64_t now);
void rc_vigil_begin(struct rc_engine *engine, int64_t now);
bool rc_vigil_goes_on(struct rc_engine *engine, unsigned lanes, int64_t now);

/* doing.c */
enum rc_doing {
    RC_DOING_UNKNOWN,
    RC_DOING_WAIT, /* for connections */
    RC_DOING_WORK,
};
enum rc_doing rc_worker_doing(struct rc_worker *worker);

/* kernel.c, kernel_plan.c: steering by eBPF, where that is allowed */
int rc_kernel_steer(struct rc_group *group);
void rc_kernel_forget(struct rc_group *group, struct rc_lane *lane);
void rc_kernel_plan_free(struct rc_kernel_plan *plan);
void rc_kernel_close(struct rc_engine *engine);
int rc_kernel_connections(const struct rc_lane *lane);

#endif
