/* facts.c - what the kernel knows about the connections of a retired worker.
 *
 * Owns: the memory of what was under way when workers retired, and of the
 * connections they hold. Does not own the transport (diag.c), nor the search
 * through processes (holders.c), nor any decision.
 *
 * Invariants:
 *  - connections are counted only when nothing has come since the look before:
 *    the queues of its lanes were and are empty, no handshake of before has ended.
 *    Between accept(2) taking one from the queue and its descriptor there is a
 *    moment when it is nowhere to be seen;
 *  - where the kernel's facts leave it open, a connection owes.
 */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

/* At most so many are looked up at each look: in a SYN flood there are thousands.
 * With more than that nothing is known of the connections; that no handshake is
 * left is always exact. */
enum { HANDSHAKES_PER_LOOK = 64 };

/* Timestamps have the kernel's tick. An answer in the same tick as its request
 * is the usual case, a request in the same tick as the answer before it is not;
 * so a tie is believed to be answered, but not at once. */
enum { TIE_MS = 1000 };

/* SYN_RECV for TCP Fast Open, which hands out what is not open yet. */
enum {
    OPEN_STATES = 1 << TCP_ESTABLISHED | 1 << TCP_SYN_RECV | 1 << TCP_FIN_WAIT1 |
    1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING
};

/* Of workers that retire together. The places are remembered because a worker
 * that shuts its listener down takes its lane away, and not its connections. */
struct rc_retirement {
    unsigned users;
    struct rc_flows handshakes;
    size_t count;
    struct rc_key places[];
};

static void retirement_leave(struct rc_retirement *retirement)
{
    if (!retirement || --retirement->users > 0)
        return;
    rc_flows_free(&retirement->handshakes);
    free(retirement);
}

void rc_drain_free(struct rc_drain *drain)
{
    retirement_leave(drain->retirement);
    rc_flows_free(&drain->connections);
    *drain = (struct rc_drain){0};
}

/* ---- places: addresses that a lane listens on ------------------------------- */

static bool has_lane(struct rc_engine *engine, const struct rc_group *group,
                     const uint32_t *workers, size_t count)
{
    for (size_t one = 0; one < count; one++)
        for (unsigned at = 0; at < group->count; at++)
            if (rc_lane_held_by(group->lanes[at], rc_find(engine, workers[one])))
                return true;
    return false;
}

static struct rc_retirement *retirement_new(struct rc_engine *engine, const uint32_t *workers,
                                            size_t count)
{
    size_t groups = 0;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        groups++;
    struct rc_retirement *retirement =
        calloc(1, sizeof *retirement + groups * sizeof retirement->places[0]);
    if (!retirement)
        return NULL;
    retirement->users = 1;
    for (struct rc_group *group = engine->groups; group; group = group->next)
        if (group->key.type == SOCK_STREAM && has_lane(engine, group, workers, count))
            retirement->places[retirement->count++] = group->key;
    return retirement;
}

static bool came_to(const struct rc_flow *flow, const struct sockaddr_in6 *address)
{
    if (flow->family != address->sin6_family || flow->id.idiag_sport != address->sin6_port)
        return false;
    if (flow->family == AF_INET) {
        in_addr_t ours = ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
        return ours == INADDR_ANY || ours == flow->id.idiag_src[0];
    }
    return IN6_IS_ADDR_UNSPECIFIED(&address->sin6_addr) ||
           memcmp(&address->sin6_addr, flow->id.idiag_src, sizeof address->sin6_addr) == 0;
}

static bool came_to_any(const struct rc_retirement *retirement, const struct rc_flow *flow)
{
    for (size_t at = 0; at < retirement->count; at++)
        if (came_to(flow, &retirement->places[at].address))
            return true;
    return false;
}

/* The kernel goes through all its connections for a dump, so: one per port. What
 * a dual-stack lane takes by IPv4 is in the dump of AF_INET6, as ::ffff:a.b.c.d. */
static int dump_places(struct rc_engine *engine, const struct rc_retirement *retirement,
                       uint32_t states, struct rc_flows *out)
{
    int error = 0;
    for (size_t at = 0; !error && at < retirement->count; at++) {
        const struct sockaddr_in6 *place = &retirement->places[at].address;
        size_t same = 0;
        while (retirement->places[same].address.sin6_family != place->sin6_family ||
               retirement->places[same].address.sin6_port != place->sin6_port)
            same++;
        if (same == at)
            error = rc_diag_dump(engine, place->sin6_family, place->sin6_port, states, out);
    }
    size_t kept = 0;
    for (size_t at = 0; at < out->count; at++)
        if (came_to_any(retirement, &out->all[at]))
            out->all[kept++] = out->all[at];
    out->count = kept;
    return error;
}

/* ---- handshakes --------------------------------------------------------------- */

int rc_drain_begin(rc_engine *engine, const uint32_t *workers, size_t count)
{
    struct rc_retirement *retirement = retirement_new(engine, workers, count);
    if (!retirement)
        return -ENOMEM;
    int error = dump_places(engine, retirement, 1 << TCP_SYN_RECV, &retirement->handshakes);
    for (size_t at = 0; !error && at < count; at++) {
        struct rc_worker *worker = rc_find(engine, workers[at]);
        if (!worker)
            continue;
        rc_drain_free(&worker->drain);
        worker->drain.retirement = retirement;
        worker->drain.half_open = (int)retirement->handshakes.count;
        worker->drain.empty = rc_queued(engine, worker->id) == 0;
        retirement->users++;
    }
    retirement_leave(retirement);
    return error;
}

/* How many are not over yet. One that is over has become a connection, which
 * keeps the cookie, or nothing. */
static int handshakes_left(struct rc_engine *engine, struct rc_flows *flows)
{
    struct rc_flow_facts facts;
    int looks = HANDSHAKES_PER_LOOK;
    for (size_t at = flows->count; at-- > 0 && looks-- > 0;) {
        int found = rc_diag_find(engine, &flows->all[at], &facts);
        if (found < 0)
            return found;
        if (found == 0 || facts.state != TCP_SYN_RECV)
            flows->all[at] = flows->all[--flows->count];
    }
    return (int)flows->count;
}

/* ---- connections ---------------------------------------------------------------- */

static int by_inode(const void *a, const void *b)
{
    uint32_t one = ((const struct rc_flow *)a)->inode, two = ((const struct rc_flow *)b)->inode;
    return (one > two) - (one < two);
}

/* Without an inode it belongs to no process: it waits in a lane's queue, or the
 * server has closed it and the kernel does the rest. */
static void sort_held(struct rc_flows *flows)
{
    size_t kept = 0;
    if (flows->count)
        qsort(flows->all, flows->count, sizeof *flows->all, by_inode);
    for (size_t at = 0; at < flows->count; at++)
        if (flows->all[at].inode && (!kept || flows->all[kept - 1].inode != flows->all[at].inode))
            flows->all[kept++] = flows->all[at];
    flows->count = kept;
}

static int find_connections(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_flows *flows = &worker->drain.connections;
    flows->count = 0;
    int error = dump_places(engine, worker->drain.retirement, OPEN_STATES, flows);
    sort_held(flows);
    if (!error && flows->count)
        error = rc_holders_mark(worker->pid, flows);
    size_t kept = 0;
    for (size_t at = 0; at < flows->count; at++)
        if (flows->all[at].held)
            flows->all[kept++] = flows->all[at];
    flows->count = kept;
    return error;
}

static bool owes(const struct rc_flow_facts *facts)
{
    bool client_done = facts->state == TCP_CLOSE_WAIT || facts->state == TCP_LAST_ACK ||
                       facts->state == TCP_CLOSING;
    bool server_done = facts->state != TCP_ESTABLISHED && facts->state != TCP_CLOSE_WAIT &&
                       facts->state != TCP_SYN_RECV;
    /* The kernel counts a FIN as a byte: received, and unread until read(2) has
     * said so. A client that closes an idle connection asks for nothing. */
    if (facts->unread > client_done || facts->unsent > 0)
        return true;
    if (server_done)
        return false;
    if (facts->received <= client_done || facts->sent == 0)
        return true;
    return facts->received_ms < facts->sent_ms ||
           (facts->received_ms == facts->sent_ms && facts->sent_ms < TIE_MS);
}

static int look_at_connections(struct rc_engine *engine, struct rc_flows *flows,
                               struct rc_drain_facts *out)
{
    struct rc_flow_facts facts;
    uint32_t quiet = INT_MAX;
    out->owing = 0;
    for (size_t at = flows->count; at-- > 0;) {
        int found = rc_diag_find(engine, &flows->all[at], &facts);
        if (found < 0)
            return found;
        if (found == 0 || facts.inode == 0) {
            flows->all[at] = flows->all[--flows->count];
            continue;
        }
        out->owing += owes(&facts);
        quiet = facts.received_ms < quiet ? facts.received_ms : quiet;
        quiet = facts.sent_ms < quiet ? facts.sent_ms : quiet;
    }
    out->connections = (int)flows->count;
    out->quiet_ms = (int)quiet;
    return 0;
}

static int add_unix(const struct rc_engine *engine, struct rc_worker *worker,
                    struct rc_drain_facts *facts)
{
    struct timespec now;
    int found = rc_unix_connections(engine, worker);
    if (found <= 0)
        return found == -ENOMEM ? found : 0; /* without /proc/net/unix: as if there were none */
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (!worker->drain.calm_ms)
        worker->drain.calm_ms = now_ms;
    facts->connections += found;
    int64_t quiet = now_ms - worker->drain.calm_ms;
    if (quiet < facts->quiet_ms)
        facts->quiet_ms = (int)quiet;
    return 0;
}

int rc_drain_look(rc_engine *engine, uint32_t id, struct rc_drain_facts *out)
{
    struct rc_worker *worker = rc_find(engine, id);
    struct rc_drain_facts facts = {.connections = -1, .owing = -1};
    if (!worker)
        return -ESRCH;
    struct rc_drain *drain = &worker->drain;
    int error = drain->retirement ? 0 : rc_drain_begin(engine, &id, 1);
    if (error)
        return error;
    /* In this order: a handshake that ends in between is in the queue. */
    facts.half_open = handshakes_left(engine, &drain->retirement->handshakes);
    if (facts.half_open < 0)
        return facts.half_open;
    facts.queued = (unsigned)rc_queued(engine, id);
    bool calm = facts.queued == 0 && drain->empty && facts.half_open == drain->half_open &&
                facts.half_open <= HANDSHAKES_PER_LOOK;
    drain->empty = facts.queued == 0;
    drain->half_open = facts.half_open;
    if (rc_shares_live(engine, worker)) /* it accepts still: ask anew each time */
        drain->known = false;
    if (worker->dead) { /* and its process group was killed with it */
        facts.connections = facts.owing = 0;
        facts.quiet_ms = INT_MAX;
    } else if (!calm) {
        drain->known = false;
    } else {
        error = drain->known ? 0 : find_connections(engine, worker);
        drain->known = !error;
        if (!error)
            error = look_at_connections(engine, &drain->connections, &facts);
        if (!error)
            error = add_unix(engine, worker, &facts);
    }
    if (!error)
        *out = facts;
    return error;
}
