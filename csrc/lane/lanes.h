/* lanes.h - lanes and groups: the master's own of every listener, which of them may be
 * chosen, and what is known of each.
 *
 * Direction: lanes -> choosing -> sharing -> table; proof -> reach -> order, sink; deaf.
 */
#ifndef RECLUSTER_LANES_H
#define RECLUSTER_LANES_H

#include "base/loop.h"
#include "base/sockets.h"
#include "lane/receiver.h"
#include "load/load.h"
#include "recluster.h"
#include "steer/steering.h"

struct rc_engine;
struct rc_accepted;
struct rc_kernel;
struct rc_share;
struct rc_udp_plan;
struct rc_worker;

/* The master's own connection to a lane, until somebody has taken it (proof.c). */
struct rc_proof {
    struct rc_source client; /* fd -1: there is none */
    in_port_t port;
    bool wanted; /* its worker is not known to accept */
    bool proven; /* somebody did */
    bool waits;  /* the handshake is over */
    bool passed; /* in dispatch: it lies in the pair */
    unsigned queued, tries, interval;
    int64_t look_at, rung_at; /* us; 0: no look */
};

struct rc_lane {
    struct rc_grave grave;
    struct rc_lane *alike;   /* table.c */
    struct rc_source source; /* our dup of the listening socket; events = 0, for HUP */
    struct rc_group *group;
    struct rc_worker *worker; /* NULL: the group's sink */
    struct rc_share *others;  /* further holders of a shared lane */
    uint32_t party;           /* not 0: the lane of all workers of that party */
    unsigned index;           /* in the kernel's group (order.c), */
    bool fresh;               /* which a guest may have had before it: not to be relied on yet */
    uint64_t inode;
    pid_t pid;        /* who has it, */
    int descriptor;   /* as which descriptor, when it was last seen: where a look begins */
    uint32_t number;  /* by which programs in the kernel know it; 0: not at all */
    uint64_t counted; /* what its number had got when a worker was last told (counts.c) */
    unsigned backlog;
    bool inherited;           /* somebody else's too: never shut down (inherited.c) */
    bool ours;                /* of an inherited one: the master has bound it */
    unsigned knocks;          /* stored: connections of our own that wait in it (stored.c), */
    int knocking;             /* and our end of one, or -1 */
    int64_t arrives_until_ms; /* adopted, and perhaps still on its way in a message; 0: not */
    bool deaf;                /* its worker lives, and no process of it has the lane any more */
    struct rc_pressure pressure;
    struct rc_stall stall;
    bool by_leader; /* listened on by the worker's leader, not by a child or a thread */
    bool chosen;    /* the attached program may return it */
    bool closing;   /* caller asked for no new SYN */
    bool removing;
    struct rc_proof proof;
    int bells;                   /* that lie in it, or are about to be closed (ring.c) */
    struct rc_receiver receiver; /* in dispatch */
};

/* A further UDP socket of a worker, which we have no duplicate of (udpside.c). */
struct rc_aside {
    uint32_t worker;
    pid_t pid;
    int number;
    uint64_t inode;
    int64_t bound_at; /* us */
};
enum { RC_ASIDES_MAX = 64 };

/* A listener in the kernel's group that is not ours (order.c). */
struct rc_guest {
    uint64_t inode;
    unsigned index;
};

/* What the addresses of a group speak, as far as was seen. */
enum rc_speech { RC_SPEECH_UNKNOWN, RC_SPEECH_HTTP1, RC_SPEECH_OTHER };

/* Ports from which the master connects to lanes, again and again (reach.c). */
enum { RC_REACH_PORTS = 64 };

struct rc_group {
    struct rc_grave grave;
    struct rc_group *next, *alike; /* alike: table.c */
    struct rc_key key;
    struct rc_key zero; /* what its port-0 bind asked for */
    int zero_index;     /* -1: the port was asked for by number */
    struct rc_lane **lanes;
    struct rc_lane *sink;    /* one of them, or NULL */
    struct rc_lane *front;   /* one of them: in dispatch; or NULL */
    struct rc_lane *ringing; /* the one that the master connects to just now, or NULL */
    unsigned reached;        /* how often it did */
    struct rc_accepted *undelivered;
    enum rc_policy policy;
    enum rc_speech speaks;
    bool blocks;  /* a server here was seen to read(2) without O_NONBLOCK */
    bool weighed; /* its lanes have different weights */
    bool stale;   /* pressure has changed since the last choice */
    bool flooded; /* connections come, and stay, faster than workers are looked at */
    int open;     /* what workers had open when that was last looked at, */
    int known;    /* of how many it was known; 0: not looked at yet */
    bool refused; /* the last choice could not be attached */
    struct rc_attached attached;
    int64_t steered_at;
    unsigned count, room;
    struct rc_guest *guests;
    unsigned guest_count, guest_room;
    bool fresh;               /* a lane of it may be */
    bool unsure;              /* several guests went at once: indices are a guess */
    bool held;                /* where only lanes without a holder are left, the sink is better */
    struct rc_kernel *kernel; /* the engine's, or NULL */
    struct rc_kernel_plan plan;
    struct rc_udp_plan *flows; /* of a UDP group; NULL: there is none */
    unsigned flows_stay_ms;    /* 0: not to be had */
    struct rc_aside asides[RC_ASIDES_MAX];
    unsigned aside_count;
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

/* table.c */
enum { RC_CHAINS = 1024 };
struct rc_table {
    struct rc_group *groups[RC_CHAINS];
    struct rc_lane *lanes[RC_CHAINS];
};
void rc_table_add_group(struct rc_table *table, struct rc_group *group);
void rc_table_remove_group(struct rc_table *table, const struct rc_group *group);
struct rc_group *rc_table_group(struct rc_table *table, const struct rc_key *key);
void rc_table_add_lane(struct rc_table *table, struct rc_lane *lane);
void rc_table_remove_lane(struct rc_table *table, const struct rc_lane *lane);
struct rc_lane *rc_table_lane(const struct rc_table *table, uint64_t inode);

/* groups.c */
struct rc_group *rc_group_find(struct rc_engine *engine, const struct rc_key *key);
struct rc_group *rc_group_new(struct rc_engine *engine, const struct rc_key *key);
void rc_lane_init(struct rc_lane *lane);
int rc_group_append(struct rc_engine *engine, struct rc_group *group, struct rc_lane *lane);
void rc_group_retract(struct rc_engine *engine, struct rc_group *group, const struct rc_lane *lane);
struct rc_lane *rc_lane_find(struct rc_engine *engine, uint64_t inode);
#define RC_NOBODY UINT32_MAX /* the id of who has the lanes that no worker has */
struct rc_worker *rc_nobody(struct rc_engine *engine);

/* lanes.c */
void rc_group_add_sink(struct rc_engine *engine, struct rc_group *group);
int rc_lane_remove(struct rc_engine *engine, struct rc_lane *lane);
void rc_group_free_if_empty(struct rc_engine *engine, struct rc_group *group);
void rc_lane_forget(struct rc_engine *engine, struct rc_lane *lane);
void rc_lanes_hup(struct rc_engine *engine, struct rc_lane *lane);
void rc_lanes_shut(struct rc_engine *engine, struct rc_lane *lane);
int rc_lane_vacate(struct rc_engine *engine, struct rc_lane *lane);
int rc_lanes_drop(struct rc_engine *engine, struct rc_worker *worker);
int rc_lanes_resteer(struct rc_engine *engine);

/* order.c */
unsigned rc_group_members(const struct rc_group *group);
void rc_order_append(struct rc_group *group, struct rc_lane *lane);
void rc_order_take_out(struct rc_lane *lane);
int rc_order_look(struct rc_engine *engine, struct rc_group *group);
void rc_order_expect(struct rc_engine *engine, struct rc_group *group, bool steered);
void rc_orders_settle(struct rc_engine *engine);
void rc_orders_sweep(struct rc_engine *engine, int64_t now);
int rc_orders_look(struct rc_engine *engine, const struct rc_worker *worker);

/* choosing.c */
bool rc_group_choose(struct rc_group *group);
int rc_group_attach(struct rc_group *group, unsigned limit);
int rc_group_steer(struct rc_group *group);
int rc_group_refresh(struct rc_group *group);

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
size_t rc_lane_others(const struct rc_lane *lane, uint32_t *ids, size_t room);
int rc_lane_join(struct rc_lane *lane, struct rc_worker *worker);
bool rc_lane_leave(struct rc_lane *lane, const struct rc_worker *worker);
void rc_lane_unshare(struct rc_lane *lane);
struct rc_lane *rc_lane_of_party(struct rc_group *group, uint32_t party);
bool rc_shares_live(const struct rc_engine *engine, const struct rc_worker *worker);

/* reach.c */
bool rc_reach_detour(const struct rc_group *group, unsigned limit, struct rc_detour *out);
int rc_reach_begin(struct rc_lane *lane);
int rc_reach_go(struct rc_lane *lane, int fd);
bool rc_reach_over(int fd);
int rc_reach(struct rc_engine *engine, struct rc_lane *lane);
void rc_reach_end(struct rc_lane *lane);

/* proof.c */
bool rc_proof_pending(const struct rc_lane *lane);
bool rc_proof_is(const struct rc_lane *lane, const struct rc_accepted *accepted);
bool rc_proof_pass(struct rc_engine *engine, struct rc_lane *lane, struct rc_accepted *accepted);
unsigned rc_lane_waiting(const struct rc_lane *lane);
bool rc_proof_needed(const struct rc_engine *engine, const struct rc_lane *lane,
                     const struct rc_worker *worker);
void rc_proof_ask(struct rc_engine *engine, struct rc_lane *lane, struct rc_worker *worker);
void rc_proof_end(struct rc_engine *engine, struct rc_lane *lane);
void rc_proof_settle(struct rc_engine *engine, struct rc_worker *worker, bool heard);
void rc_proof_answered(struct rc_engine *engine, struct rc_lane *lane);
void rc_proof_taken(struct rc_engine *engine, struct rc_lane *lane);
void rc_proof_sweep(struct rc_engine *engine, int64_t now);
void rc_proof_heard(struct rc_engine *engine);

/* sink.c */
int rc_sibling_listen(const struct rc_key *key, int lane, int backlog);
int rc_client_at(const struct rc_key *key, in_port_t *port);
void rc_reachable(const struct rc_key *key, struct sockaddr_in6 *to);
int rc_sink_client(const struct rc_key *key, in_port_t *port);
int rc_sink_fill(int sink, int client, const struct rc_key *key);

#endif
