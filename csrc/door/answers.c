/* answers.c - what a trapped call returns, by either door: now, or later.
 *
 * Owns: the sending. What the answer is, others know.
 */
#include "internal.h"
#include "preload/wire.h"

#include <linux/seccomp.h>
#include <sys/ioctl.h>

void rc_notify_reply(struct rc_asked *asked, int door, uint64_t id, bool pass, int result)
{
    struct seccomp_notif_resp reply = {
        .id = id,
        .error = pass ? 0 : result,
        .flags = pass ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0,
    };
    (void)ioctl(door, SECCOMP_IOCTL_NOTIF_SEND, &reply); /* ENOENT: the caller is dead */
    rc_asked_done(asked, id);
}

int rc_shim_reply(int socket, const struct rc_answer *answer, int replace)
{
    struct rc_wire_reply reply = {
        .magic = RC_WIRE_MAGIC,
        .pass = !answer->pass   ? 0
                : answer->share ? RC_WIRE_SHARE
                                : RC_WIRE_PLAIN,
        .error = answer->pass ? 0 : -answer->result,
    };
    return rc_send_descriptor(socket, &reply, sizeof reply, replace);
}

/* ---- later: a call whose answer had to wait ------------------------------------------- */

static void answer_notice(struct rc_engine *engine, const struct rc_worker *worker,
                          const struct rc_later *later, bool pass, int result)
{
    if (worker->door.fd >= 0)
        rc_notify_reply(engine->asked, worker->door.fd, later->notice, pass, result);
    else
        rc_asked_done(engine->asked, later->notice);
}

struct rc_later rc_later_notice(uint64_t notice)
{
    return (struct rc_later){.answer = answer_notice, .notice = notice};
}

static void answer_shim(struct rc_engine *engine, const struct rc_worker *worker,
                        const struct rc_later *later, bool pass, int result)
{
    struct rc_answer answer = {.pass = pass, .result = result};
    struct rc_shim_caller *caller = later->caller;
    (void)worker;
    (void)rc_shim_reply(caller->source.fd, &answer, -1);
    if (rc_unix_has_turn(engine, caller))
        rc_caller_stays(engine, caller);
    else
        rc_caller_free(engine, caller);
}

struct rc_later rc_later_shim(struct rc_shim_caller *caller)
{
    return (struct rc_later){.answer = answer_shim, .caller = caller};
}
