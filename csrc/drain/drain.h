/* drain.h - what a retired worker still has to do, by what the kernel knows of its
 * connections. Direction: facts -> queued.
 */
#ifndef RECLUSTER_DRAIN_H
#define RECLUSTER_DRAIN_H

#include "base/connections.h"

#include <stdbool.h>
#include <stdint.h>

struct rc_engine;
struct rc_key;
struct rc_retirement;
struct rc_worker;

struct rc_drain {
    struct rc_retirement *retirement; /* shared by those that retired together */
    struct rc_flows connections;
    int half_open;     /* at the last look */
    bool empty;        /* its lanes' queues, at the last look */
    bool known;        /* connections are those of the worker */
    int64_t looked_at; /* us */
    int64_t calm_ms;   /* CLOCK_MONOTONIC of the first such look, of AF_UNIX connections */
};

/* facts.c */
int rc_drain_flows(struct rc_engine *engine, struct rc_worker *worker, struct rc_flows *out);
bool rc_key_covers(const struct rc_key *key, int fd);
void rc_drain_free(struct rc_drain *drain);

/* stop.c */
int rc_server_open(struct rc_engine *engine, const struct rc_worker *worker, pid_t *server);

#endif
