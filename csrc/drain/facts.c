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

/* What a client delays the acknowledgement of is less than two segments (tcp_ack_snd_check);
 * where segments are long (loopback) an answer that is this long may go on. */
enum { DELAYED_ACK = 4096 };

/* SYN_RECV for TCP Fast Open, which hands out what is not open yet. */
enum {
    OPEN_STATES = 1 << TCP_ESTABLISHED | 1 << TCP_SYN_RECV | 1 << TCP_FIN_WAIT1 |
    1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING
};

/* A dump goes through all connections of the network namespace, those in TIME_WAIT too. What was
 * dumped for one is good for another that had nothing in its queue so long before it: nobody is as
 * long between accept(2) and a descriptor. */
enum { BETWEEN_US = 50000 };

/* Of workers that retire together. The places are remembered because a worker
 * that shuts its listener down takes its lane away, and not its connections. */
struct rc_retirement {
    unsigned users;
    struct rc_flows handshakes;
    struct rc_flows open; /* as they were dumped last; by inode */
    int64_t open_at;      /* us; 0: they were not */
    size_t count;
    struct rc_key places[];
};

static void retirement_leave(struct rc_retirement *retirement)
{
    if (!retirement || --retirement->users > 0)
        return;
    rc_flows_free(&retirement->handshakes);
    rc_flows_free(&retirement->open);
    free(retirement);
}

void rc_drain_free(struct rc_drain *drain)
{
    retirement_leave(drain->retirement);
    rc_flows_free(&drain->connections);
    *drain = (struct rc_drain){0};
}

/* ---- places: addresses that a lane listens on ------------------------------- */

static bool has_lane(const struct rc_group *group, struct rc_worker *const *workers, size_t count)
{
    for (unsigned at = 0; at < group->count; at++)
        for (size_t one = 0; one < count; one++)
            if (rc_lane_held_by(group->lanes[at], workers[one]))
                return true;
    return false;
}

/* By family, port and address. */
static int by_place(const void *a, const void *b)
{
    const struct sockaddr_in6 *one = &((const struct rc_key *)a)->address,
                              *two = &((const struct rc_key *)b)->address;
    if (one->sin6_family != two->sin6_family)
        return one->sin6_family < two->sin6_family ? -1 : 1;
    if (one->sin6_port != two->sin6_port)
        return one->sin6_port < two->sin6_port ? -1 : 1;
    return memcmp(one, two, sizeof *one);
}

static struct rc_retirement *retirement_new(struct rc_engine *engine,
                                            struct rc_worker *const *workers, size_t count)
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
        if (group->key.type == SOCK_STREAM && !group->key.network &&
            has_lane(group, workers, count))
            retirement->places[retirement->count++] = group->key;
    if (retirement->count)
        qsort(retirement->places, retirement->count, sizeof retirement->places[0], by_place);
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

/* The first place that does not come before that family and port. */
static size_t first_place(const struct rc_retirement *retirement, sa_family_t family,
                          in_port_t port)
{
    size_t low = 0, high = retirement->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct sockaddr_in6 *place = &retirement->places[middle].address;
        if (place->sin6_family < family ||
            (place->sin6_family == family && place->sin6_port < port))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool came_to_any(const struct rc_retirement *retirement, const struct rc_flow *flow)
{
    in_port_t port = flow->id.idiag_sport;
    for (size_t at = first_place(retirement, flow->family, port); at < retirement->count; at++) {
        const struct sockaddr_in6 *place = &retirement->places[at].address;
        if (place->sin6_family != flow->family || place->sin6_port != port)
            break;
        if (came_to(flow, place))
            return true;
    }
    return false;
}

/* The kernel goes through all its connections for a dump, so: one for all ports. What
 * a dual-stack lane takes by IPv4 is in the dump of AF_INET6, as ::ffff:a.b.c.d. */
static int dump_places(struct rc_engine *engine, const struct rc_retirement *retirement,
                       uint32_t states, struct rc_flows *out)
{
    static const sa_family_t families[] = {AF_INET, AF_INET6};
    in_port_t *ports = calloc(retirement->count + 1, sizeof *ports);
    int error = ports ? 0 : -ENOMEM;
    for (size_t family = 0; !error && family < 2; family++) {
        size_t count = 0;
        for (size_t at = 0; at < retirement->count; at++)
            if (retirement->places[at].address.sin6_family == families[family])
                ports[count++] = retirement->places[at].address.sin6_port;
        error = rc_diag_dump(engine, families[family], ports, count, states, out);
    }
    free(ports);
    size_t kept = 0;
    for (size_t at = 0; at < out->count; at++)
        if (came_to_any(retirement, &out->all[at]))
            out->all[kept++] = out->all[at];
    out->count = kept;
    return error;
}

/* ---- handshakes --------------------------------------------------------------- */

int rc_drain_begin(rc_engine *engine, const uint32_t *ids, size_t count)
{
    struct rc_worker **workers = calloc(count + 1, sizeof(struct rc_worker *));
    struct rc_retirement *retirement = NULL;
    size_t known = 0;
    for (size_t at = 0; workers && at < count; at++) {
        struct rc_worker *worker = rc_find(engine, ids[at]);
        if (worker)
            workers[known++] = worker;
    }
    if (workers)
        retirement = retirement_new(engine, workers, known);
    int error = retirement ? 0 : -ENOMEM;
    if (!error)
        error = dump_places(engine, retirement, 1 << TCP_SYN_RECV, &retirement->handshakes);
    for (size_t at = 0; !error && at < known; at++) {
        struct rc_worker *worker = workers[at];
        rc_drain_free(&worker->drain);
        worker->drain.retirement = retirement;
        worker->drain.half_open = (int)retirement->handshakes.count;
        worker->drain.empty = rc_queued(engine, worker->id) == 0;
        worker->drain.looked_at = rc_now_us();
        retirement->users++;
    }
    retirement_leave(retirement);
    free(workers);
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

/* Of `open`, by inode, those that its processes hold. */
static int keep_held(const struct rc_worker *worker, const struct rc_flows *open,
                     struct rc_flows *flows)
{
    int error = 0;
    flows->count = 0;
    for (size_t at = 0; !error && at < open->count; at++)
        error = rc_flows_add(flows, &open->all[at]);
    if (!error && flows->count)
        error = rc_holders_mark(worker->pid, flows);
    size_t kept = 0;
    for (size_t at = 0; at < flows->count; at++)
        if (flows->all[at].held)
            flows->all[kept++] = flows->all[at];
    flows->count = kept;
    return error;
}

/* Without an inode it waits in a queue, or the kernel does the rest. */
static int dump_open(struct rc_engine *engine, struct rc_retirement *retirement)
{
    struct rc_flows *open = &retirement->open;
    open->count = 0;
    retirement->open_at = 0;
    int64_t now = rc_now_us();
    int error = dump_places(engine, retirement, OPEN_STATES, open);
    rc_flows_once(open);
    if (!error)
        retirement->open_at = now;
    return error;
}

/* `accepts`: what was dumped for another says nothing of it. */
static int find_connections(struct rc_engine *engine, struct rc_worker *worker, bool accepts)
{
    struct rc_drain *drain = &worker->drain;
    bool dumped = !accepts && drain->retirement->open_at >= drain->looked_at + BETWEEN_US;
    int error = dumped ? 0 : dump_open(engine, drain->retirement);
    return error ? error : keep_held(worker, &drain->retirement->open, &drain->connections);
}

/* Nothing has come since the last look, and no handshake of before has ended. */
static int is_calm(struct rc_engine *engine, struct rc_worker *worker, struct rc_drain_facts *facts)
{
    struct rc_drain *drain = &worker->drain;
    /* In this order: a handshake that ends in between is in the queue. */
    facts->half_open = handshakes_left(engine, &drain->retirement->handshakes);
    if (facts->half_open < 0)
        return facts->half_open;
    facts->queued = (unsigned)rc_queued(engine, worker->id);
    return facts->queued == 0 && drain->empty && facts->half_open == drain->half_open &&
           facts->half_open <= HANDSHAKES_PER_LOOK;
}

/* For who takes them over; with a retirement of its own where it has none. That it has none the
 * last look may have shown. */
int rc_drain_flows(struct rc_engine *engine, struct rc_worker *worker, struct rc_flows *out)
{
    struct rc_drain *drain = &worker->drain;
    struct rc_flows all = {.all = NULL};
    struct rc_drain_facts facts;
    if (drain->known && !drain->connections.count && !worker->live &&
        !rc_shares_live(engine, worker) && is_calm(engine, worker, &facts) == 1)
        return 0;
    int error = drain->retirement ? 0 : rc_drain_begin(engine, &worker->id, 1);
    if (!error)
        error = dump_places(engine, drain->retirement, 1 << TCP_ESTABLISHED, &all);
    rc_flows_once(&all);
    if (!error)
        error = keep_held(worker, &all, out);
    rc_flows_free(&all);
    return error;
}

/* Whether a connection came to a lane of that address. */
bool rc_key_covers(const struct rc_key *key, int fd)
{
    struct rc_flow flow = {.family = key->address.sin6_family};
    struct sockaddr_in6 own;
    if (rc_socket_name(fd, &own) < 0 || own.sin6_family != flow.family)
        return false;
    flow.id.idiag_sport = own.sin6_port;
    if (flow.family == AF_INET)
        flow.id.idiag_src[0] = ((const struct sockaddr_in *)(const void *)&own)->sin_addr.s_addr;
    else
        memcpy(flow.id.idiag_src, &own.sin6_addr, sizeof own.sin6_addr);
    return came_to(&flow, &key->address);
}

static bool owes(const struct rc_flow_facts *facts)
{
    bool client_done = facts->state == TCP_CLOSE_WAIT || facts->state == TCP_LAST_ACK ||
                       facts->state == TCP_CLOSING;
    bool server_done = facts->state != TCP_ESTABLISHED && facts->state != TCP_CLOSE_WAIT &&
                       facts->state != TCP_SYN_RECV;
    /* The kernel counts a FIN as a byte: received, and unread until read(2) has
     * said so. A client that closes an idle connection asks for nothing. */
    if (facts->unread > client_done || facts->unsent > 0 || facts->unacked > DELAYED_ACK)
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
    int calm = is_calm(engine, worker, &facts);
    if (calm < 0)
        return calm;
    drain->empty = facts.queued == 0;
    drain->half_open = facts.half_open;
    bool accepts = rc_shares_live(engine, worker);
    if (accepts) /* ask anew each time */
        drain->known = false;
    if (worker->dead) { /* and its process group was killed with it */
        facts.connections = facts.owing = 0;
        facts.quiet_ms = INT_MAX;
    } else if (!calm) {
        drain->known = false;
    } else {
        error = drain->known ? 0 : find_connections(engine, worker, accepts);
        drain->known = !error;
        if (!error)
            error = look_at_connections(engine, &drain->connections, &facts);
        if (!error)
            error = add_unix(engine, worker, &facts);
    }
    drain->looked_at = rc_now_us();
    if (!error)
        *out = facts;
    return error;
}
