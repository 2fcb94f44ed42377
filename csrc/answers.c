/* answers.c - what a trapped call returns, by either door: now, or later.
 *
 * Owns: the sending. What the answer is, others know.
 */
#include "internal.h"
#include "preload/wire.h"

#include <linux/seccomp.h>
#include <sys/ioctl.h>

void rc_notify_reply(int door, uint64_t id, bool pass, int result)
{
    struct seccomp_notif_resp reply = {
        .id = id,
        .error = pass ? 0 : result,
        .flags = pass ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0,
    };
    (void)ioctl(door, SECCOMP_IOCTL_NOTIF_SEND, &reply); /* ENOENT: the caller is dead */
}

static void answer_notice(const struct rc_worker *worker, uint64_t notice, int result)
{
    if (worker->door.fd >= 0)
        rc_notify_reply(worker->door.fd, notice, false, result);
}

void rc_caller_free(struct rc_engine *engine, struct rc_shim_caller *caller)
{
    struct rc_shim_caller **link = &engine->callers;
    while (*link != caller)
        link = &(*link)->next;
    *link = caller->next;
    rc_source_shut(engine->epoll, &caller->source);
    rc_bury(engine, caller);
}

int rc_shim_reply(int socket, const struct rc_answer *answer, int replace)
{
    struct rc_wire_reply reply = {
        .magic = RC_WIRE_MAGIC,
        .pass = answer->pass,
        .error = answer->pass ? 0 : -answer->result,
    };
    return rc_send_descriptor(socket, &reply, sizeof reply, replace);
}

static void answer_shim(struct rc_engine *engine, struct rc_shim_caller *caller, int result)
{
    struct rc_answer answer = {.result = result};
    (void)rc_shim_reply(caller->source.fd, &answer, -1);
    rc_caller_free(engine, caller);
}

/* Of either door: a call whose answer had to wait. */
void rc_later_answer(struct rc_engine *engine, const struct rc_worker *worker,
                     struct rc_later *later, int result)
{
    const struct rc_later once = *later;
    *later = (struct rc_later){0};
    if (once.caller)
        answer_shim(engine, once.caller, result);
    else if (once.notice)
        answer_notice(worker, once.notice, result);
}
