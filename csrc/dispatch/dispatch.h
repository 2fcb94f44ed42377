/* dispatch.h - what the files of dispatch share: the unprivileged round_robin and
 * least_connections, where the master chooses a worker for each connection.
 *
 * Words: a group's front is a lane of the master's own, which gets the new connections of
 * all workers that can be passed one. Such a worker has the end of a pair (lane/pass.c) in place of
 * its listening socket; its lane gets nothing. Who cannot be passed one (a static
 * program, or one without our library) accepts from its lane, by chance and not in turn.
 *
 * Direction: receivers -> dispatch -> undelivered -> opens.
 */
#ifndef RECLUSTER_DISPATCH_H
#define RECLUSTER_DISPATCH_H

#include "base/connections.h"
#include "base/loop.h"
#include "base/parts.h"
#include "lane/receiver.h"

#include <netinet/in.h>
#include <stdbool.h>

struct rc_engine;
struct rc_group;
struct rc_lane;
struct rc_worker;

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

/* One of these, for the master that takes this one's place. */
struct rc_open {
    uint32_t worker;
    struct rc_flow flow;
};

struct rc_dispatch {
    bool on;
    struct rc_source patience; /* timerfd */
    bool patient;              /* it is set */
    bool again;                /* more may wait than was handed out in this turn */
    struct rc_opens opens;
};

extern const struct rc_part rc_dispatch_part;

/* receivers.c */
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
int rc_dispatch_resumed(struct rc_engine *engine);
bool rc_dispatch_may_take(const struct rc_lane *lane);

/* undelivered.c */
enum {
    RC_PATIENCE_MS = 2, /* for one who was told to take a connection */
    RC_AGAIN_MS = 100,  /* until a descriptor or memory may be free */
};
void rc_dispatch_be_patient(struct rc_engine *engine, int ms);
int rc_dispatch_accept(struct rc_engine *engine, struct rc_group *group, struct rc_accepted *out);
void rc_dispatch_return(struct rc_engine *engine, struct rc_group *group,
                        const struct rc_accepted *accepted);
void rc_dispatch_given(struct rc_engine *engine, struct rc_lane *lane,
                       const struct rc_accepted *accepted);
bool rc_dispatch_withdraw(struct rc_engine *engine, struct rc_lane *lane);
void rc_dispatch_take_strays(struct rc_engine *engine, struct rc_lane *lane);
void rc_accepted_keep(struct rc_group *group, const struct rc_accepted *accepted);
void rc_accepted_free(struct rc_group *group);

/* opens.c */
int rc_opens_open(struct rc_engine *engine);
void rc_opens_close(struct rc_engine *engine);
void rc_opens_add(struct rc_engine *engine, struct rc_worker *worker,
                  const struct rc_accepted *accepted);
void rc_opens_look(struct rc_engine *engine, int64_t now_ms);
void rc_opens_read(struct rc_engine *engine);
void rc_opens_forget(struct rc_engine *engine, struct rc_worker *worker);
int rc_opens_filter(struct rc_engine *engine);
int rc_opens_carry(const struct rc_engine *engine, struct rc_open **out, size_t *count);
int rc_opens_resume(struct rc_engine *engine, const void *opens, size_t count);
int rc_opens_resumed(struct rc_engine *engine);

#endif
