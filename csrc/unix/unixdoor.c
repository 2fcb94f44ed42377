/* unixdoor.c - what a bind(2), a listen(2) and an unlink(2) of an AF_UNIX name become.
 *
 * Owns the decision. The first worker's bind is the kernel's to do, for that worker; its
 * socket becomes the lane. Who asks for the same name afterwards, and might have bound it
 * as well, is told that it has, and gets the lane at its listen. An unlink that would take
 * the name from the others is told that it was done. Everything else passes.
 */
#include "unix/unixlane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_stream(int fd)
{
    return rc_socket_get(fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX &&
           rc_socket_get(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
}

/* ---- bind ------------------------------------------------------------------------- */

/* The kernel binds it for the worker. Where there is no memory to know of it, it is the
 * worker's own business. */
static void claim(struct rc_engine *engine, const struct rc_call *call,
                  const struct rc_unix_name *name, const char *who)
{
    int fd = fcntl(call->fd, F_DUPFD_CLOEXEC, 3);
    struct rc_unix_lane *lane =
        fd < 0 ? NULL
               : rc_unix_lane_new(engine, name, who, call->path.sun_path,
                                  rc_unix_name_length(&call->path, call->path_length), fd);
    if (!lane)
        rc_close(&fd);
    else if (rc_unix_ask(lane, call->worker, lane->inode) < 0 ||
             !rc_unix_turn(engine, call, RC_TURN_BIND, name, lane))
        rc_unix_lane_free(engine, lane);
}

/* Whether a new socket may come to the name: it is gone, or it may be and the worker's
 * own unlink would not have been seen (notify.c). */
static bool is_gone(struct rc_unix_lane *lane, const struct rc_call *call, bool like_us)
{
    enum rc_unix_leads leads = rc_unix_leads(lane->name, like_us, lane->fd, &lane->node);
    return leads == RC_LEADS_UNKNOWN ? !call->worker->unlinks_seen : leads != RC_LEADS_THERE;
}

static void decide_bind(struct rc_engine *engine, const struct rc_call *call,
                        const struct rc_unix_name *name, struct rc_answer *answer)
{
    struct rc_unix_who who;
    if (!rc_unix_who(call, &who))
        return;
    struct rc_unix_lane *lane = rc_unix_find(engine, call, name, &who);
    bool abstract = !rc_unix_is_path(name->bytes);
    if (lane && !lane->bound) /* by another thread of the worker */
        return;
    if (lane && (abstract || rc_unix_has_others(lane, call->worker)) &&
        !is_gone(lane, call, who.like_us)) {
        answer->pass = false;
        answer->result = rc_unix_ask(lane, call->worker, rc_socket_inode(call->fd));
        lane->shared = true;
        return;
    }
    if (rc_unix_count_own(engine, call->worker) < RC_UNIX_OWN_MAX &&
        !(who.like_us && !abstract && rc_unix_is_private(call->worker, name->bytes)))
        claim(engine, call, name, who.text);
}

/* ---- unlink ----------------------------------------------------------------------- */

static void decide_unlink(struct rc_engine *engine, const struct rc_call *call,
                          const struct rc_unix_name *name, struct rc_answer *answer)
{
    struct rc_unix_who who;
    struct rc_unix_lane *lane = NULL;
    if (rc_unix_is_base(engine, name)) {
        if (!rc_unix_who(call, &who))
            return;
        lane = rc_unix_find(engine, call, name, &who);
        /* Who has dropped its rights since its bind still has the socket. */
        for (struct rc_unix_lane *one = engine->unixes; one && !lane; one = one->next)
            if (!one->lost && rc_unix_is_said(one, name) && rc_unix_is_member(one, call->worker))
                lane = one;
    }
    if (lane &&
        (lane->removed || (!engine->unix_closing && rc_unix_has_others(lane, call->worker)))) {
        enum rc_unix_leads leads = rc_unix_leads(lane->name, who.like_us, lane->fd, &lane->node);
        answer->pass = leads == RC_LEADS_ELSEWHERE; /* a stranger's */
        answer->result = leads == RC_LEADS_NOWHERE && !lane->removed ? -ENOENT : 0;
        return;
    }
    if (lane && engine->unix_closing)
        lane->removed = true;
    if (name->length < sizeof call->path.sun_path + PATH_MAX)
        (void)rc_unix_turn(engine, call, RC_TURN_UNLINK, name, lane);
}

/* ---- both ------------------------------------------------------------------------- */

void rc_unix_decide(struct rc_engine *engine, const struct rc_call *call, bool unlinks,
                    const struct rc_unix_name *name, struct rc_answer *answer)
{
    rc_unix_claim_stored(engine, call, name);
    if (unlinks)
        decide_unlink(engine, call, name, answer);
    else
        decide_bind(engine, call, name, answer);
}

static void in_turn(struct rc_engine *engine, const struct rc_call *call, bool unlinks,
                    const struct rc_unix_name *name, struct rc_answer *answer)
{
    rc_unix_look(engine);
    if (rc_unix_must_wait(engine, call->worker, name))
        answer->pass = rc_unix_wait(engine, call, unlinks, name, &answer->later) < 0;
    else
        rc_unix_decide(engine, call, unlinks, name, answer);
}

void rc_unix_bind(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    struct sockaddr_un now;
    struct rc_unix_name name;
    answer->pass = true;
    if (!is_stream(call->fd) || rc_unix_name_at(call->fd, &now))
        return;
    if (rc_unix_name_of(call, AT_FDCWD, call->path.sun_path,
                        rc_unix_name_length(&call->path, call->path_length), &name))
        in_turn(engine, call, false, &name, answer);
}

/* A worker's unlink(2), or unlinkat(2) without flags. */
void rc_unix_unlink(struct rc_engine *engine, const struct rc_call *call, int at, const char *path,
                    struct rc_answer *answer)
{
    struct rc_unix_name name;
    size_t length = strlen(path);
    answer->pass = true;
    if (length <= RC_UNIX_PATH_MAX && rc_unix_name_of(call, at, path, length, &name))
        in_turn(engine, call, true, &name, answer);
}

/* ---- listen ----------------------------------------------------------------------- */

/* O_NONBLOCK belongs to the description: while another accepts from it, it stays
 * as it is. Cleared under an event loop, that would hang in accept(2). */
static void give_mode(const struct rc_call *call, const struct rc_unix_lane *lane)
{
    int flags = fcntl(call->fd, F_GETFL);
    for (unsigned at = 0; at < lane->count; at++)
        if (!lane->members[at]->dead && lane->members[at] != call->worker)
            return;
    if (flags >= 0)
        (void)fcntl(lane->fd, F_SETFL, flags);
}

/* Somebody may have replaced the name since its bind. */
void rc_unix_listened(struct rc_engine *engine, struct rc_unix_lane *lane, struct rc_worker *worker)
{
    if (rc_unix_join(lane, worker) < 0)
        return;
    if (lane->who) /* stored: no longer nobody's */
        rc_unix_part(lane, engine->unowned);
    bool proves = rc_unix_prove(engine, lane, worker);
    rc_emit_place(engine, RC_EVENT_LISTENING, worker->id, 1 + proves, lane->text);
    if (lane->lost && !proves)
        rc_unix_tell_lost(engine, worker);
}

/* listen(2) writes the caller's rights into the socket, for SO_PEERCRED. So the master
 * does it (with room for more) only for one that has the same. */
static int listen_there(struct rc_engine *engine, const struct rc_call *call,
                        struct rc_unix_lane *lane, struct rc_answer *answer)
{
    static const struct rc_unix_name none;
    if (!lane->who && lane->backlog)
        return 0;
    struct rc_unix_who who;
    if (rc_unix_who(call, &who) && who.like_us)
        return rc_widen(lane->fd, &lane->backlog, call->backlog);
    /* Another may have been let do so, and not have come to it yet. */
    if (rc_socket_get(lane->fd, SOL_SOCKET, SO_ACCEPTCONN) > 0)
        return 0;
    answer->pass = rc_unix_turn(engine, call, RC_TURN_LISTEN, &none, lane);
    lane->backlog = answer->pass ? (unsigned)(call->backlog > 0 ? call->backlog : 1) : 0;
    return answer->pass ? 0 : -ENOMEM;
}

/* Where the bind was not seen: nine bytes of path (notify.c). */
static void announce_unseen(struct rc_engine *engine, const struct rc_call *call)
{
    struct sockaddr_un name;
    size_t length = rc_unix_name_at(call->fd, &name);
    char text[128];
    if (offsetof(struct sockaddr_un, sun_path) + length + 1 != RC_NETLINK_LENGTH ||
        !name.sun_path[0] || rc_socket_get(call->fd, SOL_SOCKET, SO_ACCEPTCONN) != 0)
        return;
    snprintf(text, sizeof text, "unix:%.*s", (int)length, name.sun_path);
    rc_emit_place(engine, RC_EVENT_LISTENING, call->worker->id, false, text);
}

/* True if it is an AF_UNIX stream socket, or one for all, and so answered here. */
bool rc_unix_listen(struct rc_engine *engine, const struct rc_call *call, struct rc_answer *answer)
{
    uint64_t inode = rc_socket_inode(call->fd);
    struct rc_unix_lane *lane = rc_unix_lane_of(engine, call->worker, inode);
    if (!lane && !is_stream(call->fd))
        return false;
    if (!lane || !rc_unix_bound(engine, lane)) { /* the worker's own business */
        answer->pass = true;
        announce_unseen(engine, call);
        return true;
    }
    bool new = !rc_unix_is_member(lane, call->worker);
    answer->pass = false;
    answer->result = listen_there(engine, call, lane, answer);
    if (answer->result)
        return true;
    if (inode != lane->inode) {
        give_mode(call, lane);
        answer->replace = lane->fd;
    }
    if (answer->pass) /* it is a member when it listens */
        return true;
    answer->result = rc_unix_join(lane, call->worker);
    if (answer->result)
        return true;
    answer->joined = new ? lane : NULL;
    answer->joiner = call->worker;
    if (new || inode != lane->inode)
        rc_unix_listened(engine, lane, call->worker);
    return true;
}

/* The descriptor could not be put in place. With its last member a lane would go, and what
 * waits in it; this one has it until it ends, as one that died. */
void rc_unix_refused(const struct rc_answer *answer)
{
    if (answer->joined && answer->joined->count > 1)
        rc_unix_part(answer->joined, answer->joiner);
}

/* An inherited socket, at the bind: a datagram socket never listens, and a program may
 * see that it listens already, and not do so itself. */
void rc_unix_give(struct rc_engine *engine, const struct rc_call *call, struct rc_unix_lane *lane,
                  struct rc_answer *answer)
{
    bool new = !rc_unix_is_member(lane, call->worker);
    answer->pass = false;
    give_mode(call, lane);
    answer->result = new ? rc_unix_join(lane, call->worker) : 0;
    if (answer->result)
        return;
    lane->shared = true;
    answer->replace = lane->fd;
    if (new)
        rc_unix_listened(engine, lane, call->worker);
}
