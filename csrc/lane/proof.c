/* proof.c - whether anybody takes connections out of a lane: what makes a worker ready.
 *
 * Owns: a connection of the master's own to each lane of a worker that is not known to
 * accept yet. Nothing is sent on it, and it is closed for writing at once, as the check
 * of a load balancer does. Does not own what follows from that (the caller).
 *
 * That somebody has accepted is seen by the lane's queue: nothing else makes it shorter. So where
 * something waits in it already (the lane was adopted), no connection is needed. A server
 * that reads and closes what is empty is seen by that, sooner than by the next look.
 *
 * Invariants:
 *  - what is ours in a queue is not owed to anybody: it is not counted there;
 *  - where no connection can be made (another network namespace, a firewall, a
 *    device) there is no proof to be had, and the caller is told why with the event.
 */
#include "internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HANDSHAKE_US = 20000, /* one that takes longer has lost a packet */
    RETRY_US = 50000,
    TRIES = 3,
    LOOK_US = 1000, /* until the first look at the queue; each pause is twice the last, */
    LOOK_MOST_US = 50000,
    DEAF_US = 16000, /* and from here on it is also asked whether it is still listened on */
    GRAIN_US = 4000,
    SWEEP_US = 5, /* at least this by the lane between two looks */
    ROOM = 64,    /* events that a sweep leaves for others */
};

/* All zero where it cannot be known. */
static struct tcp_info info_of(int fd)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        info.tcpi_state = 0;
    return info;
}

struct sight {
    unsigned queued;
    bool listens; /* also where that cannot be known: then to listen is enough */
};

/* By one call: it is made for each lane at each look. */
static struct sight see(const struct rc_lane *lane)
{
    struct tcp_info info = info_of(lane->source.fd);
    return (struct sight){.queued = info.tcpi_unacked,
                          .listens = !info.tcpi_state || info.tcpi_state == TCP_LISTEN};
}

/* A look is a sweep over all lanes: with many there are fewer. */
static void look_in(struct rc_engine *engine, struct rc_lane *lane, unsigned us)
{
    unsigned least = engine->swept * SWEEP_US;
    us = us > least ? us : least < LOOK_MOST_US ? least : LOOK_MOST_US;
    lane->proof.interval = us;
    lane->proof.look_at = rc_now_us() + us;
    if (us >= 2 * GRAIN_US || us == least) /* many at a time */
        lane->proof.look_at += GRAIN_US - lane->proof.look_at % GRAIN_US;
    rc_sweep_at(engine, lane->proof.look_at);
}

/* ---- for dispatch, and for who counts what waits --------------------------------- */

bool rc_proof_pending(const struct rc_lane *lane)
{
    return lane->proof.client.fd >= 0;
}

/* Connections that wait in it and are not ours. */
unsigned rc_lane_waiting(const struct rc_lane *lane)
{
    unsigned queued = rc_lane_queued(lane, NULL);
    return queued - (queued && lane->proof.waits && !lane->proof.passed);
}

bool rc_proof_is(const struct rc_lane *lane, const struct rc_accepted *accepted)
{
    struct sockaddr_in6 own;
    if (lane->proof.client.fd < 0 || rc_socket_name(lane->proof.client.fd, &own) < 0 ||
        own.sin6_family != accepted->peer.sin6_family || own.sin6_port != accepted->peer.sin6_port)
        return false;
    const struct sockaddr_in *own4 = (const void *)&own, *peer4 = (const void *)&accepted->peer;
    return own.sin6_family == AF_INET
               ? own4->sin_addr.s_addr == peer4->sin_addr.s_addr
               : memcmp(&own.sin6_addr, &accepted->peer.sin6_addr, sizeof own.sin6_addr) == 0;
}

/* Of a pair the master accepts, so ours goes on to the worker, and nobody else. Where the
 * pair is full it has been offered one before: that will do. */
bool rc_proof_pass(struct rc_engine *engine, struct rc_lane *lane, struct rc_accepted *accepted)
{
    if (lane->receiver.pair.fd < 0 || !rc_proof_is(lane, accepted))
        return false;
    (void)rc_pass_send(lane->receiver.pair.fd, accepted);
    rc_close(&accepted->fd);
    lane->proof.passed = true;
    (void)rc_source_arm(engine->epoll, &lane->receiver.pair, EPOLLOUT);
    return true;
}

/* ---- the verdict -------------------------------------------------------------------- */

/* With RST: what its server does not close by itself for a while (hypercorn) is no connection
 * of that worker's any more. The server was told of the end before, and reads that first. */
void rc_proof_end(struct rc_engine *engine, struct rc_lane *lane)
{
    struct linger none = {.l_onoff = 1};
    rc_reach_end(lane);
    if (lane->proof.waits)
        (void)setsockopt(lane->proof.client.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    rc_source_shut(engine->epoll, &lane->proof.client);
    lane->proof = (struct rc_proof){.client.fd = -1, .proven = lane->proof.proven};
}

/* A worker accepts when all its lanes do. `heard`: it listens somewhere where there is nothing to
 * be proved. */
void rc_proof_settle(struct rc_engine *engine, struct rc_worker *worker, bool heard)
{
    if (!engine->proves || !worker || worker->accepts || worker->dead ||
        worker->shared_proof.look_at)
        return;
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            const struct rc_lane *lane = group->lanes[at];
            if (!lane->worker || lane->deaf || !rc_lane_held_by(lane, worker))
                continue;
            if (lane->proof.wanted)
                return;
            heard = true;
        }
    if (!heard && !rc_unix_inode(engine, worker))
        return;
    worker->accepts = true;
    rc_emit(engine, RC_EVENT_ACCEPTING, worker->id, -worker->unproven, NULL, 0);
}

static void decide(struct rc_engine *engine, struct rc_lane *lane, int error)
{
    lane->proof.proven = true;
    rc_proof_end(engine, lane);
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (rc_lane_held_by(lane, worker)) {
            worker->unproven = error ? error : worker->unproven;
            worker->untaken_at = 0;
            engine->unsettled += !worker->unsettled;
            worker->unsettled = true;
        }
}

/* ---- ringing ---------------------------------------------------------------------------- */

static void failed(struct rc_engine *engine, struct rc_lane *lane, int error)
{
    struct rc_proof *proof = &lane->proof;
    unsigned limit = 0;
    bool full = rc_lane_queued(lane, &limit) > limit;
    rc_reach_end(lane);
    rc_source_shut(engine->epoll, &proof->client);
    bool lacks = error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
    proof->tries += full || lacks ? 0 : error == -EXDEV ? TRIES : 1;
    proof->queued = rc_lane_queued(lane, NULL);
    if (proof->tries >= TRIES)
        decide(engine, lane, error);
    else
        look_in(engine, lane, RETRY_US);
}

static void look(struct rc_engine *engine, struct rc_lane *lane);

static void ring(struct rc_engine *engine, struct rc_lane *lane)
{
    int fd = rc_reach(engine, lane), error = fd < 0 ? fd : 0;
    if (error == -EAGAIN) { /* another's handshake lasts */
        look_in(engine, lane, LOOK_US);
        return;
    }
    if (!error)
        error = rc_source_add(engine->epoll, &lane->proof.client, RC_SOURCE_PROOF, fd, EPOLLIN);
    if (error) {
        rc_close(&fd);
        failed(engine, lane, error);
        return;
    }
    lane->proof.rung_at = rc_now_us();
    look(engine, lane);
}

/* Whether the handshake is over, and ours waits in the lane. */
static bool arrived(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_proof *proof = &lane->proof;
    int state = info_of(proof->client.fd).tcpi_state;
    if (state == TCP_SYN_SENT && rc_now_us() < proof->rung_at + HANDSHAKE_US) {
        look_in(engine, lane, LOOK_US);
        return false;
    }
    if (state == TCP_SYN_SENT || state == TCP_CLOSE || !state) {
        int error = rc_socket_get(proof->client.fd, SOL_SOCKET, SO_ERROR);
        failed(engine, lane, error > 0 ? -error : -ETIMEDOUT);
        return false;
    }
    rc_reach_end(lane);
    (void)shutdown(proof->client.fd, SHUT_WR);
    proof->waits = true;
    return true;
}

/* ---- looking ------------------------------------------------------------------------------ */

static bool is_taken(const struct rc_lane *lane, unsigned queued)
{
    const struct rc_proof *proof = &lane->proof;
    if (lane->receiver.pair.fd >= 0)
        return proof->passed && rc_pass_taken(lane->receiver.pair.fd);
    return queued == 0 || queued < proof->queued;
}

static void look_again(struct rc_engine *engine, struct rc_lane *lane)
{
    unsigned next = lane->proof.interval ? lane->proof.interval * 2 : LOOK_US;
    look_in(engine, lane, next < LOOK_MOST_US ? next : LOOK_MOST_US);
}

/* Ours waits in it, as in another lane of the same worker, where nobody had taken it a moment
 * ago: a program that boots with many listeners is asked by one of them. */
static bool can_wait(const struct rc_lane *lane, int64_t now)
{
    return lane->proof.wanted && lane->proof.waits && !lane->proof.passed && lane->worker &&
           !lane->worker->dead && !lane->others &&
           now < lane->worker->untaken_at + lane->proof.interval / 2;
}

static void judge(struct rc_engine *engine, struct rc_lane *lane, struct sight seen)
{
    struct rc_proof *proof = &lane->proof;
    if (!seen.listens)
        return; /* its HUP is on its way */
    if (proof->client.fd < 0 && seen.queued == 0 && proof->queued == 0) {
        ring(engine, lane);
    } else if (is_taken(lane, seen.queued)) {
        decide(engine, lane, 0);
    } else if (proof->interval >= DEAF_US && rc_lane_is_deaf(engine, lane)) {
        proof->wanted = false; /* ours stays in it, for whoever listens there next */
        rc_proof_settle(engine, lane->worker, false);
    } else {
        proof->queued = seen.queued;
        lane->worker->untaken_at = rc_now_us();
        look_again(engine, lane);
    }
}

static void look(struct rc_engine *engine, struct rc_lane *lane)
{
    struct rc_proof *proof = &lane->proof;
    bool rings = proof->client.fd >= 0 && !proof->waits;
    proof->look_at = 0;
    if (!proof->wanted || rc_lane_all_dead(lane))
        return; /* whoever adopts it asks anew */
    if (rings && !arrived(engine, lane))
        return;
    struct sight seen = see(lane);
    if (rings)
        proof->queued = seen.queued; /* with ours */
    judge(engine, lane, seen);
}

/* The server has closed ours, or said something: so it had it. */
void rc_proof_answered(struct rc_engine *engine, struct rc_lane *lane)
{
    if (!lane->proof.waits) {
        look(engine, lane); /* refused, or the handshake is over */
        return;
    }
    (void)rc_source_arm(engine->epoll, &lane->proof.client, 0);
    if (lane->proof.wanted && see(lane).listens)
        decide(engine, lane, 0);
}

/* An end of a pair is empty again. */
void rc_proof_taken(struct rc_engine *engine, struct rc_lane *lane)
{
    if (lane->proof.passed)
        look(engine, lane);
}

void rc_proof_sweep(struct rc_engine *engine, int64_t now)
{
    for (struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count; at++) {
            struct rc_lane *lane = group->lanes[at];
            if (!lane->proof.look_at)
                continue;
            bool room = engine->output &&
                        engine->output->count + engine->unsettled + ROOM < engine->output->room;
            if (lane->proof.look_at <= now && can_wait(lane, now))
                look_again(engine, lane);
            else if (lane->proof.look_at <= now && room)
                look(engine, lane);
            else
                rc_sweep_at(engine,
                            lane->proof.look_at > now ? lane->proof.look_at : now + LOOK_US);
        }
}

/* ---- asking --------------------------------------------------------------------------------- */

/* Whether it is to be found out. Who serves may open further lanes; and what a worker shares
 * with others that accept needs no proof of its own: none could be had. */
bool rc_proof_needed(const struct rc_engine *engine, const struct rc_lane *lane,
                     const struct rc_worker *worker)
{
    bool serves = worker->accepts && worker->live;
    return engine->proves && !serves && lane->group->key.type == SOCK_STREAM &&
           !(lane->proof.proven && rc_lane_has_others(lane, worker));
}

/* The worker listens there now. */
void rc_proof_ask(struct rc_engine *engine, struct rc_lane *lane, struct rc_worker *worker)
{
    struct rc_proof *proof = &lane->proof;
    worker->accepts = false;
    if (proof->wanted && rc_lane_has_others(lane, worker))
        return;
    struct sight seen = see(lane);
    proof->queued = lane->receiver.pair.fd >= 0 ? 0 : seen.queued;
    if (rc_proof_pending(lane) && proof->queued == 0) /* a predecessor had it */
        rc_proof_end(engine, lane);
    proof->proven = false;
    proof->wanted = true;
    proof->tries = proof->interval = 0;
    if (rc_proof_pending(lane))
        look(engine, lane);
    else
        judge(engine, lane, seen);
}

/* After the turn's events, once for all proofs of a worker. Who listens where there is nothing
 * to be proved (else: value 2) is told of too. */
void rc_proof_heard(struct rc_engine *engine)
{
    const struct rc_output *output = engine->output;
    for (struct rc_worker *worker = engine->unsettled ? engine->workers : NULL; worker;
         worker = worker->next) {
        if (worker->unsettled)
            rc_proof_settle(engine, worker, false);
        worker->unsettled = false;
    }
    engine->unsettled = 0;
    for (size_t at = 0; engine->proves && at < output->count; at++)
        if (output->events[at].kind == RC_EVENT_LISTENING && output->events[at].value != 2)
            rc_proof_settle(engine, rc_find(engine, output->events[at].worker), true);
}

int rc_prove(rc_engine *engine)
{
    if (engine->workers)
        return -EBUSY;
    engine->proves = true;
    return 0;
}
