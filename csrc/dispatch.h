/* dispatch.h - what the files of dispatch share: the unprivileged round_robin and
 * least_connections, where the master chooses a worker for each connection.
 *
 * Words: a group's front is a lane of the master's own, which gets every new
 * connection. A worker's lane gets none; it is how the worker is told to accept.
 * Its taker says how: a pair (SCM_RIGHTS, pass.c) that lies in place of the
 * listening socket, or a bell (bell.c), a connection of ours that makes the
 * listening socket readable until its accept has been answered (accept_door.c).
 *
 * Direction: accept_door, takers -> dispatch -> held -> hands -> pass, bell, opens.
 */
#ifndef RECLUSTER_DISPATCH_H
#define RECLUSTER_DISPATCH_H

#include "loop.h"

#include <netinet/in.h>
#include <stdbool.h>

struct sock_filter;
struct rc_flow;
struct rc_engine;
struct rc_group;
struct rc_lane;
struct rc_worker;
struct rc_call;
struct rc_key;

/* Who listens with RC_LISTEN_PASSES in the upper half of the backlog can receive what
 * is passed (accepting.py); no program asks for 1.4 thousand million. */
enum { RC_LISTEN_BACKLOG = 0xffff };

/* A connection that the master holds for a moment: it was given to a worker that
 * did not take it. It goes to another one before any that waits in the kernel. */
struct rc_hand {
    struct rc_hand *next;
    int fd;
    socklen_t length;
    struct sockaddr_in6 peer;
};

/* A blocking accept that has not been answered yet. */
struct rc_held {
    struct rc_held *next;
    uint64_t id;
    pid_t thread;
    uint64_t address, length; /* in its memory */
    int flags;
};

struct rc_bell {
    int fd; /* our client, bound; -1: none */
    in_port_t port;
    bool rung;
    unsigned char host[16]; /* whence it rang */
};

struct rc_taker {
    struct rc_source pair; /* our end; -1: it has a bell instead */
    int theirs;            /* our duplicate of the worker's end: what it does not take stays */
    uint64_t inode;        /* of the worker's end; kept when the pair is not used any more */
    struct rc_bell bell;
    struct rc_held *held;
    bool offered; /* it has not taken its last connection yet */
    bool late;    /* for so long that others go first */
    bool loops;   /* after a connection it asks for another one by itself */
    bool awake;   /* and is about to: its last answer was a connection */
    int64_t since_ms;
    pid_t acceptor;  /* the thread that was last seen to accept; 0: the worker's first */
    int number;      /* by which it did */
    uint64_t ran_ns; /* how long it had run when it was last looked at */
};

/* How many connections of each worker are open, by what the kernel says when it
 * destroys one (opens.c). */
struct rc_opens {
    struct rc_source source; /* netlink; -1: nobody counts */
    uint64_t *cookies;       /* open addressing; 0: free */
    uint32_t *workers;
    struct rc_flow *flows;
    size_t count, room;
    size_t next; /* the place to look at next */
    int64_t looked_ms;
};

struct rc_dispatch {
    bool on;
    struct rc_source patience; /* timerfd */
    bool patient;              /* it is set */
    bool again;                /* more may wait than was handed out in this turn */
    struct rc_opens opens;
};

/* accept_door.c */
struct seccomp_notif;
void rc_accept_prepare(int door);
bool rc_accept_asked(struct rc_engine *engine, struct rc_worker *worker, int door,
                     const struct seccomp_notif *notice);

/* takers.c */
int rc_dispatch_join(struct rc_engine *engine, struct rc_lane *lane, bool passes);
void rc_dispatch_strays(struct rc_engine *engine, struct rc_lane *lane);
void rc_dispatch_leave(struct rc_engine *engine, struct rc_lane *lane);
void rc_dispatch_worker_ended(struct rc_engine *engine, struct rc_worker *worker);
void rc_dispatch_resteer(struct rc_engine *engine, bool any_live);
unsigned rc_dispatch_queued(const struct rc_lane *lane);
void rc_dispatch_inherit(struct rc_engine *engine, struct rc_lane *lane, struct rc_worker *to);
int rc_dispatch_descriptor(const struct rc_lane *lane);
bool rc_dispatch_passes(int *backlog);

/* front.c */
int rc_front_new(struct rc_engine *engine, struct rc_group *group, int like, unsigned backlog);
void rc_front_copy_options(int from, int to);

/* dispatch.c */
int rc_dispatch_open(struct rc_engine *engine, bool count);
void rc_dispatch_run(struct rc_engine *engine, struct rc_group *group);
void rc_dispatch_run_all(struct rc_engine *engine);
void rc_dispatch_taken(struct rc_engine *engine, struct rc_lane *lane);
void rc_dispatch_patience(struct rc_engine *engine);
bool rc_dispatch_turn_of(struct rc_engine *engine, struct rc_lane *lane);

/* held.c */
bool rc_accept_answer_held(struct rc_engine *engine, struct rc_lane *lane);
void rc_accept_forget(struct rc_lane *lane);
void rc_held_refuse(int door, uint64_t id, int error);
void rc_held_silence(struct rc_engine *engine, struct rc_lane *lane);
int rc_held_give(struct rc_engine *engine, struct rc_lane *lane, int door,
                 const struct rc_held *held, struct rc_hand *hand);
int rc_held_keep(struct rc_lane *lane, const struct rc_held *held);

/* hands.c */
enum {
    RC_PATIENCE_MS = 2, /* for one who was told to take a connection */
    RC_AGAIN_MS = 100,  /* until a descriptor or memory may be free */
};
void rc_dispatch_be_patient(struct rc_engine *engine, int ms);
int rc_dispatch_accept(struct rc_engine *engine, struct rc_group *group, struct rc_hand *out);
int rc_dispatch_take(struct rc_engine *engine, struct rc_lane *lane, struct rc_hand *out);
void rc_dispatch_return(struct rc_engine *engine, struct rc_group *group,
                        const struct rc_hand *hand);
void rc_dispatch_given(struct rc_engine *engine, struct rc_lane *lane, const struct rc_hand *hand);
void rc_dispatch_settle(struct rc_lane *lane, bool given);
bool rc_dispatch_withdraw(struct rc_engine *engine, struct rc_lane *lane);
void rc_dispatch_silence(struct rc_engine *engine, struct rc_lane *lane);
void rc_hands_free(struct rc_group *group);

/* pass.c */
int rc_pass_pair(const struct sockaddr_in6 *address, int *ours, int *theirs);
int rc_pass_send(int ours, const struct rc_hand *hand);
bool rc_pass_taken(int ours);
int rc_pass_receive(int theirs, struct rc_hand *out);

/* bell.c */
int rc_bell_new(const struct rc_key *key, struct rc_bell *bell);
int rc_bell_ring(struct rc_bell *bell, const struct rc_key *key);
int rc_bell_silence(struct rc_bell *bell, int lane, struct rc_hand *stranger);
unsigned rc_bells_build(const struct rc_group *group, struct sock_filter *out, unsigned room);
int rc_bells_attach(const struct rc_group *group, unsigned limit);

/* starved.c */
bool rc_wants_cpu(pid_t thread, bool children, uint64_t *ran_ns);

/* opens.c */
int rc_opens_open(struct rc_engine *engine);
void rc_opens_close(struct rc_engine *engine);
void rc_opens_add(struct rc_engine *engine, struct rc_worker *worker, const struct rc_hand *hand);
void rc_opens_look(struct rc_engine *engine, int64_t now_ms);
void rc_opens_read(struct rc_engine *engine);
void rc_opens_forget(struct rc_engine *engine, struct rc_worker *worker);
int rc_opens_filter(struct rc_engine *engine);

#endif
