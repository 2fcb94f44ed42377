/* internal.h - what the engine's files share: a worker and the engine, in which each folder
 * has its part, and the headers of all folders. Not installed, not public.
 *
 * A folder's header never includes this one if this one includes it. README.md has the order
 * of the folders; that all files see all headers means that only tests/models/test_levels_c.py
 * holds them to it.
 */
#ifndef RECLUSTER_INTERNAL_H
#define RECLUSTER_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* Linux only, and says so once; hence this header comes first */
#endif

#include "base/alarm.h"
#include "base/connections.h"
#include "base/loop.h"
#include "base/parts.h"
#include "base/processes.h"
#include "base/registry.h"
#include "base/sockets.h"
#include "dispatch/dispatch.h"
#include "door/doors.h"
#include "drain/drain.h"
#include "engine/due.h"
#include "handover/handover.h"
#include "handover/ring.h"
#include "lane/lanes.h"
#include "load/load.h"
#include "process/process.h"
#include "recluster.h"
#include "steer/steering.h"
#include "udp/udp.h"
#include "unix/unix.h"
#include "watch/watch.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

/* ---- workers -------------------------------------------------------------- */

struct rc_worker {
    struct rc_grave grave;
    struct rc_worker *next;
    uint32_t id, heir_of;
    unsigned generation;
    struct timespec born; /* CLOCK_REALTIME */
    pid_t pid;
    struct rc_source process; /* pidfd */
    struct rc_source channel_source;
    struct rc_source door;
    struct rc_channel channel;
    int child_channel;      /* the child's end, until the fork */
    int output[2];          /* the child's ends of its output's pipes (output.c), or -1 */
    bool asked;             /* of a mold, which has not answered yet */
    bool adopted;           /* from a mold */
    bool left_some;         /* its leader ended well, and others of its group had its sockets */
    double died;            /* seconds since the machine began */
    uint64_t channel_inode; /* of that end: who has it came out of this worker */
    bool live;              /* the caller wants it steered to */
    double weight;          /* its part of new connections, against the others' */
    uint32_t slot;          /* what source_ip knows it by */
    uint32_t party;         /* workers of one party share their lanes (sharing.c); 0: none */
    bool dead;              /* its leader has been reaped */
    bool leaving;           /* exit status is known, the channel is being emptied */
    bool gone;
    bool accepts;       /* a connection was taken out of each of its lanes (proof.c), */
    int64_t untaken_at; /* the last look at a lane from which nobody had taken yet, us */
    bool unsettled;     /* one of its lanes was, in this turn */
    struct rc_shared_proof shared_proof;
    int unproven;      /* but for those where none could be made, for this -errno */
    bool seen_waiting; /* its main thread, for connections (free.c) */
    bool blind;        /* told: a process of it has rights that we lack, and is not looked into */
    unsigned lies;     /* how often what it gave for a socket was none when it was taken */
    bool inscrutable;  /* what it does cannot be seen here */
    int procfiles[RC_PROCFILES]; /* or -1 */
    unsigned hung_lanes;
    int hung_queued;
    bool told_hung; /* the caller takes it for hung */
    unsigned heard; /* the turn in which its channel was last read */
    int status;
    bool unlinks_seen; /* its door tells of them */
    struct rc_pending pending[RC_PENDING_MAX];
    unsigned pendings;
    struct rc_zero_count zeros[8]; /* port-0 binds that listened, by address */
    struct rc_drain drain;
    bool receives; /* it has the library that takes what a bell brings (ring.c) */
    struct rc_leave leave;
    struct rc_move move;
    struct rc_question question;
    bool given_up;       /* what waits in its lanes is for others (handout.c) */
    bool takes;          /* dispatch may give it connections */
    bool took;           /* or could */
    uint32_t passed[16]; /* inodes of listeners that the door has let pass, the last ones */
    unsigned passes;
    uint64_t given;    /* how many it did */
    unsigned open;     /* of these, how many are open (opens.c) */
    uint64_t forgiven; /* of `given`, those that it never got (counts.c) */
    uint64_t accepted; /* connections that its lanes got (counts.c) */
    int64_t cpu_us;    /* at its end */
};

/* ---- engine ------------------------------------------------------------------ */

struct rc_output {
    struct rc_event *events;
    size_t count, room;
};

struct rc_watch {
    struct rc_grave grave;
    struct rc_source source;
    struct rc_watch *next;
};

enum { RC_TEXTS = 64, RC_TEXT_ROOM = 128 };

struct rc_engine {
    const struct rc_part *const *parts; /* NULL ends them */
    int epoll;
    unsigned flags;
    struct rc_source timer, sweep;
    struct rc_alarm alarm;
    int64_t sweep_at; /* the sweep timer, us; 0: not set */
    int64_t order_at; /* not before: the next look at the order of lanes that are fresh, us; */
    bool fresh;       /* there are some (order.c) */
    struct rc_polling polling;
    bool short_slice, sweeping;
    int64_t imbalance_at,
        imbalance_until; /* the next look at what is open, us, 0: none; and the last */
    pid_t owner;         /* the process whose engine it is */
    sigset_t handled;    /* signals that a worker begins with the default of */
    struct rc_become become;
    struct rc_allowed *allowed; /* rights.c */
    size_t alloweds;
    bool limited; /* RLIMIT_NOFILE was raised from: */
    struct rlimit limit_before;
    bool foreground; /* workers stay in our process group, and have the terminal */
    bool orphans;    /* a child that is not a worker may wait to be reaped */
    int64_t deadline_ms;
    bool hurried; /* the timer was set to now because lines wait in a buffer */
    struct rc_guard guard;
    struct rc_asked *asked;
    struct rc_worker *workers;
    struct rc_worker *unowned; /* has the lanes that no worker has yet (inherited.c); or NULL */
    struct rc_group *groups;
    struct rc_table table;
    unsigned swept;     /* lanes that the last sweep went through, */
    unsigned unsettled; /* and workers with a proof since the turn began (proof.c) */
    struct rc_unix_lane *unixes;
    struct rc_unix_turn *turns; /* at their names (unixturn.c), */
    struct rc_unix_wait *waits; /* who waits for one, in order, */
    unsigned unix_look_ms;      /* and how long until it is looked again */
    bool unix_closing;
    bool expects_paths;                    /* workers will bind AF_UNIX paths */
    in_port_t reach_ports[RC_REACH_PORTS]; /* host order; 0: none yet */
    bool proves;                           /* it is found out whether workers accept (proof.c) */
    enum rc_policy policy;
    struct rc_kernel *kernel; /* NULL: no steering by eBPF */
    unsigned flows_stay_ms;   /* UDP flows of who retires; 0: not at all */
    struct rc_watch *watches;
    int64_t udp_bound_at; /* the last bind that made a lane or a side, us */
    struct rc_shim shim;
    struct rc_shim_caller *callers;
    struct rc_unclaimed *unclaimed;
    struct rc_look *looks;
    struct rc_reader *reader; /* one that rests, or NULL */
    struct rc_grave *graves;
    struct rc_dispatch dispatch;
    struct rc_rings rings;
    struct rc_handover handover;
    uint64_t network;    /* of ours, by its cookie */
    int diag;            /* netlink socket, or -1 */
    uint32_t diag_asked; /* number of the last question */
    unsigned turn;
    struct rc_output *output;            /* where events go while rc_wait runs */
    char texts[RC_TEXTS * RC_TEXT_ROOM]; /* addresses of the events, in places of that size */
    unsigned text_count;
};

enum { RC_TURN = 32 }; /* descriptors that are dealt with in a turn, at most */

#endif
