/* shimdoor.c - the master's side of the preload shim (csrc/preload).
 *
 * Owns: the abstract socket that shims connect to, and one call per connection.
 * Does not own who may call (callers.c), nor what a bind means (lanes.c). Invariant: a
 * caller proves by the token in its environment that it came out of one of our workers;
 * of which, its parents say where they can.
 */
#include "internal.h"
#include "preload/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

int rc_shim_open(rc_engine *engine)
{
    struct rc_shim *shim = &engine->shim;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t salt;

    if (shim->port.fd >= 0)
        return 0;
    if (getrandom(&shim->token, sizeof shim->token, 0) != sizeof shim->token ||
        getrandom(&salt, sizeof salt, 0) != sizeof salt)
        return -EIO;
    snprintf(shim->name, sizeof shim->name, "recluster-%d-%llx", (int)getpid(),
             (unsigned long long)salt);
    size_t length = strlen(shim->name);
    memcpy(address.sun_path + 1, shim->name, length);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    int error =
        bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 1024) < 0 ? -errno : 0;
    if (!error)
        error = rc_source_add(engine->epoll, &shim->port, RC_SOURCE_SHIM_PORT, fd, EPOLLIN);
    if (error)
        close(fd);
    return error;
}

/* The port of the master before, by which its workers know us. Takes the descriptor. */
int rc_shim_resume(struct rc_engine *engine, int fd, uint64_t token)
{
    struct rc_shim *shim = &engine->shim;
    struct sockaddr_un address;
    socklen_t length = sizeof address, head = offsetof(struct sockaddr_un, sun_path) + 1;
    memset(&address, 0, sizeof address);
    if (shim->port.fd >= 0)
        return -EBUSY;
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return -errno;
    if (length <= head || length > sizeof address || length - head >= sizeof shim->name)
        return -EINVAL;
    memcpy(shim->name, address.sun_path + 1, length - head);
    shim->name[length - head] = '\0';
    shim->token = token;
    return rc_source_add(engine->epoll, &shim->port, RC_SOURCE_SHIM_PORT, fd, EPOLLIN);
}

/* Bells, of which their takers ask at our port. */
int rc_ring_open(rc_engine *engine)
{
    int error = rc_rings_open(engine);
    return error || !rc_ring_opened(engine) ? error : rc_shim_open(engine);
}

int rc_shim_address(const rc_engine *engine, uint32_t worker, char *out, size_t room)
{
    int length = snprintf(out, room, "%s/%u/%llx", engine->shim.name, worker,
                          (unsigned long long)engine->shim.token);
    return length < 0 || (size_t)length >= room ? -ENOBUFS : length;
}

/* Nobody is to be answered over it any more. */
static void caller_gone(struct rc_engine *engine, struct rc_shim_caller *caller)
{
    rc_later_forget(engine, caller);
    rc_caller_free(engine, caller);
}

static void decide(struct rc_engine *engine, const struct rc_wire_request *request,
                   struct rc_shim_caller *caller, int fd, struct rc_answer *answer)
{
    struct rc_call call = {
        .worker = rc_find(engine, caller->worker ? caller->worker : request->worker),
        .pid = caller->pid,
        .thread = caller->pid, /* threads of a process can do what any of them can */
        .caller = caller,
        .number = request->number,
        .fd = fd,
        .backlog = request->backlog,
    };
    if (call.worker)
        call.worker->unlinks_seen = true;
    if (request->path.sun_family == AF_UNIX) {
        call.path = request->path;
        call.path_length = request->length;
    } else {
        call.address = request->address;
        call.length = request->length;
    }
    if (request->operation == RC_WIRE_UNLINK) {
        char path[sizeof request->path.sun_path + 1] = "";
        memcpy(path, request->path.sun_path, sizeof request->path.sun_path);
        if (call.worker)
            rc_unix_unlink(engine, &call, request->number, path, answer);
    } else if (!call.worker || call.worker->dead) {
        /* What is left of a worker that ended must not serve: as when the
         * seccomp door has lost its master. */
        answer->pass = false;
        answer->result = -ENOSYS;
    } else if (request->operation == RC_WIRE_CONNECTED) {
        rc_datagram_connects(engine, &call);
    } else if (request->operation == RC_WIRE_BIND) {
        rc_lanes_bind(engine, &call, answer);
    } else {
        rc_lanes_listen(engine, &call, answer);
    }
}

void rc_shim_call(struct rc_engine *engine, struct rc_source *source)
{
    struct rc_shim_caller *caller = RC_CONTAINER(source, struct rc_shim_caller, source);
    struct rc_wire_request request;
    struct rc_answer answer = {.pass = true, .replace = -1};
    int fd = -1;

    if (caller->ring) {
        rc_ring_kept(engine, caller);
        return;
    }
    if (caller->binds >= 0 || rc_unix_has_turn(engine, caller)) { /* it has, or has ended */
        caller_gone(engine, caller);
        return;
    }
    caller->silent_until = 0;
    ssize_t got = rc_receive_descriptor(source->fd, &request, sizeof request, &fd);
    if (got == sizeof request && request.magic == RC_WIRE_MAGIC &&
        request.token == engine->shim.token && request.operation >= RC_WIRE_PAGE) {
        if (rc_ring_asked(engine, caller, &request)) {
            rc_close(&fd);
            return;
        }
    } else if (got == sizeof request && request.magic == RC_WIRE_MAGIC &&
               request.token == engine->shim.token) {
        if (fd >= 0 || request.operation == RC_WIRE_UNLINK) {
            decide(engine, &request, caller, fd, &answer);
        } else { /* we had no descriptor left to receive it in */
            answer.pass = false;
            answer.result = -EMFILE;
        }
        if (answer.later) { /* its end can still be seen, and nothing else */
            *answer.later = rc_later_shim(caller);
            (void)rc_source_arm(engine->epoll, source, 0);
            rc_close(&fd);
            return;
        }
        int replace = answer.result == 0 ? answer.replace : -1;
        int error = rc_shim_reply(source->fd, &answer, replace);
        if (error < 0)
            rc_lanes_refused(&answer);
        if (!error && answer.pass && answer.share)
            rc_caller_binds(engine, caller, replace >= 0 ? replace : fd);
        if (answer.owned)
            rc_close(&answer.replace);
        if (caller->binds < 0 && rc_unix_has_turn(engine, caller))
            rc_caller_stays(engine, caller);
        if (caller->binds >= 0 || rc_unix_has_turn(engine, caller)) {
            rc_close(&fd);
            return;
        }
    }
    rc_close(&fd);
    caller_gone(engine, caller);
}
