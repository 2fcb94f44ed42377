/* handover.c - kept connections of a worker that leaves: held when it is told to, judged when
 * it has let them go, and given to another with the client's next request.
 *
 * A server that is told to stop closes its idle connections, and whoever has just sent a
 * request on one of them loses it. While the master holds a duplicate that close is not seen by
 * the client. Does not own how it is given (handout.c, ring.c).
 *
 * Invariants:
 *  - only what was answered is given on: it was closed by a worker that lives and has answered,
 *    or was seen to be answered. What was read and not answered is closed, as the worker meant;
 *  - only where HTTP/1 was seen and nothing else, and only what begins with a request: of other
 *    protocols a close that is withheld loses what it should save;
 *  - never while the old worker may read: its number is closed and no epoll of it has the
 *    socket, or it has ended. One that blocks in read(2) has ended;
 *  - each has an end: given, closed by its client, or `until`.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LOOK_US = 2000,    /* between two looks while a worker lets go, */
    LOOKS_US = 500000, /* for so long; and then: */
    LATER_US = 50000,
    IDLE_US = 2000000, /* a client that asks for nothing more; it may wait for a stream's end */
    ENDS_US = 500000,  /* for a client that was told to close, or waits for it as the end */
    ROOM_LEAST = 1024, /* descriptors, beside two for each connection */
    STILL_MS = 12,     /* after an answer: then its close was not a part of that */
};

int rc_handover_idle(rc_engine *engine, double seconds)
{
    if (!(seconds >= 0 && seconds <= 1e9)) /* a NaN is neither */
        return -EINVAL;
    engine->handover.idle_us = (int64_t)(seconds * 1e6);
    return 0;
}

static void next_alarm(struct rc_engine *engine, int64_t now)
{
    const struct rc_handover *handover = &engine->handover;
    int64_t at = 0;
    bool any = false;
    for (const struct rc_kept *kept = handover->all; kept; kept = kept->next) {
        bool looks = kept->state == RC_KEPT_HELD || kept->state == RC_KEPT_GIVES;
        any |= looks && now < handover->began_at + LOOKS_US;
        int64_t due = kept->until;
        if (looks)
            due = now + (now < handover->began_at + LOOKS_US ? LOOK_US : LATER_US);
        at = !at || due < at ? due : at;
    }
    for (const struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (worker->question.asked_at)
            at = now + LOOK_US;
    rc_alarm_set(engine, RC_ALARM_KEPT, at);
    engine->handover.hastes = any; /* a look that comes late misses how it was */
    rc_slice_short(engine, any || engine->imbalance_at || rc_polling_on(engine, now));
}

static void unlink_kept(struct rc_engine *engine, struct rc_kept *kept)
{
    struct rc_kept **link = &engine->handover.all;
    while (*link != kept)
        link = &(*link)->next;
    *link = kept->next;
    rc_source_shut(engine->epoll, &kept->client);
    rc_bury(engine, kept);
}

/* ---- giving -------------------------------------------------------------------------- */

/* As a new connection of that lane has them: what the old worker has set is gone. */
static void restore_options(int fd, const struct rc_group *group)
{
    static const int kept[][2] = {
        {IPPROTO_TCP, TCP_NODELAY}, {SOL_SOCKET, SO_KEEPALIVE}, {IPPROTO_TCP, TCP_CORK}};
    const struct linger none = {0};
    const struct timeval never = {0};
    int listener = group->lanes[0]->source.fd;
    for (unsigned at = 0; at < group->count; at++)
        if (group->lanes[at]->worker && group->lanes[at]->chosen)
            listener = group->lanes[at]->source.fd;
    for (size_t at = 0; at < sizeof kept / sizeof kept[0]; at++) {
        int value = rc_socket_get(listener, kept[at][0], kept[at][1]);
        if (value >= 0)
            (void)rc_socket_set(fd, kept[at][0], kept[at][1], value);
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof never);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &never, sizeof never);
}

static bool is_let_go(const struct rc_kept *kept)
{
    return !kept->worker || (!kept->blocks && !rc_polled_by(kept->pid, kept->inode));
}

static void give(struct rc_engine *engine, struct rc_kept *kept)
{
    struct rc_group *group = kept->group;
    struct rc_accepted accepted = {.length = sizeof accepted.peer, .number = kept->mark};
    kept->state = RC_KEPT_GIVES;
    (void)rc_source_arm(engine->epoll, &kept->client, 0);
    if (!is_let_go(kept))
        return; /* at the next look */
    if (getpeername(kept->client.fd, (struct sockaddr *)&accepted.peer, &accepted.length) == 0)
        accepted.fd = fcntl(kept->client.fd, F_DUPFD_CLOEXEC, 3);
    else
        accepted.fd = -1;
    unlink_kept(engine, kept);
    if (accepted.fd < 0)
        return;
    restore_options(accepted.fd, group);
    rc_accepted_keep(group, &accepted);
    rc_handout_run(engine, group);
}

/* ---- judging ------------------------------------------------------------------------------ */

/* Something lies there, or the client has closed. */
void rc_handover_heard(struct rc_engine *engine, struct rc_kept *kept)
{
    struct rc_exchange now;
    int speaks = rc_exchange_peek(kept->client.fd);
    if (speaks == -EPROTO)
        kept->group->speaks = RC_SPEECH_OTHER;
    if (speaks <= 0 || kept->state == RC_KEPT_ENDS || rc_exchange_look(kept->client.fd, &now) < 0 ||
        !now.open)
        unlink_kept(engine, kept);
    else
        give(engine, kept);
}

static void keep(struct rc_engine *engine, struct rc_kept *kept, enum rc_kept_state state,
                 int64_t us)
{
    kept->state = state;
    kept->until = rc_now_us() + us;
    if (rc_source_arm(engine->epoll, &kept->client, EPOLLIN | EPOLLRDHUP) < 0)
        unlink_kept(engine, kept);
}

static bool speaks_http(struct rc_kept *kept)
{
    if (kept->group->speaks == RC_SPEECH_UNKNOWN && rc_exchange_peek(kept->client.fd) == 1)
        kept->group->speaks = RC_SPEECH_HTTP1;
    return kept->group->speaks == RC_SPEECH_HTTP1;
}

/* Whether what the worker has read is answered: nothing more was read since the last look and
 * something written, or nothing moved since it was so; or the last answer is younger than the
 * last request, which can be told while nothing lies there. */
static void notice(struct rc_kept *kept, const struct rc_exchange *now)
{
    bool still = now->read == kept->last.read, more = now->written > kept->last.written;
    kept->settled = (still && (more || kept->settled)) ||
                    (now->unread == 0 && now->answered_ms >= 0 && now->written > 0);
    kept->last = *now;
}

/* How long the client may take to ask for more; 0: it is closed, as the worker meant. A server
 * that lives closes what it has answered, or never read; of one that has ended nothing is
 * known but what was noticed before. What lies there begins with a request only if the answer
 * before was whole; where nothing does, the last answer must be younger than the last request. */
static int64_t patience(const struct rc_engine *engine, const struct rc_kept *kept,
                        const struct rc_exchange *now)
{
    if (kept->moved && now->written == kept->before.written)
        return engine->handover.idle_us;
    if (now->read == 0 && now->written == 0)
        return IDLE_US;
    if (!kept->settled && !(kept->worker && now->written > kept->then.written))
        return 0;
    if (now->unread)
        return IDLE_US;
    return now->answered_ms < 0                                ? 0
           : now->answered_ms == 0 || now->quiet_ms < STILL_MS ? ENDS_US
                                                               : IDLE_US;
}

/* The worker has closed it, or has ended. Who was answered and told to close, or waits for
 * that as the answer's end, has it after ENDS_US. */
static void judge(struct rc_engine *engine, struct rc_kept *kept)
{
    struct rc_exchange now;
    rc_freeze_end(kept);
    if (rc_exchange_look(kept->client.fd, &now) < 0 || !now.open) {
        unlink_kept(engine, kept);
        return;
    }
    notice(kept, &now);
    int64_t us = patience(engine, kept, &now);
    if (us && speaks_http(kept))
        keep(engine, kept, RC_KEPT_IDLE, us);
    else if (now.written > kept->then.written)
        keep(engine, kept, RC_KEPT_ENDS, ENDS_US);
    else
        unlink_kept(engine, kept);
}

/* Its number is another's, or nobody's: then no other process of the worker may have it. */
static bool is_closed(const struct rc_kept *kept)
{
    struct rc_flow one = {.inode = (uint32_t)kept->inode};
    struct rc_flows flows = {.all = &one, .count = 1, .room = 1};
    if (!kept->worker)
        return true;
    return rc_socket_at(kept->pid, kept->number) != kept->inode &&
           rc_holders_mark(kept->worker->pid, &flows) == 0 && !one.held;
}

static void watch(struct rc_kept *kept, const struct rc_exchange *now)
{
    bool begins = now->read == 0 || kept->settled;
    notice(kept, now);
    if (now->unread && begins && kept->settled)
        (void)speaks_http(kept);
}

/* As a look does, of one that is held; what has closed shows at the next. */
void rc_handover_glance(struct rc_kept *kept)
{
    struct rc_exchange now;
    if (rc_exchange_look(kept->client.fd, &now) == 0 && now.open)
        watch(kept, &now);
}

static void look(struct rc_engine *engine, struct rc_kept *kept, int64_t now_us)
{
    struct rc_exchange now;
    if (kept->until && kept->until <= now_us) {
        unlink_kept(engine, kept);
    } else if (kept->state == RC_KEPT_GIVES) {
        give(engine, kept);
    } else if (kept->state == RC_KEPT_HELD) {
        if (is_closed(kept))
            judge(engine, kept);
        else if (rc_exchange_look(kept->client.fd, &now) < 0 || !now.open)
            unlink_kept(engine, kept); /* by the worker's FIN, or the client's */
        else
            watch(kept, &now);
    }
}

void rc_handover_alarm(struct rc_engine *engine)
{
    int64_t now = rc_now_us();
    for (struct rc_kept *kept = engine->handover.all, *next; kept; kept = next) {
        next = kept->next;
        look(engine, kept, now);
    }
    for (struct rc_worker *worker = engine->workers; worker; worker = worker->next)
        if (rc_question_look(engine, worker, now))
            engine->handover.began_at = now;
    rc_freeze_look(engine, now);
    if (rc_move_look(engine, now))
        engine->handover.began_at = now; /* looks go on as they began */
    next_alarm(engine, now);
}

/* ---- holding -------------------------------------------------------------------------------- */

static struct rc_lane *lane_of(const struct rc_engine *engine, const struct rc_worker *worker,
                               int fd)
{
    for (const struct rc_group *group = engine->groups; group; group = group->next)
        for (unsigned at = 0; at < group->count && !group->front; at++)
            if (group->lanes[at]->worker && rc_lane_held_by(group->lanes[at], worker) &&
                rc_key_covers(&group->key, fd))
                return group->lanes[at];
    return NULL;
}

static bool is_held(const struct rc_engine *engine, uint64_t inode)
{
    const struct rc_kept *kept = engine->handover.all;
    while (kept && kept->inode != inode)
        kept = kept->next;
    return kept;
}

static int hold(struct rc_engine *engine, struct rc_worker *worker, const struct rc_flow *flow)
{
    int fd = rc_take_descriptor(worker, flow->holder, flow->number);
    if (fd == -EPERM || fd == -ENOSYS)
        fd = rc_question_take(worker, flow->inode);
    if (fd < 0)
        return fd;
    struct rc_kept *kept = calloc(1, sizeof *kept);
    struct rc_lane *lane = lane_of(engine, worker, fd);
    int flags = fcntl(fd, F_GETFL);
    int error = !kept                                         ? -ENOMEM
                : !rc_descriptors_spare(fd)                   ? -EMFILE
                : !lane || rc_socket_inode(fd) != flow->inode ? -ENOENT
                                                              : 0;
    if (!error && !rc_handout_can(lane->group))
        error = -ENOTSUP;
    if (!error)
        error = rc_exchange_look(fd, &kept->then);
    if (!error && !kept->then.open)
        error = -ENOTCONN;
    if (!error)
        error = rc_source_add(engine->epoll, &kept->client, RC_SOURCE_KEPT, fd, 0);
    if (error) {
        rc_close(&fd);
        free(kept);
        return error;
    }
    notice(kept, &kept->then);
    kept->group = lane->group;
    kept->mark = lane->number;
    kept->worker = worker;
    kept->pid = flow->holder;
    kept->number = flow->number;
    kept->inode = flow->inode;
    kept->blocks = flags < 0 || !(flags & O_NONBLOCK);
    kept->group->blocks |= kept->blocks;
    kept->next = engine->handover.all;
    engine->handover.all = kept;
    return 0;
}

/* All that it has accepted and is not held yet: the first error but for what has just closed. */
int rc_handover_hold(struct rc_engine *engine, struct rc_worker *worker)
{
    struct rc_flows flows = {.all = NULL};
    int result = rc_drain_flows(engine, worker, &flows);
    if (flows.count)
        (void)rc_descriptors(engine, ROOM_LEAST + 2 * (unsigned)flows.count);
    for (size_t at = 0; result != -EPERM && at < flows.count; at++) {
        int error = is_held(engine, flows.all[at].inode) ? 0 : hold(engine, worker, &flows.all[at]);
        if (error && error != -ENOTCONN && (!result || error == -EPERM))
            result = error;
    }
    rc_flows_free(&flows);
    return result;
}

/* It goes on with what is held and is still its own. */
void rc_handover_let_go(struct rc_engine *engine, const struct rc_worker *worker)
{
    for (struct rc_kept *kept = engine->handover.all, *next; kept; kept = next) {
        next = kept->next;
        if (kept->worker != worker || kept->state != RC_KEPT_HELD)
            continue;
        rc_freeze_end(kept);
        unlink_kept(engine, kept);
    }
}

/* With what is held. False where the signal is to be sent now. */
static bool begin(struct rc_engine *engine, struct rc_worker *worker, int signal, bool may)
{
    engine->handover.began_at = rc_now_us();
    bool waits = may && rc_freeze_begin(engine, worker, signal);
    next_alarm(engine, engine->handover.began_at);
    return waits;
}

/* What could be had of its descriptors is there now. */
void rc_handover_begin(struct rc_engine *engine, struct rc_worker *worker, int signal)
{
    if (begin(engine, worker, signal, rc_handover_hold(engine, worker) != -EPERM))
        return;
    worker->leave = (struct rc_leave){.signal = signal, .barriers = worker->leave.barriers};
    rc_leave_now(engine, worker, rc_now_us());
}

/* The worker is about to be told to stop. Where its descriptors may not be had, or nobody could
 * receive, it is left as ever. */
int rc_hand_over(rc_engine *engine, uint32_t id, int signal)
{
    struct rc_worker *worker = rc_find(engine, id);
    if (!worker || worker->dead)
        return -ESRCH;
    rc_move_end(worker);
    if (!engine->rings.page)
        return -ENOTSUP;
    int error = rc_handover_hold(engine, worker);
    if (error == -EPERM && (worker->question.asked_at || rc_question_ask(engine, worker) == 0)) {
        worker->question.moves = false;
        worker->question.signal = signal;
        next_alarm(engine, rc_now_us());
        return 1;
    }
    bool waits = begin(engine, worker, signal, error != -EPERM);
    return error == -EPERM ? error : waits;
}

/* Its descriptors are closed, and none of its threads reads. */
void rc_handover_ended(struct rc_engine *engine, struct rc_worker *worker)
{
    rc_move_end(worker);
    rc_question_end(worker);
    for (struct rc_kept *kept = engine->handover.all, *next; kept; kept = next) {
        next = kept->next;
        if (kept->worker != worker)
            continue;
        kept->worker = NULL;
        look(engine, kept, rc_now_us());
    }
    next_alarm(engine, rc_now_us());
}

void rc_handover_leave(struct rc_engine *engine, struct rc_group *group)
{
    for (struct rc_kept *kept = engine->handover.all, *next; kept; kept = next) {
        next = kept->next;
        if (kept->group == group)
            unlink_kept(engine, kept);
    }
}

/* Closes only: in a forked child too. */
void rc_handover_close(const struct rc_engine *engine)
{
    for (const struct rc_kept *kept = engine->handover.all; kept; kept = kept->next)
        (void)close(kept->client.fd);
}

void rc_handover_free(struct rc_engine *engine)
{
    while (engine->handover.all) {
        struct rc_kept *kept = engine->handover.all;
        engine->handover.all = kept->next;
        free(kept);
    }
}

const struct rc_part rc_handover_part = {
    .group_changed = rc_handout_run, .lane_goes = rc_rings_leave, .group_goes = rc_handover_leave};
