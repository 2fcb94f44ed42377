/* ring.h - connections that are given to a worker by a bell at its lane (ring.c), and what
 * waits where nobody takes it (handout.c).
 *
 * Direction: shimdoor, lanes -> handout -> ring -> reach.
 */
#ifndef RECLUSTER_RING_H
#define RECLUSTER_RING_H

#include "base/loop.h"
#include "base/parts.h"
#include "dispatch/dispatch.h"

struct rc_engine;
struct rc_group;
struct rc_lane;
struct rc_worker;
struct rc_ring_page;
struct rc_shim_caller;
struct rc_wire_request;

/* One bell. What it brings is decided when a worker asks for it: until then a connection
 * stays where it is, and bells that are too many bring nothing. */
struct rc_ring {
    struct rc_grave grave;
    struct rc_ring *next;
    struct rc_source client; /* the master's end */
    struct rc_lane *lane;
    struct sockaddr_in6 name; /* by which the worker's library knows it */
    unsigned place;           /* in the page */
    int64_t rung_at, until;   /* us */
    bool barrier;             /* brings nothing, and only tells */
    bool asks;                /* what the worker has accepted (question.c) */
    bool withdrawn;           /* it brings nothing any more */
    bool late;                /* another has been rung instead; this one may still be asked for */
    struct rc_shim_caller *caller; /* who has asked, until it has acknowledged */
    struct rc_accepted given;      /* and what it was given; fd -1: nothing yet */
};

struct rc_rings {
    struct rc_ring_page *page; /* NULL: there are no bells here */
    int memory, shown;         /* its descriptor, and the one that workers get */
    struct rc_ring *all;
};

/* ring.c */
int rc_ring_barrier(struct rc_engine *engine, struct rc_lane *lane);
int rc_ring_question(struct rc_engine *engine, struct rc_lane *lane);
int rc_ring_at(struct rc_engine *engine, struct rc_lane *lane);
void rc_ring_withdraw(struct rc_engine *engine, struct rc_ring *ring);
void rc_ring_end(struct rc_engine *engine, struct rc_ring *ring);
int rc_rings_open(struct rc_engine *engine);
int rc_rings_resume(struct rc_engine *engine, int memory, int shown);
void rc_rings_leave(struct rc_engine *engine, struct rc_lane *lane);
void rc_rings_of(struct rc_engine *engine, const struct rc_worker *dead);
bool rc_ring_asked(struct rc_engine *engine, struct rc_shim_caller *caller,
                   const struct rc_wire_request *request);
void rc_ring_kept(struct rc_engine *engine, struct rc_shim_caller *caller);
void rc_ring_closed(struct rc_engine *engine, struct rc_ring *ring);
struct rc_ring *rc_ring_named(const struct rc_engine *engine, const struct sockaddr_in6 *name);
void rc_rings_alarm(struct rc_engine *engine);
void rc_rings_unmap(const struct rc_engine *engine);
void rc_rings_close(const struct rc_engine *engine);
void rc_rings_free(struct rc_engine *engine);

/* handout.c */
bool rc_handout_can(const struct rc_group *group);
bool rc_handout_watches(const struct rc_engine *engine, const struct rc_lane *lane);
bool rc_handout_next(struct rc_engine *engine, struct rc_group *group, struct rc_accepted *out);
void rc_handout_run(struct rc_engine *engine, struct rc_group *group);
void rc_handout_run_all(struct rc_engine *engine);

#endif
