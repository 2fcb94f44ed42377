/* ring.c - a connection goes to a worker by a bell at its lane.
 *
 * Owns: the bells that are under way, by name, and the page that tells workers of them. A bell
 * is a connection of the master's own to one lane (reach.c). The worker's accept returns it, the
 * preload library finds its port in the page (preload/ring.c), asks here by its name, gets
 * a descriptor by SCM_RIGHTS and acknowledges it. Does not own what is given (handout.c).
 *
 * Invariants:
 *  - what a bell brings leaves its place only when a worker asks, and is ours until that has
 *    acknowledged: so a worker that is stopped, or ends half-way, loses nothing;
 *  - an acknowledgement is either read, or its sender was told that it is not (SHUT_RD, and
 *    then the last look): the connection is never two workers', nor nobody's;
 *  - a bell has an end: asked for, closed by the worker, or UNTIL_US.
 */
#include "internal.h"
#include "preload/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LATE_US = 50000,    /* then another is rung beside it */
    UNTIL_US = 5000000, /* and then it is taken back */
    KEPT_US = 1000000,  /* between what was given and its acknowledgement */
};

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SHRINK 0x0002
#define F_SEAL_GROW 0x0004
#endif

/* ---- the page ------------------------------------------------------------------------ */

static struct rc_ring_page *map(int memory)
{
    void *page =
        mmap(NULL, sizeof(struct rc_ring_page), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    return page == MAP_FAILED ? NULL : page;
}

/* What workers get was opened for reading, and its mode lets only its owner change that: one of
 * the master's own user, who could kill it as well. What such a one writes there costs others a
 * question, which the master answers, or a bell that is taken for a client. A seal
 * (F_SEAL_FUTURE_WRITE) would keep the master that takes this one's place from writing, too. */
static int show(int memory)
{
    char path[sizeof "/proc/self/fd/2147483647"];
    if (fchmod(memory, S_IRUSR | S_IRGRP | S_IROTH) < 0)
        return -errno;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    int shown = open(path, O_RDONLY | O_CLOEXEC);
    return shown < 0 ? -errno : shown;
}

int rc_rings_open(struct rc_engine *engine)
{
    if (engine->rings.page || engine->dispatch.on)
        return 0;
    int memory = memfd_create("recluster-bells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0)
        return -errno;
    int error = ftruncate(memory, sizeof(struct rc_ring_page)) < 0 ||
                        fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0
                    ? -errno
                    : 0;
    int shown = error ? error : show(memory);
    if (shown >= 0) {
        error = rc_rings_resume(engine, memory, shown);
        if (!error)
            return 0;
        rc_close(&shown);
    }
    rc_close(&memory);
    return error ? error : shown;
}

/* The page of the master before, which its workers know; no bell was left in it. Takes both
 * descriptors on success: the page's, and the one that workers get. */
int rc_rings_resume(struct rc_engine *engine, int memory, int shown)
{
    if (engine->rings.page)
        return -EBUSY;
    engine->rings.page = map(memory);
    if (!engine->rings.page)
        return -errno;
    engine->rings.memory = memory;
    engine->rings.shown = shown;
    return 0;
}

int rc_ring_opened(const rc_engine *engine)
{
    return engine->rings.page != NULL;
}

static int enter(struct rc_ring_page *page, in_port_t port, unsigned *place)
{
    for (unsigned at = 0; at < RC_PAGE_PORTS; at++)
        if (!page->ports[at]) {
            __atomic_store_n(&page->ports[at], port, __ATOMIC_RELAXED);
            (void)__atomic_add_fetch(&page->rung, 1, __ATOMIC_RELEASE);
            *place = at;
            return 0;
        }
    return -ENOSPC;
}

static void leave(struct rc_ring_page *page, unsigned place)
{
    (void)__atomic_sub_fetch(&page->rung, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&page->ports[place], 0, __ATOMIC_RELAXED);
}

/* ---- ringing --------------------------------------------------------------------------- */

static void next_alarm(struct rc_engine *engine)
{
    int64_t at = 0;
    for (const struct rc_ring *ring = engine->rings.all; ring; ring = ring->next) {
        int64_t due =
            ring->late || ring->caller || ring->withdrawn ? ring->until : ring->rung_at + LATE_US;
        at = !at || due < at ? due : at;
    }
    rc_alarm_set(engine, RC_ALARM_RINGS, at);
}

/* 0, -EAGAIN (another handshake at that address lasts, or its queue is full), or -errno. */
int rc_ring_at(struct rc_engine *engine, struct rc_lane *lane)
{
    unsigned limit = 0;
    if (!engine->rings.page || lane->group->front)
        return -ENOTSUP;
    if (rc_lane_queued(lane, &limit) >= limit)
        return -EAGAIN; /* a SYN would be dropped, and come again in a second */
    struct rc_ring *ring = calloc(1, sizeof *ring);
    if (!ring)
        return -ENOMEM;
    ring->lane = lane;
    ring->given.fd = ring->client.fd = -1;
    int fd = rc_reach_begin(lane), error = fd < 0 ? fd : 0;
    bool entered = !error && !(error = enter(engine->rings.page, lane->proof.port, &ring->place));
    if (!error)
        error = rc_reach_go(lane, fd);
    if (!error && !rc_reach_over(fd))
        error = -ETIMEDOUT;
    rc_reach_end(lane);
    if (!error)
        error = rc_socket_name(fd, &ring->name);
    if (!error)
        error = rc_source_add(engine->epoll, &ring->client, RC_SOURCE_RING, fd, EPOLLIN);
    if (error) {
        if (entered)
            leave(engine->rings.page, ring->place);
        rc_close(&fd);
        free(ring);
        return error;
    }
    lane->bells++;
    ring->rung_at = rc_now_us();
    ring->until = ring->rung_at + UNTIL_US;
    ring->next = engine->rings.all;
    engine->rings.all = ring;
    next_alarm(engine);
    return 0;
}

/* One that brings nothing: when it has been asked for, the worker has been through its loop. */
int rc_ring_barrier(struct rc_engine *engine, struct rc_lane *lane)
{
    int error = rc_ring_at(engine, lane);
    if (!error)
        engine->rings.all->barrier = true;
    return error;
}

int rc_ring_question(struct rc_engine *engine, struct rc_lane *lane)
{
    int error = rc_ring_at(engine, lane);
    if (!error)
        engine->rings.all->asks = true;
    return error;
}

/* Whether it has acknowledged what it was given; after this it can no more. */
static bool has_kept(const struct rc_ring *ring)
{
    struct rc_wire_request request;
    int fd = ring->caller->source.fd;
    if (shutdown(fd, SHUT_RD) < 0)
        return true; /* cannot be; then rather lost than twice */
    return recv(fd, &request, sizeof request, MSG_DONTWAIT) == sizeof request &&
           request.magic == RC_WIRE_MAGIC && request.operation == RC_WIRE_KEPT;
}

/* With RST: whoever has it has nothing to finish there. */
static void fall_silent(struct rc_engine *engine, struct rc_ring *ring)
{
    const struct linger none = {.l_onoff = 1};
    ring->lane->bells -= ring->client.fd >= 0;
    if (ring->client.fd >= 0)
        (void)setsockopt(ring->client.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    rc_source_shut(engine->epoll, &ring->client);
}

/* Nothing is left for it to bring. It may still lie in its lane, and is known until it has
 * been taken out of there: a server is not to see it. */
void rc_ring_withdraw(struct rc_engine *engine, struct rc_ring *ring)
{
    fall_silent(engine, ring);
    ring->withdrawn = true;
    next_alarm(engine);
}

/* What it was to bring stays. */
void rc_ring_end(struct rc_engine *engine, struct rc_ring *ring)
{
    struct rc_ring **link = &engine->rings.all;
    while (*link != ring)
        link = &(*link)->next;
    *link = ring->next;
    leave(engine->rings.page, ring->place);
    fall_silent(engine, ring);
    if (ring->barrier && ring->lane->worker && ring->lane->worker->leave.barriers)
        ring->lane->worker->leave.barriers--;
    if (ring->asks && ring->lane->worker)
        rc_question_answered(engine, ring->lane->worker);
    if (ring->caller) {
        struct rc_shim_caller *caller = ring->caller;
        if (ring->given.fd >= 0 && has_kept(ring))
            rc_close(&ring->given.fd);
        caller->ring = NULL;
        caller->release(engine, caller);
    }
    if (ring->given.fd >= 0)
        rc_accepted_keep(ring->lane->group, &ring->given);
    rc_bury(engine, ring);
    next_alarm(engine);
}

/* Nobody accepts from that lane any more. */
void rc_rings_leave(struct rc_engine *engine, struct rc_lane *lane)
{
    for (struct rc_ring *ring = engine->rings.all, *next; ring; ring = next) {
        next = ring->next;
        if (ring->lane == lane)
            rc_ring_end(engine, ring);
    }
}

/* It has died with them in its queue, or before it had acknowledged. */
void rc_rings_of(struct rc_engine *engine, const struct rc_worker *dead)
{
    for (struct rc_ring *ring = engine->rings.all, *next; ring; ring = next) {
        next = ring->next;
        if (rc_lane_held_by(ring->lane, dead) && rc_lane_all_dead(ring->lane))
            rc_ring_end(engine, ring);
    }
}

/* The worker closed it, or said something on it, and nobody has asked: a process that
 * has not the library, so no more is rung there. */
void rc_ring_closed(struct rc_engine *engine, struct rc_ring *ring)
{
    struct rc_group *group = ring->lane->group;
    if (ring->asks && ring->caller) { /* all is said, and some of it is still to be heard */
        fall_silent(engine, ring);
        return;
    }
    if (!ring->caller && ring->lane->worker)
        ring->lane->worker->receives = false;
    rc_ring_end(engine, ring);
    rc_handout_run(engine, group);
}

void rc_rings_alarm(struct rc_engine *engine)
{
    int64_t now = rc_now_us();
    for (struct rc_ring *ring = engine->rings.all, *next; ring; ring = next) {
        next = ring->next;
        if (ring->until <= now)
            rc_ring_end(engine, ring);
        else
            ring->late |= !ring->caller && !ring->withdrawn && ring->rung_at + LATE_US <= now;
    }
    next_alarm(engine);
    rc_handout_run_all(engine);
}

/* ---- by name ------------------------------------------------------------------------------ */

struct rc_ring *rc_ring_named(const struct rc_engine *engine, const struct sockaddr_in6 *name)
{
    const struct sockaddr_in *name4 = (const void *)name;
    struct rc_ring *ring = engine->rings.all;
    for (; ring; ring = ring->next) {
        const struct sockaddr_in *own4 = (const void *)&ring->name;
        if (ring->name.sin6_family != name->sin6_family || ring->name.sin6_port != name->sin6_port)
            continue;
        if (name->sin6_family == AF_INET
                ? own4->sin_addr.s_addr == name4->sin_addr.s_addr
                : memcmp(&ring->name.sin6_addr, &name->sin6_addr, sizeof name->sin6_addr) == 0)
            break;
    }
    return ring;
}

static int reply(const struct rc_shim_caller *caller, enum rc_wire_brings brings,
                 const struct rc_accepted *accepted, int fd)
{
    struct rc_wire_reply said = {.magic = RC_WIRE_MAGIC, .brings = brings};
    if (accepted) {
        said.length = (uint32_t)accepted->length;
        said.peer = accepted->peer;
    }
    return rc_send_descriptor(caller->source.fd, &said, sizeof said, fd);
}

static struct rc_worker *worker_of(struct rc_engine *engine, const struct rc_shim_caller *caller,
                                   const struct rc_wire_request *request)
{
    struct rc_worker *worker = rc_find(engine, caller->worker ? caller->worker : request->worker);
    return worker && !worker->dead ? worker : NULL;
}

/* True where the caller stays, to acknowledge, or to answer. */
static bool answer(struct rc_engine *engine, struct rc_shim_caller *caller,
                   const struct rc_wire_request *request)
{
    const struct rc_worker *worker = worker_of(engine, caller, request);
    struct rc_ring *ring = rc_ring_named(engine, &request->address);
    struct rc_accepted accepted;
    if (!ring || !worker || !rc_lane_held_by(ring->lane, worker)) {
        (void)reply(caller, RC_BRINGS_ITSELF, NULL, -1);
        return false;
    }
    if (ring->asks && !ring->caller && !ring->withdrawn) {
        ring->caller = caller;
        ring->until = rc_now_us() + KEPT_US;
        caller->ring = ring;
        caller->silent_until = 0;
        if (reply(caller, RC_BRINGS_QUESTION, NULL, -1) < 0)
            rc_ring_end(engine, ring);
        next_alarm(engine);
        return true;
    }
    if (ring->asks || ring->caller || ring->withdrawn || ring->barrier || worker->given_up ||
        !rc_handout_next(engine, ring->lane->group, &accepted)) {
        (void)reply(caller, RC_BRINGS_NOTHING, NULL, -1);
        if (!ring->caller)
            rc_ring_end(engine, ring);
        return false;
    }
    rc_kernel_moved(ring->lane, &accepted);
    ring->given = accepted;
    ring->caller = caller;
    ring->until = rc_now_us() + KEPT_US;
    caller->ring = ring;
    caller->silent_until = 0;
    if (reply(caller, RC_BRINGS_ANOTHER, &accepted, accepted.fd) < 0) {
        rc_ring_end(engine, ring); /* with the caller; what it was given is ours */
        return true;
    }
    next_alarm(engine);
    return true;
}

/* True if the caller is dealt with. */
bool rc_ring_asked(struct rc_engine *engine, struct rc_shim_caller *caller,
                   const struct rc_wire_request *request)
{
    if (request->operation == RC_WIRE_BELL) {
        struct rc_ring *ring = rc_ring_named(engine, &request->address);
        struct rc_group *group = ring ? ring->lane->group : NULL;
        bool stays = answer(engine, caller, request);
        if (group)
            rc_handout_run(engine, group);
        return stays;
    }
    struct rc_worker *worker = worker_of(engine, caller, request);
    if (worker && engine->rings.page) {
        worker->receives = true;
        (void)reply(caller, RC_BRINGS_NOTHING, NULL, engine->rings.shown);
        rc_handout_run_all(engine);
    }
    return false;
}

/* Something came over the connection of who was given one: that it has arrived, or its end. */
void rc_ring_kept(struct rc_engine *engine, struct rc_shim_caller *caller)
{
    struct rc_ring *ring = caller->ring;
    struct rc_group *group = ring->lane->group;
    if (ring->asks && ring->lane->worker && rc_question_heard(ring->lane->worker, caller))
        return;
    rc_ring_end(engine, ring);
    rc_handout_run(engine, group);
}

/* ---- the end ------------------------------------------------------------------------------- */

/* In a forked child: a worker may read the page, and asks for it as any other does. */
void rc_rings_unmap(const struct rc_engine *engine)
{
    if (engine->rings.page)
        (void)munmap(engine->rings.page, sizeof *engine->rings.page);
}

/* Closes only: in a forked child too. */
void rc_rings_close(const struct rc_engine *engine)
{
    for (const struct rc_ring *ring = engine->rings.all; ring; ring = ring->next) {
        if (ring->client.fd >= 0)
            (void)close(ring->client.fd);
        if (ring->given.fd >= 0)
            (void)close(ring->given.fd);
    }
    if (engine->rings.page) {
        (void)close(engine->rings.memory);
        (void)close(engine->rings.shown);
    }
}

void rc_rings_free(struct rc_engine *engine)
{
    while (engine->rings.all) {
        struct rc_ring *ring = engine->rings.all;
        engine->rings.all = ring->next;
        free(ring);
    }
    if (engine->rings.page)
        (void)munmap(engine->rings.page, sizeof *engine->rings.page);
    engine->rings.page = NULL;
}
